//! What the status of a PolicyBinding says: an entry of each replica, and the sum that one of them writes.

use std::collections::BTreeSet;

use pith_core::binding::Shadow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The status of a PolicyBinding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    /// The generation that the sum is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Degraded` and `Monitoring`.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What it is asked.
    pub hooks: Vec<String>,
    /// The SHA-256 of the module that is in force on all replicas, in hexadecimal; absent where they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How often it was asked, by all replicas that run now.
    pub calls: u64,
    /// How often it failed.
    pub failures: u64,
    /// What was in force everywhere last: a replica that starts and cannot use what is asked for now goes back to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_good: Option<LastGood>,
    /// Bindings that take its answers away, or whose answers it takes away.
    pub shadows: Vec<Shadowed>,
    /// What each replica says of itself.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub replicas: Vec<Replica>,
}

/// A condition, as Kubernetes has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    /// `Ready`, `Degraded` or `Monitoring`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// The sentence.
    pub message: String,
    /// The generation that it is of.
    pub observed_generation: i64,
    /// Since when it has this status.
    pub last_transition_time: String,
}

/// What was in force last on every replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LastGood {
    /// Its generation.
    pub generation: i64,
    /// The SHA-256 of its module.
    pub digest: String,
    /// Its spec.
    #[schemars(with = "serde_json::Map<String, Value>")]
    pub spec: Value,
}

/// Which binding takes the answers of which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shadowed {
    /// Whose answers count.
    pub by: String,
    /// Whose do not.
    pub binding: String,
    /// Of which hook, or `shape`.
    pub hook: String,
}

impl From<&Shadow<'_>> for Shadowed {
    fn from(it: &Shadow<'_>) -> Shadowed {
        Shadowed { by: it.by.into(), binding: it.binding.into(), hook: it.what.into() }
    }
}

/// What a replica says of a binding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Replica {
    /// The replica.
    pub name: String,
    /// The generation that it has looked at.
    pub observed_generation: i64,
    /// The generation that is in force; absent for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_force: Option<i64>,
    /// Why the one that it has looked at is not in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What is in force instead, where there is a problem: the sum may not have seen it while it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<LastGood>,
    /// The module in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<Module>,
    /// Whether it is left alone for a while because it failed too often.
    pub paused: bool,
    /// What it is asked, and how that went since it is in force.
    pub hooks: Vec<HookReport>,
    /// When this was written.
    pub reported: String,
}

/// A module in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Module {
    /// Its SHA-256, in hexadecimal.
    pub digest: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The size of the compiled code in bytes.
    pub compiled_bytes: u64,
    /// How long it took to load it: to fetch, check and compile it, and to try its settings.
    pub load_milliseconds: u64,
    /// Whether it had been compiled before.
    pub from_cache: bool,
}

/// How the calls of one hook went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct HookReport {
    /// The hook.
    pub hook: String,
    /// How often it was asked.
    pub calls: u64,
    /// How often it failed.
    pub failures: u64,
    /// What it failed of last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
    /// How long half of the calls took at most, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_microseconds: Option<u64>,
    /// How long 99 of a hundred calls took at most, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_microseconds: Option<u64>,
}

/// A failure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LastFailure {
    /// When.
    pub time: String,
    /// The sentence.
    pub message: String,
}

impl Status {
    /// The latest that was in force and could be again.
    pub(super) fn latest_good(&self) -> Option<&LastGood> {
        let instead = self.replicas.iter().filter_map(|it| it.instead.as_ref());
        self.last_good.iter().chain(instead).max_by_key(|it| it.generation)
    }
}

impl Replica {
    /// Without what changes with every call: what is worth writing at once.
    pub(super) fn essence(&self) -> Replica {
        let hooks = self.hooks.iter();
        let hooks = hooks.map(|it| HookReport { hook: it.hook.clone(), ..HookReport::default() }).collect();
        Replica { hooks, reported: String::new(), ..self.clone() }
    }
}

/// The sum of what replicas say about a binding as it is asked for now. What does not change stays as it is in `before`.
pub(super) fn sum(before: &Status, wanted: &Wanted<'_>, shadows: &[Shadow<'_>], now: &str) -> Status {
    let replicas = &before.replicas;
    let Wanted { generation, spec, monitors } = *wanted;
    let behind = replicas.iter().filter(|it| it.observed_generation != generation).count();
    let problem = replicas.iter().find_map(|it| Some((it, it.problem.as_deref()?)));
    let paused = replicas.iter().find(|it| it.paused);
    let is_ready = !replicas.is_empty() && replicas.iter().all(|it| it.in_force == Some(generation));
    let digests: BTreeSet<&str> = replicas.iter().filter_map(|it| Some(&*it.module.as_ref()?.digest)).collect();
    let digest = (digests.len() == 1).then(|| digests.first().map(ToString::to_string)).flatten();
    let (status, reason, message) = match problem {
        _ if is_ready => ("True", "InForce", format!("in force on {} replicas", replicas.len())),
        Some((replica, problem)) => ("False", "Unusable", format!("{}: {problem}", replica.name)),
        None if replicas.is_empty() => ("Unknown", "NoReplica", "no replica has looked at it".into()),
        None => ("Unknown", "Progressing", format!("{behind} of {} replicas have not looked at it", replicas.len())),
    };
    let mut conditions = vec![("Ready", status, reason, message)];
    conditions.push(match (problem, paused) {
        (Some((replica, problem)), _) => {
            let stays = match (&before.last_good, replica.in_force) {
                (_, Some(generation)) => format!("generation {generation} is in force"),
                _ => "it is not in force".into(),
            };
            ("Degraded", "True", "Unusable", format!("{}: {problem}: {stays}", replica.name))
        }
        (None, Some(replica)) => {
            let message = format!("{} leaves it alone for a while, because it failed too often", replica.name);
            ("Degraded", "True", "Paused", message)
        }
        (None, None) => ("Degraded", "False", "AsAskedFor", "nothing is wrong with it".into()),
    });
    conditions.push(match monitors {
        true => ("Monitoring", "True", "ModeMonitor", "its answers are recorded and have no effect".into()),
        false => ("Monitoring", "False", "ModeEnforce", "its answers count".into()),
    });
    let conditions = conditions.into_iter().map(|(kind, status, reason, message)| {
        let old = before.conditions.iter().find(|it| it.kind == kind && it.status == status);
        let since = old.map_or_else(|| now.to_string(), |it| it.last_transition_time.clone());
        let (kind, status, reason) = (kind.into(), status.into(), reason.into());
        Condition { kind, status, reason, message, observed_generation: generation, last_transition_time: since }
    });
    let last_good = match (&digest, is_ready) {
        (Some(digest), true) => Some(LastGood { generation, digest: digest.clone(), spec: spec.clone() }),
        _ => before.latest_good().cloned(),
    };
    let hooks = replicas.iter().flat_map(|it| &it.hooks);
    Status {
        observed_generation: Some(generation),
        conditions: conditions.collect(),
        hooks: hooks.clone().map(|it| it.hook.clone()).collect::<BTreeSet<_>>().into_iter().collect(),
        digest,
        calls: hooks.clone().map(|it| it.calls).sum(),
        failures: hooks.map(|it| it.failures).sum(),
        last_good,
        shadows: shadows.iter().map(Shadowed::from).collect(),
        replicas: Vec::new(),
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The generation of the object.
    pub(super) generation: i64,
    /// Its spec.
    pub(super) spec: &'a Value,
    /// Whether it is in monitor mode.
    pub(super) monitors: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn replica(name: &str, observed: i64, in_force: Option<i64>, problem: Option<&str>) -> Replica {
        let module = in_force.map(|_| Module { digest: "d".into(), ..Module::default() });
        let hooks = vec![HookReport { hook: "naming".into(), calls: 3, failures: 1, ..HookReport::default() }];
        let problem = problem.map(String::from);
        Replica {
            name: name.into(),
            observed_generation: observed,
            in_force,
            problem,
            module,
            hooks,
            ..Replica::default()
        }
    }

    /// Each condition as `Ready=True InForce`.
    #[track_caller]
    fn check(replicas: &[Replica], expected: [&str; 2]) -> Status {
        let before = Status { replicas: replicas.to_vec(), ..Status::default() };
        let spec = json!({"module": {}});
        let status = sum(&before, &Wanted { generation: 2, spec: &spec, monitors: false }, &[], "now");
        let words = status.conditions.iter().map(|it| format!("{}={} {}", it.kind, it.status, it.reason));
        assert_eq!(words.take(2).collect::<Vec<_>>(), expected);
        status
    }

    #[test]
    fn it_is_ready_when_every_replica_has_what_is_asked_for() {
        let status = check(
            &[replica("a", 2, Some(2), None), replica("b", 2, Some(2), None)],
            ["Ready=True InForce", "Degraded=False AsAskedFor"],
        );
        assert_eq!((status.calls, status.failures, status.hooks), (6, 2, vec!["naming".to_string()]));
        assert_eq!(status.digest.as_deref(), Some("d"));
        assert_eq!(status.last_good.map(|it| it.generation), Some(2));
        check(
            &[replica("a", 2, Some(2), None), replica("b", 1, Some(1), None)],
            ["Ready=Unknown Progressing", "Degraded=False AsAskedFor"],
        );
        check(&[], ["Ready=Unknown NoReplica", "Degraded=False AsAskedFor"]);
    }

    #[test]
    fn what_cannot_be_used_is_said_with_what_is_in_force() {
        let status = check(
            &[replica("a", 2, Some(1), Some("settings.x: no")), replica("b", 2, None, Some("settings.x: no"))],
            ["Ready=False Unusable", "Degraded=True Unusable"],
        );
        assert_eq!(status.conditions[1].message, "a: settings.x: no: generation 1 is in force");
        assert_eq!(status.last_good, None, "it was not in force everywhere");
        let paused = Replica { paused: true, ..replica("a", 2, Some(2), None) };
        check(&[paused], ["Ready=True InForce", "Degraded=True Paused"]);
    }

    #[test]
    fn what_was_in_force_for_a_moment_only_is_found_again_in_what_replicas_say() {
        let good = |generation: i64| LastGood { generation, digest: "d".into(), spec: json!({"at": generation}) };
        let replica = Replica { instead: Some(good(3)), ..replica("a", 4, Some(3), Some("no")) };
        let before = Status { last_good: Some(good(2)), replicas: vec![replica], ..Status::default() };
        assert_eq!(before.latest_good(), Some(&good(3)));
        let spec = json!({});
        let after = sum(&before, &Wanted { generation: 4, spec: &spec, monitors: false }, &[], "now");
        assert_eq!(after.last_good, Some(good(3)));
    }

    #[test]
    fn a_condition_keeps_its_time_for_as_long_as_its_status() {
        let spec = json!({});
        let wanted = Wanted { generation: 1, spec: &spec, monitors: true };
        let first = sum(&Status::default(), &wanted, &[], "first");
        let before = Status { replicas: vec![replica("a", 1, Some(1), None)], ..first };
        let second = sum(&before, &wanted, &[], "second");
        let times: Vec<&str> = second.conditions.iter().map(|it| &*it.last_transition_time).collect();
        assert_eq!(times, ["second", "first", "first"], "ready since then, and the rest as before");
    }
}
