//! Volumes while everything is killed: the model of `pith_tests::model`, for longer than a test may take.

use std::time::Instant;

use anyhow::Result;
use pith_tests::model::{Options, Report, run as run_model};

use crate::Args;

/// Kills of one round, after which everything is looked at.
const ROUND: usize = 100;

/// Runs rounds, each with the next seed, until that many processes were killed, and prints what happened.
pub(crate) fn run(args: &Args) -> Result<()> {
    let (started, mut all, mut rounds) = (Instant::now(), Report::default(), 0);
    while all.kills() < args.kills {
        let seed = args.seed + rounds;
        eprintln!("seed {seed}, {} of {} kills", all.kills(), args.kills);
        let report = run_model(&Options { seed, kills: ROUND.min(args.kills), pith: args.pith.clone() })?;
        for (call, count) in report.calls {
            *all.calls.entry(call).or_default() += count;
        }
        for (what, count) in report.harm {
            *all.harm.entry(what).or_default() += count;
        }
        all.attempts += report.attempts;
        all.volumes += report.volumes;
        rounds += 1;
    }
    println!("## Volumes while everything is killed\n");
    println!(
        "{rounds} rounds from seed {} on, {:.0} minutes: four callers, two replicas, Redis. After each round every volume that must be \
         there was, as asked and with what was written to it, and nothing else was: none lost, doubled, left behind, or shown to \
         another.\n",
        args.seed,
        started.elapsed().as_secs_f64() / 60.0
    );
    println!("| what | how often |\n|---|---|");
    for (what, count) in &all.harm {
        let killed = if what.contains(' ') { String::new() } else { format!("{what} killed with -9") };
        println!("| {} | {count} |", if killed.is_empty() { what } else { killed.as_str() });
    }
    for (call, count) in &all.calls {
        println!("| {call} answered | {count} |");
    }
    println!("| calls made until then | {} |", all.attempts);
    println!("| volumes compared in the end | {} |", all.volumes);
    Ok(())
}
