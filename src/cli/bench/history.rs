//! The file of a history while a run is recorded.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use super::Failed;
use crate::lab::recorder::{Recorder, UNIQUE_BYTES};
use crate::lab::workload::{PREFIX_BYTES, Source};
use crate::verify::{Event, Moment, file};

/// Events that wait to be written; a run waits where there are more.
const WAITING_EVENTS_MAX: usize = 1 << 16;

/// Writes the history of one run.
#[derive(Debug)]
pub(super) struct History {
    path: String,
    recorder: Recorder,
    writer: JoinHandle<io::Result<()>>,
    /// What the keys of this run begin with.
    prefix: [u8; PREFIX_BYTES],
}

impl History {
    /// Begins a new file, for a run of values of so many bytes.
    ///
    /// # Errors
    /// [`Failed`] when the file is there already or cannot be made, and when values are too short to be told apart.
    pub(super) fn begin(path: &str, value_bytes: usize) -> Result<History, Failed> {
        if value_bytes < UNIQUE_BYTES {
            let why = format!(
                "--value-size {value_bytes}: with --history each value is another one, of {UNIQUE_BYTES} bytes or more"
            );
            return Err(Failed::wrong_use(why));
        }
        let failed = |error: io::Error| Failed::refused(format!("--history {path}: {error}"));
        let file = File::create_new(path).map_err(failed)?;
        let (to, events) = sync_channel(WAITING_EVENTS_MAX);
        let writer = Builder::new().name("history".to_owned()).spawn(move || write(file, &events)).map_err(failed)?;
        let prefix = prefix(getrandom::u64().map_err(|error| Failed::refused(error.to_string()))?);
        Ok(History { path: path.to_owned(), recorder: Recorder::new(to, clock()), writer, prefix })
    }

    /// Who records a pass over the keys: each with clients of its own.
    pub(super) fn recorder(&self, pass: Pass, connections: usize) -> Recorder {
        let connections = u32::try_from(connections).expect("there are fewer connections than ports");
        self.recorder.from_client(connections * pass as u32)
    }

    /// What the threads of a pass do, on keys that no other run has, with values that no other write has.
    pub(super) fn sources(&self, pass: Pass, sources: Vec<Source>) -> Vec<Source> {
        let unique = |(thread, source): (u16, Source)| source.unique(self.prefix, pass as u8, thread);
        (0..).zip(sources).map(unique).collect()
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// [`Failed`] with what the system says.
    pub(super) fn end(self) -> Result<(), Failed> {
        drop(self.recorder);
        let written = self.writer.join().expect("the writer ends without a panic");
        written.map_err(|error| Failed::refused(format!("--history {}: {error}", self.path)))
    }
}

/// Which time over the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Preload = 0,
    Measured = 1,
}

fn write(file: File, events: &Receiver<(Moment, Event)>) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    writeln!(out, "{}", file::head())?;
    for (at, event) in events {
        writeln!(out, "{}", file::line(at, &event))?;
    }
    out.flush()
}

/// Four letters. Keys of runs without a history begin with others.
fn prefix(drawn: u64) -> [u8; PREFIX_BYTES] {
    let mut left = drawn;
    [0; PREFIX_BYTES].map(|_| {
        let letter = b'A' + (left % 26) as u8;
        left /= 26;
        letter
    })
}

#[expect(clippy::disallowed_methods, reason = "the moments of a history count from here")]
fn clock() -> Instant {
    Instant::now()
}
