//! Clusters of real processes under faults, with the judge.

pub mod links;
pub mod place;
pub mod proxy;
pub mod crowd;
mod worker;

use std::time::Instant;

pub use self::worker::Tally;

#[expect(clippy::disallowed_methods, reason = "real processes live in real time")]
fn now() -> Instant {
    Instant::now()
}
