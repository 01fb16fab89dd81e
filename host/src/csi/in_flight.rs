//! One call at a time for each volume, within this process. Between replicas, the records decide.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The volumes that a call is at.
#[derive(Debug, Clone, Default)]
pub(super) struct InFlight(Arc<Mutex<HashSet<String>>>);

/// Keeps other calls away from a volume until it is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    volume: String,
    all: InFlight,
}

impl InFlight {
    /// Begins a call. None where another one is at the volume: nobody waits, because the caller asks again anyway.
    pub(super) fn begin(&self, volume: &str) -> Option<Guard> {
        let began = self.volumes(|volumes| volumes.insert(volume.to_string()));
        began.then(|| Guard { volume: volume.to_string(), all: self.clone() })
    }

    /// A panic elsewhere leaves the set as good as it was: each change is one operation.
    fn volumes<T>(&self, change: impl FnOnce(&mut HashSet<String>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.all.volumes(|volumes| volumes.remove(&self.volume));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_one_call_at_a_time_and_others_are_free() {
        let calls = InFlight::default();
        let first = calls.begin("a").expect("nobody is at it");
        assert!(calls.begin("a").is_none());
        assert!(calls.clone().begin("a").is_none(), "a clone is the same set");
        assert!(calls.begin("b").is_some());
        drop(first);
        assert!(calls.begin("a").is_some());
    }

    #[test]
    fn a_panic_ends_its_call() {
        let calls = InFlight::default();
        let panicked = std::panic::catch_unwind({
            let calls = calls.clone();
            move || {
                let _call = calls.begin("a");
                panic!("a defect");
            }
        });
        assert!(panicked.is_err());
        assert!(calls.begin("a").is_some());
    }
}
