//! Where volumes lie in a file system, and the steps that change it. The only file that knows the layout of `/.pith`.
//!
//! ```text
//! /.pith/volumes/<id>/<generation>/record      what is known of a volume; the highest generation counts
//! /.pith/paths/<directory…>/.volumes/<id>/     who holds which directory: a tree like that of the directories
//! /.pith/trash/<id>.<random>/                  what a deleted volume left: data, paths and record
//! /.pith/staging/<random>/                     a generation before it is moved into place
//! ```
//!
//! What makes this safe with several replicas and with crashes at any point is one property of the file system: moving a
//! directory with something in it to a name that is taken fails. So a generation, once there, is whole and never replaced.
//! Every step can be repeated: one that was done already says so and changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pith_core::volume::{Conflict, Directory, Holder, Record, RecordKey, RecordProblem, Relation, State, conflict};

use super::{Depth, Entry, JuiceFsError, Kind, Made, Moved, Path, PathError, Worker};
use crate::juicefs::steps::Steps;

/// Our own part of the file system. Directories of volumes never begin with a dot.
const PITH: &str = ".pith";
const VOLUMES: &str = "volumes";
const PATHS: &str = "paths";
const TRASH: &str = "trash";
const STAGING: &str = "staging";
/// Who holds a directory, in the tree of paths.
const HOLDERS: &str = ".volumes";
const RECORD: &str = "record";
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
    /// A record cannot be relied upon. Nothing is guessed, and nothing that it is about is touched.
    #[error("the record {path}: {problem}")]
    Record {
        /// Where it lies.
        path: Path,
        /// What is wrong with it.
        problem: RecordProblem,
    },
}

impl From<PathError> for StoreError {
    fn from(error: PathError) -> StoreError {
        JuiceFsError::from(error).into()
    }
}

/// A generation that is written and does not count yet.
#[derive(Debug)]
#[must_use = "it is to be placed or withdrawn, or it stays in the file system"]
pub struct Staged {
    id: String,
    generation: u64,
    path: Path,
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
        self.worker.make_directory(&ours(&[])?).await?;
        for name in [VOLUMES, PATHS, TRASH, STAGING] {
            self.worker.make_directory(&ours(&[name])?).await?;
        }
        Ok(())
    }

    /// The newest record of a volume; none where there is no such volume.
    pub async fn current(&self, id: &str) -> Result<Option<Record>, StoreError> {
        // A volume that is deleted meanwhile takes its records along: look again.
        for _ in 0..LOOKS {
            let Some(generation) = self.newest(id).await? else { return Ok(None) };
            let path = ours(&[VOLUMES, id, &generation.to_string(), RECORD])?;
            let Some(bytes) = self.worker.read(&path).await? else { continue };
            let checked = Record::open(&bytes, &self.key).and_then(|record| {
                record.check_owner(&self.cluster)?;
                record.check_place(id, generation)?;
                Ok(record)
            });
            return checked.map(Some).map_err(|problem| StoreError::Record { path, problem });
        }
        Err(JuiceFsError::Unavailable(format!("volume `{id}` changes too fast to be read: ask again")).into())
    }

    async fn newest(&self, id: &str) -> Result<Option<u64>, StoreError> {
        let entries = self.worker.list(&ours(&[VOLUMES, id])?, Depth::One).await?.unwrap_or_default();
        Ok(entries.iter().filter_map(|entry| name(entry)?.parse().ok()).max())
    }

    /// Adds a generation. False where another caller was faster: then what is there counts.
    pub async fn put(&self, record: &Record) -> Result<bool, StoreError> {
        if record.generation > 1 {
            let staged = self.stage(record).await?;
            return self.place(staged).await;
        }
        // Neither needs the other, and a place without a record is no volume.
        let (staged, place) = tokio::join!(self.stage(record), self.make_place(record));
        place?;
        self.place(staged?).await
    }

    /// Writes a generation that nobody sees before it is [placed](Store::place).
    pub async fn stage(&self, record: &Record) -> Result<Staged, StoreError> {
        let staged = ours(&[STAGING, &unique()])?;
        self.worker.make_directory(&staged).await?;
        self.steps.reached("record-staged");
        self.worker.write(&staged.clone().join(RECORD)?, record.seal(&self.key)).await?;
        self.steps.reached("record-written");
        Ok(Staged { id: record.id.clone(), generation: record.generation, path: staged })
    }

    /// Moves a generation to where it counts. False where another caller was faster: then what is there counts.
    pub async fn place(&self, staged: Staged) -> Result<bool, StoreError> {
        let place = ours(&[VOLUMES, &staged.id, &staged.generation.to_string()])?;
        match self.worker.move_exclusive(&staged.path, &place).await? {
            Moved::Moved => {
                self.steps.reached("record-moved");
                Ok(true)
            }
            Moved::Taken => {
                self.withdraw(staged).await?;
                Ok(false)
            }
            Moved::Missing => Err(JuiceFsError::Unavailable(format!(
                "volume `{}` was deleted while it was changed: ask again",
                staged.id
            ))
            .into()),
        }
    }

    /// Removes a generation that is not to be placed.
    pub async fn withdraw(&self, staged: Staged) -> Result<(), StoreError> {
        self.worker.remove(&staged.path).await?;
        Ok(())
    }

    async fn make_place(&self, record: &Record) -> Result<(), StoreError> {
        self.worker.make_directory(&ours(&[VOLUMES, &record.id])?).await?;
        self.steps.reached("record-place-made");
        Ok(())
    }

    /// Whether there is something at a directory.
    pub async fn exists(&self, directory: &Directory) -> Result<bool, StoreError> {
        Ok(self.worker.kind(&path(directory)?).await?.is_some())
    }

    /// Takes the record's directory for its volume, or says who has it. It is taken first and looked around afterwards: of two
    /// that do this at the same time, at least one sees the other.
    pub async fn reserve(&self, record: &Record) -> Result<Option<Taken>, StoreError> {
        let components = record.directory.components();
        for depth in 1..=components.len() {
            self.worker.make_directory(&index(&components[..depth])?).await?;
        }
        self.worker.make_directory(&index(components)?.join(HOLDERS)?).await?;
        self.steps.reached("index-begun");
        self.worker.make_directory(&entry_of(record)?).await?;
        self.steps.reached("index-made");

        let mut others = Vec::new();
        for (id, relation) in self.holders(&record.directory).await? {
            // One whose record is gone holds nothing: it was given up before it was anything.
            if id != record.id
                && let Some(other) = self.current(&id).await?
            {
                others.push((Holder { id, relation, shared: other.shared }, other.state != State::Ready));
            }
        }
        let known: Vec<Holder> = others.iter().map(|(holder, _)| holder.clone()).collect();
        Ok(conflict(&record.id, &record.directory, record.shared, &known).map(|conflict| {
            let unsettled = others.iter().any(|(holder, unsettled)| *holder == conflict.holder && *unsettled);
            Taken { conflict, unsettled }
        }))
    }

    /// Every volume that holds the directory, one above or one below it.
    async fn holders(&self, directory: &Directory) -> Result<Vec<(String, Relation)>, StoreError> {
        let components = directory.components();
        let mut found = Vec::new();
        for depth in 1..components.len() {
            let above = index(&components[..depth])?.join(HOLDERS)?;
            let entries = self.worker.list(&above, Depth::One).await?.unwrap_or_default();
            found.extend(entries.iter().filter_map(name).map(|id| (id.to_string(), Relation::Ancestor)));
        }
        for entry in self.worker.list(&index(components)?, Depth::Infinity).await?.unwrap_or_default() {
            match entry.path.components() {
                [holders, id] if holders == HOLDERS => found.push((id.clone(), Relation::Same)),
                [.., holders, id] if holders == HOLDERS => found.push((id.clone(), Relation::Descendant)),
                _ => {}
            }
        }
        Ok(found)
    }

    /// Gives up a volume of which nothing but its record and its reservation was made.
    pub async fn abandon(&self, record: &Record) -> Result<(), StoreError> {
        self.worker.remove(&entry_of(record)?).await?;
        // In one move: half of a record would be a record that cannot be read.
        let trash = ours(&[TRASH, &trash_name(&record.id)])?;
        self.worker.make_directory(&trash).await?;
        let place = trash.clone().join(RECORD)?;
        self.worker.move_exclusive(&ours(&[VOLUMES, &record.id])?, &place).await?;
        self.worker.remove(&trash).await?;
        Ok(())
    }

    /// Makes the directory itself, and those above it.
    pub async fn make(&self, directory: &Directory) -> Result<(), StoreError> {
        let components = directory.components();
        for depth in 1..=components.len() {
            let path = Path::of(&components[..depth])?;
            if self.worker.make_directory(&path).await? == Made::Made {
                self.steps.reached("directory-made");
            }
        }
        Ok(())
    }

    /// Moves everything of a volume whose newest record says that it is being deleted into that record's place in the trash.
    /// The data first, and only while the volume holds its directory: afterwards the directory may be somebody else's.
    pub async fn discard(&self, record: &Record, trash: &str) -> Result<(), StoreError> {
        let trash = ours(&[TRASH, trash])?;
        self.worker.make_directory(&trash).await?;
        self.steps.reached("trash-made");
        let in_trash = |name: &str| trash.clone().join(name);

        let holders: Vec<String> = self
            .holders(&record.directory)
            .await?
            .into_iter()
            .filter_map(|(id, relation)| (relation == Relation::Same).then_some(id))
            .collect();
        if holders.contains(&record.id) {
            if holders.len() == 1 {
                self.worker.move_exclusive(&path(&record.directory)?, &in_trash(DATA)?).await?;
                self.steps.reached("data-moved");
                self.worker.move_exclusive(&index(record.directory.components())?, &in_trash(PATHS)?).await?;
            } else {
                // The others go on using the directory.
                self.worker.remove(&entry_of(record)?).await?;
            }
            self.steps.reached("index-moved");
        }
        self.worker.move_exclusive(&ours(&[VOLUMES, &record.id])?, &in_trash(RECORD)?).await?;
        self.steps.reached("volume-gone");
        Ok(())
    }

    /// The ids of all volumes, sorted.
    pub async fn ids(&self) -> Result<Vec<String>, StoreError> {
        let entries = self.worker.list(&ours(&[VOLUMES])?, Depth::One).await?.unwrap_or_default();
        let mut ids: Vec<String> = entries.iter().filter_map(name).map(String::from).collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

/// A path below `/.pith`.
fn ours(names: &[&str]) -> Result<Path, PathError> {
    Path::of([PITH].iter().chain(names).copied())
}

/// A directory in the tree of paths.
fn index(components: &[String]) -> Result<Path, PathError> {
    Path::of([PITH, PATHS].into_iter().chain(components.iter().map(String::as_str)))
}

/// Where a directory lies.
pub fn path(directory: &Directory) -> Result<Path, JuiceFsError> {
    Ok(Path::of(directory.components())?)
}

/// What says in the tree of paths that the record's volume holds its directory.
fn entry_of(record: &Record) -> Result<Path, PathError> {
    index(record.directory.components())?.join(HOLDERS)?.join(&record.id)
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
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static PROCESS: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let mut bytes = [0; 8];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .expect("the kernel has random bytes once it runs");
        hex::encode(bytes)
    });
    format!("{}-{:x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed))
}
