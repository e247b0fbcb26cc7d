//! The commands that read and write keys: a thin layer over the client library.
//!
//! Values go to standard output as they are and nothing else does, so that `sloop get KEY > FILE` is exact; what a
//! person should know beside it, above all that a key has several values, is a note on standard error. `--json` shows
//! everything, in the words of the HTTP interface.

mod dump;
mod line;
mod output;
mod read;
mod write;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value as Json, json};

pub use self::dump::{Dump, Load};
pub use self::read::{Get, Keys, Siblings};
pub use self::write::{Del, Put};
use super::{Failed, Said, say};
use crate::client::{Client, Error, Key, Level, Options, Terms};

/// Where a node is, unless told otherwise.
pub(super) const ADDR: &str = "127.0.0.1:7600";

/// Where to ask: what the flags say, or the environment, or the default.
#[derive(Clone, Debug)]
struct Target {
    addr: Option<String>,
    token: Option<String>,
    deadline: Option<String>,
}

impl Target {
    /// Takes the options out of a command, of which each has its own.
    fn take(addr: &mut Option<String>, token: &mut Option<String>, deadline: &mut Option<String>) -> Target {
        Target { addr: addr.take(), token: token.take(), deadline: deadline.take() }
    }

    async fn connect(self) -> Result<Client, Failed> {
        let addr = self.addr.or_else(|| env("SLOOP_ADDR")).unwrap_or_else(|| ADDR.to_owned());
        let mut options = Options::new(&addr);
        if let Some(token) = self.token.or_else(|| env("SLOOP_TOKEN")) {
            options.set_token(&token).map_err(Failed::wrong_use)?;
        }
        if let Some(deadline) = self.deadline {
            let time = humantime::parse_duration(&deadline);
            options.deadline = time.map_err(|error| Failed::wrong_use(format!("--deadline {deadline}: {error}")))?;
        }
        options.connect().await.map_err(|error| match error {
            Error::Connection { node, reason, .. } => Failed::refused(format!(
                "no node answers at {node}: {reason} (sloop serve starts one, --addr names another)"
            )),
            other => other.into(),
        })
    }
}

/// A variable that is set to something.
pub(super) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What a command has to tell once it is done.
#[derive(Debug, Default)]
struct Told {
    /// For standard output.
    said: Said,
    /// For standard error, a line each.
    notes: Vec<String>,
    /// Why the exit code is not 0 all the same.
    failed: Option<Failed>,
}

impl Told {
    fn json(value: &Json) -> Told {
        let mut told = Told::default();
        told.said.line(&value.to_string());
        told
    }
}

/// Runs one command against the node that it names.
fn run<F: Future<Output = Result<Told, Failed>>>(
    target: Target,
    command: impl FnOnce(Client) -> F,
) -> Result<Said, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let told = runtime.block_on(async { command(target.connect().await?).await })?;
    for note in told.notes {
        // Nobody is left to be told when this fails.
        let _ = writeln!(io::stderr(), "sloop: note: {note}");
    }
    match told.failed {
        None => Ok(told.said),
        Some(failed) => {
            say(&told.said.0)?;
            Err(failed)
        }
    }
}

/// The key that a command line names.
pub(super) fn key(text: &str, hex: bool) -> Result<Key, Failed> {
    let bytes = if hex {
        hex::decode(text).map_err(|error| Failed::wrong_use(format!("the key {text:?} is not hexadecimal: {error}")))?
    } else {
        text.as_bytes().to_vec()
    };
    Key::new(bytes).map_err(Failed::wrong_use)
}

fn terms(quorum: Option<u8>) -> Terms {
    Terms { quorum: quorum.unwrap_or(0), ..Terms::default() }
}

/// A key as JSON shows it: as text where it is text, and exactly beside it.
fn key_fields(key: &Key) -> Json {
    let bytes = key.as_bytes();
    json!({ "key": String::from_utf8_lossy(bytes), "keyBase64": BASE64.encode(bytes) })
}

fn level_fields(level: Level) -> Json {
    let Level { n, quorum, owners, fallbacks, hedged } = level;
    json!({ "n": n, "quorum": quorum, "owners": owners, "fallbacks": fallbacks, "hedged": hedged })
}

/// Puts the fields of `more` beside those of `object`.
pub(super) fn with(mut object: Json, more: Json) -> Json {
    if let (Json::Object(object), Json::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    object
}

/// Bytes on a line for people: as they are where they are plain text, escaped where not.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}
