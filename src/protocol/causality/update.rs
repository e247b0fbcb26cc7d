//! One write: minted by the coordinator upon what it holds, and carried to those who hold as much.

use smallvec::{SmallVec, smallvec};

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

/// An [`Update`] whose version stands in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateRef<'a> {
    /// The new version.
    pub version: &'a Version,
    /// What the coordinator's set had seen before.
    pub upon: &'a VersionVector,
    /// What it replaces, among what it was minted upon.
    pub supersedes: &'a Supersedes,
}

/// What minting gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minted {
    /// The coordinator's set with the write in it.
    pub set: Siblings,
    /// Which version of the set the write is.
    pub dot: Dot,
    /// What the coordinator's set had seen before.
    pub upon: VersionVector,
    /// What the write replaces, among what it was minted upon.
    pub supersedes: Supersedes,
    /// The versions that it replaced here, by dot.
    pub superseded: SmallVec<[Dot; 1]>,
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
        let set = self.with(version, &self.vector, &supersedes);
        self.within_limits(&set)?;
        let superseded = self.versions.iter().map(|old| old.dot).filter(|old| !set.holds(*old)).collect();
        let context = context_after(&set, dot, &supersedes);
        Ok(Minted { set, dot, upon: self.vector.clone(), supersedes, superseded, context })
    }

    /// Takes in a lone version. One that was seen before changes nothing.
    ///
    /// # Errors
    /// [`Behind`] when this set has not seen all that the version was minted upon.
    pub fn apply(&self, update: &Update) -> Result<Siblings, Behind> {
        if self.vector.covers(update.version.dot) {
            return Ok(self.clone());
        }
        if !self.vector.descends(&update.upon) {
            return Err(Behind);
        }
        Ok(self.with(update.version.clone(), &update.upon, &update.supersedes))
    }

    /// With a version in it that was minted upon `upon`, which the caller knows this set to have seen.
    pub(in crate::protocol) fn with(
        &self,
        version: Version,
        upon: &VersionVector,
        supersedes: &Supersedes,
    ) -> Siblings {
        let vector = supersedes.vector_after(&self.vector, version.dot);
        let mut versions: SmallVec<[Version; 1]> =
            self.versions.iter().filter(|old| !supersedes.replaces(old.dot, upon)).cloned().collect();
        let at = versions.partition_point(|old| old.dot < version.dot);
        versions.insert(at, version);
        Siblings { vector, versions }
    }

    /// A write that makes a set smaller is let through even where the set stays beyond a limit: joins may have
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

impl Supersedes {
    /// Whether a write that was minted upon `upon` replaces the version of this dot.
    fn replaces(&self, dot: Dot, upon: &VersionVector) -> bool {
        match self {
            Supersedes::Held => upon.covers(dot),
            Supersedes::Nothing => false,
            // A dot apart counts where the coordinator had met it. Elsewhere its set could not say so: a dot alone does
            // not fit into a vector, and a lone version must do what its coordinator's set does.
            Supersedes::Seen(context) => {
                context.vector().covers(dot) || (context.dots().contains(&dot) && upon.covers(dot))
            }
        }
    }

    /// What a set that had seen `before` has seen once it took in the version of this dot.
    fn vector_after(&self, before: &VersionVector, dot: Dot) -> VersionVector {
        let mut vector = before.clone();
        if let Supersedes::Seen(context) = self {
            vector.join(context.vector());
        }
        vector.see(dot);
        vector
    }
}

impl Update {
    /// The same by reference.
    pub fn borrowed(&self) -> UpdateRef<'_> {
        UpdateRef { version: &self.version, upon: &self.upon, supersedes: &self.supersedes }
    }

    /// The whole set after this update, when the update alone tells it: it replaces all that it was minted upon.
    pub fn whole(&self) -> Option<Siblings> {
        let vector = self.borrowed().whole_vector()?;
        Some(Siblings { vector, versions: smallvec![self.version.clone()] })
    }
}

impl UpdateRef<'_> {
    /// The vector of the whole set after this update, whose only version it then is, when the update alone tells it:
    /// it replaces all that it was minted upon.
    pub fn whole_vector(self) -> Option<VersionVector> {
        let replaces_all = match self.supersedes {
            Supersedes::Held => true,
            Supersedes::Nothing => self.upon.is_empty(),
            Supersedes::Seen(context) => context.vector().descends(self.upon),
        };
        replaces_all.then(|| self.supersedes.vector_after(self.upon, self.version.dot))
    }

    /// An update that stands by itself, as it travels.
    pub fn cloned(self) -> Update {
        Update { version: self.version.clone(), upon: self.upon.clone(), supersedes: self.supersedes.clone() }
    }
}

impl Minted {
    /// The write, as it travels and as it is logged.
    pub fn update(&self) -> UpdateRef<'_> {
        let version = self.set.version(self.dot).expect("a set holds what was just minted into it");
        UpdateRef { version, upon: &self.upon, supersedes: &self.supersedes }
    }
}

/// What a writer has seen once its write is done: the whole set where its version is alone. Where siblings stay beside
/// it, its own dot must stand apart: as an entry of the vector it would claim siblings of the same actor that the
/// writer never saw.
fn context_after(set: &Siblings, dot: Dot, supersedes: &Supersedes) -> Context {
    let before = match supersedes {
        Supersedes::Seen(context) => context,
        Supersedes::Held | Supersedes::Nothing => &Context::default(),
    };
    let beside = (set.versions.len() != 1).then_some(dot);
    before.after(&set.vector, beside)
}
