//! What Pith keeps of the Kubernetes objects that decisions read.
//!
//! Each struct holds only the parts that a decision uses, so that ten thousand claims stay small in memory. Secrets are
//! deliberately absent: no decision reads one.

use std::collections::HashMap;
use std::sync::Arc;

use litemap::LiteMap;

/// Labels, annotations and parameters: sorted, so that everything made from them is the same every time. A sorted list, because a
/// node of a `BTreeMap` has room for eleven entries, and most objects have one or two.
pub type Entries = LiteMap<String, String>;

/// The name of a Secret. Its content is never read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
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

/// A PersistentVolume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PersistentVolume {
    /// `metadata.name`.
    pub name: String,
    /// `spec.csi.driver`; absent for a volume that is not CSI.
    pub driver: Option<String>,
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
}

/// The objects that decisions look up, all in memory.
#[derive(Debug, Default)]
pub struct Objects {
    namespaces: HashMap<String, Arc<Namespace>>,
    storage_classes: HashMap<String, Arc<StorageClass>>,
    persistent_volumes: HashMap<String, Arc<PersistentVolume>>,
    /// By namespace, then name: a look-up then needs no joined key.
    claims: HashMap<String, HashMap<String, Arc<Claim>>>,
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

impl Objects {
    /// Adds an object. An earlier one of the same kind and name is replaced; the answer is whether there was one.
    pub fn insert(&mut self, object: Object) -> bool {
        match object {
            Object::Namespace(it) => self.namespaces.insert(it.name.clone(), Arc::new(it)).is_some(),
            Object::StorageClass(it) => self.storage_classes.insert(it.name.clone(), Arc::new(it)).is_some(),
            Object::PersistentVolume(it) => self.persistent_volumes.insert(it.name.clone(), Arc::new(it)).is_some(),
            Object::Claim(it) => {
                let namespace = self.claims.entry(it.namespace.clone()).or_default();
                namespace.insert(it.name.clone(), Arc::new(it)).is_some()
            }
        }
    }

    /// The namespace of that name.
    pub fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        self.namespaces.get(name)
    }

    /// The StorageClass of that name.
    pub fn storage_class(&self, name: &str) -> Option<&Arc<StorageClass>> {
        self.storage_classes.get(name)
    }

    /// The PersistentVolume of that name.
    pub fn persistent_volume(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.persistent_volumes.get(name)
    }

    /// The claim of that name in that namespace.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<Claim>> {
        self.claims.get(namespace)?.get(name)
    }

    /// How many objects of each kind there are: namespaces, classes, volumes, claims.
    pub fn counts(&self) -> [(&'static str, usize); 4] {
        [
            ("namespaces", self.namespaces.len()),
            ("storageclasses", self.storage_classes.len()),
            ("persistentvolumes", self.persistent_volumes.len()),
            ("persistentvolumeclaims", self.claims.values().map(HashMap::len).sum()),
        ]
    }
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
        assert_eq!(
            objects.counts(),
            [("namespaces", 1), ("storageclasses", 1), ("persistentvolumes", 1), ("persistentvolumeclaims", 2)]
        );
    }
}
