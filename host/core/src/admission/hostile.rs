//! Values that somebody wrote to break out: whatever is put into any field arrives as one argument, or is refused with a sentence.

use super::*;
use crate::object::{Object, StorageClass};
use crate::policy::OptionChange;
use crate::testing::{World, claim, class, entries, pod, volume, world};

/// Where a value can come from, and how it gets into a world.
type Field = (&'static str, fn(World, &str) -> World);

fn with_attribute(world: World, key: &str, value: &str) -> World {
    let attributes = entries(&[(key, value)]).into();
    world.with_bound(claim("orders"), PersistentVolume { volume_attributes: attributes, ..volume("pv") })
}

fn with_option(world: World, option: String) -> World {
    world.with(Object::StorageClass(StorageClass { mount_options: vec![option], ..class("juicefs") }))
}

fn with_change(world: World, change: impl Fn() -> Change + 'static) -> World {
    world.adjusting("hostile", move |_| Ok(change()))
}

const FIELDS: [Field; 19] = [
    ("an option's value", |world, it| with_option(world, format!("upload-hours={it}"))),
    ("an option of the kernel's", |world, it| with_option(world, format!("fsname={it}"))),
    ("an option's name", |world, it| with_option(world, format!("{it}=x"))),
    ("an option", |world, it| with_option(world, it.into())),
    ("the cache's directory", |world, it| with_option(world, format!("cache-dir={it}"))),
    ("the address of the metrics", |world, it| with_option(world, format!("metrics={it}"))),
    ("the client's buffer", |world, it| with_option(world, format!("buffer-size={it}"))),
    ("mountOptions of a volume", |world, it| with_attribute(world, "mountOptions", it)),
    ("subPath of a volume", |world, it| with_attribute(world, "subPath", it)),
    ("the image", |world, it| with_attribute(world, "juicefs/mount-image", it)),
    ("an amount", |world, it| with_attribute(world, "juicefs/mount-cpu-limit", it)),
    ("claims of a cache", |world, it| with_attribute(world, "juicefs/mount-cache-pvc", it)),
    ("an emptyDir", |world, it| with_attribute(world, "juicefs/mount-cache-emptydir", it)),
    ("an inline volume", |world, it| {
        let volumes = json!([{"driver": it, "volumeAttributes": {it: it}}]).to_string();
        with_attribute(world, "juicefs/mount-cache-inline-volume", &volumes)
    }),
    ("a folder of the node", |world, it| with_attribute(world, "juicefs/host-path", &format!("/{it}"))),
    ("a policy's option", |world, it| {
        let it = it.to_string();
        with_change(world, move || Change {
            mount_options: vec![("upload-hours".into(), OptionChange::Set(Some(it.clone())))],
            ..Change::default()
        })
    }),
    ("a policy's environment", |world, it| {
        let it = it.to_string();
        with_change(world, move || Change { env: vec![("A".into(), Some(it.clone()))], ..Change::default() })
    }),
    ("the environment of mountPodPatch", |world, it| world.patching(json!([{"env": [{"name": "A", "value": it}]}]))),
    ("a template of mountPodPatch", |world, it| {
        let world = world.patching(json!([{"mountOptions": ["fsname=${SUB_PATH}"]}]));
        with_attribute(world, "subPath", it)
    }),
];

fn values() -> Vec<String> {
    let short = [
        "",
        " ",
        "'",
        "\"",
        "a'b\"c",
        "`id`",
        "$HOME",
        "$(METAURL)",
        "$$(METAURL)",
        "$$$(META_PASSWORD)",
        "${METAURL}",
        "a;b",
        "a|b",
        "a&&b",
        "a>b",
        "a b",
        "\ta",
        "a\nb",
        "a\r\nb",
        "a\0b",
        "\u{1b}[2J",
        "a,b",
        "a,allow_other",
        "a=b=c",
        "--help",
        "-o",
        "--metrics=x",
        "-",
        "--",
        "a:b",
        "/",
        "..",
        "../../etc",
        "/../..",
        "%2e%2e",
        "a\\b",
        "{}",
        "[",
        "*",
        "ünïcödé✓",
        "\u{202e}abc",
        "\u{feff}",
        "日本語",
        "💾",
        "e\u{301}",
    ];
    let long = ["x".repeat(10_240), "é".repeat(10_240), "$(A)".repeat(2_560), "a,".repeat(5_120)];
    short.into_iter().map(String::from).chain(long).collect()
}

/// What a container is run with, as the kubelet expands it: `$$` is one `$`, and what is left of `$(NAME)` is a variable's.
fn expanded(text: &str) -> String {
    let (mut plain, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('$') {
        plain.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(literal) = after.strip_prefix('$') {
            plain.push('$');
            rest = literal;
        } else if let Some((name, behind)) = after.strip_prefix('(').and_then(|it| it.split_once(')')) {
            plain.push_str(&format!("<{name}>"));
            rest = behind;
        } else {
            plain.push('$');
            rest = after;
        }
    }
    plain + rest
}

fn texts(list_of: &Value) -> Vec<String> {
    list(list_of).iter().map(|it| expanded(it.as_str().unwrap_or_default())).collect()
}

/// The client's arguments where nobody is hostile: each hostile run has these too, in this order.
fn fixed(command: &[String]) -> bool {
    let (first, last) = (command.first(), command.last());
    let is_mount = command.get(1).map(String::as_str) == Some("mount");
    let subdir = command.get(2).map(String::as_str) == Some("--subdir=<SUBDIR>");
    let url = command.iter().rev().nth(1).map(String::as_str) == Some("<METAURL>");
    let options = command.iter().rev().nth(3).map(String::as_str) == Some("-o");
    first.map(String::as_str) == Some("/usr/local/bin/juicefs")
        && is_mount
        && subdir
        && url
        && options
        && last.map(String::as_str) == Some("/jfs/data")
}

#[test]
fn whatever_a_field_says_is_one_argument_or_is_refused_with_a_sentence() {
    let pod = pod().mounting("data", "orders").0;
    for (field, put) in FIELDS {
        for value in values() {
            let about = || format!("{field}: {:?}", value.chars().take(40).collect::<String>());
            let world = put(world().with_claim("orders"), &value);
            let decision = world.decide(&pod);
            for warning in &decision.warnings {
                let fits = warning.len() < 1000 && !warning.chars().any(char::is_control);
                assert!(fits, "{}: {:?}", about(), &warning[..warning.len().min(200)]);
            }
            match decision.verdict {
                Verdict::Inject(_) => {}
                Verdict::Refuse(refusal) => {
                    let sentence = refusal.to_string();
                    assert!(sentence.len() < 1000, "{}: a sentence of {} bytes", about(), sentence.len());
                    assert!(!sentence.chars().any(char::is_control), "{}: {sentence:?}", about());
                    continue;
                }
                Verdict::Fail(failure) => {
                    let sentence = failure.to_string();
                    assert!(
                        sentence.len() < 1000 && !sentence.chars().any(char::is_control),
                        "{}: {sentence:?}",
                        about()
                    );
                    continue;
                }
                other => panic!("{}: {other:?}", about()),
            }
            let injected = world.inject(&pod);
            assert_eq!(world.inject(&injected), injected, "{}: a second pass", about());
            let client = list(&injected["spec"]["initContainers"]).last().expect("a client");
            let command = texts(&client["command"]);
            assert!(fixed(&command), "{}: {command:?}", about());
            let variables = command.iter().flat_map(|it| it.match_indices('<')).count();
            let of_value =
                command.iter().filter(|it| it.contains('<') && it.contains(&value) && !value.is_empty()).count();
            assert!(variables == 2 || of_value > 0, "{}: {command:?}", about());
            for argument in &command[3..command.len() - 4] {
                let name = argument.split('=').next().unwrap_or_default();
                let plain = name.strip_prefix("--").is_some_and(|name| {
                    !name.is_empty()
                        && !name.starts_with('-')
                        && name.chars().all(|it| it.is_ascii_alphanumeric() || "-_.".contains(it))
                });
                assert!(plain, "{}: {argument:?}", about());
            }
            assert!(command.iter().all(|it| !it.chars().any(char::is_control)), "{}: {command:?}", about());
            // What the environment says is text, unless it is an administrator's own expression.
            for variable in list(&client["env"]).iter().filter(|it| it["name"] == "A") {
                let text = variable["value"].as_str().unwrap_or_default();
                assert!(expanded(text) == value || field.contains("mountPodPatch"), "{}: {text:?}", about());
            }
        }
    }
}
