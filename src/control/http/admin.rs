//! What operators and their machines ask: health, information, metrics, a snapshot.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::Response;
use base64::Engine as _;
use serde::Serialize;

use super::budget::Held;
use super::refusal::Refusal;
use super::request::{BASE64, RAW, token_range};
use super::{Api, reply};
use crate::protocol::antientropy::{Digest, Leaf, Tree};
use crate::protocol::message::Failure;
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

/// The seed's names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Merkle {
    root_hash_base64: String,
    leaf_count: usize,
    digests: Vec<MerkleLeaf>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MerkleLeaf {
    token: i64,
    digest_base64: String,
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
    let permit = Arc::clone(&api.whole_reads).try_acquire_owned().map_err(|_| Refusal::Busy)?;
    api.node.door.checkpoint().await?;
    let bytes = (api.node.snapshots)();
    let mut response = Response::new(Body::new(Held::new(Body::from_stream(bytes.into_stream()), permit)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(RAW));
    Ok(response)
}

/// The hash tree of a range of tokens, over everything that is durable when the request comes in: equal contents give
/// equal roots on every replica.
pub(super) async fn merkle_snapshot(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, Refusal> {
    let range = token_range(&uri)?;
    let _permit = Arc::clone(&api.whole_reads).try_acquire_owned().map_err(|_| Refusal::Busy)?;
    api.node.door.checkpoint().await?;
    let made = (api.node.trees)(range).into_recv_async().await;
    let unreadable = |reason| Failure::Unreadable { reason };
    let tree = made.map_err(|_| unreadable("the thread that reads has ended".to_owned()))?.map_err(unreadable)?;
    Ok(reply::json(StatusCode::OK, &Merkle::of(&tree)))
}

impl Merkle {
    fn of(tree: &Tree) -> Merkle {
        let base64 = |digest: Digest| BASE64.encode(digest.0.to_be_bytes());
        let leaf = |leaf: Leaf| MerkleLeaf { token: leaf.token, digest_base64: base64(leaf.digest) };
        Merkle {
            root_hash_base64: base64(tree.root()),
            leaf_count: tree.leaf_count(),
            digests: tree.leaves().map(leaf).collect(),
        }
    }
}
