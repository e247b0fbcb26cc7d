use std::fs;

use super::*;
use crate::protocol::types::NodeId;
use crate::store::samples::{Shard, key, ring, state};

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
