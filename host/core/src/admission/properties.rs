//! What must hold for every pod, not only for those that somebody thought of.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use pith_proto::Quantity;

use super::*;
use crate::object::{Claim, Object};
use crate::testing::{World, amounts, claim, entries, volume, world};

/// Every source of claims, a cache, ceilings, and a policy that sets one of everything.
fn busy_world() -> World {
    let disk = Claim { storage_class: None, ..claim("disk") };
    let change = Change {
        env: vec![("EMPTY".into(), Some(String::new())), ("DOLLAR".into(), Some("$(x)".into()))],
        requests: vec![("cpu".into(), Some("1500m".into())), ("memory".into(), None)],
        mount_options: vec![("buffer-size".into(), crate::policy::OptionChange::Set(Some("300".into())))],
        ..Change::default()
    };
    world()
        .with_claim("orders")
        .with_bound(
            claim("logs"),
            PersistentVolume {
                read_only: true,
                volume_attributes: entries(&[("mountOptions", "writeback,noatime")]).into(),
                ..volume("pv-logs")
            },
        )
        .with(Object::Claim(disk))
        .caching_in(true, Some("0.5Gi"))
        .with_ceilings(&[("cpu", "1"), ("memory", "4096Mi")])
        .adjusting("tune", move |_| Ok(change.clone()))
}

const VOLUMES: [&str; 6] = [
    "data",
    "cache-data",
    "mount-data",
    "view",
    "tmp",
    "a-name-of-the-greatest-length-that-a-dns-label-may-have-63-long",
];

fn a_source() -> impl Strategy<Value = Value> {
    select(vec![
        json!({"persistentVolumeClaim": {"claimName": "orders"}}),
        json!({"persistentVolumeClaim": {"claimName": "orders", "readOnly": true, "future": 1}}),
        json!({"persistentVolumeClaim": {"claimName": "logs"}}),
        json!({"persistentVolumeClaim": {"claimName": "disk"}}),
        json!({"ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": "juicefs"}}}}),
        json!({"emptyDir": {}}),
        json!({"configMap": {"name": "x", "future/~field": [null]}}),
    ])
}

fn some_volumes() -> impl Strategy<Value = Value> {
    subsequence(VOLUMES.to_vec(), 1..=VOLUMES.len()).prop_flat_map(|names| {
        vec(a_source(), names.len()).prop_map(move |sources| {
            let named = names.iter().zip(sources).map(|(name, mut source)| {
                source["name"] = json!(name);
                source
            });
            Value::Array(named.collect())
        })
    })
}

fn a_mount() -> impl Strategy<Value = Value> {
    let names = [&VOLUMES[..], &["unknown"]].concat();
    let extra = select(vec![
        json!({}),
        json!({"readOnly": true}),
        json!({"readOnly": false, "subPath": "a/b"}),
        json!({"mountPropagation": "Bidirectional", "subPathExpr": "$(POD)"}),
        json!({"mountPropagation": "None"}),
        json!({"mountPropagation": "HostToContainer", "future~field": {"a/b": 1.5}}),
    ]);
    (select(names), extra).prop_map(|(name, mut mount)| {
        mount["name"] = json!(name);
        mount["mountPath"] = json!("/x");
        mount
    })
}

/// Containers with distinct names.
fn some_containers(kind: &'static str) -> impl Strategy<Value = Value> {
    let mounts = prop_oneof![
        4 => vec(a_mount(), 0..4).prop_map(Value::Array),
        1 => Just(Value::Null),
    ];
    let ports = select(vec![
        json!([{"name": "metrics-1", "containerPort": 80}, {"name": "metrics", "containerPort": 9}]),
        Value::Null,
    ]);
    vec((proptest::option::of(mounts), any::<bool>(), ports), 0..3).prop_map(move |containers| {
        let named = containers.into_iter().enumerate().map(|(index, (mounts, future, ports))| {
            let mut container = json!({"name": format!("{kind}-{index}"), "image": "x"});
            if ports.is_array() {
                container["ports"] = ports;
                container["env"] = json!([{"name": "B", "value": "$(A)"}, {"name": "A", "value": ""}]);
            }
            if let Some(mounts) = mounts {
                container["volumeMounts"] = mounts;
            }
            if future {
                container["future"] = json!({"~": ["/"]});
            }
            container
        });
        Value::Array(named.collect())
    })
}

fn some_entries() -> impl Strategy<Value = Option<Value>> {
    let keys = select(vec!["app", "a/b~c", "~1", DONE_LABEL, STATUS_ANNOTATION]);
    let entries = btree_map(keys, "[a-z]{0,3}", 0..4).prop_map(|entries| json!(entries));
    proptest::option::of(prop_oneof![4 => entries, 1 => Just(Value::Null)])
}

const AMOUNTS: [&str; 8] = ["0", "1m", "100m", "1", "1.5", "4096Mi", "1e10", "3Ti"];

/// Some amounts of cpu and memory.
fn some_amounts() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let one =
        |name: &'static str| proptest::option::of(select(AMOUNTS.to_vec()).prop_map(move |amount| (name, amount)));
    (one("cpu"), one("memory")).prop_map(|(cpu, memory)| cpu.into_iter().chain(memory).collect())
}

/// What a pod has for all its containers together.
fn resources_of_a_pod() -> impl Strategy<Value = Value> {
    let amounts = || some_amounts().prop_map(|amounts| json!(BTreeMap::from_iter(amounts)));
    (amounts(), amounts()).prop_map(|(requests, limits)| json!({"requests": requests, "limits": limits}))
}

fn a_pod() -> impl Strategy<Value = Value> {
    let init = proptest::option::of(prop_oneof![4 => some_containers("init"), 1 => Just(Value::Null)]);
    let debuggers = proptest::option::of(some_containers("debug"));
    let metadata = proptest::option::of((some_entries(), some_entries()));
    let resources = proptest::option::of(resources_of_a_pod());
    (metadata, some_volumes(), some_containers("main"), init, debuggers, resources, any::<bool>()).prop_map(
        |(metadata, volumes, containers, init, debuggers, resources, host_network)| {
            let mut pod = json!({"spec": {"volumes": volumes, "containers": containers, "future": {"/": null}}});
            if let Some((labels, annotations)) = metadata {
                pod["metadata"] = json!({"name": "web-0", "future": 1});
                labels.into_iter().for_each(|labels| pod["metadata"]["labels"] = labels);
                annotations.into_iter().for_each(|annotations| pod["metadata"]["annotations"] = annotations);
            }
            if let Some(init) = init {
                pod["spec"]["initContainers"] = init;
            }
            for (key, value) in [("ephemeralContainers", debuggers), ("resources", resources)] {
                value.into_iter().for_each(|value| pod["spec"][key] = value);
            }
            if host_network {
                pod["spec"]["hostNetwork"] = json!(true);
            }
            pod
        },
    )
}

/// The busy world with pods of this shape, and a pod that gets it.
fn shaped(shape: Shape, mut pod: Value) -> (World, Value) {
    let mut world = busy_world();
    match shape {
        Shape::NativeSidecar | Shape::Container => world.configuration.shape = Some(shape),
        Shape::Vci => pod["metadata"]["annotations"]["vke.volcengine.com/burst-to-vci"] = json!("enforce"),
        Shape::Cci => pod["metadata"]["labels"]["virtual-kubelet.io/burst-to-cci"] = json!("enforce"),
    }
    let labels = entries(&[("juicefs.com/enable-serverless-injection", "true")]);
    let namespace = Namespace { name: "shop".into(), labels, ..Namespace::default() };
    (world.with(Object::Namespace(namespace)), pod)
}

fn a_shape() -> impl Strategy<Value = Shape> {
    select(vec![Shape::NativeSidecar, Shape::Container, Shape::Vci, Shape::Cci])
}

/// The patch, and the pod with it. None where the pod has no JuiceFS claim, or one that its shape cannot have.
fn injected(world: &World, pod: &Value) -> Option<(String, Value)> {
    match world.decide(pod).verdict {
        Verdict::Inject(patch) => {
            let mut patched = pod.clone();
            json_patch::patch(&mut patched, &patch).expect("the patch fits the pod");
            Some((serde_json::to_string(&patch).expect("a patch is JSON"), patched))
        }
        Verdict::Skip { why: Skip::NoJuiceFsClaims | Skip::NoClaims, .. } => None,
        Verdict::Refuse(Refusal::UnsupportedPod { what: "an init container that mounts a JuiceFS claim", .. }) => None,
        other => panic!("{other:?}"),
    }
}

/// The pod as the API server and other webhooks hand it on: with defaults filled in, amounts in canonical form, empty values
/// dropped, and things added beside ours.
fn handed_on(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let spec = pod["spec"].as_object_mut().expect("a pod");
    for (list, items) in spec.iter_mut() {
        let Some(items) = items.as_array_mut() else { continue };
        match list.as_str() {
            "initContainers" | "containers" | "ephemeralContainers" => items.iter_mut().for_each(default_container),
            "volumes" => items.push(json!({"name": "kube-api-access", "projected": {"defaultMode": 420}})),
            _ => {}
        }
    }
    pod["spec"]["schedulerName"] = json!("default-scheduler");
    pod["metadata"]["labels"]["added-by"] = json!("another");
    pod
}

fn default_container(container: &mut Value) {
    for (key, value) in [
        ("terminationMessagePath", json!("/dev/termination-log")),
        ("terminationMessagePolicy", json!("File")),
        ("imagePullPolicy", json!("IfNotPresent")),
    ] {
        container[key] = value;
    }
    if container.get("startupProbe").is_some() {
        container["startupProbe"]["successThreshold"] = json!(1);
    }
    // A limit without a request becomes one.
    if let Some(limits) = container["resources"]["limits"].as_object().cloned() {
        for (name, amount) in limits {
            if container["resources"]["requests"].get(&name).is_none() {
                container["resources"]["requests"][&name] = amount;
            }
        }
    }
    for amounts in ["limits", "requests"] {
        for amount in container["resources"][amounts].as_object_mut().into_iter().flat_map(|it| it.values_mut()) {
            let quantity: pith_proto::Quantity = amount.as_str().expect("text").parse().expect("a quantity");
            *amount = json!(quantity.to_string());
        }
    }
    for variable in container["env"].as_array_mut().into_iter().flatten() {
        if variable["value"] == "" {
            variable.as_object_mut().expect("an object").remove("value");
        }
    }
    match container["volumeMounts"].as_array_mut() {
        Some(mounts) => mounts.push(json!({"name": "kube-api-access", "mountPath": "/var/run/secrets"})),
        None => container["volumeMounts"] = json!([]),
    }
    match container["env"].as_array_mut() {
        Some(env) => env.push(json!({"name": "ADDED", "value": "x"})),
        None => container["env"] = json!([{"name": "ADDED", "value": "x"}]),
    }
}

/// The pod without what Pith adds, and without what Pith may change of a mount.
fn without_ours(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let ours = |item: &Value| {
        let name = item["name"].as_str().unwrap_or_default();
        ["jfs-mount", "pith-guard", "pith-init", "pith-program", "pith-mount-", "pith-cache-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    for list in ["initContainers", "containers", "ephemeralContainers", "volumes"] {
        for item in pod["spec"][list].as_array_mut().into_iter().flat_map(|items| {
            items.retain(|item| !ours(item));
            items
        }) {
            for mount in item["volumeMounts"].as_array_mut().into_iter().flatten() {
                for changed in ["name", "mountPropagation", "readOnly"] {
                    mount.as_object_mut().expect("an object").remove(changed);
                }
            }
            // Reading `volumeMounts` above left a null where there was none.
            if item["volumeMounts"].is_null() {
                item.as_object_mut().expect("an object").remove("volumeMounts");
            }
        }
        if list_is_empty(&pod["spec"][list]) {
            pod["spec"].as_object_mut().expect("an object").remove(list);
        }
    }
    for (entries, key) in [
        ("labels", DONE_LABEL),
        ("annotations", STATUS_ANNOTATION),
        ("annotations", VCI_PROPAGATION_ANNOTATION),
        ("annotations", VCI_MOUNTS_ANNOTATION),
    ] {
        if let Some(present) = pod["metadata"][entries].as_object_mut() {
            present.remove(key);
        }
    }
    for entries in ["labels", "annotations"] {
        if pod["metadata"][entries].as_object().is_none_or(|it| it.is_empty()) {
            pod["metadata"].as_object_mut().expect("an object").remove(entries);
        }
    }
    pod
}

fn list_is_empty(value: &Value) -> bool {
    value.as_array().is_none_or(Vec::is_empty)
}

/// Whether Pith makes containers of this one's name.
fn is_ours(container: &Value) -> bool {
    container["name"].as_str().is_some_and(|name| name.starts_with("jfs-mount") || name.starts_with("pith-"))
}

/// Every mount of the pod, ours left out.
fn mounts(pod: &Value) -> Vec<&Value> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let lists = lists.into_iter().flat_map(|list_of| list(&pod["spec"][list_of]));
    let theirs = lists.filter(|it| !is_ours(it));
    theirs.flat_map(|container| list(&container["volumeMounts"])).collect()
}

/// The paths of everything in a value, itself left out.
fn paths(value: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect(),
        _ => Vec::new(),
    };
    children
        .into_iter()
        .flat_map(|(key, child)| {
            let below = paths(child);
            let step = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
            let under: Vec<String> = below.into_iter().map(|path| format!("{step}{path}")).collect();
            std::iter::once(step).chain(under)
        })
        .collect()
}

fn remove(value: &mut Value, path: &str) {
    let (parent, last) = path.rsplit_once('/').expect("a path has a slash");
    match value.pointer_mut(parent) {
        Some(Value::Object(object)) => drop(object.remove(&last.replace("~1", "/").replace("~0", "~"))),
        Some(Value::Array(items)) => drop(items.remove(last.parse().expect("a position"))),
        _ => panic!("{path} has a parent"),
    }
}

/// Any JSON, with the keys of a pod more likely than others.
fn any_json() -> impl Strategy<Value = Value> {
    let keys = prop_oneof![
        6 => select(vec![
            "metadata", "labels", "annotations", "ownerReferences", "spec", "volumes", "containers", "initContainers",
            "ephemeralContainers", "volumeMounts", "volumeDevices", "name", "persistentVolumeClaim", "claimName",
            "readOnly", "mountPropagation", "ephemeral", "volumeClaimTemplate", "csi", "driver", "hostUsers", "os", "args",
            STATUS_ANNOTATION, DONE_LABEL, DISABLE_LABEL, SKIPPED_LABEL,
        ])
        .prop_map(String::from),
        1 => "\\PC{0,5}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        select(vec!["data", "orders", "logs", "true", "jfs-mount", "pith-guard", "pith-mount-data", "csi.juicefs.com"])
            .prop_map(Value::from),
        "\\PC{0,5}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            btree_map(keys.clone(), inner, 0..6).prop_map(|object| json!(object)),
        ]
    })
}

/// Whatever the shape: a patch that fits, or a sentence.
fn check_answered(world: &World, pod: &Value) -> Result<(), TestCaseError> {
    match world.decide(pod).verdict {
        Verdict::Inject(patch) => {
            json_patch::patch(&mut pod.clone(), &patch).map_err(|error| TestCaseError::fail(error.to_string()))
        }
        Verdict::Refuse(refusal) => {
            prop_assert!(!refusal.to_string().is_empty());
            Ok(())
        }
        Verdict::Skip { .. } | Verdict::Fail(_) => Ok(()),
    }
}

proptest! {
    #[test]
    fn a_second_pass_changes_nothing(pod in a_pod(), shape in a_shape()) {
        let (world, pod) = shaped(shape, pod);
        if let Some((_, once)) = injected(&world, &pod) {
            prop_assert_eq!(injected(&world, &once), Some(("[]".to_string(), once.clone())));
        }
    }

    #[test]
    fn defaults_and_what_others_add_are_no_change(pod in a_pod(), shape in a_shape()) {
        let (world, pod) = shaped(shape, pod);
        if let Some((_, once)) = injected(&world, &pod) {
            let stored = handed_on(&once);
            prop_assert_eq!(injected(&world, &stored), Some(("[]".to_string(), stored.clone())));
        }
    }

    #[test]
    fn the_same_pod_gets_the_same_bytes(pod in a_pod(), shape in a_shape()) {
        let (world, pod) = shaped(shape, pod);
        prop_assert_eq!(world.decide(&pod), world.decide(&pod));
        prop_assert_eq!(injected(&world, &pod), injected(&world, &pod));
    }

    #[test]
    fn everything_that_was_there_stays(pod in a_pod(), shape in a_shape()) {
        let (world, pod) = shaped(shape, pod);
        if let Some((_, once)) = injected(&world, &pod) {
            let mut before = pod.clone();
            before.as_object_mut().expect("a pod").entry("metadata").or_insert_with(|| json!({}));
            prop_assert_eq!(without_ours(&once), without_ours(&before));
        }
    }

    #[test]
    fn only_mounts_of_juicefs_change(pod in a_pod(), shape in a_shape()) {
        let (world, pod) = shaped(shape, pod);
        if let Some((_, once)) = injected(&world, &pod) {
            let juicefs: BTreeSet<&str> = list(&pod["spec"]["volumes"])
                .iter()
                .filter(|volume| {
                    let claim = volume["persistentVolumeClaim"]["claimName"].as_str();
                    matches!(claim, Some("orders" | "logs")) || volume["ephemeral"].is_object()
                })
                .filter_map(|volume| volume["name"].as_str())
                .collect();
            for (before, after) in mounts(&pod).into_iter().zip(mounts(&once)) {
                if juicefs.contains(before["name"].as_str().unwrap_or_default()) {
                    let name = after["name"].as_str().unwrap_or_default();
                    prop_assert!(name.starts_with("pith-mount-"));
                    prop_assert!(list(&once["spec"]["volumes"]).iter().any(|volume| volume["name"] == name));
                    let propagated = matches!(
                        after["mountPropagation"].as_str(), Some("HostToContainer" | "Bidirectional")
                    );
                    prop_assert!(propagated || shape == Shape::Cci);
                    prop_assert!(before["readOnly"] != true || after["readOnly"] == true);
                } else {
                    prop_assert_eq!(before, after);
                }
            }
        }
    }

    #[test]
    fn no_amount_is_above_its_ceiling_nor_a_request_above_its_limit(
        pod in a_pod(),
        defaults in (some_amounts(), some_amounts()),
        wanted in (some_amounts(), some_amounts()),
        of_policy in (some_amounts(), some_amounts()),
        ceilings in some_amounts(),
    ) {
        let change = |amounts: &[(&str, &str)]| {
            amounts.iter().map(|(name, amount)| (name.to_string(), Some(amount.to_string()))).collect()
        };
        let change = Change { requests: change(&of_policy.0), limits: change(&of_policy.1), ..Change::default() };
        let annotations = [("request", &wanted.0), ("limit", &wanted.1)].into_iter().flat_map(|(kind, amounts)| {
            amounts.iter().map(move |(name, amount)| (format!("juicefs/mount-{name}-{kind}"), amount.to_string()))
        });
        let logs = Claim { annotations: annotations.collect(), ..claim("logs") };
        let mut world = busy_world().with(Object::Claim(logs)).with_ceilings(&ceilings);
        world.configuration.requests = amounts(&defaults.0);
        world.configuration.limits = amounts(&defaults.1);
        let world = world.adjusting("wants-more", move |_| Ok(change.clone()));
        if let Some((_, once)) = injected(&world, &pod) {
            let ceilings = amounts(&ceilings);
            let clients = list(&once["spec"]["initContainers"]).iter().filter(|it| is_ours(it));
            // The guard is the same in every pod, and has no more than it needs.
            for client in clients.filter(|it| it["name"] != sidecar::GUARD_NAME) {
                let amount = |kind: &str, name: &str| -> Option<Quantity> {
                    client["resources"][kind][name].as_str().map(|text| text.parse().expect("a quantity"))
                };
                for name in ["cpu", "memory"] {
                    let (request, limit) = (amount("requests", name), amount("limits", name));
                    let of_pod = pod["spec"]["resources"]["limits"].get(name).is_some();
                    // Without a limit there would be no end, unless the pod has one.
                    prop_assert!(limit.is_some() || of_pod || !ceilings.contains_key(name), "{client}");
                    for amount in [request, limit].into_iter().flatten() {
                        prop_assert!(ceilings.get(name).is_none_or(|ceiling| amount <= *ceiling), "{client}");
                        prop_assert!(limit.is_none_or(|limit| amount <= limit), "{client}");
                    }
                }
            }
            prop_assert_eq!(injected(&world, &once), Some(("[]".to_string(), once.clone())));
        }
    }

    #[test]
    fn no_two_volumes_have_one_name(pod in a_pod(), shape in a_shape()) {
        let (world, pod) = shaped(shape, pod);
        if let Some((_, once)) = injected(&world, &pod) {
            let names: Vec<&str> =
                list(&once["spec"]["volumes"]).iter().filter_map(|volume| volume["name"].as_str()).collect();
            prop_assert!(names.iter().all(|name| name.len() <= 63));
            prop_assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{:?}", names);
        }
    }

    #[test]
    fn the_guard_stands_before_every_client_and_sees_what_each_mounts(pod in a_pod()) {
        if let Some((_, once)) = injected(&busy_world(), &pod) {
            let all = list(&once["spec"]["initContainers"]);
            let ours: Vec<&Value> = all.iter().take_while(|it| is_ours(it)).collect();
            prop_assert_eq!(ours.len(), all.iter().filter(|it| is_ours(it)).count(), "ours come first");
            let (guard, clients) = ours.split_first().expect("there are some");
            prop_assert_eq!(&guard["name"], sidecar::GUARD_NAME);
            let mounted: Vec<&Value> = clients.iter().map(|client| &client["volumeMounts"][0]).collect();
            prop_assert_eq!(list(&guard["volumeMounts"]).iter().collect::<Vec<_>>(), mounted.clone());
            let paths: Vec<&Value> = mounted.into_iter().map(|mount| &mount["mountPath"]).collect();
            prop_assert_eq!(list(&guard["command"])[2..].iter().collect::<Vec<_>>(), paths);
        }
    }

    #[test]
    fn plain_containers_stand_before_the_applications_and_the_guard_before_the_clients(pod in a_pod()) {
        let (world, pod) = shaped(Shape::Container, pod);
        if let Some((_, once)) = injected(&world, &pod) {
            prop_assert_eq!(&once["spec"]["initContainers"][0]["name"], sidecar::INIT_NAME);
            let all = list(&once["spec"]["containers"]);
            let ours: Vec<&Value> = all.iter().take_while(|it| is_ours(it)).collect();
            prop_assert_eq!(ours.len(), all.iter().filter(|it| is_ours(it)).count(), "ours come first");
            let (guard, clients) = ours.split_first().expect("there are some");
            prop_assert_eq!(&guard["name"], sidecar::GUARD_NAME);
            prop_assert!(!clients.is_empty());
        }
    }

    #[test]
    fn whatever_is_taken_from_a_sidecar_comes_back(
        pod in a_pod(),
        shape in a_shape(),
        which in any::<Index>(),
        what in any::<Index>(),
    ) {
        let (world, pod) = shaped(shape, pod);
        if let Some((_, once)) = injected(&world, &pod) {
            let places = ["initContainers", "containers"].into_iter().flat_map(|kind| {
                let ours = list(&once["spec"][kind]).iter().enumerate().filter(|(_, it)| is_ours(it));
                ours.map(move |(place, _)| (kind, place))
            });
            let (kind, place) = *which.get(&places.collect::<Vec<_>>());
            // A container without its name is nobody's.
            let paths = paths(&once["spec"][kind][place]).into_iter().filter(|path| path != "/name");
            let path = what.get(&paths.collect::<Vec<_>>()).clone();
            let mut damaged = once.clone();
            remove(&mut damaged["spec"][kind][place], &path);
            prop_assert_eq!(injected(&world, &damaged).map(|(_, pod)| pod), Some(once), "without {}", path);
        }
    }

    #[test]
    fn any_json_is_answered(pod in any_json()) {
        check_answered(&busy_world(), &pod)?;
        check_answered(&shaped(Shape::Container, Value::Null).0, &pod)?;
    }

    #[test]
    fn any_json_anywhere_in_a_pod_is_answered(
        pod in a_pod(),
        shape in a_shape(),
        place in any::<Index>(),
        value in any_json(),
    ) {
        let (world, pod) = shaped(shape, pod);
        // Half of the pods are injected first, so that the second pass meets nonsense too.
        let mut pod = injected(&world, &pod).filter(|_| place.index(2) == 0).map_or(pod, |(_, once)| once);
        let path = place.get(&paths(&pod)).clone();
        *pod.pointer_mut(&path).expect("the path is its own") = value;
        check_answered(&world, &pod)?;
    }
}
