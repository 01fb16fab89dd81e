//! The durable record of a volume: what it says, how it is sealed, and what may follow from it.
//!
//! A record lies in the file system that the volumes lie in, where whoever mounts the root can write. So it is sealed
//! with a key that only Pith has, and what is not sealed so is no record. The seal does not say where a record lies:
//! one that was copied to another volume's place is still authentic, which is what [`Record::check_place`] is for.
//!
//! That everything of a record is made is said by a mark beside it, which is a seal of its own: that much shorter than a record
//! that it can be a name, so that saying it is one request and seeing it none.

use std::collections::BTreeSet;
use std::fmt;

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::place::{SUB_PATH, prefix};
use super::{Asked, Capability, Directory, NamedBy, Place, capacity, id};
use crate::object::{Claim, Entries};
use crate::policy::Quota;

/// What is known of a volume. A change makes the next generation, and the highest one counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// Who made it: several clusters may use one file system.
    pub cluster: String,
    /// The volume's id (see [`id`]).
    pub id: String,
    /// What tells it from a volume of the same name that was there before and is deleted: what was cut off from that one's
    /// making, and goes on later, must not count for this one.
    pub nonce: String,
    /// What was asked when it was made.
    pub asked: Asked,
    /// The claim that it was made for, where that is known.
    pub claim: Option<ClaimName>,
    /// Its directory, from the root of the file system.
    pub directory: Directory,
    /// True if other volumes may have the same directory.
    pub shared: bool,
    /// Who named the directory.
    pub named_by: NamedBy,
    /// Whether its size is enforced, where a policy said so when it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// Its size; 0 for no bound.
    pub capacity_bytes: u64,
    /// What mutable parameters it was changed to since it was made.
    #[serde(default, skip_serializing_if = "Entries::is_empty")]
    pub modified: Entries,
    /// The nonce of what it starts with, or is a snapshot of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// When it was begun, in seconds since 1970, if it is a snapshot's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_at: Option<u64>,
    /// How far it has come.
    pub state: State,
    /// From 1.
    pub generation: u64,
}

/// The name of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl From<&Claim> for ClaimName {
    fn from(claim: &Claim) -> ClaimName {
        ClaimName { namespace: claim.namespace.clone(), name: claim.name.clone() }
    }
}

impl fmt::Display for ClaimName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where a deleted volume lies, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trashed {
    /// The name of its place in the trash, chosen once, so that each step can be repeated.
    pub trash: String,
    /// When it was deleted, in seconds since 1970. Records of the first Pith do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
}

/// How far a volume has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum State {
    /// Its directory may not be there, or without its quota. In the file system, a mark beside the record may say that it is
    /// ready all the same (see [`Record::marked`]).
    Creating,
    /// It can be used.
    Ready,
    /// It is no more; what is left of it goes to the trash, and lies there.
    Deleting(Trashed),
    /// What is left of it in the trash is being removed.
    Purging(Trashed),
    /// It is on its way back from the trash.
    Restoring(Trashed),
}

/// The key that records are sealed with. Nothing shows it.
#[derive(Clone)]
pub struct RecordKey([u8; 32]);

impl From<[u8; 32]> for RecordKey {
    fn from(key: [u8; 32]) -> RecordKey {
        RecordKey(key)
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordKey")
    }
}

impl RecordKey {
    fn mac(&self, json: &[u8]) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.chain_update(json)
    }
}

/// Why a record cannot be relied upon. Each continues a sentence that begins with the record's path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordProblem {
    /// It is torn, or was never a record.
    #[error("it is torn, or no record: {0}")]
    Malformed(String),
    /// A volume is there, and no record of it.
    #[error("it is not there, and its volume is")]
    Missing,
    /// It does not carry the seal of this key.
    #[error("its seal does not fit: somebody changed or cut it, or it was sealed with another key")]
    NotAuthentic,
    /// It has a form that this version does not know.
    #[error("it was made by a newer Pith, in the format {0}: upgrade this one")]
    NewerFormat(u64),
    /// It is another cluster's.
    #[error("it belongs to the cluster `{owner}`, and this is `{cluster}`")]
    OtherCluster {
        /// Who made it.
        owner: String,
        /// Who reads it.
        cluster: String,
    },
    /// It was copied from somewhere else.
    #[error("it is generation {generation} of volume `{id}`, and does not belong there")]
    Misplaced {
        /// Whose record it is.
        id: String,
        /// Which of them.
        generation: u64,
    },
    /// It is of a volume of the same name that is deleted.
    #[error("it is generation {generation} of another volume that was called `{id}`, and was copied there")]
    OtherVolume {
        /// The name of both.
        id: String,
        /// Which of that one's records.
        generation: u64,
    },
}

/// The first word of a record.
const MAGIC: &str = "pith-record";
/// The newest format of both the first line and the JSON. Every older one is read: 1 has no volume that was adopted, and no time of a
/// deletion, 2 no mutable parameters and no word of a policy on the quota, 3 no snapshots and nothing that a volume starts with.
const FORMAT: u64 = 4;
/// The first word of what a mark seals. That is a list, and what a record seals an object, so neither is ever the other.
const MADE: &str = "pith-made";
/// The same of a clone's mark.
const CLONED: &str = "pith-cloned";

/// A record as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<R> {
    format: u64,
    record: R,
}

/// What of a record every version understands.
#[derive(Deserialize)]
struct Format {
    format: u64,
}

impl Record {
    /// The first record of a volume: what it will be, before anything of it is made. The nonce is a word that no other has.
    pub fn begin(
        cluster: &str,
        nonce: String,
        asked: Asked,
        claim: Option<ClaimName>,
        place: Place,
        capacity_bytes: u64,
    ) -> Record {
        Record {
            cluster: cluster.to_string(),
            id: id(&asked.name),
            nonce,
            asked,
            claim,
            directory: place.directory,
            shared: place.shared,
            named_by: place.named_by,
            quota: place.quota,
            capacity_bytes,
            modified: Entries::new(),
            origin: None,
            cut_at: None,
            state: State::Creating,
            generation: 1,
        }
    }

    /// Whether another provisioner has made the volume.
    pub fn is_adopted(&self) -> bool {
        self.named_by == NamedBy::PersistentVolume
    }

    pub(super) fn next(&self, change: impl FnOnce(&mut Record)) -> Record {
        let mut next = self.clone();
        next.generation += 1;
        change(&mut next);
        next
    }

    /// The same record, of which all is made. Its mark says so; a later record says it itself.
    pub fn ready(&self) -> Record {
        Record { state: State::Ready, ..self.clone() }
    }

    /// The next record: its size has changed.
    pub fn resized(&self, capacity_bytes: u64) -> Record {
        self.next(|next| next.capacity_bytes = capacity_bytes)
    }

    /// The record as a file: a line with the seal, then JSON.
    pub fn seal(&self, key: &RecordKey) -> Vec<u8> {
        let format = self.format();
        let envelope = Envelope { format, record: self };
        let json = serde_json::to_vec(&envelope).expect("every key is text and every number whole");
        let mac = hex::encode(key.mac(&json).finalize().into_bytes());
        [format!("{MAGIC} {format} {mac}\n").as_bytes(), &json].concat()
    }

    /// The oldest format that has all of it: an older Pith reads what it knows.
    fn format(&self) -> u64 {
        let is_newer = !self.asked.mutable_parameters.is_empty() || !self.modified.is_empty() || self.quota.is_some();
        match (&self.origin, is_newer) {
            (Some(_), _) => FORMAT,
            (None, true) => 3,
            (None, false) => 2,
        }
    }

    /// The mark that says that everything of this record is made.
    pub fn mark(&self, key: &RecordKey) -> String {
        hex::encode(self.mark_mac(key).finalize().into_bytes())
    }

    /// What the record is beside these marks: ready, if it was being made and one of them is its own. Any other is nothing, which
    /// is safe: the volume is being made then, and whoever makes it again finds what is there already and makes the mark.
    pub fn marked<'a>(self, marks: impl IntoIterator<Item = &'a str>, key: &RecordKey) -> Record {
        let fits = |mark: &str| hex::decode(mark).is_ok_and(|mac| self.mark_mac(key).verify_slice(&mac).is_ok());
        if self.state == State::Creating && marks.into_iter().any(fits) { self.ready() } else { self }
    }

    fn mark_mac(&self, key: &RecordKey) -> Hmac<Sha256> {
        let sealed = (MADE, &self.cluster, &self.id, &self.nonce, self.generation);
        key.mac(&serde_json::to_vec(&sealed).expect("it is text and a number"))
    }

    /// The mark that says that this clone for the record is complete.
    pub fn clone_mark(&self, clone: &str, key: &RecordKey) -> String {
        hex::encode(self.clone_mac(clone, key).finalize().into_bytes())
    }

    /// Whether that is what a mark says.
    pub fn is_clone_mark(&self, clone: &str, mark: &str, key: &RecordKey) -> bool {
        hex::decode(mark).is_ok_and(|mac| self.clone_mac(clone, key).verify_slice(&mac).is_ok())
    }

    fn clone_mac(&self, clone: &str, key: &RecordKey) -> Hmac<Sha256> {
        let sealed = (CLONED, &self.cluster, &self.id, &self.nonce, clone);
        key.mac(&serde_json::to_vec(&sealed).expect("it is text"))
    }

    /// Reads a record and checks its seal. Whose it is, and where it lies, the caller checks.
    pub fn open(bytes: &[u8], key: &RecordKey) -> Result<Record, RecordProblem> {
        let malformed = |why: &str| RecordProblem::Malformed(why.to_string());
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| malformed("it has no first line"))?;
        let (header, json) = (&bytes[..end], &bytes[end + 1..]);
        let header = str::from_utf8(header).ok().and_then(|line| line.strip_prefix(MAGIC)?.strip_prefix(' '));
        let header = header.and_then(|rest| rest.split_once(' '));
        let (format, mac) = header.ok_or_else(|| malformed("its first line is not that of a record"))?;
        let format = format.parse().map_err(|_| malformed("its format is no number"))?;
        check_format(format)?;
        // Only in the one form that is written: nothing about a record can be changed.
        let mac = hex::decode(mac).ok().filter(|bytes| hex::encode(bytes) == mac);
        let mac = mac.ok_or_else(|| malformed("its seal is not written in hexadecimal"))?;
        key.mac(json).verify_slice(&mac).map_err(|_| RecordProblem::NotAuthentic)?;

        let unreadable = |error: serde_json::Error| RecordProblem::Malformed(error.to_string());
        let sealed = serde_json::from_slice::<Format>(json).map_err(unreadable)?.format;
        check_format(sealed)?;
        // The first line is not sealed.
        if sealed != format {
            return Err(malformed("its first line has another format"));
        }
        Ok(serde_json::from_slice::<Envelope<Record>>(json).map_err(unreadable)?.record)
    }

    /// Refuses what another cluster made.
    pub fn check_owner(&self, cluster: &str) -> Result<(), RecordProblem> {
        if self.cluster == cluster {
            return Ok(());
        }
        Err(RecordProblem::OtherCluster { owner: self.cluster.clone(), cluster: cluster.to_string() })
    }

    /// Refuses what belongs to a volume of the same name that was there before, seen from the first record of the one that is.
    pub fn check_volume(&self, first: &Record) -> Result<(), RecordProblem> {
        if self.nonce == first.nonce {
            return Ok(());
        }
        Err(RecordProblem::OtherVolume { id: self.id.clone(), generation: self.generation })
    }

    /// Refuses what was found where another record belongs.
    pub fn check_place(&self, id: &str, generation: u64) -> Result<(), RecordProblem> {
        if self.id == id && self.generation == generation {
            return Ok(());
        }
        Err(RecordProblem::Misplaced { id: self.id.clone(), generation: self.generation })
    }

    /// Refuses a snapshot's where volumes' are, and the other way round.
    pub fn check_kind(&self, of_snapshots: bool) -> Result<(), RecordProblem> {
        if self.is_snapshot() == of_snapshots {
            return Ok(());
        }
        Err(RecordProblem::Misplaced { id: self.id.clone(), generation: self.generation })
    }

    /// What a node is told of the volume: the parameters, `subPath` (its directory, seen from `subdir`) and `capacity`.
    ///
    /// CSI wants the same answer for as long as the volume lives, so `capacity` stays what it was first.
    pub fn volume_context(&self) -> Entries {
        let mut context = self.asked.parameters.clone();
        let components = self.directory.components();
        // `place` has put it below the prefix.
        let prefix = prefix(&self.asked).unwrap_or_default();
        let relative = components.strip_prefix(prefix.as_slice()).unwrap_or(components);
        context.insert(SUB_PATH.to_string(), relative.join("/"));
        context.remove(CAPACITY);
        if let Ok(bytes @ 1..) = capacity(self.asked.required_bytes, self.asked.limit_bytes) {
            // The first record has it also where an older Pith has rounded it up to more.
            let first = if self.generation == 1 { self.capacity_bytes } else { bytes };
            context.insert(CAPACITY.to_string(), first.to_string());
        }
        context
    }
}

/// The attribute that says how large a volume was asked to be, in bytes.
pub(super) const CAPACITY: &str = "capacity";

fn check_format(format: u64) -> Result<(), RecordProblem> {
    match format {
        1..=FORMAT => Ok(()),
        0 => Err(RecordProblem::Malformed("its format is 0".to_string())),
        newer => Err(RecordProblem::NewerFormat(newer)),
    }
}

/// How a volume differs from what is asked of it now (ALREADY_EXISTS).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} exists already, and not as it is asked now: {field} is {was}, and {is} is asked")]
pub struct Difference {
    /// The volume or the snapshot.
    pub what: String,
    /// What differs.
    pub field: String,
    /// What it was when the volume was made.
    pub was: String,
    /// What it is now.
    pub is: String,
}

/// Whether a volume is what is asked: the same name, parameters and capabilities, and a size that fits.
pub fn compare(record: &Record, asked: &Asked) -> Result<(), Difference> {
    let before = &record.asked;
    let kind = if record.is_snapshot() { "snapshot" } else { "volume" };
    let difference = |field: String, was: String, is: String| {
        Err(Difference { what: format!("{kind} `{}`", before.name), field, was, is })
    };
    if before.name != asked.name {
        return difference("name".into(), quoted(Some(&before.name)), quoted(Some(&asked.name)));
    }
    if before.source != asked.source {
        let [was, is] = [before, asked].map(|it| it.source.as_ref().map_or("nothing".to_string(), ToString::to_string));
        return difference("content_source".into(), was, is);
    }
    let all = [
        ("parameters", &before.parameters, &asked.parameters),
        ("mutable_parameters", &before.mutable_parameters, &asked.mutable_parameters),
    ];
    for (field, before, asked) in all {
        let keys: BTreeSet<&String> = before.keys().chain(asked.keys()).collect();
        for key in keys {
            let (was, is) = (before.get(key), asked.get(key));
            if was != is {
                return difference(format!("{field}.{key}"), quoted(was), quoted(is));
            }
        }
    }
    let [were, are] = [before, asked].map(|it| it.capabilities.iter().collect::<BTreeSet<_>>());
    if were != are {
        let [was, is] = [&were, &are].map(modes);
        let is = if was == is { "the same with other mount flags".to_string() } else { is };
        return difference("capabilities".into(), was, is);
    }
    let sizes = |it: &Asked| [it.required_bytes, it.limit_bytes].map(|bytes| bytes.filter(|bytes| *bytes > 0));
    let [required, limit] = sizes(asked);
    let held = record.capacity_bytes;
    let fits = required.is_none_or(|least| held >= least) && limit.is_none_or(|most| held <= most);
    let said = |sizes: [Option<u64>; 2]| sizes.iter().any(Option::is_some);
    // The first request fits for ever, also when the volume has grown since.
    if sizes(before) != sizes(asked) && !(fits && said(sizes(before)) == said(sizes(asked))) {
        let was = if held == 0 { "without bound".to_string() } else { format!("{held} bytes") };
        return difference("capacity".into(), was, range(required, limit));
    }
    Ok(())
}

fn quoted(value: Option<&String>) -> String {
    value.map_or("not there".to_string(), |value| format!("`{value}`"))
}

/// Without the mount flags, which may be sensitive.
fn modes(capabilities: &BTreeSet<&Capability>) -> String {
    let modes: BTreeSet<&str> = capabilities.iter().map(|it| it.access_mode.as_str()).collect();
    modes.into_iter().collect::<Vec<_>>().join(" and ")
}

fn range(required: Option<u64>, limit: Option<u64>) -> String {
    match (required, limit) {
        (None, None) => "no size".to_string(),
        (Some(least), None) => format!("at least {least} bytes"),
        (None, Some(most)) => format!("at most {most} bytes"),
        (Some(least), Some(most)) => format!("{least} to {most} bytes"),
    }
}

#[cfg(test)]
mod tests;
