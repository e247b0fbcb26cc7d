//! The stories of a membership, each on virtual time and under several seeds.

mod changes;
mod world;

use core::net::SocketAddr;
use std::time::Duration;

use self::world::{CLUSTER, World};
use super::{Durable, Input, Knowledge, Letter, Note, Order, Past, Refusal, RowStart, RowState, may_join};
use crate::protocol::ring::{Cores, Liveness};
use crate::protocol::types::{ClusterId, NodeId};

const SEEDS: std::ops::Range<u64> = 0..20;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_founder_serves_alone_and_its_knowledge_is_durable_before_it_is_seen() {
    let mut world = World::new(1);
    let at = world.found("n0");
    assert!(world.nodes[at].view.is_none() && world.nodes[at].disk.is_none());

    world.until("it is seen", 1, |world| world.agree(1));

    let view = world.nodes[at].view.as_ref().unwrap();
    assert_eq!((view.epoch, view.layout.stamp().number), (1, 1));
    assert!(world.nodes[at].disk.is_some());
}

#[test]
fn a_node_joins_an_empty_cluster_by_itself() {
    for seed in SEEDS {
        let mut world = World::cluster(seed, 1);
        world.join("n1", 0).unwrap();
        let took = world.until("both agree", 10, |world| world.agree(2));
        assert!(took < seconds(2), "{took:?}");
    }
}

#[test]
fn three_that_join_at_once_come_in_one_layout() {
    for seed in SEEDS {
        let mut world = World::cluster(seed, 1);
        for name in ["n1", "n2", "n3"] {
            world.join(name, 0).unwrap();
        }
        world.until("all agree", 10, |world| world.agree(4));
        assert_eq!(world.nodes[0].view.as_ref().unwrap().layout.stamp().number, 2, "one layout for all of them");
        let members = world.knowledge(2).rows;
        assert!(members.iter().all(|row| row.state == RowState::Member));
    }
}

#[test]
fn nodes_join_through_a_network_that_loses_delays_and_doubles() {
    for seed in SEEDS {
        let mut world = World::new(seed);
        world.loss = 20;
        world.found("n0");
        for name in ["n1", "n2", "n3", "n4"] {
            world.join(name, 0).unwrap();
        }
        world.until("all agree", 30, |world| world.agree(5));
    }
}

#[test]
fn a_silent_node_is_known_down_within_two_seconds_and_up_again_when_it_is_heard() {
    for nodes in [2, 3, 5, 20] {
        for seed in SEEDS {
            let mut world = World::cluster(seed, nodes);
            world.run(Duration::from_millis(seed * 37));
            let silent = 1 + (seed as usize) % (nodes - 1);
            world.silent.insert(silent);
            let known = |world: &World| {
                (0..nodes).filter(|at| *at != silent).all(|at| world.sees(at, silent) == Some(Liveness::Down))
            };
            let took = world.until("all know", 10, known);
            // In a large cluster the word needs a few packets more, of those that happen to go round.
            let limit = if nodes < 20 { seconds(2) } else { Duration::from_millis(2_500) };
            assert!(took < limit, "{nodes} nodes, seed {seed}: {took:?}");
            let others_up = (0..nodes).filter(|at| *at != silent).all(|at| world.sees(0, at) != Some(Liveness::Down));
            assert!(others_up, "nobody else is taken for down");

            world.run(seconds(10));
            world.silent.clear();
            let took = world.until("all agree again", 30, |world| world.agree(nodes));
            assert!(took < seconds(10), "{nodes} nodes, seed {seed}: {took:?}");
        }
    }
}

#[test]
fn both_halves_of_a_cut_find_each_other_again() {
    // Each half alone takes the other one for down; nobody renews before it is told.
    for seed in SEEDS {
        let mut world = World::cluster(seed, 3);
        world.silent.extend([0, 1, 2]);
        world.until("all are alone", 10, |world| {
            (0..3).all(|at| (0..3).all(|other| at == other || world.sees(at, other) == Some(Liveness::Down)))
        });
        world.run(seconds(20));
        world.silent.clear();
        world.until("all agree again", 20, |world| world.agree(3));
    }
}

#[test]
fn a_node_whose_loop_is_late_condemns_nobody() {
    for seed in SEEDS {
        let mut world = World::cluster(seed, 5);
        world.nodes[2].lag = Duration::from_millis(400);
        world.run(seconds(20));
        for at in 0..5 {
            for other in (0..5).filter(|other| *other != 2) {
                assert!(!world.has_condemned(at, other), "seed {seed}: n{at} of n{other}");
            }
        }
        world.nodes[2].lag = Duration::ZERO;
        world.until("all agree again", 10, |world| world.agree(5));
    }
}

#[test]
fn a_node_that_stood_still_condemns_nobody_when_it_goes_on() {
    for seed in SEEDS {
        let mut world = World::cluster(seed, 3);
        world.nodes[1].paused_until = world.now + seconds(10);
        world.run(seconds(10));
        assert_eq!(world.sees(0, 1), Some(Liveness::Down));
        world.run(seconds(5));
        assert!(!world.has_condemned(1, 0) && !world.has_condemned(1, 2), "seed {seed}");
        assert!(world.agree(3), "seed {seed}");
    }
}

#[test]
fn a_suspect_whose_answer_was_lost_while_we_stood_still_gets_time_to_repeat_it() {
    for seed in SEEDS {
        let mut world = World::cluster(seed, 3);
        world.silent.insert(0);
        world.until("n0 is suspected", 5, |world| world.sees(1, 0) == Some(Liveness::Suspect));
        world.silent.clear();
        world.nodes[1].paused_until = world.now + seconds(2);
        world.nodes[1].is_full = true;
        world.run(seconds(2));
        world.run(seconds(3));
        assert!(!world.has_condemned(1, 0), "seed {seed}");
        world.until("all agree", 5, |world| world.agree(3));
    }
}

#[test]
fn restarted_nodes_find_their_cluster_by_what_they_know() {
    for seed in SEEDS {
        let mut world = World::cluster(seed, 3);
        let stamp = world.nodes[0].view.as_ref().unwrap().layout.stamp();
        (0..3).for_each(|at| world.kill(at));
        world.run(seconds(5));
        for at in 0..3 {
            world.start(at);
            world.run(Duration::from_millis(700));
        }
        world.until("all agree", 10, |world| world.agree(3));
        assert_eq!(world.nodes[2].view.as_ref().unwrap().layout.stamp(), stamp, "the layout is the same");
    }
}

#[test]
fn a_node_that_stops_says_so_and_comes_back_at_once() {
    for seed in SEEDS {
        let mut world = World::cluster(seed, 3);
        world.handle(1, Input::Leave);
        world.kill(1);
        let took = world
            .until("the others know", 5, |world| [0, 2].iter().all(|at| world.sees(*at, 1) == Some(Liveness::Down)));
        assert!(took < Duration::from_millis(500), "{took:?}");
        world.start(1);
        let took = world.until("all agree", 5, |world| world.agree(3));
        assert!(took < seconds(1), "{took:?}");
    }
}

#[test]
fn a_restart_is_noticed_though_nobody_took_the_node_for_down() {
    let mut world = World::cluster(3, 3);
    world.kill(1);
    world.start(1);
    world.until("all agree", 5, |world| world.agree(3));
    world.until("all know the start", 5, |world| {
        let count = |at| world.knowledge(at).rows.get(NodeId::of("n1")).map(|row| row.start.count);
        (0..3).all(|at| count(at) == Some(2))
    });
}

#[test]
fn an_old_image_is_refused() {
    let mut world = World::cluster(4, 3);
    let image = (world.nodes[2].starts, world.nodes[2].stamp, world.nodes[2].disk.clone());
    world.kill(2);
    world.start(2);
    world.until("all agree", 5, |world| world.agree(3));
    world.run(seconds(1));
    world.kill(2);

    // Before it starts, it asks a member.
    let past = Past {
        node: NodeId::of("n2"),
        incarnation: world.nodes[2].incarnation,
        starts: image.0,
        stamp: image.1,
        address: world.nodes[2].address,
    };
    let refused = past.may_start(&world.knowledge(0)).unwrap_err();
    assert!(matches!(refused, Refusal::Behind { starts: 1, seen: 2, .. }), "{refused}");
    assert!(refused.to_string().contains("old image") && refused.to_string().contains("--data-dir"), "{refused}");

    // Where it could ask nobody, it learns so when it meets one: its start is a number that another start had.
    (world.nodes[2].starts, world.nodes[2].stamp, world.nodes[2].disk) = (0, image.1, image.2);
    world.start(2);
    world.until("it ends", 5, |world| world.nodes[2].refused.is_some());
    assert!(matches!(world.nodes[2].refused, Some(Refusal::Behind { starts: 1, seen: 2, .. })));
}

#[test]
fn of_a_directory_and_its_copy_only_one_goes_on() {
    for seed in SEEDS {
        let mut world = World::cluster(seed, 3);
        world.kill(2);
        let copy = world.found("copy");
        world.kill(copy);
        let original = &world.nodes[2];
        let (name, incarnation, starts) = (original.name.clone(), original.incarnation, original.starts);
        let (stamp, disk) = (original.stamp, original.disk.clone());
        let twin = &mut world.nodes[copy];
        (twin.name, twin.incarnation, twin.starts, twin.stamp, twin.disk) = (name, incarnation, starts, stamp, disk);

        world.start(2);
        world.start(copy);
        world.until("one ends", 10, |world| world.nodes[2].refused.is_some() || world.nodes[copy].refused.is_some());

        world.run(seconds(5));
        let refused: Vec<&Refusal> = [2, copy].into_iter().filter_map(|at| world.nodes[at].refused.as_ref()).collect();
        assert!(matches!(refused[..], [Refusal::Clone { .. }]), "seed {seed}: {refused:?}");
    }
}

#[test]
fn a_copy_of_a_directory_whose_node_runs_elsewhere_does_not_start() {
    let world = World::cluster(5, 2);
    let node = &world.nodes[1];
    let past = |port: u16| Past {
        node: NodeId::of("n1"),
        incarnation: node.incarnation,
        starts: node.starts,
        stamp: node.stamp,
        address: ([127, 0, 0, 1], port).into(),
    };
    let refused = past(9_999).may_start(&world.knowledge(0)).unwrap_err();
    assert!(matches!(refused, Refusal::Running { .. }), "{refused}");
    let restarted = past(node.address.port());
    assert_eq!(restarted.may_start(&world.knowledge(0)), Ok(()), "at its own address it was restarted quickly");
}

#[test]
fn a_name_belongs_to_one_node() {
    let mut world = World::cluster(6, 2);
    let refused = world.join("n1", 0).unwrap_err();
    assert!(matches!(refused, Refusal::NameTaken { is_up: true, .. }), "{refused}");

    world.kill(1);
    world.run(seconds(3));
    let refused = world.join("n1", 0).unwrap_err();
    assert!(matches!(refused, Refusal::NameTaken { is_up: false, has_place: true, .. }), "{refused}");
    assert!(refused.to_string().contains("sloop cluster replace n1"), "{refused}");
}

/// What a new directory of a name is told where it would be reached at this address, by what members know.
fn joins(name: &str, at: SocketAddr, known: Knowledge) -> Result<Durable, Refusal> {
    let cores = Cores { count: 1, salt: 1 };
    may_join(name, 99, RowStart { count: 0, stamp: 0, address: at, http: at, cores }, known)
}

#[test]
fn a_node_whose_address_was_taken_keeps_nobody_from_its_name() {
    let mut world = World::cluster(6, 3);
    let lost = NodeId::of("n2");
    world.kill(2);
    world.run(seconds(3));
    world.order(0, Order::Replace { node: lost, by: None }).unwrap();
    // A member that stood still until now has not noticed that the node is down.
    let late = Knowledge { up: vec![NodeId::of("n0"), lost], ..world.knowledge(0) };
    let elsewhere = joins("n2", ([127, 0, 0, 1], 9_999).into(), late.clone()).unwrap_err();
    assert!(matches!(elsewhere, Refusal::NameTaken { is_up: true, .. }), "{elsewhere}");
    joins("n2", world.nodes[2].address, late).unwrap();
}

#[test]
fn what_members_know_together_is_the_newest_of_each() {
    let mut world = World::cluster(6, 3);
    let (old, lost) = (world.knowledge(1), NodeId::of("n2"));
    world.kill(2);
    world.run(seconds(3));
    world.order(0, Order::Replace { node: lost, by: None }).unwrap();
    let new = world.knowledge(0);
    assert!(joins("n2", world.nodes[2].address, old.clone()).is_err(), "it has not heard of the order");

    let (mut one, mut other) = (old.clone(), new.clone());
    one.join(new.clone());
    other.join(old.clone());
    assert_eq!(one, other, "whoever answered first");
    assert_eq!((&one.rows, &one.layout), (&new.rows, &new.layout));
    assert!(one.up.contains(&lost) && !new.up.contains(&lost), "one still sees it up");
    joins("n2", world.nodes[2].address, one).unwrap();

    let mut same = old.clone();
    same.join(Knowledge { cluster: Some(ClusterId(CLUSTER.0 + 1)), ..new });
    assert_eq!(same, old, "another cluster's");
}

#[test]
fn a_node_that_never_got_into_a_layout_may_join_anew() {
    let mut world = World::cluster(7, 1);
    world.nodes[0].holds_data = true;
    world.run(seconds(1));
    let first = world.join("n1", 0).unwrap();
    world.run(seconds(3));
    world.kill(first);
    world.run(seconds(3));

    let second = world.join("n1", 0).unwrap();
    world.run(seconds(3));

    assert!(world.nodes[second].refused.is_none());
    let row = world.knowledge(0).rows.get(NodeId::of("n1")).unwrap().clone();
    assert_eq!((row.generation, row.incarnation), (1, world.nodes[second].incarnation));
}

#[test]
fn a_removed_node_ends() {
    let mut world = World::cluster(8, 3);
    let mut known = world.knowledge(0);
    known.rows.get_mut(NodeId::of("n1")).unwrap().state = RowState::Removed;
    let says = Letter::Compare(Box::new(known));
    world.tell(0, says);
    world.until("it ends", 5, |world| world.nodes[1].refused.is_some());
    assert!(matches!(world.nodes[1].refused, Some(Refusal::Removed { .. })));
}

#[test]
fn what_another_cluster_knows_is_not_learned() {
    let mut world = World::cluster(9, 2);
    let known = Knowledge { cluster: Some(ClusterId(CLUSTER.0 + 1)), ..World::cluster(10, 4).knowledge(3) };
    world.tell(0, Letter::Compare(Box::new(known)));
    world.run(seconds(1));
    assert!(world.agree(2));
}

#[test]
fn while_a_member_holds_data_a_joined_node_stays_staged_and_writes_go_on() {
    for seed in SEEDS {
        let mut world = World::cluster(seed, 2);
        world.nodes[1].holds_data = true;
        let joined = world.join("n2", 1).unwrap();
        world.run(seconds(10));

        let view = world.nodes[joined].view.as_ref().unwrap();
        assert_eq!((view.layout.rows().len(), view.members.len()), (2, 3), "it is known, and owns nothing");
        let noted = world.live().filter(|node| node.notes.contains(&Note::HeldByData)).count();
        assert_eq!(noted, 1, "whoever would commit says why it does not");
        let row = world.knowledge(0).rows.get(NodeId::of("n2")).unwrap().clone();
        assert_eq!(row.state, RowState::Staged);
    }
}

impl World {
    /// Whether one node has ever taken another one for down.
    fn has_condemned(&self, at: usize, other: usize) -> bool {
        let (name, liveness) = (self.nodes[other].name.as_str().into(), Liveness::Down);
        self.nodes[at].notes.contains(&Note::Liveness { name, liveness })
    }

    /// A letter to one node, as from another.
    fn tell(&mut self, at: usize, says: Letter) {
        let from = NodeId::of(&self.nodes[(at + 1) % self.nodes.len()].name);
        let letter = self.stray_letter(at);
        self.handle(at, Input::Letter { letter, from, says });
    }
}
