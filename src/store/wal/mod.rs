//! The write-ahead log of one core: what it writes, when, and what is read back of it after a crash.
//!
//! A [`log`] is a row of [`segment`]s, each a file that was written full of zeros before its first use and is used
//! again once all of it is in the LSM tree. It is written in group commits, each of which is one write of
//! [`record`]s. [`replay()`] reads the segments of all logs and tells a tail from damage; `writer` does the writing, on
//! glommio.

pub mod log;
pub mod segment;
pub mod record;
pub mod replay;
#[cfg(feature = "daemon")]
pub mod writer;

pub use log::{Log, LogWrite, SegmentWish};
pub use replay::{Damage, Logged, Replay, ReplayError, SegmentFile, Tail, replay};
pub use segment::{Life, SegmentId, SpareSegment};
