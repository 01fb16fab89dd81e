//! The model of `pith_tests::model`, for as long as a test may take. `cargo xtask bench kills` runs it for longer.

use pith_tests::model::{Options, run};
use pith_tests::server::PITH;

/// Seeds that have found something, and the one that everybody gets.
const SEEDS: [u64; 1] = [1];

#[test]
fn no_volume_is_lost_doubled_left_behind_or_shown_to_another_whatever_is_killed() {
    for seed in SEEDS {
        let report = run(&Options { seed, kills: 40, pith: PITH.clone() }).unwrap_or_else(|error| panic!("{error:#}"));
        println!("{report:?}");
        assert!(report.kills() >= 40 && report.calls.values().sum::<usize>() > 40, "{report:?} is no test");
    }
}
