//! Tombstones are forgotten by partition, in rounds; never by a timer alone (DESIGN section 5).
//!
//! ```text
//!   leader: the partition's first owner        every member                   every owner
//!   Agree ───── which of these keys? ─────▶ has heard of the round     holds which just so, durably?
//!   Drain ───── until all have ───────────▶ what began before is over; from now on it names the round
//!   Fence ────────────────────────────────▶ takes no set any more that does not name it
//!   Retire ──────────────────────────────────────────────────────────▶ shows and repairs them no more
//!   Forget, the leader last ─────────────────────────────────────────▶ drops those that are still so
//! ```
//! Why nothing comes back. What could bring a deleted version back is an *old copy*: a set that holds it and has not
//! seen the tombstone's set, which all N owners hold when they have agreed. States only grow, so from then on:
//!
//! - An owner that was asked to drain after that begins nothing upon an old copy: what it reads here or asks of owners
//!   is at least what was agreed. Once what it began before is over, it holds an old copy nowhere but in frames on
//!   their way.
//! - Who is no owner holds old copies as sets that it keeps for others (a hint's set is one). It has drained once it
//!   holds no key of the partition and has nothing of it under way. It notes whether anything of it comes in later:
//!   where something does before it is fenced, the round ends. So there is one moment, when the last has drained, at
//!   which nobody holds an old copy, and nobody gets one from somebody who does.
//! - What is left are frames that were sent before their sender had drained. They do not name the round, so they are
//!   refused once their receiver is fenced; before that, an owner joins them with what it holds, and anybody else ends
//!   the round. They need not be waited for, nor be counted.
//!
//! Whoever is refused for its round and still has something to send raises its number and asks again: it has drained
//! for that round, since all are asked before any is fenced. If it has started again since, its number is gone, and
//! with it what it held in memory; on its disk there was no old copy when it drained. If it joined since, it held
//! nothing.
//!
//! A round has only members that do not change: none is down, none out of reach, no change of owners is under way; all
//! must say yes to each step, and a member that starts again in between has forgotten the number and says no. What a
//! leader of an earlier life still has on its way does no harm: numbers of rounds ascend, and a member takes part in
//! one that is later than all that it has heard of.
//!
//! All of this is in memory. Whatever breaks a round off costs a tombstone that comes back from an owner which still
//! has it; a later round collects it. A write upon a retired key works as ever, and shows the key again. A new version
//! may be minted where the set is forgotten and meet the tombstone elsewhere: they become siblings, which changes what
//! nobody reads. No actor need end: what it claims to have seen of the key is seen and gone.

mod look;
mod member;
mod round;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use look::Led;
pub(super) use look::{Scanning, Surveying};
use member::Heard;
use round::Round;

use super::antientropy::digest;
use super::causality::Siblings;
use super::config::{ROUNDS_AT_ONCE, TOMBSTONE_PERIOD};
use super::io::Standing;
use super::peer::Ask;
use super::replica::State;
use super::ring::Partition;
use super::shard::Shard;
use super::types::{Instant, Key};

/// What a core knows of rounds: those that it leads, and what it has promised in those of others.
#[derive(Debug)]
pub(super) struct Tombstones {
    /// Tombstones are kept for so long.
    age: Duration,
    /// Partitions in whose rounds this core has taken part since its start.
    heard: BTreeMap<Partition, Heard>,
    /// Keys that are about to be forgotten, as they were when that was agreed.
    retired: BTreeMap<Key, Retired>,
    /// Partitions of others, of which nothing was appended since this core began to drain for them.
    quiet: BTreeSet<Partition>,
    /// Partitions that this core leads, of which it has seen tombstones.
    led: BTreeMap<Partition, Led>,
    /// Those of them that were not dealt with since the last look.
    candidates: BTreeSet<Partition>,
    rounds: BTreeMap<Partition, Round>,
    next_look: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Retired {
    digest: u64,
    until: Instant,
}

impl Tombstones {
    /// Nothing was heard of yet; tombstones are kept for `age`.
    pub(super) fn new(age: Duration) -> Tombstones {
        Tombstones {
            age,
            heard: BTreeMap::new(),
            retired: BTreeMap::new(),
            quiet: BTreeSet::new(),
            led: BTreeMap::new(),
            candidates: BTreeSet::new(),
            rounds: BTreeMap::new(),
            next_look: Instant::default(),
        }
    }

    /// The last round that this core has drained for, which its questions about the partition name.
    pub(super) fn round(&self, partition: Partition) -> u32 {
        self.heard.get(&partition).map_or(0, |heard| heard.round)
    }

    /// A peer is fenced for a round of which this core knows no more, or never knew.
    pub(super) fn raise(&mut self, partition: Partition, round: u32) {
        let heard = self.heard.entry(partition).or_default();
        heard.round = heard.round.max(round);
    }

    /// The keys of the last round of a partition are keys like any others.
    fn let_keys_be(&mut self, partition: Partition) {
        let Some(heard) = self.heard.get_mut(&partition) else { return };
        for (key, _) in heard.take_keys() {
            self.retired.remove(&key);
        }
    }

    /// Keys of which something was promised in a round, and is still kept in mind.
    #[cfg(feature = "sim")]
    pub(super) fn promised(&self) -> usize {
        self.retired.len() + self.heard.values().map(Heard::promised).sum::<usize>()
    }

    /// Rounds and looks under way.
    pub(super) fn rounds_under_way(&self) -> usize {
        self.rounds.len() + self.led.values().filter(|led| led.is_looked_at()).count()
    }

    fn has_room(&self) -> bool {
        self.rounds_under_way() < ROUNDS_AT_ONCE
    }

    /// How often to look.
    fn period(&self) -> Duration {
        TOMBSTONE_PERIOD.min(self.age / 2)
    }
}

impl Shard {
    /// The round for which this core is fenced, where a question that brings a set does not name it.
    pub(super) fn is_from_before(&self, stand: Standing, ask: &Ask) -> Option<u32> {
        let (Ask::Store(_) | Ask::Merge(_)) = ask else { return None };
        if self.tombstones.heard.is_empty() {
            return None;
        }
        let heard = self.tombstones.heard.get(&ask.partition(self.ring)?)?;
        (stand.round < heard.fence).then_some(heard.fence)
    }

    /// Whether a key's set, of this digest, is about to be forgotten: it is neither shown to others nor repaired with.
    pub(super) fn is_retired(&self, key: &Key, digest: u64) -> bool {
        self.tombstones.retired.get(key).is_some_and(|retired| retired.digest == digest)
    }

    /// A key's set as others and reads see it.
    pub(super) fn shown(&self, key: &Key, set: State) -> State {
        let is_any = !self.tombstones.retired.is_empty();
        set.filter(|set: &Arc<Siblings>| !(is_any && self.is_retired(key, digest(key, set))))
    }

    /// Something of the key is appended.
    pub(super) fn note_append(&mut self, key: &Key) {
        if !self.tombstones.quiet.is_empty() {
            self.tombstones.quiet.remove(&self.ring.partition(key));
        }
    }
}
