//! What a volume starts with, and what a snapshot is of: cloned beside the record, and moved into place when it is complete.
//!
//! ```text
//!   what is to be cloned? ─ clone, under a name of its own ─ is it still there, whole? ─ mark it as complete ─ move it into place
//! ```
//!
//! Whatever ends this in between, the next call goes on: with a clone that is marked, or with a new one. What was to be cloned is looked at
//! again when the clone is there: a volume or a snapshot whose record says that it is ready has lost nothing by then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pith_core::volume::{self, Record, Source, State};
use tokio::pin;
use tokio::time::{Instant, interval_at};

use super::{Provisioner, TRIES, VolumeError, busy};
use crate::juicefs::store::{self, Clones, Placed, Store};
use crate::juicefs::{CloneError, FileSystem, Progress};

/// How often a clone that takes long says how far it is.
const REPORT: Duration = Duration::from_secs(5);

/// The clones that are being made, by what they are for.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<HashMap<String, Arc<Progress>>>);

impl Running {
    fn all<T>(&self, change: impl FnOnce(&mut HashMap<String, Arc<Progress>>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How far the clone for this is, in entries, if one is being made.
    pub(super) fn counts(&self, what: &str) -> Option<(u64, u64)> {
        self.all(|all| all.get(what).map(|progress| progress.counts()))
    }
}

/// Says that a clone is being made until this is dropped.
struct Run<'a> {
    running: &'a Running,
    what: String,
    progress: Arc<Progress>,
}

impl<'a> Run<'a> {
    fn begin(running: &'a Running, what: String) -> Run<'a> {
        let progress = Arc::new(Progress::default());
        running.all(|all| all.insert(what.clone(), progress.clone()));
        Run { running, what, progress }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.running.all(|all| all.remove(&self.what));
    }
}

/// What a record is of, for a sentence.
pub(super) fn described(record: &Record) -> String {
    let kind = if record.is_snapshot() { "snapshot" } else { "volume" };
    format!("{kind} `{}`", record.id)
}

impl Provisioner {
    /// The record of what a volume is to start with or a snapshot is to be of, if that is ready.
    pub(super) async fn origin(&self, store: &Store, source: &Source) -> Result<Record, VolumeError> {
        match source {
            Source::Volume(id) if !volume::is_id(id) => Err(VolumeError::NotFound(id.clone())),
            Source::Volume(id) => {
                let record = self.changeable(store, id).await?;
                if record.is_adopted() {
                    // Who has made it may have left that to the first mount.
                    store.make(&record.directory).await?;
                }
                Ok(record)
            }
            Source::Snapshot(id) if !volume::is_id(id) => Err(VolumeError::NoSnapshot(id.clone())),
            Source::Snapshot(id) => match store.snapshot(id).await? {
                Some(record) if record.state == State::Ready => Ok(record),
                Some(Record { state: State::Creating, .. }) => {
                    Err(VolumeError::Aborted(format!("snapshot `{id}` is not complete yet: ask again")))
                }
                _ => Err(VolumeError::NoSnapshot(id.clone())),
            },
        }
    }

    /// Makes what is to be at a record's place: a directory, or what it starts with. Each step may have been done before.
    pub(super) async fn fill(
        &self,
        file_system: &FileSystem,
        store: &Store,
        record: &Record,
    ) -> Result<(), VolumeError> {
        let Some(source) = &record.asked.source else { return Ok(store.make(&record.directory).await?) };
        for _ in 0..TRIES {
            match store.clones(record).await? {
                Clones::Placed => return Ok(store.remove_clones(record).await?),
                Clones::Complete(clone) => match store.place_clone(record, &clone).await? {
                    Placed::Perhaps => {}
                    Placed::Occupied => return Err(self.give_up(store, record, occupied(record)).await),
                },
                Clones::None if store.has_data(record).await? => {
                    // Unless it was placed a moment ago.
                    if store.clones(record).await? == Clones::None {
                        return Err(self.give_up(store, record, occupied(record)).await);
                    }
                }
                Clones::None => {
                    if let Err(error) = self.clone_origin(file_system, store, record, source).await {
                        // Nothing of a volume is left that cannot be completed any more, unless another replica has done so.
                        let is_final = matches!(
                            error,
                            VolumeError::NotFound(_) | VolumeError::NoSnapshot(_) | VolumeError::FailedPrecondition(_)
                        );
                        if !is_final || store.clones(record).await? != Clones::None {
                            return Err(error);
                        }
                        return Err(self.give_up(store, record, error).await);
                    }
                }
            }
        }
        Err(busy(&record.id, "is being changed by another replica"))
    }

    /// Makes a complete clone of what a record names.
    async fn clone_origin(
        &self,
        file_system: &FileSystem,
        store: &Store,
        record: &Record,
        source: &Source,
    ) -> Result<(), VolumeError> {
        let origin = self.same_origin(store, record, source).await?;
        let clone = store::unique();
        let (from, to) = (store::data(&origin)?, Store::clone_of(record, &clone)?);
        let run = Run::begin(&self.clones, described(record));
        let cloning = self.workers.clone_directory(file_system, &from, &to, &run.progress);
        pin!(cloning);
        let mut report = interval_at(Instant::now() + REPORT, REPORT);
        let cloned = loop {
            tokio::select! {
                cloned = &mut cloning => break cloned,
                _ = report.tick() => {
                    let (done, total) = run.progress.counts();
                    tracing::info!(of = %source, "for" = run.what, done, total, "a clone is being made");
                    // What it says is for people, and the clone goes on without.
                    if let Err(error) = store.note_progress(record, done, total).await {
                        tracing::debug!("for" = run.what, %error, "no progress is noted");
                    }
                }
            }
        };
        // The worker may have been ended meanwhile.
        let store = self.store(file_system).await?;
        match cloned {
            Ok(()) => {}
            Err(CloneError::NoSource(path)) => {
                // As a rule it was deleted at this moment.
                self.same_origin(&store, record, source).await?;
                let sentence = format!("{path}, the directory of {source}, is not there: nothing can be made of it");
                return Err(VolumeError::FailedPrecondition(sentence));
            }
            Err(CloneError::Failed(error)) => return Err(error.into()),
        }
        self.same_origin(&store, record, source).await?;
        Ok(store.mark_clone(record, &clone).await?)
    }

    /// The record of what was there when this one was begun, if that still is.
    async fn same_origin(&self, store: &Store, record: &Record, source: &Source) -> Result<Record, VolumeError> {
        let origin = self.origin(store, source).await?;
        if origin.is_origin_of(record) {
            return Ok(origin);
        }
        // Another one of that name.
        Err(match source {
            Source::Volume(id) => VolumeError::NotFound(id.clone()),
            Source::Snapshot(id) => VolumeError::NoSnapshot(id.clone()),
        })
    }

    /// Leaves nothing of what cannot be made, and gives the reason.
    async fn give_up(&self, store: &Store, record: &Record, why: VolumeError) -> VolumeError {
        let given_up = async {
            store.remove_clones(record).await?;
            store.abandon(record).await
        };
        match given_up.await {
            Ok(()) => why,
            Err(error) => error.into(),
        }
    }
}

fn occupied(record: &Record) -> VolumeError {
    VolumeError::FailedPrecondition(format!(
        "somebody else has put something where {} was to be, at {}: move it away, or name another directory",
        described(record),
        record.directory
    ))
}
