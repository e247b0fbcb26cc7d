use bytes::Bytes;
use proptest::prelude::*;

use super::naive::{Step, World};
use super::*;
use crate::protocol::config::{CLOCK_ENTRIES_MAX, SET_BYTES_MAX, SIBLINGS_MAX, VALUE_BYTES_MAX};
use crate::protocol::types::{ActorId, ClusterId, Dot, Key, OperationId, Value, WallTime};

const CLUSTER: ClusterId = ClusterId(7);

fn dot(actor: u64, counter: u64) -> Dot {
    Dot { actor: ActorId(actor), counter }
}

fn vector(dots: &[(u64, u64)]) -> VersionVector {
    dots.iter().map(|&(actor, counter)| dot(actor, counter)).collect()
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn value(text: &str) -> Value {
    Value::new(text.to_owned()).unwrap()
}

fn write(value: Option<Value>, supersedes: Supersedes) -> Write {
    Write { value, supersedes, operation: None, written_at: WallTime(1_728_000_000_000) }
}

fn put(text: &str, supersedes: Supersedes) -> Write {
    write(Some(value(text)), supersedes)
}

fn delete(supersedes: Supersedes) -> Write {
    write(None, supersedes)
}

fn named(id: &str, text: &str) -> Write {
    let operation = Operation { id: OperationId::new(id).unwrap(), digest: 1 };
    Write { operation: Some(Box::new(operation)), ..put(text, Supersedes::Nothing) }
}

fn dots(set: &Siblings) -> Vec<Dot> {
    set.versions().iter().map(|version| version.dot).collect()
}

fn values(set: &Siblings) -> Vec<&[u8]> {
    set.live().map(|(_, value)| value.as_bytes()).collect()
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(any::<[u8; 4]>().prop_map(Step::from_bytes), 0..most)
}

fn rehearse(operations: bool, steps: &[Step]) -> Vec<Siblings> {
    let mut world = World::new(3, 4, operations);
    steps.iter().for_each(|step| world.step(*step));
    world.sets()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    /// Every claim that `World` checks after each step: the versions left, what was seen, what a reply names, what a
    /// writer's context covers, who is behind, and that a lone version does what its coordinator's set does.
    #[test]
    fn vectors_say_what_full_histories_say(steps in steps(60)) {
        rehearse(false, &steps);
    }

    #[test]
    fn vectors_say_what_full_histories_say_when_operations_are_tried_again(steps in steps(60)) {
        rehearse(true, &steps);
    }

    #[test]
    fn join_is_commutative_associative_and_idempotent(steps in steps(60)) {
        let sets = rehearse(true, &steps);
        let [a, b, c] = &sets[..] else { unreachable!("three replicas") };
        prop_assert_eq!(a.join(b), b.join(a));
        prop_assert_eq!(a.join(&b.join(c)), a.join(b).join(c));
        prop_assert_eq!(&a.join(a), a);
        prop_assert_eq!(a.join(b).join(b), a.join(b), "what was joined once adds nothing");
    }

    #[test]
    fn a_context_with_any_bit_flipped_is_refused(
        entries in proptest::collection::vec((any::<u64>(), 1..u64::MAX), 0..4),
        apart in proptest::collection::vec((any::<u64>(), 1..u64::MAX), 0..3),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let apart = apart.iter().map(|&(actor, counter)| dot(actor, counter));
        let context = Context::from_parts(vector(&entries), apart);
        let token = context.seal(CLUSTER, &key("k"));
        prop_assert_eq!(Context::open(&token, CLUSTER, &key("k")), Ok(context));

        let mut flipped = token.to_vec();
        flipped[at.index(token.len())] ^= 1 << bit;
        prop_assert!(Context::open(&flipped, CLUSTER, &key("k")).is_err());
    }

    #[test]
    fn bytes_that_are_no_context_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Context::open(&bytes, CLUSTER, &key("k")).is_err());
    }
}

#[test]
fn a_context_supersedes_exactly_what_it_has_seen() {
    let empty = Siblings::default();
    let seen = empty.mint(dot(1, 1), put("seen", Supersedes::Nothing)).unwrap();
    let context = seen.set.context();
    let both = seen.set.mint(dot(1, 2), put("unseen", Supersedes::Nothing)).unwrap().set;

    let after = both.mint(dot(1, 3), put("new", Supersedes::Seen(context))).unwrap();

    assert_eq!(after.superseded[..], [dot(1, 1)]);
    assert_eq!(values(&after.set), [&b"unseen"[..], b"new"]);
}

/// The classic loss of plain version vectors: all writers go through one coordinator, whose own counter would claim
/// every write but the last.
#[test]
fn of_100_interleaved_writers_none_is_lost() {
    let base = Siblings::default().mint(dot(1, 1), put("base", Supersedes::Held)).unwrap().set;
    let context = base.context();

    let mut set = base;
    for n in 0..100 {
        let write = put(&n.to_string(), Supersedes::Seen(context.clone()));
        set = set.mint(dot(1 + n % 3, 2 + n), write).unwrap().set;
    }

    assert_eq!(set.live().count(), 100);
    assert!(!values(&set).contains(&&b"base"[..]), "which all of them had seen");
}

#[test]
fn of_100_writers_only_the_concurrent_ones_are_siblings() {
    let mut set = Siblings::default();
    let mut contexts = vec![Context::default(); 10];
    for n in 0..100_usize {
        let writer = n % 10;
        let minted =
            set.mint(dot(1, n as u64 + 1), put(&n.to_string(), Supersedes::Seen(contexts[writer].clone()))).unwrap();
        contexts[writer] = minted.context;
        set = minted.set;
    }

    let last: Vec<String> = (90..100).map(|n| n.to_string()).collect();
    let left: Vec<&[u8]> = values(&set);
    assert_eq!(left, last.iter().map(|n| n.as_bytes()).collect::<Vec<_>>(), "each writer's last write");
}

#[test]
fn a_put_then_a_delete_leaves_nothing_to_get() {
    let set = Siblings::default().mint(dot(1, 1), put("1", Supersedes::Held)).unwrap().set;

    let deleted = set.mint(dot(1, 2), delete(Supersedes::Held)).unwrap();

    assert_eq!(deleted.superseded[..], [dot(1, 1)]);
    assert_eq!(deleted.set.live().count(), 0);
    assert!(deleted.set.versions()[0].is_tombstone());
}

/// SEEDS fault 3: a delete that two of three replicas acknowledged came back from the third.
#[test]
fn a_deleted_key_is_not_brought_back_by_a_replica_that_slept() {
    let put = Siblings::default().mint(dot(1, 1), put("1", Supersedes::Held)).unwrap();
    let asleep = put.set.clone();
    let deleted = put.set.mint(dot(1, 2), delete(Supersedes::Held)).unwrap().set;

    assert_eq!(deleted.join(&asleep), deleted);
    assert_eq!(asleep.join(&deleted), deleted);
    assert_eq!(deleted.apply(&put.update().cloned()), Ok(deleted.clone()), "the old write, late");
}

/// A lone version under its coordinator's vector would claim what came before it.
#[test]
fn a_lone_version_that_arrives_out_of_order_drops_nothing() {
    let first = Siblings::default().mint(dot(1, 1), put("first", Supersedes::Held)).unwrap();
    let second = first.set.mint(dot(1, 2), put("second", Supersedes::Nothing)).unwrap();
    let replica = Siblings::default();

    assert_eq!(replica.apply(&second.update().cloned()), Err(Behind), "it has not seen the first");

    let caught_up = replica.apply(&first.update().cloned()).unwrap().apply(&second.update().cloned()).unwrap();
    assert_eq!(caught_up, second.set);
    assert_eq!(replica.join(&second.set), second.set, "the whole set needs no order");
}

#[test]
fn a_writers_context_does_not_claim_an_unseen_sibling_of_the_same_actor() {
    let other = Siblings::default().mint(dot(1, 1), put("other", Supersedes::Nothing)).unwrap();
    let mine = other.set.mint(dot(1, 2), put("mine", Supersedes::Nothing)).unwrap();
    assert!(mine.context.covers(dot(1, 2)));
    assert!(!mine.context.covers(dot(1, 1)), "the vector alone would say so");

    let again = mine.set.mint(dot(1, 3), put("mine again", Supersedes::Seen(mine.context))).unwrap();

    assert_eq!(values(&again.set), [&b"other"[..], b"mine again"]);
}

/// A write goes to a coordinator that has not met the writer's last one. It cannot stand in the new set's vector, which
/// would claim what came before it; so it stays, everywhere alike, until a write that comes where it is known.
#[test]
fn a_writers_own_sibling_that_its_coordinator_has_not_met_is_not_forgotten() {
    let other = Siblings::default().mint(dot(1, 1), put("other", Supersedes::Nothing)).unwrap();
    let mine = other.set.mint(dot(1, 2), put("mine", Supersedes::Nothing)).unwrap();
    let elsewhere = Siblings::default().mint(dot(2, 1), put("mine again", Supersedes::Seen(mine.context))).unwrap();
    assert!(elsewhere.context.covers(dot(1, 2)), "the writer still knows its first write");

    let met = mine.set.join(&elsewhere.set);
    assert_eq!(mine.set.apply(&elsewhere.update().cloned()), Ok(met.clone()), "by lone version and by set alike");
    assert_eq!(values(&met), [&b"other"[..], b"mine", b"mine again"]);

    let last = met.mint(dot(1, 3), put("mine at last", Supersedes::Seen(elsewhere.context))).unwrap();
    assert_eq!(values(&last.set), [&b"other"[..], b"mine at last"]);
}

#[test]
fn dots_apart_are_bounded_and_the_oldest_goes_first() {
    let beside = Siblings::default().mint(dot(99, 1), put("beside", Supersedes::Nothing)).unwrap().set;
    let mut context = Context::default();
    for actor in 1..=17 {
        let minted = beside.mint(dot(actor, 1), put("mine", Supersedes::Seen(context))).unwrap();
        context = minted.context;
    }
    assert_eq!(context.dots().len(), 16);
    assert!(!context.covers(dot(1, 1)));
    assert!(context.covers(dot(2, 1)) && context.covers(dot(17, 1)));
}

#[test]
fn readers_are_shown_one_of_the_twins_of_an_operation() {
    let first = Siblings::default().mint(dot(1, 1), named("op", "v")).unwrap().set;
    let second = Siblings::default().mint(dot(2, 1), named("op", "v")).unwrap().set;
    let stranger = Siblings::default().mint(dot(3, 1), named("another", "v")).unwrap().set;

    let joined = second.join(&first).join(&stranger);

    let shown: Vec<Dot> = joined.shown().map(|(version, _)| version.dot).collect();
    assert_eq!(shown, [dot(1, 1), dot(3, 1)]);
    let replaced = joined.mint(dot(4, 1), put("w", Supersedes::Seen(joined.context()))).unwrap().set;
    assert_eq!(dots(&replaced), [dot(4, 1)], "whoever has read it replaces all of them");
}

/// Seed 707645 of the rehearsal: each of three twins was once replaced where another one was.
#[test]
fn twins_that_were_replaced_in_different_orders_leave_one_of_them() {
    let first = Siblings::default().mint(dot(1, 1), named("op", "v")).unwrap().set;
    let later = first.mint(dot(1, 2), put("w", Supersedes::Held)).unwrap().set;
    let second = Siblings::default().mint(dot(2, 1), named("op", "v")).unwrap().set;
    let upon = Write { supersedes: Supersedes::Held, ..named("op", "v") };
    let third = later.mint(dot(3, 1), upon).unwrap().set;

    let one = second.join(&first).join(&third);
    let other = third.join(&second);

    let joined = one.join(&other);
    assert_eq!(values(&joined), [&b"v"[..], b"v"]);
    assert_eq!(joined.shown().count(), 1);
}

#[test]
fn writes_are_refused_above_100_siblings_and_joins_are_not() {
    let full = |actor: u64| {
        (1..=SIBLINGS_MAX as u64)
            .fold(Siblings::default(), |set, n| set.mint(dot(actor, n), put("v", Supersedes::Nothing)).unwrap().set)
    };
    let (one, other) = (full(1), full(2));
    let refused = one.mint(dot(1, 101), put("v", Supersedes::Nothing)).unwrap_err();
    let (siblings, max) = (101, 100);
    assert_eq!(refused, SetLimit::Siblings { siblings, max });

    let joined = one.join(&other);
    assert_eq!(joined.live().count(), 200);

    // What joins have made too large, writes that make it smaller may bring back, step by step.
    let seen_half = Supersedes::Seen(one.context());
    let smaller = joined.mint(dot(1, 101), put("v", seen_half)).unwrap().set;
    assert_eq!(smaller.live().count(), 101);
    assert!(smaller.mint(dot(1, 102), put("v", Supersedes::Nothing)).is_err());
    assert_eq!(smaller.mint(dot(1, 102), put("v", Supersedes::Held)).unwrap().set.live().count(), 1);
}

#[test]
fn writes_are_refused_above_the_bytes_of_a_set_and_joins_are_not() {
    let large = || write(Some(Value::new(vec![0; VALUE_BYTES_MAX]).unwrap()), Supersedes::Nothing);
    let one = Siblings::default().mint(dot(1, 1), large()).unwrap().set;
    let other = Siblings::default().mint(dot(2, 1), large()).unwrap().set;

    let refused = one.mint(dot(1, 2), large()).unwrap_err();
    assert!(matches!(refused, SetLimit::Bytes { bytes, max: SET_BYTES_MAX } if bytes > 2 * VALUE_BYTES_MAX));
    assert_eq!(one.join(&other).live().count(), 2);
}

#[test]
fn writes_are_refused_above_the_entries_of_a_clock_and_joins_are_not() {
    let crowd = |from: u64| (from..from + CLOCK_ENTRIES_MAX as u64).map(|actor| dot(actor, 1));
    let one = Siblings::new(crowd(1).collect(), []).unwrap();
    let other = Siblings::new(crowd(1 << 32).collect(), []).unwrap();

    let refused = one.mint(dot(0, 1), put("v", Supersedes::Held)).unwrap_err();
    let (entries, max) = (4_097, 4_096);
    assert_eq!(refused, SetLimit::Clock { entries, max });
    assert_eq!(one.join(&other).vector().len(), 2 * CLOCK_ENTRIES_MAX);
}

#[test]
fn a_set_that_breaks_its_own_invariants_is_refused() {
    let version = |at: Dot| Siblings::default().mint(at, put("v", Supersedes::Held)).unwrap().set.versions()[0].clone();
    let covered = || vector(&[(1, 2)]);
    assert!(Siblings::new(covered(), [version(dot(1, 1)), version(dot(1, 2))]).is_ok());
    let twice = Siblings::new(covered(), [version(dot(1, 1)), version(dot(1, 1))]);
    assert_eq!(twice, Err(Unsound::Unsorted(dot(1, 1))));
    let unordered = Siblings::new(covered(), [version(dot(1, 2)), version(dot(1, 1))]);
    assert_eq!(unordered, Err(Unsound::Unsorted(dot(1, 1))));
    assert_eq!(Siblings::new(covered(), [version(dot(2, 1))]), Err(Unsound::Uncovered(dot(2, 1))));
}

#[test]
#[should_panic(expected = "minted a second time")]
fn a_dot_is_minted_once() {
    let set = Siblings::default().mint(dot(1, 1), put("1", Supersedes::Held)).unwrap().set;
    let _ = set.mint(dot(1, 1), put("2", Supersedes::Held));
}

#[test]
fn a_context_is_refused_for_another_key_or_cluster() {
    let token = Context::of(vector(&[(1, 1)])).seal(CLUSTER, &key("a"));
    assert_eq!(Context::open(&token, CLUSTER, &key("b")), Err(ContextError::OtherKey));
    assert_eq!(Context::open(&token, ClusterId(8), &key("a")), Err(ContextError::OtherCluster));
}

#[test]
fn a_context_that_was_cut_or_lengthened_is_refused() {
    let context = Context::from_parts(vector(&[(1, 1), (2, 9)]), [dot(3, 4)]);
    let token = context.seal(CLUSTER, &key("k"));
    for length in 0..token.len() {
        assert!(Context::open(&token[..length], CLUSTER, &key("k")).is_err(), "{length} bytes");
    }
    let longer: Vec<u8> = token.iter().copied().chain([0]).collect();
    assert!(Context::open(&longer, CLUSTER, &key("k")).is_err());
    assert_eq!(Context::open(&[], CLUSTER, &key("k")), Err(ContextError::Damaged { bytes: 0 }));
}

#[test]
fn a_context_of_another_format_says_so() {
    let mut token = Context::default().seal(CLUSTER, &key("k")).to_vec();
    token[0] = 2;
    assert_eq!(Context::open(&token, CLUSTER, &key("k")), Err(ContextError::Format { format: 2 }));
}

/// A count that lies must not be believed before its bytes are there.
#[test]
fn a_context_whose_count_is_a_lie_allocates_nothing() {
    let mut body = Context::default().seal(CLUSTER, &key("k"))[..25].to_vec();
    body[17..21].copy_from_slice(&u32::MAX.to_le_bytes());
    let crc = crc32c::crc32c(&body);
    body.extend(crc.to_le_bytes());
    assert_eq!(Context::open(&body, CLUSTER, &key("k")), Err(ContextError::Damaged { bytes: 29 }));
}

/// Clients keep tokens for as long as they like: these bytes stay readable.
#[test]
fn the_bytes_of_a_context_are_golden() {
    let context = Context::from_parts(vector(&[(1, 2), (0xfedc_ba98_7654_3210, 300)]), [dot(5, 6)]);
    let token = context.seal(CLUSTER, &key("cart:17"));
    let golden = Bytes::from(hex::decode(GOLDEN.split_whitespace().collect::<String>()).unwrap());
    assert_eq!(hex::encode(&token), hex::encode(&golden));
    assert_eq!(Context::open(&golden, CLUSTER, &key("cart:17")), Ok(context));
}

const GOLDEN: &str = "
    01
    ff0a39f989ca4636
    6990a64ff22b2079
    02000000
    01000000000000000200000000000000
    1032547698badcfe2c01000000000000
    01000000
    05000000000000000600000000000000
    7d48c504
";
