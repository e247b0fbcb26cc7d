//! Where a key belongs, who owns it next, and the tree that compares copies.

use divan::{Bencher, black_box};
use sloop::protocol::antientropy::{Range, Tree};
use sloop::protocol::config::PARTITIONS;
use sloop::protocol::ring::{Cores, Layout, LayoutRow, Ring, Wanted};
use sloop::protocol::types::{CoreId, NodeId};

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

/// The rows of a cluster in so many zones.
fn rows(nodes: u64, zones: u64) -> Vec<LayoutRow> {
    let row = |n: u64| LayoutRow {
        node: NodeId::of(&format!("node-{n}")),
        incarnation: n.into(),
        zone: format!("zone-{}", n % zones).into(),
        weight: 1,
    };
    (0..nodes).map(row).collect()
}

const WANTED: Wanted = Wanted { n: 3, r: 2, w: 2 };

fn cluster(nodes: u64, zones: u64) -> Layout {
    let first = rows(1, zones).remove(0);
    Layout::founding(PARTITIONS, WANTED, first).next(rows(nodes, zones), WANTED)
}

/// What does it cost to compute the layout with one node more, at N 3, with all in one zone, in 5, each in its own?
#[divan::bench(args = [(3, 1), (10, 1), (100, 1), (500, 1), (500, 5), (500, 500)])]
fn next_with_one_more(bencher: Bencher<'_, '_>, (nodes, zones): (u64, u64)) {
    let (layout, grown) = (cluster(nodes - 1, zones), rows(nodes, zones));
    bencher.with_inputs(|| grown.clone()).bench_local_values(|rows| layout.next(rows, WANTED));
}

/// And the layout of a founded cluster that so many join at once?
#[divan::bench(args = [(3, 1), (10, 1), (100, 1), (500, 1), (500, 5), (500, 500)])]
fn next_with_all(bencher: Bencher<'_, '_>, (nodes, zones): (u64, u64)) {
    let (layout, grown) = (cluster(1, zones), rows(nodes, zones));
    bencher.with_inputs(|| grown.clone()).bench_local_values(|rows| layout.next(rows, WANTED));
}

/// And the layout of a cluster that half of its nodes leave?
#[divan::bench(args = [(500, 1), (500, 5), (500, 500)])]
fn next_with_half(bencher: Bencher<'_, '_>, (nodes, zones): (u64, u64)) {
    let (layout, shrunk) = (cluster(nodes, zones), rows(nodes / 2, zones));
    bencher.with_inputs(|| shrunk.clone()).bench_local_values(|rows| layout.next(rows, WANTED));
}

/// What does it cost a member to check a layout?
#[divan::bench(args = [(3, 1), (500, 5)])]
fn check(bencher: Bencher<'_, '_>, (nodes, zones): (u64, u64)) {
    let layout = cluster(nodes, zones);
    bencher.bench_local(|| black_box(&layout).check(None));
}
