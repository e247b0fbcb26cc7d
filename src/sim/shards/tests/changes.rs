//! Stories in which owners change, leave, and lose their disks.

use crate::sim::shards::story::tell;

#[test]
fn a_change_brings_new_owners_what_the_old_ones_hold() {
    tell(
        "cluster 4 members=3
         put k 1 at a -> ok
         change b c d -> begun
         wait 5s
         step at a -> none
         step at d -> none
         copy k at d -> 1
         get k at d -> 1
         get k at a -> 1
         put k 2 at a -> ok
         wait 100ms
         copy k at a -> nothing
         copy k at b -> 2
         copy k at d -> 2",
    );
}

#[test]
fn an_owner_that_goes_on_with_fewer_others_fetches_what_it_has_missed() {
    // Two of three acknowledged; the third is to be the only owner, and reads ask it alone.
    tell(
        "cluster 3
         fill c
         put k 1 at a -> ok
         change c -> begun
         wait 1s
         step at c -> none
         get k at c -> 1",
    );
}

#[test]
fn a_member_that_is_down_holds_a_change_up_until_it_is_back() {
    tell(
        "cluster 4 members=3
         put k 1 at a -> ok
         crash c
         change a b d -> begun
         wait 5s
         step at a -> write
         step at d -> write
         put k 2 at a -> ok
         get k at b -> 2
         restart c
         wait 5s
         step at a -> none
         get k at d -> 2",
    );
}

#[test]
fn a_member_that_is_removed_is_waited_for_no_more() {
    tell(
        "cluster 4 members=3
         put k 1 at a -> ok
         crash c
         change a b d -> begun
         wait 5s
         step at a -> write
         remove c at a
         wait 5s
         step at a -> none
         copy k at d -> 1
         get k at d -> 1",
    );
}

#[test]
fn who_stood_still_and_was_removed_reads_by_no_layout_that_others_have_left() {
    // It belongs to a b c first, and then to a b d.
    tell(
        "cluster 4 members=3
         put k3 old at a -> ok
         wait 1s
         change c a b d -> begun
         wait 1ms
         deafen c
         expel c at a
         wait 3s
         step at a -> none
         step at c -> hold
         cut a > b
         cut d > b
         put k3 new at a -> ok
         copy k3 at b -> old
         copy k3 at c -> old
         cut a c
         get k3 at c -> refused 1 of 2",
    );
}

#[test]
fn a_write_needs_its_owners_in_both_layouts() {
    // Two of the union are there, and only one of the pending owners.
    tell(
        "cluster 5 members=3
         change a d e -> begun
         crash d
         crash e
         wait 1s
         step at b -> write
         put k 1 at a strict ms=500 -> refused 0 of 2
         restart d
         wait 1s
         put k 1 at a strict -> ok
         restart e
         wait 5s
         step at a -> none
         get k at e -> 1",
    );
}

#[test]
fn nothing_is_fetched_before_all_members_write_by_both_layouts() {
    // Two of the old owners hear of the change late, and take writes by themselves meanwhile.
    tell(
        "cluster 5 members=3
         cut c > a
         cut c > b
         cut d > a
         cut d > b
         cut e > a
         cut e > b
         change c d e -> begun
         wait 3s
         step at a -> none
         step at d -> write
         put k 1 at a strict -> ok
         heal
         wait 5s
         step at d -> none
         get k at d -> 1
         get k at e -> 1",
    );
}

#[test]
fn an_owner_that_has_lost_its_disk_is_written_and_not_read() {
    tell(
        "cluster 3
         cut a > c
         put k 1 at a -> ok
         crash a
         wipe b at c
         heal
         # One owner never had it, one has lost it: two that agree on nothing are no answer.
         get k at c -> refused 1 of 2
         get k at b ms=500 -> refused 1 of 2
         put l 1 at b strict -> ok
         get l at c ms=500 -> refused 1 of 2
         restart a
         wait 3s
         get k at c -> 1
         get k at b -> 1
         get l at b -> 1
         # In the next layout it is whole again.
         change a b c -> begun
         wait 5s
         step at b -> none
         copy k at b -> 1
         copy l at b -> 1
         crash a
         notice a down
         get k at b -> 1",
    );
}

#[test]
fn a_write_under_way_goes_to_the_owners_that_a_change_brings() {
    // The change cannot go on while two are silent, so nothing is fetched yet.
    tell(
        "cluster 4 members=3
         pause b
         pause c
         put k 1 at a strict unheard as slow
         wait 10ms
         change a b d -> begun
         wait 100ms
         copy k at d -> 1
         step at d -> write
         resume b
         resume c
         answer slow -> ok
         wait 5s
         step at a -> none
         copy k at b -> 1",
    );
}

#[test]
fn what_an_owner_without_its_data_took_alone_is_fetched_from_it() {
    // It is not read from; but with a W of one it may be all that has a write.
    tell(
        "cluster 4 members=3 r=3 w=1
         wipe b at c
         wait 100ms
         clog b > a
         clog b > c
         put k 1 at b -> ok
         copy k at a -> nothing
         change a c d -> begun
         wait 3s
         step at a -> none
         get k at a -> 1",
    );
}
