//! Carries out what a [`Log`](super::Log) decides, on real files through glommio and io_uring.
//!
//! Files are opened for direct I/O with `O_DSYNC`: a write that has ended is durable, in one completion and without a
//! flush of its own. A segment is written full of zeros before its first use, so that such a write has no metadata to
//! carry along.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glommio::GlommioError;
use glommio::io::{Directory, DmaFile, OpenOptions};
use rustix::fs::OFlags;

use super::log::LogWrite;
use super::segment::{BLOCK, SegmentId, SpareSegment};
use crate::protocol::types::CoreId;

/// Zeros written at once into a new segment: large enough for the disk's full rate, small enough that commits get in
/// between.
static ZEROS: [u8; 1024 * 1024] = [0; 1024 * 1024];

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No room is left, or the user's quota is used up. A new segment was not made; a segment that exists needs none.
    #[error("the disk is full: {} could not be written: {cause}", .path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        cause: io::Error,
    },
    /// The directory cannot hold a log. Nothing was kept in it.
    #[error(
        "the file system of {} does not do direct I/O ({cause}): choose a data directory on ext4 or xfs",
        .directory.display()
    )]
    NoDirectIo {
        /// The directory.
        directory: PathBuf,
        /// What was seen.
        cause: io::Error,
    },
    /// Anything else. What a write left behind is unknown.
    #[error("{operation} {}: {cause}", .path.display())]
    Failed {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        cause: io::Error,
    },
}

impl WriteError {
    /// Whether room is all that is missing.
    pub fn is_full(&self) -> bool {
        matches!(self, WriteError::Full { .. })
    }

    fn new(operation: &'static str, path: &Path, cause: io::Error) -> WriteError {
        let path = path.to_owned();
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => WriteError::Full { path, cause },
            _ => WriteError::Failed { operation, path, cause },
        }
    }
}

type Result<T> = std::result::Result<T, WriteError>;

/// The open segment files of one core.
#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    open: BTreeMap<SegmentId, DmaFile>,
}

impl Writer {
    /// A writer of segments in this directory.
    pub fn new(directory: &Path) -> Writer {
        Writer { directory: directory.to_owned(), open: BTreeMap::new() }
    }

    /// Writes, durably. A file is opened at its first write and stays open.
    ///
    /// # Errors
    /// [`WriteError`]: what is on the disk is unknown then, and the log must not be written again.
    pub async fn write(&mut self, write: &LogWrite) -> Result<()> {
        let path = self.directory.join(write.segment.to_string());
        let file = match self.open.remove(&write.segment) {
            Some(file) => file,
            None => open(&path).await?,
        };
        let written = write_all(&file, &path, &write.bytes, write.offset).await;
        self.open.insert(write.segment, file);
        written
    }

    /// Closes all files.
    pub async fn close(self) {
        for (_, file) in self.open {
            // Everything written is durable already: nothing is lost where closing fails.
            let _ = file.close().await;
        }
    }
}

/// Makes a segment: a file of so many zeros, durable under its name.
///
/// # Errors
/// [`WriteError`]; the file is removed then.
pub async fn prepare(directory: &Path, id: SegmentId, bytes: u64) -> Result<SpareSegment> {
    let path = directory.join(id.to_string());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .dma_open(&path)
        .await
        .map_err(|error| WriteError::new("creating", &path, cause(error)))?;
    let mut made = fill_with_zeros(&file, &path, bytes).await;
    if made.is_ok() {
        made = sync_directory(directory).await;
    }
    if made.is_err() {
        // The room that it took is what others need, the next try among them; what is left of it would be found unused
        // by the next start.
        let _ = file.remove().await;
    }
    let _ = file.close().await;
    made.map(|()| SpareSegment { id, bytes })
}

/// Tries what the log will do, in a small file of its own: writes, durably, and reads back.
///
/// Each executor does this before it opens any other file: glommio decides at a thread's first read from a device
/// whether that device is polled, and decides wrongly when the file is empty.
///
/// # Errors
/// [`WriteError`], [`WriteError::NoDirectIo`] among them.
pub async fn probe(directory: &Path, core: CoreId) -> Result<()> {
    let path = directory.join(format!("probe-{core}"));
    let block = [0x5a; BLOCK];
    let prepared = fs::File::create(&path).and_then(|mut file| {
        file.write_all(&block)?;
        file.sync_all()
    });
    prepared.map_err(|cause| WriteError::new("writing", &path, cause))?;
    let tried = write_and_read_back(&path, &block).await;
    fs::remove_file(&path).map_err(|cause| WriteError::new("removing", &path, cause))?;
    tried.map_err(|error| match error {
        WriteError::Failed { cause, .. } => WriteError::NoDirectIo { directory: directory.to_owned(), cause },
        other => other,
    })
}

async fn write_and_read_back(path: &Path, block: &[u8]) -> Result<()> {
    let file = open(path).await?;
    let written = write_all(&file, path, block, 0).await;
    let read = file.read_at_aligned(0, block.len()).await;
    let _ = file.close().await;
    written?;
    let read = read.map_err(|error| WriteError::new("reading", path, cause(error)))?;
    if read[..] == *block {
        Ok(())
    } else {
        let other = io::Error::other("what was written reads back as something else");
        Err(WriteError::new("reading", path, other))
    }
}

async fn open(path: &Path) -> Result<DmaFile> {
    let durable_writes = i32::try_from(OFlags::DSYNC.bits()).expect("flags of open are an int");
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(durable_writes)
        .dma_open(path)
        .await
        .map_err(|error| WriteError::new("opening", path, cause(error)))
}

async fn fill_with_zeros(file: &DmaFile, path: &Path, bytes: u64) -> Result<()> {
    let mut at = 0;
    while at < bytes {
        let left = usize::try_from(bytes - at).unwrap_or(usize::MAX);
        let zeros = &ZEROS[..left.min(ZEROS.len())];
        write_all(file, path, zeros, at).await?;
        at += zeros.len() as u64;
    }
    let synced = file.fdatasync().await;
    synced.map_err(|error| WriteError::new("syncing", path, cause(error)))
}

/// The names in a directory are durable only once it is synced itself.
async fn sync_directory(directory: &Path) -> Result<()> {
    let failed = |error| WriteError::new("syncing", directory, cause(error));
    let handle = Directory::open(directory).await.map_err(failed)?;
    let synced = handle.sync().await.map_err(failed);
    let _ = handle.close().await;
    synced
}

/// Writes whole blocks at a block's boundary. A write may end short, for instance at a signal: the rest is written
/// again from the last whole block on.
async fn write_all(file: &DmaFile, path: &Path, bytes: &[u8], offset: u64) -> Result<()> {
    assert!(bytes.len().is_multiple_of(BLOCK) && offset.is_multiple_of(BLOCK as u64));
    let mut done = 0;
    while done < bytes.len() {
        // A buffer for each write: glommio keeps a pool of registered memory for the small ones.
        let mut buffer = file.alloc_dma_buffer(bytes.len() - done);
        buffer.as_bytes_mut().copy_from_slice(&bytes[done..]);
        let written = file.write_rc_at(Rc::new(buffer), offset + done as u64).await;
        let written = written.map_err(|error| WriteError::new("writing", path, cause(error)))?;
        let whole = written - written % BLOCK;
        if whole == 0 {
            return Err(WriteError::new("writing", path, io::ErrorKind::WriteZero.into()));
        }
        done += whole;
    }
    Ok(())
}

fn cause(error: GlommioError<()>) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::causality::Siblings;
    use crate::protocol::planted::Planted;
    use crate::protocol::types::AppendId;
    use crate::store::layout::Known;
    use crate::store::samples::{Shard, log_id};
    use crate::store::wal::log::{Log, LogConfig};
    use crate::store::wal::{Life, SegmentFile, replay};
    use glommio::LocalExecutorBuilder;
    use std::time::Duration;

    fn run<T>(work: impl AsyncFnOnce(&Path) -> T) -> T {
        let directory = tempfile::tempdir().unwrap();
        let executor = LocalExecutorBuilder::default().ring_depth(32).io_memory(64 * 1024).make().unwrap();
        executor.run(async {
            probe(directory.path(), CoreId(0)).await.unwrap();
            work(directory.path()).await
        })
    }

    fn files(directory: &Path) -> Vec<SegmentFile> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
        entries
            .map(|entry| SegmentFile {
                id: SegmentId::from_file_name(entry.file_name().to_str().unwrap()).unwrap(),
                bytes: fs::read(entry.path()).unwrap().into(),
            })
            .collect()
    }

    #[test]
    fn what_was_written_to_real_files_is_replayed_from_them() {
        run(async |directory| {
            let config = LogConfig {
                id: log_id(1),
                write_bytes_max: 64 * 1024,
                segment_bytes_min: 2 * 1024 * 1024,
                segment_bytes_max: 4 * 1024 * 1024,
                retry: Duration::ZERO,
            };
            let mut log = Log::new(config, vec![]);
            let mut writer = Writer::new(directory);
            let mut shard = Shard::new();
            for turn in 0..300 {
                let value = vec![7; 20_000];
                (0..turn % 4 + 1).for_each(|_| log.append(shard.put("k", &value, &Siblings::default())));
                if let Some(wish) = log.next_segment(Default::default()) {
                    let id = SegmentId(turn);
                    log.on_segment_ready(prepare(directory, id, wish.bytes).await.unwrap());
                }
                if let Some(write) = log.next_write(|| Life(turn.into())) {
                    writer.write(&write).await.unwrap();
                    log.on_written(write);
                }
            }
            writer.close().await;

            let files = files(directory);
            assert!(files.len() > 2 && files.iter().any(|file| file.bytes.len() == 4 * 1024 * 1024));
            let replayed = replay(&files, &Known::default(), Planted::NONE).unwrap();
            let records = replayed.logs[&log_id(1)].len() as u64;
            assert_eq!((AppendId(records), replayed.tails), (log.synced(), vec![]));
            assert!(records > 500);
        });
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        run(async |directory| {
            let write =
                LogWrite { segment: SegmentId(3), offset: 0, bytes: vec![0; BLOCK], starts_segment: true, records: 1 };
            let error = Writer::new(directory).write(&write).await.unwrap_err();
            let path = directory.join("00000003.seg");
            assert_eq!(
                error.to_string(),
                format!("opening {}: No such file or directory (os error 2)", path.display())
            );
        });
    }

    #[test]
    fn a_segment_is_never_made_over_another() {
        run(async |directory| {
            prepare(directory, SegmentId(1), 8_192).await.unwrap();
            let error = prepare(directory, SegmentId(1), 8_192).await.unwrap_err();
            assert!(error.to_string().contains("File exists"), "{error}");
        });
    }

    #[test]
    fn a_full_disk_is_told_from_other_errors() {
        let of = |code| WriteError::new("writing", Path::new("x"), io::Error::from_raw_os_error(code));
        let full = of(rustix::io::Errno::NOSPC.raw_os_error());
        assert_eq!(full.to_string(), "the disk is full: x could not be written: No space left on device (os error 28)");
        assert!(full.is_full() && of(rustix::io::Errno::DQUOT.raw_os_error()).is_full());
        assert!(!of(rustix::io::Errno::IO.raw_os_error()).is_full());
    }
}
