//! What a registry answers, as far as it is read from bytes alone, and what people write to name one.
//!
//! The first byte of an input says what the rest is. Signatures are made here, over what the input says, with a key that everybody knows:
//! otherwise nothing behind the check of a signature would ever be reached. A bundle as a whole is checked with the key of somebody else,
//! and must be refused, unless what it says is what that key signed.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pith::registry::{
    Challenge, Digest, DockerConfig, Key, Manifest, Mirror, Reference, check_bundle, check_simple, read_index,
};
use pith::wasm::LARGEST_MODULE_BYTES;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;

use crate::{files, here};

/// Made by cosign 3.1.3, whose key nobody has any more.
const COSIGN: &str = include_str!("../../../host/src/registry/samples/cosign.pub");
const BUNDLE: &str = include_str!("../../../host/src/registry/samples/bundle.json");
const PAYLOAD: &str = include_str!("../../../host/src/registry/samples/payload.json");

/// The part of a bundle that is signed.
#[derive(serde::Deserialize)]
struct Bundle {
    #[serde(rename = "dsseEnvelope")]
    envelope: Envelope,
}

#[derive(serde::Deserialize)]
struct Envelope {
    payload: String,
}

/// What the signatures are to be for.
static OF: LazyLock<Digest> = LazyLock::new(|| Digest::of(b"an artifact"));

/// A key for the length of a run.
static SIGNER: LazyLock<(EcdsaKeyPair, Vec<Key>)> = LazyLock::new(|| {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("a key");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random).expect("a key");
    // What stands before the point in the DER form of such a key is the same for all.
    let known = pem::parse(COSIGN).expect("a key");
    let header = &known.contents()[..known.contents().len() - pair.public_key().as_ref().len()];
    let public = pem::encode(&pem::Pem::new("PUBLIC KEY", [header, pair.public_key().as_ref()].concat()));
    (pair, Key::read_all(&public).expect("a key"))
});

fn sign(message: &[u8]) -> String {
    STANDARD.encode(SIGNER.0.sign(&SystemRandom::new(), message).expect("a signature"))
}

pub(crate) fn run(input: &[u8]) -> Result<String, String> {
    let Some((kind, bytes)) = input.split_first() else { return Err("no input".into()) };
    let text = || std::str::from_utf8(bytes).map_err(|_| "it is no text".to_string());
    match kind % 9 {
        0 => said(Manifest::read(bytes).and_then(|it| {
            assert!(it.module().is_err() || it.module()?.size <= LARGEST_MODULE_BYTES as u64, "the size of its module");
            it.module().map(|module| format!("a manifest of the module {}", module.digest))
        })),
        1 => said(read_index(bytes).map(|it| format!("an index of {}", it.len()))),
        2 => {
            let keys = Key::read_all(COSIGN).expect("a key");
            // As leniently as what is tested: fields that nobody reads may be anything.
            let payload = |bundle: &[u8]| {
                let bundle: Bundle = serde_json::from_slice(bundle).ok()?;
                STANDARD.decode(bundle.envelope.payload).ok()
            };
            let of =
                "sha256:a4ce01a9e53f7444abe8e282f08c6f0a9d1b7b50a2d87abde7d14ea39f15cc37".parse().expect("a digest");
            said(check_bundle(bytes, &keys, &of).map(|()| {
                assert_eq!(payload(bytes), payload(BUNDLE.as_bytes()), "a forged bundle");
                "signed by cosign".into()
            }))
        }
        3 => {
            let kind = "application/vnd.in-toto+json";
            let message = [format!("DSSEv1 {} {kind} {} ", kind.len(), bytes.len()).as_bytes(), bytes].concat();
            let envelope = json!({
                "payload": STANDARD.encode(bytes), "payloadType": kind, "signatures": [{"sig": sign(&message)}],
            });
            let bundle = json!({ "dsseEnvelope": envelope }).to_string();
            said(check_bundle(bundle.as_bytes(), &SIGNER.1, &OF).map(|()| names_artifact(bytes)))
        }
        4 => said(check_simple(bytes, &sign(bytes), &SIGNER.1, &OF).map(|()| names_artifact(bytes))),
        5 => said(text()?.parse::<Reference>().map(|it| {
            assert_eq!(it.to_string().parse::<Reference>().expect("as it is written"), it, "read again");
            format!("the reference {it}")
        })),
        6 => said(DockerConfig::read(bytes).map(|_| "a Docker configuration".into())),
        7 => said(Challenge::read(text()?).map(|it| format!("{it:?}"))),
        _ => {
            let text = text()?;
            let _ = text.parse::<Mirror>();
            said(Key::read_all(text).map(|it| format!("{} keys", it.len())))
        }
    }
}

/// Whatever was accepted as a signature of the artifact says its digest.
fn names_artifact(signed: &[u8]) -> String {
    let there = String::from_utf8_lossy(signed).contains(&OF.hex());
    // JSON may write any letter as an escape; nobody who signs does.
    assert!(there || signed.contains(&b'\\'), "a signature of something else");
    "a signature".into()
}

fn said(outcome: anyhow::Result<String>) -> Result<String, String> {
    outcome.map_err(|error| format!("{error:#}"))
}

/// Those in files, and what cosign and other tools write.
pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    let seed = |name: &str, kind: u8, bytes: &[u8]| (name.to_string(), [&[kind], bytes].concat());
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": OF.hex()}, "annotations": {}}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    });
    let payload =
        PAYLOAD.replace("sha256:b20328bb1585766d6424d45a5333cbd7bcf078215c3aeac4935f75f4bb1be24c", &OF.to_string());
    let mut seeds = vec![
        seed("bundle", 2, BUNDLE.as_bytes()),
        seed("statement", 3, statement.to_string().as_bytes()),
        seed("payload", 4, payload.as_bytes()),
        seed("reference", 5, format!("oci://ghcr.io:443/team/sizes:1.2@{}", *OF).as_bytes()),
        seed("docker-config", 6, br#"{"auths":{"https://ghcr.io/v1/":{"auth":"YTpi"},"a.io":{"username":"a","password":"b"}},"credsStore":"x"}"#),
        seed("challenge", 7, br#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a:pull""#),
        seed("keys", 8, COSIGN.as_bytes()),
    ];
    for (name, bytes) in files(&here("seeds/oci_manifest")) {
        seeds.push(seed(&name, u8::from(name.starts_with("index")), &bytes));
    }
    seeds
}
