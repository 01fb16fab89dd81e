//! Which bindings are asked, and in which order.

use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::object::{Claim, Namespace};
use crate::policy::PodFacts;
use crate::testing::{binding, claim, entries};

fn named(name: &str, priority: i32) -> Binding {
    Binding { priority, ..binding(name, Hook::Sidecar) }
}

#[test]
fn lower_priority_is_asked_earlier_and_equal_ones_by_name() {
    let mut bindings = [named("b", 0), named("c", -1), named("a", 0), named("d", 10)];
    bindings.sort_by(order);
    assert_eq!(bindings.map(|binding| binding.name), ["c", "a", "b", "d"]);
}

fn labelled(labels: &[(&str, &str)]) -> LabelSelector {
    LabelSelector { labels: entries(labels), expressions: Vec::new() }
}

/// A volume whose claim has this label and class.
fn volume(team: &str, class: Option<&str>) -> VolumeFacts {
    VolumeFacts {
        name: "data".into(),
        claim: Arc::new(Claim {
            labels: entries(&[("team", team)]),
            storage_class: class.map(String::from),
            ..claim("orders")
        }),
        read_only: false,
        class_parameters: Arc::default(),
        volume_attributes: Arc::default(),
    }
}

/// Whether a binding is asked about a pod labelled `app: web` in a namespace labelled `env: prod`: whether it is
/// exempt, what each sidecar looks like, and what each volume's directory is called.
fn asked(hook: Hook, matches: Match, volumes: &[VolumeFacts]) -> (bool, Vec<bool>, Vec<bool>) {
    let subject = Subject {
        pod: PodFacts { labels: entries(&[("app", "web")]), ..PodFacts::default() },
        namespace: Arc::new(Namespace { labels: entries(&[("env", "prod")]), ..Namespace::default() }),
        object: &Value::Null,
    };
    let bindings = [Binding { matches, ..binding("it", hook) }];
    let of_pod = for_exemption(&bindings, &subject, volumes).count() == 1;
    let of_sidecars = volumes.iter().map(|volume| for_sidecar(&bindings, &subject, volume).count() == 1).collect();
    let named =
        |volume: &VolumeFacts| for_volume(&bindings, Hook::Naming, &volume.claim, &subject.namespace).count() == 1;
    (of_pod, of_sidecars, volumes.iter().map(named).collect())
}

/// `expected` says which of the two volumes match where a pod counts too, `named` where only the claim does.
#[track_caller]
fn check_naming(matches: Match, expected: [bool; 2], named: [bool; 2]) {
    let volumes = [volume("web", Some("gold")), volume("data", None)];
    let any = expected.contains(&true);
    let none = vec![false, false];
    let asked = |hook| asked(hook, matches.clone(), &volumes);
    assert_eq!(asked(Hook::Exemption), (any, none.clone(), none.clone()), "{matches:?}");
    assert_eq!(asked(Hook::Sidecar), (false, expected.to_vec(), none.clone()), "{matches:?}");
    assert_eq!(asked(Hook::Naming), (false, none, named.to_vec()), "{matches:?}");
}

#[track_caller]
fn check(matches: Match, expected: [bool; 2]) {
    check_naming(matches, expected, expected);
}

#[test]
fn each_selector_narrows_and_all_must_match() {
    let any = Match::default;
    check(any(), [true, true]);
    check(Match { namespaces: labelled(&[("env", "prod")]), ..any() }, [true, true]);
    check(Match { namespaces: labelled(&[("env", "test")]), ..any() }, [false, false]);
    check(Match { pods: labelled(&[("app", "web")]), ..any() }, [true, true]);
    // Where a volume is made there is no pod to look at.
    check_naming(Match { pods: labelled(&[("app", "db")]), ..any() }, [false, false], [true, true]);
    check(Match { claims: labelled(&[("team", "data")]), ..any() }, [false, true]);
    check(Match { storage_classes: ["gold".to_string()].into(), ..any() }, [true, false]);
    check(Match { storage_classes: ["lead".to_string()].into(), ..any() }, [false, false]);
    check(
        Match { claims: labelled(&[("team", "data")]), storage_classes: ["gold".to_string()].into(), ..any() },
        [false, false],
    );
}

#[test]
fn an_exemption_policy_is_asked_only_where_a_volume_matches() {
    assert_eq!(asked(Hook::Exemption, Match::default(), &[]), (false, vec![], vec![]));
}

/// Which of the claims `0` to `999` a binding is put to.
fn share(name: &str, percent: u8) -> BTreeSet<usize> {
    let binding = Binding { percent, ..binding(name, Hook::Naming) };
    let namespace = Namespace { name: "shop".into(), ..Namespace::default() };
    (0..1000).filter(|index| binding.meets_claim(&claim(&index.to_string()), &namespace).is_ok()).collect()
}

#[test]
fn a_share_is_always_the_same_objects_and_a_larger_one_those_and_more() {
    let shares = [0, 1, 5, 50, 99, 100].map(|percent| share("new", percent));
    assert!(shares.windows(2).all(|pair| pair[0].is_subset(&pair[1])));
    for (share, expected) in shares.iter().zip([0..=0, 1..=25, 30..=75, 450..=550, 975..=999, 1000..=1000]) {
        assert!(expected.contains(&share.len()), "{} of 1000, and {expected:?} are expected", share.len());
    }
    assert_eq!(share("new", 5), shares[2]);
    assert_ne!(share("other", 5), shares[2], "it is not always the same ones who try what is new");
}

#[test]
fn the_pods_of_a_workload_share_a_fate_over_its_roll_outs() {
    let check = |name: Option<&str>, prefix: Option<&str>, hash: Option<&str>, expected: &str| {
        let labels = hash.map(|hash| entries(&[("pod-template-hash", hash)])).unwrap_or_default();
        let (name, generate_name) = (name.map(String::from), prefix.map(String::from));
        assert_eq!(workload(&PodFacts { name, generate_name, labels, ..PodFacts::default() }), expected);
    };
    check(None, Some("web-7c9d5f6b8-"), Some("7c9d5f6b8"), "web-");
    check(Some("web-7c9d5f6b8-x7k2p"), Some("web-7c9d5f6b8-"), Some("7c9d5f6b8"), "web-");
    check(None, Some("web-7c9d5f6b8-"), Some("other"), "web-7c9d5f6b8-");
    check(Some("db-0"), Some("db-"), None, "db-");
    check(Some("alone"), None, None, "alone");
    check(None, None, None, "");
}

#[test]
fn what_is_not_asked_says_why() {
    let check = |changed: Binding, expected: &str| {
        let namespace = Namespace { name: "shop".into(), ..Namespace::default() };
        let claim = Claim { storage_class: Some("gold".into()), ..claim("orders") };
        let miss = changed.meets_claim(&claim, &namespace).expect_err("it does not fit");
        assert_eq!(miss.to_string(), expected);
    };
    let any = || binding("it", Hook::Naming);
    let prod = labelled(&[("env", "prod")]);
    check(
        Binding { matches: Match { namespaces: prod, ..Match::default() }, ..any() },
        "its namespaceSelector does not fit the labels of the namespace",
    );
    check(
        Binding { matches: Match { storage_classes: ["lead".to_string()].into(), ..Match::default() }, ..any() },
        "neither its claimSelector nor its storageClasses leave a claim to ask about",
    );
    let miss = Binding { percent: 0, ..any() }.meets_claim(&claim("orders"), &Namespace::default());
    assert!(matches!(miss, Err(Miss::Share { percent: 0, number: 0..=99 })), "{miss:?}");
}

/// The pairs in which one takes answers of the other, as `a>b naming`.
#[track_caller]
fn check_shadows(bindings: &[Binding], expected: &[&str]) {
    let found: Vec<String> =
        shadows(bindings).iter().map(|it| format!("{}>{} {}", it.by, it.binding, it.what)).collect();
    assert_eq!(found, expected);
}

#[test]
fn an_earlier_binding_shadows_a_later_one_only_where_it_is_for_all_of_the_same() {
    let naming = |name: &str| binding(name, Hook::Naming);
    let team = |name: &str, team: &str| {
        let matches = Match { claims: labelled(&[("team", team)]), ..Match::default() };
        Binding { matches, ..naming(name) }
    };
    let classes = |name: &str, classes: &[&str]| {
        let storage_classes = classes.iter().map(ToString::to_string).collect();
        Binding { matches: Match { storage_classes, ..Match::default() }, ..naming(name) }
    };
    check_shadows(&[naming("all"), team("web", "web")], &["all>web naming"]);
    check_shadows(&[team("web", "web"), naming("all")], &[]);
    check_shadows(&[team("a", "web"), team("b", "web"), team("c", "data")], &["a>b naming"]);
    check_shadows(&[classes("a", &["x", "y"]), classes("b", &["x"]), naming("c")], &["a>b naming"]);
    let conditioned = |name: &str| {
        let conditions = vec![Condition::parse("it", "claim.name == 'a'").expect("it can be read")];
        Binding { matches: Match { conditions, ..Match::default() }, ..naming(name) }
    };
    check_shadows(&[conditioned("a"), naming("b")], &[]);
    check_shadows(&[conditioned("a"), conditioned("b")], &["a>b naming"]);
    check_shadows(&[Binding { percent: 99, ..naming("a") }, naming("b")], &[]);
    check_shadows(&[Binding { mode: Mode::Monitor, ..naming("a") }, naming("b")], &[]);
    check_shadows(&[binding("a", Hook::Sidecar), binding("b", Hook::Sidecar)], &[]);
    let shaped = |name: &str| Binding { shape: Some(Shape::Container), ..binding(name, Hook::Sidecar) };
    check_shadows(&[shaped("a"), shaped("b")], &["a>b shape"]);
}

/// What becomes of a binding with these conditions for a pod with these volumes.
#[track_caller]
fn check_conditions(expressions: &[&str], volumes: &[VolumeFacts], expected: &str) {
    let read = |(index, it): (usize, &&str)| Condition::parse(&format!("c{index}"), it).expect("it can be read");
    let conditions = expressions.iter().enumerate().map(read).collect();
    let matches = Match { claims: labelled(&[("team", "web")]), conditions, ..Match::default() };
    let binding = Binding { matches, ..binding("it", Hook::Exemption) };
    let subject = Subject {
        pod: PodFacts { labels: entries(&[("app", "web")]), ..PodFacts::default() },
        namespace: Arc::default(),
        object: &Value::Null,
    };
    let found = binding.meets_pod(&subject, volumes.iter());
    assert_eq!(found.map_or_else(|miss| miss.to_string(), |()| "asked".into()), expected, "{expressions:?}");
}

#[test]
fn conditions_come_after_selectors_and_one_claim_that_all_hold_for_is_enough() {
    let (gold, lead) = (volume("web", Some("gold")), volume("web", Some("lead")));
    let is_gold = "claim.storageClass == 'gold'";
    check_conditions(&["pod.labels.app == 'web'", is_gold], &[lead.clone(), gold.clone()], "asked");
    check_conditions(&["true", is_gold], std::slice::from_ref(&lead), "its condition `c1` does not hold");
    let fails = "claim.labels.owner == 'me'";
    let selectors = "neither its claimSelector nor its storageClasses leave a claim to ask about";
    check_conditions(&[fails], &[volume("data", None)], selectors);
    let unknown = "its condition `c0` cannot be evaluated: there is no `owner`: ask for it first, with has() or `in`";
    check_conditions(&[fails, is_gold], std::slice::from_ref(&gold), unknown);
    check_conditions(&[fails, is_gold], std::slice::from_ref(&lead), "its condition `c1` does not hold");
    // Nobody can tell of the first claim, and the second is none: that may be the one to be asked about.
    check_conditions(&[fails, is_gold], &[gold.clone(), lead.clone()], unknown);
    check_conditions(&["claim.storageClass == 'lead' || claim.labels.owner == 'me'"], &[gold, lead], "asked");
}
