//! Stories about three nodes that own everything, and about five with fallbacks.

use crate::sim::shards::story::tell;

#[test]
fn what_one_node_took_in_every_node_shows() {
    tell(
        "cluster 3
         put k 1 at a -> ok
         get k at a -> 1
         get k at b -> 1
         get k at c -> 1
         wait 100ms
         copy k at a -> 1
         copy k at b -> 1
         copy k at c -> 1
         hints at a -> 0",
    );
}

#[test]
fn fault_01_r_and_w_overlap_whoever_missed_what() {
    // b misses two writes, a is down for the third: every read at R 2 still shows the newest.
    tell(
        "cluster 3
         put k 0 at a -> ok
         wait 100ms
         cut a b
         cut c b
         put k 1 at a -> ok
         put k 2 at a -> ok
         heal
         crash a
         put k 3 at c -> ok
         get k at b -> 3
         get k at c -> 3
         get k at b -> 3
         wait 1s
         copy k at b -> 3
         copy k at c -> 3",
    );
}

#[test]
fn fault_02_and_04_a_read_repairs_with_the_same_version_also_who_never_heard_of_the_key() {
    // The two who have it lose their hints for the third with the crash of their coordinator.
    tell(
        "cluster 3
         cut a c
         put k 1 at a -> ok
         wait 100ms
         copy k at c -> nothing
         crash a
         heal
         get k at b q=2 -> 1
         wait 100ms
         copy k at c -> 1
         copy k at b -> 1
         get k at c -> 1",
    );
}

#[test]
fn fault_03_a_delete_that_two_of_three_took_stays_done() {
    tell(
        "cluster 3
         put k 1 at a -> ok
         wait 100ms
         crash c
         notice c down
         delete k at a -> ok
         crash a
         restart c
         notice c up
         get k at c -> nothing
         get k at b -> nothing
         wait 1s
         copy k at c -> !",
    );
}

#[test]
fn fault_05_writers_with_contexts_lose_nothing_through_different_coordinators() {
    tell(
        "cluster 3
         put k 0 at a -> ok
         get k at b as one -> 0
         get k at c as two -> 0
         put k 1 at b with=one -> ok
         put k 2 at c with=two -> ok
         get k at a as all -> 1|2
         put k 3 at a with=all -> ok
         get k at b -> 3",
    );
}

#[test]
fn fault_07_reads_go_on_at_once_when_one_of_three_is_dead_or_silent() {
    tell(
        "cluster 3
         put k 1 at a -> ok
         crash b
         get k at a ms=50 -> 1
         get k at c ms=50 -> 1
         restart b
         pause b
         # Each finds out once; from then on nobody waits for b.
         get k at a ms=60 -> 1
         get k at c ms=60 -> 1
         get k at a ms=15 -> 1
         get k at c ms=15 -> 1
         get k at a ms=15 -> 1
         get k at c ms=15 -> 1",
    );
}

#[test]
fn fault_13_a_quorum_that_cannot_be_met_says_so_with_numbers() {
    tell(
        "cluster 3
         crash b
         crash c
         put k 1 at a -> refused 0 of 2
         wait 10ms
         get k at a -> refused 1 of 2
         get k at a q=1 -> 1
         restart b
         wait 1s
         get k at a -> 1
         put k 2 at a -> ok",
    );
}

#[test]
fn a_silent_cluster_answers_by_the_deadline_with_numbers() {
    tell(
        "cluster 3
         pause b
         pause c
         put k 1 at a ms=300 -> refused 1 of 2
         get k at a ms=300 -> refused 1 of 2",
    );
}

#[test]
fn hints_bring_a_node_that_was_down_up_to_date_by_themselves() {
    tell(
        "cluster 3
         put old 1 at a -> ok
         wait 100ms
         crash c
         notice c down
         put k 1 at a -> ok
         put old 2 at b -> ok
         wait 100ms
         hints at a -> 1
         hints at b -> 1
         restart c
         notice c up
         wait 2s
         copy k at c -> 1
         copy old at c -> 2
         hints at a -> 0
         hints at b -> 0",
    );
}

#[test]
fn hints_survive_a_restart_of_who_keeps_them() {
    tell(
        "cluster 3
         crash c
         notice c down
         put k 1 at a -> ok
         wait 100ms
         hints at a -> 1
         crash a
         restart a
         restart c
         notice c up
         wait 2s
         copy k at c -> 1
         hints at a -> 0",
    );
}

#[test]
fn a_paused_node_gets_what_it_missed() {
    tell(
        "cluster 3
         pause c
         put k 1 at a -> ok
         wait 3s
         notice c down
         put k 2 at b -> ok
         wait 5s
         resume c
         notice c up
         wait 3s
         copy k at c -> 2
         hints at a -> 0
         hints at b -> 0",
    );
}

#[test]
fn a_fallback_counts_where_an_owner_is_down_and_hands_over_when_it_is_back() {
    tell(
        "cluster 5
         crash owner2 of=k
         put k 1 at owner1 q=3 -> ok with 1 fallbacks
         wait 100ms
         restart owner2 of=k
         wait 2s
         copy k at owner2 -> 1
         copy k at owner3 -> 1",
    );
}

#[test]
fn a_strict_write_counts_owners_only() {
    tell(
        "cluster 5
         crash owner2 of=k
         crash owner3 of=k
         put k 1 at owner1 strict -> refused 0 of 2
         put k 2 at owner1 -> ok with 1 fallbacks",
    );
}

#[test]
fn it_stays_writable_with_no_owner_in_reach_and_nothing_of_that_is_lost() {
    tell(
        "cluster 5
         put k 0 at owner1 -> ok
         wait 100ms
         crash owner1 of=k
         crash owner2 of=k
         crash owner3 of=k
         put k 1 at spare1 -> ok with 2 fallbacks
         put k 2 at spare2 -> ok with 2 fallbacks
         get k at spare1 -> refused 0 of 2
         put k 3 at spare1 strict -> refused 0 of 2
         restart owner1 of=k
         restart owner2 of=k
         restart owner3 of=k
         wait 3s
         get k at spare2 -> 0|2",
    );
}

#[test]
fn any_node_takes_any_request() {
    tell(
        "cluster 5
         put k 1 at spare1 -> ok
         get k at spare2 -> 1
         delete k at spare2 -> ok
         get k at spare1 -> nothing",
    );
}

#[test]
fn a_request_that_was_handed_to_a_silent_owner_goes_to_the_next_and_is_one_write() {
    tell(
        "cluster 5
         pause owner1 of=k
         put k 1 at spare1 ms=1000 -> ok
         pause owner2 of=k
         get k at spare1 q=1 ms=1000 -> 1
         resume owner1 of=k
         resume owner2 of=k
         wait 3s
         get k at spare2 -> 1",
    );
}

#[test]
fn a_node_whose_disk_is_full_lets_another_owner_write() {
    tell(
        "cluster 3
         fill a
         put k 1 at a -> ok
         get k at a -> 1
         fill b
         fill c
         put k 2 at a -> DiskFull
         empty a
         empty b
         empty c
         wait 3s
         copy k at a -> 1",
    );
}

#[test]
fn twins_of_one_operation_are_read_as_one_and_replaced_together() {
    // c is heard and hears nothing: it mints what a has minted already, and the others take that in as it comes.
    tell(
        "cluster 3
         cut a > c
         cut b > c
         put k 1 at a id=x -> ok
         put k 1 at c id=x ms=200 -> refused 1 of 2
         get k at a -> 1
         heal
         wait 3s
         get k at c q=3 -> 1
         copy k at b -> 1|1
         put k 2 at a q=3 -> ok
         copy k at b -> 2",
    );
}

#[test]
fn who_is_known_to_be_down_is_not_waited_for() {
    tell(
        "cluster 3
         put k 1 at a -> ok
         wait 100ms
         pause b
         pause c
         notice b down
         notice c down
         get k at a ms=10 -> refused 0 of 2
         put k 2 at a ms=10 -> refused 0 of 2
         get k at a q=1 -> 1",
    );
}

#[test]
fn a_connection_that_was_full_for_a_while_is_used_again() {
    tell(
        "cluster 3
         clog a > b
         put k 1 at a -> ok
         wait 100ms
         hints at a -> 1
         unclog a > b
         put k 2 at a -> ok
         wait 2s
         copy k at b -> 2
         hints at a -> 0",
    );
}

#[test]
fn fault_08_a_retry_is_one_write_whichever_node_it_reaches() {
    tell(
        "cluster 3
         put k 1 at a id=x -> ok
         put k 1 at b id=x retry -> ok remembered
         put k 1 at c id=x retry -> ok remembered
         put k 2 at c -> ok
         put k 1 at b id=x retry -> ok remembered
         get k at a -> 2",
    );
}

#[test]
fn fault_08_a_retry_finds_its_first_try_on_a_node_that_was_not_its_coordinator() {
    tell(
        "cluster 3
         cut a c
         put k 1 at a id=x -> ok
         crash a
         put k 1 at c id=x retry -> ok remembered
         get k at b -> 1",
    );
}

#[test]
fn fault_14_a_context_of_another_key_is_refused() {
    tell(
        "cluster 3
         put y 1 at a as ctx -> ok
         put x 1 at a -> ok
         put x 2 at b with=ctx -> Context(OtherKey)",
    );
}

#[test]
fn a_link_that_is_cut_one_way_costs_no_write_and_leaves_no_false_sibling() {
    tell(
        "cluster 3
         put k 0 at a -> ok
         wait 100ms
         cut a > b
         put k 1 at a -> ok
         put k 2 at b -> ok
         put k 3 at c -> ok
         wait 3s
         heal
         wait 3s
         get k at a as all -> 3
         get k at b -> 3",
    );
}

#[test]
fn a_delete_without_a_context_replaces_what_r_owners_hold() {
    tell(
        "cluster 3
         cut a c
         cut b c
         put k 1 at a -> ok
         heal
         delete k at c -> ok
         get k at a -> nothing
         get k at b -> nothing",
    );
}

#[test]
fn more_than_n_nodes_can_have_all_kinds_of_quorums() {
    tell(
        "cluster 20 n=20 r=10 w=10
         put k 1 at a -> ok
         crash b
         put k 2 at c q=15 -> ok
         get k at d q=15 -> 2
         get k at e q=20 -> refused 1 of 20
         put k 3 at e q=20 -> refused 0 of 20",
    );
}

#[test]
fn a_retried_delete_without_a_context_replaces_what_r_owners_hold_too() {
    tell(
        "cluster 3
         cut a c
         cut b c
         put k 1 at a -> ok
         heal
         delete k at c id=x retry -> ok
         get k at a -> nothing
         get k at b -> nothing",
    );
}

#[test]
fn a_node_whose_disk_is_full_stands_in_for_nobody() {
    tell(
        "cluster 5
         crash owner1 of=k
         crash owner2 of=k
         crash owner3 of=k
         fill spare1 of=k
         put k 1 at spare1 -> refused 0 of 2
         fill spare2 of=k
         put k 1 at spare1 -> DiskFull
         put k 1 at spare2 -> DiskFull",
    );
}

#[test]
fn owners_that_are_slow_are_waited_for_before_a_fallback_mints() {
    tell(
        "cluster 4
         put k 0 at owner1 -> ok
         pause owner1 of=k
         pause owner2 of=k
         pause owner3 of=k
         put k 1 at spare1 unheard as slow
         wait 300ms
         resume owner1 of=k
         resume owner2 of=k
         resume owner3 of=k
         answer slow -> ok
         wait 3s
         copy k at owner1 -> 1
         copy k at owner2 -> 1
         copy k at owner3 -> 1",
    );
}

#[test]
fn a_fallback_gives_the_owners_that_it_reaches_their_copies() {
    // The one that was asked reaches no owner; the fallback that it hands the write to does.
    tell(
        "cluster 5
         clog spare2 > owner1 of=k
         clog spare2 > owner2 of=k
         clog spare2 > owner3 of=k
         put k 1 at spare2 -> ok with 1 fallbacks
         wait 3s
         copy k at owner1 -> 1
         copy k at owner2 -> 1
         copy k at owner3 -> 1
         get k at owner2 -> 1",
    );
}

#[test]
fn a_silent_owner_costs_those_who_hand_requests_on_once() {
    tell(
        "cluster 4
         put k 1 at owner1 -> ok
         pause owner1 of=k
         get k at spare1 ms=60 -> 1
         get k at spare1 ms=60 -> 1
         get k at spare1 ms=20 -> 1
         get k at spare1 ms=20 -> 1",
    );
}

#[test]
fn a_retry_is_not_told_of_a_write_that_went_down_with_a_log() {
    tell(
        "cluster 3 r=3 w=1
         cut a > b
         cut a > c
         put k 1 at a id=x unheard
         break a
         heal
         put k 1 at b id=x retry -> ok
         get k at b -> 1",
    );
}

#[test]
fn a_retry_finds_its_first_try_where_that_came_after_what_superseded_it() {
    tell(
        "cluster 3
         cut a > b
         cut a > c
         put k 1 at a id=x unheard as first
         wait 10ms
         heal
         put k 2 at a -> ok
         put k 1 at a id=x retry -> ok remembered
         wait 100ms
         crash a
         put k 1 at c id=x retry strict -> ok remembered
         get k at b -> 2",
    );
}
