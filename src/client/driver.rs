//! The client's one task: it keeps a connection while there is work, and looks for another node when one is lost.

use tokio::sync::mpsc;

use super::Options;
use super::connection::{Connection, End, Job, connect, tell};

/// Runs until the last client is dropped.
pub(super) async fn drive(options: Options, mut connection: Connection, mut jobs: mpsc::Receiver<Job>) {
    let mut first = None;
    loop {
        let at = connection.at;
        if connection.carry(first, &mut jobs).await == End::Unused {
            return;
        }
        match reconnect(&options, at + 1, &mut jobs).await {
            Some((again, job)) => (connection, first) = (again, Some(job)),
            None => return,
        }
    }
}

/// Waits for a call and connects for it. Whoever asks while no node can be reached hears that: each caller knows for
/// itself how long it wants to go on trying.
async fn reconnect(options: &Options, start: usize, jobs: &mut mpsc::Receiver<Job>) -> Option<(Connection, Job)> {
    loop {
        let job = jobs.recv().await?;
        match connect(options, start).await {
            Ok(connection) => return Some((connection, job)),
            Err(error) => {
                tell(job.answer, Err(error.clone()));
                while let Ok(job) = jobs.try_recv() {
                    tell(job.answer, Err(error.clone()));
                }
            }
        }
    }
}
