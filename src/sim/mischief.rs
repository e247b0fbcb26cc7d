//! Whatever goes wrong in a world, and how it ends.

use std::time::Duration;

use super::coverage::Reach;
use super::world::{At, DRIFT_PPM_MAX, Event, Mend, Part, Stalled, World, WorldEvent};
use crate::protocol::types::CoreId;

/// So many nodes at most are down or stand still at once, beside one more for a moment.
const AWAY_MAX: usize = 2;

/// A wall clock is off by so much at most.
const HOUR_MS: i64 = 3_600_000;

impl World {
    /// Faults begin now.
    pub(super) fn begin_mischief(&mut self) {
        if self.stage.shape.mischief != Duration::ZERO && !std::mem::replace(&mut self.is_wild, true) {
            self.stage.after(Duration::from_millis(1), Event::World(WorldEvent::Mischief));
        }
    }

    pub(super) fn on_world(&mut self, event: WorldEvent) {
        match event {
            WorldEvent::Mischief if self.is_wild => {
                self.make_trouble();
                let wait = self.stage.chance.time(Duration::from_millis(1), self.stage.shape.mischief);
                self.stage.after(wait, Event::World(WorldEvent::Mischief));
            }
            WorldEvent::Mischief => {}
            WorldEvent::Mend(mend) => {
                self.faults -= 1;
                self.mend(mend);
            }
            WorldEvent::Relink(from, to) => self.stage.link(from, to),
            WorldEvent::Operate => self.operate(),
        }
    }

    fn make_trouble(&mut self) {
        let mix = self.stage.shape.mix;
        let weights = [mix.processes, mix.network, mix.disks, mix.losses, mix.clocks, mix.members];
        let all: u64 = weights.iter().sum();
        if all == 0 || self.stage.shape.at_once <= self.faults {
            return;
        }
        let mut drawn = self.stage.chance.below(all);
        for (kind, weight) in weights.into_iter().enumerate() {
            if drawn < weight {
                return match kind {
                    0 => self.trouble_a_process(),
                    1 => self.trouble_the_network(),
                    2 => self.trouble_a_disk(),
                    3 => self.lose_something(),
                    4 => self.trouble_a_clock(),
                    _ => self.stage_something(),
                };
            }
            drawn -= weight;
        }
    }

    fn trouble(&mut self, at: At, fault: Reach) {
        self.stage.injected(fault);
        let now = self.stage.now;
        self.stage.watch.truth.trouble(now, at);
        self.stage.note(|_| format!("-- n{at}: {}", fault.name()));
    }

    pub(super) fn mend_after(&mut self, least_ms: u64, most_ms: u64, mend: Mend) {
        let wait = self.stage.chance.time(Duration::from_millis(least_ms), Duration::from_millis(most_ms));
        self.faults += 1;
        self.stage.after(wait, Event::World(WorldEvent::Mend(mend)));
    }

    fn away(&self) -> usize {
        self.nodes.iter().filter(|node| !node.is_gone && (!node.is_alive() || node.stalled.is_some())).count()
    }

    fn some_node(&mut self) -> Option<At> {
        let alive: Vec<At> = self.stage.alive().into_iter().filter(|at| self.nodes[*at].stalled.is_none()).collect();
        (!alive.is_empty()).then(|| alive[self.stage.chance.index(alive.len())])
    }

    fn trouble_a_process(&mut self) {
        let Some(at) = self.some_node() else { return };
        if AWAY_MAX <= self.away() && !self.stage.chance.thousandth(100) {
            return;
        }
        match self.stage.chance.below(21) {
            0..6 => {
                self.trouble(at, Reach::Crash);
                self.end(at, false);
            }
            6..12 => {
                self.trouble(at, Reach::PowerLoss);
                self.end(at, true);
            }
            12..18 => {
                let part = match self.stage.chance.below(4) {
                    0 => Part::Control,
                    1 => Part::Core(self.some_core(at)),
                    _ => Part::All,
                };
                self.stall(at, part);
                return self.mend_after(5, 4_000, Mend::Resume(at));
            }
            18..20 => {
                self.trouble(at, Reach::Restart);
                self.leave(at);
                self.end(at, false);
            }
            _ => return self.roll(0),
        }
        self.mend_after(5, 4_000, Mend::Start(at));
    }

    /// The next node that runs is restarted, and then the ones behind it.
    fn roll(&mut self, from: At) {
        let Some(at) = self.stage.alive().into_iter().find(|at| from <= *at && self.nodes[*at].stalled.is_none())
        else {
            return;
        };
        self.trouble(at, Reach::Rolling);
        self.leave(at);
        self.end(at, false);
        self.mend_after(5, 1_000, Mend::Roll(at));
    }

    fn some_core(&mut self, at: At) -> CoreId {
        CoreId(u16::try_from(self.stage.chance.index(self.nodes[at].cores())).expect("as many as a node has"))
    }

    /// A node, or a part of it, stands still: what comes there waits.
    pub(super) fn stall(&mut self, at: At, part: Part) {
        let fault = match part {
            Part::All => Reach::Stall,
            Part::Control => Reach::ControlStall,
            Part::Core(_) => Reach::CoreStall,
        };
        self.trouble(at, fault);
        self.nodes[at].stalled = Some(Stalled { part, waiting: Vec::new() });
        self.stage.watch.truth.nodes[at].is_still = true;
    }

    /// The process of a node ends.
    pub(super) fn end(&mut self, at: At, loses_power: bool) {
        self.nodes[at].end(loses_power, &mut self.stage);
    }

    fn leave(&mut self, at: At) {
        self.nodes[at].leave(&mut self.stage);
    }

    fn two_nodes(&mut self) -> Option<(At, At)> {
        let all: Vec<At> = (0..self.nodes.len()).filter(|at| !self.nodes[*at].is_gone).collect();
        if all.len() < 2 {
            return None;
        }
        let one = self.stage.chance.index(all.len());
        let other = (one + 1 + self.stage.chance.index(all.len() - 1)) % all.len();
        Some((all[one], all[other]))
    }

    fn trouble_the_network(&mut self) {
        let Some((one, other)) = self.two_nodes() else { return };
        match self.stage.chance.below(10) {
            0 | 1 => self.cut(vec![(one, other)], one, Reach::CutOneWay),
            2 | 3 => self.cut(vec![(one, other), (other, one)], one, Reach::CutTwoWays),
            4 => {
                let others = (0..self.nodes.len()).filter(|at| *at != one);
                let ways = others.flat_map(|at| [(one, at), (at, one)]).collect();
                self.cut(ways, one, Reach::Isolated);
            }
            5 => {
                self.trouble(one, Reach::SlowWay);
                self.trouble_too(other);
                let by = self.stage.chance.time(Duration::from_millis(1), Duration::from_millis(3_000));
                self.stage.network.slow.insert((one, other), by);
                self.mend_after(10, 3_000, Mend::Join(vec![(one, other)]));
            }
            6 => {
                self.trouble(one, Reach::ClogWay);
                self.trouble_too(other);
                self.stage.network.clogged.insert((one, other));
                self.mend_after(10, 2_000, Mend::Join(vec![(one, other)]));
            }
            7 => {
                self.trouble(one, Reach::Reset);
                self.stage.break_connections(one);
                for at in self.stage.alive() {
                    self.stage.link(one, at);
                }
            }
            _ => {
                self.stage.injected(Reach::BadWeather);
                let now = self.stage.now;
                self.stage.watch.truth.trouble_all(now);
                let (lost, late, doubled) = self.stage.shape.weather;
                let chance = &mut self.stage.chance;
                self.stage.network.lost = chance.below(lost + 1);
                self.stage.network.late = chance.below(late + 1);
                self.stage.network.doubled = chance.below(doubled + 1);
                self.stage.network.lateness = chance.time(Duration::from_millis(1), Duration::from_millis(800));
                self.mend_after(50, 3_000, Mend::Calm);
            }
        }
    }

    fn trouble_too(&mut self, at: At) {
        let now = self.stage.now;
        self.stage.watch.truth.trouble(now, at);
    }

    fn cut(&mut self, ways: Vec<(At, At)>, at: At, fault: Reach) {
        self.trouble(at, fault);
        ways.iter().for_each(|(_, other)| self.trouble_too(*other));
        self.stage.network.cut.extend(ways.iter().copied());
        self.mend_after(20, 4_000, Mend::Join(ways));
    }

    fn trouble_a_disk(&mut self) {
        let Some(at) = self.some_node() else { return };
        match self.stage.chance.below(10) {
            0 | 1 => self.slow_disk(at, Duration::from_millis(400)),
            2 | 3 => self.slow_all_disks(),
            4..7 => {
                self.trouble(at, Reach::FullDisk);
                self.nodes[at].store.is_full = true;
                self.mend_after(20, 3_000, Mend::Empty(at));
            }
            7 | 8 => {
                self.trouble(at, Reach::SlowNode);
                self.stage.posts[at].lag = self.stage.chance.time(Duration::from_millis(1), Duration::from_millis(300));
                self.mend_after(20, 2_000, Mend::Hurry(at));
            }
            _ => {
                self.trouble(at, Reach::BrokenLog);
                let core = self.some_core(at);
                self.nodes[at].break_log(core);
                // Whoever runs it starts it again when it says that it writes no more.
                self.mend_after(500, 3_000, Mend::Start(at));
            }
        }
    }

    fn slow_disk(&mut self, at: At, most: Duration) {
        self.trouble(at, Reach::SlowDisk);
        self.nodes[at].store.lag = self.stage.chance.time(Duration::from_millis(1), most);
        self.mend_after(20, 2_000, Mend::Hurry(at));
    }

    /// As with one storage that is behind all of them. Whoever runs them may change something meanwhile.
    fn slow_all_disks(&mut self) {
        self.stage.alive().into_iter().for_each(|at| self.slow_disk(at, Duration::from_secs(1)));
        if 0 < self.stage.shape.mix.members {
            self.stage_something();
        }
    }

    /// A disk is lost, or rots: only while nothing was lost since the cluster was last at rest.
    fn lose_something(&mut self) {
        if 0 < self.stage.watch.truth.losses || self.operator.is_replacing() {
            return;
        }
        let Some(at) = self.some_node() else { return };
        if self.stage.alive().len() < 3 {
            return;
        }
        match self.stage.chance.below(4) {
            0 if self.nodes[at].rot(&mut self.stage) => {
                self.trouble(at, Reach::BitFlip);
                self.stage.watch.truth.losses += 1;
                self.end(at, false);
                self.mend_after(5, 500, Mend::Start(at));
            }
            0 => {}
            1 => {
                self.trouble(at, Reach::DiskLost);
                self.stage.watch.truth.losses += 1;
                self.lose_disk(at);
            }
            _ => {
                // It may only stand still, and know nothing when it goes on; or go on, and hear nothing.
                match self.stage.chance.below(4) {
                    0 => {
                        self.trouble(at, Reach::Crash);
                        self.end(at, false);
                    }
                    1 => self.stall(at, Part::All),
                    _ => self.stall(at, Part::Control),
                }
                self.stage.watch.truth.losses += 1;
                self.operator.remove(at);
            }
        }
    }

    /// The disk of a node is lost, and an operator replaces the node by one of its name on an empty disk.
    fn lose_disk(&mut self, at: At) {
        self.end(at, true);
        self.nodes[at].lose_disk(&mut self.stage);
        self.stage.watch.truth.lose_disk(at);
        self.operator.replace(at);
    }

    /// What is on the disk of a node is damaged: only where a bit was flipped.
    pub(super) fn on_damage(&mut self, at: At, what: &str) {
        if !self.nodes[at].is_rotten {
            let now = self.stage.now;
            return self.stage.watch.accuse(now, "restart", format!("n{at} finds damage where there is none: {what}"));
        }
        self.stage.coverage.reach(Reach::Damage);
        self.lose_disk(at);
    }

    fn trouble_a_clock(&mut self) {
        let Some(at) = self.some_node() else { return };
        let now = self.stage.now;
        let mut drawn = |most: i64| self.stage.chance.below(2 * most.unsigned_abs()).cast_signed() - most;
        let (off_ms, drift_ppm) = (drawn(HOUR_MS), drawn(DRIFT_PPM_MAX));
        let clock = &mut self.stage.posts[at].clock;
        if self.stage.chance.thousandth(500) {
            clock.jump(off_ms);
            self.trouble(at, Reach::ClockJump);
        } else {
            clock.drift(now, drift_ppm);
            self.trouble(at, Reach::ClockDrift);
        }
    }

    fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Start(at) => {
                if self.nodes[at].has_failed() {
                    self.end(at, false);
                }
                if self.nodes[at].has_joined() && !self.operator.keeps_down(at) {
                    self.start(at);
                }
            }
            Mend::Roll(at) => {
                self.mend(Mend::Start(at));
                if self.is_wild {
                    self.roll(at + 1);
                }
            }
            Mend::Resume(at) if self.nodes[at].is_gone && self.removed().any(|removed| removed == at) => {
                // Nobody lets a node go on that still has its place and is to lose it.
                if self.is_wild {
                    return self.mend_after(10, 500, Mend::Resume(at));
                }
                self.end(at, false);
                self.stage.watch.truth.lose_disk(at);
            }
            Mend::Resume(at) => self.resume(at),
            Mend::Join(ways) => {
                for (from, to) in ways {
                    let network = &mut self.stage.network;
                    network.cut.remove(&(from, to));
                    network.clogged.remove(&(from, to));
                    network.slow.remove(&(from, to));
                    self.stage.link(from, to);
                    self.trouble_too(from);
                    self.trouble_too(to);
                }
            }
            Mend::Empty(at) => {
                self.nodes[at].store.is_full = false;
                self.trouble_too(at);
            }
            Mend::Hurry(at) => {
                self.nodes[at].store.lag = Duration::ZERO;
                self.stage.posts[at].lag = Duration::ZERO;
                self.trouble_too(at);
            }
            Mend::Calm => {
                let network = &mut self.stage.network;
                (network.lost, network.late, network.doubled) = (0, 0, 0);
                let now = self.stage.now;
                self.stage.watch.truth.trouble_all(now);
            }
        }
    }

    /// It goes on.
    pub(super) fn resume(&mut self, at: At) {
        self.trouble_too(at);
        let of_node = &mut self.stage.watch.truth.nodes[at];
        (of_node.is_still, of_node.went_on_at) = (false, self.stage.now);
        let Some(stalled) = self.nodes[at].stalled.take() else { return };
        let was_removed = if self.nodes[at].is_gone { ", and was removed" } else { "" };
        self.stage.note(|_| format!("-- n{at}: goes on{was_removed}"));
        for event in stalled.waiting {
            self.stage.after(Duration::ZERO, event);
        }
    }

    /// Every fault ends.
    pub(super) fn heal(&mut self) {
        self.is_wild = false;
        self.nodes.iter_mut().for_each(super::world::Node::keep_log);
        self.stage.note(|_| "-- all faults end".to_owned());
        self.stage.network.calm();
        for at in 0..self.nodes.len() {
            self.mend(Mend::Empty(at));
            self.mend(Mend::Hurry(at));
            self.mend(Mend::Resume(at));
            self.mend(Mend::Start(at));
            // A write that is under way may fail yet.
            self.mend_after(1_000, 3_000, Mend::Start(at));
        }
        for (one, other) in (0..self.nodes.len()).flat_map(|one| (0..one).map(move |other| (one, other))) {
            self.stage.link(one, other);
        }
    }
}
