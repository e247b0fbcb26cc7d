//! Seeds on several threads, heard of in the order of seeds: what is told does not depend on how many threads
//! there are.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use super::words::now;
use crate::sim::{Report, Sweep};

/// Between two looks at how far it is.
const SHOW_EVERY: Duration = Duration::from_secs(5);

/// Threads of this name keep their panics to themselves.
const NAME: &str = "rehearsal";

thread_local! {
    /// Where the last panic of this thread was.
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// So many seeds.
    Seeds(u64),
    /// Seeds that begin before so much time has gone by.
    Time(Duration),
}

/// What is run.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) sweep: Sweep,
    pub(super) from: u64,
    pub(super) limit: Limit,
    pub(super) threads: usize,
    /// Traces are kept.
    pub(super) is_traced: bool,
}

/// A panic of a rehearsal breaks a promise, and is told as such and in no other way.
pub(super) fn keep_panics() {
    let others = panic::take_hook();
    panic::set_hook(Box::new(move |info| match thread::current().name() {
        Some(NAME) => PLACE.set(info.location().map(|place| format!("{}:{}", place.file(), place.line()))),
        _ => others(info),
    }));
}

/// Runs one seed, with its trace.
///
/// # Errors
/// When there is no thread for it.
pub(super) fn one(work: &Work, seed: u64) -> io::Result<Report> {
    thread::scope(|scope| {
        let running = Builder::new().name(NAME.to_owned()).spawn_scoped(scope, || run_one(work.sweep, seed, true))?;
        running.join().map_err(|_| io::Error::other("a rehearsal ended by a panic that nothing caught"))
    })
}

/// Runs all seeds until `hear` breaks it off. It is told of each seed, in their order, and of nothing every
/// few seconds.
///
/// # Errors
/// When there are no threads for it.
pub(super) fn run(work: &Work, hear: impl FnMut(Option<(u64, Report)>) -> ControlFlow<()>) -> io::Result<()> {
    let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = now();
    thread::scope(|scope| {
        let (tell, told) = channel();
        for _ in 0..work.threads {
            let tell = tell.clone();
            let (next, is_over) = (&next, &is_over);
            let turns = move || turns(work, begun, next, is_over, &tell);
            Builder::new().name(NAME.to_owned()).spawn_scoped(scope, turns).inspect_err(|_| stop(is_over))?;
        }
        drop(tell);
        in_order(work.from, &told, hear);
        stop(&is_over);
        Ok(())
    })
}

fn stop(is_over: &AtomicBool) {
    is_over.store(true, Ordering::Relaxed);
}

fn turns(work: &Work, begun: Instant, next: &AtomicU64, is_over: &AtomicBool, tell: &Sender<(u64, Report)>) {
    while !is_over.load(Ordering::Relaxed) {
        let n = next.fetch_add(1, Ordering::Relaxed);
        let goes_on = match work.limit {
            Limit::Seeds(seeds) => n < seeds,
            Limit::Time(time) => now().duration_since(begun) < time,
        };
        if !goes_on || tell.send((n, run_one(work.sweep, work.from.wrapping_add(n), work.is_traced))).is_err() {
            return;
        }
    }
}

fn run_one(sweep: Sweep, seed: u64, traced: bool) -> Report {
    let mut report = sweep.one(seed, traced);
    if let Some(broken) = report.broken.as_mut().filter(|broken| broken.invariant == "panic") {
        let place = PLACE.take().unwrap_or_else(|| "an unknown place".to_owned());
        broken.what = format!("{} ({place})", broken.what);
    }
    report
}

fn in_order(from: u64, told: &Receiver<(u64, Report)>, mut hear: impl FnMut(Option<(u64, Report)>) -> ControlFlow<()>) {
    let (mut early, mut expected) = (BTreeMap::new(), 0_u64);
    let mut shown = now();
    loop {
        match told.recv_timeout(SHOW_EVERY.saturating_sub(now().duration_since(shown))) {
            Ok((n, report)) => drop(early.insert(n, report)),
            Err(RecvTimeoutError::Timeout) => {
                shown = now();
                if hear(None).is_break() {
                    return;
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(report) = early.remove(&expected) {
            let seed = from.wrapping_add(expected);
            expected += 1;
            if hear(Some((seed, report))).is_break() {
                return;
            }
        }
    }
}
