//! What the cores of this node are shown of the cluster.

use std::sync::Arc;

use super::io::{Effect, Note};
use super::row::Row;
use super::{Layout, Liveness, Membership, Step, View};
use crate::protocol::ring::{Change, Member};

impl Membership {
    /// Shows the cluster anew if it is seen otherwise.
    pub(super) fn show(&mut self, effects: &mut Vec<Effect>) {
        if !self.has_begun {
            return;
        }
        // A removed one is seen until it stands in no layout any more.
        let is_seen = |row: &&Row| !row.is_removed() || self.layouts.has_place(row.node);
        let members: Vec<Member> = self.rows.iter().filter(is_seen).map(|row| self.member(row)).collect();
        if let Some(view) = &self.view {
            if self.is_shown(view) && view.members == members {
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
        let layout = Arc::clone(self.read_layout());
        let view = Arc::new(View { me: self.me, epoch, layout, change: self.change(), members });
        self.view = Some(Arc::clone(&view));
        effects.push(Effect::View(view));
    }

    fn is_shown(&self, view: &View) -> bool {
        let shown = view.change.as_ref().map(|change| (change.pending.stamp(), change.step));
        let now = self.layouts.pending.as_ref().map(|pending| (pending.stamp(), self.step));
        view.layout.stamp() == self.read_layout().stamp() && shown == now
    }

    /// The layout that reads go by.
    fn read_layout(&self) -> &Arc<Layout> {
        match &self.layouts.pending {
            Some(pending) if self.step == Step::Read => pending,
            _ => &self.layouts.stored,
        }
    }

    fn change(&self) -> Option<Arc<Change>> {
        let pending = Arc::clone(self.layouts.pending.as_ref()?);
        let same = |change: &&Arc<Change>| change.pending.stamp() == pending.stamp() && change.step == self.step;
        let shown = self.view.as_ref().and_then(|view| view.change.as_ref()).filter(same);
        let anew = || Arc::new(Change { stored: Arc::clone(&self.layouts.stored), pending, step: self.step });
        Some(shown.cloned().unwrap_or_else(anew))
    }

    fn member(&self, row: &Row) -> Member {
        // One that only stood still may answer before it hears that it was removed, with what it never fetched.
        let is_removed = row.is_removed();
        let liveness = if is_removed { Liveness::Down } else { self.liveness(row.node) };
        Member {
            node: row.node,
            name: Arc::clone(&row.name),
            incarnation: row.incarnation,
            is_removed,
            address: row.start.address,
            http: row.start.http,
            cores: row.start.cores,
            liveness,
        }
    }
}
