//! Objects for people: YAML as people write it, and what changed between two of them.

use std::cmp::Reverse;

use serde_json::{Map, Value};
use similar::{ChangeTag, TextDiff};

use crate::terminal::{Style, paint};

/// How many unchanged lines are shown around a change.
const CONTEXT: usize = 2;
/// A value that is not longer than this stands in one line.
const ONE_LINE: usize = 124;
/// Longer lines are cut: the injected status is one, and `kubectl` shows it whole.
const WIDEST: usize = 140;

/// The keys that come first in an object of Kubernetes, the last of them first; the others follow by name.
const FIRST: [&str; 14] = [
    "env",
    "args",
    "command",
    "restartPolicy",
    "image",
    "annotations",
    "labels",
    "namespace",
    "generateName",
    "name",
    "spec",
    "metadata",
    "kind",
    "apiVersion",
];

/// The differences between two objects as a unified diff of their YAML.
pub(crate) fn diff(before: &Value, after: &Value) -> String {
    let (before, after) = (yaml(before), yaml(after));
    let diff = TextDiff::from_lines(&before, &after);
    let mut lines = Vec::new();
    for group in diff.grouped_ops(CONTEXT) {
        if !lines.is_empty() {
            lines.push(paint(Style::Faint, "  ⋯"));
        }
        for change in group.iter().flat_map(|operation| diff.iter_changes(operation)) {
            let text = cut(change.value().trim_end());
            lines.push(match change.tag() {
                ChangeTag::Equal => format!("  {text}"),
                ChangeTag::Insert => paint(Style::Good, format!("+ {text}")),
                ChangeTag::Delete => paint(Style::Bad, format!("- {text}")),
            });
        }
    }
    lines.join("\n")
}

fn cut(line: &str) -> String {
    if line.chars().count() <= WIDEST {
        return line.to_string();
    }
    let kept: String = line.chars().take(WIDEST - 1).collect();
    format!("{kept}…")
}

/// yaml_serde writes every value on lines of its own, which makes ten lines of a container's one; hence this writer.
fn yaml(object: &Value) -> String {
    let mut lines = Vec::new();
    write(object, 0, "", &mut lines);
    lines.join("\n") + "\n"
}

/// Writes a value whose first line begins with `lead`, which ends in a key or a dash.
fn write(value: &Value, indent: usize, lead: &str, lines: &mut Vec<String>) {
    let text = one_line(value);
    let is_short = text.len() <= ONE_LINE && indent > 0;
    match value {
        Value::Object(entries) if !is_short && !entries.is_empty() => {
            let is_item = lead.trim_start().starts_with('-');
            if !lead.is_empty() && !is_item {
                lines.push(lead.trim_end().to_string());
            }
            for (index, (key, value)) in ordered(entries).into_iter().enumerate() {
                // The first key of a list's item stands behind the dash.
                let margin = if is_item && index == 0 { lead.to_string() } else { " ".repeat(indent) };
                write(value, indent + 2, &format!("{margin}{}: ", scalar(key)), lines);
            }
        }
        Value::Array(items) if !is_short && !items.is_empty() => {
            lines.push(lead.trim_end().to_string());
            for item in items {
                write(item, indent + 2, &format!("{}- ", " ".repeat(indent)), lines);
            }
        }
        _ => lines.push(format!("{lead}{text}")),
    }
}

fn one_line(value: &Value) -> String {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            let entries =
                ordered(entries).into_iter().map(|(key, value)| format!("{}: {}", scalar(key), one_line(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(one_line).collect::<Vec<_>>().join(", ")),
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// A text without quotes where it needs none.
fn scalar(text: &str) -> String {
    let plain = |it: char| it.is_ascii_alphanumeric() || "_./$()=:@+-".contains(it);
    let is_other_type =
        text.parse::<f64>().is_ok() || ["true", "false", "null", "yes", "no", "on", "off"].contains(&text);
    let starts_well = text.starts_with(|it: char| it.is_ascii_alphanumeric() || "_./$".contains(it))
        || text.strip_prefix('-').is_some_and(|rest| !rest.is_empty());
    if starts_well && !text.ends_with(':') && !is_other_type && text.chars().all(plain) {
        text.to_string()
    } else {
        Value::from(text).to_string()
    }
}

/// serde_json keeps keys by name.
fn ordered(entries: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_by_key(|(key, _)| Reverse(FIRST.iter().position(|first| first == key)));
    entries
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let long = "x".repeat(ONE_LINE);
        let object = json!({
            "name": "web", "none": null, "empty": {}, "items": [], "number": 1.5,
            "odd": ["1", "true", "", "-", "- a", "a: b", "#", "{x}", "--subdir=$(SUBDIR)", "0.0.0.0:9567", "5g:", "ä\n"],
            "long": {"containers": [{"name": long, "env": [{"b": 1, "name": "a"}]}, "x"], "nested": [[long, 1], [2]]},
        });
        let text = yaml(&object);
        let read = Value::deserialize(yaml_serde::Deserializer::from_str(&text));
        assert_eq!(read.expect("it is YAML"), object, "{text}");
    }

    #[test]
    fn names_come_first_and_short_values_stand_in_one_line() {
        let yaml = yaml(&json!({"spec": {"ports": [1], "env": [], "name": "web", "image": "nginx"}}));
        assert_eq!(yaml, "spec: { name: web, image: nginx, env: [], ports: [1] }\n");
    }

    #[test]
    fn unchanged_parts_are_left_out() {
        let before = json!({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5});
        let after = json!({"a": 1, "b": 2, "c": 3, "d": 4, "e": 6});
        assert_eq!(diff(&before, &after), "  c: 3\n  d: 4\n- e: 5\n+ e: 6");
    }
}
