//! Volumes without a record, which another provisioner has made: what their PersistentVolumes say is written into a record first, and
//! then they are deleted and resized as any other. So a call that is cut off is gone on with, and a new volume sees whose a directory
//! is.
//!
//! And the PersistentVolumes that use a volume's directory without a record of their own: it stays while there is one.

use std::sync::Arc;
use std::time::Instant;

use pith_core::object::{Objects, PersistentVolume, Reference, SecretRef};
use pith_core::volume::{self, NotAdopted, Record, State, User};

use super::{Provisioner, VolumeError, busy};
use crate::juicefs::FileSystem;
use crate::juicefs::store::{self, Begun, Store};

impl Provisioner {
    /// The record of a volume that is to be deleted and has none; none where there is nothing to delete.
    pub(super) async fn to_delete(&self, store: &Store, id: &str) -> Result<Option<Record>, VolumeError> {
        let Some(volume) = self.persistent_volume(id).await? else {
            tracing::info!(volume = %id, "there is neither a record nor a PersistentVolume of it: it counts as deleted");
            return Ok(None);
        };
        let record = match self.adopted(&volume) {
            Ok(_) if !volume.goes_with_claim => return Err(refusal(&volume, &NotAdopted::Retained)),
            Ok(record) => record,
            Err(NotAdopted::MadeByHand) => {
                tracing::warn!(volume = %id, "its PersistentVolume was made by hand: nothing of it is deleted");
                return Ok(None);
            }
            Err(why) => return Err(refusal(&volume, &why)),
        };
        if !store.is_there(&record.directory).await? {
            tracing::info!(volume = %id, directory = %record.directory, "its directory is not there: it counts as deleted");
            return Ok(None);
        }
        self.begin(store, record).await.map(Some)
    }

    /// The record of a volume that is to be resized and has none.
    pub(super) async fn to_expand(&self, store: &Store, id: &str) -> Result<Record, VolumeError> {
        let volume = self.persistent_volume(id).await?.ok_or_else(|| VolumeError::NotFound(id.into()))?;
        let record = self.adopted(&volume).map_err(|why| refusal(&volume, &why))?;
        self.begin(store, record).await
    }

    /// A volume without a record as it would be with one.
    pub(super) async fn seen(&self, id: &str) -> Result<Option<Record>, VolumeError> {
        let volume = self.persistent_volume(id).await?;
        Ok(volume.and_then(|volume| self.adopted(&volume).ok()).map(|record| record.ready()))
    }

    pub(super) fn adopted(&self, volume: &PersistentVolume) -> Result<Record, NotAdopted> {
        volume::adopt(volume, &self.options.driver, &self.options.cluster, store::unique())
    }

    async fn begin(&self, store: &Store, record: Record) -> Result<Record, VolumeError> {
        match store.begin(store.slot().await?, &record).await? {
            Begun::Begun => {
                tracing::info!(volume = %record.id, directory = %record.directory, "a volume without a record was adopted");
                Ok(record)
            }
            Begun::Overtaken | Begun::Occupied => Err(busy(&record.id, "is being adopted by another replica")),
        }
    }

    /// Enters the directory of a volume that is adopted as its own. One that a volume with a record has already is an error, and then
    /// nothing of it is adopted.
    pub(super) async fn settle(&self, store: &Store, record: &Record) -> Result<Record, VolumeError> {
        let Some(taken) = store.reserve(record).await? else { return Ok(store.mark_made(record).await?) };
        store.abandon(record).await?;
        let sentence = taken.conflict.to_string();
        Err(if taken.unsettled { VolumeError::Aborted(sentence) } else { VolumeError::FailedPrecondition(sentence) })
    }

    /// Whether the directory of a volume that is to be deleted stays, because something else uses it.
    pub(super) async fn is_kept(
        &self,
        file_system: &FileSystem,
        store: &Store,
        record: &Record,
    ) -> Result<bool, VolumeError> {
        if record.is_adopted() && record.state == State::Creating {
            match store.reserve(record).await? {
                None => {
                    store.mark_made(record).await?;
                }
                Some(taken) if taken.unsettled => return Err(VolumeError::Aborted(taken.conflict.to_string())),
                Some(taken) => {
                    tracing::warn!(volume = %record.id, conflict = %taken.conflict, "the directory of a deleted volume stays");
                    return Ok(true);
                }
            }
        }
        let objects = self.objects()?;
        let driver = &self.options.driver;
        let known = objects.persistent_volumes().map(|volume| &**volume);
        let users = volume::users(record, driver, &objects, known);
        let mut users = self.unrecorded(file_system, store, record, users).await?;
        if users.is_empty() && (record.shared || record.is_adopted()) {
            // What many may have is not deleted by what was known a moment ago.
            let now = self.objects.volumes_now().await.map_err(|why| {
                let sentence =
                    format!("the PersistentVolumes that may use {} cannot be listed: {why}", record.directory);
                VolumeError::Unavailable(sentence)
            })?;
            let now = volume::users(record, driver, &objects, now.iter().map(|volume| &**volume));
            users = self.unrecorded(file_system, store, record, now).await?;
        }
        let (used_by, directory) = (volume::named(&users), &record.directory);
        if users.iter().any(|user| !user.is_going) {
            tracing::warn!(volume = %record.id, %directory, %used_by, "the directory of a deleted volume stays");
            return Ok(true);
        }
        if users.is_empty() {
            return Ok(false);
        }
        Err(VolumeError::Aborted(format!(
            "the directory {directory} is that of the PersistentVolume {used_by} too, which is being deleted: ask again"
        )))
    }

    /// Those of the users that are in this file system, and have no record that says that the directory is theirs: where they have,
    /// whoever deletes either of the two sees the other.
    async fn unrecorded(
        &self,
        file_system: &FileSystem,
        store: &Store,
        record: &Record,
        users: Vec<User>,
    ) -> Result<Vec<User>, VolumeError> {
        let mut kept = Vec::new();
        for user in users {
            let other = match &user.id {
                Some(id) if volume::is_id(id) => store.current(id).await?,
                _ => None,
            };
            let is_entered = other.is_some_and(|other| other.directory == record.directory);
            let is_elsewhere = match &user.elsewhere {
                Some(secret) if !is_entered => self.is_elsewhere(file_system, store, &user, secret).await?,
                _ => false,
            };
            if !is_entered && !is_elsewhere {
                kept.push(user);
            }
        }
        Ok(kept)
    }

    /// Whether a volume is in another file system than this one.
    async fn is_elsewhere(
        &self,
        file_system: &FileSystem,
        store: &Store,
        user: &User,
        secret: &SecretRef,
    ) -> Result<bool, VolumeError> {
        let unknown = |why: String| {
            VolumeError::FailedPrecondition(format!(
                "whether the PersistentVolume `{}` uses the same directory cannot be told: {why}",
                user.volume
            ))
        };
        let content = self.objects.secret(secret).await.map_err(unknown)?;
        let other = FileSystem::from_secrets(&content).map_err(|error| unknown(error.to_string()))?;
        if other.key() == file_system.key() {
            return Ok(false);
        }
        let worker = self.workers.get(&other).await?;
        Ok(!store.is_seen_by(&worker).await?)
    }

    /// Our driver's PersistentVolume of an id: that of its name, else any that has it as its handle. Where it was made a moment ago, the API
    /// server is asked.
    pub(super) async fn persistent_volume(&self, id: &str) -> Result<Option<Arc<PersistentVolume>>, VolumeError> {
        let known = self.objects()?;
        let of_handle = |objects: &Objects| {
            let driver = Some(self.options.driver.as_str());
            let is_it = |volume: &&Arc<PersistentVolume>| volume.handle() == id && volume.driver.as_deref() == driver;
            let named = objects.persistent_volume(id).filter(is_it);
            named.or_else(|| objects.persistent_volumes().find(is_it)).cloned()
        };
        if let Some(volume) = of_handle(&known) {
            return Ok(Some(volume));
        }
        let wanted = Reference::PersistentVolume(id.to_string());
        let look_up = |objects: &Objects| {
            let missing = [&wanted].into_iter().filter(|it| !objects.contains(it)).cloned().collect();
            (of_handle(objects), missing)
        };
        let found = self.objects.decide(Instant::now() + self.options.naming_timeout, look_up).await;
        found.map_err(|unanswered| VolumeError::Unavailable(unanswered.to_string()))
    }

    /// The objects, once they are all there.
    pub(super) fn objects(&self) -> Result<Arc<Objects>, VolumeError> {
        match self.objects.waiting() {
            Some(why) => Err(VolumeError::Unavailable(why)),
            None => Ok(self.objects.snapshot()),
        }
    }
}

fn refusal(volume: &PersistentVolume, why: &NotAdopted) -> VolumeError {
    let name = &volume.name;
    VolumeError::FailedPrecondition(format!(
        "volume `{name}` has no record, and of its PersistentVolume `{name}`: {why}"
    ))
}
