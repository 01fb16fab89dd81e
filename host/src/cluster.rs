//! Where the Kubernetes objects that decisions read come from: a folder of YAML, or the API server of a cluster.
//!
//! Whatever the source, requests see the snapshots of a [`Mirror`]. Only what decisions use is kept, and Secrets are neither asked
//! for nor read.

mod mirror;
mod feed;
mod watch;
mod live;
mod api;
mod convert;
mod folder;

pub(crate) use api::cause;
pub use api::connect;
pub use convert::object;
pub use folder::{documents, load};
pub use live::{Live, Unanswered};
pub use mirror::Mirror;
pub(crate) use watch::events;
pub use watch::follow;
