//! What can go wrong, and what then happened to the state.

use std::fmt::Debug;
use std::time::Duration;

use crate::protocol::message::Failure;
use crate::protocol::types::LengthError;
use crate::wire::call::CallTooLarge;

/// Why an operation was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The node refused or could not; each [`Failure`] says what happened to the state. A key or value out of its
    /// bounds is refused in the same words before it is sent.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// No node could be reached, or the connection was lost. When `sent`, a write may have been done.
    #[error("{node}: {reason}")]
    Connection {
        /// The node, as the options name it.
        node: String,
        /// What went wrong.
        reason: String,
        /// Whether the request had been handed to the connection.
        sent: bool,
    },
    /// No answer came before the deadline. A write may have been done, or may still be done.
    #[error("no answer within {} ms", .waited.as_millis())]
    Deadline {
        /// The time that the operation had.
        waited: Duration,
    },
    /// The batch or context is larger than a frame. Nothing was sent.
    #[error(transparent)]
    TooLarge(#[from] CallTooLarge),
    /// The node answered what was not asked. A write may have been done.
    #[error("the node answered {asked} with {answer}")]
    Unexpected {
        /// What was asked.
        asked: &'static str,
        /// The beginning of what it answered.
        answer: String,
    },
    /// The operating system gave no random bytes to name operations with. Nothing was sent.
    #[error("no random bytes for operation ids: {reason}")]
    Random {
        /// What the operating system says.
        reason: String,
    },
}

impl Error {
    /// Whether a write that ended with this error may have been done all the same. Otherwise it certainly was not.
    pub fn may_have_written(&self) -> bool {
        match self {
            Error::Failure(failure) => failure.may_have_written(),
            Error::Connection { sent, .. } => *sent,
            Error::Deadline { .. } | Error::Unexpected { .. } => true,
            Error::TooLarge(_) | Error::Random { .. } => false,
        }
    }

    /// The connection's task is gone: it was lost just now, or the runtime that it ran on has been shut down.
    pub(super) fn gone(sent: bool) -> Error {
        Error::Connection { node: "client".to_owned(), reason: "the connection is gone".to_owned(), sent }
    }

    pub(super) fn unexpected(asked: &'static str, answer: &impl Debug) -> Error {
        let mut answer = format!("{answer:?}");
        answer.truncate(answer.floor_char_boundary(80));
        Error::Unexpected { asked, answer }
    }
}

impl From<LengthError> for Error {
    fn from(error: LengthError) -> Error {
        Error::Failure(error.into())
    }
}
