//! The files that are generated from the code and from the chart, so that they cannot say something else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::programs;
use crate::command::{capture, run};
use crate::workspace::{pith, relative, root};

/// A file, and the arguments of `pith` that print it.
const FILES: [(&str, &[&str]); 4] = [
    ("docs/configuration.md", &["config", "--reference"]),
    ("docs/pith.schema.json", &["config", "--schema"]),
    ("docs/reasons.md", &["reasons"]),
    ("deploy/chart/crds/policies.yaml", &["config", "--crd"]),
];

/// The chart, and what it is rendered into: each file of values in `values` gives the file of the same name beside that folder.
const CHART: &str = "deploy/chart";
const RENDERED: &str = "deploy/rendered";
/// As whom it is rendered.
const RELEASE: [&str; 4] = ["template", "pith", "--namespace", "pith-system"];
/// The one line that the chart draws at random, and what stands for it: a key that is no secret.
const RANDOM: &str = "  record.key: ";
const NO_KEY: &str = "\"0000000000000000000000000000000000000000000000000000000000000000\"";

/// Writes every file that is not what it should be.
pub(crate) fn write() -> Result<()> {
    // The chart is rendered with what is printed beside it.
    for files in [printed, rendered] {
        for (path, wanted) in files()? {
            if present(&path) != wanted {
                fs::write(&path, wanted).with_context(|| format!("writing {}", relative(&path)))?;
                println!("wrote {}", relative(&path));
            }
        }
    }
    Ok(())
}

/// Fails if a file is not what it should be.
pub(crate) fn check() -> Result<()> {
    for (path, wanted) in [printed()?, rendered()?].concat() {
        if present(&path) != wanted {
            bail!("{} is not what it is generated from: run `cargo xtask generate` and commit it", relative(&path));
        }
    }
    Ok(())
}

/// Fails if Helm finds something to say about the chart.
pub(crate) fn lint_chart() -> Result<()> {
    let helm = programs::helm()?;
    for (values, _) in renderings()? {
        run(Command::new(&helm)
            .args(["lint", "--strict", "--quiet", CHART, "--values"])
            .arg(values)
            .current_dir(root()))?;
    }
    Ok(())
}

/// What `pith` prints.
fn printed() -> Result<Vec<(PathBuf, String)>> {
    let pith = pith()?;
    let file =
        |(file, arguments): (&str, &[&str])| Ok((root().join(file), capture(Command::new(&pith).args(arguments))?));
    FILES.into_iter().map(file).collect()
}

/// What the chart is rendered into.
fn rendered() -> Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    let helm = programs::helm()?;
    for (values, rendered) in renderings()? {
        let mut template = Command::new(&helm);
        template.args(RELEASE).arg(CHART).arg("--values").arg(values).current_dir(root());
        files.push((rendered, without_chance(&capture(&mut template)?)?));
    }
    Ok(files)
}

/// The files of values, and what each is rendered into.
fn renderings() -> Result<Vec<(PathBuf, PathBuf)>> {
    let folder = root().join(RENDERED);
    let values = folder.join("values");
    let mut files = Vec::new();
    for entry in fs::read_dir(&values).with_context(|| format!("reading {}", relative(&values)))? {
        let entry = entry?;
        files.push((entry.path(), folder.join(entry.file_name())));
    }
    ensure!(!files.is_empty(), "{} has no files of values: the chart would not be checked", relative(&values));
    files.sort();
    Ok(files)
}

/// What is rendered, with the same key each time.
fn without_chance(rendered: &str) -> Result<String> {
    let mut lines = Vec::new();
    for line in rendered.lines() {
        match line.strip_prefix(RANDOM) {
            Some(key) => {
                ensure!(key.len() == NO_KEY.len(), "the chart makes a key of {} characters", key.len());
                lines.push(format!("{RANDOM}{NO_KEY}"));
            }
            None => lines.push(line.trim_end().to_string()),
        }
    }
    Ok(lines.join("\n") + "\n")
}

/// A file that is missing differs from everything.
fn present(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_has_the_version_of_the_program() {
        let chart = fs::read_to_string(root().join(CHART).join("Chart.yaml")).expect("there is a chart");
        for key in ["version", "appVersion"] {
            let wanted = format!("{key}: {}", env!("CARGO_PKG_VERSION"));
            assert!(chart.lines().any(|line| line == wanted), "no line `{wanted}` in\n{chart}");
        }
    }

    #[test]
    fn a_key_that_was_drawn_at_random_is_the_same_each_time() {
        let rendered = |digit: &str| format!("stringData:  \n{RANDOM}\"{}\"\n", digit.repeat(64));
        let same = without_chance(&rendered("7")).expect("a key");
        assert_eq!(same, without_chance(&rendered("a")).expect("a key"));
        assert_eq!(same, format!("stringData:\n{RANDOM}{NO_KEY}\n"));
        assert!(without_chance(&format!("{RANDOM}\"\"\n")).is_err());
    }
}
