//! Worlds told as text, a line a step, so that a story can be read by whoever wonders what the store does.
//!
//! ```text
//! cluster 3 n=3 r=2 w=2 age=3600  begins; 5 nodes with n=3 have owners and fallbacks; age is that of tombstones
//! put k v at a -> ok             nodes are a b c ..; of five, "owner1 owner2 owner3 spare1 spare2" of the key too
//! put k v at a r/w=3 strict id=x retry with=ctx -> refused 2 of 3
//! get k at b as ctx -> v         "nothing" for no value, "v|w" for siblings; "as" keeps the context
//! delete k at c -> ok
//! put k v at a unheard as x      goes on in the background
//! answer x -> ok                 how that ended
//! crash a / restart a / break a (its log) / pause a / resume a / fill a / empty a
//! lose a                         what it owes to others, of a dead node
//! cut a b / cut a > b / clog a > b / unclog a > b / slow a > b 20s (what sets out then) / heal
//! change a b c -> begun          a begins a change to a layout of these; "cluster 5 members=3" begins with a b c only
//! step at a -> write             what a node does about it: write, hold, read, or none
//! remove a at b                  a is dead for good, which b is told
//! expel a at b                   b is told so though a is alive
//! deafen a                       the membership of a stands still, and its shard goes on by what it knows
//! wipe a at b                    a loses its disk and starts on an empty one, and learns from b what the cluster is
//! notice a down, notice a up     what membership says, on every other node
//! clock a 3600s                  the wall clock of a is that much ahead
//! wait 2s
//! copy k at a -> v               what the node itself holds; "!" stands for a tombstone
//! hints at a -> 1
//! keys at a -> 1                tombstones too
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::world::{Cluster, World};
use crate::protocol::config::TOMBSTONE_AGE;
use crate::protocol::message::{Causality, Delete, Failure, Get, Outcome, Put, Reply, Request, Terms};
use crate::protocol::ring::Wanted;
use crate::protocol::types::{Key, OperationId, RequestId, Value};

/// A story being told.
struct Story {
    world: World,
    contexts: BTreeMap<String, Bytes>,
    unheard: BTreeMap<String, RequestId>,
}

/// Tells a story.
///
/// # Panics
/// Where it goes otherwise than told, with the line; or where a line is not understood.
pub(super) fn tell(text: &str) {
    let mut story: Option<Story> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (step, expected) = match line.split_once("->") {
            Some((step, expected)) => (step, Some(expected.trim())),
            None => (line, None),
        };
        let words: Vec<&str> = step.split_whitespace().collect();
        let happened = match (&words[..], &mut story) {
            (["cluster", nodes, rest @ ..], _) => {
                story = Some(begin(nodes, rest));
                String::new()
            }
            (_, Some(story)) => story.step(&words, line),
            (_, None) => panic!("a story begins with its cluster, not with: {line}"),
        };
        if let Some(expected) = expected {
            assert_eq!(happened, expected, "in the line: {line}");
        }
    }
}

fn begin(nodes: &str, rest: &[&str]) -> Story {
    let setting = |name: &str, default: u64| {
        let found = rest.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.map_or(default, |value| value.parse().expect("a number"))
    };
    let small = |value| u8::try_from(value).expect("a quorum is a small number");
    let wanted = Wanted { n: small(setting("n", 3)), r: small(setting("r", 2)), w: small(setting("w", 2)) };
    let nodes: usize = nodes.parse().expect("a number of nodes");
    let members = usize::try_from(setting("members", nodes as u64)).expect("a number of nodes");
    let tombstone_age = Duration::from_secs(setting("age", TOMBSTONE_AGE.as_secs()));
    let world = World::new(Cluster { nodes, members, wanted, seed: setting("seed", 1), tombstone_age });
    Story { world, contexts: BTreeMap::new(), unheard: BTreeMap::new() }
}

impl Story {
    fn step(&mut self, words: &[&str], line: &str) -> String {
        match words {
            ["put", key, value, "at", node, rest @ ..] => {
                let put = Put {
                    key: self::key(key),
                    value: Value::new(value.as_bytes().to_vec()).expect("a short value"),
                    causality: self.causality(rest),
                    operation: operation(rest),
                    terms: terms(rest),
                };
                self.ask(key, node, Request::Put(put), rest)
            }
            ["delete", key, "at", node, rest @ ..] => {
                let (causality, operation, terms) = (self.causality(rest), operation(rest), terms(rest));
                let delete = Delete { key: self::key(key), causality, operation, terms };
                self.ask(key, node, Request::Delete(delete), rest)
            }
            ["get", key, "at", node, rest @ ..] => {
                let get = Get { key: self::key(key), terms: terms(rest) };
                self.ask(key, node, Request::Get(get), rest)
            }
            ["answer", name] => shown(self.world.wait_for(self.unheard[*name])),
            ["copy", key, "at", node] => self.copy(key, node),
            ["hints", "at", node] => self.world.hints(self.node("", node)).to_string(),
            ["keys", "at", node] => self.world.keys(self.node("", node)).to_string(),
            ["deafen", node, rest @ ..] => self.each(node, rest, World::deafen),
            ["crash", node, rest @ ..] => self.each(node, rest, World::crash),
            ["restart", node, rest @ ..] => self.each(node, rest, World::start),
            ["lose", node, rest @ ..] => self.each(node, rest, World::lose_hints),
            ["pause", node, rest @ ..] => self.each(node, rest, World::pause),
            ["resume", node, rest @ ..] => self.each(node, rest, World::resume),
            ["break", node, rest @ ..] => self.each(node, rest, World::break_log),
            ["fill", node, rest @ ..] => self.each(node, rest, |world, node| world.fill(node, true)),
            ["empty", node, rest @ ..] => self.each(node, rest, |world, node| world.fill(node, false)),
            [how @ ("clog" | "unclog"), one, ">", other, rest @ ..] => {
                let key = rest.iter().find_map(|word| word.strip_prefix("of=")).unwrap_or_default();
                let (one, other) = (self.node(key, one), self.node(key, other));
                self.world.clog(one, other, *how == "clog");
                String::new()
            }
            ["cut", one, ">", other] => {
                let (one, other) = (self.node("", one), self.node("", other));
                self.world.cut(one, other);
                String::new()
            }
            ["cut", one, other] => {
                let (one, other) = (self.node("", one), self.node("", other));
                self.world.cut(one, other);
                self.world.cut(other, one);
                String::new()
            }
            ["change", told, rest @ ..] => {
                let is_name = |word: &&&str| word.len() == 1;
                let nodes = std::iter::once(told)
                    .chain(rest)
                    .filter(is_name)
                    .map(|node| self.node("", node))
                    .collect::<Vec<_>>();
                let begun = self.world.change(self.node("", told), &nodes);
                if begun { "begun" } else { "not begun" }.to_owned()
            }
            ["step", "at", node] => self
                .world
                .step_of(self.node("", node))
                .map_or("none".to_owned(), |step| format!("{step:?}").to_lowercase()),
            [how @ ("remove" | "expel" | "wipe"), node, "at", told] => {
                let (node, told) = (self.node("", node), self.node("", told));
                match *how {
                    "wipe" => self.world.wipe(node, told),
                    "expel" => self.world.expel(node, told),
                    _ => self.world.remove(node, told),
                }
                String::new()
            }
            ["slow", one, ">", other, time, rest @ ..] => {
                let key = rest.iter().find_map(|word| word.strip_prefix("of=")).unwrap_or_default();
                let (one, other) = (self.node(key, one), self.node(key, other));
                self.world.slow(one, other, duration(time));
                String::new()
            }
            ["clock", node, time, rest @ ..] => {
                self.each(node, rest, |world, node| world.set_clock(node, duration(time)))
            }
            ["heal"] => {
                self.world.heal();
                String::new()
            }
            ["notice", node, rest @ .., how] => {
                let key = rest.iter().find_map(|word| word.strip_prefix("of=")).unwrap_or_default();
                let node = self.node(key, node);
                for other in (0..self.world.nodes()).filter(|other| *other != node) {
                    self.world.notice(other, node, *how == "up");
                }
                String::new()
            }
            ["wait", time] => {
                self.world.run(duration(time));
                String::new()
            }
            _ => panic!("not understood: {line}"),
        }
    }

    fn each(&mut self, node: &str, rest: &[&str], what: impl Fn(&mut World, usize)) -> String {
        let key = rest.iter().find_map(|word| word.strip_prefix("of=")).unwrap_or_default();
        let node = self.node(key, node);
        what(&mut self.world, node);
        String::new()
    }

    /// A node by its letter, or by its part for a key.
    fn node(&self, key: &str, name: &str) -> usize {
        let part = |prefix: &str| name.strip_prefix(prefix)?.parse::<usize>().ok().map(|number| number - 1);
        if let Some(at) = part("owner") {
            return self.world.owners(&self::key(key))[at];
        }
        if let Some(at) = part("spare") {
            let owners = self.world.owners(&self::key(key));
            return (0..self.world.nodes()).filter(|node| !owners.contains(node)).nth(at).expect("a spare node");
        }
        let letter = name.bytes().next().expect("a name");
        usize::from(letter - b'a')
    }

    fn causality(&self, rest: &[&str]) -> Causality {
        match rest.iter().find_map(|word| word.strip_prefix("with=")) {
            Some("none") => Causality::Sibling,
            Some(name) => Causality::Context(self.contexts[name].clone()),
            None => Causality::Blind,
        }
    }

    fn ask(&mut self, key: &str, node: &str, request: Request, rest: &[&str]) -> String {
        let node = self.node(key, node);
        let id = self.world.ask(node, request);
        let keep = rest.iter().position(|word| *word == "as").map(|at| rest[at + 1].to_owned());
        if rest.contains(&"unheard") {
            self.unheard.extend(keep.map(|name| (name, id)));
            return String::new();
        }
        let outcome = self.world.wait_for(id);
        if let (Some(name), Some(Ok(reply))) = (keep, &outcome) {
            let context = match reply {
                Reply::Found(found) => found.context.clone(),
                Reply::Written(written) => written.context.clone(),
                other => panic!("no context comes with {other:?}"),
            };
            self.contexts.insert(name, context);
        }
        shown(outcome)
    }

    fn copy(&self, key: &str, node: &str) -> String {
        let held = self.world.copy(self.node(key, node), &self::key(key));
        let versions = held.map_or(&[][..], |set| set.versions());
        let values = versions.iter().map(|version| version.value.as_ref().map_or("!".to_owned(), text));
        joined(values.collect())
    }
}

fn shown(outcome: Option<Outcome>) -> String {
    match outcome {
        None => "no answer".to_owned(),
        Some(Ok(Reply::Found(found))) => joined(found.siblings.iter().map(|sibling| text(&sibling.value)).collect()),
        Some(Ok(Reply::Written(written))) => {
            let remembered = if written.remembered { " remembered" } else { "" };
            match written.level.fallbacks {
                0 => format!("ok{remembered}"),
                fallbacks => format!("ok with {fallbacks} fallbacks{remembered}"),
            }
        }
        Some(Err(Failure::QuorumNotMet { needed, got })) => format!("refused {got} of {needed}"),
        Some(Ok(other)) => format!("{other:?}"),
        Some(Err(failure)) => format!("{failure:?}"),
    }
}

/// Values in their order, so that a story does not hang on dots.
fn joined(mut values: Vec<String>) -> String {
    values.sort_unstable();
    if values.is_empty() { "nothing".to_owned() } else { values.join("|") }
}

fn text(value: &Value) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn duration(time: &str) -> Duration {
    let (number, unit) = time.split_at(time.find(|c: char| !c.is_ascii_digit()).expect("a unit"));
    let number = number.parse().expect("a number");
    match unit {
        "ms" => Duration::from_millis(number),
        _ => Duration::from_secs(number),
    }
}

fn key(name: &str) -> Key {
    Key::new(name).expect("a short key")
}

fn operation(rest: &[&str]) -> Option<OperationId> {
    let id = rest.iter().find_map(|word| word.strip_prefix("id="))?;
    Some(OperationId::new(id).expect("a short id"))
}

fn terms(rest: &[&str]) -> Terms {
    let number = |name: &str| rest.iter().find_map(|word| word.strip_prefix(name)?.parse::<u32>().ok()).unwrap_or(0);
    Terms {
        quorum: u8::try_from(number("q=")).expect("a quorum is a small number"),
        strict: rest.contains(&"strict"),
        retry: rest.contains(&"retry"),
        deadline_ms: number("ms="),
    }
}
