//! What clients ask and nodes answer, as plain types. `wire` spells them; nothing here knows bytes.

use core::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::causality::{ContextError, Operation, SetLimit};
use super::config::{DEADLINE_DEFAULT, DEADLINE_MAX, NODES_MAX, PARTITIONS_MAX, RETRY_AFTER};
use super::ring::{Cores, LayoutStamp, Partition, Unruly};
use super::types::{ActorId, ClusterId, CoreId, Dot, Key, LengthError, NodeId, OperationId, Value, WallTime};

/// Everything that a client may ask of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A request for one key, or for one page of keys.
    One(Request),
    /// Up to `BATCH_KEYS_MAX` requests, each of which stands alone; answered by [`Answer::Many`] in the same order.
    /// No transaction is pretended. Only GET and PUT may be batched.
    Many(Vec<Request>),
    /// Are you there? Answered by [`Answer::Pong`].
    Ping,
    /// Who are you? Answered by [`Answer::Info`].
    Info,
    /// Who owns what? Answered by [`Answer::Ring`].
    Ring {
        /// The layout that the client knows; the default, number 0, is none.
        known: LayoutStamp,
    },
}

/// What a core decides about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// All live siblings of a key, and the context.
    Get(Get),
    /// A new value.
    Put(Put),
    /// A tombstone, also for a key that was never written.
    Delete(Delete),
    /// This node's own copy of a key: who wrote each version, tombstones too.
    Siblings(Key),
    /// A page of this node's keys.
    Keys(Keys),
}

/// The quorum and time that a request asks for. Zero means the cluster's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Terms {
    /// R of a read, W of a write.
    pub quorum: u8,
    /// Only owners count: no fallback stands in (sloppy quorum off).
    pub strict: bool,
    /// This is a retry: ask whoever may remember the first try before anything is minted.
    pub retry: bool,
    /// Milliseconds from arrival until the request ends.
    pub deadline_ms: u32,
}

/// Read a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get {
    /// The key.
    pub key: Key,
    /// Quorum and time.
    pub terms: Terms,
}

/// What a write means to replace, as the client says it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Causality {
    /// No context: a PUT replaces what its coordinator holds, a DELETE what R owners hold.
    #[default]
    Blind,
    /// `context: none`: replaces nothing, leaves a sibling in any case.
    Sibling,
    /// A token from an earlier reply: replaces exactly what that reply showed.
    Context(Bytes),
}

/// Write a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Value,
    /// What it replaces.
    pub causality: Causality,
    /// The client's name for the write, for safe retries.
    pub operation: Option<OperationId>,
    /// Quorum and time.
    pub terms: Terms,
}

/// Delete a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// The key.
    pub key: Key,
    /// What it replaces.
    pub causality: Causality,
    /// The client's name for the write, for safe retries.
    pub operation: Option<OperationId>,
    /// Quorum and time.
    pub terms: Terms,
}

/// List keys that hold at least one value. The order is by partition, then by key: stable, not alphabetical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Only keys that begin with this.
    pub prefix: Bytes,
    /// The last key of the page before; its partition follows from it.
    pub after: Option<Key>,
    /// Most keys wanted, 1 to `PAGE_KEYS_MAX`.
    pub limit: u16,
}

/// What a node says to one [`Call`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Call::One`].
    One(Outcome),
    /// To [`Call::Many`].
    Many(Vec<Outcome>),
    /// To [`Call::Ping`].
    Pong,
    /// To [`Call::Info`].
    Info(NodeInfo),
    /// To [`Call::Ring`].
    Ring(RingMap),
}

/// How one request ended.
pub type Outcome = Result<Reply, Failure>;

/// What one request got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To a GET, also when the key holds nothing.
    Found(Found),
    /// To a PUT or DELETE.
    Written(Written),
    /// To a siblings request.
    Siblings(Copies),
    /// To a listing.
    Keys(Page),
}

/// How a request was served (DESIGN 1.5: the reply says what it got).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Level {
    /// Copies that the layout keeps of the key.
    pub n: u8,
    /// The R or W that was used.
    pub quorum: u8,
    /// Owners that answered.
    pub owners: u8,
    /// Fallbacks that stood in for owners.
    pub fallbacks: u8,
    /// Whether a hedge was sent.
    pub hedged: bool,
}

/// A value as a GET shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sibling {
    /// The version's name.
    pub dot: Dot,
    /// The value.
    pub value: Value,
    /// When it was written, by its coordinator's clock.
    pub written_at: WallTime,
}

/// To a GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// All live siblings, by dot; none when the key is absent or deleted.
    pub siblings: Vec<Sibling>,
    /// The token that a write passes on to replace exactly these siblings; also for a key that was never written.
    pub context: Bytes,
    /// How the read was served.
    pub level: Level,
}

/// To a PUT or DELETE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The version's name.
    pub dot: Dot,
    /// What the writer has now seen: pass it on to the next write of this key.
    pub context: Bytes,
    /// The versions that the write replaced.
    pub superseded: SmallVec<[Dot; 1]>,
    /// When it was written, by the coordinator's clock.
    pub written_at: WallTime,
    /// Whether this was remembered from an earlier try under the same operation id; then nothing was written now.
    pub remembered: bool,
    /// How the write was served.
    pub level: Level,
}

/// To a siblings request: this node's own copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copies {
    /// All versions, tombstones too, by dot.
    pub copies: Vec<Copy>,
    /// The token that a write passes on to replace exactly these; also for a key that was never written.
    pub context: Bytes,
}

/// One version with its story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The version's name.
    pub dot: Dot,
    /// The node that minted it, as far as this node knows; otherwise the actor in hexadecimal digits.
    pub node: String,
    /// The value; `None` is a tombstone.
    pub value: Option<Value>,
    /// When it was written, by its coordinator's clock.
    pub written_at: WallTime,
    /// The operation that wrote it, if the client named it.
    pub operation: Option<OperationId>,
}

/// To a listing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Page {
    /// Keys by partition, then by key.
    pub keys: Vec<Key>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// To an info request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// The node's name.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its number of cores.
    pub cores: u16,
    /// The core that answers on this connection.
    pub core: CoreId,
    /// The node's salt: with it a client computes the core of a partition.
    pub salt: u64,
    /// Partitions of the ring.
    pub partitions: u16,
    /// Milliseconds since the node started.
    pub uptime_ms: u64,
}

/// To a ring request: all that a client needs to go straight to an owner of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingMap {
    /// The layout.
    pub stamp: LayoutStamp,
    /// Partitions of the ring.
    pub partitions: u16,
    /// Owners of each partition.
    pub copies: u8,
    /// The nodes of the layout, always in the same order for the same layout.
    pub nodes: Vec<RingNode>,
    /// Indices of nodes, partition after partition, the one that usually coordinates first; `None` when the client
    /// knows the layout.
    pub owners: Option<Vec<u16>>,
}

/// A node as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingNode {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where it listens for clients. Port 0: where the client reached it, if it did.
    pub address: SocketAddr,
    /// How it spreads partitions over its cores.
    pub cores: Cores,
    /// Whether it is worth asking: it was not found to be down.
    pub is_up: bool,
}

/// Why a request was not done. The doc of each says what happened to the state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Not understood. Nothing was written.
    #[error("malformed request: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// A key, value or operation id out of its bounds. Nothing was written.
    #[error(transparent)]
    Length(#[from] LengthError),
    /// A context that cannot be used here. Nothing was written.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The write would take its set beyond a limit. Nothing was written.
    #[error(transparent)]
    SetLimit(#[from] SetLimit),
    /// The operation id was used for another operation on this key. Nothing was written.
    #[error("this operation id was used on this key for another operation: use a fresh id for each operation")]
    OperationReused,
    /// The request asks for more copies than there are. Nothing was written.
    #[error("the request asks for a quorum of {asked}, the key has {copies} copies")]
    QuorumImpossible {
        /// The R or W of the request.
        asked: u8,
        /// Copies that the layout keeps.
        copies: u8,
    },
    /// Too few copies answered before the deadline. A write may still surface later.
    #[error("quorum not met: {got} of {needed} needed answers before the deadline")]
    QuorumNotMet {
        /// The R or W of the request.
        needed: u8,
        /// Answers that came.
        got: u8,
    },
    /// No room for more work right now. Nothing was written.
    #[error("overloaded: retry after {retry_after_ms} ms")]
    Overloaded {
        /// When to try again.
        retry_after_ms: u32,
    },
    /// The disk is full. Nothing was written; reads go on.
    #[error("the disk of this node is full: free some space, writes resume by themselves")]
    DiskFull,
    /// An append to the log failed, and the core has stopped writing for good. A write that was under way may still
    /// surface later. Reads go on.
    #[error(
        "core {core} of this node has stopped writing after its log failed: restart the node when the disk is well"
    )]
    WritesStopped {
        /// The core.
        core: CoreId,
    },
    /// What is stored under the key could not be read.
    #[error("the stored data could not be read: {reason}")]
    Unreadable {
        /// What the store says, with the file.
        reason: String,
    },
    /// The reply would be larger than a frame. Read the siblings one by one or write with the context.
    #[error("the reply has {bytes} bytes, a frame holds {max}")]
    ReplyTooLarge {
        /// Bytes of the reply.
        bytes: u64,
        /// Bytes that a frame holds.
        max: u64,
    },
    /// The node is stopping. Nothing was written.
    #[error("the node is stopping: connect to another one or again in a moment")]
    Stopping,
    /// A token is configured and was not shown, or another one was.
    #[error("a token is required: pass the one that the node was configured with")]
    Unauthorized,
    /// The two sides speak no common version of the protocol.
    #[error("this node speaks protocol versions {min} to {max}")]
    Version {
        /// Lowest version that this node speaks.
        min: u16,
        /// Highest version that this node speaks.
        max: u16,
    },
    /// Too many connections. Try again later or on another node.
    #[error("too many connections: {open} are open, allowed are {max}")]
    Connections {
        /// Connections that are open.
        open: u32,
        /// Connections that are allowed.
        max: u32,
    },
    /// A failure that only a newer node knows; never made by this one. The hundreds of its code say what happened to
    /// the state (docs/PROTOCOL.md).
    #[error("{text} (code {code})")]
    Other {
        /// Which one.
        code: u16,
        /// What it counts.
        first: u64,
        /// What it counts it against.
        second: u64,
        /// What the node says.
        text: String,
    },
}

impl Failure {
    /// Whether a write that ended with it may have been done all the same: those whose codes are 200 and above
    /// (`wire::failure`).
    pub fn may_have_written(&self) -> bool {
        match self {
            Failure::QuorumNotMet { .. }
            | Failure::WritesStopped { .. }
            | Failure::Unreadable { .. }
            | Failure::ReplyTooLarge { .. } => true,
            Failure::Other { code, .. } => *code >= 200,
            _ => false,
        }
    }
}

impl Call {
    /// The keys that its requests are about.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        let requests = match self {
            Call::One(request) => std::slice::from_ref(request),
            Call::Many(requests) => requests,
            Call::Ping | Call::Info | Call::Ring { .. } => &[],
        };
        requests.iter().filter_map(Request::key)
    }
}

impl Request {
    /// The key that the request is about; a listing has none.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Request::Get(get) => Some(&get.key),
            Request::Put(put) => Some(&put.key),
            Request::Delete(delete) => Some(&delete.key),
            Request::Siblings(key) => Some(key),
            Request::Keys(_) => None,
        }
    }

    /// Quorum and time; the defaults where it names none.
    pub fn terms(&self) -> Terms {
        match self {
            Request::Get(get) => get.terms,
            Request::Put(put) => put.terms,
            Request::Delete(delete) => delete.terms,
            Request::Siblings(_) | Request::Keys(_) => Terms::default(),
        }
    }

    /// Its terms, to be changed, where it has any.
    pub fn terms_mut(&mut self) -> Option<&mut Terms> {
        match self {
            Request::Get(get) => Some(&mut get.terms),
            Request::Put(put) => Some(&mut put.terms),
            Request::Delete(delete) => Some(&mut delete.terms),
            Request::Siblings(_) | Request::Keys(_) => None,
        }
    }

    /// The name of a write, to be changed.
    pub fn operation_mut(&mut self) -> Option<&mut Option<OperationId>> {
        match self {
            Request::Put(put) => Some(&mut put.operation),
            Request::Delete(delete) => Some(&mut delete.operation),
            Request::Get(_) | Request::Siblings(_) | Request::Keys(_) => None,
        }
    }

    /// How long the request may take, from its arrival on.
    pub fn patience(&self) -> Duration {
        match self.terms().deadline_ms {
            0 => DEADLINE_DEFAULT,
            ms => Duration::from_millis(ms.into()).min(DEADLINE_MAX),
        }
    }

    /// Whether the request changes anything.
    pub fn is_write(&self) -> bool {
        matches!(self, Request::Put(_) | Request::Delete(_))
    }
}

impl RingMap {
    /// Whether the numbers fit each other: what is looked up by them is there.
    ///
    /// # Errors
    /// [`Unruly`]: the first that does not.
    pub fn check(&self) -> Result<(), Unruly> {
        let (nodes, copies) = (self.nodes.len(), usize::from(self.copies));
        if !(1..=NODES_MAX).contains(&nodes) {
            return Err(Unruly::Nodes { nodes });
        }
        if let Some(node) = self.nodes.iter().find(|node| node.cores.count == 0) {
            return Err(Unruly::Cores { node: node.node });
        }
        let owners = self.owners.as_ref().map_or(usize::from(self.partitions) * copies, Vec::len);
        let is_ring = self.partitions.is_power_of_two() && self.partitions <= PARTITIONS_MAX;
        if !is_ring || !(1..=nodes).contains(&copies) || owners != usize::from(self.partitions) * copies {
            return Err(Unruly::Owners { owners, copies });
        }
        let stray = self.owners.iter().flatten().position(|row| nodes <= usize::from(*row));
        match (&self.owners, stray) {
            (Some(owners), Some(at)) => {
                let partition = Partition(u16::try_from(at / copies).expect("a partition"));
                Err(Unruly::Row { partition, row: owners[at], rows: nodes })
            }
            _ => Ok(()),
        }
    }
}

impl Failure {
    /// No room for more right now.
    pub fn overloaded() -> Failure {
        Failure::Overloaded { retry_after_ms: u32::try_from(RETRY_AFTER.as_millis()).expect("a fraction of a second") }
    }
}

/// Digest of what a write says, by which a retry is told from another operation under the same id.
pub fn digest(value: Option<&Value>, causality: &Causality) -> u64 {
    let (mode, token): (u8, &[u8]) = match causality {
        Causality::Blind => (0, &[]),
        Causality::Sibling => (1, &[]),
        Causality::Context(token) => (2, token),
    };
    let kind = [mode, u8::from(value.is_some())];
    let parts = [seahash::hash(&kind), seahash::hash(token), seahash::hash(value.map_or(&[], Value::as_bytes))];
    seahash::hash(&parts.map(u64::to_le_bytes).concat())
}

/// The operation of a write, if the client named it.
pub fn operation(id: Option<OperationId>, value: Option<&Value>, causality: &Causality) -> Option<Box<Operation>> {
    id.map(|id| Box::new(Operation { id, digest: digest(value, causality) }))
}

/// Names of nodes by the actors they drew, as far as one node knows.
pub type Directory = std::collections::BTreeMap<ActorId, String>;

/// A key with its partition: the order of the store and of listings.
pub type Place = (Partition, Key);
