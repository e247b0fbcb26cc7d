//! A dot names one version of one key for ever, wherever it stands, and a client asked for what it names, once.

use std::collections::BTreeMap;

use super::Invariant;
use crate::protocol::causality::{Siblings, Version};
use crate::protocol::io::{Append, Change};
use crate::protocol::message::{Outcome, Reply};
use crate::protocol::types::{Dot, Instant, Key, Value};
use crate::sim::truth::{Call, Truth};
use crate::sim::watch::{Seen, Verdict, about};

/// See the module.
#[derive(Default)]
pub(super) struct OneDot {
    /// The key of every version that was ever minted.
    keys: BTreeMap<Dot, Key>,
    /// What each value was first minted as; clients here ask for each value once.
    values: BTreeMap<Value, Dot>,
}

impl Invariant for OneDot {
    fn name(&self) -> &'static str {
        "one_dot"
    }

    fn source(&self) -> &'static str {
        "DESIGN 5: same dot = same version; nothing comes out of thin air"
    }

    fn see(&mut self, truth: &Truth, _now: Instant, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::Appended { append, is_minted, .. } => self.appended(truth, append, *is_minted),
            Seen::Answered { call, outcome, .. } => answered(truth, call, outcome),
            _ => Ok(()),
        }
    }
}

impl OneDot {
    fn appended(&mut self, truth: &Truth, append: &Append, is_minted: bool) -> Verdict {
        let key = &append.key;
        match &append.change {
            Change::Version(arrived) if is_minted => self.minted(truth, key, arrived.update().version),
            Change::Version(arrived) => same(truth, key, arrived.update().version),
            Change::Set { came, .. } => all_same(truth, key, came),
            Change::Drop { .. } | Change::Hint(_) | Change::Delivered { .. } => Ok(()),
        }
    }

    /// Somebody asked for it, and it was not minted before.
    fn minted(&mut self, truth: &Truth, key: &Key, version: &Version) -> Verdict {
        let Some(of_key) = truth.keys.get(key) else {
            return about(key, "a version of a key that nobody wrote to");
        };
        let dot = version.dot;
        if let Some(other) = self.keys.insert(dot, key.clone()) {
            return about(key, format!("{dot} names a version of {other} already"));
        }
        let Some(value) = &version.value else {
            return if 0 < of_key.deletes { Ok(()) } else { about(key, format!("{dot}: nobody asked for a delete")) };
        };
        if !of_key.asked.contains(value) {
            return about(key, format!("{dot} was minted, and nobody asked for it"));
        }
        let first = *self.values.entry(value.clone()).or_insert(dot);
        match of_key.minted.get(&first) {
            Some(minted) if minted.update.version.operation == version.operation && may_have_twins(version) => Ok(()),
            _ if first == dot => Ok(()),
            _ => about(key, format!("{dot} was minted of what was asked for once, and minted as {first}")),
        }
    }
}

/// A write with a name may reach two coordinators.
fn may_have_twins(version: &Version) -> bool {
    version.operation.is_some()
}

fn all_same(truth: &Truth, key: &Key, set: &Siblings) -> Verdict {
    set.versions().iter().try_for_each(|version| same(truth, key, version))
}

/// It is what was minted.
fn same(truth: &Truth, key: &Key, version: &Version) -> Verdict {
    let minted = truth.keys.get(key).and_then(|of_key| of_key.minted.get(&version.dot));
    match minted {
        Some(minted) if minted.update.version == *version => Ok(()),
        Some(minted) => about(key, format!("{version:?} was minted as {:?}", minted.update.version)),
        None => about(key, format!("{} was minted nowhere", version.dot)),
    }
}

fn answered(truth: &Truth, call: &Call, outcome: &Outcome) -> Verdict {
    let key = call.request.key().expect("clients here ask for one key");
    let of_key = truth.keys.get(key).expect("it was called for");
    match outcome {
        Ok(Reply::Written(written)) if !of_key.minted.contains_key(&written.dot) => {
            about(key, format!("{} was acknowledged, and was never minted for this key", written.dot))
        }
        Ok(Reply::Found(found)) => found.siblings.iter().try_for_each(|sibling| {
            let minted = of_key.minted.get(&sibling.dot);
            let is_it = minted.is_some_and(|minted| minted.update.version.value.as_ref() == Some(&sibling.value));
            if is_it { Ok(()) } else { about(key, format!("a read shows {sibling:?}, which nobody wrote")) }
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, append_set, append_version, dot, found, get, key, set, written};
    use super::*;

    /// Values that clients asked for.
    fn asked(made: &mut MadeUp, values: &[&'static str]) {
        let of_key = made.truth.key(&key());
        of_key.asked.extend(values.iter().map(|value| Value::new(*value).unwrap()));
    }

    fn mints(made: &MadeUp, judge: &mut OneDot, version: &Version) -> Verdict {
        let append = append_version(version);
        judge.see(&made.truth, Instant(1), &Seen::Appended { node: 0, append: &append, is_minted: true })
    }

    fn comes(made: &MadeUp, version: &Version) -> Verdict {
        let came = set(&[(version.dot.actor.0, version.dot.counter)], &[version]);
        let append = append_set(&came, &came);
        OneDot::default().see(&made.truth, Instant(1), &Seen::Appended { node: 1, append: &append, is_minted: false })
    }

    #[test]
    fn what_is_minted_was_asked_for_and_only_once() {
        let (mut made, mut judge) = (MadeUp::new(1), OneDot::default());
        asked(&mut made, &["a"]);
        let first = made.mint(dot(1, 1), &[], Some("a"));
        assert_eq!(mints(&made, &mut judge, &first), Ok(()));
        let again = made.mint(dot(1, 2), &[], Some("a"));
        assert!(mints(&made, &mut judge, &again).is_err(), "one write became two");
        let other = made.mint(dot(1, 3), &[], Some("b"));
        assert!(mints(&made, &mut judge, &other).is_err(), "nobody asked for it");
        let delete = made.mint(dot(1, 4), &[], None);
        assert!(mints(&made, &mut judge, &delete).is_err(), "nobody asked for that either");
        made.truth.key(&key()).deletes = 1;
        assert_eq!(mints(&made, &mut OneDot::default(), &delete), Ok(()));
    }

    #[test]
    fn a_dot_is_minted_once() {
        let (mut made, mut judge) = (MadeUp::new(1), OneDot::default());
        asked(&mut made, &["a", "b"]);
        let version = made.mint(dot(1, 1), &[], Some("a"));
        assert_eq!(mints(&made, &mut judge, &version), Ok(()));
        let other = made.mint(dot(1, 1), &[], Some("b"));
        assert!(mints(&made, &mut judge, &other).is_err());
    }

    #[test]
    fn what_comes_from_another_node_is_what_was_minted() {
        let mut made = MadeUp::new(2);
        let version = made.mint(dot(1, 1), &[], Some("a"));
        assert_eq!(comes(&made, &version), Ok(()));
        assert!(comes(&made, &Version { value: None, ..version.clone() }).is_err());
        assert!(comes(&made, &Version { dot: dot(2, 1), ..version }).is_err(), "nobody minted that");
    }

    #[test]
    fn a_reply_names_what_was_minted() {
        let mut made = MadeUp::new(1);
        made.mint(dot(1, 1), &[], Some("a"));
        let answers = |reply| {
            let outcome = Ok(reply);
            let seen = Seen::Answered { call: &made.call(get()), outcome: &outcome };
            OneDot::default().see(&made.truth, Instant(1), &seen)
        };
        let shows = |dot, value| Reply::Found(found(made.cluster, &[(dot, value)], 1));
        assert_eq!(answers(shows(dot(1, 1), "a")), Ok(()));
        assert!(answers(shows(dot(1, 1), "b")).is_err());
        assert!(answers(shows(dot(1, 2), "a")).is_err());
        assert_eq!(answers(Reply::Written(written(dot(1, 1), &[], false))), Ok(()));
        assert!(answers(Reply::Written(written(dot(1, 2), &[], false))).is_err());
    }
}
