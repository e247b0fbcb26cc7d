//! Clients that hold a connection and do nothing good with it: they say nothing, say it slowly, stay for no reason,
//! never read; thousands of them at once. Others are served meanwhile, memory is bounded, each is dropped in its
//! documented time, and when they are gone nothing of them is left.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sloop::client::Client;
use sloop::protocol::message::{Call, Get, Request, Terms};
use sloop::protocol::types::Key;
use sloop::wire::hello::{Features, Kind, Token, VERSIONS, decode_greeting};
use sloop::wire::{CallId, Hello, encode_call};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::bystander::Bystander;
use crate::dice::setting;
use crate::harness::{Home, LIMIT, Node, eventually};

/// Descriptors that the node and the tests need besides.
const DESCRIPTORS_ELSEWHERE: u64 = 2_000;

/// What may stay when they have gone. The allocator keeps some of what it is given back; half of the node's memory is
/// far below what they asked for, and above what it was ever seen to keep.
const LEFT_MAX: u64 = MEMORY / 2;
const MEMORY: u64 = 192 * MIB;

/// What a connection that says nothing may cost.
const CONNECTION_MAX: u64 = 8 * 1_024;
const MIB: u64 = 1_024 * 1_024;

/// Bytes of a value that fills what the network takes unread after a few answers.
const LARGE: usize = 1_024 * 1_024;

/// Connections that say nothing: four times as many as may stand at the door.
const STRANGERS: u64 = 1_000;

/// Connections that say their hello at once; more would wait for each other at the door.
const AT_THE_DOOR: u64 = 64;

pub(super) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// As many as are asked for, or as the limit on descriptors allows, which is said.
fn possible(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let allowed = if setrlimit(Resource::Nofile, all).is_ok() { limit.maximum } else { limit.current };
    let room = allowed.map_or(wanted, |allowed| allowed.saturating_sub(DESCRIPTORS_ELSEWHERE));
    if room < wanted {
        println!("{room} connections instead of {wanted}: {allowed:?} descriptors are allowed");
    }
    room.min(wanted)
}

fn spelt_hello() -> BytesMut {
    let mut hello = BytesMut::new();
    let features = Features::default();
    Hello { versions: VERSIONS, features, kind: Kind::Client, core: None, token: Token::default() }.encode(&mut hello);
    hello
}

/// A connection that was welcomed.
pub(super) async fn welcomed(to: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(to).await.unwrap();
    socket.write_all(&spelt_hello()).await.unwrap();
    let mut heard = BytesMut::new();
    while decode_greeting(&heard).unwrap().is_none() {
        assert!(socket.read_buf(&mut heard).await.unwrap() > 0, "closed after {heard:?}");
    }
    assert!(decode_greeting(&heard).unwrap().unwrap().0.is_ok(), "it is welcome");
    socket
}

async fn welcomed_many(to: SocketAddr, count: u64) -> Vec<TcpStream> {
    let mut coming = JoinSet::new();
    let mut there = vec![];
    for _ in 0..count {
        if coming.len() as u64 == AT_THE_DOOR {
            there.push(coming.join_next().await.unwrap().unwrap());
        }
        coming.spawn(welcomed(to));
    }
    there.extend(coming.join_all().await);
    there
}

/// How long the node keeps a connection from now on. What it says before it hangs up is passed over.
#[expect(clippy::disallowed_methods, reason = "how long it lasts is measured by a clock")]
pub(super) async fn lasts(mut socket: TcpStream) -> Duration {
    let begun = Instant::now();
    let ends = async {
        let mut passed_over = [0; 4_096];
        while socket.read(&mut passed_over).await.is_ok_and(|bytes| bytes > 0) {}
    };
    timeout(LIMIT, ends).await.expect("the node hangs up");
    begun.elapsed()
}

/// Sends the bytes one by one, one a second, until the node hangs up; gives how long that took.
#[expect(clippy::disallowed_methods, reason = "how long it lasts is measured by a clock")]
pub(super) async fn drips(socket: TcpStream, bytes: &[u8]) -> Duration {
    let begun = Instant::now();
    let (from_node, mut to_node) = socket.into_split();
    let drip = async {
        let mut second = interval(Duration::from_secs(1));
        for byte in bytes {
            second.tick().await;
            if to_node.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let hangs_up = async {
        let (mut from_node, mut passed_over) = (from_node, [0; 4_096]);
        while from_node.read(&mut passed_over).await.is_ok_and(|bytes| bytes > 0) {}
    };
    tokio::select! {
        () = drip => {}
        ended = timeout(LIMIT, hangs_up) => ended.expect("the node hangs up"),
    }
    begun.elapsed()
}

/// Nothing of those that have gone is left: only these connections are open.
pub(super) fn assert_gone(node: &Node, open: u32, memory_before: u64) {
    eventually("the connections are gone", || node.metric("sloop_connections") == f64::from(open));
    let mut memory = 0;
    eventually("the memory comes back", || {
        memory = node.memory();
        memory < memory_before + LEFT_MAX
    });
    println!("memory: {} MiB before, {} MiB after", memory_before / MIB, memory / MIB);
}

#[test]
fn ten_thousand_silent_clients_cost_little_and_leave_nothing() {
    let count = possible(setting("SLOOP_TEST_CONNECTIONS", 10_000));
    let home = Home::new();
    let node = home.start_with(&["--memory", "192MiB", "--connections-max", &(count + 100).to_string()]);
    let bystander = Bystander::begin(node.binary);
    let before = node.memory();

    let runtime = runtime();
    let silent = runtime.block_on(welcomed_many(node.binary, count));
    eventually("all are counted", || node.metric("sloop_connections") == (count + 1) as f64);
    let full = node.memory();
    println!("{count} connections: {} bytes each", (full - before) / count);
    assert!(full < before + count * CONNECTION_MAX, "{} MiB before, {} MiB", before / MIB, full / MIB);

    drop((silent, runtime));
    assert_gone(&node, 1, before);
    bystander.end("ten thousand silent clients");
}

/// Those that say nothing stand at the door, not on a core. Who comes behind them and says its hello is let in.
#[test]
fn strangers_that_say_nothing_keep_nobody_out_and_are_sent_away() {
    let home = Home::new();
    let node = home.start_with(&["--memory", "192MiB"]);
    let bystander = Bystander::begin(node.binary);
    let before = node.memory();

    runtime().block_on(async {
        let mut strangers = JoinSet::new();
        for n in 0..STRANGERS {
            let to = node.binary;
            strangers.spawn(async move {
                let socket = TcpStream::connect(to).await.unwrap();
                if n % 2 == 0 { lasts(socket).await } else { drips(socket, &spelt_hello()).await }
            });
        }
        for _ in 0..20 {
            let comes = timeout(LIMIT, Client::connect(node.binary.to_string()));
            let client = comes.await.unwrap().expect("who says hello is let in within the time of a client, 2 s");
            client.ping().await.unwrap();
        }
        let lasted = strangers.join_all().await;
        println!("{STRANGERS} strangers stayed for up to {:.1?}", lasted.iter().max().unwrap());
        assert!(lasted.iter().all(|lasted| *lasted < Duration::from_secs(5 + 3)), "5 s are allowed");
    });
    assert_gone(&node, 1, before);
    bystander.end("strangers that say nothing");
}

#[test]
fn clients_that_stay_for_no_reason_are_dropped_after_the_idle_time() {
    let home = Home::new();
    let node = home.start_with(&["--memory", "192MiB", "--idle-timeout", "2s"]);
    let bystander = Bystander::begin(node.binary);
    let before = node.memory();
    runtime().block_on(async {
        let idle: JoinSet<Duration> = welcomed_many(node.binary, 500).await.into_iter().map(lasts).collect();
        let lasted = idle.join_all().await;
        println!("500 idle clients stayed for up to {:.1?}", lasted.iter().max().unwrap());
        assert!(*lasted.iter().max().unwrap() < Duration::from_secs(2 + 3));
    });
    assert_eq!(node.metric("sloop_connections_dropped_total"), 500.0);
    assert_gone(&node, 1, before);
    bystander.end("idle clients");
}

/// Asks for large values again and again, and reads nothing but the welcome.
pub(super) async fn ask_and_never_read(to: SocketAddr, calls: u64) -> TcpStream {
    let mut socket = welcomed(to).await;
    let mut out = BytesMut::new();
    for id in 1..=calls {
        let get = Get { key: Key::new("large").unwrap(), terms: Terms::default() };
        encode_call(&mut out, CallId(id), &Call::One(Request::Get(get))).unwrap();
    }
    socket.write_all(&out).await.unwrap();
    socket
}

pub(super) async fn put_large(to: SocketAddr) {
    Client::connect(to.to_string()).await.unwrap().put("large", vec![b'v'; LARGE]).await.unwrap();
}

/// Two hundred that ask for two hundred megabytes each: more than the room for answers. Those that take it are dropped
/// early, the others are told that there is none; who reads gets what was asked for.
#[test]
fn clients_that_never_read_take_a_bounded_room_and_no_time() {
    let home = Home::new();
    let node = home.start_with(&["--memory", "192MiB"]);
    let bystander = Bystander::begin(node.binary);
    let runtime = runtime();
    runtime.block_on(put_large(node.binary));
    let before = node.memory();
    let (mut most, mut read) = (before, 0);

    runtime.block_on(async {
        let deaf: JoinSet<TcpStream> = (0..200).map(|_| ask_and_never_read(node.binary, 200)).collect();
        let deaf = deaf.join_all().await;
        let reader = Client::connect(node.binary.to_string()).await.unwrap();
        while node.metric("sloop_connections_dropped_total") == 0.0 || read < 20 {
            let large = timeout(LIMIT, reader.get("large")).await.unwrap().expect("who reads is served");
            assert_eq!(large.siblings()[0].value.len(), LARGE);
            read += 1;
            most = most.max(node.memory());
        }
        drop(deaf);
    });
    drop(runtime);
    let dropped = node.metric("sloop_connections_dropped_total");
    println!("{dropped} dropped; memory: {} MiB before, {} MiB at most", before / MIB, most / MIB);
    assert!(most < before + MEMORY, "{} MiB at most", most / MIB);
    assert_gone(&node, 1, before);
    bystander.end("clients that never read");
}
