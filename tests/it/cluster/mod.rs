//! Clusters of real processes: how they come to be, and what their clients notice of faults.
//!
//! Times are printed with `--nocapture`; what is asserted of them has room for a busy machine. How long a fault takes
//! and how many there are is set from outside (docs/ARCHITECTURE.md).

mod join;
mod load;
mod net;
mod faults;
mod links;
mod detection;
mod restart;
mod many;
mod idle;
mod proxy;
mod fleet;
mod crowd;
mod change;
mod disks;
mod returns;
mod trees;

use std::time::{Duration, Instant};

use crate::dice::setting;
use crate::harness::{Home, Metrics, Node, eventually};

const SECRET: &str = "open sesame";

fn secret() -> String {
    SECRET.replace(' ', "-")
}

/// A node of a cluster of one core each; `join` is where it looks for members.
fn start(home: &Home, name: &str, listen: &str, join: &str) -> Node {
    home.start_with(&flags(name, listen, join, &secret()))
}

fn flags<'a>(name: &'a str, listen: &'a str, join: &'a str, secret: &'a str) -> Vec<&'a str> {
    let mut flags = vec!["--cores", "1", "--memory", "96MiB", "--name", name, "--listen", listen];
    flags.extend(["--cluster-secret", secret]);
    if !join.is_empty() {
        flags.extend(["--join", join]);
    }
    flags
}

/// How a node sees its cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    /// The number of the layout.
    layout: f64,
    /// Nodes in it.
    nodes: f64,
    /// Members that are up.
    up: f64,
}

fn seen(node: &Node) -> Seen {
    let metrics = Metrics::of(node.http).expect("the node answers");
    let sum = |name| metrics.sum(name);
    let up = metrics.sum_where("sloop_members", "liveness=\"up\"");
    Seen { layout: sum("sloop_layout_number"), nodes: sum("sloop_layout_nodes"), up }
}

/// Whether all of them go by one layout with so many nodes, all of them up.
fn agree(nodes: &[&Node], members: f64) -> bool {
    let seen: Vec<Seen> = nodes.iter().map(|node| seen(node)).collect();
    seen.iter().all(|one| *one == seen[0] && one.nodes == members && one.up == members)
}

/// A cluster of three.
fn three(homes: &[Home; 3]) -> [Node; 3] {
    let first = start(&homes[0], "n0", "127.0.0.1:0", "");
    let seed = first.binary.to_string();
    let (second, third) = (start(&homes[1], "n1", "127.0.0.1:0", &seed), start(&homes[2], "n2", "127.0.0.1:0", &seed));
    let nodes = [first, second, third];
    eventually("all agree", || agree(&nodes.each_ref(), 3.0));
    nodes
}

/// How long a fault takes, and what is measured before it.
fn fault_time() -> Duration {
    Duration::from_secs(setting("SLOOP_TEST_FAULT_SECONDS", 3))
}

#[expect(clippy::disallowed_methods, reason = "what took how long is measured by a clock")]
fn now() -> Instant {
    Instant::now()
}

/// Lets time go by, while others work.
fn pass(time: Duration) {
    let begun = now();
    while begun.elapsed() < time {
        #[expect(clippy::disallowed_methods, reason = "a fault takes time, and nothing tells when that is over")]
        std::thread::sleep((time - begun.elapsed().min(time)).min(Duration::from_millis(20)));
    }
}

/// Hints that wait, on all of them.
fn hints(nodes: &[&Node]) -> f64 {
    nodes.iter().map(|node| node.metric("sloop_hints")).sum()
}

/// Waits until no node keeps a hint, and says how long that took.
fn drain(nodes: &[&Node]) -> Duration {
    let begun = now();
    eventually("the hints are delivered", || hints(nodes) == 0.0);
    begun.elapsed()
}
