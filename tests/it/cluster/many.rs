//! Twenty nodes on one machine, all of them owners of every key.

use std::fs;
use std::time::Duration;

use sloop::client::Client;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::{agree, flags, now, secret};
use crate::dice::setting;
use crate::harness::{Home, Node, eventually, files, within};

const NODES: usize = 20;

/// Time for them to become one cluster of twenty owners, in a debug build beside other tests.
const GROWN: Duration = Duration::from_secs(240);

/// Clients at once, each of a node of its own.
const CLIENTS: usize = 8;

/// The node that stands still half way. Nobody is its client.
const STILL: usize = NODES - 1;

fn start_all(homes: &[Home]) -> Vec<Node> {
    let (secret, founder) = (secret(), ["--replicas", "20", "--read-quorum", "10", "--write-quorum", "10"]);
    let first = homes[0].start_with(&[&flags("n0", "127.0.0.1:0", "", &secret)[..], &founder].concat());
    let seed = first.binary.to_string();
    let begin =
        |(number, home): (usize, &Home)| home.start_with(&flags(&format!("n{number}"), "127.0.0.1:0", &seed, &secret));
    let others = homes.iter().enumerate().skip(1).map(begin);
    std::iter::once(first).chain(others).collect()
}

#[test]
fn twenty_nodes_agree_and_serve_while_one_stands_still() {
    let homes: Vec<Home> = (0..NODES).map(|_| Home::new()).collect();
    serve_while_one_stands_still(&homes, setting("SLOOP_TEST_CLUSTER_KEYS", 300));
}

#[test]
fn twenty_nodes_start_as_an_ordinary_user() {
    let limited = |_| Home::new().open_to_all().run_with(&["prlimit", "--memlock=8388608"]).run_by(65_534);
    let homes: Vec<Home> = (0..NODES).map(limited).collect();
    if !homes[0].runs() {
        println!("skipped: nobody else can run the binary here, or only root may ask for it");
        return;
    }
    serve_while_one_stands_still(&homes, 50);
}

fn serve_while_one_stands_still(homes: &[Home], keys: u64) {
    let begun = now();
    let nodes = start_all(homes);
    let started = begun.elapsed();
    // Each change of owners that they grow by hears of all of them three times, and they share two processors.
    within(GROWN, "all agree", || agree(&nodes.iter().collect::<Vec<_>>(), 20.0));
    println!("{NODES} nodes: started in {started:.1?}, in agreement after {:.1?}", begun.elapsed());
    show(&nodes, homes);

    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let half = keys / 2;
    let put = |from, to| runtime.block_on(call_all(&nodes, from, to, Kind::Put));
    let get = |from, to| runtime.block_on(call_all(&nodes, from, to, Kind::Get));
    println!("puts, all up: {}", put(0, half));
    println!("gets, all up: {}", get(0, half));
    nodes[STILL].signal(rustix::process::Signal::STOP);
    println!("puts, one stands still: {}", put(half, keys));
    println!("gets, one stands still: {}", get(half, keys));
    nodes[STILL].signal(rustix::process::Signal::CONT);

    let begun = now();
    eventually("all agree again", || agree(&nodes.iter().collect::<Vec<_>>(), 20.0));
    eventually("the hints are delivered", || nodes.iter().all(|node| node.metric("sloop_hints") == 0.0));
    println!("in agreement and without hints {:.1?} after it went on", begun.elapsed());
    show(&nodes, homes);
}

/// What all of them take.
fn show(nodes: &[Node], homes: &[Home]) {
    let mib = |bytes: u64| bytes / 1_048_576;
    let memory: Vec<u64> = nodes.iter().map(|node| mib(node.memory())).collect();
    let bytes =
        |home: &Home| files(&home.data_dir()).iter().map(|file| fs::metadata(file).map_or(0, |is| is.len())).sum();
    let disk: Vec<u64> = homes.iter().map(|home| mib(bytes(home))).collect();
    let (memory_all, disk_all): (u64, u64) = (memory.iter().sum(), disk.iter().sum());
    println!("RSS {memory_all} MiB ({:?} to {:?} each)", memory.iter().min(), memory.iter().max());
    println!("disk {disk_all} MiB ({:?} to {:?} each)", disk.iter().min(), disk.iter().max());
}

#[derive(Clone, Copy)]
enum Kind {
    Put,
    Get,
}

/// Calls for these keys, by all clients at once. Gives how long they took, to be printed.
async fn call_all(nodes: &[Node], from: u64, to: u64, kind: Kind) -> String {
    let (begun, mut tasks) = (now(), JoinSet::new());
    for number in 0..CLIENTS {
        let address = nodes[number * 2].binary.to_string();
        let keys = (from..to).skip(number).step_by(CLIENTS);
        tasks.spawn(async move {
            let client = Client::connect(address).await.expect("the node takes connections");
            let mut took = vec![];
            for key in keys {
                let asked = now();
                call(&client, key, kind).await;
                took.push(asked.elapsed());
            }
            took
        });
    }
    let mut took = tasks.join_all().await.concat();
    took.sort_unstable();
    let at = |percent: usize| took[took.len() * percent / 100];
    let (all, slowest) = (begun.elapsed(), took[took.len() - 1]);
    format!("{} in {all:.1?}, p50 {:.1?}, p99 {:.1?}, slowest {slowest:.1?}", took.len(), at(50), at(99))
}

async fn call(client: &Client, key: u64, kind: Kind) {
    let (name, value) = (format!("key-{key}"), format!("value-{key}"));
    match kind {
        Kind::Put => {
            let written = client.put(&name, value).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!((written.level.n, written.level.quorum), (20, 10));
        }
        Kind::Get => {
            let entry = client.get(&name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            let values: Vec<&[u8]> = entry.siblings().iter().map(|sibling| sibling.value.as_bytes()).collect();
            assert_eq!(values, [value.as_bytes()], "{name}");
        }
    }
}
