//! The order of owners: the first of a partition coordinates its requests in the usual case, so that every node shall
//! be the first of its part of what it owns. Nothing moves for that.

use std::collections::{BTreeSet, VecDeque};

/// Puts another owner first where a node is the first of too many or too few: each is of what it owns divided by the
/// copies, rounded down or up. That can always be had, for the reason that `share` gives. The others keep their order.
pub(super) fn even_firsts(owners: &mut [Vec<u16>], nodes: usize) {
    let mut firsts = Firsts::of(owners, nodes);
    firsts.even();
    for (owners, first) in owners.iter_mut().zip(firsts.first) {
        let at = owners.iter().position(|owner| usize::from(*owner) == first).expect("the first is an owner");
        owners[..=at].rotate_right(1);
    }
}

struct Firsts {
    owners: Vec<Vec<usize>>,
    /// The first owner of each partition.
    first: Vec<usize>,
    /// The partitions that each node owns.
    owned: Vec<Vec<usize>>,
    /// Those of which it is the first owner.
    first_of: Vec<BTreeSet<usize>>,
}

/// A change of the first owner of a partition that leads to one end.
#[derive(Clone, Copy)]
struct Change {
    partition: usize,
    giver: usize,
    taker: usize,
}

impl Firsts {
    fn of(owners: &[Vec<u16>], nodes: usize) -> Firsts {
        let owners: Vec<Vec<usize>> =
            owners.iter().map(|owners| owners.iter().map(|owner| usize::from(*owner)).collect()).collect();
        let first: Vec<usize> = owners.iter().map(|owners| owners[0]).collect();
        let (mut owned, mut first_of) = (vec![Vec::new(); nodes], vec![BTreeSet::new(); nodes]);
        for (partition, owners) in owners.iter().enumerate() {
            owners.iter().for_each(|owner| owned[*owner].push(partition));
            first_of[owners[0]].insert(partition);
        }
        Firsts { owners, first, owned, first_of }
    }

    fn even(&mut self) {
        for node in 0..self.owned.len() {
            while self.most(node) < self.count(node) {
                self.hand_on(node);
            }
        }
        for node in 0..self.owned.len() {
            while self.count(node) < self.least(node) {
                self.receive(node);
            }
        }
    }

    fn copies(&self) -> usize {
        self.owners[0].len()
    }

    fn count(&self, node: usize) -> usize {
        self.first_of[node].len()
    }

    fn least(&self, node: usize) -> usize {
        self.owned[node].len() / self.copies()
    }

    fn most(&self, node: usize) -> usize {
        self.owned[node].len().div_ceil(self.copies())
    }

    /// Makes the node the first of one less, and one that has room of one more, by the fewest changes.
    fn hand_on(&mut self, node: usize) {
        let mut reached: Vec<Option<Change>> = vec![None; self.owned.len()];
        let mut waiting = VecDeque::from([node]);
        while let Some(giver) = waiting.pop_front() {
            for &partition in &self.first_of[giver] {
                for &taker in self.owners[partition].iter().filter(|taker| **taker != giver) {
                    if taker == node || reached[taker].is_some() {
                        continue;
                    }
                    reached[taker] = Some(Change { partition, giver, taker });
                    if self.count(taker) < self.most(taker) {
                        return self.change(&reached, node, taker, |change| change.giver);
                    }
                    waiting.push_back(taker);
                }
            }
        }
        unreachable!("firsts can be had in fractions, so they can in whole numbers");
    }

    /// Makes the node the first of one more, and one that can spare it of one less, by the fewest changes.
    fn receive(&mut self, node: usize) {
        let mut reached: Vec<Option<Change>> = vec![None; self.owned.len()];
        let mut waiting = VecDeque::from([node]);
        while let Some(taker) = waiting.pop_front() {
            for &partition in &self.owned[taker] {
                let giver = self.first[partition];
                if giver == node || giver == taker || reached[giver].is_some() {
                    continue;
                }
                reached[giver] = Some(Change { partition, giver, taker });
                if self.least(giver) < self.count(giver) {
                    return self.change(&reached, node, giver, |change| change.taker);
                }
                waiting.push_back(giver);
            }
        }
        unreachable!("firsts can be had in fractions, so they can in whole numbers");
    }

    /// Makes all changes from the end of a way back to its beginning.
    fn change(&mut self, reached: &[Option<Change>], node: usize, end: usize, back: fn(Change) -> usize) {
        let mut at = end;
        while at != node {
            let change = reached[at].expect("the way led here");
            self.first_of[change.giver].remove(&change.partition);
            self.first_of[change.taker].insert(change.partition);
            self.first[change.partition] = change.taker;
            at = back(change);
        }
    }
}
