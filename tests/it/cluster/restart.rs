//! All nodes at once, gone and back; and one that comes back with nothing.

use std::fs;

use super::{agree, drain, secret, start, three};
use crate::harness::{Home, Node, eventually};

const NAMES: [&str; 3] = ["n0", "n1", "n2"];
const KEYS: usize = 50;

fn write(nodes: &[Node; 3], round: usize) {
    for number in 0..KEYS {
        nodes[number % 3].put(&format!("key-{round}-{number}"), &format!("value-{number}"));
    }
}

/// Whether every node gives what was written in all rounds so far.
fn holds(nodes: &[&Node], rounds: usize) {
    for (round, number) in (0..=rounds).flat_map(|round| (0..KEYS).map(move |number| (round, number))) {
        for node in nodes {
            assert_eq!(node.values(&format!("key-{round}-{number}")), [format!("value-{number}")], "{}", node.http);
        }
    }
}

#[test]
fn all_nodes_gone_at_once_find_the_cluster_and_the_data_in_any_order() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let mut nodes = three(&homes);
    let addresses = nodes.each_ref().map(|node| node.binary.to_string());
    for (round, order) in [[2, 1, 0], [1, 0, 2], [0, 2, 1]].into_iter().enumerate() {
        write(&nodes, round);
        // Killed, and once stopped cleanly.
        for node in nodes {
            if round == 1 {
                node.terminate()
            } else {
                node.kill()
            };
        }

        let mut back = order.map(|node: usize| (node, start(&homes[node], NAMES[node], &addresses[node], "")));
        back.sort_by_key(|(node, _)| *node);
        nodes = back.map(|(_, node)| node);

        eventually("all agree again", || agree(&nodes.each_ref(), 3.0));
        holds(&nodes.each_ref(), round);
    }
}

#[test]
fn hints_outlive_the_nodes_that_keep_them() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let nodes = three(&homes);
    let addresses = nodes.each_ref().map(|node| node.binary.to_string());
    let [first, second, third] = nodes;
    third.kill();
    for number in 0..KEYS {
        first.put(&format!("key-{number}"), "owed");
    }
    eventually("the writes are owed", || first.metric("sloop_hints") >= KEYS as f64);

    first.kill();
    second.kill();
    let [first, second] = [0, 1].map(|node: usize| start(&homes[node], NAMES[node], &addresses[node], ""));
    assert_eq!(first.metric("sloop_hints"), KEYS as f64, "a restart forgets none");
    let third = start(&homes[2], "n2", &addresses[2], "");

    drain(&[&first, &second, &third]);
    for number in 0..KEYS {
        assert_eq!(third.copies(&format!("key-{number}")).len(), 1, "{number}");
    }
}

#[test]
fn a_node_that_lost_its_data_does_not_come_back_under_its_name() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let nodes = three(&homes);
    write(&nodes, 0);
    let [first, second, third] = nodes;
    let (seed, address, secret) = (first.binary.to_string(), third.binary.to_string(), secret());
    third.kill();
    fs::remove_dir_all(homes[2].data_dir()).unwrap();

    let flags = ["--name", "n2", "--listen", &address, "--join", &seed, "--cluster-secret", &secret];
    let refused = homes[2].refused(&flags);

    assert_eq!(refused.status.code(), Some(1));
    let says = "the name \"n2\" belongs to another node of the cluster";
    assert!(refused.said.contains(says) && refused.said.contains("choose another --name"), "{}", refused.said);
    holds(&[&first, &second], 0);
}
