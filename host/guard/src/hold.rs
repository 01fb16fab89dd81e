//! Holding paths: a stand-in over the mount of each client that was killed, so that the next one can come.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{sleep, spawn};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::connection::Connections;
use crate::mountinfo;
use crate::unmount::{self, Done, Places};
use crate::{Failure, stand_in};

/// How often a client is asked. The kubelet makes its container again about a second after its end, and fails on a dead mount.
const PERIOD: Duration = Duration::from_millis(500);
/// A file in the root of each of its mounts that the client answers for by itself. It has another name there if an option says
/// so, and then the metadata engine is asked for one key.
const CONTROL: &str = ".control";

/// Holds these paths until it is told to end, and then unmounts what is mounted there.
pub(crate) fn paths(paths: Vec<PathBuf>) -> Result<Done, Failure> {
    // The first process of a container gets a signal only if it handles or blocks it. Threads do as the one that starts them.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals.thread_block().map_err(Failure::Signals)?;
    let connections = Arc::new(Mutex::new(Connections::default()));
    for path in paths.clone() {
        let connections = Arc::clone(&connections);
        // A client that hangs keeps its thread, and no other, and only until its connection is aborted.
        spawn(move || watch(&path, &connections));
    }
    signals.wait().map_err(Failure::Signals)?;
    let connections = std::mem::take(&mut *connections.lock().unwrap_or_else(PoisonError::into_inner));
    unmount::all(Places::At(paths), connections)
}

fn watch(path: &Path, connections: &Mutex<Connections>) {
    let mut failed = None;
    loop {
        match look(path, connections) {
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
fn look(path: &Path, connections: &Mutex<Connections>) -> io::Result<bool> {
    let mounts = mountinfo::read()?;
    let Some(client) = mountinfo::top(&mounts, path).filter(|it| !it.stand_in) else { return Ok(false) };
    if let Some(number) = client.connection {
        connections.lock().unwrap_or_else(PoisonError::into_inner).see(number);
    }
    if !is_dead(path) {
        return Ok(false);
    }
    stand_in::mount(path)?;
    // The next client may have been faster, and must not be hidden.
    let mounts = mountinfo::read()?;
    let hidden = mountinfo::top(&mounts, path).filter(|it| it.stand_in).and_then(|it| mountinfo::below(&mounts, it));
    if hidden.is_some_and(|it| it.id != client.id) {
        unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        return Ok(false);
    }
    Ok(true)
}

fn is_dead(path: &Path) -> bool {
    let asked = open(path.join(CONTROL), OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
    matches!(asked, Err(Errno::NOTCONN | Errno::CONNABORTED))
}

/// Whoever reads it may be gone, which changes nothing about what was done.
fn tell(path: &Path, what: &str) {
    let _ = writeln!(io::stdout(), "{}: {what}", path.display());
}
