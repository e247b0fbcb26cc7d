//! Faults that pass: processes that die and come back or stand still, ways that are cut or slow.

use std::time::Duration;

use rustix::process::Signal;

use super::fleet::Standing;
use super::links::Cut;
use super::log::Bag;
use super::trial::{LOOK, Result, Trial, Trouble, millis};
use crate::lab::workload::Random;

/// What passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accident {
    Kill,
    Restart,
    Stall,
    Pause,
    CutOneWay,
    CutBothWays,
    Isolate,
    Slow,
}

/// All kinds.
pub(super) const KINDS: [Accident; 8] = [
    Accident::Kill,
    Accident::Restart,
    Accident::Stall,
    Accident::Pause,
    Accident::CutOneWay,
    Accident::CutBothWays,
    Accident::Isolate,
    Accident::Slow,
];

impl Accident {
    pub(super) fn name(self) -> &'static str {
        match self {
            Accident::Kill => "kill",
            Accident::Restart => "restart",
            Accident::Stall => "stall",
            Accident::Pause => "pause",
            Accident::CutOneWay => "cut-one-way",
            Accident::CutBothWays => "cut-both-ways",
            Accident::Isolate => "isolate",
            Accident::Slow => "slow-links",
        }
    }
}

impl Trial<'_> {
    /// One after the other, until faults are over.
    pub(super) async fn have_accidents(&self, mut random: Random) -> Result<()> {
        let mut bag = Bag::new(&KINDS);
        while !self.is_over() {
            self.pass(millis(&mut random, 100, 2_000)).await;
            if self.is_calm.get() {
                self.pass(LOOK).await;
                continue;
            }
            self.accidents.set(self.accidents.get() + 1);
            let ended = self.have(bag.draw(&mut random), &mut random).await;
            self.accidents.set(self.accidents.get() - 1);
            ended?;
        }
        Ok(())
    }

    async fn have(&self, accident: Accident, random: &mut Random) -> Result<()> {
        match accident {
            Accident::Kill | Accident::Restart | Accident::Stall | Accident::Pause => {
                let free = self.which(|berth| berth.is_free());
                if free.is_empty() {
                    return Ok(());
                }
                let at = free[random.index(free.len())];
                self.fleet.borrow_mut().claim(at, true);
                let ended = self.hurt(at, accident, random).await;
                self.fleet.borrow_mut().claim(at, false);
                ended
            }
            Accident::CutOneWay | Accident::CutBothWays | Accident::Isolate => self.cut(accident, random).await,
            Accident::Slow => {
                self.log.fault(accident.name(), "every twentieth message is late")?;
                self.fleet.borrow().hold_back(true);
                self.pass(millis(random, 1_000, 4_000)).await;
                self.fleet.borrow().hold_back(false);
                Ok(())
            }
        }
    }

    /// Does something to a process, and undoes it.
    async fn hurt(&self, at: usize, accident: Accident, random: &mut Random) -> Result<()> {
        let name = self.fleet.borrow().name(at);
        let time = match accident {
            // Short of, and beyond, what membership takes for silence.
            Accident::Stall => millis(random, 200, 1_000),
            Accident::Pause => millis(random, 1_500, 6_000),
            _ => millis(random, 0, 3_000),
        };
        self.log.fault(accident.name(), &format!("{name}, {time:?}"))?;
        if matches!(accident, Accident::Stall | Accident::Pause) {
            self.fleet.borrow().signal(at, Signal::STOP);
            self.pass(time).await;
            self.fleet.borrow().signal(at, Signal::CONT);
            return Ok(());
        }
        self.roughen();
        let process = self.fleet.borrow_mut().take(at);
        match process {
            Some(process) if accident == Accident::Kill => process.kill().await?,
            Some(process) => {
                if let Some(complaint) = process.stop().await?.complaint() {
                    return Err(Trouble::Broken(complaint));
                }
            }
            None => {}
        }
        self.smoothen();
        self.pass(time).await;
        // A node that has left meanwhile has ended for good.
        if self.fleet.borrow().berth(at).standing != Standing::Gone {
            self.fleet.borrow_mut().start(at)?;
            self.log.line(&format!("{name} starts again"))?;
        }
        Ok(())
    }

    /// Cuts ways between nodes, and mends them.
    async fn cut(&self, accident: Accident, random: &mut Random) -> Result<()> {
        let mut nodes: Vec<String> = {
            let fleet = self.fleet.borrow();
            let there = fleet.which(|berth| berth.standing != Standing::Gone);
            there.into_iter().map(|at| fleet.name(at)).collect()
        };
        let one = nodes.swap_remove(random.index(nodes.len()));
        if accident != Accident::Isolate {
            nodes = vec![nodes.swap_remove(random.index(nodes.len()))];
        }
        let cut = if random.below(2) == 0 { Cut::Stall } else { Cut::Reset };
        let time = millis(random, 500, 6_000);
        self.log.fault(accident.name(), &format!("{one} from {}, {cut:?}, {time:?}", nodes.join(" ")))?;
        self.roughen();
        self.set_cut(&one, &nodes, accident, |network, from, to| network.cut(from, to, cut));
        self.pass(time).await;
        self.set_cut(&one, &nodes, accident, |network, from, to| network.mend(from, to, cut));
        self.smoothen();
        self.log.line(&format!("{one} from {}: mended", nodes.join(" ")))?;
        Ok(())
    }

    fn set_cut(
        &self,
        one: &str,
        others: &[String],
        accident: Accident,
        set: impl Fn(&super::links::Network, &str, &str),
    ) {
        let fleet = self.fleet.borrow();
        for other in others {
            set(&fleet.network, one, other);
            if accident != Accident::CutOneWay {
                set(&fleet.network, other, one);
            }
        }
    }

    /// Lets all accidents pass, and none begin.
    pub(super) async fn calm(&self) {
        self.is_calm.set(true);
        while 0 < self.accidents.get() {
            self.pass(Duration::from_millis(20)).await;
        }
    }
}
