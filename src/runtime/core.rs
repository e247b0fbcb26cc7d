//! One data core: its shard, its store, and whom to answer. No lock and no await in here: tasks call in, effects are
//! carried out at once, and what takes time is put where a task or a thread finds it.
//!
//! ```text
//!   connection, door, other core ──ask──▶ shard ──effects──▶ engine ──▶ log task (group commit)
//!            ▲                              ▲                  └──────▶ store thread (fetch, ingest, list)
//!            └───────── answers ────────────┴── what ended ◀───────────┘
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::clock::Clock;
use super::connection::{Connection, Said};
use super::door::GRACE;
use super::entropy;
use super::gather::{self, Gather};
use super::holdings::{Holding, Holdings};
use super::link::Question;
use super::links::Links;
use super::mail::{Errand, Finished, Job, Knock, Notice, Wish};
use super::metrics::{CoreMetrics, OperationKind};
use super::pages;
use super::pending::{Origin, Pending, Requests, Tickets};
use super::signal::Signal;
use crate::protocol::causality::Siblings;
use crate::protocol::config::DEADLINE_DEFAULT;
use crate::protocol::io::{Effect, Effects, Held, Input, Unreadable};
use crate::protocol::message::{Answer, Call, Failure, NodeInfo, Outcome, Reply, Request};
use crate::protocol::ring::{Cores, LayoutStamp, Ring};
use crate::protocol::shard::Shard;
use crate::protocol::types::{ActorId, AppendId, CoreId, Instant, Key, LoadId, Now, RequestId};
use crate::store::home::Left;
use crate::store::scan::newer_than_tree;
use crate::store::wal::{Life, LogWrite, SegmentWish, SpareSegment};
use crate::store::{Engine, FORESEEN_MAX, Lookup, Refusal};
use crate::wire::frame::CallId;

/// Values of at most so many bytes are sent also where unread replies fill their memory, unless they would add to what
/// their own client leaves unread.
const VALUES_BYTES_SMALL: usize = 64 * 1024;

/// A core serves, then finishes what is under way, then ends together with all others: until then it still tells
/// the others that it takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Requests are taken.
    Serving,
    /// None is taken; what is under way goes on.
    Stopping,
    /// Nothing is done any more.
    Ended,
}

/// Everything that a core is made of.
pub struct Parts {
    /// Which core of the node.
    pub id: CoreId,
    /// The clocks.
    pub clock: Clock,
    /// The protocol.
    pub shard: Shard,
    /// The store's memory and log.
    pub engine: Engine,
    /// The ring.
    pub ring: Ring,
    /// The node's cores.
    pub cores: Cores,
    /// What an info request is told.
    pub info: NodeInfo,
    /// The inboxes of all cores.
    pub mesh: Vec<flume::Sender<Errand>>,
    /// The store thread.
    pub store: flume::Sender<Job>,
    /// The counters.
    pub metrics: CoreMetrics,
    /// Where the core shows how much it holds.
    pub holdings: Arc<Holdings>,
    /// Bytes of replies that may wait for slow clients.
    pub replies_bytes_max: usize,
    /// Bytes of asks that may wait for slow peers.
    pub asks_bytes_max: usize,
    /// The dialer.
    pub wishes: flume::Sender<Wish>,
    /// What the control thread is told unasked; bounded, and what finds no room is not told.
    pub notices: flume::Sender<Notice>,
}

/// One core at work.
pub struct Core {
    parts: Parts,
    /// Raised when there may be something for the log.
    log: Rc<Signal>,
    /// Raised when a segment may be wanted.
    segments: Rc<Signal>,
    /// Raised while anything is under way: time is to be looked at soon.
    busy: Rc<Signal>,
    /// The time of this turn: reading the clocks for every request costs as much as finding its key.
    now: Now,
    effects: Effects,
    inputs: VecDeque<Input>,
    pending: Requests,
    tickets: Tickets,
    links: Links,
    /// The layout that was last compared, and when.
    compared: (LayoutStamp, Instant),
    gathers: BTreeMap<u64, Gather>,
    gathers_begun: u64,
    /// Loads by the key that the store thread is fetching for them.
    fetching: BTreeMap<Key, Vec<LoadId>>,
    fetches: Vec<Key>,
    checkpoints: Vec<(AppendId, oneshot::Sender<Result<(), Failure>>)>,
    /// Connections with bytes to send.
    dirty: Vec<Rc<Connection>>,
    replies_bytes: usize,
    /// Something was appended in this turn.
    appended: bool,
    phase: Phase,
    /// What concerns peers goes here in place of the shard.
    #[cfg(test)]
    pub(super) spy: Option<Vec<Input>>,
}

impl Core {
    /// A core at rest.
    pub fn new(parts: Parts, log: Rc<Signal>, segments: Rc<Signal>) -> Core {
        let links = Links::new(parts.id, parts.wishes.clone(), parts.asks_bytes_max, entropy::word());
        Core {
            now: parts.clock.now(),
            parts,
            log,
            segments,
            busy: Rc::default(),
            effects: Effects::new(),
            inputs: VecDeque::new(),
            pending: Requests::default(),
            tickets: Tickets::default(),
            links,
            compared: Default::default(),
            gathers: BTreeMap::new(),
            gathers_begun: 0,
            fetching: BTreeMap::new(),
            fetches: Vec::new(),
            checkpoints: Vec::new(),
            dirty: Vec::new(),
            replies_bytes: 0,
            appended: false,
            phase: Phase::Serving,
            #[cfg(test)]
            spy: None,
        }
    }

    /// A turn of the executor begins: time has gone by.
    pub fn begin_turn(&mut self) {
        self.now = self.parts.clock.now();
    }

    /// This comes next. Of a batch, only the first keys are worth it: the others would push them out again.
    pub fn foresee<'a>(&self, said: impl Iterator<Item = &'a Said>) {
        self.parts.engine.foresee(said.flat_map(Said::keys).take(FORESEEN_MAX));
    }

    /// What a connection brings.
    pub fn on_said(&mut self, connection: &Rc<Connection>, id: CallId, said: Said) {
        match said {
            Said::Call(call) => self.on_call(connection, id, call),
            Said::Ask(question) => self.on_ask(connection, id, question),
        }
    }

    /// A client calls on a connection.
    pub fn on_call(&mut self, connection: &Rc<Connection>, id: CallId, call: Call) {
        match call {
            Call::Ping => self.send(connection, id, &Answer::Pong),
            Call::Info => {
                let info = self.info();
                self.send(connection, id, &Answer::Info(info));
            }
            Call::Ring { known } => {
                let map = self.parts.shard.view().map(known);
                self.send(connection, id, &Answer::Ring(map));
            }
            Call::One(Request::Keys(keys)) => {
                let gather = Gather::pages(Rc::clone(connection), id, self.parts.ring, &keys, self.parts.mesh.len());
                let every_core = (0..self.parts.cores.count).map(|core| (CoreId(core), Request::Keys(keys.clone())));
                self.begin_gather(gather, every_core.collect());
            }
            Call::One(request) => {
                let owner = self.owner(&request);
                self.ask(Origin::Connection(Rc::clone(connection), id), owner, request);
            }
            Call::Many(requests) => {
                let gather = Gather::batch(Rc::clone(connection), id, requests.len());
                let parts = requests.into_iter().map(|request| (self.owner(&request), request)).collect();
                self.begin_gather(gather, parts);
            }
        }
    }

    /// A frame came in that is no call. The stream is sound, so only this call fails.
    pub fn on_malformed(&mut self, connection: &Rc<Connection>, id: CallId, failure: &Failure) {
        self.parts.metrics.frames_refused.increment(1);
        self.replies_bytes += connection.refuse(id, failure);
        self.becomes_dirty(connection);
    }

    /// The stream can be read no further: says why, under the id of no call.
    pub fn farewell(&mut self, connection: &Rc<Connection>, failure: &Failure) {
        self.on_malformed(connection, CallId::NONE, failure);
        self.flush();
    }

    /// The control thread asks.
    pub fn on_knock(&mut self, knock: Knock) {
        match knock {
            Knock::Ask { request, answer } => {
                let owner = match &request {
                    Request::Keys(_) => self.parts.id,
                    _ => self.owner(&request),
                };
                self.ask(Origin::Door(answer), owner, request);
            }
            Knock::Checkpoint { done } => {
                let goal = self.parts.engine.checkpoint();
                self.checkpoints.push((goal, done));
                self.begin_chunk();
            }
            Knock::View(view) => self.on_view(view),
        }
    }

    /// Another core or the store thread has something.
    pub fn on_errand(&mut self, errand: Errand) {
        match errand {
            Errand::Forward { from, ticket, request, deadline } => {
                self.ask_here(Origin::Core(from, ticket), request, deadline);
            }
            // One that was given up has its answer.
            Errand::Answered { ticket, outcome } if self.pending.contains(ticket) => {
                self.on_outcome(ticket, outcome);
            }
            Errand::Answered { .. } => {}
            Errand::Finished(finished) => self.on_finished(finished),
            Errand::Stop => self.phase = Phase::Stopping,
            Errand::End => self.phase = Phase::Ended,
        }
    }

    /// How long the next group commit had better wait, because the disk is behind.
    pub fn strain(&self) -> Duration {
        self.parts.engine.strain()
    }

    /// The log's task asks for the next group commit, if there is one.
    pub fn next_write(&mut self, life: impl FnOnce() -> Life) -> Option<LogWrite> {
        self.parts.engine.next_write(life)
    }

    /// The group commit is durable.
    pub fn on_written(&mut self, write: LogWrite, took: Duration) {
        let metrics = &self.parts.metrics;
        metrics.wal_syncs.increment(1);
        metrics.wal_sync_seconds.record(took);
        metrics.wal_records.increment(write.records as u64);
        metrics.wal_batch_records.record(write.records as f64);
        metrics.wal_bytes.increment(write.bytes.len() as u64);
        let through = self.parts.engine.on_written(write);
        self.feed(Input::Appended { through });
        self.begin_chunk();
        self.segments.raise();
    }

    /// The group commit failed: this core writes no more.
    pub fn on_write_failed(&mut self, fresh: ActorId) {
        self.parts.metrics.wal_failures.increment(1);
        self.parts.engine.on_write_failed();
        self.feed(Input::AppendsFailed { actor: fresh });
    }

    /// A spare segment that should be prepared now, if one should.
    pub fn next_segment(&mut self) -> Option<SegmentWish> {
        self.parts.engine.next_segment(self.now.instant)
    }

    /// A spare segment is ready, or could not be made.
    pub fn on_segment(&mut self, made: Result<SpareSegment, bool>) {
        match made {
            Ok(spare) => self.parts.engine.on_segment_ready(spare),
            Err(full) => self.parts.engine.on_segment_failed(self.now.instant, full),
        }
        self.log.raise();
    }

    /// Time goes by: deadlines, old operations, an overlay that has become old.
    pub fn on_tick(&mut self) {
        self.begin_turn();
        self.feed(Input::Tick);
        self.give_up();
        self.links.on_tick(self.now.instant);
        self.begin_chunk();
        self.segments.raise();
        self.show();
    }

    /// Whether writes are refused because the disk is full.
    pub fn is_out_of_room(&self) -> bool {
        self.parts.engine.admit() == Err(Refusal::DiskFull)
    }

    /// Whether anything is under way.
    pub fn is_busy(&self) -> bool {
        let asked = !self.pending.is_empty() || !self.gathers.is_empty() || !self.tickets.is_empty();
        asked || self.parts.engine.stats().queue_records > 0
    }

    /// Raised at the end of each turn that leaves something under way.
    pub fn busy(&self) -> Rc<Signal> {
        Rc::clone(&self.busy)
    }

    /// What the core was told to do.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// How the core is left when it stops here.
    pub fn left(&self) -> Left {
        let (actor, counter) = self.parts.shard.actor();
        Left { actor, counter, last: self.parts.engine.synced() }
    }

    /// What was gathered in this turn goes its way: fetches to the store thread, appends to the log, replies to their
    /// connections. Says whether that woke the log's task.
    pub fn flush(&mut self) -> bool {
        if !self.fetches.is_empty() {
            let keys = std::mem::take(&mut self.fetches);
            self.hand_over(Job::Fetch(keys));
        }
        let woke_log = std::mem::take(&mut self.appended) && self.log.raise();
        for connection in self.dirty.drain(..) {
            self.replies_bytes -= connection.send(self.now.instant);
        }
        self.links.flush();
        if self.is_busy() {
            self.busy.raise();
        }
        woke_log
    }

    /// Whether answers or asks wait to be sent at the end of a turn.
    pub fn has_answers(&self) -> bool {
        !self.dirty.is_empty() || self.links.has_asks()
    }

    /// Sends what waits on a connection, as far as it goes.
    pub fn send_waiting(&mut self, connection: &Rc<Connection>) {
        self.replies_bytes -= connection.send(self.now.instant);
    }

    /// Bytes of replies that wait for slow clients, on all connections.
    pub fn replies_are_full(&self) -> bool {
        self.replies_bytes > self.parts.replies_bytes_max
    }

    /// The monotonic time of this turn.
    pub fn instant(&self) -> Instant {
        self.now.instant
    }

    /// The counters.
    pub fn metrics(&self) -> &CoreMetrics {
        &self.parts.metrics
    }

    /// A core that says nothing may have done it all the same: that is what an unmet quorum says.
    fn give_up(&mut self) {
        let now = self.now.instant;
        while let Some(ticket) = self.pending.overdue(now) {
            self.on_outcome(ticket, Err(Failure::QuorumNotMet { needed: 1, got: 0 }));
        }
    }

    fn owner(&self, request: &Request) -> CoreId {
        let key = request.key().expect("all but a listing have a key");
        self.parts.cores.of(self.parts.ring.partition(key))
    }

    fn info(&self) -> NodeInfo {
        let uptime_ms = self.now.instant.0 / 1_000;
        NodeInfo { uptime_ms, ..self.parts.info.clone() }
    }

    fn begin_gather(&mut self, gather: Gather, parts: Vec<(CoreId, Request)>) {
        self.gathers_begun += 1;
        let number = self.gathers_begun;
        let empty = parts.is_empty();
        self.gathers.insert(number, gather);
        if empty {
            self.end_gather(number);
        }
        for (at, (core, request)) in parts.into_iter().enumerate() {
            self.ask(Origin::Gather(number, at), core, request);
        }
    }

    fn end_gather(&mut self, number: u64) {
        let gather = self.gathers.remove(&number).expect("a gather ends once");
        let (connection, id, answer) = gather.end();
        self.send(&connection, id, &answer);
    }

    fn ask(&mut self, origin: Origin, core: CoreId, request: Request) {
        let deadline = self.now.instant + request.patience();
        if core == self.parts.id {
            return self.ask_here(origin, request, deadline);
        }
        let ticket = self.enter(origin, &request, Some(deadline + GRACE));
        let errand = Errand::Forward { from: self.parts.id, ticket, request, deadline };
        if self.parts.mesh[core.index()].send(errand).is_err() {
            self.on_outcome(ticket, Err(Failure::Stopping));
        }
    }

    fn ask_here(&mut self, origin: Origin, request: Request, deadline: Instant) {
        let id = self.enter(origin, &request, None);
        if self.phase != Phase::Serving {
            return self.on_outcome(id, Err(Failure::Stopping));
        }
        if request.is_write()
            && let Err(refusal) = self.parts.engine.admit()
        {
            let failure = refusal.failure(self.parts.id);
            return match refusal {
                Refusal::Overloaded { .. } => self.on_outcome(id, Err(failure)),
                // Another owner's disk may take it.
                Refusal::DiskFull | Refusal::Stopped => self.feed(Input::Elsewhere { id, request, failure, deadline }),
            };
        }
        let held = request.key().map_or(Held::Unknown, |key| self.parts.engine.held(key));
        self.feed(Input::Request { id, request, held, deadline });
    }

    fn enter(&mut self, origin: Origin, request: &Request, given_up: Option<Instant>) -> RequestId {
        let kind = OperationKind::of(request);
        self.pending.begin(Pending { origin, kind, begun: self.now.instant, given_up })
    }

    /// Hands inputs to the shard and carries its effects out until nothing more follows.
    fn feed(&mut self, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            #[cfg(test)]
            let Some(input) = self.spied(input) else { continue };
            let mut effects = std::mem::take(&mut self.effects);
            self.parts.shard.handle(self.now, input, &mut effects);
            for effect in effects.drain(..) {
                self.perform(effect);
            }
            self.effects = effects;
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Ask { to, partition, id, stand, ask, deadline } => {
                self.ask_peer((to, partition), &Question { id, stand, deadline, ask: &ask });
            }
            Effect::Tell { ticket, told } => self.tell(ticket, &told),
            Effect::Compare(stamp) => self.compare(stamp),
            Effect::Load { load, key } => self.load(load, key),
            Effect::Survey { survey, of } => {
                let found = self.parts.engine.survey(&of);
                self.inputs.push_back(Input::Surveyed { survey, found });
            }
            Effect::Scan { scan, of } => {
                let overlay = newer_than_tree(&self.parts.engine, self.parts.ring, &of);
                self.hand_over(Job::Scan { scan, of, overlay });
            }
            Effect::Reached { stamp, step } => {
                // Where there is no room, it is said again.
                let _ = self.parts.notices.try_send(Notice::Reached { core: self.parts.id, stamp, step });
            }
            Effect::Append(append) => {
                self.parts.engine.append(append);
                self.appended = true;
            }
            Effect::List { id, keys } => {
                let overlay = pages::newer_than_tree(&self.parts.engine, self.parts.ring, &keys);
                let deadline = self.now.instant + DEADLINE_DEFAULT;
                self.hand_over(Job::List { id, keys, overlay, deadline });
            }
            Effect::Forget { key, operation } => self.parts.engine.forget(&key, &operation),
            Effect::Reply { id, outcome } => self.on_outcome(id, outcome),
        }
    }

    fn load(&mut self, load: LoadId, key: Key) {
        match self.parts.engine.lookup(&key) {
            Lookup::Found(set) => self.inputs.push_back(Input::Loaded { load, found: Ok(Some(set)) }),
            Lookup::Absent => self.inputs.push_back(Input::Loaded { load, found: Ok(None) }),
            Lookup::Fetching => self.fetching.entry(key).or_default().push(load),
            Lookup::Fetch => {
                self.fetching.entry(key.clone()).or_default().push(load);
                self.fetches.push(key);
            }
        }
    }

    fn on_finished(&mut self, finished: Finished) {
        match finished {
            Finished::Fetched { fetched, took } => {
                self.parts.metrics.cold_reads.increment(fetched.len() as u64);
                self.parts.metrics.cold_read_seconds.record(took);
                for (key, found) in fetched {
                    self.on_fetched(key, found);
                }
            }
            Finished::Scanned { scan, page } => self.feed(Input::Scanned { scan, page }),
            Finished::Listed { id, page } => self.feed(Input::Listed { id, page }),
            Finished::Ingested { outcome, took } => self.on_ingested(outcome, took),
        }
    }

    fn on_fetched(&mut self, key: Key, found: Result<Option<Arc<Siblings>>, Unreadable>) {
        let found = match found {
            Ok(found) => match self.parts.engine.on_fetched(key.clone(), found) {
                Lookup::Found(set) => Ok(Some(set)),
                Lookup::Absent => Ok(None),
                Lookup::Fetch | Lookup::Fetching => return self.fetches.push(key),
            },
            Err(unreadable) => {
                self.parts.engine.on_fetch_failed(&key);
                Err(unreadable)
            }
        };
        for load in self.fetching.remove(&key).unwrap_or_default() {
            self.feed(Input::Loaded { load, found: found.clone() });
        }
    }

    fn begin_chunk(&mut self) {
        if let Some(chunk) = self.parts.engine.next_chunk(self.now.instant) {
            self.hand_over(Job::Ingest(chunk));
        }
        let position = self.parts.engine.position();
        for (_, done) in self.checkpoints.extract_if(.., |(goal, _)| *goal <= position) {
            // Whoever asked may have given up.
            let _ = done.send(Ok(()));
        }
    }

    fn on_ingested(&mut self, outcome: Result<(), bool>, took: Duration) {
        match outcome {
            Ok(()) => {
                self.parts.metrics.ingestions.increment(1);
                self.parts.metrics.ingestion_seconds.record(took);
                self.parts.engine.on_ingested();
                self.begin_chunk();
            }
            Err(full) => {
                self.parts.metrics.ingestion_failures.increment(1);
                self.parts.engine.on_ingest_failed(self.now.instant, full);
                for (_, done) in self.checkpoints.drain(..) {
                    let failure = if full { Failure::DiskFull } else { unreadable_store() };
                    // Whoever asked may have given up.
                    let _ = done.send(Err(failure));
                }
            }
        }
        self.segments.raise();
        self.log.raise();
    }

    fn hand_over(&mut self, job: Job) {
        self.parts.store.send(job).expect("the store thread lives as long as its core");
    }

    /// A request has ended, here or where it was forwarded to.
    fn on_outcome(&mut self, id: RequestId, outcome: Outcome) {
        let Pending { origin, kind, begun, .. } = self.pending.end(id);
        if !matches!(origin, Origin::Core(..)) {
            self.parts.metrics.operation(kind, &outcome, self.now.instant.since(begun));
        }
        match origin {
            Origin::Connection(connection, call) => self.send(&connection, call, &Answer::One(outcome)),
            Origin::Gather(number, at) => {
                let gather = self.gathers.get_mut(&number).expect("a gather lasts until its last part");
                if gather.on_outcome(at, outcome) {
                    self.end_gather(number);
                }
            }
            Origin::Core(from, ticket) => {
                // A core that is gone has stopped the node: there is nobody left to tell.
                let _ = self.parts.mesh[from.index()].send(Errand::Answered { ticket, outcome });
            }
            Origin::Door(answer) => {
                // Whoever asked may have gone away.
                let _ = answer.send(outcome);
            }
        }
    }

    fn send(&mut self, connection: &Rc<Connection>, id: CallId, answer: &Answer) {
        let cramped = self.replies_are_full() && (connection.is_behind() || VALUES_BYTES_SMALL < value_bytes(answer));
        self.replies_bytes +=
            if cramped { connection.answer(id, &refused_values(answer)) } else { connection.answer(id, answer) };
        self.becomes_dirty(connection);
    }

    fn becomes_dirty(&mut self, connection: &Rc<Connection>) {
        if connection.becomes_dirty() {
            self.dirty.push(Rc::clone(connection));
        }
    }

    /// Brings the gauges up to date.
    fn show(&self) {
        let (metrics, stats) = (&self.parts.metrics, self.parts.engine.stats());
        metrics.wal_behind_bytes.set(stats.log_bytes as f64);
        metrics.wal_segments.set((stats.segments_used + stats.segments_spare) as f64);
        metrics.overlay_bytes.set((stats.overlay_bytes + stats.frozen_bytes) as f64);
        metrics.overlay_keys.set(stats.overlay_keys as f64);
        metrics.cache_bytes.set(stats.cache_bytes as f64);
        metrics.cache_keys.set(stats.cache_keys as f64);
        metrics.cache_hits.absolute(stats.cache_hits);
        metrics.cache_misses.absolute(stats.cache_misses);
        metrics.queue_appends.set(stats.queue_records as f64);
        metrics.queue_requests.set(self.pending.len() as f64);
        metrics.queue_loads.set(self.fetching.len() as f64);
        let shard = self.parts.shard.stats();
        let (now, held) = (self.now.instant, self.parts.engine.sum());
        metrics.shard.show(now, &held, &shard);
        self.parts.holdings.show(now, self.parts.id, Holding::of(now, held, &shard));
    }
}

/// Bytes of the values that an answer brings.
fn value_bytes(answer: &Answer) -> usize {
    match answer {
        Answer::One(outcome) => gather::value_bytes(outcome),
        Answer::Many(outcomes) => outcomes.iter().map(gather::value_bytes).sum(),
        Answer::Pong | Answer::Info(_) | Answer::Ring(_) => 0,
    }
}

/// The answer when its values find no room. They can be read again, and what was written is told in any case.
fn refused_values(answer: &Answer) -> Answer {
    let refused = |outcome: &Outcome| match outcome {
        Ok(Reply::Found(_) | Reply::Siblings(_)) => Err(Failure::overloaded()),
        other => other.clone(),
    };
    match answer {
        Answer::One(outcome) => Answer::One(refused(outcome)),
        Answer::Many(outcomes) => Answer::Many(outcomes.iter().map(refused).collect()),
        other => other.clone(),
    }
}

fn unreadable_store() -> Failure {
    Failure::Unreadable { reason: "the chunk could not be ingested: see the log of the node".to_owned() }
}

mod peers;
#[cfg(test)]
mod tests;
