//! A segment: one file of a log, and the header block that says what it holds in its present life.
//!
//! ```text
//!  0        8      12     14     16     24      32      40      48      56       64      68         4096
//! +--------+------+------+------+------+-------+-------+-------+-------+--------+-------+----------+--------------
//! | magic  |format| core | zero | life | start | index | first | bytes | synced | crc32c| zeros .. | writes ..
//! +--------+------+------+------+------+-------+-------+-------+-------+--------+-------+----------+--------------
//! ```
//! Little-endian. A file is used again and again, each time in a new life with a new header, which is written in one
//! write with the life's first records. The fields fit in one sector, so that a torn write leaves the old header or
//! the new one. Each life has 64 random bits that go into the checksum of all its records: what an old life left
//! behind in the file never verifies.

use std::fmt;

use bytes::{Buf, BufMut};

use crate::protocol::types::{AppendId, CoreId, LogId};

/// The unit of writing: every write begins on a boundary of it and fills up to one. Direct I/O asks for the device's
/// block, and 4 KiB is the largest in use.
pub const BLOCK: usize = 4_096;

/// The least size of a segment: its header, and one block of records.
pub const SEGMENT_BYTES_LEAST: u64 = 2 * BLOCK as u64;

const MAGIC: [u8; 8] = *b"sloopwal";
pub(super) const FORMAT: u32 = 2;
const FIELDS_BYTES: usize = 64;

/// A segment's number, which is its file's name. Numbers are given by the node, over all cores, and are never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u32);

/// The 64 random bits of one use of a segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life(pub u64);

/// A file that holds nothing which is still needed, ready to become the next segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpareSegment {
    /// Its number.
    pub id: SegmentId,
    /// Its size, a multiple of [`BLOCK`].
    pub bytes: u64,
}

/// What a segment's first block says of its present life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Goes into the checksum of every record.
    pub life: Life,
    /// The log that it is a part of.
    pub log: LogId,
    /// Its place in the log, from 0.
    pub index: u64,
    /// The sequence number of its first record.
    pub first: AppendId,
    /// Its size.
    pub bytes: u64,
    /// The highest sequence number of the log that was known to be durable.
    pub synced: AppendId,
}

/// Why a first block is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHeader {
    /// All zeros: never used.
    Blank,
    /// A header of another version of sloop.
    Format(u32),
    /// Anything else.
    Damaged,
}

impl SegmentId {
    /// The number of the file of this name; `None` when the name is not one of a segment.
    pub fn from_file_name(name: &str) -> Option<SegmentId> {
        let digits = name.strip_suffix(".seg")?;
        let id = SegmentId(digits.parse().ok()?);
        (id.to_string() == name).then_some(id)
    }
}

/// The file's name.
impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}.seg", self.0)
    }
}

impl SpareSegment {
    /// The spare that a file of this size makes; `None` when it is too small to be of use.
    pub fn new(id: SegmentId, file_bytes: u64) -> Option<SpareSegment> {
        let bytes = file_bytes - file_bytes % BLOCK as u64;
        (SEGMENT_BYTES_LEAST <= bytes).then_some(SpareSegment { id, bytes })
    }
}

impl Header {
    /// Appends the header block.
    pub fn put(&self, out: &mut Vec<u8>) {
        let from = out.len();
        out.put_slice(&MAGIC);
        out.put_u32_le(FORMAT);
        out.put_u16_le(self.log.core.0);
        out.put_u16_le(0);
        out.put_u64_le(self.life.0);
        out.put_u64_le(self.log.start);
        out.put_u64_le(self.index);
        out.put_u64_le(self.first.0);
        out.put_u64_le(self.bytes);
        out.put_u64_le(self.synced.0);
        out.put_u32_le(crc32c::crc32c(&out[from..]));
        out.resize(from + BLOCK, 0);
    }

    /// Reads the header at the front of a segment's bytes.
    ///
    /// # Errors
    /// [`NoHeader`] for anything that [`Header::put`] did not make.
    pub fn read(segment: &[u8]) -> Result<Header, NoHeader> {
        let block = &segment[..segment.len().min(BLOCK)];
        if block.iter().all(|&byte| byte == 0) {
            return Err(NoHeader::Blank);
        }
        let (fields, rest) = block.split_at_checked(FIELDS_BYTES).ok_or(NoHeader::Damaged)?;
        let crc = rest.first_chunk::<4>().ok_or(NoHeader::Damaged)?;
        let mut rest = fields.strip_prefix(&MAGIC).ok_or(NoHeader::Damaged)?;
        if crc32c::crc32c(fields) != u32::from_le_bytes(*crc) {
            return Err(NoHeader::Damaged);
        }
        match rest.get_u32_le() {
            FORMAT => {}
            format => return Err(NoHeader::Format(format)),
        }
        let core = CoreId(rest.get_u16_le());
        rest.advance(2);
        let life = Life(rest.get_u64_le());
        let start = rest.get_u64_le();
        Ok(Header {
            life,
            log: LogId { start, core },
            index: rest.get_u64_le(),
            first: AppendId(rest.get_u64_le()),
            bytes: rest.get_u64_le(),
            synced: AppendId(rest.get_u64_le()),
        })
    }
}

/// `length` rounded up to whole blocks.
pub(super) fn align(length: usize) -> usize {
    length.next_multiple_of(BLOCK)
}

const _: () = assert!(FIELDS_BYTES + 4 <= 512);

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let log = LogId { start: 3, core: CoreId(258) };
        Header {
            life: Life(0x0807_0605_0403_0201),
            log,
            index: 4,
            first: AppendId(5),
            bytes: 65_536,
            synced: AppendId(6),
        }
    }

    fn block() -> Vec<u8> {
        let mut block = Vec::new();
        header().put(&mut block);
        block
    }

    #[test]
    fn the_bytes_of_a_header_never_change() {
        let expected = "736c6f6f7077616c 02000000 0201 0000 0102030405060708 0300000000000000 0400000000000000 \
                        0500000000000000 0000010000000000 0600000000000000"
            .replace(' ', "");
        assert_eq!(hex::encode(&block()[..64]), expected);
        assert_eq!(hex::encode(&block()[64..68]), GOLDEN_CRC);
        assert_eq!(block()[68..], [0; BLOCK - 68]);
        assert_eq!(Header::read(&block()), Ok(header()));
    }

    const GOLDEN_CRC: &str = "c5e1e43e";

    #[test]
    fn a_header_with_any_bit_flipped_is_none() {
        for bit in 0..68 * 8 {
            let mut block = block();
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::read(&block), Err(NoHeader::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn blank_short_and_newer_headers_are_told_apart() {
        assert_eq!(Header::read(&[]), Err(NoHeader::Blank));
        assert_eq!(Header::read(&[0; BLOCK]), Err(NoHeader::Blank));
        assert_eq!(Header::read(&block()[..60]), Err(NoHeader::Damaged));
        let mut newer = block();
        newer[8] = 3;
        let crc = crc32c::crc32c(&newer[..64]).to_le_bytes();
        newer[64..68].copy_from_slice(&crc);
        assert_eq!(Header::read(&newer), Err(NoHeader::Format(3)));
    }

    #[test]
    fn a_file_is_named_by_its_number() {
        assert_eq!(SegmentId(17).to_string(), "00000017.seg");
        assert_eq!(SegmentId::from_file_name("00000017.seg"), Some(SegmentId(17)));
        for other in ["17.seg", "00000017.sst", "+0000017.seg", "0000001x.seg", ""] {
            assert_eq!(SegmentId::from_file_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_spare_is_whole_blocks_and_at_least_two() {
        let spare = |bytes| SpareSegment::new(SegmentId(1), bytes).map(|spare| spare.bytes);
        assert_eq!(spare(8_191), None);
        assert_eq!(spare(12_287), Some(8_192));
    }
}
