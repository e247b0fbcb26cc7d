//! The folder of a torture: empty before, and gone after it unless it is kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::Failed;

/// A folder that goes when it is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    is_kept: bool,
}

impl Folder {
    /// The one that is named, which must be empty or not there yet, or a new one for temporary files.
    ///
    /// # Errors
    /// [`Failed`] when there is something in it, or it cannot be made.
    pub(super) fn make(named: Option<PathBuf>) -> Result<Folder, Failed> {
        let temporary = || std::env::temp_dir().join(format!("sloop-torture-{}", std::process::id()));
        let path = named.unwrap_or_else(temporary);
        let failed = |error: io::Error| Failed::refused(format!("{}: {error}", path.display()));
        fs::create_dir_all(&path).map_err(failed)?;
        if fs::read_dir(&path).map_err(failed)?.next().is_some() {
            let path = path.display();
            return Err(Failed::refused(format!("{path} is not empty: choose another --data-dir")));
        }
        let path = path.canonicalize().map_err(failed)?;
        Ok(Folder { path, is_kept: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// It stays where it is.
    pub(super) fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Where it stays, if it does.
    pub(super) fn kept(&self) -> Option<&Path> {
        self.is_kept.then_some(&*self.path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be removed stays among the temporary files.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_unless_it_is_kept_and_one_with_something_in_it_is_not_taken() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("a/b");
        let folder = Folder::make(Some(path.clone())).unwrap();
        fs::write(folder.path().join("file"), "text").unwrap();
        assert!(Folder::make(Some(path.clone())).unwrap_err().message.contains("is not empty"));
        drop(folder);
        assert!(!path.exists());

        let mut folder = Folder::make(Some(path.clone())).unwrap();
        folder.keep();
        drop(folder);
        assert!(path.exists());
    }
}
