//! A PersistentVolume for a volume that has none any more: what a person applies after a volume was brought back.

use serde_json::{Map, Value, json};

use super::VolumeAccessMode;
use super::record::Record;
use crate::object::SecretRef;

/// What a volume without a bound is said to have: a PersistentVolume must say something, and a claim asks for less.
const UNBOUND: &str = "10Pi";

/// The PersistentVolume of a record, as the driver `driver` would have it, for the claim that the volume was made for.
///
/// It says `Retain`, so that trying it out deletes nothing. Its StorageClass is not in the record: it says none, and so must its claim.
pub fn persistent_volume(record: &Record, driver: &str, secret: Option<&SecretRef>) -> Value {
    let mut modes: Vec<&str> = record.asked.capabilities.iter().map(|it| mode(it.access_mode)).collect();
    modes.sort_unstable();
    modes.dedup();
    let options: Vec<&String> = match record.asked.capabilities.first() {
        Some(capability) => capability.mount_flags.iter().collect(),
        None => Vec::new(),
    };
    let mut source = json!({
        "driver": driver,
        "fsType": "juicefs",
        "volumeHandle": record.id,
        "volumeAttributes": record.volume_context(),
    });
    let mut annotations = Map::new();
    annotations.insert("pv.kubernetes.io/provisioned-by".into(), driver.into());
    if let Some(secret) = secret {
        source["nodePublishSecretRef"] = json!({"namespace": secret.namespace, "name": secret.name});
        // With what external-provisioner deletes it, once its policy is `Delete`.
        for (key, value) in [("name", &secret.name), ("namespace", &secret.namespace)] {
            let key = format!("volume.kubernetes.io/provisioner-deletion-secret-{key}");
            annotations.insert(key, value.as_str().into());
        }
    }
    let size = match record.capacity_bytes {
        0 => UNBOUND.to_string(),
        bytes => quantity(bytes),
    };
    let mut spec = json!({
        "accessModes": modes,
        "capacity": {"storage": size},
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "",
        "csi": source,
    });
    if !options.is_empty() {
        spec["mountOptions"] = json!(options);
    }
    if let Some(claim) = &record.claim {
        spec["claimRef"] = json!({"namespace": claim.namespace, "name": claim.name});
    }
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": record.id, "annotations": annotations},
        "spec": spec,
    })
}

/// A size in bytes as Kubernetes has it, in the largest unit of which it is a whole number.
pub fn quantity(bytes: u64) -> String {
    let units = [(30, "Gi"), (20, "Mi"), (10, "Ki")];
    let whole = units.into_iter().find(|(shift, _)| bytes.is_multiple_of(1 << shift));
    whole.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

fn mode(mode: VolumeAccessMode) -> &'static str {
    match mode {
        VolumeAccessMode::SingleNodeWriter | VolumeAccessMode::SingleNodeMultiWriter => "ReadWriteOnce",
        VolumeAccessMode::SingleNodeSingleWriter => "ReadWriteOncePod",
        VolumeAccessMode::SingleNodeReaderOnly | VolumeAccessMode::MultiNodeReaderOnly => "ReadOnlyMany",
        VolumeAccessMode::MultiNodeSingleWriter | VolumeAccessMode::MultiNodeMultiWriter => "ReadWriteMany",
    }
}

#[cfg(test)]
mod tests;
