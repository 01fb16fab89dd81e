//! Unmounting: everything of FUSE at some places, without waiting for whoever serves it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread::spawn;
use std::time::Duration;
use std::{fmt, io};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::connection::{Connections, PATIENCE, Settled};
use crate::{Failure, mountinfo, named};

/// More mounts than clients can have left at one pod: each was started by the kubelet, at most every ten seconds.
const MOST: usize = 100_000;

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Places {
    /// At these paths.
    At(Vec<PathBuf>),
    /// At these directories and below.
    Below(Vec<PathBuf>),
}

impl Places {
    fn include(&self, point: &Path) -> bool {
        match self {
            Places::At(paths) => paths.iter().any(|path| point == path),
            Places::Below(directories) => directories.iter().any(|directory| point.starts_with(directory)),
        }
    }
}

/// What was done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Done {
    places: Places,
    /// How many mounts lay at each path.
    unmounted: BTreeMap<PathBuf, usize>,
    settled: Settled,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unmounted.is_empty() {
            let (at, paths) = match &self.places {
                Places::At(paths) => ("at", paths),
                Places::Below(directories) => ("at or below", directories),
            };
            return write!(f, "nothing was mounted {at} {}", named(paths));
        }
        let unmounted = self.unmounted.iter().map(|(path, count)| match count {
            1 => path.display().to_string(),
            more => format!("{} ({more} on top of each other)", path.display()),
        });
        write!(f, "unmounted {}", unmounted.collect::<Vec<_>>().join(", "))?;
        for number in &self.settled.aborted {
            write!(f, "; aborted FUSE connection {number}, whose client did not end")?;
        }
        match &self.settled.failed {
            Some(why) => write!(f, "; {why}"),
            None => Ok(()),
        }
    }
}

/// Unmounts them all, and sees to it that their connections, and those that were seen before, are gone then. An error names what
/// is still mounted. Whoever uses one of them has this long before its client is taken from it.
pub(crate) fn all(places: Places, mut connections: Connections, patience: Duration) -> Result<Done, Failure> {
    let mounts = mountinfo::read().map_err(Failure::Table)?;
    for mount in mountinfo::of_fuse(&mounts, |point| places.include(point)) {
        mount.connection.into_iter().for_each(|number| connections.see(number));
    }
    // What was the last to hold a file system waits for its client, until its connection is aborted.
    let (report, reported) = channel();
    let of_thread = places.clone();
    spawn(move || drop(report.send(detach(&of_thread))));
    let settled = connections.settle(patience);
    let (unmounted, failed) = match reported.recv_timeout(PATIENCE) {
        Ok(detached) => detached.map_err(Failure::Table)?,
        Err(_) => Detached::default(),
    };
    let mounts = mountinfo::read().map_err(Failure::Table)?;
    match mountinfo::of_fuse(&mounts, |point| places.include(point)).first() {
        Some(left) => {
            let why = match failed.get(&left.point) {
                Some(error) => format!("unmounting it failed ({error})"),
                None if mountinfo::covers(&mounts, left).is_some() => "another file system lies on top of it".into(),
                None => "a client has mounted it again: run this once more".into(),
            };
            Err(Failure::Left { at: left.point.clone(), why })
        }
        None => Ok(Done { places, unmounted, settled }),
    }
}

/// How many mounts are gone at each path, and why one may not be.
type Detached = (BTreeMap<PathBuf, usize>, BTreeMap<PathBuf, Errno>);

/// Detaches the uppermost mount at a point.
///
/// Lazily: it is gone at once, for the node and for every container of the pod, and whoever has a file open keeps it.
pub(crate) fn uppermost(point: &Path) -> rustix::io::Result<()> {
    unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}

fn detach(places: &Places) -> io::Result<Detached> {
    let (mut unmounted, mut failed) = Detached::default();
    let mut tried = BTreeSet::new();
    for _ in 0..MOST {
        let mounts = mountinfo::read()?;
        let found = mountinfo::of_fuse(&mounts, |point| places.include(point));
        let next = found.into_iter().find(|it| mountinfo::covers(&mounts, it).is_none() && !tried.contains(&it.id));
        let Some(mount) = next else { break };
        tried.insert(mount.id);
        match uppermost(&mount.point) {
            Ok(()) => *unmounted.entry(mount.point.clone()).or_insert(0) += 1,
            Err(error) => drop(failed.insert(mount.point.clone(), error)),
        }
    }
    Ok((unmounted, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_path_or_everything_below_a_directory() {
        let at = Places::At(vec!["/jfs/a/".into(), "/jfs/b".into()]);
        let below = Places::Below(vec!["/pods/x".into()]);
        for (places, point, expected) in [
            (&at, "/jfs/a", true),
            (&at, "/jfs/b", true),
            (&at, "/jfs/a/sub", false),
            (&at, "/jfs", false),
            (&below, "/pods/x", true),
            (&below, "/pods/x/volumes/y", true),
            (&below, "/pods/xy", false),
            (&below, "/pods", false),
        ] {
            assert_eq!(places.include(Path::new(point)), expected, "{point}");
        }
    }

    #[test]
    fn what_was_done_is_one_line() {
        let places = || Places::At(vec!["/jfs/a".into(), "/jfs/b".into()]);
        let settled = Settled::default;
        let stuck = Settled { aborted: vec![63], failed: Some("it is dark".into()) };
        let unmounted = |counts: &[(&str, usize)]| counts.iter().map(|(path, count)| (path.into(), *count)).collect();
        for (unmounted, settled, expected) in [
            (unmounted(&[]), settled(), "nothing was mounted at /jfs/a, /jfs/b"),
            (
                unmounted(&[("/jfs/a", 2), ("/jfs/b", 1)]),
                settled(),
                "unmounted /jfs/a (2 on top of each other), /jfs/b",
            ),
            (
                unmounted(&[("/jfs/a", 1)]),
                stuck,
                "unmounted /jfs/a; aborted FUSE connection 63, whose client did not end; it is dark",
            ),
        ] {
            assert_eq!(Done { places: places(), unmounted, settled }.to_string(), expected);
        }
        let nothing = Done { places: Places::Below(vec!["/x".into()]), unmounted: BTreeMap::new(), settled: settled() };
        assert_eq!(nothing.to_string(), "nothing was mounted at or below /x");
    }
}
