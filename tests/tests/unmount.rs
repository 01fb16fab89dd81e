//! Unmounting, tried for real: however a pod's client, its guard, its metadata engine or the node's programs end, the pod goes in
//! time, nothing of it stays on the node, and no application is shown an empty directory in the place of its volume.
//!
//! Every case is a pod of its own, and all run at once. Each application appends a number to a file, syncs it, and notes what it
//! was told in a folder of this machine, so that its notes outlive the pod.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pith_tests::cluster::{CLUSTER, Cluster, Namespace, static_volume};
use pith_tests::juicefs::CLIENT;
use pith_tests::redis::Redis;
use pith_tests::server::Server;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{GUARD, driver, file_system_for_pods, of_sidecar, said, yaml};
use crate::harness::Own;

/// `terminationGracePeriodSeconds` of every pod.
const GRACE: Duration = Duration::from_secs(5);
/// What a pod may take longer than that: two seconds that the kubelet gives each container at least, and what it needs itself.
const BOUND: Duration = Duration::from_secs(30);
/// How long a pod may hang that needs a cleaner: the kubelet looks at its volume more and more seldom.
const CLEANED: Duration = Duration::from_secs(150);
/// The namespace of Pith, in which cleaner pods run.
const PITH: &str = "pith-system";
/// What command lines of clients and guards have.
const JUICEFS: &str = "juicefs mount";
const GUARDS: &str = "pith-guard hold";
/// What is said of a mount that nobody serves.
const DEAD: &str = "Transport endpoint is not connected";

/// Appends numbers until it is told to end, and once more a second later.
const WRITES: &str = r#"
note() { read up rest </proc/uptime; echo "$up $*" >>/notes/log; }
append() { said=$(echo "$2" | dd of="$1/synced" oflag=append conv=notrunc,fsync status=none 2>&1) && note "synced $1 $2" || note "refused $1 $2: $said"; }
exec 3>>/data/open
number=0
while [ -z "$told" ]; do
  number=$((number + 1))
  for volume in $VOLUMES; do append $volume $number; done
  echo $number >&3 || note "handle refused"
  sleep 0.1
done 2>/dev/null
sleep 1
for volume in $VOLUMES; do append $volume last; done
"#;

/// What a pod's application does when it is told to end.
#[derive(Clone, Copy, PartialEq)]
enum Application {
    /// It writes once more, and ends.
    Obeys,
    /// It goes on.
    Ignores,
}

/// What is done to a pod.
type Harm<'a> = Box<dyn Fn(&Trial<'_>) -> Result<()> + Sync + 'a>;

/// A case: what is special about its pod, and what is done to it.
struct Case<'a> {
    name: &'static str,
    application: Application,
    volumes: &'static [&'static str],
    /// The directory of its volumes that the application's container mounts; empty for all of it.
    sub_path: &'static str,
    /// The client's image, where it is not the one that there is.
    image: Option<&'static str>,
    engine: Engine<'a>,
    /// Whether the application starts at all.
    starts: bool,
    /// Before the pod is deleted.
    before: Harm<'a>,
    /// Once its deletion was asked for.
    after: Harm<'a>,
    /// Whether the application must have synced its last number, which it does a second after it was told to end.
    says_goodbye: bool,
    /// What the application must have been told instead of an answer.
    refused: Option<&'static str>,
    /// How long its pod may take to go.
    patience: Duration,
}

/// Where the metadata is.
#[derive(Clone, Copy)]
enum Engine<'a> {
    Shared,
    Own(&'a Redis),
}

/// The pod of a case, once it is there.
struct Trial<'a> {
    stage: &'a Stage,
    name: &'a str,
    uid: String,
    notes: PathBuf,
}

/// What came of a case.
struct Outcome {
    name: &'static str,
    gone_after: Duration,
    gap: Duration,
    refused: BTreeSet<String>,
    handle_refused: bool,
    wrong: Vec<String>,
}

/// A client that is not of a pod, mounted at a place of its own on the node. It ends when dropped.
struct Another {
    cluster: &'static Cluster,
    client: Child,
    place: TempDir,
}

impl Drop for Another {
    fn drop(&mut self) {
        let _ = self.cluster.node_command(Path::new("umount")).arg("--lazy").arg(self.place.path()).status();
        let _ = self.client.wait();
    }
}

/// What the cases of one cluster share.
struct Stage {
    cluster: &'static Cluster,
    namespace: Namespace,
    engine: Redis,
    notes: TempDir,
    _webhook: Server,
}

/// A case in which nothing is special but what is done before the pod is deleted.
fn case<'a>(name: &'static str, before: impl Fn(&Trial<'_>) -> Result<()> + Sync + 'a) -> Case<'a> {
    Case {
        name,
        application: Application::Obeys,
        volumes: &["data"],
        sub_path: "",
        image: None,
        engine: Engine::Shared,
        starts: true,
        before: Box::new(before),
        after: Box::new(|_| Ok(())),
        says_goodbye: true,
        refused: None,
        patience: GRACE + BOUND,
    }
}

/// As [`case`], where the volume is gone for good before the application is told to end.
fn broken<'a>(name: &'static str, before: impl Fn(&Trial<'_>) -> Result<()> + Sync + 'a) -> Case<'a> {
    Case { says_goodbye: false, ..case(name, before) }
}

/// As [`broken`], where the pod hangs until the controller has seen it and a cleaner pod has unmounted what was left.
fn cleaned<'a>(name: &'static str, before: impl Fn(&Trial<'_>) -> Result<()> + Sync + 'a) -> Case<'a> {
    let after = |trial: &Trial<'_>| {
        sleep(GRACE);
        ensure!(!trial.mounts()?.is_empty(), "nothing is mounted: no cleaner is needed");
        trial.until("an event about the cleaner", || {
            let events = trial.stage.cluster.events(&trial.stage.namespace.name, trial.name).unwrap_or_default();
            events.iter().any(|event| event.contains("unmounts what JuiceFS left on the node"))
        })
    };
    Case { after: Box::new(after), patience: CLEANED, ..broken(name, before) }
}

impl Stage {
    /// `sidecar` is what is configured of sidecars beside their images.
    fn set(cluster: &'static Cluster, cases: &[Case<'_>], sidecar: &Value) -> Result<Stage> {
        let engine = file_system_for_pods(cluster);
        let namespace = cluster.namespace("unmount", &json!({"juicefs.com/enable-injection": "true"}))?;
        let name = &*namespace.name;
        let mut objects = vec![driver()];
        for (case, volume) in claims(cases) {
            let directory = format!("{}-{volume}", case.name);
            let [mut persistent, mut claim] = static_volume(name, &directory);
            persistent["spec"]["csi"]["volumeAttributes"] = json!({"subPath": directory});
            persistent["spec"]["csi"]["nodePublishSecretRef"] = json!({"namespace": name, "name": case.name});
            if let Some(image) = case.image {
                claim["metadata"]["annotations"] = json!({"juicefs/mount-image": image});
            }
            objects.extend([persistent, claim]);
        }
        for case in cases {
            let engine = match case.engine {
                Engine::Shared => &engine,
                Engine::Own(engine) => engine,
            };
            objects.push(json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": name, "name": case.name},
                "stringData": {"name": "pods", "metaurl": engine.secrets()["metaurl"]},
            }));
        }
        cluster.apply(&yaml(&objects))?;
        for (case, volume) in claims(cases) {
            cluster.wait(name, "jsonpath={.status.phase}=Bound", &format!("pvc/{}-{volume}", case.name))?;
        }
        let mut config = of_sidecar();
        json_patch::merge(&mut config, sidecar);
        config["claimOverrides"] = json!(["juicefs/mount-image"]);
        // Long enough to see that a pod hangs without it.
        let cleaner = json!({"namespace": PITH, "serviceAccount": "pith-cleaner", "image": GUARD, "after": "8s"});
        let config = format!("sidecar: {config}\ncontroller: {{cleaner: {cleaner}}}\n");
        let webhook = Server::start_following(cluster, &config, &cluster.kubeconfig_of_pith("pith-controller")?)?;
        cluster.show_log(&webhook.folder.path().join("log"));
        cluster.register(name, &webhook)?;
        cluster.kubectl(&["label", "namespace", name, &format!("pith.test/webhook={name}")])?;
        let stage = Stage { cluster, engine, notes: tempfile::tempdir()?, _webhook: webhook, namespace };
        let pod = stage.pod(&cases[0]);
        stage.cluster.until_injected(&stage.namespace.name, &pod, "pith-")?;
        Ok(stage)
    }

    fn pod(&self, case: &Case<'_>) -> Value {
        let mounts = case
            .volumes
            .iter()
            .map(|volume| json!({"name": volume, "mountPath": format!("/{volume}"), "subPath": case.sub_path}));
        let volumes = case.volumes.iter().map(
            |volume| json!({"name": volume, "persistentVolumeClaim": {"claimName": format!("{}-{volume}", case.name)}}),
        );
        let notes = self.notes.path().join(case.name);
        let paths: Vec<String> = case.volumes.iter().map(|volume| format!("/{volume}")).collect();
        let trap = match case.application {
            Application::Obeys => "trap 'told=yes' TERM",
            Application::Ignores => "trap '' TERM",
        };
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": self.namespace.name, "name": case.name},
            "spec": {
                "terminationGracePeriodSeconds": GRACE.as_secs(),
                "containers": [{
                    "name": "app", "image": "docker.io/pith/app:0.1.0", "imagePullPolicy": "Never",
                    "command": ["sh", "-c", format!("{trap}\n{WRITES}")],
                    "env": [{"name": "VOLUMES", "value": paths.join(" ")}],
                    "volumeMounts": mounts.chain([json!({"name": "notes", "mountPath": "/notes"})]).collect::<Vec<_>>(),
                }],
                "volumes": volumes
                    .chain([json!({"name": "notes", "hostPath": {"path": notes, "type": "DirectoryOrCreate"}})])
                    .collect::<Vec<_>>(),
            },
        })
    }

    fn check(&self, case: &Case<'_>) -> Result<Outcome> {
        let (cluster, namespace) = (self.cluster, &*self.namespace.name);
        let pod = self.pod(case);
        let created = cluster.kubectl_with(&["create", "-f", "-", "--output=json"], &pod.to_string())?;
        let created: Value = serde_json::from_str(&created)?;
        let uid = created["metadata"]["uid"].as_str().context("a uid")?.to_string();
        let trial = Trial { stage: self, name: case.name, uid, notes: self.notes.path().join(case.name).join("log") };
        if case.starts {
            cluster.wait(namespace, "condition=Ready", &format!("pod/{}", case.name))?;
            trial.until_synced(3)?;
        }
        (case.before)(&trial)?;
        let deleted = Instant::now();
        cluster.kubectl(&["delete", "pod", case.name, "--namespace", namespace, "--wait=false"])?;
        (case.after)(&trial)?;
        let timeout = format!("--timeout={}s", case.patience.as_secs());
        let gone = cluster.try_kubectl(
            &["wait", "--for=delete", &format!("pod/{}", case.name), "--namespace", namespace, &timeout],
            "",
        )?;
        let gone_after = deleted.elapsed();
        let mut wrong = Vec::new();
        if !gone.status.success() {
            wrong.push(format!("the pod hangs: {}", said(&gone)));
        }
        wrong.extend(trial.mounts()?.into_iter().map(|mount| format!("still mounted: {mount}")));
        wrong.extend(trial.processes("").into_iter().map(|(process, line)| format!("still runs: {process} {line}")));
        if let Engine::Own(engine) = case.engine {
            engine.freeze(false)?;
            engine.refuse(false)?;
        }
        let noted = trial.noted();
        for volume in case.volumes {
            let kept = self.read_back(case, volume)?;
            let lines: BTreeSet<&str> = kept.lines().collect();
            let synced = noted.iter().filter_map(|(_, it)| it.strip_prefix(&format!("synced /{volume} ")));
            let lost: Vec<&str> = synced.filter(|number| !lines.contains(number)).collect();
            if !lost.is_empty() {
                wrong.push(format!("synced and lost in {volume}: {lost:?}"));
            }
            if case.says_goodbye && !lines.contains("last") {
                wrong.push(format!("the application could not write to {volume} before it ended"));
            }
        }
        let told = noted.iter().filter(|(_, it)| it.starts_with("refused"));
        let refused: BTreeSet<String> = told.filter_map(|(_, it)| it.rsplit(": ").next().map(String::from)).collect();
        if let Some(expected) = case.refused
            && !refused.contains(expected)
        {
            wrong.push(format!("the application was not told `{expected}`, but {refused:?}"));
        }
        let times: Vec<f64> = noted.iter().filter(|(_, it)| it.starts_with("synced")).map(|(time, _)| *time).collect();
        let gap = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        Ok(Outcome {
            name: case.name,
            gone_after,
            gap: Duration::from_secs_f64(gap),
            refused,
            handle_refused: noted.iter().any(|(_, it)| it == "handle refused"),
            wrong,
        })
    }

    /// What is in the file, by a client that knows nothing of the pod.
    fn read_back(&self, case: &Case<'_>, volume: &str) -> Result<String> {
        let engine = match case.engine {
            Engine::Shared => &self.engine,
            Engine::Own(engine) => engine,
        };
        let folder = tempfile::tempdir()?;
        let mut client = self.cluster.command(&CLIENT);
        client.env("META", &engine.secrets()["metaurl"]).args(["sync", "--quiet"]);
        let written = format!("jfs://META/{}-{volume}/{}", case.name, case.sub_path);
        client.args([format!("{}/", written.trim_end_matches('/')), format!("{}/", folder.path().display())]);
        let output = client.output()?;
        ensure!(output.status.success(), "{}", said(&output));
        Ok(fs::read_to_string(folder.path().join("synced")).unwrap_or_default())
    }
}

fn claims<'a>(cases: &'a [Case<'a>]) -> impl Iterator<Item = (&'a Case<'a>, &'static str)> {
    cases.iter().flat_map(|case| case.volumes.iter().map(move |volume| (case, *volume)))
}

impl Trial<'_> {
    /// The FUSE mounts of the pod on the node.
    fn mounts(&self) -> Result<Vec<String>> {
        let mounts = self.stage.cluster.mounts()?;
        let of_pod = mounts.lines().filter(|line| line.contains(&self.uid) && line.contains(" - fuse"));
        Ok(of_pod.map(String::from).collect())
    }

    /// The pod's processes whose command line has this, by their numbers on this machine.
    fn processes(&self, what: &str) -> Vec<(i32, String)> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("a /proc").flatten() {
            let Ok(process) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let cgroup = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if cgroup.contains(&self.uid) && line.contains(what) {
                found.push((process, line));
            }
        }
        found.sort();
        found
    }

    /// The process of the client that serves the mount: the one that another of its processes has started.
    fn serving(&self) -> Result<i32> {
        let processes: Vec<i32> = self.processes(JUICEFS).into_iter().map(|(process, _)| process).collect();
        let parent = |process: &i32| {
            let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
            status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<i32>().ok())
        };
        let serving = processes.iter().find(|process| parent(process).is_some_and(|it| processes.contains(&it)));
        serving.copied().with_context(|| format!("no client serves: {processes:?}"))
    }

    /// Sends a signal to every process of the pod with this in its command line.
    fn signal(&self, what: &str, signal: Signal) -> Result<()> {
        let processes = self.processes(what);
        ensure!(!processes.is_empty(), "no process of {} has {what}", self.name);
        processes.into_iter().try_for_each(|(process, _)| send(process, signal))
    }

    fn noted(&self) -> Vec<(f64, String)> {
        let text = fs::read_to_string(&self.notes).unwrap_or_default();
        let notes = text.lines().filter_map(|line| line.split_once(' '));
        notes.filter_map(|(time, what)| Some((time.parse().ok()?, what.to_string()))).collect()
    }

    /// Waits until so many more numbers are synced.
    fn until_synced(&self, more: usize) -> Result<()> {
        let count = || self.noted().iter().filter(|(_, it)| it.starts_with("synced")).count();
        let goal = count() + more;
        self.until("the application has synced", || count() >= goal)
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
        self.stage
            .cluster
            .until(&self.stage.namespace.name, &format!("{}: {what}", self.name), || Ok(holds().then_some(())))
    }

    /// Kills the whole container of a volume's client, as often as this, and waits for the application to go on each time.
    fn kill_client(&self, volume: &str, times: usize) -> Result<()> {
        let of_client = || {
            let mut processes = self.processes(JUICEFS);
            processes.retain(|(_, line)| line.trim_end().ends_with(&format!("/jfs/{volume}")));
            processes
        };
        let count =
            |what: &str| self.noted().iter().filter(|(_, it)| it.starts_with(&format!("{what} /{volume} "))).count();
        for _ in 0..times {
            let refused = count("refused");
            for (process, _) in of_client() {
                send(process, Signal::KILL)?;
            }
            self.until("the application was refused", || count("refused") > refused)?;
            let synced = count("synced");
            self.until("the application has gone on", || count("synced") > synced)?;
        }
        Ok(())
    }

    /// Binds the pod's volume over itself, as a client that is none of the pod's has mounted it elsewhere on the node and goes on
    /// serving it: the kubelet removes the directory of an emptyDir with all that it sees in it.
    fn mount_another(&self) -> Result<Another> {
        let mounts = self.mounts()?;
        let point = mounts.first().and_then(|line| line.split(' ').nth(4)).context("a mount point")?;
        let cluster = self.stage.cluster;
        let place = tempfile::tempdir()?;
        let mut client = cluster.node_command(&CLIENT);
        client.args(["mount", "--no-usage-report", "--cache-dir=memory", &format!("--subdir=/{}-data", self.name)]);
        // The pod's client has just appended to the same file.
        client.args(["--attr-cache=0", "--entry-cache=0"]);
        client.arg(&self.stage.engine.secrets()["metaurl"]).arg(place.path()).stderr(Stdio::null());
        let another = Another { cluster, client: client.spawn()?, place };
        let file = another.place.path().join("synced");
        let sees =
            || cluster.node_command(Path::new("test")).arg("-f").arg(&file).status().is_ok_and(|it| it.success());
        self.until("another client", sees)?;
        let bound =
            cluster.node_command(Path::new("mount")).arg("--bind").arg(another.place.path()).arg(point).output()?;
        ensure!(bound.status.success(), "{}", said(&bound));
        ensure!(self.mounts()?.len() > mounts.len(), "it is not mounted there");
        Ok(another)
    }

    /// Kills every container at once, so that nothing in the pod can unmount any more.
    fn kill_all(&self) -> Result<()> {
        let processes = self.processes("/").into_iter().filter(|(_, line)| !line.contains("/pause"));
        processes.into_iter().try_for_each(|(process, _)| send(process, Signal::KILL))
    }
}

/// Sends a signal to a process, which may have ended meanwhile.
fn send(process: i32, signal: Signal) -> Result<()> {
    match kill_process(Pid::from_raw(process).context("a process")?, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn run(stage: &Stage, cases: &[Case<'_>]) -> Vec<Outcome> {
    scope(|scope| {
        let running: Vec<_> = cases.iter().map(|case| (case.name, scope.spawn(move || stage.check(case)))).collect();
        let outcomes = running.into_iter().map(|(name, it)| {
            let outcome = it.join().expect("it does not panic");
            outcome.unwrap_or_else(|error| Outcome {
                name,
                gone_after: Duration::ZERO,
                gap: Duration::ZERO,
                refused: BTreeSet::new(),
                handle_refused: false,
                wrong: vec![format!("{error:#}")],
            })
        });
        outcomes.collect()
    })
}

#[expect(clippy::print_stdout, reason = "the times are for whoever keeps them in the documents")]
fn show(outcomes: &[Outcome]) {
    for it in outcomes {
        println!(
            "{:<40} gone after {:>5.1} s, longest gap {:>5.1} s, refused {:?}{}",
            it.name,
            it.gone_after.as_secs_f64(),
            it.gap.as_secs_f64(),
            it.refused,
            if it.handle_refused { ", open handle refused" } else { "" },
        );
    }
    let wrong: Vec<String> =
        outcomes.iter().flat_map(|it| it.wrong.iter().map(move |wrong| format!("{}: {wrong}", it.name))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn however_a_pod_ends_nothing_of_it_stays_and_nothing_synced_is_lost() {
    let cluster = &*CLUSTER;
    let engines = [(); 4].map(|()| file_system_for_pods(cluster));
    let [at_start, midway, ignored, refuses] = &engines;
    let another = Mutex::new(None);
    let cases = [
        case("deleted", |_| Ok(())),
        Case { application: Application::Ignores, ..broken("application-ignores-sigterm", |_| Ok(())) },
        // What starts it again keeps the connection, and the mount with it.
        case("server-killed", |trial| {
            send(trial.serving()?, Signal::KILL)?;
            trial.until_synced(10)
        }),
        // It goes when nobody uses the volume any more.
        case("client-told-to-end", |trial| {
            trial.signal(JUICEFS, Signal::TERM)?;
            trial.until_synced(10)
        }),
        // The guard covers the dead mount, so that the kubelet can start the client again.
        Case { refused: Some(DEAD), ..case("client-killed-once", |trial| trial.kill_client("data", 1)) },
        Case { refused: Some(DEAD), ..case("client-killed-three-times", |trial| trial.kill_client("data", 3)) },
        Case {
            refused: Some(DEAD),
            ..broken("client-killed-and-deleted", |trial| trial.signal(JUICEFS, Signal::KILL))
        },
        // The kubelet has bound a directory of the mount that is gone: the application has to be started again.
        Case {
            sub_path: "inner",
            refused: Some(DEAD),
            ..broken("client-killed-with-subpath", |trial| {
                trial.signal(JUICEFS, Signal::KILL)?;
                trial.until("the application was refused", || {
                    trial.noted().iter().any(|(_, it)| it.starts_with("refused"))
                })
            })
        },
        broken("client-stopped", |trial| trial.signal(JUICEFS, Signal::STOP)),
        Case {
            image: Some("docker.io/pith/missing:1"),
            starts: false,
            ..broken("client-image-missing", |trial| {
                let (cluster, namespace) = (trial.stage.cluster, &trial.stage.namespace.name);
                trial.until("the kubelet says so", || {
                    let events = cluster.events(namespace, trial.name).unwrap_or_default();
                    events.iter().any(|event| event.contains("ImagePull"))
                })
            })
        },
        Case {
            engine: Engine::Own(at_start),
            starts: false,
            ..broken("engine-hangs-at-start", |trial| {
                trial.until("the client waits for it", || !trial.processes(JUICEFS).is_empty())
            })
        },
        Case { engine: Engine::Own(midway), ..broken("engine-hangs-midway", |_| midway.freeze(true)) },
        Case { engine: Engine::Own(refuses), ..broken("engine-refuses-midway", |_| refuses.refuse(true)) },
        Case {
            engine: Engine::Own(ignored),
            application: Application::Ignores,
            ..broken("engine-hangs-and-sigterm-is-ignored", |_| ignored.freeze(true))
        },
        Case {
            volumes: &["data", "more"],
            refused: Some(DEAD),
            ..case("one-of-two-clients-killed", |trial| trial.kill_client("more", 1))
        },
        case("client-alive-at-the-end", |trial| {
            *another.lock().expect("nobody panicked") = Some(trial.mount_another()?);
            trial.until_synced(3)
        }),
        case("guard-killed", |trial| trial.signal(GUARDS, Signal::KILL)),
        // Nothing in the pod can help these: they are what the cleaner is for. A guard that was started again sees the mount
        // itself and not the directory below, so it can mount something on it, but not unmount it for the node.
        cleaned("guard-killed-and-then-client", |trial| {
            let killed = trial.processes(GUARDS);
            trial.signal(GUARDS, Signal::KILL)?;
            trial.until("another guard", || {
                let guards = trial.processes(GUARDS);
                !guards.is_empty() && guards.iter().all(|guard| !killed.contains(guard))
            })?;
            trial.kill_client("data", 1)
        }),
        cleaned("guard-killed-and-client-stopped", |trial| {
            trial.signal(GUARDS, Signal::KILL)?;
            trial.signal(JUICEFS, Signal::STOP)
        }),
        cleaned("everything-killed", |trial| trial.kill_all()),
    ];
    let stage = Stage::set(cluster, &cases, &json!({})).expect("a stage");
    // It was needed to make the file system.
    at_start.freeze(true).expect("it stops");
    show(&run(&stage, &cases));
    let gone = || Ok(cluster.kubectl(&["get", "pods", "--namespace", PITH, "--output=name"])?.is_empty().then_some(()));
    cluster.until(PITH, "the end of the cleaner pods", gone).expect("they go with the pods that they were for");
}

/// As on clusters without native sidecars: all containers start in their order and are told to end at once, and the guard waits for
/// the application until the pod's time is nearly over.
#[test]
fn plain_containers_leave_nothing_either_and_no_application_is_ever_shown_the_bare_directory() {
    let cluster = &*CLUSTER;
    let engine = file_system_for_pods(cluster);
    let cases = [
        case("plain-containers", |_| Ok(())),
        Case { volumes: &["data", "more"], ..case("plain-containers-with-two-volumes", |_| Ok(())) },
        Case { application: Application::Ignores, ..broken("plain-containers-and-sigterm-is-ignored", |_| Ok(())) },
        // The next client is mounted on the stand-in, so the application does not keep its mount when it ends first.
        Case { refused: Some(DEAD), ..broken("plain-containers-client-killed", |trial| trial.kill_client("data", 1)) },
        broken("plain-containers-client-stopped", |trial| trial.signal(JUICEFS, Signal::STOP)),
        // The kubelet starts the application when the guard has waited long enough, and it meets the cover.
        Case {
            engine: Engine::Own(&engine),
            starts: false,
            ..broken("plain-containers-engine-hangs-at-start", |trial| {
                trial.until("the client waits for it", || !trial.processes(JUICEFS).is_empty())?;
                // It opens a file first of all, and ends where it cannot.
                trial.until("the application was refused", || {
                    let refused =
                        "jsonpath={.status.containerStatuses[?(@.name==\"app\")].lastState.terminated.exitCode}";
                    let pod =
                        ["get", "pod", trial.name, "--namespace", &trial.stage.namespace.name, "--output", refused];
                    trial.stage.cluster.kubectl(&pod).is_ok_and(|code| !matches!(&*code, "" | "0"))
                })
            })
        },
    ];
    let stage = Stage::set(cluster, &cases, &json!({"shape": "container"})).expect("a stage");
    engine.freeze(true).expect("it stops");
    show(&run(&stage, &cases));
}

#[test]
fn a_pod_that_is_deleted_while_a_program_of_the_node_starts_again_goes_as_well() {
    let own = Own::of("unmount");
    own.xtask("up", &["node"]);
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::find(&own.name).expect("it runs")));
    let cases = [
        case("kubelet-killed", |trial| {
            own.kill("kubelet");
            trial.until_synced(3)
        }),
        // The kubelet asks containerd for a command only when it has found it again.
        case("containerd-killed", |trial| {
            own.kill("containerd");
            let pod = ["exec", trial.name, "--namespace", &trial.stage.namespace.name, "--container=app", "--", "true"];
            trial.until("the kubelet reaches containerd", || cluster.kubectl(&pod).is_ok())?;
            trial.until_synced(3)
        }),
        // A kubelet that cannot tell the application to end lets the sidecars wait for it, and does not tell it again before it ends
        // them: it may be cut off, and what it has synced is there.
        Case {
            after: Box::new(|_| {
                (0..3).for_each(|_| own.kill("containerd"));
                Ok(())
            }),
            ..broken("containerd-away", |_| {
                own.kill("containerd");
                Ok(())
            })
        },
    ];
    let stage = Stage::set(cluster, &cases, &json!({})).expect("a stage");
    // One after the other: each is a harm to the other's pod.
    let outcomes: Vec<Outcome> = cases.iter().flat_map(|case| run(&stage, std::slice::from_ref(case))).collect();
    drop((cases, stage));
    own.xtask("down", &[]);
    show(&outcomes);
}
