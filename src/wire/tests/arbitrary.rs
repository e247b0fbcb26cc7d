//! Any message, for properties.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use smallvec::SmallVec;

use crate::protocol::antientropy::LeafSet;
use crate::protocol::causality::{
    Context, ContextError, Operation, SetLimit, Siblings, Supersedes, Update, Version, VersionVector,
};
use crate::protocol::config::PARTITIONS_MAX;
use crate::protocol::io::Standing;
use crate::protocol::message::{
    Answer, Call, Causality, Copies, Copy, Delete, Failure, Found, Get, Keys, Level, NodeInfo, Outcome, Page, Put,
    Reply, Request, RingMap, RingNode, Sibling, Terms, Written,
};
use crate::protocol::peer::{
    Ask, Collect, CollectStep, Compare, Known, Merge, Pull, Pulled, Recalled, Refused, Store, Told,
};
use crate::protocol::replica::Remembered;
use crate::protocol::ring::{Cores, LayoutStamp, Partition};
use crate::protocol::types::{ActorId, ClusterId, CoreId, Dot, Key, LengthError, NodeId, OperationId, Value, WallTime};
use crate::wire::call::PAGE_LIMIT_MAX;
use crate::wire::hello::{Features, Greeting, Hello, Kind, Limits, Token, Versions, Welcome};
use crate::wire::peer::Question;

fn bytes(length: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), length).prop_map(Bytes::from)
}

fn key() -> impl Strategy<Value = Key> {
    bytes(1..40).prop_map(|bytes| Key::new(bytes).unwrap())
}

fn value() -> impl Strategy<Value = Value> {
    let large = (20_000..70_000_usize, any::<u8>()).prop_map(|(length, byte)| Bytes::from(vec![byte; length]));
    prop_oneof![9 => bytes(0..60).boxed(), 1 => large.boxed()].prop_map(|bytes| Value::new(bytes).unwrap())
}

fn operation_id() -> impl Strategy<Value = OperationId> {
    bytes(1..64).prop_map(|bytes| OperationId::new(bytes).unwrap())
}

fn dot() -> impl Strategy<Value = Dot> {
    (0..5_u64, 1..50_u64)
        .prop_map(|(actor, counter)| Dot { actor: ActorId(actor.wrapping_mul(0x9e37_79b9_7f4a_7c15)), counter })
}

fn dots() -> impl Strategy<Value = SmallVec<[Dot; 1]>> {
    prop::collection::vec(dot(), 0..4).prop_map(SmallVec::from)
}

fn wall_time() -> impl Strategy<Value = WallTime> {
    any::<u64>().prop_map(WallTime)
}

fn vector() -> impl Strategy<Value = VersionVector> {
    dots().prop_map(|dots| dots.into_iter().collect())
}

fn context() -> impl Strategy<Value = Context> {
    (vector(), dots()).prop_map(|(vector, dots)| Context::from_parts(vector, dots))
}

fn operation() -> impl Strategy<Value = Operation> {
    (operation_id(), any::<u64>()).prop_map(|(id, digest)| Operation { id, digest })
}

fn version() -> impl Strategy<Value = Version> {
    (
        dot(),
        prop::option::of(value()),
        wall_time(),
        prop::option::of(wall_time()),
        prop::option::of(operation().prop_map(Box::new)),
    )
        .prop_map(|(dot, value, written_at, expires_at, operation)| Version {
            dot,
            value,
            written_at,
            expires_at,
            operation,
        })
}

pub(super) fn set() -> impl Strategy<Value = Siblings> {
    (vector(), prop::collection::vec(version(), 0..4)).prop_map(|(mut vector, mut versions)| {
        versions.sort_by_key(|version| version.dot);
        versions.dedup_by_key(|version| version.dot);
        versions.iter().for_each(|version| vector.see(version.dot));
        Siblings::new(vector, versions).unwrap()
    })
}

pub(super) fn update() -> impl Strategy<Value = Update> {
    let supersedes =
        prop_oneof![Just(Supersedes::Held), Just(Supersedes::Nothing), context().prop_map(Supersedes::Seen),];
    (version(), vector(), supersedes).prop_map(|(version, upon, supersedes)| Update { version, upon, supersedes })
}

pub(super) fn remembered() -> impl Strategy<Value = Remembered> {
    (operation(), dot(), wall_time(), dots(), context()).prop_map(
        |(operation, dot, written_at, superseded, context)| Remembered {
            operation,
            dot,
            written_at,
            superseded,
            context,
        },
    )
}

pub(super) fn hello() -> impl Strategy<Value = Hello> {
    let kind = prop_oneof![Just(Kind::Client), Just(Kind::Peer), Just(Kind::Members)];
    let core = prop::option::of((0..u16::MAX).prop_map(CoreId));
    (any::<(u16, u16, u64)>(), kind, core, bytes(0..=256)).prop_map(|((min, max, features), kind, core, token)| Hello {
        versions: Versions { min, max },
        features: Features(features),
        kind,
        core,
        token: Token::new(token).unwrap(),
    })
}

pub(super) fn greeting() -> impl Strategy<Value = Greeting> {
    let fields = any::<(u16, u64, u128, u16, u16, u64, u16)>();
    let welcome = (fields, any::<(u32, u32, u32)>(), "[a-zü]{0,20}").prop_map(
        |((version, features, cluster, core, cores, salt, partitions), limits, node)| Welcome {
            version,
            features: Features(features),
            cluster: ClusterId(cluster),
            core: CoreId(core),
            cores,
            salt,
            partitions,
            limits: Limits { request_bytes: limits.0, answer_bytes: limits.1, in_flight: limits.2 },
            node,
        },
    );
    prop_oneof![welcome.prop_map(Ok), failure().prop_map(Err)]
}

fn terms() -> impl Strategy<Value = Terms> {
    any::<(u8, bool, bool, u32)>().prop_map(|(quorum, strict, retry, deadline_ms)| Terms {
        quorum,
        strict,
        retry,
        deadline_ms,
    })
}

fn causality() -> impl Strategy<Value = Causality> {
    prop_oneof![Just(Causality::Blind), Just(Causality::Sibling), bytes(0..90).prop_map(Causality::Context),]
}

fn get() -> impl Strategy<Value = Request> {
    (key(), terms()).prop_map(|(key, terms)| Request::Get(Get { key, terms }))
}

fn put() -> impl Strategy<Value = Request> {
    (key(), value(), causality(), prop::option::of(operation_id()), terms()).prop_map(
        |(key, value, causality, operation, terms)| Request::Put(Put { key, value, causality, operation, terms }),
    )
}

fn delete() -> impl Strategy<Value = Request> {
    (key(), causality(), prop::option::of(operation_id()), terms())
        .prop_map(|(key, causality, operation, terms)| Request::Delete(Delete { key, causality, operation, terms }))
}

fn keys() -> impl Strategy<Value = Request> {
    (bytes(0..20), prop::option::of(key()), 1..=PAGE_LIMIT_MAX)
        .prop_map(|(prefix, after, limit)| Request::Keys(Keys { prefix, after, limit }))
}

pub(super) fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        get().prop_map(Call::One),
        put().prop_map(Call::One),
        delete().prop_map(Call::One),
        key().prop_map(Request::Siblings).prop_map(Call::One),
        keys().prop_map(Call::One),
        prop::collection::vec(prop_oneof![get(), put()], 0..5).prop_map(Call::Many),
        Just(Call::Ping),
        Just(Call::Info),
        any::<(u64, u64)>().prop_map(|(number, hash)| Call::Ring { known: LayoutStamp { number, hash } }),
    ]
}

fn level() -> impl Strategy<Value = Level> {
    any::<(u8, u8, u8, u8, bool)>().prop_map(|(n, quorum, owners, fallbacks, hedged)| Level {
        n,
        quorum,
        owners,
        fallbacks,
        hedged,
    })
}

fn found() -> impl Strategy<Value = Reply> {
    let sibling = (dot(), value(), wall_time()).prop_map(|(dot, value, written_at)| Sibling { dot, value, written_at });
    (prop::collection::vec(sibling, 0..4), bytes(0..90), level())
        .prop_map(|(siblings, context, level)| Reply::Found(Found { siblings, context, level }))
}

fn written() -> impl Strategy<Value = Reply> {
    (dot(), bytes(0..90), dots(), wall_time(), any::<bool>(), level()).prop_map(
        |(dot, context, superseded, written_at, remembered, level)| {
            Reply::Written(Written { dot, context, superseded, written_at, remembered, level })
        },
    )
}

fn copies() -> impl Strategy<Value = Reply> {
    let operation = prop::option::of(operation_id());
    let copy = (dot(), "[a-zü]{0,20}", prop::option::of(value()), wall_time(), operation)
        .prop_map(|(dot, node, value, written_at, operation)| Copy { dot, node, value, written_at, operation });
    (prop::collection::vec(copy, 0..4), bytes(0..90))
        .prop_map(|(copies, context)| Reply::Siblings(Copies { copies, context }))
}

fn page() -> impl Strategy<Value = Reply> {
    (prop::collection::vec(key(), 0..5), any::<bool>()).prop_map(|(keys, more)| Reply::Keys(Page { keys, more }))
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![found().prop_map(Ok), written().prop_map(Ok), failure().prop_map(Err),]
}

fn info() -> impl Strategy<Value = NodeInfo> {
    let fields = any::<(u128, u16, u16, u64, u16, u64)>();
    ("[a-z]{0,9}", "[0-9.]{0,9}", fields).prop_map(
        |(name, version, (cluster, cores, core, salt, partitions, uptime_ms))| NodeInfo {
            name,
            version,
            cluster: ClusterId(cluster),
            cores,
            core: CoreId(core),
            salt,
            partitions,
            uptime_ms,
        },
    )
}

fn ring_map() -> impl Strategy<Value = RingMap> {
    let node = ("[a-zü]{0,20}", any::<(std::net::SocketAddr, u64, bool)>(), 1..=u16::MAX).prop_map(
        |(name, (address, salt, is_up), count)| RingNode {
            node: NodeId::of(&name),
            name,
            // What a flow and a scope of an address mean ends at the machine.
            address: std::net::SocketAddr::new(address.ip(), address.port()),
            cores: Cores { count, salt },
            is_up,
        },
    );
    let numbers = (any::<(u64, u64)>(), 0..=6_u32, any::<usize>(), any::<bool>());
    (prop::collection::vec(node, 1..6), numbers).prop_map(|(nodes, ((number, hash), partitions, chance, is_known))| {
        let (partitions, copies) = (1_u16 << partitions, chance % nodes.len() + 1);
        let owner = |at: usize| (at.wrapping_mul(chance | 1) % nodes.len()) as u16;
        let owners = (!is_known).then(|| (0..usize::from(partitions) * copies).map(owner).collect());
        RingMap { stamp: LayoutStamp { number, hash }, partitions, copies: copies as u8, nodes, owners }
    })
}

pub(super) fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        outcome().prop_map(Answer::One),
        copies().prop_map(Ok).prop_map(Answer::One),
        page().prop_map(Ok).prop_map(Answer::One),
        prop::collection::vec(outcome(), 0..5).prop_map(Answer::Many),
        Just(Answer::Pong),
        info().prop_map(Answer::Info),
        ring_map().prop_map(Answer::Ring),
    ]
}

pub(super) fn failure() -> impl Strategy<Value = Failure> {
    let length = |what, min| {
        (0..1_000_000_000_usize, 0..1_000_000_usize)
            .prop_map(move |(bytes, max)| Failure::Length(LengthError { what, bytes, min, max }))
    };
    let sizes = || (0..1_000_000_usize, 0..1_000_000_usize);
    prop_oneof![
        ".{0,40}".prop_map(|reason| Failure::Malformed { reason }),
        prop_oneof![length("key", 1), length("value", 0), length("operation id", 1)],
        (0..1_000_000_usize).prop_map(|bytes| ContextError::Damaged { bytes }.into()),
        any::<u8>().prop_map(|format| ContextError::Format { format }.into()),
        Just(ContextError::OtherCluster.into()),
        Just(ContextError::OtherKey.into()),
        sizes().prop_map(|(siblings, max)| SetLimit::Siblings { siblings, max }.into()),
        sizes().prop_map(|(bytes, max)| SetLimit::Bytes { bytes, max }.into()),
        sizes().prop_map(|(entries, max)| SetLimit::Clock { entries, max }.into()),
        plain_failure(),
    ]
}

fn plain_failure() -> impl Strategy<Value = Failure> {
    let other = (300..u16::MAX, any::<(u64, u64)>(), ".{0,40}");
    prop_oneof![
        Just(Failure::OperationReused),
        any::<(u8, u8)>().prop_map(|(asked, copies)| Failure::QuorumImpossible { asked, copies }),
        any::<(u8, u8)>().prop_map(|(needed, got)| Failure::QuorumNotMet { needed, got }),
        any::<u32>().prop_map(|retry_after_ms| Failure::Overloaded { retry_after_ms }),
        Just(Failure::DiskFull),
        any::<u16>().prop_map(|core| Failure::WritesStopped { core: CoreId(core) }),
        ".{0,40}".prop_map(|reason| Failure::Unreadable { reason }),
        any::<(u64, u64)>().prop_map(|(bytes, max)| Failure::ReplyTooLarge { bytes, max }),
        Just(Failure::Stopping),
        Just(Failure::Unauthorized),
        any::<(u16, u16)>().prop_map(|(min, max)| Failure::Version { min, max }),
        any::<(u32, u32)>().prop_map(|(open, max)| Failure::Connections { open, max }),
        other.prop_map(|(code, (first, second), text)| Failure::Other { code, first, second, text }),
    ]
}

fn stamp() -> impl Strategy<Value = LayoutStamp> {
    any::<(u64, u64)>().prop_map(|(number, hash)| LayoutStamp { number, hash })
}

fn stands_for() -> impl Strategy<Value = Option<NodeId>> {
    prop::option::of(any::<u64>().prop_map(NodeId))
}

fn partition() -> impl Strategy<Value = Partition> {
    (0..PARTITIONS_MAX).prop_map(Partition)
}

fn bits() -> impl Strategy<Value = Vec<bool>> {
    prop::collection::vec(any::<bool>(), 0..20)
}

fn digests() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(any::<u64>(), 0..20)
}

fn ask_of_trees() -> impl Strategy<Value = Ask> {
    let compare = (prop::collection::btree_set(partition(), 1..20), any::<u64>())
        .prop_map(|(partitions, digest)| Compare { partitions: partitions.into_iter().collect(), digest });
    let tree = (partition(), prop::option::of(0..8_u8)).prop_map(|(partition, branch)| Ask::Tree { partition, branch });
    let bounds = (prop::option::of(key()), prop::option::of(key()));
    let pull = (partition(), any::<u64>(), bounds, digests(), any::<bool>()).prop_map(
        |(partition, leaves, (after, through), known, takes)| Pull {
            partition,
            leaves: LeafSet(leaves),
            after,
            through,
            known: known.into(),
            takes,
        },
    );
    let step = prop_oneof![
        prop::collection::vec((key(), any::<u64>()), 0..5).prop_map(CollectStep::Agree),
        Just(CollectStep::Drain),
        bits().prop_map(CollectStep::Retire),
        bits().prop_map(CollectStep::Forget),
    ];
    let collect =
        (partition(), any::<u32>(), step).prop_map(|(partition, round, step)| Collect { partition, round, step });
    prop_oneof![
        compare.prop_map(Ask::Compare),
        tree,
        pull.prop_map(|pull| Ask::Pull(Box::new(pull))),
        collect.prop_map(|collect| Ask::Collect(Box::new(collect))),
    ]
}

fn told_of_trees() -> impl Strategy<Value = Told> {
    let pulled = (key(), set().prop_map(Arc::new), prop::collection::vec(remembered(), 0..3))
        .prop_map(|(key, set, remember)| Pulled { key, set, remember });
    let page = (prop::collection::vec(pulled, 0..4), bits(), prop::option::of(key()))
        .prop_map(|(sets, met, next)| crate::protocol::peer::Page { sets, met, next });
    prop_oneof![
        digests().prop_map(Told::Digests),
        page.prop_map(|page| Told::Page(Box::new(page))),
        bits().prop_map(Told::Collected),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let store = (key(), update(), prop::option::of(remembered().prop_map(Box::new)), stands_for())
        .prop_map(|(key, update, remember, stands_for)| Store { key, update, remember, stands_for });
    let merge = (key(), set().prop_map(Arc::new), prop::collection::vec(remembered(), 0..3), stands_for())
        .prop_map(|(key, set, remember, stands_for)| Merge { key, set, remember, stands_for });
    let forwarded = prop_oneof![get(), put(), delete(), key().prop_map(Request::Siblings)];
    prop_oneof![
        ask_of_trees(),
        store.prop_map(|store| Ask::Store(Arc::new(store))),
        merge.prop_map(Ask::Merge),
        (key(), any::<Option<u64>>()).prop_map(|(key, known)| Ask::Fetch { key, known }),
        (key(), operation()).prop_map(|(key, operation)| Ask::Recall { key, operation }),
        forwarded.prop_map(|request| Ask::Forward(Box::new(request))),
    ]
}

pub(super) fn question() -> impl Strategy<Value = Question> {
    (stamp(), any::<(bool, u32, u32)>(), ask()).prop_map(|(layout, (reads, round, deadline_ms), ask)| Question {
        stand: Standing { layout, reads, round },
        deadline_ms,
        ask,
    })
}

fn refused() -> impl Strategy<Value = Refused> {
    prop_oneof![
        stamp().prop_map(Refused::Layout),
        any::<u32>().prop_map(Refused::Round),
        Just(Refused::Hollow),
        Just(Refused::Overloaded),
        Just(Refused::DiskFull),
        Just(Refused::WritesStopped),
        Just(Refused::HintsFull),
        Just(Refused::Unreadable),
        Just(Refused::Stopping),
        Just(Refused::TooLate),
    ]
}

pub(super) fn told() -> impl Strategy<Value = Told> {
    let known = prop_oneof![
        Just(Known::Unknown),
        remembered().prop_map(|remembered| Known::Minted(Box::new(remembered))),
        Just(Known::Reused),
    ];
    let some_set = || prop::option::of(set().prop_map(Arc::new));
    prop_oneof![
        told_of_trees(),
        Just(Told::Stored),
        Just(Told::Behind),
        Just(Told::Same),
        some_set().prop_map(Told::Set),
        (known, some_set()).prop_map(|(known, set)| Told::Recalled(Box::new(Recalled { known, set }))),
        outcome().prop_map(|outcome| Told::Outcome(Box::new(outcome))),
        refused().prop_map(Told::Refused),
    ]
}
