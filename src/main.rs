//! The `metrolith` program: see `metrolith --help`.

use std::process::ExitCode;

// Memory is a promise: jemalloc gives pages back in the background and counts what is allocated.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    metrolith::cli::run()
}
