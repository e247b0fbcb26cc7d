//! Stories in which neither a hint nor a read tells a replica what it missed.

use crate::sim::shards::story::tell;

#[test]
fn a_replica_that_missed_writes_and_deletes_learns_of_them_by_the_trees_alone() {
    tell(
        "cluster 3
         put old 1 at a -> ok
         put gone 1 at b -> ok
         wait 100ms
         crash c
         notice c down
         put old 2 at a -> ok
         put new 1 at b -> ok
         delete gone at a -> ok
         wait 100ms
         crash a
         lose a
         crash b
         lose b
         restart a
         restart b
         restart c
         notice c up
         copy old at c -> 1
         copy new at c -> nothing
         wait 15s
         copy old at c -> 2
         copy new at c -> 1
         copy gone at c -> !
         get gone at c -> nothing",
    );
}

#[test]
fn a_replica_that_alone_took_a_write_gives_it_to_the_others() {
    tell(
        "cluster 3
         put k 1 at a -> ok
         wait 100ms
         cut a b
         cut a c
         put k 2 at a ms=100 -> refused 1 of 2
         crash a
         lose a
         heal
         put k 3 at b -> ok
         restart a
         wait 15s
         copy k at a -> 2|3
         copy k at b -> 2|3
         copy k at c -> 2|3",
    );
}

#[test]
fn a_fallback_keeps_a_key_until_every_owner_has_it_and_no_longer() {
    tell(
        "cluster 5
         crash owner3 of=k
         put k 1 at owner1 q=3 -> ok with 1 fallbacks
         wait 20s
         copy k at spare1 -> 1
         crash spare1 of=k
         lose spare1 of=k
         restart spare1 of=k
         # Nobody is owed it any more, but an owner may lack it.
         wait 20s
         copy k at spare1 -> 1
         restart owner3 of=k
         wait 20s
         copy k at owner3 -> 1
         copy k at spare1 -> nothing
         put k 2 at spare1 -> ok
         get k at spare2 -> 2",
    );
}

#[test]
fn new_owners_fetch_what_they_gain_and_former_ones_empty() {
    tell(
        "cluster 6 members=3
         put k 1 at a -> ok
         put l 1 at b -> ok
         delete l at c -> ok
         wait 100ms
         change d e f -> begun
         wait 2s
         step at d -> none
         copy k at d -> 1
         copy k at e -> 1
         copy l at f -> !
         get k at f q=3 -> 1
         wait 20s
         copy k at a -> nothing
         copy k at b -> nothing
         copy l at c -> nothing",
    );
}

#[test]
fn nothing_is_read_by_the_new_owners_before_they_have_heard_every_old_one() {
    tell(
        "cluster 4 members=3
         put k 1 at a -> ok
         wait 100ms
         crash b
         notice b down
         put k 2 at a -> ok
         crash c
         restart b
         notice b up
         change a b d -> begun
         wait 5s
         step at d -> write
         get k at a -> 2
         restart c
         wait 5s
         step at d -> none
         get k at d q=3 -> 2
         wait 20s
         copy k at c -> nothing",
    );
}

#[test]
fn new_owners_fetch_from_every_old_one_though_one_of_them_missed_a_write() {
    tell(
        "cluster 5 members=3
         put k 1 at b -> ok
         wait 100ms
         crash a
         notice a down
         put k 2 at b -> ok
         wait 100ms
         crash b
         lose b
         crash c
         lose c
         restart a
         restart b
         restart c
         notice a up
         copy k at a -> 1
         change a d e -> begun
         wait 500ms
         step at d -> none
         copy k at d -> 2
         copy k at e -> 2
         get k at d -> 2",
    );
}
