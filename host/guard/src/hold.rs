//! Holding paths: a stand-in over the mount of each client that was killed, so that the next one can come.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{sleep, spawn};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
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

/// Holds these paths until it is told to end, and then unmounts what is mounted there. Clients have this long to end then.
pub(crate) fn paths(paths: Vec<PathBuf>, patience: Duration) -> Result<Done, Failure> {
    // The first process of a container gets a signal only if it handles or blocks it. Threads do as the one that starts them.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals.thread_block().map_err(Failure::Signals)?;
    let seen = Arc::new(Mutex::new(Some(Connections::default())));
    for path in paths.clone() {
        let seen = Arc::clone(&seen);
        // A client that hangs keeps its thread, and no other, and only until its connection is aborted.
        spawn(move || watch(&path, &seen));
    }
    signals.wait().map_err(Failure::Signals)?;
    let connections = lock(&seen).take();
    unmount::all(Places::At(paths), connections.unwrap_or_default(), patience)
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

fn is_dead(path: &Path) -> bool {
    let asked = open(path.join(CONTROL), OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
    matches!(asked, Err(Errno::NOTCONN | Errno::CONNABORTED))
}

/// Whoever reads it may be gone, which changes nothing about what was done.
fn tell(path: &Path, what: &str) {
    let _ = writeln!(io::stdout(), "{}: {what}", path.display());
}
