//! What lies in `/.pith` and around the volumes, for whoever looks whether all of it is right, and what is put right there.

use std::collections::{BTreeMap, BTreeSet};

use pith_core::volume::check::Staged;
use pith_core::volume::{Directory, Record, State};

use super::{BELOW, ENTRY, PATHS, RECORD, STAGING, Store, StoreError, TRASH, VOLUMES, index, name, ours, trash_name};
use crate::juicefs::{Depth, Entry, JuiceFsError, Kind, Path};

impl Store {
    /// Every entry of the index: a directory, and whose it is.
    pub async fn entries(&self) -> Result<BTreeSet<(Vec<String>, String)>, StoreError> {
        let listed = self.worker.list(&ours(&[PATHS])?, Depth::Infinity).await?.unwrap_or_default();
        let entry = |it: &Entry| {
            let (id, directory) = it.path.components().split_last().filter(|_| it.kind == Kind::Directory)?;
            // `a/.below/b/<id>`: every second name is [`BELOW`], and what follows a directory's own name is an id.
            let is_entry = directory.len() % 2 == 1 && id != BELOW;
            is_entry.then(|| (directory.iter().step_by(2).cloned().collect(), id.clone()))
        };
        Ok(listed.iter().filter_map(entry).collect())
    }

    /// The directories in the root, and those beside these ones, whose names a volume's directory can have.
    pub async fn directories_beside<'a>(
        &self,
        volumes: impl IntoIterator<Item = &'a [String]>,
    ) -> Result<BTreeSet<Vec<String>>, StoreError> {
        let mut parents: BTreeSet<&[String]> = BTreeSet::from([&[][..]]);
        parents.extend(volumes.into_iter().filter_map(|volume| Some(volume.split_last()?.1)));
        let mut found = BTreeSet::new();
        for parent in parents {
            let listed = self.worker.list(&Path::of(parent)?, Depth::One).await?.unwrap_or_default();
            let beside = listed.iter().filter_map(name).map(|name| [parent, &[name.to_string()]].concat());
            found.extend(beside.filter(|directory| Directory::new(directory.clone()).is_ok()));
        }
        Ok(found)
    }

    /// What lies in the staging area.
    pub async fn staged(&self) -> Result<BTreeMap<String, Staged>, StoreError> {
        let listed = self.worker.list(&ours(&[STAGING])?, Depth::One).await?.unwrap_or_default();
        let mut found = BTreeMap::new();
        for name in listed.iter().filter_map(|entry| entry.path.components().last()) {
            // What is moved into place meanwhile is not left.
            if let Some(staged) = self.staged_as(name).await? {
                found.insert(name.clone(), staged);
            }
        }
        Ok(found)
    }

    async fn staged_as(&self, staged: &str) -> Result<Option<Staged>, StoreError> {
        let place = ours(&[STAGING, staged])?;
        match self.worker.kind(&place).await? {
            None => return Ok(None),
            Some(Kind::File) => return Ok(Some(Staged::NotOurs)),
            Some(Kind::Directory) => {}
        }
        let inside = self.worker.list(&place, Depth::One).await?.unwrap_or_default();
        let is_of_trash = |entry: &Entry| name(entry).is_some_and(|name| [PATHS, RECORD].contains(&name));
        let record = match inside.as_slice() {
            [] => return Ok(Some(Staged::Empty)),
            [entry] if name(entry) == Some(ENTRY) && self.is_mere_entry(&place).await? => {
                return Ok(Some(Staged::Empty));
            }
            all if is_generation(all) => self.opened(&place).await?,
            all if all.iter().all(is_of_trash) => self.purged(&place.join(RECORD)?).await?,
            _ => None,
        };
        Ok(Some(record.map_or(Staged::NotOurs, |record| Staged::Ours(record.id))))
    }

    /// Whether there is nothing in a directory but an entry that was begun.
    async fn is_mere_entry(&self, place: &Path) -> Result<bool, StoreError> {
        let all = self.worker.list(place, Depth::Infinity).await?.unwrap_or_default();
        Ok(all.len() <= 2 && all.iter().all(|it| it.kind == Kind::Directory))
    }

    /// The record in a directory, if it is this cluster's.
    async fn opened(&self, place: &Path) -> Result<Option<Record>, StoreError> {
        let bytes = self.worker.read(&place.clone().join(RECORD)?).await?;
        let record = bytes.and_then(|bytes| Record::open(&bytes, &self.key).ok());
        Ok(record.filter(|record| record.check_owner(&self.cluster).is_ok()))
    }

    /// The newest record in a directory, if its volume was purged: its place in the trash is on its way out.
    async fn purged(&self, volume: &Path) -> Result<Option<Record>, StoreError> {
        let Some(first) = self.opened(volume).await? else { return Ok(None) };
        match self.newest(volume, &first.id).await {
            Ok(newest) => Ok(newest.filter(|newest| matches!(newest.state, State::Purging(_)))),
            Err(StoreError::Record { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes from the staging area what is empty or this cluster's own. Whoever may still be at it is told, and tries again.
    pub async fn remove_staged(&self, name: &str) -> Result<(), StoreError> {
        match self.staged_as(name).await? {
            Some(Staged::NotOurs) => {
                Err(JuiceFsError::Refused(format!("/.pith/staging/{name} is not this cluster's")).into())
            }
            Some(Staged::Empty | Staged::Ours(_)) => {
                self.worker.remove(&ours(&[STAGING, name])?).await?;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Takes an entry out of the index, if it is empty as all of them are.
    pub async fn remove_entry(&self, directory: &[String], id: &str) -> Result<(), StoreError> {
        let entry = index(directory)?.join(id)?;
        match self.worker.list(&entry, Depth::One).await? {
            Some(inside) if !inside.is_empty() => {
                Err(JuiceFsError::Refused(format!("{entry} has something in it, which is not Pith's")).into())
            }
            Some(_) => {
                self.worker.remove(&entry).await?;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Moves everything that is recorded of a volume to the trash, where a person finds it. Its directory is not touched.
    pub async fn set_aside(&self, id: &str) -> Result<(), StoreError> {
        let trash = ours(&[TRASH, &trash_name(id)])?;
        self.worker.make_directories(&trash).await?;
        self.worker.move_exclusive(&ours(&[VOLUMES, id])?, &trash.join(RECORD)?).await?;
        Ok(())
    }
}

/// Whether this is a record, with the entry that a first one may have beside it.
fn is_generation(inside: &[Entry]) -> bool {
    let is_record = |entry: &Entry| entry.kind == Kind::File && entry.path.components() == [RECORD];
    inside.iter().any(is_record) && inside.iter().all(|entry| is_record(entry) || name(entry) == Some(ENTRY))
}
