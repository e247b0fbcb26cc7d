//! What a request is told, in JSON or raw.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use serde::Serialize;

use super::budget::{Budget, Held};
use super::refusal::Refusal;
use super::request::{BASE64, CONTEXT, RAW};
use crate::control::node::Node;
use crate::protocol::causality::Context;
use crate::protocol::message::{Copies, Directory, Failure, Found, Level, Sibling, Written};
use crate::protocol::types::{ActorId, Key};

/// How many values there are, beside a raw one.
const SIBLINGS: &str = "x-sloop-siblings";

/// How the request was served, where the body has no room for it.
const LEVEL: &str = "x-sloop-level";

/// A context larger than this stands in JSON bodies only: clients and proxies bound a header's length.
const CONTEXT_HEADER_BYTES_MAX: usize = 16 * 1_024;

/// Replies below this are not worth a wait for memory: connections are bounded.
const REPLY_BYTES_FREE: usize = 64 * 1_024;

/// Counters by the names of nodes, as the seed showed its clocks.
type VectorClock = BTreeMap<String, u64>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FoundJson<'a> {
    found: bool,
    value_base64: &'a str,
    vector_clock: VectorClock,
    context: &'a str,
    siblings: Vec<SiblingJson>,
    level: LevelJson,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SiblingJson {
    value_base64: String,
    lww_millis: u64,
    dot: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenJson<'a> {
    ok: bool,
    tombstone: bool,
    lww_millis: u64,
    vector_clock: VectorClock,
    context: &'a str,
    dot: String,
    superseded: Vec<String>,
    remembered: bool,
    level: LevelJson,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CopiesJson<'a> {
    key: Cow<'a, str>,
    key_base64: String,
    siblings: Vec<CopyJson>,
    context: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CopyJson {
    tombstone: bool,
    lww_millis: u64,
    value_base64: Option<String>,
    vector_clock: VectorClock,
    dot: String,
    op_id: Option<String>,
}

#[derive(Serialize)]
struct LevelJson {
    n: u8,
    quorum: u8,
    owners: u8,
    fallbacks: u8,
    hedged: bool,
}

impl From<Level> for LevelJson {
    fn from(level: Level) -> LevelJson {
        let Level { n, quorum, owners, fallbacks, hedged } = level;
        LevelJson { n, quorum, owners, fallbacks, hedged }
    }
}

/// To a GET in JSON: the last value written stands where the seed's one value stood, all of them beside it.
pub(super) async fn found(node: &Node, key: &Key, found: &Found, budget: &Budget) -> Result<Response, Refusal> {
    let context = BASE64.encode(&found.context);
    let Some(latest) = latest(&found.siblings) else {
        return absent(found);
    };
    let taken = take(budget, 2 * found.siblings.iter().map(|sibling| sibling.value.len()).sum::<usize>()).await?;
    let body = FoundJson {
        found: true,
        value_base64: &BASE64.encode(latest.value.as_bytes()),
        vector_clock: vector_clock(node, key, &found.context)?,
        context: &context,
        siblings: found.siblings.iter().map(sibling).collect(),
        level: found.level.into(),
    };
    let mut response = json(StatusCode::OK, &body).map(|body| Body::new(Held::new(body, taken)));
    told(response.headers_mut(), &found.context, found.level);
    Ok(response)
}

/// To a GET that wants raw bytes: the last value written.
pub(super) async fn found_raw(found: &Found, budget: &Budget) -> Result<Response, Refusal> {
    let Some(latest) = latest(&found.siblings) else {
        return absent(found);
    };
    let taken = take(budget, latest.value.len()).await?;
    let mut response = Response::new(Body::new(Held::new(latest.value.bytes().clone(), taken)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(RAW));
    headers.insert(SIBLINGS, found.siblings.len().into());
    told(headers, &found.context, found.level);
    Ok(response)
}

/// To a PUT or DELETE.
pub(super) fn written(node: &Node, key: &Key, tombstone: bool, written: &Written) -> Result<Response, Refusal> {
    let body = WrittenJson {
        ok: true,
        tombstone,
        lww_millis: written.written_at.0,
        vector_clock: vector_clock(node, key, &written.context)?,
        context: &BASE64.encode(&written.context),
        dot: written.dot.to_string(),
        superseded: written.superseded.iter().map(ToString::to_string).collect(),
        remembered: written.remembered,
        level: written.level.into(),
    };
    let mut response = json(StatusCode::OK, &body);
    told(response.headers_mut(), &written.context, written.level);
    Ok(response)
}

/// To a siblings request. A key that is not text is shown with replacement characters, and exactly beside it.
pub(super) async fn siblings(key: &Key, copies: &Copies, budget: &Budget) -> Result<Response, Refusal> {
    let bytes = copies.copies.iter().filter_map(|copy| Some(copy.value.as_ref()?.len())).sum::<usize>();
    let taken = take(budget, 2 * bytes).await?;
    let shown = |copy: &crate::protocol::message::Copy| CopyJson {
        tombstone: copy.value.is_none(),
        lww_millis: copy.written_at.0,
        value_base64: copy.value.as_ref().map(|value| BASE64.encode(value.as_bytes())),
        vector_clock: VectorClock::from([(copy.node.clone(), copy.dot.counter)]),
        dot: copy.dot.to_string(),
        op_id: copy.operation.as_ref().map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned()),
    };
    let body = CopiesJson {
        key: String::from_utf8_lossy(key.as_bytes()),
        key_base64: BASE64.encode(key.as_bytes()),
        siblings: copies.copies.iter().map(shown).collect(),
        context: &BASE64.encode(&copies.context),
    };
    Ok(json(StatusCode::OK, &body).map(|body| Body::new(Held::new(body, taken))))
}

/// Any JSON.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let text = serde_json::to_vec(body).expect("names are text and numbers are finite");
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The seed's body to the letter; what else there is to know stands in headers.
fn absent(found: &Found) -> Result<Response, Refusal> {
    let mut response = json(StatusCode::NOT_FOUND, &BTreeMap::from([("found", false)]));
    told(response.headers_mut(), &found.context, found.level);
    Ok(response)
}

fn told(headers: &mut HeaderMap, context: &[u8], level: Level) {
    let text = BASE64.encode(context);
    if text.len() <= CONTEXT_HEADER_BYTES_MAX {
        headers.insert(CONTEXT, text.try_into().expect("base64 is visible ASCII"));
    }
    let Level { n, quorum, owners, fallbacks, hedged } = level;
    let text = format!("n={n}, quorum={quorum}, owners={owners}, fallbacks={fallbacks}, hedged={hedged}");
    headers.insert(LEVEL, text.try_into().expect("numbers are visible ASCII"));
}

fn sibling(sibling: &Sibling) -> SiblingJson {
    SiblingJson {
        value_base64: BASE64.encode(sibling.value.as_bytes()),
        lww_millis: sibling.written_at.0,
        dot: sibling.dot.to_string(),
    }
}

/// The last one written, as wall clocks tell; of two at once the one with the higher dot, everywhere alike.
fn latest(siblings: &[Sibling]) -> Option<&Sibling> {
    siblings.iter().max_by_key(|sibling| (sibling.written_at, sibling.dot))
}

/// What a context has seen, summed over the actors that each node drew.
fn vector_clock(node: &Node, key: &Key, token: &[u8]) -> Result<VectorClock, Refusal> {
    let context = Context::open(token, node.cluster, key).map_err(Failure::from)?;
    let mut by_actor: BTreeMap<ActorId, u64> = BTreeMap::new();
    for dot in context.vector().dots().chain(context.dots().iter().copied()) {
        let counter = by_actor.entry(dot.actor).or_default();
        *counter = dot.counter.max(*counter);
    }
    let mut clock = VectorClock::new();
    for (actor, counter) in by_actor {
        *clock.entry(name(&node.directory, actor)).or_default() += counter;
    }
    Ok(clock)
}

fn name(directory: &Directory, actor: ActorId) -> String {
    directory.get(&actor).cloned().unwrap_or_else(|| actor.to_string())
}

async fn take(budget: &Budget, bytes: usize) -> Result<Option<super::budget::Taken>, Refusal> {
    if bytes <= REPLY_BYTES_FREE { Ok(None) } else { budget.take(bytes).await.map(Some) }
}
