//! The bytes of every message, as they were when it was first sent or stored. Old bytes stay readable and new bytes
//! stay the same: a line of `golden.txt` that changes is a new version of the protocol or of the format.
//!
//! `SLOOP_GOLDEN=write cargo test golden` writes the file anew.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Bytes, BytesMut};
use smallvec::smallvec;

use super::*;
use crate::protocol::antientropy::{LeafSet, PartitionLeaf};
use crate::protocol::causality::{
    Context, ContextError, Operation, SetLimit, Siblings, Supersedes, Update, Version, VersionVector,
};
use crate::protocol::io::Standing;
use crate::protocol::message::{Copies, Copy, Delete, Keys, NodeInfo, Page, RingMap, RingNode, Written};
use crate::protocol::peer::{
    Ask, Collect, CollectStep, Compare, Known, Merge, Page as PulledPage, Pull, Pulled, Recalled, Refused, Store, Told,
};
use crate::protocol::replica::Remembered;
use crate::protocol::ring::{Cores, LayoutStamp, Partition};
use crate::protocol::types::{ClusterId, CoreId, LengthError, NodeId, OperationId};
use crate::wire::hello::{Features, Greeting, Kind, Limits, Token, VERSIONS, Welcome};
use crate::wire::peer::{PEER_BYTES_MAX, Question, decode_ask, decode_told, encode_misunderstood, encode_told};

const STAND: Standing = Standing { layout: LayoutStamp { number: 3, hash: 0x5eed }, reads: true, round: 2 };

/// What became of some bytes.
#[derive(Debug, PartialEq)]
enum Heard {
    Same,
    Other,
    More,
    Refused,
}

struct Sample {
    name: String,
    bytes: Bytes,
    hear: Box<dyn Fn(Bytes) -> Heard>,
}

impl Sample {
    fn new(name: impl Into<String>, bytes: BytesMut, hear: impl Fn(Bytes) -> Result<Option<bool>> + 'static) -> Sample {
        Sample {
            name: name.into(),
            bytes: bytes.freeze(),
            hear: Box::new(move |bytes| match hear(bytes) {
                Ok(Some(true)) => Heard::Same,
                Ok(Some(false)) => Heard::Other,
                Ok(None) => Heard::More,
                Err(_) => Heard::Refused,
            }),
        }
    }

    fn hello(name: &str, hello: Hello) -> Sample {
        let mut out = BytesMut::new();
        hello.encode(&mut out);
        let hear = move |bytes: Bytes| Ok(Hello::decode(&bytes)?.map(|(heard, _)| heard == hello));
        Sample::new(format!("hello/{name}"), out, hear)
    }

    fn greeting(name: &str, greeting: Greeting) -> Sample {
        let mut out = BytesMut::new();
        encode_greeting(&mut out, &greeting);
        let hear = move |bytes: Bytes| Ok(decode_greeting(&bytes)?.map(|(heard, _)| heard == greeting));
        Sample::new(format!("greeting/{name}"), out, hear)
    }

    fn call(name: &str, call: Call) -> Sample {
        Sample::new(format!("call/{name}"), call_frame(&call), move |bytes| {
            let heard = next_frame(&mut BytesMut::from(bytes), CALL_BYTES_MAX, decode_call)?;
            Ok(heard.transpose()?.map(|heard| heard == call))
        })
    }

    fn answer(name: &str, answer: Answer) -> Sample {
        Sample::new(format!("answer/{name}"), answer_frame(&answer), move |bytes| {
            let heard = next_frame(&mut BytesMut::from(bytes), ANSWER_BYTES_MAX, decode_answer)?;
            Ok(heard.transpose()?.map(|heard| heard == answer))
        })
    }

    fn ask(name: &str, ask: Ask) -> Sample {
        let question = Question { stand: STAND, deadline_ms: 1_500, ask };
        Sample::new(format!("ask/{name}"), ask_frame(&question), move |bytes| {
            let heard = next_frame(&mut BytesMut::from(bytes), PEER_BYTES_MAX, decode_ask)?;
            Ok(heard.transpose()?.map(|heard| heard == question))
        })
    }

    fn told(name: &str, told: std::result::Result<Told, Failure>) -> Sample {
        let mut out = BytesMut::new();
        match &told {
            Ok(told) => encode_told(&mut out, CallId(7), told),
            Err(failure) => encode_misunderstood(&mut out, CallId(7), failure),
        }
        Sample::new(format!("told/{name}"), out, move |bytes| {
            let heard = next_frame(&mut BytesMut::from(bytes), PEER_BYTES_MAX, decode_told)?;
            Ok(heard.transpose()?.map(|heard| heard == told))
        })
    }

    fn is_frame(&self) -> bool {
        ["call/", "answer/", "ask/", "told/"].iter().any(|kind| self.name.starts_with(kind))
    }

    fn part<T: PartialEq + 'static>(
        name: &str,
        part: T,
        put: fn(&mut BytesMut, &T),
        get: fn(&mut Reader) -> Result<T>,
    ) -> Sample {
        let mut out = BytesMut::new();
        put(&mut out, &part);
        Sample::new(name, out, move |bytes| {
            let mut reader = Reader::new(&bytes);
            let heard = get(&mut reader)?;
            reader.end()?;
            Ok(Some(heard == part))
        })
    }
}

fn dot(actor: u64, counter: u64) -> Dot {
    Dot { actor: ActorId(actor), counter }
}

fn text(value: &'static str) -> Value {
    Value::new(value).unwrap()
}

fn id() -> Option<OperationId> {
    Some(OperationId::new("op-1").unwrap())
}

fn terms() -> Terms {
    Terms { quorum: 2, strict: true, retry: true, deadline_ms: 1_500 }
}

fn ring_map(owners: Option<Vec<u16>>) -> RingMap {
    let node = |name: &str, address: SocketAddr, is_up| RingNode {
        node: NodeId::of(name),
        name: name.to_owned(),
        address,
        cores: Cores { count: 4, salt: 42 },
        is_up,
    };
    let nodes = vec![
        node("a", SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), 7_600), true),
        node("b", SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 7_610), false),
    ];
    RingMap { stamp: LayoutStamp { number: 3, hash: 0x5eed }, partitions: 2, copies: 2, nodes, owners }
}

fn level() -> Level {
    Level { n: 3, quorum: 2, owners: 2, fallbacks: 1, hedged: true }
}

pub(super) fn plain_hello() -> Hello {
    Hello { versions: VERSIONS, features: Features::default(), kind: Kind::Client, core: None, token: Token::default() }
}

fn handshakes() -> Vec<Sample> {
    let token = Hello {
        features: Features::TLS,
        kind: Kind::Peer,
        core: Some(CoreId(3)),
        token: Token::new("secret").unwrap(),
        ..plain_hello()
    };
    let welcome = Welcome {
        version: 1,
        features: Features::default(),
        cluster: ClusterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        core: CoreId(1),
        cores: 4,
        salt: 0x0102_0304_0506_0708,
        partitions: 1_024,
        limits: Limits { request_bytes: 16_842_752, answer_bytes: 67_108_864, in_flight: 1_024 },
        node: "node-a".to_owned(),
    };
    vec![
        Sample::hello("plain", plain_hello()),
        Sample::hello("peer", token),
        Sample::greeting("welcome", Ok(welcome)),
        Sample::greeting("refusal", Err(Failure::Unauthorized)),
    ]
}

fn calls() -> Vec<Sample> {
    let get = Request::Get(Get { key: key("cart:17"), terms: terms() });
    let put = |causality, operation| {
        Request::Put(Put {
            key: key("cart:17"),
            value: text("two apples"),
            causality,
            operation,
            terms: Terms::default(),
        })
    };
    let delete = Request::Delete(Delete {
        key: key("cart:17"),
        causality: Causality::Context(Bytes::from_static(b"token")),
        operation: id(),
        terms: terms(),
    });
    let keys = |after| Request::Keys(Keys { prefix: Bytes::from_static(b"cart:"), after, limit: 100 });
    vec![
        Sample::call("get", Call::One(get.clone())),
        Sample::call("put-blind", Call::One(put(Causality::Blind, None))),
        Sample::call("put-sibling", Call::One(put(Causality::Sibling, id()))),
        Sample::call("delete-context", Call::One(delete)),
        Sample::call("siblings", Call::One(Request::Siblings(key("cart:17")))),
        Sample::call("keys-first", Call::One(keys(None))),
        Sample::call("keys-next", Call::One(keys(Some(key("cart:17"))))),
        Sample::call("many", Call::Many(vec![get, put(Causality::Blind, None)])),
        Sample::call("ping", Call::Ping),
        Sample::call("info", Call::Info),
        Sample::call("ring", Call::Ring { known: LayoutStamp { number: 3, hash: 0x5eed } }),
    ]
}

fn answers() -> Vec<Sample> {
    let context = Bytes::from_static(b"token");
    let found = Reply::Found(Found {
        siblings: vec![Sibling {
            dot: dot(0xa, 7),
            value: text("two apples"),
            written_at: WallTime(1_728_000_000_000),
        }],
        context: context.clone(),
        level: level(),
    });
    let absent = Reply::Found(Found { siblings: vec![], context: Bytes::new(), level: Level::default() });
    let written = Reply::Written(Written {
        dot: dot(0xa, 8),
        context: context.clone(),
        superseded: smallvec![dot(0xa, 7), dot(0xb, 1)],
        written_at: WallTime(1_728_000_000_001),
        remembered: true,
        level: level(),
    });
    let copy = |counter, value, operation| Copy {
        dot: dot(0xa, counter),
        node: "node-a".to_owned(),
        value,
        written_at: WallTime(1_728_000_000_002),
        operation,
    };
    let copies =
        Reply::Siblings(Copies { copies: vec![copy(8, Some(text("two apples")), id()), copy(9, None, None)], context });
    let page = Reply::Keys(Page { keys: vec![key("cart:17"), key("cart:4")], more: true });
    let info = NodeInfo {
        name: "node-a".to_owned(),
        version: "0.1.0".to_owned(),
        cluster: ClusterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        cores: 4,
        core: CoreId(1),
        salt: 0x0102_0304_0506_0708,
        partitions: 1_024,
        uptime_ms: 86_400_000,
    };
    vec![
        Sample::answer("found", Answer::One(Ok(found))),
        Sample::answer("found-absent", Answer::One(Ok(absent.clone()))),
        Sample::answer("written", Answer::One(Ok(written.clone()))),
        Sample::answer("copies", Answer::One(Ok(copies))),
        Sample::answer("page", Answer::One(Ok(page))),
        Sample::answer("many", Answer::Many(vec![Ok(absent), Ok(written), Err(Failure::DiskFull)])),
        Sample::answer("pong", Answer::Pong),
        Sample::answer("info", Answer::Info(info)),
        Sample::answer("ring", Answer::Ring(ring_map(Some(vec![1, 0, 0, 1])))),
        Sample::answer("ring-known", Answer::Ring(ring_map(None))),
    ]
}

fn failures() -> Vec<Sample> {
    let length = |what, bytes, min, max| Failure::Length(LengthError { what, bytes, min, max });
    let all = [
        ("malformed", Failure::Malformed { reason: "kind of call: unknown tag 9".to_owned() }),
        ("key-length", length("key", 1_025, 1, 1_024)),
        ("value-length", length("value", 10_485_761, 0, 10_485_760)),
        ("operation-length", length("operation id", 65, 1, 64)),
        ("context-damaged", ContextError::Damaged { bytes: 5 }.into()),
        ("context-format", ContextError::Format { format: 2 }.into()),
        ("context-other-cluster", ContextError::OtherCluster.into()),
        ("context-other-key", ContextError::OtherKey.into()),
        ("set-siblings", SetLimit::Siblings { siblings: 101, max: 100 }.into()),
        ("set-bytes", SetLimit::Bytes { bytes: 16_777_217, max: 16_777_216 }.into()),
        ("set-clock", SetLimit::Clock { entries: 4_097, max: 4_096 }.into()),
        ("operation-reused", Failure::OperationReused),
        ("quorum-impossible", Failure::QuorumImpossible { asked: 4, copies: 3 }),
        ("unauthorized", Failure::Unauthorized),
        ("version", Failure::Version { min: 1, max: 1 }),
        ("overloaded", Failure::Overloaded { retry_after_ms: 50 }),
        ("disk-full", Failure::DiskFull),
        ("stopping", Failure::Stopping),
        ("connections", Failure::Connections { open: 1_024, max: 1_024 }),
        ("quorum-not-met", Failure::QuorumNotMet { needed: 2, got: 1 }),
        ("writes-stopped", Failure::WritesStopped { core: CoreId(1) }),
        ("unreadable", Failure::Unreadable { reason: "checksum of 0001.sst".to_owned() }),
        ("reply-too-large", Failure::ReplyTooLarge { bytes: 70_000_000, max: 67_108_864 }),
    ];
    let sample = |(name, failure)| Sample::answer(&format!("failure-{name}"), Answer::One(Err(failure)));
    all.into_iter().map(sample).collect()
}

fn operation() -> Operation {
    Operation { id: id().unwrap(), digest: 0x1122_3344_5566_7788 }
}

fn two_versions() -> Siblings {
    let version = |dot, value, operation| Version {
        dot,
        value,
        written_at: WallTime(1_728_000_000_000),
        expires_at: None,
        operation,
    };
    let versions =
        [version(dot(0xa, 7), Some(text("two apples")), Some(Box::new(operation()))), version(dot(0xb, 1), None, None)];
    Siblings::new([dot(0xa, 9), dot(0xb, 1)].into_iter().collect(), versions).unwrap()
}

fn remembers() -> Box<Remembered> {
    Box::new(Remembered {
        operation: operation(),
        dot: dot(0xa, 7),
        written_at: WallTime(1_728_000_000_000),
        superseded: smallvec![dot(0xa, 3)],
        context: Context::from_parts([dot(0xa, 9)].into_iter().collect(), [dot(0xc, 4)]),
    })
}

fn asks() -> Vec<Sample> {
    let version = two_versions().version(dot(0xa, 7)).unwrap().clone();
    let upon: VersionVector = [dot(0xa, 6)].into_iter().collect();
    let store = |remember, stands_for| {
        let update = Update { version: version.clone(), upon: upon.clone(), supersedes: Supersedes::Held };
        Ask::Store(std::sync::Arc::new(Store { key: key("cart:17"), update, remember, stands_for }))
    };
    let merge = |remember: Vec<Remembered>, stands_for| {
        let set = std::sync::Arc::new(two_versions());
        Ask::Merge(Merge { key: key("cart:17"), set, remember, stands_for })
    };
    let fetch = |known| Ask::Fetch { key: key("cart:17"), known };
    let get = Request::Get(Get { key: key("cart:17"), terms: terms() });
    vec![
        Sample::ask("store", store(None, None)),
        Sample::ask("store-remember-stands-for", store(Some(remembers()), Some(NodeId(0xd)))),
        Sample::ask("merge", merge(vec![], None)),
        Sample::ask("merge-remember-stands-for", merge(vec![*remembers()], Some(NodeId(0xd)))),
        Sample::ask("fetch", fetch(None)),
        Sample::ask("fetch-known", fetch(Some(0x1234))),
        Sample::ask("recall", Ask::Recall { key: key("cart:17"), operation: operation() }),
        Sample::ask("forward", Ask::Forward(Box::new(get))),
    ]
}

fn asks_of_trees() -> Vec<Sample> {
    let partitions = [3, 4, 17].map(Partition);
    let pull = |after: Option<&str>, through: Option<&str>, known: &[u64], takes| {
        let leaves: LeafSet = [0, 63].map(PartitionLeaf).into_iter().collect();
        let (after, through) = (after.map(key), through.map(key));
        Ask::Pull(Box::new(Pull { partition: Partition(5), leaves, after, through, known: known.into(), takes }))
    };
    let collect = |step| Ask::Collect(Box::new(Collect { partition: Partition(5), round: 9, step }));
    vec![
        Sample::ask("compare", Ask::Compare(Compare { partitions: partitions.into(), digest: 0x1234 })),
        Sample::ask("tree", Ask::Tree { partition: Partition(5), branch: None }),
        Sample::ask("tree-branch", Ask::Tree { partition: Partition(5), branch: Some(7) }),
        Sample::ask("pull", pull(None, None, &[], true)),
        Sample::ask("pull-within", pull(Some("cart:17"), Some("cart:18"), &[1, 2], false)),
        Sample::ask("collect-agree", collect(CollectStep::Agree(vec![(key("cart:17"), 0x1234)]))),
        Sample::ask("collect-drain", collect(CollectStep::Drain)),
        Sample::ask("collect-retire", collect(CollectStep::Retire(vec![true, false, true]))),
        Sample::ask("collect-forget", collect(CollectStep::Forget(vec![false; 9]))),
    ]
}

fn told_of_trees() -> Vec<Sample> {
    let pulled = |remember| Pulled { key: key("cart:17"), set: std::sync::Arc::new(two_versions()), remember };
    let page = |sets, met, next: Option<&str>| Ok(Told::Page(Box::new(PulledPage { sets, met, next: next.map(key) })));
    vec![
        Sample::told("digests", Ok(Told::Digests(vec![1, 0x1234]))),
        Sample::told("page-empty", page(vec![], vec![], None)),
        Sample::told(
            "page",
            page(vec![pulled(vec![]), pulled(vec![*remembers()])], vec![true, false], Some("cart:17")),
        ),
        Sample::told("collected", Ok(Told::Collected(vec![true]))),
        Sample::told("refused-round", Ok(Told::Refused(Refused::Round(7)))),
        Sample::told("refused-hollow", Ok(Told::Refused(Refused::Hollow))),
    ]
}

fn told() -> Vec<Sample> {
    let set = || Some(std::sync::Arc::new(two_versions()));
    let recalled = |known, set| Ok(Told::Recalled(Box::new(Recalled { known, set })));
    let refused = |name: &str, refused| Sample::told(&format!("refused-{name}"), Ok(Told::Refused(refused)));
    vec![
        Sample::told("stored", Ok(Told::Stored)),
        Sample::told("behind", Ok(Told::Behind)),
        Sample::told("same", Ok(Told::Same)),
        Sample::told("set", Ok(Told::Set(set()))),
        Sample::told("set-none", Ok(Told::Set(None))),
        Sample::told("recalled-unknown", recalled(Known::Unknown, None)),
        Sample::told("recalled-minted", recalled(Known::Minted(remembers()), set())),
        Sample::told("recalled-reused", recalled(Known::Reused, set())),
        Sample::told("outcome", Ok(Told::Outcome(Box::new(Err(Failure::DiskFull))))),
        refused("layout", Refused::Layout(LayoutStamp { number: 4, hash: 0xfeed })),
        refused("overloaded", Refused::Overloaded),
        refused("disk-full", Refused::DiskFull),
        refused("writes-stopped", Refused::WritesStopped),
        refused("hints-full", Refused::HintsFull),
        refused("unreadable", Refused::Unreadable),
        refused("stopping", Refused::Stopping),
        refused("too-late", Refused::TooLate),
        Sample::told("misunderstood", Err(Failure::Malformed { reason: "kind of ask: unknown tag 47".to_owned() })),
    ]
}

fn stored() -> Vec<Sample> {
    let operation = operation();
    let version = |dot, value, expires_at, operation| Version {
        dot,
        value,
        written_at: WallTime(1_728_000_000_000),
        expires_at,
        operation,
    };
    let vector: VersionVector = [dot(0xa, 9), dot(0xb, 1)].into_iter().collect();
    let full = version(
        dot(0xa, 7),
        Some(text("two apples")),
        Some(WallTime(1_728_000_600_000)),
        Some(Box::new(operation.clone())),
    );
    let tombstone = version(dot(0xb, 1), None, None, None);
    let set = Siblings::new(vector.clone(), [full.clone(), tombstone]).unwrap();
    let context = Context::from_parts(vector.clone(), [dot(0xc, 4)]);
    let update = |supersedes| Update { version: full.clone(), upon: vector.clone(), supersedes };
    let remembered = Remembered {
        operation,
        dot: dot(0xa, 7),
        written_at: WallTime(1_728_000_000_000),
        superseded: smallvec![dot(0xa, 3)],
        context: context.clone(),
    };
    let update_sample = |name, supersedes| {
        Sample::part(name, update(supersedes), |out, update| put_update(out, update.borrowed()), get_update)
    };
    vec![
        Sample::part("set/empty", Siblings::default(), put_set, get_set),
        Sample::part("set/two", set, put_set, get_set),
        update_sample("update/held", Supersedes::Held),
        update_sample("update/nothing", Supersedes::Nothing),
        update_sample("update/seen", Supersedes::Seen(context)),
        Sample::part("remembered", remembered, put_remembered, get_remembered),
    ]
}

fn samples() -> Vec<Sample> {
    [handshakes(), calls(), answers(), failures(), asks(), asks_of_trees(), told(), told_of_trees(), stored()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn golden_bytes_stay_the_same_and_stay_readable() {
    let samples = samples();
    let lines: Vec<String> =
        samples.iter().map(|sample| format!("{} {}\n", sample.name, hex::encode(&sample.bytes))).collect();
    if std::env::var("SLOOP_GOLDEN").is_ok_and(|wish| wish == "write") {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/wire/tests/golden.txt"), lines.concat()).unwrap();
        return;
    }
    let golden: Vec<&str> = include_str!("golden.txt").lines().collect();
    assert_eq!(golden.len(), samples.len());
    for (sample, line) in samples.iter().zip(golden) {
        let (name, bytes) = line.split_once(' ').unwrap();
        assert_eq!((name, bytes), (sample.name.as_str(), hex::encode(&sample.bytes).as_str()));
        assert_eq!((sample.hear)(hex::decode(bytes).unwrap().into()), Heard::Same, "{name}");
    }
}

#[test]
fn what_is_cut_at_any_byte_is_refused_or_waits_for_more() {
    for sample in samples() {
        for length in 0..sample.bytes.len() {
            let heard = (sample.hear)(sample.bytes.slice(..length));
            assert!(
                matches!(heard, Heard::More | Heard::Refused),
                "{} cut at {length} of {}: {heard:?}",
                sample.name,
                sample.bytes.len()
            );
        }
    }
}

/// A frame that is whole by its length, but whose body ends too early.
#[test]
fn a_body_that_is_cut_at_any_byte_is_refused() {
    for sample in samples().into_iter().filter(Sample::is_frame) {
        for length in 13..sample.bytes.len() {
            let mut cut = BytesMut::from(&sample.bytes[..length]);
            cut[..4].copy_from_slice(&u32::try_from(length - 4).unwrap().to_le_bytes());
            assert_eq!((sample.hear)(cut.freeze()), Heard::Refused, "{} cut at {length}", sample.name);
        }
    }
}

#[test]
fn a_byte_too_many_is_refused() {
    for sample in samples().into_iter().filter(Sample::is_frame) {
        let mut longer = BytesMut::from(&sample.bytes[..]);
        longer.extend_from_slice(&[0]);
        let length = u32::try_from(longer.len() - 4).unwrap();
        longer[..4].copy_from_slice(&length.to_le_bytes());
        assert_eq!((sample.hear)(longer.freeze()), Heard::Refused, "{}", sample.name);
    }
}
