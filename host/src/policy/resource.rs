//! PolicyBindings: bindings that lie in the API server, beside those of the configuration.
//!
//! ```text
//!   API server ── watch ──► Resources ──► reload ──► Policies ──► report ──► an entry in the status, of this replica
//!                                                                   └── lease ──► sum, and module, by one of the replicas
//! ```

mod definition;
mod lease;
mod module;
mod report;
mod status;
mod watch;

pub use definition::custom_resource_definitions;
pub use report::Reporter;
pub(super) use status::{HookReport, LastFailure, LastGood, Module, Replica, Shadowed};
pub(super) use watch::Object;
pub use watch::Resources;

use kube::core::{ApiResource, GroupVersionKind};

/// What the API server calls PolicyBindings.
fn api_resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("pith.dev", "v1alpha1", "PolicyBinding"), "policybindings")
}
