//! Where things are, and how cargo is called.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// The checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in a folder of the workspace")
}

/// What is built. Fixed, because deploy/demo/pith.yaml refers to it.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// Where fetched tools are kept, shared by all checkouts.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = match variable("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(variable("HOME").context("neither XDG_CACHE_HOME nor HOME is set: set one of them")?)
            .join(".cache"),
    };
    Ok(base.join("pith"))
}

/// A call of the cargo that runs us, in the checkout.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(variable("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).env("CARGO_TARGET_DIR", target());
    forget_package(&mut cargo);
    cargo
}

/// Takes away what the cargo that runs us says about our own package.
pub(crate) fn forget_package(command: &mut Command) {
    for name in ABOUT_PACKAGE {
        command.env_remove(name);
    }
}

/// What cargo says about the package that it runs. Build scripts look at the same variables (ring's does), so a cargo below this
/// one would build what depends on them again, and the next one outside again.
const ABOUT_PACKAGE: [&str; 8] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_LINKS",
    "CARGO_PKG_NAME",
    "CARGO_PKG_VERSION",
    "CARGO_PKG_VERSION_MAJOR",
    "CARGO_PKG_VERSION_MINOR",
    "CARGO_PKG_VERSION_PATCH",
    "CARGO_PKG_VERSION_PRE",
];

/// A build with cargo's own progress where someone watches, and without it in a log.
pub(crate) fn cargo_build() -> Command {
    building("build")
}

/// As [`cargo_build`], of one binary, which takes arguments for the compiler: of what it depends on, nothing is built again.
pub(crate) fn cargo_rustc() -> Command {
    building("rustc")
}

fn building(subcommand: &str) -> Command {
    let mut build = cargo();
    build.arg(subcommand);
    if !std::io::stderr().is_terminal() {
        build.arg("--quiet");
    }
    build
}

/// The `pith` binary, built if it is not up to date.
pub(crate) fn pith() -> Result<PathBuf> {
    command::run(cargo_build().args(["--package", "pith", "--bin", "pith"]))?;
    Ok(target().join("debug/pith"))
}

/// A path as a reader of the output would type it.
pub(crate) fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// A variable of the environment that is set and not empty.
#[expect(
    clippy::disallowed_methods,
    reason = "the ban is for the host; xtask has no configuration file that could say it"
)]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
