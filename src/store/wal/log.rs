//! The log of one core in the making: group commit's choice, and the life of its segments.
//!
//! Group commit needs no timer: the next write starts when the last one has ended, and takes all that waits. At most
//! one write is under way, so that whatever is known to be durable is all but the last write, and every write can say
//! so.
//!
//! ```text
//!            next_segment, on_segment_ready        next_write                    recycle
//!  (no file) ------------------------------> spare ----------> active -> behind ---------> spare
//! ```
//!
//! The log never writes a byte twice in one life of a segment, and never a segment again before all of it is in the
//! LSM tree.

use std::collections::VecDeque;
use std::time::Duration;

use super::record::{self, STATEMENT_BYTES, Statement};
use super::segment::{BLOCK, Header, Life, SEGMENT_BYTES_LEAST, SegmentId, SpareSegment, align};
use crate::protocol::io::{Append, Change};
use crate::protocol::types::{AppendId, Instant, LogId};

/// How a log behaves.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    /// Which log it is.
    pub id: LogId,
    /// One write takes no further record once it has this many bytes. Larger writes gain no rate and hold up the
    /// acknowledgements of those that came first.
    pub write_bytes_max: usize,
    /// Size of the first new segment; each further one has twice the size of the largest until now.
    pub segment_bytes_min: u64,
    /// Where the doubling ends. One record larger than that gets a segment of its own size.
    pub segment_bytes_max: u64,
    /// Time until another try after a segment could not be prepared.
    pub retry: Duration,
}

/// One group commit: these bytes, durably, there.
#[derive(Debug)]
pub struct LogWrite {
    /// The segment's file.
    pub segment: SegmentId,
    /// Where in it; a multiple of [`BLOCK`].
    pub offset: u64,
    /// What to write; whole blocks.
    pub bytes: Vec<u8>,
    /// Whether this is the first write of the segment's new life.
    pub starts_segment: bool,
    /// Records in it.
    pub records: usize,
}

/// A file that should be written full of zeros, ahead of need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentWish {
    /// Its size.
    pub bytes: u64,
}

/// The log. It knows files by their numbers only.
#[derive(Debug)]
pub struct Log {
    config: LogConfig,
    queue: VecDeque<Append>,
    queue_bytes: u64,
    writing: Option<Writing>,
    /// The last record that was appended, and the last that is durable.
    appended: AppendId,
    synced: AppendId,
    active: Option<Active>,
    /// Full segments, oldest first, each with its last record.
    behind: VecDeque<(SpareSegment, AppendId)>,
    spares: VecDeque<SpareSegment>,
    segments_used: u64,
    segment_bytes_next: u64,
    preparing: Preparing,
    /// The front of the queue fits into no segment that there is; it needs one of this size.
    needed: Option<u64>,
    stopped: bool,
    /// The last write's buffer, for the next one.
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Writing {
    appends: Vec<Append>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Active {
    file: SpareSegment,
    life: Life,
    /// Where the next write goes.
    at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Preparing {
    No,
    UnderWay,
    Failed { full: bool, until: Instant },
}

impl Log {
    /// A log that holds nothing yet, over files that hold nothing which is still needed.
    pub fn new(config: LogConfig, spares: Vec<SpareSegment>) -> Log {
        assert!(
            SEGMENT_BYTES_LEAST <= config.segment_bytes_min && config.segment_bytes_min <= config.segment_bytes_max
        );
        let largest = spares.iter().map(|spare| spare.bytes).max();
        let next = largest.map_or(config.segment_bytes_min, |bytes| bytes.saturating_mul(2));
        Log {
            config,
            queue: VecDeque::new(),
            queue_bytes: 0,
            writing: None,
            appended: AppendId(0),
            synced: AppendId(0),
            active: None,
            behind: VecDeque::new(),
            spares: spares.into(),
            segments_used: 0,
            segment_bytes_next: next.clamp(config.segment_bytes_min, config.segment_bytes_max),
            preparing: Preparing::No,
            needed: None,
            stopped: false,
            buffer: Vec::new(),
        }
    }

    /// Takes a record into the queue. What comes after the log has stopped is dropped: it has failed.
    ///
    /// # Panics
    /// When it is not the next in order.
    pub fn append(&mut self, append: Append) {
        if self.stopped {
            return;
        }
        assert_eq!(append.id, self.appended.next(), "records are appended in order");
        self.appended = append.id;
        self.queue_bytes += memory(&append);
        self.queue.push_back(append);
    }

    /// The next write, of as much as waits and fits. None while one is under way, while nothing waits, and while there
    /// is no segment with room.
    pub fn next_write(&mut self, life: impl FnOnce() -> Life) -> Option<LogWrite> {
        if self.stopped || self.writing.is_some() || self.queue.is_empty() {
            return None;
        }
        match self.needed {
            None => self.write_into_active().or_else(|| self.write_into_spare(life)),
            Some(_) => self.write_into_spare(life),
        }
    }

    /// The write under way is durable. Returns its records, and the last of them.
    ///
    /// # Panics
    /// When none is under way.
    pub fn on_written(&mut self, write: LogWrite) -> (Vec<Append>, AppendId) {
        let writing = self.writing.take().expect("a write that ends was under way");
        self.buffer = write.bytes;
        self.queue_bytes -= writing.bytes;
        self.synced = writing.appends.last().expect("a write holds at least one record").id;
        (writing.appends, self.synced)
    }

    /// The write under way failed. What it left on the disk is unknown, and stays so whatever a second try says
    /// (a failed sync drops the pages that it could not write): the log is never written again, and all that waits has
    /// failed.
    pub fn on_write_failed(&mut self) {
        self.stopped = true;
        self.writing = None;
        self.queue.clear();
        self.queue_bytes = 0;
        self.needed = None;
    }

    /// A segment that should be prepared now: one spare is kept ready, and one large enough for the next record. At
    /// most one at a time.
    pub fn next_segment(&mut self, now: Instant) -> Option<SegmentWish> {
        let ready = match self.preparing {
            Preparing::No => true,
            Preparing::UnderWay => false,
            Preparing::Failed { until, .. } => until <= now,
        };
        if self.stopped || !ready || self.has_room_ahead() {
            return None;
        }
        self.preparing = Preparing::UnderWay;
        let bytes = self.segment_bytes_next.max(self.needed.unwrap_or(0));
        Some(SegmentWish { bytes })
    }

    /// The wished segment stands, full of zeros, durable under its name.
    pub fn on_segment_ready(&mut self, spare: SpareSegment) {
        self.preparing = Preparing::No;
        self.segment_bytes_next =
            spare.bytes.saturating_mul(2).clamp(self.segment_bytes_next, self.config.segment_bytes_max);
        self.spares.push_back(spare);
    }

    /// The wished segment could not be prepared; one is wished again after a while, on a full disk the smallest that
    /// will do.
    pub fn on_segment_failed(&mut self, now: Instant, full: bool) {
        if full {
            self.segment_bytes_next = self.config.segment_bytes_min;
        }
        let until = now + self.config.retry;
        self.preparing = Preparing::Failed { full, until };
    }

    /// Everything up to `position` is in the LSM tree: segments that hold nothing else become spares.
    pub fn recycle(&mut self, position: AppendId) {
        while let Some((file, _)) = self.behind.pop_front_if(|(_, last)| *last <= position) {
            self.spares.push_back(file);
        }
    }

    /// Whether the log was stopped by a failed write.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether a segment is missing that could not be prepared, and if so whether the disk was full.
    pub fn segment_failure(&self) -> Option<bool> {
        match self.preparing {
            Preparing::Failed { full, .. } if !self.has_room_ahead() => Some(full),
            _ => None,
        }
    }

    /// The last record that is durable.
    pub fn synced(&self) -> AppendId {
        self.synced
    }

    /// Records that wait or are being written.
    pub fn queued(&self) -> usize {
        self.queue.len() + self.writing.as_ref().map_or(0, |writing| writing.appends.len())
    }

    /// Bytes of memory that these hold.
    pub fn queue_bytes(&self) -> u64 {
        self.queue_bytes
    }

    /// Segments that hold records, and spares.
    pub fn segments(&self) -> (usize, usize) {
        (self.behind.len() + usize::from(self.active.is_some()), self.spares.len())
    }

    /// Whether a spare stands ready, with room for the front of the queue if that waits for one.
    fn has_room_ahead(&self) -> bool {
        let needed = self.needed.unwrap_or(0);
        self.spares.iter().any(|spare| needed <= spare.bytes)
    }

    fn write_into_active(&mut self) -> Option<LogWrite> {
        let active = self.active?;
        let mut bytes = self.empty_buffer();
        let Some(records) = self.put_records(&mut bytes, active.life, active.file.bytes - active.at) else {
            self.buffer = bytes;
            return None;
        };
        Some(self.begin(active, bytes, records))
    }

    /// Goes on in the first spare with room for the record at the front of the queue.
    fn write_into_spare(&mut self, life: impl FnOnce() -> Life) -> Option<LogWrite> {
        let needed = self.needed.unwrap_or_else(|| self.bytes_of_first());
        let Some(at) = self.spares.iter().position(|spare| needed <= spare.bytes) else {
            self.needed = Some(needed);
            return None;
        };
        self.needed = None;
        let file = self.spares.remove(at).expect("its place was just found");
        if let Some(full) = self.active.take() {
            self.behind.push_back((full.file, self.synced));
        }
        let active = Active { file, life: life(), at: 0 };
        let header = Header {
            life: active.life,
            log: self.config.id,
            index: self.segments_used,
            first: self.synced.next(),
            bytes: file.bytes,
            synced: self.synced,
        };
        self.segments_used += 1;
        let mut bytes = self.empty_buffer();
        header.put(&mut bytes);
        let records = self.put_records(&mut bytes, active.life, file.bytes);
        Some(self.begin(active, bytes, records.expect("the spare was chosen for its room")))
    }

    /// The size of a segment that has room for the record at the front of the queue.
    fn bytes_of_first(&mut self) -> u64 {
        let mut bytes = self.empty_buffer();
        record::put_append(&mut bytes, Life(0), &self.queue[0]);
        let needed = BLOCK + align(STATEMENT_BYTES + bytes.len());
        self.buffer = bytes;
        needed as u64
    }

    /// Puts a statement and as many records as fit behind what is there, and fills up to whole blocks; `room` counts
    /// from the front of `bytes`. None when not even the first record fits.
    fn put_records(&self, bytes: &mut Vec<u8>, life: Life, room: u64) -> Option<usize> {
        let statement = Statement { life, log: self.config.id, next: self.synced.next(), synced: self.synced };
        statement.put(bytes);
        let mut records = 0;
        for append in &self.queue {
            let before = bytes.len();
            record::put_append(bytes, life, append);
            if room < align(bytes.len()) as u64 {
                bytes.truncate(before);
                break;
            }
            records += 1;
            if self.config.write_bytes_max <= bytes.len() {
                break;
            }
        }
        bytes.resize(align(bytes.len()), 0);
        (records != 0).then_some(records)
    }

    fn begin(&mut self, active: Active, bytes: Vec<u8>, records: usize) -> LogWrite {
        let end = active.at + bytes.len() as u64;
        assert!(end <= active.file.bytes, "a write ends within its segment");
        self.active = Some(Active { at: end, ..active });
        let appends: Vec<Append> = self.queue.drain(..records).collect();
        self.writing = Some(Writing { bytes: appends.iter().map(memory).sum(), appends });
        LogWrite { segment: active.file.id, offset: active.at, bytes, starts_segment: active.at == 0, records }
    }

    /// The last write's buffer, unless one large record made it too large to be kept.
    fn empty_buffer(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.shrink_to(4 * self.config.write_bytes_max);
        buffer
    }
}

/// Bytes that an append holds in memory while it waits: its content once (what came in and the state share it), the
/// clocks, the entries of the sets, and what comes to be remembered with a set.
fn memory(append: &Append) -> u64 {
    const FIXED: usize = 256;
    const VERSION: usize = 80;
    const CLOCK_ENTRY: usize = 16;
    const REMEMBERED: usize = 192;
    let bytes = match &append.change {
        Change::Version(arrived) => {
            let clocks = CLOCK_ENTRY * (arrived.upon.len() + arrived.state.vector().len());
            arrived.update().version.bytes() + clocks + VERSION * arrived.state.versions().len()
        }
        Change::Set { state, came, remember, .. } => {
            let versions = VERSION * (came.versions().len() + state.versions().len());
            let operations: usize = remember.iter().map(|kept| REMEMBERED + kept.context.bytes()).sum();
            came.bytes() + CLOCK_ENTRY * state.vector().len() + versions + operations
        }
        Change::Drop { .. } | Change::Hint(_) | Change::Delivered { .. } => 0,
    };
    (FIXED + append.key.as_bytes().len() + bytes) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::causality::Siblings;
    use crate::store::samples::{Shard, log_id};

    const NOW: Instant = Instant(0);

    fn log(spares: &[u64]) -> Log {
        let config = LogConfig {
            id: log_id(1),
            write_bytes_max: 3 * BLOCK,
            segment_bytes_min: 4 * BLOCK as u64,
            segment_bytes_max: 16 * BLOCK as u64,
            retry: Duration::from_secs(1),
        };
        let spare = |(at, blocks): (u32, &u64)| SpareSegment { id: SegmentId(at), bytes: blocks * BLOCK as u64 };
        Log::new(config, (0..).zip(spares).map(spare).collect())
    }

    fn append(log: &mut Log, shard: &mut Shard, bytes: usize) {
        log.append(shard.put("k", &vec![1; bytes], &Siblings::default()));
    }

    fn next(log: &mut Log) -> Option<(u32, u64, usize, usize)> {
        let write = log.next_write(|| Life(7))?;
        let seen = (write.segment.0, write.offset, write.bytes.len() / BLOCK, write.records);
        log.on_written(write);
        Some(seen)
    }

    #[test]
    fn a_write_takes_all_that_waits_and_the_next_waits_for_its_end() {
        let (mut log, mut shard) = (log(&[8]), Shard::new());
        append(&mut log, &mut shard, 10);
        let first = log.next_write(|| Life(7)).unwrap();
        (0..5).for_each(|_| append(&mut log, &mut shard, 10));
        assert!(log.next_write(|| Life(8)).is_none(), "one write at a time");
        assert_eq!((log.queued(), log.synced()), (6, AppendId(0)));

        let (durable, through) = log.on_written(first);
        assert_eq!((durable.len(), through), (1, AppendId(1)));
        assert_eq!(next(&mut log), Some((0, 2 * BLOCK as u64, 1, 5)));
        assert_eq!((log.queued(), log.queue_bytes(), log.synced()), (0, 0, AppendId(6)));
        assert_eq!(next(&mut log), None);
    }

    #[test]
    fn a_write_is_bounded_by_bytes_and_by_its_segment() {
        let (mut log, mut shard) = (log(&[6, 8]), Shard::new());
        (0..7).for_each(|_| append(&mut log, &mut shard, BLOCK));

        assert_eq!(next(&mut log), Some((0, 0, 4, 2)), "header and two records reach the bound of a write");
        assert_eq!(next(&mut log), Some((0, 4 * BLOCK as u64, 2, 1)), "the segment has two blocks left");
        assert_eq!(next(&mut log), Some((1, 0, 4, 2)), "the next one begins");
        assert_eq!(next(&mut log), Some((1, 4 * BLOCK as u64, 3, 2)));
    }

    #[test]
    fn one_spare_is_wished_ahead_and_sizes_double_up_to_their_bound() {
        let mut log = log(&[]);
        let mut sizes = Vec::new();
        for id in 0..4 {
            let wish = log.next_segment(NOW).unwrap();
            assert_eq!(log.next_segment(NOW), None, "one at a time");
            log.on_segment_ready(SpareSegment::new(SegmentId(id), wish.bytes).unwrap());
            assert_eq!(log.next_segment(NOW), None, "one ahead is enough");
            log.spares.clear();
            sizes.push(wish.bytes / BLOCK as u64);
        }
        assert_eq!(sizes, [4, 8, 16, 16]);
    }

    #[test]
    fn a_record_larger_than_any_segment_gets_one_of_its_own_size() {
        let (mut log, mut shard) = (log(&[8]), Shard::new());
        append(&mut log, &mut shard, 30 * BLOCK);
        assert_eq!(next(&mut log), None);
        assert_eq!(log.next_segment(NOW), Some(SegmentWish { bytes: 32 * BLOCK as u64 }));
        log.on_segment_ready(SpareSegment::new(SegmentId(9), 32 * BLOCK as u64).unwrap());

        assert_eq!(next(&mut log), Some((9, 0, 32, 1)));
        append(&mut log, &mut shard, 10);
        assert_eq!(next(&mut log), Some((0, 0, 2, 1)), "the small spare is used by what fits");
    }

    #[test]
    fn a_segment_is_used_again_once_all_of_it_is_in_the_tree() {
        let (mut log, mut shard) = (log(&[2, 2]), Shard::new());
        for _ in 0..2 {
            append(&mut log, &mut shard, 10);
            next(&mut log).unwrap();
        }
        append(&mut log, &mut shard, 10);
        assert_eq!(next(&mut log), None, "both segments are full");

        log.recycle(AppendId(0));
        assert_eq!(next(&mut log), None);
        log.recycle(AppendId(1));
        assert_eq!(next(&mut log), Some((0, 0, 2, 1)));
    }

    #[test]
    fn a_full_disk_is_tried_again_after_a_while_and_ends_with_a_recycled_segment() {
        let (mut log, mut shard) = (log(&[2, 2]), Shard::new());
        for _ in 0..2 {
            append(&mut log, &mut shard, 10);
            next(&mut log).unwrap();
        }
        log.next_segment(NOW).unwrap();
        log.on_segment_failed(NOW, true);
        assert_eq!(log.segment_failure(), Some(true));
        assert_eq!(log.next_segment(NOW), None);
        assert!(log.next_segment(NOW + Duration::from_secs(1)).is_some());
        log.on_segment_failed(NOW, true);

        log.recycle(AppendId(1));
        assert_eq!(log.segment_failure(), None);
    }

    #[test]
    fn after_a_failed_write_nothing_is_written_again() {
        let (mut log, mut shard) = (log(&[8]), Shard::new());
        append(&mut log, &mut shard, 10);
        log.next_write(|| Life(7)).unwrap();
        log.on_write_failed();
        append(&mut log, &mut shard, 10);
        assert!(log.next_write(|| Life(8)).is_none() && log.is_stopped());
        assert_eq!((log.queued(), log.queue_bytes()), (0, 0));
        assert_eq!(log.next_segment(NOW), None);
    }
}
