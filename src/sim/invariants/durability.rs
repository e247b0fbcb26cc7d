//! What was acknowledged is durable on as many nodes as the reply says when the reply goes out, and in the end it is
//! there, or what replaced it is.

use std::collections::BTreeSet;

use super::Invariant;
use crate::protocol::causality::Siblings;
use crate::protocol::message::{Outcome, Reply};
use crate::protocol::types::{Dot, Instant};
use crate::sim::truth::{Call, KeyTruth, Minted, Truth, are_twins, replaces};
use crate::sim::watch::{Rest, Seen, Verdict, about};

/// See the module.
pub(super) struct Durability;

impl Invariant for Durability {
    fn name(&self) -> &'static str {
        "durability"
    }

    fn source(&self) -> &'static str {
        "DESIGN 1.1: a write that was acknowledged is never lost"
    }

    fn see(&mut self, truth: &Truth, _now: Instant, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::Answered { call, outcome, .. } => answered(truth, call, outcome),
            Seen::Rested(rest) => rested(truth, rest),
            _ => Ok(()),
        }
    }
}

fn answered(truth: &Truth, call: &Call, outcome: &Outcome) -> Verdict {
    let Ok(Reply::Written(written)) = outcome else { return Ok(()) };
    let key = call.request.key().expect("a write has a key");
    let copies = truth.holders(key, written.dot);
    if usize::from(written.level.quorum) <= copies {
        return Ok(());
    }
    about(key, format!("{} was acknowledged with {:?}, and {copies} nodes hold it durably", written.dot, written.level))
}

fn rested(truth: &Truth, rest: &Rest) -> Verdict {
    let nothing = Siblings::default();
    for (key, owners) in &rest.owners {
        let Some(of_key) = truth.keys.get(key) else { continue };
        let Some(owner) = owners.first() else { continue };
        let set = truth.nodes[*owner].sets.get(key).map_or(&nothing, |set| set);
        let explained = explained(set, of_key);
        if let Some(dot) = of_key.acknowledged.keys().find(|dot| !explained.contains(dot)) {
            return about(key, format!("{dot} was acknowledged, and nothing that is there replaced it: {set:?}"));
        }
    }
    Ok(())
}

/// All that is held, and what was replaced by it, or by what was; and twins of these. At the end may also
/// stand a delete
/// whose tombstone was forgotten.
fn explained(set: &Siblings, of_key: &KeyTruth) -> BTreeSet<Dot> {
    let is_forgotten =
        |dot: &Dot, minted: &Minted| of_key.forgotten.covers(*dot) && minted.update.version.is_tombstone();
    let all = of_key.minted.iter();
    let (mut next, mut left): (Vec<_>, Vec<_>) =
        all.partition(|(dot, minted)| set.holds(**dot) || is_forgotten(dot, minted));
    let mut explained = BTreeSet::new();
    while let Some((dot, minted)) = next.pop() {
        explained.insert(*dot);
        let stands_for =
            |other: &(&Dot, &Minted)| replaces(&minted.update, *other.0) || are_twins(&minted.update, &other.1.update);
        next.extend(left.extract_if(.., |other| stands_for(other)));
    }
    explained
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, dot, key, put, set, written};
    use super::*;
    use crate::protocol::message::{Causality, Level, Written};

    fn judge(made: &MadeUp, seen: &Seen<'_>) -> Verdict {
        Durability.see(&made.truth, Instant(1), seen)
    }

    /// It is said that so many owners have the first version.
    fn says(made: &MadeUp, quorum: u8) -> Verdict {
        let level = Level { n: 3, quorum, owners: quorum, fallbacks: 0, hedged: false };
        let outcome = Ok(Reply::Written(Written { level, ..written(dot(1, 1), &[], false) }));
        judge(made, &Seen::Answered { call: &made.call(put("a", Causality::Blind, None)), outcome: &outcome })
    }

    fn rests(made: &MadeUp) -> Verdict {
        let rest = Rest { members: vec![0], owners: [(key(), vec![0])].into() };
        judge(made, &Seen::Rested(&rest))
    }

    #[test]
    fn as_many_nodes_hold_it_as_the_reply_says() {
        let mut made = MadeUp::new(3);
        let version = made.mint(dot(1, 1), &[], Some("a"));
        assert!(says(&made, 1).is_err());
        made.hold(0, &set(&[(1, 1)], &[&version]));
        assert_eq!(says(&made, 1), Ok(()));
        assert!(says(&made, 2).is_err());
        made.hold(2, &set(&[(1, 1)], &[&version]));
        assert_eq!(says(&made, 2), Ok(()));
    }

    #[test]
    fn in_the_end_it_is_there_or_what_replaced_it_is() {
        let mut made = MadeUp::new(1);
        let first = made.mint(dot(1, 1), &[], Some("a"));
        let second = made.mint(dot(1, 2), &[(1, 1)], Some("b"));
        let beside = made.mint(dot(2, 1), &[], Some("c"));
        assert_eq!(rests(&made), Ok(()), "nobody was told of any");
        made.acknowledge(dot(1, 1), 1);
        assert!(rests(&made).is_err());
        made.hold(0, &set(&[(1, 1)], &[&first]));
        assert_eq!(rests(&made), Ok(()));
        made.hold(0, &set(&[(1, 2)], &[&second]));
        assert_eq!(rests(&made), Ok(()), "it was replaced");
        made.hold(0, &set(&[(1, 2), (2, 1)], &[&beside]));
        assert!(rests(&made).is_err(), "what is there did not replace it");
    }

    #[test]
    fn a_delete_that_was_forgotten_stands_for_what_it_replaced() {
        let mut made = MadeUp::new(1);
        made.mint(dot(1, 1), &[], Some("a"));
        made.mint(dot(1, 2), &[(1, 1)], None);
        made.acknowledge(dot(1, 1), 1);
        made.acknowledge(dot(1, 2), 1);
        assert!(rests(&made).is_err());
        made.truth.key(&key()).forgotten.see(dot(1, 2));
        assert_eq!(rests(&made), Ok(()));
    }
}
