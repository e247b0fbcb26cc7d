//! Disks that are lost, copies of disks, and transfers whose ends are killed half way.

use std::net::SocketAddr;

use rustix::process::Signal;

use super::crowd::{Record, runtime, still_key};
use super::fleet::{Fleet, Kind, Meter};
use super::join::copy;
use super::now;
use crate::dice::{Dice, seed, setting};
use crate::harness::{Home, eventually};

/// Bytes of a value, and what a key takes beside it when it travels.
const VALUE: u64 = 1_000;
const BESIDE: u64 = 80;

/// What is fetched, as a part of what was missing, where nothing is fetched twice.
const RATIO_MAX: f64 = 1.2;

/// Three nodes with this many keys, as which all that is transferred to one of them takes some seconds.
fn three_full(record: &mut Record) -> (Fleet, u64) {
    let keys = setting("SLOOP_TEST_CHANGE_KEYS", 1_500);
    let fleet = Fleet::of_three(Kind::Plain, &["--transfer-rate", &(keys * VALUE / 4).to_string()]);
    record.fill(&addresses(&fleet, &[0, 1, 2]), keys, VALUE);
    (fleet, keys)
}

fn addresses(fleet: &Fleet, nodes: &[usize]) -> Vec<SocketAddr> {
    nodes.iter().map(|at| fleet.address(*at)).collect()
}

/// Every still key has a copy on this node's own disk.
fn holds_all(fleet: &Fleet, at: usize, keys: u64) {
    let runtime = runtime();
    let client = runtime.block_on(sloop::client::Client::connect(fleet.address(at).to_string())).unwrap();
    for number in 0..keys {
        let key = still_key(number);
        let copies = runtime.block_on(client.siblings(key.as_bytes())).unwrap().copies;
        assert_eq!(copies.len(), 1, "seed {}: {key} on {}", seed(), fleet.name(at));
    }
}

#[test]
fn a_node_that_lost_its_disk_is_refilled_under_its_name() {
    let mut record = Record::default();
    let (mut fleet, keys) = three_full(&mut record);
    let victim = 1 + Dice(seed()).index(2);
    fleet.kill(victim);
    fleet.wipe(victim);
    fleet.see(2);
    let crowd = record.crowd(&addresses(&fleet, &[0, 1, 2]));

    fleet.order(0, &["replace", fleet.name(victim), "--yes"]);
    let mut meter = Meter::of_transfers(&fleet);
    let begun = now();
    fleet.start(victim);
    println!("{}", fleet.order(0, &["plan"]));
    fleet.order(0, &["commit", "--yes"]);
    fleet.settle(&[0, 1, 2], &mut meter);
    let filled = begun.elapsed();
    record.add(crowd);
    fleet.converge(victim);
    let converged = begun.elapsed();

    let due = (keys * (VALUE + BESIDE)) as f64;
    println!("{keys} keys: refilled after {filled:.1?}, converged after {converged:.1?}, {:.0} bytes", meter.sum());
    assert!(meter.sum() < due * RATIO_MAX, "seed {}: {:.0} bytes to refill {due:.0}", seed(), meter.sum());
    holds_all(&fleet, victim, keys);
    record.check("a lost disk", &addresses(&fleet, &[0, 1, 2]));
}

#[test]
fn a_lost_node_gets_its_name_back_from_a_member_that_stood_still_meanwhile() {
    let mut fleet = Fleet::of_three(Kind::Plain, &[]);
    fleet.signal(0, Signal::STOP);
    fleet.kill(2);
    fleet.wipe(2);
    // The one that stands still is the first that the new one asks.
    fleet.order(1, &["replace", fleet.name(2), "--yes"]);
    fleet.signal(0, Signal::CONT);
    fleet.start(2);

    fleet.order(1, &["commit", "--yes"]);
    fleet.settle(&[0, 1, 2], &mut Meter::of_transfers(&fleet));
}

#[test]
fn a_dead_node_is_replaced_by_one_of_another_name() {
    let mut record = Record::default();
    let (mut fleet, keys) = three_full(&mut record);
    fleet.kill(2);
    fleet.see(2);
    let new = fleet.add();

    fleet.order(0, &["replace", fleet.name(2), "--by", fleet.name(new), "--yes"]);
    fleet.order(0, &["commit", "--yes"]);
    let members = [0, 1, new];
    fleet.settle(&members, &mut Meter::of_transfers(&fleet));
    fleet.converge(0);

    holds_all(&fleet, new, keys);
    let home = fleet.take_home(2);
    let said = fleet.refused(2, &home);
    assert!(said.contains("was removed"), "{said}");
    record.check("another name", &addresses(&fleet, &members));
}

/// Bytes of transfers that a node has had, or nothing.
fn fetched(fleet: &Fleet, at: usize) -> f64 {
    fleet.node(at).metric(super::fleet::TRANSFER_BYTES)
}

#[test]
fn a_transfer_goes_on_where_it_was_when_its_target_and_a_source_are_killed() {
    let mut record = Record::default();
    let (mut fleet, keys) = three_full(&mut record);
    let target = fleet.add();
    let mut meter = Meter::of_transfers(&fleet);
    let due = (keys * (VALUE + BESIDE)) as f64 * 3.0 / 4.0;
    fleet.order(0, &["commit", "--yes"]);

    eventually("a third is there", || due / 3.0 < fetched(&fleet, target));
    meter.look(&fleet);
    fleet.kill(target);
    fleet.start(target);
    eventually("two thirds are there", || {
        meter.look(&fleet);
        due * 2.0 / 3.0 < meter.sum()
    });
    assert!(fleet.is_changing(0), "seed {}: it is half way", seed());
    let source = Dice(seed()).index(3);
    fleet.kill(source);
    fleet.start(source);
    fleet.settle(&[0, 1, 2, target], &mut meter);

    let ratio = meter.sum() / due;
    println!("{:.0} bytes fetched of {due:.0}, ratio {ratio:.3}", meter.sum());
    assert!(ratio < RATIO_MAX, "seed {}: {ratio:.2} times what it gained", seed());
    fleet.converge(0);
    record.check("a transfer that was broken off twice", &addresses(&fleet, &[0, 1, 2, target]));
}

#[test]
fn an_old_image_and_a_clone_of_a_node_with_data_are_refused_after_a_change() {
    let mut record = Record::default();
    let (mut fleet, _) = three_full(&mut record);
    let (image, clone) = (Home::new(), Home::new());
    fleet.stop(2);
    copy(&fleet.data_dir(2), &image.data_dir());
    fleet.start(2);
    fleet.add();
    fleet.order(0, &["commit", "--yes"]);
    let members = [0, 1, 2, 3];
    fleet.settle(&members, &mut Meter::of_transfers(&fleet));
    fleet.stop(2);
    copy(&fleet.data_dir(2), &clone.data_dir());
    fleet.see(3);

    let said = fleet.refused(2, &image);
    assert!(said.contains("an old image"), "{said}");
    // As many starts as the clone will have.
    fleet.start(2);
    fleet.see(4);
    fleet.kill(2);
    fleet.see(3);
    let said = fleet.refused(2, &clone);
    assert!(said.contains("is a copy") || said.contains("an old image"), "{said}");

    fleet.start(2);
    fleet.see(4);
    fleet.converge(0);
    record.check("images", &addresses(&fleet, &members));
}
