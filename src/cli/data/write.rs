//! `sloop put`, `sloop del`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use argh::FromArgs;
use base64::Engine as _;
use bytes::Bytes;
use serde_json::json;

use super::{BASE64, Failed, Said, Target, Told, key, key_fields, level_fields, run, terms, with};
use crate::client::{self, Causality, Client, Key, Reply, Request, Value, Written};
use crate::protocol::config::VALUE_BYTES_MAX;

/// Write a value under a key. It replaces all values that the key has, or, with --context, those that were read.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "put", help_triggers("-h", "--help"))]
pub struct Put {
    /// the key
    #[argh(positional)]
    key: String,
    /// the value, unless --file is given; write -- before one that begins with a dash
    #[argh(positional)]
    value: Option<String>,
    /// take the value from this file, - for standard input
    #[argh(option)]
    file: Option<PathBuf>,
    /// the key is given in hexadecimal digits
    #[argh(switch)]
    hex: bool,
    /// what to replace: a context that get printed, or none to stand beside all other values
    #[argh(option)]
    context: Option<String>,
    /// copies to write before it counts as done (as the cluster says)
    #[argh(option)]
    quorum: Option<u8>,
    /// print what was written and replaced
    #[argh(switch)]
    json: bool,
    /// node, or nodes with commas between them (SLOOP_ADDR, 127.0.0.1:7600)
    #[argh(option)]
    addr: Option<String>,
    /// what the node asks for (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
    /// time to try (5s)
    #[argh(option)]
    deadline: Option<String>,
}

impl Put {
    /// Writes and tells.
    ///
    /// # Errors
    /// [`Failed`] when the node refuses, or the value cannot be read.
    pub fn run(mut self) -> Result<Said, Failed> {
        run(Target::take(&mut self.addr, &mut self.token, &mut self.deadline), |client| self.ask(client))
    }

    pub(super) async fn ask(self, client: Client) -> Result<Told, Failed> {
        let key = key(&self.key, self.hex)?;
        let put = client::Put {
            key: key.clone(),
            value: value(self.value, self.file.as_deref())?,
            causality: causality(self.context)?,
            operation: None,
            terms: terms(self.quorum),
        };
        write(&client, &key, Request::Put(put), self.json).await
    }
}

/// Delete a key: all values that it has, or, with --context, those that were read. Also for a key that is not there.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "del", help_triggers("-h", "--help"))]
pub struct Del {
    /// the key
    #[argh(positional)]
    key: String,
    /// the key is given in hexadecimal digits
    #[argh(switch)]
    hex: bool,
    /// what to delete: a context that get printed
    #[argh(option)]
    context: Option<String>,
    /// copies to write before it counts as done (as the cluster says)
    #[argh(option)]
    quorum: Option<u8>,
    /// print what was written and replaced
    #[argh(switch)]
    json: bool,
    /// node, or nodes with commas between them (SLOOP_ADDR, 127.0.0.1:7600)
    #[argh(option)]
    addr: Option<String>,
    /// what the node asks for (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
    /// time to try (5s)
    #[argh(option)]
    deadline: Option<String>,
}

impl Del {
    /// Deletes and tells.
    ///
    /// # Errors
    /// [`Failed`] when the node refuses.
    pub fn run(mut self) -> Result<Said, Failed> {
        run(Target::take(&mut self.addr, &mut self.token, &mut self.deadline), |client| self.ask(client))
    }

    pub(super) async fn ask(self, client: Client) -> Result<Told, Failed> {
        let key = key(&self.key, self.hex)?;
        let delete = client::Delete {
            key: key.clone(),
            causality: causality(self.context)?,
            operation: None,
            terms: terms(self.quorum),
        };
        write(&client, &key, Request::Delete(delete), self.json).await
    }
}

async fn write(client: &Client, key: &Key, request: Request, json: bool) -> Result<Told, Failed> {
    let tombstone = matches!(request, Request::Delete(_));
    let written = match client.ask(request).await? {
        Reply::Written(written) => written,
        other => return Err(Failed::refused(format!("the node answered a write with {other:?}"))),
    };
    let mut told = Told::default();
    if json {
        told.said.line(&written_json(key, tombstone, &written).to_string());
    } else if written.superseded.len() > 1 {
        told.notes
            .push(format!("this replaced {} values that were written at the same time", written.superseded.len()));
    }
    Ok(told)
}

fn written_json(key: &Key, tombstone: bool, written: &Written) -> serde_json::Value {
    let fields = json!({
        "ok": true,
        "tombstone": tombstone,
        "lwwMillis": written.written_at.0,
        "dot": written.dot.to_string(),
        "superseded": written.superseded.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "remembered": written.remembered,
        "context": BASE64.encode(&written.context),
        "level": level_fields(written.level),
    });
    with(fields, key_fields(key))
}

fn causality(context: Option<String>) -> Result<Causality, Failed> {
    match context.as_deref() {
        None => Ok(Causality::Blind),
        Some("none") => Ok(Causality::Sibling),
        Some(text) => match BASE64.decode(text) {
            Ok(token) => Ok(Causality::Context(Bytes::from(token))),
            Err(error) => Err(Failed::wrong_use(format!("--context is not one that get printed: {error}"))),
        },
    }
}

fn value(text: Option<String>, file: Option<&Path>) -> Result<Value, Failed> {
    let bytes = match (text, file) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(path)) => {
            read_value(path).map_err(|error| Failed::refused(format!("{}: {error}", path.display())))?
        }
        (None, None) => {
            return Err(Failed::wrong_use(
                "a value is missing: put KEY VALUE, or put KEY --file FILE (- for standard input)",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(Failed::wrong_use("a value and --file are given: only one of them can be meant"));
        }
    };
    Value::new(bytes).map_err(Failed::refused)
}

/// One byte more than is allowed is enough to be refused.
fn read_value(path: &Path) -> io::Result<Vec<u8>> {
    let from: Box<dyn Read> = if path == Path::new("-") { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
    let mut bytes = Vec::new();
    from.take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
