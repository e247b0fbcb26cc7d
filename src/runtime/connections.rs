//! The connections of a core, turn by turn.
//!
//! ```text
//!   look at the poller ─▶ read all that are ready ─▶ foresee their keys ─▶ core ─▶ (end of the turn) appends to the
//!                                              log, fetches to the store thread, answers of a connection in one send
//! ```
//! A turn hears the connections that are ready, each up to its share of calls and all up to the turn's. What is left
//! over has its turn next, in the order in which it was ready: nobody waits behind a busy client for longer than a turn.
//! All calls of a turn are read before the first is acted upon: where each key lies in memory is then looked up for all
//! of them together, and the processor waits for many cache lines at once instead of for one after the other.
//!
//! The calls of one connection are acted upon in the order in which they came.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use slotmap::{DefaultKey, Key, KeyData, SlotMap};

use super::connection::{Connection, End, Wanting};
use super::core::Core;
use super::mail::Arrival;
use super::poller::{Poller, Readiness};
use crate::protocol::message::{Answer, Call, Failure};
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

/// All connections of one core.
pub struct Connections {
    open: SlotMap<DefaultKey, Rc<Connection>>,
    poller: Poller,
    ready: Vec<Readiness>,
    wanting: Rc<Wanting>,
    /// What all of them read into.
    scratch: Vec<u8>,
    /// What they brought in this turn, and how many bytes were read for it.
    brought: VecDeque<(Rc<Connection>, Brought)>,
    brought_bytes: usize,
}

/// One thing that a connection brings.
enum Brought {
    Call(CallId, Call),
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
    /// There may be more, but no room for their answers.
    Full,
    /// There is more, but others wait for their turn.
    More,
}

impl Connections {
    /// None yet.
    pub fn new(poller: Poller) -> Connections {
        let scratch = vec![0; READ_BYTES];
        Connections {
            open: SlotMap::new(),
            poller,
            ready: Vec::new(),
            wanting: Rc::default(),
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

    /// Serves connections that are ready. Those that found no place in this turn go on wanting one.
    pub fn turn(&mut self, core: &mut Core) -> Turned {
        self.look(core);
        let served = self.hear_all(core);
        while !self.brought.is_empty() {
            let group = self.brought.len().min(FORESEEN_MAX);
            core.foresee(self.brought.iter().take(group).filter_map(|(_, brought)| brought.call()));
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
            let Some(connection) = self.open.get(key(token)) else { continue };
            if readable {
                connection.on_readable(hung_up);
            }
            if writable && connection.has_answers() {
                core.send_waiting(connection);
            }
        }
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
        } else {
            match self.take_calls(core, connection) {
                Ok(Turn::Drained) => {}
                Ok(Turn::Full) => connection.stall(),
                Ok(Turn::More) => connection.want_turn(),
                Err(end) => self.brought.push_back((Rc::clone(connection), Brought::End(end))),
            }
        }
    }

    fn take_calls(&mut self, core: &Core, connection: &Rc<Connection>) -> Result<Turn, End> {
        let now = core.instant();
        if !is_crowded(core, connection) && connection.has_put_off() {
            let calls = connection.take_put_off().into_iter();
            self.brought.extend(calls.map(|(id, call)| (Rc::clone(connection), Brought::Call(id, call))));
            return Ok(Turn::More);
        }
        for _ in 0..CALLS_A_TURN {
            if connection.is_full() || is_crowded(core, connection) {
                return Ok(Turn::Full);
            }
            let Some((id, spelt)) = connection.next_call(now)? else {
                match connection.receive(now, &mut self.scratch)? {
                    0 => return Ok(Turn::Drained),
                    bytes => self.brought_bytes += bytes,
                }
                continue;
            };
            let brought = spelt.map_or_else(|failure| Brought::Malformed(id, failure), |call| Brought::Call(id, call));
            self.brought.push_back((Rc::clone(connection), brought));
        }
        Ok(Turn::More)
    }
}

impl Brought {
    fn call(&self) -> Option<&Call> {
        match self {
            Brought::Call(_, call) => Some(call),
            Brought::Malformed(..) | Brought::End(_) => None,
        }
    }
}

/// Whether its next call waits until answers were taken: its own, or, where all room is taken, anyone's.
fn is_crowded(core: &Core, connection: &Connection) -> bool {
    connection.is_behind() || (core.replies_are_full() && connection.has_answers())
}

fn act(core: &mut Core, connection: &Rc<Connection>, brought: Brought) {
    match brought {
        // The answers of this turn may have filled it.
        Brought::Call(id, call) if is_crowded(core, connection) => connection.put_off(id, call),
        Brought::Call(id, call) => core.on_call(connection, id, call),
        Brought::Malformed(id, failure) => core.on_malformed(connection, id, failure),
        Brought::End(End::Closed) => connection.finish(),
        Brought::End(End::Refused(failure)) => {
            tracing::debug!(peer = %connection.peer(), %failure, "a connection broke the protocol");
            core.farewell(connection, &Answer::One(Err(failure)));
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
