use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request is made on one thread, waits for the writer of the database among a thousand others,
/// and ends on another thread: what it allocates is freed out of order and elsewhere, which costs
/// the C library's allocator more than the rest of the waiting.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    desktop_images::cli::run(std::env::args_os())
}
