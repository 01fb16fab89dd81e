//! What the volume under decision starts with.

pub use crate::bindings::imports::pith::policy::origin::{Kind as OriginKind, Origin};

/// The volume or the snapshot that a new volume is a copy of, for the hooks `name` and `quota`; absent where it starts empty, and for
/// other hooks. No grant is needed.
///
/// In a native test it is what [`testing::set_origin`](crate::testing::set_origin) said on this thread.
pub fn origin() -> Option<Origin> {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::imports::pith::policy::origin::starts_with();
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::current_origin()
}
