//! One rule: conditions that all must hold, and what follows.

use pith_policy_sdk::prelude::*;

use crate::pattern::Pattern;
use crate::selector::Selector;

/// A rule of the settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Rule {
    pub(crate) action: Action,
    /// A sentence for whoever reads why: recorded for `skip`, shown to whoever creates the pod for `deny`.
    pub(crate) reason: String,
    /// The name of the namespace is one of these.
    namespaces: Option<Vec<Pattern>>,
    /// The labels of the namespace.
    namespace_selector: Option<Selector>,
    /// The labels of the pod.
    pod_selector: Option<Selector>,
    /// The kind of one of the pod's owners is one of these.
    owner_kinds: Option<Vec<Pattern>>,
    /// The name of the pod's PriorityClass is one of these.
    priority_classes: Option<Vec<Pattern>>,
    /// The pod's priority is this or more.
    priority_at_least: Option<i32>,
}

/// What follows from a rule that matches.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Action {
    Skip,
    Deny,
}

impl Rule {
    /// True where every condition that the rule has holds.
    pub(crate) fn matches(&self, pod: &Pod, namespace: &Namespace) -> bool {
        let class = pod.priority_class.as_deref();
        holds(&self.namespaces, |patterns| any(patterns, &namespace.name))
            && holds(&self.namespace_selector, |selector| selector.matches(&namespace.labels))
            && holds(&self.pod_selector, |selector| selector.matches(&pod.labels))
            && holds(&self.owner_kinds, |kinds| pod.owners.iter().any(|owner| any(kinds, &owner.kind)))
            && holds(&self.priority_classes, |patterns| class.is_some_and(|class| any(patterns, class)))
            && holds(&self.priority_at_least, |least| pod.priority.is_some_and(|priority| priority >= *least))
    }

    pub(crate) fn validate(&self) -> Result<(), SettingsProblem> {
        if self.reason.trim().is_empty() {
            return Err(SettingsProblem::new("reason", "must say why, in a sentence"));
        }
        let lists = [
            ("namespaces", self.namespaces.as_ref().map(Vec::len)),
            ("ownerKinds", self.owner_kinds.as_ref().map(Vec::len)),
            ("priorityClasses", self.priority_classes.as_ref().map(Vec::len)),
        ];
        for (field, length) in lists {
            if length == Some(0) {
                let reason = "an empty list holds for no pod; leave the condition out, or write [\"*\"]";
                return Err(SettingsProblem::new(field, reason));
            }
        }
        for (selector, field) in [(&self.namespace_selector, "namespaceSelector"), (&self.pod_selector, "podSelector")]
        {
            if let Some(selector) = selector {
                selector.validate().map_err(|problem| problem.within(field))?;
            }
        }
        if lists.iter().all(|(_, length)| length.is_none())
            && self.namespace_selector.is_none()
            && self.pod_selector.is_none()
            && self.priority_at_least.is_none()
        {
            // A condition that is forgotten or indented wrongly would otherwise switch the whole injection off.
            let reason = "has no condition and would hold for every pod; if it should, write `namespaces: [\"*\"]`";
            return Err(SettingsProblem::new("", reason));
        }
        Ok(())
    }
}

/// A condition that the rule does not have holds.
fn holds<C>(condition: &Option<C>, test: impl FnOnce(&C) -> bool) -> bool {
    condition.as_ref().is_none_or(test)
}

fn any(patterns: &[Pattern], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}
