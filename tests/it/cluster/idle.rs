//! What a cluster costs that has nothing to do.

use std::time::Duration;

use super::{now, pass, three};
use crate::dice::setting;
use crate::harness::Home;

/// Share of one core, ten times the promise: the tests run without optimisation.
const SHARE_MAX: f64 = 0.2;

#[test]
fn three_idle_nodes_hardly_use_a_processor() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let nodes = three(&homes);
    let time = Duration::from_secs(setting("SLOOP_TEST_IDLE_SECONDS", 3));
    // The gossip of the join has ended.
    pass(Duration::from_secs(1));

    let (begun, before) = (now(), nodes.each_ref().map(|node| node.cpu()));
    pass(time);
    let took = begun.elapsed();
    let shares: Vec<f64> = nodes
        .iter()
        .zip(before)
        .map(|(node, before)| (node.cpu() - before).as_secs_f64() / took.as_secs_f64())
        .collect();

    println!("idle for {took:.1?}: shares of one core {shares:.4?}");
    assert!(shares.iter().all(|share| *share < SHARE_MAX), "{shares:?}");
}
