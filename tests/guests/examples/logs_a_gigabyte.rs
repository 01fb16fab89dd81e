//! Logs 1024 lines of 1 MiB. Uses up the bytes that it may hand to the host, in every hook.

use pith_guests::pith::policy::log::{Level, log};

pith_guests::guest!({
    let line = "x".repeat(1 << 20);
    for _ in 0..1024 {
        log(Level::Info, &line);
    }
    pith_guests::FINE
});
