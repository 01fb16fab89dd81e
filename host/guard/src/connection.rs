//! FUSE connections by the kernel's control files, and when one is ended by force.
//!
//! A client that is killed while one of its threads waits for its own mount never ends: the kernel closes a connection when the
//! last process that serves it is gone, and that thread keeps the process. Only aborting the connection helps.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};

/// Where the kernel shows connections, once that is mounted.
const CONTROL: &str = "/sys/fs/fuse/connections";
/// How long a connection may stay once its mounts are gone, unless more is said. A native sidecar is told to end when the client
/// has ended, or when the pod's time is over: then both have two seconds left, and in these a client may still write back. It may
/// after an abort as well, which tells it the same as an unmount would.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1200);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A connection. Its control files stay those of this one: once it is gone, what is read is empty and what is written does
/// nothing, whoever the kernel has given the number to by then. They hold neither the mount nor the client.
#[derive(Debug)]
struct Connection {
    number: u32,
    waiting: File,
    abort: File,
}

impl Connection {
    fn open(number: u32) -> io::Result<Connection> {
        let control = Path::new(CONTROL).join(number.to_string());
        if !control.exists() {
            // A container has the folder without what the node has mounted there. This is for this container alone.
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount("fusectl", CONTROL, "fusectl", flags, None)?;
        }
        let abort = OpenOptions::new().write(true).open(control.join("abort"))?;
        Ok(Connection { number, waiting: File::open(control.join("waiting"))?, abort })
    }

    /// It is gone with the file system: when it is mounted nowhere and used by nobody.
    fn is_there(&self) -> bool {
        // Opened again, and of the same file whatever has its name now: what was read once can't be read again.
        let again = format!("/proc/self/fd/{}", self.waiting.as_raw_fd());
        fs::read(again).is_ok_and(|waiting| !waiting.is_empty())
    }
}

/// The connections of the mounts that were seen.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    seen: Vec<Connection>,
    failed: Option<String>,
}

/// What became of connections whose mounts are gone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Those that were aborted.
    pub(crate) aborted: Vec<u32>,
    /// Why one could not be aborted.
    pub(crate) failed: Option<String>,
}

impl Connections {
    /// Remembers a connection, by the number that its mount has now.
    pub(crate) fn see(&mut self, number: u32) {
        self.seen.retain(Connection::is_there);
        if self.seen.iter().all(|it| it.number != number) {
            match Connection::open(number) {
                Ok(connection) => self.seen.push(connection),
                // It may be gone by now. If it is not, aborting it is what will be missed.
                Err(error) => self.failed = Some(format!("FUSE connection {number} can't be seen to ({error})")),
            }
        }
    }

    /// Waits for them to go, and aborts those that do not.
    ///
    /// Also where nobody waits for an answer and the client gives some: one whose metadata engine hangs is stuck for good once
    /// the kubelet kills it.
    pub(crate) fn settle(mut self, patience: Duration) -> Settled {
        let deadline = Instant::now() + patience;
        loop {
            self.seen.retain(Connection::is_there);
            if self.seen.is_empty() || Instant::now() >= deadline {
                break;
            }
            sleep(POLL);
        }
        let mut settled = Settled { aborted: Vec::new(), failed: self.failed };
        for mut connection in self.seen {
            match connection.abort.write_all(b"1") {
                Ok(()) => settled.aborted.push(connection.number),
                Err(error) => {
                    settled.failed =
                        Some(format!("FUSE connection {} could not be aborted ({error})", connection.number));
                }
            }
        }
        settled
    }
}
