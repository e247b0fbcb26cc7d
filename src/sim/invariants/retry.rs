//! A retry of an acknowledged write is that write; an operation is known by its id on its key, for what it said.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Invariant;
use crate::protocol::causality::Operation;
use crate::protocol::config::OPERATION_MEMORY;
use crate::protocol::message::{Failure, Outcome, Reply, Request, Written, operation};
use crate::protocol::types::{Dot, Instant, Key};
use crate::sim::truth::{Call, KeyTruth, Truth, are_twins};
use crate::sim::watch::{Seen, Verdict, about};

/// Operations are remembered for so long at least.
const REMEMBERED: Duration = Duration::from_secs(OPERATION_MEMORY.as_secs() / 2);

/// See the module.
#[derive(Default)]
pub(super) struct Retry {
    /// Writes that were answered as done now, not before.
    fresh: BTreeSet<(Key, Dot)>,
}

impl Invariant for Retry {
    fn name(&self) -> &'static str {
        "retry"
    }

    fn source(&self) -> &'static str {
        "DESIGN 6: a retry under the same operation id is one write"
    }

    fn see(&mut self, truth: &Truth, now: Instant, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::Answered { call, outcome: Outcome::Ok(Reply::Written(written)), .. } => {
                let key = call.request.key().expect("a write has a key");
                let Some(of_key) = truth.keys.get(key) else { return Ok(()) };
                is_its_own(of_key, key, call, written)?;
                is_remembered(truth, now, of_key, call, written)?;
                self.once(key, written)
            }
            Seen::Answered { call, outcome: Outcome::Err(Failure::OperationReused), .. } => is_reused(truth, call),
            _ => Ok(()),
        }
    }
}

/// An id is refused only where it was used on this key for something else.
fn is_reused(truth: &Truth, call: &Call) -> Verdict {
    let key = call.request.key().expect("a write has a key");
    let (Some(said), Some(of_key)) = (said(&call.request), truth.keys.get(key)) else { return Ok(()) };
    if is_ambiguous(of_key, &said) {
        return Ok(());
    }
    about(key, format!("{said:?} is refused as used before, and it was not, on this key"))
}

impl Retry {
    /// One dot, one write.
    fn once(&mut self, key: &Key, written: &Written) -> Verdict {
        if written.remembered || self.fresh.insert((key.clone(), written.dot)) {
            return Ok(());
        }
        about(key, format!("{} was answered as a new write twice", written.dot))
    }
}

/// What the client asked to be written, under its name.
fn said(request: &Request) -> Option<Box<Operation>> {
    match request {
        Request::Put(put) => operation(put.operation.clone(), Some(&put.value), &put.causality),
        Request::Delete(delete) => operation(delete.operation.clone(), None, &delete.causality),
        Request::Get(_) | Request::Siblings(_) | Request::Keys(_) => None,
    }
}

/// The version that the reply names is of this very operation.
fn is_its_own(of_key: &KeyTruth, key: &Key, call: &Call, written: &Written) -> Verdict {
    let (Some(said), Some(minted)) = (said(&call.request), of_key.minted.get(&written.dot)) else { return Ok(()) };
    match &minted.update.version.operation {
        Some(operation) if *operation == said => Ok(()),
        other => about(key, format!("{} is of {other:?}, and {said:?} was asked for", written.dot)),
    }
}

/// Who tries a write again that W owners had acknowledged is told of it, while owners stay the same. Of what was
/// deleted and forgotten nobody can show the version, where tombstones go sooner than the memory of operations.
fn is_remembered(truth: &Truth, now: Instant, of_key: &KeyTruth, call: &Call, written: &Written) -> Verdict {
    let terms = call.request.terms();
    let (Some(said), Some(done), true) = (said(&call.request), call.done, terms.retry && terms.strict) else {
        return Ok(());
    };
    let Some(acknowledged) = of_key.acknowledged.get(&done) else { return Ok(()) };
    let is_judged = truth.changed_at < acknowledged.at
        && now.since(acknowledged.at) < REMEMBERED
        && !truth.is_changing()
        && !is_forgotten(of_key, &said)
        && !is_ambiguous(of_key, &said);
    let is_it = written.dot == done || is_twin(of_key, written.dot, done);
    if !is_judged || (written.remembered && is_it) {
        return Ok(());
    }
    let key = call.request.key().expect("a write has a key");
    about(key, format!("{} was written for {said:?}, which was acknowledged as {done}", written.dot))
}

fn is_twin(of_key: &KeyTruth, one: Dot, other: Dot) -> bool {
    let update = |dot| of_key.minted.get(&dot).map(|minted| &minted.update);
    update(one).zip(update(other)).is_some_and(|(one, other)| are_twins(one, other))
}

/// Whether a version of it was deleted and forgotten.
fn is_forgotten(of_key: &KeyTruth, said: &Operation) -> bool {
    let is_it = |operation: Option<&Operation>| operation.is_some_and(|operation| operation.id == said.id);
    let mut minted = of_key.minted.iter();
    minted.any(|(dot, minted)| of_key.forgotten.covers(*dot) && is_it(minted.update.version.operation.as_deref()))
}

/// Whether the id was used for something else on this key.
fn is_ambiguous(of_key: &KeyTruth, said: &Operation) -> bool {
    let operations = of_key.minted.values().filter_map(|minted| minted.update.version.operation.as_deref());
    operations.into_iter().any(|operation| operation.id == said.id && operation.digest != said.digest)
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, dot, put, written};
    use super::*;
    use crate::protocol::message::Causality;

    /// How a retry of "a" under "id", which was acknowledged as 1:1, may be answered.
    fn judge(made: &MadeUp, name: &str, reply: Written) -> bool {
        let mut request = put("a", Causality::Blind, Some(name));
        let terms = request.terms_mut().unwrap();
        (terms.retry, terms.strict) = (true, true);
        let call = Call { done: Some(dot(1, 1)), ..made.call(request) };
        let outcome = Ok(Reply::Written(reply));
        let answered = Seen::Answered { call: &call, outcome: &outcome };
        Retry::default().see(&made.truth, Instant(20), &answered).is_ok()
    }

    fn done() -> MadeUp {
        let mut made = MadeUp::new(1);
        made.name(dot(1, 1), put("a", Causality::Blind, Some("id")));
        made.mint(dot(1, 2), &[(1, 1)], Some("a"));
        made.acknowledge(dot(1, 1), 1);
        made
    }

    #[test]
    fn a_retry_of_an_acknowledged_write_is_that_write() {
        let mut made = done();
        assert!(judge(&made, "id", written(dot(1, 1), &[], true)));
        assert!(!judge(&made, "id", written(dot(1, 1), &[], false)), "it was not written now");
        assert!(!judge(&made, "id", written(dot(1, 2), &[], true)), "it is of another operation");
        assert!(!judge(&made, "other", written(dot(1, 1), &[], true)), "the operation has another name");
        made.name(dot(2, 1), put("a", Causality::Blind, Some("id")));
        assert!(!judge(&made, "id", written(dot(2, 1), &[], false)), "it was done a second time");
        made.truth.changed_at = Instant(19);
        assert!(judge(&made, "id", written(dot(2, 1), &[], false)), "owners have changed since");
    }

    #[test]
    fn a_dot_is_answered_as_new_once() {
        let (made, mut retry) = (done(), Retry::default());
        let call = made.call(put("a", Causality::Blind, None));
        let outcome = Ok(Reply::Written(written(dot(1, 2), &[], false)));
        let mut answer =
            || retry.see(&made.truth, Instant(20), &Seen::Answered { call: &call, outcome: &outcome }).is_ok();
        assert!(answer() && !answer());
    }
}
