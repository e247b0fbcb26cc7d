//! What a core has to do with other nodes: asks that come in, asks that go out, and the view.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::calls::VALUES_BYTES_SMALL;
use super::{Core, Phase};
use crate::protocol::config::DEADLINE_MAX;
use crate::protocol::io::{Held, Input};
use crate::protocol::message::Failure;
use crate::protocol::peer::{Ask, Refused, Told, Unheard};
use crate::protocol::ring::{LayoutStamp, Partition, View};
use crate::protocol::types::{AskId, NodeId, TicketId};
use crate::runtime::connection::Connection;
use crate::runtime::gather;
use crate::runtime::link::{End, Heard, Link, Question};
use crate::runtime::mail::Notice;
use crate::wire::frame::CallId;
use crate::wire::peer as spelt;

/// Between two notices of one layout: every ask of a peer may tell of it.
const COMPARED_AGAIN: Duration = Duration::from_millis(100);

impl Core {
    /// A core of another node asks.
    pub(super) fn on_ask(&mut self, connection: &Rc<Connection>, id: CallId, question: spelt::Question) {
        let spelt::Question { stand, deadline_ms, ask } = question;
        let partition = ask.partition(self.parts.ring).expect("all that is asked is about a partition");
        let owner = self.parts.cores.of(partition);
        if owner != self.parts.id {
            let reason =
                format!("this is core {} of the node, and the partition belongs to core {owner}", self.parts.id);
            return self.on_malformed(connection, id, &Failure::Malformed { reason });
        }
        let ticket = self.tickets.begin(Rc::clone(connection), id);
        if let Err(refused) = self.admit(&ask) {
            return self.tell(ticket, &Told::Refused(refused));
        }
        let held = ask.key().map_or(Held::Unknown, |key| self.parts.engine.held(key));
        let deadline = self.now.instant + Duration::from_millis(deadline_ms.into()).min(DEADLINE_MAX);
        self.feed(Input::Asked { ticket, stand, ask, held, deadline });
    }

    fn admit(&self, ask: &Ask) -> Result<(), Refused> {
        if self.phase != Phase::Serving {
            return Err(Refused::Stopping);
        }
        if !ask.is_write() {
            return Ok(());
        }
        self.parts.engine.admit().map_err(Refused::from)
    }

    /// Tells a peer what it asked. Where unread answers fill the memory, large values are refused; what was written is
    /// told in any case.
    pub(super) fn tell(&mut self, ticket: TicketId, told: &Told) {
        let (connection, id) = self.tickets.end(ticket);
        let is_large = VALUES_BYTES_SMALL < value_bytes(told);
        let told = if is_large && self.replies_are_full() { &Told::Refused(Refused::Overloaded) } else { told };
        self.replies_bytes += connection.tell(id, told);
        self.becomes_dirty(&connection);
    }

    /// Asks a peer, or ends the ask at once.
    pub(super) fn ask_peer(&mut self, to: (NodeId, Partition), question: &Question<'_>) {
        if let Err(unheard) = self.links.ask(self.now.instant, to, question) {
            self.inputs.push_back(Input::Told { ask: question.id, told: Err(unheard) });
        }
    }

    /// A peer goes by another layout.
    pub(super) fn compare(&mut self, stamp: LayoutStamp) {
        let (last, at) = self.compared;
        let is_told = last == stamp && self.now.instant.since(at) < COMPARED_AGAIN;
        // Where there is no room others have told enough, and the next ask tells again.
        if !is_told && self.parts.notices.try_send(Notice::Compare(stamp)).is_ok() {
            self.compared = (stamp, self.now.instant);
        }
    }

    /// The cluster is seen otherwise.
    pub(super) fn on_view(&mut self, view: Arc<View>) {
        let lost = self.links.on_view(self.now.instant, &view, &self.parts.metrics);
        self.feed(Input::View(view));
        self.lose(lost);
    }

    /// Whether the cluster was seen, and every line to members that answer is up, or was tried in vain.
    pub fn links_are_settled(&self) -> bool {
        0 < self.parts.shard.view().epoch && self.links.are_settled()
    }

    /// Whether a line is waited for, and under this attempt.
    pub fn waits_for(&self, to: End, attempt: u64) -> bool {
        self.links.waits_for(to, attempt)
    }

    /// A line that was waited for is up, or will not be.
    pub fn on_dialed(&mut self, to: End, link: Option<&Rc<Link>>) {
        match link {
            Some(link) => {
                self.links.on_up(link);
                self.feed(Input::Linked(to.0));
            }
            None => self.links.on_failed(self.now.instant, to),
        }
    }

    /// A peer tells what it was asked.
    pub fn on_told(&mut self, link: &Link, heard: Heard) {
        self.links.on_told(link, &heard);
        self.feed(Input::Told { ask: heard.ask, told: heard.told });
    }

    /// A link has ended.
    pub fn on_link_lost(&mut self, link: &Rc<Link>) {
        let lost = self.links.on_lost(self.now.instant, link);
        self.lose(lost);
    }

    /// Sends what waits on a link, as far as it goes.
    pub fn send_asks(&mut self, link: &Rc<Link>) {
        self.links.send(link);
    }

    fn lose(&mut self, asks: Vec<AskId>) {
        for ask in asks {
            self.feed(Input::Told { ask, told: Err(Unheard::Lost) });
        }
    }
}

/// Bytes of the values that are told.
fn value_bytes(told: &Told) -> usize {
    match told {
        Told::Stored | Told::Behind | Told::Same | Told::Refused(_) => 0,
        Told::Digests(_) | Told::Collected(_) => 0,
        Told::Page(page) => page.sets.iter().map(|pulled| pulled.set.bytes()).sum(),
        Told::Set(set) => set.as_ref().map_or(0, |set| set.bytes()),
        Told::Recalled(recalled) => recalled.set.as_ref().map_or(0, |set| set.bytes()),
        Told::Outcome(outcome) => gather::value_bytes(outcome),
    }
}

#[cfg(test)]
impl Core {
    /// Keeps back what concerns peers when there is a spy, in place of the shard.
    pub(super) fn spied(&mut self, input: Input) -> Option<Input> {
        let is_of_peers = matches!(input, Input::Asked { .. } | Input::Told { .. } | Input::View(_) | Input::Linked(_));
        match &mut self.spy {
            Some(spy) if is_of_peers => {
                spy.push(input);
                None
            }
            _ => Some(input),
        }
    }

    pub(in crate::runtime) fn links(&self) -> &crate::runtime::links::Links {
        &self.links
    }

    /// Carries out what a shard would say, and sends it.
    pub(in crate::runtime) fn act(&mut self, effects: impl IntoIterator<Item = crate::protocol::io::Effect>) {
        effects.into_iter().for_each(|effect| self.perform(effect));
        self.feed(Input::Tick);
        self.flush();
    }
}
