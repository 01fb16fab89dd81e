//! The `pith` binary: hands over to the library, so that tests can too.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// Compiling policies leaves hundreds of megabytes free in many small pieces, which glibc keeps; and a request is thousands of
/// small allocations.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    pith::main(pith::args::Args::parse())
}
