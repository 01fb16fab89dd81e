//! Volumes that the JuiceFS driver has made and left without a record: deleted and expanded by what their PersistentVolumes say, on
//! the real client, and never while something else uses the directory.

use std::collections::{BTreeMap, BTreeSet};

use pith::juicefs::Path;
use pith_tests::cluster::CLUSTER;
use pith_tests::juicefs::{CLIENT, Scratch};
use pith_tests::provisioner::{Refusal, Site};
use pith_tests::server::{PITH, Server};
use serde_json::{Value, json};

use crate::cluster::{driver_of, said, yaml as documents};
use crate::volumes::{directories, tree, with_worker};

const CONFIG: &str = "csi: {socket: csi.sock, cluster: test}\n";

/// Three volumes as provisioners call them.
const A: &str = "pvc-00000000-0000-4000-8000-00000000000a";
const B: &str = "pvc-00000000-0000-4000-8000-00000000000b";
const C: &str = "pvc-00000000-0000-4000-8000-00000000000c";

/// A volume as the driver's provisioner makes it, of 1 GiB, whose claim is gone.
fn provisioned(name: &str, path: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": "csi.juicefs.com"}},
        "spec": {
            "accessModes": ["ReadWriteMany"], "capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": "juicefs",
            "csi": {
                "driver": "csi.juicefs.com", "volumeHandle": name,
                "volumeAttributes": {"subPath": path, "capacity": "1073741824", "pathPattern": "${.pvc.name}"},
                "nodePublishSecretRef": {"namespace": "kube-system", "name": "one"},
            },
        },
        "status": {"phase": "Released"},
    })
}

/// One that another claim has.
fn in_use(name: &str, path: &str) -> Value {
    let mut volume = provisioned(name, path);
    volume["status"]["phase"] = json!("Bound");
    volume
}

/// One that somebody has made by hand, of the whole file system or what a mount option says.
fn by_hand(name: &str, options: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteMany"], "capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Retain",
            "mountOptions": options,
            "csi": {
                "driver": "csi.juicefs.com", "volumeHandle": name,
                "nodePublishSecretRef": {"namespace": "kube-system", "name": "one"},
            },
        },
        "status": {"phase": "Bound"},
    })
}

fn yaml(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
}

/// A file system with these directories, each with a file, and a site that knows these objects.
struct Left {
    scratch: Scratch,
    site: Site,
}

impl Left {
    async fn made(scratch: Scratch, paths: &[&str], objects: &[Value]) -> Left {
        with_worker(&scratch.secrets(), async |worker| {
            for path in paths {
                let path = Path::of(path.split('/')).expect("it is a path");
                worker.make_directories(&path).await.expect("it is made");
                worker.write(&path.join("file").expect("it is a path"), b"data".into()).await.expect("it is written");
            }
        })
        .await;
        let site = Site::new(CONFIG, &yaml(objects), &scratch.secrets()).expect("a site");
        Left { scratch, site }
    }

    fn new(paths: &[&str], objects: &[Value]) -> Left {
        runtime().block_on(Left::made(Scratch::new(), paths, objects))
    }

    /// Gives the next server other objects.
    fn now_with(&self, objects: &[Value]) {
        std::fs::write(self.site.path().join("objects/all.yaml"), yaml(objects)).expect("it is written");
    }

    /// Which of these paths are there with their files.
    fn there(&self, paths: &[&str]) -> BTreeSet<String> {
        let tree = runtime().block_on(tree(&self.scratch.secrets()));
        let files: BTreeSet<String> = tree.iter().map(|entry| entry.path.components().join("/")).collect();
        let is_there = |path: &&&str| files.contains(&format!("{path}/file"));
        paths.iter().filter(is_there).map(|path| (*path).to_string()).collect()
    }

    /// What is below `/.pith`.
    fn of_pith(&self, below: &[&str]) -> BTreeSet<String> {
        let tree = runtime().block_on(tree(&self.scratch.secrets()));
        directories(&tree, &[&[".pith"], below].concat())
    }

    /// Volumes with a record.
    fn recorded(&self) -> BTreeMap<String, Value> {
        self.site.volumes().expect("the records can be read")
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn a_volume_of_the_driver_is_deleted_where_it_lies_and_nothing_beside_it() {
    let mut with_subdir = provisioned(B, "/team//app/");
    with_subdir["spec"]["mountOptions"] = json!(["writeback,subdir=/mounted"]);
    let volumes = [provisioned(A, A), with_subdir, provisioned(C, "not/there/yet")];
    const PATHS: [&str; 6] = [A, "pvc-ab", "mounted/team/app", "mounted/team/apple", "team/app", B];
    let left = Left::new(&PATHS, &volumes);
    let _serving = left.site.serve(&[]).expect("it serves");
    for id in [A, B, C, C, A, "pvc-unknown"] {
        left.site.ask(&["delete", id]).expect("pith csi runs").expect("it is deleted");
    }
    assert_eq!(left.there(&PATHS), names(&["pvc-ab", "mounted/team/apple", "team/app", B]));
    assert!(left.recorded().is_empty());
    // What was there can be had again, and nothing lies there of what was not.
    let trash: Vec<String> = left.of_pith(&["trash"]).into_iter().collect();
    assert_eq!(trash.iter().map(|it| it.split('.').next().expect("an id")).collect::<Vec<_>>(), [A, B]);
    let data: Vec<String> = trash.iter().map(|it| format!(".pith/trash/{it}/data")).collect();
    let data: Vec<&str> = data.iter().map(String::as_str).collect();
    assert_eq!(left.there(&data), names(&data));
    let log = left.site.log();
    assert!(log.contains("there is neither a record nor a PersistentVolume of it"), "{log}");
}

/// `/t/app` is asked to be deleted as the driver's volume [`A`], with these other volumes there.
#[track_caller]
fn check_stays(others: &[Value]) {
    let left = Left::new(&["t/app"], &[others, &[provisioned(A, "t/app")]].concat());
    let _serving = left.site.serve(&[]).expect("it serves");
    for _ in 0..2 {
        let answer = left.site.ask(&["delete", A]).expect("pith csi runs");
        assert!(answer.is_ok(), "{others:?}: {answer:?}");
        assert_eq!(left.there(&["t/app"]), names(&["t/app"]), "{others:?}");
        assert!(left.recorded().is_empty(), "{others:?}: {:?}", left.recorded());
    }
    assert!(left.site.log().contains("the directory of a deleted volume stays"), "{}", left.site.log());
}

#[test]
fn a_directory_that_another_volume_uses_stays_in_whatever_way_it_does() {
    check_stays(&[in_use(B, "t/app")]);
    check_stays(&[in_use(B, "t/app"), provisioned(C, "t/app")]);
    check_stays(&[in_use(B, "/t/./x/../app//")]);
    check_stays(&[by_hand("root", &[])]);
    check_stays(&[by_hand("above", &["subdir=t"])]);
    let mut of_another_class = in_use(B, "t/app/below");
    of_another_class["spec"]["storageClassName"] = json!("another");
    check_stays(&[of_another_class]);
    let mut of_another_driver = by_hand("same", &["subdir=/t/app"]);
    of_another_driver["spec"]["csi"]["driver"] = json!("second.csi.juicefs.com");
    check_stays(&[of_another_driver]);
}

/// What deleting [`A`], this volume, is refused with. Its directory stays as it is.
#[track_caller]
fn check_refused(volume: Value, others: &[Value], expected: (&str, &str)) {
    let left = Left::new(&["t/app"], &[others, &[volume]].concat());
    let _serving = left.site.serve(&[]).expect("it serves");
    let refusal = left.site.ask(&["delete", A]).expect("pith csi runs").expect_err("it is refused");
    assert_eq!(refusal, Refusal { code: expected.0.into(), sentence: expected.1.into() });
    assert_eq!(left.there(&["t/app"]), names(&["t/app"]));
    assert!(left.of_pith(&["trash"]).is_empty());
}

#[test]
fn nothing_is_deleted_where_something_is_not_clear() {
    let of = |change: &dyn Fn(&mut Value)| {
        let mut volume = provisioned(A, "t/app");
        change(&mut volume);
        volume
    };
    let sentence = |why: &str| format!("volume `{A}` has no record, and of its PersistentVolume `{A}`: {why}");
    let retained = of(&|volume| volume["spec"]["persistentVolumeReclaimPolicy"] = json!("Retain"));
    let expected = sentence("it is to stay, by its `persistentVolumeReclaimPolicy`");
    check_refused(retained, &[], ("FailedPrecondition", &expected));
    let above = of(&|volume| volume["spec"]["csi"]["volumeAttributes"]["subPath"] = json!("x/../t/app"));
    let expected = sentence("where it lies is not clear: the component \"..\" leads elsewhere in the tree");
    check_refused(above, &[], ("FailedPrecondition", &expected));
    let whole = of(&|volume| volume["spec"]["csi"]["volumeAttributes"]["subPath"] = json!("/"));
    let expected = sentence("where it lies is not clear: its attribute `subPath` names no directory");
    check_refused(whole, &[], ("FailedPrecondition", &expected));
    // Of another Secret: without a cluster, nobody can tell which file system that is of.
    let mut elsewhere = in_use(B, "t/app");
    elsewhere["spec"]["csi"]["nodePublishSecretRef"]["name"] = json!("two");
    let expected = format!(
        "whether the PersistentVolume `{B}` uses the same directory cannot be told: there is no cluster to ask for Secrets"
    );
    check_refused(provisioned(A, "t/app"), &[elsewhere], ("FailedPrecondition", &expected));
}

#[test]
fn what_was_made_by_hand_is_never_deleted() {
    let mut imported = provisioned(B, B);
    imported["metadata"]["annotations"] = json!({});
    imported["status"]["phase"] = json!("Released");
    let mut handle = by_hand("other", &[&format!("subdir={C}")]);
    handle["spec"]["csi"]["volumeHandle"] = json!(C);
    const PATHS: [&str; 3] = ["static", B, C];
    let left = Left::new(&PATHS, &[by_hand("static", &["subdir=static"]), imported, handle]);
    let _serving = left.site.serve(&[]).expect("it serves");
    for id in PATHS {
        left.site.ask(&["delete", id]).expect("pith csi runs").expect("there is nothing to delete");
    }
    assert_eq!(left.there(&PATHS), names(&PATHS));
    let refusal = left.site.ask(&["expand", "static", "--size", "2Gi"]).expect("pith csi runs").expect_err("no");
    assert_eq!(refusal.code, "FailedPrecondition", "{refusal:?}");
    assert!(refusal.sentence.contains("it was made by hand"), "{refusal:?}");

    // Nothing is known of any volume where no objects are.
    let left = Left::new(&[A], &[]);
    let config = left.site.path().join("pith.yaml");
    let text = std::fs::read_to_string(&config).expect("it is there").replace("objects: {directory: objects}\n", "");
    std::fs::write(&config, text).expect("it is written");
    let _serving = left.site.serve(&[]).expect("it serves");
    left.site.ask(&["delete", A]).expect("pith csi runs").expect("there is nothing to delete");
    assert_eq!(left.there(&[A]), names(&[A]));
}

#[test]
fn of_volumes_that_share_a_directory_the_last_one_takes_it_along() {
    let both = [provisioned(A, "t/app"), provisioned(B, "t/app")];
    let left = Left::new(&["t/app"], &both);
    let serving = left.site.serve(&[]).expect("it serves");
    let refusal = left.site.ask(&["delete", A]).expect("pith csi runs").expect_err("the other one goes too");
    let sentence =
        format!("the directory /t/app is that of the PersistentVolume `{B}` too, which is being deleted: ask again");
    assert_eq!(refusal, Refusal { code: "Aborted".into(), sentence });
    left.site.ask(&["delete", B]).expect("pith csi runs").expect("the first one has the directory");
    assert_eq!(left.there(&["t/app"]), names(&["t/app"]));
    serving.kill().expect("it can be killed");

    left.now_with(&both[..1]);
    let _serving = left.site.serve(&[]).expect("it serves again");
    left.site.ask(&["delete", A]).expect("pith csi runs").expect("it is deleted");
    assert_eq!(left.there(&["t/app"]), names(&[]));
    assert!(left.recorded().is_empty());
}

#[test]
fn a_volume_of_pith_leaves_the_driver_s_its_directory() {
    let left = Left::new(&["t/app"], &[in_use(A, "t/app"), provisioned(B, "t/app")]);
    let _serving = left.site.serve(&[]).expect("it serves");
    let create = ["create", B, "--size", "1Gi", "--parameter", "pathPattern=t/app"];
    left.site.ask(&create).expect("pith csi runs").expect("directories of a pattern are shared");
    left.site.ask(&["delete", B]).expect("pith csi runs").expect("it is deleted");
    assert_eq!(left.there(&["t/app"]), names(&["t/app"]));
    assert!(left.recorded().is_empty());
}

#[test]
fn a_volume_of_the_driver_grows_and_is_adopted_thereby() {
    let left = Left::new(&["t/app"], &[in_use(A, "t/app"), in_use(B, B)]);
    let serving = left.site.serve(&[]).expect("it serves");
    let mode = ["validate", A, "--mode", "rwx"];
    left.site.ask(&mode).expect("pith csi runs").expect("it is there");
    assert!(left.recorded().is_empty(), "who looks writes nothing");
    // What it has already, it has.
    for (id, size, expected) in [(A, "1Gi", 1_u64 << 30), (A, "3Gi", 3 << 30), (B, "2Gi", 2 << 30)] {
        let grown = left.site.ask(&["expand", id, "--size", size]).expect("pith csi runs").expect("it grows");
        assert_eq!(grown["capacityBytes"], expected, "{id}: {grown}");
    }
    let quota = |path: &str| left.scratch.run(&["quota", "get", "META", "--path", path]);
    assert!(quota("/t/app").contains("3.0 GiB"), "{}", quota("/t/app"));
    assert!(quota(&format!("/{B}")).contains("2.0 GiB"), "{}", quota(&format!("/{B}")));
    let recorded = left.recorded();
    assert_eq!(recorded[A]["namedBy"], "persistentVolume");
    assert_eq!((&recorded[A]["directory"], &recorded[A]["state"]), (&json!("/t/app"), &json!("ready")));
    serving.kill().expect("it can be killed");

    // Now its record says where it lies, whatever becomes of the PersistentVolume.
    left.now_with(&[]);
    let _serving = left.site.serve(&[]).expect("it serves again");
    left.site.ask(&["delete", A]).expect("pith csi runs").expect("it is deleted");
    assert_eq!(left.there(&["t/app"]), names(&[]));
}

#[test]
fn killing_pith_at_any_step_of_an_adoption_loses_and_leaks_nothing() {
    let steps = ["record-staged", "record-written", "index-begun", "record-moved", "index-made", "made-marked"];
    for step in steps.into_iter().chain(["trash-made", "data-moved", "index-moved", "volume-gone"]) {
        let left = Left::new(&["t/app", "t/other"], &[provisioned(A, "t/app")]);
        let mut dying = left.site.serve(&["--die-at", step]).expect("it serves");
        let cut = left.site.ask(&["delete", A]).expect("pith csi runs");
        assert!(cut.is_err(), "{step}: it was answered: {cut:?}");
        dying.wait().expect("it ends");
        let _serving = left.site.serve(&[]).expect("it serves again");
        left.site.insist(&["delete", A]).expect("pith csi runs").unwrap_or_else(|error| panic!("{step}: {error:?}"));
        assert_eq!(left.there(&["t/app", "t/other"]), names(&["t/other"]), "{step}");
        assert!(left.recorded().is_empty(), "{step}");
        let trash: Vec<String> = left.of_pith(&["trash"]).into_iter().collect();
        assert_eq!(trash.len(), 1, "{step}: {trash:?}");
        let data = format!(".pith/trash/{}/data", trash[0]);
        assert_eq!(left.there(&[&data]), names(&[&data]), "{step}");
    }
}

/// With csi-provisioner and csi-resizer, and with the rights that the chart gives.
#[test]
fn in_a_cluster_volumes_of_the_driver_grow_and_go_and_stay_where_another_secret_opens_the_same_file_system() {
    let cluster = &*CLUSTER;
    let _alone = driver_of(cluster);
    let (scratch, another) = (Scratch::new(), Scratch::new());
    let namespace = cluster.namespace("adoption", &json!({})).expect("a namespace");
    let name = &*namespace.name;
    let secret = |secret: &str, values: &BTreeMap<String, String>| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": name, "name": secret}, "stringData": values});
    let own = json!({"namespace": name, "name": "own"});
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": "csi.juicefs.com", "allowVolumeExpansion": true, "reclaimPolicy": "Delete",
        "parameters": {
            "csi.storage.k8s.io/provisioner-secret-name": "own", "csi.storage.k8s.io/provisioner-secret-namespace": name,
        },
    });
    let id = |claim: &str| format!("{name}-{claim}-{}", &A[4..]);
    let volume = |claim: &str| {
        let mut volume = in_use(&id(claim), &format!("team/{claim}"));
        volume["spec"]["storageClassName"] = json!(name);
        volume["spec"]["claimRef"] = json!({"namespace": name, "name": claim});
        volume["spec"]["csi"]["nodePublishSecretRef"] = own.clone();
        volume["spec"]["csi"]["controllerExpandSecretRef"] = own.clone();
        volume
    };
    let claim = |claim: &str| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": name, "name": claim},
            "spec": {
                "accessModes": ["ReadWriteMany"], "storageClassName": name, "volumeName": id(claim),
                "resources": {"requests": {"storage": "1Gi"}},
            },
        })
    };
    // One that lies in the directory of `shared` by another Secret, and one that only seems to lie in that of `alone`.
    let mut beside = by_hand(&id("beside"), &["subdir=team//shared"]);
    beside["spec"]["csi"]["nodePublishSecretRef"] = json!({"namespace": name, "name": "same"});
    let mut elsewhere = by_hand(&id("elsewhere"), &["subdir=/team/alone"]);
    elsewhere["spec"]["csi"]["nodePublishSecretRef"] = json!({"namespace": name, "name": "another"});
    // The same file system by another spelling of its address.
    let mut same = scratch.secrets();
    same.insert("metaurl".into(), scratch.meta_url().replace("sqlite3:///", "sqlite3:////"));
    const CLAIMS: [&str; 3] = ["grown", "shared", "alone"];
    let mut objects =
        vec![secret("own", &scratch.secrets()), secret("same", &same), secret("another", &another.secrets())];
    objects.extend([class, beside, elsewhere]);
    objects.extend(CLAIMS.iter().flat_map(|it| [volume(it), claim(it)]));
    cluster.apply(&documents(&objects)).expect("objects");
    const PATHS: [&str; 3] = ["team/grown", "team/shared", "team/alone"];
    let left = runtime().block_on(Left::made(scratch, &PATHS, &[]));
    for claim in CLAIMS {
        cluster.wait(name, "jsonpath={.status.phase}=Bound", &format!("pvc/{claim}")).expect("it is bound");
    }

    let config = [
        ("csi", json!({"socket": cluster.csi_socket(), "cluster": "test"})),
        ("juicefs", json!({"client": *CLIENT, "startTimeout": "60s", "callTimeout": "30s"})),
    ];
    let config: String = config.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
    let kubeconfig = cluster.kubeconfig_of_pith("pith-controller").expect("a kubeconfig");
    let server = Server::start_following(cluster, &config, &kubeconfig).expect("it serves");
    cluster.show_log(&server.folder.path().join("log"));

    let larger = r#"{"spec": {"resources": {"requests": {"storage": "2Gi"}}}}"#;
    cluster.kubectl(&["patch", "pvc", "grown", "--namespace", name, "--patch", larger]).expect("it is patched");
    cluster.wait(name, "jsonpath={.status.capacity.storage}=2Gi", "pvc/grown").expect("csi-resizer calls Pith");
    let quota = left.scratch.run(&["quota", "get", "META", "--path", "/team/grown"]);
    assert!(quota.contains("2.0 GiB"), "{quota}");

    let secret = server.folder.path().join("secret.yaml");
    let own = json!({"apiVersion": "v1", "kind": "Secret", "metadata": own, "stringData": left.scratch.secrets()});
    std::fs::write(&secret, own.to_string()).expect("it is written");
    let volumes = |arguments: &[&str]| {
        let mut command = cluster.command(&PITH);
        command.arg("volumes").args(arguments).arg("--config").arg(server.folder.path().join("pith.yaml"));
        let said = said(&command.arg("--secret-file").arg(&secret).output().expect("pith runs"));
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let found = volumes(&["check"]);
    for claim in ["shared", "alone"] {
        let line = format!("volume-unrecorded PersistentVolume {}", id(claim));
        assert!(found.contains(&line), "{found}");
    }
    assert!(!found.contains(&format!("volume-unrecorded PersistentVolume {}", id("grown"))), "{found}");

    let delete = |claim: &str| {
        cluster.kubectl(&["delete", "pvc", claim, "--namespace", name]).expect("it is deleted");
        cluster.wait(name, "delete", &format!("pv/{}", id(claim))).expect("csi-provisioner calls Pith");
    };
    delete("grown");
    delete("shared");
    assert_eq!(left.there(&PATHS), names(&["team/shared", "team/alone"]));
    let done = format!("done: write a record for volume `{0}`, as its PersistentVolume has it", id("alone"));
    let repaired = volumes(&["repair", "--apply"]);
    assert!(repaired.contains(&done), "{repaired}");
    delete("alone");
    assert_eq!(left.there(&PATHS), names(&["team/shared"]));
    for claim in ["beside", "elsewhere"] {
        cluster.kubectl(&["delete", "pv", &id(claim)]).expect("it is deleted");
    }
    cluster.kubectl(&["delete", "storageclass", name]).expect("it is deleted");
}
