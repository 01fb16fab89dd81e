//! Objects of the cluster beside the one under decision, as Pith knew them when the decision began.
//!
//! Each kind is an interface of its own: a policy imports those that it calls, and its binding must grant them
//! (`grants: [{lookup: [Namespace, PersistentVolumeClaim]}]`). Objects have the form that they have in Kubernetes, with the parts that
//! Pith keeps and without anything of Secrets. Of namespaces, and of what is in them, there are only those that the `namespaceSelector`
//! of the binding fits. Lists are sorted by name. What goes beyond the budget of a call fails the call, and is no short list.
//!
//! In a native test the answers are those of [`testing::set_lookups`](crate::testing::set_lookups), or the `lookups` of a case; a
//! question that is not among them panics.

pub use serde_json::Value;

/// Labels that each object of a list must have.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

#[cfg(target_arch = "wasm32")]
use crate::bindings::imports::pith::policy as imports;

/// The Namespace of that name.
pub fn namespace(name: &str) -> Option<Value> {
    #[cfg(target_arch = "wasm32")]
    return imports::namespaces::get(name).map(read);
    #[cfg(not(target_arch = "wasm32"))]
    native::found("Namespace", None, Some(name), &[]).pop()
}

/// The Namespaces with these labels.
pub fn namespaces(labels: Labels<'_>) -> Vec<Value> {
    #[cfg(target_arch = "wasm32")]
    return imports::namespaces::list(&owned(labels)).into_iter().map(read).collect();
    #[cfg(not(target_arch = "wasm32"))]
    native::found("Namespace", None, None, labels)
}

/// The StorageClass of that name.
pub fn storage_class(name: &str) -> Option<Value> {
    #[cfg(target_arch = "wasm32")]
    return imports::storage_classes::get(name).map(read);
    #[cfg(not(target_arch = "wasm32"))]
    native::found("StorageClass", None, Some(name), &[]).pop()
}

/// All StorageClasses.
pub fn storage_classes() -> Vec<Value> {
    #[cfg(target_arch = "wasm32")]
    return imports::storage_classes::list().into_iter().map(read).collect();
    #[cfg(not(target_arch = "wasm32"))]
    native::found("StorageClass", None, None, &[])
}

/// The PersistentVolumeClaim of that name.
pub fn claim(namespace: &str, name: &str) -> Option<Value> {
    #[cfg(target_arch = "wasm32")]
    return imports::claims::get(namespace, name).map(read);
    #[cfg(not(target_arch = "wasm32"))]
    native::found("PersistentVolumeClaim", Some(namespace), Some(name), &[]).pop()
}

/// The PersistentVolumeClaims of a namespace with these labels.
pub fn claims(namespace: &str, labels: Labels<'_>) -> Vec<Value> {
    #[cfg(target_arch = "wasm32")]
    return imports::claims::list(namespace, &owned(labels)).into_iter().map(read).collect();
    #[cfg(not(target_arch = "wasm32"))]
    native::found("PersistentVolumeClaim", Some(namespace), None, labels)
}

/// The PersistentVolume that a claim has; nothing where it has none yet.
pub fn volume_of(namespace: &str, claim: &str) -> Option<Value> {
    #[cfg(target_arch = "wasm32")]
    return imports::persistent_volumes::of_claim(namespace, claim).map(read);
    #[cfg(not(target_arch = "wasm32"))]
    native::found("PersistentVolume", Some(namespace), Some(claim), &[]).pop()
}

/// The PersistentVolumes that the claims of a namespace with these labels have, in the order of the claims.
pub fn volumes_of(namespace: &str, labels: Labels<'_>) -> Vec<Value> {
    #[cfg(target_arch = "wasm32")]
    return imports::persistent_volumes::of_claims(namespace, &owned(labels)).into_iter().map(read).collect();
    #[cfg(not(target_arch = "wasm32"))]
    native::found("PersistentVolume", Some(namespace), None, labels)
}

#[cfg(target_arch = "wasm32")]
fn owned(labels: Labels<'_>) -> Vec<(String, String)> {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[cfg(target_arch = "wasm32")]
fn read(text: String) -> Value {
    serde_json::from_str(&text).expect("the host answers with JSON")
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use super::{Labels, Value};

    pub(super) fn found(kind: &str, namespace: Option<&str>, name: Option<&str>, labels: Labels<'_>) -> Vec<Value> {
        let asked = crate::testing::current_lookups().into_iter().find(|it| {
            let same = it.kind == kind && it.namespace.as_deref() == namespace && it.name.as_deref() == name;
            same && it.labels.len() == labels.len()
                && labels.iter().all(|(key, value)| it.labels.get(*key).is_some_and(|it| it == value))
        });
        asked.and_then(|it| it.found).unwrap_or_else(|| {
            panic!("the test says nothing of {kind} {namespace:?} {name:?} {labels:?}, with `testing::set_lookups` or the `lookups` of a case")
        })
    }
}
