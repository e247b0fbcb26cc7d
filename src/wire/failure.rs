//! Failures: a code, two numbers and a sentence.
//!
//! ```text
//! failure = code u16, number u64, number u64, length u16, text
//! ```
//! The hundreds of a code say what happened to the state, so that a client can act on a code that it does not know:
//! below 100 the request cannot be done as it is, and nothing was written; from 100 nothing was written, and the same
//! request may succeed later; from 200 a write may have been done, or may still surface.

use bytes::{BufMut, BytesMut};

use super::reader::{Reader, Result, WireError, put_text};
use crate::protocol::causality::{ContextError, SetLimit};
use crate::protocol::message::Failure;
use crate::protocol::types::{CoreId, LengthError};

/// Longest sentence of a failure; a longer one is cut.
const TEXT_BYTES_MAX: usize = 512;

/// Most bytes that a failure takes.
pub(super) const FAILURE_BYTES_MAX: usize = 2 + 16 + 2 + TEXT_BYTES_MAX;

/// What a malformed message gets for an answer.
impl From<WireError> for Failure {
    fn from(error: WireError) -> Failure {
        match error {
            WireError::Length(length) => Failure::Length(length),
            other => Failure::Malformed { reason: other.to_string() },
        }
    }
}

/// Spells a failure.
pub fn put_failure(out: &mut BytesMut, failure: &Failure) {
    let (code, first, second) = spelling(failure);
    out.put_u16_le(code);
    out.put_u64_le(first);
    out.put_u64_le(second);
    match failure {
        Failure::Malformed { reason: text } | Failure::Unreadable { reason: text } | Failure::Other { text, .. } => {
            put_text(out, text, TEXT_BYTES_MAX);
        }
        other => put_text(out, &other.to_string(), TEXT_BYTES_MAX),
    }
}

fn spelling(failure: &Failure) -> (u16, u64, u64) {
    match *failure {
        Failure::Malformed { .. } => (MALFORMED, 0, 0),
        Failure::Length(LengthError { what, bytes, max, .. }) => (length_code(what), bytes as u64, max as u64),
        Failure::Context(ContextError::Damaged { bytes }) => (10, bytes as u64, 0),
        Failure::Context(ContextError::Format { format }) => (11, format.into(), 0),
        Failure::Context(ContextError::OtherCluster) => (12, 0, 0),
        Failure::Context(ContextError::OtherKey) => (13, 0, 0),
        Failure::SetLimit(SetLimit::Siblings { siblings, max }) => (20, siblings as u64, max as u64),
        Failure::SetLimit(SetLimit::Bytes { bytes, max }) => (21, bytes as u64, max as u64),
        Failure::SetLimit(SetLimit::Clock { entries, max }) => (22, entries as u64, max as u64),
        Failure::OperationReused => (30, 0, 0),
        Failure::QuorumImpossible { asked, copies } => (31, asked.into(), copies.into()),
        Failure::Unauthorized => (40, 0, 0),
        Failure::Version { min, max } => (41, min.into(), max.into()),
        Failure::Overloaded { retry_after_ms } => (100, retry_after_ms.into(), 0),
        Failure::DiskFull => (101, 0, 0),
        Failure::Stopping => (102, 0, 0),
        Failure::Connections { open, max } => (103, open.into(), max.into()),
        Failure::QuorumNotMet { needed, got } => (200, needed.into(), got.into()),
        Failure::WritesStopped { core } => (201, core.0.into(), 0),
        Failure::Unreadable { .. } => (202, 0, 0),
        Failure::ReplyTooLarge { bytes, max } => (203, bytes, max),
        Failure::Other { code, first, second, .. } => (code, first, second),
    }
}

/// Reads a failure.
///
/// # Errors
/// Any [`WireError`]. A code that this version does not know is a [`Failure::Other`].
pub fn get_failure(from: &mut Reader) -> Result<Failure> {
    let code = from.u16("failure code")?;
    let first = from.u64("failure number")?;
    let second = from.u64("failure number")?;
    let text = from.text("failure text", TEXT_BYTES_MAX)?;
    let length = |what, min| Failure::Length(LengthError { what, bytes: size(first), min, max: size(second) });
    Ok(match code {
        MALFORMED => Failure::Malformed { reason: text },
        KEY_LENGTH => length("key", 1),
        VALUE_LENGTH => length("value", 0),
        OPERATION_LENGTH => length("operation id", 1),
        10 => ContextError::Damaged { bytes: size(first) }.into(),
        11 => ContextError::Format { format: narrow(first)? }.into(),
        12 => ContextError::OtherCluster.into(),
        13 => ContextError::OtherKey.into(),
        20 => SetLimit::Siblings { siblings: size(first), max: size(second) }.into(),
        21 => SetLimit::Bytes { bytes: size(first), max: size(second) }.into(),
        22 => SetLimit::Clock { entries: size(first), max: size(second) }.into(),
        30 => Failure::OperationReused,
        31 => Failure::QuorumImpossible { asked: narrow(first)?, copies: narrow(second)? },
        40 => Failure::Unauthorized,
        41 => Failure::Version { min: narrow(first)?, max: narrow(second)? },
        100 => Failure::Overloaded { retry_after_ms: narrow(first)? },
        101 => Failure::DiskFull,
        102 => Failure::Stopping,
        103 => Failure::Connections { open: narrow(first)?, max: narrow(second)? },
        200 => Failure::QuorumNotMet { needed: narrow(first)?, got: narrow(second)? },
        201 => Failure::WritesStopped { core: CoreId(narrow(first)?) },
        202 => Failure::Unreadable { reason: text },
        203 => Failure::ReplyTooLarge { bytes: first, max: second },
        code => Failure::Other { code, first, second, text },
    })
}

const MALFORMED: u16 = 1;
const KEY_LENGTH: u16 = 2;
const VALUE_LENGTH: u16 = 3;
const OPERATION_LENGTH: u16 = 4;

/// A client hears of keys, values and operation ids only; of anything else the sentence is enough.
fn length_code(what: &str) -> u16 {
    match what {
        "key" => KEY_LENGTH,
        "value" => VALUE_LENGTH,
        "operation id" => OPERATION_LENGTH,
        _ => MALFORMED,
    }
}

/// A number of bytes or things, as this machine counts them.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn narrow<T: TryFrom<u64>>(number: u64) -> Result<T> {
    T::try_from(number).map_err(|_| WireError::Unknown { what: "failure number", tag: number })
}
