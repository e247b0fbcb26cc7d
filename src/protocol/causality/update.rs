//! One write: minted by the coordinator upon what it holds, and carried to those who hold as much.

use smallvec::SmallVec;

use super::{Context, Operation, Siblings, Version, VersionVector};
use crate::protocol::config::{CLOCK_ENTRIES_MAX, SET_BYTES_MAX, SIBLINGS_MAX};
use crate::protocol::types::{Dot, Value, WallTime};

/// Which versions a write replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Supersedes {
    /// Everything that the coordinator holds when it mints: a write without a context.
    Held,
    /// Nothing: the writer asks for a sibling in any case.
    Nothing,
    /// Exactly what the writer has seen.
    Seen(Context),
}

/// What a client asks to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The value; `None` deletes.
    pub value: Option<Value>,
    /// What it replaces.
    pub supersedes: Supersedes,
    /// The client's name for it.
    pub operation: Option<Box<Operation>>,
    /// The coordinator's wall clock.
    pub written_at: WallTime,
}

/// One version with what it was minted upon: enough for a replica that has seen as much, and what the log keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The new version.
    pub version: Version,
    /// What the coordinator's set had seen before.
    pub upon: VersionVector,
    /// What it replaces, among what it was minted upon.
    pub supersedes: Supersedes,
}

/// What minting gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minted {
    /// The coordinator's set with the write in it.
    pub set: Siblings,
    /// The write, as it travels and as it is logged.
    pub update: Update,
    /// The versions that it replaced here, by dot.
    pub superseded: Vec<Dot>,
    /// What the writer has now seen: what it replaced, and its own version.
    pub context: Context,
}

/// A client's write would take its set beyond a limit. Nothing was minted; read the key and write with its context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetLimit {
    /// Too many concurrent versions.
    #[error("the write would leave {siblings} siblings, allowed are {max}: read the key and write with its context")]
    Siblings {
        /// Siblings that the write would leave.
        siblings: usize,
        /// [`SIBLINGS_MAX`].
        max: usize,
    },
    /// Too many bytes in one set.
    #[error("the write would leave a set of {bytes} bytes, allowed are {max}: read the key and write with its context")]
    Bytes {
        /// Bytes that the write would leave.
        bytes: usize,
        /// [`SET_BYTES_MAX`].
        max: usize,
    },
    /// Too many actors in the set's vector.
    #[error("the write would leave a clock of {entries} entries, allowed are {max}")]
    Clock {
        /// Entries that the write would leave.
        entries: usize,
        /// [`CLOCK_ENTRIES_MAX`].
        max: usize,
    },
}

/// The receiver has not seen all that the version was minted upon; it must ask for the whole set. Taking the lone
/// version would silently drop what was missed before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a lone version was minted upon more than this set has seen: ask for the whole set")]
pub struct Behind;

impl Siblings {
    /// Mints one version upon this set.
    ///
    /// # Errors
    /// [`SetLimit`] when the set would pass a limit and grow. Nothing is changed.
    ///
    /// # Panics
    /// When `dot` was seen before: a dot is used once.
    pub fn mint(&self, dot: Dot, write: Write) -> Result<Minted, SetLimit> {
        assert!(!self.vector.covers(dot), "dot {dot} is minted a second time");
        let Write { value, supersedes, operation, written_at } = write;
        let version = Version { dot, value, written_at, expires_at: None, operation };
        let update = Update { version, upon: self.vector.clone(), supersedes };
        let set = self.with(&update);
        self.within_limits(&set)?;
        let superseded: Vec<Dot> = self.versions.iter().map(|old| old.dot).filter(|old| !set.holds(*old)).collect();
        let context = context_after(&set, &update);
        Ok(Minted { set, update, superseded, context })
    }

    /// Takes in a lone version. One that was seen before changes nothing.
    ///
    /// # Errors
    /// [`Behind`] when this set has not seen all that the version was minted upon.
    pub fn apply(&self, update: &Update) -> Result<Siblings, Behind> {
        if self.vector.covers(update.version.dot) {
            return Ok(self.clone());
        }
        if self.vector.descends(&update.upon) { Ok(self.with(update)) } else { Err(Behind) }
    }

    fn with(&self, update: &Update) -> Siblings {
        let mut versions: SmallVec<[Version; 1]> =
            self.versions.iter().filter(|old| !update.replaces(old.dot)).cloned().collect();
        let at = versions.partition_point(|old| old.dot < update.version.dot);
        versions.insert(at, update.version.clone());
        let mut vector = self.vector.clone();
        if let Supersedes::Seen(context) = &update.supersedes {
            vector.join(context.vector());
        }
        vector.see(update.version.dot);
        Siblings { vector, versions }
    }

    /// A write that makes a set smaller is let through even where the set stays beyond a limit: merges may have
    /// taken it there, and only writes can bring it back.
    fn within_limits(&self, after: &Siblings) -> Result<(), SetLimit> {
        let beyond = |before: usize, after: usize, max: usize| after > max && after > before;
        let (siblings, bytes, entries) = (after.versions.len(), after.bytes(), after.vector.len());
        if beyond(self.versions.len(), siblings, SIBLINGS_MAX) {
            return Err(SetLimit::Siblings { siblings, max: SIBLINGS_MAX });
        }
        if beyond(self.bytes(), bytes, SET_BYTES_MAX) {
            return Err(SetLimit::Bytes { bytes, max: SET_BYTES_MAX });
        }
        if beyond(self.vector.len(), entries, CLOCK_ENTRIES_MAX) {
            return Err(SetLimit::Clock { entries, max: CLOCK_ENTRIES_MAX });
        }
        Ok(())
    }
}

impl Update {
    /// Whether it replaces the version of this dot.
    fn replaces(&self, dot: Dot) -> bool {
        match &self.supersedes {
            Supersedes::Held => self.upon.covers(dot),
            Supersedes::Nothing => false,
            // A dot apart counts where the coordinator had met it. Elsewhere its set could not say so: a dot alone does
            // not fit into a vector, and a lone version must do what its coordinator's set does.
            Supersedes::Seen(context) => {
                context.vector().covers(dot) || (context.dots().contains(&dot) && self.upon.covers(dot))
            }
        }
    }

    /// The whole set after this update, when the update alone tells it: it replaces all that it was minted upon.
    pub fn whole(&self) -> Option<Siblings> {
        let replaces_all = match &self.supersedes {
            Supersedes::Held => true,
            Supersedes::Nothing => self.upon.is_empty(),
            Supersedes::Seen(context) => context.vector().descends(&self.upon),
        };
        replaces_all.then(|| {
            let before = Siblings { vector: self.upon.clone(), versions: SmallVec::new() };
            before.with(self)
        })
    }
}

/// What a writer has seen once its write is done: the whole set where its version is alone. Where siblings stay beside
/// it, its own dot must stand apart: as an entry of the vector it would claim siblings of the same actor that the
/// writer never saw.
fn context_after(set: &Siblings, update: &Update) -> Context {
    let before = match &update.supersedes {
        Supersedes::Seen(context) => context,
        Supersedes::Held | Supersedes::Nothing => &Context::default(),
    };
    if set.versions.len() == 1 {
        before.after(&set.vector, None)
    } else {
        before.after(&set.vector, Some(update.version.dot))
    }
}
