//! Which partitions have tombstones that may be old enough.
//!
//! The age of a tombstone is counted from when the leader first saw it, in running time: wall clocks jump, and differ
//! from node to node. A leader that starts again counts anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Tombstones;
use super::member::Heard;
use super::round::Round;
use crate::protocol::antientropy::{LeafSet, Scanning as ScanWhy, Sum, Surveying as Why};
use crate::protocol::config::{ROUND_BYTES_MAX, ROUND_KEYS_MAX, ROUND_PAUSE_MIN, TOMBSTONES_SEEN_MAX};
use crate::protocol::io::{Effects, Scan, ScanPage, ScanWant, Survey, Unreadable};
use crate::protocol::planted::Bug;
use crate::protocol::ring::Partition;
use crate::protocol::shard::{Asker, Shard};
use crate::protocol::types::{Instant, Key, Now};

/// A partition that this core leads, and that holds tombstones.
#[derive(Debug)]
pub(super) struct Led {
    /// When it was looked at; `None` while it is.
    since: Option<Instant>,
    /// The digests of what was found then, and was not dealt with yet.
    pub(super) seen: BTreeSet<u64>,
    /// No round begins before.
    pub(super) next: Instant,
    pub(super) pause: Duration,
    /// The highest number of a round that a member was found to know.
    pub(super) told: u32,
}

/// What a look at the trees is for.
#[derive(Debug)]
pub(in crate::protocol) enum Surveying {
    /// Which of these hold tombstones.
    Tombstones(Arc<[Partition]>),
    /// Whether a member that is no owner holds nothing, and whom to tell.
    Drain(Partition, u32, Option<Asker>),
}

/// What a look at the keys is for: those that hold nothing but tombstones are noted, or, in a round, chosen.
#[derive(Debug)]
pub(in crate::protocol) enum Scanning {
    Look(Partition),
    Round(Partition, u32),
}

impl Led {
    fn new() -> Led {
        let (seen, next) = (BTreeSet::new(), Instant::default());
        Led { since: None, seen, next, pause: ROUND_PAUSE_MIN, told: 0 }
    }

    /// Whether what was seen is old enough for a round.
    fn is_ripe(&self, now: Now, age: Duration) -> bool {
        self.since.is_some_and(|since| since + age <= now.instant) && self.next <= now.instant
    }

    pub(super) fn is_looked_at(&self) -> bool {
        self.since.is_none()
    }
}

impl Shard {
    /// Looks for tombstones now and then, and goes on with the rounds that this core leads.
    pub(in crate::protocol) fn lead_rounds(&mut self, now: Now, effects: &mut Effects) {
        self.go_on_with_rounds(now, effects);
        self.begin_more(now, effects);
        if now.instant < self.tombstones.next_look {
            return;
        }
        self.tombstones.next_look = now.instant + self.tombstones.period();
        self.tombstones.retired.retain(|_, retired| now.instant < retired.until);
        self.tombstones.heard.values_mut().for_each(|heard| heard.forget_keys_after(now.instant));
        if !self.is_settled() {
            return;
        }
        let partitions: Arc<[Partition]> = self.led_partitions().into();
        if !partitions.is_empty() {
            let surveying = Surveying::Tombstones(Arc::clone(&partitions));
            self.survey(Why::Tombstones(surveying), Survey::Sums(partitions), effects);
        }
    }

    /// Whether all members are there, and none is about to come or to go.
    fn is_settled(&self) -> bool {
        let view = &self.view;
        let waits_for_all = !self.planted.is(Bug::TombstoneTimer) && !self.planted.is(Bug::OwnersOnly);
        let is_there = |node| node == view.me || self.is_reachable(node) || !waits_for_all;
        let is_placed = |node| view.member(node).is_some_and(|member| !member.is_removed);
        0 < view.epoch
            && view.change.is_none()
            && !self.stopped
            && view.members.iter().all(|member| member.is_removed || is_there(member.node))
            && view.layout.rows().iter().all(|row| is_placed(row.node) && view.is_whole(&view.layout, row.node))
    }

    /// Partitions of this core whose first owner this node is.
    fn led_partitions(&self) -> Vec<Partition> {
        let view = &self.view;
        let Some(cores) = view.member(view.me).map(|me| me.cores) else { return Vec::new() };
        let is_led = |partition: &Partition| {
            cores.of(*partition) == self.core && view.layout.owners(*partition).next() == Some(view.me)
        };
        (0..view.layout.partitions()).map(Partition).filter(is_led).collect()
    }

    /// What the trees say has come in.
    pub(in crate::protocol) fn on_tombstones_surveyed(
        &mut self,
        now: Now,
        surveying: Surveying,
        sums: Vec<Sum>,
        effects: &mut Effects,
    ) {
        match surveying {
            Surveying::Tombstones(partitions) => {
                let buried = partitions.iter().zip(sums).map(|(partition, sum)| (*partition, sum.buried)).collect();
                self.on_buried(now, buried, effects);
            }
            Surveying::Drain(partition, round, asker) => {
                self.on_drain_surveyed(now, (partition, round, asker), sums[0], effects);
            }
        }
    }

    /// How many tombstones the partitions that this core leads hold.
    fn on_buried(&mut self, now: Now, buried: Vec<(Partition, u64)>, effects: &mut Effects) {
        let some = buried.into_iter().filter(|(_, count)| 0 < *count).map(|(partition, _)| partition);
        let some: BTreeSet<Partition> = some.collect();
        let tombstones = &mut self.tombstones;
        tombstones.led.retain(|partition, _| some.contains(partition));
        tombstones.candidates = some;
        self.begin_more(now, effects);
    }

    /// Notes the tombstones of partitions where there are new ones, and begins rounds where they are old enough.
    fn begin_more(&mut self, now: Now, effects: &mut Effects) {
        if self.tombstones.candidates.is_empty() || !self.is_settled() {
            return;
        }
        while self.tombstones.has_room() {
            let Some(partition) = self.tombstones.candidates.pop_first() else { return };
            let tombstones = &mut self.tombstones;
            match tombstones.led.get(&partition) {
                _ if tombstones.rounds.contains_key(&partition) => {}
                None => {
                    tombstones.led.insert(partition, Led::new());
                    self.scan_tombstones(Scanning::Look(partition), partition, None, effects);
                }
                Some(led) if led.is_ripe(now, tombstones.age) => {
                    let round = self.begin_to_choose(now, partition);
                    self.scan_tombstones(Scanning::Round(partition, round), partition, None, effects);
                }
                Some(_) => {}
            }
        }
    }

    fn begin_to_choose(&mut self, now: Now, partition: Partition) -> u32 {
        let told = self.tombstones.led.get(&partition).map_or(0, |led| led.told);
        let known = self.tombstones.heard.get(&partition).map_or(0, Heard::newest);
        // A leader that has started again does not use a number that it used before, whoever else has forgotten it.
        let seconds = u32::try_from(now.wall.0 / 1_000).unwrap_or_default();
        let round = told.max(known).saturating_add(1).max(seconds);
        self.tombstones.rounds.insert(partition, Round::new(now, round));
        round
    }

    fn scan_tombstones(&mut self, scanning: Scanning, partition: Partition, after: Option<Key>, effects: &mut Effects) {
        let want = ScanWant::Names { max: ROUND_KEYS_MAX };
        let of = Scan { partition, leaves: LeafSet::ALL, after, want };
        self.scan(ScanWhy::Tombstones(scanning), of, effects);
    }

    /// What the keys are has come in.
    pub(in crate::protocol) fn on_tombstones_scanned(
        &mut self,
        now: Now,
        scanning: Scanning,
        page: Result<ScanPage, Unreadable>,
        effects: &mut Effects,
    ) {
        match (scanning, page) {
            (Scanning::Look(partition), Ok(page)) => self.on_looked_at(now, partition, page, effects),
            (Scanning::Look(partition), Err(_)) => drop(self.tombstones.led.remove(&partition)),
            (Scanning::Round(partition, round), page) => self.on_chosen(now, partition, round, page, effects),
        }
    }

    fn on_looked_at(&mut self, now: Now, partition: Partition, page: ScanPage, effects: &mut Effects) {
        let held: usize = self.tombstones.led.values().map(|led| led.seen.len()).sum();
        let Some(led) = self.tombstones.led.get_mut(&partition) else { return };
        let room = TOMBSTONES_SEEN_MAX.saturating_sub(held);
        let buried = page.names.iter().filter(|name| name.buried_at.is_some());
        led.seen.extend(buried.take(room).map(|name| name.digest));
        match page.next {
            Some(next) if led.seen.len() < room => {
                self.scan_tombstones(Scanning::Look(partition), partition, Some(next), effects)
            }
            _ => led.since = Some(now.instant),
        }
    }

    /// Chooses the keys of a round: those that were seen when their age began to count, and are still so.
    fn on_chosen(
        &mut self,
        now: Now,
        partition: Partition,
        number: u32,
        page: Result<ScanPage, Unreadable>,
        effects: &mut Effects,
    ) {
        let Tombstones { led, rounds, .. } = &mut self.tombstones;
        let Some(round) = rounds.get_mut(&partition).filter(|round| round.number == number) else { return };
        let (Some(led), Ok(page)) = (led.get(&partition), page) else {
            return self.end_round(now, partition);
        };
        for name in page.names.into_iter().filter(|name| led.seen.contains(&name.digest)) {
            if ROUND_KEYS_MAX == round.keys.len() || ROUND_BYTES_MAX <= round.bytes {
                break;
            }
            round.bytes += name.key.as_bytes().len();
            round.keys.push((name.key, name.digest));
        }
        match page.next {
            Some(next) if round.keys.len() < ROUND_KEYS_MAX && round.bytes < ROUND_BYTES_MAX => {
                self.scan_tombstones(Scanning::Round(partition, number), partition, Some(next), effects);
            }
            _ if round.keys.is_empty() => self.close_round(partition),
            _ => self.agree(now, partition, effects),
        }
    }
}
