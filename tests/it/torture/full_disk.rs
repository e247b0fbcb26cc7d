//! A disk without room: writes are refused in words that say so, reads go on, and writes come back by themselves once
//! there is room. A node that is killed while the disk is full has lost nothing that it acknowledged.

use std::collections::BTreeMap;
use std::fs;

use sloop::client::{Client, Error, Failure};
use tokio::runtime::Builder;

use super::mount::Mount;
use crate::harness::{Home, Node, eventually};

/// Holds an empty tree, some segments and a few chunks.
const DISK_MIB: u64 = 96;

/// How often a value repeats its number: 100 to 200 KB.
const REPEATS: usize = 50_000;

/// What was acknowledged, and what was under way when it was refused.
#[derive(Default)]
struct Written {
    acknowledged: BTreeMap<String, String>,
    count: usize,
}

impl Written {
    /// Writes until the node says that the disk is full.
    fn until_full(&mut self, node: &Node) {
        eventually("the disk is full", || self.one(node) == 507);
    }

    /// Writes one key, and gives what the node said.
    fn one(&mut self, node: &Node) -> u16 {
        self.count += 1;
        let (key, value) = (format!("k{}", self.count), format!("{}-", self.count).repeat(REPEATS));
        let raw = [("Content-Type", "application/octet-stream")];
        let reply = node.request("PUT", &format!("/kv/{key}"), &raw, value.as_bytes());
        match reply.status {
            200 => drop(self.acknowledged.insert(key, value)),
            507 => {
                let error = reply.error();
                assert!(error.contains("full") && error.contains("free some space"), "{error}");
            }
            // The log and the tree do not notice at the same moment: what waits for the tree is bounded meanwhile.
            503 => assert!(reply.error().contains("overloaded"), "{reply:?}"),
            status => panic!("{status}: {}", reply.error()),
        }
        reply.status
    }

    /// Every acknowledged value is there.
    fn check(&self, node: &Node) {
        let raw = [("Accept", "application/octet-stream")];
        for (key, value) in &self.acknowledged {
            let reply = node.request("GET", &format!("/kv/{key}"), &raw, b"");
            assert!(reply.status == 200 && reply.body == value.as_bytes(), "{key}: {}", reply.status);
        }
    }
}

fn put_by_binary(node: &Node) -> Result<(), Error> {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { Client::connect(node.binary.to_string()).await?.put("k", "v").await.map(drop) })
}

fn is_ready(node: &Node) -> bool {
    node.get("/health/ready").status == 200
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers_by_itself() {
    let Some(disk) = Mount::small(DISK_MIB) else { return };
    let home = Home::at(disk.path().join("data"));
    let flags = ["--cores", "1", "--memory", "96MiB"];
    let mut node = home.start_with(&flags);
    let mut written = Written::default();
    for _ in 0..50 {
        assert_eq!(written.one(&node), 200);
    }

    for _ in 0..2 {
        let ballast = disk.fill();
        written.until_full(&node);
        assert_eq!(put_by_binary(&node), Err(Error::Failure(Failure::DiskFull)));
        written.check(&node);
        eventually("readiness tells of the full disk", || {
            let ready = node.get("/health/ready");
            ready.status == 503 && ready.json()["status"].as_str().unwrap().contains("the disk is full")
        });
        assert_eq!(node.get("/health/live").status, 200, "a restart would not help");
        assert!(node.is_running());

        fs::remove_file(ballast).unwrap();
        eventually("writes come back without a restart", || written.one(&node) == 200);
        eventually("readiness comes back", || is_ready(&node));
        written.check(&node);
    }
    println!("{} acknowledged writes on {} of {DISK_MIB} MiB", written.acknowledged.len(), disk.kind());
}

#[test]
fn a_node_killed_on_a_full_disk_has_lost_nothing() {
    let Some(disk) = Mount::small(DISK_MIB) else { return };
    let home = Home::at(disk.path().join("data"));
    let flags = ["--cores", "1", "--memory", "96MiB"];
    let mut written = Written::default();
    for round in 0..3 {
        let node = home.start_with(&flags);
        for _ in 0..20 {
            assert_eq!(written.one(&node), 200, "round {round}");
        }
        let ballast = disk.fill();
        written.until_full(&node);
        node.kill();

        // Where it cannot recover for want of room it says so, and has changed nothing that a later start needs.
        match home.try_start(&flags) {
            Ok(node) => {
                written.check(&node);
                println!("round {round}: it starts on the full disk, and reads are served");
                node.kill();
            }
            Err(ended) => {
                assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
                assert!(ended.said.contains("full") && !ended.said.contains("panicked"), "{}", ended.said);
                println!("round {round}: {}", ended.said.lines().last().unwrap_or_default());
            }
        }
        fs::remove_file(ballast).unwrap();
        let node = home.start_with(&flags);
        written.check(&node);
        assert_eq!(written.one(&node), 200, "round {round}");
        node.kill();
    }
    println!("{} acknowledged writes on {} of {DISK_MIB} MiB", written.acknowledged.len(), disk.kind());
}
