//! The manifests of fjall's trees, held against their sums before fjall reads them.
//!
//! fjall notes the sum of a tree's manifest and does not look at it when it opens the tree (seen in 3.1). A turned bit
//! could make it panic, ask for more memory than there is, or take an older state for the newest one and delete the
//! tables that were written since.
//!
//! ```text
//! keyspaces/N/current   id u64   xxh3 u128 over all of the manifest   kind of sum u8, 0
//! keyspaces/N/v{id}     the manifest
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

/// The kind of sum that is known here. Another one is fjall's business.
const XXH3: u8 = 0;

/// The first manifest below `lsm` that is not as it was written, if there is one.
///
/// # Errors
/// When a folder or file cannot be read, with its path.
pub(super) fn find_damage(lsm: &Path) -> Result<Option<PathBuf>, (PathBuf, io::Error)> {
    let keyspaces = lsm.join("keyspaces");
    let failed = |cause| (keyspaces.clone(), cause);
    let entries = match fs::read_dir(&keyspaces) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let folder = entry.map_err(failed)?.path();
        let Some(current) = read(&folder.join("current"))? else { continue };
        let Some((id, sum)) = noted(&current) else { continue };
        let manifest = folder.join(format!("v{id}"));
        if read(&manifest)?.is_none_or(|bytes| xxh3_128(&bytes) != sum) {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

/// The manifest's number and sum.
fn noted(current: &[u8]) -> Option<(u64, u128)> {
    let (id, rest) = current.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    (rest == [XXH3]).then(|| (u64::from_le_bytes(*id), u128::from_le_bytes(*sum)))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, (PathBuf, io::Error)> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        // What fjall had only begun to make when it was killed.
        Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(cause) => Err((path.to_owned(), cause)),
    }
}
