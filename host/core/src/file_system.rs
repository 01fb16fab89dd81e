//! What pods must know of a file system, although nothing that decides about pods reads its Secret.
//!
//! The controller, which reads it, says which client the pod needs, what that client is prepared with, and which of the pod's
//! Secrets it has as folders: names and places, never a value. It says so in a ConfigMap, one entry for each Secret. A file system
//! of which nothing is said is one of the Community Edition that is there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::object::{Entries, SecretRef};

/// The label of that ConfigMap, by which it is known in a folder of objects.
pub const LABEL: &str = "pith.io/file-systems";

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

/// Reads the data of the ConfigMap. What cannot be read is as if it were not said; its key comes back.
pub fn read(data: &Entries) -> (BTreeMap<SecretRef, FileSystemFacts>, Vec<String>) {
    let (mut known, mut unreadable) = (BTreeMap::new(), Vec::new());
    for (key, text) in data {
        match (key.split_once('.'), serde_json::from_str(text)) {
            (Some((namespace, name)), Ok(facts)) => {
                known.insert(SecretRef { namespace: namespace.into(), name: name.into() }, facts);
            }
            _ => unreadable.push(key.clone()),
        }
    }
    (known, unreadable)
}

/// The key of a Secret's entry. The name of a namespace has no dot.
pub fn key(secret: &SecretRef) -> String {
    format!("{}.{}", secret.namespace, secret.name)
}

/// The text of an entry.
pub fn write(facts: &FileSystemFacts) -> String {
    serde_json::to_string(facts).expect("strings are plain JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{entries, secret};

    #[test]
    fn what_is_written_is_read_again() {
        let facts = FileSystemFacts {
            name: "shop".into(),
            enterprise: true,
            preparation: Some(Preparation::Authenticate(vec![
                PreparationOption::Secret("token".into()),
                PreparationOption::Switch("no-update".into()),
            ])),
            rsa_key: true,
            folders: [("acl".to_string(), "/root/.acl".to_string())].into(),
        };
        let dotted = SecretRef { namespace: "platform".into(), name: "shop.prod".into() };
        for (secret, facts) in [(secret("shop"), FileSystemFacts::default()), (dotted, facts)] {
            let data = entries(&[(&key(&secret), &write(&facts))]);
            assert_eq!(read(&data), ([(secret, facts)].into(), Vec::new()));
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_said() {
        for (key, text) in [("nodot", "{}"), ("a.b", "no JSON"), ("a.b", r#"{"enterprise": "yes"}"#)] {
            assert_eq!(read(&entries(&[(key, text)])), (BTreeMap::new(), vec![key.to_string()]), "{key}: {text}");
        }
        // One of a newer Pith.
        let (known, _) = read(&entries(&[("a.b", r#"{"name": "shop", "colour": "red"}"#)]));
        assert_eq!(known.len(), 1);
    }
}
