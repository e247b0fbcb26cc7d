//! Who wants to be served in the next turn of a core.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::connection::Connection;
use super::link::Link;
use super::signal::Signal;

/// The connections and links of a core that want a turn.
#[derive(Debug, Default)]
pub struct Wanting {
    connections: RefCell<VecDeque<Rc<Connection>>>,
    links: RefCell<VecDeque<Rc<Link>>>,
    /// Raised when there is one.
    pub signal: Signal,
}

impl Wanting {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty() && self.links.borrow().is_empty()
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.connections.borrow().len()
    }

    /// How many links there are.
    pub fn links(&self) -> usize {
        self.links.borrow().len()
    }

    /// The connection that has waited longest.
    pub fn pop(&self) -> Option<Rc<Connection>> {
        let connection = self.connections.borrow_mut().pop_front()?;
        connection.has_turn();
        Some(connection)
    }

    /// The link that has waited longest.
    pub fn pop_link(&self) -> Option<Rc<Link>> {
        let link = self.links.borrow_mut().pop_front()?;
        link.has_turn();
        Some(link)
    }

    /// A connection wants a turn.
    pub fn push(&self, connection: &Rc<Connection>) {
        self.connections.borrow_mut().push_back(Rc::clone(connection));
        self.signal.raise();
    }

    /// A link wants a turn.
    pub fn push_link(&self, link: &Rc<Link>) {
        self.links.borrow_mut().push_back(Rc::clone(link));
        self.signal.raise();
    }
}
