//! What a member of the cluster does in a round that somebody leads, which may be itself.

use std::sync::Arc;

use super::Retired;
use super::look::Surveying;
use crate::protocol::antientropy::{JobId, Shift, Sum, Surveying as Why, digest};
use crate::protocol::causality::Siblings;
use crate::protocol::config::{RETIRED_FOR, ROUND_IN_FLIGHT};
use crate::protocol::io::{Change, Effects, Held, Standing, Survey, Unreadable};
use crate::protocol::peer::{Collect, CollectStep, Refused, Told};
use crate::protocol::replica::{State, Task};
use crate::protocol::ring::Partition;
use crate::protocol::shard::{Asker, Load, Shard, Waiting, Whom};
use crate::protocol::types::{AppendId, AskId, Instant, Key, LoadId, Now};

/// What a core knows of a partition's rounds.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The last that it has heard of.
    pub(super) last: u32,
    /// The last that it has drained for, or was told of by somebody who is fenced: its questions name it.
    pub(super) round: u32,
    /// The last for which it is fenced.
    pub(super) fence: u32,
    /// What was under way when it was first asked to drain for the last one.
    mark: Option<Mark>,
    /// The keys of the last one, with their digests.
    keys: Vec<(Key, u64)>,
    /// Until when they may be of use: whoever leads the round may have died.
    until: Instant,
    work: Option<Work>,
}

impl Heard {
    /// The latest round that it knows of, by a leader or by a peer that refused what was older: none may go behind it,
    /// whatever the clock of its leader says.
    pub(super) fn newest(&self) -> u32 {
        self.last.max(self.round)
    }
}

/// All that was under way at a time.
#[derive(Clone, Debug)]
struct Mark {
    requests: Vec<Whom>,
    asks: AskId,
    loads: LoadId,
    jobs: JobId,
    appended: AppendId,
}

/// Keys that are looked at one after the other, to answer a step.
#[derive(Debug)]
struct Work {
    /// Whom to answer; the leader, if that is this core itself.
    asker: Option<Asker>,
    kind: Kind,
    next: usize,
    under_way: usize,
    /// After this append all is durable.
    append: AppendId,
    /// By key: to be agreed to, whether it is so; to be forgotten, whether it is one.
    of: Vec<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Agree,
    Forget,
}

impl Heard {
    pub(super) fn forget_keys_after(&mut self, now: Instant) {
        if self.until < now && self.work.is_none() {
            self.keys.clear();
        }
    }

    pub(super) fn take_keys(&mut self) -> Vec<(Key, u64)> {
        std::mem::take(&mut self.keys)
    }

    #[cfg(feature = "sim")]
    pub(super) fn promised(&self) -> usize {
        self.keys.len()
    }
}

impl Shard {
    /// A peer leads a round. It counts only among those who go by the same layout, and by no change of it.
    pub(in crate::protocol) fn on_collect_asked(
        &mut self,
        now: Now,
        asker: Asker,
        stand: Standing,
        collect: Collect,
        effects: &mut Effects,
    ) {
        if stand.layout != self.view.stamp() || self.view.change.is_some() {
            return self.tell(asker.whom, Told::Refused(Refused::Layout(self.view.stamp())), effects);
        }
        self.take_part(now, Some(asker), collect, effects);
    }

    /// Takes part in a step; the leader is `None` where it is this core.
    pub(super) fn take_part(&mut self, now: Now, asker: Option<Asker>, collect: Collect, effects: &mut Effects) {
        let Collect { partition, round, step } = collect;
        let heard = self.tombstones.heard.entry(partition).or_default();
        let newest = heard.newest();
        let is_next = if matches!(step, CollectStep::Agree(_)) { newest < round } else { newest == round };
        let is_listed = match &step {
            CollectStep::Retire(of) | CollectStep::Forget(of) => of.len() == heard.keys.len(),
            _ => true,
        };
        if !is_next || !is_listed || heard.work.is_some() && !matches!(step, CollectStep::Agree(_)) {
            let refused = Told::Refused(Refused::Round(newest));
            return self.collected(now, partition, round, asker, refused, effects);
        }
        match step {
            CollectStep::Agree(keys) => self.begin_round(now, partition, round, asker, keys, effects),
            CollectStep::Drain => self.drain(now, partition, round, asker, effects),
            CollectStep::Fence => {
                let has_drained = heard.round == round;
                if has_drained {
                    heard.fence = round;
                }
                let was_quiet = self.tombstones.quiet.remove(&partition);
                let is_so = has_drained && (was_quiet || self.owns(partition));
                self.collected(now, partition, round, asker, Told::Collected(vec![is_so]), effects);
            }
            CollectStep::Retire(of) => {
                let until = now.instant + RETIRED_FOR;
                let keys = heard.keys.iter().zip(of).filter(|(_, is_one)| *is_one);
                let retired = keys.map(|((key, digest), _)| (key.clone(), Retired { digest: *digest, until }));
                self.tombstones.retired.extend(retired);
                self.collected(now, partition, round, asker, Told::Collected(vec![true]), effects);
            }
            CollectStep::Forget(of) => self.work(now, partition, round, asker, Kind::Forget, of, effects),
        }
    }

    /// Says what came of a step to whoever leads the round.
    fn collected(
        &mut self,
        now: Now,
        partition: Partition,
        round: u32,
        asker: Option<Asker>,
        told: Told,
        effects: &mut Effects,
    ) {
        match asker {
            Some(asker) => self.tell(asker.whom, told, effects),
            None => self.on_round_told(now, partition, round, self.view.me, Ok(told), effects),
        }
    }

    fn begin_round(
        &mut self,
        now: Now,
        partition: Partition,
        round: u32,
        asker: Option<Asker>,
        keys: Vec<(Key, u64)>,
        effects: &mut Effects,
    ) {
        self.leave_round(partition, effects);
        let of = vec![false; keys.len()];
        let heard = self.tombstones.heard.entry(partition).or_default();
        (heard.last, heard.keys, heard.until) = (round, keys, now.instant + RETIRED_FOR);
        if self.stopped {
            let refused = Told::Refused(Refused::WritesStopped);
            return self.collected(now, partition, round, asker, refused, effects);
        }
        self.work(now, partition, round, asker, Kind::Agree, of, effects);
    }

    /// What was promised in the last round of a partition holds no longer, but for its fence.
    fn leave_round(&mut self, partition: Partition, effects: &mut Effects) {
        self.tombstones.quiet.remove(&partition);
        self.tombstones.let_keys_be(partition);
        let Some(heard) = self.tombstones.heard.get_mut(&partition) else { return };
        heard.mark = None;
        if let Some(asker) = heard.work.take().and_then(|work| work.asker)
            && self.take(asker.whom).is_some()
        {
            self.tell(asker.whom, Told::Refused(Refused::TooLate), effects);
        }
    }

    /// No round goes on: the layout is another one.
    pub(in crate::protocol) fn end_rounds(&mut self, now: Now, effects: &mut Effects) {
        let led: Vec<Partition> = self.tombstones.rounds.keys().copied().collect();
        led.into_iter().for_each(|partition| self.end_round(now, partition));
        let heard: Vec<Partition> = self.tombstones.heard.keys().copied().collect();
        heard.into_iter().for_each(|partition| self.leave_round(partition, effects));
    }

    #[expect(clippy::too_many_arguments, reason = "a step of a round, and whom to answer")]
    fn work(
        &mut self,
        now: Now,
        partition: Partition,
        round: u32,
        asker: Option<Asker>,
        kind: Kind,
        of: Vec<bool>,
        effects: &mut Effects,
    ) {
        if let Some(asker) = asker {
            self.wait(asker, Waiting::Collect);
        }
        let heard = self.tombstones.heard.entry(partition).or_default();
        heard.work = Some(Work { asker, kind, next: 0, under_way: 0, append: AppendId::default(), of });
        self.go_on_with(now, partition, round, effects);
    }

    /// The work of a round, where it is still the last one.
    fn working(&mut self, partition: Partition, round: u32) -> Option<(&mut Work, &[(Key, u64)])> {
        let heard = self.tombstones.heard.get_mut(&partition).filter(|heard| heard.last == round)?;
        Some((heard.work.as_mut()?, &heard.keys))
    }

    /// Looks at the next keys, and answers when all are done.
    fn go_on_with(&mut self, now: Now, partition: Partition, round: u32, effects: &mut Effects) {
        while let Some((work, keys)) = self.working(partition, round) {
            if work.next == keys.len() || ROUND_IN_FLIGHT <= work.under_way {
                break;
            }
            let at = work.next;
            let (key, digest) = keys[at].clone();
            work.next += 1;
            if work.kind == Kind::Agree {
                work.under_way += 1;
                self.load(Load::Agree(partition, round, at), key, effects);
                continue;
            }
            if !work.of[at] {
                continue;
            }
            match self.newest(&key, Held::Unknown) {
                Held::Known(newest) => {
                    self.forget(&key, round, digest, newest, effects);
                }
                Held::Unknown => {
                    work_mut(self.working(partition, round)).under_way += 1;
                    self.queue(&key, Task::Forget(round, digest), effects);
                }
            }
        }
        self.end_work(now, partition, round, effects);
    }

    fn end_work(&mut self, now: Now, partition: Partition, round: u32, effects: &mut Effects) {
        let heard = self.tombstones.heard.entry(partition).or_default();
        if heard.last != round {
            return;
        }
        let is_done = |work: &mut Work| work.next == heard.keys.len() && work.under_way == 0;
        let Some(work) = heard.work.take_if(is_done) else { return };
        let told = match work.kind {
            Kind::Agree => Told::Collected(work.of),
            Kind::Forget if self.stopped => Told::Refused(Refused::WritesStopped),
            Kind::Forget => Told::Collected(vec![true]),
        };
        if work.kind == Kind::Forget {
            self.tombstones.let_keys_be(partition);
        }
        match work.asker {
            Some(asker) if self.take(asker.whom).is_some() => self.tell_durable(asker, told, work.append, effects),
            // Its time was over.
            Some(_) => {}
            None => self.collected(now, partition, round, None, told, effects),
        }
    }

    /// What is durable of a key that is to be agreed to has come in.
    pub(in crate::protocol) fn on_agreeing(
        &mut self,
        now: Now,
        partition: Partition,
        round: u32,
        at: usize,
        found: Result<Option<Arc<Siblings>>, Unreadable>,
        effects: &mut Effects,
    ) {
        let Some((_, keys)) = self.working(partition, round) else { return };
        let (key, agreed) = keys[at].clone();
        let is_at_rest = self.owns(partition) && !self.busy.contains(&key) && !self.hints.is_owed(&key);
        let is_so = matches!(&found, Ok(Some(set)) if digest(&key, set) == agreed);
        let work = work_mut(self.working(partition, round));
        work.of[at] = is_at_rest && is_so;
        work.under_way -= 1;
        self.go_on_with(now, partition, round, effects);
    }

    /// Drops a key's set, if it is still the one that was agreed to, and gives its newest state.
    pub(in crate::protocol) fn forget(
        &mut self,
        key: &Key,
        round: u32,
        agreed: u64,
        newest: State,
        effects: &mut Effects,
    ) -> State {
        let partition = self.ring.partition(key);
        let is_at_rest = !self.stopped && !self.hints.is_owed(key) && self.working(partition, round).is_some();
        let Some(set) = newest.as_deref().filter(|set| is_at_rest && digest(key, set) == agreed) else {
            return newest;
        };
        let change = Change::Drop { shift: Shift::between(key, Some(set), None) };
        let append = self.append_state(key.clone(), None, change, effects);
        self.stats.tombstones_forgotten += 1;
        self.tombstones.retired.remove(key);
        work_mut(self.working(partition, round)).append = append;
        None
    }

    /// A key that was to be forgotten was looked at.
    pub(in crate::protocol) fn on_forgotten(
        &mut self,
        now: Now,
        partition: Partition,
        round: u32,
        effects: &mut Effects,
    ) {
        let Some((work, _)) = self.working(partition, round) else { return };
        work.under_way -= 1;
        self.go_on_with(now, partition, round, effects);
    }

    /// Says whether all is over that was under way when it was first asked.
    fn drain(&mut self, now: Now, partition: Partition, round: u32, asker: Option<Asker>, effects: &mut Effects) {
        let is_owner = self.owns(partition);
        let heard = self.tombstones.heard.entry(partition).or_default();
        // Something came in meanwhile: it begins anew.
        let is_anew = !is_owner && !self.tombstones.quiet.contains(&partition);
        let kept = heard.mark.take().filter(|_| !is_anew);
        let mark = kept.unwrap_or_else(|| self.marked_now(partition));
        let is_over = self.is_over(partition, &mark);
        self.tombstones.heard.entry(partition).or_default().mark = Some(mark);
        if !is_owner {
            self.tombstones.quiet.insert(partition);
            if is_over && self.requests_of(partition).is_empty() && !self.has_asks(partition, AskId(u64::MAX)) {
                let partitions = Arc::new([partition]);
                return self.survey(
                    Why::Tombstones(Surveying::Drain(partition, round, asker)),
                    Survey::Sums(partitions),
                    effects,
                );
            }
        }
        self.drained(now, partition, round, asker, is_owner && is_over, effects);
    }

    /// What a member that is no owner holds of the partition was looked at.
    pub(super) fn on_drain_surveyed(
        &mut self,
        now: Now,
        (partition, round, asker): (Partition, u32, Option<Asker>),
        sum: Sum,
        effects: &mut Effects,
    ) {
        let is_empty = sum.keys == 0 && self.tombstones.quiet.contains(&partition);
        self.drained(now, partition, round, asker, is_empty, effects);
    }

    fn drained(
        &mut self,
        now: Now,
        partition: Partition,
        round: u32,
        asker: Option<Asker>,
        is_done: bool,
        effects: &mut Effects,
    ) {
        if is_done {
            self.tombstones.raise(partition, round);
        }
        self.collected(now, partition, round, asker, Told::Collected(vec![is_done]), effects);
    }

    fn marked_now(&self, partition: Partition) -> Mark {
        Mark {
            requests: self.requests_of(partition),
            asks: AskId(self.asks_begun),
            loads: LoadId(self.loads_begun),
            jobs: self.trees.newest_job(),
            appended: self.appended,
        }
    }

    /// Requests that hold sets of the partition.
    fn requests_of(&self, partition: Partition) -> Vec<Whom> {
        let ring = self.ring;
        let mut requests = self.waiting.keys_of(|(_, waiting)| waiting.partition(ring) == Some(partition));
        requests.extend(self.late.keys_of(|reading| reading.partition() == partition));
        requests
    }

    fn has_asks(&self, partition: Partition, through: AskId) -> bool {
        self.asks.keys_of(|asking| asking.carries(partition)).first().is_some_and(|first| *first <= through)
    }

    fn is_over(&self, partition: Partition, mark: &Mark) -> bool {
        let is_under_way = |whom: &Whom| self.waiting.contains(whom) || self.late.contains(whom);
        let has_loads = self.loads.keys_of(|_| true).first().is_some_and(|first| *first <= mark.loads);
        let has_requests = mark.requests.iter().any(is_under_way);
        let has_jobs = self.trees.has_job(partition, mark.jobs);
        !has_loads
            && !has_jobs
            && !has_requests
            && !self.has_asks(partition, mark.asks)
            && mark.appended <= self.durable
    }
}

fn work_mut<'a>(working: Option<(&'a mut Work, &[(Key, u64)])>) -> &'a mut Work {
    working.expect("its caller has just looked at it").0
}
