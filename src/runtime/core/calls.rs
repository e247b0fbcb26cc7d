//! Calls of clients: which core each part of one goes to, and how answers come together and go back.

use std::rc::Rc;

use super::{Core, Phase};
use crate::protocol::io::{Held, Input};
use crate::protocol::message::{Answer, Call, Failure, NodeInfo, Outcome, Reply, Request};
use crate::protocol::types::{CoreId, Instant, RequestId};
use crate::runtime::connection::{Connection, Said};
use crate::runtime::door::GRACE;
use crate::runtime::gather::{self, Gather};
use crate::runtime::mail::Errand;
use crate::runtime::metrics::OperationKind;
use crate::runtime::pending::{Origin, Pending};
use crate::store::Refusal;
use crate::wire::frame::CallId;

/// Values of at most so many bytes are sent also where unread replies fill their memory, unless they would add to what
/// their own client leaves unread.
pub(super) const VALUES_BYTES_SMALL: usize = 64 * 1024;

impl Core {
    /// What a connection brings.
    pub fn on_said(&mut self, connection: &Rc<Connection>, id: CallId, said: Said) {
        match said {
            Said::Call(call) => self.on_call(connection, id, call),
            Said::Ask(question) => self.on_ask(connection, id, question),
        }
    }

    /// A client calls on a connection.
    pub fn on_call(&mut self, connection: &Rc<Connection>, id: CallId, call: Call) {
        match call {
            Call::Ping => self.send(connection, id, &Answer::Pong),
            Call::Info => {
                let info = self.info();
                self.send(connection, id, &Answer::Info(info));
            }
            Call::Ring { known } => {
                let map = self.parts.shard.view().map(known);
                self.send(connection, id, &Answer::Ring(map));
            }
            Call::One(Request::Keys(keys)) => {
                let gather = Gather::pages(Rc::clone(connection), id, self.parts.ring, &keys, self.parts.mesh.len());
                let every_core = (0..self.parts.cores.count).map(|core| (CoreId(core), Request::Keys(keys.clone())));
                self.begin_gather(gather, every_core.collect());
            }
            Call::One(request) => {
                let owner = self.owner(&request);
                self.ask(Origin::Connection(Rc::clone(connection), id), owner, request);
            }
            Call::Many(requests) => {
                let gather = Gather::batch(Rc::clone(connection), id, requests.len());
                let parts = requests.into_iter().map(|request| (self.owner(&request), request)).collect();
                self.begin_gather(gather, parts);
            }
        }
    }

    /// A frame came in that is no call. The stream is sound, so only this call fails.
    pub fn on_malformed(&mut self, connection: &Rc<Connection>, id: CallId, failure: &Failure) {
        self.parts.metrics.frames_refused.increment(1);
        self.replies_bytes += connection.refuse(id, failure);
        self.becomes_dirty(connection);
    }

    /// The stream can be read no further: says why, under the id of no call.
    pub fn farewell(&mut self, connection: &Rc<Connection>, failure: &Failure) {
        self.on_malformed(connection, CallId::NONE, failure);
        self.flush();
    }

    /// A core that says nothing may have done it all the same: that is what an unmet quorum says.
    pub(super) fn give_up(&mut self) {
        let now = self.now.instant;
        while let Some(ticket) = self.pending.overdue(now) {
            self.on_outcome(ticket, Err(Failure::QuorumNotMet { needed: 1, got: 0 }));
        }
    }

    pub(super) fn owner(&self, request: &Request) -> CoreId {
        let key = request.key().expect("all but a listing have a key");
        self.parts.cores.of(self.parts.ring.partition(key))
    }

    fn info(&self) -> NodeInfo {
        let uptime_ms = self.now.instant.0 / 1_000;
        NodeInfo { uptime_ms, ..self.parts.info.clone() }
    }

    fn begin_gather(&mut self, gather: Gather, parts: Vec<(CoreId, Request)>) {
        self.gathers_begun += 1;
        let number = self.gathers_begun;
        let empty = parts.is_empty();
        self.gathers.insert(number, gather);
        if empty {
            self.end_gather(number);
        }
        for (at, (core, request)) in parts.into_iter().enumerate() {
            self.ask(Origin::Gather(number, at), core, request);
        }
    }

    fn end_gather(&mut self, number: u64) {
        let gather = self.gathers.remove(&number).expect("a gather ends once");
        let (connection, id, answer) = gather.end();
        self.send(&connection, id, &answer);
    }

    pub(super) fn ask(&mut self, origin: Origin, core: CoreId, request: Request) {
        let deadline = self.now.instant + request.patience();
        if core == self.parts.id {
            return self.ask_here(origin, request, deadline);
        }
        let ticket = self.enter(origin, &request, Some(deadline + GRACE));
        let errand = Errand::Forward { from: self.parts.id, ticket, request, deadline };
        if self.parts.mesh[core.index()].send(errand).is_err() {
            self.on_outcome(ticket, Err(Failure::Stopping));
        }
    }

    pub(super) fn ask_here(&mut self, origin: Origin, request: Request, deadline: Instant) {
        let id = self.enter(origin, &request, None);
        if self.phase != Phase::Serving {
            return self.on_outcome(id, Err(Failure::Stopping));
        }
        if request.is_write()
            && let Err(refusal) = self.parts.engine.admit()
        {
            let failure = refusal.failure(self.parts.id);
            return match refusal {
                Refusal::Overloaded { .. } => self.on_outcome(id, Err(failure)),
                // Another owner's disk may take it.
                Refusal::DiskFull | Refusal::Stopped => self.feed(Input::Elsewhere { id, request, failure, deadline }),
            };
        }
        let held = request.key().map_or(Held::Unknown, |key| self.parts.engine.held(key));
        self.feed(Input::Request { id, request, held, deadline });
    }

    fn enter(&mut self, origin: Origin, request: &Request, given_up: Option<Instant>) -> RequestId {
        let kind = OperationKind::of(request);
        self.pending.begin(Pending { origin, kind, begun: self.now.instant, given_up })
    }

    /// A request has ended, here or where it was forwarded to.
    pub(super) fn on_outcome(&mut self, id: RequestId, outcome: Outcome) {
        let Pending { origin, kind, begun, .. } = self.pending.end(id);
        if !matches!(origin, Origin::Core(..)) {
            self.parts.metrics.operation(kind, &outcome, self.now.instant.since(begun));
        }
        match origin {
            Origin::Connection(connection, call) => self.send(&connection, call, &Answer::One(outcome)),
            Origin::Gather(number, at) => {
                let gather = self.gathers.get_mut(&number).expect("a gather lasts until its last part");
                if gather.on_outcome(at, outcome) {
                    self.end_gather(number);
                }
            }
            Origin::Core(from, ticket) => {
                // A core that is gone has stopped the node: there is nobody left to tell.
                let _ = self.parts.mesh[from.index()].send(Errand::Answered { ticket, outcome });
            }
            Origin::Door(answer) => {
                // Whoever asked may have gone away.
                let _ = answer.send(outcome);
            }
        }
    }

    fn send(&mut self, connection: &Rc<Connection>, id: CallId, answer: &Answer) {
        let cramped = self.replies_are_full() && (connection.is_behind() || VALUES_BYTES_SMALL < value_bytes(answer));
        self.replies_bytes +=
            if cramped { connection.answer(id, &refused_values(answer)) } else { connection.answer(id, answer) };
        self.becomes_dirty(connection);
    }

    pub(super) fn becomes_dirty(&mut self, connection: &Rc<Connection>) {
        if connection.becomes_dirty() {
            self.dirty.push(Rc::clone(connection));
        }
    }
}

/// Bytes of the values that an answer brings.
fn value_bytes(answer: &Answer) -> usize {
    match answer {
        Answer::One(outcome) => gather::value_bytes(outcome),
        Answer::Many(outcomes) => outcomes.iter().map(gather::value_bytes).sum(),
        Answer::Pong | Answer::Info(_) | Answer::Ring(_) => 0,
    }
}

/// The answer when its values find no room. They can be read again, and what was written is told in any case.
fn refused_values(answer: &Answer) -> Answer {
    let refused = |outcome: &Outcome| match outcome {
        Ok(Reply::Found(_) | Reply::Siblings(_)) => Err(Failure::overloaded()),
        other => other.clone(),
    };
    match answer {
        Answer::One(outcome) => Answer::One(refused(outcome)),
        Answer::Many(outcomes) => Answer::Many(outcomes.iter().map(refused).collect()),
        other => other.clone(),
    }
}
