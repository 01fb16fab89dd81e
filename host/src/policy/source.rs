//! From where a module comes to its bytes.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::network::{Cluster, Network};
use super::{Resources, cases};
use crate::config::Source;
use crate::registry::Cache;
use crate::seen::stat;
use crate::wasm::LARGEST_MODULE_BYTES;
use anyhow::{Context, Result, bail, ensure};

/// What modules are read from. Reading waits for a disk at the most: it is done on threads that load policies.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    resources: Option<Arc<Resources>>,
    network: Arc<Network>,
}

impl Sources {
    /// What comes over a network is kept in this cache, and pull Secrets are read from this cluster; where there are PolicyBindings,
    /// modules are in the ConfigMaps beside them too.
    pub fn new(cache: Option<Cache>, cluster: Option<Cluster>, resources: Option<Arc<Resources>>) -> Sources {
        Sources { resources, network: Arc::new(Network::new(cache, cluster)) }
    }

    /// The PolicyBindings; none outside of a cluster.
    pub(super) fn resources(&self) -> Option<&Arc<Resources>> {
        self.resources.as_ref()
    }

    /// Fetches what comes over a network and is not there yet, and waits for it.
    pub(super) fn fetch<'a>(&self, sources: impl Iterator<Item = &'a Source>) {
        self.network.fetch(sources.filter(|it| matches!(it, Source::Oci(_) | Source::Https(_))));
    }

    /// Forgets what is not among these.
    pub(super) fn keep_only(&self, sources: &[Source]) {
        self.network.keep_only(sources);
    }

    /// Reads a module's bytes.
    pub(super) fn read(&self, source: &Source) -> Result<Vec<u8>> {
        match source {
            Source::File(path) => read_module(path),
            Source::ConfigMap(key) => match &self.resources {
                Some(resources) => resources.content(key),
                None => bail!(
                    "its module is in the ConfigMap `{}`, which is found only where policyBindings says in which namespace",
                    key.name
                ),
            },
            Source::PolicyModule(of) => match &self.resources {
                Some(resources) => resources.module(of),
                None => bail!("its module is kept by a cluster, and there is none"),
            },
            Source::Oci(_) | Source::Https(_) => self.network.read(source),
        }
    }

    /// Reads the tests of a binding.
    pub(super) fn tests(&self, source: &Source) -> Result<Vec<u8>> {
        match source {
            Source::File(path) => cases::read(path),
            source => self.read(source).context("reading its tests"),
        }
    }

    /// What is another text when the module may be another one. It asks nobody and waits for nothing.
    pub(super) fn stamp(&self, source: &Source) -> String {
        match source {
            Source::File(path) => stat(path),
            Source::ConfigMap(key) => self.resources.as_ref().map(|it| it.version(&key.name)).unwrap_or_default(),
            // It is read once, where nothing else can be.
            Source::PolicyModule(_) => String::new(),
            Source::Oci(_) | Source::Https(_) => self.network.stamp(source),
        }
    }
}

/// Reads the bytes of a module in a file.
pub fn read_module(path: &Path) -> Result<Vec<u8>> {
    let size = fs::metadata(path).with_context(|| format!("reading the module {}", path.display()))?.len();
    // Before it is in memory; the engine would refuse it too.
    let most = LARGEST_MODULE_BYTES;
    ensure!(size <= most as u64, "the module {} has {size} bytes: at most {most}", path.display());
    fs::read(path).with_context(|| format!("reading the module {}", path.display()))
}
