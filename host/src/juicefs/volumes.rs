//! Volumes: what can be asked of them, and what can come of it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;

use pith_core::volume::{Asked, ClaimName, Difference, Record, SizeProblem, VolumeRefusal};

/// What the controller asks. Secrets travel beside the question and are never stored.
///
/// A call that was begun may be dropped by nobody: whoever asks waits for the answer in a task of its own.
pub trait Volumes: Send + Sync + 'static {
    /// Makes the volume, or finds it as it was made.
    fn create(&self, request: CreateRequest) -> impl Future<Output = Result<Record, VolumeError>> + Send;

    /// Removes the volume. One that is not there is removed.
    fn delete(&self, id: &str, secrets: Secrets) -> impl Future<Output = Result<(), VolumeError>> + Send;

    /// Gives the volume at least `required` and at most `limit` bytes. The answer is what it has then.
    fn expand(
        &self,
        id: &str,
        required: Option<u64>,
        limit: Option<u64>,
        secrets: Secrets,
    ) -> impl Future<Output = Result<u64, VolumeError>> + Send;

    /// The volume as it is now, if it is there.
    fn find(&self, id: &str, secrets: Secrets) -> impl Future<Output = Result<Option<Record>, VolumeError>> + Send;
}

/// What CreateVolume asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRequest {
    /// What is kept in the record.
    pub asked: Asked,
    /// The claim that it is for, where the caller says it.
    pub claim: Option<ClaimName>,
    /// What opens the file system.
    pub secrets: Secrets,
}

/// The content of a Secret. What it prints is the names of its keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// The content, for the one place that reads it.
    pub fn reveal(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl From<BTreeMap<String, String>> for Secrets {
    fn from(content: BTreeMap<String, String>) -> Secrets {
        Secrets(content)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets ")?;
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Why a call did not do what was asked. The sentence reaches the claim's events: it names no secret.
///
/// What tells them apart is whether something may have been written. Where nothing was, the answer is final: the caller stops
/// once the claim is gone. Where something may exist ([`Aborted`](VolumeError::Aborted) and
/// [`Unavailable`](VolumeError::Unavailable)), it must go on asking, or the volume is left behind.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The volume was made before, of something else.
    #[error(transparent)]
    AlreadyExists(#[from] Difference),
    /// It is not to be made, and nothing was written.
    #[error(transparent)]
    Refused(#[from] VolumeRefusal),
    /// It does not exist.
    #[error("there is no volume `{0}`")]
    NotFound(String),
    /// What the request says cannot be used, whatever the state of things.
    #[error("{0}")]
    InvalidArgument(String),
    /// The size cannot be given.
    #[error(transparent)]
    OutOfRange(#[from] SizeProblem),
    /// Somebody has to change something first. Nothing was written.
    #[error("{0}")]
    FailedPrecondition(String),
    /// Another call is at it, here or in another replica; something may exist.
    #[error("{0}")]
    Aborted(String),
    /// The file system did not answer; something may exist.
    #[error("{0}")]
    Unavailable(String),
    /// A defect, or a file system in a state that nothing here leaves behind.
    #[error("{0}")]
    Internal(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_print_the_names_of_their_keys_only() {
        let secrets = Secrets::from(BTreeMap::from([("metaurl".to_string(), "redis://:canary@host".to_string())]));
        assert_eq!(format!("{secrets:?}"), r#"Secrets {"metaurl"}"#);
        assert!(!format!("{secrets:#?}").contains("canary"));
    }
}
