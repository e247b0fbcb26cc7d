//! SIGSTOP: a node that stands still for longer than anyone waits, as under a debugger, a frozen container or a
//! machine that swaps; then SIGCONT.
//!
//! While it stands, each client is told by its own clock. Afterwards the same process goes on, with the same
//! connections, and its watchdog, heartbeats and deadlines, which all saw a jump in time, have ended nothing that was
//! acknowledged.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::recorded::{Crowd, Record, check, eras};
use crate::dice::{Dice, seed};
use crate::harness::{Home, LIMIT, Node, eventually};

/// What clients give the node, retries included.
const DEADLINE: Duration = Duration::from_millis(500);

/// Longer than a core may be silent before it counts as hung (2 s), and than a client's deadline.
const STANDSTILL: Duration = Duration::from_millis(2_500);

const STOPS: u32 = 2;

#[test]
fn a_node_that_was_stopped_goes_on_and_has_lost_nothing() {
    let (home, mut dice, mut record) = (Home::new(), Dice(seed()), Record::default());
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut node = home.start();

    runtime.block_on(async {
        let mut crowd = Crowd::begin(node.binary, 1, DEADLINE, &mut dice);
        for _ in 0..STOPS {
            let enough = record.acknowledged() + 300;
            crowd.until(&mut record, |record| record.acknowledged() >= enough).await;
            let (before, late) = (record.acknowledged(), record.overdue());
            stand_still(&node, &mut crowd, &mut record).await;
            assert!(record.overdue() >= late + 16, "every client was told that its time was over");
            println!("{} writes, then {} calls overdue", record.acknowledged(), record.overdue() - late);

            let enough = before + 600;
            let goes_on = crowd.until(&mut record, |record| record.acknowledged() >= enough);
            timeout(LIMIT, goes_on).await.expect("the clients are served again");
        }
        assert!(node.is_running(), "a jump in time is no reason to end");
        eventually("the node is well again", || node.get("/health/ready").status == 200);
        node.kill();
        crowd.end(&mut record).await;
    });

    let node = home.start();
    runtime.block_on(check(node.binary, 2, eras(1), &mut record));
    println!("{:?} operations and acknowledged writes, seed {}", record.totals(), seed());
    let judged = record.judged();
    assert!(judged.is_empty(), "seed {}:\n{}", seed(), judged.join("\n"));
}

/// Stops the node and lets it go on, while the clients work, wait and give up.
#[expect(clippy::disallowed_methods, reason = "how long it stands still is measured by a clock")]
async fn stand_still(node: &Node, crowd: &mut Crowd, record: &mut Record) {
    node.signal(Signal::STOP);
    let begun = Instant::now();
    let stands = crowd.until(record, |_| begun.elapsed() > STANDSTILL);
    timeout(LIMIT, stands).await.expect("clients of a node that stands still are told by their own clocks");
    node.signal(Signal::CONT);
}
