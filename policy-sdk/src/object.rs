//! The raw object under decision.

/// The JSON text of the Pod (hooks `exempt` and `sidecar`) or of the PersistentVolumeClaim (hook `name`).
///
/// A policy that calls this imports `pith:policy/object`, and its binding must grant it (`grants: [object]`). One that
/// does not call it does not import it. Each call costs the host the time to write the object out.
///
/// In a native test it is what [`testing::set_object`](crate::testing::set_object) said on this thread.
#[cfg(target_arch = "wasm32")]
pub fn object() -> String {
    crate::bindings::imports::pith::policy::object::json()
}

/// The JSON text of the Pod (hooks `exempt` and `sidecar`) or of the PersistentVolumeClaim (hook `name`).
///
/// A policy that calls this imports `pith:policy/object`, and its binding must grant it (`grants: [object]`). One that
/// does not call it does not import it. Each call costs the host the time to write the object out.
///
/// # Panics
///
/// In a native test, where [`testing::set_object`](crate::testing::set_object) has not been called on this thread.
#[cfg(not(target_arch = "wasm32"))]
pub fn object() -> String {
    crate::testing::current_object().expect("the test says which object is under decision, with `testing::set_object`")
}
