//! `cargo xtask demo`: the main job on this machine, in nine steps from real parts.
//!
//! Nothing that is printed is made up: every value is read from what the step did. The state lies in target/demo and is wiped
//! at the start; what deploy/demo holds is for the reader to edit.

mod containers;
mod file_system;
mod fixtures;
pub(crate) mod in_cluster;
mod kubelet;
mod node;
mod review;
mod server;
mod show;
mod volumes;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use self::file_system::FileSystem;
use self::fixtures::{FileSystemSecret, Pod};
use self::kubelet::items;
pub(crate) use self::node::lacking;
use self::review::{Answer, ApiServer};
use self::server::{Server, leftover};
use crate::command::{both, capture, output};
use crate::terminal::{Step, Style, indented, paint, seconds, table};
use crate::workspace::{pith, relative, target, variable};
use crate::{policies, tools};

/// How many steps there are.
const STEPS: usize = 9;

/// What the steps share.
struct Demo {
    /// target/demo.
    folder: PathBuf,
    /// The JuiceFS client.
    client: PathBuf,
    /// The `pith` binary.
    pith: PathBuf,
}

/// Runs the steps.
pub(crate) fn run() -> Result<()> {
    let started = Instant::now();
    println!(
        "Pith, the main job on one machine: claims and pods get JuiceFS volumes, decided by WebAssembly policies."
    );
    let demo = prepare()?;
    build_policies(&demo)?;
    let file_system = format(&demo)?;
    let server = serve(&demo)?;
    let volumes = volumes::make(&demo, &server, &file_system)?;
    let injected = post(&demo, &server)?;
    match lacking()? {
        None => containers::run(&demo, &file_system, &volumes, &injected)?,
        Some(what) => println!("\nStep 7 is left out: it mounts with FUSE, and this machine lacks {what}."),
    }
    volumes::delete(&demo, &server, &file_system, &volumes)?;
    stop(server)?;
    try_next(&demo);
    println!("\n{}", paint(Style::Good, format!("Done in {}.", seconds(started.elapsed()))));
    Ok(())
}

fn prepare() -> Result<Demo> {
    let step = Step::start(1, STEPS, "What it needs");
    let folder = target().join("demo");
    leftover::end(&folder)?;
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("wiping {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;

    let rust = capture(Command::new("rustc").arg("--version"))?;
    let added = tools::rust_target(policies::TARGET)?;
    let client = tools::juicefs()?;
    // The configuration names the client by this link, as it lies elsewhere on each machine.
    symlink(&client, folder.join("juicefs")).context("linking the JuiceFS client")?;
    if !target().join("debug/pith").exists() {
        indented("building Pith (minutes, the first time)");
    }
    let pith = pith()?;
    let version = capture(Command::new(&pith).arg("--version"))?;
    let target = format!("{}{}", policies::TARGET, if added { " (added)" } else { "" });
    indented(&table(&rows([
        ["Rust", rust.trim().trim_start_matches("rustc "), ""],
        ["its target", &target, ""],
        ["JuiceFS client", &tools::juicefs_version(&client)?, &from_home(&client)],
        ["Pith", version.trim().trim_start_matches("pith "), &relative(&pith)],
    ])));
    step.end();
    Ok(Demo { folder, client, pith })
}

/// A path as people write one below their home.
fn from_home(path: &Path) -> String {
    let home = variable("HOME").unwrap_or_default();
    match path.strip_prefix(&home) {
        Ok(rest) if !home.is_empty() => format!("~/{}", rest.display()),
        _ => path.display().to_string(),
    }
}

/// One item of `pith policy inspect -o json`.
#[derive(Deserialize)]
struct Inspected {
    file: PathBuf,
    bytes: u64,
    digest: String,
    hooks: Vec<String>,
}

fn build_policies(demo: &Demo) -> Result<()> {
    let step = Step::start(2, STEPS, "The policies, compiled to WebAssembly");
    let files = policies::build()?;
    let mut inspect = Command::new(&demo.pith);
    let inspected = capture(inspect.args(["policy", "inspect", "--output", "json"]).args(&files))?;
    let inspected: Vec<Inspected> =
        serde_json::from_str(&inspected).context("reading what `pith policy inspect` says")?;
    let row = |policy: &Inspected| {
        let size = format!("{:.1} KiB", policy.bytes as f64 / 1024.0);
        vec![relative(&policy.file), size, shortened(&policy.digest), policy.hooks.join(", ")]
    };
    let heading = rows([["file", "size", "digest", "hooks"]]);
    indented(&table(&heading.into_iter().chain(inspected.iter().map(row)).collect::<Vec<_>>()));
    step.end();
    Ok(())
}

fn format(demo: &Demo) -> Result<FileSystem> {
    let step = Step::start(3, STEPS, "A JuiceFS file system: SQLite metadata and a local folder");
    let secret = FileSystemSecret::read(&demo.folder)?;
    let state = demo.state();
    fs::create_dir_all(&state).with_context(|| format!("making {}", state.display()))?;
    let file_system = FileSystem::format(&demo.client, secret)?;
    indented(&format!("formatted `{}` in {}", file_system.name()?, relative(&state)));

    for (claim, folder) in fixtures::files()? {
        if let Some(directory) = claim.bound_directory() {
            file_system.put(&folder, directory)?;
            indented(&format!("copied {} to /{directory}, which is a volume made by hand", relative(&folder)));
        }
    }
    step.end();
    Ok(file_system)
}

fn serve(demo: &Demo) -> Result<Server> {
    let step = Step::start(4, STEPS, "Webhook and CSI controller, with objects from a folder");
    let started = Instant::now();
    let server = Server::start(&demo.pith, &demo.folder)?;
    let (webhook, admin) = (server.addresses.webhook, server.addresses.admin);
    let rights = fs::metadata(&server.socket).context("looking at the CSI socket")?.permissions().mode() & 0o777;
    ensure!(rights == 0o600, "the CSI socket has the mode {rights:o}: others may have volumes deleted");
    indented(&format!("`pith serve` (process {}) was ready after {}", server.id(), seconds(started.elapsed())));
    indented(&table(&rows([
        ["admission", &format!("https://{webhook}/mutate"), "TLS, certificate made by itself"],
        ["CSI", &relative(&server.socket), "a Unix socket, for its owner only"],
        ["health, metrics", &format!("http://{admin}"), "/livez /readyz /metrics"],
        ["configuration", &relative(&fixtures::configuration()), ""],
        ["objects", &relative(&fixtures::folder().join("objects")), "edit them and run the demo again"],
        ["log", &relative(&demo.folder.join("pith.log")), ""],
    ])));
    step.end();
    Ok(server)
}

/// Stops the server, after the step that needed it last.
fn stop(server: Server) -> Result<()> {
    let (process, started) = (server.id(), Instant::now());
    let workers = server.stop()?;
    let took = seconds(started.elapsed());
    let workers = workers.iter().map(u32::to_string).collect::<Vec<_>>().join(" and ");
    println!();
    indented(&format!(
        "`pith serve` (process {process}) stopped in {took}, and its worker (process {workers}) with it"
    ));
    Ok(())
}

/// One item of `pith inject --explain -o json`.
#[derive(Deserialize)]
struct Explained {
    outcome: String,
    patch: Value,
    volumes: Vec<ExplainedVolume>,
    policies: Vec<PolicyCall>,
}

#[derive(Deserialize)]
struct ExplainedVolume {
    volume: String,
    claim: String,
    values: Vec<ExplainedValue>,
}

#[derive(Deserialize)]
struct ExplainedValue {
    field: String,
    value: String,
    origin: String,
}

#[derive(Deserialize)]
struct PolicyCall {
    binding: String,
    hook: String,
    outcome: String,
    micros: f64,
}

/// Posts the three pods. The answer is the first one, as the webhook made it.
fn post(demo: &Demo, server: &Server) -> Result<Value> {
    let step = Step::start(6, STEPS, "Three pods, as an API server would send them");
    let api_server = ApiServer::new(server)?;
    let injected = post_injected(demo, &api_server)?;
    post_exempt(demo, &api_server)?;
    post_refused(demo, &api_server)?;
    step.end();
    Ok(injected)
}

fn post_injected(demo: &Demo, api_server: &ApiServer) -> Result<Value> {
    let pod = Pod::read("web.yaml")?;
    let answer = api_server.create(&pod, "5f0e1c1a-0000-4000-8000-000000000001")?;
    ensure!(answer.allowed, "`{}` was refused: {}", pod.name(), answer.message.unwrap_or_default());
    heading(&pod, Style::Good, &format!("injected in {}", seconds(answer.duration)));
    let mut injected = pod.object.clone();
    let patch: json_patch::Patch = serde_json::from_value(answer.patch.clone()).context("reading the patch")?;
    json_patch::patch(&mut injected, &patch).context("applying the patch")?;
    indented(&show::diff(&pod.object, &injected));
    println!();

    let explained = explain(demo, &pod)?;
    ensure!(explained.outcome == "inject", "offline, `{}` is not injected but `{}`", pod.name(), explained.outcome);
    ensure!(explained.patch == answer.patch, "`pith inject` computes another patch than the webhook answered");
    indented(&paint(Style::Heading, "where each value came from"));
    indented(&table(&origins(&explained)));
    println!();
    indented(&paint(Style::Heading, "which policies were asked"));
    indented(&table(&calls(&explained)));
    println!();
    let operations = items(&answer.patch).len();
    indented(&format!("`pith inject` computes the same {operations} operations offline."));
    Ok(injected)
}

fn post_exempt(demo: &Demo, api_server: &ApiServer) -> Result<()> {
    let pod = Pod::read("node-agent.yaml")?;
    let answer = api_server.create(&pod, "5f0e1c1a-0000-4000-8000-000000000002")?;
    let patch: json_patch::Patch =
        serde_json::from_value(answer.patch.clone()).context("the patch is no JSON patch")?;
    let mut left = pod.object.clone();
    json_patch::patch(&mut left, &patch).context("applying the patch")?;
    let untouched = answer.allowed && left["spec"] == pod.object["spec"];
    ensure!(untouched, "`{}` was to be left without a sidecar, and was not", pod.name());
    heading(&pod, Style::Faint, &format!("exempt, decided in {}", seconds(answer.duration)));
    indented(&words(&answer));
    // The policy's reason, for whoever looks at the pod.
    indented(&show::diff(&pod.object, &left));
    check_outcome(demo, &pod, "skip")
}

fn post_refused(demo: &Demo, api_server: &ApiServer) -> Result<()> {
    let pod = Pod::read("batch-report.yaml")?;
    let answer = api_server.create(&pod, "5f0e1c1a-0000-4000-8000-000000000003")?;
    ensure!(!answer.allowed, "`{}` was to be refused, and was not", pod.name());
    heading(&pod, Style::Bad, &format!("refused in {}", seconds(answer.duration)));
    indented(&words(&answer));
    check_outcome(demo, &pod, "deny")
}

/// The offline command must come to the same outcome as the webhook did.
fn check_outcome(demo: &Demo, pod: &Pod, expected: &str) -> Result<()> {
    let explained = explain(demo, pod)?;
    ensure!(explained.outcome == expected, "offline, the outcome is `{}` and not `{expected}`", explained.outcome);
    Ok(())
}

fn explain(demo: &Demo, pod: &Pod) -> Result<Explained> {
    let mut inject = Command::new(&demo.pith);
    inject.arg("inject").arg("--filename").arg(&pod.file).arg("--config").arg(fixtures::configuration());
    inject.args(["--explain", "--output", "json"]);
    // A refusal is an answer too, and has an exit code of its own.
    let said = output(&mut inject)?;
    let explained = serde_json::from_slice::<[Explained; 1]>(&said.stdout);
    let [explained] = explained.with_context(|| format!("`pith inject` said:\n{}", both(&said)))?;
    Ok(explained)
}

fn heading(pod: &Pod, style: Style, outcome: &str) {
    let name = format!("{}/{}", pod.namespace(), pod.name());
    println!("\n     {}  {}  {}", paint(Style::Heading, name), paint(style, outcome), relative(&pod.file));
}

/// All the words of an answer, each with the place that it stands in.
fn words(answer: &Answer) -> String {
    let message = answer.message.iter().map(|text| vec!["message".to_string(), text.clone()]);
    let warnings = answer.warnings.iter().map(|text| vec!["warning".to_string(), text.clone()]);
    let annotations = answer.annotations.iter().map(|(key, text)| vec![format!("audit {key}"), text.clone()]);
    table(&message.chain(warnings).chain(annotations).collect::<Vec<_>>())
}

fn origins(explained: &Explained) -> Vec<Vec<String>> {
    let mut rows = rows([["volume (claim)", "field", "value", "origin"]]);
    for volume in &explained.volumes {
        let mut name = format!("{} ({})", volume.volume, volume.claim);
        for value in &volume.values {
            rows.push(vec![std::mem::take(&mut name), value.field.clone(), value.value.clone(), value.origin.clone()]);
        }
    }
    rows
}

fn calls(explained: &Explained) -> Vec<Vec<String>> {
    let mut rows = rows([["binding", "hook", "outcome", "time"]]);
    let row = |call: &PolicyCall| {
        vec![call.binding.clone(), call.hook.clone(), call.outcome.clone(), format!("{:.0} µs", call.micros)]
    };
    rows.extend(explained.policies.iter().map(row));
    rows
}

fn try_next(demo: &Demo) {
    println!("\n{}", paint(Style::Heading, format!("{STEPS}/{STEPS}  What to try next")));
    let (pith, folder) = (relative(&demo.pith), relative(&fixtures::folder()));
    let secret = relative(&demo.folder.join("secret.yaml"));
    indented("Edit a limit in deploy/demo/objects or a rule in deploy/demo/pith.yaml, then:");
    indented(&format!("  {pith} inject -f {folder}/pods/web.yaml --config {folder}/pith.yaml -o diff"));
    indented("See what is recorded of each volume:");
    indented(&format!("  {pith} volumes ls --config {folder}/pith.yaml --secret-file {secret} -o yaml"));
    indented("Run the tests that take seconds:");
    indented("  cargo xtask test unit");
}

impl Demo {
    /// Where the file system's metadata and data lie. The Secret of deploy/demo says the same.
    fn state(&self) -> PathBuf {
        self.folder.join("file-system")
    }
}

/// The first characters of a digest, enough to tell two apart.
fn shortened(digest: &str) -> String {
    let (algorithm, hex) = digest.split_once(':').unwrap_or(("sha256", digest));
    format!("{algorithm}:{}", &hex[..hex.len().min(12)])
}

fn rows<const COLUMNS: usize, const ROWS: usize>(rows: [[&str; COLUMNS]; ROWS]) -> Vec<Vec<String>> {
    rows.map(|row| row.map(String::from).to_vec()).to_vec()
}
