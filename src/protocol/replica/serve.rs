//! What peers ask of this replica: keep a version or a set, tell what is held or remembered.

use std::sync::Arc;

use crate::protocol::antientropy::Shift;
use crate::protocol::causality::{Context, Operation, Siblings, VersionVector};
use crate::protocol::io::{Arrived, Change, Effect, Effects, Held, Standing, Unreadable};
use crate::protocol::peer::{Ask, Known, Merge, Recalled, Refused, Store, Told};
use crate::protocol::planted::Bug;
use crate::protocol::replica::{Remembered, State, Task};
use crate::protocol::shard::{Asker, Load, Shard, Waiting, Whom};
use crate::protocol::types::{AppendId, Dot, Key, NodeId, Now};

/// A peer's question that waits for the state of its key.
#[derive(Debug)]
pub(in crate::protocol) enum Serving {
    Store(Arc<Store>),
    Merge(Merge),
    Recall(Key, Operation),
    /// What is durable, unless it has this digest.
    Fetch(Key, Option<u64>),
}

impl Serving {
    /// The key that it is about.
    pub(in crate::protocol) fn key(&self) -> &Key {
        match self {
            Serving::Store(store) => &store.key,
            Serving::Merge(merge) => &merge.key,
            Serving::Recall(key, _) | Serving::Fetch(key, _) => key,
        }
    }
}

impl Shard {
    /// A peer asks. One that goes by an older layout learns of the newer one first.
    pub(in crate::protocol) fn on_asked(
        &mut self,
        now: Now,
        asker: Asker,
        stand: Standing,
        ask: Ask,
        held: Held,
        effects: &mut Effects,
    ) {
        let (mine, stamp) = (self.view.stamp(), stand.layout);
        let is_outdated = self.view.is_past(stamp) || self.has_read_on(stand, &ask);
        if is_outdated && !self.planted.is(Bug::StaleLayout) {
            return self.tell(asker.whom, Told::Refused(Refused::Layout(mine)), effects);
        }
        if stamp.is_newer_than(mine) {
            effects.push(Effect::Compare(stamp));
        }
        if !self.has_room() {
            return self.tell(asker.whom, Told::Refused(Refused::Overloaded), effects);
        }
        if let Ask::Fetch { key, .. } | Ask::Recall { key, .. } = &ask
            && !self.view.is_read_from(self.ring.partition(key))
        {
            return self.tell(asker.whom, Told::Refused(Refused::Hollow), effects);
        }
        if let Some(round) = self.is_from_before(stand, &ask) {
            return self.tell(asker.whom, Told::Refused(Refused::Round(round)), effects);
        }
        match ask {
            Ask::Compare(compare) => self.on_compare_asked(asker, compare, effects),
            Ask::Tree { partition, branch } => self.on_tree_asked(asker, partition, branch, effects),
            Ask::Pull(pull) => self.on_pull_asked(asker, pull, effects),
            Ask::Collect(collect) => self.on_collect_asked(now, asker, stand, *collect, effects),
            Ask::Forward(request) => self.on_forwarded(now, asker, *request, held, effects),
            Ask::Fetch { key, known } => self.on_fetch(asker, key, known, held, effects),
            Ask::Store(store) => {
                let (key, stands_for) = (store.key.clone(), store.stands_for);
                self.keep(now, asker, key, stands_for, Serving::Store(store), held, effects);
            }
            Ask::Merge(merge) => {
                let (key, stands_for) = (merge.key.clone(), merge.stands_for);
                self.keep(now, asker, key, stands_for, Serving::Merge(merge), held, effects);
            }
            Ask::Recall { key, operation } => {
                let serving = Serving::Recall(key.clone(), operation);
                self.serve_upon(now, asker, key, serving, held, effects);
            }
        }
    }

    /// Whether the asker reads by a layout that this node reads by no more. Nobody who is in the change lags so far
    /// that writes go by the new owners alone; but who stood still, and was removed meanwhile, may.
    fn has_read_on(&self, stand: Standing, ask: &Ask) -> bool {
        let is_behind = stand.layout == self.view.stamp() && !stand.reads && self.view.reads_newest();
        is_behind && matches!(ask, Ask::Fetch { .. } | Ask::Recall { .. })
    }

    fn on_fetch(&mut self, asker: Asker, key: Key, known: Option<u64>, held: Held, effects: &mut Effects) {
        match held {
            Held::Known(set) => self.tell(asker.whom, fetched(self.shown(&key, set), known), effects),
            Held::Unknown => {
                self.wait(asker, Waiting::Serve(Box::new(Serving::Fetch(key.clone(), known))));
                self.load(Load::Copy(asker.whom, 0), key, effects);
            }
        }
    }

    /// The durable copy that a peer asked for has come in.
    pub(in crate::protocol) fn serve_copy(
        &mut self,
        whom: Whom,
        found: Result<State, Unreadable>,
        effects: &mut Effects,
    ) {
        let Some((_, Waiting::Serve(serving))) = self.take(whom) else {
            return;
        };
        let Serving::Fetch(key, known) = *serving else { unreachable!("only a fetch waits for a durable copy") };
        let told = match found {
            Ok(set) => fetched(self.shown(&key, set), known),
            Err(_) => Told::Refused(Refused::Unreadable),
        };
        self.tell(whom, told, effects);
    }

    #[expect(clippy::too_many_arguments, reason = "a question to be served, with what is held of its key")]
    fn keep(
        &mut self,
        now: Now,
        asker: Asker,
        key: Key,
        stands_for: Option<NodeId>,
        serving: Serving,
        held: Held,
        effects: &mut Effects,
    ) {
        if self.stopped {
            return self.tell(asker.whom, Told::Refused(Refused::WritesStopped), effects);
        }
        if stands_for.is_some() && !self.hints.has_room() {
            return self.tell(asker.whom, Told::Refused(Refused::HintsFull), effects);
        }
        self.serve_upon(now, asker, key, serving, held, effects);
    }

    fn serve_upon(&mut self, now: Now, asker: Asker, key: Key, serving: Serving, held: Held, effects: &mut Effects) {
        match self.newest(&key, held) {
            Held::Known(newest) => {
                self.serve(now, asker, serving, newest, effects);
            }
            Held::Unknown => {
                self.wait(asker, Waiting::Serve(Box::new(serving)));
                self.queue(&key, Task::Serve(asker.whom), effects);
            }
        }
    }

    /// Serves a peer upon the newest state of the key, and gives the one after it.
    pub(in crate::protocol) fn serve(
        &mut self,
        now: Now,
        asker: Asker,
        serving: Serving,
        newest: State,
        effects: &mut Effects,
    ) -> State {
        match serving {
            Serving::Store(store) => self.store(now, asker, Arc::unwrap_or_clone(store), newest, effects),
            Serving::Merge(Merge { key, set, remember, stands_for }) => {
                let (newest, append) = self.merge_in(now, &key, &set, remember, newest, effects);
                self.kept(asker, key, stands_for, append, effects);
                newest
            }
            Serving::Recall(key, operation) => {
                let recalled = Recalled { known: self.recall(&key, &operation), set: newest.clone() };
                let append = self.append_of(&key);
                self.tell_durable(asker, Told::Recalled(Box::new(recalled)), append, effects);
                newest
            }
            Serving::Fetch(..) => unreachable!("a fetch reads what is durable"),
        }
    }

    fn store(&mut self, now: Now, asker: Asker, store: Store, newest: State, effects: &mut Effects) -> State {
        if self.stopped {
            self.tell(asker.whom, Told::Refused(Refused::WritesStopped), effects);
            return newest;
        }
        let Store { key, update, remember, stands_for } = store;
        let dot = update.version.dot;
        let before = newest.as_deref().cloned().unwrap_or_default();
        if before.vector().covers(dot) {
            // It came by another way, and may be superseded already; the name of the operation did not come with that.
            let remember = remember.map(|remembered| *remembered).into_iter().collect();
            let before = Arc::new(before);
            let (newest, append) = self.merge_in(now, &key, &before, remember, newest, effects);
            self.kept(asker, key, stands_for, append, effects);
            return newest;
        }
        let is_lone = self.planted.is(Bug::LoneVersion);
        let applied = match is_lone {
            true => Ok(before.with(update.version.clone(), &update.upon, &update.supersedes)),
            false => before.apply(&update),
        };
        let Ok(after) = applied else {
            self.tell(asker.whom, Told::Behind, effects);
            return newest;
        };
        self.look_for_a_past_of_ours(&after);
        if let Some(remembered) = &remember {
            let append = self.appended.next();
            self.operations.remember(now.instant, key.clone(), Remembered::clone(remembered), append);
        }
        let (upon, supersedes) = (update.upon, update.supersedes);
        let came = Arc::new(after);
        let state = Arc::clone(&came);
        let shift = Shift::between(&key, newest.as_deref(), Some(&state));
        let change = if is_lone {
            let remember = remember.into_iter().map(|known| *known).collect();
            Change::Set { state: Arc::clone(&state), came, remember, shift }
        } else {
            Change::Version(Arrived { state: came, dot, upon, supersedes, remember, shift })
        };
        let append = self.append_state(key.clone(), Some(Arc::clone(&state)), change, effects);
        self.kept(asker, key, stands_for, append, effects);
        Some(state)
    }

    /// A copy is appended: the peer is told once it is durable, together with the hint that it may come with.
    fn kept(&mut self, asker: Asker, key: Key, stands_for: Option<NodeId>, append: AppendId, effects: &mut Effects) {
        if self.stopped {
            return self.tell(asker.whom, Told::Refused(Refused::WritesStopped), effects);
        }
        let hint = stands_for.and_then(|owner| self.owe(owner, key, true, effects));
        self.tell_durable(asker, Told::Stored, hint.unwrap_or(append), effects);
    }

    pub(in crate::protocol) fn tell_durable(
        &mut self,
        asker: Asker,
        told: Told,
        append: AppendId,
        effects: &mut Effects,
    ) {
        if self.counts(append) {
            return self.tell(asker.whom, told, effects);
        }
        self.wait(asker, Waiting::Durable(told));
        self.await_append(append, asker.whom);
    }

    /// A whole set for a peer, with what is remembered of the operations that wrote its versions.
    pub(in crate::protocol) fn whole(&self, key: &Key, set: &Arc<Siblings>, stands_for: Option<NodeId>) -> Ask {
        let remember = self.remembered_with(key, set);
        Ask::Merge(Merge { key: key.clone(), set: Arc::clone(set), remember, stands_for })
    }

    /// What is remembered of the operations that wrote the versions of a set.
    pub(in crate::protocol) fn remembered_with(&self, key: &Key, set: &Siblings) -> Vec<Remembered> {
        let operations = set.versions().iter().filter_map(|version| version.operation.as_deref());
        let known = operations.filter_map(|operation| match self.recall(key, operation) {
            Known::Minted(remembered) => Some(*remembered),
            Known::Unknown | Known::Reused => None,
        });
        known.collect()
    }

    /// What to remember of the operations that a set brings, where nothing is known of them. Where the sender knew
    /// nothing either, it is not known what they replaced, nor what their writers had seen but their own versions.
    pub(in crate::protocol) fn remember_of(
        &mut self,
        now: Now,
        key: &Key,
        came: &Siblings,
        mut told: Vec<Remembered>,
    ) -> Vec<Remembered> {
        let named = came.versions().iter().filter_map(|version| Some((version, version.operation.as_deref()?)));
        for (version, operation) in named {
            if !told.iter().any(|remembered| remembered.operation == *operation) {
                told.push(Remembered {
                    operation: operation.clone(),
                    dot: version.dot,
                    written_at: version.written_at,
                    superseded: std::iter::empty::<Dot>().collect(),
                    context: Context::from_parts(VersionVector::default(), [version.dot]),
                });
            }
        }
        told.retain(|remembered| self.recall(key, &remembered.operation) == Known::Unknown);
        let append = self.appended.next();
        for remembered in &told {
            self.operations.remember(now.instant, key.clone(), remembered.clone(), append);
        }
        told
    }
}

/// What a peer is told of a durable copy.
fn fetched(set: State, known: Option<u64>) -> Told {
    match (&set, known) {
        (Some(held), Some(known)) if held.digest() == known => Told::Same,
        _ => Told::Set(set),
    }
}
