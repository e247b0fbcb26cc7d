//! Rounds: how joined nodes get into a layout while no member holds data; and what a member does that is asked to
//! freeze. The picture stands in the module above.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::io::{Answer, Effect, Letter, LetterId, Note, Round};
use super::{Alarm, Membership, RowState, Sent, layout_row};
use crate::protocol::config::NODES_MAX;
use crate::protocol::ring::LayoutRow;
use crate::protocol::types::{Instant, NodeId};

/// Time for more nodes to join: one layout for several.
const GATHER: Duration = Duration::from_millis(300);

/// A round that took longer is over: no member can have taken the asker for down, and thawed, before this.
const ROUND_MAX: Duration = Duration::from_millis(800);

/// A round that came to nothing is followed by the next after this.
const ROUND_PAUSE: Duration = Duration::from_secs(1);

/// How often a frozen member asks whoever froze it whether it still does.
const MELT_PERIOD: Duration = Duration::from_secs(1);

/// Members that are told of a new layout at once; the others hear of it by gossip.
const TOLD_MAX: usize = 16;

/// Where this node's own round stands.
#[derive(Debug)]
pub(super) enum Commit {
    /// There is nothing to do, or somebody else does it.
    Idle,
    /// More nodes may join.
    Gathering,
    /// These members have not said yet that they hold nothing.
    Freezing { waiting: BTreeSet<NodeId>, until: Instant },
    /// The layout is made, and not in force yet.
    Writing,
}

/// Why the cores of this node take no writes.
#[derive(Debug)]
pub(super) struct Frost {
    /// Who asked for it.
    by: NodeId,
    /// The start of that node.
    start: (u64, u64),
    /// The layout that is to be made.
    number: u64,
    /// The round that it is made in.
    round: u64,
    /// Letters that wait for an answer.
    letters: Vec<LetterId>,
    /// What the cores have said.
    is_empty: Option<bool>,
}

impl Membership {
    /// Begins to gather if there is something to commit, and it is this node that does it.
    pub(super) fn consider(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if !matches!(self.commit, Commit::Idle) || !self.commits() {
            return;
        }
        if self.layout_holds_data() {
            if !std::mem::replace(&mut self.noted_data, true) {
                effects.push(Effect::Note(Note::HeldByData));
            }
            return;
        }
        self.commit = Commit::Gathering;
        self.set(now + GATHER, Alarm::Gathered);
    }

    /// Whether there are joined nodes that answer, and this is the lowest member of a layout all of which answers.
    fn commits(&self) -> bool {
        let mut nodes = self.layout.rows().iter().map(|row| row.node);
        let is_lowest = self.layout.rows().first().is_some_and(|row| row.node == self.me);
        self.has_begun && self.candidate.is_none() && is_lowest && nodes.all(|node| self.answers(node)) && {
            self.joined().next().is_some()
        }
    }

    fn layout_holds_data(&self) -> bool {
        let holds = |node: NodeId| self.rows.get(node).is_some_and(|row| row.holds_data);
        self.layout.rows().iter().any(|row| holds(row.node))
    }

    /// Nodes that answer and have no place in the layout.
    fn joined(&self) -> impl Iterator<Item = LayoutRow> {
        let has_place = |node: NodeId| self.layout.rows().binary_search_by_key(&node, |row| row.node).is_ok();
        let joins = move |row: &&super::Row| row.state <= RowState::Member && !has_place(row.node);
        self.rows.iter().filter(joins).filter(|row| self.answers(row.node)).map(layout_row)
    }

    pub(super) fn on_gathered(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if !matches!(self.commit, Commit::Gathering) {
            return;
        }
        // Another node's round goes first.
        let is_asked = self.frost.as_ref().is_some_and(|frost| frost.by != self.me);
        if !self.commits() || self.layout_holds_data() || is_asked {
            self.commit = Commit::Idle;
            return;
        }
        self.round = Round { count: self.round.count + 1, is_open: true };
        let (number, round) = (self.layout.stamp().number + 1, self.round.count);
        let nodes: Vec<NodeId> = self.layout.rows().iter().map(|row| row.node).collect();
        let until = now + ROUND_MAX;
        self.commit = Commit::Freezing { waiting: nodes.iter().copied().collect(), until };
        self.set(until, Alarm::RoundOver(round));
        let me = self.me;
        for node in nodes.into_iter().filter(|node| *node != me) {
            let Some(address) = self.rows.get(node).map(|row| row.start.address) else {
                continue;
            };
            let sent = Sent { to: Some(node), address, round: Some(round) };
            self.exchange(sent, Letter::Freeze { number, round }, effects);
        }
        self.on_freeze(now, None, self.me, number, round, effects);
    }

    /// A member has said whether it is frozen and holds nothing.
    pub(super) fn on_member_frozen(
        &mut self,
        now: Instant,
        member: NodeId,
        round: u64,
        is_empty: bool,
        effects: &mut Vec<Effect>,
    ) {
        if self.round != (Round { count: round, is_open: true }) {
            return;
        }
        let Commit::Freezing { waiting, until } = &mut self.commit else {
            return;
        };
        waiting.remove(&member);
        if !is_empty || *until < now {
            return self.end_round(now, effects);
        }
        if waiting.is_empty() {
            let mut rows: Vec<LayoutRow> = self.layout.rows().iter().map(|row| self.present(row)).collect();
            let room = NODES_MAX - rows.len();
            rows.extend(self.joined().take(room));
            self.candidate = Some(Arc::new(self.layout.next(rows, self.layout.wanted())));
            self.is_dirty = true;
            self.commit = Commit::Writing;
        }
    }

    /// A row of the layout as its settings are now.
    fn present(&self, row: &LayoutRow) -> LayoutRow {
        self.rows.get(row.node).map_or_else(|| row.clone(), layout_row)
    }

    pub(super) fn on_round_over(&mut self, now: Instant, count: u64, effects: &mut Vec<Effect>) {
        if self.round.count == count && matches!(self.commit, Commit::Freezing { .. }) {
            self.end_round(now, effects);
        }
    }

    /// The round came to nothing: the members go on as they were.
    fn end_round(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.commit = Commit::Gathering;
        self.set(now + ROUND_PAUSE, Alarm::Gathered);
        self.close_round(effects);
        self.tell_members(effects);
    }

    fn close_round(&mut self, effects: &mut Vec<Effect>) {
        self.round.is_open = false;
        if self.frost.as_ref().is_some_and(|frost| frost.by == self.me) {
            self.thaw(effects);
        }
    }

    /// A layout has come into force.
    pub(super) fn on_layout(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let is_ours = matches!(self.commit, Commit::Writing);
        if !matches!(self.commit, Commit::Gathering) {
            self.commit = Commit::Idle;
        }
        self.close_round(effects);
        self.mark_members();
        if is_ours {
            self.tell_members(effects);
        }
        self.noted_data = false;
        self.consider(now, effects);
    }

    fn tell_members(&mut self, effects: &mut Vec<Effect>) {
        let others = self.layout.rows().iter().map(|row| row.node).filter(|node| *node != self.me);
        let others = others.filter_map(|node| self.rows.get(node)).map(|row| (row.node, row.start.address));
        let others: Vec<_> = others.take(TOLD_MAX).collect();
        for (node, address) in others {
            self.compare(Some(node), address, effects);
        }
    }

    /// Somebody asks this node to freeze; `letter` is missing when that is this node itself.
    pub(super) fn on_freeze(
        &mut self,
        now: Instant,
        letter: Option<LetterId>,
        by: NodeId,
        number: u64,
        round: u64,
        effects: &mut Vec<Effect>,
    ) {
        let is_member = |node: NodeId| self.layout.rows().iter().any(|row| row.node == node);
        let is_next = number == self.layout.stamp().number + 1 && self.candidate.is_none();
        let is_taken = self.frost.as_ref().is_some_and(|frost| frost.by != by);
        let start = self.rows.get(by).map(|row| (row.start.count, row.start.stamp));
        let start = start.filter(|_| is_member(by) && is_member(self.me) && is_next && !is_taken);
        let Some(start) = start else {
            return self.answer_frozen(letter, false, effects);
        };
        if let Some(frost) = &mut self.frost {
            (frost.start, frost.number, frost.round) = (start, number, round);
            match frost.is_empty {
                Some(is_empty) => self.tell_frozen(now, letter, is_empty, effects),
                None => frost.letters.extend(letter),
            }
            return;
        }
        let letters = letter.into_iter().collect();
        self.frost = Some(Frost { by, start, number, round, letters, is_empty: None });
        self.freezes += 1;
        effects.push(Effect::Freeze);
        self.set(now + MELT_PERIOD, Alarm::Melt);
    }

    /// The cores have said whether they hold anything.
    pub(super) fn on_frozen(&mut self, now: Instant, is_empty: Option<bool>, effects: &mut Vec<Effect>) {
        self.freezes -= 1;
        if is_empty == Some(false) {
            let me = self.me;
            let own = self.rows.get_mut(me).expect("a node has a row of its own");
            if !std::mem::replace(&mut own.holds_data, true) {
                self.touch();
            }
        }
        // An answer to a freeze that was given up meanwhile says nothing about this one.
        let Some(frost) = self.frost.as_mut().filter(|_| self.freezes == 0) else {
            return;
        };
        let is_empty = is_empty.unwrap_or(false);
        frost.is_empty = Some(is_empty);
        let (is_own, round, letters) = (frost.by == self.me, frost.round, std::mem::take(&mut frost.letters));
        for letter in letters {
            self.answer_frozen(Some(letter), is_empty, effects);
        }
        if is_own {
            self.on_member_frozen(now, self.me, round, is_empty, effects);
        }
    }

    fn tell_frozen(&mut self, now: Instant, letter: Option<LetterId>, is_empty: bool, effects: &mut Vec<Effect>) {
        match letter {
            Some(_) => self.answer_frozen(letter, is_empty, effects),
            None => self.on_member_frozen(now, self.me, self.round.count, is_empty, effects),
        }
    }

    fn answer_frozen(&mut self, letter: Option<LetterId>, is_empty: bool, effects: &mut Vec<Effect>) {
        if let Some(letter) = letter {
            effects.push(Effect::Answer { letter, answer: Answer::Frozen { is_empty } });
        }
    }

    /// A member says where its last round stands.
    pub(super) fn on_round(&mut self, from: NodeId, round: Round, effects: &mut Vec<Effect>) {
        let is_over = |frost: &Frost| {
            frost.by == from && (frost.round < round.count || (frost.round == round.count && !round.is_open))
        };
        if from != self.me && self.frost.as_ref().is_some_and(is_over) {
            self.thaw(effects);
        }
    }

    /// Thaws when the layout has come that the cores were frozen for, and when whoever wanted it is down or has
    /// started again.
    pub(super) fn melt(&mut self, effects: &mut Vec<Effect>) {
        let Some(frost) = &self.frost else {
            return;
        };
        let start = self.rows.get(frost.by).map(|row| (row.start.count, row.start.stamp));
        let is_over = frost.number <= self.layout.stamp().number
            || start != Some(frost.start)
            || (frost.by != self.me && !self.answers(frost.by));
        if is_over {
            self.thaw(effects);
        }
    }

    pub(super) fn on_melt(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some(by) = self.frost.as_ref().map(|frost| frost.by) else {
            return;
        };
        if by != self.me
            && let Some(address) = self.rows.get(by).map(|row| row.start.address)
        {
            self.compare_soon(now, by, address, effects);
        }
        self.set(now + MELT_PERIOD, Alarm::Melt);
    }

    fn thaw(&mut self, effects: &mut Vec<Effect>) {
        let Some(frost) = self.frost.take() else {
            return;
        };
        for letter in frost.letters {
            self.answer_frozen(Some(letter), false, effects);
        }
        effects.push(Effect::Thaw);
    }
}
