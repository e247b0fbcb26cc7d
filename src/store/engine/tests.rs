use super::*;
use crate::protocol::antientropy::Shift;
use crate::protocol::antientropy::{PartitionLeaf, Sum, digest};
use crate::protocol::io::Hint;
use crate::protocol::types::NodeId;
use crate::store::samples::{Shard, entries, key, log_id, remembered, ring, state};
use crate::store::wal::SegmentId;

mod twin;

const NOW: Instant = Instant(0);
const SECOND: Duration = Duration::from_secs(1);

fn engine() -> Engine {
    engine_that_keeps(1024 * 1024)
}

fn engine_that_keeps(cache_bytes: u64) -> Engine {
    let log = LogConfig {
        id: log_id(1),
        write_bytes_max: 64 * 1024,
        segment_bytes_min: 16 * 1024,
        segment_bytes_max: 64 * 1024,
        retry: SECOND,
    };
    let config = EngineConfig {
        overlay_bytes_max: 8 * 1024,
        queue_bytes_max: 4 * 1024,
        cache_bytes,
        chunk_bytes: 2 * 1024,
        chunk_age: 10 * SECOND,
        log_bytes_max: 32 * 1024,
        retry: SECOND,
        ring: ring(),
        seed: 7,
        log,
        planted: Planted::NONE,
    };
    let spare = |id| SpareSegment { id: SegmentId(id), bytes: 64 * 1024 };
    Engine::new(config, vec![spare(0), spare(1)], Forest::default())
}

fn write(engine: &mut Engine, append: Append) {
    engine.append(append);
    let write = engine.next_write(|| Life(7)).unwrap();
    engine.on_written(write);
}

fn ingest(engine: &mut Engine) {
    engine.checkpoint();
    engine.next_chunk(NOW).unwrap();
    engine.on_ingested();
}

#[test]
fn a_state_is_read_once_it_is_durable_and_not_before() {
    let (mut engine, mut shard) = (engine(), Shard::new());
    let append = shard.put("a", b"1", &Siblings::default());
    engine.append(append.clone());
    assert_eq!(engine.lookup(&append.key), Lookup::Fetch);
    let write = engine.next_write(|| Life(7)).unwrap();
    assert_eq!(engine.lookup(&append.key), Lookup::Fetching);

    assert_eq!(engine.on_written(write), AppendId(1));
    assert_eq!(engine.lookup(&append.key), Lookup::Found(state(&append)));
}

#[test]
fn a_state_is_read_on_its_whole_way_into_the_tree() {
    let (mut engine, mut shard) = (engine(), Shard::new());
    let append = shard.put("a", b"1", &Siblings::default());
    let found = Lookup::Found(state(&append));
    write(&mut engine, append);
    engine.checkpoint();
    let chunk = engine.next_chunk(NOW).unwrap();
    assert_eq!(engine.lookup(&key("a")), found, "frozen");
    assert_eq!(chunk.position(), Some((log_id(1), AppendId(1))));
    drop(chunk);

    engine.on_ingested();
    assert_eq!(engine.lookup(&key("a")), found, "kept");
    assert_eq!(engine.stats().cache_keys, 1);
}

#[test]
fn a_fetch_that_a_write_overtook_neither_serves_nor_caches_the_old_state() {
    let (mut engine, mut shard) = (engine_that_keeps(0), Shard::new());
    let old = shard.put("a", b"1", &Siblings::default());
    write(&mut engine, old.clone());
    ingest(&mut engine);
    assert_eq!(engine.next_chunk(NOW), None);

    assert_eq!(engine.lookup(&key("a")), Lookup::Fetch);
    let new = shard.put("a", b"2", &state(&old));
    write(&mut engine, new.clone());
    let served = engine.on_fetched(key("a"), Some(state(&old)));
    assert_eq!(served, Lookup::Found(state(&new)), "the overlay wins");

    // The new state goes on into the tree, and out of memory, before the old fetch ends.
    ingest(&mut engine);
    assert_eq!(engine.next_chunk(NOW), None);
    assert_eq!(engine.lookup(&key("a")), Lookup::Fetch);
    let newest = shard.put("a", b"3", &state(&new));
    write(&mut engine, newest.clone());
    ingest(&mut engine);
    assert_eq!(engine.next_chunk(NOW), None);
    assert_eq!(engine.on_fetched(key("a"), Some(state(&new))), Lookup::Fetch, "to be fetched again");
    let served = engine.on_fetched(key("a"), Some(state(&newest)));
    assert_eq!(served, Lookup::Found(state(&newest)));
}

#[test]
fn that_a_key_was_never_written_is_remembered_until_it_is() {
    let (mut engine, mut shard) = (engine(), Shard::new());
    assert!(matches!(engine.held(&key("a")), Held::Unknown), "and no fetch is begun");
    assert_eq!(engine.lookup(&key("a")), Lookup::Fetch);
    assert_eq!(engine.on_fetched(key("a"), None), Lookup::Absent);
    assert_eq!(engine.lookup(&key("a")), Lookup::Absent);
    assert!(matches!(engine.held(&key("a")), Held::Known(None)));

    let append = shard.put("a", b"1", &Siblings::default());
    write(&mut engine, append.clone());
    ingest(&mut engine);
    assert_eq!(engine.lookup(&key("a")), Lookup::Found(state(&append)));
}

#[test]
fn a_fetch_that_failed_is_asked_for_again() {
    let mut engine = engine();
    assert_eq!(engine.lookup(&key("a")), Lookup::Fetch);
    engine.on_fetch_failed(&key("a"));
    assert_eq!(engine.lookup(&key("a")), Lookup::Fetch);
}

#[test]
fn the_overlay_is_frozen_by_size_by_age_by_log_and_by_wish() {
    let (mut engine, mut shard) = (engine(), Shard::new());
    assert_eq!(engine.next_chunk(NOW), None, "there is nothing to freeze");
    write(&mut engine, shard.put("a", b"1", &Siblings::default()));
    assert_eq!(engine.next_chunk(NOW), None);
    assert!(engine.next_chunk(NOW + 10 * SECOND).is_some(), "it is old");
    engine.on_ingested();

    write(&mut engine, shard.put("a", &[0; 3_000], &Siblings::default()));
    assert!(engine.next_chunk(NOW).is_some(), "it is large");
    assert_eq!(engine.next_chunk(NOW), None, "one at a time");
    engine.on_ingested();

    for _ in 0..8 {
        assert_eq!(engine.next_chunk(NOW), None);
        write(&mut engine, shard.put("a", b"1", &Siblings::default()));
    }
    assert!(engine.next_chunk(NOW).is_some(), "its log is long");
    engine.on_ingested();

    write(&mut engine, shard.put("a", b"1", &Siblings::default()));
    let wished = engine.checkpoint();
    assert!(engine.position() < wished && engine.next_chunk(NOW).is_some(), "it was wished");
    engine.on_ingested();
    assert_eq!((engine.position(), engine.stats().log_bytes), (wished, 0));
}

#[test]
fn a_chunk_that_was_refused_is_handed_out_again_and_a_full_disk_refuses_writes_meanwhile() {
    let (mut engine, mut shard) = (engine(), Shard::new());
    write(&mut engine, shard.put("a", b"1", &Siblings::default()));
    engine.checkpoint();
    let chunk = engine.next_chunk(NOW).unwrap();
    engine.on_ingest_failed(NOW, true);
    assert_eq!(engine.admit(), Err(Refusal::DiskFull));
    assert_eq!(engine.next_chunk(NOW), None);

    let again = engine.next_chunk(NOW + SECOND).unwrap();
    assert!(Arc::ptr_eq(&chunk, &again));
    engine.on_ingested();
    assert_eq!(engine.admit(), Ok(()));
}

#[test]
fn writes_are_refused_with_numbers_while_too_much_waits() {
    let (mut engine, mut shard) = (engine(), Shard::new());
    engine.append(shard.put("a", &[0; 5_000], &Siblings::default()));
    let Err(Refusal::Overloaded { held, max: 4_096 }) = engine.admit() else {
        panic!("{:?}", engine.admit());
    };
    assert!(held > 5_000);

    let write = engine.next_write(|| Life(7)).unwrap();
    engine.on_written(write);
    assert_eq!(engine.admit(), Ok(()));
    self::write(&mut engine, shard.put("b", &[0; 3_500], &Siblings::default()));
    assert!(matches!(engine.admit(), Err(Refusal::Overloaded { max: 8_192, .. })));
    ingest(&mut engine);
    assert_eq!(engine.admit(), Ok(()));
}

#[test]
fn a_tree_that_refuses_bounds_the_log_of_a_key_that_is_often_overwritten() {
    let (mut engine, mut shard) = (engine(), Shard::new());
    write(&mut engine, shard.put("a", b"1", &Siblings::default()));
    engine.checkpoint();
    engine.next_chunk(NOW).unwrap();
    engine.on_ingest_failed(NOW, false);

    let mut turns = 0;
    while engine.admit().is_ok() {
        write(&mut engine, shard.put("a", b"1", &Siblings::default()));
        if let Some(wish) = engine.next_segment(NOW) {
            turns += 1;
            engine.on_segment_ready(SpareSegment { id: SegmentId(10 + turns), bytes: wish.bytes });
        }
    }
    assert!(matches!(engine.admit(), Err(Refusal::Overloaded { held: 131_072.., max: 131_072 })));
    assert!(engine.next_chunk(NOW + SECOND).is_some());
    engine.on_ingested();
    assert_eq!(engine.next_chunk(NOW).map(|_| engine.on_ingested()), Some(()));
    assert_eq!(engine.admit(), Ok(()));
}

#[test]
fn after_a_failed_write_reads_go_on_and_writes_do_not() {
    let (mut engine, mut shard) = (engine(), Shard::new());
    let durable = shard.put("a", b"1", &Siblings::default());
    write(&mut engine, durable.clone());
    engine.append(shard.put("a", b"2", &state(&durable)));
    engine.next_write(|| Life(7)).unwrap();
    engine.on_write_failed();

    assert_eq!(engine.admit(), Err(Refusal::Stopped));
    assert_eq!(engine.lookup(&key("a")), Lookup::Found(state(&durable)));
    ingest(&mut engine);
    assert_eq!(engine.position(), AppendId(1));
}

#[test]
fn what_is_newer_than_the_tree_is_told_by_partition_and_key_and_in_its_newest_state() {
    let (mut engine, mut shard) = (engine(), Shard::new());
    for name in ["a", "b", "c", "d"] {
        write(&mut engine, shard.put(name, b"old", &Siblings::default()));
    }
    engine.checkpoint();
    engine.next_chunk(NOW).unwrap();
    let new = shard.put("b", b"new", &Siblings::default());
    write(&mut engine, new.clone());
    write(&mut engine, shard.put("e", b"new", &Siblings::default()));

    let newer = |wanted: fn(&Key) -> bool| -> Vec<KeySet> {
        let partitions = (0..ring().partitions()).map(Partition);
        partitions.flat_map(|partition| engine.newer_than_tree(partition, wanted)).cloned().collect()
    };
    let mut keys: Vec<(Partition, Key)> =
        ["a", "b", "c", "d", "e"].map(|name| (ring().partition(&key(name)), key(name))).into();
    keys.sort();
    let all = newer(|_| true);
    assert!(all.iter().map(|(key, _)| key).eq(keys.iter().map(|(_, key)| key)));
    assert_eq!(newer(|wanted| *wanted == key("b")), [(new.key.clone(), Some(state(&new)))]);
}

#[test]
fn an_operation_is_remembered_with_its_write_and_forgotten_with_a_later_chunk() {
    let (mut engine, mut shard) = (engine(), Shard::new());
    let append = shard.put_as("a", b"1", &Siblings::default(), "op");
    let operation = remembered(&append).operation.id;
    write(&mut engine, append);
    let values = |engine: &mut Engine| {
        let chunk = engine.next_chunk(NOW + 60 * SECOND).unwrap();
        let operations = entries(&chunk).into_iter().filter(|(key, _)| key.starts_with(b"o"));
        let values: Vec<bool> = operations.map(|(_, value)| value.is_some()).collect();
        engine.on_ingested();
        values
    };
    engine.checkpoint();
    assert_eq!(values(&mut engine), [true]);

    engine.forget(&key("a"), &operation);
    assert_eq!(engine.next_chunk(NOW), None, "nothing is in a hurry");
    assert_eq!(values(&mut engine), [false]);
}

/// What a chunk spells under this first byte: true where there is a value.
fn spelled(engine: &mut Engine, first: u8) -> Vec<bool> {
    engine.checkpoint();
    let chunk = engine.next_chunk(NOW).unwrap();
    engine.on_ingested();
    entries(&chunk).into_iter().filter(|(key, _)| key[0] == first).map(|(_, value)| value.is_some()).collect()
}

#[test]
fn a_whole_set_is_read_and_its_operations_are_remembered_once_it_is_durable() {
    let (mut engine, mut shard) = (engine(), Shard::new());
    let held = shard.put("a", b"1", &Siblings::default());
    write(&mut engine, held.clone());
    let mut elsewhere = Shard::new();
    let before = elsewhere.put("a", b"1", &Siblings::default());
    let came = elsewhere.put_as("a", b"2", &state(&before), "op");
    let (came, remember) = (state(&came), vec![remembered(&came)]);
    let joined = Arc::new(state(&held).join(&came));
    engine.append(shard.append("a", Change::Set { state: joined.clone(), came, remember, shift: Shift::default() }));
    assert_eq!(engine.lookup(&key("a")), Lookup::Found(state(&held)), "it is not durable");

    let write = engine.next_write(|| Life(7)).unwrap();
    engine.on_written(write);
    assert_eq!(engine.lookup(&key("a")), Lookup::Found(joined));
    assert_eq!(spelled(&mut engine, b'o'), [true]);
}

#[test]
fn a_fetch_that_a_whole_set_overtook_does_not_serve_the_old_state() {
    let (mut engine, mut shard) = (engine_that_keeps(0), Shard::new());
    assert_eq!(engine.lookup(&key("a")), Lookup::Fetch);
    let came = state(&Shard::new().put("a", b"1", &Siblings::default()));
    let shift = Shift::between(&key("a"), None, Some(&came));
    let change = Change::Set { state: came.clone(), came: came.clone(), remember: vec![], shift };
    write(&mut engine, shard.append("a", change));
    assert_eq!(engine.on_fetched(key("a"), None), Lookup::Found(came));
}

#[test]
fn hints_and_deliveries_go_into_the_tree_the_newest_in_the_place_of_the_one_before() {
    let (mut engine, mut shard) = (engine(), Shard::new());
    let [one, two] = [1, 2].map(NodeId);
    let hint = |target| Change::Hint(Hint { target, counted: true });
    let delivered = |target| Change::Delivered { target };
    for change in [hint(one), hint(two), delivered(one)] {
        write(&mut engine, shard.append("a", change));
    }
    assert_eq!(engine.lookup(&key("a")), Lookup::Fetch, "a hint is no set");
    assert_eq!((engine.stats().overlay_keys, engine.holds_data()), (2, false));
    assert_eq!(spelled(&mut engine, b'h'), [false, true]);

    for change in [delivered(two), hint(two)] {
        write(&mut engine, shard.append("a", change));
    }
    assert_eq!(spelled(&mut engine, b'h'), [true]);
}

#[test]
fn a_core_holds_data_from_the_append_until_all_of_it_is_in_the_tree() {
    let (mut engine, mut shard) = (engine(), Shard::new());
    assert!(!engine.holds_data());
    engine.append(shard.put("a", b"1", &Siblings::default()));
    assert!(engine.holds_data(), "it waits");
    let write = engine.next_write(|| Life(7)).unwrap();
    assert!(engine.holds_data(), "it is written");
    engine.on_written(write);
    engine.checkpoint();
    assert!(engine.holds_data(), "it is durable");
    engine.next_chunk(NOW).unwrap();
    assert!(engine.holds_data(), "it is frozen");
    engine.on_ingested();
    assert!(!engine.holds_data(), "only kept");

    engine.append(shard.put("a", b"2", &Siblings::default()));
    engine.next_write(|| Life(7)).unwrap();
    engine.on_write_failed();
    assert!(engine.holds_data(), "it may be on the disk");
}

#[test]
fn on_a_full_disk_a_small_segment_is_wished_for_and_the_overlay_goes_to_the_tree_for_the_room_behind_it() {
    let (mut engine, mut shard) = (engine(), Shard::new());
    // Both spares come into use: the first is full, the second is written.
    while engine.stats().segments_spare > 0 {
        write(&mut engine, shard.put("a", b"1", &Siblings::default()));
        if engine.next_chunk(NOW).is_some() {
            engine.on_ingested();
        }
    }
    write(&mut engine, shard.put("a", b"2", &Siblings::default()));
    assert!(engine.next_chunk(NOW).is_none(), "there is no hurry");

    let wish = engine.next_segment(NOW).unwrap();
    engine.on_segment_failed(NOW, true);
    assert_eq!(engine.admit(), Err(Refusal::DiskFull));
    assert!(engine.next_chunk(NOW).is_some());
    engine.on_ingested();
    assert_eq!(engine.admit(), Ok(()), "the segment behind is free again");

    let later = NOW + SECOND;
    while engine.stats().segments_spare > 0 {
        write(&mut engine, shard.put("a", b"1", &Siblings::default()));
    }
    assert!(engine.next_segment(later).unwrap().bytes < wish.bytes);
}

#[test]
fn writes_wait_longer_the_more_waits_for_the_disk_and_are_refused_last() {
    let (mut engine, mut shard) = (engine(), Shard::new());
    let mut waits = vec![engine.strain()];
    for n in 0.. {
        if engine.admit().is_err() {
            break;
        }
        waits.push(engine.strain());
        write(&mut engine, shard.put(&n.to_string(), &[0; 100], &Siblings::default()));
    }
    assert_eq!(waits[0], Duration::ZERO);
    assert!(waits.is_sorted() && waits[waits.len() / 2] < STRAIN_MAX / 50, "{waits:?}");
    assert!(waits.last().is_some_and(|wait| *wait > STRAIN_MAX / 2 && *wait <= STRAIN_MAX), "{waits:?}");

    ingest(&mut engine);
    assert_eq!((engine.strain(), engine.admit()), (Duration::ZERO, Ok(())));
}

#[test]
fn a_dropped_key_is_absent_on_its_whole_way_and_its_deletion_goes_with_the_chunk() {
    let (mut engine, mut shard) = (engine(), Shard::new());
    let held = shard.put("a", b"1", &Siblings::default());
    write(&mut engine, held.clone());
    ingest(&mut engine);
    let partition = ring().partition(&key("a"));
    let survey = |engine: &Engine| engine.survey(&Survey::Sums([partition].into()));
    let full = survey(&engine);

    let shift = Shift::between(&key("a"), Some(&state(&held)), None);
    engine.append(shard.append("a", Change::Drop { shift }));
    assert_eq!((engine.lookup(&key("a")), survey(&engine)), (Lookup::Found(state(&held)), full), "it is not durable");
    let write = engine.next_write(|| Life(7)).unwrap();
    engine.on_written(write);
    assert_eq!(survey(&engine), Surveyed::Sums(vec![Sum::default()]));
    assert_eq!(engine.lookup(&key("a")), Lookup::Absent);
    assert_eq!(engine.newer_than_tree(partition, |_| true), [&(key("a"), None)]);

    engine.checkpoint();
    let chunk = engine.next_chunk(NOW).unwrap();
    assert_eq!(engine.lookup(&key("a")), Lookup::Absent, "frozen");
    let gone: Vec<u8> =
        entries(&chunk).into_iter().filter(|(_, value)| value.is_none()).map(|(key, _)| key[0]).collect();
    assert_eq!(gone, *b"kt", "the set, and the tree of a partition that holds nothing");
    engine.on_ingested();
    assert_eq!(engine.lookup(&key("a")), Lookup::Absent, "kept");
}

#[test]
fn surveys_tell_branches_and_leaves_of_what_is_durable() {
    let (mut engine, mut shard) = (engine(), Shard::new());
    let append = shard.put("a", b"1", &Siblings::default());
    write(&mut engine, append.clone());
    let partition = ring().partition(&key("a"));
    let digests = |of: Survey| match engine.survey(&of) {
        Surveyed::Digests(digests) => digests,
        other => panic!("{other:?}"),
    };
    let leaf = PartitionLeaf::of(ring(), &key("a")).0;
    let (branch, digest) = (leaf / 8, digest(&key("a"), &state(&append)));
    let alone = |at: u8| (0..8).map(|n| if n == at { digest } else { 0 }).collect::<Vec<u64>>();
    assert_eq!(digests(Survey::Branches(partition)), alone(branch));
    assert_eq!(digests(Survey::Leaves(partition, branch)), alone(leaf % 8));
    assert_eq!(digests(Survey::Leaves(partition, (branch + 1) % 8)), [0; 8]);
    assert_eq!(digests(Survey::Branches(Partition((partition.0 + 1) % 8))), [0; 8]);
}
