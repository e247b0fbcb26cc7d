//! Answers: what a node says to a call.
//!
//! ```text
//! kind  body
//! 0x81  found     level, context, count u32, as often: dot, written_at u64, value
//! 0x82  written   level, flags u8 (1 remembered), dot, written_at u64, context, count u32, dots (superseded)
//! 0x84  copies    context, count u32, as often: dot, node length u16, node, written_at u64, operation,
//!                                               flags u8 (1 a value), [value]
//! 0x85  page      flags u8 (1 more), count u32, keys
//! 0x86  many      count u32, as often: kind u8 (0x81, 0x82 or 0xff), body
//! 0x87  pong
//! 0x88  info      name length u16, name, version length u16, version, cluster u128, cores u16, core u16, salt u64,
//!                 partitions u16, uptime_ms u64
//! 0x89  ring      see `ring`
//! 0xff  failure   see `failure`
//!
//! level   = n u8, quorum u8, owners u8, fallbacks u8, flags u8 (1 hedged)
//! dot     = actor u64, counter u64
//! context = length u32, bytes
//! ```
//! The rest as in `call`.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use super::call::{get_context, get_key, get_operation, get_value, put_operation};
use super::failure::{FAILURE_BYTES_MAX, get_failure, put_failure};
use super::frame::{ANSWER_BYTES_MAX, CallId, FRAME_BYTES, Frame, put_frame};
use super::hello::NAME_BYTES_MAX;
use super::reader::{Reader, Result, WireError, put_bytes16, put_bytes32, put_count, put_text};
use super::ring::{get_map, put_map};
use super::sets::{get_dot, get_dots, put_dot, put_dots};
use crate::protocol::config::{BATCH_KEYS_MAX, PAGE_KEYS_MAX, SIBLINGS_DECODED_MAX};
use crate::protocol::message::{
    Answer, Copies, Copy, Failure, Found, Level, NodeInfo, Outcome, Page, Reply, Sibling, Written,
};
use crate::protocol::types::{ClusterId, CoreId, WallTime};

pub(super) const FOUND: u8 = 0x81;
pub(super) const WRITTEN: u8 = 0x82;
const COPIES: u8 = 0x84;
const PAGE: u8 = 0x85;
const MANY: u8 = 0x86;
const PONG: u8 = 0x87;
const INFO: u8 = 0x88;
const RING: u8 = 0x89;
pub(super) const FAILURE: u8 = 0xff;

const SET: u8 = 1;

const DOT_BYTES: usize = 16;
pub(super) const LEVEL_BYTES: usize = 5;
const SIBLING_BYTES_MIN: usize = DOT_BYTES + 8 + 4;
const COPY_BYTES_MIN: usize = DOT_BYTES + 2 + 8 + 2 + 1;

/// Writes one frame behind what is there; nothing else is allocated for a reply. An outcome that does not fit in the
/// frame becomes [`Failure::ReplyTooLarge`] in its place: what was asked has been done, and its neighbours are heard.
pub fn encode_answer(out: &mut BytesMut, id: CallId, answer: &Answer) {
    match answer {
        Answer::One(outcome) => {
            let (outcome, bytes) = fitting(outcome, ANSWER_BYTES_MAX - FRAME_BYTES);
            out.reserve(FRAME_BYTES + bytes);
            put_frame(out, id, outcome_kind(&outcome), |out| put_outcome(out, &outcome));
        }
        Answer::Many(outcomes) => put_frame(out, id, MANY, |out| put_many(out, outcomes)),
        Answer::Pong => put_frame(out, id, PONG, |_| {}),
        Answer::Info(info) => put_frame(out, id, INFO, |out| put_info(out, info)),
        Answer::Ring(map) => put_frame(out, id, RING, |out| put_map(out, map)),
    }
}

/// Each outcome has room for a failure set aside, so that a large one never takes the room of those behind it.
fn put_many(out: &mut BytesMut, outcomes: &[Outcome]) {
    let reserved = outcomes.len() * (1 + FAILURE_BYTES_MAX);
    let mut room = (ANSWER_BYTES_MAX - FRAME_BYTES - 4).saturating_sub(reserved);
    put_count(out, outcomes.len());
    for outcome in outcomes {
        let (outcome, bytes) = fitting(outcome, room);
        room = room.saturating_sub(bytes);
        out.reserve(1 + bytes);
        out.put_u8(outcome_kind(&outcome));
        put_outcome(out, &outcome);
    }
}

/// The outcome, or the failure in the place of a reply that finds no room, and the bytes that it takes.
pub(super) fn fitting(outcome: &Outcome, room: usize) -> (Cow<'_, Outcome>, usize) {
    let bytes = outcome_bytes(outcome);
    if outcome.is_err() || bytes <= room {
        return (Cow::Borrowed(outcome), bytes);
    }
    let refused = Failure::ReplyTooLarge { bytes: bytes as u64, max: ANSWER_BYTES_MAX as u64 };
    (Cow::Owned(Err(refused)), FAILURE_BYTES_MAX)
}

/// Bytes of a reply, exactly; of a failure, at most.
pub(super) fn outcome_bytes(outcome: &Outcome) -> usize {
    match outcome {
        Ok(Reply::Found(found)) => {
            let siblings = found.siblings.iter().map(|sibling| SIBLING_BYTES_MIN + sibling.value.len());
            LEVEL_BYTES + 4 + found.context.len() + 4 + siblings.sum::<usize>()
        }
        Ok(Reply::Written(written)) => {
            let superseded = DOT_BYTES * written.superseded.len();
            LEVEL_BYTES + 1 + DOT_BYTES + 8 + 4 + written.context.len() + 4 + superseded
        }
        Ok(Reply::Siblings(copies)) => {
            4 + copies.context.len() + 4 + copies.copies.iter().map(copy_bytes).sum::<usize>()
        }
        Ok(Reply::Keys(page)) => 1 + 4 + page.keys.iter().map(|key| 2 + key.as_bytes().len()).sum::<usize>(),
        Err(_) => FAILURE_BYTES_MAX,
    }
}

fn copy_bytes(copy: &Copy) -> usize {
    let node = copy.node.floor_char_boundary(NAME_BYTES_MAX);
    let operation = copy.operation.as_ref().map_or(0, |id| id.as_bytes().len());
    COPY_BYTES_MIN + node + operation + copy.value.as_ref().map_or(0, |value| 4 + value.len())
}

pub(super) fn outcome_kind(outcome: &Outcome) -> u8 {
    match outcome {
        Ok(Reply::Found(_)) => FOUND,
        Ok(Reply::Written(_)) => WRITTEN,
        Ok(Reply::Siblings(_)) => COPIES,
        Ok(Reply::Keys(_)) => PAGE,
        Err(_) => FAILURE,
    }
}

pub(super) fn put_outcome(out: &mut BytesMut, outcome: &Outcome) {
    match outcome {
        Ok(Reply::Found(found)) => put_found(out, found),
        Ok(Reply::Written(written)) => put_written(out, written),
        Ok(Reply::Siblings(copies)) => put_copies(out, copies),
        Ok(Reply::Keys(page)) => put_page(out, page),
        Err(failure) => put_failure(out, failure),
    }
}

/// Reads an answer.
///
/// # Errors
/// Any [`WireError`].
pub fn decode_answer(mut frame: Frame<'_>) -> Result<Answer> {
    let body = &mut frame.body;
    let answer = match frame.kind {
        MANY => {
            let count = body.count("batch", BATCH_KEYS_MAX, 1)?;
            Answer::Many((0..count).map(|_| get_batched(body)).collect::<Result<_>>()?)
        }
        PONG => Answer::Pong,
        INFO => Answer::Info(get_info(body)?),
        RING => Answer::Ring(get_map(body)?),
        kind => Answer::One(get_outcome(body, kind)?),
    };
    body.end()?;
    Ok(answer)
}

fn get_batched(from: &mut Reader) -> Result<Outcome> {
    let kind = from.u8("kind in a batch")?;
    get_outcome(from, kind)
}

pub(super) fn get_outcome(from: &mut Reader, kind: u8) -> Result<Outcome> {
    Ok(match kind {
        FOUND => Ok(Reply::Found(get_found(from)?)),
        WRITTEN => Ok(Reply::Written(get_written(from)?)),
        COPIES => Ok(Reply::Siblings(get_copies(from)?)),
        PAGE => Ok(Reply::Keys(get_page(from)?)),
        FAILURE => Err(get_failure(from)?),
        tag => {
            return Err(WireError::Unknown { what: "kind of answer", tag: tag.into() });
        }
    })
}

fn put_found(out: &mut BytesMut, found: &Found) {
    put_level(out, found.level);
    put_bytes32(out, &found.context);
    put_count(out, found.siblings.len());
    for sibling in &found.siblings {
        put_dot(out, sibling.dot);
        out.put_u64_le(sibling.written_at.0);
        put_bytes32(out, sibling.value.as_bytes());
    }
}

fn get_found(from: &mut Reader) -> Result<Found> {
    let level = get_level(from)?;
    let context = get_context(from)?;
    let count = from.count("siblings", SIBLINGS_DECODED_MAX, SIBLING_BYTES_MIN)?;
    let sibling = |from: &mut Reader| {
        Ok(Sibling { dot: get_dot(from)?, written_at: WallTime(from.u64("written at")?), value: get_value(from)? })
    };
    Ok(Found { siblings: (0..count).map(|_| sibling(from)).collect::<Result<_>>()?, context, level })
}

fn put_written(out: &mut BytesMut, written: &Written) {
    put_level(out, written.level);
    out.put_u8(flag(written.remembered));
    put_dot(out, written.dot);
    out.put_u64_le(written.written_at.0);
    put_bytes32(out, &written.context);
    put_dots(out, written.superseded.iter().copied());
}

fn get_written(from: &mut Reader) -> Result<Written> {
    Ok(Written {
        level: get_level(from)?,
        remembered: get_flag(from, "flags of a write")?,
        dot: get_dot(from)?,
        written_at: WallTime(from.u64("written at")?),
        context: get_context(from)?,
        superseded: get_dots(from, SIBLINGS_DECODED_MAX)?,
    })
}

fn put_copies(out: &mut BytesMut, copies: &Copies) {
    put_bytes32(out, &copies.context);
    put_count(out, copies.copies.len());
    for copy in &copies.copies {
        put_dot(out, copy.dot);
        put_text(out, &copy.node, NAME_BYTES_MAX);
        out.put_u64_le(copy.written_at.0);
        put_operation(out, copy.operation.as_ref());
        out.put_u8(flag(copy.value.is_some()));
        if let Some(value) = &copy.value {
            put_bytes32(out, value.as_bytes());
        }
    }
}

fn get_copies(from: &mut Reader) -> Result<Copies> {
    let context = get_context(from)?;
    let count = from.count("copies", SIBLINGS_DECODED_MAX, COPY_BYTES_MIN)?;
    let copy = |from: &mut Reader| {
        Ok(Copy {
            dot: get_dot(from)?,
            node: from.text("node", NAME_BYTES_MAX)?,
            written_at: WallTime(from.u64("written at")?),
            operation: get_operation(from)?,
            value: get_flag(from, "flags of a copy")?.then(|| get_value(from)).transpose()?,
        })
    };
    Ok(Copies { copies: (0..count).map(|_| copy(from)).collect::<Result<_>>()?, context })
}

fn put_page(out: &mut BytesMut, page: &Page) {
    out.put_u8(flag(page.more));
    put_count(out, page.keys.len());
    page.keys.iter().for_each(|key| put_bytes16(out, key.as_bytes()));
}

fn get_page(from: &mut Reader) -> Result<Page> {
    let more = get_flag(from, "flags of a page")?;
    let count = from.count("keys", PAGE_KEYS_MAX, 2 + 1)?;
    Ok(Page { keys: (0..count).map(|_| get_key(from)).collect::<Result<_>>()?, more })
}

fn put_info(out: &mut BytesMut, info: &NodeInfo) {
    put_text(out, &info.name, NAME_BYTES_MAX);
    put_text(out, &info.version, NAME_BYTES_MAX);
    out.put_u128_le(info.cluster.0);
    out.put_u16_le(info.cores);
    out.put_u16_le(info.core.0);
    out.put_u64_le(info.salt);
    out.put_u16_le(info.partitions);
    out.put_u64_le(info.uptime_ms);
}

fn get_info(from: &mut Reader) -> Result<NodeInfo> {
    Ok(NodeInfo {
        name: from.text("name", NAME_BYTES_MAX)?,
        version: from.text("version", NAME_BYTES_MAX)?,
        cluster: ClusterId(from.u128("cluster")?),
        cores: from.u16("cores")?,
        core: CoreId(from.u16("core")?),
        salt: from.u64("salt")?,
        partitions: from.u16("partitions")?,
        uptime_ms: from.u64("uptime")?,
    })
}

fn put_level(out: &mut BytesMut, level: Level) {
    out.put_slice(&[level.n, level.quorum, level.owners, level.fallbacks, flag(level.hedged)]);
}

fn get_level(from: &mut Reader) -> Result<Level> {
    Ok(Level {
        n: from.u8("copies")?,
        quorum: from.u8("quorum")?,
        owners: from.u8("owners")?,
        fallbacks: from.u8("fallbacks")?,
        hedged: get_flag(from, "flags of a level")?,
    })
}

fn flag(set: bool) -> u8 {
    if set { SET } else { 0 }
}

fn get_flag(from: &mut Reader, what: &'static str) -> Result<bool> {
    match from.u8(what)? {
        0 => Ok(false),
        SET => Ok(true),
        tag => Err(WireError::Unknown { what, tag: tag.into() }),
    }
}
