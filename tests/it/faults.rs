//! The faults of the seed systems (SEEDS section 5) that one node can have, each held here for good.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{JoinHandle, scope};

use serde_json::{Value, json};

use crate::harness::{Home, Node, base64, files, request};

/// As many clients at once as there are jobs; gives what each got.
fn at_once<T: Send>(jobs: usize, job: impl Fn(usize) -> T + Sync) -> Vec<T> {
    scope(|scope| {
        let job = &job;
        let clients: Vec<_> = (0..jobs).map(|n| scope.spawn(move || job(n))).collect();
        clients.into_iter().map(|client| client.join().expect("a client does not panic")).collect()
    })
}

fn dots(node: &Node, key: &str) -> Vec<String> {
    node.copies(key).iter().map(|copy| copy["dot"].as_str().unwrap().to_owned()).collect()
}

/// A delete came back, and replies hid tombstones.
#[test]
fn fault_03_a_deleted_key_stays_deleted() {
    let home = Home::new();
    let node = home.start();
    node.put("k", "v");
    assert_eq!(node.delete("/kv/k").ok()["tombstone"], json!(true), "the reply says so");
    node.kill();
    for _ in 0..3 {
        let node = home.start();
        assert_eq!(node.get("/kv/k").status, 404);
        assert_eq!(node.copies("k")[0]["tombstone"], json!(true), "and who wants to see it can");
        node.kill();
    }
}

/// What missed a key's first write never got it: here a log that goes on where the tree has the first write, and where
/// it has not.
#[test]
fn fault_04_a_later_write_does_not_hide_an_earlier_one() {
    let home = Home::new();
    for value in ["a", "b", "c"] {
        let node = home.start();
        node.put_json("k", &json!({"valueBase64": base64(value), "context": "none"})).ok();
        node.put_json("k", &json!({"valueBase64": base64(&value.repeat(2)), "context": "none"})).ok();
        node.kill();
    }
    assert_eq!(home.start().values("k"), ["a", "aa", "b", "bb", "c", "cc"]);
}

/// Concurrent clients silently lost updates for want of a context.
#[test]
fn fault_05_concurrent_clients_with_contexts_lose_nothing() {
    let home = Home::new();
    let node = home.start();
    node.put("k", "base");
    let context = node.get("/kv/k").ok()["context"].clone();
    let to = node.http;
    at_once(20, |n| {
        let body = json!({"valueBase64": base64(&format!("{n:02}")), "context": context}).to_string();
        request(to, "PUT", "/kv/k", &[], body.as_bytes()).ok()
    });
    let expected: Vec<String> = (0..20).map(|n| format!("{n:02}")).collect();
    assert_eq!(node.values("k"), expected);

    let merged = node.get("/kv/k").ok()["context"].clone();
    node.put_json("k", &json!({"valueBase64": base64("all"), "context": merged})).ok();
    assert_eq!(node.values("k"), ["all"]);
}

/// Reading, bumping and writing a clock was not atomic: different values stood under one clock.
#[test]
fn fault_06_no_two_writes_get_one_dot() {
    let home = Home::new();
    let node = home.start();
    let to = node.http;
    let write = |n: usize| -> Vec<Value> {
        let body = |m: usize| json!({"valueBase64": base64(&format!("{n}/{m}"))}).to_string();
        (0..10).map(|m| request(to, "PUT", "/kv/hot", &[], body(m).as_bytes()).ok()).collect()
    };
    let replies: Vec<Value> = at_once(16, write).concat();

    let mut dots: Vec<&str> = replies.iter().map(|reply| reply["dot"].as_str().unwrap()).collect();
    dots.sort_unstable();
    dots.dedup();
    assert_eq!(dots.len(), 160);
    let mut superseded: Vec<&str> = replies
        .iter()
        .flat_map(|reply| reply["superseded"].as_array().unwrap())
        .map(|dot| dot.as_str().unwrap())
        .collect();
    superseded.sort_unstable();
    let before = superseded.len();
    superseded.dedup();
    assert_eq!((before, superseded.len()), (159, 159), "each was replaced once, the last not yet");
    assert_eq!(node.values("hot").len(), 1);
}

/// The same id on another key stored nothing; an id was lost on restart.
#[test]
fn fault_08_an_operation_id_counts_by_key_and_survives_kill_9() {
    let home = Home::new();
    let node = home.start();
    let put = |node: &Node, key: &str, value: &str| {
        node.put_json(key, &json!({"valueBase64": base64(value), "opId": "op-1"}))
    };
    let first = put(&node, "a", "v").ok();
    assert_eq!(first["remembered"], json!(false));
    assert_eq!(put(&node, "b", "w").ok()["remembered"], json!(false), "on another key it is another operation");
    assert_eq!(node.values("b"), ["w"]);
    node.put("a", "later");

    for _ in 0..2 {
        let again = put(&node, "a", "v").ok();
        assert_eq!((&again["dot"], &again["remembered"]), (&first["dot"], &json!(true)));
        assert_eq!(again["superseded"], first["superseded"]);
        let refused = put(&node, "a", "another value");
        assert_eq!(refused.status, 409, "{refused:?}");
        assert!(refused.error().contains("operation id"), "{refused:?}");
    }
    node.kill();

    for round in 0..3 {
        let node = home.start_with(&["--cores", ["1", "3", "2"][round]]);
        let again = put(&node, "a", "v").ok();
        assert_eq!((&again["dot"], &again["remembered"]), (&first["dot"], &json!(true)), "round {round}");
        assert_eq!(put(&node, "a", "another value").status, 409);
        assert_eq!(node.values("a"), ["later"], "the retry wrote nothing");
        if round == 1 {
            node.terminate()
        } else {
            node.kill()
        };
    }
}

/// Recovery read only the first segment of the log.
#[test]
fn fault_09_every_segment_of_the_log_is_read() {
    let home = Home::new();
    let node = home.start_with(&["--cores", "1"]);
    let value = |n: usize| format!("{n}-{}", "x".repeat(700_000));
    for n in 0..30 {
        node.put(&format!("k{n}"), &value(n));
    }
    node.kill();
    let segments = files(&home.data_dir().join("wal")).len();
    assert!(segments > 1, "21 MB in {segments} segments");
    let node = home.start_with(&["--cores", "1"]);
    for n in 0..30 {
        assert_eq!(node.values(&format!("k{n}")), [value(n)], "k{n}");
    }
}

/// A torn tail was not cut, and what was written behind it later was lost.
#[test]
fn fault_09_a_torn_tail_costs_nothing_that_was_acknowledged() {
    let home = Home::new();
    let node = home.start_with(&["--cores", "1"]);
    for n in 0..10 {
        node.put(&format!("k{n}"), "before");
    }
    node.kill();
    tear(&home);

    let node = home.start_with(&["--cores", "1"]);
    for n in 0..10 {
        assert_eq!(node.values(&format!("k{n}")), ["before"]);
        node.put(&format!("l{n}"), "behind it");
    }
    node.kill();
    tear(&home);

    let node = home.start_with(&["--cores", "1"]);
    for n in 0..10 {
        assert_eq!(node.values(&format!("k{n}")), ["before"]);
        assert_eq!(node.values(&format!("l{n}")), ["behind it"]);
    }
}

/// Leaves behind the last write of each segment what a write that was cut off would.
fn tear(home: &Home) {
    const BLOCK: usize = 4_096;
    for path in files(&home.data_dir().join("wal")) {
        let mut bytes = fs::read(&path).unwrap();
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last / BLOCK + 1) * BLOCK;
        let torn: Vec<u8> = bytes.iter().skip(BLOCK).take(300).copied().collect();
        if used > BLOCK && used + BLOCK <= bytes.len() {
            bytes[used..used + torn.len()].copy_from_slice(&torn);
            fs::write(&path, bytes).unwrap();
        }
    }
}

/// A leftover temporary file kept the node from booting; replaying over what was stored doubled siblings.
#[test]
fn fault_10_leftovers_do_not_keep_a_node_from_starting_and_restarts_double_nothing() {
    let home = Home::new();
    let node = home.start();
    for value in ["one", "two"] {
        node.put_json("k", &json!({"valueBase64": base64(value), "context": "none"})).ok();
    }
    let before = dots(&node, "k");
    node.kill();

    for leftover in ["node.tmp", "snapshot.tmp", "wal/00000009.tmp", "wal/probe-9"] {
        fs::write(home.data_dir().join(leftover), "half of it").unwrap();
    }
    for round in 0..4 {
        let node = home.start();
        assert_eq!(node.values("k"), ["one", "two"]);
        assert_eq!(dots(&node, "k"), before);
        if round % 2 == 0 {
            node.kill()
        } else {
            node.terminate()
        };
    }
}

/// One sync a record under a global lock: some 2,000 writes a second, whatever the number of clients.
#[test]
fn fault_11_writes_of_many_connections_share_a_sync() {
    let home = Home::new();
    let node = home.start_with(&["--cores", "1"]);
    let written = writes_of_64_connections(node.binary);
    let (records, syncs) = (node.metric("sloop_wal_records_total"), node.metric("sloop_wal_syncs_total"));
    println!("{written} writes of 64 connections: {records} records in {syncs} syncs");
    assert_eq!(records, f64::from(written));
    assert!(records >= 4.0 * syncs, "{records} records took {syncs} syncs");
}

fn writes_of_64_connections(to: SocketAddr) -> u32 {
    const CONNECTIONS: u32 = 64;
    const WRITES: u32 = 50;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..CONNECTIONS {
            clients.spawn(async move {
                let node = sloop::client::Client::connect(to.to_string()).await.unwrap();
                for n in 0..WRITES {
                    node.put(format!("{client}/{n}"), vec![b'v'; 100]).await.unwrap();
                }
            });
        }
        clients.join_all().await;
    });
    CONNECTIONS * WRITES
}

/// A snapshot stopped all writes for four seconds.
#[test]
fn fault_11_writes_go_on_while_a_snapshot_is_taken() {
    let home = Home::new();
    let node = home.start();
    for n in 0..20 {
        node.put(&format!("k{n}"), &"v".repeat(500_000));
    }
    let node = Arc::new(node);
    let snapshot = snapshot(Arc::clone(&node));
    let mut written = 0;
    while !snapshot.is_finished() {
        node.put(&format!("meanwhile-{written}"), "v");
        written += 1;
    }
    let bytes = snapshot.join().expect("a snapshot is taken");
    println!("{written} writes while {bytes} bytes of snapshot came");
    assert!(bytes > 10_000_000 && written > 0, "{written} writes, {bytes} bytes");
}

#[expect(clippy::disallowed_methods, reason = "the snapshot is taken beside the writes, or there is nothing to show")]
fn snapshot(node: Arc<Node>) -> JoinHandle<usize> {
    std::thread::spawn(move || {
        let snapshot = node.get("/admin/snapshot");
        assert_eq!(snapshot.status, 200);
        snapshot.body.len()
    })
}
