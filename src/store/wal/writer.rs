//! The log's hands: segment files, written by direct I/O through glommio.
//!
//! Every write is durable when it ends (`O_DSYNC`): one completion a group commit, and no metadata to write, because a
//! segment is written full of zeros before its first use.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glommio::io::{Directory, DmaFile, OpenOptions};

use super::segment::BLOCK;
use super::{LogWrite, SegmentId, SpareSegment};

/// Zeros are written in pieces of this size.
const PIECE: usize = 1024 * 1024;

/// Linux's `O_DSYNC`, the same number on every architecture that glommio runs on.
const O_DSYNC: i32 = 0o10000;

/// The log's files cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}: {cause}{hint}")]
pub struct WriterError {
    doing: &'static str,
    path: PathBuf,
    cause: io::Error,
    hint: &'static str,
}

impl WriterError {
    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self.cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// The open segments of one core.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    files: RefCell<BTreeMap<SegmentId, Rc<DmaFile>>>,
}

/// Writes, syncs and reads back a small file, as the log will. glommio decides by a thread's first file how it reads
/// from a device, so this comes first in every executor.
///
/// # Errors
/// [`WriterError`]: no direct I/O on this file system, no room, no permission.
pub async fn probe(folder: &Path) -> Result<(), WriterError> {
    let path = folder.join(format!("probe-{}", glommio::executor().id()));
    let failed = |cause| error("cannot use direct I/O on", &path, cause);
    std::fs::write(&path, [0_u8; BLOCK]).map_err(failed)?;
    let tried = write_and_read(&path).await;
    std::fs::remove_file(&path).map_err(failed)?;
    tried.map_err(failed)
}

async fn write_and_read(path: &Path) -> io::Result<()> {
    const MARK: u8 = 0x5a;
    let file = options().dma_open(path).await.map_err(io_error)?;
    let mut block = file.alloc_dma_buffer(BLOCK);
    block.as_bytes_mut().fill(MARK);
    let written = file.write_at(block, 0).await.map_err(io_error)?;
    let read = file.read_at_aligned(0, BLOCK).await.map_err(io_error)?;
    let same = written == BLOCK && read.len() == BLOCK && read.iter().all(|byte| *byte == MARK);
    file.close().await.map_err(io_error)?;
    if same { Ok(()) } else { Err(io::Error::other("what was written did not read back")) }
}

impl Writer {
    /// The writer of one core's log.
    pub fn new(folder: PathBuf) -> Writer {
        Writer { folder, files: RefCell::default() }
    }

    /// Opens a segment that is there already.
    ///
    /// # Errors
    /// [`WriterError`].
    pub async fn open(&self, id: SegmentId) -> Result<(), WriterError> {
        let path = self.path(id);
        let opened = options().dma_open(&path).await;
        let file = opened.map_err(|cause| error("cannot open", &path, io_error(cause)))?;
        self.files.borrow_mut().insert(id, Rc::new(file));
        Ok(())
    }

    /// Makes a segment: zeros from end to end, durable, and its name too.
    ///
    /// # Errors
    /// [`WriterError`]; nothing is left behind.
    pub async fn prepare(&self, id: SegmentId, bytes: u64) -> Result<SpareSegment, WriterError> {
        let path = self.path(id);
        match self.zeroed(&path, bytes).await {
            Ok(file) => {
                self.files.borrow_mut().insert(id, Rc::new(file));
                Ok(SpareSegment { id, bytes })
            }
            Err(cause) => {
                // What was made of it takes room that others need. If it cannot go now, the next start takes it.
                let _ = std::fs::remove_file(&path);
                Err(error("cannot make", &path, cause))
            }
        }
    }

    async fn zeroed(&self, path: &Path, bytes: u64) -> io::Result<DmaFile> {
        let file = options().create_new(true).dma_open(path).await.map_err(io_error)?;
        file.pre_allocate(bytes, false).await.map_err(io_error)?;
        let mut at = 0;
        while at < bytes {
            let piece = usize::try_from(bytes - at).unwrap_or(PIECE).min(PIECE);
            let mut zeros = file.alloc_dma_buffer(piece);
            zeros.as_bytes_mut().fill(0);
            let written = file.write_at(zeros, at).await.map_err(io_error)?;
            at += whole_blocks(written)? as u64;
        }
        file.fdatasync().await.map_err(io_error)?;
        let folder = Directory::open(&self.folder).await.map_err(io_error)?;
        folder.sync().await.map_err(io_error)?;
        folder.close().await.map_err(io_error)?;
        Ok(file)
    }

    /// Writes a group commit. It is durable when this returns.
    ///
    /// # Errors
    /// [`WriterError`]; any part of it may be on disk.
    ///
    /// # Panics
    /// When the segment was never opened or prepared.
    pub async fn write(&self, write: &LogWrite) -> Result<(), WriterError> {
        let file = self.files.borrow().get(&write.segment).cloned();
        let file = file.expect("the engine writes to segments that were opened or prepared");
        let mut done = 0;
        while done < write.bytes.len() {
            let rest = &write.bytes[done..];
            let mut buffer = file.alloc_dma_buffer(rest.len());
            buffer.as_bytes_mut().copy_from_slice(rest);
            let written = file.write_at(buffer, write.offset + done as u64).await.map_err(io_error);
            let whole = written.and_then(whole_blocks);
            done += whole.map_err(|cause| error("cannot write", &self.path(write.segment), cause))?;
        }
        Ok(())
    }

    fn path(&self, id: SegmentId) -> PathBuf {
        self.folder.join(id.to_string())
    }
}

/// A short write goes on at the next block: direct I/O can begin nowhere else.
fn whole_blocks(written: usize) -> io::Result<usize> {
    match written - written % BLOCK {
        0 => Err(io::ErrorKind::WriteZero.into()),
        whole => Ok(whole),
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(O_DSYNC);
    options
}

fn io_error(error: glommio::GlommioError<()>) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

fn error(doing: &'static str, path: &Path, cause: io::Error) -> WriterError {
    let hint = match cause.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => {
            " (this file system has no direct I/O: choose a --data-dir on ext4, xfs or btrfs)"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => " (free some space: writes resume by themselves)",
        io::ErrorKind::PermissionDenied => " (run as the user who owns it)",
        _ => "",
    };
    WriterError { doing, path: path.to_owned(), cause, hint }
}
