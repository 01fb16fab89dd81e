//! `cargo xtask fuzz`: a target of `pith-fuzz` under libFuzzer, for some minutes.
//!
//! The fuzzer is a program of a workspace of its own, in which everything counts the branches that are taken: libFuzzer keeps the inputs that
//! take new ones. The flags that make it so are ones that a stable compiler has, so no nightly one is needed (decisions/0040).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command::{capture, run as run_command};
use crate::tools;
use crate::workspace::{cargo_build, relative, root, target};

/// What `pith-fuzz` has. A target is named here to be listed in the help; the fuzzer refuses one that it does not have.
const TARGETS: [&str; 4] = ["module_load", "lift_answer", "binding", "oci_manifest"];
/// The target that a known defect of a dependency ends every minute: `wit-parser` runs out of stack over a module that is described in a
/// circle. Users have a child for that (decisions/0033).
const OVERFLOWS: &str = "module_load";
/// Makes the compiler count branches, and say what values are compared with.
const COUNTED: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// The most seconds for one input: what a compiler of a module has.
const LONGEST: u32 = 60;
/// The most memory of the fuzzer, in MiB.
const MEMORY: u32 = 2048;
/// The largest input. Larger ones are slower, and need no other code.
const LARGEST: u32 = 16 << 10;

/// What to fuzz.
#[derive(Args)]
pub(crate) struct Options {
    /// Which target.
    #[arg(value_parser = TARGETS)]
    target: String,
    /// For how long.
    #[arg(long, default_value_t = 60)]
    minutes: u32,
}

/// Builds the fuzzer and runs it. What it finds ends it, and is then an input of the tests.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { target: name, minutes } = options;
    tools::require(&[("c++", "g++")])?;
    let place = target().join("fuzz");
    let fuzzer = build(&place)?;

    let of_target = |folder: &str| place.join(folder).join(name);
    let (corpus, seeds, last) = (of_target("corpus"), of_target("seeds"), of_target("last"));
    for folder in [&seeds, &last] {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("removing {} of an earlier run", folder.display()))?;
        }
    }
    let found = root().join("tests/fuzz/found").join(name);
    for folder in [&corpus, &seeds, &last, &found] {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    println!("fuzzing {name} for {minutes} min; what takes new branches is kept in {}", relative(&corpus));
    let mut fuzz = std::process::Command::new(fuzzer);
    fuzz.env("PITH_FUZZ_TARGET", name).env("PITH_FUZZ_SEEDS", &seeds).env("PITH_FUZZ_LAST", &last);
    // The compiler's own threads would make the same input count differently.
    fuzz.env("RAYON_NUM_THREADS", "1");
    fuzz.arg(&corpus).arg(&seeds).arg(format!("-artifact_prefix={}/", found.display()));
    fuzz.arg(format!("-max_total_time={}", u64::from(*minutes) * 60)).arg("-print_final_stats=1");
    fuzz.args([format!("-timeout={LONGEST}"), format!("-rss_limit_mb={MEMORY}"), format!("-max_len={LARGEST}")]);
    if name == OVERFLOWS {
        println!(
            "a full stack ends the process, and another one goes on; the last inputs of all are in {}",
            relative(&last)
        );
        fuzz.args(["-fork=1", "-ignore_crashes=1"]);
    }
    let what_to_do = || {
        let found = relative(&found);
        format!(
            "where it has found something, that is in {found}: mend it, and keep the input; `cargo test -p pith-fuzz` runs it"
        )
    };
    run_command(&mut fuzz).with_context(what_to_do)?;
    // Nothing was found: an empty folder is none in git either.
    let _ = fs::remove_dir(&found);
    Ok(())
}

/// The program with all targets.
fn build(place: &Path) -> Result<std::path::PathBuf> {
    // With a target, the flags are not for build scripts and macros, which are programs of their own.
    let host = capture(std::process::Command::new("rustc").args(["--print", "host-tuple"]))?;
    let host = host.trim();
    println!("building the fuzzer, with counters at every branch (a quarter of an hour the first time)");
    let mut build = cargo_build();
    build.args(["--release", "--locked", "--target", host, "--manifest-path"]);
    build.arg(root().join("tests/fuzz/libfuzzer/Cargo.toml")).env("CARGO_TARGET_DIR", place);
    build.env("CARGO_ENCODED_RUSTFLAGS", COUNTED.join("\u{1f}"));
    run_command(&mut build)?;
    let fuzzer = place.join(host).join("release/pith-libfuzzer");
    if !fuzzer.is_file() {
        bail!("{} is not there, although it was built", fuzzer.display());
    }
    Ok(fuzzer)
}
