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
