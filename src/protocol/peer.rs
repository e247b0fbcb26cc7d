//! What the core of one node asks the core of the same partition on another, and what it is told.
//!
//! Every question ends: with what the peer says, or with [`Unheard`]. Sets travel whole, or as one version with what it
//! was minted upon; whoever has not seen that much asks for the set (DESIGN "Data and causality").

use std::sync::Arc;

use super::causality::{Operation, Siblings, Update};
use super::message::{Outcome, Request};
use super::replica::Remembered;
use super::ring::LayoutStamp;
use super::types::{Key, NodeId};

/// A question to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Keep this version, durably. Told [`Told::Stored`] or [`Told::Behind`].
    Store(Box<Store>),
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
    /// It was not done. Nothing was stored.
    Refused(Refused),
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
