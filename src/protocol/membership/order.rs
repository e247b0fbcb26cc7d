//! What operators ask of a membership: to stage changes, to see what they come to, to commit or forget them.

use std::sync::Arc;

use crate::protocol::ring::LayoutStamp;
use crate::protocol::types::NodeId;

/// One order on its way and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrderId(pub u64);

/// An order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Show what is staged, and what it comes to.
    Plan,
    /// Stage that a node hands over what it holds, and leaves.
    Leave(NodeId),
    /// Stage that a node that is down leaves without handing over: its copies count as lost.
    Remove(NodeId),
    /// Stage that a node that is down is replaced: by a node that has joined, or by one that will start under the same
    /// name on an empty data directory.
    Replace {
        /// The node that is down.
        node: NodeId,
        /// The joined node that takes its place.
        by: Option<NodeId>,
    },
    /// Stage another weight.
    Weight(NodeId, u32),
    /// Stage another zone.
    Zone(NodeId, Arc<str>),
    /// Begin a change of all that is staged. Removals that are staged while a change runs are carried out in it.
    Commit,
    /// Forget all that operators have staged. Nodes that have joined stay staged.
    Clear,
}

/// One staged change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: Arc<str>,
    /// What is to become of it.
    pub what: StagedChange,
}

/// What is to become of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StagedChange {
    /// It gets its share.
    Join,
    /// It hands over and leaves.
    Leave,
    /// It leaves as it is.
    Remove,
    /// It comes back on an empty data directory. False while none was seen yet.
    Replace {
        /// Whether the empty one has joined.
        is_there: bool,
    },
    /// Another weight.
    Weight {
        /// What it is in the layout.
        from: u32,
        /// What it is to be.
        to: u32,
    },
    /// Another zone.
    Zone {
        /// What it is in the layout.
        from: Arc<str>,
        /// What it is to be.
        to: Arc<str>,
    },
}

/// What is staged, and what it comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The stored layout.
    pub stored: LayoutStamp,
    /// The pending one, while a change runs.
    pub pending: Option<LayoutStamp>,
    /// What is staged.
    pub staged: Vec<Staged>,
    /// Every node of the present and the next layout.
    pub loads: Vec<PlannedLoad>,
    /// Copies of a partition in the next layout.
    pub copies: usize,
    /// Why a commit would be refused.
    pub refusal: Option<OrderRefused>,
}

/// What a plan gives a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedLoad {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: Arc<str>,
    /// Partitions that it owns.
    pub before: u32,
    /// Partitions that it will own.
    pub after: u32,
    /// Partitions that it must fetch.
    pub gains: u32,
}

/// Why an order was not carried out. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderRefused {
    /// No node has this id.
    #[error("there is no such node: `sloop cluster status` names them")]
    NoSuchNode,
    /// The node is no member of the layout.
    #[error(
        "node \"{name}\" has no place in the layout: it waits for one, or is leaving. Stop it to withdraw it; \
         `sloop cluster remove {name}` then gives its name free"
    )]
    NotPlaced {
        /// Its name.
        name: Arc<str>,
    },
    /// The node answers, and so it can hand over what it holds.
    #[error("node \"{name}\" answers: use `sloop cluster leave {name}`, by which it hands over what it holds first")]
    StillUp {
        /// Its name.
        name: Arc<str>,
    },
    /// The node that is to take another's place has not joined, or has a place of its own.
    #[error("node \"{name}\" is not a joined node without a place: start it with --join on an empty --data-dir first")]
    NotJoined {
        /// Its name.
        name: Arc<str>,
    },
    /// Nothing is staged.
    #[error("nothing is staged: `sloop cluster plan` shows what is")]
    NothingStaged,
    /// A change is under way.
    #[error(
        "a change to layout {} is under way: `sloop cluster transfers` shows it; what is staged can be committed when \
         it has ended (removals of nodes that are down are carried out at once)",
        .pending.number
    )]
    UnderWay {
        /// The pending layout.
        pending: LayoutStamp,
    },
    /// Members do not answer: the change could not end.
    #[error(
        "{} {} not answer, and a change waits for every member: start what does not, or stage `sloop cluster remove` \
         or `replace` for what does not come back",
        .names.join(", "),
        if .names.len() == 1 { "does" } else { "do" }
    )]
    Silent {
        /// Their names.
        names: Vec<String>,
    },
    /// Too few nodes would be left.
    #[error("{left} nodes would be left, and every key has {n} copies: join others first")]
    TooFewCopies {
        /// Nodes that would be left.
        left: usize,
        /// N.
        n: u8,
    },
    /// Partitions would be left of which no living node has a copy.
    #[error(
        "{partitions} partitions have copies on removed nodes only: their data would be lost; start one of those nodes"
    )]
    LosesData {
        /// How many.
        partitions: u32,
    },
    /// A node that was to be replaced has not come back yet.
    #[error("node \"{name}\" is to be replaced: start it on an empty --data-dir with --name {name} and --join first")]
    NotThereYet {
        /// Its name.
        name: Arc<str>,
    },
    /// A value out of its bounds.
    #[error("{reason}")]
    Invalid {
        /// Which, and its bounds.
        reason: String,
    },
}
