//! Where enough owners have been well for a while, nobody fails for lack of them, whatever the others do.

use std::time::Duration;

use super::Invariant;
use crate::protocol::message::{Failure, Outcome, Request};
use crate::protocol::types::Instant;
use crate::sim::truth::{Call, Truth};
use crate::sim::watch::{Seen, Verdict, about};

/// Who was in trouble is well again after so long: no fault lasts longer, and then it is known.
const QUIET: Duration = Duration::from_secs(5);

/// Whoever has less time may not have enough for a detour.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Availability;

impl Invariant for Availability {
    fn name(&self) -> &'static str {
        "availability"
    }

    fn source(&self) -> &'static str {
        "DESIGN 1.6: one slow thing stays one slow thing; enough owners are enough"
    }

    fn see(&mut self, truth: &Truth, _now: Instant, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::Answered { call, outcome: Outcome::Err(Failure::QuorumNotMet { needed, got }), .. } => {
                failed(truth, call, *needed, *got)
            }
            _ => Ok(()),
        }
    }
}

fn failed(truth: &Truth, call: &Call, needed: u8, got: u8) -> Verdict {
    let (node, request) = (&truth.nodes[call.node], &call.request);
    let is_read = matches!(request, Request::Get(_));
    let is_judged = request.patience() >= PATIENCE_MIN && (is_read || !request.terms().strict);
    let is_settled = !truth.is_changing() && truth.changed_at + QUIET < call.begun;
    let Some(view) = node.view.as_ref().filter(|_| is_judged && is_settled) else { return Ok(()) };
    if !node.is_well_since(call.begun, QUIET) {
        return Ok(());
    }
    let key = request.key().expect("clients here ask for one key");
    let owners = view.layout.owners(truth.ring.partition(key)).filter(|owner| view.is_whole(&view.layout, *owner));
    let is_well = |at: &usize| truth.nodes[*at].is_well_since(call.begun, QUIET);
    let well: Vec<usize> = owners.filter_map(|owner| truth.at(owner)).filter(is_well).collect();
    // A write that was handed on twice is a retry, which asks whoever may remember it; a delete reads first.
    let copies = u8::try_from(view.layout.owners(truth.ring.partition(key)).count()).unwrap_or(u8::MAX);
    let enough =
        if is_read { needed } else { needed.max((copies + 1).saturating_sub(needed)).max(view.layout.wanted().r) };
    if well.len() < usize::from(enough) {
        return Ok(());
    }
    about(key, format!("n{} got {got} of {needed}, and the owners {well:?} are well", call.node))
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, get};
    use super::*;

    const BEGUN: Instant = Instant(60_000_000);

    fn judge(made: &MadeUp) -> bool {
        let call = Call { begun: BEGUN, ..made.call(get()) };
        let outcome = Err(Failure::QuorumNotMet { needed: 2, got: 1 });
        Availability.see(&made.truth, BEGUN, &Seen::Answered { call: &call, outcome: &outcome }).is_ok()
    }

    #[test]
    fn nobody_fails_where_enough_owners_are_well() {
        let mut made = MadeUp::new(3);
        assert!(!judge(&made));
        made.truth.trouble(BEGUN, 2);
        assert!(!judge(&made), "one of three is not needed");
        made.truth.nodes[1].is_still = true;
        assert!(judge(&made), "two are");
        made.truth.nodes[1].is_still = false;
        assert!(!judge(&made));
        made.truth.nodes[1].is_alive = false;
        assert!(judge(&made), "whether it stands still or is dead");
    }

    #[test]
    fn who_was_in_trouble_or_changes_owners_may_fail() {
        let mut made = MadeUp::new(3);
        made.truth.trouble(BEGUN, 0);
        assert!(judge(&made));
        let mut made = MadeUp::new(3);
        made.truth.changed_at = BEGUN;
        assert!(judge(&made));
    }
}
