//! The state machine of one core: `handle(now, input, effects)`.
//!
//! ```text
//!   Request ──▶ not ours ──▶ Ask(Forward) ──▶ Told ──▶ answer
//!      │
//!      ├──▶ read:  own copy, Ask(Fetch) of the R best ──▶ Told ──▶ R heard ──▶ answer ──▶ repair those behind
//!      └──▶ write: the key's newest state ──▶ mint ──▶ Append and Ask(Store) at once ──▶ W durable ──▶ answer
//!   Asked ───────▶ the key's newest state ──▶ take in ──▶ Append ──▶ durable ──▶ Tell
//! ```
//! Invariants: a request is answered and a peer is told exactly once, by its deadline and one tick; dots are minted in
//! order and used once; a key has one newest appended state, and every mint and every merge builds upon it; nothing is
//! acknowledged before it is durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::antientropy::{AntiEntropy, JobId, Tuning};
use super::asks::Asking;
use super::causality::Siblings;
use super::config::{LISTINGS_MAX, WAITING_MAX};
use super::coordinator::quorum::Copies;
use super::coordinator::{Forwarding, Minting, Reading, Writing};
use super::hints::{Due, Hints};
use super::io::{Effect, Effects, Held, Hint, Input, Unreadable};
use super::marking::Marking;
use super::message::{Directory, Failure, Keys, Outcome, Page, Reply, Request};
use super::peer::{Refused, Told};
use super::peers::Peers;
use super::planted::Planted;
use super::replica::{Busy, Operations, Remembered, Serving};
use super::ring::{LayoutStamp, Partition, Ring, View};
use super::stats::Stats;
use super::table::Table;
use super::tombstones::Tombstones;
use super::types::{
    ActorId, AppendId, AskId, ClusterId, CoreId, Instant, Key, LoadId, NodeId, Now, RequestId, TicketId, WallTime,
};

/// Operations that are forgotten in one tick: more than may come in between two, and some milliseconds of a core. Those
/// that a start finds all grow old in the same moment.
const FORGOTTEN_AT_ONCE: usize = 4_096;

/// Who a shard is, and what it starts with.
#[derive(Clone, Debug)]
pub struct Birth {
    /// The cluster whose contexts it gives out and takes.
    pub cluster: ClusterId,
    /// Its core.
    pub core: CoreId,
    /// The actor that it mints as.
    pub actor: ActorId,
    /// The actor's last counter: 0 for a fresh one.
    pub counter: u64,
    /// A fresh actor, minted as once a peer turns out to know more of `actor` than this core does.
    pub spare: ActorId,
    /// The cluster as it is seen at the start.
    pub view: Arc<View>,
    /// Names of nodes by actor.
    pub directory: Arc<Directory>,
    /// The operations that the store remembers, the oldest first.
    pub remembered: Vec<(Key, Remembered)>,
    /// The hints that the store keeps.
    pub hints: Vec<(Key, Hint)>,
    /// Random bits, by which its tables hash: clients choose keys, and must not choose which of them collide.
    pub seed: u64,
    /// Bytes a second that this core fetches at most when its node gains partitions.
    pub transfer_rate: u64,
    /// How often it compares what it holds with the other owners.
    pub compare_period: Duration,
    /// Whether an owner that is away is owed what it misses. Without, only hints that count towards W are kept, and
    /// nothing tells what was missed but the trees.
    pub keeps_hints: bool,
    /// Tombstones are kept for so long, of running time: longer than operations are remembered.
    pub tombstone_age: Duration,
    /// The fault that it has: none but in a rehearsal.
    pub planted: Planted,
}

/// One core's share of the protocol.
#[derive(Debug)]
pub struct Shard {
    pub(super) cluster: ClusterId,
    pub(super) core: CoreId,
    pub(super) actor: ActorId,
    pub(super) counter: u64,
    pub(super) spare: ActorId,
    pub(super) view: Arc<View>,
    pub(super) ring: Ring,
    pub(super) copies: Copies,
    pub(super) directory: Arc<Directory>,
    pub(super) operations: Operations,
    pub(super) stopped: bool,
    /// The last append, and the last durable one.
    pub(super) appended: AppendId,
    pub(super) durable: AppendId,
    /// Every request that has no answer yet, and what still goes on for the sake of others behind one that has.
    pub(super) waiting: Table<Whom, (Instant, Waiting)>,
    /// No deadline in `waiting` is earlier than this.
    soonest: Option<Instant>,
    /// Those that ask others as well if they wait still then, in order.
    pub(super) stretching: VecDeque<(Instant, Whom)>,
    pub(super) asks: Table<AskId, Asking>,
    pub(super) asks_begun: u64,
    /// Questions by the time when they are given up, in order.
    pub(super) patience: VecDeque<(Instant, AskId)>,
    pub(super) peers: Peers,
    /// Those that wait for a view of at least this layout.
    pub(super) outdated: BTreeMap<Whom, LayoutStamp>,
    /// What this core does for the change under way.
    pub(super) marking: Option<Marking>,
    /// Partitions of which sets were dropped here, by actors as they are now.
    pub(super) dropped: BTreeSet<Partition>,
    /// Reads whose answer is out, for repair.
    pub(super) late: Table<Whom, Reading>,
    pub(super) reads: u64,
    pub(super) forwards: u64,
    pub(super) hints: Hints,
    pub(super) keeps_hints: bool,
    /// Partitions that lost a hint beyond W: some owner lacks what no hint says.
    pub(super) marked: BTreeSet<Partition>,
    pub(super) trees: AntiEntropy,
    pub(super) tombstones: Tombstones,
    pub(super) loads: Table<LoadId, Load>,
    pub(super) loads_begun: u64,
    /// Bytes of the writes in `waiting` that are not minted yet.
    pub(super) minting_bytes: usize,
    /// Listings that the store owes, also for requests whose deadline is over.
    listings: usize,
    /// Keys with something under way.
    pub(super) busy: Table<Key, Busy>,
    /// Keys by the appends after which they may be at rest, in order.
    pub(super) settling: VecDeque<(AppendId, Key)>,
    /// Requests by the append that they wait for, in order.
    pub(super) awaiting: VecDeque<(AppendId, Whom)>,
    pub(super) stats: Stats,
    pub(super) planted: Planted,
}

/// Whom an answer goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Whom {
    /// A client, or whoever stands in for one on this node.
    Client(RequestId),
    /// A peer.
    Peer(TicketId),
}

/// Whom to answer, and until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) whom: Whom,
    pub(super) deadline: Instant,
}

/// What a request waits for.
#[derive(Debug)]
pub(super) enum Waiting {
    Read(Box<Reading>),
    /// Boxed: few writes wait for the store, and what they hold is large.
    Mint(Box<Minting>),
    /// Boxed too: what waits for a peer's sake lies in the same table.
    Write(Box<Writing>),
    Forward(Box<Forwarding>),
    /// A peer's question waits for the key's state.
    Serve(Box<Serving>),
    /// A peer is told this once an append is durable.
    Durable(Told),
    /// A peer's question waits for what the trees or the keys of a partition say.
    Look,
    /// A peer's question in a round about tombstones waits for the states of keys.
    Collect,
    List,
}

/// What a load is for.
#[derive(Debug)]
pub(super) enum Load {
    /// A copy, to be shown; for a read that was begun so often before.
    Copy(Whom, u32),
    /// The state that the tasks of a key wait for.
    State(Key),
    /// What a hint owes.
    Hint(Due),
    /// What a peer lacks.
    Lacking(JobId, Key),
    /// Whether a round may forget this one of its keys.
    Agree(Partition, u32, usize),
}

impl Shard {
    /// A shard at rest.
    pub fn new(now: Instant, birth: Birth) -> Shard {
        let Birth { cluster, core, actor, counter, spare, view, directory, remembered, hints, .. } = birth;
        let Birth { transfer_rate, compare_period, keeps_hints, tombstone_age, seed, planted, .. } = birth;
        let mut operations = Operations::new(seed, planted);
        for (key, known) in remembered {
            operations.remember(now, key, known, AppendId::default());
        }
        let mut kept = Hints::default();
        for (key, Hint { target, counted }) in hints {
            kept.keep(target, key, counted, AppendId::default());
        }
        let mut shard = Shard {
            cluster,
            core,
            actor,
            counter,
            spare,
            ring: Ring::new(view.layout.partitions()),
            copies: Copies::of(&view.layout),
            view,
            directory,
            operations,
            stopped: false,
            appended: AppendId::default(),
            durable: AppendId::default(),
            waiting: Table::new(seed),
            soonest: None,
            stretching: VecDeque::new(),
            asks: Table::new(seed),
            asks_begun: 0,
            patience: VecDeque::new(),
            peers: Peers::default(),
            outdated: BTreeMap::new(),
            marking: None,
            dropped: BTreeSet::new(),
            late: Table::new(seed),
            reads: 0,
            forwards: 0,
            hints: kept,
            keeps_hints,
            marked: BTreeSet::new(),
            trees: AntiEntropy::new(seed, Tuning { compare_period, transfer_rate }),
            tombstones: Tombstones::new(tombstone_age),
            loads: Table::new(seed),
            loads_begun: 0,
            minting_bytes: 0,
            listings: 0,
            busy: Table::new(seed),
            settling: VecDeque::new(),
            awaiting: VecDeque::new(),
            stats: Stats::default(),
            planted,
        };
        shard.share_out(Now { instant: now, wall: WallTime(0) });
        shard
    }

    /// Takes one input in and puts what follows from it into `effects`, in order.
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Effects) {
        match input {
            Input::Request { id, request, held, deadline } => {
                self.on_request(now, Asker { whom: Whom::Client(id), deadline }, request, held, effects);
            }
            Input::Elsewhere { id, request, failure, deadline } => {
                self.hand_on(now, Asker { whom: Whom::Client(id), deadline }, request, Some(failure), effects);
            }
            Input::Surveyed { survey, found } => self.on_surveyed(now, survey, found, effects),
            Input::Scanned { scan, page } => self.on_scanned(now, scan, page, effects),
            Input::Asked { ticket, stand, ask, held, deadline } => {
                self.on_asked(now, Asker { whom: Whom::Peer(ticket), deadline }, stand, ask, held, effects);
            }
            Input::Told { ask, told } => self.on_told(now, ask, told, effects),
            Input::Loaded { load, found } => self.on_loaded(now, load, found, effects),
            Input::Appended { through } => self.on_appended(now, through, effects),
            Input::AppendsFailed { actor } => self.on_appends_failed(actor, effects),
            Input::Listed { id, page } => self.on_listed(id, page, effects),
            Input::View(view) => self.on_view(now, view, effects),
            Input::Linked(node) => {
                self.peers.on_linked(node);
                self.deliver_hints(now, effects);
            }
            Input::Tick => self.on_tick(now, effects),
        }
    }

    /// The actor to go on as and its last counter, for the mark of a clean stop: a fresh one where dots may be
    /// forgotten.
    pub fn actor(&self) -> (ActorId, u64) {
        if self.dropped.is_empty() { (self.actor, self.counter) } else { (self.spare, 0) }
    }

    /// The cluster as it sees it.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What it has counted since the start, and how many hints wait.
    pub fn stats(&self) -> Stats {
        let stats = Stats {
            hints_waiting: self.hints.len() as u64,
            hints_bytes: self.hints.bytes() as u64,
            partitions_marked: self.marked.len() as u64,
            ..self.stats
        };
        self.trees.count(stats)
    }

    /// What is in its tables, which is nothing on a shard that has rested for a while. Comparisons
    /// come and go for ever, and do not count.
    #[cfg(feature = "sim")]
    pub(crate) fn under_way(&self) -> usize {
        let asks = self.asks.keys_of(|asking| !asking.compares()).len();
        let tables = self.waiting.len() + asks + self.late.len() + self.loads.len() + self.busy.len();
        tables
            + self.trees.under_way()
            + self.tombstones.rounds_under_way()
            + self.tombstones.promised()
            + self.outdated.len()
            + self.awaiting.len()
            + self.settling.len()
            + self.minting_bytes
    }

    /// Changes how fast it fetches.
    #[cfg(all(test, feature = "sim"))]
    pub(crate) fn fetch_at(&mut self, transfer_rate: u64) {
        self.trees.fetch_at(transfer_rate);
    }

    /// Changes how often it compares what it holds with others.
    #[cfg(all(test, feature = "sim"))]
    pub(crate) fn compare_each(&mut self, compare_period: Duration) {
        self.trees.compare_each(compare_period);
    }

    /// As if a hint of this partition had been dropped for lack of room.
    #[cfg(all(test, feature = "sim"))]
    pub(crate) fn mark(&mut self, partition: Partition) {
        self.marked.insert(partition);
    }

    fn on_request(&mut self, now: Now, asker: Asker, request: Request, held: Held, effects: &mut Effects) {
        match request {
            Request::Siblings(key) => self.on_siblings(now, asker, key, held, effects),
            Request::Keys(keys) => self.on_keys(asker, keys, effects),
            request => self.route(now, asker, request, held, effects),
        }
    }

    fn on_loaded(
        &mut self,
        now: Now,
        load: LoadId,
        found: Result<Option<Arc<Siblings>>, Unreadable>,
        effects: &mut Effects,
    ) {
        match self.loads.remove(&load) {
            Some(Load::Copy(whom, attempt)) => self.on_copy(now, (whom, attempt), found, effects),
            Some(Load::State(key)) => self.on_state(now, &key, found, effects),
            Some(Load::Hint(due)) => self.on_owed(now, due, found, effects),
            Some(Load::Lacking(job, key)) => self.on_lacking(now, job, key, found, effects),
            Some(Load::Agree(partition, round, at)) => self.on_agreeing(now, partition, round, at, found, effects),
            None => unreachable!("load {load:?} ended twice"),
        }
    }

    fn on_keys(&mut self, asker: Asker, keys: Keys, effects: &mut Effects) {
        let Whom::Client(id) = asker.whom else {
            return self.finish(asker.whom, Err(not_for_peers()), effects);
        };
        if self.listings >= LISTINGS_MAX || !self.has_room() {
            return self.finish(asker.whom, Err(Failure::overloaded()), effects);
        }
        self.wait(asker, Waiting::List);
        self.listings += 1;
        effects.push(Effect::List { id, keys });
    }

    fn on_listed(&mut self, id: RequestId, page: Result<Page, Unreadable>, effects: &mut Effects) {
        self.listings -= 1;
        let outcome = page.map(Reply::Keys).map_err(|unreadable| Failure::Unreadable { reason: unreadable.reason });
        self.answer(Whom::Client(id), outcome, effects);
    }

    fn on_tick(&mut self, now: Now, effects: &mut Effects) {
        self.forget_old_operations(now.instant, effects);
        self.give_up_asks(now, effects);
        self.stretch(now, effects);
        self.deliver_hints(now, effects);
        self.converge(now, effects);
        self.tell_reached(now.instant, effects);
        self.lead_rounds(now, effects);
        if self.soonest.is_none_or(|soonest| now.instant < soonest) {
            return;
        }
        for whom in self.waiting.keys_of(|(deadline, _)| *deadline <= now.instant) {
            self.on_deadline(whom, effects);
        }
        self.soonest = self.waiting.least(|(deadline, _)| *deadline);
        self.forget_the_late();
    }

    /// A write that others still take in goes on after its answer: who does not gets a hint.
    fn on_deadline(&mut self, whom: Whom, effects: &mut Effects) {
        let Some((_, waiting)) = self.take(whom) else { return };
        match waiting {
            Waiting::Write(mut writing) => {
                if !writing.is_answered() {
                    self.stats.quorum_failures += 1;
                    writing.set_answered();
                    self.finish(whom, Err(writing.not_met()), effects);
                }
                self.owe_the_open(&mut writing, effects);
                if writing.is_spreading() {
                    self.wait(Asker { whom, deadline: Instant(u64::MAX) }, Waiting::Write(writing));
                }
            }
            Waiting::Serve(_) | Waiting::Durable(_) | Waiting::Look | Waiting::Collect => {
                self.tell(whom, Told::Refused(Refused::TooLate), effects)
            }
            other => {
                self.stats.quorum_failures += 1;
                let failure = other.too_late();
                self.finish(whom, Err(failure), effects);
            }
        }
    }

    /// What waits for the store or the log may wait for ever; who was answered does not wait with it.
    fn forget_the_late(&mut self) {
        let Shard { waiting, busy, awaiting, stretching, outdated, asks, .. } = self;
        asks.retain(|asking| asking.forwards().is_none_or(|whom| waiting.contains(&whom)));
        outdated.retain(|whom, _| waiting.contains(whom));
        awaiting.retain(|(_, whom)| waiting.contains(whom));
        stretching.retain(|(_, whom)| waiting.contains(whom));
        busy.retain(|busy| {
            if let Busy::Loading(queue) = busy {
                queue.retain(|task| task.whom().is_none_or(|whom| waiting.contains(&whom)));
            }
            true
        });
    }

    fn forget_old_operations(&mut self, now: Instant, effects: &mut Effects) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            let Some((key, operation)) = self.operations.next_forgotten(now) else {
                return;
            };
            effects.push(Effect::Forget { key, operation });
        }
    }

    /// Whether this node owns the partition in the layout that reads go by.
    pub(super) fn owns(&self, partition: Partition) -> bool {
        self.view.layout.is_owner(self.view.me, partition)
    }

    /// Whether it owns the partition so, and has what it held: its copy is read, and it coordinates.
    pub(super) fn coordinates(&self, partition: Partition) -> bool {
        self.owns(partition) && self.view.is_whole(&self.view.layout, self.view.me)
    }

    /// Whether a question to the node would reach it, as far as is known.
    pub(super) fn is_reachable(&self, node: NodeId) -> bool {
        self.view.is_up(node) && self.peers.is_linked(node)
    }

    /// Whether one more request may wait. Whoever has to wait and may not is refused as overloaded.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len().max(self.loads.len()) < WAITING_MAX
    }

    /// Enters a request into the table. There is room for it.
    pub(super) fn wait(&mut self, asker: Asker, waiting: Waiting) {
        let Asker { whom, deadline } = asker;
        self.minting_bytes += waiting.minting_bytes();
        let before = self.waiting.insert(whom, (deadline, waiting));
        assert!(before.is_none(), "request {whom:?} came in twice");
        self.soonest = Some(self.soonest.map_or(deadline, |soonest| soonest.min(deadline)));
    }

    pub(super) fn waiting_mut(&mut self, whom: Whom) -> Option<&mut Waiting> {
        self.waiting.get_mut(&whom).map(|(_, waiting)| waiting)
    }

    /// Takes a request out of the table: the caller answers it or lets it wait again.
    pub(super) fn take(&mut self, whom: Whom) -> Option<(Instant, Waiting)> {
        let taken = self.waiting.remove(&whom);
        self.minting_bytes -= taken.as_ref().map_or(0, |(_, waiting)| waiting.minting_bytes());
        taken
    }

    pub(super) fn load(&mut self, load: Load, key: Key, effects: &mut Effects) {
        self.loads_begun += 1;
        let id = LoadId(self.loads_begun);
        self.loads.insert(id, load);
        effects.push(Effect::Load { load: id, key });
    }

    /// Answers a request that waits; one that was answered already stays so.
    pub(super) fn answer(&mut self, whom: Whom, outcome: Outcome, effects: &mut Effects) {
        if self.take(whom).is_some() {
            self.finish(whom, outcome, effects);
        }
    }

    /// Answers a request that does not wait.
    pub(super) fn finish(&mut self, whom: Whom, outcome: Outcome, effects: &mut Effects) {
        match whom {
            Whom::Client(id) => effects.push(Effect::Reply { id, outcome }),
            Whom::Peer(ticket) => effects.push(Effect::Tell { ticket, told: Told::Outcome(Box::new(outcome)) }),
        }
    }

    /// Tells a peer whose question does not wait.
    pub(super) fn tell(&mut self, whom: Whom, told: Told, effects: &mut Effects) {
        let Whom::Peer(ticket) = whom else { unreachable!("only peers are told, {whom:?} is a client") };
        effects.push(Effect::Tell { ticket, told });
    }
}

impl Waiting {
    /// Bytes of a write that is not minted yet.
    fn minting_bytes(&self) -> usize {
        match self {
            Waiting::Mint(minting) => minting.bytes(),
            Waiting::Read(reading) => reading.minting_bytes(),
            _ => 0,
        }
    }

    /// The partition of whose sets it holds some, or is about to.
    pub(super) fn partition(&self, ring: Ring) -> Option<Partition> {
        match self {
            Waiting::Read(reading) => Some(reading.partition()),
            Waiting::Mint(minting) => Some(minting.partition()),
            Waiting::Write(writing) => Some(writing.partition()),
            Waiting::Serve(serving) => Some(ring.partition(serving.key())),
            // A request that was handed on carries no set; what is told to a peer is that something is durable, or what
            // it asked for itself.
            Waiting::Forward(_) | Waiting::Durable(_) | Waiting::Look | Waiting::Collect | Waiting::List => None,
        }
    }

    fn too_late(&self) -> Failure {
        match self {
            Waiting::Read(reading) => reading.quorum().not_met(),
            Waiting::Mint(minting) => minting.not_met(),
            Waiting::Write(writing) => writing.not_met(),
            Waiting::Forward(forwarding) => forwarding.not_met(),
            Waiting::List => Failure::QuorumNotMet { needed: 1, got: 0 },
            Waiting::Serve(_) | Waiting::Durable(_) | Waiting::Look | Waiting::Collect => {
                unreachable!("peers are told otherwise")
            }
        }
    }
}

fn not_for_peers() -> Failure {
    Failure::Malformed { reason: "this request is not forwarded from node to node".to_owned() }
}

#[cfg(test)]
mod tests;
