//! One client's connection on its core: bytes in, calls out; answers in, bytes out.
//!
//! Two [`tasks`] serve it, one that reads and one that writes. Bounds: calls under way, bytes of answers that wait,
//! calls a turn (so that one busy client cannot keep the core), and the times after which a slow or silent one is
//! dropped. A client that does not read is not read from.

pub mod tasks;

use std::cell::{Cell, RefCell};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use glommio::net::TcpStream;

use super::mail::Arrival;
use super::signal::Signal;
use super::slots::Slot;
use crate::protocol::message::Answer;
use crate::protocol::types::Instant;
use crate::wire::answer::encode_answer;
use crate::wire::frame::CallId;

/// Most calls of one connection under way: the welcome tells clients so.
pub const CALLS_MAX: usize = 1_024;

/// Answers that wait on one connection, in bytes; beyond it nothing more is read from it.
const ANSWERS_BYTES_MAX: usize = 1024 * 1024;

/// A frame must be complete this long after its first byte, and answers must be taken within it.
pub const STALL_MAX: Duration = Duration::from_secs(30);

/// While a core's room for answers is taken, they must be taken within this: others wait for it.
const UNREAD_CROWDED_MAX: Duration = Duration::from_secs(2);

/// What both tasks and the core know of one connection.
#[derive(Debug)]
pub struct Connection {
    stream: RefCell<TcpStream>,
    peer: SocketAddr,
    answers: RefCell<BytesMut>,
    writer: Signal,
    reader: Signal,
    under_way: Cell<usize>,
    dirty: Cell<bool>,
    finishing: Cell<bool>,
    closed: Cell<bool>,
    /// Bytes of answers that are not sent yet.
    waiting_bytes: Cell<usize>,
    /// When bytes last came in.
    read_at: Cell<Instant>,
    /// Since when a frame is incomplete, or answers wait.
    frame_since: Cell<Option<Instant>>,
    answers_since: Cell<Option<Instant>>,
    _slot: Slot,
}

impl Connection {
    /// Takes over a socket that has said its hello.
    pub fn new(now: Instant, arrival: Arrival) -> std::io::Result<(Rc<Connection>, BytesMut)> {
        let Arrival { socket, leftover, peer, slot } = arrival;
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        let connection = Connection {
            stream: RefCell::new(TcpStream::from(socket2::Socket::from(socket))),
            peer,
            answers: RefCell::new(BytesMut::new()),
            writer: Signal::default(),
            reader: Signal::default(),
            under_way: Cell::new(0),
            dirty: Cell::new(false),
            finishing: Cell::new(false),
            closed: Cell::new(false),
            waiting_bytes: Cell::new(0),
            read_at: Cell::new(now),
            frame_since: Cell::new(None),
            answers_since: Cell::new(None),
            _slot: slot,
        };
        Ok((Rc::new(connection), BytesMut::from(&leftover[..])))
    }

    /// Spells an answer behind those that wait, and says how many bytes that was. To a closed connection it is none.
    pub fn answer(&self, id: CallId, answer: &Answer) -> usize {
        if id != CallId::NONE {
            self.under_way.set(self.under_way.get() - 1);
        }
        if self.closed.get() {
            return 0;
        }
        let mut answers = self.answers.borrow_mut();
        let before = answers.len();
        encode_answer(&mut answers, id, answer);
        let bytes = answers.len() - before;
        self.waiting_bytes.set(self.waiting_bytes.get() + bytes);
        bytes
    }

    /// Whether it has just become one that has something to send.
    pub fn becomes_dirty(&self) -> bool {
        !self.dirty.replace(true)
    }

    /// It has something to send, and the turn is over.
    pub fn wake_writer(&self) {
        self.dirty.set(false);
        self.writer.raise();
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Drops it from outside: both tasks end.
    pub fn close(&self) {
        if !self.closed.replace(true) {
            // The socket may be gone already; then there is nothing left to shut down.
            let _ = socket2::SockRef::from(&*self.stream.borrow()).shutdown(Shutdown::Both);
        }
        self.writer.raise();
        self.reader.raise();
    }

    /// The client sends nothing more: the connection ends once everything that is under way is answered.
    pub fn finish(&self) {
        self.finishing.set(true);
        self.writer.raise();
    }

    /// Whether every answer has gone out.
    pub fn is_answered(&self) -> bool {
        self.under_way.get() == 0 && self.waiting_bytes.get() == 0
    }

    /// Whether it has been slow or silent for too long. Where answers wait for want of room, whoever takes none of
    /// its own has less time to begin.
    pub fn is_overdue(&self, now: Instant, idle_max: Duration, crowded: bool) -> bool {
        let stalled = |since: &Cell<Option<Instant>>, max| since.get().is_some_and(|since| now.since(since) > max);
        let unread_max = if crowded { UNREAD_CROWDED_MAX } else { STALL_MAX };
        let idle = self.is_answered() && now.since(self.read_at.get()) > idle_max;
        stalled(&self.frame_since, STALL_MAX) || stalled(&self.answers_since, unread_max) || idle
    }

    /// Waits until there may be room: answers were taken, or the sweep looked by.
    async fn wait_for_room(&self) {
        self.reader.wait().await;
    }

    /// Looks again whether there is room on the core.
    pub fn wake_reader(&self) {
        self.reader.raise();
    }

    /// Whether answers wait that it could take.
    fn has_answers(&self) -> bool {
        self.waiting_bytes.get() != 0
    }

    /// Whether more answers wait than one connection may leave unread.
    pub fn is_behind(&self) -> bool {
        self.waiting_bytes.get() > ANSWERS_BYTES_MAX
    }

    fn is_full(&self) -> bool {
        self.under_way.get() >= CALLS_MAX || self.is_behind()
    }
}
