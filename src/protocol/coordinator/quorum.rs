//! A quorum as a pure count, with three answers: enough, impossible, wait (after Riak's `put_core`).

use crate::protocol::config::N_DEFAULT;
use crate::protocol::message::{Failure, Level};

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
    /// What a layout of that many nodes keeps: with fewer nodes than N, N is their number; the defaults are majorities.
    pub fn of(nodes: usize) -> Copies {
        let n = u8::try_from(nodes).unwrap_or(N_DEFAULT).min(N_DEFAULT);
        let majority = n / 2 + 1;
        Copies { n, r: majority, w: majority }
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

    fn count(self, asked: u8, default: u8) -> Result<Quorum, Failure> {
        match asked {
            0 => Ok(Quorum { n: self.n, needed: default, got: 0, failed: 0 }),
            _ if asked > self.n => Err(Failure::QuorumImpossible { asked, copies: self.n }),
            _ => Ok(Quorum { n: self.n, needed: asked, got: 0, failed: 0 }),
        }
    }
}

/// Answers of distinct nodes, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    n: u8,
    needed: u8,
    got: u8,
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
    /// One more owner has done it.
    pub fn on_owner(&mut self) {
        self.got += 1;
    }

    /// One owner can no longer do it.
    pub fn on_failed(&mut self) {
        self.failed += 1;
    }

    /// Enough, impossible or wait.
    pub fn verdict(self) -> Verdict {
        match () {
            () if self.got >= self.needed => Verdict::Enough,
            () if self.n - self.failed < self.needed => Verdict::Impossible,
            () => Verdict::Wait,
        }
    }

    /// The reply's account of itself.
    pub fn level(self) -> Level {
        Level { n: self.n, quorum: self.needed, owners: self.got, fallbacks: 0, hedged: false }
    }

    /// The failure of a request whose time is over.
    pub fn not_met(self) -> Failure {
        Failure::QuorumNotMet { needed: self.needed, got: self.got }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_nodes_than_n_keep_majorities() {
        assert_eq!(Copies::of(1), Copies { n: 1, r: 1, w: 1 });
        assert_eq!(Copies::of(2), Copies { n: 2, r: 2, w: 2 });
        assert_eq!(Copies::of(500), Copies { n: 3, r: 2, w: 2 });
    }

    #[test]
    fn the_verdict_is_the_count_by_every_path() {
        for needed in 1..=3 {
            for got in 0..=3_u8 {
                for failed in 0..=3 - got {
                    let quorum = Quorum { n: 3, needed, got, failed };
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
        let refused = Copies::of(1).write(2);
        assert_eq!(refused, Err(Failure::QuorumImpossible { asked: 2, copies: 1 }));
    }
}
