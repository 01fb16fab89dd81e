//! The Pith host: everything that does IO around the decisions of `pith-core`.
//!
//! ```text
//! main ─ run ─┬─ webhook (review, handler) ─┐
//!             ├─ cli (inject, policy, config)├─ policy ─ wasm ─ pith-core
//!             ├─ admin, tls, registration    └─ cluster ─────── pith-core
//!             └─ controller (secrets, cleaner) ── cluster, juicefs (source)
//! ```
//!
//! Modules stand in the order in which a reader meets them.

pub mod args;
pub mod config;
pub mod run;
pub mod telemetry;
mod seen;
mod memory;
pub mod metrics;
pub mod admin;
pub mod tls;
pub mod registration;
pub mod webhook;
pub mod csi;
pub mod provisioner;
pub mod registry;
pub mod policy;
pub mod decisions;
pub mod wasm;
pub mod juicefs;
mod fair;
pub mod cluster;
pub mod controller;
pub mod cli;

use std::process::ExitCode;

use args::{Args, Command, Policy};

/// Runs a command. The exit code is 0 for success, 1 for a negative answer, 2 for a command that could not run.
pub fn main(args: Args) -> ExitCode {
    let result = match &args.command {
        Command::Serve(args) => run::serve(args).map(|()| ExitCode::SUCCESS),
        Command::Inject(args) => cli::inject::run(args),
        Command::Check(args) => cli::check::run(args),
        Command::Reasons(args) => cli::reasons::run(args).map(|()| ExitCode::SUCCESS),
        Command::Policy(Policy::Inspect(args)) => cli::policy::inspect(args).map(|()| ExitCode::SUCCESS),
        Command::Policy(Policy::Test(args)) => cli::policy::test(args),
        Command::Policy(Policy::Diff(args)) => cli::policy::diff(args),
        Command::Policy(Policy::Replay(args)) => cli::policy::replay(args),
        Command::Policy(Policy::Explain(args)) => cli::policy::explain(args).map(|()| ExitCode::SUCCESS),
        Command::Policy(Policy::Push(args)) => cli::policy::push(args).map(|()| ExitCode::SUCCESS),
        Command::Policy(Policy::Pull(args)) => cli::policy::pull(args).map(|()| ExitCode::SUCCESS),
        Command::Csi(args) => cli::csi::run(args),
        Command::Volumes(args) => cli::volumes::run(args),
        Command::CompilePolicy { seconds, memory } => Ok(wasm::apart::run(*seconds, *memory)),
        Command::Config(args) => cli::config::run(args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        cli::report(&error);
        ExitCode::from(2)
    })
}

/// Chooses the one crypto provider of the process.
pub fn install_crypto() {
    // An error means that it was chosen before, which tests in one process do.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
