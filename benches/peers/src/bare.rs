//! The bare limit: group commit and nothing else. No network, no index, no protocol; what is left is what the disk and
//! the kernel take for a write that is durable. A server's share of it says how much its own work costs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use sloop::lab::tally::Tally;
use sloop::lab::workload::{KEY_BYTES, Kind, Source};

/// The log is this long, and written round and round.
const FILE_BYTES: usize = 64 << 20;

/// Direct writes begin and end at multiples of this.
const BLOCK: usize = 4_096;

/// A log that is allocated and written full of zeros, so that no write of it changes metadata.
#[derive(Debug)]
pub struct Bare {
    file: File,
    at: usize,
}

impl Bare {
    /// Makes the log below `home`.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(home: &Path) -> io::Result<Bare> {
        let path = home.join("log");
        let zeros = vec![0; 1 << 20];
        let file = File::create(&path)?;
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at as u64)?;
        }
        file.sync_all()?;
        let flags = OFlags::DIRECT | OFlags::DSYNC;
        let file = OpenOptions::new().write(true).custom_flags(flags.bits().cast_signed()).open(path)?;
        Ok(Bare { file, at: 0 })
    }

    /// Commits for `time`. `writers` wait for their records, all of which go into the next write; one is under way.
    ///
    /// # Errors
    /// What the system says.
    #[expect(clippy::disallowed_methods, reason = "latencies are what this is about")]
    pub fn commit(&mut self, writers: usize, source: &mut Source, time: Duration) -> io::Result<Tally> {
        let record_bytes = KEY_BYTES + source.value().len();
        let bytes = (writers * record_bytes).next_multiple_of(BLOCK);
        let mut memory = vec![0; bytes + BLOCK];
        let aligned = memory.as_ptr().align_offset(BLOCK);
        let buffer = &mut memory[aligned..aligned + bytes];
        let mut tally = Tally::new();
        let begun = Instant::now();
        while tally.elapsed < time {
            let from = Instant::now();
            for record in buffer.chunks_exact_mut(record_bytes).take(writers) {
                record[KEY_BYTES..].copy_from_slice(source.value());
            }
            if FILE_BYTES < self.at + bytes {
                self.at = 0;
            }
            self.file.write_all_at(buffer, self.at as u64)?;
            self.at += bytes;
            let latency = from.elapsed();
            (0..writers).for_each(|_| tally.done(Kind::Put, latency));
            tally.elapsed = begun.elapsed();
        }
        Ok(tally)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]
mod tests {
    use sloop::lab::workload::Workload;

    use super::*;

    #[test]
    fn every_write_holds_a_record_of_each_writer() {
        let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut source = Workload::named("put", 1, 100).unwrap().sources(0, 1).remove(0);
        let tally = Bare::new(home.path()).unwrap().commit(64, &mut source, Duration::from_millis(50)).unwrap();
        assert_eq!(tally.operations() % 64, 0);
        assert!(tally.operations() > 0 && tally.elapsed >= Duration::from_millis(50));
    }
}
