//! The connections and links of a core, turn by turn.
//!
//! ```text
//!   look at the poller ─▶ read all that are ready ─▶ foresee their keys ─▶ core ─▶ (end of the turn) appends to the
//!                                              log, fetches to the store thread, answers of a connection in one send
//! ```
//! A turn hears the connections that are ready, each up to its share of calls and all up to the turn's. What is left
//! over has its turn next, in the order in which it was ready: nobody waits behind a busy client for more than that.
//! All calls of a turn are read before the first is acted upon: where each key lies in memory is then looked up for all
//! of them together, and the processor waits for many cache lines at once instead of for one after the other.
//!
//! The calls of one connection are acted upon in the order in which they came. What links tell is heard first: requests
//! wait for it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use slotmap::{DefaultKey, Key, KeyData, SlotMap};

use super::connection::{Connection, End, Said};
use super::core::Core;
use super::link::{self, Broken, Link};
use super::mail::{Arrival, Caller, Line};
use super::poller::{Poller, Readiness};
use super::room::Room;
use super::wanting::Wanting;
use crate::protocol::message::Failure;
use crate::protocol::types::Instant;
use crate::store::FORESEEN_MAX;
use crate::wire::frame::CallId;

/// Calls that one connection may bring in a turn before others have theirs.
const CALLS_A_TURN: usize = 128;

/// Calls that all connections bring in a turn, but for the last one's share: less than a millisecond, for which the log
/// and the timers wait. More would be no quicker, and thousands of clients could fill the memory with them.
const BROUGHT_MAX: usize = 1_024;

/// Bytes that are read in a turn, but for the last one's share: large calls fill it sooner.
const BROUGHT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

/// Bytes that one link tells in a turn before others have theirs.
const TOLD_BYTES_A_TURN: usize = 4 * READ_BYTES;

/// Marks the token of a link. The low half of a token is a place in a table, and no table has so many.
const LINK: u64 = 1 << 31;

/// All connections and links of one core.
pub struct Connections {
    open: SlotMap<DefaultKey, Rc<Connection>>,
    links: SlotMap<DefaultKey, Rc<Link>>,
    poller: Poller,
    ready: Vec<Readiness>,
    wanting: Rc<Wanting>,
    /// For large calls that come in, and for large asks: a client that sends slowly must not keep a peer waiting.
    room: Room,
    asks_room: Room,
    /// What all of them read into.
    scratch: Vec<u8>,
    /// What they brought in this turn, and how many bytes were read for it.
    brought: VecDeque<(Rc<Connection>, Brought)>,
    brought_bytes: usize,
}

/// One thing that a connection brings.
enum Brought {
    Said(CallId, Said),
    Malformed(CallId, Failure),
    End(End),
}

/// What a turn came to.
#[derive(Clone, Copy, Debug)]
pub struct Turned {
    /// Connections that had something.
    pub served: usize,
    /// The log's task waits no more: it has something to write.
    pub woke_log: bool,
}

/// How far a connection came in its turn.
enum Turn {
    /// Nothing more has come in.
    Drained,
    /// There may be more, but no room for it, or for the answers.
    Full,
    /// There is more, but others wait for their turn.
    More,
}

impl Connections {
    /// None yet. Large calls may fill `calls_bytes_max` while they come in, and large asks as much.
    pub fn new(poller: Poller, calls_bytes_max: usize) -> Connections {
        let scratch = vec![0; READ_BYTES];
        Connections {
            open: SlotMap::new(),
            links: SlotMap::new(),
            poller,
            ready: Vec::new(),
            wanting: Rc::default(),
            room: Room::new(calls_bytes_max),
            asks_room: Room::new(calls_bytes_max),
            scratch,
            brought: VecDeque::new(),
            brought_bytes: 0,
        }
    }

    /// Those that want a turn.
    pub fn wanting(&self) -> Rc<Wanting> {
        Rc::clone(&self.wanting)
    }

    /// All that are open.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<Connection>> {
        self.open.values()
    }

    /// Takes in a connection past its hello. Its first turn is the next.
    ///
    /// # Errors
    /// What the kernel says of the socket, which is closed then.
    pub fn welcome(&mut self, now: Instant, arrival: Arrival) -> std::io::Result<()> {
        let (poller, wanting) = (&self.poller, &self.wanting);
        let added = self.open.try_insert_with_key(|key| {
            let connection = Connection::new(key.data().as_ffi(), now, arrival, Rc::clone(wanting))?;
            poller.add(connection.socket(), connection.token())?;
            connection.want_turn();
            Ok(connection)
        });
        added.map(|_| ())
    }

    /// The dialer's answer: the line that a core waits for, or none. A late one is dropped.
    pub fn on_dialed(&mut self, core: &mut Core, to: link::End, attempt: u64, line: Option<Line>) {
        if !core.waits_for(to, attempt) {
            return;
        }
        let (now, poller, wanting) = (core.instant(), &self.poller, &self.wanting);
        let link = line.and_then(|line| {
            let added = self.links.try_insert_with_key(|key| {
                let link = Link::new(key.data().as_ffi() | LINK, now, to, line, Rc::clone(wanting))?;
                poller.add(link.socket(), link.token())?;
                link.want_turn();
                Ok::<_, std::io::Error>(link)
            });
            let lost =
                |error| tracing::warn!(node = %to.0, core = %to.1, %error, "a link was lost before its first ask");
            added.map(|key| Rc::clone(&self.links[key])).map_err(lost).ok()
        });
        core.on_dialed(to, link.as_ref());
    }

    /// Serves connections that are ready. Those that found no place in this turn go on wanting one.
    pub fn turn(&mut self, core: &mut Core) -> Turned {
        self.look(core);
        let told = self.hear_links(core);
        let served = told + self.hear_all(core);
        while !self.brought.is_empty() {
            let group = self.brought.len().min(FORESEEN_MAX);
            core.foresee(self.brought.iter().take(group).filter_map(|(_, brought)| brought.said()));
            for (connection, brought) in self.brought.drain(..group) {
                act(core, &connection, brought);
            }
        }
        self.wanting.signal.lower();
        Turned { served, woke_log: core.flush() }
    }

    /// Drops those that were slow or silent for too long.
    pub fn sweep(&mut self, core: &mut Core, now: Instant, idle_max: Duration) {
        let crowded = core.replies_are_full();
        for connection in self.open.values().filter(|connection| connection.is_overdue(now, idle_max, crowded)) {
            tracing::debug!(peer = %connection.peer(), "a slow or silent connection was dropped");
            core.metrics().connections_dropped.increment(1);
            connection.close();
        }
        core.metrics().connections.set(self.open.len() as f64);
    }

    fn look(&mut self, core: &mut Core) {
        self.ready.extend(self.poller.look());
        for Readiness { token, readable, writable, hung_up } in self.ready.drain(..) {
            // One that was removed may still be in what the kernel tells.
            if token & LINK != 0 {
                let Some(link) = self.links.get(key(token & !LINK)) else { continue };
                if readable {
                    link.on_readable(hung_up);
                }
                if writable && link.waiting_bytes() != 0 {
                    core.send_asks(link);
                }
                continue;
            }
            let Some(connection) = self.open.get(key(token)) else { continue };
            if readable {
                connection.on_readable(hung_up);
            }
            if writable && connection.has_answers() {
                core.send_waiting(connection);
            }
        }
    }

    /// Hears the links that want a turn, and says how many those were.
    fn hear_links(&mut self, core: &mut Core) -> usize {
        let wanting = self.wanting.links();
        for _ in 0..wanting {
            let link = self.wanting.pop_link().expect("nobody else takes turns");
            if link.is_closed() {
                self.end_link(core, &link);
                continue;
            }
            match self.take_told(core, &link) {
                Ok(Turn::More) => link.want_turn(),
                Ok(Turn::Drained | Turn::Full) => {}
                Err(broken) => {
                    tracing::debug!(node = %link.to().0, core = %link.to().1, %broken, "a link has ended");
                    link.close();
                    self.end_link(core, &link);
                }
            }
        }
        wanting
    }

    fn take_told(&mut self, core: &mut Core, link: &Rc<Link>) -> Result<Turn, Broken> {
        let now = core.instant();
        let mut told_bytes = 0;
        while told_bytes < TOLD_BYTES_A_TURN {
            if let Some(heard) = link.next_told(now)? {
                core.on_told(link, heard);
                continue;
            }
            match link.receive(now, &mut self.scratch)? {
                0 => return Ok(Turn::Drained),
                bytes => told_bytes += bytes,
            }
        }
        Ok(Turn::More)
    }

    fn end_link(&mut self, core: &mut Core, link: &Rc<Link>) {
        core.on_link_lost(link);
        self.links.remove(key(link.token() & !LINK));
    }

    /// Hears those that want a turn, until this one is full, and says how many those were.
    fn hear_all(&mut self, core: &mut Core) -> usize {
        self.brought_bytes = 0;
        let wanting = self.wanting.len();
        for served in 0..wanting {
            if BROUGHT_MAX <= self.brought.len() || BROUGHT_BYTES_MAX <= self.brought_bytes {
                return served;
            }
            let connection = self.wanting.pop().expect("nobody else takes turns");
            self.hear(core, &connection);
        }
        wanting
    }

    fn hear(&mut self, core: &mut Core, connection: &Rc<Connection>) {
        if connection.is_closed() {
            core.send_waiting(connection);
            self.open.remove(key(connection.token()));
            self.give_back_room(connection);
        } else {
            match self.take_calls(core, connection) {
                Ok(Turn::Drained) => {}
                Ok(Turn::Full) => connection.stall(),
                Ok(Turn::More) => connection.want_turn(),
                Err(end) => {
                    self.give_back_room(connection);
                    self.brought.push_back((Rc::clone(connection), Brought::End(end)));
                }
            }
        }
    }

    fn take_calls(&mut self, core: &Core, connection: &Rc<Connection>) -> Result<Turn, End> {
        let now = core.instant();
        if !is_crowded(core, connection) && connection.has_put_off() {
            let put_off = connection.take_put_off().into_iter();
            self.brought.extend(put_off.map(|(id, said)| (Rc::clone(connection), Brought::Said(id, said))));
            return Ok(Turn::More);
        }
        for _ in 0..CALLS_A_TURN {
            if connection.is_full() || is_crowded(core, connection) {
                return Ok(Turn::Full);
            }
            let Some((id, spelt)) = connection.next_call(now)? else {
                if !self.has_room(connection) {
                    return Ok(Turn::Full);
                }
                match connection.receive(now, &mut self.scratch)? {
                    0 => return Ok(Turn::Drained),
                    bytes => self.brought_bytes += bytes,
                }
                continue;
            };
            if connection.has_room() {
                self.give_back_room(connection);
            }
            let brought = spelt.map_or_else(|failure| Brought::Malformed(id, failure), |said| Brought::Said(id, said));
            self.brought.push_back((Rc::clone(connection), brought));
        }
        Ok(Turn::More)
    }

    /// Whether the call that is coming in may be read on.
    fn has_room(&mut self, connection: &Connection) -> bool {
        let Some(bytes) = connection.coming_bytes().filter(|_| !connection.has_room()) else {
            return true;
        };
        let has_room = self.room_for(connection).take(connection.token(), bytes);
        if has_room {
            connection.set_room(bytes);
            self.call_next(connection);
        }
        has_room
    }

    /// A call has come in whole, or never will: another has its room, or its place among those that wait.
    fn give_back_room(&mut self, connection: &Connection) {
        let bytes = connection.set_room(0);
        let room = self.room_for(connection);
        room.give_back(bytes);
        room.leave(connection.token());
        self.call_next(connection);
    }

    fn call_next(&mut self, connection: &Connection) {
        let next = self.room_for(connection).next();
        if let Some(next) = next.and_then(|token| self.open.get(key(token))) {
            next.look_for_room();
        }
    }

    fn room_for(&mut self, connection: &Connection) -> &mut Room {
        match connection.caller() {
            Caller::Client => &mut self.room,
            Caller::Peer(_) => &mut self.asks_room,
        }
    }
}

impl Brought {
    fn said(&self) -> Option<&Said> {
        match self {
            Brought::Said(_, said) => Some(said),
            Brought::Malformed(..) | Brought::End(_) => None,
        }
    }
}

/// Whether its next call waits until answers were taken: its own, or, where all room is taken, anyone's. What clients
/// leave unread is no reason to keep a peer waiting: where room is short it is told only what is small.
fn is_crowded(core: &Core, connection: &Connection) -> bool {
    let is_client = connection.caller() == Caller::Client;
    connection.is_behind() || (is_client && core.replies_are_full() && connection.has_answers())
}

fn act(core: &mut Core, connection: &Rc<Connection>, brought: Brought) {
    match brought {
        // The answers of this turn may have filled it.
        Brought::Said(id, said) if is_crowded(core, connection) => connection.put_off(id, said),
        Brought::Said(id, said) => core.on_said(connection, id, said),
        Brought::Malformed(id, failure) => core.on_malformed(connection, id, &failure),
        Brought::End(End::Closed) => connection.finish(),
        Brought::End(End::Refused(failure)) => {
            tracing::debug!(peer = %connection.peer(), %failure, "a connection broke the protocol");
            core.farewell(connection, &failure);
            connection.finish();
        }
        Brought::End(End::Lost(error)) => {
            tracing::debug!(peer = %connection.peer(), %error, "a connection was lost");
            connection.close();
        }
    }
}

fn key(token: u64) -> DefaultKey {
    KeyData::from_ffi(token).into()
}

#[cfg(test)]
mod tests;
