//! Volumes made, found, resized and removed: the second line of the product, between CSI's calls and the file system.
//!
//! ```text
//!   create ─ record? ┬─ yes: compare ──────────────────────────┬─ ready: answer
//!                    └─ no: policies name it ─ record ────────┴─ reserve ─ directory ─ quota ─ mark as made ─ answer
//! ```
//!
//! A volume that another provisioner has made has no record: what is asked of it first writes one (`adoption`).
//!
//! What exists is asked of the file system, never of this process: a retry finds what the first call left, wherever that was
//! cut. A policy is asked once for each volume, because its answer is in the first record.

mod adoption;
mod lists;
mod modify;
mod origin;
mod purge;
mod quota;
mod snapshots;
mod survey;
mod trash;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pith_core::binding::Binding;
use pith_core::catalogue::Code;
use pith_core::object::{Claim, Entries, Namespace, Objects, Reference};
use pith_core::policy::{Hook, Origin};
use pith_core::template::Templates;
use pith_core::text::clean;
use pith_core::volume::{
    self, After, Asked, ClaimName, Difference, NamingContext, Place, Quota, Record, RecordKey, SizeProblem, State,
    VolumeRefusal,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::cluster::Mirror;
use crate::cluster::event::Happened;
use crate::decisions::{About, Decisions};
use crate::juicefs::steps::Steps;
use crate::juicefs::store::{self, Begun, Slot, Store, StoreError};
use crate::juicefs::{FileSystem, FileSystemKey, JuiceFsError, SourceError, Workers};
use crate::policy::{InForce, Moment};

pub use lists::Page;
pub use snapshots::SnapshotQuery;
pub use survey::Known;
pub use trash::{Deleted, Found};

/// How much of a note is said in an event, in bytes: it may repeat a class's or a claim's words.
const LONGEST_NOTE: usize = 800;
/// How often a call starts again because another replica was faster.
const TRIES: usize = 5;

/// What the controller asks. Secrets travel beside the question and are never stored.
///
/// A call that was begun may be dropped by nobody: whoever asks waits for the answer in a task of its own.
pub trait Volumes: Send + Sync + 'static {
    /// Makes the volume, or finds it as it was made.
    fn create(&self, request: CreateRequest) -> impl Future<Output = Result<Record, VolumeError>> + Send;

    /// Removes the volume. One that is not there is removed.
    fn delete(&self, id: &str, secrets: Secrets) -> impl Future<Output = Result<(), VolumeError>> + Send;

    /// Gives the volume at least `required` and at most `limit` bytes. The answer is what it has then.
    fn expand(
        &self,
        id: &str,
        required: Option<u64>,
        limit: Option<u64>,
        secrets: Secrets,
    ) -> impl Future<Output = Result<u64, VolumeError>> + Send;

    /// Changes what these mutable parameters name of the volume. Without a Secret, its file system is looked for.
    fn modify(
        &self,
        id: &str,
        parameters: Entries,
        secrets: Secrets,
    ) -> impl Future<Output = Result<(), VolumeError>> + Send;

    /// The volume as it is now, if it is there.
    fn find(&self, id: &str, secrets: Secrets) -> impl Future<Output = Result<Option<Record>, VolumeError>> + Send;

    /// Makes a snapshot of the volume that is asked's source, or finds it as it was made.
    fn snapshot(&self, asked: Asked, secrets: Secrets) -> impl Future<Output = Result<Record, VolumeError>> + Send;

    /// Removes the snapshot. One that is not there is removed.
    fn delete_snapshot(&self, id: &str, secrets: Secrets) -> impl Future<Output = Result<(), VolumeError>> + Send;

    /// The snapshots of a query.
    fn snapshots(&self, query: SnapshotQuery) -> impl Future<Output = Result<Page, VolumeError>> + Send;

    /// How many files and directories are cloned of how many, if a clone is being made for this: "volume `a`" or "snapshot `b`".
    fn progress(&self, what: &str) -> Option<(u64, u64)>;

    /// Whether it is known which file systems there are, without which nothing can be listed.
    fn can_list(&self) -> bool;

    /// The volumes behind an id, at most so many where that is said.
    fn page(&self, after: Option<After>, most: Option<usize>)
    -> impl Future<Output = Result<Page, VolumeError>> + Send;

    /// The volume as it is now, where nobody says in which file system.
    fn get(&self, id: &str) -> impl Future<Output = Result<Record, VolumeError>> + Send;
}

/// What CreateVolume asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRequest {
    /// What is kept in the record.
    pub asked: Asked,
    /// The claim that it is for, where the caller says it.
    pub claim: Option<ClaimName>,
    /// What opens the file system.
    pub secrets: Secrets,
}

/// The content of a Secret. What it prints is the names of its keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// The content, for the one place that reads it.
    pub fn reveal(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl From<BTreeMap<String, String>> for Secrets {
    fn from(content: BTreeMap<String, String>) -> Secrets {
        Secrets(content)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets ")?;
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Why a call did not do what was asked. The sentence reaches the claim's events: it names no secret.
///
/// What tells them apart is whether something may have been written. Where nothing was, the answer is final: the caller stops
/// once the claim is gone. Where something may exist ([`Aborted`](VolumeError::Aborted) and
/// [`Unavailable`](VolumeError::Unavailable)), it must go on asking, or the volume is left behind.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The volume was made before, of something else.
    #[error(transparent)]
    AlreadyExists(#[from] Difference),
    /// It is not to be made, and nothing was written.
    #[error(transparent)]
    Refused(#[from] VolumeRefusal),
    /// It does not exist.
    #[error("there is no volume `{0}`")]
    NotFound(String),
    /// There is no such snapshot.
    #[error("there is no snapshot `{0}`")]
    NoSnapshot(String),
    /// What the request says cannot be used, whatever the state of things.
    #[error("{0}")]
    InvalidArgument(String),
    /// The size cannot be given.
    #[error(transparent)]
    OutOfRange(#[from] SizeProblem),
    /// Somebody has to change something first. Nothing was written.
    #[error("{0}")]
    FailedPrecondition(String),
    /// Another call is at it, here or in another replica; something may exist.
    #[error("{0}")]
    Aborted(String),
    /// The file system did not answer; something may exist.
    #[error("{0}")]
    Unavailable(String),
    /// The file system did not answer, and this call has left nothing. One before it may have.
    #[error("{0}")]
    Unreached(String),
    /// A defect, or a file system in a state that nothing here leaves behind.
    #[error("{0}")]
    Internal(String),
}

impl VolumeError {
    /// The same, of a call that has written nothing so far.
    fn before_writing(self) -> VolumeError {
        match self {
            VolumeError::Unavailable(sentence) => VolumeError::Unreached(sentence),
            other => other,
        }
    }
}

impl From<StoreError> for VolumeError {
    fn from(error: StoreError) -> VolumeError {
        match error {
            StoreError::FileSystem(error) => error.into(),
            StoreError::NothingLeft(error) => VolumeError::from(error).before_writing(),
            // Until a person has looked at it, every retry says the same; and what it is about stays as it is.
            StoreError::Record { .. } => VolumeError::FailedPrecondition(error.to_string()),
        }
    }
}

impl From<JuiceFsError> for VolumeError {
    fn from(error: JuiceFsError) -> VolumeError {
        match error {
            // Found out before anything is written.
            JuiceFsError::NotFormatted(sentence) | JuiceFsError::NoClient(sentence) => {
                VolumeError::FailedPrecondition(sentence)
            }
            // Final answers would leave behind what earlier steps have written.
            JuiceFsError::Unavailable(sentence) | JuiceFsError::Refused(sentence) => VolumeError::Unavailable(sentence),
        }
    }
}

/// What a provisioner is made of.
#[derive(Debug)]
pub struct Options {
    /// The name of the CSI driver, by which its PersistentVolumes are known.
    pub driver: String,
    /// The name of this cluster in records.
    pub cluster: String,
    /// What records are sealed with.
    pub key: RecordKey,
    /// Whether the size of a volume is enforced whose class does not say it.
    pub quota: Quota,
    /// How many days the trash keeps a volume whose class does not say it.
    pub trash_days: u32,
    /// What becomes of a template that has no value.
    pub templates: Templates,
    /// The most time for naming a volume.
    pub naming_timeout: Duration,
    /// Files with a Secret each, of file systems whose volumes are listed beside those of StorageClasses.
    pub secret_files: Vec<PathBuf>,
    /// Where it is recorded what becomes of new volumes; absent for nowhere.
    pub decisions: Option<Arc<Decisions>>,
    /// Where a test kills the process.
    pub steps: Steps,
}

/// Makes volumes in JuiceFS file systems.
#[derive(Debug)]
pub struct Provisioner {
    options: Options,
    workers: Arc<Workers>,
    policies: Arc<InForce>,
    objects: Arc<Mirror>,
    /// The file systems whose own directories are there.
    prepared: Mutex<HashSet<FileSystemKey>>,
    opened: purge::Opened,
    /// For questions about all file systems.
    turns: Semaphore,
    names: Mutex<lists::Names>,
    clones: origin::Running,
}

impl Provisioner {
    /// A provisioner over these workers, which it stops with [`stop`](Provisioner::stop).
    pub fn new(options: Options, workers: Arc<Workers>, policies: Arc<InForce>, objects: Arc<Mirror>) -> Provisioner {
        Provisioner {
            options,
            workers,
            policies,
            objects,
            prepared: Mutex::default(),
            opened: purge::Opened::default(),
            turns: Semaphore::new(lists::TURNS),
            names: Mutex::default(),
            clones: origin::Running::default(),
        }
    }

    /// Ends the workers.
    pub async fn stop(&self) {
        self.workers.stop().await;
    }

    /// The records of all volumes of a file system, by id; where one cannot be relied upon, why.
    pub async fn list(&self, secrets: &Secrets) -> Result<Vec<(String, Result<Record, StoreError>)>, VolumeError> {
        let (_, store) = self.open(secrets).await?;
        Ok(store.records().await?)
    }

    /// The file system of a Secret and its store, ready for use.
    async fn open(&self, secrets: &Secrets) -> Result<(FileSystem, Store), VolumeError> {
        let source = |error: SourceError| VolumeError::FailedPrecondition(error.to_string());
        self.opened(FileSystem::from_secrets(secrets.reveal()).map_err(source)?).await
    }

    async fn opened(&self, file_system: FileSystem) -> Result<(FileSystem, Store), VolumeError> {
        let store = self.store(&file_system).await?;
        // A digest of the whole Secret.
        let key = file_system.key();
        let known = || self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if !known().contains(&key) {
            store.prepare().await?;
            known().insert(key);
        }
        self.opened.note(&file_system);
        Ok((file_system, store))
    }

    async fn store(&self, file_system: &FileSystem) -> Result<Store, JuiceFsError> {
        let worker = self.workers.get(file_system).await?;
        let Options { key, cluster, steps, .. } = &self.options;
        Ok(Store::new(worker, key.clone(), cluster.clone(), steps.clone()))
    }

    /// Where a new volume lies.
    async fn place(
        &self,
        asked: &Asked,
        id: &str,
        claim: Option<&ClaimName>,
        origin: Option<&Record>,
    ) -> Result<Place, VolumeError> {
        let policies = self.policies.snapshot();
        if let Some(waiting) = &policies.waiting {
            return Err(VolumeError::Unavailable(waiting.clone()));
        }
        let bindings: &[Binding] = &policies.bindings;
        let needed = asked.parameters.contains_key("pathPattern")
            || bindings.iter().any(|it| it.hooks.contains(&Hook::Naming) || it.hooks.contains(&Hook::Quota));
        let deadline = Instant::now() + self.options.naming_timeout;
        let known = match claim {
            Some(name) if needed => Some(self.claim(name, deadline).await?),
            _ => None,
        };
        let nothing = Objects::default();
        let place = {
            let context = known.as_ref().map(|(claim, namespace, object, _)| NamingContext {
                claim: claim.clone(),
                namespace: namespace.clone(),
                object,
                origin: asked
                    .source
                    .clone()
                    .zip(origin)
                    .map(|(source, record)| Origin { source, directory: record.directory.components().to_vec() }),
            });
            let started = Instant::now();
            let (namespace, name) = claim.map_or(("", id), |claim| (&*claim.namespace, &*claim.name));
            let decisions = self.options.decisions.as_ref();
            let recorded = decisions.and_then(|it| it.wants(id));
            let objects = known.as_ref().map_or(&nothing, |(.., objects)| objects);
            let moment = Moment { objects, time: SystemTime::now() };
            let evaluator = policies.evaluator(deadline, moment).about(namespace, name).recorded(recorded);
            let place = volume::place(asked, id, context.as_ref(), self.options.templates, bindings, &evaluator);
            if let Some(decisions) = decisions.filter(|_| recorded.is_some()) {
                let about = About { id, namespace, name };
                decisions.volume(about, &place, evaluator.into_calls(), started.elapsed());
            }
            place?
        };
        if let Some((claim, ..)) = &known {
            for note in &place.notes {
                tracing::warn!(volume = %id, "{note}");
                let (kind, reason, action) = ("Warning", Code::TemplateValueUnknown, "Provision");
                self.objects.say(claim, Happened { kind, reason, action, note: &clean(note, LONGEST_NOTE) }).await;
            }
        }
        Ok(place)
    }

    /// The claim that a volume is for, as policies see it, and the objects that it is one of.
    async fn claim(
        &self,
        name: &ClaimName,
        deadline: Instant,
    ) -> Result<(Arc<Claim>, Arc<Namespace>, Value, Objects), VolumeError> {
        let unknown = |what: &Reference| {
            VolumeError::FailedPrecondition(format!("{what} is not known to Pith yet: try again in a moment"))
        };
        let wanted = Reference::Claim { namespace: name.namespace.clone(), name: name.name.clone() };
        let within = Reference::Namespace(name.namespace.clone());
        let look_up = |objects: &Objects| {
            let missing = [&wanted, &within].into_iter().filter(|it| !objects.contains(it));
            (objects.clone(), missing.cloned().collect())
        };
        let objects = self.objects.decide(deadline, look_up).await;
        let objects = objects.map_err(|unanswered| VolumeError::FailedPrecondition(unanswered.to_string()))?;
        let claim = objects.claim(&name.namespace, &name.name).ok_or_else(|| unknown(&wanted))?;
        let namespace = objects.namespace(&name.namespace).ok_or_else(|| unknown(&within))?;
        let (claim, namespace) = (claim.clone(), namespace.clone());
        let object = object(&claim);
        Ok((claim, namespace, object, objects))
    }

    /// Makes a volume, or finds the one that was asked for by what is there.
    async fn create_in(
        &self,
        file_system: &FileSystem,
        store: &Store,
        request: &CreateRequest,
        current: Result<Option<Record>, StoreError>,
        slot: &mut Option<Result<Slot, StoreError>>,
    ) -> Result<Record, VolumeError> {
        let asked = &request.asked;
        let id = volume::id(&asked.name);
        let unwritten = |error| VolumeError::from(error).before_writing();
        let mut current = current.map_err(unwritten)?;
        for _ in 0..TRIES {
            match current {
                Some(record) => {
                    volume::compare(&record, asked)?;
                    return match record.state {
                        State::Ready => Ok(record),
                        State::Creating => self.carry_out(file_system, store, &record, false).await,
                        State::Deleting(_) | State::Purging(_) => Err(busy(&id, "is being deleted")),
                        State::Restoring(_) => Err(busy(&id, RESTORING)),
                    };
                }
                None => {
                    let record = self.named(store, request, &id).await?;
                    let slot = match slot.take() {
                        Some(slot) => slot.map_err(unwritten)?,
                        None => store.slot().await.map_err(unwritten)?,
                    };
                    let begun = store.begin(slot, &record).await?;
                    if begun == Begun::Begun {
                        return self.carry_out(file_system, store, &record, true).await;
                    }
                    // By another replica, as a rule, which makes the same volume.
                    current = store.current(&id).await?;
                    if begun == Begun::Occupied && current.is_none() {
                        // What lies there already is somebody's, and a new volume must not show it.
                        return Err(VolumeError::FailedPrecondition(format!(
                            "the directory {} is there already, and volume `{id}` does not share it: name another one, or let the \
                             policy say that it is shared",
                            record.directory
                        )));
                    }
                }
            }
        }
        Err(busy(&id, "is being changed by another replica"))
    }

    /// The first record of a new volume. Nothing of it was written so far.
    async fn named(&self, store: &Store, request: &CreateRequest, id: &str) -> Result<Record, VolumeError> {
        let CreateRequest { asked, claim, .. } = request;
        volume::check_parameters(asked)?;
        let origin = match &asked.source {
            Some(source) => Some(self.origin(store, source).await?),
            None => None,
        };
        let least = origin.as_ref().map_or(0, |origin| origin.capacity_bytes);
        let size = volume::capacity_from(least, asked.required_bytes, asked.limit_bytes)?;
        let place = self.place(asked, id, claim.as_ref(), origin.as_ref()).await?;
        if let Some(claim) = claim {
            self.policies.snapshot().note(&claim.namespace, &claim.name, &place.monitored);
        }
        for warning in &place.warnings {
            tracing::warn!(volume = %id, "{warning}");
        }
        // What starts with something can't be put where others have something already: it has its directory alone.
        let place = Place { shared: place.shared && origin.is_none(), ..place };
        let record = Record::begin(&self.options.cluster, store::unique(), asked.clone(), claim.clone(), place, size);
        let record = match &origin {
            Some(origin) => record.starting_with(origin),
            None => record,
        };
        self.check_inodes(&record)?;
        Ok(record)
    }

    /// Makes what the record says, and marks it as made. Each step may have been done before, unless it is that of a new volume.
    async fn carry_out(
        &self,
        file_system: &FileSystem,
        store: &Store,
        record: &Record,
        new: bool,
    ) -> Result<Record, VolumeError> {
        self.make(file_system, store, record, new).await?;
        Ok(store.mark_made(record).await?)
    }

    /// Takes the directory, makes it or what it starts with, and limits it.
    async fn make(
        &self,
        file_system: &FileSystem,
        store: &Store,
        record: &Record,
        new: bool,
    ) -> Result<(), VolumeError> {
        let taken = if new { store.reserve_new(record).await? } else { store.reserve(record).await? };
        if let Some(taken) = taken {
            store.abandon(record).await?;
            let sentence = taken.conflict.to_string();
            return Err(match taken.unsettled {
                true => VolumeError::Aborted(sentence),
                false => VolumeError::FailedPrecondition(sentence),
            });
        }
        self.fill(file_system, store, record).await?;
        self.set_quota(file_system, store, record, record).await
    }
}

impl Volumes for Provisioner {
    async fn create(&self, request: CreateRequest) -> Result<Record, VolumeError> {
        let id = volume::id(&request.asked.name);
        let (file_system, store) = self.open(&request.secrets).await.map_err(VolumeError::before_writing)?;
        // A volume that is asked for is new as a rule, so room for its record is made while it is looked for.
        let (current, slot) = tokio::join!(store.current(&id), store.slot());
        let mut slot = Some(slot);
        let created = self.create_in(&file_system, &store, &request, current, &mut slot).await;
        if let Some(Ok(unused)) = slot
            && let Err(error) = store.withdraw(unused).await
        {
            tracing::debug!(volume = %id, %error, "something staged is left");
        }
        created
    }

    async fn delete(&self, id: &str, secrets: Secrets) -> Result<(), VolumeError> {
        if secrets.reveal().is_empty() {
            return Err(VolumeError::FailedPrecondition(format!(
                "volume `{id}` was to be deleted without a Secret, so nothing says which file system it is in: name the Secret in \
                 the annotations volume.kubernetes.io/provisioner-deletion-secret-name and -namespace of its PersistentVolume, or \
                 in csi.storage.k8s.io/provisioner-secret-name and -namespace of its StorageClass"
            )));
        }
        let (file_system, store) = self.open(&secrets).await?;
        for _ in 0..TRIES {
            let record = match store.current(id).await? {
                Some(record) => record,
                None => match self.to_delete(&store, id).await? {
                    Some(record) => record,
                    None => return Ok(()),
                },
            };
            match &record.state {
                State::Deleting(trashed) => {
                    store.discard(&record, trashed).await?;
                    self.opened.look(&file_system);
                    return Ok(());
                }
                State::Restoring(_) => return Err(busy(id, RESTORING)),
                State::Creating | State::Ready | State::Purging(_) => {}
            }
            if self.is_kept(&file_system, &store, &record).await? {
                // The volume goes, and its directory stays.
                store.abandon(&record).await?;
                return Ok(());
            }
            let deleting = record.deleting(&store::trash_name(id), now());
            if let Some(trashed) = deleting.trashed()
                && store.put(&deleting).await?
            {
                store.discard(&deleting, trashed).await?;
                self.opened.look(&file_system);
                return Ok(());
            }
        }
        Err(busy(id, "is being changed by another replica"))
    }

    async fn expand(
        &self,
        id: &str,
        required: Option<u64>,
        limit: Option<u64>,
        secrets: Secrets,
    ) -> Result<u64, VolumeError> {
        let (file_system, store) = self.open(&secrets).await?;
        for _ in 0..TRIES {
            let record = self.changeable(&store, id).await?;
            let wanted = volume::capacity(required, limit)?;
            let held = record.capacity_bytes;
            // What has no bound has room for anything, and what is large enough stays as it is: volumes do not shrink.
            if held == 0 || wanted <= held {
                if let Some(most) = limit.filter(|most| *most > 0 && *most < held) {
                    return Err(SizeProblem::AboveLimit { size: held, limit: most }.into());
                }
                return Ok(if held == 0 { wanted } else { held });
            }
            // A volume that was adopted may have none yet.
            store.make(&record.directory).await?;
            let resized = record.resized(wanted);
            self.set_quota(&file_system, &store, &record, &resized).await?;
            self.options.steps.reached("resized");
            if store.put(&resized).await? {
                if resized.shared {
                    // Whoever came meanwhile has seen the size that it had.
                    self.set_quota(&file_system, &store, &resized, &resized).await?;
                }
                return Ok(wanted);
            }
        }
        Err(busy(id, "is being changed by another replica"))
    }

    async fn modify(&self, id: &str, parameters: Entries, secrets: Secrets) -> Result<(), VolumeError> {
        self.change(id, &parameters, &secrets).await
    }

    async fn find(&self, id: &str, secrets: Secrets) -> Result<Option<Record>, VolumeError> {
        let (_, store) = self.open(&secrets).await?;
        match store.current(id).await? {
            Some(record) => Ok(Some(record).filter(Record::is_there)),
            None => self.seen(id).await,
        }
    }

    async fn snapshot(&self, asked: Asked, secrets: Secrets) -> Result<Record, VolumeError> {
        self.cut(&asked, &secrets).await
    }

    async fn delete_snapshot(&self, id: &str, secrets: Secrets) -> Result<(), VolumeError> {
        self.remove_snapshot(id, &secrets).await
    }

    async fn snapshots(&self, query: SnapshotQuery) -> Result<Page, VolumeError> {
        self.page_of_snapshots(&query).await
    }

    fn progress(&self, what: &str) -> Option<(u64, u64)> {
        self.clones.counts(what)
    }

    fn can_list(&self) -> bool {
        self.has_sources()
    }

    async fn page(&self, after: Option<After>, most: Option<usize>) -> Result<Page, VolumeError> {
        self.page_of(after.as_ref(), most).await
    }

    async fn get(&self, id: &str) -> Result<Record, VolumeError> {
        self.sought(id).await
    }
}

/// Why a volume is busy that somebody is bringing back.
const RESTORING: &str =
    "is being brought back from the trash (if nobody is at it, run `pith volumes restore-from-trash` again)";

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn busy(id: &str, why: &str) -> VolumeError {
    VolumeError::Aborted(format!("volume `{id}` {why}: ask again"))
}

/// What is kept of a claim, in the form of a PersistentVolumeClaim.
fn object(claim: &Claim) -> Value {
    let modes: Vec<&str> = claim.access_modes.iter().map(|mode| mode.as_str()).collect();
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim.name,
            "namespace": claim.namespace,
            "uid": claim.uid,
            "labels": claim.labels,
            "annotations": claim.annotations,
        },
        "spec": {"accessModes": modes, "storageClassName": claim.storage_class},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_print_the_names_of_their_keys_only() {
        let secrets = Secrets::from(BTreeMap::from([("metaurl".to_string(), "redis://:canary@host".to_string())]));
        assert_eq!(format!("{secrets:?}"), r#"Secrets {"metaurl"}"#);
        assert!(!format!("{secrets:#?}").contains("canary"));
    }
}
