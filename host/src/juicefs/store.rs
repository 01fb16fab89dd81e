//! Where volumes lie in a file system, and the steps that change it. The only file that knows the layout of `/.pith`.
//!
//! ```text
//! /.pith/volumes/<id>/record                  what is known of a volume
//! /.pith/volumes/<id>/made.<mark>/            all that the record says is made
//! /.pith/volumes/<id>/entry/<id>/             what is moved to `paths` to take the directory; where that was taken it stays, and says nothing
//! /.pith/volumes/<id>/<generation>/record     what is known of it since, from 2; the highest generation counts
//! /.pith/volumes/<id>/clone.<clone>/          what it is to start with, until that is moved to its directory
//! /.pith/volumes/<id>/cloned.<clone>.<mark>/  that clone is complete; where it is not there any more, it is the volume's directory
//! /.pith/snapshots/<id>/…                     the same of a snapshot; its data are beside its record, in `data`
//! /.pith/paths/<a>/.below/<b>/<id>/           volume <id> holds the directory /a/b: a tree like that of the directories
//! /.pith/trash/<id>.<random>/                 what a deleted volume left: data, paths and record, until it is purged
//! /.pith/archive/<id>.<random>/               the same of a volume that is to be archived: nothing here is ever removed
//! /.pith/staging/<random>/                    a generation before it is moved into place
//! ```
//!
//! In the tree of paths, what lies below a directory is kept apart from who holds it, so that looking who holds one above is short,
//! however many there are in it.
//!
//! What makes this safe with several replicas and with crashes at any point is one property of the file system: moving a
//! directory with something in it to a name that is taken fails. So a generation, once there, is whole and never replaced.
//! Every step can be repeated: one that was done already says so and changes nothing.

mod clones;
mod survey;
mod trash;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pith_core::volume::{
    Conflict, Directory, Holder, OnDelete, Record, RecordKey, RecordProblem, Relation, State, Trashed, conflict,
};

use super::{Depth, Entry, JuiceFsError, Kind, Made, Moved, Path, PathError, Worker};
use crate::juicefs::steps::Steps;

pub use clones::{Clones, Placed};
pub use trash::{Bin, Cleared, Returned, volume_of};

/// Our own part of the file system. Directories of volumes never begin with a dot.
const PITH: &str = ".pith";
const VOLUMES: &str = "volumes";
const SNAPSHOTS: &str = "snapshots";
const PATHS: &str = "paths";
const TRASH: &str = "trash";
const ARCHIVE: &str = "archive";
const STAGING: &str = "staging";
/// In the tree of paths, what lies below a directory. Neither an id nor the name of a directory begins with a dot.
const BELOW: &str = ".below";
const RECORD: &str = "record";
/// Beside the first record, a directory's part of the index as it is where nobody holds the directory.
const ENTRY: &str = "entry";
/// What a mark's name begins with.
const MADE: &str = "made.";
const DATA: &str = "data";

/// How often a reader looks again when what it was told of is gone.
const LOOKS: usize = 4;

/// The volumes of one file system.
#[derive(Debug)]
pub struct Store {
    worker: Arc<Worker>,
    key: RecordKey,
    cluster: String,
    steps: Steps,
}

/// Why the store was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system did not do it.
    #[error(transparent)]
    FileSystem(#[from] JuiceFsError),
    /// The file system did not do it, and nothing of it is left.
    #[error("{0}")]
    NothingLeft(JuiceFsError),
    /// A record cannot be relied upon. Nothing is guessed, and nothing that it is about is touched.
    #[error("the record {path}: {problem}")]
    Record {
        /// Where it lies.
        path: Path,
        /// What is wrong with it.
        problem: RecordProblem,
    },
}

impl StoreError {
    /// Whether it would be the same the next time, because of what lies there and not of whom was asked.
    pub fn is_about_what_is_there(&self) -> bool {
        matches!(self, StoreError::Record { .. } | StoreError::FileSystem(JuiceFsError::Refused(_)))
    }
}

impl From<PathError> for StoreError {
    fn from(error: PathError) -> StoreError {
        JuiceFsError::from(error).into()
    }
}

/// A directory of our own in the staging area, for a generation.
#[derive(Debug)]
#[must_use = "it is to be filled or withdrawn, or it stays in the file system"]
pub struct Slot(Path);

/// A generation that is written and does not count yet.
#[derive(Debug)]
#[must_use = "it is to be placed or withdrawn, or it stays in the file system"]
struct Staged {
    id: String,
    slot: Slot,
    /// Where it counts.
    place: Path,
}

/// What beginning a volume came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// Its first record counts.
    Begun,
    /// Another caller was faster: what is there counts.
    Overtaken,
    /// Nothing was begun: something is at the directory, and the volume does not share it.
    Occupied,
}

/// What keeps a volume from its directory.
#[derive(Debug)]
pub struct Taken {
    /// Whose it is.
    pub conflict: Conflict,
    /// True where the other volume is being made or deleted: it may be gone in a moment.
    pub unsettled: bool,
}

impl Store {
    /// The volumes of a file system as this cluster sees them, with its records sealed by this key.
    pub fn new(worker: Arc<Worker>, key: RecordKey, cluster: String, steps: Steps) -> Store {
        Store { worker, key, cluster, steps }
    }

    /// Makes the directories that everything else relies on.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        for name in [VOLUMES, SNAPSHOTS, PATHS, TRASH, ARCHIVE, STAGING] {
            self.worker.make_directories(&ours(&[name])?).await?;
        }
        Ok(())
    }

    /// The newest record of a volume, ready where its mark is there too; none where there is no such volume.
    pub async fn current(&self, id: &str) -> Result<Option<Record>, StoreError> {
        self.newest_of(VOLUMES, id).await
    }

    /// The newest record of a snapshot, as [`current`](Store::current) gives a volume's.
    pub async fn snapshot(&self, id: &str) -> Result<Option<Record>, StoreError> {
        self.newest_of(SNAPSHOTS, id).await
    }

    async fn newest_of(&self, folder: &str, id: &str) -> Result<Option<Record>, StoreError> {
        let path = ours(&[folder, id])?;
        let Some(record) = self.newest(&path, id).await? else { return Ok(None) };
        let kind = record.check_kind(folder == SNAPSHOTS);
        kind.map(|()| Some(record)).map_err(|problem| StoreError::Record { path, problem })
    }

    /// The newest record of a volume whose records lie in this directory; none where there is no such directory.
    async fn newest(&self, volume: &Path, id: &str) -> Result<Option<Record>, StoreError> {
        let mut found = None;
        // A volume that is deleted meanwhile takes its records along: look again.
        for _ in 0..LOOKS {
            let Some(entries) = self.worker.list(volume, Depth::One).await? else { return Ok(None) };
            found = newest(&entries);
            let Some(generation) = found else { continue };
            let Some(record) = self.generation(volume, id, generation).await? else { continue };
            if generation > 1 {
                // Where somebody who can write there put back what a deleted volume of the same name had.
                let Some(first) = self.generation(volume, id, 1).await? else { continue };
                let path = place(volume, generation)?.join(RECORD)?;
                record.check_volume(&first).map_err(|problem| StoreError::Record { path, problem })?;
            }
            let marks = entries.iter().filter_map(|entry| name(entry)?.strip_prefix(MADE));
            return Ok(Some(record.marked(marks, &self.key)));
        }
        if found.is_none_or(|generation| generation > 1) {
            // It comes into being with its first record, and goes with all of them.
            return Err(StoreError::Record { path: place(volume, 1)?.join(RECORD)?, problem: RecordProblem::Missing });
        }
        Err(JuiceFsError::Unavailable(format!("volume `{id}` changes too fast to be read: ask again")).into())
    }

    /// One record of a volume; none where it is not there.
    async fn generation(&self, volume: &Path, id: &str, generation: u64) -> Result<Option<Record>, StoreError> {
        let path = place(volume, generation)?.join(RECORD)?;
        let Some(bytes) = self.worker.read(&path).await? else { return Ok(None) };
        let checked = Record::open(&bytes, &self.key).and_then(|record| {
            record.check_owner(&self.cluster)?;
            record.check_place(id, generation)?;
            Ok(record)
        });
        checked.map(Some).map_err(|problem| StoreError::Record { path, problem })
    }

    /// A place for a generation that is not known yet, such as that of a volume which may be there already.
    pub async fn slot(&self) -> Result<Slot, StoreError> {
        let slot = Slot(ours(&[STAGING, &unique()])?);
        self.worker.make_directories(&slot.0).await?;
        self.steps.reached("record-staged");
        Ok(slot)
    }

    /// Adds the first generation, unless something lies at a directory that is not to be shared. Meanwhile its entry is begun, which
    /// says nothing before it is in place.
    pub async fn begin(&self, slot: Slot, record: &Record) -> Result<Begun, StoreError> {
        let volume = ours(&[VOLUMES, &record.id])?;
        let entry = self.begin_entry(&slot, record);
        let (written, occupied, entry) = tokio::join!(self.fill(&slot, record), self.occupied(record), entry);
        let hindered = match written.and(entry).and(occupied) {
            Ok(false) => {
                let staged = Staged { id: record.id.clone(), slot, place: place(&volume, record.generation)? };
                return Ok(if self.place(staged).await? { Begun::Begun } else { Begun::Overtaken });
            }
            hindered => hindered.map(|_| Begun::Occupied),
        };
        // What hinders it is the answer, whatever becomes of what was staged.
        match (hindered, self.withdraw(slot).await) {
            // A storage that is full or read-only: the engine goes on working.
            (Err(StoreError::FileSystem(error)), Ok(())) => Err(StoreError::NothingLeft(error)),
            (hindered, Err(error)) => {
                tracing::debug!(volume = %record.id, %error, "a staged record is left");
                hindered
            }
            (hindered, Ok(())) => hindered,
        }
    }

    /// What can be done of an entry before the record counts: where the directory is to be the volume's alone, its part of the index
    /// is made beside the record, to be [moved](Store::reserve_new).
    async fn begin_entry(&self, slot: &Slot, record: &Record) -> Result<(), StoreError> {
        let place = index(record.directory.components())?;
        if may_be_alone(record) {
            let above = async {
                match place.parent() {
                    Some(above) if record.directory.components().len() > 1 => {
                        self.worker.make_directories(&above).await
                    }
                    _ => Ok(Made::Existed),
                }
            };
            let staged = async {
                let entry = slot.0.clone().join(ENTRY)?;
                self.worker.make_directory(&entry).await?;
                self.worker.make_directory(&entry.join(&record.id)?).await
            };
            tokio::try_join!(above, staged)?;
        } else {
            self.worker.make_directories(&place).await?;
        }
        self.steps.reached("index-begun");
        Ok(())
    }

    async fn occupied(&self, record: &Record) -> Result<bool, StoreError> {
        // What is adopted is there as a rule.
        Ok(may_be_alone(record) && self.is_there(&record.directory).await?)
    }

    /// Whether there is something at a directory's place.
    pub async fn is_there(&self, directory: &Directory) -> Result<bool, StoreError> {
        Ok(self.worker.kind(&path(directory)?).await?.is_some())
    }

    /// Whether another client sees the same file system: what is made here is there too.
    pub async fn is_seen_by(&self, other: &Worker) -> Result<bool, StoreError> {
        let probe = ours(&[STAGING, &unique()])?;
        self.worker.make_directories(&probe).await?;
        let seen = other.kind(&probe).await;
        self.worker.remove(&probe).await?;
        Ok(seen?.is_some())
    }

    /// Adds a further generation, or the first one of a snapshot. False where another caller was faster: then what is there counts.
    pub async fn put(&self, record: &Record) -> Result<bool, StoreError> {
        let staged = self.stage(record, &home(record)?).await?;
        self.place(staged).await
    }

    /// Writes a generation that nobody sees before it is placed where the volume's records lie.
    async fn stage(&self, record: &Record, volume: &Path) -> Result<Staged, StoreError> {
        let slot = self.slot().await?;
        if let Err(error) = self.fill(&slot, record).await {
            if let Err(error) = self.withdraw(slot).await {
                tracing::debug!(volume = %record.id, %error, "a staged record is left");
            }
            return Err(error);
        }
        Ok(Staged { id: record.id.clone(), slot, place: place(volume, record.generation)? })
    }

    async fn fill(&self, slot: &Slot, record: &Record) -> Result<(), StoreError> {
        self.worker.write(&slot.0.clone().join(RECORD)?, record.seal(&self.key)).await?;
        self.steps.reached("record-written");
        Ok(())
    }

    /// Moves a generation to where it counts. False where another caller was faster: then what is there counts.
    async fn place(&self, staged: Staged) -> Result<bool, StoreError> {
        match self.worker.move_exclusive(&staged.slot.0, &staged.place).await? {
            Moved::Moved => {
                self.steps.reached("record-moved");
                Ok(true)
            }
            Moved::Taken => {
                self.withdraw(staged.slot).await?;
                Ok(false)
            }
            Moved::Missing => Err(deleted_meanwhile(&staged.id)),
        }
    }

    /// Removes from the staging area what is not to be placed.
    pub async fn withdraw(&self, slot: Slot) -> Result<(), StoreError> {
        self.worker.remove(&slot.0).await?;
        Ok(())
    }

    /// Says that all that the record says is made, and gives the record that says so. Several may do this, and do the same.
    ///
    /// It may come after the volume's last record, which counts whatever the marks say: then it was made before it was deleted.
    pub async fn mark_made(&self, record: &Record) -> Result<Record, StoreError> {
        let mark = format!("{MADE}{}", record.mark(&self.key));
        if self.worker.make_directory(&home(record)?.join(mark)?).await? == Made::NoParent {
            return Err(deleted_meanwhile(&record.id));
        }
        self.steps.reached("made-marked");
        Ok(record.ready())
    }

    /// Takes the record's directory for its volume, or says who has it. It is taken first and looked around afterwards: of two
    /// that do this at the same time, at least one sees the other. The record is in place before, so whoever sees the entry sees
    /// whose it is.
    pub async fn reserve(&self, record: &Record) -> Result<Option<Taken>, StoreError> {
        self.worker.make_directories(&entry_of(record)?).await?;
        self.steps.reached("index-made");
        let holders = self.holders(&record.directory).await?;
        if !holders.contains(&(record.id.clone(), Relation::Same)) {
            // Whoever was there before took the whole directory along, and left.
            let sentence = format!("the directory {} was deleted while it was taken: ask again", record.directory);
            return Err(JuiceFsError::Unavailable(sentence).into());
        }
        self.taken(record, holders).await
    }

    /// Does the same for a volume that was [begun](Store::begin) a moment ago, by moving its entry to where the index has nothing. Then
    /// nobody holds the directory or one below it at that moment, and whoever comes later sees this; who holds one above is looked
    /// for. Where the index has something, if only what a deleted volume left, it goes the other way.
    pub async fn reserve_new(&self, record: &Record) -> Result<Option<Taken>, StoreError> {
        if !may_be_alone(record) {
            return self.reserve(record).await;
        }
        let staged = ours(&[VOLUMES, &record.id, ENTRY])?;
        match self.worker.move_exclusive(&staged, &index(record.directory.components())?).await {
            Ok(Moved::Moved) => {
                self.steps.reached("index-made");
                self.taken(record, self.holders_above(&record.directory).await?).await
            }
            // Also where the part above it went to the trash meanwhile.
            Ok(Moved::Taken | Moved::Missing) | Err(JuiceFsError::Refused(_)) => self.reserve(record).await,
            Err(error) => Err(error.into()),
        }
    }

    /// What of these keeps the volume from its directory, which it has taken.
    async fn taken(&self, record: &Record, holders: Vec<(String, Relation)>) -> Result<Option<Taken>, StoreError> {
        let mut others = Vec::new();
        for (id, relation) in holders {
            // One whose record is gone holds nothing: it was given up before it was anything.
            if id != record.id
                && let Some(other) = self.current(&id).await?
            {
                // What is being deleted takes its directory along, unless it has seen another volume there in time.
                let shared = other.shared && !matches!(other.state, State::Deleting(_));
                others.push((Holder { id, relation, shared }, other.state != State::Ready));
            }
        }
        let known: Vec<Holder> = others.iter().map(|(holder, _)| holder.clone()).collect();
        Ok(conflict(&record.id, &record.directory, record.shared, &known).map(|conflict| {
            let unsettled = others.iter().any(|(holder, unsettled)| *holder == conflict.holder && *unsettled);
            Taken { conflict, unsettled }
        }))
    }

    /// Every volume that holds a directory above this one.
    async fn holders_above(&self, directory: &Directory) -> Result<Vec<(String, Relation)>, StoreError> {
        let components = directory.components();
        let mut above = Vec::new();
        for depth in 1..components.len() {
            let entries = self.index_entries(&components[..depth]).await?;
            above.extend(entries.into_iter().filter(|name| name != BELOW).map(|id| (id, Relation::Ancestor)));
        }
        Ok(above)
    }

    /// Every volume that holds the directory, one above or one below it.
    async fn holders(&self, directory: &Directory) -> Result<Vec<(String, Relation)>, StoreError> {
        let components = directory.components();
        let (above, same) = tokio::try_join!(self.holders_above(directory), self.index_entries(components))?;
        let below = match same.iter().any(|name| name == BELOW) {
            true => self.worker.list(&index(components)?.join(BELOW)?, Depth::Infinity).await?.unwrap_or_default(),
            false => Vec::new(),
        };
        let below = below.iter().filter_map(|entry| match entry.path.components() {
            [.., component, id] if component != BELOW && id != BELOW => Some(id.clone()),
            _ => None,
        });
        let same = same.into_iter().filter(|name| name != BELOW).map(|id| (id, Relation::Same));
        Ok(above.into_iter().chain(same).chain(below.map(|id| (id, Relation::Descendant))).collect())
    }

    /// Who holds a directory, and [`BELOW`] if something is below it.
    async fn index_entries(&self, components: &[String]) -> Result<Vec<String>, StoreError> {
        let entries = self.worker.list(&index(components)?, Depth::One).await?.unwrap_or_default();
        Ok(entries.iter().filter_map(name).map(String::from).collect())
    }

    /// Gives up a volume of which nothing but its record and its reservation was made, or a snapshot of which nothing but its record
    /// was.
    pub async fn abandon(&self, record: &Record) -> Result<(), StoreError> {
        if !record.is_snapshot() {
            self.worker.remove(&entry_of(record)?).await?;
        }
        // In one move: half of a record would be a record that cannot be read.
        let trash = ours(&[TRASH, &trash_name(&record.id)])?;
        self.worker.make_directories(&trash).await?;
        let place = trash.clone().join(RECORD)?;
        self.worker.move_exclusive(&home(record)?, &place).await?;
        self.worker.remove(&trash).await?;
        Ok(())
    }

    /// Makes the directory itself, and those above it.
    pub async fn make(&self, directory: &Directory) -> Result<(), StoreError> {
        self.worker.make_directories(&path(directory)?).await?;
        self.steps.reached("directory-made");
        Ok(())
    }

    /// Moves everything of a volume whose newest record says that it is being deleted into that record's place in the trash, or in
    /// the archive. The data first, and only while the volume holds its directory: afterwards the directory may be somebody else's.
    pub async fn discard(&self, record: &Record, trashed: &Trashed) -> Result<(), StoreError> {
        let bin = Bin::of(record).place(&trashed.trash)?;
        self.worker.make_directories(&bin).await?;
        self.steps.reached("trash-made");
        let in_bin = |name: &str| bin.clone().join(name);
        if record.is_snapshot() {
            self.worker.move_exclusive(&data(record)?, &in_bin(DATA)?).await?;
            self.steps.reached("data-moved");
            self.worker.move_exclusive(&home(record)?, &in_bin(RECORD)?).await?;
            self.steps.reached("volume-gone");
            return Ok(());
        }

        let holders: Vec<String> = self
            .holders(&record.directory)
            .await?
            .into_iter()
            .filter_map(|(id, relation)| (relation == Relation::Same).then_some(id))
            .collect();
        if holders.contains(&record.id) {
            if holders.len() == 1 {
                if record.on_delete() != OnDelete::Retain {
                    self.worker.move_exclusive(&path(&record.directory)?, &in_bin(DATA)?).await?;
                    self.steps.reached("data-moved");
                }
                self.worker.move_exclusive(&index(record.directory.components())?, &in_bin(PATHS)?).await?;
            } else {
                // The others go on using the directory.
                self.worker.remove(&entry_of(record)?).await?;
            }
            self.steps.reached("index-moved");
        }
        self.worker.move_exclusive(&ours(&[VOLUMES, &record.id])?, &in_bin(RECORD)?).await?;
        self.steps.reached("volume-gone");
        Ok(())
    }

    /// The other volumes that have the record's directory, without those that are on their way out of it.
    pub async fn others_in(&self, record: &Record) -> Result<Vec<Record>, StoreError> {
        let mut others = Vec::new();
        for id in self.index_entries(record.directory.components()).await? {
            if id != BELOW
                && id != record.id
                && let Some(other) = self.current(&id).await?
                && matches!(other.state, State::Creating | State::Ready | State::Restoring(_))
            {
                others.push(other);
            }
        }
        Ok(others)
    }

    /// The ids of all volumes, sorted.
    pub async fn ids(&self) -> Result<Vec<String>, StoreError> {
        self.ids_in(VOLUMES).await
    }

    /// The ids of all snapshots, sorted.
    pub async fn snapshot_ids(&self) -> Result<Vec<String>, StoreError> {
        self.ids_in(SNAPSHOTS).await
    }

    /// The records of all volumes, by id; where one cannot be relied upon, why.
    pub async fn records(&self) -> Result<Vec<(String, Result<Record, StoreError>)>, StoreError> {
        self.records_in(VOLUMES).await
    }

    /// The same of all snapshots.
    pub async fn snapshot_records(&self) -> Result<Vec<(String, Result<Record, StoreError>)>, StoreError> {
        self.records_in(SNAPSHOTS).await
    }

    async fn records_in(&self, folder: &str) -> Result<Vec<(String, Result<Record, StoreError>)>, StoreError> {
        let mut found = Vec::new();
        for id in self.ids_in(folder).await? {
            match self.newest_of(folder, &id).await {
                Ok(Some(record)) => found.push((id, Ok(record))),
                // Made or deleted at this moment.
                Ok(None) => {}
                Err(error @ StoreError::Record { .. }) => found.push((id, Err(error))),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn ids_in(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let entries = self.worker.list(&ours(&[folder])?, Depth::One).await?.unwrap_or_default();
        let mut ids: Vec<String> = entries.iter().filter_map(name).map(String::from).collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

/// A path below `/.pith`.
fn ours(names: &[&str]) -> Result<Path, PathError> {
    Path::of([PITH].iter().chain(names).copied())
}

/// Where everything that is known of a volume or a snapshot lies.
fn home(record: &Record) -> Result<Path, PathError> {
    ours(&[if record.is_snapshot() { SNAPSHOTS } else { VOLUMES }, &record.id])
}

/// Where the data of a volume or a snapshot lie.
pub fn data(record: &Record) -> Result<Path, JuiceFsError> {
    if record.is_snapshot() { Ok(home(record)?.join(DATA)?) } else { path(&record.directory) }
}

/// The directory of a volume's generation. The first one's is that of all its records.
fn place(volume: &Path, generation: u64) -> Result<Path, PathError> {
    if generation == 1 { Ok(volume.clone()) } else { volume.clone().join(generation.to_string()) }
}

/// Whether a volume's directory may be one of which the index has nothing, as with a new directory that is not shared.
fn may_be_alone(record: &Record) -> bool {
    !record.shared && !record.is_adopted()
}

/// The newest generation in a volume's directory.
fn newest(entries: &[Entry]) -> Option<u64> {
    let generation = |entry: &Entry| match entry.path.components() {
        [name] if entry.kind == Kind::File => (name == RECORD).then_some(1),
        [name] => name.parse().ok().filter(|generation| *generation > 1),
        _ => None,
    };
    entries.iter().filter_map(generation).max()
}

/// A directory in the tree of paths.
fn index(components: &[String]) -> Result<Path, PathError> {
    let names = components.iter().enumerate();
    let names = names.flat_map(|(depth, name)| (depth > 0).then_some(BELOW).into_iter().chain([name.as_str()]));
    Path::of([PITH, PATHS].into_iter().chain(names))
}

/// Where a directory lies.
pub fn path(directory: &Directory) -> Result<Path, JuiceFsError> {
    Ok(Path::of(directory.components())?)
}

/// What says in the tree of paths that the record's volume holds its directory.
fn entry_of(record: &Record) -> Result<Path, PathError> {
    index(record.directory.components())?.join(&record.id)
}

fn deleted_meanwhile(id: &str) -> StoreError {
    JuiceFsError::Unavailable(format!("volume `{id}` was deleted while it was changed: ask again")).into()
}

/// A name for what a volume leaves in the trash.
pub fn trash_name(id: &str) -> String {
    // The id keeps to 128 characters, and a name may have 255.
    format!("{id}.{}", unique())
}

/// The last name of a directory's path.
fn name(entry: &Entry) -> Option<&str> {
    (entry.kind == Kind::Directory).then(|| entry.path.components().last().map(String::as_str)).flatten()
}

/// A name that nobody else has: random for the process, counted within it.
pub fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static PROCESS: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let mut bytes = [0; 8];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .expect("the kernel has random bytes once it runs");
        hex::encode(bytes)
    });
    format!("{}-{:x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed))
}
