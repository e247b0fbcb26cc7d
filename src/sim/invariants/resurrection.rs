//! What an acknowledged write replaced is not read again by whoever reads from R owners, where R + W > N, and is
//! nowhere in the end; and nothing of a key comes back once its owners have forgotten it.

use super::Invariant;
use crate::protocol::causality::Siblings;
use crate::protocol::io::Append;
use crate::protocol::message::{Found, Outcome, Reply};
use crate::protocol::types::{Dot, Instant, Key};
use crate::sim::truth::{Call, KeyTruth, Truth, replaces};
use crate::sim::watch::{Rest, Seen, Verdict, about};
use crate::sim::world::At;

/// See the module.
pub(super) struct Resurrection;

impl Invariant for Resurrection {
    fn name(&self) -> &'static str {
        "resurrection"
    }

    fn source(&self) -> &'static str {
        "DESIGN 1.3: a deleted key stays deleted"
    }

    fn see(&mut self, truth: &Truth, _now: Instant, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::Answered { call, outcome: Outcome::Ok(Reply::Found(found)), .. } => read(truth, call, found),
            Seen::Durable { node, append } => durable(truth, *node, append),
            Seen::Rested(rest) => rested(truth, rest),
            _ => Ok(()),
        }
    }
}

fn read(truth: &Truth, call: &Call, found: &Found) -> Verdict {
    let key = call.request.key().expect("a read has a key");
    let forgotten = truth.keys.get(key).map(|of_key| &of_key.forgotten);
    let (r, n) = (found.level.quorum, found.level.n);
    for sibling in &found.siblings {
        if forgotten.is_some_and(|forgotten| forgotten.covers(sibling.dot)) {
            return about(key, format!("a read shows {}, which was deleted and forgotten", sibling.dot));
        }
        let by = call.known.iter().find(|(w, known)| n < r + **w && known.replaced.has(sibling.dot));
        if let Some((w, _)) = by {
            let what = format!("a read of R {r} shows {}, which a write replaced that W {w} acknowledged", sibling.dot);
            return about(key, what);
        }
    }
    Ok(())
}

/// A value that comes to a node was not forgotten.
fn durable(truth: &Truth, node: At, append: &Append) -> Verdict {
    let (key, Some(state)) = (&append.key, append.state()) else { return Ok(()) };
    let Some(of_key) = truth.keys.get(key).filter(|of_key| !of_key.forgotten.is_empty()) else { return Ok(()) };
    let before = truth.nodes[node].sets.get(key);
    let comes = |dot: Dot| before.is_none_or(|before| !before.holds(dot));
    match state.live().map(|(version, _)| version.dot).find(|dot| comes(*dot) && of_key.forgotten.covers(*dot)) {
        Some(dot) => about(key, format!("{dot} comes to n{node}, and was deleted and forgotten")),
        None => Ok(()),
    }
}

fn rested(truth: &Truth, rest: &Rest) -> Verdict {
    for (key, owners) in &rest.owners {
        let Some(of_key) = truth.keys.get(key) else { continue };
        let sets = owners.iter().filter_map(|owner| Some((*owner, truth.nodes[*owner].sets.get(key)?)));
        sets.into_iter().try_for_each(|(owner, set)| is_over(of_key, key, owner, set))?;
    }
    Ok(())
}

fn is_over(of_key: &KeyTruth, key: &Key, owner: At, set: &Siblings) -> Verdict {
    for version in set.versions() {
        if !version.is_tombstone() && of_key.forgotten.covers(version.dot) {
            return about(key, format!("n{owner} holds {}, which was deleted and forgotten", version.dot));
        }
        let is_by = |by: &&Dot| of_key.minted.get(*by).is_some_and(|by| replaces(&by.update, version.dot));
        if let Some(by) = of_key.acknowledged.keys().find(is_by) {
            return about(key, format!("n{owner} holds {}, which {by} replaced", version.dot));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, append_set, dot, found, get, key, set};
    use super::*;

    fn judge(made: &MadeUp, seen: &Seen<'_>) -> Verdict {
        Resurrection.see(&made.truth, Instant(1), seen)
    }

    fn reads(made: &MadeUp, shown: Dot, r: u8) -> Verdict {
        let outcome = Ok(Reply::Found(found(made.cluster, &[(shown, "a")], r)));
        judge(made, &Seen::Answered { call: &made.call(get()), outcome: &outcome })
    }

    #[test]
    fn what_was_replaced_and_acknowledged_is_not_read_again() {
        let mut made = MadeUp::new(3);
        made.mint(dot(1, 1), &[], Some("a"));
        made.mint(dot(1, 2), &[(1, 1)], Some("b"));
        assert_eq!(reads(&made, dot(1, 1), 2), Ok(()), "nobody has heard of another");
        made.acknowledge(dot(1, 2), 2);
        assert!(reads(&made, dot(1, 1), 2).is_err());
        assert_eq!(reads(&made, dot(1, 1), 1), Ok(()), "one of three need not have met it");
        assert_eq!(reads(&made, dot(1, 2), 2), Ok(()));
    }

    #[test]
    fn in_the_end_nothing_that_was_replaced_is_held() {
        let mut made = MadeUp::new(1);
        let first = made.mint(dot(1, 1), &[], Some("a"));
        let second = made.mint(dot(1, 2), &[(1, 1)], Some("b"));
        made.acknowledge(dot(1, 2), 1);
        made.hold(0, &set(&[(1, 2)], &[&second]));
        let rest = Rest { members: vec![0], owners: [(key(), vec![0])].into() };
        assert_eq!(judge(&made, &Seen::Rested(&rest)), Ok(()));
        made.hold(0, &set(&[(1, 2)], &[&first, &second]));
        assert!(judge(&made, &Seen::Rested(&rest)).is_err());
    }

    #[test]
    fn what_was_forgotten_neither_comes_nor_is_shown() {
        let mut made = MadeUp::new(1);
        let first = made.mint(dot(1, 1), &[], Some("a"));
        let comes = append_set(&set(&[(1, 1)], &[&first]), &set(&[(1, 1)], &[&first]));
        assert_eq!(judge(&made, &Seen::Durable { node: 0, append: &comes }), Ok(()));
        made.truth.key(&key()).forgotten.see(dot(1, 2));
        assert!(judge(&made, &Seen::Durable { node: 0, append: &comes }).is_err());
        assert!(reads(&made, dot(1, 1), 1).is_err());
    }
}
