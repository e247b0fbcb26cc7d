//! One connection to a core of another node: asks out, what it tells in. [`links`](super::links) knows which there are.
//!
//! Every ask ends once: with what was told, or lost with its link. Bounds: asks under way, and bytes that wait.

use std::cell::{Cell, RefCell};
use std::net::TcpStream;
use std::rc::Rc;
use std::time::Duration;

use slotmap::{DefaultKey, Key, KeyData, SlotMap};

use super::connection::ASKS_MAX;
use super::mail::Line;
use super::stream::{Ended, Stream};
use super::wanting::Wanting;
use crate::protocol::io::Standing;
use crate::protocol::message::Failure;
use crate::protocol::peer::{Ask, Told, Unheard};
use crate::protocol::types::{AskId, CoreId, Instant, NodeId};
use crate::wire::frame::CallId;
use crate::wire::peer::{AskTooLarge, PEER_BYTES_MAX, decode_told, encode_ask};
use crate::wire::reader::WireError;

/// A link is given up when an ask is unanswered so long after its deadline, and nothing else was told meanwhile.
const SILENT_MAX: Duration = Duration::from_secs(2);

/// An answer that is later than this never comes, whatever else is told: every ask has its end.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A buffer that once held more is given back when it is empty: a turn's asks fit.
const KEPT_BYTES: usize = 64 * 1024;

/// Where a link leads.
pub type End = (NodeId, CoreId);

/// A connection, and the asks under way on it.
#[derive(Debug)]
pub struct Link {
    token: u64,
    to: End,
    stream: Stream,
    /// By the id that the frame has.
    asks: RefCell<SlotMap<DefaultKey, Sent>>,
    asks_max: usize,
    begun: Instant,
    dirty: Cell<bool>,
    wanting: Cell<bool>,
    turns: Rc<Wanting>,
}

/// A question on its way.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Whom it ends for.
    pub id: AskId,
    /// Where the shard stands.
    pub stand: Standing,
    /// When the answer is of no use any more.
    pub deadline: Instant,
    /// What is asked.
    pub ask: &'a Ask,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    id: AskId,
    at: Instant,
    deadline: Instant,
}

/// The end of an ask.
#[derive(Debug, PartialEq, Eq)]
pub struct Heard {
    /// Which.
    pub ask: AskId,
    /// What was told.
    pub told: Result<Told, Unheard>,
    /// How long that took.
    pub took: Duration,
}

/// Why a link ends. For the log.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The peer closed it.
    #[error("the peer closed it")]
    Closed,
    /// The network failed.
    #[error("{0}")]
    Lost(std::io::Error),
    /// What came was not understood.
    #[error("what it tells is not understood: {0}")]
    Wire(#[from] WireError),
    /// Nobody asked for it.
    #[error("it answers what was not asked, id {}", .0.0)]
    Stray(CallId),
    /// The peer says why it will close it.
    #[error("it refuses: {0}")]
    Refused(Failure),
}

impl From<Ended> for Broken {
    fn from(ended: Ended) -> Broken {
        match ended {
            Ended::Closed => Broken::Closed,
            Ended::Lost(error) => Broken::Lost(error),
        }
    }
}

impl Link {
    /// Takes over a connection past its handshake. It is known by `token`, and served in the turns of `turns`.
    ///
    /// # Errors
    /// What the kernel says of the socket.
    pub fn new(token: u64, now: Instant, to: End, line: Line, turns: Rc<Wanting>) -> std::io::Result<Rc<Link>> {
        let Line { socket, leftover, asks_max } = line;
        let peer = socket.peer_addr()?;
        let stream = Stream::new(now, (socket, &leftover, peer), PEER_BYTES_MAX, KEPT_BYTES)?;
        stream.keep_alive()?;
        Ok(Rc::new(Link {
            token,
            to,
            stream,
            asks: RefCell::default(),
            asks_max: ASKS_MAX.min(usize::try_from(asks_max).unwrap_or(ASKS_MAX)),
            begun: now,
            dirty: Cell::new(false),
            wanting: Cell::new(false),
            turns,
        }))
    }

    /// What it is known by.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Where it leads.
    pub fn to(&self) -> End {
        self.to
    }

    /// The socket, to be polled.
    pub fn socket(&self) -> &TcpStream {
        self.stream.socket()
    }

    /// When it came up.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Wants to be served in the next turn.
    pub fn want_turn(self: &Rc<Self>) {
        if !self.wanting.replace(true) {
            self.turns.push_link(self);
        }
    }

    /// Has its turn, and may want another.
    pub fn has_turn(&self) {
        self.wanting.set(false);
    }

    /// The socket has something to be read.
    pub fn on_readable(self: &Rc<Self>, hung_up: bool) {
        self.stream.on_readable(hung_up);
        self.want_turn();
    }

    /// Reads what has come in ([`Stream::receive`]).
    ///
    /// # Errors
    /// [`Broken`] when nothing more will come.
    pub fn receive(&self, now: Instant, scratch: &mut [u8]) -> Result<usize, Broken> {
        Ok(self.stream.receive(now, scratch)?)
    }

    /// The next answer that has come in whole.
    ///
    /// # Errors
    /// [`Broken`] when the peer does not keep to the protocol.
    pub fn next_told(&self, now: Instant) -> Result<Option<Heard>, Broken> {
        let Some((id, told)) = self.stream.next_frame(|frame| (frame.id, decode_told(frame)))? else {
            return Ok(None);
        };
        match (told?, id) {
            (Err(failure), CallId::NONE) => Err(Broken::Refused(failure)),
            (told, id) => {
                let Sent { id: ask, at, .. } = self.asks.borrow_mut().remove(key(id)).ok_or(Broken::Stray(id))?;
                let told = told.map_err(|failure| {
                    // What was not understood was not done: another may be asked.
                    tracing::debug!(node = %self.to.0, core = %self.to.1, %failure, "a peer did not understand an ask");
                    Unheard::NotTaken
                });
                Ok(Some(Heard { ask, told, took: now.since(at) }))
            }
        }
    }

    /// Whether more asks are under way than the peer or this node wants.
    pub fn is_full(&self) -> bool {
        self.asks.borrow().len() >= self.asks_max
    }

    /// Spells an ask behind those that wait, and says how many bytes that was.
    ///
    /// # Errors
    /// [`AskTooLarge`]: nothing was spelled.
    pub fn put(&self, now: Instant, question: &Question<'_>) -> Result<usize, AskTooLarge> {
        let Question { id, stand, deadline, ask } = *question;
        let place = self.asks.borrow_mut().insert(Sent { id, at: now, deadline });
        // What is left of the time, and never none of it: rounding must not end an ask.
        let left = u32::try_from(deadline.since(now).as_millis()).unwrap_or(u32::MAX).max(1);
        let mut spelled = Ok(());
        let bytes = self.stream.put(|out| spelled = encode_ask(out, CallId(place.data().as_ffi()), stand, left, ask));
        if let Err(too_large) = spelled {
            self.asks.borrow_mut().remove(place);
            return Err(too_large);
        }
        Ok(bytes)
    }

    /// Whether it has just become one that has something to send.
    pub fn becomes_dirty(&self) -> bool {
        !self.dirty.replace(true)
    }

    /// Sends what waits, as far as the socket takes it, and says how many bytes wait no more. Of a closed link none do.
    pub fn send(self: &Rc<Self>) -> usize {
        self.dirty.set(false);
        let waited = self.stream.waiting_bytes();
        if let Err(error) = self.stream.send() {
            tracing::debug!(node = %self.to.0, core = %self.to.1, %error, "a link was lost");
            self.close();
        }
        if self.is_closed() {
            // What waits is dropped, and nothing is sent that could fail.
            let _ = self.stream.send();
        }
        waited - self.stream.waiting_bytes()
    }

    /// Bytes of asks that wait to be sent.
    pub fn waiting_bytes(&self) -> usize {
        self.stream.waiting_bytes()
    }

    /// Asks under way.
    pub fn under_way(&self) -> usize {
        self.asks.borrow().len()
    }

    /// All asks under way, which end otherwise from now on.
    pub fn take_asks(&self) -> Vec<AskId> {
        self.asks.borrow_mut().drain().map(|(_, sent)| sent.id).collect()
    }

    /// Whether answers are so late that they will not come.
    pub fn is_silent(&self, now: Instant) -> bool {
        let asks = self.asks.borrow();
        let late = asks.values().map(|sent| now.since(sent.deadline)).max().unwrap_or_default();
        let quiet = now.since(self.stream.read_at());
        ANSWER_MAX < late || (SILENT_MAX < late && SILENT_MAX < quiet)
    }

    /// Drops it. Its asks end in its last turn.
    pub fn close(self: &Rc<Self>) {
        if self.stream.close() {
            self.want_turn();
        }
    }

    /// Whether it is closed: it waits for its last turn.
    pub fn is_closed(&self) -> bool {
        self.stream.is_closed()
    }
}

fn key(id: CallId) -> DefaultKey {
    KeyData::from_ffi(id.0).into()
}
