//! Traps: executes `unreachable`. Fails as a trap, in every hook.

pith_guests::guest!({ pith_guests::trap() });
