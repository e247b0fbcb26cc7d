//! The state machine of one core: `handle(now, input, effects)`.
//!
//! ```text
//!   Request ──▶ waiting ──Load──▶ Loaded ──▶ (read) answer
//!      │           │                 └─────▶ (write) mint ──Append──▶ Appended ──▶ count ──▶ answer
//!      │           └── its deadline ──▶ answer with numbers            ▲
//!      └── its key is held ──▶ (read) answer, (write) mint ──Append────┘
//! ```
//! Invariants: a request is answered exactly once, by its deadline and one tick; dots are minted in order and used
//! once; a key has one newest appended state, and every mint builds upon it; nothing is acknowledged before it is
//! durable.

use std::collections::VecDeque;
use std::sync::Arc;

use super::causality::Siblings;
use super::config::{LISTINGS_MAX, WAITING_MAX};
use super::coordinator::quorum::Copies;
use super::coordinator::{Busy, Minting, Reading, Writing};
use super::io::{Effect, Effects, Held, Input, Unreadable};
use super::message::{Directory, Failure, Keys, Outcome, Page, Reply, Request};
use super::replica::{Operations, Remembered};
use super::table::Table;
use super::types::{ActorId, AppendId, ClusterId, CoreId, Instant, Key, LoadId, Now, RequestId};

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
    /// Copies and default quorums.
    pub copies: Copies,
    /// Names of nodes by actor.
    pub directory: Arc<Directory>,
    /// The operations that the store remembers, the oldest first.
    pub remembered: Vec<(Key, Remembered)>,
    /// Random bits, by which its tables hash: clients choose keys, and must not choose which of them collide.
    pub seed: u64,
}

/// One core's share of the protocol.
#[derive(Debug)]
pub struct Shard {
    pub(super) cluster: ClusterId,
    pub(super) core: CoreId,
    pub(super) actor: ActorId,
    pub(super) counter: u64,
    pub(super) copies: Copies,
    pub(super) directory: Arc<Directory>,
    pub(super) operations: Operations,
    pub(super) stopped: bool,
    /// The last append, and the last durable one.
    appended: AppendId,
    pub(super) durable: AppendId,
    /// Every request that has no answer yet.
    waiting: Table<RequestId, (Instant, Waiting)>,
    /// No deadline in `waiting` is earlier than this.
    soonest: Option<Instant>,
    loads: Table<LoadId, Load>,
    loads_begun: u64,
    /// Bytes of the writes in `waiting` that are not minted yet.
    pub(super) minting_bytes: usize,
    /// Listings that the store owes, also for requests whose deadline is over.
    listings: usize,
    /// Keys with something under way.
    pub(super) busy: Table<Key, Busy>,
    /// Keys by the appends after which they may be at rest, in order.
    pub(super) settling: VecDeque<(AppendId, Key)>,
    /// Requests by the append that they wait for, in order.
    pub(super) awaiting: VecDeque<(AppendId, RequestId)>,
}

/// Whom to answer, and until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) id: RequestId,
    pub(super) deadline: Instant,
}

/// What a request waits for.
#[derive(Debug)]
pub(super) enum Waiting {
    Read(Reading),
    /// Boxed: few writes wait for the store, and what they hold is large.
    Mint(Box<Minting>),
    Append(Writing),
    List,
}

/// What a load is for.
#[derive(Debug)]
pub(super) enum Load {
    Read(RequestId),
    Mint(Key),
}

impl Shard {
    /// A shard at rest.
    pub fn new(now: Instant, birth: Birth) -> Shard {
        let Birth { cluster, core, actor, counter, copies, directory, remembered, seed } = birth;
        let mut operations = Operations::new(seed);
        for (key, known) in remembered {
            operations.remember(now, key, known, AppendId::default());
        }
        Shard {
            cluster,
            core,
            actor,
            counter,
            copies,
            directory,
            operations,
            stopped: false,
            appended: AppendId::default(),
            durable: AppendId::default(),
            waiting: Table::new(seed),
            soonest: None,
            loads: Table::new(seed),
            loads_begun: 0,
            minting_bytes: 0,
            listings: 0,
            busy: Table::new(seed),
            settling: VecDeque::new(),
            awaiting: VecDeque::new(),
        }
    }

    /// Takes one input in and puts what follows from it into `effects`, in order.
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Effects) {
        match input {
            Input::Request { id, request, held, deadline } => {
                self.on_request(now, Asker { id, deadline }, request, held, effects);
            }
            Input::Loaded { load, found } => self.on_loaded(now, load, found, effects),
            Input::Appended { through } => self.on_appended(through, effects),
            Input::AppendsFailed { actor } => self.on_appends_failed(actor, effects),
            Input::Listed { id, page } => self.on_listed(id, page, effects),
            Input::Asked { .. } | Input::Told { .. } | Input::View(_) | Input::Linked(_) => {}
            Input::Tick => self.on_tick(now.instant, effects),
        }
    }

    /// The actor and its last counter, for the mark of a clean stop.
    pub fn actor(&self) -> (ActorId, u64) {
        (self.actor, self.counter)
    }

    fn on_request(&mut self, now: Now, asker: Asker, request: Request, held: Held, effects: &mut Effects) {
        match request {
            Request::Get(get) => self.on_get(asker, get, held, effects),
            Request::Put(put) => self.on_put(now, asker, put, held, effects),
            Request::Delete(delete) => self.on_delete(now, asker, delete, held, effects),
            Request::Siblings(key) => self.on_siblings(asker, key, held, effects),
            Request::Keys(keys) => self.on_keys(asker, keys, effects),
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
            Some(Load::Read(id)) => self.on_copy(id, found, effects),
            Some(Load::Mint(key)) => self.on_held(now, &key, found, effects),
            None => unreachable!("load {load:?} ended twice"),
        }
    }

    fn on_keys(&mut self, asker: Asker, keys: Keys, effects: &mut Effects) {
        if self.listings >= LISTINGS_MAX || !self.has_room() {
            return Shard::refuse(asker.id, Failure::overloaded(), effects);
        }
        self.wait(asker, Waiting::List);
        self.listings += 1;
        effects.push(Effect::List { id: asker.id, keys });
    }

    fn on_listed(&mut self, id: RequestId, page: Result<Page, Unreadable>, effects: &mut Effects) {
        self.listings -= 1;
        let outcome = page.map(Reply::Keys).map_err(|unreadable| Failure::Unreadable { reason: unreadable.reason });
        self.answer(id, outcome, effects);
    }

    fn on_tick(&mut self, now: Instant, effects: &mut Effects) {
        self.forget_old_operations(now, effects);
        if self.soonest.is_none_or(|soonest| now < soonest) {
            return;
        }
        for id in self.waiting.keys_of(|(deadline, _)| *deadline <= now) {
            let failure = self.waiting_mut(id).expect("it was found a line ago").too_late();
            self.answer(id, Err(failure), effects);
        }
        self.soonest = self.waiting.least(|(deadline, _)| *deadline);
        self.forget_the_late();
    }

    /// What waits for the store or the log may wait for ever; who was answered does not wait with it.
    fn forget_the_late(&mut self) {
        let Shard { waiting, busy, awaiting, .. } = self;
        awaiting.retain(|(_, id)| waiting.contains(id));
        busy.retain(|busy| {
            if let Busy::Loading(queue) = busy {
                queue.retain(|id| waiting.contains(id));
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

    /// Whether one more request may wait. Whoever has to wait and may not is refused as overloaded.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len().max(self.loads.len()) < WAITING_MAX
    }

    /// Enters a request into the table. There is room for it.
    pub(super) fn wait(&mut self, asker: Asker, waiting: Waiting) {
        let Asker { id, deadline } = asker;
        if let Waiting::Mint(minting) = &waiting {
            self.minting_bytes += minting.bytes();
        }
        let before = self.waiting.insert(id, (deadline, waiting));
        assert!(before.is_none(), "request {id:?} came in twice");
        self.soonest = Some(self.soonest.map_or(deadline, |soonest| soonest.min(deadline)));
    }

    pub(super) fn waiting_mut(&mut self, id: RequestId) -> Option<&mut Waiting> {
        self.waiting.get_mut(&id).map(|(_, waiting)| waiting)
    }

    /// Takes a request out of the table: the caller answers it or lets it wait again.
    pub(super) fn take(&mut self, id: RequestId) -> Option<(Instant, Waiting)> {
        let taken = self.waiting.remove(&id);
        if let Some((_, Waiting::Mint(minting))) = &taken {
            self.minting_bytes -= minting.bytes();
        }
        taken
    }

    pub(super) fn load(&mut self, load: Load, key: Key, effects: &mut Effects) {
        self.loads_begun += 1;
        let id = LoadId(self.loads_begun);
        self.loads.insert(id, load);
        effects.push(Effect::Load { load: id, key });
    }

    pub(super) fn next_append(&mut self) -> AppendId {
        self.appended = self.appended.next();
        self.appended
    }

    /// Answers a request that waits; one that was answered already stays so.
    pub(super) fn answer(&mut self, id: RequestId, outcome: Outcome, effects: &mut Effects) {
        if self.take(id).is_some() {
            effects.push(Effect::Reply { id, outcome });
        }
    }

    /// Answers a request that never came to wait.
    pub(super) fn refuse(id: RequestId, failure: Failure, effects: &mut Effects) {
        effects.push(Effect::Reply { id, outcome: Err(failure) });
    }
}

impl Waiting {
    fn too_late(&self) -> Failure {
        match self {
            Waiting::Read(reading) => reading.quorum().not_met(),
            Waiting::Mint(minting) => minting.quorum().not_met(),
            Waiting::Append(writing) => writing.quorum().not_met(),
            Waiting::List => Failure::QuorumNotMet { needed: 1, got: 0 },
        }
    }
}

#[cfg(test)]
mod tests;
