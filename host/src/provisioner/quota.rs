//! The quota of a volume's directory: set before anybody is answered, and looked at afterwards, so that none is missing in silence.

use pith_core::volume::{self, Record, State};

use super::{Provisioner, TRIES, VolumeError};
use crate::juicefs::FileSystem;
use crate::juicefs::store::{self, Store};

impl Provisioner {
    /// Bounds the directory of a volume that is to be as this next record has it.
    ///
    /// Where several volumes have the directory, it is the largest of them that counts. Of two that come at the same time at least
    /// one sees the other, and each looks again when it has set the quota: the last one to set it has seen both.
    pub(super) async fn set_quota(
        &self,
        file_system: &FileSystem,
        store: &Store,
        record: &Record,
        next: &Record,
    ) -> Result<(), VolumeError> {
        let (by_default, directory, bytes) = (self.options.quota, &record.directory, next.capacity_bytes);
        let is_bounded = |record: &Record| record.bound(by_default).is_some();
        if record.state == State::Ready && bytes != record.capacity_bytes && !is_bounded(next) {
            tracing::info!(volume = %record.id, %directory, bytes, "nothing enforces the size of the volume: a policy, its class or the configuration has its quota off");
        }
        let (mut set, mut found) = (None, None);
        for _ in 0..TRIES {
            let others = if record.shared { store.others_in(record).await? } else { Vec::new() };
            let bound = volume::bound(others.iter().chain([next]), by_default);
            let bound = bound.map(|bound| bound.whole(file_system.quota_unit()));
            if !others.iter().chain([record, next]).any(is_bounded) || set == Some(bound) {
                return Ok(());
            }
            let path = store::path(directory)?;
            self.workers.set_quota(file_system, &path, bound.unwrap_or_default()).await?;
            self.options.steps.reached("quota-set");
            found = self.workers.quota(file_system, &path).await?;
            let is_set = found == bound.map(|bound| bound.written());
            if is_set && !record.shared {
                return Ok(());
            }
            set = is_set.then_some(bound);
        }
        let found = found.map_or_else(|| "there is none".to_string(), |bound| format!("it is {bound}"));
        Err(VolumeError::Unavailable(format!(
            "the quota of {directory} does not stay as it is set: the client says that {found}; ask again"
        )))
    }
}
