//! One data core of a simulated node: what `runtime` does with executors, sockets and files, done with events. The
//! shard, the engine and every byte between cores are the daemon's own.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::disk::Store;
use super::stage::{Asker, Caller, ClientEvent, CoreEvent, Event, MembersEvent, Place, Stage};
use crate::protocol::config::DEADLINE_MAX;
use crate::protocol::io::{Append, Change, Effect, Effects, Held, Input, Scan, Standing};
use crate::protocol::message::{Answer, Call, Outcome, Page, Request};
use crate::protocol::peer::{Ask, Refused, Told, Unheard};
use crate::protocol::ring::{LayoutStamp, Partition};
use crate::protocol::shard::Shard;
use crate::protocol::types::{ActorId, AskId, Instant, Key, LoadId, NodeId, RequestId, ScanId, TicketId};
use crate::store::engine::{Engine, Lookup, Refusal};
use crate::store::scan::newer_than_tree;
use crate::store::wal::{Life as LogLife, LogWrite, SegmentId};
use crate::store::{KeySet, Place as Spot};
use crate::wire::frame::{CallId, Frame};
use crate::wire::{decode_call, encode_answer, peer as spelt};

/// Between two ticks of a core that has something to do, and of one that has not.
pub(crate) const BEAT: Duration = Duration::from_millis(10);
const BEAT_IDLE: Duration = Duration::from_millis(100);

/// Between two words to the membership about one layout.
const COMPARED_AGAIN: Duration = Duration::from_millis(100);

/// One core of one process.
pub(super) struct Core {
    place: Place,
    pub(super) shard: Shard,
    pub(super) engine: Engine,
    inputs: VecDeque<Input>,
    effects: Effects,
    /// What was appended and is not durable yet, in order.
    unsynced: VecDeque<Append>,
    writing: Option<LogWrite>,
    /// The segments of the last write that began, and of the last one that is durable.
    begun: Option<SegmentId>,
    durable: Option<SegmentId>,
    preparing: bool,
    ingesting: bool,
    fetching: BTreeMap<Key, Vec<LoadId>>,
    calls: BTreeMap<RequestId, Caller>,
    requests: u64,
    tickets: BTreeMap<TicketId, Asker>,
    compared: (LayoutStamp, Instant),
    /// Which tick comes next: others are of no use any more.
    tick: u64,
    is_idle: bool,
    /// Its log fails with the next write.
    pub(super) breaks: bool,
    /// The last dot of its actor that is durable.
    pub(super) minted: (ActorId, u64),
}

impl Core {
    /// A core that begins.
    pub(super) fn new(place: Place, shard: Shard, engine: Engine, stage: &mut Stage) -> Core {
        let minted = shard.actor();
        stage.after_by_its_clock(place.node, BEAT, Event::Core(place, CoreEvent::Tick(0)));
        Core {
            place,
            shard,
            engine,
            inputs: VecDeque::new(),
            effects: Effects::new(),
            unsynced: VecDeque::new(),
            writing: None,
            begun: None,
            durable: None,
            preparing: false,
            ingesting: false,
            fetching: BTreeMap::new(),
            calls: BTreeMap::new(),
            requests: 0,
            tickets: BTreeMap::new(),
            compared: Default::default(),
            tick: 0,
            is_idle: false,
            breaks: false,
            minted,
        }
    }

    /// Something comes.
    pub(super) fn happen(&mut self, event: CoreEvent, store: &mut Store, stage: &mut Stage) {
        match event {
            CoreEvent::Tick(number) => self.on_tick(number, stage),
            CoreEvent::Written { is_durable } => self.on_written(is_durable, store, stage),
            CoreEvent::Prepared(spare) => {
                store.disk.end(spare.id);
                self.preparing = false;
                self.engine.on_segment_ready(spare);
            }
            CoreEvent::Ingested => self.on_ingested(store, stage),
            CoreEvent::Fetched(key) => self.on_fetched(key, store, stage),
            CoreEvent::Scanned(scan, of, newer) => self.on_scanned(scan, *of, newer, store, stage),
            CoreEvent::View(view) => {
                let is_first = self.shard.view().epoch == 0;
                self.feed(Input::View(view), stage);
                if is_first {
                    stage.open(self.place.node);
                }
            }
            CoreEvent::Linked(node) => self.feed(Input::Linked(node), stage),
            CoreEvent::Called { caller, frame } => self.on_called(caller, &frame, stage),
            CoreEvent::Asked { asker, frame } => self.on_asked(asker, &frame, stage),
            CoreEvent::Told { ask, told } => self.on_told(ask, told, stage),
        }
        self.end_turn(store, stage);
    }

    /// Whether anything is under way.
    pub(super) fn is_busy(&self) -> bool {
        !self.calls.is_empty() || !self.tickets.is_empty() || !self.unsynced.is_empty()
    }

    /// Appends that are not durable.
    pub(super) fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// Where the writes went that no later one states as durable: a damage there is a torn tail.
    pub(super) fn last_segments(&self) -> impl Iterator<Item = SegmentId> {
        self.begun.into_iter().chain(self.durable)
    }

    /// Clients whose calls it has not answered.
    pub(super) fn callers(&self) -> impl Iterator<Item = Caller> {
        self.calls.values().copied()
    }

    fn on_tick(&mut self, number: u64, stage: &mut Stage) {
        if number != self.tick {
            return;
        }
        self.feed(Input::Tick, stage);
        self.tick += 1;
        self.is_idle = !self.is_busy();
        let wait = if self.is_idle { BEAT_IDLE } else { BEAT };
        self.tick_after(wait, stage);
        stage.watch.look_at_core(stage.now, (self.place.node, self.place.core), &self.shard, &self.engine);
    }

    fn tick_after(&self, wait: Duration, stage: &mut Stage) {
        stage.after_by_its_clock(self.place.node, wait, Event::Core(self.place, CoreEvent::Tick(self.tick)));
    }

    /// What the node's own clock shows.
    fn instant(&self, stage: &Stage) -> Instant {
        stage.clocks(self.place.node).instant
    }

    /// Whoever has something to do looks at the clock more often.
    fn wake(&mut self, stage: &mut Stage) {
        if std::mem::take(&mut self.is_idle) {
            self.tick += 1;
            self.tick_after(BEAT, stage);
        }
    }

    fn on_called(&mut self, caller: Caller, frame: &Bytes, stage: &mut Stage) {
        self.wake(stage);
        let call = decode_call(Frame::owned(frame)).expect("a client spells what a node reads");
        let Call::One(request) = call else { unreachable!("the clients here ask for one key at a time") };
        self.requests += 1;
        let id = RequestId(self.requests);
        self.calls.insert(id, caller);
        stage.watch.arrived(caller, self.place.node, stage.now + request.patience());
        let deadline = self.instant(stage) + request.patience();
        if request.is_write()
            && let Err(refusal) = self.engine.admit()
        {
            let failure = refusal.failure(self.place.core);
            return match refusal {
                Refusal::Overloaded { .. } => self.reply(id, Err(failure), stage),
                Refusal::DiskFull | Refusal::Stopped => {
                    self.feed(Input::Elsewhere { id, request, failure, deadline }, stage);
                }
            };
        }
        let held = self.held(&request);
        self.feed(Input::Request { id, request, held, deadline }, stage);
    }

    fn held(&mut self, request: &Request) -> Held {
        request.key().map_or(Held::Unknown, |key| self.engine.held(key))
    }

    fn on_asked(&mut self, asker: Asker, frame: &Bytes, stage: &mut Stage) {
        self.wake(stage);
        let spelt::Question { stand, deadline_ms, ask } =
            spelt::decode_ask(Frame::owned(frame)).expect("a node spells what a node reads");
        self.tickets.insert(asker.ticket, asker);
        stage.coverage.asked(&ask);
        if ask.is_write()
            && let Err(refusal) = self.engine.admit()
        {
            return self.tell(asker.ticket, &Told::Refused(Refused::from(refusal)), stage);
        }
        let held = ask.key().map_or(Held::Unknown, |key| self.engine.held(key));
        let deadline = self.instant(stage) + Duration::from_millis(deadline_ms.into()).min(DEADLINE_MAX);
        let ticket = asker.ticket;
        self.feed(Input::Asked { ticket, stand, ask, held, deadline }, stage);
    }

    fn on_told(&mut self, ask: AskId, told: Result<Bytes, Unheard>, stage: &mut Stage) {
        let told = told.and_then(|frame| {
            let told = spelt::decode_told(Frame::owned(&frame)).expect("a node spells what a node reads");
            told.map_err(|_| Unheard::NotTaken)
        });
        stage.coverage.told(&told);
        self.feed(Input::Told { ask, told }, stage);
    }

    fn on_written(&mut self, is_durable: bool, store: &mut Store, stage: &mut Stage) {
        let write = self.writing.take().expect("a write ends once");
        if !is_durable {
            store.disk.fail(write.segment, stage.chance.rng());
            self.engine.on_write_failed();
            self.unsynced.clear();
            let actor = ActorId(stage.chance.bits());
            return self.feed(Input::AppendsFailed { actor }, stage);
        }
        store.disk.end(write.segment);
        self.durable = Some(write.segment);
        let through = self.engine.on_written(write);
        while self.unsynced.front().is_some_and(|append| append.id <= through) {
            let append = self.unsynced.pop_front().expect("it was there a line ago");
            self.note_durable(&append, stage);
        }
        self.feed(Input::Appended { through }, stage);
    }

    fn note_durable(&mut self, append: &Append, stage: &mut Stage) {
        if let Change::Version(arrived) = &append.change {
            let (actor, counter) = &mut self.minted;
            if arrived.dot.actor == *actor {
                *counter = arrived.dot.counter.max(*counter);
            }
        }
        stage.note(|stage| format!("{} {}", stage.name(self.place), append.short()));
        stage.watch.durable(stage.now, self.place.node, append);
    }

    fn on_ingested(&mut self, store: &mut Store, stage: &mut Stage) {
        self.ingesting = false;
        if store.is_full {
            self.engine.on_ingest_failed(self.instant(stage), true);
        } else {
            store.tree.ingest();
            self.engine.on_ingested();
        }
    }

    fn on_fetched(&mut self, key: Key, store: &Store, stage: &mut Stage) {
        let stored = store.tree.get(&Spot::of(stage.ring(), &key));
        let found = stored.map(|stored| self.engine.on_fetched(key.clone(), stored));
        let found = match found {
            Ok(Lookup::Found(set)) => Ok(Some(set)),
            Ok(Lookup::Absent) => Ok(None),
            Ok(Lookup::Fetch | Lookup::Fetching) => return self.fetch(key, stage),
            Err(unreadable) => {
                self.engine.on_fetch_failed(&key);
                Err(unreadable)
            }
        };
        for load in self.fetching.remove(&key).unwrap_or_default() {
            self.feed(Input::Loaded { load, found: found.clone() }, stage);
        }
    }

    fn on_scanned(&mut self, scan: ScanId, of: Scan, newer: Vec<KeySet>, store: &Store, stage: &mut Stage) {
        let page = store.tree.scan(stage.ring(), of, newer);
        self.feed(Input::Scanned { scan, page }, stage);
    }

    /// Hands inputs to the shard and carries its effects out until nothing more follows.
    pub(super) fn feed(&mut self, input: Input, stage: &mut Stage) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            let now = stage.clocks(self.place.node);
            let mut effects = std::mem::take(&mut self.effects);
            self.shard.handle(now, input, &mut effects);
            for effect in effects.drain(..) {
                self.perform(effect, stage);
            }
            self.effects = effects;
        }
    }

    fn perform(&mut self, effect: Effect, stage: &mut Stage) {
        match effect {
            Effect::Ask { to, partition, id, stand, ask, deadline } => {
                self.ask((to, partition), (id, stand, deadline), &ask, stage);
            }
            Effect::Tell { ticket, told } => self.tell(ticket, &told, stage),
            Effect::Compare(stamp) => self.compare(stamp, stage),
            Effect::Load { load, key } => self.load(load, key, stage),
            Effect::Survey { survey, of } => {
                let found = self.engine.survey(&of);
                self.inputs.push_back(Input::Surveyed { survey, found });
            }
            Effect::Scan { scan, of } => {
                let newer = newer_than_tree(&self.engine, stage.ring(), &of);
                let took = stage.shape.read_time(&mut stage.chance);
                stage.after(took, Event::Core(self.place, CoreEvent::Scanned(scan, Box::new(of), newer)));
            }
            Effect::Reached { stamp, step } => {
                stage.coverage.reached(step);
                let told = MembersEvent::Reached(self.place.core, stamp, step);
                self.tell_members(told, stage);
            }
            Effect::Append(append) => {
                stage.watch.appended(stage.now, self.place.node, self.shard.view(), &append);
                stage.coverage.appended(&append);
                self.unsynced.push_back(append.clone());
                self.engine.append(append);
            }
            Effect::List { id, .. } => self.inputs.push_back(Input::Listed { id, page: Ok(Page::default()) }),
            Effect::Forget { key, operation } => self.engine.forget(&key, &operation),
            Effect::Reply { id, outcome } => self.reply(id, outcome, stage),
        }
    }

    fn ask(
        &mut self,
        (to, partition): (NodeId, Partition),
        (id, stand, deadline): (AskId, Standing, Instant),
        ask: &Ask,
        stage: &mut Stage,
    ) {
        stage.watch.asks(stage.now, self.place.node, ask);
        let left = u32::try_from(deadline.since(self.instant(stage)).as_millis()).unwrap_or(u32::MAX).max(1);
        let mut frame = BytesMut::new();
        let spelled = spelt::encode_ask(&mut frame, CallId(id.0 + 1), stand, left, ask);
        let unheard = match (spelled, stage.at(to)) {
            (Err(_), _) => Some(Unheard::NotTaken),
            (Ok(()), None) => Some(Unheard::NotSent),
            (Ok(()), Some(node)) => {
                let core = stage.posts[node].cores.of(partition);
                stage.note(|stage| {
                    let (asker, asked) = (stage.name(self.place), stage.who(node));
                    format!("{asker} asks {asked} #{}: {}", id.0, ask.short())
                });
                stage.send_ask(self.place, (node, core), id, frame.freeze())
            }
        };
        if let Some(unheard) = unheard {
            stage.note(|_| format!(".. {}", super::super::story::unheard(unheard)));
            stage.coverage.told(&Err(unheard));
            self.inputs.push_back(Input::Told { ask: id, told: Err(unheard) });
        }
    }

    fn tell(&mut self, ticket: TicketId, told: &Told, stage: &mut Stage) {
        let asker = self.tickets.remove(&ticket).expect("whoever asks is told once");
        stage.note(|stage| {
            let (asked, place) = (stage.name(self.place), stage.name(asker.place));
            format!("{asked} tells {place} #{}: {}", asker.ask.0, told.short())
        });
        let mut frame = BytesMut::new();
        spelt::encode_told(&mut frame, CallId(asker.ask.0 + 1), told);
        stage.send_told(self.place.node, asker, frame.freeze());
    }

    fn reply(&mut self, id: RequestId, outcome: Outcome, stage: &mut Stage) {
        let caller = self.calls.remove(&id).expect("a request is answered once");
        stage.watch.answered(stage.now, caller, &outcome);
        let mut frame = BytesMut::new();
        encode_answer(&mut frame, CallId(caller.number), &Answer::One(outcome));
        let hop = stage.shape.hop;
        let way = stage.chance.time(hop, 2 * hop);
        stage.after(way, Event::Client(caller.client, ClientEvent::Answer(caller.number, Some(frame.freeze()))));
    }

    fn compare(&mut self, stamp: LayoutStamp, stage: &mut Stage) {
        let ((last, at), now) = (self.compared, self.instant(stage));
        if last != stamp || COMPARED_AGAIN <= now.since(at) {
            self.compared = (stamp, now);
            self.tell_members(MembersEvent::Differs(stamp), stage);
        }
    }

    fn tell_members(&self, told: MembersEvent, stage: &mut Stage) {
        let took = stage.chance.time(Duration::from_micros(20), Duration::from_micros(500));
        stage.after(took, Event::Members(self.place.node, self.place.life, told));
    }

    fn load(&mut self, load: LoadId, key: Key, stage: &mut Stage) {
        match self.engine.lookup(&key) {
            Lookup::Found(set) => self.inputs.push_back(Input::Loaded { load, found: Ok(Some(set)) }),
            Lookup::Absent => self.inputs.push_back(Input::Loaded { load, found: Ok(None) }),
            Lookup::Fetching => self.fetching.entry(key).or_default().push(load),
            Lookup::Fetch => {
                self.fetching.entry(key.clone()).or_default().push(load);
                self.fetch(key, stage);
            }
        }
    }

    fn fetch(&self, key: Key, stage: &mut Stage) {
        let took = stage.shape.read_time(&mut stage.chance);
        stage.after(took, Event::Core(self.place, CoreEvent::Fetched(key)));
    }

    /// What was gathered goes its way: to the log, to the tree, to the disk for more log.
    fn end_turn(&mut self, store: &mut Store, stage: &mut Stage) {
        if self.writing.is_none()
            && let Some(write) = self.engine.next_write(|| LogLife(stage.chance.bits()))
        {
            store.disk.write(&write);
            self.begun = Some(write.segment);
            let is_durable = !std::mem::take(&mut self.breaks);
            let took = store.sync_time(stage);
            stage.after(took, Event::Core(self.place, CoreEvent::Written { is_durable }));
            self.writing = Some(write);
        }
        if !self.ingesting
            && let Some(chunk) = self.engine.next_chunk(self.instant(stage))
        {
            store.tree.hand(chunk);
            self.ingesting = true;
            let took = stage.shape.ingest_time(&mut stage.chance);
            stage.after(took, Event::Core(self.place, CoreEvent::Ingested));
        }
        if !self.preparing
            && let Some(wish) = self.engine.next_segment(self.instant(stage))
        {
            match store.prepare(wish.bytes) {
                Some(spare) => {
                    self.preparing = true;
                    let took = store.sync_time(stage);
                    stage.after(took, Event::Core(self.place, CoreEvent::Prepared(spare)));
                }
                None => self.engine.on_segment_failed(self.instant(stage), true),
            }
        }
    }
}
