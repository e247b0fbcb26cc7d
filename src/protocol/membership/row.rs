//! What all members know of one node. Two versions of a row join field by field, in any order, to the same row.

use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::protocol::ring::Cores;
use crate::protocol::types::NodeId;

/// What is to become of a node. It only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowState {
    /// It has joined and waits for a layout with it.
    Staged,
    /// It stands in a layout, or did.
    Member,
    /// It is to be left out of the next layout.
    Leaving,
    /// It was left out, and does not come back with this data directory.
    Removed,
}

/// A setting that any node may change: the change with the highest counter counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Register<T> {
    /// Counts the changes, from 1; 0 is what the node began with.
    pub counter: u64,
    /// Who changed it last; of two changes with one counter the higher setter's counts.
    pub setter: NodeId,
    /// The setting.
    pub value: T,
}

impl<T: Ord> Register<T> {
    /// What a node begins with.
    pub fn first(setter: NodeId, value: T) -> Register<T> {
        Register { counter: 0, setter, value }
    }

    /// Sets it anew, unless it is set so.
    pub fn set(&mut self, setter: NodeId, value: T) {
        if self.value != value {
            *self = Register { counter: self.counter + 1, setter, value };
        }
    }

    fn join(&mut self, other: Register<T>) {
        if *self < other {
            *self = other;
        }
    }
}

/// The newest start of a node, and what comes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowStart {
    /// The data directory's count of starts.
    pub count: u64,
    /// Random bits of that start.
    pub stamp: u64,
    /// Where clients, peers and gossip reach it.
    pub address: SocketAddr,
    /// Where HTTP does.
    pub http: SocketAddr,
    /// How it spreads partitions over its cores.
    pub cores: Cores,
}

impl RowStart {
    fn rank(&self) -> impl Ord + use<> {
        (self.count, self.stamp, self.address, self.http, self.cores.count, self.cores.salt)
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its id: the hash of its name.
    pub node: NodeId,
    /// Its name.
    pub name: Arc<str>,
    /// Counts the data directories that replaced one another under this name.
    pub generation: u32,
    /// Its data directory.
    pub incarnation: u128,
    /// What is to become of it.
    pub state: RowState,
    /// Whether it was seen to hold data. Once it was, it counts as holding some.
    pub holds_data: bool,
    /// What fails together with it.
    pub zone: Register<Arc<str>>,
    /// Its share of the partitions, beside the others' weights; at least 1.
    pub weight: Register<u32>,
    /// Its newest start.
    pub start: RowStart,
}

impl Row {
    /// Which data directory this is: the highest counts.
    pub fn life(&self) -> (u32, u128) {
        (self.generation, self.incarnation)
    }

    /// Joins what another row says of the same node.
    pub fn join(&mut self, other: Row) {
        if (self.life(), &self.name) < (other.life(), &other.name) {
            *self = other;
        } else if self.life() == other.life() && self.name == other.name {
            self.state = self.state.max(other.state);
            self.holds_data |= other.holds_data;
            self.zone.join(other.zone);
            self.weight.join(other.weight);
            if self.start.rank() < other.start.rank() {
                self.start = other.start;
            }
        }
    }

    /// Spells all that it says, for the digest of the rows.
    pub(super) fn spell(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.node.0.to_le_bytes());
        text(out, &self.name);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&[self.state as u8, u8::from(self.holds_data)]);
        out.extend_from_slice(&self.zone.counter.to_le_bytes());
        out.extend_from_slice(&self.zone.setter.0.to_le_bytes());
        text(out, &self.zone.value);
        out.extend_from_slice(&self.weight.counter.to_le_bytes());
        out.extend_from_slice(&self.weight.setter.0.to_le_bytes());
        out.extend_from_slice(&self.weight.value.to_le_bytes());
        out.extend_from_slice(&self.start.count.to_le_bytes());
        out.extend_from_slice(&self.start.stamp.to_le_bytes());
        address(out, self.start.address);
        address(out, self.start.http);
        out.extend_from_slice(&self.start.cores.count.to_le_bytes());
        out.extend_from_slice(&self.start.cores.salt.to_le_bytes());
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&address.port().to_le_bytes());
}
