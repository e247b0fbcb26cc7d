//! Reading logs back after a crash, and telling a tail from damage.
//!
//! Judgement is by sequence number alone. Let S be the highest number that any header or statement of the log states
//! as durable, wherever it stands. Every record behind the position (what the LSM tree has already) and up to S must
//! be there: one that is not is *damage*, an error, never a silent skip. Behind S nothing was promised for sure, so
//! records count up to the first gap; what stands behind it is the *tail*, and is dropped whatever it is.
//!
//! Writes begin at block boundaries with a statement, so after a bad record the search goes on at the boundaries
//! behind it. A statement counts only in the present life of its segment, whose 64 random bits no client knows: else a
//! value that looks like one could talk a node into seeing damage. Where the header itself is unreadable there is
//! damage already, and any statement counts.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::record::{Frame, Record, STATEMENT_BYTES, Statement};
use super::segment::{BLOCK, Header, Life, NoHeader, SegmentId, align};
use crate::protocol::types::{AppendId, LogId};
use crate::store::layout::Known;
use crate::wire::WireError;

/// One segment's file, as it was found.
#[derive(Clone, Debug)]
pub struct SegmentFile {
    /// Its number.
    pub id: SegmentId,
    /// All of its bytes.
    pub bytes: Bytes,
}

/// What the logs hold that the LSM tree does not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Records of each open log behind its position, in order. They are read one by one when they are put together:
    /// read, they would take several times the memory of the log.
    pub logs: BTreeMap<LogId, Vec<Logged>>,
    /// What was dropped: writes that were under way when the log ended, and were never acknowledged.
    pub tails: Vec<Tail>,
}

/// A record of a log whose checksum holds, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its bytes.
    pub frame: Frame,
    /// The segment.
    pub file: SegmentId,
    /// Byte in the file.
    pub offset: usize,
}

/// The end of a log that was under way when the node stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "log of {log}: dropped an unfinished write from record {} on, {bytes} bytes or more, in {file} at byte {offset}",
    .from.0
)]
pub struct Tail {
    /// The log.
    pub log: LogId,
    /// The first record that was dropped.
    pub from: AppendId,
    /// Where the break is.
    pub file: SegmentId,
    /// Byte in the file.
    pub offset: usize,
    /// Bytes of whole records that were dropped, and of the block with the broken one.
    pub bytes: usize,
}

/// A record that was durable is gone. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The log.
    pub log: LogId,
    /// The first record that is missing.
    pub missing: AppendId,
    /// The last record that the log states as durable.
    pub synced: AppendId,
    /// The file and byte where the record should stand, if its segment was found.
    pub place: Option<(SegmentId, usize)>,
    /// Segments whose header cannot be read.
    pub unreadable: Vec<SegmentId>,
}

/// The logs cannot be replayed. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Durable records are gone.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// A segment of another version of sloop.
    #[error("{file} has log format {found}, this version reads format 1: start the version that wrote it")]
    Format {
        /// The segment.
        file: SegmentId,
        /// The format found.
        found: u32,
    },
    /// A record whose checksum holds and which says nothing that this version knows.
    #[error("log of {log}: record {} in {file} at byte {offset} cannot be read: {cause}", .sequence.0)]
    Unknown {
        /// The log.
        log: LogId,
        /// The record.
        sequence: AppendId,
        /// The segment.
        file: SegmentId,
        /// Byte in the file.
        offset: usize,
        /// What is wrong with it.
        cause: WireError,
    },
}

impl std::error::Error for Damage {}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (missing, synced) = (self.missing.0, self.synced.0);
        write!(f, "log of {}: record {missing} is missing, but up to {synced} was durable: ", self.log)?;
        match self.place {
            Some((file, offset)) => write!(f, "{file} is damaged at byte {offset}")?,
            None => write!(f, "the segment that held it is not there")?,
        }
        self.unreadable.iter().try_for_each(|file| write!(f, "; the header of {file} is unreadable"))
    }
}

impl Logged {
    /// What it says.
    ///
    /// # Errors
    /// [`ReplayError::Unknown`].
    pub fn decode(&self, log: LogId) -> Result<Record, ReplayError> {
        let unknown = |cause| {
            let (sequence, file, offset) = (self.frame.sequence, self.file, self.offset);
            ReplayError::Unknown { log, sequence, file, offset, cause }
        };
        self.frame.decode().map_err(unknown)
    }
}

/// Reads all segments of all logs.
///
/// # Errors
/// [`ReplayError`]; nothing can be served then without losing what was acknowledged.
pub fn replay(files: &[SegmentFile], known: &Known) -> Result<Replay, ReplayError> {
    let mut scans: BTreeMap<LogId, Scan> = BTreeMap::new();
    let mut unreadable = Vec::new();
    for file in files {
        match Header::read(&file.bytes) {
            Ok(header) if known.is_closed(header.log) => {}
            Ok(header) => scans
                .entry(header.log)
                .or_insert_with(|| Scan::behind(known.position(header.log)))
                .read_segment(file, header),
            Err(NoHeader::Blank) => {}
            Err(NoHeader::Format(found)) => return Err(ReplayError::Format { file: file.id, found }),
            Err(NoHeader::Damaged) => unreadable.push(file),
        }
    }
    for statement in unreadable.iter().flat_map(|file| statements_of_any_life(&file.bytes)) {
        if !known.is_closed(statement.log) {
            let scan = scans.entry(statement.log);
            scan.or_insert_with(|| Scan::behind(known.position(statement.log))).believe(statement.synced);
        }
    }
    let unreadable: Vec<SegmentId> = unreadable.iter().map(|file| file.id).collect();
    let mut replay = Replay::default();
    for (log, mut scan) in scans {
        scan.sort();
        replay.tails.extend(scan.tail(log));
        replay.logs.insert(log, scan.judge(log, &unreadable)?);
    }
    Ok(replay)
}

fn statements_of_any_life(bytes: &Bytes) -> impl Iterator<Item = Statement> {
    bytes.chunks(BLOCK).filter_map(Statement::read_of_any_life)
}

/// What was found of one log.
struct Scan {
    position: AppendId,
    synced: AppendId,
    /// In the order of the files, then in their own; no record twice.
    found: Vec<Logged>,
    breaks: Vec<Break>,
}

/// Where a write's records end. The records from `next` on should stand there, or in the write behind it.
struct Break {
    next: AppendId,
    file: SegmentId,
    offset: usize,
    /// Whether there is something at `offset` that is no record; else the write was padded there.
    torn: bool,
}

impl Scan {
    fn behind(position: AppendId) -> Scan {
        Scan { position, synced: AppendId(0), found: Vec::new(), breaks: Vec::new() }
    }

    fn believe(&mut self, synced: AppendId) {
        self.synced = self.synced.max(synced);
    }

    fn read_segment(&mut self, file: &SegmentFile, header: Header) {
        self.believe(header.synced);
        self.breaks.push(Break { next: header.first, file: file.id, offset: BLOCK, torn: false });
        let mut at = BLOCK;
        while at < file.bytes.len() {
            at = match Statement::read(&file.bytes[at..], header.life) {
                Some(statement) if statement.log == header.log => self.read_write(file, header.life, at, statement),
                _ => at + BLOCK,
            };
        }
    }

    /// Reads the records of the write whose statement stands `at`; returns the boundary behind them.
    fn read_write(&mut self, file: &SegmentFile, life: Life, at: usize, statement: Statement) -> usize {
        self.believe(statement.synced);
        let (mut at, mut next) = (at + STATEMENT_BYTES, statement.next);
        while let Some(frame) = Frame::read(&file.bytes, at, life).filter(|frame| frame.sequence == next) {
            let offset = at;
            at += frame.bytes();
            if self.position < next {
                let file = file.id;
                self.found.push(Logged { frame, file, offset });
            }
            next = next.next();
        }
        let padding = &file.bytes[at..align(at).min(file.bytes.len())];
        self.breaks.push(Break { next, file: file.id, offset: at, torn: padding.iter().any(|&byte| byte != 0) });
        align(at)
    }

    /// Segments come in any order, each in long rows. A record that stands in two places says the same in both.
    fn sort(&mut self) {
        self.found.sort_by_key(|found| found.frame.sequence);
        self.found.dedup_by_key(|found| found.frame.sequence);
    }

    /// The first record behind the position that is not there.
    fn gap(&self) -> AppendId {
        let first = AppendId(self.position.0.saturating_add(1));
        self.found.iter().fold(first, |gap, found| if found.frame.sequence == gap { gap.next() } else { gap })
    }

    fn tail(&self, log: LogId) -> Option<Tail> {
        let from = self.gap();
        let (file, offset) = self.place_of(from)?;
        let behind = self.found.iter().rev().take_while(|found| from <= found.frame.sequence);
        let dropped: usize = behind.map(|found| found.frame.bytes()).sum();
        let broken: usize =
            self.breaks.iter().filter(|at| at.next == from && at.torn).map(|at| align(at.offset) - at.offset).sum();
        (dropped + broken != 0).then_some(Tail { log, from, file, offset, bytes: dropped + broken })
    }

    /// Where the search for this record ended.
    fn place_of(&self, sequence: AppendId) -> Option<(SegmentId, usize)> {
        self.breaks.iter().filter(|at| at.next <= sequence).max_by_key(|at| at.next).map(|at| (at.file, at.offset))
    }

    fn judge(mut self, log: LogId, unreadable: &[SegmentId]) -> Result<Vec<Logged>, Damage> {
        let missing = self.gap();
        if missing <= self.synced {
            let damage = Damage {
                log,
                missing,
                synced: self.synced,
                place: self.place_of(missing),
                unreadable: unreadable.to_vec(),
            };
            return Err(damage);
        }
        self.found.retain(|found| found.frame.sequence < missing);
        Ok(self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::causality::Siblings;
    use crate::protocol::types::CoreId;
    use crate::store::layout;
    use crate::store::samples::{Shard, log_id};
    use crate::store::wal::log::{Log, LogConfig};
    use crate::store::wal::segment::SpareSegment;
    use std::time::Duration;

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
        replay(files, known).unwrap().logs.values().map(Vec::len).sum()
    }

    fn damage(files: &[SegmentFile]) -> Damage {
        match replay(files, &Known::default()) {
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
        let replayed = replay(&files, &Known::default()).unwrap();
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
        assert_eq!(replay(&files, &known), Ok(Replay::default()));
    }

    #[test]
    fn a_torn_last_write_is_a_tail_that_is_cut_and_told() {
        let mut files = written(log_id(1), 0, &[2, 3]);
        // The second write's second record; the third one stands whole behind it.
        let (_, offset) = place_of_record(&files[0], 2 * BLOCK, 1);
        damage_at(&mut files, 0, offset + 20);

        let replayed = replay(&files, &Known::default()).unwrap();
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
        let lost = super::replay(&files, &Known::default()).unwrap_err().to_string();
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

        let replayed = replay(&files, &Known::default()).unwrap();
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
        let refused = replay(&files, &Known::default()).unwrap_err().to_string();
        assert_eq!(
            refused,
            "00000000.seg has log format 9, this version reads format 1: start the version that wrote it"
        );
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
            let _ = replay(&files, &Known::default());
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
}
