//! A core without an executor, for the tests of what stands around it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metrics::NoopRecorder;

use super::clock::Clock;
use super::core::{Core, Parts};
use super::holdings::Holdings;
use super::mail::{Arrival, Caller, Errand, Job, NOTICES_MAX, Notice, Wish};
use super::metrics::CoreMetrics;
use super::slots::Slots;
use crate::protocol::antientropy::Forest;
use crate::protocol::config;
use crate::protocol::message::NodeInfo;
use crate::protocol::planted::Planted;
use crate::protocol::ring::{Cores, Layout, LayoutRow, Liveness, Member, Ring, View, Wanted};
use crate::protocol::shard::{Birth, Shard};
use crate::protocol::types::{ActorId, ClusterId, CoreId, Key, LogId, NodeId};
use crate::store::wal::log::LogConfig;
use crate::store::{Engine, EngineConfig};

const MIB: u64 = 1024 * 1024;

pub(super) const CORES: Cores = Cores { count: 2, salt: 1 };

/// Core 0 of two, of which the other one never turns, and neither does a store thread.
pub(super) struct World {
    pub(super) core: Core,
    pub(super) other: flume::Receiver<Errand>,
    pub(super) jobs: flume::Receiver<Job>,
    pub(super) wishes: flume::Receiver<Wish>,
    pub(super) notices: flume::Receiver<Notice>,
    _own: flume::Receiver<Errand>,
}

impl World {
    /// Replies of 64 KiB may wait for slow clients.
    pub(super) fn new() -> World {
        let (clock, id) = (Clock::start(), CoreId(0));
        let (own_inbox, own) = flume::unbounded();
        let (other_inbox, other) = flume::unbounded();
        let (store, jobs) = flume::unbounded();
        let (wish, wishes) = flume::unbounded();
        let (notice, notices) = flume::bounded(NOTICES_MAX);
        let info = NodeInfo {
            name: "node-a".to_owned(),
            version: String::new(),
            cluster: ClusterId(7),
            cores: CORES.count,
            core: id,
            salt: CORES.salt,
            partitions: ring().partitions(),
            uptime_ms: 0,
        };
        let parts = Parts {
            id,
            clock,
            shard: Shard::new(clock.instant(), birth(id)),
            engine: Engine::new(engine(id), vec![], Forest::default()),
            ring: ring(),
            cores: CORES,
            info,
            mesh: vec![own_inbox, other_inbox],
            store,
            metrics: CoreMetrics::new(Arc::new(NoopRecorder), id),
            holdings: Arc::new(Holdings::new(CORES.count)),
            replies_bytes_max: 65_536,
            asks_bytes_max: 1024 * 1024,
            wishes: wish,
            notices: notice,
        };
        World { core: Core::new(parts, Rc::default(), Rc::default()), other, jobs, wishes, notices, _own: own }
    }
}

/// A view of this node, and of others: their names and cores.
pub(super) fn view(others: &[(&str, SocketAddr, Cores)]) -> Arc<View> {
    let member = |name: &str, address, cores| Member {
        node: NodeId::of(name),
        name: name.into(),
        incarnation: 1,
        is_removed: false,
        address,
        http: address,
        cores,
        liveness: Liveness::Up,
    };
    let here = member("node-a", ([127, 0, 0, 1], 1).into(), CORES);
    let mut members: Vec<Member> = others.iter().map(|(name, address, cores)| member(name, *address, *cores)).collect();
    members.push(here);
    members.sort_unstable_by_key(|member| member.node);
    let row = LayoutRow { node: NodeId::of("node-a"), incarnation: 1, zone: "a".into(), weight: 1 };
    let layout = Arc::new(Layout::founding(ring().partitions(), Wanted { n: 3, r: 2, w: 2 }, row));
    Arc::new(View { me: NodeId::of("node-a"), epoch: 1, layout, change: None, members })
}

pub(super) fn ring() -> Ring {
    Ring::new(16)
}

/// A key that belongs to this core.
pub(super) fn key_of(core: CoreId) -> Key {
    let mut keys = (0..).map(|n: u32| Key::new(n.to_string()).unwrap());
    keys.find(|key| CORES.of(ring().partition(key)) == core).unwrap()
}

fn birth(core: CoreId) -> Birth {
    Birth {
        cluster: ClusterId(7),
        core,
        actor: ActorId(1),
        counter: 0,
        spare: ActorId(u64::MAX),
        view: Arc::new(View::alone("node-a", CORES, 16)),
        directory: Arc::default(),
        remembered: vec![],
        hints: Vec::new(),
        seed: 1,
        transfer_rate: config::TRANSFER_BYTES_PER_SECOND,
        compare_period: config::COMPARE_PERIOD,
        keeps_hints: true,
        tombstone_age: config::TOMBSTONE_AGE,
        planted: Planted::NONE,
    }
}

fn engine(core: CoreId) -> EngineConfig {
    let log = LogConfig {
        id: LogId { start: 1, core },
        write_bytes_max: 65_536,
        segment_bytes_min: MIB,
        segment_bytes_max: MIB,
        retry: Duration::ZERO,
    };
    EngineConfig {
        overlay_bytes_max: 8 * MIB,
        queue_bytes_max: MIB,
        cache_bytes: MIB,
        chunk_bytes: MIB,
        chunk_age: Duration::from_secs(60),
        log_bytes_max: 8 * MIB,
        retry: Duration::ZERO,
        ring: ring(),
        seed: 7,
        log,
        planted: Planted::NONE,
    }
}

/// A client and what a core is given of it.
pub(super) fn arrival() -> (TcpStream, Arrival) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    // Longer than any answer takes, so that a test whose answer never comes ends.
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.set_nodelay(true).unwrap();
    let (socket, peer) = listener.accept().unwrap();
    let slot = Slots::new(1, 1).take(None).unwrap();
    (client, Arrival { socket, leftover: Bytes::new(), peer, slot, caller: Caller::Client })
}
