//! Which policies are asked about which objects, in which order.
//!
//! Decisions reach the policies through [`Evaluate`] and never learn that they are WebAssembly. Modules are not here: a
//! binding names its policy, and the host finds the compiled module by that name.

use std::collections::BTreeSet;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::condition::{About, Condition};
use crate::object::{Claim, Entries, Namespace};
use crate::policy::{
    Change, Exemption, Failure, Hook, Naming, NamingRequest, PodFacts, Quota, QuotaRequest, SidecarFacts, Subject,
    VolumeFacts,
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
    /// What must hold beside that, looked at last. For `exemption`, one claim that all of them hold for is enough.
    pub conditions: Vec<Condition>,
}

/// Why a binding is not asked about an object. The first thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Miss {
    /// The labels of the namespace.
    #[error("its namespaceSelector does not fit the labels of the namespace")]
    Namespace,
    /// The labels of the pod.
    #[error("its podSelector does not fit the labels of the pod")]
    Pod,
    /// The labels or the class of the claim; of a pod with several, of each of them.
    #[error("neither its claimSelector nor its storageClasses leave a claim to ask about")]
    Claim,
    /// The object is not among those hundredths that it is put to.
    #[error("it is put to {percent} % of what it fits, and this is number {number} of 0 to 99")]
    Share {
        /// How many of a hundred are asked about.
        percent: u8,
        /// Which one this is.
        number: u8,
    },
    /// One of its conditions does not hold; of a pod with several claims, for none of them all do.
    #[error("its condition `{0}` does not hold")]
    Condition(String),
    /// One of its conditions cannot be evaluated, and none is false: nobody can tell, which is the binding's failure.
    #[error("{0}")]
    Unknown(Failure),
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
    /// How many of a hundred of these it is put to: always the same ones, and with a higher number those and more.
    pub percent: u8,
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

    /// Hears of a binding that failed before it could be asked.
    fn failed(&self, _binding: &Binding, _hook: Hook, _failure: &Failure) {}
}

/// A binding that is to be asked, unless it has failed already: a condition of its could not be evaluated.
#[derive(Debug)]
pub struct Chosen<'a> {
    /// The binding.
    pub binding: &'a Binding,
    hook: Hook,
    failure: Option<Failure>,
}

impl<'a> Chosen<'a> {
    fn by(binding: &'a Binding, hook: Hook, fits: impl FnOnce() -> Result<(), Miss>) -> Option<Chosen<'a>> {
        if !binding.hooks.contains(&hook) {
            return None;
        }
        match fits() {
            Ok(()) => Some(Chosen { binding, hook, failure: None }),
            Err(Miss::Unknown(failure)) => Some(Chosen { binding, hook, failure: Some(failure) }),
            Err(_) => None,
        }
    }

    /// The answer of its policy.
    pub(crate) fn ask<T>(
        &self,
        policies: &dyn Evaluate,
        ask: impl FnOnce(&Binding) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match &self.failure {
            None => ask(self.binding),
            Some(failure) => {
                policies.failed(self.binding, self.hook, failure);
                Err(failure.clone())
            }
        }
    }
}

/// The order in which bindings are asked: by priority, then name.
pub fn order(a: &Binding, b: &Binding) -> std::cmp::Ordering {
    (a.priority, &a.name).cmp(&(b.priority, &b.name))
}

/// Two bindings of which only the earlier one counts, wherever it has an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shadow<'a> {
    /// The earlier one.
    pub by: &'a str,
    /// The one whose answer does not count.
    pub binding: &'a str,
    /// The hook, or `shape`.
    pub what: &'static str,
}

/// Which of these bindings, in order, take answers away from which: of those that name a volume, say whether its size is enforced, or how
/// pods get their clients, the first counts. Only where selectors alone say that the earlier one is for all that the later one is for.
pub fn shadows(bindings: &[Binding]) -> Vec<Shadow<'_>> {
    let has = |it: &Binding, hook: Hook| it.hooks.contains(&hook);
    let mut found = Vec::new();
    for (index, later) in bindings.iter().enumerate() {
        let covers = |it: &&Binding| it.percent >= 100 && it.mode == Mode::Enforce && it.matches.covers(&later.matches);
        for by in bindings[..index].iter().filter(covers) {
            let hooks = [Hook::Naming, Hook::Quota].into_iter().filter(|hook| has(by, *hook) && has(later, *hook));
            let shape = (by.shape.is_some() && later.shape.is_some()).then_some("shape");
            let whats = hooks.map(Hook::as_str).chain(shape);
            found.extend(whats.map(|what| Shadow { by: &by.name, binding: &later.name, what }));
        }
    }
    found
}

/// The bindings that are asked whether a pod with these volumes is exempt, in order.
pub fn for_exemption<'a>(
    bindings: &'a [Binding],
    subject: &Subject<'_>,
    volumes: &[VolumeFacts],
) -> impl Iterator<Item = Chosen<'a>> {
    bindings.iter().filter_map(move |it| Chosen::by(it, Hook::Exemption, || it.meets_pod(subject, volumes.iter())))
}

/// How a pod with these volumes gets its clients, by the first binding that is for it and says so.
pub(crate) fn shape<'a>(
    bindings: &[Binding],
    subject: &Subject<'_>,
    volumes: impl Iterator<Item = &'a VolumeFacts> + Clone,
    warnings: &mut Vec<String>,
) -> Result<Option<Shape>, PolicyFailure> {
    for binding in bindings.iter().filter(|it| it.shape.is_some() && it.mode == Mode::Enforce) {
        match binding.meets_pod(subject, volumes.clone()) {
            Ok(()) => return Ok(binding.shape),
            Err(Miss::Unknown(failure)) => enforced(binding, Err::<(), _>(failure), warnings).map(drop)?,
            Err(_) => {}
        }
    }
    Ok(None)
}

/// The bindings that are asked about the sidecar of one volume, in order.
pub fn for_sidecar<'a>(
    bindings: &'a [Binding],
    subject: &Subject<'_>,
    volume: &VolumeFacts,
) -> impl Iterator<Item = Chosen<'a>> {
    bindings.iter().filter_map(move |it| Chosen::by(it, Hook::Sidecar, || it.meets_pod(subject, [volume].into_iter())))
}

/// The bindings that are asked this about a claim's new volume, in order.
pub fn for_volume<'a>(
    bindings: &'a [Binding],
    hook: Hook,
    claim: &Claim,
    namespace: &Namespace,
) -> impl Iterator<Item = Chosen<'a>> {
    bindings.iter().filter_map(move |it| Chosen::by(it, hook, || it.meets_claim(claim, namespace)))
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
            let warning = format!("{failed}, and Pith decided without it: {failure}");
            // It may be asked about each claim, and about the pod.
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
            Ok(None)
        }
        (Err(failure), Mode::Enforce, OnFailure::Fail) => Err(PolicyFailure { binding: binding.name.clone(), failure }),
    }
}

impl Binding {
    /// Whether it is for a pod with these volumes, of which one is enough.
    pub fn meets_pod<'a>(
        &self,
        subject: &Subject<'_>,
        volumes: impl Iterator<Item = &'a VolumeFacts>,
    ) -> Result<(), Miss> {
        let fits = |it: &&VolumeFacts| self.matches.claim(&it.claim.labels, it.claim.storage_class.as_deref());
        if !self.matches.namespaces.matches(&subject.namespace.labels) {
            return Err(Miss::Namespace);
        }
        if !self.matches.pods.matches(&subject.pod.labels) {
            return Err(Miss::Pod);
        }
        let mut volumes = volumes.filter(fits);
        let first = volumes.next().ok_or(Miss::Claim)?;
        self.takes("pod", &subject.namespace.name, workload(&subject.pod))?;
        let about = |claim| About { pod: Some(&subject.pod), namespace: &subject.namespace, claim };
        let mut found = self.matches.holds(&about(&first.claim));
        // One claim is enough, and what cannot be told of one matters more than what does not hold for another.
        for volume in volumes {
            found = match (found, self.matches.holds(&about(&volume.claim))) {
                (Ok(()), _) | (_, Ok(())) => return Ok(()),
                (Err(Miss::Unknown(failure)), _) | (_, Err(Miss::Unknown(failure))) => Err(Miss::Unknown(failure)),
                (miss, _) => miss,
            };
        }
        found
    }

    /// Whether it is for the volume of a claim.
    pub fn meets_claim(&self, claim: &Claim, namespace: &Namespace) -> Result<(), Miss> {
        if !self.matches.namespaces.matches(&namespace.labels) {
            return Err(Miss::Namespace);
        }
        if !self.matches.claim(&claim.labels, claim.storage_class.as_deref()) {
            return Err(Miss::Claim);
        }
        self.takes("claim", &namespace.name, &claim.name)?;
        self.matches.holds(&About { pod: None, namespace, claim })
    }

    /// Whether it is put to this object. What decides are names alone, so whoever asks again, and whichever replica, gets the same.
    fn takes(&self, kind: &str, namespace: &str, name: &str) -> Result<(), Miss> {
        if self.percent >= 100 {
            return Ok(());
        }
        let mut hash = Sha256::new();
        for part in [&*self.name, kind, namespace, name] {
            hash.update(part);
            // No name has one.
            hash.update([0]);
        }
        let [first, second, ..] = <[u8; 32]>::from(hash.finalize());
        let number = u8::try_from(u16::from_be_bytes([first, second]) % 100).unwrap_or(u8::MAX);
        if number < self.percent { Ok(()) } else { Err(Miss::Share { percent: self.percent, number }) }
    }
}

/// What the pods of one workload have in common, for a Deployment also those of its next roll-out: the name of a pod without what makes
/// it one of several.
fn workload(pod: &PodFacts) -> &str {
    let Some(prefix) = pod.generate_name.as_deref() else { return pod.name.as_deref().unwrap_or_default() };
    let template = pod.labels.get("pod-template-hash");
    template.and_then(|hash| prefix.strip_suffix('-')?.strip_suffix(&**hash)).unwrap_or(prefix)
}

impl Match {
    /// Whether everything that fits another one fits this one, as far as can be told without looking at objects.
    fn covers(&self, other: &Match) -> bool {
        let selector = |one: &LabelSelector, other: &LabelSelector| *one == LabelSelector::default() || one == other;
        selector(&self.namespaces, &other.namespaces)
            && selector(&self.pods, &other.pods)
            && selector(&self.claims, &other.claims)
            && (self.storage_classes.is_empty()
                || !other.storage_classes.is_empty() && other.storage_classes.is_subset(&self.storage_classes))
            && self.conditions.iter().all(|it| other.conditions.contains(it))
    }

    /// Whether all conditions hold. As in Kubernetes, one that is false counts for more than one that nobody can tell of.
    fn holds(&self, about: &About<'_>) -> Result<(), Miss> {
        let mut unknown = None;
        for condition in &self.conditions {
            match condition.holds(about) {
                Ok(true) => {}
                Ok(false) => return Err(Miss::Condition(condition.name.clone())),
                Err(why) => unknown = unknown.or(Some(Miss::Unknown(Failure::Condition(why)))),
            }
        }
        unknown.map_or(Ok(()), Err)
    }

    fn claim(&self, labels: &Entries, storage_class: Option<&str>) -> bool {
        let class_fits =
            self.storage_classes.is_empty() || storage_class.is_some_and(|class| self.storage_classes.contains(class));
        class_fits && self.claims.matches(labels)
    }
}

#[cfg(test)]
mod tests;
