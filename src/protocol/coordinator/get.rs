//! Reading one key: ask, count, answer.

use std::sync::Arc;

use super::quorum::{Quorum, Verdict};
use crate::protocol::causality::{Siblings, Version};
use crate::protocol::io::{Effect, Effects, Held, Unreadable};
use crate::protocol::message::{Copies, Copy, Failure, Found, Get, Outcome, Reply, Sibling};
use crate::protocol::shard::{Asker, Load, Shard, Waiting};
use crate::protocol::types::{Key, RequestId};

/// A read on its way.
#[derive(Debug)]
pub(in crate::protocol) struct Reading {
    key: Key,
    shows: Shows,
    quorum: Quorum,
}

/// What the answer shows of the set.
#[derive(Clone, Copy, Debug)]
enum Shows {
    /// The live siblings.
    Values,
    /// Every version of this node's own copy, with its story.
    Stories,
}

impl Reading {
    pub(in crate::protocol) fn quorum(&self) -> Quorum {
        self.quorum
    }
}

impl Shard {
    pub(in crate::protocol) fn on_get(&mut self, asker: Asker, get: Get, held: Held, effects: &mut Effects) {
        match self.copies.read(get.terms.quorum) {
            Ok(quorum) => self.read(asker, Reading { key: get.key, shows: Shows::Values, quorum }, held, effects),
            Err(failure) => Shard::refuse(asker.id, failure, effects),
        }
    }

    pub(in crate::protocol) fn on_siblings(&mut self, asker: Asker, key: Key, held: Held, effects: &mut Effects) {
        let quorum = self.copies.read(1).expect("every key has at least one copy");
        self.read(asker, Reading { key, shows: Shows::Stories, quorum }, held, effects);
    }

    /// What is held counts as this owner's answer, and may be all that is needed.
    fn read(&mut self, asker: Asker, mut reading: Reading, held: Held, effects: &mut Effects) {
        if let Held::Known(set) = &held {
            reading.quorum.on_owner();
            if reading.quorum.verdict() == Verdict::Enough {
                let outcome = self.show(set.as_deref(), &reading);
                return effects.push(Effect::Reply { id: asker.id, outcome });
            }
        }
        if !self.has_room() {
            return Shard::refuse(asker.id, Failure::overloaded(), effects);
        }
        let key = reading.key.clone();
        self.wait(asker, Waiting::Read(reading));
        if let Held::Unknown = held {
            self.load(Load::Read(asker.id), key, effects);
        }
    }

    /// A copy of the key has come in for the request, unless its time is over already.
    pub(in crate::protocol) fn on_copy(
        &mut self,
        id: RequestId,
        found: Result<Option<Arc<Siblings>>, Unreadable>,
        effects: &mut Effects,
    ) {
        let Some(Waiting::Read(reading)) = self.waiting_mut(id) else {
            return;
        };
        let outcome = match found {
            Err(unreadable) => {
                reading.quorum.on_failed();
                Err(Failure::Unreadable { reason: unreadable.reason })
            }
            Ok(set) => {
                reading.quorum.on_owner();
                Ok(set)
            }
        };
        if reading.quorum.verdict() == Verdict::Wait {
            return;
        }
        let Some((_, Waiting::Read(reading))) = self.take(id) else { unreachable!("it was there a line ago") };
        let outcome = outcome.and_then(|set| self.show(set.as_deref(), &reading));
        effects.push(Effect::Reply { id, outcome });
    }

    /// What a reader is shown of a key's set; a key that was never written has none.
    fn show(&self, set: Option<&Siblings>, reading: &Reading) -> Outcome {
        let empty = Siblings::default();
        let set = set.unwrap_or(&empty);
        let context = set.token(self.cluster, &reading.key);
        match reading.shows {
            Shows::Values => {
                let siblings = set.live().map(|(version, value)| Sibling {
                    dot: version.dot,
                    value: value.clone(),
                    written_at: version.written_at,
                });
                let siblings = siblings.collect();
                Ok(Reply::Found(Found { siblings, context, level: reading.quorum.level() }))
            }
            Shows::Stories => {
                let copies = set.versions().iter().map(|version| self.story(version)).collect();
                Ok(Reply::Siblings(Copies { copies, context }))
            }
        }
    }

    fn story(&self, version: &Version) -> Copy {
        let actor = version.dot.actor;
        Copy {
            dot: version.dot,
            node: self.directory.get(&actor).cloned().unwrap_or_else(|| actor.to_string()),
            value: version.value.clone(),
            written_at: version.written_at,
            operation: version.operation.as_ref().map(|operation| operation.id.clone()),
        }
    }
}
