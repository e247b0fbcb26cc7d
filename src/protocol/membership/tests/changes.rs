//! The stories of a change: what is staged, committed and carried out, and what holds it up. The world judges every
//! view and every word on the way: nobody goes on before all that are waited for have made their mark durable.

use std::time::Duration;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::world::World;
use super::{SEEDS, seconds};
use crate::protocol::membership::{Note, Order, OrderRefused, Refusal, RowState, StagedChange};
use crate::protocol::ring::{Liveness, Step, View};
use crate::protocol::types::NodeId;

/// A cluster at rest whose members hold data.
fn cluster(seed: u64, nodes: usize) -> World {
    let mut world = World::cluster(seed, nodes);
    (0..nodes).for_each(|at| world.nodes[at].holds_data = true);
    world.until("all know of the data", 5, |world| {
        (0..nodes).all(|at| world.knowledge(at).rows.iter().all(|row| row.holds_data))
    });
    world
}

fn view(world: &World, at: usize) -> &View {
    world.nodes[at].view.as_ref().expect("it has begun")
}

fn number(world: &World, at: usize) -> u64 {
    view(world, at).layout.stamp().number
}

fn step(world: &World, at: usize) -> Option<Step> {
    view(world, at).change.as_ref().map(|change| change.step)
}

fn down(world: &mut World, at: usize) {
    world.kill(at);
    let others: Vec<usize> = (0..world.nodes.len()).filter(|other| world.nodes[*other].membership.is_some()).collect();
    world.until("it is known to be down", 10, |world| {
        others.iter().all(|other| world.sees(*other, at).is_none_or(|liveness| liveness == Liveness::Down))
    });
}

fn staged(world: &mut World, at: usize) -> Vec<(String, StagedChange)> {
    let plan = world.order(at, Order::Plan).unwrap();
    plan.staged.into_iter().map(|staged| (staged.name.to_string(), staged.what)).collect()
}

#[test]
fn a_node_that_joins_a_cluster_with_data_gets_its_share_by_a_commit() {
    for seed in SEEDS {
        let mut world = cluster(seed, 3);
        let joined = world.join("n3", 1).unwrap();
        world.until("it is known", 5, |world| world.agree_on_members(4));
        assert_eq!(staged(&mut world, 0), [("n3".to_owned(), StagedChange::Join)]);
        let plan = world.order(0, Order::Plan).unwrap();
        assert_eq!(plan.refusal, None);
        let load = plan.loads.iter().find(|load| load.node == world.id(joined)).unwrap();
        assert_eq!((load.before, load.after, load.gains), (0, 12, 12));

        let before = number(&world, 0);
        let plan = world.order(0, Order::Commit).unwrap();
        assert_eq!((plan.pending.unwrap().number, plan.staged), (before + 1, vec![]));
        let took = world.until("the change ends", 10, |world| world.rest(4));
        assert!(took < Duration::from_millis(500), "seed {seed}: {took:?}");
        assert_eq!(number(&world, joined), before + 1);
    }
}

#[test]
fn joins_are_committed_by_themselves_where_that_is_wanted() {
    let mut world = cluster(3, 3);
    world.auto_join = true;
    (0..3).for_each(|at| {
        world.kill(at);
        world.start(at);
    });
    world.until("all agree", 10, |world| world.agree(3));
    world.join("n3", 1).unwrap();
    world.until("it has its share", 10, |world| world.agree(4));
}

/// So many nodes, of which all but the first three have lost their place, and still hold something.
fn with_leavers(seed: u64, nodes: usize) -> World {
    let mut world = cluster(seed, nodes);
    for at in 3..nodes {
        world.order(1, Order::Leave(world.id(at))).unwrap();
    }
    world.order(1, Order::Commit).unwrap();
    world.until("the change ends", 10, |world| world.rest(3));
    world
}

#[test]
fn a_node_that_leaves_ends_when_it_holds_nothing_any_more() {
    for seed in SEEDS {
        let mut world = with_leavers(seed, 4);
        let leaver = world.id(3);
        world.run(seconds(5));
        assert!(world.nodes[3].refused.is_none(), "it still holds something");
        assert_eq!(world.knowledge(0).rows.get(leaver).unwrap().state, RowState::Leaving);
        assert!(view(&world, 0).member(leaver).is_some_and(|member| !member.is_removed));
        assert_eq!(staged(&mut world, 0), [], "it does not join again");

        world.nodes[3].holds_data = false;
        world.until("it ends", 10, |world| world.nodes[3].refused.is_some());
        assert!(matches!(world.nodes[3].refused, Some(Refusal::Left { .. })));
        world.until("it is seen no more", 10, |world| (0..3).all(|at| view(world, at).member(leaver).is_none()));
    }
}

#[test]
fn nodes_that_leave_together_end_only_when_one_that_stays_knows_it() {
    for seed in SEEDS {
        let mut world = with_leavers(seed, 6);
        for at in 3..6 {
            world.nodes[at].holds_data = false;
        }
        world.silent = (0..3).collect();
        world.run(seconds(5));
        assert!((3..6).all(|at| world.nodes[at].refused.is_none()), "only others that leave have heard of it");
        world.silent.clear();
        world.until("they end", 20, |world| (3..6).all(|at| world.nodes[at].refused.is_some()));
        let leavers: Vec<NodeId> = (3..6).map(|at| world.id(at)).collect();
        world.until("they are seen no more", 10, |world| {
            (0..3).all(|at| leavers.iter().all(|leaver| view(world, at).member(*leaver).is_none()))
        });
    }
}

#[test]
fn a_node_that_has_left_ends_when_a_crash_cannot_make_the_others_forget_it() {
    for seed in SEEDS {
        let mut world = with_leavers(seed, 4);
        let leaver = world.id(3);
        world.nodes[3].holds_data = false;
        world.until("it ends", 10, |world| world.nodes[3].refused.is_some());
        (0..3).for_each(|at| world.kill(at));
        (0..3).for_each(|at| world.start(at));
        world.until("it is seen no more", 10, |world| {
            (0..3).all(|at| world.nodes[at].view.is_some() && view(world, at).member(leaver).is_none())
        });
    }
}

#[test]
fn a_dead_node_is_removed_and_one_that_answers_is_not() {
    for seed in SEEDS {
        let mut world = cluster(seed, 4);
        let dead = world.id(2);
        let refused = world.order(0, Order::Remove(dead)).unwrap_err();
        assert!(matches!(refused, OrderRefused::StillUp { .. }), "{refused}");
        down(&mut world, 2);
        world.order(0, Order::Remove(dead)).unwrap();
        world.order(0, Order::Commit).unwrap();
        world.until("the change ends", 10, |world| world.rest(3));
        assert!((0..4).filter(|at| *at != 2).all(|at| view(&world, at).member(dead).is_none()));

        world.start(2);
        world.until("it is refused", 10, |world| world.nodes[2].refused.is_some());
        assert!(matches!(world.nodes[2].refused, Some(Refusal::Removed { .. })));
    }
}

#[test]
fn no_commit_leaves_fewer_copies_than_there_were() {
    let mut world = cluster(1, 3);
    let (dead, node) = (world.id(2), world.id(1));
    world.order(0, Order::Leave(node)).unwrap();
    let refused = world.order(0, Order::Commit).unwrap_err();
    assert_eq!(refused, OrderRefused::TooFewCopies { left: 2, n: 3 });
    world.order(0, Order::Clear).unwrap();
    assert_eq!(world.order(0, Order::Commit).unwrap_err(), OrderRefused::NothingStaged);
    down(&mut world, 2);
    world.order(0, Order::Remove(dead)).unwrap();
    assert_eq!(world.order(0, Order::Commit).unwrap_err(), OrderRefused::TooFewCopies { left: 2, n: 3 });
}

#[test]
fn partitions_that_only_removed_nodes_hold_are_not_given_up() {
    let mut world = cluster(1, 6);
    let dead = [3, 4, 5].map(|at| world.id(at));
    for (at, node) in [3, 4, 5].into_iter().zip(dead) {
        down(&mut world, at);
        world.order(0, Order::Remove(node)).unwrap();
    }
    let refused = world.order(0, Order::Commit).unwrap_err();
    assert!(matches!(refused, OrderRefused::LosesData { partitions: 1.. }), "{refused}");
}

#[test]
fn a_change_is_refused_while_members_are_silent() {
    let mut world = cluster(1, 4);
    down(&mut world, 3);
    let node = world.id(1);
    world.order(0, Order::Weight(node, 5)).unwrap();
    let refused = world.order(0, Order::Commit).unwrap_err();
    assert_eq!(refused, OrderRefused::Silent { names: vec!["n3".to_owned()] });
    assert_eq!(world.order(0, Order::Plan).unwrap().refusal, Some(refused));
}

#[test]
fn a_dead_node_is_replaced_by_an_empty_directory_of_its_name() {
    for seed in SEEDS {
        let mut world = cluster(seed, 3);
        let dead = world.id(2);
        let refused = world.order(0, Order::Replace { node: dead, by: None }).unwrap_err();
        assert!(matches!(refused, OrderRefused::StillUp { .. }), "{refused}");
        down(&mut world, 2);
        assert!(matches!(world.join("n2", 0), Err(Refusal::NameTaken { .. })));
        world.order(0, Order::Replace { node: dead, by: None }).unwrap();
        let refused = world.order(0, Order::Commit).unwrap_err();
        assert!(matches!(refused, OrderRefused::NotThereYet { .. }), "{refused}");

        let fresh = world.join("n2", 0).unwrap();
        let incarnation = world.nodes[fresh].incarnation;
        world.until("it is known", 10, |world| {
            let row = world.knowledge(0).rows.get(dead).map(|row| row.incarnation);
            row == Some(incarnation) && world.sees(0, fresh) == Some(Liveness::Up)
        });
        assert_eq!(staged(&mut world, 0), [("n2".to_owned(), StagedChange::Replace { is_there: true })]);
        let layout = view(&world, 0).layout.clone();
        assert!(!view(&world, 0).is_whole(&layout, dead), "it holds nothing of what it owns");
        world.order(0, Order::Commit).unwrap();
        world.until("the change ends", 10, |world| world.rest(3));
        let layout = view(&world, 0).layout.clone();
        assert!(view(&world, 0).is_whole(&layout, dead));

        world.start(2);
        world.until("the old one is refused", 10, |world| world.nodes[2].refused.is_some());
        assert!(matches!(world.nodes[2].refused, Some(Refusal::Replaced { .. })));
    }
}

#[test]
fn a_dead_node_is_replaced_by_a_node_of_another_name() {
    for seed in SEEDS {
        let mut world = cluster(seed, 3);
        let dead = world.id(2);
        down(&mut world, 2);
        let other = world.id(1);
        let refused = world.order(0, Order::Replace { node: dead, by: Some(other) }).unwrap_err();
        assert!(matches!(refused, OrderRefused::NotJoined { .. }), "{refused}");
        let fresh = world.join("n3", 0).unwrap();
        let by = Some(world.id(fresh));
        world.until("it is up", 10, |world| world.sees(0, fresh) == Some(Liveness::Up));
        world.order(0, Order::Replace { node: dead, by }).unwrap();
        world.order(0, Order::Commit).unwrap();
        world.until("the change ends", 10, |world| world.rest(3));
        assert!(view(&world, 0).layout.rows().iter().all(|row| row.node != dead));
    }
}

#[test]
fn all_that_is_staged_comes_in_one_layout() {
    for seed in SEEDS {
        let mut world = cluster(seed, 5);
        world.join("n5", 1).unwrap();
        let (heavy, zoned, leaver) = (world.id(0), world.id(1), world.id(2));
        world.until("it is known", 5, |world| world.agree_on_members(6));
        world.order(0, Order::Weight(heavy, 3)).unwrap();
        world.order(1, Order::Zone(zoned, "b".into())).unwrap();
        world.order(2, Order::Leave(leaver)).unwrap();
        world.until("all know what is staged", 5, |world| {
            let digests = |at| world.knowledge(at).rows.digest();
            (1..6).all(|at| digests(at) == digests(0))
        });
        let before = number(&world, 0);
        world.order(4, Order::Commit).unwrap();
        world.until("the change ends", 10, |world| world.rest(5));
        let layout = &view(&world, 3).layout;
        assert_eq!(layout.stamp().number, before + 1);
        let row = |node: NodeId| layout.rows().iter().find(|row| row.node == node);
        assert_eq!((row(heavy).unwrap().weight, &*row(zoned).unwrap().zone, row(leaver)), (3, "b", None));
        assert_eq!(staged(&mut world, 3), []);
    }
}

#[test]
fn what_an_operator_has_staged_can_be_forgotten() {
    let mut world = cluster(1, 4);
    let (heavy, leaver) = (world.id(0), world.id(2));
    world.order(0, Order::Weight(heavy, 3)).unwrap();
    world.order(0, Order::Leave(leaver)).unwrap();
    let plan = world.order(0, Order::Clear).unwrap();
    assert_eq!((plan.staged, plan.refusal), (vec![], Some(OrderRefused::NothingStaged)));
    assert!(matches!(world.order(0, Order::Weight(heavy, 0)), Err(OrderRefused::Invalid { .. })));
    assert!(matches!(world.order(0, Order::Leave(NodeId(1))), Err(OrderRefused::NoSuchNode)));
}

#[test]
fn of_two_commits_with_one_number_the_lower_hash_wins_and_the_rest_is_staged_again() {
    for seed in SEEDS {
        for held in [None, Some(Step::Hold), Some(Step::Read)] {
            let mut world = cluster(seed, 4);
            let before = number(&world, 0);
            let (one, other) = (world.id(2), world.id(3));
            world.nodes[2].stuck_at = held;
            // Neither knows of the other's.
            world.silent.insert(1);
            for (at, node) in [(0, one), (1, other)] {
                world.send_order(at, Order::Weight(node, 2));
                world.send_order(at, Order::Commit);
            }
            world.run(Duration::from_millis(100 + 50 * seed));
            world.silent.clear();
            world.run(seconds(2));
            world.nodes[2].stuck_at = None;
            world.until("one of them is stored", 20, |world| world.rest(4));
            assert_eq!(number(&world, 0), before + 1, "seed {seed}, {held:?}");
            let left = staged(&mut world, 0);
            assert_eq!(left.len(), 1, "seed {seed}, {held:?}: {left:?}");
            assert!(world.live().any(|node| node.notes.iter().any(|note| matches!(note, Note::Outdone { .. }))));
            world.order(1, Order::Commit).unwrap();
            world.until("the other one comes next", 10, |world| world.rest(4));
        }
    }
}

#[test]
fn a_member_that_is_down_holds_a_change_up_until_it_is_back() {
    for seed in SEEDS {
        for held in [Step::Write, Step::Hold, Step::Read] {
            let mut world = cluster(seed, 4);
            let node = world.id(1);
            world.nodes[3].stuck_at = Some(held);
            world.order(0, Order::Weight(node, 2)).unwrap();
            world.order(0, Order::Commit).unwrap();
            world.until("all have come so far", 5, |world| (0..4).all(|at| step(world, at) == Some(held)));
            down(&mut world, 3);
            world.run(seconds(5));
            assert!((0..3).all(|at| step(&world, at) == Some(held)), "seed {seed}, {held:?}");
            let refused = world.order(0, Order::Commit).unwrap_err();
            assert!(matches!(refused, OrderRefused::UnderWay { .. }), "{refused}");
            world.nodes[3].stuck_at = None;
            world.start(3);
            world.until("the change ends", 10, |world| world.rest(4));
        }
    }
}

#[test]
fn a_member_that_is_removed_during_a_change_is_waited_for_no_more() {
    for seed in SEEDS {
        for held in [Step::Write, Step::Hold, Step::Read] {
            let mut world = cluster(seed, 5);
            let (node, dead) = (world.id(1), world.id(4));
            world.nodes[4].stuck_at = Some(held);
            world.order(0, Order::Weight(node, 2)).unwrap();
            world.order(0, Order::Commit).unwrap();
            world.until("all have come so far", 5, |world| (0..5).all(|at| step(world, at) == Some(held)));
            down(&mut world, 4);
            world.order(2, Order::Remove(dead)).unwrap();
            world.order(2, Order::Commit).unwrap();
            world.until("the change ends", 10, |world| world.rest(5));
            assert!(view(&world, 0).member(dead).is_some_and(|member| member.is_removed));
            assert_eq!(staged(&mut world, 1), [("n4".to_owned(), StagedChange::Remove)]);
            world.order(1, Order::Commit).unwrap();
            world.until("the next change ends", 10, |world| world.rest(4));
            assert!(view(&world, 0).member(dead).is_none());
        }
    }
}

/// The judge holds every view against it. In the change it may own what it has never fetched.
#[test]
fn a_removed_member_that_comes_back_is_down_to_all_others() {
    for seed in SEEDS {
        let mut world = cluster(seed, 5);
        let (node, still) = (world.id(1), world.id(4));
        world.nodes[4].stuck_at = Some(Step::Hold);
        world.order(0, Order::Weight(node, 2)).unwrap();
        world.order(0, Order::Commit).unwrap();
        world.until("all have come so far", 5, |world| (0..5).all(|at| step(world, at) == Some(Step::Hold)));
        world.silent.insert(4);
        world.until("it is known to be down", 10, |world| (0..4).all(|at| world.sees(at, 4) == Some(Liveness::Down)));
        world.order(2, Order::Remove(still)).unwrap();
        world.order(2, Order::Commit).unwrap();
        world.until("the others read by it", 10, |world| (0..4).all(|at| step(world, at) != Some(Step::Hold)));
        world.silent.clear();
        world.until("it hears that it was removed", 10, |world| world.nodes[4].refused.is_some());
        world.until("the change ends", 10, |world| world.rest(5));
    }
}

#[test]
fn a_change_goes_on_where_it_was_when_everybody_was_restarted() {
    for seed in SEEDS {
        for held in [Step::Write, Step::Hold, Step::Read] {
            let mut world = cluster(seed, 3);
            let before = number(&world, 0);
            let node = world.id(1);
            world.nodes[2].stuck_at = Some(held);
            world.order(0, Order::Weight(node, 2)).unwrap();
            world.order(0, Order::Commit).unwrap();
            world.until("all have come so far", 5, |world| (0..3).all(|at| step(world, at) == Some(held)));
            world.run(Duration::from_millis(17 * seed));
            (0..3).for_each(|at| world.kill(at));
            (0..3).for_each(|at| world.start(at));
            world.run(seconds(3));
            assert!((0..3).all(|at| step(&world, at) == Some(held)), "seed {seed}, {held:?}");
            world.nodes[2].stuck_at = None;
            world.until("the change ends", 10, |world| world.rest(3));
            assert_eq!(number(&world, 0), before + 1);
        }
    }
}

#[test]
fn a_change_outlives_whoever_committed_it() {
    for seed in SEEDS {
        let mut world = cluster(seed, 3);
        let before = number(&world, 1);
        let node = world.id(1);
        world.order(0, Order::Weight(node, 2)).unwrap();
        world.send_order(0, Order::Commit);
        world.run(Duration::from_millis(seed));
        world.kill(0);
        world.run(seconds(5));
        world.start(0);
        world.until("all agree", 10, |world| world.agree(3));
        world.until("all are at rest", 10, |world| world.rest(3));
        let is_committed = number(&world, 1) == before + 1;
        let left = staged(&mut world, 1).len();
        assert_eq!(left, usize::from(!is_committed), "seed {seed}: it is committed, or staged still");
    }
}

#[test]
fn a_node_that_missed_changes_learns_the_stored_layout() {
    for seed in SEEDS {
        let mut world = cluster(seed, 3);
        let late = world.join("n3", 0).unwrap();
        world.until("it is known", 5, |world| world.agree_on_members(4));
        down(&mut world, late);
        for weight in [2, 3, 4] {
            let node = world.id(1);
            world.order(0, Order::Weight(node, weight)).unwrap();
            world.order(0, Order::Commit).unwrap();
            world.until("the change ends", 10, |world| world.rest(3));
        }
        world.start(late);
        world.until("it knows", 10, |world| world.nodes[late].view.is_some() && world.rest(3));
    }
}

#[test]
fn a_node_that_never_had_a_place_is_withdrawn_at_once() {
    let mut world = cluster(1, 3);
    let joined = world.join("n3", 0).unwrap();
    let node = world.id(joined);
    world.until("it is known", 5, |world| world.agree_on_members(4));
    assert!(matches!(world.order(0, Order::Leave(node)), Err(OrderRefused::NotPlaced { .. })));
    down(&mut world, joined);
    world.order(0, Order::Remove(node)).unwrap();
    assert!(view(&world, 0).member(node).is_none());
    world.join("n3", 0).unwrap();
    world.until("another one of its name is known", 10, |world| world.agree_on_members(4));
}

/// Everybody runs, and reaches everybody.
fn heal(world: &mut World) {
    world.silent.clear();
    for at in 0..world.nodes.len() {
        world.nodes[at].stuck_at = None;
        if world.nodes[at].membership.is_none() && world.nodes[at].refused.is_none() {
            world.start(at);
        }
    }
}

#[test]
fn whatever_happens_nobody_goes_on_before_all_have_marked_and_the_change_ends() {
    let mut changes = 0;
    for seed in 0..60 {
        let mut world = cluster(seed, 4);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        world.loss = seed % 3 * 10;
        let mut draw = move |below: usize| usize::try_from(rng.next_u64() % below as u64).unwrap();
        for round in 0..30_u32 {
            let at = draw(world.nodes.len());
            let node = world.id(draw(world.nodes.len()));
            let runs = world.nodes[at].membership.is_some();
            match draw(12) {
                0 if runs && world.live().count() > 3 => world.kill(at),
                0 | 1 if !runs && world.nodes[at].refused.is_none() => world.start(at),
                2 => drop(world.silent.insert(at)),
                3 => world.silent.clear(),
                4 => world.nodes[at].stuck_at = [None, Some(Step::Hold), Some(Step::Read)][draw(3)],
                5 if world.nodes.len() < 7 && runs => drop(world.join(&format!("j{round}"), at)),
                6 | 7 if runs => drop(world.send_order(at, Order::Weight(node, 1 + round % 3))),
                8 if runs => drop(world.send_order(at, Order::Zone(node, ["a", "b"][draw(2)].into()))),
                9.. if runs => drop(world.send_order(at, Order::Commit)),
                _ => {}
            }
            world.run(Duration::from_millis(10 << draw(9)));
            if round % 6 == 5 {
                heal(&mut world);
                world.run(seconds(2));
            }
        }
        world.loss = 0;
        heal(&mut world);
        world.until("all are at rest", 60, |world| {
            let first = world.live().find_map(|node| node.view.as_ref()).expect("one has begun");
            world.rest(first.layout.rows().len())
        });
        changes += world.stored() - 2;
    }
    assert!(changes > 60, "only {changes} layouts came into force");
}
