//! Volumes from end to end: `pith serve` behind its socket, on the real JuiceFS client, killed and cut wherever it hurts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use pith::juicefs::steps::STEPS;
use pith::juicefs::{Depth, Entry, FileSystem, Kind, Made, Path, Worker, Workers};
use pith_tests::juicefs::{Scratch, options};
use pith_tests::provisioner::{Refusal, Site};
use pith_tests::redis::Redis;
use pith_tests::wasm_builds;
use serde_json::{Value, json};

/// A site of the cluster `test`, without quotas unless a test is about them.
const NO_QUOTA: &str = "csi: {socket: csi.sock, cluster: test, quota: false}\n";
const QUOTA: &str = "csi: {socket: csi.sock, cluster: test}\n";

/// Does something in a file system through a client of the test's own.
pub(crate) async fn with_worker<T>(secrets: &BTreeMap<String, String>, act: impl AsyncFnOnce(&Worker) -> T) -> T {
    let file_system = FileSystem::from_secrets(secrets).expect("the Secret is well formed");
    let workers = Workers::new(options()).expect("a thread can be started");
    let worker = workers.get(&file_system).await.expect("the file system is there");
    let result = act(&worker).await;
    drop(worker);
    workers.stop().await;
    result
}

/// Everything in a file system.
pub(crate) async fn tree(secrets: &BTreeMap<String, String>) -> Vec<Entry> {
    let root = Path::of::<&str>([]).expect("the root");
    let list = async |worker: &Worker| worker.list(&root, Depth::Infinity).await.expect("it can be listed");
    with_worker(secrets, list).await.unwrap_or_default()
}

/// The names of the directories right below a path.
pub(crate) fn directories(tree: &[Entry], above: &[&str]) -> BTreeSet<String> {
    let below = |entry: &Entry| {
        let (last, rest) = entry.path.components().split_last()?;
        (entry.kind == Kind::Directory && rest == above).then(|| last.clone())
    };
    tree.iter().filter_map(below).collect()
}

/// Nothing is lost, doubled or leaked: records, directories and the index name exactly these volumes, all of them ready. Their
/// directories are their ids.
#[track_caller]
pub(crate) fn check_exactly(site: &Site, secrets: &BTreeMap<String, String>, expected: &BTreeSet<String>) {
    let volumes = site.volumes().expect("the records can be read");
    assert_eq!(&volumes.keys().cloned().collect::<BTreeSet<_>>(), expected, "records");
    for (id, volume) in &volumes {
        assert_eq!(volume["state"], "ready", "{id}: {volume}");
        assert_eq!(volume["directory"], format!("/{id}"), "{volume}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let tree = runtime.block_on(tree(secrets));
    let mut roots = directories(&tree, &[]);
    assert!(roots.remove(".pith"));
    assert_eq!(&roots, expected, "directories");
    let held: BTreeSet<String> = directories(&tree, &[".pith", "paths"])
        .into_iter()
        .filter(|name| directories(&tree, &[".pith", "paths", name]).contains(name))
        .collect();
    assert_eq!(&held, expected, "index");
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// 130 volumes are made and 70 of them deleted by four callers at once, while `harm` is done again and again. Each call is
/// repeated until it is answered.
fn two_hundred_calls(site: &Site, secrets: &BTreeMap<String, String>, mut harm: impl FnMut(&mut Dice) + Send) {
    const CALLERS: usize = 4;
    let (done, left) = (AtomicBool::new(false), Mutex::new(BTreeSet::new()));
    std::thread::scope(|scope| {
        let (done, left) = (&done, &left);
        let harming = scope.spawn(move || {
            let mut dice = Dice(0x5eed);
            while !done.load(Ordering::Relaxed) {
                harm(&mut dice);
            }
        });
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                scope.spawn(move || {
                    let names: Vec<String> = (0..130)
                        .filter(|number| number % CALLERS == caller)
                        .map(|number| format!("pvc-{number}"))
                        .collect();
                    for (index, name) in names.iter().enumerate() {
                        let made = site.insist(&["create", name, "--size", "1Gi"]).expect("pith csi runs");
                        assert_eq!(made.unwrap_or_else(|error| panic!("{name}: {error:?}"))["id"], **name);
                        left.lock().expect("no panic").insert(name.clone());
                        // Of 33 or 32 names, the first 18 or 17 are deleted again, two calls later.
                        if let Some(old) = index.checked_sub(2).filter(|old| *old < 70usize.div_ceil(CALLERS)) {
                            site.insist(&["delete", &names[old]]).expect("pith csi runs").expect("it is deleted");
                            left.lock().expect("no panic").remove(&names[old]);
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = callers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        harming.join().expect("no panic");
        for caller in ended {
            caller.expect("every call was answered");
        }
    });
    check_exactly(site, secrets, &left.into_inner().expect("no panic"));
}

#[test]
fn killing_pith_at_random_points_loses_doubles_and_leaks_no_volume() {
    let scratch = Scratch::new();
    let site = Site::new(NO_QUOTA, "", &scratch.secrets()).expect("a site");
    let mut serving = Some(site.serve(&[]).expect("it serves"));
    let mut kills = 0;
    two_hundred_calls(&site, &scratch.secrets(), |dice| {
        std::thread::sleep(Duration::from_millis(300 + dice.below(500)));
        serving.take().expect("it was started").kill().expect("it can be killed");
        serving = Some(site.serve(&[]).expect("it serves again"));
        kills += 1;
    });
    assert!(kills > 3, "{kills} kills are no test");
}

#[test]
fn killing_workers_at_random_points_loses_doubles_and_leaks_no_volume() {
    let scratch = Scratch::new();
    let site = Site::new(NO_QUOTA, "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    let mut kills = 0;
    two_hundred_calls(&site, &scratch.secrets(), |dice| {
        std::thread::sleep(Duration::from_millis(200 + dice.below(400)));
        // A worker that ends again and again is started later each time.
        let workers = scratch.processes().into_iter().filter(|(_, line)| line.contains(" webdav ") && kills < 6);
        for (process, _) in workers.collect::<Vec<_>>() {
            let process = rustix::process::Pid::from_raw(process).expect("a process");
            kills += usize::from(rustix::process::kill_process(process, rustix::process::Signal::KILL).is_ok());
        }
    });
    assert!(kills > 3, "{kills} kills are no test");
}

#[test]
fn a_metadata_engine_that_stands_still_for_ten_seconds_loses_no_volume() {
    let redis = Redis::start("").expect("a Redis");
    let site = Site::new(NO_QUOTA, "", &redis.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    let mut frozen = false;
    two_hundred_calls(&site, &redis.secrets(), |_| {
        if !frozen {
            std::thread::sleep(Duration::from_millis(500));
            redis.freeze(true).expect("it can be stopped");
            std::thread::sleep(Duration::from_secs(10));
            redis.freeze(false).expect("it can go on");
            frozen = true;
        }
        std::thread::sleep(Duration::from_millis(20));
    });
    assert!(frozen);
}

#[test]
fn killing_pith_at_any_step_loses_doubles_and_leaks_no_volume() {
    for step in STEPS {
        let scratch = Scratch::new();
        let site = Site::new(QUOTA, "", &scratch.secrets()).expect("a site");
        let create = ["create", "pvc-a", "--size", "1Gi"];
        let expand = ["expand", "pvc-a", "--size", "2Gi"];
        let delete = ["delete", "pvc-a"];
        // The call that comes to this step, and those that must have been made before.
        let position = STEPS.iter().position(|known| *known == step).expect("it is one");
        let (before, call): (&[&[&str]], &[&str]) = match step {
            "resized" => (&[&create], &expand),
            _ if position >= STEPS.iter().position(|known| *known == "trash-made").expect("it is one") => {
                (&[&create], &delete)
            }
            _ => (&[], &create),
        };
        let serving = site.serve(&[]).expect("it serves");
        for call in before {
            site.ask(call).expect("pith csi runs").expect("an answer");
        }
        serving.kill().expect("it can be killed");

        let mut dying = site.serve(&["--die-at", step]).expect("it serves");
        let cut = site.ask(call).expect("pith csi runs");
        assert!(cut.is_err(), "{step}: it was answered: {cut:?}");
        let status = dying.wait().expect("it ends");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{step}: {status}");

        // The last thing before the mark, and the mark.
        if let Some(state) = [("quota-set", "creating"), ("made-marked", "ready")].iter().find(|(at, _)| *at == step) {
            assert_eq!(site.volumes().expect("the records can be read")["pvc-a"]["state"], state.1, "{step}");
        }
        let _serving = site.serve(&[]).expect("it serves again");
        site.insist(call).expect("pith csi runs").unwrap_or_else(|error| panic!("{step}: {error:?}"));
        let expected = if call[0] == "delete" { BTreeSet::new() } else { BTreeSet::from(["pvc-a".to_string()]) };
        check_exactly(&site, &scratch.secrets(), &expected);
        if call[0] != "delete" {
            let size = if call[0] == "expand" { "2.0 GiB" } else { "1.0 GiB" };
            let quota = scratch.run(&["quota", "get", "META", "--path", "/pvc-a"]);
            assert!(quota.contains(size), "{step}: {quota}");
        }
    }
}

/// What a call was refused with.
#[track_caller]
pub(crate) fn refused(answer: anyhow::Result<Result<Value, Refusal>>) -> Refusal {
    answer.expect("pith csi runs").expect_err("it is refused")
}

#[test]
fn a_retry_gives_the_same_volume_and_another_request_names_what_differs() {
    let scratch = Scratch::new();
    let site = Site::new(NO_QUOTA, "", &scratch.secrets()).expect("a site");
    let serving = site.serve(&[]).expect("it serves");
    let create = |more: &[&str]| site.ask(&[&["create", "pvc-a", "--size", "1Gi"], more].concat());
    let first = create(&[]).expect("pith csi runs").expect("it is made");
    assert_eq!(
        first,
        json!({"id": "pvc-a", "capacityBytes": 1 << 30, "context": {"subPath": "pvc-a", "capacity": "1073741824"}})
    );
    // Another process knows as much: nothing is remembered.
    serving.kill().expect("it can be killed");
    let _serving = site.serve(&[]).expect("it serves again");
    assert_eq!(create(&[]).expect("pith csi runs").expect("it is found"), first);
    for (more, field) in [
        (["--size", "2Gi"], "capacity is 1073741824 bytes, and at least 2147483648 bytes is asked"),
        (["--parameter", "a=b"], "parameters.a is not there, and `b` is asked"),
        (["--mode", "rox"], "capabilities is MULTI_NODE_MULTI_WRITER, and MULTI_NODE_READER_ONLY is asked"),
    ] {
        let sentence = format!("volume `pvc-a` exists already, and not as it is asked now: {field}");
        let more = if more[0] == "--size" { site.ask(&["create", "pvc-a", more[0], more[1]]) } else { create(&more) };
        assert_eq!(refused(more), Refusal { code: "AlreadyExists".into(), sentence });
    }
    check_exactly(&site, &scratch.secrets(), &BTreeSet::from(["pvc-a".to_string()]));
}

#[test]
fn directories_of_two_volumes_are_never_the_same_or_one_in_the_other() {
    let scratch = Scratch::new();
    let site = Site::new(NO_QUOTA, "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    let create = |name: &str, pattern: &str| {
        site.ask(&["create", name, "--parameter", &format!("pathPattern={pattern}")]).expect("pith csi runs")
    };
    create("pvc-a", "team/app").expect("it is made");
    create("pvc-b", "team/app").expect("directories of a pattern are shared");
    create("pvc-c", "team/other").expect("it is made");
    for (name, pattern, sentence) in [
        ("pvc-d", "team", "the directory of volume `pvc-a` lies inside it, and volumes do not nest"),
        ("pvc-e", "team/app/deep", "it would lie inside the directory of volume `pvc-a`, and volumes do not nest"),
    ] {
        let refusal = create(name, pattern).expect_err("it is refused");
        assert_eq!(refusal.code, "FailedPrecondition");
        assert!(refusal.sentence.ends_with(sentence), "{refusal:?}");
    }
    let flag = site.ask(&["create", "app", "--mount-flag", "subdir=team"]);
    let sentence = "the directory /team/app is there already, and volume `app` does not share it: name another one, or let \
                    the policy say that it is shared";
    assert_eq!(refused(flag), Refusal { code: "FailedPrecondition".into(), sentence: sentence.into() });
    // What was refused left nothing.
    let ids: Vec<String> = site.volumes().expect("the records can be read").into_keys().collect();
    assert_eq!(ids, ["pvc-a", "pvc-b", "pvc-c"]);

    // Of two that share a directory, the last one takes it along.
    site.ask(&["delete", "pvc-a"]).expect("pith csi runs").expect("it is deleted");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let team = || directories(&runtime.block_on(tree(&scratch.secrets())), &["team"]);
    assert_eq!(team(), BTreeSet::from(["app".to_string(), "other".to_string()]));
    site.ask(&["delete", "pvc-b"]).expect("pith csi runs").expect("it is deleted");
    assert_eq!(team(), BTreeSet::from(["other".to_string()]));
}

#[test]
fn a_directory_on_its_way_to_the_trash_is_not_shared() {
    let scratch = Scratch::new();
    let site = Site::new(NO_QUOTA, "", &scratch.secrets()).expect("a site");
    let create = |name: &'static str| ["create", name, "--parameter", "pathPattern=team/app"];
    let serving = site.serve(&[]).expect("it serves");
    site.ask(&create("pvc-a")).expect("pith csi runs").expect("it is made");
    serving.kill().expect("it can be killed");
    let mut dying = site.serve(&["--die-at", "trash-made"]).expect("it serves");
    site.ask(&["delete", "pvc-a"]).expect("pith csi runs").expect_err("it is cut");
    dying.wait().expect("it ends");

    let _serving = site.serve(&[]).expect("it serves again");
    let refusal = refused(site.ask(&create("pvc-b")));
    assert!(refusal.code == "Aborted" && refusal.sentence.contains("volume `pvc-a` has it"), "{refusal:?}");
    site.ask(&["delete", "pvc-a"]).expect("pith csi runs").expect("it is deleted");
    site.ask(&create("pvc-b")).expect("pith csi runs").expect("it is made");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let tree = runtime.block_on(tree(&scratch.secrets()));
    assert_eq!(directories(&tree, &["team"]), BTreeSet::from(["app".to_string()]));
    assert_eq!(directories(&tree, &[".pith", "paths", "team", ".below", "app"]), BTreeSet::from(["pvc-b".to_string()]));
}

#[test]
fn two_replicas_that_are_asked_at_once_make_one_volume() {
    let scratch = Scratch::new();
    let first = Site::new(NO_QUOTA, "", &scratch.secrets()).expect("a site");
    let _serving = first.serve(&[]).expect("it serves");
    let key = first.path().join("state/record.key");
    let config = format!("csi: {{socket: csi.sock, cluster: test, quota: false, recordKey: {}}}\n", key.display());
    let second = Site::new(&config, "", &scratch.secrets()).expect("a site");
    let _other = second.serve(&[]).expect("it serves");
    let names: Vec<String> = (0..20).map(|number| format!("pvc-{number}")).collect();
    let together = Barrier::new(4);
    std::thread::scope(|scope| {
        for site in [&first, &second, &first, &second] {
            scope.spawn(|| {
                for name in &names {
                    together.wait();
                    let made = site.insist(&["create", name, "--size", "1Gi"]).expect("pith csi runs");
                    assert_eq!(made.unwrap_or_else(|error| panic!("{name}: {error:?}"))["id"], **name);
                }
            });
        }
    });
    check_exactly(&first, &scratch.secrets(), &names.into_iter().collect());
}

#[test]
fn records_that_are_not_ours_are_reported_and_nothing_is_touched() {
    let scratch = Scratch::new();
    let site = Site::new(NO_QUOTA, "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    site.ask(&["create", "pvc-a"]).expect("pith csi runs").expect("it is made");

    // The same key, another cluster; and the same cluster, another key.
    let key = site.path().join("state/record.key");
    let config = format!("csi: {{socket: csi.sock, cluster: other, recordKey: {}}}\n", key.display());
    for (config, problem) in [
        (&*config, "it belongs to the cluster `test`, and this is `other`"),
        (NO_QUOTA, "its seal does not fit: somebody changed or cut it, or it was sealed with another key"),
    ] {
        let foreign = Site::new(config, "", &scratch.secrets()).expect("a site");
        let _serving = foreign.serve(&[]).expect("it serves");
        for call in [["create", "pvc-a"], ["delete", "pvc-a"]] {
            let refusal = refused(foreign.ask(&call));
            assert_eq!(refusal.code, "FailedPrecondition", "{refusal:?}");
            assert_eq!(refusal.sentence, format!("the record /.pith/volumes/pvc-a/record: {problem}"));
        }
    }
    check_exactly(&site, &scratch.secrets(), &BTreeSet::from(["pvc-a".to_string()]));
}

#[test]
fn a_mark_that_is_not_its_own_makes_no_volume_ready() {
    let scratch = Scratch::new();
    let site = Site::new(QUOTA, "", &scratch.secrets()).expect("a site");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let create = |name: &'static str| ["create", name, "--size", "1Gi"];
    let marks = |name: &str| {
        let beside = directories(&runtime.block_on(tree(&scratch.secrets())), &[".pith", "volumes", name]);
        beside.into_iter().filter(|name| name.starts_with("made.")).collect::<Vec<_>>()
    };
    let serving = site.serve(&[]).expect("it serves");
    let mut foreign: Vec<String> = ["made.", "made.00", "made", "ready", "2x"].map(String::from).into();
    // Another volume's, that of another generation, and that of a volume of the same name that is deleted.
    for name in ["pvc-b", "pvc-a"] {
        site.ask(&create(name)).expect("pith csi runs").expect("it is made");
        foreign.extend(marks(name));
    }
    assert_eq!(foreign.len(), 7);
    site.ask(&["delete", "pvc-a"]).expect("pith csi runs").expect("it is deleted");
    serving.kill().expect("it can be killed");
    let mut dying = site.serve(&["--die-at", "quota-set"]).expect("it serves");
    site.ask(&create("pvc-a")).expect("pith csi runs").expect_err("it is cut");
    dying.wait().expect("it ends");

    runtime.block_on(with_worker(&scratch.secrets(), async |worker: &Worker| {
        for mark in &foreign {
            let path = Path::of([".pith", "volumes", "pvc-a", mark]).expect("it is a path");
            assert_eq!(worker.make_directory(&path).await, Ok(Made::Made), "{mark}");
        }
    }));
    let state = || site.volumes().expect("the records can be read")["pvc-a"]["state"].clone();
    assert_eq!(state(), "creating");
    let _serving = site.serve(&[]).expect("it serves again");
    assert_eq!(refused(site.ask(&["expand", "pvc-a", "--size", "2Gi"])).code, "Aborted");
    assert_eq!(refused(site.ask(&["validate", "pvc-a"])).code, "NotFound");
    site.ask(&create("pvc-a")).expect("pith csi runs").expect("it is made");
    assert_eq!(state(), "ready");
    // It is one mark more, and a volume that grows takes its readiness along.
    assert_eq!(marks("pvc-a").len(), 5);
    site.ask(&["expand", "pvc-a", "--size", "2Gi"]).expect("pith csi runs").expect("it grows");
    let volumes = BTreeSet::from(["pvc-a", "pvc-b"].map(String::from));
    check_exactly(&site, &scratch.secrets(), &volumes);
}

#[test]
fn a_volume_without_its_record_is_reported() {
    let scratch = Scratch::new();
    let site = Site::new(NO_QUOTA, "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    site.ask(&["create", "pvc-a"]).expect("pith csi runs").expect("it is made");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(with_worker(&scratch.secrets(), async |worker: &Worker| {
        let record = Path::of([".pith", "volumes", "pvc-a", "record"]).expect("it is a path");
        assert_eq!(worker.remove(&record).await, Ok(true));
    }));
    let problem = "the record /.pith/volumes/pvc-a/record: it is not there, and its volume is";
    for call in [["create", "pvc-a"], ["delete", "pvc-a"]] {
        let refusal = refused(site.ask(&call));
        assert_eq!((refusal.code.as_str(), refusal.sentence.as_str()), ("FailedPrecondition", problem));
    }
    assert_eq!(site.volumes().expect("the records can be read")["pvc-a"]["problem"], problem);
}

#[test]
fn a_deleted_volume_lies_in_the_trash_and_its_name_is_free() {
    let scratch = Scratch::new();
    let site = Site::new(QUOTA, "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    for _ in 0..2 {
        site.ask(&["create", "pvc-a", "--size", "1Gi"]).expect("pith csi runs").expect("it is made");
        let other_size = refused(site.ask(&["create", "pvc-a", "--size", "5Gi"]));
        assert_eq!(other_size.code, "AlreadyExists");
        for _ in 0..2 {
            site.ask(&["delete", "pvc-a"]).expect("pith csi runs").expect("it is deleted");
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let tree = runtime.block_on(tree(&scratch.secrets()));
    let trash = directories(&tree, &[".pith", "trash"]);
    assert_eq!(trash.len(), 2, "{trash:?}");
    for name in trash {
        let left = directories(&tree, &[".pith", "trash", &name]);
        assert_eq!(left, BTreeSet::from(["data", "paths", "record"].map(String::from)), "{name}");
    }
}

#[test]
fn a_naming_policy_names_once_and_its_refusal_is_final() {
    let scratch = Scratch::new();
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {unit: retail}}\n";
    let claim = |name: &str, labels: &str| {
        format!(
            "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{namespace: shop, name: {name}, uid: u-{name}, \
             labels: {labels}}}\nspec: {{accessModes: [ReadWriteMany], storageClassName: juicefs, resources: {{requests: \
             {{storage: 1Gi}}}}}}\n"
        )
    };
    let objects = format!("{namespace}{}{}", claim("data", "{tier: hot}"), claim("bare", "{}"));
    let policies = |template: &str| {
        format!(
            "{NO_QUOTA}policies:\n- name: by-unit\n  module: {{file: {}}}\n  settings: {{template: {template}, \
             onCollision: refuse}}\n",
            wasm_builds::policy("naming").display()
        )
    };
    let first = policies("['{namespaceLabels.unit}', '{claim}-{labels.tier}']");
    let site = Site::new(&first, &objects, &scratch.secrets()).expect("a site");
    let serving = site.serve(&[]).expect("it serves");
    let create = |name: &str, claim: &str| site.ask(&["create", name, "--size", "1Gi", "--claim", claim]);
    let made = create("pvc-1", "shop/data").expect("pith csi runs").expect("it is made");
    assert_eq!(made["context"]["subPath"], "retail/data-hot");
    assert_eq!(site.volumes().expect("the records can be read")["pvc-1"]["namedBy"], json!({"policy": "by-unit"}));
    let denied = refused(create("pvc-2", "shop/bare"));
    assert!(denied.sentence.starts_with("policy `by-unit` refuses the volume: "), "{denied:?}");
    assert!(!denied.may_pass(), "a policy's refusal is final: {denied:?}");
    let taken = refused(create("pvc-3", "shop/data"));
    assert_eq!(taken.code, "FailedPrecondition", "{taken:?}");
    let unknown = refused(create("pvc-4", "shop/missing"));
    assert!(unknown.sentence.contains("the claim `shop/missing` is not known to Pith yet"), "{unknown:?}");

    // Another answer of the policy moves no volume that is there.
    serving.kill().expect("it can be killed");
    let config = std::fs::read_to_string(site.path().join("pith.yaml")).expect("it is there");
    let config = config.replace(&first, &policies("['{claim}']"));
    std::fs::write(site.path().join("pith.yaml"), config).expect("written");
    let _serving = site.serve(&[]).expect("it serves again");
    assert_eq!(create("pvc-1", "shop/data").expect("pith csi runs").expect("it is found"), made);
}

#[test]
fn the_size_is_a_quota_that_grows_with_it() {
    let scratch = Scratch::new();
    let site = Site::new(QUOTA, "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    site.ask(&["create", "pvc-a", "--size", "1Gi"]).expect("pith csi runs").expect("it is made");
    let quota = || scratch.run(&["quota", "get", "META", "--path", "/pvc-a"]);
    assert!(quota().contains("1.0 GiB"), "{}", quota());
    site.ask(&["expand", "pvc-a", "--size", "3Gi"]).expect("pith csi runs").expect("it grows");
    assert!(quota().contains("3.0 GiB"), "{}", quota());
}
