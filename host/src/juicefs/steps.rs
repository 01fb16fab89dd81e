//! The named steps between two writes, at which a test can kill the process.
//!
//! In a release build there is nothing to choose, and a step costs nothing.

/// The steps of calls, in the order of CreateVolume and then DeleteVolume; "resized" is the expansion's. The record is staged and written
/// while the index is begun.
pub const STEPS: [&str; 13] = [
    "record-staged",
    "record-written",
    "index-begun",
    "record-moved",
    "index-made",
    "directory-made",
    "quota-set",
    "made-marked",
    "trash-made",
    "data-moved",
    "index-moved",
    "volume-gone",
    "resized",
];

/// The steps of a change of anything but the size.
pub const MODIFY_STEPS: [&str; 2] = ["quota-set", "modified"];

/// The steps of a clone, for a volume that starts with something and for a snapshot, before their other ones.
pub const CLONE_STEPS: [&str; 3] = ["cloned", "clone-marked", "clone-placed"];

/// The steps of a purge.
pub const PURGE_STEPS: [&str; 3] = ["purge-claimed", "data-purged", "record-withdrawn"];

/// The steps of bringing a volume back from the trash.
pub const RESTORE_STEPS: [&str; 6] =
    ["restore-claimed", "record-returned", "index-returned", "data-returned", "trash-cleared", "restored"];

fn is_step(step: &str) -> bool {
    [&STEPS[..], &MODIFY_STEPS, &CLONE_STEPS, &PURGE_STEPS, &RESTORE_STEPS].iter().any(|steps| steps.contains(&step))
}

/// Where to die, if anywhere.
#[derive(Debug, Clone, Default)]
pub struct Steps {
    #[cfg(debug_assertions)]
    die_at: Option<String>,
}

impl Steps {
    /// Kills the process the first time that it reaches this step.
    #[cfg(debug_assertions)]
    pub fn die_at(step: &str) -> anyhow::Result<Steps> {
        anyhow::ensure!(is_step(step), "`{step}` is no step");
        Ok(Steps { die_at: Some(step.to_string()) })
    }

    /// A step was reached: what was written before it is written, and nothing after it is.
    #[cfg_attr(not(debug_assertions), expect(clippy::unused_self, reason = "there is nothing to look at in a release"))]
    pub(crate) fn reached(&self, step: &'static str) {
        debug_assert!(is_step(step), "`{step}` is in a list");
        #[cfg(debug_assertions)]
        if self.die_at.as_deref() == Some(step) {
            // As hard as it gets: nothing is finished, flushed or told.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}
