//! From entries in order to bytes.

use std::ops::ControlFlow;

use bytes::{BufMut, Bytes, BytesMut};

use super::{BLOCK, BLOCK_BYTES, BLOCK_HEAD_BYTES, END, END_BYTES, FORMAT, HEAD_BYTES, MAGIC, Summary, digest_after};
use crate::protocol::ring::Ring;
use crate::store::Place;
use crate::wire::reader::{put_bytes16, put_bytes32};

/// Writes the stream, piece by piece, to `send`, which says whether to go on. `None` when it did not want all of it.
///
/// # Errors
/// Those of the entries; the stream is partial then.
///
/// # Panics
/// When the entries are out of order: they come from a store that is sorted.
pub fn write<E>(
    ring: Ring,
    entries: impl Iterator<Item = Result<(Place, Bytes), E>>,
    mut send: impl FnMut(Bytes) -> ControlFlow<()>,
) -> Result<Option<Summary>, E> {
    let mut writer = Writer::new(ring);
    if send(writer.head()).is_break() {
        return Ok(None);
    }
    for entry in entries {
        let (place, set) = entry?;
        writer.take(place, &set);
        if writer.body.len() >= BLOCK_BYTES && send(writer.block()).is_break() {
            return Ok(None);
        }
    }
    if !writer.body.is_empty() && send(writer.block()).is_break() {
        return Ok(None);
    }
    let end = writer.end();
    Ok(send(end).is_continue().then_some(writer.summary))
}

struct Writer {
    summary: Summary,
    last: Option<Place>,
    body: BytesMut,
    entries: u32,
}

impl Writer {
    fn new(ring: Ring) -> Writer {
        let summary = Summary { partitions: ring.partitions(), keys: 0, blocks: 0, bytes: 0, digest: 0 };
        Writer { summary, last: None, body: BytesMut::new(), entries: 0 }
    }

    fn head(&mut self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEAD_BYTES);
        out.put_slice(MAGIC);
        out.put_u16_le(FORMAT);
        out.put_u16_le(self.summary.partitions);
        self.sealed(out)
    }

    fn take(&mut self, place: Place, set: &[u8]) {
        assert!(self.last.as_ref() < Some(&place), "{:?} stands out of order", place.key);
        self.body.put_u16_le(place.partition.0);
        put_bytes16(&mut self.body, place.key.as_bytes());
        put_bytes32(&mut self.body, set);
        self.last = Some(place);
        self.entries += 1;
    }

    fn block(&mut self) -> Bytes {
        let body = self.body.split();
        let entries = std::mem::take(&mut self.entries);
        self.summary.keys += u64::from(entries);
        self.summary.blocks += 1;
        self.summary.bytes += body.len() as u64;
        self.summary.digest = digest_after(self.summary.digest, &body);

        let mut out = BytesMut::with_capacity(BLOCK_HEAD_BYTES + body.len());
        out.put_u8(BLOCK);
        out.put_u32_le(entries);
        out.put_u32_le(u32::try_from(body.len()).expect("a block ends with the entry that fills it"));
        out.put_u32_le(crc32c::crc32c(&body));
        let head = self.sealed(out);
        let mut out = BytesMut::from(head);
        out.put_slice(&body);
        out.freeze()
    }

    fn end(&mut self) -> Bytes {
        let mut out = BytesMut::with_capacity(END_BYTES);
        out.put_u8(END);
        out.put_u64_le(self.summary.keys);
        out.put_u64_le(self.summary.blocks);
        out.put_u64_le(self.summary.digest);
        self.sealed(out)
    }

    fn sealed(&mut self, mut out: BytesMut) -> Bytes {
        out.put_u32_le(crc32c::crc32c(&out));
        self.summary.bytes += out.len() as u64;
        out.freeze()
    }
}
