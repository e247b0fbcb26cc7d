//! What is asked: which operation on which key with which value. Pure, and the same for the same seed.
//!
//! Mixes and distributions are those of YCSB (Cooper et al., SoCC 2010), so that figures compare. Its `read` is a get
//! here, its `update` a put.

mod random;
mod chooser;
mod source;
mod properties;
#[cfg(test)]
mod tests;

pub use self::chooser::{Chooser, Distribution, Zipfian};
pub use self::properties::{Properties, PropertiesError};
pub use self::random::Random;
pub use self::source::{End, Mix, Share, Source, key_bytes};

/// Bytes of every key: the same for everyone who is compared.
pub const KEY_BYTES: usize = 16;

/// Bytes that all keys begin with.
pub const PREFIX_BYTES: usize = 4;

/// Most keys: what twelve digits can name, and room for as many inserts.
pub const KEYS_MAX: u64 = 500_000_000_000;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Reads a key.
    Get,
    /// Writes a key without having read it.
    Put,
    /// Writes a key that was not there before.
    Insert,
    /// Reads a key, then writes it with the context of that read.
    ReadModifyWrite,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Get, Kind::Put, Kind::Insert, Kind::ReadModifyWrite];

    /// Its name in a report.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Get => "get",
            Kind::Put => "put",
            Kind::Insert => "insert",
            Kind::ReadModifyWrite => "read-modify-write",
        }
    }

    /// Whether it begins with a read.
    pub fn reads(self) -> bool {
        matches!(self, Kind::Get | Kind::ReadModifyWrite)
    }
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What it does.
    pub kind: Kind,
    /// The number of its key; see [`key_bytes`].
    pub key: u64,
}

/// Everything that decides what is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Its name, for the report.
    pub name: String,
    /// The share of each kind of operation.
    pub mix: Mix,
    /// How often which key is chosen.
    pub distribution: Distribution,
    /// Keys that are there, or that a load writes; at least 1 and at most [`KEYS_MAX`].
    pub keys: u64,
    /// Bytes of every value.
    pub value_bytes: usize,
}

/// The workloads that have a name: name, distribution, shares.
const NAMED: [(&str, Distribution, &[Share]); 7] = [
    ("put", Distribution::Uniform, &[(Kind::Put, 1.0)]),
    ("get", Distribution::Uniform, &[(Kind::Get, 1.0)]),
    ("a", Distribution::Zipfian, &[(Kind::Get, 0.5), (Kind::Put, 0.5)]),
    ("b", Distribution::Zipfian, &[(Kind::Get, 0.95), (Kind::Put, 0.05)]),
    ("c", Distribution::Zipfian, &[(Kind::Get, 1.0)]),
    ("d", Distribution::Latest, &[(Kind::Get, 0.95), (Kind::Insert, 0.05)]),
    ("f", Distribution::Zipfian, &[(Kind::Get, 0.5), (Kind::ReadModifyWrite, 0.5)]),
];

impl Workload {
    /// The names that [`Workload::named`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMED.iter().map(|(name, ..)| *name)
    }

    /// The workload of that name, with its own distribution.
    pub fn named(name: &str, keys: u64, value_bytes: usize) -> Option<Workload> {
        let (name, distribution, shares) = NAMED.iter().find(|(known, ..)| *known == name)?;
        let mix = Mix { shares: shares.to_vec() };
        Some(Workload { name: (*name).to_owned(), mix, distribution: *distribution, keys, value_bytes })
    }

    /// What each of `threads` threads does.
    pub fn sources(&self, seed: u64, threads: u64) -> Vec<Source> {
        (0..threads).map(|thread| Source::mixed(self, seed, thread, threads)).collect()
    }

    /// Each thread's part of writing every key once.
    pub fn load(&self, seed: u64, threads: u64) -> Vec<Source> {
        (0..threads).map(|thread| Source::load(self, seed, thread, threads)).collect()
    }
}
