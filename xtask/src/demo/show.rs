//! Objects for people: YAML in the order in which they are usually written, and what changed between two of them.

use anyhow::{Context, Result};
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use crate::terminal::{Style, paint};

/// How many unchanged lines are shown around a change.
const CONTEXT: usize = 2;

/// The keys that come first in an object of Kubernetes; the others follow by name.
const FIRST: [&str; 14] = [
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    "name",
    "generateName",
    "namespace",
    "labels",
    "annotations",
    "image",
    "restartPolicy",
    "command",
    "args",
    "env",
];

/// The differences between two objects as a unified diff of their YAML.
pub(crate) fn diff(before: &Value, after: &Value) -> Result<String> {
    let (before, after) = (yaml(before)?, yaml(after)?);
    let diff = TextDiff::from_lines(&before, &after);
    let mut shown = String::new();
    for group in diff.grouped_ops(CONTEXT) {
        if !shown.is_empty() {
            shown.push_str(&paint(Style::Faint, "   ⋯"));
            shown.push('\n');
        }
        for change in group.iter().flat_map(|operation| diff.iter_changes(operation)) {
            let text = change.value().trim_end();
            let line = match change.tag() {
                ChangeTag::Equal => format!("  {text}"),
                ChangeTag::Insert => paint(Style::Good, format!("+ {text}")),
                ChangeTag::Delete => paint(Style::Bad, format!("- {text}")),
            };
            shown.push_str(&line);
            shown.push('\n');
        }
    }
    Ok(shown)
}

fn yaml(object: &Value) -> Result<String> {
    yaml_serde::to_string(&ordered(object)).context("writing YAML")
}

/// The same value with its keys in the usual order: serde_json keeps them by name.
fn ordered(value: &Value) -> yaml_serde::Value {
    match value {
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| FIRST.iter().position(|first| first == key).unwrap_or(FIRST.len()));
            let entries = entries.into_iter().map(|(key, value)| (key.as_str().into(), ordered(value)));
            yaml_serde::Value::Mapping(entries.collect())
        }
        Value::Array(items) => yaml_serde::Value::Sequence(items.iter().map(ordered).collect()),
        Value::String(text) => text.as_str().into(),
        Value::Bool(bool) => (*bool).into(),
        Value::Number(number) => number.as_i64().map_or_else(|| number.as_f64().unwrap_or_default().into(), Into::into),
        Value::Null => yaml_serde::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_come_first() {
        let yaml = yaml(&json!({"ports": [], "env": [], "name": "web", "image": "nginx"})).unwrap();
        assert_eq!(yaml, "name: web\nimage: nginx\nenv: []\nports: []\n");
    }

    #[test]
    fn unchanged_parts_are_left_out() {
        let diff =
            diff(&json!({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}), &json!({"a": 1, "b": 2, "c": 3, "d": 4, "e": 6}));
        assert_eq!(diff.unwrap(), "  c: 3\n  d: 4\n- e: 5\n+ e: 6\n");
    }
}
