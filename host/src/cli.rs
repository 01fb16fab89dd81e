//! The offline commands. Results go to standard output, everything else to standard error.
#![expect(clippy::print_stderr, reason = "notes and errors are for people")]

use std::io::{ErrorKind, Write};

pub mod check;
pub mod config;
pub mod csi;
pub mod inject;
pub mod policy;
pub mod reasons;
mod subjects;
pub mod volumes;

/// Prints a result. A reader that has seen enough (`| head`) is no error, and ends the command.
pub fn print(text: &str) -> std::io::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Prints an error with its causes, one a line.
pub fn report(error: &anyhow::Error) {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}
