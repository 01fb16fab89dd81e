//! The developer commands of Pith, run as `cargo xtask …`.
//!
//! It is the first thing that a newcomer compiles, so its dependencies are few. It never links the host: it runs the `pith`
//! binary as a user would.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to whoever runs it")]

mod bench;
mod cluster;
mod command;
mod demo;
mod fuzz;
mod generate;
mod images;
mod policies;
mod terminal;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The developer commands of Pith.
///
/// Start with `cargo xtask demo`: it sets up what it needs and shows the main job on this machine, without a cluster.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110, disable_help_subcommand = true)]
#[command(
    after_help = "Tools that are fetched (the JuiceFS client, cargo-deny) go to $XDG_CACHE_HOME/pith or ~/.cache/pith, by \
                        version; everything else goes to target/."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the main job: volumes made for claims, admission reviews answered by real policies, and the injected sidecar run on
    /// a real JuiceFS.
    ///
    /// Nine steps, each from real parts: tools, policies, a file system, the server, three volumes over CSI (a retry, two refusals),
    /// three pods over TLS (injected, exempt, refused), the injected containers as processes until a quota stops them, a volume
    /// deleted, what to try next. The seventh needs root and /dev/fuse; without them the demo says which one is missing and goes
    /// on. Edit what is in deploy/demo and run it again.
    Demo {
        /// Shows it in a real Kubernetes instead: Pith is installed by Helm, and an application team applies a claim and a
        /// Deployment. The cluster is of this machine, needs root, and stays for looking around.
        #[arg(long)]
        cluster: bool,
    },
    /// Runs the checks: all of them, as CI does, or the part that takes seconds.
    ///
    /// A missing tool is an error that names it, never a skip: some parts need root and /dev/fuse.
    Test {
        /// Which checks.
        #[arg(value_enum, default_value_t = test::Selection::All)]
        selection: test::Selection,
    },
    /// Builds the first-party policies and copies them to target/policies/<name>.wasm.
    Policies,
    /// Builds the container images, for Pith and for its tests, as OCI archives target/images/<image>.tar.
    ///
    /// It needs neither a daemon nor a registry: `ctr --namespace k8s.io images import` and `skopeo copy oci-archive:` read them.
    /// The same input gives the same digest, and an archive that is up to date is left alone. What is missing is installed with
    /// apt-get. The first build of Pith takes minutes.
    Images(images::Options),
    /// Measures a policy call, the webhook (load, memory, start) and volumes, and keeps the tables in docs/performance.md. Takes
    /// minutes.
    Bench {
        /// Measure this alone, and keep its table only.
        #[arg(value_enum)]
        part: Option<bench::Part>,
    },
    /// Gives one part of Pith millions of inputs that libFuzzer makes, and stops where one finds something.
    ///
    /// What was found is kept in tests/fuzz/found, and is a unit test from then on. The first build takes a quarter of an hour, and needs a
    /// C++ compiler.
    Fuzz(fuzz::Options),
    /// Runs a real Kubernetes on this machine, in namespaces of its own: for the tests, and to try things out.
    ///
    /// The programs are built from Go modules (tests/cluster) the first time, which takes a quarter of an hour.
    Cluster {
        #[command(subcommand)]
        action: cluster::Action,
    },
    /// Writes the files that are generated: docs/configuration.md and docs/pith.schema.json from the code, and deploy/rendered
    /// from the chart.
    Generate {
        /// Write nothing; fail if a file is not what it would be.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Each cause on a line of its own, and never a backtrace: the sentences say what to do.
            for (index, cause) in error.chain().enumerate() {
                eprintln!("{}{cause}", if index == 0 { "error: " } else { "  because: " });
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo { cluster: true } => demo::in_cluster::run(),
        Command::Demo { cluster: false } => demo::run(),
        Command::Test { selection } => test::run(selection),
        Command::Policies => policies::run(),
        Command::Images(options) => images::run(&options),
        Command::Bench { part: None } => bench::run(),
        Command::Bench { part: Some(bench::Part::AdmissionCluster) } => bench::admission_cluster(),
        Command::Bench { part: Some(bench::Part::Policies) } => bench::policies_in_operation(),
        Command::Bench { part: Some(bench::Part::Kills) } => bench::kills(),
        Command::Bench { part: Some(bench::Part::Volumes) } => bench::volumes(),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Cluster { action } => cluster::run_action(action),
        Command::Generate { check: true } => generate::check(),
        Command::Generate { check: false } => generate::write(),
    }
}
