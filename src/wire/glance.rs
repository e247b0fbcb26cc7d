//! A look at an answer where it lies in a receive buffer: for who counts answers and keeps none.
//!
//! [`decode_answer`](super::decode_answer) gives each answer memory of its own. This reads the front of the two answers
//! that a load generator hears a hundred thousand times a second, and copies nothing.

use super::answer::{FAILURE, FOUND, LEVEL_BYTES, WRITTEN};
use super::call::CONTEXT_BYTES_MAX;
use super::failure::get_failure;
use super::frame::{ANSWER_BYTES_MAX, CallId, FRAME_BYTES, frame_bytes};
use super::reader::{Reader, Result, WireError};
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
/// [`WireError`] when the frame's length or what is looked at cannot be; what stands behind it is not looked at.
pub fn glance(from: &[u8]) -> Result<Option<(CallId, Glance<'_>, usize)>> {
    let Some(total) = frame_bytes(from, ANSWER_BYTES_MAX)? else {
        return Ok(None);
    };
    let Some((head, body)) = from.get(..total).map(|frame| frame.split_at(FRAME_BYTES)) else {
        return Ok(None);
    };
    let id = u64::from_le_bytes(*head[4..].first_chunk().expect("a head has twelve bytes and its kind"));
    let glance = match head[FRAME_BYTES - 1] {
        FOUND => found(body)?,
        WRITTEN => Glance::Written,
        FAILURE => Glance::Failed(get_failure(&mut Reader::new(body))?),
        kind => Glance::Other { kind },
    };
    Ok(Some((CallId(id), glance, total)))
}

fn found(body: &[u8]) -> Result<Glance<'_>> {
    let behind = body.get(LEVEL_BYTES..).unwrap_or_default();
    let (length, behind) = number(behind, "context")?;
    let length = length as usize;
    if CONTEXT_BYTES_MAX < length {
        return Err(WireError::TooLong { what: "context", found: length, max: CONTEXT_BYTES_MAX });
    }
    let short = || WireError::Truncated { what: "context", needed: length, left: behind.len() };
    let (context, behind) = behind.split_at_checked(length).ok_or_else(short)?;
    let (siblings, _) = number(behind, "siblings")?;
    Ok(Glance::Found { siblings, context })
}

fn number<'a>(from: &'a [u8], what: &'static str) -> Result<(u32, &'a [u8])> {
    let short = || WireError::Truncated { what, needed: 4, left: from.len() };
    let (number, behind) = from.split_first_chunk().ok_or_else(short)?;
    Ok((u32::from_le_bytes(*number), behind))
}
