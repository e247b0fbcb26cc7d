//! TRIES. Real nodes under load: what is asked of them, how fast they answer, and what comes of it.
//!
//! A [`workload`] says which operation on which key comes next: pure, and the same for the same seed. A
//! [`dialect::Dialect`] spells it for one protocol, [`sloop`] for ours. The [`driver`] does it over many connections,
//! the [`tally`] keeps latencies and errors, a [`recorder`] tells a history what was asked and told, and the [`report`]
//! tells people and machines how it went. The `torture` hurts a
//! whole cluster of processes, and judges what its clients were told.

pub mod workload;
pub mod dialect;
pub mod sloop;
pub mod recorder;
pub mod driver;
pub mod tally;
pub mod report;
#[cfg(feature = "daemon")]
pub mod torture;
