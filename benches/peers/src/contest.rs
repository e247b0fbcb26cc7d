//! One server, or the bare limit, over all rounds.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sloop::lab::driver::{Limit, Plan, Running};
use sloop::lab::report::Report;
use sloop::lab::tally::Tally;
use sloop::lab::workload::{Distribution, Workload};
use tempfile::TempDir;

use crate::bare::Bare;
use crate::case::Case;
use crate::peer::{Peer, Place};
use crate::process::{Cost, Cpus, Process, free_addresses, own_cpu, stay_on};

/// Time for a server to take requests.
const START_MAX: Duration = Duration::from_secs(60);

/// Connections and requests on each while keys are loaded.
const LOAD: (usize, u16) = (16, 64);

/// How often it is seen whether something has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What is the same for everyone.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Keys that are loaded, and chosen among.
    pub keys: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Time of each measurement.
    pub time: Duration,
    /// Time before it, that is not counted.
    pub warmup: Duration,
    /// CPUs of the servers.
    pub server_cpus: Cpus,
    /// Raised by Ctrl-C.
    pub stop: Arc<AtomicBool>,
}

/// One case under one distribution, in one round.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What is compared.
    pub case: &'a Case,
    /// How often which key.
    pub distribution: Distribution,
    /// Repeats the same choices.
    pub seed: u64,
}

/// What one measurement came to.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Throughput, latencies, errors.
    pub report: Report,
    /// CPU time of the server, over all its nodes, for an operation, in microseconds; none for the bare limit.
    pub server_cpu_us: Option<f64>,
    /// The same of the generator.
    pub generator_cpu_us: Option<f64>,
}

/// Who takes part.
pub trait Contestant {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Nodes that it has.
    fn nodes(&self) -> usize;

    /// Writes every key once.
    ///
    /// # Errors
    /// What went wrong.
    fn load(&mut self, rules: &Rules) -> io::Result<()>;

    /// Whether the case means anything to it.
    fn takes(&self, case: &Case) -> bool;

    /// Measures once.
    ///
    /// # Errors
    /// What went wrong.
    fn measure(&mut self, ask: Ask<'_>, rules: &Rules) -> io::Result<Measured>;

    /// Memory that is resident, over all nodes, in bytes.
    ///
    /// # Errors
    /// What went wrong.
    fn resident_bytes(&self) -> io::Result<Option<u64>>;
}

/// A server, each of its nodes in a directory of its own.
pub struct Served {
    peer: Box<dyn Peer>,
    addresses: Vec<SocketAddr>,
    // In this order they are dropped: the processes end before their directories go.
    processes: Vec<Process>,
    _home: TempDir,
}

impl Served {
    /// Starts it, and waits until it takes requests.
    ///
    /// # Errors
    /// Why it does not.
    pub fn start(peer: Box<dyn Peer>, below: &Path, rules: &Rules) -> io::Result<Served> {
        let home = tempfile::Builder::new().prefix("peers-").tempdir_in(below)?;
        let places = places(home.path(), peer.nodes())?;
        let addresses = places.iter().map(|place| place.address).collect();
        let mut served = Served { peer, addresses, processes: vec![], _home: home };
        for at in 0..places.len() {
            let command = served.peer.command(&places, at);
            let started = Process::start(command, &rules.server_cpus);
            let name = served.peer.name();
            served.processes.push(started.map_err(|why| io::Error::other(format!("{name} does not start: {why}")))?);
            served.wait(&places[..=at], rules)?;
        }
        Ok(served)
    }

    #[expect(clippy::disallowed_methods, reason = "a limit needs a clock")]
    fn wait(&mut self, started: &[Place], rules: &Rules) -> io::Result<()> {
        let begun = Instant::now();
        while let Err(why) = self.peer.probe(started) {
            check(rules)?;
            let name = self.peer.name();
            for process in &mut self.processes {
                if !process.is_running()? {
                    return Err(io::Error::other(format!("{name} ended at once")));
                }
            }
            if START_MAX < begun.elapsed() {
                return Err(io::Error::other(format!("{name} takes no requests after {START_MAX:?}: {why}")));
            }
            pause();
        }
        Ok(())
    }

    fn drive(&self, case: &Case, workload: &Workload, seed: u64, time: Duration, rules: &Rules) -> io::Result<Tally> {
        let plan = self.plan(case.connections, case.pipeline, Limit::Time(time));
        finish(self.peer.drive(&plan, workload.sources(seed, 1))?, rules)
    }

    /// Connections go to the nodes in turn.
    fn plan(&self, connections: usize, pipeline: u16, limit: Limit) -> Plan {
        let addresses = self.addresses.clone();
        Plan { addresses, connections, pipeline, warmup: Duration::ZERO, limit, rate: None }
    }

    fn cost(&self) -> io::Result<Cost> {
        let mut total = Cost { cpu: Duration::ZERO, resident_bytes: 0 };
        for process in &self.processes {
            let cost = process.cost()?;
            total.cpu += cost.cpu;
            total.resident_bytes += cost.resident_bytes;
        }
        Ok(total)
    }
}

/// A place for each node, with ports that nobody uses.
fn places(home: &Path, nodes: usize) -> io::Result<Vec<Place>> {
    let addresses = free_addresses(2 * nodes)?;
    let place = |(at, pair): (usize, &[SocketAddr; 2])| {
        let home = home.join(at.to_string());
        fs::create_dir(&home)?;
        Ok(Place { home, address: pair[0], aside: pair[1] })
    };
    addresses.as_chunks().0.iter().enumerate().map(place).collect()
}

impl Contestant for Served {
    fn name(&self) -> &'static str {
        self.peer.name()
    }

    fn nodes(&self) -> usize {
        self.peer.nodes()
    }

    fn load(&mut self, rules: &Rules) -> io::Result<()> {
        let workload = Workload::named("put", rules.keys, rules.value_bytes).expect("it has that name");
        let plan = self.plan(LOAD.0, LOAD.1, Limit::Exhaustion);
        let tally = finish(self.peer.drive(&plan, workload.load(0, 1))?, rules)?;
        if tally.operations() == rules.keys {
            return Ok(());
        }
        let (name, written, keys) = (self.name(), tally.operations(), rules.keys);
        Err(io::Error::other(format!("{name}: {written} of {keys} keys are written; {:?}", tally.errors)))
    }

    fn takes(&self, _case: &Case) -> bool {
        true
    }

    fn measure(&mut self, ask: Ask<'_>, rules: &Rules) -> io::Result<Measured> {
        let workload = ask.case.workload(ask.distribution, rules.keys, rules.value_bytes);
        self.drive(ask.case, &workload, !ask.seed, rules.warmup, rules)?;
        let (server, generator) = (self.cost()?.cpu, own_cpu()?);
        let tally = self.drive(ask.case, &workload, ask.seed, rules.time, rules)?;
        let (server, generator) = (self.cost()?.cpu - server, own_cpu()? - generator);
        let operations = Some(tally.operations()).filter(|&count| count > 0);
        let apiece = |cpu: Duration| operations.map(|count| cpu.as_secs_f64() * 1e6 / count as f64);
        let (server_cpu_us, generator_cpu_us) = (apiece(server), apiece(generator));
        Ok(Measured { report: Report::new(tally), server_cpu_us, generator_cpu_us })
    }

    fn resident_bytes(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.cost()?.resident_bytes))
    }
}

/// The bare limit in a directory of its own.
#[derive(Debug)]
pub struct BareLimit {
    bare: Bare,
    _home: TempDir,
}

impl BareLimit {
    /// Makes its log.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(below: &Path) -> io::Result<BareLimit> {
        let home = tempfile::Builder::new().prefix("peers-").tempdir_in(below)?;
        Ok(BareLimit { bare: Bare::new(home.path())?, _home: home })
    }
}

impl Contestant for BareLimit {
    fn name(&self) -> &'static str {
        "bare"
    }

    fn nodes(&self) -> usize {
        1
    }

    fn load(&mut self, _rules: &Rules) -> io::Result<()> {
        Ok(())
    }

    /// It only writes.
    fn takes(&self, case: &Case) -> bool {
        case.workload == "put"
    }

    fn measure(&mut self, ask: Ask<'_>, rules: &Rules) -> io::Result<Measured> {
        let workload = ask.case.workload(ask.distribution, rules.keys, rules.value_bytes);
        let mut source = workload.sources(ask.seed, 1).remove(0);
        let writers = ask.case.connections * usize::from(ask.case.pipeline);
        let bare = &mut self.bare;
        let commit = || {
            stay_on(&rules.server_cpus)?;
            bare.commit(writers, &mut source, rules.warmup)?;
            bare.commit(writers, &mut source, rules.time)
        };
        let tally = thread::scope(|scope| scope.spawn(commit).join().expect("the bare limit does not panic"))?;
        check(rules)?;
        Ok(Measured { report: Report::new(tally), server_cpu_us: None, generator_cpu_us: None })
    }

    fn resident_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

/// Waits for a run, or ends it when somebody wants to be done.
fn finish(running: Running, rules: &Rules) -> io::Result<Tally> {
    while !running.is_finished() {
        if rules.stop.load(Ordering::Relaxed) {
            running.stop().now();
        }
        pause();
    }
    check(rules)?;
    running.join()
}

fn check(rules: &Rules) -> io::Result<()> {
    if rules.stop.load(Ordering::Relaxed) { Err(io::Error::other("stopped")) } else { Ok(()) }
}

fn pause() {
    #[expect(clippy::disallowed_methods, reason = "between two looks at something that nothing tells of")]
    thread::sleep(LOOK_EVERY);
}
