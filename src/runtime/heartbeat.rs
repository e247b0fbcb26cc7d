//! Which cores still turn. Every core beats; the control thread watches.
//!
//! An executor that hangs answers nobody and logs nothing: only somebody else can tell. Plain atomics, written by their
//! core alone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::protocol::types::CoreId;

/// A core that has not beaten for this long counts as hung: twenty beats of an idle core.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);

/// The hearts of all cores, and whether the node serves.
#[derive(Debug)]
pub struct Heartbeats {
    started: Instant,
    hearts: Box<[Heart]>,
    serving: AtomicBool,
}

#[derive(Debug)]
struct Heart {
    /// Milliseconds since `started`.
    beaten_at: AtomicU64,
    writes_stopped: AtomicBool,
    disk_full: AtomicBool,
    linked: AtomicBool,
}

/// Why a node is not well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ailment {
    /// A core hangs. Restart the node: everything acknowledged is in the log.
    #[error("core {core} has not turned for {silent_ms} ms")]
    Hung {
        /// The core.
        core: CoreId,
        /// Time since its last beat.
        silent_ms: u64,
    },
    /// The log of a core failed; reads go on.
    #[error("core {core} has stopped writing after its log failed: restart the node when the disk is well")]
    WritesStopped {
        /// The core.
        core: CoreId,
    },
    /// Writes are refused until there is room; reads go on.
    #[error("the disk is full: free some space, writes resume by themselves")]
    DiskFull,
    /// The node recovers, or is stopping.
    #[error("the node is not serving: it is starting or stopping")]
    NotServing,
}

impl Heartbeats {
    /// Hearts that beat now, of a node that does not serve yet.
    #[expect(clippy::disallowed_methods, reason = "the clock of liveness itself")]
    pub fn new(cores: u16) -> Heartbeats {
        let heart = || Heart {
            beaten_at: AtomicU64::new(0),
            writes_stopped: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
            linked: AtomicBool::new(false),
        };
        Heartbeats {
            started: Instant::now(),
            hearts: (0..cores).map(|_| heart()).collect(),
            serving: AtomicBool::new(false),
        }
    }

    /// The core turns.
    pub fn beat(&self, core: CoreId) {
        self.hearts[core.index()].beaten_at.store(self.uptime_ms(), Ordering::Relaxed);
    }

    /// The core has stopped writing, for good.
    pub fn stop_writes(&self, core: CoreId) {
        self.hearts[core.index()].writes_stopped.store(true, Ordering::Relaxed);
    }

    /// Whether the core refuses writes because the disk is full.
    pub fn show_full(&self, core: CoreId, full: bool) {
        self.hearts[core.index()].disk_full.store(full, Ordering::Relaxed);
    }

    /// Whether the core has its links to other nodes, or has tried in vain.
    pub fn show_linked(&self, core: CoreId, linked: bool) {
        self.hearts[core.index()].linked.store(linked, Ordering::Relaxed);
    }

    /// Whether every core has its links to other nodes, or has tried in vain.
    pub fn linked(&self) -> bool {
        self.hearts.iter().all(|heart| heart.linked.load(Ordering::Relaxed))
    }

    /// The node serves from now on, or does so no more.
    pub fn serve(&self, serving: bool) {
        self.serving.store(serving, Ordering::Relaxed);
    }

    /// Milliseconds since the node started.
    pub fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).expect("584 million years fit")
    }

    /// Whether every core turns.
    ///
    /// # Errors
    /// [`Ailment::Hung`].
    pub fn live(&self) -> Result<(), Ailment> {
        self.live_at(self.uptime_ms())
    }

    /// Whether the node serves reads and writes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn ready(&self) -> Result<(), Ailment> {
        self.live()?;
        if !self.serving.load(Ordering::Relaxed) {
            return Err(Ailment::NotServing);
        }
        if let Some((core, _)) = self.by_core().find(|(_, heart)| heart.writes_stopped.load(Ordering::Relaxed)) {
            return Err(Ailment::WritesStopped { core });
        }
        match self.hearts.iter().any(|heart| heart.disk_full.load(Ordering::Relaxed)) {
            true => Err(Ailment::DiskFull),
            false => Ok(()),
        }
    }

    fn live_at(&self, now_ms: u64) -> Result<(), Ailment> {
        let silence = |heart: &Heart| now_ms.saturating_sub(heart.beaten_at.load(Ordering::Relaxed));
        match self.by_core().max_by_key(|(_, heart)| silence(heart)) {
            Some((core, heart)) if u128::from(silence(heart)) > SILENCE_MAX.as_millis() => {
                Err(Ailment::Hung { core, silent_ms: silence(heart) })
            }
            _ => Ok(()),
        }
    }

    fn by_core(&self) -> impl Iterator<Item = (CoreId, &Heart)> {
        (0..).map(CoreId).zip(&self.hearts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_stops_turning_is_named() {
        let hearts = Heartbeats::new(2);
        hearts.hearts[0].beaten_at.store(10_000, Ordering::Relaxed);
        hearts.hearts[1].beaten_at.store(7_500, Ordering::Relaxed);

        assert_eq!(hearts.live_at(9_000), Ok(()));
        assert_eq!(hearts.live_at(10_000), Err(Ailment::Hung { core: CoreId(1), silent_ms: 2_500 }));
    }

    #[test]
    fn a_node_is_ready_when_it_serves_and_every_core_writes() {
        let hearts = Heartbeats::new(2);
        assert_eq!(hearts.ready(), Err(Ailment::NotServing));

        hearts.serve(true);
        assert_eq!(hearts.ready(), Ok(()));

        hearts.show_full(CoreId(0), true);
        assert_eq!(hearts.ready(), Err(Ailment::DiskFull));
        hearts.show_full(CoreId(0), false);
        assert_eq!(hearts.ready(), Ok(()));

        hearts.stop_writes(CoreId(1));
        assert_eq!(hearts.ready(), Err(Ailment::WritesStopped { core: CoreId(1) }));
        assert_eq!(hearts.live(), Ok(()), "it still answers reads");
    }
}
