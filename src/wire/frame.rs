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

use super::reader::{COPIED_BYTES_MAX, Reader, Result, WireError};
use crate::protocol::config::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Largest frame of a call: a largest value with its key and context fits, and so does a batch of the size that a
/// core can hold in memory for each of its connections.
pub const CALL_BYTES_MAX: usize = 16 * 1024 * 1024 + 64 * 1024;

/// Largest frame of an answer: six siblings of the largest size. What is larger is refused by its size.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

const LENGTH_BYTES: usize = 4;
const HEAD_BYTES: usize = 8 + 1;

const _: () = assert!(VALUE_BYTES_MAX + KEY_BYTES_MAX < CALL_BYTES_MAX && CALL_BYTES_MAX < ANSWER_BYTES_MAX);

/// The caller's number for a call, repeated by its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

impl CallId {
    /// Belongs to no call: the connection itself is meant, and about to be closed.
    pub const NONE: CallId = CallId(0);
}

/// One whole frame, taken apart no further, where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Which call it is, or answers.
    pub id: CallId,
    /// What the body says: see `call` and `answer`.
    pub kind: u8,
    pub(super) body: Reader<'a>,
}

impl<'a> Frame<'a> {
    /// A frame in memory that is another's: whatever is kept of it is copied.
    ///
    /// # Panics
    /// When `bytes` are not one whole frame, as [`frame_bytes`] measures it.
    pub fn borrowed(bytes: &'a [u8]) -> Frame<'a> {
        Frame::read(bytes.len(), Reader::new(bytes))
    }

    /// A frame that fills its memory: a value that is most of it goes on holding it.
    ///
    /// # Panics
    /// When `bytes` are not one whole frame, as [`frame_bytes`] measures it.
    pub fn owned(bytes: &'a Bytes) -> Frame<'a> {
        Frame::read(bytes.len(), Reader::shared(bytes))
    }

    fn read(total: usize, mut from: Reader<'a>) -> Frame<'a> {
        let mut head = || Ok::<_, WireError>((from.u32("length")?, from.u64("id")?, from.u8("kind")?));
        let (length, id, kind) = head().expect("a frame is whole when it is read");
        assert_eq!(LENGTH_BYTES + length as usize, total, "a frame is read alone");
        Frame { id: CallId(id), kind, body: from }
    }
}

/// Bytes of the frame at the front of what has come, once its length is there. The frame itself may still be on its
/// way.
///
/// # Errors
/// [`WireError::TooLong`] beyond `max`, [`WireError::Truncated`] below the least: the stream can be read no further.
pub fn frame_bytes(buffer: &[u8], max: usize) -> Result<Option<usize>> {
    let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    match length {
        _ if length > max => Err(WireError::TooLong { what: "frame", found: length, max }),
        _ if length < HEAD_BYTES => Err(WireError::Truncated { what: "frame", needed: HEAD_BYTES, left: length }),
        _ => Ok(Some(LENGTH_BYTES + length)),
    }
}

/// Reads the next frame at the front of a receive buffer and takes it out. `None` needs more bytes.
///
/// # Errors
/// As [`frame_bytes`].
pub fn next_frame<T>(buffer: &mut BytesMut, max: usize, read: impl FnOnce(Frame<'_>) -> T) -> Result<Option<T>> {
    let Some(total) = frame_bytes(buffer, max)? else {
        return Ok(None);
    };
    if buffer.len() < total {
        return Ok(None);
    }
    if total <= COPIED_BYTES_MAX {
        let heard = read(Frame::borrowed(&buffer[..total]));
        buffer.advance(total);
        return Ok(Some(heard));
    }
    Ok(Some(read(Frame::owned(&take(buffer, total)))))
}

/// Makes room for the rest of a frame that has come in part, so that it is not moved again and again while it comes.
/// The whole frame is allocated for: whoever reads from many says first which of them may.
///
/// # Errors
/// As [`frame_bytes`].
pub fn reserve_rest(buffer: &mut BytesMut, max: usize) -> Result<()> {
    let total = frame_bytes(buffer, max)?.unwrap_or(0);
    buffer.reserve(total.saturating_sub(buffer.len()));
    Ok(())
}

/// A large frame takes the buffer with it, and what little stands behind it moves on to a new one.
fn take(buffer: &mut BytesMut, total: usize) -> Bytes {
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
