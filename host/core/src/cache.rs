//! Volumes that a client may keep its cache in, beyond the one that every sidecar has: the JuiceFS driver's kinds.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::policy::Cache;

/// A volume with a directory of the cache.
#[derive(Debug, Clone, PartialEq)]
pub enum CacheVolume {
    /// A claim in the pod's namespace, by name.
    Claim(String),
    /// An emptyDir.
    EmptyDir {
        /// `medium: Memory`.
        in_memory: bool,
        /// `sizeLimit`.
        size_limit: Option<String>,
    },
    /// A claim that is made for the pod and ends with it.
    Ephemeral {
        /// `storageClassName`; the cluster's default where it is absent.
        storage_class: Option<String>,
        /// What is requested.
        storage: String,
        /// `accessModes`.
        access_modes: Vec<String>,
    },
    /// An inline CSI volume, as in `spec.volumes[].csi`.
    Inline(Map<String, Value>),
    /// A folder of the node.
    HostPath(String),
}

impl fmt::Display for CacheVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheVolume::Claim(name) => write!(f, "claim {name}"),
            CacheVolume::EmptyDir { .. } => f.write_str("emptyDir"),
            CacheVolume::Ephemeral { storage, .. } => write!(f, "ephemeral claim of {storage}"),
            CacheVolume::Inline(csi) => {
                write!(f, "inline volume of {}", csi.get("driver").and_then(Value::as_str).unwrap_or_default())
            }
            CacheVolume::HostPath(path) => write!(f, "{path} of the node"),
        }
    }
}

impl CacheVolume {
    /// The volume of the one directory that every sidecar has, if it is one.
    pub(crate) fn of(cache: &Cache) -> Option<CacheVolume> {
        match cache {
            Cache::Container => None,
            Cache::EmptyDir { in_memory, size_limit } => {
                Some(CacheVolume::EmptyDir { in_memory: *in_memory, size_limit: size_limit.clone() })
            }
        }
    }

    /// As in `spec.volumes[]`, without the name.
    pub(crate) fn source(&self) -> Value {
        match self {
            CacheVolume::Claim(name) => json!({"persistentVolumeClaim": {"claimName": name}}),
            CacheVolume::EmptyDir { in_memory, size_limit } => {
                let mut empty_dir = Map::new();
                if *in_memory {
                    empty_dir.insert("medium".into(), json!("Memory"));
                }
                if let Some(limit) = size_limit {
                    empty_dir.insert("sizeLimit".into(), json!(limit));
                }
                json!({"emptyDir": empty_dir})
            }
            CacheVolume::Ephemeral { storage_class, storage, access_modes } => {
                let mut spec = json!({"accessModes": access_modes, "resources": {"requests": {"storage": storage}}});
                if let Some(class) = storage_class {
                    spec["storageClassName"] = json!(class);
                }
                json!({"ephemeral": {"volumeClaimTemplate": {"spec": spec}}})
            }
            CacheVolume::Inline(csi) => json!({"csi": csi}),
            CacheVolume::HostPath(path) => json!({"hostPath": {"path": path, "type": "DirectoryOrCreate"}}),
        }
    }
}
