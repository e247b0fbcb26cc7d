//! Everything that crosses from thread to thread: what the control thread, other cores and the store thread put into a
//! core's boxes, and what a core asks of its store thread.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::slots::Slot;
use crate::protocol::causality::Siblings;
use crate::protocol::io::Unreadable;
use crate::protocol::message::{Failure, Keys, Outcome, Page, Request};
use crate::protocol::ring::View;
use crate::protocol::types::{CoreId, Instant, Key, RequestId};
use crate::store::{Chunk, Place};

/// Most letters in one mailbox. A core empties its box once a turn of its loop; a box that is full belongs to a core
/// that has stopped turning, and whoever writes to it is told so at once instead of waiting behind it.
pub const MAIL_MAX: usize = 4_096;

/// One letter.
#[derive(Debug)]
pub enum Mail {
    /// The control thread asks through its [`Door`](super::door::Door).
    Knock(Knock),
    /// The acceptor hands over a connection whose hello it has answered.
    Connection(Arrival),
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
    /// Refuse the writes of clients from now on, and say whether this core's memory is empty once none is under way.
    Freeze {
        /// Where that is told.
        answer: oneshot::Sender<bool>,
    },
    /// Take writes again.
    Thaw,
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
    /// A chunk is in the tree and durable, or is not.
    Ingested {
        /// How it ended; where it failed, whether the disk is full.
        outcome: Result<(), bool>,
        /// How long it took.
        took: Duration,
    },
}
