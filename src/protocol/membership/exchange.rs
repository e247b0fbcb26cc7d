//! Exchanges with other members: when, with whom, and what is learned from what they know.

use core::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::io::{Answer, Effect, ExchangeId, Knowledge, Letter, Note, Unanswered};
use super::past::{self, Refusal};
use super::row::Row;
use super::{LayoutStamp, Membership};
use crate::protocol::types::{Instant, NodeId};

/// Two nodes compare what they know no more often than this, on the word of packets.
const COMPARE_PERIOD: Duration = Duration::from_millis(200);

/// Members that are asked when a core has heard of another layout, and that are told at a time that this node has left.
const ASKED_MAX: usize = 3;

/// Members that are told of news at once; the others hear of it by gossip.
const TOLD_MAX: usize = 16;

/// An exchange under way.
#[derive(Debug)]
pub(super) struct Sent {
    to: Option<NodeId>,
    address: SocketAddr,
    /// Whether it tells a member that stays that this node has left. Whoever knows it durably shows it in the answer.
    is_last: bool,
}

impl Membership {
    /// Whose layout differs is not told: a few members are asked, and the others hear of it by gossip. So are they
    /// where somebody has come further in one change.
    pub(super) fn on_differs(&mut self, now: Instant, stamp: LayoutStamp, effects: &mut Vec<Effect>) {
        if stamp == self.layouts.stamp() && self.layouts.pending.is_none() {
            return;
        }
        let others: Vec<_> = self.others().take(ASKED_MAX).collect();
        for (node, address) in others {
            self.compare_soon(now, node, address, effects);
        }
    }

    pub(super) fn on_answered(
        &mut self,
        exchange: ExchangeId,
        answer: Result<Answer, Unanswered>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Sent { address, is_last, .. }) = self.exchanges.remove(&exchange) else {
            return;
        };
        match answer {
            Ok(Answer::Knowledge(theirs)) if is_last && theirs.rows.get(self.me).is_some_and(Row::is_removed) => {
                let name = self.own().name.to_string();
                self.refuse(Refusal::Left { name }, effects);
            }
            Ok(Answer::Knowledge(theirs)) => self.learn(&theirs, effects),
            Err(Unanswered::Foreign { theirs }) => effects.push(Effect::Note(Note::Foreign { address, theirs })),
            Err(Unanswered::Silent) => {}
        }
    }

    /// Learns what another member knows.
    pub(super) fn learn(&mut self, theirs: &Knowledge, effects: &mut Vec<Effect>) {
        if theirs.cluster != Some(self.cluster) || theirs.partitions != self.partitions {
            return;
        }
        if let Some(refusal) = self.refusal(theirs) {
            return self.refuse(refusal, effects);
        }
        let joined = theirs.rows.iter().filter(|row| self.rows.get(row.node).is_none());
        for name in joined.map(|row| Arc::clone(&row.name)) {
            effects.push(Effect::Note(Note::Staged { name }));
        }
        if self.rows.join(&theirs.rows) {
            self.touch();
        }
        if let Some(layout) = &theirs.layout {
            self.learn_stored(layout, effects);
        }
        if let Some(layout) = &theirs.pending {
            self.learn_pending(layout, effects);
        }
    }

    /// Why this node may not go on, by what another one knows of it.
    fn refusal(&self, theirs: &Knowledge) -> Option<Refusal> {
        let (mine, row) = (self.own(), theirs.rows.get(self.me)?);
        let start = (mine.start.count, mine.start.stamp);
        // Of two that claim the same, one goes on: the one that all rows join to.
        let is_behind = (mine.life(), start) < (row.life(), (row.start.count, row.start.stamp));
        // One that has left knows it first, and ends when it has been heard.
        let is_removed = !mine.is_removed() && mine.life() == row.life() && row.is_removed();
        if !is_behind && !is_removed {
            return None;
        }
        past::judge(row, mine.incarnation, start).err()
    }

    fn refuse(&mut self, refusal: Refusal, effects: &mut Vec<Effect>) {
        self.is_refused = true;
        effects.push(Effect::Refuse(refusal));
    }

    /// Other members that answer.
    fn others(&self) -> impl Iterator<Item = (NodeId, SocketAddr)> {
        let others = self.rows.iter().filter(|row| row.node != self.me && !row.is_removed());
        others.filter(|row| self.answers(row.node)).map(|row| (row.node, row.start.address))
    }

    /// Tells members what is new: those whose marks are waited for before all others.
    pub(super) fn tell_members(&mut self, effects: &mut Vec<Effect>) {
        let (first, last): (Vec<_>, Vec<_>) = self.others().partition(|(node, _)| self.layouts.has_place(*node));
        for (node, address) in first.into_iter().chain(last).take(TOLD_MAX) {
            self.compare(Some(node), address, effects);
        }
    }

    /// A node that has left says so until a member that stays has heard it.
    pub(super) fn part(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.own().is_removed() {
            let staying = self.others().filter(|(node, _)| self.layouts.has_place(*node));
            let told: Vec<_> = staying.take(ASKED_MAX).collect();
            for (node, address) in told {
                self.compare_soon(now, node, address, effects);
            }
        }
    }

    pub(super) fn compare_soon(&mut self, now: Instant, to: NodeId, address: SocketAddr, effects: &mut Vec<Effect>) {
        let is_recent = self.compared.get(&to).is_some_and(|last| now < *last + COMPARE_PERIOD);
        let is_under_way = self.exchanges.values().any(|sent| sent.to == Some(to));
        if !is_recent && !is_under_way {
            self.compared.insert(to, now);
            self.compare(Some(to), address, effects);
        }
    }

    pub(super) fn compare(&mut self, to: Option<NodeId>, address: SocketAddr, effects: &mut Vec<Effect>) {
        self.exchanges_begun += 1;
        let id = ExchangeId(self.exchanges_begun);
        let says = Letter::Compare(Box::new(self.knowledge()));
        effects.push(Effect::Exchange { id, to, address, says });
        // Another one that leaves may take the word with it.
        let stays = to.is_some_and(|node| self.layouts.has_place(node));
        let is_last = stays && self.own().is_removed() && !self.is_dirty && self.writing.is_none();
        self.exchanges.insert(id, Sent { to, address, is_last });
    }
}
