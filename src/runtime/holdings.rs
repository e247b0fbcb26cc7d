//! How much each core holds, owes and knows of others, for the control thread to show. Plain atomics, written by their
//! core alone, and a tick old at most.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::protocol::Stats;
use crate::protocol::antientropy::Sum;
use crate::protocol::types::{CoreId, Instant};

/// The rate of a transfer is that of a time at least as long as this.
const RATE_TIME_MIN: Duration = Duration::from_secs(1);

/// Stands for a time that there is not.
const NEVER: u64 = u64::MAX;

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Holding {
    /// Keys, buried ones too.
    pub keys: u64,
    /// Keys that hold nothing but tombstones.
    pub buried: u64,
    /// Bytes of keys and their sets.
    pub bytes: u64,
    /// Bytes of the tree's files.
    pub disk_bytes: u64,
    /// Hints that wait for their targets.
    pub hints: u64,
    /// Partitions of which there are keys that other nodes own.
    pub leftovers: u64,
    /// Partitions that differ from a co-owner's, as far as is known.
    pub differing: u64,
    /// Pairs of a partition and an owner that the change under way fetches it from: all, and those not done yet.
    pub transfers: u64,
    /// See [`Holding::transfers`].
    pub transfers_left: u64,
    /// Bytes that changes of owners have brought since the start, and how many of them a second just now.
    pub transfers_bytes: u64,
    /// See [`Holding::transfers_bytes`].
    pub transfers_rate: u64,
    /// Since when the oldest known difference lasts; none is known at `None`.
    pub differing_age: Option<Duration>,
    /// How long ago all shared partitions were last seen to be equal with all owners; `None` for not yet.
    pub agreed_age: Option<Duration>,
}

/// A holding in numbers.
const NUMBERS: usize = 13;

impl Holding {
    /// What one core shows: what its trees sum up to, and what its shard counts.
    pub fn of(now: Instant, held: Sum, stats: &Stats) -> Holding {
        let age = |since: Instant| now.since(since);
        Holding {
            keys: held.keys,
            buried: held.buried,
            bytes: held.bytes,
            disk_bytes: 0,
            hints: stats.hints_waiting,
            leftovers: stats.leftover_partitions,
            differing: stats.partitions_differing,
            transfers: stats.transfers,
            transfers_left: stats.transfers_left,
            transfers_bytes: stats.transfers_bytes,
            transfers_rate: 0,
            differing_age: stats.differing_since.map(age),
            agreed_age: stats.agreed_at.map(age),
        }
    }

    /// Whether there is nothing that others may lack: no key and no hint. What is known of others, and what has come
    /// and gone, is nothing that is held.
    pub fn is_empty(&self) -> bool {
        self.keys == 0 && self.hints == 0
    }

    /// Both together: the older difference, and the agreement that is longer ago.
    pub fn plus(self, other: Holding) -> Holding {
        Holding {
            keys: self.keys + other.keys,
            buried: self.buried + other.buried,
            bytes: self.bytes + other.bytes,
            disk_bytes: self.disk_bytes + other.disk_bytes,
            hints: self.hints + other.hints,
            leftovers: self.leftovers + other.leftovers,
            differing: self.differing + other.differing,
            transfers: self.transfers + other.transfers,
            transfers_left: self.transfers_left + other.transfers_left,
            transfers_bytes: self.transfers_bytes + other.transfers_bytes,
            transfers_rate: self.transfers_rate + other.transfers_rate,
            differing_age: self.differing_age.max(other.differing_age),
            agreed_age: self.agreed_age.zip(other.agreed_age).map(|(one, two)| one.max(two)),
        }
    }

    fn numbers(&self) -> [u64; NUMBERS] {
        let millis = |age: Option<Duration>| age.map_or(NEVER, |age| u64::try_from(age.as_millis()).unwrap_or(NEVER));
        [
            self.keys,
            self.buried,
            self.bytes,
            self.disk_bytes,
            self.hints,
            self.leftovers,
            self.differing,
            self.transfers,
            self.transfers_left,
            self.transfers_bytes,
            self.transfers_rate,
            millis(self.differing_age),
            millis(self.agreed_age),
        ]
    }

    fn from_numbers(numbers: [u64; NUMBERS]) -> Holding {
        let age = |millis| (millis != NEVER).then_some(Duration::from_millis(millis));
        let [
            keys,
            buried,
            bytes,
            disk_bytes,
            hints,
            leftovers,
            differing,
            transfers,
            transfers_left,
            transfers_bytes,
            transfers_rate,
            differing_age,
            agreed_age,
        ] = numbers;
        Holding {
            keys,
            buried,
            bytes,
            disk_bytes,
            hints,
            leftovers,
            differing,
            transfers,
            transfers_left,
            transfers_bytes,
            transfers_rate,
            differing_age: age(differing_age),
            agreed_age: age(agreed_age),
        }
    }
}

/// What all cores of a node show.
#[derive(Debug)]
pub struct Holdings(Box<[Shown]>);

#[derive(Debug, Default)]
struct Shown {
    numbers: [AtomicU64; NUMBERS],
    rate: Rate,
    /// Whether its core has said anything yet.
    is_shown: AtomicBool,
}

/// How fast bytes come, measured by their core alone.
#[derive(Debug, Default)]
struct Rate {
    since_micros: AtomicU64,
    bytes: AtomicU64,
    a_second: AtomicU64,
}

impl Rate {
    fn measure(&self, now: Instant, bytes: u64) -> u64 {
        let took = now.since(Instant(self.since_micros.load(Ordering::Relaxed)));
        if took < RATE_TIME_MIN {
            return self.a_second.load(Ordering::Relaxed);
        }
        let came = u128::from(bytes.saturating_sub(self.bytes.load(Ordering::Relaxed)));
        let rate = u64::try_from(came * 1_000_000 / took.as_micros()).unwrap_or(u64::MAX);
        self.since_micros.store(now.0, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.a_second.store(rate, Ordering::Relaxed);
        rate
    }
}

impl Holdings {
    /// Nothing yet.
    pub fn new(cores: u16) -> Holdings {
        let holdings = Holdings((0..cores).map(|_| Shown::default()).collect());
        (0..cores).for_each(|core| holdings.put(CoreId(core), &Holding::default()));
        holdings
    }

    /// The core holds this much now. The rate of its transfers is measured here.
    pub fn show(&self, now: Instant, core: CoreId, holding: Holding) {
        let transfers_rate = self.0[core.index()].rate.measure(now, holding.transfers_bytes);
        self.put(core, &Holding { transfers_rate, ..holding });
        self.0[core.index()].is_shown.store(true, Ordering::Release);
    }

    /// Whether every core has shown what it holds.
    pub fn are_shown(&self) -> bool {
        self.0.iter().all(|shown| shown.is_shown.load(Ordering::Acquire))
    }

    /// Whether all cores hold nothing; None before every one has shown what it holds.
    pub fn are_empty(&self) -> Option<bool> {
        self.are_shown().then(|| self.sum().is_empty())
    }

    fn put(&self, core: CoreId, holding: &Holding) {
        for (shown, number) in self.0[core.index()].numbers.iter().zip(holding.numbers()) {
            shown.store(number, Ordering::Relaxed);
        }
    }

    /// Of all cores.
    pub fn sum(&self) -> Holding {
        let read = |shown: &Shown| Holding::from_numbers(shown.numbers.each_ref().map(|it| it.load(Ordering::Relaxed)));
        self.0.iter().map(read).reduce(Holding::plus).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn age(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn what_a_core_shows_anew_replaces_what_it_showed() {
        let holdings = Holdings::new(2);
        assert_eq!((holdings.sum(), holdings.are_shown()), (Holding::default(), false));
        let show = |core, holding| holdings.show(Instant(1), CoreId(core), holding);
        show(0, Holding { keys: 1, bytes: 100, hints: 7, ..Holding::default() });
        show(1, Holding { keys: 2, bytes: 200, buried: 1, ..Holding::default() });
        show(0, Holding { keys: 3, bytes: 300, ..Holding::default() });
        assert_eq!(holdings.sum(), Holding { keys: 5, bytes: 500, buried: 1, ..Holding::default() });
    }

    #[test]
    fn a_core_that_has_said_nothing_yet_is_neither_empty_nor_full() {
        let holdings = Holdings::new(2);
        holdings.show(Instant(1), CoreId(0), Holding::default());
        assert_eq!(holdings.are_empty(), None);
        holdings.show(Instant(1), CoreId(1), Holding::default());
        assert_eq!(holdings.are_empty(), Some(true));
        holdings.show(Instant(1), CoreId(1), Holding { keys: 1, ..Holding::default() });
        assert_eq!(holdings.are_empty(), Some(false));
    }

    #[test]
    fn a_node_that_knows_of_others_and_has_handed_all_over_is_empty() {
        let known = Holding { transfers_bytes: 7, transfers: 2, agreed_age: age(3), ..Holding::default() };
        assert!(
            known.is_empty() && !Holding { keys: 1, ..known }.is_empty() && !Holding { hints: 1, ..known }.is_empty()
        );
    }

    #[test]
    fn a_node_agrees_since_its_slowest_core_does_and_differs_since_its_oldest_difference() {
        let holdings = Holdings::new(2);
        let show = |core, holding| holdings.show(Instant(1), CoreId(core), holding);
        show(0, Holding { agreed_age: age(3), differing_age: None, ..Holding::default() });
        assert_eq!(holdings.sum().agreed_age, None, "one core has not agreed yet");
        show(1, Holding { agreed_age: age(5), differing_age: age(9), ..Holding::default() });
        assert_eq!((holdings.sum().agreed_age, holdings.sum().differing_age), (age(5), age(9)));
    }

    #[test]
    fn the_rate_of_transfers_is_that_of_the_last_second() {
        let holdings = Holdings::new(1);
        let show = |micros, transfers_bytes| {
            holdings.show(Instant(micros), CoreId(0), Holding { transfers_bytes, ..Holding::default() });
            holdings.sum().transfers_rate
        };
        assert_eq!(show(10 * SECOND, 0), 0);
        assert_eq!(show(10 * SECOND + SECOND / 2, 500), 0, "too short to tell");
        assert_eq!(show(12 * SECOND, 2_000), 1_000);
        assert_eq!(show(12 * SECOND + 1, 9_000), 1_000);
        assert_eq!(show(14 * SECOND, 2_000), 0, "nothing came");
    }
}
