//! The membership of this node at work: its packets, its exchanges, its timers and its file, on the control thread.
//!
//! Decides nothing: [`protocol::membership`](crate::protocol::membership) does. What takes time is a task or a blocking
//! call of its own, and comes back as an input. Packets that have come are read before a timer is looked at.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use super::members::{Ordered, Received, Wanted, exchange};
use super::metrics::Metrics;
use super::node::MembersShown;
use super::shake::Party;
use crate::protocol::membership::{
    Answer, Birth, Durable, Effect, Input, LetterId, Mark, Membership, Note, OrderId, Refusal, Unanswered,
};
use crate::protocol::ring::{Liveness, View};
use crate::protocol::types::{ClusterId, Instant};
use crate::runtime::clock::Clock;
use crate::runtime::door::Door;
use crate::runtime::mail::Notice;
use crate::wire::gossip::{PACKET_BYTES_MAX, decode_packet, encode_packet};

/// Packets that are read before anything else gets its turn.
const PACKETS_A_TURN: usize = 64;

/// How soon the cores are told again what they had no room for.
const RETRY: Duration = Duration::from_millis(20);

/// How often the membership is told whether this node holds anything, where it wants to know.
const HOLDINGS_PERIOD: Duration = Duration::from_secs(1);

/// Makes what the membership knows durable. Blocks.
pub type Writer = Arc<dyn Fn(&Durable) -> Result<(), String> + Send + Sync>;

/// Whether the node holds nothing: neither keys nor hints. None while its cores have not said so. Blocks.
pub type Emptiness = Arc<dyn Fn() -> Option<bool> + Send + Sync>;

/// What a membership works with.
pub struct Parts {
    /// Where gossip is heard and from where it is sent.
    pub socket: UdpSocket,
    /// As what this node meets others.
    pub party: Party,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The way to the cores.
    pub door: Door,
    /// What the cores tell.
    pub notices: flume::Receiver<Notice>,
    /// Letters of other members.
    pub letters: mpsc::Receiver<Received>,
    /// The file.
    pub writer: Writer,
    /// Orders of operators.
    pub orders: mpsc::Receiver<Wanted>,
    /// What the node holds.
    pub emptiness: Emptiness,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Where the newest view and the newest rows are shown.
    pub shown: watch::Sender<MembersShown>,
}

/// A membership at work.
pub struct Gossip {
    parts: Parts,
    socket: tokio::net::UdpSocket,
    clock: Clock,
    membership: Membership,
    /// What takes time; each ends as an input.
    tasks: JoinSet<Input>,
    answers: BTreeMap<LetterId, oneshot::Sender<Answer>>,
    letters: u64,
    ordered: BTreeMap<OrderId, oneshot::Sender<Ordered>>,
    orders: u64,
    /// A view that some core may not have seen.
    unshown: Option<Arc<View>>,
    /// Whether it is being found out what the node holds.
    counts: bool,
    /// When that was begun last.
    counted: Instant,
    refusal: Option<Refusal>,
}

impl Gossip {
    /// Begins a membership. Polled on the control thread's runtime.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub fn begin(parts: Parts, birth: Birth) -> io::Result<Gossip> {
        parts.socket.set_nonblocking(true)?;
        let socket = tokio::net::UdpSocket::from_std(parts.socket.try_clone()?)?;
        let clock = Clock::start();
        let mut effects = Vec::new();
        let membership = Membership::begin(clock.instant(), birth, &mut effects);
        let mut gossip = Gossip {
            parts,
            socket,
            clock,
            membership,
            tasks: JoinSet::new(),
            answers: BTreeMap::new(),
            letters: 0,
            ordered: BTreeMap::new(),
            orders: 0,
            unshown: None,
            counts: false,
            counted: clock.instant(),
            refusal: None,
        };
        gossip.perform(effects);
        Ok(gossip)
    }

    /// Works until this node may not go on, and says why.
    pub async fn work(&mut self) -> Refusal {
        loop {
            if let Some(refusal) = self.refusal.take() {
                return refusal;
            }
            self.settle();
            let due = self.membership.wakes_at();
            let now = self.clock.instant();
            let wait = due.map_or(HOLDINGS_PERIOD, |due| due.since(now)).min(HOLDINGS_PERIOD);
            let wait = if self.unshown.is_some() { wait.min(RETRY) } else { wait };
            tokio::select! {
                biased;
                ready = self.socket.readable() => {
                    if ready.is_ok() {
                        self.read_packets();
                    }
                }
                Some(ended) = self.tasks.join_next() => {
                    let ended = ended.expect("a panic has ended the process already");
                    self.counts &= !matches!(ended, Input::Holds(_));
                    self.handle(ended);
                }
                Some(received) = self.parts.letters.recv() => self.on_letter(received),
                Some((order, answer)) = self.parts.orders.recv() => {
                    self.orders += 1;
                    let id = OrderId(self.orders);
                    self.ordered.insert(id, answer);
                    self.handle(Input::Order { id, order });
                }
                Ok(notice) = self.parts.notices.recv_async() => self.handle(match notice {
                    Notice::Compare(stamp) => Input::Differs(stamp),
                    Notice::Reached { core, stamp, step } => Input::Reached { core, stamp, step },
                }),
                () = sleep(wait) => {}
            }
            if self.membership.wakes_at().is_some_and(|due| due <= self.clock.instant()) {
                self.handle(Input::Tick);
            }
        }
    }

    /// Tells others that this node stops. They would find out by themselves.
    pub fn leave(&mut self) {
        self.handle(Input::Leave);
    }

    fn read_packets(&mut self) {
        let mut buffer = [0; PACKET_BYTES_MAX + 1];
        for _ in 0..PACKETS_A_TURN {
            // An error of a datagram socket tells of a packet that was sent earlier, and that may be lost anyway.
            let Ok((bytes, from)) = self.socket.try_recv_from(&mut buffer) else {
                return;
            };
            match decode_packet(self.parts.cluster, &buffer[..bytes], &self.parts.party.secret) {
                Ok(packet) => {
                    self.parts.metrics.gossip(Ok(()));
                    self.handle(Input::Packet { from, packet });
                }
                Err(dropped) => self.parts.metrics.gossip(Err(dropped)),
            }
        }
    }

    fn on_letter(&mut self, received: Received) {
        self.letters += 1;
        let letter = LetterId(self.letters);
        self.answers.insert(letter, received.answer);
        self.handle(Input::Letter { letter, from: received.from, says: received.says });
    }

    fn handle(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.membership.handle(self.clock.instant(), input, &mut effects);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, packet } => {
                    let bytes = encode_packet(self.parts.cluster, &packet, &self.parts.party.secret);
                    // Packets may be lost: here as anywhere.
                    let _ = self.socket.try_send_to(&bytes, to);
                }
                Effect::Exchange { id, to, address, says } => {
                    let party = self.parts.party.clone();
                    self.tasks.spawn(async move {
                        let answer = exchange(&party, to, address, &says).await.map_err(|error| {
                            tracing::debug!(%address, %error, "an exchange came to nothing");
                            let foreign = error.foreign().map(|theirs| Unanswered::Foreign { theirs });
                            foreign.unwrap_or(Unanswered::Silent)
                        });
                        Input::Answered { exchange: id, answer }
                    });
                }
                Effect::Answer { letter, answer } => {
                    let waiting = self.answers.remove(&letter).expect("a letter is answered once");
                    // Whoever asked may have gone away.
                    let _ = waiting.send(answer);
                }
                Effect::Persist(durable) => {
                    // No row changes without being made durable.
                    self.parts.shown.send_modify(|shown| shown.rows = Arc::new(durable.rows.clone()));
                    let writer = Arc::clone(&self.parts.writer);
                    self.tasks.spawn(async move {
                        let written = spawn_blocking(move || writer(&durable)).await;
                        match written.expect("a panic has ended the process already") {
                            Ok(()) => Input::Persisted(true),
                            Err(error) => {
                                tracing::error!(%error, "what is known of the cluster could not be written");
                                Input::Persisted(false)
                            }
                        }
                    });
                }
                Effect::Ordered { id, outcome } => {
                    let waiting = self.ordered.remove(&id).expect("an order is answered once");
                    // Whoever asked may have gone away.
                    let _ = waiting.send(outcome);
                }
                Effect::View(view) => self.show(view),
                Effect::Refuse(refusal) => self.refusal = Some(refusal),
                Effect::Note(note) => log(note),
            }
        }
    }

    /// Finds out whether the node holds anything, where that is wanted and it is time again.
    fn count(&mut self) {
        let now = self.clock.instant();
        if self.counts || now < self.counted + HOLDINGS_PERIOD || !self.membership.asks_holdings() {
            return;
        }
        (self.counts, self.counted) = (true, now);
        let emptiness = Arc::clone(&self.parts.emptiness);
        self.tasks.spawn(async move {
            loop {
                let emptiness = Arc::clone(&emptiness);
                let told = spawn_blocking(move || emptiness()).await.expect("a panic has ended the process already");
                match told {
                    Some(is_empty) => return Input::Holds(!is_empty),
                    // A node that was once said to hold data is not said to be empty again.
                    None => sleep(RETRY).await,
                }
            }
        });
    }

    fn show(&mut self, view: Arc<View>) {
        self.parts.metrics.view(&view);
        self.unshown = Some(view);
    }

    /// Tells the cores what they have not been told yet, and finds out what the membership wants to know.
    fn settle(&mut self) {
        self.count();
        if let Some(view) = self.unshown.take() {
            match self.parts.door.show(&view) {
                Ok(()) => {
                    self.parts.shown.send_modify(|shown| shown.view = Some(view));
                }
                Err(_no_room) => self.unshown = Some(view),
            }
        }
    }
}

fn log(note: Note) {
    match note {
        Note::Liveness { name, liveness: Liveness::Up } => tracing::info!(%name, "a member is up"),
        Note::Liveness { name, liveness: Liveness::Suspect } => tracing::debug!(%name, "a member does not answer"),
        Note::Liveness { name, liveness: Liveness::Down } => tracing::warn!(%name, "a member is down"),
        Note::Staged { name } => tracing::info!(%name, "a node has joined, and is staged for the next layout"),
        Note::Layout { stamp, nodes } => {
            tracing::info!(number = stamp.number, hash = format!("{:016x}", stamp.hash), nodes, "a layout is in force");
        }
        Note::Pending { stamp, nodes } => {
            tracing::info!(number = stamp.number, hash = format!("{:016x}", stamp.hash), nodes, "a change has begun");
        }
        Note::Marked { stamp, mark } => {
            tracing::info!(number = stamp.number, reached = marked(mark), "the change goes on")
        }
        Note::Outdone { stamp } => {
            tracing::warn!(number = stamp.number, "another commit went first: what was not in it is staged again");
        }
        Note::Unruly { stamp, rule } => {
            tracing::error!(number = stamp.number, %rule, "a member's layout breaks the rules: it is not taken");
        }
        Note::HeldByData => {
            tracing::warn!(
                "nodes have joined and stay staged, without a share of the ring, because the cluster holds data: see \
                 `sloop cluster plan`, and start the change with `sloop cluster commit`"
            );
        }
        Note::Foreign { address, theirs } => {
            tracing::warn!(%address, cluster = %theirs, "a node of another cluster answers where a member was");
        }
        Note::Late { late } => {
            tracing::warn!(?late, "the control thread was held up: suspects get more time");
        }
        Note::NotPersisted => tracing::warn!("trying to write it again"),
    }
}

fn marked(mark: Mark) -> &'static str {
    match mark {
        Mark::Known => "known",
        Mark::Writes => "writes",
        Mark::Holds => "holds",
        Mark::Reads => "reads",
        Mark::Stored => "stored",
    }
}

/// Takes the UDP port of the same number as the binary listener's.
///
/// # Errors
/// [`BindError`](super::listener::BindError).
pub fn bind(address: SocketAddr) -> Result<UdpSocket, super::listener::BindError> {
    UdpSocket::bind(address).map_err(|cause| super::listener::refused("listen", address, cause))
}
