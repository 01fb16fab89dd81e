//! From the configuration file and the flags to what they mean, once, before anything listens.
//!
//! Nothing after this file checks configuration again, and nothing outside it reads the environment (it reads none either: the
//! file and the flags are all there is, with the address that Kubernetes gives every pod for `objects.cluster`, the PATH for the client, and for commands the
//! place of Docker's configuration). An unknown key, a wrong value or a contradiction is an error with its place.

pub mod file;
mod reference;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use pith_core::Quantity;
use pith_core::binding::{self, Binding, Match, Mode, OnFailure};
use pith_core::budget::Rates;
use pith_core::condition::Condition;
use pith_core::mount_pod_patch::{self, DriverConfig};
use pith_core::object::{Kind, SecretRef};
use pith_core::policy::{Cache, Hook};
use pith_core::selector::{LabelSelector, Operator, Requirement};
use pith_core::settings::{Configuration, FileSystem};
use pith_core::shape::Shape;
use pith_core::text::clean;
use pith_core::volume::MOST_TRASH_DAYS;
use serde_json::Value;

use crate::args::Overrides;
use crate::registry::{Digest, Key, Mirror, Reference, Uri};
use crate::wasm::{Grants, Limits};

pub use file::{ConfigMapKey, ConfigMapRef, LogFormat};
pub use reference::{reference, schema};

/// How much is said of what is wrong with a PolicyBinding.
const WRONG: usize = 1 << 10;
/// The end of a certificate is given in whole seconds.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(10);
/// The most bytes of the spec of a PolicyBinding.
const LARGEST_SPEC: usize = 64 << 10;
/// A module that takes longer to fetch does not come any more.
const LONGEST_FETCH: Duration = Duration::from_secs(600);
/// Beyond it something else is meant.
const LONGEST_LIFETIME: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// As many as in Kubernetes.
const MOST_CONDITIONS: usize = 64;

/// The configuration as the program uses it: paths absolute, names checked, bindings in order.
#[derive(Debug, Clone)]
pub struct Config {
    /// The webhook's listener and bounds; absent for none.
    pub webhook: Option<Webhook>,
    /// What is kept in step in a cluster; absent for nothing.
    pub controller: Option<Controller>,
    /// The admin listener's address.
    pub admin: SocketAddr,
    /// The folder that belongs to this process alone.
    pub state_dir: PathBuf,
    /// The log.
    pub log: file::Log,
    /// The decision log; absent for none.
    pub decisions: Option<Decisions>,
    /// Where Kubernetes objects come from; absent for none.
    pub objects: Option<ObjectSource>,
    /// What decisions need.
    pub sidecars: Configuration,
    /// What the JuiceFS driver's configuration says and has no effect here, for people.
    pub ineffective: Vec<String>,
    /// The bindings in the order in which they are asked.
    pub policies: Vec<PolicyConfig>,
    /// Where more of them come from; absent for nowhere.
    pub policy_bindings: Option<PolicyBindings>,
    /// The CSI controller; absent for none.
    pub csi: Option<Csi>,
    /// The JuiceFS client.
    pub juicefs: JuiceFs,
}

/// The decision log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decisions {
    /// Where it is written to; absent for standard output.
    pub file: Option<PathBuf>,
    /// The largest file, in bytes.
    pub max_size: u64,
    /// How many older files are kept.
    pub keep: u32,
    /// Of how many decisions in a hundred there is a line.
    pub percent: u8,
    /// Whether what policies were asked is kept.
    pub capture: bool,
}

/// Where Kubernetes objects come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectSource {
    /// A folder.
    Directory(PathBuf),
    /// A cluster.
    Cluster {
        /// How it is reached; absent for the cluster that this process runs in.
        kubeconfig: Option<PathBuf>,
        /// Where it stands what pods must know of file systems; absent for nowhere.
        file_systems: Option<file::ConfigMapRef>,
    },
}

/// The webhook's listener and bounds.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its certificate.
    pub tls: Tls,
    /// How API servers are told of it; absent where that is left to others.
    pub registration: Option<Registration>,
    /// The largest body in bytes.
    pub max_body: usize,
    /// The most requests in hand at once.
    pub max_in_flight: usize,
    /// The most time for one request.
    pub timeout: Duration,
}

/// Where the serving certificate comes from.
#[derive(Debug, Clone)]
pub enum Tls {
    /// Made here, for these names.
    SelfSigned(Vec<String>),
    /// Read from these files.
    Files {
        /// The chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// What clients are to trust.
        authority: Option<PathBuf>,
    },
    /// In a Secret that all replicas share.
    Shared(SharedSecret),
}

/// A certificate that all replicas share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedSecret {
    /// The namespace of the Secret.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The names that the certificate is for.
    pub names: Vec<String>,
    /// How long one lasts.
    pub lifetime: Duration,
    /// How long everybody may take to hear of a change.
    pub overlap: Duration,
}

/// How API servers are told of the webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The file with the configuration.
    pub manifest: PathBuf,
    /// Whether it is somebody else's, and only its CA bundles are written.
    pub ca_bundle_only: bool,
    /// The ClusterRole that owns it.
    pub owner: Option<String>,
}

/// What is kept in step in a cluster.
#[derive(Debug, Clone)]
pub struct Controller {
    /// How often the Secret of a file system is read again.
    pub source_interval: Duration,
    /// How often the Secret beside each claim is compared with what it should be.
    pub resync: Duration,
    /// How pods that cannot end are freed; absent for never.
    pub cleaner: Option<Cleaner>,
    /// Whether pods are told that their application has ended.
    pub complete_jobs: bool,
    /// Where it is said what pods must know of file systems; absent for nowhere.
    pub file_systems: Option<ConfigMapRef>,
}

/// The pods that unmount what others left behind.
#[derive(Debug, Clone)]
pub struct Cleaner {
    /// Their namespace.
    pub namespace: String,
    /// Their service account.
    pub service_account: String,
    /// Their image.
    pub image: String,
    /// How long after its grace period a pod must hang.
    pub after: Duration,
    /// The folder of the kubelet on every node.
    pub kubelet_dir: PathBuf,
}

/// The CSI controller.
#[derive(Debug, Clone)]
pub struct Csi {
    /// The Unix socket.
    pub socket: PathBuf,
    /// The id of this node.
    pub node_id: String,
    /// The name of this cluster in records.
    pub cluster: String,
    /// The key that records are sealed with.
    pub record_key: KeyFile,
    /// Files with a Secret each, of file systems whose volumes are listed.
    pub secret_files: Vec<PathBuf>,
    /// The most volumes that calls are at, at once.
    pub max_calls: usize,
    /// Whether the size of a volume is enforced whose class does not say it.
    pub quota: bool,
    /// Whether a template that has no value refuses the volume.
    pub strict_templates: bool,
    /// How many days the trash keeps a volume whose class does not say it.
    pub trash_days: u32,
    /// Whether the trash is purged.
    pub purge: bool,
}

/// A file with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFile {
    /// Our own: made if it is not there.
    Own(PathBuf),
    /// One that the file names: it must be there.
    Named(PathBuf),
}

/// The JuiceFS client.
#[derive(Debug, Clone)]
pub struct JuiceFs {
    /// The client, a name in `PATH` or an absolute path.
    pub client: PathBuf,
    /// That of the Enterprise Edition, where there is one.
    pub enterprise_client: Option<PathBuf>,
    /// How long an idle worker stays.
    pub worker_idle: Duration,
    /// The most that a worker's start may take.
    pub start_timeout: Duration,
    /// The most that one request or run may take.
    pub call_timeout: Duration,
    /// The most workers at once.
    pub max_workers: usize,
}

/// The PolicyBindings of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyBindings {
    /// The namespace of the ConfigMaps with their modules, and of the Lease.
    pub namespace: String,
    /// What this process is called in their status.
    pub replica: String,
    /// How often it writes its counts there.
    pub report_every: Duration,
}

/// A binding with what the host needs to run it.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyConfig {
    /// As the file has it.
    pub typed: Value,
    /// The PolicyBinding that it is of; absent for one of the file.
    pub resource: Option<Resource>,
    /// What decisions know of it. Without hooks in the file, `hooks` is filled from the module once it is loaded.
    pub binding: Binding,
    /// Where its module comes from.
    pub module: Source,
    /// The cases that must hold before it is taken.
    pub tests: Option<Source>,
    /// The settings as JSON text, as the policy gets them.
    pub settings: String,
    /// Limits of one call.
    pub limits: Limits,
    /// What all calls in a second may take.
    pub rates: Rates,
    /// What it may import.
    pub grants: Grants,
}

/// Where a module comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A file, by its whole path.
    File(PathBuf),
    /// A key of a ConfigMap.
    ConfigMap(ConfigMapKey),
    /// An artifact in an OCI registry.
    Oci(Box<Oci>),
    /// A file at an address.
    Https(Https),
    /// What was in force last for the PolicyBinding of this name, from the cluster itself. No binding asks for it.
    PolicyModule(String),
}

/// Which PolicyBinding a binding is of.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Resource {
    /// Its uid: one that is made again under the same name is another one.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// The SHA-256 that its module must have, in hexadecimal: of one that was in force before. Absent for any.
    #[serde(default)]
    pub digest: Option<String>,
}

/// A module in an OCI registry. Files have their whole paths, and are read when it is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Oci {
    /// Where it is. Without keys it has a digest.
    pub reference: Reference,
    /// The keys that one of its signatures must be by.
    pub keys: Vec<Key>,
    /// Files with more of them.
    pub key_files: Vec<PathBuf>,
    /// A Secret beside Pith with the credentials.
    pub pull_secret: Option<String>,
    /// A Docker configuration with them.
    pub docker_config: Option<PathBuf>,
    /// The authorities of the servers' certificates.
    pub ca: Option<PathBuf>,
    /// Who is asked before the registry.
    pub mirrors: Vec<Mirror>,
    /// A folder in the place of the registry.
    pub layout: Option<PathBuf>,
    /// The most that each of those who are asked may take.
    pub timeout: Duration,
}

/// A module at an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Https {
    /// The address.
    pub url: Uri,
    /// What it is.
    pub digest: Digest,
    /// The authorities of the server's certificate.
    pub ca: Option<PathBuf>,
    /// The most that it may take.
    pub timeout: Duration,
}

impl PolicyConfig {
    /// A binding as the file has it, by which the module's path is relative to a folder.
    pub fn read(typed: Value, folder: &Path) -> Result<PolicyConfig> {
        policy(serde_json::from_value(typed).context("reading a policy's binding")?, folder)
    }

    /// The binding that the spec of a PolicyBinding describes. Paths of modules are of this machine's root.
    pub fn of_resource(name: &str, mut spec: Value, resource: Resource) -> Result<PolicyConfig> {
        // Its status has it again, once for each replica where something is wrong, and an object has 1.5 MiB at most.
        let size = spec.to_string().len();
        ensure!(
            size <= LARGEST_SPEC,
            "the spec has {size} bytes: at most {LARGEST_SPEC}; larger data goes into the module"
        );
        let Some(fields) = spec.as_object_mut() else { bail!("the spec of the PolicyBinding `{name}` is no map") };
        fields.insert("name".into(), name.into());
        // What is wrong repeats what somebody wrote, in a log and in a status.
        let config = PolicyConfig::read(spec, Path::new("/"))
            .map_err(|error| anyhow::Error::msg(clean(&format!("{error:#}"), WRONG)))?;
        Ok(PolicyConfig { resource: Some(resource), ..config })
    }
}

impl Config {
    /// Reads a file, puts the flags on top, and works out what it means.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Config> {
        let (typed, _) = read(path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        resolve(with_overrides(typed, overrides), folder).with_context(|| format!("{}", path.display()))
    }

    /// Where it stands what pods must know of file systems.
    pub fn file_systems(&self) -> Option<&ConfigMapRef> {
        match &self.objects {
            Some(ObjectSource::Cluster { file_systems, .. }) => file_systems.as_ref(),
            Some(ObjectSource::Directory(_)) | None => None,
        }
    }

    /// Tells people what has no effect.
    pub fn warn(&self) {
        for it in &self.ineffective {
            tracing::warn!("the JuiceFS driver's configuration has no effect here in {it}");
        }
    }

    /// The configuration in a file, and without a file the defaults, for commands that need none.
    pub fn load_or_built_in(path: Option<&Path>) -> Result<Config> {
        path.map_or_else(|| Ok(Config::built_in()), |path| Config::load(path, &Overrides::default()))
    }

    /// The defaults alone.
    pub fn built_in() -> Config {
        resolve(file::File::default(), Path::new(".")).expect("the defaults contradict nothing")
    }
}

/// One value of the effective configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Effective {
    /// Its place, as in `webhook.listen` or `policies[0].mode`.
    pub key: String,
    /// The value.
    pub value: Value,
    /// `flag`, `file` or `default`.
    pub origin: &'static str,
}

/// The effective configuration, value by value.
pub fn effective(path: &Path, overrides: &Overrides) -> Result<Vec<Effective>> {
    let (typed, raw) = read(path)?;
    let in_file = leaves(&raw);
    let before = leaves(&serde_json::to_value(&typed)?);
    let after = leaves(&serde_json::to_value(with_overrides(typed, overrides))?);
    let mut rows = Vec::with_capacity(after.len());
    for (key, value) in after {
        let origin = match () {
            () if before.get(&key) != Some(&value) => "flag",
            // A flag that repeats the file's value changes nothing, so the file keeps the credit.
            () if in_file.contains_key(&key) => "file",
            () => "default",
        };
        rows.push(Effective { key, value, origin });
    }
    Ok(rows)
}

/// The file as typed, and as a plain tree.
fn read(path: &Path) -> Result<(file::File, Value)> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading the configuration {}", path.display()))?;
    let name = || format!("the configuration {} is not usable", path.display());
    let typed: Option<file::File> = yaml_serde::from_str(&text).with_context(name)?;
    let raw: Value = yaml_serde::from_str(&text).with_context(name)?;
    Ok((typed.unwrap_or_default(), raw))
}

fn with_overrides(mut typed: file::File, overrides: &Overrides) -> file::File {
    if let (Some(listen), Some(webhook)) = (overrides.listen, &mut typed.webhook) {
        webhook.listen = listen;
    }
    if let Some(listen) = overrides.admin_listen {
        typed.admin.listen = listen;
    }
    if let Some(state_dir) = &overrides.state_dir {
        // A flag's path is relative to where the command runs, not to the file.
        typed.state_dir = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.clone());
    }
    typed
}

/// Every scalar (and every empty list or object) of a tree by its path, in the order of the tree.
fn leaves(tree: &Value) -> BTreeMap<String, Value> {
    fn walk(path: String, value: &Value, found: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(object) if !object.is_empty() => {
                for (key, value) in object {
                    // A key with a dot (a label, say) is quoted, so that the path can be read back.
                    let key = if key.contains('.') { format!("\"{key}\"") } else { key.clone() };
                    let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                    walk(path, value, found);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (index, value) in items.iter().enumerate() {
                    walk(format!("{path}[{index}]"), value, found);
                }
            }
            value => {
                found.insert(path, value.clone());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(String::new(), tree, &mut found);
    found
}

fn resolve(typed: file::File, folder: &Path) -> Result<Config> {
    let folder = std::path::absolute(folder).context("finding the folder of the configuration")?;
    let in_cluster = matches!(typed.objects, Some(file::ObjectSource::Cluster(_)));
    let file_systems = match &typed.objects {
        Some(file::ObjectSource::Cluster(it)) => it.file_systems.clone(),
        Some(file::ObjectSource::Directory(_)) | None => None,
    };
    let policies = typed.policies.into_iter().map(|binding| policy(binding, &folder)).collect::<Result<Vec<_>>>()?;
    let state_dir = folder.join(typed.state_dir);
    let DriverConfig { patches, native_sidecar, ineffective } = match typed.driver_config {
        Some(path) => driver_config(&folder.join(path))?,
        None => DriverConfig::default(),
    };
    Ok(Config {
        webhook: typed.webhook.map(|it| webhook(it, in_cluster, &folder)).transpose()?,
        controller: typed
            .controller
            .map(|it| controller(it, in_cluster, file_systems, typed.sidecar.complete_jobs))
            .transpose()?,
        admin: typed.admin.listen,
        log: typed.log,
        decisions: typed.decisions.map(|it| decisions(it, &folder)).transpose()?,
        objects: typed.objects.map(|objects| match objects {
            file::ObjectSource::Directory(directory) => ObjectSource::Directory(folder.join(directory)),
            file::ObjectSource::Cluster(it) => {
                let kubeconfig = it.kubeconfig.map(|path| folder.join(path));
                ObjectSource::Cluster { kubeconfig, file_systems: it.file_systems }
            }
        }),
        csi: typed.csi.map(|it| csi(it, &typed.driver, &folder, &state_dir)).transpose()?,
        juicefs: juicefs(typed.juicefs, &folder)?,
        state_dir,
        sidecars: Configuration {
            patches,
            shape: shape(typed.sidecar.shape, native_sidecar),
            ..sidecars(typed.driver, typed.sidecar, typed.file_systems)?
        },
        ineffective,
        policy_bindings: typed.policy_bindings.map(|it| policy_bindings(it, in_cluster)).transpose()?,
        policies: in_order(policies)?,
    })
}

fn policy_bindings(typed: file::PolicyBindings, in_cluster: bool) -> Result<PolicyBindings> {
    ensure!(in_cluster, "policyBindings is there and objects.cluster is not: PolicyBindings are in a cluster");
    ensure!(!typed.namespace.is_empty(), "policyBindings.namespace is empty");
    let report_every = typed.report_every.0;
    ensure!(report_every >= Duration::from_secs(1), "policyBindings.reportEvery is below 1s");
    let of_host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_string();
    let replica = typed.replica.unwrap_or_else(of_host);
    ensure!(!replica.is_empty(), "policyBindings.replica is empty, and the host has no name");
    Ok(PolicyBindings { namespace: typed.namespace, replica, report_every })
}

fn decisions(typed: file::Decisions, folder: &Path) -> Result<Decisions> {
    let file::Decisions { file, max_size, keep, percent, capture } = typed;
    ensure!(percent <= 100, "decisions.percent is {percent}: at most 100");
    ensure!(keep <= 1000, "decisions.keep is {keep}: at most 1000");
    ensure!(max_size.0 >= 1 << 20, "decisions.maxSize is below 1Mi: a file would be full at once");
    Ok(Decisions { file: file.map(|file| folder.join(file)), max_size: max_size.0, keep, percent, capture })
}

fn webhook(typed: file::Webhook, in_cluster: bool, folder: &Path) -> Result<Webhook> {
    ensure!(!typed.timeout.0.is_zero(), "webhook.timeout is zero: give it a span such as 10s");
    ensure!(typed.max_body.0 >= 1 << 10, "webhook.maxBody is below 1Ki: no review fits");
    ensure!(typed.max_in_flight > 0, "webhook.maxInFlight is zero: no request would be answered");
    let authority = typed.registration.as_ref().and_then(|it| it.ca_file.clone());
    let tls = tls(typed.tls, authority, in_cluster, folder)?;
    let registration = typed.registration.map(|it| registration(it, &tls, in_cluster, folder)).transpose()?;
    Ok(Webhook {
        listen: typed.listen,
        tls,
        registration,
        max_body: usize::try_from(typed.max_body.0).context("webhook.maxBody is too large")?,
        max_in_flight: usize::try_from(typed.max_in_flight).context("webhook.maxInFlight is too large")?,
        timeout: typed.timeout.0,
    })
}

fn controller(
    typed: file::Controller,
    in_cluster: bool,
    file_systems: Option<ConfigMapRef>,
    complete_jobs: bool,
) -> Result<Controller> {
    ensure!(in_cluster, "controller is there and objects.cluster is not: what it keeps in step is in a cluster");
    for (key, span) in [("sourceInterval", typed.source_interval), ("resync", typed.resync)] {
        ensure!(!span.0.is_zero(), "controller.{key} is zero: give it a span such as 30s");
    }
    let cleaner = |it: file::Cleaner| {
        for (key, value) in
            [("namespace", &it.namespace), ("serviceAccount", &it.service_account), ("image", &it.image)]
        {
            ensure!(!value.is_empty(), "controller.cleaner.{key} is empty");
        }
        ensure!(it.kubelet_dir.is_absolute(), "controller.cleaner.kubeletDir must be an absolute path");
        Ok(Cleaner {
            namespace: it.namespace,
            service_account: it.service_account,
            image: it.image,
            after: it.after.0,
            kubelet_dir: it.kubelet_dir,
        })
    };
    Ok(Controller {
        source_interval: typed.source_interval.0,
        resync: typed.resync.0,
        complete_jobs,
        file_systems,
        cleaner: typed.cleaner.map(cleaner).transpose()?,
    })
}

fn tls(typed: file::Tls, authority: Option<PathBuf>, in_cluster: bool, folder: &Path) -> Result<Tls> {
    let files = matches!(typed, file::Tls::Files(_));
    ensure!(
        files || authority.is_none(),
        "webhook.registration.caFile is for webhook.tls.files: Pith knows its own CA"
    );
    Ok(match typed {
        file::Tls::SelfSigned(it) if it.names.is_empty() => {
            bail!("webhook.tls.selfSigned.names is empty: name at least one")
        }
        file::Tls::SelfSigned(it) => Tls::SelfSigned(it.names),
        file::Tls::Files(it) => Tls::Files {
            certificate: folder.join(it.certificate),
            key: folder.join(it.key),
            authority: authority.map(|path| folder.join(path)),
        },
        file::Tls::Secret(it) => Tls::Shared(shared_secret(it, in_cluster)?),
    })
}

fn shared_secret(typed: file::SharedSecret, in_cluster: bool) -> Result<SharedSecret> {
    ensure!(in_cluster, "webhook.tls.secret is in a cluster: it needs `objects: {{cluster: …}}`");
    for (key, value) in [("namespace", &typed.namespace), ("name", &typed.name)] {
        ensure!(!value.is_empty(), "webhook.tls.secret.{key} is empty: name the Secret");
    }
    ensure!(!typed.names.is_empty(), "webhook.tls.secret.names is empty: name at least one");
    let (lifetime, overlap) = (typed.lifetime.0, typed.overlap.0);
    ensure!(!overlap.is_zero(), "webhook.tls.secret.overlap is zero: give it a span such as 1m");
    // A renewal takes two overlaps and some seconds, and has a third of the lifetime.
    ensure!(
        lifetime >= (overlap * 9).max(SHORTEST_LIFETIME),
        "webhook.tls.secret.lifetime is too short for a renewal: give it {SHORTEST_LIFETIME:?} or more, and nine times the overlap"
    );
    ensure!(lifetime <= LONGEST_LIFETIME, "webhook.tls.secret.lifetime is longer than ten years");
    Ok(SharedSecret { namespace: typed.namespace, name: typed.name, names: typed.names, lifetime, overlap })
}

fn registration(typed: file::Registration, tls: &Tls, in_cluster: bool, folder: &Path) -> Result<Registration> {
    ensure!(in_cluster, "webhook.registration is for a cluster: it needs `objects: {{cluster: …}}`");
    let foreign = matches!(tls, Tls::Files { authority: None, .. });
    ensure!(
        !typed.ca_bundle_only || !foreign,
        "webhook.registration.caBundleOnly has nothing to write: with webhook.tls.files it needs caFile"
    );
    ensure!(
        !typed.ca_bundle_only || typed.owner.is_none(),
        "webhook.registration has caBundleOnly and an owner: what somebody else made is removed by them"
    );
    Ok(Registration {
        manifest: folder.join(typed.manifest),
        ca_bundle_only: typed.ca_bundle_only,
        owner: typed.owner.map(|owner| match owner.kind {
            file::OwnerKind::ClusterRole => owner.name,
        }),
    })
}

fn csi(typed: file::Csi, driver: &str, folder: &Path, state_dir: &Path) -> Result<Csi> {
    // CSI's form of a plugin's name; external-provisioner begins no volume for another.
    let letter = |it: Option<char>| it.is_some_and(|it| it.is_ascii_alphabetic());
    let plain = driver.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '-' | '.' | '_'));
    let well_formed = plain && driver.len() <= 63 && letter(driver.chars().next()) && letter(driver.chars().last());
    ensure!(
        well_formed,
        "driver is `{driver}`: CSI wants letters, digits, `-`, `.` and `_`, at most 63, a letter at both ends"
    );
    for (key, value, most) in [("nodeId", &typed.node_id, 256), ("cluster", &typed.cluster, 128)] {
        ensure!(!value.is_empty() && value.len() <= most, "csi.{key} must have 1 to {most} bytes");
    }
    ensure!(typed.max_calls > 0, "csi.maxCalls is zero: no volume could be made");
    let days = typed.trash_days;
    ensure!(days <= MOST_TRASH_DAYS, "csi.trashDays is {days}: the most is {MOST_TRASH_DAYS}, a hundred years");
    Ok(Csi {
        socket: folder.join(typed.socket),
        node_id: typed.node_id,
        cluster: typed.cluster,
        record_key: match typed.record_key {
            Some(path) => KeyFile::Named(folder.join(path)),
            None => KeyFile::Own(state_dir.join("record.key")),
        },
        secret_files: typed.secret_files.iter().map(|path| folder.join(path)).collect(),
        max_calls: usize::try_from(typed.max_calls).context("csi.maxCalls is too large")?,
        quota: typed.quota,
        strict_templates: typed.strict_templates,
        trash_days: days,
        purge: typed.purge,
    })
}

fn juicefs(typed: file::JuiceFs, folder: &Path) -> Result<JuiceFs> {
    let spans =
        [("workerIdle", typed.worker_idle), ("startTimeout", typed.start_timeout), ("callTimeout", typed.call_timeout)];
    if let Some((key, _)) = spans.into_iter().find(|(_, span)| span.0.is_zero()) {
        bail!("juicefs.{key} is zero: give it a span such as 10s");
    }
    let program = |key: &str, typed: PathBuf| -> Result<PathBuf> {
        ensure!(!typed.as_os_str().is_empty(), "juicefs.{key} is empty: name the client");
        let is_name = typed.components().count() == 1 && typed.is_relative() && !typed.starts_with(".");
        Ok(if is_name { in_path(&typed) } else { folder.join(typed) })
    };
    ensure!(typed.max_workers > 0, "juicefs.maxWorkers is zero: no file system could be reached");
    Ok(JuiceFs {
        client: program("client", typed.client)?,
        enterprise_client: typed.enterprise_client.map(|client| program("enterpriseClient", client)).transpose()?,
        worker_idle: typed.worker_idle.0,
        start_timeout: typed.start_timeout.0,
        call_timeout: typed.call_timeout.0,
        max_workers: usize::try_from(typed.max_workers).context("juicefs.maxWorkers is too large")?,
    })
}

/// Where a program is that is named without its folder. Now, because the client itself is started without any variable. One that
/// is not found keeps its name, which the error of its start then says.
#[expect(clippy::disallowed_methods, reason = "this is the file that may read the environment")]
fn in_path(name: &Path) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|it| it.is_file());
    found.unwrap_or_else(|| name.to_path_buf())
}

/// The Docker configuration that `docker` itself would take, if it is there.
#[expect(clippy::disallowed_methods, reason = "this is the file that may read the environment")]
pub fn docker_config() -> Option<PathBuf> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".docker")))?;
    Some(folder.join("config.json")).filter(|it| it.is_file())
}

fn in_order(mut policies: Vec<PolicyConfig>) -> Result<Vec<PolicyConfig>> {
    let mut names = BTreeSet::new();
    for policy in &policies {
        let name = &policy.binding.name;
        ensure!(!name.is_empty(), "a policy has an empty name");
        ensure!(names.insert(name.clone()), "two policies have the name `{name}`: a name must be unique");
    }
    policies.sort_by(|a, b| binding::order(&a.binding, &b.binding));
    Ok(policies)
}

fn sidecars(driver: String, sidecar: file::Sidecar, file_systems: Vec<file::FileSystem>) -> Result<Configuration> {
    let mut secrets = BTreeSet::new();
    for file_system in &file_systems {
        let secret = &file_system.secret;
        let known = secrets.insert((secret.namespace.clone(), secret.name.clone()));
        ensure!(known, "two file systems have the Secret `{}/{}`: which one is meant?", secret.namespace, secret.name);
    }
    if let Some(key) = sidecar.claim_overrides.iter().find(|key| !key.starts_with("juicefs/")) {
        bail!("sidecar.claimOverrides has `{key}`: only annotations that begin with juicefs/ are read");
    }
    Ok(Configuration {
        driver,
        image: sidecar.image,
        enterprise_image: sidecar.enterprise_image,
        shape: None,
        complete_jobs: sidecar.complete_jobs,
        strict_templates: sidecar.strict_templates,
        guard_image: sidecar.guard_image,
        requests: amounts(sidecar.resources.requests),
        limits: amounts(sidecar.resources.limits),
        cache: match sidecar.cache {
            file::Cache::Container {} => Cache::Container,
            file::Cache::EmptyDir(it) => {
                Cache::EmptyDir { in_memory: it.in_memory, size_limit: it.size_limit.map(|limit| limit.0.to_string()) }
            }
        },
        ceilings: amounts(sidecar.ceilings),
        claim_overrides: sidecar.claim_overrides.into_iter().collect(),
        file_systems: file_systems.into_iter().map(file_system).collect(),
        patches: Vec::new(),
    })
}

/// The shape, where anybody has said it.
fn shape(configured: file::Shape, driver: Option<bool>) -> Option<Shape> {
    match (configured, driver) {
        (file::Shape::Container, _) | (file::Shape::Auto, Some(false)) => Some(Shape::Container),
        (file::Shape::NativeSidecar, _) | (file::Shape::Auto, Some(true)) => Some(Shape::NativeSidecar),
        (file::Shape::Auto, None) => None,
    }
}

fn driver_config(path: &Path) -> Result<DriverConfig> {
    let name = || format!("driverConfig names {}, which is not usable", path.display());
    let text = std::fs::read_to_string(path).with_context(name)?;
    let file: Option<Value> = yaml_serde::from_str(&text).with_context(name)?;
    mount_pod_patch::read(&file.unwrap_or_default()).map_err(anyhow::Error::msg).with_context(name)
}

fn file_system(typed: file::FileSystem) -> FileSystem {
    FileSystem {
        name: typed.name,
        secret: SecretRef { namespace: typed.secret.namespace, name: typed.secret.name },
        image: typed.image,
        mount_options: typed.mount_options,
        requests: amounts(typed.resources.requests),
        limits: amounts(typed.resources.limits),
    }
}

fn amounts(typed: BTreeMap<String, file::Amount>) -> BTreeMap<String, Quantity> {
    typed.into_iter().map(|(name, amount)| (name, amount.0)).collect()
}

fn policy(typed: file::Binding, folder: &Path) -> Result<PolicyConfig> {
    let name = &typed.name;
    let limits = Limits::within(typed.limits.deadline.0, typed.limits.memory.0);
    let limits = limits.map_err(|problem| anyhow!("policy `{name}` has {problem}"))?;
    let rates = rates(name, &typed.limits)?;
    ensure!(typed.percent <= 100, "policy `{name}` has percent {}: at most 100", typed.percent);
    ensure!(typed.settings.is_object(), "policy `{name}` has settings that are not a map");
    ensure!(typed.hooks.as_ref().is_none_or(|hooks| !hooks.is_empty()), "policy `{name}` has an empty list of hooks");
    let tests = tests(&typed, folder)?;
    let as_typed = serde_json::to_value(&typed).with_context(|| format!("policy `{name}`"))?;
    let matches = Match {
        namespaces: selector(name, typed.matches.namespace_selector)?,
        pods: selector(name, typed.matches.pod_selector)?,
        claims: selector(name, typed.matches.claim_selector)?,
        storage_classes: typed.matches.storage_classes.into_iter().collect(),
        conditions: conditions(name, &typed.matches.conditions)?,
    };
    Ok(PolicyConfig {
        typed: as_typed,
        resource: None,
        module: source(typed.module, folder)
            .with_context(|| format!("policy `{name}` has a module that cannot be used"))?,
        tests,
        settings: typed.settings.to_string(),
        limits,
        rates,
        grants: grants(typed.grants).with_context(|| format!("policy `{name}`"))?,
        binding: Binding {
            hooks: typed.hooks.unwrap_or_default().into_iter().map(hook).collect(),
            matches,
            percent: typed.percent,
            mode: match typed.mode {
                file::Mode::Enforce => Mode::Enforce,
                file::Mode::Monitor => Mode::Monitor,
            },
            shape: shape(typed.shape, None),
            on_failure: match typed.on_failure {
                file::OnFailure::Fail => OnFailure::Fail,
                file::OnFailure::Default => OnFailure::Default,
            },
            priority: typed.priority,
            name: typed.name,
        },
    })
}

fn grants(typed: Vec<file::Grant>) -> Result<Grants> {
    let mut grants = Grants::default();
    for grant in typed {
        match grant {
            file::Grant::Object => grants.object = true,
            file::Grant::Clock => grants.clock = true,
            file::Grant::Lookup(kinds) => {
                ensure!(!kinds.is_empty(), "grants has a `lookup` of no kind: name some, or leave it out");
                grants.lookup.extend(kinds.into_iter().map(|kind| match kind {
                    file::LookupKind::Namespace => Kind::Namespace,
                    file::LookupKind::StorageClass => Kind::StorageClass,
                    file::LookupKind::PersistentVolume => Kind::PersistentVolume,
                    file::LookupKind::PersistentVolumeClaim => Kind::Claim,
                }));
            }
        }
    }
    Ok(grants)
}

/// Where the tests of a binding come from.
fn tests(typed: &file::Binding, folder: &Path) -> Result<Option<Source>> {
    let beside_module = match &typed.module {
        file::Module::ConfigMap(ConfigMapKey { name, tests: Some(key), .. }) => {
            Some(Source::ConfigMap(ConfigMapKey { name: name.clone(), key: key.clone(), tests: None }))
        }
        _ => None,
    };
    let of_file = typed.tests.as_ref().map(|path| Source::File(folder.join(path)));
    let name = &typed.name;
    ensure!(
        of_file.is_none() || beside_module.is_none(),
        "policy `{name}` has tests, and module.configMap.tests: which are meant?"
    );
    Ok(of_file.or(beside_module))
}

fn rates(policy: &str, typed: &file::Limits) -> Result<Rates> {
    let (calls, time) = (typed.calls_per_second, typed.time_per_second.map(|it| it.0));
    ensure!(
        calls != Some(0),
        "policy `{policy}` has limits.callsPerSecond 0: it would never be asked; leave it out for no bound"
    );
    let sensible = Duration::from_millis(1)..=Duration::from_secs(60);
    let is_sensible = time.is_none_or(|it| sensible.contains(&it));
    ensure!(is_sensible, "policy `{policy}` has limits.timePerSecond outside 1ms to 60s");
    Ok(Rates { calls, time })
}

fn conditions(policy: &str, typed: &[file::Condition]) -> Result<Vec<Condition>> {
    let count = typed.len();
    ensure!(count <= MOST_CONDITIONS, "policy `{policy}` has {count} conditions: at most {MOST_CONDITIONS}");
    let mut names = BTreeSet::new();
    let read = |file::Condition { name, expression }: &'_ file::Condition| {
        ensure!(
            (1..=63).contains(&name.len()),
            "policy `{policy}` has a condition whose name has {} bytes: 1 to 63",
            name.len()
        );
        Condition::parse(name, expression)
            .map_err(|problem| anyhow!("policy `{policy}` has the condition `{name}`, which cannot be used: {problem}"))
    };
    for condition in typed {
        let name = &condition.name;
        ensure!(names.insert(name), "policy `{policy}` has two conditions with the name `{name}`");
    }
    typed.iter().map(read).collect()
}

fn source(typed: file::Module, folder: &Path) -> Result<Source> {
    let whole = |path: PathBuf| folder.join(path);
    match typed {
        file::Module::File(path) => Ok(Source::File(whole(path))),
        file::Module::ConfigMap(key) => Ok(Source::ConfigMap(key)),
        file::Module::Oci(it) => Ok(Source::Oci(Box::new(oci(it, &whole)?))),
        file::Module::Https(it) => {
            let url: Uri = it.url.parse().context("url is no address")?;
            ensure!(url.scheme_str() == Some("https"), "url does not begin with https://");
            let names_a_user = url.authority().is_none_or(|it| it.as_str().contains('@'));
            ensure!(!names_a_user, "url has no host, or a user's name before it, which is not supported");
            let digest = format!("sha256:{}", it.sha256).parse().context("sha256")?;
            Ok(Source::Https(Https { url, digest, ca: it.ca.map(whole), timeout: fetch_timeout(it.timeout)? }))
        }
    }
}

fn oci(typed: file::Oci, whole: &impl Fn(PathBuf) -> PathBuf) -> Result<Oci> {
    let reference: Reference = typed.reference.parse()?;
    let keys: Vec<Vec<Key>> = typed.keys.iter().map(|it| Key::read_all(it).context("keys")).collect::<Result<_>>()?;
    ensure!(
        reference.digest.is_some() || !(keys.is_empty() && typed.key_files.is_empty()),
        "{reference} is whatever has this tag: pin it by its digest (`pith policy pull` prints it), or give `keys` that it is signed with"
    );
    let (pull_secret, docker_config) = (typed.pull_secret, typed.docker_config.map(whole));
    ensure!(
        pull_secret.is_none() || docker_config.is_none(),
        "it has both pullSecret and dockerConfig: which one is meant?"
    );
    ensure!(
        typed.mirrors.is_empty() || typed.layout.is_none(),
        "it has both mirrors and layout: a folder takes the place of them all"
    );
    Ok(Oci {
        reference,
        keys: keys.concat(),
        key_files: typed.key_files.into_iter().map(whole).collect(),
        pull_secret,
        docker_config,
        ca: typed.ca.map(whole),
        mirrors: typed.mirrors.iter().map(|it| it.parse()).collect::<Result<_>>()?,
        layout: typed.layout.map(whole),
        timeout: fetch_timeout(typed.timeout)?,
    })
}

fn fetch_timeout(typed: file::Period) -> Result<Duration> {
    let longest = LONGEST_FETCH.as_secs();
    ensure!(
        !typed.0.is_zero() && typed.0 <= LONGEST_FETCH,
        "timeout is {}s: more than 0, and at most {longest}",
        typed.0.as_secs()
    );
    Ok(typed.0)
}

fn hook(typed: file::Hook) -> Hook {
    match typed {
        file::Hook::Exemption => Hook::Exemption,
        file::Hook::Sidecar => Hook::Sidecar,
        file::Hook::Naming => Hook::Naming,
        file::Hook::Quota => Hook::Quota,
    }
}

fn selector(policy: &str, typed: file::LabelSelector) -> Result<LabelSelector> {
    let requirement = |typed: file::Requirement| {
        let operator = match (typed.operator, typed.values.is_empty()) {
            (file::Operator::In, false) => Operator::In(typed.values),
            (file::Operator::NotIn, false) => Operator::NotIn(typed.values),
            (file::Operator::Exists, true) => Operator::Exists,
            (file::Operator::DoesNotExist, true) => Operator::DoesNotExist,
            (operator, _) => {
                let rule =
                    if matches!(operator, file::Operator::In | file::Operator::NotIn) { "needs" } else { "takes no" };
                bail!("policy `{policy}` selects by the label `{}` with {operator:?}, which {rule} values", typed.key)
            }
        };
        Ok(Requirement { key: typed.key, operator })
    };
    let expressions = typed.match_expressions.into_iter().map(requirement).collect::<Result<_>>()?;
    Ok(LabelSelector { labels: typed.match_labels.into_iter().collect(), expressions })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("pith.yaml");
        std::fs::write(&path, text)?;
        Config::load(&path, &Overrides::default())
    }

    /// What a person reads is the whole chain; the folder's name is not part of what is compared.
    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        let error = format!("{:#}", load(text).expect_err("the file must be refused"));
        assert!(error.contains(expected), "expected `{expected}` in: {error}");
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        let config = load("").expect("empty is fine");
        assert_eq!(config.webhook.map(|it| it.listen.port()), Some(9443));
        assert!(load("webhook: null").expect("it may be absent").webhook.is_none());
        assert_eq!(config.sidecars, Config::built_in().sidecars);
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_refused_with_their_line() {
        check_error("webhook:\n  listen: 127.0.0.1:1\n  port: 3\n", "unknown field `port`");
        check_error("webhook:\n  listen: 127.0.0.1:1\n  port: 3\n", "line 3");
        check_error("sidecar:\n  ceilings:\n    cpu: lots\n", "line 3");
        check_error("sidecar: {resources: {limits: {cpu: -1}}}", "`-1` is negative");
        check_error("webhook: {timeout: soon}", "no span of time");
        check_error("policies:\n- name: a\n  module: {file: a.wasm}\n  mode: strict\n", "line 4");
        check_error("driver: a\ndriver: b\n", "duplicate");
    }

    #[test]
    fn grants_are_words_and_maps_in_yaml_and_in_what_is_kept() {
        let config = load(
            "policies:\n- name: a\n  module: {file: a.wasm}\n  grants: [object, clock, {lookup: [Namespace]}, {lookup: \
             [PersistentVolumeClaim]}]\n",
        );
        let policy = config.expect("it is well formed").policies.remove(0);
        let lookup = [Kind::Namespace, Kind::Claim].into();
        assert_eq!(policy.grants, Grants { object: true, clock: true, lookup });
        let kept = PolicyConfig::read(policy.typed.clone(), Path::new("/")).expect("what is kept can be read");
        assert_eq!((&kept.grants, &kept.typed), (&policy.grants, &policy.typed));
        check_error(
            "policies: [{name: a, module: {file: a.wasm}, grants: [{lookup: [Secret]}]}]",
            "unknown variant `Secret`",
        );
        check_error(
            "policies: [{name: a, module: {file: a.wasm}, grants: [{lookup: []}]}]",
            "policy `a`: grants has a `lookup` of no kind",
        );
    }

    #[test]
    fn one_of_several_is_written_as_a_map_with_one_key() {
        let config =
            load("webhook: {tls: {files: {certificate: a.crt, key: a.key}}}\nsidecar: {cache: {container: {}}}\n");
        let config = config.expect("it is well formed");
        assert_eq!(config.sidecars.cache, Cache::Container);
        assert!(matches!(config.webhook.map(|it| it.tls), Some(Tls::Files { .. })));
        check_error("sidecar:\n  cache:\n    hostPath: {}\n", "unknown variant `hostPath`");
        assert_eq!(load("").expect("it may be absent").objects, None);
        let objects = |text: &str| load(text).expect("it is well formed").objects.expect("it is there");
        assert_eq!(objects("objects: {cluster: {}}"), ObjectSource::Cluster { kubeconfig: None, file_systems: None });
        assert_eq!(objects("objects: {directory: /a}"), ObjectSource::Directory("/a".into()));
        check_error("objects: {directory: a, cluster: {}}", "objects");
        check_error("objects: {cluster: {namespace: a}}", "unknown field `namespace`");
        check_error("controller: {}", "controller is there and objects.cluster is not");
        check_error("objects: {cluster: {}}\ncontroller: {resync: 0s}", "controller.resync is zero");
        check_error("objects: {cluster: {}}\ncontroller: {cleaner: {}}", "missing field `namespace`");
    }

    #[test]
    fn contradictions_are_refused_with_the_name() {
        let twice = "policies: [{name: a, module: {file: a.wasm}}, {name: a, module: {file: b.wasm}}]";
        check_error(twice, "two policies have the name `a`");
        let forever = "policies: [{name: a, module: {file: a.wasm}, limits: {deadline: 1h}}]";
        check_error(forever, "policy `a` has limits.deadline outside 1ms to 10s");
        let greedy = "policies: [{name: a, module: {file: a.wasm}, limits: {memory: 65Mi}}]";
        check_error(greedy, "policy `a` has limits.memory outside 64Ki to 64Mi");
        let digest = format!("sha256:{}", "0".repeat(64));
        for (module, expected) in [
            ("oci: {reference: ghcr.io/a/b:1}".to_string(), "pin it by its digest"),
            ("oci: {reference: a/b:1}".into(), "no registry"),
            (format!("oci: {{reference: ghcr.io/a/b@{digest}, keys: [s3cret]}}"), "it has no key"),
            (format!("oci: {{reference: ghcr.io/a/b@{digest}, pullSecret: a, dockerConfig: b}}"), "which one is meant"),
            (format!("oci: {{reference: ghcr.io/a/b@{digest}, mirrors: [x]}}"), "no mirror"),
            (
                format!("oci: {{reference: ghcr.io/a/b@{digest}, mirrors: [x.io], layout: b}}"),
                "both mirrors and layout",
            ),
            (format!("oci: {{reference: ghcr.io/a/b@{digest}, timeout: 1h}}"), "at most 600"),
            ("https: {url: 'http://a.io/x', sha256: '00'}".into(), "does not begin with https://"),
            ("https: {url: 'https://a.io/x', sha256: '00'}".into(), "64 hexadecimal digits"),
            ("https: {url: 'https://me:s3cret@a.io/x', sha256: '00'}".into(), "a user's name"),
        ] {
            check_error(&format!("policies: [{{name: a, module: {{{module}}}}}]"), expected);
        }
        let values = "policies: [{name: a, module: {file: a.wasm}, match: {podSelector: {matchExpressions: [{key: k, operator: In}]}}}]";
        check_error(values, "selects by the label `k` with In, which needs values");
        check_error("sidecar: {claimOverrides: [mountOptions]}", "only annotations that begin with juicefs/ are read");
        let never = "policies: [{name: a, module: {file: a.wasm}, limits: {callsPerSecond: 0}}]";
        check_error(never, "policy `a` has limits.callsPerSecond 0: it would never be asked");
        let hardly = "policies: [{name: a, module: {file: a.wasm}, limits: {timePerSecond: 10us}}]";
        check_error(hardly, "policy `a` has limits.timePerSecond outside 1ms to 60s");
        let conditions =
            |list: &str| format!("policies: [{{name: a, module: {{file: a.wasm}}, match: {{conditions: {list}}}}}]");
        let unread = conditions("[{name: c, expression: pod.labels.}]");
        check_error(&unread, "policy `a` has the condition `c`, which cannot be used: line 1, column 12:");
        let text = conditions("[{name: c, expression: \"pod.name\"}]");
        check_error(
            &text,
            "`c`, which cannot be used: line 1, column 4: it gives text, and a condition is true or false",
        );
        let both = conditions("[{name: c, expression: 'true'}, {name: c, expression: 'true'}]");
        check_error(&both, "policy `a` has two conditions with the name `c`");
        let many: Vec<String> = (0..65).map(|index| format!("{{name: c{index}, expression: 'true'}}")).collect();
        check_error(&conditions(&format!("[{}]", many.join(", "))), "policy `a` has 65 conditions: at most 64");
        check_error(&conditions("[{name: '', expression: 'true'}]"), "a condition whose name has 0 bytes: 1 to 63");
        let settings = "policies: [{name: a, module: {file: a.wasm}, settings: [1]}]";
        check_error(settings, "settings that are not a map");
    }

    #[test]
    fn a_shared_certificate_and_a_registration_need_a_cluster_and_make_sense() {
        let secret = |more: &str| {
            format!(
                "webhook: {{tls: {{secret: {{namespace: a, name: b, names: [c]{more}}}}}}}\nobjects: {{cluster: {{}}}}"
            )
        };
        let tls = load(&secret("")).expect("the defaults do").webhook.expect("it is there").tls;
        let Tls::Shared(shared) = tls else { panic!("{tls:?}") };
        assert_eq!((shared.lifetime.as_secs(), shared.overlap.as_secs()), (90 * 86_400, 60));
        let outside = secret("").replace("objects: {cluster: {}}", "");
        check_error(&outside, "webhook.tls.secret is in a cluster: it needs `objects: {cluster: …}`");
        check_error(&secret(", lifetime: 1m"), "lifetime is too short for a renewal");
        check_error(&secret(", lifetime: 11years"), "longer than ten years");
        check_error(&secret(", overlap: 0s"), "overlap is zero");
        check_error(&secret("").replace("[c]", "[]"), "webhook.tls.secret.names is empty");

        let registration = |tls: &str, more: &str| {
            let tls = if tls.is_empty() { String::new() } else { format!("tls: {tls}, ") };
            format!("webhook: {{{tls}registration: {{manifest: m.yaml{more}}}}}\nobjects: {{cluster: {{}}}}")
        };
        let files = "{files: {certificate: a, key: b}}";
        let found = load(&registration("", ", owner: {kind: ClusterRole, name: pith}")).expect("it is well formed");
        let found = found.webhook.and_then(|it| it.registration).expect("it is there");
        assert!(found.manifest.is_absolute() && !found.ca_bundle_only);
        assert_eq!(found.owner.as_deref(), Some("pith"));
        let found = load(&registration(files, ", caFile: ca.crt, caBundleOnly: true")).expect("it is well formed");
        assert!(matches!(found.webhook.map(|it| it.tls), Some(Tls::Files { authority: Some(_), .. })));
        let outside = registration("", "").replace("objects: {cluster: {}}", "");
        check_error(&outside, "webhook.registration is for a cluster");
        check_error(&registration("", ", caFile: ca.crt"), "caFile is for webhook.tls.files");
        check_error(&registration(files, ", caBundleOnly: true"), "it needs caFile");
        let both = registration("", ", caBundleOnly: true, owner: {kind: ClusterRole, name: a}");
        check_error(&both, "what somebody else made is removed by them");
        check_error(&registration("", ", owner: {kind: Node, name: a}"), "unknown variant `Node`");
    }

    #[test]
    fn the_csi_controller_is_there_only_where_it_is_configured() {
        assert!(load("").expect("empty is fine").csi.is_none());
        let config = load("csi: {}\nstateDir: s").expect("the defaults do");
        let csi = config.csi.expect("it is configured");
        assert_eq!(csi.socket, Path::new("/run/pith/csi.sock"));
        assert_eq!(csi.record_key, KeyFile::Own(config.state_dir.join("record.key")));
        assert_eq!((csi.trash_days, csi.purge), (7, true));
        check_error("csi: {maxCalls: 0}", "csi.maxCalls is zero: no volume could be made");
        check_error("csi: {trashDays: 36501}", "csi.trashDays is 36501: the most is 36500, a hundred years");
        check_error("csi: {trashDays: 1.5}", "csi.trashDays");
        let csi =
            load("csi: {socket: c.sock, recordKey: keys/k}").expect("it is well formed").csi.expect("it is there");
        let folder = csi.socket.parent().expect("a folder").to_path_buf();
        assert!(folder.is_absolute());
        assert_eq!(csi.record_key, KeyFile::Named(folder.join("keys/k")));
        check_error("csi: {sockets: a}", "unknown field `sockets`");
        check_error("csi: {cluster: ''}", "csi.cluster must have 1 to 128 bytes");
        check_error("csi: {}\ndriver: 4u", "driver is `4u`: CSI wants letters");
        check_error("csi: {}\ndriver: a/b", "driver is `a/b`: CSI wants letters");
    }

    #[test]
    fn the_configuration_of_the_juicefs_driver_is_read_beside_the_file() {
        let load = |text: &str| {
            let folder = tempfile::tempdir()?;
            std::fs::write(folder.path().join("pith.yaml"), "driverConfig: driver/config.yaml")?;
            std::fs::create_dir(folder.path().join("driver"))?;
            std::fs::write(folder.path().join("driver/config.yaml"), text)?;
            Config::load(&folder.path().join("pith.yaml"), &Overrides::default())
        };
        let config = load("mountPodPatch: [{ceMountImage: a, hostPID: true}]").expect("it is fine");
        assert_eq!(config.sidecars.patches[0].image.as_deref(), Some("a"));
        assert_eq!(config.ineffective, ["mountPodPatch[0].hostPID: a sidecar has the pod's processes"]);
        assert_eq!(load("").expect("an empty one too").sidecars.patches, []);
        let error = format!("{:#}", load("mountPodPatch: [{ceMountImage: 7}]").expect_err("it is refused"));
        assert!(error.ends_with("which is not usable: mountPodPatch[0].ceMountImage is not text"), "{error}");
        check_error("driverConfig: nowhere.yaml", "nowhere.yaml, which is not usable: No such file");
    }

    #[test]
    fn a_client_without_a_slash_is_looked_up_in_path() {
        let client = |text: &str| {
            let config = load(&format!("juicefs: {{client: {text}}}")).expect("it is well formed");
            config.juicefs.client
        };
        assert_eq!(client("no-such-client"), Path::new("no-such-client"));
        assert!(client("sh").is_absolute());
        assert_eq!(client("/opt/jfs"), Path::new("/opt/jfs"));
        assert!(client("./jfs").is_absolute());
        assert!(client("bin/jfs").is_absolute());
        check_error("juicefs: {workerIdle: 0s}", "juicefs.workerIdle is zero: give it a span such as 10s");
        check_error("juicefs: {maxWorkers: 0}", "juicefs.maxWorkers is zero");
        check_error("juicefs: {client: ''}", "juicefs.client is empty");
        check_error("juicefs: {enterpriseClient: ''}", "juicefs.enterpriseClient is empty");
    }

    #[test]
    fn bindings_run_by_priority_then_name() {
        let policy =
            |name: &str, priority: i32| format!("- {{name: {name}, module: {{file: a.wasm}}, priority: {priority}}}\n");
        let text = format!("policies:\n{}{}{}", policy("b", 0), policy("late", 5), policy("a", 0));
        let config = load(&text).expect("it is well formed");
        let names: Vec<&str> = config.policies.iter().map(|policy| policy.binding.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "late"]);
    }

    #[test]
    fn each_effective_value_names_its_origin() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pith.yaml");
        std::fs::write(&path, "driver: example.com\nlog: {filter: debug}\n").expect("written");
        let overrides = Overrides { listen: Some(([127, 0, 0, 1], 1).into()), ..Overrides::default() };
        let rows = effective(&path, &overrides).expect("it is well formed");
        let origin = |key: &str| rows.iter().find(|row| row.key == key).map(|row| row.origin);
        assert_eq!(origin("driver"), Some("file"));
        assert_eq!(origin("log.filter"), Some("file"));
        assert_eq!(origin("log.format"), Some("default"));
        assert_eq!(origin("webhook.listen"), Some("flag"));
        assert_eq!(origin("sidecar.resources.limits.cpu"), Some("default"));
    }
}
