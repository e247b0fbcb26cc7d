//! What is durable on a node of a rehearsed cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::RING;
use crate::protocol::antientropy::{Forest, PartitionLeaf, digest, is_buried};
use crate::protocol::causality::Siblings;
use crate::protocol::io::{Append, Change, Hint, Name, Scan, ScanPage, ScanWant, Survey, Surveyed};
use crate::protocol::replica::Remembered;
use crate::protocol::types::{Key, NodeId};

/// What is durable on a node.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) sets: BTreeMap<Key, Arc<Siblings>>,
    pub(super) hints: BTreeMap<(NodeId, Key), bool>,
    pub(super) remembered: Vec<(Key, Remembered)>,
    pub(super) forest: Forest,
}

impl Disk {
    pub(super) fn survey(&self, of: &Survey) -> Surveyed {
        let tree = |partition| self.forest.tree(partition).cloned().unwrap_or_default();
        match of {
            Survey::Sums(partitions) => {
                Surveyed::Sums(partitions.iter().map(|partition| self.forest.sum(*partition)).collect())
            }
            Survey::Branches(partition) => Surveyed::Digests(tree(*partition).branches().to_vec()),
            Survey::Leaves(partition, branch) => Surveyed::Digests(tree(*partition).leaves_of(*branch).to_vec()),
        }
    }

    pub(super) fn scan(&self, of: &Scan) -> ScanPage {
        let is_wanted = |key: &Key| {
            RING.partition(key) == of.partition
                && of.leaves.contains(PartitionLeaf::of(RING, key))
                && of.after.as_ref().is_none_or(|after| after < key)
        };
        let mut page = ScanPage::default();
        if let ScanWant::Sets { known, .. } = &of.want {
            page.met = vec![false; known.len()];
        }
        let mut bytes = 0;
        for (key, set) in self.sets.iter().filter(|(key, _)| is_wanted(key)) {
            let digest = digest(key, set);
            match &of.want {
                ScanWant::Names { max } => {
                    if page.names.len() == *max {
                        page.next = page.names.last().map(|name| name.key.clone());
                        return page;
                    }
                    let newest = set.versions().iter().map(|version| version.written_at).max();
                    let buried_at = newest.filter(|_| is_buried(set));
                    page.names.push(Name { key: key.clone(), digest, buried_at });
                }
                ScanWant::Sets { known, bytes_max } => match known.iter().position(|known| *known == digest) {
                    Some(at) => page.met[at] = true,
                    None => {
                        page.sets.push((key.clone(), Arc::clone(set)));
                        bytes += set.bytes();
                        if *bytes_max <= bytes {
                            page.next = Some(key.clone());
                            return page;
                        }
                    }
                },
            }
        }
        page
    }

    pub(super) fn keep(&mut self, append: Append) {
        let Append { key, change, .. } = append;
        if let Some(shift) = change.shift() {
            self.forest.grow(RING, &key, shift);
        }
        match change {
            Change::Version(arrived) => {
                self.remembered.extend(arrived.remember.map(|remembered| (key.clone(), *remembered)));
                self.sets.insert(key, arrived.state);
            }
            Change::Set { state, remember, .. } => {
                self.remembered.extend(remember.into_iter().map(|remembered| (key.clone(), remembered)));
                self.sets.insert(key, state);
            }
            Change::Drop { .. } => {
                self.sets.remove(&key);
            }
            Change::Hint(Hint { target, counted }) => {
                self.hints.insert((target, key), counted);
            }
            Change::Delivered { target } => {
                self.hints.remove(&(target, key));
            }
        }
    }
}
