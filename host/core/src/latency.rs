//! How long calls take: counts by a scale that grows with the span, from which percentiles are read.
//!
//! Each octave has four steps, so a percentile is at most an eighth beside the truth. Counting is one addition and takes no lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Steps to an octave.
const STEPS: usize = 4;
/// From a microsecond, about, to beyond the longest that a call may take.
const OCTAVES: usize = 24;

/// The counts.
#[derive(Debug)]
pub struct Latency([AtomicU64; STEPS * OCTAVES]);

impl Default for Latency {
    fn default() -> Latency {
        Latency([const { AtomicU64::new(0) }; STEPS * OCTAVES])
    }
}

impl Latency {
    /// Counts one call.
    pub fn add(&self, took: Duration) {
        self.0[place(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// How long so many of a hundred calls took at most; nothing where there was none.
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let counts: Vec<u64> = self.0.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        // The number of the call that is asked for, from 1 on.
        let wanted = all.checked_mul(percent)?.div_ceil(100).max(1);
        let mut seen = 0;
        let place = counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        place.map(middle)
    }
}

fn place(took: Duration) -> usize {
    // Below four units there are no quarters of an octave to tell.
    let units = (took.as_nanos() >> 8).clamp(STEPS as u128, u128::from(u64::MAX));
    let octave = units.ilog2() as usize;
    let step = (units >> (octave - 2)) as usize & (STEPS - 1);
    ((octave - 2) * STEPS + step).min(STEPS * OCTAVES - 1)
}

/// What lies in the middle of a step.
fn middle(place: usize) -> Duration {
    let (octave, step) = (place / STEPS, place % STEPS);
    let lowest = ((STEPS + step) as u64) << octave;
    let width = 1_u64 << octave;
    Duration::from_nanos((lowest * 2 + width) << 7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percentiles_are_those_of_the_calls() {
        let latency = Latency::default();
        assert_eq!(latency.percentile(50), None);
        for micros in 1..=100 {
            latency.add(Duration::from_micros(micros * 10));
        }
        for (percent, micros) in [(50, 500.0), (99, 990.0), (100, 1000.0), (1, 10.0)] {
            let found = latency.percentile(percent).expect("there were calls").as_secs_f64() * 1e6;
            assert!((found / micros - 1.0_f64).abs() < 0.126, "{percent} %: {found} µs, not {micros}");
        }
    }

    proptest! {
        #[test]
        fn one_call_is_found_again_within_an_eighth(nanos in 1_024_u64..4_000_000_000) {
            let latency = Latency::default();
            latency.add(Duration::from_nanos(nanos));
            let found = latency.percentile(99).expect("there was a call").as_nanos() as f64;
            prop_assert!((found / nanos as f64 - 1.0).abs() <= 0.126, "{found} for {nanos}");
        }

        #[test]
        fn every_span_has_a_place(nanos in any::<u64>()) {
            prop_assert!(place(Duration::from_nanos(nanos)) < STEPS * OCTAVES);
        }
    }
}
