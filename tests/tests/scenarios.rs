//! The pages `tests/scenarios.md` and `docs/security.md`: every test that they name is there.

use std::fs;
use std::path::Path;

use pith_tests::server::root;

/// All Rust sources below a folder, without those of dependencies.
fn sources(folder: &Path, text: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|it| it == "rs") {
            text.push((path.display().to_string(), fs::read_to_string(&path).expect("a source")));
        }
    }
}

/// The names of tests in a page are of tests that there are.
#[track_caller]
fn check(page: &str, at_least: usize) -> String {
    let page = fs::read_to_string(root().join(page)).expect("the page");
    let mut all = Vec::new();
    for folder in ["host/core/src", "host/src", "tests/fuzz/src", "tests/tests"] {
        sources(&root().join(folder), &mut all);
    }
    let named = page.split('`').skip(1).step_by(2).filter_map(|it| it.split_once("::"));
    let named: Vec<(&str, &str)> = named.filter(|(_, test)| !test.contains(['.', ' '])).collect();
    assert!(named.len() > at_least, "the page names tests: {named:?}");
    for (module, test) in named {
        let is_there = |(path, text): &(String, String)| {
            let of_module = path.contains(&format!("/{module}/")) || path.ends_with(&format!("/{module}.rs"));
            of_module && text.contains(&format!("fn {test}("))
        };
        assert!(all.iter().any(is_there), "there is no test {module}::{test}");
    }
    page
}

#[test]
fn every_test_that_the_page_of_scenarios_names_is_there() {
    let page = check("tests/scenarios.md", 30);
    let numbers = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse::<u32>().ok());
    assert_eq!(numbers.collect::<Vec<_>>(), (1..=24).collect::<Vec<_>>());
}

#[test]
fn every_test_that_the_page_of_security_names_is_there() {
    check("docs/security.md", 25);
}
