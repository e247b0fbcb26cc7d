//! `sloop bench`: puts a node under load and tells how it did.

mod history;
mod options;
mod watch;

use std::io::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use argh::FromArgs;
use serde_json::json;

use self::history::{History, Pass};
use self::options::Setup;
use self::watch::{Watched, watch};
use super::data::{ADDR, env, with};
use super::{Failed, Said, say};
use crate::lab::driver::{self, Limit, Plan, Running};
use crate::lab::report::Report;
use crate::lab::sloop::Sloop;
use crate::lab::tally::Tally;
use crate::lab::workload::Source;

/// A preload has at least this many requests under way on each connection.
const PRELOAD_PIPELINE_MIN: u16 = 16;

/// Put a node under load and tell how it did: operations a second and latencies. It writes keys of its own, user and
/// twelve digits, and leaves them there.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "bench", help_triggers("-h", "--help"))]
pub struct Bench {
    /// what to do: put, get, YCSB's a b c d f, or a file with YCSB's properties (put)
    #[argh(option, default = "String::from(\"put\")")]
    workload: String,
    /// how often which key: uniform, zipfian or latest (as the workload says)
    #[argh(option)]
    distribution: Option<String>,
    /// keys to choose among (1000000)
    #[argh(option)]
    keys: Option<u64>,
    /// bytes of a value, as 100 or 4KiB (100)
    #[argh(option)]
    value_size: Option<String>,
    /// connections (64)
    #[argh(option, default = "64")]
    connections: usize,
    /// requests under way on each connection (1)
    #[argh(option, default = "1")]
    pipeline: u16,
    /// threads that ask (1)
    #[argh(option, default = "1")]
    threads: usize,
    /// seconds to measure (10)
    #[argh(option)]
    seconds: Option<f64>,
    /// operations to measure, instead of seconds
    #[argh(option)]
    operations: Option<u64>,
    /// seconds before, that are not counted (1, or 0 with --operations)
    #[argh(option)]
    warmup: Option<f64>,
    /// operations a second, whether the node follows or not; latency counts from when each should have begun (as many
    /// as the node answers)
    #[argh(option)]
    rate: Option<f64>,
    /// write every key once before; with --operations 0 do nothing else
    #[argh(switch)]
    preload: bool,
    /// repeats the same choices (0)
    #[argh(option, default = "0")]
    seed: u64,
    /// record what was asked and told in this new file, for sloop check: on keys of its own, each value another one
    #[argh(option)]
    history: Option<String>,
    /// print one JSON object
    #[argh(switch)]
    json: bool,
    /// node, or nodes with commas between them: connections go to all of them in turn (SLOOP_ADDR, 127.0.0.1:7600)
    #[argh(option)]
    addr: Option<String>,
    /// what the node asks for (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
}

impl Bench {
    /// Asks and tells.
    ///
    /// # Errors
    /// [`Failed`] when no node answers, when there were errors, or when it cannot be meant like that.
    pub fn run(self) -> Result<Said, Failed> {
        let mut setup = self.setup()?;
        let dialect = Sloop::new(self.token()?);
        let nodes = self.addr.clone().or_else(|| env("SLOOP_ADDR")).unwrap_or_else(|| ADDR.to_owned());
        setup.plan.addresses = reachable(&nodes, &dialect)?;
        if !setup.ignored.is_empty() {
            note(&format!("{}: these have no effect here: {}", self.workload, setup.ignored.join(", ")));
        }
        let begin = |path: &String| History::begin(path, setup.workload.value_bytes);
        let history = self.history.as_ref().map(begin).transpose()?;
        let done = self.work(&setup, &dialect, history.as_ref());
        history.map_or(Ok(()), History::end)?;
        let (preload, measured) = done?;
        self.tell(&setup, preload, measured)
    }

    /// Writes all keys and measures, as far as each was asked for.
    fn work(&self, setup: &Setup, dialect: &Sloop, history: Option<&History>) -> Result<Works, Failed> {
        let preload = if self.preload { Some(self.preload(setup, dialect, history)?) } else { None };
        if self.preload && setup.plan.limit == Limit::Operations(0) {
            return Ok((preload, None));
        }
        let sources = setup.workload.sources(self.seed, self.threads as u64);
        let running = start(&setup.plan, sources, dialect, history.map(|history| (history, Pass::Measured)))?;
        let Watched { tally, .. } = watch(running, "measuring")?;
        if tally.misses > 0 && !self.preload {
            note(&format!("{} reads found no value: --preload writes all keys before", tally.misses));
        }
        Ok((preload, Some(Report::new(tally))))
    }

    fn preload(&self, setup: &Setup, dialect: &Sloop, history: Option<&History>) -> Result<Report, Failed> {
        let Setup { workload, plan, .. } = setup;
        let pipeline = plan.pipeline.max(PRELOAD_PIPELINE_MIN);
        let plan = Plan { pipeline, warmup: Duration::ZERO, limit: Limit::Exhaustion, rate: None, ..plan.clone() };
        let sources = workload.load(self.seed, self.threads as u64);
        let running = start(&plan, sources, dialect, history.map(|history| (history, Pass::Preload)))?;
        let Watched { tally, is_stopped } = watch(running, "preloading")?;
        if tally.operations() == workload.keys {
            return Ok(Report::new(tally));
        }
        let why = match tally.errors.kinds().next() {
            _ if is_stopped => "stopped",
            Some((_, failures)) => &failures.first,
            None => "the node gives no answers",
        };
        Err(Failed::refused(format!("preload: {} of {} keys are written: {why}", tally.operations(), workload.keys)))
    }

    fn tell(&self, setup: &Setup, preload: Option<Report>, measured: Option<Report>) -> Result<Said, Failed> {
        let mut said = Said::default();
        if self.json {
            let report = measured.as_ref().map_or_else(|| Report::new(Tally::new()).json(), Report::json);
            let load = preload.map(|load| json!({ "seconds": load.seconds(), "throughput": load.throughput() }));
            let fields = with(self.fields(setup), json!({ "preload": load }));
            said.line(&with(fields, report).to_string());
        } else {
            preload.iter().for_each(|load| said.line(&format!("preload: {}", load.headline())));
            measured.iter().for_each(|report| said.bytes(report.table().as_bytes()));
        }
        match measured.map_or(0, |report| report.tally().errors.count()) {
            0 => Ok(said),
            errors => {
                say(&said.0)?;
                Err(Failed::refused(format!("{errors} errors")))
            }
        }
    }
}

/// What came of a preload, and of what was measured.
type Works = (Option<Report>, Option<Report>);

/// Starts a pass over the keys, recorded or not.
fn start(plan: &Plan, sources: Vec<Source>, dialect: &Sloop, history: Option<(&History, Pass)>) -> io::Result<Running> {
    let Some((history, pass)) = history else { return driver::start(plan, sources, dialect) };
    let recorder = history.recorder(pass, plan.connections);
    driver::start_recorded(plan, history.sources(pass, sources), dialect, Some(&recorder))
}

/// The addresses that a list of hosts and ports comes to, each of which has answered.
fn reachable(list: &str, dialect: &Sloop) -> Result<Vec<SocketAddr>, Failed> {
    let one = |node: &str| {
        let unreachable = |why: &dyn std::fmt::Display| {
            Failed::refused(format!("no node answers at {node}: {why} (sloop serve starts one, --addr names another)"))
        };
        let mut addresses = node.to_socket_addrs().map_err(|error| unreachable(&error))?;
        let address = addresses.next().ok_or_else(|| unreachable(&"the name has no address"))?;
        driver::probe(address, dialect).map_err(|why| unreachable(&why))?;
        Ok(address)
    };
    list.split(',').map(|node| one(node.trim())).collect()
}

/// Nobody is left to be told when this fails.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "sloop: note: {text}");
}
