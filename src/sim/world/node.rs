//! One simulated node: its disk, its process, and how the one becomes the other.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::watch::Found;
use super::core::Core;
use super::disk::Store;
use super::members::Members;
use super::stage::{At, CoreEvent, Event, Life, MembersEvent, Place, Stage};
use crate::protocol::causality::Siblings;
use crate::protocol::io::Hint;
use crate::protocol::membership::{Durable, RowStart, may_join};
use crate::protocol::message::Directory;
use crate::protocol::planted::Bug;
use crate::protocol::replica::Remembered;
use crate::protocol::ring::{Cores, View};
use crate::protocol::shard::{Birth, Shard};
use crate::protocol::types::{ActorId, CoreId, Key, LogId, NodeId};
use crate::store::Place as Spot;
use crate::store::engine::{Engine, EngineConfig};
use crate::store::layout;
use crate::store::recovery::recover;
use crate::store::wal::log::LogConfig;
use crate::store::wal::{SpareSegment, replay};

/// One node, whether it runs or not.
pub(crate) struct Node {
    pub(super) at: At,
    /// Its name.
    pub name: String,
    pub(super) cores: Cores,
    /// Its data directory.
    pub incarnation: u128,
    starts: u64,
    stamp: u64,
    /// What outlives its process.
    pub store: Store,
    pub(super) known: Option<Durable>,
    pub(super) process: Option<Process>,
    life: Life,
    /// It, or a thread of it, stands still: what comes waits.
    pub stalled: Option<Stalled>,
    /// It never comes back.
    pub is_gone: bool,
    /// A bit of its log was flipped.
    pub is_rotten: bool,
    /// What its cores were before: their actors, and the last dots of these that are durable.
    minted: Vec<(ActorId, u64)>,
}

/// A process of a node.
pub(super) struct Process {
    pub(super) cores: Vec<Core>,
    pub(super) members: Members,
}

/// What a store remembers beside sets: operations, and hints.
type Kept = (Vec<(Key, Remembered)>, Vec<(Key, Hint)>);

/// Why a node does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotStarted {
    /// What is on its disk is damaged, and it says so.
    Damaged(String),
}

impl Node {
    /// A node that was never started.
    pub(crate) fn new(at: At, name: &str, cores: Cores, stage: &mut Stage) -> Node {
        Node {
            at,
            name: name.to_owned(),
            cores,
            incarnation: u128::from(stage.chance.bits()),
            starts: 0,
            stamp: 0,
            store: Store::default(),
            known: None,
            process: None,
            life: 0,
            stalled: None,
            is_gone: false,
            is_rotten: false,
            minted: Vec::new(),
        }
    }

    /// Its id.
    pub(crate) fn id(&self) -> NodeId {
        NodeId::of(&self.name)
    }

    /// Where others reach it.
    pub(crate) fn address(&self) -> SocketAddr {
        address(self.at)
    }

    /// Whether it runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.process.is_some()
    }

    /// Whether its disk knows of a cluster.
    pub(crate) fn has_joined(&self) -> bool {
        self.known.is_some()
    }

    /// Asks a member, whose knowledge this is, for a place in its cluster; `None` where its name is another's.
    pub(crate) fn join(&mut self, known: crate::protocol::membership::Knowledge) -> Option<()> {
        let durable = may_join(&self.name, self.incarnation, self.row_start(0), known).ok()?;
        self.known = Some(durable);
        Some(())
    }

    /// Its disk is lost: what starts next is another data directory.
    pub(crate) fn lose_disk(&mut self, stage: &mut Stage) {
        self.store = Store::default();
        self.known = None;
        self.starts = 0;
        self.stamp = 0;
        self.minted.clear();
        self.is_rotten = false;
        self.incarnation = u128::from(stage.chance.bits());
    }

    fn row_start(&self, count: u64) -> RowStart {
        let address = self.address();
        let http = SocketAddr::new(address.ip(), address.port() + 1);
        RowStart { count, stamp: self.stamp, address, http, cores: self.cores }
    }

    /// Starts it from what is on its disk.
    ///
    /// # Errors
    /// [`NotStarted`]; nothing was changed.
    pub(crate) fn start(&mut self, stage: &mut Stage) -> Result<(), NotStarted> {
        let damaged = |error: &dyn std::fmt::Display| NotStarted::Damaged(error.to_string());
        let (files, known) = (self.store.disk.files(), self.store.tree.known());
        let replayed = replay(&files, &known, stage.planted).map_err(|error| damaged(&error))?;
        let (ring, seed) = (stage.ring(), stage.chance.bits());
        let forest = self.store.tree.forest();
        let set = |key: &Key| self.store.tree.get(&Spot::of(ring, key));
        let tree = |partition| Ok(forest.tree(partition).cloned());
        let start = self.starts + 1;
        let chunk = recover(&replayed, ring, start, seed, set, tree).map_err(|error| damaged(&error))?;
        stage.coverage.replayed(&replayed);
        self.store.tree.hand(Arc::new(chunk));
        self.store.tree.ingest();
        self.starts = start;
        self.stamp = stage.chance.bits();
        self.life += 1;
        self.begin(files.into_iter().filter_map(|file| SpareSegment::new(file.id, file.bytes.len() as u64)), stage);
        Ok(())
    }

    fn begin(&mut self, spares: impl Iterator<Item = SpareSegment>, stage: &mut Stage) {
        let (life, at) = (self.life, self.at);
        let post = &mut stage.posts[at];
        (post.life, post.open, post.cores) = (Some(life), 0, self.cores);
        let (sets, forest, hints) = (self.sets(), self.store.tree.forest(), self.hints());
        stage.watch.restarted(stage.now, at, Found { sets: &sets, forest: &forest, hints: &hints });
        let mut of_core: Vec<Vec<SpareSegment>> = vec![Vec::new(); usize::from(self.cores.count)];
        for (n, spare) in spares.enumerate() {
            of_core[n % usize::from(self.cores.count)].push(spare);
        }
        let remembered = self.remembered();
        let mut cores = Vec::new();
        for (id, spares) in (0..).map(CoreId).zip(of_core) {
            let mine = |key: &Key| self.cores.of(stage.ring().partition(key)) == id;
            let of_mine = (
                remembered.iter().filter(|(key, _)| mine(key)).cloned().collect(),
                hints.iter().filter(|(key, _)| mine(key)).cloned().collect(),
            );
            let part = forest.part(|partition| self.cores.of(partition) == id);
            let shard = self.shard(id, of_mine, stage);
            let engine = Engine::new(self.engine_config(id, stage), spares, part);
            cores.push(Core::new(Place { node: at, life, core: id }, shard, engine, stage));
        }
        self.minted = cores.iter().map(|core| core.minted).collect();
        let members = Members::begin(self, stage);
        self.process = Some(Process { cores, members });
    }

    fn shard(&self, id: CoreId, (remembered, hints): Kept, stage: &mut Stage) -> Shard {
        let kept = self.minted.get(id.index()).copied().filter(|_| stage.planted.is(Bug::ActorKept));
        let (actor, counter) = kept.unwrap_or_else(|| (ActorId(stage.chance.bits()), 0));
        let birth = Birth {
            cluster: stage.shape.cluster,
            core: id,
            actor,
            counter,
            spare: ActorId(stage.chance.bits()),
            view: Arc::new(View::alone(&self.name, self.cores, stage.shape.partitions)),
            directory: Arc::new(Directory::default()),
            remembered,
            hints,
            seed: stage.chance.bits(),
            transfer_rate: stage.shape.transfer_rate,
            compare_period: stage.shape.compare_period,
            keeps_hints: stage.shape.keeps_hints,
            tombstone_age: stage.shape.tombstone_age,
            planted: stage.planted,
        };
        Shard::new(stage.clocks(self.at).instant, birth)
    }

    fn engine_config(&self, core: CoreId, stage: &mut Stage) -> EngineConfig {
        let sizes = stage.shape.store;
        EngineConfig {
            overlay_bytes_max: sizes.overlay_bytes_max,
            queue_bytes_max: sizes.queue_bytes_max,
            cache_bytes: sizes.cache_bytes,
            chunk_bytes: sizes.chunk_bytes,
            chunk_age: sizes.chunk_age,
            log_bytes_max: sizes.log_bytes_max,
            retry: Duration::from_millis(50),
            ring: stage.ring(),
            seed: stage.chance.bits(),
            planted: stage.planted,
            log: LogConfig {
                id: LogId { start: self.starts, core },
                write_bytes_max: sizes.write_bytes_max,
                segment_bytes_min: sizes.segment_bytes_min,
                segment_bytes_max: sizes.segment_bytes_max,
                retry: Duration::from_millis(50),
            },
        }
    }

    /// Every set on its disk that is in the tree.
    fn sets(&self) -> BTreeMap<Key, Arc<Siblings>> {
        let read = |spot: Spot| {
            let set = self.store.tree.get(&spot).expect("what was ingested can be read");
            (spot.key, set.expect("it stands there"))
        };
        self.store.tree.places().into_iter().map(read).collect()
    }

    fn remembered(&self) -> Vec<(Key, Remembered)> {
        let entries = self.store.tree.entries(layout::operation_prefix());
        let decoded = entries.map(|(key, value)| layout::decode_operation(key, value).expect("a chunk spelled it"));
        let mut remembered: Vec<(Key, Remembered)> = decoded.map(|(place, known)| (place.key, known)).collect();
        remembered.sort_by_key(|(_, known)| known.written_at);
        remembered
    }

    fn hints(&self) -> Vec<(Key, Hint)> {
        let entries = self.store.tree.entries(layout::hint_prefix());
        let decoded = entries.map(|(key, value)| layout::decode_hint(key, value).expect("a chunk spelled it"));
        decoded.map(|(place, hint)| (place.key, hint)).collect()
    }

    /// What its membership begins with.
    pub(super) fn member_birth(&self, stage: &mut Stage) -> crate::protocol::membership::Birth {
        crate::protocol::membership::Birth {
            cluster: stage.shape.cluster,
            partitions: stage.shape.partitions,
            name: self.name.as_str().into(),
            incarnation: self.incarnation,
            start: self.row_start(self.starts),
            zone: None,
            weight: None,
            known: self.known.clone(),
            wanted: stage.shape.wanted,
            auto_join: stage.shape.auto_join,
            seeds: vec![],
            planted: stage.planted,
            seed: stage.chance.bits(),
        }
    }

    /// Its process ends at once. Where it `loses_power` everything that no disk had said to be durable is as chance
    /// will have it.
    pub(crate) fn end(&mut self, loses_power: bool, stage: &mut Stage) {
        let Some(process) = self.process.take() else { return };
        self.minted = process.cores.iter().map(|core| core.minted).collect();
        if loses_power {
            self.store.crash(stage);
        } else {
            self.store.settle();
        }
        let keeps_file = !loses_power || stage.chance.thousandth(500);
        if let Some(written) = process.members.into_written().filter(|_| keeps_file || self.known.is_none()) {
            self.known = Some(written);
        }
        self.stalled = None;
        stage.posts[self.at].life = None;
        let callers = process.cores.iter().flat_map(Core::callers).collect::<Vec<_>>();
        for caller in callers {
            stage.hang_up(caller);
        }
        stage.watch.ended(stage.now, self.at);
        stage.break_connections(self.at);
    }

    /// Something comes to it.
    pub(crate) fn happen(&mut self, event: Event, stage: &mut Stage) {
        match event {
            Event::Core(place, event) if self.lives(place.life) => self.on_core(place.core, event, stage),
            Event::Members(_, life, event) if self.lives(life) => self.on_members(event, stage),
            Event::Core(_, CoreEvent::Called { caller, .. }) => stage.hang_up(caller),
            _ => {}
        }
    }

    fn lives(&self, life: Life) -> bool {
        self.life == life && self.process.is_some()
    }

    fn on_core(&mut self, core: CoreId, event: CoreEvent, stage: &mut Stage) {
        let process = self.process.as_mut().expect("looked at before");
        process.cores[core.index()].happen(event, &mut self.store, stage);
    }

    fn on_members(&mut self, event: MembersEvent, stage: &mut Stage) {
        let process = self.process.as_mut().expect("looked at before");
        let Process { cores, members } = process;
        let holds = || cores.iter().any(|core| 0 < core.engine.sum().keys || 0 < core.shard.stats().hints_waiting);
        let is_refused = members.happen(event, holds, self.store.is_full, &mut self.known, stage);
        if is_refused {
            self.is_gone = true;
            self.end(false, stage);
        }
    }
}

/// What of a process stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    All,
    /// The thread of its membership: its cores go on by what they know.
    Control,
    /// One core's.
    Core(CoreId),
}

/// Where a process stands still.
#[derive(Debug)]
pub(crate) struct Stalled {
    /// What of it.
    pub part: Part,
    /// What has come there since.
    pub waiting: Vec<Event>,
}

impl Stalled {
    /// Whether an event has to wait.
    pub(crate) fn holds_up(&self, event: &Event) -> bool {
        match (self.part, event) {
            (Part::All, _) => true,
            (Part::Control, event) => matches!(event, Event::Members(..)),
            (Part::Core(core), Event::Core(place, _)) => place.core == core,
            (Part::Core(_), _) => false,
        }
    }
}

/// Where a node is reached.
pub(super) fn address(at: At) -> SocketAddr {
    let last = u8::try_from(at + 1).expect("fewer nodes than addresses");
    SocketAddr::from(([127, 0, 0, last], 7_600))
}

impl Node {
    /// How many cores it has.
    pub(crate) fn cores(&self) -> usize {
        usize::from(self.cores.count)
    }

    /// Whether it runs and nothing of it stands still.
    pub(crate) fn is_well(&self) -> bool {
        self.process.is_some() && self.stalled.is_none()
    }

    /// What it would tell another node; `None` while it does not run.
    pub(crate) fn knowledge(&self) -> Option<crate::protocol::membership::Knowledge> {
        Some(self.process.as_ref()?.members.knowledge())
    }

    /// The log of a core fails with its next write.
    pub(crate) fn break_log(&mut self, core: CoreId) {
        if let Some(process) = &mut self.process {
            process.cores[core.index()].breaks = true;
        }
    }

    /// Its log does not fail.
    pub(crate) fn keep_log(&mut self) {
        self.process.iter_mut().flat_map(|process| &mut process.cores).for_each(|core| core.breaks = false);
    }

    /// Whether a core has stopped writing.
    pub(crate) fn has_failed(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.cores.iter().any(|core| core.engine.is_stopped()))
    }

    /// Says good-bye to the others, as before a clean stop.
    pub(crate) fn leave(&mut self, stage: &mut Stage) {
        if let Some(process) = &mut self.process {
            process.members.leave(stage);
        }
    }

    /// Turns a bit of its log, where something is written. False where nothing is. What was written last is spared: no
    /// later write states it, so that it could not be told from a torn one.
    pub(crate) fn rot(&mut self, stage: &mut Stage) -> bool {
        let Some(process) = &self.process else { return false };
        let newest: Vec<_> = process.cores.iter().flat_map(Core::last_segments).collect();
        let mut files = self.store.disk.files();
        files.retain(|file| !newest.contains(&file.id));
        for _ in 0..32 {
            if files.is_empty() {
                return false;
            }
            let file = &files[stage.chance.index(files.len())];
            if file.bytes.is_empty() {
                continue;
            }
            let at = stage.chance.index(file.bytes.len());
            if file.bytes[at] != 0 {
                self.store.disk.flip(file.id, at * 8 + stage.chance.index(8));
                self.is_rotten = true;
                return true;
            }
        }
        false
    }

    /// What is in its tables still.
    pub(crate) fn under_way(&self) -> usize {
        self.process.as_ref().map_or(0, |process| process.cores.iter().map(|core| core.shard.under_way()).sum())
    }

    /// Appends that are not durable.
    pub(crate) fn unsynced(&self) -> usize {
        self.process.as_ref().map_or(0, |process| process.cores.iter().map(Core::unsynced).sum())
    }

    /// What its cores count, one after the other.
    pub(crate) fn stats(&self) -> impl Iterator<Item = crate::protocol::Stats> {
        self.process.iter().flat_map(|process| process.cores.iter().map(|core| core.shard.stats()))
    }

    /// The root and the sums of a partition.
    pub(crate) fn sum(&self, partition: crate::protocol::ring::Partition) -> crate::protocol::antientropy::Sum {
        let process = self.process.as_ref().expect("only nodes that run are looked at");
        let core = &process.cores[self.cores.of(partition).index()];
        match core.engine.survey(&crate::protocol::io::Survey::Sums([partition].into())) {
            crate::protocol::io::Surveyed::Sums(sums) => sums[0],
            crate::protocol::io::Surveyed::Digests(_) => unreachable!("sums were asked for"),
        }
    }

    /// The view that it goes by; its cores may be a little behind.
    pub(crate) fn view(&self) -> Option<&Arc<View>> {
        self.process.as_ref()?.members.view.as_ref()
    }
}
