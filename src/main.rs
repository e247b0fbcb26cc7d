//! Parses the command line and calls one subcommand.

fn main() {}
