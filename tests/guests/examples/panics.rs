//! Panics, which in WebAssembly is a trap. Fails as a trap, in every hook.

pith_guests::guest!({ panic!("as a policy does that unwraps too much") });
