//! `secretFinalizer` on a real API server, with the rights that the chart gives the controller: a file system's Secret stays for as long
//! as a volume needs it to be deleted.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pith_tests::cluster::{CLUSTER, Cluster};
use pith_tests::server::Server;
use serde_json::{Value, json};

use crate::cluster::yaml;

const OTHER: &str = "example.com/backup";
const OURS: &str = "juicefs.com/finalizer";
/// In each Secret: of their content nothing is read, so nothing of it can be said.
const CANARY: &str = "canary-7c20";

fn serve(cluster: &Cluster) -> Server {
    let kubeconfig = cluster.kubeconfig_of_pith("pith-controller").expect("a kubeconfig");
    let server =
        Server::start_following(cluster, "controller: {}\nlog: {filter: trace}\n", &kubeconfig).expect("it serves");
    cluster.show_log(&server.folder.path().join("log"));
    server
}

fn secret(namespace: &str, name: &str) -> Value {
    let metadata = json!({"namespace": namespace, "name": name, "finalizers": [OTHER]});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"name": CANARY}})
}

/// A volume that is deleted with its claim, and with this Secret.
fn volume(namespace: &str, name: &str, secret: &str) -> Value {
    let name = format!("{namespace}-{name}");
    let annotations = json!({
        "volume.kubernetes.io/provisioner-deletion-secret-name": secret,
        "volume.kubernetes.io/provisioner-deletion-secret-namespace": namespace,
    });
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "persistentVolumeReclaimPolicy": "Delete",
            "csi": {"driver": "csi.juicefs.com", "volumeHandle": name, "volumeAttributes": {"secretFinalizer": "true"}},
        },
    })
}

#[test]
fn a_secret_stays_until_the_last_volume_that_needs_it_is_gone() {
    let cluster = &*CLUSTER;
    let namespace = cluster.namespace("held", &json!({})).expect("a namespace");
    let name = &*namespace.name;
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}, "provisioner": "csi.juicefs.com",
        "parameters": {
            "secretFinalizer": "true",
            "csi.storage.k8s.io/provisioner-secret-name": "of-class", "csi.storage.k8s.io/provisioner-secret-namespace": name,
        },
    });
    let objects = [
        class,
        secret(name, "of-class"),
        secret(name, "templated"),
        volume(name, "a", "of-class"),
        volume(name, "b", "of-class"),
        volume(name, "c", "templated"),
    ];
    cluster.apply(&yaml(&objects)).expect("objects");
    let finalizers = |secret: &str| {
        let found = cluster.get(&["secret", secret, "--namespace", name]).expect("the Secret");
        found["metadata"]["finalizers"].clone()
    };
    let until = |secret: &str, expected: Value| {
        let look = || Ok((finalizers(secret) == expected).then_some(()));
        let found = cluster.until(name, &format!("{secret} with {expected}"), look);
        found.unwrap_or_else(|error| panic!("{error:#}: {}", finalizers(secret)));
    };
    let delete = |volume: &str| {
        cluster.kubectl(&["delete", "pv", &format!("{name}-{volume}")]).expect("it is deleted");
    };

    let server = serve(cluster);
    until("of-class", json!([OTHER, OURS]));
    until("templated", json!([OTHER, OURS]));
    // Somebody deletes it too early: it stays, with all that is in it.
    cluster.kubectl(&["delete", "secret", "of-class", "--namespace", name, "--wait=false"]).expect("it is asked for");
    delete("a");
    // Of what a class does not name it is known by the volume that goes.
    delete("c");
    until("templated", json!([OTHER]));
    // That was looked at later than the other one, which a volume still needs.
    assert_eq!(finalizers("of-class"), json!([OTHER, OURS]));
    let kept = cluster.get(&["secret", "of-class", "--namespace", name]).expect("the Secret");
    assert!(kept["metadata"]["deletionTimestamp"].is_string() && kept["data"]["name"].is_string());

    // The last one goes while nobody looks.
    let mut logs = server.log();
    drop(server);
    delete("b");
    let server = serve(cluster);
    until("of-class", json!([OTHER]));
    logs.push_str(&server.log());
    assert!(!logs.contains(CANARY) && !logs.contains(&STANDARD.encode(CANARY)), "{logs}");

    let none = r#"{"metadata": {"finalizers": null}}"#;
    for secret in ["of-class", "templated"] {
        cluster.kubectl(&["patch", "secret", secret, "--namespace", name, "--patch", none]).expect("it is patched");
    }
    cluster.wait(name, "delete", "secret/of-class").expect("nothing holds it any more");
    cluster.kubectl(&["delete", "storageclass", name]).expect("it is deleted");
}
