//! Every access mode that a file system can honour, as csi-provisioner asks for it on a real API server; and what it cannot.

use pith_tests::cluster::CLUSTER;
use pith_tests::juicefs::{CLIENT, Scratch};
use pith_tests::server::Server;
use serde_json::{Value, json};

use crate::cluster::{driver_of, yaml};

#[test]
fn claims_of_every_access_mode_are_bound_and_one_for_a_device_is_told_why_not() {
    let cluster = &*CLUSTER;
    let _alone = driver_of(cluster);
    let scratch = Scratch::new();
    let namespace = cluster.namespace("modes", &json!({})).expect("a namespace");
    let name = &*namespace.name;
    let claim = |claim: &str, modes: Value, volume_mode: &str| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": name, "name": claim},
            "spec": {
                "accessModes": modes, "volumeMode": volume_mode, "storageClassName": name,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        })
    };
    const MODES: [(&str, &str); 4] =
        [("rwo", "ReadWriteOnce"), ("rox", "ReadOnlyMany"), ("rwx", "ReadWriteMany"), ("rwop", "ReadWriteOncePod")];
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": name, "name": "file-system"}, "stringData": scratch.secrets()}),
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": "csi.juicefs.com", "reclaimPolicy": "Delete",
            "parameters": {
                "csi.storage.k8s.io/provisioner-secret-name": "file-system",
                "csi.storage.k8s.io/provisioner-secret-namespace": name,
            },
        }),
        claim("all", json!(["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"]), "Filesystem"),
        claim("device", json!(["ReadWriteOnce"]), "Block"),
    ];
    objects.extend(MODES.map(|(it, mode)| claim(it, json!([mode]), "Filesystem")));
    cluster.apply(&yaml(&objects)).expect("objects");
    let config = [
        ("csi", json!({"socket": cluster.csi_socket(), "cluster": "test"})),
        ("juicefs", json!({"client": *CLIENT, "startTimeout": "60s", "callTimeout": "30s"})),
    ];
    let config: String = config.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
    let kubeconfig = cluster.kubeconfig_of_pith("pith-controller").expect("a kubeconfig");
    let server = Server::start_following(cluster, &config, &kubeconfig).expect("it serves");
    cluster.show_log(&server.folder.path().join("log"));

    for claim in MODES.map(|(claim, _)| claim).into_iter().chain(["all"]) {
        cluster
            .wait(name, "jsonpath={.status.phase}=Bound", &format!("pvc/{claim}"))
            .expect("csi-provisioner calls Pith");
        let claim = cluster.get(&["pvc", claim, "--namespace", name]).expect("the claim");
        let volume = cluster.get(&["pv", claim["spec"]["volumeName"].as_str().expect("a volume")]).expect("the volume");
        assert_eq!(volume["spec"]["accessModes"], claim["spec"]["accessModes"], "{volume}");
        assert_eq!(volume["spec"]["capacity"]["storage"], "1Gi", "{volume}");
    }
    let sentence = "JuiceFS has no block volumes: a claim needs volumeMode: Filesystem";
    let told = || Ok(cluster.events(name, "device")?.iter().any(|event| event.contains(sentence)).then_some(()));
    cluster.until(name, sentence, told).expect("csi-provisioner reports it");
    cluster.kubectl(&["delete", "pvc", "--all", "--namespace", name]).expect("they are deleted");
    let gone = || {
        let volumes = cluster.get(&["pv"])?;
        let is_ours = |it: &Value| it["spec"]["storageClassName"] == *name;
        Ok((!volumes["items"].as_array().is_some_and(|all| all.iter().any(is_ours))).then_some(()))
    };
    cluster.until(name, "no volume", gone).expect("csi-provisioner calls Pith");
    cluster.kubectl(&["delete", "storageclass", name]).expect("it is deleted");
}
