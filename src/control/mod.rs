//! SHOWS. The node to people and machines, on one thread of its own: HTTP, metrics, and the acceptor of the binary
//! port. It reaches the cores through one bounded [`Door`](crate::runtime::door::Door) and never holds them up.

pub mod node;
pub mod listener;
pub mod shake;
pub mod members;
pub mod gossip;
pub mod settle;
pub mod acceptor;
pub mod dialer;
pub mod guard;
pub mod http;
pub mod metrics;
pub mod notify;
#[cfg(test)]
mod testing;
