//! How soon the others know that a node is silent, and how soon they go without one whose connections were reset.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use sloop::client::Client;
use tokio::runtime::Builder;

use super::{agree, now, start, three};
use crate::dice::setting;
use crate::harness::{Home, Metrics, Node, eventually};

/// Twice the promise, for busy machines.
const DOWN_MAX: Duration = Duration::from_secs(4);

/// No request may wait for longer after the connections of a killed node were reset: ten times the promise.
const WAIT_MAX: Duration = Duration::from_secs(1);

fn rounds() -> u64 {
    setting("SLOOP_TEST_CLUSTER_ROUNDS", 2)
}

fn knows_one_down(node: &Node) -> bool {
    let metrics = Metrics::of(node.http).expect("the node answers");
    metrics.sum_where("sloop_members", "liveness=\"down\"") == 1.0
}

#[test]
fn a_silent_node_is_known_to_be_down_within_two_seconds() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let nodes = three(&homes);
    let mut took = vec![];
    for round in 0..rounds() {
        let victim = usize::try_from(round % 3).unwrap();
        let others: Vec<&Node> = (0..3).filter(|node| *node != victim).map(|node| &nodes[node]).collect();
        nodes[victim].signal(Signal::STOP);
        let begun = now();
        let mut known: [Option<Duration>; 2] = [None; 2];
        eventually("the others know", || {
            for (known, node) in known.iter_mut().zip(&others) {
                *known = known.or_else(|| knows_one_down(node).then(|| begun.elapsed()));
            }
            known.iter().all(Option::is_some)
        });
        nodes[victim].signal(Signal::CONT);
        took.extend(known.into_iter().flatten());
        eventually("all agree again", || agree(&nodes.each_ref(), 3.0));
    }
    took.sort_unstable();
    let (least, median, most) = (took[0], took[took.len() / 2], took[took.len() - 1]);
    println!("a silent node is known to be down after {least:.2?} to {most:.2?}, median {median:.2?}, {}", took.len());
    assert!(most < DOWN_MAX, "{took:?}");
}

#[test]
fn requests_go_without_a_killed_node_at_once() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let [first, mut victim, third] = three(&homes);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let client = |node: &Node| runtime.block_on(Client::connect(node.binary.to_string())).unwrap();
    let clients = [client(&first), client(&third)];
    let mut slowest = vec![];
    for round in 0..rounds() {
        let address = victim.binary.to_string();
        let warm = runtime.block_on(calls(&clients, &format!("warm-{round}"), Duration::from_millis(500)));
        victim.kill();
        let (count, most) = runtime.block_on(calls(&clients, &format!("cold-{round}"), Duration::from_secs(1)));
        println!("the slowest of {count} calls after a kill: {most:.1?}; before it, of {}: {:.1?}", warm.0, warm.1);
        slowest.push(most);
        victim = start(&homes[1], "n1", &address, "");
        eventually("all agree again", || agree(&[&first, &victim, &third], 3.0));
    }
    assert!(slowest.iter().all(|most| *most < WAIT_MAX), "{slowest:?}");
}

/// Writes and reads keys, one after the other, through both nodes in turn. All succeed: gives how many there were, and
/// how long the slowest took.
async fn calls(clients: &[Client; 2], prefix: &str, time: Duration) -> (usize, Duration) {
    let (begun, mut took) = (now(), vec![]);
    let mut time_of = |asked: Instant| took.push(asked.elapsed());
    for number in 0.. {
        if begun.elapsed() > time {
            break;
        }
        let (client, key) = (&clients[number % 2], format!("{prefix}-{number}"));
        let asked = now();
        client.put(&key, "value").await.expect("the others go on");
        time_of(asked);
        let asked = now();
        let entry = client.get(&key).await.expect("the others go on");
        time_of(asked);
        assert_eq!(entry.siblings().len(), 1, "{key}");
    }
    (took.len(), took.into_iter().max().unwrap())
}
