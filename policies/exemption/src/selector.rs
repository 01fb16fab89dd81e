//! A label selector as Kubernetes has it: `matchLabels` and `matchExpressions`.

use std::collections::BTreeMap;

use pith_policy_sdk::prelude::*;

/// Which labels an object must have. An empty selector takes every object.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Selector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Expression>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Deserialize, Clone, Copy)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    pub(crate) fn matches(&self, labels: &[(String, String)]) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.value(key) == Some(value))
            && self.match_expressions.iter().all(|expression| expression.matches(labels))
    }

    pub(crate) fn validate(&self) -> Result<(), SettingsProblem> {
        for (index, Expression { operator, values, .. }) in self.match_expressions.iter().enumerate() {
            let reason = match (operator, values.is_empty()) {
                (Operator::In | Operator::NotIn, true) => "`In` and `NotIn` need values",
                (Operator::Exists | Operator::DoesNotExist, false) => "`Exists` and `DoesNotExist` take no values",
                _ => continue,
            };
            return Err(SettingsProblem::new(format!("matchExpressions[{index}].values"), reason));
        }
        Ok(())
    }
}

impl Expression {
    fn matches(&self, labels: &[(String, String)]) -> bool {
        let value = labels.value(&self.key);
        let listed = value.is_some_and(|value| self.values.iter().any(|listed| listed == value));
        match self.operator {
            Operator::In => listed,
            // As in Kubernetes, an object without the label is not in the list either.
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}
