//! The log's records and the engine around it, with a disk that takes no time.

use std::sync::Arc;
use std::time::Duration;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use sloop::protocol::antientropy::{Forest, Shift};
use sloop::protocol::causality::{Siblings, Supersedes};
use sloop::protocol::config::PARTITIONS;
use sloop::protocol::io::{Append, Arrived, Change};
use sloop::protocol::planted::Planted;
use sloop::protocol::ring::Ring;
use sloop::protocol::types::{AppendId, CoreId, LogId};
use sloop::store::wal::log::LogConfig;
use sloop::store::wal::record::put_append;
use sloop::store::wal::{Life, SegmentId, SpareSegment};
use sloop::store::{Engine, EngineConfig, Lookup};

use crate::samples::{VALUE_BYTES, dot, key, siblings, write};

const MIB: u64 = 1_024 * 1_024;
const LIFE: Life = Life(7);

/// Writes of one group commit.
const BATCH: usize = 256;

/// A blind write of a key that was never written.
fn append(n: usize, bytes: usize) -> Append {
    let id = n as u64 + 1;
    let minted = Siblings::default().mint(dot(0, id), write(bytes, Supersedes::Held)).unwrap();
    let shift = Shift::between(&key(n), None, Some(&minted.set));
    let arrived = Arrived {
        state: Arc::new(minted.set),
        dot: minted.dot,
        upon: minted.upon,
        supersedes: minted.supersedes,
        remember: None,
        shift,
    };
    Append { id: AppendId(id), key: key(n), change: Change::Version(arrived) }
}

fn engine() -> Engine {
    let log = LogConfig {
        id: LogId { start: 1, core: CoreId(0) },
        write_bytes_max: 4 * 1_024 * 1_024,
        segment_bytes_min: 64 * MIB,
        segment_bytes_max: 64 * MIB,
        retry: Duration::from_secs(1),
    };
    let config = EngineConfig {
        overlay_bytes_max: 64 * MIB,
        queue_bytes_max: 16 * MIB,
        cache_bytes: 16 * MIB,
        chunk_bytes: 16 * MIB,
        chunk_age: Duration::from_secs(300),
        log_bytes_max: 64 * MIB,
        retry: Duration::from_secs(1),
        ring: Ring::new(PARTITIONS),
        seed: 7,
        log,
        planted: Planted::NONE,
    };
    Engine::new(config, vec![SpareSegment { id: SegmentId(1), bytes: 64 * MIB }], Forest::default())
}

/// A batch of appends, through the log into the overlay.
fn commit(engine: &mut Engine, batch: Vec<Append>) {
    batch.into_iter().for_each(|append| engine.append(append));
    while let Some(write) = engine.next_write(|| LIFE) {
        engine.on_written(write);
    }
}

fn batch() -> Vec<Append> {
    (0..BATCH).map(|n| append(n, 256)).collect()
}

/// What does it cost to spell a write of so many bytes as a record, with its sum?
#[divan::bench(args = VALUE_BYTES)]
fn record(bencher: Bencher<'_, '_>, bytes: usize) {
    let append = append(0, bytes);
    let mut out = Vec::with_capacity(2 * bytes + 1_024);
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        out.clear();
        put_append(&mut out, LIFE, black_box(&append));
        black_box(out.len())
    });
}

/// What of that is the sum?
#[divan::bench(args = VALUE_BYTES)]
fn sum(bencher: Bencher<'_, '_>, bytes: usize) {
    let record = vec![b'v'; bytes];
    bencher.counter(BytesCount::new(bytes)).bench_local(|| crc32c::crc32c(black_box(&record)));
}

/// What does a group commit of 256 writes of 256 bytes cost, from the queue into the overlay?
#[divan::bench]
fn group_commit(bencher: Bencher<'_, '_>) {
    let fresh = bencher.counter(ItemsCount::new(BATCH)).with_inputs(|| (engine(), batch()));
    fresh.bench_local_values(|(mut engine, batch)| {
        commit(&mut engine, batch);
        engine
    });
}

/// What does a look-up cost that the overlay answers?
#[divan::bench]
fn lookup_in_overlay(bencher: Bencher<'_, '_>) {
    let (mut engine, key) = (engine(), key(17));
    commit(&mut engine, batch());
    assert!(matches!(engine.lookup(&key), Lookup::Found(_)));
    bencher.bench_local(|| engine.lookup(black_box(&key)));
}

/// And one that the cache answers?
#[divan::bench]
fn lookup_in_cache(bencher: Bencher<'_, '_>) {
    let (mut engine, key) = (engine(), key(17));
    assert_eq!(engine.lookup(&key), Lookup::Fetch);
    engine.on_fetched(key.clone(), Some(Arc::new(siblings(0..1, 256))));
    assert!(matches!(engine.lookup(&key), Lookup::Found(_)));
    bencher.bench_local(|| engine.lookup(black_box(&key)));
}

/// What does a write over a set of so many siblings cost the tree of its partition: the shift, and its place there?
#[divan::bench(args = [0, 1, 8])]
fn shift_and_apply(bencher: Bencher<'_, '_>, count: usize) {
    let (ring, key, before) = (Ring::new(PARTITIONS), key(17), siblings(0..count, 256));
    let after = before.mint(dot(1_000, 1), write(256, Supersedes::Held)).unwrap().set;
    let held = (count > 0).then_some(&before);
    let mut forest = Forest::default();
    bencher.bench_local(|| {
        let shift = Shift::between(black_box(&key), black_box(held), Some(black_box(&after)));
        forest.grow(ring, &key, shift);
    });
}
