//! `sloop serve`: a node until it is told to stop.

use super::config::Config;
use super::{Failed, Said, logs};

/// Runs a node.
///
/// # Errors
/// Why it could not start.
pub fn run(config: Config) -> Result<Said, Failed> {
    logs::start(&config);
    Err(Failed::refused("this build has no node yet"))
}
