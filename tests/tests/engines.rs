//! The life of volumes on every metadata engine and object storage of the Community Edition that a machine can run by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use pith_tests::juicefs::{CLIENT, Scratch, VERSION};
use pith_tests::provisioner::Site;
use pith_tests::redis::Redis;
use pith_tests::s3::S3;
use pith_tests::sql::Database;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::volumes::{check_exactly, refused};

const CONFIG: &str = "csi: {socket: csi.sock, cluster: test}\n";

/// Volumes are made, found, resized, refused and deleted; a client that is killed and a `pith` that is killed change nothing of it.
#[track_caller]
fn check(secrets: &BTreeMap<String, String>) {
    let site = Site::new(CONFIG, "", secrets).expect("a site");
    let serving = site.serve(&[]).expect("it serves");
    let done =
        |call: &[&str]| site.ask(call).expect("pith csi runs").unwrap_or_else(|error| panic!("{call:?}: {error:?}"));
    let create = ["create", "pvc-a", "--size", "1Gi"];
    let made = done(&create);
    assert_eq!(
        made,
        json!({"id": "pvc-a", "capacityBytes": 1 << 30, "context": {"subPath": "pvc-a", "capacity": "1073741824"}})
    );
    assert_eq!(done(&create), made, "a retry");
    assert_eq!(refused(site.ask(&["create", "pvc-a", "--size", "2Gi"])).code, "AlreadyExists");
    done(&["expand", "pvc-a", "--size", "3Gi"]);
    for name in ["pvc-b", "pvc-c"] {
        done(&["create", name, "--parameter", "pathPattern=shared"]);
    }
    assert_eq!(quota(secrets, "/pvc-a"), "3.0 GiB");

    // A record is read by a client that was started since, and by a process.
    for process in clients(&serving) {
        kill_process(process, Signal::KILL).expect("it runs");
    }
    assert_eq!(site.insist(&create).expect("pith csi runs").expect("it is found")["capacityBytes"], 3_u64 << 30);
    site.insist(&["delete", "pvc-b"]).expect("pith csi runs").expect("it is deleted");
    serving.kill().expect("it can be killed");
    let mut dying = site.serve(&["--die-at", "data-moved"]).expect("it serves");
    site.ask(&["delete", "pvc-a"]).expect("pith csi runs").expect_err("it is cut");
    dying.wait().expect("it ends");
    let mut dying = site.serve(&["--die-at", "directory-made"]).expect("it serves");
    site.ask(&["create", "pvc-d", "--size", "1Gi"]).expect("pith csi runs").expect_err("it is cut");
    dying.wait().expect("it ends");

    let _serving = site.serve(&[]).expect("it serves again");
    for call in [&["delete", "pvc-c"][..], &["delete", "pvc-a"], &["create", "pvc-d", "--size", "1Gi"]] {
        site.insist(call).expect("pith csi runs").unwrap_or_else(|error| panic!("{call:?}: {error:?}"));
    }
    check_exactly(&site, secrets, &BTreeSet::from(["pvc-d".to_string()]));
    assert_eq!(quota(secrets, "/pvc-d"), "1.0 GiB");
}

/// The processes that a server has started.
fn clients(serving: &pith_tests::provisioner::Serving) -> Vec<Pid> {
    let started = Instant::now();
    loop {
        let found = pith_tests::model::children(serving.id()).expect("a /proc");
        if !found.is_empty() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "there is no client");
    }
}

/// What the client says that the quota of a directory is.
#[track_caller]
fn quota(secrets: &BTreeMap<String, String>, directory: &str) -> String {
    let mut command = Command::new(&*CLIENT);
    command.args(["quota", "get", &secrets["metaurl"], "--path", directory]);
    command.env("META_PASSWORD", secrets.get("meta-password").map_or("", String::as_str));
    let output = command.output().expect("the client runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let row = said.lines().find(|line| line.contains(directory));
    let size = row.and_then(|row| row.split('|').nth(2));
    let size = size.unwrap_or_else(|| panic!("no quota: {said}{}", String::from_utf8_lossy(&output.stderr)));
    size.trim().to_string()
}

#[test]
fn volumes_on_sqlite() {
    check(&Scratch::new().secrets());
}

#[test]
fn volumes_on_redis() {
    check(&Redis::start("password-1").expect("a Redis").secrets());
}

#[test]
fn volumes_on_postgresql() {
    let database = Database::postgres().expect("a PostgreSQL");
    check(&database.secrets());
}

#[test]
fn volumes_on_mariadb() {
    let database = Database::mariadb().expect("a MariaDB");
    check(&database.secrets());
}

#[test]
fn volumes_with_their_data_in_s3() {
    let (redis, s3) = (Redis::start("").expect("a Redis"), S3::start().expect("an S3 server"));
    let mut secrets = redis.secrets();
    secrets.extend(s3.storage());
    check(&secrets);
    // Records are files, so they are there.
    assert!(s3.has_objects().expect("it can be listed"), "JuiceFS {} keeps its data elsewhere", *VERSION);
}
