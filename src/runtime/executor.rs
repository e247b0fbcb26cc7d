//! A core's executor: the tasks that turn its [`Core`].
//!
//! One task each for mail, errands, the log, its segments and the heartbeat, and two for a connection. They hand what
//! comes in to the core, and carry out what takes time. glommio 0.9 can park with work to do; the heartbeat's timer
//! wakes it (docs/ARCHITECTURE.md, threads).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use glommio::timer::sleep;

use super::connection::Connection;
use super::connection::tasks::{self, End};
use super::core::{Core, Parts, Phase};
use super::entropy;
use super::heartbeat::Heartbeats;
use super::mail::{Arrival, Errand, Mail};
use super::signal::Signal;
use crate::protocol::types::{ActorId, CoreId, Instant};
use crate::store::home::Left;
use crate::store::wal::writer::{Writer, prepare};
use crate::store::wal::{Life, SegmentId};

/// Between two beats while anything is under way, and while nothing is.
const BEAT_BUSY: Duration = Duration::from_millis(10);
const BEAT_IDLE: Duration = Duration::from_millis(100);

/// Between two looks for connections that are slow or silent.
const SWEEP: Duration = Duration::from_secs(1);

/// What is under way when the node is told to stop may take this long to end.
pub const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Letters and errands that are taken in one turn, so that connections get theirs.
const TAKEN_A_TURN: usize = 256;

/// Everything that a core's executor begins with.
pub struct Setup {
    /// What the core is made of.
    pub parts: Parts,
    /// From the acceptor and the control thread.
    pub mail: flume::Receiver<Mail>,
    /// From other cores and the store thread.
    pub inbox: flume::Receiver<Errand>,
    /// Where the log's segments stand.
    pub wal: PathBuf,
    /// The last number given to a segment, over all cores.
    pub numbers: Arc<AtomicU32>,
    /// The hearts of all cores.
    pub hearts: Arc<Heartbeats>,
    /// Silence after which a connection is dropped.
    pub idle_max: Duration,
    /// Told once what was under way has ended.
    pub rest: flume::Sender<Rest>,
}

/// How a core ended.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// Which core.
    pub core: CoreId,
    /// Its actor, the actor's last counter, and the last record of its log.
    pub left: Left,
    /// Whether everything that was under way has ended.
    pub drained: bool,
}

type Connections = Rc<RefCell<BTreeMap<u64, Rc<Connection>>>>;

/// What the tasks of a core share.
#[derive(Clone)]
struct Shared {
    id: CoreId,
    core: Rc<RefCell<Core>>,
    connections: Connections,
    scratch: Rc<RefCell<Vec<u8>>>,
    stop: Rc<Signal>,
}

/// Lives until the node has stopped.
pub async fn live(setup: Setup) {
    let Setup { parts, mail, inbox, wal, numbers, hearts, idle_max, rest } = setup;
    let (log, segments) = (Rc::new(Signal::default()), Rc::new(Signal::default()));
    let shared = Shared {
        id: parts.id,
        core: Rc::new(RefCell::new(Core::new(parts, Rc::clone(&log), Rc::clone(&segments)))),
        connections: Connections::default(),
        scratch: Rc::new(tasks::scratch()),
        stop: Rc::new(Signal::default()),
    };
    segments.raise();
    hearts.beat(shared.id);
    glommio::spawn_local(shared.clone().take_mail(mail)).detach();
    glommio::spawn_local(shared.clone().run_errands(inbox)).detach();
    glommio::spawn_local(shared.clone().keep_log(Writer::new(&wal), log, Arc::clone(&hearts))).detach();
    glommio::spawn_local(shared.clone().keep_segments(wal, segments, numbers)).detach();
    glommio::spawn_local(shared.clone().beat(hearts, idle_max)).detach();
    shared.stop.wait().await;
    // A node that waits no longer ends without the mark.
    let _ = rest.send(shared.drain().await);
    while shared.core.borrow().phase() != Phase::Ended {
        shared.stop.wait().await;
    }
}

impl Shared {
    async fn take_mail(self, mail: flume::Receiver<Mail>) {
        let mut arrived = 0;
        while let Ok(first) = mail.recv_async().await {
            for letter in std::iter::once(first).chain(mail.try_iter().take(TAKEN_A_TURN)) {
                match letter {
                    Mail::Knock(knock) => self.core.borrow_mut().on_knock(knock),
                    Mail::Connection(arrival) => {
                        arrived += 1;
                        self.welcome(arrived, arrival);
                    }
                }
            }
            self.core.borrow_mut().flush();
        }
    }

    fn welcome(&self, number: u64, arrival: Arrival) {
        let peer = arrival.peer;
        let now = self.core.borrow().instant();
        match Connection::new(now, arrival) {
            Ok((connection, leftover)) => {
                self.core.borrow().metrics().connections_opened.increment(1);
                self.connections.borrow_mut().insert(number, Rc::clone(&connection));
                glommio::spawn_local(self.clone().read(Rc::clone(&connection), leftover)).detach();
                glommio::spawn_local(self.clone().write(number, connection)).detach();
            }
            Err(error) => tracing::warn!(%peer, %error, "a connection was lost before its first call"),
        }
    }

    async fn read(self, connection: Rc<Connection>, leftover: BytesMut) {
        match tasks::read(&self.core, &self.scratch, &connection, leftover).await {
            End::Closed => connection.finish(),
            End::Refused(failure) => {
                tracing::debug!(peer = %connection.peer(), %failure, "a connection broke the protocol");
                connection.finish();
            }
            End::Lost(error) => {
                tracing::debug!(peer = %connection.peer(), %error, "a connection was lost");
                connection.close();
            }
        }
    }

    async fn write(self, number: u64, connection: Rc<Connection>) {
        tasks::write(&self.core, &connection).await;
        self.connections.borrow_mut().remove(&number);
    }

    async fn run_errands(self, inbox: flume::Receiver<Errand>) {
        while let Ok(first) = inbox.recv_async().await {
            let mut core = self.core.borrow_mut();
            for errand in std::iter::once(first).chain(inbox.try_iter().take(TAKEN_A_TURN)) {
                core.on_errand(errand);
            }
            core.flush();
            if core.phase() != Phase::Serving {
                self.stop.raise();
            }
        }
    }

    /// Group commit without a timer: the next write begins when the last one has ended, and takes all that waits.
    async fn keep_log(self, mut writer: Writer, log: Rc<Signal>, hearts: Arc<Heartbeats>) {
        loop {
            let next = self.core.borrow_mut().next_write(|| Life(entropy::word()));
            let Some(write) = next else {
                log.wait().await;
                continue;
            };
            let begun = self.core.borrow().instant();
            let written = writer.write(&write).await;
            let mut core = self.core.borrow_mut();
            match written {
                Ok(()) => {
                    let took = core.instant().since(begun);
                    core.on_written(write, took);
                    core.flush();
                }
                Err(error) => {
                    tracing::error!(core = %self.id, %error, "the log failed: this core writes no more until restart");
                    hearts.stop_writes(self.id);
                    core.on_write_failed(ActorId(entropy::word()));
                    core.flush();
                    return;
                }
            }
        }
    }

    async fn keep_segments(self, wal: PathBuf, segments: Rc<Signal>, numbers: Arc<AtomicU32>) {
        loop {
            let wish = self.core.borrow_mut().next_segment();
            let Some(wish) = wish else {
                segments.wait().await;
                continue;
            };
            let id = SegmentId(numbers.fetch_add(1, Ordering::Relaxed) + 1);
            let made = prepare(&wal, id, wish.bytes).await;
            if let Err(error) = &made {
                tracing::error!(core = %self.id, %error, "no log segment could be made; it is tried again");
            }
            let mut core = self.core.borrow_mut();
            core.on_segment(made.map_err(|error| error.is_full()));
            core.flush();
        }
    }

    async fn beat(self, hearts: Arc<Heartbeats>, idle_max: Duration) {
        let mut swept = Instant::default();
        loop {
            let busy = self.core.borrow().is_busy();
            sleep(if busy { BEAT_BUSY } else { BEAT_IDLE }).await;
            hearts.beat(self.id);
            let now = {
                let mut core = self.core.borrow_mut();
                core.on_tick();
                core.flush();
                hearts.show_full(self.id, core.is_out_of_room());
                core.instant()
            };
            self.connections.borrow().values().for_each(|connection| connection.wake_reader());
            if now.since(swept) >= SWEEP {
                swept = now;
                self.sweep(now, idle_max);
            }
        }
    }

    fn sweep(&self, now: Instant, idle_max: Duration) {
        let connections = self.connections.borrow();
        let core = self.core.borrow();
        core.metrics().connections.set(connections.len() as f64);
        let crowded = core.replies_are_full();
        for connection in connections.values().filter(|connection| connection.is_overdue(now, idle_max, crowded)) {
            tracing::debug!(peer = %connection.peer(), "a slow or silent connection was dropped");
            core.metrics().connections_dropped.increment(1);
            connection.close();
        }
    }

    /// Ends what is under way, and says how that went.
    async fn drain(&self) -> Rest {
        let begun = self.core.borrow().instant();
        let overdue = || self.core.borrow().instant().since(begun) > DRAIN_MAX;
        let at_rest = || {
            let answered = self.connections.borrow().values().all(|connection| connection.is_answered());
            answered && !self.core.borrow().is_busy()
        };
        while !at_rest() && !overdue() {
            sleep(BEAT_BUSY / 2).await;
        }
        let drained = !self.core.borrow().is_busy();
        self.connections.borrow().values().for_each(|connection| connection.close());
        Rest { core: self.id, left: self.core.borrow().left(), drained }
    }
}
