//! Logs 5000 short lines. Is answered for, and the host keeps the first lines and the number of the rest.

use pith_guests::pith::policy::log::{Level, log};

pith_guests::guest!({
    for number in 0..5000 {
        log(Level::Info, &format!("line {number}\nof 5000"));
    }
    pith_guests::FINE
});
