//! The codes, which scripts and metrics depend on.

use std::time::Duration;

use super::*;

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
        Failure::Reported(String::new()),
        Failure::Host(String::new()),
    ]
}

#[track_caller]
fn check(mut codes: Vec<&'static str>) {
    for code in &codes {
        let words: Vec<&str> = code.split('-').collect();
        let kebab = words.iter().all(|word| !word.is_empty() && word.bytes().all(|it| it.is_ascii_lowercase()));
        assert!(kebab, "{code} is in kebab case");
    }
    let all = codes.len();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), all, "each code stands for one thing: {codes:?}");
}

#[test]
fn every_code_is_unique_and_in_kebab_case() {
    let skips = skips();
    let refusals = refusals();
    check(skips.iter().map(Skip::code).chain(refusals.iter().map(Refusal::code)).collect());
    check(failures().iter().map(Failure::kind).collect());
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
