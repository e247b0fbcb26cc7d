//! The closed list of what may come into a shard and go out of it.
//!
//! Every effect that ends comes back as an input, also when it fails; each variant says which.

use std::sync::Arc;

use super::antientropy::{LeafSet, Shift, Sum};
use super::causality::{Siblings, Supersedes, UpdateRef, VersionVector};
use super::message::{Failure, Outcome, Page, Request};
use super::peer::{Ask, Told, Unheard};
use super::replica::Remembered;
use super::ring::{LayoutStamp, Partition, Step, View};
use super::types::{
    ActorId, AppendId, AskId, Dot, Instant, Key, LoadId, NodeId, OperationId, RequestId, ScanId, SurveyId, TicketId,
    WallTime,
};

/// What may come in.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client asks. Answered by exactly one [`Effect::Reply`], before `deadline` and a little.
    Request {
        /// Whom to answer.
        id: RequestId,
        /// What is asked.
        request: Request,
        /// What is held of its key.
        held: Held,
        /// When it must have ended.
        deadline: Instant,
    },
    /// A client asks for a write, and this core's disk takes none: another owner may do it. Answered as a request is.
    Elsewhere {
        /// Whom to answer.
        id: RequestId,
        /// What is asked.
        request: Request,
        /// What to answer where nobody else can do it.
        failure: Failure,
        /// When it must have ended.
        deadline: Instant,
    },
    /// Ends [`Effect::Load`].
    Loaded {
        /// Which load.
        load: LoadId,
        /// The newest *durable* state of the key; `None` when it was never written.
        found: Result<Option<Arc<Siblings>>, Unreadable>,
    },
    /// Ends every [`Effect::Append`] up to and with this one: they are durable.
    Appended {
        /// The last one.
        through: AppendId,
    },
    /// Ends every [`Effect::Append`] that is under way: the log failed, and it will not be written again.
    AppendsFailed {
        /// Whatever the actor until now has sent may be on disk or not, so it mints no more.
        actor: ActorId,
    },
    /// Ends [`Effect::List`].
    Listed {
        /// Whom to answer.
        id: RequestId,
        /// One page of this core's keys.
        page: Result<Page, Unreadable>,
    },
    /// Ends [`Effect::Survey`].
    Surveyed {
        /// Which survey.
        survey: SurveyId,
        /// What the trees say.
        found: Surveyed,
    },
    /// Ends [`Effect::Scan`].
    Scanned {
        /// Which scan.
        scan: ScanId,
        /// What was found.
        page: Result<ScanPage, Unreadable>,
    },
    /// A peer asks. Answered by exactly one [`Effect::Tell`], before `deadline` and a little.
    Asked {
        /// Whom to tell.
        ticket: TicketId,
        /// Where the asker stands.
        stand: Standing,
        /// What is asked.
        ask: Ask,
        /// What is held of its key.
        held: Held,
        /// When it must have ended.
        deadline: Instant,
    },
    /// Ends [`Effect::Ask`].
    Told {
        /// Which question.
        ask: AskId,
        /// What the peer says.
        told: Result<Told, Unheard>,
    },
    /// The cluster is seen otherwise than before.
    View(Arc<View>),
    /// There is a connection to this peer again, after one was lost or there was none.
    Linked(NodeId),
    /// Time has gone by: ends requests whose deadline is over, forgets operations that are old.
    Tick,
}

/// What the memory of a core holds of a key when a request for it comes in.
#[derive(Clone, Debug, Default)]
pub enum Held {
    /// Nothing: it must be loaded.
    #[default]
    Unknown,
    /// Its newest durable state; `None` when it was never written.
    Known(Option<Arc<Siblings>>),
}

/// What may go out.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Read the newest durable state of a key. Ended by [`Input::Loaded`].
    Load {
        /// Which load.
        load: LoadId,
        /// The key.
        key: Key,
    },
    /// Write to the log, in this order. Ended by [`Input::Appended`] or [`Input::AppendsFailed`]; durable and visible
    /// to loads from then on.
    Append(Append),
    /// List keys of this core that hold a value. Ended by [`Input::Listed`].
    List {
        /// Whom to answer.
        id: RequestId,
        /// What is asked.
        keys: super::message::Keys,
    },
    /// Look at the trees of what is durable. Ended by [`Input::Surveyed`], at once.
    Survey {
        /// Which survey.
        survey: SurveyId,
        /// What to look at.
        of: Survey,
    },
    /// Go over the durable sets of a partition, by key. Ended by [`Input::Scanned`].
    Scan {
        /// Which scan.
        scan: ScanId,
        /// What to look for.
        of: Scan,
    },
    /// This core has reached a step of a change: nothing begun before it is unfinished. Told again now and then until
    /// a view comes that goes on. Nothing comes back.
    Reached {
        /// The pending layout.
        stamp: LayoutStamp,
        /// Which step.
        step: Step,
    },
    /// Forget an operation in the store too; nothing comes back. Lost with a crash, it is forgotten again.
    Forget {
        /// The key it was for.
        key: Key,
        /// Its name.
        operation: OperationId,
    },
    /// Ask a peer's core of this partition. Ended by [`Input::Told`]; one that this shard gave up meanwhile too.
    Ask {
        /// The peer.
        to: NodeId,
        /// The partition that it is about.
        partition: Partition,
        /// Which question.
        id: AskId,
        /// Where this shard stands.
        stand: Standing,
        /// The question.
        ask: Ask,
        /// When the answer is of no use any more.
        deadline: Instant,
    },
    /// Tell a peer what it asked. Nothing comes back.
    Tell {
        /// Whom.
        ticket: TicketId,
        /// What.
        told: Told,
    },
    /// A peer goes by another layout: compare with it. A newer one comes as [`Input::View`].
    Compare(LayoutStamp),
    /// Answer a request. Nothing comes back.
    Reply {
        /// Whom to answer.
        id: RequestId,
        /// What it got.
        outcome: Outcome,
    },
}

/// One record for the log, with what it leads to.
#[derive(Clone, Debug)]
pub struct Append {
    /// Its place in the order of this core's appends, and its sequence number in the log.
    pub id: AppendId,
    /// The key.
    pub key: Key,
    /// What happens to it.
    pub change: Change,
}

/// What an append does.
#[derive(Clone, Debug)]
pub enum Change {
    /// One version came in.
    Version(Arrived),
    /// A whole set came in.
    Set {
        /// The whole set after it: this is what readers see once it is durable.
        state: Arc<Siblings>,
        /// What came in: this is what the log keeps.
        came: Arc<Siblings>,
        /// What to remember of the operations that came with it; kept in the log and in the store.
        remember: Vec<Remembered>,
        /// What that does to the partition's tree.
        shift: Shift,
    },
    /// The key's set is gone: owners have it, or no one needs it any more.
    Drop {
        /// What that does to the partition's tree.
        shift: Shift,
    },
    /// The key's set is owed to an absent node.
    Hint(Hint),
    /// The key's set is owed to that node no longer.
    Delivered {
        /// The node.
        target: NodeId,
    },
}

/// A version that came in.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// The whole set after it: this is what readers see once it is durable.
    pub state: Arc<Siblings>,
    /// Which version of `state` came in.
    pub dot: Dot,
    /// What that version was minted upon.
    pub upon: VersionVector,
    /// What it replaces, among what it was minted upon.
    pub supersedes: Supersedes,
    /// What to remember of the operation, if it has a name; kept in the log and in the store.
    pub remember: Option<Box<Remembered>>,
    /// What that does to the partition's tree.
    pub shift: Shift,
}

/// Where whoever asks stands: a replica that has gone on refuses, and says where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Standing {
    /// The newest layout that it goes by.
    pub layout: LayoutStamp,
    /// Whether its reads go by that one too: not before the last step of the change to it.
    pub reads: bool,
    /// The last round of the partition's tombstones that it has drained for, from 1; 0 for none.
    pub round: u32,
}

/// What to look at in the trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Survey {
    /// The sums of these partitions.
    Sums(Arc<[Partition]>),
    /// The branches of a partition's tree.
    Branches(Partition),
    /// The leaves of one branch.
    Leaves(Partition, u8),
}

/// What the trees say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Surveyed {
    /// To [`Survey::Sums`], in its order.
    Sums(Vec<Sum>),
    /// To [`Survey::Branches`] and [`Survey::Leaves`]: [`BRANCHES`](super::antientropy::BRANCHES) of them.
    Digests(Vec<u64>),
}

/// What to look for in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The partition.
    pub partition: Partition,
    /// The leaves whose keys are wanted.
    pub leaves: LeafSet,
    /// Keys behind this one only.
    pub after: Option<Key>,
    /// What is wanted of them.
    pub want: ScanWant,
}

/// What is wanted of the keys of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScanWant {
    /// Their digests; at most so many.
    Names {
        /// The bound.
        max: usize,
    },
    /// The sets whose digests ([`digest`](super::antientropy::digest)) are not among those known, and which of these
    /// were met. The page ends with the set by which it holds so many bytes.
    Sets {
        /// What need not be told, in the order in which it is to be answered.
        known: Arc<[u64]>,
        /// The bound.
        bytes_max: usize,
    },
}

/// One page of a scan, in the order of keys.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ScanPage {
    /// To [`ScanWant::Names`].
    pub names: Vec<Name>,
    /// To [`ScanWant::Sets`].
    pub sets: Vec<(Key, Arc<Siblings>)>,
    /// To [`ScanWant::Sets`]: which of those known were met on this page.
    pub met: Vec<bool>,
    /// The last key that was looked at, where there may be more behind it.
    pub next: Option<Key>,
}

/// A key, and the digest of its set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The key.
    pub key: Key,
    /// [`digest`](super::antientropy::digest) of key and set.
    pub digest: u64,
    /// Where the set holds nothing but tombstones: when the newest of them was written.
    pub buried_at: Option<WallTime>,
}

/// To whom a key's set is owed. A key has one hint for each node at most; the newest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hint {
    /// The node.
    pub target: NodeId,
    /// The hint counted towards a quorum: it is data.
    pub counted: bool,
}

impl Change {
    /// What it does to the tree of the key's partition, if it does anything to its set.
    pub fn shift(&self) -> Option<Shift> {
        match self {
            Change::Version(Arrived { shift, .. }) | Change::Set { shift, .. } | Change::Drop { shift } => Some(*shift),
            Change::Hint(_) | Change::Delivered { .. } => None,
        }
    }
}

impl Append {
    /// What readers see of the key once this is durable, if it changes that.
    pub fn state(&self) -> Option<&Arc<Siblings>> {
        match &self.change {
            Change::Version(arrived) => Some(&arrived.state),
            Change::Set { state, .. } => Some(state),
            Change::Drop { .. } | Change::Hint(_) | Change::Delivered { .. } => None,
        }
    }
}

impl Arrived {
    /// What came in: this is what the log keeps.
    pub fn update(&self) -> UpdateRef<'_> {
        let version = self.state.version(self.dot).expect("the state after an append holds what came in");
        UpdateRef { version, upon: &self.upon, supersedes: &self.supersedes }
    }
}

/// What is stored under a key could not be read. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unreadable {
    /// What the store says, with the file.
    pub reason: String,
}

/// Where a shard puts its effects, in order.
pub type Effects = Vec<Effect>;
