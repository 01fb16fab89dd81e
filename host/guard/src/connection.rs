//! The kernel's control files of FUSE connections, and when one is ended by force.
//!
//! A client that is killed while one of its threads waits for its own mount never ends: the kernel closes a connection when the
//! last process that serves it is gone, and that thread keeps the process. Only aborting the connection helps.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{O_DIRECTORY, O_PATH};
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::fstatvfs;

use crate::mountinfo::Mount;

/// Where the kernel shows connections, once that is mounted.
const CONTROL: &str = "/sys/fs/fuse/connections";
/// How long a client may live on once its mounts are gone. The guard is told to end when the client has ended, or when the pod's
/// time is over: then both have two seconds left, and in these a client may still write back. It may after an abort as well,
/// which tells it the same as an unmount would.
const PATIENCE: Duration = Duration::from_millis(1200);
/// How often a client is asked.
const POLL: Duration = Duration::from_millis(20);

/// The connection of a mount. While it is held, the kernel gives its number to no other one.
#[derive(Debug)]
pub(crate) struct Connection {
    number: u32,
    root: File,
}

impl Connection {
    /// Holds the connection of a mount that is visible; none where another one lies there by now.
    ///
    /// With O_PATH nothing is asked of the client, which may never answer.
    pub(crate) fn of(mount: &Mount) -> Option<Connection> {
        let root = OpenOptions::new().read(true).custom_flags(O_PATH | O_DIRECTORY).open(&mount.point).ok()?;
        let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", root.as_raw_fd())).ok()?;
        let id = about.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse::<u32>().ok()?;
        (id == mount.id).then_some(Connection { number: mount.connection?, root })
    }

    /// Asks the client for its free space until there is none any more, and then drops the sender of what is returned.
    fn end(self) -> Receiver<()> {
        let (alive, end) = channel();
        spawn(move || {
            let _alive: Sender<()> = alive;
            // This waits where nobody can interrupt it, for as long as a client is stuck.
            while !matches!(fstatvfs(&self.root), Err(Errno::ENOTCONN | Errno::ECONNABORTED)) {
                sleep(POLL);
            }
        });
        end
    }
}

/// What became of connections whose mounts are gone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Those that were aborted.
    pub(crate) aborted: Vec<u32>,
    /// Why one could not be aborted.
    pub(crate) failed: Option<String>,
}

/// Waits for the clients to end, then aborts the connections of those that do not.
///
/// Of all of them, also where nobody waits for an answer and the client gives some: one whose metadata engine hangs is stuck for
/// good once the kubelet kills it.
pub(crate) fn settle(connections: Vec<Connection>) -> Settled {
    let mut settled = Settled::default();
    let deadline = Instant::now() + PATIENCE;
    let ends: Vec<(u32, Receiver<()>)> = connections.into_iter().map(|it| (it.number, it.end())).collect();
    for (number, end) in ends {
        if end.recv_timeout(deadline.saturating_duration_since(Instant::now())) == Err(RecvTimeoutError::Timeout) {
            match abort(number) {
                Ok(()) => settled.aborted.push(number),
                Err(error) => settled.failed = Some(format!("FUSE connection {number} could not be aborted ({error})")),
            }
        }
    }
    settled
}

/// Ends a connection: whoever waits for its client is told that there is none.
fn abort(number: u32) -> std::io::Result<()> {
    let control = Path::new(CONTROL).join(number.to_string()).join("abort");
    if !control.exists() {
        // A container has the folder without what the node has mounted there. This is for this container alone.
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("fusectl"), CONTROL, Some("fusectl"), flags, None::<&str>)?;
    }
    fs::write(control, "1")
}
