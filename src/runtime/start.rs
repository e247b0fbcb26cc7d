//! What a node is started with, and why it may not start.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::memory::TooLittle;
use super::opening::Torn;
use super::probe::Refused;
use crate::protocol::types::CoreId;
use crate::store::home::{Founding, HomeError};
use crate::store::lsm::LsmError;
use crate::store::recovery::RecoveryError;
use crate::store::wal::ReplayError;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name.
    pub name: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// What the directory is founded as, if it is empty.
    pub founding: Founding,
    /// Data cores, from 1.
    pub cores: u16,
    /// Whether each core's thread is bound to a processor.
    pub pin: bool,
    /// Bytes of memory for everything that holds data.
    pub memory: u64,
    /// Silence after which a connection is dropped.
    pub idle_max: Duration,
    /// Bytes a second that it fetches at most when it gains partitions.
    pub transfer_rate: u64,
    /// How often it compares what it holds with the other owners.
    pub compare_period: Duration,
    /// Whether an owner that is away is owed what it misses, beyond what counted: trials do without.
    pub keeps_hints: bool,
    /// Deletions that are older are forgotten.
    pub tombstone_age: Duration,
}

/// Why a node does not start. Nothing that was stored is lost.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The tree.
    #[error(transparent)]
    Lsm(#[from] LsmError),
    /// A file of the log.
    #[error("cannot read {path}: {cause}")]
    Segment {
        /// Which.
        path: PathBuf,
        /// What the kernel says.
        cause: io::Error,
    },
    /// The logs do not tell what was acknowledged.
    #[error("{folder}: {cause}; restore the data directory from a snapshot, or a copy of the file named")]
    Replay {
        /// Where the segments stand.
        folder: PathBuf,
        /// What is wrong.
        cause: ReplayError,
    },
    /// A part of the data directory is missing, or is of another time than the rest.
    #[error("{folder}: {cause}; restore the data directory from a snapshot, or a copy of all of it")]
    Torn {
        /// The data directory.
        folder: PathBuf,
        /// What is wrong.
        cause: Torn,
    },
    /// Logs and tree do not fit together.
    #[error("{folder}: {cause}; restore the data directory from a snapshot")]
    Recovery {
        /// The data directory.
        folder: PathBuf,
        /// What is wrong.
        cause: RecoveryError,
    },
    /// Too little memory.
    #[error(transparent)]
    Memory(#[from] TooLittle),
    /// The kernel refuses io_uring.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// An executor did not come up.
    #[error("core {core} did not start: {reason}")]
    Executor {
        /// Which.
        core: CoreId,
        /// What it says.
        reason: String,
    },
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(io::Error),
}
