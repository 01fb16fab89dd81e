//! Which layer wins, what each key means, and what a policy may not do.

use super::*;
use crate::testing::{amounts, claim, class, configuration, entries, pod, secret, volume};

/// The objects of one volume, each with a setting or none.
#[derive(Default)]
struct Case {
    configuration: Option<Configuration>,
    class: Option<StorageClass>,
    volume: Option<PersistentVolume>,
    annotations: Entries,
    read_only: bool,
}

impl Case {
    fn resolve(&self) -> (Result<Settings, Refusal>, Vec<String>) {
        let claim = Claim { annotations: self.annotations.clone(), ..claim("orders") };
        let pod = pod().mounting("data", "orders").0;
        let usage = Usage { pod: Pod::read(&pod).expect("a pod"), volumes: &[("data", false)] };
        let (storage_class, persistent_volume) = (self.class.as_ref(), self.volume.as_ref());
        let layers = Layers { claim: &claim, storage_class, persistent_volume, file_system: None, usage };
        let mut warnings = Vec::new();
        let configuration = self.configuration.clone().unwrap_or_else(configuration);
        let settings = resolve(&configuration, &layers, self.read_only, &mut warnings);
        (settings, warnings)
    }

    #[track_caller]
    fn settings(&self) -> Settings {
        self.resolve().0.expect("the layers are fine")
    }

    #[track_caller]
    fn refusal(&self) -> String {
        self.resolve().0.expect_err("a layer is not usable").to_string()
    }
}

fn of_class(parameters: &[(&str, &str)]) -> Case {
    Case { class: Some(StorageClass { parameters: entries(parameters).into(), ..class("gold") }), ..Case::default() }
}

fn with_options(options: &[&str]) -> Case {
    let mount_options = options.iter().map(|option| option.to_string()).collect();
    Case { class: Some(StorageClass { mount_options, ..class("gold") }), ..Case::default() }
}

fn of_claim(annotations: &[(&str, &str)]) -> Case {
    Case { annotations: entries(annotations), ..Case::default() }
}

/// The rows of an explanation that are about these fields.
fn rows(settings: &Settings, prefix: &str) -> Vec<String> {
    let rows = settings.explain().into_iter().filter(|(field, ..)| field.starts_with(prefix));
    rows.map(|(field, value, origin)| format!("{field} = {value}, {origin}")).collect()
}

fn options(settings: &Settings) -> Vec<String> {
    rows(settings, "mountOptions")
}

const REQUEST: &str = "juicefs/mount-cpu-request";

#[track_caller]
fn check_layers(layers: &[&str], expected: &str) {
    let has = |layer: &str| layers.contains(&layer);
    let named = |layer: &str, cpu: &str| {
        if has(layer) { entries(&[(REQUEST, cpu)]) } else { Entries::new() }
    };
    let mut configuration = configuration();
    configuration.file_systems = vec![FileSystem {
        name: "main".into(),
        secret: secret("of-main"),
        requests: if has("file system") { amounts(&[("cpu", "5")]) } else { BTreeMap::new() },
        ..FileSystem::default()
    }];
    let case = Case {
        configuration: Some(configuration),
        class: Some(StorageClass {
            parameters: named("class", "2").into(),
            secret: Some(secret("of-main")),
            ..class("gold")
        }),
        volume: Some(PersistentVolume { volume_attributes: named("volume", "3").into(), ..volume("pv-1") }),
        annotations: named("claim", "4"),
        read_only: false,
    };
    assert_eq!(rows(&case.settings(), "resources.requests.cpu"), [expected], "{layers:?}");
}

#[test]
fn a_later_layer_wins_and_is_named_as_the_origin() {
    for (layers, expected) in [
        (&[] as &[&str], "resources.requests.cpu = 1, default"),
        (&["class"], "resources.requests.cpu = 2, StorageClass gold"),
        (&["class", "volume"], "resources.requests.cpu = 3, PersistentVolume pv-1"),
        (&["class", "volume", "claim"], "resources.requests.cpu = 4, claim orders"),
        (&["class", "volume", "claim", "file system"], "resources.requests.cpu = 5, file system main"),
        (&["class", "claim"], "resources.requests.cpu = 4, claim orders"),
        (&["claim", "file system"], "resources.requests.cpu = 5, file system main"),
    ] {
        check_layers(layers, expected);
    }
}

#[test]
fn every_value_is_explained_in_a_fixed_order() {
    let mut settings = Case { read_only: true, ..with_options(&["buffer-size=300", "writeback"]) }.settings();
    let change = Change {
        env: vec![("GOGC".into(), Some("50".into()))],
        cache: Some(Cache::EmptyDir { in_memory: true, size_limit: Some("1024Mi".into()) }),
        ..Change::default()
    };
    settings = settings.changed(&change, "tune").expect("the change is fine");
    settings.apply_ceilings(&amounts(&[("memory", "2Gi")]));
    assert_eq!(
        rows(&settings, ""),
        [
            "image = juicefs:1, default",
            "resources.requests.cpu = 1, default",
            "resources.requests.memory = 1Gi, default",
            "resources.limits.cpu = 2, default",
            "resources.limits.memory = 2Gi, ceiling (was 5Gi, default)",
            "mountOptions.buffer-size = 300, StorageClass gold",
            "mountOptions.writeback = on, StorageClass gold",
            "mountOptions.read-only = on, pod",
            "env.GOGC = 50, policy tune",
            "cache = emptyDir on memory up to 1Gi, policy tune",
        ]
    );
}

#[track_caller]
fn check_resource(key: &str, value: &str, expected: &[&str]) {
    let settings = of_class(&[(key, value)]).settings();
    let resource = if key.contains("cpu") { "cpu" } else { "memory" };
    let kind = if key.contains("limit") { "limits" } else { "requests" };
    assert_eq!(rows(&settings, &format!("resources.{kind}.{resource}")), expected, "{key} = {value}");
}

#[test]
fn resource_keys_mean_what_they_mean_to_the_juicefs_driver() {
    for (key, value, expected) in [
        ("juicefs/mount-cpu-limit", "500m", &["resources.limits.cpu = 500m, StorageClass gold"] as &[&str]),
        ("juicefs/mount-cpu-limit", "0", &[]),
        ("juicefs/mount-cpu-limit", "-1", &[]),
        ("juicefs/mount-memory-limit", "0", &[]),
        ("juicefs/mount-memory-limit", "1024Mi", &["resources.limits.memory = 1Gi, StorageClass gold"]),
        ("juicefs/mount-cpu-request", "0", &["resources.requests.cpu = 0, StorageClass gold"]),
        ("juicefs/mount-cpu-request", "-1", &[]),
        ("juicefs/mount-memory-request", "1.5Gi", &["resources.requests.memory = 1536Mi, StorageClass gold"]),
        ("juicefs/mount-memory-request", "-1", &[]),
    ] {
        check_resource(key, value, expected);
    }
}

#[test]
fn a_value_that_is_not_usable_is_refused_with_its_place() {
    for (case, sentence) in [
        (
            of_class(&[("juicefs/mount-cpu-limit", "aaa")]),
            "StorageClass gold has juicefs/mount-cpu-limit = `aaa`, which is not usable: \"aaa\" is no quantity: it does \
             not begin with a number",
        ),
        (
            of_claim(&[("juicefs/mount-memory-request", "")]),
            "claim orders has juicefs/mount-memory-request = ``, which is not usable: an empty text is no quantity; write \
             one like `500m`, `2` or `1Gi`",
        ),
        (
            of_class(&[("juicefs/mount-cache-emptydir", "Tape:1Gi")]),
            "StorageClass gold has juicefs/mount-cache-emptydir = `Tape:1Gi`, which is not usable: `Tape` is no medium of \
             an emptyDir: use `Memory`, or nothing for the disk",
        ),
        (
            of_class(&[("juicefs/mount-cache-emptydir", ":-1")]),
            "StorageClass gold has juicefs/mount-cache-emptydir = `:-1`, which is not usable: it is negative",
        ),
        (
            with_options(&["--cache-size=1"]),
            "StorageClass gold has mountOptions = `--cache-size=1`, which is not usable: the name of an option has \
             letters, digits, `-`, `_` and `.`, and starts with no dash",
        ),
        (
            with_options(&["=1"]),
            "StorageClass gold has mountOptions = `=1`, which is not usable: the name of an option has letters, digits, \
             `-`, `_` and `.`, and starts with no dash",
        ),
        (
            with_options(&["fsname=a\nb"]),
            "StorageClass gold has mountOptions = `fsname=a\\nb`, which is not usable: its value has a control character",
        ),
        (
            with_options(&["a b"]),
            "StorageClass gold has mountOptions = `a b`, which is not usable: the name of an option has letters, digits, \
             `-`, `_` and `.`, and starts with no dash",
        ),
    ] {
        assert_eq!(case.refusal(), sentence);
    }
}

#[track_caller]
fn check_options(given: &[&str], expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|row| format!("mountOptions.{row}, StorageClass gold")).collect();
    assert_eq!(options(&with_options(given).settings()), expected, "{given:?}");
}

#[test]
fn mount_options_are_read_as_mount_reads_them() {
    check_options(&["writeback"], &["writeback = on"]);
    check_options(&[" cache-size=1 , writeback,, "], &["cache-size = 1", "writeback = on"]);
    check_options(&["a=b=c"], &["a = b=c"]);
    check_options(&["a="], &["a = "]);
    check_options(&[], &[]);
}

#[test]
fn an_option_that_is_set_twice_keeps_its_place_and_takes_the_later_value() {
    check_options(&["a=1", "b=2", "a=3"], &["a = 3", "b = 2"]);
}

#[test]
fn an_option_of_two_names_is_one_option() {
    check_options(&["ro"], &["read-only = on"]);
    check_options(
        &["attrcacheto=1", "entrycacheto=2", "direntrycacheto=3", "attr-cache=4"],
        &["attr-cache = 4", "entry-cache = 2", "dir-entry-cache = 3"],
    );
}

#[test]
fn options_that_a_sidecar_has_no_use_for_are_dropped() {
    check_options(&["subdir=/a", "_netdev", "rw", "defaults", "remount", "foreground", "background", "d"], &[]);
}

#[test]
fn the_parameter_mount_options_comes_after_the_field() {
    let mut case = with_options(&["a=1", "b=1"]);
    if let Some(class) = &mut case.class {
        class.parameters = entries(&[("mountOptions", "a=2, c=3")]).into();
    }
    assert_eq!(
        options(&case.settings()),
        [
            "mountOptions.a = 2, StorageClass gold",
            "mountOptions.b = 1, StorageClass gold",
            "mountOptions.c = 3, StorageClass gold"
        ]
    );
}

/// With these options in the field or the parameter of a class, and a claim that has some of what they ask for.
fn with_templates(options: &str) -> [Case; 2] {
    let annotations = entries(&[("team", "web"), ("more", "1,debug"), ("secret", "$(META_PASSWORD)")]);
    [with_options(&[options]), of_class(&[("mountOptions", options)])]
        .map(|case| Case { annotations: annotations.clone(), ..case })
}

#[test]
fn templates_in_mount_options_are_filled_in_from_the_claim() {
    for (given, expected) in [
        ("cache-dir=/cache/${.pvc.namespace}/${.PVC.name}", "cache-dir = /cache/shop/orders"),
        ("writeback, cache-dir=/c/${.pvc.annotations.team}", "cache-dir = /c/web"),
        // It is text to the kubelet: what it looks like is escaped where argv is built.
        ("fsname=${.pvc.annotations.secret}", "fsname = $(META_PASSWORD)"),
        // Those of mountPodPatch have no meaning here.
        ("cache-dir=/c/${VOLUME_ID}", "cache-dir = /c/${VOLUME_ID}"),
    ] {
        for case in with_templates(given) {
            let row = format!("mountOptions.{expected}, StorageClass gold");
            let settings = case.settings();
            assert!(options(&settings).contains(&row), "{given}: {:?}", options(&settings));
            assert!(settings.notes.is_empty(), "{:?}", settings.notes);
        }
    }
}

#[test]
fn a_value_in_a_mount_option_is_empty_where_it_is_missing_and_never_a_second_option() {
    let option = "cache-dir=/c/${.pvc.labels.team}";
    let why = "the claim `shop/orders` has no label `team`, or an empty one";
    for mut case in with_templates(option) {
        // A volume has the options of its class, and it is said once.
        let mount_options = vec![option.to_string()];
        case.volume = Some(PersistentVolume { mount_options, ..volume("pv-1") });
        let (settings, warnings) = case.resolve();
        let settings = settings.expect("it is empty");
        assert_eq!(options(&settings), ["mountOptions.cache-dir = /c/, PersistentVolume pv-1"]);
        let note = format!("the mount option `{option}` has an empty text in it: {why}");
        assert_eq!((settings.notes, warnings), (vec![note.clone()], vec![note]));
        case.configuration = Some(Configuration { strict_templates: true, ..configuration() });
        let refusal = case.refusal();
        assert_eq!(refusal, format!("StorageClass gold has mountOptions = `{option}`, which is not usable: {why}"));
    }
    for (given, why) in [
        ("a=${.pvc.annotations.more}", "a value in it is `1,debug`, whose comma would start another option"),
        ("${.pvc.annotations.team}=1", "an option has no template in its name: a claim would choose among all options"),
        ("${.pvc.annotations.team}", "an option has no template in its name: a claim would choose among all options"),
        ("a=${.pvc.uid}", "`${.pvc.uid}` is not known here; what is: "),
    ] {
        for case in with_templates(given) {
            let begin = format!("StorageClass gold has mountOptions = `{given}`, which is not usable: {why}");
            assert!(case.refusal().starts_with(&begin), "{}", case.refusal());
        }
    }
    // Where a volume lies is nothing that a claim says.
    for case in with_templates("subdir=${.pvc.labels.team},a=1") {
        assert_eq!(options(&case.settings()), ["mountOptions.a = 1, StorageClass gold"]);
    }
}

#[test]
fn a_read_only_use_wins_over_every_layer() {
    let case = Case { read_only: true, ..with_options(&["read-only=false"]) };
    assert_eq!(options(&case.settings()), ["mountOptions.read-only = on, pod"]);
}

#[test]
fn image_and_cache_come_from_their_keys() {
    let parameters = [("juicefs/mount-cache-emptydir", "Memory:1024Mi"), ("juicefs/mount-image", "juicefs:2")];
    let settings = of_class(&parameters).settings();
    assert_eq!(rows(&settings, "image"), ["image = juicefs:2, StorageClass gold"]);
    assert_eq!(rows(&settings, "cache"), ["cache = emptyDir on memory up to 1Gi, StorageClass gold"]);
    for (value, row) in [
        ("Memory", "cache = emptyDir on memory, StorageClass gold"),
        (":2Gi", "cache = emptyDir on disk up to 2Gi, StorageClass gold"),
        ("", "cache = emptyDir on disk, StorageClass gold"),
    ] {
        assert_eq!(rows(&of_class(&[("juicefs/mount-cache-emptydir", value)]).settings(), "cache"), [row]);
    }
}

#[test]
fn a_size_is_kept_in_the_form_of_the_api_server() {
    let mut configuration = configuration();
    configuration.cache = Cache::EmptyDir { in_memory: false, size_limit: Some("2048Mi".into()) };
    let case = Case { configuration: Some(configuration), ..Case::default() };
    assert_eq!(rows(&case.settings(), "cache"), ["cache = emptyDir on disk up to 2Gi, default"]);
}

#[test]
fn a_claim_overrides_what_the_administrator_lists_and_nothing_else() {
    let case = of_claim(&[("juicefs/mount-cpu-limit", "3"), ("juicefs/mount-image", "evil"), ("other/key", "x")]);
    let (settings, warnings) = case.resolve();
    let settings = settings.expect("the claim is fine");
    assert_eq!(rows(&settings, "resources.limits.cpu"), ["resources.limits.cpu = 3, claim orders"]);
    assert_eq!(rows(&settings, "image"), ["image = juicefs:1, default"]);
    assert_eq!(
        warnings,
        ["claim orders has the annotation juicefs/mount-image, which claims may not set here: it has no effect"]
    );

    let mut configuration = configuration();
    configuration.claim_overrides = ["juicefs/mount-image", "juicefs/mount-labels"].map(String::from).into();
    let annotations =
        entries(&[("juicefs/mount-image", "mine"), ("juicefs/mount-labels", "/"), ("juicefs/mount-cpu-limit", "3")]);
    let (settings, warnings) = Case { configuration: Some(configuration), annotations, ..Case::default() }.resolve();
    let settings = settings.expect("the claim is fine");
    assert_eq!(rows(&settings, "image"), ["image = mine, claim orders"]);
    assert_eq!(
        warnings,
        [
            "claim orders has the annotation juicefs/mount-cpu-limit, which claims may not set here: it has no effect",
            "claim orders has the annotation juicefs/mount-labels, which Pith does not support: it has no effect",
        ]
    );
}

#[test]
fn keys_without_effect_are_reported_and_foreign_keys_are_not() {
    let mut case = of_class(&[("juicefs/mount-labels", "/data"), ("pathPattern", "x"), ("other", "y")]);
    case.volume = Some(PersistentVolume {
        volume_attributes: entries(&[
            ("juicefs/clean-cache", "true"),
            // Nobody has set it: each volume that the driver has made has it.
            ("juicefs/controller-quota-set", "true"),
            ("subPath", "z"),
        ])
        .into(),
        ..volume("pv-1")
    });
    assert_eq!(
        case.resolve().1,
        [
            "StorageClass gold sets juicefs/mount-labels, which Pith does not support: it has no effect",
            "PersistentVolume pv-1 sets juicefs/clean-cache, which Pith does not support: it has no effect",
        ]
    );
}

#[track_caller]
fn check_file_system(of_class: Option<&str>, of_volume: Option<&str>, expected: &str) {
    let file_system = |name: &str| FileSystem {
        name: name.into(),
        secret: secret(name),
        image: Some(format!("image-of-{name}")),
        ..FileSystem::default()
    };
    let mut configuration = configuration();
    configuration.file_systems = vec![file_system("a"), file_system("b")];
    let case = Case {
        configuration: Some(configuration),
        class: Some(StorageClass { secret: of_class.map(secret), ..class("gold") }),
        volume: Some(PersistentVolume { secret: of_volume.map(secret), ..volume("pv-1") }),
        ..Case::default()
    };
    assert_eq!(rows(&case.settings(), "image"), [expected], "class {of_class:?}, volume {of_volume:?}");
}

#[test]
fn a_file_system_is_found_by_the_secret_of_the_volume_else_of_the_class() {
    check_file_system(Some("a"), None, "image = image-of-a, file system a");
    check_file_system(None, Some("b"), "image = image-of-b, file system b");
    check_file_system(Some("a"), Some("b"), "image = image-of-b, file system b");
    check_file_system(Some("a"), Some("unknown"), "image = juicefs:1, default");
    check_file_system(None, None, "image = juicefs:1, default");
}

#[test]
fn a_secret_of_the_same_name_in_another_namespace_is_another_file_system() {
    let mut configuration = configuration();
    configuration.file_systems = vec![FileSystem {
        secret: SecretRef { namespace: "elsewhere".into(), name: "a".into() },
        image: Some("juicefs:2".into()),
        ..FileSystem::default()
    }];
    let case = Case {
        configuration: Some(configuration),
        class: Some(StorageClass { secret: Some(secret("a")), ..class("gold") }),
        ..Case::default()
    };
    assert_eq!(rows(&case.settings(), "image"), ["image = juicefs:1, default"]);
}

/// A change that would be fine but for one part.
fn change(part: Change) -> Change {
    Change { env: [vec![("FINE".into(), Some("yes".into()))], part.env].concat(), ..part }
}

fn option(name: &str, option: OptionChange) -> Change {
    Change { mount_options: vec![(name.into(), option)], ..Change::default() }
}

fn set(value: &str) -> OptionChange {
    OptionChange::Set(Some(value.into()))
}

fn env(name: &str, value: Option<&str>) -> Change {
    Change { env: vec![(name.into(), value.map(String::from))], ..Change::default() }
}

fn amount(value: &str) -> Vec<(String, Option<String>)> {
    vec![("cpu".into(), Some(value.into()))]
}

#[track_caller]
fn check_unusable(part: Change, sentence: &str) {
    let settings = with_options(&["read-only"]).settings();
    let failure = settings.changed(&change(part), "tune").expect_err("the change is not usable");
    assert_eq!(failure.to_string(), format!("its answer is not usable: {sentence}"));
}

#[test]
fn a_change_with_one_unusable_part_is_not_applied_at_all() {
    let not_a_name = "a name has letters, digits and underscores, and starts with no digit";
    let option_name = "the name of an option has letters, digits, `-`, `_` and `.`, and starts with no dash";
    for (part, sentence) in [
        (
            Change { requests: amount("much"), ..Change::default() },
            "requests.cpu is `much`: \"much\" is no quantity: it does not begin with a number",
        ),
        (Change { limits: amount("-1"), ..Change::default() }, "limits.cpu is `-1`: it is negative"),
        (
            Change { limits: vec![("c p u".into(), Some("1".into()))], ..Change::default() },
            "limits name the resource `c p u`, which is no resource name",
        ),
        (
            Change { requests: vec![("".into(), Some("1".into()))], ..Change::default() },
            "requests name the resource ``, which is no resource name",
        ),
        (option("subdir", set("/other")), "mount option `subdir`: it is Pith's own"),
        (option("o", set("dev")), "mount option `o`: it is Pith's own"),
        (option("background", OptionChange::Set(None)), "mount option `background`: it is Pith's own"),
        (option("d", OptionChange::Remove), "mount option `d`: it is Pith's own"),
        (option("rw", OptionChange::Set(None)), "mount option `rw`: it means nothing to the client"),
        (option("--x", OptionChange::Set(None)), &format!("mount option `--x`: {option_name}")),
        (option("x=y", OptionChange::Set(None)), &format!("mount option `x=y`: {option_name}")),
        (option("a", set("b\0c")), "mount option `a`: its value has a control character"),
        (
            option("fsname", set("x,allow_root")),
            "mount option `fsname`: its value has a comma, which would start another option",
        ),
        (option("read-only", OptionChange::Remove), "mount option `read-only`: it cannot be removed"),
        (option("ro", OptionChange::Remove), "mount option `ro`: it cannot be removed"),
        (option("read-only", set("false")), "mount option `read-only`: it is a switch and takes no value"),
        (option("ro", set("false")), "mount option `ro`: it is a switch and takes no value"),
        (env("METAURL", Some("redis://evil")), "environment variable `METAURL`: it is Pith's own"),
        (env("META_PASSWORD", None), "environment variable `META_PASSWORD`: it is Pith's own"),
        (env("SUBDIR", Some("/")), "environment variable `SUBDIR`: it is Pith's own"),
        (env("1ST", Some("x")), &format!("environment variable `1ST`: {not_a_name}")),
        (env("", Some("x")), &format!("environment variable ``: {not_a_name}")),
        (env("A-B", Some("x")), &format!("environment variable `A-B`: {not_a_name}")),
        (env("A", Some("x\0y")), "environment variable `A`: its value has a NUL"),
        (
            Change {
                cache: Some(Cache::EmptyDir { in_memory: false, size_limit: Some("big".into()) }),
                ..Change::default()
            },
            "cache size limit: `big` is not usable: \"big\" is no quantity: it does not begin with a number",
        ),
        (
            Change {
                cache: Some(Cache::EmptyDir { in_memory: false, size_limit: Some("-1".into()) }),
                ..Change::default()
            },
            "cache size limit: `-1` is not usable: it is negative",
        ),
    ] {
        check_unusable(part, sentence);
    }
}

#[test]
fn a_change_sets_removes_and_leaves() {
    let mut settings = with_options(&["writeback", "attr-cache=1", "open-cache=2"]).settings();
    let change = Change {
        requests: vec![("cpu".into(), None), ("memory".into(), Some("1024Mi".into()))],
        limits: vec![("memory".into(), None), ("nvidia.com/gpu".into(), Some("1".into()))],
        mount_options: vec![
            ("writeback".into(), OptionChange::Remove),
            ("attrcacheto".into(), OptionChange::Remove),
            ("ro".into(), OptionChange::Set(None)),
        ],
        env: vec![("GONE".into(), None), ("EMPTY".into(), Some("".into()))],
        cache: Some(Cache::EmptyDir { in_memory: false, size_limit: None }),
    };
    settings = settings.changed(&change, "tune").expect("the change is fine");
    assert_eq!(
        rows(&settings, ""),
        [
            "image = juicefs:1, default",
            "resources.requests.memory = 1Gi, policy tune",
            "resources.limits.cpu = 2, default",
            "resources.limits.nvidia.com/gpu = 1, policy tune",
            "mountOptions.open-cache = 2, StorageClass gold",
            "mountOptions.read-only = on, policy tune",
            "env.EMPTY = , policy tune",
            "cache = emptyDir on disk, policy tune",
        ]
    );
}

#[test]
fn a_policy_is_told_the_result_so_far_in_canonical_form() {
    let mut settings = of_class(&[("juicefs/mount-memory-limit", "2048Mi"), ("mountOptions", "a=1,b")]).settings();
    settings = settings.changed(&env("A", Some("x")), "tune").expect("the change is fine");
    assert_eq!(
        settings.facts(),
        SidecarFacts {
            requests: entries(&[("cpu", "1"), ("memory", "1Gi")]),
            limits: entries(&[("cpu", "2"), ("memory", "2Gi")]),
            mount_options: vec![("a".into(), Some("1".into())), ("b".into(), None)],
            env: entries(&[("A", "x")]),
            cache: Cache::Container,
        }
    );
}

#[track_caller]
fn check_ceiling(parameters: &[(&str, &str)], ceilings: &[(&str, &str)], expected: &[&str]) {
    let mut settings = of_class(parameters).settings();
    settings.apply_ceilings(&amounts(ceilings));
    let rows: Vec<String> = rows(&settings, "resources.").into_iter().filter(|row| !row.contains("memory")).collect();
    assert_eq!(rows, expected, "{parameters:?} under {ceilings:?}");
}

#[test]
fn nothing_passes_a_ceiling() {
    const LIMIT: &str = "juicefs/mount-cpu-limit";
    check_ceiling(&[], &[("cpu", "4")], &["resources.requests.cpu = 1, default", "resources.limits.cpu = 2, default"]);
    check_ceiling(
        &[(LIMIT, "8"), (REQUEST, "6")],
        &[("cpu", "4")],
        &[
            "resources.requests.cpu = 4, ceiling (was 6, StorageClass gold)",
            "resources.limits.cpu = 4, ceiling (was 8, StorageClass gold)",
        ],
    );
    check_ceiling(
        &[(LIMIT, "0")],
        &[("cpu", "4")],
        &["resources.requests.cpu = 1, default", "resources.limits.cpu = 4, ceiling (was unlimited)"],
    );
    // Equal amounts are no cut, in whatever form.
    check_ceiling(
        &[(LIMIT, "4000m")],
        &[("cpu", "4")],
        &["resources.requests.cpu = 1, default", "resources.limits.cpu = 4, StorageClass gold"],
    );
}

#[test]
fn a_limit_of_zero_is_unlimited_to_the_kubelet_and_so_to_a_ceiling() {
    let mut settings = Case::default().settings();
    settings =
        settings.changed(&Change { limits: amount("0"), ..Change::default() }, "tune").expect("zero is an amount");
    settings.apply_ceilings(&amounts(&[("cpu", "4")]));
    assert_eq!(rows(&settings, "resources.limits.cpu"), ["resources.limits.cpu = 4, ceiling (was 0, policy tune)"]);
}

#[test]
fn a_ceiling_gives_out_no_devices() {
    let ceilings = [("nvidia.com/gpu", "1"), ("hugepages-2Mi", "1Gi")];
    let without = ["resources.requests.cpu = 1, default", "resources.limits.cpu = 2, default"];
    check_ceiling(&[], &ceilings, &without);

    let mut settings = Case::default().settings();
    let change = Change { limits: vec![("nvidia.com/gpu".into(), Some("8".into()))], ..Change::default() };
    settings = settings.changed(&change, "tune").expect("the change is fine");
    settings.apply_ceilings(&amounts(&ceilings));
    assert_eq!(
        rows(&settings, "resources.limits.nvidia"),
        ["resources.limits.nvidia.com/gpu = 1, ceiling (was 8, policy tune)"]
    );
}

#[test]
fn a_request_above_its_limit_is_cut_to_it() {
    check_ceiling(
        &[(REQUEST, "3")],
        &[],
        &["resources.requests.cpu = 2, its limit (was 3, StorageClass gold)", "resources.limits.cpu = 2, default"],
    );
    check_ceiling(
        &[(REQUEST, "8"), ("juicefs/mount-cpu-limit", "2")],
        &[("cpu", "4")],
        &[
            "resources.requests.cpu = 2, its limit (was 4, ceiling (was 8, StorageClass gold))",
            "resources.limits.cpu = 2, StorageClass gold",
        ],
    );
}
