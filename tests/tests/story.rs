//! The whole life of volumes in a cluster, with data in them that is compared byte by byte: claims, pods, expansion, another
//! VolumeAttributesClass, a snapshot, what is restored from it, a clone, and what becomes of the data by each reclaim policy and each
//! `onDelete`.
//!
//! Webhook, driver and controller are one server here, with the rights that the chart gives the controller; csi-provisioner,
//! csi-resizer and csi-snapshotter call it, and the pods run on the real node.

use std::collections::BTreeMap;

use pith_tests::cluster::{CLUSTER, Cluster};
use pith_tests::juicefs::CLIENT;
use pith_tests::server::{PITH, Server};
use serde_json::{Value, json};

use crate::cluster::{driver, driver_of, file_system_for_pods, of_sidecar, yaml};

/// What the claims of a story are called, what reclaims their volumes, and what their class says of deletion.
const ENDS: [(&str, &str, Option<&str>); 4] = [
    ("trashed", "Delete", None),
    ("archived", "Delete", Some("archive")),
    ("retained", "Delete", Some("retain")),
    ("kept", "Retain", None),
];

/// Writes a tree of files, of which one is large enough to have many blocks.
const WRITE: &str = "cd /data && mkdir -p deep/er && head -c 20000000 /dev/urandom > large && \
                     for i in $(seq 1 100); do echo $i > deep/er/$i; done && ln -s large link && ln large deep/hard && sync";

/// The digest of all that a directory has: names, kinds and contents.
const DIGEST: &str = "cd /data && (find . ! -name '.*' -o -name . | sort; find . -type f ! -name '.*' | sort | xargs sha256sum; readlink link) | sha256sum";

struct Story {
    cluster: &'static Cluster,
    namespace: String,
    server: Server,
}

impl Story {
    fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.kubectl(&[&["--namespace", &self.namespace], arguments].concat()).expect("kubectl")
    }

    fn in_pod(&self, pod: &str, command: &str) -> String {
        self.kubectl(&["exec", pod, "--container=app", "--", "sh", "-c", command]).trim().to_string()
    }

    /// A pod that has a claim at /data.
    fn pod(&self, pod: &str, claim: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": self.namespace, "name": pod},
            "spec": {
                "terminationGracePeriodSeconds": 5,
                "containers": [{
                    "name": "app", "image": "docker.io/pith/app:0.1.0", "imagePullPolicy": "Never",
                    "command": ["sh", "-c", "test -f /data/.config && exec sleep 3600"],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
            },
        })
    }

    fn run(&self, pods: &[Value]) {
        self.cluster.apply(&yaml(pods)).expect("pods");
        for pod in pods {
            let pod = format!("pod/{}", pod["metadata"]["name"].as_str().expect("a name"));
            self.cluster.wait(&self.namespace, "condition=Ready", &pod).expect("it starts");
        }
    }

    fn volume(&self, claim: &str) -> String {
        self.kubectl(&["get", "pvc", claim, "--output=jsonpath={.spec.volumeName}"])
    }

    /// What `pith volumes` prints as JSON, for the Secret in this file.
    fn volumes(&self, arguments: &[&str]) -> Value {
        let mut command = self.cluster.command(&PITH);
        command.arg("volumes").args(arguments).args([
            "-o",
            "json",
            "--config",
            "pith.yaml",
            "--secret-file",
            "secret.yaml",
        ]);
        let output = command.current_dir(self.server.folder.path()).output().expect("pith runs");
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

#[test]
fn what_a_volume_holds_is_whole_from_its_claim_to_its_end() {
    let cluster = &*CLUSTER;
    let _alone = driver_of(cluster);
    let redis = file_system_for_pods(cluster);
    let namespace = cluster.namespace("story", &json!({"juicefs.com/enable-injection": "true"})).expect("a namespace");
    let name = &*namespace.name;
    let values = json!({"name": "pods", "metaurl": redis.secrets()["metaurl"]});
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": name, "name": "file-system"}, "stringData": values,
    });
    let class = |end: &str, reclaim: &str, on_delete: Option<&str>| {
        let mut parameters: BTreeMap<String, String> =
            on_delete.map(|value| ("onDelete".into(), value.into())).into_iter().collect();
        for what in ["provisioner", "controller-expand", "controller-modify", "node-publish"] {
            parameters.insert(format!("csi.storage.k8s.io/{what}-secret-name"), "file-system".into());
            parameters.insert(format!("csi.storage.k8s.io/{what}-secret-namespace"), name.into());
        }
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": format!("{name}-{end}")},
            "provisioner": "csi.juicefs.com", "parameters": parameters, "reclaimPolicy": reclaim, "allowVolumeExpansion": true,
        })
    };
    let claim = |claim: &str, class: &str, volume: Option<&str>| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": name, "name": claim},
            "spec": {
                "accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": volume,
                "storageClassName": class,
            },
        })
    };
    let few = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "metadata": {"name": format!("{name}-few")},
        "driverName": "csi.juicefs.com", "parameters": {"inodes": "150"},
    });
    let of_file_system = json!({
        "csi.storage.k8s.io/snapshotter-secret-name": "file-system", "csi.storage.k8s.io/snapshotter-secret-namespace": name,
        "csi.storage.k8s.io/snapshotter-list-secret-name": "file-system",
        "csi.storage.k8s.io/snapshotter-list-secret-namespace": name,
    });
    let snapshots = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass", "metadata": {"name": name},
        "driver": "csi.juicefs.com", "deletionPolicy": "Delete", "parameters": of_file_system,
    });
    let mut objects = vec![driver(), secret.clone(), few, snapshots];
    for (end, reclaim, on_delete) in ENDS {
        objects.extend([class(end, reclaim, on_delete), claim(end, &format!("{name}-{end}"), None)]);
    }
    cluster.apply(&yaml(&objects)).expect("objects");
    let config = format!(
        "sidecar: {}\ncsi: {}\ncontroller: {{}}\njuicefs: {{client: {}, startTimeout: 60s, callTimeout: 30s}}\n",
        of_sidecar(),
        json!({"socket": cluster.csi_socket(), "cluster": "test"}),
        CLIENT.display()
    );
    let kubeconfig = cluster.kubeconfig_of_pith("pith-controller").expect("a kubeconfig");
    let server = Server::start_following(cluster, &config, &kubeconfig).expect("it serves");
    std::fs::write(server.folder.path().join("secret.yaml"), secret.to_string()).expect("written");
    cluster.show_log(&server.folder.path().join("log"));
    cluster.register(name, &server).expect("a webhook can be registered");
    cluster.kubectl(&["label", "namespace", name, &format!("pith.test/webhook={name}")]).expect("it is labelled");
    let story = Story { cluster, namespace: name.into(), server };

    // Four claims become volumes, and a pod of each writes.
    let ids = ENDS.map(|(end, ..)| {
        cluster
            .wait(name, "jsonpath={.status.phase}=Bound", &format!("pvc/{end}"))
            .expect("csi-provisioner calls Pith");
        story.volume(end)
    });
    cluster.until_injected(name, &story.pod("trashed", "trashed"), "pith-guard").expect("it is asked");
    story.run(&ENDS.map(|(end, ..)| story.pod(end, end)));
    let mut written = ENDS.map(|(end, ..)| {
        story.in_pod(end, WRITE);
        story.in_pod(end, DIGEST)
    });
    let read = |pod: &str| story.in_pod(pod, DIGEST);

    // It grows, and has fewer files, under the pod that uses it.
    let larger = r#"{"spec": {"resources": {"requests": {"storage": "3Gi"}}}}"#;
    story.kubectl(&["patch", "pvc", "trashed", "--patch", larger]);
    cluster.wait(name, "jsonpath={.status.capacity.storage}=3Gi", "pvc/trashed").expect("csi-resizer calls Pith");
    let few = json!({"spec": {"volumeAttributesClassName": format!("{name}-few")}}).to_string();
    story.kubectl(&["patch", "pvc", "trashed", "--patch", &few]);
    let current = format!("jsonpath={{.status.currentVolumeAttributesClassName}}={name}-few");
    cluster.wait(name, &current, "pvc/trashed").expect("csi-resizer calls Pith");
    let grown = || {
        let size = story.in_pod("trashed", "df -P -m /data | tail -1 | awk '{print $2}'");
        Ok((size == "3072").then_some(()))
    };
    cluster.until(name, "the size in the pod", grown).expect("the client that is mounted sees it");
    let more =
        "cd /data; for i in $(seq 100); do touch .more-$i 2>/dev/null || { echo full; break; }; done; rm -f .more-*";
    let full = || Ok((story.in_pod("trashed", more) == "full").then_some(()));
    cluster.until(name, "the bound of files in the pod", full).expect("the client that is mounted sees it");
    assert_eq!(read("trashed"), written[0]);

    // Other pods find what these wrote.
    let again = ENDS.map(|(end, ..)| format!("{end}-again"));
    for (end, ..) in ENDS {
        story.kubectl(&["delete", "pod", end]);
    }
    story.run(&[0, 1, 2, 3].map(|index| story.pod(&again[index], ENDS[index].0)));
    assert_eq!([0, 1, 2, 3].map(|index| read(&again[index])), written);

    // A snapshot is as the volume was, whatever is written then, and a clone as it is now.
    let snapshot = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"namespace": name, "name": "before"},
        "spec": {"volumeSnapshotClassName": name, "source": {"persistentVolumeClaimName": "archived"}},
    });
    cluster.apply(&yaml(&[snapshot])).expect("a snapshot");
    cluster
        .wait(name, "jsonpath={.status.readyToUse}=true", "volumesnapshot/before")
        .expect("csi-snapshotter calls Pith");
    story.in_pod("archived-again", "cd /data && echo other > deep/er/1 && rm deep/er/2 && echo new > new && sync");
    let changed = read("archived-again");
    assert_ne!(changed, written[1]);
    let of_snapshot = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "before"});
    let of_claim = json!({"kind": "PersistentVolumeClaim", "name": "archived"});
    let copies = [("restored", of_snapshot), ("cloned", of_claim)].map(|(copy, source)| {
        let mut claim = claim(copy, &format!("{name}-archived"), None);
        claim["spec"]["dataSource"] = source;
        claim
    });
    cluster.apply(&yaml(&copies)).expect("claims");
    story.run(&["restored", "cloned"].map(|copy| story.pod(copy, copy)));
    assert_eq!([read("restored"), read("cloned")], [written[1].clone(), changed.clone()]);
    story.in_pod("restored", "cd /data && echo back > deep/er/1 && sync");
    assert_eq!([read("archived-again"), read("cloned")], [changed.clone(), changed.clone()]);
    story.kubectl(&["delete", "volumesnapshot", "before"]);
    written[1] = changed;

    // The claims go, and of each volume there is left what its class says.
    let copies = ["restored", "cloned"].map(|copy| story.volume(copy));
    story.kubectl(&["delete", "pod", "--all"]);
    story.kubectl(&["delete", "pvc", "--all"]);
    for id in ids[..3].iter().chain(&copies) {
        cluster.wait(name, "delete", &format!("pv/{id}")).expect("csi-provisioner calls Pith");
    }
    cluster.wait(name, "jsonpath={.status.phase}=Released", &format!("pv/{}", ids[3])).expect("it is kept");
    let records = story.volumes(&["ls"]);
    let left: Vec<&str> =
        records.as_array().expect("a list").iter().map(|it| it["id"].as_str().expect("an id")).collect();
    assert_eq!(left, [&*ids[3]], "{records:#}");

    // Each comes back for a claim of the same name, and has what was written.
    let restored: Vec<Value> = ids[..3].iter().map(|id| story.volumes(&["restore-from-trash", id])).collect();
    let sizes: Vec<&str> = restored.iter().filter_map(|it| it["spec"]["capacity"]["storage"].as_str()).collect();
    assert_eq!(sizes, ["3Gi", "1Gi", "1Gi"]);
    cluster.apply(&yaml(&restored)).expect("volumes");
    let release = r#"[{"op": "remove", "path": "/spec/claimRef"}]"#;
    cluster.kubectl(&["patch", "pv", &ids[3], "--type=json", "--patch", release]).expect("it is released");
    let classes = [String::new(), String::new(), String::new(), format!("{name}-kept")];
    let claims = [0, 1, 2, 3].map(|index| claim(ENDS[index].0, &classes[index], Some(&ids[index])));
    cluster.apply(&yaml(&claims)).expect("claims");
    story.run(&ENDS.map(|(end, ..)| story.pod(end, end)));
    assert_eq!(ENDS.map(|(end, ..)| read(end)), written);

    story.kubectl(&["delete", "pod", "--all"]);
    story.kubectl(&["delete", "pvc", "--all"]);
    for volume in &ids {
        cluster.kubectl(&["delete", "pv", volume]).expect("it is deleted");
    }
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", &format!("pith-{name}")]).expect("it is deleted");
    cluster.kubectl(&["delete", "volumeattributesclass", &format!("{name}-few")]).expect("it is deleted");
    cluster.kubectl(&["delete", "volumesnapshotclass", name]).expect("it is deleted");
    for (end, ..) in ENDS {
        cluster.kubectl(&["delete", "storageclass", &format!("{name}-{end}")]).expect("it is deleted");
    }
}
