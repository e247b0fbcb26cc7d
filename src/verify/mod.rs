//! JUDGES. A history of operations against the promises of DESIGN section 1; pure, shared by the tests, the laboratory
//! and the command line.
//!
//! What is judged is what clients were told by one node or several, whose processes may be killed at any moment: every
//! acknowledged write is there or was replaced by one that was allowed to replace it, what is gone stays gone, and
//! nothing is there that nobody wrote.
//!
//! There are two judges. That of [`cluster`]s takes every history. That of one node ([`judge`](mod@judge)) says more,
//! since a write of one node is there for every reader or for none.

pub mod history;
pub mod judge;
pub mod cluster;
#[cfg(feature = "lab")]
pub mod file;

pub use history::{Action, Asked, Event, History, Level, Misrecorded, Moment, Name, Outcome, Replaces, Shown};
pub use judge::{Violation, judge};
