//! The requests and asks under way on one core, here or forwarded: whom each is for, and when a forwarded request is
//! given up.

use std::collections::BTreeSet;
use std::rc::Rc;

use slotmap::{DefaultKey, Key as _, KeyData, SlotMap};
use tokio::sync::oneshot;

use super::connection::Connection;
use super::metrics::OperationKind;
use crate::protocol::message::Outcome;
use crate::protocol::types::{CoreId, Instant, RequestId, TicketId};
use crate::wire::frame::CallId;

/// Whom a request came from.
#[derive(Debug)]
pub enum Origin {
    /// A client, under this id.
    Connection(Rc<Connection>, CallId),
    /// A gather of this core, and which part of it.
    Gather(u64, usize),
    /// Another core, under its name for it.
    Core(CoreId, RequestId),
    /// The control thread.
    Door(oneshot::Sender<Outcome>),
}

/// A request under way.
#[derive(Debug)]
pub struct Pending {
    /// Whom it is for.
    pub origin: Origin,
    /// What it does.
    pub kind: OperationKind,
    /// When it came in.
    pub begun: Instant,
    /// When it ends here whatever the core says that it was forwarded to.
    pub given_up: Option<Instant>,
}

/// All of one core.
#[derive(Debug, Default)]
pub struct Requests {
    pending: SlotMap<DefaultKey, Pending>,
    /// Forwarded ones by the time when they are given up.
    forwarded: BTreeSet<(Instant, RequestId)>,
}

impl Requests {
    /// Takes one in, under a number that none has or had.
    pub fn begin(&mut self, request: Pending) -> RequestId {
        let given_up = request.given_up;
        let id = RequestId(self.pending.insert(request).data().as_ffi());
        self.forwarded.extend(given_up.map(|until| (until, id)));
        id
    }

    /// Ends one.
    ///
    /// # Panics
    /// When it has ended, or never begun.
    pub fn end(&mut self, id: RequestId) -> Pending {
        let request = self.pending.remove(place(id)).expect("a request ends once");
        if let Some(until) = request.given_up {
            self.forwarded.remove(&(until, id));
        }
        request
    }

    /// Whether it is under way.
    pub fn contains(&self, id: RequestId) -> bool {
        self.pending.contains_key(place(id))
    }

    /// One whose time is over.
    pub fn overdue(&self, now: Instant) -> Option<RequestId> {
        self.forwarded.first().filter(|(until, _)| *until <= now).map(|(_, id)| *id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }
}

/// The asks of peers under way on one core: whom to tell.
#[derive(Debug, Default)]
pub struct Tickets {
    open: SlotMap<DefaultKey, (Rc<Connection>, CallId)>,
}

impl Tickets {
    /// Takes one in, under a number that none has or had.
    pub fn begin(&mut self, connection: Rc<Connection>, id: CallId) -> TicketId {
        TicketId(self.open.insert((connection, id)).data().as_ffi())
    }

    /// Ends one.
    ///
    /// # Panics
    /// When it has ended, or never begun.
    pub fn end(&mut self, ticket: TicketId) -> (Rc<Connection>, CallId) {
        self.open.remove(KeyData::from_ffi(ticket.0).into()).expect("an ask is told once")
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

fn place(id: RequestId) -> DefaultKey {
    KeyData::from_ffi(id.0).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::Request;
    use crate::protocol::types::Key;

    fn request(given_up: Option<u64>) -> Pending {
        let given_up = given_up.map(Instant);
        let kind = OperationKind::of(&Request::Siblings(Key::new("a").unwrap()));
        Pending { origin: Origin::Gather(1, 0), kind, begun: Instant(0), given_up }
    }

    #[test]
    fn a_number_that_has_ended_is_none_that_begins() {
        let mut requests = Requests::default();
        let first = requests.begin(request(None));
        requests.end(first);
        let second = requests.begin(request(None));
        assert!(first != second && requests.contains(second) && !requests.contains(first));
    }

    #[test]
    fn forwarded_requests_are_overdue_in_the_order_of_their_ends() {
        let mut requests = Requests::default();
        let late = requests.begin(request(Some(20)));
        let early = requests.begin(request(Some(10)));
        requests.begin(request(None));
        assert_eq!(requests.overdue(Instant(9)), None);
        for id in [early, late] {
            assert_eq!(requests.overdue(Instant(20)), Some(id));
            requests.end(id);
        }
        assert_eq!((requests.overdue(Instant(99)), requests.len()), (None, 1));
    }
}
