//! How the calls of a policy went since it is in force: for its status, where nobody scrapes metrics. Counting takes no lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use pith_core::latency::Latency;
use pith_core::policy::{Failure, Hook};

/// The counts, by hook.
#[derive(Debug, Default)]
pub(super) struct Stats([OfHook; Hook::ALL.len()]);

/// The counts of one hook.
#[derive(Debug, Default)]
pub(super) struct OfHook {
    calls: AtomicU64,
    failures: AtomicU64,
    latency: Latency,
    last_failure: Mutex<Option<(SystemTime, String)>>,
}

impl Stats {
    pub(super) fn of(&self, hook: Hook) -> &OfHook {
        &self.0[hook as usize]
    }
}

impl OfHook {
    /// Counts a call that was made. One that a pause or a bound kept from being made is none.
    pub(super) fn count<T>(&self, answer: &Result<T, Failure>, took: Duration) {
        match answer {
            Err(Failure::Paused(_) | Failure::Rate(_)) => return,
            Err(failure) => self.failed(failure),
            Ok(_) => {}
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.latency.add(took);
    }

    /// Counts a failure, which may have come before a call.
    pub(super) fn failed(&self, failure: &Failure) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut last = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((SystemTime::now(), failure.to_string()));
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(super) fn last_failure(&self) -> Option<(SystemTime, String)> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long so many of a hundred calls took at most, in microseconds.
    pub(super) fn percentile(&self, percent: u64) -> Option<u64> {
        let span = self.latency.percentile(percent)?;
        Some(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hook_has_its_place_and_a_call_that_was_not_made_is_not_counted() {
        for (place, hook) in Hook::ALL.into_iter().enumerate() {
            assert_eq!(hook as usize, place);
        }
        let stats = Stats::default();
        let it = stats.of(Hook::Naming);
        it.count(&Ok(()), Duration::from_micros(9));
        it.count::<()>(&Err(Failure::Stack), Duration::from_micros(9));
        it.count::<()>(&Err(Failure::Paused(Duration::ZERO)), Duration::from_micros(9));
        assert_eq!((it.calls(), it.failures(), it.percentile(50)), (2, 1, Some(9)));
        assert_eq!(it.last_failure().map(|(_, sentence)| sentence), Some(Failure::Stack.to_string()));
        assert_eq!(stats.of(Hook::Quota).calls(), 0);
    }
}
