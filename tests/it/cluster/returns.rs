//! Nodes that were away for long: through writes, deletions, and the time in which deletions would be forgotten. What
//! was deleted does not return, and all is forgotten in the end, without anybody's command.

use std::time::Duration;

use super::crowd::{delete_all, put_all, runtime};
use super::fleet::{Fleet, Kind, TOMBSTONES};
use super::{drain, now, pass};
use crate::dice::{seed, setting};
use crate::harness::{Node, eventually, within};

/// Deletions older than this may be forgotten.
const AGE: [&str; 2] = ["--tombstone-age", "1s"];
const COMPARE: [&str; 2] = ["--compare-period", "500ms"];

/// In which a cluster whose nodes are all up would have forgotten them.
const LONG: Duration = Duration::from_secs(4);

/// How long anything may take to be forgotten, for each thousand keys, and at least.
const FORGET_MAX: Duration = Duration::from_secs(60);

const KEYS: usize = 90;

/// What became of a key while a node was away, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Replaced,
    Deleted,
}

fn fate(number: usize) -> Fate {
    [Fate::Kept, Fate::Replaced, Fate::Deleted][number % 3]
}

fn key(number: usize) -> String {
    format!("key-{number}")
}

/// The values of which this node has a copy.
fn own(node: &Node, key: &str) -> Vec<String> {
    let copies = node.copies(key);
    let live = copies.iter().filter(|copy| copy["tombstone"] == false);
    live.map(|copy| crate::harness::unbase64(&copy["valueBase64"])).collect()
}

/// Every node holds for every key what became of it, on its own disk.
fn check(fleet: &Fleet, when: &str) {
    for (number, node) in (0..KEYS).flat_map(|number| fleet.nodes().into_iter().map(move |node| (number, node))) {
        let expected = match fate(number) {
            Fate::Kept => vec!["old"],
            Fate::Replaced => vec!["new"],
            Fate::Deleted => vec![],
        };
        assert_eq!(own(node, &key(number)), expected, "{when}, seed {}: {} on {}", seed(), key(number), node.binary);
    }
}

fn change_all(node: &Node) {
    for number in 0..KEYS {
        match fate(number) {
            Fate::Kept => {}
            Fate::Replaced => {
                node.put(&key(number), "new");
            }
            Fate::Deleted => {
                node.delete(&format!("/kv/{}", key(number))).ok();
            }
        }
    }
}

/// No node holds a tombstone any more.
fn is_forgotten(fleet: &Fleet) -> bool {
    fleet.sum(TOMBSTONES) == 0.0
}

fn sleep_through(more: &[&str]) -> Fleet {
    let mut fleet = Fleet::of_three(Kind::Plain, &[&AGE, &COMPARE, more].concat());
    (0..KEYS).for_each(|number| {
        fleet.node(number % 3).put(&key(number), "old");
    });
    fleet.converge(0);

    fleet.kill(2);
    fleet.see(2);
    change_all(fleet.node(0));
    pass(LONG);
    let held = fleet.sum(TOMBSTONES);
    assert_eq!(held, (2 * KEYS / 3) as f64, "seed {}: none is forgotten while a node is away", seed());

    let begun = now();
    fleet.start(2);
    fleet.see(3);
    fleet.converge(0);
    println!("converged {:.1?} after it was started", begun.elapsed());
    check(&fleet, "a node came back");
    within(FORGET_MAX, "all deletions are forgotten", || is_forgotten(&fleet));
    println!("deletions forgotten {:.1?} after it was started", begun.elapsed());
    fleet.converge(0);
    check(&fleet, "deletions are forgotten");
    fleet
}

#[test]
fn a_replica_that_slept_through_deletions_converges_and_none_of_them_returns() {
    sleep_through(&[]);
}

#[test]
fn trees_alone_bring_a_replica_up_that_slept_through_deletions() {
    let fleet = sleep_through(&["--no-hints"]);
    assert_eq!(fleet.sum("sloop_hints_stored_total"), 0.0, "no hint helped");
}

#[test]
fn a_fallback_that_slept_through_a_deletion_with_a_hint_does_not_bring_the_key_back() {
    let mut fleet = Fleet::of(4, Kind::Plain, &[AGE, COMPARE].concat());
    let owned = |number: &usize| {
        let ring = fleet.node(0).get(&format!("/admin/ring/{}", key(*number))).ok();
        let owners = ring["owners"].as_array().expect("owners").iter();
        owners.map(|owner| owner["name"].as_str().expect("a name")).all(|name| name != fleet.name(3))
    };
    let numbers: Vec<usize> = (0..4 * KEYS).filter(owned).collect();
    fleet.kill(1);
    fleet.kill(2);
    fleet.see(2);
    for &number in &numbers {
        fleet.node(0).put(&key(number), "taken by a fallback");
    }
    eventually("it keeps a hint of each", || numbers.len() as f64 <= fleet.node(3).metric("sloop_hints"));
    fleet.kill(3);
    fleet.start(1);
    fleet.start(2);
    fleet.see(3);
    for &number in &numbers {
        fleet.node(0).delete(&format!("/kv/{}", key(number))).ok();
    }
    drain(&fleet.nodes());
    pass(LONG);
    assert!(numbers.len() as f64 <= fleet.sum(TOMBSTONES), "seed {}: none is forgotten without the fallback", seed());

    fleet.start(3);
    fleet.see(4);
    drain(&fleet.nodes());
    let none_is_back = |when: &str| {
        for (number, node) in
            numbers.iter().flat_map(|number| fleet.nodes().into_iter().map(move |node| (number, node)))
        {
            let there = own(node, &key(*number));
            assert!(there.is_empty(), "{when}, seed {}: {} on {}: {there:?}", seed(), key(*number), node.binary);
        }
    };
    fleet.converge(0);
    none_is_back("the fallback came back");
    within(FORGET_MAX, "all deletions are forgotten", || is_forgotten(&fleet));
    fleet.converge(0);
    none_is_back("deletions are forgotten");
}

/// Bytes of the LSM trees of all nodes.
fn disk(fleet: &Fleet) -> f64 {
    let status = fleet.status(0);
    let nodes = status["nodes"].as_array().expect("nodes").iter();
    nodes.map(|node| node["bytes"].as_f64().expect("every node answers")).sum()
}

fn keys(fleet: &Fleet) -> f64 {
    let status = fleet.status(0);
    let nodes = status["nodes"].as_array().expect("nodes").iter();
    nodes.map(|node| node["keys"].as_f64().expect("every node answers")).sum()
}

#[test]
fn a_cluster_that_nobody_looks_after_forgets_what_was_deleted() {
    let count = setting("SLOOP_TEST_FORGET_KEYS", 3_000);
    let fleet = Fleet::of_three(Kind::Plain, &[AGE, COMPARE].concat());
    let addresses = [0, 1, 2].map(|at| fleet.address(at));
    let name = |number: u64| format!("key-{number}");
    runtime().block_on(put_all(&addresses, 0..count, name, 1_000));
    fleet.converge(0);
    let full = (keys(&fleet), disk(&fleet));
    assert_eq!(full.0, 3.0 * count as f64, "seed {}", seed());

    runtime().block_on(delete_all(&addresses, 0..count, name));
    let (begun, held) = (now(), fleet.sum(TOMBSTONES));
    let limit = FORGET_MAX * u32::try_from(1 + count / 10_000).unwrap();
    within(limit, "all deletions are forgotten", || is_forgotten(&fleet));
    let forgotten = begun.elapsed();
    within(limit, "no key is left", || keys(&fleet) == 0.0);
    println!("{count} keys: {held} tombstones forgotten after {forgotten:.1?}, at {} MiB", disk(&fleet) / 1_048_576.0);
    within(limit, "the disk is free again", || disk(&fleet) <= full.1 / 4.0);
    let mib = |bytes: f64| bytes / 1_048_576.0;
    println!("disk {:.2} MiB full, {:.2} MiB after {:.1?}", mib(full.1), mib(disk(&fleet)), begun.elapsed());
}
