//! The decisions of Pith, as functions from values to values.
//!
//! ```text
//!   Pod JSON ─ pod ─┐
//!   objects ────────┼─ admission::decide ─ exemption ─ settings ─ ceiling ─ sidecar ─ patch ─ Decision
//!   bindings ───────┘                         └─ binding::Evaluate (the one arrow out, into WebAssembly)
//!
//!   CreateVolume ── volume ─ place (binding::Evaluate again) ─ Record ─ conflict
//!
//!   objects ─ claim_secret ─ which claims have a Secret, and what of        pod's status ── completion ─ over or not
//!   shared certificate ── rotation ─ Step        webhook's configuration ── registration ─ difference
//!   everything that can be read of a cluster ── check (admission::decide again) ─ findings
//! ```
//!
//! Nothing here does IO, reads a clock, draws a random number or logs: the dependency list and `clippy.toml` are the guard.
//! What a decision needs from outside comes in as an argument; what happened on the way comes out as a value.

#![forbid(unsafe_code)]

pub mod json;
pub mod text;
pub mod object;
pub mod template;
pub mod file_system;
pub mod selector;
pub mod lookup;
pub mod pod;
pub mod workload;
pub mod condition;
pub mod binding;
pub mod breaker;
pub mod budget;
pub mod latency;
pub mod monitor;
pub mod comparison;
pub mod catalogue;
pub mod policy;
pub mod reason;
pub mod secret_finalizer;
pub mod secret_key;
pub mod cache;
pub mod shape;
pub mod mount_pod_patch;
pub mod settings;
pub mod sidecar;
pub mod status;
pub mod completion;
pub mod patch;
pub mod admission;
pub mod volume;
pub mod claim_secret;
pub mod mount_pod;
pub mod validation;
pub mod rotation;
pub mod registration;
pub mod check;
#[cfg(test)]
mod testing;

pub use pith_proto::quantity::Quantity;
