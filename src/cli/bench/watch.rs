//! A run on a terminal: a line that moves, and Ctrl-C.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Failed;
use crate::cli::signals::Stop;
use crate::lab::driver::{Progress, Running};
use crate::lab::tally::Tally;

/// How often it is seen whether a run has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How often the line moves.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// A run that has ended.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) tally: Tally,
    /// Whether somebody ended it early.
    pub(super) is_stopped: bool,
}

/// Waits for a run's end. Ctrl-C, or SIGTERM, ends it early.
pub(super) fn watch(running: Running, what: &str) -> Result<Watched, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let is_stopped = runtime.block_on(wait(&running, what))?;
    Ok(Watched { tally: running.join()?, is_stopped })
}

async fn wait(running: &Running, what: &str) -> io::Result<bool> {
    let mut stop = Stop::here()?;
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut line = Line::new(what);
    let mut is_stopped = false;
    while !running.is_finished() {
        tokio::select! {
            () = stop.comes() => is_stopped = true,
            now = look.tick() => line.show(now, running.progress()),
        }
        if is_stopped {
            running.stop().now();
        }
    }
    line.clear();
    Ok(is_stopped)
}

/// The line that moves, on standard error where that is a terminal.
#[derive(Debug)]
struct Line<'a> {
    what: &'a str,
    is_terminal: bool,
    begun: Instant,
    shown: Instant,
    before: Progress,
}

impl Line<'_> {
    fn new(what: &str) -> Line<'_> {
        let now = Instant::now();
        let is_terminal = io::stderr().is_terminal();
        Line { what, is_terminal, begun: now, shown: now, before: Progress::default() }
    }

    fn show(&mut self, now: Instant, progress: Progress) {
        let apart = now.saturating_duration_since(self.shown);
        if !self.is_terminal || apart < SHOW_EVERY {
            return;
        }
        let Progress { operations, errors } = progress;
        let rate = (operations - self.before.operations) as f64 / apart.as_secs_f64();
        let seconds = (now - self.begun).as_secs_f64();
        write(&format!("\r{}: {seconds:5.1} s  {operations:>11} done  {rate:>9.0}/s  {errors} errors ", self.what));
        (self.shown, self.before) = (now, progress);
    }

    fn clear(&self) {
        if self.is_terminal {
            write("\r\x1b[K");
        }
    }
}

/// Nobody is left to be told when this fails.
fn write(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
