//! Whoever runs a cluster: stages what is to change, commits it, and tries again until it is done.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::coverage::Reach;
use super::world::{At, Event, MembersEvent, Mend, World, WorldEvent};
use crate::protocol::membership::{Order, OrderId, OrderRefused};
use crate::protocol::ring::View;

/// Between two looks at what came of it.
const LOOK: Duration = Duration::from_millis(200);

/// So many looks after an order nobody will answer it any more.
const LOST_AFTER: u32 = 20;

/// So often in a row a member may say that nothing is staged, for it has not heard of it.
const HEARD_AFTER: u32 = 15;

/// So often something is tried before it is given up.
const TRIES: u32 = 60;

/// What an operator wants, and how far it is.
#[derive(Debug, Default)]
pub(super) struct Operator {
    wants: VecDeque<Want>,
    /// The order that has no answer yet.
    sent: Option<Sent>,
    tries: u32,
    orders: u64,
    is_busy: bool,
    /// What was staged is not committed yet.
    owes_commit: bool,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    id: OrderId,
    want: Want,
    /// How often its answer was looked for.
    looks: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Join(At),
    Leave(At),
    Remove(At),
    /// It is gone already, and that was forgotten.
    Again(At),
    /// The name is given free, then a node of it starts on its empty disk.
    Replace(At),
    Rejoin(At),
    Weight(At, u32),
    Zone(At, u32),
    Commit,
    /// What cannot be committed is forgotten.
    Clear,
}

impl Operator {
    /// A node is dead for good.
    pub(super) fn remove(&mut self, at: At) {
        self.forget(at);
        self.wants.push_front(Want::Remove(at));
    }

    /// A node has lost its disk.
    pub(super) fn replace(&mut self, at: At) {
        self.forget(at);
        self.wants.push_front(Want::Replace(at));
    }

    /// What was wanted of a node is of no use any more.
    fn forget(&mut self, at: At) {
        let is_of = |want: &Want| match want {
            Want::Leave(of) | Want::Weight(of, _) | Want::Zone(of, _) => *of == at,
            _ => false,
        };
        self.wants.retain(|want| !is_of(want));
    }

    /// Whether a lost disk is being made good.
    pub(super) fn is_replacing(&self) -> bool {
        self.wants.iter().any(|want| matches!(want, Want::Remove(_) | Want::Replace(_) | Want::Rejoin(_)))
    }

    /// Whether it is at rest.
    pub(super) fn is_done(&self) -> bool {
        self.wants.is_empty() && !self.owes_commit
    }

    /// Whether a node must not be started, for it is to be replaced or removed.
    pub(super) fn keeps_down(&self, at: At) -> bool {
        self.wants.iter().any(|want| [Want::Remove(at), Want::Replace(at), Want::Rejoin(at)].contains(want))
    }
}

impl World {
    /// An operator wants something.
    pub(super) fn stage_something(&mut self) {
        if 3 < self.operator.wants.len() {
            return;
        }
        let members = self.members();
        let copies = usize::from(self.stage.shape.wanted.n);
        let members: Vec<At> = members.into_iter().filter(|at| self.nodes[*at].is_well()).collect();
        let Some(at) = (!members.is_empty()).then(|| members[self.stage.chance.index(members.len())]) else { return };
        let want = match self.stage.chance.below(10) {
            0..4 if self.nodes.len() < self.stage.shape.nodes + self.stage.shape.spares => Want::Join(self.add()),
            4 | 5 if copies < members.len() => Want::Leave(at),
            6 | 7 => Want::Weight(at, u32::try_from(self.stage.chance.between(1, 4)).expect("small")),
            8 => Want::Zone(at, u32::try_from(self.stage.chance.below(3)).expect("small")),
            _ => return,
        };
        let fault = match want {
            Want::Join(_) => Reach::Join,
            Want::Leave(_) => Reach::Leave,
            Want::Weight(..) => Reach::Weight,
            _ => Reach::Zone,
        };
        self.stage.injected(fault);
        self.stage.note(|_| format!("-- operator: {want:?}"));
        self.operator.wants.push_back(want);
        self.wake_operator();
    }

    /// Nodes that run or may come back, and have a place.
    pub(super) fn members(&self) -> Vec<At> {
        let Some(newest) = self.newest() else { return vec![] };
        let is_member = |at: &At| !self.nodes[*at].is_gone && newest.layout.has(self.stage.posts[*at].id);
        (0..self.nodes.len()).filter(is_member).collect()
    }

    /// The operator looks after what it wants.
    pub(super) fn wake_operator(&mut self) {
        if !std::mem::replace(&mut self.operator.is_busy, true) {
            self.stage.after(Duration::from_millis(1), Event::World(WorldEvent::Operate));
        }
    }

    pub(super) fn operate(&mut self) {
        self.operator.is_busy = false;
        self.hear_of_order();
        // Whoever is gone for good must have no place any more, and who lost its disk must have it anew: it may have
        // been staged beside a change that began without it.
        self.operator.owes_commit |= !self.is_wild && (self.has_removed() || self.has_hollow());
        if self.operator.sent.is_none() {
            self.go_on();
        }
        if !self.operator.is_done() || self.operator.sent.is_some() {
            self.operator.is_busy = true;
            self.stage.after(LOOK, Event::World(WorldEvent::Operate));
        }
    }

    fn hear_of_order(&mut self) {
        let Some(Sent { id, want, looks }) = &mut self.operator.sent else { return };
        let (outcome, want) = (self.stage.ordered.remove(id), *want);
        *looks += 1;
        match outcome {
            // Whoever was to answer may have died.
            None if *looks < LOST_AFTER => {}
            None => self.operator.sent = None,
            Some(outcome) => {
                self.operator.sent = None;
                if let Err(why) = &outcome {
                    self.stage.note(|_| format!("-- operator is refused: {why}"));
                }
                self.on_ordered(want, outcome);
            }
        }
    }

    fn on_ordered(&mut self, want: Want, outcome: Result<(), OrderRefused>) {
        match (want, outcome) {
            (Want::Commit, Ok(())) => self.operator.owes_commit = false,
            // That was staged with somebody who has lost it since, or beside another wish, which has won.
            (
                Want::Commit,
                Err(OrderRefused::Silent { .. } | OrderRefused::NothingStaged | OrderRefused::UnderWay { .. }),
            ) if !self.is_wild && self.has_removed() => {
                let removed: Vec<At> = self.removed().collect();
                self.operator.wants.extend(removed.into_iter().map(Want::Again));
            }
            // Or whoever was told has not heard of it yet.
            (Want::Commit, Err(OrderRefused::NothingStaged)) => {
                self.operator.tries += 1;
                let is_left = self.has_removed() || self.has_hollow();
                let is_sure = !self.is_wild && HEARD_AFTER < self.operator.tries && !is_left;
                self.operator.owes_commit = !is_sure;
            }
            // Whoever is gone for good must be made up for first.
            (Want::Commit, Err(OrderRefused::TooFewCopies { .. })) if self.has_removed() => {
                let at = self.add();
                self.operator.wants.push_front(Want::Join(at));
            }
            (Want::Commit, Err(OrderRefused::TooFewCopies { .. })) => self.operator.wants.push_front(Want::Clear),
            // Whoever was told to remove it did so and died, and it only stood still.
            (Want::Commit, Err(OrderRefused::StillUp { .. })) if HEARD_AFTER < self.operator.tries => {
                self.operator.wants.push_front(Want::Clear);
            }
            // It was about to leave: nobody of its name is needed.
            (Want::Replace(at), Err(OrderRefused::NotPlaced { .. })) if self.is_placed(at) => {
                self.operator.wants.retain(|other| *other != want);
                self.operator.wants.push_front(Want::Remove(at));
            }
            // It only stood still, and goes on.
            (Want::Remove(at), Err(OrderRefused::StillUp { .. })) if self.nodes[at].is_well() => {
                self.operator.wants.retain(|other| *other != want);
            }
            // It had no place yet. Whoever was told may only not have heard of it.
            (Want::Replace(at) | Want::Remove(at), Err(OrderRefused::NoSuchNode | OrderRefused::NotPlaced { .. }))
                if !self.is_placed(at) && HEARD_AFTER < self.operator.tries =>
            {
                self.done(want);
            }
            (_, Ok(())) => self.done(want),
            (_, Err(_)) => self.count_try(want),
        }
    }

    /// Whether a node that was removed has a place still.
    fn has_removed(&self) -> bool {
        self.removed().next().is_some()
    }

    /// Whether a node that came back on an empty disk has the place of the one before it.
    fn has_hollow(&self) -> bool {
        let Some(layout) = self.newest().and_then(|view| view.written().last()) else { return false };
        let comes_back = |at: &At| !self.nodes[*at].is_gone && self.nodes[*at].has_joined();
        (0..self.nodes.len()).filter(comes_back).any(|at| {
            let (id, incarnation) = (self.stage.posts[at].id, self.nodes[at].incarnation);
            layout.rows().iter().any(|row| row.node == id && row.incarnation != incarnation)
        })
    }

    /// Nodes that are gone for good and have a place still, in a change that is under way too, or wait for one.
    pub(super) fn removed(&self) -> impl Iterator<Item = At> {
        (0..self.nodes.len()).filter(|at| self.nodes[*at].is_gone && (self.is_placed(*at) || self.is_known(*at)))
    }

    /// Whether somebody else takes a node for a member.
    fn is_known(&self, at: At) -> bool {
        let id = self.stage.posts[at].id;
        let mut views = self.nodes.iter().filter(|node| node.is_alive()).filter_map(|node| node.view());
        let has_it = |view: &Arc<View>| view.member(id).is_some_and(|member| !member.is_removed);
        views.any(|view| view.me != id && has_it(view))
    }

    /// Whether a node has a place, comes to one, or is about to leave it.
    fn is_placed(&self, at: At) -> bool {
        self.newest().is_some_and(|view| view.written().any(|layout| layout.has(self.stage.posts[at].id)))
    }

    /// What whoever knows most knows of the cluster.
    fn newest(&self) -> Option<&View> {
        let views = self.stage.watch.truth.nodes.iter().filter_map(|node| node.view.as_deref());
        // Whoever was lost in the middle of a change knows of it still, and never hears how it ended.
        views.max_by_key(|view| (view.stamp().number, view.layout.stamp().number, view.change.is_none()))
    }

    fn count_try(&mut self, want: Want) {
        self.operator.tries += 1;
        // Nobody may give up on a lost disk.
        let is_dear = matches!(want, Want::Remove(_) | Want::Replace(_) | Want::Rejoin(_) | Want::Commit);
        if TRIES <= self.operator.tries && !is_dear {
            self.operator.tries = 0;
            self.operator.wants.retain(|other| *other != want);
        }
    }

    fn done(&mut self, want: Want) {
        self.operator.tries = 0;
        // What came back on an empty disk is staged still when the rest was cleared.
        self.operator.owes_commit = true;
        self.operator.wants.retain(|other| *other != want);
        match want {
            Want::Remove(at) => {
                // Nobody takes its name.
                self.operator.wants.retain(|other| ![Want::Replace(at), Want::Rejoin(at)].contains(other));
                self.nodes[at].is_gone = true;
                self.stage.watch.truth.nodes[at].is_removed = true;
                if self.nodes[at].stalled.is_some() {
                    self.mend_after(200, 4_000, Mend::Resume(at));
                } else {
                    // It may have gone on since: whoever removes it switches it off.
                    self.end(at, false);
                    self.stage.watch.truth.lose_disk(at);
                }
                self.stage.injected(Reach::Remove);
            }
            Want::Replace(at) => self.operator.wants.push_front(Want::Rejoin(at)),
            Want::Rejoin(_) => self.stage.injected(Reach::Replace),
            Want::Clear => {
                let removed: Vec<At> = self.removed().collect();
                removed.into_iter().for_each(|at| self.operator.wants.push_front(Want::Again(at)));
            }
            Want::Join(_) | Want::Leave(_) | Want::Weight(..) | Want::Zone(..) | Want::Again(_) | Want::Commit => {}
        }
    }

    fn go_on(&mut self) {
        let Some(want) = self.operator.wants.front().copied() else {
            if self.operator.owes_commit {
                self.order(Want::Commit, Order::Commit);
            }
            return;
        };
        let id = |at: At| self.stage.posts[at].id;
        match want {
            Want::Join(at) | Want::Rejoin(at) => self.let_join(at, want),
            Want::Leave(at) => self.order(want, Order::Leave(id(at))),
            Want::Remove(at) | Want::Again(at) => self.order(want, Order::Remove(id(at))),
            Want::Replace(at) => self.order(want, Order::Replace { node: id(at), by: None }),
            Want::Weight(at, weight) => self.order(want, Order::Weight(id(at), weight)),
            Want::Zone(at, zone) => self.order(want, Order::Zone(id(at), format!("z{zone}").into())),
            Want::Commit => self.order(want, Order::Commit),
            Want::Clear => self.order(want, Order::Clear),
        }
    }

    fn order(&mut self, want: Want, order: Order) {
        let Some(told) = self.some_member(None) else { return };
        self.operator.orders += 1;
        let id = OrderId(self.operator.orders);
        let life = self.stage.posts[told].life.expect("it runs");
        self.stage.note(|_| format!("-- operator tells n{told}: {order:?}"));
        self.stage.after(Duration::from_millis(1), Event::Members(told, life, MembersEvent::Order(id, order)));
        self.operator.sent = Some(Sent { id, want, looks: 0 });
    }

    fn some_member(&mut self, but: Option<At>) -> Option<At> {
        let is_told = |at: &At| Some(*at) != but && self.nodes[*at].is_well();
        let members: Vec<At> = self.members().into_iter().filter(is_told).collect();
        (!members.is_empty()).then(|| members[self.stage.chance.index(members.len())])
    }

    /// A node asks a member for a place, and starts.
    fn let_join(&mut self, at: At, want: Want) {
        let seed = self.some_member(Some(at));
        let Some(known) = seed.and_then(|seed| self.nodes[seed].knowledge()) else {
            return self.count_try(want);
        };
        if self.nodes[at].is_alive() {
            return self.count_try(want);
        }
        if self.nodes[at].join(known).is_none() {
            if want == Want::Rejoin(at) && self.is_placed(at) {
                // Its name was given free when it had no place, and it has come to one since.
                self.operator.wants.push_front(Want::Replace(at));
            } else if want == Want::Rejoin(at) && HEARD_AFTER < self.operator.tries {
                // It was leaving, and nobody of its name is needed.
                self.operator.wants.retain(|other| *other != want);
                return self.operator.wants.push_front(Want::Remove(at));
            }
            return self.count_try(want);
        }
        self.done(want);
        self.start(at);
    }
}
