//! What is done to a cluster, and when: a line each in a file, and the most of it on the way to people.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::now;

/// The file of faults in the folder of a torture.
pub(super) const FILE: &str = "torture.log";

/// The log of one torture.
pub(super) struct Log<'a> {
    begun: Instant,
    file: RefCell<File>,
    faults: RefCell<BTreeMap<&'static str, u64>>,
    tell: &'a dyn Fn(&str),
}

impl<'a> Log<'a> {
    /// Begins now. These kinds of faults are counted.
    pub(super) fn begin(
        folder: &Path,
        kinds: impl Iterator<Item = &'static str>,
        tell: &'a dyn Fn(&str),
    ) -> io::Result<Log<'a>> {
        let faults = RefCell::new(kinds.map(|kind| (kind, 0)).collect());
        Ok(Log { begun: now(), file: RefCell::new(File::create(folder.join(FILE))?), faults, tell })
    }

    /// Since the beginning.
    pub(super) fn time(&self) -> Duration {
        self.begun.elapsed()
    }

    /// One more line.
    pub(super) fn line(&self, text: &str) -> io::Result<()> {
        writeln!(self.file.borrow_mut(), "{:8.3} {text}", self.time().as_secs_f64())
    }

    /// A fault of this kind, and to whom it happens.
    pub(super) fn fault(&self, kind: &'static str, whom: &str) -> io::Result<()> {
        *self.faults.borrow_mut().entry(kind).or_default() += 1;
        self.line(&format!("{kind}: {whom}"))
    }

    /// A line for people too.
    pub(super) fn say(&self, text: &str) -> io::Result<()> {
        (self.tell)(&format!("{:5.0} s  {text}", self.time().as_secs_f64()));
        self.line(text)
    }

    /// How often there was each kind of fault.
    pub(super) fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.faults.borrow().clone()
    }
}

/// Kinds in turns: each of them once in an order that is drawn, then again.
pub(super) struct Bag<T> {
    all: Vec<T>,
    left: Vec<T>,
}

impl<T: Copy> Bag<T> {
    pub(super) fn new(all: &[T]) -> Bag<T> {
        Bag { all: all.to_vec(), left: vec![] }
    }

    pub(super) fn draw(&mut self, random: &mut crate::lab::workload::Random) -> T {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
        }
        let at = random.index(self.left.len());
        self.left.swap_remove(at)
    }
}
