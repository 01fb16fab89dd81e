//! Policies as WebAssembly: load one, ask it one question, forget everything it did.
//!
//! This is the one place that creates a `Store`. Each question gets a fresh instance, and every store has a deadline, a
//! memory cap and budgets for host calls and log lines; there is no way to get one without. Whatever a guest does costs
//! that one call: the caller gets an answer or a [`Failure`], never a panic and never a wait past the deadline.
//!
//! ```text
//!   bytes ── load ── cache ──► Module ── abi ── call ──► answer or Failure
//!             │                            │      │
//!             what is refused at once      │      host_calls, wasi: what a guest can reach
//!                                          WIT records ◄─► core types
//! ```
//!
//! Not here: which policies there are, whom they are asked about and what follows from a failure. Calls are synchronous
//! and meant to run where the request is decided: they never wait for anything but the guest itself.

mod abi;
pub mod apart;
mod bindings;
mod cache;
mod call;
mod caps;
mod engine;
mod exports;
mod grants;
mod host_calls;
mod load;
mod schema;
mod wasi;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pith_core::lookup::{self, Budget, Overrun};
use pith_core::policy::{
    Change, Exemption, Failure, Hook, Naming, NamingRequest, Quota, QuotaRequest, SidecarFacts, Subject, VolumeFacts,
};
use wasmtime::component::InstancePre;

use caps::Plain;
use wasi::Closed;

pub use engine::{Compiler, Engine, EngineError, EngineOptions, LARGEST_MEMORY_BYTES, LARGEST_MODULE_BYTES};
pub use grants::Grants;
pub use load::{LoadError, Offer, offer};
pub use schema::settings_schema;

/// What grants show a policy beside its question. Asked when a call begins, and only for what the module imports; where it says no, that
/// is the failure of a policy that asks.
pub trait World {
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> Result<u64, &'static str>;

    /// Who answers look-ups in this call.
    fn lookups(&self) -> Result<Box<dyn Lookups>, &'static str>;
}

/// Nothing of the world: for calls that are about no object.
impl World for () {
    fn now(&self) -> Result<u64, &'static str> {
        Err("it asks what time it is where there is no decision, as when its settings are checked")
    }

    fn lookups(&self) -> Result<Box<dyn Lookups>, &'static str> {
        Err("it looks objects up where there is no decision, as when its settings are checked")
    }
}

/// Who answers look-ups. It belongs to the call, as all that a store has.
pub trait Lookups: Send {
    /// The JSON texts of what is found, taken off the budget with the question.
    fn answer(&mut self, question: lookup::Question, budget: &mut Budget) -> Result<Vec<String>, Unanswered>;
}

/// Why a look-up has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// Too much was looked up.
    #[error(transparent)]
    Overrun(#[from] Overrun),
    /// There is nobody to say, for this reason.
    #[error("{0}")]
    Unknown(String),
}

/// What every hook is asked with beside its own question.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// What the call may use.
    pub limits: Limits,
    /// The settings as JSON text.
    pub settings: &'a str,
    /// What grants show.
    pub world: &'a dyn World,
    /// Where its log goes.
    pub log: &'a dyn Log,
}

/// What one call may use. There is no value for "no limit".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the start of instantiation to the answer. A call is cut at most one tick (5 ms) later.
    pub deadline: Duration,
    /// All linear memories of the instance together. The engine's own maximum holds where it is lower.
    pub memory_bytes: usize,
}

impl Limits {
    /// These, or a word about which of them is outside of what a binding may have: 1 ms to 10 s, 64 KiB to
    /// [`LARGEST_MEMORY_BYTES`], to which the engine would cut a larger one without a word.
    pub fn within(deadline: Duration, memory_bytes: u64) -> Result<Limits, String> {
        if !(Duration::from_millis(1)..=Duration::from_secs(10)).contains(&deadline) {
            return Err("limits.deadline outside 1ms to 10s".into());
        }
        let memory = usize::try_from(memory_bytes).ok().filter(|it| (64 << 10..=LARGEST_MEMORY_BYTES).contains(it));
        match memory {
            Some(memory_bytes) => Ok(Limits { deadline, memory_bytes }),
            None => Err(format!("limits.memory outside 64Ki to {}Mi", LARGEST_MEMORY_BYTES >> 20)),
        }
    }
}

impl Default for Limits {
    /// 50 ms and 16 MiB: some thousand times what a policy in Rust needs, and enough for one in a scripting language.
    fn default() -> Limits {
        Limits { deadline: Duration::from_millis(50), memory_bytes: 16 << 20 }
    }
}

/// How a module was given to [`Engine::load`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A WebAssembly component.
    Component,
    /// A core module with the component's description in a custom section; the host made the component.
    CoreModule,
}

/// How much a line of a policy's log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For the author of the policy.
    Debug,
    /// What happened.
    Info,
    /// The policy coped with something.
    Warn,
    /// A person must look.
    Error,
}

/// Where the lines go that a policy logs. They arrive after the call, in order, escaped and within the budget; the caller
/// knows which policy they are from.
pub trait Log {
    /// Takes one line.
    fn line(&self, level: Level, line: &str);
}

impl<F: Fn(Level, &str)> Log for F {
    fn line(&self, level: Level, line: &str) {
        self(level, line);
    }
}

/// Why settings cannot be used, in the policy's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsProblem {
    /// A path into the settings; empty for the whole.
    pub field: String,
    /// What is wrong there.
    pub reason: String,
}

/// A policy that is ready to be asked.
#[derive(Clone)]
pub struct Module(Arc<Loaded>);

/// Compiled code with its imports bound.
enum Code {
    Plain(InstancePre<Plain>),
    Wasi(InstancePre<Closed>),
}

struct Loaded {
    engine: Engine,
    digest: String,
    size: usize,
    form: Form,
    hooks: BTreeSet<Hook>,
    contract: String,
    imports: Vec<String>,
    from_cache: bool,
    compiled_size: usize,
    needs: Grants,
    exports: exports::Exports,
    code: Code,
}

impl Module {
    /// The SHA-256 of the bytes as they were given, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.0.digest
    }

    /// How many bytes were given.
    pub fn size(&self) -> usize {
        self.0.size
    }

    /// How many bytes of code and data were made of it.
    pub fn compiled_size(&self) -> usize {
        self.0.compiled_size
    }

    /// What was given.
    pub fn form(&self) -> Form {
        self.0.form
    }

    /// What the policy can be asked.
    pub fn hooks(&self) -> &BTreeSet<Hook> {
        &self.0.hooks
    }

    /// True if the policy checks its settings.
    pub fn has_settings(&self) -> bool {
        self.0.exports.settings.is_some()
    }

    /// The contract that the policy was built against, as in `pith:policy@0.1.0`.
    pub fn contract(&self) -> &str {
        &self.0.contract
    }

    /// The names of the interfaces that the policy imports, with versions.
    pub fn imports(&self) -> &[String] {
        &self.0.imports
    }

    /// What the policy imports that a binding must grant.
    pub fn needs(&self) -> &Grants {
        &self.0.needs
    }

    /// True if the policy imports WASI and gets the closed one, which makes a call several times as costly.
    pub fn uses_wasi(&self) -> bool {
        matches!(self.0.code, Code::Wasi(_))
    }

    /// True if compiled code from an earlier run was used.
    pub fn from_cache(&self) -> bool {
        self.0.from_cache
    }

    /// Asks the policy whether these settings, JSON text, are usable. A policy without that export accepts all.
    pub fn validate_settings(
        &self,
        limits: Limits,
        settings: &str,
        log: &dyn Log,
    ) -> Result<Result<(), SettingsProblem>, Failure> {
        if !self.has_settings() {
            return Ok(Ok(()));
        }
        abi::validate(self, Asking { limits, settings, world: &(), log })
    }

    /// Asks whether the pod is exempt.
    pub fn exempt(
        &self,
        asking: Asking<'_>,
        subject: &Subject<'_>,
        volumes: &[VolumeFacts],
    ) -> Result<Exemption, Failure> {
        abi::exempt(self, asking, subject, volumes)
    }

    /// Asks what to change about the sidecar of one volume.
    pub fn adjust(
        &self,
        asking: Asking<'_>,
        subject: &Subject<'_>,
        volume: &VolumeFacts,
        current: &SidecarFacts,
    ) -> Result<Change, Failure> {
        abi::adjust(self, asking, subject, volume, current)
    }

    /// Asks what the directory of a new volume is called. `object` is the raw PersistentVolumeClaim.
    pub fn name(
        &self,
        asking: Asking<'_>,
        request: &NamingRequest,
        object: &serde_json::Value,
    ) -> Result<Naming, Failure> {
        abi::name(self, asking, request, object)
    }

    /// Asks whether the size of a new volume is enforced; none where the policy does not say. `object` is the raw PersistentVolumeClaim.
    pub fn quota(
        &self,
        asking: Asking<'_>,
        request: &QuotaRequest,
        object: &serde_json::Value,
    ) -> Result<Option<Quota>, Failure> {
        abi::quota(self, asking, request, object)
    }

    /// Makes a store with every limit and drops it: the first step of a call, for the benchmark.
    pub fn make_store(&self, limits: Limits) {
        call::make_store(self, limits);
    }

    /// Makes an instance and drops it, which is what a call costs beyond the policy's own work.
    pub fn instantiate(&self, limits: Limits) -> Result<(), Failure> {
        call::instantiate(self, limits)
    }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").field("digest", &self.0.digest).field("hooks", &self.0.hooks).finish_non_exhaustive()
    }
}
