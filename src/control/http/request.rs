//! What a request asks: its key, terms, context and body, each checked against its bound before it is kept.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, Uri};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use tokio::time::timeout;

use super::budget::{Budget, Taken};
use super::refusal::Refusal;
use crate::protocol::antientropy::Range;
use crate::protocol::config::VALUE_BYTES_MAX;
use crate::protocol::message::{Causality, Failure, Terms};
use crate::protocol::types::{Key, OperationId, Value};

/// Raw bytes, both ways.
pub(super) const RAW: &str = "application/octet-stream";

/// Leaves of a hash tree: the seed's number.
const LEAVES_DEFAULT: usize = 1_024;

/// Carries a context, both ways.
pub(super) const CONTEXT: &str = "x-sloop-context";

/// Names the operation of a raw PUT.
const OPERATION: &str = "x-sloop-op-id";

/// Milliseconds until the request ends: the seed's name for it.
const DEADLINE: &str = "x-deadline-ms";

/// Instead of a context: leave a sibling in any case.
const NO_CONTEXT: &str = "none";

/// Largest body: the largest value in base64, the largest context, and some air.
const BODY_BYTES_MAX: usize = VALUE_BYTES_MAX.div_ceil(3) * 4 + 256 * 1_024;

/// Time in which a body must have come: 10 MiB at 3 Mbit/s.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Bodies below this are not worth a wait for memory: connections are bounded.
const BODY_BYTES_FREE: usize = 16 * 1_024;

/// Base64 as it is written, with or without its padding.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a write says beside its key.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) value: Option<Value>,
    pub(super) causality: Causality,
    pub(super) operation: Option<OperationId>,
}

/// The body of a PUT or DELETE, as the seed wrote it, with a context beside.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spoken<'a> {
    #[serde(borrow, default)]
    value_base64: Option<Cow<'a, str>>,
    /// A label that the seed took for the clock's actor (SEEDS fault 1): checked to be text, and of no effect.
    #[serde(borrow, default, rename = "nodeId")]
    _node_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    op_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    context: Option<Cow<'a, str>>,
}

/// The key: everything behind `prefix`, percent-decoded. Slashes and bytes of any kind are part of it.
pub(super) fn key(uri: &Uri, prefix: &str) -> Result<Key, Refusal> {
    let rest = uri.path().strip_prefix(prefix).unwrap_or("");
    Ok(Key::new(percent_decode_str(rest).collect::<Vec<u8>>()).map_err(Failure::from)?)
}

/// The key behind `prefix`, or in the parameter `hex` in hexadecimal digits.
pub(super) fn key_or_hex(uri: &Uri, prefix: &str) -> Result<Key, Refusal> {
    let mut hex = None;
    for (name, value) in parameters(uri) {
        match name {
            "hex" => hex = Some(value),
            _ => return Err(Refusal::malformed(format!("unknown parameter \"{name}\": known here is hex"))),
        }
    }
    match hex {
        None => key(uri, prefix),
        Some(_) if uri.path() != prefix => {
            Err(Refusal::malformed("the key stands in the path and in hex: give it once"))
        }
        Some(digits) => {
            let bytes = hex::decode(digits)
                .map_err(|error| Refusal::malformed(format!("hex: \"{digits}\" is not hexadecimal: {error}")))?;
            Ok(Key::new(bytes).map_err(Failure::from)?)
        }
    }
}

/// Quorum and time, from the query and the deadline's header. `quorum` is the parameter's name: `r` or `w`.
pub(super) fn terms(uri: &Uri, headers: &HeaderMap, quorum: &str) -> Result<Terms, Refusal> {
    let mut terms = Terms::default();
    if let Some(header) = headers.get(DEADLINE) {
        terms.deadline_ms = number(DEADLINE, &String::from_utf8_lossy(header.as_bytes()), u32::MAX)?;
    }
    for (name, value) in parameters(uri) {
        match name {
            "deadline_ms" => terms.deadline_ms = number(name, value, u32::MAX)?,
            "consistency" => terms.strict = choice(name, value, ["sloppy", "strict"])?,
            "retry" => terms.retry = choice(name, value, ["false", "true"])?,
            _ if name == quorum => {
                terms.quorum = u8::try_from(number(name, value, 255)?).expect("at most 255");
            }
            _ => {
                return Err(Refusal::malformed(format!(
                    "unknown parameter \"{name}\": known here are {quorum}, deadline_ms, consistency and retry"
                )));
            }
        }
    }
    Ok(terms)
}

/// The range of a hash tree, from the query: the whole ring in 1,024 leaves unless it says otherwise.
pub(super) fn token_range(uri: &Uri) -> Result<Range, Refusal> {
    let (mut start, mut end, mut leaves) = (i64::MIN, i64::MAX, LEAVES_DEFAULT);
    for (name, value) in parameters(uri) {
        match name {
            "startToken" => start = token(name, value)?,
            "endToken" => end = token(name, value)?,
            "leafCount" => leaves = number(name, value, u32::MAX)? as usize,
            _ => {
                return Err(Refusal::malformed(format!(
                    "unknown parameter \"{name}\": known here are startToken, endToken and leafCount"
                )));
            }
        }
    }
    Range::new(start, end, leaves).map_err(|error| Refusal::malformed(error.to_string()))
}

fn token(name: &str, text: &str) -> Result<i64, Refusal> {
    let not_a_token = |_| Refusal::malformed(format!("{name}: \"{text}\" is not a signed whole number of 64 bits"));
    text.parse().map_err(not_a_token)
}

fn parameters(uri: &Uri) -> impl Iterator<Item = (&str, &str)> {
    let parameters = uri.query().unwrap_or("").split('&').filter(|parameter| !parameter.is_empty());
    parameters.map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
}

/// Whether the query is empty, as it must be where nothing can be chosen.
pub(super) fn no_query(uri: &Uri) -> Result<(), Refusal> {
    match uri.query() {
        None | Some("") => Ok(()),
        Some(query) => Err(Refusal::malformed(format!("\"{query}\": nothing can be chosen here"))),
    }
}

fn number(name: &str, text: &str, max: u32) -> Result<u32, Refusal> {
    match text.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(Refusal::malformed(format!("{name}: \"{text}\" is not a whole number from 1 to {max}"))),
    }
}

/// Whether it is the second of two.
fn choice(name: &str, text: &str, [first, second]: [&str; 2]) -> Result<bool, Refusal> {
    match text {
        _ if text == first => Ok(false),
        _ if text == second => Ok(true),
        _ => Err(Refusal::malformed(format!("{name}: \"{text}\" is neither {first} nor {second}"))),
    }
}

/// Reads the whole body, and takes memory for it from the budget before it does.
pub(super) async fn body(headers: &HeaderMap, body: Body, budget: &Budget) -> Result<(Bytes, Option<Taken>), Refusal> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let most = announced.unwrap_or(BODY_BYTES_MAX);
    let too_large = Refusal::TooLarge { max: BODY_BYTES_MAX };
    if most > BODY_BYTES_MAX {
        return Err(too_large);
    }
    let taken = if most > BODY_BYTES_FREE { Some(budget.take(most).await?) } else { None };
    match timeout(BODY_TIME_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(collected)) => Ok((collected.to_bytes(), taken)),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large),
        Ok(Err(error)) => Err(Refusal::malformed(format!("the body broke off: {error}"))),
        Err(_late) => Err(Refusal::TooSlow { seconds: BODY_TIME_MAX.as_secs() }),
    }
}

/// What a PUT says: raw bytes, or JSON with the value in it.
pub(super) fn put(headers: &HeaderMap, body: Bytes) -> Result<Said, Refusal> {
    if is_raw(headers) {
        let value = Value::new(body).map_err(Failure::from)?;
        return said(headers, Spoken::default(), Some(value));
    }
    let spoken = spoken(&body)?;
    let Some(base64) = spoken.value_base64.as_deref() else {
        return Err(Refusal::malformed(format!("valueBase64 is missing (raw bytes: Content-Type: {RAW})")));
    };
    let bytes = unbase64("valueBase64", base64)?;
    let value = Value::new(bytes).map_err(Failure::from)?;
    said(headers, spoken, Some(value))
}

/// What a DELETE says: nothing, or JSON without a value.
pub(super) fn delete(headers: &HeaderMap, body: &Bytes) -> Result<Said, Refusal> {
    let spoken = if body.is_empty() { Spoken::default() } else { spoken(body)? };
    match spoken.value_base64 {
        Some(_) => Err(Refusal::malformed("a DELETE has no valueBase64")),
        None => said(headers, spoken, None),
    }
}

/// Context and operation id may stand in the body or in a header, whatever form the body has.
fn said(headers: &HeaderMap, spoken: Spoken<'_>, value: Option<Value>) -> Result<Said, Refusal> {
    let context = either("context", spoken.context.as_deref(), headers, CONTEXT)?;
    let id = either("opId", spoken.op_id.as_deref(), headers, OPERATION)?;
    let operation = id.map(OperationId::new).transpose().map_err(Failure::from)?;
    Ok(Said { value, causality: causality(context)?, operation })
}

fn either<'a>(
    field: &str,
    in_body: Option<&'a str>,
    headers: &'a HeaderMap,
    header: &str,
) -> Result<Option<&'a str>, Refusal> {
    let in_header = headers.get(header).map(|header| header.to_str()).transpose();
    match (in_body, in_header.map_err(|_| Refusal::malformed(format!("{header} is not text")))?) {
        (Some(one), Some(other)) if one != other => {
            Err(Refusal::malformed(format!("the body's {field} and the header {header} differ: give one")))
        }
        (in_body, in_header) => Ok(in_body.or(in_header)),
    }
}

fn causality(context: Option<&str>) -> Result<Causality, Refusal> {
    match context {
        None => Ok(Causality::Blind),
        Some(NO_CONTEXT) => Ok(Causality::Sibling),
        Some(base64) => Ok(Causality::Context(unbase64("context", base64)?.into())),
    }
}

fn spoken(body: &Bytes) -> Result<Spoken<'_>, Refusal> {
    object(body, r#"{"valueBase64": "..", "nodeId": .., "opId": .., "context": ..}"#)
}

/// An object only: serde would also take a list for the fields in their order, and a misplaced text for a value.
pub(super) fn object<'a, T: Deserialize<'a>>(body: &'a [u8], form: &str) -> Result<T, Refusal> {
    let wrong = |why: &dyn std::fmt::Display| Refusal::malformed(format!("the body is not of the form {form}: {why}"));
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(wrong(&"it is no JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| wrong(&error))
}

fn unbase64(what: &str, text: &str) -> Result<Vec<u8>, Refusal> {
    BASE64.decode(text).map_err(|error| Refusal::malformed(format!("{what} is not base64: {error}")))
}

fn is_raw(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|header| header.to_str().ok()).unwrap_or("");
    content_type.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(RAW)
}
