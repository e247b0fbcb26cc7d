//! The naive twin: it remembers everything that was ever appended, and says which prefix of each log is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::KEYS;
use crate::protocol::causality::Siblings;
use crate::protocol::io::{Append, Change, Hint};
use crate::protocol::types::{AppendId, CoreId, Key, NodeId, OperationId};
use crate::store::layout;
use crate::store::memory::Tree;

/// What a tree holds, each kind of entry as a map.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct There {
    pub(super) sets: BTreeMap<Key, Arc<Siblings>>,
    pub(super) operations: BTreeSet<(Key, OperationId)>,
    /// By key and node, whether it counted.
    pub(super) hints: BTreeMap<(Key, NodeId), bool>,
}

/// One append, and the core that made it.
pub(super) struct Appended {
    pub(super) core: CoreId,
    pub(super) append: Append,
}

/// All of one start, upon what was there when it began.
#[derive(Default)]
pub(super) struct Twin {
    pub(super) base: There,
    pub(super) appended: Vec<Appended>,
}

impl There {
    pub(super) fn read(tree: &Tree) -> There {
        let set = |place: layout::Place| Some((place.key.clone(), tree.get(&place).unwrap()?));
        let operations = tree.entries(layout::operation_prefix());
        let operations = operations.map(|(key, value)| layout::decode_operation(key, value).unwrap());
        let hints = tree.entries(layout::hint_prefix());
        let hints = hints.map(|(key, value)| layout::decode_hint(key, value).unwrap());
        There {
            sets: tree.places().into_iter().filter_map(set).collect(),
            operations: operations.map(|(place, remembered)| (place.key, remembered.operation.id)).collect(),
            hints: hints.map(|(place, Hint { target, counted })| ((place.key, target), counted)).collect(),
        }
    }
}

impl Appended {
    fn operations(&self) -> impl Iterator<Item = (Key, OperationId)> {
        let remembered = match &self.append.change {
            Change::Version(arrived) => arrived.remember.as_deref().into_iter().collect(),
            Change::Set { remember, .. } => remember.iter().collect(),
            Change::Drop { .. } | Change::Hint(_) | Change::Delivered { .. } => vec![],
        };
        remembered.into_iter().map(|kept| (self.append.key.clone(), kept.operation.id.clone()))
    }
}

impl Twin {
    /// The state of a key, when the appends of its core up to this one count.
    pub(super) fn state_at(&self, key: &Key, through: AppendId) -> Option<&Arc<Siblings>> {
        let newest = self.appended.iter().rev().map(|appended| &appended.append);
        let newest = newest.filter(|append| append.id <= through && append.key == *key);
        newest.filter_map(Append::state).chain(self.base.sets.get(key)).next()
    }

    /// The hints of a core's keys, when its appends up to this one count.
    fn hints_at(&self, core: CoreId, mine: impl Fn(&Key) -> bool, through: AppendId) -> BTreeMap<(Key, NodeId), bool> {
        let mut hints: BTreeMap<_, _> = self.base.hints.clone().into_iter().filter(|((key, _), _)| mine(key)).collect();
        let appended = self.appended.iter().filter(|appended| appended.core == core && appended.append.id <= through);
        for Appended { append: Append { key, change, .. }, .. } in appended {
            match change {
                Change::Hint(hint) => {
                    hints.insert((key.clone(), hint.target), hint.counted);
                }
                Change::Delivered { target } => {
                    hints.remove(&(key.clone(), *target));
                }
                Change::Version(_) | Change::Set { .. } | Change::Drop { .. } => {}
            }
        }
        hints
    }

    /// The prefix of a core's log that explains all sets and hints of its keys, not shorter than `durable`.
    pub(super) fn through(
        &self,
        there: &There,
        core: CoreId,
        mine: impl Fn(&Key) -> bool,
        durable: AppendId,
    ) -> AppendId {
        let last = self.appended.iter().rev().find(|appended| appended.core == core);
        let last = last.map_or(0, |appended| appended.append.id.0);
        let keys: Vec<Key> = (0..KEYS).map(super::key).filter(&mine).collect();
        let hints: BTreeMap<_, _> = there.hints.clone().into_iter().filter(|((key, _), _)| mine(key)).collect();
        let explains = |through: &AppendId| {
            keys.iter().all(|key| self.state_at(key, *through) == there.sets.get(key))
                && self.hints_at(core, &mine, *through) == hints
        };
        let mut candidates = (durable.0..=last).map(AppendId);
        candidates
            .find(explains)
            .unwrap_or_else(|| panic!("core {core}: no prefix from {durable:?} on explains what is there"))
    }

    /// Operations whose writes were durable are remembered, others at most.
    pub(super) fn judge_operations(&self, there: &There, durable: impl Fn(CoreId) -> AppendId) {
        let asked: BTreeSet<_> = self.appended.iter().flat_map(Appended::operations).collect();
        let ours = self.appended.iter().filter(|appended| appended.append.id <= durable(appended.core));
        for expected in ours.flat_map(Appended::operations).chain(self.base.operations.iter().cloned()) {
            assert!(there.operations.contains(&expected), "{expected:?} was forgotten");
        }
        let strange = there.operations.difference(&self.base.operations).find(|kept| !asked.contains(kept));
        assert_eq!(strange, None, "an operation that nobody asked for");
    }
}
