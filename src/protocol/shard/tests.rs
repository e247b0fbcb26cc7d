//! The shard on virtual time: a store that is a map, a log that is a queue which syncs when the test says so.

mod held;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::protocol::causality::{Context, ContextError, VersionVector};
use crate::protocol::config::{self, DEADLINE_DEFAULT, MINTING_BYTES_MAX, OPERATION_MEMORY, SIBLINGS_MAX};
use crate::protocol::io::{Append, Change};
use crate::protocol::message::{Causality, Delete, Found, Get, Put, Terms, Written};
use crate::protocol::planted::Planted;
use crate::protocol::ring::Cores;
use crate::protocol::types::{Dot, OperationId, Value, WallTime};

/// One shard in a world of its own.
struct World {
    shard: Shard,
    now: Instant,
    durable: BTreeMap<Key, Arc<Siblings>>,
    log: Vec<Append>,
    slow_loads: Option<Vec<(LoadId, Key)>>,
    replies: BTreeMap<RequestId, Outcome>,
    requests: u64,
    syncs: usize,
    /// Whether a request comes with what is held of its key.
    knows: bool,
    /// Every effect but loads, as it was said.
    said: Vec<String>,
}

fn birth(actor: u64, remembered: Vec<(Key, Remembered)>) -> Birth {
    Birth {
        cluster: ClusterId(7),
        core: CoreId(0),
        actor: ActorId(actor),
        counter: 0,
        spare: ActorId(u64::MAX),
        view: Arc::new(View::alone("node-a", Cores { count: 1, salt: 0 }, 16)),
        directory: Arc::new([(ActorId(actor), "node-a".to_owned())].into()),
        remembered,
        hints: vec![],
        seed: 7,
        transfer_rate: config::TRANSFER_BYTES_PER_SECOND,
        compare_period: config::COMPARE_PERIOD,
        keeps_hints: true,
        tombstone_age: config::TOMBSTONE_AGE,
        planted: Planted::NONE,
    }
}

impl World {
    fn new() -> World {
        World {
            shard: Shard::new(Instant(0), birth(1, vec![])),
            now: Instant(0),
            durable: BTreeMap::new(),
            log: vec![],
            slow_loads: None,
            replies: BTreeMap::new(),
            requests: 0,
            syncs: 0,
            knows: false,
            said: vec![],
        }
    }

    fn feed(&mut self, input: Input) {
        let mut effects = Effects::new();
        self.shard.handle(Now { instant: self.now, wall: WallTime(self.now.0) }, input, &mut effects);
        for effect in effects {
            if !matches!(effect, Effect::Load { .. }) {
                self.said.push(format!("{effect:?}"));
            }
            match effect {
                Effect::Ask { .. }
                | Effect::Tell { .. }
                | Effect::Compare(_)
                | Effect::Survey { .. }
                | Effect::Scan { .. }
                | Effect::Reached { .. } => {
                    unreachable!("a node alone asks nobody")
                }
                Effect::Load { load, key } => match &mut self.slow_loads {
                    Some(slow) => slow.push((load, key)),
                    None => self.feed(Input::Loaded { load, found: Ok(self.durable.get(&key).cloned()) }),
                },
                Effect::Append(append) => self.log.push(append),
                Effect::Reply { id, outcome } => {
                    assert!(self.replies.insert(id, outcome).is_none(), "{id:?} is answered once");
                }
                Effect::List { id, .. } => self.feed(Input::Listed { id, page: Ok(Page::default()) }),
                Effect::Forget { .. } => {}
            }
        }
    }

    fn ask(&mut self, request: Request) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        let held = match request.key() {
            Some(key) if self.knows => Held::Known(self.durable.get(key).cloned()),
            _ => Held::Unknown,
        };
        self.feed(Input::Request { id, request, held, deadline: self.now + DEADLINE_DEFAULT });
        id
    }

    fn finish_loads(&mut self) {
        for (load, key) in self.slow_loads.take().unwrap_or_default() {
            self.feed(Input::Loaded { load, found: Ok(self.durable.get(&key).cloned()) });
        }
    }

    fn sync(&mut self) {
        self.syncs += 1;
        let batch = std::mem::take(&mut self.log);
        let Some(last) = batch.last() else { return };
        let through = last.id;
        let state = |append: &Append| Some((append.key.clone(), append.state()?.clone()));
        self.durable.extend(batch.iter().filter_map(state));
        self.feed(Input::Appended { through });
    }

    fn outcome(&mut self, id: RequestId) -> Outcome {
        self.replies.remove(&id).expect("the request has an answer")
    }

    fn written(&mut self, request: Request) -> Written {
        let id = self.ask(request);
        self.sync();
        match self.outcome(id) {
            Ok(Reply::Written(written)) => written,
            other => panic!("not written: {other:?}"),
        }
    }

    fn get(&mut self, name: &str) -> Found {
        let id = self.ask(Request::Get(Get { key: key(name), terms: Terms::default() }));
        match self.outcome(id) {
            Ok(Reply::Found(found)) => found,
            other => panic!("not found: {other:?}"),
        }
    }

    fn values(&mut self, name: &str) -> Vec<String> {
        let shown = |value: &Value| String::from_utf8(value.as_bytes().to_vec()).unwrap();
        self.get(name).siblings.iter().map(|sibling| shown(&sibling.value)).collect()
    }

    /// A restart after a crash: what was durable and what was remembered are there, the actor is another.
    fn crash(&mut self, remembered: Vec<(Key, Remembered)>) {
        self.log.clear();
        self.replies.clear();
        self.shard = Shard::new(self.now, birth(2, remembered));
    }
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn put_as(name: &str, value: &str, causality: Causality, operation: Option<&str>) -> Request {
    Request::Put(Put {
        key: key(name),
        value: Value::new(value.to_owned()).unwrap(),
        causality,
        operation: operation.map(|id| OperationId::new(id).unwrap()),
        terms: Terms::default(),
    })
}

fn put(name: &str, value: &str) -> Request {
    put_as(name, value, Causality::Blind, None)
}

fn delete(name: &str) -> Request {
    Request::Delete(Delete { key: key(name), causality: Causality::Blind, operation: None, terms: Terms::default() })
}

#[test]
fn no_hint_is_given_up_before_the_cluster_was_seen() {
    let hint = Hint { target: NodeId::of("node-b"), counted: true };
    let birth = Birth { hints: vec![(key("k"), hint)], ..birth(1, vec![]) };
    let mut world = World { shard: Shard::new(Instant(0), birth), ..World::new() };
    world.written(put("k", "1"));
    world.feed(Input::Tick);
    world.feed(Input::Linked(hint.target));
    assert!(world.log.is_empty() && world.shard.stats().hints_waiting == 1, "{:?}", world.log);
}

#[test]
fn a_write_is_answered_only_once_it_is_durable() {
    let mut world = World::new();
    let id = world.ask(put("a", "1"));
    assert!(world.replies.is_empty(), "the log has not synced yet");
    assert_eq!(world.values("a"), [""; 0], "readers see the newest durable state");

    world.sync();
    assert!(matches!(world.outcome(id), Ok(Reply::Written(_))));
    assert_eq!(world.values("a"), ["1"]);
}

#[test]
fn fault_03_a_deleted_key_stays_deleted_and_the_reply_names_what_went() {
    let mut world = World::new();
    let first = world.written(put("a", "1"));
    let deleted = world.written(delete("a"));
    assert_eq!(deleted.superseded[..], [first.dot]);
    assert_eq!(world.values("a"), [""; 0]);

    let absent = world.written(delete("never written"));
    assert!(absent.superseded.is_empty(), "an absent key can be deleted as well");
}

#[test]
fn fault_05_concurrent_writers_with_contexts_lose_no_update() {
    let mut world = World::new();
    world.written(put("cart", "milk"));
    let (one, two) = (world.get("cart").context, world.get("cart").context);
    world.written(put_as("cart", "milk,bread", Causality::Context(one), None));
    world.written(put_as("cart", "milk,eggs", Causality::Context(two), None));
    assert_eq!(world.values("cart"), ["milk,bread", "milk,eggs"]);

    let both = world.get("cart").context;
    world.written(put_as("cart", "milk,bread,eggs", Causality::Context(both), None));
    assert_eq!(world.values("cart"), ["milk,bread,eggs"]);
}

#[test]
fn fault_06_reading_merging_and_writing_a_key_is_atomic_even_when_the_store_is_slow() {
    let mut world = World::new();
    world.slow_loads = Some(vec![]);
    let ids: Vec<RequestId> = (0..10).map(|n| world.ask(put("a", &n.to_string()))).collect();
    assert_eq!(world.slow_loads.as_ref().unwrap().len(), 1, "one load serves every write that waits for it");

    world.finish_loads();
    world.sync();
    let dots: BTreeSet<_> = ids
        .into_iter()
        .map(|id| match world.outcome(id) {
            Ok(Reply::Written(written)) => written.dot,
            other => panic!("not written: {other:?}"),
        })
        .collect();
    assert_eq!(dots.len(), 10, "no two writes share a dot");
    assert_eq!(world.values("a"), ["9"], "each write superseded the one before it");
}

#[test]
fn a_hot_key_is_not_limited_to_one_write_a_sync() {
    let mut world = World::new();
    let ids: Vec<RequestId> = (0..50).map(|n| world.ask(put("hot", &n.to_string()))).collect();
    world.sync();
    assert_eq!(world.syncs, 1);
    assert!(ids.into_iter().all(|id| world.outcome(id).is_ok()));
    assert_eq!(world.values("hot"), ["49"]);
}

#[test]
fn fault_08_a_retry_under_the_same_operation_id_is_one_write() {
    let mut world = World::new();
    let request = put_as("a", "1", Causality::Blind, Some("op-1"));
    let first = world.written(request.clone());
    world.written(put("a", "2"));

    let retry = world.written(request);
    assert_eq!((retry.dot, retry.remembered), (first.dot, true));
    assert_eq!(world.values("a"), ["2"], "the retry minted nothing");
}

#[test]
fn fault_08_the_same_id_on_another_key_is_another_operation() {
    let mut world = World::new();
    world.written(put_as("a", "1", Causality::Blind, Some("op-1")));
    world.written(put_as("b", "2", Causality::Blind, Some("op-1")));
    assert_eq!(world.values("b"), ["2"]);
}

#[test]
fn the_same_id_with_another_operation_is_refused() {
    let mut world = World::new();
    world.written(put_as("a", "1", Causality::Blind, Some("op-1")));
    let id = world.ask(put_as("a", "2", Causality::Blind, Some("op-1")));
    assert_eq!(world.outcome(id), Err(Failure::OperationReused));
}

#[test]
fn a_retry_beside_its_first_try_waits_for_the_same_append() {
    let mut world = World::new();
    let request = put_as("a", "1", Causality::Blind, Some("op-1"));
    let (first, retry) = (world.ask(request.clone()), world.ask(request));
    assert!(world.replies.is_empty());

    world.sync();
    let (first, retry) = (world.outcome(first).unwrap(), world.outcome(retry).unwrap());
    let (Reply::Written(first), Reply::Written(retry)) = (first, retry) else { panic!("both are written") };
    assert_eq!(first.dot, retry.dot);
    assert!(retry.remembered && !first.remembered);
}

#[test]
fn a_retry_waits_for_its_first_try_and_not_for_what_came_between() {
    let mut world = World::new();
    let request = put_as("a", "1", Causality::Blind, Some("op-1"));
    let first = world.ask(request.clone());
    let between = world.ask(put("b", "1"));
    let retry = world.ask(request);

    let through = world.log[0].id;
    world.feed(Input::Appended { through });
    assert!(world.outcome(first).is_ok() && world.outcome(retry).is_ok());
    assert!(!world.replies.contains_key(&between));
}

#[test]
fn fault_08_operation_ids_survive_a_restart() {
    let mut world = World::new();
    let request = put_as("a", "1", Causality::Blind, Some("op-1"));
    world.ask(request.clone());
    let Change::Version(arrived) = &world.log[0].change else { panic!("{:?} is a version", world.log) };
    let remembered = arrived.remember.clone().unwrap();
    world.sync();

    world.crash(vec![(key("a"), *remembered)]);
    let id = world.ask(request);
    let Ok(Reply::Written(retry)) = world.outcome(id) else { panic!("the retry is answered at once") };
    assert!(retry.remembered);
}

#[test]
fn a_failed_log_fails_what_was_under_way_and_stops_writes_but_not_reads() {
    let mut world = World::new();
    world.written(put("a", "1"));
    let id = world.ask(put("a", "2"));
    world.log.clear();
    world.feed(Input::AppendsFailed { actor: ActorId(9) });

    let stopped = Err(Failure::WritesStopped { core: CoreId(0) });
    assert_eq!(world.outcome(id), stopped);
    let id = world.ask(put("a", "3"));
    assert_eq!(world.outcome(id), stopped);
    assert_eq!(world.values("a"), ["1"]);
    assert_eq!(world.shard.actor(), (ActorId(9), 0), "the old actor mints no more");
}

#[test]
fn a_write_that_waited_for_the_store_when_the_log_failed_is_refused() {
    let mut world = World::new();
    world.slow_loads = Some(vec![]);
    let id = world.ask(put("a", "1"));
    world.feed(Input::AppendsFailed { actor: ActorId(9) });
    world.finish_loads();
    assert_eq!(world.outcome(id), Err(Failure::WritesStopped { core: CoreId(0) }));
    assert!(world.log.is_empty());
}

#[test]
fn every_request_ends_by_its_deadline_with_numbers() {
    let mut world = World::new();
    let append = world.ask(put("a", "1"));
    world.slow_loads = Some(vec![]);
    let (mint, read) = (world.ask(put("b", "1")), world.ask(Request::Siblings(key("c"))));

    world.now = world.now + DEADLINE_DEFAULT;
    world.feed(Input::Tick);
    for id in [append, mint, read] {
        assert_eq!(world.outcome(id), Err(Failure::QuorumNotMet { needed: 1, got: 0 }));
    }

    world.finish_loads();
    world.sync();
    assert!(world.replies.is_empty(), "a late end answers nobody twice");
    assert_eq!(world.shard.waiting.len(), 0);
    assert_eq!(world.values("a"), ["1"], "a failed write may still surface");
    assert_eq!(world.values("b"), [""; 0], "one that was not minted in time never is");
}

#[test]
fn no_actor_mints_in_a_partition_of_which_its_core_has_dropped_sets() {
    let mut world = World::new();
    let first = world.written(put("a", "1")).dot;
    let partition = world.shard.ring.partition(&key("a"));
    world.shard.dropped.insert(partition);
    assert_eq!(world.shard.actor(), (ActorId(u64::MAX), 0), "a clean stop leaves a fresh one behind");

    let second = world.written(put("a", "2")).dot;
    assert_eq!((second.actor, second.counter), (ActorId(u64::MAX), 1));
    assert_ne!(first.actor, second.actor);
    assert_eq!(world.shard.actor(), (ActorId(u64::MAX), 1), "what is forgotten is another actor's");
    assert_eq!(world.written(put("a", "3")).dot.counter, 2);
    assert_eq!(world.values("a"), ["3"]);
}

#[test]
fn too_many_siblings_are_refused_with_the_numbers() {
    let mut world = World::new();
    for n in 0..SIBLINGS_MAX {
        world.written(put_as("a", &n.to_string(), Causality::Sibling, None));
    }
    let id = world.ask(put_as("a", "one more", Causality::Sibling, None));
    let refused = world.outcome(id).unwrap_err();
    assert!(refused.to_string().contains("101 siblings, allowed are 100"), "{refused}");
    world.written(put("a", "all replaced"));
    assert_eq!(world.values("a"), ["all replaced"]);
}

#[test]
fn a_context_of_another_key_is_refused() {
    let mut world = World::new();
    world.written(put("x", "1"));
    world.written(put("y", "1"));
    let context = world.get("y").context;
    let id = world.ask(put_as("x", "2", Causality::Context(context), None));
    assert!(matches!(world.outcome(id), Err(Failure::Context(_))));
    assert_eq!(world.values("x"), ["1"]);
}

#[test]
fn a_context_that_has_seen_what_is_not_minted_yet_is_refused() {
    let mut world = World::new();
    let dot = |counter| Dot { actor: ActorId(1), counter };
    let future =
        [Context::of([dot(100)].into_iter().collect()), Context::from_parts(VersionVector::default(), [dot(100)])];
    for context in future {
        let token = context.seal(ClusterId(7), &key("a"));
        let id = world.ask(put_as("a", "1", Causality::Context(token), None));
        assert!(matches!(world.outcome(id), Err(Failure::Context(ContextError::Damaged { .. }))));
        world.written(put("a", "2"));
    }
    let newest = Context::of([dot(2)].into_iter().collect()).seal(ClusterId(7), &key("a"));
    world.written(put_as("a", "3", Causality::Context(newest), None));
    assert_eq!(world.values("a"), ["3"]);
}

/// A store that hangs: loads and listings end when the test says so.
fn hung() -> World {
    let mut world = World::new();
    world.slow_loads = Some(vec![]);
    world
}

fn is_overloaded(outcome: Outcome) -> bool {
    matches!(outcome, Err(Failure::Overloaded { .. }))
}

#[test]
fn a_store_that_hangs_holds_no_more_loads_than_requests_may_wait() {
    let mut world = hung();
    let get = |n: usize| Request::Get(Get { key: key(&n.to_string()), terms: Terms::default() });
    for n in 0..WAITING_MAX {
        world.ask(get(n));
    }
    world.now = world.now + DEADLINE_DEFAULT;
    world.feed(Input::Tick);
    assert_eq!(world.shard.waiting.len(), 0, "all are answered");

    let id = world.ask(get(0));
    assert!(is_overloaded(world.outcome(id)), "the store still owes as many");
    world.finish_loads();
    world.get("0");
}

#[test]
fn a_store_that_hangs_keeps_no_write_whose_deadline_is_over() {
    let mut world = hung();
    let retried = put_as("b", "1", Causality::Blind, Some("op-1"));
    let late = world.ask(put("a", "1"));
    world.now = world.now + DEADLINE_DEFAULT;
    world.feed(Input::Tick);
    assert!(world.outcome(late).is_err());
    assert!(matches!(world.shard.busy.get(&key("a")), Some(Busy::Loading(queue)) if queue.is_empty()));

    world.finish_loads();
    world.ask(retried.clone());
    world.ask(retried);
    assert_eq!(world.shard.awaiting.len(), 2);
    world.now = world.now + DEADLINE_DEFAULT;
    world.feed(Input::Tick);
    assert!(world.shard.awaiting.is_empty());
    world.sync();
    assert_eq!(world.values("b"), ["1"]);
}

#[test]
fn writes_that_wait_for_a_store_that_hangs_are_bounded_by_their_bytes() {
    let mut world = hung();
    let value = "x".repeat(MINTING_BYTES_MAX / 4);
    let taken: Vec<RequestId> = (0..4).map(|n| world.ask(put(&format!("key {n}"), &value))).collect();
    let beyond = world.ask(put("one more", "x"));
    assert!(is_overloaded(world.outcome(beyond)));

    world.finish_loads();
    world.sync();
    assert!(taken.into_iter().all(|id| world.outcome(id).is_ok()));
    world.written(put("one more", "x"));
}

#[test]
fn listings_are_bounded_until_the_store_has_ended_them() {
    let mut shard = Shard::new(Instant(0), birth(1, vec![]));
    let mut effects = Effects::new();
    let keys = Keys { prefix: bytes::Bytes::new(), after: None, limit: 1 };
    let ask = |shard: &mut Shard, id: usize, effects: &mut Effects| {
        let input = Input::Request {
            id: RequestId(id as u64),
            request: Request::Keys(keys.clone()),
            held: Held::Unknown,
            deadline: Instant(0) + DEADLINE_DEFAULT,
        };
        shard.handle(Now::default(), input, effects);
    };
    (0..LISTINGS_MAX).for_each(|id| ask(&mut shard, id, &mut effects));
    assert!(effects.drain(..).all(|effect| matches!(effect, Effect::List { .. })));
    let late = Now { instant: Instant(0) + DEADLINE_DEFAULT, ..Now::default() };
    shard.handle(late, Input::Tick, &mut effects);
    effects.clear();

    ask(&mut shard, LISTINGS_MAX, &mut effects);
    assert!(matches!(&effects[..], [Effect::Reply { outcome: Err(Failure::Overloaded { .. }), .. }]));
    effects.clear();
    shard.handle(late, Input::Listed { id: RequestId(0), page: Ok(Page::default()) }, &mut effects);
    ask(&mut shard, LISTINGS_MAX + 1, &mut effects);
    assert!(matches!(&effects[..], [Effect::List { .. }]));
}

#[test]
fn operations_that_grow_old_together_are_forgotten_a_few_in_each_tick() {
    let mut world = World::new();
    let once = FORGOTTEN_AT_ONCE;
    for n in 0..=once {
        world.ask(put_as("a", "1", Causality::Blind, Some(&n.to_string())));
    }
    world.sync();
    world.now = world.now + OPERATION_MEMORY;
    for left in [1, 0] {
        world.feed(Input::Tick);
        assert_eq!(world.shard.operations.len(), left);
    }
}

#[test]
fn a_quorum_beyond_the_copies_is_refused() {
    let mut world = World::new();
    let terms = Terms { quorum: 2, ..Terms::default() };
    let id = world.ask(Request::Get(Get { key: key("a"), terms }));
    assert_eq!(world.outcome(id), Err(Failure::QuorumImpossible { asked: 2, copies: 1 }));
}

#[test]
fn siblings_tell_who_wrote_what() {
    let mut world = World::new();
    world.written(put_as("a", "1", Causality::Sibling, Some("op-1")));
    world.written(put_as("a", "2", Causality::Sibling, None));
    world.written(Request::Delete(Delete {
        key: key("a"),
        causality: Causality::Sibling,
        operation: None,
        terms: Terms::default(),
    }));
    let id = world.ask(Request::Siblings(key("a")));
    let Ok(Reply::Siblings(copies)) = world.outcome(id) else { panic!("the copies are shown") };
    let told: Vec<_> = copies.copies.iter().map(|copy| (copy.node.as_str(), copy.value.is_none())).collect();
    assert_eq!(told, [("node-a", false), ("node-a", false), ("node-a", true)]);
    assert!(copies.copies[0].operation.is_some());
}
