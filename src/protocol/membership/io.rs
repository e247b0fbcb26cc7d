//! What comes into a membership and what goes out of it; and what members say to each other.

use core::net::SocketAddr;
use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::order::{Order, OrderId, OrderRefused, Plan};
use super::past::Refusal;
use super::row::Mark;
use super::rows::Rows;
use crate::protocol::ring::{Layout, LayoutStamp, Liveness, Step, Unruly, View};
use crate::protocol::types::{ClusterId, CoreId, NodeId};

/// One exchange on its way to a member and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExchangeId(pub u64);

/// One letter of a member that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterId(pub u64);

/// What one packet of gossip says, beside whose cluster's it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who sent it.
    pub sender: NodeId,
    /// The layout that the sender goes by.
    pub layout: LayoutStamp,
    /// The digest of the sender's rows.
    pub rows: u64,
    /// What SWIM says; at most [`PAYLOAD_BYTES_MAX`](super::PAYLOAD_BYTES_MAX).
    pub payload: Bytes,
}

/// All that a member knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knowledge {
    /// Its cluster; `None` for one that joins.
    pub cluster: Option<ClusterId>,
    /// Partitions of the cluster's ring; 0 for one that joins.
    pub partitions: u16,
    /// Its rows.
    pub rows: Rows,
    /// Who answers, as far as it knows, itself among them.
    pub up: Vec<NodeId>,
    /// The stored layout.
    pub layout: Option<Arc<Layout>>,
    /// The pending one, while a change is under way.
    pub pending: Option<Arc<Layout>>,
}

impl Knowledge {
    /// What one knows that belongs to no cluster yet.
    pub fn nothing() -> Knowledge {
        Knowledge { cluster: None, partitions: 0, rows: Rows::default(), up: Vec::new(), layout: None, pending: None }
    }

    /// Joins what another member of the same cluster knows: the newest of each row, everybody who answers one of them,
    /// the newest layouts. What one of another cluster knows changes nothing.
    pub fn join(&mut self, other: Knowledge) {
        if (self.cluster, self.partitions) != (other.cluster, other.partitions) {
            return;
        }
        self.rows.join(&other.rows);
        self.up.extend(other.up);
        self.up.sort_unstable();
        self.up.dedup();
        let number = |layout: &Option<Arc<Layout>>| layout.as_ref().map(|layout| layout.stamp().number);
        match number(&other.layout).cmp(&number(&self.layout)) {
            Ordering::Greater => (self.layout, self.pending) = (other.layout, other.pending),
            Ordering::Equal => self.pending = self.pending.take().or(other.pending),
            Ordering::Less => {}
        }
    }
}

/// What a member says to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Letter {
    /// What I know. Answered by [`Answer::Knowledge`].
    Compare(Box<Knowledge>),
}

/// What a member answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What the other knows, from before it heard.
    Knowledge(Box<Knowledge>),
}

/// Why an exchange did not come to an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Nobody answers there, or not in time.
    Silent,
    /// A node of another cluster answers there.
    Foreign {
        /// Its cluster.
        theirs: ClusterId,
    },
}

/// What may come in.
#[derive(Clone, Debug)]
pub enum Input {
    /// A packet that proved the secret.
    Packet {
        /// Where it came from.
        from: SocketAddr,
        /// What it says.
        packet: Packet,
    },
    /// A letter from a node that proved the secret. Answered by one [`Effect::Answer`].
    Letter {
        /// Which.
        letter: LetterId,
        /// Whose it is.
        from: NodeId,
        /// What it says.
        says: Letter,
    },
    /// Ends [`Effect::Exchange`].
    Answered {
        /// Which.
        exchange: ExchangeId,
        /// What the other said.
        answer: Result<Answer, Unanswered>,
    },
    /// Ends [`Effect::Persist`]: whether it is durable now.
    Persisted(bool),
    /// Whether the node holds anything: keys, or hints for others. Wanted about once a second while
    /// [`Membership::asks_holdings`](super::Membership::asks_holdings).
    Holds(bool),
    /// A core has heard from a peer that goes by this layout.
    Differs(LayoutStamp),
    /// An operator asks. Answered by one [`Effect::Ordered`].
    Order {
        /// Which.
        id: OrderId,
        /// What.
        order: Order,
    },
    /// A core has reached a step of the change to this pending layout; it may say so more than once.
    Reached {
        /// The core.
        core: CoreId,
        /// The pending layout.
        stamp: LayoutStamp,
        /// The step.
        step: Step,
    },
    /// The node stops: tells a few members, who tell the others. Nothing more may come in.
    Leave,
    /// Time has gone by ([`Membership::wakes_at`](super::Membership::wakes_at)).
    Tick,
}

/// What may go out.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a packet. It may be lost.
    Send {
        /// Where to.
        to: SocketAddr,
        /// What it says.
        packet: Packet,
    },
    /// Say something to a member and hear what it answers. Ended by [`Input::Answered`].
    Exchange {
        /// Which.
        id: ExchangeId,
        /// The node that is to answer; `None` for whoever is there.
        to: Option<NodeId>,
        /// Where it is.
        address: SocketAddr,
        /// What to say.
        says: Letter,
    },
    /// Answer a letter. Nothing comes back.
    Answer {
        /// Which.
        letter: LetterId,
        /// What to say.
        answer: Answer,
    },
    /// Answer an operator: what is staged now and what it comes to, or why nothing was done. What was staged or
    /// committed is durable here. Nothing comes back.
    Ordered {
        /// Which order.
        id: OrderId,
        /// The answer.
        outcome: Result<Box<Plan>, OrderRefused>,
    },
    /// Make this durable. Ended by [`Input::Persisted`]; there is one at a time.
    Persist(Box<Durable>),
    /// Show this to the cores. Nothing comes back.
    View(Arc<View>),
    /// The node must end. Nothing comes back.
    Refuse(Refusal),
    /// Worth a line in the log.
    Note(Note),
}

/// What a member keeps on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The cluster.
    pub cluster: ClusterId,
    /// Partitions of its ring.
    pub partitions: u16,
    /// This node.
    pub me: NodeId,
    /// The rows.
    pub rows: Rows,
    /// The stored layout; `None` in a directory whose node has joined and was never started.
    pub layout: Option<Arc<Layout>>,
    /// The pending one, while a change is under way.
    pub pending: Option<Arc<Layout>>,
}

/// What people may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A member is seen otherwise than before.
    Liveness {
        /// Its name.
        name: Arc<str>,
        /// How.
        liveness: Liveness,
    },
    /// A node has joined and waits for a layout with it.
    Staged {
        /// Its name.
        name: Arc<str>,
    },
    /// A change to another layout has begun.
    Pending {
        /// Which.
        stamp: LayoutStamp,
        /// Its nodes.
        nodes: usize,
    },
    /// This node has come so far in the change.
    Marked {
        /// The pending layout.
        stamp: LayoutStamp,
        /// How far.
        mark: Mark,
    },
    /// A pending layout has lost against one of the same number. What it was to change is staged again.
    Outdone {
        /// Which.
        stamp: LayoutStamp,
    },
    /// A layout is the stored one: the change to it has ended.
    Layout {
        /// Which.
        stamp: LayoutStamp,
        /// Its nodes.
        nodes: usize,
    },
    /// A layout of another member breaks the rules, and is not taken.
    Unruly {
        /// Which.
        stamp: LayoutStamp,
        /// The rule.
        rule: Unruly,
    },
    /// A joined node waits, because members hold data.
    HeldByData,
    /// A node of another cluster answers where a member was expected.
    Foreign {
        /// Where.
        address: SocketAddr,
        /// Its cluster.
        theirs: ClusterId,
    },
    /// This node's own loop was late: it condemns nobody for that long.
    Late {
        /// How late.
        late: Duration,
    },
    /// What must be durable could not be written. It is tried again.
    NotPersisted,
}
