//! Choosers against theory, sources against their promises.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const DRAWS: u64 = 200_000;

fn counts(distribution: Distribution, keys: u64) -> BTreeMap<u64, u64> {
    let (mut chooser, mut random) = (Chooser::new(distribution, keys), Random::new(1));
    let mut counts = BTreeMap::new();
    for _ in 0..DRAWS {
        *counts.entry(chooser.choose(keys, &mut random)).or_default() += 1;
    }
    counts
}

/// Shares of all draws, the greatest first.
fn shares(counts: &BTreeMap<u64, u64>) -> Vec<f64> {
    let mut shares: Vec<f64> = counts.values().map(|&count| count as f64 / DRAWS as f64).collect();
    shares.sort_by(|one, other| other.total_cmp(one));
    shares
}

/// The weights of a zipfian over so many items, summed the slow way.
fn zeta(items: u64) -> f64 {
    (1..=items).map(|rank| (rank as f64).powf(-0.99)).sum()
}

fn workload(name: &str, keys: u64) -> Workload {
    Workload::named(name, keys, 100).unwrap()
}

fn operations(source: &mut Source, count: usize) -> Vec<Operation> {
    let mut next = || {
        let operation = source.next_operation().expect("a mix does not end");
        source.settle(operation, End::Done);
        operation
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn every_choice_is_a_key() {
    for (_, distribution) in Distribution::NAMES {
        for keys in [1, 2, 3, 1_000] {
            assert!(counts(distribution, keys).keys().all(|&key| key < keys), "{distribution:?} of {keys}");
        }
    }
}

#[test]
fn uniform_chooses_all_alike() {
    let counts = counts(Distribution::Uniform, 100);
    let expected = DRAWS / 100;
    assert!(counts.len() == 100 && counts.values().all(|count| count.abs_diff(expected) < expected / 5), "{counts:?}");
}

#[test]
fn the_head_of_a_zipfian_has_its_share() {
    let (zipfian, mut random) = (Zipfian::new(1_000), Random::new(1));
    let mut counts = BTreeMap::new();
    for _ in 0..DRAWS {
        *counts.entry(zipfian.rank(&mut random)).or_default() += 1;
    }
    for rank in 0..2 {
        let share = counts[&rank] as f64 / DRAWS as f64;
        let theory = 1.0 / ((rank + 1) as f64).powf(0.99) / zeta(1_000);
        assert!((share / theory - 1.0).abs() < 0.03, "rank {rank}: {share}, by theory {theory}");
    }
    let head: u64 = (0..100).map(|rank| counts.get(&rank).unwrap_or(&0)).sum();
    let (share, theory) = (head as f64 / DRAWS as f64, zeta(100) / zeta(1_000));
    assert!((share / theory - 1.0).abs() < 0.03, "the first tenth: {share}, by theory {theory}");
}

#[test]
fn scrambled_choices_have_the_head_of_ycsb_and_strew_it() {
    let counts = counts(Distribution::Zipfian, 1_000_000);
    let shares = shares(&counts);
    // Ten thousand million items, with the zeta that YCSB states.
    let theory = |rank: usize| 1.0 / ((rank + 1) as f64).powf(0.99) / 26.469_028;
    for rank in [0, 1, 9] {
        assert!((shares[rank] / theory(rank) - 1.0).abs() < 0.15, "{rank}: {} {}", shares[rank], theory(rank));
    }
    let mut hot: Vec<(u64, u64)> = counts.into_iter().collect();
    hot.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let thirds: BTreeSet<u64> = hot[..20].iter().map(|(key, _)| key / 333_334).collect();
    assert_eq!(thirds.len(), 3, "the hottest keys stand everywhere: {:?}", &hot[..20]);
}

#[test]
fn latest_chooses_the_newest_most_and_follows_new_ones() {
    let (mut chooser, mut random) = (Chooser::new(Distribution::Latest, 1_000), Random::new(1));
    let mut newest = |keys: u64| (0..10_000).filter(|_| chooser.choose(keys, &mut random) == keys - 1).count() as f64;
    let (before, after) = (newest(1_000) / 10_000.0, newest(5_000) / 10_000.0);
    assert!((before * zeta(1_000) - 1.0).abs() < 0.15 && (after * zeta(5_000) - 1.0).abs() < 0.15, "{before} {after}");

    let grown = Zipfian::new(1_000);
    let (mut grown, whole) = (grown.clone(), Zipfian::new(5_000));
    grown.grow(5_000);
    let ranks = |zipfian: &Zipfian| {
        let mut random = Random::new(3);
        (0..1_000).map(|_| zipfian.rank(&mut random)).collect::<Vec<_>>()
    };
    assert_eq!(ranks(&grown), ranks(&whole), "growing comes to the same as beginning large");
}

#[test]
fn a_seed_repeats_and_threads_differ() {
    let workload = workload("d", 1_000);
    let all = |seed| -> Vec<_> {
        let mut sources = workload.sources(seed, 2);
        sources.iter_mut().map(|source| (operations(source, 1_000), source.value().to_vec())).collect()
    };
    let (one, same, other) = (all(7), all(7), all(8));
    assert_eq!(one, same);
    assert_ne!(one, other);
    assert_ne!(one[0], one[1]);
}

#[test]
fn a_mix_has_the_shares_that_it_says() {
    for (name, ..) in NAMED {
        let workload = workload(name, 1_000);
        let operations = operations(&mut workload.sources(1, 1)[0], 100_000);
        for (kind, share) in &workload.mix.shares {
            let found = operations.iter().filter(|operation| operation.kind == *kind).count() as f64 / 100_000.0;
            assert!((found - share).abs() < 0.01, "{name}: {found} of {kind:?}");
        }
    }
}

#[test]
fn inserts_are_new_keys_and_reads_know_only_those_that_have_ended() {
    let mut sources = workload("d", 100).sources(1, 3);
    let mut inserted = BTreeSet::new();
    for (thread, source) in sources.iter_mut().enumerate() {
        let mut under_way = vec![];
        let mut ended = BTreeSet::new();
        for turn in 0..20_000 {
            let operation = source.next_operation().unwrap();
            if operation.kind == Kind::Insert {
                assert!(operation.key >= 100 && inserted.insert(operation.key), "thread {thread}: {operation:?}");
                under_way.push(operation);
            } else {
                assert!(operation.key < 100 || ended.contains(&operation.key), "thread {thread}: {operation:?}");
            }
            // They end in any order.
            if turn % 50 == 0 && !under_way.is_empty() {
                let operation = under_way.swap_remove(turn / 50 % under_way.len());
                source.settle(operation, End::Done);
                ended.insert(operation.key);
            }
        }
        assert!(ended.len() > 100, "thread {thread}: {}", ended.len());
    }
}

#[test]
fn a_load_writes_every_key_and_again_what_was_not_done() {
    let mut written = BTreeSet::new();
    for (thread, mut source) in workload("put", 1_000).load(1, 3).into_iter().enumerate() {
        let mut failed = false;
        while let Some(operation) = source.next_operation() {
            assert_eq!(operation.kind, Kind::Put);
            let fails = operation.key % 100 == 0 && !failed;
            failed = fails;
            source.settle(operation, if fails { End::Undone } else { End::Done });
            assert!(fails || written.insert(operation.key), "thread {thread} writes {} twice", operation.key);
        }
        assert!(source.is_done());
    }
    assert_eq!(written, (0..1_000).collect());
}

#[test]
fn keys_have_sixteen_bytes_and_values_their_size() {
    assert_eq!(&key_bytes(0), b"user000000000000");
    assert_eq!(&key_bytes(123_456_789_012), b"user123456789012");
    let mut source = workload("put", 10).sources(1, 1).remove(0);
    let values: BTreeSet<Vec<u8>> = (0..1_000).map(|_| source.value().to_vec()).collect();
    assert!(values.len() > 990 && values.iter().all(|value| value.len() == 100));
}
