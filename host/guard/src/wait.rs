//! Waiting for clients, before the application's containers are started.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::hold::is_dead;
use crate::{mountinfo, named};

/// How long clients are waited for, unless more is said. The kubelet does nothing else for the pod meanwhile: it does not even start
/// a client again that ended.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked.
const PERIOD: Duration = Duration::from_millis(100);

/// Waits until a client serves each of these paths, and says whether one does. That none does is no failure: the kubelet would end
/// the guard for it and start the application all the same.
pub(crate) fn for_clients(paths: &[PathBuf], patience: Duration) -> String {
    let begun = Instant::now();
    loop {
        let mounts = mountinfo::read().unwrap_or_default();
        let served = |path: &PathBuf| mountinfo::top(&mounts, path).is_some_and(|it| !it.stand_in) && !is_dead(path);
        let absent: Vec<PathBuf> = paths.iter().filter(|path| !served(path)).cloned().collect();
        if absent.is_empty() {
            return format!("mounted: {}", named(paths));
        }
        if begun.elapsed() >= patience {
            return format!("no client has mounted {} within {} s", named(&absent), patience.as_secs());
        }
        sleep(PERIOD);
    }
}
