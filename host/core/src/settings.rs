//! What one volume's sidecar looks like: defaults ⊕ StorageClass ⊕ PersistentVolume ⊕ claim ⊕ mountPodPatch ⊕ file system ⊕
//! policies, then ceilings.
//!
//! Every value carries the layer that it came from, for `--explain` and for error sentences. Keys are those of the JuiceFS CSI
//! driver; a `juicefs/…` key that has no effect here is reported, never ignored in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use pith_proto::quantity::Quantity;
use serde_json::Value;

use crate::cache::CacheVolume;
use crate::mount_pod_patch::MountPodPatch;
use crate::object::{AmountByName, Claim, Entries, FileSystemFacts, PersistentVolume, SecretRef, StorageClass};
use crate::pod::Pod;
use crate::policy::{Cache, Change, Failure, OptionChange, SidecarFacts};
use crate::reason::Refusal;
use crate::secret_key;
use crate::shape::Shape;

mod cache;
mod patched;
mod templates;

pub use cache::CacheDirectory;

use templates::Templates;

/// What the administrator configured about sidecars.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// The CSI driver whose volumes are Pith's.
    pub driver: String,
    /// The image of the JuiceFS client.
    pub image: String,
    /// That of the Enterprise Edition's client.
    pub enterprise_image: String,
    /// How pods on nodes get their clients; as the cluster can where this is absent.
    pub shape: Option<Shape>,
    /// Whether the controller tells pods that their application has ended, where a client would keep them from completing.
    pub complete_jobs: bool,
    /// The image of the guard, which unmounts what clients leave behind.
    pub guard_image: String,
    /// Requests where nothing else says so.
    pub requests: AmountByName,
    /// Limits where nothing else says so.
    pub limits: AmountByName,
    /// The cache where nothing else says so.
    pub cache: Cache,
    /// The most that any request or limit may be, by resource name. With a ceiling, no resource that containers share is
    /// unlimited; devices and huge pages, which a container has only if it asks, are not given out by one.
    pub ceilings: AmountByName,
    /// Which `juicefs/…` annotations of a claim count.
    pub claim_overrides: BTreeSet<String>,
    /// What is known of file systems, found by the Secret that a class or volume names.
    pub file_systems: Vec<FileSystem>,
    /// `mountPodPatch` of the JuiceFS CSI driver, in order.
    pub patches: Vec<MountPodPatch>,
    /// Whether a template whose value is not known refuses the pod, in them or in mount options. Else it is empty.
    pub strict_templates: bool,
}

/// A file system that the administrator configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Its name in messages.
    pub name: String,
    /// The Secret that classes and volumes name.
    pub secret: SecretRef,
    /// The image for its sidecars.
    pub image: Option<String>,
    /// Client options for its sidecars.
    pub mount_options: Vec<String>,
    /// Requests for its sidecars.
    pub requests: AmountByName,
    /// Limits for its sidecars.
    pub limits: AmountByName,
}

/// The layer that a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The configuration's defaults.
    Default,
    /// A StorageClass.
    StorageClass(String),
    /// A PersistentVolume.
    PersistentVolume(String),
    /// A claim.
    Claim(String),
    /// An item of `mountPodPatch`, by its place.
    MountPodPatch(usize),
    /// The pod: how it uses the claim.
    Pod,
    /// The configuration of a file system.
    FileSystem(String),
    /// A policy, by its binding.
    Policy(String),
    /// A ceiling: what it cut, and where that came from.
    Ceiling {
        /// The value before; absent for "unlimited".
        was: Option<String>,
        /// Where it came from.
        from: Box<Origin>,
    },
    /// An amount cut to the limit of the same resource.
    Limit {
        /// The amount before.
        was: String,
        /// Where it came from.
        from: Box<Origin>,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::StorageClass(name) => write!(f, "StorageClass {name}"),
            Origin::PersistentVolume(name) => write!(f, "PersistentVolume {name}"),
            Origin::Claim(name) => write!(f, "claim {name}"),
            Origin::MountPodPatch(index) => write!(f, "mountPodPatch[{index}]"),
            Origin::Pod => f.write_str("pod"),
            Origin::FileSystem(name) => write!(f, "file system {name}"),
            Origin::Policy(name) => write!(f, "policy {name}"),
            Origin::Ceiling { was: Some(was), from } => write!(f, "ceiling (was {was}, {from})"),
            Origin::Ceiling { was: None, .. } => f.write_str("ceiling (was unlimited)"),
            Origin::Limit { was, from } => write!(f, "its limit (was {was}, {from})"),
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// The layer that set it.
    pub origin: Origin,
}

/// The sidecar of one volume, before it is written as a container.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What is known of its file system.
    pub file_system: Option<Arc<FileSystemFacts>>,
    /// The client's image.
    pub image: Sourced<String>,
    /// By resource name.
    pub requests: BTreeMap<String, Sourced<Quantity>>,
    /// By resource name; a resource that is absent is unlimited.
    pub limits: BTreeMap<String, Sourced<Quantity>>,
    /// Client options in the order in which they were first set; each name once.
    pub mount_options: Vec<(String, Sourced<Option<String>>)>,
    /// Environment that is not secret.
    pub env: BTreeMap<String, Sourced<String>>,
    /// Environment in the words of Kubernetes, by name: from an administrator, and unknown to policies.
    pub env_sources: BTreeMap<String, Sourced<Value>>,
    /// The cache.
    pub cache: Sourced<Cache>,
    /// Further directories of the cache.
    pub caches: Vec<Sourced<CacheVolume>>,
    /// Folders of the node, at the same place in the container.
    pub host_paths: Vec<Sourced<String>>,
    /// `imagePullPolicy`.
    pub image_pull_policy: Option<Sourced<String>>,
    /// Probes and the like: fields of the container, by name.
    pub fields: BTreeMap<String, Sourced<Value>>,
    /// Further volumes.
    pub volumes: Vec<Sourced<ExtraVolume>>,
    /// What is to be said in an event on the pod: who made it by way of a workload sees no warning.
    pub notes: Vec<String>,
}

/// A volume of an administrator's, and where the client has it.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtraVolume {
    /// The volume; its name is the administrator's.
    pub volume: Value,
    /// Its `volumeMounts`.
    pub mounts: Vec<Value>,
    /// Its `volumeDevices`.
    pub devices: Vec<Value>,
}

/// The objects that one volume's settings come from.
#[derive(Debug, Clone, Copy)]
pub struct Layers<'a> {
    /// The claim.
    pub claim: &'a Claim,
    /// Its class, where it has one that is known.
    pub storage_class: Option<&'a StorageClass>,
    /// Its volume, once bound.
    pub persistent_volume: Option<&'a PersistentVolume>,
    /// What is known of their file system.
    pub file_system: Option<&'a Arc<FileSystemFacts>>,
    /// The pod that it is for.
    pub usage: Usage<'a>,
}

/// How a pod uses a claim.
#[derive(Debug, Clone, Copy)]
pub struct Usage<'a> {
    /// The pod.
    pub pod: Pod<'a>,
    /// Its volumes that name the claim, with their `readOnly`; there is at least one.
    pub volumes: &'a [(&'a str, bool)],
}

/// Options of the kernel's mount, passed with `-o`. The list is closed: what is not in it is a flag of the client, which
/// names a flag that it does not know.
const FUSE_OPTIONS: [&str; 24] = [
    "allow_other",
    "allow_root",
    "async",
    "atime",
    "default_permissions",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "fsname",
    "max_read",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nonempty",
    "norelatime",
    "nosuid",
    "relatime",
    "strictatime",
    "subtype",
    "suid",
    "sync",
    "writeback_cache",
];

/// Options that Pith sets itself, so that no policy may: where the mount lies and whether the client stays in front.
const RESERVED_OPTIONS: [&str; 5] = ["subdir", "background", "d", "foreground", "o"];

/// Options that mount(8) knows, or that put the client in the background: they mean nothing in a sidecar.
const MEANINGLESS_OPTIONS: [&str; 7] = ["_netdev", "rw", "defaults", "remount", "foreground", "background", "d"];

/// Second names that mount(8) has for options of the client. An option is kept under one name: under two, it would stand in
/// argv twice, and which layer wins would depend on the order there.
const OPTION_ALIASES: [(&str, &str); 4] = [
    ("ro", READ_ONLY),
    ("attrcacheto", "attr-cache"),
    ("entrycacheto", "entry-cache"),
    ("direntrycacheto", "dir-entry-cache"),
];

const READ_ONLY: &str = "read-only";
const IMAGE_KEY: &str = "juicefs/mount-image";
const CACHE_EMPTY_DIR_KEY: &str = "juicefs/mount-cache-emptydir";
const CACHE_CLAIM_KEY: &str = "juicefs/mount-cache-pvc";
const CACHE_INLINE_KEY: &str = "juicefs/mount-cache-inline-volume";
const HOST_PATH_KEY: &str = "juicefs/host-path";
const MOUNT_OPTIONS_KEY: &str = "mountOptions";
/// The JuiceFS CSI driver writes it into each volume that it makes, for its own node part.
const BOOKKEEPING_KEY: &str = "juicefs/controller-quota-set";

/// The four keys of resources: key, resource name, whether it is a limit.
const RESOURCE_KEYS: [(&str, &str, bool); 4] = [
    ("juicefs/mount-cpu-request", "cpu", false),
    ("juicefs/mount-cpu-limit", "cpu", true),
    ("juicefs/mount-memory-request", "memory", false),
    ("juicefs/mount-memory-limit", "memory", true),
];

/// The claim annotations that count unless the administrator says otherwise: those that cannot widen what a user may do.
pub fn default_claim_overrides() -> BTreeSet<String> {
    RESOURCE_KEYS.iter().map(|(key, ..)| (*key).to_string()).collect()
}

/// Resolves every layer below the policies. What has no effect is told in `warnings`.
pub fn resolve(
    configuration: &Configuration,
    layers: &Layers<'_>,
    read_only: bool,
    warnings: &mut Vec<String>,
) -> Result<Settings, Refusal> {
    let mut settings = Settings::defaults(configuration, layers.file_system.cloned());
    let templates = Templates::new(configuration, layers.claim);
    if let Some(class) = layers.storage_class {
        let origin = Origin::StorageClass(class.name.clone());
        settings.set_filled_options(&class.mount_options, &templates, &origin)?;
        settings.apply_parameters(&class.parameters, &templates, &origin, warnings)?;
    }
    if let Some(volume) = layers.persistent_volume {
        let origin = Origin::PersistentVolume(volume.name.clone());
        settings.set_filled_options(&volume.mount_options, &templates, &origin)?;
        settings.apply_parameters(&volume.volume_attributes, &templates, &origin, warnings)?;
    }
    warnings.extend(settings.notes.iter().cloned());
    settings.apply_annotations(layers.claim, &configuration.claim_overrides, warnings)?;
    settings.apply_patches(configuration, layers, warnings)?;
    if let Some(file_system) = file_system(configuration, layers) {
        settings.apply_file_system(file_system)?;
    }
    if read_only {
        settings.set_option(READ_ONLY, None, &Origin::Pod);
    }
    Ok(settings)
}

/// The Secret of a claim's file system: the one that its volume names, else the one of its class.
pub(crate) fn secret<'a>(
    persistent_volume: Option<&'a PersistentVolume>,
    storage_class: Option<&'a StorageClass>,
) -> Option<&'a SecretRef> {
    let of_volume = persistent_volume.and_then(|volume| volume.secret.as_ref());
    of_volume.or_else(|| storage_class.and_then(|class| class.secret.as_ref()))
}

fn file_system<'a>(configuration: &'a Configuration, layers: &Layers<'_>) -> Option<&'a FileSystem> {
    let secret = secret(layers.persistent_volume, layers.storage_class)?;
    configuration.file_systems.iter().find(|file_system| file_system.secret == *secret)
}

impl Settings {
    fn defaults(configuration: &Configuration, file_system: Option<Arc<FileSystemFacts>>) -> Settings {
        let image = match &file_system {
            Some(facts) if facts.enterprise => &configuration.enterprise_image,
            _ => &configuration.image,
        };
        let sourced = |amounts: &BTreeMap<String, Quantity>| {
            let amounts = amounts.iter();
            amounts.map(|(name, amount)| (name.clone(), Sourced { value: *amount, origin: Origin::Default })).collect()
        };
        Settings {
            image: Sourced { value: image.clone(), origin: Origin::Default },
            file_system,
            requests: sourced(&configuration.requests),
            limits: sourced(&configuration.limits),
            mount_options: Vec::new(),
            env: BTreeMap::new(),
            env_sources: BTreeMap::new(),
            // The loader of the configuration has refused a size that is none; what it passed on is kept as it is.
            cache: Sourced {
                value: canonical_cache(&configuration.cache).unwrap_or_else(|_| configuration.cache.clone()),
                origin: Origin::Default,
            },
            caches: Vec::new(),
            host_paths: Vec::new(),
            image_pull_policy: None,
            fields: BTreeMap::new(),
            volumes: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// StorageClass parameters or volume attributes.
    fn apply_parameters(
        &mut self,
        entries: &Entries,
        templates: &Templates<'_>,
        origin: &Origin,
        warnings: &mut Vec<String>,
    ) -> Result<(), Refusal> {
        for (key, value) in entries {
            if key == MOUNT_OPTIONS_KEY {
                self.set_filled_options(std::slice::from_ref(value), templates, origin)?;
            } else if key != BOOKKEEPING_KEY && !self.apply_key(key, value, origin)? && key.starts_with("juicefs/") {
                warnings.push(format!("{origin} sets {key}, which Pith does not support: it has no effect"));
            }
        }
        Ok(())
    }

    fn apply_annotations(
        &mut self,
        claim: &Claim,
        overrides: &BTreeSet<String>,
        warnings: &mut Vec<String>,
    ) -> Result<(), Refusal> {
        let origin = Origin::Claim(claim.name.clone());
        for (key, value) in claim.annotations.iter().filter(|(key, _)| key.starts_with("juicefs/")) {
            if !overrides.contains(key) {
                warnings.push(format!(
                    "{origin} has the annotation {key}, which claims may not set here: it has no effect"
                ));
            } else if !self.apply_key(key, value, &origin)? {
                warnings
                    .push(format!("{origin} has the annotation {key}, which Pith does not support: it has no effect"));
            }
        }
        Ok(())
    }

    fn apply_file_system(&mut self, file_system: &FileSystem) -> Result<(), Refusal> {
        let origin = Origin::FileSystem(file_system.name.clone());
        if let Some(image) = &file_system.image {
            self.image = Sourced { value: image.clone(), origin: origin.clone() };
        }
        self.set_options(file_system.mount_options.iter().map(String::as_str), &origin)?;
        for (own, of_file_system) in
            [(&mut self.requests, &file_system.requests), (&mut self.limits, &file_system.limits)]
        {
            for (name, amount) in of_file_system {
                own.insert(name.clone(), Sourced { value: *amount, origin: origin.clone() });
            }
        }
        Ok(())
    }

    /// One key of the JuiceFS driver. The answer is whether the key means something.
    fn apply_key(&mut self, key: &str, value: &str, origin: &Origin) -> Result<bool, Refusal> {
        let refuse =
            |why: String| Refusal::Setting { origin: origin.to_string(), field: key.into(), value: value.into(), why };
        if let Some((_, resource, is_limit)) = RESOURCE_KEYS.iter().find(|(name, ..)| *name == key) {
            let amount = Quantity::from_str(value).map_err(|error| refuse(error.to_string()))?;
            let amounts = if *is_limit { &mut self.limits } else { &mut self.requests };
            // As with the JuiceFS driver: a limit of nothing or less lifts the limit, a negative request withdraws it.
            if amount.is_negative() || (*is_limit && amount.is_zero()) {
                amounts.remove(*resource);
            } else {
                amounts.insert((*resource).into(), Sourced { value: amount, origin: origin.clone() });
            }
            return Ok(true);
        }
        match key {
            IMAGE_KEY => self.image = Sourced { value: value.into(), origin: origin.clone() },
            CACHE_EMPTY_DIR_KEY => {
                let cache = cache_of(value).map_err(refuse)?;
                self.cache = Sourced { value: cache, origin: origin.clone() };
            }
            CACHE_CLAIM_KEY => self.set_cache_claims(value, origin).map_err(refuse)?,
            CACHE_INLINE_KEY => self.set_cache_inline(value, origin).map_err(refuse)?,
            HOST_PATH_KEY => {
                let paths = cache::paths(value).map_err(refuse)?;
                self.host_paths = paths.map(|value| Sourced { value, origin: origin.clone() }).collect();
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set_options<'a>(&mut self, options: impl Iterator<Item = &'a str>, origin: &Origin) -> Result<(), Refusal> {
        for option in options.flat_map(|item| item.split(',')).map(str::trim).filter(|option| !option.is_empty()) {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (option, None),
            };
            if let Err(why) = check_option(name, value) {
                let (origin, value) = (origin.to_string(), option.to_string());
                return Err(Refusal::Setting { origin, field: "mountOptions".into(), value, why });
            }
            // `subdir` is part of the path that the claim's Secret carries; it never stands in argv.
            if !MEANINGLESS_OPTIONS.contains(&name) && name != "subdir" {
                self.set_option(name, value.map(str::to_string), origin);
            }
        }
        Ok(())
    }

    fn set_option(&mut self, name: &str, value: Option<String>, origin: &Origin) {
        let name = canonical(name);
        let sourced = Sourced { value, origin: origin.clone() };
        match self.mount_options.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = sourced,
            None => self.mount_options.push((name.to_string(), sourced)),
        }
    }

    /// Whether its client is that of the Enterprise Edition.
    pub(crate) fn is_enterprise(&self) -> bool {
        self.file_system.as_ref().is_some_and(|facts| facts.enterprise)
    }

    /// Sets an option that no layer and no policy has set.
    pub(crate) fn default_option(&mut self, name: &str, value: &str, origin: &Origin) {
        if !self.has_option(name) {
            self.set_option(name, Some(value.to_string()), origin);
        }
    }

    /// Whether an option is set.
    pub fn has_option(&self, name: &str) -> bool {
        self.mount_options.iter().any(|(known, _)| known == name)
    }

    /// What a policy is told of the result so far.
    pub fn facts(&self) -> SidecarFacts {
        let text = |amounts: &BTreeMap<String, Sourced<Quantity>>| {
            amounts.iter().map(|(name, amount)| (name.clone(), amount.value.to_string())).collect()
        };
        let options = self.mount_options.iter();
        SidecarFacts {
            requests: text(&self.requests),
            limits: text(&self.limits),
            mount_options: options.map(|(name, value)| (name.clone(), value.value.clone())).collect(),
            env: self.env.iter().map(|(name, value)| (name.clone(), value.value.clone())).collect(),
            cache: self.cache.value.clone(),
        }
    }

    /// The settings after a policy's change: all of it, or none where one part is unusable, which is the policy's failure.
    pub fn changed(&self, change: &Change, binding: &str) -> Result<Settings, Failure> {
        let origin = Origin::Policy(binding.to_string());
        let mut next = self.clone();
        change_amounts(&mut next.requests, &change.requests, "requests", &origin)?;
        change_amounts(&mut next.limits, &change.limits, "limits", &origin)?;
        for (name, option) in &change.mount_options {
            next.change_option(name, option, &origin)?;
        }
        for (name, value) in &change.env {
            next.change_env(name, value.as_deref(), &origin)?;
        }
        if let Some(cache) = &change.cache {
            let value = canonical_cache(cache).map_err(|why| Failure::Answer(format!("cache size limit: {why}")))?;
            next.cache = Sourced { value, origin };
            next.caches.clear();
        }
        Ok(next)
    }

    fn change_option(&mut self, name: &str, change: &OptionChange, origin: &Origin) -> Result<(), Failure> {
        let refuse = |why: &str| Failure::Answer(format!("mount option `{name}`: {why}"));
        if RESERVED_OPTIONS.contains(&name) {
            return Err(refuse("it is Pith's own"));
        }
        match change {
            OptionChange::Set(_) if MEANINGLESS_OPTIONS.contains(&name) => {
                return Err(refuse("it means nothing to the client"));
            }
            // A policy may make a volume read-only, never writable: `read-only=false` would be the removal by another name.
            OptionChange::Set(Some(_)) if canonical(name) == READ_ONLY => {
                return Err(refuse("it is a switch and takes no value"));
            }
            OptionChange::Remove if canonical(name) == READ_ONLY => {
                return Err(refuse("it cannot be removed"));
            }
            OptionChange::Set(value) => {
                check_option(name, value.as_deref()).map_err(|why| refuse(&why))?;
                if (self.is_enterprise() || is_fuse_option(name))
                    && value.as_deref().is_some_and(|value| value.contains(','))
                {
                    return Err(refuse("its value has a comma, which would start another option"));
                }
                self.set_option(name, value.clone(), origin);
            }
            OptionChange::Remove => self.mount_options.retain(|(known, _)| known != canonical(name)),
        }
        Ok(())
    }

    fn change_env(&mut self, name: &str, value: Option<&str>, origin: &Origin) -> Result<(), Failure> {
        let refuse = |why: &str| Failure::Answer(format!("environment variable `{name}`: {why}"));
        if secret_key::ALL.contains(&name) {
            return Err(refuse("it is Pith's own"));
        }
        let first_fits = name.chars().next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
        if !first_fits || !name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_') {
            return Err(refuse("a name has letters, digits and underscores, and starts with no digit"));
        }
        match value {
            Some(value) if value.contains('\0') => return Err(refuse("its value has a NUL")),
            Some(value) => {
                self.env_sources.remove(name);
                self.env.insert(name.into(), Sourced { value: value.into(), origin: origin.clone() });
            }
            None => {
                self.env_sources.remove(name);
                self.env.remove(name);
            }
        }
        Ok(())
    }

    /// Brings every amount below the ceilings, and every request below its limit. Comes last: nothing passes it.
    pub fn apply_ceilings(&mut self, ceilings: &BTreeMap<String, Quantity>) {
        for (name, ceiling) in ceilings {
            let unlimited = match self.limits.get(name) {
                // To the kubelet, a limit of nothing is no limit.
                Some(limit) => limit.value.is_zero(),
                None => is_shared_out(name),
            };
            if unlimited || self.limits.get(name).is_some_and(|limit| limit.value > *ceiling) {
                let before = self.limits.remove(name);
                self.limits.insert(name.clone(), cut(*ceiling, before));
            }
            if self.requests.get(name).is_some_and(|request| request.value > *ceiling) {
                let before = self.requests.remove(name);
                self.requests.insert(name.clone(), cut(*ceiling, before));
            }
        }
        // The API server refuses a request above its limit, so the limit wins, whichever layer set it.
        for (name, request) in &mut self.requests {
            if let Some(limit) = self.limits.get(name)
                && request.value > limit.value
            {
                let from = Box::new(request.origin.clone());
                *request =
                    Sourced { value: limit.value, origin: Origin::Limit { was: request.value.to_string(), from } };
            }
        }
    }

    /// Leaves out folders of a node, and an administrator's volumes, which may be such: where the pod will run there are none.
    pub fn leave_node(&mut self, warnings: &mut Vec<String>) {
        let of_node = |cache: &Sourced<CacheVolume>| matches!(cache.value, CacheVolume::HostPath(_));
        if self.host_paths.is_empty() && self.volumes.is_empty() && !self.caches.iter().any(of_node) {
            return;
        }
        self.host_paths.clear();
        self.volumes.clear();
        self.caches.retain(|cache| !of_node(cache));
        warnings.push("the JuiceFS client gets no folder of the node, and none of mountPodPatch's volumes: the pod runs on a virtual node".into());
    }

    /// Every value with its origin, as `(field, value, origin)`, for people.
    pub fn explain(&self) -> Vec<(String, String, String)> {
        let mut rows = vec![("image".to_string(), self.image.value.clone(), self.image.origin.to_string())];
        for (kind, amounts) in [("requests", &self.requests), ("limits", &self.limits)] {
            rows.extend(amounts.iter().map(|(name, amount)| {
                (format!("resources.{kind}.{name}"), amount.value.to_string(), amount.origin.to_string())
            }));
        }
        rows.extend(self.mount_options.iter().map(|(name, option)| {
            (
                format!("mountOptions.{name}"),
                option.value.clone().unwrap_or_else(|| "on".into()),
                option.origin.to_string(),
            )
        }));
        rows.extend(
            self.env.iter().map(|(name, value)| (format!("env.{name}"), value.value.clone(), value.origin.to_string())),
        );
        rows.extend(
            (self.env_sources.iter())
                .map(|(name, source)| (format!("env.{name}"), "from elsewhere".into(), source.origin.to_string())),
        );
        if self.caches.is_empty() || self.keeps_empty_dir() {
            rows.push(("cache".into(), describe(&self.cache.value), self.cache.origin.to_string()));
        }
        rows.extend(self.caches.iter().map(|it| ("cache".into(), it.value.to_string(), it.origin.to_string())));
        rows.extend(self.host_paths.iter().map(|it| ("hostPath".into(), it.value.clone(), it.origin.to_string())));
        let policy = self.image_pull_policy.iter();
        rows.extend(policy.map(|it| ("imagePullPolicy".into(), it.value.clone(), it.origin.to_string())));
        rows.extend(self.fields.iter().map(|(name, it)| (name.clone(), it.value.to_string(), it.origin.to_string())));
        let name = |it: &ExtraVolume| it.volume["name"].as_str().unwrap_or_default().to_string();
        rows.extend(self.volumes.iter().map(|it| ("volume".into(), name(&it.value), it.origin.to_string())));
        rows
    }
}

fn cut(ceiling: Quantity, before: Option<Sourced<Quantity>>) -> Sourced<Quantity> {
    let was = before.as_ref().map(|before| before.value.to_string());
    let from = Box::new(before.map_or(Origin::Default, |before| before.origin));
    Sourced { value: ceiling, origin: Origin::Ceiling { was, from } }
}

fn change_amounts(
    amounts: &mut BTreeMap<String, Sourced<Quantity>>,
    changes: &[(String, Option<String>)],
    field: &str,
    origin: &Origin,
) -> Result<(), Failure> {
    for (name, amount) in changes {
        let Some(amount) = amount else {
            amounts.remove(name);
            continue;
        };
        if !is_resource_name(name) {
            return Err(Failure::Answer(format!("{field} name the resource `{name}`, which is no resource name")));
        }
        let value = positive(amount).map_err(|why| Failure::Answer(format!("{field}.{name} is `{amount}`: {why}")))?;
        amounts.insert(name.clone(), Sourced { value, origin: origin.clone() });
    }
    Ok(())
}

/// Whether an option goes to the kernel's mount, in one argument with others and a comma between them.
pub(crate) fn is_fuse_option(name: &str) -> bool {
    FUSE_OPTIONS.contains(&name)
}

fn is_resource_name(name: &str) -> bool {
    let fits = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.' | '/');
    !name.is_empty() && name.len() <= 253 && name.chars().all(fits)
}

/// Whether a container without a limit may use all there is. Of devices and huge pages it gets what it asks for and no more:
/// a limit there would be a request for them.
fn is_shared_out(resource: &str) -> bool {
    !resource.contains('/') && !resource.starts_with("hugepages-")
}

fn positive(amount: &str) -> Result<Quantity, String> {
    let quantity = Quantity::from_str(amount).map_err(|error| error.to_string())?;
    if quantity.is_negative() { Err("it is negative".into()) } else { Ok(quantity) }
}

/// The value of an option.
pub(crate) fn option_value<'a>(settings: &'a Settings, name: &str) -> Option<&'a str> {
    settings.mount_options.iter().find(|(known, _)| known == name)?.1.value.as_deref()
}

/// The one name under which an option is kept.
fn canonical(option: &str) -> &str {
    OPTION_ALIASES.iter().find(|(alias, _)| *alias == option).map_or(option, |(_, name)| name)
}

/// The name of an option for mount(8), which the client of the Enterprise Edition is called by.
pub(crate) fn name_for_mount(option: &str) -> &str {
    OPTION_ALIASES.iter().find(|(_, name)| *name == option).map_or(option, |(alias, _)| alias)
}

/// The cache with its size in the form in which the API server keeps it: in another one, a second pass would see a change.
fn canonical_cache(cache: &Cache) -> Result<Cache, String> {
    let Cache::EmptyDir { in_memory, size_limit: Some(limit) } = cache else { return Ok(cache.clone()) };
    let size_limit = positive(limit).map_err(|why| format!("`{limit}` is not usable: {why}"))?;
    Ok(Cache::EmptyDir { in_memory: *in_memory, size_limit: Some(size_limit.to_string()) })
}

/// Refuses what could end the argument early or start another one.
fn check_option(name: &str, value: Option<&str>) -> Result<(), String> {
    let fits = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('-') || !name.chars().all(fits) {
        return Err("the name of an option has letters, digits, `-`, `_` and `.`, and starts with no dash".into());
    }
    if value.is_some_and(|value| value.chars().any(char::is_control)) {
        return Err("its value has a control character".into());
    }
    Ok(())
}

/// `Medium:Size` or `Medium`, as with the JuiceFS driver; an empty medium is the node's disk.
fn cache_of(text: &str) -> Result<Cache, String> {
    let (medium, size) = text.split_once(':').unwrap_or((text, ""));
    let in_memory = match medium.trim() {
        "" => false,
        "Memory" => true,
        other => {
            return Err(format!("`{other}` is no medium of an emptyDir: use `Memory`, or nothing for the disk"));
        }
    };
    let size_limit = match size.trim() {
        "" => None,
        size => Some(positive(size)?.to_string()),
    };
    Ok(Cache::EmptyDir { in_memory, size_limit })
}

fn describe(cache: &Cache) -> String {
    match cache {
        Cache::Container => "container".into(),
        Cache::EmptyDir { in_memory, size_limit } => {
            let medium = if *in_memory { "memory" } else { "disk" };
            let size = size_limit.as_ref().map(|size| format!(" up to {size}")).unwrap_or_default();
            format!("emptyDir on {medium}{size}")
        }
    }
}

#[cfg(test)]
mod tests;
