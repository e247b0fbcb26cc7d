//! One torture from its first node to its verdict.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::sleep;

use super::accidents;
use super::changes;
use super::crowd::{Crowd, Record};
use super::fleet::{Berth, Fleet, Standing, answer};
use super::log::Log;
use super::{Plan, Report, TortureError};
use crate::lab::workload::Random;

/// Clients at once.
const CLIENTS: u32 = 12;

/// Keys that are written once, before anything happens, and bytes of their values.
const STILL_KEYS: u64 = 300;
const STILL_BYTES: usize = 64;

/// Between two looks at what goes by itself.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// So often it is said how far it is.
const WORD_PERIOD: Duration = Duration::from_secs(5);

/// So long the same hot keys are written, so that no key's history grows without end.
const AGE: Duration = Duration::from_secs(15);

/// How long it shows that connections broke: questions that were under way are asked of others.
const AFTERMATH: Duration = Duration::from_secs(1);

/// Lanes of accidents at once.
const LANES: usize = 2;

/// Why a torture ends early.
pub(super) enum Trouble {
    /// A promise is broken.
    Broken(String),
    Machine(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Machine(error)
    }
}

pub(super) type Result<T> = std::result::Result<T, Trouble>;

/// What all lanes have in common. They are polled by one task, so what they borrow they give back before they wait.
pub(super) struct Trial<'a> {
    pub(super) plan: &'a Plan,
    pub(super) fleet: RefCell<Fleet>,
    pub(super) record: RefCell<Record>,
    pub(super) crowd: RefCell<Option<Crowd>>,
    pub(super) log: Log<'a>,
    /// Whether no accident may begin.
    pub(super) is_calm: Cell<bool>,
    /// Accidents under way.
    pub(super) accidents: Cell<usize>,
    /// When faults began.
    begun: Cell<Duration>,
    /// How often everything came to rest.
    pub(super) rests: Cell<u64>,
    /// How many break connections now, and when the last of them has.
    roughs: Cell<usize>,
    rough_at: Cell<Duration>,
}

/// Tortures a cluster, and tells how far it is.
///
/// # Errors
/// [`TortureError`] when the machine does not do what was asked of it. A promise that is broken is no error: it stands
/// in the report.
pub async fn run(plan: &Plan, tell: &dyn Fn(&str)) -> std::result::Result<Report, TortureError> {
    let mut random = Random::new(plan.seed);
    let kinds = accidents::KINDS.iter().map(|kind| kind.name()).chain(changes::KINDS.iter().map(|kind| kind.name()));
    let trial = Trial {
        plan,
        fleet: RefCell::new(Fleet::new(&plan.program, &plan.folder, random.split())),
        record: RefCell::new(Record::in_file(plan.seed, &plan.history())?),
        crowd: RefCell::new(None),
        log: Log::begin(&plan.folder, kinds, tell)?,
        is_calm: Cell::new(false),
        accidents: Cell::new(0),
        begun: Cell::new(Duration::ZERO),
        rests: Cell::new(0),
        roughs: Cell::new(0),
        rough_at: Cell::new(Duration::ZERO),
    };
    let broken = match trial.work(random).await {
        Ok(()) => None,
        Err(Trouble::Broken(what)) => {
            // Whatever hinders that is told already.
            let _ = trial.bear_witness(&what).await;
            Some(what)
        }
        Err(Trouble::Machine(error)) => return Err(error.into()),
    };
    trial.judge(broken)
}

impl Trial<'_> {
    async fn work(&self, mut random: Random) -> Result<()> {
        self.begin().await?;
        self.begun.set(self.log.time());
        let lanes: [Random; LANES] = std::array::from_fn(|_| random.split());
        let [first, second] = lanes.map(|random| self.have_accidents(random));
        tokio::try_join!(first, second, self.have_changes(random.split()), self.look_on())?;
        self.log.say("faults are over, all heals")?;
        self.come_to_rest().await
    }

    /// A cluster with data and with clients.
    async fn begin(&self) -> Result<()> {
        self.log.say(&format!("{} nodes start, seed {}", self.plan.nodes, self.plan.seed))?;
        for _ in 0..self.plan.nodes {
            self.fleet.borrow_mut().add()?;
        }
        self.settle().await?;
        // Nobody looks at it before there are clients.
        let mut record = self.record.replace(Record::new(self.plan.seed));
        record.fill(&self.addresses(), STILL_KEYS, STILL_BYTES).await?;
        if record.tally().writes < STILL_KEYS {
            let why = record.tally().failure.clone().unwrap_or_default();
            return Err(Trouble::Broken(format!("a write failed before there was any fault: {why}")));
        }
        let crowd = record.crowd(&self.addresses(), CLIENTS)?;
        self.record.replace(record);
        self.crowd.replace(Some(crowd));
        self.log.say(&format!("{} nodes serve {CLIENTS} clients, faults begin", self.plan.nodes))?;
        Ok(())
    }

    /// Whether faults are over.
    pub(super) fn is_over(&self) -> bool {
        self.begun.get() + self.plan.time <= self.log.time()
    }

    /// Takes what clients are told, and looks whether all nodes are there, until faults are over.
    async fn look_on(&self) -> Result<()> {
        let (mut word_at, mut age_at) = (self.log.time() + WORD_PERIOD, self.log.time() + AGE);
        while !self.is_over() {
            sleep(LOOK).await;
            self.look()?;
            let now = self.log.time();
            if word_at <= now {
                word_at = now + WORD_PERIOD;
                self.log.say(&self.words())?;
            }
            if age_at <= now {
                age_at = now + AGE;
                self.crowd.borrow().iter().for_each(|crowd| self.record.borrow_mut().grow_older(crowd));
            }
        }
        Ok(())
    }

    /// Something is broken: tells what each node says of itself, and what its threads do, while they still run.
    async fn bear_witness(&self, what: &str) -> Result<()> {
        self.log.line(what)?;
        for at in self.which(|berth| berth.is_running()) {
            let ready = self.sloop(at, &["wait", "--for", "ready", "--timeout", "1ms"]).await?;
            let name = self.fleet.borrow().name(at);
            self.log.line(&format!("{name}: {}", ready.err().unwrap_or_else(|| "ready".to_owned())))?;
            let threads = self.fleet.borrow().threads(at);
            threads.into_iter().try_for_each(|thread| self.log.line(&format!("{name}: {thread}")))?;
        }
        Ok(())
    }

    /// Connections between nodes break from now on, until [`Trial::smoothen`].
    pub(super) fn roughen(&self) {
        self.roughs.set(self.roughs.get() + 1);
        self.crowd.borrow().iter().for_each(|crowd| crowd.set_rough(true));
    }

    /// They do not any more. What they did shows for a while.
    pub(super) fn smoothen(&self) {
        self.roughs.set(self.roughs.get() - 1);
        self.rough_at.set(self.log.time());
    }

    /// Takes what clients were told, and finds who ended by itself.
    pub(super) fn look(&self) -> Result<()> {
        if self.roughs.get() == 0 && self.rough_at.get() + AFTERMATH < self.log.time() {
            self.crowd.borrow().iter().for_each(|crowd| crowd.set_rough(false));
        }
        let mut record = self.record.borrow_mut();
        record.take()?;
        if let Some(wrong) = record.tally().wrong.first() {
            return Err(Trouble::Broken(wrong.clone()));
        }
        match self.fleet.borrow_mut().ended()? {
            Some(ended) => Err(Trouble::Broken(ended)),
            None => Ok(()),
        }
    }

    fn words(&self) -> String {
        let record = self.record.borrow();
        let super::Tally { reads, writes, failed, unknown, .. } = record.tally();
        let faults: Vec<String> = self
            .log
            .faults()
            .into_iter()
            .filter(|(_, count)| 0 < *count)
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        format!("{reads} reads, {writes} writes, {failed} failed, {unknown} unknown; {}", faults.join(", "))
    }

    /// Where clients find the nodes that are there, those among them that are down.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let fleet = self.fleet.borrow();
        fleet.which(|berth| berth.standing == Standing::Present).into_iter().map(|at| fleet.address(at)).collect()
    }

    /// Clients ask those from now on.
    pub(super) fn turn_clients(&self) {
        self.crowd.borrow().iter().for_each(|crowd| crowd.turn_to(&self.addresses()));
    }

    /// Nodes of which this is true.
    pub(super) fn which(&self, is_it: impl Fn(&Berth) -> bool) -> Vec<usize> {
        self.fleet.borrow().which(is_it)
    }

    /// A command of ours, to one node: its words, or those against it.
    pub(super) async fn sloop(&self, at: usize, arguments: &[&str]) -> Result<std::result::Result<String, String>> {
        let mut command = self.fleet.borrow().sloop(at, arguments);
        let output = command.output().await?;
        if output.status.code() == Some(2) {
            let said = answer(&output).err().unwrap_or_default();
            return Err(Trouble::Broken(format!("sloop {}: {said}", arguments.join(" "))));
        }
        Ok(answer(&output))
    }

    /// All that was told is judged, whatever ended the torture.
    fn judge(self, broken: Option<String>) -> std::result::Result<Report, TortureError> {
        self.log.line("judging what clients were told")?;
        let (faults, took, delayed) = (self.log.faults(), self.log.time(), self.fleet.borrow().delayed());
        let mut record = self.record.into_inner();
        if let Some(crowd) = self.crowd.into_inner() {
            record.add(crowd)?;
        }
        let (violations, tally) = (record.verdict(), record.tally().clone());
        Ok(Report { faults, delayed, rests: self.rests.get(), tally, broken, violations, took })
    }

    /// Waits for so long.
    pub(super) async fn pass(&self, time: Duration) {
        sleep(time).await;
    }
}

/// A time between two, in milliseconds.
pub(super) fn millis(random: &mut Random, from: u64, to: u64) -> Duration {
    Duration::from_millis(from + random.below(to - from))
}
