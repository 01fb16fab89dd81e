//! One call at a time for each volume, within this process, and room for those of every file system. Between replicas, the
//! records decide.
//!
//! And what a process alone can know: whether an earlier call of it may have left something of a volume. Where none has, and this
//! one has not either, the answer is final, so that nobody asks for ever for a claim that is gone. This is not needed beyond the process:
//! external-provisioner ends with it, and what it knew of the volume with it.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use crate::fair::{Place, Places};
use crate::provisioner::{Secrets, VolumeError};

/// The most volumes of which it is remembered that they may be there. With more of them, it is held of all.
const MOST_REMEMBERED: usize = 100_000;

/// Why a call has to be made again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Busy {
    /// Another one is at the volume.
    #[error("an earlier {method} for {} is not finished, and goes on: ask again", named(.volume))]
    Volume {
        /// Of which volume, or of the snapshot whose [`key`](snapshot_key) it is.
        volume: String,
        /// Which call.
        method: &'static str,
    },
    /// There are too many.
    #[error(
        "{0} calls for volumes of this file system are not finished, and the rest of the places is for other file systems: ask again"
    )]
    FileSystem(usize),
}

/// By which a snapshot is known here. No volume has a slash in its id.
pub(super) fn snapshot_key(id: &str) -> String {
    format!("{SNAPSHOT}{id}")
}

const SNAPSHOT: &str = "snapshot/";

/// What a key is of, for a sentence.
pub(super) fn named(key: &str) -> String {
    match key.strip_prefix(SNAPSHOT) {
        Some(id) => format!("snapshot `{id}`"),
        None => format!("volume `{key}`"),
    }
}

/// The volumes that a call is at.
#[derive(Debug, Clone)]
pub(super) struct InFlight(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    volumes: Mutex<Volumes>,
    places: Arc<Places<u64>>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Volumes {
    /// With what is at them.
    busy: HashMap<String, &'static str>,
    /// Those that may be there, or a part of them: a call of this process has begun them, and none has removed them since. As numbers,
    /// of which two volumes that have the same are both held to be there.
    begun: HashSet<u64>,
}

/// Keeps other calls away from a volume until it is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    volume: String,
    all: InFlight,
    _place: Place<u64>,
}

impl InFlight {
    /// Room for calls at so many volumes.
    pub(super) fn new(most: usize) -> InFlight {
        let (volumes, hasher) = (Mutex::default(), RandomState::new());
        InFlight(Arc::new(Shared { volumes, places: Places::new(most), hasher }))
    }

    /// Begins a call. Nobody waits for another one, because the caller asks again anyway.
    pub(super) fn begin(&self, method: &'static str, volume: &str, secrets: &Secrets) -> Result<Guard, Busy> {
        // Of the address, which may have a password in it, nothing stays but this number.
        let file_system = self.0.hasher.hash_one(secrets.reveal().get("metaurl"));
        self.volumes(|volumes| {
            if let Some(method) = volumes.busy.get(volume) {
                return Err(Busy::Volume { volume: volume.to_string(), method });
            }
            let place = self.0.places.try_take(&file_system);
            let place = place.ok_or_else(|| Busy::FileSystem(self.0.places.taken_by(&file_system)))?;
            volumes.busy.insert(volume.to_string(), method);
            Ok(place)
        })
        .map(|place| Guard { volume: volume.to_string(), all: self.clone(), _place: place })
    }

    /// Whether an earlier call may have left something of a volume.
    pub(super) fn may_exist(&self, volume: &str) -> bool {
        let number = self.0.hasher.hash_one(volume);
        self.volumes(|volumes| volumes.begun.len() >= MOST_REMEMBERED || volumes.begun.contains(&number))
    }

    /// A panic elsewhere leaves the sets as good as they were: each change is one operation.
    fn volumes<T>(&self, change: impl FnOnce(&mut Volumes) -> T) -> T {
        change(&mut self.0.volumes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Guard {
    /// What a CreateVolume came to. Where it could not reach the file system and nothing was left before, that is final.
    pub(super) fn created<T>(self, result: Result<T, VolumeError>) -> Result<T, VolumeError> {
        match &result {
            Err(VolumeError::Unreached(sentence)) if !self.all.may_exist(&self.volume) => Err(nothing_made(sentence)),
            // Its caller may be gone, and not know that it is there.
            Ok(_) | Err(VolumeError::AlreadyExists(_) | VolumeError::Unavailable(_) | VolumeError::Aborted(_)) => {
                self.remember();
                result
            }
            Err(_) => result,
        }
    }

    /// What a DeleteVolume came to.
    pub(super) fn deleted(self, result: Result<(), VolumeError>) -> Result<(), VolumeError> {
        if result.is_ok() {
            let number = self.all.0.hasher.hash_one(&self.volume);
            self.all.volumes(|volumes| volumes.begun.remove(&number));
        }
        result
    }

    fn remember(&self) {
        let number = self.all.0.hasher.hash_one(&self.volume);
        self.all.volumes(|volumes| {
            if volumes.begun.len() < MOST_REMEMBERED {
                volumes.begun.insert(number);
            }
        });
    }
}

/// The final answer where nothing of a volume exists and the file system cannot be asked for it.
pub(super) fn nothing_made(sentence: &str) -> VolumeError {
    VolumeError::FailedPrecondition(format!("{sentence} ({NOTHING_MADE})"))
}

/// By which such an answer is known from one that somebody has to do something about.
const NOTHING_MADE: &str = "nothing was made";

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.remember();
        }
        self.all.volumes(|volumes| volumes.busy.remove(&self.volume));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const MOST: usize = 8;

    fn calls() -> InFlight {
        InFlight::new(MOST)
    }

    fn of(metaurl: &str) -> Secrets {
        BTreeMap::from([("metaurl".to_string(), metaurl.to_string())]).into()
    }

    fn begin(calls: &InFlight, volume: &str, metaurl: &str) -> Result<Guard, Busy> {
        calls.begin("CreateVolume", volume, &of(metaurl))
    }

    #[test]
    fn a_volume_has_one_call_at_a_time_and_others_are_free() {
        let calls = calls();
        let first = begin(&calls, "a", "one").expect("nobody is at it");
        let busy = calls.begin("DeleteVolume", "a", &of("two")).expect_err("it is taken").to_string();
        assert_eq!(busy, "an earlier CreateVolume for volume `a` is not finished, and goes on: ask again");
        assert!(begin(&calls.clone(), "a", "one").is_err(), "a clone is the same set");
        assert!(begin(&calls, "b", "one").is_ok());
        drop(first);
        assert!(begin(&calls, "a", "one").is_ok());
    }

    #[test]
    fn calls_of_one_file_system_leave_room_for_another() {
        let calls = calls();
        let flood: Vec<Guard> = (0..).map_while(|number| begin(&calls, &number.to_string(), "one").ok()).collect();
        assert_eq!(flood.len(), MOST / 2);
        let sentence = begin(&calls, "one more", "one").expect_err("there is none for it").to_string();
        assert!(sentence.starts_with("4 calls for volumes of this file system are not finished"), "{sentence}");
        assert!(begin(&calls, "other", "two").is_ok());
        drop(flood);
        assert!(begin(&calls, "one more", "one").is_ok());
    }

    #[test]
    fn a_panic_ends_its_call_and_may_have_left_something() {
        let calls = calls();
        let panicked = std::panic::catch_unwind({
            let calls = std::panic::AssertUnwindSafe(calls.clone());
            move || {
                let _call = begin(&calls, "a", "one");
                panic!("a defect");
            }
        });
        assert!(panicked.is_err());
        assert!(calls.may_exist("a"));
        assert!(begin(&calls, "a", "one").is_ok());
    }

    /// What the last of several CreateVolumes for one volume comes to, which does not reach the file system.
    #[track_caller]
    fn check(before: impl FnOnce(&InFlight), expected: &str) {
        let calls = calls();
        before(&calls);
        let unreached: Result<(), _> = Err(VolumeError::Unreached("gone".into()));
        let error = begin(&calls, "a", "one").expect("nobody is at it").created(unreached).expect_err("it is one");
        assert_eq!(format!("{error:?}"), expected);
    }

    #[test]
    fn an_answer_is_final_only_where_no_call_may_have_left_something() {
        let create = |calls: &InFlight, result: Result<(), VolumeError>| {
            let _ = begin(calls, "a", "one").expect("nobody is at it").created(result);
        };
        let (nothing, something) = (r#"FailedPrecondition("gone (nothing was made)")"#, r#"Unreached("gone")"#);
        check(|_| {}, nothing);
        check(|calls| create(calls, Err(VolumeError::Unreached("gone".into()))), nothing);
        check(|calls| create(calls, Err(VolumeError::FailedPrecondition("no".into()))), nothing);
        check(|calls| create(calls, Err(VolumeError::Unavailable("cut".into()))), something);
        check(|calls| create(calls, Err(VolumeError::Aborted("busy".into()))), something);
        check(|calls| create(calls, Ok(())), something);
        let delete = |calls: &InFlight, result: Result<(), VolumeError>| {
            let _ = begin(calls, "a", "one").expect("nobody is at it").deleted(result);
        };
        let made_and = |result| {
            move |calls: &InFlight| {
                create(calls, Ok(()));
                delete(calls, result);
            }
        };
        check(made_and(Ok(())), nothing);
        check(made_and(Err(VolumeError::Unavailable("cut".into()))), something);
    }
}
