//! A record: one thing that happened to a key, as the log keeps it.
//!
//! ```text
//!  0        4        8          16     17
//! +--------+--------+----------+------+-----------+
//! | length | crc32c | sequence | kind | payload   |     length = bytes of the payload, never 0
//! +--------+--------+----------+------+-----------+
//!
//! kind 0, statement:  life u64, start u64, core u16, synced u64       begins every write; sequence = the next record's
//! kind 1, update:     key length u16, key, shift, update, [remember]  applies to what was there
//! kind 2, whole:      the same                                        alone tells the set
//! kind 3, set:        key length u16, key, shift, set, [remember]*    joins what was there
//! kind 4, hint:       key length u16, key, node u64, counted u8       its set is owed to that node
//! kind 5, delivered:  key length u16, key, node u64                   owed no longer
//! kind 6, drop:       key length u16, key, shift                      its set is deleted
//!
//! shift:              digest u64, counts u4, length u4, bytes         what it does to the tree of its partition
//! ```
//! Little-endian; update, set and remember as `wire::sets` spells them; counted is 0 or 1. Of a shift, counts are
//! 3 x (keys + 1) + buried + 1, in the lower half of their byte; its bytes are so many as the length says, of a number
//! whose lowest bit is the sign: most shifts take ten bytes, and none more than 17. The checksum covers the
//! segment's life, then the length, then all from the sequence number on. A statement names its life and log itself, so
//! that it can still be believed when the header of its segment is lost.

use bytes::{Buf, BufMut, Bytes};

use super::segment::Life;
use crate::protocol::antientropy::Shift;
use crate::protocol::causality::{Siblings, Update};
use crate::protocol::config::KEY_BYTES_MAX;
use crate::protocol::io::{Append, Arrived, Change, Hint};
use crate::protocol::replica::Remembered;
use crate::protocol::types::{AppendId, CoreId, Key, LogId, NodeId};
use crate::store::layout;
use crate::wire::reader::put_bytes16;
use crate::wire::{Reader, WireError, sets};

const HEAD_BYTES: usize = 17;
const STATEMENT_PAYLOAD_BYTES: usize = 26;

/// Bytes of a statement: what every write has beside its records.
pub const STATEMENT_BYTES: usize = HEAD_BYTES + STATEMENT_PAYLOAD_BYTES;

const STATEMENT: u8 = 0;
const UPDATE: u8 = 1;
const WHOLE: u8 = 2;
pub(in crate::store) const SET: u8 = 3;
pub(in crate::store) const HINT: u8 = 4;
pub(in crate::store) const DELIVERED: u8 = 5;
pub(in crate::store) const DROP: u8 = 6;

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// One version came in.
    Update {
        /// Its key.
        key: Key,
        /// The version, and what it was minted upon.
        update: Update,
        /// What to remember of the operation that wrote it.
        remember: Option<Remembered>,
        /// The key's set after it is `update.whole()`, whatever stood there before.
        whole: bool,
        /// What that did to the tree of its partition.
        shift: Shift,
    },
    /// A whole set came in, to be joined with what was there.
    Set {
        /// Its key.
        key: Key,
        /// The set.
        set: Siblings,
        /// What to remember of the operations that came with it.
        remember: Vec<Remembered>,
        /// What that did to the tree of its partition.
        shift: Shift,
    },
    /// The key's set is gone.
    Drop {
        /// Its key.
        key: Key,
        /// What that did to the tree of its partition.
        shift: Shift,
    },
    /// The key's set is owed to a node.
    Hint {
        /// Its key.
        key: Key,
        /// To whom.
        hint: Hint,
    },
    /// The key's set is owed to a node no longer.
    Delivered {
        /// Its key.
        key: Key,
        /// The node.
        target: NodeId,
    },
}

/// The bytes of one record whose checksum holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its sequence number; of a statement, the one of the record behind it.
    pub sequence: AppendId,
    /// What its payload is.
    pub kind: u8,
    /// Its payload.
    pub payload: Bytes,
}

/// What every write begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The life of the segment that it stands in.
    pub life: Life,
    /// The log that it is a part of.
    pub log: LogId,
    /// The sequence number of the first record of its write.
    pub next: AppendId,
    /// The highest sequence number of the log that was known to be durable.
    pub synced: AppendId,
}

impl Statement {
    /// Appends the statement.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_frame(out, self.life, self.next, STATEMENT, |out| {
            out.put_u64_le(self.life.0);
            out.put_u64_le(self.log.start);
            out.put_u16_le(self.log.core.0);
            out.put_u64_le(self.synced.0);
        });
    }

    /// Reads the statement of a segment's present life that stands at the front of `bytes`.
    pub fn read(bytes: &[u8], life: Life) -> Option<Statement> {
        Statement::read_of_any_life(bytes).filter(|statement| statement.life == life)
    }

    /// Reads a statement by the life that it names itself. That is weaker than [`Statement::read`]: a client may have
    /// written a value that looks like one.
    pub fn read_of_any_life(bytes: &[u8]) -> Option<Statement> {
        // Nothing longer is even looked at: a boundary within a value may hold any length.
        let bytes = bytes.get(..STATEMENT_BYTES)?;
        let payload = &bytes[HEAD_BYTES..];
        let life = Life(u64::from_le_bytes(*payload.first_chunk()?));
        let (sequence, kind, length) = verify(bytes, life)?;
        if kind != STATEMENT || length != STATEMENT_PAYLOAD_BYTES {
            return None;
        }
        let mut rest = &payload[8..];
        let start = rest.get_u64_le();
        let core = CoreId(rest.get_u16_le());
        Some(Statement { life, log: LogId { start, core }, next: sequence, synced: AppendId(rest.get_u64_le()) })
    }
}

impl Frame {
    /// Reads the record that stands `at` these bytes; `None` when its checksum does not hold, or when it is a
    /// statement.
    pub fn read(bytes: &Bytes, at: usize, life: Life) -> Option<Frame> {
        let (sequence, kind, length) = verify(bytes.get(at..)?, life)?;
        let payload = bytes.slice(at + HEAD_BYTES..at + HEAD_BYTES + length);
        (kind != STATEMENT).then_some(Frame { sequence, kind, payload })
    }

    /// Bytes that the record which stands `at` these takes up by its own word, if it is one; `None` behind the last.
    pub(super) fn stated_bytes(bytes: &Bytes, at: usize) -> Option<usize> {
        let length = bytes.get(at..)?.try_get_u32_le().ok().filter(|&length| length != 0)?;
        let all = usize::try_from(length).ok()?.checked_add(HEAD_BYTES)?;
        (all <= bytes.len() - at).then_some(all)
    }

    /// Bytes that it takes up.
    pub fn bytes(&self) -> usize {
        HEAD_BYTES + self.payload.len()
    }

    /// What it says.
    ///
    /// # Errors
    /// Any [`WireError`]: its checksum holds, so it was written by another version of sloop.
    pub fn decode(&self) -> Result<Record, WireError> {
        // Large values hold on to the segment, which is in memory until all of it is in the tree in any case.
        let mut reader = Reader::shared(&self.payload);
        let key = Key::new(reader.bytes16("key", KEY_BYTES_MAX)?)?;
        let record = match self.kind {
            UPDATE | WHOLE => get_update(&mut reader, key, self.kind == WHOLE)?,
            SET => get_set(&mut reader, key)?,
            HINT => {
                let target = NodeId(reader.u64("target")?);
                Record::Hint { key, hint: Hint { target, counted: layout::get_counted(&mut reader)? } }
            }
            DELIVERED => Record::Delivered { key, target: NodeId(reader.u64("target")?) },
            DROP => Record::Drop { key, shift: get_shift(&mut reader)? },
            kind => {
                return Err(WireError::Unknown { what: "record kind", tag: kind.into() });
            }
        };
        reader.end()?;
        Ok(record)
    }
}

fn get_update(from: &mut Reader, key: Key, whole: bool) -> Result<Record, WireError> {
    let shift = get_shift(from)?;
    let update = sets::get_update(from)?;
    let remember = match from.left() {
        0 => None,
        _ => Some(sets::get_remembered(from)?),
    };
    Ok(Record::Update { key, update, remember, whole, shift })
}

fn get_set(from: &mut Reader, key: Key) -> Result<Record, WireError> {
    let shift = get_shift(from)?;
    let set = sets::get_set(from)?;
    let mut remember = Vec::new();
    while from.left() != 0 {
        remember.push(sets::get_remembered(from)?);
    }
    Ok(Record::Set { key, set, remember, shift })
}

fn get_shift(from: &mut Reader) -> Result<Shift, WireError> {
    let digest = from.u64("digest of a shift")?;
    let head = from.u8("counts of a shift")?;
    let (counts, length) = (head & 0x0f, usize::from(head >> 4));
    let Some((keys, buried)) = counted(counts).filter(|_| length <= 8) else {
        return Err(WireError::Unknown { what: "counts of a shift", tag: head.into() });
    };
    let mut bytes = 0;
    for at in 0..length {
        bytes |= u64::from(from.u8("bytes of a shift")?) << (8 * at);
    }
    Ok(Shift { digest, keys, buried, bytes: (bytes >> 1).cast_signed() ^ -(bytes & 1).cast_signed() })
}

/// The keys and the buried ones that a number from 0 to 8 stands for.
fn counted(counts: u8) -> Option<(i8, i8)> {
    let part = |third: u8| [-1, 0, 1].get(usize::from(third)).copied();
    Some((part(counts / 3)?, part(counts % 3)?))
}

fn put_shift(out: &mut Vec<u8>, Shift { digest, keys, buried, bytes }: Shift) {
    let bytes = (bytes.cast_unsigned() << 1) ^ (bytes >> 63).cast_unsigned();
    let length = 8 - bytes.leading_zeros() / 8;
    let counts = 3 * (keys + 1) + buried + 1;
    out.put_u64_le(digest);
    out.put_u8(counts.cast_unsigned() | (length as u8) << 4);
    out.put_uint_le(bytes, length as usize);
}

/// Appends the record of an append.
pub fn put_append(out: &mut Vec<u8>, life: Life, append: &Append) {
    put_frame(out, life, append.id, kind(&append.change), |out| {
        put_bytes16(out, append.key.as_bytes());
        match &append.change {
            Change::Version(arrived) => {
                put_shift(out, arrived.shift);
                sets::put_update(out, arrived.update());
                arrived.remember.iter().for_each(|remembered| sets::put_remembered(out, remembered));
            }
            Change::Set { came, remember, shift, .. } => {
                put_shift(out, *shift);
                sets::put_set(out, came);
                remember.iter().for_each(|remembered| sets::put_remembered(out, remembered));
            }
            Change::Drop { shift } => put_shift(out, *shift),
            Change::Hint(Hint { target, counted }) => {
                out.put_u64_le(target.0);
                out.put_u8(u8::from(*counted));
            }
            Change::Delivered { target } => out.put_u64_le(target.0),
        }
    });
}

fn kind(change: &Change) -> u8 {
    match change {
        Change::Version(arrived) if tells_the_set(arrived) => WHOLE,
        Change::Version(_) => UPDATE,
        Change::Set { .. } => SET,
        Change::Drop { .. } => DROP,
        Change::Hint(_) => HINT,
        Change::Delivered { .. } => DELIVERED,
    }
}

/// Whether the update alone leads to the state. Equal dots name equal versions, so the values need not be compared.
fn tells_the_set(arrived: &Arrived) -> bool {
    let [version] = arrived.state.versions() else {
        return false;
    };
    version.dot == arrived.dot && arrived.update().whole_vector().is_some_and(|whole| whole == *arrived.state.vector())
}

fn put_frame(out: &mut Vec<u8>, life: Life, sequence: AppendId, kind: u8, payload: impl FnOnce(&mut Vec<u8>)) {
    let from = out.len();
    out.put_u64_le(0);
    out.put_u64_le(sequence.0);
    out.put_u8(kind);
    payload(out);
    let length = u32::try_from(out.len() - from - HEAD_BYTES).expect("a set is bounded below 4 GiB");
    let checksum = checksum(life, length, &out[from + 8..]);
    out[from..from + 4].copy_from_slice(&length.to_le_bytes());
    out[from + 4..from + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// Sequence number, kind and length of the payload, when the checksum holds.
fn verify(mut bytes: &[u8], life: Life) -> Option<(AppendId, u8, usize)> {
    let length = bytes.try_get_u32_le().ok().filter(|&length| length != 0)?;
    let found = bytes.try_get_u32_le().ok()?;
    let covered = bytes.get(..usize::try_from(length).ok()?.checked_add(HEAD_BYTES - 8)?)?;
    if checksum(life, length, covered) != found {
        return None;
    }
    let sequence = bytes.get_u64_le();
    // Before the first record and behind the last possible one: no log gets to either.
    if sequence == 0 || sequence == u64::MAX {
        return None;
    }
    Some((AppendId(sequence), bytes.get_u8(), length as usize))
}

fn checksum(life: Life, length: u32, covered: &[u8]) -> u32 {
    let seeded = crc32c::crc32c(&life.0.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(seeded, &length.to_le_bytes()), covered)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::causality::Siblings;
    use crate::store::samples::{Shard, arrived, key, log_id, remembered, state};

    const LIFE: Life = Life(0x0807_0605_0403_0201);

    fn statement() -> Statement {
        Statement { life: LIFE, log: log_id(3), next: AppendId(5), synced: AppendId(4) }
    }

    fn spelled(append: &Append) -> Bytes {
        let mut bytes = Vec::new();
        put_append(&mut bytes, LIFE, append);
        bytes.into()
    }

    #[test]
    fn the_bytes_of_records_never_change() {
        let mut bytes = Vec::new();
        statement().put(&mut bytes);
        let expected = "1a000000 7fd07973 0500000000000000 00 0102030405060708 0300000000000000 0000 0400000000000000";
        assert_golden(&bytes, expected);

        let mut shard = Shard::new();
        let append = shard.put_as("k", b"v", &Siblings::default(), "op");
        let [dot, next] = ["0100000000000000 0100000000000000", "0100000000000000 0200000000000000"];
        let remember =
            "0200 6f70 0700000000000000".to_owned() + dot + "0900000000000000 00000000 01000000" + dot + "00000000";
        let update =
            format!("0100 6b 22991e93bc7c1a74 17 84 {dot} 01 0900000000000000 01000000 76 00000000 00 {remember}");
        assert_golden(&spelled(&append), &format!("70000000 1c4bbe23 0100000000000000 02 {update}"));

        let beside = shard.put_beside("k", b"w", &state(&append));
        let update = format!("0100 6b 2c7e924c56ecb158 14 62 {next} 01 0900000000000000 01000000 77 01000000 {dot} 01");
        assert_golden(&spelled(&beside), &format!("40000000 5f895962 0200000000000000 01 {update}"));

        let remembered = vec![remembered(&append); 2];
        let (state, came) = (state(&beside), state(&append));
        let shift = Shift { digest: 5, keys: -1, buried: 1, bytes: -0x0102 };
        let came = shard.append("k", Change::Set { state, came, remember: remembered, shift });
        let set = format!("01000000 {dot} 01000000 {dot} 01 0900000000000000 01000000 76");
        let shifted = "0500000000000000 22 0302";
        let set = format!("c4000000 bbc77f2e 0300000000000000 03 0100 6b {shifted} {set} {remember} {remember}");
        assert_golden(&spelled(&came), &set);

        let (target, counted) = (NodeId(LIFE.0), true);
        let hint = shard.append("k", Change::Hint(Hint { target, counted }));
        assert_golden(&spelled(&hint), "0c000000 4141cf2a 0400000000000000 04 0100 6b 0102030405060708 01");
        let delivered = shard.append("k", Change::Delivered { target });
        assert_golden(&spelled(&delivered), "0b000000 3c29202f 0500000000000000 05 0100 6b 0102030405060708");
        let dropped = shard.append("k", Change::Drop { shift });
        assert_golden(&spelled(&dropped), "0e000000 fc6ff0ef 0600000000000000 06 0100 6b 0500000000000000 22 0302");
    }

    fn assert_golden(bytes: &[u8], expected: &str) {
        assert_eq!(hex::encode(bytes), expected.replace(' ', ""));
    }

    #[test]
    fn a_record_reads_back_in_its_own_life_only() {
        let append = Shard::new().put_as("k", b"value", &Siblings::default(), "op");
        let bytes = spelled(&append);

        let frame = Frame::read(&bytes, 0, LIFE).unwrap();
        assert_eq!((frame.sequence, frame.bytes()), (AppendId(1), bytes.len()));
        let expected = Record::Update {
            key: key("k"),
            update: arrived(&append).update().cloned(),
            remember: Some(remembered(&append)),
            whole: true,
            shift: arrived(&append).shift,
        };
        assert_eq!(frame.decode(), Ok(expected));
        assert_eq!(Frame::read(&bytes, 0, Life(7)), None);
    }

    #[test]
    fn a_record_with_any_bit_flipped_does_not_verify() {
        let bytes = spelled(&Shard::new().put("k", b"value", &Siblings::default()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::read(&flipped.into(), 0, LIFE), None, "bit {bit}");
        }
    }

    #[test]
    fn a_record_says_whether_it_alone_tells_the_set() {
        let mut shard = Shard::new();
        let whole = |append: &Append| Frame::read(&spelled(append), 0, LIFE).unwrap().kind == WHOLE;

        let first = shard.put("k", b"1", &Siblings::default());
        let beside = shard.put_beside("k", b"2", &state(&first));
        let over = shard.put("k", b"3", &state(&beside));
        assert_eq!([&first, &beside, &over].map(whole), [true, false, true]);

        // A replica may hold more than the coordinator did: the update replaces all that it was minted upon, and
        // yet does not tell what stands here.
        let elsewhere = Change::Version(Arrived { state: state(&beside), ..arrived(&first).clone() });
        assert!(!whole(&Append { change: elsewhere, ..first }));
    }

    fn read(change: Change) -> Record {
        let bytes = spelled(&Append { id: AppendId(9), key: key("k"), change });
        Frame::read(&bytes, 0, LIFE).unwrap().decode().unwrap()
    }

    #[test]
    fn a_set_reads_back_with_all_that_is_to_be_remembered() {
        let mut shard = Shard::new();
        let came = state(&shard.put("k", b"1", &Siblings::default()));
        let held = state(&shard.put("k", b"2", &Siblings::default()));
        let mut remembered = |name| remembered(&shard.put_as("k", b"3", &came, name));
        for remember in [vec![], vec![remembered("one")], vec![remembered("one"), remembered("two")]] {
            let state = Arc::new(held.join(&came));
            let set = Siblings::clone(&came);
            let shift = Shift { digest: 7, ..Shift::default() };
            let expected = Record::Set { key: key("k"), set, remember: remember.clone(), shift };
            assert_eq!(read(Change::Set { state, came: came.clone(), remember, shift }), expected);
        }
    }

    #[test]
    fn a_hint_and_its_delivery_read_back() {
        let target = NodeId(7);
        for counted in [false, true] {
            let hint = Hint { target, counted };
            assert_eq!(read(Change::Hint(hint)), Record::Hint { key: key("k"), hint });
        }
        assert_eq!(read(Change::Delivered { target }), Record::Delivered { key: key("k"), target });
    }

    #[test]
    fn every_shift_reads_back_and_the_usual_one_is_small() {
        for bytes in [0, 1, -1, 63, -64, 64, 255, -256, 1 << 20, i64::from(u32::MAX), i64::MAX, i64::MIN] {
            for (keys, buried) in [(0, 0), (1, 0), (1, 1), (0, -1), (0, 1), (-1, 0), (-1, -1)] {
                let shift = Shift { digest: u64::MAX - 5, keys, buried, bytes };
                assert_eq!(read(Change::Drop { shift }), Record::Drop { key: key("k"), shift });
                let mut spelled = Vec::new();
                put_shift(&mut spelled, shift);
                assert!(spelled.len() <= 17);
                assert!(spelled.len() <= 10 || !(-128..128).contains(&bytes), "{bytes} takes {}", spelled.len());
            }
        }
        for head in [9, 0x0f, 0x90, 0xf0] {
            let foreign = [&[0; 8][..], &[head], &[0; 16]].concat();
            assert!(matches!(get_shift(&mut Reader::new(&foreign)), Err(WireError::Unknown { .. })), "{head}");
        }
    }

    #[test]
    fn a_statement_is_no_record_and_a_record_no_statement() {
        let mut bytes = Vec::new();
        statement().put(&mut bytes);
        assert_eq!(bytes.len(), STATEMENT_BYTES);
        assert_eq!(Statement::read(&bytes, LIFE), Some(statement()));
        assert_eq!(Statement::read(&bytes, Life(7)), None);
        assert_eq!(Statement::read_of_any_life(&bytes), Some(statement()));
        assert_eq!(Frame::read(&bytes.into(), 0, LIFE), None);

        let record = spelled(&Shard::new().put("k", b"value", &Siblings::default()));
        assert_eq!(Statement::read_of_any_life(&record), None);
    }

    #[test]
    fn a_kind_of_a_later_version_is_named() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, LIFE, AppendId(1), 7, |out| out.extend_from_slice(b"\x01\x00k"));
        let frame = Frame::read(&bytes.into(), 0, LIFE).unwrap();
        assert_eq!(frame.decode().unwrap_err().to_string(), "record kind: unknown tag 7");
    }
}
