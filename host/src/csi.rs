//! The Container Storage Interface: a gRPC server on a Unix socket, in front of [`Volumes`].
//!
//! ```text
//!   socket ─ server ─ identity │ controller │ node ─ call ─ convert ─ in_flight ─ Volumes ─ convert ─ answer
//! ```
//!
//! `proto` is known to `convert`, to the three services that hand a request to it, and to the client in `cli/csi.rs`.

pub mod server;
mod identity;
mod controller;
mod node;
mod call;
mod convert;
mod in_flight;

use std::sync::Arc;

use crate::metrics::Metrics;
use crate::provisioner::Volumes;

pub(crate) use call::code_name;

/// What the server needs.
#[derive(Debug)]
pub struct Csi<V: Volumes> {
    /// The driver's name, as in `spec.csi.driver` of a PersistentVolume.
    pub driver: String,
    /// The id of this node.
    pub node_id: String,
    /// The volumes.
    pub volumes: Arc<V>,
    /// The most volumes that calls are at, at once.
    pub max_calls: usize,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// Made from `proto/csi/csi.proto` by `build.rs`. Nothing in it can be printed: a request carries secrets.
pub mod proto {
    #![expect(clippy::allow_attributes_without_reason, reason = "the generator has a style of its own")]
    tonic::include_proto!("csi.v1");
}

#[cfg(test)]
pub(crate) mod tests;
