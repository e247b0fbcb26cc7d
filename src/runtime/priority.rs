//! What yields to whom when there are more threads to run than processors.
//!
//! A core that shares its processor with what compacts and ingests is stopped for whole slices of the scheduler, some
//! milliseconds each: that is its p99 (docs/RESULTS.md, background work). Linux keeps a niceness for each thread, and
//! one may always be nicer. What is starved in turn is not forgotten: as the memory for what waits fills up, writes are
//! slowed down ([`Engine::strain`](crate::store::Engine::strain)), and there is time again.

use rustix::process::nice;

/// Of a store thread, which serves cold reads too: a tenth of a processor that a core could use alone.
pub const STORE: i32 = 10;

/// Of fjall's worker, which compacts, and of what gives room back.
pub const COMPACTION: i32 = 19;

/// The calling thread is nicer from now on, and so are those that it starts.
pub fn be_nice(by: i32) {
    if let Err(error) = nice(by) {
        tracing::warn!(%error, "background work cannot be given a lower priority: it may slow requests down");
    }
}

/// Opens what starts threads for compaction, so that they are nice.
///
/// # Errors
/// What the kernel says when there is no thread to be had.
pub fn with_nice_workers<T: Send>(open: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let opening = std::thread::Builder::new().name("open".to_owned()).spawn_scoped(scope, || {
            be_nice(COMPACTION);
            open()
        })?;
        Ok(opening.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
