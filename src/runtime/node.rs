//! A whole node: found or recover, start the cores, stop them.
//!
//! Start: lock the directory, count the start, open the tree, replay what the logs of earlier starts still hold into
//! it, and only then let cores serve. Stop: take nothing new, end what is under way, mark the clean stop last of all.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use bytes::Bytes;
use glommio::{ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement};

use super::clock::Clock;
use super::core::{Errand, Parts};
use super::door::Door;
use super::entropy;
use super::executor::{self, DRAIN_MAX, Rest, Setup};
use super::heartbeat::Heartbeats;
use super::mail::{MAIL_MAX, Mail};
use super::memory::{Memory, OVERLAY_AGE_MAX, TooLittle};
use super::metrics::CoreMetrics;
use super::probe::{self, Refused};
use super::storekeeper::{Job, Storekeeper};
use crate::protocol::causality::Siblings;
use crate::protocol::config::PARTITIONS;
use crate::protocol::coordinator::quorum::Copies;
use crate::protocol::io::Unreadable;
use crate::protocol::message::{Directory, NodeInfo};
use crate::protocol::replica::Remembered;
use crate::protocol::ring::{Cores, Ring};
use crate::protocol::shard::{Birth, Shard};
use crate::protocol::types::{ActorId, ClusterId, CoreId, Key, LogId};
use crate::store::chunk::Entry;
use crate::store::home::{Founding, Home, HomeError, Start};
use crate::store::lsm::{Lsm, LsmError};
use crate::store::recovery::{RecoveryError, recover};
use crate::store::wal::log::LogConfig;
use crate::store::wal::segment::{BLOCK, Header, NoHeader};
use crate::store::wal::writer::probe as probe_log;
use crate::store::wal::{ReplayError, SegmentFile, SegmentId, SpareSegment, replay};
use crate::store::{Engine, EngineConfig, Place};
use crate::wire::sets;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name.
    pub name: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Data cores, from 1.
    pub cores: u16,
    /// Whether each core's thread is bound to a processor.
    pub pin: bool,
    /// Bytes of memory for everything that holds data.
    pub memory: u64,
    /// Silence after which a connection is dropped.
    pub idle_max: Duration,
}

/// Why a node does not start. Nothing that was stored is lost.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The tree.
    #[error(transparent)]
    Lsm(#[from] LsmError),
    /// A file of the log.
    #[error("cannot read {path}: {cause}")]
    Segment {
        /// Which.
        path: PathBuf,
        /// What the kernel says.
        cause: io::Error,
    },
    /// The logs do not tell what was acknowledged.
    #[error("{folder}: {cause}; restore the data directory from a snapshot, or a copy of the file named")]
    Replay {
        /// Where the segments stand.
        folder: PathBuf,
        /// What is wrong.
        cause: ReplayError,
    },
    /// Logs and tree do not fit together.
    #[error("{folder}: {cause}; restore the data directory from a snapshot")]
    Recovery {
        /// The data directory.
        folder: PathBuf,
        /// What is wrong.
        cause: RecoveryError,
    },
    /// Too little memory.
    #[error(transparent)]
    Memory(#[from] TooLittle),
    /// The kernel refuses io_uring.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// An executor did not come up.
    #[error("core {core} did not start: {reason}")]
    Executor {
        /// Which.
        core: CoreId,
        /// What it says.
        reason: String,
    },
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(io::Error),
}

/// A node at work.
pub struct Node {
    home: Home,
    lsm: Lsm,
    ring: Ring,
    cores: Cores,
    info: NodeInfo,
    directory: Arc<Directory>,
    hearts: Arc<Heartbeats>,
    mailboxes: Vec<flume::Sender<Mail>>,
    inboxes: Vec<flume::Sender<Errand>>,
    executors: Vec<ExecutorJoinHandle<Result<(), String>>>,
    rests: flume::Receiver<Rest>,
    jobs: Vec<flume::Sender<Job>>,
    storekeepers: Vec<std::thread::JoinHandle<()>>,
}

/// What an opened data directory gives to the cores.
struct Opened {
    home: Home,
    lsm: Lsm,
    ring: Ring,
    actors: Vec<(ActorId, u64)>,
    spares: Vec<SpareSegment>,
    remembered: Vec<(Key, Remembered)>,
    segment_last: u32,
}

impl Node {
    /// Starts a node. It serves its mailboxes when this returns.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: &NodeConfig, metrics: impl Fn(CoreId) -> CoreMetrics) -> Result<Node, StartError> {
        let clock = Clock::start();
        let memory = Memory::divide(config.memory, config.cores)?;
        probe::io_uring()?;
        let Opened { home, lsm, ring, actors, spares, remembered, segment_last } = open(config, &memory)?;
        let identity = &home.identity;
        let cores = Cores { count: config.cores, salt: identity.salt };
        let directory: Directory = identity.actors.iter().map(|actor| (*actor, config.name.clone())).collect();
        let directory = Arc::new(directory);
        let info = NodeInfo {
            name: config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: identity.cluster,
            cores: config.cores,
            core: CoreId(0),
            salt: identity.salt,
            partitions: identity.partitions,
            uptime_ms: 0,
        };
        let hearts = Arc::new(Heartbeats::new(config.cores));
        let (mailboxes, letters): (Vec<_>, Vec<_>) = (0..config.cores).map(|_| flume::bounded(MAIL_MAX)).unzip();
        let (inboxes, errands): (Vec<_>, Vec<_>) = (0..config.cores).map(|_| flume::unbounded()).unzip();
        let numbers = Arc::new(AtomicU32::new(segment_last));
        let start = identity.starts;
        let (rest, rests) = flume::unbounded();
        let wal = home.wal();
        let mut node = Node {
            lsm,
            ring,
            cores,
            info,
            directory,
            hearts,
            mailboxes,
            inboxes,
            executors: Vec::new(),
            rests,
            jobs: Vec::new(),
            storekeepers: Vec::new(),
            home,
        };
        for (((id, mail), inbox), (actor, counter)) in (0..).map(CoreId).zip(letters).zip(errands).zip(actors) {
            let mine = |key: &Key| cores.of(ring.partition(key)) == id;
            let spares: Vec<SpareSegment> =
                spares.iter().skip(id.index()).step_by(usize::from(config.cores)).copied().collect();
            let birth = Birth {
                cluster: node.info.cluster,
                core: id,
                actor,
                counter,
                copies: Copies::of(1),
                directory: Arc::clone(&node.directory),
                remembered: remembered.iter().filter(|(key, _)| mine(key)).cloned().collect(),
            };
            let jobs = node.start_storekeeper(id, clock)?;
            let parts = Parts {
                id,
                clock,
                shard: Shard::new(clock.instant(), birth),
                engine: Engine::new(engine_config(&memory, ring, LogId { start, core: id }), spares),
                ring,
                cores,
                info: NodeInfo { core: id, ..node.info.clone() },
                mesh: node.inboxes.clone(),
                store: jobs,
                metrics: metrics(id),
                replies_bytes_max: usize::try_from(memory.replies_bytes_max).unwrap_or(usize::MAX),
            };
            let setup = Setup {
                parts,
                mail,
                inbox,
                wal: wal.clone(),
                numbers: Arc::clone(&numbers),
                hearts: Arc::clone(&node.hearts),
                idle_max: config.idle_max,
                rest: rest.clone(),
            };
            node.executors.push(start_executor(id, config, &wal, setup)?);
        }
        node.hearts.serve(true);
        Ok(node)
    }

    /// The control thread's door.
    pub fn door(&self) -> Door {
        Door::new(self.ring, self.cores, self.mailboxes.clone())
    }

    /// The mailboxes, for the acceptor.
    pub fn mailboxes(&self) -> Vec<flume::Sender<Mail>> {
        self.mailboxes.clone()
    }

    /// Who it is. The core named is core 0.
    pub fn info(&self) -> &NodeInfo {
        &self.info
    }

    /// The ring.
    pub fn ring(&self) -> Ring {
        self.ring
    }

    /// Its cores.
    pub fn cores(&self) -> Cores {
        self.cores
    }

    /// Names of nodes by actor.
    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory)
    }

    /// The hearts of its cores.
    pub fn hearts(&self) -> Arc<Heartbeats> {
        Arc::clone(&self.hearts)
    }

    /// The tree, for snapshots.
    pub fn lsm(&self) -> Lsm {
        self.lsm.clone()
    }

    /// Stops: takes nothing new, ends what is under way, and marks the clean stop when all of it has ended.
    ///
    /// # Errors
    /// [`StartError`]: what kept the stop from being clean. Nothing that was acknowledged is lost.
    pub fn stop(mut self) -> Result<(), StartError> {
        self.hearts.serve(false);
        for inbox in &self.inboxes {
            // A core that is gone has nothing under way.
            let _ = inbox.send(Errand::Stop);
        }
        let rests = self.rested();
        for inbox in &self.inboxes {
            let _ = inbox.send(Errand::End);
        }
        for (core, executor) in (0..).map(CoreId).zip(self.executors.drain(..)) {
            let failed = |reason: String| StartError::Executor { core, reason };
            if !rests.contains_key(&core) {
                // Waiting for it would hang as well. What it acknowledged is in its log.
                return Err(failed("it hangs".to_owned()));
            }
            executor.join().map_err(|error| failed(error.to_string()))?.map_err(failed)?;
        }
        for jobs in &self.jobs {
            let _ = jobs.send(Job::End);
        }
        for storekeeper in self.storekeepers.drain(..) {
            // A panic has ended the process already.
            let _ = storekeeper.join();
        }
        self.lsm.close()?;
        let drained = rests.into_values().map(|rest| rest.drained.then_some(rest.actor));
        if let Some(actors) = drained.collect::<Option<Vec<_>>>() {
            self.home.mark_clean(actors)?;
        }
        Ok(())
    }

    /// How each core has ended what was under way; a core that hangs is missing.
    fn rested(&self) -> BTreeMap<CoreId, Rest> {
        let mut rests = BTreeMap::new();
        while rests.len() < usize::from(self.cores.count) {
            match self.rests.recv_timeout(2 * DRAIN_MAX) {
                Ok(rest) => {
                    if !rest.drained {
                        let core = rest.core;
                        tracing::warn!(%core, "not everything that was under way has ended: the stop is not clean");
                    }
                    rests.insert(rest.core, rest);
                }
                Err(_) => {
                    tracing::warn!("a core hangs: the stop is not clean");
                    break;
                }
            }
        }
        rests
    }

    fn start_storekeeper(&mut self, core: CoreId, clock: Clock) -> Result<flume::Sender<Job>, StartError> {
        let (sender, jobs) = flume::unbounded();
        let (ring, cores, lsm) = (self.ring, self.cores, self.lsm.clone());
        let inbox = self.inboxes[core.index()].clone();
        let storekeeper = Storekeeper { core, clock, ring, cores, lsm, jobs, inbox };
        let thread = std::thread::Builder::new().name(format!("store-{core}"));
        self.storekeepers.push(thread.spawn(move || storekeeper.work()).map_err(StartError::Thread)?);
        self.jobs.push(sender.clone());
        Ok(sender)
    }
}

/// Opens the data directory and brings what its logs hold into the tree.
fn open(config: &NodeConfig, memory: &Memory) -> Result<Opened, StartError> {
    let fresh = (0..config.cores).map(|_| ActorId(entropy::word())).collect();
    let start = Start { stamp: entropy::word(), fresh };
    let (home, actors) = Home::start(&config.data_dir, founding(), start)?;
    let lsm = Lsm::open(&home.lsm(), memory.blocks_bytes)?;
    let ring = Ring::new(home.identity.partitions);
    let known = lsm.known()?;
    let mut found = find_segments(&home.wal(), &known)?;

    let failed = |cause| StartError::Replay { folder: home.wal(), cause };
    let replayed = replay(&found.open, &known).map_err(failed)?;
    for tail in &replayed.tails {
        tracing::warn!(%tail, "the last stop was not clean");
    }
    let base = |place: &Place| match lsm.get(place) {
        Ok(set) => Ok(set.map(Arc::new)),
        Err(error) => Err(Unreadable { reason: error.to_string() }),
    };
    let failed = |cause| StartError::Recovery { folder: config.data_dir.clone(), cause };
    let chunk = recover(&replayed, ring, home.identity.starts, base).map_err(failed)?;
    if !chunk.sets().is_empty() {
        tracing::info!(
            keys = chunk.sets().len(),
            bytes = chunk.bytes(),
            "replayed what the last life left in its logs"
        );
    }
    lsm.ingest(&chunk, || {})?;

    let mut remembered: Vec<(Key, Remembered)> =
        lsm.remembered()?.into_iter().map(|(place, known)| (place.key, known)).collect();
    // The tree has them by key. Where the memory is full, the oldest are to go first.
    remembered.sort_by_key(|(_, known)| known.written_at);
    keep_spares(&home.wal(), &mut found.spares, config.cores)?;
    Ok(Opened { home, lsm, ring, actors, spares: found.spares, remembered, segment_last: found.last })
}

/// What a directory is founded as, if it is empty.
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
    let entry = |(key, set): (Key, Siblings)| Entry {
        key: Place::of(ring, &key).set_key(),
        value: Some(sets::encode_set(&set)),
    };
    lsm.ingest_entries(sets.map(|set| set.map(entry).map_err(Restoring::Sets)), || {}).map_err(
        |failed| match failed {
            Restoring::Sets(error) => error,
            Restoring::Lsm(error) => StartError::Lsm(error).into(),
        },
    )?;
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
}

fn find_segments(wal: &Path, known: &crate::store::Known) -> Result<Segments, StartError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |cause| StartError::Segment { path, cause }
    };
    let mut found = Segments { open: Vec::new(), spares: Vec::new(), last: 0 };
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
        if !is_idle(&path, known).map_err(failed(&path))? {
            let bytes = Bytes::from(fs::read(&path).map_err(failed(&path))?);
            found.open.push(SegmentFile { id, bytes });
        }
        match SpareSegment::new(id, bytes) {
            Some(spare) => found.spares.push(spare),
            None => fs::remove_file(&path).map_err(failed(&path))?,
        }
    }
    Ok(found)
}

/// Whether a segment surely holds nothing that is needed: it was never used, or its log is closed.
fn is_idle(path: &Path, known: &crate::store::Known) -> io::Result<bool> {
    use io::Read;
    let mut block = Vec::with_capacity(BLOCK);
    fs::File::open(path)?.take(BLOCK as u64).read_to_end(&mut block)?;
    Ok(match Header::read(&block) {
        Ok(header) => known.is_closed(header.log),
        Err(NoHeader::Blank) => true,
        Err(NoHeader::Format(_) | NoHeader::Damaged) => false,
    })
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

fn engine_config(memory: &Memory, ring: Ring, log: LogId) -> EngineConfig {
    const MIB: u64 = 1024 * 1024;
    EngineConfig {
        overlay_bytes_max: memory.overlay_bytes_max,
        queue_bytes_max: memory.chunk_bytes,
        cache_bytes: memory.cache_bytes,
        chunk_bytes: memory.chunk_bytes,
        chunk_age: OVERLAY_AGE_MAX,
        log_bytes_max: 64 * MIB,
        retry: Duration::from_secs(1),
        ring,
        log: LogConfig {
            id: log,
            write_bytes_max: 1024 * 1024,
            segment_bytes_min: 4 * MIB,
            segment_bytes_max: 64 * MIB,
            retry: Duration::from_secs(1),
        },
    }
}

/// Memory that the kernel takes back late after another process of the user ended is waited for this long.
const RING_TRIES: u32 = 20;
const RING_WAIT: Duration = Duration::from_millis(100);
const UP_MAX: Duration = Duration::from_secs(10);

/// An executor says that it is up before it is given its setup, so that one that fails can be tried again.
fn start_executor(
    core: CoreId,
    config: &NodeConfig,
    wal: &Path,
    setup: Setup,
) -> Result<ExecutorJoinHandle<Result<(), String>>, StartError> {
    let mut failure = String::new();
    for _ in 0..RING_TRIES {
        let (up, is_up) = flume::bounded::<Result<(), String>>(1);
        let (hand, handed) = flume::bounded::<Setup>(1);
        let wal = wal.to_owned();
        let begin = move || async move {
            let probed = probe_log(&wal, core).await.map_err(|error| error.to_string());
            let usable = probed.is_ok();
            let told = up.send(probed).is_ok();
            match handed.recv_async().await {
                Ok(setup) if usable && told => {
                    executor::live(setup).await;
                    Ok(())
                }
                _ => Err("it was not needed".to_owned()),
            }
        };
        let executor = builder(core, config)
            .spawn(begin)
            .map_err(|error| StartError::Executor { core, reason: error.to_string() })?;
        match is_up.recv_timeout(UP_MAX) {
            Ok(Ok(())) => {
                let handed = hand.send(setup);
                assert!(handed.is_ok(), "an executor that is up waits for its setup");
                return Ok(executor);
            }
            Ok(Err(reason)) => return Err(StartError::Executor { core, reason }),
            Err(flume::RecvTimeoutError::Disconnected) => failure = reason(executor.join()),
            // It may come up later, and ends then: what it waits for goes with this call.
            Err(flume::RecvTimeoutError::Timeout) => {
                let reason = format!("it is not up after {} s: is the disk stuck?", UP_MAX.as_secs());
                return Err(StartError::Executor { core, reason });
            }
        }
        #[expect(clippy::disallowed_methods, reason = "nothing tells when the kernel has taken the memory back")]
        std::thread::sleep(RING_WAIT);
    }
    Err(StartError::Executor { core, reason: failure })
}

fn reason(joined: Result<Result<(), String>, GlommioError<()>>) -> String {
    match joined {
        Ok(Ok(_)) => "it ended at once".to_owned(),
        Ok(Err(reason)) => reason,
        Err(error) => match error.raw_os_error() {
            Some(code) => Refused::from_io(io::Error::from_raw_os_error(code)).to_string(),
            None => error.to_string(),
        },
    }
}

fn builder(core: CoreId, config: &NodeConfig) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(placement(core, config.pin))
        .name(&format!("core-{core}"))
        .ring_depth(128)
        .io_memory(64 * 1024)
        .preempt_timer(Duration::from_millis(5))
}

/// Cores are bound to the processors that this process may use, in turn.
fn placement(core: CoreId, pin: bool) -> Placement {
    let Some(allowed) = pin.then(|| rustix::thread::sched_getaffinity(None).ok()).flatten() else {
        return Placement::Unbound;
    };
    let processors: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    match processors.get(core.index() % processors.len().max(1)) {
        Some(processor) => Placement::Fixed(*processor),
        None => Placement::Unbound,
    }
}

#[cfg(test)]
mod tests;
