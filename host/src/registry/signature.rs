//! Signatures as cosign makes them with a key, checked from bytes alone.
//!
//! There are two forms. cosign 3 writes a Sigstore bundle, which refers to what it signs: a DSSE envelope around an in-toto statement
//! that names the digest. cosign before that writes a payload of its own, beside the tag `sha256-….sig`. Both are a signature over a
//! digest of a manifest. What a transparency log or a certificate may add is not looked at: the key is the trust.

use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use serde::Deserialize;
use webpki::RawPublicKeyEntity;
use webpki::ring::{ECDSA_P256_SHA256, ECDSA_P384_SHA256, ECDSA_P384_SHA384, RSA_PKCS1_2048_8192_SHA256};

use super::reference::Digest;
use super::{quoted, read_json};

/// Begins the kinds of Sigstore bundles, which end in their versions.
pub(super) const BUNDLE_KIND: &str = "application/vnd.dev.sigstore.bundle";
/// The payload of the older form.
pub(super) const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Where the older form has its signature.
pub(super) const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// What an in-toto statement has to be about. The same key may sign others: one that says that an image failed a scan is no signature.
const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
const STATEMENTS: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
const PAYLOAD: &str = "application/vnd.in-toto+json";
const SIMPLE_TYPE: &str = "cosign container image signature";

/// The most keys, and the most signatures of one envelope.
const MOST: usize = 16;

/// How signatures are checked. A key knows of which kind it is, and RSA and P-256 are always with SHA-256; cosign before version 3 has
/// that for P-384 too. It signs with an Ed25519 key in a form (Ed25519ph) that `ring` does not check.
const ALGORITHMS: [&dyn SignatureVerificationAlgorithm; 4] =
    [ECDSA_P256_SHA256, ECDSA_P384_SHA256, ECDSA_P384_SHA384, RSA_PKCS1_2048_8192_SHA256];

/// A public key, a SubjectPublicKeyInfo in DER.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(SubjectPublicKeyInfoDer<'static>);

impl Key {
    /// Reads the public keys of a PEM text: at least one.
    pub fn read_all(text: &str) -> Result<Vec<Key>> {
        let blocks = pem::parse_many(text).map_err(|error| anyhow!("it is no PEM: {}", quoted(&error.to_string())))?;
        ensure!(!blocks.is_empty(), "it has no key: a public key begins with `-----BEGIN PUBLIC KEY-----`");
        ensure!(blocks.len() <= MOST, "it has {} keys: at most {MOST}", blocks.len());
        blocks.iter().map(Key::read).collect()
    }

    fn read(block: &pem::Pem) -> Result<Key> {
        let tag = block.tag();
        ensure!(!tag.contains("PRIVATE"), "it has a private key, which nobody here is to have: give the public one");
        ensure!(tag == "PUBLIC KEY", "it has a `{}`, where a `PUBLIC KEY` belongs", quoted(tag));
        let key = Key(block.contents().to_vec().into());
        let is_of = |algorithm: &&dyn SignatureVerificationAlgorithm| {
            matches!(key.check(*algorithm, b"", b""), Err(webpki::Error::InvalidSignatureForPublicKey))
        };
        ensure!(
            ALGORITHMS.iter().any(is_of),
            "it has a key of a kind that is not supported: ECDSA over P-256 and P-384 and RSA are, as cosign makes and imports them"
        );
        Ok(key)
    }

    fn check(
        &self,
        algorithm: &dyn SignatureVerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), webpki::Error> {
        RawPublicKeyEntity::try_from(&self.0)?.verify_signature(algorithm, message, signature)
    }

    fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        ALGORITHMS.iter().any(|it| self.check(*it, message, signature).is_ok())
    }
}

fn decoded(text: &str, what: &str) -> Result<Vec<u8>> {
    STANDARD.decode(text).map_err(|_| anyhow!("{what} is no base64"))
}

/// The older form: a payload, and a signature over it in base64.
pub fn check_simple(payload: &[u8], signature: &str, keys: &[Key], of: &Digest) -> Result<()> {
    let signature = decoded(signature, "its signature")?;
    // Nothing of what was not signed is read.
    ensure!(
        keys.iter().any(|key| key.signed(payload, &signature)),
        "it was made with another key, or over something else"
    );
    let payload: Simple = read_json(payload).context("its payload is not cosign's")?;
    let kind = payload.critical.kind;
    ensure!(kind == SIMPLE_TYPE, "what it signs is a `{}` and no signature of an artifact", quoted(&kind));
    let signed = payload.critical.image.digest;
    ensure!(signed == of.to_string(), "it is for {}", quoted(&signed));
    Ok(())
}

#[derive(Deserialize)]
struct Simple {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// A Sigstore bundle.
pub fn check_bundle(bundle: &[u8], keys: &[Key], of: &Digest) -> Result<()> {
    let bundle: Bundle = read_json(bundle).context("it is no bundle with an envelope")?;
    let Envelope { payload, payload_type, signatures } = bundle.envelope;
    let payload = decoded(&payload, "its payload")?;
    ensure!(signatures.len() <= MOST, "it has {} signatures: at most {MOST}", signatures.len());
    // The envelope's own encoding: what the signature is over also says what kind of thing it is.
    let mut message = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    message.extend_from_slice(&payload);
    let mut is_signed = false;
    for signature in &signatures {
        let signature = decoded(&signature.sig, "its signature")?;
        is_signed |= keys.iter().any(|key| key.signed(&message, &signature));
    }
    ensure!(is_signed, "it was made with another key, or over something else");
    ensure!(payload_type == PAYLOAD, "what it signs is a `{}` and no statement", quoted(&payload_type));
    let statement: Statement = read_json(&payload).context("what it signs is no statement")?;
    ensure!(STATEMENTS.contains(&&*statement.kind), "what it signs is a `{}`", quoted(&statement.kind));
    let about = statement.predicate_type;
    ensure!(about == PREDICATE, "what it signs says `{}` of an artifact, which is no signature", quoted(&about));
    let digest = of.hex();
    let mut signed = statement.subject.iter().map(|it| it.digest.sha256.as_deref().unwrap_or("something else"));
    ensure!(signed.clone().any(|it| it == digest), "it is for {}", quoted(signed.next().unwrap_or("nothing")));
    Ok(())
}

#[derive(Deserialize)]
struct Bundle {
    #[serde(rename = "dsseEnvelope")]
    envelope: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    predicate_type: String,
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digests,
}

#[derive(Deserialize)]
struct Digests {
    sha256: Option<String>,
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PublicKeyData, SigningKey};
    use serde_json::{Value, json};

    use super::*;

    /// All of it made by cosign 3.1.3.
    const KEY: &str = include_str!("samples/cosign.pub");
    const P521: &str = include_str!("samples/p521.pub");
    const BUNDLE: &str = include_str!("samples/bundle.json");
    const BUNDLE_OF: &str = "sha256:a4ce01a9e53f7444abe8e282f08c6f0a9d1b7b50a2d87abde7d14ea39f15cc37";
    const SIMPLE: &str = include_str!("samples/payload.json");
    const SIMPLE_OF: &str = "sha256:b20328bb1585766d6424d45a5333cbd7bcf078215c3aeac4935f75f4bb1be24c";
    const SIMPLE_SIGNATURE: &str = include_str!("samples/payload.sig");

    /// Somebody who has a key.
    struct Signer(KeyPair);

    impl Signer {
        fn new() -> Signer {
            Signer(KeyPair::generate().expect("a key"))
        }

        fn key(&self) -> Key {
            Key(self.0.subject_public_key_info().into())
        }

        fn sign(&self, message: &[u8]) -> String {
            STANDARD.encode(self.0.sign(message).expect("a signature"))
        }

        fn bundle(&self, kind: &str, statement: &Value) -> Value {
            let payload = statement.to_string();
            let message = format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len());
            let signatures = json!([{"sig": self.sign(message.as_bytes())}]);
            json!({"dsseEnvelope": {"payload": STANDARD.encode(payload), "payloadType": kind, "signatures": signatures}})
        }
    }

    #[track_caller]
    fn check(checked: Result<()>, expected: Result<(), &str>) {
        match (checked, expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(words)) => assert!(format!("{error:#}").contains(words), "{error:#}"),
            (checked, expected) => panic!("{checked:?} for {expected:?}"),
        }
    }

    #[test]
    fn what_cosign_signs_is_signed_and_nothing_else_is() {
        let (keys, other) = (Key::read_all(KEY).expect("a key"), Digest::of(b"something else"));
        let (bundle_of, simple_of) = (BUNDLE_OF.parse().expect("a digest"), SIMPLE_OF.parse().expect("a digest"));
        check(check_bundle(BUNDLE.as_bytes(), &keys, &bundle_of), Ok(()));
        check(check_bundle(BUNDLE.as_bytes(), &[Signer::new().key(), keys[0].clone()], &bundle_of), Ok(()));
        check(check_bundle(BUNDLE.as_bytes(), &keys, &other), Err("it is for a4ce01a9e53f"));
        check(check_bundle(BUNDLE.as_bytes(), &[Signer::new().key()], &bundle_of), Err("another key"));
        check(check_bundle(BUNDLE.as_bytes(), &[], &bundle_of), Err("another key"));

        check(check_simple(SIMPLE.as_bytes(), SIMPLE_SIGNATURE, &keys, &simple_of), Ok(()));
        check(check_simple(SIMPLE.as_bytes(), SIMPLE_SIGNATURE, &keys, &other), Err("it is for sha256:b20328bb"));
        check(
            check_simple(SIMPLE.as_bytes(), SIMPLE_SIGNATURE, &[Signer::new().key()], &simple_of),
            Err("another key"),
        );
        check(check_simple(SIMPLE.as_bytes(), "s!", &keys, &simple_of), Err("no base64"));
        let changed = SIMPLE.replace("team", "evil");
        check(check_simple(changed.as_bytes(), SIMPLE_SIGNATURE, &keys, &simple_of), Err("something else"));
    }

    #[test]
    fn a_key_that_signs_other_things_too_signs_no_artifact_by_that() {
        let (signer, of) = (Signer::new(), Digest::of(b"manifest"));
        let keys = [signer.key()];
        let statement = |predicate: &str| json!({"_type": STATEMENTS[0], "predicateType": predicate, "subject": [{"digest": {"sha256": of.hex()}}]});
        let signed = |kind: &str, statement: &Value| {
            check_bundle(signer.bundle(kind, statement).to_string().as_bytes(), &keys, &of)
        };
        check(signed(PAYLOAD, &statement(PREDICATE)), Ok(()));
        check(signed(PAYLOAD, &statement("https://slsa.dev/provenance/v1")), Err("which is no signature"));
        check(signed("text/plain", &statement(PREDICATE)), Err("no statement"));
        check(signed(PAYLOAD, &json!({"signed": of.to_string()})), Err("no statement"));
        // What an in-toto statement says in the older form is over the payload, without its kind.
        let payload =
            json!({"critical": {"image": {"docker-manifest-digest": of.to_string()}, "type": "a menu"}}).to_string();
        check(
            check_simple(payload.as_bytes(), &signer.sign(payload.as_bytes()), &keys, &of),
            Err("no signature of an artifact"),
        );
        // Keys and signatures that are not there at all.
        let mut none = signer.bundle(PAYLOAD, &statement(PREDICATE));
        none["dsseEnvelope"]["signatures"] = json!([]);
        check(check_bundle(none.to_string().as_bytes(), &keys, &of), Err("another key"));
        none["dsseEnvelope"]["signatures"] = json!(vec![json!({"sig": ""}); 17]);
        check(check_bundle(none.to_string().as_bytes(), &keys, &of), Err("17 signatures"));
    }

    #[test]
    fn only_public_keys_that_can_be_checked_are_read() {
        let encoded = |tag: &str, der: &[u8]| pem::encode(&pem::Pem::new(tag, der));
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key").subject_public_key_info();
        assert_eq!(Key::read_all(&format!("{KEY}{KEY}")).expect("keys").len(), 2);
        for (text, expected) in [
            (String::new(), "it has no key"),
            ("s3cret".into(), "it has no key"),
            (encoded("ENCRYPTED SIGSTORE PRIVATE KEY", b"s3cret"), "private key"),
            (encoded("CERTIFICATE", b"x"), "it has a `CERTIFICATE`"),
            (encoded("PUBLIC KEY", b"x"), "a kind that is not supported"),
            (P521.into(), "a kind that is not supported"),
            (encoded("PUBLIC KEY", &ed25519), "a kind that is not supported"),
            (KEY.repeat(17), "17 keys"),
        ] {
            check(Key::read_all(&text).map(|_| ()), Err(expected));
        }
    }
}
