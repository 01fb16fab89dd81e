//! One call at a time for each volume, within this process. Between replicas, the records decide.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The most volumes at once. The sidecars have 100 workers each; a call that nobody waits for any more counts too.
const MOST: usize = 256;

/// Why a call has to be made again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Busy {
    /// Another one is at the volume.
    #[error("an earlier call for volume `{0}` is not finished, and goes on: ask again")]
    Volume(String),
    /// There are too many.
    #[error("calls for {MOST} volumes are not finished: ask again")]
    Everything,
}

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
    /// Begins a call. Nobody waits for another one, because the caller asks again anyway.
    pub(super) fn begin(&self, volume: &str) -> Result<Guard, Busy> {
        self.volumes(|volumes| {
            if volumes.contains(volume) {
                return Err(Busy::Volume(volume.to_string()));
            }
            if volumes.len() == MOST {
                return Err(Busy::Everything);
            }
            volumes.insert(volume.to_string());
            Ok(())
        })?;
        Ok(Guard { volume: volume.to_string(), all: self.clone() })
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
        assert_eq!(calls.begin("a").err(), Some(Busy::Volume("a".into())));
        assert!(calls.clone().begin("a").is_err(), "a clone is the same set");
        assert!(calls.begin("b").is_ok());
        drop(first);
        assert!(calls.begin("a").is_ok());
    }

    #[test]
    fn there_is_a_bound() {
        let calls = InFlight::default();
        let all: Vec<Guard> =
            (0..MOST).map(|number| calls.begin(&number.to_string()).expect("there is room")).collect();
        assert_eq!(calls.begin("one more").err(), Some(Busy::Everything));
        drop(all);
        assert!(calls.begin("one more").is_ok());
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
        assert!(calls.begin("a").is_ok());
    }
}
