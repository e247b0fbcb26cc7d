//! Who has a write, counted for every layout that writes go by.
//!
//! A write needs its W among the owners in each of these layouts. Copies belong to nodes: when the layouts change, what
//! a write has is counted anew for the new ones, and nothing that was done is lost.

use smallvec::SmallVec;

use super::quorum::{Copies, Quorum, Verdict};
use crate::protocol::message::{Failure, Level};
use crate::protocol::planted::{Bug, Planted};
use crate::protocol::ring::{Partition, View};
use crate::protocol::types::NodeId;

/// A few nodes.
pub(super) type Nodes = SmallVec<[NodeId; 3]>;

/// The copies of one write.
#[derive(Debug)]
pub(super) struct Legs {
    me: NodeId,
    /// This node's own copy is durable, or failed.
    pub(super) own_settled: bool,
    /// The owners beside this node, in any of the layouts or in one that was gone by before.
    legs: SmallVec<[Leg; 2]>,
    tallies: SmallVec<[Tally; 1]>,
    planted: Planted,
}

/// One owner's copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leg {
    pub(super) owner: NodeId,
    /// Questions about it that have no answer yet.
    pub(super) under_way: u8,
    pub(super) state: LegState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LegState {
    /// Nobody has it yet.
    Open,
    /// This node has it: the owner, or a fallback for it.
    Done(NodeId),
    /// Nobody can be asked any more: the owner is owed it.
    Owed,
}

/// What a write needs in one layout.
#[derive(Debug)]
struct Tally {
    owners: Nodes,
    /// The count before anybody has it.
    none: Quorum,
}

impl Legs {
    /// A write that nobody has yet, which asks for `asked` owners in each layout, 0 for the layout's default.
    pub(super) fn new(view: &View, partition: Partition, asked: u8, planted: Planted) -> Legs {
        let (legs, tallies) = (SmallVec::new(), SmallVec::new());
        let mut legs = Legs { me: view.me, own_settled: false, legs, tallies, planted };
        legs.rebase(view, partition, asked);
        legs
    }

    /// Counts by the layouts of this view from now on. What nodes have, they keep.
    pub(super) fn rebase(&mut self, view: &View, partition: Partition, asked: u8) {
        let tally =
            |layout: &_| Tally { owners: owners(layout, partition), none: Copies::of(layout).write_at_most(asked) };
        self.tallies = view.written().map(|layout| tally(layout)).collect();
        if self.planted.is(Bug::UnionQuorum) && 1 < self.tallies.len() {
            self.unite_tallies();
        }
        let tallies = &self.tallies;
        self.legs.retain(|leg| leg.state != LegState::Open || 0 < leg.under_way || is_owner(tallies, leg.owner));
        let all: Nodes = self.tallies.iter().flat_map(|tally| tally.owners.iter().copied()).collect();
        let me = self.me;
        for owner in all.into_iter().filter(|owner| *owner != me) {
            // Who has stood in for another may be an owner now.
            let has_it = self.legs.iter().any(|leg| leg.state == LegState::Done(owner));
            let state = if has_it { LegState::Done(owner) } else { LegState::Open };
            match self.leg(owner) {
                None => self.legs.push(Leg { owner, under_way: 0, state }),
                Some(leg) if leg.state == LegState::Open => leg.state = state,
                Some(_) => {}
            }
        }
    }

    /// One count of the owners of all layouts together: the planted fault.
    fn unite_tallies(&mut self) {
        let mut owners: Nodes = self.tallies.iter().flat_map(|tally| tally.owners.iter().copied()).collect();
        owners.sort_unstable();
        owners.dedup();
        let (n, w) = (u8::try_from(owners.len()).unwrap_or(u8::MAX), self.tallies[0].none.needed());
        let none = Copies { n, r: 1, w }.write_at_most(0);
        self.tallies = [Tally { owners, none }].into_iter().collect();
    }

    /// Lets the copy of this node, which is no owner, stand for one owner in every layout: for the first.
    pub(super) fn stand_in(&mut self) -> Nodes {
        let mut stood_for = Nodes::new();
        let each = if self.planted.is(Bug::FallbackTwice) { 2 } else { 1 };
        for tally in &self.tallies {
            if !tally.owners.iter().any(|owner| *owner == self.me || stood_for.contains(owner)) {
                stood_for.extend(tally.owners.iter().take(each).copied());
            }
        }
        let me = self.me;
        self.legs
            .iter_mut()
            .filter(|leg| stood_for.contains(&leg.owner))
            .for_each(|leg| leg.state = LegState::Done(me));
        stood_for
    }

    pub(super) fn leg(&mut self, owner: NodeId) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|leg| leg.owner == owner)
    }

    /// Owners that nobody is asked about, and that nobody has it for.
    pub(super) fn lacking(&self) -> Nodes {
        let lacks =
            |leg: &&Leg| leg.state == LegState::Open && leg.under_way == 0 && is_owner(&self.tallies, leg.owner);
        self.legs.iter().filter(lacks).map(|leg| leg.owner).collect()
    }

    /// Owners that let their questions wait.
    pub(super) fn silent(&self) -> Nodes {
        let is_silent = |leg: &&Leg| leg.state == LegState::Open && 0 < leg.under_way;
        self.legs.iter().filter(is_silent).map(|leg| leg.owner).collect()
    }

    /// Whether the node owns the key in a layout that counts.
    pub(super) fn is_owner(&self, node: NodeId) -> bool {
        is_owner(&self.tallies, node)
    }

    /// Whether the node has it, for itself or for another.
    pub(super) fn has(&self, node: NodeId) -> bool {
        self.legs.iter().any(|leg| leg.state == LegState::Done(node))
    }

    /// Whether questions have no answer yet.
    pub(super) fn is_spreading(&self) -> bool {
        self.legs.iter().any(|leg| 0 < leg.under_way)
    }

    /// Whether every owner has it, or is owed it.
    pub(super) fn is_complete(&self) -> bool {
        let is_settled = |leg: &Leg| leg.state != LegState::Open || !is_owner(&self.tallies, leg.owner);
        self.own_settled && self.legs.iter().all(is_settled)
    }

    /// Enough only where it is enough in every layout, impossible where it is in one.
    pub(super) fn verdict(&self) -> Verdict {
        let verdicts: SmallVec<[Verdict; 2]> = self.tallies.iter().map(|tally| self.count(tally).verdict()).collect();
        match () {
            () if verdicts.contains(&Verdict::Impossible) => Verdict::Impossible,
            () if verdicts.contains(&Verdict::Wait) => Verdict::Wait,
            () => Verdict::Enough,
        }
    }

    /// The count in the layout where the fewest owners have it, as far as it needs them.
    fn least(&self) -> Quorum {
        let counts = self.tallies.iter().map(|tally| self.count(tally));
        let owners = |quorum: &Quorum| i16::from(quorum.level().owners) - i16::from(quorum.needed());
        counts.min_by_key(owners).expect("there is a layout")
    }

    /// The reply's account: of the layout where the fewest owners have it.
    pub(super) fn level(&self) -> Level {
        self.least().level()
    }

    /// The failure of a write whose time is over.
    pub(super) fn not_met(&self) -> Failure {
        let counts = self.tallies.iter().map(|tally| self.count(tally));
        let unmet =
            counts.filter(|quorum| quorum.verdict() != Verdict::Enough).min_by_key(|quorum| quorum.level().owners);
        unmet.unwrap_or_else(|| self.least()).not_met()
    }

    /// Distinct nodes count, each once; a fallback counts in every layout that has the owner for which it stands.
    fn count(&self, tally: &Tally) -> Quorum {
        let (mut quorum, mut fallbacks) = (tally.none, Nodes::new());
        let counts_twice = self.planted.is(Bug::FallbackTwice);
        for owner in &tally.owners {
            let state = match self.legs.iter().find(|leg| leg.owner == *owner) {
                Some(leg) => leg.state,
                None if *owner == self.me => LegState::Done(self.me),
                None => LegState::Open,
            };
            match state {
                LegState::Done(node) if node == self.me && !self.own_settled => {}
                LegState::Done(node) if node == *owner => quorum.on_owner(),
                LegState::Done(node)
                    if !tally.owners.contains(&node) && (counts_twice || !fallbacks.contains(&node)) =>
                {
                    fallbacks.push(node);
                    quorum.on_fallback();
                }
                LegState::Owed => quorum.on_failed(),
                LegState::Done(_) | LegState::Open => {}
            }
        }
        quorum
    }

    /// Nobody is asked any more: those that nobody has it for, which are owed it now.
    pub(super) fn give_up(&mut self) -> Nodes {
        let lacking = self.lacking();
        self.legs.iter_mut().filter(|leg| lacking.contains(&leg.owner)).for_each(|leg| leg.state = LegState::Owed);
        let tallies = &self.tallies;
        self.legs.retain(|leg| leg.state != LegState::Open || 0 < leg.under_way || is_owner(tallies, leg.owner));
        lacking
    }
}

fn is_owner(tallies: &[Tally], node: NodeId) -> bool {
    tallies.iter().any(|tally| tally.owners.contains(&node))
}

fn owners(layout: &crate::protocol::ring::Layout, partition: Partition) -> Nodes {
    layout.owners(partition).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::ring::{Change, Cores, Layout, LayoutRow, Step, Wanted};

    const ONE: Partition = Partition(0);

    fn layout(number: u64, nodes: &[u64]) -> Arc<Layout> {
        let row = |node: &u64| LayoutRow { node: NodeId(*node), incarnation: 1, zone: "".into(), weight: 1 };
        let owners = (0..3).collect();
        Arc::new(Layout::of(number, Wanted { n: 3, r: 2, w: 2 }, nodes.iter().map(row).collect(), owners))
    }

    fn view(stored: &[u64], pending: Option<&[u64]>) -> View {
        let stored = layout(1, stored);
        let change = |pending| Arc::new(Change { stored: Arc::clone(&stored), pending, step: Step::Write });
        let change = pending.map(|nodes| change(layout(2, nodes)));
        let alone = View::alone("", Cores { count: 1, salt: 0 }, 1);
        View { me: NodeId(1), epoch: 1, layout: Arc::clone(&stored), change, ..alone }
    }

    fn legs(view: &View) -> Legs {
        Legs::new(view, ONE, 0, Planted::NONE)
    }

    fn done(legs: &mut Legs, owner: u64, by: u64) {
        legs.leg(NodeId(owner)).unwrap().state = LegState::Done(NodeId(by));
    }

    #[test]
    fn two_of_the_union_are_not_two_of_each() {
        let mut legs = legs(&view(&[1, 2, 3], Some(&[3, 4, 5])));
        assert_eq!(legs.lacking().as_slice(), [2, 3, 4, 5].map(NodeId));
        legs.own_settled = true;
        done(&mut legs, 2, 2);
        assert_eq!(legs.verdict(), Verdict::Wait);
        assert_eq!(legs.not_met(), Failure::QuorumNotMet { needed: 2, got: 0 });
        done(&mut legs, 3, 3);
        assert_eq!(legs.verdict(), Verdict::Wait);
        done(&mut legs, 5, 5);
        assert_eq!((legs.verdict(), legs.level().owners), (Verdict::Enough, 2));
    }

    #[test]
    fn copies_count_anew_under_another_layout_and_none_is_lost() {
        let mut legs = legs(&view(&[1, 2, 3], None));
        legs.own_settled = true;
        // The fallback 4 has it for 2, and owns it in the next layout.
        done(&mut legs, 2, 4);
        let level = legs.level();
        assert_eq!((legs.verdict(), level.owners, level.fallbacks), (Verdict::Enough, 1, 1));

        legs.rebase(&view(&[1, 2, 3], Some(&[3, 4, 5])), ONE, 0);
        assert_eq!(legs.lacking().as_slice(), [3, 5].map(NodeId));
        assert_eq!((legs.verdict(), legs.not_met()), (Verdict::Wait, Failure::QuorumNotMet { needed: 2, got: 1 }));
        done(&mut legs, 3, 3);
        assert_eq!(legs.verdict(), Verdict::Enough);

        // Its own copy stood for itself; who owns nothing any more is neither asked nor waited for.
        legs.rebase(&view(&[3, 4, 5], None), ONE, 0);
        assert_eq!((legs.lacking().as_slice(), legs.level().owners), ([NodeId(5)].as_slice(), 2));
        done(&mut legs, 5, 5);
        assert!(legs.is_complete());
    }

    #[test]
    fn a_node_counts_once_for_whomever_it_stands_in() {
        let mut legs = legs(&view(&[2, 3, 4], Some(&[4, 5, 6])));
        // This node owns nothing: its copy stands for one owner of each layout.
        assert_eq!(legs.stand_in().as_slice(), [2, 4].map(NodeId));
        legs.own_settled = true;
        assert_eq!(legs.not_met(), Failure::QuorumNotMet { needed: 2, got: 1 });
        done(&mut legs, 3, 7);
        done(&mut legs, 5, 7);
        let level = legs.level();
        assert_eq!((legs.verdict(), level.owners, level.fallbacks), (Verdict::Enough, 0, 2));
        done(&mut legs, 3, 1);
        assert_eq!(legs.verdict(), Verdict::Wait, "this node stands in for two, and is one");
    }

    #[test]
    fn one_layout_without_enough_owners_ends_it() {
        let mut legs = legs(&view(&[1, 2, 3], Some(&[3, 4, 5])));
        legs.own_settled = true;
        done(&mut legs, 2, 2);
        legs.leg(NodeId(4)).unwrap().state = LegState::Owed;
        assert_eq!(legs.verdict(), Verdict::Wait);
        legs.leg(NodeId(5)).unwrap().state = LegState::Owed;
        assert_eq!(legs.verdict(), Verdict::Impossible);
    }
}
