//! `sloop get`, `sloop siblings`, `sloop keys`.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime};

use argh::FromArgs;
use base64::Engine as _;
use serde_json::{Value as Json, json};

use super::output::Output;
use super::{BASE64, Failed, Said, Target, Told, key, key_fields, level_fields, run, shown, terms, with};
use crate::client::{self, Client, Copy, Entry, Key, Reply, Request, Sibling};
use crate::protocol::types::WallTime;

/// Longest beginning of a value on a line of `sloop siblings`.
const PREVIEW_BYTES: usize = 60;

/// Print a key's value. Where clients wrote it at the same time it has several: the latest is printed, and a note
/// says so.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "get", help_triggers("-h", "--help"))]
pub struct Get {
    /// the key
    #[argh(positional)]
    key: String,
    /// the key is given in hexadecimal digits
    #[argh(switch)]
    hex: bool,
    /// print the context instead of the value: put and del take it to replace exactly what was read
    #[argh(switch)]
    context: bool,
    /// copies to read (as the cluster says)
    #[argh(option)]
    quorum: Option<u8>,
    /// print all values, the context and how the read was served
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

impl Get {
    /// Asks and tells.
    ///
    /// # Errors
    /// [`Failed`] when the key is not found or the node refuses.
    pub fn run(mut self) -> Result<Said, Failed> {
        let (target, raw) = (Target::take(&mut self.addr, &mut self.token, &mut self.deadline), !self.json);
        let mut said = run(target, |client| self.ask(client))?;
        if raw && io::stdout().is_terminal() {
            // For people: the prompt comes on a line of its own. Files and pipes get the value exactly.
            said.line("");
        }
        Ok(said)
    }

    pub(super) async fn ask(self, client: Client) -> Result<Told, Failed> {
        let key = key(&self.key, self.hex)?;
        let get = client::Get { key: key.clone(), terms: terms(self.quorum) };
        match client.ask(Request::Get(get)).await? {
            Reply::Found(found) => Ok(self.tell(&Entry::new(key, found))),
            other => Err(Failed::refused(format!("the node answered a get with {other:?}"))),
        }
    }

    fn tell(self, entry: &Entry) -> Told {
        let mut told = Told::default();
        if self.context {
            told.said.bytes(BASE64.encode(entry.context()).as_bytes());
            return told;
        }
        if self.json {
            told.said.line(&entry_json(entry).to_string());
        } else if let Some(latest) = entry.latest() {
            told.said.bytes(latest.value.as_bytes());
        }
        match entry.siblings().len() {
            0 => told.failed = Some(Failed::refused(format!("not found: {}", entry.key()))),
            1 => {}
            _ if self.json => {}
            n => told.notes.push(format!(
                "{} has {n} values, written at the same time, and this is the latest: `sloop siblings` shows all, \
                 a put replaces them all",
                entry.key()
            )),
        }
        told
    }
}

fn entry_json(entry: &Entry) -> Json {
    let sibling = |sibling: &Sibling| {
        json!({
            "valueBase64": BASE64.encode(sibling.value.as_bytes()),
            "lwwMillis": sibling.written_at.0,
            "dot": sibling.dot.to_string(),
        })
    };
    let fields = json!({
        "found": !entry.is_absent(),
        "valueBase64": entry.latest().map(|sibling| BASE64.encode(sibling.value.as_bytes())),
        "siblings": entry.siblings().iter().map(sibling).collect::<Vec<_>>(),
        "context": BASE64.encode(entry.context()),
        "level": level_fields(entry.level()),
    });
    with(fields, key_fields(entry.key()))
}

/// List what one node keeps of a key: when each version was written, by which node, its name and size, the value's
/// beginning.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "siblings", help_triggers("-h", "--help"))]
pub struct Siblings {
    /// the key
    #[argh(positional)]
    key: String,
    /// the key is given in hexadecimal digits
    #[argh(switch)]
    hex: bool,
    /// print everything as JSON, values whole
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

impl Siblings {
    /// Asks and tells.
    ///
    /// # Errors
    /// [`Failed`] when the node has never heard of the key, or refuses.
    pub fn run(mut self) -> Result<Said, Failed> {
        run(Target::take(&mut self.addr, &mut self.token, &mut self.deadline), |client| self.ask(client))
    }

    pub(super) async fn ask(self, client: Client) -> Result<Told, Failed> {
        let key = key(&self.key, self.hex)?;
        let copies = client.siblings(key.as_bytes()).await?;
        let mut told = Told::default();
        if self.json {
            let fields = json!({
                "siblings": copies.copies.iter().map(copy_json).collect::<Vec<_>>(),
                "context": BASE64.encode(&copies.context),
            });
            told.said.line(&with(fields, key_fields(&key)).to_string());
        } else {
            copies.copies.iter().for_each(|copy| told.said.line(&copy_line(copy)));
        }
        if copies.copies.is_empty() {
            told.failed = Some(Failed::refused(format!("not found: {key}")));
        }
        Ok(told)
    }
}

fn copy_json(copy: &Copy) -> Json {
    json!({
        "tombstone": copy.value.is_none(),
        "valueBase64": copy.value.as_ref().map(|value| BASE64.encode(value.as_bytes())),
        "lwwMillis": copy.written_at.0,
        "node": copy.node,
        "dot": copy.dot.to_string(),
        "opId": copy.operation.as_ref().map(|id| shown(id.as_bytes())),
    })
}

fn copy_line(copy: &Copy) -> String {
    let value = match &copy.value {
        None => "-\tdeleted".to_owned(),
        Some(value) => {
            let bytes = value.as_bytes();
            let begin = shown(&bytes[..bytes.len().min(PREVIEW_BYTES)]);
            let more = if bytes.len() <= PREVIEW_BYTES { "" } else { ".." };
            format!("{} B\t{begin}{more}", bytes.len())
        }
    };
    format!("{}\t{}\t{}\t{value}", time(copy.written_at), copy.node, copy.dot)
}

fn time(at: WallTime) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(at.0));
    time.map_or_else(|| at.0.to_string(), |time| humantime::format_rfc3339_millis(time).to_string())
}

/// List a node's keys, a line each, in the node's own order. Keys that are not plain text are escaped.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "keys", help_triggers("-h", "--help"))]
pub struct Keys {
    /// only keys that begin with this
    #[argh(option, default = "String::new()")]
    prefix: String,
    /// the prefix is given, and the keys are printed, in hexadecimal digits
    #[argh(switch)]
    hex: bool,
    /// print a JSON object a line, with the exact key in base64
    #[argh(switch)]
    json: bool,
    /// node, or nodes with commas between them (SLOOP_ADDR, 127.0.0.1:7600)
    #[argh(option)]
    addr: Option<String>,
    /// what the node asks for (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
    /// time to try, for each page (5s)
    #[argh(option)]
    deadline: Option<String>,
}

impl Keys {
    /// Asks and tells.
    ///
    /// # Errors
    /// [`Failed`] when the node refuses.
    pub fn run(mut self) -> Result<Said, Failed> {
        let target = Target::take(&mut self.addr, &mut self.token, &mut self.deadline);
        run(target, async |client| self.ask(client, Output::open(None)?).await)
    }

    pub(super) async fn ask(self, client: Client, mut out: Output<impl Write>) -> Result<Told, Failed> {
        let mut told = Told::default();
        let mut escaped = 0;
        let mut listing = client.keys(prefix(&self.prefix, self.hex)?);
        while let Some(page) = listing.next_page().await? {
            for key in page {
                let plain = shown(key.as_bytes());
                escaped += usize::from(plain.as_bytes() != key.as_bytes());
                out.line(&self.line(&key, plain))?;
            }
            if out.is_gone() {
                return Ok(told);
            }
        }
        out.flush()?;
        if escaped > 0 && !self.hex && !self.json {
            told.notes.push(format!(
                "{escaped} keys are not plain text and shown escaped: --hex or --json shows them exactly"
            ));
        }
        Ok(told)
    }

    fn line(&self, key: &Key, plain: String) -> String {
        match (self.json, self.hex) {
            (true, _) => key_fields(key).to_string(),
            (_, true) => hex::encode(key.as_bytes()),
            _ => plain,
        }
    }
}

pub(super) fn prefix(text: &str, hex: bool) -> Result<Vec<u8>, Failed> {
    if !hex {
        return Ok(text.as_bytes().to_vec());
    }
    hex::decode(text).map_err(|error| Failed::wrong_use(format!("the prefix {text:?} is not hexadecimal: {error}")))
}
