//! A whole node: found or recover, start the cores, stop them.
//!
//! Start: lock the directory, count the start, open the tree, replay what the logs of earlier starts still hold into
//! it, and only then let cores serve. Stop: take nothing new, end what is under way, mark the clean stop last of all.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use glommio::ExecutorJoinHandle;

use super::clock::Clock;
use super::core::Parts;
use super::door::Door;
use super::entropy;
use super::executor::{DRAIN_MAX, Rest, Setup};
use super::heartbeat::Heartbeats;
use super::holdings::{Holding, Holdings};
use super::launch::start_executor;
use super::mail::{Errand, Job, MAIL_MAX, Mail, NOTICES_MAX, Notice, Wish};
use super::memory::{Memory, OVERLAY_AGE_MAX};
use super::metrics::CoreMetrics;
use super::opening::{Opened, open};
use super::priority::{self, be_nice};
use super::probe;
use super::reclaim::Reclaimer;
use super::start::{NodeConfig, StartError};
use super::storekeeper::Storekeeper;
use crate::protocol::message::{Directory, NodeInfo};
use crate::protocol::planted::Planted;
use crate::protocol::ring::{Cores, Ring, View};
use crate::protocol::shard::{Birth, Shard};
use crate::protocol::types::{ActorId, CoreId, Key, LogId};
use crate::store::home::{Home, Identity};
use crate::store::lsm::Lsm;
use crate::store::wal::SpareSegment;
use crate::store::wal::log::LogConfig;
use crate::store::{Engine, EngineConfig};

/// A node at work.
pub struct Node {
    home: Home,
    lsm: Lsm,
    ring: Ring,
    cores: Cores,
    info: NodeInfo,
    directory: Arc<Directory>,
    hearts: Arc<Heartbeats>,
    holdings: Arc<Holdings>,
    mailboxes: Vec<flume::Sender<Mail>>,
    inboxes: Vec<flume::Sender<Errand>>,
    executors: Vec<ExecutorJoinHandle<Result<(), String>>>,
    rests: flume::Receiver<Rest>,
    jobs: Vec<flume::Sender<Job>>,
    storekeepers: Vec<std::thread::JoinHandle<()>>,
    reclaimer: Reclaimer,
    wishes: flume::Receiver<Wish>,
    notices: flume::Receiver<Notice>,
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
        let Opened { home, lsm, forest, ring, actors, spares, remembered, hints, segment_last } =
            open(config, memory.blocks_bytes)?;
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
        // One wish for each line that is down, and what is given up is wished for again.
        let (wish, wishes) = flume::unbounded();
        let (notice, notices) = flume::bounded(NOTICES_MAX);
        let wal = home.wal();
        let reclaimer = Reclaimer::start(lsm.clone(), clock).map_err(StartError::Thread)?;
        let mut node = Node {
            lsm,
            ring,
            cores,
            info,
            directory,
            hearts,
            holdings: Arc::new(Holdings::new(config.cores)),
            mailboxes,
            inboxes,
            executors: Vec::new(),
            rests,
            jobs: Vec::new(),
            storekeepers: Vec::new(),
            reclaimer,
            wishes,
            notices,
            home,
        };
        for (((id, mail), inbox), (actor, counter)) in (0..).map(CoreId).zip(letters).zip(errands).zip(actors) {
            let mine = |key: &Key| cores.of(ring.partition(key)) == id;
            let spares: Vec<SpareSegment> =
                spares.iter().skip(id.index()).step_by(usize::from(config.cores)).copied().collect();
            let trees = forest.part(|partition| cores.of(partition) == id);
            let birth = Birth {
                cluster: node.info.cluster,
                core: id,
                actor,
                counter,
                spare: ActorId(entropy::word()),
                view: Arc::new(View::alone(&config.name, cores, ring.partitions())),
                directory: Arc::clone(&node.directory),
                remembered: remembered.iter().filter(|(key, _)| mine(key)).cloned().collect(),
                hints: hints.iter().filter(|(key, _)| mine(key)).cloned().collect(),
                seed: entropy::word(),
                transfer_rate: (config.transfer_rate / u64::from(config.cores)).max(1),
                compare_period: config.compare_period,
                keeps_hints: config.keeps_hints,
                tombstone_age: config.tombstone_age,
                planted: Planted::NONE,
            };
            let jobs = node.start_storekeeper(id, clock)?;
            let parts = Parts {
                id,
                clock,
                shard: Shard::new(clock.instant(), birth),
                engine: Engine::new(engine_config(&memory, ring, LogId { start, core: id }), spares, trees),
                ring,
                cores,
                info: NodeInfo { core: id, ..node.info.clone() },
                mesh: node.inboxes.clone(),
                store: jobs,
                metrics: metrics(id),
                holdings: Arc::clone(&node.holdings),
                replies_bytes_max: usize::try_from(memory.replies_bytes_max).unwrap_or(usize::MAX),
                asks_bytes_max: usize::try_from(memory.replies_bytes_max).unwrap_or(usize::MAX),
                wishes: wish.clone(),
                notices: notice.clone(),
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

    /// The connections to other nodes that its cores want, for the dialer.
    pub fn wishes(&self) -> flume::Receiver<Wish> {
        self.wishes.clone()
    }

    /// What its cores tell unasked.
    pub fn notices(&self) -> flume::Receiver<Notice> {
        self.notices.clone()
    }

    /// Who it is. The core named is core 0.
    pub fn info(&self) -> &NodeInfo {
        &self.info
    }

    /// Which data directory it is, and which start of it this is.
    pub fn identity(&self) -> &Identity {
        &self.home.identity
    }

    /// The data directory, as an absolute path.
    pub fn data_dir(&self) -> &Path {
        self.home.path()
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

    /// Tells how much the node holds, as often as it is asked: what its cores show, and the files of its tree. Calls
    /// into the tree.
    pub fn holdings(&self) -> impl Fn() -> Holding + Send + Sync + use<> {
        let (lsm, holdings) = (self.lsm.clone(), Arc::clone(&self.holdings));
        move || Holding { disk_bytes: lsm.size().bytes_on_disk, ..holdings.sum() }
    }

    /// Tells whether the node holds nothing at all: no key and no hint. What was dropped may be in the files of its
    /// tree for long, until what memory holds is ingested; it counts no more. None while a core has not said anything.
    pub fn emptiness(&self) -> impl Fn() -> Option<bool> + Send + Sync + use<> {
        let holdings = Arc::clone(&self.holdings);
        move || holdings.are_empty()
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
        self.reclaimer.stop();
        self.lsm.close()?;
        let drained = rests.into_values().map(|rest| rest.drained.then_some(rest.left));
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
        self.storekeepers.push(
            thread
                .spawn(move || {
                    be_nice(priority::STORE);
                    storekeeper.work();
                })
                .map_err(StartError::Thread)?,
        );
        self.jobs.push(sender.clone());
        Ok(sender)
    }
}

fn engine_config(memory: &Memory, ring: Ring, log: LogId) -> EngineConfig {
    const MIB: u64 = 1024 * 1024;
    EngineConfig {
        overlay_bytes_max: memory.overlay_bytes_max,
        queue_bytes_max: memory.queue_bytes_max,
        cache_bytes: memory.cache_bytes,
        chunk_bytes: memory.chunk_bytes,
        chunk_age: OVERLAY_AGE_MAX,
        log_bytes_max: memory.log_bytes_max,
        retry: Duration::from_secs(1),
        ring,
        seed: entropy::word(),
        log: LogConfig {
            id: log,
            write_bytes_max: 1024 * 1024,
            segment_bytes_min: 4 * MIB,
            segment_bytes_max: 64 * MIB,
            retry: Duration::from_secs(1),
        },
        planted: Planted::NONE,
    }
}

#[cfg(test)]
mod tests;
