//! What this replica writes into the status of PolicyBindings, and the sum that it writes while it holds the Lease.
//!
//! Every writer has fields of its own, by server-side apply: nobody overwrites what another one says, and nobody reads before he
//! writes. What is in force and what is wrong is written within a second; counts are, when they changed, once in a while. Who writes the
//! sum also keeps the module that it names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::ByteString;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use pith_core::binding::{Mode, shadows};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::api_resource;
use super::lease::Candidate;
use super::module;
use super::status::{Replica, Status, Wanted, sum};
use super::watch::{Object, Resources};
use crate::cluster::in_time;
use crate::config::PolicyBindings;
use crate::policy::{InForce, Kept};

/// How often it is looked whether there is something to write.
const PERIOD: Duration = Duration::from_secs(1);
/// How often the Lease is asked for: several times in its term.
const BID: Duration = Duration::from_secs(4);
/// A replica writes at least once in so many of its intervals, changed or not.
const HEARTBEAT: u32 = 2;
/// One that has not written for so many is gone.
const GONE: u32 = 5;
/// When a module is tried again that could not be kept.
const AGAIN: Duration = Duration::from_secs(60);
/// As whom the sum is written.
const SUMMER: &str = "pith";
/// The API server takes no longer name of a writer.
const LONGEST_WRITER: usize = 128;

/// Writes the status of PolicyBindings.
pub struct Reporter {
    resources: Arc<Resources>,
    in_force: Arc<InForce>,
    replica: String,
    every: Duration,
    api: Api<DynamicObject>,
    candidate: Candidate,
    /// When the Lease was asked for last, and whether it is held.
    bid: Option<(Instant, bool)>,
    /// What was written last, by uid.
    written: BTreeMap<String, (Replica, Instant)>,
    /// The same of the sum.
    summed: BTreeMap<String, Instant>,
    /// What replicas wrote last, and since when that is known here: clocks of others are not relied on.
    heard: BTreeMap<(String, String), (String, Instant)>,
    /// Where modules are that are in force here.
    kept: Kept,
    /// The digests of the modules that were to be kept in the cluster, by the uid of what they are of, when that was tried, and whether it
    /// was done.
    modules: BTreeMap<String, (String, Instant, bool)>,
    /// What went wrong last, by what it was that did, so that it is said once.
    problems: BTreeMap<&'static str, String>,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("replica", &self.replica).finish_non_exhaustive()
    }
}

impl Reporter {
    /// For this replica, which keeps modules that could be used.
    pub fn new(config: &PolicyBindings, resources: Arc<Resources>, in_force: Arc<InForce>, kept: Kept) -> Reporter {
        let client = resources.client();
        Reporter {
            api: Api::all_with(client.clone(), &api_resource()),
            candidate: Candidate::new(client, resources.namespace(), &config.replica),
            replica: config.replica.clone(),
            every: config.report_every,
            resources,
            in_force,
            bid: None,
            written: BTreeMap::new(),
            summed: BTreeMap::new(),
            heard: BTreeMap::new(),
            kept,
            modules: BTreeMap::new(),
            problems: BTreeMap::new(),
        }
    }

    /// Writes for as long as the process runs.
    pub async fn run(mut self) {
        loop {
            sleep(PERIOD).await;
            if self.resources.waiting().is_some() {
                continue;
            }
            let objects = self.resources.all();
            self.written.retain(|uid, _| objects.iter().any(|it| it.uid == *uid));
            self.summed.retain(|uid, _| objects.iter().any(|it| it.uid == *uid));
            self.modules.retain(|uid, _| objects.iter().any(|it| it.uid == *uid));
            self.heard.retain(|(uid, _), _| objects.iter().any(|it| it.uid == *uid));
            for object in &objects {
                self.report(object).await;
            }
            if self.bid.is_none_or(|(at, _)| at.elapsed() >= BID) {
                self.bid = Some((Instant::now(), self.candidate.holds().await));
            }
            if self.bid.is_some_and(|(_, holds)| holds) {
                for object in &objects {
                    self.sum(object).await;
                }
            }
        }
    }

    /// Writes the entry of this replica, where there is something to say.
    async fn report(&mut self, object: &Object) {
        let Some(entry) = self.in_force.snapshot().replica(object, &self.replica) else { return };
        if let Some((last, at)) = self.written.get(&object.uid) {
            let is_due = match () {
                () if last.essence() != entry.essence() => true,
                () if last.hooks != entry.hooks => at.elapsed() >= self.every,
                () => at.elapsed() >= self.every * HEARTBEAT,
            };
            if !is_due {
                return;
            }
        }
        let entry = Replica { reported: now(), ..entry };
        if self.apply(object, &writer(&self.replica), &json!({"replicas": [entry]})).await {
            self.written.insert(object.uid.clone(), (entry, Instant::now()));
        }
    }

    /// Writes the sum, where it is not what it was.
    async fn sum(&mut self, object: &Object) {
        let mut before = object.status.clone();
        let mut gone = Vec::new();
        before.replicas.retain(|it| {
            let key = (object.uid.clone(), it.name.clone());
            let (reported, since) = self.heard.entry(key).or_insert_with(|| (it.reported.clone(), Instant::now()));
            if *reported != it.reported {
                (*reported, *since) = (it.reported.clone(), Instant::now());
            }
            let is_gone = since.elapsed() >= self.every * GONE;
            if is_gone {
                gone.push(it.name.clone());
            }
            !is_gone
        });
        for replica in gone {
            tracing::info!(policy = %object.name, %replica, "a replica is gone, and with it what it said of a PolicyBinding");
            // To apply nothing in its name is to remove what it applied.
            self.apply(object, &writer(&replica), &json!({})).await;
        }
        let snapshot = self.in_force.snapshot();
        let mut shadows = shadows(&snapshot.bindings);
        shadows.retain(|it| it.by == object.name || it.binding == object.name);
        let monitors = object.wanted().is_ok_and(|it| it.binding.mode == Mode::Monitor);
        let wanted = Wanted { generation: object.generation, spec: &object.spec, monitors };
        let after = sum(&before, &wanted, &shadows, &now());
        if let Some(it) = &after.last_good {
            self.keep(object, &it.digest).await;
        }
        let before = Status { replicas: Vec::new(), ..before };
        let counts = |it: &Status| Status { calls: 0, failures: 0, ..it.clone() };
        let is_due = match self.summed.get(&object.uid) {
            _ if counts(&after) != counts(&before) => true,
            Some(at) => after != before && at.elapsed() >= self.every,
            None => after != before,
        };
        if is_due {
            let Ok(Value::Object(mut status)) = serde_json::to_value(&after) else { return };
            status.remove("replicas");
            if self.apply(object, SUMMER, &Value::Object(status)).await {
                self.summed.insert(object.uid.clone(), Instant::now());
            }
        }
    }

    /// Applies fields of the status in somebody's name. An object that is gone is nobody's business.
    async fn apply(&mut self, object: &Object, writer: &str, status: &Value) -> bool {
        let Object { name, uid, .. } = object;
        let patch = json!({
            "apiVersion": "pith.dev/v1alpha1", "kind": "PolicyBinding", "metadata": {"name": name, "uid": uid}, "status": status,
        });
        let params = PatchParams::apply(writer).force();
        let written = in_time(self.api.patch_status(name, &params, &Patch::Apply(patch))).await;
        self.is_done(name, "the status of a PolicyBinding cannot be written", written.map(|_| ()))
    }

    /// Keeps the module that was in force last in the cluster, for a replica that starts when it is nowhere else any more.
    async fn keep(&mut self, object: &Object, digest: &str) {
        if let Some((last, at, is_done)) = self.modules.get(&object.uid)
            && last == digest
            && (*is_done || at.elapsed() < AGAIN)
        {
            return;
        }
        let is_done = match self.kept.module(digest, module::LARGEST) {
            Some(bytes) => {
                let spec = module::Spec { digest: digest.into(), module: ByteString(bytes) };
                let written =
                    module::write(&module::api(self.resources.client()), &object.name, &object.uid, &spec).await;
                self.is_done(&object.name, "the module of a PolicyBinding cannot be kept", written)
            }
            // It is not in force here, or too large.
            None => false,
        };
        self.modules.insert(object.uid.clone(), (digest.into(), Instant::now(), is_done));
    }

    /// Whether something was done. Where not, it is said, once for as long as it is the same.
    fn is_done(&mut self, policy: &str, what: &'static str, done: Result<(), String>) -> bool {
        match done {
            Ok(()) => {
                self.problems.remove(what);
                true
            }
            Err(why) => {
                if self.problems.insert(what, why.clone()).as_ref() != Some(&why) {
                    tracing::warn!(policy, %why, "{what}");
                }
                false
            }
        }
    }
}

/// As whom the entry of a replica is written.
fn writer(replica: &str) -> String {
    let name = format!("pith/{replica}");
    name[..name.floor_char_boundary(LONGEST_WRITER)].to_string()
}

fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
