//! A core's executor: the tasks that turn its [`Core`].
//!
//! One task each for connections, mail, errands, the log, its segments and the heartbeat. They hand what
//! comes in to the core, and carry out what takes time. glommio 0.9 can park with work to do; the heartbeat's timer
//! wakes it (docs/ARCHITECTURE.md, threads).

use std::cell::{RefCell, RefMut};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_lite::future::or;
use glommio::timer::sleep;

use super::connection::Connection;
use super::connections::Connections;
use super::core::{Core, Parts, Phase};
use super::entropy;
use super::heartbeat::Heartbeats;
use super::mail::{Arrival, Errand, Mail};
use super::poller::{Poller, Watch};
use super::signal::Signal;
use super::wanting::Wanting;
use crate::protocol::types::{ActorId, CoreId, Instant};
use crate::store::home::Left;
use crate::store::wal::writer::{Writer, prepare};
use crate::store::wal::{Life, SegmentId};

/// Between two beats while anything is under way, and while nothing is.
pub(super) const BEAT_BUSY: Duration = Duration::from_millis(10);
const BEAT_IDLE: Duration = Duration::from_millis(100);

/// Between two looks for connections that are slow or silent.
const SWEEP: Duration = Duration::from_secs(1);

/// What is under way when the node is told to stop may take this long to end.
pub const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Turns may follow each other for so long before the executor looks at what else has come: other cores, the store
/// thread, the log's completions. Looking costs some 3 microseconds.
const TURNS_MAX: Duration = Duration::from_micros(200);

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

/// What the tasks of a core share.
#[derive(Clone)]
struct Shared {
    id: CoreId,
    core: Rc<RefCell<Core>>,
    connections: Rc<RefCell<Connections>>,
    /// The connections that want a turn.
    turns: Rc<Wanting>,
    stop: Rc<Signal>,
}

/// Lives until the node has stopped.
pub async fn live(setup: Setup, poller: Poller, watch: Watch) {
    let Setup { parts, mail, inbox, wal, numbers, hearts, idle_max, rest } = setup;
    let (log, segments) = (Rc::new(Signal::default()), Rc::new(Signal::default()));
    // Calls on their way in may fill as much as replies on their way out.
    let connections = Connections::new(poller, parts.replies_bytes_max);
    let shared = Shared {
        id: parts.id,
        core: Rc::new(RefCell::new(Core::new(parts, Rc::clone(&log), Rc::clone(&segments)))),
        turns: connections.wanting(),
        connections: Rc::new(RefCell::new(connections)),
        stop: Rc::new(Signal::default()),
    };
    segments.raise();
    hearts.beat(shared.id);
    glommio::spawn_local(shared.clone().serve(watch)).detach();
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
        while let Ok(first) = mail.recv_async().await {
            let mut core = self.core();
            for letter in std::iter::once(first).chain(mail.try_iter().take(TAKEN_A_TURN)) {
                match letter {
                    Mail::Knock(knock) => core.on_knock(knock),
                    Mail::Connection(arrival) => self.welcome(&mut core, arrival),
                    Mail::Dialed { node, core: of, attempt, line } => {
                        self.connections.borrow_mut().on_dialed(&mut core, (node, of), attempt, line);
                    }
                }
            }
            core.flush();
        }
    }

    fn welcome(&self, core: &mut Core, arrival: Arrival) {
        let peer = arrival.peer;
        match self.connections.borrow_mut().welcome(core.instant(), arrival) {
            Ok(()) => core.metrics().connections_opened.increment(1),
            Err(error) => tracing::warn!(%peer, %error, "a connection was lost before its first call"),
        }
    }

    /// Turns follow each other while connections have something. In between the executor must look after its own
    /// completions, which it does only while no task is ready: at once when the log waits for that, else soon.
    async fn serve(self, mut watch: Watch) {
        let mut looked = self.core().instant();
        loop {
            let (turned, now) = {
                let mut core = self.core();
                (self.connections.borrow_mut().turn(&mut core), core.instant())
            };
            let waited = if turned.served == 0 && self.turns.is_empty() {
                watch.ready(&self.turns.signal).await
            } else if turned.woke_log || now.since(looked) > TURNS_MAX {
                Ok(false)
            } else {
                continue;
            };
            let waited = match waited {
                Ok(false) => watch.give_way().await,
                told => told.map(|_| ()),
            };
            if let Err(error) = waited {
                tracing::warn!(core = %self.id, %error, "the sockets cannot be waited for: another try soon");
                sleep(BEAT_BUSY).await;
            }
            looked = now;
        }
    }

    /// The core, in a turn that begins now.
    fn core(&self) -> RefMut<'_, Core> {
        let mut core = self.core.borrow_mut();
        core.begin_turn();
        core
    }

    async fn run_errands(self, inbox: flume::Receiver<Errand>) {
        while let Ok(first) = inbox.recv_async().await {
            let mut core = self.core();
            for errand in std::iter::once(first).chain(inbox.try_iter().take(TAKEN_A_TURN)) {
                core.on_errand(errand);
            }
            core.flush();
            if core.phase() != Phase::Serving {
                self.stop.raise();
            }
        }
    }

    /// Group commit without a timer: the next write begins when the last one has ended, and takes all that waits. Only
    /// then are the answers to the last one sent: while they are, the disk is at work.
    async fn keep_log(self, mut writer: Writer, log: Rc<Signal>, hearts: Arc<Heartbeats>) {
        loop {
            let strain = self.core.borrow().strain();
            if !strain.is_zero() {
                // Whose write is durable waits for no disk.
                self.core.borrow_mut().flush();
                sleep(strain).await;
            }
            let next = self.core.borrow_mut().next_write(|| Life(entropy::word()));
            let Some(write) = next else {
                self.core.borrow_mut().flush();
                log.wait().await;
                continue;
            };
            if self.core.borrow().has_answers() {
                self.turns.signal.raise();
            }
            let begun = self.core().instant();
            let written = writer.write(&write).await;
            let mut core = self.core();
            match written {
                Ok(()) => {
                    let took = core.instant().since(begun);
                    core.on_written(write, took);
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
            let wish = self.core().next_segment();
            let Some(wish) = wish else {
                segments.wait().await;
                continue;
            };
            let id = SegmentId(numbers.fetch_add(1, Ordering::Relaxed) + 1);
            let made = prepare(&wal, id, wish.bytes).await;
            if let Err(error) = &made {
                tracing::error!(core = %self.id, %error, "no log segment could be made; it is tried again");
            }
            let mut core = self.core();
            core.on_segment(made.map_err(|error| error.is_full()));
            core.flush();
        }
    }

    async fn beat(self, hearts: Arc<Heartbeats>, idle_max: Duration) {
        let mut swept = Instant::default();
        let busy = self.core.borrow().busy();
        loop {
            if !self.core.borrow().is_busy() {
                busy.lower();
                // Whoever asks a peer that is silent must not wait for the end of this before another is asked.
                or(sleep(BEAT_IDLE - BEAT_BUSY), busy.wait()).await;
            }
            sleep(BEAT_BUSY).await;
            hearts.beat(self.id);
            let now = {
                let mut core = self.core.borrow_mut();
                core.on_tick();
                core.flush();
                hearts.show_full(self.id, core.is_out_of_room());
                hearts.show_linked(self.id, core.links_are_settled());
                core.instant()
            };
            let mut connections = self.connections.borrow_mut();
            connections.iter().for_each(Connection::look_for_room);
            if now.since(swept) >= SWEEP {
                swept = now;
                connections.sweep(&mut self.core.borrow_mut(), now, idle_max);
            }
        }
    }

    /// Ends what is under way, and says how that went.
    async fn drain(&self) -> Rest {
        let begun = self.core().instant();
        let overdue = || self.core().instant().since(begun) > DRAIN_MAX;
        let at_rest = || {
            let answered = self.connections.borrow().iter().all(|connection| connection.is_answered());
            answered && !self.core.borrow().is_busy()
        };
        while !at_rest() && !overdue() {
            sleep(BEAT_BUSY / 2).await;
        }
        let drained = !self.core.borrow().is_busy();
        self.connections.borrow().iter().for_each(Connection::close);
        Rest { core: self.id, left: self.core.borrow().left(), drained }
    }
}
