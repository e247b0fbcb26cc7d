use std::fs;

use super::*;
use crate::protocol::antientropy::{LeafSet, PartitionTree, digest, is_buried};
use crate::protocol::causality::{Supersedes, Write};
use crate::protocol::io::{Name, ScanWant};
use crate::protocol::types::{ActorId, AppendId, Dot, NodeId, WallTime};
use crate::store::samples::{Shard, key, log_id, ring, state};

const BLOCKS_BYTES: u64 = 1024 * 1024;

fn ingest(lsm: &Lsm, name: &str) {
    let mut chunk = Chunk::default();
    chunk.add_set(Place::of(ring(), &key(name)), Some(state(&Shard::new().put(name, b"x", &Siblings::default()))));
    lsm.ingest(&chunk, || {}).unwrap();
}

#[test]
fn a_compaction_that_has_ended_holds_neither_chunks_up_nor_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let lsm = Lsm::open(dir.path(), BLOCKS_BYTES).unwrap();
    // fjall's worker ends at its first failure, whatever it was at: here it finds no folder for a table.
    let tables = lsm.data.path().join("tables");
    fs::remove_dir_all(&tables).unwrap();
    lsm.data.insert("x", "x").unwrap();
    lsm.data.rotate_memtable().unwrap();
    while !lsm.compaction_has_ended() {
        std::thread::yield_now();
    }
    fs::create_dir(&tables).unwrap();

    for n in 0..=LEVEL_0_TABLES_MAX {
        ingest(&lsm, &n.to_string());
    }
    assert!(lsm.data.l0_table_count() > LEVEL_0_TABLES_MAX, "nobody compacts");
    assert!(!lsm.level_0_is_deep(), "nobody is waited for");
    let place = Place::of(ring(), &key("0"));
    assert!(lsm.get(&place).unwrap().is_some());
    lsm.close().unwrap();
}

#[test]
fn hints_are_listed_by_node_until_they_are_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let lsm = Lsm::open(dir.path(), BLOCKS_BYTES).unwrap();
    let owed = |name, target, counted| (Place::of(ring(), &key(name)), Hint { target: NodeId(target), counted });
    let mut chunk = Chunk::default();
    for (place, hint) in [owed("b", 2, true), owed("a", 1, true), owed("a", 0x1_0000, false), owed("b", 1, false)] {
        chunk.hint(&place, hint);
    }
    lsm.ingest(&chunk, || {}).unwrap();
    let all = [owed("a", 1, true), owed("b", 1, false), owed("b", 2, true), owed("a", 0x1_0000, false)];
    assert_eq!(lsm.hints().unwrap(), all);

    let mut chunk = Chunk::default();
    chunk.deliver(&all[0].0, NodeId(1));
    let again = owed("b", 2, false);
    chunk.hint(&again.0, again.1);
    lsm.ingest(&chunk, || {}).unwrap();
    lsm.close().unwrap();
    let lsm = Lsm::open(dir.path(), BLOCKS_BYTES).unwrap();
    assert_eq!(lsm.hints().unwrap(), [all[1].clone(), again, all[3].clone()]);
}

#[test]
fn only_a_set_is_data() {
    let dir = tempfile::tempdir().unwrap();
    let lsm = Lsm::open(dir.path(), BLOCKS_BYTES).unwrap();
    let empty = lsm.size();
    assert!(!lsm.holds_data().unwrap());
    let place = Place::of(ring(), &key("a"));
    let mut chunk = Chunk::default();
    chunk.close_below(2);
    chunk.deliver(&place, NodeId(1));
    lsm.ingest(&chunk, || {}).unwrap();
    assert!(!lsm.holds_data().unwrap());

    ingest(&lsm, "a");
    assert!(lsm.holds_data().unwrap());
    let size = lsm.size();
    assert!((1..=3).contains(&size.keys_approximately), "{size:?}");
    assert!(empty.bytes_on_disk < size.bytes_on_disk, "{empty:?} {size:?}");
}

#[test]
fn a_page_begins_behind_the_last_key_of_the_page_before() {
    let partition = Partition(0xffff);
    let place =
        |partition, name: &'static [u8]| Place { partition: Partition(partition), key: Key::new(name).unwrap() };
    let range = |prefix: &[u8], after: Option<Place>| page_range(partition, prefix, after.as_ref());
    let (all, some) = (Bound::Excluded(b"l".to_vec()), Bound::Excluded(b"k\xff\xffb".to_vec()));

    assert_eq!(range(b"", None), Some((Bound::Included(b"k\xff\xff".to_vec()), all.clone())));
    assert_eq!(range(b"a", None), Some((Bound::Included(b"k\xff\xffa".to_vec()), some.clone())));
    let behind = place(0xffff, b"a\xff");
    assert_eq!(range(b"a", Some(behind)), Some((Bound::Excluded(b"k\xff\xffa\xff".to_vec()), some.clone())));
    let before = place(0xfffe, b"b");
    assert_eq!(range(b"a", Some(before)), Some((Bound::Included(b"k\xff\xffa".to_vec()), some)));
    assert_eq!(range(b"a", Some(place(0xffff, b"b"))), None, "nothing is left of the prefix");
    assert_eq!(range(b"\xff", None), Some((Bound::Included(b"k\xff\xff\xff".to_vec()), all)));
}

#[test]
fn a_page_that_nobody_waits_for_is_not_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let lsm = Lsm::open(dir.path(), BLOCKS_BYTES).unwrap();
    ingest(&lsm, "a");
    let keys = Keys { prefix: Bytes::new(), after: None, limit: 10 };
    let list = |go_on: &dyn Fn() -> bool| lsm.list(ring(), |_| true, &keys, vec![], go_on).unwrap();

    assert_eq!(list(&|| true), Some(Page { keys: vec![key("a")], more: false }));
    assert_eq!(list(&|| false), None);
}

fn placed(n: usize) -> Place {
    Place::of(ring(), &key(&format!("key {n:05}")))
}

/// Bytes that no compression makes smaller.
fn noise(n: usize, bytes: usize) -> Vec<u8> {
    (0..bytes.div_ceil(8) as u64)
        .flat_map(|at| seahash::hash(&[n as u64, at].map(u64::to_le_bytes).concat()).to_le_bytes())
        .collect()
}

#[test]
fn the_room_of_deleted_keys_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let lsm = Lsm::open(dir.path(), BLOCKS_BYTES).unwrap();
    let set = |n: usize| {
        let bytes = if n.is_multiple_of(1_000) { 2 * SEPARATED_BYTES_MIN as usize } else { 100 };
        Siblings::clone(&state(&Shard::new().put("k", &noise(n, bytes), &Siblings::default())))
    };
    let mut places: Vec<(Place, usize)> = (0..50_000).map(|n| (placed(n), n)).collect();
    places.sort();
    let sets = places.iter().map(|(place, n)| Ok::<_, LsmError>((place.clone(), set(*n))));
    lsm.ingest_sets(ring(), sets).unwrap();
    let full = lsm.size();
    assert!(full.bytes_on_disk > 8_000_000 && !lsm.is_wasteful().unwrap(), "{full:?}");

    let mut chunk = Chunk::default();
    chunk.set_position(log_id(1), AppendId(1));
    for (place, _) in places {
        chunk.put_tree(place.partition, &PartitionTree::default());
        chunk.add_set(place, None);
    }
    lsm.ingest(&chunk, || {}).unwrap();
    assert!(!lsm.holds_data().unwrap() && lsm.is_wasteful().unwrap(), "{:?}", lsm.size());
    assert!(lsm.forest().unwrap().trees().next().is_none());

    lsm.reclaim().unwrap();
    let left = lsm.size();
    assert!(left.bytes_on_disk < 100_000 && left.keys_approximately < 100, "{full:?} became {left:?}");
    assert!(!lsm.is_wasteful().unwrap());
    let files = files_bytes(lsm.data.path());
    assert!(files < 200_000, "{files} bytes of files are left");
}

#[test]
fn who_reads_while_room_is_given_back_reads_on() {
    let dir = tempfile::tempdir().unwrap();
    let lsm = Lsm::open(dir.path(), BLOCKS_BYTES).unwrap();
    let mut chunk = Chunk::default();
    for n in 0..1_000 {
        chunk.add_set(placed(n), Some(state(&Shard::new().put("k", &noise(n, 1_000), &Siblings::default()))));
    }
    lsm.ingest(&chunk, || {}).unwrap();
    let mut reader = lsm.snapshot();
    assert!(reader.next().is_some());
    let mut chunk = Chunk::default();
    for n in 0..1_000 {
        chunk.add_set(placed(n), None);
    }
    lsm.ingest(&chunk, || {}).unwrap();
    lsm.reclaim().unwrap();
    assert_eq!(reader.map(Result::unwrap).count(), 999);

    lsm.reclaim().unwrap();
    let files = files_bytes(lsm.data.path());
    assert!(files < 100_000, "{files} bytes of files are left");
}

fn files_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let bytes = |entry: fs::DirEntry| match entry.metadata().unwrap() {
        metadata if metadata.is_dir() => files_bytes(&entry.path()),
        metadata => metadata.len(),
    };
    entries.map(bytes).sum()
}

#[test]
fn a_tree_is_wasteful_when_half_of_it_is_dead() {
    let (million, gib) = (1_000_000, 1024 * 1024 * 1024);
    assert!(!is_wasteful(0, million, gib, gib));
    assert!(!is_wasteful(million / 5, million, gib, gib) && is_wasteful(million / 4, million, gib, gib));
    assert!(!is_wasteful(9_999, 9_999, 0, 0), "it is not worth it");
    assert!(is_wasteful(0, million, gib, 3 * gib) && !is_wasteful(0, million, gib, 2 * gib));
}

fn scan(leaves: LeafSet, after: Option<Key>, want: ScanWant) -> Scan {
    Scan { partition: Partition(0), leaves, after, want }
}

/// The first of so many keys that are in partition 0, in order, with a set each.
fn scanned(keys: usize) -> Vec<(Key, Arc<Siblings>)> {
    let mut shard = Shard::new();
    let mut found: Vec<_> = (0..)
        .map(placed)
        .filter(|place| place.partition == Partition(0))
        .take(keys)
        .map(|place| (place.key, state(&shard.put("k", &[7; 100], &Siblings::default()))))
        .collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

#[test]
fn a_scan_reads_the_tree_through_what_is_newer() {
    let dir = tempfile::tempdir().unwrap();
    let lsm = Lsm::open(dir.path(), BLOCKS_BYTES).unwrap();
    let sets = scanned(60);
    let mut elsewhere = Shard::new();
    let newest = state(&elsewhere.put("k", &[8; 150], &Siblings::default()));
    let mut chunk = Chunk::default();
    for (key, set) in sets.iter().filter(|(key, _)| *key != sets[0].0 && *key != sets[59].0) {
        chunk.add_set(Place { partition: Partition(0), key: key.clone() }, Some(set.clone()));
    }
    lsm.ingest(&chunk, || {}).unwrap();
    // The first and the last are in memory only, one is newer there, and two are deleted.
    let newer: Vec<KeySet> = vec![
        (sets[0].0.clone(), Some(sets[0].1.clone())),
        (sets[3].0.clone(), Some(newest.clone())),
        (sets[4].0.clone(), None),
        (sets[58].0.clone(), None),
        (sets[59].0.clone(), Some(sets[59].1.clone())),
    ];
    let mut expected = sets.clone();
    expected[3].1 = newest;
    expected.remove(58);
    expected.remove(4);

    let known: Arc<[u64]> =
        [1, digest(&expected[7].0, &expected[7].1), digest(&expected[20].0, &expected[20].1)].into();
    let (mut told, mut met, mut after) = (vec![], vec![false; 3], None);
    loop {
        let want = ScanWant::Sets { known: known.clone(), bytes_max: 1_000 };
        let wanted = |key: &Key| after.as_ref().is_none_or(|after| after < key);
        let newer = newer.iter().filter(|(key, _)| wanted(key)).cloned().collect();
        let page = lsm.scan(ring(), scan(LeafSet::ALL, after.clone(), want), newer, || true).unwrap().unwrap();
        assert!(page.sets.len() < 10, "the page is bounded");
        met.iter_mut().zip(&page.met).for_each(|(met, now)| *met |= now);
        told.extend(page.sets);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(met, [false, true, true]);
    expected.remove(20);
    expected.remove(7);
    assert_eq!(told, expected);
}

#[test]
fn a_scan_names_only_keys_of_its_leaves_and_the_age_of_tombstones() {
    let dir = tempfile::tempdir().unwrap();
    let lsm = Lsm::open(dir.path(), BLOCKS_BYTES).unwrap();
    let mut sets = scanned(60);
    let write = Write { value: None, supersedes: Supersedes::Held, operation: None, written_at: WallTime(77) };
    sets[9].1 = Arc::new(sets[9].1.mint(Dot { actor: ActorId(9), counter: 9 }, write).unwrap().set);
    let mut chunk = Chunk::default();
    for (key, set) in &sets {
        chunk.add_set(Place { partition: Partition(0), key: key.clone() }, Some(set.clone()));
    }
    lsm.ingest(&chunk, || {}).unwrap();
    let names = |leaves, after, max| {
        lsm.scan(ring(), scan(leaves, after, ScanWant::Names { max }), vec![], || true).unwrap().unwrap()
    };
    let leaf = |key: &Key| PartitionLeaf::of(ring(), key);
    let leaves: LeafSet = [leaf(&sets[9].0), leaf(&sets[30].0)].into_iter().collect();
    let named = |(key, set): &(Key, Arc<Siblings>)| Name {
        key: key.clone(),
        digest: digest(key, set),
        buried_at: is_buried(set).then_some(WallTime(77)),
    };
    let expected: Vec<Name> = sets.iter().filter(|(key, _)| leaves.contains(leaf(key))).map(named).collect();
    let page = names(leaves, None, 100);
    assert!(page.names.iter().any(|name| name.buried_at.is_some()));
    assert_eq!((page.names, page.next), (expected, None));

    let page = names(LeafSet::ALL, None, 10);
    assert_eq!((page.names.len(), page.next.as_ref()), (10, Some(&sets[9].0)));
    let page = names(LeafSet::ALL, page.next, 50);
    assert_eq!((page.names.len(), page.next), (50, None));
}

#[test]
fn a_scan_that_nobody_waits_for_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let lsm = Lsm::open(dir.path(), BLOCKS_BYTES).unwrap();
    let mut chunk = Chunk::default();
    for (key, set) in scanned(SLICE) {
        chunk.add_set(Place { partition: Partition(0), key }, Some(set));
    }
    lsm.ingest(&chunk, || {}).unwrap();
    let all = || scan(LeafSet::ALL, None, ScanWant::Names { max: usize::MAX });
    assert_eq!(lsm.scan(ring(), all(), vec![], || false).unwrap(), None);
    assert_eq!(lsm.scan(ring(), all(), vec![], || true).unwrap().unwrap().names.len(), SLICE);
}

/// Each turned bit of a manifest, or of what names it, is found; fjall would open some of them as another state.
#[test]
fn a_manifest_that_is_not_as_it_was_written_is_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let lsm = Lsm::open(dir.path(), BLOCKS_BYTES).unwrap();
    let folder = lsm.data.path().to_owned();
    ingest(&lsm, "a");
    ingest(&lsm, "b");
    lsm.close().unwrap();

    let current = fs::read(folder.join("current")).unwrap();
    let id = u64::from_le_bytes(*current.first_chunk().unwrap());
    let manifest = folder.join(format!("v{id}"));
    // What is checked is what fjall writes: after an upgrade that writes something else, this fails first.
    let sums = current.len() - 1;
    for (path, bytes) in [(&manifest, fs::metadata(&manifest).unwrap().len() as usize), (&folder.join("current"), sums)]
    {
        let written = fs::read(path).unwrap();
        for at in 0..bytes {
            let mut turned = written.clone();
            turned[at] ^= 1 << (at % 8);
            fs::write(path, turned).unwrap();
            let refused = Lsm::open(dir.path(), BLOCKS_BYTES).err().expect("it is not opened").to_string();
            assert!(refused.contains(&*folder.to_string_lossy()) && refused.contains("restore"), "{at}: {refused}");
        }
        fs::write(path, written).unwrap();
    }
    let lsm = Lsm::open(dir.path(), BLOCKS_BYTES).unwrap();
    assert!(lsm.get(&Place::of(ring(), &key("a"))).unwrap().is_some());
}
