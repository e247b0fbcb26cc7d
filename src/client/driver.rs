//! The client's one task that decides: it opens connections that calls wish for, asks who owns what, and puts nodes
//! aside for a while that were lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::connection::{Connection, End, Job, connect, connect_to, tell};
use super::links::{Link, Links, Target, Wish};
use super::map::{Map, is_nowhere};
use super::{Error, JOBS_MAX, Options, Result};
use crate::protocol::message::{Answer, Call, RingMap};
use crate::protocol::types::NodeId;

/// Most connections of one client: all cores of a cluster of some size. Beyond it, requests for other cores take the
/// connections that are there.
const LINKS_MAX: usize = 256;

/// Time that a node has to say who owns what.
const ASKED_MAX: Duration = Duration::from_secs(1);

/// Least time between two looks at the ring, however many connections are lost together.
const LOOKS_APART: Duration = Duration::from_millis(100);

/// A node that was lost is left aside for this long, twice as long each time, up to the most.
const ASIDE_MIN: Duration = Duration::from_millis(100);
const ASIDE_MAX: Duration = Duration::from_secs(5);

/// A node that answers on another core than asked for is not asked for that one again for this long.
const OTHER_CORE: Duration = Duration::from_secs(30);

/// What a task of the driver ends with.
enum Done {
    Carried { at: Target, serial: u64, end: End },
    Opened { to: Target, connection: Result<Connection> },
    Reached(Result<Connection>),
    Heard(Option<RingMap>),
}

struct Open {
    /// Tells it from an earlier one to the same core.
    serial: u64,
    link: Link,
    /// Where it was reached.
    address: String,
    /// Its place among the options' nodes.
    at: Option<usize>,
}

pub(super) struct Driver {
    options: Options,
    wishes: mpsc::Receiver<Wish>,
    published: watch::Sender<Arc<Links>>,
    map: Option<Arc<Map>>,
    open: BTreeMap<Target, Open>,
    home: Option<Target>,
    /// Nodes that were lost, and until when they are left alone.
    aside: BTreeMap<NodeId, Instant>,
    /// How long each was left alone last; forgotten once it is reached.
    waits: BTreeMap<NodeId, Duration>,
    opening: BTreeSet<Target>,
    /// Cores that a node did not answer on.
    others: BTreeMap<Target, Instant>,
    /// Calls that wait until somebody is reached.
    waiting: Vec<Job>,
    is_searching: bool,
    /// Where the next search begins among the options' nodes.
    start: usize,
    looks_at: Instant,
    looked_at: Instant,
    is_looking: bool,
    /// Who was asked last.
    asked: Option<Target>,
    /// Of the last connection.
    serial: u64,
    tasks: JoinSet<Done>,
}

impl Driver {
    pub(super) fn new(
        options: Options,
        first: Connection,
        wishes: mpsc::Receiver<Wish>,
        published: watch::Sender<Arc<Links>>,
    ) -> Driver {
        let now = Instant::now();
        let mut driver = Driver {
            options,
            wishes,
            published,
            map: None,
            open: BTreeMap::new(),
            home: None,
            aside: BTreeMap::new(),
            waits: BTreeMap::new(),
            opening: BTreeSet::new(),
            others: BTreeMap::new(),
            waiting: Vec::new(),
            is_searching: false,
            start: 0,
            looks_at: now,
            looked_at: now,
            is_looking: false,
            asked: None,
            serial: 0,
            tasks: JoinSet::new(),
        };
        driver.take(first);
        driver
    }

    /// Runs until the last client is dropped; then all connections end with it.
    pub(super) async fn run(mut self) {
        loop {
            let next = self.aside.values().copied().fold(self.looks_at, Instant::min);
            tokio::select! {
                wish = self.wishes.recv(), if self.waiting.len() < JOBS_MAX => match wish {
                    Some(wish) => self.on_wish(wish),
                    None => return,
                },
                Some(done) = self.tasks.join_next() => if let Ok(done) = done {
                    self.on_done(done);
                },
                () = sleep_until(next) => self.on_time(),
            }
        }
    }

    fn on_wish(&mut self, wish: Wish) {
        match wish {
            Wish::Open(to) => self.open(to),
            Wish::Look => self.look_soon(),
            Wish::Carry(job) => {
                self.waiting.push(job);
                self.hand_over();
                if !self.waiting.is_empty() && !self.is_searching {
                    self.search();
                }
            }
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Carried { at, serial, end } => self.on_end(at, serial, &end),
            Done::Opened { to, connection } => {
                self.opening.remove(&to);
                match connection {
                    Ok(connection) => {
                        if connection.target() != to {
                            self.others.insert(to, Instant::now() + OTHER_CORE);
                        }
                        self.take(connection);
                    }
                    Err(_) => self.put_aside(to.node),
                }
            }
            Done::Reached(Ok(connection)) => {
                self.is_searching = false;
                self.take(connection);
            }
            // Each caller knows for itself how long it wants to go on trying.
            Done::Reached(Err(error)) => {
                self.is_searching = false;
                self.waiting.drain(..).for_each(|job| tell(job.answer, Err(error.clone())));
            }
            Done::Heard(map) => self.on_map(map),
        }
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        self.others.retain(|_, until| now < *until);
        let aside = self.aside.len();
        // Whoever is not aside any more is tried for the next call that wants it.
        self.aside.retain(|_, until| now < *until);
        if self.aside.len() < aside {
            self.publish();
        }
        if self.looks_at <= now {
            self.look();
        }
    }

    /// Opens a connection in the background, unless it is there, on its way, or of no use now.
    fn open(&mut self, to: Target) {
        let links = self.open.len() + self.opening.len();
        let is_vain = self.usable().any(|(target, _)| target == to)
            || self.others.contains_key(&to)
            || self.aside.contains_key(&to.node)
            || LINKS_MAX <= links;
        let Some(address) = self.address(to.node).filter(|_| !is_vain) else {
            return;
        };
        if self.opening.insert(to) {
            let options = self.options.clone();
            self.tasks.spawn(async move {
                let connection = connect_to(&options, None, address, Some(to.core)).await;
                Done::Opened { to, connection }
            });
        }
    }

    /// Where a node listens: as the ring says, or where it was reached.
    fn address(&self, node: NodeId) -> Option<String> {
        let told = self.map.as_ref()?.address(node).filter(|address| !is_nowhere(*address));
        let reached = || self.open.iter().find(|(target, _)| target.node == node).map(|(_, open)| open.address.clone());
        told.map(|address| address.to_string()).or_else(reached)
    }

    /// Connects to whoever is there: the options' nodes in turn, then all that the ring names.
    fn search(&mut self) {
        self.is_searching = true;
        let options = self.options.clone();
        let start = self.start;
        let others = self.map.as_ref().map(|map| map.addresses()).unwrap_or_default();
        self.tasks.spawn(async move { Done::Reached(connect(&options, start, others).await) });
    }

    /// Gives the calls that wait to a connection that is there now.
    fn hand_over(&mut self) {
        let Some(jobs) = self.usable().next().map(|(_, open)| open.link.jobs.clone()) else {
            return;
        };
        for job in self.waiting.drain(..) {
            if let Err(refused) = jobs.try_send(job) {
                tell(refused.into_inner().answer, Err(Error::gone(false)));
            }
        }
    }

    /// Connections that take calls.
    fn usable(&self) -> impl Iterator<Item = (Target, &Open)> {
        self.open.iter().filter(|(_, open)| !open.link.jobs.is_closed()).map(|(target, open)| (*target, open))
    }

    fn take(&mut self, connection: Connection) {
        let at = connection.target();
        self.aside.remove(&at.node);
        self.waits.remove(&at.node);
        if self.usable().all(|(target, _)| target != at) {
            let (jobs, queue) = mpsc::channel(JOBS_MAX);
            let link = Link { jobs, is_quiet: Arc::clone(&connection.is_quiet) };
            self.serial += 1;
            let serial = self.serial;
            let (address, place) = (connection.address.clone(), connection.at);
            self.open.insert(at, Open { serial, link, address, at: place });
            self.home.get_or_insert(at);
            let carried = async move { Done::Carried { at, serial, end: connection.carry(queue).await } };
            self.tasks.spawn(carried);
            self.look_soon();
            self.hand_over();
        }
        self.publish();
    }

    fn on_end(&mut self, at: Target, serial: u64, end: &End) {
        if self.open.get(&at).is_none_or(|open| open.serial != serial) {
            return;
        }
        let open = self.open.remove(&at).expect("it was there just now");
        if *end == End::Lost {
            self.put_aside(at.node);
        }
        self.start = open.at.map_or(self.start, |at| at + 1);
        if self.home == Some(at) {
            let same = |target: &&Target| target.node == at.node;
            self.home = self.open.keys().find(same).or(self.open.keys().next()).copied();
        }
        self.look_soon();
        self.publish();
    }

    fn put_aside(&mut self, node: NodeId) {
        let wait = self.waits.get(&node).map_or(ASIDE_MIN, |wait| (*wait * 2).min(ASIDE_MAX));
        if !self.aside.contains_key(&node) {
            self.waits.insert(node, wait);
            self.aside.insert(node, Instant::now() + wait);
            self.publish();
        }
    }

    fn look_soon(&mut self) {
        self.looks_at = self.looks_at.min(self.looked_at + LOOKS_APART);
    }

    /// Asks another node than last time who owns what.
    fn look(&mut self) {
        let now = Instant::now();
        (self.looked_at, self.looks_at) = (now, now + self.options.ring_interval);
        if self.is_looking || !self.options.routes() {
            return;
        }
        let sound = || self.usable().filter(|(_, open)| !open.link.is_quiet());
        let Some((from, open)) = sound().find(|(target, _)| self.asked < Some(*target)).or_else(|| sound().next())
        else {
            return;
        };
        let (jobs, ends) = (open.link.jobs.clone(), now + ASKED_MAX);
        let known = self.map.as_ref().map_or(Default::default(), |map| map.stamp());
        self.asked = Some(from);
        self.is_looking = true;
        self.tasks.spawn(async move {
            let asked = async {
                let (answer, heard) = oneshot::channel();
                jobs.send(Job { call: Call::Ring { known }, ends, answer }).await.ok()?;
                match heard.await {
                    Ok(Ok(Answer::Ring(map))) => Some(map),
                    _ => None,
                }
            };
            Done::Heard(timeout_at(ends, asked).await.ok().flatten())
        });
    }

    fn on_map(&mut self, told: Option<RingMap>) {
        self.is_looking = false;
        let Some(map) = told.and_then(|told| Map::of(told, self.map.as_deref())) else {
            return;
        };
        self.waits.retain(|node, _| map.is_there(*node));
        self.map = Some(Arc::new(map));
        self.publish();
    }

    fn publish(&self) {
        let open = self.open.iter().map(|(target, open)| (*target, open.link.clone())).collect();
        let aside = self.aside.keys().copied().collect();
        self.published.send_replace(Arc::new(Links { map: self.map.clone(), open, home: self.home, aside }));
    }
}
