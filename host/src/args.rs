//! The command line exactly as it is typed. What it means is `config.rs`'s and the commands' own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use pith_core::Quantity;
use pith_core::catalogue::Code;

use crate::wasm::apart;

/// Gives Kubernetes pods JuiceFS volumes: injects the client as a sidecar, decided by WebAssembly policies.
#[derive(Debug, Parser)]
#[command(name = "pith", version, max_term_width = 110)]
#[command(
    after_help = "Try it without a cluster: cargo xtask demo. The configuration is described in docs/configuration.md."
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the admission webhook until SIGTERM or ctrl-c.
    Serve(Serve),
    /// Injects offline: the same decision as the webhook's, on pods and workloads from files.
    ///
    /// A workload (Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob …) gets in its template what its pods would get. What
    /// has no pods is printed as it came, except Secrets, so that the output can be applied:
    ///
    /// helm template … | pith inject -f - | kubectl apply -f -
    ///
    /// Exit codes: 0 every pod was injected or skipped, 1 a pod was refused or a policy failed, 2 the command could not run.
    Inject(Inject),
    /// Looks for what is wrong in a cluster, or would be: with the webhook and its certificate, namespaces, classes, claims and pods.
    ///
    /// The cluster is that of the configuration's `objects`, else the one that kubectl would ask. Nothing is changed. Of Secrets
    /// only their names are asked for, and what may not be read is listed as not looked at.
    ///
    /// kubectl get namespaces,sc,pv,pvc,pods,mutatingwebhookconfigurations,csidrivers -A -o yaml | pith check --objects -
    ///
    /// Exit codes: 0 no error and no warning was found, 1 there are some, 2 the command could not run.
    Check(Check),
    /// Explains the code of a reason: what it means, and what to do.
    ///
    /// Denials have it at their end, as in `(reason: claim-not-found)`; events, findings of `pith check` and metrics have it too.
    Reasons(Reasons),
    /// Looks at policy modules.
    #[command(subcommand)]
    Policy(Policy),
    /// Reads the records of volumes in a file system.
    ///
    /// What is listed is what the file system itself says, through a JuiceFS client of this command's own: no server needs to
    /// run. Records are read with the key and the cluster's name of the configuration (`csi`).
    #[command(subcommand)]
    Volumes(Volumes),
    /// Asks a CSI driver over its socket, as Kubernetes' sidecars do: for whoever looks for a fault.
    ///
    /// What a driver answers is printed; a Secret never is, and is never taken from the command line itself.
    ///
    /// Exit codes: 0 it answered, 1 it answered with an error (the code and the sentence are on standard error) or with no,
    /// 2 the command could not run.
    Csi(Csi),
    /// Prints the effective configuration with the origin of each value, its JSON Schema, or its reference.
    Config(Config),
    /// Compiles a policy module from standard input to standard output: what other commands start, under limits.
    #[command(name = apart::COMMAND, hide = true)]
    CompilePolicy {
        /// Seconds of processor time.
        seconds: u64,
        /// Bytes of memory.
        memory: u64,
    },
}

/// What `serve` takes.
#[derive(Debug, ClapArgs)]
pub struct Serve {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Flags that win over the file.
    #[command(flatten)]
    pub overrides: Overrides,
    /// Write the bound addresses as JSON to this file once both listeners are up (useful with port 0).
    #[arg(long, value_name = "FILE")]
    pub addresses_file: Option<PathBuf>,
    /// Kill the process when the provisioner reaches this step: for tests, in debug builds only.
    #[cfg(debug_assertions)]
    #[arg(long, hide = true)]
    pub die_at: Option<String>,
}

/// Flags that win over the configuration file.
#[derive(Debug, Default, Clone, ClapArgs)]
pub struct Overrides {
    /// Listen here for admission reviews (`webhook.listen`).
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Listen here for health and metrics (`admin.listen`).
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<SocketAddr>,
    /// Keep certificates and compiled policies here (`stateDir`).
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// What a command decides about, and by which configuration.
#[derive(Debug, ClapArgs)]
pub struct Subjects {
    /// What runs in a cluster, as in `deployment/web` or `pod/web-0`: its pods are decided about as they are, so that
    /// `pith inject -o diff` shows what a new one would have instead.
    #[arg(value_name = "RUNNING", required_unless_present = "filename", conflicts_with_all = ["filename", "objects"])]
    pub running: Vec<String>,
    /// A YAML or JSON file with pods and workloads, a folder of such files, or `-` for standard input.
    #[arg(short, long = "filename", value_name = "PATH")]
    pub filename: Option<PathBuf>,
    /// The cluster of what runs; the configuration's where this is absent, else the one that kubectl would ask.
    #[arg(long, value_name = "FILE", conflicts_with = "filename")]
    pub kubeconfig: Option<PathBuf>,
    /// The configuration file; the built-in defaults without policies where it is absent.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Take Namespaces, StorageClasses, PersistentVolumes and claims from this folder (`objects.directory`).
    #[arg(long, value_name = "DIR")]
    pub objects: Option<PathBuf>,
    /// The namespace of what names none.
    #[arg(long, short, default_value = "default")]
    pub namespace: String,
}

/// What `inject` takes.
#[derive(Debug, ClapArgs)]
pub struct Inject {
    /// The pods and workloads.
    #[command(flatten)]
    pub subjects: Subjects,
    /// The time that policies are told that ask for it, as in `2026-11-27T18:00:00Z`; now where it is absent.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    pub now: Option<SystemTime>,
    /// Say for each pod what was decided, why, and where each value came from.
    #[arg(long)]
    pub explain: bool,
    /// What to print: the objects after injection, or what changed.
    #[arg(short, long, value_enum, default_value_t = InjectOutput::Yaml)]
    pub output: InjectOutput,
}

/// The forms of `inject`'s output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InjectOutput {
    /// The objects as YAML; with --explain, the explanation as comments behind each.
    Yaml,
    /// The objects as a JSON list; with --explain, the explanations instead.
    Json,
    /// A unified diff of the YAML.
    Diff,
}

/// What `check` takes.
#[derive(Debug, ClapArgs)]
pub struct Check {
    /// The configuration file of `pith serve`; the built-in defaults without policies where it is absent.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Look only at this namespace, beside what belongs to none.
    #[arg(long, short)]
    pub namespace: Option<String>,
    /// Look at the objects in this file or folder, or on standard input (`-`), and ask no cluster.
    #[arg(long, value_name = "PATH", conflicts_with = "kubeconfig")]
    pub objects: Option<PathBuf>,
    /// Look at the cluster of this kubeconfig.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The form of the findings.
    #[arg(short, long, value_enum, default_value_t = AnswerOutput::Text)]
    pub output: AnswerOutput,
}

/// What `reasons` takes.
#[derive(Debug, ClapArgs)]
pub struct Reasons {
    /// The code, as in claim-not-found; where it is absent, all of them are explained, as Markdown.
    #[arg(value_parser = code)]
    pub code: Option<Code>,
}

/// What `policy` can do.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Lists what modules are (digest, form, hooks, imports), or what this host supports.
    Inspect(PolicyInspect),
    /// Asks a module every question of a table of cases, under the limits of a binding, and compares the answers. The exit code is
    /// 1 where one differs.
    Test(PolicyTest),
    /// Asks a module again what policies were asked whose decisions a decision log with `capture` has, and says what it answers
    /// otherwise. The exit code is 1 where it does.
    Replay(PolicyReplay),
    /// Says of pods, workloads and claims what would be decided otherwise by another configuration, or with those policies put to use
    /// that are in monitor mode. The exit code is 1 where something would.
    Diff(PolicyDiff),
    /// Says of pods, workloads and claims which bindings of a configuration are asked about them, and why the others are not. No policy
    /// is asked.
    Explain(PolicyExplain),
    /// Puts a module into an OCI registry, and prints the reference that pins it.
    ///
    /// It has the form of a Wasm OCI artifact, which other tools read too. The same module has the same digest wherever it is pushed.
    /// Credentials are those of `docker login`. Sign what was pushed with `cosign sign --key`, by the reference that is printed.
    ///
    /// pith policy push sizes.wasm registry.example/policies/sizes:1.2
    ///
    /// Exit codes: 0 it is there, 2 the module is no policy or could not be pushed.
    Push(PolicyPush),
    /// Fetches a module from an OCI registry, and prints the reference that pins it.
    ///
    /// With --key, a signature of cosign's by one of the keys is asked for. With --bundle, the artifact and its signatures go into a
    /// folder (an OCI layout), which takes the place of the registry where there is no network: `layout` in a binding, --layout here.
    ///
    /// pith policy pull registry.example/policies/sizes:1.2 --key cosign.pub -o sizes.wasm
    ///
    /// Exit codes: 0 it was fetched, 2 it could not be, or is not what was asked for.
    Pull(PolicyPull),
}

/// How registries are asked.
#[derive(Debug, ClapArgs)]
pub struct RegistryAccess {
    /// A Docker configuration with credentials; that of `docker login` where this is absent.
    #[arg(long, value_name = "FILE")]
    pub docker_config: Option<PathBuf>,
    /// The authorities of the servers' certificates, PEM; Mozilla's list where this is absent.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Give up after this long.
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration, default_value = "1m")]
    pub timeout: std::time::Duration,
}

/// Where artifacts are read from, and what must be true of them.
#[derive(Debug, ClapArgs)]
pub struct RegistryRead {
    /// How registries are asked.
    #[command(flatten)]
    pub access: RegistryAccess,
    /// A registry that is asked before the one of the reference; with a prefix of repositories, as in `mirror.example/hub`. Several are
    /// asked in their order.
    #[arg(long, value_name = "REGISTRY", conflicts_with = "layout")]
    pub mirror: Vec<String>,
    /// A folder in the place of the registry: an OCI layout, as --bundle of `pith policy pull` makes it.
    #[arg(long, value_name = "FOLDER")]
    pub layout: Option<PathBuf>,
    /// Public keys, PEM: a signature of cosign's by one of them is asked for.
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
}

/// What `policy push` takes.
#[derive(Debug, ClapArgs)]
pub struct PolicyPush {
    /// The `.wasm` file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where to, as in `registry.example/policies/sizes:1.2`.
    #[arg(value_name = "REFERENCE")]
    pub reference: String,
    /// How registries are asked.
    #[command(flatten)]
    pub access: RegistryAccess,
}

/// What `policy pull` takes.
#[derive(Debug, ClapArgs)]
pub struct PolicyPull {
    /// Where from: a tag, a digest, or both, of which the digest counts.
    #[arg(value_name = "REFERENCE")]
    pub reference: String,
    /// Where the module goes.
    #[arg(short, long, value_name = "FILE", required_unless_present = "bundle")]
    pub output: Option<PathBuf>,
    /// Where the artifact and its signatures go: a folder, which may have others already.
    #[arg(long, value_name = "FOLDER")]
    pub bundle: Option<PathBuf>,
    /// Where it is read from.
    #[command(flatten)]
    pub from: RegistryRead,
}

/// What `policy inspect` takes.
#[derive(Debug, ClapArgs)]
pub struct PolicyInspect {
    /// `.wasm` files, and modules in registries, as in `oci://registry.example/policies/sizes:1.2`.
    #[arg(required_unless_present = "host", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Says what this Pith offers to policies and asks of them instead.
    #[arg(long, conflicts_with = "files")]
    pub host: bool,
    /// Where modules in registries are read from.
    #[command(flatten)]
    pub from: RegistryRead,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t = TextOutput::Text)]
    pub output: TextOutput,
}

/// What `policy test` takes.
#[derive(Debug, ClapArgs)]
pub struct PolicyTest {
    /// The `.wasm` file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The table of cases, in YAML.
    #[arg(long, value_name = "FILE", default_value = "cases.yaml")]
    pub cases: PathBuf,
    /// The limits of each case.
    #[command(flatten)]
    pub limits: CaseLimits,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t = TextOutput::Text)]
    pub output: TextOutput,
}

/// What `policy diff` takes.
#[derive(Debug, ClapArgs)]
pub struct PolicyDiff {
    /// The pods, workloads and claims.
    #[command(flatten)]
    pub subjects: Subjects,
    /// The time that policies are told that ask for it, as in `2026-11-27T18:00:00Z`; now where it is absent.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    pub now: Option<SystemTime>,
    /// The other configuration; where it is absent, `--config` with each policy enforced that is in monitor mode.
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t = TextOutput::Text)]
    pub output: TextOutput,
}

/// What `policy replay` takes.
#[derive(Debug, ClapArgs)]
pub struct PolicyReplay {
    /// The `.wasm` file: the one that answered, or another.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The decision log; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    pub decisions: PathBuf,
    /// Only what this binding's policy was asked; needed where several were.
    #[arg(long, value_name = "NAME")]
    pub policy: Option<String>,
    /// Other settings than those of then, a map in YAML.
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// The limits of each question.
    #[command(flatten)]
    pub limits: CaseLimits,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t = TextOutput::Text)]
    pub output: TextOutput,
}

/// What one question of a table may use, and see.
#[derive(Debug, ClapArgs)]
pub struct CaseLimits {
    /// The most time that a case may take, as `limits.deadline` of a binding.
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration, default_value = "50ms")]
    pub deadline: std::time::Duration,
    /// The most memory that a case may take, as `limits.memory` of a binding.
    #[arg(long, value_name = "QUANTITY", default_value = "16Mi")]
    pub memory: Quantity,
    /// Lets the module see the whole object of a case, as `grants: [object]` of a binding.
    #[arg(long)]
    pub grant_object: bool,
    /// Lets the module ask what time it is, which is the `now` of a case, as `grants: [clock]` of a binding.
    #[arg(long)]
    pub grant_clock: bool,
    /// Lets the module look objects up, in the `lookups` of a case, as `grants: [{lookup: […]}]` of a binding with every kind.
    #[arg(long)]
    pub grant_lookup: bool,
}

/// What `policy explain` takes.
#[derive(Debug, ClapArgs)]
pub struct PolicyExplain {
    /// The pods, workloads and claims.
    #[command(flatten)]
    pub subjects: Subjects,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t = TextOutput::Text)]
    pub output: TextOutput,
}

/// What `csi` takes.
#[derive(Debug, ClapArgs)]
pub struct Csi {
    /// The driver's socket.
    #[arg(long, global = true, value_name = "unix:///PATH", default_value = "unix:///run/pith/csi.sock")]
    pub endpoint: String,
    /// Give up after this long, and tell the driver so. What it has begun, it may well finish.
    #[arg(long, global = true, value_name = "SPAN", value_parser = humantime::parse_duration, default_value = "1m")]
    pub timeout: std::time::Duration,
    /// The form of the answer.
    #[arg(short, long, global = true, value_enum, default_value_t = AnswerOutput::Text)]
    pub output: AnswerOutput,
    /// What to ask.
    #[command(subcommand)]
    pub command: CsiCommand,
}

/// The questions to a CSI driver.
#[derive(Debug, Subcommand)]
pub enum CsiCommand {
    /// Its name, its version, its node, and whether it is ready.
    Info,
    /// What it declares that it can do.
    Capabilities,
    /// Makes a volume, or finds the one that was made for the same name (CreateVolume).
    ///
    /// Like every call, it can be repeated: the same request has the same answer, and another one for the same name is
    /// ALREADY_EXISTS.
    #[command(
        after_help = "Example:\n  pith csi create pvc-1 --size 10Gi --mode rwx --secret-file secret.yaml --claim shop/data"
    )]
    Create(CsiCreate),
    /// Removes a volume (DeleteVolume). One that is not there is removed.
    Delete {
        /// The volume's id.
        id: String,
        /// What opens the file system.
        #[command(flatten)]
        secrets: CsiSecrets,
    },
    /// Gives a volume more room (ControllerExpandVolume).
    Expand {
        /// The volume's id.
        id: String,
        /// At least this much, as in 20Gi.
        #[arg(long, value_name = "SIZE", value_parser = size)]
        size: i64,
        /// At most this much.
        #[arg(long, value_name = "SIZE", value_parser = size)]
        limit: Option<i64>,
        /// What opens the file system.
        #[command(flatten)]
        secrets: CsiSecrets,
    },
    /// Changes what a VolumeAttributesClass can say of a volume (ControllerModifyVolume): `inodes`, `onDelete`, `trashDays`.
    #[command(
        after_help = "Example:\n  pith csi modify pvc-1 --set inodes=100000 --set onDelete=archive --secret-file secret.yaml"
    )]
    Modify {
        /// The volume's id.
        id: String,
        /// A parameter, as in a VolumeAttributesClass. May be repeated; what is not named stays.
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair, required = true)]
        parameters: Vec<(String, String)>,
        /// What opens the file system. Without it, the driver looks for the volume.
        #[command(flatten)]
        secrets: CsiSecrets,
    },
    /// Asks whether a volume is there and can be used in some way (ValidateVolumeCapabilities).
    Validate {
        /// The volume's id.
        id: String,
        /// The way.
        #[command(flatten)]
        usage: CsiUsage,
        /// What opens the file system.
        #[command(flatten)]
        secrets: CsiSecrets,
    },
    /// Lists volumes, of all file systems that the driver knows of (ListVolumes): all of them, or one page.
    ///
    /// No Secret goes along: the driver reads those that StorageClasses name, or its configuration. A file system that does not answer
    /// makes the whole list an error.
    List {
        /// One page of at most so many; all pages without it.
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..))]
        max_entries: Option<i32>,
        /// Begin where a page before said `nextToken`.
        #[arg(long, value_name = "TOKEN")]
        starting_token: Option<String>,
    },
    /// Describes one volume, of whichever file system (ControllerGetVolume).
    Get {
        /// The volume's id.
        id: String,
    },
    /// Makes, removes and lists snapshots.
    #[command(subcommand)]
    Snapshot(CsiSnapshot),
}

/// The questions about snapshots.
#[derive(Debug, Subcommand)]
pub enum CsiSnapshot {
    /// Makes a snapshot of a volume, or finds the one that was made for the same name (CreateSnapshot). It is answered when it is complete.
    #[command(
        after_help = "Example:\n  pith csi snapshot create before-upgrade --volume pvc-1 --secret-file secret.yaml"
    )]
    Create {
        /// The snapshot's name; csi-snapshotter uses `snapshot-` and the UID of the VolumeSnapshot.
        name: String,
        /// The volume's id.
        #[arg(long, value_name = "ID")]
        volume: String,
        /// A parameter, as in a VolumeSnapshotClass. May be repeated.
        #[arg(long = "parameter", value_name = "KEY=VALUE", value_parser = pair)]
        parameters: Vec<(String, String)>,
        /// What opens the file system.
        #[command(flatten)]
        secrets: CsiSecrets,
    },
    /// Removes a snapshot (DeleteSnapshot). One that is not there is removed. Volumes that were made from it stay.
    Delete {
        /// The snapshot's id.
        id: String,
        /// What opens the file system.
        #[command(flatten)]
        secrets: CsiSecrets,
    },
    /// Lists snapshots (ListSnapshots): all of them, or one page.
    List {
        /// Only those of this volume.
        #[arg(long, value_name = "ID")]
        volume: Option<String>,
        /// One page of at most so many; all pages without it.
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..))]
        max_entries: Option<i32>,
        /// Begin where a page before said `nextToken`.
        #[arg(long, value_name = "TOKEN")]
        starting_token: Option<String>,
        /// What opens the file system. Without it, the driver looks in all of them.
        #[command(flatten)]
        secrets: CsiSecrets,
    },
    /// Describes one snapshot (GetSnapshot).
    Get {
        /// The snapshot's id.
        id: String,
        /// What opens the file system. Without it, the driver looks in all of them.
        #[command(flatten)]
        secrets: CsiSecrets,
    },
}

/// What `csi create` takes.
#[derive(Debug, ClapArgs)]
pub struct CsiCreate {
    /// The volume's name; external-provisioner uses `pvc-` and the UID of the claim.
    pub name: String,
    /// At least this much, as in 10Gi; without a bound where neither this nor --limit is given.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub size: Option<i64>,
    /// At most this much.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub limit: Option<i64>,
    /// A parameter, as in a StorageClass. May be repeated.
    #[arg(long = "parameter", value_name = "KEY=VALUE", value_parser = pair)]
    pub parameters: Vec<(String, String)>,
    /// A parameter that can be changed later, as in a VolumeAttributesClass. May be repeated.
    #[arg(long = "mutable-parameter", value_name = "KEY=VALUE", value_parser = pair)]
    pub mutable_parameters: Vec<(String, String)>,
    /// Start with what this snapshot has, by its id.
    #[arg(long, value_name = "ID", conflicts_with = "from_volume")]
    pub from_snapshot: Option<String>,
    /// Start with what this volume has, by its id.
    #[arg(long, value_name = "ID")]
    pub from_volume: Option<String>,
    /// The claim that the volume is for, as external-provisioner says it with --extra-create-metadata.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = claim)]
    pub claim: Option<(String, String)>,
    /// How the volume is to be used.
    #[command(flatten)]
    pub usage: CsiUsage,
    /// What opens the file system.
    #[command(flatten)]
    pub secrets: CsiSecrets,
}

/// A way of using a volume.
#[derive(Debug, ClapArgs)]
pub struct CsiUsage {
    /// The access mode of the claim.
    #[arg(long, value_enum, default_value_t = CsiMode::Rwx)]
    pub mode: CsiMode,
    /// A mount option, as in a StorageClass. May be repeated.
    #[arg(long = "mount-flag", value_name = "FLAG")]
    pub mount_flags: Vec<String>,
}

/// The access modes of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CsiMode {
    /// ReadWriteMany.
    Rwx,
    /// ReadWriteOnce.
    Rwo,
    /// ReadOnlyMany.
    Rox,
    /// ReadWriteOncePod.
    Rwop,
}

/// A Secret, from files only: what stands on a command line can be read by every user of the machine.
#[derive(Debug, ClapArgs)]
pub struct CsiSecrets {
    /// A file with one Kubernetes Secret, YAML or JSON.
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// A key of the Secret, its value from a file. May be repeated, and wins over --secret-file.
    // Taken apart later: clap would repeat what is not well formed, and that may be the secret itself.
    #[arg(long = "secret", value_name = "KEY=@FILE")]
    pub secrets: Vec<String>,
}

/// The forms of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AnswerOutput {
    /// For people.
    Text,
    /// For scripts.
    Json,
    /// For whoever pastes it somewhere.
    Yaml,
}

fn code(text: &str) -> Result<Code, String> {
    Code::from_word(text).ok_or_else(|| "there is no such code: without one, all of them are printed".into())
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it has no `=`: write KEY=VALUE")?;
    Ok((key.into(), value.into()))
}

fn claim(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Ok((namespace.into(), name.into())),
        _ => Err("write NAMESPACE/NAME".into()),
    }
}

/// A quantity in bytes, as CSI counts them.
fn size(text: &str) -> Result<i64, String> {
    let quantity = Quantity::from_str(text).map_err(|error| error.to_string())?;
    let bytes = quantity.bytes().and_then(|bytes| i64::try_from(bytes).ok());
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "it is no size of a volume".into())
}

/// The commands about volumes.
#[derive(Debug, Subcommand)]
pub enum Volumes {
    /// Lists every volume: its directory, size, state and claim.
    ///
    /// Exit codes: 0 listed, 1 some records cannot be relied upon, 2 the command could not run.
    Ls(VolumesSource),
    /// Shows everything that is recorded of one volume.
    Show {
        /// The volume's id, which is the `volumeHandle` of its PersistentVolume.
        id: String,
        /// Where to look.
        #[command(flatten)]
        source: VolumesSource,
    },
    /// Lists every snapshot: the volume that it is of, its size, its state and when it was begun.
    ///
    /// One that nobody asks for any more and that is not complete can be removed with `pith csi snapshot delete`.
    ///
    /// Exit codes: 0 listed, 1 some records cannot be relied upon, 2 the command could not run.
    Snapshots(VolumesSource),
    /// Looks what is wrong with the volumes, and says what to do about each finding.
    ///
    /// It compares the records with the directories, the index, the quotas and the PersistentVolumes, and changes nothing. What it did
    /// not look at, such as a cluster that nobody named, it says. `pith reasons` explains each finding.
    ///
    /// Exit codes: 0 nothing but notes, 1 an error or a warning, 2 the command could not run.
    Check(VolumesCheck),
    /// Says what repairing the findings of `check` would do, and does it with --apply.
    ///
    /// No data is deleted: what goes, goes to the trash, and only on the word of a record of this cluster.
    ///
    /// Exit codes: 0 nothing is left but notes, 1 an error or a warning is left, 2 the command could not run.
    Repair {
        /// What to look at.
        #[command(flatten)]
        check: VolumesCheck,
        /// Do it.
        #[arg(long)]
        apply: bool,
    },
    /// Lists deleted volumes that have not been purged: since when, until when, and where they lie.
    ///
    /// A deleted volume stays in the trash for as many days as its StorageClass says (`trashDays`), else the configuration
    /// (`csi.trashDays`). With `onDelete: archive` it is never purged, and with `onDelete: retain` its directory never left its place.
    /// What nobody's record speaks for is listed as `left alone`: Pith never removes it.
    ///
    /// Exit codes: 0 listed, 1 something is left alone, 2 the command could not run.
    Trash(VolumesSource),
    /// Brings a deleted volume back from the trash or the archive: its directory, with its quota, and its record, under the same id.
    ///
    /// It does so only where nothing else has its id or its directory by now, and of a restore and a purge that begin at the same time
    /// one has it whole. Interrupted, run it again: it goes on. For a volume that is back, it prints the same once more.
    ///
    /// The cluster does not know the volume again until it has a PersistentVolume. `-o yaml` prints one with the right handle and
    /// attributes, for the claim that the volume was made for; its Secret is named where the file of --secret-file says its name and
    /// namespace:
    ///
    /// pith volumes restore-from-trash pvc-1 -c pith.yaml --secret-file secret.yaml -o yaml | kubectl apply -f -
    ///
    /// Exit codes: 0 it is back, 1 it cannot come back, 2 the command could not run.
    RestoreFromTrash(VolumesRestore),
}

/// What `volumes check` takes.
#[derive(Debug, ClapArgs)]
pub struct VolumesCheck {
    /// Where volumes are looked for.
    #[command(flatten)]
    pub source: VolumesSource,
    /// Compare with the PersistentVolumes and claims in this file or folder, or on standard input (`-`), and ask no cluster. As files
    /// may lack some, nothing is concluded from what they do not have.
    #[arg(long, value_name = "PATH", conflicts_with = "kubeconfig")]
    pub objects: Option<PathBuf>,
    /// Compare with those in the cluster of this kubeconfig; where neither is given, with the configuration's `objects`.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// What `volumes restore-from-trash` takes.
#[derive(Debug, ClapArgs)]
pub struct VolumesRestore {
    /// The volume's id, which was the `volumeHandle` of its PersistentVolume; or its place in the trash, as `pith volumes trash` lists
    /// it, where a volume of that id was deleted more than once.
    #[arg(value_name = "ID")]
    pub wanted: String,
    /// Where to look.
    #[command(flatten)]
    pub source: VolumesSource,
    /// Kill the process at this step: for tests, in debug builds only.
    #[cfg(debug_assertions)]
    #[arg(long, hide = true)]
    pub die_at: Option<String>,
}

/// Where volumes are looked for.
#[derive(Debug, ClapArgs)]
pub struct VolumesSource {
    /// The configuration file of `pith serve`.
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// What opens the file system.
    #[command(flatten)]
    pub secrets: CsiSecrets,
    /// The form of the answer.
    #[arg(short, long, value_enum, default_value_t = AnswerOutput::Text)]
    pub output: AnswerOutput,
}

/// What `config` takes.
#[derive(Debug, ClapArgs)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct Config {
    /// The configuration file whose effective values to print.
    #[arg(long, value_name = "FILE", group = "what")]
    pub config: Option<PathBuf>,
    /// Print the JSON Schema of the configuration file.
    #[arg(long, group = "what")]
    pub schema: bool,
    /// Print the reference of the configuration file as Markdown.
    #[arg(long, group = "what")]
    pub reference: bool,
    /// Print the CustomResourceDefinitions of PolicyBindings and PolicyModules as YAML.
    #[arg(long, group = "what")]
    pub crd: bool,
    /// Flags that win over the file.
    #[command(flatten)]
    pub overrides: Overrides,
    /// The form of the effective values.
    #[arg(short, long, value_enum, default_value_t = TextOutput::Text)]
    pub output: TextOutput,
}

/// Text for people or JSON for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TextOutput {
    /// For people.
    Text,
    /// For scripts.
    Json,
}
