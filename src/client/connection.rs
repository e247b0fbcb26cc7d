//! One connection: the handshake, and calls and answers over it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::links::Target;
use super::{Error, Options, Result};
use crate::protocol::message::{Answer, Call, Failure};
use crate::protocol::types::{CoreId, NodeId};
use crate::wire::frame::ANSWER_BYTES_MAX;
use crate::wire::hello::{Features, GREETING_BYTES_MAX, Hello, Kind, VERSIONS, Welcome, decode_greeting};
use crate::wire::{CallId, Frame, decode_answer, encode_call, next_frame, reserve_rest};

/// Room for one read.
const READ_BYTES: usize = 16 * 1024;

/// Calls are taken up to this much that waits to be written; beyond it the node is not reading.
const UNWRITTEN_BYTES_MAX: usize = 256 * 1024;

/// A node ends every call by its deadline. One that is silent for this much longer is gone.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// A ping waits for no disk. A node that does not answer it within this stands still, or cannot be reached.
const PING_MAX: Duration = Duration::from_millis(500);

/// A node that has calls and says nothing for this long is quiet: new calls rather go elsewhere. It is more than a
/// group commit on a strained disk takes.
const QUIET: Duration = Duration::from_millis(250);

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
    /// Which of the options' nodes this is, if it is one of them.
    pub at: Option<usize>,
    /// Where it was reached.
    pub address: String,
    /// Set while calls are under way and nothing has been heard for [`QUIET`].
    pub is_quiet: Arc<AtomicBool>,
    heard_at: Instant,
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
    /// Without an answer until then the node is gone.
    gone_at: Instant,
    answer: oneshot::Sender<Result<Answer>>,
}

/// Why a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nobody is left to ask anything.
    Unused,
    /// The node closed it while nothing was under way: it had been idle for long, or the node stops.
    Closed,
    /// It is lost, or the node is stopping; all that was under way has been told.
    Lost,
}

/// Connects to the first node that welcomes us: the options' nodes, beginning with the one at `start`, then the others.
///
/// A refusal ends the search where another node would refuse as well, for the token or the version.
pub(super) async fn connect(options: &Options, start: usize, others: Vec<String>) -> Result<Connection> {
    let nodes = options.nodes.len();
    let mut failed = None;
    let named = (start..start + nodes).map(|at| at % nodes).map(|at| (Some(at), options.nodes[at].clone()));
    let others = others.into_iter().filter(|node| !options.nodes.contains(node)).map(|node| (None, node));
    for (at, node) in named.chain(others) {
        match connect_to(options, at, node, options.core).await {
            Ok(connection) => return Ok(connection),
            Err(error @ Error::Failure(Failure::Unauthorized | Failure::Version { .. })) => return Err(error),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or_else(|| Error::Connection {
        node: "client".to_owned(),
        reason: "no node was named".to_owned(),
        sent: false,
    }))
}

/// Connects to one node.
pub(super) async fn connect_to(
    options: &Options,
    at: Option<usize>,
    node: String,
    core: Option<CoreId>,
) -> Result<Connection> {
    let failed = |reason: String| Error::Connection { node: node.clone(), reason, sent: false };
    let shaken = timeout(options.connect_timeout, shake_hands(options, &node, core)).await;
    let late = || failed(format!("no answer within {} ms", options.connect_timeout.as_millis()));
    let (stream, welcome, read) = shaken.map_err(|_| late())?.map_err(|error| failed(error.to_string()))??;
    let (reader, writer) = stream.into_split();
    Ok(Connection {
        at,
        address: node,
        is_quiet: Arc::default(),
        heard_at: Instant::now(),
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

async fn shake_hands(options: &Options, node: &str, core: Option<CoreId>) -> io::Result<Shaken> {
    let mut stream = TcpStream::connect(node).await?;
    stream.set_nodelay(true)?;
    let hello = Hello {
        versions: VERSIONS,
        features: Features::default(),
        kind: Kind::Client,
        core,
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
    /// Who answers on it.
    pub(super) fn target(&self) -> Target {
        Target { node: NodeId::of(&self.welcome.node), core: self.welcome.core }
    }

    /// Carries calls and answers until the connection is lost or nobody asks any more.
    pub(super) async fn carry(mut self, mut jobs: mpsc::Receiver<Job>) -> End {
        match self.carry_on(&mut jobs).await {
            Ok(end) => end,
            Err(error) => {
                let was_idle = self.pending.is_empty() && error.kind() == io::ErrorKind::UnexpectedEof;
                self.turn_away(&mut jobs, &error.to_string());
                self.tell_all(&error.to_string());
                if was_idle { End::Closed } else { End::Lost }
            }
        }
    }

    async fn carry_on(&mut self, jobs: &mut mpsc::Receiver<Job>) -> io::Result<End> {
        let mut silence = interval(QUIET / 2);
        silence.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.leaving {
                self.turn_away(jobs, &Failure::Stopping.to_string());
                if self.pending.is_empty() {
                    return Err(io::Error::other(Failure::Stopping));
                }
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
                _ = silence.tick(), if !self.pending.is_empty() => self.check_silence()?,
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
        if self.pending.is_empty() {
            self.heard_at = Instant::now();
        }
        let id = CallId(self.last.0 + 1);
        match encode_call(&mut self.unwritten, id, &call) {
            Ok(()) => {
                self.last = id;
                self.pending.insert(id, Pending { gone_at: ends + SILENCE_MAX, answer });
            }
            Err(error) => tell(answer, Err(error.into())),
        }
    }

    fn hear(&mut self) -> io::Result<()> {
        self.heard_at = Instant::now();
        self.is_quiet.store(false, Ordering::Relaxed);
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

    /// Once nothing was heard for a while, a ping asks whether the node is slow or gone: one that does not answer it
    /// either is gone, and what it had may be asked elsewhere.
    fn check_silence(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if self.heard_at + QUIET < now && !self.is_quiet.swap(true, Ordering::Relaxed) && self.may_take() {
            let (answer, _) = oneshot::channel();
            self.last = CallId(self.last.0 + 1);
            encode_call(&mut self.unwritten, self.last, &Call::Ping).expect("a ping fits in any frame");
            self.pending.insert(self.last, Pending { gone_at: now + PING_MAX, answer });
        }
        match self.pending.values().find(|pending| pending.gone_at < now) {
            Some(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the node went silent")),
            None => Ok(()),
        }
    }

    fn tell_all(&mut self, reason: &str) {
        for pending in std::mem::take(&mut self.pending).into_values() {
            tell(pending.answer, Err(self.lost(reason, true)));
        }
    }

    /// Takes no more calls; those that wait go elsewhere.
    fn turn_away(&self, jobs: &mut mpsc::Receiver<Job>, reason: &str) {
        jobs.close();
        while let Ok(job) = jobs.try_recv() {
            tell(job.answer, Err(self.lost(reason, false)));
        }
    }

    fn lost(&self, reason: &str, sent: bool) -> Error {
        Error::Connection { node: self.address.clone(), reason: reason.to_owned(), sent }
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
