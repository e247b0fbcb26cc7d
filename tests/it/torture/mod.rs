//! Faults for real, on a real process: killed, stopped, without room, on a disk that turns bits, among clients that
//! send noise or nothing.
//!
//! What a fault needs of the machine and does not find (root, a loop device, descriptors) is said in the output, and
//! the test does what is left. Counts and the seed are settings (`crate::dice`).

mod bystander;
mod dripping;
mod flips;
mod full_disk;
mod kill;
mod mount;
mod noise;
mod read_only;
mod recorded;
mod silent;
mod stop;
