//! Sibling sets: what a write makes of a key's state, and what two copies make of each other.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use sloop::protocol::causality::Supersedes;
use sloop::wire::sets::{decode_set, encode_set};

use crate::samples::{dot, siblings, write};

/// An actor that has written none of the siblings.
const OTHER: usize = 1_000;

/// What does it cost to join two sets of so many siblings, half of them in both?
#[divan::bench(args = [1, 2, 8, 64])]
fn join(bencher: Bencher<'_, '_>, count: usize) {
    let (mine, other) = (siblings(0..count, 16), siblings(count / 2..count + count / 2, 16));
    bencher.bench_local(|| black_box(&mine).join(black_box(&other)));
}

/// What does it cost to mint a write that replaces so many siblings, with the next set and its context?
#[divan::bench(args = [0, 1, 8, 64])]
fn mint(bencher: Bencher<'_, '_>, count: usize) {
    let set = siblings(0..count, 16);
    let minting = bencher.with_inputs(|| write(16, Supersedes::Held));
    minting.bench_local_values(|write| black_box(&set).mint(dot(OTHER, 1), write).unwrap());
}

/// What does it cost a replica to take in that lone version?
#[divan::bench(args = [0, 1, 8, 64])]
fn update(bencher: Bencher<'_, '_>, count: usize) {
    let set = siblings(0..count, 16);
    let minted = set.mint(dot(OTHER, 1), write(16, Supersedes::Held)).unwrap();
    let update = minted.update().cloned();
    bencher.bench_local(|| black_box(&set).apply(black_box(&update)).unwrap());
}

/// What does it cost to spell a set of so many siblings of 256 bytes, as the tree and the log have it?
#[divan::bench(args = [1, 8, 64])]
fn encode(bencher: Bencher<'_, '_>, count: usize) {
    let set = siblings(0..count, 256);
    bencher.counter(BytesCount::new(encode_set(&set).len())).bench_local(|| encode_set(black_box(&set)));
}

/// And to read it back?
#[divan::bench(args = [1, 8, 64])]
fn decode(bencher: Bencher<'_, '_>, count: usize) {
    let spelt = encode_set(&siblings(0..count, 256));
    bencher.counter(BytesCount::new(spelt.len())).bench_local(|| decode_set(black_box(&spelt)).unwrap());
}
