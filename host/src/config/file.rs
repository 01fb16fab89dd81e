//! The configuration file exactly as it is typed.
//!
//! Field docs are the text of `docs/configuration.md` and of the JSON Schema. What the values mean together (paths made absolute,
//! names checked against each other) is `config.rs`'s; a value that is wrong on its own is refused here, with its line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pith_core::Quantity;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The configuration of `pith`. Relative paths are relative to the folder of the file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct File {
    /// The admission webhook; `null` for a process that answers no reviews.
    pub webhook: Option<Webhook>,
    /// What Pith keeps in step in a cluster: the Secrets of claims, and pods that hang. Absent for nothing; it needs
    /// `objects.cluster`.
    pub controller: Option<Controller>,
    /// The listener for health, readiness and metrics (plain HTTP).
    pub admin: Admin,
    /// A folder that belongs to this process alone: self-made certificates and compiled policies.
    pub state_dir: PathBuf,
    /// The log, on standard error.
    pub log: Log,
    /// The decision log; there is none where this is absent.
    pub decisions: Option<Decisions>,
    /// The CSI driver whose volumes are Pith's.
    pub driver: String,
    /// The `config.yaml` of the JuiceFS CSI driver's ConfigMap, read at start: its `mountPodPatch` counts for sidecars too, above
    /// what claims say and below `fileSystems`. What has no effect there is named in the log.
    pub driver_config: Option<PathBuf>,
    /// Where Namespaces, StorageClasses, PersistentVolumes and PersistentVolumeClaims come from; there are none where this is
    /// absent.
    #[serde(with = "yaml_serde::with::singleton_map")]
    #[schemars(with = "Option<ObjectSource>")]
    pub objects: Option<ObjectSource>,
    /// What every sidecar looks like unless a StorageClass, PersistentVolume, claim, file system or policy says otherwise.
    pub sidecar: Sidecar,
    /// File systems that need settings of their own, found by the Secret that a StorageClass or PersistentVolume names.
    pub file_systems: Vec<FileSystem>,
    /// Policies put to use. They run by priority, then name.
    pub policies: Vec<Binding>,
    /// Policies that are put to use by PolicyBindings of the cluster, beside those of this file; absent for none. It needs
    /// `objects.cluster`.
    pub policy_bindings: Option<PolicyBindings>,
    /// The CSI controller, which makes and removes volumes; there is none where this is absent.
    pub csi: Option<Csi>,
    /// The JuiceFS client, with which the CSI controller reaches file systems.
    pub juicefs: JuiceFs,
}

impl Default for File {
    fn default() -> File {
        File {
            webhook: Some(Webhook::default()),
            controller: None,
            admin: Admin::default(),
            state_dir: "state".into(),
            log: Log::default(),
            decisions: None,
            driver: "csi.juicefs.com".into(),
            driver_config: None,
            objects: None,
            sidecar: Sidecar::default(),
            file_systems: Vec::new(),
            policies: Vec::new(),
            policy_bindings: None,
            csi: None,
            juicefs: JuiceFs::default(),
        }
    }
}

/// The admission webhook.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Webhook {
    /// The address that it listens on. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The serving certificate.
    #[serde(with = "yaml_serde::with::singleton_map")]
    #[schemars(with = "Tls")]
    pub tls: Tls,
    /// The MutatingWebhookConfiguration that Pith writes and keeps as it is to be. Where this is absent it is somebody else's.
    pub registration: Option<Registration>,
    /// The largest request body. An AdmissionReview can carry an object twice, and etcd allows 1.5 MiB for one.
    pub max_body: Bytes,
    /// How many requests may be in hand at once, which also bounds the memory for bodies; one more is answered with 503.
    pub max_in_flight: u32,
    /// The most that one request may take, its body included. A shorter `timeout` parameter of the API server wins.
    pub timeout: Period,
}

impl Default for Webhook {
    fn default() -> Webhook {
        Webhook {
            listen: SocketAddr::from(([127, 0, 0, 1], 9443)),
            tls: Tls::default(),
            registration: None,
            max_body: Bytes(7 << 20),
            max_in_flight: 256,
            timeout: Period(Duration::from_secs(10)),
        }
    }
}

/// Where the serving certificate comes from.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Tls {
    /// Made by Pith, together with a CA, in `<stateDir>/tls`: `ca.crt` is what clients trust.
    SelfSigned(SelfSigned),
    /// Read from PEM files, again whenever they change: cert-manager, say, renews them there.
    Files(TlsFiles),
    /// Made by Pith in a Secret that all replicas share, and renewed there. It needs `objects: {cluster: …}`.
    Secret(SharedSecret),
}

impl Default for Tls {
    fn default() -> Tls {
        Tls::SelfSigned(SelfSigned::default())
    }
}

/// A certificate made by Pith.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SelfSigned {
    /// DNS names and IP addresses that it is for.
    pub names: Vec<String>,
}

impl Default for SelfSigned {
    fn default() -> SelfSigned {
        SelfSigned { names: vec!["localhost".into(), "127.0.0.1".into()] }
    }
}

/// A certificate from files.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// A certificate that all replicas share.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SharedSecret {
    /// The namespace of the Secret.
    pub namespace: String,
    /// Its name. Whichever replica comes first makes it.
    pub name: String,
    /// DNS names and IP addresses that the certificate is for: of a Service, `<name>.<namespace>.svc`.
    pub names: Vec<String>,
    /// How long a certificate and its CA last. They are renewed when a third of that is left.
    #[serde(default = "ninety_days")]
    #[schemars(with = "Option<Period>", extend("default" = "90d"))]
    pub lifetime: Period,
    /// How long API servers and replicas may take to hear of a change: a new CA is known for this long before its certificate is
    /// served, and an old one is trusted for this long afterwards.
    #[serde(default = "one_minute")]
    #[schemars(with = "Option<Period>", extend("default" = "1m"))]
    pub overlap: Period,
}

fn ninety_days() -> Period {
    Period(Duration::from_secs(90 * 24 * 60 * 60))
}

fn one_minute() -> Period {
    Period(Duration::from_secs(60))
}

/// How API servers are told of the webhook.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Registration {
    /// A file with the MutatingWebhookConfiguration, YAML. The CA bundle is put into each of its webhooks.
    pub manifest: PathBuf,
    /// Write nothing but the CA bundle, into the webhooks of a configuration that somebody else made under that name.
    #[serde(default)]
    pub ca_bundle_only: bool,
    /// A file with the CA bundle that clients are to trust, PEM, where the certificate comes from files. Without it the bundle is
    /// left to whoever else writes it.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// An object with whose end the configuration is removed too.
    #[serde(default)]
    pub owner: Option<Owner>,
}

/// The owner of an object.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Owner {
    /// Its kind.
    pub kind: OwnerKind,
    /// Its name.
    pub name: String,
}

/// What may own what Pith makes: it has no namespace, so that it can own what has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OwnerKind {
    /// A ClusterRole.
    ClusterRole,
}

/// The admin listener.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Admin {
    /// The address that it listens on. Port 0 takes a free one.
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin { listen: SocketAddr::from(([127, 0, 0, 1], 9080)) }
    }
}

/// The log.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Log {
    /// Text for people, JSON for machines; `auto` is text on a terminal.
    pub format: LogFormat,
    /// Levels, as in `info` or `info,pith::webhook=debug`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Log {
        Log { format: LogFormat::Auto, filter: "info".into() }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// JSON, one object a line.
    Json,
}

/// The decision log: a line of JSON for each decision about a pod or a new volume, with what policies answered.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Decisions {
    /// The file that it is written to; standard output where this is absent.
    pub file: Option<PathBuf>,
    /// A file that has grown to this size is renamed to `<file>.1`, that one to `<file>.2`, and so on.
    pub max_size: Bytes,
    /// How many of those are kept.
    #[schemars(range(max = 1000))]
    pub keep: u32,
    /// Of how many decisions in a hundred there is a line.
    #[schemars(range(max = 100))]
    pub percent: u8,
    /// Keeps what policies were asked, too: `pith policy replay` asks it again. Labels, annotations and settings are in that, and where a
    /// policy may see it, the whole object.
    pub capture: bool,
}

impl Default for Decisions {
    fn default() -> Decisions {
        Decisions { file: None, max_size: Bytes(64 << 20), keep: 4, percent: 100, capture: false }
    }
}

/// Where Kubernetes objects come from.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ObjectSource {
    /// A folder of YAML files, read at start. Other kinds than the four are ignored, Secrets above all.
    Directory(PathBuf),
    /// The API server of a cluster, followed while Pith runs. The chart in `deploy/chart` gives it the rights that it needs.
    Cluster(ClusterSource),
}

/// How the API server is reached.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterSource {
    /// A kubeconfig, for use outside of the cluster; the service account of Pith's pod where this is absent.
    pub kubeconfig: Option<PathBuf>,
    /// The ConfigMap in which the controller says what pods need to know of file systems, such as which are of the Enterprise
    /// Edition, and where the webhook reads it. It must be there. Without it, all are taken to be of the Community Edition.
    pub file_systems: Option<ConfigMapRef>,
}

/// The name of a ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigMapRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What Pith keeps in step in a cluster. Every replica does all of it: what one did already, the next finds done.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Controller {
    /// How often the Secret of a file system is read again, to see whether it changed. It is never watched.
    pub source_interval: Period,
    /// How often the Secret beside each claim is compared with what it should be. A claim that is bound, and a pod that is
    /// injected, have it looked at at once.
    pub resync: Period,
    /// Frees pods that cannot end because a JuiceFS mount was left on their node; absent for never.
    pub cleaner: Option<Cleaner>,
}

impl Default for Controller {
    fn default() -> Controller {
        Controller {
            source_interval: Period(Duration::from_secs(30)),
            resync: Period(Duration::from_secs(600)),
            cleaner: None,
        }
    }
}

/// The pods that unmount on a node what a pod's own containers could not, because all of them were killed at once.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cleaner {
    /// The namespace that they run in. They are privileged, so its Pod Security level must allow that.
    pub namespace: String,
    /// Their service account, which needs no rights.
    pub service_account: String,
    /// Their image, which has `/usr/local/bin/pith-guard`.
    pub image: String,
    /// How long after its grace period a pod must hang.
    #[serde(default = "half_a_minute")]
    pub after: Period,
    /// The folder of the kubelet on every node.
    #[serde(default = "kubelet_dir")]
    pub kubelet_dir: PathBuf,
}

fn half_a_minute() -> Period {
    Period(Duration::from_secs(30))
}

fn kubelet_dir() -> PathBuf {
    "/var/lib/kubelet".into()
}

/// The defaults and ceilings of sidecars.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sidecar {
    /// The image of the JuiceFS client. It has the client at `/usr/local/bin/juicefs`, and `test` and `umount` in its
    /// PATH: the client itself calls the latter when it is told to end.
    pub image: String,
    /// The image of the client of the Enterprise Edition, which has it at `/usr/bin/juicefs`, and `/sbin/mount.juicefs` and `grep`.
    pub enterprise_image: String,
    /// How pods get their clients.
    pub shape: Shape,
    /// Whether the controller tells pods that run to completion when their application has ended, where the client is a plain
    /// container and would go on. It writes an annotation by way of `pods/status`.
    pub complete_jobs: bool,
    /// Whether a pod is refused where a template has no value: in `driverConfig` one that is not known yet, in mount options a label
    /// that the claim does not have. Else it is empty, and an event on the pod says so.
    pub strict_templates: bool,
    /// The image of the guard, a container of each injected pod that lets a client that was killed come back, and unmounts what
    /// one leaves behind when it cannot do so itself. It has the guard at `/usr/local/bin/pith-guard`, as the image of Pith has.
    pub guard_image: String,
    /// Requests and limits of the client. Those of the guard are fixed.
    pub resources: Resources,
    /// Where the client keeps its cache.
    #[serde(with = "yaml_serde::with::singleton_map")]
    #[schemars(with = "Cache")]
    pub cache: Cache,
    /// The most that any request or limit may be, by resource name; comes after every policy.
    pub ceilings: BTreeMap<String, Amount>,
    /// Which `juicefs/…` annotations of a claim count.
    pub claim_overrides: Vec<String>,
}

impl Default for Sidecar {
    fn default() -> Sidecar {
        let amounts = |cpu: &str, memory: &str| {
            let amount = |text: &str| Amount(Quantity::from_str(text).expect("a constant quantity"));
            BTreeMap::from([("cpu".to_string(), amount(cpu)), ("memory".to_string(), amount(memory))])
        };
        Sidecar {
            image: "juicedata/mount:ce-v1.3.1".into(),
            enterprise_image: "juicedata/mount:ee-nightly".into(),
            shape: Shape::Auto,
            complete_jobs: false,
            strict_templates: false,
            guard_image: concat!("docker.io/pith/pith:", env!("CARGO_PKG_VERSION")).into(),
            resources: Resources { requests: amounts("1", "1Gi"), limits: amounts("2", "5Gi") },
            cache: Cache::default(),
            ceilings: BTreeMap::new(),
            claim_overrides: pith_core::settings::default_claim_overrides().into_iter().collect(),
        }
    }
}

/// How pods get their clients. Those on VCI and CCI, the virtual nodes of two clouds, need native sidecars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Shape {
    /// As native sidecars, and as plain containers where the cluster has none: before Kubernetes 1.29. `enableNativeSidecar` of
    /// `driverConfig` is asked first.
    #[default]
    Auto,
    /// As native sidecars.
    NativeSidecar,
    /// As plain containers. Init containers cannot use a claim then, and a killed client is started again only where the pod's
    /// `restartPolicy` says so.
    Container,
}

/// Requests and limits by resource name.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resources {
    /// What the scheduler sets aside.
    pub requests: BTreeMap<String, Amount>,
    /// What the container cannot pass.
    pub limits: BTreeMap<String, Amount>,
}

/// Where the client keeps its cache.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Cache {
    /// In the container's own writable layer.
    Container {},
    /// In an emptyDir.
    EmptyDir(EmptyDir),
}

impl Default for Cache {
    fn default() -> Cache {
        Cache::EmptyDir(EmptyDir::default())
    }
}

/// An emptyDir.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EmptyDir {
    /// In memory instead of on the node's disk.
    pub in_memory: bool,
    /// Its size limit; the client then keeps to nine tenths of it.
    pub size_limit: Option<Amount>,
}

/// A file system with settings of its own.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileSystem {
    /// Its name in messages.
    pub name: String,
    /// The Secret by which StorageClasses and PersistentVolumes refer to it. It is not read.
    pub secret: SecretRef,
    /// The image for its sidecars.
    #[serde(default)]
    pub image: Option<String>,
    /// Client options for its sidecars, as `name` or `name=value`.
    #[serde(default)]
    pub mount_options: Vec<String>,
    /// Requests and limits for its sidecars.
    #[serde(default)]
    pub resources: Resources,
}

/// The name of a Secret.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The CSI controller.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Csi {
    /// The Unix socket that it listens on, for its owner only. Its folder must be there.
    pub socket: PathBuf,
    /// What NodeGetInfo answers. Nothing is mounted by it.
    pub node_id: String,
    /// The name of this cluster in the records of its volumes. Two clusters that use one file system need two names, and a
    /// name is for ever: volumes of another cluster are not touched.
    pub cluster: String,
    /// The file with the key that records of volumes are sealed with: 64 hexadecimal digits, the same for every replica. Where
    /// this is absent it is `<stateDir>/record.key`, made at the first start. Without the key, volumes can no longer be deleted.
    pub record_key: Option<PathBuf>,
    /// Files with one Secret each (YAML), of file systems whose volumes are listed (ListVolumes, ControllerGetVolume), which is asked
    /// without a Secret. In a cluster they are those that StorageClasses name, and none has to be here.
    pub secret_files: Vec<PathBuf>,
    /// How many volumes calls may be at, at once. A file system has at most as many of these places as it leaves free, so one whose
    /// calls take long leaves room for the others.
    pub max_calls: u32,
    /// Whether a volume's size is enforced, by a quota on its directory. A StorageClass may say otherwise with the parameter
    /// `quota`: `"on"` or `"off"`. A change counts for volumes that are made or expanded later.
    pub quota: bool,
    /// Whether a volume is refused where a template in its class has no value: `pathPattern` names a label, say, that the claim does
    /// not have. Else it is empty text, and an event on the claim says so.
    pub strict_templates: bool,
    /// How many days a deleted volume stays in the trash, from where it can be brought back, before it is removed for good; 0 keeps
    /// nothing. A StorageClass may say otherwise with the parameter `trashDays`. A change counts for what is in the trash too.
    pub trash_days: u32,
    /// Whether what was in the trash for long enough is removed. Off, nothing ever is.
    pub purge: bool,
}

impl Default for Csi {
    fn default() -> Csi {
        Csi {
            socket: "/run/pith/csi.sock".into(),
            node_id: "pith".into(),
            cluster: "default".into(),
            record_key: None,
            secret_files: Vec::new(),
            max_calls: 256,
            quota: true,
            strict_templates: false,
            trash_days: 7,
            purge: true,
        }
    }
}

/// The JuiceFS client.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JuiceFs {
    /// The client: a name is looked up in `PATH`, anything with a `/` is a file.
    pub client: PathBuf,
    /// The client of the Enterprise Edition, in the same form. Without one, Pith makes no volumes in file systems of that edition, which
    /// pods can use all the same. Tried with a stand-in only.
    pub enterprise_client: Option<PathBuf>,
    /// How long the process for a file system stays when nothing is asked of it.
    pub worker_idle: Period,
    /// The most that its start may take.
    pub start_timeout: Period,
    /// The most that one request to it may take, and one run of the client.
    pub call_timeout: Period,
    /// How many such processes there may be at once: one for each file system that volumes were lately asked of.
    pub max_workers: u32,
}

impl Default for JuiceFs {
    fn default() -> JuiceFs {
        JuiceFs {
            client: "juicefs".into(),
            enterprise_client: None,
            worker_idle: Period(Duration::from_secs(600)),
            start_timeout: Period(Duration::from_secs(30)),
            call_timeout: Period(Duration::from_secs(10)),
            max_workers: 32,
        }
    }
}

/// PolicyBindings (`pith.dev/v1alpha1`), each of which puts a policy to use while Pith runs.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyBindings {
    /// The namespace of the ConfigMaps that their modules come from, and of the Lease by which replicas agree on who sums up.
    pub namespace: String,
    /// What this replica is called in their status; the name of the host, which is that of the pod, where this is absent.
    #[serde(default)]
    pub replica: Option<String>,
    /// How often the counts of this replica are written into their status. What is in force, and what cannot be, is written at once.
    #[serde(default = "often")]
    #[schemars(extend("default" = "30s"))]
    pub report_every: Period,
}

fn often() -> Period {
    Period(Duration::from_secs(30))
}

/// A policy put to use.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Binding {
    /// Unique among the bindings; in messages and metrics.
    pub name: String,
    /// The module.
    #[serde(with = "yaml_serde::with::singleton_map")]
    #[schemars(with = "Module")]
    pub module: Module,
    /// A table of cases, as `pith policy test` reads it. They are asked, with the settings and limits given here, before the binding is
    /// taken; where an answer is another one, it is not.
    #[serde(default)]
    pub tests: Option<PathBuf>,
    /// What it is asked; every hook that it exports where this is absent.
    #[serde(default)]
    pub hooks: Option<Vec<Hook>>,
    /// Which objects it is for; all where this is absent.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// How many of a hundred of these it is put to, by a hash of their names: always the same ones, and with a higher number those and
    /// more. The pods of a workload go together.
    #[serde(default = "all")]
    #[schemars(range(max = 100))]
    pub percent: u8,
    /// Settings, handed to the policy as JSON.
    #[serde(default = "no_settings")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub settings: serde_json::Value,
    /// Whether its answers count.
    #[serde(default)]
    pub mode: Mode,
    /// What follows when it fails: traps, overruns a limit, or answers what cannot be used.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Limits of one call.
    #[serde(default)]
    pub limits: Limits,
    /// Lower runs earlier.
    #[serde(default)]
    pub priority: i32,
    /// What it may import beside `log` and `origin`. Without it, its policy sees its question and nothing else.
    #[serde(default, with = "yaml_serde::with::singleton_map_recursive")]
    #[schemars(with = "Vec<Grant>")]
    pub grants: Vec<Grant>,
    /// How the pods that it is for get their clients, if not as `sidecar.shape` says. Of several bindings, the first that says so
    /// counts.
    #[serde(default)]
    pub shape: Shape,
}

fn all() -> u8 {
    100
}

fn no_settings() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

/// Where a module comes from: one of these.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Module {
    /// A `.wasm` file: a component, or a core module that the host wraps into one.
    File(PathBuf),
    /// A key of a ConfigMap in the namespace that `policyBindings` names.
    ConfigMap(ConfigMapKey),
    /// An artifact in an OCI registry.
    Oci(Oci),
    /// A file at an address.
    Https(Https),
}

/// A key of a ConfigMap, under `binaryData` or `data`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigMapKey {
    /// The name of the ConfigMap.
    pub name: String,
    /// The key, as in `sizes.wasm`.
    pub key: String,
    /// A key of the same ConfigMap with the table of cases that `tests` of the binding would name as a file.
    #[serde(default)]
    pub tests: Option<String>,
}

/// A module in an OCI registry.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Oci {
    /// Where it is: `registry/repository`, with `@sha256:…`, or with `:tag` where there are keys. A tag is looked up again each minute.
    pub reference: String,
    /// Public keys, PEM. Where there are any, here or in `keyFiles`, the artifact has to be signed with one of them, as `cosign sign
    /// --key` does it.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Files with more of them.
    #[serde(default)]
    pub key_files: Vec<PathBuf>,
    /// A Secret of the type `kubernetes.io/dockerconfigjson` with the registry's credentials, in the namespace that `policyBindings`
    /// names, else in Pith's own. It needs `objects.cluster`.
    #[serde(default)]
    pub pull_secret: Option<String>,
    /// A Docker configuration with them, where there is no such Secret.
    #[serde(default)]
    pub docker_config: Option<PathBuf>,
    /// The authorities of the servers' certificates, PEM; Mozilla's list where this is absent.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Registries that are asked before that of the reference, in this order; with a prefix of repositories, as in
    /// `mirror.example/hub`.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// A folder in the place of the registry: an OCI layout, as `pith policy pull --bundle` makes it.
    #[serde(default)]
    pub layout: Option<PathBuf>,
    /// The most that each of those who are asked may take, for all of it.
    #[serde(default = "thirty_seconds")]
    #[schemars(with = "Option<Period>", extend("default" = "30s"))]
    pub timeout: Period,
}

/// A module at an address.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Https {
    /// The address, which begins with `https://`.
    pub url: String,
    /// The module's SHA-256 in hexadecimal, as `pith policy inspect` prints it.
    pub sha256: String,
    /// The authorities of the server's certificate, PEM; Mozilla's list where this is absent.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The most that it may take.
    #[serde(default = "thirty_seconds")]
    #[schemars(with = "Option<Period>", extend("default" = "30s"))]
    pub timeout: Period,
}

fn thirty_seconds() -> Period {
    Period(Duration::from_secs(30))
}

/// What a policy can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Hook {
    /// Is this pod exempt from injection?
    Exemption,
    /// What does the sidecar look like?
    Sidecar,
    /// What is the directory of a new volume called?
    Naming,
    /// Is the size of a new volume enforced?
    Quota,
}

/// Which objects a binding is for; everything that is given must fit.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Match {
    /// By the labels of the namespace.
    pub namespace_selector: LabelSelector,
    /// By the labels of the pod; not consulted for the hooks `naming` and `quota`.
    pub pod_selector: LabelSelector,
    /// By the labels of the claim.
    pub claim_selector: LabelSelector,
    /// By the name of the claim's StorageClass; any where this is empty.
    pub storage_classes: Vec<String>,
    /// What must hold beside that: each of them, looked at when everything above fits.
    #[schemars(length(max = 64))]
    pub conditions: Vec<Condition>,
}

/// A condition in CEL, as in Kubernetes' `matchConditions`. One that cannot be evaluated, with no other one false, is a failure of the
/// binding.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// Unique among those of the binding; in messages and explanations.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The expression, which is true or false. It knows `pod`, `namespaceObject` and `claim`, as docs/operations/policies.md says.
    #[schemars(length(max = 1024))]
    pub expression: String,
}

/// A label selector, as in Kubernetes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LabelSelector {
    /// Labels with exactly these values.
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    pub match_expressions: Vec<Requirement>,
}

/// One requirement on a label.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What must hold of it.
    pub operator: Operator,
    /// The values, for `In` and `NotIn`.
    #[serde(default)]
    pub values: Vec<String>,
}

/// The operators of a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// Whether answers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// They count.
    #[default]
    Enforce,
    /// They are recorded and have no effect.
    Monitor,
}

/// What follows when a policy fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnFailure {
    /// The request fails with HTTP 500, and the webhook's failurePolicy in the cluster decides.
    #[default]
    Fail,
    /// Pith decides as if the binding were not there, and says so in a warning.
    Default,
}

/// What a policy may import beside `log` and `origin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Grant {
    /// The raw JSON of the object under decision.
    Object,
    /// The time at which the decision began.
    Clock,
    /// Objects of these kinds, as Pith knows them and without references to Secrets: those that are in namespaces, and Namespaces
    /// themselves, where the binding's `namespaceSelector` fits; PersistentVolumes where their claims are.
    Lookup(Vec<LookupKind>),
}

/// A kind that policies may look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LookupKind {
    /// Namespaces.
    Namespace,
    /// StorageClasses.
    StorageClass,
    /// PersistentVolumes that claims have.
    PersistentVolume,
    /// Claims.
    PersistentVolumeClaim,
}

/// Limits of one call, for which there is no "unlimited", and of what all calls in a second may take.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// The most time, from 1ms to 10s.
    pub deadline: Period,
    /// The most memory, from 64Ki to 64Mi.
    pub memory: Bytes,
    /// How often it is asked in a second, by each replica; as often as there is something to ask where this is absent.
    #[schemars(range(min = 1))]
    pub calls_per_second: Option<u32>,
    /// How long its calls may run in a second, all together and by each replica, from 1ms to 60s: that of several processors is more than a
    /// second. As long as it takes where this is absent.
    pub time_per_second: Option<Period>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            deadline: Period(Duration::from_millis(50)),
            memory: Bytes(16 << 20),
            calls_per_second: None,
            time_per_second: None,
        }
    }
}

/// A Kubernetes quantity, as text or as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount(pub Quantity);

/// A size in bytes, written as a Kubernetes quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// A span of time such as `50ms`, `10s`, `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period(pub Duration);

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Amount, D::Error> {
        /// `cpu: 2` and `cpu: 0.5` are numbers to YAML, and just as clear.
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Amount;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a quantity such as 500m, 2 or 1Gi")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                let quantity = Quantity::from_str(text).map_err(E::custom)?;
                if quantity.is_negative() {
                    return Err(E::custom(format!("`{text}` is negative")));
                }
                Ok(Amount(quantity))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Amount, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Amount, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Amount, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            bytes if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => {
                serializer.collect_str(&format_args!("{}Mi", bytes >> 20))
            }
            bytes if bytes >= 1 << 10 && bytes % (1 << 10) == 0 => {
                serializer.collect_str(&format_args!("{}Ki", bytes >> 10))
            }
            bytes => serializer.collect_str(&bytes),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let amount = Amount::deserialize(deserializer)?;
        let bytes = amount.0.bytes().ok_or_else(|| de::Error::custom(format!("`{}` is too large", amount.0)))?;
        Ok(Bytes(bytes))
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Period, D::Error> {
        let text = String::deserialize(deserializer)?;
        let period = humantime::parse_duration(&text);
        period
            .map(Period)
            .map_err(|error| de::Error::custom(format!("`{text}` is no span of time such as 50ms or 10s: {error}")))
    }
}

/// The three types above are text in the schema.
macro_rules! text_schema {
    ($($type:ident, $pattern:literal, $description:literal;)*) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": ["string", "number"], "pattern": $pattern, "description": $description})
            }
        }
    )*};
}

text_schema! {
    Amount, r"^[0-9.]+(e[0-9]+|[numkMGTPE]|[KMGTPE]i)?$", "A Kubernetes quantity: `500m`, `2`, `1Gi`.";
    Bytes, r"^[0-9.]+(e[0-9]+|[numkMGTPE]|[KMGTPE]i)?$", "A size in bytes as a Kubernetes quantity: `16Mi`.";
    Period, r"^([0-9]+ ?[a-z]+ ?)+$", "A span of time: `50ms`, `10s`, `1m30s`.";
}
