//! What happens in a world, a line each, for people.

use std::collections::BTreeSet;

use crate::protocol::types::Instant;

/// Whoever wants to read along. Two runs of one seed give the same lines, byte for byte.
#[derive(Debug, Default)]
pub struct Trace {
    lines: Option<Vec<String>>,
    digest: u64,
}

impl Trace {
    /// Nobody reads along.
    pub fn off() -> Trace {
        Trace::default()
    }

    /// All lines are kept.
    pub fn on() -> Trace {
        Trace { lines: Some(Vec::new()), digest: 0 }
    }

    /// Whether anybody reads along.
    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// A line.
    pub fn put(&mut self, now: Instant, line: &str) {
        let Some(lines) = &mut self.lines else { return };
        let line = format!("{:>4}.{:06} {line}", now.0 / 1_000_000, now.0 % 1_000_000);
        self.digest = seahash::hash_seeded(line.as_bytes(), self.digest, 1, 2, 3);
        lines.push(line);
    }

    /// All lines so far.
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }

    /// A digest of all lines so far.
    pub fn digest(&self) -> u64 {
        self.digest
    }
}

impl Trace {
    /// The lines that matter to what these names stand for, which are a key's and its partition's as a trace has them:
    /// the last `most` that name the key or answer one that does; and between them faults, changes of members, and
    /// what is done with the whole partition, the last `most` of these too.
    pub fn about(&self, names: &[String], most: usize) -> Vec<&str> {
        let mut thread = Thread::new(names);
        let mut matters: Vec<(Matters, &str)> = Vec::new();
        for line in self.lines() {
            if let Some(how) = thread.follow(text(line)) {
                matters.push((how, line));
            }
        }
        let told = |how: Matters| matters.iter().enumerate().rev().filter(move |(_, (is, _))| *is == how).take(most);
        let first = told(Matters::Much).last().map_or(0, |(n, _)| n);
        let mut shown: Vec<usize> = told(Matters::Much).chain(told(Matters::Some)).map(|(n, _)| n).collect();
        shown.retain(|n| first <= *n);
        shown.sort_unstable();
        shown.into_iter().map(|n| matters[n].1).collect()
    }
}

/// A line without its time.
fn text(line: &str) -> &str {
    line.trim_start().split_once(' ').map_or("", |(_, text)| text)
}

/// How a line matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Matters {
    /// It is about the key.
    Much,
    /// It may have to do with it.
    Some,
}

/// Who goes by a key at the moment: asks without an answer, and clients who wait.
struct Thread<'a> {
    key: Option<&'a str>,
    partition: Option<&'a str>,
    /// Who asked, and the number of his ask.
    asks: BTreeSet<(String, String)>,
    clients: BTreeSet<String>,
    /// The line before was about the key.
    is_on: bool,
}

impl Thread<'_> {
    fn new(names: &[String]) -> Thread<'_> {
        let mut names = names.iter().map(String::as_str);
        let (key, partition) = (names.next(), names.next());
        Thread { key, partition, asks: BTreeSet::new(), clients: BTreeSet::new(), is_on: false }
    }

    fn follow(&mut self, text: &str) -> Option<Matters> {
        let is_named = self.key.is_some_and(|key| text.contains(key));
        let mut words = text.split(' ').map(|word| word.trim_end_matches(':'));
        let (who, verb) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let (whom, number) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        self.is_on = match verb {
            "asks" if number.starts_with('#') => turn(&mut self.asks, (who.into(), number.into()), is_named),
            "asks" => turn(&mut self.clients, who.into(), is_named),
            "tells" => is_named || self.asks.remove(&(whom.into(), number.into())),
            "hears" => is_named || self.clients.remove(who),
            _ => is_named || (who == ".." && self.is_on),
        };
        if self.is_on {
            return Some(Matters::Much);
        }
        let is_whole = ["asks", "tells"].contains(&verb)
            && self.partition.is_some_and(|partition| text.contains(partition))
            && ["collect ", "pull "].iter().any(|verb| text.contains(verb));
        let is_story = who == "--"
            || ["starts", "does", "must"].contains(&verb)
            || (verb == "notes" && text.to_ascii_lowercase().contains("layout"));
        (is_whole || is_story).then_some(Matters::Some)
    }
}

/// Puts something in or takes it out, and says which.
fn turn<T: Ord>(set: &mut BTreeSet<T>, what: T, is_in: bool) -> bool {
    if is_in {
        set.insert(what);
    } else {
        set.remove(&what);
    }
    is_in
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 14] = [
        "-- n0: process killed",
        r#"c0 asks n1: get "k1""#,
        r#"c1 asks n1: get "k10""#,
        r#"n1/0 asks n2 #7: fetch "k1""#,
        r#"n1/0 asks n2 #8: fetch "k10""#,
        "n2/0 tells n1/0 #8: nothing",
        "-- n2: process killed",
        "n2/0 tells n1/0 #7: nothing",
        ".. lost",
        "n1/1 tells n1/0 #7: nothing of that",
        "c1 hears: found nothing",
        "n3/0 asks n2 #9: collect Partition(3) round 1: agree",
        "c0 hears: found nothing",
        "n1 notes: n2 is down",
    ];

    fn about(names: &[&str], most: usize) -> Vec<usize> {
        let mut trace = Trace::on();
        LINES.iter().for_each(|line| trace.put(Instant(1_500_000), line));
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let at = |line| trace.lines().iter().position(|other| other == line).unwrap();
        trace.about(&names, most).into_iter().map(at).collect()
    }

    #[test]
    fn what_matters_is_what_names_the_key_or_answers_that_and_the_faults_between() {
        assert_eq!(about(&["\"k1\"", "Partition(3)"], 40), [1, 3, 6, 7, 8, 11, 12]);
        assert_eq!(about(&["\"k1\"", "Partition(4)"], 3), [7, 8, 12]);
    }

    #[test]
    fn without_a_key_faults_matter() {
        assert_eq!(about(&[], 40), [0, 6]);
    }
}
