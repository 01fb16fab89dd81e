//! Policy modules in OCI registries, and at HTTPS addresses.
//!
//! What comes from a network is what its digest says, or what somebody signed whose key the binding has: everything else about the server is
//! not trusted. All of it is bounded, by bytes and by one time for the whole of a fetch, so that a server costs the load of one policy and
//! nothing else. The calls block, on threads that load policies.
//!
//! ```text
//!   reference ─ mirrors, registry or folder ─ manifest ─ digest? signature? ─ module ─ digest? ─ bytes
//!                     (Store)                    │ pure: manifest, signature │
//! ```

mod reference;
mod manifest;
mod signature;
mod credentials;
mod http;
mod remote;
mod layout;
mod cache;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use pith_core::text::clean;
use serde::de::DeserializeOwned;
use ureq::http::header::HeaderMap;
use ureq::http::{Method, StatusCode};

use crate::wasm::LARGEST_MODULE_BYTES;
use http::Http;
use layout::Layout;
use remote::Remote;

pub use cache::{Cache, LARGEST_CACHE};
pub use credentials::{Challenge, DockerConfig};
pub use http::Unavailable;
pub use manifest::{Descriptor, Manifest, read_index};
pub use reference::{Digest, Reference, SCHEME};
pub use signature::{Key, check_bundle, check_simple};
pub use ureq::http::Uri;

/// The largest manifest: what the OCI distribution specification asks registries to take at least.
const LARGEST_MANIFEST: u64 = 4 << 20;
/// The largest file of keys, certificates or credentials.
const LARGEST_FILE: u64 = 1 << 20;
/// The largest part of a signature.
const LARGEST_SIGNATURE: u64 = 1 << 20;
/// How much is repeated of what somebody else wrote, where that is wrong.
const WRONG: usize = 100;
/// The most signatures of one artifact that are looked at.
const MOST_SIGNATURES: usize = 32;
/// The most different reasons that are said of signatures that do not fit.
const MOST_REFUSALS: usize = 3;

/// What artifacts are fetched with.
#[derive(Debug, Clone)]
pub struct Access {
    /// Who is asking.
    pub credentials: DockerConfig,
    /// The authorities of the servers' certificates, PEM; Mozilla's list where there are none.
    pub ca: Option<Vec<u8>>,
    /// Who is asked before the registry, in this order.
    pub mirrors: Vec<Mirror>,
    /// A folder in the place of registry and mirrors.
    pub layout: Option<PathBuf>,
    /// The most that a whole fetch may take, from each of those who are asked.
    pub timeout: Duration,
}

/// A registry that has what another one has, perhaps under a name before the repository's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mirror {
    registry: String,
    prefix: Option<String>,
}

impl FromStr for Mirror {
    type Err = Error;

    fn from_str(text: &str) -> Result<Mirror> {
        let (registry, prefix) = match text.split_once('/') {
            Some((registry, prefix)) => (registry, Some(prefix)),
            None => (text, None),
        };
        let checked =
            reference::check_registry(registry).and_then(|()| prefix.map_or(Ok(()), reference::check_repository));
        checked.with_context(|| format!("`{text}` is no mirror"))?;
        Ok(Mirror { registry: registry.to_ascii_lowercase(), prefix: prefix.map(String::from) })
    }
}

impl Mirror {
    fn of(&self, reference: &Reference) -> Reference {
        let repository = match &self.prefix {
            Some(prefix) => format!("{prefix}/{}", reference.repository),
            None => reference.repository.clone(),
        };
        Reference { registry: self.registry.clone(), repository, ..reference.clone() }
    }
}

/// Reads a file that is part of how registries are asked: keys, certificates, credentials.
pub fn read_small(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|it| it.take(LARGEST_FILE + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("reading {}", path.display()))?;
    ensure!(bytes.len() as u64 <= LARGEST_FILE, "{} has more than {LARGEST_FILE} bytes", path.display());
    Ok(bytes)
}

/// Reads the public keys in a file.
pub fn read_keys(path: &Path) -> Result<Vec<Key>> {
    let bytes = read_small(path)?;
    let keys = std::str::from_utf8(&bytes).context("it is no text").and_then(Key::read_all);
    keys.with_context(|| format!("the key {}", path.display()))
}

/// What was found under a reference, before its module is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The digest of its manifest, by which a reference pins it.
    pub manifest: Digest,
    /// The module.
    pub module: Descriptor,
}

/// A module from a registry.
#[derive(Debug)]
pub struct Pulled {
    /// The digest of its manifest, by which a reference pins it.
    pub manifest: Digest,
    /// The module's bytes.
    pub bytes: Vec<u8>,
}

/// Reads JSON that somebody else wrote. What is wrong with it quotes it.
fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| anyhow!(clean(&error.to_string(), 2 * WRONG)))
}

/// A few words of somebody else.
fn quoted(text: &str) -> String {
    clean(text, WRONG)
}

/// Who has artifacts.
trait Store: Debug {
    /// The bytes of a manifest by its tag or digest, if it is there. They are what was asked for only where somebody looks.
    fn manifest(&self, name: &str) -> Result<Option<Vec<u8>>>;
    /// The bytes of something else, no more than it is said to have.
    fn blob(&self, of: &Descriptor) -> Result<Vec<u8>>;
    /// What refers to a manifest.
    fn referrers(&self, of: &Digest) -> Result<Vec<Descriptor>>;
}

/// The tag under which clients keep a list of what refers to a manifest.
fn fallback_tag(of: &Digest) -> String {
    format!("sha256-{}", of.hex())
}

/// The tag of signatures in cosign's older form.
fn signature_tag(of: &Digest) -> String {
    format!("sha256-{}.sig", of.hex())
}

/// Fetches a module. Where there are keys, it is signed with one of them. What is in the cache is not fetched, and everything about it is
/// checked all the same.
pub fn pull(reference: &Reference, access: &Access, keys: &[Key], cache: Option<&Cache>) -> Result<Pulled> {
    from_any(reference, access, |store, name| {
        let found = find(store, name, keys, cache)?;
        let bytes = part(store, &found.module, LARGEST_MODULE_BYTES as u64, cache).context("its module")?;
        Ok(Pulled { manifest: found.manifest, bytes })
    })
}

/// Copies an artifact and its signatures into a folder, an OCI layout. Signatures are copied as they are; where there are keys, one of
/// them has to be with one of these.
pub fn copy(reference: &Reference, access: &Access, keys: &[Key], folder: &Path) -> Result<Digest> {
    from_any(reference, access, |store, name| {
        let Found { manifest, .. } = find(store, name, keys, None)?;
        let layout = Layout::make(folder)?;
        let tag = reference.tag.clone().unwrap_or_else(|| manifest.to_string());
        copy_manifest(store, &layout, &manifest.to_string(), Some(&tag))?;
        copy_manifest(store, &layout, &signature_tag(&manifest), Some(&signature_tag(&manifest)))?;
        // Anybody who can push can add more of them: one that cannot be read is left out.
        let mut bundles = Vec::new();
        for it in store.referrers(&manifest)?.into_iter().filter(is_bundle).take(MOST_SIGNATURES) {
            match copy_manifest(store, &layout, &it.digest.to_string(), None) {
                Ok(()) => bundles.push(it),
                Err(error) if is_unavailable(&error) => return Err(error),
                Err(_) => {}
            }
        }
        if !bundles.is_empty() {
            layout.put_manifest(&fallback_tag(&manifest), &manifest::index(&bundles))?;
        }
        Ok(manifest)
    })
}

/// A manifest with its parts, if it is there.
fn copy_manifest(store: &dyn Store, layout: &Layout, name: &str, tag: Option<&str>) -> Result<()> {
    let Some((_, bytes)) = manifest_of(store, name, None)? else { return Ok(()) };
    for it in Manifest::read(&bytes)?.parts() {
        layout.put_blob(&part(store, it, LARGEST_MODULE_BYTES as u64, None)?)?;
    }
    match tag {
        Some(tag) => layout.put_manifest(tag, &bytes),
        None => layout.put_blob(&bytes).map(|_| ()),
    }
}

/// Puts a module into a registry, as a Wasm OCI artifact, and says the digest of its manifest.
pub fn push(reference: &Reference, access: &Access, module: &[u8], is_component: bool) -> Result<Digest> {
    let artifact = manifest::artifact(module, is_component)?;
    let digest = Digest::of(&artifact.manifest);
    if let Some(expected) = reference.digest {
        ensure!(expected == digest, "{reference} would be {digest}: leave its digest out");
    }
    let until = Instant::now() + access.timeout;
    let remote = Remote::new(reference, &access.credentials, access.ca.as_deref(), until, "pull,push")?;
    let put = || {
        remote.put_blob(&artifact.of_config, &artifact.config)?;
        remote.put_blob(&artifact.of_module, module)?;
        remote.put_manifest(&reference.name(), &artifact.manifest)
    };
    put().with_context(|| format!("pushing to {reference}"))?;
    Ok(digest)
}

/// Fetches a module from an address, which is the one that this digest names.
pub fn download(
    url: &Uri,
    digest: &Digest,
    ca: Option<&[u8]>,
    timeout: Duration,
    cache: Option<&Cache>,
) -> Result<Vec<u8>> {
    if let Some(bytes) = cache.and_then(|it| it.get(digest)) {
        return Ok(bytes);
    }
    let host = http::host(url);
    let fetch = || {
        let http = Http::new(&host, ca, Instant::now() + timeout)?;
        let answer = http.ask(&Method::GET, url, &HeaderMap::new(), None)?;
        ensure!(answer.status() == StatusCode::OK, "it answers {}", answer.status());
        let bytes = Http::body(answer, LARGEST_MODULE_BYTES as u64)?;
        let is = Digest::of(&bytes);
        ensure!(is == *digest, "what it has is {is}, where {digest} is asked for");
        Ok(bytes)
    };
    let bytes = fetch().with_context(|| format!("fetching a module from {host}"))?;
    if let Some(cache) = cache {
        cache.put(digest, &bytes);
    }
    Ok(bytes)
}

/// Does something with the first of those who have the artifact as it is to be. Who has it otherwise, or not, is as if it were not there.
fn from_any<T>(reference: &Reference, access: &Access, act: impl Fn(&dyn Store, &str) -> Result<T>) -> Result<T> {
    let name = reference.name();
    if let Some(folder) = &access.layout {
        let layout = Layout::open(folder)?;
        return act(&layout, &name).with_context(|| format!("{reference} from {}", folder.display()));
    }
    let mut problems = Vec::new();
    for place in access.mirrors.iter().map(|it| it.of(reference)).chain([reference.clone()]) {
        let until = Instant::now() + access.timeout;
        let remote = Remote::new(&place, &access.credentials, access.ca.as_deref(), until, "pull");
        match remote.and_then(|remote| act(&remote, &name)).with_context(|| format!("fetching {place}")) {
            Ok(it) => return Ok(it),
            Err(error) => problems.push(error),
        }
    }
    let last = problems.pop().context("there is the registry itself")?;
    match problems.is_empty() {
        true => Err(last),
        // The registry's own words last: it is the one that is asked for, and `Unavailable` in them counts.
        false => Err(last.context(problems.iter().map(|it| format!("{it:#}")).collect::<Vec<_>>().join("; "))),
    }
}

/// The manifest under a name, checked, and its signature where there are keys.
fn find(store: &dyn Store, name: &str, keys: &[Key], cache: Option<&Cache>) -> Result<Found> {
    let (digest, bytes) = manifest_of(store, name, cache)?.ok_or_else(|| anyhow!("there is no `{name}` in it"))?;
    let manifest = Manifest::read(&bytes).context("its manifest")?;
    let module = manifest.module()?.clone();
    if !keys.is_empty() {
        check_signatures(store, &digest, keys).context("its signature")?;
    }
    if let Some(cache) = cache {
        cache.put(&digest, &bytes);
    }
    Ok(Found { manifest: digest, module })
}

/// A manifest with its digest, which is the one that was asked for.
fn manifest_of(store: &dyn Store, name: &str, cache: Option<&Cache>) -> Result<Option<(Digest, Vec<u8>)>> {
    let Ok(digest) = name.parse::<Digest>() else {
        return Ok(store.manifest(name)?.map(|bytes| (Digest::of(&bytes), bytes)));
    };
    if let Some(bytes) = cache.and_then(|it| it.get(&digest)) {
        return Ok(Some((digest, bytes)));
    }
    let Some(bytes) = store.manifest(name)? else { return Ok(None) };
    let is = Digest::of(&bytes);
    ensure!(is == digest, "what it has under {digest} is {is}");
    Ok(Some((digest, bytes)))
}

/// Something else that was described, which is what was described.
fn part(store: &dyn Store, of: &Descriptor, most: u64, cache: Option<&Cache>) -> Result<Vec<u8>> {
    ensure!(of.size <= most, "{} is said to have {} bytes: at most {most}", of.digest, of.size);
    if let Some(bytes) = cache.and_then(|it| it.get(&of.digest)) {
        return Ok(bytes);
    }
    let bytes = store.blob(of)?;
    ensure!(
        bytes.len() as u64 == of.size,
        "{} has {} bytes, where its manifest says {}",
        of.digest,
        bytes.len(),
        of.size
    );
    let is = Digest::of(&bytes);
    ensure!(is == of.digest, "what it has under {} is {is}", of.digest);
    if let Some(cache) = cache {
        cache.put(&is, &bytes);
    }
    Ok(bytes)
}

/// That one of the signatures is with one of the keys. Anybody who can push can add signatures, so one that does not fit is no harm, and
/// the same goes for one that cannot be read.
fn check_signatures(store: &dyn Store, of: &Digest, keys: &[Key]) -> Result<()> {
    let mut refusals: Vec<Error> = Vec::new();
    let bundles = store.referrers(of)?.into_iter().filter(is_bundle);
    for bundle in bundles.take(MOST_SIGNATURES) {
        match check_referrer(store, &bundle, keys, of) {
            Ok(()) => return Ok(()),
            Err(refusal) => refusals.push(refusal),
        }
    }
    if let Some(bytes) = store.manifest(&signature_tag(of))? {
        let layers = Manifest::read(&bytes).context("the list of signatures")?.layers;
        let simple = layers.iter().filter(|it| it.media_type == signature::SIMPLE);
        for layer in simple.take(MOST_SIGNATURES) {
            let check = || {
                let signature = layer.annotations.get(signature::SIGNATURE).context("it has no signature beside it")?;
                check_simple(&part(store, layer, LARGEST_SIGNATURE, None)?, signature, keys, of)
            };
            match check() {
                Ok(()) => return Ok(()),
                Err(refusal) => refusals.push(refusal),
            }
        }
    }
    ensure!(!refusals.is_empty(), "{of} is not signed, and the binding has keys");
    // A server that does not answer is another matter than one that has nothing to show.
    if let Some(at) = refusals.iter().position(is_unavailable) {
        return Err(refusals.swap_remove(at));
    }
    let words: BTreeSet<String> = refusals.iter().map(|it| format!("{it:#}")).collect();
    let words: Vec<String> = words.into_iter().take(MOST_REFUSALS).collect();
    bail!("none of its {} signatures is by a key of the binding: {}", refusals.len(), words.join("; "))
}

fn is_unavailable(error: &Error) -> bool {
    error.chain().any(|it| it.is::<Unavailable>())
}

/// A list that was made from manifests without saying what they are has all of them looked at.
fn is_bundle(it: &Descriptor) -> bool {
    it.artifact_type.as_deref().is_none_or(|kind| kind.starts_with(signature::BUNDLE_KIND))
}

fn check_referrer(store: &dyn Store, bundle: &Descriptor, keys: &[Key], of: &Digest) -> Result<()> {
    let name = bundle.digest.to_string();
    let (_, bytes) = manifest_of(store, &name, None)?.with_context(|| format!("{name} is not there"))?;
    let layers = Manifest::read(&bytes)?.layers;
    let layer =
        layers.iter().find(|it| it.media_type.starts_with(signature::BUNDLE_KIND)).context("it has no bundle")?;
    check_bundle(&part(store, layer, LARGEST_SIGNATURE, None)?, keys, of)
}
