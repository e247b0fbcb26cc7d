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
use super::segment::{BLOCK, FORMAT, Header, Life, NoHeader, SegmentId, align};
use crate::protocol::planted::{Bug, Planted};
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
    #[error("{file} has log format {found}, this version reads format {FORMAT}: start the version that wrote it")]
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

/// Reads all segments of all logs. `planted` is none but in a rehearsal.
///
/// # Errors
/// [`ReplayError`]; nothing can be served then without losing what was acknowledged.
pub fn replay(files: &[SegmentFile], known: &Known, planted: Planted) -> Result<Replay, ReplayError> {
    let mut scans: BTreeMap<LogId, Scan> = BTreeMap::new();
    let mut unreadable = Vec::new();
    for file in files {
        match Header::read(&file.bytes) {
            Ok(header) if known.is_closed(header.log) => {}
            Ok(header) if header.index != 0 && planted.is(Bug::FirstSegment) => {}
            Ok(header) => scans
                .entry(header.log)
                .or_insert_with(|| Scan::behind(known.position(header.log), planted))
                .read_segment(file, header),
            Err(NoHeader::Blank) => {}
            Err(NoHeader::Format(found)) => return Err(ReplayError::Format { file: file.id, found }),
            Err(NoHeader::Damaged) => unreadable.push(file),
        }
    }
    for statement in unreadable.iter().flat_map(|file| statements_of_any_life(&file.bytes)) {
        if !known.is_closed(statement.log) {
            let scan = scans.entry(statement.log);
            scan.or_insert_with(|| Scan::behind(known.position(statement.log), planted)).believe(statement.synced);
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
    planted: Planted,
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
    fn behind(position: AppendId, planted: Planted) -> Scan {
        Scan { position, synced: AppendId(0), found: Vec::new(), breaks: Vec::new(), planted }
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
                Some(statement) if statement.log == header.log => self.read_write(file, at, statement),
                None if self.planted.is(Bug::OldLife) => self.read_old_write(file, at),
                _ => at + BLOCK,
            };
        }
    }

    /// Reads the records of the write whose statement stands `at`; returns the boundary behind them.
    fn read_write(&mut self, file: &SegmentFile, at: usize, statement: Statement) -> usize {
        self.believe(statement.synced);
        let (mut at, mut next) = (at + STATEMENT_BYTES, statement.next);
        while let Some(bytes) = self.read_record(file, statement.life, at, next) {
            at += bytes;
            next = next.next();
        }
        let padding = &file.bytes[at..align(at).min(file.bytes.len())];
        self.breaks.push(Break { next, file: file.id, offset: at, torn: padding.iter().any(|&byte| byte != 0) });
        align(at)
    }

    /// Reads the record of this number that stands `at`; returns its bytes.
    fn read_record(&mut self, file: &SegmentFile, life: Life, at: usize, next: AppendId) -> Option<usize> {
        let Some(frame) = Frame::read(&file.bytes, at, life).filter(|frame| frame.sequence == next) else {
            return self.planted.is(Bug::TailKept).then(|| Frame::stated_bytes(&file.bytes, at)).flatten();
        };
        let bytes = frame.bytes();
        if self.position < next {
            self.found.push(Logged { frame, file: file.id, offset: at });
        }
        Some(bytes)
    }

    /// Reads what an earlier life of the segment has left there, as if it were of this one: the planted fault.
    fn read_old_write(&mut self, file: &SegmentFile, at: usize) -> usize {
        match Statement::read_of_any_life(&file.bytes[at..]) {
            Some(statement) => self.read_write(file, at, Statement { synced: AppendId(0), ..statement }),
            None => at + BLOCK,
        }
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
        if self.planted.is(Bug::TailKept) {
            return Ok(self.found);
        }
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
mod tests;
