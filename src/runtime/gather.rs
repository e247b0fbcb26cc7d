//! One answer out of many outcomes: a batch, or a listing over all cores.

use std::rc::Rc;

use super::connection::Connection;
use super::pages;
use crate::protocol::message::{Answer, Failure, Keys, Outcome, Reply};
use crate::protocol::ring::Ring;
use crate::wire::frame::{ANSWER_BYTES_MAX, CallId};

/// Outcomes that come in any order.
#[derive(Debug)]
pub struct Gather {
    connection: Rc<Connection>,
    id: CallId,
    outcomes: Vec<Option<Outcome>>,
    missing: usize,
    /// Bytes of the values in `outcomes`.
    held: usize,
    becomes: Becomes,
}

#[derive(Debug)]
enum Becomes {
    Batch,
    Listing { ring: Ring, limit: usize },
}

impl Gather {
    /// A batch of `count` requests, each of which stands alone.
    pub fn batch(connection: Rc<Connection>, id: CallId, count: usize) -> Gather {
        Gather::new(connection, id, count, Becomes::Batch)
    }

    /// A page of keys out of the pages of `cores` cores.
    pub fn pages(connection: Rc<Connection>, id: CallId, ring: Ring, keys: &Keys, cores: usize) -> Gather {
        let becomes = Becomes::Listing { ring, limit: usize::from(keys.limit) };
        Gather::new(connection, id, cores, becomes)
    }

    fn new(connection: Rc<Connection>, id: CallId, parts: usize, becomes: Becomes) -> Gather {
        Gather { connection, id, outcomes: vec![None; parts], missing: parts, held: 0, becomes }
    }

    /// Takes one outcome in and says whether it was the last.
    pub fn on_outcome(&mut self, at: usize, outcome: Outcome) -> bool {
        self.held += value_bytes(&outcome);
        let before = self.outcomes[at].replace(outcome);
        assert!(before.is_none(), "part {at} ended twice");
        self.drop_what_does_not_fit();
        self.missing -= 1;
        self.missing == 0
    }

    /// What has no room in the answer is not held until the others are there; the first ones stay.
    fn drop_what_does_not_fit(&mut self) {
        for outcome in self.outcomes.iter_mut().rev().flatten() {
            if self.held <= ANSWER_BYTES_MAX {
                return;
            }
            let bytes = value_bytes(outcome);
            if bytes != 0 {
                self.held -= bytes;
                *outcome = Err(Failure::ReplyTooLarge { bytes: bytes as u64, max: ANSWER_BYTES_MAX as u64 });
            }
        }
    }

    /// The answer, and whom it is for.
    pub fn end(self) -> (Rc<Connection>, CallId, Answer) {
        let outcomes = self.outcomes.into_iter().map(|outcome| outcome.expect("every part has ended"));
        let answer = match self.becomes {
            Becomes::Batch => Answer::Many(outcomes.collect()),
            Becomes::Listing { ring, limit } => Answer::One(listing(ring, limit, outcomes)),
        };
        (self.connection, self.id, answer)
    }
}

/// Bytes of the values that an outcome brings.
pub fn value_bytes(outcome: &Outcome) -> usize {
    match outcome {
        Ok(Reply::Found(found)) => found.siblings.iter().map(|sibling| sibling.value.len()).sum(),
        Ok(Reply::Siblings(copies)) => {
            copies.copies.iter().filter_map(|copy| copy.value.as_ref()).map(|value| value.len()).sum()
        }
        Ok(Reply::Written(_) | Reply::Keys(_)) | Err(_) => 0,
    }
}

/// One core that cannot list makes the whole page untrue.
fn listing(ring: Ring, limit: usize, outcomes: impl Iterator<Item = Outcome>) -> Outcome {
    let mut listed = Vec::new();
    for outcome in outcomes {
        match outcome? {
            Reply::Keys(page) => listed.push(page),
            other => unreachable!("a listing was answered by {other:?}"),
        }
    }
    Ok(Reply::Keys(pages::merge(ring, limit, listed)))
}
