//! Histories that are right, and each with one thing that is not.

mod lives;

use super::super::history::{Asked, Event};
use super::*;
use crate::protocol::types::ActorId;

/// Two of three owners were heard, or have it.
const BY_OWNERS: Level = Level { n: 3, quorum: 2, owners: 2, fallbacks: 0 };

/// One of the two stands in for an owner.
const SLOPPY: Level = Level { n: 3, quorum: 2, owners: 1, fallbacks: 1 };

#[derive(Default)]
struct Story {
    history: History,
    calls: u32,
}

impl Story {
    fn begin(&mut self, client: u32, action: Action) -> Name {
        self.calls += 1;
        let name = Name { client, number: self.calls };
        self.history.record(Event::Begin { name, key: key(), action, asked: Asked::default() });
        name
    }

    fn end(&mut self, name: Name, outcome: Outcome) -> Name {
        self.history.record(Event::End { name, outcome });
        name
    }

    /// A write that owners acknowledged.
    fn write(&mut self, value: Option<&str>, replaces: Replaces, of: u64, replaced: &[u64]) -> Name {
        let name = self.open(value, replaces);
        self.end(name, written(of, replaced, BY_OWNERS))
    }

    /// The same, with the help of fallbacks.
    fn sloppy(&mut self, value: Option<&str>, replaces: Replaces, of: u64, replaced: &[u64]) -> Name {
        let name = self.open(value, replaces);
        self.end(name, written(of, replaced, SLOPPY))
    }

    /// A write without a reply.
    fn open(&mut self, value: Option<&str>, replaces: Replaces) -> Name {
        self.begin(1, Action::Write { value: value.map(text), replaces })
    }

    fn read(&mut self, client: u32, shown: &[(u64, &str)]) -> Name {
        self.read_of(client, shown, BY_OWNERS)
    }

    fn read_of(&mut self, client: u32, shown: &[(u64, &str)], level: Level) -> Name {
        let name = self.begin(client, Action::Read);
        let version = |(counter, value): &(u64, &str)| Shown { dot: dot(*counter), value: Some(text(value)) };
        let versions = shown.iter().map(version).collect();
        self.end(name, Outcome::Shown { versions, tombstones: false, level })
    }

    fn broken(&self) -> Vec<String> {
        judge(&self.history).iter().map(ToString::to_string).collect()
    }

    /// All complaints have this word, and there is one.
    fn is_accused(&self, word: &str) {
        let broken = self.broken();
        assert!(!broken.is_empty() && broken.iter().all(|complaint| complaint.contains(word)), "{word}: {broken:?}");
    }

    fn is_clean(&self) {
        assert_eq!(self.broken(), Vec::<String>::new());
    }
}

fn key() -> Key {
    Key::new("key").unwrap()
}

fn written(of: u64, replaced: &[u64], level: Level) -> Outcome {
    let superseded = replaced.iter().copied().map(dot).collect();
    Outcome::Written { dot: dot(of), superseded, level, retried: false }
}

fn dot(counter: u64) -> Dot {
    Dot { actor: ActorId(1), counter }
}

fn text(text: &str) -> Value {
    Value::new(text.to_owned()).unwrap()
}

#[test]
fn what_was_replaced_step_by_step_is_not_missed_and_does_not_come_back() {
    let mut story = Story::default();
    story.write(Some("a"), Replaces::Held, 1, &[]);
    let read = story.read(2, &[(1, "a")]);
    story.write(Some("b"), Replaces::Shown(read), 2, &[]);
    story.write(Some("c"), Replaces::Held, 3, &[2]);
    story.read(2, &[(3, "c")]);
    story.write(None, Replaces::Held, 4, &[3]);
    story.read(2, &[]);
    story.is_clean();

    story.read(2, &[(1, "a")]);
    story.is_accused("had replaced");
}

#[test]
fn a_write_that_owners_took_is_missed_by_a_read_that_does_not_show_it() {
    let mut story = Story::default();
    story.write(Some("a"), Replaces::Held, 1, &[]);
    story.write(Some("b"), Replaces::Held, 2, &[]);
    story.read(2, &[(1, "a"), (2, "b")]);
    story.is_clean();

    story.read(2, &[(2, "b")]);
    story.is_accused("misses");
}

#[test]
fn a_write_that_fallbacks_took_may_be_missed_until_all_has_come_to_rest() {
    let mut story = Story::default();
    story.sloppy(Some("a"), Replaces::Held, 1, &[]);
    story.read(2, &[]);
    story.read(2, &[(1, "a")]);
    story.read(2, &[]);
    story.is_clean();

    story.history.record(Event::Rest);
    story.read(2, &[]);
    story.is_accused("misses");
}

#[test]
fn a_write_without_a_reply_may_be_there_or_not_and_may_have_replaced_what_it_meant_to() {
    let mut story = Story::default();
    story.write(Some("a"), Replaces::Held, 1, &[]);
    let read = story.read(2, &[(1, "a")]);
    story.open(Some("b"), Replaces::Shown(read));
    story.read(2, &[(1, "a")]);
    story.read(2, &[(2, "b")]);
    story.read(2, &[(1, "a")]);
    story.write(Some("c"), Replaces::Held, 3, &[2]);
    story.read(2, &[(3, "c")]);
    story.is_clean();

    story.write(Some("d"), Replaces::Nothing, 4, &[]);
    story.read(2, &[(4, "d")]);
    story.is_accused("misses");
}

#[test]
fn a_write_that_two_nodes_took_has_two_names() {
    let mut story = Story::default();
    story.write(Some("a"), Replaces::Held, 1, &[]);
    let read = story.read(2, &[(7, "a")]);
    story.write(Some("b"), Replaces::Shown(read), 2, &[]);
    story.read(2, &[(2, "b")]);
    story.is_clean();

    story.read(2, &[(2, "b"), (3, "nobody's")]);
    story.is_accused("nobody wrote");
}

#[test]
fn a_write_that_was_tried_again_may_have_replaced_more_than_its_reply_says() {
    let mut story = Story::default();
    story.write(Some("a"), Replaces::Held, 1, &[]);
    let name = story.open(Some("b"), Replaces::Held);
    let mut again = (story.history.clone(), story.calls);
    story.end(name, written(2, &[], BY_OWNERS));
    story.read(2, &[(2, "b")]);
    story.is_accused("misses");

    std::mem::swap(&mut again.0, &mut story.history);
    let outcome = Outcome::Written { dot: dot(2), superseded: vec![], level: BY_OWNERS, retried: true };
    story.end(name, outcome);
    story.read(2, &[(2, "b")]);
    story.is_clean();
}

#[test]
fn two_writes_under_one_name_and_one_that_was_refused_are_seen() {
    let mut story = Story::default();
    story.write(Some("a"), Replaces::Held, 1, &[]);
    story.write(None, Replaces::Held, 1, &[]);
    story.is_accused("two writes have the name");

    let mut story = Story::default();
    let name = story.open(Some("a"), Replaces::Held);
    story.end(name, Outcome::Refused);
    story.read(2, &[(1, "a")]);
    story.is_accused("was refused");
}

#[test]
fn a_read_that_need_not_meet_a_write_may_miss_it() {
    let one = Level { quorum: 1, owners: 1, ..BY_OWNERS };
    let all = Level { quorum: 3, owners: 3, ..BY_OWNERS };
    for (level, misses) in [(one, false), (all, true), (SLOPPY, false), (Level::default(), false)] {
        let mut story = Story::default();
        story.write(Some("a"), Replaces::Held, 1, &[]);
        story.read_of(2, &[], level);
        assert_eq!(story.broken().len(), usize::from(misses), "{level:?}");
    }
}

#[test]
fn reads_of_several_levels_miss_one_write_once() {
    let mut story = Story::default();
    story.write(Some("a"), Replaces::Held, 1, &[]);
    story.read(2, &[]);
    story.read_of(2, &[], Level { owners: 3, ..BY_OWNERS });
    story.history.record(Event::Rest);
    story.read_of(2, &[], Level { quorum: 1, owners: 1, ..BY_OWNERS });
    assert_eq!(story.broken().len(), 1);
}

#[test]
fn one_of_two_that_may_have_replaced_each_other_must_be_there() {
    let mut story = Story::default();
    for (of, value) in [(1, "a"), (2, "b")] {
        let name = story.open(Some(value), Replaces::Held);
        story.end(name, Outcome::Written { dot: dot(of), superseded: vec![], level: BY_OWNERS, retried: true });
    }
    story.read(2, &[(1, "a")]);
    story.read(2, &[(2, "b")]);
    story.is_clean();
    story.read(2, &[]);
    story.is_accused("misses");
}

#[test]
fn a_context_replaces_nothing_that_began_after_it() {
    let mut story = Story::default();
    let before = story.read(2, &[]);
    story.write(Some("a"), Replaces::Held, 1, &[]);
    story.write(Some("b"), Replaces::Shown(before), 2, &[1]);
    story.is_accused("began after its context");

    let mut story = Story::default();
    story.write(Some("a"), Replaces::Held, 1, &[]);
    story.write(Some("b"), Replaces::Nothing, 2, &[1]);
    story.is_accused("was to replace nothing");
}

#[test]
fn the_context_of_a_write_may_have_replaced_it_or_not() {
    for shown in [&[(2, "b")][..], &[(1, "a"), (2, "b")]] {
        let mut story = Story::default();
        let first = story.write(Some("a"), Replaces::Nothing, 1, &[]);
        story.write(Some("b"), Replaces::Shown(first), 2, &[]);
        story.read(2, shown);
        story.is_clean();
    }
}

#[test]
fn a_reply_counts_as_many_as_it_needs() {
    let mut story = Story::default();
    let name = story.open(Some("a"), Replaces::Held);
    story.end(name, written(1, &[], Level { owners: 1, ..BY_OWNERS }));
    story.is_accused("1 of 2");

    let mut story = Story::default();
    let (name, action) = (Name { client: 1, number: 1 }, Action::Write { value: None, replaces: Replaces::Held });
    let asked = Asked { quorum: 2, strict: true };
    story.history.record(Event::Begin { name, key: key(), action, asked });
    story.end(name, written(1, &[], SLOPPY));
    story.is_accused("1 of 2");
}

#[test]
fn a_violation_names_the_operations_that_matter() {
    let mut story = Story::default();
    let missed = story.write(Some("a"), Replaces::Held, 1, &[]);
    let other = story.write(Some("b"), Replaces::Held, 2, &[]);
    story.read(2, &[(1, "a"), (2, "b")]);
    let read = story.read(2, &[(2, "b")]);
    let violations = judge(&story.history);
    assert_eq!((violations.len(), violations[0].promise), (1, Broken::Missed));
    let names = violations[0].operations(&story.history).iter().map(|operation| operation.name).collect::<Vec<_>>();
    assert_eq!(names, [missed, other, read]);
}
