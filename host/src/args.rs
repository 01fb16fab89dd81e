//! The command line exactly as it is typed. What it means is `config.rs`'s and the commands' own.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

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
    /// Injects offline: the same decision as the webhook's, on pods from files.
    ///
    /// Exit codes: 0 every pod was injected or skipped, 1 a pod was refused or a policy failed, 2 the command could not run.
    Inject(Inject),
    /// Looks at policy modules.
    #[command(subcommand)]
    Policy(Policy),
    /// Prints the effective configuration with the origin of each value, its JSON Schema, or its reference.
    Config(Config),
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

/// What `inject` takes.
#[derive(Debug, ClapArgs)]
pub struct Inject {
    /// A YAML or JSON file with pods, a folder of such files, or `-` for standard input.
    #[arg(short, long = "filename", value_name = "PATH")]
    pub filename: PathBuf,
    /// The configuration file; the built-in defaults without policies where it is absent.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Take Namespaces, StorageClasses, PersistentVolumes and claims from this folder (`objects.directory`).
    #[arg(long, value_name = "DIR")]
    pub objects: Option<PathBuf>,
    /// The namespace of pods that name none.
    #[arg(long, short, default_value = "default")]
    pub namespace: String,
    /// Say for each pod what was decided, why, and where each value came from.
    #[arg(long)]
    pub explain: bool,
    /// What to print: the pods after injection, or what changed.
    #[arg(short, long, value_enum, default_value_t = InjectOutput::Yaml)]
    pub output: InjectOutput,
}

/// The forms of `inject`'s output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InjectOutput {
    /// The pods as YAML; with --explain, the explanation as comments behind each.
    Yaml,
    /// The pods as a JSON list; with --explain, the explanations instead.
    Json,
    /// A unified diff of the YAML.
    Diff,
}

/// What `policy` can do.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Lists what modules are: digest, form, hooks, imports.
    Inspect(PolicyInspect),
}

/// What `policy inspect` takes.
#[derive(Debug, ClapArgs)]
pub struct PolicyInspect {
    /// `.wasm` files.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t = TextOutput::Text)]
    pub output: TextOutput,
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
