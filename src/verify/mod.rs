//! JUDGES. A history of operations against the promises of DESIGN section 1; pure, shared by the tests and one day by
//! the laboratory.
//!
//! What is judged is what clients were told by one node or several, whose processes may be killed at any moment: every
//! acknowledged write is there or was replaced by one that was allowed to replace it, what is gone stays gone, and
//! nothing is there that nobody wrote.

pub mod history;
pub mod judge;

pub use history::{Action, Event, History, Name, Outcome, Replaces, Shown};
pub use judge::{Violation, judge};
