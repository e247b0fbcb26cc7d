//! One core without an executor: what goes in by errands and mail, and what comes out of its channels.

use metrics::NoopRecorder;

use super::*;
use crate::protocol::causality::Siblings;
use crate::protocol::coordinator::quorum::Copies;
use crate::protocol::message::{Found, Get, Terms};
use crate::protocol::shard::Birth;
use crate::protocol::types::{ClusterId, LogId};
use crate::store::EngineConfig;
use crate::store::wal::log::LogConfig;

const MIB: u64 = 1024 * 1024;

/// Core 0 of two, of which the other one never turns.
struct World {
    core: Core,
    other: flume::Receiver<Errand>,
    _own: flume::Receiver<Errand>,
    _store: flume::Receiver<Job>,
}

impl World {
    fn new() -> World {
        let (clock, ring, id) = (Clock::start(), Ring::new(16), CoreId(0));
        let cores = Cores { count: 2, salt: 1 };
        let (own_inbox, own) = flume::unbounded();
        let (other_inbox, other) = flume::unbounded();
        let (store, jobs) = flume::unbounded();
        let birth = Birth {
            cluster: ClusterId(7),
            core: id,
            actor: ActorId(1),
            counter: 0,
            copies: Copies::of(1),
            directory: Arc::default(),
            remembered: vec![],
            seed: 1,
        };
        let log = LogConfig {
            id: LogId { start: 1, core: id },
            write_bytes_max: 65_536,
            segment_bytes_min: MIB,
            segment_bytes_max: MIB,
            retry: Duration::ZERO,
        };
        let engine = EngineConfig {
            overlay_bytes_max: 8 * MIB,
            queue_bytes_max: MIB,
            cache_bytes: MIB,
            chunk_bytes: MIB,
            chunk_age: Duration::from_secs(60),
            log_bytes_max: 8 * MIB,
            retry: Duration::ZERO,
            ring,
            seed: 7,
            log,
        };
        let info = NodeInfo {
            name: "node-a".to_owned(),
            version: String::new(),
            cluster: ClusterId(7),
            cores: cores.count,
            core: id,
            salt: cores.salt,
            partitions: ring.partitions(),
            uptime_ms: 0,
        };
        let parts = Parts {
            id,
            clock,
            shard: Shard::new(clock.instant(), birth),
            engine: Engine::new(engine, vec![]),
            ring,
            cores,
            info,
            mesh: vec![own_inbox, other_inbox],
            store,
            metrics: CoreMetrics::new(&NoopRecorder, id),
            replies_bytes_max: 65_536,
        };
        World { core: Core::new(parts, Rc::default(), Rc::default()), other, _own: own, _store: jobs }
    }

    /// Asks for a key of the other core.
    fn ask_other(&mut self, deadline_ms: u32) -> oneshot::Receiver<Outcome> {
        let mut keys = (0..).map(|n: u32| Key::new(n.to_string()).unwrap());
        let theirs = |key: &Key| self.core.parts.cores.of(self.core.parts.ring.partition(key)) == CoreId(1);
        let key = keys.find(theirs).unwrap();
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
    let level = Copies::of(1).read(0).unwrap().level();
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
    assert!(!world.core.is_busy() && world.core.forwarded.is_empty());
}
