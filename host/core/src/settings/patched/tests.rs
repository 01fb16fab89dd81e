//! What `mountPodPatch` makes of a sidecar: which item wins, shares of the application's resources, caches, volumes, the buffer.

use serde_json::json;

use super::*;
use crate::admission::Verdict;
use crate::object::{PersistentVolume, StorageClass};
use crate::reason::STATUS_ANNOTATION;
use crate::status;
use crate::testing::{World, claim, class, entries, pod, volume, world};

/// The client of a pod that mounts the claim `orders`.
#[track_caller]
fn client(world: World, pod: &Value) -> Value {
    let injected = world.inject(pod);
    // A second pass finds everything as it is to be.
    assert_eq!(world.inject(&injected), injected);
    injected["spec"]["initContainers"][1].clone()
}

fn with_claim() -> World {
    world().with_claim("orders")
}

fn web() -> Value {
    pod().mounting("data", "orders").0
}

/// A pod whose containers mount the claim and have these resources.
fn with_resources(of_app: Value, of_init: Value) -> Value {
    let mounts = json!([{"name": "data", "mountPath": "/data"}]);
    let mut pod = pod().mounting("data", "orders").0;
    pod["spec"]["containers"][0]["resources"] = of_app;
    pod["spec"]["containers"].as_array_mut().expect("containers").push(json!({
        "name": "beside", "resources": {"requests": {"cpu": "7", "memory": "7Gi"}},
    }));
    pod["spec"]["initContainers"] = json!([{"name": "seed", "resources": of_init, "volumeMounts": mounts}]);
    pod
}

#[track_caller]
fn check_resources(percentages: Value, pod: &Value, requests: [&str; 2], limits: [&str; 2]) {
    let found = client(with_claim().patching(json!([{"resourcePercentages": percentages}])), pod)["resources"].clone();
    let of = |kind: &str| ["cpu", "memory"].map(|name| found[kind][name].as_str().unwrap_or_default().to_string());
    assert_eq!((of("requests"), of("limits")), (requests.map(String::from), limits.map(String::from)));
}

#[test]
fn a_share_is_of_the_containers_that_mount_the_claim_rounded_up() {
    let thirty = || json!({"requests": {"cpu": "30%", "memory": "30%"}, "limits": {"cpu": "60%", "memory": "60%"}});
    let small = with_resources(
        json!({"requests": {"cpu": "50m", "memory": "50Mi"}}),
        json!({"requests": {"cpu": "50m", "memory": "51Mi"}}),
    );
    // Nobody has a limit that there could be a share of: the defaults stay.
    check_resources(thirty(), &small, ["30m", "31Mi"], ["2", "5Gi"]);
    let large = with_resources(
        json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}),
        json!({}),
    );
    check_resources(thirty(), &large, ["600m", "308Mi"], ["1200m", "615Mi"]);
}

#[test]
fn a_share_of_a_limit_does_not_fall_below_the_least_one() {
    let tiny = with_resources(json!({"limits": {"cpu": "100m", "memory": "100Mi"}}), json!({}));
    let ten = json!({"requests": {"cpu": "10%", "memory": "10%"}, "limits": {"cpu": "10%", "memory": "10%"}});
    // A container that says nothing of its requests has its limits.
    check_resources(ten, &tiny, ["10m", "10Mi"], ["100m", "300Mi"]);
    let least = json!({"limits": {"cpu": "10%", "memory": "10%"}, "minLimits": {"cpu": "800m", "memory": "2Gi"}});
    check_resources(least, &tiny, ["800m", "1Gi"], ["800m", "2Gi"]);
}

#[test]
fn a_later_item_replaces_whole_fields_and_leaves_the_others() {
    let items = json!([
        {"ceMountImage": "first", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
         "resources": {"requests": {"cpu": "3"}, "limits": {"cpu": "3"}}},
        {"pvcSelector": {"matchName": "orders"}, "env": [{"name": "B", "value": "3"}]},
        {"pvcSelector": {"matchName": "invoices"}, "ceMountImage": "third"},
    ]);
    let found = client(with_claim().patching(items), &web());
    assert_eq!(found["image"], "first");
    assert_eq!(found["resources"], json!({"requests": {"cpu": "3"}, "limits": {"cpu": "3"}}));
    let env: Vec<&Value> = list(&found["env"]).iter().filter(|it| it.get("valueFrom").is_none()).collect();
    assert_eq!(env, [&json!({"name": "B", "value": "3"})]);
}

#[test]
fn an_item_stands_above_a_claims_annotation_and_below_the_ceilings() {
    let annotated = || {
        let annotations = entries(&[("juicefs/mount-cpu-limit", "7")]);
        world().with_bound(crate::object::Claim { annotations, ..claim("orders") }, volume("pv-1"))
    };
    let limits = |world: World| client(world, &web())["resources"]["limits"]["cpu"].clone();
    assert_eq!(limits(annotated()), "7");
    let item = || json!([{"resources": {"limits": {"cpu": "4"}}}]);
    assert_eq!(limits(annotated().patching(item())), "4");
    assert_eq!(limits(annotated().patching(item()).with_ceilings(&[("cpu", "3")])), "3");
}

#[test]
fn variables_stand_for_what_is_known_of_the_volume() {
    let bound = PersistentVolume {
        other_handle: Some("handle".into()),
        volume_attributes: entries(&[("subPath", "web/orders")]).into(),
        ..volume("pv-1")
    };
    let all = "${MOUNT_POINT} ${VOLUME_ID} ${VOLUME_NAME} ${SUB_PATH}";
    let items =
        json!([{"env": [{"name": "ALL", "value": all}], "livenessProbe": {"exec": {"command": ["stat", all]}}}]);
    let expected = "/jfs/data handle pv-1 web/orders";
    let found = client(world().with_bound(claim("orders"), bound).patching(items.clone()), &web());
    assert_eq!(found["livenessProbe"]["exec"]["command"][1], expected);
    assert_eq!(list(&found["env"]).last(), Some(&json!({"name": "ALL", "value": expected})));

    let mut unbound = with_claim().patching(items);
    let warnings = unbound.decide(&web()).warnings;
    assert!(warnings.iter().any(|it| it.starts_with("${VOLUME_ID}")), "{warnings:?}");
    let injected = unbound.inject(&web());
    assert_eq!(unbound.inject(&injected), injected, "a second pass");
    // Whoever looks at the pod is told too, each thing once.
    let notes = status::notes(injected["metadata"]["annotations"][STATUS_ANNOTATION].as_str().expect("an annotation"));
    let names: Vec<&str> = notes.iter().filter_map(|note| note.split(':').next()).collect();
    assert_eq!(names, ["${SUB_PATH}", "${VOLUME_ID}", "${VOLUME_NAME}"]);
    unbound.configuration.strict_templates = true;
    let Verdict::Refuse(refusal) = unbound.decide(&web()).verdict else { panic!("it is refused") };
    let expected =
        "mountPodPatch has a template = `${SUB_PATH}`, which is not usable: the claim `orders` has no such value yet";
    assert!(refusal.to_string().starts_with(expected), "{refusal}");
    unbound.configuration.strict_templates = false;
    assert_eq!(client(unbound, &web())["livenessProbe"]["exec"]["command"][1], "/jfs/data   ");
}

#[test]
fn what_a_directory_is_called_is_no_expression() {
    let named = PersistentVolume { volume_attributes: entries(&[("subPath", "$(KEY)\"")]).into(), ..volume("pv-1") };
    let item = json!([{"env": [{"name": "PATHS", "value": "$(HOME):${SUB_PATH}"}]}]);
    let found = client(world().with_bound(claim("orders"), named).patching(item), &web());
    assert_eq!(list(&found["env"]).last(), Some(&json!({"name": "PATHS", "value": "$(HOME):$$(KEY)\""})));
}

#[test]
fn environment_that_kubernetes_looks_up_is_passed_on_as_it_is() {
    let from = json!({"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key"}}});
    let refers = json!({"name": "URL", "value": "https://$(KEY)/"});
    let found = client(with_claim().patching(json!([{"env": [from.clone(), refers.clone()]}])), &web());
    let env = list(&found["env"]);
    assert!(env.contains(&from) && env.contains(&refers), "{env:?}");
}

#[track_caller]
fn check_caches(world: World, argv: Option<&str>, paths: &[&str]) {
    let found = client(world, &web());
    let flag = list(&found["command"]).iter().filter_map(Value::as_str).find_map(|it| it.strip_prefix("--cache-dir="));
    assert_eq!(flag, argv);
    let mounted: Vec<&str> =
        list(&found["volumeMounts"]).iter().skip(1).filter_map(|it| it["mountPath"].as_str()).collect();
    assert_eq!(mounted, paths);
}

fn of_class(parameters: &[(&str, &str)]) -> World {
    let class = StorageClass { parameters: entries(parameters).into(), ..class("juicefs") };
    with_claim().with(crate::object::Object::StorageClass(class))
}

#[test]
fn caches_of_every_kind_stand_in_the_drivers_order() {
    check_caches(with_claim(), None, &[]);
    check_caches(with_claim().caching_in(false, None), None, &["/var/jfsCache"]);
    // A default gives way to what somebody asked for.
    let claims = || of_class(&[("juicefs/mount-cache-pvc", "abc, def")]);
    check_caches(
        claims().caching_in(false, None),
        Some("/var/jfsCache-0:/var/jfsCache-1"),
        &["/var/jfsCache-0", "/var/jfsCache-1"],
    );
    let one_more = json!([{"cacheDirs": [{"type": "PVC", "name": "sss"}, {"type": "PVC", "name": "abc"}]}]);
    let three = ["/var/jfsCache-0", "/var/jfsCache-1", "/var/jfsCache-2"];
    check_caches(claims().patching(one_more), Some(&three.join(":")), &three);
    let host = json!([{"cacheDirs": [{"type": "HostPath", "path": "/sss/${VOLUME_NAME}"}, {"type": "HostPath", "path": "/def"}]}]);
    let bound = || {
        let volume = PersistentVolume { mount_options: vec!["cache-dir=/abc:/def".into()], ..volume("pv-1") };
        world().with_bound(claim("orders"), volume)
    };
    check_caches(bound().patching(host), Some("/abc:/def:/sss/pv-1"), &["/sss/pv-1"]);
    let inline = r#"[{"driver": "csi.example.com", "volumeAttributes": {"size": "1Gi"}}]"#;
    let every = json!([{"cacheDirs": [
        {"type": "HostPath", "path": "/sss"},
        {"type": "Ephemeral", "storage": "1Gi"},
        {"type": "EmptyDir", "medium": "Memory", "sizeLimit": "1Gi"},
    ]}]);
    let paths = [
        "/var/jfsCache-0",
        "/var/jfsCache-emptyDir",
        "/var/jfsCache-ephemeral-0",
        "/var/jfsCache-inlineVolume-0",
        "/sss",
    ];
    let world = of_class(&[("juicefs/mount-cache-pvc", "abc"), ("juicefs/mount-cache-inline-volume", inline)]);
    check_caches(world.patching(every), Some(&paths.join(":")), &paths);
}

#[test]
fn a_cache_that_cannot_be_is_refused() {
    let check = |key: &str, value: &str, expected: &str| {
        let verdict = format!("{:?}", of_class(&[(key, value)]).decide(&web()).verdict);
        assert!(verdict.contains(expected), "expected `{expected}` in {verdict}");
    };
    check("juicefs/mount-cache-pvc", "ok,Not_A_Name", "`Not_A_Name` is no name of a claim");
    check("juicefs/mount-cache-inline-volume", "[{}]", "names its `driver`");
    check("juicefs/mount-cache-inline-volume", "nothing", "no JSON list");
    check("juicefs/host-path", "etc", "`etc` is no absolute path");
}

#[test]
fn volumes_of_an_item_have_names_of_their_own() {
    let items = json!([
        {"volumes": [{"name": "data", "secret": {"secretName": "keys"}}],
         "volumeMounts": [{"name": "data", "mountPath": "/keys", "readOnly": true}]},
        {"volumes": [{"name": "data", "emptyDir": {}}]},
    ]);
    let found = with_claim().patching(items).inject(&web());
    let volumes: Vec<&Value> =
        list(&found["spec"]["volumes"]).iter().filter(|it| it["name"] == "pith-extra-data-data").collect();
    assert_eq!(volumes, [&json!({"name": "pith-extra-data-data", "secret": {"secretName": "keys"}})]);
    let mounts = &found["spec"]["initContainers"][1]["volumeMounts"];
    assert!(list(mounts).contains(&json!({"name": "pith-extra-data-data", "mountPath": "/keys", "readOnly": true})));
}

#[test]
fn folders_of_the_node_are_mounted_where_they_are() {
    let found = of_class(&[("juicefs/host-path", "/data/a, /data/b")]).inject(&web());
    let volumes = list(&found["spec"]["volumes"]);
    let expected = json!({"name": "pith-host-1-data", "hostPath": {"path": "/data/b", "type": "DirectoryOrCreate"}});
    assert!(volumes.contains(&expected), "{volumes:?}");
}

#[track_caller]
fn check_buffer(option: &str, limit: Option<&str>, expected: Option<&str>, warning: Option<&str>) {
    let limits = limit.map(|limit| json!({"limits": {"memory": limit}})).unwrap_or_else(|| json!({}));
    let item = json!([{"mountOptions": [format!("buffer-size={option}")], "resources": limits}]);
    let world = with_claim().patching(item);
    let warnings = world.decide(&web()).warnings.join("\n");
    assert_eq!(!warnings.is_empty(), warning.is_some(), "{warnings}");
    assert!(warnings.contains(warning.unwrap_or_default()), "{warnings}");
    let found = client(world, &web());
    let flags = list(&found["command"]).iter().filter_map(Value::as_str);
    assert_eq!(flags.filter_map(|it| it.strip_prefix("--buffer-size=")).next(), expected, "{option} of {limit:?}");
}

#[test]
fn the_buffer_is_in_mib_and_fits_below_the_memory_limit() {
    check_buffer("300", Some("5Gi"), Some("300"), None);
    check_buffer("300", None, Some("300"), None);
    check_buffer("1G", Some("10Mi"), Some("10"), Some("above its memory limit: it is 10 MiB"));
    check_buffer("1G", Some("5Gi"), Some("1024"), None);
    check_buffer("30%", Some("100Mi"), Some("30"), None);
    check_buffer("150%", Some("100Mi"), Some("100"), None);
    check_buffer("50%", Some("615Mi"), Some("308"), None);
    check_buffer("30%", None, None, Some("no memory limit"));
    // What is none of these is the client's to refuse.
    check_buffer("plenty", Some("100Mi"), Some("plenty"), None);
}
