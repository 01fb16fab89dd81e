//! The injected containers, run as a kubelet would: sidecars, init containers, the application.

use std::collections::BTreeMap;
use std::fs;
use std::process::Output;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::file_system::FileSystem;
use super::fixtures::{Claim, FileSystemSecret};
use super::kubelet::{self, Container, Mount, Secrets, items};
use super::node::Node;
use super::volumes::{Volume, Volumes};
use super::{Demo, STEPS};
use crate::command::{POLL, both};
use crate::terminal::{Step, Style, bytes, indented, paint, seconds};

/// The container that unmounts what clients leave behind. These processes have no image that it could be in, and end in order.
const GUARD: &str = "pith-guard";
/// What the application writes, and where in its volume.
const WRITTEN: (&str, &str) =
    ("summer/tent.svg", "<svg xmlns=\"http://www.w3.org/2000/svg\"><path d=\"M0 9 5 0l5 9z\"/></svg>\n");
/// What it fills its volume with.
const LARGE: &str = "archive.tar";
/// How much of the volume is left free for `df` to tell.
const MARGIN: u64 = 1 << 20;
/// How long `df` may lag behind: clients tell the metadata engine every few seconds what was used.
const LAG: Duration = Duration::from_secs(15);
/// What EDQUOT is called.
const OVER_QUOTA: &str = "Disk quota exceeded";

/// Runs the containers of an injected pod, the sidecars before the others, and stops them.
pub(super) fn run(demo: &Demo, file_system: &FileSystem, volumes: &Volumes, pod: &Value) -> Result<()> {
    let step = Step::start(7, STEPS, "The injected containers, run as a kubelet would");
    let secrets = claim_secrets(&file_system.secret, volumes, pod)?;
    let node = Node::start(&demo.folder.join("node"), &demo.client, &demo.state())?;
    for volume in items(&pod["spec"]["volumes"]) {
        if let (Some(name), true) = (volume["name"].as_str(), volume["emptyDir"].is_object()) {
            node.add_volume(name)?;
        }
    }

    let mut sidecars = Vec::new();
    for spec in items(&pod["spec"]["initContainers"]) {
        if spec["name"] == GUARD {
            indented(&format!(
                "{}  left out: it would only unmount what a client left behind",
                paint(Style::Heading, GUARD)
            ));
            continue;
        }
        let container = kubelet::container(pod, spec, &secrets)?;
        if !container.sidecar {
            run_init_container(&node, &container)?;
            continue;
        }
        indented(&format!("{}  {}", paint(Style::Heading, &container.name), own_argv(spec)));
        if let Some(directory) = container.env.get("SUBDIR") {
            indented(&format!("  the Secret of its claim says SUBDIR={directory}"));
        }
        let (running, started) = node.start_container(container)?;
        if let Some(started) = started {
            let probe = items(&spec["startupProbe"]["exec"]["command"]).iter().filter_map(Value::as_str);
            let probe = probe.collect::<Vec<_>>().join(" ");
            let tries = format!("after {}, at try {}", seconds(started.after), started.tries);
            indented(&format!("  its startup probe `{probe}` succeeded {tries}"));
        }
        sidecars.push(running);
    }

    let application = items(&pod["spec"]["containers"]).first().context("the pod has no container")?;
    let application = kubelet::container(pod, application, &secrets)?;
    let place = writable(pod, &application)?;
    write_and_read_back(demo, &node, file_system, &application, &place, volumes)?;
    if let Some(volume) = volumes.of(&place.claim) {
        fill(&node, &application, place.mount, volume)?;
    }
    // The kubelet stops sidecars in the opposite order.
    while let Some(sidecar) = sidecars.pop() {
        let name = sidecar.name().to_string();
        indented(&format!("{name} stopped in {}", seconds(node.stop_container(sidecar)?)));
    }
    let left = node.juicefs_mounts()?;
    ensure!(left.is_empty(), "still mounted after the sidecars stopped:\n{}", left.join("\n"));
    indented("nothing stayed mounted, neither in the pod's namespace nor on this machine");
    step.end();
    Ok(())
}

fn run_init_container(node: &Node, container: &Container) -> Result<()> {
    let done = node.run_container(container, "")?;
    ensure!(done.status.success(), "the init container `{}` failed: {}", container.name, both(&done));
    let argv = container.argv.join(" ");
    indented(&format!("{}  {argv}", paint(Style::Heading, &container.name)));
    indented(&format!("  the pod's own init container, as uid {}: {}", container.user, done.status));
    Ok(())
}

/// The Secrets that Pith's reconciler writes in a cluster, one for each claim.
fn claim_secrets(file_system: &FileSystemSecret, volumes: &Volumes, pod: &Value) -> Result<Secrets> {
    let mut secrets = Secrets::new();
    for claim in claims(pod)? {
        let data = BTreeMap::from([
            ("METAURL".to_string(), file_system.get("metaurl")?.to_string()),
            ("META_PASSWORD".to_string(), file_system.get("meta-password")?.to_string()),
            ("SUBDIR".to_string(), format!("/{}", volumes.directory(&claim)?.trim_start_matches('/'))),
        ]);
        secrets.insert(format!("pith-{}", claim.uid()?), data);
    }
    Ok(secrets)
}

/// The claims that a pod names.
fn claims(pod: &Value) -> Result<Vec<Claim>> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("default");
    let volumes = items(&pod["spec"]["volumes"]).iter();
    let names = volumes.filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str());
    names.map(|name| Claim::read(namespace, name)).collect()
}

/// Where the application may write.
struct Place<'a> {
    mount: &'a Mount,
    claim: Claim,
}

fn writable<'a>(pod: &Value, application: &'a Container) -> Result<Place<'a>> {
    let mount = application.mounts.iter().find(|mount| !mount.read_only);
    let mount = mount.with_context(|| format!("`{}` has no volume that it may write", application.name))?;
    let claim = claim_behind(pod, &mount.volume)?.context("no claim belongs to the application's volume")?;
    Ok(Place { mount, claim })
}

/// Writes as the application would, and looks for it where it must be: in the volume's directory of the file system.
fn write_and_read_back(
    demo: &Demo,
    node: &Node,
    file_system: &FileSystem,
    application: &Container,
    place: &Place<'_>,
    volumes: &Volumes,
) -> Result<()> {
    let (name, text) = WRITTEN;
    let path = format!("{}/{name}", place.mount.path);
    let done = write(node, application, &path, text)?;
    ensure!(done.status.success(), "`{}` could not write {path}: {}", application.name, both(&done));
    let who = paint(Style::Heading, &application.name);
    indented(&format!("{who}  as uid {}, wrote {} bytes to {path}", application.user, text.len()));
    if let Some(mount) = application.mounts.iter().find(|mount| mount.read_only) {
        let path = format!("{}/tent.svg", mount.path);
        let done = write(node, application, &path, text)?;
        ensure!(!done.status.success(), "`{}` could write {path}, which is read-only", application.name);
        indented(&format!("  and was refused on the read-only volume: {}", last_line(&done)));
    }

    let directory = volumes.directory(&place.claim)?;
    let copy = demo.folder.join("read-back");
    file_system.get(directory, &copy)?;
    let read = fs::read_to_string(copy.join(name)).with_context(|| format!("{directory}/{name} is not in JuiceFS"))?;
    ensure!(read == text, "{directory}/{name} holds something else than was written");
    let second = paint(Style::Heading, "second client");
    indented(&format!("{second}  without the mount, read the same {} bytes from {directory}/{name}", read.len()));
    Ok(())
}

/// Fills the volume as the application would, until it is stopped, which must be where `df` says.
fn fill(node: &Node, application: &Container, mount: &Mount, volume: &Volume) -> Result<()> {
    let who = paint(Style::Heading, &application.name);
    let size = volume.capacity();
    let told = Space::of(node, application, &mount.path)?.size;
    ensure!(told == size, "`df` says that {} has {told} bytes, and the volume was made with {size}", mount.path);
    indented(&format!("{who}  `df {}` says {}, the size of the volume", mount.path, bytes(told)));

    let file = format!("{}/{LARGE}", mount.path);
    let most = size.saturating_sub(MARGIN);
    let done = allocate(node, application, &file, 0, most)?;
    ensure!(done.status.success(), "`{}` could not write {} to {file}: {}", application.name, bytes(most), both(&done));
    let left = left_after(node, application, &mount.path, most)?;
    indented(&format!("  wrote {} to {file}, after which `df` has {} left", bytes(most), bytes(left)));

    let done = allocate(node, application, &file, most, left + 1)?;
    let over = !done.status.success() && both(&done).contains(OVER_QUOTA);
    ensure!(over, "`{}` was not stopped by the quota of {}: {}", application.name, mount.path, both(&done));
    indented(&format!("  {} more are refused: {}", bytes(left + 1), last_line(&done)));
    let done = allocate(node, application, &file, most, left)?;
    ensure!(done.status.success(), "{} more were refused: {}", bytes(left), both(&done));
    indented(&format!("  {} more are written: it is full where `df` said", bytes(left)));
    Ok(())
}

/// Makes room for so many bytes of a file from there on, which counts like writing them and takes no time.
fn allocate(node: &Node, application: &Container, file: &str, from: u64, length: u64) -> Result<Output> {
    let (from, length) = (from.to_string(), length.to_string());
    let argv = ["fallocate", "--offset", &from, "--length", &length, file].map(String::from).to_vec();
    node.run_container(&application.with_argv(argv), "")
}

/// What is free once `df` has seen that so much was written.
fn left_after(node: &Node, application: &Container, path: &str, written: u64) -> Result<u64> {
    let deadline = Instant::now() + LAG;
    loop {
        let space = Space::of(node, application, path)?;
        if space.used >= written {
            return Ok(space.free);
        }
        ensure!(Instant::now() < deadline, "`df` has not seen after {} s what was written to {path}", LAG.as_secs());
        sleep(POLL);
    }
}

/// What `df` says, in bytes.
struct Space {
    size: u64,
    used: u64,
    free: u64,
}

impl Space {
    fn of(node: &Node, application: &Container, path: &str) -> Result<Space> {
        let argv = ["df", "--block-size=1", "--output=size,used,avail", path].map(String::from).to_vec();
        let said = node.run_container(&application.with_argv(argv), "")?;
        let line = last_line(&said);
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [size, used, free] = numbers[..] else { bail!("`df {path}` said: {}", both(&said)) };
        Ok(Space { size, used, free })
    }
}

fn last_line(said: &Output) -> String {
    both(said).lines().last().unwrap_or_default().to_string()
}

/// `tee` is what every image has that can write what it is told.
fn write(node: &Node, application: &Container, path: &str, text: &str) -> Result<Output> {
    let argv = ["tee", path].map(String::from).to_vec();
    node.run_container(&application.with_argv(argv), text)
}

/// The claim whose volume the sidecar of this emptyDir mounts: the one that its Secret belongs to.
fn claim_behind(pod: &Value, volume: &str) -> Result<Option<Claim>> {
    let sidecar = items(&pod["spec"]["initContainers"]).iter().find(|container| {
        let mounts = items(&container["volumeMounts"]).iter();
        let serves = container["restartPolicy"] == "Always" && container["name"] != GUARD;
        serves && mounts.clone().any(|mount| mount["name"] == volume)
    });
    let environment = sidecar.map(|sidecar| items(&sidecar["env"])).unwrap_or_default();
    let secret = environment.iter().find_map(|entry| entry["valueFrom"]["secretKeyRef"]["name"].as_str());
    let uid = secret.and_then(|name| name.strip_prefix("pith-"));
    Ok(claims(pod)?.into_iter().find(|claim| claim.uid().ok() == uid && uid.is_some()))
}

/// The argv as it stands in the pod: what is secret is still a reference.
fn own_argv(spec: &Value) -> String {
    let words = items(&spec["command"]).iter().filter_map(Value::as_str);
    words.collect::<Vec<_>>().join(" ")
}
