//! Noise and real messages that were changed on the way, by several connections at once. The node answers what can be
//! answered, drops what cannot be read, keeps its memory, and a client beside it notices nothing.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use sloop::client::{Causality, Client};
use sloop::protocol::message::{Call, Delete, Get, Keys, Put, Request, Terms};
use sloop::protocol::types::{Key, OperationId, Value};
use sloop::wire::frame::ANSWER_BYTES_MAX;
use sloop::wire::hello::{Features, Kind, Token, VERSIONS, decode_greeting};
use sloop::wire::{CallId, Hello, decode_answer, encode_call, next_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::bystander::Bystander;
use crate::dice::{Dice, seed, setting};
use crate::harness::{Home, LIMIT, Node};

const CONNECTIONS: u64 = 8;
const BURST_FRAMES_MAX: u64 = 400;

/// Length, id and kind: what stands before a body.
const HEAD: usize = 4 + 8 + 1;

const MEMORY: &str = "192MiB";

/// What the second half of the noise may leave in memory beyond the first: the allocator's own, and keys that noise has
/// made up and the cache has room for.
const GROWTH_MAX: u64 = 48 * 1_024 * 1_024;

#[test]
fn half_a_million_frames_of_noise_hurt_nobody() {
    let frames = setting("SLOOP_TEST_FRAMES", 30_000);
    let home = Home::new();
    let node = home.start_with(&["--cores", "2", "--memory", MEMORY]);
    let real = real_frames(node.binary);
    let bystander = Bystander::begin(node.binary);
    let mut dice = Dice(seed());

    let empty = node.memory();
    let first = make_noise(node.binary, &real, frames / 2, &mut dice);
    let half = node.memory();
    let second = make_noise(node.binary, &real, frames - frames / 2, &mut dice);
    let all = node.memory();

    bystander.end("noise on the binary port");
    println!("{frames} frames, {} answers, seed {}", first + second, seed());
    assert_kept(node, empty, half, all);
}

#[test]
fn mutated_http_requests_hurt_nobody() {
    let requests = setting("SLOOP_TEST_FRAMES", 30_000) / 15;
    let home = Home::new();
    let node = home.start_with(&["--cores", "2", "--memory", MEMORY]);
    node.put("k", "v");
    let bystander = Bystander::begin(node.binary);
    let mut dice = Dice(seed());

    let empty = node.memory();
    let first = make_http_noise(node.http, requests / 2, &mut dice);
    let half = node.memory();
    let second = make_http_noise(node.http, requests - requests / 2, &mut dice);
    let all = node.memory();

    bystander.end("noise on the HTTP port");
    println!("{requests} requests, {} replies, seed {}", first + second, seed());
    assert_eq!(node.values("k").len(), 1);
    assert_kept(node, empty, half, all);
}

fn assert_kept(mut node: Node, empty: u64, half: u64, all: u64) {
    let mib = |bytes| bytes / 1_024 / 1_024;
    println!("memory: {} MiB at first, {} MiB after a half, {} MiB after all", mib(empty), mib(half), mib(all));
    assert!(node.is_running());
    let ended = node.kill();
    assert!(!ended.said.contains("panicked") && !ended.said.contains("a bug"), "{}", ended.said);
    assert!(all < half + GROWTH_MAX, "{} MiB after a half, {} MiB after all", mib(half), mib(all));
}

/// A frame of every kind of call, as our client spells them, with contexts that the node has given out.
fn real_frames(to: SocketAddr) -> Vec<Vec<u8>> {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let context = runtime.block_on(async {
        let client = Client::connect(to.to_string()).await.unwrap();
        client.put("a", "1").await.unwrap().context
    });
    let key = |name: &str| Key::new(name).unwrap();
    let terms = Terms { quorum: 1, deadline_ms: 1_000, ..Terms::default() };
    let id = |name: &str| Some(OperationId::new(name).unwrap());
    let get = |name: &str| Request::Get(Get { key: key(name), terms });
    let put = |name: &str, bytes, causality, operation| {
        let value = Value::new(vec![b'v'; bytes]).unwrap();
        Request::Put(Put { key: key(name), value, causality, operation, terms })
    };
    let delete =
        |name: &str, causality, operation| Request::Delete(Delete { key: key(name), causality, operation, terms });
    let seen = || Causality::Context(context.clone());
    let keys = |after: Option<Key>| Request::Keys(Keys { prefix: Bytes::from("a"), after, limit: 10 });
    let one = [
        get("a"),
        get(&"k".repeat(1_024)),
        put("a", 10, Causality::Blind, None),
        put("a", 0, Causality::Sibling, None),
        put("a", 100, seen(), id("an-operation")),
        put("b", 20_000, Causality::Blind, id("another")),
        delete("a", Causality::Blind, None),
        delete("a", seen(), id("a-third")),
        Request::Siblings(key("a")),
        keys(None),
        keys(Some(key("aa"))),
    ];
    let many = Call::Many(vec![get("a"), put("c", 50, Causality::Blind, None), get("b"), put("a", 5, seen(), id("x"))]);
    let calls = one.into_iter().map(Call::One).chain([many, Call::Many(vec![]), Call::Ping, Call::Info]);
    let spell = |call: Call| {
        let mut out = BytesMut::new();
        encode_call(&mut out, CallId(7), &call).unwrap();
        out.to_vec()
    };
    calls.map(spell).collect()
}

/// Sends so many frames, and gives how many answers there were.
fn make_noise(to: SocketAddr, real: &[Vec<u8>], frames: u64, dice: &mut Dice) -> u64 {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut noise = JoinSet::new();
        for _ in 0..CONNECTIONS {
            noise.spawn(make_noise_alone(to, real.to_vec(), frames / CONNECTIONS, dice.split()));
        }
        noise.join_all().await.into_iter().sum()
    })
}

async fn make_noise_alone(to: SocketAddr, real: Vec<Vec<u8>>, frames: u64, mut dice: Dice) -> u64 {
    let (mut sent, mut answers) = (0, 0);
    while sent < frames {
        let burst = (1 + dice.below(BURST_FRAMES_MAX)).min(frames - sent);
        sent += burst;
        let mut hello = BytesMut::new();
        our_hello().encode(&mut hello);
        if dice.below(10) == 0 {
            turn_bits(&mut hello, &mut dice);
        }
        let mut bytes: Vec<u8> = (1..burst).flat_map(|_| mutated(&real, &mut dice)).collect();
        // The last one may be such that nothing behind it could be read.
        bytes.extend(if dice.below(2) == 0 { mutated(&real, &mut dice) } else { broken(&real, &mut dice) });
        let ends = timeout(LIMIT, converse(to, &hello, &bytes));
        answers += ends.await.expect("a connection that sends no more is answered and closed");
    }
    answers
}

fn our_hello() -> Hello {
    Hello { versions: VERSIONS, features: Features::default(), kind: Kind::Client, core: None, token: Token::default() }
}

/// Says all this, and reads until the node closes. What it says must be well-formed whatever it hears; where it cut the
/// stream off, the network may lose the end of it.
async fn converse(to: SocketAddr, hello: &[u8], frames: &[u8]) -> u64 {
    let (mut from_node, mut to_node) = TcpStream::connect(to).await.unwrap().into_split();
    let say = async {
        // The node may have hung up already.
        let _ = to_node.write_all(hello).await;
        let _ = to_node.write_all(frames).await;
        let _ = to_node.shutdown().await;
    };
    let mut heard = BytesMut::new();
    let hear = async { while from_node.read_buf(&mut heard).await.is_ok_and(|bytes| bytes > 0) {} };
    tokio::join!(say, hear);

    let Some((greeting, taken)) = decode_greeting(&heard).expect("a greeting") else { return 0 };
    if greeting.is_err() {
        return 0;
    }
    let mut heard = heard.split_off(taken);
    let mut answers = 0;
    while let Some(answer) = next_frame(&mut heard, ANSWER_BYTES_MAX, decode_answer).expect("a frame") {
        answer.expect("an answer");
        answers += 1;
    }
    answers
}

/// A frame that is one, whatever stands in it.
fn mutated(real: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut frame = real[dice.index(real.len())].clone();
    match dice.below(7) {
        0 => {
            frame = vec![0; HEAD + dice.index(200)];
            frame.iter_mut().for_each(|byte| *byte = dice.next() as u8);
        }
        1 => turn_bits(&mut frame[4..], dice),
        2 => frame.truncate(HEAD + dice.index(frame.len() - HEAD + 1)),
        3 => {
            // The head of one and the tail of another.
            let other = &real[dice.index(real.len())];
            frame.truncate(HEAD + dice.index(frame.len() - HEAD + 1));
            frame.extend(&other[dice.index(other.len())..]);
        }
        4 => {
            let (from, to) = (dice.index(frame.len()), dice.index(frame.len()));
            let part = frame[from.min(to)..from.max(to)].to_vec();
            let at = HEAD + dice.index(frame.len() - HEAD + 1);
            frame.splice(at..at, part);
        }
        5 if frame.len() > HEAD => {
            // Where a length may stand, one that is very wrong.
            let at = HEAD + dice.index(frame.len() - HEAD);
            let end = frame.len().min(at + 1 + dice.index(4));
            frame[at..end].fill([0x00, 0x7f, 0x80, 0xff][dice.index(4)]);
        }
        _ => frame[12] = dice.next() as u8,
    }
    let length = u32::try_from(frame.len() - 4).unwrap();
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame
}

/// Bytes behind which no frame can be found.
fn broken(real: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut frame = mutated(real, dice);
    match dice.below(3) {
        0 => frame[..4].copy_from_slice(&(dice.next() as u32).to_le_bytes()),
        1 => frame.truncate(dice.index(frame.len())),
        _ => frame.iter_mut().for_each(|byte| *byte = dice.next() as u8),
    }
    frame
}

fn turn_bits(bytes: &mut [u8], dice: &mut Dice) {
    for _ in 0..=dice.below(8) {
        bytes[dice.index(bytes.len())] ^= 1 << dice.below(8);
    }
}

fn real_requests() -> Vec<Vec<u8>> {
    let body = r#"{"valueBase64":"dmFsdWU=","nodeId":"n","opId":"op","context":"none"}"#;
    let with_body = |method: &str, path: &str, headers: &str, body: &str| {
        let length = body.len();
        format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n{headers}\r\n{body}").into_bytes()
    };
    let raw = "Content-Type: application/octet-stream\r\nX-Sloop-Op-Id: op\r\nX-Sloop-Context: none\r\n";
    let chunked = "PUT /kv/c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    vec![
        with_body("PUT", "/kv/a", "Content-Type: application/json\r\n", body),
        with_body("PUT", "/kv/a%20b?w=1&deadline_ms=1000&consistency=strict&retry=true", raw, "bytes"),
        with_body("DELETE", "/kv/a", "", r#"{"nodeId":"n","opId":"op"}"#),
        format!("{chunked}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes(),
        b"GET /kv/a?r=1 HTTP/1.1\r\nHost: a\r\nX-Deadline-Ms: 1000\r\nAccept: application/octet-stream\r\n\r\n"
            .to_vec(),
        b"GET /debug/siblings/a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"GET /admin/anti-entropy/merkle-snapshot?startToken=-9&endToken=9&leafCount=16 HTTP/1.1\r\nHost: a\r\n\r\n"
            .to_vec(),
        b"GET /admin/info HTTP/1.1\r\nHost: a\r\n\r\nGET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"GET /health/ready HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n".to_vec(),
    ]
}

/// Sends so many requests, each on a connection of its own, and gives how many were replied to.
fn make_http_noise(to: SocketAddr, requests: u64, dice: &mut Dice) -> u64 {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let real = real_requests();
    runtime.block_on(async {
        let mut noise = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (real, mut dice) = (real.clone(), dice.split());
            noise.spawn(async move {
                let mut replies = 0;
                for _ in 0..requests / CONNECTIONS {
                    let request = mutated_request(&real, &mut dice);
                    let ends = timeout(LIMIT, converse_http(to, &request));
                    replies += ends.await.expect("a connection that sends no more is closed");
                }
                replies
            });
        }
        noise.join_all().await.into_iter().sum()
    })
}

fn mutated_request(real: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut request = real[dice.index(real.len())].clone();
    match dice.below(5) {
        0 => turn_bits(&mut request, dice),
        1 => request.truncate(dice.index(request.len())),
        2 => {
            let other = &real[dice.index(real.len())];
            request.truncate(dice.index(request.len()));
            request.extend(&other[dice.index(other.len())..]);
        }
        3 => {
            let at = dice.index(request.len());
            let part = vec![b"\r\n :%{}\0A9/"[dice.index(11)]; 1 + dice.index(2_000)];
            request.splice(at..at, part);
        }
        _ => {
            let at = dice.index(request.len());
            let end = request.len().min(at + 1 + dice.index(20));
            request[at..end].iter_mut().for_each(|byte| *byte = dice.next() as u8);
        }
    }
    request
}

/// Whether there was a reply. None may say that the node itself failed.
async fn converse_http(to: SocketAddr, request: &[u8]) -> u64 {
    let (mut from_node, mut to_node) = TcpStream::connect(to).await.unwrap().into_split();
    let _ = to_node.write_all(request).await;
    let _ = to_node.shutdown().await;
    let mut heard = vec![];
    let _ = from_node.read_to_end(&mut heard).await;
    let text = String::from_utf8_lossy(&heard);
    assert!(heard.is_empty() || text.starts_with("HTTP/1."), "{text:.200}");
    assert!(!text.contains("HTTP/1.1 500"), "{text:.200} to {}", request.escape_ascii());
    u64::from(!heard.is_empty())
}
