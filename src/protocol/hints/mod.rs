//! Kept for an absent node: which keys of this core are owed to whom (Dynamo 4.6; DESIGN "Put and get").
//!
//! A hint is a durable record with a key and a target; what it owes is the key's set, which stands where all sets do.
//! What is still there is what is left to do, so a restart resumes by itself. A hint that counted towards W is data and
//! is never dropped; one beyond W is dropped when there is no room, counted, and marks its partition for anti-entropy.

mod replay;

use std::collections::BTreeMap;
use std::ops::Bound;

use super::config::{HINTS_BYTES_MAX, HINTS_IN_FLIGHT_MAX, HINTS_IN_FLIGHT_MIN, HINTS_PAUSE};
use super::types::{AppendId, Instant, Key, NodeId};

/// What a hint takes in memory beside its key.
const HINT_BYTES: usize = 96;

/// The hints of one core.
#[derive(Debug, Default)]
pub(super) struct Hints {
    owed: BTreeMap<NodeId, Owed>,
    bytes: usize,
    count: usize,
}

/// What is owed to one target.
#[derive(Debug)]
struct Owed {
    keys: BTreeMap<Key, Kept>,
    in_flight: usize,
    /// Deliveries that may be under way at once: one more for each that succeeds, half for one that does not.
    window: usize,
    /// Nothing is sent before.
    pause_until: Instant,
    /// Where the next look for something to deliver begins.
    cursor: Option<Key>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    counted: bool,
    /// The hint's own record; not delivered before it is durable.
    append: AppendId,
    in_flight: bool,
}

/// One hint to deliver now. It is done with only if nothing was added to it meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) target: NodeId,
    pub(super) key: Key,
    pub(super) append: AppendId,
}

impl Hints {
    /// Whether there is room for one more.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < HINTS_BYTES_MAX
    }

    /// Keeps one, or renews it: what is owed has grown.
    pub(super) fn keep(&mut self, target: NodeId, key: Key, counted: bool, append: AppendId) {
        let owed = self.owed.entry(target).or_insert_with(|| Owed {
            keys: BTreeMap::new(),
            in_flight: 0,
            window: HINTS_IN_FLIGHT_MIN,
            pause_until: Instant::default(),
            cursor: None,
        });
        let bytes = HINT_BYTES + key.as_bytes().len();
        match owed.keys.get_mut(&key) {
            Some(kept) => {
                kept.counted |= counted;
                kept.append = append;
            }
            None => {
                owed.keys.insert(key, Kept { counted, append, in_flight: false });
                self.bytes += bytes;
                self.count += 1;
            }
        }
    }

    /// Whether the key is owed to the target by a hint that counted.
    pub(super) fn is_counted(&self, target: NodeId, key: &Key) -> bool {
        self.owed.get(&target).and_then(|owed| owed.keys.get(key)).is_some_and(|kept| kept.counted)
    }

    /// Whether the key is owed to anybody.
    pub(super) fn owes(&self, key: &Key) -> bool {
        self.owed.values().any(|owed| owed.keys.contains_key(key))
    }

    /// Targets that are owed something.
    pub(super) fn targets(&self) -> Vec<NodeId> {
        self.owed.keys().copied().collect()
    }

    /// Takes out what may be sent to the target now, of what is durable.
    pub(super) fn next_due(&mut self, target: NodeId, now: Instant, durable: AppendId) -> Vec<Due> {
        let Some(owed) = self.owed.get_mut(&target).filter(|owed| owed.pause_until <= now) else {
            return Vec::new();
        };
        let room = owed.window.saturating_sub(owed.in_flight);
        if room == 0 {
            return Vec::new();
        }
        let from = owed.cursor.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut due = Vec::new();
        for (key, kept) in owed.keys.range_mut::<Key, _>((from, Bound::Unbounded)) {
            if due.len() == room {
                break;
            }
            if !kept.in_flight && kept.append <= durable {
                kept.in_flight = true;
                due.push(Due { target, key: key.clone(), append: kept.append });
            }
        }
        // At the end it begins from the front again, with the next look.
        owed.cursor = if due.len() == room { due.last().map(|due| due.key.clone()) } else { None };
        owed.in_flight += due.len();
        due
    }

    /// The target has it. True when the hint is gone, false when something was added to it meanwhile.
    pub(super) fn on_delivered(&mut self, due: &Due) -> bool {
        let Some(owed) = self.owed.get_mut(&due.target) else {
            return false;
        };
        owed.in_flight -= 1;
        owed.window = (owed.window + 1).min(HINTS_IN_FLIGHT_MAX);
        let Some(kept) = owed.keys.get_mut(&due.key) else {
            return false;
        };
        kept.in_flight = false;
        if kept.append != due.append {
            return false;
        }
        self.forget(due.target, &due.key);
        true
    }

    /// The target did not take it: less at once, and not right away.
    pub(super) fn on_failed(&mut self, due: &Due, now: Instant) {
        let Some(owed) = self.owed.get_mut(&due.target) else {
            return;
        };
        owed.in_flight -= 1;
        owed.window = (owed.window / 2).max(HINTS_IN_FLIGHT_MIN);
        owed.pause_until = now + HINTS_PAUSE;
        if let Some(kept) = owed.keys.get_mut(&due.key) {
            kept.in_flight = false;
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Bytes that they hold.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn forget(&mut self, target: NodeId, key: &Key) {
        let owed = self.owed.get_mut(&target).expect("its caller has just looked at it");
        owed.keys.remove(key);
        self.bytes -= HINT_BYTES + key.as_bytes().len();
        self.count -= 1;
        if owed.keys.is_empty() && owed.in_flight == 0 {
            self.owed.remove(&target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABSENT: NodeId = NodeId(1);

    fn key(n: usize) -> Key {
        Key::new(format!("{n:05}")).unwrap()
    }

    fn hints(count: usize) -> Hints {
        let mut hints = Hints::default();
        (0..count).for_each(|n| hints.keep(ABSENT, key(n), false, AppendId(1)));
        hints
    }

    #[test]
    fn what_is_delivered_is_forgotten_and_the_rest_goes_on_in_order() {
        let mut hints = hints(3 * HINTS_IN_FLIGHT_MIN);
        let mut delivered = Vec::new();
        while hints.len() > 0 {
            let due = hints.next_due(ABSENT, Instant(0), AppendId(1));
            assert!(!due.is_empty() && due.len() <= HINTS_IN_FLIGHT_MAX);
            assert!(due.iter().all(|due| hints.on_delivered(due)));
            delivered.extend(due.into_iter().map(|due| due.key));
        }
        assert_eq!(delivered, (0..3 * HINTS_IN_FLIGHT_MIN).map(key).collect::<Vec<_>>());
        assert_eq!((hints.bytes(), hints.targets()), (0, vec![]));
    }

    #[test]
    fn a_hint_that_grew_while_it_was_delivered_is_delivered_again() {
        let mut hints = hints(1);
        let due = hints.next_due(ABSENT, Instant(0), AppendId(1));
        hints.keep(ABSENT, key(0), true, AppendId(2));
        assert!(!hints.on_delivered(&due[0]));
        assert!(hints.next_due(ABSENT, Instant(0), AppendId(1)).is_empty(), "it is not durable yet");
        let again = hints.next_due(ABSENT, Instant(0), AppendId(2));
        assert_eq!((again.len(), again[0].append), (1, AppendId(2)));
        assert!(hints.is_counted(ABSENT, &key(0)) && hints.on_delivered(&again[0]));
    }

    #[test]
    fn keys_that_are_never_taken_do_not_keep_the_others_back() {
        let (mut hints, mut now) = (hints(3 * HINTS_IN_FLIGHT_MIN), Instant(0));
        for _ in 0..6 {
            let mut due = hints.next_due(ABSENT, now, AppendId(1));
            // It is looked at again and again while they are under way.
            due.extend(hints.next_due(ABSENT, now, AppendId(1)));
            for due in due {
                // The first keys fail for ever.
                if due.key < key(HINTS_IN_FLIGHT_MIN) {
                    hints.on_failed(&due, now);
                } else {
                    assert!(hints.on_delivered(&due));
                }
            }
            now = now + HINTS_PAUSE;
        }
        assert_eq!(hints.len(), HINTS_IN_FLIGHT_MIN);
    }

    #[test]
    fn a_target_that_fails_is_left_alone_for_a_while_and_gets_less_at_once() {
        let mut hints = hints(10 * HINTS_IN_FLIGHT_MIN);
        for _ in 0..2 {
            for due in hints.next_due(ABSENT, Instant(0), AppendId(1)) {
                assert!(hints.on_delivered(&due));
            }
        }
        let due = hints.next_due(ABSENT, Instant(0), AppendId(1));
        assert!(due.len() > HINTS_IN_FLIGHT_MIN, "it had grown");
        due.iter().for_each(|due| hints.on_failed(due, Instant(0)));

        assert!(hints.next_due(ABSENT, Instant(0), AppendId(1)).is_empty());
        let later = Instant(0) + HINTS_PAUSE;
        assert_eq!(hints.next_due(ABSENT, later, AppendId(1)).len(), HINTS_IN_FLIGHT_MIN);
    }
}
