//! What lies in the trash for long enough is removed for good, in the background.
//!
//! Only file systems that a call has opened are looked at: their Secrets come with calls and stay in memory. Each has a task of its
//! own, so an engine that hangs holds up no other, and a step of a task is one request or a few, with a bound. Whatever stops a
//! purge, the next one goes on: what is half removed says so in its record.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pith_core::volume::{Fate, Record, Trashed};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Provisioner, VolumeError, now};
use crate::juicefs::store::{Bin, Cleared, Store, StoreError};
use crate::juicefs::{FileSystem, Removal};
use crate::metrics::{Metrics, TrashState};

/// The longest that a file system's trash is not looked at: another replica fills it too, and clocks are set.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// The shortest wait between two looks that nobody asked for.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// The wait after a look that failed; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// How long one step waits for the client, which goes on without being asked.
const PATIENCE: Duration = Duration::from_secs(5);
/// When a purge that failed is tried again.
const NEXT_TRY: Duration = Duration::from_secs(600);
/// How often a purge that takes long says how far it is.
const REPORT: Duration = Duration::from_secs(30);
/// The longest rest after a volume.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// The file systems that calls have opened.
#[derive(Debug, Default)]
pub(super) struct Opened {
    known: Mutex<Vec<Arc<Known>>>,
    /// One more is known.
    news: Notify,
}

/// A file system that a call has opened.
#[derive(Debug)]
struct Known {
    /// As the last call had it: Secrets change.
    file_system: Mutex<FileSystem>,
    /// Something was moved to its trash.
    look: Notify,
}

impl Known {
    fn file_system(&self) -> FileSystem {
        self.file_system.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Opened {
    fn all(&self) -> Vec<Arc<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn find(&self, file_system: &FileSystem) -> Option<Arc<Known>> {
        self.all().into_iter().find(|known| known.file_system().is(file_system))
    }

    /// Notes that a call has opened a file system.
    pub(super) fn note(&self, file_system: &FileSystem) {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter().find(|known| known.file_system().is(file_system)) {
            *known.file_system.lock().unwrap_or_else(PoisonError::into_inner) = file_system.clone();
            return;
        }
        all.push(Arc::new(Known { file_system: Mutex::new(file_system.clone()), look: Notify::new() }));
        self.news.notify_one();
    }

    /// Notes that a call has moved something to the trash.
    pub(super) fn look(&self, file_system: &FileSystem) {
        if let Some(known) = self.find(file_system) {
            known.look.notify_one();
        }
    }
}

/// What a purge came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purged {
    /// Nothing is left.
    Gone,
    /// Somebody else claimed it first.
    Overtaken,
    /// Something is there that is not the volume's. It stays.
    Mixed,
}

/// What is known of a file system's trash, so that a look is one listing: until when each place is not looked at again, if at all, and
/// as what it counts.
#[derive(Debug, Default)]
struct Remembered {
    places: HashMap<String, (Option<u64>, TrashState)>,
    counts: BTreeMap<TrashState, i64>,
}

impl Remembered {
    /// Brings the metric from what it says of this file system to what is so.
    fn count(&mut self, metrics: &Metrics) {
        let mut counts = BTreeMap::new();
        for (_, state) in self.places.values() {
            *counts.entry(*state).or_insert(0) += 1;
        }
        for state in TrashState::ALL {
            let of = |counts: &BTreeMap<_, i64>| counts.get(&state).copied().unwrap_or(0);
            metrics.trash(state, of(&counts) - of(&self.counts));
        }
        self.counts = counts;
    }
}

/// What every task has.
#[derive(Clone)]
struct Purger {
    provisioner: Arc<Provisioner>,
    metrics: Arc<Metrics>,
    /// At most half of the workers that may run purge at once, or calls would find no room for theirs.
    turns: Arc<Semaphore>,
}

impl Provisioner {
    /// Purges the trash of all file systems that calls open, for as long as it is not dropped. It ends only where a task died.
    pub async fn purge(self: Arc<Self>, metrics: Arc<Metrics>) {
        let turns = Arc::new(Semaphore::new((self.workers.most() / 2).max(1)));
        let purger = Purger { provisioner: self.clone(), metrics, turns };
        let mut tasks = JoinSet::new();
        loop {
            for known in self.opened.all().into_iter().skip(tasks.len()) {
                let purger = purger.clone();
                tasks.spawn(async move { purger.keep_purging(&known).await });
            }
            tokio::select! {
                () = self.opened.news.notified() => {}
                Some(_) = tasks.join_next() => return,
            }
        }
    }
}

impl Purger {
    async fn keep_purging(&self, known: &Known) {
        let mut remembered = Remembered::default();
        let mut wait = FIRST_WAIT;
        loop {
            let looked = self.look(known, &mut remembered).await;
            remembered.count(&self.metrics);
            let next = match looked {
                Ok(next) => {
                    wait = FIRST_WAIT;
                    next
                }
                Err(error) => {
                    let next = wait;
                    wait = (2 * wait).min(LONGEST_WAIT);
                    let (file_system, seconds) = (known.file_system(), next.as_secs());
                    tracing::warn!(file_system = file_system.name(), %error, seconds, "the trash is looked at again later");
                    next
                }
            };
            tokio::select! {
                () = sleep(next) => {}
                () = known.look.notified() => {}
            }
        }
    }

    /// One step: no other call or purge waits for longer than that on a worker that this one has.
    async fn step<T>(
        &self,
        known: &Known,
        step: impl AsyncFnOnce(&Store) -> Result<T, StoreError>,
    ) -> Result<T, VolumeError> {
        let _turn = self.turns.acquire().await.expect("nobody closes it");
        let store = self.provisioner.store(&known.file_system()).await?;
        Ok(step(&store).await?)
    }

    /// Looks at what is there and due, and purges that. The answer is when to look again.
    async fn look(&self, known: &Known, remembered: &mut Remembered) -> Result<Duration, VolumeError> {
        let listing = Instant::now();
        let places = self.step(known, async |store| store.bin(Bin::Trash).await).await?;
        // Half of the time is left to others here too: of a hundred thousand places a listing takes long, and each deletion asks for one.
        sleep(listing.elapsed().min(LONGEST_REST)).await;
        remembered.places.retain(|place, _| places.binary_search(place).is_ok());
        for place in places {
            if remembered.places.get(&place).is_some_and(|(until, _)| until.is_some_and(|until| until > now())) {
                continue;
            }
            let again = Some(now() + LONGEST_WAIT.as_secs());
            let entry = match self.look_at(known, &place).await? {
                Ok(Some((record, Fate::Purge))) => {
                    remembered.places.insert(place.clone(), (None, TrashState::Purging));
                    remembered.count(&self.metrics);
                    let started = Instant::now();
                    match self.purge(known, &record).await {
                        Ok(Purged::Gone) => {
                            remembered.places.remove(&place);
                            remembered.count(&self.metrics);
                            // Half of the time is left to others.
                            sleep(started.elapsed().min(LONGEST_REST)).await;
                            continue;
                        }
                        Ok(Purged::Overtaken) => (Some(now()), TrashState::Purging),
                        Ok(Purged::Mixed) => (again, TrashState::LeftAlone),
                        Err(error) => {
                            let (file_system, volume) = (known.file_system(), record.id);
                            tracing::warn!(file_system = file_system.name(), volume, %error, "a purge is tried again later");
                            // One that cannot be removed holds up no other; a file system that does not answer does.
                            self.step(known, async |store| store.bin(Bin::Trash).await).await?;
                            (Some(now() + NEXT_TRY.as_secs()), TrashState::Purging)
                        }
                    }
                }
                Ok(Some((_, Fate::Keep(until)))) => (Some(until), TrashState::Kept),
                Ok(Some((_, Fate::KeepForever | Fate::Restoring))) => (again, TrashState::Kept),
                // Its volume is being deleted at this moment, or nothing ever says whose it is.
                Ok(None) => (None, TrashState::LeftAlone),
                Err(problem) => {
                    if !remembered.places.contains_key(&place) {
                        let file_system = known.file_system();
                        tracing::warn!(file_system = file_system.name(), problem, "left alone in the trash");
                    }
                    (again, TrashState::LeftAlone)
                }
            };
            remembered.places.insert(place, entry);
        }
        let soonest = remembered.places.values().filter_map(|(until, _)| *until).min();
        let wait = soonest.map_or(LONGEST_WAIT, |until| Duration::from_secs(until.saturating_sub(now())));
        Ok(wait.clamp(SHORTEST_WAIT, LONGEST_WAIT))
    }

    /// What is to be done about a place, or why nothing is.
    async fn look_at(&self, known: &Known, place: &str) -> Result<Result<Option<(Record, Fate)>, String>, VolumeError> {
        let look = async |store: &Store| match self.provisioner.look_at(store, Bin::Trash, place).await {
            Err(error) if error.is_about_what_is_there() => Ok(Err(error.to_string())),
            looked => looked.map(Ok),
        };
        self.step(known, look).await
    }

    /// Removes what a volume left.
    async fn purge(&self, known: &Known, record: &Record) -> Result<Purged, VolumeError> {
        let (started, file_system) = (Instant::now(), known.file_system());
        let (volume, file_system) = (record.id.as_str(), file_system.name());
        let Some(trashed) = record.trashed() else { return Ok(Purged::Mixed) };
        if let Some(purging) = record.purging()
            && !self.step(known, async |store| store.claim_purge(&purging, trashed).await).await?
        {
            return Ok(Purged::Overtaken);
        }
        self.purge_data(known, record, trashed).await?;
        let cleared = self.step(known, async |store| store.purge_place(trashed).await).await?;
        if cleared == Cleared::Mixed {
            let place = &trashed.trash;
            tracing::warn!(
                volume,
                file_system,
                place,
                "something else is in its place in the trash, which is left alone"
            );
            return Ok(Purged::Mixed);
        }
        self.metrics.purges.inc();
        let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(volume, file_system, millis, "a deleted volume was purged");
        Ok(Purged::Gone)
    }

    async fn purge_data(&self, known: &Known, record: &Record, trashed: &Trashed) -> Result<(), VolumeError> {
        let mut report = Instant::now() + REPORT;
        while self.step(known, async |store| store.purge_data(record, trashed, PATIENCE).await).await?
            == Removal::GoesOn
        {
            if Instant::now() < report {
                continue;
            }
            report = Instant::now() + REPORT;
            let left = self.step(known, async |store| store.left(Bin::Trash, &trashed.trash).await).await?;
            let left = left.map_or(0, |left| u64::try_from(left).unwrap_or(u64::MAX));
            let file_system = known.file_system();
            let file_system = file_system.name();
            tracing::info!(volume = record.id, file_system, entries_left = left, "a deleted volume is being purged");
        }
        Ok(())
    }
}
