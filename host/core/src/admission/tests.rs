//! What becomes of a pod: skips, refusals, failures and the patched pod as a whole.

use super::*;
use crate::object::{Claim, Object};
use crate::policy::{OptionChange, SidecarFacts};
use crate::testing::{NAMESPACE, PodFixture, World, claim, class, entries, only_read, pod, volume, world};

/// A verdict as a word and a sentence.
fn outcome(decision: &Decision) -> (&'static str, String) {
    match &decision.verdict {
        Verdict::Skip { why, .. } => (why.code().as_str(), why.sentence()),
        Verdict::Refuse(refusal) => (refusal.code().as_str(), refusal.to_string()),
        Verdict::Fail(failure) => (failure.code().as_str(), failure.to_string()),
        Verdict::Inject(_) => {
            let containers: Vec<&str> = decision.explanations.iter().map(|it| it.container.as_str()).collect();
            ("inject", containers.join(" "))
        }
    }
}

#[track_caller]
fn check(world: &World, pod: PodFixture, code: &str, sentence: &str) {
    let decision = world.decide(&pod.0);
    assert_eq!(outcome(&decision), (code_of(&decision, code), sentence.to_string()), "{}", pod.0);
    if !matches!(decision.verdict, Verdict::Inject(_)) {
        assert_eq!(decision.explanations, [], "what gets no sidecar has nothing to explain");
    }
}

/// The verdict's own code, if it is the expected one: both sides of a comparison then have static text.
#[track_caller]
fn code_of(decision: &Decision, code: &str) -> &'static str {
    let (is, sentence) = outcome(decision);
    assert_eq!(is, code, "{sentence}");
    is
}

fn orders() -> PodFixture {
    pod().mounting("data", "orders")
}

fn with_orders() -> World {
    world().with_claim("orders")
}

const INJECTED: (&str, &str) = ("inject", "jfs-mount");
const NO_JUICEFS: (&str, &str) = ("no-juicefs-claims", "no claim of the pod is for JuiceFS");

#[test]
fn a_pod_that_needs_nothing_is_skipped_with_the_reason() {
    let in_namespace = |labels: &[(&str, &str)]| {
        let namespace = Namespace { name: "shop".into(), labels: entries(labels), ..Namespace::default() };
        with_orders().with(Object::Namespace(namespace))
    };
    let not_enabled = "the namespace has no label juicefs.com/enable-injection=true";
    let disabled = "the pod has the label disable.sidecar.juicefs.com/inject=true";
    let enabled = [("juicefs.com/enable-injection", "true")];
    for (world, pod, (code, sentence)) in [
        (with_orders(), pod(), ("no-claims", "no volume of the pod names a claim")),
        (
            with_orders(),
            pod().with_volume(json!({"name": "tmp", "emptyDir": {}})),
            ("no-claims", "no volume of the pod names a claim"),
        ),
        (with_orders(), orders().labelled(DISABLE_LABEL, "true"), ("disabled-by-label", disabled)),
        (in_namespace(&[]), orders(), ("namespace-not-enabled", not_enabled)),
        (in_namespace(&[("juicefs.com/enable-injection", "True")]), orders(), ("namespace-not-enabled", not_enabled)),
        // Exactly `true` opts out.
        (in_namespace(&enabled), orders().labelled(DISABLE_LABEL, "True"), INJECTED),
        (in_namespace(&enabled), orders().labelled(DISABLE_LABEL, "1"), INJECTED),
        // Anyone can write the label that says that a pod was injected.
        (with_orders(), orders().labelled(DONE_LABEL, "true"), INJECTED),
    ] {
        check(&world, pod, code, sentence);
    }
}

#[test]
fn a_pod_that_opted_out_is_left_alone_whatever_it_has() {
    let pod = pod().mounting("data", "missing").specifying("hostUsers", json!(false)).labelled(DISABLE_LABEL, "true");
    check(&world(), pod, "disabled-by-label", "the pod has the label disable.sidecar.juicefs.com/inject=true");
}

#[test]
fn a_namespace_that_is_not_known_is_refused_for_the_moment() {
    let world = with_orders();
    let context =
        Context { configuration: &world.configuration, bindings: &[], objects: &world.objects, request: "review" };
    let decision = decide(&context, "new", &orders().0, &world);
    assert_eq!(
        outcome(&decision),
        ("namespace-unknown", "namespace `new` is not known to Pith yet: try again in a moment".into())
    );
}

/// A claim of the class `juicefs` and a volume that it is bound to, if any.
#[track_caller]
fn check_claim(claim: Claim, bound: Option<PersistentVolume>, expected: (&str, &str)) {
    let world =
        world().with(Object::StorageClass(StorageClass { provisioner: "ebs.csi.aws.com".into(), ..class("ebs") }));
    let world = match bound {
        Some(bound) => world.with_bound(claim, bound),
        None => world.with(Object::Claim(claim)),
    };
    check(&world, orders(), expected.0, expected.1);
}

#[test]
fn a_claim_is_for_juicefs_by_its_volume_else_by_its_class() {
    let of_class = |class: Option<&str>| Claim { storage_class: class.map(String::from), ..claim("orders") };
    let of_driver = |driver: Option<&str>| PersistentVolume { driver: driver.map(String::from), ..volume("pv-1") };
    let juicefs = || Some(of_driver(Some("csi.juicefs.com")));
    for (claim, bound, expected) in [
        (of_class(Some("juicefs")), juicefs(), INJECTED),
        (of_class(Some("no-such-class")), juicefs(), INJECTED),
        (of_class(None), juicefs(), INJECTED),
        (of_class(Some("")), juicefs(), INJECTED),
        (of_class(Some("ebs")), juicefs(), INJECTED),
        (of_class(Some("juicefs")), None, INJECTED),
        (of_class(Some("juicefs")), Some(of_driver(Some("ebs.csi.aws.com"))), NO_JUICEFS),
        (of_class(Some("juicefs")), Some(of_driver(None)), NO_JUICEFS),
        (of_class(Some("ebs")), None, NO_JUICEFS),
        (of_class(Some("no-such-class")), None, NO_JUICEFS),
        (of_class(None), None, NO_JUICEFS),
    ] {
        check_claim(claim, bound, expected);
    }
}

#[test]
fn what_is_not_known_yet_is_refused_with_what_to_do() {
    check(
        &world(),
        orders(),
        "claim-not-found",
        "volume `data` names the claim `shop/orders`, which does not exist (or is not known to Pith yet): create the claim, \
         then the pod, or name the claim's StorageClass in the pod's annotation claim-class.pith.io/data",
    );
    check_claim(
        Claim { volume_name: Some("pv-9".into()), ..claim("orders") },
        None,
        (
            "persistent-volume-unknown",
            "claim `orders` is bound to the PersistentVolume `pv-9`, which is not known to Pith yet: try again in a moment",
        ),
    );
    // A claim of the same name in another namespace is another claim.
    let elsewhere = Claim { namespace: "other".into(), ..claim("orders") };
    let code = code_of(&world().with(Object::Claim(elsewhere)).decide(&orders().0), "claim-not-found");
    assert_eq!(code, "claim-not-found");
}

#[test]
fn a_decision_names_what_it_missed_and_nothing_that_could_not_change_it() {
    let of_class = |class: &str| Claim { storage_class: Some(class.into()), ..claim("orders") };
    let bound_to = |driver: &str| PersistentVolume { driver: Some(driver.into()), ..volume("pv-1") };
    let named = |class: &str| Reference::StorageClass(class.into());
    for (world, pod, missing) in [
        (with_orders(), orders(), None),
        (world(), pod(), None),
        (world(), orders(), Some(Reference::Claim { namespace: "shop".into(), name: "orders".into() })),
        (
            world().with(Object::Claim(Claim { volume_name: Some("pv-9".into()), ..claim("orders") })),
            orders(),
            Some(Reference::PersistentVolume("pv-9".into())),
        ),
        (world().with(Object::Claim(of_class("new"))), orders(), Some(named("new"))),
        (world().with_bound(of_class("new"), bound_to("csi.juicefs.com")), orders(), Some(named("new"))),
        (world().with_bound(of_class("new"), bound_to("ebs.csi.aws.com")), orders(), None),
        (world().with_bound(of_class(""), bound_to("csi.juicefs.com")), orders(), None),
        (world(), ephemeral(template_of("new")), Some(named("new"))),
    ] {
        assert_eq!(world.decide(&pod.0).missing, missing.into_iter().collect(), "{}", pod.0);
    }
    let world = with_orders();
    let context =
        Context { configuration: &world.configuration, bindings: &[], objects: &world.objects, request: "review" };
    let missing = decide(&context, "new", &orders().0, &world).missing;
    assert_eq!(missing, [Reference::Namespace("new".into())].into());
}

#[test]
fn volumes_of_another_form_are_refused() {
    let unsupported = |volume: &str, form: &str| {
        format!(
            "volume `{volume}` is {form}, which Pith does not support for JuiceFS: use a PersistentVolumeClaim, mounted with \
             `volumeMounts`"
        )
    };
    let inline = |driver: &str| pod().with_volume(json!({"name": "tmp", "csi": {"driver": driver}}));
    let raw =
        orders().with_container(json!({"name": "raw", "volumeDevices": [{"name": "data", "devicePath": "/dev/x"}]}));
    check(&world(), inline("csi.juicefs.com"), "unsupported-volume", &unsupported("tmp", "an inline CSI volume"));
    check(&with_orders(), raw, "unsupported-volume", &unsupported("data", "used as a raw block device"));
    check(&world(), inline("ebs.csi.aws.com"), NO_JUICEFS.0, NO_JUICEFS.1);
}

#[test]
fn a_claim_that_does_not_exist_yet_is_what_the_pod_says_of_its_class() {
    let ebs = StorageClass { provisioner: "ebs.csi.aws.com".into(), ..class("ebs") };
    let world = world().with(Object::StorageClass(ebs));
    let of = |volume: &str, class: &str| orders().annotated(&format!("claim-class.pith.io/{volume}"), class);
    let not_found = "volume `data` names the claim `shop/orders`, which does not exist (or is not known to Pith yet): create the \
                     claim, then the pod, or name the claim's StorageClass in the pod's annotation claim-class.pith.io/data";
    let no_class = "the pod has claim-class.pith.io/data = `gold`, which is not usable: there is no StorageClass of that name (or \
                    it is not known to Pith yet)";
    for (pod, (code, sentence)) in [
        (of("data", "juicefs"), INJECTED),
        (of("data", "ebs"), NO_JUICEFS),
        (of("data", "gold"), ("invalid-setting", no_class)),
        (of("another", "juicefs"), ("claim-not-found", not_found)),
        (of("orders", "juicefs"), ("claim-not-found", not_found)),
    ] {
        check(&world, pod, code, sentence);
    }
    // Of one that is there, the pod has nothing to say.
    let unbound = |class: &str| Claim { storage_class: Some(class.into()), ..claim("orders") };
    check(&with_orders(), of("data", "gold"), INJECTED.0, INJECTED.1);
    check(&world.with(Object::Claim(unbound("ebs"))), of("data", "juicefs"), NO_JUICEFS.0, NO_JUICEFS.1);
}

#[test]
fn what_is_injected_for_a_claim_that_does_not_exist_yet_takes_a_secret_of_the_pod_s_own() {
    let pod = orders().mounting("again", "orders").annotated("claim-class.pith.io/data", "juicefs");
    let injected = world().inject(&pod.0);
    let name = sidecar::pod_secret_name("review", "data");
    assert_eq!(secrets(&injected), (vec![name.clone()], vec![name]), "two volumes of one claim share a client");
    assert_eq!(world().inject(&injected), injected, "the second pass");
    // Once the claim is there, its own Secret is as good, and nothing is left of the other.
    assert_eq!(secrets(&with_orders().inject(&injected)), (vec!["pith-uid-of-orders".into()], vec![]));
}

/// A pod without a name, and a volume whose claim is made for it from this template.
fn ephemeral(template: Value) -> PodFixture {
    let mut pod = pod().with_volume(json!({"name": "tmp", "ephemeral": {"volumeClaimTemplate": template}}));
    pod.0["metadata"] = json!({"generateName": "web-"});
    pod
}

fn template_of(class: &str) -> Value {
    json!({"spec": {"storageClassName": class}})
}

#[test]
fn a_claim_of_the_pod_s_own_is_for_juicefs_by_the_class_of_its_template() {
    let ebs = StorageClass { provisioner: "ebs.csi.aws.com".into(), ..class("ebs") };
    let world = world().with(Object::StorageClass(ebs));
    let unreadable = |class: &str| json!({"spec": {"storageClassName": class, "accessModes": ["ReadSometimes"]}});
    let refused = "the pod cannot be read: the volumeClaimTemplate of its volume `tmp`: spec.accessModes has \
                   `ReadSometimes`, which Kubernetes does not know";
    for (template, (code, sentence)) in [
        (template_of("juicefs"), INJECTED),
        (template_of("ebs"), NO_JUICEFS),
        (template_of("no-such-class"), NO_JUICEFS),
        (template_of(""), NO_JUICEFS),
        (Value::Null, NO_JUICEFS),
        (unreadable("juicefs"), ("malformed-pod", refused)),
        (unreadable("ebs"), NO_JUICEFS),
    ] {
        check(&world, ephemeral(template), code, sentence);
    }
}

#[test]
fn a_claim_of_the_pod_s_own_without_a_class_is_of_the_default() {
    let check = |defaults: &[(&str, &str, &str)], template: Value, (code, sentence): (&str, &str)| {
        let class = |(name, driver, since): &(&str, &str, &str)| {
            let (provisioner, default_since) = (driver.to_string(), Some(since.to_string()));
            Object::StorageClass(StorageClass { provisioner, default_since, ..class(name) })
        };
        let world = defaults.iter().map(class).fold(world(), World::with);
        check(&world, ephemeral(template), code, sentence);
    };
    let (ours, other) = ("csi.juicefs.com", "ebs.csi.aws.com");
    let (old, new) = ("2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
    check(&[], json!({"spec": {}}), NO_JUICEFS);
    check(&[("a", ours, old)], json!({"spec": {}}), INJECTED);
    check(&[("a", ours, old)], template_of(""), NO_JUICEFS);
    check(&[("a", ours, old), ("b", other, new)], json!({"spec": {}}), NO_JUICEFS);
    check(&[("a", other, old), ("b", ours, new)], json!({"spec": {}}), INJECTED);
    check(&[("a", ours, new), ("b", other, new)], json!({"spec": {}}), INJECTED);
}

#[test]
fn the_template_of_a_claim_is_what_settings_and_policies_see_of_it() {
    let template = json!({
        "metadata": {"labels": {"team": "web"}, "annotations": {"juicefs/mount-cpu-limit": "1500m"}},
        "spec": {
            "storageClassName": "juicefs", "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    });
    let by_label = |binding: &mut Binding| binding.matches.claims.labels = entries(&[("team", "web")]);
    let world = world().adjusting("b", |_| Ok(cpu("1"))).bound(by_label);
    let decision = world.decide(&ephemeral(template).0);
    let explanation = &decision.explanations[0];
    // The pod's own name is completed later.
    assert_eq!((&*explanation.volume, &*explanation.claim), ("tmp", "web-*-tmp"));
    let rows = explanation.settings.explain();
    for (field, value, origin) in
        [("resources.limits.cpu", "1500m", "claim web-*-tmp"), ("resources.requests.cpu", "1", "policy b")]
    {
        assert!(rows.contains(&(field.into(), value.into(), origin.into())), "{field}: {rows:#?}");
    }
}

/// The Secrets that the pod's clients take what is secret from, and those that the controller is told of.
fn secrets(pod: &Value) -> (Vec<String>, Vec<String>) {
    let clients = list(&pod["spec"]["initContainers"]).iter().filter(|it| it["name"] != sidecar::GUARD_NAME);
    let taken = clients.map(|it| it["env"][0]["valueFrom"]["secretKeyRef"]["name"].as_str().expect("a name").into());
    let status = pod["metadata"]["annotations"][STATUS_ANNOTATION].as_str().expect("a status");
    let told = status::claims(status);
    (taken.collect(), told.iter().filter_map(|claim| claim.secret().map(String::from)).collect())
}

#[test]
fn the_secret_for_a_claim_that_is_not_there_yet_is_named_by_the_request_and_keeps_its_name() {
    let pod = ephemeral(template_of("juicefs")).mounting("data", "orders");
    let asked = |request: &str, pod: &Value| {
        let world = with_orders();
        let context = Context { configuration: &world.configuration, bindings: &[], objects: &world.objects, request };
        let verdict = decide(&context, NAMESPACE, pod, &world).verdict;
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, verdict.patch()).expect("the patch fits");
        patched
    };
    let first = asked("review", &pod.0);
    let name = sidecar::pod_secret_name("review", "tmp");
    // That of a claim which is there is named by its UID, and needs no mention.
    assert_eq!(secrets(&first), (vec![name.clone(), "pith-uid-of-orders".into()], vec![name]));
    assert_eq!(asked("review", &pod.0), first, "the same review");
    assert_eq!(asked("another round of the same admission", &first), first);
    assert_ne!(secrets(&asked("another pod", &pod.0)), secrets(&first));

    // What `pith inject` makes may be the template of many pods: it is the same each time, and each pod gets a name of its own.
    let template = asked("", &pod.0);
    assert_eq!(asked("", &template), template);
    assert_eq!(asked("review", &template), first);
    assert_eq!(asked("", &first), first);

    // A name that no Secret of a pod has is not taken from anybody.
    let forged = |name: &str| {
        let mut forged = pod.0.clone();
        let status = json!({"sidecars": [{"ephemeral": "tmp", "secret": name}]});
        forged["metadata"]["annotations"] = json!({STATUS_ANNOTATION: status.to_string()});
        asked("review", &forged)
    };
    for name in ["pith-record-key", "pith-uid-of-invoices", "file-system"] {
        assert_eq!(forged(name), first, "{name}");
    }
}

#[test]
fn a_pod_that_no_sidecar_can_serve_is_refused_with_the_reason() {
    let recursive = |value: &str| {
        let mut pod = orders();
        pod.0["spec"]["containers"][0]["volumeMounts"][0]["recursiveReadOnly"] = json!(value);
        pod
    };
    let refused = "a pod with `recursiveReadOnly` on a JuiceFS mount cannot have a JuiceFS sidecar: Kubernetes allows such a \
                   mount no mount propagation, without which it would not see the client's";
    for (pod, sentence) in [
        (
            orders().specifying("hostUsers", json!(false)),
            "a pod with hostUsers: false cannot have a JuiceFS sidecar: mounting with FUSE for the other containers is not \
             possible in a user namespace",
        ),
        (
            orders().specifying("os", json!({"name": "windows"})),
            "a pod with os.name: windows cannot have a JuiceFS sidecar: JuiceFS is mounted with Linux FUSE",
        ),
        (recursive("Enabled"), refused),
        (recursive("IfPossible"), refused),
    ] {
        check(&with_orders(), pod, "unsupported-pod", sentence);
    }
    check(&with_orders(), orders().specifying("hostUsers", json!(true)), INJECTED.0, INJECTED.1);
    check(&with_orders(), recursive("Disabled"), INJECTED.0, INJECTED.1);
}

#[test]
fn a_name_of_ours_that_others_use_is_refused() {
    for name in ["jfs-mount", "pith-guard"] {
        let container = format!(
            "the pod already has a container `{name}` that Pith did not inject: rename it, or set the label \
             disable.sidecar.juicefs.com/inject=true on the pod to mount JuiceFS yourself"
        );
        let foreign = json!({"name": name, "image": "theirs"});
        check(&with_orders(), orders().with_container(foreign.clone()), "foreign-container", &container);
        check(&with_orders(), orders().with_init_container(foreign), "foreign-container", &container);
    }
    check(
        &with_orders(),
        orders().with_volume(json!({"name": "pith-mount-data", "hostPath": {"path": "/"}})),
        "foreign-volume",
        "the pod already has a volume `pith-mount-data` that Pith did not inject: rename it",
    );
}

#[test]
fn a_setting_that_is_not_usable_is_refused_with_its_place() {
    let world = world()
        .with(Object::Claim(Claim { annotations: entries(&[("juicefs/mount-cpu-limit", "aaa")]), ..claim("orders") }));
    check(
        &world,
        orders(),
        "invalid-setting",
        "claim orders has juicefs/mount-cpu-limit = `aaa`, which is not usable: \"aaa\" is no quantity: it does not begin \
         with a number",
    );
}

fn skip(reason: &str) -> Result<Exemption, Failure> {
    Ok(Exemption::Skip(reason.into()))
}

fn deny(sentence: &str) -> Result<Exemption, Failure> {
    Ok(Exemption::Deny(sentence.into()))
}

fn broken<T>() -> Result<T, Failure> {
    Err(Failure::Trap("unreachable".into()))
}

#[track_caller]
fn check_exemption(world: World, expected: (&str, &str), warnings: &[&str]) {
    check(&world, orders(), expected.0, expected.1);
    assert_eq!(world.decide(&orders().0).warnings, warnings);
}

#[test]
fn any_denial_wins_then_any_skip_then_the_pod_is_injected() {
    let skipped = ("exempt-by-policy", "policy `b` exempts the pod: batch");
    let denied = ("denied-by-policy", "policy `c` refuses the pod: no");
    let inject = || Ok(Exemption::Inject);
    check_exemption(with_orders().exempting("a", inject()), INJECTED, &[]);
    check_exemption(with_orders().exempting("a", inject()).exempting("b", skip("batch")), skipped, &[]);
    check_exemption(with_orders().exempting("b", skip("batch")).exempting("c", deny("no")), denied, &[]);
    check_exemption(with_orders().exempting("b", skip("batch")).exempting("d", skip("later")), skipped, &[]);
    check_exemption(with_orders().exempting("c", deny("no")).exempting("d", deny("later")), denied, &[]);
}

#[test]
fn the_reason_of_an_exemption_is_written_onto_the_pod_once() {
    let world = with_orders().exempting("b", skip("batch"));
    for pod in [orders(), orders().annotated("team", "web"), orders().annotated(SKIPPED_ANNOTATION, "something else")] {
        let mut pod = pod.0;
        let verdict = world.decide(&pod).verdict;
        json_patch::patch(&mut pod, verdict.patch()).expect("the patch fits");
        let reason = "policy `b` exempts the pod: batch (reason: exempt-by-policy)";
        assert_eq!(pod["metadata"]["annotations"][SKIPPED_ANNOTATION], reason);
        assert_eq!(pod["metadata"]["labels"][SKIPPED_LABEL], "true");
        assert!(world.decide(&pod).verdict.patch().is_empty());
    }
    let unlabelled = world.decide(&orders().labelled(DISABLE_LABEL, "true").0);
    assert!(unlabelled.verdict.patch().is_empty(), "the label says it");
}

#[test]
fn a_watched_policy_has_no_effect() {
    for answer in [skip("batch"), deny("no"), broken()] {
        check_exemption(with_orders().exempting("a", answer).monitored(), INJECTED, &[]);
    }
    let world = with_orders().adjusting("a", |_| broken()).monitored();
    check_exemption(world, INJECTED, &[]);
    let world = with_orders().adjusting("a", |_| Ok(cpu("9"))).monitored();
    assert_eq!(cpu_row(&world), "1, default");
}

/// What the policies in monitor mode would have decided, as it is logged.
#[track_caller]
fn check_monitored(world: &World, expected: &[(&str, &str, &[&str])]) {
    let said = |it: &Monitored| match &it.outcome {
        Ok(differences) => differences.iter().map(ToString::to_string).collect::<Vec<_>>(),
        Err(failure) => vec![failure.to_string()],
    };
    let monitored = world.decide(&orders().0).monitored;
    let monitored: Vec<_> = monitored.iter().map(|it| (&*it.binding, it.word(), said(it))).collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(binding, word, said)| (*binding, *word, said.iter().map(ToString::to_string).collect::<Vec<_>>()))
        .collect();
    assert_eq!(monitored, expected);
}

#[test]
fn what_a_watched_policy_would_change_is_said_field_by_field() {
    let inject = || Ok(Exemption::Inject);
    check_monitored(&with_orders().exempting("a", inject()), &[]);
    check_monitored(&with_orders().exempting("a", inject()).monitored(), &[("a", "same", &[])]);
    check_monitored(
        &with_orders().exempting("a", deny("no")).monitored(),
        &[("a", "different", &["verdict: `deny: no` instead of `inject`"])],
    );
    check_monitored(
        &with_orders().exempting("a", broken()).monitored(),
        &[("a", "failed", &["it trapped: unreachable"])],
    );
    // Also beside a denial, and whoever is asked first.
    check_monitored(
        &with_orders().exempting("a", deny("no")).exempting("b", inject()).monitored(),
        &[("b", "different", &["verdict: `inject` instead of `deny: no`"])],
    );
    check_monitored(
        &with_orders().exempting("a", deny("no")).monitored().exempting("b", deny("no")),
        &[("a", "same", &[])],
    );

    check_monitored(&with_orders().adjusting("a", |_| Ok(Change::default())).monitored(), &[("a", "same", &[])]);
    check_monitored(
        &with_orders().adjusting("a", |_| Ok(cpu("9"))).monitored(),
        &[("a", "different", &["resources.requests.cpu: `9` instead of `1`"])],
    );
    // Of what the ones before it have left.
    check_monitored(
        &with_orders().adjusting("a", |_| Ok(cpu("2"))).adjusting("b", |_| Ok(cpu("2"))).monitored(),
        &[("b", "same", &[])],
    );
    let variable =
        |_: &SidecarFacts| Ok(Change { env: vec![("TOKEN".into(), Some("abc".into()))], ..Change::default() });
    check_monitored(
        &with_orders().adjusting("a", variable).monitored(),
        &[("a", "different", &["env.TOKEN: a value instead of nothing"])],
    );
}

#[test]
fn it_is_known_which_bindings_are_asked_about_a_pod_without_asking() {
    let world = with_orders().exempting("a", broken()).adjusting("b", |_| broken()).bound(|it| it.percent = 0);
    let context = Context {
        configuration: &world.configuration,
        bindings: &world.bindings,
        objects: &world.objects,
        request: "",
    };
    let meetings = meetings(&context, NAMESPACE, &orders().0).expect("it is to be injected");
    let rows: Vec<_> = meetings.iter().map(|it| (&*it.binding.name, it.claim.as_deref(), it.miss.is_none())).collect();
    assert_eq!(rows, [("a", None, true), ("b", Some("orders"), false)]);
    let bare = super::meetings(&context, NAMESPACE, &json!({"spec": {"containers": []}}));
    assert!(matches!(bare, Err(Verdict::Skip { why: Skip::NoClaims, .. })), "{bare:?}");
}

#[test]
fn a_failed_policy_fails_the_request_or_is_passed_over_with_a_warning() {
    let failed = ("trap", "policy `a` failed, and its onFailure is `fail`: it trapped: unreachable");
    let warning = "policy `a` failed (reason: trap), and Pith decided without it: it trapped: unreachable";
    check_exemption(with_orders().exempting("a", broken()), failed, &[]);
    check_exemption(with_orders().exempting("a", broken()).defaulting(), INJECTED, &[warning]);
    check_exemption(with_orders().adjusting("a", |_| broken()), failed, &[]);
    check_exemption(with_orders().adjusting("a", |_| broken()).defaulting(), INJECTED, &[warning]);

    let unusable = || with_orders().adjusting("a", |_| Ok(cpu("much")));
    let why =
        "its answer is not usable: requests.cpu is `much`: \"much\" is no quantity: it does not begin with a number";
    check_exemption(unusable(), ("answer", &format!("policy `a` failed, and its onFailure is `fail`: {why}")), &[]);
    let warning = format!("policy `a` failed (reason: answer), and Pith decided without it: {why}");
    check_exemption(unusable().defaulting(), INJECTED, &[&warning]);
}

#[test]
fn an_exempt_pod_may_be_one_that_no_sidecar_can_serve() {
    let world = with_orders().exempting("b", skip("batch"));
    let pod = orders().specifying("hostUsers", json!(false));
    check(&world, pod, "exempt-by-policy", "policy `b` exempts the pod: batch");
}

#[test]
fn a_warning_that_two_claims_give_is_said_once() {
    let world = with_orders().with_claim("logs").adjusting("a", |_| broken()).defaulting();
    let warnings = world.decide(&orders().mounting("log", "logs").0).warnings;
    assert_eq!(warnings, ["policy `a` failed (reason: trap), and Pith decided without it: it trapped: unreachable"]);
}

#[test]
fn whoever_makes_a_pod_is_told_where_pod_security_refuses_the_sidecar() {
    let check = |level: Option<&str>, pod: PodFixture, expected: Option<&str>| {
        let mut labels = entries(&[("juicefs.com/enable-injection", "true")]);
        labels.extend(level.map(|level| ("pod-security.kubernetes.io/enforce".to_string(), level.to_string())));
        let namespace = Namespace { name: "shop".into(), labels, ..Namespace::default() };
        let warnings = with_orders().with(Object::Namespace(namespace)).decide(&pod.0).warnings;
        assert_eq!(warnings, Vec::from_iter(expected.map(String::from)));
        // The API server cuts a longer one.
        assert!(warnings.iter().all(|warning| warning.len() <= 256));
    };
    let refused_by = |level: &str| {
        format!(
            "JuiceFS is mounted by a privileged sidecar, which the label pod-security.kubernetes.io/enforce={level} of namespace \
             `shop` refuses: an administrator can set it to `privileged`"
        )
    };
    check(None, orders(), None);
    check(Some("privileged"), orders(), None);
    check(Some("baseline"), orders(), Some(&refused_by("baseline")));
    check(Some("restricted"), orders(), Some(&refused_by("restricted")));
    check(Some("restricted"), pod(), None);
    check(Some("restricted"), orders().labelled(DISABLE_LABEL, "true"), None);
}

fn cpu(amount: &str) -> Change {
    Change { requests: vec![("cpu".into(), Some(amount.into()))], ..Change::default() }
}

/// Value and origin of the request for CPU.
#[track_caller]
fn cpu_row(world: &World) -> String {
    let decision = world.decide(&orders().0);
    let explanation = decision.explanations.first().expect("it is injected");
    let rows = explanation.settings.explain();
    let (_, value, origin) =
        rows.iter().find(|(field, ..)| field == "resources.requests.cpu").expect("the row is there");
    format!("{value}, {origin}")
}

/// Doubles the request for CPU.
fn double(current: &SidecarFacts) -> Result<Change, Failure> {
    let amount: u32 = current.requests.get("cpu").expect("a request").parse().expect("a whole number");
    Ok(cpu(&(amount * 2).to_string()))
}

#[test]
fn a_later_policy_sees_what_the_earlier_left() {
    let set = |_: &SidecarFacts| Ok(cpu("500m"));
    let by_name = with_orders().adjusting("b", double).adjusting("a", |_| Ok(cpu("3")));
    assert_eq!(cpu_row(&by_name.with_ceilings(&[("cpu", "8")])), "2, its limit (was 6, policy b)");
    let by_priority = with_orders()
        .adjusting("a", set)
        .bound(|binding| binding.priority = 1)
        .adjusting("b", |_| Ok(cpu("2")))
        .adjusting("c", |_| Ok(Change::default()));
    assert_eq!(cpu_row(&by_priority), "500m, policy a");
}

#[test]
fn ceilings_come_after_every_policy() {
    let world = with_orders().adjusting("a", |_| Ok(cpu("9"))).with_ceilings(&[("cpu", "1500m")]);
    assert_eq!(cpu_row(&world), "1500m, ceiling (was 9, policy a)");
}

#[test]
fn a_policy_that_is_passed_over_leaves_what_was_there() {
    let world = with_orders().adjusting("a", |_| Ok(cpu("2"))).adjusting("b", |_| Ok(cpu("-1"))).defaulting();
    assert_eq!(cpu_row(&world), "2, policy a");
}

/// A mount of `data` in `app`.
fn mount(extra: Value) -> PodFixture {
    let mut mount = json!({"name": "data", "mountPath": "/data"});
    merge(&mut mount, extra);
    let mut pod = orders();
    pod.0["spec"]["containers"][0]["volumeMounts"][0] = mount;
    pod
}

fn merge(into: &mut Value, from: Value) {
    let from = match from {
        Value::Object(from) => from,
        _ => return,
    };
    into.as_object_mut().expect("an object").extend(from);
}

#[track_caller]
fn check_mount(world: &World, pod: PodFixture, expected: Value) {
    let mut wanted = json!({"name": "pith-mount-data", "mountPath": "/data", "mountPropagation": "HostToContainer"});
    merge(&mut wanted, expected);
    assert_eq!(world.inject(&pod.0)["spec"]["containers"][0]["volumeMounts"][0], wanted);
}

#[test]
fn a_mount_is_renamed_and_keeps_the_rest() {
    let world = with_orders();
    check_mount(&world, mount(json!({})), json!({}));
    check_mount(&world, mount(json!({"subPath": "a", "x": 1})), json!({"subPath": "a", "x": 1}));
    check_mount(&world, mount(json!({"readOnly": true})), json!({"readOnly": true}));
    check_mount(&world, mount(json!({"readOnly": false})), json!({"readOnly": false}));
    let both_ways = json!({"mountPropagation": "Bidirectional"});
    check_mount(&world, mount(both_ways.clone()), both_ways);
    check_mount(&world, mount(json!({"mountPropagation": "None"})), json!({}));
}

#[test]
fn what_is_injected_has_the_token_that_the_api_server_gives_to_every_container() {
    let token = |volume: &str| {
        let path = "/var/run/secrets/kubernetes.io/serviceaccount";
        json!({"name": volume, "readOnly": true, "mountPath": path})
    };
    for (mounted, expected) in
        [(Some(token("kube-api-access-x7b2q")), true), (Some(token("an-applications-own")), false), (None, false)]
    {
        let mut pod = orders();
        let mounts = pod.0["spec"]["containers"][0]["volumeMounts"].as_array_mut().expect("mounts");
        mounts.extend(mounted.clone());
        let injected = with_orders().inject(&pod.0);
        for container in list(&injected["spec"]["initContainers"]) {
            let last = list(&container["volumeMounts"]).last();
            assert_eq!(last == mounted.as_ref(), expected, "{container:#}");
        }
        assert_eq!(with_orders().inject(&injected), injected, "the second pass");
    }
}

/// Checks that the client and the mounts are read-only, or that neither is.
#[track_caller]
fn check_read_only(world: &World, pod: PodFixture, client: bool, mounts: &[bool]) {
    let pod = world.inject(&pod.0);
    let command = list(&pod["spec"]["initContainers"][1]["command"]);
    assert_eq!(command.contains(&json!("--read-only")), client, "{command:?}");
    let read_only: Vec<bool> =
        list(&pod["spec"]["containers"][0]["volumeMounts"]).iter().map(|mount| mount["readOnly"] == true).collect();
    assert_eq!(read_only, mounts);
}

#[test]
fn a_volume_stays_read_only_in_each_of_its_ways() {
    let read_only_volume =
        |name: &str| json!({"name": name, "persistentVolumeClaim": {"claimName": "orders", "readOnly": true}});
    let bound = |volume| world().with_bound(claim("orders"), volume);
    let mounting = |mut pod: PodFixture, name: &str| {
        let mounts = &mut pod.0["spec"]["containers"][0]["volumeMounts"];
        mounts.as_array_mut().expect("a list").push(json!({"name": name, "mountPath": "/x"}));
        pod
    };

    check_read_only(&with_orders(), orders(), false, &[false]);
    // By the pod: the only volume of the claim is read-only.
    let pod_says = mounting(pod().with_volume(read_only_volume("data")), "data");
    check_read_only(&with_orders(), pod_says, true, &[true]);
    // By the pod, for one of two volumes of the claim: the client must write for the other.
    let one_of_two = mounting(orders().with_volume(read_only_volume("view")), "view");
    check_read_only(&with_orders(), one_of_two, false, &[false, true]);
    // By the volume.
    check_read_only(&bound(PersistentVolume { read_only: true, ..volume("pv-1") }), orders(), true, &[true]);
    // By the access modes of the volume, or of the claim.
    check_read_only(&bound(PersistentVolume { access_modes: only_read(), ..volume("pv-1") }), orders(), true, &[true]);
    let claim = || Claim { access_modes: only_read(), ..claim("orders") };
    check_read_only(&world().with(Object::Claim(claim())), orders(), true, &[true]);
    let written_by_others =
        PersistentVolume { access_modes: vec![AccessMode::ReadOnlyMany, AccessMode::ReadWriteMany], ..volume("pv-1") };
    check_read_only(&world().with_bound(claim(), written_by_others.clone()), orders(), true, &[true]);
    check_read_only(&bound(written_by_others), orders(), false, &[false]);
}

#[test]
fn no_policy_makes_a_read_only_volume_writable() {
    let writable = Change {
        mount_options: vec![("read-only".into(), OptionChange::Set(Some("false".into())))],
        ..Change::default()
    };
    let world = world()
        .with_bound(claim("orders"), PersistentVolume { read_only: true, ..volume("pv-1") })
        .adjusting("a", move |_| Ok(writable.clone()))
        .defaulting();
    check_read_only(&world, orders(), true, &[true]);
}

#[test]
fn the_injected_pod_is_whole() {
    let pod = orders()
        .labelled("app", "web")
        .with_init_container(json!({"name": "setup", "volumeMounts": [{"name": "data", "mountPath": "/in"}]}))
        .with_container(json!({"name": "other", "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}))
        .with_volume(json!({"name": "tmp", "emptyDir": {}}))
        .specifying("futureField", json!({"kept": [1, 2]}));
    let mut injected = with_orders().inject(&pod.0);
    // Ours have their own snapshots, in `sidecar`.
    let containers = injected["spec"]["initContainers"].as_array_mut().expect("a list");
    let ours: Vec<Value> = containers.drain(..2).map(|mut container| container["name"].take()).collect();
    assert_eq!(ours, ["pith-guard", "jfs-mount"]);
    insta::assert_json_snapshot!(injected, @r#"
    {
      "metadata": {
        "annotations": {
          "pith.io/injected": "{\"guard\":\"pith-guard\",\"sidecars\":[{\"claim\":\"orders\",\"container\":\"jfs-mount\",\"volumes\":[\"pith-mount-data\"]}],\"version\":1}"
        },
        "labels": {
          "app": "web",
          "done.sidecar.juicefs.com/inject": "true"
        },
        "name": "web-0"
      },
      "spec": {
        "containers": [
          {
            "name": "app",
            "volumeMounts": [
              {
                "mountPath": "/data",
                "mountPropagation": "HostToContainer",
                "name": "pith-mount-data"
              }
            ]
          },
          {
            "name": "other",
            "volumeMounts": [
              {
                "mountPath": "/tmp",
                "name": "tmp"
              }
            ]
          }
        ],
        "futureField": {
          "kept": [
            1,
            2
          ]
        },
        "initContainers": [
          {
            "name": "setup",
            "volumeMounts": [
              {
                "mountPath": "/in",
                "mountPropagation": "HostToContainer",
                "name": "pith-mount-data"
              }
            ]
          }
        ],
        "volumes": [
          {
            "name": "data",
            "persistentVolumeClaim": {
              "claimName": "orders"
            }
          },
          {
            "emptyDir": {},
            "name": "tmp"
          },
          {
            "emptyDir": {},
            "name": "pith-mount-data"
          }
        ]
      }
    }
    "#);
}

#[test]
fn two_claims_get_two_sidecars_in_the_order_of_the_pods_volumes() {
    let world = with_orders().with_claim("logs").caching_in(false, None);
    let pod = world.inject(&pod().mounting("log", "logs").mounting("data", "orders").0);
    let names = |list: &Value| -> Vec<String> {
        list.as_array().expect("a list").iter().map(|it| it["name"].as_str().expect("a name").into()).collect()
    };
    assert_eq!(names(&pod["spec"]["initContainers"]), ["pith-guard", "jfs-mount", "jfs-mount-1"]);
    assert_eq!(
        names(&pod["spec"]["volumes"]),
        ["log", "data", "pith-mount-log", "pith-cache-log", "pith-mount-data", "pith-cache-data"]
    );
    assert_eq!(names(&pod["spec"]["containers"][0]["volumeMounts"]), ["pith-mount-log", "pith-mount-data"]);
}

#[test]
fn two_volumes_of_one_claim_share_a_sidecar() {
    let pod = with_orders().inject(&orders().mounting("again", "orders").0);
    assert_eq!(list(&pod["spec"]["initContainers"]).len(), 2);
    assert_eq!(pod["spec"]["initContainers"][0]["command"], json!(["/usr/local/bin/pith-guard", "hold", "/jfs/data"]));
    let mounts: Vec<&Value> =
        list(&pod["spec"]["containers"][0]["volumeMounts"]).iter().map(|mount| &mount["name"]).collect();
    assert_eq!(mounts, ["pith-mount-data", "pith-mount-data"]);
}

#[test]
fn claims_of_other_drivers_are_left_as_they_are() {
    let ebs = Claim { storage_class: None, ..claim("disk") };
    let world = with_orders().with(Object::Claim(ebs));
    let pod = world.inject(&pod().mounting("disk", "disk").mounting("data", "orders").0);
    let mounts = &pod["spec"]["containers"][0]["volumeMounts"];
    assert_eq!(mounts[0], json!({"name": "disk", "mountPath": "/disk"}));
    assert_eq!(mounts[1]["name"], "pith-mount-data");
}

#[test]
fn the_name_of_a_port_stays_the_application_s() {
    let of_ports =
        |ports: &[&str]| -> Vec<Value> { ports.iter().map(|name| json!({"name": name, "containerPort": 1})).collect() };
    let world = with_orders().with_claim("logs");
    for (ports, expected) in [
        (&["http"][..], [json!("metrics"), json!("metrics-1")]),
        (&["http", "metrics"], [Value::Null, json!("metrics-1")]),
        (&["metrics-1", "metrics"], [Value::Null, Value::Null]),
    ] {
        let theirs = json!({"name": "theirs", "ports": of_ports(ports)});
        for pod in [orders().with_container(theirs.clone()), orders().with_init_container(theirs.clone())] {
            let injected = world.inject(&pod.mounting("log", "logs").0);
            let clients = &list(&injected["spec"]["initContainers"])[1..3];
            let named: Vec<&Value> = clients.iter().map(|client| &client["ports"][0]["name"]).collect();
            assert_eq!(named, expected.iter().collect::<Vec<_>>(), "{ports:?}");
            assert_eq!(world.inject(&injected), injected, "the second pass");
        }
    }
}

/// Checks the resources of guard and client in a pod that has these as a whole.
#[track_caller]
fn check_shared(of_pod: Value, guard: Value, client: Value) {
    let pod = orders().specifying("resources", of_pod);
    let world = with_orders();
    let injected = world.inject(&pod.0);
    let containers = list(&injected["spec"]["initContainers"]);
    assert_eq!([&containers[0]["resources"], &containers[1]["resources"]], [&guard, &client], "{}", pod.0);
    assert_eq!(world.inject(&injected), injected, "the second pass");
    let warning = "the pod has resources for all its containers together: the JuiceFS client asks for none of its own";
    let has_some = ["limits", "requests"].iter().any(|kind| pod.0["spec"]["resources"].get(kind).is_some());
    assert_eq!(world.decide(&pod.0).warnings, Vec::from_iter(has_some.then_some(warning)), "{}", pod.0);
}

#[test]
fn a_container_of_ours_stays_within_what_the_pod_has_as_a_whole() {
    let limits = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
    for none in [json!({}), Value::Null] {
        check_shared(
            none,
            json!({"requests": {"cpu": "1m", "memory": "4Mi"}, "limits": limits("100m", "16Mi")}),
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": limits("2", "5Gi")}),
        );
    }
    check_shared(json!({"limits": {"cpu": "1", "memory": "1Gi"}}), json!({}), json!({}));
    // Its limit stays where the pod has none: a ceiling may have set it.
    check_shared(
        json!({"requests": {"cpu": "1"}}),
        json!({"requests": {"cpu": "0", "memory": "4Mi"}, "limits": limits("100m", "16Mi")}),
        json!({"requests": {"cpu": "0", "memory": "1Gi"}, "limits": limits("2", "5Gi")}),
    );
    // The API server would give the pod a request for the memory that its other containers ask for.
    check_shared(
        json!({"limits": {"cpu": "1"}}),
        json!({"requests": {"memory": "0"}, "limits": {"memory": "16Mi"}}),
        json!({"requests": {"memory": "0"}, "limits": {"memory": "5Gi"}}),
    );
}

#[test]
fn on_the_nodes_network_the_client_picks_its_port() {
    let pod = with_orders().inject(&orders().specifying("hostNetwork", json!(true)).0);
    let sidecar = &pod["spec"]["initContainers"][1];
    assert_eq!(sidecar["ports"], Value::Null);
    assert_eq!(sidecar["command"][3], "--metrics=0.0.0.0:0");
    assert_eq!(sidecar["command"][4], "-o");
}

/// Checks that a second pass over a damaged pod gives what the first pass gave.
#[track_caller]
fn check_repaired(damage: impl FnOnce(&mut Value)) {
    let world = with_orders().with_claim("logs").caching_in(false, Some("1Gi"));
    let injected = world.inject(&orders().mounting("log", "logs").with_init_container(json!({"name": "setup"})).0);
    let mut damaged = injected.clone();
    damage(&mut damaged);
    assert_ne!(damaged, injected, "the damage is one");
    assert_eq!(world.inject(&damaged), injected);
}

#[test]
fn a_second_pass_repairs_what_was_damaged() {
    let sidecar = |pod: &mut Value| pod["spec"]["initContainers"][1].as_object_mut().expect("it is there").clone();
    check_repaired(|pod| {
        let mut container = sidecar(pod);
        container.remove("restartPolicy");
        pod["spec"]["initContainers"][1] = Value::Object(container);
    });
    check_repaired(|pod| pod["spec"]["initContainers"][1]["command"] = json!(["sleep"]));
    check_repaired(|pod| {
        let command = pod["spec"]["initContainers"][1]["command"].as_array_mut().expect("a list");
        command.insert(2, json!("--debug"));
    });
    check_repaired(|pod| pod["spec"]["initContainers"][0]["args"] = json!(["--debug"]));
    check_repaired(|pod| pod["spec"]["initContainers"][2]["env"][0]["valueFrom"] = json!({}));
    check_repaired(|pod| pod["spec"]["volumes"][2] = json!({"name": "pith-mount-data", "hostPath": {"path": "/"}}));
    check_repaired(|pod| pod["metadata"]["labels"] = json!({}));
    check_repaired(|pod| pod["metadata"]["labels"][DONE_LABEL] = json!("false"));
    check_repaired(|pod| pod["spec"]["initContainers"][0]["volumeMounts"][1]["mountPropagation"] = json!("None"));
    for removed in [0..1, 1..2, 2..3, 0..2, 1..3, 0..3] {
        check_repaired(|pod| drop(pod["spec"]["initContainers"].as_array_mut().expect("a list").drain(removed)));
    }
}

#[test]
fn a_forged_record_skips_nothing() {
    let forged =
        r#"{"version":1,"sidecars":[{"claim":"orders","container":"jfs-mount","volumes":["pith-mount-data"]}]}"#;
    let plain = with_orders().inject(&orders().0);
    let pod = orders().labelled(DONE_LABEL, "true").annotated(STATUS_ANNOTATION, forged);
    assert_eq!(with_orders().inject(&pod.0), plain);
    for nonsense in ["", "true", "[]", "{\"sidecars\":5}", "{\"sidecars\":[5]}", "not json"] {
        assert_eq!(with_orders().inject(&orders().annotated(STATUS_ANNOTATION, nonsense).0), plain, "{nonsense}");
    }
}

#[test]
fn shapes_that_the_api_server_never_sends_still_get_a_patch_that_fits() {
    for (path, shape) in [
        ("/metadata/labels", Value::Null),
        ("/metadata/annotations", Value::Null),
        ("/spec/initContainers", Value::Null),
        ("/spec/ephemeralContainers", Value::Null),
        ("/spec/containers", Value::Null),
        ("/spec/containers/0", json!(5)),
        ("/spec/containers/0/volumeMounts", Value::Null),
        ("/spec/containers/0/volumeMounts", json!({"0": "data"})),
        ("/spec/containers/0/volumeMounts/0", json!("data")),
        ("/spec/containers/0/volumeMounts/0/name", json!(7)),
        ("/spec/containers/0/volumeMounts/0/mountPropagation", json!(7)),
        ("/spec/containers/0/name", json!(7)),
    ] {
        let pod = mount(json!({"mountPropagation": "None"})).labelled("a", "b").annotated("a", "b");
        let mut pod = pod.with_init_container(json!({"name": "setup"})).0;
        pod["spec"]["ephemeralContainers"] = json!([]);
        *pod.pointer_mut(path).expect(path) = shape;
        let injected = with_orders().inject(&pod);
        assert_eq!(injected["metadata"]["labels"][DONE_LABEL], "true", "{path}");
        assert_eq!(injected["spec"]["initContainers"][0]["name"], "pith-guard", "{path}");
    }
    let bare = json!({"spec": orders().0["spec"]});
    assert_eq!(with_orders().inject(&bare)["metadata"]["labels"], json!({DONE_LABEL: "true"}));
}

#[test]
fn a_binding_may_say_the_shape_of_the_pods_that_it_is_for() {
    let check = |change: fn(&mut Binding), expected: &str| {
        let world = with_orders().adjusting("plain", |_| Ok(Change::default()));
        let world = world.bound(|binding| binding.shape = Some(Shape::Container)).bound(change);
        let pod = orders().labelled("app", "web").0;
        assert_eq!(names(&world.inject(&pod), "initContainers")[0], expected);
    };
    check(|_| {}, "pith-init");
    check(|it| it.shape = Some(Shape::NativeSidecar), "pith-guard");
    check(|it| it.shape = None, "pith-guard");
    check(|it| it.mode = binding::Mode::Monitor, "pith-guard");
    check(|it| it.matches.pods.labels = entries(&[("app", "web")]), "pith-init");
    check(|it| it.matches.pods.labels = entries(&[("app", "db")]), "pith-guard");
    check(|it| it.matches.storage_classes = ["juicefs".to_string()].into(), "pith-init");
    check(|it| it.matches.storage_classes = ["other".to_string()].into(), "pith-guard");
    // It is not the policy's to decide.
    check(|it| it.hooks.clear(), "pith-init");
}

/// The names of a pod's containers in one list.
fn names<'a>(pod: &'a Value, containers: &str) -> Vec<&'a str> {
    list(&pod["spec"][containers]).iter().filter_map(|it| it["name"].as_str()).collect()
}

fn with_plain_containers() -> World {
    let mut world = with_orders();
    world.configuration.shape = Some(Shape::Container);
    world
}

#[test]
fn the_shape_is_what_the_cluster_can_unless_the_configuration_says_one() {
    let check = |configured: Option<Shape>, lacks: bool, expected: &str| {
        let mut world = with_orders();
        world.configuration.shape = configured;
        world.objects.lacks_native_sidecars = lacks;
        let injected = world.inject(&orders().0);
        assert_eq!(names(&injected, "initContainers")[0], expected, "{configured:?}, {lacks}");
    };
    check(None, false, "pith-guard");
    check(None, true, "pith-init");
    check(Some(Shape::NativeSidecar), true, "pith-guard");
    check(Some(Shape::Container), false, "pith-init");
}

#[test]
fn where_sidecars_are_plain_containers_they_stand_before_the_application() {
    let world = with_plain_containers();
    let pod = orders().with_init_container(json!({"name": "init"})).0;
    let injected = world.inject(&pod);
    assert_eq!(names(&injected, "initContainers"), ["pith-init", "init"]);
    assert_eq!(names(&injected, "containers"), ["pith-guard", "jfs-mount", "app"]);
    assert_eq!(world.inject(&injected), injected, "a second pass");
    // Another shape is another pod: nobody's containers are moved.
    assert!(matches!(with_orders().decide(&injected).verdict, Verdict::Refuse(Refusal::ForeignContainer { .. })));
}

#[test]
fn an_init_container_cannot_use_a_client_that_starts_after_it() {
    let mount = json!({"name": "seed", "volumeMounts": [{"name": "data", "mountPath": "/data"}]});
    let pod = orders().with_init_container(mount).0;
    let Verdict::Refuse(refusal) = with_plain_containers().decide(&pod).verdict else { panic!("it is refused") };
    let sentence = refusal.to_string();
    assert!(sentence.starts_with("a pod with an init container that mounts a JuiceFS claim cannot"), "{sentence}");
    assert!(matches!(with_orders().decide(&pod).verdict, Verdict::Inject(_)));
}

#[test]
fn a_pod_that_would_never_complete_says_so() {
    let check = |policy: &str, complete: bool, expected: bool| {
        let mut world = with_plain_containers();
        world.configuration.complete_jobs = complete;
        let pod = orders().specifying("restartPolicy", json!(policy)).0;
        let warns = world.decide(&pod).warnings.iter().any(|it| it.contains("sidecar.completeJobs"));
        assert_eq!(warns, expected, "{policy}, {complete}");
        let injected = world.inject(&pod);
        let told = list(&injected["spec"]["volumes"]).iter().any(|it| it["name"] == "pith-finish");
        assert_eq!(told, complete && policy != "Always");
        assert_eq!(world.inject(&injected), injected, "a second pass");
    };
    check("Never", false, true);
    check("OnFailure", false, true);
    check("OnFailure", true, false);
    check("Always", false, false);
    check("Always", true, false);
}

#[test]
fn what_a_node_has_is_left_out_on_virtual_nodes() {
    let labels = entries(&[("juicefs.com/enable-serverless-injection", "true")]);
    let namespace = Namespace { name: "shop".into(), labels, ..Namespace::default() };
    let volumes = json!([{
        "volumes": [{"name": "certificates", "hostPath": {"path": "/etc/ssl"}}],
        "volumeMounts": [{"name": "certificates", "mountPath": "/etc/ssl"}],
        "cacheDirs": [{"type": "HostPath", "path": "/cache"}],
    }]);
    let world = with_orders().with(Object::Namespace(namespace)).patching(volumes);
    let pod = orders().annotated("vke.volcengine.com/burst-to-vci", "enforce");
    let decision = world.decide(&pod.0);
    assert!(decision.warnings.iter().any(|it| it.contains("no folder of the node")), "{:?}", decision.warnings);
    let injected = world.inject(&pod.0);
    assert!(list(&injected["spec"]["volumes"]).iter().all(|volume| volume.get("hostPath").is_none()), "{injected}");
    assert_eq!(names(&injected, "initContainers"), ["jfs-mount-orders"]);
    let annotations = &injected["metadata"]["annotations"];
    assert_eq!(
        annotations["vci.vke.volcengine.com/config-bidirectional-mount-propagation"],
        r#"[{"container":"jfs-mount-orders","mountPath":"/jfs/data"}]"#
    );
    assert_eq!(world.inject(&injected), injected, "a second pass");
}
