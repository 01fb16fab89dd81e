//! Snapshots, restores and clones from end to end, on the real client: nothing of a volume is lost or changed on the way, whatever is
//! killed, and nothing is answered before it is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pith::juicefs::steps::CLONE_STEPS;
use pith_tests::cluster::CLUSTER;
use pith_tests::juicefs::{CLIENT, Mount, Scratch};
use pith_tests::provisioner::{Refusal, Site};
use pith_tests::redis::Redis;
use pith_tests::server::{PITH, Server};
use pith_tests::wasm_builds;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, setxattr, utimensat};
use serde_json::{Value, json};

use crate::cluster::{driver_of, yaml};

const CONFIG: &str = "csi: {socket: csi.sock, cluster: test, secretFiles: [secret.yaml]}\n";
/// What is deleted is purged at once.
const AT_ONCE: &str =
    "csi: {socket: csi.sock, cluster: test, quota: false, trashDays: 0, secretFiles: [secret.yaml]}\n";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(90);

type Secrets = BTreeMap<String, String>;

/// Asks until there is an answer.
fn insist(site: &Site, arguments: &[&str]) -> Result<Value, Refusal> {
    site.insist(arguments).expect("pith csi runs")
}

#[track_caller]
fn done(site: &Site, arguments: &[&str]) -> Value {
    insist(site, arguments).unwrap_or_else(|refusal| panic!("{arguments:?}: {refusal:?}"))
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Everything that can be seen of each file below a directory, by its path; names of one file have the first of them in common.
fn described(directory: &Path) -> BTreeMap<String, String> {
    let (mut found, mut first_names) = (BTreeMap::new(), BTreeMap::new());
    let mut left = vec![directory.to_path_buf()];
    while let Some(above) = left.pop() {
        let mut entries: Vec<_> =
            fs::read_dir(&above).expect("it is a directory").map(|it| it.expect("a name").path()).collect();
        entries.sort();
        for path in entries {
            let name = path.strip_prefix(directory).expect("it is below").as_os_str().to_string_lossy().into_owned();
            let metadata = fs::symlink_metadata(&path).expect("it is there");
            let kind = metadata.file_type();
            let content = if kind.is_file() {
                format!(
                    "{:x?}",
                    fs::read(&path).expect("it can be read").chunks(4096).map(checksum).collect::<Vec<_>>()
                )
            } else if kind.is_symlink() {
                fs::read_link(&path).expect("it is a link").display().to_string()
            } else {
                String::new()
            };
            let first = first_names.entry(metadata.ino()).or_insert_with(|| name.clone());
            found.insert(
                name.clone(),
                format!(
                    "{:o} {}:{} {} bytes, {}.{:09}, device {}, links {}, as {first}, {:?}, {content}",
                    metadata.mode(),
                    metadata.uid(),
                    metadata.gid(),
                    metadata.size(),
                    metadata.mtime(),
                    metadata.mtime_nsec(),
                    metadata.rdev(),
                    if kind.is_dir() { 0 } else { metadata.nlink() },
                    attributes(&path, kind.is_symlink()),
                ),
            );
            if kind.is_dir() {
                left.push(path);
            }
        }
    }
    found
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn attributes(path: &Path, is_link: bool) -> Vec<(String, Vec<u8>)> {
    if is_link {
        return Vec::new();
    }
    let mut names = vec![0; 4096];
    let size = rustix::fs::listxattr(path, &mut names).expect("they can be listed");
    let names: BTreeSet<&[u8]> = names[..size].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    let value = |name: &&[u8]| {
        let name = String::from_utf8_lossy(name).into_owned();
        let mut value = vec![0; 4096];
        let size = rustix::fs::getxattr(path, &name, &mut value).expect("it is there");
        (name, value[..size].to_vec())
    };
    names.iter().map(value).collect()
}

/// Fills a directory with one of everything that a file system can have.
fn fill(directory: &Path) {
    let at = |name: &str| directory.join(name);
    let write = |name: &str, text: &str| fs::write(at(name), text).expect("it can be written");
    for name in ["empty", "a/b/c", "links/there"] {
        fs::create_dir_all(at(name)).expect("it can be made");
    }
    write("plain", "hello\n");
    write("a/b/c/deep", &"long ".repeat(100_000));
    write("set-user", "#!/bin/sh\n");
    fs::set_permissions(at("set-user"), fs::Permissions::from_mode(0o6751)).expect("it is ours");
    fs::set_permissions(at("a"), fs::Permissions::from_mode(0o3770)).expect("it is ours");
    for (name, user, group) in [("plain", 1234, 5678), ("a", 77, 88)] {
        std::os::unix::fs::lchown(at(name), Some(user), Some(group)).expect("we are root");
    }
    // None is empty: of that, the client makes an error where the metadata engine speaks SQL.
    for (name, key, value) in [("plain", "user.key", &b"a value\0of bytes"[..]), ("a/b", "user.dir", b"x")] {
        setxattr(at(name), key, value, XattrFlags::empty()).expect("it can be set");
    }
    std::os::unix::fs::symlink("../plain", at("a/link")).expect("it can be made");
    std::os::unix::fs::symlink("/nowhere/at all", at("broken")).expect("it can be made");
    std::os::unix::fs::lchown(at("broken"), Some(99), Some(98)).expect("we are root");
    // Three names of one file, in three directories, and two of another one in one.
    write("links/one", "the same");
    fs::hard_link(at("links/one"), at("links/there/two")).expect("it can be made");
    fs::hard_link(at("links/one"), at("a/b/three")).expect("it can be made");
    write("links/x", "another");
    fs::hard_link(at("links/x"), at("links/y")).expect("it can be made");
    // Two pieces in 40 MiB of nothing.
    let sparse = fs::File::create(at("sparse")).expect("it can be made");
    sparse.set_len(40 << 20).expect("it has a length");
    sparse.write_all_at(b"begins", 5).and_then(|()| sparse.write_all_at(b"ends", 39 << 20)).expect("it can be written");
    fs::write(directory.join(OsStr::from_bytes(b"no \xff text")), "bytes").expect("it can be written");
    write("größe 日本 %2e\\n", "a name");
    let mode = Mode::from_raw_mode(0o640);
    mknodat(CWD, at("a/pipe"), FileType::Fifo, mode, 0).expect("it can be made");
    mknodat(CWD, at("null"), FileType::CharacterDevice, mode, rustix::fs::makedev(1, 3)).expect("we are root");
    std::os::unix::fs::lchown(at("null"), Some(5), Some(6)).expect("we are root");
    // Directories last: what is put into them changes their times.
    for (name, seconds) in
        [("plain", 1_000_000_000), ("null", 1_100_000_000), ("links", 1_200_000_000), ("a/b", 1_300_000_000)]
    {
        let time = Timespec { tv_sec: seconds, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, at(name), &times, AtFlags::empty()).expect("it is ours");
    }
}

/// The bytes in the objects of a file system that keeps its data in a folder.
fn stored(secrets: &Secrets) -> u64 {
    fn count(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("a name").path());
        entries
            .map(|path| if path.is_dir() { count(&path) } else { path.metadata().map_or(0, |file| file.len()) })
            .sum()
    }
    count(&Path::new(&secrets["bucket"]).join("scratch/chunks"))
}

#[test]
fn everything_of_a_volume_is_in_its_snapshot_and_in_what_is_made_of_it() {
    let scratch = Scratch::new();
    let site = Site::new(CONFIG, "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    done(&site, &["create", "pvc-a", "--size", "1Gi"]);
    let mount = Mount::of(&scratch.meta_url(), "/");
    let volume = mount.path().join("pvc-a");
    fill(&volume);
    let before = described(&volume);
    let links = before.values().filter(|said| said.contains("links 3, as ")).count();
    assert_eq!(links, 3, "{before:#?}");
    let before_that = stored(&scratch.secrets());

    let snapshot = done(&site, &["snapshot", "create", "s-1", "--volume", "pvc-a"]);
    assert_eq!((&snapshot["volume"], &snapshot["bytes"]), (&"pvc-a".into(), &(1_u64 << 30).into()));
    // As long as it is there, the same answer.
    assert_eq!(done(&site, &["snapshot", "create", "s-1", "--volume", "pvc-a"]), snapshot);
    let restored = done(&site, &["create", "pvc-b", "--from-snapshot", "s-1"]);
    assert_eq!((&restored["source"]["snapshot"], &restored["capacityBytes"]), (&"s-1".into(), &(1_u64 << 30).into()));
    done(&site, &["create", "pvc-c", "--from-volume", "pvc-a", "--size", "2Gi"]);
    // Each record is an object of its own.
    let (more, most) = (stored(&scratch.secrets()) - before_that, 3 * 4096);
    assert!(more < most && most < before_that, "data were copied: {more} bytes more than {before_that}");
    for directory in [".pith/snapshots/s-1/data", "pvc-b", "pvc-c"] {
        assert_eq!(described(&mount.path().join(directory)), before, "{directory}");
    }
    assert_eq!(Mount::of(&scratch.meta_url(), "/pvc-c").size(), 2 << 30);

    // What is written to one of them is in none of the others.
    fs::write(volume.join("plain"), "changed").expect("it can be written");
    fs::remove_file(volume.join("links/one")).expect("it can be removed");
    fs::write(mount.path().join("pvc-b/links/x"), "changed too").expect("it can be written");
    assert_eq!(fs::read_to_string(mount.path().join("pvc-b/links/y")).expect("it is there"), "changed too");
    for directory in [".pith/snapshots/s-1/data", "pvc-c"] {
        assert_eq!(described(&mount.path().join(directory)), before, "{directory}");
    }
    // Nor does what becomes of the volume touch its snapshot, or what becomes of that what was made of it.
    done(&site, &["delete", "pvc-a"]);
    done(&site, &["create", "pvc-d", "--from-snapshot", "s-1"]);
    done(&site, &["snapshot", "delete", "s-1"]);
    done(&site, &["snapshot", "delete", "s-1"]);
    assert_eq!(described(&mount.path().join("pvc-d")), before);
    let gone = insist(&site, &["create", "pvc-e", "--from-snapshot", "s-1"]).expect_err("it is gone");
    assert_eq!((gone.code.as_str(), gone.sentence.as_str()), ("NotFound", "there is no snapshot `s-1`"));
    let gone = insist(&site, &["create", "pvc-e", "--from-volume", "pvc-a"]).expect_err("it is gone");
    assert_eq!((gone.code.as_str(), gone.sentence.as_str()), ("NotFound", "there is no volume `pvc-a`"));
    let ids: Vec<String> = site.volumes().expect("the records can be read").into_keys().collect();
    assert_eq!(ids, ["pvc-b", "pvc-c", "pvc-d"], "what was refused left nothing");
}

#[test]
fn no_device_no_mount_and_no_capability_is_needed() {
    let scratch = Scratch::new();
    let site = Site::new(CONFIG, "", &scratch.secrets()).expect("a site");
    // In a namespace of its own, where the device is none.
    let alone = "mount --bind /dev/null /dev/fuse && \
                 exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", alone]).arg(&*PITH);
    let serving = site.serve_as(command, &[]).expect("it serves");
    let status = fs::read_to_string(format!("/proc/{}/status", serving.id())).expect("it runs");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{status}");
    }
    done(&site, &["create", "pvc-a"]);
    let mount = Mount::of(&scratch.meta_url(), "/");
    fill(&mount.path().join("pvc-a"));
    let before = described(&mount.path().join("pvc-a"));
    done(&site, &["snapshot", "create", "s-1", "--volume", "pvc-a"]);
    done(&site, &["create", "pvc-b", "--from-snapshot", "s-1"]);
    assert_eq!(described(&mount.path().join("pvc-b")), before);
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", serving.id())).expect("it runs");
    assert!(!mounts.contains("/dev/fd/"), "{mounts}");
}

/// Files in ten directories, with what each says of itself, whose names begin so.
fn write_files(directory: &Path, names: &str, count: usize) {
    for number in 0..count {
        let folder = directory.join(format!("d{}", number % 10));
        fs::create_dir_all(&folder).expect("it can be made");
        fs::write(folder.join(format!("{names}{number}")), format!("{names}{number}")).expect("it can be written");
    }
}

/// That all of these files are there, each as it was written, and no others.
#[track_caller]
fn check_files(directory: &Path, names: &str, count: usize) {
    let mut found = 0;
    for folder in fs::read_dir(directory).expect("it is there") {
        for file in fs::read_dir(folder.expect("a name").path()).expect("it is a directory") {
            let file = file.expect("a name");
            assert_eq!(fs::read(file.path()).expect("it can be read"), file.file_name().as_bytes());
            assert!(file.file_name().as_bytes().starts_with(names.as_bytes()));
            found += 1;
        }
    }
    assert_eq!(found, count, "{}", directory.display());
}

/// What lies beside a record and in the trash: nothing that a clone could have left. What of a record was staged when somebody was killed
/// is for `pith volumes repair`.
#[track_caller]
fn check_nothing_left(root: &Path) {
    for folder in ["volumes", "snapshots", "trash"] {
        let folder = root.join(".pith").join(folder);
        for entry in fs::read_dir(&folder).expect("it is there") {
            let entry = entry.expect("a name").path();
            assert!(!folder.ends_with("trash"), "{} is left", entry.display());
            for inside in fs::read_dir(&entry).expect("it is a directory") {
                let name = inside.expect("a name").file_name().to_string_lossy().into_owned();
                assert!(!name.starts_with("clone."), "{}/{name} is left", entry.display());
            }
        }
    }
}

#[test]
fn killed_at_any_step_a_clone_and_a_snapshot_are_made_whole_by_the_next_call() {
    const FILES: usize = 30;
    let scratch = Scratch::new();
    let site = Site::new(AT_ONCE, "", &scratch.secrets()).expect("a site");
    let serving = site.serve(&[]).expect("it serves");
    done(&site, &["create", "pvc-a"]);
    let mount = Mount::of(&scratch.meta_url(), "/");
    write_files(&mount.path().join("pvc-a"), "f", FILES);
    done(&site, &["snapshot", "create", "s-0", "--volume", "pvc-a"]);
    serving.kill().expect("it can be killed");

    let create = ["create", "pvc-b", "--from-snapshot", "s-0"];
    let cut = ["snapshot", "create", "s-1", "--volume", "pvc-a"];
    let before = ["record-staged", "record-written", "record-moved"];
    let of_volumes = ["index-begun", "index-made"];
    let after = ["made-marked"];
    let steps = before.iter().chain(&CLONE_STEPS).chain(&after).map(|step| (*step, true));
    for (step, both) in steps.chain(of_volumes.iter().map(|step| (*step, false))) {
        for (question, data, delete) in [
            (&create[..], "pvc-b", ["delete", "pvc-b", ""]),
            (&cut, ".pith/snapshots/s-1/data", ["snapshot", "delete", "s-1"]),
        ] {
            if !both && data != "pvc-b" {
                continue;
            }
            let mut dying = site.serve(&["--die-at", step]).expect("it serves");
            site.ask(question).expect("pith csi runs").expect_err("it is killed");
            dying.wait().expect("it ends");
            let serving = site.serve(&[]).expect("it serves again");
            done(&site, question);
            check_files(&mount.path().join(data), "f", FILES);
            let delete: Vec<&str> = delete.into_iter().filter(|word| !word.is_empty()).collect();
            done(&site, &delete);
            until("what was deleted is purged", || {
                fs::read_dir(mount.path().join(".pith/trash")).expect("it is there").next().is_none()
            });
            serving.kill().expect("it can be killed");
        }
    }
    check_nothing_left(mount.path());
}

#[test]
fn killed_at_any_step_of_its_deletion_a_snapshot_goes_with_the_next_call() {
    let scratch = Scratch::new();
    let site = Site::new(AT_ONCE, "", &scratch.secrets()).expect("a site");
    let mut serving = site.serve(&[]).expect("it serves");
    done(&site, &["create", "pvc-a"]);
    let mount = Mount::of(&scratch.meta_url(), "/");
    write_files(&mount.path().join("pvc-a"), "f", 10);
    for step in ["record-moved", "trash-made", "data-moved", "volume-gone"] {
        done(&site, &["snapshot", "create", "s-1", "--volume", "pvc-a"]);
        serving.kill().expect("it can be killed");
        let mut dying = site.serve(&["--die-at", step]).expect("it serves");
        site.ask(&["snapshot", "delete", "s-1"]).expect("pith csi runs").expect_err("it is killed");
        dying.wait().expect("it ends");
        serving = site.serve(&[]).expect("it serves again");
        done(&site, &["snapshot", "delete", "s-1"]);
        until("it is purged", || fs::read_dir(mount.path().join(".pith/trash")).expect("it is there").next().is_none());
    }
    let list = done(&site, &["snapshot", "list"]);
    assert_eq!(list["snapshots"].as_array().map(Vec::len), Some(0), "{list}");
    check_nothing_left(mount.path());
}

/// The client that makes a clone now, if there is one.
fn cloning(meta_url: &str) -> Option<i32> {
    let processes = fs::read_dir("/proc").expect("a /proc").flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).find(|process| {
        let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(&format!(" mount {meta_url} /dev/fd/"))
    })
}

#[test]
fn whoever_is_killed_in_the_midst_of_a_clone_leaves_all_of_it_or_nothing() {
    const FILES: usize = 4000;
    let redis = Redis::start("").expect("redis-server runs");
    let secrets = redis.secrets();
    let site = Site::new(AT_ONCE, "", &secrets).expect("a site");
    let mut serving = Some(site.serve(&[]).expect("it serves"));
    done(&site, &["create", "pvc-a"]);
    let mount = Mount::of(&secrets["metaurl"], "/");
    write_files(&mount.path().join("pvc-a"), "f", FILES);
    let mut cut = 0;
    for round in 0..8 {
        let name = format!("pvc-{round}");
        let create = ["create", &name, "--from-volume", "pvc-a"];
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| site.ask(&create).expect("pith csi runs"));
            let mut client = None;
            until("it is being cloned", || {
                client = cloning(&secrets["metaurl"]);
                client.is_some() || asked.is_finished()
            });
            std::thread::sleep(Duration::from_millis(40 * (round / 2)));
            if round % 2 == 0 {
                let client = client.and_then(rustix::process::Pid::from_raw);
                if let Some(client) = client {
                    let _ = rustix::process::kill_process(client, rustix::process::Signal::KILL);
                }
            } else {
                serving.take().expect("it was started").kill().expect("it can be killed");
                serving = Some(site.serve(&[]).expect("it serves again"));
            }
            cut += u32::from(asked.join().expect("no panic").is_err());
        });
        let volume = mount.path().join(&name);
        if volume.exists() {
            check_files(&volume, "f", FILES);
        }
        done(&site, &create);
        check_files(&volume, "f", FILES);
    }
    assert!(cut >= 4, "only {cut} clones were cut, which is no test");
    check_nothing_left(mount.path());
}

#[test]
fn several_restores_of_one_snapshot_go_on_at_once_also_in_two_replicas() {
    const FILES: usize = 500;
    let redis = Redis::start("").expect("redis-server runs");
    let secrets = redis.secrets();
    let first = Site::new(CONFIG, "", &secrets).expect("a site");
    let _serving = first.serve(&[]).expect("it serves");
    let key = first.path().join("state/record.key");
    let config = format!("csi: {{socket: csi.sock, cluster: test, recordKey: {}}}\n", key.display());
    let second = Site::new(&config, "", &secrets).expect("a site");
    let _other = second.serve(&[]).expect("it serves");
    done(&first, &["create", "pvc-a", "--size", "1Gi"]);
    let mount = Mount::of(&secrets["metaurl"], "/");
    write_files(&mount.path().join("pvc-a"), "f", FILES);
    done(&first, &["snapshot", "create", "s-1", "--volume", "pvc-a"]);
    let names: Vec<String> = (0..6).map(|number| format!("pvc-{number}")).collect();
    let together = Barrier::new(2 * names.len());
    std::thread::scope(|scope| {
        for site in [&first, &second] {
            for name in &names {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    let made = insist(site, &["create", name, "--from-snapshot", "s-1", "--size", "1Gi"]);
                    assert_eq!(made.unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"))["id"], **name);
                });
            }
        }
    });
    for name in &names {
        check_files(&mount.path().join(name), "f", FILES);
    }
    let ids: BTreeSet<String> = first.volumes().expect("the records can be read").into_keys().collect();
    assert_eq!(ids, names.into_iter().chain(["pvc-a".to_string()]).collect());
    // Each has its quota, of the clone and not of what it was made of.
    write_files(&mount.path().join("pvc-0"), "f", FILES + 10);
    check_files(&mount.path().join("pvc-1"), "f", FILES);
    check_nothing_left(mount.path());
}

#[test]
fn what_is_deleted_while_it_is_cloned_is_cloned_whole_or_not_at_all() {
    const FILES: usize = 1500;
    let redis = Redis::start("").expect("redis-server runs");
    let secrets = redis.secrets();
    let site = Site::new(AT_ONCE, "", &secrets).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    done(&site, &["create", "pvc-source"]);
    let mount = Mount::of(&secrets["metaurl"], "/");
    write_files(&mount.path().join("pvc-source"), "f", FILES);
    let (mut whole, mut refused) = (0, 0);
    // Later and later, until both were seen: how long a clone takes is the machine's affair.
    let mut delay = Duration::ZERO;
    for round in 0..14 {
        if round >= 4 && whole > 0 && refused > 0 {
            break;
        }
        let (source, name) = (format!("s-{round}"), format!("pvc-{round}"));
        done(&site, &["snapshot", "create", &source, "--volume", "pvc-source"]);
        let create = ["create", &name, "--from-snapshot", &source];
        let asked = std::thread::scope(|scope| {
            let asked = scope.spawn(|| insist(&site, &create));
            until("it is being cloned", || asked.is_finished() || cloning(&secrets["metaurl"]).is_some());
            let deletion = Instant::now() + delay;
            until("it is to be deleted", || asked.is_finished() || Instant::now() >= deletion);
            done(&site, &["snapshot", "delete", &source]);
            asked.join().expect("no panic")
        });
        match asked {
            Ok(_) => {
                check_files(&mount.path().join(&name), "f", FILES);
                whole += 1;
            }
            Err(refusal) => {
                assert_eq!(
                    (refusal.code.as_str(), refusal.sentence),
                    ("NotFound", format!("there is no snapshot `{source}`"))
                );
                assert!(!mount.path().join(&name).exists(), "{name} is left");
                refused += 1;
            }
        }
        delay = (2 * delay).max(Duration::from_millis(10));
    }
    assert!(whole > 0 && refused > 0, "{whole} were made and {refused} refused, which is no test");
    until("what was deleted is purged", || {
        fs::read_dir(mount.path().join(".pith/trash")).expect("it is there").next().is_none()
    });
    check_nothing_left(mount.path());
}

#[test]
fn a_policy_names_what_is_made_of_a_volume_after_it() {
    let scratch = Scratch::new();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "shop", "name": "data", "uid": "u-1"},
        "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "juicefs", "resources": {"requests": {"storage": "1Gi"}}},
    });
    let policy = json!({
        "name": "by-source", "module": {"file": wasm_builds::policy("naming")},
        "settings": {"template": ["copies", "{source}-{volume}"], "missing": "pass"},
    });
    let config = format!("{AT_ONCE}policies: [{policy}]\n");
    let site = Site::new(&config, &yaml(&[namespace, claim]), &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    let directory = |arguments: &[&str]| {
        let made = done(&site, &[arguments, &["--claim", "shop/data"]].concat());
        made["context"]["subPath"].as_str().expect("a directory").to_string()
    };
    assert_eq!(directory(&["create", "pvc-a"]), "pvc-a", "it starts with nothing");
    done(&site, &["snapshot", "create", "s-1", "--volume", "pvc-a"]);
    assert_eq!(directory(&["create", "pvc-b", "--from-snapshot", "s-1"]), "copies/pvc-a-pvc-b");
    assert_eq!(directory(&["create", "pvc-c", "--from-volume", "pvc-b"]), "copies/pvc-a-pvc-b-pvc-c");
}

/// Says that it is time to stop, when it is dropped.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_snapshot_under_write_load_has_every_file_that_was_there_and_none_in_halves() {
    let redis = Redis::start("").expect("redis-server runs");
    let secrets = redis.secrets();
    let site = Site::new(AT_ONCE, "", &secrets).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    done(&site, &["create", "pvc-a"]);
    let mount = Mount::of(&secrets["metaurl"], "/");
    let volume = mount.path().join("pvc-a");
    let stop = AtomicBool::new(false);
    // Each file is written aside, synced, and given its name and a second one. The first ones stay, and the others are made again and
    // again, or there would be more with each round.
    const STAY: usize = 20;
    const ALL: usize = 200;
    let write = |folder: &Path, number: usize| {
        let (aside, name) = (folder.join("aside"), folder.join(format!("f{number}")));
        let file = fs::File::create(&aside).expect("it can be made");
        file.write_all_at(format!("{number} ").repeat(2000).as_bytes(), 0).expect("it can be written");
        file.sync_all().expect("it is written");
        fs::rename(&aside, &name).expect("it has its name");
        let other = folder.join(format!("g{number}"));
        let _ = fs::remove_file(&other);
        fs::hard_link(&name, &other).expect("it has another one");
    };
    let written = std::thread::scope(|scope| {
        // What fails here ends the writers too, for whom the scope waits.
        let stopping = Stopping(&stop);
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (folder, stop) = (volume.join(format!("w{writer}")), &stop);
                fs::create_dir(&folder).expect("it can be made");
                (0..STAY).for_each(|number| write(&folder, number));
                scope.spawn(move || {
                    let numbers = (STAY..ALL).cycle().take_while(|_| !stop.load(Ordering::Relaxed));
                    numbers.map(|number| write(&folder, number)).count()
                })
            })
            .collect();
        for round in 0..5 {
            let name = format!("s-{round}");
            let before: Vec<usize> = (0..3)
                .map(|writer| {
                    fs::read_dir(volume.join(format!("w{writer}"))).expect("it is there").count().saturating_sub(2) / 2
                })
                .collect();
            done(&site, &["snapshot", "create", &name, "--volume", "pvc-a"]);
            let data = mount.path().join(format!(".pith/snapshots/{name}/data"));
            for (writer, least) in before.iter().enumerate() {
                let folder = data.join(format!("w{writer}"));
                let names: BTreeSet<String> = fs::read_dir(&folder)
                    .expect("it is there")
                    .map(|entry| entry.expect("a name").file_name().to_string_lossy().into_owned())
                    .collect();
                for number in 0..*least {
                    assert!(names.contains(&format!("f{number}")), "{}: f{number} is missing", folder.display());
                }
                for name in names.iter().filter(|name| *name != "aside") {
                    let number = &name[1..];
                    let content = fs::read_to_string(folder.join(name)).expect("it can be read");
                    assert!(
                        content == format!("{number} ").repeat(2000),
                        "{} is in halves",
                        folder.join(name).display()
                    );
                }
                for number in 0..STAY {
                    let inode =
                        |name: &str| fs::metadata(folder.join(format!("{name}{number}"))).expect("it is there").ino();
                    assert_eq!(inode("f"), inode("g"), "{}: {number} is two files", folder.display());
                }
            }
        }
        drop(stopping);
        writers.into_iter().map(|writer| writer.join().expect("no panic")).sum::<usize>()
    });
    assert!(written > 100, "{written} files were written, which is no load");
    check_nothing_left(mount.path());
}

#[test]
fn sizes_and_names_are_checked_before_anything_is_written() {
    let scratch = Scratch::new();
    let site = Site::new(CONFIG, "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    done(&site, &["create", "pvc-a", "--size", "2Gi"]);
    done(&site, &["create", "pvc-free"]);
    done(&site, &["snapshot", "create", "s-1", "--volume", "pvc-a"]);
    let check = |arguments: &[&str], code: &str, sentence: &str| {
        let refusal = insist(&site, arguments).expect_err("it is refused");
        assert_eq!((refusal.code.as_str(), refusal.sentence.as_str()), (code, sentence), "{arguments:?}");
    };
    let small = "a volume of 1073741824 bytes is smaller than the 2147483648 bytes of what it is to start with: ask for as much";
    check(&["create", "pvc-b", "--from-snapshot", "s-1", "--size", "1Gi"], "OutOfRange", small);
    check(&["create", "pvc-b", "--from-volume", "pvc-a", "--limit", "1Gi"], "OutOfRange", small);
    check(&["create", "pvc-b", "--from-snapshot", "../x"], "NotFound", "there is no snapshot `../x`");
    check(&["create", "pvc-b", "--from-volume", "../x"], "NotFound", "there is no volume `../x`");
    check(&["snapshot", "create", "s-2", "--volume", "pvc-z"], "NotFound", "there is no volume `pvc-z`");
    check(
        &["snapshot", "create", "s-1", "--volume", "pvc-free"],
        "AlreadyExists",
        "snapshot `s-1` exists already, and not as it is asked now: content_source is volume `pvc-a`, and volume `pvc-free` is asked",
    );
    let retain = "the parameter onDelete is `retain`: a snapshot lies where nobody mounts it, so it is deleted (`delete`) or moved \
                  aside for good (`archive`)";
    check(
        &["snapshot", "create", "s-2", "--volume", "pvc-a", "--parameter", "onDelete=retain"],
        "InvalidArgument",
        retain,
    );
    // A volume and a snapshot may have one name, and are two things.
    done(&site, &["snapshot", "create", "pvc-a", "--volume", "pvc-a"]);
    check(&["create", "pvc-b", "--from-volume", "s-1"], "NotFound", "there is no volume `s-1`");
    done(&site, &["snapshot", "delete", "pvc-a"]);
    // What has no bound asks for none, and what starts with it may have one.
    let free = done(&site, &["create", "pvc-b", "--from-volume", "pvc-free"]);
    assert_eq!(free["capacityBytes"], 0);
    let bounded = done(&site, &["create", "pvc-c", "--from-volume", "pvc-free", "--size", "1Gi"]);
    assert_eq!(bounded["capacityBytes"], 1 << 30);
    // A directory of a pattern is shared by others, but not with what starts with something.
    let pattern = ["--parameter", "pathPattern=team/app"];
    done(&site, &[&["create", "pvc-p", "--from-volume", "pvc-free"], &pattern[..]].concat());
    let alone = "the directory /team/app cannot be the volume's: volume `pvc-p` has it, and does not share it";
    let refusal = insist(&site, &[&["create", "pvc-q"], &pattern[..]].concat()).expect_err("it is refused");
    assert_eq!((refusal.code.as_str(), refusal.sentence.as_str()), ("FailedPrecondition", alone));
    let there = "the directory /team/app is there already, and volume `pvc-r` does not share it: name another one, or let the \
                 policy say that it is shared";
    check(&[&["create", "pvc-r", "--from-volume", "pvc-free"], &pattern[..]].concat(), "FailedPrecondition", there);
    // The larger one of a volume that has grown counts.
    done(&site, &["expand", "pvc-a", "--size", "3Gi"]);
    assert_eq!(done(&site, &["create", "pvc-d", "--from-volume", "pvc-a"])["capacityBytes"], 3_u64 << 30);
    assert_eq!(done(&site, &["create", "pvc-e", "--from-snapshot", "s-1"])["capacityBytes"], 2_u64 << 30);
}

#[test]
fn a_list_goes_on_behind_a_snapshot_that_is_gone() {
    let scratch = Scratch::new();
    let site = Site::new(CONFIG, "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    for volume in ["pvc-a", "pvc-b"] {
        done(&site, &["create", volume]);
    }
    for (name, volume) in [("s-1", "pvc-a"), ("s-2", "pvc-b"), ("s-3", "pvc-a"), ("s-4", "pvc-b"), ("s-5", "pvc-a")] {
        done(&site, &["snapshot", "create", name, "--volume", volume]);
    }
    let ids = |page: &Value| -> Vec<String> {
        let snapshots = page["snapshots"].as_array().expect("a list");
        snapshots.iter().map(|it| it["id"].as_str().expect("an id").to_string()).collect()
    };
    let first = done(&site, &["snapshot", "list", "--max-entries", "2"]);
    assert_eq!((ids(&first), &first["nextToken"]), (vec!["s-1".into(), "s-2".into()], &"after/s-2".into()));
    done(&site, &["snapshot", "delete", "s-2"]);
    let next = ["snapshot", "list", "--max-entries", "2", "--starting-token", "after/s-2"];
    assert_eq!(ids(&done(&site, &next)), ["s-3", "s-4"]);
    assert_eq!(ids(&done(&site, &["snapshot", "list", "--volume", "pvc-a"])), ["s-1", "s-3", "s-5"]);
    assert_eq!(ids(&done(&site, &["snapshot", "list", "--volume", "pvc-z"])), Vec::<String>::new());
    let refusal =
        site.ask(&["snapshot", "list", "--starting-token", "2"]).expect("pith csi runs").expect_err("no token");
    assert_eq!(refusal.code, "Aborted");
    // Also where nothing says which file systems there are, if a Secret does.
    let without = Command::new(&*PITH)
        .args(["csi", "--endpoint"])
        .arg(format!("unix://{}", site.socket().display()))
        .args(["snapshot", "get", "s-5"])
        .output()
        .expect("it runs");
    assert!(without.status.success(), "{}", String::from_utf8_lossy(&without.stderr));
    let gone = insist(&site, &["snapshot", "get", "s-2"]).expect_err("it is gone");
    assert_eq!((gone.code.as_str(), gone.sentence.as_str()), ("NotFound", "there is no snapshot `s-2`"));
}

#[test]
fn a_deleted_snapshot_lies_in_the_trash_for_as_long_as_its_class_says() {
    let scratch = Scratch::new();
    let site = Site::new(CONFIG, "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    done(&site, &["create", "pvc-a"]);
    let mount = Mount::of(&scratch.meta_url(), "/");
    write_files(&mount.path().join("pvc-a"), "f", 20);
    for (name, parameter) in [("s-week", "a=b"), ("s-none", "trashDays=0"), ("s-ever", "onDelete=archive")] {
        done(&site, &["snapshot", "create", name, "--volume", "pvc-a", "--parameter", parameter]);
        done(&site, &["snapshot", "delete", name]);
    }
    let names = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(mount.path().join(".pith").join(folder)).expect("it is there");
        entries.map(|entry| entry.expect("a name").file_name().to_string_lossy().into_owned()).collect()
    };
    until("what nobody keeps is purged", || names("trash").len() == 1);
    let [kept, archived] = [names("trash"), names("archive")].map(|names| names.concat());
    assert!(kept.starts_with("s-week.") && archived.starts_with("s-ever."), "{kept} {archived}");
    check_files(&mount.path().join(".pith/trash").join(&kept).join("data"), "f", 20);
    let refused = site.run_volumes(&["restore-from-trash", &kept]).expect("it runs");
    let said = String::from_utf8_lossy(&refused.stderr);
    let expected = format!(
        "`{kept}` is what is left of the snapshot `s-week`: only volumes come back; what it had is in /.pith/trash/{kept} until it is purged"
    );
    assert!(said.contains(&expected), "{said}");
    assert!(names("snapshots").is_empty());
}

#[test]
fn a_record_of_a_snapshot_that_was_put_elsewhere_makes_no_volume_and_removes_none() {
    let scratch = Scratch::new();
    let site = Site::new(AT_ONCE, "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    done(&site, &["create", "pvc-a"]);
    let mount = Mount::of(&scratch.meta_url(), "/");
    write_files(&mount.path().join("pvc-a"), "f", 5);
    done(&site, &["snapshot", "create", "s-1", "--volume", "pvc-a"]);
    let at = |path: &str| mount.path().join(".pith").join(path);
    // As an application that mounts the root can.
    let copied =
        Command::new("cp").args(["-r"]).args([at("snapshots/s-1"), at("volumes/s-1")]).status().expect("cp runs");
    assert!(copied.success());
    let misplaced = "the record /.pith/volumes/s-1: it is generation 1 of volume `s-1`, and does not belong there";
    for question in [&["delete", "s-1"][..], &["create", "s-1"], &["expand", "s-1", "--size", "1Gi"]] {
        let refusal = site.ask(question).expect("pith csi runs").expect_err("it is no volume");
        assert_eq!(
            (refusal.code.as_str(), refusal.sentence.as_str()),
            ("FailedPrecondition", misplaced),
            "{question:?}"
        );
    }
    check_files(&mount.path().join("pvc-a"), "f", 5);
    check_files(&at("snapshots/s-1/data"), "f", 5);
    let copied =
        Command::new("cp").args(["-r"]).args([at("volumes/pvc-a"), at("snapshots/pvc-a")]).status().expect("cp runs");
    assert!(copied.success());
    let refusal = site.ask(&["snapshot", "delete", "pvc-a"]).expect("pith csi runs").expect_err("it is no snapshot");
    assert_eq!(refusal.code, "FailedPrecondition", "{refusal:?}");
    check_files(&mount.path().join("pvc-a"), "f", 5);
}

/// With csi-provisioner, csi-snapshotter and snapshot-controller, and with the rights that the chart gives Pith.
#[test]
fn in_a_cluster_a_volume_snapshot_is_restored_and_a_claim_is_cloned() {
    let cluster = &*CLUSTER;
    let _alone = driver_of(cluster);
    let scratch = Scratch::new();
    let namespace = cluster.namespace("snapshots", &json!({})).expect("a namespace");
    let name = &*namespace.name;
    let secret = |whats: &[&str]| {
        let mut parameters = json!({});
        for what in whats {
            parameters[format!("csi.storage.k8s.io/{what}-secret-name")] = json!("file-system");
            parameters[format!("csi.storage.k8s.io/{what}-secret-namespace")] = json!(name);
        }
        parameters
    };
    let claim = |claim: &str, source: Value| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": name, "name": claim},
            "spec": {
                "accessModes": ["ReadWriteMany"], "storageClassName": name, "resources": {"requests": {"storage": "1Gi"}},
                "dataSource": source,
            },
        })
    };
    let of_driver = "csi.juicefs.com";
    let objects = [
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": name, "name": "file-system"}, "stringData": scratch.secrets()}),
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}, "provisioner": of_driver,
            "parameters": secret(&["provisioner", "node-publish"]), "reclaimPolicy": "Delete",
        }),
        json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass", "metadata": {"name": name},
            "driver": of_driver, "deletionPolicy": "Delete", "parameters": secret(&["snapshotter", "snapshotter-list"]),
        }),
        claim("data", Value::Null),
    ];
    cluster.apply(&yaml(&objects)).expect("objects");
    let config = [
        ("csi", json!({"socket": cluster.csi_socket(), "cluster": "test", "trashDays": 0})),
        ("juicefs", json!({"client": *CLIENT, "startTimeout": "60s", "callTimeout": "30s"})),
    ];
    let config: String = config.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
    let kubeconfig = cluster.kubeconfig_of_pith("pith-controller").expect("a kubeconfig");
    let server = Server::start_following(cluster, &config, &kubeconfig).expect("it serves");
    cluster.show_log(&server.folder.path().join("log"));

    let volume_of = |claim: &str| {
        cluster
            .wait(name, "jsonpath={.status.phase}=Bound", &format!("pvc/{claim}"))
            .expect("csi-provisioner calls Pith");
        let bound = cluster.get(&["pvc", claim, "--namespace", name]).expect("the claim");
        bound["spec"]["volumeName"].as_str().expect("a volume").to_string()
    };
    let volume = volume_of("data");
    let mount = Mount::of(&scratch.meta_url(), "/");
    fill(&mount.path().join(&volume));
    let before = described(&mount.path().join(&volume));

    let snapshot = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"namespace": name, "name": "before"},
        "spec": {"volumeSnapshotClassName": name, "source": {"persistentVolumeClaimName": "data"}},
    });
    cluster.apply(&yaml(&[snapshot])).expect("a snapshot");
    cluster
        .wait(name, "jsonpath={.status.readyToUse}=true", "volumesnapshot/before")
        .expect("csi-snapshotter calls Pith");
    let made = cluster.get(&["volumesnapshot", "before", "--namespace", name]).expect("the snapshot");
    assert_eq!(made["status"]["restoreSize"], "1Gi", "{made}");
    fs::write(mount.path().join(&volume).join("plain"), "written later").expect("it can be written");
    let later = described(&mount.path().join(&volume));

    let of_snapshot = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "before"});
    let of_claim = json!({"kind": "PersistentVolumeClaim", "name": "data"});
    cluster.apply(&yaml(&[claim("restored", of_snapshot), claim("cloned", of_claim)])).expect("two claims");
    for (claim, expected) in [("restored", &before), ("cloned", &later)] {
        assert_eq!(&described(&mount.path().join(volume_of(claim))), expected, "{claim}");
    }

    cluster.kubectl(&["delete", "volumesnapshot", "before", "--namespace", name]).expect("it is deleted");
    until("csi-snapshotter calls Pith", || {
        fs::read_dir(mount.path().join(".pith/snapshots")).expect("it is there").next().is_none()
    });
    cluster.kubectl(&["delete", "pvc", "--all", "--namespace", name]).expect("they are deleted");
    cluster.wait(name, "delete", &format!("pv/{volume}")).expect("csi-provisioner calls Pith");
    cluster.kubectl(&["delete", "storageclass,volumesnapshotclass", name]).expect("they are deleted");
}
