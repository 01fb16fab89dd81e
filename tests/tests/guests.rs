//! What the host makes of every hostile guest, in every hook: that one call fails, with a sentence, in time, and the next
//! call of a good guest is as good as ever.
//!
//! [`GUESTS`] and the files of `pith-guests` must be the same set: a guest without an expectation fails, and so does an
//! expectation without a guest.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use pith::wasm::{Asking, Compiler, Engine, EngineOptions, Grants, Level, Limits, Lookups, Module, Unanswered, World};
use pith_core::lookup::{self, Budget};
use pith_core::object::{Claim, Entries, Namespace, Object, Objects, PersistentVolume, StorageClass};
use pith_core::policy::{
    Cache, Exemption, Failure, Hook, Naming, NamingRequest, Origin, PodFacts, QuotaRequest, SidecarFacts, Subject,
    VolumeFacts,
};
use pith_core::selector::LabelSelector;
use pith_core::volume::Source;
use pith_tests::server::{PITH, root};
use pith_tests::wasm_builds::guest;

/// What becomes of a guest.
#[derive(Clone, Copy)]
enum Outcome {
    /// It is not loaded, for this reason.
    Refused(&'static str),
    /// Every hook and the settings get this answer.
    Every(&'static str),
    /// The hooks exemption, sidecar, naming and quota and the settings get these answers; one that ends in `…` is a beginning.
    Each([&'static str; 5]),
    /// Every hook is cut at its deadline.
    Cut,
}
use Outcome::{Cut, Each, Every, Refused};

const UNREACHABLE: &str = "trap: it trapped: wasm `unreachable` instruction executed";
const HOST_CALLS: &str = "budget: it used up its budget of host calls";
const LOOKUPS: &str = "budget: it used up its budget of look-ups";
const TIMELESS: &str = "host: the host could not run it: it asks what time it is where there is no decision, as when its settings are checked";
const BLIND: &str =
    "host: the host could not run it: it looks objects up where there is no decision, as when its settings are checked";
const SEEN: &str = "shop 2 1 2, bank 0 0 0, nowhere 0 0 0, lists [1, 1, 1], class true";
const TIME: &str = "1764266400000 0";
const HANDED_OVER: &str = "budget: it used up its budget of bytes handed to the host at once";

const GUESTS: &[(&str, Outcome)] = &[
    ("allocates_forever", Every("memory: it asked for more than its limit of 16 MiB")),
    ("answers_4_gib", Every("answer: its answer is not usable: string pointer/length out of bounds of memory")),
    ("answers_a_megabyte", Every(HANDED_OVER)),
    ("answers_no_variant", Every("answer: its answer is not usable: invalid expected discriminant")),
    ("answers_not_utf8", Every("answer: its answer is not usable: invalid utf-8 sequence…")),
    ("answers_plainly", Every("fine")),
    (
        "answers_too_much",
        Each([
            "too much too much …",
            "answer: its answer is not usable: `mount-options` has 1000 items; at most 64 are allowed",
            "answer: its answer is not usable: `components` has 1000 items; at most 64 are allowed",
            "too much too much …",
            "too much too much …",
        ]),
    ),
    ("answers_wild_pointer", Every("answer: its answer is not usable: pointer out of bounds of memory")),
    ("asks_clock", Each([TIME, TIME, TIME, TIME, TIMELESS])),
    (
        "asks_object",
        Each([
            "{\"kind\":\"Pod\"}",
            "{\"kind\":\"Pod\"}",
            "{\"kind\":\"PersistentVolumeClaim\"}",
            "{\"kind\":\"PersistentVolumeClaim\"}",
            "",
        ]),
    ),
    (
        "asks_origin",
        Each(["fine", "fine", "Kind::Snapshot s-1 of shop/data", "Kind::Snapshot s-1 of shop/data", "fine"]),
    ),
    ("calls_host_forever", Every(HOST_CALLS)),
    ("calls_host_in_realloc", Every("trap: it trapped: cannot leave component instance")),
    ("grows_tables_forever", Every("memory: it asked for more than its limit of 20000 table elements")),
    (
        "imports_secrets",
        Refused("it imports `pith:policy/secrets@0.1.0`, which Pith does not offer; a policy can import …"),
    ),
    (
        "imports_unknown",
        Refused(
            "it imports `evil:host/files`, which Pith does not offer; a policy can import `pith:policy/log` and \
             `pith:policy/origin`; where the binding grants them `object`, `clock`, `namespaces`, `storage-classes`, `claims` and \
             `persistent-volumes`; and the cli, clocks, filesystem, io, random and sockets packages of WASI 0.2, all closed",
        ),
    ),
    ("keeps_state", Every("1")),
    ("logs_a_gigabyte", Every(HANDED_OVER)),
    ("logs_beyond_budget", Every("fine")),
    ("looks_up", Each([SEEN, SEEN, SEEN, SEEN, BLIND])),
    ("looks_up_at_length", Each([LOOKUPS, LOOKUPS, LOOKUPS, LOOKUPS, BLIND])),
    ("looks_up_forever", Each([LOOKUPS, LOOKUPS, LOOKUPS, LOOKUPS, BLIND])),
    ("needs_much_memory", Every("memory: it asked for more than its limit of 16 MiB")),
    (
        "no_export",
        Refused(
            "it exports no hook: one of `pith:policy/exemption`, `pith:policy/sidecar`, `pith:policy/naming` and \
             `pith:policy/quota` in version 0.1.0",
        ),
    ),
    ("panics", Every(UNREACHABLE)),
    ("reallocates_wildly", Every("answer: its answer is not usable: realloc return: beyond end of memory")),
    ("recurses_forever", Every("stack: it ran out of stack")),
    (
        "shares_memory",
        Refused(
            "it is a core module that cannot be made into a component: failed to validate component output: mismatch in the shared flag for memories…",
        ),
    ),
    ("spins_after_answer", Cut),
    ("spins_at_start", Cut),
    ("spins_forever", Cut),
    ("spins_in_realloc", Cut),
    ("traps", Every(UNREACHABLE)),
    ("traps_at_start", Every(UNREACHABLE)),
    ("wasi_prints_forever", Cut),
    (
        "wasi_reads_world",
        Every(
            "args 0, env 0, seconds 0, elapsed 0, file false, folder false, write false, connect false, bind false, name false, random …",
        ),
    ),
    ("wasi_sleeps_forever", Cut),
    (
        "wrong_major_version",
        Refused(
            "it was built against `pith:policy/exemption@9.0.0`; this host has `pith:policy@0.1.0` and takes only the \
             same minor version",
        ),
    ),
    (
        "wrong_minor_version",
        Refused(
            "it was built against `pith:policy/exemption@0.2.0`; this host has `pith:policy@0.1.0` and takes only the \
             same minor version",
        ),
    ),
    ("wrong_shape", Refused("it exports `pith:policy/exemption` with another shape than version 0.1.0 has: …")),
];

/// One that no busy machine makes a good guest miss.
const PATIENT: Limits = Limits { deadline: Duration::from_secs(10), memory_bytes: 16 << 20 };

/// How much later than its deadline a call may end on a machine that runs every other test at the same time.
const LATE: Duration = Duration::from_secs(2);

#[test]
fn each_guest_costs_its_own_call_only() {
    let engine = engine();
    let good = load(&engine, "answers_plainly");
    for (name, outcome) in GUESTS {
        check(&engine, &good, name, *outcome);
    }
}

#[track_caller]
fn check(engine: &Engine, good: &Module, name: &str, outcome: Outcome) {
    let module = match (engine.load(&bytes(name), &Grants::everything()), outcome) {
        (Ok(_), Refused(reason)) => panic!("{name} is loaded and not refused: {reason}"),
        (Ok(module), _) => module,
        (Err(error), Refused(reason)) => return assert_fits(name, "load", &error.to_string(), reason),
        (Err(error), _) => panic!("{name} is not loaded: {error}"),
    };
    assert_eq!(module.hooks(), &BTreeSet::from(Hook::ALL), "hooks of {name}");
    let limits = if matches!(outcome, Cut) { Limits::default() } else { PATIENT };
    for (place, question) in Question::ALL.into_iter().enumerate() {
        let begun = Instant::now();
        let answer = question.ask(&module, limits, "{}");
        let took = begun.elapsed();
        let expected = match outcome {
            Every(answer) => answer,
            Each(answers) => answers[place],
            Cut => "deadline: it ran longer than its deadline of 50 ms",
            Refused(_) => unreachable!("it was loaded"),
        };
        assert_fits(name, question.name(), &answer, expected);
        assert!(took < limits.deadline + LATE, "{name} {}: took {took:?}", question.name());
        assert_eq!(question.ask(good, PATIENT, "{}"), "fine", "a good guest after {name} {}", question.name());
    }
}

#[track_caller]
fn assert_fits(name: &str, what: &str, answer: &str, expected: &str) {
    match expected.strip_suffix('…') {
        Some(beginning) => assert!(answer.starts_with(beginning), "{name} {what}: {answer}\nexpected: {expected}"),
        None => assert_eq!(answer, expected, "{name} {what}"),
    }
    assert!(answer.len() <= 1200, "{name} {what}: {} bytes", answer.len());
}

#[test]
fn table_names_exactly_the_guests_that_there_are() {
    let files = |folder: &str, ending: &str| -> Vec<String> {
        let entries = std::fs::read_dir(root().join("tests/guests").join(folder)).expect("the folder of the guests");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
        names.filter_map(|name| name.strip_suffix(ending).map(str::to_owned)).collect()
    };
    let there: BTreeSet<String> = files("examples", ".rs").into_iter().chain(files("wat", ".wat")).collect();
    let expected: BTreeSet<String> = GUESTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(there, expected);
}

#[test]
fn what_is_not_granted_is_refused_with_the_line_to_set() {
    let check = |name: &str, grants: &Grants, imports: &str, line: &str, words: &str| {
        let error = engine().load(&bytes(name), grants).expect_err("the grant is missing");
        let expected = format!(
            "it imports {imports}, which its binding does not grant; set `grants: {line}` in the binding to let it {words}"
        );
        assert_eq!(error.to_string(), expected);
    };
    let none = Grants::default();
    check("asks_object", &none, "`pith:policy/object@0.1.0`", "[object]", "read the raw object");
    check("asks_clock", &none, "`pith:policy/clock@0.1.0`", "[clock]", "read the time");
    let object = Grants { object: true, ..Grants::default() };
    check("asks_clock", &object, "`pith:policy/clock@0.1.0`", "[object, clock]", "read the time");
    let claims = "`pith:policy/claims@0.1.0`";
    check("looks_up_at_length", &none, claims, "[{lookup: [PersistentVolumeClaim]}]", "look up PersistentVolumeClaim");
    let kinds = "StorageClass, PersistentVolume, PersistentVolumeClaim";
    let mut some = Grants::everything();
    some.lookup.retain(|kind| kind.name() == "Namespace");
    check(
        "looks_up",
        &some,
        "`pith:policy/storage-classes@0.1.0`, `pith:policy/claims@0.1.0`, `pith:policy/persistent-volumes@0.1.0`",
        &format!("[object, clock, {{lookup: [Namespace, {kinds}]}}]"),
        &format!("look up {kinds}"),
    );
}

/// Two namespaces with a claim and its volume each; bindings select the team `shop`.
struct Cluster;

impl World for Cluster {
    fn now(&self) -> Result<u64, &'static str> {
        Ok(1_764_266_400_000)
    }

    fn lookups(&self) -> Result<Box<dyn Lookups>, &'static str> {
        let mut objects = Objects::default();
        for (namespace, name) in [("shop", "data"), ("bank", "ledger")] {
            let labels = entries([("team", namespace)]);
            objects.insert(Object::Namespace(Namespace { name: namespace.into(), labels, ..Namespace::default() }));
            let volume_name = Some(format!("pv-{name}"));
            let (name, uid) = (name.to_string(), format!("uid-of-{name}"));
            let claim_uid = Some(uid.clone());
            let volume = PersistentVolume { name: format!("pv-{name}"), claim_uid, ..PersistentVolume::default() };
            objects.insert(Object::PersistentVolume(volume));
            let claim = Claim { namespace: namespace.into(), name, uid, volume_name, ..Claim::default() };
            objects.insert(Object::Claim(claim));
        }
        objects.insert(Object::StorageClass(StorageClass { name: "juicefs".into(), ..StorageClass::default() }));
        Ok(Box::new(Known(objects)))
    }
}

struct Known(Objects);

impl Lookups for Known {
    fn answer(&mut self, question: lookup::Question, budget: &mut Budget) -> Result<Vec<String>, Unanswered> {
        let selected = LabelSelector { labels: entries([("team", "shop")]), expressions: Vec::new() };
        budget.ask(&question)?;
        Ok(lookup::answer(&self.0, &selected, &question, budget)?)
    }
}

#[test]
fn hostile_calls_leave_no_memory_behind() {
    let engine = engine();
    let names = [
        "allocates_forever",
        "answers_too_much",
        "grows_tables_forever",
        "logs_beyond_budget",
        "recurses_forever",
        "traps",
        "wasi_reads_world",
    ];
    let modules = names.map(|name| load(&engine, name));
    let round = || modules.iter().for_each(|module| drop(Question::Sidecar.ask(module, PATIENT, "{}")));
    (0..20).for_each(|_| round());
    let before = resident_bytes();
    (0..100).for_each(|_| round());
    let grown = resident_bytes().saturating_sub(before);
    // Were it kept, it would be 1.6 GiB. Other tests run in this process and may need some.
    assert!(grown < 256 << 20, "100 rounds left {} MiB", grown >> 20);
}

#[test]
fn wasi_guest_gives_the_same_answer_to_the_same_question() {
    // Two engines, as two replicas or two runs have.
    let [first, second] = [engine(), engine()].map(|engine| load(&engine, "wasi_reads_world"));
    let answer = Question::Exemption.ask(&first, PATIENT, "{}");
    assert_eq!(Question::Exemption.ask(&first, PATIENT, "{}"), answer);
    assert_eq!(Question::Exemption.ask(&second, PATIENT, "{}"), answer);
    assert_ne!(Question::Exemption.ask(&first, PATIENT, "{\"other\":1}"), answer, "settings change the random numbers");
    assert_ne!(Question::Sidecar.ask(&first, PATIENT, "{}"), answer, "the hook changes the random numbers");
}

#[test]
fn wasi_guest_can_be_asked_on_a_thread_of_a_runtime() {
    let module = load(&engine(), "wasi_sleeps_forever");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answer = runtime.block_on(async { Question::Naming.ask(&module, Limits::default(), "{}") });
    assert_eq!(answer, "deadline: it ran longer than its deadline of 50 ms");
}

#[test]
fn log_is_one_line_a_call_and_ends_with_what_was_dropped() {
    let module = load(&engine(), "logs_beyond_budget");
    let lines = Mutex::new(Vec::new());
    let log = |level: Level, line: &str| lines.lock().expect("one thread").push((level, line.to_owned()));
    module.validate_settings(PATIENT, "{}", &log).expect("an answer").expect("no problem");
    let lines = lines.into_inner().expect("one thread");
    assert_eq!(lines.len(), 33);
    assert_eq!(lines[0], (Level::Info, "line 0\\nof 5000".to_owned()));
    assert_eq!(lines[32], (Level::Warn, "4968 more lines dropped; a call may log 32 lines and 8 KiB".to_owned()));
}

#[test]
fn call_beyond_the_number_at_once_fails_at_once() {
    let engine = Engine::new(EngineOptions { concurrent_calls: 1, ..EngineOptions::default() }).expect("an engine");
    let [spinning, good] = ["spins_forever", "answers_plainly"].map(|name| load(&engine, name));
    let limits = Limits { deadline: Duration::from_secs(1), ..Limits::default() };
    std::thread::scope(|scope| {
        let mut spins = std::iter::repeat_with(|| Question::Sidecar.ask(&spinning, limits, "{}"));
        // Either may be the one that finds the other in the way: the one that spins tries until it is not.
        let spins = scope.spawn(move || spins.find(|answer| !answer.starts_with("host:")).expect("it has no end"));
        let mut answers = std::iter::repeat_with(|| Question::Sidecar.ask(&good, PATIENT, "{}"));
        // Until the other thread has begun, and never again until it is cut.
        let refused = answers.find(|answer| answer != "fine");
        assert_eq!(refused.as_deref(), Some("host: the host could not run it: too many policies run at once"));
        assert_eq!(spins.join().expect("no panic"), "deadline: it ran longer than its deadline of 1000 ms");
    });
    assert_eq!(Question::Sidecar.ask(&good, PATIENT, "{}"), "fine");
}

#[test]
fn compiled_code_is_used_again_and_mended_when_broken() {
    let folder = tempfile::tempdir().expect("a folder");
    let compiled_dir = Some(folder.path().join("compiled"));
    let engine = Engine::new(EngineOptions { compiled_dir, ..EngineOptions::default() }).expect("an engine");
    assert!(!load(&engine, "answers_plainly").from_cache());
    assert!(load(&engine, "answers_plainly").from_cache());
    let file =
        std::fs::read_dir(folder.path().join("compiled")).expect("the folder").next().expect("a file").expect("it");
    let mut bytes = std::fs::read(file.path()).expect("the file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file.path(), bytes).expect("the file is ours");
    let mended = load(&engine, "answers_plainly");
    assert!(!mended.from_cache());
    assert_eq!(Question::Sidecar.ask(&mended, PATIENT, "{}"), "fine");
    assert!(load(&engine, "answers_plainly").from_cache());
}

/// What a policy can be asked.
#[derive(Clone, Copy)]
enum Question {
    Exemption,
    Sidecar,
    Naming,
    Quota,
    Settings,
}

impl Question {
    const ALL: [Question; 5] =
        [Question::Exemption, Question::Sidecar, Question::Naming, Question::Quota, Question::Settings];

    fn name(self) -> &'static str {
        match self {
            Question::Exemption => Hook::Exemption.as_str(),
            Question::Sidecar => Hook::Sidecar.as_str(),
            Question::Naming => Hook::Naming.as_str(),
            Question::Quota => Hook::Quota.as_str(),
            Question::Settings => "settings",
        }
    }

    /// The answer in words: `fine`, what the guest says, or the kind and the sentence of the failure.
    fn ask(self, module: &Module, limits: Limits, settings: &str) -> String {
        let silent = |_: Level, _: &str| {};
        let asking = Asking { limits, settings, world: &Cluster, log: &silent };
        let answer = match self {
            Question::Exemption => {
                let object = serde_json::json!({ "kind": "Pod" });
                module.exempt(asking, &subject(&object), &[volume()]).map(said_of_exemption)
            }
            Question::Sidecar => {
                let object = serde_json::json!({ "kind": "Pod" });
                let change = module.adjust(asking, &subject(&object), &volume(), &sidecar());
                change.map(|change| change.env.into_iter().find_map(|(_, value)| value))
            }
            Question::Naming => {
                let object = serde_json::json!({ "kind": "PersistentVolumeClaim" });
                module.name(asking, &naming(), &object).map(said_of_naming)
            }
            Question::Quota => {
                let object = serde_json::json!({ "kind": "PersistentVolumeClaim" });
                let request = QuotaRequest { volume: naming(), directory: vec!["pvc-1".into()], shared: false };
                match module.quota(asking, &request, &object) {
                    // A guest can say a text here only as its own failure.
                    Err(Failure::Reported(text)) => Ok(Some(text)),
                    answer => answer.map(|_| None),
                }
            }
            Question::Settings => module
                .validate_settings(limits, settings, &silent)
                .map(|valid| valid.err().map(|problem| problem.reason)),
        };
        answer.map_or_else(sentence, |said| said.unwrap_or_else(|| "fine".to_owned()))
    }
}

fn said_of_exemption(answer: Exemption) -> Option<String> {
    match answer {
        Exemption::Inject => None,
        Exemption::Skip(text) | Exemption::Deny(text) => Some(text),
    }
}

fn said_of_naming(answer: Naming) -> Option<String> {
    match answer {
        Naming::Pass => None,
        Naming::Directory { components, .. } => Some(components.join("/")),
        Naming::Deny(text) => Some(text),
    }
}

fn sentence(failure: Failure) -> String {
    format!("{}: {failure}", failure.code())
}

fn subject(object: &serde_json::Value) -> Subject<'_> {
    let pod = PodFacts { name: Some("web-0".into()), service_account: "default".into(), ..PodFacts::default() };
    Subject { pod, namespace: Arc::new(shop()), object }
}

fn shop() -> Namespace {
    Namespace { name: "shop".into(), ..Namespace::default() }
}

fn claim() -> Arc<Claim> {
    Arc::new(Claim { namespace: "shop".into(), name: "data".into(), ..Claim::default() })
}

fn entries<const N: usize>(entries: [(&str, &str); N]) -> Entries {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
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

fn naming() -> NamingRequest {
    NamingRequest {
        volume_name: "pvc-1".into(),
        required_bytes: Some(1 << 30),
        limit_bytes: None,
        claim: claim(),
        namespace: Arc::new(shop()),
        parameters: entries([]),
        origin: Some(Origin { source: Source::Snapshot("s-1".into()), directory: vec!["shop".into(), "data".into()] }),
    }
}

/// One engine for the tests that need no other options: they share what it compiled.
fn engine() -> Engine {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));
    let compiled_dir = Some(FOLDER.path().join("compiled"));
    Engine::new(EngineOptions { compiled_dir, ..EngineOptions::default() }).expect("an engine")
}

fn load(engine: &Engine, name: &str) -> Module {
    let module = engine.load(&bytes(name), &Grants::everything());
    module.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The module of a guest, of Rust or of text.
fn bytes(name: &str) -> Vec<u8> {
    let text = root().join("tests/guests/wat").join(name).with_extension("wat");
    if text.exists() { assembled(&text) } else { std::fs::read(guest(name)).expect("cargo built it") }
}

/// What `wasm-tools component embed` makes of a core module: the description of the world is added to it.
fn assembled(text: &Path) -> Vec<u8> {
    let mut module = wat::parse_file(text).expect("valid text");
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_path(root().join("proto/policy")).expect("the contract");
    let world = resolve.select_world(&[package], Some("complete-policy"));
    let world = world.expect("the world with every hook");
    wit_component::embed_component_metadata(&mut module, &resolve, world, wit_component::StringEncoding::UTF8)
        .expect("the world fits into a section");
    module
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("the second field of statm");
    pages * 4096
}

/// A number as modules write it.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).expect("seven bits");
        number >>= 7;
        bytes.push(if number == 0 { low } else { low | 0x80 });
        if number == 0 {
            return bytes;
        }
    }
}

/// A section of a module or of a component.
fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(content.len()), content].concat()
}

/// A component with one core module of one function, whose body comes after the number of its locals.
fn component(body: &[u8]) -> Vec<u8> {
    let code = [vec![1], leb(body.len()), body.to_vec()].concat();
    let module =
        [&b"\0asm\x01\0\0\0"[..], &section(1, &[1, 0x60, 0, 0]), &section(3, &[1, 0]), &section(10, &code)].concat();
    [COMPONENT, &section(1, &module)].concat()
}

/// What a component begins with.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// One whose function has so many blocks, each within the last.
fn nested_blocks(depth: usize) -> Vec<u8> {
    component(&[vec![0], [0x02, 0x40].repeat(depth), vec![0x0b; depth + 1]].concat())
}

/// So many components, each within the last.
fn nested_components(depth: usize) -> Vec<u8> {
    (0..depth).fold(COMPONENT.to_vec(), |inner, _| [COMPONENT, &section(4, &inner)].concat())
}

/// A component with so many types, each of which is a pair of the last.
fn nested_types(depth: usize) -> Vec<u8> {
    let pairs = (0..depth).flat_map(|of| [vec![0x6f, 2], leb(of), leb(of)].concat());
    let types = [leb(depth + 1), vec![0x7d], pairs.collect()].concat();
    [COMPONENT, &section(7, &types)].concat()
}

/// One whose function divides and keeps so many values.
fn large(values: usize) -> Vec<u8> {
    let locals = 1000;
    let mut body = [vec![1], leb(locals), vec![0x7e]].concat();
    for value in 0..values {
        // Each of the many locals lives for long: local.get, local.get, i64.div_s, which may trap and so is not left out, local.set.
        let [first, second, third] = [value * 7, value * 13, value].map(|it| leb(it % locals));
        body.extend([&[0x20][..], &first, &[0x20], &second, &[0x7f, 0x21], &third].concat());
    }
    body.push(0x0b);
    component(&body)
}

#[test]
fn a_module_that_takes_too_much_to_compile_is_refused() {
    let load = |seconds: u64, memory_bytes: u64, bytes: &[u8]| {
        let compiler = Some(Compiler { program: PITH.clone(), seconds, memory_bytes });
        let engine = Engine::new(EngineOptions { compiler, ..EngineOptions::default() }).expect("an engine");
        engine.load(bytes, &Grants::default()).map_err(|error| error.to_string())
    };
    let good = std::fs::read(guest("answers_plainly")).expect("a guest");
    assert!(load(60, 4 << 30, &good).is_ok(), "what is compiled apart can be run");
    assert_eq!(load(60, 4 << 30, &large(10)).err().as_deref().map(|it| &it[..19]), Some("it exports no hook:"));
    let started = Instant::now();
    let slow = load(1, 4 << 30, &large(20_000)).expect_err("it is refused");
    assert_eq!(slow, "it cannot be compiled: compiling it takes more than 1 s of processor time");
    assert!(started.elapsed() < Duration::from_secs(60), "the process that compiled is gone");
    let greedy = load(60, 256 << 20, &large(100_000)).expect_err("it is refused");
    assert_eq!(greedy, "it cannot be compiled: compiling it takes more than 256 MiB of memory, or more than there is");
    // Found by a fuzzer: it ends the process, so it is here and not among the inputs of `pith-fuzz`, which run in one.
    let circle = std::fs::read(root().join("tests/fixtures/modules/described-in-a-circle.wasm")).expect("a fixture");
    assert_eq!(
        load(60, 4 << 30, &circle).expect_err("it is refused"),
        "it cannot be compiled: the compiler runs out of stack over it: it nests too deeply, or is described in a circle"
    );
    let deep = load(1, 4 << 30, &nested_blocks(200_000)).expect_err("it is refused");
    assert_eq!(deep, slow);
    let alone = "(memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1))";
    let text = |fields: &str| wat::parse_str(format!("(component (core module {fields}))")).expect("valid text");
    for (bomb, said) in [
        (nested_components(3000), "it exports no hook: …"),
        (
            nested_types(64),
            "it cannot be compiled: failed to parse WebAssembly module: effective type size exceeds the limit …",
        ),
        (
            text("(memory 1 1 shared)"),
            "it cannot be compiled: failed to parse WebAssembly module: threads must be enabled …",
        ),
        (text(&format!("(memory 1) (func (drop {alone}))")), "it cannot be compiled: failed to compile: …"),
    ] {
        let refused = load(60, 4 << 30, &bomb).expect_err("it is refused");
        assert_fits("a bomb", "load", &refused, said);
    }
    let torn = load(60, 4 << 30, &good[..good.len() / 2]).expect_err("it is refused");
    let inside =
        Engine::new(EngineOptions::default()).expect("an engine").load(&good[..good.len() / 2], &Grants::default());
    assert_eq!(torn, inside.expect_err("it is refused").to_string(), "the same is said of it");
}
