//! Who reads from R owners sees every write that W owners had acknowledged before, where R + W > N: also while owners
//! change. What a read has seen shows it; and whenever a write is acknowledged, or a node goes by another layout, so do
//! the copies: those that lack a write must be fewer than R, or the next read may meet no others.

use super::Invariant;
use crate::protocol::causality::{Context, VersionVector};
use crate::protocol::message::{Found, Outcome, Reply, Written};
use crate::protocol::ring::View;
use crate::protocol::types::{ClusterId, Dot, Instant, Key, NodeId};
use crate::sim::shape::Shape;
use crate::sim::truth::{Call, NodeTruth, Truth, are_same_layouts};
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
            Seen::Heard { call, outcome: Some(Outcome::Ok(Reply::Written(written))) } => {
                written_well(truth, call, written)
            }
            Seen::Viewed { node, view } => viewed(truth, &truth.nodes[*node], view),
            _ => Ok(()),
        }
    }
}

/// What was just acknowledged is met by every read from now on, whoever is asked.
fn written_well(truth: &Truth, call: &Call, written: &Written) -> Verdict {
    let level = written.level;
    if level.owners < level.quorum {
        return Ok(());
    }
    let key = call.request.key().expect("a write has a key");
    for view in truth.nodes.iter().filter_map(reads_by) {
        is_met(truth, view, key, written.dot, level.quorum)?;
    }
    Ok(())
}

/// A node that reads from others than before meets all that was acknowledged.
fn viewed(truth: &Truth, node: &NodeTruth, view: &View) -> Verdict {
    let is_same = node.view.as_ref().is_some_and(|before| are_same_layouts(before, view));
    if node.is_removed || is_same || !coordinates(view) {
        return Ok(());
    }
    for (key, of_key) in &truth.keys {
        for (w, known) in &*of_key.known {
            known.dots.dots().try_for_each(|dot| is_met(truth, view, key, dot, *w))?;
        }
    }
    Ok(())
}

/// What a node reads by for clients that may trust it.
fn reads_by(node: &NodeTruth) -> Option<&View> {
    node.view.as_deref().filter(|view| node.is_alive && !node.is_removed && coordinates(view))
}

/// Whether a node with this view reads by itself: one that has no place hands it on.
fn coordinates(view: &View) -> bool {
    view.written().any(|layout| layout.has(view.me))
}

/// Whether a read by this view from R owners, as few as suffice where W have acknowledged the write, must meet it.
fn is_met(truth: &Truth, view: &View, key: &Key, dot: Dot, w: u8) -> Verdict {
    if truth.keys[key].forgotten.covers(dot) {
        return Ok(());
    }
    let partition = truth.ring.partition(key);
    let answers = |node: &NodeTruth| {
        let own = if node.id == view.me { Some(view) } else { node.view.as_deref() };
        // One that knows a newer layout does not answer those that go by an older one.
        node.is_alive && own.is_some_and(|own| !own.stamp().is_newer_than(view.stamp()) && own.is_read_from(partition))
    };
    let lacks = |node: &NodeTruth| node.sets.get(key).is_none_or(|set| !set.vector().covers(dot));
    let is_trap = |at: &usize| answers(&truth.nodes[*at]) && lacks(&truth.nodes[*at]);
    let layout = &view.layout;
    let is_asked =
        |owner: &NodeId| view.is_whole(layout, *owner) && view.member(*owner).is_none_or(|member| !member.is_removed);
    let owners = layout.owners(partition).filter(is_asked);
    let lacking: Vec<usize> = owners.filter_map(|owner| truth.at(owner)).filter(is_trap).collect();
    let r = (layout.copies() + 1).saturating_sub(usize::from(w));
    if r <= lacking.len() && 0 < r {
        let reader = truth.at(view.me).unwrap_or_default();
        let what = format!("a read of R {r} by n{reader} may miss {dot}, which {w} owners have acknowledged");
        return about(key, format!("{what}: the nodes {lacking:?} lack it"));
    }
    Ok(())
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
    fn no_two_owners_that_a_read_may_ask_lack_what_two_of_three_have_acknowledged() {
        let mut made = MadeUp::new(3);
        let version = made.mint(dot(1, 1), &[], Some("a"));
        made.acknowledge(dot(1, 1), 2);
        made.hold(0, &set(&[(1, 1)], &[&version]));
        let judge = |made: &MadeUp| is_met(&made.truth, reads_by(&made.truth.nodes[0]).unwrap(), &key(), dot(1, 1), 2);
        assert!(judge(&made).is_err());
        made.truth.nodes[2].is_alive = false;
        assert_eq!(judge(&made), Ok(()), "who is dead answers nobody");
        made.truth.nodes[2].is_alive = true;
        made.hold(1, &set(&[(1, 1)], &[&version]));
        assert_eq!(judge(&made), Ok(()), "one of any two has it");
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
