//! One core without an executor: what goes in by errands and mail, and what comes out of its channels.

use std::task::{Context, Waker};

use super::*;
use crate::protocol::causality::Siblings;
use crate::protocol::coordinator::quorum::Copies;
use crate::protocol::message::{Found, Get, Outcome, Reply, Terms};
use crate::protocol::ring::View;
use crate::protocol::types::{ClusterId, RequestId};
use crate::runtime::samples::{World, key_of};

impl World {
    /// Asks for a key of the other core.
    fn ask_other(&mut self, deadline_ms: u32) -> oneshot::Receiver<Outcome> {
        let key = key_of(CoreId(1));
        let (answer, reply) = oneshot::channel();
        let request = Request::Get(Get { key, terms: Terms { deadline_ms, ..Terms::default() } });
        self.core.on_knock(Knock::Ask { request, answer });
        reply
    }

    fn ticket(&self) -> RequestId {
        match self.other.try_recv() {
            Ok(Errand::Forward { ticket, .. }) => ticket,
            other => panic!("{other:?}"),
        }
    }
}

fn found() -> Outcome {
    let level = Copies::of(&View::alone("a", Cores { count: 1, salt: 0 }, 1).layout).read(0).unwrap().level();
    let context = Siblings::default().context().seal(ClusterId(7), &Key::new("a").unwrap());
    Ok(Reply::Found(Found { siblings: vec![], context, level }))
}

#[test]
fn a_forwarded_request_ends_by_its_deadline_when_the_other_core_says_nothing() {
    let mut world = World::new();
    let mut reply = world.ask_other(1);
    let ticket = world.ticket();
    let answer = loop {
        world.core.on_tick();
        if let Ok(answer) = reply.try_recv() {
            break answer;
        }
    };
    assert_eq!(answer, Err(Failure::QuorumNotMet { needed: 1, got: 0 }));
    assert!(!world.core.is_busy());

    world.core.on_errand(Errand::Answered { ticket, outcome: found() });
    assert!(!world.core.is_busy(), "a late answer answers nobody twice");
}

#[test]
fn a_forwarded_request_is_answered_by_the_other_core() {
    let mut world = World::new();
    let mut reply = world.ask_other(60_000);
    let ticket = world.ticket();
    world.core.on_tick();
    assert!(world.core.is_busy());

    world.core.on_errand(Errand::Answered { ticket, outcome: found() });
    assert_eq!(reply.try_recv(), Ok(found()));
    assert!(!world.core.is_busy() && world.core.pending.overdue(Instant(u64::MAX)).is_none());
}

#[test]
fn a_turn_that_leaves_something_under_way_wakes_an_idle_heartbeat() {
    let mut world = World::new();
    let context = Context::from_waker(Waker::noop());
    world.core.flush();
    assert!(!world.core.busy().poll_raised(&context));

    let _reply = world.ask_other(60_000);
    world.core.flush();

    assert!(world.core.busy().poll_raised(&context));
}
