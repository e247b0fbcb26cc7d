//! How requests are spelled for one kind of server, and its replies read. Bytes in, bytes out; no socket.

use super::workload::KEY_BYTES;
use crate::verify;

/// The place of a request among those under way on its connection; below the pipeline's depth. It is free again once
/// its answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(pub u16);

/// What a connection waits for before its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Nothing: requests may go out at once.
    Ready,
    /// The server's greeting, which ends with [`Said::Ready`].
    Greeting,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// Read a key.
    Get {
        /// The key.
        key: &'a [u8; KEY_BYTES],
    },
    /// Write a key.
    Put {
        /// The key.
        key: &'a [u8; KEY_BYTES],
        /// Its new value.
        value: &'a [u8],
        /// What the writer has read, where it has read.
        context: Option<&'a [u8]>,
    },
}

/// What the front of the received bytes says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard<'a> {
    /// Bytes that it takes.
    pub bytes: usize,
    /// What it says.
    pub said: Said<'a>,
}

/// One message of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// Requests may go out.
    Ready,
    /// Nothing that concerns a request.
    Aside,
    /// The answer to the request in this slot.
    Answer {
        /// Which.
        slot: Slot,
        /// What came of it.
        outcome: Outcome<'a>,
    },
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The key is written.
    Written,
    /// The key has a value.
    Found {
        /// What a writer shows who has read this; empty where the protocol has none.
        context: &'a [u8],
    },
    /// The key has no value.
    Absent,
    /// The server refused.
    Refused(Refusal),
}

/// Why a request was not done, or a connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A word or two to count it by.
    pub kind: &'static str,
    /// A sentence for people.
    pub message: String,
    /// Whether the same request may be done later.
    pub passes: bool,
}

/// The client's side of one connection. Answers may come in any order: the dialect knows which slot each belongs to.
pub trait Dialect: Clone + Send + 'static {
    /// Whether answers name the versions that they are about: without names no history can be recorded.
    const NAMES_VERSIONS: bool = false;

    /// Writes what opens a connection.
    fn open(&mut self, out: &mut Vec<u8>) -> Opening;

    /// Writes one request.
    fn ask(&mut self, slot: Slot, ask: Ask<'_>, out: &mut Vec<u8>);

    /// Reads the front of what has come, and writes what the protocol replies to it by itself. `None` needs more bytes.
    ///
    /// # Errors
    /// Why nothing more can be read from this connection.
    fn hear<'a>(&mut self, from: &'a [u8], out: &mut Vec<u8>) -> Result<Option<Heard<'a>>, Refusal>;

    /// What an answer, whole and alone, tells a history. Only asked of a dialect that names versions.
    fn told(&self, _answer: &[u8]) -> verify::Outcome {
        verify::Outcome::Unknown
    }
}
