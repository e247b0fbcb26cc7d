//! The membership of a simulated node at work: what `control` does with sockets and a file, done with events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::node::{Node, address};
use super::stage::{At, CoreEvent, Event, Life, MembersEvent, Place, Stage};
use crate::protocol::membership::{
    Durable, Effect, ExchangeId, Input, Knowledge, LetterId, Membership, Note, OrderId, Packet, Unanswered,
};
use crate::protocol::ring::View;
use crate::protocol::types::{CoreId, Instant, NodeId};
use crate::wire::gossip::{decode_packet, encode_packet};
use crate::wire::members::{decode_letter, decode_letter_answer, encode_letter, encode_letter_answer};

/// How long an exchange waits for its answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Between two counts of what the node holds.
const COUNT: Duration = Duration::from_secs(1);

/// The membership of one process.
pub(super) struct Members {
    at: At,
    life: Life,
    membership: Membership,
    /// When it is woken next.
    wakes: Option<Instant>,
    writing: Option<Durable>,
    letters: BTreeMap<LetterId, (At, Life, ExchangeId)>,
    letters_begun: u64,
    pub(super) view: Option<Arc<View>>,
    /// When the last one is with the last core.
    shown: Instant,
}

impl Members {
    /// Begins with what the node's disk knows.
    pub(super) fn begin(node: &Node, stage: &mut Stage) -> Members {
        let birth = node.member_birth(stage);
        let mut effects = Vec::new();
        let membership = Membership::begin(stage.clocks(node.at).instant, birth, &mut effects);
        let life = stage.posts[node.at].life.expect("it has just begun");
        let mut members = Members {
            at: node.at,
            life,
            membership,
            wakes: None,
            writing: None,
            letters: BTreeMap::new(),
            letters_begun: 0,
            view: None,
            shown: stage.now,
        };
        let is_refused = members.perform(effects, stage);
        assert!(!is_refused, "nobody has said anything yet");
        members.set_alarm(stage);
        stage.after(COUNT / 2, Event::Members(node.at, life, MembersEvent::Count));
        members
    }

    /// What was on its way to the disk.
    pub(super) fn into_written(self) -> Option<Durable> {
        self.writing
    }

    /// What it would tell another.
    pub(super) fn knowledge(&self) -> Knowledge {
        self.membership.knowledge()
    }

    /// Something comes. True when the node must end.
    pub(super) fn happen(
        &mut self,
        event: MembersEvent,
        holds: impl Fn() -> bool,
        is_full: bool,
        known: &mut Option<Durable>,
        stage: &mut Stage,
    ) -> bool {
        let input = match event {
            MembersEvent::Wake => {
                self.wakes = None;
                Some(Input::Tick)
            }
            MembersEvent::Count => {
                stage.after(COUNT, Event::Members(self.at, self.life, MembersEvent::Count));
                self.membership.asks_holdings().then(|| Input::Holds(holds()))
            }
            MembersEvent::Packet(from, bytes) => self.packet(from, &bytes, stage),
            MembersEvent::Letter { from, exchange, to, bytes } => self.letter(from, exchange, to, &bytes, stage),
            MembersEvent::Answered(exchange, bytes) => {
                let answer = bytes.map(|bytes| decode_letter_answer(&bytes[4..]).expect("a node spells what it reads"));
                Some(Input::Answered { exchange, answer: answer.ok_or(Unanswered::Silent) })
            }
            MembersEvent::Persisted => {
                let written = self.writing.take();
                if !is_full {
                    *known = written.or(known.take());
                }
                Some(Input::Persisted(!is_full))
            }
            MembersEvent::Reached(core, stamp, step) => Some(Input::Reached { core, stamp, step }),
            MembersEvent::Differs(stamp) => Some(Input::Differs(stamp)),
            MembersEvent::Order(id, order) => Some(Input::Order { id, order }),
        };
        let is_refused = input.is_some_and(|input| self.handle(input, stage));
        self.set_alarm(stage);
        is_refused
    }

    /// Says good-bye to a few members. Nothing may come after it.
    pub(super) fn leave(&mut self, stage: &mut Stage) {
        self.handle(Input::Leave, stage);
    }

    fn packet(&self, from: At, bytes: &Bytes, stage: &Stage) -> Option<Input> {
        let packet = decode_packet(stage.shape.cluster, bytes, &stage.shape.secret).ok()?;
        Some(Input::Packet { from: address(from), packet })
    }

    fn letter(
        &mut self,
        from: (At, Life),
        exchange: ExchangeId,
        to: Option<NodeId>,
        bytes: &Bytes,
        stage: &Stage,
    ) -> Option<Input> {
        let me = stage.posts[self.at].id;
        if to.is_some_and(|to| to != me) {
            return None;
        }
        let says = decode_letter(&bytes[4..]).expect("a node spells what a node reads");
        self.letters_begun += 1;
        let letter = LetterId(self.letters_begun);
        self.letters.insert(letter, (from.0, from.1, exchange));
        Some(Input::Letter { letter, from: stage.posts[from.0].id, says })
    }

    fn handle(&mut self, input: Input, stage: &mut Stage) -> bool {
        let mut effects = Vec::new();
        self.membership.handle(stage.clocks(self.at).instant, input, &mut effects);
        self.perform(effects, stage)
    }

    fn set_alarm(&mut self, stage: &mut Stage) {
        let Some(wakes) = self.membership.wakes_at() else { return };
        if self.wakes.is_none_or(|set| wakes < set) {
            self.wakes = Some(wakes);
            let wait = wakes.since(stage.clocks(self.at).instant);
            stage.after_by_its_clock(self.at, wait, Event::Members(self.at, self.life, MembersEvent::Wake));
        }
    }

    fn perform(&mut self, effects: Vec<Effect>, stage: &mut Stage) -> bool {
        let mut is_refused = false;
        for effect in effects {
            match effect {
                Effect::Send { to, packet } => self.send(to, &packet, stage),
                Effect::Exchange { id, to, address, says } => {
                    let mut bytes = BytesMut::new();
                    encode_letter(&mut bytes, &says);
                    self.exchange(id, to, address, bytes.freeze(), stage);
                }
                Effect::Answer { letter, answer } => {
                    let mut bytes = BytesMut::new();
                    encode_letter_answer(&mut bytes, &answer);
                    self.answer(letter, bytes.freeze(), stage);
                }
                Effect::Persist(durable) => {
                    self.writing = Some(*durable);
                    let sync = stage.shape.sync;
                    let took = stage.chance.time(2 * sync, 8 * sync);
                    stage.after(took, Event::Members(self.at, self.life, MembersEvent::Persisted));
                }
                Effect::Ordered { id, outcome } => self.ordered(id, outcome.map(|_| ()), stage),
                Effect::View(view) => self.show(view, stage),
                Effect::Refuse(refusal) => {
                    stage.note(|stage| format!("{} must end: {refusal}", stage.who(self.at)));
                    stage.coverage.ended(&refusal);
                    is_refused = true;
                }
                Effect::Note(note) => self.note(&note, stage),
            }
        }
        is_refused
    }

    fn ordered(&self, id: OrderId, outcome: Result<(), crate::protocol::membership::OrderRefused>, stage: &mut Stage) {
        stage.coverage.ordered(&outcome);
        stage.ordered.insert(id, outcome);
    }

    fn note(&self, note: &Note, stage: &mut Stage) {
        stage.coverage.noted(note);
        stage.note(|stage| format!("{} notes: {}", stage.who(self.at), super::super::story::note(note)));
    }

    fn send(&self, to: core::net::SocketAddr, packet: &Packet, stage: &mut Stage) {
        let Some(to) = (0..stage.posts.len()).find(|at| address(*at) == to) else { return };
        let bytes = encode_packet(stage.shape.cluster, packet, &stage.shape.secret);
        stage.send_packet(self.at, to, bytes);
    }

    fn exchange(
        &self,
        id: ExchangeId,
        to: Option<NodeId>,
        whither: core::net::SocketAddr,
        bytes: Bytes,
        stage: &mut Stage,
    ) {
        stage.after(PATIENCE, Event::Members(self.at, self.life, MembersEvent::Answered(id, None)));
        let Some(other) = (0..stage.posts.len()).find(|at| address(*at) == whither) else { return };
        if let (Some(way), Some(life)) = (stage.sets_out(self.at, other), stage.posts[other].life) {
            let from = (self.at, self.life);
            stage.after(way, Event::Members(other, life, MembersEvent::Letter { from, exchange: id, to, bytes }));
        }
    }

    fn answer(&mut self, letter: LetterId, bytes: Bytes, stage: &mut Stage) {
        let (from, life, exchange) = self.letters.remove(&letter).expect("a letter is answered once");
        if let Some(way) = stage.sets_out(self.at, from) {
            stage.after(way, Event::Members(from, life, MembersEvent::Answered(exchange, Some(bytes))));
        }
    }

    fn show(&mut self, view: Arc<View>, stage: &mut Stage) {
        stage.watch.viewed(stage.now, self.at, &view);
        for core in (0..stage.posts[self.at].cores.count).map(CoreId) {
            let place = Place { node: self.at, life: self.life, core };
            // One after the other: a core never goes back to an older one.
            let took = stage.chance.time(Duration::from_micros(20), Duration::from_micros(500));
            self.shown = self.shown.max(stage.now + took);
            stage.after(self.shown.since(stage.now), Event::Core(place, CoreEvent::View(Arc::clone(&view))));
        }
        self.view = Some(view);
    }
}
