//! The first-party policies as `.wasm` files in target/policies.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::command::run as run_command;
use crate::tools;
use crate::workspace::{cargo_build, relative, root, target};

/// What policies are compiled for: a plain core module, which the host wraps when it loads it.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Builds them and says where they are.
pub(crate) fn run() -> Result<()> {
    tools::rust_target(TARGET)?;
    for policy in build()? {
        println!("{}", relative(&policy));
    }
    Ok(())
}

/// Builds them and gives back their paths, by name.
pub(crate) fn build() -> Result<Vec<PathBuf>> {
    let names = names()?;
    let mut build = cargo_build();
    build.args(["--release", "--target", TARGET]);
    for name in &names {
        build.arg("--package").arg(format!("pith-policy-{name}"));
    }
    run_command(&mut build)?;

    let folder = target().join("policies");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    names.iter().map(|name| copy(name).with_context(|| format!("copying the policy `{name}`"))).collect()
}

/// Every folder of policies/ that is a crate is one.
fn names() -> Result<Vec<String>> {
    let folder = root().join("policies");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.join("Cargo.toml").is_file() {
            names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Under its final name at once, so that a `pith serve` that reads it meanwhile never sees half a file.
fn copy(name: &str) -> Result<PathBuf> {
    let built = target().join(TARGET).join("release").join(format!("pith_policy_{}.wasm", name.replace('-', "_")));
    let place = target().join("policies").join(format!("{name}.wasm"));
    let partial = place.with_extension("partial");
    fs::copy(built, &partial)?;
    fs::rename(partial, &place)?;
    Ok(place)
}
