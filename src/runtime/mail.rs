//! Everything that crosses from thread to thread: what the control thread, other cores and the store thread put into a
//! core's boxes, and what a core asks of its store thread.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::slots::Slot;
use crate::protocol::causality::Siblings;
use crate::protocol::io::{Scan, ScanPage, Unreadable};
use crate::protocol::message::{Failure, Keys, Outcome, Page, Request};
use crate::protocol::ring::{Cores, LayoutStamp, Step, View};
use crate::protocol::types::{CoreId, Instant, Key, NodeId, RequestId, ScanId};
use crate::store::{Chunk, KeySet, Place};

/// Most letters in one mailbox. A core empties its box once a turn of its loop; a box that is full belongs to a core
/// that has stopped turning, and whoever writes to it is told so at once instead of waiting behind it.
pub const MAIL_MAX: usize = 4_096;

/// Most notices that wait for the control thread.
pub const NOTICES_MAX: usize = 64;

/// One letter.
#[derive(Debug)]
pub enum Mail {
    /// The control thread asks through its [`Door`](super::door::Door).
    Knock(Knock),
    /// The acceptor hands over a connection whose hello it has answered.
    Connection(Arrival),
    /// The dialer has done what a [`Wish`] asked for, or could not.
    Dialed {
        /// The node.
        node: NodeId,
        /// Its core.
        core: CoreId,
        /// The attempt that the wish named.
        attempt: u64,
        /// The connection, past its handshake; none when there is none to be had.
        line: Option<Line>,
    },
}

/// A core wants a connection to a core of another node. Answered by [`Mail::Dialed`], as a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The core that wants it.
    pub from: CoreId,
    /// Counts the wishes of that core, so that a late answer is known as one.
    pub attempt: u64,
    /// The node.
    pub node: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its cores, as they are expected.
    pub cores: Cores,
    /// The core that is wanted.
    pub core: CoreId,
    /// Wishes for it that came to nothing, one after the other.
    pub failures: u32,
}

/// What a core tells the control thread unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A peer goes by this layout: compare with it.
    Compare(LayoutStamp),
    /// The core has reached a step of the change to this layout. It says so again until a view goes on.
    Reached {
        /// The core.
        core: CoreId,
        /// The pending layout.
        stamp: LayoutStamp,
        /// The step.
        step: Step,
    },
}

/// A connection to a core of another node, past its handshake.
#[derive(Debug)]
pub struct Line {
    /// The socket, in blocking mode: what was read of it stands in `leftover`.
    pub socket: TcpStream,
    /// Bytes that came behind the welcome.
    pub leftover: Bytes,
    /// Asks that may be under way, as the welcome says.
    pub asks_max: u32,
}

/// Who speaks first on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A client: it sends calls.
    Client,
    /// A core of this node: it sends asks.
    Peer(NodeId),
}

/// What the control thread asks. Whoever drops `answer` or `done` unanswered says that the core is gone.
#[derive(Debug)]
pub enum Knock {
    /// A request for this core's shard, as a client would send it.
    Ask {
        /// What is asked. Its deadline counts from now.
        request: Request,
        /// Where the reply goes.
        answer: oneshot::Sender<Outcome>,
    },
    /// Bring everything that is durable now into the LSM tree, for a snapshot.
    Checkpoint {
        /// Where the end is told.
        done: oneshot::Sender<Result<(), Failure>>,
    },
    /// The cluster is seen otherwise than before.
    View(Arc<View>),
}

/// A connection past its hello. Its first frames may have come along already.
#[derive(Debug)]
pub struct Arrival {
    /// The socket, in blocking mode, as `std` knows it: what was read of it stands in `leftover`.
    pub socket: TcpStream,
    /// Bytes that came behind the hello.
    pub leftover: Bytes,
    /// The other end.
    pub peer: SocketAddr,
    /// The connection's place among those that are open; dropped when it closes.
    pub slot: Slot,
    /// Who speaks first on it.
    pub caller: Caller,
}

/// What other cores and the store thread put into a core's inbox. Unbounded, because everything in it was asked for by
/// a request that is counted where it came in.
#[derive(Debug)]
pub enum Errand {
    /// A request for a key of this core.
    Forward {
        /// Whom to answer.
        from: CoreId,
        /// That core's name for it.
        ticket: RequestId,
        /// What is asked.
        request: Request,
        /// When it must have ended; the clock is the same on every core.
        deadline: Instant,
    },
    /// How a request ended that was forwarded from here.
    Answered {
        /// This core's name for it.
        ticket: RequestId,
        /// Its end.
        outcome: Outcome,
    },
    /// The store thread has done something.
    Finished(Finished),
    /// Take no more, finish what is under way.
    Stop,
    /// Every core has finished: end.
    End,
}

/// What a core asks of its store thread.
#[derive(Debug)]
pub enum Job {
    /// Read these keys.
    Fetch(Vec<Key>),
    /// Read a page of keys, seen through what is in memory.
    List {
        /// Whom to answer.
        id: RequestId,
        /// What is asked.
        keys: Keys,
        /// The overlay's keys in that range, and whether they hold a value.
        overlay: Vec<(Place, bool)>,
        /// When whoever asked has an answer in any case.
        deadline: Instant,
    },
    /// Read a page of sets, seen through what is in memory.
    Scan {
        /// Which scan.
        scan: ScanId,
        /// What to look for.
        of: Scan,
        /// The overlay's keys in that range, in order.
        overlay: Vec<KeySet>,
    },
    /// Take in a chunk.
    Ingest(Arc<Chunk>),
    /// The core has ended.
    End,
}

/// What was found under a key.
pub type Fetched = (Key, Result<Option<Arc<Siblings>>, Unreadable>);

/// What the store thread has done.
#[derive(Debug)]
pub enum Finished {
    /// The keys of one fetch, or the next of them.
    Fetched {
        /// What was found, in the order of the fetch.
        fetched: Vec<Fetched>,
        /// How long the reading took.
        took: Duration,
    },
    /// A page of keys.
    Listed {
        /// Whom to answer.
        id: RequestId,
        /// The page.
        page: Result<Page, Unreadable>,
    },
    /// A page of sets.
    Scanned {
        /// Which scan.
        scan: ScanId,
        /// The page.
        page: Result<ScanPage, Unreadable>,
    },
    /// A chunk is in the tree and durable, or is not.
    Ingested {
        /// How it ended; where it failed, whether the disk is full.
        outcome: Result<(), bool>,
        /// How long it took.
        took: Duration,
    },
}
