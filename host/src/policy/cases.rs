//! One case of a table, asked of a module by the host itself: its limits, its lifting of the answer, its words for a failure.
//!
//! The records of the table are those of the SDK, which mirror the contract for guests. Here they become those of the host. A binding's
//! own cases (`tests`) must hold before it is taken; `pith policy test` prints what comes of each, and `pith policy replay` asks those of
//! a decision log.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use pith_core::lookup::Question;
use pith_core::object::{AccessMode, Claim, Entries, Kind, Namespace};
use pith_core::policy::{
    Cache, Change, Exemption, Failure, Hook, Naming, NamingRequest, OptionChange, Origin, Owner, PodFacts, Quota,
    QuotaRequest, SidecarFacts, Subject, VolumeFacts,
};
use pith_core::text::clean;
use pith_core::volume::Source;
use pith_policy_sdk as sdk;
use pith_policy_sdk::cases::{Ask, Case};
use serde_json::{Value, json};

use super::table::{of_change, of_exemption, of_naming, of_quota, without_values};
use super::world::{Looked, Recorded};
use crate::config::PolicyConfig;
use crate::wasm::{Asking, Level, Limits, Module};

/// The largest file of a binding's cases, in bytes.
const LARGEST_TESTS: u64 = 1 << 20;
/// The most cases of a binding.
const MOST_CASES: usize = 1000;
/// The most time for all of them: a change waits for it.
const TESTS_TIME: Duration = Duration::from_secs(60);
/// How much of an answer is repeated where it is not the one expected, in bytes: the whole of it is what `pith policy test` prints.
const ANSWER: usize = 500;

/// The bytes of a binding's cases.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("reading its tests {}", path.display()))?;
    file.take(LARGEST_TESTS + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading its tests {}", path.display()))?;
    ensure!(bytes.len() as u64 <= LARGEST_TESTS, "its tests {} have more than {LARGEST_TESTS} bytes", path.display());
    Ok(bytes)
}

/// Asks a module the cases of its binding, with the binding's settings, where a case has none of its own, and its limits. The error names
/// the first case that is answered otherwise.
pub(super) fn hold(module: &Module, config: &PolicyConfig, tests: &[u8]) -> Result<()> {
    let text = std::str::from_utf8(tests).context("its tests are not text")?;
    let cases = sdk::cases::parse(text).map_err(|error| anyhow!("its tests cannot be read: {error}"))?;
    ensure!(!cases.is_empty(), "its tests have no cases");
    ensure!(cases.len() <= MOST_CASES, "its tests have {} cases: at most {MOST_CASES}", cases.len());
    let (began, count) = (Instant::now(), cases.len());
    let settings: Value = serde_json::from_str(&config.settings).context("its settings")?;
    for (asked, mut case) in cases.into_iter().enumerate() {
        ensure!(
            began.elapsed() < TESTS_TIME,
            "its tests take longer than {} s: {asked} of {count} cases were asked in that time",
            TESTS_TIME.as_secs()
        );
        case.settings.get_or_insert_with(|| settings.clone());
        let tried = ask(module, config.limits, &case);
        if tried.passed() {
            continue;
        }
        // The values of variables may be in settings, and this sentence goes into logs.
        let words = |answer: &Value| clean(&without_values(answer.clone()).to_string(), ANSWER);
        let (name, hook) = (clean(&tried.name, ANSWER), tried.hook);
        let (expected, answered) = (words(&tried.expected), words(&tried.answered));
        let sentence = format!("its case `{name}` ({hook}) does not hold: expected {expected}, answered {answered}");
        match tried.failure {
            // What a busy host had no room or no time for may hold a moment later.
            Some(failure) => return Err(Error::new(failure).context(sentence)),
            None => bail!(sentence),
        }
    }
    Ok(())
}

/// What came of a case.
pub(crate) struct Tried {
    name: String,
    hook: &'static str,
    took: Duration,
    /// What the module has logged.
    log: Vec<String>,
    /// As a table writes them. A failure that no table can expect is a `failure`.
    expected: Value,
    answered: Value,
    /// Why there is no answer.
    failure: Option<Failure>,
}

impl Tried {
    pub(crate) fn passed(&self) -> bool {
        self.expected == self.answered
    }

    pub(crate) fn text(&self) -> String {
        let micros = self.took.as_micros();
        if self.passed() {
            return format!("ok      {} ({}, {micros} µs)\n", self.name, self.hook);
        }
        let (expected, answered) = (&self.expected, &self.answered);
        let mut text = format!(
            "FAILED  {} ({}, {micros} µs)\n          expected  {expected}\n          answered  {answered}\n",
            self.name, self.hook
        );
        for line in &self.log {
            let _ = writeln!(text, "          logged    {line}");
        }
        text
    }

    /// What is answered now instead of then.
    pub(crate) fn difference(&self) -> String {
        let (then, now) = (&self.expected, &self.answered);
        format!("{} ({})\n  then  {then}\n  now   {now}\n", self.name, self.hook)
    }

    pub(crate) fn describe(&self) -> Value {
        json!({
            "name": self.name, "hook": self.hook, "passed": self.passed(),
            "microseconds": u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
            "expected": self.expected, "answered": self.answered, "log": self.log,
        })
    }
}

/// Asks a module a question that one was asked before, and compares with what that one answered.
pub(crate) fn replay(module: &Module, limits: Limits, case: &Case, answered: Value) -> Tried {
    Tried { expected: answered, ..ask(module, limits, case) }
}

/// Asks a module one question of a table. What a binding with such settings would be refused for is the answer here too.
pub(crate) fn ask(module: &Module, limits: Limits, case: &Case) -> Tried {
    let settings = case.settings_text();
    let object = case.object.clone().unwrap_or(Value::Null);
    let lines = std::sync::Mutex::new(Vec::new());
    let log = |level: Level, line: &str| {
        if let Ok(mut lines) = lines.lock() {
            lines.push(format!("{level:?}: {line}").to_lowercase());
        }
    };
    let (hook, expected) = expected(&case.ask);
    let failure = Cell::new(None);
    let mut took = Duration::ZERO;
    let answered = match hook.filter(|hook| !module.hooks().contains(hook)) {
        Some(hook) => json!({"failure": format!("the module has no hook `{}`", hook.as_str())}),
        None => match (&case.ask, validate(module, limits, &settings, &log, &failure)) {
            (Ask::Settings { .. }, (answer, time)) => {
                took = time;
                answer
            }
            (_, (refused, _)) if refused != "valid" => {
                json!({"failure": "the settings are refused", "settings": refused})
            }
            _ => match world(case) {
                Ok(world) => {
                    let started = Instant::now();
                    let asking = Asking { limits, settings: &settings, world: &world, log: &log };
                    let answer = of_hook(module, asking, case, &object, &failure);
                    took = started.elapsed();
                    answer
                }
                Err(why) => json!({"failure": why}),
            },
        },
    };
    let hook = hook.map_or("settings", Hook::as_str);
    let log = lines.into_inner().unwrap_or_default();
    Tried { name: case.name.clone(), hook, took, log, expected, answered, failure: failure.into_inner() }
}

/// What the case says of the world. The error is a sentence.
fn world(case: &Case) -> Result<Recorded, String> {
    let looked = |it: &sdk::cases::Lookup| {
        let kind = Kind::from_name(&it.kind);
        let kind = kind.ok_or_else(|| format!("`lookups` has the kind `{}`, which nobody can look up", it.kind))?;
        let (namespace, name) = (it.namespace.clone(), it.name.clone());
        let labels = it.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let found = it.found.as_ref().map(|found| found.iter().map(Value::to_string).collect());
        Ok(Looked { question: Question { kind, namespace, name, labels }, found })
    };
    Ok(Recorded { now: case.now, looked: case.lookups.iter().map(looked).collect::<Result<_, String>>()? })
}

fn of_hook(module: &Module, asking: Asking<'_>, case: &Case, object: &Value, failure: &Cell<Option<Failure>>) -> Value {
    fn said<T>(answer: &Result<T, Failure>, words: impl Fn(&T) -> Value, failure: &Cell<Option<Failure>>) -> Value {
        failure.set(answer.as_ref().err().cloned());
        super::table::said(answer, words)
    }
    let origin = case.origin.as_ref();
    match &case.ask {
        Ask::Exemption { input, .. } => {
            let volumes: Vec<VolumeFacts> = input.volumes.iter().map(volume).collect();
            let subject = subject(&input.pod, &input.namespace, object);
            said(&module.exempt(asking, &subject, &volumes), of_exemption, failure)
        }
        Ask::Sidecar { input, .. } => {
            let subject = subject(&input.pod, &input.namespace, object);
            let (volume, current) = (volume(&input.volume), sidecar(&input.current));
            said(&module.adjust(asking, &subject, &volume, &current), of_change, failure)
        }
        Ask::Naming { input, .. } => {
            said(&module.name(asking, &naming_request(input, origin), object), of_naming, failure)
        }
        Ask::Quota { input, .. } => {
            said(&module.quota(asking, &quota_request(input, origin), object), of_quota, failure)
        }
        Ask::Settings { .. } => Value::Null,
    }
}

fn validate(
    module: &Module,
    limits: Limits,
    settings: &str,
    log: &dyn Fn(Level, &str),
    failed: &Cell<Option<Failure>>,
) -> (Value, Duration) {
    if !module.has_settings() {
        return (json!("valid"), Duration::ZERO);
    }
    let started = Instant::now();
    let answer = module.validate_settings(limits, settings, &log);
    let took = started.elapsed();
    let answer = match answer {
        Ok(Ok(())) => json!("valid"),
        Ok(Err(problem)) => json!({"problem": {"field": problem.field, "reason": problem.reason}}),
        Err(failure) => {
            let words = json!({"failure": failure.to_string()});
            failed.set(Some(failure));
            words
        }
    };
    (answer, took)
}

/// The hook of a question, none for the settings, and the answer that the table has for it.
fn expected(ask: &Ask) -> (Option<Hook>, Value) {
    fn said<T, U>(expect: &Result<T, String>, convert: impl Fn(T) -> U, words: impl Fn(&U) -> Value) -> Value
    where
        T: Clone,
    {
        expect.clone().map_or_else(|error| json!({"error": error}), |answer| words(&convert(answer)))
    }
    match ask {
        Ask::Exemption { expect, .. } => (Some(Hook::Exemption), said(expect, exemption, of_exemption)),
        Ask::Sidecar { expect, .. } => (Some(Hook::Sidecar), said(expect, change, of_change)),
        Ask::Naming { expect, .. } => (Some(Hook::Naming), said(expect, naming, of_naming)),
        Ask::Quota { expect, .. } => (Some(Hook::Quota), said(expect, quota, of_quota)),
        Ask::Settings { expect } => {
            let problem = |it: &sdk::SettingsProblem| json!({"problem": {"field": it.field, "reason": it.reason}});
            (None, expect.as_ref().map_or_else(problem, |()| json!("valid")))
        }
    }
}

// From the records of the SDK, which mirror the contract for guests, to those of the host.

fn subject<'a>(pod: &sdk::Pod, namespace: &sdk::Namespace, object: &'a Value) -> Subject<'a> {
    let owner = |it: &sdk::Owner| Owner {
        api_version: it.api_version.clone(),
        kind: it.kind.clone(),
        name: it.name.clone(),
        controller: it.controller,
    };
    Subject {
        pod: PodFacts {
            name: pod.name.clone(),
            generate_name: pod.generate_name.clone(),
            labels: entries(&pod.labels),
            annotations: entries(&pod.annotations),
            owners: pod.owners.iter().map(owner).collect(),
            service_account: pod.service_account.clone(),
            priority_class: pod.priority_class.clone(),
            priority: pod.priority,
        },
        namespace: Arc::new(self::namespace(namespace)),
        object,
    }
}

fn namespace(it: &sdk::Namespace) -> Namespace {
    Namespace { name: it.name.clone(), labels: entries(&it.labels), annotations: entries(&it.annotations) }
}

fn claim(it: &sdk::Claim) -> Claim {
    let mode = |mode: &sdk::AccessMode| match mode {
        sdk::AccessMode::ReadWriteOnce => AccessMode::ReadWriteOnce,
        sdk::AccessMode::ReadOnlyMany => AccessMode::ReadOnlyMany,
        sdk::AccessMode::ReadWriteMany => AccessMode::ReadWriteMany,
        sdk::AccessMode::ReadWriteOncePod => AccessMode::ReadWriteOncePod,
    };
    Claim {
        name: it.name.clone(),
        labels: entries(&it.labels),
        annotations: entries(&it.annotations),
        storage_class: it.storage_class.clone(),
        requested_bytes: it.requested_bytes,
        access_modes: it.access_modes.iter().map(mode).collect(),
        ..Claim::default()
    }
}

fn volume(it: &sdk::Volume) -> VolumeFacts {
    VolumeFacts {
        name: it.name.clone(),
        claim: Arc::new(claim(&it.claim)),
        read_only: it.read_only,
        class_parameters: Arc::new(entries(&it.class_parameters)),
        volume_attributes: Arc::new(entries(&it.volume_attributes)),
    }
}

fn sidecar(it: &sdk::Sidecar) -> SidecarFacts {
    SidecarFacts {
        requests: entries(&it.requests),
        limits: entries(&it.limits),
        mount_options: it.mount_options.clone(),
        env: entries(&it.env),
        cache: cache(it.cache.clone()),
    }
}

fn naming_request(it: &sdk::NamingRequest, origin: Option<&sdk::Origin>) -> NamingRequest {
    NamingRequest {
        volume_name: it.volume_name.clone(),
        required_bytes: it.required_bytes,
        limit_bytes: it.limit_bytes,
        claim: Arc::new(claim(&it.claim)),
        namespace: Arc::new(namespace(&it.namespace)),
        parameters: entries(&it.parameters),
        origin: origin.map(self::origin),
    }
}

fn quota_request(it: &sdk::QuotaRequest, origin: Option<&sdk::Origin>) -> QuotaRequest {
    QuotaRequest {
        volume: NamingRequest {
            volume_name: it.volume_name.clone(),
            required_bytes: it.required_bytes,
            limit_bytes: it.limit_bytes,
            claim: Arc::new(claim(&it.claim)),
            namespace: Arc::new(namespace(&it.namespace)),
            parameters: entries(&it.parameters),
            origin: origin.map(self::origin),
        },
        directory: it.directory.clone(),
        shared: it.shared,
    }
}

fn origin(it: &sdk::Origin) -> Origin {
    let source = match it.kind {
        sdk::OriginKind::Volume => Source::Volume(it.id.clone()),
        sdk::OriginKind::Snapshot => Source::Snapshot(it.id.clone()),
    };
    Origin { source, directory: it.directory.clone() }
}

fn entries(list: &[(String, String)]) -> Entries {
    list.iter().cloned().collect()
}

// From the answers of the SDK to those of the host.

fn cache(it: sdk::Cache) -> Cache {
    match it {
        sdk::Cache::Container => Cache::Container,
        sdk::Cache::EmptyDir(it) => Cache::EmptyDir { in_memory: it.in_memory, size_limit: it.size_limit },
    }
}

fn exemption(it: sdk::Exemption) -> Exemption {
    match it {
        sdk::Exemption::Inject => Exemption::Inject,
        sdk::Exemption::Skip(reason) => Exemption::Skip(reason),
        sdk::Exemption::Deny(sentence) => Exemption::Deny(sentence),
    }
}

fn change(it: sdk::Change) -> Change {
    let option = |(name, change)| match change {
        sdk::OptionChange::Set(value) => (name, OptionChange::Set(value)),
        sdk::OptionChange::Remove => (name, OptionChange::Remove),
    };
    Change {
        requests: it.requests,
        limits: it.limits,
        mount_options: it.mount_options.into_iter().map(option).collect(),
        env: it.env,
        cache: it.cache.map(cache),
    }
}

fn quota(it: sdk::Quota) -> Option<Quota> {
    match it {
        sdk::Quota::Pass => None,
        sdk::Quota::On => Some(Quota::On),
        sdk::Quota::Off => Some(Quota::Off),
    }
}

fn naming(it: sdk::Naming) -> Naming {
    match it {
        sdk::Naming::Pass => Naming::Pass,
        sdk::Naming::Directory(it) => Naming::Directory { components: it.components, shared: it.shared },
        sdk::Naming::Deny(sentence) => Naming::Deny(sentence),
    }
}
