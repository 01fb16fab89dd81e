//! Waiting for mounts, before the kubelet starts the next container.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::hold::is_dead;
use crate::{mountinfo, named};

/// How long mounts are waited for, unless more is said. The kubelet does nothing else for the pod meanwhile.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked.
const PERIOD: Duration = Duration::from_millis(50);

/// What is to be waited for.
#[derive(Debug, PartialEq)]
pub(crate) struct Wait {
    /// Where something is to be mounted.
    pub(crate) paths: Vec<PathBuf>,
    /// Whether a stand-in is enough; else a client must serve each path.
    pub(crate) cover: bool,
    /// For how long at most.
    pub(crate) patience: Duration,
}

impl Wait {
    /// Waits, and says what came of it. That nothing came is no failure: for one the kubelet would kill the container whose hook this
    /// is, and start the next all the same.
    pub(crate) fn until_mounted(self) -> String {
        let begun = Instant::now();
        loop {
            let mounts = mountinfo::read().unwrap_or_default();
            let is_there = |path: &PathBuf| match mountinfo::top(&mounts, path) {
                Some(mount) => self.cover || !mount.stand_in && !is_dead(path),
                None => false,
            };
            let absent: Vec<PathBuf> = self.paths.iter().filter(|path| !is_there(path)).cloned().collect();
            if absent.is_empty() {
                return format!("mounted: {}", named(&self.paths));
            }
            if begun.elapsed() >= self.patience {
                return format!("nothing was mounted at {} within {} s", named(&absent), self.patience.as_secs());
            }
            sleep(PERIOD);
        }
    }
}
