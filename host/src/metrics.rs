//! The metrics, registered once and passed down. Labels are closed sets or names from the configuration: never a pod's.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use pith_core::catalogue::Code;
use pith_core::object::{Kind, Objects};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// What is counted and measured.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Admission requests by outcome and reason.
    pub admissions: Family<Admission, Counter>,
    admission_seconds: Family<AdmissionTime, Histogram>,
    /// Calls of policies by outcome.
    pub policy_calls: Family<PolicyCall, Counter>,
    policy_seconds: Family<PolicyTime, Histogram>,
    policies_monitored: Family<PolicyCall, Counter>,
    policies_paused: Family<PolicyName, Gauge>,
    policies_in_force: Family<PolicyModule, Gauge>,
    policies_degraded: Family<PolicyName, Gauge>,
    /// How often policies were put in the place of others while requests were answered.
    pub policy_changes: Counter,
    /// Decisions that the decision log has no line of, because it was behind.
    pub decisions_lost: Counter,
    /// Requests whose handling panicked.
    pub panics: Counter,
    /// When the serving certificate ends, as seconds since 1970.
    pub certificate_expiry: Gauge<f64, AtomicU64>,
    /// How often this process wrote the webhook's configuration.
    pub registrations: Counter,
    objects: Family<ObjectKind, Gauge>,
    watch_restarts: Family<ObjectKind, Counter>,
    live_reads: Family<LiveRead, Counter>,
    claim_secrets: Family<ClaimSecretState, Gauge>,
    /// Cleaner pods that were started.
    pub cleaners: Counter,
    /// Deleted volumes that this process removed for good.
    pub purges: Counter,
    trash: Family<TrashLabels, Gauge>,
    /// Workers of file systems.
    pub workers: WorkerMetrics,
    csi_seconds: Family<CsiCall, Histogram>,
}

/// What is counted of the workers of file systems.
#[derive(Debug, Clone, Default)]
pub struct WorkerMetrics {
    running: Gauge,
    /// Those that ended without being told to, never came up, or hung.
    pub ended: Counter,
    clones: Gauge,
    cloned: Family<CloneOutcome, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CloneOutcome {
    outcome: &'static str,
}

/// Counts a worker or a clone for as long as it is not dropped.
#[derive(Debug)]
pub(crate) struct RunningWorker(Gauge);

impl WorkerMetrics {
    pub(crate) fn running(&self) -> RunningWorker {
        self.running.inc();
        RunningWorker(self.running.clone())
    }

    /// Counts a clone that is being made.
    pub(crate) fn cloning(&self) -> RunningWorker {
        self.clones.inc();
        RunningWorker(self.clones.clone())
    }

    /// Counts a clone that ended.
    pub(crate) fn cloned(&self, is_made: bool) {
        self.cloned.get_or_create(&CloneOutcome { outcome: if is_made { "made" } else { "failed" } }).inc();
    }
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Labels of an admission request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Admission {
    /// `inject`, `skip`, `deny`, `allow`, `fail` or `invalid`.
    pub outcome: &'static str,
    /// The code from the catalogue of reasons; empty where there is none.
    pub reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AdmissionTime {
    outcome: &'static str,
}

/// Labels of what is said of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PolicyName {
    /// The binding.
    pub policy: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyModule {
    policy: String,
    digest: String,
}

/// Labels of a call of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PolicyCall {
    /// The binding.
    pub policy: String,
    /// The hook.
    pub hook: &'static str,
    /// What it answered, or the kind of its failure.
    pub outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyTime {
    policy: String,
    hook: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectKind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LiveRead {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClaimSecretState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TrashLabels {
    state: &'static str,
}

/// As what a place in the trash counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrashState {
    /// Its time is not over.
    Kept,
    /// It is being removed.
    Purging,
    /// Nothing that can be relied upon says what it is.
    LeftAlone,
}

impl TrashState {
    /// All of them.
    pub const ALL: [TrashState; 3] = [TrashState::Kept, TrashState::Purging, TrashState::LeftAlone];

    fn as_str(self) -> &'static str {
        match self {
            TrashState::Kept => "kept",
            TrashState::Purging => "purging",
            TrashState::LeftAlone => "left-alone",
        }
    }
}

/// The labels that csi-lib-utils gives to the same metric.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CsiCall {
    driver_name: String,
    method_name: &'static str,
    grpc_status_code: &'static str,
}

/// From 10 µs, where one call of a policy lies, to 10 s, where an API server gives up.
const SECONDS: [f64; 18] = [
    0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 10.0,
];

/// From 1 ms, a volume without a quota, to a minute, where external-provisioner's patience ends.
const CSI_SECONDS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 25.0, 60.0];

impl Metrics {
    /// Registers everything.
    pub fn new() -> Metrics {
        let seconds = || Histogram::new(SECONDS);
        let mut metrics = Metrics {
            registry: Registry::default(),
            admissions: Family::default(),
            admission_seconds: Family::new_with_constructor(seconds),
            policy_calls: Family::default(),
            policy_seconds: Family::new_with_constructor(seconds),
            policies_monitored: Family::default(),
            policies_paused: Family::default(),
            policies_in_force: Family::default(),
            policies_degraded: Family::default(),
            policy_changes: Counter::default(),
            decisions_lost: Counter::default(),
            panics: Counter::default(),
            certificate_expiry: Gauge::default(),
            registrations: Counter::default(),
            objects: Family::default(),
            watch_restarts: Family::default(),
            live_reads: Family::default(),
            claim_secrets: Family::default(),
            cleaners: Counter::default(),
            purges: Counter::default(),
            trash: Family::default(),
            workers: WorkerMetrics::default(),
            csi_seconds: Family::new_with_constructor(|| Histogram::new(CSI_SECONDS)),
        };
        let help = "Time of a CSI call, from the whole request to the answer";
        let csi = metrics.csi_seconds.clone();
        metrics.registry.register_with_unit("csi_plugin_operations", help, Unit::Seconds, csi);
        let registry = metrics.registry.sub_registry_with_prefix("pith");
        registry.register("admissions", "Admission requests by outcome and reason", metrics.admissions.clone());
        let help = "Time from the whole body to the answer";
        registry.register_with_unit("admission_duration", help, Unit::Seconds, metrics.admission_seconds.clone());
        registry.register("policy_calls", "Calls of policies by outcome", metrics.policy_calls.clone());
        let help = "Time of one call of a policy, its fresh instance included";
        registry.register_with_unit("policy_call_duration", help, Unit::Seconds, metrics.policy_seconds.clone());
        let help =
            "Decisions beside which a policy in monitor mode was asked, by whether it would have decided the same";
        registry.register("policy_monitored", help, metrics.policies_monitored.clone());
        let help = "1 for a policy that failed too often and is left alone for a while";
        registry.register("policy_paused", help, metrics.policies_paused.clone());
        let help = "1 for each policy in force, with the digest of its module";
        registry.register("policy_info", help, metrics.policies_in_force.clone());
        let help = "1 for a policy that cannot be used as it is asked for now; without a name, for the configuration as a whole";
        registry.register("policy_degraded", help, metrics.policies_degraded.clone());
        let help = "Changes of the policies in force while requests were answered";
        registry.register("policy_changes", help, metrics.policy_changes.clone());
        let help = "Decisions that are missing in the decision log because it was behind";
        registry.register("decisions_lost", help, metrics.decisions_lost.clone());
        registry.register("panics", "Requests whose handling panicked", metrics.panics.clone());
        let help = "When the serving certificate ends, as seconds since 1970";
        registry.register("certificate_expiry_timestamp_seconds", help, metrics.certificate_expiry.clone());
        let help = "How often the webhook's configuration was written, because it was not as it is to be";
        registry.register("registrations", help, metrics.registrations.clone());
        registry.register("objects", "Kubernetes objects in memory", metrics.objects.clone());
        let help = "How often the watch of a kind failed and began again";
        registry.register("watch_restarts", help, metrics.watch_restarts.clone());
        let help = "Objects that the API server was asked for because no watch had brought them yet, by outcome";
        registry.register("live_reads", help, metrics.live_reads.clone());
        let help = "Claims that should have a Secret beside them, by whether it is written";
        registry.register("claim_secrets", help, metrics.claim_secrets.clone());
        let help = "Pods that were started to unmount what another pod left behind";
        registry.register("cleaners", help, metrics.cleaners.clone());
        let help = "Deleted volumes that were removed from the trash for good";
        registry.register("purges", help, metrics.purges.clone());
        let help = "Deleted volumes in the trash, by what is to become of them";
        registry.register("trash_volumes", help, metrics.trash.clone());
        let help = "JuiceFS clients that run for file systems";
        registry.register("workers", help, metrics.workers.running.clone());
        let help =
            "JuiceFS clients for file systems that ended without being told to, never came up, or did not answer";
        registry.register("worker_failures", help, metrics.workers.ended.clone());
        let help = "Clones for snapshots and volumes that are being made, or wait for their turn";
        registry.register("clones_running", help, metrics.workers.clones.clone());
        registry.register("clones", "Clones for snapshots and volumes, by outcome", metrics.workers.cloned.clone());
        metrics
    }

    /// Counts a request that ended.
    pub fn admission(&self, outcome: &'static str, reason: Option<Code>, started: Instant) {
        let reason = reason.map_or("", Code::as_str);
        self.admissions.get_or_create(&Admission { outcome, reason }).inc();
        self.admission_seconds.get_or_create(&AdmissionTime { outcome }).observe(started.elapsed().as_secs_f64());
    }

    /// Counts a call of a policy that ended.
    pub fn policy_call(&self, policy: &str, hook: &'static str, outcome: &'static str, took: Duration) {
        self.policy_calls.get_or_create(&PolicyCall { policy: policy.into(), hook, outcome }).inc();
        self.policy_seconds.get_or_create(&PolicyTime { policy: policy.into(), hook }).observe(took.as_secs_f64());
    }

    /// Says whether a policy is left alone, because it failed too often.
    pub fn policy_paused(&self, policy: &str, is_paused: bool) {
        self.policies_paused.get_or_create(&PolicyName { policy: policy.into() }).set(is_paused.into());
    }

    /// Another one has its name from now on, or none.
    pub fn policy_replaced(&self, policy: &str) {
        self.policies_paused.remove(&PolicyName { policy: policy.into() });
    }

    /// Says which policies are in force, by name and digest, and which are not as they are asked for.
    pub fn policies<'a>(
        &self,
        in_force: impl Iterator<Item = (&'a str, &'a str)>,
        degraded: impl Iterator<Item = &'a str>,
    ) {
        self.policies_in_force.clear();
        for (policy, digest) in in_force {
            let labels = PolicyModule { policy: policy.into(), digest: digest.into() };
            self.policies_in_force.get_or_create(&labels).set(1);
        }
        self.policies_degraded.clear();
        for policy in degraded {
            self.policies_degraded.get_or_create(&PolicyName { policy: policy.into() }).set(1);
        }
    }

    /// Counts a decision beside which a policy was asked in monitor mode.
    pub fn policy_monitored(&self, policy: &str, hook: &'static str, outcome: &'static str) {
        self.policies_monitored.get_or_create(&PolicyCall { policy: policy.into(), hook, outcome }).inc();
    }

    /// Counts a CSI call that ended. It has the name and the labels of csi-lib-utils, so that one dashboard reads all drivers.
    pub fn csi_call(&self, driver: &str, method: &'static str, code: &'static str, took: Duration) {
        let labels = CsiCall { driver_name: driver.into(), method_name: method, grpc_status_code: code };
        self.csi_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// How often the watch of a kind failed; 0 from the moment when this is called.
    pub fn watch_restarts(&self, kind: &'static str) -> Counter {
        self.watch_restarts.get_or_create(&ObjectKind { kind }).clone()
    }

    /// Counts a question to the API server about one object.
    pub fn live_read(&self, kind: &'static str, outcome: &'static str) {
        self.live_reads.get_or_create(&LiveRead { kind, outcome }).inc();
    }

    /// Says how many claims have their Secret, and how many wait for it.
    pub fn claim_secrets(&self, written: usize, missing: usize) {
        for (state, count) in [("written", written), ("missing", missing)] {
            self.claim_secrets.get_or_create(&ClaimSecretState { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Changes how many places in the trash count as this.
    pub fn trash(&self, state: TrashState, change: i64) {
        self.trash.get_or_create(&TrashLabels { state: state.as_str() }).inc_by(change);
    }

    /// Says how many objects of each kind are in memory.
    pub fn objects(&self, objects: &Objects) {
        for kind in Kind::ALL {
            let count = i64::try_from(objects.count(kind)).unwrap_or(i64::MAX);
            self.objects.get_or_create(&ObjectKind { kind: kind.plural() }).set(count);
        }
    }

    /// The text that Prometheus scrapes (OpenMetrics).
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}
