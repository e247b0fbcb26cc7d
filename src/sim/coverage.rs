//! What a run has reached: faults by kind, errors, and states of the state machines. What is never reached is never
//! tested.

use crate::protocol::io::{Append, Change};
use crate::protocol::membership::{Note, OrderRefused, Refusal};
use crate::protocol::message::{Failure, Outcome, Reply};
use crate::protocol::peer::{Ask, CollectStep, Refused, Told, Unheard};
use crate::protocol::ring::Step;
use crate::store::wal::Replay;

macro_rules! reaches {
    ($($kind:ident { $($variant:ident $name:literal,)* })*) => {
        /// Something that a run can reach.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "their names say it")]
        pub enum Reach {
            $($($variant,)*)*
        }

        /// What kind of thing it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "their names say it")]
        pub enum Kind {
            $($kind,)*
        }

        impl Reach {
            /// All of them.
            pub const ALL: &[Reach] = &[$($(Reach::$variant,)*)*];

            /// What people call it.
            pub fn name(self) -> &'static str {
                match self {
                    $($(Reach::$variant => $name,)*)*
                }
            }

            /// What kind of thing it is.
            pub fn kind(self) -> Kind {
                match self {
                    $($(Reach::$variant => Kind::$kind,)*)*
                }
            }
        }
    };
}

reaches! {
    Fault {
        Lost "message lost",
        Late "message late",
        Doubled "message doubled",
        Swallowed "message into a cut",
        Clogged "message found its way clogged",
        Crash "process killed",
        PowerLoss "power lost",
        Stall "process stalled",
        ControlStall "membership stalled",
        CoreStall "core stalled",
        Restart "process restarted cleanly",
        Rolling "rolling restart",
        CutOneWay "way cut in one direction",
        CutTwoWays "ways cut in both directions",
        Isolated "node cut off",
        SlowWay "slow way",
        ClogWay "clogged way",
        Reset "connections reset",
        SlowNode "slow node",
        SlowDisk "slow disk",
        FullDisk "full disk",
        BrokenLog "log that fails",
        BitFlip "bit flipped in a log",
        DiskLost "disk lost",
        ClockJump "clock jumped",
        ClockDrift "clock drifts",
        Join "node joins",
        Leave "node leaves",
        Remove "node removed",
        Replace "node replaced",
        Weight "weight changed",
        Zone "zone changed",
        BadWeather "weather changed",
    }
    Failure {
        ContextRefused "a context refused",
        OperationReused "an operation id reused",
        QuorumImpossible "a quorum impossible",
        QuorumNotMet "a quorum not met",
        Overloaded "overloaded",
        DiskFull "disk full",
        WritesStopped "writes stopped",
        HungUp "connection lost",
        GivenUp "no answer in time",
    }
    Reply {
        Found "a value found",
        Nothing "nothing found",
        Siblings "siblings found",
        Written "written by owners",
        WithFallbacks "written with fallbacks",
        Remembered "remembered from an earlier try",
    }
    Asked {
        AskStore "store",
        AskMerge "merge",
        AskFetch "fetch",
        AskRecall "recall",
        AskForward "forward",
        AskCompare "compare",
        AskTree "tree",
        AskPull "pull",
        RoundAgree "round of tombstones: agree",
        RoundDrain "round of tombstones: drain",
        RoundFence "round of tombstones: fence",
        RoundRetire "round of tombstones: retire",
        RoundForget "round of tombstones: forget",
    }
    Told {
        ToldBehind "behind",
        RefusedLayout "refused: another layout",
        RefusedRound "refused: an older round",
        RefusedHollow "refused: hollow",
        RefusedOverloaded "refused: overloaded",
        RefusedDiskFull "refused: disk full",
        RefusedStopped "refused: writes stopped",
        RefusedTooLate "refused: too late",
        NotSent "not sent",
        NotTaken "not taken",
        AskLost "lost",
    }
    State {
        StepWrite "change: writes by both",
        StepHold "change: holds all",
        StepRead "change: reads by the next",
        ChangeDone "change: done",
        LayoutOutdone "change: lost against another",
        MemberSuspect "member suspected",
        MemberDown "member down",
        OwnLoopLate "own loop late",
        HintKept "hint kept",
        CountedHint "hint that counted kept",
        HintDelivered "hint delivered",
        SetDropped "set dropped",
        TailCut "torn tail cut at a start",
        LogReplayed "log replayed at a start",
        Damage "damage found at a start",
        NodeLeft "node left",
        OrderDone "order done",
        OrderRefused "order refused",
        CameToRest "cluster came to rest",
        TombstonesForgotten "tombstones forgotten",
    }
}

/// How often each was reached.
#[derive(Clone, Debug)]
pub struct Coverage {
    counts: [u64; Reach::ALL.len()],
}

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage { counts: [0; Reach::ALL.len()] }
    }
}

impl Coverage {
    /// It was reached once more.
    pub fn reach(&mut self, reach: Reach) {
        self.counts[reach as usize] += 1;
    }

    /// How often it was.
    pub fn count(&self, reach: Reach) -> u64 {
        self.counts[reach as usize]
    }

    /// How often each of a kind was, those that were never among them.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = (Reach, u64)> {
        let all = Reach::ALL.iter().filter(move |reach| reach.kind() == kind);
        all.map(|reach| (*reach, self.count(*reach)))
    }

    /// Faults of all kinds.
    pub fn faults(&self) -> u64 {
        self.of(Kind::Fault).map(|(_, count)| count).sum()
    }

    /// What another run has reached too.
    pub fn add(&mut self, other: &Coverage) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
    }

    /// What was never reached.
    pub fn never(&self) -> impl Iterator<Item = Reach> {
        Reach::ALL.iter().copied().filter(|reach| self.count(*reach) == 0)
    }

    pub(super) fn asked(&mut self, ask: &Ask) {
        self.reach(match ask {
            Ask::Store(_) => Reach::AskStore,
            Ask::Merge(_) => Reach::AskMerge,
            Ask::Fetch { .. } => Reach::AskFetch,
            Ask::Recall { .. } => Reach::AskRecall,
            Ask::Forward(_) => Reach::AskForward,
            Ask::Compare(_) => Reach::AskCompare,
            Ask::Tree { .. } => Reach::AskTree,
            Ask::Pull(_) => Reach::AskPull,
            Ask::Collect(collect) => match collect.step {
                CollectStep::Agree(_) => Reach::RoundAgree,
                CollectStep::Drain => Reach::RoundDrain,
                CollectStep::Fence => Reach::RoundFence,
                CollectStep::Retire(_) => Reach::RoundRetire,
                CollectStep::Forget(_) => Reach::RoundForget,
            },
        });
    }

    pub(super) fn told(&mut self, told: &Result<Told, Unheard>) {
        let reach = match told {
            Ok(Told::Behind) => Reach::ToldBehind,
            Ok(Told::Refused(refused)) => match refused {
                Refused::Layout(_) => Reach::RefusedLayout,
                Refused::Round(_) => Reach::RefusedRound,
                Refused::Hollow => Reach::RefusedHollow,
                Refused::Overloaded => Reach::RefusedOverloaded,
                Refused::DiskFull => Reach::RefusedDiskFull,
                Refused::WritesStopped => Reach::RefusedStopped,
                Refused::TooLate => Reach::RefusedTooLate,
                Refused::HintsFull | Refused::Unreadable | Refused::Stopping => return,
            },
            Err(Unheard::NotSent) => Reach::NotSent,
            Err(Unheard::NotTaken) => Reach::NotTaken,
            Err(Unheard::Lost) => Reach::AskLost,
            Ok(_) => return,
        };
        self.reach(reach);
    }

    pub(super) fn outcome(&mut self, outcome: &Outcome) {
        let reach = match outcome {
            Ok(Reply::Found(found)) => match found.siblings.len() {
                0 => Reach::Nothing,
                1 => Reach::Found,
                _ => Reach::Siblings,
            },
            Ok(Reply::Written(written)) if written.remembered => Reach::Remembered,
            Ok(Reply::Written(written)) if 0 < written.level.fallbacks => Reach::WithFallbacks,
            Ok(_) => Reach::Written,
            Err(Failure::Context(_)) => Reach::ContextRefused,
            Err(Failure::OperationReused) => Reach::OperationReused,
            Err(Failure::QuorumImpossible { .. }) => Reach::QuorumImpossible,
            Err(Failure::QuorumNotMet { .. }) => Reach::QuorumNotMet,
            Err(Failure::Overloaded { .. }) => Reach::Overloaded,
            Err(Failure::DiskFull) => Reach::DiskFull,
            Err(Failure::WritesStopped { .. }) => Reach::WritesStopped,
            Err(_) => return,
        };
        self.reach(reach);
    }

    pub(super) fn reached(&mut self, step: Step) {
        self.reach(match step {
            Step::Write => Reach::StepWrite,
            Step::Hold => Reach::StepHold,
            Step::Read => Reach::StepRead,
        });
    }

    pub(super) fn appended(&mut self, append: &Append) {
        let reach = match &append.change {
            Change::Hint(hint) if hint.counted => Reach::CountedHint,
            Change::Hint(_) => Reach::HintKept,
            Change::Delivered { .. } => Reach::HintDelivered,
            Change::Drop { .. } => Reach::SetDropped,
            Change::Version(_) | Change::Set { .. } => return,
        };
        self.reach(reach);
    }

    pub(super) fn replayed(&mut self, replayed: &Replay) {
        if !replayed.tails.is_empty() {
            self.reach(Reach::TailCut);
        }
        if replayed.logs.values().any(|records| !records.is_empty()) {
            self.reach(Reach::LogReplayed);
        }
    }

    pub(super) fn ended(&mut self, refusal: &Refusal) {
        if matches!(refusal, Refusal::Left { .. }) {
            self.reach(Reach::NodeLeft);
        }
    }

    pub(super) fn ordered(&mut self, outcome: &Result<(), OrderRefused>) {
        self.reach(if outcome.is_ok() { Reach::OrderDone } else { Reach::OrderRefused });
    }

    pub(super) fn noted(&mut self, note: &Note) {
        use crate::protocol::ring::Liveness;
        let reach = match note {
            Note::Liveness { liveness: Liveness::Suspect, .. } => Reach::MemberSuspect,
            Note::Liveness { liveness: Liveness::Down, .. } => Reach::MemberDown,
            Note::Layout { .. } => Reach::ChangeDone,
            Note::Outdone { .. } => Reach::LayoutOutdone,
            Note::Late { .. } => Reach::OwnLoopLate,
            _ => return,
        };
        self.reach(reach);
    }
}
