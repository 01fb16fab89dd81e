//! `cargo xtask cluster`: a real Kubernetes on this machine, for the tests and for people who try something out.
//!
//! ```text
//! up ── builds the programs ── starts a keeper in namespaces of its own ── waits ── applies what every cluster has
//!                                      │ the first process in them (keep)
//!                                      ├─ etcd ─ kube-apiserver ─ kube-controller-manager, kube-scheduler    control
//!                                      ├─ csi-provisioner, csi-resizer, csi-snapshotter, snapshot-controller csi
//!                                      └─ containerd, kubelet, kube-proxy                                    node
//! down ── kills the keeper: processes, network and mounts go with it ── removes cgroups and the folder
//! ```
//!
//! The network namespace is what a test enters to reach the API server, and what keeps clusters apart: each has the same addresses.

mod cgroups;
mod fuse;
mod keep;
mod parts;
mod place;
pub(crate) mod programs;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use self::parts::NODE;
pub(crate) use self::parts::Tier;
pub(crate) use self::place::Place;
use self::place::{Keeper, PartState, PartStatus, Wanted};
use self::programs::Programs;
use crate::command::{POLL, capture, run, spawn};
use crate::images;
use crate::terminal::{Style, paint, seconds, table};
use crate::workspace::{relative, root};

/// The cluster of the end-to-end tests, which know it by this name.
const TESTS: &str = "tests";
/// How long the parts may take to be ready: the machines of CI are small and shared.
const READY: Duration = Duration::from_secs(180);
/// How long the kernel may take to end a cluster's processes.
const END: Duration = Duration::from_secs(30);

#[derive(Subcommand)]
pub(crate) enum Action {
    /// Builds the programs into the cache folder, where they are not there yet. The first time takes a quarter of an hour.
    Build {
        /// What for; all of it by default.
        #[arg(value_enum)]
        tiers: Vec<Tier>,
    },
    /// Starts a cluster, or what is not there of one that runs, and waits until it is ready.
    Up {
        #[command(flatten)]
        which: Which,
        /// What is to run; the control plane always does.
        #[arg(value_enum)]
        tiers: Vec<Tier>,
        /// More container images to load into the node: OCI archives, as `cargo xtask images` makes them. Those of pause, of the
        /// JuiceFS client and of an application are made and loaded anyway.
        #[arg(long, value_name = "FILE")]
        image: Vec<PathBuf>,
    },
    /// Ends a cluster and removes everything of it: processes, mounts, network, cgroups and its folder.
    Down {
        #[command(flatten)]
        which: Which,
        /// Every cluster of this checkout.
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// Shows the clusters of this checkout, and how each of their parts is.
    Status {
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Prints what a shell needs to use a cluster: eval "$(cargo xtask cluster env)".
    Env {
        #[command(flatten)]
        which: Which,
    },
    /// Runs a command inside: on the cluster's network, with its mounts and among its processes.
    Exec {
        #[command(flatten)]
        which: Which,
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Prints what the parts wrote.
    Logs {
        #[command(flatten)]
        which: Which,
        /// One part only, such as kubelet; `keeper` is what starts the others.
        part: Option<String>,
        /// Go on printing.
        #[arg(short, long)]
        follow: bool,
    },
    /// The first process of a cluster.
    #[command(hide = true)]
    Keep {
        /// The cluster.
        name: String,
    },
}

/// Which cluster.
#[derive(Args)]
pub(crate) struct Which {
    /// The cluster's name: several can run at once.
    #[arg(long, default_value = "dev")]
    name: String,
}

/// How a status is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Starts the cluster that the end-to-end tests share.
pub(crate) fn up_for_tests() -> Result<()> {
    up(&Place::named(TESTS)?, Tier::value_variants(), &[])
}

/// Ends it.
pub(crate) fn down_after_tests() -> Result<()> {
    down(&Place::named(TESTS)?)
}

/// Starts a cluster of this name, with these images beside its own.
pub(crate) fn start(name: &str, tiers: &[Tier], archives: &[PathBuf]) -> Result<Place> {
    let place = Place::named(name)?;
    up(&place, tiers, archives)?;
    Ok(place)
}

/// Ends a cluster, if there is one of this name.
pub(crate) fn end(name: &str) -> Result<()> {
    down(&Place::named(name)?)
}

/// Does what was asked.
pub(crate) fn run_action(action: Action) -> Result<()> {
    match action {
        Action::Build { tiers } => build(if tiers.is_empty() { Tier::value_variants() } else { &tiers }),
        Action::Up { which, tiers, image } => up(&Place::named(&which.name)?, &tiers, &image),
        Action::Down { all: true, .. } => Place::all()?.iter().try_for_each(down),
        Action::Down { which, .. } => down(&Place::named(&which.name)?),
        Action::Status { output } => status(output),
        Action::Env { which } => env(&Place::named(&which.name)?),
        Action::Exec { which, command } => exec(&Place::named(&which.name)?, &command),
        Action::Logs { which, part, follow } => logs(&Place::named(&which.name)?, part.as_deref(), follow),
        Action::Keep { name } => keep::keep(&Place::named(&name)?, &programs::version()?),
    }
}

fn build(tiers: &[Tier]) -> Result<()> {
    let started = Instant::now();
    let programs = programs::build(tiers)?;
    for folder in &programs.folders {
        println!("{}", folder.display());
    }
    if tiers == Tier::value_variants() {
        println!("{}", programs::driver()?.display());
    }
    println!("{}", paint(Style::Faint, format!("[{}]", seconds(started.elapsed()))));
    Ok(())
}

/// Starts what is wanted and does not run, and waits for all of it.
fn up(place: &Place, tiers: &[Tier], archives: &[PathBuf]) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "a cluster has namespaces and mounts of its own: run this as root");
    let _lock = place.lock()?;
    let mut tiers: BTreeSet<Tier> = tiers.iter().copied().chain([Tier::Control]).collect();
    if place.keeper()?.is_some() {
        tiers.extend(place.wanted().tiers);
    }
    let tiers: Vec<Tier> = tiers.into_iter().collect();
    let programs = programs::build(&tiers)?;
    let mut images = if tiers.contains(&Tier::Node) { images::for_a_node()? } else { Vec::new() };
    let mut driver = None;
    if tiers.contains(&Tier::Node) && place.name() == TESTS {
        driver = Some(programs::driver()?);
        images.extend(images::for_the_driver()?);
    }
    images.extend_from_slice(archives);

    let started = Instant::now();
    let names: Vec<&str> = tiers.iter().map(|tier| tier.name()).collect();
    println!("{}", paint(Style::Heading, format!("cluster `{}`: {}", place.name(), names.join(", "))));
    place.make()?;
    if let Some(driver) = driver {
        link(&driver, &place.folder().join("bin/juicefs-csi-driver"))?;
    }
    place.set_wanted(&Wanted { tiers: tiers.clone(), path: path_of(&programs) })?;
    if place.keeper()?.is_none() {
        start_keeper(place, &programs)?;
    }
    wait_ready(place, &tiers, started)?;
    settle(place, &programs, &tiers, &images, started)?;
    println!(
        "ready after {}; to use it: eval \"$(cargo xtask cluster env{})\"",
        seconds(started.elapsed()),
        said(place)
    );
    Ok(())
}

/// A link, which may be there and point elsewhere.
fn link(program: &Path, place: &Path) -> Result<()> {
    fs::create_dir_all(place.parent().unwrap_or(place)).with_context(|| format!("making {}", place.display()))?;
    if place.is_symlink() {
        fs::remove_file(place).with_context(|| format!("removing {}", place.display()))?;
    }
    std::os::unix::fs::symlink(program, place).with_context(|| format!("making {}", place.display()))
}

fn start_keeper(place: &Place, programs: &Programs) -> Result<()> {
    // What an earlier keeper said is true no more.
    place.set_status(&place::Status::default())?;
    let log = File::create(place.log("keeper")).context("making the keeper's log")?;
    let own = std::env::current_exe().context("finding this program")?.display().to_string();
    // What Linux adds where cargo has built it anew meanwhile: that one is as good.
    let own = own.trim_end_matches(" (deleted)");
    let mut keeper = Command::new("setsid");
    // Killing either of the two, `unshare` and the first process in the namespaces, ends everything.
    keeper.args([
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--propagation",
        "private",
    ]);
    keeper.arg(own).args(["cluster", "keep", place.name()]).current_dir(root());
    keeper.env_clear().env("PATH", path_of(programs)).env("HOME", "/root");
    let mut child = spawn(keeper.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log))?;
    let deadline = Instant::now() + END;
    loop {
        if let Some(keeper) = Keeper::of(child.id()).filter(|_| locked(place)) {
            return place.set_keeper(&keeper);
        }
        if let Some(status) = child.try_wait().context("waiting for the keeper")? {
            bail!("the keeper ended ({status}):\n{}", tail(&place.log("keeper")));
        }
        ensure!(Instant::now() < deadline, "the keeper did not start:\n{}", tail(&place.log("keeper")));
        sleep(POLL);
    }
}

/// Whether a keeper runs.
fn locked(place: &Place) -> bool {
    place.keep().is_ok_and(|lock| lock.is_none())
}

fn wait_ready(place: &Place, tiers: &[Tier], started: Instant) -> Result<()> {
    let deadline = Instant::now() + READY;
    let mut told = BTreeSet::new();
    loop {
        let parts = place.status().parts;
        for part in parts.iter().filter(|part| part.state == PartState::Ready) {
            if told.insert(part.name.clone()) {
                println!("     {:<24} {}", part.name, paint(Style::Faint, seconds(started.elapsed())));
            }
        }
        let all_there = tiers.iter().all(|tier| parts.iter().any(|part| part.tier == *tier));
        // What has no way to say that it is ready was started once, which is all that can be waited for.
        if all_there && parts.iter().all(|part| part.state == PartState::Ready || told.contains(&part.name)) {
            return Ok(());
        }
        if !locked(place) {
            bail!("the keeper ended:\n{}", tail(&place.log("keeper")));
        }
        if Instant::now() > deadline {
            let late: Vec<&PartStatus> = parts.iter().filter(|part| part.state != PartState::Ready).collect();
            let logs = late.iter().map(|part| format!("{}:\n{}", part.name, tail(&place.log(&part.name))));
            bail!("not ready after {}\n{}", seconds(READY), logs.collect::<Vec<_>>().join("\n"));
        }
        sleep(POLL);
    }
}

/// What every cluster has, applied again each time: it is the same afterwards.
fn settle(place: &Place, programs: &Programs, tiers: &[Tier], images: &[PathBuf], started: Instant) -> Result<()> {
    for name in ["kubectl", "helm"] {
        let program = programs.folders.iter().map(|folder| folder.join(name)).find(|it| it.is_file());
        write_client(place, name, &program.with_context(|| format!("{name} belongs to the control plane"))?)?;
    }
    let kubectl = |arguments: &[&str]| capture(Command::new(place.folder().join("bin/kubectl")).args(arguments));
    let objects = config_folder().join("objects.yaml");
    for file in [&programs.kinds, &objects] {
        kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &file.display().to_string()])?;
    }
    // Pods of a namespace without it are refused.
    kubectl(&["wait", "--for=create", "serviceaccount/default", "--timeout=60s"])?;
    if tiers.contains(&Tier::Node) {
        for image in images {
            let mut import = place.inside("ctr")?;
            capture(
                import
                    .env("PATH", path_of(programs))
                    .args(["--namespace", "k8s.io", "images", "import"])
                    .arg(absolute(image)?),
            )?;
        }
        kubectl(&["wait", "--for=create", &format!("node/{NODE}"), "--timeout=60s"])?;
        wait_for_node(&kubectl)?;
        println!("     {:<24} {}", format!("node {NODE}"), paint(Style::Faint, seconds(started.elapsed())));
    }
    Ok(())
}

/// Waits until the kubelet that runs now says that its node is ready: what one before it said stays as it was.
fn wait_for_node(kubectl: &dyn Fn(&[&str]) -> Result<String>) -> Result<()> {
    // To the second, as the kubelet writes it, by the same clock.
    let now = capture(Command::new("date").args(["--utc", "+%Y-%m-%dT%H:%M:%SZ"]))?;
    let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")]['status','lastHeartbeatTime']}"#;
    let deadline = Instant::now() + READY;
    loop {
        let said = kubectl(&["get", "node", NODE, "--output", ready])?;
        if said.strip_prefix("True ").is_some_and(|heartbeat| heartbeat.trim() >= now.trim()) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the node is not ready: its kubelet says `{}`", said.trim());
        sleep(POLL);
    }
}

/// A client on the cluster's network, whose API server listens nowhere else.
fn write_client(place: &Place, name: &str, program: &Path) -> Result<()> {
    let keeper = place.running()?;
    let file = place.folder().join("bin").join(name);
    let script = format!(
        "#!/bin/sh\n# {name} on the network of the cluster `{}`.\nKUBECONFIG='{}' exec nsenter --target {} --net -- '{}' \"$@\"\n",
        place.name(),
        place.kubeconfig().display(),
        keeper.process,
        program.display()
    );
    fs::create_dir_all(place.folder().join("bin")).with_context(|| format!("making the folder of {name}"))?;
    fs::write(&file, script).with_context(|| format!("writing {}", relative(&file)))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).with_context(|| format!("making {name} executable"))
}

/// Where the programs are found.
fn path_of(programs: &Programs) -> String {
    let folders = programs.folders.iter().map(|folder| folder.display().to_string());
    folders.chain(["/usr/sbin:/usr/bin:/sbin:/bin".to_string()]).collect::<Vec<_>>().join(":")
}

/// Ends a cluster, running or not, and checks that nothing of it is left.
fn down(place: &Place) -> Result<()> {
    let _lock = place.lock()?;
    if !place.folder().is_dir() {
        println!("there is no cluster `{}`", place.name());
        return Ok(());
    }
    let started = Instant::now();
    let keeper = place.last_keeper();
    let running = place.keeper()?;
    // Whoever is gone gives its numbers to the next: held, those of the namespaces stay this cluster's.
    let held = running.as_ref().map(Keeper::hold).transpose()?;
    let is_held = held.is_some();
    let left = || keeper.as_ref().map_or_else(|| Ok(Vec::new()), |it| inhabitants(place, it, is_held));
    let processes = left()?;
    if let Some(keeper) = &running {
        [keeper.process, keeper.outer].into_iter().try_for_each(kill)?;
    }
    let deadline = Instant::now() + END;
    loop {
        let left = left()?;
        if left.is_empty() && !locked(place) {
            break;
        }
        ensure!(Instant::now() < deadline, "processes of the cluster `{}` do not end: {left:?}", place.name());
        // Not all are the keeper's: somebody's kubectl may wait on the cluster's network for what will never come.
        left.into_iter().try_for_each(kill)?;
        sleep(POLL);
    }
    // What is mounted there goes with them.
    drop(held);
    fuse::abort_orphans(&place.connections())?;
    let cgroups = cgroups::remove(&place.cgroup())?;
    fs::remove_dir_all(place.folder()).with_context(|| format!("removing {}", relative(place.folder())))?;
    println!(
        "cluster `{}` is gone: {} processes ended, {cgroups} cgroups removed {}",
        place.name(),
        processes.len(),
        paint(Style::Faint, format!("[{}]", seconds(started.elapsed())))
    );
    Ok(())
}

/// Kills a process; one that has ended meanwhile is as well.
fn kill(process: u32) -> Result<()> {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).context("the number of a process")?;
    let _ = kill_process(process, Signal::KILL);
    Ok(())
}

/// The processes in a cluster's own namespaces. Containers have some of their own, and end with these.
///
/// Where nobody holds these, their numbers may be another's by now, another cluster's say: then only the keeper counts, with which all
/// others of its PID namespace end, and who speaks of the cluster's folder.
fn inhabitants(place: &Place, keeper: &Keeper, held: bool) -> Result<Vec<u32>> {
    let folder = format!("{}/", place.folder().display());
    let speaks_of_it = |process: u32| {
        let said = |file| fs::read(format!("/proc/{process}/{file}")).unwrap_or_default();
        ["cmdline", "environ"].into_iter().any(|file| String::from_utf8_lossy(&said(file)).contains(&folder))
    };
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("reading /proc")? {
        let Ok(process) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let within = place::namespaces(process).iter().any(|it| keeper.namespaces.contains(it));
        if within && (held || process == keeper.process || speaks_of_it(process)) {
            found.push(process);
        }
    }
    Ok(found)
}

fn status(output: Output) -> Result<()> {
    let mut clusters = Vec::new();
    for place in Place::all()? {
        let running = place.keeper()?;
        let parts = if running.is_some() { place.status().parts } else { Vec::new() };
        clusters.push((place, running, parts));
    }
    if output == Output::Json {
        let clusters = clusters.iter().map(|(place, running, parts)| {
            json!({"name": place.name(), "folder": place.folder(), "keeper": running, "parts": parts})
        });
        println!("{:#}", Value::from_iter(clusters));
        return Ok(());
    }
    if clusters.is_empty() {
        println!("there is no cluster: `cargo xtask cluster up` starts one");
    }
    for (place, running, parts) in clusters {
        let state = if running.is_some() { "runs" } else { "does not run" };
        println!("{}", paint(Style::Heading, format!("{}: {state}, in {}", place.name(), relative(place.folder()))));
        let rows = parts.iter().map(|part| {
            let state = match part.state {
                PartState::Waiting => "waiting",
                PartState::Starting => "starting",
                PartState::Ready => "ready",
            };
            let end =
                part.last_end.as_ref().map(|end| format!("started again {} times, last end: {end}", part.restarts));
            vec![format!("     {}", part.name), part.tier.name().into(), state.into(), end.unwrap_or_default()]
        });
        println!("{}", table(&rows.collect::<Vec<_>>()));
    }
    Ok(())
}

fn env(place: &Place) -> Result<()> {
    place.running()?;
    println!("export PATH='{}':\"$PATH\"", place.folder().join("bin").display());
    println!("export KUBECONFIG='{}'", place.kubeconfig().display());
    println!("# `kubectl` and `helm` are now on the cluster's network. Other programs get there by");
    println!("#   cargo xtask cluster exec{} -- PROGRAM", said(place));
    Ok(())
}

fn exec(place: &Place, command: &[String]) -> Result<()> {
    let (program, arguments) = command.split_first().context("no command")?;
    run(place.inside(program)?.env("KUBECONFIG", place.kubeconfig()).args(arguments))
}

fn logs(place: &Place, part: Option<&str>, follow: bool) -> Result<()> {
    let logs = match part {
        Some(part) => vec![place.log(part)],
        None => {
            let entries = fs::read_dir(place.folder().join("log"));
            let entries = entries.with_context(|| format!("there is no cluster `{}`", place.name()))?;
            let mut logs: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|it| it.is_file()).collect();
            logs.sort();
            logs
        }
    };
    let mut tail = Command::new("tail");
    tail.args(if follow { ["--lines=20", "--follow=name"].as_slice() } else { &["--lines=+1"] });
    run(tail.args(logs))
}

/// How a command names a cluster that is not the usual one.
fn said(place: &Place) -> String {
    if place.name() == "dev" { String::new() } else { format!(" --name {}", place.name()) }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("{} is not there", path.display()))
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// The folder of what the parts are configured with.
fn config_folder() -> PathBuf {
    root().join("tests/cluster/config")
}

fn config(name: &str) -> Result<String> {
    let file = config_folder().join(name);
    fs::read_to_string(&file).with_context(|| format!("reading {}", relative(&file)))
}
