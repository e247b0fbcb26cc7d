//! How tombstones are forgotten, and that nothing that was deleted returns.

use std::time::Duration;

use crate::protocol::message::{Causality, Delete, Put, Request, Terms};
use crate::protocol::ring::Wanted;
use crate::protocol::types::{Key, Value};
use crate::sim::shards::story::tell;
use crate::sim::shards::{Cluster, World};

#[test]
fn a_clock_that_was_ahead_does_not_hold_tombstones_back() {
    // The leader learns of a round of the future from its peers, who then forget it with a restart.
    tell(
        "cluster 3 age=2
         clock owner1 3600s of=k
         put k 1 at owner1 -> ok
         delete k at owner1 -> ok
         wait 60s
         keys at a -> 0
         clock owner1 0s of=k
         crash owner1 of=k
         restart owner1 of=k
         wait 1s
         put k 2 at owner1 -> ok
         delete k at owner1 -> ok
         crash owner2 of=k
         crash owner3 of=k
         restart owner2 of=k
         restart owner3 of=k
         wait 120s
         keys at a -> 0
         keys at b -> 0",
    );
}

#[test]
fn a_delete_is_forgotten_by_all_owners_when_it_is_old_enough() {
    tell(
        "cluster 3 age=10
         put k 1 at a -> ok
         put other 1 at b -> ok
         delete k at b -> ok
         wait 8s
         copy k at a -> !
         wait 20s
         keys at a -> 1
         keys at b -> 1
         keys at c -> 1
         get k at c q=3 -> nothing
         get other at c q=3 -> 1
         put k 2 at c -> ok
         get k at a -> 2",
    );
}

#[test]
fn a_node_by_itself_forgets_too() {
    tell(
        "cluster 1 age=1
         put k 1 at a -> ok
         delete k at a -> ok
         wait 15s
         keys at a -> 0",
    );
}

#[test]
fn nothing_is_forgotten_while_a_member_is_down_and_all_is_when_it_is_back() {
    // What it missed comes by hints; it had the value, and would give it to the others.
    tell(
        "cluster 3 age=1
         put k 1 at a -> ok
         wait 100ms
         crash c
         notice c down
         delete k at a -> ok
         wait 60s
         keys at a -> 1
         keys at b -> 1
         restart c
         notice c up
         wait 60s
         keys at a -> 0
         keys at b -> 0
         keys at c -> 0
         get k at c q=3 -> nothing",
    );
}

#[test]
fn nothing_is_forgotten_while_a_member_is_silent_even_if_nobody_knows_that_it_is_down() {
    tell(
        "cluster 3 age=1
         put k 1 at a -> ok
         delete k at a -> ok
         wait 100ms
         pause c
         wait 60s
         keys at a -> 1
         keys at b -> 1
         resume c
         wait 120s
         keys at a -> 0
         keys at c -> 0",
    );
}

#[test]
fn an_undelivered_hint_with_a_fallback_keeps_the_tombstone() {
    // The fallback keeps the value for an owner that was away, and is out of that owner's reach.
    tell(
        "cluster 5 age=1
         crash owner2 of=k
         notice owner2 of=k down
         put k 1 at owner1 q=3 -> ok with 1 fallbacks
         wait 100ms
         clog spare1 > owner2 of=k
         clog spare2 > owner2 of=k
         restart owner2 of=k
         notice owner2 of=k up
         wait 100ms
         delete k at owner1 -> ok
         wait 60s
         copy k at owner1 -> !
         copy k at owner2 -> !
         copy k at owner3 -> !
         unclog spare1 > owner2 of=k
         unclog spare2 > owner2 of=k
         wait 60s
         get k at owner2 q=3 -> nothing",
    );
}

#[test]
fn an_owner_that_missed_the_delete_keeps_its_tombstone() {
    // The hint goes down with its keeper's memory of it: no owner but c has the value, and nobody tells c.
    tell(
        "cluster 3 age=1
         put k 1 at a -> ok
         wait 100ms
         cut a c
         cut b c
         delete k at a -> ok
         wait 60s
         keys at a -> 1
         keys at b -> 1
         copy k at c -> 1
         heal
         wait 200s
         keys at a -> 0
         keys at b -> 0
         keys at c -> 0",
    );
}

#[test]
fn a_frame_from_before_the_round_that_comes_after_it_is_refused() {
    // What a sent to c comes 100 s later, when c has long had the value by a hint, and the delete, and forgotten both.
    tell(
        "cluster 3 age=1
         slow a > c 100s
         put k 1 at a -> ok
         slow a > c 0s
         wait 5s
         copy k at c -> 1
         delete k at b -> ok
         wait 60s
         keys at a -> 0
         keys at b -> 0
         keys at c -> 0
         wait 60s
         keys at c -> 0
         get k at c q=3 -> nothing",
    );
}

#[test]
fn an_answer_from_before_the_round_repairs_nobody_with_what_was_deleted() {
    tell(
        "cluster 3 age=1
         put k 1 at a -> ok
         wait 100ms
         slow b > a 50s
         get k at a q=3 ms=60000 unheard as late
         wait 10ms
         slow b > a 0s
         delete k at c -> ok
         wait 40s
         answer late -> refused 2 of 3
         wait 60s
         keys at a -> 0
         keys at b -> 0
         keys at c -> 0",
    );
}

/// A round whose every step takes 0.4 s, from about 1.6 s after the delete on.
const SLOW_ROUND: &str = "cluster 3 age=1
    put k 1 at a -> ok
    delete k at owner2 -> ok
    slow owner1 > owner2 200ms of=k
    slow owner1 > owner3 200ms of=k
    slow owner2 > owner1 200ms of=k
    slow owner3 > owner1 200ms of=k";

#[test]
fn whoever_starts_again_in_a_step_ends_the_round_and_the_next_one_collects() {
    for (who, pause) in (0..24).flat_map(|step| [1, 2].map(|who| (who, 1_400 + 150 * step))) {
        tell(&format!(
            "{SLOW_ROUND}
             wait {pause}ms
             crash owner{who} of=k
             notice owner{who} of=k down
             wait 10s
             get k at owner3 -> nothing
             restart owner{who} of=k
             notice owner{who} of=k up
             wait 5s
             get k at owner3 q=3 -> nothing
             wait 2s
             get k at owner3 q=3 -> nothing
             wait 100s
             keys at a -> 0
             keys at b -> 0
             keys at c -> 0
             put k 2 at owner2 -> ok
             get k at owner3 -> 2"
        ));
    }
}

#[test]
fn a_write_in_any_step_is_kept() {
    for pause in (0..24).map(|step| 1_400 + 150 * step) {
        tell(&format!(
            "{SLOW_ROUND}
             wait {pause}ms
             put k 2 at owner2 -> ok
             get k at owner3 -> 2
             wait 5s
             get k at owner1 q=3 -> 2
             wait 100s
             get k at owner3 q=3 -> 2
             copy k at owner2 -> 2
             delete k at owner3 -> ok
             wait 100s
             get k at owner1 q=3 -> nothing
             keys at a -> 0
             keys at b -> 0
             keys at c -> 0"
        ));
    }
}

#[test]
fn a_key_that_is_written_again_is_kept() {
    tell(
        "cluster 3 age=10
         put k 1 at a -> ok
         delete k at a -> ok
         wait 14s
         put k 2 at b -> ok
         wait 60s
         get k at c q=3 -> 2
         delete k at c -> ok
         wait 60s
         keys at b -> 0",
    );
}

#[test]
fn nothing_of_a_round_is_kept_in_memory_when_it_is_over() {
    let (wanted, tombstone_age) = (Wanted { n: 3, r: 2, w: 2 }, Duration::from_secs(1));
    let mut world = World::new(Cluster { nodes: 4, members: 4, wanted, seed: 1, tombstone_age });
    for n in 0..100 {
        let (key, value) = (Key::new(format!("k{n}")).unwrap(), Value::new(b"v".as_slice()).unwrap());
        let (causality, operation, terms) = (Causality::Blind, None, Terms::default());
        let put = Put { key: key.clone(), value, causality: causality.clone(), operation: None, terms };
        for request in [Request::Put(put), Request::Delete(Delete { key, causality, operation, terms })] {
            let id = world.ask(0, request);
            assert!(matches!(world.wait_for(id), Some(Ok(_))));
        }
    }
    world.run(Duration::from_secs(60));
    for node in 0..4 {
        assert_eq!((world.keys(node), world.under_way(node)), (0, 0), "node {node}");
    }
}
