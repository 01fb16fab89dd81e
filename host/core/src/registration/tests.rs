//! Tables of what is applied, and of what counts as a difference.

use super::*;

fn manifest() -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": "pith", "labels": {"app": "pith"}},
        "webhooks": [{
            "name": "inject.pith.dev",
            "clientConfig": {"url": "https://pith.example/mutate"},
            "failurePolicy": "Fail",
            "rules": [{"operations": ["CREATE"], "resources": ["pods"]}],
            "objectSelector": {},
        }],
    })
}

fn parsed() -> Manifest {
    Manifest::parse(manifest()).expect("it is one")
}

/// As an API server has it, with what it adds.
fn stored(bundle: &str) -> Value {
    let mut object = parsed().wanted(Some(bundle), Some(&owner()));
    object["metadata"]["uid"] = json!("1");
    object["metadata"]["resourceVersion"] = json!("7");
    object["metadata"]["managedFields"] = json!([{
        "manager": MANAGER, "operation": "Apply", "fieldsV1": {"f:webhooks": {r#"k:{"name":"inject.pith.dev"}"#: {}}},
    }]);
    object.as_object_mut().expect("an object").remove("kind");
    let webhook = &mut object["webhooks"][0];
    webhook["matchPolicy"] = json!("Equivalent");
    webhook["rules"][0]["scope"] = json!("*");
    webhook.as_object_mut().expect("an object").remove("objectSelector");
    object
}

fn owner() -> Owner {
    let [api_version, kind, name, uid] =
        ["rbac.authorization.k8s.io/v1", "ClusterRole", "pith", "2"].map(ToString::to_string);
    Owner { api_version, kind, name, uid }
}

#[test]
fn a_manifest_that_cannot_be_applied_is_refused_with_what_it_lacks() {
    for (place, value, sentence) in [
        ("/kind", json!("Pod"), "its kind is `Pod`: it must be `MutatingWebhookConfiguration`"),
        ("/apiVersion", Value::Null, "its apiVersion is `(no text)`: it must be `admissionregistration.k8s.io/v1`"),
        ("/metadata", json!({}), "it has no metadata.name: give it one"),
        ("/webhooks", json!([]), "it has no webhooks: name at least one"),
        ("/webhooks/0/name", json!(1), "one of its webhooks has no name: give it one"),
        (
            "/webhooks/0/clientConfig",
            Value::Null,
            "its webhook `inject.pith.dev` has no clientConfig: say where it is called",
        ),
    ] {
        let mut object = manifest();
        *object.pointer_mut(place).expect("it is there") = value;
        assert_eq!(Manifest::parse(object).expect_err(place).to_string(), sentence);
    }
    assert_eq!(parsed().name(), "pith");
}

#[test]
fn a_difference_is_what_was_applied_and_is_no_longer_so() {
    let cases: [(&str, Value, Option<&str>); 9] = [
        ("/webhooks/0/failurePolicy", json!("Ignore"), Some("webhooks[inject.pith.dev].failurePolicy")),
        ("/webhooks/0/clientConfig/caBundle", json!(""), Some("webhooks[inject.pith.dev].clientConfig.caBundle")),
        ("/webhooks/0/rules/0/operations", json!(["UPDATE"]), Some("webhooks[inject.pith.dev].rules[0].operations[0]")),
        ("/webhooks/0/rules/0/operations", json!([]), Some("webhooks[inject.pith.dev].rules[0].operations")),
        ("/webhooks/0/name", json!("other.pith.dev"), Some("webhooks[inject.pith.dev]")),
        ("/metadata/labels", Value::Null, Some("metadata.labels")),
        ("/metadata/ownerReferences/0/uid", json!("3"), Some("metadata.ownerReferences[2]")),
        // The API server's and others'.
        ("/webhooks/0/matchPolicy", json!("Exact"), None),
        ("/metadata/labels", json!({"app": "pith", "team": "storage"}), None),
    ];
    let wanted = parsed().wanted(Some("Y2E="), Some(&owner()));
    assert_eq!(difference(&stored("Y2E="), &wanted), None);
    for (place, value, expected) in cases {
        let mut existing = stored("Y2E=");
        *existing.pointer_mut(place).expect("it is there") = value;
        assert_eq!(difference(&existing, &wanted).as_deref(), expected, "{place}");
    }
    assert_eq!(difference(&stored("Y2E="), &parsed().wanted(None, None)), None, "somebody else keeps the bundle");
}

#[test]
fn a_webhook_that_is_no_longer_wanted_is_a_difference_where_it_was_ours() {
    let mut existing = stored("Y2E=");
    let second = json!({"name": "second.pith.dev", "clientConfig": {}});
    existing["webhooks"].as_array_mut().expect("a list").push(second);
    let wanted = parsed().wanted(Some("Y2E="), None);
    assert_eq!(difference(&existing, &wanted), None, "it is somebody else's");
    existing["metadata"]["managedFields"][0]["fieldsV1"]["f:webhooks"][r#"k:{"name":"second.pith.dev"}"#] = json!({});
    assert_eq!(difference(&existing, &wanted).as_deref(), Some("webhooks[second.pith.dev]"));
}

#[test]
fn bundles_alone_are_applied_to_every_webhook_of_a_configuration_that_is_there() {
    let existing = stored("");
    let wanted = bundles_only(&existing, "Y2E=");
    let expected = json!({
        "apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "pith", "uid": "1"},
        "webhooks": [{"name": "inject.pith.dev", "clientConfig": {"caBundle": "Y2E="}}],
    });
    assert_eq!(wanted, expected);
    let place = "webhooks[inject.pith.dev].clientConfig.caBundle";
    // What of it was applied in full before is not taken away here.
    assert_eq!(difference(&existing, &wanted).as_deref(), Some(place));
    assert_eq!(difference(&stored("Y2E="), &wanted), None);
}
