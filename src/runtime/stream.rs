//! A socket of a core, and the bytes on their way in and out of it. Nothing here waits: its owner calls in when the
//! poller tells that the socket is ready.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustix::net::sockopt;

use crate::protocol::types::Instant;
use crate::wire::frame::{Frame, frame_bytes, next_frame, reserve_rest};
use crate::wire::reader::WireError;

/// A peer that is gone without a word, its machine down or the cable cut, is found out in some 20 seconds where nothing
/// is sent to it.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_BETWEEN: Duration = Duration::from_secs(3);
const KEEPALIVE_COUNT: u32 = 3;

/// One socket and its buffers.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    peer: SocketAddr,
    /// Largest frame that may come in.
    frame_bytes_max: usize,
    /// A buffer that once held more is given back when it is empty.
    kept_bytes: usize,
    /// What has come in and was not taken yet, the last frame in part, as a rule.
    incoming: RefCell<BytesMut>,
    /// What is not sent yet.
    outgoing: RefCell<BytesMut>,
    /// There may be more to read from the socket; and the other end will send nothing more.
    readable: Cell<bool>,
    hung_up: Cell<bool>,
    closed: Cell<bool>,
    /// When bytes last came in.
    read_at: Cell<Instant>,
}

/// Why nothing more comes in.
#[derive(Debug)]
pub enum Ended {
    /// The other end closed it.
    Closed,
    /// The network failed.
    Lost(std::io::Error),
}

impl Stream {
    /// Takes over a socket that is connected. `leftover` was read of it already.
    ///
    /// # Errors
    /// What the kernel says of the socket.
    pub fn new(
        now: Instant,
        (socket, leftover, peer): (TcpStream, &Bytes, SocketAddr),
        frame_bytes_max: usize,
        kept_bytes: usize,
    ) -> std::io::Result<Stream> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Stream {
            socket,
            peer,
            frame_bytes_max,
            kept_bytes,
            incoming: RefCell::new(BytesMut::from(&leftover[..])),
            outgoing: RefCell::default(),
            readable: Cell::new(true),
            hung_up: Cell::new(false),
            closed: Cell::new(false),
            read_at: Cell::new(now),
        })
    }

    /// The kernel asks now and then whether the other end is still there.
    ///
    /// # Errors
    /// What the kernel says of the socket.
    pub fn keep_alive(&self) -> std::io::Result<()> {
        sockopt::set_socket_keepalive(&self.socket, true)?;
        sockopt::set_tcp_keepidle(&self.socket, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(&self.socket, KEEPALIVE_BETWEEN)?;
        Ok(sockopt::set_tcp_keepcnt(&self.socket, KEEPALIVE_COUNT)?)
    }

    /// The socket, to be polled.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// When bytes last came in.
    pub fn read_at(&self) -> Instant {
        self.read_at.get()
    }

    /// The socket has something to be read.
    pub fn on_readable(&self, hung_up: bool) {
        self.readable.set(true);
        self.hung_up.set(self.hung_up.get() || hung_up);
    }

    /// Reads what has come in and says how many bytes that was; none when nothing has, for now. `scratch` is the
    /// core's: what is left of a frame between two reads is kept, so that ten thousand silent sockets hold no buffers.
    ///
    /// # Errors
    /// [`Ended`] when nothing more will come.
    pub fn receive(&self, now: Instant, scratch: &mut [u8]) -> Result<usize, Ended> {
        while self.readable.get() {
            match (&self.socket).read(scratch) {
                Ok(0) => return Err(Ended::Closed),
                Ok(bytes) => {
                    // Less than would have fitted is all there was, and what comes later is told. The end may be told
                    // of already.
                    self.readable.set(bytes == scratch.len() || self.hung_up.get());
                    self.read_at.set(now);
                    let mut incoming = self.incoming.borrow_mut();
                    reserve_rest(&mut incoming, self.frame_bytes_max).expect("a length that cannot be has ended it");
                    incoming.extend_from_slice(&scratch[..bytes]);
                    return Ok(bytes);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable.set(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Ended::Lost(error)),
            }
        }
        Ok(0)
    }

    /// Reads the next frame that has come in whole.
    ///
    /// # Errors
    /// When the bytes are no frame: nothing behind them can be read.
    pub fn next_frame<T>(&self, read: impl FnOnce(Frame<'_>) -> T) -> Result<Option<T>, WireError> {
        let mut incoming = self.incoming.borrow_mut();
        let read = next_frame(&mut incoming, self.frame_bytes_max, read)?;
        if read.is_none() {
            self.give_back(&mut incoming);
        }
        Ok(read)
    }

    /// Bytes of the frame that has come in part, once its length is there.
    pub fn coming_bytes(&self) -> Option<usize> {
        frame_bytes(&self.incoming.borrow(), self.frame_bytes_max).ok()?
    }

    /// Whether a part of a frame has come in.
    pub fn has_begun(&self) -> bool {
        !self.incoming.borrow().is_empty()
    }

    /// What has come in of another frame never becomes one.
    pub fn forget_incoming(&self) {
        *self.incoming.borrow_mut() = BytesMut::new();
    }

    /// Spells something behind what waits, and says how many bytes that was. To a closed socket it is none.
    pub fn put(&self, spell: impl FnOnce(&mut BytesMut)) -> usize {
        if self.closed.get() {
            return 0;
        }
        let mut outgoing = self.outgoing.borrow_mut();
        let before = outgoing.len();
        spell(&mut outgoing);
        outgoing.len() - before
    }

    /// Bytes that wait to be sent.
    pub fn waiting_bytes(&self) -> usize {
        self.outgoing.borrow().len()
    }

    /// Sends what waits, as far as the socket takes it. What a closed one would have sent is dropped.
    ///
    /// # Errors
    /// What the network says: the socket is of no more use.
    pub fn send(&self) -> std::io::Result<()> {
        let mut outgoing = self.outgoing.borrow_mut();
        if self.closed.get() {
            *outgoing = BytesMut::new();
        }
        while !outgoing.is_empty() {
            match (&self.socket).write(&outgoing) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) if bytes == outgoing.len() => outgoing.clear(),
                Ok(bytes) => outgoing.advance(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.give_back(&mut outgoing);
        Ok(())
    }

    /// Drops it, and says whether it was open.
    pub fn close(&self) -> bool {
        let was_open = !self.closed.replace(true);
        if was_open {
            // The socket may be gone already; then there is nothing left to shut down.
            let _ = self.socket.shutdown(Shutdown::Both);
        }
        was_open
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    fn give_back(&self, buffer: &mut BytesMut) {
        if buffer.is_empty() && buffer.capacity() > self.kept_bytes {
            *buffer = BytesMut::new();
        }
    }
}
