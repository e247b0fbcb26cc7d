//! A node of one to three cores over the model disk and the model tree, and chance that drives it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::twin::{Appended, There, Twin};
use super::{KEYS, NODES, Tally, ring};
use crate::protocol::antientropy::{Forest, LEAVES, Shift, Sum};
use crate::protocol::causality::{Context, Minted, Operation, Siblings, Supersedes, Write};
use crate::protocol::io::{Append, Arrived, Change, Hint, Survey, Surveyed};
use crate::protocol::planted::Planted;
use crate::protocol::replica::Remembered;
use crate::protocol::ring::{Cores, Partition};
use crate::protocol::types::{
    ActorId, AppendId, CoreId, Dot, Instant, Key, LogId, NodeId, OperationId, Value, WallTime,
};
use crate::store::engine::{Engine, EngineConfig, Lookup, Refusal};
use crate::store::layout::Place;
use crate::store::memory::{Disk, Rng, Tree};
use crate::store::recovery::recover;
use crate::store::wal::log::LogConfig;
use crate::store::wal::record::{DELIVERED, DROP, HINT, SET};
use crate::store::wal::segment::BLOCK;
use crate::store::wal::{Life, LogWrite, ReplayError, SegmentId, SpareSegment, replay};

/// A node, and the twin that judges it.
pub(super) struct World {
    pub(super) tally: Tally,
    rng: Rng,
    pub(super) disk: Disk,
    pub(super) disk_lies: bool,
    pub(super) tree: Tree,
    pub(super) now: Instant,
    start: u64,
    pub(super) cores: Vec<Core>,
    segments: u32,
    salt: u64,
    /// The newest appended state of each key, as shards hold it.
    shards: BTreeMap<Key, Arc<Siblings>>,
    /// What another replica holds of each key.
    elsewhere: BTreeMap<Key, Arc<Siblings>>,
    pub(super) twin: Twin,
    minted: u64,
}

pub(super) struct Core {
    pub(super) engine: Engine,
    writing: Option<LogWrite>,
    preparing: Option<SpareSegment>,
    pub(super) ingesting: bool,
    segments_seen: Vec<SegmentId>,
    fetches: BTreeMap<Key, Option<Arc<Siblings>>>,
    appended: AppendId,
    durable: AppendId,
    /// What every statement on the disk says at most: all but the last write.
    stated: AppendId,
}

fn partitions() -> impl Iterator<Item = Partition> {
    (0..ring().partitions()).map(Partition)
}

/// The trees of these sets.
fn grown(sets: &BTreeMap<Key, Arc<Siblings>>) -> Forest {
    let mut forest = Forest::default();
    for (key, set) in sets {
        let shift = Shift::between(key, None, Some(set));
        forest.grow(ring(), key, shift);
    }
    forest
}

/// All that a forest says; a tree of nothing says what none does.
fn sums(forest: &Forest) -> Vec<(Sum, [u64; LEAVES])> {
    let leaves = |partition| forest.tree(partition).map_or([0; LEAVES], |tree| *tree.leaves());
    partitions().map(|partition| (forest.sum(partition), leaves(partition))).collect()
}

/// The actor of the other replica.
const ELSEWHERE: ActorId = ActorId(u64::MAX);

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut world = World {
            tally: Tally::default(),
            rng: Rng::new(seed),
            disk: Disk::default(),
            disk_lies: false,
            tree: Tree::default(),
            now: Instant(0),
            start: 0,
            cores: Vec::new(),
            segments: 0,
            salt: 0,
            shards: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            twin: Twin::default(),
            minted: 0,
        };
        world.recover().unwrap();
        world
    }

    /// Starts the node: replays what the last start left, puts it into the tree, begins fresh logs.
    pub(super) fn recover(&mut self) -> Result<(), ReplayError> {
        loop {
            self.start += 1;
            let (files, known) = (self.disk.files(), self.tree.known());
            let replayed = replay(&files, &known, Planted::NONE)?;
            self.tally.tails += replayed.tails.len();
            for logged in replayed.logs.values().flatten() {
                self.tally.replayed += 1;
                self.tally.sets_replayed += usize::from(logged.frame.kind == SET);
                self.tally.drops_replayed += usize::from(logged.frame.kind == DROP);
                self.tally.hints_replayed += usize::from(matches!(logged.frame.kind, HINT | DELIVERED));
            }
            let forest = self.tree.forest();
            let set = |key: &Key| self.tree.get(&Place::of(ring(), key));
            let tree = |partition| Ok(forest.tree(partition).cloned());
            let chunk = recover(&replayed, ring(), self.start, 7, set, tree).unwrap();
            self.tree.hand(Arc::new(chunk));
            if !self.rng.percent(30) {
                break;
            }
            self.tally.crashes_in_recovery += 1;
            self.tree.crash(&mut self.rng);
        }
        self.tree.ingest();
        self.judge();
        self.begin();
        Ok(())
    }

    fn begin(&mut self) {
        let count = self.rng.below(3) + 1;
        self.salt = self.start;
        let mut spares: Vec<Vec<SpareSegment>> = vec![Vec::new(); count];
        for (at, file) in self.disk.files().into_iter().enumerate() {
            spares[at % count].extend(SpareSegment::new(file.id, file.bytes.len() as u64));
        }
        let config = |core| EngineConfig {
            overlay_bytes_max: 64 * 1024,
            queue_bytes_max: 32 * 1024,
            cache_bytes: 8 * 1024,
            chunk_bytes: 6 * 1024,
            chunk_age: Duration::from_millis(40),
            log_bytes_max: 48 * 1024,
            retry: Duration::from_millis(5),
            ring: ring(),
            seed: self.start,
            log: LogConfig {
                id: LogId { start: self.start, core },
                write_bytes_max: 8 * 1024,
                segment_bytes_min: 12 * 1024,
                segment_bytes_max: 32 * 1024,
                retry: Duration::from_millis(5),
            },
            planted: Planted::NONE,
        };
        let (forest, cores) = (self.tree.forest(), Cores { count: u16::try_from(count).unwrap(), salt: self.salt });
        let part = |core| forest.part(|partition| cores.of(partition) == core);
        let core = |(at, spares)| Core {
            engine: Engine::new(config(CoreId(at)), spares, part(CoreId(at))),
            writing: None,
            preparing: None,
            ingesting: false,
            segments_seen: Vec::new(),
            fetches: BTreeMap::new(),
            appended: AppendId(0),
            durable: AppendId(0),
            stated: AppendId(0),
        };
        self.cores = (0..).zip(spares).map(core).collect();
    }

    fn cores(&self) -> Cores {
        let count = u16::try_from(self.cores.len()).unwrap();
        Cores { count, salt: self.salt }
    }

    fn core_of(&self, key: &Key) -> CoreId {
        self.cores().of(ring().partition(key))
    }

    /// The trees of a core are those of what is durable of its keys.
    fn judge_forest(&self, core: CoreId) {
        let Core { engine, durable, .. } = &self.cores[core.index()];
        let keys = (0..KEYS).map(super::key).filter(|key| self.core_of(key) == core);
        let sets = keys.filter_map(|key| Some((key.clone(), self.twin.state_at(&key, *durable)?.clone())));
        let partitions: Arc<[Partition]> = partitions().filter(|at| self.cores().of(*at) == core).collect();
        let expected = grown(&sets.collect());
        let expected = partitions.iter().map(|partition| expected.sum(*partition)).collect();
        assert_eq!(engine.survey(&Survey::Sums(partitions)), Surveyed::Sums(expected));
    }

    /// One thing happens.
    pub(super) fn step(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        let at = self.rng.below(self.cores.len());
        match self.rng.below(10) {
            0..=3 => self.append(),
            4 | 5 => self.begin_write(at),
            6 if self.rng.percent(3) => self.fail_write(at),
            6 => self.end_writes(),
            7 => self.wish_segment(at),
            8 => self.tend_chunks(at),
            _ => self.read(),
        }
        if self.rng.percent(20) {
            self.judge_forest(CoreId(u16::try_from(at).unwrap()));
        }
    }

    fn key(&mut self) -> Key {
        super::key(self.rng.below(KEYS))
    }

    /// A shard appends, if the engine takes it.
    pub(super) fn append(&mut self) {
        let key = self.key();
        let core = self.core_of(&key);
        if self.cores[core.index()].engine.admit().is_err() {
            return;
        }
        let change = match self.rng.below(11) {
            0..=5 => self.write(core, &key),
            6 | 7 => self.receive(&key),
            8 => Change::Drop { shift: self.shift(&key, None) },
            9 => Change::Hint(Hint { target: self.node(), counted: self.rng.percent(50) }),
            _ => Change::Delivered { target: self.node() },
        };
        let state = &mut self.cores[core.index()];
        state.appended = state.appended.next();
        let append = Append { id: state.appended, key, change };
        state.engine.append(append.clone());
        if let Change::Drop { .. } = append.change {
            self.shards.remove(&append.key);
        }
        self.shards.extend(append.state().map(|set| (append.key.clone(), set.clone())));
        self.twin.appended.push(Appended { core, append });
    }

    fn node(&mut self) -> NodeId {
        NodeId(self.rng.below(NODES) as u64)
    }

    /// A client writes upon what the shard holds.
    fn write(&mut self, core: CoreId, key: &Key) -> Change {
        let held = self.shards.get(key).cloned().unwrap_or_default();
        let (minted, remember) = self.mint(ActorId(self.start << 8 | u64::from(core.0)), key, &held);
        Change::Version(Arrived {
            shift: self.shift(key, Some(&minted.set)),
            state: Arc::new(minted.set),
            dot: minted.dot,
            upon: minted.upon,
            supersedes: minted.supersedes,
            remember: remember.map(Box::new),
        })
    }

    /// From what the shard holds.
    fn shift(&self, key: &Key, after: Option<&Siblings>) -> Shift {
        Shift::between(key, self.shards.get(key).map(|set| &**set), after)
    }

    /// Another replica was written to, and sends its set; it may know what this one held.
    fn receive(&mut self, key: &Key) -> Change {
        let held = self.shards.get(key).cloned().unwrap_or_default();
        let mut came = self.elsewhere.get(key).cloned().unwrap_or_default();
        if self.rng.percent(30) {
            came = Arc::new(came.join(&held));
        }
        let mut remember = Vec::new();
        for _ in 0..=self.rng.below(2) {
            let (minted, remembered) = self.mint(ELSEWHERE, key, &came);
            came = Arc::new(minted.set);
            remember.extend(remembered);
        }
        self.elsewhere.insert(key.clone(), came.clone());
        let state = Arc::new(held.join(&came));
        Change::Set { shift: self.shift(key, Some(&state)), state, came, remember }
    }

    fn mint(&mut self, actor: ActorId, key: &Key, held: &Siblings) -> (Minted, Option<Remembered>) {
        self.minted += 1;
        let operation = self
            .rng
            .percent(20)
            .then(|| Operation { id: OperationId::new(format!("op {}", self.minted)).unwrap(), digest: self.minted });
        let written_at = WallTime(self.now.0);
        let write = Write {
            value: (!self.rng.percent(10)).then(|| self.value()),
            supersedes: self.supersedes(key),
            operation: operation.clone().map(Box::new),
            written_at,
        };
        let dot = Dot { actor, counter: self.minted };
        let minted = held.mint(dot, write).unwrap();
        let remembered = operation.map(|operation| {
            let (superseded, context) = (minted.superseded.clone(), minted.context.clone());
            Remembered { operation, dot, written_at, superseded, context }
        });
        (minted, remembered)
    }

    /// Mostly small, now and then of several blocks, seldom larger than any segment.
    fn value(&mut self) -> Value {
        let length = match self.rng.below(100) {
            0 => 40_000,
            1..=5 => self.rng.below(6_000),
            _ => self.rng.below(200),
        };
        Value::new(vec![u8::try_from(self.rng.below(256)).unwrap(); length]).unwrap()
    }

    fn supersedes(&mut self, key: &Key) -> Supersedes {
        match self.rng.below(10) {
            0..=5 => Supersedes::Held,
            6 => Supersedes::Nothing,
            7 => Supersedes::Seen(Context::default()),
            _ => Supersedes::Seen(self.shards.get(key).map(|set| set.context()).unwrap_or_default()),
        }
    }

    pub(super) fn begin_write(&mut self, at: usize) {
        let core = &mut self.cores[at];
        if core.writing.is_some() {
            return;
        }
        let rng = &mut self.rng;
        core.writing = core.engine.next_write(|| Life(rng.bits()));
        if let Some(write) = &core.writing {
            assert_eq!(write.bytes.len() % BLOCK, 0);
            assert_eq!(write.offset % BLOCK as u64, 0);
            let reused = write.starts_segment && core.segments_seen.contains(&write.segment);
            self.tally.segments_reused += usize::from(reused);
            core.segments_seen.push(write.segment);
            self.disk.write(write);
        }
    }

    /// The disk refuses a write: the core takes no more of them, and what it holds stays readable.
    fn fail_write(&mut self, at: usize) {
        let core = &mut self.cores[at];
        if let Some(write) = core.writing.take() {
            self.disk.fail(write.segment, &mut self.rng);
            core.engine.on_write_failed();
            assert_eq!(core.engine.admit(), Err(Refusal::Stopped));
            self.tally.failed += 1;
        }
    }

    /// Everything that the disk has begun ends, for all cores.
    pub(super) fn end_writes(&mut self) {
        if self.disk_lies {
            self.disk.crash(&mut self.rng);
        }
        self.disk.sync();
        for core in &mut self.cores {
            if let Some(write) = core.writing.take() {
                core.stated = core.durable;
                core.durable = core.engine.on_written(write);
            }
            if let Some(spare) = core.preparing.take() {
                core.engine.on_segment_ready(spare);
            }
        }
    }

    pub(super) fn wish_segment(&mut self, at: usize) {
        let core = &mut self.cores[at];
        let Some(wish) = core.engine.next_segment(self.now) else {
            return;
        };
        assert_eq!(core.preparing, None, "one segment at a time");
        if self.rng.percent(10) {
            core.engine.on_segment_failed(self.now, self.rng.percent(50));
            assert!(core.engine.admit().is_err(), "without a segment ahead no write is taken");
            return;
        }
        self.segments += 1;
        let spare = SpareSegment::new(SegmentId(self.segments), wish.bytes).unwrap();
        self.disk.prepare(spare);
        core.preparing = Some(spare);
    }

    fn tend_chunks(&mut self, at: usize) {
        let core = &mut self.cores[at];
        if core.ingesting && self.rng.percent(20) {
            // A refusal by the real tree takes nothing in; here the chunk stays under way, which is the same.
            core.engine.on_ingest_failed(self.now, self.rng.percent(50));
            core.ingesting = false;
        } else if core.ingesting {
            self.tree.ingest();
            for core in self.cores.iter_mut().filter(|core| core.ingesting) {
                core.engine.on_ingested();
                self.tally.ingested += 1;
                core.ingesting = false;
            }
        } else {
            if self.rng.percent(5) {
                core.engine.checkpoint();
            }
            if let Some(chunk) = core.engine.next_chunk(self.now) {
                self.tree.hand(chunk);
                core.ingesting = true;
            }
        }
    }

    /// A reader sees the newest durable state, wherever it is. Its fetch from the tree takes a while.
    fn read(&mut self) {
        let key = self.key();
        let core = self.core_of(&key);
        match self.cores[core.index()].engine.lookup(&key) {
            Lookup::Fetch => self.fetch(core, key),
            Lookup::Fetching => self.end_fetch(core, &key),
            found => self.judge_read(core, &key, found),
        }
    }

    fn fetch(&mut self, core: CoreId, key: Key) {
        let stored = self.tree.get(&Place::of(ring(), &key)).unwrap();
        self.cores[core.index()].fetches.insert(key, stored);
    }

    fn end_fetch(&mut self, core: CoreId, key: &Key) {
        let state = &mut self.cores[core.index()];
        let stored = state.fetches.remove(key).expect("a fetch is under way");
        let found = state.engine.on_fetched(key.clone(), stored.clone());
        if found == Lookup::Fetch {
            self.tally.fetches_overtaken += 1;
            self.fetch(core, key.clone());
        } else {
            self.judge_read(core, key, found);
        }
    }

    fn judge_read(&self, core: CoreId, key: &Key, found: Lookup) {
        let found = match found {
            Lookup::Found(set) => Some(set),
            Lookup::Absent => None,
            Lookup::Fetch | Lookup::Fetching => panic!("{key} was to be read"),
        };
        let expected = self.twin.state_at(key, self.cores[core.index()].durable);
        assert_eq!(found.as_ref(), expected, "{key}");
    }

    /// Holds the tree against the twin, and lets the twin begin again from what is there.
    fn judge(&mut self) {
        let there = There::read(&self.tree);
        assert_eq!(sums(&self.tree.forest()), sums(&grown(&there.sets)), "the trees are those of the sets");
        for (core, state) in (0..).map(CoreId).zip(&self.cores) {
            self.twin.through(&there, core, |key| self.core_of(key) == core, state.durable);
        }
        self.twin.judge_operations(&there, |core| self.cores[core.index()].durable);
        self.shards.clone_from(&there.sets);
        self.twin = Twin { base: there, appended: Vec::new() };
    }

    pub(super) fn crash(&mut self) {
        self.disk.crash(&mut self.rng);
        // What is ingested may be known to the tree and not to the engine.
        self.tree.crash(&mut self.rng);
    }

    /// Turns one bit somewhere in the files. From then on only what a second write states is sure to be missed when
    /// it is gone.
    pub(super) fn rot(&mut self) -> Option<(SegmentId, usize)> {
        let place = self.place_to_rot()?;
        self.disk.flip(place.0, place.1);
        self.cores.iter_mut().for_each(|core| core.durable = core.stated);
        self.tally.rotten += 1;
        Some(place)
    }

    /// Mostly where something is written.
    fn place_to_rot(&mut self) -> Option<(SegmentId, usize)> {
        let files = self.disk.files();
        for _ in 0..32 {
            let file = &files[self.rng.below(files.len().max(1)).min(files.len().checked_sub(1)?)];
            let byte = self.rng.below(file.bytes.len().max(1));
            if file.bytes.get(byte).is_some_and(|&byte| byte != 0) {
                return Some((file.id, byte * 8 + self.rng.below(8)));
            }
        }
        None
    }

    pub(super) fn live_and_crash(&mut self) {
        let steps = self.rng.below(300);
        (0..steps).for_each(|_| self.step());
        self.crash();
        self.tally.crashes += 1;
    }
}
