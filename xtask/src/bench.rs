//! `cargo xtask bench`: the measurements, and the page that keeps them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::Value;

use crate::command::{capture, run as run_command};
use crate::workspace::{cargo, root, target};
use crate::{cluster, policies, tools};

/// Where the tables are kept, between two lines that mark them; the rest of the page is written by hand.
const PAGE: &str = "docs/performance.md";
const BEGIN: &str = "<!-- measured by `cargo xtask bench`: begin -->";
const END: &str = "<!-- measured by `cargo xtask bench`: end -->";

/// The marks of what is measured in a cluster, which takes one.
const CLUSTER_BEGIN: &str = "<!-- measured by `cargo xtask bench admission-cluster`: begin -->";
const CLUSTER_END: &str = "<!-- measured by `cargo xtask bench admission-cluster`: end -->";
/// The marks of what kills.
const KILLS_BEGIN: &str = "<!-- measured by `cargo xtask bench kills`: begin -->";
const KILLS_END: &str = "<!-- measured by `cargo xtask bench kills`: end -->";
/// The marks of what makes a hundred thousand volumes.
const MANY_BEGIN: &str = "<!-- measured by `cargo xtask bench volumes`: begin -->";
const MANY_END: &str = "<!-- measured by `cargo xtask bench volumes`: end -->";
/// The marks of what is measured of policies in operation.
const POLICIES_BEGIN: &str = "<!-- measured by `cargo xtask bench policies`: begin -->";
const POLICIES_END: &str = "<!-- measured by `cargo xtask bench policies`: end -->";
/// The cluster that is measured in.
const CLUSTER: &str = "bench";

/// What can be measured alone.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// What the webhook adds to the creation of a pod, through a real API server. Needs root.
    AdmissionCluster,
    /// What many bindings cost, how long a change of a policy takes under load, and a start with 100 modules.
    Policies,
    /// Whether volumes outlive 1000 kills of everything that they depend on. Takes ten minutes.
    Kills,
    /// What calls cost while there are 10 000 and 100 000 volumes, beside a straw man of the JuiceFS driver. Takes a quarter of an hour.
    Volumes,
}

/// Measures, prints, and keeps what it printed.
pub(crate) fn run() -> Result<()> {
    keep(BEGIN, END, || {
        tools::juicefs()?;
        tools::package("redis-server", "redis-server")?;
        build()?;
        let load = ["run", "--quiet", "--release", "--package", "pith-tests", "--bin", "load"];
        Ok(format!("{}\n\n{}", policy_calls()?, capture(cargo().args(load))?.trim()))
    })
}

/// Measures pod creation in a cluster of its own, prints, and keeps what it printed.
pub(crate) fn admission_cluster() -> Result<()> {
    keep(CLUSTER_BEGIN, CLUSTER_END, || {
        build()?;
        policies::build()?;
        cluster::end(CLUSTER)?;
        let place = cluster::start(CLUSTER, &[], &[])?;
        // On the cluster's network, as the API server listens nowhere else.
        let mut load = Command::new("nsenter");
        load.args(["--target", &place.running()?.process.to_string(), "--net", "--"]);
        load.arg(target().join("release/load")).args(["--only", "admission"]).current_dir(root());
        let measured = capture(&mut load);
        cluster::end(CLUSTER)?;
        Ok(measured?.trim().to_string())
    })
}

/// Kills everything that volumes depend on, again and again, prints, and keeps what it printed.
pub(crate) fn kills() -> Result<()> {
    keep(KILLS_BEGIN, KILLS_END, || load("kills"))
}

/// Measures policies in operation, prints, and keeps what it printed.
pub(crate) fn policies_in_operation() -> Result<()> {
    keep(POLICIES_BEGIN, POLICIES_END, || load("policies"))
}

/// Measures calls while there are many volumes, prints, and keeps what it printed.
pub(crate) fn volumes() -> Result<()> {
    keep(MANY_BEGIN, MANY_END, || load("many"))
}

/// One part of what the load generator measures.
fn load(part: &str) -> Result<String> {
    tools::juicefs()?;
    tools::package("redis-server", "redis-server")?;
    build()?;
    let load = ["run", "--quiet", "--release", "--package", "pith-tests", "--bin", "load", "--", "--only", part];
    Ok(capture(cargo().args(load))?.trim().to_string())
}

/// Keeps the tables of a measurement between its marks.
fn keep(begin: &str, end: &str, measure: impl FnOnce() -> Result<String>) -> Result<()> {
    let path = root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("reading {PAGE}"))?;
    // Before the minutes of measuring, not after them.
    let (before, after) =
        around(&page, begin, end).with_context(|| format!("{PAGE} has no lines `{begin}` and `{end}`"))?;
    let tables = measure()?;
    println!("{tables}");
    fs::write(&path, format!("{before}{begin}\n\n{tables}\n\n{end}{after}")).with_context(|| format!("writing {PAGE}"))
}

fn around<'a>(page: &'a str, begin: &str, end: &str) -> Option<(&'a str, &'a str)> {
    let (before, rest) = page.split_once(begin)?;
    Some((before, rest.split_once(end)?.1))
}

fn build() -> Result<()> {
    run_command(cargo().args(["build", "--release", "--package", "pith", "--package", "pith-tests", "--bins"]))
}

/// The steps of a policy call and of a review, from what criterion leaves in target/criterion.
fn policy_calls() -> Result<String> {
    let folder = target().join("criterion");
    // Or a benchmark that is gone would stay in the table.
    if folder.exists() {
        fs::remove_dir_all(&folder).context("removing the results of an earlier run")?;
    }
    run_command(cargo().args(["bench", "--package", "pith"]))?;
    let mut table = String::from(
        "## One policy call and one review, in a loop\n\nCriterion's medians. `call` is one call of a policy with a fresh instance, `steps` what it is made of; `review` is a whole\nreview without policies, beside parsing it into a `serde_json::Value`.\n\n| what | median |\n|---|---|",
    );
    for result in results(&folder)? {
        let name = read(&result.join("benchmark.json"))?["full_id"].as_str().unwrap_or_default().to_string();
        let nanoseconds = read(&result.join("estimates.json"))?["median"]["point_estimate"].as_f64();
        let nanoseconds = nanoseconds.with_context(|| format!("{} has no median", result.display()))?;
        table.push_str(&format!("\n| {name} | {:.1} µs |", nanoseconds / 1000.0));
    }
    Ok(table)
}

/// Criterion's folders `<group>/<function>/new`, in order.
fn results(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = vec![folder.to_path_buf()];
    let mut results = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.ends_with("new") {
                results.push(path);
            } else if path.is_dir() {
                folders.push(path);
            }
        }
    }
    results.sort();
    Ok(results)
}

fn read(file: &Path) -> Result<Value> {
    let text = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", file.display()))
}
