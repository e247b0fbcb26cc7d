//! One connection on its core, of a client or of a core of another node: bytes in, calls or asks out; answers in, bytes
//! out.
//!
//! Nothing here waits: [`connections`](super::connections) calls in when the socket is ready. Bounds: calls under way,
//! bytes of answers that wait, calls a turn (so that one busy client cannot keep the core), and the times after which a
//! slow or silent one is dropped. Who does not read is not read from.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;

use super::mail::{Arrival, Caller};
use super::slots::Slot;
use super::stream::{Ended, Stream};
use super::wanting::Wanting;
use crate::protocol::message::{Answer, Call, Failure};
use crate::protocol::peer::Told;
use crate::protocol::types::{Instant, Key};
use crate::wire::answer::encode_answer;
use crate::wire::call::decode_call;
use crate::wire::frame::{CALL_BYTES_MAX, CallId};
use crate::wire::peer::{PEER_BYTES_MAX, Question, decode_ask, encode_misunderstood, encode_told};

/// Most calls of one connection under way: the welcome tells clients so.
pub const CALLS_MAX: usize = 1_024;

/// Most asks of one core of a peer under way: a fifth of a second of 20,000 a second, which all clients of that core
/// have together. An asker that goes beyond it is not read from.
pub const ASKS_MAX: usize = 16_384;

/// Answers that wait on one connection, in bytes; beyond it nothing more is read from it. A peer reads at once, and has
/// room for what many clients of its own asked in one turn.
const ANSWERS_BYTES_MAX: usize = 1024 * 1024;
const TOLD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Calls of at most so many bytes are read without asking for room: one read brings all of them.
const CALL_BYTES_SMALL: usize = 64 * 1024;

/// A frame must be complete this long after its first byte, and answers must be taken within it.
pub const STALL_MAX: Duration = Duration::from_secs(30);

/// A frame of a peer goes on within this, however long it is: the room that it has is waited for by others.
const PEER_STALL_MAX: Duration = Duration::from_secs(5);

/// While a core's room for answers is taken, they must be taken within this: others wait for it.
const UNREAD_CROWDED_MAX: Duration = Duration::from_secs(2);

/// A buffer that once held more is given back when it is empty.
const KEPT_BYTES: usize = 16 * 1024;

/// What a connection and its core know of each other.
#[derive(Debug)]
pub struct Connection {
    token: u64,
    caller: Caller,
    stream: Stream,
    /// Bytes of room that the call has which is coming in.
    room: Cell<usize>,
    /// Calls that were taken, and wait for room for their answers.
    put_off: RefCell<VecDeque<(CallId, Said)>>,
    under_way: Cell<usize>,
    dirty: Cell<bool>,
    finishing: Cell<bool>,
    /// It waits for room before more is read from it.
    stalled: Cell<bool>,
    wanting: Cell<bool>,
    turns: Rc<Wanting>,
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

/// What a connection brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// By a client.
    Call(Call),
    /// By a peer.
    Ask(Question),
}

/// What a frame says, or why it says nothing. The stream is sound either way.
pub type Spelt = Result<Said, Failure>;

impl Said {
    /// The keys that it is about.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        let (call, ask) = match self {
            Said::Call(call) => (Some(call), None),
            Said::Ask(question) => (None, question.ask.key()),
        };
        call.into_iter().flat_map(Call::keys).chain(ask)
    }
}

impl From<Ended> for End {
    fn from(ended: Ended) -> End {
        match ended {
            Ended::Closed => End::Closed,
            Ended::Lost(error) => End::Lost(error),
        }
    }
}

impl Connection {
    /// Takes over a socket that has said its hello. It is known by `token`, and served in the turns of `turns`.
    ///
    /// # Errors
    /// What the kernel says of the socket.
    pub fn new(token: u64, now: Instant, arrival: Arrival, turns: Rc<Wanting>) -> std::io::Result<Rc<Connection>> {
        let Arrival { socket, leftover, peer, slot, caller } = arrival;
        let frame_bytes_max = match caller {
            Caller::Client => CALL_BYTES_MAX,
            Caller::Peer(_) => PEER_BYTES_MAX,
        };
        let stream = Stream::new(now, (socket, &leftover, peer), frame_bytes_max, KEPT_BYTES)?;
        if caller != Caller::Client {
            stream.keep_alive()?;
        }
        Ok(Rc::new(Connection {
            token,
            caller,
            stream,
            room: Cell::new(0),
            put_off: RefCell::default(),
            under_way: Cell::new(0),
            dirty: Cell::new(false),
            finishing: Cell::new(false),
            stalled: Cell::new(false),
            wanting: Cell::new(false),
            turns,
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
        self.stream.socket()
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.stream.peer()
    }

    /// Who calls.
    pub fn caller(&self) -> Caller {
        self.caller
    }

    /// Wants to be served in the next turn.
    pub fn want_turn(self: &Rc<Self>) {
        if !self.wanting.replace(true) {
            self.turns.push(self);
        }
    }

    /// Has its turn, and may want another.
    pub fn has_turn(&self) {
        self.wanting.set(false);
    }

    /// The socket has something to be read.
    pub fn on_readable(self: &Rc<Self>, hung_up: bool) {
        self.stream.on_readable(hung_up);
        if !self.stalled.get() {
            self.want_turn();
        }
    }

    /// Reads what has come in ([`Stream::receive`]).
    ///
    /// # Errors
    /// [`End`] when nothing more will come.
    pub fn receive(&self, now: Instant, scratch: &mut [u8]) -> Result<usize, End> {
        if self.finishing.get() {
            return Ok(0);
        }
        Ok(self.stream.receive(now, scratch)?)
    }

    /// Bytes of the call that has come in part, when it is a large one.
    pub fn coming_bytes(&self) -> Option<usize> {
        self.stream.coming_bytes().filter(|&bytes| CALL_BYTES_SMALL < bytes)
    }

    /// Sets the room that it has, and says how much it had.
    pub fn set_room(&self, bytes: usize) -> usize {
        self.room.replace(bytes)
    }

    /// Whether it has room for the call that is coming in.
    pub fn has_room(&self) -> bool {
        self.room.get() != 0
    }

    /// There is no room for its answer now: it is taken again, before all that came later, once there is.
    pub fn put_off(&self, id: CallId, said: Said) {
        self.put_off.borrow_mut().push_back((id, said));
        self.stall();
    }

    /// Whether calls were put off: those that came later wait behind them.
    pub fn has_put_off(&self) -> bool {
        !self.put_off.borrow().is_empty()
    }

    /// The calls that were put off, in the order in which they came.
    pub fn take_put_off(&self) -> VecDeque<(CallId, Said)> {
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
        let spelt = match self.caller {
            Caller::Client => self.stream.next_frame(|frame| (frame.id, decode_call(frame).map(Said::Call))),
            Caller::Peer(_) => self.stream.next_frame(|frame| (frame.id, decode_ask(frame).map(Said::Ask))),
        };
        let Some((id, said)) = spelt.map_err(|error| End::Refused(error.into()))? else {
            let since = self.stream.has_begun().then(|| self.frame_since.get().unwrap_or(now));
            self.frame_since.set(since);
            return Ok(None);
        };
        self.frame_since.set(None);
        if id == CallId::NONE {
            return Err(End::Refused(Failure::Malformed { reason: "id 0 belongs to no call".to_owned() }));
        }
        self.under_way.set(self.under_way.get() + 1);
        Ok(Some((id, said.map_err(Failure::from))))
    }

    /// Spells an answer behind those that wait, and says how many bytes that was. To a closed connection it is none.
    pub fn answer(&self, id: CallId, answer: &Answer) -> usize {
        self.end(id, |out| encode_answer(out, id, answer))
    }

    /// Tells a peer what it asked, as [`answer`](Connection::answer) does.
    pub fn tell(&self, id: CallId, told: &Told) -> usize {
        self.end(id, |out| encode_told(out, id, told))
    }

    /// Says that a frame was not understood, as [`answer`](Connection::answer) does.
    pub fn refuse(&self, id: CallId, failure: &Failure) -> usize {
        match self.caller {
            Caller::Client => self.answer(id, &Answer::One(Err(failure.clone()))),
            Caller::Peer(_) => self.end(id, |out| encode_misunderstood(out, id, failure)),
        }
    }

    fn end(&self, id: CallId, spell: impl FnOnce(&mut BytesMut)) -> usize {
        if id != CallId::NONE {
            self.under_way.set(self.under_way.get() - 1);
        }
        self.stream.put(spell)
    }

    /// Whether it has just become one that has something to send.
    pub fn becomes_dirty(&self) -> bool {
        !self.dirty.replace(true)
    }

    /// Sends what waits, as far as the socket takes it, and says how many bytes wait no more. What a closed one would
    /// have sent is dropped.
    pub fn send(self: &Rc<Self>, now: Instant) -> usize {
        self.dirty.set(false);
        let waited = self.stream.waiting_bytes();
        if let Err(error) = self.stream.send() {
            tracing::debug!(peer = %self.peer(), %error, "a connection was lost");
            self.close();
        }
        if self.finishing.get() && self.is_answered() {
            self.close();
        }
        if self.is_closed() {
            // What waits is dropped, and nothing is sent that could fail.
            let _ = self.stream.send();
        }
        let left = self.stream.waiting_bytes();
        // A client that takes a large answer slowly but steadily is not stalled.
        if left < waited || self.answers_since.get().is_none() {
            self.answers_since.set((left != 0).then_some(now));
        }
        self.look_for_room();
        waited - left
    }

    /// Drops it from outside.
    pub fn close(self: &Rc<Self>) {
        if self.stream.close() {
            self.want_turn();
        }
    }

    /// Whether it is closed: it waits for its last turn.
    pub fn is_closed(&self) -> bool {
        self.stream.is_closed()
    }

    /// The client sends nothing more: the connection ends once everything that is under way is answered. What has come
    /// in of another call never becomes one.
    pub fn finish(self: &Rc<Self>) {
        self.finishing.set(true);
        self.frame_since.set(None);
        self.stream.forget_incoming();
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
        let silent = |max| now.since(self.stream.read_at()) > max;
        let is_late = match self.caller {
            Caller::Client => stalled(&self.frame_since, STALL_MAX) || (self.is_answered() && silent(idle_max)),
            // Whether a silent peer is still there is for the kernel to find out.
            Caller::Peer(_) => self.frame_since.get().is_some() && silent(PEER_STALL_MAX),
        };
        is_late || stalled(&self.answers_since, unread_max)
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
        self.stream.waiting_bytes() != 0
    }

    /// Whether more answers wait than one connection may leave unread.
    pub fn is_behind(&self) -> bool {
        let max = match self.caller {
            Caller::Client => ANSWERS_BYTES_MAX,
            Caller::Peer(_) => TOLD_BYTES_MAX,
        };
        self.stream.waiting_bytes() > max
    }

    /// Whether no more is read from it for its own sake: too much is under way, or unread.
    pub fn is_full(&self) -> bool {
        let max = match self.caller {
            Caller::Client => CALLS_MAX,
            Caller::Peer(_) => ASKS_MAX,
        };
        self.under_way.get() >= max || self.is_behind()
    }
}

#[cfg(test)]
mod tests;
