//! What is taken as a condition, what it answers, and what stays bounded whatever somebody writes.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::testing::{claim, entries};

fn pod() -> PodFacts {
    PodFacts {
        name: None,
        generate_name: Some("web-".into()),
        labels: entries(&[("app", "web"), ("team", "data")]),
        annotations: entries(&[("note", "two words"), (LAST_APPLIED, "{}")]),
        owners: vec![Owner {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: "web-1".into(),
            controller: true,
        }],
        service_account: "default".into(),
        ..PodFacts::default()
    }
}

/// What an expression says of a pod, or of the volume of a claim.
fn asked(expression: &str, pod: Option<&PodFacts>) -> Result<bool, String> {
    let condition = Condition::parse("it", expression).unwrap_or_else(|problem| panic!("{expression}: {problem}"));
    let namespace = Namespace { name: "shop".into(), labels: entries(&[("env", "prod")]), ..Namespace::default() };
    let claim = Claim {
        storage_class: Some("gold".into()),
        requested_bytes: Some(10 << 30),
        access_modes: vec![crate::object::AccessMode::ReadWriteMany],
        ..claim("orders")
    };
    condition.holds(&About { pod, namespace: &namespace, claim: &claim })
}

#[track_caller]
fn check(expression: &str, expected: bool) {
    assert_eq!(asked(expression, Some(&pod())), Ok(expected), "{expression}");
}

#[track_caller]
fn check_fails(expression: &str, expected: &str) {
    let why = asked(expression, Some(&pod())).expect_err(expression);
    assert_eq!(why, format!("`it` cannot be evaluated: {expected}"), "{expression}");
}

#[track_caller]
fn check_refused(expression: &str, expected: &str) {
    let problem = Condition::parse("it", expression).expect_err(expression).to_string();
    assert!(problem.contains(expected), "expected `{expected}` for {expression}: {problem}");
}

#[test]
fn it_is_said_of_pods_namespaces_and_claims_what_kubernetes_says() {
    check("pod.labels.app == 'web' && pod.labels['team'] in ['data', 'ml']", true);
    check("'team' in pod.labels && !('owner' in pod.labels)", true);
    check("has(pod.labels.owner) || pod.labels.team.startsWith('da')", true);
    check("has(pod.name)", false);
    check("has(pod.generateName) && pod.generateName.endsWith('-')", true);
    check("pod.owners.exists(it, it.controller && it.kind == 'ReplicaSet')", true);
    check("pod.owners.all(it, it.kind == 'Job')", false);
    check("pod.labels.exists_one(key, key.contains('am'))", true);
    check("pod.owners[0].kind == 'DaemonSet'", false);
    check("size(pod.annotations) == 1", true);
    check("pod.annotations.note.matches('^[a-z]+ [a-z]+$') && !pod.labels.app.matches('^b')", true);
    check("pod.serviceAccount == 'default' && !has(pod.priorityClass)", true);
    check("namespaceObject.name == 'shop' && namespaceObject.labels.env != 'test'", true);
    check("claim.storageClass == 'gold' && claim.requestedBytes >= 10 * 1024 * 1024 * 1024", true);
    check("'ReadWriteMany' in claim.accessModes && claim.name == 'orders'", true);
    check("pod == null", false);
    check("pod != null && namespaceObject.name + '/' + claim.name == 'shop/orders'", true);
    check("true ? pod.labels.app == 'web' : false", true);
    assert_eq!(asked("pod == null || pod.labels.app == 'db'", None), Ok(true));
}

#[test]
fn what_cannot_be_evaluated_is_no_answer_and_says_why() {
    check_fails("pod.labels.owner == 'me'", "there is no `owner`: ask for it first, with has() or `in`");
    check_fails("pod.name == 'web'", "there is no `name`: ask for it first, with has() or `in`");
    check_fails("pod.labels.app > 3", "found no matching overload for '_>_' applied to '(string, int)'");
    check_fails("pod.owners[7].kind == 'Job'", "a list is not that long");
    check_fails("claim.requestedBytes / 0 == 1", "it divides by zero");
    check_fails("claim.requestedBytes * 9223372036854775807 > 0", "a number is too large");
    check_fails("int(pod.labels.app) == 1", "`int` cannot read what it is given");
    check_fails(
        "pod.owners[0].controller ? pod.owners[0].kind : false",
        "it gives a value of the type `string`, and a condition is true or false",
    );
    let why = asked("pod.labels.app == 'web'", None).expect_err("there is none");
    assert!(why.ends_with("; where a volume is made there is no pod: begin with `pod == null || `"), "{why}");
    // What is false needs no answer of the rest, and one that is true none either.
    check("pod.labels.app == 'db' && pod.labels.owner == 'me'", false);
    check("pod.labels.owner == 'me' || pod.labels.app == 'web'", true);
}

#[test]
fn what_is_wrong_is_found_when_it_is_read_with_its_place() {
    check_refused("", "line 1");
    check_refused("pod.labels.app ==", "line 1, column 18");
    check_refused("true &&\n  pod.lables.app == 'a'", "line 2, column 6: `pod` has no field `lables`: it has labels,");
    check_refused(
        "object.metadata.name == 'a'",
        "there is no variable `object`: there are pod, namespaceObject and claim",
    );
    check_refused("namespace.name == 'a'", "namespace");
    check_refused("pod.labels.app", "it gives text, and a condition is true or false");
    check_refused("size(pod.labels)", "it gives a number");
    check_refused("[true]", "it gives a list");
    check_refused("pod.labels", "it gives a map");
    check_refused("null", "it gives null");
    check_refused("pod['labels'].app == 'a'", "name a field of it, such as `pod.labels`");
    check_refused("pod.labels.app.lowerAscii() == 'a'", "`lowerAscii` is no function here");
    check_refused("timestamp('2026-01-01T00:00:00Z') < now()", "is no function here");
    check_refused("{'a': true}['a']", "maps and objects cannot be made here");
    check_refused("pod.labels.app.matches('(')", "the pattern cannot be used");
    check_refused("pod.labels.app.matches('\\\\w{1000}{1000}')", "the pattern cannot be used");
    check_refused("pod.labels.app.matches(pod.labels.team)", "the pattern of matches() must be written out");
    check_refused("matches(pod.labels.app, 'a')", "write it as text.matches('pattern')");
    check_refused("pod.?labels.app == 'a'", "line 1");
    check_refused("pod.labels.map(key, key) == []", "no other macros");
    check_refused("pod.labels.exists(pod, true)", "`pod` has a meaning already");
}

#[test]
fn what_could_go_on_for_long_is_not_taken() {
    let within = "within another is not taken";
    check_refused("pod.labels.exists(one, pod.labels.exists(other, one != other))", within);
    check_refused("[pod.labels.exists(one, true)].exists(other, other)", within);
    check_refused("pod.labels.exists(key, (key + key) == 'a')", "`+` within");
    check_refused("pod.labels.exists(key, key.matches('a'))", "matches() within");
    check_refused(&format!("{}true", " ".repeat(LONGEST)), "at most 1024");
    let brackets = |count: usize| format!("{}true{}", "(".repeat(count), ")".repeat(count));
    check_refused(&brackets(500), "Recursion limit");
    check(&brackets(8), true);
    check_refused(&sum(15), "it is nested deeper than 16 levels");
    check_refused(&sum(500), "it is nested deeper than 16 levels");
    check_refused(&format!("{}[0]", "-".repeat(1000)), "");
    // Many terms are not deep.
    check(&format!("{}true", "pod.labels.app=='web'&&".repeat(40)), true);
}

/// So many subtractions: one level each.
fn sum(subtractions: usize) -> String {
    format!("{}0 == 0", "0-".repeat(subtractions))
}

/// A request's stack has 2 MiB, and others need of it too.
#[test]
fn the_deepest_expression_needs_no_more_stack_than_there_is() {
    let deep = format!("pod.owners.all(it, {})", sum(12));
    Condition::parse("it", &format!("pod.owners.all(it, {})", sum(13))).expect_err("one more is too deep");
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    let thread = thread.spawn(move || asked(&deep, Some(&pod())));
    assert_eq!(thread.expect("a thread").join().expect("it ends"), Ok(true));
}

#[test]
fn an_object_that_is_too_large_is_no_answer() {
    let labels = (0..=MOST_ENTRIES).map(|index| (index.to_string(), String::new())).collect();
    let large = PodFacts { labels, annotations: entries(&[("a", &"b".repeat(MOST_TEXT))]), ..pod() };
    let why = |expression: &str| asked(expression, Some(&large)).expect_err("it is too large");
    assert!(why("'a' in pod.labels").contains("`pod.labels` has 257 entries: at most 256"));
    assert!(
        why("'a' in pod.annotations").contains("`pod.annotations` is too much: an expression looks at 65536 bytes")
    );
    assert_eq!(asked("claim.name == 'orders'", Some(&large)), Ok(true), "what is not read does not count");
}

/// The slowest that could be thought of is far from what a request has time for. The bound is generous: tests run on busy machines.
#[test]
#[expect(clippy::disallowed_methods, reason = "how long it takes is what is tested")]
fn the_slowest_expressions_about_the_largest_object_end_soon() {
    let labels: Entries = (0..MOST_ENTRIES).map(|index| (format!("k{index}"), "a".repeat(100))).collect();
    let large = PodFacts { labels, annotations: entries(&[("a", &"a".repeat(30_000))]), ..pod() };
    let repeated = |start: &str, part: &str, end: &str| {
        let most = if part.starts_with('+') { 13 } else { LONGEST };
        format!("{start}{}{end}", part.repeat(most.min((LONGEST - start.len() - end.len()) / part.len())))
    };
    for expression in [
        repeated("pod.labels.all(k, true", "&&!pod.annotations.a.contains('ab')", ")"),
        repeated("pod.labels.all(k, true", "&&size(pod.annotations.a)>0", ")"),
        repeated("true", "&&!pod.annotations.a.matches('(a|aa)+b')", ""),
        repeated("''", "+pod.annotations.a", "!=''"),
        repeated("true", "&&pod.labels.all(k,k!='')", ""),
    ] {
        let started = Instant::now();
        assert_eq!(asked(&expression, Some(&large)), Ok(true), "{expression}");
        let took = started.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}: {expression}");
    }
}

proptest! {
    /// Whatever is written is taken or refused, and what is taken answers or says why it cannot.
    #[test]
    fn no_text_ends_the_process(text in "[ -~\\n\u{e4}]{0,60}") {
        let _ = Condition::parse("it", &text).map(|it| holds(&it));
    }

    #[test]
    fn no_expression_ends_the_process(parts in prop::collection::vec(prop::sample::select(PARTS), 0..24)) {
        let _ = Condition::parse("it", &parts.concat()).map(|it| holds(&it));
    }
}

/// What expressions are made of.
const PARTS: &[&str] = &[
    "pod",
    ".labels",
    ".owners",
    "claim",
    ".requestedBytes",
    "['app']",
    "[0]",
    "has(",
    "size(",
    "int(",
    ")",
    "(",
    "!",
    "-",
    "&&",
    "||",
    "?",
    ":",
    "==",
    "<",
    " in ",
    "+",
    "*",
    "%",
    "/",
    "null",
    "true",
    "'a'",
    "b'a'",
    "1",
    "9223372036854775807",
    "1.5",
    "2u",
    "[",
    "]",
    ",",
    "{",
    "}",
    ".exists(it,",
    ".all(it,",
    ".matches('a')",
    ".contains('a')",
    "it",
    ".",
    "\"",
    "'''",
    "\\",
    "`",
    ".?",
];

fn holds(condition: &Condition) -> Result<bool, String> {
    let (namespace, claim) = (Namespace::default(), Claim::default());
    condition.holds(&About { pod: Some(&pod()), namespace: &namespace, claim: &claim })
}
