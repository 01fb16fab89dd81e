//! Questions to policies and their answers as the table of cases has them (`pith_policy_sdk::cases`): what `pith policy test` compares,
//! and what the decision log keeps for `pith policy replay`.

use pith_core::object::{AccessMode, Claim, Entries, LAST_APPLIED, Namespace};
use pith_core::policy::{
    Cache, Change, Exemption, Failure, Naming, NamingRequest, OptionChange, Origin, Quota, QuotaRequest, SidecarFacts,
    Subject, VolumeFacts,
};
use pith_core::volume::Source;
use serde_json::{Map, Value, json};

use super::world::{Looked, written};

/// What stands for the value of a variable where a log is read by others than those who may see it.
const HIDDEN: &str = "(a value)";

/// An answer, or why there is none: the policy's own words are an `error`, as in a table, and anything else is a `failure`, which no
/// table can expect.
pub(crate) fn said<T>(answer: &Result<T, Failure>, words: impl Fn(&T) -> Value) -> Value {
    match answer {
        Ok(answer) => words(answer),
        Err(Failure::Reported(error)) => json!({"error": error}),
        Err(failure) => json!({"failure": failure.to_string()}),
    }
}

pub(crate) fn of_exemption(answer: &Exemption) -> Value {
    match answer {
        Exemption::Inject => json!("inject"),
        Exemption::Skip(reason) => json!({"skip": reason}),
        Exemption::Deny(sentence) => json!({"deny": sentence}),
    }
}

pub(crate) fn of_change(answer: &Change) -> Value {
    let Change { requests, limits, mount_options, env, cache } = answer;
    let option = |(name, change): &(String, OptionChange)| {
        let words = match change {
            OptionChange::Set(value) => json!({"set": value}),
            OptionChange::Remove => json!("remove"),
        };
        (name.clone(), words)
    };
    let entries = |list: &[(String, Option<String>)]| -> Vec<(String, Value)> {
        list.iter().map(|(name, value)| (name.clone(), json!(value))).collect()
    };
    let mut change = Map::new();
    let parts: [(&str, Vec<(String, Value)>); 4] = [
        ("requests", entries(requests)),
        ("limits", entries(limits)),
        ("mountOptions", mount_options.iter().map(option).collect()),
        ("env", entries(env)),
    ];
    for (part, list) in parts.into_iter().filter(|(_, list)| !list.is_empty()) {
        change.insert(part.into(), Value::Object(list.into_iter().collect()));
    }
    if let Some(cache) = cache {
        change.insert("cache".into(), of_cache(cache));
    }
    json!({"change": change})
}

fn of_cache(cache: &Cache) -> Value {
    match cache {
        Cache::Container => json!("container"),
        Cache::EmptyDir { in_memory, size_limit } => {
            json!({"emptyDir": {"inMemory": in_memory, "sizeLimit": size_limit}})
        }
    }
}

pub(crate) fn of_naming(answer: &Naming) -> Value {
    match answer {
        Naming::Pass => json!("pass"),
        Naming::Directory { components, shared } => json!({"directory": {"components": components, "shared": shared}}),
        Naming::Deny(sentence) => json!({"deny": sentence}),
    }
}

pub(crate) fn of_quota(answer: &Option<Quota>) -> Value {
    match answer {
        None => json!("pass"),
        Some(Quota::On) => json!("on"),
        Some(Quota::Off) => json!("off"),
    }
}

/// An answer without the values of variables.
pub(crate) fn without_values(mut answer: Value) -> Value {
    let env = answer.pointer_mut("/change/env").and_then(Value::as_object_mut);
    for value in env.into_iter().flat_map(Map::values_mut).filter(|value| !value.is_null()) {
        *value = json!(HIDDEN);
    }
    answer
}

/// What grants have shown a policy in one call.
pub(crate) struct Shown {
    /// Whether it could read the whole object.
    pub(crate) object: bool,
    /// What time it was, where it could ask.
    pub(crate) now: Option<u64>,
    /// What it has looked up.
    pub(crate) looked: Vec<Looked>,
}

/// A question as the `input` of a case, and what a policy may ask for beside it.
pub(crate) struct Question<'a> {
    pub(crate) input: Value,
    pub(crate) object: &'a Value,
    pub(crate) origin: Option<&'a Origin>,
}

impl<'a> Question<'a> {
    pub(crate) fn exemption(subject: &Subject<'a>, volumes: &[VolumeFacts]) -> Question<'a> {
        let volumes: Vec<Value> = volumes.iter().map(volume).collect();
        let input = json!({"pod": pod(subject), "namespace": namespace(&subject.namespace), "volumes": volumes});
        Question { input, object: subject.object, origin: None }
    }

    pub(crate) fn sidecar(subject: &Subject<'a>, of: &VolumeFacts, current: &SidecarFacts) -> Question<'a> {
        let SidecarFacts { requests, limits, mount_options, env, cache } = current;
        let options: Map<String, Value> =
            mount_options.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let input = json!({
            "pod": pod(subject), "namespace": namespace(&subject.namespace), "volume": volume(of),
            "current": {
                "requests": entries(requests), "limits": entries(limits), "mountOptions": options, "env": entries(env), "cache": of_cache(cache),
            },
        });
        Question { input, object: subject.object, origin: None }
    }

    pub(crate) fn naming(request: &'a NamingRequest, object: &'a Value) -> Question<'a> {
        Question { input: new_volume(request), object, origin: request.origin.as_ref() }
    }

    pub(crate) fn quota(request: &'a QuotaRequest, object: &'a Value) -> Question<'a> {
        let mut input = new_volume(&request.volume);
        input["directory"] = json!(request.directory);
        input["shared"] = json!(request.shared);
        Question { input, object, origin: request.volume.origin.as_ref() }
    }

    /// The case of a table, without its name.
    pub(crate) fn case(self, hook: &str, settings: &str, shown: Shown, expect: Value) -> Value {
        let settings: Value = serde_json::from_str(settings).unwrap_or_default();
        let mut case = json!({"hook": hook, "settings": settings, "input": self.input, "expect": expect});
        if shown.object {
            case["object"] = self.object.clone();
        }
        if let Some(now) = shown.now {
            case["now"] = json!(written(now));
        }
        if !shown.looked.is_empty() {
            case["lookups"] = shown.looked.iter().map(lookup).collect();
        }
        if let Some(Origin { source, directory }) = self.origin {
            let (kind, id) = match source {
                Source::Volume(id) => ("volume", id),
                Source::Snapshot(id) => ("snapshot", id),
            };
            case["origin"] = json!({"kind": kind, "id": id, "directory": directory});
        }
        case
    }
}

fn lookup(it: &Looked) -> Value {
    let question = &it.question;
    // They were made of JSON a moment ago.
    let value = |text: &String| serde_json::from_str(text).unwrap_or_default();
    let found = it.found.as_ref().map(|found| found.iter().map(value).collect::<Vec<Value>>());
    json!({
        "kind": question.kind.name(), "namespace": question.namespace, "name": question.name, "labels": entries(&question.labels),
        "found": found,
    })
}

/// A map also where it is empty, for which its own way is a list.
fn entries(of: &Entries) -> Map<String, Value> {
    of.iter().map(|(key, value)| (key.clone(), json!(value))).collect()
}

/// Annotations without the copy of the whole object that kubectl keeps in one: variables are in that.
fn annotations(of: &Entries) -> Map<String, Value> {
    let mut entries = entries(of);
    entries.remove(LAST_APPLIED);
    entries
}

fn pod(subject: &Subject<'_>) -> Value {
    let pod = &subject.pod;
    let owners: Vec<Value> = (pod.owners.iter())
        .map(|it| json!({"apiVersion": it.api_version, "kind": it.kind, "name": it.name, "controller": it.controller}))
        .collect();
    json!({
        "name": pod.name, "generateName": pod.generate_name, "labels": entries(&pod.labels), "annotations": annotations(&pod.annotations),
        "owners": owners, "serviceAccount": pod.service_account, "priorityClass": pod.priority_class,
        "priority": pod.priority,
    })
}

fn namespace(it: &Namespace) -> Value {
    json!({"name": it.name, "labels": entries(&it.labels), "annotations": annotations(&it.annotations)})
}

fn volume(it: &VolumeFacts) -> Value {
    json!({
        "name": it.name, "claim": claim(&it.claim), "readOnly": it.read_only,
        "classParameters": entries(&it.class_parameters), "volumeAttributes": entries(&it.volume_attributes),
    })
}

fn claim(it: &Claim) -> Value {
    let mode = |mode: &AccessMode| match mode {
        AccessMode::ReadWriteOnce => "ReadWriteOnce",
        AccessMode::ReadOnlyMany => "ReadOnlyMany",
        AccessMode::ReadWriteMany => "ReadWriteMany",
        AccessMode::ReadWriteOncePod => "ReadWriteOncePod",
    };
    json!({
        "name": it.name, "labels": entries(&it.labels), "annotations": annotations(&it.annotations), "storageClass": it.storage_class,
        "requestedBytes": it.requested_bytes, "accessModes": it.access_modes.iter().map(mode).collect::<Vec<_>>(),
    })
}

fn new_volume(it: &NamingRequest) -> Value {
    json!({
        "volumeName": it.volume_name, "requiredBytes": it.required_bytes, "limitBytes": it.limit_bytes,
        "claim": claim(&it.claim), "namespace": namespace(&it.namespace), "parameters": entries(&it.parameters),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_variables_are_left_out_and_removals_stay() {
        let change = Change {
            requests: vec![("cpu".into(), Some("1".into()))],
            env: vec![("TOKEN".into(), Some("s3cret".into())), ("OLD".into(), None)],
            ..Change::default()
        };
        let whole = of_change(&change);
        assert_eq!(whole["change"]["env"], json!({"TOKEN": "s3cret", "OLD": null}));
        let expected = json!({"change": {"requests": {"cpu": "1"}, "env": {"TOKEN": "(a value)", "OLD": null}}});
        assert_eq!(without_values(whole), expected);
    }
}
