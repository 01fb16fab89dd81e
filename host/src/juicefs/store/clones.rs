//! What a volume starts with, or a snapshot has: a clone, made beside its record and moved to its place once it is complete.
//!
//! Whoever makes one gives it a name of its own, so two replicas never have to do with the same one, and what a crash leaves of one
//! means nothing. A clone that is complete is marked before it is moved: where a mark is and its clone is not, that clone is in place.
//! Thus a directory that somebody else put there is never taken for it.

use std::time::Duration;

use pith_core::volume::Record;

use super::{Store, StoreError, data, deleted_meanwhile, home, name};
use crate::juicefs::{Depth, JuiceFsError, Made, Moved, Path, PathError, Removal};

/// What a clone's name begins with, and that of its mark.
const CLONE: &str = "clone.";
const CLONED: &str = "cloned.";
const PROGRESS: &str = "progress";
/// How long one request for the removal of a clone is waited for, and how often that is asked: an hour.
const PATIENCE: Duration = Duration::from_secs(5);
const TRIES: usize = 720;

/// How far the clone for a record has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clones {
    /// There is none that is complete.
    None,
    /// This one is complete, and not where it is to be.
    Complete(String),
    /// It is where it is to be.
    Placed,
}

/// What moving a clone to its place came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It is there, or it was moved by somebody else: it is to be looked at again.
    Perhaps,
    /// Something else is there.
    Occupied,
}

impl Store {
    /// Where a clone of that name for a record is made.
    pub fn clone_of(record: &Record, clone: &str) -> Result<Path, StoreError> {
        Ok(in_home(record, &format!("{CLONE}{clone}"))?)
    }

    /// How far the clone for a record has come.
    pub async fn clones(&self, record: &Record) -> Result<Clones, StoreError> {
        let entries = self.worker.list(&home(record)?, Depth::One).await?.unwrap_or_default();
        let names: Vec<&str> = entries.iter().filter_map(name).collect();
        let mut found = Clones::None;
        for (clone, mark) in names.iter().filter_map(|name| name.strip_prefix(CLONED)?.split_once('.')) {
            if !record.is_clone_mark(clone, mark, &self.key) {
                continue;
            }
            if !names.iter().any(|name| name.strip_prefix(CLONE) == Some(clone)) {
                return Ok(Clones::Placed);
            }
            found = Clones::Complete(clone.to_string());
        }
        Ok(found)
    }

    /// Says that a clone is complete.
    pub async fn mark_clone(&self, record: &Record, clone: &str) -> Result<(), StoreError> {
        self.steps.reached("cloned");
        let mark = in_home(record, &format!("{CLONED}{clone}.{}", record.clone_mark(clone, &self.key)))?;
        if self.worker.make_directory(&mark).await? == Made::NoParent {
            return Err(deleted_meanwhile(&record.id));
        }
        self.steps.reached("clone-marked");
        Ok(())
    }

    /// Moves a complete clone to where nothing is.
    pub async fn place_clone(&self, record: &Record, clone: &str) -> Result<Placed, StoreError> {
        let to = data(record)?;
        if let Some(above) = to.parent() {
            self.worker.make_directories(&above).await?;
        }
        Ok(match self.worker.move_exclusive(&Store::clone_of(record, clone)?, &to).await? {
            Moved::Moved => {
                self.steps.reached("clone-placed");
                Placed::Perhaps
            }
            Moved::Taken if self.clones(record).await? != Clones::Placed => Placed::Occupied,
            Moved::Taken | Moved::Missing => Placed::Perhaps,
        })
    }

    /// Whether there is something where a record's data are to be.
    pub async fn has_data(&self, record: &Record) -> Result<bool, StoreError> {
        Ok(self.worker.kind(&data(record)?).await?.is_some())
    }

    /// Notes how far the clone for a record is, for people. It is sealed by nobody, and nothing is decided by it.
    pub async fn note_progress(&self, record: &Record, done: u64, total: u64) -> Result<(), StoreError> {
        Ok(self.worker.write(&in_home(record, PROGRESS)?, format!("{done}/{total}").into_bytes()).await?)
    }

    /// How far the clone for a record was when that was noted last, if it was.
    pub async fn progress(&self, record: &Record) -> Result<Option<(u64, u64)>, StoreError> {
        let noted = self.worker.read(&in_home(record, PROGRESS)?).await?;
        let counts = noted.as_deref().and_then(|noted| str::from_utf8(noted).ok()?.split_once('/'));
        Ok(counts.and_then(|(done, total)| Some((done.parse().ok()?, total.parse().ok()?))))
    }

    /// Removes every clone for a record that is not in its place.
    pub async fn remove_clones(&self, record: &Record) -> Result<(), StoreError> {
        let records = home(record)?;
        for _ in 0..TRIES {
            if self.remove_clones_in(&records, PATIENCE).await? == Removal::Done {
                return Ok(());
            }
        }
        Err(JuiceFsError::Unavailable(format!("clones in {records} take too long to be removed: ask again")).into())
    }

    /// Removes the clones beside records that lie here, and waits for each for this long at most.
    pub(super) async fn remove_clones_in(&self, records: &Path, patience: Duration) -> Result<Removal, StoreError> {
        let entries = self.worker.list(records, Depth::One).await?.unwrap_or_default();
        for clone in entries.iter().filter_map(name).filter(|name| name.starts_with(CLONE)) {
            if self.worker.remove_for(&records.clone().join(clone)?, patience).await? == Removal::GoesOn {
                return Ok(Removal::GoesOn);
            }
        }
        Ok(Removal::Done)
    }
}

fn in_home(record: &Record, name: &str) -> Result<Path, PathError> {
    home(record)?.join(name)
}
