//! What all nodes of a world share: time, chance, what is due when, the network, and whoever watches.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use bytes::Bytes;

use super::super::chance::Chance;
use super::super::coverage::{Coverage, Reach};
use super::super::shape::Shape;
use super::super::trace::Trace;
use super::super::watch::Watch;
use super::clock::Clock;
use super::network::Network;
use crate::protocol::io::Scan;
use crate::protocol::membership::{ExchangeId, Order, OrderId, OrderRefused};
use crate::protocol::peer::Unheard;
use crate::protocol::planted::Planted;
use crate::protocol::ring::{LayoutStamp, Ring, Step, View};
use crate::protocol::types::{AskId, CoreId, Instant, Key, NodeId, Now, ScanId, TicketId};
use crate::store::KeySet;
use crate::store::wal::SpareSegment;
use std::sync::Arc;

/// The index of a node in its world.
pub(crate) type At = usize;

/// A process of a node: what was meant for an earlier one is lost.
pub(super) type Life = u64;

/// One core of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The node.
    pub node: At,
    /// Its process.
    pub life: Life,
    /// The core.
    pub core: CoreId,
}

/// Something that is due.
#[derive(Debug)]
pub(crate) enum Event {
    /// At one core of a process.
    Core(Place, CoreEvent),
    /// At the membership of a process.
    Members(At, Life, MembersEvent),
    /// At a client.
    Client(usize, ClientEvent),
    /// A fault begins or ends, or an operator does something.
    World(WorldEvent),
}

/// What comes to a core.
#[derive(Debug)]
pub(crate) enum CoreEvent {
    /// Time goes by; which tick it is.
    Tick(u64),
    /// The write to the log has ended, or failed.
    Written {
        /// Whether it is durable.
        is_durable: bool,
    },
    /// A segment stands ready.
    Prepared(SpareSegment),
    /// The chunk is in the tree, or found no room.
    Ingested,
    /// The tree was read.
    Fetched(Key),
    /// A scan has its turn; beside it what memory held of its partition when it was asked for.
    Scanned(ScanId, Box<Scan>, Vec<KeySet>),
    /// The cluster is seen otherwise.
    View(Arc<View>),
    /// A line to a peer is up.
    Linked(NodeId),
    /// A client calls.
    Called {
        /// Which client, and which of its calls.
        caller: Caller,
        /// The frame.
        frame: Bytes,
    },
    /// A peer asks.
    Asked {
        /// Whom to tell; nobody who waits where it came twice.
        asker: Asker,
        /// The frame.
        frame: Bytes,
    },
    /// A peer tells.
    Told {
        /// What was asked.
        ask: AskId,
        /// The frame, or why there is none.
        told: Result<Bytes, Unheard>,
    },
}

/// What comes to a membership.
#[derive(Debug)]
pub(crate) enum MembersEvent {
    /// It wants to be woken now.
    Wake,
    /// It is time to say whether the node holds data.
    Count,
    /// A datagram.
    Packet(At, Bytes),
    /// A letter of another node, in whose exchange, and whom it is for.
    Letter {
        /// Who wrote it, in which life.
        from: (At, Life),
        /// His exchange.
        exchange: ExchangeId,
        /// Who is to answer it; whoever is there, where it names nobody.
        to: Option<NodeId>,
        /// The message.
        bytes: Bytes,
    },
    /// The answer of another node, or silence.
    Answered(ExchangeId, Option<Bytes>),
    /// What was to be durable is, or could not be written.
    Persisted,
    /// A core has reached a step.
    Reached(CoreId, LayoutStamp, Step),
    /// A core has heard of another layout.
    Differs(LayoutStamp),
    /// An operator orders.
    Order(OrderId, Order),
}

/// What comes to a client.
#[derive(Debug)]
pub(crate) enum ClientEvent {
    /// It has thought enough.
    Go,
    /// The answer to a call; none where the connection ended.
    Answer(u64, Option<Bytes>),
    /// It waits no longer for this call.
    GiveUp(u64),
}

/// What comes to the world.
#[derive(Debug)]
pub(crate) enum WorldEvent {
    /// It is time for another fault.
    Mischief,
    /// A fault ends.
    Mend(Mend),
    /// A connection that was lost is made anew, where that is possible.
    Relink(At, At),
    /// The operator looks after what was staged.
    Operate,
}

/// How a fault ends.
#[derive(Clone, Debug)]
pub(crate) enum Mend {
    /// The node starts again.
    Start(At),
    /// It does, and the next one is restarted, and so on.
    Roll(At),
    /// It goes on.
    Resume(At),
    /// Messages pass again in these directions.
    Join(Vec<(At, At)>),
    /// Its disk has room.
    Empty(At),
    /// It is as fast as others.
    Hurry(At),
    /// The network is as it was before.
    Calm,
}

/// Who called, and which of his calls it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Caller {
    /// The client.
    pub client: usize,
    /// His call.
    pub number: u64,
}

/// Who asked, and his name for the question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    /// The core that asked.
    pub place: Place,
    /// Which of all asks it is.
    pub ticket: TicketId,
    /// His name for it.
    pub ask: AskId,
}

/// What all nodes know of a node from outside: what the kernel and the network would say.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    /// Its id.
    pub id: NodeId,
    /// Its process; none while it is down.
    pub life: Option<Life>,
    /// Cores of it that have seen the cluster. Once all have, it takes connections.
    pub open: u16,
    /// How it spreads partitions.
    pub cores: crate::protocol::ring::Cores,
    /// Everything of it takes so much longer.
    pub lag: Duration,
    /// Its clocks.
    pub clock: Clock,
}

/// What all nodes share.
pub(crate) struct Stage {
    /// Virtual time.
    pub now: Instant,
    /// All chance there is.
    pub chance: Chance,
    /// What was drawn for this run.
    pub shape: Shape,
    /// The planted fault.
    pub planted: Planted,
    /// The nodes as the network sees them.
    pub posts: Vec<Post>,
    /// Ways between them.
    pub network: Network,
    /// Who is told of everything that happens, and judges it.
    pub watch: Watch,
    /// What was reached.
    pub coverage: Coverage,
    /// What is told to people.
    pub trace: Trace,
    /// Asks that have no answer yet, by the node that was asked.
    pub under_way: BTreeMap<At, BTreeMap<TicketId, Asker>>,
    /// What became of orders.
    pub ordered: BTreeMap<OrderId, Result<(), OrderRefused>>,
    queue: BinaryHeap<Reverse<Due>>,
    scheduled: u64,
    tickets: u64,
}

struct Due {
    at: Instant,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl Stage {
    /// An empty stage.
    pub(crate) fn new(chance: Chance, shape: Shape, planted: Planted, trace: Trace) -> Stage {
        let watch = Watch::new(&shape);
        Stage {
            now: Instant(1_000_000),
            chance,
            shape,
            planted,
            posts: Vec::new(),
            network: Network::default(),
            watch,
            coverage: Coverage::default(),
            trace,
            under_way: BTreeMap::new(),
            ordered: BTreeMap::new(),
            queue: BinaryHeap::new(),
            scheduled: 0,
            tickets: 0,
        }
    }

    /// The ring of the cluster.
    pub(crate) fn ring(&self) -> Ring {
        Ring::new(self.shape.partitions)
    }

    /// Something comes after a while.
    pub(crate) fn after(&mut self, wait: Duration, event: Event) {
        self.scheduled += 1;
        self.queue.push(Reverse(Due { at: self.now + wait, number: self.scheduled, event }));
    }

    /// What is due next, if that is before `until`; time goes on to it.
    pub(crate) fn next(&mut self, until: Instant) -> Option<Event> {
        if self.queue.peek()?.0.at > until {
            return None;
        }
        let Reverse(Due { at, event, .. }) = self.queue.pop()?;
        self.now = self.now.max(at);
        Some(event)
    }

    /// The next name for an ask.
    pub(crate) fn ticket(&mut self) -> TicketId {
        self.tickets += 1;
        TicketId(self.tickets)
    }

    /// Both clocks of a node.
    pub(crate) fn clocks(&self, at: At) -> Now {
        self.posts[at].clock.now(self.now)
    }

    /// Something comes to a node when its own clock has gone on by so much.
    pub(crate) fn after_by_its_clock(&mut self, at: At, wait: Duration, event: Event) {
        self.after(self.posts[at].clock.takes(wait), event);
    }

    /// A node by its id.
    pub(crate) fn at(&self, id: NodeId) -> Option<At> {
        self.posts.iter().position(|post| post.id == id)
    }

    /// Counts a fault that was injected.
    pub(crate) fn injected(&mut self, fault: Reach) {
        self.coverage.reach(fault);
    }

    /// Whether a node takes connections of clients and peers.
    pub(crate) fn serves(&self, at: At) -> bool {
        let post = &self.posts[at];
        post.life.is_some() && post.open == post.cores.count
    }

    /// Nodes that serve.
    pub(crate) fn serving(&self) -> Vec<At> {
        (0..self.posts.len()).filter(|at| self.serves(*at)).collect()
    }

    /// A core has seen the cluster for the first time.
    pub(crate) fn open(&mut self, at: At) {
        self.posts[at].open += 1;
        if self.serves(at) {
            self.serving().into_iter().filter(|other| *other != at).for_each(|other| self.link(at, other));
        }
    }

    /// Nodes that run.
    pub(crate) fn alive(&self) -> Vec<At> {
        (0..self.posts.len()).filter(|at| self.posts[*at].life.is_some()).collect()
    }
}

impl Stage {
    /// The connection of a call has ended.
    pub(crate) fn hang_up(&mut self, caller: Caller) {
        let hop = self.shape.hop;
        let way = self.chance.time(hop, 2 * hop);
        self.after(way, Event::Client(caller.client, ClientEvent::Answer(caller.number, None)));
    }

    /// A line for the trace, where there is one.
    pub(crate) fn note(&mut self, line: impl FnOnce(&Stage) -> String) {
        if self.trace.is_on() {
            let line = line(self);
            self.trace.put(self.now, &line);
        }
    }

    /// A node for people.
    pub(crate) fn who(&self, at: At) -> String {
        format!("n{at}")
    }

    /// A core for people.
    pub(crate) fn name(&self, place: Place) -> String {
        format!("n{}/{}", place.node, place.core)
    }
}
