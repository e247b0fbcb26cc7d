//! `sloop snapshot create` and `sloop snapshot restore`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use argh::FromArgs;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::http::Site;
use super::{Failed, Said};
use crate::runtime::opening;
use crate::store::snapshot::Summary;
use crate::store::snapshot::folder::{self, Unfinished};

/// Time for the first byte: a checkpoint of the whole node goes before it.
const FIRST_MAX: Duration = Duration::from_secs(150);

/// Time from one piece to the next.
const NEXT_MAX: Duration = Duration::from_secs(60);

/// Most of a refusal that is shown.
const REFUSAL_BYTES_MAX: usize = 4_096;

/// Take a snapshot of a running node, or make a new cluster from one.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "snapshot")]
pub struct Command {
    #[argh(subcommand)]
    what: What,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum What {
    Create(Create),
    Restore(Restore),
}

/// Take a snapshot of a running node; writes go on meanwhile.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "create")]
struct Create {
    /// the directory to write it to: empty, or one that does not exist
    #[argh(positional)]
    dir: PathBuf,
    /// the node's HTTP address (SLOOP_HTTP_ADDR, or 127.0.0.1:7601)
    #[argh(option)]
    http: Option<String>,
    /// the node's token (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
}

/// Make a new cluster of one node from a snapshot.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "restore")]
struct Restore {
    /// the snapshot's directory
    #[argh(positional)]
    dir: PathBuf,
    /// the new node's data directory: empty, or one that does not exist
    #[argh(option)]
    data_dir: PathBuf,
}

impl Command {
    /// # Errors
    /// Why there is no snapshot, or no cluster from it.
    pub fn run(self) -> Result<Said, Failed> {
        match self.what {
            What::Create(create) => create.run(),
            What::Restore(restore) => restore.run(),
        }
    }
}

impl Create {
    fn run(self) -> Result<Said, Failed> {
        let Site { address, token } = Site::new(self.http, self.token);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut unfinished = Unfinished::begin(&self.dir)?;
        match runtime.block_on(take(&address, token.as_deref(), &mut unfinished)) {
            Ok(summary) => Ok(told("taken", &self.dir, summary)),
            Err(failed) => {
                unfinished.discard()?;
                Err(failed)
            }
        }
    }
}

impl Restore {
    fn run(self) -> Result<Said, Failed> {
        let (summary, entries) = folder::open(&self.dir)?;
        opening::restore(&self.data_dir, summary.partitions, entries.map(|entry| entry.map_err(Failed::from)))?;
        Ok(told("restored", &self.dir, summary))
    }
}

fn told(done: &str, dir: &Path, summary: Summary) -> Said {
    let Summary { keys, bytes, digest, .. } = summary;
    let mut said = Said::default();
    said.line(&format!("{done} {}: {keys} keys, {bytes} bytes, digest {digest:016x}", dir.display()));
    said
}

async fn take(address: &str, token: Option<&str>, unfinished: &mut Unfinished) -> Result<Summary, Failed> {
    receive(ask(address, token).await?, unfinished).await?;
    Ok(unfinished.finish()?)
}

async fn ask(address: &str, token: Option<&str>) -> Result<Incoming, Failed> {
    let unreachable = |why: &dyn std::fmt::Display| {
        Failed::refused(format!("no answer from http://{address}: {why}; is the node running there? (--http)"))
    };
    let asking = async {
        let socket = TcpStream::connect(address).await.map_err(|error| unreachable(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(socket)).await.map_err(|error| unreachable(&error))?;
        tokio::spawn(connection);
        let mut request = Request::get("/admin/snapshot").header(HOST, address);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::<Bytes>::new())?;
        sender.send_request(request).await.map_err(|error| unreachable(&error))
    };
    let response = timeout(FIRST_MAX, asking).await.map_err(|_late| unreachable(&"it is too slow"))??;
    if response.status() == StatusCode::OK { Ok(response.into_body()) } else { Err(refusal(response).await) }
}

/// What a node says in place of a snapshot.
async fn refusal(response: Response<Incoming>) -> Failed {
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let told: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let reason = told.as_ref().and_then(|told| told["error"].as_str()).unwrap_or("no reason given");
    Failed::refused(format!("the node refused a snapshot: {reason} ({status})"))
}

async fn receive(mut stream: Incoming, unfinished: &mut Unfinished) -> Result<(), Failed> {
    loop {
        let next = timeout(NEXT_MAX, stream.frame()).await;
        match next.map_err(|_late| Failed::refused("the snapshot has stalled: the node sends no more"))? {
            None => return Ok(()),
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    unfinished.write(&piece)?;
                }
            }
            Some(Err(error)) => {
                return Err(Failed::refused(format!("the snapshot broke off: {error}; the node's log says why")));
            }
        }
    }
}
