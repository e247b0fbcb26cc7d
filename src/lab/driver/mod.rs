//! The loop that asks and times: a few threads, each over many connections that never block.
//!
//! It must cost far less than the server that it measures. On a wake-up a connection reads once, reads the clock once,
//! hears all answers that have come, writes the requests that follow them and sends them at once; nothing is allocated
//! for an operation. In a closed loop an answer makes room for the next request; in an open one ([`Plan::rate`]) the
//! clock does, and a server that cannot follow shows it as latency.

mod buffer;
mod connection;
mod desk;
mod pace;
mod worker;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use self::connection::Connection;
use self::desk::Desk;
use self::pace::{Pace, Schedule};
use self::worker::{Worker, clock};
use super::dialect::{Dialect, Heard, Opening, Said};
use super::recorder::Recorder;
use super::tally::Tally;
use super::workload::Source;

/// Time for all connections to open before the clock of a run starts.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How much is asked, and how hard.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where the server listens; connections go to these in turn.
    pub addresses: Vec<SocketAddr>,
    /// Connections over all threads, at least one for each.
    pub connections: usize,
    /// Requests under way on a connection at most.
    pub pipeline: u16,
    /// Operations that begin within this time are not counted.
    pub warmup: Duration,
    /// When to end.
    pub limit: Limit,
    /// Operations a second over all threads; none for as many as the server answers.
    pub rate: Option<f64>,
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// After this time behind the warm-up.
    Time(Duration),
    /// After this many operations behind the warm-up.
    Operations(u64),
    /// When the sources have no more.
    Exhaustion,
}

/// A run under way. It goes on when this is dropped.
#[derive(Debug)]
pub struct Running {
    threads: Vec<JoinHandle<io::Result<Tally>>>,
    shared: Arc<Shared>,
}

/// What the threads of a run show to the outside.
#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    progress: Vec<ThreadProgress>,
}

#[derive(Debug, Default)]
struct ThreadProgress {
    operations: AtomicU64,
    errors: AtomicU64,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Operations that have ended, with those of the warm-up.
    pub operations: u64,
    /// Errors among them.
    pub errors: u64,
}

/// Ends a run from elsewhere.
#[derive(Clone, Debug)]
pub struct Stop {
    shared: Arc<Shared>,
}

/// Starts one thread for each source.
///
/// # Errors
/// What the system says when it gives no thread or no descriptor.
pub fn start<D: Dialect>(plan: &Plan, sources: Vec<Source>, dialect: &D) -> io::Result<Running> {
    start_recorded(plan, sources, dialect, None)
}

/// The same, and tells `recorder` what is asked and told. Its sources give unique values.
///
/// # Errors
/// As [`start`]; and for a dialect whose answers do not name versions.
pub fn start_recorded<D: Dialect>(
    plan: &Plan,
    sources: Vec<Source>,
    dialect: &D,
    recorder: Option<&Recorder>,
) -> io::Result<Running> {
    if recorder.is_some() && !D::NAMES_VERSIONS {
        let why = "answers of this protocol do not name versions: no history can be recorded of them";
        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
    }
    let threads = sources.len();
    let progress = sources.iter().map(|_| ThreadProgress::default()).collect();
    let shared = Arc::new(Shared { stop: AtomicBool::new(false), progress });
    let barrier = Arc::new(Barrier::new(threads));
    let mut running = vec![];
    for (thread, source) in sources.into_iter().enumerate() {
        let (plan, shared, barrier) = (plan.clone(), shared.clone(), barrier.clone());
        let connections = connections(&plan, thread, threads, dialect, recorder);
        let mut worker = Worker::new(connections, Desk::new(source, clock()), shared, thread)?;
        let work = move || {
            let connected = worker.connect();
            barrier.wait();
            connected?;
            let now = clock();
            let pace = plan.rate.map_or(Pace::Closed, |rate| Pace::Open(Schedule::new(now, rate, thread, threads)));
            let limit = plan.limit.share(thread as u64, threads as u64);
            worker.desk.open(pace, now, plan.warmup, limit);
            worker.run()
        };
        running.push(Builder::new().name(format!("lab-{thread}")).spawn(work)?);
    }
    Ok(Running { threads: running, shared })
}

fn connections<D: Dialect>(
    plan: &Plan,
    thread: usize,
    threads: usize,
    dialect: &D,
    recorder: Option<&Recorder>,
) -> Vec<Connection<D>> {
    let of_thread = (thread..plan.connections).step_by(threads);
    let connect = |(at, number): (usize, usize)| {
        let address = plan.addresses[number % plan.addresses.len()];
        let scribe = recorder.map(|recorder| recorder.scribe(number));
        Connection::new(address, mio::Token(at), dialect.clone(), plan.pipeline, clock(), scribe)
    };
    of_thread.enumerate().map(connect).collect()
}

impl Limit {
    fn share(self, thread: u64, threads: u64) -> Limit {
        match self {
            Limit::Time(_) | Limit::Exhaustion => self,
            Limit::Operations(count) => Limit::Operations(count / threads + u64::from(thread < count % threads)),
        }
    }
}

impl Running {
    /// How far it is.
    pub fn progress(&self) -> Progress {
        let sum = |of: fn(&ThreadProgress) -> &AtomicU64| {
            self.shared.progress.iter().map(|thread| of(thread).load(Ordering::Relaxed)).sum()
        };
        Progress { operations: sum(|thread| &thread.operations), errors: sum(|thread| &thread.errors) }
    }

    /// What ends it early.
    pub fn stop(&self) -> Stop {
        Stop { shared: self.shared.clone() }
    }

    /// Whether all its threads have ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What the system says when it could not go on.
    pub fn join(self) -> io::Result<Tally> {
        let mut total = Tally::new();
        for thread in self.threads {
            let tally = thread.join().expect("a thread of the driver ends without a panic")?;
            total.merge(&tally);
        }
        Ok(total)
    }
}

impl Stop {
    /// Begins nothing more; what is under way has half a second to be answered.
    pub fn now(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// Opens one connection and waits until the server is ready for requests.
///
/// # Errors
/// Why it is not, in a sentence.
pub fn probe<D: Dialect>(address: SocketAddr, dialect: &D) -> Result<(), String> {
    let failed = |error: io::Error| error.to_string();
    let mut socket = TcpStream::connect_timeout(&address, CONNECT_MAX).map_err(failed)?;
    socket.set_read_timeout(Some(CONNECT_MAX)).map_err(failed)?;
    let (mut dialect, mut out, mut heard) = (dialect.clone(), vec![], vec![]);
    if dialect.open(&mut out) == Opening::Ready {
        return Ok(());
    }
    loop {
        socket.write_all(&out).map_err(failed)?;
        out.clear();
        let aside = match dialect.hear(&heard, &mut out).map_err(|refusal| refusal.message)? {
            Some(Heard { said: Said::Ready, .. }) => return Ok(()),
            Some(Heard { said: Said::Aside, bytes }) => Some(bytes),
            Some(_) => return Err("it answers before it greets".to_owned()),
            None => None,
        };
        if let Some(bytes) = aside {
            heard.drain(..bytes);
            continue;
        }
        let mut more = [0; 1_024];
        match socket.read(&mut more).map_err(failed)? {
            0 => return Err("it closed the connection".to_owned()),
            count => heard.extend_from_slice(&more[..count]),
        }
    }
}
