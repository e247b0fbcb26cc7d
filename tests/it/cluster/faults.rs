//! One of three nodes is killed, or stands still, under load: clients of the others do not notice, and what it missed
//! is brought to it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::load::{Load, Record};
use super::{agree, drain, fault_time, now, pass, seen, start, three};
use crate::harness::{Home, Node, eventually};

/// 99 of 100 calls beside a fault must be faster, on however busy a machine.
const P99_MAX: Duration = Duration::from_secs(2);

/// The node that it happens to.
const VICTIM: usize = 1;

/// When a fault began and ended.
pub(super) struct Fault {
    pub(super) begun: Instant,
    pub(super) over: Instant,
    pub(super) drained: Duration,
}

/// Prints what the clients of other nodes noticed, and checks it.
pub(super) fn judge(what: &str, record: &Record, fault: &Fault, victim: Option<usize>) {
    let time = fault_time();
    let before = record.times(fault.begun - time, fault.begun, victim);
    let during = record.times(fault.begun, fault.begun + time, victim);
    let after = record.times(fault.over, fault.over + time, victim);
    let (own, others) = record.failures(victim);
    println!("{what}, {} clients, {time:?}:", record.clients());
    for (when, times) in [("before", &before), ("during", &during), ("after", &after)] {
        println!("  {when}: {times}");
    }
    let ratio = during.p99.as_secs_f64() / before.p99.as_secs_f64();
    println!("  p99 during / before {ratio:.2}; hints delivered {:.1?} after its end", fault.drained);
    println!("  failed on the victim's own connections: {own:?}");
    assert!(others.is_empty(), "{what}: {others:?}");
    assert!(own.len() <= record.clients(), "{what}: more than were in flight: {own:?}");
    assert!(during.p99 < P99_MAX, "{what}: {during}");
}

pub(super) fn addresses(nodes: &[Node; 3]) -> [SocketAddr; 3] {
    nodes.each_ref().map(|node| node.binary)
}

#[test]
fn a_killed_node_goes_unnoticed_and_is_brought_what_it_missed() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let [first, victim, third] = three(&homes);
    let addresses = [first.binary, victim.binary, third.binary];
    let load = Load::begin(&addresses);
    pass(fault_time() + Duration::from_secs(1));

    let begun = now();
    victim.kill();
    pass(fault_time());
    let stored = first.metric("sloop_hints_stored_total") + third.metric("sloop_hints_stored_total");
    let over = now();
    let nodes = [first, start(&homes[VICTIM], "n1", &addresses[VICTIM].to_string(), ""), third];
    let ready = over.elapsed();
    eventually("all agree again", || agree(&nodes.each_ref(), 3.0));
    drain(&nodes.each_ref());
    let drained = over.elapsed();
    pass(fault_time().saturating_sub(drained));
    let record = load.end();

    println!("{stored} hints; ready after {ready:.1?}");
    judge("kill -9", &record, &Fault { begun, over, drained }, Some(VICTIM));
    assert!(0.0 < stored, "it missed something");
    drain(&nodes.each_ref());
    record.check(&addresses);
}

#[test]
fn a_node_that_stands_still_goes_unnoticed_and_is_brought_what_it_missed() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let nodes = three(&homes);
    let load = Load::begin(&addresses(&nodes));
    pass(fault_time() + Duration::from_secs(1));

    let begun = now();
    nodes[VICTIM].signal(Signal::STOP);
    pass(fault_time());
    let stored: f64 = [0, 2].iter().map(|&node: &usize| nodes[node].metric("sloop_hints_stored_total")).sum();
    assert!([0, 2].iter().all(|&node: &usize| seen(&nodes[node]).up <= 2.0), "its silence is known");
    let over = now();
    nodes[VICTIM].signal(Signal::CONT);
    eventually("all agree again", || agree(&nodes.each_ref(), 3.0));
    drain(&nodes.each_ref());
    let drained = over.elapsed();
    pass(fault_time().saturating_sub(drained));
    let record = load.end();

    println!("{stored} hints");
    judge("SIGSTOP", &record, &Fault { begun, over, drained }, Some(VICTIM));
    assert!(0.0 < stored, "it missed something");
    drain(&nodes.each_ref());
    record.check(&addresses(&nodes));
}

/// A check that cannot fail shows nothing.
#[test]
#[should_panic(expected = "not one of")]
fn a_write_that_was_lost_is_caught() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let nodes = three(&homes);
    let load = Load::begin(&addresses(&nodes));
    pass(Duration::from_secs(1));
    let record = load.end();

    nodes[0].delete("/kv/c0-0").ok();

    record.check(&addresses(&nodes));
}
