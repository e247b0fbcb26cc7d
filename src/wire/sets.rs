//! The spelling of causality: one for the log, the store, snapshots and peers.
//!
//! ```text
//! dot      = actor u64, counter u64
//! vector   = count u32, dots by actor
//! version  = dot, flags u8, written_at u64, [expires_at u64], [id length u16, id, digest u64], [length u32, value]
//!            flags: 1 a value, 2 an expiry, 4 an operation
//! set      = vector, count u32, versions by dot
//! context  = vector, count u32, dots
//! update   = version, vector (upon), tag u8 (0 held, 1 nothing, 2 seen), [context]
//! remember = id length u16, id, digest u64, dot, written_at u64, count u32, dots (superseded), context
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use super::reader::{Reader, Result, WireError, put_bytes16, put_bytes32, put_count};
use crate::protocol::causality::{Context, Operation, Siblings, Supersedes, Update, UpdateRef, Version, VersionVector};
use crate::protocol::config::{
    CLOCK_ENTRIES_DECODED_MAX, OPERATION_ID_BYTES_MAX, SIBLINGS_DECODED_MAX, VALUE_BYTES_MAX,
};
use crate::protocol::replica::Remembered;
use crate::protocol::types::{ActorId, Dot, OperationId, Value, WallTime};

const HAS_VALUE: u8 = 1;
const HAS_EXPIRY: u8 = 2;
const HAS_OPERATION: u8 = 4;

const DOT_BYTES: usize = 16;
const VERSION_BYTES_MIN: usize = DOT_BYTES + 1 + 8;

/// Spells a set.
pub fn encode_set(set: &Siblings) -> Bytes {
    let mut out = BytesMut::with_capacity(set.bytes() + 32);
    put_set(&mut out, set);
    out.freeze()
}

/// Reads a set that fills `bytes`.
///
/// # Errors
/// Any [`WireError`].
pub fn decode_set(bytes: &[u8]) -> Result<Siblings> {
    let mut reader = Reader::new(bytes);
    let set = get_set(&mut reader)?;
    reader.end()?;
    Ok(set)
}

/// Spells a set behind what is there.
pub fn put_set(out: &mut impl BufMut, set: &Siblings) {
    put_vector(out, set.vector());
    put_count(out, set.versions().len());
    set.versions().iter().for_each(|version| put_version(out, version));
}

/// Reads a set.
///
/// # Errors
/// Any [`WireError`].
pub fn get_set(from: &mut Reader) -> Result<Siblings> {
    let vector = get_vector(from)?;
    let count = from.count("versions", SIBLINGS_DECODED_MAX, VERSION_BYTES_MIN)?;
    let versions = (0..count).map(|_| get_version(from)).collect::<Result<Vec<_>>>()?;
    Ok(Siblings::new(vector, versions)?)
}

/// Spells an update.
pub fn put_update(out: &mut impl BufMut, update: UpdateRef<'_>) {
    put_version(out, update.version);
    put_vector(out, update.upon);
    match update.supersedes {
        Supersedes::Held => out.put_u8(0),
        Supersedes::Nothing => out.put_u8(1),
        Supersedes::Seen(context) => {
            out.put_u8(2);
            put_context(out, context);
        }
    }
}

/// Reads an update.
///
/// # Errors
/// Any [`WireError`].
pub fn get_update(from: &mut Reader) -> Result<Update> {
    let version = get_version(from)?;
    let upon = get_vector(from)?;
    let supersedes = match from.u8("supersedes")? {
        0 => Supersedes::Held,
        1 => Supersedes::Nothing,
        2 => Supersedes::Seen(get_context(from)?),
        tag => {
            return Err(WireError::Unknown { what: "supersedes", tag: tag.into() });
        }
    };
    Ok(Update { version, upon, supersedes })
}

/// Spells what is remembered of an operation.
pub fn put_remembered(out: &mut impl BufMut, remembered: &Remembered) {
    put_operation(out, &remembered.operation);
    put_dot(out, remembered.dot);
    out.put_u64_le(remembered.written_at.0);
    put_dots(out, remembered.superseded.iter().copied());
    put_context(out, &remembered.context);
}

/// Reads what is remembered of an operation.
///
/// # Errors
/// Any [`WireError`].
pub fn get_remembered(from: &mut Reader) -> Result<Remembered> {
    let operation = get_operation(from)?;
    let dot = get_dot(from)?;
    let written_at = WallTime(from.u64("written at")?);
    let superseded = get_dots(from, SIBLINGS_DECODED_MAX)?;
    let context = get_context(from)?;
    Ok(Remembered { operation, dot, written_at, superseded, context })
}

/// Spells a dot.
pub fn put_dot(out: &mut impl BufMut, dot: Dot) {
    out.put_u64_le(dot.actor.0);
    out.put_u64_le(dot.counter);
}

/// Reads a dot.
///
/// # Errors
/// Any [`WireError`].
pub fn get_dot(from: &mut Reader) -> Result<Dot> {
    Ok(Dot { actor: ActorId(from.u64("actor")?), counter: from.u64("counter")? })
}

/// Spells a count and as many dots.
pub fn put_dots(out: &mut impl BufMut, dots: impl ExactSizeIterator<Item = Dot>) {
    put_count(out, dots.len());
    dots.for_each(|dot| put_dot(out, dot));
}

/// Reads a count and as many dots, at most `max`.
///
/// # Errors
/// Any [`WireError`].
pub fn get_dots(from: &mut Reader, max: usize) -> Result<SmallVec<[Dot; 1]>> {
    let count = from.count("dots", max, DOT_BYTES)?;
    (0..count).map(|_| get_dot(from)).collect()
}

/// Bytes that [`put_set`] writes.
pub(super) fn set_bytes(set: &Siblings) -> usize {
    vector_bytes(set.vector()) + 4 + set.versions().iter().map(version_bytes).sum::<usize>()
}

/// Bytes that [`put_update`] writes.
pub(super) fn update_bytes(update: UpdateRef<'_>) -> usize {
    let seen = match update.supersedes {
        Supersedes::Held | Supersedes::Nothing => 0,
        Supersedes::Seen(context) => context_bytes(context),
    };
    version_bytes(update.version) + vector_bytes(update.upon) + 1 + seen
}

/// Bytes that [`put_remembered`] writes.
pub(super) fn remembered_bytes(remembered: &Remembered) -> usize {
    let superseded = 4 + DOT_BYTES * remembered.superseded.len();
    operation_bytes(&remembered.operation) + DOT_BYTES + 8 + superseded + context_bytes(&remembered.context)
}

fn version_bytes(version: &Version) -> usize {
    let expires_at = version.expires_at.map_or(0, |_| 8);
    let operation = version.operation.as_ref().map_or(0, |operation| operation_bytes(operation));
    VERSION_BYTES_MIN + expires_at + operation + version.value.as_ref().map_or(0, |value| 4 + value.len())
}

fn operation_bytes(operation: &Operation) -> usize {
    2 + operation.id.as_bytes().len() + 8
}

fn context_bytes(context: &Context) -> usize {
    vector_bytes(context.vector()) + 4 + DOT_BYTES * context.dots().len()
}

fn vector_bytes(vector: &VersionVector) -> usize {
    4 + DOT_BYTES * vector.len()
}

fn put_version(out: &mut impl BufMut, version: &Version) {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    put_dot(out, version.dot);
    out.put_u8(
        flag(version.value.is_some(), HAS_VALUE)
            | flag(version.expires_at.is_some(), HAS_EXPIRY)
            | flag(version.operation.is_some(), HAS_OPERATION),
    );
    out.put_u64_le(version.written_at.0);
    if let Some(expires_at) = version.expires_at {
        out.put_u64_le(expires_at.0);
    }
    if let Some(operation) = &version.operation {
        put_operation(out, operation);
    }
    if let Some(value) = &version.value {
        put_bytes32(out, value.as_bytes());
    }
}

fn get_version(from: &mut Reader) -> Result<Version> {
    let dot = get_dot(from)?;
    let flags = from.u8("version flags")?;
    if flags & !(HAS_VALUE | HAS_EXPIRY | HAS_OPERATION) != 0 {
        return Err(WireError::Unknown { what: "version flags", tag: flags.into() });
    }
    let written_at = WallTime(from.u64("written at")?);
    let expires_at = if flags & HAS_EXPIRY == 0 { None } else { Some(WallTime(from.u64("expires at")?)) };
    let operation = if flags & HAS_OPERATION == 0 { None } else { Some(Box::new(get_operation(from)?)) };
    let value = match flags & HAS_VALUE {
        0 => None,
        _ => Some(get_value(from)?),
    };
    Ok(Version { dot, value, written_at, expires_at, operation })
}

fn get_value(from: &mut Reader) -> Result<Value> {
    let value = from.bytes32("value", VALUE_BYTES_MAX)?;
    Ok(Value::new(from.kept(value))?)
}

pub(super) fn put_operation(out: &mut impl BufMut, operation: &Operation) {
    put_bytes16(out, operation.id.as_bytes());
    out.put_u64_le(operation.digest);
}

pub(super) fn get_operation(from: &mut Reader) -> Result<Operation> {
    let id = from.bytes16("operation id", OPERATION_ID_BYTES_MAX)?;
    Ok(Operation { id: OperationId::new(id)?, digest: from.u64("operation digest")? })
}

fn put_vector(out: &mut impl BufMut, vector: &VersionVector) {
    put_dots(out, vector.dots());
}

fn get_vector(from: &mut Reader) -> Result<VersionVector> {
    Ok(get_dots(from, CLOCK_ENTRIES_DECODED_MAX)?.into_iter().collect())
}

fn put_context(out: &mut impl BufMut, context: &Context) {
    put_vector(out, context.vector());
    put_dots(out, context.dots().iter().copied());
}

fn get_context(from: &mut Reader) -> Result<Context> {
    let vector = get_vector(from)?;
    let dots = get_dots(from, CLOCK_ENTRIES_DECODED_MAX)?;
    Ok(Context::from_parts(vector, dots))
}
