//! The links of a core: one to each core of each other member of the view, dialed ahead, so that the first ask finds
//! one.
//!
//! ```text
//!            a view names it                 up
//!   (none) ───────────────────▶ Dialing ─────────────▶ Up
//!                                │   ▲                  │ end, error, breach, silence:
//!                         failed ▼   │ back-off over    ▼ its asks are lost
//!                               Down ◀──────────────────┘
//! ```
//! An ask without a link, or without room on it, ends at once and unsent: the shard asks another, and nothing queues
//! for who does not answer. A member that leaves, or changes where it listens or how it spreads keys, loses its links.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::link::{End, Heard, Link, Question};
use super::mail::Wish;
use super::metrics::{CoreMetrics, PeerMetrics};
use crate::protocol::peer::{Told, Unheard};
use crate::protocol::ring::{Liveness, Member, Partition, View};
use crate::protocol::types::{AskId, CoreId, Instant, NodeId};
use crate::wire::peer::ask_bytes;

/// Waits between two tries: doubled with each that fails, with jitter, so that a cluster does not come back in step.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(50);
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A wish that is not answered by then never will be: the mailbox was full, or the dialer is gone.
const DIAL_MAX: Duration = Duration::from_secs(10);

/// A link that held so long was a good one: the next try is the first.
const GOOD_AGE: Duration = Duration::from_secs(2);

/// Asks that wait on one link, in bytes; a larger one may wait alone.
const QUEUED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// So much may wait on each link whatever waits on others: one peer that does not read must not cost the rest.
const QUEUED_BYTES_OWN: usize = 256 * 1024;

/// Between two looks for links that are silent.
const LOOK: Duration = Duration::from_millis(250);

/// Peers that are counted by their names; those that come later share one. Names come and go, labels stay for ever.
const NAMES_MAX: usize = 1_000;
const NAME_OF_OTHERS: &str = "(other)";

/// All links of one core.
pub struct Links {
    me: CoreId,
    peers: BTreeMap<NodeId, Peer>,
    /// When a line is dialed again, or its wish given up.
    due: BTreeSet<(Instant, End)>,
    wishes: flume::Sender<Wish>,
    /// Wishes that were made.
    attempts: u64,
    /// Random bits for the jitter of so many waits.
    seed: u64,
    waits: u64,
    /// Bytes that wait on all links.
    queued_bytes: usize,
    queued_bytes_max: usize,
    /// Links with bytes to send.
    dirty: Vec<Rc<Link>>,
    looked: Instant,
    counted: BTreeMap<Arc<str>, Rc<PeerMetrics>>,
}

/// Another member.
struct Peer {
    member: Member,
    /// One for each of its cores.
    lines: Vec<Line>,
    metrics: Rc<PeerMetrics>,
}

/// The way to one core.
struct Line {
    state: State,
    /// Tries that failed, one after the other.
    failures: u32,
    /// Its place among those that are due.
    due: Option<Instant>,
}

enum State {
    Down,
    Dialing { attempt: u64 },
    Up(Rc<Link>),
}

impl Links {
    /// None yet. On all links together `queued_bytes_max` may wait, and a little on each.
    pub fn new(me: CoreId, wishes: flume::Sender<Wish>, queued_bytes_max: usize, seed: u64) -> Links {
        Links {
            me,
            peers: BTreeMap::new(),
            due: BTreeSet::new(),
            wishes,
            attempts: 0,
            seed,
            waits: 0,
            queued_bytes: 0,
            queued_bytes_max,
            dirty: Vec::new(),
            looked: Instant::default(),
            counted: BTreeMap::new(),
        }
    }

    /// The cluster is seen otherwise. Gives the asks that are lost with links of members that left or changed.
    pub fn on_view(&mut self, now: Instant, view: &View, metrics: &CoreMetrics) -> Vec<AskId> {
        let stays = |peer: &Peer| view.member(peer.member.node).is_some_and(|member| is_reached_alike(member, peer));
        let gone: Vec<Peer> = self.peers.extract_if(.., |_, peer| !stays(peer)).map(|(_, peer)| peer).collect();
        let lost = gone.into_iter().flat_map(|peer| self.drop_peer(peer)).collect();
        for member in view.members.iter().filter(|member| member.node != view.me) {
            match self.peers.get_mut(&member.node) {
                Some(peer) => {
                    let is_back = peer.member.liveness == Liveness::Down && member.liveness != Liveness::Down;
                    peer.member = member.clone();
                    if is_back {
                        self.hurry(now, member.node);
                    }
                }
                None => self.begin_peer(now, member, metrics),
            }
        }
        lost
    }

    /// Sends an ask on its way.
    ///
    /// # Errors
    /// [`Unheard::NotSent`]: no link is up. [`Unheard::NotTaken`]: there is no room on it.
    pub fn ask(
        &mut self,
        now: Instant,
        (to, partition): (NodeId, Partition),
        question: &Question<'_>,
    ) -> Result<(), Unheard> {
        let peer = self.peers.get(&to).ok_or(Unheard::NotSent)?;
        let sent = match &peer.lines[peer.member.cores.of(partition).index()].state {
            State::Up(link) => self.put(now, &Rc::clone(link), question),
            State::Down | State::Dialing { .. } => Err(Unheard::NotSent),
        };
        if sent.is_err() {
            self.peers[&to].metrics.asks_not_sent.increment(1);
        }
        sent
    }

    fn put(&mut self, now: Instant, link: &Rc<Link>, question: &Question<'_>) -> Result<(), Unheard> {
        let bytes = ask_bytes(question.ask);
        if link.is_closed() {
            return Err(Unheard::NotSent);
        }
        if link.is_full() {
            return Err(Unheard::NotTaken);
        }
        if !self.has_room(link, bytes) {
            // What one turn asks is sent at its end; some of it may go before.
            self.send(link);
            if link.is_closed() {
                return Err(Unheard::NotSent);
            }
            if !self.has_room(link, bytes) {
                return Err(Unheard::NotTaken);
            }
        }
        self.queued_bytes += link.put(now, question).map_err(|error| {
            tracing::warn!(node = %link.to().0, %error, "an ask cannot be sent");
            Unheard::NotTaken
        })?;
        if link.becomes_dirty() {
            self.dirty.push(Rc::clone(link));
        }
        Ok(())
    }

    fn has_room(&self, link: &Link, bytes: usize) -> bool {
        let (own, all) = (link.waiting_bytes(), self.queued_bytes);
        let fits = |waiting: usize, max: usize| waiting == 0 || waiting + bytes <= max;
        own + bytes <= QUEUED_BYTES_OWN || (fits(own, QUEUED_BYTES_MAX) && fits(all, self.queued_bytes_max))
    }

    /// Counts an answer. One to a request that was forwarded says more of others than of the peer.
    pub fn on_told(&self, link: &Link, heard: &Heard) {
        if let Some(peer) = self.peers.get(&link.to().0)
            && !matches!(heard.told, Ok(Told::Outcome(_)) | Err(_))
        {
            peer.metrics.round_trip_seconds.record(heard.took);
        }
    }

    /// Whether this is the answer that a line waits for, and no late one.
    pub fn waits_for(&self, (node, core): End, attempt: u64) -> bool {
        let line = self.peers.get(&node).and_then(|peer| peer.lines.get(core.index()));
        line.is_some_and(|line| matches!(line.state, State::Dialing { attempt: ours } if ours == attempt))
    }

    /// The line that was waited for is up.
    pub fn on_up(&mut self, link: &Rc<Link>) {
        let (node, core) = link.to();
        self.set_due(link.to(), None);
        let peer = self.peers.get_mut(&node).expect("it was waited for");
        peer.lines[core.index()].state = State::Up(Rc::clone(link));
        peer.metrics.links.increment(1);
    }

    /// Whether every line to members that answer is up, or was tried in vain.
    pub fn are_settled(&self) -> bool {
        let is_settled = |line: &Line| 0 < line.failures || matches!(line.state, State::Up(_));
        let answers = |peer: &&Peer| peer.member.liveness != Liveness::Down;
        self.peers.values().filter(answers).all(|peer| peer.lines.iter().all(is_settled))
    }

    /// The line that was waited for does not come up.
    pub fn on_failed(&mut self, now: Instant, to: End) {
        self.back_off(now, to);
    }

    /// A link has ended. Gives the asks that are lost with it.
    pub fn on_lost(&mut self, now: Instant, link: &Rc<Link>) -> Vec<AskId> {
        self.send(link);
        let (node, core) = link.to();
        if let Some(peer) = self.peers.get_mut(&node)
            && let Some(line) = peer.lines.get_mut(core.index())
            && matches!(&line.state, State::Up(up) if Rc::ptr_eq(up, link))
        {
            peer.metrics.links.decrement(1);
            peer.metrics.links_lost.increment(1);
            if now.since(link.begun()) > GOOD_AGE {
                line.failures = 0;
            }
            self.back_off(now, (node, core));
        }
        link.take_asks()
    }

    /// Time goes by: lines are dialed again, and links that are silent are dropped.
    pub fn on_tick(&mut self, now: Instant) {
        while let Some(&(_, to)) = self.due.first().filter(|(due, _)| *due <= now) {
            match self.line(to).state {
                State::Down => self.dial(now, to),
                State::Dialing { .. } => self.back_off(now, to),
                State::Up(_) => unreachable!("a line that is up is not due"),
            }
        }
        if now.since(self.looked) >= LOOK {
            self.looked = now;
            self.peers.values().for_each(|peer| peer.look(now));
        }
    }

    /// Sends what was asked in this turn: one send a link.
    pub fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for link in dirty.drain(..) {
            self.send(&link);
        }
        self.dirty = dirty;
    }

    /// Sends what waits on a link, as far as it goes.
    pub fn send(&mut self, link: &Rc<Link>) {
        self.queued_bytes -= link.send();
    }

    /// Whether asks wait to be sent at the end of a turn.
    pub fn has_asks(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Bytes that wait to be sent, on all links.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    fn begin_peer(&mut self, now: Instant, member: &Member, metrics: &CoreMetrics) {
        let lines = (0..member.cores.count).map(|_| Line { state: State::Down, failures: 0, due: None }).collect();
        let metrics = self.metrics_of(&member.name, metrics);
        self.peers.insert(member.node, Peer { member: member.clone(), lines, metrics });
        self.hurry(now, member.node);
    }

    fn metrics_of(&mut self, name: &Arc<str>, metrics: &CoreMetrics) -> Rc<PeerMetrics> {
        let is_new = !self.counted.contains_key(name);
        let name = if is_new && NAMES_MAX <= self.counted.len() { NAME_OF_OTHERS.into() } else { Arc::clone(name) };
        let made = |name: &str| Rc::new(metrics.peer(name));
        Rc::clone(self.counted.entry(name).or_insert_with_key(|name| made(name)))
    }

    /// Dials whatever is down of a peer, without waiting for its back-off.
    fn hurry(&mut self, now: Instant, node: NodeId) {
        let peer = self.peers.get_mut(&node).expect("it is in the view");
        let mut down = vec![];
        for (core, line) in (0..).map(CoreId).zip(&mut peer.lines) {
            if matches!(line.state, State::Down) {
                line.failures = 0;
                down.push((node, core));
            }
        }
        down.into_iter().for_each(|to| self.dial(now, to));
    }

    /// Whatever it waits for is answered late.
    fn drop_peer(&mut self, peer: Peer) -> Vec<AskId> {
        let mut lost = vec![];
        for (core, line) in (0..).map(CoreId).zip(peer.lines) {
            if let Some(due) = line.due {
                self.due.remove(&(due, (peer.member.node, core)));
            }
            if let State::Up(link) = line.state {
                lost.extend(link.take_asks());
                link.close();
                self.send(&link);
                peer.metrics.links.decrement(1);
                peer.metrics.links_lost.increment(1);
            }
        }
        peer.metrics.asks.set(0);
        peer.metrics.queued_bytes.set(0);
        lost
    }

    fn dial(&mut self, now: Instant, to: End) {
        self.attempts += 1;
        let (from, attempt) = (self.me, self.attempts);
        let peer = self.peers.get_mut(&to.0).expect("a line that is due is one of a peer");
        let line = &mut peer.lines[to.1.index()];
        line.state = State::Dialing { attempt };
        let (address, cores, failures) = (peer.member.address, peer.member.cores, line.failures);
        // A dialer that is gone answers as little as one that is slow.
        let _ = self.wishes.send(Wish { from, attempt, node: to.0, address, cores, core: to.1, failures });
        self.set_due(to, Some(now + DIAL_MAX));
    }

    fn back_off(&mut self, now: Instant, to: End) {
        self.waits += 1;
        let jitter = seahash::hash(&[self.seed, self.waits].map(u64::to_le_bytes).concat());
        let line = self.line(to);
        line.state = State::Down;
        let wait = backoff(line.failures, jitter);
        line.failures = line.failures.saturating_add(1);
        self.set_due(to, Some(now + wait));
    }

    fn line(&mut self, (node, core): End) -> &mut Line {
        &mut self.peers.get_mut(&node).expect("it is a peer's").lines[core.index()]
    }

    fn set_due(&mut self, to: End, due: Option<Instant>) {
        let before = std::mem::replace(&mut self.line(to).due, due);
        if let Some(before) = before {
            self.due.remove(&(before, to));
        }
        self.due.extend(due.map(|due| (due, to)));
    }
}

impl Peer {
    fn look(&self, now: Instant) {
        let (mut asks, mut bytes) = (0, 0);
        for line in &self.lines {
            let State::Up(link) = &line.state else { continue };
            asks += link.under_way();
            bytes += link.waiting_bytes();
            if link.is_silent(now) {
                tracing::info!(node = %self.member.name, core = %link.to().1, "a peer is silent: its link is dropped");
                link.close();
            }
        }
        self.metrics.asks.set(asks as f64);
        self.metrics.queued_bytes.set(bytes as f64);
    }
}

fn is_reached_alike(member: &Member, peer: &Peer) -> bool {
    member.address == peer.member.address && member.cores == peer.member.cores
}

/// How long to wait after a try that failed, and so many before it: half of it is jitter.
fn backoff(failures: u32, jitter: u64) -> Duration {
    let longest = (2 * BACKOFF_MIN).saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
    let half = longest / 2;
    half + Duration::from_nanos(jitter % u64::try_from(half.as_nanos()).expect("a second or less").max(1))
}

#[cfg(test)]
mod tests;
