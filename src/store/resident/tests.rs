use std::sync::Arc;

use super::*;
use crate::store::samples::{Shard, key, log_id, ring, state};

fn table(bytes_max: u64) -> Resident {
    Resident::new(ring(), bytes_max, 7)
}

fn name(n: usize) -> Key {
    key(&format!("key {n}"))
}

fn set(n: usize) -> Arc<Siblings> {
    state(&Shard::new().put("k", &n.to_le_bytes(), &Siblings::default()))
}

fn ingest(table: &mut Resident) -> Chunk {
    let chunk = table.freeze(log_id(1), AppendId(1));
    table.on_ingested();
    chunk
}

#[test]
fn all_that_fits_is_held_and_its_absence_too() {
    let mut table = table(64 * 1024 * 1024);
    (0..20_000).for_each(|n| table.put(name(n), Some(set(n))));
    (20_000..30_000).for_each(|n| table.keep(name(n), None));

    assert!((0..20_000).all(|n| table.get(&name(n)) == Some(&Some(set(n)))));
    assert!((20_000..30_000).all(|n| table.get(&name(n)) == Some(&None)));
    assert_eq!(table.get(&name(30_000)), None);
}

#[test]
fn clean_entries_go_where_the_bound_is_reached_and_dirty_ones_do_not() {
    let mut table = table(256 * 1024);
    // What comes in while the hand goes through the dirty entries.
    let slack = (500 / STEPS * 256) as u64;
    (0..500).for_each(|n| table.put(name(n), Some(set(n))));
    for n in 500..10_000 {
        table.keep(name(n), None);
        assert!(table.bytes() <= 256 * 1024 + slack, "{} bytes", table.bytes());
    }
    assert!((0..500).all(|n| table.get(&name(n)).is_some()));

    ingest(&mut table);
    (10_000..20_000).for_each(|n| table.keep(name(n), None));
    assert_eq!((0..500).filter(|&n| table.get(&name(n)).is_some()).count(), 0);
}

#[test]
fn a_large_set_makes_its_own_room() {
    let mut table = table(1024 * 1024);
    (0..10_000).for_each(|n| table.keep(name(n), None));
    let large = state(&Shard::new().put("k", &vec![0; 900 * 1024], &Siblings::default()));
    table.put(key("large"), Some(large));
    assert!(table.bytes() <= 1024 * 1024, "{} bytes", table.bytes());
}

#[test]
fn what_is_read_again_and_again_stays() {
    let mut table = table(64 * 1024);
    (0..20).for_each(|n| table.keep(name(n), Some(set(n))));
    for n in 20..10_000 {
        table.keep(name(n), None);
        assert!(table.get(&name(n % 20)).is_some(), "{} of {n}", n % 20);
    }
}

#[test]
fn an_entry_that_is_written_while_its_state_is_ingested_stays_dirty() {
    let mut table = table(0);
    table.put(name(1), Some(set(1)));
    let chunk = table.freeze(log_id(1), AppendId(1));
    table.put(name(1), Some(set(2)));
    table.on_ingested();
    table.make_room(0);

    assert_eq!(chunk.sets_of(ring().partition(&name(1))), [(name(1), Some(set(1)))]);
    assert_eq!(table.get(&name(1)), Some(&Some(set(2))));
    assert_eq!(table.clean(), Share::default());
    ingest(&mut table);
    table.make_room(0);
    table.make_room(0);
    assert_eq!(table.get(&name(1)), None);
    assert_eq!((table.bytes(), table.keys()), (0, 0));
}

#[test]
fn equal_inputs_and_seeds_give_equal_evictions() {
    let survivors = |seed| {
        let mut table = Resident::new(ring(), 16 * 1024, seed);
        for n in 0..1_000 {
            if table.get(&name(n * 7 % 500)).is_none() {
                table.keep(name(n * 7 % 500), None);
            }
        }
        (0..500).map(|n| table.get(&name(n)).is_some()).collect::<Vec<_>>()
    };
    assert_eq!(survivors(7), survivors(7));
}
