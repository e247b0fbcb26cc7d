//! A hint that counted towards W is data: it stands on as many other nodes as the reply says, and goes only once its
//! target has what it owed, or others are owed it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Invariant;
use crate::protocol::causality::VersionVector;
use crate::protocol::io::{Append, Change};
use crate::protocol::message::{Outcome, Reply, Written};
use crate::protocol::types::{Dot, Instant, Key, NodeId};
use crate::sim::truth::{Call, Truth};
use crate::sim::watch::{Found, Seen, Verdict, about};
use crate::sim::world::At;

/// Whoever has just come to go by other owners may still do what it decided before.
const SETTLED: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub(super) struct Hints {
    /// By holder, key and target: what the holder had seen when it last noted a hint that counts.
    owed: BTreeMap<(At, Key, NodeId), VersionVector>,
    /// Targets for whom a node ever kept a hint of a key that counts.
    kept_for: BTreeMap<(At, Key), BTreeSet<NodeId>>,
}

impl Invariant for Hints {
    fn name(&self) -> &'static str {
        "hints"
    }

    fn source(&self) -> &'static str {
        "DESIGN 1.1, 6: a hint that counted towards W is data, and is never dropped"
    }

    fn see(&mut self, truth: &Truth, now: Instant, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::Durable { node, append } => self.durable(truth, now, *node, append),
            Seen::Answered { call, outcome: Outcome::Ok(Reply::Written(written)), .. } => {
                self.written(truth, call, written)
            }
            Seen::Restarted { node, found } => {
                self.restarted(*node, found);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Hints {
    fn durable(&mut self, truth: &Truth, now: Instant, node: At, append: &Append) -> Verdict {
        let key = &append.key;
        match &append.change {
            Change::Hint(hint) if hint.counted => {
                let held = truth.nodes[node].sets.get(key).map(|set| set.vector().clone());
                self.owed.insert((node, key.clone(), hint.target), held.unwrap_or_default());
                self.kept_for.entry((node, key.clone())).or_default().insert(hint.target);
                Ok(())
            }
            Change::Delivered { target } => match self.owed.remove(&(node, key.clone(), *target)) {
                Some(owed) => delivered(truth, now, (node, key, *target), &owed),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// What a start finds is still owed.
    fn restarted(&mut self, node: At, found: &Found<'_>) {
        self.owed.retain(|(holder, ..), _| *holder != node);
        for (key, hint) in found.hints.iter().filter(|(_, hint)| hint.counted) {
            let held = found.sets.get(key).map(|set| set.vector().clone());
            self.owed.insert((node, key.clone(), hint.target), held.unwrap_or_default());
            self.kept_for.entry((node, key.clone())).or_default().insert(hint.target);
        }
    }

    /// So many nodes that are no owners keep it for an owner, or have brought it to one.
    fn written(&self, truth: &Truth, call: &Call, written: &Written) -> Verdict {
        let wanted = usize::from(written.level.fallbacks);
        if wanted == 0 {
            return Ok(());
        }
        let key = call.request.key().expect("a write has a key");
        let keeps =
            |at: &At| truth.nodes[*at].has_seen(key, written.dot) && self.has_hint(truth, *at, key, written.dot);
        let found = (0..truth.nodes.len()).filter(keeps).count();
        if wanted <= found {
            return Ok(());
        }
        let what = format!("{} was acknowledged by {wanted} fallbacks, and {found} keep a hint of it", written.dot);
        about(key, what)
    }

    fn has_hint(&self, truth: &Truth, at: At, key: &Key, dot: Dot) -> bool {
        let Some(targets) = self.kept_for.get(&(at, key.clone())) else { return false };
        let has_come = |target: &NodeId| truth.at(*target).is_some_and(|at| truth.nodes[at].has_seen(key, dot));
        targets.iter().any(|target| self.owed.contains_key(&(at, key.clone(), *target)) || has_come(target))
    }
}

/// The target has it, and hands it over where it owns the key no more; or it does not own it, and the owners have it or
/// are owed it.
fn delivered(truth: &Truth, now: Instant, (node, key, target): (At, &Key, NodeId), owed: &VersionVector) -> Verdict {
    let Some(view) = &truth.nodes[node].view else { return Ok(()) };
    let lacks = |at: At| owed.dots().find(|dot| !truth.nodes[at].has_seen(key, *dot));
    let partition = truth.ring.partition(key);
    // A core that stood still goes by its views one after the other when it goes on.
    let holder = &truth.nodes[node];
    if holder.is_still || now.since(holder.viewed_at.max(holder.went_on_at)) < SETTLED {
        return Ok(());
    }
    let Some(lacked) = truth.at(target).and_then(lacks) else { return Ok(()) };
    if view.is_written(target, partition) {
        return about(key, format!("n{node} owes {target} nothing any more, which has not seen {lacked}"));
    }
    let others = view.layout.owners(partition).filter(|owner| *owner != view.me);
    let is_owed = |owner: NodeId| truth.nodes[node].hints.contains_key(&(key.clone(), owner));
    match others.into_iter().find(|owner| !is_owed(*owner) && truth.at(*owner).and_then(lacks).is_some()) {
        Some(owner) => about(key, format!("n{node} owed it to {target}, and does not pass it on to {owner}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, append, dot, key, put, set, written};
    use super::*;
    use crate::protocol::io::Hint;
    use crate::protocol::message::{Causality, Level};

    const LATER: Instant = Instant(10_000_000);

    /// Of three nodes that own everything the last is owed a version that the first keeps for it.
    fn owing() -> (MadeUp, Hints, NodeId) {
        let (mut made, mut hints) = (MadeUp::new(3), Hints::default());
        let version = made.mint(dot(1, 1), &[], Some("a"));
        made.acknowledge(dot(1, 1), 2);
        made.hold(0, &set(&[(1, 1)], &[&version]));
        let target = made.truth.nodes[2].id;
        let hint = append(Change::Hint(Hint { target, counted: true }));
        assert_eq!(hints.see(&made.truth, LATER, &Seen::Durable { node: 0, append: &hint }), Ok(()));
        made.truth.keep(0, &hint);
        (made, hints, target)
    }

    #[test]
    fn a_hint_goes_once_its_target_has_seen_what_it_owed() {
        for has_come in [false, true] {
            let (mut made, mut hints, target) = owing();
            if has_come {
                made.hold(2, &made.truth.nodes[0].sets[&key()].clone());
            }
            let gone = append(Change::Delivered { target });
            let verdict = hints.see(&made.truth, LATER, &Seen::Durable { node: 0, append: &gone });
            assert_eq!(verdict.is_ok(), has_come);
        }
    }

    #[test]
    fn a_reply_counts_only_fallbacks_that_keep_a_hint() {
        let (made, mut hints, _) = owing();
        let call = made.call(put("a", Causality::Blind, None));
        for (fallbacks, is_so) in [(0, true), (1, true), (2, false)] {
            let level = Level { n: 3, quorum: 2, owners: 1, fallbacks, hedged: false };
            let outcome = Ok(Reply::Written(Written { level, ..written(dot(1, 1), &[], false) }));
            let answered = Seen::Answered { call: &call, outcome: &outcome };
            assert_eq!(hints.see(&made.truth, LATER, &answered).is_ok(), is_so);
        }
    }
}
