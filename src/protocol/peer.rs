//! What the core of one node asks the core of the same partition on another, and what it is told.
//!
//! Every question ends: with what the peer says, or with [`Unheard`]. Sets travel whole, or as one version with what it
//! was minted upon; whoever has not seen that much asks for the set (DESIGN "Data and causality").

use std::sync::Arc;

use super::antientropy::LeafSet;
use super::causality::{Operation, Siblings, Update};
use super::message::{Outcome, Request};
use super::replica::Remembered;
use super::ring::{LayoutStamp, Partition, Ring};
use super::types::{Key, NodeId};

/// A question to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Keep this version, durably. Told [`Told::Stored`] or [`Told::Behind`].
    Store(Arc<Store>),
    /// Join this whole set with yours, durably. Told [`Told::Stored`].
    Merge(Merge),
    /// What do you hold of a key? Told [`Told::Set`] or [`Told::Same`].
    Fetch {
        /// The key.
        key: Key,
        /// [`Siblings::digest`] of what the asker holds: an equal set need not travel.
        known: Option<u64>,
    },
    /// What came of this operation, and what do you hold of its key? Told [`Told::Recalled`].
    Recall {
        /// The key.
        key: Key,
        /// The operation.
        operation: Operation,
    },
    /// Coordinate this request; it has made its one hop. Told [`Told::Outcome`].
    Forward(Box<Request>),
    /// Do you hold the same of these partitions, all of which your core serves? Told [`Told::Same`] or
    /// [`Told::Digests`] with the root of each.
    Compare(Compare),
    /// What are the branches of this partition's tree, or the leaves of one of them? Told [`Told::Digests`].
    Tree {
        /// The partition.
        partition: Partition,
        /// The branch whose leaves are wanted.
        branch: Option<u8>,
    },
    /// What do you hold in these leaves that I do not? Told [`Told::Page`].
    Pull(Box<Pull>),
    /// A step of a round in which the tombstones of a partition are forgotten. Told [`Told::Collected`].
    Collect(Box<Collect>),
}

/// To compare many partitions at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// They ascend; at least one.
    pub partitions: Arc<[Partition]>,
    /// [`digest_of_roots`](super::antientropy::digest_of_roots) of them.
    pub digest: u64,
}

/// One page of what the asker lacks of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// The partition.
    pub partition: Partition,
    /// The leaves that are wanted.
    pub leaves: LeafSet,
    /// Keys behind this one only.
    pub after: Option<Key>,
    /// Keys up to this one only.
    pub through: Option<Key>,
    /// Digests of what the asker holds there: these sets need not travel.
    pub known: Arc<[u64]>,
    /// Whether the sets that the asker lacks are wanted, or only which of those known are met.
    pub takes: bool,
}

/// To [`Ask::Pull`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Sets that the asker did not know of, by key.
    pub sets: Vec<Pulled>,
    /// Of each that was known, whether it was met between the page's first key and its last: the rest of what the asker
    /// holds there is lacking here.
    pub met: Vec<bool>,
    /// Where the page ends, if there may be more.
    pub next: Option<Key>,
}

/// One set that was pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The key.
    pub key: Key,
    /// The set.
    pub set: Arc<Siblings>,
    /// What its holder remembers of the operations that wrote its versions.
    pub remember: Vec<Remembered>,
}

/// One step of a round. Rounds of a partition are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collect {
    /// The partition.
    pub partition: Partition,
    /// The round.
    pub round: u32,
    /// The step.
    pub step: CollectStep,
}

/// What is asked in a round (docs/ARCHITECTURE.md, "How tombstones are forgotten").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CollectStep {
    /// To owners: which of these keys do you hold just so?
    Agree(Vec<(Key, u64)>),
    /// To all members: is nothing of this partition under way that began before you were first asked this?
    Drain,
    /// To all members, once all have drained: take nothing from before the round. Has nothing come since then, where
    /// you are no owner?
    Fence,
    /// To owners: show and repair these no more, of those that you agreed to.
    Retire(Vec<bool>),
    /// To owners: forget these, durably.
    Forget(Vec<bool>),
}

/// One version for a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// The key.
    pub key: Key,
    /// The version, what it was minted upon and what it replaces.
    pub update: Update,
    /// What to remember of the operation that wrote it.
    pub remember: Option<Box<Remembered>>,
    /// The owner that the receiver stands in for: it keeps a hint that counts.
    pub stands_for: Option<NodeId>,
}

/// A whole set for a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// The key.
    pub key: Key,
    /// The set.
    pub set: Arc<Siblings>,
    /// What the sender remembers of the operations that wrote its versions.
    pub remember: Vec<Remembered>,
    /// The owner that the receiver stands in for: it keeps a hint that counts.
    pub stands_for: Option<NodeId>,
}

/// What a peer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is durable.
    Stored,
    /// The version was minted upon more than this replica has seen: it needs the whole set. Nothing was stored.
    Behind,
    /// What the replica holds has the digest that the question named.
    Same,
    /// What the replica holds; `None` when it has never heard of the key.
    Set(Option<Arc<Siblings>>),
    /// To [`Ask::Recall`].
    Recalled(Box<Recalled>),
    /// To [`Ask::Forward`].
    Outcome(Box<Outcome>),
    /// Digests of trees.
    Digests(Vec<u64>),
    /// To [`Ask::Pull`].
    Page(Box<Page>),
    /// To [`Ask::Collect`]: of each key of [`CollectStep::Agree`] whether it is so; of any other step one: whether it
    /// is done.
    Collected(Vec<bool>),
    /// It was not done. Nothing was stored.
    Refused(Refused),
}

impl Ask {
    /// Whether it brings something to be kept.
    pub fn is_write(&self) -> bool {
        match self {
            Ask::Store(_) | Ask::Merge(_) => true,
            Ask::Fetch { .. } | Ask::Recall { .. } => false,
            Ask::Compare(_) | Ask::Tree { .. } | Ask::Pull(_) | Ask::Collect(_) => false,
            Ask::Forward(request) => request.is_write(),
        }
    }

    /// The key that it is about, where it is about one.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Ask::Store(store) => Some(&store.key),
            Ask::Merge(merge) => Some(&merge.key),
            Ask::Fetch { key, .. } | Ask::Recall { key, .. } => Some(key),
            Ask::Forward(request) => request.key(),
            Ask::Compare(_) | Ask::Tree { .. } | Ask::Pull(_) | Ask::Collect(_) => None,
        }
    }

    /// The partition that it is about: of several, one. None for a request that names no key.
    pub fn partition(&self, ring: Ring) -> Option<Partition> {
        match self {
            Ask::Compare(compare) => compare.partitions.first().copied(),
            Ask::Tree { partition, .. } => Some(*partition),
            Ask::Pull(pull) => Some(pull.partition),
            Ask::Collect(collect) => Some(collect.partition),
            _ => self.key().map(|key| ring.partition(key)),
        }
    }
}

/// What a replica knows of an operation, and of the key that it was on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// What came of it.
    pub known: Known,
    /// What the replica holds of the key.
    pub set: Option<Arc<Siblings>>,
}

/// What is known of an operation id on a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    Unknown,
    /// It was minted, and is durable here.
    Minted(Box<Remembered>),
    /// The id was used for another operation.
    Reused,
}

/// Why a peer did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It knows a newer layout than the asker: compare layouts, then ask again under the newer one.
    Layout(LayoutStamp),
    /// It has heard of a later round of the partition's tombstones than the asker: what the asker says is from before.
    Round(u32),
    /// It has lost what it held, or never had it: it is not read from.
    Hollow,
    /// No room for more right now.
    Overloaded,
    /// Its disk is full.
    DiskFull,
    /// Its log has failed: the core has stopped writing for good.
    WritesStopped,
    /// It keeps as many hints as it may.
    HintsFull,
    /// What it holds could not be read.
    Unreadable,
    /// It is stopping.
    Stopping,
    /// Its time was over before it was done. It may be done all the same.
    TooLate,
}

/// Why nothing was heard from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// There is no connection: the peer has not been asked. Once there is one, [`Input::Linked`] tells.
    ///
    /// [`Input::Linked`]: super::io::Input::Linked
    NotSent,
    /// There is a connection, and no room on it, or the peer did not understand: nothing was done.
    NotTaken,
    /// The connection was lost: the peer may have done it.
    Lost,
}
