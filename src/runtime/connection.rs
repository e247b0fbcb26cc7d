//! One client's connection on its core: bytes in, calls out; answers in, bytes out.
//!
//! Nothing here waits: [`connections`](super::connections) calls in when the socket is ready. Bounds: calls under way,
//! bytes of answers that wait, calls a turn (so that one busy client cannot keep the core), and the times after which a
//! slow or silent one is dropped. A client that does not read is not read from.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};

use super::mail::Arrival;
use super::signal::Signal;
use super::slots::Slot;
use crate::protocol::message::{Answer, Call, Failure};
use crate::protocol::types::Instant;
use crate::wire::answer::encode_answer;
use crate::wire::call::decode_call;
use crate::wire::frame::{CALL_BYTES_MAX, CallId, next_frame};

/// Most calls of one connection under way: the welcome tells clients so.
pub const CALLS_MAX: usize = 1_024;

/// Answers that wait on one connection, in bytes; beyond it nothing more is read from it.
const ANSWERS_BYTES_MAX: usize = 1024 * 1024;

/// A frame must be complete this long after its first byte, and answers must be taken within it.
pub const STALL_MAX: Duration = Duration::from_secs(30);

/// While a core's room for answers is taken, they must be taken within this: others wait for it.
const UNREAD_CROWDED_MAX: Duration = Duration::from_secs(2);

/// A buffer that once held more is given back when it is empty.
const KEPT_BYTES: usize = 16 * 1024;

/// The connections of a core that want to be served in its next turn.
#[derive(Debug, Default)]
pub struct Wanting {
    queue: RefCell<VecDeque<Rc<Connection>>>,
    /// Raised when there is one.
    pub signal: Signal,
}

impl Wanting {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.queue.borrow().len()
    }

    /// The one that has waited longest.
    pub fn pop(&self) -> Option<Rc<Connection>> {
        let connection = self.queue.borrow_mut().pop_front()?;
        connection.wanting.set(false);
        Some(connection)
    }
}

/// What a connection and its core know of each other.
#[derive(Debug)]
pub struct Connection {
    token: u64,
    stream: TcpStream,
    peer: SocketAddr,
    /// Calls that have come in and were not taken yet, the last one in part, as a rule.
    calls: RefCell<BytesMut>,
    /// Calls that were taken, and wait for room for their answers.
    put_off: RefCell<VecDeque<(CallId, Call)>>,
    /// Answers that are not sent yet.
    answers: RefCell<BytesMut>,
    /// There may be more to read from the socket; and the other end will send nothing more.
    readable: Cell<bool>,
    hung_up: Cell<bool>,
    under_way: Cell<usize>,
    dirty: Cell<bool>,
    finishing: Cell<bool>,
    closed: Cell<bool>,
    /// It waits for room before more is read from it.
    stalled: Cell<bool>,
    wanting: Cell<bool>,
    turns: Rc<Wanting>,
    /// When bytes last came in.
    read_at: Cell<Instant>,
    /// Since when a frame is incomplete, or answers wait.
    frame_since: Cell<Option<Instant>>,
    answers_since: Cell<Option<Instant>>,
    _slot: Slot,
}

/// Why a connection brings no more calls. For the log.
#[derive(Debug)]
pub enum End {
    /// The client closed it.
    Closed,
    /// The bytes were no frames.
    Refused(Failure),
    /// The network failed.
    Lost(std::io::Error),
}

/// What a call is, or why a frame is none. The stream is sound either way.
pub type Spelt = Result<Call, Failure>;

impl Connection {
    /// Takes over a socket that has said its hello. It is known by `token`, and served in the turns of `turns`.
    ///
    /// # Errors
    /// What the kernel says of the socket.
    pub fn new(token: u64, now: Instant, arrival: Arrival, turns: Rc<Wanting>) -> std::io::Result<Rc<Connection>> {
        let Arrival { socket, leftover, peer, slot } = arrival;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Rc::new(Connection {
            token,
            stream: socket,
            peer,
            calls: RefCell::new(BytesMut::from(&leftover[..])),
            put_off: RefCell::default(),
            answers: RefCell::default(),
            readable: Cell::new(true),
            hung_up: Cell::new(false),
            under_way: Cell::new(0),
            dirty: Cell::new(false),
            finishing: Cell::new(false),
            closed: Cell::new(false),
            stalled: Cell::new(false),
            wanting: Cell::new(false),
            turns,
            read_at: Cell::new(now),
            frame_since: Cell::new(None),
            answers_since: Cell::new(None),
            _slot: slot,
        }))
    }

    /// What it is known by.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// The socket, to be polled.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Wants to be served in the next turn.
    pub fn want_turn(self: &Rc<Self>) {
        if !self.wanting.replace(true) {
            self.turns.queue.borrow_mut().push_back(Rc::clone(self));
            self.turns.signal.raise();
        }
    }

    /// The socket has something to be read.
    pub fn on_readable(self: &Rc<Self>, hung_up: bool) {
        self.readable.set(true);
        self.hung_up.set(self.hung_up.get() || hung_up);
        if !self.stalled.get() {
            self.want_turn();
        }
    }

    /// Reads what has come in and says how many bytes that was; none when nothing has, for now. `scratch` is the
    /// core's: what is left of a frame between two reads is kept, so that ten thousand silent connections hold no
    /// buffers.
    ///
    /// # Errors
    /// [`End`] when nothing more will come.
    pub fn receive(&self, now: Instant, scratch: &mut [u8]) -> Result<usize, End> {
        if !self.readable.get() || self.finishing.get() {
            return Ok(0);
        }
        loop {
            match (&self.stream).read(scratch) {
                Ok(0) => return Err(End::Closed),
                Ok(bytes) => {
                    // Less than would have fitted is all there was, and what comes later is told. The end may be told
                    // of already.
                    self.readable.set(bytes == scratch.len() || self.hung_up.get());
                    self.read_at.set(now);
                    self.calls.borrow_mut().extend_from_slice(&scratch[..bytes]);
                    return Ok(bytes);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable.set(false);
                    return Ok(0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(End::Lost(error)),
            }
        }
    }

    /// There is no room for its answer now: it is taken again, before all that came later, once there is.
    pub fn put_off(&self, id: CallId, call: Call) {
        self.put_off.borrow_mut().push_back((id, call));
        self.stall();
    }

    /// Whether calls were put off: those that came later wait behind them.
    pub fn has_put_off(&self) -> bool {
        !self.put_off.borrow().is_empty()
    }

    /// The calls that were put off, in the order in which they came.
    pub fn take_put_off(&self) -> VecDeque<(CallId, Call)> {
        self.put_off.take()
    }

    /// The next call that has come in whole, to be answered under its id.
    ///
    /// # Errors
    /// [`End::Refused`] when the bytes are no frame: the stream can be read no further.
    pub fn next_call(&self, now: Instant) -> Result<Option<(CallId, Spelt)>, End> {
        if self.finishing.get() {
            return Ok(None);
        }
        let mut calls = self.calls.borrow_mut();
        let spelt = next_frame(&mut calls, CALL_BYTES_MAX, |frame| (frame.id, decode_call(frame)));
        let Some((id, call)) = spelt.map_err(|error| End::Refused(error.into()))? else {
            let since = if calls.is_empty() { None } else { self.frame_since.get().or(Some(now)) };
            self.frame_since.set(since);
            give_back(&mut calls);
            return Ok(None);
        };
        self.frame_since.set(None);
        if id == CallId::NONE {
            return Err(End::Refused(Failure::Malformed { reason: "id 0 belongs to no call".to_owned() }));
        }
        self.under_way.set(self.under_way.get() + 1);
        Ok(Some((id, call.map_err(Failure::from))))
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
        answers.len() - before
    }

    /// Whether it has just become one that has something to send.
    pub fn becomes_dirty(&self) -> bool {
        !self.dirty.replace(true)
    }

    /// Sends what waits, as far as the socket takes it, and says how many bytes wait no more. What a closed one would
    /// have sent is dropped.
    pub fn send(self: &Rc<Self>, now: Instant) -> usize {
        self.dirty.set(false);
        let waited = self.answers.borrow().len();
        if let Err(error) = self.send_waiting() {
            tracing::debug!(peer = %self.peer, %error, "a connection was lost");
            self.close();
        }
        if self.finishing.get() && self.is_answered() {
            self.close();
        }
        if self.closed.get() {
            *self.answers.borrow_mut() = BytesMut::new();
        }
        let left = self.answers.borrow().len();
        // A client that takes a large answer slowly but steadily is not stalled.
        if left < waited || self.answers_since.get().is_none() {
            self.answers_since.set((left != 0).then_some(now));
        }
        self.look_for_room();
        waited - left
    }

    fn send_waiting(&self) -> std::io::Result<()> {
        let mut answers = self.answers.borrow_mut();
        while !answers.is_empty() && !self.closed.get() {
            match (&self.stream).write(&answers) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) if bytes == answers.len() => answers.clear(),
                Ok(bytes) => answers.advance(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        give_back(&mut answers);
        Ok(())
    }

    /// Drops it from outside.
    pub fn close(self: &Rc<Self>) {
        if !self.closed.replace(true) {
            // The socket may be gone already; then there is nothing left to shut down.
            let _ = self.stream.shutdown(Shutdown::Both);
            self.want_turn();
        }
    }

    /// Whether it is closed: it waits for its last turn.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// The client sends nothing more: the connection ends once everything that is under way is answered.
    pub fn finish(self: &Rc<Self>) {
        self.finishing.set(true);
        if self.is_answered() {
            self.close();
        }
    }

    /// Whether every answer has gone out.
    pub fn is_answered(&self) -> bool {
        self.under_way.get() == 0 && !self.has_answers()
    }

    /// Whether it has been slow or silent for too long. Where answers wait for want of room, whoever takes none of
    /// its own has less time to begin.
    pub fn is_overdue(&self, now: Instant, idle_max: Duration, crowded: bool) -> bool {
        let stalled = |since: &Cell<Option<Instant>>, max| since.get().is_some_and(|since| now.since(since) > max);
        let unread_max = if crowded { UNREAD_CROWDED_MAX } else { STALL_MAX };
        let idle = self.is_answered() && now.since(self.read_at.get()) > idle_max;
        stalled(&self.frame_since, STALL_MAX) || stalled(&self.answers_since, unread_max) || idle
    }

    /// Nothing more is read from it until there is room. A frame that has come in part is not late meanwhile.
    pub fn stall(&self) {
        self.stalled.set(true);
        self.frame_since.set(None);
    }

    /// Has its turn if it waits for room: answers were taken, or the beat looked by.
    pub fn look_for_room(self: &Rc<Self>) {
        if self.stalled.replace(false) {
            self.want_turn();
        }
    }

    /// Whether answers wait that the client could take.
    pub fn has_answers(&self) -> bool {
        !self.answers.borrow().is_empty()
    }

    /// Whether more answers wait than one connection may leave unread.
    pub fn is_behind(&self) -> bool {
        self.answers.borrow().len() > ANSWERS_BYTES_MAX
    }

    /// Whether no more is read from it for its own sake: too much is under way, or unread.
    pub fn is_full(&self) -> bool {
        self.under_way.get() >= CALLS_MAX || self.is_behind()
    }
}

fn give_back(buffer: &mut BytesMut) {
    if buffer.is_empty() && buffer.capacity() > KEPT_BYTES {
        *buffer = BytesMut::new();
    }
}

#[cfg(test)]
mod tests;
