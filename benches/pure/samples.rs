//! What is measured with.

use sloop::protocol::causality::{Siblings, Supersedes, VersionVector, Write};
use sloop::protocol::types::{ActorId, Dot, Key, Value, WallTime};

/// Bytes of a value: a counter, a small document, a page.
pub(crate) const VALUE_BYTES: [usize; 3] = [16, 256, 16 * 1_024];

pub(crate) fn key(n: usize) -> Key {
    Key::new(format!("cart:{n:012}")).unwrap()
}

pub(crate) fn value(bytes: usize) -> Value {
    Value::new(vec![b'v'; bytes]).unwrap()
}

pub(crate) fn dot(actor: usize, counter: u64) -> Dot {
    Dot { actor: ActorId((actor as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)), counter }
}

/// The vector of a key that these actors wrote.
pub(crate) fn vector(actors: std::ops::Range<usize>, counter: u64) -> VersionVector {
    actors.map(|actor| dot(actor, counter)).collect()
}

pub(crate) fn write(bytes: usize, supersedes: Supersedes) -> Write {
    Write { value: Some(value(bytes)), supersedes, operation: None, written_at: WallTime(1_728_000_000_000) }
}

/// A set of values that nothing has replaced, one by each of these actors.
pub(crate) fn siblings(actors: std::ops::Range<usize>, bytes: usize) -> Siblings {
    let beside = |set: Siblings, actor| set.mint(dot(actor, 1), write(bytes, Supersedes::Nothing)).unwrap().set;
    actors.fold(Siblings::default(), beside)
}
