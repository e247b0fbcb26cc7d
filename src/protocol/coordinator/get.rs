//! Reading one key: ask, count, answer.

use std::sync::Arc;

use super::quorum::{Quorum, Verdict};
use crate::protocol::causality::{Siblings, Version};
use crate::protocol::io::{Effects, Unreadable};
use crate::protocol::message::{Copies, Copy, Failure, Found, Get, Outcome, Reply, Sibling};
use crate::protocol::shard::{Load, Shard, Waiting};
use crate::protocol::types::{Instant, Key, RequestId};

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
    pub(in crate::protocol) fn on_get(&mut self, id: RequestId, get: Get, deadline: Instant, effects: &mut Effects) {
        match self.copies.read(get.terms.quorum) {
            Ok(quorum) => self.read(id, Reading { key: get.key, shows: Shows::Values, quorum }, deadline, effects),
            Err(failure) => Shard::refuse(id, failure, effects),
        }
    }

    pub(in crate::protocol) fn on_siblings(
        &mut self,
        id: RequestId,
        key: Key,
        deadline: Instant,
        effects: &mut Effects,
    ) {
        let quorum = self.copies.read(1).expect("every key has at least one copy");
        self.read(id, Reading { key, shows: Shows::Stories, quorum }, deadline, effects);
    }

    fn read(&mut self, id: RequestId, reading: Reading, deadline: Instant, effects: &mut Effects) {
        let key = reading.key.clone();
        if self.wait(id, deadline, Waiting::Read(reading), effects) {
            self.load(Load::Read(id), key, effects);
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
                Ok(set.unwrap_or_default())
            }
        };
        let (verdict, shows, quorum, key) =
            (reading.quorum.verdict(), reading.shows, reading.quorum, reading.key.clone());
        match (verdict, outcome) {
            (Verdict::Wait, _) => {}
            (_, Err(failure)) => self.answer(id, Err(failure), effects),
            (_, Ok(set)) => {
                let outcome = self.show(&set, shows, quorum, &key);
                self.answer(id, outcome, effects);
            }
        }
    }

    fn show(&self, set: &Siblings, shows: Shows, quorum: Quorum, key: &Key) -> Outcome {
        let context = set.context().seal(self.cluster, key);
        match shows {
            Shows::Values => {
                let siblings = set.live().map(|(version, value)| Sibling {
                    dot: version.dot,
                    value: value.clone(),
                    written_at: version.written_at,
                });
                let siblings = siblings.collect();
                Ok(Reply::Found(Found { siblings, context, level: quorum.level() }))
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
