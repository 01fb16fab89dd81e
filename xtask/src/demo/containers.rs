//! The injected containers, run as a kubelet would: sidecars, init containers, the application.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::file_system::FileSystem;
use super::fixtures::{self, FileSystemSecret};
use super::kubelet::{self, Container, Secrets, items};
use super::node::Node;
use super::{Demo, STEPS};
use crate::command::both;
use crate::terminal::{Step, Style, indented, paint, seconds};

/// What the application writes, and where in its volume.
const WRITTEN: (&str, &str) =
    ("summer/tent.svg", "<svg xmlns=\"http://www.w3.org/2000/svg\"><path d=\"M0 9 5 0l5 9z\"/></svg>\n");

/// Runs the containers of an injected pod, the sidecars before the others, and stops them.
pub(super) fn run(demo: &Demo, file_system: &FileSystem, pod: &Value) -> Result<()> {
    let step = Step::start(6, STEPS, "The injected containers, run as a kubelet would");
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("default");
    let secrets = claim_secrets(demo, namespace, pod)?;
    let node = Node::start(&demo.folder.join("node"), &demo.client, &demo.state())?;
    for volume in items(&pod["spec"]["volumes"]) {
        if let (Some(name), true) = (volume["name"].as_str(), volume["emptyDir"].is_object()) {
            node.add_volume(name)?;
        }
    }

    let mut sidecars = Vec::new();
    for spec in items(&pod["spec"]["initContainers"]) {
        let container = kubelet::container(pod, spec, &secrets)?;
        if !container.sidecar {
            run_init_container(&node, &container)?;
            continue;
        }
        indented(&format!("{}  {}", paint(Style::Heading, &container.name), own_argv(spec)));
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
    write_and_read_back(demo, &node, file_system, pod, &application)?;
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
fn claim_secrets(demo: &Demo, namespace: &str, pod: &Value) -> Result<Secrets> {
    let file_system = FileSystemSecret::read(&demo.folder)?;
    let mut secrets = Secrets::new();
    for volume in items(&pod["spec"]["volumes"]) {
        if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
            let volume = fixtures::volume(namespace, claim)?;
            let data = BTreeMap::from([
                ("metaurl".to_string(), file_system.get("metaurl")?.to_string()),
                ("meta-password".to_string(), file_system.get("meta-password")?.to_string()),
                ("subdir".to_string(), format!("/{}", volume.directory)),
            ]);
            secrets.insert(format!("pith-{}", volume.claim_uid), data);
        }
    }
    Ok(secrets)
}

/// Writes as the application would, and looks for it where it must be: in the volume's directory of the file system.
fn write_and_read_back(
    demo: &Demo,
    node: &Node,
    file_system: &FileSystem,
    pod: &Value,
    application: &Container,
) -> Result<()> {
    let mounts = |read_only| application.mounts.iter().find(move |mount| mount.read_only == read_only);
    let (writable, refused) = (mounts(false), mounts(true));
    let writable = writable.with_context(|| format!("`{}` has no volume that it may write", application.name))?;
    let (name, text) = WRITTEN;
    let path = format!("{}/{name}", writable.path);
    let done = write(node, application, &path, text)?;
    ensure!(done.status.success(), "`{}` could not write {path}: {}", application.name, both(&done));
    let who = paint(Style::Heading, &application.name);
    indented(&format!("{who}  as uid {}, wrote {} bytes to {path}", application.user, text.len()));
    if let Some(mount) = refused {
        let path = format!("{}/tent.svg", mount.path);
        let done = write(node, application, &path, text)?;
        ensure!(!done.status.success(), "`{}` could write {path}, which is read-only", application.name);
        indented(&format!(
            "  and was refused on the read-only volume: {}",
            both(&done).lines().last().unwrap_or_default()
        ));
    }

    let claim = claim_behind(pod, &writable.volume).context("no claim belongs to the application's volume")?;
    let volume = fixtures::volume(pod["metadata"]["namespace"].as_str().unwrap_or("default"), claim)?;
    let copy = demo.folder.join("read-back");
    file_system.get(&volume.directory, &copy)?;
    let read = fs::read_to_string(copy.join(name))
        .with_context(|| format!("/{}/{name} is not in JuiceFS", volume.directory))?;
    ensure!(read == text, "/{}/{name} holds something else than was written", volume.directory);
    let second = paint(Style::Heading, "second client");
    indented(&format!(
        "{second}  without the mount, read the same {} bytes from /{}/{name}",
        read.len(),
        volume.directory
    ));
    Ok(())
}

/// `tee` is what every image has that can write what it is told.
fn write(node: &Node, application: &Container, path: &str, text: &str) -> Result<std::process::Output> {
    let argv = ["tee", path].map(String::from).to_vec();
    node.run_container(&application.with_argv(argv), text)
}

/// The claim whose volume the sidecar of this emptyDir mounts, as the injected status says.
fn claim_behind<'a>(pod: &'a Value, volume: &str) -> Option<&'a str> {
    let sidecar = items(&pod["spec"]["initContainers"]).iter().find(|container| {
        let mounts = items(&container["volumeMounts"]).iter();
        container["restartPolicy"] == "Always" && mounts.clone().any(|mount| mount["name"] == volume)
    })?;
    let secret = items(&sidecar["env"]).iter().find_map(|entry| entry["valueFrom"]["secretKeyRef"]["name"].as_str())?;
    let namespace = pod["metadata"]["namespace"].as_str()?;
    items(&pod["spec"]["volumes"])
        .iter()
        .filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str())
        .find(|claim| {
            fixtures::volume(namespace, claim).is_ok_and(|volume| secret == format!("pith-{}", volume.claim_uid))
        })
}

/// The argv as it stands in the pod: what is secret is still a reference.
fn own_argv(spec: &Value) -> String {
    let words = items(&spec["command"]).iter().filter_map(Value::as_str);
    words.collect::<Vec<_>>().join(" ")
}
