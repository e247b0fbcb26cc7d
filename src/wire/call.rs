//! Calls: what a client asks.
//!
//! ```text
//! kind  body
//! 0x01  get       key, terms
//! 0x02  put       key, terms, causality, operation, value
//! 0x03  delete    key, terms, causality, operation
//! 0x04  siblings  key
//! 0x05  keys      prefix length u16, prefix, after length u16 (0 none), after, limit u16
//! 0x06  many      count u32, as often: kind u8 (0x01 or 0x02), body
//! 0x07  ping
//! 0x08  info
//! 0x09  ring      number u64, hash u64 (the layout that is known, zeros for none)
//!
//! key       = length u16, bytes
//! terms     = quorum u8, flags u8 (1 strict, 2 retry), deadline_ms u32
//! causality = 0 u8 (blind) | 1 u8 (sibling) | 2 u8, length u32, context
//! operation = length u16 (0 none), bytes
//! value     = length u32, bytes
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{CALL_BYTES_MAX, CallId, FRAME_BYTES, Frame, put_frame};
use super::layout::{get_stamp, put_stamp};
use super::reader::{Reader, Result, WireError, put_bytes16, put_bytes32, put_count};
use crate::protocol::config::{BATCH_KEYS_MAX, CLOCK_ENTRIES_DECODED_MAX, KEY_BYTES_MAX, PAGE_KEYS_MAX};
use crate::protocol::message::{Call, Causality, Delete, Get, Keys, Put, Request, Terms};
use crate::protocol::types::{Key, OperationId, Value};

const GET: u8 = 0x01;
const PUT: u8 = 0x02;
const DELETE: u8 = 0x03;
const SIBLINGS: u8 = 0x04;
const KEYS: u8 = 0x05;
const MANY: u8 = 0x06;
const PING: u8 = 0x07;
const INFO: u8 = 0x08;
const RING: u8 = 0x09;

const STRICT: u8 = 1;
const RETRY: u8 = 2;

/// Longest context: a vector, and dots that stand apart, of the most entries that a decoder accepts.
pub(super) const CONTEXT_BYTES_MAX: usize = 1 + 8 + 8 + 2 * (4 + 16 * CLOCK_ENTRIES_DECODED_MAX) + 4;

/// Least bytes of one request of a batch: a get of one byte.
const REQUEST_BYTES_MIN: usize = 1 + 2 + 1 + TERMS_BYTES;
const TERMS_BYTES: usize = 6;

/// Most bytes of requests ([`request_bytes`]) that a batch holds.
pub const BATCH_BYTES_MAX: usize = CALL_BYTES_MAX - FRAME_BYTES - 4;

/// The largest limit of a listing; one beyond it, or none, is taken as the nearest.
pub const PAGE_LIMIT_MAX: u16 = PAGE_KEYS_MAX as u16;

const _: () = assert!(PAGE_KEYS_MAX <= u16::MAX as usize);

/// A call that is larger than a frame. Nothing was written behind what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the call has {bytes} bytes, a frame holds {CALL_BYTES_MAX}: send fewer requests at once")]
pub struct CallTooLarge {
    /// Bytes that the call takes.
    pub bytes: usize,
}

/// Writes one frame behind what is there.
///
/// # Errors
/// [`CallTooLarge`] when the frame would pass [`CALL_BYTES_MAX`], which only a batch or a context that no node gave
/// out can.
pub fn encode_call(out: &mut BytesMut, id: CallId, call: &Call) -> std::result::Result<(), CallTooLarge> {
    let bytes = FRAME_BYTES + call_bytes(call);
    if CALL_BYTES_MAX < bytes {
        return Err(CallTooLarge { bytes });
    }
    out.reserve(bytes);
    match call {
        Call::One(request) => put_frame(out, id, request_kind(request), |out| put_request(out, request)),
        Call::Many(requests) => put_frame(out, id, MANY, |out| {
            put_count(out, requests.len());
            for request in requests {
                out.put_u8(request_kind(request));
                put_request(out, request);
            }
        }),
        Call::Ping => put_frame(out, id, PING, |_| {}),
        Call::Info => put_frame(out, id, INFO, |_| {}),
        Call::Ring { known } => put_frame(out, id, RING, |out| put_stamp(out, *known)),
    }
    Ok(())
}

/// Bytes of a request in a batch: what a client adds up to fill a frame.
pub fn request_bytes(request: &Request) -> usize {
    let fixed = 1 + 2 + TERMS_BYTES;
    match request {
        Request::Get(get) => fixed + get.key.as_bytes().len(),
        Request::Put(put) => {
            let written = written_bytes(&put.causality, put.operation.as_ref());
            fixed + put.key.as_bytes().len() + written + 4 + put.value.len()
        }
        Request::Delete(delete) => {
            fixed + delete.key.as_bytes().len() + written_bytes(&delete.causality, delete.operation.as_ref())
        }
        Request::Siblings(key) => 1 + 2 + key.as_bytes().len(),
        Request::Keys(keys) => {
            let after = keys.after.as_ref().map_or(0, |after| after.as_bytes().len());
            1 + 2 + keys.prefix.len() + 2 + after + 2
        }
    }
}

fn written_bytes(causality: &Causality, operation: Option<&OperationId>) -> usize {
    let context = match causality {
        Causality::Blind | Causality::Sibling => 1,
        Causality::Context(token) => 1 + 4 + token.len(),
    };
    context + 2 + operation.map_or(0, |id| id.as_bytes().len())
}

fn call_bytes(call: &Call) -> usize {
    match call {
        Call::One(request) => request_bytes(request) - 1,
        Call::Many(requests) => 4 + requests.iter().map(request_bytes).sum::<usize>(),
        Call::Ping | Call::Info => 0,
        Call::Ring { .. } => 16,
    }
}

pub(super) fn request_kind(request: &Request) -> u8 {
    match request {
        Request::Get(_) => GET,
        Request::Put(_) => PUT,
        Request::Delete(_) => DELETE,
        Request::Siblings(_) => SIBLINGS,
        Request::Keys(_) => KEYS,
    }
}

pub(super) fn put_request(out: &mut BytesMut, request: &Request) {
    match request {
        Request::Get(get) => {
            put_bytes16(out, get.key.as_bytes());
            put_terms(out, get.terms);
        }
        Request::Put(put) => {
            put_bytes16(out, put.key.as_bytes());
            put_terms(out, put.terms);
            put_causality(out, &put.causality);
            put_operation(out, put.operation.as_ref());
            put_bytes32(out, put.value.as_bytes());
        }
        Request::Delete(delete) => {
            put_bytes16(out, delete.key.as_bytes());
            put_terms(out, delete.terms);
            put_causality(out, &delete.causality);
            put_operation(out, delete.operation.as_ref());
        }
        Request::Siblings(key) => put_bytes16(out, key.as_bytes()),
        Request::Keys(keys) => {
            put_bytes16(out, &keys.prefix);
            put_bytes16(out, keys.after.as_ref().map_or(&[], Key::as_bytes));
            out.put_u16_le(keys.limit);
        }
    }
}

/// Reads a call. What is kept of it holds no more memory than it needs ([`Reader::kept`]).
///
/// # Errors
/// Any [`WireError`]. The frame is over, so its call can be answered and the next one read.
pub fn decode_call(mut frame: Frame<'_>) -> Result<Call> {
    let body = &mut frame.body;
    let call = match frame.kind {
        MANY => {
            let count = body.count("batch", BATCH_KEYS_MAX, REQUEST_BYTES_MIN)?;
            Call::Many((0..count).map(|_| get_batched(body)).collect::<Result<_>>()?)
        }
        PING => Call::Ping,
        INFO => Call::Info,
        RING => Call::Ring { known: get_stamp(body)? },
        kind => Call::One(get_request(body, kind)?),
    };
    body.end()?;
    Ok(call)
}

fn get_batched(from: &mut Reader) -> Result<Request> {
    match from.u8("kind in a batch")? {
        kind @ (GET | PUT) => get_request(from, kind),
        tag => Err(WireError::Unknown { what: "kind in a batch", tag: tag.into() }),
    }
}

pub(super) fn get_request(from: &mut Reader, kind: u8) -> Result<Request> {
    Ok(match kind {
        GET => Request::Get(Get { key: get_key(from)?, terms: get_terms(from)? }),
        PUT => Request::Put(Put {
            key: get_key(from)?,
            terms: get_terms(from)?,
            causality: get_causality(from)?,
            operation: get_operation(from)?,
            value: get_value(from)?,
        }),
        DELETE => Request::Delete(Delete {
            key: get_key(from)?,
            terms: get_terms(from)?,
            causality: get_causality(from)?,
            operation: get_operation(from)?,
        }),
        SIBLINGS => Request::Siblings(get_key(from)?),
        KEYS => Request::Keys(Keys {
            prefix: get_prefix(from)?,
            after: get_after(from)?,
            limit: from.u16("limit")?.clamp(1, PAGE_LIMIT_MAX),
        }),
        tag => {
            return Err(WireError::Unknown { what: "kind of call", tag: tag.into() });
        }
    })
}

/// The type's own bound speaks, so that the refusal names it.
pub(super) fn get_key(from: &mut Reader) -> Result<Key> {
    let key = from.bytes16("key", usize::from(u16::MAX))?;
    Ok(Key::new(key)?)
}

pub(super) fn get_value(from: &mut Reader) -> Result<Value> {
    let value = from.bytes32("value", usize::MAX)?;
    Ok(Value::new(from.kept(value))?)
}

fn get_prefix(from: &mut Reader) -> Result<Bytes> {
    let prefix = from.bytes16("prefix", KEY_BYTES_MAX)?;
    Ok(from.kept(prefix))
}

fn get_after(from: &mut Reader) -> Result<Option<Key>> {
    let after = from.bytes16("after", KEY_BYTES_MAX)?;
    Ok((!after.is_empty()).then(|| Key::new(after)).transpose()?)
}

fn put_terms(out: &mut BytesMut, terms: Terms) {
    out.put_u8(terms.quorum);
    out.put_u8(if terms.strict { STRICT } else { 0 } | if terms.retry { RETRY } else { 0 });
    out.put_u32_le(terms.deadline_ms);
}

fn get_terms(from: &mut Reader) -> Result<Terms> {
    let quorum = from.u8("quorum")?;
    let flags = from.u8("flags of terms")?;
    if flags & !(STRICT | RETRY) != 0 {
        return Err(WireError::Unknown { what: "flags of terms", tag: flags.into() });
    }
    Ok(Terms { quorum, strict: flags & STRICT != 0, retry: flags & RETRY != 0, deadline_ms: from.u32("deadline")? })
}

fn put_causality(out: &mut BytesMut, causality: &Causality) {
    match causality {
        Causality::Blind => out.put_u8(0),
        Causality::Sibling => out.put_u8(1),
        Causality::Context(token) => {
            out.put_u8(2);
            put_bytes32(out, token);
        }
    }
}

fn get_causality(from: &mut Reader) -> Result<Causality> {
    match from.u8("causality")? {
        0 => Ok(Causality::Blind),
        1 => Ok(Causality::Sibling),
        2 => Ok(Causality::Context(get_context(from)?)),
        tag => Err(WireError::Unknown { what: "causality", tag: tag.into() }),
    }
}

pub(super) fn get_context(from: &mut Reader) -> Result<Bytes> {
    let context = from.bytes32("context", CONTEXT_BYTES_MAX)?;
    Ok(from.kept(context))
}

pub(super) fn put_operation(out: &mut BytesMut, operation: Option<&OperationId>) {
    put_bytes16(out, operation.map_or(&[], OperationId::as_bytes));
}

pub(super) fn get_operation(from: &mut Reader) -> Result<Option<OperationId>> {
    let id = from.bytes16("operation id", usize::from(u16::MAX))?;
    Ok((!id.is_empty()).then(|| OperationId::new(id)).transpose()?)
}
