//! The Helm chart: what is rendered of it, asked of a real API server, and which values it refuses.
//!
//! The rendered files are those of deploy/rendered, which `cargo xtask generate --check` holds to the chart.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use pith_tests::cluster::{CLUSTER, Cluster};
use pith_tests::server::{PITH, root};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster::{said, yaml};

/// The namespaces that the rendered files speak of.
const NAMESPACES: [&str; 4] = ["pith-system", "file-systems", "team-web", "team-data"];
/// A group whose kinds the cluster of the tests does not have.
const CERT_MANAGER: &str = "cert-manager.io/v1";

fn rendered_files() -> Vec<PathBuf> {
    let folder = fs::read_dir(root().join("deploy/rendered")).expect("a folder");
    let files = folder.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()).collect::<Vec<_>>();
    assert!(files.len() >= 3, "{files:?}");
    files
}

fn documents(text: &str) -> Vec<Value> {
    let documents = yaml_serde::Deserializer::from_str(text).map(|it| Value::deserialize(it).expect("YAML"));
    documents.filter(|it| !it.is_null()).collect()
}

/// The objects of a rendered file, all in this namespace.
fn objects(file: &PathBuf, namespace: &str) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("a rendered file");
    documents(&NAMESPACES.iter().fold(text, |text, name| text.replace(name, namespace)))
}

/// The registration that Pith is to apply, where it is Pith's to apply.
fn manifest_of_pith(objects: &[Value]) -> Option<Value> {
    let manifest = objects.iter().find_map(|object| object["data"]["webhook.yaml"].as_str())?;
    Some(documents(manifest).remove(0))
}

/// The pod that a Deployment makes.
fn pod_of(deployment: &Value, namespace: &str) -> Value {
    let template = &deployment["spec"]["template"];
    let mut pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]});
    pod["metadata"]["name"] = deployment["metadata"]["name"].clone();
    pod["metadata"]["namespace"] = json!(namespace);
    pod
}

fn dry_run(cluster: &Cluster, objects: &[Value]) -> Output {
    let apply = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
    cluster.try_kubectl(&apply, &yaml(objects)).expect("kubectl runs")
}

/// It succeeded, and the API server had nothing to add.
#[track_caller]
fn taken(output: &Output, what: &str) {
    assert!(output.status.success() && output.stderr.is_empty(), "{what}: {}", said(output));
}

#[test]
fn every_rendered_file_is_taken_by_the_api_server_and_runs_where_pods_are_restricted() {
    let cluster = &*CLUSTER;
    let level = |mode: &str| format!("pod-security.kubernetes.io/{mode}");
    let labels = json!({level("enforce"): "restricted", level("warn"): "restricted"});
    let namespace = cluster.namespace("chart", &labels).expect("a namespace");
    let name = &*namespace.name;
    for file in rendered_files() {
        let shown = file.file_name().expect("a name").display().to_string();
        let (unknown, mut known): (Vec<Value>, Vec<Value>) =
            objects(&file, name).into_iter().partition(|object| object["apiVersion"] == CERT_MANAGER);
        println!("{shown}: {} objects, and {} of {CERT_MANAGER} left out", known.len(), unknown.len());
        assert_eq!(unknown.is_empty(), shown != "cert-manager.yaml", "{shown}");
        known.extend(manifest_of_pith(&known));
        taken(&dry_run(cluster, &known), &shown);

        // Pods of an account that is not there are refused.
        let accounts: Vec<Value> = known.iter().filter(|it| it["kind"] == "ServiceAccount").cloned().collect();
        cluster.apply(&yaml(&accounts)).expect("service accounts");
        let pods: Vec<Value> =
            known.iter().filter(|it| it["kind"] == "Deployment").map(|it| pod_of(it, name)).collect();
        assert_eq!(pods.len(), 2, "{shown}");
        taken(&dry_run(cluster, &pods), &shown);
        for mut pod in pods {
            pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
            let refused = said(&dry_run(cluster, &[pod]));
            assert!(refused.contains("violates PodSecurity \"restricted:latest\""), "{shown}: {refused}");
        }
    }
}

#[test]
fn the_api_server_asks_only_about_pods_that_may_have_a_volume() {
    let cluster = &*CLUSTER;
    let labels = json!({"juicefs.com/enable-injection": "true"});
    let namespace = cluster.namespace("asked", &labels).expect("a namespace");
    let name = &*namespace.name;
    let objects = objects(&root().join("deploy/rendered/default.yaml"), name);
    let mut registration = manifest_of_pith(&objects).expect("it is Pith's to apply");
    // Of this test alone, and nobody serves it: who is asked about is refused.
    registration["metadata"]["name"] = json!(name);
    registration["webhooks"].as_array_mut().expect("webhooks").truncate(1);
    let webhook = &mut registration["webhooks"][0];
    let excluded = webhook["namespaceSelector"]["matchExpressions"][1]["values"].as_array_mut().expect("a list");
    assert_eq!(excluded.pop(), Some(json!(name)), "the release's own namespace is left out");
    assert_eq!(*excluded, ["kube-system", "kube-public", "kube-node-lease"]);
    webhook["namespaceSelector"]["matchLabels"] = json!({"kubernetes.io/metadata.name": name});
    cluster.apply(&registration.to_string()).expect("a webhook can be registered");

    let pod = |volume: Value, labels: Value| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any", "namespace": name, "labels": labels},
            "spec": {"containers": [{"name": "app", "image": "app"}], "volumes": [volume]},
        })
    };
    let asked = |pod: &Value| {
        let output = cluster.try_kubectl(&["create", "--dry-run=server", "-f", "-"], &pod.to_string());
        let output = output.expect("kubectl runs");
        let refused = said(&output).contains("failed calling webhook \"inject.pith.dev\"");
        assert!(refused || output.status.success(), "{}", said(&output));
        refused
    };
    let claim = json!({"name": "data", "persistentVolumeClaim": {"claimName": "data"}});
    let spec = json!({"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}});
    let of_template = json!({"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}});
    let inline = |driver: &str| json!({"name": "data", "csi": {"driver": driver}});
    // The API server hears of it in a moment.
    let heard = || Ok(asked(&pod(claim.clone(), json!({}))).then_some(()));
    cluster.until(name, "the first question", heard).expect("the webhook is asked");
    for (about, volume, labels, expected) in [
        ("a claim", claim.clone(), json!({}), true),
        ("a claim of the pod's own", of_template, json!({}), true),
        ("our inline volume", inline("csi.juicefs.com"), json!({}), true),
        ("somebody else's inline volume", inline("csi.other.example"), json!({}), false),
        ("no claim", json!({"name": "data", "emptyDir": {}}), json!({}), false),
        // Exactly `true` opts out, and that a pod was injected is not believed of its label.
        ("True", claim.clone(), json!({"disable.sidecar.juicefs.com/inject": "True"}), true),
        ("1", claim.clone(), json!({"disable.sidecar.juicefs.com/inject": "1"}), true),
        ("a pod that says it is done", claim.clone(), json!({"done.sidecar.juicefs.com/inject": "true"}), true),
        ("a pod that opted out", claim, json!({"disable.sidecar.juicefs.com/inject": "true"}), false),
    ] {
        assert_eq!(asked(&pod(volume, labels)), expected, "{about}");
    }
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", name]).expect("it is deleted");
}

#[test]
fn a_wrong_value_is_refused_with_its_place() {
    let cluster = &*CLUSTER;
    let template = |value: &str| {
        let chart = root().join("deploy/chart").display().to_string();
        cluster.helm(&["template", "pith", &chart, "--set-json", value]).expect("helm runs")
    };
    for (value, sentence) in [
        ("replicas=2", "additional properties 'replicas' not allowed"),
        ("webhook.replica=2", "at '/webhook': additional properties 'replica' not allowed"),
        ("csi.enabled=\"false\"", "at '/csi/enabled': got string, want boolean"),
        ("csi.provisioner.image.name=\"a\"", "at '/csi/provisioner/image': additional properties 'name' not allowed"),
        ("webhook.resources.request={}", "at '/webhook/resources': additional properties 'request' not allowed"),
        ("webhook.replicas=\"2\"", "at '/webhook/replicas': got string, want integer"),
        ("webhook.replicas=0", "at '/webhook/replicas': minimum: got 0, want 1"),
        ("webhook.timeoutSeconds=31", "at '/webhook/timeoutSeconds': maximum: got 31, want 30"),
        ("webhook.failurePolicy=\"Retry\"", "at '/webhook/failurePolicy': value must be one of 'Fail', 'Ignore'"),
        ("webhook.registration=\"helm\"", "at '/webhook/registration': value must be one of 'pith', 'chart'"),
        ("secrets.namespaces=\"shop\"", "at '/secrets/namespaces': got string, want array"),
        ("secrets.namespaces=[\"No Name\"]", "at '/secrets/namespaces/0': 'No Name' does not match pattern"),
        ("policies.configMaps=[\"a\"]", "at '/policies/configMaps/0': got string, want object"),
        ("image.digest=\"latest\"", "at '/image/digest': 'latest' does not match pattern"),
        ("certificates.source=\"files\"", "at '/certificates/source': value must be one of"),
        ("config=[]", "at '/config': got array, want object"),
        ("certificates.source=\"existing\"", "certificates.secretName does not say in which Secret the certificate is"),
    ] {
        let output = template(value);
        assert!(!output.status.success() && said(&output).contains(sentence), "{value}: {}", said(&output));
    }
    assert!(template("webhook.replicas=3").status.success());
}

#[test]
fn nobody_asks_the_controller_for_volumes_while_somebody_else_makes_them() {
    let all = ["pith", "csi-provisioner", "csi-resizer", "csi-snapshotter"];
    for (file, expected) in [("default.yaml", &all[..3]), ("cert-manager.yaml", &all), ("moving.yaml", &all[..1])] {
        let objects = objects(&root().join("deploy/rendered").join(file), "moving");
        let is_controller = |it: &&Value| it["kind"] == "Deployment" && it["metadata"]["name"] == "pith-controller";
        let controller = objects.iter().find(is_controller).expect("a controller");
        let containers = controller["spec"]["template"]["spec"]["containers"].as_array().expect("containers");
        let names: Vec<&str> = containers.iter().filter_map(|it| it["name"].as_str()).collect();
        assert_eq!(names, expected, "{file}");
        let driver = objects.iter().any(|it| it["kind"] == "CSIDriver");
        assert_eq!(driver, file != "moving.yaml", "{file}: the other one has made it");
    }
}

#[test]
fn an_older_cluster_gets_nothing_that_it_does_not_know() {
    let cluster = &*CLUSTER;
    let chart = root().join("deploy/chart").display().to_string();
    for (version, taken, sleeps) in
        [("1.27.9", false, false), ("1.28.0", true, false), ("1.29.15", true, false), ("1.30.0", true, true)]
    {
        // The record's key is the one thing that a template can't make without a cluster.
        let arguments = ["template", "pith", &chart, "--kube-version", version, "--set", "csi.recordKeySecret=key"];
        let output = cluster.helm(&arguments).expect("helm runs");
        assert_eq!(output.status.success(), taken, "{version}: {}", said(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout).contains("sleep:"), sleeps, "{version}");
    }
}

#[test]
fn every_rendered_configuration_is_one_that_pith_takes() {
    for file in rendered_files() {
        let text = fs::read_to_string(&file).expect("a rendered file");
        let configurations: Vec<String> =
            documents(&text).iter().filter_map(|it| it["data"]["pith.yaml"].as_str().map(String::from)).collect();
        assert_eq!(configurations.len(), 2, "{}", file.display());
        for configuration in configurations {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("pith.yaml");
            // The driver's own configuration, which comes from a ConfigMap.
            let driver = folder.path().join("config.yaml");
            fs::write(&driver, "mountPodPatch: []").expect("written");
            let configuration = configuration.replace("/etc/pith/driver/config.yaml", &driver.display().to_string());
            fs::write(&path, &configuration).expect("written");
            let read = Command::new(&*PITH).args(["config", "--config"]).arg(&path).output().expect("pith runs");
            assert!(read.status.success(), "{}: {}\n{configuration}", file.display(), said(&read));
        }
    }
}
