//! How the process is wired, from top to bottom.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::TokioTimer;
use pith_core::object::Objects;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::admin::{self, Readiness};
use crate::args::Serve;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::policy::Policies;
use crate::wasm::{Engine, EngineOptions};
use crate::webhook::{self, Webhook};
use crate::{cluster, telemetry, tls};

/// The longest that a stop waits for requests that were begun.
const DRAIN: Duration = Duration::from_secs(15);
/// The longest that a client may take over its request line and headers.
const HEADERS: Duration = Duration::from_secs(10);

/// `pith serve`: everything that can go wrong goes wrong before it listens.
pub fn serve(args: &Serve) -> Result<()> {
    let config = Config::load(&args.config, &args.overrides)?;
    telemetry::start(&config.log)?;
    crate::install_crypto();

    let metrics = Arc::new(Metrics::new());
    let policies = load_policies(&config, metrics.clone())?;
    let objects = load_objects(config.objects.as_deref())?;
    give_back_memory();
    metrics.objects(objects.counts());
    let serving = tls::load(&config.webhook.tls, &config.state_dir)?;
    if let Some(expires) = serving.expires {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit into 53 bits")]
        metrics.certificate_expiry.set(expires.unix_timestamp() as f64);
    }
    let webhook = Arc::new(Webhook {
        policies: Arc::new(policies),
        objects: Arc::new(objects),
        configuration: config.sidecars,
        metrics: metrics.clone(),
        max_body: config.webhook.max_body,
        in_flight: Semaphore::new(config.webhook.max_in_flight),
        timeout: config.webhook.timeout,
    });

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let readiness = Readiness::default();
        let stop = Handle::new();
        let webhook = {
            let mut server = axum_server::bind_rustls(config.webhook.listen, RustlsConfig::from_config(serving.config));
            server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
            server.handle(stop.clone()).serve(webhook::router(webhook).into_make_service())
        };
        let admin_stop = Handle::new();
        let admin = {
            let mut server = axum_server::bind(config.admin);
            server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
            server.handle(admin_stop.clone()).serve(admin::router(metrics, readiness.clone()).into_make_service())
        };
        let (webhook, admin) = (tokio::spawn(webhook), tokio::spawn(admin));

        let announced = announce(&stop, &admin_stop, args.addresses_file.as_deref(), &readiness);
        let (webhook_at, admin_at) = (config.webhook.listen, config.admin);
        tokio::pin!(webhook, admin);
        // A listener that ends before it is told to is the end of the process: a webhook that does not answer is worse than
        // one that is restarted.
        tokio::select! {
            ended = &mut webhook => return ended_early("webhook", webhook_at, ended),
            ended = &mut admin => return ended_early("admin", admin_at, ended),
            stopped = async { announced.await?; wait_for_stop().await } => stopped?,
        }
        tracing::info!("stopping: no new requests, finishing those that were begun");
        readiness.set(false);
        stop.graceful_shutdown(Some(DRAIN));
        tokio::select! {
            ended = &mut webhook => ended.context("the webhook's listener died")?.context("stopping the webhook")?,
            second = wait_for_stop() => {
                second?;
                bail!("stopped at once by a second signal: requests that were begun are lost");
            }
        }
        admin_stop.shutdown();
        tracing::info!("stopped");
        Ok(())
    })
}

/// Loads the policies of a configuration with a compile cache in its state folder.
pub fn load_policies(config: &Config, metrics: Arc<Metrics>) -> Result<Policies> {
    let options = EngineOptions { compiled_dir: Some(config.state_dir.join("compiled")), ..EngineOptions::default() };
    Policies::load(&Engine::new(options)?, &config.policies, metrics)
}

/// Gives the system what loading took and no longer needs: hundreds of megabytes after a start that compiled, which the
/// allocator would otherwise keep until it happens to look.
#[expect(unsafe_code, reason = "a function in C that takes no pointer")]
fn give_back_memory() {
    // SAFETY: it may be called at any time; where another allocator is in use, as in tests, it finds nothing.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// Loads the objects of a folder; none where there is no folder.
pub fn load_objects(directory: Option<&Path>) -> Result<Objects> {
    directory.map_or_else(|| Ok(Objects::default()), cluster::load)
}

/// Says where it listens, once it does.
async fn announce(
    webhook: &Handle<SocketAddr>,
    admin: &Handle<SocketAddr>,
    addresses_file: Option<&Path>,
    readiness: &Readiness,
) -> Result<()> {
    let (Some(webhook), Some(admin)) = (webhook.listening().await, admin.listening().await) else {
        // The select in `serve` sees the listener's own error, which says more than this could.
        return std::future::pending().await;
    };
    readiness.set(true);
    if let Some(path) = addresses_file {
        let addresses = json!({"webhook": webhook.to_string(), "admin": admin.to_string()});
        let place = || format!("writing {}", path.display());
        // Renamed into place, so that whoever waits for the file never reads half of it.
        let part = path.with_extension("part");
        std::fs::write(&part, format!("{addresses}\n")).with_context(place)?;
        std::fs::rename(&part, path).with_context(place)?;
    }
    tracing::info!(%webhook, %admin, "listening");
    Ok(())
}

fn ended_early(
    what: &str,
    address: SocketAddr,
    ended: Result<std::io::Result<()>, tokio::task::JoinError>,
) -> Result<()> {
    ended
        .with_context(|| format!("the {what} listener died"))?
        .with_context(|| format!("the {what} listener at {address}"))?;
    bail!("the {what} listener at {address} ended")
}

async fn wait_for_stop() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for ctrl-c")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
