//! A node's start changes nothing that was durable: each core finds what it had stated to be durable, and of what it
//! had appended since as much as a first part of it, in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Invariant;
use crate::protocol::causality::Siblings;
use crate::protocol::io::{Append, Change, Hint};
use crate::protocol::types::{AppendId, CoreId, Instant, Key, NodeId};
use crate::sim::truth::{NodeTruth, Truth};
use crate::sim::watch::{Found, Seen, Verdict, about, complain};
use crate::sim::world::At;

/// See the module.
#[derive(Default)]
pub(super) struct Restart {
    /// What was appended and is not known to be durable, in order.
    pending: BTreeMap<(At, CoreId), VecDeque<Pending>>,
}

/// Something that an append changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    Set(Key),
    Hint(Key, NodeId),
}

/// What stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Set(Option<Arc<Siblings>>),
    Hint(Option<Hint>),
}

struct Pending {
    id: AppendId,
    cell: Cell,
    value: Value,
}

impl Invariant for Restart {
    fn name(&self) -> &'static str {
        "restart"
    }

    fn source(&self) -> &'static str {
        "DESIGN 8: a record that was stated as durable is never skipped; a torn tail is cut"
    }

    fn see(&mut self, truth: &Truth, _now: Instant, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::Appended { node, append, .. } => {
                self.of_core(truth, *node, &append.key).push_back(pending(append));
                Ok(())
            }
            Seen::Durable { node, append } => {
                let first = self.of_core(truth, *node, &append.key).pop_front();
                match first.is_some_and(|first| first.id == append.id) {
                    true => Ok(()),
                    false => about(&append.key, format!("n{node} states {:?} to be durable out of order", append.id)),
                }
            }
            Seen::Restarted { node, found } => {
                let verdict = self.restarted(truth, *node, found);
                self.pending.retain(|(of, _), _| of != node);
                verdict
            }
            _ => Ok(()),
        }
    }
}

fn pending(append: &Append) -> Pending {
    let key = append.key.clone();
    let (cell, value) = match &append.change {
        Change::Version(_) | Change::Set { .. } => (Cell::Set(key), Value::Set(append.state().cloned())),
        Change::Drop { .. } => (Cell::Set(key), Value::Set(None)),
        Change::Hint(hint) => (Cell::Hint(key, hint.target), Value::Hint(Some(*hint))),
        Change::Delivered { target } => (Cell::Hint(key, *target), Value::Hint(None)),
    };
    Pending { id: append.id, cell, value }
}

impl Restart {
    fn of_core(&mut self, truth: &Truth, node: At, key: &Key) -> &mut VecDeque<Pending> {
        let core = truth.nodes[node].cores.of(truth.ring.partition(key));
        self.pending.entry((node, core)).or_default()
    }

    fn restarted(&self, truth: &Truth, node: At, found: &Found<'_>) -> Verdict {
        let of_node = &truth.nodes[node];
        let found = Found { ..*found };
        let hints: BTreeMap<(Key, NodeId), Hint> =
            found.hints.iter().map(|(key, hint)| ((key.clone(), hint.target), *hint)).collect();
        let finds = |cell: &Cell| match cell {
            Cell::Set(key) => Value::Set(found.sets.get(key).cloned()),
            Cell::Hint(key, target) => Value::Hint(hints.get(&(key.clone(), *target)).copied()),
        };
        let mut open = BTreeSet::new();
        for ((_, core), pending) in self.pending.range((node, CoreId(0))..=(node, CoreId(u16::MAX))) {
            open.extend(pending.iter().map(|pending| &pending.cell));
            if !is_first_part(of_node, pending, &finds) {
                return complain(format!("n{node}/{core} finds what is no first part of what it had appended"));
            }
        }
        let sets = of_node.sets.keys().chain(found.sets.keys()).cloned().map(Cell::Set);
        let owed = of_node.hints.keys().chain(hints.keys()).cloned().map(|(key, target)| Cell::Hint(key, target));
        for cell in sets.chain(owed).filter(|cell| !open.contains(cell)) {
            let (had, has) = (stated(of_node, &cell), finds(&cell));
            if had != has {
                let (Cell::Set(key) | Cell::Hint(key, _)) = &cell;
                return about(key, format!("n{node} held {had:?}, and finds {has:?}"));
            }
        }
        Ok(())
    }
}

/// What was stated to be durable.
fn stated(of_node: &NodeTruth, cell: &Cell) -> Value {
    match cell {
        Cell::Set(key) => Value::Set(of_node.sets.get(key).cloned()),
        Cell::Hint(key, target) => Value::Hint(of_node.hints.get(&(key.clone(), *target)).copied()),
    }
}

/// Whether there is a first part of what was appended, after which all that it changes is as it was found.
fn is_first_part(of_node: &NodeTruth, pending: &VecDeque<Pending>, finds: &dyn Fn(&Cell) -> Value) -> bool {
    let cells: BTreeSet<&Cell> = pending.iter().map(|pending| &pending.cell).collect();
    // Of each length, how many cells are as they were found.
    let mut fits = vec![0; pending.len() + 1];
    for cell in &cells {
        let (found, mut value) = (finds(cell), stated(of_node, cell));
        for (length, fits) in fits.iter_mut().enumerate() {
            if let Some(last) = length.checked_sub(1).map(|at| &pending[at]).filter(|last| last.cell == **cell) {
                value = last.value.clone();
            }
            *fits += usize::from(value == found);
        }
    }
    fits.contains(&cells.len())
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, append, append_of, key, numbered, set};
    use super::*;
    use crate::protocol::antientropy::Forest;

    fn starts(made: &MadeUp, restart: &mut Restart, sets: &[(Key, Arc<Siblings>)], hints: &[(Key, Hint)]) -> bool {
        let sets = sets.iter().cloned().collect();
        let found = Found { sets: &sets, forest: &Forest::default(), hints };
        restart.see(&made.truth, Instant(1), &Seen::Restarted { node: 0, found }).is_ok()
    }

    #[test]
    fn what_was_durable_is_found_and_of_the_rest_a_first_part() {
        let (one, other) = (Key::new("a").unwrap(), Key::new("b").unwrap());
        let states: Vec<_> = (1..4).map(|n| set(&[(1, n)], &[])).collect();
        let (a, b) = (|n: usize| (one.clone(), states[n].clone()), |n: usize| (other.clone(), states[n].clone()));
        let finds = |sets: &[(Key, Arc<Siblings>)]| {
            let (made, mut restart) = (MadeUp::new(1), Restart::default());
            let mut made = made;
            made.truth.nodes[0].sets.insert(one.clone(), states[0].clone());
            for (id, (key, state)) in (1..).zip([a(1), b(1), a(2)]) {
                let append = numbered(id, append_of(key, &state, &state));
                restart
                    .see(&made.truth, Instant(1), &Seen::Appended { node: 0, append: &append, is_minted: false })
                    .unwrap();
            }
            starts(&made, &mut restart, sets, &[])
        };
        for good in [vec![a(0)], vec![a(1)], vec![a(1), b(1)], vec![a(2), b(1)]] {
            assert!(finds(&good), "{good:?}");
        }
        for bad in [vec![], vec![a(2)], vec![a(0), b(1)], vec![a(0), b(2)]] {
            assert!(!finds(&bad), "{bad:?}");
        }
    }

    #[test]
    fn hints_that_were_durable_are_found() {
        let mut made = MadeUp::new(1);
        let hint = Hint { target: NodeId(7), counted: true };
        made.truth.keep(0, &append(Change::Hint(hint)));
        assert!(starts(&made, &mut Restart::default(), &[], &[(key(), hint)]));
        assert!(!starts(&made, &mut Restart::default(), &[], &[(key(), Hint { counted: false, ..hint })]));
        assert!(!starts(&made, &mut Restart::default(), &[], &[]));
    }
}
