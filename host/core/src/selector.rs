//! Label selectors, with the meaning of `metav1.LabelSelector`.

use serde_json::Value;

use crate::json::{entries, list};
use crate::object::Entries;

/// Requirements that labels must all meet. Without requirements it matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// Labels that must be there with exactly these values.
    pub labels: Entries,
    /// Further requirements.
    pub expressions: Vec<Requirement>,
}

/// One item of `matchExpressions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold of it.
    pub operator: Operator,
}

/// The operators of `matchExpressions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// The label is there, with one of these values.
    In(Vec<String>),
    /// The label is absent, or has none of these values.
    NotIn(Vec<String>),
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Reads one as API servers have taken it: what they would refuse is not asked for here.
    pub fn read(value: &Value) -> LabelSelector {
        let items = list(&value["matchExpressions"]).iter().filter(|it| it["key"].is_string());
        let expressions = items.filter_map(|it| Requirement::read(it).ok()).collect();
        LabelSelector { labels: entries(&value["matchLabels"]), expressions }
    }

    /// Reads one that no API server has seen. The error is an operator that there is not.
    pub fn read_unseen(value: &Value) -> Result<LabelSelector, String> {
        let expressions = list(&value["matchExpressions"]).iter().map(Requirement::read).collect::<Result<_, _>>()?;
        Ok(LabelSelector { labels: entries(&value["matchLabels"]), expressions })
    }

    /// Whether labels meet every requirement.
    pub fn matches(&self, labels: &Entries) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn read(value: &Value) -> Result<Requirement, String> {
        let values = || list(&value["values"]).iter().filter_map(Value::as_str).map(str::to_string).collect();
        let operator = match value["operator"].as_str().unwrap_or_default() {
            "In" => Operator::In(values()),
            "NotIn" => Operator::NotIn(values()),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => return Err(other.into()),
        };
        Ok(Requirement { key: value["key"].as_str().unwrap_or_default().into(), operator })
    }

    fn matches(&self, labels: &Entries) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(operator: Operator, labels: &[(&str, &str)], expected: bool) {
        let selector =
            LabelSelector { labels: Entries::new(), expressions: vec![Requirement { key: "team".into(), operator }] };
        let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        assert_eq!(selector.matches(&labels), expected);
    }

    #[test]
    fn operators_mean_what_kubernetes_says() {
        let values = || vec!["web".to_string(), "data".to_string()];
        let web = [("team", "web")];
        let other = [("team", "other")];
        check(Operator::In(values()), &web, true);
        check(Operator::In(values()), &other, false);
        check(Operator::In(values()), &[], false);
        check(Operator::NotIn(values()), &web, false);
        check(Operator::NotIn(values()), &other, true);
        check(Operator::NotIn(values()), &[], true);
        check(Operator::Exists, &web, true);
        check(Operator::Exists, &[], false);
        check(Operator::DoesNotExist, &web, false);
        check(Operator::DoesNotExist, &[], true);
    }

    #[test]
    fn an_empty_selector_matches_everything_and_requirements_are_anded() {
        let labels = Entries::from_iter([("team".to_string(), "web".to_string())]);
        assert!(LabelSelector::default().matches(&labels));
        let both = LabelSelector {
            labels: labels.clone(),
            expressions: vec![Requirement { key: "team".into(), operator: Operator::DoesNotExist }],
        };
        assert!(!both.matches(&labels));
    }
}
