//! Quotas, which the client sets by a command only.

use super::JuiceFsError;
use super::dav::Path;
use super::source::FileSystem;
use super::worker::Workers;

impl Workers {
    /// Limits the space of a directory to so many GiB; 0 lifts the limit. It goes with the directory where that is moved, and ends
    /// with it.
    pub async fn set_quota(&self, file_system: &FileSystem, directory: &Path, gib: u64) -> Result<(), JuiceFsError> {
        let (path, capacity) = (directory.to_string(), gib.to_string());
        let url = file_system.meta_url();
        let arguments = ["--no-agent", "quota", "set", url, "--path", &path, "--capacity", &capacity];
        self.run(file_system, &arguments).await.map_err(|error| match error {
            JuiceFsError::Unavailable(sentence) if sentence.contains("no such file or directory") => {
                JuiceFsError::Refused(format!("the directory {path}, which is to get a quota, does not exist"))
            }
            other => other,
        })
    }
}
