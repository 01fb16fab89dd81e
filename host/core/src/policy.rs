//! The questions that are asked of policies, and their answers.
//!
//! These types say the same as `proto/policy/policy.wit` in Rust; `wasm/abi.rs` of the host is the only place that turns
//! one into the other.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::budget::Spent;
use crate::catalogue::Code;
use crate::object::{AccessMode, Claim, Entries, Namespace};
use crate::text::clean;
use crate::volume::Source;

/// How much is said of what is wrong with an answer, in bytes: it may repeat the answer.
const WRONG: usize = 400;

/// What a policy can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Is this pod exempt from injection?
    Exemption,
    /// What does the sidecar of this volume look like?
    Sidecar,
    /// What is the directory of this new volume called?
    Naming,
    /// Is the size of this new volume enforced?
    Quota,
}

impl Hook {
    /// Every hook, in the order in which they are listed to people.
    pub const ALL: [Hook; 4] = [Hook::Exemption, Hook::Sidecar, Hook::Naming, Hook::Quota];

    /// The name of the interface in WIT, in configuration and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Hook::Exemption => "exemption",
            Hook::Sidecar => "sidecar",
            Hook::Naming => "naming",
            Hook::Quota => "quota",
        }
    }
}

/// An owner reference of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// As in `apps/v1`.
    pub api_version: String,
    /// As in `ReplicaSet`.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// True for the one owner that manages the pod.
    pub controller: bool,
}

/// What a policy is told about a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PodFacts {
    /// Absent under `generateName`.
    pub name: Option<String>,
    /// `metadata.generateName`.
    pub generate_name: Option<String>,
    /// `metadata.labels`.
    pub labels: Entries,
    /// `metadata.annotations`.
    pub annotations: Entries,
    /// `metadata.ownerReferences`.
    pub owners: Vec<Owner>,
    /// `spec.serviceAccountName`, `default` where there is none.
    pub service_account: String,
    /// `spec.priorityClassName`.
    pub priority_class: Option<String>,
    /// `spec.priority`.
    pub priority: Option<i32>,
}

/// The pod under admission and where it is: what every question about a pod has in common.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The typed facts.
    pub pod: PodFacts,
    /// The namespace of the request.
    pub namespace: Arc<Namespace>,
    /// The raw Pod, for policies that ask for it.
    pub object: &'a serde_json::Value,
}

/// What a policy is told about a JuiceFS volume of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFacts {
    /// The name in the pod's `spec.volumes`.
    pub name: String,
    /// The claim that the volume names.
    pub claim: Arc<Claim>,
    /// True where nothing may be written.
    pub read_only: bool,
    /// `parameters` of the StorageClass.
    pub class_parameters: Arc<Entries>,
    /// `volumeAttributes` of the PersistentVolume; empty until bound.
    pub volume_attributes: Arc<Entries>,
}

/// What an exemption policy answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exemption {
    /// Nothing against the injection.
    Inject,
    /// Leave the pod as it is, for this reason.
    Skip(String),
    /// Refuse the pod with this sentence.
    Deny(String),
}

/// Where the client keeps its cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cache {
    /// In the container's writable layer.
    Container,
    /// In an emptyDir.
    EmptyDir {
        /// `medium: Memory`.
        in_memory: bool,
        /// `sizeLimit`.
        size_limit: Option<String>,
    },
}

/// The sidecar as a policy sees it: the result so far. Quantities are text in canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SidecarFacts {
    /// By resource name.
    pub requests: Entries,
    /// By resource name.
    pub limits: Entries,
    /// By option name; absent value for a switch.
    pub mount_options: Vec<(String, Option<String>)>,
    /// Environment that is not secret.
    pub env: Entries,
    /// The cache.
    pub cache: Cache,
}

/// A change of one mount option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionChange {
    /// Sets it; absent value for a switch.
    Set(Option<String>),
    /// Removes it.
    Remove,
}

/// What a sidecar policy answers: only what it changes. Not yet checked: `settings` does that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// By resource name; absent removes.
    pub requests: Vec<(String, Option<String>)>,
    /// By resource name; absent removes.
    pub limits: Vec<(String, Option<String>)>,
    /// By option name.
    pub mount_options: Vec<(String, OptionChange)>,
    /// By variable name; absent removes.
    pub env: Vec<(String, Option<String>)>,
    /// Absent leaves it.
    pub cache: Option<Cache>,
}

/// What a naming policy is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamingRequest {
    /// The name in CreateVolume.
    pub volume_name: String,
    /// `capacity_range.required_bytes`; absent for none.
    pub required_bytes: Option<u64>,
    /// `capacity_range.limit_bytes`; absent for none.
    pub limit_bytes: Option<u64>,
    /// The claim that the volume is for.
    pub claim: Arc<Claim>,
    /// Its namespace.
    pub namespace: Arc<Namespace>,
    /// StorageClass parameters without Secret references.
    pub parameters: Entries,
    /// What it starts with, for policies that ask for it; absent for nothing.
    pub origin: Option<Origin>,
}

/// What a new volume starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// A volume or a snapshot.
    pub source: Source,
    /// The directory of that volume, or of the one that the snapshot is of: one item for each level.
    pub directory: Vec<String>,
}

/// What a naming policy answers. Not yet checked: the path rules do that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// Ask the next binding.
    Pass,
    /// This directory.
    Directory {
        /// One item for each level.
        components: Vec<String>,
        /// True if others are meant to use it too.
        shared: bool,
    },
    /// Refuse the volume with this sentence.
    Deny(String),
}

/// Whether a volume's size is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Quota {
    /// By a quota on its directory.
    On,
    /// By nothing: the size is what the claim says, and no more.
    Off,
}

/// What a quota policy is asked. It answers a [`Quota`], or nothing to ask the next binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaRequest {
    /// The volume.
    pub volume: NamingRequest,
    /// Where it lies, one item for each level.
    pub directory: Vec<String>,
    /// True if others are meant to lie there too.
    pub shared: bool,
}

/// Why a policy gave no usable answer. Never a denial: `onFailure` of the binding decides what follows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The guest trapped: a panic, an unreachable, a bad memory access.
    #[error("it trapped: {0}")]
    Trap(String),
    /// The guest ran longer than its deadline. The one failure that the same input need not repeat.
    #[error("it ran longer than its deadline of {} ms", .0.as_millis())]
    Deadline(Duration),
    /// The guest recursed too deeply.
    #[error("it ran out of stack")]
    Stack,
    /// The guest asked for more memory than its limit, in bytes, or for larger tables.
    #[error("it asked for more than its limit of {0}")]
    Memory(String),
    /// The guest used up a budget of host calls or of bytes handed to the host.
    #[error("it used up its budget of {0}")]
    Budget(&'static str),
    /// The answer breaks the rules of the contract.
    #[error("its answer is not usable: {}", clean(.0, WRONG))]
    Answer(String),
    /// The policy itself said that it failed.
    #[error("it reported: {0}")]
    Reported(String),
    /// It was not asked, because it failed too often a moment ago; it is asked again after this time.
    #[error("it failed too often, and is asked again in {} s", .0.as_secs() + 1)]
    Paused(Duration),
    /// It was not asked, because it used up what its binding gives it in a second: by which bound, and when it is asked again.
    #[error("it has used up its {}, and is asked again in {} ms", .0.limit, .0.again.as_millis() + 1)]
    Rate(Spent),
    /// A condition of its binding could not be evaluated, so nobody can tell whether it is to be asked.
    #[error("its condition {0}")]
    Condition(String),
    /// The host could not run it: no free slot, say.
    #[error("the host could not run it: {0}")]
    Host(String),
}

impl Failure {
    /// The stable word.
    pub fn code(&self) -> Code {
        match self {
            Failure::Trap(_) => Code::Trap,
            Failure::Deadline(_) => Code::Deadline,
            Failure::Stack => Code::Stack,
            Failure::Memory(_) => Code::Memory,
            Failure::Budget(_) => Code::Budget,
            Failure::Answer(_) => Code::Answer,
            Failure::Reported(_) => Code::Reported,
            Failure::Paused(_) => Code::Paused,
            Failure::Rate(_) => Code::Rate,
            Failure::Condition(_) => Code::Condition,
            Failure::Host(_) => Code::Host,
        }
    }
}

impl AccessMode {
    /// The name in the Kubernetes API.
    pub fn as_str(self) -> &'static str {
        match self {
            AccessMode::ReadWriteOnce => "ReadWriteOnce",
            AccessMode::ReadOnlyMany => "ReadOnlyMany",
            AccessMode::ReadWriteMany => "ReadWriteMany",
            AccessMode::ReadWriteOncePod => "ReadWriteOncePod",
        }
    }

    /// The mode of that name; none for a name that Kubernetes does not have.
    pub fn from_name(name: &str) -> Option<AccessMode> {
        use AccessMode::{ReadOnlyMany, ReadWriteMany, ReadWriteOnce, ReadWriteOncePod};
        [ReadWriteOnce, ReadOnlyMany, ReadWriteMany, ReadWriteOncePod].into_iter().find(|mode| mode.as_str() == name)
    }
}
