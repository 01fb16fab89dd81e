//! Modules that come over a network, fetched by threads of their own.
//!
//! Whoever has the registry decides how long it takes to answer. So nobody waits for one where requests are answered: a fetch is begun, and
//! what it came to is there at a later look. Only a start waits, and for all of them at once.

use std::collections::HashMap;
use std::fmt::{self, Debug, Formatter};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use kube::Client;
use tokio::runtime::Handle;

use crate::cluster;
use crate::config::{Https, Oci, Source};
use crate::registry::{self, Access, Cache, Digest, DockerConfig, Key};
use crate::seen::stat;

/// How often a tag is looked up again, and what could not be fetched is tried again.
const PERIOD: Duration = Duration::from_secs(60);

/// What is fetched, and from where it can be.
#[derive(Debug, Default)]
pub(super) struct Network {
    cache: Option<Cache>,
    cluster: Option<Cluster>,
    fetches: Mutex<HashMap<Source, Fetch>>,
    /// One of them has ended.
    ended: Condvar,
}

/// An API server, for threads that are not asynchronous.
pub struct Cluster {
    client: Client,
    runtime: Handle,
    /// Where pull Secrets are.
    namespace: String,
}

impl Cluster {
    /// With the runtime that its client belongs to.
    pub fn new(client: Client, runtime: Handle, namespace: String) -> Cluster {
        Cluster { client, runtime, namespace }
    }
}

impl Debug for Cluster {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster({})", self.namespace)
    }
}

/// One source's module, as far as it is known.
#[derive(Debug, Default)]
struct Fetch {
    /// What the last one came to: a module, or the sentence that says why there is none.
    outcome: Option<Result<Module, String>>,
    /// How often it came to something else.
    changes: u64,
    /// When it was begun.
    begun: Option<Instant>,
    /// The files that it was begun with.
    files: String,
    runs: bool,
}

/// Nothing is wrong with a module, and nothing is known of it yet.
#[derive(Debug, thiserror::Error)]
#[error("its module is still being fetched")]
pub(super) struct BeingFetched;

/// A module that was fetched.
#[derive(Debug)]
struct Module {
    digest: Digest,
    /// Its bytes, where no cache has them.
    bytes: Option<Arc<Vec<u8>>>,
}

impl Network {
    pub(super) fn new(cache: Option<Cache>, cluster: Option<Cluster>) -> Network {
        Network { cache, cluster, ..Network::default() }
    }

    /// The module's bytes, if they are there.
    pub(super) fn read(self: &Arc<Self>, source: &Source) -> Result<Vec<u8>> {
        let mut fetches = self.fetches();
        let fetch = fetches.entry(source.clone()).or_default();
        let module = match &fetch.outcome {
            Some(Ok(module)) => module,
            Some(Err(why)) => return Err(anyhow!("{why}")),
            None => return Err(BeingFetched.into()),
        };
        if let Some(bytes) = &module.bytes {
            return Ok(bytes.to_vec());
        }
        let kept = self.cache.as_ref().and_then(|it| it.get(&module.digest));
        kept.with_context(|| {
            fetch.outcome = None;
            fetch.begun = None;
            self.begin(source, fetch);
            "its module is gone from the cache, and is fetched again"
        })
    }

    /// Fetches what of these is not there, all at once, and waits: each takes its own time at the most.
    pub(super) fn fetch<'a>(self: &Arc<Self>, sources: impl Iterator<Item = &'a Source>) {
        let sources: Vec<&Source> = sources.collect();
        let mut fetches = self.fetches();
        for source in &sources {
            let fetch = fetches.entry((*source).clone()).or_default();
            if fetch.outcome.is_none() {
                self.begin(source, fetch);
            }
        }
        let is_waited_for = |it: &mut HashMap<Source, Fetch>| {
            sources.iter().any(|source| it.get(*source).is_some_and(|it| it.runs && it.outcome.is_none()))
        };
        drop(self.ended.wait_while(fetches, is_waited_for));
    }

    /// What is another text when there is another outcome. It begins what is due, and waits for nothing.
    pub(super) fn stamp(self: &Arc<Self>, source: &Source) -> String {
        let mut fetches = self.fetches();
        let fetch = fetches.entry(source.clone()).or_default();
        self.begin(source, fetch);
        format!("{} {}", fetch.files, fetch.changes)
    }

    /// Forgets what nobody names any more.
    pub(super) fn keep_only(&self, sources: &[Source]) {
        self.fetches().retain(|source, _| sources.contains(source));
    }

    fn fetches(&self) -> MutexGuard<'_, HashMap<Source, Fetch>> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>, source: &Source, fetch: &mut Fetch) {
        let files = files(source);
        let is_settled = matches!(fetch.outcome, Some(Ok(_))) && is_fixed(source);
        let is_due = fetch.begun.is_none_or(|begun| begun.elapsed() >= PERIOD && !is_settled);
        if fetch.runs || (!is_due && files == fetch.files) {
            return;
        }
        (fetch.begun, fetch.files) = (Some(Instant::now()), files);
        let (network, source) = (self.clone(), source.clone());
        let thread = thread::Builder::new().name("fetch".into());
        match thread.spawn(move || network.run(&source)) {
            Ok(_) => fetch.runs = true,
            Err(error) => tracing::warn!(%error, "a thread to fetch a module cannot be started"),
        }
    }

    /// Fetches, and keeps what that came to.
    fn run(&self, source: &Source) {
        // A panic is the outcome of this fetch, as that of a request is the request's.
        let fetched =
            catch_unwind(AssertUnwindSafe(|| self.get(source))).unwrap_or_else(|_| Err(anyhow!("the fetch died")));
        let outcome = match fetched {
            Ok(bytes) => {
                let digest = Digest::of(&bytes);
                let is_kept = self.cache.as_ref().is_some_and(|it| it.has(&digest));
                Ok(Module { digest, bytes: (!is_kept).then(|| Arc::new(bytes)) })
            }
            Err(error) => Err(format!("{error:#}")),
        };
        let mut fetches = self.fetches();
        // Where nobody names it any more, nothing is kept.
        let Some(fetch) = fetches.get_mut(source) else { return self.ended.notify_all() };
        let is_same = match (&fetch.outcome, &outcome) {
            (Some(Ok(old)), Ok(new)) => old.digest == new.digest,
            (Some(Err(old)), Err(new)) => old == new,
            _ => false,
        };
        if !is_same {
            fetch.changes += 1;
        }
        (fetch.outcome, fetch.runs) = (Some(outcome), false);
        self.ended.notify_all();
    }

    fn get(&self, source: &Source) -> Result<Vec<u8>> {
        match source {
            Source::Oci(it) => {
                let keys = keys(it)?;
                Ok(registry::pull(&it.reference, &self.access(it)?, &keys, self.cache.as_ref())?.bytes)
            }
            Source::Https(Https { url, digest, ca, timeout }) => {
                let ca = ca.as_deref().map(registry::read_small).transpose()?;
                registry::download(url, digest, ca.as_deref(), *timeout, self.cache.as_ref())
            }
            Source::File(_) | Source::ConfigMap(_) | Source::PolicyModule(_) => {
                Err(anyhow!("it is nothing that comes over a network"))
            }
        }
    }

    fn access(&self, oci: &Oci) -> Result<Access> {
        let credentials = match (&oci.pull_secret, &oci.docker_config) {
            (Some(name), _) => {
                let Cluster { client, runtime, namespace } = self
                    .cluster
                    .as_ref()
                    .context("pullSecret names a Secret, which takes `objects: {cluster: …}` and `pith serve`")?;
                let config = runtime.block_on(cluster::docker_config(client, namespace, name))?;
                DockerConfig::read(&config).with_context(|| format!("the Secret `{name}`"))?
            }
            (None, Some(path)) => {
                DockerConfig::read(&registry::read_small(path)?).with_context(|| format!("{}", path.display()))?
            }
            (None, None) => DockerConfig::default(),
        };
        let ca = oci.ca.as_deref().map(registry::read_small).transpose()?;
        let (mirrors, layout, timeout) = (oci.mirrors.clone(), oci.layout.clone(), oci.timeout);
        Ok(Access { credentials, ca, mirrors, layout, timeout })
    }
}

fn keys(oci: &Oci) -> Result<Vec<Key>> {
    let mut keys = oci.keys.clone();
    for path in &oci.key_files {
        keys.extend(registry::read_keys(path)?);
    }
    Ok(keys)
}

/// Whether what it names is the same for ever. A tag is not, and a folder has what somebody puts there.
fn is_fixed(source: &Source) -> bool {
    match source {
        Source::Oci(it) => it.reference.digest.is_some(),
        Source::File(_) | Source::ConfigMap(_) | Source::PolicyModule(_) | Source::Https(_) => true,
    }
}

/// What changes when one of the files does that a fetch reads.
fn files(source: &Source) -> String {
    let paths: Vec<&PathBuf> = match source {
        Source::Oci(it) => it.key_files.iter().chain(&it.docker_config).chain(&it.ca).collect(),
        Source::Https(it) => it.ca.iter().collect(),
        Source::File(_) | Source::ConfigMap(_) | Source::PolicyModule(_) => Vec::new(),
    };
    paths.into_iter().map(|it| stat(it)).collect::<Vec<_>>().join(" ")
}
