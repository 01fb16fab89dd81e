//! The objects that requests see, and how they change while requests run.
//!
//! A request takes a snapshot at its start and keeps it to its end. Each event of a watch changes what the next request takes; the
//! lock is held for that one change, or for taking a snapshot, and never while anything waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use pith_core::object::{Claim, FileSystemFacts, Kind, Object, Objects, PersistentVolume, Reference, SecretRef};
use serde_json::Value;
use tokio::sync::watch;

use super::event::Happened;
use super::feed::{Feed, Told};
use super::live::{Live, Unanswered};

/// The most time that one decision waits for the API server. A webhook's caller waits for 10 s as a rule, and the API server
/// answers such a question in milliseconds, or is not well.
const PATIENCE: Duration = Duration::from_secs(1);

/// The objects as they are now.
#[derive(Debug)]
pub struct Mirror {
    state: RwLock<State>,
    changes: watch::Sender<()>,
    /// Whether every kind was listed.
    listed: watch::Sender<bool>,
    /// Absent where nobody can be asked for more.
    live: Option<Live>,
}

#[derive(Debug, Default)]
struct State {
    objects: Arc<Objects>,
    /// The kinds that were not listed so far, and what went wrong last.
    unlisted: BTreeMap<Kind, Option<String>>,
    /// Whether it is not known yet what the cluster can do.
    unversioned: bool,
    /// Whether it was not heard yet what is known of file systems.
    unheard: bool,
    /// How often something may have been removed.
    removals: u64,
}

impl Mirror {
    /// These objects, which do not change.
    pub fn fixed(objects: Objects) -> Mirror {
        let state = State { objects: Arc::new(objects), ..State::default() };
        Mirror {
            state: RwLock::new(state),
            changes: watch::Sender::default(),
            listed: watch::Sender::new(true),
            live: None,
        }
    }

    /// Those of a cluster, none of which are there before [`follow`](super::follow) brings them; `hears` is whether it says what is
    /// known of file systems.
    pub fn followed(live: Live, hears: bool) -> Mirror {
        let unlisted = Kind::ALL.map(|kind| (kind, None)).into();
        let state = State { unlisted, unversioned: true, unheard: hears, ..State::default() };
        let live = Some(live);
        Mirror { state: RwLock::new(state), changes: watch::Sender::default(), listed: watch::Sender::new(false), live }
    }

    /// The objects as they are now.
    pub fn snapshot(&self) -> Arc<Objects> {
        self.read().objects.clone()
    }

    /// Tells of every change, and of many at once as of one.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// What is still waited for before any decision can rely on what is here, as a sentence.
    pub fn waiting(&self) -> Option<String> {
        let state = self.read();
        let kind = |(kind, problem): (&Kind, &Option<String>)| match problem {
            Some(problem) => format!("{} ({problem})", kind.plural()),
            None => kind.plural().to_string(),
        };
        let kinds: Vec<String> = state.unlisted.iter().map(kind).collect();
        match kinds.is_empty() {
            false => Some(format!("the API server has not listed yet: {}", kinds.join(", "))),
            true if state.unversioned => Some("the API server has not said its version yet".into()),
            true => state.unheard.then(|| "the ConfigMap with what is known of file systems was not read yet".into()),
        }
    }

    /// Waits until decisions can rely on what is here.
    pub async fn listed(&self) {
        let mut listed = self.listed.subscribe();
        // It cannot fail: the sender is here.
        let _ = listed.wait_for(|listed| *listed).await;
    }

    /// Decides on a snapshot, and again where the decision missed objects that the API server has. It is asked once for each, and
    /// not at all where nothing is missed.
    pub async fn decide<D>(
        &self,
        deadline: Instant,
        decide: impl Fn(&Objects) -> (D, BTreeSet<Reference>),
    ) -> Result<D, Unanswered> {
        let mut objects = self.snapshot();
        let (mut decided, mut missing) = decide(&objects);
        let Some(live) = &self.live else { return Ok(decided) };
        let mut asked = BTreeSet::new();
        let mut until = None;
        loop {
            missing.retain(|it| asked.insert(it.clone()));
            let mut found = false;
            for reference in &missing {
                let removals = self.read().removals;
                let until = *until.get_or_insert_with(|| deadline.min(Instant::now() + PATIENCE));
                if let Some(object) = live.get(reference, until).await? {
                    found = true;
                    self.learn(object.clone(), removals);
                    Arc::make_mut(&mut objects).insert(object);
                }
            }
            if !found {
                return Ok(decided);
            }
            (decided, missing) = decide(&objects);
        }
    }

    /// The metadata of a pod, as the API server has it now; none where nobody can be asked. Pods are not followed here.
    pub async fn pod(&self, namespace: &str, name: &str, deadline: Instant) -> Result<Option<Value>, Unanswered> {
        match &self.live {
            Some(live) => live.pod(namespace, name, deadline.min(Instant::now() + PATIENCE)).await,
            None => Ok(None),
        }
    }

    /// Every PersistentVolume as the API server has it now, for what must not rest on something that a watch may bring later. The
    /// error says why they cannot be had.
    pub async fn volumes_now(&self) -> Result<Vec<Arc<PersistentVolume>>, String> {
        match &self.live {
            None => Ok(self.snapshot().persistent_volumes().cloned().collect()),
            Some(live) => Ok(live.volumes().await?.into_iter().map(Arc::new).collect()),
        }
    }

    /// Whether there is anybody to ask for Secrets.
    pub fn has_secrets(&self) -> bool {
        self.live.is_some()
    }

    /// The content of a file system's Secret. The error says why it cannot be had.
    pub async fn secret(&self, name: &SecretRef) -> Result<BTreeMap<String, String>, String> {
        match &self.live {
            None => Err("there is no cluster to ask for Secrets".into()),
            Some(live) => live.secret(name).await,
        }
    }

    /// Says something in an event on a claim, where there is a cluster.
    pub(crate) async fn say(&self, claim: &Claim, happened: Happened<'_>) {
        if let Some(live) = &self.live {
            live.say(claim, happened, Instant::now() + PATIENCE).await;
        }
    }

    /// Changes what the next request sees by one event. True if with it every kind was listed for the first time.
    pub(super) fn tell(&self, feed: &mut Feed, told: Told) -> bool {
        let state = &mut *self.write();
        let listed = told == Told::Listed && state.unlisted.remove(&feed.kind).is_some();
        if matches!(told, Told::Gone(_) | Told::Listed) {
            state.removals += 1;
        }
        feed.apply(told, Arc::make_mut(&mut state.objects));
        self.changes.send_replace(());
        self.note_listed(state);
        listed && state.unlisted.is_empty()
    }

    /// Keeps what the cluster can do.
    pub(super) fn tell_version(&self, lacks_native_sidecars: bool) {
        let state = &mut *self.write();
        Arc::make_mut(&mut state.objects).lacks_native_sidecars = lacks_native_sidecars;
        state.unversioned = false;
        self.changes.send_replace(());
        self.note_listed(state);
    }

    /// Keeps what pods must know of file systems.
    pub(super) fn tell_file_systems(&self, known: BTreeMap<SecretRef, FileSystemFacts>) {
        let state = &mut *self.write();
        Arc::make_mut(&mut state.objects).know(known);
        state.unheard = false;
        self.changes.send_replace(());
        self.note_listed(state);
    }

    fn note_listed(&self, state: &State) {
        if state.unlisted.is_empty() && !state.unversioned && !state.unheard {
            self.listed.send_replace(true);
        }
    }

    /// Notes why a kind is not listed yet.
    pub(super) fn failed(&self, kind: Kind, problem: &str) {
        if let Some(why) = self.write().unlisted.get_mut(&kind) {
            *why = Some(problem.into());
        }
    }

    /// Keeps what the API server was asked for, so that it is not asked again. Only where nothing was removed since: it may be
    /// what was removed, and no watch would ever tell so a second time. And what a watch brought meanwhile is as new.
    fn learn(&self, object: Object, removals: u64) {
        let state = &mut *self.write();
        if state.removals == removals && !state.objects.contains(&object.reference()) {
            Arc::make_mut(&mut state.objects).insert(object);
        }
    }

    // A panic of another thread leaves the objects as they were before or after its change.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
