//! The raw Pod, read in place.
//!
//! A Pod is never decoded into a typed struct and written out again: that would drop the fields which the struct does not
//! know. This module reads the few places that matter from the JSON and says where they are.

use serde_json::Value;

use crate::json::{entries, list};
use crate::policy::{Owner, PodFacts};
use crate::reason::{
    DONE_LABEL, Refusal, SKIPPED_ANNOTATION, SKIPPED_LABEL, STATUS_ANNOTATION, VCI_MOUNTS_ANNOTATION,
    VCI_PROPAGATION_ANNOTATION,
};

/// The JSON of a Pod, known to be an object with an object `spec`.
#[derive(Debug, Clone, Copy)]
pub struct Pod<'a> {
    /// The whole object.
    pub object: &'a Value,
    /// `spec`.
    pub spec: &'a Value,
}

/// Which list of the pod's spec a container is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerList {
    /// `spec.initContainers`.
    Init,
    /// `spec.containers`.
    Main,
    /// `spec.ephemeralContainers`.
    Ephemeral,
}

impl ContainerList {
    /// The key in `spec`.
    pub fn key(self) -> &'static str {
        match self {
            ContainerList::Init => "initContainers",
            ContainerList::Main => "containers",
            ContainerList::Ephemeral => "ephemeralContainers",
        }
    }
}

/// What a volume of the pod is made of, as far as Pith cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeSource<'a> {
    /// `persistentVolumeClaim`.
    Claim {
        /// `claimName`.
        name: &'a str,
        /// `readOnly`.
        read_only: bool,
    },
    /// `ephemeral`: a claim of the pod's own, which is made after it.
    Ephemeral {
        /// `volumeClaimTemplate`.
        template: &'a Value,
    },
    /// `csi`, inline.
    InlineCsi {
        /// `driver`.
        driver: &'a str,
    },
    /// Anything else.
    Other,
}

impl<'a> Pod<'a> {
    /// Reads the outline of a Pod; a refusal where it is none, or where a patch would overwrite what has another shape.
    pub fn read(object: &'a Value) -> Result<Pod<'a>, Refusal> {
        let spec = object.get("spec").filter(|spec| spec.is_object());
        let spec = spec.ok_or_else(|| Refusal::Malformed("it has no `spec`".into()))?;
        if !object.get("metadata").is_none_or(Value::is_object) {
            return Err(Refusal::Malformed("its `metadata` is not an object".into()));
        }
        let metadata = object.get("metadata").unwrap_or(&Value::Null);
        for key in ["labels", "annotations"] {
            if !matches!(metadata[key], Value::Null | Value::Object(_)) {
                return Err(Refusal::Malformed(format!("its `metadata.{key}` is not an object")));
            }
        }
        for key in ["volumes", "initContainers", "containers", "ephemeralContainers"] {
            if !matches!(spec[key], Value::Null | Value::Array(_)) {
                return Err(Refusal::Malformed(format!("its `spec.{key}` is not a list")));
            }
        }
        Ok(Pod { object, spec })
    }

    /// `metadata.labels[key]`.
    pub fn label(self, key: &str) -> Option<&'a str> {
        self.object.get("metadata")?.get("labels")?.get(key)?.as_str()
    }

    /// `metadata.annotations[key]`.
    pub fn annotation(self, key: &str) -> Option<&'a str> {
        self.object.get("metadata")?.get("annotations")?.get(key)?.as_str()
    }

    /// What policies are told. Pith's own labels and annotations are left out, so that a second pass asks what the first asked.
    pub fn facts(self) -> PodFacts {
        let metadata = &self.object["metadata"];
        let mut labels = entries(&metadata["labels"]);
        for own in [DONE_LABEL, SKIPPED_LABEL] {
            labels.remove(own);
        }
        let mut annotations = entries(&metadata["annotations"]);
        for own in [STATUS_ANNOTATION, SKIPPED_ANNOTATION, VCI_PROPAGATION_ANNOTATION, VCI_MOUNTS_ANNOTATION] {
            annotations.remove(own);
        }
        PodFacts {
            name: text(&metadata["name"]),
            generate_name: text(&metadata["generateName"]),
            labels,
            annotations,
            owners: list(&metadata["ownerReferences"]).iter().map(owner).collect(),
            service_account: text(&self.spec["serviceAccountName"]).unwrap_or_else(|| "default".into()),
            priority_class: text(&self.spec["priorityClassName"]),
            priority: self.spec["priority"].as_i64().and_then(|number| i32::try_from(number).ok()),
        }
    }

    /// `spec.volumes`, by name.
    pub fn volumes(self) -> impl Iterator<Item = (&'a str, VolumeSource<'a>)> {
        list(&self.spec["volumes"]).iter().filter_map(|volume| Some((volume["name"].as_str()?, source(volume))))
    }

    /// The volume of that name, with its place in `spec.volumes`.
    pub fn volume(self, name: &str) -> Option<(usize, &'a Value)> {
        list(&self.spec["volumes"]).iter().enumerate().find(|(_, volume)| volume["name"] == name)
    }

    /// The containers of one list.
    pub fn containers(self, containers: ContainerList) -> &'a [Value] {
        list(&self.spec[containers.key()])
    }

    /// Every container of the pod, with its list and its place there.
    pub fn all_containers(self) -> impl Iterator<Item = (ContainerList, usize, &'a Value)> {
        [ContainerList::Init, ContainerList::Main, ContainerList::Ephemeral]
            .into_iter()
            .flat_map(move |kind| self.containers(kind).iter().enumerate().map(move |(index, it)| (kind, index, it)))
    }

    /// The mount of the service account's token that the API server has given the pod's containers, if it has.
    pub fn token_mount(self) -> Option<&'a Value> {
        let mounts = self.all_containers().flat_map(|(_, _, container)| list(&container["volumeMounts"]));
        mounts.into_iter().find(|mount| {
            let of_api_server = mount["name"].as_str().is_some_and(|name| name.starts_with("kube-api-access-"));
            of_api_server && mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
        })
    }

    /// Whether the pod is to end by itself, as those of a Job.
    pub fn runs_to_completion(self) -> bool {
        matches!(self.spec["restartPolicy"].as_str(), Some("Never" | "OnFailure"))
    }

    /// Whether the pod has `limits` or `requests` for all its containers together.
    pub fn has_resources(self, kind: &str) -> bool {
        self.spec["resources"][kind].as_object().is_some_and(|amounts| !amounts.is_empty())
    }

    /// Whether any volume could be a claim's: a cheap look before anything else.
    pub fn names_claims(self) -> bool {
        self.volumes().any(|(_, source)| source != VolumeSource::Other)
    }
}

fn source(volume: &Value) -> VolumeSource<'_> {
    if let Some(name) = volume["persistentVolumeClaim"]["claimName"].as_str() {
        let read_only = volume["persistentVolumeClaim"]["readOnly"] == true;
        return VolumeSource::Claim { name, read_only };
    }
    if let Some(ephemeral) = volume.get("ephemeral").filter(|ephemeral| ephemeral.is_object()) {
        return VolumeSource::Ephemeral { template: &ephemeral["volumeClaimTemplate"] };
    }
    if let Some(driver) = volume["csi"]["driver"].as_str() {
        return VolumeSource::InlineCsi { driver };
    }
    VolumeSource::Other
}

fn owner(reference: &Value) -> Owner {
    Owner {
        api_version: text(&reference["apiVersion"]).unwrap_or_default(),
        kind: text(&reference["kind"]).unwrap_or_default(),
        name: text(&reference["name"]).unwrap_or_default(),
        controller: reference["controller"] == true,
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_string)
}

#[cfg(test)]
mod tests;
