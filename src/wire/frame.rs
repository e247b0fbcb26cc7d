//! Frames: what a connection carries after its handshake, both ways.
//!
//! ```text
//!   u32      u64   u8
//! +--------+------+------+-- - -
//! | length |  id  | kind | body      length counts id, kind and body
//! +--------+------+------+-- - -
//! ```
//! The caller chooses the id and the answer repeats it; answers come in any order. Id 0 belongs to no call: under it a
//! node says why it is about to close the connection.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::reader::{Result, WireError};
use crate::protocol::config::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Largest frame of a call: a largest value with its key and context fits, and so does a batch of the size that a
/// core can hold in memory for each of its connections.
pub const CALL_BYTES_MAX: usize = 16 * 1024 * 1024 + 64 * 1024;

/// Largest frame of an answer: six siblings of the largest size. What is larger is refused by its size.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

const LENGTH_BYTES: usize = 4;
const HEAD_BYTES: usize = 8 + 1;

/// A frame up to this size is copied out of the receive buffer, a larger one takes the buffer with it.
const COPIED_BYTES_MAX: usize = 16 * 1024;

const _: () = assert!(VALUE_BYTES_MAX + KEY_BYTES_MAX < CALL_BYTES_MAX && CALL_BYTES_MAX < ANSWER_BYTES_MAX);

/// The caller's number for a call, repeated by its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

impl CallId {
    /// Belongs to no call: the connection itself is meant, and about to be closed.
    pub const NONE: CallId = CallId(0);
}

/// One frame, taken apart no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which call it is, or answers.
    pub id: CallId,
    /// What the body says: see `call` and `answer`.
    pub kind: u8,
    /// The rest. It never keeps more than twice its own size in memory.
    pub body: Bytes,
}

/// Takes the next frame from the front of a receive buffer. `None` needs more bytes; the buffer then has room for at
/// least the rest of a large frame, so that it is not moved again while it comes.
///
/// # Errors
/// [`WireError::TooLong`] beyond `max`, [`WireError::Truncated`] below the least: the stream can be read no further.
pub fn next_frame(buffer: &mut BytesMut, max: usize) -> Result<Option<Frame>> {
    let Some(total) = frame_bytes(buffer, max)? else {
        return Ok(None);
    };
    if buffer.len() < total {
        if COPIED_BYTES_MAX < total {
            buffer.reserve(total - buffer.len());
        }
        return Ok(None);
    }
    let mut frame = take(buffer, total);
    frame.advance(LENGTH_BYTES);
    Ok(Some(Frame { id: CallId(frame.get_u64_le()), kind: frame.get_u8(), body: frame }))
}

/// Bytes of the frame at the front, its length field too. `None` needs more bytes to tell.
///
/// # Errors
/// As [`next_frame`].
pub(super) fn frame_bytes(from: &[u8], max: usize) -> Result<Option<usize>> {
    let Some(length) = from.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > max {
        return Err(WireError::TooLong { what: "frame", found: length, max });
    }
    if length < HEAD_BYTES {
        return Err(WireError::Truncated { what: "frame", needed: HEAD_BYTES, left: length });
    }
    Ok(Some(LENGTH_BYTES + length))
}

/// A small frame gets memory of its own, or its value would keep the whole receive buffer for as long as it lives. A
/// large one takes the buffer, and what little stands behind it moves on to a new one.
fn take(buffer: &mut BytesMut, total: usize) -> Bytes {
    if total <= COPIED_BYTES_MAX {
        let frame = Bytes::copy_from_slice(&buffer[..total]);
        buffer.advance(total);
        return frame;
    }
    let behind = BytesMut::from(&buffer[total..]);
    let mut frame = std::mem::replace(buffer, behind);
    frame.truncate(total);
    frame.freeze()
}

/// Writes one frame behind what is there.
pub(super) fn put_frame(out: &mut BytesMut, id: CallId, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32_le(0);
    out.put_u64_le(id.0);
    out.put_u8(kind);
    body(out);
    let length = u32::try_from(out.len() - start - LENGTH_BYTES).expect("its caller keeps it within a frame");
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// Bytes of a frame around its body.
pub(super) const FRAME_BYTES: usize = LENGTH_BYTES + HEAD_BYTES;
