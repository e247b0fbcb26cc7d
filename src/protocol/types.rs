//! The words of the protocol: ids, keys, values and our own time, each a type of its own so that none can be taken
//! for another.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Add;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::config::{KEY_BYTES_MAX, OPERATION_ID_BYTES_MAX, VALUE_BYTES_MAX};

/// A point on the monotonic clock of one process, in microseconds since it started. Never sent, never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// Time gone by since `earlier`; zero when `earlier` is the later one.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, wait: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Milliseconds since 1970 by the wall clock of the node that wrote. For show and for last-write-wins readers only:
/// no decision of the protocol hangs on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct WallTime(pub u64);

/// Both clocks, read once by the caller for each input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// The monotonic clock: deadlines and timers.
    pub instant: Instant,
    /// The wall clock: the `written_at` of versions.
    pub wall: WallTime,
}

/// A length outside of its bounds. Nothing was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} has {bytes} bytes, allowed are {min} to {max}")]
pub struct LengthError {
    /// What was measured: "key", "value", "operation id".
    pub what: &'static str,
    /// The length found.
    pub bytes: usize,
    /// The least that is allowed.
    pub min: usize,
    /// The most that is allowed.
    pub max: usize,
}

fn within(what: &'static str, bytes: usize, min: usize, max: usize) -> Result<(), LengthError> {
    if (min..=max).contains(&bytes) { Ok(()) } else { Err(LengthError { what, bytes, min, max }) }
}

/// Keys up to this length stand in the struct itself: they are copied without an allocation and without an atomic.
/// With its length and the tag beside it such a key fills four words, as a buffer and its owner would.
const KEY_BYTES_INLINE: usize = 30;

const _: () = assert!(size_of::<Key>() == 32);

/// A key: 1 to [`KEY_BYTES_MAX`] bytes of any kind. It has memory of its own, or none beside itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(KeyBytes);

/// Equal bytes stand in the same variant, and what a short key does not fill is zero: so equality may be derived.
#[derive(Clone, PartialEq, Eq)]
enum KeyBytes {
    Short { length: u8, bytes: [u8; KEY_BYTES_INLINE] },
    Long(Arc<[u8]>),
}

impl Key {
    /// Checks the bounds, then copies.
    ///
    /// # Errors
    /// [`LengthError`] for an empty or too long key.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Key, LengthError> {
        let bytes = bytes.as_ref();
        within("key", bytes.len(), 1, KEY_BYTES_MAX)?;
        Ok(Key(match u8::try_from(bytes.len()) {
            Ok(length) if bytes.len() <= KEY_BYTES_INLINE => {
                let mut short = [0; KEY_BYTES_INLINE];
                short[..bytes.len()].copy_from_slice(bytes);
                KeyBytes::Short { length, bytes: short }
            }
            _ => KeyBytes::Long(bytes.into()),
        }))
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            KeyBytes::Short { length, bytes } => &bytes[..usize::from(*length)],
            KeyBytes::Long(bytes) => bytes,
        }
    }
}

/// By bytes, wherever they stand.
impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// As text where the key is printable, with `\xNN` for what is not.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// A value: 0 to [`VALUE_BYTES_MAX`] bytes. An empty value is a value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Value(Bytes);

impl Value {
    /// Checks the bound.
    ///
    /// # Errors
    /// [`LengthError`] for a value that is too long.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Value, LengthError> {
        let bytes = bytes.into();
        within("value", bytes.len(), 0, VALUE_BYTES_MAX)?;
        Ok(Value(bytes))
    }

    /// The bytes of the value.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The shared buffer behind the value.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the value has no bytes (which is a value all the same).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(32)];
        write!(f, "\"{}\"", shown.escape_ascii())?;
        if shown.len() < self.0.len() { write!(f, "..({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

/// Names one operation of a client for retries: 1 to [`OPERATION_ID_BYTES_MAX`] bytes, unique by key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(Arc<[u8]>);

impl OperationId {
    /// Checks the bounds, then copies.
    ///
    /// # Errors
    /// [`LengthError`] for an empty or too long id.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<OperationId, LengthError> {
        let bytes = bytes.as_ref();
        within("operation id", bytes.len(), 1, OPERATION_ID_BYTES_MAX)?;
        Ok(OperationId(bytes.into()))
    }

    /// The bytes of the id.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// Who mints dots: 64 random bits, drawn by a core for one life (DESIGN "Data and causality": no actor ever claims dots
/// that it has forgotten).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorId(pub u64);

impl fmt::Debug for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// The name of one version for ever: the actor and its count of writes, over all keys, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who minted it.
    pub actor: ActorId,
    /// Which of its writes it was; never 0.
    pub counter: u64,
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.actor, self.counter)
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// 128 random bits that a cluster draws when it is founded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A node of a cluster: seahash of its name, which no two nodes share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The id of the node of this name.
    pub fn of(name: &str) -> NodeId {
        NodeId(seahash::hash(name.as_bytes()))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A data core of one node, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u16);

impl CoreId {
    /// As an index into the node's cores.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for CoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Which start of which core wrote a log. Every start writes logs of its own (docs/STORAGE.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The data directory's count of starts when the log was written, from 1.
    pub start: u64,
    /// The core that wrote it.
    pub core: CoreId,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "start {} core {}", self.start, self.core)
    }
}

/// One request on its way through one core; the runtime knows whom to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One look at the trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SurveyId(pub u64);

/// One page of a scan on its way from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScanId(pub u64);

/// One question on its way to a peer and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// One question of a peer on its way through one core; the runtime knows whom to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(pub u64);

/// One look-up on its way to the store and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadId(pub u64);

/// One record on its way to the log, in the order in which a core appends; from 1, without gaps. It is the record's
/// sequence number in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AppendId(pub u64);

impl AppendId {
    /// The one after this.
    #[must_use]
    pub fn next(self) -> AppendId {
        AppendId(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use proptest::prelude::*;

    use super::*;

    /// Lengths on both sides of the inline bound, and few different bytes: equal ones and prefixes come up.
    fn key_bytes() -> impl Strategy<Value = Vec<u8>> {
        let ends = prop::collection::vec(prop_oneof![Just(0), Just(1), any::<u8>()], 1..4);
        (prop_oneof![0..3_usize, 25..34_usize], ends).prop_map(|(length, end)| [vec![0; length], end].concat())
    }

    proptest! {
        #[test]
        fn a_key_is_compared_and_hashed_as_its_bytes(one in key_bytes(), other in key_bytes()) {
            let (key, other_key) = (Key::new(&one).unwrap(), Key::new(&other).unwrap());
            prop_assert_eq!(key.as_bytes(), &one[..]);
            prop_assert_eq!(key.cmp(&other_key), one.cmp(&other));
            prop_assert_eq!(key == other_key, one == other);
            let hashes = std::hash::BuildHasherDefault::<seahash::SeaHasher>::default();
            prop_assert_eq!(hashes.hash_one(&key), hashes.hash_one(&one[..]));
            prop_assert_eq!(key.clone(), key);
        }
    }

    #[test]
    fn a_short_key_stands_in_the_struct_and_a_long_one_is_shared() {
        let is_inline = |key: &Key| {
            let start = std::ptr::from_ref(key) as usize;
            (start..start + size_of::<Key>()).contains(&(key.as_bytes().as_ptr() as usize))
        };
        for length in [1, KEY_BYTES_INLINE, KEY_BYTES_INLINE + 1, KEY_BYTES_MAX] {
            let key = Key::new(vec![7; length]).unwrap();
            let copy = key.clone();
            assert_eq!(is_inline(&copy), length <= KEY_BYTES_INLINE, "{length} bytes");
            assert_eq!(key.as_bytes().as_ptr() == copy.as_bytes().as_ptr(), KEY_BYTES_INLINE < length);
        }
    }

    #[test]
    fn a_key_has_1_to_1024_bytes() {
        assert!(Key::new("").is_err());
        assert!(Key::new(vec![0; KEY_BYTES_MAX]).is_ok());
        let refused = Key::new(vec![0; KEY_BYTES_MAX + 1]).unwrap_err();
        assert_eq!(refused.to_string(), "key has 1025 bytes, allowed are 1 to 1024");
    }

    #[test]
    fn an_empty_value_is_a_value() {
        assert!(Value::new(Bytes::new()).is_ok());
        assert!(Value::new(vec![0; VALUE_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn keys_that_are_not_text_are_shown_escaped() {
        assert_eq!(Key::new(vec![b'a', 0xff]).unwrap().to_string(), r#""a\xff""#);
    }
}
