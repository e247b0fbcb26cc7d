//! Connections of a core without an executor: each turn is the test's.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use bytes::{Buf, BytesMut};

use super::*;
use crate::protocol::causality::{Siblings, Supersedes, Write as Written};
use crate::protocol::message::{Answer, Call, Causality, Get, Put, Reply, Request, Terms};
use crate::protocol::types::{ActorId, CoreId, Dot, Value, WallTime};
use crate::runtime::mail::{Errand, Finished, Job};
use crate::runtime::samples::{World, arrival, key_of};
use crate::wire::frame::ANSWER_BYTES_MAX;
use crate::wire::{decode_answer, encode_call, next_frame};

const LIMIT: Duration = Duration::from_secs(20);

/// Large enough that a few of them fill what the network takes unread.
const LARGE: usize = 512 * 1024;

/// Room for two calls of half its size, and their keys.
const ROOM: usize = 1024 * 1024 + 1024;

struct Node {
    world: World,
    connections: Connections,
}

struct Client {
    socket: TcpStream,
    read: BytesMut,
}

impl Node {
    fn new() -> Node {
        Node { world: World::new(), connections: Connections::new(Poller::new().unwrap(), ROOM) }
    }

    fn join(&mut self) -> Client {
        let (socket, arrival) = arrival();
        socket.set_nonblocking(true).unwrap();
        self.connections.welcome(self.world.core.instant(), arrival).unwrap();
        Client { socket, read: BytesMut::new() }
    }

    fn turn(&mut self) -> Turned {
        self.world.core.begin_turn();
        self.connections.turn(&mut self.world.core)
    }

    /// The most connections that had something in one turn.
    fn turn_until(&mut self, what: &str, mut is_so: impl FnMut(&mut Node) -> bool) -> usize {
        self.world.core.begin_turn();
        let (begun, mut most) = (self.world.core.instant(), 0);
        while !is_so(self) {
            most = most.max(self.turn().served);
            assert!(self.world.core.instant().since(begun) < LIMIT, "{what}");
        }
        most
    }

    /// The next answers that a client takes, as many.
    fn hear(&mut self, client: &mut Client, count: usize) -> Vec<(u64, Answer)> {
        let mut heard = vec![];
        self.turn_until("all are answered", |_| {
            heard.extend(client.take());
            count <= heard.len()
        });
        heard
    }

    /// The store thread reads what is asked for: a large value under every key.
    fn fetch(&mut self) {
        for job in self.world.jobs.try_iter() {
            let Job::Fetch(keys) = job else { panic!("{job:?} was not asked for") };
            let fetched = keys.into_iter().map(|key| (key, Ok(Some(large())))).collect();
            self.world.core.on_errand(Errand::Finished(Finished::Fetched { fetched, took: Duration::ZERO }));
        }
        self.world.core.flush();
    }
}

impl Client {
    fn say(&mut self, calls: impl IntoIterator<Item = (u64, Call)>) {
        let mut out = BytesMut::new();
        calls.into_iter().for_each(|(id, call)| encode_call(&mut out, CallId(id), &call).unwrap());
        self.socket.write_all(&out).unwrap();
    }

    fn take(&mut self) -> Vec<(u64, Answer)> {
        let (mut bytes, mut heard) = (vec![0; READ_BYTES], vec![]);
        while let Ok(read @ 1..) = self.socket.read(&mut bytes) {
            self.read.extend_from_slice(&bytes[..read]);
        }
        let answer = |frame: crate::wire::Frame<'_>| (frame.id.0, decode_answer(frame).unwrap());
        while let Some(answer) = next_frame(&mut self.read, ANSWER_BYTES_MAX, answer).unwrap() {
            heard.push(answer);
        }
        heard
    }

    fn is_hung_up_on(&self) -> bool {
        matches!(self.socket.peek(&mut [0]), Ok(0))
    }
}

fn large() -> Arc<Siblings> {
    let value = Some(Value::new(vec![b'v'; LARGE]).unwrap());
    let write = Written { value, supersedes: Supersedes::Held, operation: None, written_at: WallTime(1) };
    Arc::new(Siblings::default().mint(Dot { actor: ActorId(1), counter: 1 }, write).unwrap().set)
}

fn get() -> Call {
    Call::One(Request::Get(Get { key: key_of(CoreId(0)), terms: Terms::default() }))
}

fn pongs(ids: std::ops::RangeInclusive<u64>) -> Vec<(u64, Answer)> {
    ids.map(|id| (id, Answer::Pong)).collect()
}

fn pings(ids: std::ops::RangeInclusive<u64>) -> impl Iterator<Item = (u64, Call)> {
    ids.map(|id| (id, Call::Ping))
}

/// Takes all room for answers, by reading none.
fn fill(node: &mut Node) -> Client {
    let mut deaf = node.join();
    let mut id = 0;
    node.turn_until("the room is taken", |node| {
        id += 1;
        deaf.say([(id, get())]);
        node.fetch();
        node.world.core.replies_are_full()
    });
    deaf
}

#[test]
fn more_calls_than_a_turn_takes_are_answered_over_several_in_their_order() {
    let mut node = Node::new();
    let mut client = node.join();
    client.say(pings(1..=1_000));
    assert_eq!(node.hear(&mut client, 1_000), pongs(1..=1_000));
    assert_eq!(node.turn().served, 0, "nobody wants a turn any more");
}

#[test]
fn a_turn_is_full_some_time_and_who_found_no_place_has_the_next() {
    let mut node = Node::new();
    let mut clients: Vec<Client> = (0..20).map(|_| node.join()).collect();
    node.turn();
    clients.iter_mut().for_each(|client| client.say(pings(1..=100)));

    let mut heard = vec![vec![]; clients.len()];
    let most = node.turn_until("all are answered", |_| {
        heard.iter_mut().zip(&mut clients).for_each(|(heard, client)| heard.extend(client.take()));
        heard.iter().all(|heard| 100 <= heard.len())
    });
    assert!(heard.iter().all(|heard| *heard == pongs(1..=100)));
    assert!(most <= BROUGHT_MAX.div_ceil(100), "{most} in one turn");
}

#[test]
fn while_another_takes_all_room_calls_that_are_put_off_keep_their_order() {
    let mut node = Node::new();
    let _deaf = fill(&mut node);
    let mut client = node.join();
    client.say(pings(1..=300));
    client.socket.shutdown(Shutdown::Write).unwrap();

    assert_eq!(node.hear(&mut client, 300), pongs(1..=300));
    assert!(node.world.core.replies_are_full());
    node.turn_until("all is answered, so it is closed", |node| node.connections.iter().count() == 1);
    assert!(client.is_hung_up_on());
}

#[test]
fn who_leaves_with_the_room_for_answers_gives_it_back() {
    let mut node = Node::new();
    let deaf = fill(&mut node);
    drop(deaf);
    node.turn_until("it is gone", |node| node.connections.iter().count() == 0);
    assert!(!node.world.core.replies_are_full());
}

#[test]
fn who_sends_nothing_more_is_answered_from_the_disk_before_the_end() {
    let mut node = Node::new();
    let mut client = node.join();
    client.say([(1, get())]);
    client.socket.shutdown(Shutdown::Write).unwrap();
    node.turn_until("it is asked for", |node| !node.world.jobs.is_empty());
    node.turn();
    assert_eq!(node.connections.iter().count(), 1, "an answer is under way");

    node.fetch();
    let heard = node.hear(&mut client, 1);
    assert!(matches!(&heard[..], [(1, Answer::One(Ok(Reply::Found(found))))] if found.siblings.len() == 1));
    node.turn_until("it is closed", |node| node.connections.iter().count() == 0);
}

#[test]
fn who_is_gone_while_calls_are_under_way_or_waiting_leaves_nothing() {
    let mut node = Node::new();
    let mut client = node.join();
    client.say(std::iter::once((1, get())).chain(pings(2..=50)));
    rustix::net::sockopt::set_socket_linger(&client.socket, Some(Duration::ZERO)).unwrap();
    node.turn_until("it is asked for", |node| !node.world.jobs.is_empty());

    client.say(pings(51..=100));
    drop(client);
    node.turn_until("it is gone", |node| node.connections.iter().count() == 0);
    node.fetch();
    node.turn();
    assert!(!node.world.core.is_busy() && !node.world.core.replies_are_full());
}

/// The first bytes of a put of half a megabyte that nobody admits, and the rest.
fn large_put(id: u64) -> (BytesMut, BytesMut) {
    let mut out = BytesMut::new();
    let value = Value::new(vec![b'v'; LARGE]).unwrap();
    let (causality, terms) = (Causality::Blind, Terms::default());
    let put = Put { key: key_of(CoreId(1)), value, causality, operation: None, terms };
    encode_call(&mut out, CallId(id), &Call::One(Request::Put(put))).unwrap();
    let rest = out.split_off(1_000);
    (out, rest)
}

/// Sends on as the node reads.
fn send(node: &mut Node, client: &mut Client, mut bytes: BytesMut) {
    node.turn_until("all is read", |_| {
        if let Ok(sent) = client.socket.write(&bytes) {
            bytes.advance(sent);
        }
        bytes.is_empty()
    });
}

#[test]
fn large_calls_that_come_in_slowly_take_bounded_room_and_wait_in_their_order() {
    let mut node = Node::new();
    let mut clients: Vec<Client> = (0..5).map(|_| node.join()).collect();
    let mut rests: Vec<BytesMut> = vec![];
    for (client, id) in clients.iter_mut().zip(1..) {
        let (first, rest) = large_put(id);
        client.socket.write_all(&first).unwrap();
        rests.push(rest);
        node.turn_until("it has begun", |node| node.turn().served == 0);
    }
    let has_room =
        |node: &Node| -> Vec<bool> { node.connections.iter().map(|connection| connection.has_room()).collect() };
    assert_eq!(has_room(&node), [true, true, false, false, false]);
    let mut other = node.join();
    other.say(pings(1..=1));
    assert_eq!(node.hear(&mut other, 1), pongs(1..=1), "small calls need no room");

    send(&mut node, &mut clients[1], rests.remove(1));
    node.turn_until("the next one has its room", |node| has_room(node)[..5] == [true, false, true, false, false]);
    assert!(!node.world.other.is_empty(), "it was whole");

    clients.truncate(3);
    drop(clients.remove(0));
    node.turn_until("who waited and left is not waited for", |node| node.connections.iter().count() == 3);
    assert_eq!(has_room(&node), [false, true, false]);
}

#[test]
fn who_breaks_the_protocol_is_told_behind_the_answers_to_what_was_sound() {
    let mut node = Node::new();
    let mut client = node.join();
    client.say(pings(1..=2));
    client.socket.write_all(&[255; 64]).unwrap();
    let heard = node.hear(&mut client, 3);
    assert_eq!(heard[..2], pongs(1..=2));
    assert!(matches!(heard[2], (0, Answer::One(Err(Failure::Malformed { .. })))));
    node.turn_until("it is closed", |node| node.connections.iter().count() == 0);
}
