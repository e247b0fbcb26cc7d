//! Copies come to hold the same by what their trees say, in few bytes; owners fetch what they gain; what others own is
//! dropped.

use std::sync::Arc;
use std::time::Duration;

use super::shards::{Shards, id, key, layout, set};
use crate::protocol::config::{PULL_BYTES, SYNCS_MAX};
use crate::protocol::ring::{Change, Layout, Step};

const PERIOD: Duration = Duration::from_secs(5);

fn pair(partitions: u16) -> (Shards, Arc<Layout>) {
    let layout = layout(None, partitions, &[0, 1], 2);
    (Shards::new(2, &layout), layout)
}

fn fill(shards: &mut Shards, nodes: &[usize], keys: usize) {
    for n in 0..keys {
        let set = set(1, n as u64 + 1, Some("one hundred bytes, or as good as that"));
        nodes.iter().for_each(|node| shards.plant(*node, &key(n), Some(&set)));
    }
}

fn equal(shards: &Shards, one: usize, other: usize, keys: usize) -> bool {
    (0..keys).all(|n| shards.held(one, &key(n)) == shards.held(other, &key(n)))
}

#[test]
fn equal_copies_cost_one_short_question_each_way() {
    let (mut shards, _) = pair(1_024);
    fill(&mut shards, &[0, 1], 10_000);
    shards.run(PERIOD);
    println!("two comparisons of 1,024 equal partitions: {} bytes, {} messages", shards.bytes, shards.messages);
    assert!(shards.bytes < 2 * 512 && shards.messages == 4);
    let [one, other] = [0, 1].map(|node| shards.stats(node));
    assert_eq!((one.comparisons, one.comparisons_equal, other.comparisons_equal), (1, 1, 1));
    assert!(one.agreed_at.is_some() && one.partitions_differing == 0);
}

#[test]
fn a_hundred_keys_of_a_hundred_thousand_are_found_and_mended_in_few_bytes() {
    let (mut shards, _) = pair(1_024);
    let keys = 100_000;
    fill(&mut shards, &[0, 1], keys);
    for n in 0..100 {
        match n % 4 {
            0 => shards.plant(0, &key(n * 991), None),
            1 => shards.plant(1, &key(n * 991), None),
            2 => shards.plant(1, &key(n * 991), Some(&set(2, n as u64 + 1, Some("beside it")))),
            _ => shards.plant(0, &key(n * 991), Some(&set(2, n as u64 + 1, None))),
        }
    }
    shards.run(3 * PERIOD);
    println!("100 of {keys} keys that differ: {} bytes, {} messages", shards.bytes, shards.messages);
    assert!(shards.bytes < 200 * 1024, "{} bytes", shards.bytes);
    assert!(equal(&shards, 0, 1, keys));
    shards.check_trees();
    assert!((100..=150).contains(&shards.sets_sent), "{} sets for 100 keys", shards.sets_sent);

    shards.run(2 * PERIOD);
    for stats in [0, 1].map(|node| shards.stats(node)) {
        assert_eq!((stats.partitions_differing, stats.differing_since), (0, None));
        assert!(0 < stats.comparisons_equal && stats.agreed_at.is_some());
    }
}

#[test]
fn looks_that_come_more_often_than_a_second_one_do_not_put_it_off() {
    let (mut shards, _) = pair(16);
    shards.compare_each(Duration::from_millis(300));
    shards.run(PERIOD);
    fill(&mut shards, &[0, 1], 100);
    fill(&mut shards, &[0], 110);
    shards.run(Duration::from_secs(3));
    assert!(equal(&shards, 0, 1, 110));
    assert_eq!([0, 1].map(|node| shards.stats(node).partitions_differing), [0, 0]);
}

#[test]
fn a_partition_that_lost_a_hint_is_synced_at_once_and_until_all_owners_have_it() {
    let layout = layout(None, 16, &[0, 1, 2], 3);
    let mut shards = Shards::new(3, &layout);
    fill(&mut shards, &[0], 100);
    let lost = shards.ring.partition(&key(7));
    shards.crash(2);
    shards.mark(0, lost);
    shards.run(Duration::from_millis(30));
    assert_eq!(shards.held(1, &key(7)), shards.held(0, &key(7)));
    assert_eq!((shards.stats(0).partitions_marked, shards.stats(0).partitions_differing), (1, 0));
    let others = (0..100).filter(|n| shards.ring.partition(&key(*n)) != lost);
    others.for_each(|n| assert_eq!(shards.held(1, &key(n)), None, "key {n} waits for a comparison"));

    shards.start(2);
    shards.run(Duration::from_secs(2));
    assert_eq!(shards.held(2, &key(7)), shards.held(0, &key(7)));
    assert_eq!(shards.stats(0).partitions_marked, 0);
}

#[test]
fn a_transfer_keeps_to_its_pace() {
    let keys = 60_000;
    let (mut shards, change) = growing(keys);
    let bytes_per_second = 256 * 1024;
    shards.fetch_at(bytes_per_second);
    shards.show_change(&change);
    for second in 1..4 {
        shards.run(Duration::from_secs(1));
        // A page may come before it is paid for, for each partition under way.
        let most = bytes_per_second * second + bytes_per_second / 8 + SYNCS_MAX as u64 * PULL_BYTES as u64;
        let came = shards.stats(2).transfers_bytes;
        assert!(bytes_per_second * second / 2 <= came && came <= most, "{came} bytes in {second} s");
    }
}

#[test]
fn a_partition_of_many_keys_is_synced_window_by_window() {
    let (mut shards, _) = pair(1);
    let keys = 20_000;
    fill(&mut shards, &[0, 1], keys);
    for n in 0..keys {
        // Either lacks a third of them, and the last third is held by both.
        if n % 3 < 2 {
            shards.plant(n % 3, &key(n), None);
        }
    }
    shards.run(3 * PERIOD);
    assert!(equal(&shards, 0, 1, keys) && shards.keys(0) == keys);
    let lacked = keys - keys / 3;
    assert!((lacked..lacked + lacked / 10).contains(&shards.sets_sent), "{} sets for {lacked}", shards.sets_sent);
    shards.check_trees();
}

#[test]
fn a_wiped_copy_is_filled_and_a_silent_peer_costs_nothing_but_time() {
    let (mut shards, _) = pair(16);
    let keys = 2_000;
    fill(&mut shards, &[0], keys);
    shards.crash(1);
    shards.run(3 * PERIOD);
    let stats = shards.stats(0);
    assert_eq!((stats.comparisons, stats.agreed_at, shards.keys(1)), (0, None, 0));

    shards.start(1);
    shards.run(3 * PERIOD);
    assert!(equal(&shards, 0, 1, keys));
}

/// A third node gains its share of what two hold.
fn growing(keys: usize) -> (Shards, Change) {
    let stored = layout(None, 16, &[0, 1], 2);
    let pending = layout(Some(&stored), 16, &[0, 1, 2], 2);
    let mut shards = Shards::new(3, &stored);
    fill(&mut shards, &[0, 1], keys);
    (shards, Change { stored, pending, step: Step::Hold })
}

fn gained(shards: &Shards, change: &Change, keys: usize) -> usize {
    (0..keys).filter(|n| change.pending.is_owner(id(2), shards.ring.partition(&key(*n)))).count()
}

#[test]
fn a_new_owner_fetches_all_that_it_gains_from_every_old_owner() {
    let keys = 3_000;
    let (mut shards, mut change) = growing(keys);
    // What only one of the two holds comes too.
    (0..30).for_each(|n| shards.plant(n % 2, &key(n), None));
    change.step = Step::Write;
    shards.show_change(&change);
    shards.run(PERIOD / 10);
    assert_eq!((shards.stats(2).transfers, shards.keys(2)), (0, 0), "nothing is fetched before all write it");

    change.step = Step::Hold;
    shards.show_change(&change);
    shards.run(PERIOD);
    let stats = shards.stats(2);
    let expected = gained(&shards, &change, keys);
    assert_eq!((stats.transfers_left, shards.keys(2)), (0, expected));
    assert!(0 < stats.transfers && stats.transfers % 2 == 0, "{} pairs, two sources each", stats.transfers);
    assert_eq!(stats.transfers_sets, expected as u64);
    assert!(0 < stats.transfers_bytes);
    shards.check_trees();
}

#[test]
fn a_transfer_that_breaks_off_goes_on_where_it_was() {
    let keys = 20_000;
    for dies in [0, 2] {
        let (mut shards, change) = growing(keys);
        shards.fetch_at(512 * 1024);
        shards.show_change(&change);
        shards.run(Duration::from_millis(600));
        let (came, expected) = (shards.keys(2), gained(&shards, &change, keys));
        assert!(0 < came && came < expected, "it is in the middle: {came} of {expected}");
        assert!(0 < shards.stats(2).transfers_left);

        shards.crash(dies);
        shards.run(Duration::from_secs(3));
        assert!(dies == 2 || 0 < shards.stats(2).transfers_left, "a source is missing");
        shards.start(dies);
        shards.run(Duration::from_secs(20));
        assert_eq!((shards.stats(2).transfers_left, shards.keys(2)), (0, expected));
        let sent = shards.sets_sent;
        println!("{expected} sets, broken off at {came}: {sent} were sent");
        // Sent twice is at most the pages that were on their way.
        assert!(sent * 10 <= expected * 11, "{sent} of {expected} were sent");
    }
}

#[test]
fn a_removed_source_is_not_waited_for_and_a_hollow_owner_fetches_all_it_owns() {
    let keys = 1_000;
    let stored = layout(None, 16, &[0, 1], 2);
    let pending = layout(Some(&stored), 16, &[0, 1], 2);
    let mut shards = Shards::new(2, &stored);
    fill(&mut shards, &[0], keys);
    // Node 1 came back empty, and the stored layout names the directory that it lost.
    shards.show(|view| view.members[1].incarnation = 2);
    shards.run(2 * PERIOD);
    assert_eq!((shards.keys(1), shards.stats(0).comparisons), (0, 0), "nothing is compared with who lost all");

    let change = Change { stored, pending, step: Step::Hold };
    shards.show_change(&change);
    shards.run(PERIOD);
    assert_eq!((shards.stats(1).transfers, shards.stats(1).transfers_left, shards.keys(1)), (16, 0, keys));
    assert_eq!(shards.stats(0).transfers, 0);

    let (mut shards, change) = growing(keys);
    shards.crash(1);
    shards.show_change(&change);
    shards.run(PERIOD);
    assert!(0 < shards.stats(2).transfers_left);
    shards.show(|view| view.members[1].is_removed = true);
    shards.run(PERIOD);
    assert_eq!(shards.stats(2).transfers_left, 0);
}

/// Three nodes of which each owns two thirds, and every one holds all.
fn left_over(keys: usize) -> (Shards, Arc<Layout>) {
    let layout = layout(None, 16, &[0, 1, 2], 2);
    let mut shards = Shards::new(3, &layout);
    fill(&mut shards, &[0, 1, 2], keys);
    (shards, layout)
}

fn owned(shards: &Shards, layout: &Layout, node: usize, keys: usize) -> usize {
    (0..keys).filter(|n| layout.is_owner(id(node), shards.ring.partition(&key(*n)))).count()
}

#[test]
fn what_others_own_is_given_to_all_of_them_and_then_dropped() {
    let keys = 12_000;
    let (mut shards, layout) = left_over(keys);
    // What one owner lacks, and what is known here only.
    let lacking: Vec<usize> = (0..60).map(|n| n * 97).collect();
    for n in &lacking {
        let spare = (0..3).find(|node| !layout.is_owner(id(*node), shards.ring.partition(&key(*n)))).unwrap();
        shards.plant(spare, &key(*n), Some(&set(9, *n as u64 + 1, Some("here only"))));
    }
    shards.run(4 * PERIOD);
    for node in 0..3 {
        assert_eq!(shards.keys(node), owned(&shards, &layout, node, keys), "node {node}");
        assert_eq!(shards.stats(node).leftover_partitions, 0);
    }
    for n in lacking {
        let owners = (0..3).filter(|node| layout.is_owner(id(*node), shards.ring.partition(&key(n))));
        owners.for_each(|node| assert_eq!(shards.held(node, &key(n)).unwrap().versions().len(), 2));
    }
    assert!(0 < shards.stats(0).leftovers_dropped);
    shards.check_trees();
    assert!(shards.sets_sent <= 3 * 60, "{} sets were sent", shards.sets_sent);
}

#[test]
fn nothing_is_dropped_while_an_owner_is_down_or_a_change_is_under_way() {
    let keys = 300;
    let (mut shards, layout) = left_over(keys);
    shards.crash(1);
    shards.run(4 * PERIOD);
    let shared_with_1 = |shards: &Shards, node: usize| {
        let is_shared = |n: &usize| layout.is_owner(id(1), shards.ring.partition(&key(*n)));
        (0..keys).filter(is_shared).filter(|n| shards.held(node, &key(*n)).is_some()).count()
    };
    let all = owned(&shards, &layout, 1, keys);
    assert_eq!([0, 2].map(|node| shared_with_1(&shards, node)), [all, all]);

    shards.start(1);
    let pending = self::layout(Some(&layout), 16, &[0, 1, 2], 2);
    shards.show_change(&Change { stored: Arc::clone(&layout), pending, step: Step::Write });
    shards.run(4 * PERIOD);
    assert_eq!([0, 2].map(|node| shared_with_1(&shards, node)), [all, all]);

    shards.show(|view| view.change = None);
    shards.run(4 * PERIOD);
    for node in 0..3 {
        assert_eq!(shards.keys(node), owned(&shards, &layout, node, keys), "node {node}");
    }
}
