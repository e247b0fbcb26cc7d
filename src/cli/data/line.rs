//! A dump: one JSON object a line.
//!
//! ```text
//! {"sloop":"dump","format":1}                                      the first line
//! {"key":"cart:17","siblings":[{"value":"apples","lwwMillis":7}]}  a line a key, in any order
//! {"keyBase64":"/w==","siblings":[{"valueBase64":"AAEC"}]}         what is not UTF-8 stands in base64
//! {"keys":2}                                                       the last line: a dump without it was cut off
//! ```
//! A key and a value are given in one of the two ways. `lwwMillis` is for people; a load writes at its own time.

use base64::Engine as _;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::BASE64;
use crate::client::{Entry, Key, Sibling, Value};
use crate::protocol::types::LengthError;

const FORMAT: u32 = 1;

/// One line of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Head,
    Key(Key, Vec<Value>),
    End { keys: u64 },
}

/// A line that is not one of a dump.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("not a line of a dump: {0}")]
    Syntax(#[from] serde_json::Error),
    #[error("this is format {0}, and this sloop reads format 1")]
    Format(u32),
    #[error("{0} stands there both as text and in base64, or not at all")]
    Twice(&'static str),
    #[error("{0} is not base64: {1}")]
    Base64(&'static str, base64::DecodeError),
    #[error(transparent)]
    Length(#[from] LengthError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadJson {
    sloop: Dump,
    format: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Dump {
    Dump,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndJson {
    keys: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeyJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    siblings: Vec<SiblingJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SiblingJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lww_millis: Option<u64>,
}

pub(super) fn head() -> String {
    spell(&HeadJson { sloop: Dump::Dump, format: FORMAT })
}

pub(super) fn end(keys: u64) -> String {
    spell(&EndJson { keys })
}

pub(super) fn entry(entry: &Entry) -> String {
    let (key, key_base64) = either(entry.key().as_bytes());
    spell(&KeyJson { key, key_base64, siblings: entry.siblings().iter().map(sibling).collect() })
}

fn sibling(sibling: &Sibling) -> SiblingJson {
    let (value, value_base64) = either(sibling.value.as_bytes());
    SiblingJson { value, value_base64, lww_millis: Some(sibling.written_at.0) }
}

fn spell(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("names are text and numbers are whole")
}

/// As text where it is text, otherwise in base64.
fn either(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}

/// Reads one line.
pub(super) fn parse(line: &[u8]) -> Result<Line, LineError> {
    if let Ok(head) = serde_json::from_slice::<HeadJson>(line) {
        return if head.format == FORMAT { Ok(Line::Head) } else { Err(LineError::Format(head.format)) };
    }
    if let Ok(end) = serde_json::from_slice::<EndJson>(line) {
        return Ok(Line::End { keys: end.keys });
    }
    let KeyJson { key, key_base64, siblings } = serde_json::from_slice(line)?;
    let key = Key::new(one("the key", key, key_base64)?)?;
    let value = |sibling: SiblingJson| Ok(Value::new(one("a value", sibling.value, sibling.value_base64)?)?);
    Ok(Line::Key(key, siblings.into_iter().map(value).collect::<Result<_, LineError>>()?))
}

fn one(what: &'static str, text: Option<String>, base64: Option<String>) -> Result<Bytes, LineError> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into()),
        (None, Some(base64)) => Ok(BASE64.decode(base64).map_err(|error| LineError::Base64(what, error))?.into()),
        _ => Err(LineError::Twice(what)),
    }
}
