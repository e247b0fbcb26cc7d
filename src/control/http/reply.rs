//! What a request is told, in JSON or raw.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::display::Base64Display;
use serde::{Serialize, Serializer};

use super::budget::{Budget, Held, Taken};
use super::refusal::Refusal;
use super::request::{BASE64, CONTEXT, RAW};
use crate::control::node::Node;
use crate::protocol::causality::Context;
use crate::protocol::message::{self, Copies, Directory, Failure, Found, Level, Sibling, Written};
use crate::protocol::types::{ActorId, Key, Value};

/// How many values there are, beside a raw one.
const SIBLINGS: &str = "x-sloop-siblings";

/// How the request was served, where the body has no room for it.
const LEVEL: &str = "x-sloop-level";

/// A context larger than this stands in JSON bodies only: clients and proxies bound a header's length.
const CONTEXT_HEADER_BYTES_MAX: usize = 16 * 1_024;

/// Replies below this are not worth a wait for memory: connections are bounded.
const REPLY_BYTES_FREE: usize = 64 * 1_024;

/// What is spelt or read on this thread: about a millisecond's work.
const BYTES_HERE_MAX: usize = 256 * 1_024;

/// Counters by the names of nodes, as the seed showed its clocks.
type VectorClock = BTreeMap<String, u64>;

/// Bytes that are spelt as they are written: no copy of a large value is made on the way.
pub(super) struct Base64<'a>(pub(super) &'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &BASE64))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FoundJson<'a> {
    found: bool,
    value_base64: Base64<'a>,
    vector_clock: VectorClock,
    context: Base64<'a>,
    siblings: Vec<SiblingJson<'a>>,
    level: LevelJson,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SiblingJson<'a> {
    value_base64: Base64<'a>,
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
    context: Base64<'a>,
    dot: String,
    superseded: Vec<String>,
    remembered: bool,
    level: LevelJson,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CopiesJson<'a> {
    key: Cow<'a, str>,
    key_base64: Base64<'a>,
    siblings: Vec<CopyJson<'a>>,
    context: Base64<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CopyJson<'a> {
    tombstone: bool,
    lww_millis: u64,
    value_base64: Option<Base64<'a>>,
    vector_clock: VectorClock,
    dot: String,
    op_id: Option<Cow<'a, str>>,
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
pub(super) async fn found(node: &Node, key: &Key, found: Found, budget: &Budget) -> Result<Response, Refusal> {
    let Some(at) = latest(&found.siblings) else {
        return absent(&found);
    };
    let values = found.siblings.iter().map(|sibling| &sibling.value);
    let bytes = base64_bytes(values.chain([&found.siblings[at].value]));
    let taken = take(budget, bytes).await?;
    let vector_clock = vector_clock(node, key, &found.context)?;
    let (context, level) = (found.context.clone(), found.level);
    let spell = move || {
        let body = FoundJson {
            found: true,
            value_base64: Base64(found.siblings[at].value.as_bytes()),
            vector_clock,
            context: Base64(&found.context),
            siblings: found.siblings.iter().map(sibling).collect(),
            level: found.level.into(),
        };
        text(&body)
    };
    let mut response = told_json(StatusCode::OK, Held::new(elsewhere(bytes, spell).await, taken));
    told(response.headers_mut(), &context, level);
    Ok(response)
}

/// To a GET that wants raw bytes: the last value written.
pub(super) async fn found_raw(found: &Found, budget: &Budget) -> Result<Response, Refusal> {
    let Some(at) = latest(&found.siblings) else {
        return absent(found);
    };
    let value = &found.siblings[at].value;
    let taken = take(budget, value.len()).await?;
    let mut response = Response::new(Body::new(Held::new(value.bytes().clone(), taken)));
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
        context: Base64(&written.context),
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
pub(super) async fn siblings(key: Key, copies: Copies, budget: &Budget) -> Result<Response, Refusal> {
    let bytes = base64_bytes(copies.copies.iter().filter_map(|copy| copy.value.as_ref()));
    let taken = take(budget, bytes).await?;
    let spell = move || {
        let body = CopiesJson {
            key: String::from_utf8_lossy(key.as_bytes()),
            key_base64: Base64(key.as_bytes()),
            siblings: copies.copies.iter().map(copy).collect(),
            context: Base64(&copies.context),
        };
        text(&body)
    };
    Ok(told_json(StatusCode::OK, Held::new(elsewhere(bytes, spell).await, taken)))
}

/// Any JSON that is small.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    told_json(status, Held::new(text(body), ()))
}

/// Runs what takes long elsewhere: this thread also accepts connections and says that the node lives.
pub(super) async fn elsewhere<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes < BYTES_HERE_MAX {
        return work();
    }
    tokio::task::spawn_blocking(work).await.expect("a panic ends the process")
}

fn text(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("names are text and numbers are finite")
}

fn told_json<T: Send + Unpin + 'static>(status: StatusCode, body: Held<T>) -> Response {
    let mut response = Response::new(Body::new(body));
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

fn sibling(sibling: &Sibling) -> SiblingJson<'_> {
    SiblingJson {
        value_base64: Base64(sibling.value.as_bytes()),
        lww_millis: sibling.written_at.0,
        dot: sibling.dot.to_string(),
    }
}

fn copy(copy: &message::Copy) -> CopyJson<'_> {
    CopyJson {
        tombstone: copy.value.is_none(),
        lww_millis: copy.written_at.0,
        value_base64: copy.value.as_ref().map(|value| Base64(value.as_bytes())),
        vector_clock: VectorClock::from([(copy.node.clone(), copy.dot.counter)]),
        dot: copy.dot.to_string(),
        op_id: copy.operation.as_ref().map(|id| String::from_utf8_lossy(id.as_bytes())),
    }
}

/// Which was written last, as wall clocks tell; of two at once the one with the higher dot, everywhere alike.
fn latest(siblings: &[Sibling]) -> Option<usize> {
    (0..siblings.len()).max_by_key(|&at| (siblings[at].written_at, siblings[at].dot))
}

fn base64_bytes<'a>(values: impl Iterator<Item = &'a Value>) -> usize {
    values.map(|value| value.len().div_ceil(3) * 4).sum()
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

async fn take(budget: &Budget, bytes: usize) -> Result<Option<Taken>, Refusal> {
    if bytes <= REPLY_BYTES_FREE { Ok(None) } else { budget.take(bytes).await.map(Some) }
}
