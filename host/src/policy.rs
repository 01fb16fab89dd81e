//! The policies that are in force: an immutable snapshot of bindings and compiled modules, and how decisions ask them.
//!
//! A request sees one snapshot from start to end. Loading compiles, checks settings and makes one throw-away instance, so that
//! nothing of that happens while a request waits.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pith_core::binding::{Binding, Evaluate};
use pith_core::breaker::Breaker;
use pith_core::monitor::Monitored;
use pith_core::policy::{
    Change, Exemption, Failure, Hook, Naming, NamingRequest, Quota, QuotaRequest, SidecarFacts, Subject, VolumeFacts,
};
use rayon::prelude::*;
use serde_json::Value;

use crate::config::PolicyConfig;
use crate::metrics::Metrics;
use crate::wasm::{Engine, LARGEST_MODULE_BYTES, Level, Limits, Module};

/// The longest that checking the settings may take; it happens at start, not in a request.
const SETTINGS_DEADLINE: Duration = Duration::from_secs(5);

/// The policies in force.
#[derive(Debug)]
pub struct Policies {
    /// The bindings in the order in which they are asked.
    pub bindings: Vec<Binding>,
    loaded: HashMap<String, Loaded>,
    metrics: Arc<Metrics>,
    /// Since when, where policies that fail too often are paused.
    contained: Option<Instant>,
}

#[derive(Debug)]
struct Loaded {
    module: Module,
    settings: String,
    limits: Limits,
    /// Whether there is something in `breaker`: as long as a policy answers, nobody takes the lock.
    has_failed: AtomicBool,
    breaker: Mutex<Breaker>,
}

/// Reads a module's bytes.
pub fn read_module(path: &Path) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path).with_context(|| format!("reading the module {}", path.display()))?.len();
    // Before it is in memory; the engine would refuse it too.
    let most = LARGEST_MODULE_BYTES;
    ensure!(size <= most as u64, "the module {} has {size} bytes: at most {most}", path.display());
    std::fs::read(path).with_context(|| format!("reading the module {}", path.display()))
}

impl Policies {
    /// No policy at all: every decision is the built-in one.
    pub fn none() -> Policies {
        Policies { bindings: Vec::new(), loaded: HashMap::new(), metrics: Arc::default(), contained: None }
    }

    /// Loads every binding's module, several at once, and checks its settings. The first that cannot be used is an error.
    pub fn load(engine: &Engine, configs: &[PolicyConfig], metrics: Arc<Metrics>) -> Result<Policies> {
        let one = |config: &PolicyConfig| {
            load_one(engine, config).with_context(|| format!("loading the policy `{}`", config.binding.name))
        };
        // A pool of its own, which ends here: its threads would otherwise keep what the compiler allocated and freed.
        let pool = rayon::ThreadPoolBuilder::new().build().context("starting threads to load policies")?;
        let results: Vec<Result<(Binding, Loaded)>> = pool.install(|| configs.par_iter().map(one).collect());
        drop(pool);
        let mut policies = Policies { bindings: Vec::new(), loaded: HashMap::new(), metrics, contained: None };
        for result in results {
            let (binding, loaded) = result?;
            policies.loaded.insert(binding.name.clone(), loaded);
            policies.bindings.push(binding);
        }
        Ok(policies)
    }

    /// The same, but one that fails too often is left alone for a while. For a server: a command asks them all.
    pub fn contained(self) -> Policies {
        Policies { contained: Some(Instant::now()), ..self }
    }

    /// Counts what policies in monitor mode would have decided about an object, and logs what would be different.
    pub fn note(&self, namespace: &str, name: &str, monitored: &[Monitored]) {
        for it in monitored {
            let (policy, hook, claim) = (&*it.binding, it.hook.as_str(), it.claim.as_deref().unwrap_or_default());
            self.metrics.policy_monitored(policy, hook, it.word());
            match &it.outcome {
                Ok(differences) if differences.is_empty() => {}
                Ok(differences) => {
                    let differences: Vec<String> = differences.iter().map(ToString::to_string).collect();
                    tracing::info!(
                        policy,
                        hook,
                        namespace,
                        name,
                        claim,
                        ?differences,
                        "a policy would decide otherwise"
                    );
                }
                Err(failure) => {
                    tracing::info!(policy, hook, namespace, name, claim, %failure, "a policy would have failed");
                }
            }
        }
    }

    /// Asks on behalf of one request, which ends at `deadline`.
    pub fn evaluator(&self, deadline: Instant) -> Evaluator<'_> {
        Evaluator { policies: self, deadline, object: 0, calls: RefCell::default() }
    }
}

fn load_one(engine: &Engine, config: &PolicyConfig) -> Result<(Binding, Loaded)> {
    let name = &config.binding.name;
    let module = engine.load(&read_module(&config.module)?, config.grants)?;
    let mut binding = config.binding.clone();
    if binding.hooks.is_empty() {
        binding.hooks = module.hooks().clone();
    }
    if let Some(missing) = binding.hooks.iter().find(|hook| !module.hooks().contains(hook)) {
        let exported: Vec<&str> = module.hooks().iter().map(|hook| hook.as_str()).collect();
        bail!("hooks names `{}`, but the module exports only {}", missing.as_str(), exported.join(", "));
    }
    let limits = Limits { deadline: SETTINGS_DEADLINE, ..config.limits };
    let log = |level: Level, line: &str| log(name, level, line);
    let checked = module.validate_settings(limits, &config.settings, &log).context("checking its settings")?;
    if let Err(problem) = checked {
        let place = if problem.field.is_empty() { "settings".into() } else { format!("settings.{}", problem.field) };
        bail!("{place}: {}", problem.reason);
    }
    module.instantiate(config.limits).context("making a first instance")?;
    tracing::info!(
        policy = %name,
        digest = %module.digest(),
        hooks = ?binding.hooks,
        from_cache = module.from_cache(),
        wasi = module.uses_wasi(),
        "policy loaded"
    );
    let (has_failed, breaker) = Default::default();
    Ok((binding, Loaded { module, settings: config.settings.clone(), limits: config.limits, has_failed, breaker }))
}

/// One call of a policy, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The binding.
    pub binding: String,
    /// What was asked.
    pub hook: Hook,
    /// What came of it.
    pub outcome: String,
    /// How long it took.
    pub took: Duration,
}

/// The policies as one request asks them.
#[derive(Debug)]
pub struct Evaluator<'a> {
    policies: &'a Policies,
    deadline: Instant,
    object: u64,
    calls: RefCell<Vec<Call>>,
}

impl Evaluator<'_> {
    /// For a request about this object: failures count for a pause where they are about several.
    pub fn about(self, namespace: &str, name: &str) -> Self {
        let mut object = DefaultHasher::new();
        (namespace, name).hash(&mut object);
        Evaluator { object: object.finish(), ..self }
    }

    /// The calls so far, in order.
    pub fn into_calls(self) -> Vec<Call> {
        self.calls.into_inner()
    }

    /// A call, unless the policy is paused.
    fn contained<T>(
        &self,
        binding: &Binding,
        loaded: &Loaded,
        ask: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Some(since) = self.policies.contained else { return ask() };
        let breaker = || loaded.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.has_failed.load(Ordering::Relaxed) {
            breaker().ask(since.elapsed()).map_err(Failure::Paused)?;
        }
        let answer = ask();
        let name = &*binding.name;
        match &answer {
            Ok(_) if loaded.has_failed.swap(false, Ordering::Relaxed) => {
                if breaker().answered() {
                    self.policies.metrics.policy_paused(name, false);
                    tracing::info!(policy = name, "a policy answers again");
                }
            }
            Ok(_) => {}
            Err(failure) => {
                loaded.has_failed.store(true, Ordering::Relaxed);
                if let Some(pause) = breaker().failed(self.object, since.elapsed()) {
                    self.policies.metrics.policy_paused(name, true);
                    let seconds = pause.as_secs();
                    tracing::error!(policy = name, seconds, %failure, "a policy fails too often and is left alone for a while");
                }
            }
        }
        answer
    }

    /// One call, measured and counted. `outcome` says what an answer is, in one word.
    fn call<T>(
        &self,
        binding: &Binding,
        hook: Hook,
        ask: impl FnOnce(&Loaded, Limits, &dyn crate::wasm::Log) -> Result<T, Failure>,
        outcome: impl FnOnce(&T) -> &'static str,
    ) -> Result<T, Failure> {
        let loaded = self.policies.loaded.get(&binding.name);
        let loaded = loaded.ok_or_else(|| Failure::Host("its module is not loaded".into()))?;
        let metrics = &self.policies.metrics;
        let started = Instant::now();
        let left = self.deadline.saturating_duration_since(started);
        let log = |level: Level, line: &str| log(&binding.name, level, line);
        let answer = if left.is_zero() {
            Err(Failure::Host("the request's time was used up before it was asked".into()))
        } else {
            let limits = Limits { deadline: loaded.limits.deadline.min(left), ..loaded.limits };
            self.contained(binding, loaded, || ask(loaded, limits, &log))
        };
        let took = started.elapsed();
        let (word, words) = match &answer {
            Ok(answer) => {
                let word = outcome(answer);
                (word, word.to_string())
            }
            Err(failure) => (failure.code().as_str(), format!("failed: {failure}")),
        };
        metrics.policy_call(&binding.name, hook.as_str(), word, took);
        if let Err(failure) = &answer {
            tracing::warn!(policy = %binding.name, hook = hook.as_str(), kind = %failure.code(), %failure, "policy failed");
        }
        self.calls.borrow_mut().push(Call { binding: binding.name.clone(), hook, outcome: words, took });
        answer
    }
}

impl Evaluate for Evaluator<'_> {
    fn exempt(&self, binding: &Binding, subject: &Subject<'_>, volumes: &[VolumeFacts]) -> Result<Exemption, Failure> {
        self.call(
            binding,
            Hook::Exemption,
            |it, limits, log| it.module.exempt(limits, &it.settings, subject, volumes, log),
            |answer| match answer {
                Exemption::Inject => "inject",
                Exemption::Skip(_) => "skip",
                Exemption::Deny(_) => "deny",
            },
        )
    }

    fn adjust(
        &self,
        binding: &Binding,
        subject: &Subject<'_>,
        volume: &VolumeFacts,
        current: &SidecarFacts,
    ) -> Result<Change, Failure> {
        self.call(
            binding,
            Hook::Sidecar,
            |it, limits, log| it.module.adjust(limits, &it.settings, subject, volume, current, log),
            |answer| if *answer == Change::default() { "unchanged" } else { "changed" },
        )
    }

    fn name(&self, binding: &Binding, request: &NamingRequest, object: &Value) -> Result<Naming, Failure> {
        self.call(
            binding,
            Hook::Naming,
            |it, limits, log| it.module.name(limits, &it.settings, request, object, log),
            |answer| match answer {
                Naming::Pass => "pass",
                Naming::Directory { .. } => "directory",
                Naming::Deny(_) => "deny",
            },
        )
    }

    fn quota(&self, binding: &Binding, request: &QuotaRequest, object: &Value) -> Result<Option<Quota>, Failure> {
        self.call(
            binding,
            Hook::Quota,
            |it, limits, log| it.module.quota(limits, &it.settings, request, object, log),
            |answer| match answer {
                None => "pass",
                Some(Quota::On) => "on",
                Some(Quota::Off) => "off",
            },
        )
    }
}

/// A line of a policy's own log, under the policy's name.
fn log(policy: &str, level: Level, line: &str) {
    match level {
        Level::Debug => tracing::debug!(target: "policy", policy, "{line}"),
        Level::Info => tracing::info!(target: "policy", policy, "{line}"),
        Level::Warn => tracing::warn!(target: "policy", policy, "{line}"),
        Level::Error => tracing::error!(target: "policy", policy, "{line}"),
    }
}
