//! Deleted volumes from end to end: purged when their time is over and not before, brought back, kept aside, and left alone where
//! somebody who mounts the root says otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use pith::juicefs::steps::{PURGE_STEPS, RESTORE_STEPS};
use pith::juicefs::{Depth, Moved, Path, Worker};
use pith_tests::client::get;
use pith_tests::juicefs::Scratch;
use pith_tests::provisioner::{Refusal, Site};
use pith_tests::redis::Redis;
use pith_tests::server::PITH;
use serde_json::{Value, json};

use crate::volumes::{directories, tree, with_worker};

/// What is deleted is purged at once, unless a class says otherwise.
const AT_ONCE: &str = "csi: {socket: csi.sock, cluster: test, quota: false, trashDays: 0}\n";
/// What is deleted is due at once, and nobody purges it.
const NEVER: &str = "csi: {socket: csi.sock, cluster: test, quota: false, trashDays: 0, purge: false}\n";
/// As installed: seven days.
const DEFAULT: &str = "csi: {socket: csi.sock, cluster: test}\n";

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

type Secrets = BTreeMap<String, String>;

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn path(path: &str) -> Path {
    Path::of(path.split('/').filter(|name| !name.is_empty())).expect("it is a path")
}

/// Writes a file, and the directories above it.
fn write(secrets: &Secrets, file: &str, text: &str) {
    let (above, _) = file.rsplit_once('/').expect("a path");
    wait(with_worker(secrets, async |worker: &Worker| {
        worker.make_directories(&path(above)).await.expect("they can be made");
        worker.write(&path(file), text.into()).await.expect("it can be written");
    }));
}

fn read(secrets: &Secrets, file: &str) -> Option<String> {
    let bytes = wait(with_worker(secrets, async |worker: &Worker| worker.read(&path(file)).await));
    bytes.expect("it can be read").map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Copies files to another directory, as an application that mounts the root can.
fn copy(secrets: &Secrets, from: &str, to: &str) {
    let prefix = path(from).components().to_vec();
    for entry in wait(tree(secrets)) {
        if let Some(rest) = entry.path.components().strip_prefix(&*prefix)
            && entry.kind == pith::juicefs::Kind::File
        {
            let rest = rest.join("/");
            let text = read(secrets, &format!("{from}/{rest}")).expect("it is there");
            write(secrets, &format!("{to}/{rest}"), &text);
        }
    }
}

/// The names in the trash. A listing fails when something goes away in its midst, which a purge may do again and again.
fn trash(secrets: &Secrets) -> BTreeSet<String> {
    let deadline = Instant::now() + PATIENCE;
    let list = async |worker: &Worker| loop {
        match worker.list(&path(".pith/trash"), Depth::One).await {
            Ok(entries) => return entries.expect("it is made at once"),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    directories(&wait(with_worker(secrets, list)), &[])
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs `pith volumes`.
fn volumes(site: &Site, arguments: &[&str]) -> Output {
    let mut command = Command::new(&*PITH);
    command.arg("volumes").args(arguments).arg("--config").arg(site.path().join("pith.yaml"));
    command.arg("--secret-file").arg(site.path().join("secret.yaml"));
    command.stdin(Stdio::null()).output().expect("it runs")
}

/// What `pith volumes trash` lists, by place.
fn listed(site: &Site) -> BTreeMap<String, Value> {
    let output = volumes(site, &["trash", "-o", "json"]);
    let items: Vec<Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    items.into_iter().map(|item| (item["place"].as_str().expect("a name").to_string(), item)).collect()
}

/// Brings back what must come back, and gives the PersistentVolume.
#[track_caller]
fn restored(site: &Site, wanted: &str) -> Value {
    let output = volumes(site, &["restore-from-trash", wanted, "-o", "json"]);
    assert!(output.status.success(), "{wanted}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Fails to bring back what must not come back.
#[track_caller]
fn check_stays(site: &Site, wanted: &str, why: &str) {
    let output = volumes(site, &["restore-from-trash", wanted]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(why), "expected `{why}` in: {said}");
}

/// Makes a volume with a file in it.
#[track_caller]
fn make(site: &Site, secrets: &Secrets, arguments: &[&str]) {
    let volume = site.ask(&[&["create"], arguments].concat()).expect("pith csi runs").expect("it is made");
    let directory = volume["context"]["subPath"].as_str().expect("a path");
    write(secrets, &format!("{directory}/deep/file"), volume["id"].as_str().expect("an id"));
}

#[track_caller]
fn delete(site: &Site, id: &str) {
    site.ask(&["delete", id]).expect("pith csi runs").expect("it is deleted");
}

fn metric(site: &Site, name: &str) -> Option<String> {
    let text = wait(get(site.admin().expect("an address"), "/metrics")).expect("an answer").text();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(String::from))
}

#[test]
fn a_deleted_volume_is_purged_when_its_time_is_over_and_not_before() {
    let scratch = Scratch::new();
    let (site, secrets) = (Site::new(DEFAULT, "", &scratch.secrets()).expect("a site"), scratch.secrets());
    let _serving = site.serve(&[]).expect("it serves");
    make(&site, &secrets, &["pvc-day", "--size", "1Gi"]);
    make(&site, &secrets, &["pvc-now", "--size", "1Gi", "--parameter", "trashDays=0"]);
    make(&site, &secrets, &["pvc-month", "--parameter", "trashDays=30"]);
    for id in ["pvc-day", "pvc-now", "pvc-month"] {
        delete(&site, id);
    }
    until("one is purged", || metric(&site, "pith_purges_total").as_deref() == Some("1"));
    let left: Vec<Value> = listed(&site).into_values().collect();
    let ids: Vec<&Value> = left.iter().map(|item| &item["id"]).collect();
    assert_eq!(ids, ["pvc-day", "pvc-month"]);
    for (item, days) in left.iter().zip([7, 30]) {
        let moment = |key: &str| {
            let text = item[key].as_str().unwrap_or_else(|| panic!("{item}"));
            humantime::parse_rfc3339(text).expect("a moment")
        };
        let kept = moment("keptUntil").duration_since(moment("deletedAt")).expect("later");
        assert_eq!((item["state"].as_str(), kept.as_secs()), (Some("kept"), days * 86_400));
    }
    assert_eq!(metric(&site, "pith_trash_volumes{state=\"kept\"}").as_deref(), Some("2"));
    assert!(site.log().contains("a deleted volume was purged"), "{}", site.log());
    // Its quota went with it, and nothing else is left anywhere.
    assert_eq!(scratch.run(&["quota", "list", "META"]).matches("1.0 GiB").count(), 1);
    let staging = directories(&wait(tree(&secrets)), &[".pith", "staging"]);
    assert_eq!(staging, BTreeSet::new());
}

#[test]
fn a_purge_that_is_killed_at_any_step_goes_on_once_the_file_system_is_opened() {
    for step in PURGE_STEPS {
        let scratch = Scratch::new();
        let (site, secrets) = (Site::new(AT_ONCE, "", &scratch.secrets()).expect("a site"), scratch.secrets());
        let mut dying = site.serve(&["--die-at", step]).expect("it serves");
        make(&site, &secrets, &["pvc-a"]);
        make(&site, &secrets, &["pvc-b", "--parameter", "trashDays=7"]);
        for id in ["pvc-b", "pvc-a"] {
            // It may die before it answers.
            let _ = site.ask(&["delete", id]).expect("pith csi runs");
        }
        let status = dying.wait().expect("it ends");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{step}: {status}");

        let _serving = site.serve(&[]).expect("it serves again");
        site.insist(&["delete", "pvc-a"]).expect("pith csi runs").expect("it is deleted");
        until(step, || trash(&secrets).len() == 1);
        assert_eq!(listed(&site).values().next().expect("one is left")["id"], "pvc-b", "{step}");
        // What was on its way out when it was killed is known again.
        let repaired = volumes(&site, &["repair", "--apply"]);
        let staging = directories(&wait(tree(&secrets)), &[".pith", "staging"]);
        assert_eq!(staging, BTreeSet::new(), "{step}: {}", String::from_utf8_lossy(&repaired.stdout));
    }
}

/// Whoever mounts the root can write all of these. What is under `kept` lies where a purge would remove it.
#[test]
fn a_forged_copied_or_replayed_record_destroys_nothing() {
    let scratch = Scratch::new();
    let secrets = scratch.secrets();
    let idle = Site::new(NEVER, "", &secrets).expect("a site");
    let serving = idle.serve(&[]).expect("it serves");
    let trash_of = |id: &str| {
        let found = trash(&secrets).into_iter().find(|name| name.starts_with(&format!("{id}.")));
        format!(".pith/trash/{}", found.expect("it is in the trash"))
    };
    let move_to = |from: &str, to: &str| {
        let moved =
            wait(with_worker(&secrets, async |worker: &Worker| worker.move_exclusive(&path(from), &path(to)).await));
        assert_eq!(moved, Ok(Moved::Moved), "{from} to {to}");
    };
    for id in ["pvc-live", "pvc-old", "pvc-again"] {
        make(&idle, &secrets, &[id]);
    }
    delete(&idle, "pvc-again");
    let replayed = trash_of("pvc-again");
    delete(&idle, "pvc-old");
    let old = trash_of("pvc-old");

    // The record of a deleted volume, in places that are not its own.
    for place in
        [".pith/trash/pvc-old.copied", ".pith/trash/pvc-live.copied", ".pith/trash/noid", ".pith/archive/pvc-old.0"]
    {
        copy(&secrets, &format!("{old}/record"), &format!("{place}/record"));
        write(&secrets, &format!("{place}/data/kept"), "x");
    }
    // The record of a volume that lives.
    copy(&secrets, ".pith/volumes/pvc-live", ".pith/trash/pvc-live.0/record");
    write(&secrets, ".pith/trash/pvc-live.0/data/kept", "x");
    // One that nobody sealed, one that is cut, and none at all.
    let record = read(&secrets, &format!("{old}/record/2/record")).expect("it is there");
    write(&secrets, ".pith/trash/pvc-old.forged/record/record", &record.replace("pvc-old.", "pvc-old.f"));
    write(&secrets, ".pith/trash/pvc-old.forged/data/kept", "x");
    write(&secrets, ".pith/trash/pvc-old.cut/record/record", &record[..record.len() / 2]);
    write(&secrets, ".pith/trash/pvc-old.cut/data/kept", "x");
    write(&secrets, ".pith/trash/pvc-old.bare/data/kept", "x");
    write(&secrets, ".pith/trash/pvc-old.1/record", "x");
    write(&secrets, ".pith/trash/file", "x");
    // Another volume's last record, and that of one of the same name that was deleted, behind the record of one that lives.
    make(&idle, &secrets, &["pvc-again"]);
    copy(&secrets, &format!("{old}/record/2"), ".pith/volumes/pvc-live/2");
    copy(&secrets, &format!("{replayed}/record/2"), ".pith/volumes/pvc-again/2");
    for (id, problem) in [
        ("pvc-live", "it is generation 2 of volume `pvc-old`, and does not belong there"),
        ("pvc-again", "it is generation 2 of another volume that was called `pvc-again`, and was copied there"),
    ] {
        let refusal = idle.ask(&["delete", id]).expect("pith csi runs").expect_err("it is refused");
        let sentence = format!("the record /.pith/volumes/{id}/2/record: {problem}");
        assert_eq!(refusal, Refusal { code: "FailedPrecondition".into(), sentence });
    }
    // Beside what a deleted volume left, something that it did not leave.
    write(&secrets, &format!("{old}/kept"), "x");
    serving.kill().expect("it can be killed");

    let all = wait(tree(&secrets));
    let key = idle.path().join("state/record.key");
    let due =
        format!("csi: {{socket: csi.sock, cluster: test, quota: false, trashDays: 0, recordKey: {}}}\n", key.display());
    // Another cluster's purge, and one with another key, remove nothing of ours.
    for config in [&*due.replace("cluster: test", "cluster: other"), AT_ONCE] {
        let foreign = Site::new(config, "", &secrets).expect("a site");
        let _serving = foreign.serve(&[]).expect("it serves");
        foreign.ask(&["delete", "pvc-none"]).expect("pith csi runs").expect("there is nothing to delete");
        until("all is seen", || metric(&foreign, "pith_trash_volumes{state=\"left-alone\"}").as_deref() == Some("10"));
        assert_eq!(wait(tree(&secrets)), all, "{config}");
    }

    let ours = Site::new(&due, "", &secrets).expect("a site");
    let _serving = ours.serve(&[]).expect("it serves");
    ours.ask(&["delete", "pvc-none"]).expect("pith csi runs").expect("there is nothing to delete");
    until("what is due is purged", || metric(&ours, "pith_purges_total").as_deref() == Some("1"));
    until("the rest is seen", || metric(&ours, "pith_trash_volumes{state=\"left-alone\"}").as_deref() == Some("9"));
    let left = wait(tree(&secrets));
    for entry in &all {
        let text = entry.path.to_string();
        let gone = text.starts_with(&format!("/{replayed}")) || text.starts_with(&format!("/{old}/data"));
        assert_eq!(left.contains(entry), !gone, "{text}");
    }
    for id in ["pvc-live", "pvc-again"] {
        assert_eq!(read(&secrets, &format!("{id}/deep/file")).as_deref(), Some(id));
    }
    // It says so to whoever looks, and ends with 1.
    let output = volumes(&ours, &["trash"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches("left alone").count(), 9, "{text}");
    check_stays(&ours, "pvc-old.forged", "its seal does not fit");
    check_stays(&ours, "pvc-old.bare", "has no record, so nothing says whose it is");
    // Once what is not the volume's is taken away, the place goes.
    move_to(&format!("{old}/kept"), "kept");
}

#[test]
fn two_replicas_purge_the_same_trash_at_once() {
    let scratch = Scratch::new();
    let secrets = scratch.secrets();
    let idle = Site::new(NEVER, "", &secrets).expect("a site");
    let serving = idle.serve(&[]).expect("it serves");
    let ids: Vec<String> = (0..12).map(|number| format!("pvc-{number}")).collect();
    for id in &ids {
        make(&idle, &secrets, &[id]);
        delete(&idle, id);
    }
    make(&idle, &secrets, &["pvc-stays"]);
    serving.kill().expect("it can be killed");
    let key = idle.path().join("state/record.key");
    let config = format!("csi: {{socket: csi.sock, cluster: test, trashDays: 0, recordKey: {}}}\n", key.display());
    let sites = [(); 2].map(|()| Site::new(&config, "", &secrets).expect("a site"));
    let _serving = sites.each_ref().map(|site| site.serve(&[]).expect("it serves"));
    std::thread::scope(|scope| {
        for site in &sites {
            scope.spawn(|| site.insist(&["delete", "pvc-0"]).expect("pith csi runs").expect("it is deleted"));
        }
    });
    until("all are purged", || trash(&secrets).is_empty());
    assert_eq!(read(&secrets, "pvc-stays/deep/file").as_deref(), Some("pvc-stays"));
}

#[test]
fn a_volume_comes_back_from_the_trash_as_it_was() {
    let scratch = Scratch::new();
    let secrets = scratch.secrets();
    let site = Site::new(DEFAULT, "", &secrets).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    let create = ["pvc-a", "--size", "2Gi", "--parameter", "pathPattern=team/app", "--mount-flag", "subdir=shop"];
    make(&site, &secrets, &create[..]);
    let file = "shop/team/app/deep/file";
    // Its subPath is seen from subdir: the file of `make` is beside it.
    write(&secrets, file, "kept");
    delete(&site, "pvc-a");
    delete(&site, "pvc-a");
    assert_eq!(read(&secrets, file), None);
    let place = listed(&site).into_keys().next().expect("it is in the trash");

    let volume = restored(&site, "pvc-a");
    assert_eq!(volume["spec"]["csi"]["volumeHandle"], "pvc-a");
    assert_eq!(volume["spec"]["csi"]["volumeAttributes"]["subPath"], "team/app");
    assert_eq!(volume["spec"]["mountOptions"], json!(["subdir=shop"]));
    assert_eq!(volume["spec"]["capacity"]["storage"], "2Gi");
    assert_eq!(read(&secrets, file).as_deref(), Some("kept"));
    let quota = scratch.run(&["quota", "get", "META", "--path", "/shop/team/app"]);
    assert!(quota.contains("2.0 GiB"), "{quota}");
    assert_eq!(trash(&secrets), BTreeSet::new());
    // Said once more it is the same, and no other volume has its directory or its id.
    assert_eq!(restored(&site, "pvc-a"), volume);
    let again = volumes(&site, &["restore-from-trash", "pvc-a"]);
    assert!(String::from_utf8_lossy(&again.stdout).starts_with("volume pvc-a is back at /shop/team/app\n"));
    let made = site.ask(&[&["create"], &create[..]].concat()).expect("pith csi runs").expect("it is found");
    assert_eq!(made["id"], "pvc-a");
    site.ask(&["expand", "pvc-a", "--size", "3Gi"]).expect("pith csi runs").expect("it grows");
    check_stays(&site, "pvc-none", "the trash has nothing of a volume `pvc-none`");
    assert_eq!(site.volumes().expect("the records can be read")["pvc-a"]["state"], "ready");

    // Deleted twice more, which of both is to come back must be said.
    delete(&site, "pvc-a");
    site.ask(&[&["create"], &create[..]].concat()).expect("pith csi runs").expect("it is made");
    check_stays(&site, "pvc-a", "there is a volume `pvc-a` already, at /shop/team/app");
    delete(&site, "pvc-a");
    check_stays(&site, "pvc-a", "a volume `pvc-a` was deleted more than once: name one of `pvc-a.");
    let places: Vec<String> = listed(&site).into_keys().collect();
    assert!(places.len() == 2 && !places.contains(&place), "{places:?}");
    let with_file =
        places.iter().find(|place| read(&secrets, &format!(".pith/trash/{place}/data/deep/file")).is_some());
    restored(&site, with_file.expect("one of them has it"));
    assert_eq!(read(&secrets, file).as_deref(), Some("kept"));
}

#[test]
fn a_volume_whose_deletion_was_cut_comes_back() {
    for step in ["trash-made", "data-moved", "index-moved"] {
        let scratch = Scratch::new();
        let secrets = scratch.secrets();
        let site = Site::new(DEFAULT, "", &secrets).expect("a site");
        let mut dying = site.serve(&["--die-at", step]).expect("it serves");
        make(&site, &secrets, &["pvc-a"]);
        site.ask(&["delete", "pvc-a"]).expect("pith csi runs").expect_err("it is cut");
        dying.wait().expect("it ends");
        restored(&site, "pvc-a");
        assert_eq!(read(&secrets, "pvc-a/deep/file").as_deref(), Some("pvc-a"), "{step}");
        assert_eq!(trash(&secrets), BTreeSet::new(), "{step}");
    }
}

#[test]
fn bringing_back_is_killed_at_any_step_and_goes_on() {
    for step in RESTORE_STEPS {
        let scratch = Scratch::new();
        let secrets = scratch.secrets();
        let site = Site::new(AT_ONCE, "", &secrets).expect("a site");
        let serving = site.serve(&[]).expect("it serves");
        make(&site, &secrets, &["pvc-a", "--parameter", "trashDays=7"]);
        delete(&site, "pvc-a");
        let cut = volumes(&site, &["restore-from-trash", "pvc-a", "--die-at", step]);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&cut.status), Some(9), "{step}: {cut:?}");
        // Neither a call nor a purge does anything to it meanwhile.
        if step != "restored" {
            let created = site.ask(&["create", "pvc-a", "--parameter", "trashDays=7"]).expect("pith csi runs");
            // As long as its records are in the trash, its id is free: then that volume must go before it can come back.
            if step == "restore-claimed" {
                created.expect("it is made");
                check_stays(&site, "pvc-a", "there is a volume `pvc-a` already");
                site.ask(&["delete", "pvc-a"]).expect("pith csi runs").expect("it is deleted");
            } else {
                assert_eq!(created.expect_err("it is refused").code, "Aborted", "{step}");
                let deleted = site.ask(&["delete", "pvc-a"]).expect("pith csi runs");
                assert_eq!(deleted.expect_err("it is refused").code, "Aborted", "{step}");
            }
        }
        drop(serving);
        let wanted = match step {
            "restore-claimed" => {
                let both = listed(&site);
                both.into_iter().find(|(_, item)| item["state"] == "restoring").expect("it is being brought back").0
            }
            _ => "pvc-a".to_string(),
        };
        restored(&site, &wanted);
        assert_eq!(read(&secrets, "pvc-a/deep/file").as_deref(), Some("pvc-a"), "{step}");
        assert_eq!(site.volumes().expect("the records can be read")["pvc-a"]["state"], "ready", "{step}");
        assert!(!trash(&secrets).contains(&wanted), "{step}");
        let held = directories(&wait(tree(&secrets)), &[".pith", "paths", "pvc-a"]);
        assert_eq!(held, BTreeSet::from(["pvc-a".to_string()]), "{step}");
    }
}

#[test]
fn a_volume_comes_back_only_where_its_directory_is_free() {
    let scratch = Scratch::new();
    let secrets = scratch.secrets();
    let site = Site::new(DEFAULT, "", &secrets).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    make(&site, &secrets, &["pvc-a"]);
    delete(&site, "pvc-a");
    let before = wait(tree(&secrets));
    // Something that is nobody's.
    write(&secrets, "pvc-a/other", "other");
    check_stays(&site, "pvc-a", "something else is at /pvc-a now: move it away");
    wait(with_worker(&secrets, async |worker: &Worker| worker.remove(&path("pvc-a")).await))
        .expect("it can be removed");
    assert_eq!(wait(tree(&secrets)).len(), before.len());
    // Another volume's, above it.
    make(&site, &secrets, &["pvc-b", "--parameter", "pathPattern=team/app"]);
    delete(&site, "pvc-b");
    make(&site, &secrets, &["pvc-c", "--parameter", "pathPattern=team"]);
    check_stays(&site, "pvc-b", "volumes do not nest");
    // It is where it was, and everybody else too; and once it can, it comes back.
    let states: Vec<Value> = listed(&site).into_values().map(|item| item["state"].clone()).collect();
    assert_eq!(states, ["kept", "kept"]);
    assert_eq!(read(&secrets, "team/deep/file").as_deref(), Some("pvc-c"));
    delete(&site, "pvc-c");
    restored(&site, "pvc-b");
    restored(&site, "pvc-a");
    assert_eq!(read(&secrets, "team/app/deep/file").as_deref(), Some("pvc-b"));
    assert_eq!(read(&secrets, "pvc-a/deep/file").as_deref(), Some("pvc-a"));
}

#[test]
fn of_a_purge_and_a_restore_at_once_one_has_the_volume_whole() {
    let scratch = Scratch::new();
    let secrets = scratch.secrets();
    let idle = Site::new(NEVER, "", &secrets).expect("a site");
    let ids: Vec<String> = (0..6).map(|number| format!("pvc-{number}")).collect();
    {
        let _serving = idle.serve(&[]).expect("it serves");
        for id in &ids {
            make(&idle, &secrets, &[id]);
            delete(&idle, id);
        }
    }
    let key = idle.path().join("state/record.key");
    let config =
        format!("csi: {{socket: csi.sock, cluster: test, quota: false, trashDays: 0, recordKey: {}}}\n", key.display());
    let purging = Site::new(&config, "", &secrets).expect("a site");
    let _serving = purging.serve(&[]).expect("it serves");
    let back: BTreeSet<&str> = std::thread::scope(|scope| {
        let idle = &idle;
        let restore = |id| move || (id, volumes(idle, &["restore-from-trash", id]).status.success());
        let restores: Vec<_> = ids.iter().map(|id: &String| scope.spawn(restore(id))).collect();
        purging.insist(&["delete", "pvc-none"]).expect("pith csi runs").expect("there is nothing to delete");
        let ended = restores.into_iter().map(|restore| restore.join().expect("no panic"));
        ended.filter_map(|(id, success)| success.then_some(id)).collect()
    });
    until("the rest is purged", || trash(&secrets).is_empty());
    let records = purging.volumes().expect("the records can be read");
    for id in &ids {
        let here = back.contains(id.as_str()).then(|| id.clone());
        assert_eq!(read(&secrets, &format!("{id}/deep/file")), here, "{id}");
        assert_eq!(records.get(id).map(|record| &record["state"]), here.map(|_| json!("ready")).as_ref(), "{id}");
    }
}

#[test]
fn a_class_keeps_the_directory_where_it_is_or_moves_it_aside_for_good() {
    let scratch = Scratch::new();
    let secrets = scratch.secrets();
    let site = Site::new(AT_ONCE, "", &secrets).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    make(&site, &secrets, &["pvc-stays", "--parameter", "onDelete=retain"]);
    make(&site, &secrets, &["pvc-aside", "--parameter", "onDelete=archive"]);
    make(&site, &secrets, &["pvc-shared", "--parameter", "onDelete=retain", "--parameter", "pathPattern=team"]);
    make(&site, &secrets, &["pvc-goes"]);
    for id in ["pvc-stays", "pvc-aside", "pvc-shared", "pvc-goes"] {
        delete(&site, id);
    }
    until("what can be purged is", || metric(&site, "pith_purges_total").as_deref() == Some("3"));
    assert_eq!(read(&secrets, "pvc-stays/deep/file").as_deref(), Some("pvc-stays"));
    let archived = listed(&site);
    let (place, item) = archived.iter().next().expect("one");
    assert_eq!((archived.len(), &item["state"], &item["id"]), (1, &json!("archived"), &json!("pvc-aside")));
    assert_eq!(item["path"], json!(format!("/.pith/archive/{place}")));
    assert_eq!(read(&secrets, &format!(".pith/archive/{place}/data/deep/file")).as_deref(), Some("pvc-aside"));
    restored(&site, "pvc-aside");
    assert_eq!(read(&secrets, "pvc-aside/deep/file").as_deref(), Some("pvc-aside"));
    // A directory that was there before is shown to nobody but who shares it.
    let refusal = site.ask(&["create", "pvc-stays"]).expect("pith csi runs").expect_err("it is refused");
    assert!(refusal.sentence.starts_with("the directory /pvc-stays is there already"), "{refusal:?}");
    let shared = ["create", "pvc-next", "--parameter", "pathPattern=team"];
    site.ask(&shared).expect("pith csi runs").expect("it is made");
    assert_eq!(read(&secrets, "team/deep/file").as_deref(), Some("pvc-shared"));

    for (parameters, sentence) in [
        (&["onDelete=keep"][..], "the parameter onDelete is `keep`: write `delete`"),
        (&["trashDays=soon"], "the parameter trashDays is `soon`: write a whole number of days"),
        (&["onDelete=archive", "trashDays=1"], "the parameter trashDays is `1`: it is for `onDelete: delete`"),
    ] {
        let parameters = parameters.iter().flat_map(|it| ["--parameter", *it]);
        let arguments: Vec<&str> = ["create", "pvc-wrong"].into_iter().chain(parameters).collect();
        let refusal = site.ask(&arguments).expect("pith csi runs").expect_err("it is refused");
        assert_eq!(refusal.code, "InvalidArgument");
        assert!(refusal.sentence.starts_with(sentence), "{refusal:?}");
    }
    assert!(!site.volumes().expect("the records can be read").contains_key("pvc-wrong"));
}

#[test]
fn a_retained_directory_comes_back_to_its_volume() {
    let scratch = Scratch::new();
    let secrets = scratch.secrets();
    let site = Site::new(DEFAULT, "", &secrets).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    make(&site, &secrets, &["pvc-stays", "--parameter", "onDelete=retain"]);
    delete(&site, "pvc-stays");
    restored(&site, "pvc-stays");
    assert_eq!(read(&secrets, "pvc-stays/deep/file").as_deref(), Some("pvc-stays"));
    delete(&site, "pvc-stays");
    wait(with_worker(&secrets, async |worker: &Worker| worker.remove(&path("pvc-stays")).await))
        .expect("it is removed");
    check_stays(&site, "pvc-stays", "nothing is left of the directory /pvc-stays of volume `pvc-stays`");
}

#[test]
fn deletion_without_a_secret_or_a_record_says_so() {
    let scratch = Scratch::new();
    let site = Site::new(DEFAULT, "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    site.ask(&["delete", "pvc-none"]).expect("pith csi runs").expect("there is nothing to delete");
    let log = site.log();
    let line = log
        .lines()
        .find(|line| line.contains("there is neither a record nor a PersistentVolume of it: it counts as deleted"));
    assert!(line.is_some_and(|line| line.contains("pvc-none")), "{log}");

    let endpoint = format!("unix://{}", site.socket().display());
    let output = Command::new(&*PITH).args(["csi", "--endpoint", &endpoint, "delete", "pvc-none"]).output();
    let said = output.expect("it runs").stderr;
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("FailedPrecondition: volume `pvc-none` was to be deleted without a Secret"), "{said}");
    assert!(said.contains("volume.kubernetes.io/provisioner-deletion-secret-name"), "{said}");
}

/// It is a move: the engine is asked as much for a thousand entries as for one.
#[test]
fn deletion_takes_as_many_requests_for_many_files_as_for_one() {
    let redis = Redis::start("").expect("a Redis");
    let secrets = redis.secrets();
    let site = Site::new(NEVER, "", &secrets).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    for id in ["pvc-warm", "pvc-one", "pvc-many"] {
        make(&site, &secrets, &[id]);
    }
    wait(with_worker(&secrets, async |worker: &Worker| {
        for number in 0..1000 {
            worker.make_directory(&path(&format!("pvc-many/{number}"))).await.expect("it can be made");
        }
    }));
    delete(&site, "pvc-warm");
    let commands = |id: &str| {
        let before = redis.commands().expect("it answers");
        delete(&site, id);
        redis.commands().expect("it answers") - before
    };
    let (one, many) = (commands("pvc-one"), commands("pvc-many"));
    // Clients of the engine say every few seconds that they are there. One command for each entry would be a thousand more.
    assert!(many < one + 500, "{many} commands for a thousand entries, and {one} for one");
}

#[test]
fn an_engine_that_hangs_holds_up_no_other_purge_and_no_stop() {
    let (hanging, scratch) = (Redis::start("").expect("a Redis"), Scratch::new());
    let site = Site::new(AT_ONCE, "", &hanging.secrets()).expect("a site");
    let mut serving = site.serve(&[]).expect("it serves");
    make(&site, &hanging.secrets(), &["pvc-a", "--parameter", "trashDays=7"]);
    hanging.freeze(true).expect("it can be stopped");
    // Its task waits for the engine from now on.
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(|| site.ask(&["delete", "pvc-a"]));
        let other = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "o"}, "stringData": scratch.secrets(),
        });
        std::fs::write(site.path().join("other.yaml"), other.to_string()).expect("written");
        let other = |arguments: &[&str]| {
            let endpoint = format!("unix://{}", site.socket().display());
            let mut command = Command::new(&*PITH);
            command.args(["csi", "--endpoint", &endpoint]).args(arguments).arg("--secret-file");
            let output = command.arg(site.path().join("other.yaml")).output().expect("it runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        other(&["create", "pvc-b"]);
        other(&["delete", "pvc-b"]);
        until("the other file system's is purged", || metric(&site, "pith_purges_total").as_deref() == Some("1"));
        let process = i32::try_from(serving.id()).expect("a number");
        let process = rustix::process::Pid::from_raw(process).expect("a process");
        rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("it can be stopped");
        let status = serving.wait().expect("it ends");
        hanging.freeze(false).expect("it can go on");
        drop(asked.join());
        status
    });
    assert!(asked.success(), "{asked}: {}", site.log());
}
