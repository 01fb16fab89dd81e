//! Holding paths: a stand-in over the mount of each client that was killed, so that the next one can come.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{sleep, spawn};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use crate::connection::Connections;
use crate::mountinfo;
use crate::unmount::{self, Done, Places};
use crate::{Failure, stand_in};

/// How often a client is asked. The kubelet makes its container again about a second after its end, and fails on a dead mount.
const PERIOD: Duration = Duration::from_millis(500);
/// A file in the root of each of its mounts that the client answers for by itself. It has another name there if an option says
/// so, and then the metadata engine is asked for one key.
const CONTROL: &str = ".control";

/// The connections that were seen; none once everything is to be unmounted, after which nothing must be mounted any more.
type Seen = Mutex<Option<Connections>>;

/// What is to be looked after.
#[derive(Debug, PartialEq)]
pub(crate) struct Hold {
    /// Where clients mount.
    pub(crate) paths: Vec<PathBuf>,
    /// Whether nobody is to use the directories before a client is there.
    pub(crate) cover: bool,
    /// How long clients have to end, once their mounts are gone.
    pub(crate) patience: Duration,
    /// A file that says `true` when it is time to end, beside a signal.
    pub(crate) until: Option<PathBuf>,
}

impl Hold {
    /// Holds the paths until it is told to end, and then unmounts what is mounted there.
    pub(crate) fn until_told(self) -> Result<Done, Failure> {
        // The first process of a container gets a signal only if it handles or blocks it. Threads do as the one that starts them.
        let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        signals.thread_block().map_err(Failure::Signals)?;
        if self.cover {
            for path in &self.paths {
                cover(path).map_err(|why| Failure::Bare { at: path.clone(), why })?;
            }
        }
        let seen = Arc::new(Mutex::new(Some(Connections::default())));
        for path in self.paths.clone() {
            let seen = Arc::clone(&seen);
            // A client that hangs keeps its thread, and no other, and only until its connection is aborted.
            spawn(move || watch(&path, &seen));
        }
        if let Some(file) = self.until {
            spawn(move || end_when_told(&file));
        }
        signals.wait().map_err(Failure::Signals)?;
        let connections = lock(&seen).take();
        unmount::all(Places::At(self.paths), connections.unwrap_or_default(), self.patience)
    }
}

/// The kubelet writes the file, and links another one in its place when what it says changes.
fn end_when_told(file: &Path) {
    while !fs::read_to_string(file).is_ok_and(|text| text.trim() == "true") {
        sleep(PERIOD);
    }
    tell(file, "it says that the application has ended");
    // Blocked in every thread, it reaches the one that waits for it. To this process it is always allowed.
    let _ = kill(Pid::this(), Signal::SIGTERM);
}

/// Puts a stand-in at a directory where nothing is mounted, so that whoever comes before the client is refused and does not write
/// into the directory itself. Where something is, a guard before this one has done so.
fn cover(path: &Path) -> io::Result<()> {
    match mountinfo::top(&mountinfo::read()?, path) {
        Some(_) => Ok(()),
        None => stand_in::mount(path),
    }
}

fn watch(path: &Path, seen: &Seen) {
    let mut failed = None;
    loop {
        match look(path, seen) {
            Ok(false) => failed = None,
            Ok(true) => {
                tell(path, "the client was killed; a stand-in refuses what is asked until the next one is there")
            }
            Err(error) => {
                let why = Some(error.to_string());
                if failed != why {
                    tell(path, &format!("a client that was killed stays away: nothing can be mounted there ({error})"));
                }
                failed = why;
            }
        }
        sleep(PERIOD);
    }
}

/// Looks after a path once; whether there is a stand-in now over a client that was killed.
fn look(path: &Path, seen: &Seen) -> io::Result<bool> {
    let mounts = mountinfo::read()?;
    let Some(client) = mountinfo::top(&mounts, path).filter(|it| !it.stand_in) else { return Ok(false) };
    if let (Some(connections), Some(number)) = (&mut *lock(seen), client.connection) {
        connections.see(number);
    }
    if !is_dead(path) {
        return Ok(false);
    }
    let goes_on = lock(seen);
    if goes_on.is_none() {
        return Ok(false);
    }
    stand_in::mount(path)?;
    // The next client may have been faster, and must not be hidden; nor the directory, where the mount is gone.
    let mounts = mountinfo::read()?;
    let hidden = mountinfo::top(&mounts, path).filter(|it| it.stand_in).and_then(|it| mountinfo::below(&mounts, it));
    if hidden.is_some_and(|it| it.id == client.id) {
        return Ok(true);
    }
    unmount::uppermost(path)?;
    Ok(false)
}

fn lock(seen: &Seen) -> MutexGuard<'_, Option<Connections>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a client that had mounted there is gone.
pub(crate) fn is_dead(path: &Path) -> bool {
    let asked = open(path.join(CONTROL), OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
    matches!(asked, Err(Errno::NOTCONN | Errno::CONNABORTED))
}

/// Whoever reads it may be gone, which changes nothing about what was done.
fn tell(path: &Path, what: &str) {
    let _ = writeln!(io::stdout(), "{}: {what}", path.display());
}
