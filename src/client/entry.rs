//! What a read found.

use bytes::Bytes;

use super::{Causality, Key, Level, Sibling};
use crate::protocol::message::Found;

/// A key as one read saw it. It carries the context of that read, so that a write that replaces it
/// ([`Client::replace`](super::Client::replace), [`Client::remove`](super::Client::remove)) replaces what was seen and
/// nothing else, under this key and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    key: Key,
    found: Found,
}

impl Entry {
    /// What [`Client::ask`](super::Client::ask) got for a get of `key`.
    pub fn new(key: Key, found: Found) -> Entry {
        Entry { key, found }
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// All live siblings. More than one were written by clients that had not seen each other.
    pub fn siblings(&self) -> &[Sibling] {
        &self.found.siblings
    }

    /// Whether the key holds nothing: never written, or deleted.
    pub fn is_absent(&self) -> bool {
        self.found.siblings.is_empty()
    }

    /// The sibling that was written last by the clocks of the nodes that took the writes. Where there are several, the
    /// others are just as much alive: do not write this one back without merging them.
    pub fn latest(&self) -> Option<&Sibling> {
        let age = |sibling: &&Sibling| (sibling.written_at, sibling.dot);
        self.found.siblings.iter().max_by_key(age)
    }

    /// The token to keep where the entry itself cannot be kept, in a web form for instance.
    pub fn context(&self) -> &Bytes {
        &self.found.context
    }

    /// How the read was served.
    pub fn level(&self) -> Level {
        self.found.level
    }

    /// What a write of this reader replaces. One that has seen an absent key replaces nothing: what another client
    /// wrote since stays.
    pub(super) fn causality(&self) -> Causality {
        Causality::Context(self.found.context.clone())
    }
}
