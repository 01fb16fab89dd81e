//! What a module says its settings look like: a JSON Schema in the custom section `pith.settings-schema`, for people and editors.
//!
//! Nothing is decided by it. What settings are usable is said by the policy itself, which the host asks.

use serde_json::Value;
use wasmparser::{Parser, Payload};

const SECTION: &str = "pith.settings-schema";
/// The largest that is read.
const LARGEST: usize = 64 << 10;

/// The schema that a module brings, wherever in a component it lies; none where there is none that can be read.
pub fn settings_schema(module: &[u8]) -> Option<Value> {
    let payloads = Parser::new(0).parse_all(module).map_while(Result::ok);
    payloads.into_iter().find_map(|payload| match payload {
        Payload::CustomSection(section) if section.name() == SECTION && section.data().len() <= LARGEST => {
            serde_json::from_slice(section.data()).ok()
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A core module with one custom section.
    fn with(name: &str, data: &[u8]) -> Vec<u8> {
        let length = |it: usize| u8::try_from(it).expect("a short one");
        let mut section = vec![length(name.len())];
        section.extend([name.as_bytes(), data].concat());
        let mut module = b"\0asm\x01\0\0\0\0".to_vec();
        module.push(length(section.len()));
        module.extend(section);
        module
    }

    #[test]
    fn a_schema_is_found_by_its_section_and_anything_else_is_none() {
        assert_eq!(settings_schema(&with(SECTION, br#"{"type": "object"}"#)), Some(json!({"type": "object"})));
        for module in [with(SECTION, b"{"), with("other", b"{}"), b"no module".to_vec(), Vec::new()] {
            assert_eq!(settings_schema(&module), None);
        }
        let mut torn = with(SECTION, b"{}");
        torn.pop();
        assert_eq!(settings_schema(&torn), None);
    }
}
