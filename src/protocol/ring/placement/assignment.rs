//! Which nodes hold each partition, with as many copies as can be left where they are: a flow of least cost.
//!
//! A copy flows from its partition through a zone of it to a node and out. A node that held the partition before costs
//! nothing, any other one move. The bounds are those of `share`:
//!
//! ```text
//!              1 each          1 each; 0 held before, 1 moved     floor
//!  partition ─────────▶ zone ───────────────────────────▶ node ───────────▶ out
//!      │  K - min(Z, K)   ▲                                 │ ceil - floor
//!      └─────▶ spare ─────┘                                 └────▶ bonus ───▶ out, as often as floors leave copies
//! ```
//!
//! Copies that can stay within the bounds come first, at no cost. Then the others flow along the cheapest paths that
//! are left, each of which may move copies that were placed before it: so no other placement of as many copies costs
//! less (the successive shortest paths of the textbooks), and it ends with all of them. In a round all that are equally
//! cheap and short go at once, as in Dinic's algorithm. Edges are not kept: they follow from who holds what.

use std::collections::VecDeque;

use super::share::Share;

/// What is to be placed. Nodes are counted zone by zone.
pub(super) struct Terms<'a> {
    /// Copies of each partition.
    pub(super) copies: usize,
    /// What each node is to own.
    pub(super) shares: &'a [Share],
    /// The zone of each node; it ascends.
    pub(super) zones: &'a [u16],
    /// Who held each partition before, as far as they are still there.
    pub(super) before: &'a [Vec<u16>],
}

/// The holders of each partition: those of before in their order, then others.
pub(super) fn assign(terms: &Terms<'_>) -> Vec<Vec<u16>> {
    let mut assignment = Assignment::new(terms);
    assignment.keep(terms.before);
    while assignment.holders.iter().any(|holders| holders.len() < terms.copies) {
        Round::new(&assignment).place(&mut assignment);
    }
    let mut holders = assignment.holders;
    for (holders, before) in holders.iter_mut().zip(terms.before) {
        holders.sort_by_key(|node| before.iter().position(|held| held == node).unwrap_or(before.len()));
    }
    holders
}

/// Where a copy can be on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Partition(usize),
    /// Copies of a partition beyond the first of each zone.
    Spare(usize),
    Zone(usize, usize),
    Node(usize),
    Bonus,
    Out,
}

/// Moves, then steps of the way.
type Distance = i64;

const STEP: Distance = 1;
/// More than the steps of any way that passes no stop twice.
const MOVE: Distance = 1 << 32;
const FAR: Distance = Distance::MAX;

struct Assignment<'a> {
    copies: usize,
    /// Copies of a partition beyond one in each of its zones.
    spare: usize,
    shares: &'a [Share],
    zone_of: &'a [u16],
    /// The nodes of each zone.
    zones: Vec<std::ops::Range<usize>>,
    /// Nodes that may have their ceil.
    bonus: usize,

    holders: Vec<Vec<u16>>,
    /// Partition after partition, for each node, [`HOLDS`] and [`HELD`].
    marks: Vec<u8>,
    /// Partition after partition, copies in each zone.
    in_zone: Vec<u8>,
    /// Copies of each partition beyond the first of each zone.
    spared: Vec<usize>,
    loads: Vec<u32>,
    /// Nodes above their floor.
    above: usize,
}

const HOLDS: u8 = 1;
const HELD: u8 = 2;

impl<'a> Assignment<'a> {
    fn new(terms: &Terms<'a>) -> Assignment<'a> {
        let (partitions, nodes) = (terms.before.len(), terms.shares.len());
        let zones: Vec<_> = terms.zones.chunk_by(|one, next| one == next).map(<[u16]>::len).collect();
        let ends = zones.iter().scan(0, |end, nodes| {
            *end += nodes;
            Some(*end - nodes..*end)
        });
        let floors: usize = terms.shares.iter().map(|share| share.floor as usize).sum();
        let mut marks = vec![0; partitions * nodes];
        for (partition, before) in terms.before.iter().enumerate() {
            before.iter().for_each(|node| marks[partition * nodes + usize::from(*node)] = HELD);
        }
        Assignment {
            copies: terms.copies,
            spare: terms.copies - terms.copies.min(zones.len()),
            shares: terms.shares,
            zone_of: terms.zones,
            zones: ends.collect(),
            bonus: partitions * terms.copies - floors,
            holders: vec![Vec::with_capacity(terms.copies); partitions],
            marks,
            in_zone: vec![0; partitions * zones.len()],
            spared: vec![0; partitions],
            loads: vec![0; nodes],
            above: 0,
        }
    }

    /// Leaves copies where they are, as far as the bounds allow.
    fn keep(&mut self, before: &[Vec<u16>]) {
        for (partition, nodes) in before.iter().enumerate() {
            for node in nodes.iter().map(|node| usize::from(*node)) {
                let zone = self.zone(node);
                let has_place = self.holders[partition].len() < self.copies
                    && (self.in_zone(partition, zone) == 0 || self.spared[partition] < self.spare);
                if has_place && (self.has_floor(node) || (self.may_rise(node) && self.above < self.bonus)) {
                    self.give(partition, node);
                }
            }
        }
    }

    fn zone(&self, node: usize) -> usize {
        usize::from(self.zone_of[node])
    }

    fn in_zone(&self, partition: usize, zone: usize) -> u8 {
        self.in_zone[partition * self.zones.len() + zone]
    }

    fn marks(&self, partition: usize) -> &[u8] {
        &self.marks[partition * self.loads.len()..][..self.loads.len()]
    }

    /// What it costs that the node holds the partition.
    fn cost(&self, partition: usize, node: usize) -> Distance {
        if self.marks(partition)[node] & HELD == 0 { MOVE } else { 0 }
    }

    fn holds(&self, partition: usize, node: usize) -> bool {
        self.marks(partition)[node] & HOLDS != 0
    }

    fn has_floor(&self, node: usize) -> bool {
        self.loads[node] < self.shares[node].floor
    }

    /// Whether it is at its floor and has a ceil above it.
    fn may_rise(&self, node: usize) -> bool {
        self.loads[node] == self.shares[node].floor && self.shares[node].floor < self.shares[node].ceil
    }

    fn is_above(&self, node: usize) -> bool {
        self.shares[node].floor < self.loads[node]
    }

    fn give(&mut self, partition: usize, node: usize) {
        let (zone, nodes) = (self.zone(node), self.loads.len());
        let in_zone = &mut self.in_zone[partition * self.zones.len() + zone];
        self.spared[partition] += usize::from(0 < *in_zone);
        *in_zone += 1;
        self.marks[partition * nodes + node] |= HOLDS;
        self.holders[partition].push(u16::try_from(node).expect("a layout has fewer nodes"));
        self.above += usize::from(self.loads[node] == self.shares[node].floor);
        self.loads[node] += 1;
    }

    fn take(&mut self, partition: usize, node: usize) {
        let (zone, nodes) = (self.zone(node), self.loads.len());
        let in_zone = &mut self.in_zone[partition * self.zones.len() + zone];
        *in_zone -= 1;
        self.spared[partition] -= usize::from(0 < *in_zone);
        self.marks[partition * nodes + node] &= !HOLDS;
        self.holders[partition].retain(|holder| usize::from(*holder) != node);
        self.loads[node] -= 1;
        self.above -= usize::from(self.loads[node] == self.shares[node].floor);
    }

    /// Carries one copy along a way.
    fn carry(&mut self, way: &[Stop]) {
        for steps in way.windows(2) {
            match *steps {
                [Stop::Node(node), Stop::Zone(partition, _)] => self.take(partition, node),
                [Stop::Zone(partition, _), Stop::Node(node)] => self.give(partition, node),
                _ => {}
            }
        }
    }
}

/// The distance of every stop from the copies that have no place yet, and what of each stop's ways was tried.
struct Round {
    nodes: usize,
    zones: usize,
    partitions: usize,
    distance: Vec<Distance>,
    out: Distance,
    tried: Vec<u32>,
    /// What each node holds at the beginning.
    held: Vec<Vec<u16>>,
    waiting: VecDeque<Stop>,
    waits: Vec<bool>,
}

impl Round {
    fn new(from: &Assignment<'_>) -> Round {
        let (nodes, zones, partitions) = (from.loads.len(), from.zones.len(), from.holders.len());
        let mut held = vec![Vec::new(); nodes];
        for (partition, holders) in from.holders.iter().enumerate() {
            let partition = u16::try_from(partition).expect("a ring has fewer partitions");
            holders.iter().for_each(|node| held[usize::from(*node)].push(partition));
        }
        let stops = nodes + 1 + partitions * (2 + zones);
        let mut round = Round {
            nodes,
            zones,
            partitions,
            distance: vec![FAR; stops],
            out: FAR,
            tried: vec![0; stops],
            held,
            waiting: VecDeque::new(),
            waits: vec![false; stops],
        };
        for partition in round.incomplete(from) {
            round.reach(Stop::Partition(partition), 0);
        }
        while let Some(stop) = round.waiting.pop_front() {
            let at = round.index(stop);
            round.waits[at] = false;
            round.leave(from, stop, round.distance[at]);
        }
        round
    }

    /// Carries copies out along ways that are as short as any, until none is left.
    fn place(mut self, assignment: &mut Assignment<'_>) {
        assert!(self.out < FAR, "whoever has no place yet finds one: shares are made so");
        for partition in self.incomplete(assignment) {
            while assignment.holders[partition].len() < assignment.copies
                && let Some(way) = self.way(assignment, Stop::Partition(partition))
            {
                assignment.carry(&way);
            }
        }
    }

    fn incomplete(&self, assignment: &Assignment<'_>) -> Vec<usize> {
        (0..self.partitions).filter(|&partition| assignment.holders[partition].len() < assignment.copies).collect()
    }

    fn index(&self, stop: Stop) -> usize {
        let first = self.nodes + 1;
        match stop {
            Stop::Node(node) => node,
            Stop::Bonus => self.nodes,
            Stop::Partition(partition) => first + partition,
            Stop::Spare(partition) => first + self.partitions + partition,
            Stop::Zone(partition, zone) => first + 2 * self.partitions + partition * self.zones + zone,
            Stop::Out => unreachable!("nothing leaves it"),
        }
    }

    fn reach(&mut self, stop: Stop, distance: Distance) {
        if stop == Stop::Out {
            self.out = self.out.min(distance);
            return;
        }
        let at = self.index(stop);
        if distance < self.distance[at] {
            self.distance[at] = distance;
            if !std::mem::replace(&mut self.waits[at], true) {
                self.waiting.push_back(stop);
            }
        }
    }

    /// Reaches all that is one step away.
    fn leave(&mut self, from: &Assignment<'_>, stop: Stop, distance: Distance) {
        let next = distance + STEP;
        match stop {
            Stop::Partition(partition) => {
                for zone in (0..self.zones).filter(|&zone| from.in_zone(partition, zone) == 0) {
                    self.reach_zone(from, partition, zone, next);
                }
                if from.spared[partition] < from.spare {
                    self.reach(Stop::Spare(partition), next);
                }
            }
            Stop::Spare(partition) => {
                (0..self.zones).for_each(|zone| self.reach_zone(from, partition, zone, next));
                if 0 < from.spared[partition] {
                    self.reach(Stop::Partition(partition), next);
                }
            }
            Stop::Zone(partition, zone) => {
                self.reach_nodes(from, partition, zone, next);
                if 0 < from.in_zone(partition, zone) {
                    self.reach(Stop::Partition(partition), next);
                }
                if 1 < from.in_zone(partition, zone) {
                    self.reach(Stop::Spare(partition), next);
                }
            }
            Stop::Node(node) => {
                if from.has_floor(node) {
                    self.reach(Stop::Out, next);
                } else if from.may_rise(node) {
                    self.reach(Stop::Bonus, next);
                }
                for held in 0..self.held[node].len() {
                    let partition = usize::from(self.held[node][held]);
                    self.reach(Stop::Zone(partition, from.zone(node)), next - from.cost(partition, node));
                }
            }
            Stop::Bonus => {
                if from.above < from.bonus {
                    self.reach(Stop::Out, next);
                }
                (0..self.nodes).filter(|&node| from.is_above(node)).for_each(|node| self.reach(Stop::Node(node), next));
            }
            Stop::Out => {}
        }
    }

    /// A zone without a copy of the partition leads to its nodes only, so it need not wait for its turn.
    fn reach_zone(&mut self, from: &Assignment<'_>, partition: usize, zone: usize, distance: Distance) {
        if 0 < from.in_zone(partition, zone) {
            return self.reach(Stop::Zone(partition, zone), distance);
        }
        let at = self.index(Stop::Zone(partition, zone));
        if distance < self.distance[at] {
            self.distance[at] = distance;
            self.reach_nodes(from, partition, zone, distance + STEP);
        }
    }

    fn reach_nodes(&mut self, from: &Assignment<'_>, partition: usize, zone: usize, distance: Distance) {
        let marks = from.marks(partition);
        for node in from.zones[zone].clone().filter(|&node| marks[node] & HOLDS == 0) {
            self.reach(Stop::Node(node), distance + if marks[node] & HELD == 0 { MOVE } else { 0 });
        }
    }

    /// A shortest way out that is still open.
    fn way(&mut self, now: &Assignment<'_>, start: Stop) -> Option<Vec<Stop>> {
        let mut way = vec![start];
        while let Some(&stop) = way.last() {
            let at = self.index(stop);
            match self.step(now, stop, self.tried[at]) {
                Step::To(Stop::Out) => return Some(way),
                Step::To(next) => way.push(next),
                Step::Closed => self.tried[at] += 1,
                // What led here is closed as well.
                Step::None => {
                    way.pop();
                    if let Some(&before) = way.last() {
                        let before = self.index(before);
                        self.tried[before] += 1;
                    }
                }
            }
        }
        None
    }

    /// The step of this number out of a stop.
    fn step(&self, now: &Assignment<'_>, stop: Stop, number: u32) -> Step {
        let number = number as usize;
        let here = self.distance[self.index(stop)];
        let (next, is_open, cost) = match stop {
            Stop::Partition(partition) if number < self.zones => {
                let zone = scattered(partition, number, self.zones);
                (Stop::Zone(partition, zone), now.in_zone(partition, zone) == 0, 0)
            }
            Stop::Partition(partition) if number == self.zones => {
                (Stop::Spare(partition), now.spared[partition] < now.spare, 0)
            }
            Stop::Spare(partition) if number < self.zones => {
                (Stop::Zone(partition, scattered(partition, number, self.zones)), true, 0)
            }
            Stop::Spare(partition) if number == self.zones => {
                (Stop::Partition(partition), 0 < now.spared[partition], 0)
            }
            Stop::Zone(partition, zone) => {
                let nodes = now.zones[zone].clone();
                let copies = now.in_zone(partition, zone);
                match number.checked_sub(nodes.len()) {
                    None => {
                        let node = nodes.start + scattered(partition, number, nodes.len());
                        (Stop::Node(node), !now.holds(partition, node), now.cost(partition, node))
                    }
                    Some(0) => (Stop::Partition(partition), 0 < copies, 0),
                    Some(1) => (Stop::Spare(partition), 1 < copies, 0),
                    Some(_) => return Step::None,
                }
            }
            Stop::Node(node) => match number.checked_sub(2) {
                None if number == 0 => (Stop::Out, now.has_floor(node), 0),
                None => (Stop::Bonus, now.may_rise(node), 0),
                Some(held) => {
                    let Some(&partition) = self.held[node].get(held) else { return Step::None };
                    let partition = usize::from(partition);
                    let zone = Stop::Zone(partition, now.zone(node));
                    (zone, now.holds(partition, node), -now.cost(partition, node))
                }
            },
            Stop::Bonus if number == 0 => (Stop::Out, now.above < now.bonus, 0),
            Stop::Bonus if number <= self.nodes => (Stop::Node(number - 1), now.is_above(number - 1), 0),
            Stop::Partition(_) | Stop::Spare(_) | Stop::Bonus | Stop::Out => return Step::None,
        };
        let there = if next == Stop::Out { self.out } else { self.distance[self.index(next)] };
        if is_open && there == here + STEP + cost { Step::To(next) } else { Step::Closed }
    }
}

enum Step {
    To(Stop),
    Closed,
    None,
}

/// The `number`th of `count` in an order of the partition's own, so that the partitions of one node have their other
/// copies on many nodes: what it served spreads over them when it is gone.
fn scattered(partition: usize, number: usize, count: usize) -> usize {
    if count == 1 {
        return 0;
    }
    let chance = (partition as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (first, stride) = ((chance >> 48) as usize % count, (chance >> 16) as usize % count);
    let stride = (stride.max(1)..count).find(|&stride| gcd(stride, count) == 1).unwrap_or(1);
    (first + number * stride) % count
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
