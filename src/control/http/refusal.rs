//! How a request is refused: a status, and `{"error": message}` with the numbers beside it.

use axum::Json;
use axum::http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value as Json_, json};

use crate::protocol::membership::OrderRefused;
use crate::protocol::message::Failure;

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// There is no such path.
    #[error("not found")]
    NotFound,
    /// There is, and not for this method; `Allow` names those that there are.
    #[error("the method is not allowed here: see the Allow header")]
    Method,
    /// The body is larger than it may be.
    #[error("the body has more than {max} bytes: a value may have 10 MiB")]
    TooLarge {
        /// The bound.
        max: usize,
    },
    /// The body did not come.
    #[error("the body did not come within {seconds} s")]
    TooSlow {
        /// The bound.
        seconds: u64,
    },
    /// A snapshot or a hash tree is under way.
    #[error("the whole store is being read already, for a snapshot or a hash tree: one is taken at a time")]
    Busy,
    /// No node has this name.
    #[error("no node is called \"{name}\": `sloop cluster status` names them")]
    NoSuchNode {
        /// The name.
        name: String,
    },
    /// What operators order cannot be done.
    #[error(transparent)]
    Ordered(#[from] OrderRefused),
    /// Nobody takes orders any more.
    #[error("the node is stopping")]
    Stopping,
    /// The membership has not begun.
    #[error("the node is starting: it does not know its cluster yet")]
    Starting,
    /// What the cores say.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Refusal {
    pub(super) fn malformed(reason: impl Into<String>) -> Refusal {
        Refusal::Failed(Failure::Malformed { reason: reason.into() })
    }

    fn status(&self) -> StatusCode {
        match self {
            Refusal::NotFound | Refusal::NoSuchNode { .. } | Refusal::Ordered(OrderRefused::NoSuchNode) => {
                StatusCode::NOT_FOUND
            }
            Refusal::Ordered(OrderRefused::Invalid { .. }) => StatusCode::BAD_REQUEST,
            Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Refusal::Busy | Refusal::Ordered(_) => StatusCode::CONFLICT,
            Refusal::Starting | Refusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Failed(failure) => status(failure),
        }
    }

    fn numbers(&self) -> Map<String, Json_> {
        let numbers = match self {
            Refusal::Failed(Failure::QuorumNotMet { needed, got }) => json!({"needed": needed, "got": got}),
            Refusal::Failed(Failure::QuorumImpossible { asked, copies }) => json!({"asked": asked, "copies": copies}),
            Refusal::Failed(Failure::Overloaded { retry_after_ms }) => json!({"retryAfterMs": retry_after_ms}),
            _ => json!({}),
        };
        match numbers {
            Json_::Object(numbers) => numbers,
            _ => unreachable!("an object was written above"),
        }
    }

    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Refusal::Failed(Failure::Unauthorized) => Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Refusal::Failed(Failure::Overloaded { retry_after_ms }) => {
                Some((RETRY_AFTER, HeaderValue::from(retry_after_ms.div_ceil(1_000))))
            }
            _ => None,
        }
    }
}

/// 400: as it is, it can never be done. 409: it could, had the key another state. 500 and 507: this node. 503: not now.
fn status(failure: &Failure) -> StatusCode {
    match failure {
        Failure::Length(length) if length.what == "value" => StatusCode::PAYLOAD_TOO_LARGE,
        Failure::Malformed { .. }
        | Failure::Length(_)
        | Failure::Context(_)
        | Failure::QuorumImpossible { .. }
        | Failure::Version { .. } => StatusCode::BAD_REQUEST,
        Failure::Unauthorized => StatusCode::UNAUTHORIZED,
        Failure::SetLimit(_) | Failure::OperationReused => StatusCode::CONFLICT,
        Failure::Unreadable { .. } | Failure::ReplyTooLarge { .. } | Failure::Other { .. } => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        Failure::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        Failure::QuorumNotMet { .. }
        | Failure::Overloaded { .. }
        | Failure::WritesStopped { .. }
        | Failure::Stopping
        | Failure::Connections { .. } => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = self.numbers();
        body.insert("error".to_owned(), self.to_string().into());
        let mut response = (self.status(), Json(body)).into_response();
        response.headers_mut().extend(self.header());
        response
    }
}
