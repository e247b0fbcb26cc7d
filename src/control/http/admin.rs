//! What operators and their machines ask: health, information, metrics, a snapshot.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;

use super::budget::Held;
use super::refusal::Refusal;
use super::request::RAW;
use super::{Api, reply};
use crate::runtime::heartbeat::Ailment;

#[derive(Serialize)]
struct Health {
    status: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    name: &'a str,
    version: &'a str,
    cluster: String,
    listen: String,
    cores: u16,
    partitions: u16,
    /// In hexadecimal digits: JSON's numbers end at 2^53.
    salt: String,
    uptime_ms: u64,
}

pub(super) async fn live(State(api): State<Arc<Api>>) -> Response {
    health(api.node.hearts.live())
}

pub(super) async fn ready(State(api): State<Arc<Api>>) -> Response {
    health(api.node.hearts.ready())
}

fn health(health: Result<(), Ailment>) -> Response {
    match health {
        Ok(()) => reply::json(StatusCode::OK, &Health { status: "ok".to_owned() }),
        Err(ailment) => reply::json(StatusCode::SERVICE_UNAVAILABLE, &Health { status: ailment.to_string() }),
    }
}

pub(super) async fn info(State(api): State<Arc<Api>>) -> Response {
    let node = &api.node;
    let info = Info {
        name: &node.name,
        version: env!("CARGO_PKG_VERSION"),
        cluster: node.cluster.to_string(),
        listen: node.listen.to_string(),
        cores: node.cores.count,
        partitions: node.ring.partitions(),
        salt: format!("{:016x}", node.cores.salt),
        uptime_ms: node.hearts.uptime_ms(),
    };
    reply::json(StatusCode::OK, &info)
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let node = &api.node;
    let mut response = Response::new(Body::from(node.metrics.render(node.hearts.uptime_ms())));
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

/// Everything that is durable when the request comes in stands in the snapshot; writes go on meanwhile. A snapshot that
/// breaks off ends the connection without the stream's end, and its own last bytes are missing too.
pub(super) async fn snapshot(State(api): State<Arc<Api>>) -> Result<Response, Refusal> {
    let permit = Arc::clone(&api.snapshots).try_acquire_owned().map_err(|_| Refusal::Busy)?;
    api.node.door.checkpoint().await?;
    let bytes = (api.node.snapshots)();
    let mut response = Response::new(Body::new(Held::new(Body::from_stream(bytes.into_stream()), permit)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(RAW));
    Ok(response)
}
