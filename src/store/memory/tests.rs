//! Thousands of seeded crash schedules: a node of one to three cores over the model disk and the model tree, against a
//! naive twin that remembers everything that was ever appended.
//!
//! What must hold after every crash, and after a crash in the middle of recovery:
//! - every append that was reported durable is there, and of each log exactly a prefix of what was appended: one that
//!   explains the sets and the hints together;
//! - nothing is there that was never appended;
//! - the hash trees are those of the sets that are there, in the store and, again and again, in every core;
//! - damage is never reported when nothing was flipped;
//! - after a bit has turned, what was stated as durable is there, or damage is reported.

mod twin;
mod world;

use std::sync::Arc;

use self::twin::There;
use self::world::World;
use crate::protocol::ring::Ring;
use crate::protocol::types::Key;

/// Few keys meet often, and so do few absent nodes.
const KEYS: usize = 24;
const NODES: usize = 3;

fn ring() -> Ring {
    Ring::new(8)
}

fn key(n: usize) -> Key {
    Key::new(format!("key {n}")).unwrap()
}

/// What the schedules came upon: a test that meets nothing shows nothing.
#[derive(Debug, Default)]
struct Tally {
    crashes: usize,
    crashes_in_recovery: usize,
    tails: usize,
    replayed: usize,
    sets_replayed: usize,
    hints_replayed: usize,
    drops_replayed: usize,
    ingested: usize,
    segments_reused: usize,
    fetches_overtaken: usize,
    failed: usize,
    rotten: usize,
    damaged: usize,
}

/// Runs a schedule for each seed and says what they came upon together.
fn tally(seeds: std::ops::Range<u64>, run: fn(u64) -> Tally) -> Tally {
    seeds.map(run).fold(Tally::default(), |sum, one| Tally {
        crashes: sum.crashes + one.crashes,
        crashes_in_recovery: sum.crashes_in_recovery + one.crashes_in_recovery,
        tails: sum.tails + one.tails,
        replayed: sum.replayed + one.replayed,
        sets_replayed: sum.sets_replayed + one.sets_replayed,
        hints_replayed: sum.hints_replayed + one.hints_replayed,
        drops_replayed: sum.drops_replayed + one.drops_replayed,
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
    assert!(tally.sets_replayed > 5_000 && tally.hints_replayed > 5_000, "{tally:?}");
    assert!(tally.drops_replayed > 3_000, "{tally:?}");
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
                (0..20).for_each(|_| world.append());
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

        let there = There::read(&world.tree);
        world.crash();
        world.recover().unwrap();
        assert_eq!(world.twin.base, there, "a restart changes nothing");
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
