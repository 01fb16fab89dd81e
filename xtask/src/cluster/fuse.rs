//! FUSE connections of a cluster's pods, which can outlive everything else of it.
//!
//! A client that is killed while one of its threads waits for its own mount waits for ever: the kernel closes a connection when
//! the last process that serves it is gone, and the thread keeps the process. Only aborting the connection ends that.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::capture;

/// Where the kernel shows connections, if that is mounted.
const CONTROL: &str = "/sys/fs/fuse/connections";

/// The connections of the mounts that a process sees, by number.
pub(crate) fn connections(process: &str) -> BTreeSet<u32> {
    // A process that has ended sees none.
    let mounts = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap_or_default();
    mounts.lines().filter_map(connection).collect()
}

/// The connection of a line of mountinfo: the minor number of the mount's device.
fn connection(line: &str) -> Option<u32> {
    let (mount, file_system) = line.split_once(" - ")?;
    let device = mount.split(' ').nth(2)?;
    file_system.starts_with("fuse").then(|| device.strip_prefix("0:")?.parse().ok())?
}

/// Aborts those of these connections that nobody sees any more: what has a mount, or has the same number by now, is left alone.
pub(crate) fn abort_orphans(of: &BTreeSet<u32>) -> Result<()> {
    let mut orphans = of.clone();
    for entry in fs::read_dir("/proc").context("reading /proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.parse::<u32>().is_ok() {
            orphans.retain(|it| !connections(&name).contains(it));
        }
    }
    if orphans.is_empty() {
        return Ok(());
    }
    // One that is gone meanwhile is as well. Mounted where nobody else sees it.
    let script =
        format!(r#"mount -t fusectl none {CONTROL} && for it in "$@"; do echo 1 >{CONTROL}/$it/abort || true; done"#);
    let mut abort = Command::new("unshare");
    abort.args(["--mount", "--propagation", "private", "sh", "-c", &script, "abort"]);
    capture(abort.args(orphans.iter().map(u32::to_string))).map(drop).context("aborting FUSE connections")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_of_a_mount_is_its_minor_number() {
        let line = "62 36 0:63 / /run/pods/x rw,relatime shared:9 - fuse.juicefs JuiceFS:pods rw,user_id=0";
        assert_eq!(connection(line), Some(63));
        assert_eq!(connection("63 36 0:64 / /run rw - tmpfs tmpfs rw"), None);
        assert_eq!(connection("64 36 254:0 / / rw - ext4 /dev/vda rw"), None);
    }
}
