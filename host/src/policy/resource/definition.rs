//! The CustomResourceDefinitions: of PolicyBindings with the schema of a binding in the file, as Kubernetes wants a schema to be, and of
//! PolicyModules.
//!
//! Kubernetes takes structural schemas only: a type on every level, no references, one set of properties where JSON Schema would
//! write alternatives. What is refused here is refused by the API server, before Pith is asked.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::module;
use super::status::Status;
use crate::config::file::Binding;

/// The most items of any list and map. The API server bounds the cost of its rules by it.
const MOST_ITEMS: u64 = 64;
/// The longest text of what rules look at.
const LONGEST: u64 = 4096;

/// The CustomResourceDefinitions of `policybindings.pith.dev` and `policymodules.pith.dev`.
pub fn custom_resource_definitions() -> [Value; 2] {
    [policy_bindings(), policy_modules()]
}

fn policy_bindings() -> Value {
    let mut spec = schema::<Binding>();
    // It is the object's own.
    if let Some(properties) = spec["properties"].as_object_mut() {
        properties.remove("name");
    }
    if let Some(required) = spec["required"].as_array_mut() {
        required.retain(|it| it != "name");
    }
    let condition = |kind: &str, field: &str| format!(".status.conditions[?(@.type==\"{kind}\")].{field}");
    let columns = [
        column("Mode", "string", ".spec.mode", 0),
        column("Percent", "integer", ".spec.percent", 0),
        column("Ready", "string", &condition("Ready", "status"), 0),
        column("Degraded", "string", &condition("Degraded", "status"), 0),
        column("Asked", "integer", ".status.calls", 0),
        column("Failed", "integer", ".status.failures", 0),
        column("Hooks", "string", ".status.hooks", 1),
        column("Why", "string", &condition("Ready", "reason"), 1),
        column("Digest", "string", ".status.digest", 1),
        column("Age", "date", ".metadata.creationTimestamp", 0),
    ];
    let mut definition = definition(
        "PolicyBinding",
        &columns,
        &json!({
            "description": "A policy put to use: which module is asked what, about which objects.",
            "type": "object",
            "required": ["spec"],
            "properties": {"spec": spec, "status": schema::<Status>()},
            "x-kubernetes-validations": [{
                "rule": "size(self.metadata.name) <= 63",
                "message": "the name is a label of metrics and part of the names of field managers: at most 63 characters",
            }],
        }),
    );
    definition["spec"]["versions"][0]["subresources"] = json!({"status": {}});
    definition
}

fn policy_modules() -> Value {
    let columns =
        [column("Digest", "string", ".spec.digest", 0), column("Age", "date", ".metadata.creationTimestamp", 0)];
    definition(
        "PolicyModule",
        &columns,
        &json!({
            "description": "The module that was in force last for the PolicyBinding of the same name. Pith writes it, and reads it where the module is nowhere else any more.",
            "type": "object",
            "required": ["spec"],
            "properties": {"spec": schema::<module::Spec>()},
        }),
    )
}

/// A cluster-scoped kind of Pith's.
fn definition(kind: &str, columns: &[Value], schema: &Value) -> Value {
    let singular = kind.to_lowercase();
    let plural = format!("{singular}s");
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.pith.dev")},
        "spec": {
            "group": "pith.dev",
            "scope": "Cluster",
            "names": {
                "kind": kind, "listKind": format!("{kind}List"), "singular": singular, "plural": plural,
                "categories": ["pith"],
            },
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

fn column(name: &str, kind: &str, path: &str, priority: u8) -> Value {
    json!({"name": name, "type": kind, "jsonPath": path, "priority": priority})
}

fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|it| it.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    structural(&mut schema);
    schema
}

/// Makes a schema structural, from the leaves up.
fn structural(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    for key in ["$schema", "title", "format"] {
        fields.remove(key);
    }
    // Nothing is said of what is absent, and what is a map or a list of its own is not spread out in every object.
    if fields.get("default").is_some_and(|it| it.is_null() || it.is_object() || it.is_array()) {
        fields.remove("default");
    }
    for key in ["properties", "patternProperties"] {
        for property in fields.get_mut(key).and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
            structural(property);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(of_each) = fields.get_mut(key) {
            structural(of_each);
        }
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(alternatives) = fields.remove(key) {
            merge(fields, alternatives);
        }
    }
    match fields.get("additionalProperties") {
        // The API server removes what is not described, and kubectl complains about it.
        Some(Value::Bool(false)) => {
            fields.remove("additionalProperties");
        }
        Some(Value::Bool(true)) => {
            fields.remove("additionalProperties");
            fields.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
        }
        Some(_) => {
            fields.insert("maxProperties".into(), MOST_ITEMS.into());
        }
        None => {}
    }
    if let Some(kinds) = fields.get("type").and_then(Value::as_array).cloned() {
        let is_number = kinds.iter().any(|it| it == "number");
        match kinds.into_iter().find(|it| it != "null") {
            Some(_) if is_number => {
                fields.remove("type");
                fields.remove("pattern");
                fields.insert("x-kubernetes-int-or-string".into(), true.into());
            }
            Some(kind) => {
                fields.insert("type".into(), kind);
            }
            None => {}
        }
    }
    let bound = |fields: &mut Map<String, Value>, key: &str, most: u64| {
        fields.entry(key).or_insert_with(|| most.into());
    };
    match fields.get("type").and_then(Value::as_str) {
        Some("array") => bound(fields, "maxItems", MOST_ITEMS),
        Some("string") if !fields.contains_key("enum") => bound(fields, "maxLength", LONGEST),
        _ => {}
    }
    let has = |key: &str| fields.get("properties").is_some_and(|it| it.get(key).is_some());
    if has("operator") && has("values") {
        let rule = "(self.operator == 'In' || self.operator == 'NotIn') == (has(self.values) && size(self.values) > 0)";
        let message = "In and NotIn need values, Exists and DoesNotExist take none";
        fields.insert("x-kubernetes-validations".into(), json!([{"rule": rule, "message": message}]));
    }
}

/// Writes alternatives as one: the words of an enum, or the keys of a map that has one of them.
fn merge(fields: &mut Map<String, Value>, alternatives: Value) {
    let mut alternatives = alternatives.as_array().cloned().unwrap_or_default();
    alternatives.retain(|it| it["type"] != "null");
    for it in &mut alternatives {
        structural(it);
    }
    let words: Vec<Value> = alternatives.iter().filter_map(|it| it.get("const").cloned()).collect();
    let is_map = alternatives.iter().all(|it| it["properties"].is_object());
    match &*alternatives {
        [only] if words.is_empty() && !is_map => {
            for (key, value) in only.as_object().into_iter().flatten() {
                fields.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        all if words.len() == all.len() => {
            fields.insert("type".into(), "string".into());
            fields.insert("enum".into(), words.into());
        }
        all if is_map => {
            let mut properties = Map::new();
            for it in all {
                let description = &it["description"];
                for (key, property) in it["properties"].as_object().into_iter().flatten() {
                    let mut property = property.clone();
                    if description.is_string() {
                        property["description"] = description.clone();
                    }
                    properties.insert(key.clone(), property);
                }
            }
            let keys: Vec<String> = properties.keys().cloned().collect();
            let has: Vec<String> = keys.iter().map(|key| format!("has(self.{key})")).collect();
            let rule = format!("[{}].exists_one(it, it)", has.join(", "));
            let message = format!("exactly one of {} must be there", keys.join(", "));
            fields.insert("type".into(), "object".into());
            fields.insert("properties".into(), properties.into());
            fields.insert("x-kubernetes-validations".into(), json!([{"rule": rule, "message": message}]));
        }
        // Words and maps side by side: Pith's own webhook looks at them.
        _ => {
            fields.remove("type");
            fields.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a structural schema must not have anywhere.
    fn check(schema: &Value, place: &str) {
        let fields = schema.as_object().expect("a schema is a map");
        for key in ["$ref", "$defs", "oneOf", "anyOf", "const", "format", "title", "patternProperties"] {
            assert!(!fields.contains_key(key), "{place} has {key}");
        }
        let typed = fields.get("type").is_some_and(Value::is_string);
        let free = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
        assert!(typed || free.iter().any(|it| fields.contains_key(*it)), "{place} has no type");
        for (key, property) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
            check(property, &format!("{place}.{key}"));
        }
        for key in ["items", "additionalProperties"] {
            if let Some(of_each) = fields.get(key) {
                check(of_each, &format!("{place}[{key}]"));
            }
        }
    }

    #[test]
    fn the_schema_is_structural_and_says_what_the_file_says() {
        let schemas =
            custom_resource_definitions().map(|mut it| it["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take());
        for schema in &schemas {
            check(schema, "");
        }
        let [schema, module] = &schemas;
        assert_eq!(module["properties"]["spec"]["properties"]["module"]["maxLength"], 1_398_104);
        let spec = &schema["properties"]["spec"];
        assert_eq!(spec["required"], json!(["module"]));
        assert_eq!(spec["properties"]["mode"]["enum"], json!(["enforce", "monitor"]));
        assert_eq!(spec["properties"]["mode"]["default"], "enforce");
        assert_eq!(spec["properties"]["settings"]["x-kubernetes-preserve-unknown-fields"], true);
        let module = &spec["properties"]["module"];
        assert!(module["properties"]["file"].is_object() && module["properties"]["configMap"].is_object());
        assert!(module["x-kubernetes-validations"][0]["rule"].as_str().is_some_and(|it| it.contains("exists_one")));
    }
}
