//! Two replicas of the controller on a real API server, each with external-provisioner and external-resizer beside it as in the chart: who
//! of these works is settled by their leases, and Pith's part of it by nobody.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use pith_tests::cluster::{CLUSTER, Cluster, rights};
use pith_tests::juicefs::{CLIENT, Scratch};
use pith_tests::server::Server;
use serde_json::{Value, json};

use crate::cluster::yaml;
use crate::volumes::{directories, tree};

const DRIVER: &str = "replicas.csi.juicefs.com";
/// Nobody waits for the leases of a cluster, which take half a minute to pass on, nor for the five requests in a second that these
/// programs allow themselves. Much shorter ones are lost where a machine is busy, and with its lease such a program ends.
const HASTE: [&str; 6] = [
    "--kube-api-qps=100",
    "--kube-api-burst=200",
    "--leader-election",
    "--leader-election-lease-duration=12s",
    "--leader-election-renew-deadline=10s",
    "--leader-election-retry-period=1s",
];
/// How many claims are made at once.
const CLAIMS: usize = 16;

/// What a pod of the controller runs. All of it ends when this is dropped, as if its node had gone.
struct Replica {
    server: Server,
    sidecars: Vec<Child>,
}

impl Replica {
    fn start(cluster: &Cluster, key: &Path) -> Replica {
        let config = format!(
            "driver: {DRIVER}\ncsi: {}\njuicefs: {}\n",
            json!({"socket": "csi.sock", "cluster": "test", "recordKey": key, "quota": false}),
            json!({"client": *CLIENT, "startTimeout": "60s", "callTimeout": "30s"}),
        );
        let kubeconfig = cluster.kubeconfig_of_pith("pith-controller").expect("a kubeconfig");
        let server = Server::start_following(cluster, &config, &kubeconfig).expect("it serves");
        cluster.show_log(&server.folder.path().join("log"));
        let folder = server.folder.path().to_path_buf();
        let mut replica = Replica { sidecars: Vec::new(), server };
        // With the rights that the chart gives all of them.
        fs::write(folder.join("sidecars.yaml"), kubeconfig).expect("written");
        for (program, more) in [
            ("csi-provisioner", &["--extra-create-metadata", "--timeout=60s", "--retry-interval-start=200ms"][..]),
            ("csi-resizer", &["--timeout=60s", "--handle-volume-inuse-error=false", "--retry-interval-start=200ms"]),
            ("csi-snapshotter", &["--timeout=60s", "--retry-interval-start=200ms"]),
        ] {
            let log = folder.join(format!("{program}.log"));
            cluster.show_log(&log);
            let mut command = cluster.command(&cluster.program(program).expect("the cluster runs one"));
            command.arg(format!("--kubeconfig={}", folder.join("sidecars.yaml").display()));
            command.arg(format!("--csi-address={}", folder.join("csi.sock").display()));
            command.args(HASTE).arg("--leader-election-namespace=pith-system").args(more);
            command.env("POD_NAME", folder.file_name().expect("a name")).stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(fs::File::create(log).expect("a log"));
            replica.sidecars.push(command.spawn().expect("it starts"));
        }
        replica
    }

    /// How many volumes Pith was asked to make by what stands beside it.
    fn asked(&self) -> usize {
        self.server.log().matches("CreateVolume").count()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        for sidecar in &mut self.sidecars {
            let _ = sidecar.kill();
            let _ = sidecar.wait();
        }
    }
}

#[test]
fn of_two_replicas_one_goes_on_where_the_other_was_and_every_claim_has_one_volume() {
    let cluster = &*CLUSTER;
    let scratch = Scratch::new();
    let namespace = cluster.namespace("replicas", &json!({})).expect("a namespace");
    let name = &*namespace.name;
    let mut parameters = json!({});
    let mut of_snapshots = json!({});
    for what in ["provisioner", "controller-expand", "node-publish", "snapshotter", "snapshotter-list"] {
        let parameters = if what.starts_with("snapshotter") { &mut of_snapshots } else { &mut parameters };
        parameters[format!("csi.storage.k8s.io/{what}-secret-name")] = json!("file-system");
        parameters[format!("csi.storage.k8s.io/{what}-secret-namespace")] = json!(name);
    }
    let secret = json!({"namespace": name, "name": "file-system"});
    let mut objects = vec![
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": DRIVER}, "spec": {"attachRequired": false}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": secret, "stringData": scratch.secrets()}),
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}, "provisioner": DRIVER,
            "parameters": parameters, "reclaimPolicy": "Delete", "allowVolumeExpansion": true,
        }),
        json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass", "metadata": {"name": name},
            "driver": DRIVER, "deletionPolicy": "Delete", "parameters": of_snapshots,
        }),
    ];
    let claims: Vec<String> = (0..CLAIMS).map(|index| format!("claim-{index}")).collect();
    let claim = |claim: &str, source: Value| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": name, "name": claim},
            "spec": {
                "accessModes": ["ReadWriteMany"], "storageClassName": name, "resources": {"requests": {"storage": "1Gi"}},
                "dataSource": source,
            },
        })
    };
    objects.extend(claims.iter().map(|it| claim(it, Value::Null)));

    let key = tempfile::NamedTempFile::new().expect("a file");
    fs::write(key.path(), "5e".repeat(32)).expect("written");
    cluster.apply(&rights("cert-manager", "pith-controller-snapshots").expect("they are rendered")).expect("rights");
    let [first, second] = [(); 2].map(|()| Replica::start(cluster, key.path()));
    cluster.apply(&yaml(&objects)).expect("objects");

    // One of the two works, and goes in the midst of it.
    let works = |replica: &Replica| replica.asked() > 2;
    cluster
        .until(name, "a replica that works", || Ok((works(&first) || works(&second)).then_some(())))
        .expect("one has the lease");
    let (gone, left) = if works(&first) { (first, second) } else { (second, first) };
    drop(gone);

    for claim in &claims {
        cluster
            .wait(name, "jsonpath={.status.phase}=Bound", &format!("pvc/{claim}"))
            .expect("the other one goes on with it");
    }
    let larger = r#"{"spec": {"resources": {"requests": {"storage": "2Gi"}}}}"#;
    cluster.kubectl(&["patch", "pvc", &claims[0], "--namespace", name, "--patch", larger]).expect("it is patched");
    let resized = format!("pvc/{}", claims[0]);
    cluster.wait(name, "jsonpath={.status.capacity.storage}=2Gi", &resized).expect("its resizer has the lease too");
    let snapshot = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"namespace": name, "name": "before"},
        "spec": {"volumeSnapshotClassName": name, "source": {"persistentVolumeClaimName": claims[1]}},
    });
    cluster.apply(&yaml(&[snapshot])).expect("a snapshot");
    cluster
        .wait(name, "jsonpath={.status.readyToUse}=true", "volumesnapshot/before")
        .expect("its snapshotter has the lease too");
    let of_snapshot = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "before"});
    cluster.apply(&yaml(&[claim("restored", of_snapshot)])).expect("a claim");
    cluster.wait(name, "jsonpath={.status.phase}=Bound", "pvc/restored").expect("it is made of the snapshot");

    // Nothing is doubled, and nothing left behind by the one that is gone.
    let volumes = || -> BTreeSet<String> {
        let all = cluster.get(&["pv"]).expect("they can be listed");
        let ours =
            all["items"].as_array().into_iter().flatten().filter(|it| it["spec"]["claimRef"]["namespace"] == name);
        ours.map(|it| it["metadata"]["name"].as_str().expect("a name").to_string()).collect()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let made = || -> BTreeSet<String> {
        let mut made = directories(&runtime.block_on(tree(&scratch.secrets())), &[]);
        made.remove(".pith");
        made
    };
    let bound: BTreeSet<String> = {
        let claims = cluster.get(&["pvc", "--namespace", name]).expect("they can be listed");
        let volume = |it: &Value| it["spec"]["volumeName"].as_str().expect("a volume").to_string();
        claims["items"].as_array().expect("claims").iter().map(volume).collect()
    };
    assert_eq!((bound.len(), &volumes(), &made()), (CLAIMS + 1, &bound, &bound));

    cluster.kubectl(&["delete", "volumesnapshot", "before", "--namespace", name]).expect("it is deleted");
    cluster.kubectl(&["delete", "pvc", "--all", "--namespace", name]).expect("they are deleted");
    cluster.until(name, "the end of all volumes", || Ok(volumes().is_empty().then_some(()))).expect("they are deleted");
    assert!(made().is_empty());
    cluster.kubectl(&["delete", "storageclass,volumesnapshotclass", name]).expect("they are deleted");
    cluster.kubectl(&["delete", "csidriver", DRIVER]).expect("it is deleted");
    drop(left);
}
