//! Policies that change while requests are answered: the bindings of the configuration and their modules are read again when their
//! files change.
//!
//! Nothing else of the configuration is taken before the next start. SIGHUP has the files looked at now.

use std::collections::BTreeMap;
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

use super::source::stat;
use super::{InForce, Kept, Loading, Policies, Sources};
use crate::args::Overrides;
use crate::config::{self, Config, Source};
use crate::memory;
use crate::metrics::Metrics;
use crate::seen::{Digest, History, Verdict};
use crate::wasm::Engine;

/// How often files are looked at.
const PERIOD: Duration = Duration::from_secs(3);
/// When something is tried again that could not be used for a reason of this moment.
const AGAIN: Duration = Duration::from_secs(60);

/// Keeps the policies in force in step with the files that they come from.
#[derive(Debug)]
pub struct Reload {
    path: PathBuf,
    overrides: Overrides,
    engine: Engine,
    sources: Sources,
    kept: Kept,
    in_force: Arc<InForce>,
    metrics: Arc<Metrics>,
    /// The modules that the configuration named when it was read last.
    modules: Vec<Source>,
    /// Everything else that it said.
    others: BTreeMap<String, Value>,
    /// When what could not be used for a reason of that moment is tried again.
    again: Option<Instant>,
    /// It begins with nothing seen: what changed between the start and the first look is found by that one.
    history: History,
}

/// What the files have now.
struct Reading {
    seen: Digest,
    policies: Result<(Policies, BTreeMap<String, Error>)>,
}

impl Reload {
    /// Loads the policies of a configuration, which is the one in this file, with these flags on top.
    pub fn start(
        config: &Config,
        path: PathBuf,
        overrides: Overrides,
        engine: Engine,
        metrics: Arc<Metrics>,
    ) -> Result<Reload> {
        let kept = Kept::open(config.state_dir.join("last-good"))?;
        let sources = Sources::default();
        let policies = Policies::start(&engine, &sources, &config.policies, &kept, metrics.clone())?;
        let others = others(&path, &overrides)?;
        let (in_force, modules, history) = (Arc::new(InForce::new(policies)), Vec::new(), History::default());
        let again = None;
        let reload =
            Reload { path, overrides, engine, sources, kept, in_force, metrics, modules, others, again, history };
        reload.tell(&BTreeMap::new());
        Ok(reload)
    }

    /// The policies, which are swapped once this runs.
    pub fn in_force(&self) -> Arc<InForce> {
        self.in_force.clone()
    }

    /// Looks at the files again and again. It ends where that is not possible.
    pub async fn run(mut self) -> Result<()> {
        let mut asked = signal(SignalKind::hangup()).context("waiting for SIGHUP")?;
        loop {
            let looks = tokio::select! {
                () = sleep(PERIOD) => 1,
                // Who asks has written what is there: a second look finds it as it was, and does not wait for more.
                _ = asked.recv() => 2,
            };
            let look = move || {
                for _ in 0..looks {
                    self.look();
                }
                self
            };
            self = spawn_blocking(look).await.context("loading policies")?;
        }
    }

    fn look(&mut self) {
        let is_due = self.again.is_some_and(|at| at <= Instant::now());
        if !is_due && self.history.is_settled(self.digest(stat(&self.path))) {
            return;
        }
        let Reading { seen, policies } = self.read();
        let usable = matches!(&policies, Ok((_, problems)) if problems.is_empty());
        let may_pass = matches!(&policies, Ok((_, problems)) if problems.values().any(may_pass));
        self.again = may_pass.then(|| Instant::now() + AGAIN);
        match (self.history.judge(seen, usable), policies) {
            (Verdict::Nothing, Ok((policies, problems))) if is_due && usable => {
                self.take(&Arc::new(policies), &problems)
            }
            (Verdict::Nothing, _) => {}
            (Verdict::Take | Verdict::Complain, Ok((policies, problems))) => self.take(&Arc::new(policies), &problems),
            (Verdict::Take | Verdict::Complain, Err(error)) => {
                tracing::error!("the policies stay as they were: {error:#}");
                self.tell(&BTreeMap::from([(String::new(), error)]));
            }
        }
        // Hundreds of megabytes where something was compiled.
        memory::give_back();
    }

    fn read(&mut self) -> Reading {
        // Before it is read: what changes meanwhile is found by the next look.
        let of_file = stat(&self.path);
        let config = Config::load(&self.path, &self.overrides);
        if let Ok(config) = &config {
            self.modules = config.policies.iter().map(|policy| policy.module.clone()).collect();
        }
        let seen = self.digest(of_file);
        let loading = Loading { engine: &self.engine, sources: &self.sources, kept: Some(&self.kept), quietly: true };
        let policies = config.and_then(|config| self.in_force.snapshot().next(&config.policies, &loading));
        Reading { seen, policies }
    }

    fn digest(&self, of_file: String) -> Digest {
        let mut digest = Sha256::new();
        for stamp in [of_file].into_iter().chain(self.modules.iter().map(|it| self.sources.stamp(it))) {
            digest.update(stamp);
            digest.update([0]);
        }
        digest.finalize().into()
    }

    fn take(&mut self, policies: &Arc<Policies>, problems: &BTreeMap<String, Error>) {
        for (name, why) in problems {
            let stays = if policies.loaded.contains_key(name) { "it stays as it was" } else { "it is not in force" };
            tracing::error!(policy = %name, "{why:#}: {stays}");
        }
        let before = self.in_force.snapshot();
        let differences = policies.differences(&before);
        if !differences.is_empty() {
            tracing::info!(policies = ?differences, "policies have changed");
            self.kept.write(policies);
            self.in_force.swap(policies.clone());
            self.metrics.policy_changes.inc();
            for name in differences {
                self.metrics.policy_replaced(name);
            }
        }
        self.tell(problems);
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
    fn tell(&self, problems: &BTreeMap<String, Error>) {
        let policies = self.in_force.snapshot();
        let in_force = policies.loaded.iter().map(|(name, it)| (name.as_str(), it.module.digest()));
        self.metrics.policies(in_force, problems.keys().map(String::as_str));
    }
}

/// Whether a policy may be usable a moment later: a host that is busy with requests has no room for one more call, or no time.
fn may_pass(problem: &Error) -> bool {
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
