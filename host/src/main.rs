//! The `pith` binary: hands over to the library, so that tests can too.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    pith::main(pith::args::Args::parse())
}
