//! The watches that keep a [`Mirror`] as the cluster is: one for each kind, for as long as the process runs.
//!
//! `kube` lists in pages and then watches with bookmarks; where a watch fails it goes on from where it was, or lists again when the
//! API server no longer knows that place. How soon is decided here: `kube`'s own pauses grow to a minute where a watch cannot begin,
//! and do not grow at all where a list cannot.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::pin::pin;
use std::time::Instant;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta, Resource};
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client};
use pith_core::object::{Kind, Object, Reference};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api::{cause, lacks_native_sidecars, read, reference, resource};
use super::feed::{Feed, Told};
use super::mirror::Mirror;
use super::one::object_by_name;
use super::pauses::Pauses;
use crate::config::ConfigMapRef;
use crate::memory;
use crate::metrics::Metrics;

/// How many objects come in one page of a list. As they come they take some thirty times of what is kept, and what is kept lies
/// between them. 10 000 claims and volumes are listed in two seconds with this and with 250, and then take up to 20 MB less.
const PAGE: u32 = 50;
/// Follows all kinds, and the ConfigMap with what is known of file systems. It ends only with a defect.
pub async fn follow(client: Client, known: Option<&ConfigMapRef>, mirror: &Mirror, metrics: &Metrics) {
    let started = Instant::now();
    tokio::join!(
        version(&client, mirror),
        async {
            if let Some(known) = known {
                file_systems(&client, known, mirror).await;
            }
        },
        // The largest part of a Namespace is not read, so it is not sent.
        kind::<PartialObjectMeta<DynamicObject>>(Kind::Namespace, &client, mirror, metrics, started),
        kind::<DynamicObject>(Kind::StorageClass, &client, mirror, metrics, started),
        kind::<DynamicObject>(Kind::PersistentVolume, &client, mirror, metrics, started),
        kind::<DynamicObject>(Kind::Claim, &client, mirror, metrics, started),
    );
}

/// Asks once what the cluster can do. An upgrade of it is known after the next start: pods that were made before stay as they are.
async fn version(client: &Client, mirror: &Mirror) {
    let mut pauses = Pauses::default();
    loop {
        match lacks_native_sidecars(client).await {
            Ok(lacks) => {
                if lacks {
                    tracing::info!(
                        "the cluster has no native sidecars: unless the configuration says otherwise, clients are plain containers"
                    );
                }
                return mirror.tell_version(lacks);
            }
            Err(error) => {
                tracing::warn!(error = %cause(&error), "the API server was asked for its version, and is asked again");
                tokio::time::sleep(pauses.next(Instant::now())).await;
            }
        }
    }
}

/// Keeps what the controller says of file systems.
async fn file_systems(client: &Client, ConfigMapRef { namespace, name }: &ConfigMapRef, mirror: &Mirror) {
    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let mut events = pin!(object_by_name(api, "configmaps", name));
    while let Some(found) = events.next().await {
        if found.is_none() {
            tracing::warn!(%namespace, %name, "there is no such ConfigMap: all file systems are taken to be of the Community Edition");
        }
        let data = found.and_then(|found| found.data).unwrap_or_default().into_iter().collect();
        let (known, unreadable) = pith_core::file_system::read(&data);
        if !unreadable.is_empty() {
            tracing::warn!(%namespace, %name, keys = ?unreadable, "the ConfigMap has entries that cannot be read");
        }
        mirror.tell_file_systems(known);
    }
}

async fn kind<K>(kind: Kind, client: &Client, mirror: &Mirror, metrics: &Metrics, started: Instant)
where
    K: Resource<DynamicType = ApiResource> + Clone + Debug + DeserializeOwned + Send + Serialize + 'static,
{
    let restarts = metrics.watch_restarts(kind.plural());
    let api = Api::<K>::all_with(client.clone(), &resource(kind));
    let (mut feed, mut reader) = (Feed::of(kind), Reader { kind, unreadable: BTreeSet::new() });
    events(api, Config::default(), kind.plural(), |event| match event {
        Ok(event) => {
            let listed = matches!(event, Event::InitDone);
            if mirror.tell(&mut feed, reader.told(event)) {
                tracing::info!(took = ?started.elapsed(), "every kind of object is listed");
            }
            if listed {
                memory::give_back();
            }
        }
        Err(problem) => {
            restarts.inc();
            mirror.failed(kind, problem);
        }
    })
    .await;
}

/// Hands on every event of a watch, and why it failed where it did. It ends only with a defect.
pub(crate) async fn events<K>(api: Api<K>, config: Config, what: &str, mut tell: impl FnMut(Result<Event<K>, &str>))
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = pin!(watcher(api, config.page_size(PAGE)));
    let mut pauses = Pauses::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => tell(Ok(event)),
            Err(error) => {
                let error = cause(&error);
                tell(Err(&error));
                tracing::warn!(what, %error, "a watch failed, and begins again");
                tokio::time::sleep(pauses.next(Instant::now())).await;
            }
        }
    }
}

/// From events as they come to what is kept of them.
struct Reader {
    kind: Kind,
    /// What was complained about already.
    unreadable: BTreeSet<Reference>,
}

impl Reader {
    fn told<K: Resource + Serialize>(&mut self, event: Event<K>) -> Told {
        match event {
            Event::Init => Told::Listing,
            Event::InitApply(it) | Event::Apply(it) => {
                let reference = reference(self.kind, &it);
                self.object(it, &reference).map_or(Told::Gone(reference), Told::Is)
            }
            Event::InitDone => Told::Listed,
            Event::Delete(it) => {
                let reference = reference(self.kind, &it);
                self.unreadable.remove(&reference);
                Told::Gone(reference)
            }
        }
    }

    /// One object; where it cannot be read it is left out, which is said once.
    fn object<K: Resource + Serialize>(&mut self, it: K, reference: &Reference) -> Option<Object> {
        match read(self.kind, it) {
            Ok(object) => {
                self.unreadable.remove(reference);
                Some(object)
            }
            Err(error) => {
                if self.unreadable.insert(reference.clone()) {
                    tracing::warn!("{reference} cannot be read, and counts as if it were not there: {error:#}");
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_cannot_be_read_is_gone_until_it_can_be() {
        let mut reader = Reader { kind: Kind::Claim, unreadable: BTreeSet::new() };
        let reference = || Reference::Claim { namespace: "shop".into(), name: "data".into() };
        let object = |mode: &str| -> DynamicObject {
            let metadata = json!({"namespace": "shop", "name": "data", "uid": "1"});
            let claim = json!({"metadata": metadata, "spec": {"accessModes": [mode]}});
            serde_json::from_value(claim).expect("an object")
        };
        for _ in 0..2 {
            assert_eq!(reader.told(Event::Apply(object("Sometimes"))), Told::Gone(reference()));
            assert_eq!(reader.unreadable, [reference()].into());
        }
        let told = reader.told(Event::InitApply(object("ReadWriteOnce")));
        assert!(matches!(told, Told::Is(Object::Claim(claim)) if claim.name == "data"));
        assert_eq!(reader.unreadable, BTreeSet::new());
        assert_eq!(reader.told(Event::Delete(object("Sometimes"))), Told::Gone(reference()));
    }
}
