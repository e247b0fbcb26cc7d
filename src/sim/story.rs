//! Words for what is asked and told: short, and always the same.

use std::borrow::Cow;

#[cfg(test)]
use crate::protocol::causality::Version;
use crate::protocol::io::{Append, Change};
use crate::protocol::membership::{Mark, Note};
use crate::protocol::message::{Causality, Outcome, Reply, Request, Terms};
use crate::protocol::peer::{Ask, CollectStep, Known, Refused, Told, Unheard};
use crate::protocol::ring::Liveness;
use crate::protocol::types::{Dot, OperationId, Value};

/// A request in a few words.
pub(super) fn request(request: &Request) -> String {
    match request {
        Request::Get(get) => format!("get {}{}", get.key, terms(get.terms)),
        Request::Put(put) => {
            let causality = causality(&put.causality);
            format!("put {} {}{causality}{}{}", put.key, value(Some(&put.value)), name(request), terms(put.terms))
        }
        Request::Delete(delete) => {
            let causality = causality(&delete.causality);
            format!("delete {}{causality}{}{}", delete.key, name(request), terms(delete.terms))
        }
        Request::Siblings(key) => format!("siblings {key}"),
        Request::Keys(_) => "keys".to_owned(),
    }
}

/// How a call ended, in a few words.
pub(super) fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Ok(Reply::Found(found)) => {
            let siblings = found.siblings.iter().map(|sibling| value(Some(&sibling.value))).collect::<Vec<_>>();
            let level = found.level;
            format!("found {} (R {} of {})", joined(&siblings), level.quorum, level.n)
        }
        Ok(Reply::Written(written)) => {
            let level = written.level;
            let replaced: Vec<String> = written.superseded.iter().map(|dot| short(*dot)).collect();
            let remembered = if written.remembered { " from before" } else { "" };
            let by = format!("{} owners, {} fallbacks", level.owners, level.fallbacks);
            format!(
                "written{remembered} as {} in place of {} (W {}: {by})",
                short(written.dot),
                joined(&replaced),
                level.quorum
            )
        }
        Ok(other) => format!("{other:?}"),
        Err(failure) => failure.to_string(),
    }
}

impl Ask {
    /// In a few words.
    pub fn short(&self) -> String {
        match self {
            Ask::Store(store) => {
                let version = &store.update.version;
                let stands = store.stands_for.map_or(String::new(), |node| format!(" for {node}"));
                format!("store {} {} {}{stands}", store.key, short(version.dot), value(version.value.as_ref()))
            }
            Ask::Merge(merge) => {
                let versions: Vec<String> = merge.set.versions().iter().map(|version| short(version.dot)).collect();
                let stands = merge.stands_for.map_or(String::new(), |node| format!(" for {node}"));
                format!("merge {} {}{stands}", merge.key, joined(&versions))
            }
            Ask::Fetch { key, .. } => format!("fetch {key}"),
            Ask::Recall { key, operation } => {
                format!("recall {key} {}", id(&operation.id))
            }
            Ask::Forward(of) => format!("do {}", request(of)),
            Ask::Compare(compare) => format!("compare {} partitions", compare.partitions.len()),
            Ask::Tree { partition, branch } => format!("tree of {partition:?} {branch:?}"),
            Ask::Pull(pull) => format!("pull {:?}, {} known", pull.partition, pull.known.len()),
            Ask::Collect(collect) => {
                let step = match collect.step {
                    CollectStep::Agree(_) => "agree",
                    CollectStep::Drain => "drain",
                    CollectStep::Fence => "fence",
                    CollectStep::Retire(_) => "retire",
                    CollectStep::Forget(_) => "forget",
                };
                format!("collect {:?} round {}: {step}", collect.partition, collect.round)
            }
        }
    }
}

impl Told {
    /// In a few words.
    pub fn short(&self) -> String {
        match self {
            Told::Stored => "stored".to_owned(),
            Told::Behind => "behind".to_owned(),
            Told::Same => "same".to_owned(),
            Told::Set(None) => "nothing".to_owned(),
            Told::Set(Some(set)) => {
                let versions: Vec<String> = set.versions().iter().map(|version| short(version.dot)).collect();
                format!("has {}", joined(&versions))
            }
            Told::Recalled(recalled) => match &recalled.known {
                Known::Unknown => "knows nothing of it".to_owned(),
                Known::Minted(remembered) => format!("minted it as {}", short(remembered.dot)),
                Known::Reused => "knows another of that name".to_owned(),
            },
            Told::Outcome(of) => outcome(of),
            Told::Refused(Refused::Layout(stamp)) => format!("refuses: it knows layout {}", stamp.number),
            Told::Refused(refused) => format!("refuses: {refused:?}"),
            Told::Digests(digests) => format!("{} digests", digests.len()),
            Told::Page(page) => format!("{} sets", page.sets.len()),
            Told::Collected(are_so) => {
                format!("yes to {} of {}", are_so.iter().filter(|is_so| **is_so).count(), are_so.len())
            }
        }
    }
}

impl Append {
    /// In a few words, once it is durable.
    pub fn short(&self) -> String {
        let key = &self.key;
        match &self.change {
            Change::Version(arrived) => format!("keeps {key} {}", short(arrived.dot)),
            Change::Set { state, .. } => {
                let versions: Vec<String> = state.versions().iter().map(|version| short(version.dot)).collect();
                format!("keeps {key} {}", joined(&versions))
            }
            Change::Drop { .. } => format!("drops {key}"),
            Change::Hint(hint) => format!("owes {key} to {}", hint.target),
            Change::Delivered { target } => format!("owes {key} to {target} no more"),
        }
    }
}

/// Why nothing was heard, in a few words.
pub(super) fn unheard(unheard: Unheard) -> &'static str {
    match unheard {
        Unheard::NotSent => "not sent",
        Unheard::NotTaken => "not taken",
        Unheard::Lost => "lost",
    }
}

/// What a membership notes, in a few words.
pub(super) fn note(note: &Note) -> String {
    match note {
        Note::Liveness { name, liveness } => {
            let seen = match liveness {
                Liveness::Up => "up",
                Liveness::Suspect => "silent",
                Liveness::Down => "down",
            };
            format!("{name} is {seen}")
        }
        Note::Staged { name } => format!("{name} has joined and waits for a layout"),
        Note::Pending { stamp, nodes } => format!("layout {} of {nodes} nodes is pending", stamp.number),
        Note::Marked { stamp, mark } => {
            let how = match mark {
                Mark::Known => "knows",
                Mark::Writes => "writes by",
                Mark::Holds => "holds all of",
                Mark::Reads => "reads by",
                Mark::Stored => "goes by nothing but",
            };
            format!("{how} layout {}", stamp.number)
        }
        Note::Layout { stamp, nodes } => format!("layout {} of {nodes} nodes is stored", stamp.number),
        Note::HeldByData => "whoever has joined waits, for members hold data".to_owned(),
        Note::Outdone { .. } | Note::Unruly { .. } | Note::Foreign { .. } | Note::Late { .. } | Note::NotPersisted => {
            format!("{note:?}")
        }
    }
}

/// A version by its dot and its value; `!` stands for none.
#[cfg(test)]
pub(super) fn version(version: &Version) -> String {
    format!("{} {}", short(version.dot), value(version.value.as_ref()))
}

/// A dot by the end of its actor, and its counter.
pub(super) fn short(dot: Dot) -> String {
    format!("{:04x}:{}", dot.actor.0 & 0xffff, dot.counter)
}

fn value(value: Option<&Value>) -> String {
    let Some(value) = value else { return "!".to_owned() };
    let text = String::from_utf8_lossy(value.as_bytes());
    text.trim_end_matches('.').to_owned()
}

fn causality(causality: &Causality) -> &'static str {
    match causality {
        Causality::Blind => "",
        Causality::Sibling => " beside",
        Causality::Context(_) => " in context",
    }
}

fn name(request: &Request) -> String {
    let id = super::truth::operation(request);
    id.map_or(String::new(), |id| format!(" named {}", self::id(id)))
}

/// A name that a client gave; a node that hands a write on draws one that nobody reads.
fn id(id: &OperationId) -> Cow<'_, str> {
    let bytes = id.as_bytes();
    if bytes.iter().all(u8::is_ascii_graphic) { String::from_utf8_lossy(bytes) } else { "by its node".into() }
}

fn terms(terms: Terms) -> String {
    let quorum = if terms.quorum == 0 { String::new() } else { format!(" q={}", terms.quorum) };
    let strict = if terms.strict { " strict" } else { "" };
    let retry = if terms.retry { " retry" } else { "" };
    let deadline = if terms.deadline_ms == 0 { String::new() } else { format!(" ms={}", terms.deadline_ms) };
    format!("{quorum}{strict}{retry}{deadline}")
}

fn joined(parts: &[String]) -> String {
    if parts.is_empty() { "nothing".to_owned() } else { parts.join("|") }
}
