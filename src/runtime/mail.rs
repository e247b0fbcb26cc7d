//! What other threads put into a core's mailbox. The one way into a core from outside.

use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::slots::Slot;
use crate::protocol::message::{Failure, Outcome, Request};

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
