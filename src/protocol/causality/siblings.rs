//! A key's whole state, and its join.

use std::cmp::Ordering;
use std::hash::Hasher;

use bytes::Bytes;
use seahash::SeaHasher;
use smallvec::SmallVec;

use super::{Context, Version, VersionVector, context};
use crate::protocol::types::{ClusterId, Dot, Key, Value};

/// The versions that nothing has superseded, under one vector over all that was ever seen.
///
/// Invariants: versions stand in the order of their dots, no dot twice; every version's dot is covered by the vector.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Siblings {
    pub(super) vector: VersionVector,
    pub(super) versions: SmallVec<[Version; 1]>,
}

/// A set that breaks its own invariants: bytes of another program, or damage. Nothing was taken from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// Two versions out of order, or one twice.
    #[error("version {0} stands out of order")]
    Unsorted(Dot),
    /// A version that the set's own vector has not seen.
    #[error("version {0} is not covered by its set's vector")]
    Uncovered(Dot),
}

impl Siblings {
    /// A set from its parts, as a decoder finds them.
    ///
    /// # Errors
    /// [`Unsound`] when the parts break the set's invariants.
    pub fn new(vector: VersionVector, versions: impl IntoIterator<Item = Version>) -> Result<Siblings, Unsound> {
        let versions: SmallVec<[Version; 1]> = versions.into_iter().collect();
        if let Some(pair) = versions.windows(2).find(|pair| pair[0].dot >= pair[1].dot) {
            return Err(Unsound::Unsorted(pair[1].dot));
        }
        match versions.iter().find(|version| !vector.covers(version.dot)) {
            Some(version) => Err(Unsound::Uncovered(version.dot)),
            None => Ok(Siblings { vector, versions }),
        }
    }

    /// Everything that the set has seen.
    pub fn vector(&self) -> &VersionVector {
        &self.vector
    }

    /// All versions, tombstones too, by dot.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// The versions that hold a value, by dot.
    pub fn live(&self) -> impl Iterator<Item = (&Version, &Value)> {
        self.versions.iter().filter_map(|version| Some((version, version.value.as_ref()?)))
    }

    /// What readers are shown: of the twins that one operation minted through several coordinators, that of the lowest
    /// dot. All of them are kept until a write replaces them: were one taken for replaced by another, it could be the
    /// only one that nothing else replaces elsewhere (docs/ARCHITECTURE.md, differences).
    pub fn shown(&self) -> impl Iterator<Item = (&Version, &Value)> {
        let is_first = |at: usize| !self.versions[..at].iter().any(|earlier| are_twins(earlier, &self.versions[at]));
        let shown = self.versions.iter().enumerate().filter(move |(at, _)| is_first(*at));
        shown.filter_map(|(_, version)| Some((version, version.value.as_ref()?)))
    }

    /// What a reader of this whole set has seen.
    pub fn context(&self) -> Context {
        Context::of(self.vector.clone())
    }

    /// The same as the token that the reader carries.
    pub fn token(&self, cluster: ClusterId, key: &Key) -> Bytes {
        context::seal(&self.vector, &[], cluster, key)
    }

    /// Bytes that the set counts with against its limit: versions and clock.
    pub fn bytes(&self) -> usize {
        self.versions.iter().map(Version::bytes).sum::<usize>() + 16 * self.vector.len()
    }

    /// Digest of the dots and the vector: equal sets have equal ones, since a dot names one version for ever.
    pub fn digest(&self) -> u64 {
        let dots = self.versions.iter().map(|version| version.dot).chain(self.vector.dots());
        let mut hasher = SeaHasher::new();
        for Dot { actor, counter } in dots {
            hasher.write_u64(actor.0);
            hasher.write_u64(counter);
        }
        hasher.write_u64(self.versions.len() as u64);
        hasher.finish()
    }

    /// Whether the version of this dot is still there.
    pub fn holds(&self, dot: Dot) -> bool {
        self.version(dot).is_some()
    }

    /// The version of this dot, if it is still there.
    pub fn version(&self, dot: Dot) -> Option<&Version> {
        let at = self.versions.binary_search_by_key(&dot, |version| version.dot).ok()?;
        Some(&self.versions[at])
    }

    /// What both have seen, without what either has seen superseded. Commutative, associative, idempotent; never
    /// refused and never mints.
    #[must_use]
    pub fn join(&self, other: &Siblings) -> Siblings {
        let mut vector = self.vector.clone();
        vector.join(&other.vector);
        Siblings { vector, versions: self.surviving(other) }
    }

    /// Versions of both sides by dot, without those that the side which lacks them has already seen.
    fn surviving(&self, other: &Siblings) -> SmallVec<[Version; 1]> {
        let (mut ours, mut theirs) = (self.versions.iter().peekable(), other.versions.iter().peekable());
        let mut kept = SmallVec::new();
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (None, None) => return kept,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(our), Some(their)) => our.dot.cmp(&their.dot),
            };
            match order {
                Ordering::Less => kept.extend(ours.next().filter(|our| !other.vector.covers(our.dot)).cloned()),
                Ordering::Greater => kept.extend(theirs.next().filter(|their| !self.vector.covers(their.dot)).cloned()),
                // One dot, one version. Were they ever to differ, both sides must still keep the same one.
                Ordering::Equal => kept.extend(ours.next().max(theirs.next()).cloned()),
            }
        }
    }
}

fn are_twins(one: &Version, other: &Version) -> bool {
    one.operation.is_some() && one.operation == other.operation && one.value == other.value
}
