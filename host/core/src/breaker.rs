//! When a policy that fails again and again is left alone for a while.
//!
//! ```text
//!   asked ── fails in a row, over several objects ──► paused ── over ──► one call tries ── fails ──► paused for twice as long
//!     ▲                                                                      └── answers ──┐
//!     └────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What its binding says of failures holds either way, so nothing is decided otherwise by not asking: requests are answered at once
//! instead of after a deadline each. One object that a policy cannot cope with, tried over and over, must not take it from all others:
//! so failures count only over several.

use std::time::Duration;

/// So many failures in a row pause a policy.
const FAILURES: u32 = 10;
/// Over at least so many objects.
const OBJECTS: usize = 3;
/// For how long at first, and at most.
const PAUSE: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
/// A call that tries and is not heard of again, because the host could not carry it out, lets another one try after this time: longer
/// than any call may take.
const TRIAL: Duration = Duration::from_secs(15);

/// What is known of the failures of one policy. Times are since any moment that stays the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    /// The first few objects that it failed for, by a hash of their names.
    objects: Vec<u64>,
    pause: Option<Pause>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pause {
    until: Duration,
    length: Duration,
    /// When a call began that tries whether it answers again.
    tried: Option<Duration>,
}

impl Breaker {
    /// Whether the policy is asked now, or in how much time.
    pub fn ask(&mut self, now: Duration) -> Result<(), Duration> {
        match &mut self.pause {
            None => Ok(()),
            Some(pause) if now < pause.until => Err(pause.until - now),
            Some(Pause { tried: Some(at), .. }) if now < *at + TRIAL => Err(*at + TRIAL - now),
            Some(pause) => {
                pause.tried = Some(now);
                Ok(())
            }
        }
    }

    /// Whether it is left alone, or tried by one call only.
    pub fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// It has answered. True where that ends a pause.
    pub fn answered(&mut self) -> bool {
        std::mem::take(self).pause.is_some()
    }

    /// It has failed for this object. The answer is for how long it is paused, where that begins now.
    pub fn failed(&mut self, object: u64, now: Duration) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        if self.objects.len() < OBJECTS && !self.objects.contains(&object) {
            self.objects.push(object);
        }
        let length = match &self.pause {
            Some(pause) if pause.tried.is_some() => (2 * pause.length).min(LONGEST),
            // A call that was under way when the pause began.
            Some(_) => return None,
            None if self.failures < FAILURES || self.objects.len() < OBJECTS => return None,
            None => PAUSE,
        };
        self.pause = Some(Pause { until: now + length, length, tried: None });
        Some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One that has failed so often, over so many objects.
    fn failed(times: u64, objects: u64) -> Breaker {
        let mut breaker = Breaker::default();
        for time in 0..times {
            let paused = breaker.failed(time % objects, at(0));
            assert_eq!(paused.is_some(), time == 9 && objects >= 3, "{time}");
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_over_several_objects_pause_a_policy() {
        assert_eq!(failed(9, 9).ask(at(0)), Ok(()));
        assert_eq!(failed(10, 3).ask(at(0)), Err(at(10)));
        assert_eq!(
            failed(1000, 2).ask(at(0)),
            Ok(()),
            "one object that cannot be decided about is not the policy's end"
        );
        let mut breaker = failed(9, 9);
        assert!(!breaker.answered(), "there was no pause");
        assert_eq!(breaker.failed(9, at(0)), None, "they are counted in a row");
    }

    #[test]
    fn after_the_pause_one_call_tries_for_all() {
        let mut breaker = failed(10, 3);
        assert_eq!(breaker.ask(at(9)), Err(at(1)));
        assert_eq!(breaker.ask(at(10)), Ok(()));
        assert_eq!(breaker.ask(at(10)), Err(at(15)), "another one tries already");
        assert_eq!(breaker.ask(at(25)), Ok(()), "nobody has heard of that one");
        assert!(breaker.answered());
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn a_pause_is_longer_each_time_up_to_a_bound() {
        let (mut breaker, mut now, mut lengths) = (failed(10, 3), at(10), Vec::new());
        for _ in 0..7 {
            assert_eq!(breaker.ask(now), Ok(()));
            let length = breaker.failed(1, now).expect("it is paused again");
            lengths.push(length.as_secs());
            now += length;
        }
        assert_eq!(lengths, [20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn what_was_under_way_when_a_pause_began_makes_it_no_longer() {
        let mut breaker = failed(10, 3);
        assert_eq!(breaker.failed(7, at(5)), None);
        assert_eq!(breaker.ask(at(5)), Err(at(5)));
    }
}
