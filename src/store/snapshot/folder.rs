//! A snapshot on disk: `data`, and beside it a `manifest` that is there only when the data is whole and durable.

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use super::{Entries, FORMAT, SnapshotError, Summary};

const DATA: &str = "data";
const MANIFEST: &str = "manifest";

/// A manifest is a few short lines.
const MANIFEST_BYTES_MAX: u64 = 4_096;

/// Why a folder is no snapshot, or cannot become one.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The system says no.
    #[error("{}: {cause}", path.display())]
    Io {
        /// On what.
        path: PathBuf,
        /// What it says.
        cause: io::Error,
    },
    /// There is something in it already.
    #[error("{} is not empty: choose an empty directory, or one that does not exist", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// No manifest: it was not finished, or is none.
    #[error("{} has no manifest: it is no snapshot, or one that was never finished", path.display())]
    Unfinished {
        /// The folder.
        path: PathBuf,
    },
    /// The data cannot be used.
    #[error("{}: {cause}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: SnapshotError,
    },
    /// Manifest and data are of two snapshots.
    #[error("{} does not describe the data beside it: the two are of different snapshots", path.display())]
    Mixed {
        /// The manifest.
        path: PathBuf,
    },
}

/// A snapshot that is being written. Without [`finish`](Unfinished::finish) it never becomes one.
#[derive(Debug)]
pub struct Unfinished {
    folder: PathBuf,
    data: File,
}

impl Unfinished {
    /// Makes the folder, if it is not there, and the file for the data.
    ///
    /// # Errors
    /// [`FolderError`]; what is in the folder was not touched.
    pub fn begin(folder: &Path) -> Result<Unfinished, FolderError> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        if fs::read_dir(folder).map_err(at(folder))?.next().is_some() {
            return Err(FolderError::NotEmpty { path: folder.to_owned() });
        }
        let path = folder.join(DATA);
        let data = File::create_new(&path).map_err(at(&path))?;
        Ok(Unfinished { folder: folder.to_owned(), data })
    }

    /// Writes what comes next.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn write(&mut self, piece: &[u8]) -> Result<(), FolderError> {
        self.data.write_all(piece).map_err(at(&self.folder.join(DATA)))
    }

    /// Syncs the data, reads it back and verifies it, and only then writes the manifest, by rename.
    ///
    /// # Errors
    /// [`FolderError`]; there is no manifest then.
    pub fn finish(&mut self) -> Result<Summary, FolderError> {
        let path = self.folder.join(DATA);
        self.data.sync_all().map_err(at(&path))?;
        let summary = entries(&path)?.verify().map_err(in_data(&path))?;

        let (manifest, new) = (self.folder.join(MANIFEST), self.folder.join("manifest.new"));
        let write = || {
            let mut file = File::create_new(&new)?;
            file.write_all(summary.to_string().as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &manifest)?;
            sync_folder(&self.folder)?;
            // The folder itself may be new: its name stands in its parent.
            sync_folder(&fs::canonicalize(&self.folder)?.join(".."))
        };
        write().map_err(at(&manifest))?;
        Ok(summary)
    }

    /// Removes what was written, so that the folder can be used again.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn discard(self) -> Result<(), FolderError> {
        let path = self.folder.join(DATA);
        fs::remove_file(&path).map_err(at(&path))
    }
}

/// Opens a finished snapshot, and reads all of it once to be certain that it is whole.
///
/// # Errors
/// [`FolderError`] for a partial, foreign, newer or damaged one.
pub fn open(folder: &Path) -> Result<(Summary, Entries<BufReader<File>>), FolderError> {
    let (manifest, data) = (folder.join(MANIFEST), folder.join(DATA));
    let stated = match read_manifest(&manifest) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            return Err(FolderError::Unfinished { path: folder.to_owned() });
        }
        other => other.map_err(at(&manifest))?,
    };
    known_format(&stated).map_err(|cause| FolderError::Data { path: manifest.clone(), cause })?;
    let summary = entries(&data)?.verify().map_err(in_data(&data))?;
    if summary.to_string() != stated {
        return Err(FolderError::Mixed { path: manifest });
    }
    Ok((summary, entries(&data)?))
}

fn read_manifest(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(File::open(path)?, MANIFEST_BYTES_MAX), &mut text)?;
    Ok(text)
}

fn known_format(manifest: &str) -> Result<(), SnapshotError> {
    let first = manifest.lines().next().and_then(|line| line.strip_prefix("sloop snapshot "));
    match first.and_then(|format| format.parse::<u16>().ok()) {
        Some(format) if format > FORMAT => Err(SnapshotError::Newer { format }),
        Some(_) => Ok(()),
        None => Err(SnapshotError::Foreign),
    }
}

fn entries(data: &Path) -> Result<Entries<BufReader<File>>, FolderError> {
    let file = File::open(data).map_err(at(data))?;
    Entries::open(BufReader::with_capacity(256 * 1_024, file)).map_err(in_data(data))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FolderError + use<> {
    let path = path.to_owned();
    |cause| FolderError::Io { path, cause }
}

fn in_data(path: &Path) -> impl FnOnce(SnapshotError) -> FolderError + use<> {
    let path = path.to_owned();
    |cause| FolderError::Data { path, cause }
}
