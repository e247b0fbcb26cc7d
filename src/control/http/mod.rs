//! The HTTP API (docs/HTTP.md): the seed's, field for field, and beside it contexts, raw values, quorums and
//! deadlines by request.
//!
//! A request runs through [`server`] (connections and their time-outs), the guard, one handler of `kv` or `admin`,
//! and the door. Every failure becomes a `refusal::Refusal`: a status and `{"error": ..}` with a message that helps.

pub mod server;
pub mod ask;
mod request;
mod kv;
mod admin;
mod numbers;
mod cluster;
mod orders;
mod transfers;
mod openapi;
mod reply;
mod refusal;
mod budget;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use tokio::sync::Semaphore;

use self::budget::Budget;
use self::refusal::Refusal;
use super::node::Node;
use crate::protocol::message::Failure;

/// Memory for request bodies under way; beyond it they wait their turn.
const BODIES_BYTES_MAX: usize = 64 << 20;

/// Memory for replies on their way out to slow readers; beyond it they wait their turn.
const REPLIES_BYTES_MAX: usize = 128 << 20;

/// Paths that tell one bit each, and are open to probes that have no token.
const OPEN_PATHS: [&str; 3] = ["/admin/health", "/health/live", "/health/ready"];

/// The API with its bounds.
struct Api {
    node: Node,
    bodies: Budget,
    replies: Budget,
    /// A snapshot or a hash tree reads the whole store: one at a time.
    whole_reads: Arc<Semaphore>,
}

/// All that can be asked over HTTP.
pub fn router(node: Node) -> Router {
    let api = Arc::new(Api {
        node,
        bodies: Budget::new(BODIES_BYTES_MAX),
        replies: Budget::new(REPLIES_BYTES_MAX),
        whole_reads: Arc::new(Semaphore::new(1)),
    });
    let routed = routes().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
    routed
        .fallback(async || Refusal::NotFound)
        .method_not_allowed_fallback(async || Refusal::Method)
        .layer(from_fn_with_state(Arc::clone(&api), guarded))
        .with_state(api)
}

/// Every path. A key is all that stands behind its prefix, and where nothing stands there the key is refused.
fn routes() -> Vec<(&'static str, MethodRouter<Arc<Api>>)> {
    let key = get(kv::get).put(kv::put).delete(kv::delete);
    let siblings = get(kv::siblings);
    let ring = get(cluster::ring);
    vec![
        ("/kv/", key.clone()),
        ("/kv/{*key}", key),
        ("/debug/siblings/", siblings.clone()),
        ("/debug/siblings/{*key}", siblings),
        ("/health/live", get(admin::live)),
        ("/health/ready", get(admin::ready)),
        ("/admin/health", get(admin::ready)),
        ("/admin/info", get(admin::info)),
        ("/admin/cluster", get(cluster::cluster)),
        ("/admin/node", get(numbers::numbers)),
        ("/admin/cluster/plan", get(orders::plan)),
        ("/admin/cluster/leave", post(orders::leave)),
        ("/admin/cluster/remove", post(orders::remove)),
        ("/admin/cluster/replace", post(orders::replace)),
        ("/admin/cluster/weight", post(orders::weight)),
        ("/admin/cluster/zone", post(orders::zone)),
        ("/admin/cluster/commit", post(orders::commit)),
        ("/admin/cluster/clear", post(orders::clear)),
        ("/admin/cluster/transfers", get(transfers::transfers)),
        ("/admin/ring/", ring.clone()),
        ("/admin/ring/{*key}", ring),
        ("/admin/snapshot", get(admin::snapshot)),
        ("/admin/anti-entropy/merkle-snapshot", get(admin::merkle_snapshot)),
        ("/admin/openapi.json", get(openapi::document)),
        ("/metrics", get(admin::metrics)),
    ]
}

/// Lets in who shows the token. Stands before everything else, so that a stranger learns nothing, not even which paths
/// there are.
async fn guarded(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let guard = &api.node.guard;
    if !guard.asks() || OPEN_PATHS.contains(&request.uri().path()) || guard.admits(bearer(&request)) {
        next.run(request).await
    } else {
        Refusal::from(Failure::Unauthorized).into_response()
    }
}

fn bearer(request: &Request) -> &[u8] {
    let shown = request.headers().get(AUTHORIZATION).map_or(&b""[..], |header| header.as_bytes());
    match shown.split_at_checked(b"Bearer ".len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => token,
        _ => b"",
    }
}
