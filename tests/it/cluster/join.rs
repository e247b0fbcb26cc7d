//! Real processes that become one cluster, and those that are not let in.

use std::fs;

use super::{agree, secret, seen, start, three};
use crate::harness::{Home, Metrics, Node, eventually};

#[test]
fn three_nodes_become_one_cluster_and_find_it_again_after_all_were_stopped() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let nodes = three(&homes);
    let layout = seen(&nodes[0]).layout;

    let addresses = nodes.each_ref().map(|node| node.binary.to_string());
    for node in nodes {
        assert_eq!(node.terminate().status.code(), Some(0));
    }
    let names = ["n0", "n1", "n2"];
    let again = homes.iter().zip(names).zip(&addresses).map(|((home, name), address)| start(home, name, address, ""));
    let nodes: Vec<Node> = again.collect();

    eventually("all agree again", || agree(&nodes.iter().collect::<Vec<_>>(), 3.0));
    assert_eq!(seen(&nodes[1]).layout, layout, "the layout is the same");
}

#[test]
fn a_silent_node_is_known_down_and_up_again_when_it_goes_on() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let nodes = three(&homes);

    nodes[2].signal(rustix::process::Signal::STOP);
    eventually("the others know", || nodes[..2].iter().all(|node| seen(node).up == 2.0));
    nodes[2].signal(rustix::process::Signal::CONT);
    eventually("all agree again", || agree(&nodes.each_ref(), 3.0));
}

#[test]
fn a_node_with_another_secret_is_refused_and_counted() {
    let (home, other) = (Home::new(), Home::new());
    let node = start(&home, "n0", "127.0.0.1:0", "");
    let refused = |node: &Node| {
        let metrics = Metrics::of(node.http).expect("the node answers");
        metrics.sum_where("sloop_hellos_total", "outcome=\"refused\"")
    };
    let before = refused(&node);
    let seed = node.binary.to_string();

    let ended = other.refused(&["--name", "n1", "--join", &seed, "--cluster-secret", "another"]);

    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.said.contains("cluster_secret"), "{}", ended.said);
    assert!(refused(&node) > before);
}

#[test]
fn a_data_directory_stays_the_node_that_it_was() {
    let home = Home::new();
    start(&home, "n0", "127.0.0.1:0", "").terminate();

    let secret = secret();
    let ended = home.refused(&["--name", "n1", "--cluster-secret", &secret]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.said.contains("--name n0"), "{}", ended.said);

    let node = home.start_with(&["--cores", "1", "--cluster-secret", &secret]);
    let named = crate::harness::request(node.http, "GET", "/admin/health", &[], b"");
    assert_eq!(named.status, 200, "without a name it is the one that it was");
}

#[test]
fn a_node_of_another_cluster_does_not_come_in_by_join() {
    let (home, other) = (Home::new(), Home::new());
    let node = start(&home, "n0", "127.0.0.1:0", "");
    start(&other, "n1", "127.0.0.1:0", "").terminate();

    let (secret, seed) = (secret(), node.binary.to_string());
    let ended = other.refused(&["--name", "n1", "--cluster-secret", &secret, "--join", &seed]);

    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.said.contains("belongs to cluster"), "{}", ended.said);
}

#[test]
fn an_old_image_and_a_taken_name_are_refused_and_left_alone() {
    let (home, joined, image) = (Home::new(), Home::new(), Home::new());
    let node = start(&home, "n0", "127.0.0.1:0", "");
    let seed = node.binary.to_string();
    let member = start(&joined, "n1", "127.0.0.1:0", &seed);
    eventually("both agree", || agree(&[&node, &member], 2.0));

    let secret = secret();
    let taken = image.refused(&["--name", "n1", "--join", &seed, "--cluster-secret", &secret]);
    assert_eq!(taken.status.code(), Some(1));
    assert!(taken.said.contains("belongs to another node"), "{}", taken.said);
    fs::remove_dir_all(image.data_dir()).unwrap();

    member.terminate();
    copy(&joined.data_dir(), &image.data_dir());
    let member = start(&joined, "n1", "127.0.0.1:0", "");
    eventually("both agree", || agree(&[&node, &member], 2.0));
    member.terminate();
    eventually("it is known to be down", || seen(&node).up == 1.0);

    let refused = image.refused(&["--name", "n1", "--cluster-secret", &secret]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.said.contains("old image"), "{}", refused.said);
}

pub(super) fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => fs::copy(entry.path(), target).map(|_bytes| ()).unwrap(),
        }
    }
}
