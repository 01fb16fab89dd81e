//! The sidecar as a container, and the guard beside it: argv and environment, no shell.
//!
//! A client mounts with FUSE onto an emptyDir, seen by the application through mount propagation; [`Shape`] has what differs where
//! that cannot be. It is a native sidecar (an init container with `restartPolicy: Always`), or a plain container behind a stand-in
//! that refuses whoever comes before it. What is secret, or known only once the claim is bound, comes by `secretKeyRef` from
//! the claim's Secret; the kubelet expands `$(NAME)` in argv. Deliberately absent: a hostPath for the mount, a shell, any clear secret,
//! and a preStop hook that unmounts: it would run before the application has ended, and hide a stuck client from the guard.

use pith_proto::quantity::Quantity;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::str::FromStr;

use crate::cache::CacheVolume;
use crate::object::Claim;
use crate::pod::Pod;
use crate::policy::Cache;
use crate::reason::FINISH_ANNOTATION;
use crate::secret_key;
use crate::settings::{self, CacheDirectory, ExtraVolume, Settings, option_value};
use crate::shape::{MOUNT_ROOT, Shape};

mod enterprise;
mod preparation;

/// Where the client lies in its image.
const CLIENT: &str = "/usr/local/bin/juicefs";
/// Where the guard lies in its image.
const GUARD: &str = "/usr/local/bin/pith-guard";
/// Where the client keeps its cache unless an option says otherwise.
const CACHE_DIRECTORY: &str = "/var/jfsCache";
/// The port of the client's own metrics; a pod's second client takes the next one, as they share the network namespace.
const METRICS_PORT: u16 = 9567;

/// The name of the client's container; a pod's second one has a number behind it.
const CLIENT_NAME: &str = "jfs-mount";
/// With what the names of the cache's volumes begin.
const CACHE_PREFIX: &str = "pith-cache-";

/// The name of the guard's container.
pub const GUARD_NAME: &str = "pith-guard";
/// The name of the init container of pods with plain containers.
pub const INIT_NAME: &str = "pith-init";
/// With what the names of the init containers begin that prepare a client.
const INIT_PREFIX: &str = "pith-prepare";
/// The name of the volume in which clients find the guard's program, and where they do.
const PROGRAM_VOLUME: &str = "pith-program";
const PROGRAM_FOLDER: &str = "/pith";
/// The name of the volume by which a guard hears that the application has ended, and the file there.
const FINISH_VOLUME: &str = "pith-finish";
const FINISH_FILE: &str = "finish";
const FINISH_FOLDER: &str = "/etc/pith-finish";

/// What the kubelet gives a pod to end, in seconds, where that says nothing.
const GRACE: u64 = 30;
/// How long before that is over a guard takes what is left from clients, in seconds.
const RESERVE: u64 = 2;

/// Which sidecar of a pod one is.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// How the pod gets its clients.
    pub shape: Shape,
    /// The Secret with what is secret.
    pub secret: &'a str,
    /// The claim's name.
    pub claim: &'a str,
    /// The claim's first volume in the pod.
    pub volume: &'a str,
    /// The claim's place among the pod's.
    pub index: usize,
}

/// What the pod gets for one claim.
#[derive(Debug, Clone, PartialEq)]
pub struct Sidecar {
    /// Its name, which the status annotation records.
    pub container_name: String,
    /// The container.
    pub container: Value,
    /// The init container that prepares it, where it needs that.
    pub preparation: Option<Value>,
    /// The name of the emptyDir that the application's mounts are renamed to.
    pub mount_volume: String,
    /// Where the container mounts the file system, on that emptyDir.
    pub mount_path: String,
    /// The pod's new volumes.
    pub volumes: Vec<Value>,
}

impl Sidecar {
    /// Its containers.
    pub fn containers_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.preparation.iter_mut().chain([&mut self.container])
    }
}

/// Builds the sidecar of one claim.
pub fn build(settings: &Settings, place: Place<'_>) -> Sidecar {
    let Place { shape, secret, volume, index, .. } = place;
    let container_name = client_name(place);
    let mount_volume = mount_volume(volume);
    let mount_path = mount_path(volume);
    let directories = settings.cache_directories();

    let mut mounts: Vec<Value> = shape.own_mount(&mount_volume, &mount_path).into_iter().collect();
    let mut devices = Vec::new();
    let mut volumes = vec![named(shape.mount_source(volume), &mount_volume)];
    let caches = match cache(settings).filter(|_| directories.is_empty()) {
        Some(directory) => vec![(volume_name(CACHE_PREFIX, volume), directory)],
        None => several(&directories, volume),
    };
    for (name, directory) in caches {
        mounts.push(json!({"name": name, "mountPath": directory.path}));
        volumes.extend(directory.source.map(|source| named(source, &name)));
    }
    for (place, path) in settings.host_paths.iter().enumerate() {
        let name = volume_name(&format!("pith-host-{place}-"), volume);
        mounts.push(json!({"name": name, "mountPath": path.value}));
        volumes.push(json!({"name": name, "hostPath": {"path": path.value, "type": "DirectoryOrCreate"}}));
    }
    for extra in &settings.volumes {
        add_extra(&extra.value, volume, &mut volumes, &mut mounts, &mut devices);
    }
    let prepared = preparation::prepare(settings, place);
    volumes.extend(prepared.volumes);
    mounts.extend(prepared.mounts);

    if shape == Shape::Container {
        mounts.push(json!({"name": PROGRAM_VOLUME, "mountPath": PROGRAM_FOLDER, "readOnly": true}));
    }

    let metrics = metrics(settings, index);
    let (command, probe) = if settings.is_enterprise() {
        (enterprise::command(settings, &directories, &mount_path), enterprise::probe(&mount_path))
    } else {
        // The client's control file: a bare directory does not have it, so the application never starts on one.
        let probe = ["test", "-f", &format!("{mount_path}/{}", control_file(settings))].map(String::from).into();
        (command(settings, &metrics, &directories, &mount_path), probe)
    };
    let mut container = json!({
        "name": container_name,
        "image": settings.image.value,
        "command": command,
        "env": env(settings, shape, secret),
        "envFrom": [{"secretRef": {"name": secret}}],
        "securityContext": shape.security_context(),
        "startupProbe": {
            "exec": {"command": probe}, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 120,
        },
        "volumeMounts": mounts,
    });
    match shape {
        Shape::Container => container["lifecycle"] = wait_for(&mount_path),
        Shape::NativeSidecar | Shape::Vci | Shape::Cci => container["restartPolicy"] = json!("Always"),
    }
    let resources = resources(settings);
    if !resources.is_empty() {
        container["resources"] = Value::Object(resources);
    }
    if let Some(policy) = &settings.image_pull_policy {
        container["imagePullPolicy"] = json!(policy.value);
    }
    for (name, field) in &settings.fields {
        container[name.as_str()] = field.value.clone();
    }
    if !devices.is_empty() {
        container["volumeDevices"] = Value::Array(devices);
    }
    if let Some(port) = metrics.port {
        let name = if index == 0 { "metrics".to_string() } else { format!("metrics-{index}") };
        container["ports"] = json!([{"name": name, "containerPort": port, "protocol": "TCP"}]);
    }
    Sidecar { container_name, container, preparation: prepared.container, mount_volume, mount_path, volumes }
}

/// The name of a client's container. On VCI it says the claim, as with the JuiceFS CSI driver; elsewhere its place.
fn client_name(place: Place<'_>) -> String {
    match place.shape {
        Shape::Vci => volume_name(&format!("{CLIENT_NAME}-"), place.claim),
        _ if place.index == 0 => CLIENT_NAME.into(),
        _ => format!("{CLIENT_NAME}-{}", place.index),
    }
}

/// Where the sidecar of a pod's volume mounts the file system.
pub(crate) fn mount_path(volume: &str) -> String {
    format!("{MOUNT_ROOT}/{volume}")
}

/// The name of the emptyDir that the application's mounts of a volume are renamed to.
pub(crate) fn mount_volume(volume: &str) -> String {
    volume_name("pith-mount-", volume)
}

/// Whether a container of that name is one of Pith's, or nobody's.
pub(crate) fn is_own_name(name: &str) -> bool {
    let place = name.strip_prefix(CLIENT_NAME).or_else(|| name.strip_prefix(INIT_PREFIX));
    [GUARD_NAME, INIT_NAME].contains(&name) || place.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Whether a volume of the pod has the name of a cache of Pith's.
pub(crate) fn is_cache(volume: &str) -> bool {
    volume.starts_with(CACHE_PREFIX)
}

/// The directories of the cache that are volumes, with names for these.
fn several(directories: &[CacheDirectory], volume: &str) -> Vec<(String, CacheDirectory)> {
    let with_source = directories.iter().filter(|directory| directory.source.is_some()).enumerate();
    with_source.map(|(place, it)| (volume_name(&format!("{CACHE_PREFIX}{place}-"), volume), it.clone())).collect()
}

fn named(mut volume: Value, name: &str) -> Value {
    volume["name"] = json!(name);
    volume
}

/// A volume of an administrator's, under a name that is no other volume's of the pod.
fn add_extra(
    extra: &ExtraVolume,
    volume: &str,
    volumes: &mut Vec<Value>,
    mounts: &mut Vec<Value>,
    devices: &mut Vec<Value>,
) {
    let own = extra.volume["name"].as_str().unwrap_or_default();
    let name = volume_name(&format!("pith-extra-{own}-"), volume);
    volumes.push(named(extra.volume.clone(), &name));
    mounts.extend(extra.mounts.iter().map(|it| named(it.clone(), &name)));
    devices.extend(extra.devices.iter().map(|it| named(it.clone(), &name)));
}

/// What a pod has beside its clients.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Guards {
    /// The container that looks after the clients' mounts, and unmounts what they leave behind.
    pub guard: Option<Value>,
    /// The init container that waits for the clients' Secrets, and brings the guard's program along.
    pub init: Option<Value>,
    /// Their volumes.
    pub volumes: Vec<Value>,
}

impl Guards {
    /// Their containers.
    pub fn containers_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.guard.iter_mut().chain(&mut self.init)
    }
}

/// Builds what looks after the mounts of a pod's clients. `finishes` is whether the controller says when the application has ended.
///
/// A guard asks each client twice a second whether it is there, and needs next to nothing: 1.3 MB, and 5 MB while the container
/// runtime starts it. Limits are there because a namespace's quota may ask for them.
pub fn guards(shape: Shape, pod: Pod<'_>, image: &str, sidecars: &[Sidecar], finishes: bool) -> Guards {
    let container = |name: &str, words: &[&str], mounts: Vec<Value>| {
        let command: Vec<&str> = [GUARD].iter().chain(words).copied().collect();
        json!({
            "name": name,
            "image": image,
            "command": command,
            "resources": {
                "requests": {"cpu": "1m", "memory": "4Mi"},
                "limits": {"cpu": "100m", "memory": "16Mi"},
            },
            "volumeMounts": mounts,
        })
    };
    let paths: Vec<&str> = sidecars.iter().map(|sidecar| &*sidecar.mount_path).collect();
    let hold = |options: &[&str]| {
        let mounts = sidecars.iter().filter_map(|it| shape.own_mount(&it.mount_volume, &it.mount_path));
        let mut guard = container(GUARD_NAME, &[&["hold"], options, &paths[..]].concat(), mounts.collect());
        guard["securityContext"] = shape.security_context();
        guard
    };
    match shape {
        // It stands before the clients, so that it is stopped last.
        Shape::NativeSidecar => {
            let mut guard = hold(&[]);
            guard["restartPolicy"] = json!("Always");
            Guards { guard: Some(guard), ..Guards::default() }
        }
        // It stands before the clients here too: below what is mounted when a container is started, that container sees nothing. All
        // are told to end at once, and it leaves the files to the application for as long as that may take.
        Shape::Container => {
            let grace = pod.spec["terminationGracePeriodSeconds"].as_u64().unwrap_or(GRACE);
            let patience = grace.saturating_sub(RESERVE).max(1).to_string();
            let file = format!("{FINISH_FOLDER}/{FINISH_FILE}");
            let hears = finishes && pod.runs_to_completion();
            let until = if hears { vec!["--until", &*file] } else { Vec::new() };
            let mut guard = hold(&[&["--cover", "--patience", &*patience], &until[..]].concat());
            let covered = [&[GUARD, "wait", "--cover"], &paths[..]].concat();
            guard["lifecycle"] = json!({"postStart": {"exec": {"command": covered}}});
            let mut volumes = vec![json!({"name": PROGRAM_VOLUME, "emptyDir": {}})];
            if hears {
                mount(&mut guard, json!({"name": FINISH_VOLUME, "mountPath": FINISH_FOLDER, "readOnly": true}));
                let field = json!({"fieldPath": format!("metadata.annotations['{FINISH_ANNOTATION}']")});
                let items = json!([{"path": FINISH_FILE, "fieldRef": field}]);
                volumes.push(json!({"name": FINISH_VOLUME, "downwardAPI": {"items": items}}));
            }
            // It waits for the clients' Secrets in their stead: while the kubelet waits for a client's mount, it starts no other.
            let program = vec![json!({"name": PROGRAM_VOLUME, "mountPath": PROGRAM_FOLDER})];
            let mut init = container(INIT_NAME, &["copy", PROGRAM_FOLDER], program);
            init["env"] = sidecars.iter().enumerate().map(|(index, it)| awaited(index, it)).collect();
            // The directory is root's, and the pod's own runAsNonRoot would keep the container from starting.
            init["securityContext"] = json!({"runAsUser": 0, "runAsNonRoot": false});
            Guards { guard: Some(guard), init: Some(init), volumes }
        }
        // The cloud's own containers unmount there, and nothing is left on a node.
        Shape::Vci | Shape::Cci => Guards::default(),
    }
}

/// The hook of a client that is a plain container: the kubelet starts the next container once it has mounted.
fn wait_for(mount_path: &str) -> Value {
    let program = format!("{PROGRAM_FOLDER}/pith-guard");
    json!({"postStart": {"exec": {"command": [program, "wait", mount_path]}}})
}

/// A variable that a container waits for: it is not started before there is the Secret.
fn awaited(index: usize, sidecar: &Sidecar) -> Value {
    let secret = &sidecar.container["envFrom"][0]["secretRef"]["name"];
    json!({"name": format!("SUBDIR_{index}"), "valueFrom": {"secretKeyRef": {"name": secret, "key": secret_key::SUBDIR}}})
}

/// Gives a container one more volume mount.
pub fn mount(container: &mut Value, mount: Value) {
    if let Some(mounts) = container["volumeMounts"].as_array_mut() {
        mounts.push(mount);
    }
}

/// The name of the Secret that holds what a claim's sidecars need, in the claim's namespace.
pub fn secret_name(claim: &Claim) -> String {
    format!("pith-{}", claim.uid)
}

/// How the names of Secrets begin that belong to a pod. No claim's does: UIDs are hexadecimal.
const POD_SECRET: &str = "pith-pod-";
/// How many hexadecimal digits follow.
const POD_SECRET_DIGITS: usize = 32;

/// The name of a Secret for one volume of a pod whose claim is not there yet: nobody knows the claim's UID, and mostly not even
/// the pod's name, so it comes from the request. Another request about the same pod has another one, as is needed: a pod that is
/// made again must not find what its predecessor had.
pub fn pod_secret_name(request: &str, volume: &str) -> String {
    let digest = hex::encode(Sha256::digest(format!("{request}/{volume}")));
    format!("{POD_SECRET}{}", &digest[..POD_SECRET_DIGITS])
}

/// Whether a Secret's name is one that [`pod_secret_name`] gives.
pub fn is_pod_secret_name(name: &str) -> bool {
    let digits = name.strip_prefix(POD_SECRET).unwrap_or_default();
    digits.len() == POD_SECRET_DIGITS && digits.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
}

/// The environment of the container: what is secret first, then the rest by name. What argv refers to stands here by name, so that
/// the container waits for it, and so that nothing in `envs` takes its place.
fn env(settings: &Settings, shape: Shape, secret: &str) -> Value {
    let mut env = match settings.is_enterprise() {
        true => enterprise::env(secret),
        false => secret_key::ALL.map(|key| from_secret(secret, key)).into(),
    };
    env.extend(shape.env().iter().map(|(name, value)| json!({"name": name, "value": value})));
    env.extend(settings.env.iter().map(|(name, value)| match value.value.as_str() {
        // The API server keeps no empty value; with one here, a second pass would see a change.
        "" => json!({"name": name}),
        value => json!({"name": name, "value": escape(value)}),
    }));
    env.extend(settings.env_sources.values().map(|source| source.value.clone()));
    Value::Array(env)
}

/// A variable that has the name of its key in the claim's Secret.
fn from_secret(secret: &str, key: &str) -> Value {
    json!({"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
}

fn command(settings: &Settings, metrics: &Metrics, directories: &[CacheDirectory], mount_path: &str) -> Vec<String> {
    let mut fuse_options = vec!["allow_other".to_string()];
    let mut command: Vec<String> = [CLIENT, "mount", "--subdir=$(SUBDIR)"].map(String::from).into();
    if let Some(address) = &metrics.default_address {
        command.push(format!("--metrics={address}"));
    }
    if let Some(mebibytes) = cache_size(settings) {
        command.push(format!("--cache-size={mebibytes}"));
    }
    if !directories.is_empty() {
        let paths: Vec<String> = directories.iter().map(|it| escape(&it.path)).collect();
        command.push(format!("--cache-dir={}", paths.join(":")));
    }
    // Of several directories of the cache, the option's are among them.
    let options = settings.mount_options.iter().filter(|(name, _)| name != "cache-dir" || directories.is_empty());
    for (name, value) in options {
        let value = value.value.as_deref().map(|value| format!("={}", escape(value))).unwrap_or_default();
        if !settings::is_fuse_option(name) {
            command.push(format!("--{name}{value}"));
        } else if name != "allow_other" {
            fuse_options.push(format!("{name}{value}"));
        }
    }
    command.extend(["-o".into(), fuse_options.join(","), "$(METAURL)".into(), mount_path.to_string()]);
    command
}

/// Keeps the kubelet from expanding what a user wrote: `$$` stands for one `$`.
pub(crate) fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

fn resources(settings: &Settings) -> Map<String, Value> {
    let mut resources = Map::new();
    for (kind, amounts) in [("limits", &settings.limits), ("requests", &settings.requests)] {
        if !amounts.is_empty() {
            let amounts = amounts.iter().map(|(name, amount)| (name.clone(), json!(amount.value.to_string())));
            resources.insert(kind.into(), Value::Object(amounts.collect()));
        }
    }
    resources
}

fn control_file(settings: &Settings) -> &'static str {
    if settings.has_option("prefix-internal") { ".jfs.config" } else { ".config" }
}

struct Metrics {
    /// What to pass where the user's options say nothing.
    default_address: Option<String>,
    /// What to declare as the container's port; none where the client picks one.
    port: Option<u16>,
}

fn metrics(settings: &Settings, index: usize) -> Metrics {
    if settings.is_enterprise() {
        return Metrics { default_address: None, port: None };
    }
    if let Some(address) = option_value(settings, "metrics") {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).filter(|port| *port != 0);
        return Metrics { default_address: None, port };
    }
    let port = METRICS_PORT.saturating_add(u16::try_from(index).unwrap_or(u16::MAX));
    Metrics { default_address: Some(format!("0.0.0.0:{port}")), port: Some(port) }
}

/// The one directory of the cache that every sidecar has, if it is a volume.
fn cache(settings: &Settings) -> Option<CacheDirectory> {
    let source = CacheVolume::of(&settings.cache.value)?.source();
    // An option that names one directory moves the volume there; several directories, or `memory`, are the user's own affair.
    let path = match option_value(settings, "cache-dir") {
        Some(path) if path.starts_with('/') && !path.contains([':', '$']) => path,
        _ => CACHE_DIRECTORY,
    };
    Some(CacheDirectory { path: path.into(), source: Some(source) })
}

/// The client's cache limit in MiB: nine tenths of the volume's size, so that the kubelet never evicts the pod for its cache.
fn cache_size(settings: &Settings) -> Option<u64> {
    let Cache::EmptyDir { size_limit: Some(limit), .. } = &settings.cache.value else {
        return None;
    };
    if settings.has_option("cache-size") || !settings.caches.is_empty() {
        return None;
    }
    let bytes = Quantity::from_str(limit).ok()?.bytes()?;
    Some(bytes / 10 * 9 / (1024 * 1024))
}

/// A name for a volume or container of ours: a DNS label, and still unique when the other's name is long, or is none.
fn volume_name(prefix: &str, volume: &str) -> String {
    let name = format!("{prefix}{volume}");
    let fits = |it: char| it.is_ascii_alphanumeric() || it == '-';
    if name.len() <= 63 && name.chars().all(fits) {
        return name;
    }
    let digest = hex::encode(Sha256::digest(name.as_bytes()));
    let kept: String = name.chars().map(|it| if fits(it) { it } else { '-' }).take(63 - 9).collect();
    format!("{}-{}", kept.trim_end_matches('-'), &digest[..8])
}

#[cfg(test)]
mod tests;
