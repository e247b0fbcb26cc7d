//! One page of a scan over the sets of a partition, in the making: what is wanted of them, and where the page ends.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Engine, KeySet};
use crate::protocol::antientropy::{PartitionLeaf, digest, is_buried};
use crate::protocol::causality::Siblings;
use crate::protocol::io::{Name, Scan, ScanPage, ScanWant};
use crate::protocol::ring::Ring;
use crate::protocol::types::Key;

/// What memory holds of a scan's partition and the tree may not, in the order of keys. All of it: what is deleted hides
/// what the tree has.
pub fn newer_than_tree(engine: &Engine, ring: Ring, scan: &Scan) -> Vec<KeySet> {
    let wanted = |key: &Key| {
        scan.after.as_ref().is_none_or(|after| after < key) && scan.leaves.contains(PartitionLeaf::of(ring, key))
    };
    engine.newer_than_tree(scan.partition, wanted).into_iter().cloned().collect()
}

/// A page that is being filled, in the order of keys.
#[derive(Debug)]
pub struct Scanner {
    want: ScanWant,
    /// The digests that need not be told, ascending, and which of them each is.
    known: Vec<(u64, usize)>,
    page: ScanPage,
    bytes: usize,
}

impl Scanner {
    /// An empty page.
    pub fn new(want: ScanWant) -> Scanner {
        let mut page = ScanPage::default();
        let mut known = Vec::new();
        if let ScanWant::Sets { known: digests, .. } = &want {
            page.met = vec![false; digests.len()];
            known = digests.iter().copied().zip(0..).collect();
            known.sort_unstable();
        }
        Scanner { want, known, page, bytes: 0 }
    }

    /// Takes in the next set, and says whether the page goes on behind it.
    pub fn take(&mut self, key: Key, set: Arc<Siblings>) -> ControlFlow<()> {
        let digest = digest(&key, &set);
        match self.want {
            ScanWant::Names { max } => self.name(max, key, &set, digest),
            ScanWant::Sets { bytes_max, .. } => self.tell(bytes_max, key, set, digest),
        }
    }

    /// The page, where nothing is behind it, or where it was full.
    pub fn end(self) -> ScanPage {
        self.page
    }

    /// The page, where it is ended behind a key for another reason.
    pub fn end_behind(mut self, key: Key) -> ScanPage {
        self.page.next.get_or_insert(key);
        self.page
    }

    fn name(&mut self, max: usize, key: Key, set: &Siblings, digest: u64) -> ControlFlow<()> {
        if self.page.names.len() >= max {
            self.page.next = self.page.names.last().map(|name| name.key.clone());
            return ControlFlow::Break(());
        }
        let newest = set.versions().iter().map(|version| version.written_at).max();
        self.page.names.push(Name { key, digest, buried_at: newest.filter(|_| is_buried(set)) });
        ControlFlow::Continue(())
    }

    fn tell(&mut self, bytes_max: usize, key: Key, set: Arc<Siblings>, digest: u64) -> ControlFlow<()> {
        let at = self.known.partition_point(|(known, _)| *known < digest);
        if let Some((_, which)) = self.known.get(at).filter(|(known, _)| *known == digest) {
            self.page.met[*which] = true;
            return ControlFlow::Continue(());
        }
        self.bytes += set.bytes();
        self.page.sets.push((key.clone(), set));
        if self.bytes < bytes_max {
            return ControlFlow::Continue(());
        }
        self.page.next = Some(key);
        ControlFlow::Break(())
    }
}
