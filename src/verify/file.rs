//! Histories as files: one JSON object a line, one event each (docs/HISTORY.md).
//!
//! Bytes in, bytes out: who records opens the file, and who judges reads it.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::BufRead;

use serde::{Deserialize, Serialize};

use super::history::{Action, Asked, Event, History, Level, Misrecorded, Moment, Name, Outcome, Replaces, Shown};
use crate::protocol::types::{ActorId, Dot, Key, LengthError, Value};

/// The format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

/// Longest line: a read that shows many siblings.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A history that cannot be read. `line` counts from 1.
#[derive(Debug, thiserror::Error)]
#[error("{name}:{line}: {wrong}")]
pub struct FileError {
    /// The file, as its reader was told.
    pub name: String,
    /// Which of its lines.
    pub line: u64,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// The system gives no more.
    #[error(transparent)]
    Unreadable(#[from] std::io::Error),
    /// Another file.
    #[error("the first line is to be {}", head())]
    NoHistory,
    /// A newer file.
    #[error("this is format {0}, and this sloop reads format {FORMAT}")]
    Format(u32),
    /// A line without end.
    #[error("a line has at most {LINE_BYTES_MAX} bytes")]
    Long,
    /// No object, or one with other fields.
    #[error("not an event: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Fields that do not go together.
    #[error("expected {0}")]
    Expected(&'static str),
    /// A key or a value out of its bounds.
    #[error(transparent)]
    Length(#[from] LengthError),
    /// An event that cannot follow those before it.
    #[error(transparent)]
    Misrecorded(#[from] Misrecorded),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadJson {
    sloop: HistoryJson,
    format: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum HistoryJson {
    History,
}

/// Every field that a line may have; which go together decides who converts it.
#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct EventJson {
    at: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    rest: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    begin: Option<BeginJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<EndJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<ReplacesJson>,
    #[serde(skip_serializing_if = "is_none")]
    quorum: u8,
    #[serde(skip_serializing_if = "is_false")]
    strict: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    superseded: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    versions: Option<Vec<VersionJson>>,
    #[serde(skip_serializing_if = "is_false")]
    tombstones: bool,
    #[serde(skip_serializing_if = "is_false")]
    retried: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<LevelJson>,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum BeginJson {
    Read,
    Put,
    Delete,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum EndJson {
    Written,
    Shown,
    Refused,
    Unknown,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ReplacesJson {
    Held,
    Nothing,
    Shown(u32, u32),
}

#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct VersionJson {
    dot: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    deleted: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LevelJson {
    n: u8,
    quorum: u8,
    owners: u8,
    #[serde(default)]
    fallbacks: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_none(number: &u8) -> bool {
    *number == 0
}

/// The first line of a file, without its end.
pub fn head() -> String {
    spell(&HeadJson { sloop: HistoryJson::History, format: FORMAT })
}

/// An event as a line, without its end.
pub fn line(at: Moment, event: &Event) -> String {
    let mut json = match event {
        Event::Begin { name, key, action, asked } => begin_json(*name, key, action, *asked),
        Event::End { name, outcome } => EventJson { op: Some((name.client, name.number)), ..end_json(outcome) },
        Event::Rest => EventJson { rest: true, ..EventJson::default() },
    };
    json.at = Some(at.0);
    spell(&json)
}

fn begin_json(name: Name, key: &Key, action: &Action, asked: Asked) -> EventJson {
    let (key, key_hex) = either(key.as_bytes());
    let op = Some((name.client, name.number));
    let json = EventJson { op, key, key_hex, quorum: asked.quorum, strict: asked.strict, ..EventJson::default() };
    match action {
        Action::Read => EventJson { begin: Some(BeginJson::Read), ..json },
        Action::Write { value, replaces } => {
            let replaces = Some(match replaces {
                Replaces::Held => ReplacesJson::Held,
                Replaces::Nothing => ReplacesJson::Nothing,
                Replaces::Shown(name) => ReplacesJson::Shown(name.client, name.number),
            });
            let begin = Some(if value.is_some() { BeginJson::Put } else { BeginJson::Delete });
            let (value, value_hex) = value.as_ref().map_or((None, None), |value| either(value.as_bytes()));
            EventJson { begin, value, value_hex, replaces, ..json }
        }
    }
}

fn end_json(outcome: &Outcome) -> EventJson {
    let json = EventJson::default();
    match outcome {
        Outcome::Written { dot, superseded, level, retried } => EventJson {
            end: Some(EndJson::Written),
            dot: Some(dot.to_string()),
            superseded: Some(superseded.iter().map(Dot::to_string).collect()),
            level: level_json(*level),
            retried: *retried,
            ..json
        },
        Outcome::Shown { versions, tombstones, level } => EventJson {
            end: Some(EndJson::Shown),
            versions: Some(versions.iter().map(version_json).collect()),
            tombstones: *tombstones,
            level: level_json(*level),
            ..json
        },
        Outcome::Refused => EventJson { end: Some(EndJson::Refused), ..json },
        Outcome::Unknown => EventJson { end: Some(EndJson::Unknown), ..json },
    }
}

fn level_json(level: Level) -> Option<LevelJson> {
    let Level { n, quorum, owners, fallbacks } = level;
    (level != Level::default()).then_some(LevelJson { n, quorum, owners, fallbacks })
}

fn version_json(shown: &Shown) -> VersionJson {
    let (value, value_hex) = shown.value.as_ref().map_or((None, None), |value| either(value.as_bytes()));
    VersionJson { dot: shown.dot.to_string(), value, value_hex, deleted: shown.value.is_none() }
}

fn spell(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("names are text and numbers are whole")
}

/// As text where it is text, otherwise in hexadecimal digits.
fn either(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(hex(bytes))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// Reads a whole history, which errors call `name`. A last line without its end is taken if it is whole: a recorder
/// may have been killed while it wrote it.
///
/// # Errors
/// [`FileError`] of the first line that is wrong.
pub fn read(name: &str, mut from: impl BufRead) -> Result<History, FileError> {
    let (mut history, mut number, mut bytes) = (History::default(), 0, vec![]);
    loop {
        number += 1;
        bytes.clear();
        let wrong = match next_line(&mut from, &mut bytes) {
            Ok(0) if number == 1 => Wrong::NoHistory,
            Ok(0) => return Ok(history),
            Ok(_) if number == 1 => match read_head(&bytes) {
                Ok(()) => continue,
                Err(wrong) => wrong,
            },
            Ok(_) => match take(&mut history, &bytes) {
                Ok(()) => continue,
                Err(Wrong::Syntax(_)) if !bytes.ends_with(b"\n") => return Ok(history),
                Err(wrong) => wrong,
            },
            Err(wrong) => wrong,
        };
        return Err(FileError { name: name.to_owned(), line: number, wrong });
    }
}

fn next_line(from: &mut impl BufRead, bytes: &mut Vec<u8>) -> Result<usize, Wrong> {
    let count = std::io::Read::take(from, LINE_BYTES_MAX as u64).read_until(b'\n', bytes)?;
    if count == LINE_BYTES_MAX { Err(Wrong::Long) } else { Ok(count) }
}

fn read_head(line: &[u8]) -> Result<(), Wrong> {
    let head: HeadJson = serde_json::from_slice(line).map_err(|_| Wrong::NoHistory)?;
    if head.format == FORMAT { Ok(()) } else { Err(Wrong::Format(head.format)) }
}

fn take(history: &mut History, line: &[u8]) -> Result<(), Wrong> {
    let (at, event) = parse(line)?;
    Ok(history.record_at(at, event)?)
}

/// Reads one line that is not the first.
///
/// # Errors
/// Any [`Wrong`].
pub fn parse(line: &[u8]) -> Result<(Moment, Event), Wrong> {
    let json: EventJson = serde_json::from_slice(line)?;
    let at = Moment(json.at.ok_or(Wrong::Expected("`at`, the time in microseconds"))?);
    let name = json.op.map(|(client, number)| Name { client, number });
    let event = match (json.begin, json.end, json.rest, name) {
        (Some(begin), None, false, Some(name)) => begin_event(name, begin, json)?,
        (None, Some(end), false, Some(name)) => Event::End { name, outcome: outcome(end, json)? },
        (None, None, true, None) => Event::Rest,
        _ => return Err(Wrong::Expected("`op` with either `begin` or `end`, or `rest`")),
    };
    Ok((at, event))
}

fn begin_event(name: Name, begin: BeginJson, json: EventJson) -> Result<Event, Wrong> {
    let asked = Asked { quorum: json.quorum, strict: json.strict };
    let key = one(json.key, json.key_hex, "one of `key` and `keyHex`")?;
    let is_ended = json.dot.is_some() || json.superseded.is_some() || json.versions.is_some() || json.level.is_some();
    if is_ended || json.retried || json.tombstones {
        return Err(Wrong::Expected("at its beginning nothing of an operation's end"));
    }
    let replaces = json.replaces.map(|replaces| match replaces {
        ReplacesJson::Held => Replaces::Held,
        ReplacesJson::Nothing => Replaces::Nothing,
        ReplacesJson::Shown(client, number) => Replaces::Shown(Name { client, number }),
    });
    let has_value = json.value.is_some() || json.value_hex.is_some();
    let action = match (begin, replaces) {
        (BeginJson::Read, None) if !has_value => Action::Read,
        (BeginJson::Read, _) => return Err(Wrong::Expected("a read without a value and `replaces`")),
        (_, None) => return Err(Wrong::Expected("`replaces`: \"held\", \"nothing\" or {\"shown\":[client,number]}")),
        (BeginJson::Put, Some(replaces)) => {
            let value = one(json.value, json.value_hex, "one of `value` and `valueHex`")?;
            Action::Write { value: Some(Value::new(value)?), replaces }
        }
        (BeginJson::Delete, Some(_)) if has_value => return Err(Wrong::Expected("a delete without a value")),
        (BeginJson::Delete, Some(replaces)) => Action::Write { value: None, replaces },
    };
    Ok(Event::Begin { name, key: Key::new(key)?, action, asked })
}

fn outcome(end: EndJson, json: EventJson) -> Result<Outcome, Wrong> {
    let is_begun = json.key.is_some() || json.key_hex.is_some() || json.value.is_some() || json.value_hex.is_some();
    if is_begun || json.replaces.is_some() || json.quorum != 0 || json.strict {
        return Err(Wrong::Expected("at its end nothing of an operation's beginning"));
    }
    let level = json.level.map_or_else(Level::default, |level| {
        let LevelJson { n, quorum, owners, fallbacks } = level;
        Level { n, quorum, owners, fallbacks }
    });
    let retried = json.retried;
    match (end, json.dot, json.superseded, json.versions) {
        (EndJson::Written, Some(name), superseded, None) if !json.tombstones => {
            let superseded = superseded.unwrap_or_default().iter().map(|name| dot(name)).collect::<Result<_, _>>()?;
            Ok(Outcome::Written { dot: dot(&name)?, superseded, level, retried })
        }
        (EndJson::Written, ..) => Err(Wrong::Expected("`dot`, and neither `versions` nor `tombstones`")),
        (EndJson::Shown, None, None, Some(versions)) if !retried => {
            let versions = versions.into_iter().map(shown).collect::<Result<_, _>>()?;
            Ok(Outcome::Shown { versions, tombstones: json.tombstones, level })
        }
        (EndJson::Shown, ..) => Err(Wrong::Expected("`versions`, and no `dot`, `superseded` or `retried`")),
        (EndJson::Refused | EndJson::Unknown, None, None, None) if !retried && level == Level::default() => {
            Ok(if end == EndJson::Refused { Outcome::Refused } else { Outcome::Unknown })
        }
        (EndJson::Refused | EndJson::Unknown, ..) => Err(Wrong::Expected("nothing of a reply")),
    }
}

fn shown(version: VersionJson) -> Result<Shown, Wrong> {
    let dot = dot(&version.dot)?;
    if version.deleted {
        let is_value = version.value.is_some() || version.value_hex.is_some();
        return if is_value { Err(Wrong::Expected(VERSION)) } else { Ok(Shown { dot, value: None }) };
    }
    Ok(Shown { dot, value: Some(Value::new(one(version.value, version.value_hex, VERSION)?)?) })
}

const VERSION: &str = "of a version one of `value`, `valueHex` and `deleted`";

/// A dot: the actor in up to sixteen hexadecimal digits, a colon, the counter.
fn dot(text: &str) -> Result<Dot, Wrong> {
    let wrong = || Wrong::Expected("a name of a version: 1 to 16 hexadecimal digits, a colon, a number");
    let (actor, counter) = text.split_once(':').ok_or_else(wrong)?;
    let is_plain = |digits: &str, is: fn(&char) -> bool| !digits.is_empty() && digits.chars().all(|digit| is(&digit));
    if !is_plain(actor, |digit| digit.is_ascii_hexdigit()) || !is_plain(counter, char::is_ascii_digit) {
        return Err(wrong());
    }
    let actor = u64::from_str_radix(actor, 16).map_err(|_| wrong())?;
    Ok(Dot { actor: ActorId(actor), counter: counter.parse().map_err(|_| wrong())? })
}

fn one(text: Option<String>, digits: Option<String>, expected: &'static str) -> Result<Vec<u8>, Wrong> {
    match (text, digits) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(digits)) => unhex(&digits).ok_or(Wrong::Expected("an even number of hexadecimal digits")),
        _ => Err(Wrong::Expected(expected)),
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let value = |digit: u8| char::from(digit).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(value(*high)? * 16 + value(*low)?).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}
