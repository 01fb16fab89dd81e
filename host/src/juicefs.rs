//! Everything that speaks to the real JuiceFS client.
//!
//! ```text
//! Secret ─ source::FileSystem ─ worker::Workers ─┬─ one supervised `juicefs webdav` process per file system ─ dav::Worker
//!                                                ├─ short commands: `juicefs format` or `auth`, `juicefs quota`
//!                                                └─ a client for each clone, over a socket: fuse ─ clone
//! ```
//!
//! What is here knows directories, files and processes of the client, and nothing of volumes. No error and no line of the log
//! holds a secret or the address of a metadata engine.

pub mod source;
mod enterprise;
pub mod pod_source;
pub mod worker;
pub mod dav;
pub mod quota;
pub mod record_key;
pub mod steps;
pub mod store;
mod process;
mod complaint;
mod redact;
mod fuse;
mod clone;

pub use clone::{CloneError, Progress};
pub use dav::{Depth, Entry, Kind, Made, Moved, Path, PathError, Removal, Worker};
pub use pod_source::PodSource;
pub use source::{FileSystem, FileSystemKey, SourceError};
pub use worker::{WorkerOptions, Workers};

/// Why something was not done, for people. Callers treat the kinds differently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JuiceFsError {
    /// The client, the metadata engine or the storage did not answer. What was asked may have happened, or happen yet: ask again
    /// for the same.
    #[error("{0}")]
    Unavailable(String),
    /// There is no file system at that metadata engine, and the Secret does not say how to make one.
    #[error("{0}")]
    NotFormatted(String),
    /// Nothing here can speak to a file system of that edition.
    #[error("{0}")]
    NoClient(String),
    /// Nothing was done, and asking again would not change it: a directory that is missing, a file that is in the way.
    #[error("{0}")]
    Refused(String),
}

/// A lock whose data no panic can leave half changed.
fn locked<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
