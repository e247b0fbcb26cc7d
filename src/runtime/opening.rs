//! Opening a data directory: what the logs of earlier starts still hold goes into the tree before anything is served.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::entropy;
use super::priority::with_nice_workers;
use super::start::{NodeConfig, StartError};
use crate::protocol::antientropy::Forest;
use crate::protocol::causality::Siblings;
use crate::protocol::config::PARTITIONS;
use crate::protocol::io::{Hint, Unreadable};
use crate::protocol::planted::Planted;
use crate::protocol::replica::Remembered;
use crate::protocol::ring::Ring;
use crate::protocol::types::{ActorId, AppendId, ClusterId, CoreId, Key, LogId};
use crate::store::home::{Founding, Home, Start};
use crate::store::lsm::{Lsm, LsmError};
use crate::store::recovery::recover;
use crate::store::wal::segment::{BLOCK, Header, NoHeader};
use crate::store::wal::{Replay, SegmentFile, SegmentId, SpareSegment, replay};
use crate::store::{Known, Place};

/// What an opened data directory gives to the cores.
pub struct Opened {
    /// The directory, locked.
    pub home: Home,
    /// The tree, with everything that was acknowledged.
    pub lsm: Lsm,
    /// The hash trees of all that it holds.
    pub forest: Forest,
    /// The ring of its cluster.
    pub ring: Ring,
    /// By core, the actor that it mints as and the actor's last counter.
    pub actors: Vec<(ActorId, u64)>,
    /// Segments that may be written again.
    pub spares: Vec<SpareSegment>,
    /// Operations that are remembered, the oldest first.
    pub remembered: Vec<(Key, Remembered)>,
    /// Sets that are owed to absent nodes, by node.
    pub hints: Vec<(Key, Hint)>,
    /// The last number that was given to a segment.
    pub segment_last: u32,
}

/// Why the files of a data directory cannot have been left by one node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Torn {
    /// A start writes to its log only when the tree has closed all logs before it.
    #[error(
        "start {start} wrote wal/{segment}, and the store in lsm knows of none later than {known}: \
         the store is missing or an old one"
    )]
    Store {
        /// A segment of that start.
        segment: SegmentId,
        /// The start that wrote it.
        start: u64,
        /// The last one that the tree knows of.
        known: u64,
    },
    /// A segment has its full size before its first use.
    #[error("wal/{segment} is cut off: it has {bytes} bytes of {stated}")]
    Cut {
        /// Which.
        segment: SegmentId,
        /// The size of its file.
        bytes: u64,
        /// The size that its header states.
        stated: u64,
    },
    /// A clean stop states the last record of each log.
    #[error(
        "log of {log} ends at record {}, and the clean stop left it at record {}: a segment in wal is missing or empty",
        .found.0, .last.0
    )]
    End {
        /// The log.
        log: LogId,
        /// The last record that is there.
        found: AppendId,
        /// The last record that the stop stated.
        last: AppendId,
    },
    /// A node that ever put a part of its log into the tree keeps the segments.
    #[error("the log is missing: wal holds no segments")]
    Log,
}

/// Opens the data directory and brings what its logs hold into the tree.
pub fn open(config: &NodeConfig, blocks_bytes: u64) -> Result<Opened, StartError> {
    let mut home = Home::open(&config.data_dir, config.founding)?;
    home.begin_founding()?;
    let lsm = with_nice_workers(|| Lsm::open(&home.lsm(), blocks_bytes)).map_err(StartError::Thread)??;
    let ring = Ring::new(home.identity.partitions);
    let known = lsm.known()?;
    let mut found = find_segments(&home.wal(), &known)?;
    if let Some(cause) = found.torn {
        return Err(StartError::Torn { folder: config.data_dir.clone(), cause });
    }

    let failed = |cause| StartError::Replay { folder: home.wal(), cause };
    let replayed = replay(&found.open, &known, Planted::NONE).map_err(failed)?;
    if let Some(cause) = missing(&home, &known, &replayed) {
        return Err(StartError::Torn { folder: config.data_dir.clone(), cause });
    }
    for tail in &replayed.tails {
        tracing::warn!(%tail, "the last stop was not clean");
    }
    let base = |key: &Key| match lsm.get(&Place::of(ring, key)) {
        Ok(set) => Ok(set.map(Arc::new)),
        Err(error) => Err(Unreadable { reason: error.to_string() }),
    };
    let tree = |partition| lsm.tree(partition).map_err(|error| Unreadable { reason: error.to_string() });
    let failed = |cause| StartError::Recovery { folder: config.data_dir.clone(), cause };
    let chunk = recover(&replayed, ring, home.identity.starts + 1, entropy::word(), base, tree).map_err(failed)?;
    // Until here nothing was changed. The logs are closed below a start that has been counted.
    let fresh = (0..config.cores).map(|_| ActorId(entropy::word())).collect();
    let actors = home.begin(Start { stamp: entropy::word(), fresh })?;
    if chunk.keys() != 0 {
        tracing::info!(keys = chunk.keys(), bytes = chunk.bytes(), "replayed what the last life left in its logs");
    }
    lsm.ingest(&chunk, || {})?;

    let mut remembered: Vec<(Key, Remembered)> =
        lsm.remembered()?.into_iter().map(|(place, known)| (place.key, known)).collect();
    // The tree has them by key. Where the memory is full, the oldest are to go first.
    remembered.sort_by_key(|(_, known)| known.written_at);
    let hints = lsm.hints()?.into_iter().map(|(place, hint)| (place.key, hint)).collect();
    keep_spares(&home.wal(), &mut found.spares, config.cores)?;
    let forest = lsm.forest()?;
    Ok(Opened { home, lsm, forest, ring, actors, spares: found.spares, remembered, hints, segment_last: found.last })
}

/// A clean stop said how far each log goes: what ends before that has lost its end.
fn missing(home: &Home, known: &Known, replayed: &Replay) -> Option<Torn> {
    let start = home.identity.starts;
    (0..).map(CoreId).zip(home.left()?).find_map(|(core, left)| {
        let log = LogId { start, core };
        let records = replayed.logs.get(&log).map_or(0, Vec::len) as u64;
        let found = AppendId(known.position(log).0 + records);
        (found < left.last && !known.is_closed(log)).then_some(Torn::End { log, found, last: left.last })
    })
}

/// What the directory of a new cluster is founded as.
pub fn founding() -> Founding {
    Founding {
        cluster: ClusterId(entropy::wide()),
        incarnation: entropy::wide(),
        partitions: PARTITIONS,
        salt: entropy::word(),
    }
}

/// Fills an empty data directory with these sets, by place, as a node of a new cluster that was never started.
///
/// # Errors
/// Those of the sets, and [`StartError`]; the directory is not a node's then, and is to be emptied before another try.
pub fn restore<E: From<StartError>>(
    data_dir: &Path,
    partitions: u16,
    sets: impl Iterator<Item = Result<(Key, Siblings), E>>,
) -> Result<(), E> {
    let founding = Founding { partitions, ..founding() };
    let home = Home::empty(data_dir, founding).map_err(StartError::Home)?;
    let lsm = Lsm::open(&home.lsm(), RESTORE_BLOCKS_BYTES).map_err(StartError::Lsm)?;
    let ring = Ring::new(partitions);
    let placed = |(key, set): (Key, Siblings)| (Place::of(ring, &key), set);
    lsm.ingest_sets(ring, sets.map(|set| set.map(placed).map_err(Restoring::Sets))).map_err(|failed| match failed {
        Restoring::Sets(error) => error,
        Restoring::Lsm(error) => StartError::Lsm(error).into(),
    })?;
    lsm.close().map_err(StartError::Lsm)?;
    Ok(home.found().map_err(StartError::Home)?)
}

/// A restore reads nothing back.
const RESTORE_BLOCKS_BYTES: u64 = 16 * 1024 * 1024;

enum Restoring<E> {
    Sets(E),
    Lsm(LsmError),
}

impl<E> From<LsmError> for Restoring<E> {
    fn from(error: LsmError) -> Self {
        Restoring::Lsm(error)
    }
}

struct Segments {
    /// Segments of logs that are not closed, with all their bytes.
    open: Vec<SegmentFile>,
    /// Every segment: once the open logs are in the tree, all of them are free.
    spares: Vec<SpareSegment>,
    last: u32,
    torn: Option<Torn>,
}

fn find_segments(wal: &Path, known: &Known) -> Result<Segments, StartError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |cause| StartError::Segment { path, cause }
    };
    let mut found = Segments { open: Vec::new(), spares: Vec::new(), last: 0, torn: None };
    for entry in fs::read_dir(wal).map_err(failed(wal))? {
        let path = entry.map_err(failed(wal))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(id) = SegmentId::from_file_name(name) else {
            if name.starts_with("probe-") {
                fs::remove_file(&path).map_err(failed(&path))?;
            }
            continue;
        };
        found.last = found.last.max(id.0);
        let bytes = fs::metadata(&path).map_err(failed(&path))?.len();
        let header = header(&path).map_err(failed(&path))?;
        if let Ok(header) = header {
            found.torn = found.torn.or_else(|| torn(id, bytes, &header, known));
        }
        if !is_idle(header, known) {
            let bytes = Bytes::from(fs::read(&path).map_err(failed(&path))?);
            found.open.push(SegmentFile { id, bytes });
        }
        match SpareSegment::new(id, bytes) {
            Some(spare) => found.spares.push(spare),
            None => fs::remove_file(&path).map_err(failed(&path))?,
        }
    }
    if found.last == 0 && !known.positions.is_empty() {
        found.torn = Some(Torn::Log);
    }
    Ok(found)
}

fn header(path: &Path) -> io::Result<Result<Header, NoHeader>> {
    use io::Read;
    let mut block = Vec::with_capacity(BLOCK);
    fs::File::open(path)?.take(BLOCK as u64).read_to_end(&mut block)?;
    Ok(Header::read(&block))
}

/// What a segment tells of a directory whose parts do not belong together.
fn torn(segment: SegmentId, bytes: u64, header: &Header, known: &Known) -> Option<Torn> {
    let (start, stated) = (header.log.start, header.bytes);
    if known.closed_below < start {
        return Some(Torn::Store { segment, start, known: known.closed_below });
    }
    (bytes < stated && !known.is_closed(header.log)).then_some(Torn::Cut { segment, bytes, stated })
}

/// Whether a segment surely holds nothing that is needed: it was never used, or its log is closed.
fn is_idle(header: Result<Header, NoHeader>, known: &Known) -> bool {
    match header {
        Ok(header) => known.is_closed(header.log),
        Err(NoHeader::Blank) => true,
        Err(NoHeader::Format(_) | NoHeader::Damaged) => false,
    }
}

/// The largest segments are kept, a few for each core; the others give their room back.
fn keep_spares(wal: &Path, spares: &mut Vec<SpareSegment>, cores: u16) -> Result<(), StartError> {
    const SPARES_A_CORE: usize = 3;
    spares.sort_by_key(|spare| (std::cmp::Reverse(spare.bytes), spare.id));
    for spare in spares.drain((SPARES_A_CORE * usize::from(cores)).min(spares.len())..) {
        let path = wal.join(spare.id.to_string());
        fs::remove_file(&path).map_err(|cause| StartError::Segment { path, cause })?;
    }
    Ok(())
}
