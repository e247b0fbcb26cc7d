//! From bytes to entries, each of them verified before it is given.

use std::io::{ErrorKind, Read};

use bytes::{Buf, Bytes};

use super::digest_after;
use super::{BLOCK, BLOCK_HEAD_BYTES, Damage, END, END_BYTES, FORMAT, HEAD_BYTES, MAGIC, SnapshotError, Summary};
use crate::protocol::causality::Siblings;
use crate::protocol::config::KEY_BYTES_MAX;
use crate::protocol::ring::{Partition, Ring};
use crate::protocol::types::Key;
use crate::store::Place;
use crate::wire::{Reader, sets};

/// The entries of a snapshot, in order. After the first error there are no more; the snapshot is whole when they ended
/// without one, and only then is there a [`summary`](Entries::summary).
#[derive(Debug)]
pub struct Entries<R> {
    from: R,
    ring: Ring,
    /// What was read so far.
    seen: Summary,
    /// What is left of the block that is being read.
    block: Bytes,
    block_at: u64,
    /// Entries of the block that were not given yet.
    left: u32,
    last: Option<Place>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    Whole,
    Failed,
}

impl<R: Read> Entries<R> {
    /// Reads the head.
    ///
    /// # Errors
    /// [`SnapshotError`] for anything that is not the head of a snapshot.
    pub fn open(mut from: R) -> Result<Entries<R>, SnapshotError> {
        let mut read = 0;
        let head = take::<HEAD_BYTES>(&mut from, &mut read).map_err(|error| match error {
            SnapshotError::Partial { .. } => SnapshotError::Foreign,
            other => other,
        })?;
        if head[..8] != MAGIC[..] {
            return Err(SnapshotError::Foreign);
        }
        let format = u16::from_le_bytes([head[8], head[9]]);
        if format > FORMAT {
            return Err(SnapshotError::Newer { format });
        }
        verify(&head).map_err(|reason| SnapshotError::Damaged { at: 0, reason })?;
        let partitions = u16::from_le_bytes([head[10], head[11]]);
        if !partitions.is_power_of_two() {
            return Err(SnapshotError::Damaged { at: 0, reason: Damage::Partitions(partitions) });
        }
        Ok(Entries {
            from,
            ring: Ring::new(partitions),
            seen: Summary { partitions, keys: 0, blocks: 0, bytes: read, digest: 0 },
            block: Bytes::new(),
            block_at: 0,
            left: 0,
            last: None,
            state: State::Reading,
        })
    }

    /// Partitions of the ring whose order the entries have.
    pub fn partitions(&self) -> u16 {
        self.seen.partitions
    }

    /// What the snapshot holds, once all of it was read and is whole.
    pub fn summary(&self) -> Option<Summary> {
        (self.state == State::Whole).then_some(self.seen)
    }

    /// Reads all that is left, for nothing but the certainty that it is whole.
    ///
    /// # Errors
    /// [`SnapshotError`] for what is not.
    pub fn verify(mut self) -> Result<Summary, SnapshotError> {
        self.by_ref().try_for_each(|entry| entry.map(drop))?;
        Ok(self.summary().expect("the entries ended without an error"))
    }

    fn next_entry(&mut self) -> Result<Option<(Key, Siblings)>, SnapshotError> {
        while self.left == 0 {
            if !self.next_part()? {
                return Ok(None);
            }
        }
        self.left -= 1;
        let entry = self.entry().and_then(|entry| match self.left {
            0 => Ok(Reader::new(&self.block).end().map(|()| entry)?),
            _ => Ok(entry),
        });
        entry.map(Some).map_err(|reason| SnapshotError::Damaged { at: self.block_at, reason })
    }

    /// Reads a block, or the end; says whether it was a block.
    fn next_part(&mut self) -> Result<bool, SnapshotError> {
        self.block_at = self.seen.bytes;
        let [kind] = take::<1>(&mut self.from, &mut self.seen.bytes)?;
        match kind {
            BLOCK => self.next_block().map(|()| true),
            END => self.end().map(|()| false),
            _ => Err(self.damaged(Damage::Kind(kind))),
        }
    }

    fn next_block(&mut self) -> Result<(), SnapshotError> {
        let head: [u8; BLOCK_HEAD_BYTES] = self.part(BLOCK)?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (entries, length, crc) = (number(1), number(5), number(9));
        let mut body = Vec::new();
        let read = (&mut self.from).take(length.into()).read_to_end(&mut body)?;
        self.seen.bytes += read as u64;
        if body.len() < length as usize {
            return Err(SnapshotError::Partial { bytes: self.seen.bytes });
        }
        if crc32c::crc32c(&body) != crc || entries == 0 {
            return Err(self.damaged(Damage::Checksum));
        }
        self.seen.keys += u64::from(entries);
        self.seen.blocks += 1;
        self.seen.digest = digest_after(self.seen.digest, &body);
        self.left = entries;
        self.block = body.into();
        Ok(())
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        let end: [u8; END_BYTES] = self.part(END)?;
        let number = |at: usize| u64::from_le_bytes(end[at..at + 8].try_into().expect("eight bytes"));
        if (number(1), number(9), number(17)) != (self.seen.keys, self.seen.blocks, self.seen.digest) {
            return Err(self.damaged(Damage::Counts));
        }
        match take::<1>(&mut self.from, &mut self.seen.bytes) {
            Err(SnapshotError::Partial { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(self.damaged(Damage::Trailing)),
        }
    }

    /// The rest of a part of fixed length behind its kind, verified.
    fn part<const N: usize>(&mut self, kind: u8) -> Result<[u8; N], SnapshotError> {
        let mut part = [kind; N];
        fill(&mut self.from, &mut part[1..], &mut self.seen.bytes)?;
        verify(&part).map_err(|reason| self.damaged(reason))?;
        Ok(part)
    }

    fn entry(&mut self) -> Result<(Key, Siblings), Damage> {
        let mut reader = Reader::new(&self.block);
        let found = reader.u16("partition")?;
        let key = Key::new(reader.bytes16("key", KEY_BYTES_MAX)?).map_err(crate::wire::WireError::from)?;
        let set = sets::decode_set(reader.bytes32("set", u32::MAX as usize)?);
        let left = reader.left();
        self.block.advance(self.block.len() - left);
        let place = Place { partition: Partition(found), key };
        let partition = self.ring.partition(&place.key).0;
        if found != partition {
            return Err(Damage::Partition { found, partition });
        }
        if self.last.as_ref() >= Some(&place) {
            return Err(Damage::Order);
        }
        let entry = (place.key.clone(), set?);
        self.last = Some(place);
        Ok(entry)
    }

    fn damaged(&self, reason: Damage) -> SnapshotError {
        SnapshotError::Damaged { at: self.block_at, reason }
    }
}

impl<R: Read> Iterator for Entries<R> {
    type Item = Result<(Key, Siblings), SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state != State::Reading {
            return None;
        }
        let next = self.next_entry().transpose();
        match &next {
            Some(Ok(_)) => {}
            Some(Err(_)) => self.state = State::Failed,
            None => self.state = State::Whole,
        }
        next
    }
}

/// Whether the crc at the end is that of everything before it.
fn verify(part: &[u8]) -> Result<(), Damage> {
    let (body, crc) = part.split_last_chunk::<4>().expect("every part ends with its checksum");
    if crc32c::crc32c(body) == u32::from_le_bytes(*crc) { Ok(()) } else { Err(Damage::Checksum) }
}

fn take<const N: usize>(from: &mut impl Read, read: &mut u64) -> Result<[u8; N], SnapshotError> {
    let mut bytes = [0; N];
    fill(from, &mut bytes, read)?;
    Ok(bytes)
}

fn fill(from: &mut impl Read, to: &mut [u8], read: &mut u64) -> Result<(), SnapshotError> {
    match from.read_exact(to) {
        Ok(()) => {
            *read += to.len() as u64;
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(SnapshotError::Partial { bytes: *read }),
        Err(error) => Err(error.into()),
    }
}
