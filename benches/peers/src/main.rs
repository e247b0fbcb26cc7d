//! How sloop compares with its peers: the same keys, the same work, the same machine, one run, as ratios.
//!
//! ```sh
//! cd benches/peers
//! cargo run --release -- --server-cpus 0 --generator-cpus 1
//! cargo run --release -- --cases put-64 --rounds 3 --seconds 5 --json > put.json
//! cargo run --release -- --nodes 3 --peer etcd,redis --cases put-64,get-64 --keys 100000
//! ```
//! It starts sloop and each peer in fresh directories (below `--dir`, which should be on a disk and not in memory) on
//! free ports of this machine, writes the same keys to all, and then measures them in turn with the same generator:
//! each round, case by case, one after the other, the order turned round every time. Alternating is what makes ratios
//! hold on a machine whose speed changes by the minute. A measurement is preceded by a warm-up on connections of its
//! own. All that is the default takes about half an hour.
//!
//! - **sloop is** how much more sloop did: the median over all rounds, and the least and the most.
//! - **server us/op** is the server's own CPU time, all nodes, threads and children, for an operation: what stays
//!   comparable when the disk or the generator is the limit. **generator us/op** tells whether the generator was: one
//!   CPU of its own has a million microseconds a second.
//! - **bare** is no server: group commit alone ([`bare`]), so `0.40 x` means that sloop reaches 40 % of what this disk
//!   can do for as many writers.
//!
//! With `--nodes 3` sloop and etcd are three nodes each (`sloop x3` in the table), all on this machine and on the same
//! CPUs. Connections go to the nodes in turn; `put-1` asks the first alone. etcd, as it comes, syncs a write on a
//! majority before it answers, and **its reads are linearizable**: each is confirmed by a majority. sloop's reads are
//! not; they ask a quorum. etcd is asked by its own gRPC over HTTP/2 ([`etcd`]), not by its JSON gateway. Redis stays
//! one node: it says what one costs that does not replicate. The Debian package is `etcd-server`.
//!
//! Redis is started with `appendonly yes`, `appendfsync always` and `save ""`: as sloop does, it syncs before it
//! answers. The servers stay up for the whole run; the one that is not asked is idle. The Debian package is
//! `redis-server`.

mod bare;
mod case;
mod contest;
mod etcd;
mod http;
mod http2;
mod outcome;
mod peer;
mod process;
mod resp;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use argh::FromArgs;
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use sloop::lab::workload::Distribution;

use crate::case::Case;
use crate::contest::{Ask, BareLimit, Contestant, Rules, Served};
use crate::etcd::VALUE_BYTES_MAX;
use crate::outcome::{Entry, Memory, Outcome, table};
use crate::peer::{EtcdPeer, Redis, SloopPeer};
use crate::process::{Cpus, stay_on};

/// Compare sloop with other durable stores: same keys, same work, same machine, in turn.
#[derive(FromArgs, Debug)]
struct Options {
    /// whom to compare with: redis, etcd, bare (redis,bare)
    #[argh(option, default = "String::from(\"redis,bare\")")]
    peer: String,
    /// what to compare, as WORKLOAD-CONNECTIONS or WORKLOAD-CONNECTIONS-pREQUESTS
    #[argh(option, default = "String::from(\"put-1,put-64,put-256,get-64,put-64-p16,get-64-p16\")")]
    cases: String,
    /// how often which key: uniform, zipfian, latest (uniform,zipfian)
    #[argh(option, default = "String::from(\"uniform,zipfian\")")]
    distribution: String,
    /// keys to load (1000000)
    #[argh(option, default = "1_000_000")]
    keys: u64,
    /// bytes of a value (100)
    #[argh(option, default = "100")]
    value_size: usize,
    /// seconds of each measurement (10)
    #[argh(option, default = "10.0")]
    seconds: f64,
    /// seconds before each, that are not counted (1)
    #[argh(option, default = "1.0")]
    warmup: f64,
    /// rounds (5)
    #[argh(option, default = "5")]
    rounds: usize,
    /// cpus of the servers, as 0 or 0,2 (all)
    #[argh(option)]
    server_cpus: Option<String>,
    /// cpus of the generator (all)
    #[argh(option)]
    generator_cpus: Option<String>,
    /// sloop's binary (built from this source)
    #[argh(option)]
    sloop: Option<PathBuf>,
    /// data cores of each node of sloop (1)
    #[argh(option, default = "1")]
    cores: usize,
    /// nodes of sloop and of etcd (1)
    #[argh(option, default = "1")]
    nodes: usize,
    /// nodes of sloop, if not as many
    #[argh(option)]
    sloop_nodes: Option<usize>,
    /// where to keep the servers' files meanwhile (target)
    #[argh(option)]
    dir: Option<PathBuf>,
    /// print one JSON object, with every round
    #[argh(switch)]
    json: bool,
}

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn main() -> ExitCode {
    let options: Options = argh::from_env();
    match run(&options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(errors) => failed(&format!("{errors} errors")),
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("peers: {why}");
    ExitCode::FAILURE
}

/// Compares and tells; gives the number of errors that there were.
fn run(options: &Options) -> io::Result<u64> {
    let cases: Vec<Case> = list(&options.cases, str::parse)?;
    let named = |name: &str| Distribution::named(name).ok_or_else(|| format!("{name:?} is no distribution"));
    let distributions = list(&options.distribution, named)?;
    let rules = rules(options)?;
    stay_on(&cpus(options.generator_cpus.as_deref())?)?;

    let mut contestants = contestants(options, &rules)?;
    let mut memories = load(&mut contestants, &rules)?;
    let mut outcomes = outcomes(&cases, &distributions, &contestants);
    for round in 0..options.rounds {
        for (at, outcome) in outcomes.iter_mut().enumerate() {
            let (case, distribution) = (&cases[at % cases.len()], distributions[at / cases.len()]);
            note(&format!("round {} of {}: {case} {}", round + 1, options.rounds, distribution.name()));
            let ask = Ask { case, distribution, seed: round as u64 };
            measure(&mut contestants, outcome, ask, round % 2 == 1, &rules)?;
        }
    }
    for memory in &mut memories {
        let contestant = contestants.iter().find(|contestant| contestant.name() == memory.name);
        memory.resident_bytes[2] = contestant.map_or(Ok(None), |one| one.resident_bytes())?.unwrap_or(0);
    }
    if options.json {
        let outcomes: Vec<_> = outcomes.iter().map(Outcome::json).collect();
        let memories: Vec<_> = memories.iter().map(Memory::json).collect();
        println!("{}", json!({ "options": chosen(options), "cases": outcomes, "memory": memories }));
    } else {
        print!("{}", table(&outcomes, &memories));
    }
    Ok(outcomes.iter().flat_map(|outcome| &outcome.entries).map(Entry::errors).sum())
}

fn rules(options: &Options) -> io::Result<Rules> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let time = |seconds: f64| Duration::try_from_secs_f64(seconds).map_err(io::Error::other);
    Ok(Rules {
        keys: options.keys.max(1),
        value_bytes: options.value_size,
        time: time(options.seconds)?,
        warmup: time(options.warmup)?,
        server_cpus: cpus(options.server_cpus.as_deref())?,
        stop,
    })
}

/// Ours first, then those that were asked for.
fn contestants(options: &Options, rules: &Rules) -> io::Result<Vec<Box<dyn Contestant>>> {
    let below = options.dir.clone().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"));
    let ours = SloopPeer { binary: binary(options)?, cores: options.cores, nodes: sloop_nodes(options) };
    let mut contestants: Vec<Box<dyn Contestant>> = vec![Box::new(Served::start(Box::new(ours), &below, rules)?)];
    for name in options.peer.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        contestants.push(match name {
            "redis" => Box::new(Served::start(Box::new(Redis), &below, rules)?),
            "etcd" => Box::new(Served::start(Box::new(etcd(options)?), &below, rules)?),
            "bare" => Box::new(BareLimit::start(&below)?),
            other => return Err(io::Error::other(format!("--peer {other}: there are redis, etcd and bare"))),
        });
    }
    Ok(contestants)
}

fn sloop_nodes(options: &Options) -> usize {
    options.sloop_nodes.unwrap_or(options.nodes).max(1)
}

fn etcd(options: &Options) -> io::Result<EtcdPeer> {
    if VALUE_BYTES_MAX < options.value_size {
        return Err(io::Error::other(format!("--value-size: etcd is asked for {VALUE_BYTES_MAX} bytes at most")));
    }
    Ok(EtcdPeer { nodes: options.nodes.max(1) })
}

/// The binary that was named, or the one of this source.
fn binary(options: &Options) -> io::Result<PathBuf> {
    if let Some(path) = &options.sloop {
        return path.canonicalize().map_err(|error| io::Error::other(format!("--sloop {}: {error}", path.display())));
    }
    note("building sloop");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--quiet", "--bin", "sloop"]).current_dir(ROOT).stdout(Stdio::null());
    if !cargo.status()?.success() {
        return Err(io::Error::other("sloop does not build; --sloop names a binary"));
    }
    Path::new(ROOT).join("target/release/sloop").canonicalize()
}

fn load(contestants: &mut [Box<dyn Contestant>], rules: &Rules) -> io::Result<Vec<Memory>> {
    let mut memories = vec![];
    for contestant in contestants {
        let name = contestant.name();
        let Some(empty) = contestant.resident_bytes()? else { continue };
        note(&format!("loading {} keys into {name}", rules.keys));
        contestant.load(rules)?;
        let loaded = contestant.resident_bytes()?.unwrap_or(0);
        memories.push(Memory { name, keys: rules.keys, resident_bytes: [empty, loaded, 0] });
    }
    Ok(memories)
}

/// All cases under the first distribution, then under the next.
fn outcomes(cases: &[Case], distributions: &[Distribution], contestants: &[Box<dyn Contestant>]) -> Vec<Outcome> {
    let one = |case: &Case, distribution: Distribution| {
        let takers = contestants.iter().filter(|contestant| contestant.takes(case));
        let entries = takers.map(|taker| Entry { name: taker.name(), nodes: taker.nodes(), rounds: vec![] }).collect();
        Outcome { case: case.to_string(), distribution: distribution.name(), entries }
    };
    distributions.iter().flat_map(|&distribution| cases.iter().map(move |case| one(case, distribution))).collect()
}

fn measure(
    contestants: &mut [Box<dyn Contestant>],
    outcome: &mut Outcome,
    ask: Ask<'_>,
    is_turned: bool,
    rules: &Rules,
) -> io::Result<()> {
    let takers = contestants.iter_mut().filter(|contestant| contestant.takes(ask.case));
    let mut pairs: Vec<_> = takers.zip(&mut outcome.entries).collect();
    if is_turned {
        pairs.reverse();
    }
    for (contestant, entry) in pairs {
        entry.rounds.push(contestant.measure(ask, rules)?);
    }
    Ok(())
}

fn list<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> io::Result<Vec<T>> {
    text.split(',').map(|part| read(part.trim()).map_err(io::Error::other)).collect()
}

fn cpus(text: Option<&str>) -> io::Result<Cpus> {
    let number = |part: &str| part.parse().map_err(|_| format!("{part:?} is no number of a CPU"));
    text.map(|text| list(text, number)).transpose()
}

fn chosen(options: &Options) -> serde_json::Value {
    json!({
        "keys": options.keys,
        "value_bytes": options.value_size,
        "seconds": options.seconds,
        "warmup": options.warmup,
        "rounds": options.rounds,
        "server_cpus": options.server_cpus,
        "generator_cpus": options.generator_cpus,
        "cores": options.cores,
        "nodes": options.nodes,
        "sloop_nodes": sloop_nodes(options),
    })
}

/// How far it is, for who watches.
fn note(text: &str) {
    eprintln!("peers: {text}");
}
