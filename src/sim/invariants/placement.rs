//! Every layout that a node goes by gives each partition N distinct owners, in distinct zones where there are enough,
//! and spreads partitions evenly over equal nodes. Counted here once more, not by the rules that nodes judge by.

use std::collections::BTreeSet;

use super::Invariant;
use crate::protocol::ring::{Layout, LayoutStamp, Partition};
use crate::protocol::types::{Instant, NodeId};
use crate::sim::truth::Truth;
use crate::sim::watch::{Complaint, Seen, Verdict, complain};

/// See the module.
#[derive(Default)]
pub(super) struct Placement {
    /// Layouts that were looked at.
    known: BTreeSet<LayoutStamp>,
}

impl Invariant for Placement {
    fn name(&self) -> &'static str {
        "placement"
    }

    fn source(&self) -> &'static str {
        "DESIGN 7: N distinct owners, in distinct zones, evenly by weight"
    }

    fn see(&mut self, truth: &Truth, _now: Instant, seen: &Seen<'_>) -> Verdict {
        let Seen::Viewed { node, view } = seen else { return Ok(()) };
        let known = &mut self.known;
        let all = view.change.iter().flat_map(|change| [&change.stored, &change.pending]).chain([&view.layout]);
        let mut new = all.filter(|layout| known.insert(layout.stamp()));
        new.try_for_each(|layout| lawful(truth, layout))
            .map_err(|complaint| Complaint { what: format!("n{node} goes by it: {}", complaint.what), ..complaint })
    }
}

fn lawful(truth: &Truth, layout: &Layout) -> Verdict {
    if layout.partitions() != truth.ring.partitions() {
        return complain(format!("layout {:?} has {} partitions", layout.stamp(), layout.partitions()));
    }
    spread(layout)?;
    even(layout)
}

fn spread(layout: &Layout) -> Verdict {
    let zones: BTreeSet<&str> = layout.rows().iter().map(|row| &*row.zone).collect();
    let zone_of = |node: &NodeId| layout.rows().iter().find(|row| row.node == *node).map(|row| &*row.zone);
    let copies = layout.rows().len().min(layout.wanted().n.into());
    for partition in (0..layout.partitions()).map(Partition) {
        let owners: BTreeSet<NodeId> = layout.owners(partition).collect();
        let stand_in: BTreeSet<&str> = owners.iter().filter_map(zone_of).collect();
        if owners.len() != copies || stand_in.len() < zones.len().min(copies) {
            return complain(format!("{:?} gives {partition:?} to {owners:?} in {stand_in:?}", layout.stamp()));
        }
    }
    Ok(())
}

fn even(layout: &Layout) -> Verdict {
    let rows = layout.rows();
    if rows.windows(2).any(|pair| (pair[0].weight, &pair[0].zone) != (pair[1].weight, &pair[1].zone)) {
        return Ok(());
    }
    let load = |node: NodeId| (0..layout.partitions()).filter(|n| layout.is_owner(node, Partition(*n))).count();
    let loads: Vec<usize> = rows.iter().map(|row| load(row.node)).collect();
    match (loads.iter().max(), loads.iter().min()) {
        (Some(most), Some(least)) if least + 1 < *most => complain(format!("{:?} loads {loads:?}", layout.stamp())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, layout};
    use super::*;
    use crate::protocol::ring::{LayoutRow, Wanted};

    fn rows(zones: [&str; 3]) -> Vec<LayoutRow> {
        let row =
            |(n, zone): (u64, &&str)| LayoutRow { node: NodeId(n), incarnation: 1, zone: (*zone).into(), weight: 1 };
        (1..).zip(&zones).map(row).collect()
    }

    fn judge(zones: [&str; 3], n: u8, owners: &[u16]) -> Verdict {
        let made = MadeUp::new(1);
        let owners = owners.iter().copied().cycle().take(usize::from(made.truth.ring.partitions()) * usize::from(n));
        lawful(&made.truth, &layout(Wanted { n, r: 1, w: 1 }, rows(zones), owners.collect()))
    }

    #[test]
    fn owners_stand_in_distinct_zones_and_own_as_much() {
        assert_eq!(judge(["", "", ""], 3, &[0, 1, 2]), Ok(()));
        assert_eq!(judge(["a", "a", "b"], 2, &[0, 2]), Ok(()));
        assert!(judge(["a", "a", "b"], 2, &[0, 1]).is_err(), "two of one zone");
        assert!(judge(["", "", ""], 2, &[0, 1]).is_err(), "one owns nothing");
    }
}
