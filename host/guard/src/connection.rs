//! The kernel's control files of FUSE connections, and when one is ended by force.
//!
//! A client that is killed while one of its threads waits for its own mount never ends: the kernel closes a connection when the
//! last process that serves it is gone, and that thread keeps the process. Only aborting the connection helps.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::libc::{O_DIRECTORY, O_PATH};
use nix::mount::{MsFlags, mount};

use crate::mountinfo::Mount;

/// Where the kernel shows connections, once that is mounted.
const CONTROL: &str = "/sys/fs/fuse/connections";
/// How long a client has to answer what is asked of it after the unmount. The guard is told to end when the client has ended, or
/// when the pod's time is over and both have two seconds left: a client that still writes back gets most of these.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How often it is looked whether it has.
const POLL: Duration = Duration::from_millis(10);

/// The connection of a mount. While it is held, the kernel gives its number to no other one.
#[derive(Debug)]
pub(crate) struct Connection {
    number: u32,
    _root: File,
}

impl Connection {
    /// Holds the connection of a mount that is visible; none where another one lies there by now.
    ///
    /// With O_PATH nothing is asked of the client, which may never answer.
    pub(crate) fn of(mount: &Mount) -> Option<Connection> {
        let root = OpenOptions::new().read(true).custom_flags(O_PATH | O_DIRECTORY).open(&mount.point).ok()?;
        let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", root.as_raw_fd())).ok()?;
        let id = about.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse::<u32>().ok()?;
        (id == mount.id).then_some(Connection { number: mount.connection?, _root: root })
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(CONTROL).join(self.number.to_string()).join(name)
    }

    /// Whether anybody waits for an answer of the client.
    fn is_waited_for(&self) -> bool {
        fs::read_to_string(self.file("waiting")).is_ok_and(|count| count.trim() != "0")
    }
}

/// What became of connections whose mounts are gone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Those that were aborted.
    pub(crate) aborted: Vec<u32>,
    /// Why no connection could be looked at.
    pub(crate) unknown: Option<String>,
}

/// Gives the clients time to answer what is asked of them, then aborts the connections on which somebody still waits.
///
/// A connection on which nobody waits is left alone: it ends with its client, or already has.
pub(crate) fn settle(mut connections: Vec<Connection>) -> Settled {
    let mut settled = Settled::default();
    if connections.is_empty() {
        return settled;
    }
    if let Err(error) = show_control_files(&connections) {
        settled.unknown = Some(format!("{CONTROL} can't be mounted ({error})"));
        return settled;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        connections.retain(Connection::is_waited_for);
        if connections.is_empty() || Instant::now() >= deadline {
            break;
        }
        sleep(POLL);
    }
    for connection in connections {
        match fs::write(connection.file("abort"), "1") {
            Ok(()) => settled.aborted.push(connection.number),
            Err(error) => {
                settled.unknown = Some(format!("{} can't be written ({error})", connection.file("abort").display()))
            }
        }
    }
    settled
}

/// A container has the folder without what the node has mounted there, and it is mounted for this container alone.
fn show_control_files(connections: &[Connection]) -> nix::Result<()> {
    if connections.iter().all(|connection| connection.file("waiting").exists()) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("fusectl"), CONTROL, Some("fusectl"), flags, None::<&str>)
}
