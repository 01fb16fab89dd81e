//! The client of the API server, and how it names and sends the objects that are kept.

use std::error::Error;
use std::path::Path;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind, Resource};
use kube::{Client, Config};
use pith_core::object::{Kind, Object, Reference};
use serde::Serialize;

use super::convert;

/// A client for the cluster of a kubeconfig; without one, for the cluster that this process runs in, as its service account. It
/// must be made inside of the runtime, and nothing is sent before it is used.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let place = || format!("reading the kubeconfig {}", path.display());
            let kubeconfig = Kubeconfig::read_from(path).with_context(place)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.with_context(place)?
        }
        None => Config::incluster().context(
            "objects.cluster without a kubeconfig is for a pod with a service account, and this process does not run in one",
        )?,
    };
    Client::try_from(config).context("making a client for the API server")
}

/// The first minor version of Kubernetes 1 that has native sidecars without being asked.
const NATIVE_SIDECARS: u32 = 29;

/// Whether the cluster has no native sidecars, by its version. An API server that keeps that to itself has them.
pub(super) async fn lacks_native_sidecars(client: &Client) -> kube::Result<bool> {
    match client.apiserver_version().await {
        Ok(version) => Ok(!is_native(&version.major, &version.minor)),
        Err(error @ kube::Error::Api(_)) => {
            tracing::warn!(error = %cause(&error), "the API server does not say its version: it is taken to have native sidecars");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// A minor version can have more behind its digits, as in `29+`.
fn is_native(major: &str, minor: &str) -> bool {
    let digits = minor.split(|it: char| !it.is_ascii_digit()).next().unwrap_or_default();
    major != "1" || digits.parse::<u32>().is_ok_and(|minor| minor >= NATIVE_SIDECARS)
}

/// A client for the cluster of a kubeconfig; without one, for the cluster that kubectl would ask, or that this process runs in.
/// For people at a terminal, who have set that up in the environment, which `kube` reads here: a server asks the cluster that its
/// configuration names.
pub(crate) async fn connect_as_kubectl(kubeconfig: Option<&Path>) -> Result<Client> {
    if kubeconfig.is_some() {
        return connect(kubeconfig).await;
    }
    let config = Config::infer().await.context(
        "there is no cluster to ask, neither as kubectl would find it nor around this process: name one with --kubeconfig, or \
         files with --objects",
    )?;
    Client::try_from(config).context("making a client for the API server")
}

/// What the API server calls a kind.
pub(super) fn resource(kind: Kind) -> ApiResource {
    let group = if kind == Kind::StorageClass { "storage.k8s.io" } else { "" };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind.name()), kind.plural())
}

/// What is kept of an object.
pub(super) fn read<K: Resource + Serialize>(kind: Kind, mut found: K) -> Result<Object> {
    // The largest part of most objects.
    found.meta_mut().managed_fields = None;
    convert::of_kind(kind, &serde_json::to_value(found)?)
}

/// What an object is called.
pub(super) fn reference(kind: Kind, object: &impl Resource) -> Reference {
    let name = object.meta().name.clone().unwrap_or_default();
    match kind {
        Kind::Namespace => Reference::Namespace(name),
        Kind::StorageClass => Reference::StorageClass(name),
        Kind::PersistentVolume => Reference::PersistentVolume(name),
        Kind::Claim => Reference::Claim { namespace: object.meta().namespace.clone().unwrap_or_default(), name },
    }
}

/// The sentence in which an error of the client ends, such as `Connection refused`: each layer repeats the one below it.
pub(crate) fn cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<serde_json::Error>() {
        // It repeats what it could not read, which is an object.
        Some(error) => format!("an answer cannot be read, at line {} column {}", error.line(), error.column()),
        None => innermost.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_sidecars_come_with_a_version() {
        for (major, minor, expected) in [
            ("1", "28", false),
            ("1", "28+", false),
            ("1", "29", true),
            ("1", "29+", true),
            ("1", "36", true),
            ("2", "0", true),
        ] {
            assert_eq!(is_native(major, minor), expected, "{major}.{minor}");
        }
        // What says nothing is treated as what has none: a plain container works everywhere.
        assert!(!is_native("1", ""));
    }
}
