//! One connection: its socket, its places for requests, and what it does when it wakes.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::buffer::{Input, Output, Received};
use super::desk::{Desk, Why};
use crate::lab::dialect::{Ask, Dialect, Opening, Outcome, Refusal, Said, Slot};
use crate::lab::recorder::{Begun, Scribe};
use crate::lab::workload::{Kind, Operation};
use crate::verify;

/// No further requests are written behind this much that waits to be sent.
const UNSENT_BYTES_MAX: usize = 256 * 1024;

/// Pause before a lost connection is tried again; twice as long each time that it is lost before it was ready.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_DOUBLINGS_MAX: u32 = 4;

/// A connection that owes answers and is silent for this long is lost.
const SILENCE_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Connection<D> {
    address: SocketAddr,
    token: Token,
    fresh: D,
    dialect: D,
    socket: Option<TcpStream>,
    is_ready: bool,
    input: Input,
    output: Output,
    places: Vec<Place>,
    free: Vec<Slot>,
    heard_at: Instant,
    connect_at: Instant,
    failures: u32,
    scribe: Option<Scribe>,
}

/// A request under way.
#[derive(Clone, Debug)]
struct Place {
    operation: Option<Operation>,
    began: Instant,
    /// Of a read-modify-write: what was read, once it is being written.
    context: Option<Vec<u8>>,
    is_writing: bool,
    /// What a history was told of its request.
    recorded: Option<Begun>,
}

impl<D: Dialect> Connection<D> {
    pub(super) fn new(
        address: SocketAddr,
        token: Token,
        dialect: D,
        pipeline: u16,
        now: Instant,
        scribe: Option<Scribe>,
    ) -> Connection<D> {
        let place = Place { operation: None, began: now, context: None, is_writing: false, recorded: None };
        Connection {
            address,
            token,
            fresh: dialect.clone(),
            dialect,
            socket: None,
            is_ready: false,
            input: Input::new(),
            output: Output::default(),
            places: vec![place; pipeline.into()],
            free: (0..pipeline).rev().map(Slot).collect(),
            heard_at: now,
            connect_at: now,
            failures: 0,
            scribe,
        }
    }

    /// Whether it takes requests, or has failed to.
    pub(super) fn is_settled(&self) -> bool {
        self.is_ready || self.failures > 0
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.output.unsent() > 0
    }

    /// Looks after it now and then: connects, gives up on silence, begins what could not be begun before.
    pub(super) fn tend(&mut self, registry: &Registry, now: Instant, desk: &mut Desk) {
        if self.socket.is_none() {
            if self.connect_at <= now
                && let Err(error) = self.connect(registry, now)
            {
                self.lose(&no_connection(&error), now, desk);
            }
            return;
        }
        let owes = !self.is_ready || self.free.len() < self.places.len();
        if owes && SILENCE_MAX <= now.saturating_duration_since(self.heard_at) {
            self.lose(&lost(format!("{} was silent for {SILENCE_MAX:?}", self.address)), now, desk);
        } else if !desk.is_open_loop() {
            self.fill(now, desk);
            self.flush(now, desk);
        }
    }

    fn connect(&mut self, registry: &Registry, now: Instant) -> io::Result<()> {
        let mut socket = TcpStream::connect(self.address)?;
        socket.set_nodelay(true)?;
        registry.register(&mut socket, self.token, Interest::READABLE | Interest::WRITABLE)?;
        self.socket = Some(socket);
        self.heard_at = now;
        self.dialect = self.fresh.clone();
        self.is_ready = self.dialect.open(&mut self.output.bytes) == Opening::Ready;
        Ok(())
    }

    /// Hears what has come, and in a closed loop begins as much anew.
    pub(super) fn wake(&mut self, has_ended: bool, now: impl Fn() -> Instant, desk: &mut Desk) {
        let at = match self.receive(has_ended, &now, desk) {
            Ok(at) => at,
            Err(refusal) => return self.lose(&refusal, now(), desk),
        };
        if !desk.is_open_loop() {
            self.fill(at, desk);
        }
        self.flush(at, desk);
    }

    /// One read, as a rule. The clock is read once behind it: answers end then, and what follows them begins.
    fn receive(&mut self, has_ended: bool, now: impl Fn() -> Instant, desk: &mut Desk) -> Result<Instant, Refusal> {
        loop {
            let Some(socket) = &mut self.socket else { return Ok(now()) };
            let received = self.input.receive(socket);
            let at = now();
            match received {
                Ok(Received::Nothing) => return Ok(at),
                Ok(Received::End) => return Err(lost(format!("{} closed the connection", self.address))),
                Ok(received) => {
                    self.hear(at, desk)?;
                    if received == Received::All && !has_ended {
                        return Ok(at);
                    }
                }
                Err(error) if self.is_ready => return Err(lost(format!("{}: {error}", self.address))),
                Err(error) => return Err(no_connection(&error)),
            }
        }
    }

    fn hear(&mut self, now: Instant, desk: &mut Desk) -> Result<(), Refusal> {
        while let Some(heard) = self.dialect.hear(self.input.unread(), &mut self.output.bytes)? {
            match heard.said {
                Said::Ready => {
                    self.is_ready = true;
                    self.failures = 0;
                }
                Said::Aside => {}
                Said::Answer { slot, outcome } => {
                    let place = self.places.get_mut(usize::from(slot.0)).filter(|place| place.operation.is_some());
                    let place = place.ok_or_else(|| lost(format!("an answer to no request, number {}", slot.0)))?;
                    let read = place.recorded.take();
                    if let (Some(scribe), Some(begun)) = (&self.scribe, read) {
                        scribe.ends(begun, now, self.dialect.told(&self.input.unread()[..heard.bytes]));
                    }
                    if place.answered(outcome, now, desk) {
                        self.free.push(slot);
                    } else {
                        let key = desk.source.key(place.operation.expect("it goes on").key);
                        let (value, context) = (desk.source.value(), place.context.as_deref());
                        let read = read.filter(|_| context.is_some());
                        place.recorded = self.scribe.as_mut().map(|scribe| scribe.writes(&key, value, read, now));
                        self.dialect.ask(slot, Ask::Put { key: &key, value, context }, &mut self.output.bytes);
                    }
                }
            }
            self.heard_at = now;
            self.input.take(heard.bytes);
        }
        Ok(())
    }

    /// Begins as many operations as are due and have room.
    fn fill(&mut self, now: Instant, desk: &mut Desk) {
        while self.begin_one(now, desk) {}
    }

    /// Begins an operation if it has room and one is due.
    pub(super) fn begin_one(&mut self, now: Instant, desk: &mut Desk) -> bool {
        if !self.is_ready || UNSENT_BYTES_MAX <= self.output.unsent() {
            return false;
        }
        let Some(&slot) = self.free.last() else { return false };
        let Some((operation, began)) = desk.next(now) else { return false };
        self.free.pop();
        if self.free.len() + 1 == self.places.len() {
            // Silence counts from when there is something to be said.
            self.heard_at = now;
        }
        let place = &mut self.places[usize::from(slot.0)];
        (place.operation, place.began, place.is_writing) = (Some(operation), began, false);
        let key = desk.source.key(operation.key);
        let ask = match operation.kind.reads() {
            true => Ask::Get { key: &key },
            false => Ask::Put { key: &key, value: desk.source.value(), context: None },
        };
        place.recorded = self.scribe.as_mut().map(|scribe| match ask {
            Ask::Get { key } => scribe.reads(key, now),
            Ask::Put { key, value, .. } => scribe.writes(key, value, None, now),
        });
        self.dialect.ask(slot, ask, &mut self.output.bytes);
        true
    }

    pub(super) fn flush(&mut self, now: Instant, desk: &mut Desk) {
        let Some(socket) = &mut self.socket else { return };
        match self.output.send(socket) {
            Ok(()) => {}
            // Not connected yet: the socket wakes us when it is.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            Err(error) => self.lose(&lost(format!("{}: {error}", self.address)), now, desk),
        }
    }

    /// Forgets the socket; all that was under way has failed.
    fn lose(&mut self, why: &Refusal, now: Instant, desk: &mut Desk) {
        desk.tally.errors.add(why.kind, 1, &why.message);
        self.abandon(now, desk);
        let doublings = self.failures.min(BACKOFF_DOUBLINGS_MAX);
        self.connect_at = now + BACKOFF * (1 << doublings);
        self.failures += 1;
        self.socket = None;
        self.is_ready = false;
        self.input.clear();
        self.output.clear();
    }

    /// Counts all that is under way as unanswered.
    pub(super) fn abandon(&mut self, now: Instant, desk: &mut Desk) {
        for (slot, place) in self.places.iter_mut().enumerate() {
            if let Some(operation) = place.operation.take() {
                let why = Why { kind: "no answer", message: "a request was under way and got no answer", passes: true };
                desk.refused(operation, place.began, now, why);
                self.free.push(Slot(slot as u16));
                if let (Some(scribe), Some(begun)) = (&self.scribe, place.recorded.take()) {
                    scribe.ends(begun, now, verify::Outcome::Unknown);
                }
            }
        }
    }
}

impl Place {
    /// Takes the answer to its request, and says whether the operation has ended with it.
    fn answered(&mut self, outcome: Outcome<'_>, now: Instant, desk: &mut Desk) -> bool {
        let operation = self.operation.expect("its caller looked");
        match outcome {
            Outcome::Written => desk.done(operation, self.began, now),
            Outcome::Refused(refusal) => desk.refused(operation, self.began, now, Why::from(&refusal)),
            Outcome::Found { .. } | Outcome::Absent => {
                let context = match outcome {
                    Outcome::Found { context } => Some(context),
                    _ => None,
                };
                desk.read(self.began, context.is_some());
                if operation.kind == Kind::ReadModifyWrite && !self.is_writing {
                    self.keep(context);
                    self.is_writing = true;
                    return false;
                }
                desk.done(operation, self.began, now);
            }
        }
        self.operation = None;
        true
    }

    /// Keeps what was read for the write that follows. Who has read nothing writes as if it had not read.
    fn keep(&mut self, context: Option<&[u8]>) {
        let mut kept = self.context.take().unwrap_or_default();
        self.context = context.map(|context| {
            kept.clear();
            kept.extend_from_slice(context);
            kept
        });
    }
}

impl<'a> From<&'a Refusal> for Why<'a> {
    fn from(refusal: &'a Refusal) -> Why<'a> {
        Why { kind: refusal.kind, message: &refusal.message, passes: refusal.passes }
    }
}

fn lost(message: String) -> Refusal {
    Refusal { kind: "connection lost", message, passes: true }
}

fn no_connection(error: &io::Error) -> Refusal {
    Refusal { kind: "no connection", message: error.to_string(), passes: true }
}
