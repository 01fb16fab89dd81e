//! The certificate that somebody else serves, as API servers get it, and whether they trust it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use pith_core::check::Served;
use pith_core::rotation::Validity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::pair::{certificates, has_name, is_of, validity};

/// The most time for one address: API servers wait for ten seconds as a rule.
const PATIENCE: Duration = Duration::from_secs(5);

/// From when to when each CA of a bundle in PEM is valid.
pub(crate) fn authorities(bundle: &[u8]) -> Result<Vec<Validity>> {
    certificates(bundle)?.iter().map(validity).collect()
}

/// The certificate that is served at an address (`host:port`) to who asks for this name, and what somebody with this bundle (PEM)
/// makes of it. Nothing is sent but the handshake.
pub(crate) async fn served(address: &str, name: &str, bundle: &[u8]) -> Result<Served> {
    let chain =
        tokio::time::timeout(PATIENCE, handshake(address, name)).await.context("it does not answer in time")??;
    let validity = validity(chain.first().context("it has no certificate")?)?;
    // A bundle that cannot be read is another finding.
    let authorities = certificates(bundle).unwrap_or_default();
    let trusted = authorities.iter().any(|authority| is_of(&chain, validity, authority));
    Ok(Served { validity, trusted, named: has_name(&chain, name) })
}

async fn handshake(address: &str, name: &str) -> Result<Vec<CertificateDer<'static>>> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_string())?;
    let stream = TcpStream::connect(address).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    Ok(stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec())
}

/// Takes every certificate: what is looked for is one that others would not take.
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Anyone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Anyone")
    }
}
