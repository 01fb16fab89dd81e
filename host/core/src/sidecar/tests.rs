//! The container's argv, environment and volumes.

use std::sync::Arc;

use super::*;
use crate::json::list;
use crate::object::{FileSystemFacts, Preparation, PreparationOption, StorageClass};
use crate::pod::Pod;
use crate::policy::{Change, OptionChange};
use crate::settings::{Configuration, Layers, Usage, resolve};
use crate::testing::{claim, class, configuration, pod};

fn configured(configuration: &Configuration, options: &[&str]) -> Settings {
    let class = StorageClass { mount_options: options.iter().map(|it| it.to_string()).collect(), ..class("gold") };
    let claim = claim("orders");
    let pod = pod().mounting("data", "orders").0;
    let usage = Usage { pod: Pod::read(&pod).expect("a pod"), volumes: &[("data", false)] };
    let layers =
        Layers { claim: &claim, storage_class: Some(&class), persistent_volume: None, file_system: None, usage };
    resolve(configuration, &layers, false, &mut Vec::new()).expect("the options are fine")
}

fn with_options(options: &[&str]) -> Settings {
    configured(&configuration(), options)
}

fn caching(in_memory: bool, size_limit: Option<&str>, options: &[&str]) -> Settings {
    let cache = Cache::EmptyDir { in_memory, size_limit: size_limit.map(String::from) };
    configured(&Configuration { cache, ..configuration() }, options)
}

fn first(settings: &Settings) -> Sidecar {
    built(Shape::NativeSidecar, settings, "orders", "data", 0)
}

/// The sidecar of a claim, for one of a pod's volumes.
fn built(shape: Shape, settings: &Settings, name: &str, volume: &str, index: usize) -> Sidecar {
    build(settings, Place { shape, secret: &secret_name(&claim(name)), claim: name, volume, index })
}

fn two(shape: Shape, settings: &Settings, one: &str, other: &str) -> [Sidecar; 2] {
    [built(shape, settings, "a", one, 0), built(shape, settings, "b", other, 1)]
}

fn guards_of(shape: Shape, pod: &Value, sidecars: &[Sidecar], finishes: bool) -> Guards {
    guards(shape, Pod::read(pod).expect("a pod"), "pith:1", sidecars, finishes)
}

fn argv(settings: &Settings) -> Vec<String> {
    let sidecar = first(settings);
    let command = sidecar.container["command"].as_array().expect("a list");
    command.iter().map(|item| item.as_str().expect("text").to_string()).collect()
}

/// Checks what stands between the fixed beginning and the fixed end of argv.
#[track_caller]
fn check_argv(settings: &Settings, flags: &[&str], fuse_options: &str) {
    let expected = [
        &["/usr/local/bin/juicefs", "mount", "--subdir=$(SUBDIR)"],
        flags,
        &["-o", fuse_options, "$(METAURL)", "/jfs/data"],
    ];
    assert_eq!(argv(settings), expected.concat());
}

const METRICS: &str = "--metrics=0.0.0.0:9567";

#[test]
fn the_container_is_complete() {
    let mut settings = caching(true, Some("1Gi"), &["writeback", "noatime"]);
    let change = Change { env: vec![("GOGC".into(), Some("50".into()))], ..Change::default() };
    settings = settings.changed(&change, "tune").expect("the change is fine");
    let sidecar = first(&settings);
    assert_eq!(sidecar.container_name, "jfs-mount");
    assert_eq!(sidecar.mount_volume, "pith-mount-data");
    assert_eq!(
        sidecar.volumes,
        [
            json!({"name": "pith-mount-data", "emptyDir": {}}),
            json!({"name": "pith-cache-data", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}),
        ]
    );
    insta::assert_json_snapshot!(sidecar.container, @r#"
    {
      "command": [
        "/usr/local/bin/juicefs",
        "mount",
        "--subdir=$(SUBDIR)",
        "--metrics=0.0.0.0:9567",
        "--cache-size=921",
        "--writeback",
        "-o",
        "allow_other,noatime",
        "$(METAURL)",
        "/jfs/data"
      ],
      "env": [
        {
          "name": "METAURL",
          "valueFrom": {
            "secretKeyRef": {
              "key": "METAURL",
              "name": "pith-uid-of-orders"
            }
          }
        },
        {
          "name": "META_PASSWORD",
          "valueFrom": {
            "secretKeyRef": {
              "key": "META_PASSWORD",
              "name": "pith-uid-of-orders"
            }
          }
        },
        {
          "name": "SUBDIR",
          "valueFrom": {
            "secretKeyRef": {
              "key": "SUBDIR",
              "name": "pith-uid-of-orders"
            }
          }
        },
        {
          "name": "GOGC",
          "value": "50"
        }
      ],
      "envFrom": [
        {
          "secretRef": {
            "name": "pith-uid-of-orders"
          }
        }
      ],
      "image": "juicefs:1",
      "name": "jfs-mount",
      "ports": [
        {
          "containerPort": 9567,
          "name": "metrics",
          "protocol": "TCP"
        }
      ],
      "resources": {
        "limits": {
          "cpu": "2",
          "memory": "5Gi"
        },
        "requests": {
          "cpu": "1",
          "memory": "1Gi"
        }
      },
      "restartPolicy": "Always",
      "securityContext": {
        "privileged": true,
        "runAsNonRoot": false,
        "runAsUser": 0
      },
      "startupProbe": {
        "exec": {
          "command": [
            "test",
            "-f",
            "/jfs/data/.config"
          ]
        },
        "failureThreshold": 120,
        "periodSeconds": 1,
        "timeoutSeconds": 5
      },
      "volumeMounts": [
        {
          "mountPath": "/jfs/data",
          "mountPropagation": "Bidirectional",
          "name": "pith-mount-data"
        },
        {
          "mountPath": "/var/jfsCache",
          "name": "pith-cache-data"
        }
      ]
    }
    "#);
}

#[test]
fn the_guard_unmounts_where_each_client_mounts() {
    let settings = with_options(&[]);
    let sidecars = two(Shape::NativeSidecar, &settings, "one", "two");
    insta::assert_json_snapshot!(guards_of(Shape::NativeSidecar, &pod().0, &sidecars, false).guard, @r#"
    {
      "command": [
        "/usr/local/bin/pith-guard",
        "hold",
        "/jfs/one",
        "/jfs/two"
      ],
      "image": "pith:1",
      "name": "pith-guard",
      "resources": {
        "limits": {
          "cpu": "100m",
          "memory": "16Mi"
        },
        "requests": {
          "cpu": "1m",
          "memory": "4Mi"
        }
      },
      "restartPolicy": "Always",
      "securityContext": {
        "privileged": true,
        "runAsNonRoot": false,
        "runAsUser": 0
      },
      "volumeMounts": [
        {
          "mountPath": "/jfs/one",
          "mountPropagation": "Bidirectional",
          "name": "pith-mount-one"
        },
        {
          "mountPath": "/jfs/two",
          "mountPropagation": "Bidirectional",
          "name": "pith-mount-two"
        }
      ]
    }
    "#);
}

#[test]
fn options_of_the_kernel_go_behind_o_and_the_rest_are_flags() {
    check_argv(&with_options(&[]), &[METRICS], "allow_other");
    check_argv(
        &with_options(&["buffer-size=300", "noatime", "writeback", "max_read=99"]),
        &[METRICS, "--buffer-size=300", "--writeback"],
        "allow_other,noatime,max_read=99",
    );
    check_argv(&with_options(&["allow_other"]), &[METRICS], "allow_other");
    check_argv(&with_options(&["ro"]), &[METRICS, "--read-only"], "allow_other");
}

#[test]
fn names_of_mount_become_flags_of_the_client() {
    check_argv(
        &with_options(&["attrcacheto=1", "entrycacheto=2", "direntrycacheto=3"]),
        &[METRICS, "--attr-cache=1", "--entry-cache=2", "--dir-entry-cache=3"],
        "allow_other",
    );
}

#[test]
fn what_a_user_wrote_is_not_expanded() {
    let mut settings = with_options(&["backup-meta=$(META_PASSWORD)", "fsname=$$x"]);
    let change = Change { env: vec![("A".into(), Some("$(METAURL)".into()))], ..Change::default() };
    settings = settings.changed(&change, "tune").expect("the change is fine");
    check_argv(&settings, &[METRICS, "--backup-meta=$$(META_PASSWORD)"], "allow_other,fsname=$$$$x");
    assert_eq!(first(&settings).container["env"][3], json!({"name": "A", "value": "$$(METAURL)"}));
}

#[test]
fn the_environment_names_the_claims_secret_and_is_sorted() {
    let mut settings = with_options(&[]);
    let env = [("B", "2"), ("A", "1"), ("EMPTY", "")].map(|(name, value)| (name.into(), Some(value.into())));
    settings = settings.changed(&Change { env: env.into(), ..Change::default() }, "tune").expect("the change is fine");
    let of_secret = |key: &str| json!({"secretKeyRef": {"name": "pith-uid-of-orders", "key": key}});
    assert_eq!(
        first(&settings).container["env"],
        json!([
            {"name": "METAURL", "valueFrom": of_secret("METAURL")},
            {"name": "META_PASSWORD", "valueFrom": of_secret("META_PASSWORD")},
            {"name": "SUBDIR", "valueFrom": of_secret("SUBDIR")},
            {"name": "A", "value": "1"},
            {"name": "B", "value": "2"},
            {"name": "EMPTY"},
        ])
    );
}

#[test]
fn the_cache_of_the_client_stays_below_its_volume() {
    for (settings, flags) in [
        (caching(false, Some("1Gi"), &[]), &[METRICS, "--cache-size=921"] as &[&str]),
        (caching(false, Some("100Mi"), &[]), &[METRICS, "--cache-size=90"]),
        (caching(false, None, &[]), &[METRICS]),
        (caching(false, Some("1Gi"), &["cache-size=7"]), &[METRICS, "--cache-size=7"]),
        (with_options(&[]), &[METRICS]),
    ] {
        check_argv(&settings, flags, "allow_other");
    }
}

#[track_caller]
fn check_cache_path(options: &[&str], path: &str) {
    let sidecar = first(&caching(false, None, options));
    assert_eq!(sidecar.volumes[1], json!({"name": "pith-cache-data", "emptyDir": {}}));
    assert_eq!(
        sidecar.container["volumeMounts"][1],
        json!({"name": "pith-cache-data", "mountPath": path}),
        "{options:?}"
    );
}

#[test]
fn the_cache_volume_lies_where_the_option_says() {
    check_cache_path(&[], "/var/jfsCache");
    check_cache_path(&["cache-dir=/fast"], "/fast");
    check_cache_path(&["cache-dir=/a:/b"], "/var/jfsCache");
    check_cache_path(&["cache-dir=memory"], "/var/jfsCache");
    check_cache_path(&["cache-dir=/$(HOME)"], "/var/jfsCache");
    check_cache_path(&["cache-dir"], "/var/jfsCache");
}

#[test]
fn without_a_cache_volume_there_is_one_mount_and_one_volume() {
    let sidecar = first(&with_options(&[]));
    assert_eq!(sidecar.volumes, [json!({"name": "pith-mount-data", "emptyDir": {}})]);
    assert_eq!(
        sidecar.container["volumeMounts"],
        json!([{"name": "pith-mount-data", "mountPath": "/jfs/data", "mountPropagation": "Bidirectional"}])
    );
}

#[test]
fn the_startup_probe_looks_for_the_clients_control_file() {
    for (options, file) in [(&[] as &[&str], "/jfs/data/.config"), (&["prefix-internal"], "/jfs/data/.jfs.config")] {
        let container = first(&with_options(options)).container;
        assert_eq!(container["startupProbe"]["exec"]["command"], json!(["test", "-f", file]));
    }
}

#[track_caller]
fn check_metrics(options: &[&str], index: usize, flag: &str, ports: Value) {
    let container = built(Shape::NativeSidecar, &with_options(options), "orders", "data", index).container;
    let command = container["command"].as_array().expect("a list");
    let flags: Vec<&Value> =
        command.iter().filter(|item| item.as_str().is_some_and(|item| item.starts_with("--metrics"))).collect();
    assert_eq!(flags, [flag], "{options:?}");
    assert_eq!(container["ports"], ports, "{options:?}");
}

#[test]
fn each_client_of_a_pod_has_its_own_port_for_metrics() {
    let port = |name: &str, port: u16| json!([{"name": name, "containerPort": port, "protocol": "TCP"}]);
    check_metrics(&[], 0, "--metrics=0.0.0.0:9567", port("metrics", 9567));
    check_metrics(&[], 1, "--metrics=0.0.0.0:9568", port("metrics-1", 9568));
    check_metrics(&["metrics=0.0.0.0:9999"], 0, "--metrics=0.0.0.0:9999", port("metrics", 9999));
    check_metrics(&["metrics=[::]:9999"], 0, "--metrics=[::]:9999", port("metrics", 9999));
    check_metrics(&["metrics=0.0.0.0:0"], 0, "--metrics=0.0.0.0:0", Value::Null);
    check_metrics(&["metrics=localhost"], 0, "--metrics=localhost", Value::Null);
    check_metrics(&["metrics=:99999"], 0, "--metrics=:99999", Value::Null);
}

#[track_caller]
fn check_resources(change: Change, expected: Value) {
    let mut settings = with_options(&[]);
    settings = settings.changed(&change, "tune").expect("the change is fine");
    assert_eq!(first(&settings).container["resources"], expected);
}

#[test]
fn resources_stand_in_canonical_form_and_only_where_there_are_some() {
    let nothing = || vec![("cpu".to_string(), None), ("memory".to_string(), None)];
    check_resources(
        Change { limits: vec![("memory".into(), Some("2048Mi".into()))], ..Change::default() },
        json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "2Gi"}}),
    );
    check_resources(
        Change { limits: nothing(), ..Change::default() },
        json!({"requests": {"cpu": "1", "memory": "1Gi"}}),
    );
    check_resources(Change { requests: nothing(), limits: nothing(), ..Change::default() }, Value::Null);
}

#[test]
fn the_second_sidecar_differs_in_every_name() {
    let settings = caching(false, None, &[]);
    let [one, two] = two(Shape::NativeSidecar, &settings, "one", "two");
    assert_eq!(two.container_name, "jfs-mount-1");
    assert_eq!(two.container["name"], "jfs-mount-1");
    assert!(one.volumes.iter().all(|volume| two.volumes.iter().all(|other| other["name"] != volume["name"])));
}

#[test]
fn no_volume_name_makes_two_volumes_of_one_name() {
    // The cache of `data` and the mount of `cache-data` were once the same.
    let settings = caching(false, None, &[]);
    for (one, other) in [("data", "cache-data"), ("data", "mount-data"), ("cache-a", "a")] {
        let mut names: Vec<String> = two(Shape::NativeSidecar, &settings, one, other)
            .iter()
            .flat_map(|sidecar| &sidecar.volumes)
            .map(|volume| volume["name"].to_string())
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 4, "{one} and {other}: {names:?}");
    }
}

#[test]
fn a_long_volume_name_is_cut_and_stays_unique() {
    let longest = |last: char| format!("{}{last}", "a".repeat(62));
    let [one, other] = ['b', 'c'].map(|last| volume_name("pith-mount-", &longest(last)));
    assert_eq!((one.len(), other.len()), (63, 63));
    assert_ne!(one, other);
    assert_eq!(volume_name("pith-mount-", &"a".repeat(52)), format!("pith-mount-{}", "a".repeat(52)));
    // A cut name must not end its kept part in two dashes, nor begin the digest behind one that is missing.
    let dashed = volume_name("pith-mount-", &format!("{}-{}", "a".repeat(42), "b".repeat(20)));
    assert_eq!(dashed.split('-').next_back().map(str::len), Some(8));
    assert!(!dashed.contains("--"), "{dashed}");
}

#[test]
fn removing_an_option_takes_its_flag_away() {
    let mut settings = with_options(&["writeback"]);
    let change = Change { mount_options: vec![("writeback".into(), OptionChange::Remove)], ..Change::default() };
    settings = settings.changed(&change, "tune").expect("the change is fine");
    check_argv(&settings, &[METRICS], "allow_other");
}

#[test]
fn as_plain_containers_clients_are_behind_a_cover_and_each_is_waited_for() {
    let sidecars = two(Shape::Container, &with_options(&[]), "one", "two");
    for (sidecar, path) in sidecars.iter().zip(["/jfs/one", "/jfs/two"]) {
        assert_eq!(sidecar.container.get("restartPolicy"), None);
        assert_eq!(sidecar.container["securityContext"]["privileged"], true);
        let hook = &sidecar.container["lifecycle"]["postStart"]["exec"]["command"];
        assert_eq!(*hook, json!(["/pith/pith-guard", "wait", path]));
    }
    let guards = guards_of(Shape::Container, &pod().0, &sidecars, false);
    let (guard, init) = (guards.guard.expect("a guard"), guards.init.expect("an init container"));
    assert_eq!(guard["command"], json!([GUARD, "hold", "--cover", "--patience", "28", "/jfs/one", "/jfs/two"]));
    let hook = &guard["lifecycle"]["postStart"]["exec"]["command"];
    assert_eq!(*hook, json!([GUARD, "wait", "--cover", "/jfs/one", "/jfs/two"]));
    assert_eq!(guard.get("restartPolicy"), None);
    assert_eq!(init["command"], json!([GUARD, "copy", "/pith"]));
    assert_eq!(init["securityContext"].get("privileged"), None);
    let secrets: Vec<&Value> = list(&init["env"]).iter().map(|it| &it["valueFrom"]["secretKeyRef"]["name"]).collect();
    assert_eq!(secrets, ["pith-uid-of-a", "pith-uid-of-b"]);
    // What is written once is there for every client, and for nobody to change.
    let program = |container: &Value| {
        let mut mounts = list(&container["volumeMounts"]).iter();
        mounts.find(|it| it["name"] == "pith-program").map(|it| it["readOnly"] == true)
    };
    assert_eq!(sidecars.iter().map(|it| program(&it.container)).collect::<Vec<_>>(), [Some(true), Some(true)]);
    assert_eq!((program(&init), program(&guard)), (Some(false), None));
    assert_eq!(guards.volumes, [json!({"name": "pith-program", "emptyDir": {}})]);
}

#[test]
fn a_guard_hears_that_the_application_has_ended_only_where_somebody_says_so() {
    let check = |shape: Shape, policy: &str, finishes: bool, grace: Option<u64>, words: &[&str]| {
        let sidecars = [built(shape, &with_options(&[]), "orders", "data", 0)];
        let pod = pod().specifying("restartPolicy", json!(policy));
        let pod = grace.into_iter().fold(pod, |pod, it| pod.specifying("terminationGracePeriodSeconds", json!(it)));
        let guards = guards_of(shape, &pod.0, &sidecars, finishes);
        let guard = guards.guard.expect("a guard");
        assert_eq!(guard["command"], json!([&[GUARD, "hold"], words, &["/jfs/data"]].concat()));
        let hears = words.contains(&"--until");
        assert_eq!(guards.volumes.iter().any(|it| it.get("downwardAPI").is_some()), hears);
        assert_eq!(list(&guard["volumeMounts"]).len(), 1 + usize::from(hears));
    };
    let until = ["--cover", "--patience", "28", "--until", "/etc/pith-finish/finish"];
    check(Shape::Container, "Never", true, None, &until);
    check(Shape::Container, "OnFailure", true, None, &until);
    check(Shape::Container, "Never", false, None, &["--cover", "--patience", "28"]);
    check(Shape::Container, "Always", true, Some(120), &["--cover", "--patience", "118"]);
    check(Shape::Container, "Always", true, Some(0), &["--cover", "--patience", "1"]);
    check(Shape::NativeSidecar, "Never", true, None, &[]);
}

#[test]
fn on_virtual_nodes_no_container_is_privileged_and_the_cloud_carries_the_mount() {
    let settings = with_options(&[]);
    let vci = built(Shape::Vci, &settings, "orders", "data", 0);
    let cci = built(Shape::Cci, &settings, "orders", "data", 0);
    let differs = |sidecar: &Sidecar| {
        let env: Vec<&Value> = list(&sidecar.container["env"]).iter().filter(|it| it.get("value").is_some()).collect();
        let container = &sidecar.container;
        json!({
            "name": sidecar.container_name, "restartPolicy": container["restartPolicy"], "env": env,
            "securityContext": container["securityContext"], "volumeMounts": container["volumeMounts"],
            "volumes": sidecar.volumes,
        })
    };
    insta::assert_yaml_snapshot!(json!({"vci": differs(&vci), "cci": differs(&cci)}));
    for (shape, sidecar) in [(Shape::Vci, vci), (Shape::Cci, cci)] {
        assert_eq!(guards_of(shape, &pod().0, &[sidecar], true), Guards::default());
    }
}

#[test]
fn on_vci_a_container_is_called_by_its_claim_in_a_name_that_kubernetes_takes() {
    let check = |claim: &str, expected: &str| {
        let name = built(Shape::Vci, &with_options(&[]), claim, "data", 3).container_name;
        assert!(name.starts_with(expected) && name.len() <= 63 && is_own_name(&name), "{name}");
        assert!(name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-'), "{name}");
    };
    check("orders", "jfs-mount-orders");
    check("orders.of.today", "jfs-mount-orders-of-today-");
    check(&"x".repeat(253), "jfs-mount-xxxx");
    // An ephemeral claim of a pod whose name is not complete yet.
    check("web-*-tmp", "jfs-mount-web---tmp-");
}

fn known(facts: FileSystemFacts, options: &[&str]) -> Settings {
    Settings { file_system: Some(Arc::new(facts)), ..with_options(options) }
}

fn option(name: &str) -> PreparationOption {
    PreparationOption::Secret(name.into())
}

fn command(container: &Value) -> Vec<&str> {
    list(&container["command"]).iter().map(|it| it.as_str().expect("text")).collect()
}

#[test]
fn a_file_system_that_only_pods_reach_is_made_before_the_client_mounts() {
    let format = Preparation::Format(vec![option("trash-days"), PreparationOption::Switch("hash-prefix".into())]);
    let facts = FileSystemFacts { name: "shop".into(), preparation: Some(format), rsa_key: true, ..Default::default() };
    let sidecar = first(&known(facts, &[]));
    let container = sidecar.preparation.expect("an init container");
    let expected = [
        "/usr/local/bin/juicefs",
        "format",
        "--no-update",
        "--trash-days=$(OPTION_TRASH_DAYS)",
        "--hash-prefix",
        "--encrypt-rsa-key=/root/.rsa/rsa-key.pem",
        "$(METAURL)",
        "shop",
    ];
    assert_eq!(command(&container), expected);
    assert_eq!(container["name"], "pith-prepare");
    assert_eq!(container["restartPolicy"], Value::Null, "it ends");
    // The key is for who makes the file system, and nothing else of the Secret is a file.
    let key = json!({"name": "pith-rsa-data", "secret": {
        "secretName": "pith-uid-of-orders", "items": [{"key": "ENCRYPT_RSA_KEY", "path": "rsa-key.pem"}],
    }});
    assert!(sidecar.volumes.contains(&key));
    let mounts = |container: &Value| list(&container["volumeMounts"]).iter().any(|it| it["name"] == "pith-rsa-data");
    assert!(mounts(&container) && !mounts(&sidecar.container));
    assert_eq!(command(&sidecar.container)[0], "/usr/local/bin/juicefs");
}

#[test]
fn the_enterprise_edition_is_authenticated_and_mounted_by_its_helper() {
    let authenticate = Preparation::Authenticate(vec![option("token"), option("secret-key2")]);
    let facts = FileSystemFacts {
        name: "shop".into(),
        enterprise: true,
        preparation: Some(authenticate),
        rsa_key: true,
        folders: [("acl".to_string(), "/root/.acl".to_string())].into(),
    };
    let options = ["ro", "attr-cache=3", "metrics=0.0.0.0:1", "no-update", "cache-dir=/a$b"];
    let sidecar = first(&known(facts, &options));
    let container = sidecar.preparation.expect("an init container");
    let expected = [
        "/usr/bin/juicefs",
        "auth",
        "shop",
        "--token=$(OPTION_TOKEN)",
        "--secret-key2=$(OPTION_SECRET_KEY2)",
        "--conf-dir=/root/.juicefs",
    ];
    assert_eq!(command(&container), expected);
    let client = &sidecar.container;
    let options =
        "foreground,no-update,subdir=$(SUBDIR),rsa-key=/root/.rsa/rsa-key.pem,ro,attrcacheto=3,cache-dir=/a$$b";
    assert_eq!(command(client), ["/sbin/mount.juicefs", "shop", "/jfs/data", "-o", options]);
    assert_eq!(
        client["startupProbe"]["exec"]["command"],
        json!(["grep", "-qF", " /jfs/data fuse", "/proc/self/mounts"])
    );
    assert_eq!(client["ports"], Value::Null);
    let names: Vec<&Value> = list(&client["env"]).iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["SUBDIR", "JFS_FOREGROUND", "JFS_INSIDE_CONTAINER"]);
    let paths: Vec<&Value> = list(&client["volumeMounts"]).iter().map(|it| &it["mountPath"]).collect();
    assert_eq!(paths, ["/jfs/data", "/root/.acl", "/etc/group", "/etc/passwd", "/root/.rsa", "/root/.juicefs"]);
}

#[test]
fn a_configuration_that_the_secret_brings_is_copied() {
    let facts = FileSystemFacts {
        name: "shop".into(),
        enterprise: true,
        preparation: Some(Preparation::Configured),
        ..Default::default()
    };
    let container = first(&known(facts, &[])).preparation.expect("an init container");
    assert_eq!(command(&container), ["cp", "/etc/juicefs/shop.conf", "/root/.juicefs/"]);
    assert_eq!(container["env"], Value::Null);
}

#[test]
fn folders_are_those_of_the_community_edition_too() {
    let folders = [("keys".to_string(), "/etc/keys".to_string())].into();
    let sidecar = first(&known(FileSystemFacts { folders, ..Default::default() }, &[]));
    let volume = json!({"name": "pith-config-0-data", "secret": {"secretName": "keys"}});
    assert!(sidecar.volumes.contains(&volume) && sidecar.preparation.is_none());
}

#[test]
fn a_policy_gives_the_enterprise_edition_no_value_with_a_comma() {
    let change = |value: &str| Change {
        mount_options: vec![("cache-dir".into(), OptionChange::Set(Some(value.into())))],
        ..Change::default()
    };
    let enterprise = known(FileSystemFacts { enterprise: true, ..Default::default() }, &[]);
    assert!(enterprise.changed(&change("/a,exec"), "tune").is_err());
    assert!(enterprise.changed(&change("/a"), "tune").is_ok());
    assert!(with_options(&[]).changed(&change("/a,b"), "tune").is_ok());
}
