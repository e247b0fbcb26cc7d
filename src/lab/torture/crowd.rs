//! Clients that write few keys at once, some with contexts and some without, while others read, and everything that
//! they were told: for the verdict on a cluster whose owners change.
//!
//! | keys | written |
//! |---|---|
//! | `still-*` | once each, before anything happens |
//! | `seen-*` | with the context of a read, or beside all others |
//! | `blind-*` | without a context, in place of what the coordinator holds |
//!
//! A client has one call under way. A write whose outcome is not known stays open for ever.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::now;
use super::worker::{Heard, Tally, Worker};
use crate::client::{Key, Terms, Value};
use crate::lab::workload::Random;
use crate::verify::cluster::{Violation, judge};
use crate::verify::{Event, History, Moment, file};

/// Keys that all clients write, of one age.
pub(super) const HOT_KEYS: u64 = 24;

/// Clients that write still keys at once.
const FILLERS: u64 = 16;

/// Numbers of the clients that write still keys and read at rest, behind those of all crowds.
const FILLER: u32 = 1_000_000;
const CHECKER: u32 = 2_000_000;

/// Quorum of the reads at rest: with the W of its writes, above N.
const QUORUM: u8 = 2;

/// What clients of one cluster were told.
#[derive(Debug)]
pub struct Record {
    seed: u64,
    history: History,
    tally: Tally,
    /// How many still keys there are.
    still: u64,
    /// Up to which age there are hot keys.
    age: u64,
    crowds: u32,
    clients: u32,
    checkers: u32,
    sender: UnboundedSender<Heard>,
    heard: UnboundedReceiver<Heard>,
    begun: Instant,
    file: Option<BufWriter<File>>,
}

/// Clients at work on a thread of their own. They go on until the crowd is told to end, or its process ends.
#[derive(Debug)]
pub struct Crowd {
    duty: watch::Sender<Duty>,
    resting: watch::Receiver<usize>,
    clients: usize,
    works: JoinHandle<()>,
}

/// What clients are to do now.
#[derive(Clone, Debug)]
pub(super) struct Duty {
    pub(super) order: Order,
    pub(super) nodes: Arc<[SocketAddr]>,
    /// Hot keys of this age are written, and those of earlier ones read as well.
    pub(super) age: u64,
    /// Whether connections between nodes break, or have just now: whoever handed a write on tries again elsewhere, and
    /// both tries may be done.
    pub(super) is_rough: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Work,
    Rest,
    End,
}

impl Record {
    /// Nothing yet. The seed is that of all that clients draw.
    pub fn new(seed: u64) -> Record {
        let (sender, heard) = unbounded_channel();
        let (history, tally) = (History::default(), Tally::default());
        Record {
            seed,
            history,
            tally,
            still: 0,
            age: 0,
            crowds: 0,
            clients: 0,
            checkers: 0,
            sender,
            heard,
            begun: now(),
            file: None,
        }
    }

    /// Nothing yet. What is recorded is written to this file too, as it comes (docs/HISTORY.md).
    ///
    /// # Errors
    /// What the system says to that.
    pub fn in_file(seed: u64, path: &Path) -> io::Result<Record> {
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "{}", file::head())?;
        Ok(Record { file: Some(file), ..Record::new(seed) })
    }

    /// Writes so many still keys, with values of so many bytes, through these nodes.
    ///
    /// # Errors
    /// Those of [`Record::take`]. How many writes were acknowledged is for the tally to say.
    pub async fn fill(&mut self, nodes: &[SocketAddr], keys: u64, bytes: usize) -> io::Result<()> {
        let first = self.still;
        let mut fillers = JoinSet::new();
        for filler in 0..FILLERS {
            let number = FILLER + (first + filler) as u32;
            let mut worker = Worker::new(number, nodes.into(), Random::new(self.seed), self.sender.clone());
            fillers.spawn(async move {
                for key in (first..first + keys).skip(filler as usize).step_by(FILLERS as usize) {
                    worker.put_still(still_key(key), still_value(key, bytes)).await;
                }
            });
        }
        fillers.join_all().await;
        self.still = first + keys;
        self.take()
    }

    /// Sends so many clients to work on these nodes; those that do not answer are passed over.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn crowd(&mut self, nodes: &[SocketAddr], clients: u32) -> io::Result<Crowd> {
        let first = self.clients;
        (self.crowds, self.clients) = (self.crowds + 1, self.clients + clients);
        let mut random = Random::new(self.seed ^ u64::from(self.crowds));
        let workers: Vec<Worker> = (first..self.clients)
            .map(|number| Worker::new(number, nodes.into(), random.split(), self.sender.clone()))
            .collect();
        let (duty, orders) =
            watch::channel(Duty { order: Order::Work, nodes: nodes.into(), age: self.age, is_rough: false });
        let (rests, resting) = watch::channel(0);
        let (runtime, rests, still) = (runtime()?, Arc::new(rests), self.still);
        let work = async move {
            let mut tasks = JoinSet::new();
            for worker in workers {
                tasks.spawn(worker.work(orders.clone(), Arc::clone(&rests), still));
            }
            tasks.join_all().await;
        };
        let works = std::thread::Builder::new().name("crowd".to_owned()).spawn(move || runtime.block_on(work))?;
        Ok(Crowd { duty, resting, clients: clients as usize, works })
    }

    /// Hot keys of this age are written from now on, those before are only read.
    pub fn grow_older(&mut self, crowd: &Crowd) {
        self.age += 1;
        crowd.duty.send_modify(|duty| duty.age = self.age);
    }

    /// Ends a crowd, and takes what its clients were told. Blocks until the last call has ended.
    ///
    /// # Errors
    /// Those of [`Record::take`].
    pub fn add(&mut self, crowd: Crowd) -> io::Result<()> {
        crowd.duty.send_modify(|duty| duty.order = Order::End);
        // A client that has panicked has said so, and what the others were told is judged.
        let _ = crowd.works.join();
        self.take()
    }

    /// Takes what clients were told so far.
    ///
    /// # Errors
    /// What the system says to the file.
    pub fn take(&mut self) -> io::Result<()> {
        while let Ok(heard) = self.heard.try_recv() {
            self.tally.count(&heard);
            if let Heard::Event(at, event) = heard {
                let at = Moment(at.duration_since(self.begun).as_micros() as u64);
                if let Some(file) = &mut self.file {
                    writeln!(file, "{}", file::line(at, &event))?;
                }
                self.history.record_at(at, event).map_err(io::Error::other)?;
            }
        }
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }

    /// Everything has come to rest: reads all keys at R 2 through each of these nodes. No write that any client was
    /// told of may be missing now, those among them that only fallbacks had taken. What the reads show is there to be
    /// taken when they have ended.
    ///
    /// # Errors
    /// A key that could not be read, and why.
    pub fn read_all(&mut self, nodes: &[SocketAddr]) -> impl Future<Output = Result<(), String>> + use<> {
        // Behind all that was told so far.
        let _ = self.sender.send(Heard::Event(now(), Event::Rest));
        let first = CHECKER + self.checkers;
        self.checkers += nodes.len() as u32;
        let (still, hot) = (self.still, (self.age + 1) * HOT_KEYS);
        let readers: Vec<(SocketAddr, Worker)> = (first..)
            .zip(nodes)
            .map(|(number, &node)| {
                (node, Worker::new(number, [node].into(), Random::new(self.seed), self.sender.clone()))
            })
            .collect();
        async move {
            let mut reads = JoinSet::new();
            for (node, mut worker) in readers {
                reads.spawn(async move {
                    for key in (0..hot).map(hot_key).chain((0..still).map(still_key)) {
                        let terms = Terms { quorum: QUORUM, ..Terms::default() };
                        if worker.get(key.clone(), terms).await.is_none() {
                            return Err(format!("{key} is not read through {node}: {}", worker.failure()));
                        }
                    }
                    Ok(())
                });
            }
            reads.join_all().await.into_iter().collect()
        }
    }

    /// Every promise that was broken.
    pub fn verdict(&self) -> Vec<Violation> {
        judge(&self.history)
    }

    /// What was recorded.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// How calls ended so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}

impl Crowd {
    /// Clients ask these nodes from their next call on.
    pub fn turn_to(&self, nodes: &[SocketAddr]) {
        self.duty.send_if_modified(|duty| {
            let is_new = *duty.nodes != *nodes;
            if is_new {
                duty.nodes = nodes.into();
            }
            is_new
        });
    }

    /// Whether connections between nodes may break from now on: then writes that are quickly acknowledged may have been
    /// tried twice as well, as slow ones.
    pub fn set_rough(&self, is_rough: bool) {
        self.duty.send_if_modified(|duty| std::mem::replace(&mut duty.is_rough, is_rough) != is_rough);
    }

    /// Lets all clients end their call, and wait. Ends when they do.
    pub fn rest(&self) -> impl Future<Output = ()> + use<> {
        self.duty.send_modify(|duty| duty.order = Order::Rest);
        let (mut resting, all) = (self.resting.clone(), self.clients);
        async move {
            // Clients that have ended have no call under way.
            let _ = resting.wait_for(|resting| *resting == all).await;
        }
    }

    /// Lets them go on.
    pub fn go_on(&self) {
        self.duty.send_modify(|duty| duty.order = Order::Work);
    }
}

/// A runtime of one thread.
///
/// # Errors
/// What the system says.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// A key that is written once, before anything happens.
pub fn still_key(number: u64) -> Key {
    Key::new(format!("still-{number}")).expect("it is short")
}

fn still_value(number: u64, bytes: usize) -> Value {
    let text = format!("still {number} ");
    let value = text.repeat(1 + bytes / text.len())[..bytes.max(text.len())].to_owned();
    Value::new(value).expect("within the bound of values")
}

/// Half of them are written with contexts.
pub(super) fn hot_key(number: u64) -> Key {
    let kind = if is_blind(number) { "blind" } else { "seen" };
    Key::new(format!("{kind}-{number}")).expect("it is short")
}

pub(super) fn is_blind(number: u64) -> bool {
    number.is_multiple_of(2)
}
