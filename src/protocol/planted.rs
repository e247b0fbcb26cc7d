//! Faults that are planted on purpose, so that the rehearsal can show that it would find them (docs/SIMULATION.md).
//!
//! Each stands behind one switch where the mistake would be made. Only `sim` makes a value that turns one on;
//! everywhere else there is [`Planted::NONE`].

/// One planted fault, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Planted(Option<Bug>);

impl Planted {
    /// None.
    pub const NONE: Planted = Planted(None);

    /// This one. For `sim` only: a wall in `tests/tidy.rs`.
    pub fn bug(bug: Bug) -> Planted {
        Planted(Some(bug))
    }

    /// Whether it is this one.
    pub fn is(self, bug: Bug) -> bool {
        self.0 == Some(bug)
    }
}

macro_rules! bugs {
    ($($(#[doc = $doc:literal])* $bug:ident $name:literal,)*) => {
        /// The faults that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug {
            $($(#[doc = $doc])* $bug,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Bug] = &[$(Bug::$bug,)*];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Bug::$bug => $name,)*
                }
            }

            /// What is wrong with it.
            pub fn about(self) -> &'static str {
                match self {
                    $(Bug::$bug => concat!($($doc,)*).trim_ascii(),)*
                }
            }
        }
    };
}

bugs! {
    /// A copy counts when its record is queued, before it is durable.
    AckBeforeSync "ack-before-sync",
    /// After a crash a core mints on as the actor of its last life, from what it finds durable.
    ActorKept "actor-kept",
    /// Read repair mints a new version in place of joining the ones that are there.
    RepairMints "repair-mints",
    /// A lone version joins a set that has not seen what it was minted upon.
    LoneVersion "lone-version",
    /// Records behind a torn one are replayed as if it had never been written.
    TailKept "tail-kept",
    /// A record of an earlier life of its segment verifies.
    OldLife "old-life",
    /// Of each log only the first segment is replayed.
    FirstSegment "first-segment",
    /// A hint is dropped when it is sent, before its target has it.
    HintForgotten "hint-forgotten",
    /// A hint that counted towards W is dropped where there are many.
    CountedHintDropped "counted-hint-dropped",
    /// A fallback that stands in for two owners counts twice.
    FallbackTwice "fallback-twice",
    /// Tombstones go when they are old, whoever has not seen them.
    TombstoneTimer "tombstone-timer",
    /// The members that own nothing of a partition are not asked before its tombstones go.
    OwnersOnly "owners-only",
    /// What was sent before a round of tombstones is taken after it.
    NoFence "no-fence",
    /// The join of two sets drops one of several concurrent siblings.
    SiblingDropped "sibling-dropped",
    /// During a change a write counts W of the owners of both layouts together.
    UnionQuorum "union-quorum",
    /// A new owner fetches from one of the old ones only.
    OneSource "one-source",
    /// Requests that are under way when owners change are not counted anew.
    NoDrain "no-drain",
    /// A member goes on in a change when most have marked, not all.
    MarksOfMost "marks-of-most",
    /// A second change begins while another one is under way.
    ChangesApart "changes-apart",
    /// A replica takes what comes under an older layout than its own.
    StaleLayout "stale-layout",
    /// A node hands on what was handed to it.
    EndlessForward "endless-forward",
    /// Of those that may answer a read, who is silent is asked first, and nobody beside.
    DeadReader "dead-reader",
    /// An operation is known by its id alone, whatever its key.
    IdAlone "id-alone",
    /// A context is taken for any key.
    ForeignContext "foreign-context",
    /// A former owner deletes what it held before the new owners have it.
    EarlyCleanup "early-cleanup",
    /// What a write does to a leaf of the tree is done twice.
    LeafTwice "leaf-twice",
}
