//! Clients that are slow where there is room for them: half a frame, a byte a second, answers that nobody reads. They
//! have thirty seconds, so this takes as long; tests run in the order of their names, and it begins among the first.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use super::bystander::Bystander;
use super::silent::{ask_and_never_read, assert_gone, drips, lasts, put_large, runtime, welcomed};
use crate::harness::{Home, eventually};

fn assert_about(lasted: Duration, documented: u64) {
    let late = Duration::from_secs(documented + 3);
    assert!(Duration::from_secs(documented) <= lasted && lasted < late, "{lasted:?} instead of {documented} s");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long it lasts is measured by a clock")]
fn slow_clients_are_dropped_after_their_time() {
    let home = Home::new();
    let node = home.start_with(&["--memory", "192MiB"]);
    let bystander = Bystander::begin(node.binary);
    let runtime = runtime();
    runtime.block_on(put_large(node.binary));
    let before = node.memory();
    let begun = Instant::now();

    runtime.block_on(async {
        let deaf = ask_and_never_read(node.binary, 20).await;
        let mut frame = vec![0; 200];
        frame[0] = 196;
        let half = async {
            let mut socket = welcomed(node.binary).await;
            socket.write_all(&frame[..100]).await.unwrap();
            lasts(socket).await
        };
        let drip = async { drips(welcomed(node.binary).await, &frame).await };
        let (half, dripped) = tokio::join!(half, drip);
        eventually("all of them are dropped", || node.metric("sloop_connections_dropped_total") == 3.0);
        let unread = begun.elapsed();
        println!("half a frame: {half:.1?}, a byte a second: {dripped:.1?}, answers unread: {unread:.1?}");
        [half, dripped, unread].into_iter().for_each(|lasted| assert_about(lasted, 30));
        drop(deaf);
    });
    assert_gone(&node, 1, before);
    bystander.end("slow clients");
}
