//! A certificate with its key, read from PEM and checked. What is wrong with a key is said without showing any of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, ensure};
use pith_core::rotation::Validity;
use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::ring;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use yasna::tags::TAG_UTCTIME;
use yasna::{ASN1Result, BERReader, Tag};

/// A certificate with its key. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pair {
    /// As it is served.
    pub(super) certified: Arc<CertifiedKey>,
    /// From when to when.
    pub(super) validity: Validity,
}

impl Pair {
    /// Reads both from PEM.
    pub(super) fn read(chain: &[u8], key: &[u8]) -> Result<Pair> {
        let chain = certificates(chain).context("the certificate cannot be read")?;
        // The error of the parser may show what stands in the file.
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|_| anyhow!("the private key cannot be read: it is no PEM"))?;
        let validity = validity(&chain[0])?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .context("the certificate and the private key do not fit together")?;
        Ok(Pair { certified: Arc::new(certified), validity })
    }

    /// Whether it is for this DNS name or address.
    pub(super) fn has_name(&self, name: &str) -> bool {
        has_name(&self.certified.cert, name)
    }

    /// Whether this CA signed it.
    pub(super) fn is_of(&self, authority: &CertificateDer<'_>) -> bool {
        is_of(&self.certified.cert, self.validity, authority)
    }
}

/// Whether the certificate at the head of a chain is for this DNS name or address.
pub(super) fn has_name(chain: &[CertificateDer<'_>], name: &str) -> bool {
    let name = name.parse::<IpAddr>().map(ServerName::from).or_else(|_| ServerName::try_from(name));
    let certificate = ParsedCertificate::try_from(&chain[0]);
    matches!((certificate, name), (Ok(certificate), Ok(name)) if verify_server_name(&certificate, &name).is_ok())
}

/// Whether this CA signed a chain, whatever the time is now.
pub(super) fn is_of(chain: &[CertificateDer<'_>], validity: Validity, authority: &CertificateDer<'_>) -> bool {
    let mut roots = RootCertStore::empty();
    let Ok(certificate) = ParsedCertificate::try_from(&chain[0]) else { return false };
    let algorithms = ring::default_provider().signature_verification_algorithms.all;
    let during = validity.ends.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = UnixTime::since_unix_epoch(during);
    roots.add(authority.clone().into_owned()).is_ok()
        && verify_server_cert_signed_by_trust_anchor(&certificate, &roots, &chain[1..], time, algorithms).is_ok()
}

/// The certificates of a PEM text, at least one.
pub(super) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    // As above: somebody may have put the key there.
    let found = found.map_err(|_| anyhow!("it is no PEM"))?;
    ensure!(!found.is_empty(), "it has no certificate in PEM");
    Ok(found)
}

/// RFC 5280, section 4.1: what stands before it, and what follows, is not looked at.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Result<Validity> {
    let read = yasna::parse_der(certificate, |certificate| {
        certificate.read_sequence(|certificate| {
            let validity = certificate.next().read_sequence(|body| {
                body.read_optional(|version| version.read_tagged(Tag::context(0), |it| it.read_der()))?;
                for _serial_algorithm_issuer in 0..3 {
                    body.next().read_der()?;
                }
                let validity = body
                    .next()
                    .read_sequence(|it| Ok(Validity { starts: moment(it.next())?, ends: moment(it.next())? }))?;
                while body.read_optional(|it| it.read_der())?.is_some() {}
                Ok(validity)
            })?;
            while certificate.read_optional(|it| it.read_der())?.is_some() {}
            Ok(validity)
        })
    });
    read.map_err(|error| anyhow!("the certificate cannot be read: {error}"))
}

/// In the form of the years up to 2049, or of those after them.
fn moment(reader: BERReader<'_, '_>) -> ASN1Result<SystemTime> {
    Ok(match reader.lookahead_tag()? {
        TAG_UTCTIME => (*reader.read_utctime()?.datetime()).into(),
        _ => (*reader.read_generalized_time()?.datetime()).into(),
    })
}
