//! One window of keys, exchanged with one peer: pages of what is lacking here come, what is lacking there goes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::forest::digest;
use super::sync::Why;
use super::work::JobId;
use crate::protocol::asks::About;
use crate::protocol::config::SYNC_SETS_AT_ONCE;
use crate::protocol::io::{Effects, Held, Name, Unreadable};
use crate::protocol::peer::{Ask, Page, Pull, Pulled, Told, Unheard};
use crate::protocol::replica::{State, Task};
use crate::protocol::shard::{Load, Shard};
use crate::protocol::types::{Key, Now};

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// What stands up to here was exchanged.
    after: Option<Key>,
    /// The page that was asked for is of so many names.
    asked: usize,
    /// The next page may be asked for only later.
    is_paced: bool,
    /// The last page has come.
    is_last: bool,
    /// Sets that came and are not taken in yet, and how many are being taken in, or dropped.
    came: VecDeque<Pulled>,
    pub(super) taking: usize,
    /// Keys of which the peer lacks something, and how many are being sent.
    lacking: VecDeque<Key>,
    giving: usize,
}

impl Exchange {
    pub(super) fn behind(after: Option<Key>) -> Exchange {
        Exchange { after, ..Exchange::default() }
    }

    pub(super) fn has_room(&self) -> bool {
        self.taking + self.giving < SYNC_SETS_AT_ONCE
    }

    /// Whether nothing is being taken in, sent or dropped.
    pub(super) fn is_idle(&self) -> bool {
        self.taking + self.giving == 0
    }
}

impl Shard {
    /// Asks for the next page, if it may be fetched now.
    pub(super) fn pull(&mut self, now: Now, id: JobId, effects: &mut Effects) {
        let may_fetch = self.trees.may_fetch(now.instant);
        let Some(job) = self.trees.jobs.get_mut(&id) else { return };
        let (peer, why, partition, leaves) = (job.peer(), job.why(), job.partition(), job.leaves());
        let (window, exchange) = (&job.window, &mut job.exchange);
        exchange.is_paced = why == Why::Fetch && !may_fetch;
        if exchange.is_paced {
            return;
        }
        let (after, through) = (exchange.after.clone(), window.through.clone());
        let known: Arc<[u64]> = behind(&window.names, after.as_ref()).iter().map(|name| name.digest).collect();
        exchange.asked = known.len();
        let pull = Pull { partition, leaves, after, through, known, takes: why != Why::Leftover };
        self.ask(now, peer, partition, Ask::Pull(Box::new(pull)), About::Synced(id), effects);
    }

    /// Time has gone by: pages that had to wait may come.
    pub(super) fn go_on_fetching(&mut self, now: Now, effects: &mut Effects) {
        let paced = self.trees.jobs.iter().filter(|(_, job)| job.is_exchanging() && job.exchange.is_paced);
        let paced: Vec<JobId> = paced.map(|(id, _)| *id).collect();
        paced.into_iter().for_each(|id| self.pull(now, id, effects));
    }

    pub(super) fn on_page(&mut self, now: Now, id: JobId, page: Page, effects: &mut Effects) {
        let ring = self.ring;
        let Some(job) = self.trees.jobs.get_mut(&id) else { return };
        let (why, partition) = (job.why(), job.partition());
        let (window, exchange) = (&job.window, &mut job.exchange);
        let Page { sets, met, next } = page;
        let goes_on = next.as_ref().is_none_or(|next| exchange.after.as_ref().is_none_or(|after| after < next));
        let is_of_it = |pulled: &Pulled| ring.partition(&pulled.key) == partition;
        if met.len() != exchange.asked || !goes_on || !sets.iter().all(is_of_it) {
            return self.fail_job(now, id, effects);
        }
        let is_within = |key: &Key| next.as_ref().is_none_or(|next| key <= next);
        let comes = |key: &Key| sets.binary_search_by(|pulled| pulled.key.cmp(key)).is_ok();
        let unmet = behind(&window.names, exchange.after.as_ref()).iter().zip(&met).filter(|(_, met)| !**met);
        let unmet = unmet.map(|(name, _)| &name.key).filter(|key| is_within(key));
        if why != Why::Fetch {
            // Of what comes it shows only with the join whether the peer lacks something.
            exchange.lacking.extend(unmet.filter(|key| !comes(key)).cloned());
        }
        let bytes: usize = sets.iter().map(|pulled| pulled.key.as_bytes().len() + pulled.set.bytes()).sum();
        exchange.came.extend(sets);
        exchange.is_last = next.is_none();
        exchange.after = next;
        self.count_pulled(now, id, why, bytes);
        self.exchange_more(now, id, effects);
    }

    fn count_pulled(&mut self, now: Now, id: JobId, why: Why, bytes: usize) {
        let sets = self.trees.jobs.get(&id).map_or(0, |job| job.exchange.came.len() as u64);
        if why == Why::Fetch {
            self.stats.transfers_sets += sets;
            self.stats.transfers_bytes += bytes as u64;
            self.trees.pay(now.instant, bytes);
        } else {
            self.stats.repairs_pulled += sets;
        }
    }

    /// Takes in and sends what there is room for; when all is done, asks for the next page or ends the window.
    fn exchange_more(&mut self, now: Now, id: JobId, effects: &mut Effects) {
        loop {
            let Some(job) = self.trees.jobs.get_mut(&id) else { return };
            let exchange = &mut job.exchange;
            if !exchange.has_room() {
                return;
            }
            if let Some(pulled) = exchange.came.pop_front() {
                exchange.taking += 1;
                self.begin_taking(now, id, pulled, effects);
            } else if let Some(key) = exchange.lacking.pop_front() {
                exchange.giving += 1;
                self.load(Load::Lacking(id, key.clone()), key, effects);
            } else {
                return match (exchange.is_idle(), exchange.is_last) {
                    (false, _) => {}
                    (true, false) => self.pull(now, id, effects),
                    (true, true) => self.on_exchanged(now, id, effects),
                };
            }
        }
    }

    fn begin_taking(&mut self, now: Now, id: JobId, pulled: Pulled, effects: &mut Effects) {
        match self.newest(&pulled.key, Held::Unknown) {
            Held::Known(newest) => {
                self.take_in(now, id, pulled, newest, effects);
            }
            Held::Unknown => {
                let key = pulled.key.clone();
                self.queue(&key, Task::Pulled(id, Box::new(pulled)), effects);
            }
        }
    }

    /// The newest state of a key that was pulled has come in.
    pub(in crate::protocol) fn take_in_pulled(
        &mut self,
        now: Now,
        id: JobId,
        pulled: Pulled,
        newest: State,
        effects: &mut Effects,
    ) -> State {
        let newest = self.take_in(now, id, pulled, newest, effects);
        self.exchange_more(now, id, effects);
        newest
    }

    fn take_in(&mut self, now: Now, id: JobId, pulled: Pulled, newest: State, effects: &mut Effects) -> State {
        let Pulled { key, set, remember } = pulled;
        let (newest, append) = self.merge_in(now, &key, &set, remember, newest, effects);
        if let Some(job) = self.trees.jobs.get_mut(&id) {
            job.append = job.append.max(append);
            let is_more = newest.as_ref().is_some_and(|newest| newest.digest() != set.digest());
            let gives = job.why() == Why::Repair && is_more;
            job.exchange.taking -= 1;
            job.exchange.lacking.extend(gives.then_some(key));
        }
        newest
    }

    /// What the peer lacks has been read.
    pub(in crate::protocol) fn on_lacking(
        &mut self,
        now: Now,
        id: JobId,
        key: Key,
        found: Result<State, Unreadable>,
        effects: &mut Effects,
    ) {
        let Some(job) = self.trees.jobs.get_mut(&id) else { return };
        let (peer, partition) = (job.peer(), job.partition());
        let Ok(found) = found else {
            return self.fail_job(now, id, effects);
        };
        let named = job.window.names.binary_search_by(|name| name.key.cmp(&key)).map(|at| job.window.names[at].digest);
        let set = found.filter(|set| job.why() != Why::Leftover || named == Ok(digest(&key, set)));
        match set.filter(|set| !self.is_retired(&key, digest(&key, set))) {
            Some(set) => {
                let ask = self.whole(&key, &set, None);
                self.ask(now, peer, partition, ask, About::Lacking(id), effects);
            }
            None => self.on_given(now, id, Some(key), effects),
        }
    }

    pub(in crate::protocol) fn on_lacking_told(
        &mut self,
        now: Now,
        id: JobId,
        told: Result<Told, Unheard>,
        effects: &mut Effects,
    ) {
        if told == Ok(Told::Stored) {
            self.stats.repairs_pushed += 1;
            self.on_given(now, id, None, effects);
        } else {
            self.fail_job(now, id, effects);
        }
    }

    /// A set was sent, or is not what it was any more.
    fn on_given(&mut self, now: Now, id: JobId, unproven: Option<Key>, effects: &mut Effects) {
        if let Some(job) = self.trees.jobs.get_mut(&id) {
            job.exchange.giving -= 1;
            job.unproven.extend(unproven);
            self.exchange_more(now, id, effects);
        }
    }
}

/// The names behind a key, of some that ascend.
fn behind<'a>(names: &'a [Name], after: Option<&Key>) -> &'a [Name] {
    let first = after.map_or(0, |after| names.partition_point(|name| name.key <= *after));
    &names[first..]
}
