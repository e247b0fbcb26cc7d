use std::time::Duration;

use super::*;
use crate::protocol::causality::Siblings;
use crate::protocol::types::CoreId;
use crate::store::layout;
use crate::store::samples::{Shard, log_id};
use crate::store::wal::log::{Log, LogConfig};
use crate::store::wal::segment::SpareSegment;

const SEGMENT_BLOCKS: usize = 4;

/// The segments of one log: four blocks each, so a header and up to three small writes.
fn written(log: LogId, first_file: u32, writes: &[usize]) -> Vec<SegmentFile> {
    written_in(Life(77), log, first_file, writes)
}

fn written_in(life: Life, log: LogId, first_file: u32, writes: &[usize]) -> Vec<SegmentFile> {
    let config = LogConfig {
        id: log,
        write_bytes_max: 8 * BLOCK,
        segment_bytes_min: 4 * BLOCK as u64,
        segment_bytes_max: 4 * BLOCK as u64,
        retry: Duration::ZERO,
    };
    let bytes = (SEGMENT_BLOCKS * BLOCK) as u64;
    let spare = |at| SpareSegment { id: SegmentId(first_file + at), bytes };
    let mut files = vec![vec![0; SEGMENT_BLOCKS * BLOCK]; 4];
    let mut log = Log::new(config, (0..4).map(spare).collect());
    let mut shard = Shard::new();
    for records in writes {
        (0..*records).for_each(|_| log.append(shard.put("k", b"value", &Siblings::default())));
        let write = log.next_write(|| life).unwrap();
        let (file, at) = (&mut files[(write.segment.0 - first_file) as usize], write.offset as usize);
        file[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
        log.on_written(write);
    }
    let file = |(at, bytes): (u32, Vec<u8>)| SegmentFile { id: SegmentId(first_file + at), bytes: bytes.into() };
    (0..).zip(files).map(file).collect()
}

fn damage_at(files: &mut [SegmentFile], file: usize, offset: usize) {
    let mut bytes = files[file].bytes.to_vec();
    bytes[offset] ^= 1;
    files[file].bytes = bytes.into();
}

fn records(files: &[SegmentFile], known: &Known) -> usize {
    replay(files, known, Planted::NONE).unwrap().logs.values().map(Vec::len).sum()
}

fn damage(files: &[SegmentFile]) -> Damage {
    match replay(files, &Known::default(), Planted::NONE) {
        Err(ReplayError::Damage(damage)) => damage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_segments_of_all_logs_are_read_in_any_order() {
    // SEEDS fault 9: recovery that reads only the first segment.
    let other = LogId { start: 1, core: CoreId(5) };
    let mut files = written(log_id(1), 0, &[2, 2, 2, 2, 2, 2, 2]);
    files.extend(written(other, 10, &[3, 1]));
    files.reverse();
    let replayed = replay(&files, &Known::default(), Planted::NONE).unwrap();
    let counts: Vec<_> = replayed.logs.values().map(Vec::len).collect();
    assert_eq!((counts, replayed.tails), (vec![14, 4], vec![]));
}

#[test]
fn what_the_tree_has_is_not_read_again() {
    let files = written(log_id(4), 0, &[2, 2, 2, 2]);
    let mut known = Known::default();
    let (key, value) = layout::position_entry(log_id(4), AppendId(5));
    known.learn(&key, &value).unwrap();
    assert_eq!(records(&files, &known), 3);

    let (key, value) = layout::closed_below_entry(5);
    known.learn(&key, &value).unwrap();
    assert_eq!(replay(&files, &known, Planted::NONE), Ok(Replay::default()));
}

#[test]
fn a_torn_last_write_is_a_tail_that_is_cut_and_told() {
    let mut files = written(log_id(1), 0, &[2, 3]);
    // The second write's second record; the third one stands whole behind it.
    let (_, offset) = place_of_record(&files[0], 2 * BLOCK, 1);
    damage_at(&mut files, 0, offset + 20);

    let replayed = replay(&files, &Known::default(), Planted::NONE).unwrap();
    assert_eq!(replayed.logs[&log_id(1)].len(), 3);
    let [tail] = replayed.tails[..] else {
        panic!("{:?}", replayed.tails);
    };
    assert_eq!((tail.from, tail.file, tail.offset), (AppendId(4), SegmentId(0), offset));
}

#[test]
fn a_bad_record_that_was_stated_is_damage_with_its_place() {
    let mut files = written(log_id(1), 0, &[2, 3, 1]);
    let (_, offset) = place_of_record(&files[0], 2 * BLOCK, 1);
    damage_at(&mut files, 0, offset + 20);

    let damage = damage(&files);
    assert_eq!((damage.missing, damage.synced), (AppendId(4), AppendId(5)));
    assert_eq!(
        damage.to_string(),
        format!(
            "log of start 1 core 0: record 4 is missing, but up to 5 was durable: 00000000.seg is damaged at byte \
             {offset}"
        )
    );
}

#[test]
fn a_lost_statement_is_damage_where_its_records_were_stated_behind_it() {
    let mut files = written(log_id(1), 0, &[2, 3, 1]);
    damage_at(&mut files, 0, 2 * BLOCK + 30);
    assert_eq!(damage(&files).missing, AppendId(3));
}

#[test]
fn a_segment_that_is_gone_is_damage() {
    let mut files = written(log_id(1), 0, &[1; 7]);
    files.remove(1);
    let damage = damage(&files);
    assert_eq!((damage.missing, damage.synced), (AppendId(4), AppendId(6)));
    files.remove(0);
    let lost = super::replay(&files, &Known::default(), Planted::NONE).unwrap_err().to_string();
    assert!(lost.ends_with("the segment that held it is not there"), "{lost}");
}

#[test]
fn an_unreadable_header_is_named_with_what_it_took_along() {
    // The only segment: what was stated is known from the statements themselves.
    let mut files = written(log_id(1), 0, &[1, 2]);
    damage_at(&mut files, 0, 20);
    let damage = damage(&files);
    assert_eq!((damage.missing, damage.synced), (AppendId(1), AppendId(1)));
    assert!(damage.to_string().ends_with("; the header of 00000000.seg is unreadable"));

    let mut known = Known::default();
    let (key, value) = layout::position_entry(log_id(1), AppendId(3));
    known.learn(&key, &value).unwrap();
    assert_eq!(records(&files, &known), 0, "nothing that is missing was needed");
}

#[test]
fn what_an_old_life_left_behind_never_verifies() {
    let old = written_in(Life(77), log_id(1), 0, &[12, 12]);
    let mut files = written_in(Life(78), log_id(2), 0, &[12]);
    // Of the new life's only write, just the header and one sector of records reached the disk: the old records
    // behind it have the right numbers and stand in the right places.
    let mut bytes = old[0].bytes.to_vec();
    let kept = BLOCK + 512;
    bytes[..kept].copy_from_slice(&files[0].bytes[..kept]);
    files[0].bytes = bytes.into();

    let replayed = replay(&files, &Known::default(), Planted::NONE).unwrap();
    let records = replayed.logs[&log_id(2)].len();
    assert!((1..12).contains(&records), "{records}");
    assert_eq!(replayed.tails[0].from, AppendId(records as u64 + 1));
}

#[test]
fn a_value_that_looks_like_a_statement_is_not_believed() {
    let mut forged = Vec::new();
    Statement { life: Life(1), log: log_id(1), next: AppendId(9), synced: AppendId(1_000) }.put(&mut forged);
    let mut files = written(log_id(1), 0, &[1, 1]);
    let mut bytes = files[0].bytes.to_vec();
    bytes[3 * BLOCK..3 * BLOCK + forged.len()].copy_from_slice(&forged);
    files[0].bytes = bytes.into();
    assert_eq!(records(&files, &Known::default()), 2);
}

#[test]
fn a_log_of_a_later_format_is_refused_with_its_number() {
    let mut files = written(log_id(1), 0, &[1]);
    let mut bytes = files[0].bytes.to_vec();
    bytes[8] = 9;
    let crc = crc32c::crc32c(&bytes[..64]).to_le_bytes();
    bytes[64..68].copy_from_slice(&crc);
    files[0].bytes = bytes.into();
    let refused = replay(&files, &Known::default(), Planted::NONE).unwrap_err().to_string();
    assert_eq!(refused, "00000000.seg has log format 9, this version reads format 2: start the version that wrote it");
}

#[test]
fn any_bytes_at_all_are_read_without_panic() {
    let files = written(log_id(1), 0, &[2, 3, 1, 2, 5]);
    let mut state = 1_u64;
    let mut random = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % bound
    };
    for _ in 0..3_000 {
        let mut files = files.clone();
        for _ in 0..random(4) + 1 {
            let file = random(2);
            let mut bytes = files[file].bytes.to_vec();
            let (from, to, length) = (random(bytes.len()), random(bytes.len()), random(64));
            match random(3) {
                0 => bytes[from] = random(256) as u8,
                1 => bytes.truncate(from),
                _ => (0..length).for_each(|at| {
                    let byte = bytes[(from + at) % (SEGMENT_BLOCKS * BLOCK).min(bytes.len())];
                    let to = (to + at) % bytes.len();
                    bytes[to] = byte;
                }),
            }
            if !bytes.is_empty() {
                files[file].bytes = bytes.into();
            }
        }
        let _ = replay(&files, &Known::default(), Planted::NONE);
    }
}

/// Number and offset of the n-th record of the write whose statement stands `at`.
fn place_of_record(file: &SegmentFile, at: usize, n: usize) -> (AppendId, usize) {
    let mut offset = at + STATEMENT_BYTES;
    for _ in 0..n {
        offset += Frame::read(&file.bytes, offset, Life(77)).unwrap().bytes();
    }
    (Frame::read(&file.bytes, offset, Life(77)).unwrap().sequence, offset)
}
