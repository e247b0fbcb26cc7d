//! From the lines of a trace to a conversation: what is about the key, by names that stay, each thing said once.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::ring::Partition;
use crate::protocol::types::NodeId;

/// How a world is told.
pub(super) struct Tale {
    /// Nodes and clients as the trace names them, and what the scene calls them.
    names: BTreeMap<String, String>,
    /// What the trace calls the key, and its partition.
    topics: Vec<(String, &'static str)>,
    /// Dots in the order in which they were shown.
    dots: Vec<String>,
    /// Asks that were shown, by who asked, and under which number.
    asked: BTreeSet<(String, String)>,
    /// Whom each client asked last.
    called: BTreeMap<String, String>,
    /// Lines of the trace that were read.
    read: usize,
}

/// How a thing was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Somebody says it to somebody.
    Says,
    /// Somebody sees somebody so.
    Sees,
    /// Somebody notes it.
    Notes,
}

/// One thing that was said, by all of these, to all of these or of all of these.
struct Said {
    manner: Manner,
    from: BTreeSet<String>,
    to: BTreeSet<String>,
    text: String,
}

impl Said {
    fn new(manner: Manner, from: String, to: Option<String>, text: String) -> Said {
        Said { manner, from: [from].into(), to: to.into_iter().collect(), text }
    }

    fn is_like(&self, other: &Said) -> bool {
        self.manner == other.manner && self.text == other.text
    }

    /// Becomes both, where one line can say it.
    fn join(&mut self, other: &Said) -> bool {
        let is_one = self.is_like(other) && (self.from == other.from || self.to == other.to);
        if is_one {
            self.from.extend(other.from.iter().cloned());
            self.to.extend(other.to.iter().cloned());
        }
        is_one
    }

    fn line(&self) -> String {
        let all = |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let (from, to, text) = (all(&self.from), all(&self.to), &self.text);
        match self.manner {
            Manner::Says => format!("{from} -> {to}: {text}"),
            Manner::Sees => format!("{from}: {to} {} {text}", if self.to.len() == 1 { "is" } else { "are" }),
            Manner::Notes => format!("{from}: {text}"),
        }
    }
}

impl Tale {
    /// Begins behind so many lines, about the key k of this partition.
    pub(super) fn new(read: usize, partition: Partition) -> Tale {
        let topics = vec![("\"k\"".to_owned(), "k"), (format!("{partition:?}"), "its partition")];
        let (names, dots, asked, called) = Default::default();
        Tale { names, topics, dots, asked, called, read }
    }

    /// Somebody is called so from now on.
    pub(super) fn call(&mut self, traced: String, name: &str) {
        self.names.insert(NodeId::of(&traced).to_string(), name.to_owned());
        self.names.insert(traced, name.to_owned());
    }

    /// What was said in the lines that came since.
    pub(super) fn tell(&mut self, lines: &[String]) -> Vec<String> {
        let mut told: Vec<Said> = Vec::new();
        let mut is_shown = false;
        for line in &lines[self.read..] {
            let (_, line) = line.trim_start().split_once(' ').expect("a time is in front");
            if let (Some(end), Some(last)) = (line.strip_prefix(".. "), told.last_mut()) {
                if is_shown {
                    last.text += &format!(" ({end})");
                }
                continue;
            }
            let said = self.hear(line);
            is_shown = said.is_some();
            told.extend(said);
        }
        self.read = lines.len();
        gather(told).iter().map(Said::line).collect()
    }

    /// What is so at these nodes, by their index.
    pub(super) fn say(&mut self, notes: &[(usize, String)]) -> Vec<String> {
        let said = |(at, text): &(usize, String)| {
            let name = self.names[&format!("n{at}")].clone();
            Said::new(Manner::Notes, name, None, self.rename(text))
        };
        gather(notes.iter().map(said).collect()).iter().map(Said::line).collect()
    }

    /// What a line says, where it belongs to the story.
    fn hear(&mut self, line: &str) -> Option<Said> {
        let (who, rest) = line.split_once(' ')?;
        let (verb, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let (head, text) = rest.split_once(": ").unwrap_or((rest, ""));
        let name = self.name(who)?;
        let (whom, number) = head.split_once(' ').unwrap_or((head, ""));
        let ask = |who: &str| (who.to_owned(), number.to_owned());
        match verb {
            "asks" if number.is_empty() => {
                self.called.insert(name.clone(), self.name(whom)?);
            }
            "asks" => {
                self.asked.remove(&ask(who));
                if !self.is_about(text) {
                    return None;
                }
                self.asked.insert(ask(who));
            }
            "tells" if self.asked.remove(&ask(whom)) => {}
            "hears" | "hears:" => {
                let from = self.called.get(&name)?.clone();
                let text = self.rename(rest);
                return Some(Said::new(Manner::Says, from, Some(name), text));
            }
            "owes" | "drops" if self.is_about(rest) => {
                let text = self.rename(&format!("{verb} {rest}"));
                return Some(Said::new(Manner::Notes, name, None, text));
            }
            "notes:" => return self.note(name, rest),
            "must" | "does" => {
                // What it says to people behind that is of no interest here.
                let text = self.rename(line.split_once(' ')?.1);
                let short = text.match_indices(": ").nth(1).map_or(text.len(), |(at, _)| at);
                return Some(Said::new(Manner::Notes, name, None, text[..short].to_owned()));
            }
            _ => return None,
        }
        let (whom, text) = (self.name(whom)?, self.rename(text));
        Some(Said::new(Manner::Says, name, Some(whom), text))
    }

    /// What a membership notes. Who is merely suspected is not told.
    fn note(&mut self, name: String, text: &str) -> Option<Said> {
        let seen = text.split_once(" is ").and_then(|(whom, how)| Some((self.name(whom)?, how)));
        match seen {
            Some((_, "silent")) => None,
            Some((whom, how @ ("up" | "down"))) => Some(Said::new(Manner::Sees, name, Some(whom), how.to_owned())),
            _ => Some(Said::new(Manner::Notes, name, None, self.rename(text))),
        }
    }

    /// Whether it is about the key, and not only about whether all is equal.
    fn is_about(&self, text: &str) -> bool {
        !text.starts_with("tree") && self.topics.iter().any(|(topic, _)| text.contains(topic))
    }

    fn name(&self, traced: &str) -> Option<String> {
        let node = traced.split_once('/').map_or(traced, |(node, _)| node);
        self.names.get(node).cloned()
    }

    /// The same in words of the scene.
    fn rename(&mut self, text: &str) -> String {
        let mut text = without_round(text);
        for (topic, word) in &self.topics {
            text = text.replace(topic, word);
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == ':';
        let mut renamed = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(is_word) {
            renamed += &rest[..at];
            let end = rest[at..].find(|c| !is_word(c)).map_or(rest.len(), |length| at + length);
            let word = rest[at..end].trim_end_matches(':');
            renamed += &self.word(word);
            rest = &rest[at + word.len().max(1)..];
        }
        renamed + rest
    }

    fn word(&mut self, word: &str) -> String {
        if let Some(name) = self.names.get(word) {
            return name.clone();
        }
        if !is_dot(word) {
            return if word.is_empty() { ":".to_owned() } else { word.to_owned() };
        }
        let known = self.dots.iter().position(|dot| dot == word);
        let at = known.unwrap_or_else(|| {
            self.dots.push(word.to_owned());
            self.dots.len() - 1
        });
        format!("#{}", at + 1)
    }
}

/// Rounds of tombstones are numbered by a clock.
fn without_round(text: &str) -> String {
    match text.split_once(" round ") {
        Some((before, behind)) => before.to_owned() + behind.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => text.to_owned(),
    }
}

fn is_dot(word: &str) -> bool {
    word.split_once(':').is_some_and(|(actor, counter)| {
        actor.len() == 4
            && actor.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !counter.is_empty()
            && counter.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// What follows at once and says the same is one line; what is noted stands where the last of all noted it.
fn gather(told: Vec<Said>) -> Vec<Said> {
    let mut settled: Vec<Said> = Vec::new();
    for mut said in told {
        forget_sight(&mut settled, &said);
        let is_same = |earlier: &Said| earlier.is_like(&said) && earlier.to == said.to;
        if said.manner != Manner::Says
            && let Some(at) = settled.iter().position(is_same)
        {
            said.join(&settled.remove(at));
        }
        settled.push(said);
    }
    let mut gathered: Vec<Said> = Vec::new();
    for mut said in settled {
        if said.manner == Manner::Sees
            && let Some(at) = gathered.iter().position(|earlier| earlier.is_like(&said) && earlier.from == said.from)
        {
            said.join(&gathered.remove(at));
        }
        if !gathered.last_mut().is_some_and(|last| last.join(&said)) {
            gathered.push(said);
        }
    }
    gathered
}

/// Whoever sees somebody otherwise than before sees the last only: a node that comes back believes for a moment that
/// the others were down, and says so.
fn forget_sight(told: &mut Vec<Said>, newest: &Said) {
    if newest.manner != Manner::Sees {
        return;
    }
    for earlier in told.iter_mut().filter(|earlier| earlier.manner == Manner::Sees && earlier.to == newest.to) {
        earlier.from.retain(|who| !newest.from.contains(who));
    }
    told.retain(|said| !said.from.is_empty());
}
