//! What a client has seen of one key, as the opaque token that it carries from a read to a write.
//!
//! ```text
//!  u8      u64         u64        u32   16 x n            u32   16 x n           u32
//! +------+-----------+----------+-----+-----------------+-----+----------------+--------+
//! | 0x01 | cluster   | key      |  n  | actor, counter  |  n  | actor, counter | crc32c |
//! +------+-----------+----------+-----+-----------------+-----+----------------+--------+
//! ```
//! Little-endian. `cluster` and `key` are seahash digests: a context means nothing for another key or cluster, and is
//! refused there.

use bytes::{Buf, BufMut, Bytes};
use smallvec::SmallVec;

use super::VersionVector;
use crate::protocol::config::CLOCK_ENTRIES_DECODED_MAX;
use crate::protocol::ring;
use crate::protocol::types::{ActorId, ClusterId, Dot, Key};

const FORMAT: u8 = 1;
const DOT_BYTES: usize = 16;

/// A token of no dots: all that stands around them.
const TOKEN_BYTES_MIN: usize = 1 + 8 + 8 + 4 + 4 + 4;

/// Most dots that stand apart in a context. They come from writing again and again beside siblings without reading;
/// the oldest goes first, at the price of a sibling more.
const DOTS_APART_MAX: usize = 16;

/// Everything that a client has seen of one key: a version vector, and dots that stand apart from it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Context {
    vector: VersionVector,
    dots: SmallVec<[Dot; 1]>,
}

/// A context that cannot be used. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// Not a context, or changed on its way.
    #[error("the context is damaged ({bytes} bytes): pass it on exactly as a reply gave it")]
    Damaged {
        /// Length of what was passed.
        bytes: usize,
    },
    /// A context of a newer or older sloop.
    #[error("the context has format {format}, this node reads format 1: read the key again")]
    Format {
        /// The format found.
        format: u8,
    },
    /// A context that another cluster gave out.
    #[error("the context comes from another cluster: read the key here and use that context")]
    OtherCluster,
    /// A context of another key (fault 14 of the seed systems: an unseen version superseded).
    #[error("the context belongs to another key: read this key and use that context")]
    OtherKey,
}

impl Context {
    /// The context of a reader that saw a whole set.
    pub fn of(vector: VersionVector) -> Context {
        Context { vector, dots: SmallVec::new() }
    }

    /// The part that is a vector.
    pub fn vector(&self) -> &VersionVector {
        &self.vector
    }

    /// The dots that stand apart.
    pub fn dots(&self) -> &[Dot] {
        &self.dots
    }

    /// Whether the version of this dot was seen.
    pub fn covers(&self, dot: Dot) -> bool {
        self.vector.covers(dot) || self.dots.contains(&dot)
    }

    /// The highest counter of `actor` that was seen; 0 for none.
    pub fn newest_of(&self, actor: ActorId) -> u64 {
        let apart = self.dots.iter().filter(|dot| dot.actor == actor).map(|dot| dot.counter);
        apart.fold(self.vector.get(actor), u64::max)
    }

    /// Bytes of its entries.
    pub fn bytes(&self) -> usize {
        DOT_BYTES * (self.vector.len() + self.dots.len())
    }

    /// A context from its parts, as a decoder finds them.
    pub fn from_parts(vector: VersionVector, dots: impl IntoIterator<Item = Dot>) -> Context {
        Context { vector, dots: dots.into_iter().collect() }
    }

    /// What has been seen after a write upon a set that has now seen `met`: all of it when the write is alone there,
    /// and what was seen before with the write's own dot when it stands beside others. Dots apart that the set has
    /// met are superseded in it and done with; the others the writer still has to pass on.
    pub(super) fn after(&self, met: &VersionVector, beside: Option<Dot>) -> Context {
        let vector = if beside.is_none() { met } else { &self.vector };
        let unmet = self.dots.iter().copied().filter(|dot| !met.covers(*dot));
        let mut dots: SmallVec<[Dot; 1]> = unmet.chain(beside).collect();
        let beyond = dots.len().saturating_sub(DOTS_APART_MAX);
        dots.drain(..beyond);
        Context { vector: vector.clone(), dots }
    }

    /// The token that a client carries.
    pub fn seal(&self, cluster: ClusterId, key: &Key) -> Bytes {
        seal(&self.vector, &self.dots, cluster, key)
    }

    /// Reads a token back.
    ///
    /// # Errors
    /// [`ContextError`] for anything that [`Context::seal`] did not make for this cluster and key.
    pub fn open(token: &[u8], cluster: ClusterId, key: &Key) -> Result<Context, ContextError> {
        let (context, of_key) = Context::open_of_any_key(token, cluster)?;
        if of_key == ring::hash(key) { Ok(context) } else { Err(ContextError::OtherKey) }
    }

    /// Reads a token of this cluster back, with the hash of the key that it is for.
    ///
    /// # Errors
    /// [`ContextError`] for anything that [`Context::seal`] did not make for this cluster.
    pub(in crate::protocol) fn open_of_any_key(
        token: &[u8],
        cluster: ClusterId,
    ) -> Result<(Context, u64), ContextError> {
        let damaged = ContextError::Damaged { bytes: token.len() };
        let (body, crc) = token.split_last_chunk::<4>().ok_or(damaged)?;
        let format = *body.first().ok_or(damaged)?;
        if format != FORMAT {
            return Err(ContextError::Format { format });
        }
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(damaged);
        }
        let mut rest = &body[1..];
        let of_cluster = rest.try_get_u64_le().map_err(|_| damaged)?;
        let of_key = rest.try_get_u64_le().map_err(|_| damaged)?;
        let vector = get_dots(&mut rest).ok_or(damaged)?;
        let dots = get_dots(&mut rest).ok_or(damaged)?;
        match () {
            () if !rest.is_empty() => Err(damaged),
            () if of_cluster != digest(cluster) => Err(ContextError::OtherCluster),
            () => Ok((Context { vector: vector.into_iter().collect(), dots }, of_key)),
        }
    }
}

/// The token of a vector and of dots that stand apart from it.
pub(super) fn seal(vector: &VersionVector, apart: &[Dot], cluster: ClusterId, key: &Key) -> Bytes {
    let mut out = Vec::with_capacity(TOKEN_BYTES_MIN + DOT_BYTES * (vector.len() + apart.len()));
    out.put_u8(FORMAT);
    out.put_u64_le(digest(cluster));
    out.put_u64_le(ring::hash(key));
    put_dots(&mut out, vector.dots());
    put_dots(&mut out, apart.iter().copied());
    out.put_u32_le(crc32c::crc32c(&out));
    out.into()
}

fn digest(cluster: ClusterId) -> u64 {
    seahash::hash(&cluster.0.to_le_bytes())
}

fn put_dots(out: &mut Vec<u8>, dots: impl ExactSizeIterator<Item = Dot>) {
    out.put_u32_le(u32::try_from(dots.len()).expect("a clock of 2^32 entries does not fit in memory"));
    for dot in dots {
        out.put_u64_le(dot.actor.0);
        out.put_u64_le(dot.counter);
    }
}

fn get_dots(from: &mut &[u8]) -> Option<SmallVec<[Dot; 1]>> {
    let count = usize::try_from(from.try_get_u32_le().ok()?).ok()?;
    if count > CLOCK_ENTRIES_DECODED_MAX || from.len() < count * DOT_BYTES {
        return None;
    }
    Some((0..count).map(|_| Dot { actor: ActorId(from.get_u64_le()), counter: from.get_u64_le() }).collect())
}
