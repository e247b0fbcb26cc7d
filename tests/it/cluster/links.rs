//! Links between nodes that carry nothing for a while, in both directions or in one, under load.

use std::time::Duration;

use super::faults::{Fault, addresses, judge};
use super::load::Load;
use super::net::Net;
use super::{agree, drain, fault_time, flags, now, pass, secret};
use crate::harness::{Home, Node, eventually};

/// Three nodes on a network of their own.
fn three_on(net: &Net, homes: &[Home; 3]) -> [Node; 3] {
    let (secret, seed) = (secret(), format!("{}:7600", net.address(0)));
    let start = |node: usize| {
        let (name, address) = (format!("n{node}"), net.address(node));
        let (listen, http) = (format!("{address}:7600"), format!("{address}:7601"));
        let mut flags = flags(&name, &listen, if node == 0 { "" } else { &seed }, &secret);
        flags.extend(["--http", &http, "--insecure"]);
        homes[node].start_with(&flags)
    };
    let nodes = [0, 1, 2].map(start);
    eventually("all agree", || agree(&nodes.each_ref(), 3.0));
    nodes
}

/// Cuts these ways under load, heals them, and looks what became of it. `alone` is a node that nobody can reach.
fn cut_and_heal(what: &str, number: u32, ways: &[(usize, usize)], alone: Option<usize>) {
    let Some(net) = Net::for_three(number) else { return };
    let homes = [0, 1, 2].map(|node| net.home(node));
    let nodes = three_on(&net, &homes);
    let load = Load::begin(&addresses(&nodes));
    pass(fault_time() + Duration::from_secs(1));

    let begun = now();
    ways.iter().for_each(|&(from, to)| net.cut(from, to));
    pass(fault_time());
    let over = now();
    ways.iter().for_each(|&(from, to)| net.heal(from, to));
    eventually("all agree again", || agree(&nodes.each_ref(), 3.0));
    drain(&nodes.each_ref());
    let drained = over.elapsed();
    pass(fault_time().saturating_sub(drained));
    let record = load.end();

    let stored: f64 = nodes.iter().map(|node| node.metric("sloop_hints_stored_total")).sum();
    println!("{stored} hints");
    judge(what, &record, &Fault { begun, over, drained }, alone);
    eventually("nothing is under way", || nodes.iter().all(|node| node.metric("sloop_peer_asks_under_way") == 0.0));
    drain(&nodes.each_ref());
    record.check(&addresses(&nodes));
}

#[test]
fn a_node_cut_off_from_the_others_costs_only_its_own_clients() {
    cut_and_heal("a node cut off", 0, &[(0, 1), (1, 0), (1, 2), (2, 1)], Some(1));
}

#[test]
fn a_link_cut_both_ways_loses_nothing() {
    cut_and_heal("a link cut both ways", 1, &[(0, 1), (1, 0)], None);
}

#[test]
fn a_link_cut_one_way_loses_nothing() {
    cut_and_heal("a link cut one way", 2, &[(0, 1)], None);
}
