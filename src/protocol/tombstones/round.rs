//! Leading a round: one step after the other, each once all have said yes to the one before.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::protocol::asks::About;
use crate::protocol::config::{ROUND_AGAIN, ROUND_PATIENCE, ROUND_PAUSE_MAX};
use crate::protocol::io::Effects;
use crate::protocol::peer::{Ask, Collect, CollectStep, Refused, Told, Unheard};
use crate::protocol::planted::Bug;
use crate::protocol::ring::Partition;
use crate::protocol::shard::Shard;
use crate::protocol::types::{Instant, Key, NodeId, Now};

/// A round that this core leads.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) number: u32,
    stage: Stage,
    /// The keys, with their digests, and bytes of them.
    pub(super) keys: Vec<(Key, u64)>,
    pub(super) bytes: usize,
    /// Which of them all owners hold just so.
    agreed: Vec<bool>,
    /// Who has not said yes to this step yet.
    open: BTreeSet<NodeId>,
    /// Those of them that are to be asked again, and when.
    again: Vec<NodeId>,
    again_at: Instant,
    /// It has ended by then.
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Choose,
    Agree,
    Drain,
    Fence,
    Retire,
    Forget,
    /// All others have forgotten.
    ForgetHere,
}

impl Round {
    pub(super) fn new(now: Now, number: u32) -> Round {
        Round {
            number,
            stage: Stage::Choose,
            keys: Vec::new(),
            bytes: 0,
            agreed: Vec::new(),
            open: BTreeSet::new(),
            again: Vec::new(),
            again_at: now.instant,
            until: now.instant + ROUND_PATIENCE,
        }
    }
}

impl Shard {
    /// Members that were not done are asked again; rounds that last too long end.
    pub(super) fn go_on_with_rounds(&mut self, now: Now, effects: &mut Effects) {
        let led: Vec<Partition> = self.tombstones.rounds.keys().copied().collect();
        for partition in led {
            let Some(round) = self.tombstones.rounds.get_mut(&partition) else { continue };
            if round.until <= now.instant {
                self.end_round(now, partition);
            } else if !round.again.is_empty() && round.again_at <= now.instant {
                let again = std::mem::take(&mut round.again);
                self.ask_for_step(now, partition, again, effects);
            }
        }
    }

    /// Keys are chosen: all members hear of the round, the owners of the keys.
    pub(super) fn agree(&mut self, now: Now, partition: Partition, effects: &mut Effects) {
        self.stats.rounds += 1;
        if let Some(round) = self.tombstones.rounds.get_mut(&partition) {
            round.agreed = vec![true; round.keys.len()];
        }
        self.go_on_to(now, partition, Stage::Agree, effects);
    }

    fn go_on_to(&mut self, now: Now, partition: Partition, stage: Stage, effects: &mut Effects) {
        let view = Arc::clone(&self.view);
        let members = view.members.iter().filter(|member| !member.is_removed).map(|member| member.node);
        let owners = view.layout.owners(partition);
        let asked: Vec<NodeId> = match stage {
            Stage::Choose => unreachable!("a round begins with the choice of its keys"),
            Stage::Agree | Stage::Drain | Stage::Fence if !self.planted.is(Bug::OwnersOnly) => members.collect(),
            Stage::Agree | Stage::Drain | Stage::Fence | Stage::Retire => owners.collect(),
            Stage::Forget => owners.filter(|owner| *owner != view.me).collect(),
            Stage::ForgetHere => vec![view.me],
        };
        let Some(round) = self.tombstones.rounds.get_mut(&partition) else { return };
        round.stage = stage;
        round.open = asked.iter().copied().collect();
        if asked.is_empty() {
            return self.go_on_to(now, partition, Stage::ForgetHere, effects);
        }
        self.ask_for_step(now, partition, asked, effects);
    }

    /// Asks these nodes for the step; itself last, since its answer may lead to the next one.
    fn ask_for_step(&mut self, now: Now, partition: Partition, nodes: Vec<NodeId>, effects: &mut Effects) {
        let me = self.view.me;
        for node in nodes.iter().copied().filter(|node| *node != me) {
            let Some(collect) = self.step_for(partition, node) else { return };
            let (round, ask) = (collect.round, Ask::Collect(Box::new(collect)));
            self.ask(now, node, partition, ask, About::Collect(round), effects);
        }
        if nodes.contains(&me)
            && let Some(collect) = self.step_for(partition, me)
        {
            self.take_part(now, None, collect, effects);
        }
    }

    fn step_for(&self, partition: Partition, node: NodeId) -> Option<Collect> {
        let round = self.tombstones.rounds.get(&partition)?;
        let step = match round.stage {
            Stage::Choose => return None,
            Stage::Agree if self.view.layout.is_owner(node, partition) => CollectStep::Agree(round.keys.clone()),
            Stage::Agree => CollectStep::Agree(Vec::new()),
            Stage::Drain => CollectStep::Drain,
            Stage::Fence => CollectStep::Fence,
            Stage::Retire => CollectStep::Retire(round.agreed.clone()),
            Stage::Forget | Stage::ForgetHere => CollectStep::Forget(round.agreed.clone()),
        };
        Some(Collect { partition, round: round.number, step })
    }

    /// A member has answered a step, or will not. Whatever is not a yes ends the round, but for one not done yet.
    pub(in crate::protocol) fn on_round_told(
        &mut self,
        now: Now,
        partition: Partition,
        number: u32,
        from: NodeId,
        told: Result<Told, Unheard>,
        effects: &mut Effects,
    ) {
        let is_owner = self.view.layout.is_owner(from, partition);
        let Some(round) = self.tombstones.rounds.get_mut(&partition) else { return };
        if round.number != number || !round.open.contains(&from) {
            return;
        }
        match told {
            _ if self.planted.is(Bug::TombstoneTimer) => {}
            Ok(Told::Collected(so)) if round.stage == Stage::Agree => match so.len() == round.keys.len() {
                true => round.agreed.iter_mut().zip(so).for_each(|(agreed, so)| *agreed &= so),
                false if is_owner => return self.end_round(now, partition),
                false => {}
            },
            Ok(Told::Collected(so)) if so == [true] => {}
            Ok(Told::Collected(so)) if so == [false] && round.stage == Stage::Drain => {
                round.again.push(from);
                round.again_at = now.instant + ROUND_AGAIN;
                return;
            }
            told => {
                if let (Ok(Told::Refused(Refused::Round(known))), Some(led)) =
                    (told, self.tombstones.led.get_mut(&partition))
                {
                    led.told = led.told.max(known);
                }
                return self.end_round(now, partition);
            }
        }
        round.open.remove(&from);
        if round.open.is_empty() {
            self.on_step_done(now, partition, effects);
        }
    }

    fn on_step_done(&mut self, now: Now, partition: Partition, effects: &mut Effects) {
        let Some(round) = self.tombstones.rounds.get(&partition) else { return };
        let next = match round.stage {
            Stage::Agree if !round.agreed.contains(&true) => return self.close_round(partition),
            Stage::Choose | Stage::Agree if self.planted.is(Bug::NoFence) => Stage::Retire,
            Stage::Choose | Stage::Agree => Stage::Drain,
            Stage::Drain => Stage::Fence,
            Stage::Fence => Stage::Retire,
            Stage::Retire => Stage::Forget,
            Stage::Forget => Stage::ForgetHere,
            Stage::ForgetHere => return self.close_round(partition),
        };
        self.go_on_to(now, partition, next, effects);
    }

    /// A round is over. What could not be agreed on ages anew, when all that is of the same age was dealt with.
    pub(super) fn close_round(&mut self, partition: Partition) {
        let Some(round) = self.tombstones.rounds.remove(&partition) else { return };
        let Some(led) = self.tombstones.led.get_mut(&partition) else { return };
        for (_, digest) in &round.keys {
            led.seen.remove(digest);
        }
        if round.keys.is_empty() || led.seen.is_empty() {
            self.tombstones.led.remove(&partition);
        }
    }

    /// A round has come to nothing: the next one waits for longer than the last.
    pub(super) fn end_round(&mut self, now: Now, partition: Partition) {
        let Some(round) = self.tombstones.rounds.remove(&partition) else { return };
        self.stats.rounds_ended += u64::from(round.stage != Stage::Choose);
        if let Some(led) = self.tombstones.led.get_mut(&partition) {
            led.next = now.instant + led.pause;
            led.pause = (2 * led.pause).min(ROUND_PAUSE_MAX);
        }
    }
}
