//! Which policies are asked about which objects, in which order.
//!
//! Decisions reach the policies through [`Evaluate`] and never learn that they are WebAssembly. Modules are not here: a
//! binding names its policy, and the host finds the compiled module by that name.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::object::{Claim, Entries, Namespace};
use crate::policy::{
    Change, Exemption, Failure, Hook, Naming, NamingRequest, Quota, QuotaRequest, SidecarFacts, Subject, VolumeFacts,
};
use crate::reason::PolicyFailure;
use crate::selector::LabelSelector;
use crate::shape::Shape;

/// What becomes of a policy's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It counts.
    Enforce,
    /// It is recorded and has no effect, failures included.
    Monitor,
}

/// What follows when a policy gives no usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The request fails (HTTP 500) and the cluster's `failurePolicy` decides.
    Fail,
    /// Decide as if the binding were not there, and say so in a warning.
    Default,
}

/// Which objects a binding is for. An empty selector matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// By the labels of the namespace.
    pub namespaces: LabelSelector,
    /// By the labels of the pod. Not consulted for the hooks `naming` and `quota`, where there is no pod.
    pub pods: LabelSelector,
    /// By the labels of the claim. For `exemption`, one matching claim is enough.
    pub claims: LabelSelector,
    /// By the name of the claim's StorageClass; empty for any.
    pub storage_classes: BTreeSet<String>,
}

/// A policy put to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Unique among the bindings; in messages, metrics and explanations.
    pub name: String,
    /// What it is asked.
    pub hooks: BTreeSet<Hook>,
    /// Which objects it is for.
    pub matches: Match,
    /// What becomes of its answers.
    pub mode: Mode,
    /// What follows when it fails.
    pub on_failure: OnFailure,
    /// Lower runs earlier; equal ones run by name.
    pub priority: i32,
    /// How the pods that it is for get their clients, whatever its policy says of them; the configuration's way where it is absent.
    pub shape: Option<Shape>,
}

/// How decisions ask a policy. The host implements it with WebAssembly, tests with closures.
pub trait Evaluate {
    /// Asks whether the pod is exempt.
    fn exempt(&self, binding: &Binding, subject: &Subject<'_>, volumes: &[VolumeFacts]) -> Result<Exemption, Failure>;

    /// Asks what to change about the sidecar of one volume.
    fn adjust(
        &self,
        binding: &Binding,
        subject: &Subject<'_>,
        volume: &VolumeFacts,
        current: &SidecarFacts,
    ) -> Result<Change, Failure>;

    /// Asks what the directory of a new volume is called. `object` is the raw claim, for policies that ask for it.
    fn name(&self, binding: &Binding, request: &NamingRequest, object: &Value) -> Result<Naming, Failure>;

    /// Asks whether the size of a new volume is enforced; none where the policy does not say. `object` is the raw claim.
    fn quota(&self, binding: &Binding, request: &QuotaRequest, object: &Value) -> Result<Option<Quota>, Failure>;
}

/// The order in which bindings are asked: by priority, then name.
pub fn order(a: &Binding, b: &Binding) -> std::cmp::Ordering {
    (a.priority, &a.name).cmp(&(b.priority, &b.name))
}

/// The bindings that are asked whether a pod with these volumes is exempt, in order.
pub fn for_exemption<'a>(
    bindings: &'a [Binding],
    subject: &Subject<'_>,
    volumes: &[VolumeFacts],
) -> impl Iterator<Item = &'a Binding> {
    bindings.iter().filter(move |binding| {
        binding.hooks.contains(&Hook::Exemption) && binding.matches.pod_with(subject, volumes.iter())
    })
}

/// How a pod with these volumes gets its clients, by the first binding that is for it and says so.
pub fn shape<'a>(
    bindings: &[Binding],
    subject: &Subject<'_>,
    volumes: impl Iterator<Item = &'a VolumeFacts> + Clone,
) -> Option<Shape> {
    let says = |binding: &&Binding| binding.shape.is_some() && binding.mode == Mode::Enforce;
    bindings.iter().filter(says).find(|binding| binding.matches.pod_with(subject, volumes.clone()))?.shape
}

/// The bindings that are asked about the sidecar of one volume, in order.
pub fn for_sidecar<'a>(
    bindings: &'a [Binding],
    subject: &Subject<'_>,
    volume: &VolumeFacts,
) -> impl Iterator<Item = &'a Binding> {
    bindings.iter().filter(move |binding| {
        binding.hooks.contains(&Hook::Sidecar)
            && binding.matches.pod(subject)
            && binding.matches.claim(&volume.claim.labels, volume.claim.storage_class.as_deref())
    })
}

/// The bindings that are asked this about a claim's new volume, in order.
pub fn for_volume<'a>(
    bindings: &'a [Binding],
    hook: Hook,
    claim: &Claim,
    namespace: &Namespace,
) -> impl Iterator<Item = &'a Binding> {
    bindings.iter().filter(move |binding| {
        binding.hooks.contains(&hook)
            && binding.matches.namespaces.matches(&namespace.labels)
            && binding.matches.claim(&claim.labels, claim.storage_class.as_deref())
    })
}

/// What a policy's answer is worth under its binding: nothing in monitor mode, and by `onFailure` where there is none.
pub(crate) fn enforced<T>(
    binding: &Binding,
    answer: Result<T, Failure>,
    warnings: &mut Vec<String>,
) -> Result<Option<T>, PolicyFailure> {
    match (answer, binding.mode, binding.on_failure) {
        (_, Mode::Monitor, _) => Ok(None),
        (Ok(answer), Mode::Enforce, _) => Ok(Some(answer)),
        (Err(failure), Mode::Enforce, OnFailure::Default) => {
            // The code comes first: API servers cut a warning where it is long.
            let failed = failure.code().behind(format_args!("policy `{}` failed", binding.name));
            warnings.push(format!("{failed}, and Pith decided without it: {failure}"));
            Ok(None)
        }
        (Err(failure), Mode::Enforce, OnFailure::Fail) => Err(PolicyFailure { binding: binding.name.clone(), failure }),
    }
}

impl Match {
    fn pod(&self, subject: &Subject<'_>) -> bool {
        self.namespaces.matches(&subject.namespace.labels) && self.pods.matches(&subject.pod.labels)
    }

    /// A pod with these volumes, of which one is enough.
    fn pod_with<'a>(&self, subject: &Subject<'_>, mut volumes: impl Iterator<Item = &'a VolumeFacts>) -> bool {
        let fits = |it: &VolumeFacts| self.claim(&it.claim.labels, it.claim.storage_class.as_deref());
        self.pod(subject) && volumes.any(fits)
    }

    fn claim(&self, labels: &Entries, storage_class: Option<&str>) -> bool {
        let class_fits =
            self.storage_classes.is_empty() || storage_class.is_some_and(|class| self.storage_classes.contains(class));
        class_fits && self.claims.matches(labels)
    }
}

#[cfg(test)]
mod tests;
