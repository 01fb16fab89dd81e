//! What is read of the file, what is named as without effect, and what is refused.

use serde_json::json;

use super::*;
use crate::testing::{amounts, claim, entries};

/// One item that says this.
fn one(item: Value) -> MountPodPatch {
    let read = read(&json!({"mountPodPatch": [item]})).expect("the item is fine");
    assert_eq!(read.ineffective, Vec::<String>::new());
    read.patches.into_iter().next().expect("an item")
}

#[test]
fn every_field_with_a_meaning_is_read() {
    let item = one(json!({
        "ceMountImage": "juicefs:2",
        "imagePullPolicy": "IfNotPresent",
        "resources": {"requests": {"cpu": "100m", "memory": 1_073_741_824}, "limits": {"cpu": 2}},
        "resourcePercentages": {"requests": {"cpu": "30%"}, "limits": {"memory": "12.5%"}, "minLimits": {"cpu": "800m"}},
        "livenessProbe": {"exec": {"command": ["stat", "${MOUNT_POINT}"]}},
        "env": [{"name": "GOGC", "value": "50"}],
        "mountOptions": ["writeback", "buffer-size=50%"],
        "cacheDirs": [
            {"type": "HostPath", "path": "/data"},
            {"type": "PVC", "name": "scratch"},
            {"type": "EmptyDir", "sizeLimit": "1Gi", "medium": "Memory"},
            {"type": "Ephemeral", "storageClassName": "local", "storage": "10Gi"},
        ],
        "volumes": [{"name": "keys", "secret": {"secretName": "keys"}}],
        "volumeMounts": [{"name": "keys", "mountPath": "/keys"}],
        "hostPID": null,
    }));
    assert_eq!(item.image.as_deref(), Some("juicefs:2"));
    assert_eq!(item.image_pull_policy.as_deref(), Some("IfNotPresent"));
    assert_eq!(item.resources, Some((amounts(&[("cpu", "100m"), ("memory", "1Gi")]), amounts(&[("cpu", "2")]))));
    let percentages = item.percentages.expect("percentages");
    assert_eq!(percentages.requests, [("cpu".to_string(), 3000)]);
    assert_eq!(percentages.limits, [("memory".to_string(), 1250)]);
    assert_eq!(percentages.least, amounts(&[("cpu", "800m")]));
    assert!(item.probes.contains_key("livenessProbe"));
    assert_eq!(item.mount_options.as_deref(), Some(&["writeback".to_string(), "buffer-size=50%".to_string()][..]));
    let ephemeral = CacheVolume::Ephemeral {
        storage_class: Some("local".into()),
        storage: "10Gi".into(),
        access_modes: vec!["ReadWriteOnce".into()],
    };
    assert_eq!(
        item.caches.expect("caches"),
        [
            CacheVolume::HostPath("/data".into()),
            CacheVolume::Claim("scratch".into()),
            CacheVolume::EmptyDir { in_memory: true, size_limit: Some("1Gi".into()) },
            ephemeral,
        ]
    );
    assert_eq!((item.volumes.len(), item.mounts.len()), (1, 1));
}

#[test]
fn what_has_no_effect_is_named_with_its_place_and_the_reason() {
    let check = |file: Value, expected: &[&str]| {
        let found = read(&file).expect("the file is fine").ineffective;
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for expected in expected {
            assert!(found.iter().any(|it| it.starts_with(expected)), "expected `{expected}` in {found:?}");
        }
    };
    check(Value::Null, &[]);
    check(
        json!({"enableNativeSidecar": true, "enableSetQuota": false, "colour": 1}),
        &["colour: it is not known", "enableSetQuota: `csi.quota`"],
    );
    assert_eq!(read(&json!({"enableNativeSidecar": false})).expect("it is fine").native_sidecar, Some(false));
    let items = json!([
        {"labels": {"a": "b"}, "lifecycle": {"preStop": {}}, "startupProbe": {}, "colour": 1},
        {"volumes": [{"name": "cachedir-x", "emptyDir": {}}, {"name": "ok", "emptyDir": {}}],
         "volumeMounts": [{"name": "ok", "mountPath": "/ok"}, {"name": "elsewhere", "mountPath": "/x"}]},
    ]);
    check(
        json!({"mountPodPatch": items}),
        &[
            "mountPodPatch[0].colour: it is not known",
            "mountPodPatch[0].labels: a pod's labels",
            "mountPodPatch[0].lifecycle: the guard unmounts",
            "mountPodPatch[0].startupProbe: the sidecar's own",
            "mountPodPatch[1].volumes: the name `cachedir-x` is the driver's own",
            "mountPodPatch[1].volumeMounts: the item has no volume `elsewhere`",
        ],
    );
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_place() {
    let check = |item: Value, expected: &str| {
        let error = read(&json!({"mountPodPatch": [{}, item]})).expect_err("it must be refused");
        assert!(error.starts_with(&format!("mountPodPatch[1]{expected}")), "expected `{expected}` in {error}");
    };
    check(json!("text"), " is not a map");
    check(json!({"ceMountImage": 7}), ".ceMountImage is not text");
    check(json!({"mountOptions": "ro"}), ".mountOptions is not a list");
    check(json!({"env": [{"value": "x"}]}), ".env is not a list of variables with names");
    check(json!({"env": [{"name": "METAURL", "value": "x"}]}), ".env sets METAURL");
    check(json!({"resources": {"limits": {"cpu": "many"}}}), ".resources.limits.cpu");
    check(json!({"resources": {"limits": {"cpu": "-1"}}}), ".resources.limits.cpu is negative");
    check(json!({"resourcePercentages": {"requests": {"cpu": "a third"}}}), ".resourcePercentages.requests.cpu is no");
    check(json!({"resourcePercentages": {"requests": {"cpu": "-5%"}}}), ".resourcePercentages.requests.cpu is no");
    check(json!({"cacheDirs": [{"type": "Tape"}]}), ".cacheDirs[0].type is `Tape`");
    check(json!({"cacheDirs": [{"type": "Ephemeral"}]}), ".cacheDirs[0] needs `storage`");
    check(json!({"cacheDirs": [{"type": "HostPath", "path": "data"}]}), ".cacheDirs[0].path is not absolute");
    check(json!({"pvcSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}), ".pvcSelector.matchEx");
    assert_eq!(read(&json!({"mountPodPatch": {}})), Err("mountPodPatch is not a list".to_string()));
    assert_eq!(read(&json!([])), Err("it is not a map".to_string()));
}

#[test]
fn an_item_is_for_the_claims_and_nodes_that_it_selects() {
    let check = |selectors: Value, expected: bool| {
        let claim = Claim { labels: entries(&[("team", "web")]), ..claim("orders") };
        let node = entries(&[("disk", "ssd")]);
        assert_eq!(one(selectors.clone()).matches(&claim, &node), expected, "{selectors}");
    };
    check(json!({}), true);
    check(json!({"pvcSelector": {"matchLabels": {"team": "web"}}}), true);
    check(json!({"pvcSelector": {"matchLabels": {"team": "data"}}}), false);
    check(json!({"pvcSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}}), true);
    check(json!({"pvcSelector": {"matchName": "orders"}}), true);
    check(json!({"pvcSelector": {"matchName": "invoices"}}), false);
    check(json!({"pvcSelector": {"matchStorageClassName": "juicefs"}}), true);
    // With the name of a class, labels do not count; the name of the claim does.
    check(json!({"pvcSelector": {"matchStorageClassName": "juicefs", "matchLabels": {"team": "data"}}}), true);
    check(json!({"pvcSelector": {"matchStorageClassName": "juicefs", "matchName": "invoices"}}), false);
    check(json!({"nodeSelector": {"matchLabels": {"disk": "ssd"}}}), true);
    check(json!({"nodeSelector": {"matchLabels": {"disk": "hdd"}}}), false);
    let nowhere = one(json!({"nodeSelector": {"matchExpressions": [{"key": "disk", "operator": "DoesNotExist"}]}}));
    assert!(!nowhere.matches(&claim("orders"), &Entries::new()), "of a node that is not known nothing is true");
}
