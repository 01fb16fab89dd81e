//! The policies that are in force: an immutable snapshot of bindings and compiled modules, and how decisions ask them.
//!
//! A request sees one snapshot from start to end. Loading compiles, checks settings and makes one throw-away instance, so that
//! nothing of that happens while a request waits.
//!
//! ```text
//!   configuration and modules ── reload ── load ──► Policies ── InForce ──► a request's snapshot ── Evaluator ──► answers
//!                                   │
//!                                  kept: the last that could be used, for a start that meets one that cannot
//! ```

pub(crate) mod cases;
mod kept;
mod network;
mod reload;
mod resource;
mod source;
mod stats;
pub(crate) mod table;
mod trial;
pub(crate) mod world;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use arc_swap::ArcSwap;
use pith_core::binding::{self, Binding, Evaluate};
use pith_core::breaker::Breaker;
use pith_core::budget::Budget;
use pith_core::monitor::Monitored;
use pith_core::policy::{
    Change, Exemption, Failure, Hook, Naming, NamingRequest, Quota, QuotaRequest, SidecarFacts, Subject, VolumeFacts,
};
use rayon::prelude::*;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::config::PolicyConfig;
use crate::metrics::Metrics;
use crate::wasm::{Asking, Engine, Level, Limits, Module};
use network::BeingFetched;
use stats::Stats;
use table::{Question, Shown};
use world::{Notes, View};

pub use kept::Kept;
pub use network::Cluster;
pub use reload::Reload;
pub use resource::{Reporter, Resources, custom_resource_definitions};
pub use source::{Sources, read_module};
pub use trial::Trial;
pub use world::Moment;

/// The longest that checking the settings may take; it happens at start, not in a request.
const SETTINGS_DEADLINE: Duration = Duration::from_secs(5);

/// How much those threads that load policies while requests are answered give way (nice).
const NICE: i32 = 10;

/// The policies in force.
#[derive(Debug)]
pub struct Policies {
    /// The bindings in the order in which they are asked.
    pub bindings: Vec<Binding>,
    loaded: HashMap<String, Arc<Loaded>>,
    /// What is asked for and cannot be used, by the name of the binding.
    problems: BTreeMap<String, Problem>,
    /// What must be known before anything is decided, as a sentence; absent where all of it is.
    pub waiting: Option<String>,
    metrics: Arc<Metrics>,
    /// Since when, where policies that fail too often are paused.
    contained: Option<Instant>,
}

/// Why a binding is not in force as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    /// The sentence.
    sentence: String,
    /// The generation of its PolicyBinding, where it is of one.
    generation: Option<i64>,
}

/// The policies in force at any moment, which are swapped as a whole.
#[derive(Debug)]
pub struct InForce(ArcSwap<Policies>);

impl InForce {
    /// These, until others are put in their place.
    pub fn new(policies: Policies) -> InForce {
        InForce(ArcSwap::from_pointee(policies))
    }

    /// Those of this moment, for all of one request.
    pub fn snapshot(&self) -> Arc<Policies> {
        self.0.load_full()
    }

    fn swap(&self, policies: Arc<Policies>) {
        self.0.store(policies);
    }
}

/// How policies are loaded.
struct Loading<'a> {
    engine: &'a Engine,
    sources: &'a Sources,
    /// Where modules are kept that could be used.
    kept: Option<&'a Kept>,
    /// What is in force where what is asked for cannot be used, and nothing of that name was in force before.
    last_good: &'a [PolicyConfig],
    /// While requests are answered.
    quietly: bool,
}

/// A binding whose module can be asked.
#[derive(Debug)]
struct Loaded {
    /// As it was asked for.
    config: PolicyConfig,
    /// With the hooks of the module, where it names none itself.
    binding: Binding,
    module: Module,
    /// The digest of the cases that hold.
    tests: Option<String>,
    /// How long it took to load it.
    took: Duration,
    stats: Stats,
    /// Whether there is something in `breaker`: as long as a policy answers, nobody takes the lock.
    has_failed: AtomicBool,
    breaker: Mutex<Breaker>,
    /// None where there is no bound: nobody takes the lock.
    budget: Option<Mutex<Budget>>,
}

impl Policies {
    /// No policy at all: every decision is the built-in one.
    pub fn none() -> Policies {
        Policies {
            bindings: Vec::new(),
            loaded: HashMap::new(),
            problems: BTreeMap::new(),
            waiting: None,
            metrics: Arc::default(),
            contained: None,
        }
    }

    /// Loads every binding's module, several at once, and checks its settings. The first that cannot be used is an error.
    pub fn load(
        engine: &Engine,
        sources: &Sources,
        configs: &[PolicyConfig],
        metrics: Arc<Metrics>,
    ) -> Result<Policies> {
        let none = Policies { metrics, ..Policies::none() };
        let loading = Loading { engine, sources, kept: None, last_good: &[], quietly: false };
        let (policies, problems) = none.next(configs, &loading)?;
        problems.into_values().next().map_or(Ok(policies), Err)
    }

    /// The same for a server, which leaves policies alone for a while that fail too often. Where what is asked for cannot be used, the
    /// last that could be is in force; a policy that never could be is an error.
    fn start(configs: &[PolicyConfig], loading: &Loading<'_>, metrics: Arc<Metrics>) -> Result<Policies> {
        let none = Policies { metrics, contained: Some(Instant::now()), ..Policies::none() };
        let (policies, problems) = none.next(configs, loading)?;
        for (name, why) in problems {
            if !policies.loaded.contains_key(&name) {
                return Err(why);
            }
            tracing::error!(policy = %name, "{why:#}: the last that could be used is in force");
        }
        Ok(policies)
    }

    /// The policies after a change. What did not change stays, with what is known of its failures; what cannot be used stays as it was,
    /// and its binding's name comes with the reason.
    fn next(&self, configs: &[PolicyConfig], loading: &Loading<'_>) -> Result<(Policies, BTreeMap<String, Error>)> {
        let one = |config: &PolicyConfig| {
            let began = Instant::now();
            let bytes = loading.sources.read(&config.module)?;
            let tests = config.tests.as_ref().map(|it| loading.sources.tests(it)).transpose()?;
            if let Some(old) = self.loaded.get(&config.binding.name)
                && old.config == *config
                && old.module.digest() == digest(&bytes)
                && old.tests == tests.as_deref().map(digest)
            {
                return Ok(old.clone());
            }
            let loaded = load_one(loading.engine, config, (&bytes, tests.as_deref()), began)?;
            if let Some(kept) = loading.kept {
                kept.put(&kept::of_module(loaded.module.digest()), &bytes);
                if let (Some(digest), Some(tests)) = (&loaded.tests, &tests) {
                    kept.put(&kept::of_tests(digest), tests);
                }
            }
            Ok(Arc::new(loaded))
        };
        if !loading.quietly {
            loading.sources.fetch(configs.iter().chain(loading.last_good).map(|it| &it.module));
        }
        // A pool of its own, which ends here: its threads would otherwise keep what the compiler allocated and freed.
        let mut pool = rayon::ThreadPoolBuilder::new();
        if loading.quietly {
            pool = pool.start_handler(|_| give_way());
        }
        let pool = pool.build().context("starting threads to load policies")?;
        let results: Vec<Result<Arc<Loaded>>> = pool.install(|| configs.par_iter().map(one).collect());
        drop(pool);
        let mut loaded = HashMap::new();
        let mut problems = BTreeMap::new();
        for (config, result) in configs.iter().zip(results) {
            let name = &config.binding.name;
            let usable = match result {
                Ok(it) => Some(it),
                Err(why) if why.is::<BeingFetched>() => {
                    tracing::info!(policy = %name, "{why}: what was in force stays until then");
                    self.loaded.get(name).cloned()
                }
                Err(why) => {
                    problems.insert(name.clone(), why.context(format!("loading the policy `{name}`")));
                    let last_good = || loading.last_good.iter().filter(|it| it.binding.name == *name);
                    self.loaded.get(name).cloned().or_else(|| last_good().find_map(|it| one(it).ok()))
                }
            };
            loaded.extend(usable.map(|it| (name.clone(), it)));
        }
        let mut bindings: Vec<Binding> = loaded.values().map(|it| it.binding.clone()).collect();
        bindings.sort_by(binding::order);
        let generation = |name: &str| {
            let config = configs.iter().find(|it| it.binding.name == name);
            config.and_then(|it| it.resource.as_ref()).map(|it| it.generation)
        };
        let said = problems
            .iter()
            .map(|(name, why)| (name.clone(), Problem { sentence: format!("{why:#}"), generation: generation(name) }));
        let (problems_said, metrics) = (said.collect(), self.metrics.clone());
        let policies =
            Policies { bindings, loaded, problems: problems_said, waiting: None, metrics, contained: self.contained };
        Ok((policies, problems))
    }

    /// These problems and no others. `unread` has the generations of PolicyBindings that ask for what cannot be read: of one that was in
    /// force `before` that stays.
    fn add_problems(&mut self, problems: &BTreeMap<String, Error>, unread: &BTreeMap<String, i64>, before: &Policies) {
        for (name, why) in problems {
            let generation = unread.get(name).copied();
            let it = || Problem { sentence: format!("{why:#}"), generation };
            self.problems.entry(name.clone()).or_insert_with(it);
        }
        let stay = unread.keys().filter_map(|name| Some((name, before.loaded.get(name)?)));
        let of_resource = |it: &Loaded| it.config.resource.is_some();
        for (name, loaded) in stay.filter(|(_, it)| of_resource(it)) {
            if !self.loaded.contains_key(name) {
                self.loaded.insert(name.clone(), loaded.clone());
                self.bindings.push(loaded.binding.clone());
            }
        }
        self.bindings.sort_by(binding::order);
    }

    /// The names of what is not the same in these as in others: there, elsewhere, or otherwise.
    fn differences<'a>(&'a self, others: &'a Policies) -> BTreeSet<&'a str> {
        let names = self.loaded.keys().chain(others.loaded.keys());
        let differs = |name: &&String| match (self.loaded.get(*name), others.loaded.get(*name)) {
            (Some(one), Some(other)) => !Arc::ptr_eq(one, other),
            _ => true,
        };
        names.filter(differs).map(|name| name.as_str()).collect()
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

    /// What this replica has to say of a PolicyBinding; nothing before it has looked at it.
    fn replica(&self, object: &resource::Object, name: &str) -> Option<resource::Replica> {
        let loaded = self.loaded.get(&object.name);
        let of_object = |it: &&Arc<Loaded>| it.config.resource.as_ref().is_some_and(|it| it.uid == object.uid);
        let loaded = loaded.filter(of_object);
        let in_force = loaded.and_then(|it| it.config.resource.as_ref()).map(|it| it.generation);
        let problem = self.problems.get(&object.name);
        let observed = problem.and_then(|it| it.generation).or(in_force)?;
        let instead = loaded.zip(in_force).filter(|_| problem.is_some()).map(|(it, generation)| {
            let mut spec = it.config.typed.clone();
            if let Some(fields) = spec.as_object_mut() {
                fields.remove("name");
            }
            resource::LastGood { generation, digest: it.module.digest().into(), spec }
        });
        Some(resource::Replica {
            name: name.into(),
            observed_generation: observed,
            in_force,
            problem: problem.map(|it| it.sentence.clone()),
            instead,
            ..loaded.map(|it| it.report()).unwrap_or_default()
        })
    }

    /// What is in force and what cannot be, with the counts of this process: for people, where there is no PolicyBinding to read it in.
    pub fn report(&self) -> Value {
        let shadows: Vec<resource::Shadowed> = binding::shadows(&self.bindings).iter().map(Into::into).collect();
        let names = self.bindings.iter().map(|it| &it.name);
        let not_in_force = self.problems.keys().filter(|name| !self.loaded.contains_key(*name));
        let policies = names.chain(not_in_force).map(|name| {
            let loaded = self.loaded.get(name);
            let resource = loaded.and_then(|it| it.config.resource.as_ref());
            let mut report = serde_json::to_value(resource::Replica {
                name: name.clone(),
                in_force: resource.map(|it| it.generation),
                problem: self.problems.get(name).map(|it| it.sentence.clone()),
                ..loaded.map(|it| it.report()).unwrap_or_default()
            })
            .unwrap_or_default();
            if let Some(report) = report.as_object_mut() {
                report.retain(|key, _| !["reported", "observedGeneration"].contains(&key.as_str()));
                let mode =
                    loaded.map(|it| if it.binding.mode == binding::Mode::Monitor { "monitor" } else { "enforce" });
                report.insert("mode".into(), mode.into());
            }
            report
        });
        serde_json::json!({"policies": policies.collect::<Vec<_>>(), "shadows": shadows, "waiting": self.waiting})
    }

    /// Asks on behalf of one request, which ends at `deadline`. What grants show is as of this moment.
    pub fn evaluator<'a>(&'a self, deadline: Instant, moment: Moment<'a>) -> Evaluator<'a> {
        Evaluator { policies: self, deadline, moment, object: 0, recorded: None, calls: RefCell::default() }
    }
}

impl Loaded {
    /// What can be said of it, and of the calls since it is in force.
    fn report(&self) -> resource::Replica {
        let hooks = self.binding.hooks.iter().map(|hook| {
            let stats = self.stats.of(*hook);
            resource::HookReport {
                hook: hook.as_str().into(),
                calls: stats.calls(),
                failures: stats.failures(),
                last_failure: stats.last_failure().map(|(time, message)| resource::LastFailure {
                    time: humantime::format_rfc3339_seconds(time).to_string(),
                    message,
                }),
                p50_microseconds: stats.percentile(50),
                p99_microseconds: stats.percentile(99),
            }
        });
        let is_paused = || self.breaker.lock().unwrap_or_else(PoisonError::into_inner).is_paused();
        resource::Replica {
            module: Some(resource::Module {
                digest: self.module.digest().into(),
                bytes: self.module.size() as u64,
                compiled_bytes: self.module.compiled_size() as u64,
                load_milliseconds: u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
                from_cache: self.module.from_cache(),
            }),
            paused: self.has_failed.load(Ordering::Relaxed) && is_paused(),
            hooks: hooks.collect(),
            ..resource::Replica::default()
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Loads a module and asks it its tests.
fn load_one(
    engine: &Engine,
    config: &PolicyConfig,
    (bytes, tests): (&[u8], Option<&[u8]>),
    began: Instant,
) -> Result<Loaded> {
    let name = &config.binding.name;
    let module = engine.load(bytes, &config.grants)?;
    let digest = config.resource.as_ref().and_then(|it| it.digest.as_deref());
    if let Some(digest) = digest.filter(|it| *it != module.digest()) {
        bail!("its module was {digest} when it could be used last, and is {} now", module.digest());
    }
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
    if let Some(tests) = tests {
        cases::hold(&module, config, tests)?;
    }
    tracing::info!(
        policy = %name,
        digest = %module.digest(),
        hooks = ?binding.hooks,
        from_cache = module.from_cache(),
        wasi = module.uses_wasi(),
        "policy loaded"
    );
    let (stats, has_failed, breaker) = Default::default();
    let budget = Budget::new(config.rates).map(Mutex::new);
    let (tests, took) = (tests.map(self::digest), began.elapsed());
    Ok(Loaded { config: config.clone(), binding, module, tests, took, stats, has_failed, breaker, budget })
}

/// Lets whoever answers requests go first: threads that load what is in force later are in no hurry.
fn give_way() {
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), NICE) {
        tracing::debug!(%error, "a thread that loads policies has the priority of all others");
    }
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
    /// More of it, where somebody records it.
    pub told: Option<Told>,
}

/// What is recorded of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The digest of the module.
    pub digest: String,
    /// The answer as a table of cases has it, without the values of variables.
    pub answer: Value,
    /// The question and the whole answer, as a case of a table.
    pub case: Option<Value>,
}

/// How much is recorded of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// What was answered.
    Answers,
    /// What was asked, too.
    Questions,
}

/// The policies as one request asks them.
#[derive(Debug)]
pub struct Evaluator<'a> {
    policies: &'a Policies,
    deadline: Instant,
    moment: Moment<'a>,
    object: u64,
    recorded: Option<Recorded>,
    calls: RefCell<Vec<Call>>,
}

impl Evaluator<'_> {
    /// For a request about this object: failures count for a pause where they are about several.
    pub fn about(self, namespace: &str, name: &str) -> Self {
        let mut object = DefaultHasher::new();
        (namespace, name).hash(&mut object);
        Evaluator { object: object.finish(), ..self }
    }

    /// For somebody who records its calls.
    pub fn recorded(self, recorded: Option<Recorded>) -> Self {
        Evaluator { recorded, ..self }
    }

    /// The calls so far, in order.
    pub fn into_calls(self) -> Vec<Call> {
        self.calls.into_inner()
    }

    /// A call, unless the policy is paused or has used up what it has in a second.
    fn contained<T>(
        &self,
        binding: &Binding,
        loaded: &Loaded,
        ask: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Some(since) = self.policies.contained else { return ask() };
        let breaker = || loaded.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let budget = || loaded.budget.as_ref().map(|it| it.lock().unwrap_or_else(PoisonError::into_inner));
        // Before the breaker, which takes whom it lets through for the one that tries again.
        if let Some(mut budget) = budget() {
            budget.take(since.elapsed()).map_err(Failure::Rate)?;
        }
        if loaded.has_failed.load(Ordering::Relaxed)
            && let Err(pause) = breaker().ask(since.elapsed())
        {
            if let Some(mut budget) = budget() {
                budget.give_back();
            }
            return Err(Failure::Paused(pause));
        }
        let started = Instant::now();
        let answer = ask();
        if let Some(mut budget) = budget() {
            budget.ran(started.elapsed());
        }
        let name = &*binding.name;
        match &answer {
            Ok(_) if loaded.has_failed.swap(false, Ordering::Relaxed) => {
                if breaker().answered() {
                    self.policies.metrics.policy_paused(name, false);
                    tracing::info!(policy = name, "a policy answers again");
                }
            }
            // No answer of the policy's.
            Ok(_) | Err(Failure::Host(_)) => {}
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

    /// One call, measured and counted. `outcome` says what an answer is, in one word; `question` and `words` write it down.
    fn call<'q, T>(
        &self,
        (binding, hook): (&Binding, Hook),
        ask: impl FnOnce(&Module, Asking<'_>) -> Result<T, Failure>,
        outcome: impl FnOnce(&T) -> &'static str,
        question: impl FnOnce() -> Question<'q>,
        words: impl Fn(&T) -> Value,
    ) -> Result<T, Failure> {
        let loaded = self.policies.loaded.get(&binding.name);
        let loaded = loaded.ok_or_else(|| Failure::Host("its module is not loaded".into()))?;
        let metrics = &self.policies.metrics;
        let started = Instant::now();
        let left = self.deadline.saturating_duration_since(started);
        let log = |level: Level, line: &str| log(&binding.name, level, line);
        let needs = loaded.module.needs();
        let notes = (!needs.lookup.is_empty()).then(Notes::default);
        let view = View { moment: self.moment, selected: &binding.matches.namespaces, notes: notes.clone() };
        let answer = if left.is_zero() {
            Err(Failure::Host("the request's time was used up before it was asked".into()))
        } else {
            let limits = Limits { deadline: loaded.config.limits.deadline.min(left), ..loaded.config.limits };
            let asking = Asking { limits, settings: &loaded.config.settings, world: &view, log: &log };
            self.contained(binding, loaded, || ask(&loaded.module, asking))
        };
        let took = started.elapsed();
        let (word, sentence) = match &answer {
            Ok(answer) => {
                let word = outcome(answer);
                (word, word.to_string())
            }
            Err(failure) => (failure.code().as_str(), format!("failed: {failure}")),
        };
        metrics.policy_call(&binding.name, hook.as_str(), word, took);
        loaded.stats.of(hook).count(&answer, took);
        if let Err(failure) = &answer {
            tracing::warn!(policy = %binding.name, hook = hook.as_str(), kind = %failure.code(), %failure, "policy failed");
        }
        let told = self.recorded.map(|recorded| {
            let said = table::said(&answer, words);
            let case = (recorded == Recorded::Questions).then(|| {
                let looked = notes.map(|it| std::mem::take(&mut *it.lock().unwrap_or_else(PoisonError::into_inner)));
                let shown = Shown {
                    object: needs.object,
                    now: needs.clock.then(|| self.moment.milliseconds()),
                    looked: looked.unwrap_or_default(),
                };
                question().case(hook.as_str(), &loaded.config.settings, shown, said.clone())
            });
            Told { digest: loaded.module.digest().into(), answer: table::without_values(said), case }
        });
        self.calls.borrow_mut().push(Call { binding: binding.name.clone(), hook, outcome: sentence, took, told });
        answer
    }
}

impl Evaluate for Evaluator<'_> {
    fn exempt(&self, binding: &Binding, subject: &Subject<'_>, volumes: &[VolumeFacts]) -> Result<Exemption, Failure> {
        self.call(
            (binding, Hook::Exemption),
            |module, asking| module.exempt(asking, subject, volumes),
            |answer| match answer {
                Exemption::Inject => "inject",
                Exemption::Skip(_) => "skip",
                Exemption::Deny(_) => "deny",
            },
            || Question::exemption(subject, volumes),
            table::of_exemption,
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
            (binding, Hook::Sidecar),
            |module, asking| module.adjust(asking, subject, volume, current),
            |answer| if *answer == Change::default() { "unchanged" } else { "changed" },
            || Question::sidecar(subject, volume, current),
            table::of_change,
        )
    }

    fn name(&self, binding: &Binding, request: &NamingRequest, object: &Value) -> Result<Naming, Failure> {
        self.call(
            (binding, Hook::Naming),
            |module, asking| module.name(asking, request, object),
            |answer| match answer {
                Naming::Pass => "pass",
                Naming::Directory { .. } => "directory",
                Naming::Deny(_) => "deny",
            },
            || Question::naming(request, object),
            table::of_naming,
        )
    }

    fn quota(&self, binding: &Binding, request: &QuotaRequest, object: &Value) -> Result<Option<Quota>, Failure> {
        self.call(
            (binding, Hook::Quota),
            |module, asking| module.quota(asking, request, object),
            |answer| match answer {
                None => "pass",
                Some(Quota::On) => "on",
                Some(Quota::Off) => "off",
            },
            || Question::quota(request, object),
            table::of_quota,
        )
    }

    fn failed(&self, binding: &Binding, hook: Hook, failure: &Failure) {
        if let Some(loaded) = self.policies.loaded.get(&binding.name) {
            loaded.stats.of(hook).failed(failure);
        }
        let (name, code) = (&*binding.name, failure.code());
        self.policies.metrics.policy_call(name, hook.as_str(), code.as_str(), Duration::ZERO);
        tracing::warn!(policy = %name, hook = hook.as_str(), kind = %code, %failure, "policy failed");
        let outcome = format!("failed: {failure}");
        self.calls.borrow_mut().push(Call { binding: name.into(), hook, outcome, took: Duration::ZERO, told: None });
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
