//! The LSM tree as the store may rely on it: each chunk is in it whole or not at all, in order.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;

use super::Rng;
use crate::protocol::antientropy::Forest;
use crate::protocol::causality::Siblings;
use crate::protocol::io::Unreadable;
use crate::store::chunk::Chunk;
use crate::store::layout::{self, Known, Place};
use crate::wire::sets;

/// The tree of one node, shared by its cores.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    entries: BTreeMap<Vec<u8>, Bytes>,
    handed: Vec<Arc<Chunk>>,
}

impl Tree {
    /// Begins to ingest a chunk.
    pub fn hand(&mut self, chunk: Arc<Chunk>) {
        self.handed.push(chunk);
    }

    /// Ends all ingestions under way, in order.
    ///
    /// # Panics
    /// When a chunk's entries do not ascend: the real tree refuses them.
    pub fn ingest(&mut self) {
        for chunk in std::mem::take(&mut self.handed) {
            let mut last = Vec::new();
            let put = |key: &[u8], value: Option<&[u8]>| {
                assert!(*last < *key, "entries ascend strictly");
                last = key.to_vec();
                match value {
                    Some(value) => self.entries.insert(key.to_vec(), Bytes::copy_from_slice(value)),
                    None => self.entries.remove(key),
                };
                Ok::<_, Infallible>(())
            };
            let Ok(()) = chunk.spell(put);
        }
    }

    /// The power fails: of the chunks under way some may be in already, the first ones.
    pub fn crash(&mut self, rng: &mut Rng) {
        self.handed.truncate(rng.below(self.handed.len() + 1));
        self.ingest();
    }

    /// What the tree knows of the logs.
    pub fn known(&self) -> Known {
        let mut known = Known::default();
        for (key, value) in &self.entries {
            known.learn(key, value).expect("only chunks are in the tree");
        }
        known
    }

    /// The set that stands at a place.
    ///
    /// # Errors
    /// [`Unreadable`] when what stands there is none.
    pub fn get(&self, place: &Place) -> Result<Option<Arc<Siblings>>, Unreadable> {
        let set = |value: &Bytes| sets::decode_set(value).map(Arc::new);
        let found = self.entries.get(&place.set_key()).map(set).transpose();
        found.map_err(|cause| Unreadable { reason: cause.to_string() })
    }

    /// The hash trees of all partitions.
    ///
    /// # Panics
    /// When what stands there is none.
    pub fn forest(&self) -> Forest {
        let mut forest = Forest::default();
        for (key, value) in self.entries(layout::tree_prefix()) {
            let (partition, tree) = layout::decode_tree(key, value).expect("only chunks are in the tree");
            forest.put(partition, tree);
        }
        forest
    }

    /// All entries whose keys begin with `prefix`.
    pub fn entries(&self, prefix: [u8; 1]) -> impl Iterator<Item = (&Vec<u8>, &Bytes)> {
        self.entries.iter().filter(move |(key, _)| key.starts_with(&prefix))
    }

    /// The places of all sets.
    pub fn places(&self) -> Vec<Place> {
        let sets = self.entries(layout::set_prefix());
        sets.map(|(key, _)| Place::from_set_key(key).expect("only chunks are in the tree")).collect()
    }
}
