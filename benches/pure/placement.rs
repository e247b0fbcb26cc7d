//! Where a key belongs, and the tree that compares copies.

use divan::{Bencher, black_box};
use sloop::protocol::antientropy::{Range, Tree};
use sloop::protocol::config::PARTITIONS;
use sloop::protocol::ring::{Cores, Ring};
use sloop::protocol::types::CoreId;

use crate::samples::{key, siblings};

/// What does it cost to find the partition and the core of a key?
#[divan::bench]
fn core_of_key(bencher: Bencher<'_, '_>) {
    let (ring, cores, key) = (Ring::new(PARTITIONS), Cores { count: 7, salt: 42 }, key(17));
    bencher.bench_local(|| -> CoreId { black_box(cores).of(ring.partition(black_box(&key))) });
}

/// What does it cost to take a key with so many siblings into its leaf, or out of it?
#[divan::bench(args = [1, 8])]
fn toggle(bencher: Bencher<'_, '_>, count: usize) {
    let (key, set) = (key(17), siblings(0..count, 256));
    let mut tree = Tree::new(Range::new(i64::MIN, i64::MAX, 1_024).unwrap());
    bencher.bench_local(|| tree.toggle(black_box(&key), black_box(&set)));
}

/// What does the root of so many leaves cost?
#[divan::bench(args = [1_024, 32_768])]
fn root(bencher: Bencher<'_, '_>, leaves: usize) {
    let tree = Tree::new(Range::new(i64::MIN, i64::MAX, leaves).unwrap());
    bencher.bench_local(|| black_box(&tree).root());
}
