//! One connection: the handshake, and calls and answers over it.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, interval, timeout};

use super::{Error, Options, Result};
use crate::protocol::message::{Answer, Call, Failure};
use crate::wire::frame::ANSWER_BYTES_MAX;
use crate::wire::hello::{Features, GREETING_BYTES_MAX, Hello, Kind, VERSIONS, Welcome, decode_greeting};
use crate::wire::{CallId, Frame, decode_answer, encode_call, next_frame, reserve_rest};

/// Room for one read.
const READ_BYTES: usize = 16 * 1024;

/// Calls are taken up to this much that waits to be written; beyond it the node is not reading.
const UNWRITTEN_BYTES_MAX: usize = 256 * 1024;

/// A node ends every call by its deadline. One that is silent for this much longer is gone.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// One call on its way to the connection.
#[derive(Debug)]
pub(super) struct Job {
    pub call: Call,
    pub ends: Instant,
    pub answer: oneshot::Sender<Result<Answer>>,
}

/// A welcome, and what is under way.
#[derive(Debug)]
pub(super) struct Connection {
    /// Which of the options' nodes this is.
    pub at: usize,
    node: String,
    welcome: Welcome,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    read: BytesMut,
    unwritten: BytesMut,
    pending: BTreeMap<CallId, Pending>,
    last: CallId,
    leaving: bool,
}

#[derive(Debug)]
struct Pending {
    ends: Instant,
    answer: oneshot::Sender<Result<Answer>>,
}

/// Why a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nobody is left to ask anything.
    Unused,
    /// It is lost, or the node is stopping; all that was under way has been told.
    Lost,
}

/// Connects to the first node that welcomes us, beginning with the one at `start`.
///
/// A refusal ends the search where another node would refuse as well, for the token or the version.
pub(super) async fn connect(options: &Options, start: usize) -> Result<Connection> {
    let nodes = options.nodes.len();
    let mut failed = None;
    for at in (start..start + nodes).map(|at| at % nodes) {
        match connect_to(options, at).await {
            Ok(connection) => return Ok(connection),
            Err(error @ Error::Failure(Failure::Unauthorized | Failure::Version { .. })) => return Err(error),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.expect("splitting a text gives at least one node"))
}

async fn connect_to(options: &Options, at: usize) -> Result<Connection> {
    let node = options.nodes[at].clone();
    let failed = |reason: String| Error::Connection { node: node.clone(), reason, sent: false };
    let shaken = timeout(options.connect_timeout, shake_hands(options, &node)).await;
    let late = || failed(format!("no answer within {} ms", options.connect_timeout.as_millis()));
    let (stream, welcome, read) = shaken.map_err(|_| late())?.map_err(|error| failed(error.to_string()))??;
    let (reader, writer) = stream.into_split();
    Ok(Connection {
        at,
        node,
        welcome,
        reader,
        writer,
        read,
        unwritten: BytesMut::new(),
        pending: BTreeMap::new(),
        last: CallId::NONE,
        leaving: false,
    })
}

type Shaken = std::result::Result<(TcpStream, Welcome, BytesMut), Failure>;

async fn shake_hands(options: &Options, node: &str) -> io::Result<Shaken> {
    let mut stream = TcpStream::connect(node).await?;
    stream.set_nodelay(true)?;
    let hello = Hello {
        versions: VERSIONS,
        features: Features::default(),
        kind: Kind::Client,
        core: options.core,
        token: options.token.clone(),
    };
    let mut out = BytesMut::new();
    hello.encode(&mut out);
    stream.write_all(&out).await?;
    let mut read = BytesMut::with_capacity(GREETING_BYTES_MAX);
    loop {
        if let Some((greeting, taken)) = decode_greeting(&read).map_err(invalid)? {
            let behind = BytesMut::from(&read[taken..]);
            return Ok(greeting.map(|welcome| (stream, welcome, behind)));
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(closed());
        }
    }
}

impl Connection {
    /// Carries calls and answers until the connection is lost or nobody asks any more.
    pub(super) async fn carry(mut self, first: Option<Job>, jobs: &mut mpsc::Receiver<Job>) -> End {
        if let Some(first) = first {
            self.take(first, jobs);
        }
        match self.carry_on(jobs).await {
            Ok(end) => end,
            Err(error) => {
                self.tell_all(&error.to_string());
                End::Lost
            }
        }
    }

    async fn carry_on(&mut self, jobs: &mut mpsc::Receiver<Job>) -> io::Result<End> {
        let mut silence = interval(SILENCE_MAX / 4);
        loop {
            if self.leaving && self.pending.is_empty() {
                return Ok(End::Lost);
            }
            reserve_rest(&mut self.read, ANSWER_BYTES_MAX).map_err(invalid)?;
            if self.read.capacity() == self.read.len() {
                self.read.reserve(READ_BYTES);
            }
            tokio::select! {
                job = jobs.recv(), if self.may_take() => match job {
                    Some(job) => self.take(job, jobs),
                    None => return Ok(End::Unused),
                },
                read = self.reader.read_buf(&mut self.read) => match read? {
                    0 => return Err(closed()),
                    _ => self.hear()?,
                },
                written = self.writer.write_buf(&mut self.unwritten), if !self.unwritten.is_empty() => {
                    written?;
                }
                _ = silence.tick() => self.check_silence()?,
            }
        }
    }

    fn may_take(&self) -> bool {
        !self.leaving
            && self.pending.len() < self.welcome.limits.in_flight as usize
            && self.unwritten.len() < UNWRITTEN_BYTES_MAX
    }

    /// Takes a call, and with it all that already wait, so that they leave in one write.
    fn take(&mut self, first: Job, jobs: &mut mpsc::Receiver<Job>) {
        self.ask(first);
        while self.may_take()
            && let Ok(job) = jobs.try_recv()
        {
            self.ask(job);
        }
    }

    fn ask(&mut self, job: Job) {
        let Job { call, ends, answer } = job;
        if answer.is_closed() {
            return;
        }
        let id = CallId(self.last.0 + 1);
        match encode_call(&mut self.unwritten, id, &call) {
            Ok(()) => {
                self.last = id;
                self.pending.insert(id, Pending { ends, answer });
            }
            Err(error) => tell(answer, Err(error.into())),
        }
    }

    fn hear(&mut self) -> io::Result<()> {
        let read = |frame: Frame<'_>| (frame.id, decode_answer(frame));
        while let Some((id, answer)) = next_frame(&mut self.read, ANSWER_BYTES_MAX, read).map_err(invalid)? {
            let answer = answer.map_err(invalid)?;
            if let Answer::One(Err(failure)) = &answer {
                self.leaving |= *failure == Failure::Stopping;
                if id == CallId::NONE {
                    return Err(io::Error::other(failure.clone()));
                }
            }
            if let Some(pending) = self.pending.remove(&id) {
                tell(pending.answer, Ok(answer));
            }
        }
        Ok(())
    }

    fn check_silence(&self) -> io::Result<()> {
        let now = Instant::now();
        match self.pending.values().find(|pending| pending.ends + SILENCE_MAX < now) {
            Some(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the node went silent")),
            None => Ok(()),
        }
    }

    fn tell_all(&mut self, reason: &str) {
        for pending in std::mem::take(&mut self.pending).into_values() {
            let lost = Error::Connection { node: self.node.clone(), reason: reason.to_owned(), sent: true };
            tell(pending.answer, Err(lost));
        }
    }
}

/// Tells the caller, if it still waits: one that gave up needs no answer.
pub(super) fn tell(answer: oneshot::Sender<Result<Answer>>, outcome: Result<Answer>) {
    drop(answer.send(outcome));
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the node closed the connection")
}

fn invalid(error: crate::wire::WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
