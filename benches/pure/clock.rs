//! Version vectors: what each write and each read of a key compares.

use divan::{Bencher, black_box};

use crate::samples::vector;

/// What does it cost to join two vectors of so many actors, half of them in both?
#[divan::bench(args = [1, 3, 16, 128])]
fn join(bencher: Bencher<'_, '_>, actors: usize) {
    let other = vector(actors / 2..actors + actors / 2, 2);
    bencher.with_inputs(|| vector(0..actors, 1)).bench_local_values(|mut mine| {
        mine.join(&other);
        mine
    });
}

/// What does it cost to see that a vector of so many actors covers another one of them?
#[divan::bench(args = [1, 3, 16, 128])]
fn descends(bencher: Bencher<'_, '_>, actors: usize) {
    let (newer, older) = (vector(0..actors, 2), vector(0..actors, 1));
    bencher.bench_local(|| black_box(&newer).descends(black_box(&older)));
}
