//! Whoever runs a cluster: stages what is to change, commits it, and tries again until it is done.

use std::collections::VecDeque;
use std::time::Duration;

use super::coverage::Reach;
use super::world::{At, Event, MembersEvent, World, WorldEvent};
use crate::protocol::membership::{Order, OrderId};

/// Between two looks at what came of it.
const LOOK: Duration = Duration::from_millis(200);

/// So often something is tried before it is given up.
const TRIES: u32 = 60;

/// What an operator wants, and how far it is.
#[derive(Debug, Default)]
pub struct Operator {
    wants: VecDeque<Want>,
    /// The order that has no answer yet.
    sent: Option<(OrderId, u32)>,
    tries: u32,
    orders: u64,
    is_busy: bool,
    /// What was staged is not committed yet.
    owes_commit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Join(At),
    Leave(At),
    Remove(At),
    /// The name is given free, then a node of it starts on its empty disk.
    Replace(At),
    Rejoin(At),
    Weight(At, u32),
    Zone(At, u32),
    Commit,
}

impl Operator {
    /// A node is dead for good.
    pub fn remove(&mut self, at: At) {
        self.wants.push_front(Want::Remove(at));
    }

    /// A node has lost its disk.
    pub fn replace(&mut self, at: At) {
        self.wants.push_front(Want::Replace(at));
    }

    /// Whether a lost disk is being made good.
    pub fn is_replacing(&self) -> bool {
        self.wants.iter().any(|want| matches!(want, Want::Remove(_) | Want::Replace(_) | Want::Rejoin(_)))
    }

    /// Whether it is at rest.
    pub fn is_done(&self) -> bool {
        self.wants.is_empty() && !self.owes_commit
    }

    /// Whether a node must not be started, for it is to be replaced or removed.
    pub fn keeps_down(&self, at: At) -> bool {
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
    pub fn members(&self) -> Vec<At> {
        let placed = self.stage.watch.truth.nodes.iter().filter_map(|node| node.view.as_ref());
        let newest = placed.max_by_key(|view| view.stamp().number);
        let is_placed = |at: &At| newest.is_some_and(|view| view.layout.has(self.stage.posts[*at].id));
        (0..self.nodes.len()).filter(|at| !self.nodes[*at].is_gone && is_placed(at)).collect()
    }

    /// The operator looks after what it wants.
    pub fn wake_operator(&mut self) {
        if !std::mem::replace(&mut self.operator.is_busy, true) {
            self.stage.after(Duration::from_millis(1), Event::World(WorldEvent::Operate));
        }
    }

    pub(super) fn operate(&mut self) {
        self.operator.is_busy = false;
        self.hear_of_order();
        if self.operator.sent.is_none() {
            self.go_on();
        }
        if !self.operator.is_done() || self.operator.sent.is_some() {
            self.operator.is_busy = true;
            self.stage.after(LOOK, Event::World(WorldEvent::Operate));
        }
    }

    fn hear_of_order(&mut self) {
        let Some((id, looks)) = &mut self.operator.sent else { return };
        let outcome = self.stage.ordered.remove(id);
        *looks += 1;
        // Whoever was to answer may have died.
        let is_lost = outcome.is_none() && 20 < *looks;
        if outcome.is_none() && !is_lost {
            return;
        }
        self.operator.sent = None;
        let is_done = matches!(outcome, Some(Ok(())));
        if let Some(Err(why)) = &outcome {
            self.stage.note(|_| format!("-- operator is refused: {why}"));
        }
        if self.operator.wants.is_empty() {
            self.operator.owes_commit &= !is_done;
            return self.count_try(is_done);
        }
        if is_done {
            self.operator.tries = 0;
            self.on_staged();
        } else {
            self.count_try(false);
        }
    }

    fn count_try(&mut self, is_done: bool) {
        self.operator.tries = if is_done { 0 } else { self.operator.tries + 1 };
        if self.operator.tries < TRIES {
            return;
        }
        self.operator.tries = 0;
        match self.operator.wants.front() {
            // Nobody may give up on a lost disk.
            Some(Want::Remove(_) | Want::Replace(_) | Want::Rejoin(_)) => {}
            Some(_) => drop(self.operator.wants.pop_front()),
            None => {}
        }
    }

    fn on_staged(&mut self) {
        let Some(want) = self.operator.wants.pop_front() else { return };
        self.operator.owes_commit = true;
        match want {
            Want::Remove(at) => {
                self.nodes[at].is_gone = true;
                self.stage.watch.truth.lose_disk(at);
                self.stage.watch.truth.losses -= 1;
                self.stage.injected(Reach::Remove);
            }
            Want::Replace(at) => self.operator.wants.push_front(Want::Rejoin(at)),
            Want::Leave(_) | Want::Weight(..) | Want::Zone(..) | Want::Join(_) | Want::Rejoin(_) | Want::Commit => {}
        }
    }

    fn go_on(&mut self) {
        let Some(want) = self.operator.wants.front().copied() else {
            if self.operator.owes_commit {
                self.order(Order::Commit, None);
            }
            return;
        };
        let id = |at: At| self.stage.posts[at].id;
        match want {
            Want::Join(at) | Want::Rejoin(at) => self.let_join(at),
            Want::Leave(at) => self.order(Order::Leave(id(at)), None),
            Want::Remove(at) => self.order(Order::Remove(id(at)), Some(at)),
            Want::Replace(at) => self.order(Order::Replace { node: id(at), by: None }, Some(at)),
            Want::Weight(at, weight) => self.order(Order::Weight(id(at), weight), None),
            Want::Zone(at, zone) => self.order(Order::Zone(id(at), format!("z{zone}").into()), None),
            Want::Commit => self.order(Order::Commit, None),
        }
    }

    fn order(&mut self, order: Order, but: Option<At>) {
        let alive: Vec<At> =
            self.members().into_iter().filter(|at| Some(*at) != but && self.nodes[*at].is_well()).collect();
        let Some(told) = (!alive.is_empty()).then(|| alive[self.stage.chance.index(alive.len())]) else { return };
        self.operator.orders += 1;
        let id = OrderId(self.operator.orders);
        let life = self.stage.posts[told].life.expect("it runs");
        self.stage.note(|_| format!("-- operator tells n{told}: {order:?}"));
        self.stage.after(Duration::from_millis(1), Event::Members(told, life, MembersEvent::Order(id, order)));
        self.operator.sent = Some((id, 0));
    }

    /// A node asks a member for a place, and starts.
    fn let_join(&mut self, at: At) {
        let alive: Vec<At> =
            self.members().into_iter().filter(|member| *member != at && self.nodes[*member].is_well()).collect();
        let Some(seed) = (!alive.is_empty()).then(|| alive[self.stage.chance.index(alive.len())]) else {
            return self.count_try(false);
        };
        let Some(known) = self.nodes[seed].knowledge() else { return self.count_try(false) };
        if self.nodes[at].join(known).is_none() {
            return self.count_try(false);
        }
        if self.operator.wants.front() == Some(&Want::Rejoin(at)) {
            self.stage.injected(Reach::Replace);
        }
        self.on_staged();
        self.start(at);
    }
}
