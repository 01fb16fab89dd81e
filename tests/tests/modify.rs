//! What a VolumeAttributesClass says of a volume: how many files it may have, and what becomes of it when it is deleted.

use pith::juicefs::steps::MODIFY_STEPS;
use pith_tests::cluster::CLUSTER;
use pith_tests::juicefs::{CLIENT, Scratch};
use pith_tests::provisioner::{Refusal, Site};
use pith_tests::server::{PITH, Server};
use serde_json::{Value, json};

use crate::cluster::{driver_of, yaml};

const CONFIG: &str = "csi: {socket: csi.sock, cluster: test}\n";

fn ask(site: &Site, arguments: &[&str]) -> Result<Value, Refusal> {
    site.ask(arguments).expect("pith csi runs")
}

/// The numbers of files and directories that the directory of a volume may have, and its space, as the client says them.
fn quota(scratch: &Scratch, id: &str) -> (String, String) {
    let table = scratch.run(&["quota", "list", "META"]);
    let row = table.lines().map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    let of_volume = row.into_iter().find(|row| row.get(1) == Some(&&*format!("/{id}")));
    of_volume.map_or_else(|| ("none".into(), "none".into()), |row| (row[5].to_string(), row[2].to_string()))
}

/// What is recorded of a volume.
fn record(site: &Site, id: &str) -> Value {
    site.volumes().expect("the records can be read").remove(id).unwrap_or_else(|| panic!("there is no {id}"))
}

/// The places in the trash and the archive, as `pith volumes trash` lists them.
fn trash(site: &Site) -> Vec<Value> {
    let mut command = std::process::Command::new(&*PITH);
    command.args(["volumes", "trash", "-o", "json", "--config", "pith.yaml", "--secret-file", "secret.yaml"]);
    let output = command.current_dir(site.path()).output().expect("pith runs");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn days(item: &Value) -> u64 {
    let moment = |key: &str| humantime::parse_rfc3339(item[key].as_str().expect("a moment")).expect("a moment");
    moment("keptUntil").duration_since(moment("deletedAt")).expect("later").as_secs() / 86_400
}

#[test]
fn inodes_and_what_becomes_of_a_deleted_volume_are_said_when_it_is_made_and_changed_later() {
    let scratch = Scratch::new();
    let site = Site::new(CONFIG, "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    let create =
        ["create", "pvc-a", "--size", "1Gi", "--parameter", "trashDays=30", "--mutable-parameter", "inodes=1000"];
    let made = ask(&site, &create).expect("it is made");
    assert_eq!(quota(&scratch, "pvc-a"), ("1,000".into(), "1.0 GiB".into()));
    assert_eq!(made["context"].get("inodes"), None, "what can change is not told to nodes");

    // A change is one more generation, and the same once more is none.
    for _ in 0..2 {
        ask(&site, &["modify", "pvc-a", "--set", "inodes=20", "--set", "trashDays=3"]).expect("it is changed");
        assert_eq!(quota(&scratch, "pvc-a"), ("20".into(), "1.0 GiB".into()));
        assert_eq!(record(&site, "pvc-a")["generation"], 2);
    }
    assert_eq!(record(&site, "pvc-a")["mutable"], json!({"inodes": "20", "trashDays": "3"}));
    assert_eq!(ask(&site, &create).expect("it is there"), made, "the first request fits for ever");
    let other: Vec<&str> = create.iter().map(|it| if *it == "inodes=1000" { "inodes=20" } else { it }).collect();
    let refusal = ask(&site, &other).expect_err("it was made of something else");
    assert!(refusal.sentence.contains("mutable_parameters.inodes is `1000`, and `20` is asked"), "{refusal:?}");

    // It grows by its size, and keeps the rest.
    ask(&site, &["expand", "pvc-a", "--size", "2Gi"]).expect("it grows");
    assert_eq!(quota(&scratch, "pvc-a"), ("20".into(), "2.0 GiB".into()));
    ask(&site, &["modify", "pvc-a", "--set", "inodes=0"]).expect("it is changed");
    assert_eq!(quota(&scratch, "pvc-a"), ("unchanged".into(), "2.0 GiB".into()));

    ask(&site, &["delete", "pvc-a"]).expect("it is deleted");
    let left = trash(&site);
    assert_eq!((left.len(), days(&left[0])), (1, 3), "{left:?}");

    // One without a size, made without either, and archived after all.
    ask(&site, &["create", "pvc-b"]).expect("it is made");
    assert_eq!(quota(&scratch, "pvc-b").0, "none");
    ask(&site, &["modify", "pvc-b", "--set", "inodes=7", "--set", "onDelete=archive"]).expect("it is changed");
    assert_eq!(quota(&scratch, "pvc-b"), ("7".into(), "unchanged".into()));
    ask(&site, &["delete", "pvc-b"]).expect("it is deleted");
    let archived = trash(&site).into_iter().find(|item| item["id"] == "pvc-b").expect("it is there");
    assert_eq!(archived["onDelete"], "archive");
}

#[test]
fn what_cannot_be_changed_says_why_and_changes_nothing() {
    let scratch = Scratch::new();
    let site = Site::new(CONFIG, "", &scratch.secrets()).expect("a site");
    let serving = site.serve(&[]).expect("it serves");
    let create =
        ["create", "pvc-a", "--size", "1Gi", "--parameter", "onDelete=retain", "--mutable-parameter", "inodes=5"];
    ask(&site, &create).expect("it is made");
    let check = |arguments: &[&str], code: &str, says: &str| {
        let refusal = ask(&site, arguments).expect_err("it must be refused");
        assert_eq!(refusal.code, code, "{refusal:?}");
        assert!(refusal.sentence.contains(says), "expected `{says}` in {refusal:?}");
    };
    let set = |parameters: &[&'static str]| {
        let parameters = parameters.iter().flat_map(|it| ["--set", it]);
        ["modify", "pvc-a"].into_iter().chain(parameters).collect::<Vec<_>>()
    };
    check(&set(&["inodes=7", "size=2Gi"]), "InvalidArgument", "the parameter `size` cannot be changed");
    check(&set(&["inodes=7", "onDelete=keep"]), "InvalidArgument", "the parameter onDelete is `keep`: write `delete`");
    check(&set(&["inodes=7", "trashDays=3"]), "InvalidArgument", "it is for `onDelete: delete`");
    check(&set(&["inodes=some"]), "InvalidArgument", "the parameter inodes is `some`: write a whole number");
    check(&["modify", "pvc-none", "--set", "inodes=7"], "NotFound", "there is no volume `pvc-none`");
    check(
        &["create", "pvc-b", "--mutable-parameter", "color=red"],
        "InvalidArgument",
        "the parameter `color` cannot be changed",
    );
    assert_eq!((&*quota(&scratch, "pvc-a").0, &record(&site, "pvc-a")["generation"]), ("5", &json!(1)));
    assert_eq!(site.volumes().expect("the records can be read").len(), 1, "nothing was begun");

    // Without quotas nothing would keep to it; the rest can be changed all the same.
    serving.kill().expect("it can be killed");
    let config = std::fs::read_to_string(site.path().join("pith.yaml")).expect("it is there");
    std::fs::write(site.path().join("pith.yaml"), config.replace("cluster: test", "cluster: test, quota: false"))
        .expect("it is written");
    let _serving = site.serve(&[]).expect("it serves again");
    check(
        &set(&["inodes=7"]),
        "InvalidArgument",
        "the volume has its quota off (a policy, its class, or `csi.quota: false`)",
    );
    check(&["create", "pvc-b", "--mutable-parameter", "inodes=7"], "InvalidArgument", "`csi.quota: false`");
    ask(&site, &set(&["onDelete=archive"])).expect("it is changed");
}

#[test]
fn a_change_that_is_killed_at_any_step_is_made_by_the_next_call_and_needs_no_secret_where_lists_need_none() {
    for step in MODIFY_STEPS {
        let scratch = Scratch::new();
        let config = "csi: {socket: csi.sock, cluster: test, secretFiles: [secret.yaml]}\n";
        let site = Site::new(config, "", &scratch.secrets()).expect("a site");
        let serving = site.serve(&[]).expect("it serves");
        ask(&site, &["create", "pvc-a"]).expect("it is made");
        serving.kill().expect("it can be killed");
        let mut dying = site.serve(&["--die-at", step]).expect("it serves again");
        let change = ["modify", "pvc-a", "--set", "inodes=7", "--set", "trashDays=1"];
        ask(&site, &change).expect_err("it dies");
        dying.wait().expect("it ends");
        let _serving = site.serve(&[]).expect("it serves again");
        ask(&site, &change).unwrap_or_else(|error| panic!("{step}: {error:?}"));
        assert_eq!(quota(&scratch, "pvc-a").0, "7", "{step}");
        let changed = record(&site, "pvc-a");
        assert_eq!((&changed["generation"], &changed["mutable"]["trashDays"]), (&json!(2), &json!("1")), "{step}");

        let endpoint = format!("unix://{}", site.socket().display());
        let secretless = |id: &str| {
            let mut command = std::process::Command::new(&*PITH);
            let output = command.args(["csi", "--endpoint", &endpoint, "modify", id, "--set", "inodes=8"]).output();
            String::from_utf8(output.expect("pith runs").stderr).expect("text")
        };
        assert_eq!(secretless("pvc-a"), "");
        assert_eq!(quota(&scratch, "pvc-a").0, "8", "{step}");
        assert!(secretless("pvc-b").contains("there is no volume `pvc-b`"), "{}", secretless("pvc-b"));
    }
}

/// With csi-provisioner and csi-resizer, and with the rights that the chart gives Pith.
#[test]
fn in_a_cluster_a_claim_takes_another_volume_attributes_class() {
    let cluster = &*CLUSTER;
    let _alone = driver_of(cluster);
    let scratch = Scratch::new();
    let namespace = cluster.namespace("attributes", &json!({})).expect("a namespace");
    let name = &*namespace.name;
    let mut parameters = json!({});
    for what in ["provisioner", "controller-modify", "node-publish"] {
        parameters[format!("csi.storage.k8s.io/{what}-secret-name")] = json!("file-system");
        parameters[format!("csi.storage.k8s.io/{what}-secret-namespace")] = json!(name);
    }
    let class = |class: &str, parameters: Value| {
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "metadata": {"name": format!("{name}-{class}")},
            "driverName": "csi.juicefs.com", "parameters": parameters,
        })
    };
    let objects = [
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": name, "name": "file-system"}, "stringData": scratch.secrets()}),
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": "csi.juicefs.com", "parameters": parameters, "reclaimPolicy": "Delete",
        }),
        class("silver", json!({"inodes": "1000"})),
        class("gold", json!({"inodes": "50", "onDelete": "archive"})),
        class("wrong", json!({"iops": "50"})),
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": name, "name": "data"},
            "spec": {
                "accessModes": ["ReadWriteMany"], "storageClassName": name, "resources": {"requests": {"storage": "1Gi"}},
                "volumeAttributesClassName": format!("{name}-silver"),
            },
        }),
    ];
    cluster.apply(&yaml(&objects)).expect("objects");
    let config = [
        ("csi", json!({"socket": cluster.csi_socket(), "cluster": "test"})),
        ("juicefs", json!({"client": *CLIENT, "startTimeout": "60s", "callTimeout": "30s"})),
    ];
    let config: String = config.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
    let kubeconfig = cluster.kubeconfig_of_pith("pith-controller").expect("a kubeconfig");
    let server = Server::start_following(cluster, &config, &kubeconfig).expect("it serves");
    cluster.show_log(&server.folder.path().join("log"));

    cluster.wait(name, "jsonpath={.status.phase}=Bound", "pvc/data").expect("csi-provisioner calls Pith");
    let bound = cluster.get(&["pvc", "data", "--namespace", name]).expect("the claim");
    let id = bound["spec"]["volumeName"].as_str().expect("a volume");
    assert_eq!(quota(&scratch, id), ("1,000".into(), "1.0 GiB".into()));

    let take = |class: &str| {
        let patch = json!({"spec": {"volumeAttributesClassName": format!("{name}-{class}")}}).to_string();
        cluster.kubectl(&["patch", "pvc", "data", "--namespace", name, "--patch", &patch]).expect("it is patched");
    };
    take("gold");
    let current = format!("jsonpath={{.status.currentVolumeAttributesClassName}}={name}-gold");
    cluster.wait(name, &current, "pvc/data").expect("csi-resizer calls Pith");
    assert_eq!(quota(&scratch, id), ("50".into(), "1.0 GiB".into()));

    take("wrong");
    let sentence = "the parameter `iops` cannot be changed: `inodes`, `onDelete` and `trashDays` can";
    let told = || Ok(cluster.events(name, "data")?.iter().any(|event| event.contains(sentence)).then_some(()));
    cluster.until(name, sentence, told).expect("csi-resizer reports it");
    assert_eq!(quota(&scratch, id).0, "50");

    // What the class says of deletion counts: it is archived.
    cluster.kubectl(&["delete", "pvc", "data", "--namespace", name]).expect("it is deleted");
    cluster.wait(name, "delete", &format!("pv/{id}")).expect("csi-provisioner calls Pith");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let tree = runtime.block_on(crate::volumes::tree(&scratch.secrets()));
    let archive = crate::volumes::directories(&tree, &[".pith", "archive"]);
    assert!(archive.iter().any(|place| place.starts_with(id)), "{archive:?}");
    let classes = ["silver", "gold", "wrong"].map(|class| format!("{name}-{class}"));
    let delete: Vec<&str> =
        ["delete", "volumeattributesclass"].into_iter().chain(classes.iter().map(String::as_str)).collect();
    cluster.kubectl(&delete).expect("they are deleted");
    cluster.kubectl(&["delete", "storageclass", name]).expect("it is deleted");
}
