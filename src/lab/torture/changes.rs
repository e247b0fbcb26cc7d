//! Changes of the cluster, in the midst of accidents: nodes join, leave, lose their disks, are removed and replaced.

use std::time::Duration;

use super::fleet::Standing;
use super::log::Bag;
use super::rest::{REST_MAX, node, rows};
use super::trial::{LOOK, Result, Trial, Trouble, millis};
use super::{NODES_MIN, Plan};
use crate::lab::workload::Random;

/// Time for a change with accidents; then they stay away until it is done.
const ROUGH_MAX: Duration = Duration::from_secs(8);

/// Nodes beyond those of the beginning.
const MORE_MAX: usize = 2;

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Join,
    Leave,
    Swap,
    Weight,
    Wipe,
    Remove,
    Replace,
}

/// All kinds.
pub(super) const KINDS: [Change; 7] =
    [Change::Join, Change::Leave, Change::Swap, Change::Weight, Change::Wipe, Change::Remove, Change::Replace];

/// Why a change is not over.
enum Unfinished {
    /// It waits for a commit.
    Staged(String),
    Else(String),
}

impl Change {
    pub(super) fn name(self) -> &'static str {
        match self {
            Change::Join => "join",
            Change::Leave => "leave",
            Change::Swap => "join-and-leave",
            Change::Weight => "weight",
            Change::Wipe => "wipe",
            Change::Remove => "remove",
            Change::Replace => "replace",
        }
    }

    /// Whether a disk is lost by it.
    fn loses(self) -> bool {
        matches!(self, Change::Wipe | Change::Remove | Change::Replace)
    }

    /// Whether there may be such a change of so many nodes.
    fn is_possible(self, nodes: usize, plan: &Plan) -> bool {
        match self {
            Change::Join => nodes < plan.nodes + MORE_MAX,
            Change::Leave | Change::Remove => NODES_MIN < nodes,
            _ => true,
        }
    }
}

impl Trial<'_> {
    /// One after the other, until faults are over.
    pub(super) async fn have_changes(&self, mut random: Random) -> Result<()> {
        let mut bag = Bag::new(&KINDS);
        while !self.is_over() {
            self.pass(millis(&mut random, 100, 1_500)).await;
            let change = bag.draw(&mut random);
            if change.is_possible(self.present().len(), self.plan) {
                self.change(change, &mut random).await?;
            }
        }
        Ok(())
    }

    fn present(&self) -> Vec<usize> {
        self.which(|berth| berth.standing == Standing::Present)
    }

    async fn change(&self, change: Change, random: &mut Random) -> Result<()> {
        if change.loses() {
            self.come_to_rest().await?;
            self.go_on();
        }
        let present = self.present();
        let whom = present[random.index(present.len())];
        let name = self.fleet.borrow().name(whom);
        match change {
            Change::Join => {
                let added = self.fleet.borrow_mut().add()?;
                self.log.fault(change.name(), &self.fleet.borrow().name(added))?;
            }
            Change::Leave | Change::Swap => {
                self.log.fault(change.name(), &name)?;
                if change == Change::Swap {
                    self.fleet.borrow_mut().add()?;
                }
                self.fleet.borrow_mut().set_standing(whom, Standing::Leaving);
                self.turn_clients();
                self.order(&["leave", &name, "--yes"]).await?;
            }
            Change::Weight => {
                let weight = (1 + random.below(3)).to_string();
                self.log.fault(change.name(), &format!("{name} {weight}"))?;
                self.order(&["weight", &name, &weight]).await?;
            }
            Change::Wipe | Change::Remove | Change::Replace => self.lose(change, whom, random).await?,
        }
        self.finish(change.name()).await?;
        if matches!(change, Change::Leave | Change::Swap) {
            self.let_go(whom).await?;
        }
        self.log.line(&format!("{} is done", change.name()))?;
        Ok(())
    }

    /// A node dies, and its disk with it.
    async fn lose(&self, change: Change, whom: usize, random: &mut Random) -> Result<()> {
        self.pass(millis(random, 0, 1_500)).await;
        self.claim(whom).await;
        let name = self.fleet.borrow().name(whom);
        self.log.fault(change.name(), &name)?;
        self.roughen();
        let process = self.fleet.borrow_mut().take(whom);
        if let Some(process) = process {
            process.kill().await?;
        }
        self.smoothen();
        self.fleet.borrow().wipe(whom)?;
        if change == Change::Wipe {
            self.order(&["replace", &name, "--yes"]).await?;
            self.spread(whom, &name).await?;
            self.fleet.borrow_mut().start(whom)?;
            self.fleet.borrow_mut().claim(whom, false);
            return Ok(());
        }
        self.fleet.borrow_mut().set_standing(whom, Standing::Gone);
        self.turn_clients();
        if change == Change::Replace {
            let by = self.fleet.borrow_mut().add()?;
            let by = self.fleet.borrow().name(by);
            self.order(&["replace", &name, "--by", &by, "--yes"]).await
        } else {
            self.order(&["remove", &name, "--yes"]).await
        }
    }

    /// Waits until nobody else does anything to a node, and nobody may.
    async fn claim(&self, at: usize) {
        while self.fleet.borrow().berth(at).is_claimed {
            self.pass(LOOK).await;
        }
        self.fleet.borrow_mut().claim(at, true);
    }

    /// An order of an operator, until it is taken: what may not be yet is refused.
    async fn order(&self, arguments: &[&str]) -> Result<()> {
        let what = arguments.join(" ");
        let words = [&["cluster"], arguments].concat();
        self.until(&what, async |via| Ok(self.sloop(via, &words).await?.err())).await
    }

    /// Waits until all others know that a node is to be replaced: whoever does not refuses the new one its name.
    async fn spread(&self, whom: usize, name: &str) -> Result<()> {
        self.until(&format!("all hear that {name} is replaced"), async |_| {
            for at in self.which(|berth| berth.standing == Standing::Present).into_iter().filter(|at| *at != whom) {
                if !self.fleet.borrow().berth(at).is_free() {
                    return Ok(Some(format!("{} is away", self.fleet.borrow().name(at))));
                }
                let plan = match self.staged(at).await? {
                    Ok(plan) => plan,
                    Err(why) => return Ok(Some(why)),
                };
                let is_it = |staged: &serde_json::Value| staged["change"] == "replace" && staged["node"] == name;
                if !plan["staged"].as_array().is_some_and(|staged| staged.iter().any(is_it)) {
                    return Ok(Some(format!("{} has not heard of it", self.fleet.borrow().name(at))));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Commits what is staged, until the nodes that are there are the layout and nothing is left to change.
    async fn finish(&self, what: &str) -> Result<()> {
        self.until(what, async |via| match self.unfinished(via).await? {
            Some(Unfinished::Staged(staged)) => {
                let committed = self.sloop(via, &["cluster", "commit", "--yes"]).await?;
                Ok(Some(committed.err().unwrap_or(staged)))
            }
            Some(Unfinished::Else(reason)) => Ok(Some(reason)),
            None => Ok(None),
        })
        .await?;
        self.turn_clients();
        Ok(())
    }

    /// Why there is something left to change, as this node sees it.
    async fn unfinished(&self, via: usize) -> Result<Option<Unfinished>> {
        let plan = match self.staged(via).await? {
            Ok(plan) => plan,
            Err(why) => return Ok(Some(Unfinished::Else(why))),
        };
        let staged = plan["staged"].as_array().map_or(&[][..], Vec::as_slice);
        let is_changing = !plan["pending"].is_null();
        // A change that began before all had heard of a removal waits for who is removed, until that is committed too.
        if is_changing && !staged.iter().any(|staged| staged["change"] == "remove") {
            return Ok(Some(Unfinished::Else("a change is under way".to_owned())));
        }
        if !staged.is_empty() {
            return Ok(Some(Unfinished::Staged(format!("staged: {}", plan["staged"]))));
        }
        let cluster = match self.cluster(via).await? {
            Ok(cluster) => cluster,
            Err(why) => return Ok(Some(Unfinished::Else(why))),
        };
        let is_member = |name: &str| node(&cluster, name).is_some_and(|node| node["state"] == "member");
        for at in self.which(|_| true) {
            let (name, standing) = (self.fleet.borrow().name(at), self.fleet.borrow().berth(at).standing);
            if is_member(&name) != (standing == Standing::Present) {
                let nodes: Vec<String> =
                    rows(&cluster).map(|node| format!("{}: {}", node["name"], node["state"])).collect();
                return Ok(Some(Unfinished::Else(format!("{name} is to be {standing:?}: {}", nodes.join(", ")))));
            }
        }
        Ok(None)
    }

    /// Waits until a node that leaves has handed over all, and stops it.
    async fn let_go(&self, whom: usize) -> Result<()> {
        let name = self.fleet.borrow().name(whom);
        self.until(&format!("{name} leaves"), async |via| {
            let cluster = match self.cluster(via).await? {
                Ok(cluster) => cluster,
                Err(why) => return Ok(Some(why)),
            };
            let state = node(&cluster, &name).map(|node| node["state"].clone());
            Ok(state.filter(|state| state != "removed").map(|state| format!("it is {state}")))
        })
        .await?;
        self.claim(whom).await;
        self.fleet.borrow_mut().set_standing(whom, Standing::Gone);
        self.roughen();
        let process = self.fleet.borrow_mut().take(whom);
        let complaint = match process {
            Some(process) => process.stop().await?.complaint(),
            None => None,
        };
        self.smoothen();
        complaint.map_or(Ok(()), |complaint| Err(Trouble::Broken(complaint)))
    }

    /// Tries through one node after the other until there is no reason against it. Where it takes long, accidents stay
    /// away; where it is not done then either, something is broken.
    async fn until(&self, what: &str, mut unmet: impl AsyncFnMut(usize) -> Result<Option<String>>) -> Result<()> {
        let (begun, mut turn, mut last) = (self.log.time(), 0, String::new());
        let was_calm = self.is_calm.get();
        loop {
            self.look()?;
            let free = self.which(|berth| berth.is_free() && berth.standing == Standing::Present);
            let waited = self.log.time() - begun;
            if !free.is_empty() {
                turn += 1;
                let Some(reason) = unmet(free[turn % free.len()]).await? else { break };
                // Two nodes refuse for one reason.
                let reason = reason.split_once(" refused: ").map_or(&*reason, |(_, reason)| reason);
                if reason != last {
                    self.log.line(&format!("{what}: {reason}"))?;
                    last = reason.to_owned();
                }
            }
            if ROUGH_MAX < waited && !self.is_calm.get() {
                self.log.line(&format!("{what} takes long: accidents stay away"))?;
                self.calm().await;
            }
            if ROUGH_MAX + REST_MAX < waited {
                return Err(Trouble::Broken(format!("{what} was not done within {waited:?}: {last}")));
            }
            self.pass(LOOK).await;
        }
        self.is_calm.set(was_calm);
        Ok(())
    }
}
