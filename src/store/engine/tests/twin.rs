//! The engine's memory against a naive twin of three maps, over random orders of everything that can happen to a key:
//! written, frozen, ingested, refused by the tree, let go, fetched while any of these happens.

use proptest::prelude::{Strategy, any, prop_oneof, proptest};

use super::*;
use crate::protocol::antientropy::Shift;
use crate::store::layout::{Place, decode_tree, hint_key};

/// Few keys meet often; some of them crowd one partition.
const KEYS: u8 = 40;

#[derive(Clone, Copy, Debug)]
enum Step {
    Write { key: u8, bytes: u16, whole: bool },
    Drop { key: u8 },
    Owe { key: u8, target: u8, counted: Option<bool> },
    Read { key: u8 },
    EndFetch { key: u8 },
    FailFetch { key: u8 },
    Freeze,
    EndIngestion,
    FailIngestion,
    Turn,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS;
    prop_oneof![
        6 => (key(), 0..600_u16, any::<bool>()).prop_map(|(key, bytes, whole)| Step::Write { key, bytes, whole }),
        2 => key().prop_map(|key| Step::Drop { key }),
        1 => (key(), 0..3_u8, any::<Option<bool>>())
            .prop_map(|(key, target, counted)| Step::Owe { key, target, counted }),
        6 => key().prop_map(|key| Step::Read { key }),
        4 => key().prop_map(|key| Step::EndFetch { key }),
        1 => key().prop_map(|key| Step::FailFetch { key }),
        2 => proptest::strategy::Just(Step::Freeze),
        2 => proptest::strategy::Just(Step::EndIngestion),
        1 => proptest::strategy::Just(Step::FailIngestion),
        1 => proptest::strategy::Just(Step::Turn),
    ]
}

/// `None` where a set is to be deleted.
type Sets = BTreeMap<Key, Set>;
type Hints = BTreeMap<Vec<u8>, Option<bool>>;

struct World {
    engine: Engine,
    shard: Shard,
    segments: u32,
    now: Instant,
    overlay: Sets,
    frozen: Option<Sets>,
    under_way: Option<Arc<Chunk>>,
    tree: BTreeMap<Key, Arc<Siblings>>,
    trees: Forest,
    /// Those of the overlay, and those that are frozen; a hint without a value is to be deleted.
    hints: Hints,
    hints_frozen: Hints,
    /// What the tree had when a fetch began.
    fetches: BTreeMap<Key, Option<Arc<Siblings>>>,
}

impl World {
    fn new(cache_bytes: u64) -> World {
        World {
            engine: engine_that_keeps(cache_bytes),
            shard: Shard::new(),
            segments: 1,
            now: NOW,
            overlay: Sets::new(),
            frozen: None,
            under_way: None,
            tree: BTreeMap::new(),
            trees: Forest::default(),
            hints: Hints::new(),
            hints_frozen: Hints::new(),
            fetches: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Write { key, bytes, whole } => self.write(&name(key), bytes.into(), whole),
            Step::Drop { key } => self.forget(&name(key)),
            Step::Owe { key, target, counted } => self.owe(&name(key), NodeId(target.into()), counted),
            Step::Read { key } => self.read(&super::key(&name(key))),
            Step::EndFetch { key } => self.end_fetch(super::key(&name(key))),
            Step::FailFetch { key } => self.fail_fetch(&super::key(&name(key))),
            Step::Freeze => {
                self.engine.checkpoint();
                self.turn();
            }
            Step::EndIngestion => self.end_ingestion(),
            Step::FailIngestion if self.under_way.take().is_some() => self.engine.on_ingest_failed(self.now, false),
            Step::FailIngestion => {}
            Step::Turn => self.turn(),
        }
    }

    fn write(&mut self, name: &str, bytes: usize, whole: bool) {
        if self.engine.admit().is_err() {
            return;
        }
        let mut append = self.shard.put(name, &vec![0; bytes], &Siblings::default());
        let state = state(&append);
        let shift = Shift::between(&append.key, self.newest(&append.key).map(|set| &**set), Some(&state));
        match &mut append.change {
            Change::Version(arrived) => arrived.shift = shift,
            other => panic!("{other:?}"),
        }
        if whole {
            append.change = Change::Set { state: state.clone(), came: state.clone(), remember: vec![], shift };
        }
        self.overlay.insert(append.key.clone(), Some(state));
        self.commit(append);
    }

    fn forget(&mut self, name: &str) {
        if self.engine.admit().is_err() {
            return;
        }
        let shift = Shift::between(&key(name), self.newest(&key(name)).map(|set| &**set), None);
        let append = self.shard.append(name, Change::Drop { shift });
        self.overlay.insert(append.key.clone(), None);
        self.commit(append);
    }

    fn owe(&mut self, name: &str, target: NodeId, counted: Option<bool>) {
        if self.engine.admit().is_err() {
            return;
        }
        let change = match counted {
            Some(counted) => Change::Hint(Hint { target, counted }),
            None => Change::Delivered { target },
        };
        let append = self.shard.append(name, change);
        self.hints.insert(hint_key(&Place::of(ring(), &append.key), target), counted);
        self.commit(append);
    }

    fn commit(&mut self, append: Append) {
        write(&mut self.engine, append);
        if let Some(wish) = self.engine.next_segment(self.now) {
            self.segments += 1;
            self.engine.on_segment_ready(SpareSegment { id: SegmentId(self.segments), bytes: wish.bytes });
        }
    }

    fn newest(&self, key: &Key) -> Option<&Arc<Siblings>> {
        self.dirty(key).map_or_else(|| self.tree.get(key), Option::as_ref)
    }

    fn dirty(&self, key: &Key) -> Option<&Set> {
        self.overlay.get(key).or_else(|| self.frozen.as_ref()?.get(key))
    }

    fn read(&mut self, key: &Key) {
        let held = self.engine.held(key);
        let found = self.engine.lookup(key);
        match (&held, &found) {
            (Held::Known(Some(held)), Lookup::Found(found)) => assert_eq!(held, found),
            (Held::Known(None), Lookup::Absent) | (Held::Unknown, Lookup::Fetch | Lookup::Fetching) => {}
            _ => panic!("{key}: {held:?} is held, but looked up {found:?}"),
        }
        self.judge(key, found);
    }

    fn end_fetch(&mut self, key: Key) {
        if let Some(had) = self.fetches.remove(&key) {
            let found = self.engine.on_fetched(key.clone(), had);
            self.judge(&key, found);
        }
    }

    fn fail_fetch(&mut self, key: &Key) {
        if self.fetches.remove(key).is_some() {
            self.engine.on_fetch_failed(key);
        }
    }

    fn judge(&mut self, key: &Key, found: Lookup) {
        let newest = self.newest(key).cloned();
        match found {
            Lookup::Found(found) => assert_eq!(Some(found), newest, "{key}"),
            Lookup::Absent => assert_eq!(newest, None, "{key}"),
            Lookup::Fetching => assert!(self.dirty(key).is_none() && self.fetches.contains_key(key), "{key}"),
            Lookup::Fetch => {
                assert!(self.dirty(key).is_none(), "{key} is in no tree and was let go");
                let had = self.tree.get(key).cloned();
                assert!(self.fetches.insert(key.clone(), had).is_none(), "{key} is fetched twice");
            }
        }
    }

    fn turn(&mut self) {
        self.now = self.now + 2 * SECOND;
        if let Some(chunk) = self.engine.next_chunk(self.now) {
            assert!(self.under_way.is_none(), "one chunk at a time");
            if self.frozen.is_none() {
                self.frozen = Some(std::mem::take(&mut self.overlay));
                self.hints_frozen = std::mem::take(&mut self.hints);
            }
            self.under_way = Some(chunk);
        }
    }

    fn end_ingestion(&mut self) {
        let Some(chunk) = self.under_way.take() else {
            return;
        };
        let frozen = self.frozen.take().unwrap();
        let sets = (0..ring().partitions()).flat_map(|partition| chunk.sets_of(Partition(partition)));
        assert_eq!(sets.cloned().collect::<Sets>(), frozen, "what was written since is in the next chunk");
        let entries = entries(&chunk).into_iter().filter(|(key, _)| key.starts_with(b"h"));
        let hints: Hints = entries.map(|(key, value)| (key, value.map(|value| value == [1]))).collect();
        assert_eq!(hints, std::mem::take(&mut self.hints_frozen), "the newest of each");
        for (key, set) in frozen {
            match set {
                Some(set) => self.tree.insert(key, set),
                None => self.tree.remove(&key),
            };
        }
        for (key, value) in super::entries(&chunk).into_iter().filter(|(key, _)| key.starts_with(b"t")) {
            let partition = Partition(u16::from_be_bytes([key[1], key[2]]));
            let tree = value.map(|value| decode_tree(&key, &value).unwrap().1);
            self.trees.put(partition, tree.unwrap_or_default());
        }
        self.assert_grown(&self.trees, self.tree.iter());
        self.engine.on_ingested();
    }

    fn assert_listed(&self) {
        let partitions = (0..ring().partitions()).map(Partition);
        let listed: Vec<&KeySet> =
            partitions.flat_map(|partition| self.engine.newer_than_tree(partition, |_| true)).collect();
        let place = |key: &Key| (ring().partition(key), key.clone());
        assert!(listed.is_sorted_by(|one, other| place(&one.0) < place(&other.0)), "in order, and none twice");
        let mut expected = self.frozen.clone().unwrap_or_default();
        expected.extend(self.overlay.clone());
        assert_eq!(listed.into_iter().cloned().collect::<Sets>(), expected);
    }

    /// The trees are those of what is durable; those that went with the chunks are those of what they made.
    fn assert_grown<'a>(&self, trees: &Forest, sets: impl Iterator<Item = (&'a Key, &'a Arc<Siblings>)>) {
        let mut grown = Forest::default();
        for (key, set) in sets {
            let shift = Shift::between(key, None, Some(set));
            grown.grow(ring(), key, shift);
        }
        for partition in (0..ring().partitions()).map(Partition) {
            let tree = |forest: &Forest| forest.tree(partition).cloned().unwrap_or_default();
            assert_eq!(tree(trees), tree(&grown));
        }
    }

    fn assert_surveyed(&self) {
        let keys = (0..KEYS).map(|n| super::key(&name(n)));
        let sets: Vec<_> = keys.filter_map(|key| Some((key.clone(), self.newest(&key)?.clone()))).collect();
        self.assert_grown(&self.engine.forest, sets.iter().map(|(key, set)| (key, set)));
    }

    /// Whatever is dirty is held; beside it there is nothing beyond the bound once the hand has been round.
    fn assert_bounded(&mut self) {
        let resident = &mut self.engine.resident;
        (0..2 * KEYS).for_each(|_| resident.make_room(0));
        let (held, clean) = (resident.bytes(), resident.clean());
        assert!(held <= self.engine.config.cache_bytes || clean.keys == 0, "{held} bytes, {clean:?} could go");
        let keys: std::collections::BTreeSet<&Key> =
            self.overlay.keys().chain(self.frozen.iter().flat_map(|frozen| frozen.keys())).collect();
        assert_eq!(resident.keys() - clean.keys, keys.len());
        assert_eq!(self.engine.stats().overlay_keys, self.overlay.len() + self.hints.len());
        assert_eq!(self.engine.holds_data(), !keys.is_empty());
    }
}

fn name(key: u8) -> String {
    format!("key {key}")
}

proptest! {
    #[test]
    fn memory_never_differs_from_the_twin(
        steps in proptest::collection::vec(step(), 0..400),
        room in any::<u8>(),
    ) {
        let mut world = World::new(u64::from(room) * 64);
        for step in steps {
            world.take(step);
            world.assert_listed();
            world.assert_surveyed();
            world.assert_bounded();
        }
    }
}
