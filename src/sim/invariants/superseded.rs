//! A write replaces what its writer has seen, or what its coordinator held where the writer says nothing, and never
//! anything else: whatever goes was named by a write that is there.

use super::Invariant;
use crate::protocol::causality::{Context, Siblings, Version};
use crate::protocol::io::{Append, Change};
use crate::protocol::message::{Causality, Outcome, Reply, Request, Written};
use crate::protocol::types::{ClusterId, Dot, Instant};
use crate::sim::shape::Shape;
use crate::sim::truth::{Call, KeyTruth, Truth, are_twins, replaces};
use crate::sim::watch::{Seen, Verdict, about};
use crate::sim::world::At;

/// See the module.
pub(super) struct Superseded {
    cluster: ClusterId,
}

impl Superseded {
    pub(super) fn new(shape: &Shape) -> Superseded {
        Superseded { cluster: shape.cluster }
    }
}

impl Invariant for Superseded {
    fn name(&self) -> &'static str {
        "superseded"
    }

    fn source(&self) -> &'static str {
        "DESIGN 1.2: nothing is superseded unseen"
    }

    fn see(&mut self, truth: &Truth, _now: Instant, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::Answered { call, outcome: Outcome::Ok(Reply::Written(written)), .. } => {
                self.written(truth, call, written)
            }
            Seen::Durable { node, append } => durable(truth, *node, append),
            _ => Ok(()),
        }
    }
}

impl Superseded {
    fn written(&self, truth: &Truth, call: &Call, written: &Written) -> Verdict {
        let (key, dot) = (call.request.key().expect("a write has a key"), written.dot);
        let is_named: &dyn Fn(Dot) -> bool = match causality(&call.request) {
            Causality::Blind => {
                let minted = truth.keys.get(key).and_then(|of_key| of_key.minted.get(&dot));
                &move |other| minted.is_none_or(|minted| minted.update.upon.covers(other))
            }
            Causality::Sibling => &|_| false,
            Causality::Context(token) => match Context::open(token, self.cluster, key) {
                Ok(context) => &move |other| context.covers(other),
                Err(error) => return about(key, format!("{dot} was written with a context that is none: {error}")),
            },
        };
        match written.superseded.iter().find(|other| !is_named(**other)) {
            Some(other) => about(key, format!("{dot} replaced {other}, which its writer did not name")),
            None => Ok(()),
        }
    }
}

fn causality(request: &Request) -> &Causality {
    match request {
        Request::Put(put) => &put.causality,
        Request::Delete(delete) => &delete.causality,
        Request::Get(_) | Request::Siblings(_) | Request::Keys(_) => &Causality::Blind,
    }
}

/// What a node held of the key, and what came in, is still there or was replaced.
fn durable(truth: &Truth, node: At, append: &Append) -> Verdict {
    let Some(after) = append.state() else { return Ok(()) };
    let key = &append.key;
    let Some(of_key) = truth.keys.get(key) else { return Ok(()) };
    let before = truth.nodes[node].sets.get(key);
    let came = match &append.change {
        Change::Set { came, .. } => Some(came),
        _ => None,
    };
    let all = before.into_iter().chain(came).flat_map(|set| set.versions());
    for gone in all.filter(|version| !after.holds(version.dot)) {
        if !is_replaced(of_key, append, gone, after) {
            let what = format!("n{node} held or heard of {}, and nothing that replaces it is in {after:?}", gone.dot);
            return about(key, what);
        }
    }
    match before {
        Some(before) if !after.vector().descends(before.vector()) => {
            about(key, format!("n{node} had seen {:?}, and then {:?}", before.vector(), after.vector()))
        }
        _ => Ok(()),
    }
}

/// Whether a version that went was replaced by what came in, or by anything else that the set has seen. A tombstone
/// that another owner has forgotten already need not have been.
fn is_replaced(of_key: &KeyTruth, append: &Append, gone: &Version, after: &Siblings) -> bool {
    let replaced_by = |dot: &Dot| of_key.minted.get(dot).is_some_and(|minted| replaces(&minted.update, gone.dot));
    let by_what_came = match &append.change {
        Change::Version(arrived) => replaced_by(&arrived.dot),
        _ => false,
    };
    let is_forgotten = gone.is_tombstone() && of_key.forgotten.covers(gone.dot);
    is_forgotten
        || by_what_came
        || after.versions().iter().any(|version| replaced_by(&version.dot))
        || is_gone(of_key, gone.dot, after)
}

/// The same, of all that was ever minted.
fn is_gone(of_key: &KeyTruth, gone: Dot, after: &Siblings) -> bool {
    let Some(itself) = of_key.minted.get(&gone) else { return false };
    of_key.minted.iter().any(|(dot, minted)| {
        let stands_for_it = || replaces(&minted.update, gone) || are_twins(&minted.update, &itself.update);
        *dot != gone && after.vector().covers(*dot) && stands_for_it()
    })
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, append_set, dot, key, put, set, written};
    use super::*;
    use crate::protocol::types::Key;

    fn judge(made: &MadeUp, seen: &Seen<'_>) -> Verdict {
        Superseded { cluster: made.cluster }.see(&made.truth, Instant(1), seen)
    }

    #[test]
    fn a_sibling_that_nothing_replaced_is_missed_and_one_that_was_replaced_is_not() {
        let mut made = MadeUp::new(1);
        let (one, other) = (made.mint(dot(1, 1), &[], Some("a")), made.mint(dot(2, 1), &[], Some("b")));
        made.hold(0, &set(&[(1, 1)], &[&one]));
        let came = set(&[(2, 1)], &[&other]);
        let whole = append_set(&set(&[(1, 1), (2, 1)], &[&one, &other]), &came);
        assert_eq!(judge(&made, &Seen::Durable { node: 0, append: &whole }), Ok(()));
        let dropped = append_set(&set(&[(1, 1), (2, 1)], &[&other]), &came);
        assert!(judge(&made, &Seen::Durable { node: 0, append: &dropped }).is_err());

        let last = made.mint(dot(2, 2), &[(1, 1), (2, 1)], Some("c"));
        let replaced = append_set(&set(&[(1, 1), (2, 2)], &[&last]), &set(&[(1, 1), (2, 2)], &[&last]));
        assert_eq!(judge(&made, &Seen::Durable { node: 0, append: &replaced }), Ok(()));
        let forgetful = append_set(&set(&[(2, 2)], &[&last]), &set(&[(2, 2)], &[&last]));
        assert!(judge(&made, &Seen::Durable { node: 0, append: &forgetful }).is_err());
    }

    #[test]
    fn a_tombstone_that_another_owner_has_forgotten_may_go() {
        let mut made = MadeUp::new(1);
        let (tombstone, other) = (made.mint(dot(1, 1), &[], None), made.mint(dot(1, 2), &[], Some("a")));
        made.hold(0, &set(&[(1, 1)], &[&tombstone]));
        let append = append_set(&set(&[(1, 2)], &[&other]), &set(&[(1, 2)], &[&other]));
        assert!(judge(&made, &Seen::Durable { node: 0, append: &append }).is_err());
        made.truth.key(&key()).forgotten.see(dot(1, 1));
        assert_eq!(judge(&made, &Seen::Durable { node: 0, append: &append }), Ok(()));
    }

    #[test]
    fn a_reply_names_only_what_its_context_has_seen() {
        let made = MadeUp::new(1);
        let token = Context::of([dot(1, 1)].into_iter().collect()).seal(made.cluster, &key());
        let foreign = Context::of([dot(1, 1)].into_iter().collect()).seal(made.cluster, &Key::new("other").unwrap());
        let of = |causality, superseded: &[Dot]| {
            let call = made.call(put("v", causality, None));
            let outcome = Ok(Reply::Written(written(dot(3, 1), superseded, false)));
            judge(&made, &Seen::Answered { call: &call, outcome: &outcome }).is_ok()
        };
        assert!(of(Causality::Context(token.clone()), &[dot(1, 1)]) && of(Causality::Sibling, &[]));
        assert!(!of(Causality::Context(token), &[dot(2, 1)]) && !of(Causality::Sibling, &[dot(1, 1)]));
        assert!(!of(Causality::Context(foreign), &[]));
    }
}
