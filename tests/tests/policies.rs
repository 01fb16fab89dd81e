//! The first-party policies through the real host: `pith policy test` asks them the same tables of cases as their own native tests.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use pith_tests::server::{PITH, root};
use pith_tests::wasm_builds;
use serde_json::{Value, json};

/// Every first-party policy, by its folder, and the one hook that it has.
const POLICIES: [(&str, &str); 3] = [("exemption", "exemption"), ("naming", "naming"), ("resources", "sidecar")];

/// Runs `pith policy` and gives the exit code, the output and what it complained about.
fn policy(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(&*PITH).arg("policy").args(arguments).output().expect("pith runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

/// What comes of a table of its own.
fn tried(module: &str, table: &str, more: &[&str]) -> (Option<i32>, Value) {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = folder.path().join("cases.yaml");
    std::fs::write(&cases, table).expect("written");
    let module = wasm_builds::policy(module);
    let (code, report, complaint) =
        policy(&[&["test", text(&module), "--cases", text(&cases), "-o", "json"], more].concat());
    (code, serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {complaint}")))
}

#[test]
fn every_policy_answers_its_table_in_wasm() {
    for (name, hook) in POLICIES {
        let module = wasm_builds::policy(name);
        let (_, inspected, _) = policy(&["inspect", text(&module), "-o", "json"]);
        let inspected: Value = serde_json::from_str(&inspected).expect("JSON");
        assert_eq!((&inspected[0]["hooks"], &inspected[0]["settings"]), (&json!([hook]), &json!(true)));
        let cases = root().join("policies").join(name).join("cases.yaml");
        let (code, said, complaint) = policy(&["test", text(&module), "--cases", text(&cases)]);
        assert_eq!(code, Some(0), "{name}: {said}{complaint}");
        let asked = said.lines().filter(|line| line.starts_with("ok ")).count();
        assert!(asked >= 10 && said.ends_with(&format!("\n{asked} cases, 0 failed\n")), "{name}: {said}");
    }
}

#[test]
fn no_policy_folder_is_left_out() {
    let folders = std::fs::read_dir(root().join("policies")).expect("a folder");
    let folders = folders.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
    let known: BTreeSet<String> = POLICIES.iter().map(|(policy, _)| policy.to_string()).collect();
    assert_eq!(folders.collect::<BTreeSet<_>>(), known);
}

#[test]
fn a_case_that_fails_says_what_was_expected_and_what_was_answered() {
    let check = |case: &str, more: &[&str], answered: Value| {
        let (code, report) = tried("exemption", &format!("- name: it\n  {case}\n"), more);
        assert_eq!((code, &report["failed"]), (Some(1), &json!(1)), "{report:#}");
        assert_eq!(report["cases"][0]["answered"], answered, "{report:#}");
    };
    let asked = "hook: exemption\n  input: { namespace: { name: ops } }\n  expect:";
    check(&format!("{asked} {{ skip: other words }}"), &[], json!("inject"));
    check(&format!("{asked} {{ error: it failed }}"), &[], json!("inject"));
    let refused = "hook: exemption\n  settings: { kindz: [] }\n  expect: inject";
    let (_, report) = tried("exemption", &format!("- name: it\n  {refused}\n"), &[]);
    assert_eq!(report["cases"][0]["answered"]["failure"], "the settings are refused", "{report:#}");
    assert_eq!(report["cases"][0]["answered"]["settings"]["problem"]["field"], "kindz", "{report:#}");
    let other = "hook: naming\n  expect: pass";
    check(other, &[], json!({"failure": "the module has no hook `naming`"}));
    // Less than what a module of Rust has to begin with.
    let (_, report) = tried("exemption", &format!("- name: it\n  {asked} inject\n"), &["--memory", "64Ki"]);
    let failure = report["cases"][0]["answered"].to_string();
    assert!(failure.contains("limit"), "{failure}");
}

#[test]
fn a_table_that_cannot_be_asked_says_why() {
    let module = wasm_builds::policy("exemption");
    let folder = tempfile::tempdir().expect("a folder");
    let cases = folder.path().join("cases.yaml");
    let check = |table: &str, more: &[&str], sentence: &str| {
        std::fs::write(&cases, table).expect("written");
        let arguments = [&["test", text(&module), "--cases", text(&cases)], more].concat();
        let (code, _, complaint) = policy(&arguments);
        assert_eq!(code, Some(2), "{complaint}");
        assert!(complaint.contains(sentence), "expected `{sentence}` in: {complaint}");
    };
    check("[]", &[], "cases.yaml has no cases");
    check("- name: it\n  hook: exempt\n  expect: inject\n", &[], "the table of cases cannot be read");
    check("- name: it\n  hook: exemption\n  expect: maybe\n", &[], "case \"it\": expect");
    let good = "- name: it\n  hook: exemption\n  expect: inject\n";
    check(good, &["--deadline", "1h"], "a case cannot have limits.deadline outside 1ms to 10s");
    check(good, &["--memory", "1Gi"], "a case cannot have limits.memory outside 64Ki to 64Mi");
}
