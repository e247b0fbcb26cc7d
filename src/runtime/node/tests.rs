//! Whole nodes in this process, on real files.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use metrics::NoopRecorder;

use super::*;
use crate::protocol::config::{self, PARTITIONS};
use crate::protocol::message::{
    Answer, Call, Causality, Delete, Failure, Found, Get, Keys, Outcome, Page, Put, Reply, Request, Terms,
};
use crate::protocol::types::{OperationId, Value};
use crate::runtime::opening::{founding, restore};
use crate::runtime::samples::arrival;
use crate::store::home::HomeError;
use crate::wire::frame::ANSWER_BYTES_MAX;
use crate::wire::sets;
use crate::wire::{CallId, Frame, decode_answer, encode_call, next_frame};

fn config(data_dir: &Path, cores: u16) -> NodeConfig {
    NodeConfig {
        name: "node-a".to_owned(),
        data_dir: data_dir.to_owned(),
        founding: founding(),
        cores,
        pin: false,
        memory: 512 * 1024 * 1024,
        idle_max: Duration::from_secs(60),
        transfer_rate: config::TRANSFER_BYTES_PER_SECOND,
        compare_period: config::COMPARE_PERIOD,
        keeps_hints: true,
        tombstone_age: config::TOMBSTONE_AGE,
    }
}

fn start(data_dir: &Path, cores: u16) -> Node {
    Node::start(&config(data_dir, cores), |core| CoreMetrics::new(Arc::new(NoopRecorder), core)).unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn ask(node: &Node, request: Request) -> Outcome {
    block_on(node.door().ask(request))
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn put_as(name: &str, value: &str, operation: Option<&str>) -> Request {
    Request::Put(Put {
        key: key(name),
        value: Value::new(value.to_owned()).unwrap(),
        causality: Causality::Blind,
        operation: operation.map(|id| OperationId::new(id).unwrap()),
        terms: Terms::default(),
    })
}

fn put(node: &Node, name: &str, value: &str) {
    let outcome = ask(node, put_as(name, value, None));
    assert!(matches!(outcome, Ok(Reply::Written(_))), "{outcome:?}");
}

fn delete(node: &Node, name: &str) {
    let terms = Terms::default();
    let request = Request::Delete(Delete { key: key(name), causality: Causality::Blind, operation: None, terms });
    assert!(ask(node, request).is_ok());
}

fn values(node: &Node, name: &str) -> Vec<Bytes> {
    match ask(node, Request::Get(Get { key: key(name), terms: Terms::default() })) {
        Ok(Reply::Found(Found { siblings, .. })) => {
            siblings.into_iter().map(|sibling| sibling.value.bytes().clone()).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn list(node: &Node, prefix: &str, limit: u16) -> Vec<Key> {
    let mut all = Vec::new();
    loop {
        let prefix = Bytes::copy_from_slice(prefix.as_bytes());
        match ask(node, Request::Keys(Keys { prefix, after: all.last().cloned(), limit })) {
            Ok(Reply::Keys(Page { keys, more })) => {
                assert!(keys.len() <= usize::from(limit));
                all.extend(keys);
                if !more {
                    return all;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A client behind its handshake, on core 0.
struct Client {
    socket: TcpStream,
    read: BytesMut,
}

impl Client {
    fn connect(node: &Node) -> Client {
        let (client, arrival) = arrival();
        node.door().hand_over(arrival).unwrap();
        Client { socket: client, read: BytesMut::new() }
    }

    /// Sends calls in one go, under these ids.
    fn call(&mut self, calls: impl IntoIterator<Item = (u64, Call)>) {
        let mut out = BytesMut::new();
        calls.into_iter().for_each(|(id, call)| encode_call(&mut out, CallId(id), &call).unwrap());
        self.socket.write_all(&out).unwrap();
    }

    /// The next answer, or that the node has closed the connection.
    fn answer(&mut self) -> Option<(u64, Answer)> {
        loop {
            let read = |frame: Frame<'_>| (frame.id.0, decode_answer(frame).unwrap());
            if let Some(heard) = next_frame(&mut self.read, ANSWER_BYTES_MAX, read).unwrap() {
                return Some(heard);
            }
            let mut bytes = [0; 64 * 1024];
            match self.socket.read(&mut bytes).expect("the node answers or closes") {
                0 => return None,
                read => self.read.extend_from_slice(&bytes[..read]),
            }
        }
    }
}

/// The process dies: nothing is drained, nothing is marked. What the kernel was given stays.
fn crash(node: Node) {
    for inbox in &node.inboxes {
        inbox.send(Errand::Stop).unwrap();
        inbox.send(Errand::End).unwrap();
    }
    for executor in node.executors {
        executor.join().unwrap().unwrap();
    }
    for jobs in &node.jobs {
        jobs.send(Job::End).unwrap();
    }
    for storekeeper in node.storekeepers {
        storekeeper.join().unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_clean_stops_crashes_and_another_number_of_cores() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), 2);
    (0..50).for_each(|n| put(&node, &format!("key {n}"), &format!("first {n}")));
    delete(&node, "key 7");
    node.stop().unwrap();

    let node = start(dir.path(), 2);
    assert_eq!(values(&node, "key 3"), ["first 3"]);
    assert_eq!(values(&node, "key 7"), [""; 0]);
    put(&node, "key 3", "second");
    crash(node);

    for cores in [1, 3] {
        let node = start(dir.path(), cores);
        assert_eq!(values(&node, "key 3"), ["second"]);
        assert_eq!(values(&node, "key 7"), [""; 0]);
        assert_eq!(values(&node, "key 49"), ["first 49"]);
        put(&node, &format!("on {cores} cores"), "x");
        crash(node);
    }
    let node = start(dir.path(), 2);
    assert_eq!(list(&node, "on ", 10).len(), 2);
    node.stop().unwrap();
}

#[test]
fn operation_ids_are_remembered_over_a_crash_in_the_log_and_over_two_in_the_tree() {
    let dir = tempfile::tempdir().unwrap();
    let request = put_as("a", "1", Some("op-1"));
    let node = start(dir.path(), 1);
    let Ok(Reply::Written(first)) = ask(&node, request.clone()) else { panic!("it is written") };
    crash(node);
    for _ in 0..2 {
        let node = start(dir.path(), 1);
        let Ok(Reply::Written(retry)) = ask(&node, request.clone()) else { panic!("it is answered") };
        assert!(retry.remembered);
        assert_eq!(retry.dot, first.dot);
        crash(node);
    }
}

#[test]
fn a_listing_shows_the_tree_and_what_is_newer_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), 2);
    (0..40).for_each(|n| put(&node, &format!("old {n:02}"), "x"));
    (0..3).for_each(|n| put(&node, &format!("other {n}"), "x"));
    block_on(node.door().checkpoint()).unwrap();
    (0..40).step_by(4).for_each(|n| delete(&node, &format!("old {n:02}")));
    (40..50).for_each(|n| put(&node, &format!("old {n:02}"), "x"));

    let expected: std::collections::BTreeSet<Key> =
        (0..50).filter(|n| *n >= 40 || n % 4 != 0).map(|n| key(&format!("old {n:02}"))).collect();
    for limit in [1, 3, 7, 1_000] {
        let listed = list(&node, "old ", limit);
        assert_eq!(listed.len(), expected.len(), "each key once, {limit} a page");
        assert_eq!(listed.into_iter().collect::<std::collections::BTreeSet<_>>(), expected);
    }
    assert_eq!(list(&node, "", 10).len(), expected.len() + 3);
    assert_eq!(list(&node, "none", 10).len(), 0);
    node.stop().unwrap();
}

#[test]
fn a_checkpoint_brings_everything_into_the_tree_and_cold_reads_find_it() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), 1);
    put(&node, "a", "1");
    block_on(node.door().checkpoint()).unwrap();
    let place = crate::store::Place::of(node.ring(), &key("a"));
    assert!(node.lsm().get(&place).unwrap().is_some());
    node.stop().unwrap();

    let node = start(dir.path(), 1);
    assert_eq!(values(&node, "a"), ["1"], "read from the tree");
    node.stop().unwrap();
}

#[test]
fn a_restored_directory_is_a_new_cluster_with_the_same_sets_and_nothing_is_restored_over_a_node() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = start(dir.path(), 2);
    (0..20).for_each(|n| put(&node, &format!("key {n}"), "x"));
    block_on(node.door().checkpoint()).unwrap();
    let sets: Vec<_> = node
        .lsm()
        .snapshot()
        .map(|entry| entry.unwrap())
        .map(|(place, bytes)| Ok::<_, StartError>((place.key, sets::decode_set(&bytes).unwrap())))
        .collect();
    let cluster = node.info().cluster;
    node.stop().unwrap();

    restore(copy.path(), PARTITIONS, sets.into_iter()).unwrap();
    let node = start(copy.path(), 1);
    assert_eq!(values(&node, "key 3"), ["x"]);
    assert_eq!(list(&node, "", 7).len(), 20);
    assert_ne!(node.info().cluster, cluster, "contexts of the old cluster mean nothing here");
    node.stop().unwrap();

    let nothing = std::iter::empty::<Result<_, StartError>>();
    let refused = restore(copy.path(), PARTITIONS, nothing);
    assert!(matches!(refused, Err(StartError::Home(HomeError::Taken { .. }))));
}

#[test]
fn calls_that_came_in_one_go_are_all_answered_when_their_answers_do_not_fit_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), 1);
    put(&node, "large", &"x".repeat(64 * 1024));
    let mut client = Client::connect(&node);

    let get = || Call::One(Request::Get(Get { key: key("large"), terms: Terms::default() }));
    client.call((1..=100).map(|id| (id, get())));
    let answered: Vec<u64> = (1..=100).map_while(|_| Some(client.answer()?.0)).collect();

    assert_eq!(answered, (1..=100).collect::<Vec<_>>());
    node.stop().unwrap();
}

#[test]
fn cold_reads_that_come_in_together_hold_no_more_replies_than_there_is_memory_for() {
    let dir = tempfile::tempdir().unwrap();
    let small = || {
        let config = NodeConfig { memory: 96 * 1024 * 1024, ..config(dir.path(), 1) };
        Node::start(&config, |core| CoreMetrics::new(Arc::new(NoopRecorder), core)).unwrap()
    };
    let names: Vec<String> = (0..8).map(|n| format!("large {n}")).collect();
    let value = "x".repeat(8 * 1024 * 1024);
    let node = small();
    for name in &names {
        put(&node, name, &value);
        // Else a slow disk has no room for the next one.
        block_on(node.door().checkpoint()).unwrap();
    }
    node.stop().unwrap();

    let node = small();
    let (mut client, mut other) = (Client::connect(&node), Client::connect(&node));
    let get = |name: &String| Call::One(Request::Get(Get { key: key(name), terms: Terms::default() }));
    client.call((1..).zip(names.iter().map(get)).chain([(100, Call::Ping)]));
    assert_eq!(client.answer(), Some((100, Answer::Pong)), "all are asked, and nothing was read yet");

    // Values are read in the order of the calls: when the other has its answer, all of them were, and none was taken.
    other.call([(1, get(&names[7]))]);
    assert!(other.answer().is_some());
    let answers: Vec<Answer> = names.iter().map_while(|_| Some(client.answer()?.1)).collect();
    let found = answers.iter().filter(|answer| matches!(answer, Answer::One(Ok(Reply::Found(_))))).count();
    let refused =
        answers.iter().filter(|answer| matches!(answer, Answer::One(Err(Failure::Overloaded { .. })))).count();
    assert!(found >= 1 && refused >= 1 && found + refused == names.len(), "{found} found, {refused} refused");

    client.call([(9, get(&names[7]))]);
    assert!(matches!(client.answer(), Some((9, Answer::One(Ok(_))))), "there is room again");
    node.stop().unwrap();
}

#[test]
fn clients_that_do_not_read_hold_up_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let config = NodeConfig { memory: 96 * 1024 * 1024, ..config(dir.path(), 1) };
    let node = Node::start(&config, |core| CoreMetrics::new(Arc::new(NoopRecorder), core)).unwrap();
    put(&node, "large", &"x".repeat(10 * 1024 * 1024));
    put(&node, "small", "x");
    let get = |name: &str| Call::One(Request::Get(Get { key: key(name), terms: Terms::default() }));

    let mut slow: Vec<Client> = (0..4).map(|_| Client::connect(&node)).collect();
    for client in &mut slow {
        client.call([(1, get("large"))]);
        assert_eq!(client.socket.peek(&mut [0]).unwrap(), 1, "the answer has begun");
    }

    let mut other = Client::connect(&node);
    other.call([(1, get("small")), (2, get("large"))]);
    assert!(matches!(other.answer(), Some((1, Answer::One(Ok(_))))));
    assert!(matches!(other.answer(), Some((2, Answer::One(Err(Failure::Overloaded { .. }))))), "it finds no room");

    let hearts = node.hearts();
    let begun_ms = hearts.uptime_ms();
    let mut found = false;
    while !found && hearts.uptime_ms() - begun_ms < 20_000 {
        other.call([(3, get("large"))]);
        found = matches!(other.answer(), Some((3, Answer::One(Ok(_)))));
    }
    assert!(found, "who reads nothing makes room soon");
    drop(slow);
    node.stop().unwrap();
}

#[test]
fn a_call_under_the_id_of_no_call_ends_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), 1);
    let mut client = Client::connect(&node);

    client.call([(7, Call::Ping), (0, Call::Ping)]);

    assert_eq!(client.answer(), Some((7, Answer::Pong)));
    assert!(matches!(client.answer(), Some((0, Answer::One(Err(Failure::Malformed { .. }))))));
    assert_eq!(client.answer(), None, "nothing is under way, so nothing keeps it open");
    node.stop().unwrap();
}
