//! The codes, which scripts and metrics depend on, and the sentences beside them.

use std::time::Duration;

use super::*;
use crate::budget::Spent;
use crate::catalogue::{CATALOGUE, Place};
use crate::validation::Problem;

fn skips() -> Vec<Skip> {
    vec![
        Skip::NotAPodCreation,
        Skip::NoClaims,
        Skip::NoJuiceFsClaims,
        Skip::NamespaceNotEnabled,
        Skip::DisabledByLabel,
        Skip::Policy { binding: "b".into(), reason: "r".into() },
    ]
}

fn refusals() -> Vec<Refusal> {
    let text = String::new;
    vec![
        Refusal::Malformed(text()),
        Refusal::NamespaceUnknown(text()),
        Refusal::ClaimNotFound { volume: text(), namespace: text(), claim: text() },
        Refusal::PersistentVolumeUnknown { claim: text(), persistent_volume: text() },
        Refusal::UnsupportedVolume { volume: text(), form: "" },
        Refusal::UnsupportedPod { what: "", why: "" },
        Refusal::Setting { origin: text(), field: text(), value: text(), why: text() },
        Refusal::ForeignContainer { container: text() },
        Refusal::ForeignVolume { volume: text() },
        Refusal::Policy { binding: text(), sentence: text() },
    ]
}

fn failures() -> Vec<Failure> {
    vec![
        Failure::Trap(String::new()),
        Failure::Deadline(Duration::ZERO),
        Failure::Stack,
        Failure::Memory(String::new()),
        Failure::Budget(""),
        Failure::Answer(String::new()),
        Failure::Paused(Duration::ZERO),
        Failure::Rate(Spent { limit: "", again: Duration::ZERO }),
        Failure::Condition(String::new()),
        Failure::Reported(String::new()),
        Failure::Host(String::new()),
    ]
}

fn problems() -> Vec<Problem> {
    vec![
        Problem::DuplicateHandle { handle: String::new(), other: String::new() },
        Problem::Secret(String::new()),
        Problem::Binding(String::new()),
        Problem::MountPodInUse { users: 1 },
    ]
}

/// These codes are all that the catalogue has for a place, each of them once.
#[track_caller]
fn check(place: Place, codes: impl Iterator<Item = Code>) {
    let entries = CATALOGUE.iter().filter(|entry| entry.places.contains(&place));
    assert_eq!(codes.collect::<Vec<Code>>(), entries.map(|entry| entry.code).collect::<Vec<Code>>(), "{place:?}");
}

#[test]
fn every_entry_of_the_catalogue_is_said_by_one_reason() {
    check(Place::Skip, skips().iter().map(Skip::code));
    check(Place::Denial, refusals().iter().map(Refusal::code).chain(problems().iter().map(Problem::code)));
    check(Place::PolicyFailure, failures().iter().map(Failure::code));
}

#[test]
fn sentences_end_without_a_full_stop() {
    let skips = skips().iter().map(Skip::sentence).collect::<Vec<String>>();
    let refusals = refusals().iter().map(Refusal::to_string).collect::<Vec<String>>();
    for sentence in skips.iter().chain(&refusals) {
        assert!(
            !sentence.ends_with('.') && sentence.starts_with(char::is_lowercase) || sentence.starts_with(' '),
            "{sentence}"
        );
    }
}

#[test]
fn a_failure_says_what_happened() {
    let failure = PolicyFailure { binding: "size".into(), failure: Failure::Deadline(Duration::from_millis(50)) };
    assert_eq!(
        failure.to_string(),
        "policy `size` failed, and its onFailure is `fail`: it ran longer than its deadline of 50 ms"
    );
}
