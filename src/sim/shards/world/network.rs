//! The network of a world: what goes through at once, late, or not at all.

use std::time::Duration;

use super::{Event, HOP, Message, World, id};
use crate::protocol::config::ASK_PATIENCE;
use crate::protocol::io::{Input, Standing};
use crate::protocol::peer::{Ask, Told, Unheard};
use crate::protocol::types::{AskId, Instant, NodeId, TicketId};

impl World {
    /// Nothing goes from one node to the other any more; nobody is told.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// There is a connection from one node to the other, and no room on it any more; or there is again.
    pub(crate) fn clog(&mut self, from: usize, to: usize, is_clogged: bool) {
        if is_clogged {
            self.clogged.insert((from, to))
        } else {
            self.clogged.remove(&(from, to))
        };
    }

    /// Messages that set out from one node to the other from now on take so much longer.
    pub(crate) fn slow(&mut self, from: usize, to: usize, by: Duration) {
        self.slowed.insert((from, to), by);
    }

    /// All cuts are mended, and every connection is made anew.
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        let all = self.nodes.len();
        for (one, other) in (0..all).flat_map(|one| (0..all).map(move |other| (one, other))) {
            if one != other && self.nodes[other].shard.is_some() {
                self.feed(one, Input::Linked(id(other)));
            }
        }
    }

    /// A question sets out; one to a dead node ends at once, as its connection did.
    pub(super) fn send_ask(
        &mut self,
        from: usize,
        to: NodeId,
        ask_id: AskId,
        stand: Standing,
        ask: Ask,
        deadline: Instant,
    ) -> Option<Input> {
        let to = self.index(to);
        if self.nodes[to].shard.is_none() {
            return Some(Input::Told { ask: ask_id, told: Err(Unheard::NotSent) });
        }
        if self.clogged.contains(&(from, to)) {
            return Some(Input::Told { ask: ask_id, told: Err(Unheard::NotTaken) });
        }
        self.tickets += 1;
        let ticket = TicketId(self.tickets);
        self.asked.insert(ticket, (from, self.nodes[from].lives, ask_id));
        let patience = deadline.since(self.now).min(ASK_PATIENCE);
        let life = self.nodes[to].lives;
        self.send(from, to, life, Message::Ask { ticket, stand, ask, patience });
        None
    }

    pub(super) fn send_told(&mut self, from: usize, ticket: TicketId, told: Told) {
        if let Some(&(to, life, ask)) = self.asked.get(&ticket) {
            self.send(from, to, life, Message::Told { ask, told: Ok(told) });
        }
    }

    fn send(&mut self, from: usize, to: usize, life: u64, message: Message) {
        if self.cut.contains(&(from, to)) {
            return;
        }
        let way = self.about(HOP) + self.slowed.get(&(from, to)).copied().unwrap_or_default();
        self.schedule(way, Event::Deliver { to, life, message });
    }
}
