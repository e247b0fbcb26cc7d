//! How much each core holds, for the control thread to show. Plain atomics, written by their core alone, and a tick old
//! at most.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::types::CoreId;

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Holding {
    /// Keys; what stands beside them in the store is counted with them.
    pub keys: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Hints that wait for their targets.
    pub hints: u64,
}

impl Holding {
    /// Both together.
    pub fn plus(self, other: Holding) -> Holding {
        Holding { keys: self.keys + other.keys, bytes: self.bytes + other.bytes, hints: self.hints + other.hints }
    }
}

/// What all cores of a node hold in memory that the tree does not have yet, and their hints.
#[derive(Debug)]
pub struct Holdings(Box<[Shown]>);

#[derive(Debug, Default)]
struct Shown {
    keys: AtomicU64,
    bytes: AtomicU64,
    hints: AtomicU64,
}

impl Holdings {
    /// Nothing yet.
    pub fn new(cores: u16) -> Holdings {
        Holdings((0..cores).map(|_| Shown::default()).collect())
    }

    /// The core holds this much now.
    pub fn show(&self, core: CoreId, holding: Holding) {
        let shown = &self.0[core.index()];
        shown.keys.store(holding.keys, Ordering::Relaxed);
        shown.bytes.store(holding.bytes, Ordering::Relaxed);
        shown.hints.store(holding.hints, Ordering::Relaxed);
    }

    /// Of all cores.
    pub fn sum(&self) -> Holding {
        let read = |shown: &Shown| Holding {
            keys: shown.keys.load(Ordering::Relaxed),
            bytes: shown.bytes.load(Ordering::Relaxed),
            hints: shown.hints.load(Ordering::Relaxed),
        };
        self.0.iter().map(read).fold(Holding::default(), Holding::plus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_core_shows_anew_replaces_what_it_showed() {
        let holdings = Holdings::new(2);
        assert_eq!(holdings.sum(), Holding::default());
        holdings.show(CoreId(0), Holding { keys: 1, bytes: 100, hints: 7 });
        holdings.show(CoreId(1), Holding { keys: 2, bytes: 200, hints: 0 });
        holdings.show(CoreId(0), Holding { keys: 3, bytes: 300, hints: 0 });
        assert_eq!(holdings.sum(), Holding { keys: 5, bytes: 500, hints: 0 });
    }
}
