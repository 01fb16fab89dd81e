//! Where the Kubernetes objects that decisions read come from.
//!
//! So far a folder of YAML; watches of an API server will fill the same [`pith_core::object::Objects`]. Only what decisions use
//! is kept, and Secrets are dropped unread.

mod convert;
mod folder;

pub use convert::object;
pub use folder::{documents, load};
