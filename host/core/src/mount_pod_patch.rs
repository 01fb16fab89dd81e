//! `mountPodPatch` of the JuiceFS CSI driver's ConfigMap, as far as it means something for a sidecar.
//!
//! An administrator who comes from that driver brings its `config.yaml` along unchanged. What has no meaning here is named once,
//! when it is read, and never refused: the same file serves the driver's own node part.

use std::collections::BTreeSet;
use std::str::FromStr;

use pith_proto::Quantity;
use serde_json::{Map, Value};

use crate::cache::CacheVolume;
use crate::json::list;
use crate::object::{AmountByName, Claim, Entries};
use crate::secret_key;
use crate::selector::LabelSelector;

/// One item of the list. A field that is absent leaves what the layers below say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MountPodPatch {
    /// Which claims it is for; all where this is absent.
    pub claims: Option<ClaimSelector>,
    /// Which nodes it is for, by the pod's `nodeSelector`; all where this is absent.
    pub nodes: Option<LabelSelector>,
    /// `ceMountImage`.
    pub image: Option<String>,
    /// `eeMountImage`.
    pub enterprise_image: Option<String>,
    /// `imagePullPolicy`.
    pub image_pull_policy: Option<String>,
    /// `resources`: requests and limits, in the place of everything below.
    pub resources: Option<(AmountByName, AmountByName)>,
    /// `resourcePercentages`.
    pub percentages: Option<Percentages>,
    /// `livenessProbe` and `readinessProbe`, under those names.
    pub probes: Map<String, Value>,
    /// `env`.
    pub env: Option<Vec<Value>>,
    /// `mountOptions`.
    pub mount_options: Option<Vec<String>>,
    /// `cacheDirs`.
    pub caches: Option<Vec<CacheVolume>>,
    /// `volumes`.
    pub volumes: Vec<Value>,
    /// `volumeMounts`, of those volumes.
    pub mounts: Vec<Value>,
    /// `volumeDevices`, of those volumes.
    pub devices: Vec<Value>,
}

/// `pvcSelector`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimSelector {
    /// `matchName`.
    pub name: Option<String>,
    /// `matchStorageClassName`; where it is given, labels do not count.
    pub storage_class: Option<String>,
    /// `matchLabels` and `matchExpressions`.
    pub labels: LabelSelector,
}

/// `resourcePercentages`: shares of what the containers have that mount the claim, in hundredths of a percent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Percentages {
    /// Of the sum of their requests, by resource name.
    pub requests: Vec<(String, u64)>,
    /// Of the sum of their limits, by resource name.
    pub limits: Vec<(String, u64)>,
    /// The least that a limit becomes, by resource name.
    pub least: AmountByName,
}

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DriverConfig {
    /// The items, in order.
    pub patches: Vec<MountPodPatch>,
    /// `enableNativeSidecar`.
    pub native_sidecar: Option<bool>,
    /// What has no effect here: a place and why, as in `mountPodPatch[0].hostPID: …`.
    pub ineffective: Vec<String>,
}

/// Keys of the file that are about the driver's own parts, and what to do about them.
const TOP: [(&str, &str); 9] = [
    ("enableNativeSidecar", ""),
    ("enableSetQuota", "`csi.quota` says whether sizes are enforced"),
    ("enableControllerSetQuota", "`csi.quota` says whether sizes are enforced"),
    ("enableNodeSelector", "it is about mount pods"),
    ("enableAutoRemoveRequestResources", "it is about mount pods"),
    ("enableAutoAbortStuckMountPod", "it is about mount pods"),
    ("enableLazyUmountTarget", "it is about mount pods"),
    ("enableKubeletListMountPod", "it is about mount pods"),
    ("mountPodPatch", ""),
];

/// Keys of an item that a sidecar cannot follow, and why.
const WITHOUT_EFFECT: [(&str, &str); 13] = [
    ("labels", "a pod's labels are its author's"),
    ("annotations", "a pod's annotations are its author's"),
    ("hostNetwork", "a sidecar is on the pod's network"),
    ("hostPID", "a sidecar has the pod's processes"),
    ("dnsConfig", "a sidecar has the pod's DNS"),
    ("dnsPolicy", "a sidecar has the pod's DNS"),
    ("hostnameKey", "a sidecar has the pod's host name"),
    ("startupProbe", "the sidecar's own waits for the mount"),
    ("lifecycle", "the guard unmounts, and a hook that did would take the files from an application that still ends"),
    ("terminationGracePeriodSeconds", "it is the pod's"),
    ("initContainers", "a sidecar has none"),
    ("tolerations", "they are the pod's"),
    ("serviceAccountName", "it is the pod's"),
];

/// Names of volumes that an item may not use: they are the driver's own.
const OWN_VOLUMES: [&str; 6] = ["rsa-key", "init-config", "config-", "jfs-dir", "update-db", "cachedir-"];

/// Reads the file. An error where something is there that cannot be what was meant, with its place.
pub fn read(file: &Value) -> Result<DriverConfig, String> {
    let mut config = DriverConfig::default();
    let file = match file {
        Value::Null => return Ok(config),
        Value::Object(file) => file,
        _ => return Err("it is not a map".into()),
    };
    for key in file.keys() {
        match TOP.iter().find(|(known, _)| known == key) {
            Some((_, "")) => {}
            Some((_, why)) => config.ineffective.push(format!("{key}: {why}")),
            None => config.ineffective.push(format!("{key}: it is not known")),
        }
    }
    config.native_sidecar = match file.get("enableNativeSidecar") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(native)) => Some(*native),
        Some(_) => return Err("enableNativeSidecar is neither `true` nor `false`".into()),
    };
    let patches = file.get("mountPodPatch").unwrap_or(&Value::Null);
    if !matches!(patches, Value::Null | Value::Array(_)) {
        return Err("mountPodPatch is not a list".into());
    }
    for (index, item) in list(patches).iter().enumerate() {
        let place = format!("mountPodPatch[{index}]");
        let patch = patch(&place, item, &mut config.ineffective).map_err(|why| format!("{place}{why}"))?;
        config.patches.push(patch);
    }
    Ok(config)
}

/// Errors begin with what follows the item's place.
fn patch(place: &str, item: &Value, ineffective: &mut Vec<String>) -> Result<MountPodPatch, String> {
    let item = item.as_object().ok_or(" is not a map")?;
    let mut patch = MountPodPatch::default();
    for (key, value) in item.iter().filter(|(_, value)| !value.is_null()) {
        let wrong = |what: &str| format!(".{key} is not {what}");
        let texts = || -> Result<Vec<String>, String> {
            let items = value.as_array().ok_or_else(|| wrong("a list"))?.iter();
            items.map(|it| it.as_str().map(String::from).ok_or_else(|| wrong("a list of texts"))).collect()
        };
        let text = || value.as_str().map(String::from).ok_or_else(|| wrong("text"));
        let objects = || match value.as_array().filter(|items| items.iter().all(Value::is_object)) {
            Some(items) => Ok(items.clone()),
            None => Err(wrong("a list of maps")),
        };
        match key.as_str() {
            "pvcSelector" => {
                let name = |key: &str| value[key].as_str().filter(|name| !name.is_empty()).map(String::from);
                patch.claims = Some(ClaimSelector {
                    name: name("matchName"),
                    storage_class: name("matchStorageClassName"),
                    labels: selector(value).map_err(|why| format!(".{key}{why}"))?,
                });
            }
            "nodeSelector" => patch.nodes = Some(selector(value).map_err(|why| format!(".{key}{why}"))?),
            "ceMountImage" => patch.image = Some(text()?).filter(|image| !image.is_empty()),
            "eeMountImage" => patch.enterprise_image = Some(text()?).filter(|image| !image.is_empty()),
            "imagePullPolicy" => patch.image_pull_policy = Some(text()?),
            "resources" => {
                let of = |kind: &str| amounts(&value[kind]).map_err(|why| format!(".{key}.{kind}{why}"));
                patch.resources = Some((of("requests")?, of("limits")?));
            }
            "resourcePercentages" => {
                let of = |kind: &str| shares(&value[kind]).map_err(|why| format!(".{key}.{kind}{why}"));
                let least = amounts(&value["minLimits"]).map_err(|why| format!(".{key}.minLimits{why}"))?;
                patch.percentages = Some(Percentages { requests: of("requests")?, limits: of("limits")?, least });
            }
            "livenessProbe" | "readinessProbe" => {
                value.as_object().ok_or_else(|| wrong("a map"))?;
                patch.probes.insert(key.clone(), value.clone());
            }
            "env" => {
                let items = objects()?;
                for item in &items {
                    let name = item["name"].as_str().ok_or_else(|| wrong("a list of variables with names"))?;
                    if secret_key::ALL.contains(&name) {
                        return Err(format!(".{key} sets {name}, which is Pith's own"));
                    }
                }
                patch.env = Some(items);
            }
            "mountOptions" => patch.mount_options = Some(texts()?),
            "cacheDirs" => {
                let caches = objects()?.into_iter().enumerate();
                let caches = caches.map(|(index, it)| cache(&it).map_err(|why| format!(".cacheDirs[{index}]{why}")));
                patch.caches = Some(caches.collect::<Result<_, _>>()?);
            }
            "volumes" => patch.volumes = objects()?,
            "volumeMounts" => patch.mounts = objects()?,
            "volumeDevices" => patch.devices = objects()?,
            key => {
                let why =
                    WITHOUT_EFFECT.iter().find(|(known, _)| *known == key).map_or("it is not known", |(_, why)| why);
                ineffective.push(format!("{place}.{key}: {why}"));
            }
        }
    }
    own_volumes_only(place, &mut patch, ineffective);
    Ok(patch)
}

/// Leaves out volumes that have a name of the driver's own, and mounts of volumes that are not the item's, as the driver does.
fn own_volumes_only(place: &str, patch: &mut MountPodPatch, ineffective: &mut Vec<String>) {
    let name = |it: &Value| it["name"].as_str().unwrap_or_default().to_string();
    let mut known = BTreeSet::new();
    patch.volumes.retain(|volume| {
        let name = name(volume);
        let reserved = name.is_empty() || OWN_VOLUMES.iter().any(|own| name.starts_with(own));
        if reserved {
            ineffective.push(format!("{place}.volumes: the name `{name}` is the driver's own"));
        }
        !reserved && known.insert(name)
    });
    for (key, mounts) in [("volumeMounts", &mut patch.mounts), ("volumeDevices", &mut patch.devices)] {
        mounts.retain(|mount| {
            let name = name(mount);
            if !known.contains(&name) {
                ineffective.push(format!("{place}.{key}: the item has no volume `{name}`"));
            }
            known.contains(&name)
        });
    }
}

fn selector(value: &Value) -> Result<LabelSelector, String> {
    if !value.is_object() {
        return Err(" is not a map".into());
    }
    LabelSelector::read_unseen(value).map_err(|other| format!(".matchExpressions has the operator `{other}`"))
}

/// Quantities, as text or as numbers.
fn amounts(value: &Value) -> Result<AmountByName, String> {
    let items = value.as_object().into_iter().flatten().map(|(name, amount)| {
        let text = scalar(amount).ok_or_else(|| format!(".{name} is no quantity"))?;
        let amount = Quantity::from_str(&text).map_err(|error| format!(".{name}: {error}"))?;
        if amount.is_negative() {
            return Err(format!(".{name} is negative"));
        }
        Ok((name.clone(), amount))
    });
    items.collect()
}

/// `30%`, `30` or `12.5%`, in hundredths of a percent.
fn shares(value: &Value) -> Result<Vec<(String, u64)>, String> {
    let items = value.as_object().into_iter().flatten().map(|(name, share)| {
        let text = scalar(share).unwrap_or_default();
        match percentage(&text) {
            Some(share) => Ok((name.clone(), share)),
            None => Err(format!(".{name} is no percentage such as `30%`: `{text}`")),
        }
    });
    items.collect()
}

/// Hundredths of a percent of a text such as `30%`; the sign may be left out.
fn percentage(text: &str) -> Option<u64> {
    let number: f64 = text.trim().trim_end_matches('%').trim_end().parse().ok()?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between nothing and ten thousand percent, which the line above it says"
    )]
    (number.is_finite() && (0.0..=10_000.0).contains(&number)).then(|| (number * 100.0).round() as u64)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn cache(item: &Value) -> Result<CacheVolume, String> {
    let text = |key: &str| item[key].as_str().filter(|text| !text.is_empty()).map(String::from);
    let needed = |key: &str| text(key).ok_or_else(|| format!(" needs `{key}`"));
    match item["type"].as_str().unwrap_or_default() {
        "HostPath" => {
            let path = needed("path")?;
            if !path.starts_with('/') {
                return Err(format!(".path is not absolute: `{path}`"));
            }
            Ok(CacheVolume::HostPath(path))
        }
        "PVC" => Ok(CacheVolume::Claim(needed("name")?)),
        "EmptyDir" => {
            let size_limit = match scalar(&item["sizeLimit"]).filter(|text| !text.is_empty()) {
                Some(text) => {
                    Some(Quantity::from_str(&text).map_err(|error| format!(".sizeLimit: {error}"))?.to_string())
                }
                None => None,
            };
            Ok(CacheVolume::EmptyDir { in_memory: text("medium").as_deref() == Some("Memory"), size_limit })
        }
        "Ephemeral" => {
            let storage = scalar(&item["storage"]).ok_or(" needs `storage`")?;
            let storage = Quantity::from_str(&storage).map_err(|error| format!(".storage: {error}"))?.to_string();
            let modes: Vec<String> =
                list(&item["accessModes"]).iter().filter_map(|mode| mode.as_str().map(String::from)).collect();
            Ok(CacheVolume::Ephemeral {
                storage_class: text("storageClassName"),
                storage,
                access_modes: if modes.is_empty() { vec!["ReadWriteOnce".into()] } else { modes },
            })
        }
        other => Err(format!(".type is `{other}`: use HostPath, PVC, EmptyDir or Ephemeral")),
    }
}

impl MountPodPatch {
    /// Whether the item is for this claim, in a pod with this `nodeSelector`.
    pub fn matches(&self, claim: &Claim, node: &Entries) -> bool {
        self.claims.as_ref().is_none_or(|selector| selector.matches(claim))
            && self.nodes.as_ref().is_none_or(|selector| !node.is_empty() && selector.matches(node))
    }
}

impl ClaimSelector {
    fn matches(&self, claim: &Claim) -> bool {
        let of_class = match &self.storage_class {
            Some(class) => claim.storage_class.as_ref() == Some(class),
            None => self.labels.matches(&claim.labels),
        };
        of_class && self.name.as_ref().is_none_or(|name| claim.name == *name)
    }
}

#[cfg(test)]
mod tests;
