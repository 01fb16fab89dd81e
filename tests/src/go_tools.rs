//! The programs of the Go module `tests/csi-sanity`, whose versions `go.sum` pins.
//!
//! Go keeps what it fetched and what it compiled by content, in caches of its own: the first build takes a minute, the next ones
//! less than a second.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::server::root;

/// Builds a package of the module, or one that it depends on, and says where the program is.
pub fn build(package: &str) -> Result<PathBuf> {
    let folder = root().join("target/csi-sanity");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let program = folder.join(package.rsplit('/').next().unwrap_or(package));
    let mut go = Command::new("go");
    go.args(["build", "-mod=readonly", "-o"]).arg(&program).arg(package).current_dir(root().join("tests/csi-sanity"));
    let status = go.status().context("running `go`: install Go 1.25 or newer")?;
    ensure!(status.success(), "go build {package} failed: see above");
    Ok(program)
}

/// The conformance test of CSI.
pub fn csi_sanity() -> Result<PathBuf> {
    build("github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity")
}
