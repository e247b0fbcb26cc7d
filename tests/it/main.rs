//! The real binary, on real disks, killed and started again.
//!
//! Each test starts its own node on ports that the kernel chooses. `SLOOP_TEST_ROUNDS` says how often the node of
//! `crash` is killed (20), `SLOOP_TEST_SEED` what its clients do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod bench;
mod clients;
mod crash;
mod faults;
mod harness;
mod http;
mod start;
