//! Replicas and clients of one key, driven by bytes and checked against full histories after every step.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sloop::protocol::causality::naive::{Step, World};

/// Histories grow with every write and are compared whole: more steps cost much and find little.
const STEPS_MAX: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let Some((&shape, bytes)) = bytes.split_first() else { return };
    let mut world = World::new(2 + shape % 3, 1 + shape / 3 % 4, shape & 0x80 != 0);
    let (steps, _) = bytes.as_chunks::<4>();
    steps.iter().take(STEPS_MAX).for_each(|step| world.step(Step::from_bytes(*step)));
});
