//! Policies that change while requests are answered: the bindings of the configuration and their modules are read again when their
//! files change, and PolicyBindings when the API server says so.
//!
//! Nothing else of the configuration is taken before the next start. SIGHUP has the files looked at now.

use std::collections::BTreeMap;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};
use pith_core::policy::Failure;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{InForce, Kept, Loading, Policies, Sources, resource};
use crate::args::Overrides;
use crate::config::{self, Config, PolicyConfig, Source};
use crate::memory;
use crate::metrics::Metrics;
use crate::seen::{Digest, History, Verdict, stat};
use crate::wasm::Engine;

/// How often files are looked at.
const PERIOD: Duration = Duration::from_secs(3);
/// When something is tried again that could not be used for a reason of this moment.
const AGAIN: Duration = Duration::from_secs(60);
/// The same while nothing is decided without it.
const SOON: Duration = Duration::from_secs(5);

/// Keeps the policies in force in step with the files that they come from, and with PolicyBindings.
#[derive(Debug)]
pub struct Reload {
    path: PathBuf,
    overrides: Overrides,
    engine: Engine,
    sources: Sources,
    kept: Kept,
    in_force: Arc<InForce>,
    metrics: Arc<Metrics>,
    /// The bindings of the file when it could be read last.
    of_file: Vec<PolicyConfig>,
    /// What may be in force instead of what cannot be used: until the first PolicyBindings were looked at.
    last_good: Vec<PolicyConfig>,
    /// The modules that were named when everything was read last.
    modules: Vec<Source>,
    /// Their tests.
    tests: Vec<Source>,
    /// Everything else that it said.
    others: BTreeMap<String, Value>,
    /// When what could not be used for a reason of that moment is tried again.
    again: Option<Instant>,
    /// It begins with nothing seen: what changed between the start and the first look is found by that one.
    history: History,
}

/// What there is now.
struct Reading {
    seen: Digest,
    policies: Result<(Policies, BTreeMap<String, Error>)>,
}

impl Reload {
    /// Loads the policies of a configuration, which is the one in this file, with these flags on top. Where there are PolicyBindings,
    /// nothing is decided before they are known, which [`Reload::run`] sees to.
    pub fn start(
        config: &Config,
        path: PathBuf,
        overrides: Overrides,
        engine: Engine,
        sources: Sources,
        metrics: Arc<Metrics>,
    ) -> Result<Reload> {
        let kept = Kept::open(config.state_dir.join("last-good"))?;
        let last_good = kept.read();
        let loading =
            Loading { engine: &engine, sources: &sources, kept: Some(&kept), last_good: &last_good, quietly: false };
        let mut policies = Policies::start(&config.policies, &loading, metrics.clone())?;
        match sources.resources() {
            Some(_) => policies.waiting = Some("the PolicyBindings of the cluster are not loaded yet".into()),
            None => kept.write(&policies),
        }
        let reload = Reload {
            others: others(&path, &overrides)?,
            path,
            overrides,
            engine,
            sources,
            kept,
            in_force: Arc::new(InForce::new(policies)),
            metrics,
            of_file: config.policies.clone(),
            last_good,
            modules: Vec::new(),
            tests: Vec::new(),
            again: None,
            history: History::default(),
        };
        reload.tell();
        Ok(reload)
    }

    /// The policies, which are swapped once this runs.
    pub fn in_force(&self) -> Arc<InForce> {
        self.in_force.clone()
    }

    /// Where modules are that could be used.
    pub fn kept(&self) -> Kept {
        self.kept.clone()
    }

    /// Looks at everything again and again. It ends where that is not possible.
    pub async fn run(mut self) -> Result<()> {
        let mut asked = signal(SignalKind::hangup()).context("waiting for SIGHUP")?;
        let resources = self.sources.resources().cloned();
        loop {
            let changed = async {
                match &resources {
                    Some(resources) => resources.changed().await,
                    None => pending().await,
                }
            };
            let is_whole = tokio::select! {
                () = sleep(PERIOD) => false,
                // Who asks has written what is there, and an API server shows nothing by halves.
                _ = asked.recv() => true,
                () = changed => true,
            };
            let look = move || {
                self.look(is_whole);
                self
            };
            self = spawn_blocking(look).await.context("loading policies")?;
        }
    }

    fn look(&mut self, is_whole: bool) {
        if self.sources.resources().is_some_and(|it| it.waiting().is_some()) {
            return;
        }
        // What was only tried is nobody's now.
        self.sources.keep_only(&self.modules);
        let is_due = self.again.is_some_and(|at| at <= Instant::now());
        if !is_due && self.history.is_settled(self.digest(stat(&self.path), &self.wanted())) {
            return;
        }
        let Reading { seen, policies } = self.read();
        let (policies, problems) = match policies {
            Ok(read) => read,
            Err(error) => return tracing::error!("the policies stay as they were: {error:#}"),
        };
        let is_usable = problems.is_empty();
        let may_pass = problems.values().any(may_pass).then_some(AGAIN);
        let again = if policies.waiting.is_some() { Some(SOON) } else { may_pass };
        self.again = again.map(|span| Instant::now() + span);
        let verdict = match self.history.judge(seen, is_usable) {
            Verdict::Nothing if is_whole => self.history.judge(seen, is_usable),
            verdict => verdict,
        };
        match verdict {
            Verdict::Nothing if !(is_due && is_usable) => {}
            _ => self.take(Arc::new(policies), &problems),
        }
        // Hundreds of megabytes where something was compiled.
        memory::give_back();
    }

    /// The PolicyBindings; none where they are nobody's business.
    fn wanted(&self) -> Vec<Arc<resource::Object>> {
        self.sources.resources().map(|it| it.all()).unwrap_or_default()
    }

    fn read(&mut self) -> Reading {
        // Before it is read: what changes meanwhile is found by the next look.
        let (stamp, objects) = (stat(&self.path), self.wanted());
        let mut problems = BTreeMap::new();
        match Config::load(&self.path, &self.overrides) {
            Ok(config) => self.of_file = config.policies,
            Err(error) => {
                problems.insert(String::new(), error);
            }
        }
        let mut configs = self.of_file.clone();
        let mut not_in_force = BTreeMap::new();
        for object in &objects {
            let config = match object.wanted() {
                _ if self.of_file.iter().any(|it| it.binding.name == object.name) => {
                    Err(Error::msg("the configuration file has a policy of this name: give one of them another name"))
                }
                config => config,
            };
            match config {
                Ok(config) => configs.push(config),
                Err(why) => {
                    not_in_force.insert(object.name.clone(), object.generation);
                    problems.insert(object.name.clone(), why);
                }
            }
        }
        self.modules = configs.iter().map(|it| it.module.clone()).collect();
        self.tests = configs.iter().filter_map(|it| it.tests.clone()).collect();
        let seen = self.digest(stamp, &objects);
        let before = self.in_force.snapshot();
        if before.waiting.is_some() {
            self.last_good.extend(objects.iter().flat_map(|it| it.last_good()));
        }
        let loading = Loading {
            engine: &self.engine,
            sources: &self.sources,
            kept: Some(&self.kept),
            last_good: &self.last_good,
            quietly: before.waiting.is_none(),
        };
        let policies = before.next(&configs, &loading).map(|(mut policies, not_loaded)| {
            problems.extend(not_loaded);
            policies.add_problems(&problems, &not_in_force, &before);
            // Replicas that were there before have something in force which this one has not.
            let was_good = |it: &&Arc<resource::Object>| {
                !it.last_good().is_empty() && problems.contains_key(&it.name) && !policies.loaded.contains_key(&it.name)
            };
            policies.waiting = objects.iter().find(was_good).filter(|_| before.waiting.is_some()).map(|it| {
                format!("the PolicyBinding `{}` cannot be used, and what was in force before cannot be had", it.name)
            });
            (policies, problems)
        });
        Reading { seen, policies }
    }

    fn digest(&self, of_file: String, objects: &[Arc<resource::Object>]) -> Digest {
        let mut digest = Sha256::new();
        let modules = self.modules.iter().map(|it| self.sources.stamp(it));
        let tests = self.tests.iter().map(|it| self.sources.stamp(it));
        let objects = objects.iter().map(|it| format!("{}:{}:{}", it.name, it.uid, it.generation));
        for stamp in [of_file].into_iter().chain(modules).chain(tests).chain(objects) {
            digest.update(stamp);
            digest.update([0]);
        }
        digest.finalize().into()
    }

    fn take(&mut self, policies: Arc<Policies>, problems: &BTreeMap<String, Error>) {
        for (name, why) in problems {
            let stays = if policies.loaded.contains_key(name) { "it stays as it was" } else { "it is not in force" };
            match &**name {
                "" => tracing::error!("the policies of the file stay as they were: {why:#}"),
                name => tracing::error!(policy = %name, "{why:#}: {stays}"),
            }
        }
        let before = self.in_force.snapshot();
        let differences = policies.differences(&before);
        if policies.waiting.is_none() {
            self.last_good.clear();
            if !differences.is_empty() || before.waiting.is_some() {
                self.kept.write(&policies);
            }
        }
        self.in_force.swap(policies.clone());
        if !differences.is_empty() {
            tracing::info!(policies = ?differences, "policies have changed");
            self.metrics.policy_changes.inc();
            for name in differences {
                self.metrics.policy_replaced(name);
            }
        }
        self.tell();
        if problems.contains_key("") {
            return;
        }
        match others(&self.path, &self.overrides) {
            Ok(others) => {
                let keys = self.others.keys().chain(others.keys());
                let mut keys: Vec<&String> = keys.filter(|key| self.others.get(*key) != others.get(*key)).collect();
                keys.sort_unstable();
                keys.dedup();
                if !keys.is_empty() {
                    tracing::warn!(?keys, "the rest of the configuration has changed for the next start only");
                }
                self.others = others;
            }
            Err(error) => tracing::warn!("reading the configuration again: {error:#}"),
        }
    }

    /// Says in metrics what is in force, and what cannot be.
    fn tell(&self) {
        let policies = self.in_force.snapshot();
        let in_force = policies.loaded.iter().map(|(name, it)| (name.as_str(), it.module.digest()));
        self.metrics.policies(in_force, policies.problems.keys().map(String::as_str));
    }
}

/// Whether a policy may be usable a moment later: a host that is busy with requests has no room for one more call, or no time.
pub(super) fn may_pass(problem: &Error) -> bool {
    problem.chain().any(|it| matches!(it.downcast_ref(), Some(Failure::Host(_) | Failure::Deadline(_))))
}

/// What the configuration says beside its policies.
fn others(path: &Path, overrides: &Overrides) -> Result<BTreeMap<String, Value>> {
    let values = config::effective(path, overrides)?.into_iter().map(|it| (it.key, it.value));
    Ok(values.filter(|(key, _)| key != "policies" && !key.starts_with("policies[")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_busy_host_could_not_try_is_tried_again_and_what_is_wrong_is_not() {
        for (failure, passes) in [
            (Failure::Host("too many policies run at once".into()), true),
            (Failure::Deadline(Duration::ZERO), true),
            (Failure::Stack, false),
        ] {
            let problem = Error::new(failure).context("making a first instance").context("loading the policy `it`");
            assert_eq!(may_pass(&problem), passes, "{problem:#}");
        }
        assert!(!may_pass(&Error::msg("settings.sizes: it is no map")));
    }
}
