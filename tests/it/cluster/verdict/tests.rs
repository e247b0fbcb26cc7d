//! Histories that are right, and each with one thing that is not.

use sloop::client::{Key, Value};
use sloop::protocol::types::{ActorId, Dot};
use sloop::verify::{Action, Event, Name, Outcome, Replaces, Shown};

use super::{Told, judge};

/// Clients from here on read when all has come to rest.
const RESTED: u32 = 100;

#[derive(Default)]
struct Story {
    told: Told,
    calls: u32,
}

impl Story {
    fn begin(&mut self, client: u32, action: Action) -> Name {
        self.calls += 1;
        let name = Name { client, number: self.calls };
        self.told.history.record(Event::Begin { name, key: Key::new("key").unwrap(), action });
        name
    }

    /// A write that owners acknowledged.
    fn write(&mut self, value: Option<&str>, replaces: Replaces, of: u64, replaced: &[u64]) -> Name {
        let name = self.sloppy(value, replaces, of, replaced);
        self.told.by_owners.insert(name);
        name
    }

    /// The same, with the help of fallbacks.
    fn sloppy(&mut self, value: Option<&str>, replaces: Replaces, of: u64, replaced: &[u64]) -> Name {
        let name = self.open(value, replaces);
        let superseded = replaced.iter().copied().map(dot).collect();
        self.told.history.record(Event::End { name, outcome: Outcome::Written { dot: dot(of), superseded } });
        name
    }

    /// A write without a reply.
    fn open(&mut self, value: Option<&str>, replaces: Replaces) -> Name {
        self.begin(1, Action::Write { value: value.map(text), replaces })
    }

    fn read(&mut self, client: u32, shown: &[(u64, &str)]) -> Name {
        let name = self.begin(client, Action::Read);
        let version = |(counter, value): &(u64, &str)| Shown { dot: dot(*counter), value: Some(text(value)) };
        let versions = shown.iter().map(version).collect();
        self.told.history.record(Event::End { name, outcome: Outcome::Shown { versions, tombstones: false } });
        name
    }

    fn broken(&self) -> Vec<String> {
        judge(&self.told, RESTED)
    }

    /// All complaints have this word, and there is one.
    fn is_accused(&self, word: &str) {
        let broken = self.broken();
        assert!(!broken.is_empty() && broken.iter().all(|complaint| complaint.contains(word)), "{word}: {broken:?}");
    }
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
    assert_eq!(story.broken(), Vec::<String>::new());

    story.read(2, &[(1, "a")]);
    story.is_accused("had replaced");
}

#[test]
fn a_write_that_owners_took_is_missed_by_a_read_that_does_not_show_it() {
    let mut story = Story::default();
    story.write(Some("a"), Replaces::Held, 1, &[]);
    story.write(Some("b"), Replaces::Held, 2, &[]);
    story.read(2, &[(1, "a"), (2, "b")]);
    assert_eq!(story.broken(), Vec::<String>::new());

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
    assert_eq!(story.broken(), Vec::<String>::new());

    story.read(RESTED, &[]);
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
    assert_eq!(story.broken(), Vec::<String>::new());

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
    assert_eq!(story.broken(), Vec::<String>::new());

    story.read(2, &[(2, "b"), (3, "nobody's")]);
    story.is_accused("nobody wrote");
}

#[test]
fn a_write_that_was_tried_again_may_have_replaced_more_than_its_reply_says() {
    let mut story = Story::default();
    story.write(Some("a"), Replaces::Held, 1, &[]);
    let name = story.write(Some("b"), Replaces::Held, 2, &[]);
    story.read(2, &[(2, "b")]);
    story.is_accused("misses");

    story.told.retried.insert(name);
    assert_eq!(story.broken(), Vec::<String>::new());
}

#[test]
fn two_writes_under_one_name_and_one_that_was_refused_are_seen() {
    let mut story = Story::default();
    story.write(Some("a"), Replaces::Held, 1, &[]);
    story.write(None, Replaces::Held, 1, &[]);
    story.is_accused("two writes have the name");

    let mut story = Story::default();
    let name = story.open(Some("a"), Replaces::Held);
    story.told.history.record(Event::End { name, outcome: Outcome::Refused });
    story.read(2, &[(1, "a")]);
    story.is_accused("was refused");
}
