//! Objects from a real API server, which `pith serve` follows with the rights that the chart gives the webhook and no other.
//!
//! The API server asks the webhook about pods that nobody runs: a dry run shows what it answers.

use std::fs;
use std::process::Output;

use hyper::StatusCode;
use pith_tests::client::{Client, Protocol, get};
use pith_tests::cluster::{CLUSTER, Cluster, static_volume};
use pith_tests::juicefs::Scratch;
use pith_tests::provisioner::Site;
use pith_tests::server::{self, PITH, Server};
use pith_tests::wasm_builds;
use serde_json::{Value, json};

use crate::cluster::{pod, said, yaml};
use crate::harness::Own;

/// A server that follows a cluster, asked about the pods of one namespace.
struct Following {
    cluster: &'static Cluster,
    server: Server,
    namespace: pith_tests::cluster::Namespace,
}

impl Following {
    fn start(cluster: &'static Cluster, about: &str) -> Following {
        let labels = json!({"juicefs.com/enable-injection": "true", "pith.test/webhook": about});
        let namespace = cluster.namespace(about, &labels).expect("a namespace");
        let kubeconfig = cluster.kubeconfig_of_pith("pith-webhook").expect("a kubeconfig");
        let server = Server::start_following(cluster, "", &kubeconfig).expect("it serves");
        let following = Following { cluster, server, namespace };
        following.until("readiness", || (following.readiness().0 == 200).then_some(()));
        cluster.register(about, &following.server).expect("a webhook can be registered");
        following
    }

    fn name(&self) -> &str {
        &self.namespace.name
    }

    #[track_caller]
    fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let found = self.cluster.until(self.name(), what, || Ok(look()));
        found.unwrap_or_else(|error| panic!("{error:#}\n{}", self.server.log()))
    }

    fn readiness(&self) -> (u16, String) {
        self.cluster.http(self.server.admin, "/readyz").expect("an answer")
    }

    /// The sum of a metric over all labels that begin with these.
    fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.cluster.http(self.server.admin, "/metrics").expect("an answer");
        let values = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
        values.map(|value| value.parse::<u64>().expect("a number")).sum()
    }

    /// What the API server answers to a pod that names the claim `data`.
    fn try_pod(&self) -> Output {
        let pod = pod(self.name(), "true", &json!([{"name": "data", "mountPath": "/data"}]));
        let create = ["create", "--dry-run=server", "--output=json", "-f", "-"];
        self.cluster.try_kubectl(&create, &pod.to_string()).expect("kubectl runs")
    }

    fn injects(&self) -> Option<()> {
        serde_json::from_slice(&self.try_pod().stdout).is_ok_and(|pod: Value| injected(&pod)).then_some(())
    }

    fn refuses(&self, sentence: &str) -> Option<()> {
        said(&self.try_pod()).contains(sentence).then_some(())
    }

    fn end(self) {
        let about = self.namespace.name.rsplitn(3, '-').last().expect("a name").to_string();
        let webhook = format!("pith-{about}");
        self.cluster.kubectl(&["delete", "mutatingwebhookconfiguration", &webhook]).expect("it is deleted");
    }
}

fn injected(pod: &Value) -> bool {
    pod["spec"]["initContainers"][1]["name"] == "jfs-mount"
}

/// Deletes a volume that a claim has, against the controller's protection.
fn lose_volume(cluster: &Cluster, volume: &str) {
    cluster.kubectl(&["delete", "pv", volume, "--wait=false"]).expect("it is asked for");
    let unprotected = r#"{"metadata": {"finalizers": null}}"#;
    cluster.kubectl(&["patch", "pv", volume, "--patch", unprotected]).expect("it is patched");
}

#[test]
fn what_changes_in_the_cluster_is_known_without_a_restart_and_without_a_question() {
    let following = Following::start(&CLUSTER, "followed");
    let (cluster, name) = (following.cluster, following.name());
    cluster.apply(&yaml(&static_volume(name, "data"))).expect("a volume");
    cluster.wait(name, "jsonpath={.status.phase}=Bound", "pvc/data").expect("it is bound");
    following.until("an injection", || following.injects());
    following.until("an injection without a question", || {
        let asked = following.metric("pith_live_reads_total");
        following.injects().filter(|()| following.metric("pith_live_reads_total") == asked)
    });
    assert!(following.metric(r#"pith_objects{kind="persistentvolumeclaims"}"#) > 0);

    lose_volume(cluster, &format!("{name}-data"));
    let gone = format!("bound to the PersistentVolume `{name}-data`, which is not known");
    following.until("a refusal", || following.refuses(&gone));
    cluster.kubectl(&["delete", "pvc", "data", "--namespace", name]).expect("it is deleted");
    following.until("a refusal", || following.refuses(&format!("`{name}/data`, which does not exist")));
    assert_eq!(following.metric("pith_watch_restarts_total"), 0);
    following.end();
}

#[test]
fn a_pod_that_is_made_together_with_its_class_and_its_claim_is_injected() {
    const PAIRS: usize = 20;
    let following = Following::start(&CLUSTER, "together");
    let name = following.name();
    // The API server hears of the webhook in a moment.
    following.until("a refusal", || following.refuses("which does not exist"));
    let absent = r#"pith_live_reads_total{kind="persistentvolumeclaims",outcome="absent"}"#;
    assert!(following.metric(absent) > 0);

    let mut objects = Vec::new();
    for index in 0..PAIRS {
        let (class, claim) = (format!("{name}-{index}"), format!("data-{index}"));
        objects.push(json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": class, "labels": {"pith.test/of": name}},
            "provisioner": "csi.juicefs.com",
        }));
        objects.push(json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": name, "name": claim},
            "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}},
        }));
        let mut pod = pod(name, "true", &json!([{"name": "data", "mountPath": "/data"}]));
        pod["metadata"]["name"] = json!(format!("app-{index}"));
        pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = json!(claim);
        objects.push(pod);
    }
    let created = following.cluster.kubectl_with(&["create", "-f", "-"], &yaml(&objects));
    created.unwrap_or_else(|error| panic!("{error:#}\n{}", following.server.log()));
    let pods = following.cluster.get(&["pods", "--namespace", name]).expect("the pods");
    let pods = pods["items"].as_array().expect("a list");
    assert_eq!((pods.len(), pods.iter().filter(|pod| injected(pod)).count()), (PAIRS, PAIRS), "{pods:#?}");
    // How often a pod was faster than a watch, for whoever reads along.
    let found = following.metric(r#"pith_live_reads_total{kind="persistentvolumeclaims",outcome="found"}"#);
    println!("{found} of {PAIRS} pods came before their claims");

    let of_this = format!("--selector=pith.test/of={name}");
    following.cluster.kubectl(&["delete", "storageclass", &of_this]).expect("they are deleted");
    following.end();
}

#[test]
fn what_changed_while_the_api_server_was_dead_is_known_when_it_is_back() {
    let own = Own::of("killed");
    own.xtask("up", &[]);
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::find(&own.name).expect("it runs")));
    let following = Following::start(cluster, "killed");
    let name = following.name();
    let volume = |claim: &str| cluster.apply(&yaml(&static_volume(name, claim))).expect("a volume");
    volume("data");
    cluster.wait(name, "jsonpath={.status.phase}=Bound", "pvc/data").expect("it is bound");
    following.until("an injection", || following.injects());

    own.kill("kube-apiserver");
    own.xtask("up", &[]);
    lose_volume(cluster, &format!("{name}-data"));
    let gone = format!("bound to the PersistentVolume `{name}-data`, which is not known");
    following.until("a refusal", || following.refuses(&gone));
    assert_eq!(following.readiness().0, 200, "what it knew it went on knowing");
    let restarts = following.metric("pith_watch_restarts_total");
    assert!(restarts >= 4, "{restarts} restarts: {}", following.server.log());

    // Made after the restart, and brought by the watches again: nobody has asked for it.
    let before = following.metric(r#"pith_objects{kind="persistentvolumeclaims"}"#);
    volume("later");
    following.until("one more claim", || {
        (following.metric(r#"pith_objects{kind="persistentvolumeclaims"}"#) == before + 1).then_some(())
    });
    drop(following);
    own.xtask("down", &[]);
}

/// With the right to `get` alone no watch brings anything, so everything is asked for.
#[test]
fn a_volume_is_named_by_a_claim_that_no_watch_has_brought() {
    let cluster = &*CLUSTER;
    let namespace = cluster.namespace("named", &json!({"unit": "retail"})).expect("a namespace");
    let name = &*namespace.name;
    let account = format!("--serviceaccount={name}:pith");
    let role = ["--verb=get", "--resource=namespaces,persistentvolumeclaims"];
    cluster.kubectl(&["create", "serviceaccount", "pith", "--namespace", name]).expect("a service account");
    cluster.kubectl(&[&["create", "clusterrole", name], &role[..]].concat()).expect("a role");
    let role = format!("--clusterrole={name}");
    cluster.kubectl(&["create", "clusterrolebinding", name, &role, &account]).expect("the rights");
    cluster.apply(&static_volume(name, "data")[1].to_string()).expect("a claim");

    let scratch = Scratch::new();
    let policy = json!([{
        "name": "by-unit", "module": {"file": wasm_builds::policy("naming")},
        "settings": {"template": ["{namespaceLabels.unit}", "{claim}"]},
    }]);
    let config = format!("csi: {{socket: csi.sock, cluster: test, quota: false}}\npolicies: {policy}\n");
    let site = Site::new(&config, "", &scratch.secrets()).expect("a site");
    let file = site.path().join("pith.yaml");
    let config = fs::read_to_string(&file).expect("its configuration");
    let config = config.replace("{directory: objects}", "{cluster: {kubeconfig: kubeconfig.yaml}}");
    fs::write(&file, config).expect("written");
    let kubeconfig = cluster.kubeconfig(name, "pith").expect("a kubeconfig");
    fs::write(site.path().join("kubeconfig.yaml"), kubeconfig).expect("written");
    let _serving = site.serve_as(cluster.command(&PITH), &[]).expect("it serves");

    let create = |volume: &str, claim: &str| {
        site.ask(&["create", volume, "--size", "1Gi", "--claim", &format!("{name}/{claim}")]).expect("pith csi runs")
    };
    let made = create("pvc-1", "data").unwrap_or_else(|refusal| panic!("{refusal:?}\n{}", site.log()));
    assert!(made["context"]["subPath"].as_str().is_some_and(|it| it.starts_with("retail/data")), "{made:#}");
    let unknown = create("pvc-2", "missing").expect_err("there is no such claim");
    assert_eq!(unknown.code, "FailedPrecondition");
    assert_eq!(unknown.sentence, format!("the claim `{name}/missing` is not known to Pith yet: try again in a moment"));

    let (_, metrics) = cluster.http(site.admin().expect("an address"), "/metrics").expect("an answer");
    let reads: Vec<&str> = metrics.lines().filter(|line| line.starts_with("pith_live_reads_total")).collect();
    let expected = [
        r#"pith_live_reads_total{kind="namespaces",outcome="found"} 1"#,
        r#"pith_live_reads_total{kind="persistentvolumeclaims",outcome="absent"} 1"#,
        r#"pith_live_reads_total{kind="persistentvolumeclaims",outcome="found"} 1"#,
    ];
    assert!(expected.iter().all(|line| reads.contains(line)) && reads.len() == expected.len(), "{reads:#?}");
    for kind in ["clusterrolebinding", "clusterrole"] {
        cluster.kubectl(&["delete", kind, name]).expect("it is deleted");
    }
}

#[tokio::test]
async fn without_an_api_server_it_is_not_ready_and_decides_nothing() {
    // Nobody listens there.
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "none",
        "clusters": [{"name": "none", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "none", "user": {}}],
        "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    });
    let folder = server::following("", &kubeconfig.to_string()).expect("a folder");
    let server = Server::start_in(folder, &PITH).expect("it listens");
    let kinds = ["namespaces", "storageclasses", "persistentvolumes", "persistentvolumeclaims"];
    let expected = kinds.map(|kind| format!("{kind} (Connection refused (os error 111))")).join(", ");
    let expected = format!("the API server has not listed yet: {expected}\n");
    let started = std::time::Instant::now();
    loop {
        let ready = get(server.admin, "/readyz").await.expect("an answer");
        assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
        if ready.text() == expected {
            break;
        }
        assert!(started.elapsed().as_secs() < 60, "{}", ready.text());
    }
    assert_eq!(get(server.admin, "/livez").await.expect("an answer").status, StatusCode::OK);
    let mut client = Client::connect(server.webhook, &server.ca(), Protocol::Http1).await.expect("a connection");
    let answer = client.review(crate::WEB).await.expect("an answer");
    let answered = format!("{} (reason: not-synced)\n", expected.trim_end());
    assert_eq!((answer.status, answer.text()), (StatusCode::SERVICE_UNAVAILABLE, answered));
    let metrics = get(server.admin, "/metrics").await.expect("an answer").text();
    assert!(metrics.contains(r#"pith_admissions_total{outcome="invalid",reason="not-synced"} 1"#), "{metrics}");
}

#[test]
fn it_says_which_rights_it_lacks_and_is_ready_once_it_has_them() {
    let cluster = &*CLUSTER;
    cluster.kubeconfig_of_pith("pith-webhook").expect("the rights are there to be given");
    let namespace = cluster.namespace("rights", &json!({})).expect("a namespace");
    let name = &*namespace.name;
    cluster.kubectl(&["create", "serviceaccount", "pith", "--namespace", name]).expect("a service account");
    let kubeconfig = cluster.kubeconfig(name, "pith").expect("a kubeconfig");
    let server = Server::start_following(cluster, "", &kubeconfig).expect("it listens");
    let ready = || cluster.http(server.admin, "/readyz");
    let lacking = "storageclasses.storage.k8s.io is forbidden: User \"system:serviceaccount:";
    cluster
        .until(name, "what it lacks", || Ok(ready()?.1.contains(lacking).then_some(())))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", server.log()));
    assert_eq!(ready().expect("an answer").0, 503);

    let account = format!("--serviceaccount={name}:pith");
    cluster
        .kubectl(&["create", "clusterrolebinding", name, "--clusterrole=pith-webhook", &account])
        .expect("the rights");
    cluster
        .until(name, "readiness", || Ok((ready()?.0 == 200).then_some(())))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", server.log()));
    let user = format!("--as=system:serviceaccount:{name}:pith");
    for (verb, resource, answer) in [
        ("list", "persistentvolumes", "yes"),
        ("get", "secrets", "no"),
        ("list", "secrets", "no"),
        ("create", "pods", "no"),
    ] {
        let can = cluster
            .try_kubectl(&["auth", "can-i", verb, resource, &user, "--all-namespaces"], "")
            .expect("kubectl runs");
        assert_eq!(String::from_utf8_lossy(&can.stdout).trim(), answer, "{verb} {resource}: {}", said(&can));
    }
    cluster.kubectl(&["delete", "clusterrolebinding", name]).expect("it is deleted");
}
