//! What a volume starts with, and snapshots: what is known of a volume as it was.
//!
//! A snapshot has a record as a volume has, of the same form and sealed alike, and what is deleted goes to the trash alike. What tells
//! it from a volume's is when it was begun: the one is never taken for the other, wherever it lies.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::record::{Record, State};
use super::trash::{ON_DELETE, OnDelete};
use super::{Asked, NamedBy, SizeProblem, VolumeRefusal, capacity, id};
use crate::object::Entries;

/// What a volume starts with, or a snapshot is of, by its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// Another volume.
    Volume(String),
    /// A snapshot.
    Snapshot(String),
}

impl Source {
    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Source::Volume(id) | Source::Snapshot(id) => id,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Volume(id) => write!(f, "volume `{id}`"),
            Source::Snapshot(id) => write!(f, "snapshot `{id}`"),
        }
    }
}

impl Record {
    /// The first record of a snapshot: of which volume, begun now (seconds since 1970). Its directory is the volume's.
    pub fn snapshot(cluster: &str, nonce: String, asked: Asked, source: &Record, now: u64) -> Record {
        Record {
            cluster: cluster.to_string(),
            id: id(&asked.name),
            nonce,
            asked,
            claim: source.claim.clone(),
            directory: source.directory.clone(),
            shared: false,
            named_by: NamedBy::VolumeName,
            quota: None,
            capacity_bytes: source.capacity_bytes,
            modified: Entries::new(),
            origin: Some(source.nonce.clone()),
            cut_at: Some(now),
            state: State::Creating,
            generation: 1,
        }
    }

    /// The same, of a volume that starts with what this is now: another one of the same id is not meant.
    pub fn starting_with(self, source: &Record) -> Record {
        Record { origin: Some(source.nonce.clone()), ..self }
    }

    /// Whether it is a snapshot's.
    pub fn is_snapshot(&self) -> bool {
        self.cut_at.is_some()
    }

    /// Whether this is what a volume starts with, or a snapshot is of, and has all of its data.
    pub fn is_origin_of(&self, other: &Record) -> bool {
        self.state == State::Ready && other.origin.as_ref() == Some(&self.nonce)
    }
}

/// Refuses what no snapshot can have.
pub fn check_snapshot(parameters: &Entries) -> Result<(), VolumeRefusal> {
    match OnDelete::of(parameters)? {
        OnDelete::Retain => Err(VolumeRefusal::Parameter {
            name: ON_DELETE,
            value: "retain".into(),
            rule: "a snapshot lies where nobody mounts it, so it is deleted (`delete`) or moved aside for good (`archive`)",
        }),
        OnDelete::Delete(_) | OnDelete::Archive => Ok(()),
    }
}

/// The size of a volume that starts with something of this size, which may be 0 for no bound. Where none is asked, it is that one.
pub fn capacity_from(source_size: u64, required: Option<u64>, limit: Option<u64>) -> Result<u64, SizeProblem> {
    match capacity(required, limit)? {
        0 => Ok(source_size),
        size if size < source_size => Err(SizeProblem::BelowSource { size, source_size }),
        size => Ok(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::entries;

    #[test]
    fn what_starts_with_something_has_room_for_it() {
        let check = |source, required, limit, expected: Result<u64, &str>| {
            let size = capacity_from(source, required, limit).map_err(|problem| problem.to_string());
            assert_eq!(size, expected.map_err(String::from), "{source} {required:?} {limit:?}");
        };
        const MIB: u64 = 1 << 20;
        check(0, None, None, Ok(0));
        check(0, Some(MIB), None, Ok(MIB));
        check(MIB, None, None, Ok(MIB));
        check(MIB, Some(MIB), None, Ok(MIB));
        check(MIB, Some(MIB), Some(2 * MIB), Ok(MIB));
        check(MIB, None, Some(2 * MIB), Ok(2 * MIB));
        check(MIB, Some(2 * MIB), None, Ok(2 * MIB));
        let small =
            "a volume of 1048576 bytes is smaller than the 2097152 bytes of what it is to start with: ask for as much";
        check(2 * MIB, Some(MIB), None, Err(small));
        check(2 * MIB, None, Some(MIB), Err(small));
    }

    #[test]
    fn a_snapshot_never_stays_where_it_is() {
        let check = |parameters: &[(&str, &str)], expected: &str| {
            let said =
                check_snapshot(&entries(parameters)).err().map(|refusal| refusal.to_string()).unwrap_or_default();
            assert!(said.starts_with(expected) && said.is_empty() == expected.is_empty(), "{said}");
        };
        check(&[], "");
        check(&[("onDelete", "archive")], "");
        check(&[("trashDays", "0")], "");
        check(&[("onDelete", "retain")], "the parameter onDelete is `retain`: a snapshot lies where nobody mounts it");
        check(&[("onDelete", "burn")], "the parameter onDelete is `burn`: write");
    }
}
