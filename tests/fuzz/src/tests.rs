use super::*;

/// Runs every input of a target, and gives back what was made of the seeds.
#[track_caller]
fn check(target: Target, taken: &[(&str, &str)]) {
    for (name, input) in target.found() {
        eprintln!("found/{}/{name}", target.name());
        let _ = target.run(&input);
    }
    let seeds = target.seeds();
    let names: Vec<&str> = seeds.iter().map(|(name, _)| name.as_str()).collect();
    assert!(taken.iter().all(|(name, _)| names.contains(name)), "the seeds are {names:?}");
    for (name, input) in &seeds {
        let outcome = target.run(input).unwrap_or_else(|sentence| format!("refused: {sentence}"));
        if let Some((_, expected)) = taken.iter().find(|(it, _)| it == name) {
            match expected.strip_suffix('…') {
                Some(beginning) => assert!(outcome.starts_with(beginning), "{name}: {outcome}"),
                None => assert_eq!(outcome, *expected, "{name}"),
            }
        }
    }
}

/// A target that refuses everything would find nothing.
#[test]
fn modules_are_loaded_or_refused() {
    check(
        Target::ModuleLoad,
        &[
            ("answers_a_megabyte.wat.module", "core module with 4 hooks"),
            ("answers_a_megabyte.wat.component", "component with 4 hooks"),
            ("wasi.wat", "refused: it exports `pith:policy/quota` with another shape than version 0.1.0 has: …"),
        ],
    );
}

#[test]
fn answers_are_lifted_or_fail() {
    check(
        Target::LiftAnswer,
        &[
            ("exempt-inject", "Inject"),
            ("exempt-skip", "Skip(\"reason\")"),
            ("exempt-deny", "Deny(\"reason\")"),
            ("exempt-error", "refused: reported: it reported: broken"),
            ("exempt-not-utf8", "refused: answer: its answer is not usable: invalid utf-8…"),
            (
                "exempt-beyond-the-end",
                "refused: answer: its answer is not usable: string pointer/length out of bounds…",
            ),
            ("exempt-too-much", "refused: budget: it used up its budget of bytes handed to the host at once"),
            (
                "adjust",
                "Change { requests: [(\"cpu\", Some(\"250m\"))], limits: [(\"cpu\", None)], mount_options: [(\"max-space\", \
                 Set(Some(\"1Gi\")))], env: [(\"A\", None)], cache: Some(EmptyDir { in_memory: true, size_limit: Some(\"cpu\") }) }",
            ),
            ("name-directory", "Directory { components: [\"shop\", \"data\"], shared: true }"),
            ("name-deny", "Deny(\"reason\")"),
            ("quota-on", "Some(On)"),
            ("validate-fine", "fine"),
            ("validate-problem", "field: reason"),
        ],
    );
}

#[test]
fn bindings_are_taken_or_refused() {
    check(
        Target::Binding,
        &[
            ("whole.yaml", "a binding for 4 hooks"),
            ("small.json", "a binding for 0 hooks"),
            ("configuration.yaml", "a configuration with 2 policies"),
        ],
    );
}

#[test]
fn answers_of_registries_are_taken_or_refused() {
    check(
        Target::OciManifest,
        &[
            ("manifest.json", "a manifest of the module sha256:2d711642…"),
            ("index.json", "an index of 1"),
            ("bundle", "signed by cosign"),
            ("statement", "a signature"),
            ("payload", "a signature"),
            ("reference", "the reference ghcr.io:443/team/sizes:1.2@sha256:…"),
            ("docker-config", "a Docker configuration"),
            ("challenge", "Bearer { realm: \"https://auth.example/token\", service: Some(\"registry.example\") }"),
            ("keys", "1 keys"),
        ],
    );
}

#[test]
fn every_folder_of_inputs_is_that_of_a_target() {
    for folder in ["seeds", "found"] {
        for entry in std::fs::read_dir(here(folder)).expect("the folder") {
            let name = entry.expect("an entry").file_name().into_string().expect("a name");
            assert!(Target::named(&name).is_some(), "{folder}/{name} belongs to no target");
        }
    }
}
