//! How often, and for how long, a policy may be asked in a second.
//!
//! The bounds of one call are the host's (`wasm`); these are of many calls together, so that a policy that is slow for everybody, or a
//! flood of pods, does not take the processors from all others. Each bound is a bucket that holds what one second allows, which is also
//! the most that can be taken at once, and that fills up evenly. Times are since any moment that stays the same.

use std::time::Duration;

/// A second in nanoseconds, which is also what one call is made of: with whole numbers nothing is lost to rounding.
const SECOND: u128 = 1_000_000_000;

/// What a policy may take in a second; absent for as much as there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// How many calls.
    pub calls: Option<u32>,
    /// How long they may run, all together.
    pub time: Option<Duration>,
}

/// What is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    calls: Option<Bucket>,
    time: Option<Bucket>,
}

/// Which bound was met, and after what time the policy may be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// The key in the configuration.
    pub limit: &'static str,
    /// The time until there is something left.
    pub again: Duration,
}

/// Parts of a unit that are used up and not given back by time yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bucket {
    /// What comes back in a second, in units; in a nanosecond, in parts of one.
    rate: u128,
    used: u128,
    at: Duration,
}

impl Budget {
    /// A full one; none where there is no bound, so that nothing has to be counted.
    pub fn new(rates: Rates) -> Option<Budget> {
        let bucket = |rate: u128| Bucket { rate, used: 0, at: Duration::ZERO };
        let calls = rates.calls.map(|calls| bucket(calls.into()));
        let time = rates.time.map(|time| bucket(time.as_nanos()));
        (calls.is_some() || time.is_some()).then_some(Budget { calls, time })
    }

    /// Takes a call out of it, or says how long there is none.
    pub fn take(&mut self, now: Duration) -> Result<(), Spent> {
        // How long it will run is known afterwards: what it runs beyond the bound has to be waited for by the next.
        if let Some(time) = &mut self.time {
            time.fill(now);
            time.room(1).map_err(|again| Spent { limit: "limits.timePerSecond", again })?;
        }
        if let Some(calls) = &mut self.calls {
            calls.fill(now);
            calls.room(SECOND).map_err(|again| Spent { limit: "limits.callsPerSecond", again })?;
            calls.used += SECOND;
        }
        Ok(())
    }

    /// A call that was taken has ended.
    pub fn ran(&mut self, took: Duration) {
        if let Some(time) = &mut self.time {
            time.used += took.as_nanos() * SECOND;
        }
    }

    /// A call that was taken was not made.
    pub fn give_back(&mut self) {
        if let Some(calls) = &mut self.calls {
            calls.used = calls.used.saturating_sub(SECOND);
        }
    }
}

impl Bucket {
    /// Time never runs backwards here: of two threads, one that looked at the clock earlier may come later.
    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_nanos();
        self.used = self.used.saturating_sub(passed * self.rate);
        self.at = self.at.max(now);
    }

    /// Whether so much is left, or after what time it will be.
    fn room(&self, parts: u128) -> Result<(), Duration> {
        let missing = (self.used + parts).saturating_sub(self.rate * SECOND);
        if missing == 0 {
            return Ok(());
        }
        let nanoseconds = missing.div_ceil(self.rate.max(1));
        Err(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn budget(calls: Option<u32>, time: Option<Duration>) -> Budget {
        Budget::new(Rates { calls, time }).expect("there is a bound")
    }

    #[test]
    fn without_a_bound_there_is_nothing_to_count() {
        assert_eq!(Budget::new(Rates::default()), None);
    }

    #[test]
    fn a_second_of_calls_can_be_made_at_once_and_then_as_they_come_back() {
        let mut calls = budget(Some(4), None);
        let of_calls = |again| Err(Spent { limit: "limits.callsPerSecond", again });
        for _ in 0..4 {
            assert_eq!(calls.take(ms(0)), Ok(()));
        }
        assert_eq!(calls.take(ms(0)), of_calls(ms(250)));
        assert_eq!(calls.take(ms(100)), of_calls(ms(150)), "what was refused costs nothing");
        assert_eq!(calls.take(ms(250)), Ok(()));
        assert_eq!(calls.take(ms(250)), of_calls(ms(250)));
        assert_eq!(calls.take(ms(200)), of_calls(ms(250)), "who looked at the clock earlier");
        calls.give_back();
        assert_eq!(calls.take(ms(250)), Ok(()), "what was not made can be made");
        for _ in 0..4 {
            assert_eq!(calls.take(ms(60_000)), Ok(()));
        }
        assert_eq!(calls.take(ms(60_000)), of_calls(ms(250)), "a pause does not save up more than a second");
    }

    #[test]
    fn time_that_calls_took_has_to_come_back_before_the_next() {
        let mut time = budget(None, Some(ms(200)));
        assert_eq!(time.take(ms(0)), Ok(()));
        time.ran(ms(150));
        assert_eq!(time.take(ms(0)), Ok(()), "there is some left");
        time.ran(ms(150));
        // 100 ms too much, at 200 ms a second, and one part of a nanosecond of room.
        let again = match time.take(ms(0)) {
            Err(Spent { limit: "limits.timePerSecond", again }) => again,
            other => panic!("{other:?}"),
        };
        assert_eq!(again.as_millis(), 500);
        assert_eq!(time.take(again), Ok(()));
    }

    #[test]
    fn of_two_bounds_each_counts_and_what_one_refuses_costs_nothing_of_the_other() {
        let mut both = budget(Some(1), Some(ms(100)));
        assert_eq!(both.take(ms(0)), Ok(()));
        both.ran(ms(300));
        assert_eq!(both.take(ms(1000)).map_err(|spent| spent.limit), Err("limits.timePerSecond"));
        assert_eq!(both.take(ms(2001)), Ok(()));
        assert_eq!(both.take(ms(2001)).map_err(|spent| spent.limit), Err("limits.callsPerSecond"));
    }

    proptest! {
        /// Over any span, no more calls are made than the bound has for it, and one second's more at once.
        #[test]
        fn no_more_is_taken_than_time_gives(calls in 1u32..50, steps in prop::collection::vec(0u64..400, 1..300)) {
            let mut bucket = budget(Some(calls), None);
            let (mut now, mut made) = (ms(0), 0u64);
            for step in steps {
                now += ms(step);
                made += u64::from(bucket.take(now).is_ok());
                let given = u128::from(calls) * (now.as_nanos() + SECOND) / SECOND;
                prop_assert!(u128::from(made) <= given, "{made} calls, and {given} were given after {now:?}");
            }
        }

        /// Who waits as long as is said is taken, and who comes a moment earlier is not.
        #[test]
        fn the_time_that_is_said_is_the_time(calls in 1u32..50, took in 1u64..5_000, at in 0u64..10_000) {
            let mut both = budget(Some(calls), Some(ms(100)));
            prop_assert!(both.take(ms(at)).is_ok());
            both.ran(ms(took));
            let mut now = ms(at);
            while let Err(spent) = both.take(now) {
                prop_assert!(spent.again > Duration::ZERO);
                prop_assert!(both.clone().take(now + spent.again - Duration::from_nanos(1)).is_err());
                now += spent.again;
                prop_assert!(now < ms(at + 60_000), "it comes to an end");
            }
        }

        /// What calls run, over a long time, is no more than the bound, but for the last of them.
        #[test]
        fn no_more_time_is_run_than_time_gives(limit in 1u64..500, runs in prop::collection::vec(1u64..300, 1..100)) {
            let mut bucket = budget(None, Some(ms(limit)));
            let (mut now, mut ran) = (ms(0), 0u64);
            for run in runs {
                if let Err(spent) = bucket.take(now) {
                    now += spent.again;
                    prop_assert!(bucket.take(now).is_ok());
                }
                let given = limit * (u64::try_from(now.as_millis()).expect("short") + 1_000) / 1_000 + 1;
                prop_assert!(ran <= given, "{ran} ms ran, and {given} ms were given after {now:?}");
                bucket.ran(ms(run));
                ran += run;
            }
        }
    }
}
