//! The promises, a file each. Each invariant is told of everything that happens, and says what is wrong with it.
//!
//! | invariant | promise | source |
//! |---|---|---|
//! | durability | what was acknowledged is durable on W nodes, and is there or replaced in the end | DESIGN 1.1 |
//! | reading | who reads R sees what W owners acknowledged, where R + W > N | DESIGN 6 |
//! | one_dot | a dot names one version for ever, and a client asked for it | DESIGN 5 |

mod durability;
mod one_dot;
mod reading;

use super::shape::Shape;
use super::truth::Truth;
use super::watch::{Seen, Verdict};
use crate::protocol::types::Instant;

/// A promise, and whoever holds it against what happens.
pub trait Invariant {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// Where it is promised.
    fn source(&self) -> &'static str;

    /// Something was seen.
    ///
    /// # Errors
    /// When the promise is broken.
    fn see(&mut self, truth: &Truth, now: Instant, seen: &Seen<'_>) -> Verdict;
}

/// All of them.
pub fn all(shape: &Shape) -> Vec<Box<dyn Invariant>> {
    vec![Box::new(durability::Durability), Box::new(reading::Reading::new(shape)), Box::new(one_dot::OneDot)]
}
