//! Looking for members that do not answer, at the addresses of their rows: how a restarted node finds its cluster, and
//! how the two sides of a cut find each other again.

use std::time::Duration;

use super::io::Effect;
use super::time::Alarm;
use super::{Membership, RowState, SwimWants};
use crate::protocol::types::{Instant, NodeId};

/// How often it is looked for them, where some member answers.
const REACH_PERIOD: Duration = Duration::from_secs(1);

/// How often at first where nobody does; doubled each time up to [`REACH_PERIOD_MAX`].
const REACH_PERIOD_MIN: Duration = Duration::from_millis(100);

/// How often at last where nobody does.
const REACH_PERIOD_MAX: Duration = Duration::from_secs(3);

/// Members that are looked for at once.
const REACH_MAX: usize = 5;

/// Where looking stands.
#[derive(Debug)]
pub(super) struct Reach {
    period: Duration,
    /// The last member that was looked for.
    last: NodeId,
    /// The next seed to be asked.
    seed: usize,
    /// The alarm that counts; others are of no use any more.
    due: Instant,
}

impl Default for Reach {
    fn default() -> Reach {
        Reach { period: REACH_PERIOD_MIN, last: NodeId(0), seed: 0, due: Instant(0) }
    }
}

impl Membership {
    /// Announces this node to members that do not answer, a few at a time; where nobody answers, it also asks one of
    /// them, and one of the seeds, for all that it knows.
    pub(super) fn on_reach(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.part(now, effects);
        // A renewed session looks at once; the alarm that was set before then comes too early, and is not followed.
        let is_next = self.reach.due <= now;
        // A renewed session has to be heard of by somebody before it is probed, and probes.
        let silent = |node: &NodeId| *node != self.me && (!self.answers(*node) || !self.swim.is_probing());
        let rows = self.rows.iter().filter(|row| row.state != RowState::Removed).map(|row| row.node);
        let mut missing: Vec<NodeId> = rows.filter(silent).collect();
        let is_alone = !self.rows.iter().any(|row| row.node != self.me && self.answers(row.node));
        let next = missing.partition_point(|node| *node <= self.reach.last);
        missing.rotate_left(next);
        missing.truncate(REACH_MAX);
        if let Some(last) = missing.last() {
            self.reach.last = *last;
        }
        let mut wants = SwimWants::default();
        self.swim.bury_inherited(now, &mut wants);
        for (at, node) in missing.iter().enumerate() {
            let address = self.rows.get(*node).expect("it is one of the rows").start.address;
            self.swim.announce(*node, address, &mut wants);
            if is_alone && at == 0 {
                self.compare_soon(now, *node, address, effects);
            }
        }
        self.carry(now, wants, effects);
        if is_alone && !self.seeds.is_empty() {
            let address = self.seeds[self.reach.seed % self.seeds.len()];
            self.reach.seed += 1;
            if address != self.own().start.address {
                self.compare(None, address, effects);
            }
        }
        if is_next {
            self.reach.period = if is_alone { self.reach.period.min(REACH_PERIOD_MAX / 2) * 2 } else { REACH_PERIOD };
            self.reach.due = now + self.reach.period;
            self.set(self.reach.due, Alarm::Reach);
        }
    }
}
