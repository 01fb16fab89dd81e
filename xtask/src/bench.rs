//! `cargo xtask bench`: the measurements, and the page that keeps them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::{capture, run as run_command};
use crate::tools;
use crate::workspace::{cargo, root, target};

/// Where the tables are kept, between two lines that mark them; the rest of the page is written by hand.
const PAGE: &str = "docs/performance.md";
const BEGIN: &str = "<!-- measured by `cargo xtask bench`: begin -->";
const END: &str = "<!-- measured by `cargo xtask bench`: end -->";

/// Measures, prints, and keeps what it printed.
pub(crate) fn run() -> Result<()> {
    let path = root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("reading {PAGE}"))?;
    // Before the minutes of measuring, not after them.
    let (before, after) = around_tables(&page).with_context(|| format!("{PAGE} has no lines `{BEGIN}` and `{END}`"))?;
    tools::juicefs()?;
    tools::package("redis-server", "redis-server")?;
    let tables = format!("{}\n\n{}", policy_calls()?, load()?);
    println!("{tables}");
    fs::write(&path, format!("{before}{BEGIN}\n\n{tables}\n\n{END}{after}")).with_context(|| format!("writing {PAGE}"))
}

fn around_tables(page: &str) -> Option<(&str, &str)> {
    let (before, rest) = page.split_once(BEGIN)?;
    Some((before, rest.split_once(END)?.1))
}

/// The server under load, its memory, its start, and volumes, as the program that measures them says it.
fn load() -> Result<String> {
    run_command(cargo().args(["build", "--release", "--package", "pith", "--package", "pith-tests", "--bins"]))?;
    let load = ["run", "--quiet", "--release", "--package", "pith-tests", "--bin", "load"];
    Ok(capture(cargo().args(load))?.trim().to_string())
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
