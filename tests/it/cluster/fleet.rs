//! Clusters whose nodes come and go: each at a place of its own, with or without a proxy in front of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use sloop::lab::torture::links::Network;
use sloop::lab::torture::place::Place;
use sloop::lab::torture::proxy::{Carried, Delays, Proxy};
use sloop::lab::workload::Random;

use super::{flags, secret, seen};
use crate::dice::{Dice, seed};
use crate::harness::{Home, Metrics, Node, eventually};

/// Bytes of sets that changes of owners brought to a node since its start.
pub(super) const TRANSFER_BYTES: &str = "sloop_transfer_bytes_total";
/// Tombstones that a node holds.
pub(super) const TOMBSTONES: &str = "sloop_tombstones";

/// Whether there are proxies, and what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nodes reach each other directly.
    Plain,
    /// Through proxies that only count.
    Counted,
    /// Through proxies that hold back every twentieth frame, while they are told to.
    Delayed,
}

/// Nodes of one cluster, those that run and those that do not.
pub(super) struct Fleet {
    kind: Kind,
    /// Settings of all of them.
    settings: Vec<String>,
    network: Network,
    berths: Vec<Berth>,
    /// Whether proxies hold frames back now.
    holds_back: bool,
    dice: Dice,
}

/// One node, its disk and its way to the others.
struct Berth {
    name: String,
    place: Place,
    home: Home,
    proxy: Option<Proxy>,
    /// Nothing while it is down.
    node: Option<Node>,
    /// How often it was started.
    starts: u32,
}

impl Fleet {
    /// Three nodes with these settings besides the usual ones, `n0` to `n2`, that have found each other.
    pub(super) fn of_three(kind: Kind, settings: &[&str]) -> Fleet {
        Fleet::of(3, kind, settings)
    }

    /// As many.
    pub(super) fn of(nodes: usize, kind: Kind, settings: &[&str]) -> Fleet {
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut fleet = Fleet {
            kind,
            settings,
            network: Network::default(),
            berths: vec![],
            holds_back: false,
            dice: Dice(seed()),
        };
        let nodes: Vec<usize> = (0..nodes).map(|_| fleet.add()).collect();
        eventually("all agree", || fleet.is_settled(&nodes));
        fleet
    }

    /// Starts one more, which joins the others.
    pub(super) fn add(&mut self) -> usize {
        let (at, place) = (self.berths.len(), Place::find().unwrap());
        let (name, random) = (format!("n{at}"), Random::new(self.dice.next()));
        let proxy = |delays| Some(Proxy::begin(place, &name, &self.network, delays, random).unwrap());
        let proxy = match self.kind {
            Kind::Plain => None,
            Kind::Counted => proxy(Delays::NONE),
            Kind::Delayed => proxy(Delays::SOME),
        };
        proxy.iter().for_each(|proxy: &Proxy| proxy.hold_back(self.holds_back));
        self.berths.push(Berth { name, place, home: Home::new(), proxy, node: None, starts: 0 });
        self.start(at);
        at
    }

    /// Starts one that is down, on what its disk holds.
    pub(super) fn start(&mut self, at: usize) {
        let home = &self.berths[at].home;
        let flags = self.flags(at);
        let node = home.start_with(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        self.berths[at].node = Some(node);
        self.berths[at].starts += 1;
    }

    /// Tries to start it on another disk, which must be refused: gives what it says.
    pub(super) fn refused(&self, at: usize, home: &Home) -> String {
        let flags = self.flags(at);
        let ended = home.refused(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
        ended.said
    }

    fn flags(&self, at: usize) -> Vec<String> {
        let berth = &self.berths[at];
        let (secret, listen, http) = (secret(), berth.place.node().to_string(), berth.place.http().to_string());
        // The first node founds the cluster, when it starts for the first time.
        let others = self.berths.iter().enumerate().filter(|(other, _)| *other != at);
        let join: Vec<String> = others.map(|(_, other)| other.advertises().to_string()).collect();
        let mut all: Vec<String> =
            flags(&berth.name, &listen, &join.join(","), &secret).into_iter().map(str::to_owned).collect();
        all.extend(["--http".to_owned(), http, "--advertise".to_owned(), berth.advertises().to_string()]);
        all.extend(self.settings.iter().cloned());
        all
    }

    /// kill -9.
    pub(super) fn kill(&mut self, at: usize) {
        self.berths[at].node.take().expect("it runs").kill();
    }

    /// SIGTERM, and it ends well.
    pub(super) fn stop(&mut self, at: usize) {
        let ended = self.berths[at].node.take().expect("it runs").terminate();
        assert_eq!(ended.status.code(), Some(0), "{}: {}", self.name(at), ended.said);
    }

    /// Takes away all that the disk of a node that is down holds.
    pub(super) fn wipe(&mut self, at: usize) {
        assert!(self.berths[at].node.is_none(), "its node is down");
        std::fs::remove_dir_all(self.data_dir(at)).unwrap();
    }

    /// The disk of a node that is down; another one is in its place.
    pub(super) fn take_home(&mut self, at: usize) -> Home {
        assert!(self.berths[at].node.is_none(), "its node is down");
        std::mem::replace(&mut self.berths[at].home, Home::new())
    }

    pub(super) fn signal(&self, at: usize, signal: Signal) {
        self.node(at).signal(signal);
    }

    pub(super) fn data_dir(&self, at: usize) -> PathBuf {
        self.berths[at].home.data_dir()
    }

    pub(super) fn name(&self, at: usize) -> &str {
        &self.berths[at].name
    }

    /// Which of them run.
    pub(super) fn running(&self) -> Vec<usize> {
        (0..self.berths.len()).filter(|at| self.berths[*at].node.is_some()).collect()
    }

    /// Whether a change of owners is under way, as this node sees it.
    pub(super) fn is_changing(&self, at: usize) -> bool {
        let output = self.sloop(at, &["wait", "--for", "no-transfers", "--timeout", "1ms"]);
        assert_ne!(output.status.code(), Some(2), "{}", text(&output.stderr));
        !output.status.success()
    }

    pub(super) fn node(&self, at: usize) -> &Node {
        self.berths[at].node.as_ref().expect("it runs")
    }

    /// Those that run.
    pub(super) fn nodes(&self) -> Vec<&Node> {
        self.berths.iter().filter_map(|berth| berth.node.as_ref()).collect()
    }

    /// Where clients find this node, whether it runs or not.
    pub(super) fn address(&self, at: usize) -> SocketAddr {
        self.berths[at].place.node()
    }

    /// Whether frames are held back on all ways from now on.
    pub(super) fn hold_back(&mut self, holds_back: bool) {
        self.holds_back = holds_back;
        self.proxies().for_each(|proxy| proxy.hold_back(holds_back));
    }

    /// Frames that were held back on all ways.
    pub(super) fn delayed(&self) -> u64 {
        self.proxies().map(Proxy::delayed).sum()
    }

    /// Frames of these kinds on all ways, and their bytes.
    pub(super) fn carried(&self, kinds: &[std::ops::RangeInclusive<u8>]) -> Carried {
        self.proxies().map(|proxy| proxy.carried(kinds)).fold(Carried::default(), Carried::plus)
    }

    fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.berths.iter().filter_map(|berth| berth.proxy.as_ref())
    }

    /// A metric of all that run.
    pub(super) fn sum(&self, metric: &str) -> f64 {
        self.nodes().iter().map(|node| node.metric(metric)).sum()
    }

    /// Waits until these nodes are the layout, see each other up, and no change is under way. Meanwhile the meter
    /// looks at all that run.
    pub(super) fn settle(&self, members: &[usize], meter: &mut Meter) {
        eventually("the layout is in force on all of its nodes", || {
            meter.look(self);
            self.is_settled(members)
        });
        for &at in members {
            self.wait(at, "no-transfers");
        }
        meter.look(self);
    }

    /// Waits until all that run see as many up.
    pub(super) fn see(&self, up: usize) {
        let sees = |node: &&Node| seen(node).up == up as f64;
        eventually("who is up is known", || self.nodes().iter().all(sees));
    }

    fn is_settled(&self, members: &[usize]) -> bool {
        let mut numbers = vec![];
        for &at in members {
            let metrics = Metrics::of(self.node(at).http).expect("a node that runs answers");
            let down = ["down", "suspect"].map(|how| metrics.sum_where("sloop_members", &format!("\"{how}\"")));
            if metrics.sum("sloop_layout_nodes") != members.len() as f64 || down != [0.0, 0.0] {
                return false;
            }
            numbers.push(metrics.sum("sloop_layout_number"));
        }
        numbers.iter().all(|number| *number == numbers[0])
    }

    /// Waits until nothing is left to deliver, to move, to clear up or to repair, as the node of that place sees it.
    pub(super) fn converge(&self, at: usize) {
        self.wait(at, "converged");
    }

    fn wait(&self, at: usize, goal: &str) {
        done(&self.sloop(at, &["wait", "--for", goal, "--timeout", "120s"]));
    }

    /// An order of an operator, given through this node, until it is taken: what it may not do yet is refused.
    pub(super) fn order(&self, at: usize, arguments: &[&str]) -> String {
        let mut last = None;
        eventually(&format!("{arguments:?}"), || {
            let output = self.sloop(at, &[&["cluster"], arguments].concat());
            assert_ne!(output.status.code(), Some(2), "{}", text(&output.stderr));
            let says = text(&output.stderr);
            if last.as_ref() != Some(&says) && !says.is_empty() {
                println!("  {arguments:?}: {}", says.trim());
                last = Some(says);
            }
            if output.status.success() {
                last = Some(text(&output.stdout));
            }
            output.status.success()
        });
        last.expect("it was tried")
    }

    /// How the cluster looks from this node.
    pub(super) fn status(&self, at: usize) -> Value {
        serde_json::from_str(&done(&self.sloop(at, &["cluster", "status", "--json"]))).expect("JSON")
    }

    /// The share of all data that each node keeps a copy of: one of N parts where N nodes share it.
    pub(super) fn loads(&self, at: usize) -> Vec<f64> {
        let status = self.status(at);
        let nodes = status["nodes"].as_array().expect("a list of nodes");
        let load = |berth: &Berth| {
            let row = nodes.iter().find(|node| node["name"] == *berth.name);
            row.map_or(0.0, |row| row["partitions"].as_f64().expect("a number"))
        };
        let partitions = status["layout"]["partitions"].as_f64().expect("a number");
        self.berths.iter().map(|berth| load(berth) / partitions).collect()
    }

    fn sloop(&self, at: usize, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sloop"));
        command.args(arguments).env("SLOOP_HTTP_ADDR", self.node(at).http.to_string()).env_remove("SLOOP_TOKEN");
        command.stdin(Stdio::null()).output().expect("the binary starts")
    }
}

/// Counts what changes bring to all nodes. A node that starts again begins at zero, and the meter does not; only what
/// came between the last look and a kill is not counted.
pub(super) struct Meter {
    metric: &'static str,
    /// By the node and its start.
    last: BTreeMap<(usize, u32), f64>,
    sum: f64,
}

impl Meter {
    /// Of the bytes of sets that are transferred from now on.
    pub(super) fn of_transfers(fleet: &Fleet) -> Meter {
        let mut meter = Meter { metric: TRANSFER_BYTES, last: BTreeMap::new(), sum: 0.0 };
        meter.look(fleet);
        meter.sum = 0.0;
        meter
    }

    /// Takes what came since the last look.
    pub(super) fn look(&mut self, fleet: &Fleet) {
        for (at, berth) in fleet.berths.iter().enumerate() {
            let Some(metrics) = berth.node.as_ref().and_then(|node| Metrics::of(node.http)) else { continue };
            let (now, last) = (metrics.sum(self.metric), self.last.entry((at, berth.starts)).or_default());
            self.sum += now - *last;
            *last = now;
        }
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum
    }
}

impl Berth {
    fn advertises(&self) -> SocketAddr {
        self.proxy.as_ref().map_or(self.place.node(), |proxy| proxy.address)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "seed {}: {}", seed(), text(&output.stderr));
    text(&output.stdout)
}
