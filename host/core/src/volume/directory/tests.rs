//! What a directory may be called, and who may lie beside whom.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn components(list: &[&str]) -> Vec<String> {
    list.iter().map(|component| (*component).to_string()).collect()
}

#[track_caller]
fn check(list: &[&str], expected: Result<&str, &str>) {
    let found = Directory::new(components(list)).map(|it| it.to_string()).map_err(|problem| problem.to_string());
    assert_eq!(found, expected.map(String::from).map_err(String::from), "{list:?}");
}

#[test]
fn plain_names_in_any_script_are_components() {
    check(&["a"], Ok("/a"));
    check(
        &["team", "orders db", "a.b", "-x", "~", "$(HOME)", "a\\b", "%2e%2e", "…"],
        Ok("/team/orders db/a.b/-x/~/$(HOME)/a\\b/%2e%2e/…"),
    );
    check(&["größe", "日本", "ملف"], Ok("/größe/日本/ملف"));
    check(&[&"x".repeat(255)], Ok(&format!("/{}", "x".repeat(255))));
    check(&["a"; 32], Ok(&"/a".repeat(32)));
}

#[test]
fn whatever_could_lead_elsewhere_or_be_read_as_another_is_refused() {
    let dot = "begins with a dot: such names are kept for JuiceFS and Pith";
    let white = "begins or ends with whitespace, which nobody sees";
    let normal = "is not in Unicode's normal form C: a name that looks the same would be another directory";
    for (component, shown, reason) in [
        ("", r#""""#, "is empty"),
        (".", r#"".""#, "leads elsewhere in the tree"),
        ("..", r#""..""#, "leads elsewhere in the tree"),
        ("a/b", r#""a/b""#, "has a `/`: each component is one level"),
        ("/", r#""/""#, "has a `/`: each component is one level"),
        ("../x", r#""../x""#, "has a `/`: each component is one level"),
        ("a\0", r#""a\0""#, "has a control character"),
        ("a\nb", r#""a\nb""#, "has a control character"),
        ("\u{7f}", r#""\u{7f}""#, "has a control character"),
        ("a\u{85}b", r#""a\u{85}b""#, "has a control character"),
        (".pith", r#"".pith""#, dot),
        (".trash", r#"".trash""#, dot),
        (".config", r#"".config""#, dot),
        (".accesslog", r#"".accesslog""#, dot),
        ("...", r#""...""#, dot),
        (" a", r#"" a""#, white),
        ("a\u{a0}", r#""a\u{a0}""#, white),
        (" ", r#"" ""#, white),
        ("e\u{301}", r#""e\u{301}""#, normal),
        ("\u{212b}", "\"\u{212b}\"", normal),
    ] {
        check(&["a", component], Err(&format!("the component {shown} {reason}")));
    }
    let long = "ä".repeat(128);
    check(&[&long], Err(&format!("the component {:?}… is longer than 255 bytes", "ä".repeat(64))));
}

#[track_caller]
fn check_chosen(component: &str, expected: Option<&str>) {
    let problem = Directory::chosen(components(&["a", component])).err().map(|problem| problem.to_string());
    let sentence = |why| format!("the component {component:?} {why}");
    assert_eq!(problem, expected.map(sentence), "{component:?}");
    // Whoever has the name already keeps it.
    assert!(Directory::new(components(&["a", component])).is_ok(), "{component:?}");
}

#[test]
fn a_new_directory_has_no_name_that_reads_as_a_path_or_as_another_name() {
    for plain in [
        "100%",
        "%",
        "50%-off",
        "%zz",
        "a%20b",
        "a\\b",
        "Web",
        "WEB",
        "größe",
        "日本",
        "a…b",
        "½",
        "می\u{200c}خواهم",
        "👩\u{200d}🔧",
    ] {
        check_chosen(plain, None);
    }
    let path = Some("is a path for whoever decodes it, or mounts it elsewhere");
    for encoded in [
        "%2e%2e",
        "%2E%2e",
        "%2e.",
        "%2epith",
        "%252e%252e",
        "%25252e",
        "%%32%65",
        "a%2fb",
        "a%2F..%2Fb",
        "a%00",
        "a%252fb",
        "%c0%ae%c0%ae",
        "%ff",
        "a\\..\\b",
        "a%5c..",
        "\u{ff0e}\u{ff0e}",
        "\u{2025}",
        "\u{2024}\u{2024}",
        "…",
        "a\u{ff0f}b",
        "%ef%bc%8e",
        "℀",
    ] {
        check_chosen(encoded, path);
    }
    let unseen = Some("has a character that nobody sees, or one that turns text about");
    for hidden in ["a\u{200b}", "\u{202e}a", "a\u{ad}b", "\u{feff}a", "a\u{2060}", "a\u{2028}b", "a\u{e0041}"] {
        check_chosen(hidden, unseen);
    }
}

#[test]
fn a_directory_is_never_the_root_and_has_a_bound() {
    check(&[], Err("it is the root of the file system, which is never a volume"));
    check(&["a"; 33], Err("it has 33 levels, and 32 are allowed"));
    let long = "x".repeat(255);
    check(&[&long, &long, &long, &long], Ok(&format!("/{long}").repeat(4)));
    check(&[&long, &long, &long, &long[1..], "a"], Err("it has 1025 bytes, and 1024 are allowed"));
}

#[test]
fn people_may_write_a_slash_at_either_end() {
    for (text, expected) in [
        ("a/b", Some("/a/b")),
        ("/a/b", Some("/a/b")),
        ("a/b/", Some("/a/b")),
        ("", None),
        ("/", None),
        ("//", None),
        ("//a", None),
        ("a//b", None),
        ("/a/../b", None),
    ] {
        let parsed = text.parse::<Directory>().ok().map(|it| it.to_string());
        assert_eq!(parsed.as_deref(), expected, "{text:?}");
    }
}

#[test]
fn json_is_a_list_and_is_checked_when_it_is_read() {
    let directory: Directory = "/a/b".parse().unwrap();
    assert_eq!(serde_json::to_value(&directory).unwrap(), json!(["a", "b"]));
    assert_eq!(serde_json::from_value::<Directory>(json!(["a", "b"])).unwrap(), directory);
    let problem = serde_json::from_value::<Directory>(json!(["a", ".."])).unwrap_err();
    assert_eq!(problem.to_string(), r#"the component ".." leads elsewhere in the tree"#);
}

fn holder(id: &str, relation: Relation, shared: bool) -> Holder {
    Holder { id: id.into(), relation, shared }
}

/// Who is in the way of the volume `own`, and why.
#[track_caller]
fn check_conflict(shared: bool, holders: &[Holder], expected: Option<&str>) {
    let directory = "/team/orders".parse().unwrap();
    let check = |holders: &[Holder]| {
        let found = conflict("own", &directory, shared, holders).map(|it| it.to_string());
        let sentence = |why| format!("the directory /team/orders cannot be the volume's: {why}");
        assert_eq!(found, expected.map(sentence), "{holders:?}");
    };
    check(holders);
    check(&holders.iter().rev().cloned().collect::<Vec<_>>());
}

#[test]
fn a_directory_is_shared_only_where_both_say_so_and_never_nested() {
    use Relation::{Ancestor, Descendant, Same};
    check_conflict(false, &[], None);
    check_conflict(false, &[holder("own", Same, false), holder("own", Ancestor, false)], None);
    check_conflict(true, &[holder("b", Same, true), holder("own", Same, true), holder("c", Same, true)], None);
    check_conflict(false, &[holder("b", Same, false)], Some("volume `b` has it, and does not share it"));
    check_conflict(true, &[holder("b", Same, false)], Some("volume `b` has it, and does not share it"));
    check_conflict(
        false,
        &[holder("b", Same, true)],
        Some("volume `b` has it, and shares it only with volumes that share it too"),
    );
    for shared in [false, true] {
        let inside = "it would lie inside the directory of volume `b`, and volumes do not nest";
        check_conflict(shared, &[holder("b", Ancestor, shared)], Some(inside));
        let around = "the directory of volume `b` lies inside it, and volumes do not nest";
        check_conflict(shared, &[holder("b", Descendant, shared)], Some(around));
        check_conflict(shared, &[holder("a", Descendant, shared), holder("b", Ancestor, shared)], Some(inside));
        check_conflict(shared, &[holder("c", Ancestor, shared), holder("b", Ancestor, shared)], Some(inside));
    }
}

/// Texts near the rules: most random ones are far from them.
fn a_component() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z.]{0,4}", "[ ./\\\\a\\x00\\n\u{301}\u{202e}é-]{0,6}", any::<String>(), "[a-zé]{250,260}",]
}

proptest! {
    #[test]
    fn what_passes_is_plain_and_reads_back(list in vec(a_component(), 0..40)) {
        let Ok(directory) = Directory::new(list.clone()) else { return Ok(()) };
        prop_assert_eq!(directory.components(), &list[..]);
        prop_assert!(!list.is_empty() && list.len() <= 32);
        for component in &list {
            prop_assert!((1..=255).contains(&component.len()));
            prop_assert!(!component.starts_with('.') && !component.contains('/'));
            prop_assert!(!component.chars().any(char::is_control));
            prop_assert_eq!(component.trim(), component);
            prop_assert!(is_nfc(component));
        }
        let text = directory.to_string();
        prop_assert!(text.len() <= 1024);
        prop_assert_eq!(text.parse::<Directory>(), Ok(directory.clone()));
        let json = serde_json::to_string(&directory).unwrap();
        prop_assert_eq!(serde_json::from_str::<Directory>(&json).unwrap(), directory);
    }

    #[test]
    fn no_new_name_decodes_to_a_path(name in prop_oneof!["[a.%25eEfF0cC/\\\\]{0,16}", "(%(25)*(2e|2E|2f|5c|00|61)|\\.|a){1,6}", any::<String>()]) {
        let Ok(directory) = Directory::chosen(vec![name]) else { return Ok(()) };
        let mut text = directory.components()[0].clone();
        // As the most eager of decoders does it: until nothing changes any more.
        while let Some(bytes) = decoded(&text) {
            let next = String::from_utf8_lossy(&bytes).into_owned();
            prop_assert!(!next.contains(['/', '\0']) && !next.split('\\').any(|part| matches!(part, "..")), "{:?}", next);
            prop_assert!(!next.starts_with('.'), "{:?}", next);
            text = next;
        }
    }

    #[test]
    fn no_text_panics_and_every_problem_is_one_short_line(text in prop_oneof![any::<String>(), "[a/.]{0,200}"]) {
        match text.parse::<Directory>() {
            Ok(directory) => prop_assert!(directory.to_string().parse::<Directory>().is_ok()),
            Err(problem) => {
                let sentence = problem.to_string();
                prop_assert!(sentence.len() < 1000 && !sentence.contains(char::is_control), "{}", sentence);
            }
        }
    }
}
