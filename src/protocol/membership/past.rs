//! Nodes from the past, and names that two nodes claim: who may not serve, and what to do about it (DESIGN "Ring,
//! layout and membership").

use core::net::SocketAddr;
use std::sync::Arc;

use super::io::{Durable, Knowledge};
use super::row::{Progress, Register, Row, RowStart, RowState, Wish};
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
        match (*.is_up, *.has_place) {
            (true, _) => String::new(),
            (false, true) => format!(
                "; or, as that node is down and if its data directory is lost, stage `sloop cluster replace {name}` \
                 first"
            ),
            (false, false) => format!(
                "; or, as that node is down and if its data directory is lost, withdraw it by `sloop cluster remove \
                 {name}` first"
            ),
        }
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Where the other node was last.
        address: SocketAddr,
        /// Whether it answers.
        is_up: bool,
        /// Whether it stands in a layout.
        has_place: bool,
    },
    /// Another data directory has taken the node's name over.
    #[error(
        "node \"{name}\" was replaced: another data directory has its name, at {address}, and this one does not come \
         back. Start on an empty --data-dir under another --name with --join"
    )]
    Replaced {
        /// The node's name.
        name: String,
        /// Where the other one was last.
        address: SocketAddr,
    },
    /// The node has left the cluster, as an operator wanted.
    #[error(
        "node \"{name}\" has left its cluster: all that it held is held by others, and its data directory is of no \
         use any more"
    )]
    Left {
        /// The node's name.
        name: String,
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
        judge(row, self.incarnation, (self.starts, self.stamp))?;
        if answers_elsewhere(known, row, self.address) {
            return Err(Refusal::Running { name: row.name.to_string(), address: row.start.address });
        }
        Ok(())
    }
}

/// Whether a node answers, as a member sees it. One whose address another has taken cannot answer there any more,
/// though not everybody may have noticed.
fn answers_elsewhere(known: &Knowledge, row: &Row, taken: SocketAddr) -> bool {
    known.up.contains(&row.node) && row.start.address != taken
}

/// Whether a data directory that was started so often may serve, by the row that others have of it.
pub(super) fn judge(row: &Row, incarnation: u128, (starts, stamp): (u64, u64)) -> Result<(), Refusal> {
    let name = row.name.to_string();
    if row.incarnation != incarnation {
        return Err(Refusal::Replaced { name, address: row.start.address });
    }
    if row.state == RowState::Removed {
        let has_left = row.wish.value == Wish::Leave;
        return Err(if has_left { Refusal::Left { name } } else { Refusal::Removed { name } });
    }
    match row.start.count.cmp(&starts) {
        std::cmp::Ordering::Greater => Err(Refusal::Behind { name, starts, seen: row.start.count }),
        std::cmp::Ordering::Equal if row.start.stamp != stamp => Err(Refusal::Clone { name }),
        _ => Ok(()),
    }
}

/// What a new node of this name begins with, in a cluster of which members have told what they know. `start` says where
/// the node will be reached; it has not started yet.
///
/// # Errors
/// [`Refusal::NameTaken`] when the name is another node's, unless that one does not answer, and is to be replaced or
/// has no place in a layout.
pub fn may_join(name: &str, incarnation: u128, start: RowStart, known: Knowledge) -> Result<Durable, Refusal> {
    let me = NodeId::of(name);
    let layouts = [&known.layout, &known.pending].into_iter().flatten();
    let has_place = layouts.flat_map(|layout| layout.rows()).any(|row| row.node == me);
    let is_up = known.rows.get(me).is_some_and(|row| answers_elsewhere(&known, row, start.address));
    let (generation, zone, weight) = match known.rows.get(me) {
        None => (0, Register::first(me, Arc::from("")), Register::first(me, 1)),
        // A join that broke off, and goes on.
        Some(row) if row.incarnation == incarnation => (row.generation, row.zone.clone(), row.weight.clone()),
        Some(row) if !is_up && is_free(row, has_place) => (row.generation + 1, row.zone.clone(), row.weight.clone()),
        Some(row) => {
            let (name, address) = (name.to_owned(), row.start.address);
            return Err(Refusal::NameTaken { name, address, is_up, has_place });
        }
    };
    let mut rows = known.rows;
    rows.join_row(Row {
        node: me,
        name: name.into(),
        generation,
        incarnation,
        state: RowState::Staged,
        wish: Register::first(me, Wish::Stay),
        progress: Progress::default(),
        holds_data: false,
        zone,
        weight,
        start,
    });
    let cluster = known.cluster.expect("a member knows its cluster");
    let (layout, pending) = (known.layout, known.pending);
    Ok(Durable { cluster, partitions: known.partitions, me, rows, layout, pending })
}

/// Whether an empty data directory may take over the name of a node that does not answer.
fn is_free(row: &Row, has_place: bool) -> bool {
    let has_none = !has_place && matches!(row.state, RowState::Staged | RowState::Removed);
    has_none || row.wish.value == Wish::Replace
}
