//! The promises, a file each. Each invariant is told of everything that happens, and says what is wrong with it.
//!
//! | invariant | promise | source |
//! |---|---|---|
//! | durability | what was acknowledged is durable on W nodes, and is there or replaced in the end | DESIGN 1.1 |
//! | hints | a hint that counted towards W goes only once its target has what it owed | DESIGN 1.1, 6 |
//! | restart | a start finds all that was durable, and of the rest a first part | DESIGN 8 |
//! | superseded | whatever goes was replaced by a write that names it | DESIGN 1.2 |
//! | resurrection | what was replaced or forgotten is neither read nor held again | DESIGN 1.3 |
//! | one_dot | a dot names one version for ever, and a client asked for it, once | DESIGN 5 |
//! | reading | who reads R sees what W owners acknowledged, where R + W > N | DESIGN 6 |
//! | retry | a retry of an acknowledged write is that write | DESIGN 6 |
//! | convergence | in the end owners hold the same, and nobody else holds or owes anything | DESIGN 1.4 |
//! | trees | a node's trees are those of its durable sets | DESIGN 9 |
//! | deadline | every request is answered by its deadline and two ticks | DESIGN 1.5 |
//! | availability | enough owners that are well are enough | DESIGN 1.6 |
//! | placement | N distinct owners, in distinct zones, evenly | DESIGN 7 |
//! | bounds | tables and queues are bounded, a request makes one hop | DESIGN 4, 6 |
//!
//! Beside them `run` holds that all comes to rest once faults have ended (liveness).

mod durability;
mod hints;
mod restart;
mod superseded;
mod resurrection;
mod one_dot;
mod reading;
mod retry;
mod convergence;
mod trees;
mod deadline;
mod availability;
mod placement;
mod bounds;
#[cfg(test)]
mod made_up;

use super::shape::Shape;
use super::truth::Truth;
use super::watch::{Seen, Verdict};
use crate::protocol::types::Instant;

/// A promise, and whoever holds it against what happens.
pub(super) trait Invariant {
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
pub(super) fn all(shape: &Shape) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(durability::Durability),
        Box::new(hints::Hints::default()),
        Box::new(restart::Restart::default()),
        Box::new(superseded::Superseded::new(shape)),
        Box::new(resurrection::Resurrection),
        Box::new(one_dot::OneDot::default()),
        Box::new(reading::Reading::new(shape)),
        Box::new(retry::Retry::default()),
        Box::new(convergence::Convergence),
        Box::new(trees::Trees::default()),
        Box::new(deadline::Deadline),
        Box::new(availability::Availability),
        Box::new(placement::Placement::default()),
        Box::new(bounds::Bounds::new(shape)),
    ]
}
