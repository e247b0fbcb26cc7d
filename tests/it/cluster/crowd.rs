//! Clients at work beside a test, and keys that are only written.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use sloop::client::{Client, Key, Options};
use sloop::lab::torture::crowd::{self, Crowd};
use sloop::verify::cluster::Violation;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::dice::{seed, setting};

/// What a call has, retries included.
const DEADLINE: Duration = Duration::from_secs(10);

/// Deletions at once.
const DELETES: usize = 16;

/// What clients of one cluster were told.
pub(super) struct Record(crowd::Record);

impl Default for Record {
    fn default() -> Record {
        Record(crowd::Record::new(seed()))
    }
}

impl Record {
    /// Writes so many still keys, with values of so many bytes, through these nodes.
    pub(super) fn fill(&mut self, nodes: &[SocketAddr], keys: u64, bytes: u64) {
        runtime().block_on(self.0.fill(nodes, keys, usize::try_from(bytes).unwrap())).unwrap();
        let tally = self.0.tally();
        assert_eq!(tally.failed + tally.unknown, 0, "nothing is wrong while data is written: {:?}", tally.failure);
    }

    /// Sends the clients to work on these nodes; those that do not answer are passed over.
    pub(super) fn crowd(&mut self, nodes: &[SocketAddr]) -> Crowd {
        let clients = u32::try_from(setting("SLOOP_TEST_CLIENTS", 12)).unwrap();
        self.0.crowd(nodes, clients).unwrap()
    }

    /// What the clients of a crowd were told.
    pub(super) fn add(&mut self, crowd: Crowd) {
        self.0.add(crowd).unwrap();
    }

    /// Everything has come to rest: reads all keys at R 2 through each of these nodes, and judges all reads. No write
    /// that any client was told of may be missing now, those among them that only fallbacks had taken.
    pub(super) fn check(mut self, what: &str, nodes: &[SocketAddr]) {
        let read = runtime().block_on(self.0.read_all(nodes));
        read.unwrap_or_else(|unread| panic!("{what}, seed {}: {unread}", seed()));
        self.0.take().unwrap();
        let broken = self.0.verdict();
        broken.iter().for_each(|violation| println!("{}", self.show(violation)));
        assert!(broken.is_empty(), "{what}, seed {}: {}, {} violations", seed(), broken[0], broken.len());
        let tally = self.0.tally();
        assert!(tally.wrong.is_empty(), "{what}, seed {}: {:?}", seed(), tally.wrong);
        let (calls, written, failed) = (tally.calls(), tally.writes, tally.failed + tally.unknown);
        println!("{what}: {calls} calls, {written} writes acknowledged, nothing lost and nothing missed");
        println!("  {failed} without an answer that counts, the first: {:?}", tally.failure);
    }

    /// What is wrong, and the operations that matter, a line each.
    fn show(&self, violation: &Violation) -> String {
        let operations = violation.operations(self.0.history()).into_iter();
        operations.fold(violation.to_string(), |lines, operation| format!("{lines}\n  {operation:?}"))
    }
}

/// Keys in one batch.
const BATCH: u64 = 200;

/// Writes many keys as fast as nodes take them, without a record.
pub(super) async fn put_all(nodes: &[SocketAddr], keys: Range<u64>, name: impl Fn(u64) -> String, bytes: usize) {
    let client = connect(nodes).await;
    for first in keys.clone().step_by(usize::try_from(BATCH).unwrap()) {
        let batch = (first..keys.end.min(first + BATCH)).map(|key| (name(key), format!("{key:bytes$}")));
        for written in client.put_many(batch).await {
            written.unwrap_or_else(|error| panic!("seed {}: a key from {first} on: {error}", seed()));
        }
    }
}

/// Deletes many keys, some at a time.
pub(super) async fn delete_all(nodes: &[SocketAddr], keys: Range<u64>, name: impl Fn(u64) -> String) {
    let client = connect(nodes).await;
    let mut deletes = JoinSet::new();
    for key in keys {
        let (client, name) = (client.clone(), name(key));
        deletes.spawn(async move {
            client.delete(&name).await.unwrap_or_else(|error| panic!("seed {}: {name}: {error}", seed()));
        });
        if deletes.len() == DELETES {
            deletes.join_next().await.expect("there are some").unwrap();
        }
    }
    deletes.join_all().await;
}

async fn connect(nodes: &[SocketAddr]) -> Client {
    let mut options = Options::new(nodes.iter().map(SocketAddr::to_string).collect::<Vec<_>>());
    options.deadline = DEADLINE;
    options.connect().await.expect("a node that is ready takes connections")
}

pub(super) fn runtime() -> Runtime {
    crowd::runtime().unwrap()
}

pub(super) fn still_key(number: u64) -> Key {
    crowd::still_key(number)
}
