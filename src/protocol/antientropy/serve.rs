//! What peers ask of this core's trees, and of the sets behind them.

use super::forest::{Sum, digest, digest_of_roots};
use super::work::{Scanning, Surveying};
use crate::protocol::config::{LOOKS_MAX, PULL_BYTES, SYNC_NAMES_SERVED};
use crate::protocol::io::{Effects, Scan, ScanPage, ScanWant, Survey, Unreadable};
use crate::protocol::peer::{Compare, Page, Pull, Pulled, Refused, Told};
use crate::protocol::ring::Partition;
use crate::protocol::shard::{Asker, Shard, Waiting, Whom};
use crate::protocol::types::Key;

impl Shard {
    pub(in crate::protocol) fn on_compare_asked(&mut self, asker: Asker, compare: Compare, effects: &mut Effects) {
        // Whoever has lost what it held differs from all others, until the next layout makes it whole.
        if self.is_hollow() {
            return self.tell(asker.whom, Told::Refused(Refused::Hollow), effects);
        }
        if self.lets_look(asker, effects) {
            let of = Survey::Sums(compare.partitions);
            self.survey(Surveying::Compare(asker.whom, compare.digest), of, effects);
        }
    }

    pub(in crate::protocol) fn on_tree_asked(
        &mut self,
        asker: Asker,
        partition: Partition,
        branch: Option<u8>,
        effects: &mut Effects,
    ) {
        if self.lets_look(asker, effects) {
            let of = branch.map_or(Survey::Branches(partition), |branch| Survey::Leaves(partition, branch));
            self.survey(Surveying::Tree(asker.whom), of, effects);
        }
    }

    pub(in crate::protocol) fn on_pull_asked(&mut self, asker: Asker, pull: Box<Pull>, effects: &mut Effects) {
        if !self.lets_look(asker, effects) {
            return;
        }
        let want = match pull.takes {
            true => ScanWant::Sets { known: pull.known.clone(), bytes_max: PULL_BYTES },
            false => ScanWant::Names { max: SYNC_NAMES_SERVED },
        };
        let Pull { partition, leaves, .. } = *pull;
        let of = Scan { partition, leaves, after: pull.after.clone(), want };
        self.scan(Scanning::Pull(asker.whom, pull), of, effects);
    }

    /// Lets a peer wait for a look, if it may have one.
    fn lets_look(&mut self, asker: Asker, effects: &mut Effects) -> bool {
        let has_room = self.trees.has_room(LOOKS_MAX);
        if has_room {
            self.wait(asker, Waiting::Look);
        } else {
            self.tell(asker.whom, Told::Refused(Refused::Overloaded), effects);
        }
        has_room
    }

    /// Whether this node is to hold something that it has lost.
    pub(in crate::protocol) fn is_hollow(&self) -> bool {
        let (layout, me) = (&self.view.layout, self.view.me);
        layout.rows().iter().any(|row| row.node == me) && !self.view.is_whole(layout, me)
    }

    pub(super) fn tell_compared(&mut self, whom: Whom, digest: u64, sums: &[Sum], effects: &mut Effects) {
        let roots: Vec<u64> = sums.iter().map(|sum| sum.root).collect();
        let is_same = digest_of_roots(roots.iter().copied()) == digest;
        self.tell_look(whom, if is_same { Told::Same } else { Told::Digests(roots) }, effects);
    }

    pub(super) fn tell_tree(&mut self, whom: Whom, digests: Vec<u64>, effects: &mut Effects) {
        self.tell_look(whom, Told::Digests(digests), effects);
    }

    pub(super) fn tell_page(
        &mut self,
        whom: Whom,
        pull: &Pull,
        found: Result<ScanPage, Unreadable>,
        effects: &mut Effects,
    ) {
        let told = match found {
            Ok(found) => Told::Page(Box::new(self.page(pull, found))),
            Err(_) => Told::Refused(Refused::Unreadable),
        };
        self.tell_look(whom, told, effects);
    }

    fn page(&self, pull: &Pull, found: ScanPage) -> Page {
        let ScanPage { names, sets, met, next } = found;
        let is_within = |key: &Key| pull.through.as_ref().is_none_or(|through| key <= through);
        let met = if pull.takes {
            met
        } else {
            let mut held: Vec<u64> = names.iter().map(|name| name.digest).collect();
            held.sort_unstable();
            pull.known.iter().map(|known| held.binary_search(known).is_ok()).collect()
        };
        let mut told = Vec::with_capacity(sets.len());
        for (key, set) in sets.into_iter().filter(|(key, _)| is_within(key)) {
            if !self.is_retired(&key, digest(&key, &set)) {
                let remember = self.remembered_with(&key, &set);
                told.push(Pulled { key, set, remember });
            }
        }
        let next = next.filter(|next| pull.through.as_ref().is_none_or(|through| next < through));
        Page { sets: told, met, next }
    }

    /// Tells a peer that waits for a look, unless its time is over.
    fn tell_look(&mut self, whom: Whom, told: Told, effects: &mut Effects) {
        if self.take(whom).is_some() {
            self.tell(whom, told, effects);
        }
    }
}
