//! `sloop dump`, `sloop load`.
//!
//! A load makes each key of a dump hold exactly the values that its line names, and touches no other key. A key that
//! holds them already is left alone, so a load that was cut off, or is done twice, is simply done again. What another
//! client writes meanwhile was not seen: it stays as a sibling.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use argh::FromArgs;
use serde_json::json;
use tokio::task::JoinSet;

use super::line::{self, Line};
use super::output::Output;
use super::read::prefix;
use super::{Failed, Said, Target, Told, run};
use crate::client::{self, Causality, Client, Entry, Key, Request, Terms, Value};

/// Keys that are read together.
const READ_KEYS: usize = 100;

/// Keys, and bytes of values, that are written at once.
const WRITTEN_KEYS_MAX: usize = 64;
const WRITTEN_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Longest line: a set of the largest size, each byte of it escaped as six.
const LINE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Print all keys of a node with their values, as lines of JSON that load takes.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "dump", help_triggers("-h", "--help"))]
pub struct Dump {
    /// only keys that begin with this
    #[argh(option, default = "String::new()")]
    prefix: String,
    /// the prefix is given in hexadecimal digits
    #[argh(switch)]
    hex: bool,
    /// write to this new file instead of standard output
    #[argh(option)]
    file: Option<PathBuf>,
    /// print the number of keys as JSON, with --file
    #[argh(switch)]
    json: bool,
    /// node, or nodes with commas between them (SLOOP_ADDR, 127.0.0.1:7600)
    #[argh(option)]
    addr: Option<String>,
    /// what the node asks for (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
    /// time to try, for each part (5s)
    #[argh(option)]
    deadline: Option<String>,
}

impl Dump {
    /// Asks and tells.
    ///
    /// # Errors
    /// [`Failed`] when the node refuses or the file cannot be written.
    pub fn run(mut self) -> Result<Said, Failed> {
        let target = Target::take(&mut self.addr, &mut self.token, &mut self.deadline);
        if self.json && self.file.is_none() {
            return Err(Failed::wrong_use("a dump is JSON already: --json goes with --file"));
        }
        run(target, async |client| {
            let out = Output::open(self.file.as_deref())?;
            self.ask(client, out).await
        })
    }

    pub(super) async fn ask(self, client: Client, mut out: Output<impl Write>) -> Result<Told, Failed> {
        let mut keys = 0;
        let mut listing = client.keys(prefix(&self.prefix, self.hex)?);
        out.line(&line::head())?;
        while let Some(page) = listing.next_page().await? {
            for some in page.chunks(READ_KEYS) {
                for entry in client.get_many(some.iter().map(Key::as_bytes)).await {
                    let entry = entry?;
                    if !entry.is_absent() {
                        keys += 1;
                        out.line(&line::entry(&entry))?;
                    }
                }
            }
            if out.is_gone() {
                return Ok(Told::default());
            }
        }
        out.line(&line::end(keys))?;
        out.flush()?;
        Ok(if self.json { Told::json(&json!({ "keys": keys })) } else { Told::default() })
    }
}

/// Write the keys of a dump. Each then holds exactly what the dump says; loading it again changes nothing.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "load", help_triggers("-h", "--help"))]
pub struct Load {
    /// read this file instead of standard input
    #[argh(option)]
    file: Option<PathBuf>,
    /// leave keys alone that hold a value already
    #[argh(switch)]
    keep: bool,
    /// print the numbers as JSON
    #[argh(switch)]
    json: bool,
    /// node, or nodes with commas between them (SLOOP_ADDR, 127.0.0.1:7600)
    #[argh(option)]
    addr: Option<String>,
    /// what the node asks for (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
    /// time to try, for each key (5s)
    #[argh(option)]
    deadline: Option<String>,
}

/// What a load did.
#[derive(Debug, Default)]
struct Loaded {
    keys: u64,
    written: u64,
}

impl Load {
    /// Writes and tells.
    ///
    /// # Errors
    /// [`Failed`] when the node refuses, or the input is no whole dump; what was read before that is written.
    pub fn run(mut self) -> Result<Said, Failed> {
        let target = Target::take(&mut self.addr, &mut self.token, &mut self.deadline);
        run(target, async |client| {
            let from = input(self.file.as_deref())?;
            self.ask(client, from).await
        })
    }

    pub(super) async fn ask(self, client: Client, from: impl Read) -> Result<Told, Failed> {
        let mut loaded = Loaded::default();
        let ended = self.write_all(&client, Lines::new(from), &mut loaded).await;
        let Loaded { keys, written } = loaded;
        if let Err(Failed { message, code }) = ended {
            return Err(Failed { message: format!("{message} ({keys} keys were loaded)"), code });
        }
        if self.json {
            return Ok(Told::json(&json!({ "keys": keys, "written": written })));
        }
        let left = keys - written;
        let note = format!("{keys} keys: {written} written, {left} left as they were");
        Ok(Told { notes: vec![note], ..Told::default() })
    }

    async fn write_all(&self, client: &Client, mut lines: Lines<impl Read>, loaded: &mut Loaded) -> Result<(), Failed> {
        let mut writes = JoinSet::new();
        let mut under_way = BTreeSet::new();
        let mut bytes = 0;
        let mut read = 0;
        let end = loop {
            let line = lines.next();
            let is_full = writes.len() >= WRITTEN_KEYS_MAX || bytes >= WRITTEN_BYTES_MAX;
            if is_full || !matches!(&line, Ok(Line::Key(key, _)) if !under_way.contains(key)) {
                loaded.count(&mut writes).await?;
                under_way.clear();
                bytes = 0;
            }
            match line? {
                Line::Head => return Err(lines.failed("a dump begins here, in the middle of another one")),
                Line::End { keys } => break keys,
                Line::Key(key, values) => {
                    read += 1;
                    bytes += values.iter().map(Value::len).sum::<usize>();
                    under_way.insert(key.clone());
                    let settling = settle(client.clone(), key.clone(), values, self.keep);
                    writes.spawn(async move { settling.await.map_err(|error| failed_on(&key, error)) });
                }
            }
        };
        if end != read {
            return Err(lines.failed(&format!("the dump says that it has {end} keys, {read} were read")));
        }
        Ok(())
    }
}

impl Loaded {
    /// Waits for what is under way; all of it ends before an error is told.
    async fn count(&mut self, writes: &mut JoinSet<Result<bool, String>>) -> Result<(), Failed> {
        let mut failed = None;
        while let Some(done) = writes.join_next().await {
            match done? {
                Ok(written) => {
                    self.keys += 1;
                    self.written += u64::from(written);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), |error| Err(Failed::refused(error)))
    }
}

fn failed_on(key: &Key, error: client::Error) -> String {
    let Failed { message, .. } = error.into();
    format!("key {key}: {message}")
}

/// Makes a key hold exactly these values, and says whether that took a write.
async fn settle(client: Client, key: Key, values: Vec<Value>, keep: bool) -> client::Result<bool> {
    let entry = client.get(key.as_bytes()).await?;
    if holds(&entry, &values) || (keep && !entry.is_absent()) {
        return Ok(false);
    }
    let mut values = values.into_iter();
    match values.next() {
        None => client.remove(&entry).await?,
        Some(first) => client.replace(&entry, first.bytes().clone()).await?,
    };
    for value in values {
        let put = client::Put {
            key: key.clone(),
            value,
            causality: Causality::Sibling,
            operation: None,
            terms: Terms::default(),
        };
        client.ask(Request::Put(put)).await?;
    }
    Ok(true)
}

/// Whether the key's values are these, in any order.
fn holds(entry: &Entry, values: &[Value]) -> bool {
    let mut held: Vec<&Value> = entry.siblings().iter().map(|sibling| &sibling.value).collect();
    let mut wanted: Vec<&Value> = values.iter().collect();
    held.sort();
    wanted.sort();
    held == wanted
}

fn input(file: Option<&Path>) -> Result<Box<dyn Read>, Failed> {
    let Some(path) = file.filter(|path| *path != Path::new("-")) else {
        return Ok(Box::new(io::stdin()));
    };
    let file = File::open(path).map_err(|error| Failed::refused(format!("{}: {error}", path.display())))?;
    Ok(Box::new(file))
}

/// The lines of a dump, behind its head.
struct Lines<R> {
    from: BufReader<R>,
    number: u64,
    line: Vec<u8>,
}

impl<R: Read> Lines<R> {
    fn new(from: R) -> Lines<R> {
        Lines { from: BufReader::new(from), number: 0, line: Vec::new() }
    }

    fn next(&mut self) -> Result<Line, Failed> {
        if self.number == 0 && self.read()? != Line::Head {
            return Err(self.failed("this is not the beginning of a dump: {\"sloop\":\"dump\",\"format\":1}"));
        }
        self.read()
    }

    fn read(&mut self) -> Result<Line, Failed> {
        self.number += 1;
        self.line.clear();
        let read = self.from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line);
        match read {
            Err(error) => Err(self.failed(&error.to_string())),
            Ok(0) => Err(self.failed("the dump ends without its last line: it was cut off")),
            Ok(_) => line::parse(&self.line).map_err(|error| self.failed(&error.to_string())),
        }
    }

    fn failed(&self, what: &str) -> Failed {
        Failed::refused(format!("line {}: {what}", self.number))
    }
}
