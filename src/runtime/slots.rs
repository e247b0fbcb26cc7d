//! How many connections are open, node-wide and by core: the bound that the acceptor keeps, and how it finds the core
//! with the fewest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::protocol::types::CoreId;

/// The places for connections of one listener.
#[derive(Clone, Debug)]
pub struct Slots {
    open: Arc<[AtomicU32]>,
    max: u32,
}

/// One place, given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    open: Arc<[AtomicU32]>,
    core: CoreId,
}

impl Slots {
    /// `max` places over `cores` cores.
    pub fn new(cores: u16, max: u32) -> Slots {
        let open = (0..cores).map(|_| AtomicU32::new(0)).collect();
        Slots { open, max }
    }

    /// Takes a place on the core that is wanted, if there is such a core, else on the one with the fewest connections.
    /// One thread takes places, so the count cannot pass the bound between looking and taking.
    ///
    /// # Errors
    /// The number of open connections, when there is no place left.
    pub fn take(&self, wanted: Option<CoreId>) -> Result<Slot, u32> {
        let open = self.open();
        if open >= self.max {
            return Err(open);
        }
        let core = wanted.filter(|core| core.index() < self.open.len()).unwrap_or_else(|| self.emptiest());
        self.open[core.index()].fetch_add(1, Ordering::Relaxed);
        Ok(Slot { open: self.open.clone(), core })
    }

    /// Connections that are open now.
    pub fn open(&self) -> u32 {
        self.open.iter().map(|open| open.load(Ordering::Relaxed)).sum()
    }

    /// Connections that may be open.
    pub fn max(&self) -> u32 {
        self.max
    }

    fn emptiest(&self) -> CoreId {
        let cores = 0..u16::try_from(self.open.len()).expect("as many as `new` was given");
        cores
            .map(CoreId)
            .min_by_key(|core| self.open[core.index()].load(Ordering::Relaxed))
            .expect("a node has at least one core")
    }
}

impl Slot {
    /// The core that the place is on.
    pub fn core(&self) -> CoreId {
        self.core
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open[self.core.index()].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_go_to_the_wanted_core_or_to_the_emptiest() {
        let slots = Slots::new(3, 10);
        let _wanted = slots.take(Some(CoreId(0))).unwrap();
        let unknown = slots.take(Some(CoreId(9))).unwrap();
        let any = slots.take(None).unwrap();
        assert_eq!([unknown.core(), any.core()], [CoreId(1), CoreId(2)]);
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let slots = Slots::new(1, 2);
        let (one, _two) = (slots.take(None).unwrap(), slots.take(None).unwrap());
        assert_eq!(slots.take(None).unwrap_err(), 2);

        drop(one);
        assert!(slots.take(None).is_ok());
    }
}
