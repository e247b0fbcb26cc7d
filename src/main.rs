//! Parses the command line and calls one subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    sloop::cli::main(std::env::args_os())
}
