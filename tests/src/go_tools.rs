//! The programs of the Go module `tests/csi-sanity`, whose versions `go.sum` pins.
//!
//! Go keeps what it fetched and what it compiled by content, in caches of its own: the first build takes a minute, the next ones
//! less than a second.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};

use crate::server::root;

/// What the conformance test is a part of.
const CSI_TEST: &str = "github.com/kubernetes-csi/csi-test/v5";
/// The case that it has switched off (`XIt`), since lists by index fail it. It is the contract that a list is to keep.
const SWITCHED_OFF: &str =
    "XIt(\"pagination should detect volumes added between pages and accept tokens when the last volume";

/// The conformance test of CSI, with its case about pages.
pub static CSI_SANITY: LazyLock<PathBuf> = LazyLock::new(|| csi_sanity().expect("csi-sanity can be built"));

/// Builds a package of the module, or one that it depends on, and says where the program is.
pub fn build(package: &str) -> Result<PathBuf> {
    build_with(package, &[])
}

fn build_with(package: &str, arguments: &[&str]) -> Result<PathBuf> {
    let folder = target()?;
    let program = folder.join(package.rsplit('/').next().unwrap_or(package));
    let mut go = go();
    go.args(["build", "-mod=readonly"]).args(arguments).arg("-o").arg(&program).arg(package);
    let status = go.status().context("running `go`: install Go 1.25 or newer")?;
    ensure!(status.success(), "go build {package} failed: see above");
    Ok(program)
}

/// Builds from a copy in which the case is switched on.
fn csi_sanity() -> Result<PathBuf> {
    let status = go().args(["mod", "download", CSI_TEST]).status().context("running `go`: install Go 1.25 or newer")?;
    ensure!(status.success(), "go mod download {CSI_TEST} failed: see above");
    let listed = go().args(["list", "-m", "-f", "{{.Dir}}", CSI_TEST]).output()?;
    let original = PathBuf::from(String::from_utf8(listed.stdout)?.trim());
    let folder = target()?;
    let copied = folder.join("csi-test");
    copy(&original, &copied).with_context(|| format!("copying {}", original.display()))?;
    let file = copied.join("pkg/sanity/controller.go");
    let cases = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    ensure!(cases.matches(SWITCHED_OFF).count() == 1, "csi-sanity has its case about pages no more as it was");
    fs::write(&file, cases.replace(SWITCHED_OFF, &SWITCHED_OFF[1..]))?;

    let pinned = root().join("tests/csi-sanity");
    let module = fs::read_to_string(pinned.join("go.mod"))?;
    let with_copy = folder.join("with-copy.mod");
    fs::write(&with_copy, format!("{module}\nreplace {CSI_TEST} => {}\n", copied.display()))?;
    fs::copy(pinned.join("go.sum"), with_copy.with_extension("sum"))?;
    let modfile = format!("-modfile={}", with_copy.display());
    build_with(&format!("{CSI_TEST}/cmd/csi-sanity"), &[&modfile])
}

fn go() -> Command {
    let mut go = Command::new("go");
    go.current_dir(root().join("tests/csi-sanity"));
    go
}

fn target() -> Result<PathBuf> {
    let folder = root().join("target/csi-sanity");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// Copies the files of a folder that nobody may write to, as files that may be written. Where nothing changed, Go builds nothing anew.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy(&from, &to)? } else { fs::write(&to, fs::read(&from)?)? }
    }
    Ok(())
}
