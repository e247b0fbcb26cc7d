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

use tokio::sync::oneshot;

use super::clock::Clock;
use super::connection::{Connection, Said};
use super::entropy;
use super::gather::Gather;
use super::holdings::{Holding, Holdings};
use super::link::Question;
use super::links::Links;
use super::mail::{Errand, Job, Knock, Notice, Wish};
use super::metrics::CoreMetrics;
use super::pages;
use super::pending::{Origin, Requests, Tickets};
use super::signal::Signal;
use crate::protocol::config::DEADLINE_DEFAULT;
use crate::protocol::io::{Effect, Effects, Input};
use crate::protocol::message::{Failure, NodeInfo, Request};
use crate::protocol::ring::{Cores, LayoutStamp, Ring};
use crate::protocol::shard::Shard;
use crate::protocol::types::{AppendId, CoreId, Instant, Key, LoadId, Now};
use crate::store::home::Left;
use crate::store::scan::newer_than_tree;
use crate::store::{Engine, FORESEEN_MAX};

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

mod calls;
mod disk;
mod peers;
#[cfg(test)]
mod tests;
