//! Nodes that join and leave a cluster with data while clients read and write, every twentieth message between nodes is
//! late, and nodes are killed and stand still: nothing is lost, and no read misses what owners acknowledged.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;

use super::crowd::Record;
use super::fleet::{Fleet, Kind, Meter};
use super::{now, pass};
use crate::dice::{Dice, seed, setting};

/// Bytes of a value.
const VALUE: u64 = 1_000;

/// Bytes that a still key takes beside its value when it travels: the key, a dot, a vector of one, and lengths.
const BESIDE: u64 = 80;

/// What changes may fetch, as a part of what the nodes gain.
const RATIO_MAX: f64 = 1.2;

/// A node that stands still does so for this long.
const STILL: Duration = Duration::from_secs(2);

/// A cluster under load, and what its clients were told.
struct Trial {
    fleet: Fleet,
    record: Record,
    keys: u64,
    /// The nodes of the layout.
    members: Vec<usize>,
    dice: Dice,
}

impl Trial {
    /// Three nodes with data.
    fn begin() -> Trial {
        let keys = setting("SLOOP_TEST_CHANGE_KEYS", 1_500);
        // A node that gains three of four partitions is busy with that for three seconds.
        let rate = (keys * VALUE / 4).to_string();
        let fleet = Fleet::of_three(Kind::Delayed, &["--transfer-rate", &rate]);
        let (members, mut record) = (vec![0, 1, 2], Record::default());
        record.fill(&members.iter().map(|at| fleet.address(*at)).collect::<Vec<_>>(), keys, VALUE);
        Trial { fleet, record, keys, members, dice: Dice(seed()) }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|at| self.fleet.address(*at)).collect()
    }

    /// So many join, in one commit.
    fn grow(&mut self, joining: usize) {
        let joined: Vec<usize> = (0..joining).map(|_| self.fleet.add()).collect();
        let after = [&self.members[..], &joined].concat();
        self.change(&after);
    }

    /// So many leave, in one commit.
    fn shrink(&mut self, leaving: usize) {
        let mut after = self.members.clone();
        let left: Vec<usize> = (0..leaving).map(|_| after.remove(self.dice.index(after.len()))).collect();
        for &at in &left {
            self.fleet.order(after[0], &["leave", self.fleet.name(at), "--yes"]);
        }
        self.change(&after);
        self.fleet.converge(after[0]);
        left.into_iter().for_each(|at| self.fleet.stop(at));
    }

    /// Commits what is staged, under load and with faults, until these are the layout.
    fn change(&mut self, after: &[usize]) {
        let what = format!("{} nodes to {}", self.members.len(), after.len());
        let via = *self.members.iter().find(|at| after.contains(at)).expect("some node stays");
        let (before, mut meter) = (self.fleet.loads(via), Meter::of_transfers(&self.fleet));
        let crowd = self.record.crowd(&self.addresses());
        pass(Duration::from_millis(300));
        println!("{}", self.fleet.order(via, &["plan"]));

        let begun = now();
        self.fleet.hold_back(true);
        self.fleet.order(via, &["commit", "--yes"]);
        let faults = self.hurt(&mut meter);
        self.fleet.settle(after, &mut meter);
        let took = begun.elapsed();
        pass(Duration::from_millis(300));
        self.fleet.hold_back(false);
        self.record.add(crowd);

        let gains = self.fleet.loads(via).into_iter().zip(before).map(|(after, before)| (after - before).max(0.0));
        let gained: f64 = gains.sum();
        let due = gained * (self.keys * (VALUE + BESIDE)) as f64;
        let ratio = meter.sum() / due;
        println!("{what}: {took:.1?}, {faults}; fetched {:.0} bytes of {due:.0}, ratio {ratio:.3}", meter.sum());
        assert!(ratio < RATIO_MAX, "{what}, seed {}: fetched {ratio:.2} times what it gained", seed());
        self.members = after.to_vec();
    }

    /// Kills one node and starts it again, then lets another one stand still. Says which, and when the change was over.
    fn hurt(&mut self, meter: &mut Meter) -> String {
        let running = self.fleet.running();
        let killed = running[self.dice.index(running.len())];
        let still = running[self.dice.index(running.len())];
        meter.look(&self.fleet);
        let first = self.fleet.is_changing(running[0]);
        self.fleet.kill(killed);
        self.fleet.start(killed);
        let second = self.fleet.is_changing(running[0]);
        self.fleet.signal(still, Signal::STOP);
        pass(STILL);
        self.fleet.signal(still, Signal::CONT);
        let when = |is_changing| if is_changing { "within it" } else { "after it" };
        let names = (self.fleet.name(killed), self.fleet.name(still));
        format!("{} killed {}, {} stood still {}", names.0, when(first), names.1, when(second))
    }

    fn end(self, what: &str) {
        for at in &self.members {
            self.fleet.converge(*at);
        }
        assert!(0 < self.fleet.delayed(), "seed {}: no message was late", seed());
        println!("{what}: {} messages were late", self.fleet.delayed());
        let addresses = self.addresses();
        self.record.check(what, &addresses);
    }
}

/// What a crowd sees without any change is the measure of the rest.
#[test]
fn a_cluster_whose_nodes_stay_loses_nothing_to_late_messages_a_kill_and_a_pause() {
    let fleet = Fleet::of_three(Kind::Delayed, &[]);
    let addresses = [0, 1, 2].map(|at| fleet.address(at));
    let mut trial = Trial { fleet, record: Record::default(), keys: 0, members: vec![0, 1, 2], dice: Dice(seed()) };
    trial.record.fill(&addresses, 200, VALUE);
    trial.fleet.hold_back(true);
    let crowd = trial.record.crowd(&addresses);
    pass(Duration::from_secs(1));
    let (killed, still) = (trial.dice.index(3), trial.dice.index(3));
    trial.fleet.kill(killed);
    trial.fleet.start(killed);
    trial.fleet.signal(still, Signal::STOP);
    pass(STILL);
    trial.fleet.signal(still, Signal::CONT);
    pass(Duration::from_secs(1));
    trial.record.add(crowd);

    trial.fleet.see(3);
    super::drain(&trial.fleet.nodes());
    trial.record.check("nodes that stay", &addresses);
}

/// A check that cannot fail shows nothing.
#[test]
#[should_panic(expected = "misses")]
fn a_still_key_that_was_lost_is_caught() {
    let fleet = Fleet::of_three(Kind::Plain, &[]);
    let addresses = [0, 1, 2].map(|at| fleet.address(at));
    let mut record = Record::default();
    record.fill(&addresses, 5, VALUE);
    fleet.node(0).delete("/kv/still-3").ok();
    record.check("a deletion behind the record's back", &addresses);
}

#[test]
fn a_cluster_grows_and_shrinks_by_three_under_load_and_loses_nothing() {
    let mut trial = Trial::begin();
    for _ in 0..setting("SLOOP_TEST_CHANGE_ROUNDS", 1) {
        trial.grow(3);
        trial.shrink(3);
    }
    trial.end("3 to 6 and back at once");
}

#[test]
fn a_cluster_grows_and_shrinks_one_by_one_under_load_and_loses_nothing() {
    let (mut trial, steps) = (Trial::begin(), setting("SLOOP_TEST_CHANGE_STEPS", 1));
    for _ in 0..setting("SLOOP_TEST_CHANGE_ROUNDS", 1) {
        (0..steps).for_each(|_| trial.grow(1));
        (0..steps).for_each(|_| trial.shrink(1));
    }
    trial.end("one by one and back");
}
