//! The closed list of what may come into a shard and go out of it.
//!
//! Every effect that ends comes back as an input, also when it fails; each variant says which.

use std::sync::Arc;

use super::causality::{Siblings, Update};
use super::message::{Outcome, Page, Request};
use super::replica::Remembered;
use super::types::{ActorId, AppendId, Instant, Key, LoadId, OperationId, RequestId};

/// What may come in.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client asks. Answered by exactly one [`Effect::Reply`], before `deadline` and a little.
    Request {
        /// Whom to answer.
        id: RequestId,
        /// What is asked.
        request: Request,
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
    /// Time has gone by: ends requests whose deadline is over, forgets operations that are old.
    Tick,
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
    /// Forget an operation in the store too; nothing comes back. Lost with a crash, it is forgotten again.
    Forget {
        /// The key it was for.
        key: Key,
        /// Its name.
        operation: OperationId,
    },
    /// Answer a request. Nothing comes back.
    Reply {
        /// Whom to answer.
        id: RequestId,
        /// What it got.
        outcome: Outcome,
    },
}

/// One record for the log, with the state that it leads to.
#[derive(Clone, Debug)]
pub struct Append {
    /// Its place in the order of this core's appends, and its sequence number in the log.
    pub id: AppendId,
    /// The key.
    pub key: Key,
    /// What came in: this is what the log keeps.
    pub update: Arc<Update>,
    /// The whole set after it: this is what readers see once it is durable.
    pub state: Arc<Siblings>,
    /// What to remember of the operation, if it has a name; kept in the log and in the store.
    pub remember: Option<Remembered>,
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

/// What is stored under a key could not be read. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unreadable {
    /// What the store says, with the file.
    pub reason: String,
}

/// Where a shard puts its effects, in order.
pub type Effects = Vec<Effect>;
