//! Giving the room of deleted keys back to the disk, on a thread of its own: it writes the store again, while the store
//! threads go on reading and ingesting.
//!
//! What is deleted stays in the files until compaction comes upon it, and compaction goes where much is written. Where
//! partitions went to other nodes nothing is written any more: there it would stay for ever.

use std::convert::Infallible;
use std::thread::Builder;
use std::time::Duration;

use super::clock::Clock;
use super::priority::{COMPACTION, be_nice};
use crate::store::lsm::Lsm;

/// Between two looks for whether it is worth it; each reads the trees of all partitions, 2 MiB.
const PAUSE: Duration = Duration::from_secs(60);

/// After a store was written again nothing happens for so many times as long as that took: a store whose room does not
/// come back costs a twentieth of the disk's time.
const PAUSES_MIN: u32 = 20;

/// What a stop waits for it. fjall cannot break it off; a process that ends does, and nothing is lost.
const STOP_MAX: Duration = Duration::from_secs(5);

/// The thread that watches a store.
pub struct Reclaimer {
    stop: flume::Sender<Infallible>,
    ended: flume::Receiver<Infallible>,
}

impl Reclaimer {
    /// Begins to watch.
    ///
    /// # Errors
    /// Why there is no thread to be had.
    pub fn start(lsm: Lsm, clock: Clock) -> std::io::Result<Reclaimer> {
        let (stop, stopped) = flume::bounded(1);
        let (end, ended) = flume::bounded(1);
        let watch = move || {
            be_nice(COMPACTION);
            watch(&lsm, clock, &stopped);
            drop(lsm);
            drop(end);
        };
        Builder::new().name("reclaim".to_owned()).spawn(watch)?;
        Ok(Reclaimer { stop, ended })
    }

    /// Ends the watch, and what is under way where that is soon over.
    pub fn stop(self) {
        drop(self.stop);
        if self.ended.recv_timeout(STOP_MAX) == Err(flume::RecvTimeoutError::Timeout) {
            tracing::warn!("the store is being written again to give room back: the end of the process breaks it off");
        }
    }
}

fn watch(lsm: &Lsm, clock: Clock, stopped: &flume::Receiver<Infallible>) {
    let mut pause = PAUSE;
    while stopped.recv_timeout(pause) == Err(flume::RecvTimeoutError::Timeout) {
        let begun = clock.instant();
        if let Err(error) = reclaim_if_worth_it(lsm) {
            tracing::error!(%error, "the room of deleted keys could not be given back; it is tried again");
        }
        pause = PAUSE.max(clock.instant().since(begun) * PAUSES_MIN);
    }
}

fn reclaim_if_worth_it(lsm: &Lsm) -> Result<(), crate::store::lsm::LsmError> {
    // Chunks wait for compaction then, which waits for this.
    if lsm.level_0_is_deep() || !lsm.is_wasteful()? {
        return Ok(());
    }
    let before = lsm.size().bytes_on_disk;
    lsm.reclaim()?;
    let after = lsm.size().bytes_on_disk;
    tracing::info!(before, after, "the room of deleted keys was given back to the disk");
    Ok(())
}
