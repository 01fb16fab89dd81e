//! Counts its calls in its memory and says the number. It is always 1: nothing outlives a call.

use std::sync::atomic::{AtomicU32, Ordering};

static CALLS: AtomicU32 = AtomicU32::new(0);

pith_guests::guest!({ pith_guests::says((CALLS.fetch_add(1, Ordering::Relaxed) + 1).to_string()) });
