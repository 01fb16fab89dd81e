//! The `.wasm` files that tests load, built from this repository once a run with stock cargo.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{LazyLock, Mutex};

use crate::server::root;

/// What was built in this process already: cargo is asked once for each set of arguments.
static BUILT: LazyLock<Mutex<HashSet<Vec<String>>>> = LazyLock::new(Mutex::default);

/// The module of a first-party policy, by the name of its folder.
pub fn policy(name: &str) -> PathBuf {
    build("wasm32-unknown-unknown", &["--package", &format!("pith-policy-{name}")]);
    root().join(format!("target/wasm32-unknown-unknown/release/pith_policy_{name}.wasm"))
}

/// The module of an example of the SDK, by the name of its file.
pub fn example(name: &str) -> PathBuf {
    build("wasm32-unknown-unknown", &["--package", "pith-policy-sdk", "--example", name]);
    root().join(format!("target/wasm32-unknown-unknown/release/examples/{name}.wasm"))
}

/// The module of a hostile guest, by the name of its file.
pub fn guest(name: &str) -> PathBuf {
    let target = if name.starts_with("wasi_") { "wasm32-wasip2" } else { "wasm32-unknown-unknown" };
    build(target, &["--package", "pith-guests", "--example", name]);
    root().join(format!("target/{target}/release/examples/{name}.wasm"))
}

fn build(target: &str, arguments: &[&str]) {
    let arguments: Vec<String> = ["build", "--quiet", "--release", "--target", target]
        .iter()
        .chain(arguments)
        .map(ToString::to_string)
        .collect();
    let mut built = BUILT.lock().expect("no build panicked");
    if built.contains(&arguments) {
        return;
    }
    cargo(&arguments);
    built.insert(arguments);
}

/// Runs cargo in the repository.
pub(crate) fn cargo(arguments: &[impl AsRef<str>]) {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let mut command = Command::new("cargo");
    command.args(&arguments).current_dir(root());
    for name in ABOUT_PACKAGE {
        command.env_remove(name);
    }
    let status = command.status();
    assert!(status.is_ok_and(|it| it.success()), "cargo {} failed: see above", arguments.join(" "));
}

/// What the cargo that runs the tests says about this package. Build scripts look at the same variables (ring's does), so what
/// depends on them would be built again here, and again after the tests.
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
