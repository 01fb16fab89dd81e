//! Where the Kubernetes objects that decisions read come from: a folder of YAML, or the API server of a cluster.
//!
//! Whatever the source, requests see the snapshots of a [`Mirror`]. Only what decisions use is kept, and nothing of a Secret is:
//! the one with Pith's own certificate is read by `tls`, and those of file systems by whoever asks for one by its name.

mod mirror;
mod feed;
mod watch;
mod one;
mod pauses;
mod live;
mod look;
mod secret;
pub(crate) mod event;
mod api;
mod convert;
mod folder;

pub(crate) use api::cause;
pub use api::connect;
pub(crate) use api::connect_as_kubectl;
pub use convert::{file_systems, object};
pub use folder::{documents, load};
pub use live::{Live, Unanswered};
pub(crate) use look::Look;
pub use mirror::Mirror;
pub(crate) use one::object_by_name;
pub(crate) use pauses::Pauses;
pub(crate) use secret::{docker_config, in_time, secret, secret_in, secret_name_in};
pub(crate) use watch::events;
pub use watch::follow;
