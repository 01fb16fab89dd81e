//! The last policies that could be used, in a folder: what a start has in force where it meets one that cannot be used.
//!
//! `policies.json` has the bindings, each with its module and its tests beside it, by digest. It is renamed into place once they are all there, and
//! modules that it does not name are removed behind it: whenever the process ends, it names what is there.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Loaded, Policies};
use crate::config::PolicyConfig;

const BINDINGS: &str = "policies.json";

/// The folder.
#[derive(Debug, Clone)]
pub struct Kept(PathBuf);

impl Kept {
    /// Opens the folder, which is made if it is missing, for this user alone: settings may say what is nobody's business.
    pub fn open(folder: PathBuf) -> Result<Kept> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.with_context(|| format!("making the folder {}", folder.display()))?;
        Ok(Kept(folder))
    }

    /// Keeps a module or its tests. Without it the next start may have to do without, which is no reason to do without now.
    pub(super) fn put(&self, file: &str, bytes: &[u8]) {
        let path = self.0.join(file);
        if !path.exists()
            && let Err(error) = write(&path, bytes)
        {
            complain(&path, &error);
        }
    }

    /// The module with a digest, if it is there and has no more bytes than these.
    pub(super) fn module(&self, digest: &str, most: usize) -> Option<Vec<u8>> {
        let path = self.0.join(of_module(digest));
        let fits = fs::metadata(&path).is_ok_and(|it| it.len() <= most as u64);
        fits.then(|| fs::read(&path).ok()).flatten()
    }

    /// Keeps these and nothing else.
    pub(super) fn write(&self, policies: &Policies) {
        let path = self.0.join(BINDINGS);
        let mut bindings: Vec<(&str, Value)> = Vec::with_capacity(policies.loaded.len());
        for (name, it) in &policies.loaded {
            // With what is kept in the place of its own.
            let mut binding = it.config.typed.clone();
            binding["module"] = json!({"file": of_module(it.module.digest())});
            binding["tests"] = json!(it.tests.as_deref().map(of_tests));
            bindings.push((name, json!({"binding": binding, "resource": it.config.resource})));
        }
        bindings.sort_by_key(|(name, _)| *name);
        let text = bindings.into_iter().map(|(_, binding)| binding).collect::<Value>().to_string();
        if fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
            return;
        }
        if let Err(error) = write(&path, text.as_bytes()) {
            return complain(&path, &error);
        }
        let files = |it: &Arc<Loaded>| [Some(of_module(it.module.digest())), it.tests.as_deref().map(of_tests)];
        let used = policies.loaded.values().flat_map(files).flatten();
        let used: BTreeSet<PathBuf> = used.map(|file| self.0.join(file)).collect();
        let there = fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in
            there.filter(|path| path.extension().is_some_and(|it| it == "wasm" || it == "yaml") && !used.contains(path))
        {
            if let Err(error) = fs::remove_file(&path) {
                complain(&path, &error);
            }
        }
    }

    /// What was kept; nothing where nothing can be read.
    pub(super) fn read(&self) -> Vec<PolicyConfig> {
        let path = self.0.join(BINDINGS);
        let read = || {
            let bindings: Vec<Value> = serde_json::from_slice(&fs::read(&path)?)?;
            let one = |mut it: Value| {
                let config = PolicyConfig::read(it["binding"].take(), &self.0)?;
                Ok(PolicyConfig { resource: serde_json::from_value(it["resource"].take())?, ..config })
            };
            bindings.into_iter().map(one).collect::<Result<Vec<_>>>()
        };
        read().unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), "no earlier policies can be read: {error:#}");
            Vec::new()
        })
    }
}

/// The file of a module.
pub(super) fn of_module(digest: &str) -> String {
    format!("{digest}.wasm")
}

/// The file of a binding's tests.
pub(super) fn of_tests(digest: &str) -> String {
    format!("{digest}.yaml")
}

/// Under another name first, so that no reader and no crash ever meets half a file.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file = fs::File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)
}

fn complain(path: &Path, error: &io::Error) {
    tracing::warn!(path = %path.display(), %error, "a policy that can be used is not kept for the next start");
}
