//! What a volume is: what was asked, where it lies, and the durable record of both.
//!
//! ```text
//!   Asked ─ id ─ record? ┬─ Some: compare ──────────────────────────► Difference, or carry on where it stopped
//!                        └─ None: capacity ─ place ─ Record::begin ─► conflict? ─ .ready() ─ .resized() ─ .deleting() (trash)
//! ```
//!
//! A volume that another provisioner has made has no record: [`adopt`] reads it from its PersistentVolume, and [`users`] says which
//! others use its directory. [`check`] says what is wrong with all of them.
//!
//! The host reads and writes; what is read and written, and whether it may be, is decided here. Not here: the layout of
//! `/.pith` in the file system, CSI's types and its codes.

mod directory;
mod place;
mod record;
mod quota;
mod adoption;
mod listing;
mod origin;
mod mutable;
pub mod check;
mod trash;
mod manifest;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::object::Entries;

pub use adoption::{NotAdopted, User, adopt, named, users};
pub use directory::{Conflict, Directory, Holder, PathProblem, Relation, conflict};
pub use listing::After;
pub use manifest::{persistent_volume, quantity};
pub use mutable::{check_mutable, check_parameters};
pub use origin::{Source, capacity_from, check_snapshot};
pub use place::{NamedBy, NamingContext, Place, VolumeRefusal, place, whereabouts};
pub use quota::{Bound, Quota, bound};
pub use record::{ClaimName, Difference, Record, RecordKey, RecordProblem, State, Trashed, compare};
pub use trash::{Fate, MOST_TRASH_DAYS, OnDelete};

/// What CreateVolume asks. Secrets are not part of it: it is kept in the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Asked {
    /// The name that the caller chose, any text.
    pub name: String,
    /// `capacity_range.required_bytes`; absent for none.
    pub required_bytes: Option<u64>,
    /// `capacity_range.limit_bytes`; absent for none.
    pub limit_bytes: Option<u64>,
    /// How the volume is meant to be used.
    pub capabilities: Vec<Capability>,
    /// StorageClass parameters without those of Kubernetes itself (`csi.storage.k8s.io/…`).
    pub parameters: Entries,
    /// Parameters that can be changed later: those of a VolumeAttributesClass. They count for more than `parameters`.
    #[serde(default, skip_serializing_if = "Entries::is_empty")]
    pub mutable_parameters: Entries,
    /// What it starts with; absent for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// One way of using a volume. Always as a file system: block volumes are refused before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Capability {
    /// By whom.
    pub access_mode: VolumeAccessMode,
    /// `mountOptions` of the StorageClass. They may be sensitive: no sentence shows one, except for `subdir`.
    pub mount_flags: Vec<String>,
}

/// The access modes of CSI, which are finer than those of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VolumeAccessMode {
    /// One node, read and write.
    SingleNodeWriter,
    /// One node, read.
    SingleNodeReaderOnly,
    /// Many nodes, read.
    MultiNodeReaderOnly,
    /// Many nodes, one of which writes.
    MultiNodeSingleWriter,
    /// Many nodes, read and write.
    MultiNodeMultiWriter,
    /// One node, one workload that writes.
    SingleNodeSingleWriter,
    /// One node, many workloads that write.
    SingleNodeMultiWriter,
}

impl VolumeAccessMode {
    /// The name in CSI.
    pub fn as_str(self) -> &'static str {
        match self {
            VolumeAccessMode::SingleNodeWriter => "SINGLE_NODE_WRITER",
            VolumeAccessMode::SingleNodeReaderOnly => "SINGLE_NODE_READER_ONLY",
            VolumeAccessMode::MultiNodeReaderOnly => "MULTI_NODE_READER_ONLY",
            VolumeAccessMode::MultiNodeSingleWriter => "MULTI_NODE_SINGLE_WRITER",
            VolumeAccessMode::MultiNodeMultiWriter => "MULTI_NODE_MULTI_WRITER",
            VolumeAccessMode::SingleNodeSingleWriter => "SINGLE_NODE_SINGLE_WRITER",
            VolumeAccessMode::SingleNodeMultiWriter => "SINGLE_NODE_MULTI_WRITER",
        }
    }
}

/// Why a size cannot be given. Nothing was written: a final answer (OUT_OF_RANGE).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeProblem {
    /// The whole blocks that it takes are above the limit.
    #[error(
        "the size of a volume is whole blocks of {BLOCK} bytes, here at least {size} bytes, and the limit is {limit} bytes: raise \
         the limit, or ask for whole blocks"
    )]
    AboveLimit {
        /// The least size that would do.
        size: u64,
        /// What the caller allows.
        limit: u64,
    },
    /// CSI has no number for it.
    #[error("a volume of {0} bytes is too large")]
    TooLarge(u64),
    /// What it starts with may not fit into it.
    #[error(
        "a volume of {size} bytes is smaller than the {source_size} bytes of what it is to start with: ask for as much"
    )]
    BelowSource {
        /// The size that is asked.
        size: u64,
        /// The size of the other.
        source_size: u64,
    },
}

/// What files take of a quota, and what `df` shows of it, in bytes: less than this is no size.
const BLOCK: u64 = 4 << 10;

/// The id of the volume that CreateVolume calls so: the name itself where that is a safe file name, and else a digest
/// of it.
///
/// Two names never have one id: a name that reads like a digest becomes one too.
pub fn id(name: &str) -> String {
    const DIGEST: &str = "pith-";
    if is_id(name) && !name.starts_with(DIGEST) {
        return name.to_string();
    }
    format!("{DIGEST}{}", hex::encode(&Sha256::digest(name)[..20]))
}

/// Whether a text from outside can be an id, and so a file name. What cannot is no volume's.
pub fn is_id(text: &str) -> bool {
    let plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'_' | b'-');
    let begins_plainly = text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    begins_plainly && text.len() <= 128 && text.bytes().all(plain)
}

/// The size of a volume in bytes, whole blocks because files are. 0 where none is asked: the volume has no bound.
///
/// A limit alone asks for as much as it allows.
pub fn capacity(required: Option<u64>, limit: Option<u64>) -> Result<u64, SizeProblem> {
    // To CSI, 0 is "not said".
    let [required, limit] = [required, limit].map(|bytes| bytes.filter(|bytes| *bytes > 0));
    let size = match (required, limit) {
        (None, None) => return Ok(0),
        (None, Some(limit)) => (limit / BLOCK).max(1) * BLOCK,
        (Some(required), _) => required.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX),
    };
    match limit {
        Some(limit) if size > limit => Err(SizeProblem::AboveLimit { size, limit }),
        // CSI's sizes are signed.
        _ if i64::try_from(size).is_err() => Err(SizeProblem::TooLarge(size)),
        _ => Ok(size),
    }
}

#[cfg(test)]
mod tests;
