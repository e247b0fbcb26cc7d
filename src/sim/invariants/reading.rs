//! Who reads from R owners sees every write that W owners had acknowledged before, where R + W > N: also while owners
//! change.

use super::Invariant;
use crate::protocol::causality::{Context, VersionVector};
use crate::protocol::message::{Found, Outcome, Reply};
use crate::protocol::types::{ClusterId, Dot, Instant, Key};
use crate::sim::shape::Shape;
use crate::sim::truth::{Call, Truth};
use crate::sim::watch::{Seen, Verdict, about};

/// See the module.
pub(super) struct Reading {
    cluster: ClusterId,
}

impl Reading {
    pub(super) fn new(shape: &Shape) -> Reading {
        Reading { cluster: shape.cluster }
    }
}

impl Invariant for Reading {
    fn name(&self) -> &'static str {
        "reading"
    }

    fn source(&self) -> &'static str {
        "DESIGN 6: reading at R + W > N sees every write whose reply says that W owners acknowledged it"
    }

    fn see(&mut self, truth: &Truth, _now: Instant, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::Answered { call, outcome: Outcome::Ok(Reply::Found(found)), .. } => self.found(truth, call, found),
            _ => Ok(()),
        }
    }
}

impl Reading {
    fn found(&self, truth: &Truth, call: &Call, found: &Found) -> Verdict {
        let key = call.request.key().expect("a read has a key");
        let seen = Context::open(&found.context, self.cluster, key).map_err(|error| crate::sim::watch::Complaint {
            what: format!("a read gives a context that it does not take: {error}"),
            key: Some(key.clone()),
        })?;
        for (w, known) in &*call.known {
            let (r, n) = (found.level.quorum, found.level.n);
            if r + w <= n {
                continue;
            }
            // What was deleted and forgotten is seen by nobody any more.
            let forgotten = &truth.keys[key].forgotten;
            let is_over = |dot: &Dot| found.siblings.is_empty() && is_buried(truth, key, *dot);
            if let Some(missed) = missed(&known.dots, forgotten, &seen).filter(|dot| !is_over(dot)) {
                return about(key, format!("a read of R {r} misses {missed}, which {w} owners had acknowledged"));
            }
        }
        Ok(())
    }
}

/// Whether a node keeps no more of it than tombstones: in the last step of a round nobody is shown them any more.
fn is_buried(truth: &Truth, key: &Key, dot: Dot) -> bool {
    let mut sets = truth.nodes.iter().filter_map(|node| node.sets.get(key));
    sets.any(|set| set.vector().covers(dot) && set.live().next().is_none())
}

fn missed(known: &VersionVector, forgotten: &VersionVector, seen: &Context) -> Option<Dot> {
    known.dots().find(|dot| !seen.covers(*dot) && !forgotten.covers(*dot))
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, dot, found, get, key, set};
    use super::*;

    fn reads(made: &MadeUp, shown: &[(Dot, &'static str)], r: u8) -> Verdict {
        let outcome = Ok(Reply::Found(found(made.cluster, shown, r)));
        Reading::new(&made.shape).see(
            &made.truth,
            Instant(1),
            &Seen::Answered { call: &made.call(get()), outcome: &outcome },
        )
    }

    #[test]
    fn a_read_sees_what_owners_acknowledged_that_it_must_have_met() {
        let mut made = MadeUp::new(3);
        made.mint(dot(1, 1), &[], Some("a"));
        made.acknowledge(dot(1, 1), 2);
        assert!(reads(&made, &[], 2).is_err());
        assert_eq!(reads(&made, &[], 1), Ok(()), "one of three need not have met it");
        assert_eq!(reads(&made, &[(dot(1, 1), "a")], 2), Ok(()));
        assert_eq!(reads(&made, &[(dot(1, 2), "b")], 2), Ok(()), "its context covers what came before");
    }

    #[test]
    fn what_fewer_owners_acknowledged_must_be_seen_by_more() {
        let mut made = MadeUp::new(3);
        made.mint(dot(1, 1), &[], Some("a"));
        made.acknowledge(dot(1, 1), 1);
        assert_eq!(reads(&made, &[], 2), Ok(()));
        assert!(reads(&made, &[], 3).is_err());
    }

    #[test]
    fn nobody_must_see_what_is_about_to_be_forgotten() {
        let mut made = MadeUp::new(3);
        let version = made.mint(dot(1, 1), &[], Some("a"));
        let tombstone = made.mint(dot(1, 2), &[(1, 1)], None);
        made.acknowledge(dot(1, 1), 3);
        made.hold(0, &set(&[(1, 1)], &[&version]));
        assert!(reads(&made, &[], 3).is_err());
        made.hold(0, &set(&[(1, 2)], &[&tombstone]));
        assert_eq!(reads(&made, &[], 3), Ok(()));
    }

    #[test]
    fn nobody_must_see_what_was_forgotten() {
        let mut made = MadeUp::new(3);
        made.mint(dot(1, 1), &[], Some("a"));
        made.acknowledge(dot(1, 1), 3);
        made.truth.key(&key()).forgotten.see(dot(1, 1));
        assert_eq!(reads(&made, &[], 3), Ok(()));
    }

    #[test]
    fn a_context_must_be_of_the_key_and_the_cluster() {
        let made = MadeUp::new(3);
        let mut reply = found(made.cluster, &[], 1);
        reply.context = Context::of(VersionVector::default()).seal(made.cluster, &Key::new("another").unwrap());
        let outcome = Ok(Reply::Found(reply));
        let seen = Seen::Answered { call: &made.call(get()), outcome: &outcome };
        assert!(Reading::new(&made.shape).see(&made.truth, Instant(1), &seen).is_err());
    }
}
