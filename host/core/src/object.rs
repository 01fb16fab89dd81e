//! What Pith keeps of the Kubernetes objects that decisions read.
//!
//! Each struct holds only the parts that a decision uses, so that ten thousand claims stay small in memory. Secrets are
//! deliberately absent: no decision reads one.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use pith_proto::Quantity;
use rpds::HashTrieMapSync;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json::{entries, list};

pub use crate::json::Entries;

/// The annotation in which kubectl keeps a copy of the whole object.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Quantities by resource name.
pub type AmountByName = BTreeMap<String, Quantity>;

/// The name of a Secret. No decision reads its content.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl SecretRef {
    /// Whether it stands for other Secrets, one for each claim, as `${pvc.namespace}` does.
    pub fn is_template(&self) -> bool {
        self.namespace.contains('$') || self.name.contains('$')
    }
}

/// A Namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Entries,
    /// `metadata.annotations`.
    pub annotations: Entries,
}

/// A StorageClass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorageClass {
    /// `metadata.name`.
    pub name: String,
    /// The driver that provisions for it.
    pub provisioner: String,
    /// `parameters`, with the references to Secrets (`csi.storage.k8s.io/…`) left out.
    pub parameters: Arc<Entries>,
    /// `mountOptions`.
    pub mount_options: Vec<String>,
    /// The Secret that node publish, else provisioning, names.
    pub secret: Option<SecretRef>,
    /// The Secret that provisioning names: that of the file system that volumes are made in.
    pub provisioner_secret: Option<Box<SecretRef>>,
    /// `metadata.creationTimestamp` of a class that is the default of claims without one.
    pub default_since: Option<String>,
}

/// How a volume may be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessMode {
    /// By one node.
    ReadWriteOnce,
    /// By many nodes, to read.
    ReadOnlyMany,
    /// By many nodes.
    ReadWriteMany,
    /// By one pod.
    ReadWriteOncePod,
}

impl AccessMode {
    /// Whether these modes allow no write. None at all say nothing.
    pub fn only_read(modes: &[AccessMode]) -> bool {
        !modes.is_empty() && modes.iter().all(|mode| *mode == AccessMode::ReadOnlyMany)
    }
}

/// A PersistentVolume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PersistentVolume {
    /// `metadata.name`.
    pub name: String,
    /// `spec.csi.driver`; absent for a volume that is not CSI.
    pub driver: Option<String>,
    /// `spec.csi.volumeHandle` where it is not the name, which it is for volumes that were provisioned.
    pub other_handle: Option<String>,
    /// `spec.csi.readOnly`.
    pub read_only: bool,
    /// `spec.csi.volumeAttributes`.
    pub volume_attributes: Arc<Entries>,
    /// `spec.mountOptions`.
    pub mount_options: Vec<String>,
    /// `spec.accessModes`.
    pub access_modes: Vec<AccessMode>,
    /// `spec.csi.nodePublishSecretRef`.
    pub secret: Option<SecretRef>,
    /// The Secret that its deletion needs, where that is to stay until then (`secretFinalizer`).
    pub held_secret: Option<Box<SecretRef>>,
    /// `spec.claimRef.uid`: the claim that it is bound to. A claim can name any volume; only this says that it has it.
    pub claim_uid: Option<String>,
    /// `spec.capacity.storage` in bytes.
    pub capacity_bytes: Option<u64>,
    /// Whether its own driver's provisioner has made it, by `pv.kubernetes.io/provisioned-by`. Any other was made by hand.
    pub provisioned: bool,
    /// Whether it goes with its claim: `spec.persistentVolumeReclaimPolicy` is `Delete`.
    pub goes_with_claim: bool,
    /// Whether no claim can have it any more as it is: its own is gone, or it is being deleted.
    pub released: bool,
}

impl PersistentVolume {
    /// Whether its directory is about to be deleted.
    pub fn is_going(&self) -> bool {
        self.provisioned && self.goes_with_claim && self.released
    }

    /// `spec.csi.volumeHandle`.
    pub fn handle(&self) -> &str {
        self.other_handle.as_deref().unwrap_or(&self.name)
    }
}

/// A PersistentVolumeClaim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`; names the Secret of the claim.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: Entries,
    /// `metadata.annotations`.
    pub annotations: Entries,
    /// `spec.storageClassName`; absent when none is named, `Some("")` when dynamic provisioning is declined.
    pub storage_class: Option<String>,
    /// `spec.volumeName`: the PersistentVolume that the claim is bound to.
    pub volume_name: Option<String>,
    /// `spec.resources.requests.storage` in bytes.
    pub requested_bytes: Option<u64>,
    /// `spec.accessModes`.
    pub access_modes: Vec<AccessMode>,
    /// The UID of the pod that the claim was made for and goes with: that of a generic ephemeral volume.
    pub pod_uid: Option<String>,
}

impl Claim {
    /// Reads what is the same in a claim and in the template of one: labels, annotations and what it asks for. The rest is as in
    /// [`Claim::default`]. The error is a sentence.
    pub fn read(object: &Value) -> Result<Claim, String> {
        let (metadata, spec) = (&object["metadata"], &object["spec"]);
        let requested = match &spec["resources"]["requests"]["storage"] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            number => Some(number.to_string()),
        };
        let requested = requested.map(|text| Quantity::from_str(&text)).transpose();
        let requested = requested.map_err(|error| format!("spec.resources.requests.storage: {error}"))?;
        Ok(Claim {
            labels: entries(&metadata["labels"]),
            annotations: entries(&metadata["annotations"]),
            storage_class: spec["storageClassName"].as_str().map(str::to_string),
            requested_bytes: requested.and_then(|requested| requested.bytes()),
            access_modes: access_modes(&spec["accessModes"])?,
            ..Claim::default()
        })
    }
}

/// Reads `spec.accessModes`. The error is a sentence.
pub fn access_modes(value: &Value) -> Result<Vec<AccessMode>, String> {
    let mode = |name: &Value| {
        let name = name.as_str().unwrap_or_default();
        AccessMode::from_name(name)
            .ok_or_else(|| format!("spec.accessModes has `{name}`, which Kubernetes does not know"))
    };
    list(value).iter().map(mode).collect()
}

/// What pods must know of a file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileSystemFacts {
    /// What it is called.
    pub name: String,
    /// Whether it is of the Enterprise Edition, which has a client of its own.
    pub enterprise: bool,
    /// What is done in the pod before the client mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preparation: Option<Preparation>,
    /// Whether there is a private key that the client, or what prepares it, needs as a file.
    pub rsa_key: bool,
    /// Secrets of the pod's namespace, and the folders that the client has them at: `configs`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub folders: BTreeMap<String, String>,
}

impl FileSystemFacts {
    /// Whether pods make it where it is not there.
    pub fn is_made_in_pods(&self) -> bool {
        matches!(self.preparation, Some(Preparation::Format(_)))
    }
}

/// What is done before a client mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Preparation {
    /// The file system is made where it is not there: nobody but a pod reaches its engine.
    Format(Vec<PreparationOption>),
    /// The client of the Enterprise Edition gets its configuration from the console.
    Authenticate(Vec<PreparationOption>),
    /// That configuration lies in the Secret.
    Configured,
}

/// An option of the command that prepares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PreparationOption {
    /// One without a value.
    Switch(String),
    /// One whose value the claim's Secret has, under [this key](crate::secret_key::option).
    Secret(String),
}

/// The kinds that decisions look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Namespaces.
    Namespace,
    /// StorageClasses.
    StorageClass,
    /// PersistentVolumes.
    PersistentVolume,
    /// PersistentVolumeClaims.
    Claim,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Namespace, Kind::StorageClass, Kind::PersistentVolume, Kind::Claim];

    /// As `kind` has it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Namespace => "Namespace",
            Kind::StorageClass => "StorageClass",
            Kind::PersistentVolume => "PersistentVolume",
            Kind::Claim => "PersistentVolumeClaim",
        }
    }

    /// The kind of that [name](Kind::name).
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// As the paths of the API server have it.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Namespace => "namespaces",
            Kind::StorageClass => "storageclasses",
            Kind::PersistentVolume => "persistentvolumes",
            Kind::Claim => "persistentvolumeclaims",
        }
    }
}

/// One object of a kind that [`Objects`] holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A Namespace.
    Namespace(Namespace),
    /// A StorageClass.
    StorageClass(StorageClass),
    /// A PersistentVolume.
    PersistentVolume(PersistentVolume),
    /// A PersistentVolumeClaim.
    Claim(Claim),
}

impl Object {
    /// What it is called.
    pub fn reference(&self) -> Reference {
        match self {
            Object::Namespace(it) => Reference::Namespace(it.name.clone()),
            Object::StorageClass(it) => Reference::StorageClass(it.name.clone()),
            Object::PersistentVolume(it) => Reference::PersistentVolume(it.name.clone()),
            Object::Claim(it) => Reference::Claim { namespace: it.namespace.clone(), name: it.name.clone() },
        }
    }
}

/// The name of an object, whether it is there or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// Of a Namespace.
    Namespace(String),
    /// Of a StorageClass.
    StorageClass(String),
    /// Of a PersistentVolume.
    PersistentVolume(String),
    /// Of a PersistentVolumeClaim.
    Claim {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl Reference {
    /// The kind.
    pub fn kind(&self) -> Kind {
        match self {
            Reference::Namespace(_) => Kind::Namespace,
            Reference::StorageClass(_) => Kind::StorageClass,
            Reference::PersistentVolume(_) => Kind::PersistentVolume,
            Reference::Claim { .. } => Kind::Claim,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Namespace(name) => write!(f, "the namespace `{name}`"),
            Reference::StorageClass(name) => write!(f, "the StorageClass `{name}`"),
            Reference::PersistentVolume(name) => write!(f, "the PersistentVolume `{name}`"),
            Reference::Claim { namespace, name } => write!(f, "the claim `{namespace}/{name}`"),
        }
    }
}

/// Objects of one kind by name.
type Named<T> = HashTrieMapSync<String, Arc<T>>;

/// The objects that decisions look up, all in memory. A clone is a snapshot, which shares with the original whatever neither of
/// them changes afterwards: cloning ten thousand claims, and changing one of them, costs a microsecond.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    namespaces: Named<Namespace>,
    storage_classes: Named<StorageClass>,
    persistent_volumes: Named<PersistentVolume>,
    /// By namespace, then name: a look-up then needs no joined key. No namespace here is empty.
    claims: HashTrieMapSync<String, Named<Claim>>,
    /// Whether the cluster has no native sidecars.
    pub lacks_native_sidecars: bool,
    /// What pods must know of file systems, by the Secret that describes each.
    file_systems: Arc<BTreeMap<SecretRef, Arc<FileSystemFacts>>>,
}

impl Objects {
    /// Adds an object. An earlier one of the same kind and name is replaced; the answer is whether there was one.
    pub fn insert(&mut self, object: Object) -> bool {
        match object {
            Object::Namespace(it) => put(&mut self.namespaces, it.name.clone(), it),
            Object::StorageClass(it) => put(&mut self.storage_classes, it.name.clone(), it),
            Object::PersistentVolume(it) => put(&mut self.persistent_volumes, it.name.clone(), it),
            Object::Claim(it) => {
                if !self.claims.contains_key(&it.namespace) {
                    self.claims.insert_mut(it.namespace.clone(), Named::default());
                }
                let claims = self.claims.get_mut(&it.namespace).expect("it was inserted where it was not there");
                put(claims, it.name.clone(), it)
            }
        }
    }

    /// Removes an object; the answer is whether it was there.
    pub fn remove(&mut self, reference: &Reference) -> bool {
        match reference {
            Reference::Namespace(name) => self.namespaces.remove_mut(name),
            Reference::StorageClass(name) => self.storage_classes.remove_mut(name),
            Reference::PersistentVolume(name) => self.persistent_volumes.remove_mut(name),
            Reference::Claim { namespace, name } => {
                let Some(claims) = self.claims.get_mut(namespace) else { return false };
                let removed = claims.remove_mut(name);
                if claims.is_empty() {
                    self.claims.remove_mut(namespace);
                }
                removed
            }
        }
    }

    /// Whether there is such an object.
    pub fn contains(&self, reference: &Reference) -> bool {
        match reference {
            Reference::Namespace(name) => self.namespaces.contains_key(name),
            Reference::StorageClass(name) => self.storage_classes.contains_key(name),
            Reference::PersistentVolume(name) => self.persistent_volumes.contains_key(name),
            Reference::Claim { namespace, name } => self.claim(namespace, name).is_some(),
        }
    }

    /// What all objects of a kind are called.
    pub fn references(&self, kind: Kind) -> Vec<Reference> {
        match kind {
            Kind::Namespace => self.namespaces.keys().cloned().map(Reference::Namespace).collect(),
            Kind::StorageClass => self.storage_classes.keys().cloned().map(Reference::StorageClass).collect(),
            Kind::PersistentVolume => {
                self.persistent_volumes.keys().cloned().map(Reference::PersistentVolume).collect()
            }
            Kind::Claim => {
                let claims =
                    self.claims.iter().flat_map(|(namespace, it)| it.keys().map(move |name| (namespace, name)));
                claims
                    .map(|(namespace, name)| Reference::Claim { namespace: namespace.clone(), name: name.clone() })
                    .collect()
            }
        }
    }

    /// Keeps what pods must know of file systems, in the place of what was known before.
    pub fn know(&mut self, file_systems: BTreeMap<SecretRef, FileSystemFacts>) {
        let known = file_systems.into_iter().map(|(secret, facts)| (secret, Arc::new(facts)));
        self.file_systems = Arc::new(known.collect());
    }

    /// What pods must know of the file system of a Secret, where anything is said of it.
    pub fn file_system(&self, secret: &SecretRef) -> Option<&Arc<FileSystemFacts>> {
        self.file_systems.get(secret)
    }

    /// The namespace of that name.
    pub fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        self.namespaces.get(name)
    }

    /// All namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &Arc<Namespace>> {
        self.namespaces.values()
    }

    /// All StorageClasses.
    pub fn storage_classes(&self) -> impl Iterator<Item = &Arc<StorageClass>> {
        self.storage_classes.values()
    }

    /// The StorageClass that claims get which say nothing of one: of several defaults the newest, of two made at once the first by name.
    pub fn default_storage_class(&self) -> Option<&Arc<StorageClass>> {
        let defaults = self.storage_classes().filter(|class| class.default_since.is_some());
        defaults.max_by(|a, b| a.default_since.cmp(&b.default_since).then_with(|| b.name.cmp(&a.name)))
    }

    /// The StorageClass of that name.
    pub fn storage_class(&self, name: &str) -> Option<&Arc<StorageClass>> {
        self.storage_classes.get(name)
    }

    /// The PersistentVolume of that name.
    pub fn persistent_volume(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.persistent_volumes.get(name)
    }

    /// All PersistentVolumes.
    pub fn persistent_volumes(&self) -> impl Iterator<Item = &Arc<PersistentVolume>> {
        self.persistent_volumes.values()
    }

    /// All claims.
    pub fn claims(&self) -> impl Iterator<Item = &Arc<Claim>> {
        self.claims.values().flat_map(HashTrieMapSync::values)
    }

    /// The claims of a namespace.
    pub fn claims_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<Claim>> {
        self.claims.get(namespace).into_iter().flat_map(HashTrieMapSync::values)
    }

    /// The claim of that name in that namespace.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<Claim>> {
        self.claims.get(namespace)?.get(name)
    }

    /// How many objects of a kind there are.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Namespace => self.namespaces.size(),
            Kind::StorageClass => self.storage_classes.size(),
            Kind::PersistentVolume => self.persistent_volumes.size(),
            Kind::Claim => self.claims.values().map(HashTrieMapSync::size).sum(),
        }
    }
}

/// The answer is whether an earlier one was replaced.
fn put<T>(named: &mut Named<T>, name: String, it: T) -> bool {
    let replaced = named.contains_key(&name);
    named.insert_mut(name, Arc::new(it));
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{claim, class, volume};

    #[test]
    fn an_object_replaces_the_one_of_its_kind_and_name_and_no_other() {
        let mut objects = Objects::default();
        let elsewhere = Claim { namespace: "other".into(), ..claim("orders") };
        for (object, replaced) in [
            (Object::Claim(claim("orders")), false),
            (Object::Claim(elsewhere.clone()), false),
            (Object::Claim(Claim { uid: "new".into(), ..claim("orders") }), true),
            (Object::StorageClass(class("orders")), false),
            (Object::PersistentVolume(volume("orders")), false),
            (Object::Namespace(Namespace { name: "orders".into(), ..Namespace::default() }), false),
        ] {
            assert_eq!(objects.insert(object.clone()), replaced, "{object:?}");
        }
        assert_eq!(objects.claim("shop", "orders").map(|claim| claim.uid.as_str()), Some("new"));
        assert_eq!(objects.claim("other", "orders").map(|claim| (**claim).clone()), Some(elsewhere));
        assert_eq!(objects.claim("shop", "absent"), None);
        assert_eq!(Kind::ALL.map(|kind| objects.count(kind)), [1, 1, 1, 2]);
        for kind in Kind::ALL {
            for reference in objects.references(kind) {
                assert!(objects.contains(&reference) && objects.remove(&reference), "{reference}");
                assert!(!objects.contains(&reference) && !objects.remove(&reference), "{reference}");
            }
        }
        assert_eq!(objects, Objects::default());
    }

    #[test]
    fn a_snapshot_stays_as_it_was_taken() {
        let mut objects = Objects::default();
        objects.insert(Object::Claim(claim("orders")));
        let snapshot = objects.clone();
        objects.insert(Object::Claim(Claim { uid: "new".into(), ..claim("orders") }));
        objects.insert(Object::Claim(claim("invoices")));
        objects.remove(&Object::Claim(claim("orders")).reference());
        assert_eq!(snapshot.claim("shop", "orders").map(|it| (**it).clone()), Some(claim("orders")));
        assert_eq!((snapshot.count(Kind::Claim), objects.count(Kind::Claim)), (1, 1));
    }
}
