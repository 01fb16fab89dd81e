//! The measurements of what runs as a server: `cargo xtask bench` runs it and keeps what it prints in `docs/performance.md`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the tables are its output, and how far it is")]

mod admission;
mod kills;
mod many;
mod policies;
mod process;
mod volumes;
mod webhook;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use pith_tests::server::root;
use tokio::task::JoinHandle;

/// Measures `pith serve`: the webhook against two servers of the same stack, its memory, its start, and volumes.
#[derive(Parser)]
struct Args {
    /// Measure one part only. `admission`, which needs the cluster `bench`, `kills`, `many` and `policies` are measured only if they are asked
    /// for.
    #[arg(long)]
    only: Option<Part>,
    /// The binary to measure.
    #[arg(long, value_name = "PATH", default_value_os_t = release("pith"))]
    pith: PathBuf,
    /// How long each server of the webhook is loaded in each round.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// How often each server of the webhook has its turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The most time for one row of the table of volumes.
    #[arg(long, default_value_t = 2)]
    volume_seconds: u64,
    /// How many volumes `many` makes, one number after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000])]
    many: Vec<usize>,
    /// How many processes `kills` kills.
    #[arg(long, default_value_t = 1000)]
    kills: usize,
    /// What chance comes from in the first round of `kills`; each further round has the next one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Webhook,
    Volumes,
    Admission,
    Kills,
    Many,
    Policies,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.pith.exists(), "{} is not there: build it", args.pith.display());
    if args.only == Some(Part::Kills) {
        // It has a runtime of its own.
        return kills::run(&args);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if matches!(args.only, None | Some(Part::Webhook)) {
        webhook::run(&args, &runtime)?;
    }
    if args.only.is_none() {
        println!();
    }
    if matches!(args.only, None | Some(Part::Volumes)) {
        runtime.block_on(volumes::run(&args))?;
    }
    if args.only == Some(Part::Many) {
        runtime.block_on(many::run(&args))?;
    }
    if args.only == Some(Part::Policies) {
        policies::run(&args, &runtime)?;
    }
    if args.only == Some(Part::Admission) {
        runtime.block_on(admission::run(&args))?;
    }
    Ok(())
}

fn release(name: &str) -> PathBuf {
    root().join("target/release").join(name)
}

/// What every caller of a closed loop measured.
async fn gather(loops: Vec<JoinHandle<Result<Vec<Duration>>>>) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    for one in loops {
        latencies.extend(one.await??);
    }
    Ok(latencies)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Seconds, for people.
fn time(seconds: f64) -> String {
    if seconds < 1e-3 { format!("{:.0} µs", seconds * 1e6) } else { format!("{:.2} ms", seconds * 1e3) }
}
