//! What the pure parts cost, in a core's own time: no disk, no network, no other thread.
//!
//! `cargo bench` runs everything, `cargo bench -- sets` what has that in its name.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

mod clock;
mod sets;
mod wire;
mod placement;
mod store;
mod samples;

fn main() {
    divan::main();
}
