//! The network between nodes: what is lost, late, doubled or cut, and how long the rest takes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::super::coverage::Reach;
use super::stage::{Asker, At, CoreEvent, Event, MembersEvent, Place, Stage, WorldEvent};
use crate::protocol::peer::Unheard;
use crate::protocol::types::{AskId, NodeId};

/// A connection that has died is found dead after so long at the earliest and at the latest.
const FOUND_DEAD: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(4));

/// The weather between nodes, and single ways that are bad.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    /// Of a thousand messages, so many are lost, so many late, so many come twice.
    pub lost: u64,
    /// See [`Network::lost`].
    pub late: u64,
    /// See [`Network::lost`].
    pub doubled: u64,
    /// What is late is that late at most.
    pub lateness: Duration,
    /// Directions in which nothing goes through.
    pub cut: BTreeSet<(At, At)>,
    /// Directions whose connections take no more.
    pub clogged: BTreeSet<(At, At)>,
    /// Directions in which everything takes longer.
    pub slow: BTreeMap<(At, At), Duration>,
}

impl Network {
    /// Nothing is wrong with it.
    pub(crate) fn calm(&mut self) {
        *self = Network::default();
    }
}

impl Stage {
    /// An ask sets out. One to a dead node, or on a way that takes no more, ends at once.
    pub(crate) fn send_ask(
        &mut self,
        from: Place,
        to: (At, crate::protocol::types::CoreId),
        ask: AskId,
        frame: Bytes,
    ) -> Option<Unheard> {
        let (node, core) = to;
        let Some(life) = self.posts[node].life.filter(|_| self.serves(node)) else {
            return Some(Unheard::NotSent);
        };
        if self.network.clogged.contains(&(from.node, node)) {
            self.injected(Reach::Clogged);
            return Some(Unheard::NotTaken);
        }
        let ticket = self.ticket();
        let asker = Asker { place: from, ticket, ask };
        let place = Place { node, life, core };
        if self.is_lost(from.node, node) {
            // The connection has died, and that is found out later.
            self.find_lost(from, node, ask);
            return None;
        }
        self.under_way.entry(node).or_default().insert(ticket, asker);
        let way = self.way(from.node, node);
        if self.chance.thousandth(self.network.doubled) {
            self.injected(Reach::Doubled);
            let again = Asker { ticket: self.ticket(), ..asker };
            let later = way + self.chance.time(Duration::ZERO, self.network.lateness);
            let frame = frame.clone();
            self.after(later, Event::Core(place, CoreEvent::Asked { asker: again, frame }));
        }
        self.after(way, Event::Core(place, CoreEvent::Asked { asker, frame }));
        None
    }

    /// What a peer was asked is told. Nothing comes where nobody waits.
    pub(crate) fn send_told(&mut self, from: At, asker: Asker, frame: Bytes) {
        let waits = self.under_way.get_mut(&from).and_then(|asks| asks.remove(&asker.ticket)).is_some();
        if !waits || self.posts[asker.place.node].life != Some(asker.place.life) {
            return;
        }
        if self.is_lost(from, asker.place.node) {
            return self.find_lost(asker.place, from, asker.ask);
        }
        let way = self.way(from, asker.place.node);
        self.after(way, Event::Core(asker.place, CoreEvent::Told { ask: asker.ask, told: Ok(frame) }));
    }

    /// Every connection to a node ends: what it was asked may have been done or not.
    pub(crate) fn break_connections(&mut self, to: At) {
        for asker in self.under_way.remove(&to).unwrap_or_default().into_values() {
            let way = self.way(to, asker.place.node);
            self.lose(asker.place, to, asker.ask, way);
        }
    }

    /// It is found out that a connection has died. Another one takes its place only then.
    fn lose(&mut self, asker: Place, peer: At, ask: AskId, found: Duration) {
        self.after(found, Event::Core(asker, CoreEvent::Told { ask, told: Err(Unheard::Lost) }));
        self.after(found + Duration::from_millis(1), Event::World(WorldEvent::Relink(asker.node, peer)));
    }

    /// Both nodes find a line to each other.
    pub(crate) fn link(&mut self, one: At, other: At) {
        for (from, to) in [(one, other), (other, one)] {
            let (Some(life), id) = (self.posts[from].life, self.posts[to].id) else { continue };
            if self.serves(to) && !self.network.cut.contains(&(from, to)) {
                self.tell_linked(from, life, id);
            }
        }
    }

    fn tell_linked(&mut self, from: At, life: u64, id: NodeId) {
        for core in 0..self.posts[from].cores.count {
            let place = Place { node: from, life, core: crate::protocol::types::CoreId(core) };
            let way = self.chance.time(Duration::from_millis(1), Duration::from_millis(60));
            self.after(way, Event::Core(place, CoreEvent::Linked(id)));
        }
    }

    /// A datagram sets out. It may be lost, late or doubled.
    pub(crate) fn send_packet(&mut self, from: At, to: At, bytes: Bytes) {
        let Some(life) = self.posts[to].life else { return };
        if self.is_lost(from, to) {
            return;
        }
        if self.chance.thousandth(self.network.doubled) {
            self.injected(Reach::Doubled);
            let way = self.way(from, to) + self.chance.time(Duration::ZERO, self.network.lateness);
            self.after(way, Event::Members(to, life, MembersEvent::Packet(from, bytes.clone())));
        }
        let way = self.way(from, to);
        self.after(way, Event::Members(to, life, MembersEvent::Packet(from, bytes)));
    }

    /// Something else sets out, on a connection of its own; `None` where it does not arrive.
    pub(crate) fn sets_out(&mut self, from: At, to: At) -> Option<Duration> {
        self.posts[to].life?;
        (!self.is_lost(from, to)).then(|| self.way(from, to))
    }

    fn is_lost(&mut self, from: At, to: At) -> bool {
        if self.network.cut.contains(&(from, to)) {
            self.injected(Reach::Swallowed);
            return true;
        }
        let is_lost = self.chance.thousandth(self.network.lost);
        if is_lost {
            self.injected(Reach::Lost);
        }
        is_lost
    }

    fn find_lost(&mut self, asker: Place, peer: At, ask: AskId) {
        self.note(|_| ".. lost".to_owned());
        let wait = self.chance.time(FOUND_DEAD.0, FOUND_DEAD.1);
        self.lose(asker, peer, ask, wait);
    }

    fn way(&mut self, from: At, to: At) -> Duration {
        let hop = self.shape.hop;
        let mut way = self.chance.time(hop, 2 * hop) + self.posts[to].lag;
        if let Some(slow) = self.network.slow.get(&(from, to)) {
            way += *slow;
        }
        if self.chance.thousandth(self.network.late) {
            self.injected(Reach::Late);
            way += self.chance.time(Duration::ZERO, self.network.lateness);
        }
        way
    }
}
