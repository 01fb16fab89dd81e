//! The serving certificate: from files, from a Secret that all replicas share, or made here together with a CA.
//!
//! It may change at any time. Each handshake takes the one that is there, and connections that were made before stay. Keys are
//! in memory and, where all replicas share one, in its Secret; nothing here prints one.

mod pair;
mod make;
mod own;
mod files;
mod shared;
pub(crate) mod served;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use kube::Client;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use crate::config::Tls;
use crate::metrics::Metrics;
use files::Files;
use pair::Pair;
use shared::Shared;

/// The certificate that is served now. Who has one of these sees every later one.
#[derive(Clone)]
pub struct Certificates {
    served: watch::Sender<Option<Arc<Pair>>>,
    trusted: watch::Sender<Option<String>>,
    metrics: Arc<Metrics>,
}

/// What keeps the certificate good for as long as the process runs.
pub struct Keeper {
    source: Source,
    certificates: Certificates,
}

enum Source {
    Fixed,
    Files(Files),
    Shared(Box<Shared>),
}

/// The CA bundles of the webhook's registration as it is, PEM, one for each webhook.
pub type Bundles = Vec<String>;

/// Loads or makes the certificate. One that is shared comes later, when [`Keeper::run`] has it.
pub fn load(
    tls: &Tls,
    state_dir: &Path,
    client: Option<&Client>,
    metrics: Arc<Metrics>,
) -> Result<(Certificates, Keeper)> {
    let certificates = Certificates::new(metrics);
    let source = match tls {
        Tls::SelfSigned(names) => {
            let (pair, authority) = own::make(names, state_dir).context("making the serving certificate")?;
            certificates.serve(pair, Some(authority));
            Source::Fixed
        }
        Tls::Files { certificate, key, authority } => {
            let mut files = Files::new(certificate, key, authority.as_deref());
            let (pair, authority) = files.load()?;
            certificates.serve(pair, authority);
            Source::Files(files)
        }
        Tls::Shared(secret) => {
            let client = client.context("a shared certificate needs a cluster")?;
            Source::Shared(Box::new(Shared::new(secret.clone(), client.clone())))
        }
    };
    Ok((certificates.clone(), Keeper { source, certificates }))
}

impl Keeper {
    /// Renews the certificate when it is time, or takes it when others have. It ends only with a defect. Where Pith registers the
    /// webhook, `registered` says what clients trust.
    pub async fn run(self, registered: Option<watch::Receiver<Bundles>>) {
        match self.source {
            Source::Fixed => std::future::pending().await,
            Source::Files(files) => files.keep(&self.certificates).await,
            Source::Shared(shared) => shared.keep(&self.certificates, registered).await,
        }
    }
}

impl Certificates {
    /// The rustls configuration of a listener: HTTP/2 and HTTP/1.1, with whichever certificate is there at the time.
    pub fn config(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has all that these need")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// Waits until there is a certificate.
    pub async fn ready(&self) {
        // It cannot fail: the sender is here.
        let _ = self.served.subscribe().wait_for(Option::is_some).await;
    }

    /// What clients are to trust, PEM; absent where somebody else says so.
    pub fn trusted(&self) -> watch::Receiver<Option<String>> {
        self.trusted.subscribe()
    }

    fn new(metrics: Arc<Metrics>) -> Certificates {
        Certificates { served: watch::Sender::new(None), trusted: watch::Sender::new(None), metrics }
    }

    fn serve(&self, pair: Pair, trusted: Option<String>) {
        let ends = pair.validity.ends.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.metrics.certificate_expiry.set(ends.as_secs_f64());
        self.trusted.send_replace(trusted);
        self.served.send_replace(Some(Arc::new(pair)));
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.served.borrow().as_ref().map(|pair| pair.certified.clone())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends = self.served.borrow().as_ref().map(|pair| pair.validity.ends);
        f.debug_struct("Certificates").field("ends", &ends).finish_non_exhaustive()
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}
