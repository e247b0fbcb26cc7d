use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::super::history::{Asked, Event, Level};
use super::*;
use crate::protocol::causality::{Context, Siblings, Supersedes, Write};
use crate::protocol::types::{ActorId, WallTime};

fn key() -> Key {
    Key::new("k").unwrap()
}

fn name(client: u32, number: u32) -> Name {
    Name { client, number }
}

fn dot(counter: u64) -> Dot {
    Dot { actor: ActorId(1), counter }
}

fn value(n: u64) -> Option<Value> {
    Some(Value::new(n.to_string()).unwrap())
}

fn written(n: u64, superseded: Vec<Dot>) -> Outcome {
    Outcome::Written { dot: dot(n), superseded, level: Level::default(), retried: false }
}

fn read_shows(versions: Vec<Shown>, tombstones: bool) -> Outcome {
    Outcome::Shown { versions, tombstones, level: Level::default() }
}

/// Tells a story, one operation after the other.
#[derive(Default)]
struct Story {
    history: History,
    number: u32,
}

impl Story {
    fn tell(&mut self, action: Action, outcome: Outcome) -> Name {
        self.number += 1;
        let name = name(1, self.number);
        self.history.record(Event::Begin { name, key: key(), action, asked: Asked::default() });
        self.history.record(Event::End { name, outcome });
        name
    }

    /// Version `n` holds value `n`, and its reply says that it replaced `superseded`.
    fn put(&mut self, n: u64, replaces: Replaces, superseded: &[u64]) -> Name {
        let superseded = superseded.iter().copied().map(dot).collect();
        self.tell(Action::Write { value: value(n), replaces }, written(n, superseded))
    }

    fn delete(&mut self, n: u64, superseded: &[u64]) -> Name {
        let superseded = superseded.iter().copied().map(dot).collect();
        let action = Action::Write { value: None, replaces: Replaces::Held };
        self.tell(action, written(n, superseded))
    }

    fn put_that_ends(&mut self, n: u64, replaces: Replaces, outcome: Outcome) -> Name {
        self.tell(Action::Write { value: value(n), replaces }, outcome)
    }

    fn get(&mut self, shown: &[u64]) -> Name {
        let versions = shown.iter().map(|&n| Shown { dot: dot(n), value: value(n) }).collect();
        self.tell(Action::Read, read_shows(versions, false))
    }

    fn copies(&mut self, shown: &[(u64, Option<Value>)]) -> Name {
        let versions = shown.iter().map(|(n, value)| Shown { dot: dot(*n), value: value.clone() }).collect();
        self.tell(Action::Read, read_shows(versions, true))
    }

    fn verdict(&self) -> Vec<(Broken, Dot)> {
        judge(&self.history).into_iter().map(|violation| (violation.promise, violation.dot)).collect()
    }
}

#[test]
fn a_story_without_faults_is_clean() {
    let mut story = Story::default();
    story.put(1, Replaces::Held, &[]);
    story.get(&[1]);
    story.put(2, Replaces::Nothing, &[]);
    let both = story.get(&[1, 2]);
    story.put(3, Replaces::Shown(both), &[1, 2]);
    story.delete(4, &[3]);
    story.get(&[]);
    story.copies(&[(4, None)]);
    assert_eq!(story.verdict(), []);
}

#[test]
fn an_acknowledged_write_that_is_not_there_is_lost() {
    let mut story = Story::default();
    story.put(1, Replaces::Held, &[]);
    story.put(2, Replaces::Nothing, &[]);
    story.get(&[2]);
    assert_eq!(story.verdict(), [(Broken::Lost, dot(1))]);
}

#[test]
fn a_write_that_asked_for_a_sibling_explains_no_loss() {
    let mut story = Story::default();
    story.put(1, Replaces::Held, &[]);
    story.put_that_ends(2, Replaces::Nothing, Outcome::Unknown);
    story.get(&[2]);
    assert_eq!(story.verdict(), [(Broken::Lost, dot(1))]);
}

#[test]
fn a_write_without_a_reply_may_have_replaced_or_not() {
    for shown in [1, 2] {
        let mut story = Story::default();
        story.put(1, Replaces::Held, &[]);
        story.put_that_ends(2, Replaces::Held, Outcome::Unknown);
        story.get(&[shown]);
        assert_eq!(story.verdict(), []);
    }
}

#[test]
fn a_write_that_began_later_was_not_replaced_by_one_that_was_given_up() {
    let mut story = Story::default();
    story.put_that_ends(1, Replaces::Held, Outcome::Unknown);
    story.put(2, Replaces::Nothing, &[]);
    story.get(&[1]);
    assert_eq!(story.verdict(), [(Broken::Lost, dot(2))]);
}

#[test]
fn a_chain_through_a_write_that_nobody_saw_explains() {
    let mut story = Story::default();
    story.put(1, Replaces::Held, &[]);
    story.put_that_ends(2, Replaces::Held, Outcome::Unknown);
    story.put(3, Replaces::Held, &[2]);
    story.get(&[3]);
    assert_eq!(story.verdict(), []);
}

#[test]
fn a_read_value_must_stay_too() {
    let mut story = Story::default();
    story.put_that_ends(1, Replaces::Held, Outcome::Unknown);
    story.get(&[1]);
    story.get(&[]);
    assert_eq!(story.verdict(), [(Broken::Lost, dot(1))]);
}

#[test]
fn a_deleted_key_that_is_back_is_noticed() {
    let mut story = Story::default();
    story.put(1, Replaces::Held, &[]);
    story.delete(2, &[1]);
    story.get(&[1]);
    assert_eq!(story.verdict(), [(Broken::CameBack, dot(1))]);
}

#[test]
fn what_was_once_gone_stays_gone() {
    let mut story = Story::default();
    story.put(1, Replaces::Held, &[]);
    story.put_that_ends(2, Replaces::Held, Outcome::Unknown);
    story.get(&[2]);
    story.get(&[1]);
    assert_eq!(story.verdict(), [(Broken::Lost, dot(2)), (Broken::CameBack, dot(1))]);
}

#[test]
fn a_value_that_nobody_wrote_is_noticed() {
    let mut story = Story::default();
    story.get(&[1]);
    assert_eq!(story.verdict(), [(Broken::Invented, dot(1))]);

    let mut story = Story::default();
    story.copies(&[(1, None)]);
    assert_eq!(story.verdict(), [(Broken::Invented, dot(1))], "nor a tombstone");
}

/// Nothing tells which of two deletes without a reply a tombstone belongs to.
#[test]
fn a_tombstone_may_belong_to_any_delete_without_a_reply() {
    let delete = |replaces| Action::Write { value: None, replaces };
    let mut story = Story::default();
    story.tell(delete(Replaces::Nothing), Outcome::Unknown);
    story.put(1, Replaces::Held, &[]);
    story.tell(delete(Replaces::Held), Outcome::Unknown);
    story.copies(&[(2, None)]);
    assert_eq!(story.verdict(), []);

    story.copies(&[(2, None), (3, None), (4, None)]);
    assert_eq!(story.verdict(), [(Broken::Invented, dot(4))], "but there were two");
}

#[test]
fn a_value_is_not_there_before_it_is_written() {
    let mut story = Story::default();
    story.get(&[1]);
    story.put_that_ends(1, Replaces::Held, Outcome::Unknown);
    assert_eq!(story.verdict(), [(Broken::Invented, dot(1))]);
}

#[test]
fn a_refused_write_must_not_be_there() {
    let mut story = Story::default();
    story.put_that_ends(1, Replaces::Held, Outcome::Refused);
    story.get(&[1]);
    assert_eq!(story.verdict(), [(Broken::RefusedButWritten, dot(1))]);
}

#[test]
fn a_dot_names_one_version_and_a_version_has_one_dot() {
    let mut story = Story::default();
    let written = || written(1, vec![]);
    story.put_that_ends(1, Replaces::Held, written());
    story.put_that_ends(2, Replaces::Nothing, written());
    assert_eq!(story.verdict(), [(Broken::NotOneDot, dot(1))]);

    let mut story = Story::default();
    story.put(1, Replaces::Held, &[]);
    story.copies(&[(1, value(1)), (2, value(1))]);
    assert_eq!(story.verdict(), [(Broken::NotOneDot, dot(2))], "a retry that was written twice");

    let mut story = Story::default();
    story.put(1, Replaces::Held, &[]);
    story.put_that_ends(2, Replaces::Nothing, Outcome::Unknown);
    story.copies(&[(1, value(2))]);
    assert_eq!(story.verdict(), [(Broken::NotOneDot, dot(1))], "another value under its dot");
}

#[test]
fn a_context_replaces_what_it_has_seen_and_nothing_else() {
    let mut story = Story::default();
    story.put(1, Replaces::Held, &[]);
    let seen = story.get(&[1]);
    story.put(2, Replaces::Nothing, &[]);
    story.put(3, Replaces::Shown(seen), &[1, 2]);
    assert_eq!(story.verdict(), [(Broken::ReplacedUnseen, dot(2))]);

    let mut story = Story::default();
    story.put(1, Replaces::Held, &[]);
    story.put(2, Replaces::Nothing, &[1]);
    assert_eq!(story.verdict(), [(Broken::ReplacedUnseen, dot(1))]);

    let mut story = Story::default();
    story.put(1, Replaces::Held, &[]);
    let seen = story.get(&[1]);
    story.put(2, Replaces::Shown(seen), &[]);
    story.get(&[1, 2]);
    assert_eq!(story.verdict(), [(Broken::LeftBeside, dot(1))]);
}

#[test]
fn the_context_of_a_reply_goes_on_from_the_one_before() {
    let mut story = Story::default();
    story.put(1, Replaces::Held, &[]);
    let mine = story.put(2, Replaces::Nothing, &[]);
    let again = story.put(3, Replaces::Shown(mine), &[2]);
    story.put(4, Replaces::Shown(again), &[3]);
    story.get(&[1, 4]);
    assert_eq!(story.verdict(), []);
}

#[test]
fn a_blind_write_leaves_nothing_beside_it() {
    let mut story = Story::default();
    story.put(1, Replaces::Held, &[]);
    story.put(2, Replaces::Held, &[]);
    story.get(&[1, 2]);
    assert_eq!(story.verdict(), [(Broken::LeftBeside, dot(1))]);
}

/// A node that is right, and one for each way of being wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// A kill forgets the last durable write.
    ForgetsTheLast,
    /// A kill brings back the set before the last write, merged into the present one by value.
    BringsBack,
    /// Without a context it replaces one of two siblings only.
    LeavesOne,
}

struct Client {
    operations: u32,
    under_way: Option<UnderWay>,
    context: Option<(Name, Context)>,
}

struct UnderWay {
    name: Name,
    action: Action,
    supersedes: Supersedes,
    done: Option<(Outcome, Context)>,
}

/// One key on one node, with clients whose operations overlap and a process that may be killed between any two steps.
struct Node {
    fault: Fault,
    set: Siblings,
    before: Siblings,
    counter: u64,
    clients: Vec<Client>,
    history: History,
}

impl Node {
    fn new(fault: Fault) -> Node {
        let client = || Client { operations: 0, under_way: None, context: None };
        Node {
            fault,
            set: Siblings::default(),
            before: Siblings::default(),
            counter: 0,
            clients: (0..4).map(|_| client()).collect(),
            history: History::default(),
        }
    }

    fn step(&mut self, [which, what, how]: [u8; 3]) {
        if which >= 250 {
            return self.kill(what);
        }
        let at = usize::from(which) % self.clients.len();
        match self.clients[at].under_way.take() {
            None => self.begin(at, what, how),
            Some(mut under_way) if under_way.done.is_none() => {
                under_way.done = Some(self.perform(&under_way));
                self.clients[at].under_way = Some(under_way);
            }
            Some(UnderWay { name, done, .. }) => {
                let (outcome, context) = done.expect("just looked");
                self.clients[at].context = Some((name, context));
                self.history.record(Event::End { name, outcome });
            }
        }
    }

    fn begin(&mut self, at: usize, what: u8, how: u8) {
        let client = &mut self.clients[at];
        client.operations += 1;
        let name = name(u32::try_from(at).unwrap(), client.operations);
        let (replaces, supersedes) = match (how % 3, &client.context) {
            (0, Some((shown, context))) => (Replaces::Shown(*shown), Supersedes::Seen(context.clone())),
            (1, _) => (Replaces::Nothing, Supersedes::Nothing),
            _ => (Replaces::Held, Supersedes::Held),
        };
        let value = value(u64::from(name.client) * 1_000_000 + u64::from(name.number));
        let action = match what % 4 {
            0 => Action::Read,
            1 => Action::Write { value: None, replaces },
            _ => Action::Write { value, replaces },
        };
        self.history.record(Event::Begin { name, key: key(), action: action.clone(), asked: Asked::default() });
        client.under_way = Some(UnderWay { name, action, supersedes, done: None });
    }

    fn perform(&mut self, under_way: &UnderWay) -> (Outcome, Context) {
        let Action::Write { value, .. } = &under_way.action else {
            let tombstones = under_way.name.number.is_multiple_of(2);
            let versions = self.set.versions().iter().filter(|version| tombstones || !version.is_tombstone());
            let versions = versions.map(|version| Shown { dot: version.dot, value: version.value.clone() }).collect();
            return (read_shows(versions, tombstones), self.set.context());
        };
        let mut supersedes = under_way.supersedes.clone();
        if self.fault == Fault::LeavesOne && supersedes == Supersedes::Held {
            let first = self.set.versions().first().map(|version| version.dot);
            supersedes = Supersedes::Seen(Context::of(first.into_iter().collect()));
        }
        self.counter += 1;
        let write = Write { value: value.clone(), supersedes, operation: None, written_at: WallTime(0) };
        let minted = self.set.mint(dot(self.counter), write).unwrap();
        self.before = std::mem::replace(&mut self.set, minted.set);
        (written(self.counter, minted.superseded.to_vec()), minted.context)
    }

    /// Of the writes under way some are durable, without a reply.
    fn kill(&mut self, which: u8) {
        match self.fault {
            Fault::ForgetsTheLast => self.set = self.before.clone(),
            Fault::BringsBack => {
                let versions = self.before.versions().iter().chain(self.set.versions()).cloned();
                let by_dot: BTreeMap<_, _> = versions.map(|version| (version.dot, version)).collect();
                self.set = Siblings::new(self.set.vector().clone(), by_dot.into_values()).unwrap();
            }
            Fault::None | Fault::LeavesOne => {}
        }
        for at in 0..self.clients.len() {
            let Some(under_way) = self.clients[at].under_way.take() else { continue };
            if under_way.done.is_none() && which >> at & 1 == 1 {
                self.perform(&under_way);
            }
            self.history.record(Event::End { name: under_way.name, outcome: Outcome::Unknown });
        }
    }
}

fn lives() -> impl Strategy<Value = Vec<[u8; 3]>> {
    proptest::collection::vec(any::<[u8; 3]>(), 0..250)
}

fn live(fault: Fault, steps: &[[u8; 3]]) -> Vec<Violation> {
    let mut node = Node::new(fault);
    steps.iter().for_each(|step| node.step(*step));
    judge(&node.history)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn a_node_that_is_right_is_never_accused(steps in lives()) {
        prop_assert_eq!(live(Fault::None, &steps), vec![]);
    }
}

/// Of many lives of a node that is wrong, the judge must catch a good part: not every life shows its fault.
#[test]
fn a_node_that_is_wrong_is_caught() {
    let caught = |fault| {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let tries = 0..300;
        let is_caught = |_: &i32| {
            let steps = lives().new_tree(&mut runner).unwrap().current();
            !live(fault, &steps).is_empty()
        };
        tries.filter(is_caught).count()
    };
    for fault in [Fault::ForgetsTheLast, Fault::BringsBack, Fault::LeavesOne] {
        let caught = caught(fault);
        assert!(caught > 60, "{fault:?} was caught in {caught} of 300 lives");
    }
}
