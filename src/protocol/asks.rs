//! Questions to peers: what each is for, and when it is given up.

use super::antientropy::{Gains, JobId, LookId};
use super::causality::Siblings;
use super::config::{ASK_PATIENCE, EXTEND_AFTER};
use super::hints::Due;
use super::io::{Effect, Effects, Standing};
use super::peer::{Ask, Told, Unheard};
use super::ring::Partition;
use super::shard::{Shard, Waiting, Whom};
use super::types::{AskId, Instant, NodeId, Now};

/// A question that has no answer yet.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) to: NodeId,
    partition: Partition,
    since: Instant,
    about: About,
}

/// What a question is for.
#[derive(Clone, Debug)]
pub(super) enum About {
    /// A read, or a write that reads first; begun so often before.
    Read(Whom, u32),
    /// A copy of a write, in place of this owner.
    Copy(Whom, NodeId),
    /// A request that was handed on.
    Forward(Whom),
    /// What a hint owes.
    Hint(Due),
    /// A replica that was found behind: nobody waits.
    Repair,
    /// Whether a core of another node holds the same.
    Same(LookId),
    /// What a core of a source holds already of what a change gives this one.
    Gains(Box<Gains>),
    /// A page, or a part of a tree, of a partition that is synced.
    Synced(JobId),
    /// A set that a peer lacked in it.
    Lacking(JobId),
    /// A step of a round of this number.
    Collect(u32),
}

impl Asking {
    /// Whether it asks what is asked every so often, with nothing to do.
    #[cfg(feature = "sim")]
    pub(super) fn compares(&self) -> bool {
        matches!(self.about, About::Same(_))
    }

    /// Who waits for it, if it hands a request on: it is of no use once that has ended.
    pub(super) fn forwards(&self) -> Option<Whom> {
        match self.about {
            About::Forward(whom) => Some(whom),
            _ => None,
        }
    }

    /// Whether sets of this partition come or go with it.
    pub(super) fn carries(&self, partition: Partition) -> bool {
        self.partition == partition
            && !matches!(self.about, About::Forward(_) | About::Collect(_) | About::Same(_) | About::Gains(_))
    }
}

impl Shard {
    /// Asks a peer. It is given up after [`ASK_PATIENCE`], but for a forwarded request, which ends with that.
    pub(super) fn ask(
        &mut self,
        now: Now,
        to: NodeId,
        partition: Partition,
        ask: Ask,
        about: About,
        effects: &mut Effects,
    ) {
        self.asks_begun += 1;
        let id = AskId(self.asks_begun);
        let deadline = match &ask {
            Ask::Forward(request) => now.instant + request.patience(),
            _ => {
                let deadline = now.instant + ASK_PATIENCE;
                self.patience.push_back((deadline, id));
                deadline
            }
        };
        self.asks.insert(id, Asking { to, partition, since: now.instant, about });
        let (layout, reads) = (self.view.stamp(), self.view.reads_newest());
        effects.push(Effect::Ask {
            to,
            partition,
            id,
            stand: Standing { layout, reads, round: self.tombstones.round(partition) },
            ask,
            deadline,
        });
    }

    /// A peer has answered, or will not.
    pub(super) fn on_told(&mut self, now: Now, id: AskId, told: Result<Told, Unheard>, effects: &mut Effects) {
        let Some(asking) = self.asks.remove(&id) else {
            return;
        };
        match &told {
            Ok(told) => {
                let is_read = matches!(told, Told::Set(_) | Told::Same);
                self.peers.on_answer(asking.to, is_read.then(|| now.instant.since(asking.since)));
            }
            Err(Unheard::NotSent | Unheard::Lost) => self.peers.on_lost(asking.to),
            Err(Unheard::NotTaken) => {}
        }
        if let Ok(Told::Refused(super::peer::Refused::Layout(stamp))) = &told {
            effects.push(Effect::Compare(*stamp));
        }
        if let Ok(Told::Refused(super::peer::Refused::Round(round))) = &told
            && !matches!(asking.about, About::Collect(_))
        {
            self.tombstones.raise(asking.partition, *round);
        }
        self.on_heard(now, asking, told, effects);
    }

    /// Questions that were not answered in time: whoever was asked is silent.
    pub(super) fn give_up_asks(&mut self, now: Now, effects: &mut Effects) {
        while let Some((_, id)) = self.patience.pop_front_if(|(until, _)| *until <= now.instant) {
            if let Some(asking) = self.asks.remove(&id) {
                self.peers.on_silence(asking.to, now.instant);
                self.on_heard(now, asking, Err(Unheard::Lost), effects);
            }
        }
    }

    fn on_heard(&mut self, now: Now, asking: Asking, told: Result<Told, Unheard>, effects: &mut Effects) {
        let Asking { to, partition, about, .. } = asking;
        match about {
            About::Read(whom, attempt) => self.on_read_told(now, (whom, attempt), to, told, effects),
            About::Copy(whom, owner) => self.on_copy_told(now, whom, owner, to, told, effects),
            About::Forward(whom) => self.on_forward_told(now, whom, told, effects),
            About::Hint(due) => self.on_hint_told(now, due, told, effects),
            About::Repair => {}
            About::Same(look) => self.on_compared(now, look, told),
            About::Gains(gains) => self.on_gains_compared(now, &gains, told),
            About::Synced(job) => self.on_synced(now, job, told, effects),
            About::Lacking(job) => self.on_lacking_told(now, job, told, effects),
            About::Collect(round) => self.on_round_told(now, partition, round, to, told, effects),
        }
    }

    /// This request asks others as well if it waits still a little later.
    pub(super) fn stretch_later(&mut self, now: Now, whom: Whom) {
        self.stretching.push_back((now.instant + EXTEND_AFTER, whom));
    }

    /// Requests that have waited for long: whom they asked may be silent.
    pub(super) fn stretch(&mut self, now: Now, effects: &mut Effects) {
        while let Some((_, whom)) = self.stretching.pop_front_if(|(at, _)| *at <= now.instant) {
            match self.waiting_mut(whom) {
                Some(Waiting::Read(_)) => self.stretch_read(now, whom, effects),
                Some(Waiting::Write(writing)) if !writing.is_answered() => self.stretch_write(now, whom, effects),
                Some(Waiting::Forward(_)) => self.stretch_forward(now, whom, effects),
                _ => {}
            }
        }
    }

    /// A set came from outside: where it knows more of this core's actor than the core does, an old state of this node
    /// has come back, and the actor is done with (DESIGN "Data and causality": no actor claims dots that it forgot).
    pub(super) fn look_for_a_past_of_ours(&mut self, set: &Siblings) {
        if self.counter < set.vector().get(self.actor) {
            self.take_the_spare();
        }
    }

    /// Before a dot is minted in a partition: where sets of it were dropped here, what this core has minted upon them
    /// may be forgotten, and is claimed by no dot of the same actor.
    pub(super) fn let_forgotten_dots_be(&mut self, partition: Partition) {
        if self.dropped.contains(&partition) {
            self.take_the_spare();
            self.dropped.clear();
        }
    }

    fn take_the_spare(&mut self) {
        self.actor = self.spare;
        self.counter = 0;
        self.spare = super::types::ActorId(seahash::hash(&self.spare.0.to_le_bytes()));
    }
}
