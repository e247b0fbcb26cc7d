//! A disk that keeps what was synced, and of the rest whatever it likes.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Rng;
use crate::store::wal::segment::SpareSegment;
use crate::store::wal::{LogWrite, SegmentFile, SegmentId};

/// What a disk writes at once: a write is torn between sectors, never within one.
const SECTOR: usize = 512;

/// The segment files of one node.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    durable: BTreeMap<SegmentId, Vec<u8>>,
    /// Writes that were begun and have not ended, in order.
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
struct Pending {
    segment: SegmentId,
    offset: usize,
    bytes: Vec<u8>,
}

impl Disk {
    /// Begins a write. It is durable once [`Disk::sync`] says so, and until then as much of it as chance will have.
    pub fn write(&mut self, write: &LogWrite) {
        let offset = usize::try_from(write.offset).expect("a segment fits in memory");
        self.put(write.segment, offset, write.bytes.clone());
    }

    /// Begins to prepare a segment.
    pub fn prepare(&mut self, spare: SpareSegment) {
        let bytes = usize::try_from(spare.bytes).expect("a segment fits in memory");
        self.put(spare.id, 0, vec![0; bytes]);
    }

    /// Ends all writes under way.
    pub fn sync(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            let file = self.durable.entry(pending.segment).or_default();
            put_at(file, pending.offset, &pending.bytes);
        }
    }

    /// Ends the writes under way to one segment.
    pub fn end(&mut self, segment: SegmentId) {
        for pending in self.pending.extract_if(.., |pending| pending.segment == segment) {
            let file = self.durable.entry(pending.segment).or_default();
            put_at(file, pending.offset, &pending.bytes);
        }
    }

    /// The power fails: of every write under way any of its sectors may have been written, in any order; of a new file
    /// any number of blocks, or not even its name.
    pub fn crash(&mut self, rng: &mut Rng) {
        for pending in std::mem::take(&mut self.pending) {
            self.tear(&pending, rng);
        }
    }

    /// The write under way to this segment fails, and leaves behind what a crash would.
    pub fn fail(&mut self, segment: SegmentId, rng: &mut Rng) {
        let pending = std::mem::take(&mut self.pending);
        let (failed, others) = pending.into_iter().partition(|pending| pending.segment == segment);
        self.pending = others;
        let failed: Vec<Pending> = failed;
        failed.iter().for_each(|pending| self.tear(pending, rng));
    }

    /// One bit of one file turns.
    pub fn flip(&mut self, segment: SegmentId, bit: usize) {
        let file = self.durable.get_mut(&segment).expect("a file that stands can rot");
        file[bit / 8] ^= 1 << (bit % 8);
    }

    /// All files, as a start finds them.
    pub fn files(&self) -> Vec<SegmentFile> {
        let file = |(id, bytes): (&SegmentId, &Vec<u8>)| SegmentFile { id: *id, bytes: Bytes::copy_from_slice(bytes) };
        self.durable.iter().map(file).collect()
    }

    fn tear(&mut self, pending: &Pending, rng: &mut Rng) {
        let kept = [0, 100, 50, 90, 10][rng.below(5)];
        match self.durable.get_mut(&pending.segment) {
            Some(file) => {
                for (at, sector) in pending.bytes.chunks(SECTOR).enumerate() {
                    if rng.percent(kept) {
                        put_at(file, pending.offset + at * SECTOR, sector);
                    }
                }
            }
            None if rng.percent(kept) => {
                let length = rng.below(pending.bytes.len() / SECTOR + 1) * SECTOR;
                self.durable.insert(pending.segment, pending.bytes[..length].to_vec());
            }
            None => {}
        }
    }

    fn put(&mut self, segment: SegmentId, offset: usize, bytes: Vec<u8>) {
        self.pending.push(Pending { segment, offset, bytes });
    }
}

fn put_at(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    file.resize(file.len().max(end), 0);
    file[offset..end].copy_from_slice(bytes);
}
