//! The workers and commands of the real JuiceFS client.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pith::juicefs::{
    Depth, FileSystem, JuiceFsError, Kind, Made, Moved, Path, Removal, Worker, WorkerOptions, Workers,
};
use pith_core::volume::Bound;
use pith_tests::juicefs::{Scratch, options};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A secret in every place that has one.
const CANARY: &str = "canary-77b1e2";

fn workers(change: impl FnOnce(&mut WorkerOptions)) -> Workers {
    let mut options = options();
    change(&mut options);
    Workers::new(options).expect("a thread can be started")
}

fn path(path: &str) -> Path {
    Path::of(path.split('/').filter(|name| !name.is_empty())).expect("it is a path")
}

/// What a listing has, as `name` or `name/`.
async fn list(worker: &Worker, directory: &str, depth: Depth) -> Option<BTreeSet<String>> {
    let entries = worker.list(&path(directory), depth).await.expect("it can be listed")?;
    let line = |path: &Path, kind| format!("{path}{}", if kind == Kind::Directory { "/" } else { "" });
    Some(entries.iter().map(|entry| line(&entry.path, entry.kind)).collect())
}

/// Waits until it is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[track_caller]
fn check_refused<T: std::fmt::Debug>(result: Result<T, JuiceFsError>, expected: &str) {
    match result {
        Err(JuiceFsError::Refused(sentence)) => assert!(sentence.contains(expected), "{sentence}"),
        other => panic!("expected a refusal, not {other:?}"),
    }
}

#[tokio::test]
async fn directories_and_files_are_made_read_listed_and_removed() {
    let (scratch, workers) = (Scratch::new(), workers(|_| {}));
    let worker = workers.get(&scratch.file_system()).await.expect("a worker");

    assert_eq!(worker.make_directory(&path("/a")).await, Ok(Made::Made));
    assert_eq!(worker.make_directory(&path("/a")).await, Ok(Made::Existed));
    assert_eq!(worker.make_directory(&path("/")).await, Ok(Made::Existed));
    assert_eq!(worker.make_directory(&path("/b/c")).await, Ok(Made::NoParent));
    for (there, made) in [("/d", Made::Made), ("/d/e/f", Made::Made), ("/d/e/f", Made::Existed), ("/d/g", Made::Made)] {
        assert_eq!(worker.make_directories(&path(there)).await, Ok(made), "{there}");
    }
    assert_eq!(worker.make_directories(&path("/")).await, Ok(Made::Existed));
    assert_eq!(worker.remove(&path("/d")).await, Ok(true));
    assert_eq!(worker.write(&path("/a/file"), b"one".to_vec()).await, Ok(()));
    assert_eq!(worker.write(&path("/a/file"), b"two".to_vec()).await, Ok(()));
    check_refused(worker.write(&path("/b/file"), Vec::new()).await, "/b/file can't be written: the directory");
    for beneath in ["/a/file", "/a/file/b", "/a/file/b/c"] {
        check_refused(worker.make_directories(&path(beneath)).await, "can't be made: /a/file is a file");
    }
    check_refused(worker.write(&path("/a/large"), vec![0; (1 << 20) + 1]).await, "more than 1024 KiB");

    assert_eq!(worker.read(&path("/a/file")).await, Ok(Some("two".into())));
    assert_eq!(worker.read(&path("/a/none")).await, Ok(None));
    assert_eq!(worker.read(&path("/b/none")).await, Ok(None));
    check_refused(worker.read(&path("/a")).await, "it is a directory");
    assert_eq!(worker.write(&path("/a/large"), vec![7; 1 << 20]).await, Ok(()));
    assert_eq!(worker.read(&path("/a/large")).await, Ok(Some(vec![7; 1 << 20].into())));

    assert_eq!(worker.kind(&path("/a")).await, Ok(Some(Kind::Directory)));
    assert_eq!(worker.kind(&path("/a/file")).await, Ok(Some(Kind::File)));
    assert_eq!(worker.kind(&path("/a/none")).await, Ok(None));
    let set = |lines: &[&str]| Some(lines.iter().map(ToString::to_string).collect::<BTreeSet<_>>());
    assert_eq!(list(&worker, "/", Depth::One).await, set(&["/a/"]));
    assert_eq!(list(&worker, "/", Depth::Infinity).await, set(&["/a/", "/a/file", "/a/large"]));
    assert_eq!(list(&worker, "/b", Depth::One).await, None);
    check_refused(worker.list(&path("/a/file"), Depth::One).await, "it is no directory");

    assert_eq!(worker.move_exclusive(&path("/a"), &path("/b")).await, Ok(Moved::Moved));
    assert_eq!(worker.move_exclusive(&path("/a"), &path("/b")).await, Ok(Moved::Taken));
    assert_eq!(worker.move_exclusive(&path("/a"), &path("/c")).await, Ok(Moved::Missing));
    check_refused(worker.move_exclusive(&path("/b"), &path("/c/d")).await, "/c/d can't be moved to: the directory");
    assert_eq!(worker.remove(&path("/b")).await, Ok(true));
    assert_eq!(worker.remove(&path("/b")).await, Ok(false));
    check_refused(worker.remove(&path("/")).await, "never removed");
    workers.stop().await;
}

#[tokio::test]
async fn a_removal_goes_on_when_nobody_waits_for_it_any_more() {
    let (scratch, workers) = (Scratch::new(), workers(|_| {}));
    let worker = workers.get(&scratch.file_system()).await.expect("a worker");
    for number in 0..100 {
        assert_eq!(worker.make_directories(&path(&format!("/a/{number}"))).await, Ok(Made::Made));
    }
    assert_eq!(worker.remove_for(&path("/a"), Duration::ZERO).await, Ok(Removal::GoesOn));
    let patience = Duration::from_secs(30);
    assert_eq!(worker.remove_for(&path("/a"), patience).await, Ok(Removal::Done));
    assert_eq!(list(&worker, "/a", Depth::One).await, None);
    assert_eq!(worker.remove_for(&path("/a"), patience).await, Ok(Removal::Done));
    check_refused(worker.remove_for(&path("/"), patience).await, "the root of a file system is never removed");
}

#[tokio::test]
async fn odd_names_survive() {
    let (scratch, workers) = (Scratch::new(), workers(|_| {}));
    let worker = workers.get(&scratch.file_system()).await.expect("a worker");
    let names =
        ["été 文 🐈", "50%", "%2e%2e", "a b", "\"'`", "#?&=+;,:@", "<&amp;>", "\\", "...", "-rf", "index.html", " "];
    worker.make_directory(&path("from")).await.expect("made");
    worker.make_directory(&path("to")).await.expect("made");
    for name in names {
        let [from, to] = ["from", "to"].map(|directory| Path::of([directory, name]).expect("it is a path"));
        assert_eq!(worker.make_directory(&from).await, Ok(Made::Made), "{name}");
        let file = from.clone().join(name).expect("it is a name");
        worker.write(&file, name.into()).await.expect("written");
        assert_eq!(worker.read(&file).await, Ok(Some(name.into())), "{name}");
        assert_eq!(worker.move_exclusive(&from, &to).await, Ok(Moved::Moved), "{name}");
    }
    assert_eq!(worker.list(&path("from"), Depth::One).await, Ok(Some(Vec::new())));
    let listed = worker.list(&path("to"), Depth::One).await.expect("listed").expect("it is there");
    let listed: BTreeSet<&str> = listed.iter().map(|entry| entry.path.components()[0].as_str()).collect();
    assert_eq!(listed, BTreeSet::from(names));
    workers.stop().await;
}

#[tokio::test]
async fn a_directory_is_listed_while_it_changes() {
    let (scratch, workers) = (Scratch::new(), workers(|_| {}));
    let worker = workers.get(&scratch.file_system()).await.expect("a worker");
    worker.make_directory(&path("/kept")).await.expect("made");
    let changing = {
        let worker = worker.clone();
        tokio::spawn(async move {
            loop {
                worker.make_directory(&path("/passing")).await.expect("made");
                worker.remove(&path("/passing")).await.expect("removed");
            }
        })
    };
    let mut whole = 0;
    for _ in 0..200 {
        match worker.list(&path("/"), Depth::One).await {
            Ok(Some(entries)) => {
                assert!(entries.iter().any(|entry| entry.path == path("/kept")), "it is there all the time");
                whole += 1;
            }
            // The client breaks a listing off where an entry goes meanwhile: that may happen time after time.
            Err(JuiceFsError::Unavailable(sentence)) => assert!(sentence.contains("no whole listing"), "{sentence}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(whole > 100, "{whole} of 200 listings were whole");
    changing.abort();
    workers.stop().await;
}

#[tokio::test]
async fn of_several_moves_to_one_place_one_succeeds() {
    const CALLERS: usize = 8;
    let (scratch, workers) = (Scratch::new(), workers(|_| {}));
    let worker = workers.get(&scratch.file_system()).await.expect("a worker");
    for round in 0..5 {
        let to = path(&format!("/to-{round}"));
        let mut moves = Vec::new();
        for caller in 0..CALLERS {
            let from = path(&format!("/from-{round}-{caller}"));
            worker.make_directory(&from).await.expect("made");
            let file = from.clone().join("record").expect("it is a name");
            worker.write(&file, vec![u8::try_from(caller).expect("few callers")]).await.expect("written");
            let (worker, to) = (worker.clone(), to.clone());
            moves.push(tokio::spawn(async move { worker.move_exclusive(&from, &to).await }));
        }
        let mut winners = Vec::new();
        for (caller, moved) in moves.into_iter().enumerate() {
            match moved.await.expect("no panic") {
                Ok(Moved::Moved) => winners.push(caller),
                other => assert_eq!(other, Ok(Moved::Taken)),
            }
        }
        let [winner] = winners[..] else { panic!("{winners:?} moved") };
        let record = worker.read(&to.join("record").expect("it is a name")).await.expect("read").expect("it is there");
        assert_eq!(record[..], [u8::try_from(winner).expect("few callers")]);
        let makers: Vec<_> = (0..CALLERS).map(|_| (worker.clone(), path(&format!("/made-{round}")))).collect();
        let makers =
            makers.into_iter().map(|(worker, path)| tokio::spawn(async move { worker.make_directory(&path).await }));
        let mut made = 0;
        for maker in makers.collect::<Vec<_>>() {
            made += usize::from(maker.await.expect("no panic").expect("an answer") == Made::Made);
        }
        assert_eq!(made, 1);
    }
    workers.stop().await;
}

#[tokio::test]
async fn directories_are_writable_for_every_user_and_keep_their_quota() {
    let space = |bytes| Bound { bytes: Some(bytes), inodes: None };
    let (scratch, workers) = (Scratch::new(), workers(|_| {}));
    let file_system = scratch.file_system();
    let worker = workers.get(&file_system).await.expect("a worker");
    worker.make_directory(&path("/team 1")).await.expect("made");
    let dump: Value = serde_json::from_str(&scratch.run(&["dump", "META"])).expect("it is JSON");
    assert_eq!(dump["FSTree"]["entries"]["team%201"]["attr"]["mode"], 0o777, "{dump}");

    workers.set_quota(&file_system, &path("/team 1"), space(3 << 30)).await.expect("set");
    assert!(scratch.run(&["quota", "get", "META", "--path", "/team 1"]).contains("3.0 GiB"));
    assert_eq!(workers.quota(&file_system, &path("/team 1")).await, Ok(Some("3.0 GiB".into())));
    worker.move_exclusive(&path("/team 1"), &path("/moved")).await.expect("moved");
    assert!(scratch.run(&["quota", "get", "META", "--path", "/moved"]).contains("3.0 GiB"));
    workers.set_quota(&file_system, &path("/moved"), Bound::default()).await.expect("lifted");
    assert!(scratch.run(&["quota", "get", "META", "--path", "/moved"]).contains("unchanged"));
    assert_eq!(workers.quota(&file_system, &path("/moved")).await, Ok(None));
    // Less than the GiB in which the client counts, and more than what can be written with one digit of it.
    workers.set_quota(&file_system, &path("/moved"), space((5 << 20) + 4096)).await.expect("set");
    assert_eq!(workers.quota(&file_system, &path("/moved")).await, Ok(Some("5.0 MiB".into())));
    let both = Bound { inodes: Some(12_345), ..space(5 << 20) };
    workers.set_quota(&file_system, &path("/moved"), both).await.expect("set");
    assert_eq!(workers.quota(&file_system, &path("/moved")).await, Ok(Some(both.written())));
    worker.make_directory(&path("/bare")).await.expect("made");
    assert_eq!(workers.quota(&file_system, &path("/bare")).await, Ok(None));
    check_refused(
        workers.set_quota(&file_system, &path("/none"), space(3 << 30)).await,
        "the directory /none, which is to get a quota",
    );
    workers.stop().await;
}

#[tokio::test]
async fn several_callers_start_one_worker_and_each_file_system_has_its_own() {
    let (scratch, other, workers) = (Scratch::new(), Scratch::new(), workers(|_| {}));
    let file_system = scratch.file_system();
    let all = tokio::join!(workers.get(&file_system), workers.get(&file_system), workers.get(&file_system));
    let [one, two, three] = [all.0, all.1, all.2].map(|worker| worker.expect("a worker"));
    assert!(Arc::ptr_eq(&one, &two) && Arc::ptr_eq(&two, &three));
    assert_eq!(scratch.processes().len(), 1);

    let elsewhere = workers.get(&other.file_system()).await.expect("a worker");
    one.make_directory(&path("/here")).await.expect("made");
    assert_eq!(list(&elsewhere, "/", Depth::One).await, Some(BTreeSet::new()));
    workers.stop().await;
    assert_eq!((scratch.processes().len(), other.processes().len()), (0, 0));
    let stopped = workers.get(&file_system).await.expect_err("no worker").to_string();
    assert_eq!(stopped, "Pith is stopping");
}

#[tokio::test]
async fn a_worker_that_was_killed_is_replaced() {
    let (scratch, workers) = (Scratch::new(), workers(|_| {}));
    let file_system = scratch.file_system();
    workers.get(&file_system).await.expect("a worker").make_directory(&path("/kept")).await.expect("made");
    // The second time it is started again after half a second only, and who asks before that is refused with the reason.
    for refused in [false, true] {
        let before = scratch.processes();
        let [pid] = before.keys().copied().collect::<Vec<_>>()[..] else { panic!("{before:?}") };
        kill_process(Pid::from_raw(pid).expect("a process id"), Signal::KILL).expect("it was there");
        let mut refusals = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(30);
        let kind = loop {
            assert!(Instant::now() < deadline, "no worker came: {refusals:?}");
            let answer = match workers.get(&file_system).await {
                Ok(worker) => worker.kind(&path("/kept")).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(kind) => break kind,
                Err(JuiceFsError::Unavailable(sentence)) => refusals.push(sentence),
                Err(other) => panic!("{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(kind, Some(Kind::Directory));
        let ended = "the JuiceFS client for `scratch` ended (signal: 9 (SIGKILL))";
        assert_eq!(refusals.iter().any(|sentence| sentence.starts_with(ended)), refused, "{refusals:?}");
        assert!(!scratch.processes().contains_key(&pid));
    }
    workers.stop().await;
}

#[tokio::test]
async fn an_idle_worker_is_stopped_and_one_in_use_is_not() {
    let (scratch, workers) = (Scratch::new(), workers(|options| options.idle = Duration::from_millis(300)));
    let file_system = scratch.file_system();
    let worker = workers.get(&file_system).await.expect("a worker");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(worker.make_directory(&path("/a")).await, Ok(Made::Made));
    drop(worker);
    until("the idle worker is gone", || scratch.processes().is_empty()).await;
    let worker = workers.get(&file_system).await.expect("a worker");
    assert_eq!(worker.kind(&path("/a")).await, Ok(Some(Kind::Directory)));
}

#[tokio::test]
async fn the_worker_that_was_used_longest_ago_makes_room() {
    let (first, second, third) = (Scratch::new(), Scratch::new(), Scratch::new());
    let workers = workers(|options| options.max_workers = 2);
    let one = workers.get(&first.file_system()).await.expect("a worker");
    let two = workers.get(&second.file_system()).await.expect("a worker");
    let full = workers.get(&third.file_system()).await.expect_err("no room");
    assert!(full.to_string().contains("as many JuiceFS workers as may run (2) are in use"), "{full}");
    drop(two);
    drop(one);
    workers.get(&second.file_system()).await.expect("it is there");
    workers.get(&third.file_system()).await.expect("a worker");
    assert_eq!([first, second, third].map(|it| it.processes().len()), [0, 1, 1]);
    workers.stop().await;
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_unavailable_in_time_and_the_sentence_has_no_password() {
    let workers = workers(|options| options.start_timeout = Duration::from_secs(3));
    for storage in ["", "file"] {
        let secrets = [
            ("name", "nowhere"),
            ("metaurl", &format!("redis://:{CANARY}@127.0.0.1:1/1")),
            ("storage", storage),
            ("bucket", storage),
        ];
        let secrets = secrets.map(|(key, value)| (key.to_string(), value.to_string())).into();
        let file_system = FileSystem::from_secrets(&secrets).expect("it is well formed");
        let started = Instant::now();
        let error = workers.get(&file_system).await.expect_err("nothing is there");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        let JuiceFsError::Unavailable(sentence) = error else { panic!("{error:?}") };
        assert!(sentence.contains("`nowhere` did not ") && sentence.contains("connection refused"), "{sentence}");
        assert!(!sentence.contains(CANARY), "{sentence}");
    }
}

#[tokio::test]
async fn a_file_system_that_is_not_there_is_made_only_where_the_secret_says_how() {
    let (scratch, workers) = (Scratch::new(), workers(|_| {}));
    let mut secrets = scratch.secrets();
    secrets.retain(|key, _| key == "name" || key == "metaurl");
    let unformatted = FileSystem::from_secrets(&secrets).expect("it is well formed");
    let error = workers.get(&unformatted).await.expect_err("it is not formatted");
    assert!(matches!(error, JuiceFsError::NotFormatted(_)), "{error:?}");
    assert!(error.to_string().contains("please run `juicefs format ...` first"), "{error}");
    workers.get(&scratch.file_system()).await.expect("a worker");
    // The first failure costs nothing but itself.
    workers.get(&unformatted).await.expect("a worker");
    workers.stop().await;
}

#[tokio::test]
async fn starts_that_keep_failing_are_tried_at_growing_intervals() {
    let folder = tempfile::tempdir().expect("a folder");
    let [client, runs] = ["client", "runs"].map(|name| folder.path().join(name));
    let says = "2026/11/22 08:57:18.055083 juicefs[1] <FATAL>: ping database: out of order [initForSvc@gateway.go:1]";
    let script = format!("#!/bin/sh\necho run >> {}\necho '{says}' >&2\nexit 1\n", runs.display());
    std::fs::write(&client, script).expect("written");
    std::fs::set_permissions(&client, Permissions::from_mode(0o700)).expect("it is ours");
    let workers = workers(|options| options.client = client);
    let secrets = [("name", "broken"), ("metaurl", "redis://broken/1")];
    let secrets = secrets.map(|(key, value)| (key.to_string(), value.to_string())).into();
    let file_system = FileSystem::from_secrets(&secrets).expect("it is well formed");
    // The first failure is followed by a start at once, the second by half a second in which there is none.
    for runs_until_then in [1, 2, 2] {
        let error = workers.get(&file_system).await.expect_err("it ends at once").to_string();
        let expected = "the JuiceFS client for `broken` ended (exit status: 1): ping database: out of order";
        assert_eq!(error, expected);
        assert_eq!(std::fs::read_to_string(&runs).expect("it ran").lines().count(), runs_until_then);
    }
}

/// A program that uses a worker for a file system; it is killed when dropped.
struct User {
    program: Child,
    log: tempfile::NamedTempFile,
}

impl User {
    fn start(secrets: &BTreeMap<String, String>) -> User {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_uses_a_worker"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log.reopen().expect("it is there"));
        let mut program = command.spawn().expect("it is built");
        let secrets = serde_json::to_vec(secrets).expect("it is JSON");
        program.stdin.take().expect("it is piped").write_all(&secrets).expect("it reads");
        User { program, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).expect("it is UTF-8")
    }

    /// Waits until it used the worker for everything.
    fn done(&mut self) {
        let mut line = String::new();
        BufReader::new(self.program.stdout.take().expect("it is piped")).read_line(&mut line).expect("it speaks");
        assert_eq!(line, "done\n", "{}", self.log());
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

#[tokio::test]
async fn a_worker_does_not_outlive_a_pith_that_was_killed() {
    let scratch = Scratch::new();
    let mut user = User::start(&scratch.secrets());
    user.done();
    assert_eq!(scratch.processes().len(), 1);
    drop(user);
    until("the worker is gone", || scratch.processes().is_empty()).await;
}

#[test]
fn no_secret_is_in_the_process_list_or_in_the_log() {
    let scratch = Scratch::new();
    let mut secrets = scratch.secrets();
    for key in ["access-key", "secret-key", "session-token", "meta-password"] {
        secrets.insert(key.into(), format!("{CANARY}/{key}"));
    }
    secrets.insert("envs".into(), format!("{{\"TOKEN\": \"{CANARY}\"}}"));
    let mut user = User::start(&secrets);
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                seen.extend(scratch.processes().into_values());
            }
            seen
        });
        user.done();
        done.store(true, Ordering::Relaxed);
        watcher.join().expect("no panic")
    });
    let lines = seen.into_iter().collect::<Vec<_>>().join("\n");
    assert!(lines.contains(" webdav "), "{lines}");
    assert!(!lines.contains(CANARY), "{lines}");
    let log = user.log();
    assert!(log.contains("WebDAV listening") && log.contains("TRACE"), "{log}");
    for secret in [CANARY, &scratch.meta_url()] {
        assert!(!log.contains(secret), "{log}");
    }
}
