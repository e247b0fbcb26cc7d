//! Who belongs to the cluster, who answers, and who owns what: one membership a node, on the control thread.
//!
//! `handle(now, input) -> effects`, as a shard: no clock, no socket, no chance but a seed. Three things are kept apart:
//! *rows* (all that members know of each other, joined field by field), the *layouts* (who owns what: the stored one,
//! and the pending one while a change is under way; they count only once they are durable here), and *liveness* (SWIM:
//! who answers; it routes and never moves data). Rows and layouts travel in exchanges; gossip carries liveness, and by
//! whom to compare: each packet names its sender's newest layout and the digest of its rows.
//!
//! A commit makes one pending layout of all that is staged (`stage`, `commit`). From then on every member makes its
//! marks, durable before they are told, and goes on when all have made them (`marks`):
//!
//! ```text
//!            a commit, or     every member       every member      every member
//!            heard of it      writes by it       holds its share   reads by it
//!   at rest ─────────────▶ Write ──────────▶ Hold ───────────▶ Read ─────────▶ at rest: it is the stored one
//! ```

mod row;
mod rows;
mod past;
mod io;
mod order;
mod swim;
mod stage;
mod commit;
mod marks;
mod exchange;
mod show;
mod time;
mod reach;
#[cfg(test)]
mod tests;

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use io::{Answer, Durable, Effect, ExchangeId, Input, Knowledge, Letter, LetterId, Note, Packet, Unanswered};
pub use order::{Order, OrderId, OrderRefused, Plan, PlannedLoad, Staged, StagedChange};
pub use past::{Past, Refusal, may_join};
pub use row::{Mark, Progress, Register, Row, RowStart, RowState, Wish};
pub use rows::Rows;

use self::exchange::Sent;
use self::marks::{Layouts, Writing};
use self::swim::{Identity, Session, Swim, Wanted as SwimWants};
use self::time::Alarm;
use super::planted::Planted;
use super::ring::{Layout, LayoutRow, LayoutStamp, Liveness, Step, View, Wanted};
use super::types::{ClusterId, CoreId, Instant, NodeId};

/// Most bytes that SWIM puts into one packet: with what is around it a packet stays below 1,280 bytes, which every path
/// of IPv6 carries whole.
pub const PAYLOAD_BYTES_MAX: usize = 1_180;

/// What a membership begins with.
#[derive(Clone, Debug)]
pub struct Birth {
    /// The cluster.
    pub cluster: ClusterId,
    /// Partitions of its ring.
    pub partitions: u16,
    /// This node's name.
    pub name: Arc<str>,
    /// Its data directory.
    pub incarnation: u128,
    /// This start.
    pub start: RowStart,
    /// Its zone, where it is told one.
    pub zone: Option<Arc<str>>,
    /// Its weight, where it is told one.
    pub weight: Option<u32>,
    /// What the last start knew; `None` in a directory that founds its cluster.
    pub known: Option<Durable>,
    /// Copies and quorums of the cluster that it founds.
    pub wanted: Wanted,
    /// Whether joins are committed without an operator also while members hold data.
    pub auto_join: bool,
    /// Addresses to look for members at, beside those of the rows.
    pub seeds: Vec<SocketAddr>,
    /// All chance there is.
    pub seed: u64,
    /// The fault that it has: none but in a rehearsal.
    pub planted: Planted,
}

/// The membership of one node.
pub struct Membership {
    me: NodeId,
    cluster: ClusterId,
    partitions: u16,
    auto_join: bool,
    seeds: Vec<SocketAddr>,
    /// What all know of each other; of this node's own row, the progress is durable.
    rows: Rows,
    digest: u64,
    /// In force, and durable.
    layouts: Layouts,
    /// In force as soon as they are durable.
    newest: Layouts,
    /// How far this node has come by the newest layouts; told as soon as it is durable.
    mark: Mark,
    /// What this node does about the pending layout in force. It never goes back.
    step: Step,
    /// The cores that have reached it.
    reached: BTreeSet<CoreId>,
    /// What is being made durable.
    writing: Option<Writing>,
    /// Something is not durable and not being made so.
    is_dirty: bool,
    /// The last write failed, and it is not time yet to try again.
    holds_off: bool,
    /// What was known at the beginning is durable: the node may be seen.
    has_begun: bool,
    /// Members are to be told as soon as all is durable.
    owes_word: bool,
    /// Orders that are answered as soon as what they changed is durable.
    orders: Vec<OrderId>,
    swim: Swim,
    alarms: BTreeMap<(Instant, u64), Alarm>,
    alarms_set: u64,
    /// How much longer suspects get, because our own loop was late.
    stretch: u32,
    exchanges: BTreeMap<ExchangeId, Sent>,
    exchanges_begun: u64,
    /// When this node last compared with each other.
    compared: BTreeMap<NodeId, Instant>,
    reach: reach::Reach,
    view: Option<Arc<View>>,
    /// More nodes may join before they are committed.
    gathers: bool,
    noted_data: bool,
    /// How often in a row this node was found empty since it left the layout.
    empties: u32,
    is_refused: bool,
    planted: Planted,
}

impl Membership {
    /// A membership that begins. The first view comes when what it begins with is durable.
    ///
    /// # Panics
    /// When what the last start knew is another node's or another cluster's: the caller has checked that.
    pub fn begin(now: Instant, birth: Birth, effects: &mut Vec<Effect>) -> Membership {
        let me = NodeId::of(&birth.name);
        let known = birth.known.as_ref();
        assert!(known.is_none_or(|known| known.me == me && known.cluster == birth.cluster), "another node's knowledge");
        let mut rows = known.map(|known| known.rows.clone()).unwrap_or_default();
        let row = own_row(me, &birth, rows.get(me));
        rows.join_row(row.clone());
        let founding = || Arc::new(Layout::founding(birth.partitions, birth.wanted, layout_row(&row)));
        let stored = known.and_then(|known| known.layout.clone()).unwrap_or_else(founding);
        let layouts = Layouts { stored, pending: known.and_then(|known| known.pending.clone()) };
        let epoch = (u64::from(row.generation) << 48) | birth.start.count;
        let session = Session { epoch, renewals: 0, stamp: birth.start.stamp };
        let identity = Identity { node: me, session, address: birth.start.address };
        let mark = layouts.mark(row.progress);
        let mut membership = Membership {
            me,
            cluster: birth.cluster,
            partitions: birth.partitions,
            auto_join: birth.auto_join,
            seeds: birth.seeds,
            digest: rows.digest(),
            rows,
            newest: layouts.clone(),
            layouts,
            mark,
            step: marks::step_of(mark),
            reached: BTreeSet::new(),
            writing: None,
            is_dirty: true,
            holds_off: false,
            has_begun: false,
            owes_word: false,
            orders: Vec::new(),
            swim: Swim::new(identity, birth.seed),
            alarms: BTreeMap::new(),
            alarms_set: 0,
            stretch: 0,
            exchanges: BTreeMap::new(),
            exchanges_begun: 0,
            compared: BTreeMap::new(),
            reach: reach::Reach::default(),
            view: None,
            gathers: false,
            noted_data: false,
            empties: 0,
            is_refused: false,
            planted: birth.planted,
        };
        membership.follow(now, effects);
        membership
    }

    /// Takes an input in.
    pub fn handle(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        if self.is_refused {
            return;
        }
        match input {
            Input::Packet { from, packet } => self.on_packet(now, from, &packet, effects),
            Input::Letter { letter, from, says: Letter::Compare(theirs) } => {
                let mut knowledge = self.knowledge();
                if self.is_dirty || self.writing.is_some() {
                    // A node that has left ends when it hears that this is known: a crash must not forget it then.
                    knowledge.rows.leave_out_removed(from);
                }
                let answer = Answer::Knowledge(Box::new(knowledge));
                effects.push(Effect::Answer { letter, answer });
                self.learn(&theirs, effects);
            }
            Input::Answered { exchange, answer } => self.on_answered(exchange, answer, effects),
            Input::Persisted(is_durable) => self.on_persisted(now, is_durable, effects),
            Input::Holds(is_held) => self.on_holds(is_held),
            Input::Differs(stamp) => self.on_differs(now, stamp, effects),
            Input::Order { id, order } => self.on_order(id, order, effects),
            Input::Reached { core, stamp, step } => self.on_reached(core, stamp, step),
            Input::Leave => {
                let mut wants = SwimWants::default();
                self.swim.leave(&mut wants);
                self.carry(now, wants, effects);
            }
            Input::Tick => self.on_tick(now, effects),
        }
        self.follow(now, effects);
    }

    /// When a tick is due next.
    pub fn wakes_at(&self) -> Option<Instant> {
        self.alarms.first_key_value().map(|((due, _), _)| *due).filter(|_| !self.is_refused)
    }

    /// All that this node knows, as it tells others.
    pub fn knowledge(&self) -> Knowledge {
        Knowledge {
            cluster: Some(self.cluster),
            partitions: self.partitions,
            rows: self.rows.clone(),
            up: self.rows.iter().map(|row| row.node).filter(|node| self.answers(*node)).collect(),
            layout: Some(Arc::clone(&self.layouts.stored)),
            pending: self.layouts.pending.clone(),
        }
    }

    /// The rows.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Whether it matters whether the node holds anything ([`Input::Holds`]).
    pub fn asks_holdings(&self) -> bool {
        self.has_begun && (!self.own().holds_data || self.own().state == RowState::Leaving)
    }

    fn on_packet(&mut self, now: Instant, from: SocketAddr, packet: &Packet, effects: &mut Vec<Effect>) {
        if packet.sender == self.me {
            return;
        }
        let mut wants = SwimWants::default();
        self.swim.on_payload(&packet.payload, &mut wants);
        self.carry(now, wants, effects);
        if packet.layout != self.layouts.stamp() || packet.rows != self.digest {
            let address = self.rows.get(packet.sender).map_or(from, |row| row.start.address);
            self.compare_soon(now, packet.sender, address, effects);
        }
    }

    fn on_holds(&mut self, is_held: bool) {
        let (state, holds_data) = (self.own().state, self.own().holds_data);
        self.empties = if is_held || state != RowState::Leaving { 0 } else { self.empties + 1 };
        if is_held && !holds_data {
            self.own_mut().holds_data = true;
            self.touch();
        }
    }

    /// What follows from whatever has changed.
    fn follow(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.is_refused {
            return;
        }
        self.mark_members();
        self.go_on();
        self.end_leave();
        self.consider(now, effects);
        self.persist(effects);
        self.show(effects);
    }

    fn liveness(&self, node: NodeId) -> Liveness {
        if node == self.me { Liveness::Up } else { self.swim.liveness(node) }
    }

    fn answers(&self, node: NodeId) -> bool {
        self.liveness(node) != Liveness::Down
    }

    fn own(&self) -> &Row {
        self.rows.get(self.me).expect("a node has a row of its own")
    }

    fn own_mut(&mut self) -> &mut Row {
        self.rows.get_mut(self.me).expect("a node has a row of its own")
    }

    /// The rows have changed.
    fn touch(&mut self) {
        self.digest = self.rows.digest();
        self.is_dirty = true;
    }
}

/// This start's row of this node, upon what the last start knew of it.
fn own_row(me: NodeId, birth: &Birth, before: Option<&Row>) -> Row {
    let mut row = match before {
        Some(before) if before.incarnation == birth.incarnation => before.clone(),
        _ => Row {
            node: me,
            name: Arc::clone(&birth.name),
            generation: 0,
            incarnation: birth.incarnation,
            state: RowState::Staged,
            wish: Register::first(me, Wish::Stay),
            progress: Progress::default(),
            holds_data: false,
            zone: Register::first(me, Arc::from("")),
            weight: Register::first(me, 1),
            start: birth.start.clone(),
        },
    };
    row.start = birth.start.clone();
    if let Some(zone) = &birth.zone {
        row.zone.set(me, Arc::clone(zone));
    }
    if let Some(weight) = birth.weight {
        row.weight.set(me, weight);
    }
    row
}

fn layout_row(row: &Row) -> LayoutRow {
    LayoutRow {
        node: row.node,
        incarnation: row.incarnation,
        zone: Arc::clone(&row.zone.value),
        weight: row.weight.value,
    }
}
