//! Who belongs to the cluster, who answers, and who owns what: one membership a node, on the control thread.
//!
//! `handle(now, input) -> effects`, as a shard: no clock, no socket, no chance but a seed. Three things are kept apart:
//! *rows* (all that members know of each other, joined field by field), the *layout* (who owns what; in force only when
//! it is durable here), and *liveness* (SWIM: who answers; it routes and never moves data). Rows and layouts travel in
//! exchanges; gossip carries liveness, and by whom to compare: each packet names its sender's layout and the digest of
//! its rows.
//!
//! Joined nodes get into a layout by a *round*, while no member holds data: the lowest member that answers asks every
//! member to freeze (to refuse the writes of clients), and only when all of them are frozen and hold nothing does it
//! make the next layout. So no write is acknowledged by owners that the next layout does not ask.
//!
//! ```text
//!   idle ──a node has joined──▶ gathering ──▶ freezing ──all hold nothing──▶ writing ──durable──▶ idle
//!              (300 ms for more of them)         └── one holds data, is silent, or it takes too long ──▶ gathering
//! ```

mod row;
mod rows;
mod past;
mod io;
mod order;
mod swim;
mod commit;
mod reach;
#[cfg(test)]
mod tests;

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use io::{
    Answer, Durable, Effect, ExchangeId, Input, Knowledge, Letter, LetterId, Note, Packet, Round, Unanswered,
};
pub use order::{Order, OrderId, OrderRefused, Plan, PlannedLoad, Staged, StagedChange};
pub use past::{Past, Refusal, may_join};
pub use row::{Register, Row, RowStart, RowState};
pub use rows::Rows;

use self::commit::{Commit, Frost};
use self::swim::{Identity, PROBE_RTT, Session, Swim, Wanted as SwimWants};
use super::ring::{Layout, LayoutRow, LayoutStamp, Liveness, Member, View, Wanted};
use super::types::{ClusterId, Instant, NodeId};

/// Most bytes that SWIM puts into one packet: with what is around it a packet stays below 1,280 bytes, which every path
/// of IPv6 carries whole.
pub const PAYLOAD_BYTES_MAX: usize = 1_180;

/// A loop that is later than this has been held up: its verdicts on others wait.
const LATE_MIN: Duration = Duration::from_millis(60);

/// A verdict waits at most so much longer.
const VERDICT_WAIT_MAX: Duration = Duration::from_secs(1);

/// While our own loop is late, a suspect gets up to so many times as long to say that it is there, and once more.
const STRETCH_MAX: u32 = 8;

/// What was not written is written again after this.
const PERSIST_RETRY: Duration = Duration::from_secs(1);

/// Two nodes compare what they know no more often than this, on the word of packets.
const COMPARE_PERIOD: Duration = Duration::from_millis(200);

/// Members that are asked when a core has heard of another layout.
const ASKED_MAX: usize = 3;

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
    /// Addresses to look for members at, beside those of the rows.
    pub seeds: Vec<SocketAddr>,
    /// All chance there is.
    pub seed: u64,
    /// Whether joined nodes get their share by themselves, also when members hold data.
    pub auto_join: bool,
}

/// What is to be done at a time.
#[derive(Debug)]
enum Alarm {
    /// A timer of SWIM; whether it was put off once.
    Swim(swim::Timer, bool),
    /// Look for members that do not answer.
    Reach,
    /// Enough time was given to more joined nodes.
    Gathered,
    /// A round takes too long.
    RoundOver(u64),
    /// Ask whoever froze this node whether it still does.
    Melt,
    /// Write again what was not written.
    Persist,
}

/// An exchange under way.
#[derive(Debug)]
struct Sent {
    to: Option<NodeId>,
    address: SocketAddr,
    /// The round that it asks to freeze for.
    round: Option<u64>,
}

/// The membership of one node.
pub struct Membership {
    me: NodeId,
    cluster: ClusterId,
    partitions: u16,
    seeds: Vec<SocketAddr>,
    rows: Rows,
    digest: u64,
    /// In force, and durable.
    layout: Arc<Layout>,
    /// The one before it, where it is known.
    previous: Option<Arc<Layout>>,
    /// In force as soon as it is durable.
    candidate: Option<Arc<Layout>>,
    /// What is being made durable.
    writing: Option<Arc<Layout>>,
    /// Something is not durable and not being made so.
    is_dirty: bool,
    /// The last write failed, and it is not time yet to try again.
    holds_off: bool,
    /// What was known at the beginning is durable: the node may be seen.
    has_begun: bool,
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
    round: Round,
    commit: Commit,
    frost: Option<Frost>,
    /// Freezes of the cores that have not ended.
    freezes: u32,
    noted_data: bool,
    is_refused: bool,
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
        let layout = known.and_then(|known| known.layout.clone()).unwrap_or_else(founding);
        let epoch = (u64::from(row.generation) << 48) | birth.start.count;
        let session = Session { epoch, renewals: 0, stamp: birth.start.stamp };
        let identity = Identity { node: me, session, address: birth.start.address };
        let mut membership = Membership {
            me,
            cluster: birth.cluster,
            partitions: birth.partitions,
            seeds: birth.seeds,
            digest: rows.digest(),
            rows,
            layout,
            previous: None,
            candidate: None,
            writing: None,
            is_dirty: true,
            holds_off: false,
            has_begun: false,
            swim: Swim::new(identity, birth.seed),
            alarms: BTreeMap::new(),
            alarms_set: 0,
            stretch: 0,
            exchanges: BTreeMap::new(),
            exchanges_begun: 0,
            compared: BTreeMap::new(),
            reach: reach::Reach::default(),
            view: None,
            round: Round { count: 0, is_open: false },
            commit: Commit::Idle,
            frost: None,
            freezes: 0,
            noted_data: false,
            is_refused: false,
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
            Input::Letter { letter, from, says } => self.on_letter(now, letter, from, says, effects),
            Input::Answered { exchange, answer } => self.on_answered(now, exchange, answer, effects),
            Input::Persisted(is_durable) => self.on_persisted(now, is_durable, effects),
            Input::Frozen(is_empty) => self.on_frozen(now, is_empty, effects),
            Input::Differs(stamp) => self.on_differs(now, stamp, effects),
            Input::Order { .. } | Input::Reached { .. } => todo!("change"),
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
            layout: Some(Arc::clone(&self.layout)),
            round: self.round,
        }
    }

    /// The rows.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    fn on_packet(&mut self, now: Instant, from: SocketAddr, packet: &Packet, effects: &mut Vec<Effect>) {
        if packet.sender == self.me {
            return;
        }
        let mut wants = SwimWants::default();
        self.swim.on_payload(&packet.payload, &mut wants);
        self.carry(now, wants, effects);
        if packet.layout != self.layout.stamp() || packet.rows != self.digest {
            let address = self.rows.get(packet.sender).map_or(from, |row| row.start.address);
            self.compare_soon(now, packet.sender, address, effects);
        }
    }

    /// Whose layout differs is not told: a few members are asked, and the others hear of it by gossip.
    fn on_differs(&mut self, now: Instant, stamp: LayoutStamp, effects: &mut Vec<Effect>) {
        if stamp == self.layout.stamp() {
            return;
        }
        let others = self.rows.iter().filter(|row| row.node != self.me && self.answers(row.node));
        let others: Vec<_> = others.map(|row| (row.node, row.start.address)).take(ASKED_MAX).collect();
        for (node, address) in others {
            self.compare_soon(now, node, address, effects);
        }
    }

    fn on_letter(&mut self, now: Instant, letter: LetterId, from: NodeId, says: Letter, effects: &mut Vec<Effect>) {
        match says {
            Letter::Compare(theirs) => {
                let answer = Answer::Knowledge(Box::new(self.knowledge()));
                effects.push(Effect::Answer { letter, answer });
                self.learn(Some(from), &theirs, effects);
            }
            Letter::Freeze { number, round } => self.on_freeze(now, Some(letter), from, number, round, effects),
        }
    }

    fn on_answered(
        &mut self,
        now: Instant,
        exchange: ExchangeId,
        answer: Result<Answer, Unanswered>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Sent { to, address, round }) = self.exchanges.remove(&exchange) else {
            return;
        };
        match (answer, round, to) {
            (Ok(Answer::Frozen { is_empty }), Some(round), Some(to)) => {
                self.on_member_frozen(now, to, round, is_empty, effects);
            }
            (_, Some(round), Some(to)) => self.on_member_frozen(now, to, round, false, effects),
            (Ok(Answer::Knowledge(theirs)), _, to) => self.learn(to, &theirs, effects),
            (Err(Unanswered::Foreign { theirs }), ..) => effects.push(Effect::Note(Note::Foreign { address, theirs })),
            (Ok(Answer::Frozen { .. }) | Err(Unanswered::Silent), ..) => {}
        }
    }

    fn on_persisted(&mut self, now: Instant, is_durable: bool, effects: &mut Vec<Effect>) {
        let Some(written) = self.writing.take() else {
            return;
        };
        if !is_durable {
            (self.is_dirty, self.holds_off) = (true, true);
            effects.push(Effect::Note(Note::NotPersisted));
            return self.set(now + PERSIST_RETRY, Alarm::Persist);
        }
        if !self.has_begun {
            self.has_begun = true;
            self.set(now, Alarm::Reach);
        }
        if self.candidate.as_ref().is_some_and(|candidate| candidate.stamp() == written.stamp()) {
            self.candidate = None;
        }
        if written.stamp() != self.layout.stamp() {
            self.previous = Some(std::mem::replace(&mut self.layout, written));
            let (stamp, nodes) = (self.layout.stamp(), self.layout.rows().len());
            effects.push(Effect::Note(Note::Layout { stamp, nodes }));
            self.on_layout(now, effects);
        }
    }

    fn on_tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let first = self.alarms.first_key_value().map(|((due, _), _)| *due);
        let late = first.map_or(Duration::ZERO, |due| now.since(due));
        if LATE_MIN < late {
            self.stretch = (self.stretch + 1).min(STRETCH_MAX);
            if VERDICT_WAIT_MAX < late {
                effects.push(Effect::Note(Note::Late { late }));
            }
        }
        // What an alarm sets is due later than now, or the loop would not end.
        let due = self.alarms.split_off(&(now + Duration::from_micros(1), 0));
        for (_, alarm) in std::mem::replace(&mut self.alarms, due) {
            self.on_alarm(now, late, alarm, effects);
        }
    }

    fn on_alarm(&mut self, now: Instant, late: Duration, alarm: Alarm, effects: &mut Vec<Effect>) {
        match alarm {
            // What the others have said meanwhile is still to be read.
            Alarm::Swim(timer, false) if LATE_MIN < late && swim::is_verdict(&timer) => {
                self.set(now + PROBE_RTT + late.min(VERDICT_WAIT_MAX), Alarm::Swim(timer, true));
            }
            Alarm::Swim(timer, _) => {
                if late <= LATE_MIN && swim::is_verdict(&timer) {
                    self.stretch = self.stretch.saturating_sub(1);
                }
                let mut wants = SwimWants::default();
                self.swim.on_timer(timer, &mut wants);
                self.carry(now, wants, effects);
            }
            Alarm::Reach => self.on_reach(now, effects),
            Alarm::Gathered => self.on_gathered(now, effects),
            Alarm::RoundOver(count) => self.on_round_over(now, count, effects),
            Alarm::Melt => self.on_melt(now, effects),
            Alarm::Persist => self.holds_off = false,
        }
    }

    /// Learns what another member knows.
    fn learn(&mut self, from: Option<NodeId>, theirs: &Knowledge, effects: &mut Vec<Effect>) {
        if theirs.cluster != Some(self.cluster) || theirs.partitions != self.partitions {
            return;
        }
        if let Some(refusal) = self.refusal(theirs) {
            self.is_refused = true;
            return effects.push(Effect::Refuse(refusal));
        }
        let joined = theirs.rows.iter().filter(|row| self.rows.get(row.node).is_none());
        for name in joined.map(|row| Arc::clone(&row.name)) {
            effects.push(Effect::Note(Note::Staged { name }));
        }
        if self.rows.join(&theirs.rows) {
            self.touch();
        }
        if let Some(layout) = &theirs.layout {
            self.learn_layout(layout, effects);
        }
        if let Some(from) = from {
            self.on_round(from, theirs.round, effects);
        }
    }

    /// Why this node may not go on, by what another one knows of it.
    fn refusal(&self, theirs: &Knowledge) -> Option<Refusal> {
        let (mine, row) = (self.own(), theirs.rows.get(self.me)?);
        let start = (mine.start.count, mine.start.stamp);
        // Of two that claim the same, one goes on: the one that all rows join to.
        let is_behind = (mine.life(), start) < (row.life(), (row.start.count, row.start.stamp));
        let is_removed = mine.life() == row.life() && row.state == RowState::Removed;
        if !is_behind && !is_removed {
            return None;
        }
        past::judge(row, mine.incarnation, start, true).err()
    }

    fn learn_layout(&mut self, layout: &Arc<Layout>, effects: &mut Vec<Effect>) {
        let newest = self.candidate.as_ref().unwrap_or(&self.layout);
        if !layout.stamp().is_newer_than(newest.stamp()) {
            return;
        }
        let number = layout.stamp().number;
        let before = [Some(&self.layout), self.previous.as_ref()];
        let before = before.into_iter().flatten().find(|before| before.stamp().number + 1 == number);
        // Where this node has missed some, the rules are all that it can be judged by.
        let before = before.map_or_else(|| (layout.partitions() != self.partitions).then_some(&self.layout), Some);
        match layout.check(before.map(|before| &**before)) {
            Ok(()) => {
                self.candidate = Some(Arc::clone(layout));
                self.is_dirty = true;
            }
            Err(rule) => effects.push(Effect::Note(Note::Unruly { stamp: layout.stamp(), rule })),
        }
    }

    /// What follows from whatever has changed.
    fn follow(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.is_refused {
            return;
        }
        self.mark_members();
        self.melt(effects);
        self.consider(now, effects);
        self.persist(effects);
        self.show(effects);
    }

    /// Who stands in the layout is a member.
    fn mark_members(&mut self) {
        let nodes = self.layout.rows().iter().map(|row| row.node);
        let staged = |node: &NodeId| self.rows.get(*node).is_some_and(|row| row.state == RowState::Staged);
        let staged: Vec<NodeId> = nodes.filter(staged).collect();
        if staged.is_empty() {
            return;
        }
        for node in staged {
            self.rows.get_mut(node).expect("it was just there").state = RowState::Member;
        }
        self.touch();
    }

    fn persist(&mut self, effects: &mut Vec<Effect>) {
        if !self.is_dirty || self.holds_off || self.writing.is_some() {
            return;
        }
        self.is_dirty = false;
        let layout = Arc::clone(self.candidate.as_ref().unwrap_or(&self.layout));
        self.writing = Some(Arc::clone(&layout));
        effects.push(Effect::Persist(Box::new(Durable {
            cluster: self.cluster,
            partitions: self.partitions,
            me: self.me,
            rows: self.rows.clone(),
            layout: Some(layout),
        })));
    }

    /// Shows the cluster anew if it is seen otherwise.
    fn show(&mut self, effects: &mut Vec<Effect>) {
        if !self.has_begun {
            return;
        }
        let members = self.rows.iter().filter(|row| row.state != RowState::Removed).map(|row| self.member(row));
        let members: Vec<Member> = members.collect();
        if let Some(view) = &self.view {
            if view.layout.stamp() == self.layout.stamp() && view.members == members {
                return;
            }
            for member in &members {
                let before = view.member(member.node).map(|before| before.liveness);
                // One that was only heard of has not gone.
                if before.unwrap_or(Liveness::Down) != member.liveness {
                    let (name, liveness) = (Arc::clone(&member.name), member.liveness);
                    effects.push(Effect::Note(Note::Liveness { name, liveness }));
                }
            }
        }
        let epoch = 1 + self.view.as_ref().map_or(0, |view| view.epoch);
        let view = Arc::new(View { me: self.me, epoch, layout: Arc::clone(&self.layout), change: None, members });
        self.view = Some(Arc::clone(&view));
        effects.push(Effect::View(view));
    }

    fn member(&self, row: &Row) -> Member {
        Member {
            node: row.node,
            name: Arc::clone(&row.name),
            incarnation: row.incarnation,
            is_removed: row.state == RowState::Removed,
            address: row.start.address,
            http: row.start.http,
            cores: row.start.cores,
            liveness: self.liveness(row.node),
        }
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

    fn touch(&mut self) {
        self.digest = self.rows.digest();
        self.is_dirty = true;
    }

    fn set(&mut self, due: Instant, alarm: Alarm) {
        self.alarms_set += 1;
        self.alarms.insert((due, self.alarms_set), alarm);
    }

    /// Carries out what SWIM wants.
    fn carry(&mut self, now: Instant, wants: SwimWants, effects: &mut Vec<Effect>) {
        for (to, payload) in wants.sends {
            let packet = Packet { sender: self.me, layout: self.layout.stamp(), rows: self.digest, payload };
            effects.push(Effect::Send { to, packet });
        }
        for (timer, after) in wants.timers {
            let times = if matches!(timer, swim::Timer::ChangeSuspectToDown { .. }) { 1 + self.stretch } else { 1 };
            self.set(now + after * times, Alarm::Swim(timer, false));
        }
        if wants.has_renewed {
            self.set(now, Alarm::Reach);
        }
    }

    fn compare_soon(&mut self, now: Instant, to: NodeId, address: SocketAddr, effects: &mut Vec<Effect>) {
        let is_recent = self.compared.get(&to).is_some_and(|last| now < *last + COMPARE_PERIOD);
        let is_under_way = self.exchanges.values().any(|sent| sent.to == Some(to) && sent.round.is_none());
        if !is_recent && !is_under_way {
            self.compared.insert(to, now);
            self.compare(Some(to), address, effects);
        }
    }

    fn compare(&mut self, to: Option<NodeId>, address: SocketAddr, effects: &mut Vec<Effect>) {
        let says = Letter::Compare(Box::new(self.knowledge()));
        self.exchange(Sent { to, address, round: None }, says, effects);
    }

    fn exchange(&mut self, sent: Sent, says: Letter, effects: &mut Vec<Effect>) {
        self.exchanges_begun += 1;
        let id = ExchangeId(self.exchanges_begun);
        effects.push(Effect::Exchange { id, to: sent.to, address: sent.address, says });
        self.exchanges.insert(id, sent);
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
