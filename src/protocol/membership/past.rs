//! Nodes from the past, and names that two nodes claim: who may not serve, and what to do about it (DESIGN "Ring,
//! layout and membership").

use core::net::SocketAddr;
use std::sync::Arc;

use super::io::{Durable, Knowledge};
use super::row::{Register, Row, RowStart, RowState};
use crate::protocol::types::{ClusterId, NodeId};

/// Why a node may not serve. Nothing in its data directory was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The cluster has seen a later start of this data directory.
    #[error(
        "this data directory is an old image of node \"{name}\": it was started {starts} times, and its cluster has \
         seen start {seen}. It would take back what was acknowledged since. Start the newest directory of the node; \
         if that is lost, start on an empty --data-dir under a new --name with --join"
    )]
    Behind {
        /// The node's name.
        name: String,
        /// Starts that the directory counts.
        starts: u64,
        /// Starts that the cluster has seen.
        seen: u64,
    },
    /// Another copy of this data directory was started as often.
    #[error(
        "this data directory is a copy: another one of node \"{name}\" was started too, from the same image. Only \
         one of them may serve: stop this one, and start a new node on an empty --data-dir with --name and --join"
    )]
    Clone {
        /// The node's name.
        name: String,
    },
    /// The same data directory answers elsewhere.
    #[error(
        "node \"{name}\" runs at {address} already: stop that one first, or start this one on an empty --data-dir with \
         another --name and --join"
    )]
    Running {
        /// The node's name.
        name: String,
        /// Where.
        address: SocketAddr,
    },
    /// The cluster has removed the node.
    #[error(
        "node \"{name}\" was removed from its cluster, and its data directory does not come back: start on an empty \
         --data-dir with --join"
    )]
    Removed {
        /// The node's name.
        name: String,
    },
    /// Another node has the name.
    #[error(
        "the name \"{name}\" belongs to another node of the cluster, at {address}: choose another --name{}",
        if *.is_up { "" } else { " (that node is down; it comes back on its own data directory only)" }
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Where the other node was last.
        address: SocketAddr,
        /// Whether it answers.
        is_up: bool,
    },
    /// The data directory belongs to another cluster.
    #[error(
        "this data directory belongs to cluster {ours}, and --join names a node of cluster {theirs}: start without \
         --join, or choose an empty --data-dir"
    )]
    Foreign {
        /// The directory's cluster.
        ours: ClusterId,
        /// The other one.
        theirs: ClusterId,
    },
}

/// What a data directory knows of itself before it is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// The node.
    pub node: NodeId,
    /// Its data directory.
    pub incarnation: u128,
    /// How often it was started.
    pub starts: u64,
    /// Random bits of its last start.
    pub stamp: u64,
    /// Where the node will be reached.
    pub address: SocketAddr,
}

impl Past {
    /// Whether the directory may be started once more, by what a member knows.
    ///
    /// # Errors
    /// Why not.
    pub fn may_start(&self, known: &Knowledge) -> Result<(), Refusal> {
        let Some(row) = known.rows.get(self.node) else {
            return Ok(());
        };
        let is_up = known.up.contains(&self.node);
        judge(row, self.incarnation, (self.starts, self.stamp), is_up)?;
        // A node whose address this one has taken cannot answer there any more.
        if is_up && row.start.address != self.address {
            return Err(Refusal::Running { name: row.name.to_string(), address: row.start.address });
        }
        Ok(())
    }
}

/// Whether a data directory that was started so often may serve, by the row that others have of it.
pub(super) fn judge(row: &Row, incarnation: u128, (starts, stamp): (u64, u64), is_up: bool) -> Result<(), Refusal> {
    let name = row.name.to_string();
    if row.incarnation != incarnation {
        return Err(Refusal::NameTaken { name, address: row.start.address, is_up });
    }
    if row.state == RowState::Removed {
        return Err(Refusal::Removed { name });
    }
    match row.start.count.cmp(&starts) {
        std::cmp::Ordering::Greater => Err(Refusal::Behind { name, starts, seen: row.start.count }),
        std::cmp::Ordering::Equal if row.start.stamp != stamp => Err(Refusal::Clone { name }),
        _ => Ok(()),
    }
}

/// What a new node of this name begins with, in a cluster of which a member has told what it knows. `start` says where
/// the node will be reached; it has not started yet.
///
/// # Errors
/// [`Refusal::NameTaken`] when the name is another node's, unless that one was never in a layout and does not answer.
pub fn may_join(name: &str, incarnation: u128, start: RowStart, known: Knowledge) -> Result<Durable, Refusal> {
    let me = NodeId::of(name);
    let has_owned = known.layout.as_ref().is_some_and(|layout| layout.rows().iter().any(|row| row.node == me));
    let generation = match known.rows.get(me) {
        None => 0,
        // A join that broke off, and goes on.
        Some(row) if row.incarnation == incarnation => row.generation,
        Some(row) => {
            let is_up = known.up.contains(&me);
            if is_up || has_owned || row.state != RowState::Staged {
                return Err(Refusal::NameTaken { name: name.to_owned(), address: row.start.address, is_up });
            }
            row.generation + 1
        }
    };
    let mut rows = known.rows;
    rows.join_row(Row {
        node: me,
        name: name.into(),
        generation,
        incarnation,
        state: RowState::Staged,
        holds_data: false,
        zone: Register::first(me, Arc::from("")),
        weight: Register::first(me, 1),
        start,
    });
    let cluster = known.cluster.expect("a member knows its cluster");
    Ok(Durable { cluster, partitions: known.partitions, me, rows, layout: known.layout })
}
