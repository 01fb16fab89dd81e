//! The log: how lines are written, and the fields that they have.
//!
//! Objects, patches and secrets are not logged at any level. What a request was about is said by names and its uid.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;
use crate::config::file::Log;

/// Starts the log on standard error, where it never mixes with what a command prints.
pub fn start(log: &Log) -> Result<()> {
    let filter = EnvFilter::builder().parse(&log.filter).context("log.filter")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let terminal = std::io::stderr().is_terminal();
    let text = match log.format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    // The client of the API server repeats answers that it cannot read. What went wrong is in the errors that it gives.
    let silence = filter_fn(|event| !event.target().starts_with("kube_"));
    let started = if text {
        builder.with_ansi(terminal).finish().with(silence).try_init()
    } else {
        builder.json().flatten_event(true).finish().with(silence).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("starting the log: {error}"))?;
    std::panic::set_hook(Box::new(panicked));
    Ok(())
}

/// A panic as a line of the log. Only a message that stands in the program is repeated: one that was put together may hold what
/// a request brought.
fn panicked(panic: &std::panic::PanicHookInfo<'_>) {
    let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(not repeated)");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(panic = message, %place, "panicked");
}
