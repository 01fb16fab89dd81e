//! A certificate in a Secret that all replicas share. Whichever comes first makes the next step of `pith_core::rotation`.
//!
//! The Secret has the keys of its type, `tls.crt` and `tls.key`, and `ca.crt`, which is everything that clients are to trust.
//! During a renewal it has `next.crt` and `next.key` too. A step is written only onto what it was decided upon, so that no two
//! replicas make the same one; who was second sees the first one's.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};
use pith_core::registration::MANAGER;
use pith_core::rotation::{Found, Step, Stored, Times, Validity, next_step};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use super::make::{Made, make};
use super::pair::{Pair, certificates};
use super::{Bundles, Certificates};
use crate::cluster::{cause, object_by_name};
use crate::config::SharedSecret;

/// How soon a step is tried again, should no event tell what came of it.
const RETRY: Duration = Duration::from_secs(10);
/// The longest sleep: clocks are set, and machines are suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(300);
/// Whoever sets this annotation asks for a renewal now.
const ROTATE: &str = "pith.dev/rotate";

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITIES: &str = "ca.crt";
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";

/// What lies in the Secret. It has private keys: nothing that holds one can be printed.
type Data = BTreeMap<String, ByteString>;

/// Where the Secret is, and what it is for.
pub(super) struct Shared {
    secret: SharedSecret,
    api: Api<Secret>,
}

/// What was made of the Secret's data.
struct Contents {
    serving: Pair,
    next: Option<Pair>,
    authorities: Vec<CertificateDer<'static>>,
    /// What is wrong with the rest.
    flaw: Option<String>,
}

/// What a replica remembers from one look to the next.
#[derive(Default)]
struct Memory {
    /// What it serves.
    kept: Option<(Data, Validity)>,
    unchanged_since: Option<SystemTime>,
    trusted_since: Option<SystemTime>,
    /// What it complained about last.
    said: Option<String>,
}

impl Shared {
    pub(super) fn new(secret: SharedSecret, client: Client) -> Shared {
        let api = Api::namespaced(client, &secret.namespace);
        Shared { secret, api }
    }

    /// Serves what is in the Secret, and makes its steps when it is time.
    pub(super) async fn keep(self, served: &Certificates, mut registered: Option<watch::Receiver<Bundles>>) {
        let mut events = pin!(object_by_name(self.api.clone(), "secrets", &self.secret.name));
        let mut memory = Memory::default();
        let Some(mut secret) = events.next().await else { return };
        loop {
            let bundles = registered.as_mut().map(|it| it.borrow_and_update().clone());
            let now = SystemTime::now();
            let (step, contents) = self.look(secret.as_ref(), bundles, &mut memory, served, now);
            let sleep = match step {
                Step::Wait(until) => until
                    .map_or(LONGEST_SLEEP, |until| until.duration_since(now).unwrap_or_default().min(LONGEST_SLEEP)),
                step => {
                    self.carry_out(step, secret.as_ref(), contents.as_ref(), memory.kept.as_ref()).await;
                    RETRY
                }
            };
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => secret = event,
                    None => return,
                },
                () = changed(&mut registered) => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Serves what is there, and says what comes next.
    fn look(
        &self,
        secret: Option<&Secret>,
        bundles: Option<Bundles>,
        memory: &mut Memory,
        served: &Certificates,
        now: SystemTime,
    ) -> (Step, Option<Contents>) {
        let data = secret.and_then(|secret| secret.data.as_ref());
        let contents = data.map(Contents::read).transpose();
        self.complain(&contents, memory);
        let contents = contents.ok().flatten();
        if let (Some(contents), Some(data)) = (&contents, data) {
            self.serve(contents, data, memory, served, now);
            let trusted = contents.next.as_ref().is_some_and(|next| is_trusted(next, bundles.as_deref()));
            memory.trusted_since = trusted.then(|| memory.trusted_since.unwrap_or(now));
        }
        let asked = secret.and_then(|it| it.metadata.annotations.as_ref()).is_some_and(|it| it.contains_key(ROTATE));
        let found = contents.as_ref().map_or(Found::Nothing, |it| Found::Stored(it.stored(&self.secret.names, asked)));
        let times = Times {
            now,
            unchanged_since: memory.unchanged_since.unwrap_or(now),
            trusted_since: memory.trusted_since,
            overlap: self.secret.overlap,
        };
        (next_step(&found, memory.kept.as_ref().map(|(_, validity)| *validity), &times), contents)
    }

    /// Serves these contents where they are new and can still be served.
    fn serve(&self, contents: &Contents, data: &Data, memory: &mut Memory, served: &Certificates, now: SystemTime) {
        let before = memory.kept.as_ref().map(|(data, _)| data);
        if before == Some(data) || contents.serving.validity.ends <= now {
            return;
        }
        let other = before.and_then(|before| before.get(CERTIFICATE)) != data.get(CERTIFICATE);
        served.serve(contents.serving.clone(), Some(encode(&contents.authorities)));
        if other {
            tracing::info!(secret = %self.name(), "a new certificate is served");
        }
        memory.kept = Some((data.clone(), contents.serving.validity));
        memory.unchanged_since = Some(now);
        memory.trusted_since = None;
    }

    /// Says what is wrong with the Secret, once.
    fn complain(&self, contents: &Result<Option<Contents>>, memory: &mut Memory) {
        let problem = match contents {
            Ok(contents) => contents.as_ref().and_then(|it| it.flaw.clone()),
            Err(error) => Some(format!("{error:#}; it is written anew")),
        };
        if let Some(problem) = problem.as_ref().filter(|&problem| memory.said.as_ref() != Some(problem)) {
            tracing::warn!(secret = %self.name(), "the shared certificate cannot be used: {problem}");
        }
        memory.said = problem;
    }

    async fn carry_out(
        &self,
        step: Step,
        secret: Option<&Secret>,
        contents: Option<&Contents>,
        kept: Option<&(Data, Validity)>,
    ) {
        let data = match self.written(step, secret, contents, kept) {
            Ok(data) => data,
            Err(error) => {
                return tracing::error!(secret = %self.name(), ?step, "a certificate cannot be made: {error:#}");
            }
        };
        let parameters = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        let written = match secret {
            Some(secret) => {
                let mut secret = secret.clone();
                secret.data = Some(data);
                if step == Step::Announce {
                    secret.metadata.annotations.iter_mut().for_each(|it| drop(it.remove(ROTATE)));
                }
                // With the version that it was read in, so that this fails where somebody else was first.
                self.api.replace(&self.secret.name, &parameters, &secret).await
            }
            None => self.api.create(&parameters, &self.first(data)).await,
        };
        match written {
            Ok(_) => tracing::info!(secret = %self.name(), ?step, "wrote the shared certificate"),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                tracing::debug!(secret = %self.name(), ?step, "another replica was first");
            }
            Err(error) => {
                tracing::warn!(secret = %self.name(), ?step, error = %cause(&error), "the shared certificate cannot be written");
            }
        }
    }

    /// What the Secret's data are after this step.
    fn written(
        &self,
        step: Step,
        secret: Option<&Secret>,
        contents: Option<&Contents>,
        kept: Option<&(Data, Validity)>,
    ) -> Result<Data> {
        let present = || secret.and_then(|secret| secret.data.clone()).unwrap_or_default();
        let stored = || contents.context("there is no certificate yet");
        let mut data = present();
        match step {
            Step::Wait(_) => {}
            Step::Restore => data = kept.context("no certificate is served")?.0.clone(),
            Step::Make => {
                data = Data::new();
                put(&mut data, CERTIFICATE, KEY, &make(&self.secret.names, self.secret.lifetime)?);
            }
            Step::Announce => {
                let serving = &stored()?.serving;
                let made = make(&self.secret.names, self.secret.lifetime)?;
                let needed = encode(&of(serving, &stored()?.authorities)) + &made.authority;
                put(&mut data, NEXT_CERTIFICATE, NEXT_KEY, &made);
                data.insert(AUTHORITIES.into(), ByteString(needed.into_bytes()));
            }
            Step::Swap => {
                for (next, key) in [(NEXT_CERTIFICATE, CERTIFICATE), (NEXT_KEY, KEY)] {
                    let next = data.remove(next).context("there is no next certificate")?;
                    data.insert(key.into(), next);
                }
            }
            Step::Forget => {
                let needed = encode(&of(&stored()?.serving, &stored()?.authorities));
                data.insert(AUTHORITIES.into(), ByteString(needed.into_bytes()));
                data.remove(NEXT_CERTIFICATE);
                data.remove(NEXT_KEY);
            }
        }
        Ok(data)
    }

    fn first(&self, data: Data) -> Secret {
        let mut secret = Secret { type_: Some("kubernetes.io/tls".into()), data: Some(data), ..Secret::default() };
        secret.metadata.name = Some(self.secret.name.clone());
        secret.metadata.namespace = Some(self.secret.namespace.clone());
        secret.metadata.labels = Some([("app.kubernetes.io/managed-by".into(), MANAGER.into())].into());
        secret
    }

    fn name(&self) -> String {
        format!("{}/{}", self.secret.namespace, self.secret.name)
    }
}

impl Contents {
    /// Reads them. What can be served is, whatever is wrong with the rest.
    fn read(data: &Data) -> Result<Contents> {
        let text = |key: &str| data.get(key).map(|bytes| &*bytes.0);
        let (Some(certificate), Some(key), Some(authorities)) = (text(CERTIFICATE), text(KEY), text(AUTHORITIES))
        else {
            anyhow::bail!("it does not have all of {CERTIFICATE}, {KEY} and {AUTHORITIES}");
        };
        let serving = Pair::read(certificate, key)?;
        let authorities = certificates(authorities).with_context(|| format!("its {AUTHORITIES}"))?;
        ensure!(is_of_any(&serving, &authorities), "its {AUTHORITIES} has no CA that signed its {CERTIFICATE}");
        let next = match (text(NEXT_CERTIFICATE), text(NEXT_KEY)) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Pair::read(certificate, key).map(Some),
            _ => Err(anyhow::anyhow!("it has only one of {NEXT_CERTIFICATE} and {NEXT_KEY}")),
        };
        let next = next.and_then(|next| {
            let announced = next.as_ref().is_none_or(|next| is_of_any(next, &authorities));
            ensure!(announced, "its {AUTHORITIES} has no CA that signed its {NEXT_CERTIFICATE}");
            Ok(next)
        });
        let flaw = next.as_ref().err().map(|error| format!("the next one, which is made anew: {error:#}"));
        Ok(Contents { serving, next: next.ok().flatten(), authorities, flaw })
    }

    fn stored(&self, names: &[String], asked: bool) -> Stored {
        let is_needed = |authority: &CertificateDer<'_>| {
            self.serving.is_of(authority) || self.next.as_ref().is_some_and(|next| next.is_of(authority))
        };
        Stored {
            serving: self.serving.validity,
            has_names: names.iter().all(|name| self.serving.has_name(name)),
            next: self.next.as_ref().map(|next| next.validity),
            old_authority: !self.authorities.iter().all(is_needed),
            asked,
        }
    }
}

/// Puts a pair there, and its CA as the only one that is trusted.
fn put(data: &mut Data, certificate: &str, key: &str, made: &Made) {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    data.insert(certificate.into(), bytes(&made.certificate));
    data.insert(key.into(), bytes(&made.key));
    data.insert(AUTHORITIES.into(), bytes(&made.authority));
}

/// Whether clients trust this certificate: by every bundle that they have. Where nobody says what they have, whoever hands the
/// Secret's bundle on has as long for it as API servers have.
fn is_trusted(pair: &Pair, bundles: Option<&[String]>) -> bool {
    let Some(bundles) = bundles else { return true };
    let has = |bundle: &String| certificates(bundle.as_bytes()).is_ok_and(|bundle| is_of_any(pair, &bundle));
    !bundles.is_empty() && bundles.iter().all(has)
}

fn is_of_any(pair: &Pair, authorities: &[CertificateDer<'_>]) -> bool {
    authorities.iter().any(|authority| pair.is_of(authority))
}

/// The CAs of this pair.
fn of(pair: &Pair, authorities: &[CertificateDer<'static>]) -> Vec<CertificateDer<'static>> {
    authorities.iter().filter(|authority| pair.is_of(authority)).cloned().collect()
}

/// As PEM, the same text in every replica.
fn encode(authorities: &[CertificateDer<'_>]) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    authorities.iter().map(|it| pem::encode_config(&pem::Pem::new("CERTIFICATE", it.as_ref()), lines)).collect()
}

async fn changed(registered: &mut Option<watch::Receiver<Bundles>>) {
    let heard = match registered {
        Some(registered) => registered.changed().await.is_ok(),
        None => false,
    };
    // Where nobody registers, nothing changes.
    if !heard {
        std::future::pending::<()>().await;
    }
}
