//! The client against the in-memory node, which fails on request.

mod ring;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

use super::testing::{Cluster, Fault, Heard, Node};
use super::*;
use crate::protocol::types::{ClusterId, CoreId};
use crate::wire::hello::{Features, Limits, Welcome, encode_greeting};

const VALUE_MAX: usize = 10 * 1024 * 1024;

async fn pair() -> (Node, Client) {
    let node = Node::start().await.unwrap();
    let client = Client::connect(node.addr()).await.unwrap();
    (node, client)
}

async fn with(node: &Node, change: impl FnOnce(&mut Options)) -> Client {
    let mut options = Options::new(node.addr());
    change(&mut options);
    options.connect().await.unwrap()
}

/// A cluster of so many nodes of so many cores, and a client that was told of the first.
async fn cluster(nodes: usize, cores: u16, change: impl FnOnce(&mut Options)) -> (Cluster, Client) {
    let cluster = Cluster::start(nodes, cores).await.unwrap();
    let mut options = Options::new(cluster.addr(0));
    change(&mut options);
    let client = options.connect().await.unwrap();
    (cluster, client)
}

async fn value(client: &Client, key: &str) -> Option<Vec<u8>> {
    let entry = client.get(key).await.unwrap();
    assert!(entry.siblings().len() <= 1, "{key} has siblings: {:?}", entry.siblings());
    entry.latest().map(|sibling| sibling.value.as_bytes().to_vec())
}

#[tokio::test]
async fn what_is_put_is_got_and_what_is_deleted_is_gone() {
    let (_node, client) = pair().await;
    assert!(client.get("a").await.unwrap().is_absent());

    let written = client.put("a", "1").await.unwrap();
    assert_eq!(value(&client, "a").await, Some(b"1".to_vec()));
    let again = client.put("a", "").await.unwrap();
    assert_eq!(again.superseded[..], [written.dot]);
    assert_eq!(value(&client, "a").await, Some(vec![]), "an empty value is a value");

    let deleted = client.delete("a").await.unwrap();
    assert_eq!(deleted.superseded[..], [again.dot]);
    assert!(client.get("a").await.unwrap().is_absent());
    let copies = client.siblings("a").await.unwrap().copies;
    assert_eq!((copies.len(), copies[0].value.is_none()), (1, true), "the tombstone shows among the copies");
}

#[tokio::test]
async fn many_tasks_share_a_connection_and_each_hears_its_own_answer() {
    let (_node, client) = pair().await;
    let mut tasks = JoinSet::new();
    for n in 0..500 {
        let client = client.clone();
        tasks.spawn(async move {
            let key = format!("key {n}");
            client.put(&key, format!("value {n}")).await.unwrap();
            assert_eq!(value(&client, &key).await, Some(format!("value {n}").into_bytes()));
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_one_write() {
    let (node, client) = pair().await;
    node.inject(Fault::LoseAnswer).await;
    assert!(client.put("a", "1").await.unwrap().remembered);
    node.inject(Fault::LoseAnswer).await;
    assert!(client.delete("b").await.unwrap().remembered);

    assert_eq!(client.siblings("a").await.unwrap().copies[0].dot.counter, 1);
    assert_eq!(client.siblings("b").await.unwrap().copies[0].dot.counter, 2);
}

#[tokio::test]
async fn a_write_that_was_lost_on_its_way_is_done_by_the_retry() {
    let (node, client) = pair().await;
    node.inject(Fault::LoseCall).await;
    node.inject(Fault::LoseCall).await;
    assert!(!client.put("a", "1").await.unwrap().remembered);
    assert_eq!(value(&client, "a").await, Some(b"1".to_vec()));
}

#[tokio::test]
async fn a_write_without_an_operation_id_is_not_tried_twice_and_the_error_says_that_it_may_be_done() {
    let node = Node::start().await.unwrap();
    let client = with(&node, |options| options.operation_ids = false).await;
    node.inject(Fault::LoseAnswer).await;

    let error = client.put("a", "1").await.unwrap_err();
    assert!(matches!(error, Error::Connection { sent: true, .. }), "{error:?}");
    assert!(error.may_have_written());
    assert_eq!(value(&client, "a").await, Some(b"1".to_vec()), "and here it was");
}

#[tokio::test]
async fn reads_are_tried_again() {
    let (node, client) = pair().await;
    client.put("a", "1").await.unwrap();
    node.inject(Fault::LoseCall).await;
    assert_eq!(value(&client, "a").await, Some(b"1".to_vec()));
    node.inject(Fault::LoseAnswer).await;
    client.ping().await.unwrap();
}

#[tokio::test]
async fn an_overloaded_node_is_asked_again_when_it_says() {
    let (node, client) = pair().await;
    node.inject(Fault::Refuse(Failure::Overloaded { retry_after_ms: 30 })).await;
    let started = Instant::now();
    client.put("a", "1").await.unwrap();
    assert!(Duration::from_millis(30) <= started.elapsed());
}

#[tokio::test]
async fn a_full_disk_is_not_asked_again() {
    let (node, client) = pair().await;
    node.inject(Fault::Refuse(Failure::DiskFull)).await;
    let error = client.put("a", "1").await.unwrap_err();
    assert_eq!(error, Error::Failure(Failure::DiskFull));
    assert!(!error.may_have_written());
}

#[tokio::test]
async fn no_answer_ends_at_the_deadline() {
    let node = Node::start().await.unwrap();
    let client = with(&node, |options| options.deadline = Duration::from_millis(100)).await;
    node.inject(Fault::Ignore).await;
    let error = client.put("a", "1").await.unwrap_err();
    assert_eq!(error, Error::Deadline { waited: Duration::from_millis(100) });
    assert!(error.may_have_written());
}

#[tokio::test]
async fn a_request_may_have_a_deadline_of_its_own() {
    let (node, client) = pair().await;
    node.inject(Fault::Ignore).await;
    let terms = Terms { deadline_ms: 50, ..Terms::default() };
    let get = Get { key: make_key("a").unwrap(), terms };
    let error = client.ask(Request::Get(get)).await.unwrap_err();
    assert_eq!(error, Error::Deadline { waited: Duration::from_millis(50) });
}

#[tokio::test]
async fn a_node_that_does_not_listen_is_passed_over_and_one_that_goes_away_is_left() {
    let gone = Node::start().await.unwrap().addr().to_owned();
    let first = Node::start().await.unwrap();
    let second = Node::start().await.unwrap();
    let client = Client::connect(format!("{gone}, {}, {}", first.addr(), second.addr())).await.unwrap();
    client.put("a", "1").await.unwrap();
    assert_eq!(value(&client, "a").await, Some(b"1".to_vec()));

    drop(first);
    assert_eq!(value(&client, "a").await, None, "the second node has never heard of it");
}

#[tokio::test]
async fn a_node_that_is_stopping_is_left() {
    let (first, second) = (Node::start().await.unwrap(), Node::start().await.unwrap());
    let client = Client::connect(format!("{},{}", first.addr(), second.addr())).await.unwrap();
    let on_first = client.info().await.unwrap().cluster;
    first.inject(Fault::Refuse(Failure::Stopping)).await;
    client.put("a", "1").await.unwrap();
    assert_ne!(client.info().await.unwrap().cluster, on_first);
}

#[tokio::test]
async fn a_node_that_is_stopping_keeps_nobody_waiting_for_its_last_answers() {
    let (cluster, client) = cluster(2, 1, |options| options.routing = false).await;
    let change = |options: &mut Options| options.deadline = Duration::from_secs(60);
    let mut options = Options::new([cluster.addr(0), cluster.addr(1)]);
    change(&mut options);
    let patient = options.connect().await.unwrap();
    cluster.inject(Fault::Ignore).await;
    let waiting = patient.clone();
    let waits = tokio::spawn(async move { waiting.ping().await });
    while cluster.faults().await != 0 {}
    cluster.inject(Fault::Refuse(Failure::Stopping)).await;
    timeout(LIMIT, patient.put("a", "1")).await.expect("another node is there").unwrap();
    assert_eq!(value(&client, "a").await, Some(b"1".to_vec()));
    waits.abort();
}

#[tokio::test]
async fn nobody_there_is_an_error_with_the_address() {
    let gone = Node::start().await.unwrap().addr().to_owned();
    let error = Client::connect(&gone).await.unwrap_err();
    assert!(matches!(&error, Error::Connection { sent: false, .. }), "{error:?}");
    assert!(error.to_string().starts_with(&gone), "{error}");
}

#[tokio::test]
async fn a_wrong_token_is_refused_at_the_door() {
    let node = Node::start_with("secret").await.unwrap();
    assert_eq!(Client::connect(node.addr()).await.unwrap_err(), Error::Failure(Failure::Unauthorized));
    let client = with(&node, |options| options.set_token("secret").unwrap()).await;
    client.ping().await.unwrap();
}

#[tokio::test]
async fn a_stranger_behind_the_port_is_named_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n").await.unwrap();
    });
    let error = Client::connect(addr).await.unwrap_err();
    assert!(error.to_string().contains("not a sloop handshake"), "{error}");
}

#[tokio::test]
async fn a_key_or_value_out_of_bounds_is_refused_before_it_is_sent() {
    let (node, client) = pair().await;
    drop(node);
    let error = client.put("", "1").await.unwrap_err();
    assert_eq!(error.to_string(), "key has 0 bytes, allowed are 1 to 1024");
    let error = client.put("a", vec![0; VALUE_MAX + 1]).await.unwrap_err();
    assert_eq!(error.to_string(), "value has 10485761 bytes, allowed are 0 to 10485760");
    assert!(!error.may_have_written());
}

#[tokio::test]
async fn a_replacement_leaves_alone_what_it_has_not_seen() {
    let (_node, client) = pair().await;
    client.put("a", "old").await.unwrap();
    let entry = client.get("a").await.unwrap();
    client.put("a", "unseen").await.unwrap();
    client.replace(&entry, "mine").await.unwrap();

    let both = client.get("a").await.unwrap();
    let values: BTreeSet<&[u8]> = both.siblings().iter().map(|sibling| sibling.value.as_bytes()).collect();
    assert_eq!(values, BTreeSet::from([&b"unseen"[..], b"mine"]));
    assert_eq!(both.latest().unwrap().value.as_bytes(), b"mine");

    client.remove(&both).await.unwrap();
    assert!(client.get("a").await.unwrap().is_absent());
}

#[tokio::test]
async fn one_that_has_seen_an_absent_key_replaces_nothing() {
    let (_node, client) = pair().await;
    let absent = client.get("a").await.unwrap();
    client.put("a", "first").await.unwrap();
    client.replace(&absent, "second").await.unwrap();
    assert_eq!(client.get("a").await.unwrap().siblings().len(), 2);
}

#[tokio::test]
async fn updates_of_many_clients_lose_nothing() {
    let (_node, client) = pair().await;
    let add = |client: Client, item: String| async move {
        let merge = |siblings: &[Sibling]| {
            let text = |sibling: &Sibling| String::from_utf8(sibling.value.as_bytes().to_vec()).unwrap();
            let carts: Vec<String> = siblings.iter().map(text).collect();
            let mut items: BTreeSet<&str> = carts.iter().flat_map(|cart| cart.split(',')).collect();
            items.insert(&item);
            items.into_iter().collect::<Vec<_>>().join(",")
        };
        client.update("cart", merge).await.unwrap();
    };
    let mut tasks = JoinSet::new();
    for n in 0..50 {
        tasks.spawn(add(client.clone(), format!("{n:02}")));
    }
    tasks.join_all().await;
    add(client.clone(), "last".to_owned()).await;

    let mut expected: Vec<String> = (0..50).map(|n| format!("{n:02}")).collect();
    expected.push("last".to_owned());
    assert_eq!(value(&client, "cart").await, Some(expected.join(",").into_bytes()));
}

#[tokio::test]
async fn a_batch_of_any_length_is_cut_into_frames() {
    let (_node, client) = pair().await;
    let pairs = (0..2_500).map(|n| (format!("key {n}"), format!("value {n}")));
    for written in client.put_many(pairs).await {
        written.unwrap();
    }
    let entries = client.get_many((0..2_501).map(|n| format!("key {n}"))).await;
    assert_eq!(entries.len(), 2_501);
    for (n, entry) in entries.into_iter().enumerate() {
        let entry = entry.unwrap();
        assert_eq!(entry.key().as_bytes(), format!("key {n}").as_bytes());
        assert_eq!(entry.is_absent(), n == 2_500);
        assert!(n == 2_500 || entry.siblings()[0].value.as_bytes() == format!("value {n}").as_bytes());
    }
}

#[tokio::test]
async fn a_batch_that_is_larger_than_a_frame_comes_and_goes_in_several() {
    let (_node, client) = pair().await;
    let value = Bytes::from(vec![7; VALUE_MAX]);
    let keys: Vec<String> = (0..7).map(|n| format!("large {n}")).collect();
    for written in client.put_many(keys.iter().map(|key| (key, value.clone()))).await {
        written.unwrap();
    }
    for entry in client.get_many(&keys).await {
        assert_eq!(entry.unwrap().siblings()[0].value.bytes(), &value);
    }
}

#[tokio::test]
async fn a_bad_key_in_a_batch_spoils_no_other() {
    let (_node, client) = pair().await;
    let written = client.put_many([("a", "1"), ("", "2"), ("c", "3")]).await;
    let done: Vec<bool> = written.iter().map(|written| written.is_ok()).collect();
    assert_eq!(done, [true, false, true]);
    assert_eq!(value(&client, "c").await, Some(b"3".to_vec()));
}

#[tokio::test]
async fn a_batch_whose_answer_is_lost_is_written_once() {
    let (node, client) = pair().await;
    node.inject(Fault::LoseAnswer).await;
    for written in client.put_many([("a", "1"), ("b", "2")]).await {
        assert!(written.unwrap().remembered);
    }
}

#[tokio::test]
async fn a_listing_names_every_key_once() {
    let (_node, client) = pair().await;
    let keys: BTreeSet<String> = (0..2_300).map(|n| format!("cart:{n}")).collect();
    client.put_many(keys.iter().map(|key| (key, "1"))).await;
    client.put_many([("user:1", "1"), ("cart", "1")]).await;
    client.put("cart:gone", "1").await.unwrap();
    client.delete("cart:gone").await.unwrap();

    let mut listing = client.keys("cart:");
    let mut listed = Vec::new();
    while let Some(page) = listing.next_page().await.unwrap() {
        listed.extend(page.into_iter().map(|key| String::from_utf8(key.as_bytes().to_vec()).unwrap()));
    }
    assert_eq!(listed.len(), keys.len());
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), keys);
}

/// A node that welcomes one client and never says another word; ends when the client closes the connection.
async fn mute() -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let welcome = Welcome {
        version: 1,
        features: Features::default(),
        cluster: ClusterId(1),
        core: CoreId(0),
        cores: 1,
        salt: 0,
        partitions: 1,
        limits: Limits { request_bytes: 1_000, answer_bytes: 1_000, in_flight: 1 },
        node: String::new(),
    };
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut greeting = BytesMut::new();
        encode_greeting(&mut greeting, &Ok(welcome));
        stream.write_all(&greeting).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    });
    (addr, task)
}

#[tokio::test]
async fn the_last_client_closes_the_connection() {
    let (addr, closed) = mute().await;
    let client = Client::connect(addr).await.unwrap();
    let other = client.clone();
    drop(client);
    assert!(!closed.is_finished());
    drop(other);
    closed.await.unwrap();
}

#[tokio::test]
async fn a_node_that_has_gone_silent_is_left() {
    let (addr, closed) = mute().await;
    let mut options = Options::new(addr);
    options.deadline = Duration::from_millis(20);
    let client = options.connect().await.unwrap();
    assert!(matches!(client.ping().await, Err(Error::Deadline { .. })));
    timeout(Duration::from_secs(20), closed).await.expect("the connection is closed").unwrap();
}

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_node_that_has_calls_and_says_nothing_is_quiet_and_one_that_answers_a_ping_is_not() {
    let cluster = Cluster::start(1, 1).await.unwrap();
    let options = Options::new(cluster.addr(0));
    let connection = connection::connect(&options, 0, Vec::new()).await.unwrap();
    let is_quiet = Arc::clone(&connection.is_quiet);
    let becomes = async |expected| {
        let turned = async {
            while is_quiet.load(Ordering::Relaxed) != expected {
                tokio::task::yield_now().await
            }
        };
        timeout(LIMIT, turned).await.expect("it turns");
    };
    cluster.inject(Fault::Ignore).await;
    let (jobs, queue) = mpsc::channel(1);
    let carried = tokio::spawn(connection.carry(queue));
    let (answer, _heard) = tokio::sync::oneshot::channel();
    let job = connection::Job { call: Call::Info, ends: Instant::now() + LIMIT, answer };
    jobs.send(job).await.unwrap();
    becomes(true).await;
    becomes(false).await;
    cluster.silence(0, true).await;
    becomes(true).await;
    assert_eq!(timeout(LIMIT, carried).await.expect("it is given up").unwrap(), connection::End::Lost);
}

#[tokio::test]
async fn nodes_are_named_in_one_text_or_in_many() {
    let (gone, node) = (Node::start().await.unwrap().addr().to_owned(), Node::start().await.unwrap());
    let both = [gone.as_str(), node.addr()];
    Client::connect(both.join(", ")).await.unwrap().ping().await.unwrap();
    Client::connect(both).await.unwrap().ping().await.unwrap();
    Client::connect(both.map(str::to_owned).to_vec()).await.unwrap().ping().await.unwrap();
    let nobody: [&str; 0] = [];
    assert!(matches!(Client::connect(nobody).await, Err(Error::Connection { sent: false, .. })));
}

/// The proof that docs/PROTOCOL.md suffices: a client of another language, written from it alone, holds the node behind
/// these tests to every sentence of it. The same script holds a real node to them.
#[tokio::test]
async fn the_python_client_gets_along_with_the_node_behind_these_tests() {
    for token in ["", "secret"] {
        let node = Node::start_with(token).await.unwrap();
        let addr = node.addr().to_owned();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/check.py");
        let run = move || std::process::Command::new("python3").args(["-B", script, &addr, token]).output();
        let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
