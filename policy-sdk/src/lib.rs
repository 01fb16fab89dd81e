//! What the author of a Pith policy in Rust imports.
//!
//! A policy is a settings struct with one function for each hook; `#[policy]` adds what makes it a WebAssembly module:
//!
//! ```
//! use pith_policy_sdk::prelude::*;
//!
//! #[derive(Deserialize, Default)]
//! #[serde(deny_unknown_fields, default)]
//! struct Settings {
//!     kinds: Vec<String>,
//! }
//!
//! #[policy]
//! impl Settings {
//!     fn exempt(&self, pod: &Pod, _: &Namespace, _: &[Volume]) -> Result<Exemption, Problem> {
//!         Ok(match pod.owners.iter().find(|owner| self.kinds.contains(&owner.kind)) {
//!             Some(owner) => Exemption::Skip(format!("{} pods use no JuiceFS", owner.kind)),
//!             None => Exemption::Inject,
//!         })
//!     }
//! }
//! ```
//!
//! The functions stay ordinary Rust functions, so `cargo test` runs them natively. Whatever binds them to the host exists
//! in wasm only: several policies can be linked into one native program without their symbols meeting.
//!
//! The SDK reads no file and no environment, and a policy has none: what it may know is in its arguments, and behind what its
//! binding grants ([`object()`], [`clock`], [`lookup`]).

// The code that `#[policy]` makes names this crate by its public name, and the tests in here use it too.
extern crate self as pith_policy_sdk;

mod amount;
#[doc(hidden)]
#[allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "made by wit-bindgen"
)]
pub mod bindings;
#[cfg(not(target_arch = "wasm32"))]
pub mod cases;
mod change;
pub mod clock;
mod entries;
#[doc(hidden)]
pub mod glue;
#[cfg(all(feature = "heap", target_arch = "wasm32"))]
#[allow(unsafe_code, reason = "an allocator is unsafe by nature")]
mod heap;
pub mod log;
pub mod lookup;
mod object;
mod origin;
pub mod prelude;
mod problem;
mod settings;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use amount::Amount;
pub use bindings::exemption::exports::pith::policy::exemption::Verdict as Exemption;
pub use bindings::naming::exports::pith::policy::naming::{Directory, Request as NamingRequest, Verdict as Naming};
pub use bindings::quota::exports::pith::policy::quota::{Request as QuotaRequest, Verdict as Quota};
pub use bindings::settings::exports::pith::policy::settings::Problem as SettingsProblem;
pub use bindings::sidecar::exports::pith::policy::sidecar::{Cache, Change, EmptyDir, OptionChange, Sidecar};
pub use bindings::types::{AccessMode, Claim, Namespace, Owner, Pod, Volume};
pub use entries::Entries;
pub use object::object;
pub use origin::{Origin, OriginKind, origin};
pub use pith_policy_sdk_macros::policy;
pub use pith_proto::Quantity;
pub use problem::Problem;
