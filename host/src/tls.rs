//! The serving certificate: from files, or made here together with a CA.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

use crate::config::Tls;

/// How long a self-made certificate lasts. It is made anew at every start; a process that runs longer than this needs
/// certificates from files.
const LIFETIME: Duration = Duration::days(365);

/// What the listener needs.
#[derive(Debug)]
pub struct Serving {
    /// The rustls configuration, HTTP/2 and HTTP/1.1.
    pub config: Arc<ServerConfig>,
    /// When the certificate ends, if it was made here.
    pub expires: Option<OffsetDateTime>,
}

/// Loads or makes the certificate. A self-made CA is written to `<state_dir>/tls/ca.crt`, for clients to trust; its key and the
/// serving key stay in memory.
pub fn load(tls: &Tls, state_dir: &Path) -> Result<Serving> {
    let (chain, key, expires) = match tls {
        Tls::Files { certificate, key } => (read_chain(certificate)?, read_key(key)?, None),
        Tls::SelfSigned(names) => {
            let expires = OffsetDateTime::now_utc() + LIFETIME;
            let made = make(names, expires).context("making the serving certificate")?;
            write_ca(&made.ca, &state_dir.join("tls"))?;
            (vec![made.certificate], made.key, Some(expires))
        }
    };
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the serving certificate and its key do not fit together")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Serving { config: Arc::new(config), expires })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let place = || format!("reading the certificate {}", path.display());
    let chain =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>).with_context(place)?;
    anyhow::ensure!(!chain.is_empty(), "{} has no certificate in PEM", path.display());
    Ok(chain)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).with_context(|| format!("reading the private key {}", path.display()))
}

struct Made {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    /// PEM.
    ca: String,
}

/// A CA and a certificate of it. ECDSA P-256, rcgen's default: some clouds' API servers refuse Ed25519.
fn make(names: &[String], expires: OffsetDateTime) -> Result<Made> {
    // Clocks of other machines may be behind.
    let starts = OffsetDateTime::now_utc() - Duration::hours(1);
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "Pith webhook CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (ca.not_before, ca.not_after) = (starts, expires);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;

    let mut server = CertificateParams::new(names.to_vec())?;
    server.distinguished_name.push(DnType::CommonName, "Pith webhook");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    (server.not_before, server.not_after) = (starts, expires);
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &ca)?;
    Ok(Made {
        certificate: certificate.der().clone(),
        key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        ca: ca.pem(),
    })
}

fn write_ca(ca: &str, directory: &Path) -> Result<()> {
    let place = || format!("writing the CA certificate to {}", directory.display());
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).with_context(place)?;
    // Written beside and renamed, so that a reader never sees half of it.
    let (path, part) = (directory.join("ca.crt"), directory.join("ca.crt.part"));
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&part).with_context(place)?;
    file.write_all(ca.as_bytes()).with_context(place)?;
    fs::rename(&part, &path).with_context(place)
}
