//! What was acknowledged is durable on as many nodes as the reply says when the reply goes out, and in the end it is
//! there, or what replaced it is.

use std::collections::BTreeSet;

use super::Invariant;
use crate::protocol::causality::Siblings;
use crate::protocol::message::{Outcome, Reply};
use crate::protocol::types::{Dot, Instant};
use crate::sim::truth::{Call, KeyTruth, Truth, are_twins, replaces};
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
        for dot in of_key.acknowledged.keys() {
            if !is_there_or_replaced(*dot, set, of_key, &mut BTreeSet::new()) {
                return about(key, format!("{dot} was acknowledged, and nothing that is there replaced it: {set:?}"));
            }
        }
    }
    Ok(())
}

/// Whether a version is held, or one that replaced it is, or one that replaced that; or its twin. At the end may
/// stand a delete whose tombstone was forgotten.
fn is_there_or_replaced(dot: Dot, set: &Siblings, of_key: &KeyTruth, looked_at: &mut BTreeSet<Dot>) -> bool {
    if set.holds(dot) {
        return true;
    }
    if !looked_at.insert(dot) {
        return false;
    }
    let itself = of_key.minted.get(&dot);
    let is_forgotten = of_key.forgotten.covers(dot);
    if is_forgotten && itself.is_some_and(|itself| itself.update.version.is_tombstone()) {
        return true;
    }
    let stands_for_it = |(other, minted): &(&Dot, &crate::sim::truth::Minted)| {
        let is_twin = itself.is_some_and(|itself| are_twins(&itself.update, &minted.update));
        **other != dot && (is_twin || replaces(&minted.update, dot))
    };
    let others: Vec<Dot> = of_key.minted.iter().filter(stands_for_it).map(|(other, _)| *other).collect();
    others.into_iter().any(|other| is_there_or_replaced(other, set, of_key, looked_at))
}
