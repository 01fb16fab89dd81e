//! A CA and a certificate of it. The key of the CA is thrown away, so nobody can make a second one that is trusted.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// The most that a certificate begins before it is made: clocks of other machines may be behind.
const BEHIND: Duration = Duration::from_secs(60 * 60);

/// All three in PEM.
pub(super) struct Made {
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) authority: String,
}

/// ECDSA P-256, rcgen's default: some clouds' API servers refuse Ed25519.
pub(super) fn make(names: &[String], lifetime: Duration) -> Result<Made> {
    let now = SystemTime::now();
    // When it is renewed is a share of its whole time, which this must not change much.
    let (starts, ends) = ((now - BEHIND.min(lifetime / 10)).into(), (now + lifetime).into());
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "Pith webhook CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (ca.not_before, ca.not_after) = (starts, ends);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;

    let mut server = CertificateParams::new(names.to_vec())?;
    server.distinguished_name.push(DnType::CommonName, "Pith webhook");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    (server.not_before, server.not_after) = (starts, ends);
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &ca)?;
    Ok(Made { certificate: certificate.pem(), key: key.serialize_pem(), authority: ca.pem() })
}
