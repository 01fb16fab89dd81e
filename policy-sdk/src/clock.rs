//! What time it is.

/// Milliseconds since the Unix epoch when the decision began. It stands still while a policy runs, and is the same for every policy
/// that the decision asks.
///
/// A policy that calls this imports `pith:policy/clock`, and its binding must grant it (`grants: [clock]`). One that does not call it
/// does not import it.
///
/// # Panics
///
/// In a native test, where [`testing::set_now`](crate::testing::set_now) has not been called on this thread.
pub fn now() -> u64 {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::imports::pith::policy::clock::now();
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::current_now()
        .expect("the test says what time it is, with `testing::set_now` or the `now` of a case")
}
