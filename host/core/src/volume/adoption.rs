//! Volumes that have no record: what their PersistentVolume says of them, and which other ones use a directory.
//!
//! A record is as good as its seal. A PersistentVolume is what whoever may write one wrote, in any spelling that a mount takes. So of
//! its own volume it must say clearly where that lies, and of every other one it is taken to lie wherever it may.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::place::{SUB_PATH, subdirs};
use super::record::CAPACITY;
use super::{Asked, Capability, Directory, NamedBy, PathProblem, Record, Relation, State, VolumeAccessMode};
use crate::object::{AccessMode, Entries, Objects, PersistentVolume, SecretRef};
use crate::settings;

/// What external-provisioner adds to the attributes of what it makes.
const IDENTITY: &str = "storage.kubernetes.io/csiProvisionerIdentity";

/// Why a volume without a record is none that can be deleted or resized. Each continues a sentence that begins with the
/// PersistentVolume's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdopted {
    /// It is somebody's own, and never deleted.
    #[error(
        "it was made by hand: what a provisioner makes has the annotation `pv.kubernetes.io/provisioned-by`, and the UID of its \
         claim in its name"
    )]
    MadeByHand,
    /// Its claim is gone, and it is to stay.
    #[error("it is to stay, by its `persistentVolumeReclaimPolicy`")]
    Retained,
    /// It does not say clearly where it lies.
    #[error("where it lies is not clear: {0}")]
    Unclear(String),
}

/// Adopts the volume of a PersistentVolume that the provisioner of our driver's name has made: its first record, in the state
/// [`State::Creating`] until its directory is entered as its own. The nonce is a word that no other has.
pub fn adopt(volume: &PersistentVolume, driver: &str, cluster: &str, nonce: String) -> Result<Record, NotAdopted> {
    let is_of_driver = volume.driver.as_deref() == Some(driver);
    if !(volume.provisioned && is_of_driver && volume.handle() == volume.name && is_of_claim(&volume.name)) {
        return Err(NotAdopted::MadeByHand);
    }
    let directory = own_directory(volume).map_err(NotAdopted::Unclear)?;
    let mut parameters = (*volume.volume_attributes).clone();
    for key in [SUB_PATH, CAPACITY, IDENTITY] {
        parameters.remove(key);
    }
    let capability =
        |mode: &AccessMode| Capability { access_mode: used_as(*mode), mount_flags: volume.mount_options.clone() };
    let id = volume.name.clone();
    Ok(Record {
        cluster: cluster.to_string(),
        nonce,
        asked: Asked {
            name: id.clone(),
            required_bytes: volume.capacity_bytes,
            limit_bytes: None,
            capabilities: volume.access_modes.iter().map(capability).collect(),
            parameters,
            mutable_parameters: Entries::new(),
            source: None,
        },
        claim: None,
        // The driver names a directory by the volume, or by a pattern, which may give several volumes the same one.
        shared: directory.components().last() != Some(&id),
        directory,
        named_by: NamedBy::PersistentVolume,
        quota: None,
        capacity_bytes: volume.capacity_bytes.unwrap_or_default(),
        modified: Entries::new(),
        origin: None,
        cut_at: None,
        state: State::Creating,
        generation: 1,
        id,
    })
}

/// Whether a name ends in a UID, as provisioners choose it (`pvc-` and that of the claim). What somebody has copied from such a
/// volume has the annotation too, and as a rule another name.
fn is_of_claim(name: &str) -> bool {
    const UID: [usize; 5] = [8, 4, 4, 4, 12];
    let parts: Vec<&str> = name.rsplitn(UID.len() + 1, '-').collect();
    let is_part =
        |(part, length): (&&str, &usize)| part.len() == *length && part.bytes().all(|it| it.is_ascii_hexdigit());
    parts.len() > UID.len() && parts.iter().zip(UID.iter().rev()).all(is_part)
}

fn used_as(mode: AccessMode) -> VolumeAccessMode {
    match mode {
        AccessMode::ReadWriteOnce => VolumeAccessMode::SingleNodeMultiWriter,
        AccessMode::ReadWriteOncePod => VolumeAccessMode::SingleNodeSingleWriter,
        AccessMode::ReadOnlyMany => VolumeAccessMode::MultiNodeReaderOnly,
        AccessMode::ReadWriteMany => VolumeAccessMode::MultiNodeMultiWriter,
    }
}

/// Where a provisioned volume lies. A mount takes `a//b` and `./a/b` for `/a/b`, and so does this; it takes `..` too, and this does
/// not.
fn own_directory(volume: &PersistentVolume) -> Result<Directory, String> {
    let below = volume.volume_attributes.get(SUB_PATH).map(String::as_str).unwrap_or_default();
    let prefixes = subdirs(volume.mount_options.iter().chain(volume.volume_attributes.get("mountOptions")));
    if is_template(below) || prefixes.iter().any(|prefix| is_template(prefix)) {
        return Err("it has a template".into());
    }
    let prefixes: BTreeSet<Vec<String>> = prefixes.into_iter().map(plain).collect();
    if prefixes.len() > 1 {
        return Err("its mount options have `subdir` twice".into());
    }
    let own = plain(below);
    if own.is_empty() {
        return Err(format!("its attribute `{SUB_PATH}` names no directory"));
    }
    let prefix = prefixes.into_iter().next().unwrap_or_default();
    let directory = Directory::new([prefix, own].concat());
    directory.map_err(|problem: PathProblem| problem.to_string())
}

/// The components that are more than spelling.
fn plain(path: &str) -> Vec<String> {
    path.split('/').filter(|component| !matches!(*component, "" | ".")).map(String::from).collect()
}

fn is_template(path: &str) -> bool {
    path.contains("${") || path.contains("$(")
}

/// A PersistentVolume that may use a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// Its name.
    pub volume: String,
    /// Where it lies, seen from the directory.
    pub relation: Relation,
    /// Where it is exactly there and a provisioner has made it, the id by which there may be a record of it.
    pub id: Option<String>,
    /// The Secret of its file system, if that may be another one than the directory's.
    pub elsewhere: Option<SecretRef>,
    /// Whether its own deletion is about to be asked.
    pub is_going: bool,
}

/// The other PersistentVolumes that use a volume's directory, as far as it can be seen from them: of all classes, in every spelling.
///
/// One that lies right there or below uses it. One that lies above does so where the volume was adopted: nobody knows whether its
/// directory was there before it. Of a volume with a record it is known that Pith has made it.
///
/// A volume whose Secret has the same name as the volume's own is in the same file system, and one of another driver's name only
/// then. Whether one with another Secret is, cannot be seen here. One without any is mounted by nobody. The claims and classes that
/// may lend it one are among the objects, and so is the volume's own PersistentVolume.
pub fn users<'a>(
    record: &Record,
    driver: &str,
    objects: &Objects,
    volumes: impl IntoIterator<Item = &'a PersistentVolume>,
) -> Vec<User> {
    let own = objects.persistent_volume(&record.id).and_then(|volume| volume.secret.as_ref());
    let user = |volume: &PersistentVolume| {
        let is_own = volume.name == record.id && volume.handle() == record.id;
        // The cheapest question first: of thousands of volumes hardly one is anywhere near.
        let relation = relation(record.directory.components(), volume).filter(|_| !is_own)?;
        if relation == Relation::Ancestor && !record.is_adopted() {
            return None;
        }
        let opened = opened(volume, objects);
        let has_secret = own.is_some_and(|own| opened == Opened::By(own));
        let is_of_driver = volume.driver.as_deref() == Some(driver) && opened != Opened::ByNothing;
        let elsewhere = match opened {
            Opened::By(secret) if !has_secret => Some(secret.clone()),
            _ => None,
        };
        let is_there = relation == Relation::Same && volume.provisioned && volume.handle() == volume.name;
        (has_secret || is_of_driver).then(|| User {
            volume: volume.name.clone(),
            relation,
            id: is_there.then(|| volume.name.clone()),
            elsewhere,
            is_going: volume.is_going(),
        })
    };
    let mut users: Vec<User> = volumes.into_iter().filter_map(user).collect();
    users.sort_unstable();
    users
}

/// What opens the file system of a PersistentVolume.
#[derive(PartialEq)]
enum Opened<'a> {
    By(&'a SecretRef),
    ByNothing,
    /// Its claim is not known, and may have a class that names a Secret.
    ByWhoKnows,
}

fn opened<'a>(volume: &'a PersistentVolume, objects: &'a Objects) -> Opened<'a> {
    let claim = |uid: &str| objects.claims().find(|claim| claim.uid == uid);
    match (&volume.secret, volume.claim_uid.as_deref()) {
        (Some(secret), _) => Opened::By(secret),
        (None, None) => Opened::ByNothing,
        (None, Some(uid)) => match claim(uid) {
            Some(claim) => {
                let class = claim.storage_class.as_deref().and_then(|class| objects.storage_class(class));
                settings::secret(Some(volume), class.map(|class| &**class)).map_or(Opened::ByNothing, Opened::By)
            }
            None if volume.released => Opened::ByNothing,
            None => Opened::ByWhoKnows,
        },
    }
}

/// Where a PersistentVolume lies, seen from a directory: the nearest of all places that it may mean. Of one that may be anywhere, it
/// is there.
fn relation(directory: &[String], volume: &PersistentVolume) -> Option<Relation> {
    let attributes = &volume.volume_attributes;
    let below = attributes.get(SUB_PATH).map(String::as_str).unwrap_or_default();
    let mut prefixes = subdirs(volume.mount_options.iter().chain(attributes.get("mountOptions")));
    if is_template(below) || prefixes.iter().any(|prefix| is_template(prefix)) {
        return Some(Relation::Same);
    }
    if prefixes.is_empty() {
        prefixes.insert("");
    }
    let seen = |prefix: &str| {
        let place = resolved(prefix.split('/').chain(below.split('/')));
        let is_on_the_way = place.iter().zip(directory).all(|(theirs, ours)| theirs == ours);
        is_on_the_way.then(|| match place.len().cmp(&directory.len()) {
            Ordering::Less => Relation::Ancestor,
            Ordering::Equal => Relation::Same,
            Ordering::Greater => Relation::Descendant,
        })
    };
    prefixes.into_iter().filter_map(seen).min()
}

/// A path as a mount resolves it; nothing leads above the root.
fn resolved<'a>(components: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut resolved = Vec::new();
    for component in components {
        match component {
            "" | "." => {}
            ".." => {
                resolved.pop();
            }
            name => resolved.push(name),
        }
    }
    resolved
}

/// The names of users, for a sentence: all of a few, and how many more.
pub fn named(users: &[User]) -> String {
    const SHOWN: usize = 3;
    let names: BTreeSet<String> = users.iter().map(|user| format!("`{}`", user.volume)).collect();
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(SHOWN) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
