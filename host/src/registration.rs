//! The webhook's configuration in the API server: written once this process can answer, and kept as it is to be.
//!
//! Every replica does the same, by server-side apply and only where something differs, so that they agree without asking each
//! other. Others' fields in the configuration are theirs.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use pith_core::registration::{MANAGER, Manifest, Owner, bundles_only, difference};
use serde_json::Value;
use tokio::sync::watch;

use crate::cluster::{Pauses, cause, object_by_name};
use crate::config;
use crate::metrics::Metrics;
use crate::tls::{Bundles, Certificates};

/// A configuration that nothing disturbs is looked at as often as this.
const LONGEST_SLEEP: Duration = Duration::from_secs(300);

/// Who keeps the configuration.
pub struct Registration {
    manifest: Manifest,
    ca_bundle_only: bool,
    owner: Option<String>,
    configurations: Api<DynamicObject>,
    roles: Api<DynamicObject>,
    metrics: Arc<Metrics>,
    /// The CA bundles that API servers have.
    registered: watch::Sender<Bundles>,
}

/// What was applied last, and what came of it.
#[derive(PartialEq)]
struct Applied {
    wanted: Value,
    version: Option<String>,
}

impl Registration {
    /// Reads the manifest.
    pub fn load(configured: &config::Registration, client: &Client, metrics: Arc<Metrics>) -> Result<Registration> {
        let path = &configured.manifest;
        let place = || format!("the webhook's configuration {}", path.display());
        let text = std::fs::read_to_string(path).with_context(place)?;
        let manifest: Value = yaml_serde::from_str(&text).with_context(place)?;
        let all = |group: &str, kind: &str| {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
            Api::all_with(client.clone(), &resource)
        };
        Ok(Registration {
            manifest: Manifest::parse(manifest).with_context(place)?,
            ca_bundle_only: configured.ca_bundle_only,
            owner: configured.owner.clone(),
            configurations: all("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
            roles: all("rbac.authorization.k8s.io", "ClusterRole"),
            metrics,
            registered: watch::Sender::default(),
        })
    }

    /// The CA bundles that API servers have, as soon as they have them.
    pub fn registered(&self) -> watch::Receiver<Bundles> {
        self.registered.subscribe()
    }

    /// Writes the configuration and keeps it. It ends only with a defect.
    pub async fn keep(self, certificates: &Certificates) {
        let name = self.manifest.name();
        let mut trusted = certificates.trusted();
        let mut events = pin!(object_by_name(self.configurations.clone(), "mutatingwebhookconfigurations", name));
        let owner = self.owner().await;
        let Some(mut existing) = events.next().await else { return };
        let (mut pauses, mut not_before) = (Pauses::default(), Instant::now());
        let (mut applied, mut missed) = (None, false);
        loop {
            self.registered.send_replace(existing.as_ref().map(bundles).unwrap_or_default());
            let bundle = trusted.borrow_and_update().as_ref().map(|bundle| STANDARD.encode(bundle));
            let now = Instant::now();
            let sleep = match self.step(existing.as_ref(), bundle.as_deref(), owner.as_ref(), applied.as_ref()) {
                None => LONGEST_SLEEP,
                // Somebody else wants something else: neither is to keep the API server busy.
                Some(_) if now < not_before => not_before - now,
                Some((wanted, place)) => {
                    not_before = now + pauses.next(now);
                    if let Some(object) = self.apply(&wanted, &place).await {
                        applied = Some(Applied { wanted, version: object.metadata.resource_version.clone() });
                        existing = Some(object);
                        continue;
                    }
                    not_before.saturating_duration_since(Instant::now())
                }
            };
            if self.ca_bundle_only && existing.is_none() != missed {
                missed = existing.is_none();
                if missed {
                    tracing::warn!(%name, "there is no such MutatingWebhookConfiguration: its CA bundle is written once somebody makes it");
                }
            }
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => existing = event,
                    None => return,
                },
                changed = trusted.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// What is to be applied, and the first place that is not as it is to be.
    fn step(
        &self,
        existing: Option<&DynamicObject>,
        bundle: Option<&str>,
        owner: Option<&Owner>,
        applied: Option<&Applied>,
    ) -> Option<(Value, String)> {
        let found = existing.map(|it| serde_json::to_value(it).unwrap_or_default());
        let wanted = match (self.ca_bundle_only, &found) {
            (true, Some(found)) => bundles_only(found, bundle?),
            (true, None) => return None,
            (false, _) => self.manifest.wanted(bundle, owner),
        };
        let place = match &found {
            Some(found) => difference(found, &wanted)?,
            None => "it is not there".into(),
        };
        let version = existing.and_then(|it| it.metadata.resource_version.clone());
        // An API server may keep a value in another form, which is a difference that stays.
        let settled = applied.is_some_and(|it| it.version == version && it.wanted == wanted);
        (!settled).then_some((wanted, place))
    }

    async fn apply(&self, wanted: &Value, place: &str) -> Option<DynamicObject> {
        let name = self.manifest.name();
        let parameters = PatchParams::apply(MANAGER).force();
        match self.configurations.patch(name, &parameters, &Patch::Apply(wanted)).await {
            Ok(object) => {
                self.metrics.registrations.inc();
                tracing::info!(%name, difference = %place, "wrote the webhook's configuration");
                Some(object)
            }
            Err(error) => {
                tracing::warn!(%name, difference = %place, error = %cause(&error), "the webhook's configuration cannot be written");
                None
            }
        }
    }

    /// The owner as it is now. Without it nothing is written, as nobody would remove that.
    async fn owner(&self) -> Option<Owner> {
        let name = self.owner.as_deref()?;
        let mut pauses = Pauses::default();
        loop {
            match self.roles.get_metadata(name).await {
                Ok(found) => {
                    return Some(Owner {
                        api_version: "rbac.authorization.k8s.io/v1".into(),
                        kind: "ClusterRole".into(),
                        name: name.into(),
                        uid: found.metadata.uid.unwrap_or_default(),
                    });
                }
                Err(error) => {
                    tracing::warn!(owner = %name, error = %cause(&error), "the owner of the webhook's configuration cannot be read");
                    tokio::time::sleep(pauses.next(Instant::now())).await;
                }
            }
        }
    }
}

/// The CA bundle of each webhook, PEM.
fn bundles(configuration: &DynamicObject) -> Bundles {
    let webhooks = configuration.data["webhooks"].as_array().into_iter().flatten();
    let bundle = |webhook: &Value| {
        let bytes = STANDARD.decode(webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default());
        String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
    };
    webhooks.map(bundle).collect()
}
