//! Deleted volumes, listed and brought back.
//!
//! ```text
//!   restore ─ in the trash? ─ claim ─ record back ─ reserve ─ directory back ─ quota ─ ready
//!                               │          └───────────┴── cannot be: deleted after all, where it was
//!                               └─ being purged: too late
//! ```

use pith_core::volume::{self, Fate, Record, RecordProblem, State, Trashed};

use super::{Provisioner, Secrets, VolumeError, busy, now};
use crate::juicefs::FileSystem;
use crate::juicefs::store::{Bin, Cleared, Returned, Store, StoreError, volume_of};

/// A place in the trash or in the archive.
#[derive(Debug)]
pub struct Deleted {
    /// Its name.
    pub place: String,
    /// Where it is.
    pub bin: Bin,
    /// What its record says, or why it says nothing that counts.
    pub found: Result<Found, String>,
}

/// A deleted volume.
#[derive(Debug)]
pub struct Found {
    /// Its newest record.
    pub record: Record,
    /// What is to be done about it.
    pub fate: Fate,
    /// For one that is being purged, how many entries are left at the top of its directory, [`usize::MAX`] for more than can be listed.
    pub left: Option<usize>,
}

impl Provisioner {
    /// Everything in the trash and in the archive of a file system, by name.
    pub async fn trash(&self, secrets: &Secrets) -> Result<Vec<Deleted>, VolumeError> {
        let (_, store) = self.open(secrets).await?;
        let mut deleted = Vec::new();
        for bin in [Bin::Trash, Bin::Archive] {
            for place in store.bin(bin).await? {
                let found = match self.look_at(&store, bin, &place).await {
                    Ok(Some((record, fate))) => {
                        let purging = matches!(record.state, State::Purging(_));
                        let left = if purging { store.left(bin, &place).await? } else { None };
                        Ok(Found { record, fate, left })
                    }
                    Ok(None) => {
                        Err("it has no record: its volume is being deleted, or somebody else put it there".to_string())
                    }
                    Err(error) if error.is_about_what_is_there() => Err(error.to_string()),
                    Err(error) => return Err(error.into()),
                };
                deleted.push(Deleted { place, bin, found });
            }
        }
        Ok(deleted)
    }

    /// What lies in a place, and what is to be done about it now. None where it has no record; an error where that does not speak for
    /// this place.
    pub(super) async fn look_at(
        &self,
        store: &Store,
        bin: Bin,
        place: &str,
    ) -> Result<Option<(Record, Fate)>, StoreError> {
        let Some(record) = store.binned(bin, place).await? else { return Ok(None) };
        match record.fate(place, self.options.trash_days, now()) {
            // What lies in the other bin is not where its record says.
            Ok(fate) if Bin::of(&record) == bin => Ok(Some((record, fate))),
            Ok(_) => {
                let problem = RecordProblem::Misplaced { id: record.id, generation: record.generation };
                Err(StoreError::Record { path: bin.place(place)?, problem })
            }
            Err(problem) => Err(StoreError::Record { path: bin.place(place)?, problem }),
        }
    }

    /// Brings a deleted volume back under its id, at its directory, and gives its record. It is named by its id, or, where several of
    /// that id were deleted, by its place in the trash. One that is back already is back.
    pub async fn restore(&self, wanted: &str, secrets: &Secrets) -> Result<Record, VolumeError> {
        let (file_system, store) = self.open(secrets).await?;
        let places = matching(&store, wanted).await?;
        let id = match places.as_slice() {
            [(place, _), ..] => volume_of(place).unwrap_or(wanted),
            [] => wanted,
        };
        if !volume::is_id(id) {
            return Err(VolumeError::NotFound(wanted.into()));
        }
        let restoring = match store.current(id).await? {
            Some(record) => match &record.state {
                State::Restoring(_) => record,
                // Its deletion was cut: it has to be in the trash before it can come back.
                State::Deleting(trashed) => {
                    store.discard(&record, trashed).await?;
                    self.take_out(&store, &trashed.trash, Bin::of(&record)).await?
                }
                State::Ready if places.is_empty() => return Ok(record),
                _ => {
                    return Err(VolumeError::FailedPrecondition(format!(
                        "there is a volume `{id}` already, at {}: what was deleted comes back only where its id is free",
                        record.directory
                    )));
                }
            },
            None => match places.as_slice() {
                [] => {
                    return Err(VolumeError::FailedPrecondition(format!(
                        "the trash has nothing of a volume `{id}`: `pith volumes trash` lists what it has"
                    )));
                }
                [(place, bin)] => self.take_out(&store, place, *bin).await?,
                several => {
                    let names: Vec<String> = several.iter().map(|(place, _)| format!("`{place}`")).collect();
                    return Err(VolumeError::FailedPrecondition(format!(
                        "a volume `{id}` was deleted more than once: name one of {}",
                        names.join(", ")
                    )));
                }
            },
        };
        self.bring_back(&file_system, &store, &restoring).await
    }

    /// Claims a place, unless its volume cannot come back, and moves its records to where volumes are.
    async fn take_out(&self, store: &Store, place: &str, bin: Bin) -> Result<Record, VolumeError> {
        let Some((record, fate)) = self.look_at(store, bin, place).await? else {
            let sentence =
                format!("`{place}` in the trash has no record, so nothing says whose it is: it is left alone");
            return Err(VolumeError::FailedPrecondition(sentence));
        };
        if record.is_snapshot() {
            let sentence = format!(
                "`{place}` is what is left of the snapshot `{}`: only volumes come back; what it had is in {} until it is purged",
                record.id,
                bin.place(place).map_err(StoreError::from)?
            );
            return Err(VolumeError::FailedPrecondition(sentence));
        }
        let moved = || busy(&record.id, "was taken out of the trash by somebody else");
        let restoring = match (&record.state, fate) {
            (State::Restoring(_), _) => record.clone(),
            (State::Purging(_), _) => {
                let sentence = format!("volume `{}` is being purged: it is too late to bring it back", record.id);
                return Err(VolumeError::FailedPrecondition(sentence));
            }
            _ => {
                let trashed = record.trashed().ok_or_else(moved)?;
                check_returned(&record, store.can_return(&record, trashed).await?)?;
                let restoring = record.restoring().ok_or_else(moved)?;
                if !store.claim_restore(&restoring, trashed).await? {
                    return Err(busy(&record.id, "is being purged, or brought back by somebody else"));
                }
                restoring
            }
        };
        let trashed = restoring.trashed().ok_or_else(moved)?;
        if store.return_record(&restoring, trashed).await? {
            return Ok(restoring);
        }
        if let Some(deleting) = restoring.deleting_after_all() {
            store.release(&deleting, trashed).await?;
        }
        let sentence =
            format!("there is a volume `{0}` now: what was deleted comes back only where its id is free", record.id);
        Err(VolumeError::FailedPrecondition(sentence))
    }

    /// Does what is left of bringing back a volume whose records are where volumes are. Each step may have been done before.
    async fn bring_back(
        &self,
        file_system: &FileSystem,
        store: &Store,
        restoring: &Record,
    ) -> Result<Record, VolumeError> {
        let id = &restoring.id;
        let trashed = restoring.trashed().ok_or_else(|| busy(id, "was brought back by somebody else"))?;
        let hindered = match store.reserve(restoring).await? {
            Some(taken) => Err(VolumeError::FailedPrecondition(taken.conflict.to_string())),
            None => check_returned(restoring, store.return_data(restoring, trashed).await?),
        };
        if let Err(error) = hindered {
            self.leave_deleted(store, restoring, trashed).await?;
            return Err(error);
        }
        self.set_quota(file_system, store, restoring, restoring).await?;
        if store.clear(restoring, trashed).await? == Cleared::Mixed {
            let path = Bin::of(restoring).place(&trashed.trash).map_err(StoreError::from)?;
            tracing::warn!(volume = %id, %path, "something else is there, which is left alone");
        }
        let restored = restoring.restored();
        if store.put_restored(&restored).await? {
            return Ok(restored);
        }
        let current = store.current(id).await?.filter(|current| current.state == State::Ready);
        current.ok_or_else(|| busy(id, "is being changed by somebody else"))
    }

    /// Puts a volume that cannot come back to where it was, with what it had left there. Its directory is not its own: the reservation
    /// goes first.
    async fn leave_deleted(&self, store: &Store, restoring: &Record, trashed: &Trashed) -> Result<(), VolumeError> {
        store.unreserve(restoring).await?;
        if let Some(deleting) = restoring.deleting_after_all()
            && store.put(&deleting).await?
        {
            store.discard(&deleting, trashed).await?;
        }
        Ok(())
    }
}

/// The places of a volume, or the one of that name.
async fn matching(store: &Store, wanted: &str) -> Result<Vec<(String, Bin)>, StoreError> {
    let mut places = Vec::new();
    for bin in [Bin::Trash, Bin::Archive] {
        places.extend(store.bin(bin).await?.into_iter().map(|place| (place, bin)));
    }
    let exact: Vec<_> = places.iter().filter(|(place, _)| place == wanted).cloned().collect();
    if !exact.is_empty() {
        return Ok(exact);
    }
    places.retain(|(place, _)| volume_of(place) == Some(wanted));
    Ok(places)
}

fn check_returned(record: &Record, returned: Returned) -> Result<(), VolumeError> {
    let (id, directory) = (&record.id, &record.directory);
    Err(VolumeError::FailedPrecondition(match returned {
        Returned::Returned => return Ok(()),
        Returned::Occupied => {
            format!("something else is at {directory} now: move it away, and volume `{id}` can come back there")
        }
        Returned::Gone => format!("nothing is left of the directory {directory} of volume `{id}`: it cannot come back"),
    }))
}
