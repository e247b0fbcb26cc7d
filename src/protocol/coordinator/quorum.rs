//! A quorum as a pure count, with three answers: enough, impossible, wait (after Riak's `put_core`).

use crate::protocol::message::{Failure, Level};
use crate::protocol::ring::{Layout, Wanted};

/// Copies of a key and the quorums that hold where a request names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    /// Owners of a key.
    pub n: u8,
    /// Owners that a read waits for.
    pub r: u8,
    /// Owners that a write waits for.
    pub w: u8,
}

impl Copies {
    /// What a layout keeps: what it was founded with, and with fewer nodes than N as many copies as nodes and
    /// majorities of them.
    pub fn of(layout: &Layout) -> Copies {
        let Wanted { n, r, w } = layout.wanted();
        match u8::try_from(layout.copies()) {
            Ok(copies) if copies < n => Copies { n: copies, r: copies / 2 + 1, w: copies / 2 + 1 },
            _ => Copies { n, r, w },
        }
    }

    /// The count of a read that asks for `quorum` owners, 0 for the default.
    ///
    /// # Errors
    /// [`Failure::QuorumImpossible`] when there are fewer copies than asked for.
    pub fn read(self, quorum: u8) -> Result<Quorum, Failure> {
        self.count(quorum, self.r)
    }

    /// The count of a write that asks for `quorum` owners, 0 for the default.
    ///
    /// # Errors
    /// [`Failure::QuorumImpossible`] when there are fewer copies than asked for.
    pub fn write(self, quorum: u8) -> Result<Quorum, Failure> {
        self.count(quorum, self.w)
    }

    /// The count of a write that asks for `quorum` owners, or for all where there are fewer; 0 for the default.
    pub fn write_at_most(self, quorum: u8) -> Quorum {
        Quorum::new(self.n, if quorum == 0 { self.w } else { quorum.min(self.n) })
    }

    /// The count of a read that asks for `quorum` owners, or for all where there are fewer; 0 for the default.
    pub fn read_at_most(self, quorum: u8) -> Quorum {
        Quorum::new(self.n, if quorum == 0 { self.r } else { quorum.min(self.n) })
    }

    fn count(self, asked: u8, default: u8) -> Result<Quorum, Failure> {
        match asked {
            _ if asked > self.n => Err(Failure::QuorumImpossible { asked, copies: self.n }),
            0 => Ok(Quorum::new(self.n, default)),
            _ => Ok(Quorum::new(self.n, asked)),
        }
    }
}

/// Answers of distinct nodes, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Quorum {
    n: u8,
    needed: u8,
    owners: u8,
    fallbacks: u8,
    failed: u8,
}

/// What a count says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer now.
    Enough,
    /// Too few can still answer: fail now.
    Impossible,
    /// Neither yet.
    Wait,
}

impl Quorum {
    fn new(n: u8, needed: u8) -> Quorum {
        Quorum { n, needed, owners: 0, fallbacks: 0, failed: 0 }
    }

    /// Answers that are needed.
    pub fn needed(self) -> u8 {
        self.needed
    }

    /// Copies that there are.
    pub fn copies(self) -> u8 {
        self.n
    }

    /// One more owner has done it.
    pub fn on_owner(&mut self) {
        self.owners += 1;
    }

    /// One more fallback has, in an owner's place.
    pub fn on_fallback(&mut self) {
        self.fallbacks += 1;
    }

    /// One owner can no longer do it, and nobody in its place.
    pub fn on_failed(&mut self) {
        self.failed += 1;
    }

    /// Enough, impossible or wait.
    pub fn verdict(self) -> Verdict {
        match () {
            () if self.got() >= self.needed => Verdict::Enough,
            () if self.n.saturating_sub(self.failed) < self.needed => Verdict::Impossible,
            () => Verdict::Wait,
        }
    }

    /// The reply's account of itself.
    pub fn level(self) -> Level {
        Level { n: self.n, quorum: self.needed, owners: self.owners, fallbacks: self.fallbacks, hedged: false }
    }

    /// The failure of a request whose time is over.
    pub fn not_met(self) -> Failure {
        Failure::QuorumNotMet { needed: self.needed, got: self.got() }
    }

    fn got(self) -> u8 {
        self.owners + self.fallbacks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ring::LayoutRow;
    use crate::protocol::types::NodeId;

    fn layout(nodes: u64) -> Layout {
        let wanted = Wanted { n: 3, r: 2, w: 2 };
        let row = |node| LayoutRow { node: NodeId(node), incarnation: 1, zone: "".into(), weight: 1 };
        let copies = usize::try_from(nodes.min(3)).unwrap();
        Layout::of(1, wanted, (0..nodes).map(row).collect(), (0..copies as u16).collect())
    }

    #[test]
    fn fewer_nodes_than_n_keep_majorities() {
        assert_eq!(Copies::of(&layout(1)), Copies { n: 1, r: 1, w: 1 });
        assert_eq!(Copies::of(&layout(2)), Copies { n: 2, r: 2, w: 2 });
        assert_eq!(Copies::of(&layout(500)), Copies { n: 3, r: 2, w: 2 });
    }

    #[test]
    fn the_verdict_is_the_count_by_every_path() {
        for needed in 1..=3 {
            for got in 0..=3_u8 {
                for failed in 0..=3 - got {
                    let quorum = Quorum { n: 3, needed, owners: got, fallbacks: 0, failed };
                    let expected = match (got >= needed, 3 - failed >= needed) {
                        (true, _) => Verdict::Enough,
                        (false, false) => Verdict::Impossible,
                        (false, true) => Verdict::Wait,
                    };
                    assert_eq!(quorum.verdict(), expected, "{quorum:?}");
                }
            }
        }
    }

    #[test]
    fn more_copies_than_there_are_cannot_be_asked_for() {
        let refused = Copies::of(&layout(1)).write(2);
        assert_eq!(refused, Err(Failure::QuorumImpossible { asked: 2, copies: 1 }));
    }
}
