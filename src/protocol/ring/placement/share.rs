//! What each node is to own: its weight's part of all copies, as far as distinct nodes and zones leave it.
//!
//! With K copies of P partitions on nodes in Z zones, each partition stands in min(Z, K) zones. So a zone has at most
//! K - min(Z, K) + 1 copies of one partition, and, where zones are scarce, at least one. The K * P copies are spread
//! over the zones by their weights within these bounds; what a bound takes or leaves is spread over the others. A
//! zone's part is spread over its nodes likewise, each of which holds a partition once. A node's load is its share,
//! rounded down or up.
//!
//! Such loads can always be had: give every node share / P of each partition. That keeps every bound, and bounds in
//! whole numbers that a flow of fractions keeps are kept by one of whole numbers.

use crate::protocol::ring::LayoutRow;

/// Copies that one node is to own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::protocol::ring) struct Share {
    /// At least.
    pub(in crate::protocol::ring) floor: u32,
    /// At most: the same, or one more.
    pub(in crate::protocol::ring) ceil: u32,
}

/// Copies as a fraction.
#[derive(Clone, Copy)]
struct Part {
    numerator: u128,
    denominator: u128,
}

/// One that gets a part by its weight, within bounds.
struct Claim {
    weight: u128,
    least: u128,
    most: u128,
}

/// Zones of one layout, in the order of their names.
pub(in crate::protocol::ring) struct Zones {
    /// The zone of each row.
    pub(in crate::protocol::ring) of: Vec<u16>,
    /// How many there are.
    pub(in crate::protocol::ring) count: usize,
}

impl Zones {
    pub(in crate::protocol::ring) fn of(rows: &[LayoutRow]) -> Zones {
        let mut names: Vec<&str> = rows.iter().map(|row| &*row.zone).collect();
        names.sort_unstable();
        names.dedup();
        let place = |row: &LayoutRow| names.binary_search(&&*row.zone).expect("all names are there");
        let of = rows.iter().map(|row| u16::try_from(place(row)).expect("no more zones than rows"));
        Zones { of: of.collect(), count: names.len() }
    }
}

/// The share of each row.
pub(in crate::protocol::ring) fn shares(
    partitions: u16,
    copies: usize,
    rows: &[LayoutRow],
    zones: &Zones,
) -> Vec<Share> {
    let (once, spread) = (u128::from(partitions), copies.min(zones.count));
    let in_zone = |zone| (0..rows.len()).filter(move |row| usize::from(zones.of[*row]) == zone);
    let zone_claims = (0..zones.count).map(|zone| Claim {
        weight: in_zone(zone).map(|row| u128::from(rows[row].weight)).sum(),
        least: if zones.count <= copies { once } else { 0 },
        most: once * in_zone(zone).count().min(copies - spread + 1) as u128,
    });
    let total = Part { numerator: once * copies as u128, denominator: 1 };
    let mut shares = vec![Share { floor: 0, ceil: 0 }; rows.len()];
    for (zone, part) in spread_by_weight(total, &zone_claims.collect::<Vec<_>>()).into_iter().enumerate() {
        let claims = in_zone(zone).map(|row| Claim { weight: rows[row].weight.into(), least: 0, most: once });
        let parts = spread_by_weight(part, &claims.collect::<Vec<_>>());
        in_zone(zone).zip(parts).for_each(|(row, part)| shares[row] = part.rounded());
    }
    shares
}

/// Each gets its weight's part of what those at their bounds leave: whoever would break a bound is held at it, first on
/// the side where more is broken, until nobody does.
fn spread_by_weight(total: Part, claims: &[Claim]) -> Vec<Part> {
    let mut held: Vec<Option<u128>> = vec![None; claims.len()];
    loop {
        let free = || claims.iter().zip(&held).filter(|(_, held)| held.is_none()).map(|(claim, _)| claim);
        let weight: u128 = free().map(|claim| claim.weight).sum();
        let taken: u128 = held.iter().flatten().sum();
        let left = total.numerator - taken * total.denominator;
        // A part is left * its weight / scale; bounds are compared without dividing.
        let scale = total.denominator * weight;
        let lacking: u128 = free().map(|claim| (claim.least * scale).saturating_sub(left * claim.weight)).sum();
        let beyond: u128 = free().map(|claim| (left * claim.weight).saturating_sub(claim.most * scale)).sum();
        if lacking == 0 && beyond == 0 {
            let part = |(claim, held): (&Claim, &Option<u128>)| match held {
                Some(copies) => Part { numerator: *copies, denominator: 1 },
                None => Part { numerator: left * claim.weight, denominator: scale },
            };
            return claims.iter().zip(&held).map(part).collect();
        }
        for (claim, held) in claims.iter().zip(&mut held).filter(|(_, held)| held.is_none()) {
            let part = left * claim.weight;
            if beyond <= lacking && part < claim.least * scale {
                *held = Some(claim.least);
            }
            if lacking <= beyond && claim.most * scale < part {
                *held = Some(claim.most);
            }
        }
    }
}

impl Part {
    fn rounded(self) -> Share {
        let whole = |copies: u128| u32::try_from(copies).expect("no node holds a partition twice");
        let floor = whole(self.numerator / self.denominator);
        Share { floor, ceil: whole(self.numerator.div_ceil(self.denominator)).max(floor) }
    }
}
