//! Tells a history what the connections of a run ask, and what they are told (docs/HISTORY.md).

use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::workload::KEY_BYTES;
use crate::protocol::types::{Key, Value};
use crate::verify::{Action, Asked, Event, Moment, Name, Outcome, Replaces};

/// A write that took longer may have been tried twice, by the node that handed it on.
const TRIED_ONCE: Duration = Duration::from_millis(300);

/// A value begins with this many bytes that no other value of its key begins with.
pub const UNIQUE_BYTES: usize = 16;

/// Where the events of a run go: those of one operation in their order, and a write before whoever read it.
#[derive(Clone, Debug)]
pub struct Recorder {
    to: SyncSender<(Moment, Event)>,
    begun: Instant,
    first: u32,
}

/// One connection's part in a history: it is one client.
#[derive(Debug)]
pub(super) struct Scribe {
    recorder: Recorder,
    client: u32,
    asked: u32,
}

/// An operation that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    name: Name,
    at: Instant,
}

impl Recorder {
    /// One whose moments count from `begun`. Whoever listens to it holds up the run where it is too slow.
    pub fn new(to: SyncSender<(Moment, Event)>, begun: Instant) -> Recorder {
        Recorder { to, begun, first: 0 }
    }

    /// The same for another run on the same history, whose clients count from `first`.
    #[must_use]
    pub fn from_client(&self, first: u32) -> Recorder {
        Recorder { first, ..self.clone() }
    }

    /// For the connection of this number.
    pub(super) fn scribe(&self, connection: usize) -> Scribe {
        let number = u32::try_from(connection).expect("there are fewer connections than ports");
        Scribe { recorder: self.clone(), client: self.first + number, asked: 0 }
    }

    fn tell(&self, at: Instant, event: Event) {
        let micros = at.saturating_duration_since(self.begun).as_micros();
        // Whoever listens no more wants no more.
        let _ = self.to.send((Moment(u64::try_from(micros).unwrap_or(u64::MAX)), event));
    }
}

impl Scribe {
    /// A read is about to be sent.
    pub(super) fn reads(&mut self, key: &[u8; KEY_BYTES], now: Instant) -> Begun {
        self.begins(key, Action::Read, now)
    }

    /// A write is about to be sent; with the context of `read`, if there is one.
    pub(super) fn writes(&mut self, key: &[u8; KEY_BYTES], value: &[u8], read: Option<Begun>, now: Instant) -> Begun {
        let replaces = read.map_or(Replaces::Held, |read| Replaces::Shown(read.name));
        self.begins(key, Action::Write { value: Some(mark(value)), replaces }, now)
    }

    fn begins(&mut self, key: &[u8; KEY_BYTES], action: Action, now: Instant) -> Begun {
        self.asked += 1;
        let name = Name { client: self.client, number: self.asked };
        let key = Key::new(key).expect("a length within its bounds");
        self.recorder.tell(now, Event::Begin { name, key, action, asked: Asked::default() });
        Begun { name, at: now }
    }

    /// An operation is over; `told` is what its answer says, with the values as they are.
    pub(super) fn ends(&self, begun: Begun, now: Instant, mut told: Outcome) {
        match &mut told {
            Outcome::Written { retried, .. } => *retried |= TRIED_ONCE < now.saturating_duration_since(begun.at),
            Outcome::Shown { versions, .. } => {
                let values = versions.iter_mut().filter_map(|version| version.value.as_mut());
                values.for_each(|value| *value = mark(value.as_bytes()));
            }
            Outcome::Refused | Outcome::Unknown => {}
        }
        self.recorder.tell(now, Event::End { name: begun.name, outcome: told });
    }
}

/// What a history keeps of a value: its beginning, its length and its sum.
fn mark(value: &[u8]) -> Value {
    let begins = String::from_utf8_lossy(&value[..value.len().min(UNIQUE_BYTES)]);
    let mark = format!("{begins}/{}/{:08x}", value.len(), crc32c::crc32c(value));
    Value::new(mark).expect("a mark is short")
}
