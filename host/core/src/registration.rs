//! The MutatingWebhookConfiguration with which API servers call the webhook: what it is to be, and where it is something else.
//!
//! It stays the JSON that somebody wrote. Only what is applied is compared: what an API server adds, and what others keep there,
//! is theirs.

use serde_json::{Map, Value, json};

/// The name of Pith among those who write an object.
pub const MANAGER: &str = "pith";

const KIND: &str = "MutatingWebhookConfiguration";
const API_VERSION: &str = "admissionregistration.k8s.io/v1";

/// A configuration as somebody wrote it, with all that is needed to apply it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    name: String,
    object: Value,
}

/// Why a configuration cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAManifest(String);

/// The object with whose end the configuration ends too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// As in `rbac.authorization.k8s.io/v1`.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Manifest {
    /// Reads a configuration.
    pub fn parse(object: Value) -> Result<Manifest, NotAManifest> {
        let is = |key: &str, value: &str| match object[key].as_str() {
            Some(found) if found == value => Ok(()),
            found => {
                Err(NotAManifest(format!("its {key} is `{}`: it must be `{value}`", found.unwrap_or("(no text)"))))
            }
        };
        is("kind", KIND)?;
        is("apiVersion", API_VERSION)?;
        let Some(name) = object["metadata"]["name"].as_str().filter(|name| !name.is_empty()) else {
            return Err(NotAManifest("it has no metadata.name: give it one".into()));
        };
        let Some(webhooks) = object["webhooks"].as_array().filter(|webhooks| !webhooks.is_empty()) else {
            return Err(NotAManifest("it has no webhooks: name at least one".into()));
        };
        for webhook in webhooks {
            let Some(name) = webhook["name"].as_str() else {
                return Err(NotAManifest("one of its webhooks has no name: give it one".into()));
            };
            if !webhook["clientConfig"].is_object() {
                return Err(NotAManifest(format!("its webhook `{name}` has no clientConfig: say where it is called")));
            }
        }
        Ok(Manifest { name: name.to_string(), object })
    }

    /// The name of the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is applied: all of it, with this bundle (in base64) and this owner. Without a bundle, who else writes one keeps it.
    pub fn wanted(&self, bundle: Option<&str>, owner: Option<&Owner>) -> Value {
        let mut object = self.object.clone();
        if let (Some(bundle), Some(webhooks)) = (bundle, object["webhooks"].as_array_mut()) {
            for webhook in webhooks {
                webhook["clientConfig"]["caBundle"] = json!(bundle);
            }
        }
        if let Some(owner) = owner {
            object["metadata"]["ownerReferences"] = json!([owner.reference()]);
        }
        object
    }
}

impl Owner {
    /// As dependents name it.
    pub fn reference(&self) -> Value {
        json!({"apiVersion": self.api_version, "kind": self.kind, "name": self.name, "uid": self.uid})
    }
}

/// What is applied where the configuration is somebody else's: this bundle (in base64) for each webhook that it has. By its uid
/// nothing is made where it is gone.
pub fn bundles_only(existing: &Value, bundle: &str) -> Value {
    let webhooks = existing["webhooks"].as_array().into_iter().flatten();
    let webhooks: Vec<Value> =
        webhooks.map(|webhook| json!({"name": webhook["name"], "clientConfig": {"caBundle": bundle}})).collect();
    json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": existing["metadata"]["name"], "uid": existing["metadata"]["uid"]},
        "webhooks": webhooks,
    })
}

/// The place of the first thing that is not as wanted, or that was wanted once and is no longer.
pub fn difference(existing: &Value, wanted: &Value) -> Option<String> {
    differs("", existing, wanted).or_else(|| left_over(existing, wanted))
}

fn differs(place: &str, existing: &Value, wanted: &Value) -> Option<String> {
    let here = || Some(place.trim_start_matches('.').to_string());
    match (existing, wanted) {
        // These are a part of where it was found, and lists leave them out.
        _ if matches!(place, ".apiVersion" | ".kind") => None,
        (Value::Object(existing), Value::Object(wanted)) => wanted.iter().find_map(|(key, wanted)| {
            let existing = existing.get(key).unwrap_or(&Value::Null);
            differs(&format!("{place}.{key}"), existing, wanted)
        }),
        (Value::Array(existing), Value::Array(wanted)) => match key_of(place) {
            Some(key) => wanted.iter().find_map(|wanted| {
                let name = &wanted[key];
                let existing = existing.iter().find(|it| it[key] == *name).unwrap_or(&Value::Null);
                differs(&format!("{place}[{}]", name.as_str().unwrap_or_default()), existing, wanted)
            }),
            None if existing.len() != wanted.len() => here(),
            None => existing
                .iter()
                .zip(wanted)
                .enumerate()
                .find_map(|(index, (existing, wanted))| differs(&format!("{place}[{index}]"), existing, wanted)),
        },
        // An API server leaves out what is empty.
        (Value::Null, wanted) if is_empty(wanted) => None,
        _ => {
            if existing == wanted {
                None
            } else {
                here()
            }
        }
    }
}

/// What the elements of a list are told apart by, where they are merged and not replaced.
fn key_of(place: &str) -> Option<&'static str> {
    match place {
        ".webhooks" => Some("name"),
        ".metadata.ownerReferences" => Some("uid"),
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(object) => object.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// A webhook that we applied once and that is no longer wanted: it goes when the rest is applied. Others' stay.
fn left_over(existing: &Value, wanted: &Value) -> Option<String> {
    let ours = existing["metadata"]["managedFields"].as_array().into_iter().flatten();
    let ours = ours.filter(|it| it["manager"] == MANAGER && it["operation"] == "Apply");
    let fields = ours.filter_map(|it| it["fieldsV1"]["f:webhooks"].as_object());
    let names =
        fields.flat_map(Map::keys).filter_map(|key| serde_json::from_str::<Value>(key.strip_prefix("k:")?).ok());
    let is_wanted = |name: &Value| wanted["webhooks"].as_array().into_iter().flatten().any(|it| it["name"] == *name);
    let name = names.map(|key| key["name"].clone()).find(|name| !is_wanted(name))?;
    Some(format!("webhooks[{}]", name.as_str().unwrap_or_default()))
}

#[cfg(test)]
mod tests;
