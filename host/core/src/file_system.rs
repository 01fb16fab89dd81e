//! What pods must know of a file system, although nothing that decides about pods reads its Secret.
//!
//! The controller, which reads it, says which client the pod needs, what that client is prepared with, and which of the pod's
//! Secrets it has as folders: names and places, never a value. It says so in a ConfigMap, one entry for each Secret. A file system
//! of which nothing is said is one of the Community Edition that is there.

use std::collections::BTreeMap;

use crate::object::{Entries, FileSystemFacts, SecretRef};

/// The label of that ConfigMap, by which it is known in a folder of objects.
pub const LABEL: &str = "pith.io/file-systems";

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
    use crate::object::{Preparation, PreparationOption};
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
