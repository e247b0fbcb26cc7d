//! Read repair: exact versions for all that a read found behind, including those that have nothing (faults 2 and 4 of
//! the seed systems). It mints nothing, and nobody waits for it.

use std::sync::Arc;

use super::get::Reading;
use crate::protocol::asks::About;
use crate::protocol::causality::{Siblings, Supersedes, Write};
use crate::protocol::config::LATE_READS_MAX;
use crate::protocol::io::Effects;
use crate::protocol::planted::Bug;
use crate::protocol::shard::{Shard, Whom};
use crate::protocol::types::{Dot, Now};

impl Shard {
    /// Repairs once everybody who was asked has answered or will not.
    pub(super) fn repair_later(&mut self, now: Now, whom: Whom, reading: Reading, effects: &mut Effects) {
        if reading.under_way.is_empty() || LATE_READS_MAX <= self.late.len() {
            self.repair(now, &reading, effects);
        } else {
            self.late.insert(whom, reading);
        }
    }

    pub(super) fn repair(&mut self, now: Now, reading: &Reading, effects: &mut Effects) {
        if reading.heard.len() < 2 {
            return;
        }
        let Some(joined) = self.shown(&reading.key, reading.joined()) else {
            return;
        };
        self.look_for_a_past_of_ours(&joined);
        let digest = joined.digest();
        let is_behind = |set: &Option<Arc<Siblings>>| set.as_ref().is_none_or(|set| set.digest() != digest);
        let joined = match self.planted.is(Bug::RepairMints) && reading.heard.iter().any(|(_, set)| is_behind(set)) {
            true => self.minted_over(now, joined),
            false => joined,
        };
        for (node, _) in reading.heard.iter().filter(|(_, set)| is_behind(set)) {
            self.stats.read_repairs += 1;
            let (key, set) = (reading.key.clone(), Arc::clone(&joined));
            if *node == self.view.me {
                self.take_in_set(now, key, set, effects);
            } else {
                let ask = self.whole(&key, &set, None);
                self.ask(now, *node, reading.partition, ask, About::Repair, effects);
            }
        }
    }

    /// A version of its own, with the value that was written last, over all that was read: the planted fault.
    fn minted_over(&mut self, now: Now, joined: Arc<Siblings>) -> Arc<Siblings> {
        let dot = Dot { actor: self.actor, counter: self.counter + 1 };
        let newest = joined.versions().iter().max_by_key(|version| version.written_at);
        let value = newest.and_then(|version| version.value.clone());
        let write = Write { value, supersedes: Supersedes::Held, operation: None, written_at: now.wall };
        let Ok(minted) = joined.mint(dot, write) else { return joined };
        self.counter = dot.counter;
        Arc::new(minted.set)
    }
}
