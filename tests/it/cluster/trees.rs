//! What it costs two replicas to find out that they are equal, and to find and mend what differs.

use std::ops::RangeInclusive;
use std::time::Duration;

use sloop::client::{Causality, Client, Key, Put, Request, Terms, Value};

use sloop::lab::torture::proxy::Carried;

use super::crowd::{put_all, runtime};
use super::fleet::{Fleet, Kind};
use super::{now, pass};
use crate::dice::{Dice, seed, setting};
use crate::harness::within;

/// Kinds of frames between nodes (docs/PROTOCOL.md): comparisons, all asks, and all that is told.
const COMPARISONS: RangeInclusive<u8> = 0x25..=0x25;
const ASKS: RangeInclusive<u8> = 0x20..=0x28;
const TELLS: RangeInclusive<u8> = 0xa0..=0xff;

const VALUE: usize = 100;
const DIFFERENT: usize = 100;

/// Of one comparison of all that two nodes share; and of finding and mending what is different.
const COMPARISON_BYTES_MAX: u64 = 1_024;
const REPAIR_BYTES_MAX: u64 = 200 * 1_024;

const LIMIT: Duration = Duration::from_secs(120);

fn name(number: u64) -> String {
    format!("key-{number:07}")
}

/// Two nodes that keep the same keys, and no hints.
fn two_equal() -> (Fleet, u64) {
    let keys = setting("SLOOP_TEST_TREE_KEYS", 20_000);
    let fleet = Fleet::of(2, Kind::Counted, &["--no-hints", "--compare-period", "1s"]);
    let addresses = [0, 1].map(|at| fleet.address(at));
    let begun = now();
    runtime().block_on(put_all(&addresses, 0..keys, name, VALUE));
    fleet.converge(0);
    fleet.converge(1);
    println!("{keys} keys of {VALUE} bytes written and equal after {:.1?}", begun.elapsed());
    (fleet, keys)
}

fn all(fleet: &Fleet) -> Carried {
    fleet.carried(&[ASKS, TELLS])
}

#[test]
fn replicas_of_equal_keys_find_out_so_in_less_than_a_kibibyte() {
    let (fleet, keys) = two_equal();
    let (before, comparisons) = (all(&fleet), fleet.carried(&[COMPARISONS]).frames);
    let count = || fleet.carried(&[COMPARISONS]).frames - comparisons;
    within(LIMIT, "they compare themselves", || 6 <= count());
    // The answer to the last one.
    pass(Duration::from_millis(100));

    let (carried, count) = (all(&fleet).minus(before), count());
    let each = carried.bytes / count;
    println!(
        "{keys} equal keys: {count} comparisons, {} bytes in {} frames, {each} each",
        carried.bytes, carried.frames
    );
    assert!(each < COMPARISON_BYTES_MAX, "seed {}: {each} bytes for one comparison", seed());
}

#[test]
fn a_hundred_different_keys_among_many_are_found_and_mended_cheaply() {
    let (mut fleet, keys) = two_equal();
    let mut dice = Dice(seed());
    let different: Vec<String> = (0..DIFFERENT).map(|_| name(dice.below(keys))).collect();
    fleet.kill(1);
    fleet.see(1);
    runtime().block_on(async {
        let client = Client::connect(fleet.address(0).to_string()).await.unwrap();
        for key in &different {
            let (key, value) = (Key::new(key).unwrap(), Value::new("x".repeat(VALUE)).unwrap());
            let terms = Terms { quorum: 1, ..Terms::default() };
            let put = Put { key, value, causality: Causality::Blind, operation: None, terms };
            client.ask(Request::Put(put)).await.unwrap();
        }
    });
    assert_eq!(fleet.sum("sloop_hints"), 0.0, "seed {}: nothing but trees can tell", seed());

    let before = all(&fleet);
    let begun = now();
    fleet.start(1);
    let ready = begun.elapsed();
    let dots =
        |at: usize, key: &str| fleet.node(at).copies(key).iter().map(|copy| copy["dot"].clone()).collect::<Vec<_>>();
    within(LIMIT, "the keys are equal again", || different.iter().all(|key| dots(0, key) == dots(1, key)));
    let mended = begun.elapsed();
    fleet.converge(1);

    let carried = all(&fleet).minus(before);
    println!("{DIFFERENT} of {keys} keys different: ready after {ready:.1?}, mended after {mended:.1?}");
    println!("  {} bytes in {} frames", carried.bytes, carried.frames);
    assert!(carried.bytes < REPAIR_BYTES_MAX, "seed {}: {} bytes", seed(), carried.bytes);
}
