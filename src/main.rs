//! Parses the command line and calls one subcommand.

use std::process::ExitCode;

/// What a chunk frees on the store thread was allocated on a core, entry by entry: glibc's arenas pay for that with
/// locks and scattered memory (docs/RESULTS.md, the profile).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sloop::cli::main(std::env::args_os())
}
