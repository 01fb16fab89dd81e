//! The table of cases of a policy, `cases.yaml`: questions, and the answers they must get.
//!
//! A table is a list. Each case names itself with a sentence, gives the settings, says which hook is asked what, and what
//! the answer is:
//!
//! ```yaml
//! - name: a pod of a DaemonSet is left as it is
//!   hook: exemption
//!   settings: { kinds: [DaemonSet] }
//!   input:
//!     pod: { name: log-x7, owners: [{ apiVersion: apps/v1, kind: DaemonSet, name: log, controller: true }] }
//!     namespace: { name: ops }
//!   expect: { skip: DaemonSet pods use no JuiceFS }
//! ```
//!
//! The records are those of the contract in camel case, with maps for lists of entries; whatever is left out is empty.
//! The answers are:
//!
//! | hook | `expect` |
//! |---|---|
//! | `exemption` | `inject`, `{ skip: REASON }`, `{ deny: SENTENCE }` |
//! | `sidecar` | `{ change: { requests, limits, mountOptions, env, cache } }`; in them `null` removes a resource or a variable, and a mount option is `remove` or `{ set: VALUE }`, with `null` for a switch |
//! | `naming` | `pass`, `{ directory: { components, shared } }`, `{ deny: SENTENCE }` |
//! | `quota` | `pass`, `on`, `off`, in quotes: YAML takes the last two for something else |
//! | `settings` | `valid`, `{ problem: { field, reason } }` |
//! | any but `settings` | `{ error: TEXT }`, a failure of the policy |
//!
//! A case without `settings` has those of the binding whose `tests` it is in, and `{}` where there is none. One may have `object`, what
//! the policy reads of the raw object, and `origin`, what the volume starts with:
//! `{ kind: snapshot, id: s-1, directory: [shop, data] }`. What a binding grants beside that is `now`, the time, and `lookups`, what is
//! looked up with what is found:
//!
//! ```yaml
//!   now: 2026-11-27T18:00:00Z
//!   lookups:
//!   - { kind: Namespace, name: shop, found: [{ metadata: { name: shop, labels: { unit: retail } } }] }
//!   - { kind: PersistentVolumeClaim, namespace: shop, labels: { team: web }, found: [] }
//! ```
//!
//! One with a `name` is for one object (of a PersistentVolume it is the name of its claim), one without for a list. `found: null` is
//! more than the budget of a call. What is looked up and not among them is a failure.
//!
//! One table serves twice: [`check`] asks the Rust functions natively, and the end-to-end tests of Pith ask the `.wasm`
//! through the real host. A case has nothing that only one of them could give.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    Change, Exemption, Namespace, Naming, NamingRequest, Origin, Pod, Quota, QuotaRequest, SettingsProblem, Sidecar,
    Volume, settings, testing,
};

/// One question to a policy, and the answer it must get.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What holds, in a sentence.
    pub name: String,
    /// The settings of the binding; absent where the table gives none, which are `{}` for whoever has no binding.
    pub settings: Option<Value>,
    /// What [`object`](crate::object) answers; absent where the policy is not expected to ask.
    pub object: Option<Value>,
    /// What [`origin`](crate::origin()) answers.
    pub origin: Option<Origin>,
    /// What [`clock::now`](crate::clock::now) answers.
    pub now: Option<u64>,
    /// What [`lookup`](crate::lookup) finds.
    pub lookups: Vec<Lookup>,
    /// The hook, what it is asked, and what it answers.
    pub ask: Ask,
}

/// What is looked up, and what is found.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Lookup {
    /// As `kind` of an object has it.
    pub kind: String,
    /// Where, for what is in a namespace.
    pub namespace: Option<String>,
    /// Which one; absent for a list.
    pub name: Option<String>,
    /// Labels that each of a list must have.
    pub labels: BTreeMap<String, String>,
    /// The objects; absent where they are more than the budget of a call.
    pub found: Option<Vec<Value>>,
}

/// The hook, what it is asked, and what it answers. An `Err` is the policy's own failure.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// `exemption.exempt`.
    Exemption {
        /// What is asked.
        input: ExemptionInput,
        /// What is answered.
        expect: Result<Exemption, String>,
    },
    /// `sidecar.adjust`.
    Sidecar {
        /// What is asked.
        input: Box<SidecarInput>,
        /// What is answered.
        expect: Result<Change, String>,
    },
    /// `naming.name`.
    Naming {
        /// What is asked.
        input: Box<NamingRequest>,
        /// What is answered.
        expect: Result<Naming, String>,
    },
    /// `quota.decide`.
    Quota {
        /// What is asked.
        input: Box<QuotaRequest>,
        /// What is answered.
        expect: Result<Quota, String>,
    },
    /// `settings.validate`.
    Settings {
        /// What is answered.
        expect: Result<(), SettingsProblem>,
    },
}

/// The arguments of the hook `exemption`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ExemptionInput {
    /// The pod under admission.
    pub pod: Pod,
    /// The namespace that the request is in.
    pub namespace: Namespace,
    /// The JuiceFS volumes of the pod.
    pub volumes: Vec<Volume>,
}

/// The arguments of the hook `sidecar`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SidecarInput {
    /// The pod under admission.
    pub pod: Pod,
    /// The namespace that the request is in.
    pub namespace: Namespace,
    /// The volume that the sidecar serves.
    pub volume: Volume,
    /// The sidecar as the layers before the policy left it.
    pub current: Sidecar,
}

impl Case {
    /// The settings as the host hands them to the policy: JSON text.
    pub fn settings_text(&self) -> String {
        self.settings.as_ref().map_or_else(|| "{}".into(), Value::to_string)
    }

    /// The object as the host hands it to the policy: JSON text.
    pub fn object_text(&self) -> Option<String> {
        self.object.as_ref().map(Value::to_string)
    }
}

/// Why a table cannot be read. Its `Display` names the case and the field.
#[derive(Debug)]
pub struct TableError(String);

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TableError {}

/// Reads the table in a file.
pub fn load(path: &Path) -> Result<Vec<Case>, TableError> {
    let at = |reason: String| TableError(format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| at(error.to_string()))?;
    parse(&text).map_err(|error| at(error.0))
}

/// Reads a table from its text.
pub fn parse(text: &str) -> Result<Vec<Case>, TableError> {
    let rows: Vec<Row> = yaml_serde::from_str(text).map_err(|error| TableError(error.to_string()))?;
    rows.into_iter().map(Row::into_case).collect()
}

/// A case before it is known which hook it asks, and so what `input` and `expect` are.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    hook: Hook,
    settings: Option<Value>,
    object: Option<Value>,
    origin: Option<Value>,
    now: Option<String>,
    #[serde(default)]
    lookups: Vec<Value>,
    #[serde(default = "empty_object")]
    input: Value,
    expect: Value,
}

fn empty_object() -> Value {
    Value::Object(serde_json::Map::new())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Hook {
    Exemption,
    Sidecar,
    Naming,
    Quota,
    Settings,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum SidecarAnswer {
    Change(Change),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum SettingsAnswer {
    Valid,
    Problem(SettingsProblem),
}

impl Row {
    fn into_case(self) -> Result<Case, TableError> {
        let Self { name, hook, settings, object, origin, now, lookups, input, expect } = self;
        let read = Reader { case: &name };
        let ask = match hook {
            Hook::Exemption => Ask::Exemption { input: read.value("input", input)?, expect: read.answer(expect)? },
            Hook::Sidecar => Ask::Sidecar {
                input: read.value("input", input)?,
                expect: read.answer(expect)?.map(|SidecarAnswer::Change(change)| change),
            },
            Hook::Naming => Ask::Naming { input: read.value("input", input)?, expect: read.answer(expect)? },
            Hook::Quota => Ask::Quota { input: read.value("input", input)?, expect: read.answer(expect)? },
            Hook::Settings => Ask::Settings {
                expect: match read.value("expect", expect)? {
                    SettingsAnswer::Valid => Ok(()),
                    SettingsAnswer::Problem(problem) => Err(problem),
                },
            },
        };
        let origin = origin.map(|origin| read.value("origin", origin)).transpose()?;
        let now = now.map(|now| read.time(&now)).transpose()?;
        let lookups = lookups.into_iter().map(|lookup| read.value("lookups", lookup)).collect::<Result<_, _>>()?;
        Ok(Case { name, settings, object, origin, now, lookups, ask })
    }
}

struct Reader<'a> {
    case: &'a str,
}

impl Reader<'_> {
    fn value<T: DeserializeOwned>(&self, part: &str, value: Value) -> Result<T, TableError> {
        settings::read_value(&value).map_err(|SettingsProblem { field, reason }| {
            let case = self.case;
            match field.as_str() {
                "" => TableError(format!("case {case:?}: {part}: {reason}")),
                field => TableError(format!("case {case:?}: {part}: {field}: {reason}")),
            }
        })
    }

    /// Milliseconds since the Unix epoch.
    fn time(&self, text: &str) -> Result<u64, TableError> {
        let time = humantime::parse_rfc3339_weak(text).ok();
        let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        since.and_then(|since| u64::try_from(since.as_millis()).ok()).ok_or_else(|| {
            TableError(format!("case {:?}: now: `{text}` is no time as in `2026-11-27T18:00:00Z`", self.case))
        })
    }

    /// An `error` is the same for every hook; anything else is the hook's own answer.
    fn answer<T: DeserializeOwned>(&self, value: Value) -> Result<Result<T, String>, TableError> {
        match value.get("error") {
            Some(error) => self.value("expect.error", error.clone()).map(Err),
            None => self.value("expect", value).map(Ok),
        }
    }
}

/// A map in the table for a sorted list of entries in the contract.
pub(crate) fn by_key<'de, D, V>(deserializer: D) -> Result<Vec<(String, V)>, D::Error>
where
    D: serde::Deserializer<'de>,
    V: Deserialize<'de>,
{
    Ok(BTreeMap::deserialize(deserializer)?.into_iter().collect())
}

/// A policy as its native functions: `#[policy]` implements it. Absent is a hook that the policy does not have.
pub trait Policy {
    /// Asks `exempt`.
    fn exemption(settings: &str, input: &ExemptionInput) -> Option<Result<Exemption, String>> {
        let _ = (settings, input);
        None
    }

    /// Asks `sidecar`.
    fn sidecar(settings: &str, input: &SidecarInput) -> Option<Result<Change, String>> {
        let _ = (settings, input);
        None
    }

    /// Asks `name`.
    fn naming(settings: &str, request: &NamingRequest) -> Option<Result<Naming, String>> {
        let _ = (settings, request);
        None
    }

    /// Asks `quota`.
    fn quota(settings: &str, request: &QuotaRequest) -> Option<Result<Quota, String>> {
        let _ = (settings, request);
        None
    }

    /// Reads the settings, and asks `validate` where the policy has it.
    fn validate(settings: &str) -> Result<(), SettingsProblem>;
}

/// Asks the native functions of a policy every question of a table.
///
/// # Panics
///
/// Where the table cannot be read, is empty, or an answer differs; the message lists every case that failed.
#[track_caller]
pub fn check<P: Policy>(table: &str) {
    let cases = match parse(table) {
        Ok(cases) => cases,
        Err(error) => panic!("the table of cases cannot be read: {error}"),
    };
    assert!(!cases.is_empty(), "the table has no cases");
    let failures: Vec<String> = cases.iter().filter_map(|case| check_one::<P>(case).err()).collect();
    assert!(failures.is_empty(), "{} of {} cases failed\n\n{}", failures.len(), cases.len(), failures.join("\n\n"));
}

fn check_one<P: Policy>(case: &Case) -> Result<(), String> {
    match case.object_text() {
        Some(object) => testing::set_object(object),
        None => testing::clear_object(),
    }
    testing::set_origin(case.origin.clone());
    testing::set_now(case.now);
    testing::set_lookups(case.lookups.clone());
    let settings = case.settings_text();
    // The host validates settings when it loads the binding, so a case of a hook with wrong settings could not be asked.
    if !matches!(case.ask, Ask::Settings { .. }) {
        P::validate(&settings)
            .map_err(|problem| format!("{}\n  the settings are not valid: {problem:?}", case.name))?;
    }
    match &case.ask {
        Ask::Exemption { input, expect } => compare(case, Some(expect), P::exemption(&settings, input).as_ref()),
        Ask::Sidecar { input, expect } => compare(case, Some(expect), P::sidecar(&settings, input).as_ref()),
        Ask::Naming { input, expect } => compare(case, Some(expect), P::naming(&settings, input).as_ref()),
        Ask::Quota { input, expect } => compare(case, Some(expect), P::quota(&settings, input).as_ref()),
        Ask::Settings { expect } => compare(case, expect, &P::validate(&settings)),
    }
}

fn compare<T: fmt::Debug + PartialEq>(case: &Case, expected: T, actual: T) -> Result<(), String> {
    if expected == actual {
        return Ok(());
    }
    Err(format!("{}\n  expected {expected:?}\n  answered {actual:?}", case.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cache, Directory, EmptyDir, OptionChange};

    fn only(table: &str) -> Case {
        let mut cases = parse(table).expect("a readable table");
        assert_eq!(cases.len(), 1);
        cases.remove(0)
    }

    fn check_refused(table: &str, reason: &str) {
        assert_eq!(parse(table).expect_err(table).to_string(), reason);
    }

    #[test]
    fn records_are_compact_and_what_is_left_out_is_empty() {
        let case = only(
            "- name: n\n  hook: exemption\n  settings: { a: 1 }\n  input:\n    pod: { generateName: web-, labels: { b: x, a: \
             y } }\n    volumes: [{ name: data, claim: { accessModes: [ReadWriteOnce] } }]\n  expect: inject\n",
        );
        assert_eq!(case.settings_text(), r#"{"a":1}"#);
        let Ask::Exemption { input, expect } = case.ask else { panic!("wrong hook") };
        assert_eq!(expect, Ok(Exemption::Inject));
        assert_eq!(input.pod.generate_name.as_deref(), Some("web-"));
        assert_eq!(input.pod.labels, [("a".to_owned(), "y".to_owned()), ("b".to_owned(), "x".to_owned())]);
        assert_eq!(input.volumes[0].claim.access_modes, [crate::AccessMode::ReadWriteOnce]);
        assert_eq!(input.namespace, Namespace::default());
    }

    #[test]
    fn every_kind_of_change_has_a_form() {
        let case = only(
            "- name: n\n  hook: sidecar\n  expect:\n    change:\n      requests: { cpu: '1', memory: null }\n      mountOptions: \
             { a: remove, b: { set: null }, c: { set: x } }\n      env: { A: '1', B: null }\n      cache: { emptyDir: { \
             inMemory: true, sizeLimit: 1Gi } }\n",
        );
        let Ask::Sidecar { expect, .. } = case.ask else { panic!("wrong hook") };
        let change = Change::none()
            .request("cpu", 1)
            .without_request("memory")
            .without_option("a")
            .switch("b")
            .option("c", "x")
            .env("A", 1)
            .without_env("B")
            .cache(Cache::EmptyDir(EmptyDir { in_memory: true, size_limit: Some("1Gi".to_owned()) }));
        assert_eq!(expect, Ok(change.clone()));
        assert_eq!(change.mount_options[1].1, OptionChange::Set(None));
    }

    #[test]
    fn every_kind_of_answer_has_a_form() {
        let expect = |hook: &str, expect: &str| only(&format!("- {{ name: n, hook: {hook}, expect: {expect} }}")).ask;
        let naming = |answer| Ask::Naming { input: Box::default(), expect: answer };
        assert_eq!(expect("naming", "pass"), naming(Ok(Naming::Pass)));
        let directory = Directory { components: vec!["a".to_owned()], shared: true };
        assert_eq!(
            expect("naming", "{ directory: { components: [a], shared: true } }"),
            naming(Ok(Naming::Directory(directory)))
        );
        assert_eq!(expect("naming", "{ deny: no }"), naming(Ok(Naming::Deny("no".to_owned()))));
        assert_eq!(expect("naming", "{ error: broken }"), naming(Err("broken".to_owned())));
        let quota = |answer| Ask::Quota { input: Box::default(), expect: answer };
        assert_eq!(expect("quota", "'off'"), quota(Ok(Quota::Off)));
        assert_eq!(expect("quota", "pass"), quota(Ok(Quota::Pass)));
        assert_eq!(expect("settings", "valid"), Ask::Settings { expect: Ok(()) });
        assert_eq!(
            expect("settings", "{ problem: { field: a.b, reason: c } }"),
            Ask::Settings { expect: Err(SettingsProblem::new("a.b", "c")) }
        );
    }

    #[test]
    fn what_grants_show_has_a_form() {
        let case = only(
            "- name: n\n  hook: naming\n  now: 1970-01-01T00:00:01.5Z\n  lookups:\n  - { kind: Namespace, name: shop, found: [{ \
             a: 1 }] }\n  - { kind: PersistentVolumeClaim, namespace: shop, labels: { b: c }, found: null }\n  expect: pass\n",
        );
        assert_eq!(case.now, Some(1500));
        assert_eq!(case.lookups[0].found, Some(vec![serde_json::json!({"a": 1})]));
        assert_eq!((case.lookups[1].namespace.as_deref(), &case.lookups[1].found), (Some("shop"), &None));
        check_refused(
            "- { name: n, hook: naming, now: soon, expect: pass }",
            "case \"n\": now: `soon` is no time as in `2026-11-27T18:00:00Z`",
        );
        check_refused(
            "- { name: n, hook: naming, lookups: [{ kin: Namespace }], expect: pass }",
            "case \"n\": lookups: kin: unknown field `kin`, expected one of `kind`, `namespace`, `name`, `labels`, `found`",
        );
    }

    #[test]
    fn mistake_in_a_table_is_told_with_its_case_and_field() {
        check_refused(
            "- { name: n, hook: exemption, input: { pod: { lables: {} } }, expect: inject }",
            "case \"n\": input: pod.lables: unknown field `lables`, expected one of `name`, `generateName`, `labels`, \
             `annotations`, `owners`, `serviceAccount`, `priorityClass`, `priority`",
        );
        check_refused(
            "- { name: n, hook: naming, expect: inject }",
            "case \"n\": expect: unknown variant `inject`, expected one of `pass`, `directory`, `deny`",
        );
    }
}
