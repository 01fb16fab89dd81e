//! Where the client keeps its cache, beyond the one directory that every sidecar has: the JuiceFS driver's other kinds of volumes.

use serde_json::{Map, Value};

use super::{Origin, Settings, Sourced, option_value};
use crate::cache::CacheVolume;
use crate::policy::Cache;

/// A directory of the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheDirectory {
    /// Where the client has it.
    pub path: String,
    /// What lies there, as in `spec.volumes[]` without its name; nothing for a directory of the image.
    pub source: Option<Value>,
}

/// Comma-separated absolute paths.
pub(super) fn paths(text: &str) -> Result<impl Iterator<Item = String>, String> {
    let paths: Vec<String> = words(text).map(String::from).collect();
    if let Some(path) = paths.iter().find(|path| !path.starts_with('/') || path.contains(':')) {
        return Err(format!("`{path}` is no absolute path"));
    }
    Ok(paths.into_iter())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// Whether it can be the name of an object; what it is put into is JSON, so this is for the sentence.
fn is_name(text: &str) -> bool {
    let fits = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || matches!(it, '-' | '.');
    text.len() <= 253 && text.chars().all(fits)
}

impl Settings {
    /// `juicefs/mount-cache-pvc`: names of claims.
    pub(super) fn set_cache_claims(&mut self, text: &str, origin: &Origin) -> Result<(), String> {
        if let Some(name) = words(text).find(|name| !is_name(name)) {
            return Err(format!("`{name}` is no name of a claim"));
        }
        self.caches.retain(|it| !matches!(it.value, CacheVolume::Claim(_)));
        self.add_caches(words(text).map(|name| CacheVolume::Claim(name.into())), origin);
        Ok(())
    }

    /// `juicefs/mount-cache-inline-volume`: a JSON list of inline CSI volumes.
    pub(super) fn set_cache_inline(&mut self, text: &str, origin: &Origin) -> Result<(), String> {
        let items: Vec<Map<String, Value>> =
            serde_json::from_str(text).map_err(|error| format!("it is no JSON list of inline CSI volumes: {error}"))?;
        if items.iter().any(|item| !item.get("driver").is_some_and(Value::is_string)) {
            return Err("an inline CSI volume names its `driver`".into());
        }
        self.caches.retain(|it| !matches!(it.value, CacheVolume::Inline(_)));
        self.add_caches(items.into_iter().map(CacheVolume::Inline), origin);
        Ok(())
    }

    /// Adds directories; an emptyDir is the one that every sidecar has.
    pub(super) fn add_caches(&mut self, caches: impl Iterator<Item = CacheVolume>, origin: &Origin) {
        for value in caches {
            let origin = origin.clone();
            if let CacheVolume::EmptyDir { in_memory, size_limit } = value {
                self.cache = Sourced { value: Cache::EmptyDir { in_memory, size_limit }, origin };
            } else if self.caches.iter().all(|known| known.value != value) {
                self.caches.push(Sourced { value, origin });
            }
        }
    }

    /// Whether the emptyDir is one directory among others: a default gives way to what somebody asked for.
    pub(super) fn keeps_empty_dir(&self) -> bool {
        matches!(self.cache.value, Cache::EmptyDir { .. }) && self.cache.origin != Origin::Default
    }

    /// Every directory of the cache, where there is more than the one that every sidecar has; else none.
    ///
    /// In the order of the JuiceFS driver: claims, emptyDir, ephemeral claims, inline volumes, the option's own, folders of the node.
    pub fn cache_directories(&self) -> Vec<CacheDirectory> {
        if self.caches.is_empty() {
            return Vec::new();
        }
        let mut found: Vec<CacheDirectory> = Vec::new();
        let of = |keep: fn(&CacheVolume) -> bool| self.caches.iter().map(|it| &it.value).filter(move |it| keep(it));
        let mut add = |path: String, source: Option<Value>| {
            if found.iter().all(|known| known.path != path) {
                found.push(CacheDirectory { path, source });
            }
        };
        for (index, cache) in of(|it| matches!(it, CacheVolume::Claim(_))).enumerate() {
            add(format!("/var/jfsCache-{index}"), Some(cache.source()));
        }
        if let Some(cache) = CacheVolume::of(&self.cache.value).filter(|_| self.keeps_empty_dir()) {
            add("/var/jfsCache-emptyDir".into(), Some(cache.source()));
        }
        for (index, cache) in of(|it| matches!(it, CacheVolume::Ephemeral { .. })).enumerate() {
            add(format!("/var/jfsCache-ephemeral-{index}"), Some(cache.source()));
        }
        for (index, cache) in of(|it| matches!(it, CacheVolume::Inline(_))).enumerate() {
            add(format!("/var/jfsCache-inlineVolume-{index}"), Some(cache.source()));
        }
        let of_option = option_value(self, "cache-dir").into_iter().flat_map(|dirs| dirs.split(':'));
        for path in of_option.filter(|path| !path.is_empty()) {
            add(path.into(), None);
        }
        for cache in of(|it| matches!(it, CacheVolume::HostPath(_))) {
            if let CacheVolume::HostPath(path) = cache {
                add(path.clone(), Some(cache.source()));
            }
        }
        found
    }
}
