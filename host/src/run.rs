//! How the process is wired, from top to bottom.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::TokioTimer;
use pith_core::object::Objects;
use pith_core::template::Templates;
use pith_core::volume::Quota;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use crate::admin::{self, Readiness};
use crate::args::Serve;
use crate::cluster::{Live, Mirror};
use crate::config::{self, Config, ObjectSource};
use crate::csi::{self, Csi};
use crate::decisions::Decisions;
use crate::juicefs::steps::Steps;
use crate::juicefs::{WorkerOptions, Workers, record_key};
use crate::metrics::Metrics;
use crate::policy::{self, InForce, Policies, Reload, Reporter, Resources, Sources, Trial};
use crate::provisioner::{self, Provisioner};
use crate::registration::Registration;
use crate::registry::{Cache, LARGEST_CACHE};
use crate::tls::{Certificates, Keeper};
use crate::wasm::{Compiler, Engine, EngineOptions};
use crate::webhook::{self, Webhook};
use crate::{cluster, controller, memory, telemetry, tls};

/// The longest that a stop waits for requests that were begun.
const DRAIN: Duration = Duration::from_secs(15);
/// The most time for naming a volume: the caller of CreateVolume waits for it.
const NAMING: Duration = Duration::from_secs(5);
/// The longest that a client may take over its request line and headers.
const HEADERS: Duration = Duration::from_secs(10);

/// `pith serve`: everything that can go wrong goes wrong before it listens.
pub fn serve(args: &Serve) -> Result<()> {
    let config = Config::load(&args.config, &args.overrides)?;
    telemetry::start(&config.log)?;
    config.warn();
    crate::install_crypto();

    let metrics = Arc::new(Metrics::new());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let (objects, client) = match &config.objects {
        Some(ObjectSource::Cluster { kubeconfig, .. }) => {
            let client = runtime.block_on(cluster::connect(kubeconfig.as_deref()))?;
            let live = Live::new(client.clone(), metrics.clone());
            (Mirror::followed(live, config.file_systems().is_some()), Some(client))
        }
        Some(ObjectSource::Directory(directory)) => (Mirror::fixed(cluster::load(directory)?), None),
        None => (Mirror::fixed(Objects::default()), None),
    };
    let resources = config.policy_bindings.as_ref().zip(client.clone()).map(|(it, client)| {
        let resources = Resources::new(client, runtime.handle().clone(), it.namespace.clone());
        (it.clone(), Arc::new(resources))
    });
    let cache = Cache::open(config.state_dir.join("modules"), LARGEST_CACHE)?;
    let cluster = client.clone().map(|client| {
        // Of a pod, the namespace that it runs in.
        let namespace =
            config.policy_bindings.as_ref().map_or(client.default_namespace(), |it| &it.namespace).to_string();
        policy::Cluster::new(client, runtime.handle().clone(), namespace)
    });
    let sources = Sources::new(Some(cache), cluster, resources.as_ref().map(|(_, it)| it.clone()));
    let engine = engine(&config)?;
    let trial = resources.as_ref().map(|_| Arc::new(Trial::new(engine.clone(), sources.clone())));
    let reload = {
        let (path, overrides) = (args.config.clone(), args.overrides.clone());
        Reload::start(&config, path, overrides, engine, sources, metrics.clone())?
    };
    // Hundreds of megabytes after a start that compiled.
    memory::give_back();
    let (policies, objects) = (reload.in_force(), Arc::new(objects));
    let (in_force, kept) = (policies.clone(), reload.kept());
    for path in config.csi.iter().flat_map(|csi| &csi.secret_files) {
        cluster::secret_in(path).with_context(|| format!("reading the Secret in {}", path.display()))?;
    }
    let decisions =
        config.decisions.as_ref().map(|it| Decisions::start(it, metrics.clone())).transpose()?.map(Arc::new);
    let workers = config.csi.as_ref().map(|_| workers(&config.juicefs, &metrics)).transpose()?.map(Arc::new);
    let provisioner = config.csi.as_ref().zip(workers.clone()).map(|(csi, workers)| {
        let driver = &config.sidecars.driver;
        let about = Provisioning { csi, steps: steps(args)?, decisions: decisions.clone() };
        let provisioner = provisioner(driver, about, workers, policies.clone(), objects.clone())?;
        Ok::<_, anyhow::Error>((csi.clone(), Arc::new(provisioner)))
    });
    let provisioner = provisioner.transpose()?;
    let (driver, known) = (config.sidecars.driver.clone(), config.file_systems().cloned());
    let webhook = match config.webhook {
        Some(options) => {
            let (certificates, keeper) = tls::load(&options.tls, &config.state_dir, client.as_ref(), metrics.clone())?;
            let registration = match (&options.registration, &client) {
                (Some(configured), Some(client)) => Some(Registration::load(configured, client, metrics.clone())?),
                _ => None,
            };
            let webhook = Webhook {
                policies,
                decisions: decisions.clone(),
                trial,
                objects: objects.clone(),
                configuration: config.sidecars,
                metrics: metrics.clone(),
                max_body: options.max_body,
                in_flight: Semaphore::new(options.max_in_flight),
                timeout: options.timeout,
            };
            Some(Serving { listen: options.listen, webhook: Arc::new(webhook), certificates, keeper, registration })
        }
        None => None,
    };

    runtime.block_on(async {
        let readiness = Readiness::default();
        let about = admin::About {
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            objects: objects.clone(),
            policies: in_force.clone(),
        };
        let stop = Handle::new();
        let webhook_at = webhook.as_ref().map(|it| it.listen);
        let (webhook, keeping) = match webhook {
            Some(webhook) => webhook.start(&stop, objects.clone()),
            None => (tokio::spawn(std::future::pending()), tokio::spawn(std::future::pending())),
        };
        let admin_stop = Handle::new();
        let admin = {
            let mut server = axum_server::bind(config.admin);
            server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
            server.handle(admin_stop.clone()).serve(admin::router(about.clone()).into_make_service())
        };
        let csi_stop = Arc::new(Notify::new());
        let csi = match &provisioner {
            Some((csi, provisioner)) => {
                let listener = csi::server::bind(&csi.socket).await?;
                tracing::info!(socket = %csi.socket.display(), "listening for CSI");
                let volumes = provisioner.clone();
                let csi = Csi {
                    driver: driver.clone(),
                    node_id: csi.node_id.clone(),
                    volumes,
                    max_calls: csi.max_calls,
                    metrics: metrics.clone(),
                };
                let stop = csi_stop.clone();
                tokio::spawn(csi::server::serve(listener, csi, async move { stop.notified().await }, DRAIN))
            }
            None => tokio::spawn(std::future::pending()),
        };
        let purge = tokio::spawn({
            let (provisioner, metrics) = (provisioner.clone(), metrics.clone());
            async move {
                match provisioner {
                    Some((csi, provisioner)) if csi.purge => provisioner.purge(metrics).await,
                    _ => std::future::pending().await,
                }
            }
        });
        let watches = tokio::spawn({
            let (client, objects, metrics) = (client.clone(), objects.clone(), metrics.clone());
            async move {
                match client {
                    Some(client) => cluster::follow(client, known.as_ref(), &objects, &metrics).await,
                    None => std::future::pending().await,
                }
            }
        });
        let controller = tokio::spawn(async move {
            match (config.controller, client) {
                (Some(options), Some(client)) => {
                    controller::run(client, objects, workers, options, &driver, &metrics).await;
                }
                _ => std::future::pending().await,
            }
        });
        let admin = tokio::spawn(admin);
        let bindings = tokio::spawn(async move {
            match resources {
                Some((config, resources)) => {
                    let reporter = Reporter::new(&config, resources.clone(), in_force, kept);
                    tokio::select! {
                        () = resources.follow() => "the watch of PolicyBindings",
                        () = reporter.run() => "the report on PolicyBindings",
                    }
                }
                None => std::future::pending().await,
            }
        });
        let reload = tokio::spawn(reload.run());

        let stops = (webhook_at.is_some().then_some(&stop), &admin_stop);
        let announced = announce(stops, args.addresses_file.as_deref(), &readiness);
        tokio::pin!(webhook, admin, csi, purge);
        // A listener that ends before it is told to is the end of the process: a webhook that does not answer is worse than
        // one that is restarted, and so is one that knows nothing new.
        tokio::select! {
            ended = &mut webhook => return ended_early("webhook", webhook_at, ended),
            ended = &mut admin => return ended_early("admin", Some(config.admin), ended),
            ended = &mut csi => {
                ended.context("the CSI listener died")??;
                bail!("the CSI listener ended");
            }
            ended = &mut purge => {
                ended.context("the purge of the trash died")?;
                bail!("the purge of the trash ended");
            }
            ended = watches => {
                ended.context("the watches of the API server died")?;
                bail!("the watches of the API server ended");
            }
            ended = controller => {
                ended.context("the controller died")?;
                bail!("the controller ended");
            }
            ended = reload => {
                ended.context("what keeps the policies in step with their files died")??;
                bail!("what keeps the policies in step with their files ended");
            }
            ended = bindings => {
                let what = ended.context("what follows PolicyBindings died")?;
                bail!("{what} ended");
            }
            ended = keeping => {
                let what = ended.context("the keeper of the certificate, or of the webhook's registration, died")?;
                bail!("{what} ended");
            }
            stopped = async { announced.await?; wait_for_stop().await } => stopped?,
        }
        tracing::info!("stopping: no new requests, finishing those that were begun");
        readiness.set(false);
        stop.graceful_shutdown(Some(DRAIN));
        // Whatever it was at, it goes on from there after the next start.
        purge.abort();
        let _ = purge.await;
        csi_stop.notify_one();
        let drained = async {
            if webhook_at.is_some() {
                webhook.await.context("the webhook's listener died")?.context("stopping the webhook")?;
            }
            if let Some((_, provisioner)) = &provisioner {
                csi.await.context("the CSI listener died")?.context("stopping the CSI listener")?;
                provisioner.stop().await;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            drained = drained => drained?,
            second = wait_for_stop() => {
                second?;
                bail!("stopped at once by a second signal: requests that were begun are lost");
            }
        }
        if let Some(decisions) = decisions {
            tokio::task::spawn_blocking(move || decisions.close()).await.context("closing the decision log")?;
        }
        admin_stop.shutdown();
        tracing::info!("stopped");
        Ok(())
    })
}

/// The webhook, and what it is reached by.
struct Serving {
    listen: SocketAddr,
    webhook: Arc<Webhook>,
    certificates: Certificates,
    keeper: Keeper,
    registration: Option<Registration>,
}

impl Serving {
    /// Starts the listener, and what keeps its certificate and its registration: that one says which of them ended.
    fn start(
        self,
        stop: &Handle<SocketAddr>,
        objects: Arc<Mirror>,
    ) -> (JoinHandle<std::io::Result<()>>, JoinHandle<&'static str>) {
        let Serving { listen, webhook, certificates, keeper, registration } = self;
        // Several small writes make an answer over HTTP/2: held back, the last would wait 40 ms for the API server's ACK.
        let acceptor =
            RustlsAcceptor::new(RustlsConfig::from_config(certificates.config())).acceptor(NoDelayAcceptor::new());
        let mut server = axum_server::bind(listen).acceptor(acceptor);
        server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
        let serving = server.handle(stop.clone()).serve(webhook::router(webhook).into_make_service());
        let listener = tokio::spawn({
            let certificates = certificates.clone();
            async move {
                certificates.ready().await;
                serving.await
            }
        });
        let keeper = keeper.run(registration.as_ref().map(Registration::registered));
        let stop = stop.clone();
        let registration = async move {
            // A webhook that cannot answer yet would keep pods from being made.
            stop.listening().await;
            objects.listed().await;
            match registration {
                Some(registration) => registration.keep(&certificates).await,
                None => std::future::pending().await,
            }
        };
        let keeping = tokio::spawn(async {
            tokio::select! {
                () = keeper => "the keeper of the certificate",
                () = registration => "the registration of the webhook",
            }
        });
        (listener, keeping)
    }
}

/// Loads the policies of a configuration.
pub fn load_policies(config: &Config, sources: &Sources, metrics: Arc<Metrics>) -> Result<Policies> {
    Policies::load(&engine(config)?, sources, &config.policies, metrics)
}

/// What runs policies, with a cache of compiled ones in the state folder.
fn engine(config: &Config) -> Result<Engine> {
    let compiled_dir = Some(config.state_dir.join("compiled"));
    let options = EngineOptions { compiled_dir, compiler: Some(Compiler::this_program()), ..EngineOptions::default() };
    Ok(Engine::new(options)?)
}

/// The clients of file systems, none of which runs yet.
pub fn workers(juicefs: &config::JuiceFs, metrics: &Metrics) -> Result<Workers> {
    let options = WorkerOptions {
        client: juicefs.client.clone(),
        enterprise_client: juicefs.enterprise_client.clone(),
        idle: juicefs.worker_idle,
        start_timeout: juicefs.start_timeout,
        call_timeout: juicefs.call_timeout,
        max_workers: juicefs.max_workers,
        metrics: metrics.workers.clone(),
    };
    Workers::new(options).context("starting the thread that starts JuiceFS clients")
}

/// How volumes are provisioned.
#[derive(Debug)]
pub struct Provisioning<'a> {
    /// As the configuration has it.
    pub csi: &'a config::Csi,
    /// Where a test kills the process.
    pub steps: Steps,
    /// Where it is recorded what becomes of new volumes; absent for nowhere.
    pub decisions: Option<Arc<Decisions>>,
}

/// The second line of the product, ready to be asked.
pub fn provisioner(
    driver: &str,
    Provisioning { csi, steps, decisions }: Provisioning<'_>,
    workers: Arc<Workers>,
    policies: Arc<InForce>,
    objects: Arc<Mirror>,
) -> Result<Provisioner> {
    let options = provisioner::Options {
        driver: driver.to_string(),
        cluster: csi.cluster.clone(),
        key: record_key::load(&csi.record_key)?,
        quota: if csi.quota { Quota::On } else { Quota::Off },
        secret_files: csi.secret_files.clone(),
        trash_days: csi.trash_days,
        templates: if csi.strict_templates { Templates::Strict } else { Templates::Lenient },
        naming_timeout: NAMING,
        decisions,
        steps,
    };
    Ok(Provisioner::new(options, workers, policies, objects))
}

#[cfg(debug_assertions)]
fn steps(args: &Serve) -> Result<Steps> {
    args.die_at.as_deref().map_or_else(|| Ok(Steps::default()), Steps::die_at)
}

#[cfg(not(debug_assertions))]
#[expect(clippy::unnecessary_wraps, reason = "a debug build can be told of a step that does not exist")]
fn steps(_: &Serve) -> Result<Steps> {
    Ok(Steps::default())
}

/// Says where it listens, once it does.
async fn announce(
    (webhook, admin): (Option<&Handle<SocketAddr>>, &Handle<SocketAddr>),
    addresses_file: Option<&Path>,
    readiness: &Readiness,
) -> Result<()> {
    let webhook = match webhook {
        Some(webhook) => webhook.listening().await.map(Some),
        None => Some(None),
    };
    let (Some(webhook), Some(admin)) = (webhook, admin.listening().await) else {
        // The select in `serve` sees the listener's own error, which says more than this could.
        return std::future::pending().await;
    };
    readiness.set(true);
    if let Some(path) = addresses_file {
        let addresses = json!({"webhook": webhook.map(|it| it.to_string()), "admin": admin.to_string()});
        let place = || format!("writing {}", path.display());
        // Renamed into place, so that whoever waits for the file never reads half of it.
        let part = path.with_extension("part");
        std::fs::write(&part, format!("{addresses}\n")).with_context(place)?;
        std::fs::rename(&part, path).with_context(place)?;
    }
    match webhook {
        Some(webhook) => tracing::info!(%webhook, %admin, "listening"),
        None => tracing::info!(%admin, "listening"),
    }
    Ok(())
}

fn ended_early(
    what: &str,
    address: Option<SocketAddr>,
    ended: Result<std::io::Result<()>, tokio::task::JoinError>,
) -> Result<()> {
    let address = address.map(|it| it.to_string()).unwrap_or_default();
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
