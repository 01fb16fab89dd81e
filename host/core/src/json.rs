//! JSON read in place: what is not there, or is something else, is as good as empty.

use litemap::LiteMap;
use serde_json::Value;

/// Labels, annotations and parameters: sorted, so that everything made from them is the same every time. A sorted list, because a
/// node of a `BTreeMap` has room for eleven entries, and most objects have one or two.
pub type Entries = LiteMap<String, String>;

/// The items of a JSON array; none for anything else.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The entries of a JSON object whose values are strings; others are left out.
pub fn entries(value: &Value) -> Entries {
    let object = value.as_object().into_iter().flatten();
    object.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_string()))).collect()
}
