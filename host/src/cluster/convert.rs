//! From the JSON of a Kubernetes object to what Pith keeps of it.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Error, Result, ensure};
use pith_core::Quantity;
use pith_core::file_system;
use pith_core::json::{entries, list};
use pith_core::object::{
    Claim, Entries, FileSystemFacts, Kind, Namespace, Object, PersistentVolume, SecretRef, StorageClass, access_modes,
};
use pith_core::secret_finalizer::is_wanted;
use serde_json::Value;

/// Which provisioner made a PersistentVolume, as every one of them writes there.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Parameters with this prefix are for the CSI sidecars; the ones that name Secrets are no policy's business.
const SIDECAR_PREFIX: &str = "csi.storage.k8s.io/";

/// What csi-provisioner notes on a volume: the Secret that it sends with the deletion.
const DELETION: &str = "volume.kubernetes.io/provisioner-deletion";

/// The annotations that make a class the default, of which Kubernetes still knows the older one.
const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// Reads one object. None for a kind that no decision needs.
pub fn object(value: &Value) -> Result<Option<Object>> {
    let kind = (value["apiVersion"].as_str().unwrap_or_default(), value["kind"].as_str().unwrap_or_default());
    let kind = match kind {
        ("v1", "Namespace") => Kind::Namespace,
        ("storage.k8s.io/v1", "StorageClass") => Kind::StorageClass,
        ("v1", "PersistentVolume") => Kind::PersistentVolume,
        ("v1", "PersistentVolumeClaim") => Kind::Claim,
        _ => return Ok(None),
    };
    of_kind(kind, value).map(Some)
}

/// Reads the ConfigMap with what pods must know of file systems; none where a document is not that.
pub fn file_systems(value: &Value) -> Option<BTreeMap<SecretRef, FileSystemFacts>> {
    let labelled = value["metadata"]["labels"].get(file_system::LABEL).is_some_and(|value| value == "true");
    (labelled && value["kind"] == "ConfigMap").then(|| file_system::read(&entries(&value["data"])).0)
}

/// Reads one object of this kind, whatever it says itself: in a list it says nothing.
pub(super) fn of_kind(kind: Kind, value: &Value) -> Result<Object> {
    Ok(match kind {
        Kind::Namespace => Object::Namespace(namespace(value)?),
        Kind::StorageClass => Object::StorageClass(storage_class(value)?),
        Kind::PersistentVolume => Object::PersistentVolume(persistent_volume(value)?),
        Kind::Claim => Object::Claim(claim(value)?),
    })
}

fn namespace(value: &Value) -> Result<Namespace> {
    let metadata = &value["metadata"];
    Ok(Namespace {
        name: required(metadata, "name")?,
        labels: entries(&metadata["labels"]),
        annotations: entries(&metadata["annotations"]),
    })
}

fn storage_class(value: &Value) -> Result<StorageClass> {
    let all = entries(&value["parameters"]);
    let secret = |kind: &str| {
        let name = all.get(&format!("{SIDECAR_PREFIX}{kind}-secret-name"))?.clone();
        Some(SecretRef { namespace: all.get(&format!("{SIDECAR_PREFIX}{kind}-secret-namespace"))?.clone(), name })
    };
    let parameters: Entries = all
        .iter()
        .filter(|(key, _)| !key.starts_with(SIDECAR_PREFIX))
        .map(|(key, it)| (key.clone(), it.clone()))
        .collect();
    let metadata = &value["metadata"];
    let is_default = DEFAULT.iter().any(|annotation| metadata["annotations"][annotation] == "true");
    let since = || metadata["creationTimestamp"].as_str().unwrap_or_default().to_string();
    Ok(StorageClass {
        name: required(metadata, "name")?,
        default_since: is_default.then(since),
        provisioner: required(value, "provisioner")?,
        secret: secret("node-publish").or_else(|| secret("provisioner")),
        provisioner_secret: secret("provisioner").map(Box::new),
        parameters: parameters.into(),
        mount_options: strings(&value["mountOptions"]),
    })
}

/// The Secret that is sent with a volume's deletion: as csi-provisioner notes it, else as the JuiceFS driver does.
fn deletion_secret(annotations: &Entries, attributes: &Entries) -> Option<SecretRef> {
    let named = |entries: &Entries, prefix: &str| {
        let part = |part: &str| entries.get(&format!("{prefix}-secret-{part}")).filter(|it| !it.is_empty()).cloned();
        Some(SecretRef { namespace: part("namespace")?, name: part("name")? })
    };
    named(annotations, DELETION).or_else(|| named(attributes, &format!("{SIDECAR_PREFIX}provisioner")))
}

fn persistent_volume(value: &Value) -> Result<PersistentVolume> {
    let (metadata, spec) = (&value["metadata"], &value["spec"]);
    let csi = &spec["csi"];
    let secret = &csi["nodePublishSecretRef"];
    let name = required(metadata, "name")?;
    let driver = text(&csi["driver"]);
    let capacity = text(&spec["capacity"]["storage"]).and_then(|it| Quantity::from_str(&it).ok()?.bytes());
    let phase = value["status"]["phase"].as_str().unwrap_or_default();
    let attributes = entries(&csi["volumeAttributes"]);
    Ok(PersistentVolume {
        held_secret: deletion_secret(&entries(&metadata["annotations"]), &attributes)
            .filter(|_| is_wanted(&attributes))
            .map(Box::new),
        capacity_bytes: capacity,
        provisioned: driver.is_some() && text(&metadata["annotations"][PROVISIONED_BY]) == driver,
        goes_with_claim: spec["persistentVolumeReclaimPolicy"] == "Delete",
        released: metadata["deletionTimestamp"].is_string() || matches!(phase, "Released" | "Failed"),
        other_handle: text(&csi["volumeHandle"]).filter(|handle| *handle != name),
        name,
        driver,
        read_only: csi["readOnly"] == true,
        volume_attributes: attributes.into(),
        mount_options: strings(&spec["mountOptions"]),
        access_modes: access_modes(&spec["accessModes"]).map_err(Error::msg)?,
        secret: text(&secret["name"])
            .map(|name| SecretRef { namespace: text(&secret["namespace"]).unwrap_or_default(), name }),
        claim_uid: text(&spec["claimRef"]["uid"]),
    })
}

fn claim(value: &Value) -> Result<Claim> {
    let metadata = &value["metadata"];
    let of_pod = |owner: &&Value| owner["kind"] == "Pod" && owner["controller"] == true;
    Ok(Claim {
        namespace: text(&metadata["namespace"]).unwrap_or_else(|| "default".into()),
        name: required(metadata, "name")?,
        uid: required(metadata, "uid")?,
        volume_name: text(&value["spec"]["volumeName"]),
        pod_uid: list(&metadata["ownerReferences"]).iter().find(of_pod).and_then(|owner| text(&owner["uid"])),
        ..Claim::read(value).map_err(Error::msg)?
    })
}

fn strings(value: &Value) -> Vec<String> {
    list(value).iter().filter_map(|item| item.as_str().map(str::to_string)).collect()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_string)
}

fn required(parent: &Value, key: &str) -> Result<String> {
    let found = text(&parent[key]);
    ensure!(found.is_some(), "`{key}` is missing");
    Ok(found.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_class_is_the_default_by_either_annotation_and_only_with_true() {
        let check = |annotation: &str, value: &str, expected: Option<&str>| {
            let metadata =
                json!({"name": "c", "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {annotation: value}});
            let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": metadata, "provisioner": "p"});
            let Ok(Some(Object::StorageClass(class))) = object(&class) else { panic!("it is a StorageClass") };
            assert_eq!(class.default_since.as_deref(), expected, "{annotation}={value}");
        };
        check("storageclass.kubernetes.io/is-default-class", "true", Some("2026-01-01T00:00:00Z"));
        check("storageclass.beta.kubernetes.io/is-default-class", "true", Some("2026-01-01T00:00:00Z"));
        check("storageclass.kubernetes.io/is-default-class", "false", None);
        check("is-default-class", "true", None);
    }

    #[test]
    fn a_secret_is_dropped_and_so_are_references_to_one() {
        assert_eq!(object(&json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "b"}})).ok(), Some(None));
        let class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"},
            "provisioner": "csi.juicefs.com",
            "parameters": {
                "csi.storage.k8s.io/provisioner-secret-name": "provision",
                "csi.storage.k8s.io/provisioner-secret-namespace": "storage",
                "juicefs/mount-cpu-limit": "3",
            },
        });
        let Ok(Some(Object::StorageClass(class))) = object(&class) else { panic!("it is a StorageClass") };
        assert_eq!(class.secret, Some(SecretRef { namespace: "storage".into(), name: "provision".into() }));
        assert_eq!(class.parameters.keys().collect::<Vec<_>>(), ["juicefs/mount-cpu-limit"]);
    }

    #[test]
    fn of_a_secret_that_is_to_stay_the_name_is_kept_by_who_needs_it() {
        let check = |annotations: Value, attributes: Value, expected: Option<&str>| {
            let volume = json!({
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pvc-1", "annotations": annotations},
                "spec": {"csi": {"driver": "csi.juicefs.com", "volumeHandle": "pvc-1", "volumeAttributes": attributes}},
            });
            let Ok(Some(Object::PersistentVolume(it))) = object(&volume) else { panic!("it is a volume") };
            assert_eq!(
                it.held_secret.map(|it| format!("{}/{}", it.namespace, it.name)).as_deref(),
                expected,
                "{volume}"
            );
        };
        let noted = || {
            json!({
                "volume.kubernetes.io/provisioner-deletion-secret-name": "one",
                "volume.kubernetes.io/provisioner-deletion-secret-namespace": "storage",
            })
        };
        check(noted(), json!({"secretFinalizer": "true"}), Some("storage/one"));
        check(noted(), json!({"secretFinalizer": "yes"}), None);
        check(noted(), json!({}), None);
        let of_driver = json!({
            "secretFinalizer": "true",
            "csi.storage.k8s.io/provisioner-secret-name": "two",
            "csi.storage.k8s.io/provisioner-secret-namespace": "storage",
        });
        check(json!({}), of_driver.clone(), Some("storage/two"));
        check(noted(), of_driver, Some("storage/one"));
        check(json!({}), json!({"secretFinalizer": "true"}), None);
    }

    #[test]
    fn of_a_volume_it_is_kept_who_made_it_and_whether_it_is_to_stay() {
        let check = |change: fn(&mut Value), expected: (bool, bool, bool, Option<u64>)| {
            let mut volume = json!({
                "apiVersion": "v1", "kind": "PersistentVolume",
                "metadata": {"name": "pvc-1", "annotations": {"pv.kubernetes.io/provisioned-by": "csi.juicefs.com"}},
                "spec": {
                    "capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Delete",
                    "csi": {"driver": "csi.juicefs.com", "volumeHandle": "pvc-1"},
                },
                "status": {"phase": "Bound"},
            });
            change(&mut volume);
            let Ok(Some(Object::PersistentVolume(it))) = object(&volume) else { panic!("it is a volume") };
            assert_eq!((it.provisioned, it.goes_with_claim, it.released, it.capacity_bytes), expected, "{volume}");
        };
        let gib = Some(1 << 30);
        check(|_| {}, (true, true, false, gib));
        check(|it| it["status"]["phase"] = json!("Released"), (true, true, true, gib));
        check(|it| it["status"]["phase"] = json!("Failed"), (true, true, true, gib));
        check(|it| it["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"), (true, true, true, gib));
        check(|it| it["spec"]["persistentVolumeReclaimPolicy"] = json!("Retain"), (true, false, false, gib));
        check(|it| it["metadata"]["annotations"] = json!({}), (false, true, false, gib));
        check(|it| it["spec"]["csi"]["driver"] = json!("other"), (false, true, false, gib));
        check(|it| it["spec"]["capacity"] = json!({}), (true, true, false, None));
        // Neither of them is a driver's.
        let bare = |it: &mut Value| (it["spec"]["csi"], it["metadata"]["annotations"]) = (json!({}), json!({}));
        check(bare, (false, true, false, gib));
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let check = |value: Value, expected: &str| {
            let error = format!("{:#}", object(&value).expect_err("it must be refused"));
            assert!(error.contains(expected), "{error}");
        };
        let claim = |extra: Value| {
            let mut claim = json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "uid": "1"}, "spec": {},
            });
            claim["spec"] = extra;
            claim
        };
        check(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {}}), "`name` is missing");
        check(claim(json!({"accessModes": ["ReadSometimes"]})), "`ReadSometimes`, which Kubernetes does not know");
        check(claim(json!({"resources": {"requests": {"storage": "much"}}})), "spec.resources.requests.storage");
    }
}
