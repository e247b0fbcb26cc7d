//! What all members know of one node. Two versions of a row join field by field, in any order, to the same row.

use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::protocol::ring::{Cores, LayoutStamp};
use crate::protocol::types::NodeId;

/// What has become of a node. It only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowState {
    /// It has joined and waits for a layout with it.
    Staged,
    /// It stands in a layout.
    Member,
    /// It stands in no layout any more, and hands over what it still holds.
    Leaving,
    /// It is waited for no more, and does not come back with this data directory.
    Removed,
}

/// What an operator has staged for a node. It is carried out by the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wish {
    /// Nothing.
    Stay,
    /// It hands over what it holds, and leaves.
    Leave,
    /// It leaves as it is.
    Remove,
    /// An empty data directory takes its name over.
    Replace,
}

/// How far a member has come in the change to a layout. A mark is durable before it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Mark {
    /// It knows the pending layout.
    #[default]
    Known,
    /// It writes by it.
    Writes,
    /// It holds all that it owns in it.
    Holds,
    /// It reads by it.
    Reads,
    /// It goes by nothing else any more.
    Stored,
}

/// The newest layout that a member has marked, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    /// The layout; zeros for none.
    pub stamp: LayoutStamp,
    /// The mark.
    pub mark: Mark,
}

impl Progress {
    /// How far that is in the change to this layout.
    pub fn mark_of(self, stamp: LayoutStamp) -> Mark {
        match self.stamp.number.cmp(&stamp.number) {
            std::cmp::Ordering::Greater => Mark::Stored,
            std::cmp::Ordering::Equal if self.stamp == stamp => self.mark,
            _ => Mark::Known,
        }
    }

    /// Joins what else is said of the same member.
    pub fn join(&mut self, other: Progress) {
        if other.stamp.is_newer_than(self.stamp) {
            *self = other;
        } else if other.stamp == self.stamp {
            self.mark = self.mark.max(other.mark);
        }
    }
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
    /// What has become of it.
    pub state: RowState,
    /// What is staged for it.
    pub wish: Register<Wish>,
    /// How far it has come in the newest change that it knows.
    pub progress: Progress,
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

    /// Whether it is a member no more.
    pub fn is_removed(&self) -> bool {
        self.state == RowState::Removed
    }

    /// Joins what another row says of the same node.
    pub fn join(&mut self, other: Row) {
        if (self.life(), &self.name) < (other.life(), &other.name) {
            *self = other;
        } else if self.life() == other.life() && self.name == other.name {
            self.state = self.state.max(other.state);
            self.wish.join(other.wish);
            self.progress.join(other.progress);
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
        out.extend_from_slice(&[self.state as u8, self.progress.mark as u8, u8::from(self.holds_data)]);
        out.extend_from_slice(&self.progress.stamp.number.to_le_bytes());
        out.extend_from_slice(&self.progress.stamp.hash.to_le_bytes());
        out.extend_from_slice(&self.wish.counter.to_le_bytes());
        out.extend_from_slice(&self.wish.setter.0.to_le_bytes());
        out.push(self.wish.value as u8);
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
