//! Who is exempt from injection: the first-party policy `exemption`.
//!
//! The settings are a list of rules, and the first that matches decides. What a rule can ask is in [`rule`]; the two ways to
//! match a text, patterns and label selectors, are in [`pattern`] and [`selector`].

pub mod pattern;
pub mod rule;
pub mod selector;

use pith_policy_sdk::prelude::*;

use crate::rule::{Action, Rule};

/// The settings of a binding.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// In order: the first that matches decides.
    rules: Vec<Rule>,
}

#[policy(schema = "settings.schema.json")]
impl Settings {
    fn exempt(&self, pod: &Pod, namespace: &Namespace, _: &[Volume]) -> Result<Exemption, Problem> {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(pod, namespace)) else {
            return Ok(Exemption::Inject);
        };
        let reason = rule.reason.clone();
        Ok(match rule.action {
            Action::Skip => Exemption::Skip(reason),
            Action::Deny => Exemption::Deny(reason),
        })
    }

    fn validate(&self) -> Result<(), SettingsProblem> {
        for (index, rule) in self.rules.iter().enumerate() {
            rule.validate().map_err(|problem| problem.within(format!("rules[{index}]")))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_of_the_table_holds() {
        pith_policy_sdk::cases::check::<Settings>(include_str!("../cases.yaml"));
    }
}
