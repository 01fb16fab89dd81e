//! The JSON patch, built by hand on the raw object.
//!
//! Operations are kept in the order in which they were added, paths are escaped by the pointer type, and nothing is emitted for
//! what is already there: a second pass over its own result gives an empty patch.

use json_patch::{AddOperation, PatchOperation, ReplaceOperation};
use jsonptr::{PointerBuf, Token};
use serde_json::{Map, Value, json};

/// A patch in the making. Positions in it refer to the object as the earlier operations leave it.
#[derive(Debug, Default)]
pub struct Patch {
    operations: Vec<PatchOperation>,
}

/// One step of a path: a key or a position.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// An object's key.
    Key(&'a str),
    /// A position in an array.
    At(usize),
    /// Behind the last item of an array.
    End,
}

impl Patch {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The operations.
    pub fn into_operations(self) -> Vec<PatchOperation> {
        self.operations
    }

    /// Adds a value: sets an object's key, or inserts before a position of an array.
    pub fn add(&mut self, path: &[Step<'_>], value: Value) {
        self.operations.push(PatchOperation::Add(AddOperation { path: pointer(path), value }));
    }

    /// Replaces a value that is there.
    pub fn replace(&mut self, path: &[Step<'_>], value: Value) {
        self.operations.push(PatchOperation::Replace(ReplaceOperation { path: pointer(path), value }));
    }

    /// Makes the string entries of an object (labels, annotations) what they should be; `parent` is the object as it is now.
    pub fn ensure_entries(&mut self, path: &[Step<'_>], parent: Option<&Value>, wanted: &[(&str, String)]) {
        let Some(present) = parent.and_then(Value::as_object) else {
            let entries: Map<String, Value> = wanted.iter().map(|(key, value)| ((*key).into(), json!(value))).collect();
            return self.add(path, Value::Object(entries));
        };
        for (key, value) in wanted {
            if present.get(*key).and_then(Value::as_str) != Some(value) {
                // `add` on an object's key also replaces, so one operation serves both cases.
                self.add(&[path, &[Step::Key(key)]].concat(), json!(value));
            }
        }
    }
}

fn pointer(path: &[Step<'_>]) -> PointerBuf {
    PointerBuf::from_tokens(path.iter().map(|step| match step {
        Step::Key(key) => Token::new(*key),
        Step::At(index) => Token::from(*index),
        Step::End => Token::new("-"),
    }))
}

/// Whether `present` has everything that `wanted` has.
///
/// The API server fills in defaults and other webhooks add items between two passes, so equality would see a difference where
/// there is none: an object may have more keys, and an array of objects more items, as long as the wanted ones are there in
/// their order. An array of texts is an argv, in which one more item is another meaning: it must be equal.
pub fn contains(present: &Value, wanted: &Value) -> bool {
    match (present, wanted) {
        (Value::Object(present), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| present.get(key).is_some_and(|present| contains(present, wanted)))
        }
        (Value::Array(present), Value::Array(wanted)) if wanted.iter().all(Value::is_object) => {
            let mut present = present.iter();
            wanted.iter().all(|wanted| present.any(|present| contains(present, wanted)))
        }
        _ => present == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(present: Value, wanted: Value, expected: bool) {
        assert_eq!(contains(&present, &wanted), expected, "{present} contains {wanted}");
    }

    #[test]
    fn defaults_and_additions_of_others_are_no_difference() {
        check(json!({"a": 1, "added": true}), json!({"a": 1}), true);
        check(json!([{"n": 0}, {"n": 1, "d": 2}, {"n": 3}]), json!([{"n": 1}, {"n": 3}]), true);
        check(json!({"command": ["a", "b"]}), json!({"command": ["a", "b"]}), true);
    }

    #[test]
    fn changes_and_removals_are_a_difference() {
        check(json!({"a": 2}), json!({"a": 1}), false);
        check(json!({}), json!({"a": 1}), false);
        check(json!(["b", "a"]), json!(["a", "b"]), false);
        check(json!({"a": null}), json!({"a": {}}), false);
    }

    #[test]
    fn keys_with_slashes_and_tildes_are_escaped() {
        let mut patch = Patch::default();
        patch.ensure_entries(&[Step::Key("metadata"), Step::Key("labels")], Some(&json!({})), &[("a/b~c", "x".into())]);
        let mut object = json!({"metadata": {"labels": {}}});
        json_patch::patch(&mut object, &patch.into_operations()).expect("the patch fits");
        assert_eq!(object, json!({"metadata": {"labels": {"a/b~c": "x"}}}));
    }

    #[test]
    fn entries_that_are_there_need_no_operation() {
        let mut patch = Patch::default();
        patch.ensure_entries(&[Step::Key("labels")], Some(&json!({"a": "b"})), &[("a", "b".into())]);
        assert!(patch.into_operations().is_empty());
    }
}
