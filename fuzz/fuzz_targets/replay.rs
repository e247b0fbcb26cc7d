//! Logs that a disk has spoiled. Nothing panics; nothing comes back that was not appended, or out of its order; and a
//! log that was not spoiled comes back whole.
//!
//! The first byte chooses: a log that the log itself wrote and that edits then spoil, or records of any content under
//! checksums that hold, which no edit would ever reach.

#![no_main]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sloop::protocol::antientropy::Shift;
use sloop::protocol::causality::{Minted, Operation, Siblings, Supersedes, Write};
use sloop::protocol::io::{Append, Arrived, Change, Hint};
use sloop::protocol::planted::Planted;
use sloop::protocol::replica::Remembered;
use sloop::protocol::ring::Ring;
use sloop::protocol::types::{
    ActorId, AppendId, CoreId, Dot, Instant, Key, LogId, NodeId, OperationId, Value, WallTime,
};
use sloop::store::layout::{hint_key, hint_prefix};
use sloop::store::recovery::recover;
use sloop::store::wal::log::{Log, LogConfig};
use sloop::store::wal::record::{Record, Statement};
use sloop::store::wal::segment::{BLOCK, Header, Life, SegmentId, SpareSegment};
use sloop::store::wal::{SegmentFile, replay};
use sloop::store::{Chunk, Known, Place};

const LOG: LogId = LogId { start: 1, core: CoreId(0) };
const APPENDS_MAX: u8 = 12;
const EDITS_MAX: usize = 8;
/// A checksum of 32 bits tells every spoiled record from a whole one while few bits are turned.
const FLIPS_MAX: usize = 3;

fn ring() -> Ring {
    Ring::new(16)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    if first < 0x80 { spoiled(first % APPENDS_MAX, bytes) } else { forged(bytes) }
});

fn spoiled(appends: u8, edits: &[u8]) {
    let (mut files, appended) = written(appends);
    let whole = files.clone();
    let mut flips = 0;
    let (edits, _) = edits.as_chunks::<6>();
    for &edit in edits.iter().take(EDITS_MAX) {
        spoil(&mut files, edit, &mut flips);
    }

    let segments: Vec<SegmentFile> =
        files.iter().map(|(id, bytes)| SegmentFile { id: *id, bytes: Bytes::copy_from_slice(bytes) }).collect();
    match replay(&segments, &Known::default(), Planted::NONE) {
        Err(error) => assert_ne!(files, whole, "nothing was spoiled: {error}"),
        Ok(replayed) => {
            let records = replayed.logs.get(&LOG).map_or(&[][..], Vec::as_slice);
            assert!(records.len() <= appended.len());
            for (logged, append) in records.iter().zip(&appended) {
                let record = logged.decode(LOG).expect("its checksum holds");
                assert!(says(&record, append), "{record:?} stands where {append:?} was appended");
            }
            if files == whole {
                assert_eq!(records.len(), appended.len(), "nothing was spoiled");
            }
            let chunk = recover(&replayed, ring(), 2, 7, |_| Ok(None), |_| Ok(None))
                .expect("each key's first write told its whole set");
            assert_eq!(hints(&chunk), owed(&appended[..records.len()]), "the newest of each");
        }
    }
}

/// Whether a record is that of an append.
fn says(record: &Record, append: &Append) -> bool {
    match (record, &append.change) {
        (Record::Update { key, update, shift, .. }, Change::Version(arrived)) => {
            *key == append.key && update.borrowed() == arrived.update() && *shift == arrived.shift
        }
        (Record::Set { key, set, remember: read, shift: moved }, Change::Set { came, remember, shift, .. }) => {
            (key, set, read, moved) == (&append.key, came, remember, shift)
        }
        (Record::Drop { key, shift: moved }, Change::Drop { shift }) => (key, moved) == (&append.key, shift),
        (Record::Hint { key, hint: read }, Change::Hint(hint)) => (key, read) == (&append.key, hint),
        (Record::Delivered { key, target: read }, Change::Delivered { target }) => (key, read) == (&append.key, target),
        _ => false,
    }
}

/// By the tree's key, whether a hint counted; `None` where it was delivered.
type Hints = BTreeMap<Vec<u8>, Option<bool>>;

/// What a chunk spells of hints.
fn hints(chunk: &Chunk) -> Hints {
    let mut hints = Hints::new();
    let put = |key: &[u8], value: Option<&[u8]>| {
        if key.starts_with(&hint_prefix()) {
            hints.insert(key.to_vec(), value.map(|value| value == [1]));
        }
        Ok::<_, Infallible>(())
    };
    let Ok(()) = chunk.spell(put);
    hints
}

/// What appends say of hints.
fn owed(appended: &[Append]) -> Hints {
    let owed = |append: &Append| {
        let (target, counted) = match append.change {
            Change::Hint(Hint { target, counted }) => (target, Some(counted)),
            Change::Delivered { target } => (target, None),
            Change::Version(_) | Change::Set { .. } | Change::Drop { .. } => return None,
        };
        Some((hint_key(&Place::of(ring(), &append.key), target), counted))
    };
    appended.iter().filter_map(owed).collect()
}

/// A log of a few records of two keys, two records a write, over segments that fill up.
fn written(appends: u8) -> (BTreeMap<SegmentId, Vec<u8>>, Vec<Append>) {
    let block = BLOCK as u64;
    let config = LogConfig {
        id: LOG,
        write_bytes_max: 1024,
        segment_bytes_min: 3 * block,
        segment_bytes_max: 4 * block,
        retry: Duration::from_secs(1),
    };
    let mut log = Log::new(config, vec![]);
    let mut files: BTreeMap<SegmentId, Vec<u8>> = BTreeMap::new();
    let mut sets = [Siblings::default(), Siblings::default()];
    let mut appended = vec![];
    for number in 1..=appends {
        let append = append(number, &mut sets[usize::from(number % 2)]);
        appended.push(append.clone());
        log.append(append);
        if number % 2 == 0 || number == appends {
            write_all(&mut log, &mut files);
        }
    }
    (files, appended)
}

/// Of each kind one at least, and of each key's hint what comes behind it.
fn append(number: u8, set: &mut Siblings) -> Append {
    let target = NodeId(7);
    let key = Key::new(vec![b'a' + number % 2]).expect("one byte is a key");
    let change = match number {
        3 | 6 => received(&key, number, set),
        7 => dropped(&key, set),
        4 | 5 | 10 => Change::Hint(Hint { target, counted: number == 4 }),
        8 | 11 => Change::Delivered { target },
        _ => written_here(&key, number, set),
    };
    Append { id: AppendId(number.into()), key, change }
}

/// A key that holds nothing has no set.
fn shift(key: &Key, before: &Siblings, after: &Siblings) -> Shift {
    fn held(set: &Siblings) -> Option<&Siblings> {
        Some(set).filter(|set| **set != Siblings::default())
    }
    Shift::between(key, held(before), held(after))
}

fn dropped(key: &Key, set: &mut Siblings) -> Change {
    let before = std::mem::take(set);
    Change::Drop { shift: shift(key, &before, set) }
}

fn written_here(key: &Key, number: u8, set: &mut Siblings) -> Change {
    let minted = mint(1, number, set);
    let shift = shift(key, set, &minted.set);
    *set = minted.set;
    let state = Arc::new(set.clone());
    let Minted { dot, upon, supersedes, .. } = minted;
    Change::Version(Arrived { state, dot, upon, supersedes, remember: None, shift })
}

/// A set that was written elsewhere, with an operation.
fn received(key: &Key, number: u8, set: &mut Siblings) -> Change {
    let Minted { set: came, dot, superseded, context, .. } = mint(2, number, &Siblings::default());
    let before = std::mem::replace(set, set.join(&came));
    let shift = shift(key, &before, set);
    let operation = Operation { id: OperationId::new(vec![number]).expect("one byte is an id"), digest: 7 };
    let remember = vec![Remembered { operation, dot, written_at: WallTime(1), superseded, context }];
    Change::Set { state: Arc::new(set.clone()), came: Arc::new(came), remember, shift }
}

fn mint(actor: u64, number: u8, upon: &Siblings) -> Minted {
    let dot = Dot { actor: ActorId(actor), counter: number.into() };
    let value = (number % 7 != 0).then(|| Value::new(vec![number; 100]).expect("100 bytes are a value"));
    let supersedes = if number % 3 == 0 { Supersedes::Nothing } else { Supersedes::Held };
    let write = Write { value, supersedes, operation: None, written_at: WallTime(1) };
    upon.mint(dot, write).expect("a few siblings are within the limit")
}

fn write_all(log: &mut Log, files: &mut BTreeMap<SegmentId, Vec<u8>>) {
    loop {
        while let Some(wish) = log.next_segment(Instant(0)) {
            let id = SegmentId(u32::try_from(files.len()).expect("a few files"));
            let length = usize::try_from(wish.bytes).expect("a few blocks");
            files.insert(id, vec![0; length]);
            log.on_segment_ready(SpareSegment::new(id, wish.bytes).expect("two blocks at least"));
        }
        let used = files.len() as u64;
        let Some(write) = log.next_write(|| Life(0x1eaf_0000 + used)) else { return };
        let at = usize::try_from(write.offset).expect("a few blocks");
        let file = files.get_mut(&write.segment).expect("a spare that was given");
        file[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
        log.on_written(write);
    }
}

fn spoil(files: &mut BTreeMap<SegmentId, Vec<u8>>, edit: [u8; 6], flips: &mut usize) {
    let [what, which, high, low, from, length] = edit;
    let count = files.len();
    let Some(file) = files.values_mut().nth(usize::from(which) % count.max(1)).filter(|file| !file.is_empty()) else {
        return;
    };
    let at = usize::from(u16::from_be_bytes([high, low])) % file.len();
    let block = |at: usize| at / BLOCK * BLOCK;
    match what % 5 {
        0 if *flips < FLIPS_MAX => {
            *flips += 1;
            file[at] ^= 1 << (length % 8);
        }
        0 => {}
        1 => {
            let end = (at + usize::from(length)).min(file.len());
            file[at..end].fill(0);
        }
        2 => file.truncate(at),
        3 => {
            let from = block(usize::from(from) * BLOCK % file.len());
            let end = (from + BLOCK).min(file.len());
            let to = block(at).min(file.len() - (end - from));
            file.copy_within(from..end, to);
        }
        _ => {
            let end = (block(at) + BLOCK).min(file.len());
            file[block(at)..end].fill(0);
        }
    }
}

/// Records of any content, in order, in one segment.
fn forged(mut bytes: &[u8]) {
    let life = Life(7);
    let mut segment = vec![];
    let size = 16 * BLOCK as u64;
    let header = Header { life, log: LOG, index: 0, first: AppendId(1), bytes: size, synced: AppendId(0) };
    header.put(&mut segment);
    let statement = Statement { life, log: LOG, next: AppendId(1), synced: AppendId(0) };
    statement.put(&mut segment);
    let mut sequence = 0_u64;
    while let Some((&[kind, high, low], rest)) = bytes.split_first_chunk() {
        sequence += 1;
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len()).min(BLOCK);
        let (payload, rest) = rest.split_at(length);
        bytes = rest;
        put_frame(&mut segment, life, sequence, kind, payload);
    }
    segment.resize(segment.len().next_multiple_of(BLOCK).max(16 * BLOCK), 0);
    let file = SegmentFile { id: SegmentId(0), bytes: segment.into() };
    if let Ok(replayed) = replay(&[file], &Known::default(), Planted::NONE) {
        let _ = recover(&replayed, ring(), 2, 7, |_| Ok(None), |_| Ok(None));
    }
}

/// As docs/STORAGE.md draws it.
fn put_frame(out: &mut Vec<u8>, life: Life, sequence: u64, kind: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("two bytes of length").to_le_bytes();
    let covered = [&sequence.to_le_bytes()[..], &[kind], payload].concat();
    let checksum = crc32c::crc32c(&[&life.0.to_le_bytes()[..], &length, &covered].concat());
    out.extend(length);
    out.extend(checksum.to_le_bytes());
    out.extend(covered);
}
