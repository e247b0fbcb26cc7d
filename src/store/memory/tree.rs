//! The LSM tree as the store may rely on it: each chunk is in it whole or not at all, in order.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::Rng;
use crate::protocol::antientropy::{Forest, PartitionLeaf};
use crate::protocol::causality::Siblings;
use crate::protocol::io::{Scan, ScanPage, Unreadable};
use crate::protocol::ring::Ring;
use crate::protocol::types::Key;
use crate::store::chunk::{Chunk, KeySet};
use crate::store::layout::{self, Known, Place};
use crate::store::scan::Scanner;
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

    /// One page of a scan. `newer` is what memory holds of its partition, in the order of keys.
    ///
    /// # Errors
    /// [`Unreadable`] when what stands there is no set.
    pub fn scan(&self, ring: Ring, of: Scan, newer: Vec<KeySet>) -> Result<ScanPage, Unreadable> {
        let mut sets: BTreeMap<Key, Option<Arc<Siblings>>> = BTreeMap::new();
        let first = layout::set_keys_from(of.partition, b"");
        let of_partition = self.entries.range(first..).map_while(|(key, value)| {
            let place = Place::from_set_key(key).ok().filter(|place| place.partition == of.partition)?;
            Some((place.key, value))
        });
        for (key, value) in of_partition {
            let is_wanted = of.after.as_ref().is_none_or(|after| *after < key);
            if is_wanted && of.leaves.contains(PartitionLeaf::of(ring, &key)) {
                let set = sets::decode_set(value).map_err(|cause| Unreadable { reason: cause.to_string() })?;
                sets.insert(key, Some(Arc::new(set)));
            }
        }
        sets.extend(newer);
        let mut scanner = Scanner::new(of.want);
        // Where the page is full, it says where it ends.
        let _full = sets.into_iter().try_for_each(|(key, set)| match set {
            Some(set) => scanner.take(key, set),
            None => ControlFlow::Continue(()),
        });
        Ok(scanner.end())
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
