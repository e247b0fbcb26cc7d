//! Asks and what is told: what the cores of two nodes say to each other.
//!
//! ```text
//! kind  ask      body, behind: number u64, hash u64 (the asker's layout), flags u8 (1 reads by it), round u32,
//!                deadline_ms u32 (left)
//! 0x20  store    key, flags u8 (1 stands for, 2 remember), [node u64], update, [remember]
//! 0x21  merge    key, flags u8 (1 stands for), [node u64], set, count u32, as often: remember
//! 0x22  fetch    key, flags u8 (1 known), [digest u64]
//! 0x23  recall   key, id length u16, id, digest u64
//! 0x24  forward  kind u8 (0x01 to 0x04), body of that call
//! 0x25  compare  first u16, bits (of the partitions from the first on; the first and the last are set), digest u64
//! 0x26  tree     partition u16, flags u8 (1 branch), [branch u8]
//! 0x27  pull     partition u16, leaves u64, flags u8 (1 after, 2 through, 4 takes), [key], [key], count u32,
//!                as often: digest u64
//! 0x28  collect  partition u16, round u32, step u8 (0 agree, 1 drain, 2 fence, 3 retire, 4 forget), body of the step:
//!                agree: count u32, as often: key, digest u64; retire and forget: bits
//!
//! kind  told     body
//! 0xa0  stored
//! 0xa1  behind
//! 0xa2  same
//! 0xa3  set      flags u8 (1 heard of), [set]
//! 0xa4  recalled tag u8 (0 unknown, 1 minted, 2 reused), [remember], flags u8 (1 heard of), [set]
//! 0xa5  outcome  kind u8 (0x81 to 0x84, or 0xff), body of that answer
//! 0xa6  refused  reason u8, number u64, hash u64 (of reason 0 the refuser's layout, of 8 its round; else zeros)
//! 0xa7  digests  count u32, as often: u64
//! 0xa8  page     flags u8 (1 next), [key], bits (met), count u32, as often: key, set, count u32, as often: remember
//! 0xa9  collected bits
//! 0xff  failure  the ask was not understood: nothing was done
//! ```
//! Bits are a count u32 and so many bits, the first in the lowest place of its byte. Sets, updates and what is
//! remembered as in `sets`, the rest as in `call` and `answer`. Whoever asks and whoever tells are nodes of one cluster
//! that have proven it, so a frame may be as large as the largest answer, both ways.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::answer::{FAILURE, fitting, get_outcome, outcome_bytes, outcome_kind, put_outcome};
use super::call::{get_key, get_request, put_request, request_bytes, request_kind};
use super::failure::{get_failure, put_failure};
use super::frame::{ANSWER_BYTES_MAX, CallId, FRAME_BYTES, Frame, put_frame};
use super::reader::{Reader, Result, WireError, put_bytes16, put_count};
use super::sets::{
    get_operation, get_remembered, get_set, get_update, put_operation, put_remembered, put_set, put_update,
    remembered_bytes, set_bytes, update_bytes,
};
use super::trees::{
    bits_bytes, get_bits, get_branch, get_collect, get_compare, get_digests, get_page, get_partition, get_pull,
    put_bits, put_collect, put_digests, put_partitions, put_pull, put_some_key, span,
};
use crate::protocol::causality::Siblings;
use crate::protocol::config::SIBLINGS_DECODED_MAX;
use crate::protocol::io::Standing;
use crate::protocol::message::{Failure, Request};
use crate::protocol::peer::{Ask, CollectStep, Known, Merge, Pulled, Recalled, Refused, Store, Told};
use crate::protocol::replica::Remembered;
use crate::protocol::ring::LayoutStamp;
use crate::protocol::types::{Key, NodeId};

const STORE: u8 = 0x20;
const MERGE: u8 = 0x21;
const FETCH: u8 = 0x22;
const RECALL: u8 = 0x23;
const FORWARD: u8 = 0x24;
const COMPARE: u8 = 0x25;
const TREE: u8 = 0x26;
const PULL: u8 = 0x27;
const COLLECT: u8 = 0x28;

const STORED: u8 = 0xa0;
const BEHIND: u8 = 0xa1;
const SAME: u8 = 0xa2;
const SET: u8 = 0xa3;
const RECALLED: u8 = 0xa4;
const OUTCOME: u8 = 0xa5;
const REFUSED: u8 = 0xa6;
const DIGESTS: u8 = 0xa7;
const PAGE: u8 = 0xa8;
const COLLECTED: u8 = 0xa9;

const STANDS_FOR: u8 = 1;
const REMEMBER: u8 = 2;
pub(super) const SOME: u8 = 1;

/// Least bytes of what is remembered of an operation: an id of one byte, its digest, a dot, a time, and clocks of none.
const REMEMBERED_BYTES_MIN: usize = 2 + 1 + 8 + 16 + 8 + 4 + 4 + 4;

/// What stands in front of every ask.
const HEAD_BYTES: usize = 8 + 8 + 1 + 4 + 4;

/// Largest frame that a peer sends or takes: a set of the largest size, merged with some more.
pub const PEER_BYTES_MAX: usize = ANSWER_BYTES_MAX;

/// An ask as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Where the asker stands.
    pub stand: Standing,
    /// Milliseconds that are left for it, from its arrival on.
    pub deadline_ms: u32,
    /// The ask.
    pub ask: Ask,
}

/// An ask that is larger than a frame. Nothing was written behind what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ask has {bytes} bytes, a frame between nodes holds {PEER_BYTES_MAX}")]
pub struct AskTooLarge {
    /// Bytes that the ask takes.
    pub bytes: usize,
}

/// Bytes of the frame of an ask, exactly or a few too many.
pub fn ask_bytes(ask: &Ask) -> usize {
    let key = |key: &Key| 2 + key.as_bytes().len();
    let body = match ask {
        Ask::Store(store) => {
            let remember = store.remember.as_ref().map_or(0, |remember| remembered_bytes(remember));
            key(&store.key) + 1 + 8 + update_bytes(store.update.borrowed()) + remember
        }
        Ask::Merge(merge) => {
            let remember: usize = merge.remember.iter().map(remembered_bytes).sum();
            key(&merge.key) + 1 + 8 + set_bytes(&merge.set) + 4 + remember
        }
        Ask::Fetch { key: of, .. } => key(of) + 1 + 8,
        Ask::Recall { key: of, operation } => key(of) + 2 + operation.id.as_bytes().len() + 8,
        Ask::Forward(request) => request_bytes(request),
        Ask::Compare(compare) => 2 + 4 + span(&compare.partitions).div_ceil(8) + 8,
        Ask::Tree { .. } => 2 + 1 + 1,
        Ask::Pull(pull) => {
            let bounds = [&pull.after, &pull.through].into_iter().flatten().map(key).sum::<usize>();
            2 + 8 + 1 + bounds + 4 + 8 * pull.known.len()
        }
        Ask::Collect(collect) => {
            let step = match &collect.step {
                CollectStep::Agree(keys) => 4 + keys.iter().map(|(of, _)| key(of) + 8).sum::<usize>(),
                CollectStep::Drain | CollectStep::Fence => 0,
                CollectStep::Retire(bits) | CollectStep::Forget(bits) => bits_bytes(bits),
            };
            2 + 4 + 1 + step
        }
    };
    FRAME_BYTES + HEAD_BYTES + body
}

/// Writes one frame behind what is there.
///
/// # Errors
/// [`AskTooLarge`] when the frame would pass [`PEER_BYTES_MAX`].
pub fn encode_ask(
    out: &mut BytesMut,
    id: CallId,
    stand: Standing,
    deadline_ms: u32,
    ask: &Ask,
) -> std::result::Result<(), AskTooLarge> {
    let bytes = ask_bytes(ask);
    if PEER_BYTES_MAX < bytes {
        return Err(AskTooLarge { bytes });
    }
    out.reserve(bytes);
    put_frame(out, id, ask_kind(ask), |out| {
        out.put_u64_le(stand.layout.number);
        out.put_u64_le(stand.layout.hash);
        out.put_u8(stand.reads.into());
        out.put_u32_le(stand.round);
        out.put_u32_le(deadline_ms);
        put_ask(out, ask);
    });
    Ok(())
}

fn ask_kind(ask: &Ask) -> u8 {
    match ask {
        Ask::Store(_) => STORE,
        Ask::Merge(_) => MERGE,
        Ask::Fetch { .. } => FETCH,
        Ask::Recall { .. } => RECALL,
        Ask::Forward(_) => FORWARD,
        Ask::Compare(_) => COMPARE,
        Ask::Tree { .. } => TREE,
        Ask::Pull(_) => PULL,
        Ask::Collect(_) => COLLECT,
    }
}

fn put_ask(out: &mut BytesMut, ask: &Ask) {
    match ask {
        Ask::Store(store) => {
            put_bytes16(out, store.key.as_bytes());
            put_stands_for(out, store.stands_for, if store.remember.is_some() { REMEMBER } else { 0 });
            put_update(out, store.update.borrowed());
            if let Some(remember) = &store.remember {
                put_remembered(out, remember);
            }
        }
        Ask::Merge(merge) => {
            put_bytes16(out, merge.key.as_bytes());
            put_stands_for(out, merge.stands_for, 0);
            put_set(out, &merge.set);
            put_count(out, merge.remember.len());
            merge.remember.iter().for_each(|remembered| put_remembered(out, remembered));
        }
        Ask::Fetch { key, known } => {
            put_bytes16(out, key.as_bytes());
            out.put_u8(if known.is_some() { SOME } else { 0 });
            if let Some(digest) = known {
                out.put_u64_le(*digest);
            }
        }
        Ask::Recall { key, operation } => {
            put_bytes16(out, key.as_bytes());
            put_operation(out, operation);
        }
        Ask::Forward(request) => {
            out.put_u8(request_kind(request));
            put_request(out, request);
        }
        Ask::Compare(compare) => {
            put_partitions(out, &compare.partitions);
            out.put_u64_le(compare.digest);
        }
        Ask::Tree { partition, branch } => {
            out.put_u16_le(partition.0);
            out.put_u8(if branch.is_some() { SOME } else { 0 });
            branch.iter().for_each(|branch| out.put_u8(*branch));
        }
        Ask::Pull(pull) => put_pull(out, pull),
        Ask::Collect(collect) => put_collect(out, collect),
    }
}

/// Reads an ask. What is kept of it holds no more memory than it needs ([`Reader::kept`]).
///
/// # Errors
/// Any [`WireError`]. The frame is over, so it can be answered by a failure and the next one read.
pub fn decode_ask(mut frame: Frame<'_>) -> Result<Question> {
    let body = &mut frame.body;
    if !(STORE..=COLLECT).contains(&frame.kind) {
        return Err(WireError::Unknown { what: "kind of ask", tag: frame.kind.into() });
    }
    let stand = Standing { layout: get_stamp(body)?, reads: get_some(body)?, round: body.u32("round")? };
    let deadline_ms = body.u32("deadline")?;
    let ask = match frame.kind {
        STORE => Ask::Store(Arc::new(get_store(body)?)),
        MERGE => {
            let key = get_key(body)?;
            let (stands_for, _) = get_stands_for(body, STANDS_FOR)?;
            let set = Arc::new(get_set(body)?);
            Ask::Merge(Merge { key, set, remember: get_remembers(body)?, stands_for })
        }
        FETCH => {
            let key = get_key(body)?;
            Ask::Fetch { key, known: get_some(body)?.then(|| body.u64("digest")).transpose()? }
        }
        RECALL => Ask::Recall { key: get_key(body)?, operation: get_operation(body)? },
        FORWARD => Ask::Forward(Box::new(get_forwarded(body)?)),
        COMPARE => Ask::Compare(get_compare(body)?),
        TREE => Ask::Tree {
            partition: get_partition(body)?,
            branch: get_some(body)?.then(|| get_branch(body)).transpose()?,
        },
        PULL => Ask::Pull(Box::new(get_pull(body)?)),
        _ => Ask::Collect(Box::new(get_collect(body)?)),
    };
    body.end()?;
    Ok(Question { stand, deadline_ms, ask })
}

fn get_store(from: &mut Reader) -> Result<Store> {
    let key = get_key(from)?;
    let (stands_for, flags) = get_stands_for(from, STANDS_FOR | REMEMBER)?;
    let update = get_update(from)?;
    let remember = if flags & REMEMBER == 0 { None } else { Some(Box::new(get_remembered(from)?)) };
    Ok(Store { key, update, remember, stands_for })
}

/// A listing is of one node's own keys, and is never forwarded.
fn get_forwarded(from: &mut Reader) -> Result<Request> {
    let kind = from.u8("kind in a forward")?;
    match get_request(from, kind)? {
        Request::Keys(_) => Err(WireError::Unknown { what: "kind in a forward", tag: kind.into() }),
        request => Ok(request),
    }
}

fn put_stands_for(out: &mut BytesMut, node: Option<NodeId>, flags: u8) {
    out.put_u8(flags | if node.is_some() { STANDS_FOR } else { 0 });
    if let Some(node) = node {
        out.put_u64_le(node.0);
    }
}

fn get_stands_for(from: &mut Reader, allowed: u8) -> Result<(Option<NodeId>, u8)> {
    let flags = from.u8("flags of an ask")?;
    if flags & !allowed != 0 {
        return Err(WireError::Unknown { what: "flags of an ask", tag: flags.into() });
    }
    let node = if flags & STANDS_FOR == 0 { None } else { Some(NodeId(from.u64("node")?)) };
    Ok((node, flags))
}

/// Writes one frame behind what is there. What does not fit in the frame becomes a refusal, or, of an outcome, the
/// failure that says so.
pub fn encode_told(out: &mut BytesMut, id: CallId, told: &Told) {
    let told = fitting_told(told);
    out.reserve(FRAME_BYTES + told_bytes(&told));
    put_frame(out, id, told_kind(&told), |out| put_told(out, &told));
}

fn fitting_told(told: &Told) -> Cow<'_, Told> {
    let room = PEER_BYTES_MAX - FRAME_BYTES;
    match told {
        Told::Outcome(outcome) => match fitting(outcome, room - 1) {
            (Cow::Borrowed(_), _) => Cow::Borrowed(told),
            (Cow::Owned(refused), _) => Cow::Owned(Told::Outcome(Box::new(refused))),
        },
        told if room < told_bytes(told) => Cow::Owned(Told::Refused(Refused::Unreadable)),
        told => Cow::Borrowed(told),
    }
}

/// Says that an ask was not understood. Under [`CallId::NONE`]: that no frame can be read any more.
pub fn encode_misunderstood(out: &mut BytesMut, id: CallId, failure: &Failure) {
    put_frame(out, id, FAILURE, |out| put_failure(out, failure));
}

fn told_kind(told: &Told) -> u8 {
    match told {
        Told::Stored => STORED,
        Told::Behind => BEHIND,
        Told::Same => SAME,
        Told::Set(_) => SET,
        Told::Recalled(_) => RECALLED,
        Told::Outcome(_) => OUTCOME,
        Told::Refused(_) => REFUSED,
        Told::Digests(_) => DIGESTS,
        Told::Page(_) => PAGE,
        Told::Collected(_) => COLLECTED,
    }
}

fn told_bytes(told: &Told) -> usize {
    let some_set = |set: &Option<Arc<Siblings>>| 1 + set.as_ref().map_or(0, |set| set_bytes(set));
    match told {
        Told::Stored | Told::Behind | Told::Same => 0,
        Told::Set(set) => some_set(set),
        Told::Recalled(recalled) => {
            let known = match &recalled.known {
                Known::Minted(remembered) => remembered_bytes(remembered),
                Known::Unknown | Known::Reused => 0,
            };
            1 + known + some_set(&recalled.set)
        }
        Told::Outcome(outcome) => 1 + outcome_bytes(outcome),
        Told::Refused(_) => 1 + 16,
        Told::Digests(digests) => 4 + 8 * digests.len(),
        Told::Page(page) => {
            let pulled = |pulled: &Pulled| {
                let remember: usize = pulled.remember.iter().map(remembered_bytes).sum();
                2 + pulled.key.as_bytes().len() + set_bytes(&pulled.set) + 4 + remember
            };
            let next = page.next.as_ref().map_or(0, |key| 2 + key.as_bytes().len());
            1 + next + bits_bytes(&page.met) + 4 + page.sets.iter().map(pulled).sum::<usize>()
        }
        Told::Collected(bits) => bits_bytes(bits),
    }
}

fn put_told(out: &mut BytesMut, told: &Told) {
    match told {
        Told::Stored | Told::Behind | Told::Same => {}
        Told::Set(set) => put_some_set(out, set.as_deref()),
        Told::Recalled(recalled) => {
            match &recalled.known {
                Known::Unknown => out.put_u8(0),
                Known::Minted(remembered) => {
                    out.put_u8(1);
                    put_remembered(out, remembered);
                }
                Known::Reused => out.put_u8(2),
            }
            put_some_set(out, recalled.set.as_deref());
        }
        Told::Outcome(outcome) => {
            out.put_u8(outcome_kind(outcome));
            put_outcome(out, outcome);
        }
        Told::Refused(refused) => put_refused(out, *refused),
        Told::Digests(digests) => put_digests(out, digests),
        Told::Page(page) => {
            put_some_key(out, page.next.as_ref());
            put_bits(out, &page.met);
            put_count(out, page.sets.len());
            for Pulled { key, set, remember } in &page.sets {
                put_bytes16(out, key.as_bytes());
                put_set(out, set);
                put_count(out, remember.len());
                remember.iter().for_each(|remembered| put_remembered(out, remembered));
            }
        }
        Told::Collected(bits) => put_bits(out, bits),
    }
}

/// Reads what is told: a failure says that the ask was not understood, and nothing was done.
///
/// # Errors
/// Any [`WireError`].
pub fn decode_told(mut frame: Frame<'_>) -> Result<std::result::Result<Told, Failure>> {
    let body = &mut frame.body;
    let told = match frame.kind {
        STORED => Told::Stored,
        BEHIND => Told::Behind,
        SAME => Told::Same,
        SET => Told::Set(get_some_set(body)?),
        RECALLED => Told::Recalled(Box::new(Recalled { known: get_known(body)?, set: get_some_set(body)? })),
        OUTCOME => {
            let kind = body.u8("kind of an outcome")?;
            Told::Outcome(Box::new(get_outcome(body, kind)?))
        }
        REFUSED => Told::Refused(get_refused(body)?),
        DIGESTS => Told::Digests(get_digests(body)?),
        PAGE => Told::Page(Box::new(get_page(body)?)),
        COLLECTED => Told::Collected(get_bits(body)?),
        FAILURE => {
            let failure = get_failure(body)?;
            body.end()?;
            return Ok(Err(failure));
        }
        tag => return Err(WireError::Unknown { what: "kind of what is told", tag: tag.into() }),
    };
    body.end()?;
    Ok(Ok(told))
}

fn get_known(from: &mut Reader) -> Result<Known> {
    match from.u8("what is known")? {
        0 => Ok(Known::Unknown),
        1 => Ok(Known::Minted(Box::new(get_remembered(from)?))),
        2 => Ok(Known::Reused),
        tag => Err(WireError::Unknown { what: "what is known", tag: tag.into() }),
    }
}

fn put_some_set(out: &mut BytesMut, set: Option<&Siblings>) {
    out.put_u8(if set.is_some() { SOME } else { 0 });
    if let Some(set) = set {
        put_set(out, set);
    }
}

fn get_some_set(from: &mut Reader) -> Result<Option<Arc<Siblings>>> {
    Ok(get_some(from)?.then(|| get_set(from)).transpose()?.map(Arc::new))
}

pub(super) fn get_some(from: &mut Reader) -> Result<bool> {
    match from.u8("flags between nodes")? {
        0 => Ok(false),
        SOME => Ok(true),
        tag => Err(WireError::Unknown { what: "flags between nodes", tag: tag.into() }),
    }
}

fn put_refused(out: &mut BytesMut, refused: Refused) {
    let (reason, stamp) = match refused {
        Refused::Layout(stamp) => (0, stamp),
        Refused::Overloaded => (1, LayoutStamp::default()),
        Refused::DiskFull => (2, LayoutStamp::default()),
        Refused::WritesStopped => (3, LayoutStamp::default()),
        Refused::HintsFull => (4, LayoutStamp::default()),
        Refused::Unreadable => (5, LayoutStamp::default()),
        Refused::Stopping => (6, LayoutStamp::default()),
        Refused::TooLate => (7, LayoutStamp::default()),
        Refused::Round(round) => (8, LayoutStamp { number: round.into(), hash: 0 }),
        Refused::Hollow => (9, LayoutStamp::default()),
    };
    out.put_u8(reason);
    out.put_u64_le(stamp.number);
    out.put_u64_le(stamp.hash);
}

fn get_refused(from: &mut Reader) -> Result<Refused> {
    let reason = from.u8("reason of a refusal")?;
    let stamp = get_stamp(from)?;
    Ok(match reason {
        0 => Refused::Layout(stamp),
        1 => Refused::Overloaded,
        2 => Refused::DiskFull,
        3 => Refused::WritesStopped,
        4 => Refused::HintsFull,
        5 => Refused::Unreadable,
        6 => Refused::Stopping,
        7 => Refused::TooLate,
        8 => match u32::try_from(stamp.number) {
            Ok(round) => Refused::Round(round),
            Err(_) => return Err(WireError::Unknown { what: "round", tag: stamp.number }),
        },
        9 => Refused::Hollow,
        tag => return Err(WireError::Unknown { what: "reason of a refusal", tag: tag.into() }),
    })
}

pub(super) fn get_remembers(from: &mut Reader) -> Result<Vec<Remembered>> {
    let count = from.count("remembers", SIBLINGS_DECODED_MAX, REMEMBERED_BYTES_MIN)?;
    (0..count).map(|_| get_remembered(from)).collect()
}

fn get_stamp(from: &mut Reader) -> Result<LayoutStamp> {
    Ok(LayoutStamp { number: from.u64("layout number")?, hash: from.u64("layout hash")? })
}
