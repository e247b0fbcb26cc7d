//! The commands of a scene, done to a world in which nothing is left to chance.

use std::time::Duration;

use super::tale::Tale;
use crate::protocol::config::TOMBSTONE_AGE;
use crate::protocol::membership::{Order, OrderId};
use crate::protocol::message::{Causality, Delete, Get, Put, Request, Terms};
use crate::protocol::planted::Planted;
use crate::protocol::ring::Wanted;
use crate::protocol::types::{Key, OperationId, Value};
use crate::sim::run::{agree, found, unrest};
use crate::sim::story;
use crate::sim::trace::Trace;
use crate::sim::world::{At, Event, MembersEvent, World};
use crate::sim::{Chance, Scenario, Shape};

/// Everything that a call or an order leads to at once is over by then.
const TURN: Duration = Duration::from_millis(500);

/// Whatever is waited for comes within this.
const LIMIT: Duration = Duration::from_secs(240);

const CLIENTS: [&str; 3] = ["client", "ann", "bob"];

/// A scene being played.
pub(super) struct Script {
    world: World,
    tale: Tale,
    /// What the scene calls each node.
    names: Vec<String>,
    orders: u64,
}

impl Script {
    /// A cluster that was just founded.
    pub(super) fn begin(settings: &[&str], planted: Planted) -> Script {
        let chance = Chance::prompt(1);
        let shape = shape(settings);
        let partition = crate::protocol::ring::Ring::new(shape.partitions).partition(&key());
        let mut world = World::new(chance, shape, planted, Trace::on());
        found(&mut world).unwrap_or_else(|(_, what)| panic!("{what}"));
        world.run(TURN);
        let tale = Tale::new(world.stage.trace.lines().len(), partition);
        let mut script = Script { world, tale, names: Vec::new(), orders: 0 };
        let owners = script.owners();
        let mut spares = 0;
        for at in 0..script.world.nodes.len() {
            let name = owners.iter().position(|owner| *owner == at).map_or_else(
                || {
                    spares += 1;
                    format!("spare{spares}")
                },
                |place| format!("owner{}", place + 1),
            );
            script.christen(at, name);
        }
        for (client, name) in CLIENTS.iter().enumerate() {
            script.tale.call(format!("c{client}"), name);
        }
        script
    }

    fn christen(&mut self, at: At, name: String) {
        self.tale.call(self.world.nodes[at].name.clone(), &name);
        self.names.push(name);
    }

    fn owners(&self) -> Vec<At> {
        let world = &self.world;
        let view = world.nodes.iter().find_map(|node| node.view()).expect("a cluster was founded");
        let owners = view.layout.owners(world.stage.ring().partition(&key()));
        owners.filter_map(|owner| world.stage.at(owner)).collect()
    }

    /// Does what a command says. What is said then.
    pub(super) fn perform(&mut self, command: &[&str]) -> Vec<String> {
        let (command, turn) = match command {
            [command @ .., "at", "once"] => (command, Duration::ZERO),
            ["put" | "get" | "delete" | "order", ..] => (command, TURN),
            command => (command, Duration::ZERO),
        };
        let mut more = Vec::new();
        match command {
            ["put" | "get" | "delete", "k", ..] => self.call(command),
            ["kill", node] => self.world.end(self.node(node), false),
            ["start", node] => self.world.start(self.node(node)),
            ["cut", node, "from", others @ ..] => self.cut(node, others),
            ["mend"] => self.mend(),
            ["lose", "the", "disk", "of", node] => self.lose_disk(node),
            ["join", node, "by", member] => self.join(node, member),
            ["order", order @ .., "at", member] => self.order(order, member),
            ["wait", "until", "rest"] => self.rest(),
            ["wait", time] => drop(self.world.run(duration(time))),
            ["copies"] => more = self.copies(),
            _ => panic!("not understood: {}", command.join(" ")),
        }
        self.world.run(turn);
        let broken = self.world.stage.watch.broken();
        assert!(broken.is_none(), "after {}: {broken:?}", command.join(" "));
        let mut told = self.tale.tell(self.world.stage.trace.lines());
        told.extend(more);
        told
    }

    fn node(&self, name: &str) -> At {
        self.names.iter().position(|known| known == name).unwrap_or_else(|| panic!("no node is called {name}"))
    }

    fn call(&mut self, words: &[&str]) {
        let behind = |word: &str| words.iter().position(|other| *other == word).map(|at| words[at + 1]);
        let node = self.node(behind("at").expect("a call names its node"));
        let client = behind("by").map_or(0, |name| {
            CLIENTS.iter().position(|known| *known == name).unwrap_or_else(|| panic!("no client is called {name}"))
        });
        let (key, terms) = (key(), terms(words));
        let operation = behind("named").map(|id| OperationId::new(id).expect("a short id"));
        let causality = if words.contains(&"context") {
            let context = self.world.clients.context(client, &key).expect("the client has heard of the key");
            Causality::Context(context.clone())
        } else if words.contains(&"beside") {
            Causality::Sibling
        } else {
            Causality::Blind
        };
        let request = match words[0] {
            "get" => Request::Get(Get { key, terms }),
            "delete" => Request::Delete(Delete { key, causality, operation, terms }),
            _ => {
                let value = Value::new(words[2].as_bytes().to_vec()).expect("a short value");
                Request::Put(Put { key, value, causality, operation, terms })
            }
        };
        self.wait(|world| world.stage.serves(node));
        self.world.clients.send(client, node, request, &mut self.world.stage);
        self.wait(|world| world.clients.are_done());
    }

    fn wait(&mut self, is_so: impl Fn(&World) -> bool) {
        let waited = self.world.wait(LIMIT, is_so);
        assert!(waited.is_some(), "no end: {:?}, {:?}", unrest(&self.world), self.world.stage.watch.broken());
    }

    fn rest(&mut self) {
        self.wait(|world| agree(world) && unrest(world).is_none());
    }

    fn cut(&mut self, node: &str, others: &[&str]) {
        let one = self.node(node);
        for other in others {
            let other = self.node(other);
            self.world.stage.network.cut.extend([(one, other), (other, one)]);
        }
    }

    fn mend(&mut self) {
        let cut = std::mem::take(&mut self.world.stage.network.cut);
        cut.into_iter().filter(|(one, other)| one < other).for_each(|(one, other)| self.world.stage.link(one, other));
    }

    fn lose_disk(&mut self, node: &str) {
        let at = self.node(node);
        self.world.end(at, true);
        self.world.nodes[at].lose_disk(&mut self.world.stage);
        self.world.stage.watch.truth.lose_disk(at);
    }

    fn join(&mut self, node: &str, member: &str) {
        if node.starts_with("new") {
            let at = self.world.add();
            self.christen(at, node.to_owned());
        }
        let (at, member) = (self.node(node), self.node(member));
        let known = self.world.nodes[member].knowledge().expect("the member runs");
        self.world.nodes[at].join(known).expect("its name is free");
        self.world.start(at);
    }

    fn order(&mut self, order: &[&str], member: &str) {
        let id = |node: &str| self.world.nodes[self.node(node)].id();
        let order = match order {
            ["leave", node] => Order::Leave(id(node)),
            ["remove", node] => Order::Remove(id(node)),
            ["replace", node] => Order::Replace { node: id(node), by: None },
            ["weight", node, weight] => Order::Weight(id(node), weight.parse().expect("a weight")),
            ["commit"] => Order::Commit,
            _ => panic!("no such order: {}", order.join(" ")),
        };
        self.orders += 1;
        let (id, at) = (OrderId(self.orders), self.node(member));
        let life = self.world.stage.posts[at].life.expect("the member runs");
        self.world.stage.after(Duration::ZERO, Event::Members(at, life, MembersEvent::Order(id, order)));
        while !self.world.stage.ordered.contains_key(&id) {
            assert!(self.world.run(Duration::from_micros(100)), "a promise is broken");
        }
        if let Some(Err(why)) = self.world.stage.ordered.remove(&id) {
            panic!("the order is refused: {why}");
        }
    }

    /// Who holds the key, and who owes it to whom.
    fn copies(&mut self) -> Vec<String> {
        let key = key();
        let (mut held, mut owed) = (Vec::new(), Vec::new());
        for (at, node) in self.world.stage.watch.truth.nodes.iter().enumerate() {
            if let Some(set) = node.sets.get(&key) {
                let versions = set.versions().iter().map(story::version).collect::<Vec<_>>();
                held.push((at, format!("holds {}", versions.join(" | "))));
            }
            owed.extend(node.hints.keys().map(|(_, target)| (at, format!("owes k to {target}"))));
        }
        if held.is_empty() && owed.is_empty() {
            return vec!["nobody holds k".to_owned()];
        }
        held.extend(owed);
        self.tale.say(&held)
    }
}

/// A calm cluster: nothing is drawn for it but names.
fn shape(settings: &[&str]) -> Shape {
    let setting = |name: &str| settings.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let number = |name: &str, usual: u8| setting(name).map_or(usual, |number| number.parse().expect("a number"));
    let time = |name: &str, usual: Duration| setting(name).map_or(usual, duration);
    let ms = Duration::from_millis;
    Shape {
        partitions: 8,
        wanted: Wanted { n: number("n", 3), r: number("r", 2), w: number("w", 2) },
        nodes: number("nodes", 3).into(),
        spares: 0,
        cores: 1,
        auto_join: false,
        hop: ms(1),
        sync: ms(1),
        read: ms(1),
        compare_period: time("compare", Duration::from_secs(3_600)),
        keeps_hints: true,
        tombstone_age: time("age", TOMBSTONE_AGE),
        transfer_rate: 1024 * 1024,
        clients: CLIENTS.len(),
        ..Shape::draw(Scenario::Calm, &mut Chance::new(1))
    }
}

fn key() -> Key {
    Key::new("k").expect("a short key")
}

fn terms(words: &[&str]) -> Terms {
    let quorum = words.iter().find_map(|word| word.strip_prefix("q="));
    Terms {
        quorum: quorum.map_or(0, |quorum| quorum.parse().expect("a quorum")),
        strict: words.contains(&"strict"),
        retry: words.contains(&"retry"),
        deadline_ms: 0,
    }
}

fn duration(time: &str) -> Duration {
    let (number, unit) = time.split_at(time.find(|c: char| !c.is_ascii_digit()).expect("a unit"));
    let number = number.parse().expect("a number");
    if unit == "ms" { Duration::from_millis(number) } else { Duration::from_secs(number) }
}
