//! What the control thread knows of its node.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::guard::Guard;
use super::members::{Letters, Orders};
use super::metrics::Metrics;
use super::shake::Party;
use crate::protocol::antientropy::{Range, Tree};
use crate::protocol::membership::{Mark, Row, RowState, Rows};
use crate::protocol::message::Directory;
use crate::protocol::ring::{Cores, Ring, View};
use crate::protocol::types::ClusterId;
use crate::runtime::door::Door;
use crate::runtime::heartbeat::Heartbeats;
use crate::runtime::holdings::Holding;

/// Everything that HTTP and the acceptor show or need; filled once at the start.
#[derive(Clone)]
pub struct Node {
    /// The node's name.
    pub name: Arc<str>,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The ring.
    pub ring: Ring,
    /// Its cores.
    pub cores: Cores,
    /// Names of nodes by the actors they drew.
    pub directory: Arc<Directory>,
    /// Where the binary protocol listens.
    pub listen: SocketAddr,
    /// The way to the cores.
    pub door: Door,
    /// Whether they turn.
    pub hearts: Arc<Heartbeats>,
    /// What they count.
    pub metrics: Arc<Metrics>,
    /// Which client is let in.
    pub guard: Guard,
    /// As what it meets other nodes, and which of them is let in.
    pub party: Party,
    /// Where letters of other members go.
    pub letters: Letters,
    /// Where orders of operators go.
    pub orders: Orders,
    /// Bytes a second that it fetches at most when it gains partitions.
    pub transfer_rate: u64,
    /// The cluster as this node sees it now.
    pub members: watch::Receiver<MembersShown>,
    /// How much the node holds.
    pub holdings: HoldingsSource,
    /// How a snapshot is begun.
    pub snapshots: SnapshotSource,
    /// How a hash tree is made.
    pub trees: TreeSource,
}

/// What is shown of the cluster.
#[derive(Clone, Debug, Default)]
pub struct MembersShown {
    /// Who owns what, and who answers; none before the membership has begun.
    pub view: Option<Arc<View>>,
    /// What members know of each other.
    pub rows: Arc<Rows>,
}

impl MembersShown {
    /// How far every member that the change under way waits for has come, as far as this node knows; empty where no
    /// change is.
    pub fn marks(&self) -> Vec<(&Row, Mark)> {
        let Some(change) = self.view.as_ref().and_then(|view| view.change.as_ref()) else {
            return Vec::new();
        };
        let stamp = change.pending.stamp();
        let has_place = |row: &&Row| {
            let layouts = [&change.stored, &change.pending];
            layouts.iter().any(|layout| layout.rows().binary_search_by_key(&row.node, |row| row.node).is_ok())
        };
        let waited = self.rows.iter().filter(|row| row.state != RowState::Removed).filter(has_place);
        waited.map(|row| (row, row.progress.mark_of(stamp))).collect()
    }
}

/// Tells how much the node holds now. Calls into the LSM tree, which may take a while.
pub type HoldingsSource = Arc<dyn Fn() -> Holding + Send + Sync>;

/// Begins a snapshot of what the LSM tree holds now, on a thread of its own, and gives its bytes as they come
/// (`store::snapshot`). The channel is bounded; dropping the receiver ends the thread. A checkpoint has gone before it.
pub type SnapshotSource = Arc<dyn Fn() -> flume::Receiver<Result<Bytes, String>> + Send + Sync>;

/// Makes the hash tree of a range from what the LSM tree holds now, on a thread of its own. A checkpoint has gone
/// before it.
pub type TreeSource = Arc<dyn Fn(Range) -> flume::Receiver<Result<Tree, String>> + Send + Sync>;
