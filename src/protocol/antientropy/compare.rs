//! Every few seconds each core compares all that it shares with a core of another node: one digest, which equal copies
//! answer in a few bytes. What differs is looked at again a little later, when what was under way has come.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::forest::{Sum, digest_of_roots};
use super::work::{LookId, Peering, Surveying};
use crate::protocol::asks::About;
use crate::protocol::config::{COMPARE_AGAIN, COMPARES_MAX};
use crate::protocol::io::{Effects, Survey};
use crate::protocol::peer::{Ask, Compare, Told, Unheard};
use crate::protocol::ring::Partition;
use crate::protocol::shard::Shard;
use crate::protocol::stats::Stats;
use crate::protocol::types::{Instant, NodeId, Now};

/// What is shared with others, and where it differs.
#[derive(Debug, Default)]
pub(super) struct Comparing {
    groups: BTreeMap<Peering, Group>,
    differing: BTreeMap<(Partition, NodeId), Differing>,
    /// Partitions that lost a hint and are synced for it.
    suspects: BTreeSet<Partition>,
    /// Nothing is shared with anybody, since then.
    is_alone: bool,
    looked_at: Instant,
}

/// What this core shares with one core of another node.
#[derive(Debug)]
struct Group {
    /// They ascend; at least one.
    partitions: Arc<[Partition]>,
    due: Instant,
    /// When what differed is looked at again.
    again: Option<Instant>,
    look: Option<Look>,
    /// When all of them were last equal, or had been made so.
    agreed_at: Option<Instant>,
}

/// A comparison under way.
#[derive(Debug)]
struct Look {
    id: LookId,
    partitions: Arc<[Partition]>,
    /// Of what differed in the first.
    is_second: bool,
    begun: Instant,
    roots: Vec<u64>,
}

/// A partition that another owner holds otherwise, as far as is known.
#[derive(Clone, Copy, Debug)]
struct Differing {
    since: Instant,
    doubt: Doubt,
    not_before: Instant,
}

/// How sure that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// Nobody has seen it; a hint was lost.
    Suspected,
    /// It was seen once.
    Seen,
    /// It was there still a little later.
    Confirmed,
}

impl Comparing {
    pub(super) fn count(&self, stats: Stats) -> Stats {
        let seen = || self.differing.values().filter(|differing| differing.doubt != Doubt::Suspected);
        let agreed = self.groups.values().map(|group| group.agreed_at).min();
        Stats {
            partitions_marked: stats.partitions_marked + self.suspects.len() as u64,
            partitions_differing: seen().count() as u64,
            differing_since: seen().map(|differing| differing.since).min(),
            agreed_at: if self.is_alone { Some(self.looked_at) } else { agreed.flatten() },
            ..stats
        }
    }

    /// What is to be synced with whom: first where a hint was lost. Both of a pair begin, at opposite ends: where they
    /// have met, whoever comes second finds nothing to do.
    pub(super) fn due(&self, me: NodeId, now: Instant) -> impl Iterator<Item = (Partition, NodeId)> {
        let is_due = move |differing: &&Differing| differing.doubt != Doubt::Seen && differing.not_before <= now;
        let of = move |is_suspected: bool, is_higher: bool| {
            let is_it = move |at: &&Differing| is_due(at) && (at.doubt == Doubt::Suspected) == is_suspected;
            let mine = self.differing.iter().filter(move |((_, with), at)| is_it(at) && (me < *with) == is_higher);
            mine.map(|(at, _)| *at)
        };
        let all = move |is_suspected| of(is_suspected, true).chain(of(is_suspected, false).rev());
        all(true).chain(all(false))
    }

    /// A sync has ended. True where nothing of the partition is left to be synced.
    pub(super) fn on_ended(&mut self, at: (Partition, NodeId), is_done: bool, begun: Instant, again: Instant) -> bool {
        if !is_done {
            if let Some(differing) = self.differing.get_mut(&at) {
                differing.not_before = again;
            }
            return false;
        }
        self.differing.remove(&at);
        let differs = |partition: &Partition| self.differing.contains_key(&(*partition, at.1));
        let groups = self.groups.iter_mut().filter(|((node, _), group)| {
            *node == at.1 && group.partitions.contains(&at.0) && !group.partitions.iter().any(differs)
        });
        groups.for_each(|(_, group)| group.agreed_at = Some(begun));
        !self.differing.keys().any(|(partition, _)| *partition == at.0)
    }
}

/// Whether a peer holds the same of these partitions, all of one core of it, and the first of them.
pub(super) fn question(partitions: &Arc<[Partition]>, roots: &[u64]) -> (Ask, Partition) {
    let digest = digest_of_roots(roots.iter().copied());
    (Ask::Compare(Compare { partitions: Arc::clone(partitions), digest }), partitions[0])
}

/// The roots that a peer has, by what it says beside these.
pub(super) fn roots_told(told: Result<Told, Unheard>, mine: &[u64]) -> Option<Vec<u64>> {
    match told {
        Ok(Told::Same) => Some(mine.to_vec()),
        Ok(Told::Digests(roots)) if roots.len() == mine.len() => Some(roots),
        _ => None,
    }
}

impl Shard {
    /// All partitions of this core.
    pub(super) fn partitions_of_core(&self) -> impl Iterator<Item = Partition> {
        let cores = self.view.member(self.view.me).map(|member| member.cores);
        let all = (0..self.ring.partitions()).map(Partition);
        all.filter(move |partition| cores.is_some_and(|cores| cores.of(*partition) == self.core))
    }

    /// The view has changed: what is shared with whom?
    pub(super) fn plan_comparisons(&mut self, now: Now) {
        let (view, me) = (Arc::clone(&self.view), self.view.me);
        let mut shared = BTreeMap::<Peering, Vec<Partition>>::new();
        for partition in self.partitions_of_core().filter(|partition| view.layout.is_owner(me, *partition)) {
            for owner in view.layout.owners(partition).filter(|owner| *owner != me) {
                if let Some(member) = view.member(owner).filter(|member| !member.is_removed) {
                    shared.entry((owner, member.cores.of(partition))).or_default().push(partition);
                }
            }
        }
        let (period, seed) = (self.trees.tuning.compare_period, self.trees.seed);
        let mut before = std::mem::take(&mut self.trees.comparing.groups);
        let group = |(peering, partitions): (Peering, Vec<Partition>)| {
            let kept = before.remove(&peering).filter(|group| *group.partitions == *partitions);
            let group = kept.unwrap_or_else(|| Group {
                partitions: partitions.into(),
                due: now.instant + spread(period, seed, me, peering),
                again: None,
                look: None,
                agreed_at: None,
            });
            (peering, group)
        };
        let groups: BTreeMap<Peering, Group> = shared.into_iter().map(group).collect();
        let comparing = &mut self.trees.comparing;
        comparing.is_alone = groups.is_empty();
        comparing.groups = groups;
        let Comparing { groups, differing, suspects, .. } = comparing;
        let is_shared = |partition, node| {
            groups
                .iter()
                .any(|((other, _), group)| *other == node && group.partitions.binary_search(&partition).is_ok())
        };
        differing.retain(|(partition, node), _| is_shared(*partition, *node));
        suspects.retain(|partition| differing.keys().any(|(other, _)| other == partition));
    }

    /// Begins comparisons that are due, and lets partitions that lost a hint be synced.
    pub(super) fn compare_what_is_due(&mut self, now: Now, effects: &mut Effects) {
        self.suspect_the_marked(now);
        self.trees.comparing.looked_at = now.instant;
        if self.is_hollow() {
            return;
        }
        let under_way = self.trees.comparing.groups.values().filter(|group| group.look.is_some()).count();
        let is_due = |group: &Group| group.look.is_none() && group.next_look() <= now.instant;
        let due = self.trees.comparing.groups.iter().filter(|((node, _), group)| {
            is_due(group) && self.is_reachable(*node) && self.view.is_whole(&self.view.layout, *node)
        });
        let due: Vec<Peering> = due.map(|(peering, _)| *peering).take(COMPARES_MAX.saturating_sub(under_way)).collect();
        for peering in due {
            self.begin_look(now, peering, effects);
        }
    }

    fn begin_look(&mut self, now: Now, peering: Peering, effects: &mut Effects) {
        self.trees.looks_begun += 1;
        let id = LookId(peering, self.trees.looks_begun);
        let Comparing { groups, differing, .. } = &mut self.trees.comparing;
        let Some(group) = groups.get_mut(&peering) else { return };
        let is_second = group.again.take_if(|again| *again <= now.instant).is_some();
        let is_seen = |partition: &&Partition| {
            differing.get(&(**partition, peering.0)).is_some_and(|differing| differing.doubt == Doubt::Seen)
        };
        let partitions: Arc<[Partition]> = match is_second {
            true => group.partitions.iter().filter(is_seen).copied().collect(),
            false => Arc::clone(&group.partitions),
        };
        if partitions.is_empty() {
            return;
        }
        let roots = Vec::new();
        group.look = Some(Look { id, partitions: Arc::clone(&partitions), is_second, begun: now.instant, roots });
        self.survey(Surveying::Group(id), Survey::Sums(partitions), effects);
    }

    /// What is held here is known: the peer is asked whether it holds the same.
    pub(super) fn compare(&mut self, now: Now, id: LookId, sums: &[Sum], effects: &mut Effects) {
        let LookId(peering, _) = id;
        let group = self.trees.comparing.groups.get_mut(&peering);
        // Of a group that has changed meanwhile another look is under way, or none.
        let Some(look) = group.and_then(|group| group.look.as_mut()).filter(|look| look.id == id) else { return };
        look.roots = sums.iter().map(|sum| sum.root).collect();
        let (ask, first) = question(&look.partitions, &look.roots);
        self.ask(now, peering.0, first, ask, About::Same(id), effects);
    }

    /// The peer says whether it holds the same.
    pub(in crate::protocol) fn on_compared(&mut self, now: Now, id: LookId, told: Result<Told, Unheard>) {
        let period = self.trees.tuning.compare_period;
        let Comparing { groups, differing, .. } = &mut self.trees.comparing;
        let LookId(peering, _) = id;
        let Some(group) = groups.get_mut(&peering) else { return };
        let Some(look) = group.look.take_if(|look| look.id == id) else { return };
        if !look.is_second {
            group.due = now.instant + period;
        }
        let Some(roots) = roots_told(told, &look.roots) else { return };
        if !look.is_second {
            self.stats.comparisons += 1;
            self.stats.comparisons_equal += u64::from(roots == look.roots);
        }
        for (partition, (mine, theirs)) in look.partitions.iter().zip(look.roots.iter().zip(&roots)) {
            let at = (*partition, peering.0);
            if mine == theirs {
                differing.remove(&at);
                continue;
            }
            let seen = differing.entry(at).or_insert(Differing {
                since: look.begun,
                doubt: Doubt::Seen,
                not_before: Instant::default(),
            });
            if look.is_second && seen.doubt == Doubt::Seen {
                seen.doubt = Doubt::Confirmed;
                self.stats.partitions_differed += 1;
            }
        }
        let doubt = |partition: &Partition| differing.get(&(*partition, peering.0)).map(|differing| differing.doubt);
        if group.partitions.iter().all(|partition| doubt(partition).is_none()) {
            group.agreed_at = Some(look.begun);
        } else if group.partitions.iter().any(|partition| doubt(partition) == Some(Doubt::Seen)) {
            // Looks that come more often than this do not put it off.
            group.again.get_or_insert(now.instant + COMPARE_AGAIN);
        }
    }

    /// Partitions that lost a hint are synced with all their owners, whatever the trees say next.
    fn suspect_the_marked(&mut self, now: Now) {
        let view = Arc::clone(&self.view);
        let is_owned = |partition: &Partition| view.layout.is_owner(view.me, *partition);
        let owned: Vec<Partition> = self.marked.iter().copied().filter(is_owned).collect();
        for partition in owned {
            self.marked.remove(&partition);
            for owner in view.layout.owners(partition).filter(|owner| *owner != view.me) {
                self.trees.comparing.suspects.insert(partition);
                let suspected = Differing { since: now.instant, doubt: Doubt::Suspected, not_before: now.instant };
                let differing = self.trees.comparing.differing.entry((partition, owner)).or_insert(suspected);
                differing.doubt = if differing.doubt == Doubt::Seen { Doubt::Confirmed } else { differing.doubt };
            }
        }
    }

    pub(super) fn on_suspect_ended(&mut self, partition: Partition, is_clean: bool) {
        if is_clean {
            self.trees.comparing.suspects.remove(&partition);
        }
    }
}

impl Group {
    fn next_look(&self) -> Instant {
        self.again.map_or(self.due, |again| again.min(self.due))
    }
}

/// A part of the period that differs from core to core.
fn spread(period: Duration, seed: u64, me: NodeId, (peer, core): Peering) -> Duration {
    let bytes = [seed, me.0, peer.0, core.0.into()].map(u64::to_le_bytes).concat();
    let micros = u64::try_from(period.as_micros()).unwrap_or(u64::MAX).max(1);
    Duration::from_micros(seahash::hash(&bytes) % micros)
}
