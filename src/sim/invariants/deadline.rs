//! Every request that reaches a node is answered by its deadline and a little, unless the node stood still or ended.

use std::time::Duration;

use super::Invariant;
use crate::protocol::types::Instant;
use crate::sim::truth::{Call, Truth};
use crate::sim::watch::{Seen, Verdict, about};
use crate::sim::world::{BEAT, DRIFT_PPM_MAX};

/// Behind a deadline: whoever has something to do looks at the clock once a beat, and that may go slow by as many
/// millionth parts as clocks drift.
const LATE: Duration = Duration::from_millis(2 * BEAT.as_millis() as u64);
const SLOWER: u32 = 1_000_000 / DRIFT_PPM_MAX as u32;

/// See the module.
pub(super) struct Deadline;

impl Invariant for Deadline {
    fn name(&self) -> &'static str {
        "deadline"
    }

    fn source(&self) -> &'static str {
        "DESIGN 1.5: the client names a deadline; no request is without its end"
    }

    fn see(&mut self, truth: &Truth, now: Instant, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::Answered { call, .. } if is_late(truth, now, call) => {
                let key = call.request.key().expect("clients here ask for one key");
                about(key, format!("n{} answers {:?} behind the deadline", call.node, late(now, call)))
            }
            Seen::Heard { call, outcome: None } if is_late(truth, now, call) => {
                let key = call.request.key().expect("clients here ask for one key");
                about(key, format!("n{} has not answered {:?} behind the deadline", call.node, late(now, call)))
            }
            _ => Ok(()),
        }
    }
}

fn late(now: Instant, call: &Call) -> Duration {
    call.deadline.map_or(Duration::ZERO, |deadline| now.since(deadline))
}

/// Whether its time was over a while ago, on a node that has worked all the while.
fn is_late(truth: &Truth, now: Instant, call: &Call) -> bool {
    LATE + now.since(call.begun) / SLOWER < late(now, call)
        && truth.nodes[call.node].is_well_since(call.begun, Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, get};
    use super::*;
    use crate::protocol::message::Failure;

    #[test]
    fn who_answers_late_or_never_is_accused_unless_it_stood_still() {
        let mut made = MadeUp::new(1);
        let call = Call { begun: Instant(1_000), deadline: Some(Instant(2_000)), ..made.call(get()) };
        let outcome = Err(Failure::QuorumNotMet { needed: 2, got: 1 });
        let is_fine = |made: &MadeUp, at: Instant| {
            let answered = Seen::Answered { call: &call, outcome: &outcome };
            let heard = Seen::Heard { call: &call, outcome: None };
            [answered, heard].map(|seen| Deadline.see(&made.truth, at, &seen).is_ok())
        };
        let (in_time, late) = (Instant(2_000) + LATE, Instant(2_500) + LATE);
        assert_eq!((is_fine(&made, in_time), is_fine(&made, late)), ([true; 2], [false; 2]));
        made.truth.trouble(Instant(1_500), 0);
        assert_eq!(is_fine(&made, late), [true; 2]);
    }
}
