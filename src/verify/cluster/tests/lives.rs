//! Long histories of a key that does all that it is asked at one point between beginning and end, or is wrong in one
//! way.

use super::super::super::history::{Asked, Event};
use super::*;

/// Microseconds from one operation to the next, and at most from an operation's beginning to its middle or to its end.
const STEP: u64 = 10;
const REACH: u64 = 200;

/// Of so many operations one gets no reply, and one of so many meets the fault.
const LOST_REPLIES: u64 = 40;
const FAULTS: u64 = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Forgets what it holds.
    Forgets,
    /// Shows what it held some operations ago, as if owners had said so.
    IsBehind,
    /// Replaces what the context has not seen, and does not say so.
    ReplacesUnseen,
}

/// Numbers that repeat.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A key, and the events that it makes.
struct Life {
    dice: Dice,
    fault: Fault,
    held: Vec<Shown>,
    before: Vec<Vec<Shown>>,
    /// Reads that gave a context: when they ended, and what they showed.
    contexts: Vec<(Name, u64, Vec<Dot>)>,
    events: Vec<(u64, Event)>,
}

impl Life {
    fn lived(seed: u64, operations: u32, fault: Fault) -> History {
        let dice = Dice(seed);
        let mut life = Life { dice, fault, held: vec![], before: vec![], contexts: vec![], events: vec![] };
        (1..=operations).for_each(|number| life.step(number));
        life.events.sort_by_key(|(at, _)| *at);
        let mut history = History::default();
        for (at, event) in life.events {
            history.record_at(Moment(at), event).unwrap();
        }
        history
    }

    fn step(&mut self, number: u32) {
        let now = 2 * REACH + u64::from(number) * STEP;
        let (begun, ended) = (now - 1 - self.dice.below(REACH), now + 1 + self.dice.below(REACH));
        let name = Name { client: number % 32, number };
        let is_faulty = self.fault != Fault::None && self.dice.below(FAULTS) == 0;
        if is_faulty && self.fault == Fault::Forgets {
            self.held.clear();
        }
        let has_reply = self.dice.below(LOST_REPLIES) > 0;
        let (action, outcome) = if self.dice.below(2) == 0 {
            (Action::Read, self.read(name, Some(ended).filter(|_| has_reply), is_faulty))
        } else {
            self.write(number, begun, is_faulty)
        };
        self.before.push(self.held.clone());
        self.events.push((begun, Event::Begin { name, key: key(), action, asked: Asked::default() }));
        if has_reply {
            self.events.push((ended, Event::End { name, outcome }));
        }
    }

    fn read(&mut self, name: Name, ended: Option<u64>, is_faulty: bool) -> Outcome {
        let is_weak = self.dice.below(8) == 0;
        let is_behind = is_weak || is_faulty && self.fault == Fault::IsBehind;
        let past = self.before.len().checked_sub(30).filter(|_| is_behind);
        let versions = past.map_or(&self.held, |at| &self.before[at]).clone();
        let dots = versions.iter().map(|version| version.dot).collect();
        self.contexts.extend(ended.map(|ended| (name, ended, dots)));
        let level = if is_weak { Level { quorum: 1, owners: 1, ..BY_OWNERS } } else { BY_OWNERS };
        Outcome::Shown { versions, tombstones: false, level }
    }

    fn write(&mut self, number: u32, begun: u64, is_faulty: bool) -> (Action, Outcome) {
        let value = Value::new(number.to_string()).unwrap();
        let context = self.contexts.iter().rev().take(40).find(|(_, ended, _)| *ended < begun);
        let (replaces, seen) = match (self.dice.below(4), context) {
            (0..2, Some((name, _, seen))) => (Replaces::Shown(*name), Some(seen.clone())),
            (2, _) if self.held.len() < 4 => (Replaces::Nothing, Some(vec![])),
            _ => (Replaces::Held, None),
        };
        let is_replaced = |held: &Shown| seen.as_ref().is_none_or(|seen| seen.contains(&held.dot));
        let superseded = self.held.iter().filter(|held| is_replaced(held)).map(|held| held.dot).collect();
        let replaces_all = is_faulty && self.fault == Fault::ReplacesUnseen;
        self.held.retain(|held| !replaces_all && !is_replaced(held));
        let dot = dot(number.into());
        self.held.push(Shown { dot, value: Some(value.clone()) });
        let outcome = Outcome::Written { dot, superseded, level: BY_OWNERS, retried: false };
        (Action::Write { value: Some(value), replaces }, outcome)
    }
}

#[test]
fn a_store_that_is_right_is_never_accused() {
    for seed in 0..300 {
        assert_eq!(judge(&Life::lived(seed, 300, Fault::None)), vec![], "seed {seed}");
    }
}

/// Not every life shows its fault: a write without a reply excuses much.
#[test]
fn a_store_that_is_wrong_is_caught() {
    for fault in [Fault::Forgets, Fault::IsBehind, Fault::ReplacesUnseen] {
        let caught = (0..200).filter(|seed| !judge(&Life::lived(*seed, 300, fault)).is_empty()).count();
        assert!(caught > 100, "{fault:?} was caught in {caught} of 200 lives");
    }
}

/// It would take hours if each read looked at each write.
#[test]
fn a_hot_key_takes_no_longer_than_its_operations() {
    assert_eq!(judge(&Life::lived(1, 50_000, Fault::None)), vec![]);
}
