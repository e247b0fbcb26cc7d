//! One client's connection on its core: bytes in, calls out; answers in, bytes out.
//!
//! Two tasks serve it, one that reads and one that writes. Bounds: calls under way, bytes of answers that wait, calls a
//! turn (so that one busy client cannot keep the core), and the times after which a slow or silent one is dropped. A
//! client that does not read is not read from.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;

use super::core::Core;
use super::mail::Arrival;
use super::signal::Signal;
use super::slots::Slot;
use crate::protocol::message::{Answer, Failure};
use crate::protocol::types::Instant;
use crate::wire::answer::encode_answer;
use crate::wire::call::decode_call;
use crate::wire::frame::{CALL_BYTES_MAX, CallId, next_frame};

/// Most calls of one connection under way: the welcome tells clients so.
pub const CALLS_MAX: usize = 1_024;

/// Answers that wait on one connection, in bytes; beyond it nothing more is read from it.
const ANSWERS_BYTES_MAX: usize = 1024 * 1024;

/// Calls that one connection may bring in a turn before others have theirs.
const CALLS_A_TURN: usize = 128;

/// A frame must be complete this long after its first byte, and answers must be taken within it.
pub const STALL_MAX: Duration = Duration::from_secs(30);

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

/// A buffer that once held a large frame or answer is given back.
const KEPT_BYTES: usize = 64 * 1024;

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

/// Why a connection ended. For the log.
#[derive(Debug)]
pub enum End {
    /// The client closed it.
    Closed,
    /// The bytes were no frames.
    Refused(Failure),
    /// The network failed.
    Lost(std::io::Error),
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

    /// Whether it has been slow or silent for too long.
    pub fn is_overdue(&self, now: Instant, idle_max: Duration) -> bool {
        let stalled = |since: &Cell<Option<Instant>>| since.get().is_some_and(|since| now.since(since) > STALL_MAX);
        let idle = self.is_answered() && now.since(self.read_at.get()) > idle_max;
        stalled(&self.frame_since) || stalled(&self.answers_since) || idle
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

/// Reads calls until the connection ends. `scratch` is the core's: what is left of a frame between two reads is
/// kept in `partial`, so that ten thousand silent connections hold no buffers.
pub async fn read(
    core: &RefCell<Core>,
    scratch: &RefCell<Vec<u8>>,
    connection: &Rc<Connection>,
    mut partial: BytesMut,
) -> End {
    loop {
        match take_calls(core, connection, &mut partial) {
            Err(failure) => {
                let answer = Answer::One(Err(failure.clone()));
                core.borrow_mut().farewell(connection, &answer);
                return End::Refused(failure);
            }
            Ok(Turn::More) => {
                core.borrow_mut().flush();
                glommio::executor().yield_task_queue_now().await;
                continue;
            }
            Ok(Turn::Full) => {
                core.borrow_mut().flush();
                if !has_room(core, connection).await {
                    return End::Closed;
                }
            }
            Ok(Turn::Drained) => {
                core.borrow_mut().flush();
                if !has_room(core, connection).await {
                    return End::Closed;
                }
                match receive(core, scratch, connection, &mut partial).await {
                    Ok(0) => return End::Closed,
                    Ok(_) => {}
                    Err(error) => return End::Lost(error),
                }
            }
        }
    }
}

/// Waits for room for further answers, not for what other clients leave unread; false when the connection was closed
/// meanwhile.
async fn has_room(core: &RefCell<Core>, connection: &Connection) -> bool {
    while connection.is_full() || (core.borrow().replies_are_full() && connection.has_answers()) {
        if connection.closed.get() {
            return false;
        }
        connection.wait_for_room().await;
    }
    true
}

enum Turn {
    /// No whole frame is left.
    Drained,
    /// There may be more, but no room for their answers.
    Full,
    /// There are more, but others wait for their turn.
    More,
}

/// Hands whole frames to the core, up to a turn's worth.
fn take_calls(core: &RefCell<Core>, connection: &Rc<Connection>, partial: &mut BytesMut) -> Result<Turn, Failure> {
    let mut core = core.borrow_mut();
    for _ in 0..CALLS_A_TURN {
        if connection.is_full() {
            return Ok(Turn::Full);
        }
        let Some(frame) = next_frame(partial, CALL_BYTES_MAX)? else {
            let since = if partial.is_empty() { None } else { connection.frame_since.get().or(Some(core.instant())) };
            connection.frame_since.set(since);
            if partial.is_empty() && partial.capacity() > KEPT_BYTES {
                *partial = BytesMut::new();
            }
            return Ok(Turn::Drained);
        };
        connection.frame_since.set(None);
        let id = frame.id;
        if id == CallId::NONE {
            return Err(Failure::Malformed { reason: "id 0 belongs to no call".to_owned() });
        }
        connection.under_way.set(connection.under_way.get() + 1);
        match decode_call(frame) {
            Ok(call) => core.on_call(connection, id, call),
            Err(error) => core.on_malformed(connection, id, error.into()),
        }
    }
    Ok(Turn::More)
}

async fn receive(
    core: &RefCell<Core>,
    scratch: &RefCell<Vec<u8>>,
    connection: &Connection,
    partial: &mut BytesMut,
) -> std::io::Result<usize> {
    let received = poll_fn(|context| {
        let mut scratch = scratch.borrow_mut();
        let mut stream = connection.stream.borrow_mut();
        let polled = Pin::new(&mut *stream).poll_read(context, &mut scratch);
        if let Poll::Ready(Ok(bytes)) = polled {
            partial.extend_from_slice(&scratch[..bytes]);
        }
        polled
    })
    .await?;
    connection.read_at.set(core.borrow().instant());
    Ok(received)
}

/// Sends answers until the connection ends.
pub async fn write(core: &RefCell<Core>, connection: &Connection) {
    let mut sending = BytesMut::new();
    while !connection.closed.get() {
        if connection.finishing.get() && connection.is_answered() {
            connection.close();
            break;
        }
        connection.writer.wait().await;
        loop {
            std::mem::swap(&mut sending, &mut connection.answers.borrow_mut());
            if sending.is_empty() {
                break;
            }
            if connection.answers_since.get().is_none() {
                connection.answers_since.set(Some(core.borrow().instant()));
            }
            if send_all(core, connection, &sending).await.is_err() {
                connection.close();
                break;
            }
            connection.answers_since.set(None);
            if sending.capacity() > KEPT_BYTES {
                sending = BytesMut::new()
            } else {
                sending.clear()
            }
            connection.reader.raise();
        }
    }
    core.borrow_mut().on_sent(connection.waiting_bytes.take());
}

async fn send_all(core: &RefCell<Core>, connection: &Connection, bytes: &[u8]) -> std::io::Result<()> {
    let mut sent = 0;
    while sent < bytes.len() {
        let more = poll_fn(|context| {
            let mut stream = connection.stream.borrow_mut();
            Pin::new(&mut *stream).poll_write(context, &bytes[sent..])
        })
        .await?;
        if more == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        sent += more;
        connection.waiting_bytes.set(connection.waiting_bytes.get() - more);
        let mut core = core.borrow_mut();
        core.on_sent(more);
        // A client that takes a large answer slowly but steadily is not stalled.
        connection.answers_since.set(Some(core.instant()));
    }
    Ok(())
}

/// The scratch buffer that the connections of a core share.
pub fn scratch() -> RefCell<Vec<u8>> {
    RefCell::new(vec![0; READ_BYTES])
}
