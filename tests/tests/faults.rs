//! What can befall a file system, on the real parts: for each fault the code and the sentence of the answer, and what is left. When
//! it is over, the same request makes the volume, once. docs/operations.md has the table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pith_tests::juicefs::Scratch;
use pith_tests::provisioner::{Refusal, Site};
use pith_tests::proxy::Proxy;
use pith_tests::redis::Redis;

use crate::volumes::{check_exactly, refused};

const CONFIG: &str = "csi: {socket: csi.sock, cluster: test}\n";
/// Long enough for what works, and short enough for a test to wait for what hangs.
const IMPATIENT: &str = "startTimeout: 10s, callTimeout: 3s";

type Secrets = BTreeMap<String, String>;

/// What an answer says.
#[derive(Clone, Copy)]
struct Says {
    code: &'static str,
    sentence: &'static str,
}

/// Nothing of the volume is there.
fn nothing_made(sentence: &'static str) -> Says {
    Says { code: "FailedPrecondition", sentence }
}

#[track_caller]
fn check_says(refusal: &Refusal, says: Says) {
    assert_eq!(refusal.code, says.code, "{refusal:?}");
    assert!(refusal.sentence.contains(says.sentence), "{refusal:?} does not say: {}", says.sentence);
    assert!(refusal.may_pass(), "external-provisioner asks again: {refusal:?}");
    assert_eq!(refusal.sentence.ends_with("(nothing was made)"), says.code == "FailedPrecondition", "{refusal:?}");
}

/// A file system in which something goes wrong and is put right again.
struct Fault<'a> {
    secrets: Secrets,
    timeouts: &'a str,
    /// What a CreateVolume is told when the client was running before it went wrong.
    running: Says,
    /// What it is told when the client is started while it is so.
    starting: Says,
}

impl Fault<'_> {
    /// Lets it go wrong twice, under a client that runs and before one is started. In between and afterwards the same request makes
    /// the volume, and a volume that was to be deleted meanwhile is deleted.
    #[track_caller]
    fn check(self, mut befall: impl FnMut(bool)) {
        let Fault { secrets, timeouts, running, starting } = self;
        let site = Site::timed(CONFIG, "", &secrets, timeouts).expect("a site");
        let create = |name: &'static str| ["create", name, "--size", "1Gi"];
        let mut expected = BTreeSet::new();
        for (name, deleted, says) in [("pvc-a", "pvc-x", running), ("pvc-b", "pvc-y", starting)] {
            let serving = site.serve(&[]).expect("it serves");
            site.insist(&create(deleted)).expect("pith csi runs").expect("it is made");
            let serving = if name == "pvc-a" {
                serving
            } else {
                serving.kill().expect("it can be killed");
                site.serve(&[]).expect("it serves again")
            };
            befall(true);
            check_says(&refused(site.ask(&create(name))), says);
            let refusal = refused(site.ask(&["delete", deleted]));
            // A volume that is there is asked for until it is gone.
            assert_eq!(refusal.code, "Unavailable", "{refusal:?}");
            befall(false);
            site.insist(&create(name)).expect("pith csi runs").expect("it is made");
            site.insist(&["delete", deleted]).expect("pith csi runs").expect("it is deleted");
            expected.insert(name.to_string());
            serving.kill().expect("it can be killed");
        }
        check_exactly(&site, &secrets, &expected);
        let left = site.run_volumes(&["check"]).expect("pith volumes runs");
        let said = String::from_utf8_lossy(&left.stdout);
        let clean = said.contains("0 errors, 0 warnings, ") && !said.contains("staged-record-left");
        assert!(clean, "what is left: {said}");
    }
}

#[test]
fn redis_that_refuses_connections_is_told_before_anything_is_made() {
    let redis = Redis::start("").expect("a Redis");
    let fault = Fault {
        secrets: redis.secrets(),
        timeouts: IMPATIENT,
        running: nothing_made("connection refused"),
        starting: nothing_made("connection refused"),
    };
    fault.check(|it_is| redis.refuse(it_is).expect("it can be told to"));
}

#[test]
fn redis_that_stands_still_is_told_in_time() {
    let redis = Redis::start("").expect("a Redis");
    let fault = Fault {
        secrets: redis.secrets(),
        timeouts: "startTimeout: 4s, callTimeout: 2s",
        running: nothing_made("did not answer within 2s"),
        starting: nothing_made("did not "),
    };
    fault.check(|it_is| redis.freeze(it_is).expect("it can be stopped"));
}

#[test]
fn redis_without_memory_is_told_and_nothing_that_was_begun_happens_later() {
    let redis = Redis::start("").expect("a Redis");
    let fault = Fault {
        secrets: redis.secrets(),
        timeouts: IMPATIENT,
        // The client tries for 20 s.
        running: nothing_made("did not answer within 3s"),
        starting: nothing_made("the memory of Redis is full: it needs a larger `maxmemory`"),
    };
    fault.check(|it_is| redis.configure(if it_is { "maxmemory 1" } else { "maxmemory 0" }).expect("it is set"));
}

#[test]
fn redis_that_became_a_replica_is_told() {
    let redis = Redis::start("").expect("a Redis");
    let fault = Fault {
        secrets: redis.secrets(),
        timeouts: IMPATIENT,
        running: nothing_made("did not answer within 3s"),
        starting: nothing_made("the metadata engine is a read-only replica: `metaurl` must name its primary"),
    };
    fault.check(|it_is| redis.follow(it_is).expect("it is told to"));
}

#[test]
fn redis_that_still_loads_is_told() {
    let mut redis = Redis::start("").expect("a Redis");
    let site = Site::timed(CONFIG, "", &redis.secrets(), IMPATIENT).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    site.insist(&["create", "pvc-a", "--size", "1Gi"]).expect("pith csi runs").expect("it is made");
    redis.fill(4000).expect("filled");
    redis.save().expect("saved");
    // 2 ms for each key, and clients are answered meanwhile.
    redis.restart("key-load-delay 2000\nloading-process-events-interval-bytes 1024").expect("it starts again");
    check_says(
        &refused(site.ask(&["create", "pvc-b", "--size", "1Gi"])),
        nothing_made("Redis still reads its data after a start, which passes"),
    );
    site.insist(&["create", "pvc-b", "--size", "1Gi"]).expect("pith csi runs").expect("it is made");
    check_exactly(&site, &redis.secrets(), &BTreeSet::from(["pvc-a", "pvc-b"].map(String::from)));
}

#[test]
fn a_password_that_is_not_taken_is_told_and_a_rotated_secret_gets_a_new_client() {
    let mut redis = Redis::start("").expect("a Redis");
    let site = Site::timed(CONFIG, "", &redis.secrets(), IMPATIENT).expect("a site");
    let serving = site.serve(&[]).expect("it serves");
    let create = |name: &'static str| ["create", name, "--size", "1Gi"];
    site.insist(&create("pvc-a")).expect("pith csi runs").expect("it is made");
    let says = nothing_made(
        "the metadata engine does not take the password: look at `metaurl` and `meta-password` in the Secret (",
    );
    let without = redis.secrets();
    redis.change_password("rotated-1").expect("it is changed");
    check_says(&refused(site.ask(&create("pvc-b"))), says);
    // The same address with the password is another client, which is there at once.
    site.give(&redis.secrets()).expect("written");
    site.ask(&create("pvc-b")).expect("pith csi runs").expect("it is made");
    redis.change_password("rotated-2").expect("it is changed");
    serving.kill().expect("it can be killed");
    let _serving = site.serve(&[]).expect("it serves again");
    check_says(&refused(site.ask(&create("pvc-c"))), says);
    site.give(&without).expect("written");
    check_says(&refused(site.ask(&create("pvc-c"))), says);
    site.give(&redis.secrets()).expect("written");
    site.ask(&create("pvc-c")).expect("pith csi runs").expect("it is made");
    check_exactly(&site, &redis.secrets(), &BTreeSet::from(["pvc-a", "pvc-b", "pvc-c"].map(String::from)));
}

#[test]
fn a_file_system_that_is_not_there_or_too_new_is_told() {
    let redis = Redis::start("").expect("a Redis");
    let mut secrets = redis.secrets();
    let site = Site::timed(CONFIG, "", &secrets, IMPATIENT).expect("a site");
    let create = ["create", "pvc-a", "--size", "1Gi"];
    {
        let _serving = site.serve(&[]).expect("it serves");
        secrets.retain(|key, _| key == "name" || key == "metaurl");
        site.give(&secrets).expect("written");
        let refusal = refused(site.ask(&create));
        assert_eq!(refusal.code, "FailedPrecondition", "{refusal:?}");
        assert!(refusal.sentence.contains("please run `juicefs format ...` first"), "{refusal:?}");
        site.give(&redis.secrets()).expect("written");
        site.ask(&create).expect("pith csi runs").expect("it is made");
    }
    redis.change_settings("\\\"MetaVersion\\\": 1", "\\\"MetaVersion\\\": 9").expect("changed");
    let _serving = site.serve(&[]).expect("it serves again");
    check_says(
        &refused(site.ask(&["create", "pvc-b", "--size", "1Gi"])),
        nothing_made("the file system is of a newer JuiceFS than the client that Pith runs: it needs a newer client ("),
    );
    redis.change_settings("\\\"MetaVersion\\\": 9", "\\\"MetaVersion\\\": 1").expect("changed");
    site.insist(&["create", "pvc-b", "--size", "1Gi"]).expect("pith csi runs").expect("it is made");
    check_exactly(&site, &redis.secrets(), &BTreeSet::from(["pvc-a", "pvc-b"].map(String::from)));
}

/// A small file system of the kernel in a folder, which goes with it.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn new() -> Disk {
        let folder = tempfile::tempdir().expect("a folder");
        mount(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], folder.path());
        Disk { folder }
    }

    fn bucket(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn fill(&self, full: bool) {
        let filler = self.folder.path().join("filler");
        if full {
            let error = std::fs::write(&filler, vec![0; 2 << 20]).expect_err("it is too small");
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        } else {
            std::fs::remove_file(filler).expect("it is there");
        }
    }

    fn protect(&self, read_only: bool) {
        mount(&["-o", if read_only { "remount,ro" } else { "remount,rw" }], self.folder.path());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}

fn mount(options: &[&str], place: &FilePath) {
    let status = Command::new("mount").args(options).arg(place).status().expect("mount runs");
    assert!(status.success(), "mount {options:?}: {status}");
}

#[test]
fn a_storage_that_is_full_or_read_only_is_told_and_nothing_is_left() {
    for (sentence, befall) in [
        ("the object storage, or the memory of the metadata engine, is full", Disk::fill as fn(&Disk, bool)),
        ("the object storage is read-only", Disk::protect),
    ] {
        let (scratch, disk) = (Scratch::new(), Disk::new());
        let mut secrets = scratch.secrets();
        secrets.insert("bucket".into(), disk.bucket().display().to_string());
        // The client tries to write for 5 s.
        let timeouts = "startTimeout: 30s, callTimeout: 20s";
        let fault = Fault { secrets, timeouts, running: nothing_made(sentence), starting: nothing_made(sentence) };
        fault.check(|it_is| befall(&disk, it_is));
    }
}

#[test]
fn a_slow_metadata_engine_makes_volumes_slowly() {
    let redis = Redis::start("").expect("a Redis");
    let proxy = Proxy::start(&redis.url(), Duration::from_millis(20)).expect("a proxy");
    let mut secrets = redis.secrets();
    secrets.insert("metaurl".into(), proxy.url(&redis.url()).expect("a URL"));
    let site = Site::timed(CONFIG, "", &secrets, "startTimeout: 30s, callTimeout: 10s").expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    let started = Instant::now();
    site.ask(&["create", "pvc-a", "--size", "1Gi"]).expect("pith csi runs").expect("it is made");
    assert!(started.elapsed() > Duration::from_millis(400), "{:?} is not slow", started.elapsed());
    site.ask(&["expand", "pvc-a", "--size", "2Gi"]).expect("pith csi runs").expect("it grows");
    site.ask(&["create", "pvc-b"]).expect("pith csi runs").expect("it is made");
    site.ask(&["delete", "pvc-b"]).expect("pith csi runs").expect("it is deleted");
    check_exactly(&site, &secrets, &BTreeSet::from(["pvc-a".to_string()]));
}

#[test]
fn an_engine_that_hangs_and_a_flood_of_calls_hold_up_no_other_file_system() {
    let (redis, other) = (Redis::start("").expect("a Redis"), Scratch::new());
    let config = "csi: {socket: csi.sock, cluster: test, maxCalls: 8}\n";
    let site = Site::timed(config, "", &redis.secrets(), "startTimeout: 30s, callTimeout: 20s").expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    site.insist(&["create", "pvc-a", "--size", "1Gi"]).expect("pith csi runs").expect("it is made");
    let secret = site.path().join("other.yaml");
    let values: serde_json::Value = serde_json::json!({"kind": "Secret", "stringData": other.secrets()});
    std::fs::write(&secret, values.to_string()).expect("written");
    let ask_other = |call: &[&str]| {
        let output = site.csi_with(call, &secret).expect("pith csi runs");
        assert!(output.status.success(), "{call:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    ask_other(&["create", "pvc-0", "--size", "1Gi"]);

    redis.freeze(true).expect("it can be stopped");
    std::thread::scope(|scope| {
        let flood: Vec<_> = (0..12)
            .map(|number| {
                let site = &site;
                scope.spawn(move || site.ask(&["create", &format!("pvc-{number}x")]).expect("pith csi runs"))
            })
            .collect();
        // Once some of them are turned away, the others have all the places that they may have.
        let mut turned_away = 0;
        while turned_away == 0 {
            turned_away = flood.iter().filter(|call| call.is_finished()).count();
            std::thread::sleep(Duration::from_millis(5));
        }
        let started = Instant::now();
        for call in [
            &["create", "pvc-1", "--size", "1Gi"][..],
            &["expand", "pvc-1", "--size", "2Gi"],
            &["create", "pvc-2", "--size", "1Gi"],
            &["delete", "pvc-2"],
        ] {
            ask_other(call);
        }
        assert!(started.elapsed() < Duration::from_secs(10), "they took {:?}", started.elapsed());
        redis.freeze(false).expect("it goes on");
        let answers: Vec<Refusal> = flood.into_iter().filter_map(|call| call.join().expect("no panic").err()).collect();
        let room = "calls for volumes of this file system are not finished, and the rest of the places is for other file systems";
        assert!(answers.iter().any(|refusal| refusal.sentence.contains(room)), "{answers:?}");
    });
}
