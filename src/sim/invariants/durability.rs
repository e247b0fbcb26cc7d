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
