//! Snapshots made, found, listed and removed. A snapshot lies where no volume does, beside its record, and is a clone as a volume is that
//! starts with something (`origin`).

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use pith_core::volume::{self, After, Asked, Record, RecordProblem, Source, State};

use super::lists::{AT_ONCE, FileSystemSource, LARGEST_PAGE};
use super::{Page, Provisioner, RESTORING, Secrets, TRIES, VolumeError, now};
use crate::juicefs::store::{self, StoreError};

/// Which snapshots are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotQuery {
    /// Only this one.
    pub id: Option<String>,
    /// Only those of this volume.
    pub volume: Option<String>,
    /// Only those behind this one.
    pub after: Option<After>,
    /// At most so many.
    pub most: Option<usize>,
    /// What opens the file system; with nothing, it is looked for in all of them.
    pub secrets: Secrets,
}

impl SnapshotQuery {
    fn wants(&self, id: &str) -> bool {
        volume::is_id(id)
            && self.id.as_ref().is_none_or(|wanted| wanted == id)
            && self.after.as_ref().is_none_or(|after| after.has(id))
    }

    fn wants_record(&self, record: &Record) -> bool {
        let of = |volume: &String| record.asked.source == Some(Source::Volume(volume.clone()));
        record.state == State::Ready && self.volume.as_ref().is_none_or(of)
    }
}

fn busy(id: &str, why: &str) -> VolumeError {
    VolumeError::Aborted(format!("snapshot `{id}` {why}: ask again"))
}

impl Provisioner {
    /// Makes a snapshot, or finds it as it was made.
    pub(super) async fn cut(&self, asked: &Asked, secrets: &Secrets) -> Result<Record, VolumeError> {
        let id = volume::id(&asked.name);
        let (file_system, store) = self.open(secrets).await?;
        for _ in 0..TRIES {
            let record = match store.snapshot(&id).await? {
                Some(record) => {
                    volume::compare(&record, asked)?;
                    match record.state {
                        State::Ready => return Ok(record),
                        State::Creating => record,
                        State::Deleting(_) | State::Purging(_) => return Err(busy(&id, "is being deleted")),
                        State::Restoring(_) => return Err(busy(&id, RESTORING)),
                    }
                }
                None => {
                    volume::check_snapshot(&asked.parameters)?;
                    let source = asked.source.as_ref();
                    let source =
                        source.ok_or_else(|| VolumeError::InvalidArgument("a snapshot is of a volume".into()))?;
                    let origin = self.origin(&store, source).await?;
                    let cluster = &self.options.cluster;
                    let record = Record::snapshot(cluster, store::unique(), asked.clone(), &origin, now());
                    if !store.put(&record).await? {
                        continue;
                    }
                    record
                }
            };
            self.fill(&file_system, &store, &record).await?;
            return Ok(self.store(&file_system).await?.mark_made(&record).await?);
        }
        Err(busy(&id, "is being changed by another replica"))
    }

    /// The records of all snapshots of a file system, by id; where one cannot be relied upon, why.
    pub async fn list_snapshots(
        &self,
        secrets: &Secrets,
    ) -> Result<Vec<(String, Result<Record, StoreError>)>, VolumeError> {
        let (_, store) = self.open(secrets).await?;
        Ok(store.snapshot_records().await?)
    }

    /// How many files and directories of a volume that is being made were cloned of how many, when that was noted last.
    pub async fn noted_progress(&self, secrets: &Secrets, record: &Record) -> Result<Option<(u64, u64)>, VolumeError> {
        if record.origin.is_none() || record.state != State::Creating {
            return Ok(None);
        }
        let (_, store) = self.open(secrets).await?;
        Ok(store.progress(record).await?)
    }

    /// Moves a snapshot to the trash. One that is not there is removed.
    pub(super) async fn remove_snapshot(&self, id: &str, secrets: &Secrets) -> Result<(), VolumeError> {
        if secrets.reveal().is_empty() {
            return Err(VolumeError::FailedPrecondition(format!(
                "snapshot `{id}` was to be deleted without a Secret, so nothing says which file system it is in: name the Secret in \
                 the annotations snapshot.storage.kubernetes.io/deletion-secret-name and -namespace of its VolumeSnapshotContent, or \
                 in csi.storage.k8s.io/snapshotter-secret-name and -namespace of its VolumeSnapshotClass"
            )));
        }
        let (file_system, store) = self.open(secrets).await?;
        for _ in 0..TRIES {
            let Some(record) = store.snapshot(id).await? else { return Ok(()) };
            match &record.state {
                State::Deleting(trashed) => {
                    store.discard(&record, trashed).await?;
                    self.opened.look(&file_system);
                    return Ok(());
                }
                State::Restoring(_) => return Err(busy(id, RESTORING)),
                State::Creating | State::Ready | State::Purging(_) => {}
            }
            let deleting = record.deleting(&store::trash_name(id), now());
            if let Some(trashed) = deleting.trashed()
                && store.put(&deleting).await?
            {
                store.discard(&deleting, trashed).await?;
                self.opened.look(&file_system);
                return Ok(());
            }
        }
        Err(busy(id, "is being changed by another replica"))
    }

    /// The snapshots of a query, in the order of their ids.
    pub(super) async fn page_of_snapshots(&self, query: &SnapshotQuery) -> Result<Page, VolumeError> {
        let _turn = self.turns.acquire().await.expect("nobody closes it");
        let sources = match query.secrets.reveal().is_empty() {
            true => self.sources(&*self.objects()?).await?,
            false => vec![Arc::new(FileSystemSource::of(&query.secrets)?)],
        };
        let mut ids: BTreeMap<String, Vec<Arc<FileSystemSource>>> = BTreeMap::new();
        for source in &sources {
            let Some(store) = self.store_if_made(source).await? else { continue };
            let found = store.snapshot_ids().await.map_err(|error| source.silent(error))?;
            for id in found.into_iter().filter(|id| query.wants(id)) {
                ids.entry(id).or_default().push(source.clone());
            }
        }
        let looks = ids.into_iter().map(|(id, holders)| async move { self.snapshot_in(&id, &holders).await });
        let mut found = stream::iter(looks).buffered(AT_ONCE);
        let most = query.most.unwrap_or(LARGEST_PAGE).min(LARGEST_PAGE);
        let mut snapshots: Vec<Record> = Vec::new();
        while let Some(snapshot) = found.next().await {
            let Some(snapshot) = snapshot?.filter(|record| query.wants_record(record)) else { continue };
            if snapshots.len() == most {
                return Ok(Page { next: snapshots.last().map(After::volume), volumes: snapshots });
            }
            snapshots.push(snapshot);
        }
        Ok(Page { volumes: snapshots, next: None })
    }

    /// The snapshot of an id, in the first of these file systems that has one of this cluster.
    async fn snapshot_in(&self, id: &str, holders: &[Arc<FileSystemSource>]) -> Result<Option<Record>, VolumeError> {
        for source in holders {
            let Some(store) = self.store_if_made(source).await? else { continue };
            match store.snapshot(id).await {
                Ok(Some(record)) => return Ok(Some(record)),
                Ok(None) | Err(StoreError::Record { problem: RecordProblem::OtherCluster { .. }, .. }) => {}
                // As a rule another cluster's, with a key of its own.
                Err(error @ StoreError::Record { .. }) => {
                    tracing::debug!(snapshot = id, %error, "a record is left out of a list");
                }
                Err(error) => return Err(source.silent(error)),
            }
        }
        Ok(None)
    }
}
