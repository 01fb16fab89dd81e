//! Volumes that are asked for without a Secret, on the real client: lists in pages over several file systems, and single ones.

use std::collections::BTreeSet;
use std::process::Command;

use pith::juicefs::Path;
use pith_tests::cluster::CLUSTER;
use pith_tests::juicefs::{CLIENT, Scratch};
use pith_tests::provisioner::{Refusal, Site};
use pith_tests::redis::Redis;
use pith_tests::server::{PITH, Server};
use serde_json::{Value, json};

use crate::cluster::{said, yaml as documents};
use crate::volumes::with_worker;

/// A site that lists the volumes of its own file system.
const LISTING: &str = "csi: {socket: csi.sock, cluster: test, quota: false, secretFiles: [secret.yaml]}\n";

/// The ids on a page, and where the next one begins.
fn page(site: &Site, arguments: &[&str]) -> Result<(Vec<String>, Option<String>), Refusal> {
    let answer = site.ask(&[&["list"], arguments].concat()).expect("pith csi runs")?;
    let volumes = answer["volumes"].as_array().expect("volumes").iter();
    let ids = volumes.map(|volume| volume["id"].as_str().expect("an id").to_string()).collect();
    Ok((ids, answer["nextToken"].as_str().map(String::from)))
}

fn listed(site: &Site) -> Result<Vec<String>, Refusal> {
    page(site, &[]).map(|(ids, next)| {
        assert_eq!(next, None);
        ids
    })
}

fn make(site: &Site, id: &str) {
    site.ask(&["create", id, "--size", "1Gi"]).expect("pith csi runs").expect("it is made");
}

fn get(site: &Site, id: &str) -> Result<Value, Refusal> {
    site.ask(&["get", id]).expect("pith csi runs")
}

#[track_caller]
fn check_refused<T: std::fmt::Debug>(answer: Result<T, Refusal>, code: &str, says: &[&str]) {
    let refusal = answer.expect_err("it must be refused");
    assert_eq!(refusal.code, code, "{refusal:?}");
    for part in says {
        assert!(refusal.sentence.contains(part), "expected `{part}` in {refusal:?}");
    }
}

#[test]
fn pages_go_on_where_they_were_whatever_is_made_and_deleted_meanwhile_and_whoever_is_asked() {
    let scratch = Scratch::new();
    let site = Site::new(LISTING, "", &scratch.secrets()).expect("a site");
    let serving = site.serve(&[]).expect("it serves");
    assert_eq!(listed(&site).expect("a list"), Vec::<String>::new());
    for id in ["pvc-4", "pvc-1", "pvc-3", "pvc-2", "pvc-5", "pvc-6"] {
        make(&site, id);
    }
    let (first, token) = page(&site, &["--max-entries", "3"]).expect("a page");
    assert_eq!(first, ["pvc-1", "pvc-2", "pvc-3"]);
    let token = token.expect("there are more");
    // What the token points at goes, with everything before it, and so does the process that gave it.
    for id in &first {
        site.ask(&["delete", id]).expect("pith csi runs").expect("it is deleted");
    }
    site.ask(&["delete", "pvc-5"]).expect("pith csi runs").expect("it is deleted");
    make(&site, "pvc-0");
    make(&site, "pvc-30");
    serving.kill().expect("it can be killed");
    let _serving = site.serve(&[]).expect("it serves again");
    let next = ["--max-entries", "2", "--starting-token", &token];
    let (second, token) = page(&site, &next).expect("a page");
    assert_eq!(second, ["pvc-30", "pvc-4"]);
    let next = ["--max-entries", "2", "--starting-token", &token.expect("there are more")];
    assert_eq!(page(&site, &next).expect("the last page"), (vec!["pvc-6".into()], None));
    assert_eq!(listed(&site).expect("a list"), ["pvc-0", "pvc-30", "pvc-4", "pvc-6"]);
    // A page that is exactly full is the last one.
    assert_eq!(page(&site, &["--max-entries", "4"]).expect("a page").1, None);
    check_refused(page(&site, &["--starting-token", "pvc-4"]), "Aborted", &["begin without one"]);

    // One volume says what CreateVolume has said, and how large it is by now.
    let made = site.ask(&["create", "pvc-4", "--size", "1Gi"]).expect("pith csi runs").expect("it is there");
    assert_eq!(get(&site, "pvc-4").expect("it is there"), made);
    site.ask(&["expand", "pvc-4", "--size", "2Gi"]).expect("pith csi runs").expect("it grows");
    let grown = get(&site, "pvc-4").expect("it is there");
    assert_eq!((&grown["capacityBytes"], &grown["context"]), (&json!(2_u64 << 30), &made["context"]));
    check_refused(get(&site, "pvc-1"), "NotFound", &["there is no volume `pvc-1`"]);
}

#[test]
fn what_is_no_volume_of_this_cluster_is_not_listed() {
    let scratch = Scratch::new();
    let site = Site::new(LISTING, "", &scratch.secrets()).expect("a site");
    let mut dying = site.serve(&["--die-at", "record-moved"]).expect("it serves");
    site.ask(&["create", "pvc-half"]).expect("pith csi runs").expect_err("it dies");
    dying.wait().expect("it ends");
    let _serving = site.serve(&[]).expect("it serves");
    make(&site, "pvc-a");
    make(&site, "pvc-b");
    site.ask(&["delete", "pvc-b"]).expect("pith csi runs").expect("it is deleted");
    // Another cluster with the same key, and one with another key.
    let key = site.path().join("state/record.key");
    for (id, key) in [("pvc-same-key", format!(", recordKey: {}", key.display())), ("pvc-other-key", String::new())] {
        let config = format!("csi: {{socket: csi.sock, cluster: other, quota: false{key}}}\n");
        let other = Site::new(&config, "", &scratch.secrets()).expect("a site");
        let _serving = other.serve(&[]).expect("it serves");
        make(&other, id);
    }
    // What an application that mounts the root leaves there.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(with_worker(&scratch.secrets(), async |worker| {
        for name in ["pvc-empty", "no id!", "pvc-torn"] {
            worker.make_directories(&Path::of([".pith", "volumes", name]).expect("a path")).await.expect("it is made");
        }
        let record = Path::of([".pith", "volumes", "pvc-torn", "record"]).expect("a path");
        worker.write(&record, b"torn".into()).await.expect("it is written");
    }));
    assert_eq!(listed(&site).expect("a list"), ["pvc-a"]);
    for id in ["pvc-half", "pvc-b", "pvc-same-key"] {
        check_refused(get(&site, id), "NotFound", &[id]);
    }
    // Of these nobody can say that they are no volumes of ours.
    check_refused(get(&site, "pvc-other-key"), "FailedPrecondition", &["its seal does not fit"]);
    check_refused(get(&site, "pvc-torn"), "FailedPrecondition", &["it is torn, or no record"]);
}

/// Two file systems in one list: the one is on Redis, which goes away and comes back.
#[test]
fn a_file_system_that_does_not_answer_is_named_and_the_list_is_never_short() {
    let (scratch, redis) = (Scratch::new(), Redis::start("").expect("a Redis"));
    let site = Site::new(
        "csi: {socket: csi.sock, cluster: test, quota: false, secretFiles: [secret.yaml, redis.yaml]}\n",
        "",
        &scratch.secrets(),
    );
    let site = site.expect("a site");
    let mut secrets = redis.secrets();
    secrets.insert("name".into(), "far-away".into());
    let file = json!({"kind": "Secret", "stringData": secrets}).to_string();
    std::fs::write(site.path().join("redis.yaml"), file).expect("it is written");
    let _serving = site.serve(&[]).expect("it serves");
    let key = site.path().join("state/record.key");
    let config = format!("csi: {{socket: csi.sock, cluster: test, quota: false, recordKey: {}}}\n", key.display());
    let far = Site::new(&config, "", &secrets).expect("a site");
    let _other = far.serve(&[]).expect("it serves");
    for (site, ids) in [(&site, ["pvc-1", "pvc-4"]), (&far, ["pvc-2", "pvc-3"])] {
        ids.iter().for_each(|id| make(site, id));
    }
    let all = ["pvc-1", "pvc-2", "pvc-3", "pvc-4"];
    assert_eq!(listed(&site).expect("a list"), all);
    let (first, token) = page(&site, &["--max-entries", "2"]).expect("a page");
    assert_eq!((first, token), (vec!["pvc-1".into(), "pvc-2".into()], Some("after/pvc-2".into())));
    assert_eq!(get(&site, "pvc-3").expect("it is there")["id"], "pvc-3");

    redis.refuse(true).expect("it refuses");
    let names = ["redis.yaml", "`far-away`", "cannot be listed"];
    check_refused(listed(&site), "Unavailable", &names);
    check_refused(page(&site, &["--max-entries", "1"]), "Unavailable", &names);
    // Where the other one has it, that is the answer.
    assert_eq!(get(&site, "pvc-4").expect("it is there")["id"], "pvc-4");
    check_refused(get(&site, "pvc-3"), "Unavailable", &names);
    check_refused(get(&site, "pvc-none"), "Unavailable", &names);
    redis.refuse(false).expect("it takes connections");
    site.insist(&["list"]).expect("pith csi runs").expect("it answers again");
    assert_eq!(listed(&site).expect("a list"), all);
}

#[test]
fn a_list_makes_no_file_system_and_says_which_secret_is_wrong() {
    let (scratch, other) = (Scratch::new(), Scratch::new());
    let site = Site::new(
        "csi: {socket: csi.sock, cluster: test, quota: false, secretFiles: [secret.yaml, other.yaml]}\n",
        "",
        &scratch.secrets(),
    );
    let site = site.expect("a site");
    let write = |secrets: Value| {
        let file = json!({"kind": "Secret", "stringData": secrets}).to_string();
        std::fs::write(site.path().join("other.yaml"), file).expect("it is written");
    };
    let refused = site.serve(&[]).expect_err("a file is missing").to_string();
    assert!(refused.contains("reading the Secret in") && refused.contains("other.yaml"), "{refused}");
    write(json!(other.secrets()));
    let _serving = site.serve(&[]).expect("it serves");
    make(&site, "pvc-a");
    assert_eq!(listed(&site).expect("a list"), ["pvc-a"]);
    check_refused(get(&site, "pvc-b"), "NotFound", &["pvc-b"]);
    let status = Command::new(&*CLIENT).args(["status", &other.meta_url()]).output().expect("the client runs");
    assert!(said(&status).contains("not formatted"), "{}", said(&status));

    // The files are read anew: Secrets are rotated.
    write(json!({"metaurl": other.meta_url()}));
    check_refused(listed(&site), "Unavailable", &["other.yaml", "the Secret of the file system has no `name`"]);
    // Without a client for it Pith makes no volumes there, so none are missing.
    write(json!({"name": "shop-ee", "token": "t"}));
    assert_eq!(listed(&site).expect("a list"), ["pvc-a"]);
}

const DRIVEN: &str = "pvc-00000000-0000-4000-8000-00000000000";

/// A volume as another provisioner has made it, of 1 GiB.
fn provisioned(driver: &str, last: &str, phase: &str) -> Value {
    let name = format!("{DRIVEN}{last}");
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": driver}},
        "spec": {
            "accessModes": ["ReadWriteMany"], "capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Delete",
            "csi": {"driver": driver, "volumeHandle": name, "volumeAttributes": {"subPath": format!("team/{last}")}},
        },
        "status": {"phase": phase},
    })
}

#[test]
fn a_volume_that_only_its_persistent_volume_knows_is_listed_until_it_goes() {
    let scratch = Scratch::new();
    let mut by_hand = provisioned("csi.juicefs.com", "d", "Bound");
    by_hand["metadata"]["annotations"] = json!({});
    let volumes = [
        provisioned("csi.juicefs.com", "a", "Bound"),
        provisioned("csi.juicefs.com", "b", "Released"),
        provisioned("other.example.com", "c", "Bound"),
        by_hand,
        provisioned("csi.juicefs.com", "e", "Bound"),
        provisioned("csi.juicefs.com", "f", "Bound"),
    ];
    let objects: String = volumes.iter().map(|volume| format!("---\n{volume}\n")).collect();
    let site = Site::new(LISTING, &objects, &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    let id = |last: &str| format!("{DRIVEN}{last}");
    // One that is adopted, and one of which another cluster has a record.
    site.ask(&["expand", &id("e"), "--size", "3Gi"]).expect("pith csi runs").expect("it grows");
    let key = site.path().join("state/record.key");
    let config = format!("csi: {{socket: csi.sock, cluster: other, quota: false, recordKey: {}}}\n", key.display());
    let other = Site::new(&config, "", &scratch.secrets()).expect("a site");
    let _other = other.serve(&[]).expect("it serves");
    make(&other, &id("f"));

    assert_eq!(listed(&site).expect("a list"), [id("a"), id("e")]);
    let (first, token) = page(&site, &["--max-entries", "1"]).expect("a page");
    assert_eq!((first, token), (vec![id("a")], Some(format!("after/{}", id("a")))));
    let known = get(&site, &id("a")).expect("it is there");
    assert_eq!((&known["capacityBytes"], &known["context"]["subPath"]), (&json!(1 << 30), &json!("team/a")));
    assert_eq!(get(&site, &id("e")).expect("it is there")["capacityBytes"], json!(3_u64 << 30));
    for last in ["b", "c", "d", "f"] {
        check_refused(get(&site, &id(last)), "NotFound", &[&id(last)]);
    }
}

/// With the rights that the chart gives: StorageClasses name the Secrets.
#[test]
fn in_a_cluster_the_file_systems_are_those_of_storage_classes() {
    let cluster = &*CLUSTER;
    let (one, two) = (Scratch::new(), Scratch::new());
    let namespace = cluster.namespace("lists", &json!({})).expect("a namespace");
    let name = &*namespace.name;
    let driver = "lists.example.com";
    let class = |class: &str, secret: &str, driver: &str| {
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": format!("{name}-{class}")},
            "provisioner": driver,
            "parameters": {
                "csi.storage.k8s.io/provisioner-secret-name": secret,
                "csi.storage.k8s.io/provisioner-secret-namespace": name,
            },
        })
    };
    let secret = |secret: &str, scratch: &Scratch| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": name, "name": secret}, "stringData": scratch.secrets()});
    let mut known = provisioned(driver, "a", "Bound");
    known["metadata"]["name"] = json!(format!("{name}-{}", &DRIVEN[4..]) + "a");
    known["spec"]["csi"]["volumeHandle"] = known["metadata"]["name"].clone();
    let known_id = known["metadata"]["name"].as_str().expect("a name").to_string();
    let mut objects = vec![secret("one", &one), secret("two", &two), known];
    objects.extend([
        class("one", "one", driver),
        class("again", "one", driver),
        class("two", "two", driver),
        // Not asked: another driver's, and one that stands for Secrets of claims.
        class("foreign", "missing", "other.example.com"),
        class("template", "${pvc.name}", driver),
    ]);
    cluster.apply(&documents(&objects)).expect("objects");

    let client = CLIENT.display();
    let config = format!(
        "driver: {driver}\ncsi: {{socket: csi.sock, cluster: test, quota: false}}\n\
         juicefs: {{client: {client}, startTimeout: 60s, callTimeout: 30s}}\n"
    );
    let kubeconfig = cluster.kubeconfig_of_pith("pith-controller").expect("a kubeconfig");
    let server = Server::start_following(cluster, &config, &kubeconfig).expect("it serves");
    cluster.show_log(&server.folder.path().join("log"));
    let pith = |arguments: &[&str], scratch: Option<&Scratch>| {
        let endpoint = format!("unix://{}", server.folder.path().join("csi.sock").display());
        let mut command = Command::new(&*PITH);
        command.args(["csi", "--endpoint", &endpoint, "-o", "json"]).args(arguments);
        if let Some(scratch) = scratch {
            let file = server.folder.path().join("secret.yaml");
            let content = json!({"kind": "Secret", "stringData": scratch.secrets()}).to_string();
            std::fs::write(&file, content).expect("it is written");
            command.arg("--secret-file").arg(file);
        }
        let output = command.output().expect("pith runs");
        match output.status.success() {
            true => Ok(serde_json::from_slice::<Value>(&output.stdout).expect("JSON")),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    };
    let declared = pith(&["capabilities"], None).expect("an answer");
    let declared: BTreeSet<&str> =
        declared["controller"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
    assert!(declared.is_superset(&["LIST_VOLUMES", "GET_VOLUME"].into()), "{declared:?}");
    pith(&["create", "pvc-2"], Some(&one)).expect("it is made");
    pith(&["create", "pvc-1"], Some(&two)).expect("it is made");
    let ids = || {
        let volumes = pith(&["list"], None)?["volumes"].as_array().cloned().unwrap_or_default();
        Ok::<_, String>(volumes.iter().map(|it| it["id"].as_str().unwrap_or_default().to_string()).collect::<Vec<_>>())
    };
    let all = [known_id.clone(), "pvc-1".into(), "pvc-2".into()];
    let found = cluster.until(name, "all volumes", || Ok(ids().ok().filter(|ids| *ids == all)));
    found.unwrap_or_else(|error| panic!("{error:#}: {:?}", ids()));
    assert_eq!(pith(&["get", "pvc-1"], None).expect("it is there")["id"], "pvc-1");

    cluster.kubectl(&["delete", "secret", "two", "--namespace", name]).expect("it is deleted");
    let refused = ids().expect_err("a Secret is missing");
    let expected = format!(
        "Unavailable: the volumes of the StorageClass `{name}-two` cannot be listed: the Secret `{name}/two` of its file \
         system does not exist"
    );
    assert_eq!(refused.trim(), expected);
    // A class that is gone names nothing any more.
    cluster.kubectl(&["delete", "storageclass", &format!("{name}-two")]).expect("it is deleted");
    let fewer = [known_id.clone(), "pvc-2".into()];
    let found = cluster.until(name, "fewer volumes", || Ok(ids().ok().filter(|ids| *ids == fewer)));
    found.unwrap_or_else(|error| panic!("{error:#}: {:?}", ids()));
    let classes = ["one", "again", "foreign", "template"].map(|class| format!("{name}-{class}"));
    let delete: Vec<&str> = ["delete", "storageclass"].into_iter().chain(classes.iter().map(String::as_str)).collect();
    cluster.kubectl(&delete).expect("they are deleted");
    cluster.kubectl(&["delete", "pv", &known_id]).expect("it is deleted");
}
