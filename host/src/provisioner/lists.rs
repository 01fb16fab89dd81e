//! Volumes that are asked for without a Secret: a page of all of them, and one by its id.
//!
//! Their file systems come from the StorageClasses of our driver, each of which names the Secret that its volumes are made with, and from
//! the configuration. Beside what has a record there is what only a PersistentVolume knows: a volume that was not adopted yet, and one
//! whose StorageClass is gone.
//!
//! A list that lacks a file system would say that its volumes do not exist. So one that does not answer is an error, which names it.
//! Nothing is written on the way: a file system that is not made yet has no volumes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use pith_core::object::{Objects, PersistentVolume};
use pith_core::volume::{self, After, Record, RecordProblem};

use super::{Provisioner, Secrets, VolumeError};
use crate::cluster;
use crate::juicefs::store::{Store, StoreError};
use crate::juicefs::{FileSystem, FileSystemKey, JuiceFsError, SourceError};

/// The most entries of a page. With parameters and paths as long as they may be, they keep below the 4 MiB that gRPC's callers take.
pub(super) const LARGEST_PAGE: usize = 400;
/// How many records are read at once.
pub(super) const AT_ONCE: usize = 8;
/// For how many times as long as it took a listing of names serves the next pages too.
const KEPT: u32 = 10;
/// How many such questions are answered at once; others wait.
pub(super) const TURNS: usize = 4;

/// A part of the list of all volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the order of their ids.
    pub volumes: Vec<Record>,
    /// Where the next page begins, if there is one.
    pub next: Option<After>,
}

/// A file system whose volumes are listed.
pub(super) struct FileSystemSource {
    /// What names it, for a sentence.
    name: String,
    file_system: FileSystem,
}

impl FileSystemSource {
    /// That of a request.
    pub(super) fn of(secrets: &Secrets) -> Result<FileSystemSource, VolumeError> {
        let file_system = FileSystem::from_secrets(secrets.reveal());
        let file_system = file_system.map_err(|error| VolumeError::FailedPrecondition(error.to_string()))?;
        Ok(FileSystemSource { name: "the Secret of the request".into(), file_system })
    }

    pub(super) fn silent(&self, why: impl Display) -> VolumeError {
        silent(&format!("{}, in the file system `{}`,", self.name, self.file_system.name()), why)
    }
}

fn silent(name: &str, why: impl Display) -> VolumeError {
    VolumeError::Unavailable(format!("the volumes of {name} cannot be listed: {why}"))
}

/// The names of the volumes in file systems, for the pages that follow one after the other: of a hundred thousand, listing them takes
/// half a minute. A first page always lists them anew.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<FileSystemKey, (Arc<Vec<String>>, Instant)>);

impl Names {
    fn of(&mut self, key: FileSystemKey, now: Instant) -> Option<Arc<Vec<String>>> {
        self.0.retain(|_, (_, until)| *until > now);
        self.0.get(&key).map(|(names, _)| names.clone())
    }

    /// Keeps names that it took so long to list.
    fn keep(&mut self, key: FileSystemKey, names: Arc<Vec<String>>, took: Duration, now: Instant) {
        self.0.insert(key, (names, now + KEPT * took));
    }
}

/// What a file system says of an id.
enum Seen {
    Volume(Box<Record>),
    /// It is deleted, being made, or another cluster's.
    No,
    /// There is no record.
    Unknown,
    /// There is something that cannot be relied upon.
    Unreadable(StoreError),
}

impl Provisioner {
    /// Whether anything says which file systems there are.
    pub(super) fn has_sources(&self) -> bool {
        !self.options.secret_files.is_empty() || self.objects.has_secrets()
    }

    /// The file system that has a record of a volume, if one has.
    pub(super) async fn file_system_of(&self, id: &str) -> Result<Option<FileSystem>, VolumeError> {
        let _turn = self.turns.acquire().await.expect("nobody closes it");
        match self.found(id).await? {
            Some((source, _)) => Ok(Some(source.file_system.clone())),
            None => Ok(None),
        }
    }

    /// At most so many volumes behind an id; without a number, as many as a page takes.
    ///
    /// What it costs: one listing for each file system, which may serve several pages, and two requests for each volume of the page,
    /// three where it was changed.
    pub(super) async fn page_of(&self, after: Option<&After>, most: Option<usize>) -> Result<Page, VolumeError> {
        let _turn = self.turns.acquire().await.expect("nobody closes it");
        let most = most.unwrap_or(LARGEST_PAGE).min(LARGEST_PAGE);
        let objects = self.objects()?;
        let sources = self.sources(&objects).await?;
        let is_later = |id: &str| volume::is_id(id) && after.is_none_or(|after| after.has(id));
        // In the order of ids, with the file systems that have them.
        let mut ids: BTreeMap<String, Vec<Arc<FileSystemSource>>> = BTreeMap::new();
        for source in &sources {
            for id in self.ids(source, after.is_some()).await?.iter().filter(|id| is_later(id)) {
                ids.entry(id.clone()).or_default().push(source.clone());
            }
        }
        for volume in objects.persistent_volumes().filter(|volume| is_later(&volume.name) && self.may_be_ours(volume)) {
            ids.entry(volume.name.clone()).or_default();
        }
        let looks = ids.into_iter().map(|(id, holders)| {
            let objects = objects.clone();
            async move { self.listed(&objects, &id, &holders).await }
        });
        let mut found = stream::iter(looks).buffered(AT_ONCE);
        let mut volumes: Vec<Record> = Vec::new();
        while let Some(volume) = found.next().await {
            let Some(volume) = volume? else { continue };
            if volumes.len() == most {
                return Ok(Page { next: volumes.last().map(After::volume), volumes });
            }
            volumes.push(volume);
        }
        *self.names() = Names::default();
        Ok(Page { volumes, next: None })
    }

    /// The volume of an id, where nothing says which file system it is in.
    pub(super) async fn sought(&self, id: &str) -> Result<Record, VolumeError> {
        let _turn = self.turns.acquire().await.expect("nobody closes it");
        if let Some((_, record)) = self.found(id).await? {
            return Ok(record);
        }
        let volume = self.persistent_volume(id).await?;
        volume.and_then(|volume| self.only_seen(&volume)).ok_or_else(|| VolumeError::NotFound(id.into()))
    }

    /// The record of a volume and where it lies. None only where every file system says so.
    async fn found(&self, id: &str) -> Result<Option<(Arc<FileSystemSource>, Record)>, VolumeError> {
        let mut unanswered = None;
        for source in self.sources(&*self.objects()?).await? {
            match self.seen_in(&source, id).await {
                Ok(Seen::Volume(record)) => return Ok(Some((source, *record))),
                // Then a PersistentVolume says nothing any more.
                Ok(Seen::No) => _ = unanswered.get_or_insert_with(|| VolumeError::NotFound(id.into())),
                Ok(Seen::Unknown) => {}
                Ok(Seen::Unreadable(error)) => unanswered = Some(error.into()),
                // It may be in another one all the same.
                Err(error) => unanswered = Some(error),
            }
        }
        unanswered.map_or(Ok(None), Err)
    }

    /// The volume of an id that these file systems have something of, or only a PersistentVolume.
    async fn listed(
        &self,
        objects: &Objects,
        id: &str,
        holders: &[Arc<FileSystemSource>],
    ) -> Result<Option<Record>, VolumeError> {
        let mut decided = false;
        for source in holders {
            match self.seen_in(source, id).await? {
                // Should there be another one of this name elsewhere, no caller could tell the two apart.
                Seen::Volume(record) => return Ok(Some(*record)),
                Seen::No => decided = true,
                Seen::Unknown => {}
                // As a rule another cluster's, with a key of its own; `pith volumes check` tells of all of them.
                Seen::Unreadable(error) => tracing::debug!(volume = %id, %error, "a record is left out of a list"),
            }
        }
        if decided {
            return Ok(None);
        }
        Ok(objects.persistent_volume(id).and_then(|volume| self.only_seen(volume)))
    }

    /// A volume that its PersistentVolume alone tells of. Where that is about to go, only a record says that the volume is not gone
    /// already.
    fn only_seen(&self, volume: &PersistentVolume) -> Option<Record> {
        self.adopted(volume).ok().filter(|_| self.may_be_ours(volume)).map(|record| record.ready())
    }

    /// The cheapest part of that: there may be thousands.
    fn may_be_ours(&self, volume: &PersistentVolume) -> bool {
        volume.provisioned && volume.driver.as_deref() == Some(&self.options.driver) && !volume.is_going()
    }

    async fn seen_in(&self, source: &FileSystemSource, id: &str) -> Result<Seen, VolumeError> {
        let Some(store) = self.store_if_made(source).await? else { return Ok(Seen::Unknown) };
        match store.current(id).await {
            Ok(Some(record)) if record.is_there() => Ok(Seen::Volume(Box::new(record))),
            Ok(Some(_)) | Err(StoreError::Record { problem: RecordProblem::OtherCluster { .. }, .. }) => Ok(Seen::No),
            Ok(None) => Ok(Seen::Unknown),
            Err(error @ StoreError::Record { .. }) => Ok(Seen::Unreadable(error)),
            Err(StoreError::FileSystem(error) | StoreError::NothingLeft(error)) => Err(source.silent(error)),
        }
    }

    /// The ids that there are something of in a file system; for a further page, as they were a moment ago.
    async fn ids(&self, source: &FileSystemSource, is_further: bool) -> Result<Arc<Vec<String>>, VolumeError> {
        let key = source.file_system.key();
        if is_further && let Some(kept) = self.names().of(key, Instant::now()) {
            return Ok(kept);
        }
        let Some(store) = self.store_if_made(source).await? else { return Ok(Arc::default()) };
        let started = Instant::now();
        let ids = Arc::new(store.ids().await.map_err(|error| source.silent(error))?);
        self.names().keep(key, ids.clone(), started.elapsed(), Instant::now());
        Ok(ids)
    }

    fn names(&self) -> std::sync::MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn store_if_made(&self, source: &FileSystemSource) -> Result<Option<Store>, VolumeError> {
        match self.workers.is_made(&source.file_system).await {
            Ok(true) => self.store(&source.file_system).await.map(Some).map_err(|error| source.silent(error)),
            Ok(false) | Err(JuiceFsError::NotFormatted(_)) => Ok(None),
            Err(error) => Err(source.silent(error)),
        }
    }

    /// Every file system that anything names, once.
    pub(super) async fn sources(&self, objects: &Objects) -> Result<Vec<Arc<FileSystemSource>>, VolumeError> {
        let mut sources: Vec<Arc<FileSystemSource>> = Vec::new();
        let mut add = |name: String, content: &BTreeMap<String, String>| {
            match FileSystem::from_secrets(content) {
                // Pith makes no volumes there.
                Ok(file_system) if !self.workers.has_client(&file_system) => {}
                Ok(file_system) if sources.iter().any(|it| it.file_system.is(&file_system)) => {}
                Ok(file_system) => sources.push(Arc::new(FileSystemSource { name, file_system })),
                Err(SourceError::Subdir) => {}
                Err(error) => return Err(silent(&name, error)),
            }
            Ok(())
        };
        for path in &self.options.secret_files {
            let name = format!("the Secret in {}", path.display());
            let content = cluster::secret_in(path).map_err(|error| silent(&name, format!("{error:#}")))?;
            add(name, &content)?;
        }
        let mut read = BTreeSet::new();
        let secrets = objects.storage_classes().filter_map(|class| Some((class, class.provisioner_secret.as_deref()?)));
        for (class, secret) in secrets.filter(|_| self.objects.has_secrets()) {
            let is_of_driver = class.provisioner == self.options.driver;
            if is_of_driver && !secret.is_template() && read.insert(secret) {
                let name = format!("the StorageClass `{}`", class.name);
                let content = self.objects.secret(secret).await.map_err(|why| silent(&name, why))?;
                add(name, &content)?;
            }
        }
        Ok(sources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_for_longer_the_longer_it_took_to_list_them() {
        let secrets = [("name", "shop"), ("metaurl", "redis://redis:6379/1")];
        let secrets = secrets.map(|(key, value)| (key.to_string(), value.to_string())).into();
        let key = FileSystem::from_secrets(&secrets).expect("it is usable").key();
        let (mut names, ids) = (Names::default(), Arc::new(vec!["pvc-1".to_string()]));
        let listed = Instant::now();
        let after = |seconds| listed + Duration::from_secs(seconds);
        assert_eq!(names.of(key, listed), None);
        names.keep(key, ids.clone(), Duration::from_secs(2), listed);
        assert_eq!(names.of(key, after(19)), Some(ids));
        assert_eq!(names.of(key, after(20)), None);
        assert!(names.0.is_empty());
    }
}
