//! In the end all owners of a key hold the same, and nobody else holds anything or owes anything.

use super::Invariant;
use crate::protocol::types::Instant;
use crate::sim::truth::Truth;
use crate::sim::watch::{Rest, Seen, Verdict, about};

/// See the module.
pub(super) struct Convergence;

impl Invariant for Convergence {
    fn name(&self) -> &'static str {
        "convergence"
    }

    fn source(&self) -> &'static str {
        "DESIGN 1.4: replicas converge without an operator"
    }

    fn see(&mut self, truth: &Truth, _now: Instant, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::Rested(rest) => {
                agree(truth, rest)?;
                nobody_else_holds(truth, rest)?;
                nobody_owes(truth, rest)
            }
            _ => Ok(()),
        }
    }
}

fn agree(truth: &Truth, rest: &Rest) -> Verdict {
    for (key, owners) in &rest.owners {
        let held = |at: usize| truth.nodes[at].sets.get(key);
        if let Some(pair) = owners.windows(2).find(|pair| held(pair[0]) != held(pair[1])) {
            let (one, other) = (held(pair[0]), held(pair[1]));
            return about(key, format!("n{} holds {one:?}, and n{} {other:?}", pair[0], pair[1]));
        }
    }
    Ok(())
}

fn nobody_else_holds(truth: &Truth, rest: &Rest) -> Verdict {
    for at in &rest.members {
        let is_owner = |key| rest.owners.get(key).is_some_and(|owners| owners.contains(at));
        if let Some(key) = truth.nodes[*at].sets.keys().find(|key| !is_owner(*key)) {
            return about(key, format!("n{at} does not own it, and still holds it"));
        }
    }
    Ok(())
}

fn nobody_owes(truth: &Truth, rest: &Rest) -> Verdict {
    let first = |at: &usize| Some((*at, truth.nodes[*at].hints.keys().next()?));
    match rest.members.iter().find_map(first) {
        Some((at, (key, target))) => about(key, format!("n{at} still owes it to {target}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, append, dot, key, set};
    use super::*;
    use crate::protocol::io::{Change, Hint};

    fn judge(made: &MadeUp) -> Verdict {
        let rest = Rest { members: vec![0, 1, 2], owners: [(key(), vec![0, 1])].into() };
        Convergence.see(&made.truth, Instant(1), &Seen::Rested(&rest))
    }

    #[test]
    fn owners_that_differ_leftovers_and_hints_are_no_rest() {
        let mut made = MadeUp::new(3);
        let version = made.mint(dot(1, 1), &[], Some("a"));
        let whole = set(&[(1, 1)], &[&version]);
        assert_eq!(judge(&made), Ok(()));
        made.hold(0, &whole);
        assert!(judge(&made).is_err(), "one owner lacks it");
        made.hold(1, &whole);
        assert_eq!(judge(&made), Ok(()));
        let hint = Hint { target: made.truth.nodes[1].id, counted: false };
        made.truth.keep(0, &append(Change::Hint(hint)));
        assert!(judge(&made).is_err(), "it is still owed");
        made.truth.keep(0, &append(Change::Delivered { target: hint.target }));
        made.hold(2, &whole);
        assert!(judge(&made).is_err(), "somebody else holds it");
    }
}
