//! What one thread does next.

use std::collections::VecDeque;

use super::chooser::Chooser;
use super::random::Random;
use super::{KEY_BYTES, Kind, Operation, PREFIX_BYTES, Workload};

/// Values are pieces of this many random bytes and their own length more: each is as good as random, and costs no more
/// than its copy.
const POOL_BYTES: usize = 1 << 20;

/// One thread's part of a workload. The same seed, thread and number of threads give the same operations, as long as
/// they are settled in the same order.
#[derive(Clone, Debug)]
pub struct Source {
    what: What,
    random: Random,
    pool: Vec<u8>,
    value_bytes: usize,
    prefix: [u8; PREFIX_BYTES],
    /// The number of the next value, where each begins with its own.
    unique: Option<u64>,
}

/// What all keys begin with, and nothing else says.
const PREFIX: [u8; PREFIX_BYTES] = *b"user";

/// The value numbers of each thread.
const VALUES_OF_THREAD: u64 = 1 << 40;

/// The value numbers of each pass over the same keys.
const VALUES_OF_PASS: u64 = 1 << 56;

#[derive(Clone, Debug)]
enum What {
    Mixed(Mixed),
    Load(Load),
}

impl Source {
    /// The operations of `thread`, one of `threads`.
    pub fn mixed(workload: &Workload, seed: u64, thread: u64, threads: u64) -> Source {
        let mixed = Mixed {
            mix: workload.mix.clone(),
            chooser: Chooser::new(workload.distribution, workload.keys),
            keys: workload.keys,
            thread,
            threads,
            begun: 0,
            inserted: 0,
            settled: VecDeque::new(),
        };
        Source::new(What::Mixed(mixed), workload.value_bytes, seed, thread)
    }

    /// The part of all keys that `thread` of `threads` writes once each.
    pub fn load(workload: &Workload, seed: u64, thread: u64, threads: u64) -> Source {
        let bound = |thread: u64| (u128::from(workload.keys) * u128::from(thread) / u128::from(threads)) as u64;
        let load = Load { next: bound(thread), end: bound(thread + 1), again: vec![] };
        Source::new(What::Load(load), workload.value_bytes, seed, thread)
    }

    fn new(what: What, value_bytes: usize, seed: u64, thread: u64) -> Source {
        // Each thread has a stream of its own: the seed's, thread numbers further on.
        let mut seeds = Random::new(seed);
        for _ in 0..thread {
            seeds.word();
        }
        let mut random = Random::new(seeds.word());
        let words = (POOL_BYTES + value_bytes).div_ceil(8);
        let pool = (0..words).flat_map(|_| random.word().to_le_bytes()).collect();
        Source { what, random, pool, value_bytes, prefix: PREFIX, unique: None }
    }

    /// The same on keys that begin otherwise, with values whose first sixteen bytes no other value has, of no thread of
    /// up to 65,536 and no other pass of up to 256. Values have sixteen bytes at least.
    #[must_use]
    pub fn unique(self, prefix: [u8; PREFIX_BYTES], pass: u8, thread: u16) -> Source {
        let first = u64::from(pass) * VALUES_OF_PASS + u64::from(thread) * VALUES_OF_THREAD;
        Source { prefix, unique: Some(first), ..self }
    }

    /// A key's bytes: what all keys begin with, and twelve digits.
    pub fn key(&self, number: u64) -> [u8; KEY_BYTES] {
        let mut key = key_bytes(number);
        key[..PREFIX_BYTES].copy_from_slice(&self.prefix);
        key
    }

    /// The next operation; none when all is done that there was to do.
    pub fn next_operation(&mut self) -> Option<Operation> {
        match &mut self.what {
            What::Mixed(mixed) => Some(mixed.next_operation(&mut self.random)),
            What::Load(load) => load.next_operation(),
        }
    }

    /// Says that an operation has ended, and whether another try of the very same may do it. Only a load wants one.
    pub fn settle(&mut self, operation: Operation, end: End) {
        match &mut self.what {
            What::Mixed(mixed) => mixed.settle(operation),
            What::Load(load) if end == End::Undone => load.again.push(operation.key),
            What::Load(_) => {}
        }
    }

    /// Whether every operation must be done in the end, however often it takes.
    pub fn insists(&self) -> bool {
        matches!(self.what, What::Load(_))
    }

    /// Whether all is done that there was to do, but for what is under way.
    pub fn is_done(&self) -> bool {
        match &self.what {
            What::Mixed(_) => false,
            What::Load(load) => load.again.is_empty() && load.next == load.end,
        }
    }

    /// The value of the next write.
    pub fn value(&mut self) -> &[u8] {
        let at = self.random.below(POOL_BYTES as u64) as usize;
        let value = &mut self.pool[at..at + self.value_bytes];
        if let Some(unique) = &mut self.unique {
            write_digits(&mut value[..16], *unique);
            *unique += 1;
        }
        value
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was done, or refused for good.
    Done,
    /// It was not done, or nobody knows.
    Undone,
}

/// How much of all operations is of one kind.
pub type Share = (Kind, f64);

/// The share of each kind of operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// At least one; they add up to 1.
    pub shares: Vec<Share>,
}

impl Mix {
    fn choose(&self, random: &mut Random) -> Kind {
        let (last, rest) = self.shares.split_last().expect("a mix has a kind");
        let mut left = random.unit();
        for (kind, share) in rest {
            if left < *share {
                return *kind;
            }
            left -= share;
        }
        last.0
    }
}

/// Operations by chance. Inserted keys go round the threads in turn, and a thread chooses among the keys that it has
/// inserted itself, and among these up to the first insert that has not ended: nothing is shared, nothing missed.
#[derive(Clone, Debug)]
struct Mixed {
    mix: Mix,
    chooser: Chooser,
    keys: u64,
    thread: u64,
    threads: u64,
    /// Inserts that this thread has begun.
    begun: u64,
    /// Inserts before which all have ended.
    inserted: u64,
    /// Whether each insert from `inserted` to `begun` has ended.
    settled: VecDeque<bool>,
}

impl Mixed {
    fn next_operation(&mut self, random: &mut Random) -> Operation {
        let kind = self.mix.choose(random);
        if kind == Kind::Insert {
            let key = self.inserted_key(self.begun);
            self.begun += 1;
            self.settled.push_back(false);
            return Operation { kind, key };
        }
        let chosen = self.chooser.choose(self.keys + self.inserted, random);
        let key = match chosen.checked_sub(self.keys) {
            None => chosen,
            Some(insert) => self.inserted_key(insert),
        };
        Operation { kind, key }
    }

    fn inserted_key(&self, insert: u64) -> u64 {
        self.keys + insert * self.threads + self.thread
    }

    fn settle(&mut self, operation: Operation) {
        if operation.kind != Kind::Insert {
            return;
        }
        let insert = (operation.key - self.keys) / self.threads;
        self.settled[(insert - self.inserted) as usize] = true;
        while self.settled.front() == Some(&true) {
            self.settled.pop_front();
            self.inserted += 1;
        }
    }
}

/// Every key once, in order; and once more those that were not done.
#[derive(Clone, Debug)]
struct Load {
    next: u64,
    end: u64,
    again: Vec<u64>,
}

impl Load {
    fn next_operation(&mut self) -> Option<Operation> {
        let key = match self.again.pop() {
            Some(key) => key,
            None if self.next < self.end => {
                self.next += 1;
                self.next - 1
            }
            None => return None,
        };
        Some(Operation { kind: Kind::Put, key })
    }
}

/// A number in hexadecimal digits, as many as there is room for.
fn write_digits(room: &mut [u8], number: u64) {
    let mut left = number;
    for digit in room.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(left % 16) as usize];
        left /= 16;
    }
}

/// A key's bytes: `user` and twelve digits.
pub fn key_bytes(key: u64) -> [u8; KEY_BYTES] {
    let mut bytes = *b"user000000000000";
    let mut left = key;
    for digit in bytes[4..].iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    bytes
}
