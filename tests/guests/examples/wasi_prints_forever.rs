//! Prints without end, with and without ends of lines. Is cut at its deadline, and the log stays in its budget.

use std::io::Write;

pith_guests::guest!({
    let mut out = std::io::stdout();
    loop {
        // A closed pipe is no reason to stop.
        let _ = out.write_all(b"a line\nand a part of one ");
    }
});
