//! One thread: an event loop over its connections.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::connection::Connection;
use super::desk::Desk;
use super::{CONNECT_MAX, Shared};
use crate::lab::dialect::Dialect;
use crate::lab::tally::Tally;

/// Events taken at once; the rest comes next time.
const EVENTS: usize = 1_024;

/// How often connections are looked after, and the stop flag.
const TEND_EVERY: Duration = Duration::from_millis(10);

const TIMER: Token = Token(usize::MAX);

pub(super) struct Worker<D> {
    connections: Vec<Connection<D>>,
    /// What the connections share.
    pub(super) desk: Desk,
    poll: Poll,
    events: Events,
    timer: Timer,
    shared: Arc<Shared>,
    thread: usize,
    tend_at: Instant,
    /// Whose turn it is to take an operation that is due.
    turn: usize,
}

impl<D: Dialect> Worker<D> {
    /// # Errors
    /// What the system says when it has no more descriptors.
    pub(super) fn new(
        connections: Vec<Connection<D>>,
        desk: Desk,
        shared: Arc<Shared>,
        thread: usize,
    ) -> io::Result<Worker<D>> {
        let poll = Poll::new()?;
        let timer = Timer::new(&poll)?;
        let events = Events::with_capacity(EVENTS);
        Ok(Worker { connections, desk, poll, events, timer, shared, thread, tend_at: clock(), turn: 0 })
    }

    /// Opens all connections. Returns when each is ready or has failed once, or after [`CONNECT_MAX`].
    pub(super) fn connect(&mut self) -> io::Result<()> {
        let begun = clock();
        while !self.connections.iter().all(Connection::is_settled) && begun.elapsed() < CONNECT_MAX {
            self.turn()?;
            if self.shared.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(())
    }

    /// Asks and listens until the end.
    pub(super) fn run(mut self) -> io::Result<Tally> {
        self.tend_at = clock();
        loop {
            self.turn()?;
            let now = clock();
            if self.shared.stop.load(Ordering::Relaxed) {
                self.desk.stop(now);
            }
            if self.desk.is_over(now) {
                return Ok(self.close(now));
            }
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        let now = clock();
        if self.tend_at <= now {
            self.tend_at = now + TEND_EVERY;
            self.connections.iter_mut().for_each(|one| one.tend(self.poll.registry(), now, &mut self.desk));
        }
        self.dispatch(now);
        self.publish();
        match self.poll.poll(&mut self.events, Some(TEND_EVERY)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            end => end?,
        }
        for event in &self.events {
            if let Some(connection) = self.connections.get_mut(event.token().0) {
                let has_ended = event.is_read_closed() || event.is_error();
                connection.wake(has_ended, clock, &mut self.desk);
            }
        }
        Ok(())
    }

    /// In an open loop: gives what is due to the connections in turn, and sets the timer for what comes next.
    fn dispatch(&mut self, now: Instant) {
        let Some(due) = self.desk.due() else { return };
        let mut full = 0;
        while full < self.connections.len() && self.desk.due().is_some_and(|due| due <= now) {
            let begun = self.connections[self.turn].begin_one(now, &mut self.desk);
            full = if begun { 0 } else { full + 1 };
            self.turn = (self.turn + 1) % self.connections.len();
        }
        if due <= now {
            let unsent = self.connections.iter_mut().filter(|connection| connection.has_unsent());
            unsent.for_each(|connection| connection.flush(now, &mut self.desk));
        }
        if let Some(next) = self.desk.due().filter(|next| now < *next) {
            self.timer.set(next - now);
        }
    }

    fn publish(&self) {
        let progress = &self.shared.progress[self.thread];
        progress.operations.store(self.desk.ended, Ordering::Relaxed);
        progress.errors.store(self.desk.tally.errors.count(), Ordering::Relaxed);
    }

    fn close(mut self, now: Instant) -> Tally {
        self.connections.iter_mut().for_each(|connection| connection.abandon(now, &mut self.desk));
        self.publish();
        self.desk.close(now)
    }
}

/// Wakes the loop at a time that is finer than the millisecond of a poll.
#[derive(Debug)]
struct Timer {
    fd: OwnedFd,
}

impl Timer {
    fn new(poll: &Poll) -> io::Result<Timer> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), TIMER, Interest::READABLE)?;
        Ok(Timer { fd })
    }

    /// Wakes once after `wait`, which is not zero, instead of whenever it would have.
    fn set(&self, wait: Duration) {
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: wait };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once).expect("a timer takes any time to wait");
    }
}

#[expect(clippy::disallowed_methods, reason = "latencies are what this is about")]
pub(super) fn clock() -> Instant {
    Instant::now()
}
