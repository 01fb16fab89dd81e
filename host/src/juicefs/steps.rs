//! The named steps between two writes, at which a test can kill the process.
//!
//! In a release build there is nothing to choose, and a step costs nothing.

/// Every step, in the order of CreateVolume and then DeleteVolume; "resized" is the expansion's. The record is staged and written
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
        anyhow::ensure!(STEPS.contains(&step), "`{step}` is no step; the steps are {}", STEPS.join(", "));
        Ok(Steps { die_at: Some(step.to_string()) })
    }

    /// A step was reached: what was written before it is written, and nothing after it is.
    #[cfg_attr(not(debug_assertions), expect(clippy::unused_self, reason = "there is nothing to look at in a release"))]
    pub(crate) fn reached(&self, step: &'static str) {
        debug_assert!(STEPS.contains(&step), "`{step}` is in the list");
        #[cfg(debug_assertions)]
        if self.die_at.as_deref() == Some(step) {
            // As hard as it gets: nothing is finished, flushed or told.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}
