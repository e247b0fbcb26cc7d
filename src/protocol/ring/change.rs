//! A change from one layout to the next, in three marks (DESIGN section 7).
//!
//! ```text
//!            pending known    all write it          all hold it         all read it
//!   stored ──────────────▶ Write ─────────▶ Hold ──────────▶ Read ──────────▶ the pending one is the stored one
//!   reads     stored         stored           stored             pending
//!   writes    stored         both             both               both
//! ```
//! A member goes on to a step only when it knows that all have reached the one before: every node of either layout but
//! those that the change removes.

use std::sync::Arc;

use super::Layout;

/// What a member does about a pending layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Writes need their W in the owners of both layouts. Reached once no request begun before is unfinished.
    Write,
    /// Every partition that this node gains, or keeps with fewer others, is fetched from, and compared with, every
    /// owner in the stored layout that the change does not remove. Reached once that is done.
    Hold,
    /// Reads go by the pending layout. Reached once no read begun before is unfinished.
    Read,
}

/// A change under way, as a node takes part in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The stored layout.
    pub stored: Arc<Layout>,
    /// The pending one.
    pub pending: Arc<Layout>,
    /// What this node does now.
    pub step: Step,
}
