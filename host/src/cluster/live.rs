//! Single questions to the API server, for what the watches have not brought yet: a claim and its pod are often made at once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::core::DynamicObject;
use kube::{Api, Client};
use pith_core::object::{Claim, Kind, Object, PersistentVolume, Reference, SecretRef};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use super::api::{cause, read, resource};
use super::event::{self, Happened};
use super::look::list;
use super::secret::secret;
use crate::metrics::Metrics;

/// How many questions there may be at once: Pith must not add much to the load of an API server that is behind.
const AT_ONCE: usize = 16;

/// Who asks.
pub struct Live {
    client: Client,
    turns: Semaphore,
    metrics: Arc<Metrics>,
}

/// The API server did not say whether an object exists, so nothing can be decided that depends on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the API server did not say whether {what} exists: {why}")]
pub struct Unanswered {
    what: String,
    why: String,
}

impl Live {
    /// Asks with this client.
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Live {
        Live { client, turns: Semaphore::new(AT_ONCE), metrics }
    }

    /// The object as it is now; none if there is no such one.
    pub(super) async fn get(&self, reference: &Reference, until: Instant) -> Result<Option<Object>, Unanswered> {
        let what = || reference.to_string();
        self.answer(reference.kind().plural(), what, until, self.ask(reference)).await
    }

    /// The metadata of a pod as it is now; none if there is no such one.
    pub(super) async fn pod(&self, namespace: &str, name: &str, until: Instant) -> Result<Option<Value>, Unanswered> {
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let asked = async {
            let found = api.get_metadata_opt(name).await?;
            Ok(found.map(|found| json!({"metadata": found.metadata})))
        };
        self.answer("pods", || format!("the pod `{namespace}/{name}`"), until, asked).await
    }

    async fn answer<T>(
        &self,
        kind: &'static str,
        what: impl Fn() -> String,
        until: Instant,
        asked: impl Future<Output = anyhow::Result<Option<T>>>,
    ) -> Result<Option<T>, Unanswered> {
        let in_turn = async {
            let _turn = self.turns.acquire().await?;
            asked.await
        };
        let (outcome, answer) = match timeout_at(until.into(), in_turn).await {
            Ok(Ok(Some(object))) => ("found", Ok(Some(object))),
            Ok(Ok(None)) => ("absent", Ok(None)),
            Ok(Err(error)) => ("failed", Err(cause(&*error))),
            Err(_) => ("late", Err("it did not answer in time".into())),
        };
        self.metrics.live_read(kind, outcome);
        answer.map_err(|why| Unanswered { what: what(), why })
    }

    /// Every PersistentVolume as it is now.
    pub(super) async fn volumes(&self) -> Result<Vec<PersistentVolume>, String> {
        let _turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
        let kind = Kind::PersistentVolume;
        let (mut volumes, mut unread) = (Vec::new(), None);
        let keep = |found| match read(kind, found) {
            Ok(Object::PersistentVolume(volume)) => volumes.push(volume),
            Ok(_) => {}
            Err(error) => unread = Some(format!("one of them cannot be read: {error:#}")),
        };
        let api = Api::all_with(self.client.clone(), &resource(kind));
        list(&api, ListParams::default(), keep).await.map_err(|error| cause(&error))?;
        match unread {
            Some(why) => Err(why),
            None => Ok(volumes),
        }
    }

    /// The content of a file system's Secret.
    pub(super) async fn secret(&self, name: &SecretRef) -> Result<BTreeMap<String, String>, String> {
        secret(&self.client, name).await
    }

    /// Says something in an event on a claim.
    pub(super) async fn say(&self, claim: &Claim, happened: Happened<'_>, until: Instant) {
        let Claim { namespace, name, uid, .. } = claim;
        let told = event::tell(&self.client, event::about("PersistentVolumeClaim", namespace, name, uid), happened);
        if timeout_at(until.into(), told).await.is_err() {
            tracing::warn!(%namespace, claim = %name, "an event cannot be written: the API server did not answer in time");
        }
    }

    async fn ask(&self, reference: &Reference) -> anyhow::Result<Option<Object>> {
        let resource = resource(reference.kind());
        let (api, name): (Api<DynamicObject>, _) = match reference {
            Reference::Claim { namespace, name } => {
                (Api::namespaced_with(self.client.clone(), namespace, &resource), name)
            }
            Reference::Namespace(name) | Reference::StorageClass(name) | Reference::PersistentVolume(name) => {
                (Api::all_with(self.client.clone(), &resource), name)
            }
        };
        let found = api.get_opt(name).await?;
        found.map(|found| read(reference.kind(), found)).transpose()
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("turns", &self.turns).finish_non_exhaustive()
    }
}
