//! A look at all volumes of a file system, and the repair of what was found. What is wrong, and what can be done, is decided in
//! `pith_core::volume::check`; each repair looks again at what it is about before it does anything.

use std::collections::BTreeMap;

use pith_core::object::{Objects, SecretRef};
use pith_core::volume::check::{self, Finding, Observed, Repair, Unusable};
use pith_core::volume::{self, Quota, Record, RecordProblem, State};

use super::{Provisioner, Secrets, VolumeError, Volumes, busy};
use crate::juicefs::store::{Store, StoreError};

/// What is known of the cluster.
#[derive(Debug, Clone)]
pub struct Known<'a> {
    /// PersistentVolumes and claims, or why they were not looked at.
    pub objects: Result<&'a Objects, String>,
    /// Whether they are all that there are: files may lack some.
    pub complete: bool,
    /// The name of the Secret that opens the file system, where that is known.
    pub secret: Option<SecretRef>,
}

impl Provisioner {
    /// Everything that is wrong with the volumes of a file system, the worst first.
    pub async fn check(&self, secrets: &Secrets, known: Known<'_>) -> Result<Vec<Finding>, VolumeError> {
        let (file_system, store) = self.open(secrets).await?;
        // In the order in which a volume loses them, so that one that goes meanwhile does not seem to lack any.
        let entries = store.entries().await?;
        let mut records = BTreeMap::new();
        for (id, record) in store.records().await? {
            let record = match record {
                Ok(record) => Ok(record),
                Err(StoreError::Record { path, problem }) => Err(Unusable { path: path.to_string(), problem }),
                Err(error) => return Err(error.into()),
            };
            records.insert(id, record);
        }
        let recorded = records.values().filter_map(|it| Some(it.as_ref().ok()?.directory.components()));
        let entered = entries.iter().map(|(directory, _)| directory.as_slice());
        let directories = store.directories_beside(recorded.chain(entered)).await?;
        let quota = self.options.quota;
        let is_bounded = |record: &Result<Record, Unusable>| record.as_ref().is_ok_and(|it| it.bound(quota).is_some());
        let quotas = match quota == Quota::On || records.values().any(is_bounded) {
            true => self.workers.quotas(&file_system).await.map_err(|error| error.to_string()),
            false => Err("the configuration has `csi.quota: false`".into()),
        };
        let Known { objects, complete, secret } = known;
        Ok(check::check(&Observed {
            cluster: &self.options.cluster,
            driver: &self.options.driver,
            records,
            directories,
            entries,
            quotas,
            quota,
            quota_unit: file_system.quota_unit(),
            staged: store.staged().await?,
            objects,
            complete,
            secret,
        }))
    }

    /// Does what can be done about a finding, unless that is not so any more.
    pub async fn repair(&self, secrets: &Secrets, repair: &Repair) -> Result<(), VolumeError> {
        let (file_system, store) = self.open(secrets).await?;
        match repair {
            Repair::SetQuota(id) => {
                let record = in_state(&store, id, &State::Ready).await?;
                self.set_quota(&file_system, &store, &record, &record).await
            }
            Repair::Finish(id) => {
                let record = in_state(&store, id, &State::Creating).await?;
                self.carry_out(&file_system, &store, &record, false).await.map(|_| ())
            }
            Repair::GiveUp(id) => {
                in_state(&store, id, &State::Creating).await?;
                self.delete(id, secrets.clone()).await
            }
            Repair::Delete(id) => match store.current(id).await? {
                Some(Record { state: State::Deleting(_) | State::Purging(_), .. }) => {
                    self.delete(id, secrets.clone()).await
                }
                Some(_) => Err(busy(id, "is not being deleted any more")),
                None => Ok(()),
            },
            Repair::Restore(id) => self.restore(id, secrets).await.map(drop),
            Repair::Enter(id) => {
                let record = in_state(&store, id, &State::Ready).await?;
                match store.reserve(&record).await? {
                    None => Ok(()),
                    Some(taken) => Err(VolumeError::FailedPrecondition(taken.conflict.to_string())),
                }
            }
            Repair::RemoveEntry { directory, id } => remove_entry(&store, directory, id).await,
            Repair::RemoveStaged(name) => Ok(store.remove_staged(name).await?),
            Repair::Adopt(id) => match store.current(id).await? {
                Some(_) => Ok(()),
                None => self.record_again(&store, id).await,
            },
            Repair::Rewrite(id) => self.rewrite(&store, id).await,
        }
    }

    /// Sets aside what is no record, once it is sure that another one can be written.
    async fn rewrite(&self, store: &Store, id: &str) -> Result<(), VolumeError> {
        match store.current(id).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Record {
                problem: RecordProblem::Malformed(_) | RecordProblem::Missing | RecordProblem::Misplaced { .. },
                ..
            }) => {}
            Err(error) => return Err(error.into()),
        }
        if self.seen(id).await?.is_none() {
            return Err(VolumeError::NotFound(id.into()));
        }
        store.set_aside(id).await?;
        self.record_again(store, id).await
    }

    async fn record_again(&self, store: &Store, id: &str) -> Result<(), VolumeError> {
        let record = self.to_expand(store, id).await?;
        self.settle(store, &record).await.map(|_| ())
    }
}

/// The record of a volume, if that is still as it was found.
async fn in_state(store: &Store, id: &str, state: &State) -> Result<Record, VolumeError> {
    let record = store.current(id).await?.ok_or_else(|| VolumeError::NotFound(id.into()))?;
    if record.state == *state { Ok(record) } else { Err(busy(id, "has changed")) }
}

async fn remove_entry(store: &Store, directory: &[String], id: &str) -> Result<(), VolumeError> {
    let place = volume::Directory::new(directory.to_vec());
    let place = place.map_err(|problem| VolumeError::FailedPrecondition(problem.to_string()))?;
    match store.current(id).await? {
        Some(record) if record.directory == place => return Ok(()),
        None if store.is_there(&place).await? => return Err(busy(id, "has its directory again")),
        _ => {}
    }
    Ok(store.remove_entry(directory, id).await?)
}
