//! `cargo xtask bench`: the measurements, and the page that keeps them.

use std::fs;

use anyhow::{Context, Result};

use crate::command::{capture, run as run_command};
use crate::workspace::{cargo, root};

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
    run_command(cargo().args(["build", "--release", "--package", "pith", "--package", "pith-tests", "--bins"]))?;
    let load = ["run", "--quiet", "--release", "--package", "pith-tests", "--bin", "load"];
    let tables = capture(cargo().args(load))?;
    let tables = tables.trim();
    println!("{tables}");
    fs::write(&path, format!("{before}{BEGIN}\n\n{tables}\n\n{END}{after}")).with_context(|| format!("writing {PAGE}"))
}

fn around_tables(page: &str) -> Option<(&str, &str)> {
    let (before, rest) = page.split_once(BEGIN)?;
    Some((before, rest.split_once(END)?.1))
}
