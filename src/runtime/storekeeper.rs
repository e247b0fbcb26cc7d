//! The store thread of one core: everything that blocks. Every call into the LSM tree is made here and nowhere else
//! while the node runs.
//!
//! Reads do not wait for an ingestion: between two slices of a chunk the thread looks for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Clock;
use super::mail::{Errand, Finished, Job};
use crate::protocol::io::{Scan, Unreadable};
use crate::protocol::message::Keys;
use crate::protocol::ring::{Cores, Ring};
use crate::protocol::types::{CoreId, Instant, Key, RequestId, ScanId};
use crate::store::lsm::Lsm;
use crate::store::{Chunk, KeySet, Place};

/// A store thread at work.
pub struct Storekeeper {
    /// Whose thread this is.
    pub core: CoreId,
    /// The clocks.
    pub clock: Clock,
    /// The ring.
    pub ring: Ring,
    /// The node's cores: a listing shows the partitions of this core only.
    pub cores: Cores,
    /// The tree.
    pub lsm: Lsm,
    /// Jobs come in here; the thread ends when their sender is gone.
    pub jobs: flume::Receiver<Job>,
    /// What is done goes out here.
    pub inbox: flume::Sender<Errand>,
}

/// Bytes of sets that are read before they are told: the keys of one fetch may hold more than memory does.
const TOLD_BYTES: usize = 4 * 1024 * 1024;

/// How long between two looks for whether a wait is over; reads end it sooner.
const WAIT: Duration = Duration::from_millis(5);

impl Storekeeper {
    /// Works until the core is gone.
    pub fn work(self) {
        let mut later = VecDeque::new();
        while let Some(job) = later.pop_front().or_else(|| self.jobs.recv().ok()) {
            match job {
                Job::Fetch(keys) => self.fetch(keys),
                Job::List { id, keys, overlay, deadline } => self.list(id, &keys, overlay, deadline, &mut later),
                Job::Scan { scan, of, overlay } => self.scan(scan, of, overlay, &mut later),
                Job::Ingest(chunk) => self.ingest(chunk, &mut later),
                Job::End => return,
            }
        }
    }

    /// Between two slices of long work: reads are served, the rest waits, and a core that waits for this processor has
    /// it before the scheduler would look.
    fn serve_reads(&self, later: &mut VecDeque<Job>) {
        std::thread::yield_now();
        for job in self.jobs.try_iter() {
            match job {
                Job::Fetch(keys) => self.fetch(keys),
                long => later.push_back(long),
            }
        }
    }

    /// Where much was deleted a page may be far to find. Chunks wait behind it, so nobody looks longer than somebody
    /// waits.
    fn list(
        &self,
        id: RequestId,
        keys: &Keys,
        overlay: Vec<(Place, bool)>,
        deadline: Instant,
        later: &mut VecDeque<Job>,
    ) {
        let mine = |partition| self.cores.of(partition) == self.core;
        let in_time = || {
            self.serve_reads(later);
            self.clock.instant() < deadline
        };
        let page = match self.lsm.list(self.ring, mine, keys, overlay, in_time) {
            Ok(Some(page)) => Ok(page),
            Ok(None) => Err(Unreadable { reason: "the page was not found by the deadline".to_owned() }),
            Err(error) => Err(unreadable(&error)),
        };
        self.tell(Finished::Listed { id, page });
    }

    /// Nobody waits for a scan as a client does, and whatever looks for keys goes on from page to page: the bound on
    /// each ([`Lsm::scan`]) is what chunks wait for.
    fn scan(&self, scan: ScanId, of: Scan, overlay: Vec<KeySet>, later: &mut VecDeque<Job>) {
        let go_on = || {
            self.serve_reads(later);
            !later.iter().any(|job| matches!(job, Job::End))
        };
        let page = match self.lsm.scan(self.ring, of, overlay, go_on) {
            Ok(Some(page)) => Ok(page),
            Ok(None) => Err(Unreadable { reason: "the core has ended".to_owned() }),
            Err(error) => Err(unreadable(&error)),
        };
        self.tell(Finished::Scanned { scan, page });
    }

    fn fetch(&self, keys: Vec<Key>) {
        let begun = self.clock.instant();
        let read = |key: Key| {
            let place = Place { partition: self.ring.partition(&key), key };
            let found = self.lsm.get(&place).map_err(|error| unreadable(&error));
            (place.key, found.map(|set| set.map(Arc::new)))
        };
        let mut keys = keys.into_iter().map(read);
        let (mut fetched, mut bytes) = (Vec::new(), 0);
        while let Some((key, found)) = keys.next() {
            bytes += found.as_ref().map_or(0, |set| set.as_ref().map_or(0, |set| set.bytes()));
            fetched.push((key, found));
            if keys.len() == 0 || bytes >= TOLD_BYTES {
                let took = self.clock.instant().since(begun);
                self.tell(Finished::Fetched { fetched: std::mem::take(&mut fetched), took });
                bytes = 0;
            }
        }
    }

    fn ingest(&self, chunk: Arc<Chunk>, later: &mut VecDeque<Job>) {
        let begun = self.clock.instant();
        // Where the core has ended, what the chunk holds is in its log.
        if !self.wait_while(|| self.lsm.level_0_is_deep(), later) {
            return;
        }
        if self.lsm.compaction_has_ended() {
            let core = self.core;
            tracing::error!(%core, "compaction failed and has ended: restart the node when the disk is well");
        }
        let outcome = self.lsm.ingest(&chunk, || self.serve_reads(later));
        if let Err(failed) = &outcome {
            tracing::error!(core = %self.core, error = %failed, "a chunk was not ingested; it is kept and tried again");
        }
        let outcome = outcome.map_err(|failed| failed.is_full());
        self.tell(Finished::Ingested { outcome, took: self.clock.instant().since(begun) });
        if outcome.is_ok() {
            self.free(chunk, later);
        }
    }

    /// Frees a chunk as soon as the core holds it no more. On the core that would hold up every request: each of some
    /// 100,000 states waits for memory.
    fn free(&self, chunk: Arc<Chunk>, later: &mut VecDeque<Job>) {
        self.wait_while(|| Arc::strong_count(&chunk) > 1, later);
        if let Some(chunk) = Arc::into_inner(chunk) {
            chunk.free(|| self.serve_reads(later));
        }
    }

    /// Serves reads as long as it is so; the rest waits. False once the core has ended, which may stand in `later`:
    /// what is waited for may never come then.
    fn wait_while(&self, mut goes_on: impl FnMut() -> bool, later: &mut VecDeque<Job>) -> bool {
        while goes_on() {
            if later.iter().any(|job| matches!(job, Job::End)) {
                return false;
            }
            match self.jobs.recv_timeout(WAIT) {
                Ok(Job::Fetch(keys)) => self.fetch(keys),
                Ok(Job::End) | Err(flume::RecvTimeoutError::Disconnected) => {
                    later.push_front(Job::End);
                    return false;
                }
                Ok(long) => later.push_back(long),
                Err(flume::RecvTimeoutError::Timeout) => {}
            }
        }
        true
    }

    fn tell(&self, finished: Finished) {
        // A core that is gone has nobody left to tell.
        let _ = self.inbox.send(Errand::Finished(finished));
    }
}

fn unreadable(error: &dyn std::error::Error) -> Unreadable {
    tracing::error!(%error, "the store could not be read");
    Unreadable { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::antientropy::LeafSet;
    use crate::protocol::io::ScanWant;
    use crate::protocol::ring::Partition;
    use crate::protocol::types::{AppendId, LogId};

    fn storekeeper(folder: &std::path::Path) -> (Storekeeper, flume::Sender<Job>, flume::Receiver<Errand>) {
        let lsm = Lsm::open(folder, 1024 * 1024).unwrap();
        let (sender, jobs) = flume::unbounded();
        let (inbox, errands) = flume::unbounded();
        let (core, cores) = (CoreId(0), Cores { count: 1, salt: 1 });
        let clock = Clock::start();
        (Storekeeper { core, clock, ring: Ring::new(16), cores, lsm, jobs, inbox }, sender, errands)
    }

    #[test]
    fn scans_are_told_in_their_order_as_memory_and_store_hold_their_keys() {
        let folder = tempfile::tempdir().unwrap();
        let (storekeeper, sender, errands) = storekeeper(folder.path());
        let (one, other) = (Key::new("a").unwrap(), Key::new("b").unwrap());
        let want = || ScanWant::Names { max: 10 };
        let of = || Scan { partition: Partition(3), leaves: LeafSet::ALL, after: None, want: want() };
        let overlay = vec![(one.clone(), Some(Arc::default())), (other, None)];
        for scan in [1, 2].map(ScanId) {
            sender.send(Job::Scan { scan, of: of(), overlay: overlay.clone() }).unwrap();
        }
        sender.send(Job::End).unwrap();
        storekeeper.work();
        for scan in [1, 2].map(ScanId) {
            match errands.recv().unwrap() {
                Errand::Finished(Finished::Scanned { scan: found, page: Ok(page) }) => {
                    assert_eq!((found, page.names.len(), &page.names[0].key), (scan, 1, &one));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_store_thread_ends_though_its_core_left_a_chunk_unfreed() {
        let folder = tempfile::tempdir().unwrap();
        let (storekeeper, sender, _errands) = storekeeper(folder.path());
        let mut chunk = Chunk::default();
        chunk.set_position(LogId { start: 1, core: CoreId(0) }, AppendId(1));
        let held = Arc::new(chunk);

        // The end comes while the chunk goes in, and nobody lets go of the chunk any more.
        let mut later = VecDeque::from([Job::End]);
        storekeeper.ingest(Arc::clone(&held), &mut later);
        assert!(later.iter().any(|job| matches!(job, Job::End)));

        sender.send(Job::Ingest(Arc::clone(&held))).unwrap();
        sender.send(Job::End).unwrap();
        storekeeper.work();
    }
}
