//! What deleted volumes leave, seen from the file system: found, claimed, purged and brought back.
//!
//! A place in the trash is believed only where the record in it says, under our seal, that it is this very place. Whoever purges it
//! and whoever brings it back claims it first, by the next generation of that record, which is made exclusively. Every step can be
//! repeated.

use std::time::Duration;

use pith_core::volume::{OnDelete, Record, State, Trashed};

use super::{
    ARCHIVE, DATA, PATHS, RECORD, STAGING, Store, StoreError, TRASH, VOLUMES, entry_of, name, ours, path, unique,
};
use crate::juicefs::{Depth, JuiceFsError, Moved, Path, PathError, Removal};

/// Where deleted volumes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bin {
    /// What is purged one day.
    Trash,
    /// What never is.
    Archive,
}

impl Bin {
    /// Where this record's volume goes.
    pub fn of(record: &Record) -> Bin {
        if record.on_delete() == OnDelete::Archive { Bin::Archive } else { Bin::Trash }
    }

    fn folder(self) -> &'static str {
        match self {
            Bin::Trash => TRASH,
            Bin::Archive => ARCHIVE,
        }
    }

    /// Where one of its places is.
    pub fn place(self, name: &str) -> Result<Path, PathError> {
        ours(&[self.folder(), name])
    }
}

/// What clearing a place of the trash came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleared {
    /// Nothing of it is there.
    Cleared,
    /// Somebody put something else into it, which stays, and so does all the rest.
    Mixed,
}

/// What bringing the data back came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// It is at its directory.
    Returned,
    /// Something else is there.
    Occupied,
    /// There is none.
    Gone,
}

/// The volume whose place in the trash has this name. None of a name that no place has.
pub fn volume_of(trash: &str) -> Option<&str> {
    trash.rsplit_once('.').map(|(id, _)| id)
}

impl Store {
    /// The names of all places, sorted.
    pub async fn bin(&self, bin: Bin) -> Result<Vec<String>, StoreError> {
        let entries = self.worker.list(&ours(&[bin.folder()])?, Depth::One).await?.unwrap_or_default();
        let mut names: Vec<String> = entries.iter().filter_map(name).map(String::from).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The newest record in a place; none where there is none, because its volume is being deleted or it is no place of ours. Whether it
    /// speaks for this place is for [`Record::fate`] to say.
    pub async fn binned(&self, bin: Bin, trash: &str) -> Result<Option<Record>, StoreError> {
        let Some(id) = volume_of(trash) else { return Ok(None) };
        self.newest(&bin.place(trash)?.join(RECORD)?, id).await
    }

    /// How much is left right below the directory of a deleted volume; none where it has none, and [`usize::MAX`] for more than can be
    /// listed.
    pub async fn left(&self, bin: Bin, trash: &str) -> Result<Option<usize>, StoreError> {
        match self.worker.list(&bin.place(trash)?.join(DATA)?, Depth::One).await {
            Ok(entries) => Ok(entries.map(|entries| entries.len())),
            Err(JuiceFsError::Refused(_)) => Ok(Some(usize::MAX)),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds a generation to the record in a place. False where somebody was faster, with this one or with moving the place's record.
    async fn claim(&self, next: &Record, trash: &str) -> Result<bool, StoreError> {
        let volume = Bin::of(next).place(trash)?.join(RECORD)?;
        let staged = self.stage(next, &volume).await?;
        match self.worker.move_exclusive(&staged.slot.0, &staged.place).await {
            Ok(Moved::Moved) => Ok(true),
            // A directory that it is to be moved into is not there: so the record was moved.
            Ok(_) | Err(JuiceFsError::Refused(_)) => {
                self.withdraw(staged.slot).await?;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Claims a place for its purge, with the record that says so.
    pub async fn claim_purge(&self, purging: &Record, trashed: &Trashed) -> Result<bool, StoreError> {
        let claimed = self.claim(purging, &trashed.trash).await?;
        if claimed {
            self.steps.reached("purge-claimed");
        }
        Ok(claimed)
    }

    /// Removes the data in a place that is claimed for its purge, and clones that were never data, and waits for this long at most for
    /// each of them.
    pub async fn purge_data(
        &self,
        record: &Record,
        trashed: &Trashed,
        patience: Duration,
    ) -> Result<Removal, StoreError> {
        let place = Bin::Trash.place(&trashed.trash)?;
        let mut removal = self.worker.remove_for(&place.clone().join(DATA)?, patience).await?;
        if removal == Removal::Done && record.origin.is_some() {
            removal = self.remove_clones_in(&place.join(RECORD)?, patience).await?;
        }
        if removal == Removal::Done {
            self.steps.reached("data-purged");
        }
        Ok(removal)
    }

    /// Removes what is left in a place whose data is purged. The record goes with its place in one move, before anything of it is
    /// removed: half of it would say nothing.
    pub async fn purge_place(&self, trashed: &Trashed) -> Result<Cleared, StoreError> {
        let place = Bin::Trash.place(&trashed.trash)?;
        if !self.has_only(&place, &[PATHS, RECORD]).await? {
            return Ok(Cleared::Mixed);
        }
        let staged = ours(&[STAGING, &unique()])?;
        // Where it is missing, another replica was faster.
        self.worker.move_exclusive(&place, &staged).await?;
        self.steps.reached("record-withdrawn");
        self.worker.remove(&staged).await?;
        Ok(Cleared::Cleared)
    }

    async fn has_only(&self, place: &Path, names: &[&str]) -> Result<bool, StoreError> {
        match self.worker.list(place, Depth::One).await {
            Ok(entries) => {
                Ok(entries.iter().flatten().all(|entry| name(entry).is_some_and(|name| names.contains(&name))))
            }
            // More than can be listed.
            Err(JuiceFsError::Refused(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Claims a place for bringing its volume back, with the record that says so.
    pub async fn claim_restore(&self, restoring: &Record, trashed: &Trashed) -> Result<bool, StoreError> {
        let claimed = self.claim(restoring, &trashed.trash).await?;
        if claimed {
            self.steps.reached("restore-claimed");
        }
        Ok(claimed)
    }

    /// Moves the records of a claimed place back to where volumes are. False where there is another volume of that id.
    pub async fn return_record(&self, restoring: &Record, trashed: &Trashed) -> Result<bool, StoreError> {
        let from = Bin::of(restoring).place(&trashed.trash)?.join(RECORD)?;
        let moved = self.worker.move_exclusive(&from, &ours(&[VOLUMES, &restoring.id])?).await?;
        if moved == Moved::Moved {
            self.steps.reached("record-returned");
        }
        let current = self.current(&restoring.id).await?;
        Ok(current.is_some_and(|current| current.nonce == restoring.nonce))
    }

    /// Says in its place that a volume which was claimed stays deleted.
    pub async fn release(&self, deleting: &Record, trashed: &Trashed) -> Result<bool, StoreError> {
        self.claim(deleting, &trashed.trash).await
    }

    /// What keeps a volume that nobody claimed yet from coming back: none is [`Returned::Returned`].
    ///
    /// A directory that stayed where it was must still be there; any other must not, since it would be somebody else's.
    pub async fn can_return(&self, deleting: &Record, trashed: &Trashed) -> Result<Returned, StoreError> {
        let data = Bin::of(deleting).place(&trashed.trash)?.join(DATA)?;
        let directory = path(&deleting.directory)?;
        let (data, there) = tokio::try_join!(self.worker.kind(&data), self.worker.kind(&directory))?;
        let stayed = deleting.shared || deleting.on_delete() == OnDelete::Retain;
        Ok(match (data, there) {
            (Some(_), None) => Returned::Returned,
            (None, Some(_)) if stayed => Returned::Returned,
            (Some(_), Some(_)) => Returned::Occupied,
            (None, _) => Returned::Gone,
        })
    }

    /// Moves the data back to a directory that the volume has reserved.
    pub async fn return_data(&self, restoring: &Record, trashed: &Trashed) -> Result<Returned, StoreError> {
        self.steps.reached("index-returned");
        let from = Bin::of(restoring).place(&trashed.trash)?.join(DATA)?;
        let to = path(&restoring.directory)?;
        let returned = match self.worker.kind(&from).await? {
            Some(_) => {
                if let [above @ .., _] = to.components()
                    && !above.is_empty()
                {
                    self.worker.make_directories(&Path::of(above)?).await?;
                }
                match self.worker.move_exclusive(&from, &to).await? {
                    Moved::Moved => Returned::Returned,
                    // Unless another one has just brought it back.
                    _ if self.worker.kind(&from).await?.is_none() => Returned::Returned,
                    _ => Returned::Occupied,
                }
            }
            None if self.worker.kind(&to).await?.is_some() => Returned::Returned,
            None => Returned::Gone,
        };
        if returned == Returned::Returned {
            self.steps.reached("data-returned");
        }
        Ok(returned)
    }

    /// Takes back the reservation of a volume that stays deleted, so that nothing at its directory is taken for its own.
    pub async fn unreserve(&self, record: &Record) -> Result<(), StoreError> {
        self.worker.remove(&entry_of(record)?).await?;
        Ok(())
    }

    /// Removes the place of a volume that was brought back: all that is left in it is the old index.
    pub async fn clear(&self, restoring: &Record, trashed: &Trashed) -> Result<Cleared, StoreError> {
        let place = Bin::of(restoring).place(&trashed.trash)?;
        if !self.has_only(&place, &[PATHS]).await? {
            return Ok(Cleared::Mixed);
        }
        self.worker.remove(&place).await?;
        self.steps.reached("trash-cleared");
        Ok(Cleared::Cleared)
    }

    /// Adds the record that says that a volume is back.
    pub async fn put_restored(&self, restored: &Record) -> Result<bool, StoreError> {
        debug_assert_eq!(restored.state, State::Ready);
        let put = self.put(restored).await?;
        if put {
            self.steps.reached("restored");
        }
        Ok(put)
    }
}
