//! One call, tried until it is answered, may not be tried again, or its time is over.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::connection::Job;
use super::links::{Way, Wish};
use super::{Client, Error, Result};
use crate::protocol::config::DEADLINE_MAX;
use crate::protocol::message::{Answer, Call, Failure, Request, Terms};
use crate::protocol::types::NodeId;

/// The first wait before a call is tried again; each later one is twice as long, up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_millis(10);
const WAIT_MAX: Duration = Duration::from_millis(500);

/// A call that meets no quorum is tried on so many other nodes: where none of the usual owners meets it, it is not one
/// node that is cut off.
const OTHERS_MAX: usize = 2;

impl Client {
    pub(super) async fn call(&self, mut call: Call) -> Result<Answer> {
        let time = self.time(&mut call);
        let ends = Instant::now() + time;
        let mut wait = WAIT_MIN;
        let mut retry = false;
        // Nodes that did not answer this call.
        let mut tried = Vec::new();
        loop {
            set_terms(&mut call, ends - Instant::now(), retry);
            let error = match self.once(call.clone(), ends, time, &mut tried).await {
                Ok(Answer::One(Err(failure))) => Error::Failure(failure),
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let is_unmet = matches!(error, Error::Failure(Failure::QuorumNotMet { .. }));
            let Some(pause) = pause(&error, &call, wait).filter(|_| !is_unmet || tried.len() <= OTHERS_MAX) else {
                return Err(error);
            };
            let again = Instant::now() + self.spread(pause);
            if ends <= again {
                return Err(error);
            }
            sleep_until(again).await;
            wait = (wait * 2).min(WAIT_MAX);
            retry = true;
        }
    }

    /// Hands the call to a connection and waits. Whoever gives up is noticed there: a call that was not sent by then
    /// is never sent.
    async fn once(&self, call: Call, ends: Instant, time: Duration, tried: &mut Vec<NodeId>) -> Result<Answer> {
        let links = Arc::clone(&self.shared.links.borrow());
        let Way { link, wish } = links.way(&call, tried);
        if let Some(wish) = wish {
            // One of many: where there is no room for it, the next call wishes the same.
            let _ = self.shared.wishes.try_send(wish);
        }
        let (answer, heard) = oneshot::channel();
        let job = Job { call, ends, answer };
        let answered = async {
            let is_sent = match link {
                Some((_, link)) => link.jobs.send(job).await.is_ok(),
                None => self.shared.wishes.send(Wish::Carry(job)).await.is_ok(),
            };
            let lost = Error::gone(is_sent);
            if is_sent { heard.await.unwrap_or(Err(lost)) } else { Err(lost) }
        };
        let answered = timeout_at(ends, answered).await.unwrap_or(Err(Error::Deadline { waited: time }));
        // A node that is cut off from the others meets no quorum; another may.
        let is_of_this_node = matches!(
            &answered,
            Err(Error::Connection { .. }) | Ok(Answer::One(Err(Failure::Stopping | Failure::QuorumNotMet { .. })))
        );
        tried.extend(link.filter(|_| is_of_this_node).map(|(node, _)| node));
        answered
    }

    /// Time that the call has: its own deadline if it names one.
    fn time(&self, call: &mut Call) -> Duration {
        let own = match call {
            Call::One(request) => terms(request).map_or(0, |terms| terms.deadline_ms),
            Call::Many(_) | Call::Ping | Call::Info | Call::Ring { .. } => 0,
        };
        let time = match own {
            0 => self.shared.options.deadline,
            own => Duration::from_millis(own.into()),
        };
        time.min(DEADLINE_MAX)
    }

    /// A pause of between `pause` and twice as much, so that clients that failed together do not come back together.
    fn spread(&self, pause: Duration) -> Duration {
        pause + pause.mul_f64(self.shared.ids.fraction())
    }
}

/// How long to wait before the call may be tried again; `None` forbids it.
fn pause(error: &Error, call: &Call, wait: Duration) -> Option<Duration> {
    match error {
        Error::Failure(Failure::Overloaded { retry_after_ms }) => {
            Some(wait.max(Duration::from_millis((*retry_after_ms).into())))
        }
        Error::Failure(Failure::Stopping | Failure::Connections { .. }) => Some(wait),
        Error::Failure(Failure::QuorumNotMet { .. }) => is_repeatable(call).then_some(Duration::ZERO),
        Error::Connection { sent, .. } => (!sent || is_repeatable(call)).then_some(wait),
        _ => None,
    }
}

/// Whether doing the call twice is the same as doing it once.
fn is_repeatable(call: &Call) -> bool {
    let repeatable = |request: &Request| match request {
        Request::Put(put) => put.operation.is_some(),
        Request::Delete(delete) => delete.operation.is_some(),
        Request::Get(_) | Request::Siblings(_) | Request::Keys(_) => true,
    };
    match call {
        Call::One(request) => repeatable(request),
        Call::Many(requests) => requests.iter().all(repeatable),
        Call::Ping | Call::Info | Call::Ring { .. } => true,
    }
}

/// Tells the node the time that is left, less a tenth for the way, and that this is not the first try.
fn set_terms(call: &mut Call, left: Duration, retry: bool) {
    let deadline_ms = u32::try_from(left.as_millis() * 9 / 10).expect("no longer than DEADLINE_MAX");
    let set = |request: &mut Request| {
        let is_write = request.is_write();
        if let Some(terms) = terms(request) {
            terms.deadline_ms = deadline_ms.max(1);
            terms.retry |= retry && is_write;
        }
    };
    match call {
        Call::One(request) => set(request),
        Call::Many(requests) => requests.iter_mut().for_each(set),
        Call::Ping | Call::Info | Call::Ring { .. } => {}
    }
}

fn terms(request: &mut Request) -> Option<&mut Terms> {
    match request {
        Request::Get(get) => Some(&mut get.terms),
        Request::Put(put) => Some(&mut put.terms),
        Request::Delete(delete) => Some(&mut delete.terms),
        Request::Siblings(_) | Request::Keys(_) => None,
    }
}
