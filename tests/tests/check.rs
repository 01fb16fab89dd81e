//! `pith check` as a person or a script runs it: on files, and on a real API server with an administrator's rights and with less.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pith_tests::cluster::{CLUSTER, Cluster, static_volume};
use pith_tests::server::{self, PITH, Server};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::certificates::Site;
use crate::cluster::{driver, said, yaml};
use crate::secrets::check_for;
use crate::{SHOP, WEB};

const OPT_IN: &str = "juicefs.com/enable-injection=true";
const CANARY: &str = "canary-77ab";

/// What was found, as `code kind path`.
fn found(output: &Output) -> Vec<String> {
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(output)));
    let text = |it: &Value| it.as_str().map(|it| format!("/{it}")).unwrap_or_default();
    let line = |it: &Value| {
        let path = format!("{}{}", text(&it["namespace"]), text(&it["name"]));
        format!(
            "{} {} {}",
            it["code"].as_str().expect("a code"),
            it["kind"].as_str().expect("a kind"),
            &path[path.len().min(1)..]
        )
    };
    findings.as_array().expect("a list").iter().map(line).collect()
}

/// The web pod as it is in a cluster.
fn web() -> Value {
    let mut review: Value = serde_json::from_str(WEB).expect("the fixture is JSON");
    let mut pod = review["request"]["object"].take();
    pod["metadata"]["name"] = json!("web-0");
    pod["status"] = json!({"phase": "Running"});
    pod
}

/// Looks at files.
fn offline(objects: &str, arguments: &[&str]) -> Output {
    let folder = server::folder("", objects).expect("a folder");
    Command::new(&*PITH).arg("check").args(arguments).current_dir(folder.path()).output().expect("pith runs")
}

#[test]
fn files_are_looked_at_as_far_as_they_go() {
    let arguments = ["--objects", "objects", "--output", "json"];
    let output = offline(SHOP, &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let not_looked_at = found(&output);
    assert!(not_looked_at.iter().all(|it| it.starts_with("not-looked-at ")), "{not_looked_at:?}");
    for kind in ["CSIDriver", "MutatingWebhookConfiguration", "Pod"] {
        assert!(not_looked_at.contains(&format!("not-looked-at {kind} ")), "{not_looked_at:?}");
    }

    let other = json!({"kind": "MutatingWebhookConfiguration", "metadata": {"name": "other"}, "webhooks": []});
    let objects = format!("{SHOP}\n{}", yaml(&[web(), other]));
    let output = offline(&objects, &arguments);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let expected = ["webhook-not-registered MutatingWebhookConfiguration ", "pod-missed Pod shop/web-0"];
    assert!(found(&output).starts_with(&expected.map(String::from)), "{}", said(&output));
}

#[test]
fn the_end_of_a_certificate_is_read_from_the_registration() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let now = SystemTime::now();
    let ending = |ends: SystemTime| {
        let mut ca = CertificateParams::default();
        (ca.not_before, ca.not_after) = ((now - 90 * DAY).into(), ends.into());
        ca.self_signed(&KeyPair::generate().expect("a key")).expect("a CA").pem()
    };
    for (about, bundle, expected) in [
        ("fresh", ending(now + 90 * DAY), None),
        ("soon to end", ending(now + 9 * DAY), Some((1, "certificate-expiring"))),
        ("at its end", ending(now - DAY), Some((1, "certificate-expired"))),
        ("at its end, beside the next", ending(now - DAY) + &ending(now + 90 * DAY), None),
        ("no PEM", "none".into(), Some((1, "webhook-ca-mismatch"))),
    ] {
        let service = json!({"namespace": "pith-system", "name": "pith-webhook"});
        let client = json!({"caBundle": STANDARD.encode(bundle), "service": service});
        let rules = json!([{"resources": ["pods"]}]);
        let webhooks = json!([{"name": "inject.pith.dev", "clientConfig": client, "rules": rules}]);
        let registration =
            json!({"kind": "MutatingWebhookConfiguration", "metadata": {"name": "pith"}, "webhooks": webhooks});
        let output = offline(&format!("{SHOP}\n{}", yaml(&[registration])), &["--objects", "objects", "-o", "json"]);
        let wrong = found(&output).into_iter().find(|it| !it.starts_with("not-looked-at "));
        let expected = expected.map(|(code, it)| (Some(code), format!("{it} MutatingWebhookConfiguration pith")));
        assert_eq!(wrong.map(|it| (output.status.code(), it)), expected, "{about}: {}", said(&output));
    }
}

#[test]
fn people_get_the_worst_first_and_a_line_that_counts() {
    let other = json!({"kind": "CSIDriver", "metadata": {"name": "other"}});
    let output = offline(&format!("{SHOP}\n{}", yaml(&[web(), other])), &["--objects", "objects"]);
    let text = said(&output);
    let places = [
        "ERRORS\n",
        "  csidriver-missing  CSIDriver csi.juicefs.com\n",
        "WARNINGS\n",
        "  pod-missed         Pod shop/web-0\n",
        "NOTES\n",
    ];
    let places: Vec<_> =
        places.iter().map(|it| text.find(it).unwrap_or_else(|| panic!("no {it:?}:\n{text}"))).collect();
    assert!(places.is_sorted(), "{text}");
    assert!(text.lines().last().is_some_and(|it| it.starts_with("1 error, 1 warning, ")), "{text}");
}

#[test]
fn what_cannot_run_is_exit_code_2_and_a_reason() {
    for (arguments, reason) in [
        (&["--objects", "nowhere"][..], "nowhere"),
        (&["--objects", "objects", "-n", "nowhere"], "there is no namespace `nowhere`"),
        (&["--kubeconfig", "nowhere.yaml"], "reading the kubeconfig nowhere.yaml"),
        (&["--config", "nowhere.yaml"], "reading the configuration nowhere.yaml"),
        (&["--objects", "objects", "--kubeconfig", "a"], "cannot be used with"),
    ] {
        let output = offline(SHOP, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(reason), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn no_secret_comes_out_of_files() {
    let secret = |name: &str| {
        let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": CANARY});
        let metadata = json!({"namespace": "shop", "name": name, "annotations": annotations});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"metaurl": CANARY}, "data": {"b": CANARY}})
    };
    let mut pod = web();
    pod["spec"]["containers"][0]["env"] = json!([{"name": "TOKEN", "value": CANARY}]);
    let objects = format!("{SHOP}\n{}", yaml(&[secret("any"), secret("other"), pod]));
    for form in ["text", "json", "yaml"] {
        let output = offline(&objects, &["--objects", "objects", "--output", form]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("file-system-secret-missing"), "{}", said(&output));
        check_for(CANARY, form, &said(&output));
    }
}

/// A folder with a configuration for this registration, and an administrator's kubeconfig.
fn administrator(cluster: &Cluster, config: &str, manifest: &Value) -> TempDir {
    let kubeconfig =
        fs::read_to_string(cluster.folder().join("lib/kubeconfig/super-admin.conf")).expect("a kubeconfig");
    configured(config, manifest, &kubeconfig)
}

fn configured(config: &str, manifest: &Value, kubeconfig: &str) -> TempDir {
    let webhook = "webhook: {tls: {selfSigned: {names: [localhost]}}, registration: {manifest: manifest.yaml, caBundleOnly: true}}";
    let folder = server::following(&format!("{webhook}\n{config}"), kubeconfig).expect("a folder");
    fs::write(folder.path().join("manifest.yaml"), manifest.to_string()).expect("written");
    folder
}

/// What is found with a folder's configuration in one namespace, where it is about that or about the registration.
fn look(cluster: &Cluster, folder: &Path, namespace: &str, registration: &str) -> Vec<String> {
    let mut pith = cluster.command(&PITH);
    let arguments = ["check", "--config", "pith.yaml", "--namespace", namespace, "--output", "json"];
    let output = pith.args(arguments).current_dir(folder).output().expect("pith runs");
    check_for(CANARY, "what is found", &said(&output));
    let findings = found(&output);
    assert_eq!(
        output.status.code(),
        Some(i32::from(!findings.iter().all(|it| it.starts_with("not-looked-at ")))),
        "{}",
        said(&output)
    );
    // Other tests have classes, drivers and registrations in the same cluster.
    let ours = |it: &String| {
        let path = it.rsplit(' ').next().unwrap_or_default();
        path.split('/').any(|part| part == namespace || part == registration)
    };
    findings.into_iter().filter(ours).collect()
}

fn pod(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "schedulerName": "nobody", "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "app", "image": "docker.io/pith/app:0.1.0", "env": [{"name": "TOKEN", "value": CANARY}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    })
}

#[test]
fn pods_and_claims_of_a_real_cluster_that_are_not_as_they_should_be_are_found_until_they_are() {
    let cluster = &*CLUSTER;
    let namespace = cluster.namespace("check", &json!({})).expect("a namespace");
    let name = &*namespace.name;
    let kubeconfig = cluster.kubeconfig_of_pith("pith-webhook").expect("a kubeconfig");
    let server = Server::start_following(cluster, "", &kubeconfig).expect("it serves");
    cluster.register(name, &server).expect("it is registered");
    let registration = format!("pith-{name}");
    let manifest = cluster.get(&["mutatingwebhookconfiguration", &registration]).expect("the registration");
    let mut objects = static_volume(name, "data");
    objects[0]["spec"]["csi"]["nodePublishSecretRef"] = json!({"namespace": name, "name": "file-system"});
    cluster.apply(&yaml(&[&objects[..], &[driver()]].concat())).expect("a volume");
    cluster.wait(name, "jsonpath={.status.phase}=Bound", "pvc/data").expect("it is bound");
    cluster.apply(&pod(name, "early").to_string()).expect("a pod");
    cluster.kubectl(&["label", "namespace", name, OPT_IN]).expect("a label");

    let folder = administrator(cluster, "", &manifest);
    let found = || look(cluster, folder.path(), name, &registration);
    let missed = format!("pod-missed Pod {name}/early");
    let unselected = format!("namespace-not-selected Namespace {name}");
    let claim = format!("claim-without-secret PersistentVolumeClaim {name}/data");
    let secret = format!("file-system-secret-missing Secret {name}/file-system");
    assert_eq!(found(), [unselected, secret.clone(), claim.clone()]);
    cluster.kubectl(&["label", "namespace", name, &format!("pith.test/webhook={name}")]).expect("a label");
    assert_eq!(found(), [secret, claim, missed.clone()]);

    // The Secrets are made, and nothing of what is in them comes out.
    let claim = cluster.get(&["pvc", "data", "--namespace", name]).expect("the claim");
    let beside = format!("pith-{}", claim["metadata"]["uid"].as_str().expect("a uid"));
    for secret in ["file-system", &beside] {
        let metadata = json!({"namespace": name, "name": secret, "annotations": {"note": CANARY}});
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"metaurl": CANARY}});
        cluster.apply(&secret.to_string()).expect("a Secret");
    }
    assert_eq!(found(), [&*missed]);

    // One that is injected is as it should be, until that changes.
    let late = pod(name, "late").to_string();
    let injected = || {
        let created = cluster.kubectl_with(&["create", "--dry-run=server", "-f", "-", "-o", "json"], &late)?;
        Ok(created.contains("pith-guard").then_some(()))
    };
    cluster.until(name, "an injection", injected).unwrap_or_else(|error| panic!("{error:#}\n{}", server.log()));
    cluster.apply(&late).expect("a pod");
    assert_eq!(found(), [&*missed]);
    let changed = administrator(cluster, "sidecar: {image: registry.example/juicefs:2}\n", &manifest);
    let stale = format!("injection-stale Pod {name}/late");
    assert_eq!(look(cluster, changed.path(), name, &registration), [missed.clone(), stale]);
    // What has changed is shown for the pod that runs, and nothing else of it.
    let shown = |running: &[&str]| {
        let config = changed.path().join("pith.yaml");
        let mut inject = cluster.command(&PITH);
        inject.args(["inject", "--namespace", name, "--config"]).arg(config).args(running);
        inject.output().expect("pith runs")
    };
    let diff = shown(&["pod/late", "--output=diff"]);
    assert!(diff.status.success(), "{}", said(&diff));
    let diff = String::from_utf8_lossy(&diff.stdout).into_owned();
    let changes: Vec<&str> = diff.lines().skip(2).filter(|line| line.starts_with(['+', '-'])).collect();
    let [before, after] = &changes[..] else { panic!("the image is another: {diff}") };
    assert!(before.starts_with("-    image: ") && *after == "+    image: registry.example/juicefs:2", "{diff}");
    assert!(!diff.contains(CANARY), "{diff}");
    let missing = shown(&["deployment/web"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(
        said(&missing).contains(&format!("there is no deployment/web in the namespace `{name}`")),
        "{}",
        said(&missing)
    );

    // A mount pod of the JuiceFS CSI driver, which nobody tends.
    let early = cluster.get(&["pod", "early", "--namespace", name]).expect("the pod");
    let uid = early["metadata"]["uid"].as_str().expect("a uid");
    let target = format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~csi/x/mount");
    let mut mount_pod = pod(name, "juicefs-node-x");
    let labels = json!({"app.kubernetes.io/name": "juicefs-mount", "disable.sidecar.juicefs.com/inject": "true"});
    mount_pod["metadata"]["labels"] = labels;
    mount_pod["metadata"]["annotations"] = json!({"juicefs-0a1b": target});
    cluster.apply(&mount_pod.to_string()).expect("a pod");
    assert_eq!(found(), [format!("mount-pod-stranded Pod {name}/juicefs-node-x"), missed]);
    cluster.kubectl(&["delete", "pod", "juicefs-node-x", "early", "--namespace", name]).expect("they are deleted");
    assert_eq!(found(), Vec::<String>::new());

    cluster.kubectl(&["delete", "pod", "late", "--namespace", name]).expect("it is deleted");
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", &registration]).expect("it is deleted");
    cluster.kubectl(&["delete", "pv", &format!("{name}-data"), "--wait=false"]).expect("it is deleted");
}

#[test]
fn a_registration_in_a_real_cluster_that_does_not_do_is_found() {
    let site = Site::new("check-registration");
    let (cluster, name) = (site.cluster, site.name());
    let mut server = site.start("", "");
    site.in_step();
    cluster.kubectl(&["label", "namespace", name, OPT_IN]).expect("a label");
    let folder = administrator(cluster, "", &site.manifest());
    let found = || look(cluster, folder.path(), name, name);
    assert_eq!(found(), Vec::<String>::new(), "{}", server.log());

    // With the rights of the webhook itself: what they are not for is not looked at.
    let own = configured("", &site.manifest(), &site.kubeconfig);
    let registration = |code: &str| format!("{code} MutatingWebhookConfiguration {name}");
    assert_eq!(look(cluster, own.path(), name, name), [registration("not-looked-at")]);

    server.terminate().expect("a signal");
    server.wait().expect("it ends");
    // Its Service still has its address.
    assert_eq!(found(), [registration("not-looked-at")]);
    cluster.kubectl(&["delete", "endpointslices", "--all", "--namespace", name]).expect("they are deleted");
    assert_eq!(found(), [registration("webhook-unreachable")]);
    cluster.kubectl(&["delete", "service", "pith", "--namespace", name]).expect("it is deleted");
    let selector =
        json!([{"op": "add", "path": "/webhooks/0/namespaceSelector", "value": {"matchLabels": {"other": "yes"}}}]);
    let patch = ["patch", "mutatingwebhookconfiguration", name, "--type=json", "--patch", &selector.to_string()];
    cluster.kubectl(&patch).expect("a patch");
    assert_eq!(found(), [registration("webhook-unreachable"), format!("namespace-not-selected Namespace {name}")]);
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", name]).expect("it is deleted");
    assert_eq!(found(), [registration("webhook-not-registered")]);
}

#[test]
fn a_registration_with_another_ca_than_that_of_the_certificate_is_found() {
    let cluster = &*CLUSTER;
    let namespace = cluster.namespace("check-ca", &json!({})).expect("a namespace");
    let name = &*namespace.name;
    let start = || Server::start_on(cluster, "", "").expect("it serves");
    let (server, other) = (start(), start());
    cluster.register(name, &server).expect("it is registered");
    let registration = format!("pith-{name}");
    let registered = cluster.get(&["mutatingwebhookconfiguration", &registration]).expect("the registration");
    let folder = administrator(cluster, "", &registered);
    let found = || look(cluster, folder.path(), name, &registration);
    assert_eq!(found(), Vec::<String>::new());

    let bundle = STANDARD.encode(fs::read(other.ca()).expect("a CA"));
    let patch = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]).to_string();
    cluster
        .kubectl(&["patch", "mutatingwebhookconfiguration", &registration, "--type=json", "--patch", &patch])
        .expect("a patch");
    assert_eq!(found(), [format!("webhook-ca-mismatch MutatingWebhookConfiguration {registration}")]);
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", &registration]).expect("it is deleted");
}
