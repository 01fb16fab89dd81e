//! `cargo xtask test`: every check, in the order in which a failure is found soonest.
//!
//! Nothing is skipped: where a tool or a right is missing, the part fails and says which.

mod documents;

use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::command::{capture, run as run_command};
use crate::terminal::{Style, paint, seconds, table};
use crate::workspace::{cargo, root};
use crate::{cluster, demo, generate, policies, tools};

/// Which checks to run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Selection {
    /// The unit tests, which take seconds.
    Unit,
    /// Everything, as CI does.
    All,
}

/// A check: what it is called and what it does.
type Part = (&'static str, fn() -> Result<()>);

/// The crates with unit tests, and nothing that needs more than their own code.
const UNIT: [&str; 11] = [
    "pith-core",
    "pith-fuzz",
    "pith-guard",
    "pith-proto",
    "pith-policy-sdk",
    "pith-policy-sdk-macros",
    "pith-policy-exemption",
    "pith-policy-naming",
    "pith-policy-resources",
    "pith",
    "xtask",
];

const PARTS: [Part; 14] = [
    ("rights", rights),
    ("format", format),
    ("dependencies", dependencies),
    ("dependencies of pith-core", core_dependencies),
    ("lints", lints),
    ("unit tests", unit),
    ("examples in doc comments", doc_tests),
    ("chart", generate::lint_chart),
    ("generated files", generate::check),
    ("policies", policies::run),
    ("a Kubernetes", cluster::up_for_tests),
    ("end-to-end tests", end_to_end),
    ("the main job in a cluster", demo::in_cluster::check),
    ("commands in the documents", documents::check),
];

/// What decides must not be able to do IO: its dependency list is the guard.
const NOT_IN_CORE: [&str; 6] = ["tokio", "kube", "tonic", "hyper", "wasmtime", "tracing"];

/// Runs the checks, stops at the first failure, and ends with how long each took.
pub(crate) fn run(selection: Selection) -> Result<()> {
    let mut times = Vec::new();
    for (name, check) in PARTS.iter().filter(|(name, _)| selection == Selection::All || *name == "unit tests") {
        println!("{}", paint(Style::Heading, format!("── {name}")));
        let started = Instant::now();
        check().with_context(|| format!("{} failed", paint(Style::Bad, name)))?;
        times.push(vec![name.to_string(), seconds(started.elapsed())]);
    }
    println!("{}", paint(Style::Heading, "── all passed"));
    println!("{}", table(&times));
    Ok(())
}

/// The demo ends early without these, and a test must not.
fn rights() -> Result<()> {
    match demo::lacking()? {
        Some(what) => {
            bail!("the tests mount JuiceFS with FUSE, and this machine lacks {what}: run them as root, with /dev/fuse")
        }
        None => Ok(()),
    }
}

fn format() -> Result<()> {
    run_command(cargo().args(["fmt", "--all", "--check"])).context("run `cargo fmt --all`")
}

fn lints() -> Result<()> {
    run_command(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn dependencies() -> Result<()> {
    let mut deny = tools::cargo_deny()?;
    run_command(deny.current_dir(root()).args(["check", "bans", "licenses", "sources"]))
}

fn core_dependencies() -> Result<()> {
    let tree = ["tree", "--package", "pith-core", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let tree = capture(cargo().args(tree))?;
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    match names.into_iter().find(|name| NOT_IN_CORE.contains(name)) {
        Some(name) => {
            bail!("pith-core depends on `{name}`: `cargo tree -p pith-core -e normal -i {name}` says through what")
        }
        None => Ok(()),
    }
}

fn unit() -> Result<()> {
    let mut test = cargo();
    test.args(["test", "--quiet", "--lib", "--bins"]);
    run_command(test.args(UNIT.map(|name| ["--package", name]).as_flattened()))
}

fn doc_tests() -> Result<()> {
    run_command(cargo().args(["test", "--quiet", "--doc", "--package", "pith-policy-sdk", "--package", "pith-core"]))
}

/// With the hostile guests, some of which are WASI components, the real JuiceFS client, metadata engines, an S3 server, a registry with cosign, CSI's
/// own programs, and the cluster.
fn end_to_end() -> Result<()> {
    tools::rust_target("wasm32-wasip2")?;
    tools::require(&[("go", "golang-go")])?;
    tools::juicefs()?;
    tools::package("redis-server", "redis-server")?;
    tools::package("openssl", "openssl")?;
    tools::databases()?;
    cluster::programs::s3()?;
    cluster::programs::registry()?;
    crate::workspace::pith()?;
    run_command(cargo().args(["test", "--package", "pith-tests"])).context(
        "the cluster of the tests is left as it is, to be looked at: `cargo xtask cluster env --name tests`, and `cargo xtask \
         cluster down --name tests` in the end",
    )?;
    cluster::down_after_tests()
}
