//! What policies in monitor mode would change: asked beside the decision, compared with it field by field, and never applied.

use std::collections::BTreeMap;
use std::fmt;

use crate::binding::Binding;
use crate::policy::{Exemption, Failure, Hook, Quota};
use crate::settings::Settings;
use crate::volume::Directory;

/// What came of a binding in monitor mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitored {
    /// The binding.
    pub binding: String,
    /// What it was asked.
    pub hook: Hook,
    /// About which claim of a pod; none where it is about all of it.
    pub claim: Option<String>,
    /// What would be different, if anything.
    pub outcome: Result<Vec<Difference>, Failure>,
}

/// A field that would be different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// As an explanation names it.
    pub field: String,
    /// What is enforced; absent for nothing.
    pub enforced: Option<String>,
    /// What the policy would have; absent for nothing.
    pub monitored: Option<String>,
}

/// Fields and their values. One that is there several times has them all.
pub(crate) type Fields = Vec<(String, String)>;

impl Monitored {
    pub(crate) fn of(
        binding: &Binding,
        hook: Hook,
        claim: Option<&str>,
        enforced: &Fields,
        monitored: Result<Option<Fields>, Failure>,
    ) -> Monitored {
        let outcome = monitored.map(|fields| fields.map_or_else(Vec::new, |fields| differences(enforced, &fields)));
        Monitored { binding: binding.name.clone(), hook, claim: claim.map(String::from), outcome }
    }

    /// The outcome in a word: `same`, `different` or `failed`.
    pub fn word(&self) -> &'static str {
        match &self.outcome {
            Ok(differences) if differences.is_empty() => "same",
            Ok(_) => "different",
            Err(_) => "failed",
        }
    }
}

impl fmt::Display for Difference {
    /// Without the values of variables: a log is no place for what an application is told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_hidden = self.field.starts_with("env.");
        let shown = |value: &Option<String>| match value {
            None => "nothing".to_string(),
            Some(_) if is_hidden => "a value".into(),
            Some(value) => format!("`{value}`"),
        };
        write!(f, "{}: {} instead of {}", self.field, shown(&self.monitored), shown(&self.enforced))
    }
}

pub(crate) fn differences(enforced: &Fields, monitored: &Fields) -> Vec<Difference> {
    let mut fields: BTreeMap<&str, [Vec<&str>; 2]> = BTreeMap::new();
    for (side, values) in [enforced, monitored].into_iter().enumerate() {
        for (field, value) in values {
            fields.entry(field).or_default()[side].push(value);
        }
    }
    let said = |values: Vec<&str>| (!values.is_empty()).then(|| values.join(", "));
    let differ = fields.into_iter().filter(|(_, [enforced, monitored])| enforced != monitored);
    differ
        .map(|(field, [enforced, monitored])| Difference {
            field: field.into(),
            enforced: said(enforced),
            monitored: said(monitored),
        })
        .collect()
}

/// The fields of a sidecar.
pub(crate) fn of_settings(settings: &Settings) -> Fields {
    settings.explain().into_iter().map(|(field, value, _)| (field, value)).collect()
}

/// The field of a verdict on an exemption.
pub(crate) fn of_exemption(exemption: &Exemption) -> Fields {
    let words = match exemption {
        Exemption::Inject => "inject".into(),
        Exemption::Skip(reason) => format!("skip: {reason}"),
        Exemption::Deny(sentence) => format!("deny: {sentence}"),
    };
    vec![("verdict".into(), words)]
}

/// The fields of a directory.
pub(crate) fn of_directory(directory: &Directory, shared: bool) -> Fields {
    vec![("directory".into(), directory.to_string()), ("shared".into(), shared.to_string())]
}

/// The field of a volume that a naming policy refuses.
pub(crate) fn of_denial(sentence: &str) -> Fields {
    vec![("verdict".into(), format!("deny: {sentence}"))]
}

/// The field of what policies say of a quota; none where they say nothing.
pub(crate) fn of_quota(quota: Option<Quota>) -> Fields {
    let word = quota.map(|quota| if quota == Quota::On { "on" } else { "off" });
    word.map(|word| ("quota".to_string(), word.to_string())).into_iter().collect()
}
