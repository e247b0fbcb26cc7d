//! Handing a request on to somebody who may coordinate it, at most one hop.

use std::collections::VecDeque;

use crate::protocol::asks::About;
use crate::protocol::config::SILENT_FOR;
use crate::protocol::io::{Effects, Held};
use crate::protocol::message::{Failure, Request};
use crate::protocol::peer::{Ask, Refused, Told, Unheard};
use crate::protocol::planted::Bug;
use crate::protocol::ring::{Partition, View};
use crate::protocol::shard::{Asker, Shard, Waiting, Whom};
use crate::protocol::types::{Instant, NodeId, Now, OperationId};

/// A request that somebody else coordinates.
#[derive(Debug)]
pub(in crate::protocol) struct Forwarding {
    request: Request,
    partition: Partition,
    /// Who may coordinate it and was not asked yet, the best first.
    left: VecDeque<NodeId>,
    /// Questions that have no answer yet, and whether there ever was one.
    under_way: usize,
    asked: bool,
    /// The last that was asked.
    last: Option<NodeId>,
    /// While an owner may still answer, nobody mints in its place before this.
    patient_until: Instant,
    /// The R or W that it asks for.
    needed: u8,
    /// Whether this node may coordinate it: it takes no writes where its disk is full.
    is_possible_here: bool,
    /// The last refusal heard.
    refused: Option<Failure>,
}

impl Forwarding {
    pub(in crate::protocol) fn not_met(&self) -> Failure {
        self.refused.clone().unwrap_or(Failure::QuorumNotMet { needed: self.needed, got: 0 })
    }
}

impl Shard {
    /// Coordinates a client's request here, or hands it on.
    pub(in crate::protocol) fn route(
        &mut self,
        now: Now,
        asker: Asker,
        request: Request,
        held: Held,
        effects: &mut Effects,
    ) {
        let partition = self.ring.partition(request.key().expect("all but a listing have a key"));
        match self.coordinates(partition) {
            // An owner that writes no more says so where nobody else can.
            true if self.stopped && request.is_write() => {
                let stopped = Failure::WritesStopped { core: self.core };
                self.hand_on(now, asker, request, Some(stopped), effects);
            }
            true => self.coordinate(now, asker, request, held, effects),
            false => self.hand_on(now, asker, request, None, effects),
        }
    }

    /// Hands a request to another node. Where none can coordinate it, `refused` is the answer.
    pub(in crate::protocol) fn hand_on(
        &mut self,
        now: Now,
        asker: Asker,
        request: Request,
        refused: Option<Failure>,
        effects: &mut Effects,
    ) {
        if !self.has_room() {
            return self.finish(asker.whom, Err(Failure::overloaded()), effects);
        }
        let partition = self.ring.partition(request.key().expect("all but a listing have a key"));
        let is_possible_here = refused.is_none();
        let left = self.coordinators(now, partition, &request, is_possible_here);
        let request = self.named(request);
        let needed = self.needed(&request);
        let forwarding = Forwarding {
            request,
            partition,
            left,
            under_way: 0,
            asked: false,
            last: None,
            patient_until: now.instant + SILENT_FOR,
            needed,
            is_possible_here,
            refused,
        };
        self.stats.forwarded += 1;
        self.wait(asker, Waiting::Forward(Box::new(forwarding)));
        self.forward_on(now, asker.whom, effects);
    }

    /// A peer has handed a request on to us. It goes no further.
    pub(in crate::protocol) fn on_forwarded(
        &mut self,
        now: Now,
        asker: Asker,
        request: Request,
        held: Held,
        effects: &mut Effects,
    ) {
        let Some(key) = request.key().filter(|_| !matches!(request, Request::Siblings(_))) else {
            return self.tell(asker.whom, Told::Refused(Refused::TooLate), effects);
        };
        let (partition, me) = (self.ring.partition(key), self.view.me);
        // Others have made sure that a node in a layout reads by the one that is gone by; nobody waits for the rest.
        let is_able = match request.is_write() {
            true => !request.terms().strict || self.view.is_written(me, partition),
            false => self.view.written().any(|layout| layout.has(me)),
        };
        if !is_able {
            return self.tell(asker.whom, Told::Refused(Refused::Hollow), effects);
        }
        if self.planted.is(Bug::EndlessForward) && self.view.layout.owners(partition).next() != Some(me) {
            return self.hand_on(now, asker, request, None, effects);
        }
        self.coordinate(now, asker, request, held, effects);
    }

    /// Asks the next who may coordinate; with nobody left and nobody under way the request ends.
    pub(in crate::protocol) fn forward_on(&mut self, now: Now, whom: Whom, effects: &mut Effects) {
        let Some((deadline, Waiting::Forward(mut forwarding))) = self.take(whom) else {
            return;
        };
        let asker = Asker { whom, deadline };
        match forwarding.left.pop_front() {
            Some(next) if next == self.view.me => {
                self.coordinate(now, asker, forwarding.request, Held::Unknown, effects);
            }
            Some(next) => {
                let left_ms = u32::try_from(deadline.since(now.instant).as_millis()).unwrap_or(u32::MAX).max(1);
                let mut request = Box::new(forwarding.request.clone());
                let is_write = request.is_write();
                if let Some(terms) = request.terms_mut() {
                    terms.deadline_ms = left_ms;
                    // Whoever was asked before may have done it.
                    terms.retry |= forwarding.asked && is_write;
                }
                (forwarding.asked, forwarding.last) = (true, Some(next));
                let ask = Ask::Forward(request);
                let partition = forwarding.partition;
                forwarding.under_way += 1;
                self.wait(asker, Waiting::Forward(forwarding));
                self.stretch_later(now, whom);
                self.ask(now, next, partition, ask, About::Forward(whom), effects);
            }
            None if forwarding.under_way == 0 => {
                self.stats.quorum_failures += 1;
                let failure = forwarding.not_met();
                self.finish(whom, Err(failure), effects);
            }
            None => self.wait(asker, Waiting::Forward(forwarding)),
        }
    }

    /// It has waited for long: whoever was asked last is silent, and the next is asked as well. A fallback mints beside
    /// what the owners hold, so it is asked once they have been silent for longer.
    pub(in crate::protocol) fn stretch_forward(&mut self, now: Now, whom: Whom, effects: &mut Effects) {
        let Some(Waiting::Forward(forwarding)) = self.waiting_mut(whom) else { return };
        let (partition, is_early) = (forwarding.partition, now.instant < forwarding.patient_until);
        let (last, next) = (forwarding.last, forwarding.left.front().copied());
        // Hops without end that fork at each of them would leave no time for anything else.
        let is_waited_for = 0 < forwarding.under_way;
        if is_waited_for && self.planted.is(Bug::EndlessForward) {
            return;
        }
        if let Some(last) = last.filter(|_| is_waited_for) {
            self.peers.on_silence(last, now.instant);
        }
        match next {
            Some(next) if is_waited_for && is_early && !self.view.layout.is_owner(next, partition) => {
                self.stretch_later(now, whom);
            }
            _ => self.forward_on(now, whom, effects),
        }
    }

    pub(in crate::protocol) fn on_forward_told(
        &mut self,
        now: Now,
        whom: Whom,
        told: Result<Told, Unheard>,
        effects: &mut Effects,
    ) {
        let Some(Waiting::Forward(forwarding)) = self.waiting_mut(whom) else {
            return;
        };
        forwarding.under_way -= 1;
        match told {
            Ok(Told::Outcome(outcome)) if !is_of_one_node(&outcome) => self.answer(whom, *outcome, effects),
            Ok(Told::Refused(Refused::Layout(newer))) => self.go_on_once_known(now, whom, newer, effects),
            other => {
                let refused = match other {
                    Ok(Told::Outcome(outcome)) => outcome.err(),
                    Ok(Told::Refused(Refused::Overloaded)) => Some(Failure::overloaded()),
                    Ok(Told::Refused(Refused::DiskFull)) => Some(Failure::DiskFull),
                    _ => None,
                };
                forwarding.refused = refused.or(forwarding.refused.take());
                self.forward_on(now, whom, effects);
            }
        }
    }

    /// A newer layout: who may coordinate is looked up again.
    pub(in crate::protocol) fn forward_anew(&mut self, now: Now, whom: Whom, effects: &mut Effects) {
        let Some((deadline, Waiting::Forward(mut forwarding))) = self.take(whom) else {
            return;
        };
        if forwarding.is_possible_here && self.coordinates(forwarding.partition) {
            let asker = Asker { whom, deadline };
            if let Some(terms) = forwarding.request.terms_mut() {
                terms.retry |= forwarding.asked;
            }
            return self.coordinate(now, asker, forwarding.request, Held::Unknown, effects);
        }
        forwarding.left =
            self.coordinators(now, forwarding.partition, &forwarding.request, forwarding.is_possible_here);
        self.wait(Asker { whom, deadline }, Waiting::Forward(forwarding));
        self.forward_on(now, whom, effects);
    }

    /// Owners in reach that have what they held, the best first; for a write then other owners, and where it need not
    /// be strict the first fallback in reach: each may be this node.
    fn coordinators(&self, now: Now, partition: Partition, request: &Request, here: bool) -> VecDeque<NodeId> {
        let View { me, layout, .. } = &*self.view;
        let is_whole = |owner: &NodeId| layout.is_owner(*owner, partition) && self.view.is_whole(layout, *owner);
        let is_good = |node: &NodeId| if node == me { here } else { self.is_reachable(*node) };
        let owners = layout.owners(partition).filter(|owner| owner != me && is_whole(owner) && is_good(owner));
        let mut ranked: Vec<NodeId> = owners.collect();
        ranked.sort_by_key(|owner| self.peers.rank(*owner, now.instant));
        let mut left = VecDeque::from(ranked);
        if request.is_write() {
            let all = self.view.written().flat_map(|layout| layout.owners(partition));
            let mut others: Vec<NodeId> = all.filter(|owner| !is_whole(owner) && is_good(owner)).collect();
            others.sort_unstable();
            others.dedup();
            left.extend(others);
        }
        if request.is_write() && !request.terms().strict {
            left.extend(self.view.fallbacks(partition).into_iter().find(is_good));
        }
        left
    }

    /// The R or W of a request.
    fn needed(&self, request: &Request) -> u8 {
        match request.terms().quorum {
            0 if request.is_write() => self.copies.w,
            0 => self.copies.r,
            quorum => quorum,
        }
    }

    /// A write that is handed on has a name, so that handing it to another when the first is silent is still one write.
    fn named(&mut self, mut request: Request) -> Request {
        if let Some(operation @ None) = request.operation_mut() {
            self.forwards += 1;
            let id = [self.actor.0, self.forwards].map(u64::to_le_bytes).concat();
            *operation = Some(OperationId::new(id).expect("16 bytes are an id"));
        }
        request
    }
}

/// Whether another coordinator may do what this one could not.
fn is_of_one_node(outcome: &Result<crate::protocol::message::Reply, Failure>) -> bool {
    matches!(
        outcome,
        Err(Failure::WritesStopped { .. } | Failure::DiskFull | Failure::Stopping | Failure::Unreadable { .. })
    )
}
