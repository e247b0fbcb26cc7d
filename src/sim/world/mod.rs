//! Nodes, their disks and the network between them, as one queue of events on virtual time.
//!
//! ```text
//!   stage     time, chance, what is due when, who watches          ┐
//!   network   ways between nodes: lost, late, doubled, cut, slow   │  shared by all nodes
//!   clock     the clocks of a node, which drift and jump          │
//!   node      a disk, and now and then a process on it             ┘
//!     core      shard and engine of one core: `runtime`, done with events
//!     members   the membership: `control`, done with events
//!     disk      what outlives a process
//! ```
//! Every byte that goes between nodes, to a log or into a tree is spelled and read back by the daemon's own code.

mod clock;
mod stage;
mod network;
mod disk;
mod core;
mod members;
mod node;

pub(super) use self::clock::DRIFT_PPM_MAX;
pub(super) use self::core::BEAT;
pub(super) use self::node::{Node, NotStarted, Part, Stalled};
pub(super) use self::stage::{At, Caller, ClientEvent, CoreEvent, Event, MembersEvent, Mend, Place, Stage, WorldEvent};

use std::time::Duration;

use super::chance::Chance;
use super::clients::Clients;
use super::operator::Operator;
use super::shape::Shape;
use super::trace::Trace;
use super::truth::NodeTruth;
use crate::protocol::planted::Planted;
use crate::protocol::ring::Cores;
use crate::protocol::types::Instant;
use clock::Clock;
use stage::Post;

/// A cluster at work, its clients, its operator, and whoever makes trouble for it.
pub(super) struct World {
    /// What all share.
    pub stage: Stage,
    /// The nodes, those that are gone too.
    pub nodes: Vec<Node>,
    /// Whoever asks.
    pub clients: Clients,
    /// Whoever stages changes.
    pub operator: Operator,
    /// Faults go on.
    pub(super) is_wild: bool,
    /// Faults that have not ended.
    pub(super) faults: usize,
}

impl World {
    /// A world in which nothing runs yet.
    pub(super) fn new(chance: Chance, shape: Shape, planted: Planted, trace: Trace) -> World {
        let clients = Clients::new(shape.clients);
        let stage = Stage::new(chance, shape, planted, trace);
        World { stage, nodes: Vec::new(), clients, operator: Operator::default(), is_wild: false, faults: 0 }
    }

    /// Another machine, on which nothing runs yet.
    pub(super) fn add(&mut self) -> At {
        let at = self.nodes.len();
        let name = format!("n{at}");
        let most = self.stage.shape.cores;
        let count = u16::try_from(self.stage.chance.between(1, most.into())).expect("a few cores");
        let cores = Cores { count, salt: self.stage.chance.bits() };
        let node = Node::new(at, &name, cores, &mut self.stage);
        self.stage.posts.push(Post {
            id: node.id(),
            life: None,
            open: 0,
            cores,
            lag: Duration::ZERO,
            clock: Clock::default(),
        });
        self.stage.watch.truth.nodes.push(NodeTruth::new(node.id(), cores));
        self.nodes.push(node);
        at
    }

    /// Starts a node that does not run. One whose disk is damaged says so, and is lost with its disk.
    pub(super) fn start(&mut self, at: At) {
        let World { stage, nodes, .. } = self;
        let node = &mut nodes[at];
        if node.is_alive() || node.is_gone {
            return;
        }
        stage.note(|_| format!("n{at} starts"));
        if let Err(NotStarted::Damaged(what)) = node.start(stage) {
            stage.note(|_| format!("n{at} does not start: {what}"));
            self.on_damage(at, &what);
        }
    }

    /// Lets time go by until then, or until something is wrong. False once something is.
    pub(super) fn run_until(&mut self, until: Instant) -> bool {
        while self.stage.watch.broken().is_none() {
            let Some(event) = self.stage.next(until) else {
                self.stage.now = until;
                return true;
            };
            self.happen(event);
        }
        false
    }

    /// Lets so much time go by.
    pub(super) fn run(&mut self, time: Duration) -> bool {
        let until = self.stage.now + time;
        self.run_until(until)
    }

    /// Lets time go by, a little at a time, until it is so; `None` when it never is within `limit`, or something is
    /// wrong.
    pub(super) fn wait(&mut self, limit: Duration, is_so: impl Fn(&World) -> bool) -> Option<Duration> {
        let begun = self.stage.now;
        while !is_so(self) {
            if limit < self.stage.now.since(begun) || !self.run(LOOK) {
                return None;
            }
        }
        Some(self.stage.now.since(begun))
    }

    fn happen(&mut self, event: Event) {
        let at = match &event {
            Event::Core(place, _) => place.node,
            Event::Members(at, ..) => *at,
            Event::Client(client, _) => {
                let client = *client;
                let Event::Client(_, event) = event else { unreachable!("it was looked at") };
                return self.clients.happen(client, event, &mut self.stage);
            }
            Event::World(_) => {
                let Event::World(event) = event else { unreachable!("it was looked at") };
                return self.on_world(event);
            }
        };
        let node = &mut self.nodes[at];
        match &mut node.stalled {
            Some(stalled) if stalled.holds_up(&event) => stalled.waiting.push(event),
            _ => node.happen(event, &mut self.stage),
        }
    }
}

/// Between two looks at whether something is so.
const LOOK: Duration = Duration::from_millis(50);
