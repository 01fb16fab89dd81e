//! What is read from a Pod, and which shapes are none.

use serde_json::json;

use super::*;
use crate::testing;

#[track_caller]
fn check_refused(object: Value, sentence: &str) {
    let refusal = Pod::read(&object).expect_err("no pod");
    assert_eq!(refusal.to_string(), format!("the pod cannot be read: {sentence}"), "{object}");
}

#[test]
fn another_shape_is_refused_with_its_place() {
    for object in
        [json!(null), json!(5), json!([]), json!("pod"), json!({}), json!({"spec": null}), json!({"spec": []})]
    {
        check_refused(object, "it has no `spec`");
    }
    for metadata in [json!(null), json!([]), json!("x")] {
        check_refused(json!({"metadata": metadata, "spec": {}}), "its `metadata` is not an object");
    }
    check_refused(json!({"metadata": {"labels": []}, "spec": {}}), "its `metadata.labels` is not an object");
    check_refused(json!({"metadata": {"annotations": "x"}, "spec": {}}), "its `metadata.annotations` is not an object");
    for key in ["volumes", "initContainers", "containers", "ephemeralContainers"] {
        check_refused(json!({"spec": {key: {}}}), &format!("its `spec.{key}` is not a list"));
    }
}

#[test]
fn what_is_absent_or_null_is_fine() {
    for object in [
        json!({"spec": {}}),
        json!({"metadata": {}, "spec": {}}),
        json!({"metadata": {"labels": null, "annotations": null}, "spec": {"volumes": null, "initContainers": null}}),
    ] {
        let pod = Pod::read(&object).expect("a pod");
        assert!(!pod.names_claims());
        assert_eq!(pod.all_containers().count(), 0);
        assert_eq!(pod.label("x"), None);
    }
}

#[track_caller]
fn check_source(volume: Value, expected: VolumeSource<'_>) {
    assert_eq!(source(&volume), expected, "{volume}");
}

#[test]
fn volumes_are_told_apart_by_their_source() {
    let claim = VolumeSource::Claim { name: "orders", read_only: false };
    check_source(json!({"persistentVolumeClaim": {"claimName": "orders"}}), claim.clone());
    check_source(json!({"persistentVolumeClaim": {"claimName": "orders", "readOnly": false}}), claim);
    check_source(
        json!({"persistentVolumeClaim": {"claimName": "orders", "readOnly": true}}),
        VolumeSource::Claim { name: "orders", read_only: true },
    );
    check_source(json!({"ephemeral": {}}), VolumeSource::Ephemeral { template: &Value::Null });
    let template = json!({"spec": {"storageClassName": "gold"}});
    check_source(
        json!({"ephemeral": {"volumeClaimTemplate": template}}),
        VolumeSource::Ephemeral { template: &template },
    );
    check_source(json!({"csi": {"driver": "x"}}), VolumeSource::InlineCsi { driver: "x" });
    check_source(json!({"ephemeral": null, "csi": {"driver": "x"}}), VolumeSource::InlineCsi { driver: "x" });
    for other in
        [json!({"emptyDir": {}}), json!(5), json!({"persistentVolumeClaim": {"claimName": 5}}), json!({"csi": {}})]
    {
        check_source(other, VolumeSource::Other);
    }
}

#[test]
fn facts_are_what_policies_are_told() {
    let object = json!({
        "metadata": {
            "generateName": "web-", "name": "",
            // What an earlier pass of Pith wrote is no business of a policy's.
            "labels": {"app": "web", "number": 5, "done.sidecar.juicefs.com/inject": "true"},
            "annotations": {"a": "b", "pith.io/injected": "{}"},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "controller": true},
                {"kind": "Other"},
            ],
        },
        "spec": {"serviceAccountName": "robot", "priorityClassName": "high", "priority": 7},
    });
    let owner = |api_version: &str, kind: &str, name: &str, controller| Owner {
        api_version: api_version.into(),
        kind: kind.into(),
        name: name.into(),
        controller,
    };
    assert_eq!(
        Pod::read(&object).expect("a pod").facts(),
        PodFacts {
            name: None,
            generate_name: Some("web-".into()),
            labels: testing::entries(&[("app", "web")]),
            annotations: testing::entries(&[("a", "b")]),
            owners: vec![owner("apps/v1", "ReplicaSet", "web", true), owner("", "Other", "", false)],
            service_account: "robot".into(),
            priority_class: Some("high".into()),
            priority: Some(7),
        }
    );
    let bare = json!({"spec": {"priority": 5_000_000_000_i64}});
    let facts = Pod::read(&bare).expect("a pod").facts();
    assert_eq!(facts, PodFacts { service_account: "default".into(), ..PodFacts::default() });
}
