//! What a policy leaves in its memory as its answer, lifted by the host. `answers.wat` is the policy.
//!
//! The first byte of an input chooses the hook and what the policy gives the host to write its question into; the rest is what
//! `answers.wat` says. An answer is within the bounds that `docs/policy-authors.md` tells, or a failure.

use std::cell::Cell;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use pith::wasm::{Asking, Engine, EngineOptions, Grants, Level, Limits, Log, Module};
use pith_core::object::{Claim, Entries, Namespace};
use pith_core::policy::{
    Cache, Change, Exemption, Failure, Naming, NamingRequest, OptionChange, PodFacts, QuotaRequest, SidecarFacts,
    Subject, VolumeFacts,
};

use crate::{assert_fit_for_people, module_load};

const TEMPLATE: &str = include_str!("answers.wat");

/// Where the host may write its question: into fresh memory, beyond the end of it, to where nothing is aligned, onto what it wrote before,
/// onto the answer, nowhere.
const REALLOC: [&str; 6] = [
    "(local.get $at)",
    "(i32.const -8)",
    "(i32.const 131073)",
    "(i32.const 131072)",
    "(i32.const 256)",
    "(unreachable)",
];

const HOOKS: usize = 5;

/// The deadline is one that no busy machine misses: what is asked copies some bytes.
const LIMITS: Limits = Limits { deadline: Duration::from_secs(10), memory_bytes: 1 << 20 };

/// What the contract with policies allows: items of a list, bytes of a value, bytes of a sentence, lines and bytes of the log.
const LIST_ITEMS: usize = 64;
const VALUE_BYTES: usize = 4 << 10;
const SENTENCE_BYTES: usize = 1 << 10;
/// With one line more, which says what was left out.
const LOG_LINES: usize = 33;
const LOG_BYTES: usize = 9 << 10;

static MODULES: LazyLock<Vec<Module>> = LazyLock::new(|| {
    let options = EngineOptions { concurrent_calls: 1, largest_memory_bytes: 1 << 20, ..EngineOptions::default() };
    let engine = Engine::new(options).expect("an engine");
    let module = |realloc| {
        let bytes = module_load::described(TEMPLATE.replace("$REALLOC", realloc).as_bytes());
        engine.load(&bytes, &Grants::default()).expect("the policy of the target")
    };
    REALLOC.into_iter().map(module).collect()
});

pub(crate) fn run(input: &[u8]) -> Result<String, String> {
    let Some((choice, memory)) = input.split_first() else { return Err("no input".into()) };
    let choice = usize::from(*choice);
    let module = &MODULES[choice / HOOKS % REALLOC.len()];
    let letter = |half: u8| char::from(b'a' + half);
    let settings: String = memory.iter().flat_map(|it| [letter(it >> 4), letter(it & 0xf)]).collect();

    let logged = (Cell::new(0), Cell::new(0));
    let log = |_: Level, line: &str| {
        logged.0.set(logged.0.get() + 1);
        logged.1.set(logged.1.get() + line.len());
        assert_fit_for_people(line);
    };
    let answer = asked(module, choice % HOOKS, &settings, &log);
    let (lines, bytes) = (logged.0.get(), logged.1.get());
    assert!(lines <= LOG_LINES && bytes <= LOG_BYTES, "{lines} lines of {bytes} bytes are logged");
    answer.map_err(|failure| format!("{}: {failure}", failure.code()))
}

fn asked(module: &Module, hook: usize, settings: &str, log: &dyn Log) -> Result<String, Failure> {
    let asking = Asking { limits: LIMITS, settings, world: &(), log };
    let pod = || {
        let pod = PodFacts { name: Some("web-0".into()), service_account: "default".into(), ..PodFacts::default() };
        Subject { pod, namespace: Arc::new(namespace()), object: &serde_json::Value::Null }
    };
    match hook {
        0 => module.exempt(asking, &pod(), &[volume()]).map(exemption),
        1 => module.adjust(asking, &pod(), &volume(), &sidecar()).map(change),
        2 => module.name(asking, &request(), &serde_json::Value::Null).map(naming),
        3 => {
            let request = QuotaRequest { volume: request(), directory: vec!["pvc-1".into()], shared: false };
            module.quota(asking, &request, &serde_json::Value::Null).map(|quota| format!("{quota:?}"))
        }
        _ => module.validate_settings(LIMITS, settings, log).map(|valid| match valid {
            Ok(()) => "fine".into(),
            Err(problem) => {
                sentence(&problem.field);
                sentence(&problem.reason);
                format!("{}: {}", problem.field, problem.reason)
            }
        }),
    }
}

fn exemption(answer: Exemption) -> String {
    match &answer {
        Exemption::Inject => {}
        Exemption::Skip(reason) | Exemption::Deny(reason) => sentence(reason),
    }
    format!("{answer:?}")
}

fn change(answer: Change) -> String {
    for list in [&answer.requests, &answer.limits, &answer.env] {
        assert!(list.len() <= LIST_ITEMS, "{} items", list.len());
        list.iter().for_each(|(name, amount)| values([name].into_iter().chain(amount)));
    }
    assert!(answer.mount_options.len() <= LIST_ITEMS, "{} items", answer.mount_options.len());
    for (name, option) in &answer.mount_options {
        values([name]);
        if let OptionChange::Set(value) = option {
            values(value);
        }
    }
    if let Some(Cache::EmptyDir { size_limit, .. }) = &answer.cache {
        values(size_limit);
    }
    format!("{answer:?}")
}

fn naming(answer: Naming) -> String {
    match &answer {
        Naming::Pass => {}
        Naming::Directory { components, .. } => {
            assert!(components.len() <= LIST_ITEMS, "{} items", components.len());
            values(components);
        }
        Naming::Deny(reason) => sentence(reason),
    }
    format!("{answer:?}")
}

fn values<'a>(of: impl IntoIterator<Item = &'a String>) {
    of.into_iter().for_each(|it| assert!(it.len() <= VALUE_BYTES, "a value of {} bytes", it.len()));
}

fn sentence(text: &str) {
    assert!(text.len() <= SENTENCE_BYTES, "a sentence of {} bytes", text.len());
    assert_fit_for_people(text);
}

fn entries<const N: usize>(entries: [(&str, &str); N]) -> Entries {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn namespace() -> Namespace {
    Namespace { name: "shop".into(), labels: entries([("team", "web")]), ..Namespace::default() }
}

fn claim() -> Arc<Claim> {
    Arc::new(Claim { namespace: "shop".into(), name: "data".into(), ..Claim::default() })
}

fn volume() -> VolumeFacts {
    VolumeFacts {
        name: "data".into(),
        claim: claim(),
        read_only: false,
        class_parameters: Arc::new(entries([("pathPattern", "a")])),
        volume_attributes: Arc::default(),
    }
}

fn sidecar() -> SidecarFacts {
    SidecarFacts {
        requests: entries([("cpu", "100m")]),
        limits: entries([("cpu", "2")]),
        mount_options: vec![("writeback".to_owned(), None)],
        env: entries([]),
        cache: Cache::Container,
    }
}

fn request() -> NamingRequest {
    NamingRequest {
        volume_name: "pvc-1".into(),
        required_bytes: Some(1 << 30),
        limit_bytes: None,
        claim: claim(),
        namespace: Arc::new(namespace()),
        parameters: entries([]),
        origin: None,
    }
}

/// An answer to a hook: words at the address 256, and from 512 on a text that they point into.
fn answer(hook: u8, log: [i32; 3], words: &[i32], text: &str) -> Vec<u8> {
    let mut memory: Vec<u8> = log.iter().chain(&[256]).chain(words).flat_map(|it| it.to_le_bytes()).collect();
    memory.resize(512 - 240, 0);
    memory.extend(text.as_bytes());
    [vec![hook], memory].concat()
}

const SILENT: [i32; 3] = [-1, 0, 0];

/// Answers as the canonical ABI lays them out, one for each thing that can be answered.
pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    let (exempt, adjust, name, quota, validate) = (0, 1, 2, 3, 4);
    let change = {
        // ok, then four lists (pointer, length), then the option of a cache.
        let lists = [0, 256 + 64, 1, 256 + 96, 1, 256 + 128, 1, 256 + 160, 1, 1, 1, 1, 1, 512, 3];
        let mut words = lists.to_vec();
        words.resize(16, 0);
        // requests: cpu is 250m. limits: cpu is removed. options: max-space is set to 1Gi. env: A is removed.
        words.extend([512, 3, 1, 515, 4, 0, 0, 0]);
        words.extend([512, 3, 0, 0, 0, 0, 0, 0]);
        words.extend([519, 9, 0, 1, 528, 3, 0, 0]);
        words.extend([531, 1, 0, 0, 0, 0, 0, 0]);
        words
    };
    let named = |name: &str, input| (name.to_string(), input);
    vec![
        named("exempt-inject", answer(exempt, SILENT, &[0, 0], "")),
        named("exempt-skip", answer(exempt, SILENT, &[0, 1, 512, 6], "reason")),
        named("exempt-deny", answer(exempt, [2, 512, 6], &[0, 2, 512, 6], "reason")),
        named("exempt-error", answer(exempt, SILENT, &[1, 512, 6], "broken")),
        named("exempt-not-utf8", [answer(exempt, SILENT, &[0, 1, 512, 4], ""), vec![0xff, 0xfe, 0xc0, 0x80]].concat()),
        named("exempt-beyond-the-end", answer(exempt, SILENT, &[0, 1, 0x7fff_fff0, 6], "")),
        named("exempt-too-much", answer(exempt, SILENT, &[0, 1, 0, 512 << 10], "")),
        named("exempt-onto-the-answer", answer(5 * 4, SILENT, &[0, 0], "")),
        named("adjust", answer(adjust, SILENT, &change, "cpu250mmax-space1GiA")),
        named("adjust-nothing", answer(adjust, SILENT, &[0; 12], "")),
        named("adjust-too-many", answer(adjust, SILENT, &[0, 256, 1000], "")),
        named("name-pass", answer(name, SILENT, &[0, 0], "")),
        named("name-directory", answer(name, SILENT, &[0, 1, 288, 2, 1, 0, 0, 0, 512, 4, 516, 4], "shopdata")),
        named("name-deny", answer(name, SILENT, &[0, 2, 512, 6], "reason")),
        named("quota-on", answer(quota, SILENT, &[0, 1], "")),
        named("quota-error", answer(quota, SILENT, &[1, 512, 6], "broken")),
        named("validate-fine", answer(validate, SILENT, &[0], "")),
        named("validate-problem", answer(validate, SILENT, &[1, 512, 5, 517, 6], "fieldreason")),
    ]
}
