//! A volume is changed in what can be changed beside its size: the next generation of its record says so, once its quota does.

use pith_core::object::Entries;
use pith_core::volume::{Record, State, check_mutable};

use super::{Provisioner, RESTORING, Secrets, TRIES, VolumeError, busy};
use crate::juicefs::FileSystem;
use crate::juicefs::store::Store;

impl Provisioner {
    pub(super) async fn change(&self, id: &str, asked: &Entries, secrets: &Secrets) -> Result<(), VolumeError> {
        check_mutable(asked)?;
        let (file_system, store) = match secrets.reveal().is_empty() {
            true => self.opened(self.home(id).await?).await?,
            false => self.open(secrets).await?,
        };
        for _ in 0..TRIES {
            let record = self.changeable(&store, id).await?;
            let Some(next) = record.modified(asked)? else { return Ok(()) };
            if next.inodes() != record.inodes() {
                self.check_inodes(&next)?;
                // A volume that was adopted may have none yet.
                store.make(&next.directory).await?;
                self.set_quota(&file_system, &store, &record, &next).await?;
            }
            if store.put(&next).await? {
                self.options.steps.reached("modified");
                return Ok(());
            }
        }
        Err(busy(id, "is being changed by another replica"))
    }

    /// The file system of a volume that is to be changed without a Secret.
    async fn home(&self, id: &str) -> Result<FileSystem, VolumeError> {
        if let Some(file_system) = self.file_system_of(id).await? {
            return Ok(file_system);
        }
        if self.persistent_volume(id).await?.is_none() {
            return Err(VolumeError::NotFound(id.into()));
        }
        Err(VolumeError::FailedPrecondition(format!(
            "volume `{id}` was to be changed without a Secret, and no file system that a StorageClass names has a record of it: name \
             the Secret in csi.storage.k8s.io/controller-modify-secret-name and -namespace of its StorageClass, or in the annotations \
             volume.kubernetes.io/controller-modify-secret-name and -namespace of its PersistentVolume"
        )))
    }

    /// The record of a volume that is ready for a change, adopted where it has none.
    pub(super) async fn changeable(&self, store: &Store, id: &str) -> Result<Record, VolumeError> {
        for _ in 0..TRIES {
            let record = match store.current(id).await? {
                Some(record) => record,
                None => self.to_expand(store, id).await?,
            };
            match record.state {
                State::Ready => return Ok(record),
                State::Creating if record.is_adopted() => {
                    self.settle(store, &record).await?;
                }
                State::Creating => return Err(busy(id, "is being made")),
                State::Deleting(_) | State::Purging(_) => return Err(busy(id, "is being deleted")),
                State::Restoring(_) => return Err(busy(id, RESTORING)),
            }
        }
        Err(busy(id, "is being changed by another replica"))
    }

    /// Refuses a bound that nothing would keep to.
    pub(super) fn check_inodes(&self, record: &Record) -> Result<(), VolumeError> {
        let kept = record.bound(self.options.quota).and_then(|bound| bound.inodes);
        match record.inodes().filter(|inodes| *inodes > 0) {
            Some(inodes) if kept.is_none() => Err(VolumeError::InvalidArgument(format!(
                "the parameter inodes is `{inodes}`, and the volume has its quota off (a policy, its class, or `csi.quota: false`), \
                 so nothing would keep to it"
            ))),
            _ => Ok(()),
        }
    }
}
