//! A look at an answer where it lies in a receive buffer: for who counts answers and keeps none.
//!
//! [`decode_answer`](super::decode_answer) gives each answer memory of its own. This reads the front of the two answers
//! that a load generator hears a hundred thousand times a second, and copies nothing.

use super::answer::{FAILURE, FOUND, LEVEL_BYTES, WRITTEN};
use super::call::CONTEXT_BYTES_MAX;
use super::failure::get_failure;
use super::frame::{ANSWER_BYTES_MAX, CallId, Frame, frame_bytes};
use super::reader::{Reader, Result};
use crate::protocol::message::Failure;

/// What an answer says at first sight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Glance<'a> {
    /// A get's answer.
    Found {
        /// How many siblings it holds; none for an absent key.
        siblings: u32,
        /// The context of the read.
        context: &'a [u8],
    },
    /// The answer to a put or a delete.
    Written,
    /// A failure, read whole.
    Failed(Failure),
    /// Any other answer.
    Other {
        /// The frame's kind.
        kind: u8,
    },
}

/// Looks at the frame at the front of `from`, and says how many bytes it takes. `None` needs more bytes.
///
/// # Errors
/// [`WireError`](super::WireError) when the frame's length or what is looked at cannot be; what stands behind it is not
/// looked at.
pub fn glance(from: &[u8]) -> Result<Option<(CallId, Glance<'_>, usize)>> {
    let Some(bytes) = frame_bytes(from, ANSWER_BYTES_MAX)? else {
        return Ok(None);
    };
    let Some(mut frame) = from.get(..bytes).map(Frame::borrowed) else {
        return Ok(None);
    };
    let glance = match frame.kind {
        FOUND => found(frame.body)?,
        WRITTEN => Glance::Written,
        FAILURE => Glance::Failed(get_failure(&mut frame.body)?),
        kind => Glance::Other { kind },
    };
    Ok(Some((frame.id, glance, bytes)))
}

fn found(mut body: Reader<'_>) -> Result<Glance<'_>> {
    body.take("level", LEVEL_BYTES)?;
    let context = body.bytes32("context", CONTEXT_BYTES_MAX)?;
    let siblings = body.u32("siblings")?;
    Ok(Glance::Found { siblings, context })
}
