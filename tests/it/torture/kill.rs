//! kill -9 in the middle of concurrent operations, again and again on one data directory, judged by what the clients
//! were told.
//!
//! A round ends when enough has been acknowledged: by a kill mostly, by a clean stop sometimes, and the next one starts
//! with another number of cores. Memory is the least that a node takes, so that the rounds pass through everything that
//! the log does: chunks are ingested, segments are recycled, within a life and from one to the next.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use sloop::verify::judge;
use sloop::verify::judge::Broken;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::recorded::{Crowd, Record, check, eras};
use crate::dice::{Dice, seed, setting};
use crate::harness::{Home, Metrics, Node, files};

/// How often the node is ended, unless told otherwise.
const ROUNDS: u64 = 12;

/// So many rounds certainly move chunks and recycle segments, whatever the seed; fewer mostly do.
const MOVING_ROUNDS: u32 = 50;

/// One in so many rounds ends with a clean stop.
const CLEAN_ROUNDS: u32 = 5;

/// The least memory of a core.
const CORE_MEMORY_MIB: u64 = 96;

const DEADLINE: Duration = Duration::from_secs(5);

#[test]
fn after_kill_9_every_acknowledged_write_is_there_and_nothing_else() {
    let rounds = u32::try_from(setting("SLOOP_TEST_ROUNDS", ROUNDS)).unwrap();
    let (home, runtime, mut dice) = (Home::new(), runtime(), Dice(seed()));
    let (mut record, mut moved) = (Record::default(), Moved::default());

    for round in 1..=rounds {
        let cores = 1 + dice.below(3);
        let memory = format!("{}MiB", CORE_MEMORY_MIB * cores);
        let node = home.start_with(&["--cores", &cores.to_string(), "--memory", &memory]);
        runtime.block_on(check(node.binary, round, std::iter::once(round), &mut record));
        let enough = record.acknowledged() + 200 + dice.below(1_100);
        runtime.block_on(live(node, round, enough, &mut dice, &mut record, &mut moved));
    }

    let node = home.start();
    runtime.block_on(check(node.binary, 0, eras(rounds), &mut record));
    let (operations, acknowledged) = record.totals();
    println!("{rounds} rounds, {operations} operations, {acknowledged} acknowledged writes, seed {}", seed());
    println!("as seen in the middle of rounds: {moved:?}; log files at the end: {} MB", log_bytes(&home) / 1_000_000);
    let judged = record.judged();
    assert!(judged.is_empty(), "seed {}:\n{}", seed(), judged.join("\n"));
    assert!(rounds < MOVING_ROUNDS || moved.chunks > 0, "no chunk was ingested: {moved:?}");
    assert!(rounds < MOVING_ROUNDS || log_bytes(&home) < moved.log_bytes, "no segment was recycled: {moved:?}");
}

/// A test that cannot fail shows nothing: a node whose log was taken away is caught.
#[test]
fn a_node_that_has_lost_its_log_is_caught() {
    let (home, runtime, mut record) = (Home::new(), runtime(), Record::default());
    runtime.block_on(live(home.start(), 1, 200, &mut Dice(1), &mut record, &mut Moved::default()));
    for segment in files(&home.data_dir().join("wal")) {
        fs::remove_file(segment).unwrap();
    }
    let node = home.start();
    runtime.block_on(check(node.binary, 0, eras(1), &mut record));
    let broken: BTreeSet<Broken> = judge(record.history()).into_iter().map(|violation| violation.promise).collect();
    assert!(broken.contains(&Broken::Lost), "{broken:?}");
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn log_bytes(home: &Home) -> u64 {
    files(&home.data_dir().join("wal")).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

/// What nodes said that they had moved, at some moment before their end.
#[derive(Debug, Default)]
struct Moved {
    chunks: u64,
    log_bytes: u64,
}

impl Moved {
    /// Asks a node beside its clients: a pause of all of them would make the moment of the kill a quiet one.
    fn of(node: &Node) -> JoinHandle<Option<Moved>> {
        let http = node.http;
        tokio::task::spawn_blocking(move || {
            let metrics = Metrics::of(http)?;
            let number = |name| metrics.sum(name) as u64;
            Some(Moved { chunks: number("sloop_ingestions_total"), log_bytes: number("sloop_wal_written_bytes_total") })
        })
    }

    fn add(&mut self, more: Moved) {
        self.chunks += more.chunks;
        self.log_bytes += more.log_bytes;
    }
}

/// Lets all clients work until enough is acknowledged, ends the node, and waits for nobody.
async fn live(node: Node, round: u32, enough: u64, dice: &mut Dice, record: &mut Record, moved: &mut Moved) {
    let late = record.acknowledged().midpoint(enough);
    let mut crowd = Crowd::begin(node.binary, round, DEADLINE, dice);
    crowd.until(record, |record| record.acknowledged() >= late).await;
    let seen = Moved::of(&node);
    crowd.until(record, |record| record.acknowledged() >= enough).await;
    if round.is_multiple_of(CLEAN_ROUNDS) {
        terminate(node, &mut crowd, record).await;
    } else {
        node.kill();
    }
    crowd.end(record).await;
    // The node may have been gone before it was asked.
    seen.await.unwrap().into_iter().for_each(|seen| moved.add(seen));
}

/// Clients go on while the node stops, and may be answered until it has.
async fn terminate(node: Node, crowd: &mut Crowd, record: &mut Record) {
    let mut stopping = tokio::task::spawn_blocking(move || node.terminate());
    loop {
        tokio::select! {
            ended = &mut stopping => {
                let ended = ended.unwrap();
                assert!(ended.status.success(), "{}", ended.said);
                return;
            }
            true = crowd.listen(record) => {}
        }
    }
}
