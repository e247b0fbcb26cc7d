//! The real binary, on real disks, killed and started again.
//!
//! Each test starts its own node on ports that the kernel chooses. `SLOOP_TEST_SEED` is the seed of everything that is
//! drawn; docs/ARCHITECTURE.md names the counts that can be set.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod bench;
mod clients;
mod cluster;
mod cluster_cli;
mod dev;
mod dice;
mod faults;
mod harness;
mod http;
mod sim;
mod start;
mod torture;
mod torture_command;
