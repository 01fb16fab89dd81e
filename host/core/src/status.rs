//! The annotation that records what was injected into a pod: for the second pass, for the controller and for people.
//!
//! An author can write it too. It then gives leave to replace what has our names by what should be there, and may choose among the
//! names that Secrets of pods have, which the controller takes from no other pod. It chooses no Secret's content.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::json::list;
use crate::pod::Pod;
use crate::reason::STATUS_ANNOTATION;
use crate::sidecar::{self, Guards, Sidecar};

/// The claim of a sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InjectedClaim {
    /// One that was there: its name. Its UID names its Secret.
    Present(String),
    /// One that was to come.
    Awaited {
        /// Its name.
        claim: String,
        /// The Secret of the pod's own that stands in for the claim's.
        secret: String,
    },
    /// One of the pod's own, which is made after the pod: a generic ephemeral volume.
    Ephemeral {
        /// The pod's volume.
        volume: String,
        /// As above.
        secret: String,
    },
}

impl InjectedClaim {
    /// What the claim of a pod of this name is called.
    pub fn name(&self, pod: &str) -> String {
        match self {
            InjectedClaim::Present(claim) | InjectedClaim::Awaited { claim, .. } => claim.clone(),
            InjectedClaim::Ephemeral { volume, .. } => ephemeral_claim(pod, volume),
        }
    }

    /// The name of the Secret that belongs to the pod; none where the claim's is used.
    pub fn secret(&self) -> Option<&str> {
        match self {
            InjectedClaim::Present(_) => None,
            InjectedClaim::Awaited { secret, .. } | InjectedClaim::Ephemeral { secret, .. } => Some(secret),
        }
    }

    fn read(sidecar: &Value) -> Option<InjectedClaim> {
        let text = |key: &str| sidecar[key].as_str().map(String::from);
        let secret = text("secret").filter(|name| sidecar::is_pod_secret_name(name));
        match (text("claim"), secret, text("ephemeral")) {
            (Some(claim), Some(secret), _) => Some(InjectedClaim::Awaited { claim, secret }),
            (Some(claim), None, _) => Some(InjectedClaim::Present(claim)),
            (None, Some(secret), Some(volume)) => Some(InjectedClaim::Ephemeral { volume, secret }),
            _ => None,
        }
    }
}

/// What Kubernetes calls the claim of a generic ephemeral volume.
pub fn ephemeral_claim(pod: &str, volume: &str) -> String {
    format!("{pod}-{volume}")
}

/// What the annotation says of these sidecars, of what is beside them, and of what is to be said in events.
pub fn write<'a>(
    sidecars: impl Iterator<Item = (&'a InjectedClaim, &'a Sidecar)>,
    guards: &Guards,
    notes: &BTreeSet<String>,
) -> Value {
    let sidecars = sidecars.map(|(claim, sidecar)| {
        let volumes = names(&sidecar.volumes);
        let mut entry = json!({"container": sidecar.container_name, "volumes": volumes});
        if let Some(preparation) = &sidecar.preparation {
            entry["preparation"] = preparation["name"].clone();
        }
        match claim {
            InjectedClaim::Present(claim) | InjectedClaim::Awaited { claim, .. } => entry["claim"] = json!(claim),
            InjectedClaim::Ephemeral { volume, .. } => entry["ephemeral"] = json!(volume),
        }
        if let Some(secret) = claim.secret() {
            entry["secret"] = json!(secret);
        }
        entry
    });
    let mut status = json!({"version": 1, "sidecars": sidecars.collect::<Vec<Value>>()});
    for (key, container) in [("guard", &guards.guard), ("init", &guards.init)] {
        if let Some(container) = container {
            status[key] = container["name"].clone();
        }
    }
    if !guards.volumes.is_empty() {
        status["volumes"] = json!(names(&guards.volumes));
    }
    if !notes.is_empty() {
        status["notes"] = json!(notes);
    }
    status
}

fn names(volumes: &[Value]) -> Vec<&Value> {
    volumes.iter().map(|volume| &volume["name"]).collect()
}

/// The claims that a pod has sidecars for, by its annotation; none where that cannot be read.
pub fn claims(annotation: &str) -> Vec<InjectedClaim> {
    claims_of(&serde_json::from_str(annotation).unwrap_or_default())
}

/// What is to be said in events, by a pod's annotation: its author's word, perhaps.
pub fn notes(annotation: &str) -> Vec<String> {
    let status: Value = serde_json::from_str(annotation).unwrap_or_default();
    list(&status["notes"]).iter().filter_map(|note| Some(note.as_str()?.to_string())).collect()
}

fn claims_of(status: &Value) -> Vec<InjectedClaim> {
    list(&status["sidecars"]).iter().filter_map(InjectedClaim::read).collect()
}

/// What an earlier pass recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The names of its containers and volumes.
    pub names: BTreeSet<String>,
    /// Its claims.
    pub claims: Vec<InjectedClaim>,
}

impl Recorded {
    /// Reads a pod's annotation.
    pub fn of(pod: Pod<'_>) -> Recorded {
        let Some(annotation) = pod.annotation(STATUS_ANNOTATION) else { return Recorded::default() };
        let status: Value = serde_json::from_str(annotation).unwrap_or_default();
        let sidecars = list(&status["sidecars"]).iter();
        let names = sidecars.flat_map(|sidecar| {
            list(&sidecar["volumes"]).iter().chain([&sidecar["container"], &sidecar["preparation"]])
        });
        let of_guards = list(&status["volumes"]).iter().chain([&status["guard"], &status["init"]]);
        let names = names.chain(of_guards).filter_map(|name| name.as_str().map(str::to_string));
        Recorded { names: names.collect(), claims: claims_of(&status) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_no_claim() {
        let secret = sidecar::pod_secret_name("review", "tmp");
        let check = |sidecar: Value, expected: Option<InjectedClaim>| {
            let status = json!({"sidecars": [sidecar]}).to_string();
            assert_eq!(claims(&status), Vec::from_iter(expected), "{status}");
        };
        let (claim, volume) = ("orders".to_string(), "tmp".to_string());
        check(json!({"claim": "orders"}), Some(InjectedClaim::Present(claim.clone())));
        check(
            json!({"claim": "orders", "secret": secret}),
            Some(InjectedClaim::Awaited { claim: claim.clone(), secret: secret.clone() }),
        );
        check(
            json!({"ephemeral": "tmp", "secret": secret}),
            Some(InjectedClaim::Ephemeral { volume, secret: secret.clone() }),
        );
        // Only names that no other Secret has.
        for name in ["pith-record-key", "file-system", "pith-pod-", "pith-0b5e", &format!("{secret}0"), ""] {
            check(json!({"ephemeral": "tmp", "secret": name}), None);
            check(json!({"claim": "orders", "secret": name}), Some(InjectedClaim::Present(claim.clone())));
        }
        for nonsense in [json!({}), json!(5), json!({"ephemeral": "tmp"}), json!({"secret": secret})] {
            check(nonsense, None);
        }
        assert_eq!(claims("no JSON"), []);
    }
}
