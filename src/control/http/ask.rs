//! One request to a node, by another node or by the command line.

use std::fmt;
use std::io;
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{Method, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::timeout;

/// Most bytes of an answer: a cluster of 1,000 nodes takes a tenth of it.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200, or how it was refused.
    pub status: StatusCode,
    /// The whole body.
    pub body: Bytes,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("{0}")]
    Unreachable(#[from] io::Error),
    /// Whoever is there does not speak HTTP, or the connection broke.
    #[error("{0}")]
    Broken(#[from] hyper::Error),
    /// The path or the token cannot stand in a request.
    #[error("{0}")]
    Request(#[from] axum::http::Error),
    /// The answer is longer than any of ours, or broke off.
    #[error("the answer was not read whole: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Late(Duration),
}

/// Asks for a path, on a connection of its own.
///
/// # Errors
/// [`AskError`]; an answer that refuses is none.
pub async fn get(
    address: impl ToSocketAddrs + fmt::Display,
    path: &str,
    token: Option<&[u8]>,
    patience: Duration,
) -> Result<Answer, AskError> {
    send(Method::GET, address, path, (token, Bytes::new()), patience).await
}

/// Orders something in JSON, on a connection of its own.
///
/// # Errors
/// [`AskError`]; an answer that refuses is none.
pub async fn post(
    address: impl ToSocketAddrs + fmt::Display,
    path: &str,
    token: Option<&[u8]>,
    body: String,
    patience: Duration,
) -> Result<Answer, AskError> {
    send(Method::POST, address, path, (token, body.into()), patience).await
}

async fn send(
    method: Method,
    address: impl ToSocketAddrs + fmt::Display,
    path: &str,
    (token, body): (Option<&[u8]>, Bytes),
    patience: Duration,
) -> Result<Answer, AskError> {
    let mut request = Request::builder().method(method).uri(path).header(HOST, address.to_string());
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, [b"Bearer ", token].concat());
    }
    let request = request.body(Full::new(body))?;
    let asking = async {
        let socket = TcpStream::connect(address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        // Ends with the sender.
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(AskError::Body)?;
        Ok(Answer { status: head.status, body: body.to_bytes() })
    };
    timeout(patience, asking).await.map_err(|_late| AskError::Late(patience))?
}
