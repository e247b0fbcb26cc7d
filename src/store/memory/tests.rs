//! Thousands of seeded crash schedules: a node of one to three cores over the model disk and the model tree, against a
//! naive twin that remembers everything that was ever appended.
//!
//! What must hold after every crash, and after a crash in the middle of recovery:
//! - every append that was reported durable is there, and of each log exactly a prefix of what was appended;
//! - nothing is there that was never appended;
//! - damage is never reported when nothing was flipped;
//! - after a bit has turned, what was stated as durable is there, or damage is reported.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Disk, Rng, Tree};
use crate::protocol::causality::{Context, Operation, Siblings, Supersedes, Write};
use crate::protocol::io::{Append, Arrived, Change};
use crate::protocol::replica::Remembered;
use crate::protocol::ring::{Cores, Ring};
use crate::protocol::types::{ActorId, AppendId, CoreId, Dot, Instant, Key, LogId, OperationId, Value, WallTime};
use crate::store::engine::{Engine, EngineConfig, Lookup, Refusal};
use crate::store::layout::{self, Place};
use crate::store::recovery::recover;
use crate::store::wal::log::LogConfig;
use crate::store::wal::segment::BLOCK;
use crate::store::wal::{Life, LogWrite, ReplayError, SegmentId, SpareSegment, replay};

fn ring() -> Ring {
    Ring::new(8)
}
const KEYS: usize = 24;

/// One append as the twin remembers it.
struct Appended {
    core: CoreId,
    id: AppendId,
    key: Key,
    state: Arc<Siblings>,
    operation: Option<OperationId>,
}

/// What the schedules came upon: a test that meets nothing shows nothing.
#[derive(Debug, Default)]
struct Tally {
    crashes: usize,
    crashes_in_recovery: usize,
    tails: usize,
    replayed: usize,
    ingested: usize,
    segments_reused: usize,
    fetches_overtaken: usize,
    failed: usize,
    rotten: usize,
    damaged: usize,
}

/// A node, and the twin that judges it.
struct World {
    tally: Tally,
    rng: Rng,
    disk: Disk,
    disk_lies: bool,
    tree: Tree,
    now: Instant,
    start: u64,
    cores: Vec<Core>,
    segments: u32,
    salt: u64,
    /// The newest appended state of each key, as shards hold it.
    shards: BTreeMap<Key, Arc<Siblings>>,
    /// Since the last recovery.
    appended: Vec<Appended>,
    /// What was there at the last recovery.
    base: BTreeMap<Key, Arc<Siblings>>,
    /// Operations that were in the tree at the last recovery.
    base_operations: Vec<(Key, OperationId)>,
    minted: u64,
}

struct Core {
    engine: Engine,
    writing: Option<LogWrite>,
    preparing: Option<SpareSegment>,
    ingesting: bool,
    segments_seen: Vec<SegmentId>,
    fetches: BTreeMap<Key, Option<Arc<Siblings>>>,
    appended: AppendId,
    durable: AppendId,
    /// What every statement on the disk says at most: all but the last write.
    stated: AppendId,
}

impl World {
    fn new(seed: u64) -> World {
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
            appended: Vec::new(),
            base: BTreeMap::new(),
            base_operations: Vec::new(),
            minted: 0,
        };
        world.recover().unwrap();
        world
    }

    /// Starts the node: replays what the last start left, puts it into the tree, begins fresh logs.
    fn recover(&mut self) -> Result<(), ReplayError> {
        loop {
            self.start += 1;
            let (files, known) = (self.disk.files(), self.tree.known());
            let replayed = replay(&files, &known)?;
            self.tally.tails += replayed.tails.len();
            self.tally.replayed += replayed.logs.values().map(Vec::len).sum::<usize>();
            let chunk =
                recover(&replayed, ring(), self.start, 7, |key| self.tree.get(&Place::of(ring(), key))).unwrap();
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
        };
        let core = |(at, spares)| Core {
            engine: Engine::new(config(CoreId(at)), spares),
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

    /// One thing happens.
    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        let at = self.rng.below(self.cores.len());
        match self.rng.below(10) {
            0..=3 => self.write(),
            4 | 5 => self.begin_write(at),
            6 if self.rng.percent(3) => self.fail_write(at),
            6 => self.end_writes(),
            7 => self.wish_segment(at),
            8 => self.tend_chunks(at),
            _ => self.read(),
        }
    }

    fn key(&mut self) -> Key {
        Key::new(format!("key {}", self.rng.below(KEYS))).unwrap()
    }

    /// A shard mints and appends.
    fn write(&mut self) {
        let key = self.key();
        let core = self.core_of(&key);
        if self.cores[core.index()].engine.admit().is_err() {
            return;
        }
        self.minted += 1;
        let dot = Dot { actor: ActorId(self.start << 8 | u64::from(core.0)), counter: self.minted };
        let operation = self
            .rng
            .percent(20)
            .then(|| Operation { id: OperationId::new(format!("op {}", self.minted)).unwrap(), digest: self.minted });
        let write = Write {
            value: (!self.rng.percent(10)).then(|| self.value()),
            supersedes: self.supersedes(&key),
            operation: operation.clone().map(Box::new),
            written_at: WallTime(self.now.0),
        };
        let held = self.shards.get(&key).cloned().unwrap_or_default();
        let minted = held.mint(dot, write).unwrap();
        let remember = operation.clone().map(|operation| {
            Box::new(Remembered {
                operation,
                dot,
                written_at: WallTime(self.now.0),
                superseded: minted.superseded,
                context: minted.context,
            })
        });
        let state = Arc::new(minted.set);
        self.shards.insert(key.clone(), state.clone());
        let core_state = &mut self.cores[core.index()];
        core_state.appended = core_state.appended.next();
        let id = core_state.appended;
        let arrived = Arrived { state: state.clone(), dot, upon: minted.upon, supersedes: minted.supersedes, remember };
        core_state.engine.append(Append { id, key: key.clone(), change: Change::Version(arrived) });
        self.appended.push(Appended { core, id, key, state, operation: operation.map(|operation| operation.id) });
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

    fn begin_write(&mut self, at: usize) {
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
    fn end_writes(&mut self) {
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

    fn wish_segment(&mut self, at: usize) {
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
        let expected = self.state_at(key, |_| self.cores[core.index()].durable);
        assert_eq!(found, expected, "{key}");
    }

    /// The twin's state of a key, when of each log the records up to this one count.
    fn state_at(&self, key: &Key, through: impl Fn(CoreId) -> AppendId) -> Option<Arc<Siblings>> {
        let newest = self.appended.iter().rev();
        let newest = newest.filter(|appended| appended.id <= through(appended.core));
        let newest = newest.filter(|appended| appended.key == *key).map(|appended| &appended.state);
        newest.chain(self.base.get(key)).next().cloned()
    }

    fn crash(&mut self) {
        self.disk.crash(&mut self.rng);
        // What is ingested may be known to the tree and not to the engine.
        self.tree.crash(&mut self.rng);
    }

    /// Holds the tree against the twin, and lets the twin begin again from what is there.
    fn judge(&mut self) {
        let there: BTreeMap<Key, Arc<Siblings>> = self
            .tree
            .places()
            .into_iter()
            .map(|place| (place.key.clone(), self.tree.get(&place).unwrap().unwrap()))
            .collect();
        for at in 0..self.cores.len() {
            let core = CoreId(u16::try_from(at).unwrap());
            let through = self.through(core, &there);
            assert!(self.cores[at].durable <= through, "core {core}: durable records are gone");
        }
        let operations: Vec<(Key, OperationId)> = self
            .tree
            .entries(layout::operation_prefix())
            .map(|(key, value)| layout::decode_operation(key, value).unwrap())
            .map(|(place, remembered)| (place.key, remembered.operation.id))
            .collect();
        self.judge_operations(&operations);
        self.base_operations = operations;
        self.shards.clone_from(&there);
        self.base = there;
        self.appended.clear();
    }

    /// The prefix of a core's log that explains all of its keys.
    fn through(&self, core: CoreId, there: &BTreeMap<Key, Arc<Siblings>>) -> AppendId {
        let explains = |through: &AppendId| {
            let mut keys = (0..KEYS).map(|n| Key::new(format!("key {n}")).unwrap());
            keys.all(|key| self.core_of(&key) != core || self.state_at(&key, |_| *through).as_ref() == there.get(&key))
        };
        let durable = self.cores[core.index()].durable;
        let mut candidates = (durable.0..=self.cores[core.index()].appended.0).map(AppendId);
        candidates
            .find(explains)
            .unwrap_or_else(|| panic!("core {core}: no prefix from {durable:?} on explains what is there"))
    }

    fn judge_operations(&self, there: &[(Key, OperationId)]) {
        let durable = |appended: &&Appended| appended.id <= self.cores[appended.core.index()].durable;
        let ours = |appended: &Appended| Some((appended.key.clone(), appended.operation.clone()?));
        for expected in self.appended.iter().filter(durable).filter_map(ours) {
            assert!(there.contains(&expected), "{expected:?} was forgotten");
        }
        for kept in &self.base_operations {
            assert!(there.contains(kept), "{kept:?} was forgotten");
        }
        let known = self.base_operations.len() + self.appended.iter().filter_map(ours).count();
        assert!(there.len() <= known, "an operation that nobody asked for");
    }

    /// Turns one bit somewhere in the files. From then on only what a second write states is sure to be missed when
    /// it is gone.
    fn rot(&mut self) -> Option<(SegmentId, usize)> {
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

    fn live_and_crash(&mut self) {
        let steps = self.rng.below(300);
        (0..steps).for_each(|_| self.step());
        self.crash();
        self.tally.crashes += 1;
    }
}

/// Runs a schedule for each seed and says what they came upon together.
fn tally(seeds: std::ops::Range<u64>, run: fn(u64) -> Tally) -> Tally {
    seeds.map(run).fold(Tally::default(), |sum, one| Tally {
        crashes: sum.crashes + one.crashes,
        crashes_in_recovery: sum.crashes_in_recovery + one.crashes_in_recovery,
        tails: sum.tails + one.tails,
        replayed: sum.replayed + one.replayed,
        ingested: sum.ingested + one.ingested,
        segments_reused: sum.segments_reused + one.segments_reused,
        fetches_overtaken: sum.fetches_overtaken + one.fetches_overtaken,
        failed: sum.failed + one.failed,
        rotten: sum.rotten + one.rotten,
        damaged: sum.damaged + one.damaged,
    })
}

#[test]
fn every_crash_keeps_what_was_durable_and_brings_nothing_else() {
    let tally = tally(0..1_000, |seed| {
        let mut world = World::new(seed);
        for _ in 0..4 {
            world.live_and_crash();
            world.recover().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        world.tally
    });

    assert!(tally.crashes == 4_000 && tally.crashes_in_recovery > 1_000, "{tally:?}");
    assert!(tally.tails > 300 && tally.replayed > 50_000 && tally.ingested > 5_000, "{tally:?}");
    assert!(tally.segments_reused > 300 && tally.fetches_overtaken > 30, "{tally:?}");
    assert!(tally.failed > 100, "{tally:?}");
}

#[test]
fn a_bit_that_turned_is_never_passed_over() {
    let tally = tally(0..1_000, |seed| {
        let mut world = World::new(seed);
        for _ in 0..4 {
            world.live_and_crash();
            let Some((segment, bit)) = world.rot() else {
                break;
            };
            if world.recover().is_err() {
                world.tally.damaged += 1;
                world.disk.flip(segment, bit);
                world.recover().unwrap_or_else(|error| panic!("seed {seed}: {error} after healing"));
            }
        }
        world.tally
    });

    assert!(tally.rotten > 2_000 && tally.damaged > 200, "{tally:?}");
}

/// SEEDS fault 9: a torn tail stayed in the log, and what was written behind it was lost.
#[test]
fn what_is_written_after_a_torn_tail_survives_the_next_crash() {
    let tally = tally(0..50, |seed| {
        let mut world = World::new(seed);
        for _ in 0..3 {
            for _ in 0..3 {
                world.end_writes();
                (0..world.cores.len()).for_each(|at| world.wish_segment(at));
                world.end_writes();
                (0..20).for_each(|_| world.write());
                (0..world.cores.len()).for_each(|at| world.begin_write(at));
            }
            world.crash();
            world.recover().unwrap();
        }
        world.tally
    });

    assert!(tally.tails > 30, "{tally:?}");
}

/// SEEDS fault 10: what the tree had was replayed once more, and doubled siblings at each restart.
#[test]
fn what_was_ingested_and_not_yet_known_to_be_changes_nothing_when_it_is_replayed() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        (0..200).for_each(|_| world.step());
        let chunks: Vec<Arc<crate::store::Chunk>> = world
            .cores
            .iter_mut()
            .filter(|core| !core.ingesting)
            .filter_map(|core| {
                core.engine.checkpoint();
                core.engine.next_chunk(world.now)
            })
            .collect();
        chunks.into_iter().for_each(|chunk| world.tree.hand(chunk));
        world.tree.ingest();
        world.crash();
        world.recover().unwrap();

        let there = world.base.clone();
        world.crash();
        world.recover().unwrap();
        assert_eq!(world.base, there, "a restart changes nothing");
    }
}

/// The checker can fail: a disk that loses what it called durable does not get past it.
#[test]
fn a_disk_that_lies_is_found_out() {
    let survives = |seed: &u64| {
        let mut world = World::new(*seed);
        world.disk_lies = true;
        world.live_and_crash();
        world.recover().is_ok()
    };
    let found_out = (0..40).filter(|seed| !std::panic::catch_unwind(|| survives(seed)).unwrap_or(false));
    assert!(found_out.count() > 20);
}
