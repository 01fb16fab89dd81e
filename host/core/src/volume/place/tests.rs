//! Who names a new volume's directory, and what no name can do.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::object::Entries;
use crate::testing::{World, claim, entries, world};
use crate::volume::{Capability, Source, VolumeAccessMode};

/// A request for the volume `pvc-1`.
fn asked() -> Asked {
    Asked {
        name: "pvc-1".into(),
        required_bytes: Some(5),
        limit_bytes: Some(7),
        capabilities: vec![],
        parameters: Entries::new(),
        mutable_parameters: Entries::new(),
        source: None,
    }
}

impl Asked {
    fn with(mut self, key: &str, value: &str) -> Asked {
        self.parameters.insert(key.into(), value.into());
        self
    }

    fn mounted(mut self, flags: &[&str]) -> Asked {
        let mount_flags = flags.iter().map(|flag| (*flag).to_string()).collect();
        self.capabilities.push(Capability { access_mode: VolumeAccessMode::MultiNodeMultiWriter, mount_flags });
        self
    }
}

fn context(object: &Value) -> NamingContext<'_> {
    let claim = Claim {
        labels: entries(&[("team", "web"), ("a.b-c/d", "dotted"), ("none", ""), ("odd", "..")]),
        annotations: entries(&[
            ("x/y", "note"),
            ("path", "a/b"),
            ("'q'", "quoted"),
            ("again", "${.pvc.name}"),
            ("volume.kubernetes.io/selected-node", "node-1"),
        ]),
        ..claim("orders")
    };
    NamingContext { claim: Arc::new(claim), namespace: Arc::new(Namespace::default()), object, origin: None }
}

fn placed(world: &World, asked: &Asked) -> Result<Place, VolumeRefusal> {
    place(asked, "pvc-1", Some(&context(&Value::Null)), Templates::Lenient, &world.bindings, world)
}

/// Where a volume lies: the directory, `shared` or not, and the rest of the place on a line of its own each.
#[track_caller]
fn check(world: &World, asked: Asked, directory: &str, named_by: NamedBy, warnings: &[&str]) {
    let place = placed(world, &asked).expect("a place");
    let shared = if place.shared { " shared" } else { "" };
    assert_eq!(format!("{}{shared}", place.directory), directory, "{asked:?}");
    assert_eq!((place.named_by, place.warnings), (named_by, warnings.iter().map(ToString::to_string).collect()));
}

#[track_caller]
fn check_refused(world: &World, asked: Asked, code: &str, sentence: &str) {
    let refusal = placed(world, &asked).expect_err("a refusal");
    assert_eq!((refusal.code(), refusal.to_string().as_str()), (code, sentence), "{asked:?}");
}

fn directory(components: &[&str], shared: bool) -> Result<Naming, Failure> {
    Ok(Naming::Directory { components: components.iter().map(ToString::to_string).collect(), shared })
}

/// A world with a policy that answers so.
fn named(world: World, name: &str, answer: Result<Naming, Failure>) -> World {
    world.naming(name, move |_, _| answer.clone())
}

fn by(binding: &str) -> NamedBy {
    NamedBy::Policy(binding.into())
}

#[test]
fn the_first_policy_that_names_a_directory_wins_then_the_pattern_then_the_id() {
    let pattern = || asked().with("pathPattern", "${.pvc.name}");
    let policies = |first| named(named(world(), "a", first), "b", directory(&["b"], false));
    check(&policies(directory(&["x", "y"], false)), pattern(), "/x/y", by("a"), &[]);
    check(&policies(directory(&["x"], true)), pattern(), "/x shared", by("a"), &[]);
    check(&policies(Ok(Naming::Pass)), pattern(), "/b", by("b"), &[]);
    let pass = || named(world(), "a", Ok(Naming::Pass));
    check(&pass(), pattern(), "/orders shared", NamedBy::PathPattern, &[]);
    check(&pass(), asked(), "/pvc-1", NamedBy::VolumeName, &[]);
    check(&world(), asked().with("pathPattern", ""), "/pvc-1", NamedBy::VolumeName, &[]);
}

#[test]
fn a_policy_is_told_all_of_the_request() {
    let object = json!({"kind": "PersistentVolumeClaim"});
    let origin = Origin { source: Source::Snapshot("s-1".into()), directory: vec!["data".into()] };
    let context = NamingContext { origin: Some(origin.clone()), ..context(&object) };
    let asked = asked().with("pool", "fast");
    let expected = NamingRequest {
        volume_name: "pvc-1".into(),
        required_bytes: Some(5),
        limit_bytes: Some(7),
        claim: context.claim.clone(),
        namespace: context.namespace.clone(),
        parameters: entries(&[("pool", "fast")]),
        origin: Some(origin),
    };
    let told = object.clone();
    let world = world().naming("a", move |request, object| {
        assert_eq!((request, object), (&expected, &told));
        Ok(Naming::Pass)
    });
    assert!(place(&asked, "pvc-1", Some(&context), Templates::Lenient, &world.bindings, &world).is_ok());
}

#[test]
fn a_denial_is_final_and_a_failure_is_not() {
    let deny = || Ok(Naming::Deny("no team label".into()));
    check_refused(
        &named(world(), "a", deny()),
        asked(),
        "denied-by-policy",
        "policy `a` refuses the volume: no team label",
    );
    let failed = "policy `a` failed, and its onFailure is `fail`: it ran out of stack";
    check_refused(&named(world(), "a", Err(Failure::Stack)), asked(), "policy-failed", failed);
}

#[test]
fn a_failure_is_passed_over_with_a_warning_where_the_binding_says_so() {
    let world = named(named(world(), "a", Err(Failure::Stack)).defaulting(), "b", directory(&["b"], false));
    check(
        &world,
        asked(),
        "/b",
        by("b"),
        &["policy `a` failed (reason: stack), and Pith decided without it: it ran out of stack"],
    );
}

#[test]
fn a_policy_in_monitor_mode_names_denies_and_fails_nothing() {
    for answer in [directory(&["x"], false), Ok(Naming::Deny("no".into())), Err(Failure::Stack)] {
        check(&named(world(), "a", answer).monitored(), asked(), "/pvc-1", NamedBy::VolumeName, &[]);
    }
}

#[test]
fn what_a_policy_in_monitor_mode_would_have_named_is_said() {
    let check = |world: World, expected: &[(&str, &[&str])]| {
        let place = placed(&world, &asked()).expect("it has a place");
        let said = |it: &Monitored| match &it.outcome {
            Ok(differences) => differences.iter().map(ToString::to_string).collect::<Vec<_>>(),
            Err(failure) => vec![failure.to_string()],
        };
        let monitored: Vec<_> = place.monitored.iter().map(|it| (it.word(), said(it))).collect();
        let expected: Vec<_> =
            expected.iter().map(|(word, said)| (*word, said.iter().map(ToString::to_string).collect())).collect();
        assert_eq!(monitored, expected);
    };
    check(named(world(), "a", Ok(Naming::Pass)).monitored(), &[("same", &[])]);
    check(named(world(), "a", directory(&["pvc-1"], false)).monitored(), &[("same", &[])]);
    let (elsewhere, denied) = (directory(&["x"], true), Ok(Naming::Deny("no".into())));
    let differ = ["directory: `/x` instead of `/pvc-1`", "shared: `true` instead of `false`"];
    check(named(world(), "a", elsewhere).monitored(), &[("different", &differ)]);
    // Whoever has named it before.
    let both = named(named(world(), "a", directory(&["x"], false)), "b", denied).monitored();
    let differ = [
        "directory: nothing instead of `/x`",
        "shared: nothing instead of `false`",
        "verdict: `deny: no` instead of nothing",
    ];
    check(both, &[("different", &differ)]);
    check(named(world(), "a", Err(Failure::Stack)).monitored(), &[("failed", &["it ran out of stack"])]);
    let quota = |answer| world().bounding("a", move |_| Ok(answer)).monitored();
    check(quota(None), &[("same", &[])]);
    check(quota(Some(Quota::Off)), &[("different", &["quota: `off` instead of nothing"])]);
}

#[test]
fn a_directory_that_cannot_be_had_is_a_failure_of_its_policy() {
    for (components, problem) in [
        (&["a", ".."][..], r#"the component ".." leads elsewhere in the tree"#),
        (&[][..], "it is the root of the file system, which is never a volume"),
        (&[".pith"][..], r#"the component ".pith" begins with a dot: such names are kept for JuiceFS and Pith"#),
        (&["/a"][..], r#"the component "/a" has a `/`: each component is one level"#),
        (&["%2e%2e"][..], r#"the component "%2e%2e" is a path for whoever decodes it, or mounts it elsewhere"#),
    ] {
        let world = named(world(), "a", directory(components, false));
        let why = format!("its answer is not usable: the directory that it names cannot be had: {problem}");
        let failed = format!("policy `a` failed, and its onFailure is `fail`: {why}");
        // The prefix would make the root of it a directory: it stays a failure.
        check_refused(&world, asked().mounted(&["subdir=/t"]), "policy-failed", &failed);
        let warning = format!("policy `a` failed (reason: answer), and Pith decided without it: {why}");
        check(&world.defaulting(), asked(), "/pvc-1", NamedBy::VolumeName, &[&warning]);
    }
}

#[test]
fn without_a_claim_no_policy_is_asked_and_a_warning_says_so() {
    let place = |world: &World, asked: &Asked| place(asked, "pvc-1", None, Templates::Lenient, &world.bindings, world);
    let policy = named(world(), "a", Err(Failure::Stack));
    let found = place(&policy, &asked()).expect("a place");
    assert_eq!((found.directory.to_string().as_str(), found.named_by), ("/pvc-1", NamedBy::VolumeName));
    let warning = "no naming policy was asked, because the caller names no claim: run external-provisioner with \
                   --extra-create-metadata";
    assert_eq!(found.warnings, [warning]);
    assert!(place(&world(), &asked()).expect("a place").warnings.is_empty());

    let fixed = place(&world(), &asked().with("pathPattern", "/all/")).expect("a place");
    assert_eq!((fixed.directory.to_string().as_str(), fixed.shared), ("/all", true));
    let refusal = place(&world(), &asked().with("pathPattern", "${.pvc.name}")).expect_err("a refusal");
    let sentence = "pathPattern `${.pvc.name}` cannot be filled in: `${.pvc.name}` needs the claim, and the caller \
                    names none: run external-provisioner with --extra-create-metadata";
    assert_eq!(refusal.to_string(), sentence);
}

#[test]
fn a_pattern_is_filled_in_from_the_claim() {
    for (pattern, expected) in [
        ("${.pvc.namespace}-${.pvc.name}", "/shop-orders"),
        ("${.PVC.namespace}/${.PVC.name}", "/shop/orders"),
        ("/teams/${.pvc.labels.team}/data/", "/teams/web/data"),
        ("${.pvc.labels.a.b-c/d}", "/dotted"),
        ("${.pvc.annotations.x/y}x", "/notex"),
        ("${.pvc.annotations.'q'}", "/quoted"),
        ("${.node.name}/${.pvc.name}", "/node-1/orders"),
        ("plain $ {x} }", "/plain $ {x} }"),
        // What a value says is not read again.
        ("${.pvc.annotations.again}", "/${.pvc.name}"),
    ] {
        let expected = format!("{expected} shared");
        check(&world(), asked().with("pathPattern", pattern), &expected, NamedBy::PathPattern, &[]);
    }
}

/// What a pattern gives, and what is said of it on the claim: why each template in it has no value.
#[track_caller]
fn check_lenient(pattern: &str, directory: &str, missing: &[&str]) {
    let asked = asked().with("pathPattern", pattern);
    let place = placed(&world(), &asked).expect("a place");
    assert_eq!((place.directory.to_string().as_str(), place.shared), (directory, true), "{pattern}");
    let note = |why: &&str| format!("pathPattern `{pattern}` has an empty text in it: {why}");
    assert_eq!(place.notes, missing.iter().map(note).collect::<Vec<_>>(), "{pattern}");
    assert_eq!(place.warnings, [""; 0]);

    let context = context(&Value::Null);
    let world = world();
    let strict = super::place(&asked, "pvc-1", Some(&context), Templates::Strict, &world.bindings, &world)
        .map(|it| it.directory);
    match missing.first() {
        None => assert_eq!(strict.expect("nothing is missing").to_string(), directory),
        Some(why) => {
            let sentence = format!("pathPattern `{pattern}` cannot be filled in: {why}");
            assert_eq!(strict.expect_err("something is missing").to_string(), sentence);
        }
    }
}

#[test]
fn a_value_that_is_missing_is_empty_text_and_said_on_the_claim_and_refused_where_templates_are_strict() {
    let label = |key: &str| format!("the claim `shop/orders` has no label `{key}`, or an empty one");
    let (absent, none) = (label("absent"), label("none"));
    let annotation = "the claim `shop/orders` has no annotation `team`, or an empty one";
    check_lenient("t-${.pvc.labels.team}", "/t-web", &[]);
    check_lenient("t-${.pvc.labels.absent}", "/t-", &[&absent]);
    check_lenient("${.pvc.labels.none}x/${.pvc.name}", "/x/orders", &[&none]);
    check_lenient(
        "a${.pvc.labels.absent}b${.pvc.annotations.team}/${.PVC.labels.absent}c",
        "/ab/c",
        &[&absent, annotation, &absent],
    );
}

#[test]
fn a_level_of_nothing_is_refused_always() {
    let why = "the claim `shop/orders` has no label `absent`, or an empty one, and a level of the directory has no other text";
    for pattern in ["${.pvc.labels.absent}", "teams/${.pvc.labels.absent}", "${.pvc.labels.absent}/${.pvc.name}"] {
        let sentence = format!("pathPattern `{pattern}` cannot be filled in: {why}");
        check_refused(&world(), asked().with("pathPattern", pattern), "path-pattern", &sentence);
    }
}

#[test]
fn a_pattern_that_cannot_be_filled_in_is_refused() {
    let known = "is not known here; what is: ${.pvc.name}, ${.pvc.namespace}, ${.pvc.labels.KEY}, \
                 ${.pvc.annotations.KEY} and ${.node.name}";
    for (pattern, why) in [
        ("a${.pvc.name", "a `${` in it has no `}`".to_string()),
        ("${.node.labels.zone}", format!("`${{.node.labels.zone}}` {known}")),
        ("${pvc.name}", format!("`${{pvc.name}}` {known}")),
        ("${.pvc.uid}", format!("`${{.pvc.uid}}` {known}")),
        ("${.pvc.labels}", format!("`${{.pvc.labels}}` {known}")),
        ("${.pvc.labels['team']}", format!("`${{.pvc.labels['team']}}` {known}")),
        ("${.pvc.}", format!("`${{.pvc.}}` {known}")),
        ("${}", format!("`${{}}` {known}")),
    ] {
        let sentence = format!("pathPattern `{pattern}` cannot be filled in: {why}");
        check_refused(&world(), asked().with("pathPattern", pattern), "path-pattern", &sentence);
    }
    for (pattern, problem) in [
        ("/", "it is the root of the file system, which is never a volume"),
        ("a//b", r#"the component "" is empty"#),
        ("${.pvc.labels.odd}", r#"the component ".." leads elsewhere in the tree"#),
        ("t/${.pvc.annotations.path}", r#"the component "a/b" has a `/`: each component is one level"#),
    ] {
        let sentence = format!("pathPattern `{pattern}` cannot name the volume's directory: {problem}");
        check_refused(&world(), asked().with("pathPattern", pattern), "invalid-path", &sentence);
    }
}

#[test]
fn subdir_is_the_root_of_every_name() {
    let id = NamedBy::VolumeName;
    for (asked, expected) in [
        (asked().mounted(&["subdir=/tenants/a", "writeback"]), "/tenants/a/pvc-1"),
        (asked().mounted(&["writeback, subdir=t/"]), "/t/pvc-1"),
        (asked().with("mountOptions", "cache-size=1,subdir=t"), "/t/pvc-1"),
        (asked().with("mountOptions", "subdir=t").mounted(&["subdir=/t"]).mounted(&["subdir=/t/"]), "/t/pvc-1"),
        (asked().mounted(&["subdir=/"]), "/pvc-1"),
        (asked().mounted(&["subdir=", "subdirs=x"]), "/pvc-1"),
    ] {
        check(&world(), asked, expected, id.clone(), &[]);
    }
    let subdir = || asked().mounted(&["subdir=t"]);
    check(&named(world(), "a", directory(&["x", "y"], false)), subdir(), "/t/x/y", by("a"), &[]);
    check(&world(), subdir().with("pathPattern", "/p/"), "/t/p shared", NamedBy::PathPattern, &[]);
}

#[test]
fn a_subdir_that_is_no_directory_or_two_is_refused() {
    let twice = "the mount option `subdir` is not usable: it is given twice, as `a` and as `b`";
    check_refused(&world(), asked().mounted(&["subdir=a"]).mounted(&["subdir=b"]), "invalid-subdir", twice);
    check_refused(&world(), asked().mounted(&["subdir=a"]).with("mountOptions", "subdir=b"), "invalid-subdir", twice);
    let template = "the mount option `subdir` is not usable: `${.pvc.name}` has a template, which the volume would keep as it \
                    stands: name directories with pathPattern";
    check_refused(&world(), asked().mounted(&["subdir=${.pvc.name}"]), "invalid-subdir", template);
    let up = "the mount option `subdir=/a/../..` cannot name the volume's directory: the component \"..\" leads \
              elsewhere in the tree";
    check_refused(&world(), asked().mounted(&["subdir=/a/../.."]), "invalid-path", up);
}

#[test]
fn a_sub_path_of_the_class_has_no_effect_and_a_warning_says_so() {
    let warning = "the parameter subPath has no effect: each volume has its own";
    check(&world(), asked().with("subPath", "shared"), "/pvc-1", NamedBy::VolumeName, &[warning]);
}

proptest! {
    #[test]
    fn nothing_leads_out_of_subdir(
        components in vec("[a./]{0,3}", 0..4),
        label in "[a./%2e\\x00$}{]{0,6}",
        pattern in "([a./]|\\$\\{\\.pvc\\.labels\\.l\\}){0,4}",
    ) {
        let policy = components.clone();
        let world = world()
            .naming("a", move |_, _| Ok(Naming::Directory { components: policy.clone(), shared: false }))
            .defaulting();
        let claim = Arc::new(Claim { labels: entries(&[("l", &label)]), ..claim("orders") });
        let context = NamingContext { claim, namespace: Arc::default(), object: &Value::Null, origin: None };
        let asked = asked().mounted(&["subdir=/tenants/a"]).with("pathPattern", &pattern);
        if let Ok(place) = place(&asked, "pvc-1", Some(&context), Templates::Lenient, &world.bindings, &world) {
            let components = place.directory.components();
            prop_assert!(components.len() > 2 && components[..2] == ["tenants", "a"], "{}", place.directory);
        }
    }

    #[test]
    fn no_pattern_panics(pattern in any::<String>(), odd in "[${}./pvcPVC]{0,24}") {
        for pattern in [pattern, odd] {
            let _ = placed(&world(), &asked().with("pathPattern", &pattern).with("mountOptions", &pattern));
        }
    }
}

#[test]
fn the_first_policy_that_says_whether_a_size_is_enforced_is_believed() {
    let quota = |world: World, asked: Asked| placed(&world, &asked).map(|place| (place.quota, place.warnings.len()));
    let silent = |_: &QuotaRequest| Ok(None);
    let failing = |_: &QuotaRequest| Err(Failure::Stack);
    assert_eq!(quota(world(), asked()), Ok((None, 0)));
    let both =
        world().bounding("a", silent).bounding("b", |_| Ok(Some(Quota::Off))).bounding("c", |_| Ok(Some(Quota::On)));
    assert_eq!(quota(both, asked()), Ok((Some(Quota::Off), 0)));
    assert_eq!(quota(world().bounding("a", |_| Ok(Some(Quota::Off))).monitored(), asked()), Ok((None, 0)));
    let passed_over = world().bounding("a", failing).defaulting().bounding("b", |_| Ok(Some(Quota::Off)));
    assert_eq!(quota(passed_over, asked()), Ok((Some(Quota::Off), 1)));
    let refusal = quota(world().bounding("a", failing), asked()).expect_err("its binding fails with it");
    assert_eq!(refusal.code(), "policy-failed");
    // It sees where the volume will lie, whoever said that.
    let seen = world()
        .naming("names", |_, _| Ok(Naming::Directory { components: vec!["team".into(), "a".into()], shared: true }))
        .bounding("sees", |request| {
            let is_there = request.directory == ["x", "team", "a"] && request.shared;
            Ok(Some(Quota::Off).filter(|_| is_there && request.volume.volume_name == "pvc-1"))
        });
    assert_eq!(quota(seen, asked().mounted(&["subdir=x"])), Ok((Some(Quota::Off), 0)));
}
