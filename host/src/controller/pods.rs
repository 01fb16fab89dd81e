//! The pods that were injected: what they are called, which claims they use, and whether they should have ended.
//!
//! Only pods with the label of an injection are asked for, and of those only the metadata, so that a cluster's other pods cost
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use k8s_openapi::api::core::v1::Pod;
use kube::core::{PartialObjectMeta, ResourceExt};
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client};
use pith_core::reason::{DONE_LABEL, STATUS_ANNOTATION};
use pith_core::status::{self, InjectedClaim};
use tokio::sync::watch;

use crate::cluster;
use crate::metrics::Metrics;

/// A pod by namespace and name.
pub(super) type PodName = (String, String);

/// An injected pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InjectedPod {
    /// Its UID.
    pub(super) uid: String,
    /// The names of the claims that it has sidecars for.
    pub(super) claims: BTreeSet<String>,
    /// Those for which it has a Secret of its own.
    pub(super) own: Vec<InjectedClaim>,
    /// When it was made.
    pub(super) made: SystemTime,
    /// What is to be said of it in events.
    pub(super) notes: Vec<String>,
    /// When it should have ended, its grace period included; absent while nobody deletes it.
    pub(super) ends: Option<SystemTime>,
}

/// All injected pods as they are now.
#[derive(Debug, Default)]
pub(super) struct Pods {
    state: Mutex<State>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    known: BTreeMap<PodName, InjectedPod>,
    /// What a list has brought so far; absent between lists.
    listing: Option<BTreeMap<PodName, InjectedPod>>,
    listed: bool,
}

impl Pods {
    /// Follows them. It ends only with a defect.
    pub(super) async fn follow(&self, client: &Client, metrics: &Metrics) {
        let restarts = metrics.watch_restarts("pods");
        let api = Api::<PartialObjectMeta<Pod>>::all(client.clone());
        let config = Config::default().labels(&format!("{DONE_LABEL}=true"));
        cluster::events(api, config, "pods", |event| match event {
            Ok(event) => self.tell(event),
            Err(_) => {
                restarts.inc();
            }
        })
        .await;
    }

    fn tell(&self, event: Event<PartialObjectMeta<Pod>>) {
        let mut state = self.lock();
        match event {
            Event::Init => state.listing = Some(BTreeMap::new()),
            Event::InitApply(it) => {
                let (name, pod) = read(&it);
                state.listing.get_or_insert_default().insert(name, pod);
            }
            Event::InitDone => {
                state.known = state.listing.take().unwrap_or_default();
                state.listed = true;
            }
            Event::Apply(it) => {
                let (name, pod) = read(&it);
                state.known.insert(name, pod);
            }
            Event::Delete(it) => {
                state.known.remove(&read(&it).0);
            }
        }
        self.changes.send_replace(());
    }

    /// All of them; none where they are not known yet.
    pub(super) fn snapshot(&self) -> Option<BTreeMap<PodName, InjectedPod>> {
        let state = self.lock();
        state.listed.then(|| state.known.clone())
    }

    /// Tells of every change, and of many at once as of one.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    // A panic of another thread leaves the pods as they were before or after its change.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(pod: &PartialObjectMeta<Pod>) -> (PodName, InjectedPod) {
    let status = pod.annotations().get(STATUS_ANNOTATION).map(String::as_str).unwrap_or_default();
    let mut claims = status::claims(status);
    let names = claims.iter().map(|claim| claim.name(&pod.name_any())).collect();
    claims.retain(|claim| claim.secret().is_some());
    let read = InjectedPod {
        uid: pod.uid().unwrap_or_default(),
        claims: names,
        own: claims,
        made: pod.creation_timestamp().map_or(SystemTime::UNIX_EPOCH, |made| SystemTime::from(made.0)),
        notes: status::notes(status),
        ends: pod.metadata.deletion_timestamp.as_ref().map(|ends| SystemTime::from(ends.0)),
    };
    ((pod.namespace().unwrap_or_default(), pod.name_any()), read)
}
