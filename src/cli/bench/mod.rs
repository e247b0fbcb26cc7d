//! `sloop bench`: puts a node under load and tells how it did.

mod watch;

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use argh::FromArgs;
use bytesize::ByteSize;
use serde_json::{Value as Json, json};

use self::watch::{Watched, watch};
use super::data::{ADDR, env, with};
use super::{Failed, Said, say};
use crate::lab::driver::{self, Limit, Plan};
use crate::lab::report::Report;
use crate::lab::sloop::Sloop;
use crate::lab::tally::Tally;
use crate::lab::workload::{Distribution, KEYS_MAX, Workload};
use crate::protocol::config::VALUE_BYTES_MAX;
use crate::wire::hello::Token;

/// A preload has at least this many requests under way on each connection.
const PRELOAD_PIPELINE_MIN: u16 = 16;

/// Put a node under load and tell how it does: operations a second and latencies. It writes keys of its own (user and
/// twelve digits) and leaves them there.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "bench", help_triggers("-h", "--help"))]
pub struct Bench {
    /// what to do: put, get, or a YCSB workload: a b c d f (put)
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
    /// operations a second, whether the node follows or not; latency then counts from when each should have begun (as
    /// many as it answers)
    #[argh(option)]
    rate: Option<f64>,
    /// write every key once before; with --operations 0 nothing else
    #[argh(switch)]
    preload: bool,
    /// repeats the same choices (0)
    #[argh(option, default = "0")]
    seed: u64,
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
    pub fn run(mut self) -> Result<Said, Failed> {
        let workload = self.workload()?;
        let dialect = Sloop::new(self.token()?);
        let mut plan = self.plan()?;
        plan.addresses =
            reachable(&self.addr.take().or_else(|| env("SLOOP_ADDR")).unwrap_or(ADDR.to_owned()), &dialect)?;
        let mut fields = self.choices(&workload);
        let mut said = Said::default();
        if self.preload {
            let loaded = self.preload(&plan, &workload, &dialect)?;
            said.line(&format!("preload: {}", loaded.headline()));
            fields["preload"] = json!({ "seconds": loaded.seconds(), "throughput": loaded.throughput() });
        }
        let is_preload_alone = self.preload && plan.limit == Limit::Operations(0);
        let tally = if is_preload_alone {
            Tally::new()
        } else {
            let sources = workload.sources(self.seed, self.threads as u64);
            watch(driver::start(&plan, sources, &dialect)?, "measuring")?.tally
        };
        let report = Report::new(tally);
        if !is_preload_alone {
            said.bytes(report.table().as_bytes());
        }
        if self.json {
            said = Said::default();
            said.line(&with(fields, report.json()).to_string());
        }
        match report.tally().errors.count() {
            0 => Ok(said),
            errors => {
                say(&said.0)?;
                Err(Failed::refused(format!("{errors} errors")))
            }
        }
    }

    fn workload(&self) -> Result<Workload, Failed> {
        let keys = self.keys.unwrap_or(1_000_000);
        within("--keys", keys, 1, KEYS_MAX)?;
        let value_bytes = match &self.value_size {
            None => 100,
            Some(text) => size(text)?,
        };
        within("--value-size", value_bytes as u64, 0, VALUE_BYTES_MAX as u64)?;
        let names = || Workload::names().collect::<Vec<_>>().join(", ");
        let mut workload = Workload::named(&self.workload, keys, value_bytes)
            .ok_or_else(|| Failed::wrong_use(format!("--workload {}: there are {}", self.workload, names())))?;
        if let Some(name) = &self.distribution {
            let known = Distribution::NAMES.map(|(name, _)| name).join(", ");
            workload.distribution = Distribution::named(name)
                .ok_or_else(|| Failed::wrong_use(format!("--distribution {name}: there are {known}")))?;
        }
        Ok(workload)
    }

    fn token(&mut self) -> Result<Token, Failed> {
        let text = self.token.take().or_else(|| env("SLOOP_TOKEN")).unwrap_or_default();
        Token::new(text).map_err(Failed::wrong_use)
    }

    /// The plan, without addresses.
    fn plan(&self) -> Result<Plan, Failed> {
        within("--threads", self.threads as u64, 1, 256)?;
        within("--connections", self.connections as u64, self.threads as u64, 60_000)?;
        within("--pipeline", self.pipeline.into(), 1, 10_000)?;
        let limit = match (self.seconds, self.operations) {
            (Some(_), Some(_)) => return Err(Failed::wrong_use("--seconds and --operations: choose one")),
            (_, Some(operations)) => Limit::Operations(operations),
            (seconds, None) => Limit::Time(time("--seconds", seconds.unwrap_or(10.0))?),
        };
        let warmup = self.warmup.unwrap_or(if self.operations.is_some() { 0.0 } else { 1.0 });
        if let Some(rate) = self.rate
            && !(0.001..=1e9).contains(&rate)
        {
            return Err(Failed::wrong_use(format!(
                "--rate {rate}: it is from 0.001 to 1000000000 operations a second"
            )));
        }
        Ok(Plan {
            addresses: vec![],
            connections: self.connections,
            pipeline: self.pipeline,
            warmup: time("--warmup", warmup)?,
            limit,
            rate: self.rate,
        })
    }

    fn preload(&self, plan: &Plan, workload: &Workload, dialect: &Sloop) -> Result<Report, Failed> {
        let pipeline = plan.pipeline.max(PRELOAD_PIPELINE_MIN);
        let plan = Plan { pipeline, warmup: Duration::ZERO, limit: Limit::Exhaustion, rate: None, ..plan.clone() };
        let running = driver::start(&plan, workload.load(self.seed, self.threads as u64), dialect)?;
        let Watched { tally, is_stopped } = watch(running, "preloading")?;
        if tally.operations() == workload.keys {
            return Ok(Report::new(tally));
        }
        let why = match tally.errors.kinds().next() {
            _ if is_stopped => "stopped".to_owned(),
            Some((_, failures)) => failures.first.clone(),
            None => "the node does not answer".to_owned(),
        };
        Err(Failed::refused(format!("preload: {} of {} keys are written: {why}", tally.operations(), workload.keys)))
    }

    fn choices(&self, workload: &Workload) -> Json {
        json!({
            "workload": workload.name,
            "distribution": workload.distribution.name(),
            "keys": workload.keys,
            "value_bytes": workload.value_bytes,
            "connections": self.connections,
            "pipeline": self.pipeline,
            "threads": self.threads,
            "rate": self.rate,
            "seed": self.seed,
        })
    }
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

fn within(what: &str, found: u64, min: u64, max: u64) -> Result<(), Failed> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(Failed::wrong_use(format!("{what} {found}: it is from {min} to {max}")))
}

fn time(what: &str, seconds: f64) -> Result<Duration, Failed> {
    let day = 86_400.0;
    if (0.0..=day).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(Failed::wrong_use(format!("{what} {seconds}: it is from 0 to {day} seconds")))
}

fn size(text: &str) -> Result<usize, Failed> {
    let wrong = |error: String| Failed::wrong_use(format!("--value-size {text}: {error}"));
    let size: ByteSize = text.parse().map_err(wrong)?;
    usize::try_from(size.as_u64()).map_err(|error| wrong(error.to_string()))
}
