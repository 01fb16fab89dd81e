//! What is wrong with the volumes of a file system, from what was read of it to findings, and what repairing each would do.
//!
//! What belongs to another cluster's record is nobody's business here, and no repair deletes data: what goes, goes to the trash, and
//! only on the word of a sealed record.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

use serde::{Serialize, Serializer};

use super::{Bound, Directory, NotAdopted, Quota, Record, RecordProblem, State, adopt, bound, whereabouts};
use crate::catalogue::{Code, Level};
use crate::check::{Object, Read};
use crate::object::{Objects, PersistentVolume, SecretRef};

/// Everything that was read.
#[derive(Debug, Clone)]
pub struct Observed<'a> {
    /// The name of this cluster in records.
    pub cluster: &'a str,
    /// The name of the CSI driver.
    pub driver: &'a str,
    /// What is recorded, by the volume's id.
    pub records: BTreeMap<String, Read<Record, Unusable>>,
    /// Every directory in the root, and beside those of volumes, that has no reserved name.
    pub directories: BTreeSet<Vec<String>>,
    /// Who is entered in the index, and for which directory.
    pub entries: BTreeSet<(Vec<String>, String)>,
    /// The quotas, as the client writes what they bound, by path.
    pub quotas: Read<BTreeMap<String, String>>,
    /// Whether the size of a volume is enforced whose class does not say it.
    pub quota: Quota,
    /// What the space of a quota is a multiple of, in bytes.
    pub quota_unit: u64,
    /// What lies in the staging area, by its name there: the record that it holds, or what it is instead.
    pub staged: BTreeMap<String, Staged>,
    /// PersistentVolumes and claims.
    pub objects: Read<&'a Objects>,
    /// Whether they are all that there are: files may lack some.
    pub complete: bool,
    /// The Secret that opens the file system, where its name is known.
    pub secret: Option<SecretRef>,
}

/// A record that cannot be relied upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Where it lies.
    pub path: String,
    /// What is wrong with it.
    pub problem: RecordProblem,
}

/// What lies in the staging area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Staged {
    /// Nothing yet.
    Empty,
    /// A record of this cluster, of the volume with this id.
    Ours(String),
    /// Something else.
    NotOurs,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What it is.
    #[serde(flatten)]
    pub found: crate::check::Finding,
    /// What `pith volumes repair` does about it; absent where a person has to.
    pub repair: Option<Repair>,
}

/// What can be done about a finding. Each is decided again when it is done, on what is there then.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repair {
    /// Sets the quota of a volume again.
    SetQuota(String),
    /// Makes what is missing of a volume.
    Finish(String),
    /// Deletes a volume that nobody waits for: what is there of it goes to the trash.
    GiveUp(String),
    /// Goes on with a deletion.
    Delete(String),
    /// Goes on with bringing a volume back from the trash.
    Restore(String),
    /// Enters a volume in the index.
    Enter(String),
    /// Takes an empty entry out of the index.
    RemoveEntry {
        /// The directory that it is for.
        directory: Vec<String>,
        /// Whose it is.
        id: String,
    },
    /// Removes what was left in the staging area.
    RemoveStaged(String),
    /// Writes the record of a volume, as its PersistentVolume has it.
    Adopt(String),
    /// Sets a record aside, in the trash, and writes it again, as the PersistentVolume has it.
    Rewrite(String),
}

impl Display for Repair {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Repair::SetQuota(id) => write!(f, "set the quota of volume `{id}` again"),
            Repair::Finish(id) => write!(f, "make what is missing of volume `{id}`"),
            Repair::GiveUp(id) => write!(f, "move what is there of volume `{id}` to the trash, as nobody waits for it"),
            Repair::Delete(id) => write!(f, "move what is left of volume `{id}` to the trash"),
            Repair::Restore(id) => write!(f, "go on with bringing volume `{id}` back from the trash"),
            Repair::Enter(id) => write!(f, "enter volume `{id}` in the index"),
            Repair::RemoveEntry { directory, id } => {
                write!(f, "remove the empty entry of volume `{id}` for /{} from the index", directory.join("/"))
            }
            Repair::RemoveStaged(name) => write!(f, "remove /.pith/staging/{name}"),
            Repair::Adopt(id) => write!(f, "write a record for volume `{id}`, as its PersistentVolume has it"),
            Repair::Rewrite(id) => {
                write!(
                    f,
                    "set the record of volume `{id}` aside, in the trash, and write it again, as its PersistentVolume has it"
                )
            }
        }
    }
}

impl Serialize for Repair {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Everything that is wrong, the worst first.
pub fn check(observed: &Observed<'_>) -> Vec<Finding> {
    let mut check = Check { observed, findings: Vec::new() };
    for (id, record) in &observed.records {
        match record {
            Ok(record) => check.record(record),
            Err(unusable) => check.unusable(id, unusable),
        }
    }
    check.quotas();
    check.entries();
    check.directories();
    check.staged();
    check.persistent_volumes();
    check.findings.sort();
    check.findings
}

/// The findings so far.
struct Check<'a> {
    observed: &'a Observed<'a>,
    findings: Vec<Finding>,
}

impl<'a> Check<'a> {
    fn found(&mut self, level: Level, code: Code, object: Object, message: impl Into<String>, repair: Option<Repair>) {
        let action = code.entry().action;
        let found = crate::check::Finding { level, code, object, message: message.into(), action };
        self.findings.push(Finding { found, repair });
    }

    fn not_looked_at(&mut self, kind: &str, why: impl Into<String>) {
        self.found(Level::Info, Code::NotLookedAt, Object::all(kind), why, None);
    }

    /// The records that can be relied upon, which are those of this cluster.
    fn records(&self) -> impl Iterator<Item = &'a Record> + use<'a> {
        self.observed.records.values().filter_map(|record| record.as_ref().ok())
    }

    /// The PersistentVolume of an id, where they were read.
    fn persistent_volume(&self, id: &str) -> Option<&'a PersistentVolume> {
        let objects = self.observed.objects.as_ref().ok()?;
        objects
            .persistent_volumes()
            .map(|volume| &**volume)
            .find(|volume| self.is_of_driver(volume) && volume.handle() == id)
    }

    fn is_of_driver(&self, volume: &PersistentVolume) -> bool {
        volume.driver.as_deref() == Some(self.observed.driver)
    }

    fn adopted(&self, volume: &PersistentVolume) -> Result<Record, NotAdopted> {
        adopt(volume, self.observed.driver, self.observed.cluster, String::new())
    }

    fn unusable(&mut self, id: &str, Unusable { path, problem }: &Unusable) {
        if matches!(problem, RecordProblem::OtherCluster { .. }) {
            return;
        }
        // A seal that does not fit may be that of another key, or of another cluster's.
        let is_no_record =
            matches!(problem, RecordProblem::Malformed(_) | RecordProblem::Missing | RecordProblem::Misplaced { .. });
        let says_where = |volume: &PersistentVolume| self.observed.complete && self.adopted(volume).is_ok();
        let repair = self.persistent_volume(id).filter(|volume| is_no_record && says_where(volume));
        let repair = repair.map(|_| Repair::Rewrite(id.to_string()));
        let message = format!("the record {path}: {problem}");
        self.found(Level::Error, Code::VolumeRecordUnusable, Object::of("Volume", id), message, repair);
    }

    fn record(&mut self, record: &Record) {
        let id = record.id.clone();
        let volume = Object::of("Volume", &id);
        match &record.state {
            State::Deleting(_) | State::Purging(_) => {
                let message = "it is being deleted, and what is left of it is still where it was";
                let repair = Some(Repair::Delete(id));
                return self.found(Level::Warning, Code::VolumeDeletionUnfinished, volume, message, repair);
            }
            State::Restoring(_) => {
                let message = "it is being brought back from the trash, and nobody seems to be at it";
                let repair = Some(Repair::Restore(id));
                return self.found(Level::Warning, Code::VolumeUnfinished, volume, message, repair);
            }
            State::Creating => {
                let (message, repair) = self.unfinished(record);
                return self.found(Level::Warning, Code::VolumeUnfinished, volume, message, repair);
            }
            State::Ready => {}
        }
        let directory = &record.directory;
        if !self.observed.directories.contains(directory.components()) {
            let message = format!("its directory {directory} is not there");
            self.found(Level::Error, Code::VolumeDirectoryMissing, volume.clone(), message, None);
        }
        if !self.observed.entries.contains(&(directory.components().to_vec(), id.clone())) {
            let message =
                format!("the index does not say that {directory} is its directory, so another volume may get it");
            self.found(Level::Error, Code::VolumeNotEntered, volume.clone(), message, Some(Repair::Enter(id.clone())));
        }
        if self.observed.complete && self.observed.objects.is_ok() && self.persistent_volume(&id).is_none() {
            let message = format!("no PersistentVolume has it: nobody can mount it, and nobody deletes {directory}");
            self.found(Level::Info, Code::VolumeUnclaimed, volume, message, None);
        }
    }

    /// What is said of a volume that is half made, and what is to be done with it.
    fn unfinished(&self, record: &Record) -> (&'static str, Option<Repair>) {
        const HALF: &str = "it is half made, and nobody seems to be at it";
        let id = record.id.clone();
        let Ok(objects) = self.observed.objects else {
            return ("it is half made; whether anybody waits for it is not known without the cluster", None);
        };
        // external-provisioner calls a volume by its claim's UID.
        let is_claimed = |uid: &str| objects.claims().any(|claim| claim.uid == uid);
        let uid = record.asked.name.strip_prefix("pvc-");
        if self.persistent_volume(&id).is_some() || uid.is_some_and(is_claimed) {
            return (HALF, Some(Repair::Finish(id)));
        }
        if self.observed.complete && uid.is_some() {
            return (
                "it is half made, and neither a claim nor a PersistentVolume waits for it",
                Some(Repair::GiveUp(id)),
            );
        }
        ("it is half made, and whether anybody waits for it is not known", None)
    }

    fn quotas(&mut self) {
        let quotas = match &self.observed.quotas {
            Ok(quotas) => quotas,
            Err(why) => return self.not_looked_at("Quota", why.as_str()),
        };
        let mut of_directories: BTreeMap<&Directory, Vec<&Record>> = BTreeMap::new();
        for record in self.records().filter(|record| record.state == State::Ready) {
            of_directories.entry(&record.directory).or_default().push(record);
        }
        for (directory, records) in of_directories {
            let Some(largest) = records.iter().max_by_key(|it| it.capacity_bytes) else { continue };
            let Some(wanted) = bound(records.iter().copied(), self.observed.quota) else { continue };
            let wanted = wanted.whole(self.observed.quota_unit);
            if !self.observed.directories.contains(directory.components())
                || records.iter().any(|it| of_driver(it) == Some(0))
            {
                continue;
            }
            // What another provisioner has made, or a Pith that took the last size of several, is good enough.
            let fits = |found: &String| {
                let of_size = |bytes: u64| {
                    let bound = Bound { bytes: wanted.bytes.and(Some(bytes)), ..wanted };
                    bound.whole(self.observed.quota_unit).written() == *found
                };
                records.iter().any(|it| of_size(it.capacity_bytes) || of_driver(it).is_some_and(of_size))
            };
            let (message, repair) = match quotas.get(&directory.to_string()) {
                Some(size) if fits(size) => continue,
                Some(size) => {
                    (format!("the quota of {directory} is {size}, and it is to be {}", wanted.written()), true)
                }
                // Whoever made it may have meant that: with one, what is there already may be too much.
                None if largest.is_adopted() => {
                    (format!("{directory} has no quota: whoever made it before it was adopted has set none"), false)
                }
                None => (format!("{directory} has no quota, and it is to be {}", wanted.written()), true),
            };
            let id = &largest.id;
            let repair = repair.then(|| Repair::SetQuota(id.clone()));
            let level = if repair.is_some() { Level::Warning } else { Level::Info };
            self.found(level, Code::VolumeQuotaWrong, Object::of("Volume", id), message, repair);
        }
    }

    fn entries(&mut self) {
        for (directory, id) in &self.observed.entries {
            let path = format!("/{}", directory.join("/"));
            let (message, is_empty) = match self.observed.records.get(id) {
                None if self.observed.directories.contains(directory) => (
                    format!("the index says that {path} is its directory, which is there, and it has no record"),
                    false,
                ),
                None => (
                    format!("the index says that {path} is its directory, and neither that nor a record is there"),
                    true,
                ),
                Some(Ok(record)) if record.directory.components() != directory.as_slice() => {
                    let message = format!(
                        "the index says that {path} is its directory, and its record says {}",
                        record.directory
                    );
                    (message, true)
                }
                Some(_) => continue,
            };
            let repair = is_empty.then(|| Repair::RemoveEntry { directory: directory.clone(), id: id.clone() });
            self.found(Level::Warning, Code::VolumeEntryStale, Object::of("Volume", id), message, repair);
        }
    }

    /// Directories that could be volumes and are nobody's.
    fn directories(&mut self) {
        let entered = self.observed.entries.iter().map(|(directory, _)| directory.as_slice());
        let objects = self.observed.objects.as_ref().ok();
        let of_volumes: Vec<Vec<String>> = objects
            .into_iter()
            .flat_map(|objects| objects.persistent_volumes())
            .filter_map(|volume| match self.adopted(volume) {
                Ok(record) => Some(record.directory),
                Err(_) => whereabouts(volume).ok()?.parse().ok(),
            })
            .map(|directory: Directory| directory.components().to_vec())
            .collect();
        let recorded = self.records().map(|record| record.directory.components());
        let known: BTreeSet<&[String]> = entered.chain(recorded).chain(of_volumes.iter().map(Vec::as_slice)).collect();
        // One that lies in a volume is the volume's, and one that has a volume in it may have it for that.
        let mut of_somebody: BTreeSet<&[String]> = BTreeSet::new();
        for directory in &known {
            of_somebody.extend((1..=directory.len()).map(|depth| &directory[..depth]));
        }
        let is_inside = |directory: &[String]| (1..directory.len()).any(|depth| known.contains(&directory[..depth]));
        for directory in &self.observed.directories {
            if of_somebody.contains(directory.as_slice()) || is_inside(directory) {
                continue;
            }
            let path = format!("/{}", directory.join("/"));
            let message = "it lies where volumes lie, and no record, entry or PersistentVolume says whose it is";
            self.found(Level::Info, Code::DirectoryUnrecorded, Object::of("Directory", &path), message, None);
        }
    }

    fn staged(&mut self) {
        for (name, staged) in &self.observed.staged {
            let repair = Some(Repair::RemoveStaged(name.clone()));
            let (message, repair) = match staged {
                Staged::Empty => ("it is empty: a call ended before it wrote a record there".to_string(), repair),
                Staged::Ours(id) => (format!("it has a record of volume `{id}` that never counted"), repair),
                Staged::NotOurs => ("it has something that is no record of this cluster".to_string(), None),
            };
            let object = Object::of("Directory", &format!("/.pith/staging/{name}"));
            self.found(Level::Info, Code::StagedRecordLeft, object, message, repair);
        }
    }

    fn persistent_volumes(&mut self) {
        let objects = match self.observed.objects {
            Ok(objects) => objects,
            Err(ref why) => return self.not_looked_at("PersistentVolume", why.as_str()),
        };
        let volumes = || objects.persistent_volumes().filter(|volume| self.is_of_driver(volume));
        // Only those of this file system: that of the Secret that was given, and those of the volumes that have a record in it.
        let recorded = volumes().filter(|volume| self.observed.records.get(volume.handle()).is_some_and(Result::is_ok));
        let here: BTreeSet<&SecretRef> =
            recorded.filter_map(|volume| volume.secret.as_ref()).chain(&self.observed.secret).collect();
        let mut unrecorded: Vec<&PersistentVolume> = volumes().map(|volume| &**volume).collect();
        unrecorded.retain(|volume| !self.observed.records.contains_key(volume.handle()));
        let (unrecorded, elsewhere): (Vec<_>, Vec<_>) = unrecorded
            .into_iter()
            .partition(|volume| volume.secret.as_ref().is_some_and(|secret| here.contains(secret)));
        for volume in unrecorded {
            let (message, repair) = match self.adopted(volume) {
                Ok(record) => (
                    format!(
                        "it has no record, and lies in {}: it is adopted when it is expanded or deleted",
                        record.directory
                    ),
                    self.observed.complete.then(|| Repair::Adopt(volume.name.clone())),
                ),
                Err(NotAdopted::MadeByHand) => continue,
                Err(why) => (format!("it has no record, and it cannot be adopted: {why}"), None),
            };
            let object = Object::of("PersistentVolume", &volume.name);
            self.found(Level::Info, Code::VolumeUnrecorded, object, message, repair);
        }
        if !elsewhere.is_empty() {
            let why = format!("{} of them have no record here and name another Secret, or none", elsewhere.len());
            self.not_looked_at("PersistentVolume", why);
        }
    }
}

/// The quota that the JuiceFS driver sets for a volume that it has made, in bytes: it leaves out what is no whole GiB.
fn of_driver(record: &Record) -> Option<u64> {
    record.is_adopted().then_some(record.capacity_bytes >> 30 << 30)
}

#[cfg(test)]
mod tests;
