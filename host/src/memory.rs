//! What the allocator holds.

/// Gives the system what was taken for a while and is free again. The allocator would otherwise keep it until it happens to look.
#[expect(unsafe_code, reason = "a function in C that takes no pointer")]
pub(crate) fn give_back() {
    // SAFETY: it may be called at any time; where another allocator is in use, as in tests, it finds nothing.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
