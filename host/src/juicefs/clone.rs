//! A directory cloned by the client's own operation, which copies what is known of files and none of their data.
//!
//! A client is started for each clone and asked over a socket (`fuse`): it needs no mount and no privilege. It makes the clone aside
//! and attaches it in one step, so there is all of it or nothing, whatever is killed when. What it does not carry over is put right
//! afterwards: it gives every name of a file that has several a file of its own, and leaves out pipes, sockets and devices.
//!
//! Nobody may use the clone before this is done.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde::Deserialize;

use super::fuse::{FuseError, Handle, Node, NodeKind, ROOT, Session};
use super::{JuiceFsError, Path};

/// Options of a client for a clone. It has no cache, since others write, and does nothing of its own accord.
pub(super) const OPTIONS: &str = "--no-usage-report --metrics 127.0.0.1:0 --no-bgjob --backup-meta 0 --cache-dir memory \
                                  --cache-size 0 --buffer-size 32 --attr-cache 0 --entry-cache 0 --dir-entry-cache 0";
/// By which the client knows that nobody is to start it again: it is one process then, and not two.
pub(super) const SUPERVISED: (&str, &str) = ("JFS_SUPERVISOR", "pith");
/// How long a clone may stay as it is: before it begins, the client counts everything once.
const STALL: Duration = Duration::from_secs(600);
/// How often a clone is looked at; the client counts what it has done every 300 ms.
const LOOK: Duration = Duration::from_millis(10);
/// The most names of files with several that are kept in mind, of about 100 bytes each.
const MOST_NAMES: usize = 1_000_000;
/// The oldest client whose message is the one that is written here.
const OLDEST: (u32, u32) = (1, 4);

/// The file by which a client is asked for more than a file system can do, and the one that says which client it is.
const CONTROL: &[u8] = b".control";
const SETTINGS: &[u8] = b".config";
/// The number of the operation, and that of its flag that keeps owners, permissions and times.
const CLONE: u32 = 1006;
const PRESERVE: u8 = 2;
/// How many of the client's threads work on one clone. In SQLite one at a time can write, and the others would give up one day.
const THREADS: u8 = 4;
const THREADS_ON_SQLITE: u8 = 1;
/// What a count begins with.
const COUNT: u8 = 0xfe;

/// How far a clone is, in files and directories.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// How many are done of how many; none of none before that is known.
    pub fn counts(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

/// Why there is no clone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloneError {
    /// What was to be cloned is not there.
    #[error("there is nothing at {0}")]
    NoSource(Path),
    /// The client did not do it; nothing of it can be seen.
    #[error(transparent)]
    Failed(#[from] JuiceFsError),
}

/// What is cloned, and as what.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) source: Path,
    pub(super) target: Path,
    pub(super) threads: u8,
    pub(super) progress: Arc<Progress>,
}

/// How many threads the client of this metadata engine may use.
pub(super) fn threads(meta_url: &str) -> u8 {
    if meta_url.starts_with("sqlite3://") { THREADS_ON_SQLITE } else { THREADS }
}

/// What hinders a clone, before it is known of which file system it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum Hindrance {
    #[error("there is nothing at {0}")]
    NoSource(Path),
    #[error("the directory that {0} was to be in is gone")]
    NoTarget(Path),
    #[error("it cannot clone {0}: {1}")]
    Refused(Path, Errno),
    #[error("its version is {0}, and cloning takes {major}.{minor} or later", major = OLDEST.0, minor = OLDEST.1)]
    TooOld(String),
    #[error("it does nothing any more about the clone of {0}, for {seconds} s", seconds = STALL.as_secs())]
    Stalled(Path),
    #[error(
        "{0} has more than {MOST_NAMES} names of files that have several, which is more than can be kept in a clone"
    )]
    TooManyNames(Path),
    #[error(transparent)]
    Fuse(#[from] FuseError),
}

/// Clones a directory and puts right what the client does not carry over.
pub(super) fn clone(session: &mut Session, job: &Job) -> Result<(), Hindrance> {
    let version = version(session)?;
    if !is_new_enough(&version) {
        return Err(Hindrance::TooOld(version));
    }
    let no_source = || Hindrance::NoSource(job.source.clone());
    let no_target = || Hindrance::NoTarget(job.target.clone());
    let (above, source) = ends(session, &job.source)?.ok_or_else(no_source)?;
    let source = source.filter(|source| source.kind() == NodeKind::Directory).ok_or_else(no_source)?;
    let extras = Extras::of(session, source, job)?;
    let (directory, _) = ends(session, &job.target)?.ok_or_else(no_target)?;
    let name = job.target.components().last().map(String::as_bytes).unwrap_or_default();
    ask_for_clone(session, (above, source.id), (directory, name), job)?;
    let target = ends(session, &job.target)?.and_then(|(_, target)| target).ok_or_else(no_target)?;
    Ok(extras.complete(session, source, target)?)
}

/// The directory that a path leads to the last name of, and what has that name; none where it leads nowhere.
fn ends(session: &mut Session, path: &Path) -> Result<Option<(u64, Option<Node>)>, FuseError> {
    let Some((name, above)) = path.components().split_last() else { return Ok(None) };
    let mut directory = ROOT;
    for name in above {
        match session.look_up(directory, name.as_bytes())? {
            Some(next) if next.kind() == NodeKind::Directory => directory = next.id,
            _ => return Ok(None),
        }
    }
    Ok(Some((directory, session.look_up(directory, name.as_bytes())?)))
}

/// What the client says that it is. The file has the settings of the file system too, of which nothing is kept.
fn version(session: &mut Session) -> Result<String, FuseError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Settings {
        version: String,
    }
    let settings = session.look_up(ROOT, SETTINGS)?.ok_or(FuseError::Unreadable)?;
    let file = session.open(settings.id, false)?;
    let read = serde_json::from_slice::<Settings>(session.read(file, 0)?).map_err(|_| FuseError::Unreadable);
    session.release(file)?;
    Ok(read?.version)
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split(['.', '-', '+']).map(|number| number.parse::<u32>().ok());
    let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
    major.zip(minor).is_some_and(|version| version >= OLDEST)
}

/// Writes the client's own message, and waits until it says that it is done.
fn ask_for_clone(
    session: &mut Session,
    (source_parent, source): (u64, u64),
    (target_parent, name): (u64, &[u8]),
    job: &Job,
) -> Result<(), Hindrance> {
    let control = session.look_up(ROOT, CONTROL)?.ok_or(FuseError::Unreadable)?;
    let file = session.open(control.id, true)?;
    let message = message([source, source_parent, target_parent], name, job.threads);
    session.write(file, &message)?;
    let ended = wait_for_end(session, file, message.len() as u64, job);
    session.release(file)?;
    match ended? {
        0 => Ok(()),
        number => Err(Hindrance::Refused(job.source.clone(), Errno::from_raw_os_error(number.into()))),
    }
}

/// Its number and length, what is cloned and where to, and how. The client reads it in this order of bytes.
fn message(inodes: [u64; 3], name: &[u8], threads: u8) -> Vec<u8> {
    // Names are checked by whoever makes a path.
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    // With no bit of permissions taken away.
    const UMASK: u16 = 0;
    let inodes = inodes.iter().flat_map(|inode| inode.to_be_bytes());
    let body: Vec<u8> = inodes.chain([length]).chain(name.iter().copied()).chain(UMASK.to_be_bytes()).collect();
    let body = [&body[..], &[PRESERVE, threads]].concat();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&CLONE.to_be_bytes()[..], &length.to_be_bytes(), &body].concat()
}

/// Reads counts until there is the number of an error, 0 for none. There is nothing that could be waited for but the clock.
fn wait_for_end(session: &mut Session, file: Handle, mut offset: u64, job: &Job) -> Result<u8, Hindrance> {
    let (mut said, mut changed) = (Vec::new(), Instant::now());
    loop {
        let read = session.read(file, offset)?;
        offset += read.len() as u64;
        said.extend_from_slice(read);
        if read.is_empty() {
            sleep(LOOK);
        }
        while let Some(first) = said.first().copied() {
            if first != COUNT {
                return Ok(first);
            }
            let Some((count, rest)) = said.split_at_checked(17) else { break };
            let (done, total) = count[1..].split_at(8);
            let counts = [done, total].map(|it| it.try_into().map_or(0, u64::from_be_bytes));
            if job.progress.counts() != counts.into() {
                changed = Instant::now();
            }
            job.progress.done.store(counts[0], Ordering::Relaxed);
            job.progress.total.store(counts[1], Ordering::Relaxed);
            said = rest.to_vec();
        }
        if changed.elapsed() > STALL {
            return Err(Hindrance::Stalled(job.source.clone()));
        }
    }
}

/// What of a directory the client does not carry over: the names of files that have several, by inode, and what is neither a file nor
/// a directory nor a link. Paths are names with slashes between them, from the directory.
#[derive(Debug, Default)]
struct Extras {
    names: HashMap<u64, Vec<Vec<u8>>>,
    special: Vec<(Vec<u8>, Node)>,
}

impl Extras {
    /// Looks at everything below a directory.
    fn of(session: &mut Session, source: Node, job: &Job) -> Result<Extras, Hindrance> {
        let mut extras = Extras::default();
        let mut count = 0;
        let mut directories = vec![(Vec::new(), source.id)];
        while let Some((path, directory)) = directories.pop() {
            for (name, node) in session.list(directory)? {
                let path = if path.is_empty() { name } else { [path.as_slice(), &name].join(&b'/') };
                match node.kind() {
                    NodeKind::Directory => directories.push((path, node.id)),
                    NodeKind::Special => extras.special.push((path, node)),
                    NodeKind::FileOrLink if node.links > 1 => extras.names.entry(node.id).or_default().push(path),
                    NodeKind::FileOrLink => continue,
                }
                count += usize::from(node.kind() != NodeKind::Directory);
                if count > MOST_NAMES {
                    return Err(Hindrance::TooManyNames(job.source.clone()));
                }
            }
        }
        extras.names.retain(|_, paths| paths.len() > 1);
        Ok(extras)
    }

    /// Makes the clone of a directory what that was.
    ///
    /// Who writes to the source meanwhile may have given a name to something else. Inodes have numbers that are never given again: what
    /// a name has before and after the clone was made is what it had in between.
    fn complete(&self, session: &mut Session, source: Node, target: Node) -> Result<(), FuseError> {
        // Directories that are changed, as they were.
        let mut changed: HashMap<u64, Node> = HashMap::new();
        for (path, node) in &self.special {
            if at(session, source, path)?.is_some_and(|(_, now)| now.is_some_and(|now| now.id == node.id))
                && let Some((directory, None)) = at(session, target, path)?
            {
                if let Entry::Vacant(entry) = changed.entry(directory.id) {
                    entry.insert(directory);
                }
                session.make_special(directory.id, last(path), node)?;
            }
        }
        for (inode, paths) in &self.names {
            let mut first = None;
            for path in paths {
                let is_the_same =
                    at(session, source, path)?.and_then(|(_, now)| now).is_some_and(|now| now.id == *inode);
                let Some((directory, Some(copy))) = at(session, target, path)?.filter(|_| is_the_same) else {
                    continue;
                };
                let first = *first.get_or_insert(copy.id);
                if copy.id != first {
                    if let Entry::Vacant(entry) = changed.entry(directory.id) {
                        entry.insert(directory);
                    }
                    session.unlink(directory.id, last(path))?;
                    session.link(first, directory.id, last(path))?;
                }
            }
        }
        for directory in changed.values() {
            session.set_times(directory.id, directory)?;
        }
        Ok(())
    }
}

/// The directory that a path leads to from this one, and what has the last name there; none where it leads nowhere.
fn at(session: &mut Session, from: Node, path: &[u8]) -> Result<Option<(Node, Option<Node>)>, FuseError> {
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let Some((name, above)) = names.split_last() else { return Ok(None) };
    match session.find(from, above.iter().copied())? {
        Some(directory) if directory.kind() == NodeKind::Directory => {
            let node = session.look_up(directory.id, name)?;
            Ok(Some((directory, node)))
        }
        _ => Ok(None),
    }
}

fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_the_one_that_the_client_sends_itself() {
        // As `juicefs clone -p` of version 1.4.2 sent it, but for its umask.
        let sent = "000003ee00000023000000000000000200000000000000010000000000000001\
                    06636c6f6e653200000204";
        assert_eq!(hex::encode(message([2, 1, 1], b"clone2", 4)), sent);
    }

    #[test]
    fn only_clients_that_read_this_message_are_sent_it() {
        for (version, expected) in [
            ("1.4.2+2026-10-26.pypi", true),
            ("1.4.0", true),
            ("1.10.0-beta1", true),
            ("2.0.0", true),
            ("1.3.9+2025-01-01", false),
            ("0.17.5", false),
            ("1", false),
            ("", false),
            ("dev", false),
        ] {
            assert_eq!(is_new_enough(version), expected, "{version}");
        }
    }
}
