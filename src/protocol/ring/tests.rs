//! Claims about rings and layouts.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::protocol::types::NodeId;

fn key(n: u32) -> Key {
    Key::new(n.to_le_bytes()).unwrap()
}

#[test]
fn partitions_are_nearly_equal() {
    let ring = Ring::new(16);
    let mut counts = [0; 16];
    (0..16_000).for_each(|n| counts[usize::from(ring.partition(&key(n)).0)] += 1);
    assert!(counts.iter().all(|&keys| (850..1_150).contains(&keys)), "{counts:?}");
}

#[test]
fn a_ring_of_one_partition_holds_every_key() {
    assert_eq!(Ring::new(1).partition(&key(7)), Partition(0));
}

#[test]
fn the_place_of_a_key_never_changes() {
    assert_eq!(hash(&Key::new("cart:17").unwrap()), 0x7920_2bf2_4fa6_9069);
    assert_eq!(Cores { count: 7, salt: 42 }.of(Partition(900)), CoreId(3));
}

#[test]
fn salts_spread_a_partition_over_different_cores() {
    let on = |salt| Cores { count: 8, salt }.of(Partition(3));
    let cores: BTreeSet<_> = (0..64).map(on).collect();
    assert_eq!(cores.len(), 8);
}

const WANTED: Wanted = Wanted { n: 3, r: 2, w: 2 };

fn wanted(n: u8) -> Wanted {
    Wanted { n, r: 1, w: 1 }
}

fn row(node: u64, zone: &str, weight: u32) -> LayoutRow {
    // Ids are hashes: their order is not that in which nodes come.
    LayoutRow { node: NodeId(seahash::hash(&node.to_le_bytes())), incarnation: node.into(), zone: zone.into(), weight }
}

/// Nodes of weight 1, one after the other in one of so many zones.
fn rows(nodes: std::ops::Range<u64>, zones: u64) -> Vec<LayoutRow> {
    nodes.map(|node| row(node, &format!("zone-{}", node % zones), 1)).collect()
}

fn founded(partitions: u16) -> Layout {
    Layout::founding(partitions, WANTED, row(0, "zone-0", 1))
}

/// Copies that a node holds now and did not before, and those that it had to get in any case. A node that changed its
/// zone or weight still has what it had.
fn moves(before: &Layout, after: &Layout) -> (usize, usize) {
    let held = |layout: &Layout, node: &LayoutRow, partition| {
        let is_same = |row: &LayoutRow| (row.node, row.incarnation) == (node.node, node.incarnation);
        layout.rows().iter().any(is_same) && layout.is_owner(node.node, partition)
    };
    let partitions = || (0..after.partitions()).map(Partition);
    let mut moves = (0, 0);
    for (node, load) in after.rows().iter().zip(after.loads()) {
        let had = partitions().filter(|partition| held(before, node, *partition)).count();
        let got = partitions().filter(|p| held(after, node, *p) && !held(before, node, *p)).count();
        moves.0 += got;
        moves.1 += (load as usize).saturating_sub(had);
    }
    moves
}

/// Every layout that keeps the rules, as long as there are few.
fn all_lawful(before: &Layout, rows: &[LayoutRow], wanted: Wanted) -> Vec<Layout> {
    let mut sorted = rows.to_vec();
    sorted.sort_by_key(|row| row.node);
    let copies = rows.len().min(usize::from(wanted.n)) as u32;
    let subsets: Vec<Vec<u16>> = (0..1_u32 << rows.len())
        .filter(|subset| subset.count_ones() == copies)
        .map(|subset| (0..rows.len() as u16).filter(|row| subset >> row & 1 == 1).collect())
        .collect();
    let mut placements = vec![vec![]];
    for _ in 0..before.partitions() {
        let longer =
            |placed: &Vec<u16>| subsets.iter().map(|owners| [&placed[..], owners].concat()).collect::<Vec<_>>();
        placements = placements.iter().flat_map(longer).collect();
    }
    let layout = |owners| Layout::of(before.stamp().number + 1, wanted, sorted.clone(), owners);
    placements.into_iter().map(layout).filter(is_lawful).collect()
}

/// The rules once more, said in another way: loads are near the fair level, which is searched for.
fn is_lawful(layout: &Layout) -> bool {
    let (partitions, copies) = (f64::from(layout.partitions()), layout.copies());
    let names: BTreeSet<&str> = layout.rows().iter().map(|row| &*row.zone).collect();
    let needed = names.len().min(copies);
    let spans = |partition| {
        let zones = layout.owner_rows(partition).iter().map(|row| &layout.rows()[usize::from(*row)].zone);
        zones.collect::<BTreeSet<_>>().len()
    };
    let members = |zone: &str| layout.rows().iter().filter(|row| &*row.zone == zone).cloned().collect::<Vec<_>>();
    let weight = |rows: &[LayoutRow]| f64::from(rows.iter().map(|row| row.weight).sum::<u32>());
    let zones: Vec<(f64, f64, f64)> = names
        .iter()
        .map(|zone| {
            let rows = members(zone);
            let most = partitions * rows.len().min(copies - needed + 1) as f64;
            (weight(&rows), if names.len() <= copies { partitions } else { 0.0 }, most)
        })
        .collect();
    let parts = levelled(partitions * copies as f64, &zones);
    let loads = layout.loads();
    let near = |row: &LayoutRow, share: f64| {
        let at = layout.rows().iter().position(|other| other == row).unwrap();
        (f64::from(loads[at]) - share).abs() < 1.0 - 1e-9
    };
    (0..layout.partitions()).all(|partition| spans(Partition(partition)) == needed)
        && names.iter().zip(parts).all(|(zone, part)| {
            let rows = members(zone);
            let claims: Vec<_> = rows.iter().map(|row| (f64::from(row.weight), 0.0, partitions)).collect();
            rows.iter().zip(levelled(part, &claims)).all(|(row, share)| near(row, share))
        })
}

/// Weights times a level, held within bounds; the level is found by halving.
fn levelled(total: f64, claims: &[(f64, f64, f64)]) -> Vec<f64> {
    let at = |level: f64| claims.iter().map(move |(weight, least, most)| (level * weight).clamp(*least, *most));
    let (mut low, mut high) = (0.0, total + 1.0);
    for _ in 0..200 {
        let level = (low + high) / 2.0;
        if at(level).sum::<f64>() < total { low = level } else { high = level }
    }
    at(high).collect()
}

fn small_rows() -> impl Strategy<Value = Vec<LayoutRow>> {
    let node = (0..3_u8, prop_oneof![3 => Just(1_u32), 1 => 1..6_u32]);
    (prop::collection::btree_map(0..6_u64, node, 1..=5), any::<bool>()).prop_map(|(nodes, has_zones)| {
        let zone = |zone: u8| if has_zones { format!("zone-{zone}") } else { String::new() };
        nodes.into_iter().map(|(node, (in_zone, weight))| row(node, &zone(in_zone), weight)).collect()
    })
}

/// Rows of any number of nodes, zones and weights.
fn any_rows(nodes_max: u64) -> impl Strategy<Value = Vec<LayoutRow>> {
    let picks = prop::collection::vec((any::<bool>(), 0..1_000_u64, 1..8_u32), nodes_max as usize);
    (picks, 1..=nodes_max, prop_oneof![Just(1_u64), 2..6_u64, Just(1_000)], any::<bool>()).prop_map(
        |(picks, nodes, zones, is_weighted)| {
            let picked = picks.into_iter().enumerate().filter(|(at, (is_in, ..))| *at == 0 || *is_in);
            let row = |(at, (_, zone, weight)): (usize, (bool, u64, u32))| {
                row(at as u64, &format!("zone-{}", zone % zones), if is_weighted { weight } else { 1 })
            };
            picked.take(nodes as usize).map(row).collect()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn no_lawful_placement_moves_less_than_the_next_layout(
        first in small_rows(), second in small_rows(), n in 1..=3_u8, partitions in 0..=2_u32,
    ) {
        let partitions = 1 << partitions;
        let before = Layout::founding(partitions, wanted(n), row(0, "", 1)).next(first, wanted(n));
        let after = before.next(second.clone(), wanted(n));
        let lawful = all_lawful(&before, &second, wanted(n));
        prop_assert!(!lawful.is_empty(), "there is always one");
        prop_assert!(is_lawful(&after));
        let fewest = lawful.iter().map(|layout| moves(&before, layout).0).min().unwrap();
        prop_assert_eq!(moves(&before, &after).0, fewest);
    }

    #[test]
    fn a_check_finds_what_the_twin_of_the_rules_finds(
        rows in small_rows(), n in 1..=3_u8, owners in prop::collection::vec(0..5_u16, 12),
    ) {
        let next = founded(4).next(rows.clone(), wanted(n));
        let mut guess: Vec<u16> = next.all_owners().to_vec();
        guess.iter_mut().zip(owners).for_each(|(owner, other)| {
            if other == 0 {
                *owner = (*owner + 1) % rows.len() as u16;
            }
        });
        let guess = Layout::of(2, wanted(n), next.rows().to_vec(), guess);
        if guess.check_structure().is_ok() {
            prop_assert_eq!(guess.check(Some(&founded(4))).is_ok(), is_lawful(&guess));
        }
    }

    /// `next` checks what it returns, so these prove the rules as well.
    #[test]
    fn clusters_of_any_kind_follow_each_other(
        kinds in prop::collection::vec((any_rows(60), 1..=5_u8), 1..5), partitions in 3..=8_u32,
    ) {
        let mut layout = founded(1 << partitions);
        for (rows, n) in kinds {
            let next = layout.next(rows.clone(), wanted(n));
            let mut backwards = rows;
            backwards.reverse();
            prop_assert_eq!(&next, &layout.next(backwards, wanted(n)), "whatever the order of the rows");
            prop_assert!(firsts_are_even(&next));
            layout = next;
        }
    }
}

fn firsts_are_even(layout: &Layout) -> bool {
    let mut firsts = vec![0; layout.rows().len()];
    layout.all_owners().iter().step_by(layout.copies()).for_each(|row| firsts[usize::from(*row)] += 1);
    let copies = layout.copies() as u32;
    firsts.iter().zip(layout.loads()).all(|(&firsts, load)| (load / copies..=load.div_ceil(copies)).contains(&firsts))
}

#[test]
fn nothing_moves_when_nothing_changes() {
    for (nodes, zones) in [(1, 1), (3, 1), (7, 3), (50, 5), (64, 64)] {
        let layout = founded(1_024).next(rows(0..nodes, zones), WANTED);
        let same = layout.next(rows(0..nodes, zones), WANTED);
        assert_eq!((same.all_owners(), same.stamp().number), (layout.all_owners(), 3), "{nodes} nodes");
    }
}

#[test]
fn clusters_grow_and_shrink_by_what_must_move() {
    for zones in [1, 3, 7, 1_000] {
        let mut layout = founded(256);
        for nodes in [2, 3, 4, 5, 6, 9, 20, 21, 50, 49, 30, 29, 10, 7, 4, 3, 2] {
            let next = layout.next(rows(0..nodes, zones), WANTED);
            let (moved, least) = moves(&layout, &next);
            assert_eq!(moved, least, "{nodes} nodes, {zones} zones: no more than the loads ask for");
            layout = next;
        }
    }
}

#[test]
fn a_node_with_another_data_directory_holds_nothing_yet() {
    let before = founded(64).next(rows(0..3, 1), WANTED);
    let mut replaced = rows(0..3, 1);
    replaced[1].incarnation = 77;
    let after = before.next(replaced, WANTED);
    assert_eq!(moves(&before, &after).0, 64);
}

#[test]
fn those_that_stay_keep_their_order_behind_the_first() {
    let before = founded(256).next(rows(0..10, 1), WANTED);
    let after = before.next(rows(0..11, 1), WANTED);
    for partition in (0..256).map(Partition) {
        let place = |node: NodeId| before.owners(partition).position(|owner| owner == node);
        let places: Vec<Option<usize>> = after.owners(partition).skip(1).map(place).collect();
        let stayed: Vec<usize> = places.iter().flatten().copied().collect();
        assert!(stayed.is_sorted(), "{partition}: {places:?}");
    }
}

#[test]
fn zones_come_before_weights_and_weights_before_nothing() {
    let loads = |layout: &Layout, nodes: &[LayoutRow]| -> Vec<u32> {
        let at = |row: &LayoutRow| layout.rows().iter().position(|other| other.node == row.node).unwrap();
        nodes.iter().map(|row| layout.loads()[at(row)]).collect()
    };
    // Copies are 3 * 64 = 192 throughout.
    let by_weight = [row(0, "", 1), row(1, "", 1), row(2, "", 2), row(3, "", 2)];
    assert_eq!(loads(&founded(64).next(by_weight.to_vec(), WANTED), &by_weight), [32, 32, 64, 64]);
    let beyond_all = [row(0, "", 1), row(1, "", 1), row(2, "", 1), row(3, "", 100)];
    let mut capped = loads(&founded(64).next(beyond_all.to_vec(), WANTED), &beyond_all);
    assert_eq!(capped[3], 64, "no node holds a partition twice");
    capped.sort_unstable();
    assert_eq!(capped, [42, 43, 43, 64]);
    let small_zone = [row(0, "a", 1), row(1, "b", 1), row(2, "c", 1), row(3, "c", 1)];
    assert_eq!(loads(&founded(64).next(small_zone.to_vec(), WANTED), &small_zone), [64, 64, 32, 32]);
    let scarce = [row(0, "a", 1), row(1, "b", 1), row(2, "b", 1), row(3, "b", 1), row(4, "b", 4)];
    let of_scarce = loads(&founded(64).next(scarce.to_vec(), WANTED), &scarce);
    assert_eq!((of_scarce[0], of_scarce[4]), (64, 64), "one copy of each is in the small zone");
}

#[test]
fn a_node_that_is_gone_is_made_up_for_by_many() {
    let layout = founded(1_024).next(rows(0..100, 1), WANTED);
    for row in layout.rows() {
        let with = |partition: &Partition| layout.is_owner(row.node, *partition);
        let shared = (0..1_024).map(Partition).filter(with).flat_map(|partition| layout.owners(partition));
        let others = shared.collect::<BTreeSet<_>>().len() - 1;
        assert!(25 <= others, "{} shares its partitions with {others} nodes only", row.node);
    }
}

#[test]
fn five_hundred_nodes_are_placed_and_follow_changes() {
    let mut layout = founded(1_024);
    for (nodes, zones) in [(0..500, 1), (0..499, 1), (3..500, 1), (0..500, 5), (0..500, 1_000)] {
        layout = layout.next(rows(nodes, zones), WANTED);
    }
    assert!(firsts_are_even(&layout));
}

#[test]
fn a_layout_and_its_hash_never_change() {
    let nodes = vec![row(0, "a", 1), row(1, "b", 2), row(2, "b", 1), row(3, "c", 3), row(4, "d", 1)];
    let layout = founded(16).next(nodes, WANTED);
    let owners: Vec<String> = layout.all_owners().iter().map(u16::to_string).collect();
    assert_eq!(
        (owners.concat(), layout.stamp().hash),
        ("402412402034034142204043143412421341341204204421".to_owned(), 0x7e95_3bbd_f6d0_f9f0)
    );
}

#[test]
fn each_rule_is_told_with_what_breaks_it() {
    let good = founded(4).next(rows(0..4, 1), WANTED);
    let with = |change: fn(&mut Vec<LayoutRow>, &mut Vec<u16>, &mut Wanted)| {
        let (mut rows, mut owners, mut wanted) = (good.rows().to_vec(), good.all_owners().to_vec(), WANTED);
        change(&mut rows, &mut owners, &mut wanted);
        let stamp = Layout::of(2, wanted, rows.clone(), owners.clone()).stamp();
        Layout::from_parts(stamp, wanted, rows, owners).and_then(|layout| layout.check(Some(&founded(4)))).unwrap_err()
    };
    let node = |at: usize| good.rows()[at].node;

    assert_eq!(with(|rows, _, _| rows.clear()), Unruly::Nodes { nodes: 0 });
    assert_eq!(with(|rows, _, _| rows.swap(1, 2)), Unruly::Order { node: node(1) });
    assert_eq!(with(|rows, _, _| rows[1] = rows[0].clone()), Unruly::Order { node: node(0) });
    assert_eq!(with(|rows, _, _| rows[3].weight = 0), Unruly::Weight { node: node(3), weight: 0 });
    let long = with(|rows, _, _| rows[0].zone = "z".repeat(65).into());
    assert_eq!(long, Unruly::ZoneName { node: node(0), bytes: 65 });
    assert_eq!(with(|_, _, wanted| wanted.n = 0), Unruly::Wanted { n: 0, r: 2, w: 2 });
    assert_eq!(with(|_, _, wanted| wanted.w = 4), Unruly::Wanted { n: 3, r: 2, w: 4 });
    assert_eq!(with(|_, owners, _| owners.truncate(9)), Unruly::Owners { owners: 9, copies: 3 });
    assert_eq!(with(|_, owners, _| owners.clear()), Unruly::Owners { owners: 0, copies: 3 });
    assert_eq!(with(|_, owners, _| owners[5] = 4), Unruly::Row { partition: Partition(1), row: 4, rows: 4 });
    let twice = with(|_, owners, _| owners[4] = owners[3]);
    assert!(matches!(twice, Unruly::Twice { partition: Partition(1), .. }), "{twice}");
    let zones = with(|rows, _, _| (0..4).for_each(|at| rows[at].zone = ["a", "a", "b", "c"][at].into()));
    assert!(matches!(zones, Unruly::Zones { found: 2, needed: 3, .. }), "{zones}");
    let load = with(|rows, _, _| rows[0].weight = 2);
    assert!(matches!(load, Unruly::Load { .. }), "{load}");

    let third = good.next(rows(0..4, 1), WANTED);
    assert_eq!(third.check(Some(&founded(4))), Err(Unruly::Number { found: 3, before: 1 }));
    assert_eq!(third.check(None), Ok(()), "one that comes from nowhere may have any number");
    assert_eq!(good.check(Some(&founded(8))), Err(Unruly::Partitions { found: 4, before: 8 }));
    let mut stamp = good.stamp();
    stamp.hash ^= 1;
    let forged = Layout::from_parts(stamp, WANTED, good.rows().to_vec(), good.all_owners().to_vec());
    assert_eq!(forged, Err(Unruly::Hash { said: stamp.hash, found: good.stamp().hash }));
}

#[test]
fn of_two_layouts_the_higher_number_wins_then_the_lower_hash() {
    let stamp = |number, hash| LayoutStamp { number, hash };
    assert!(stamp(3, 9).is_newer_than(stamp(2, 1)));
    assert!(stamp(2, 1).is_newer_than(stamp(2, 9)));
    assert!(!stamp(2, 9).is_newer_than(stamp(2, 9)));
}

fn view(liveness: impl Fn(u64) -> Liveness) -> View {
    let layout = founded(64).next(rows(0..6, 1), WANTED);
    let member = |at: u64| Member {
        node: row(at, "", 1).node,
        name: format!("node-{at}").into(),
        incarnation: 0,
        is_removed: false,
        address: ([127, 0, 0, 1], 7_600).into(),
        http: ([127, 0, 0, 1], 7_601).into(),
        cores: Cores { count: 2, salt: at },
        liveness: liveness(at),
    };
    let mut members: Vec<Member> = (0..7).map(member).collect();
    members.sort_by_key(|member| member.node);
    View { me: row(0, "", 1).node, epoch: 1, layout: layout.into(), change: None, members }
}

#[test]
fn a_node_is_up_until_it_is_known_to_be_down() {
    let view = view(|at| [Liveness::Down, Liveness::Up, Liveness::Suspect, Liveness::Down][at.min(3) as usize]);
    let is_up = |at| view.is_up(row(at, "", 1).node);
    assert!(is_up(0), "this node, whatever others say");
    assert!(is_up(1) && is_up(2));
    assert!(!is_up(3) && !is_up(99), "and a stranger is not");
}

#[test]
fn fallbacks_are_all_others_of_the_layout_in_an_order_of_the_partition() {
    let view = view(|_| Liveness::Up);
    let mut orders = BTreeSet::new();
    let mut bests = BTreeSet::new();
    for partition in (0..64).map(Partition) {
        let fallbacks = view.fallbacks(partition);
        let mut all: Vec<NodeId> = fallbacks.iter().copied().chain(view.layout.owners(partition)).collect();
        all.sort_unstable();
        assert_eq!(all, view.layout.rows().iter().map(|row| row.node).collect::<Vec<_>>());
        bests.insert(fallbacks[0]);
        orders.insert(fallbacks);
    }
    assert_eq!(bests.len(), 6, "everyone is the best one for some");
    assert!(20 <= orders.len(), "{} orders of 64 partitions", orders.len());
}

/// The table of docs/ARCHITECTURE.md is what is computed.
#[test]
fn the_documented_loads_and_moves_are_those_of_today() {
    let documented = include_str!("../../../docs/ARCHITECTURE.md");
    let cluster = |nodes| founded(1_024).next(rows(0..nodes, 1), WANTED);
    let mut missing = vec![];
    for nodes in [3, 4, 5, 6, 7, 10, 20, 50, 100] {
        let layout = cluster(nodes);
        let range = |counts: &[u32]| {
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            if least == most { format!("{least}") } else { format!("{least} to {most}") }
        };
        let mut firsts = vec![0; layout.rows().len()];
        layout.all_owners().iter().step_by(layout.copies()).for_each(|row| firsts[usize::from(*row)] += 1);
        let grown = layout.next(rows(0..nodes + 1, 1), WANTED);
        let shrunk = layout.next(rows(1..nodes, 1), WANTED);
        let (joined, left) = (moves(&layout, &grown), moves(&layout, &shrunk));
        assert_eq!((joined.0, left.0), (joined.1, left.1), "no more than the loads ask for");
        let part = joined.0 as f64 / 30.72;
        let (loads, firsts) = (range(&layout.loads()), range(&firsts));
        let line = format!("| {nodes} | {loads} | {firsts} | {} ({part:.1} %) | {} |", joined.0, left.0);
        if documented.lines().all(|documented| documented != line) {
            missing.push(line);
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
