//! The data directory: who it belongs to, how often it was started, and how it was left.
//!
//! ```text
//! lock      held exclusively while a node runs; taken before anything else is read
//! node      who the directory is (below); replaced whole by rename, synced with its directory
//! wal/      segments of the write-ahead logs
//! lsm/      fjall
//! cluster   what the node knows of its cluster (`cluster`); replaced as `node` is
//!
//! node:  "SLOOPNOD"  format u32  cluster u128  incarnation u128  partitions u16  salt u64
//!        starts u64  stamp u64  place u64  clean u8  [count u32, (actor, counter, last record: u64) by core]
//!        count u32, actors u64, the oldest first   crc32c u32 over all before it
//! ```
//! A start counts itself, takes the mark of the clean stop away and notes the actors that it will mint as, durably,
//! before anything is minted. So an actor that may have minted more than its mark says is never used again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};
use rustix::fs::{Access, FlockOperation, access};

use crate::protocol::types::{ActorId, AppendId, ClusterId};
use crate::wire::reader::put_count;
use crate::wire::{Reader, WireError};

const MAGIC: &[u8; 8] = b"SLOOPNOD";
/// Format 1 had no hash trees.
const FORMAT: u32 = 2;

/// Actors whose names a directory still knows. An actor beyond it shows as its number; nothing else hangs on it.
const ACTORS_MAX: usize = 4_096;
const CORES_MAX: usize = u16::MAX as usize;

/// Why a data directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Another process holds the directory.
    #[error("{path} is in use by another sloop: stop that one first, or choose another --data-dir")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// An operation on the file system failed.
    #[error("{doing} {path}: {cause}{hint}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel says.
        cause: io::Error,
        /// What to do, where we know.
        hint: &'static str,
    },
    /// The directory holds something that no sloop wrote.
    #[error("{path} is not a data directory of sloop: {reason}; choose an empty one with --data-dir")]
    Foreign {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A newer sloop wrote it.
    #[error(
        "{path} has format {found}, this sloop reads format {known}: start the sloop that wrote it, or a newer one"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The format that this program reads.
        known: u32,
    },
    /// Somebody's data is there already.
    #[error("{path} holds a node's data already: choose an empty directory with --data-dir")]
    Taken {
        /// The directory.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error("{path} is damaged ({reason}): restore the data directory from a snapshot")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

pub(super) fn io_error(doing: &'static str, path: &Path, cause: io::Error) -> HomeError {
    let hint = match cause.kind() {
        io::ErrorKind::PermissionDenied => " (run as the user who owns it, or choose another --data-dir)",
        io::ErrorKind::StorageFull => " (free some space first)",
        io::ErrorKind::ReadOnlyFilesystem => " (choose a --data-dir on a file system that can be written)",
        _ => "",
    };
    HomeError::Io { doing, path: path.to_owned(), cause, hint }
}

/// Who a data directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster that was founded in it or that it joined.
    pub cluster: ClusterId,
    /// 128 random bits of this directory.
    pub incarnation: u128,
    /// Partitions of the cluster's ring.
    pub partitions: u16,
    /// Spreads partitions over cores.
    pub salt: u64,
    /// How often the directory was started.
    pub starts: u64,
    /// Random bits of the last start.
    pub stamp: u64,
    /// The directory's own inode: a copy of it has another.
    place: u64,
    /// How each core was left, if the last stop was clean.
    clean: Option<Vec<Left>>,
    /// Every actor that ever minted here, as far as it is remembered, the oldest first.
    pub actors: Vec<ActorId>,
}

/// How a clean stop left a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// The actor that it minted as.
    pub actor: ActorId,
    /// The actor's last counter.
    pub counter: u64,
    /// The last record of its log: all up to it was durable.
    pub last: AppendId,
}

/// An open data directory, locked for as long as this lives.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    /// Who it is.
    pub identity: Identity,
    _lock: File,
}

/// Is there while a first start is not counted.
const FOUNDING: &str = "founding";

/// What may be in a directory that is no node's yet.
const OURS: &[&str] =
    &["lock", "wal", "lsm", "node.tmp", FOUNDING, "founding.tmp", "cluster", "cluster.tmp", "lost+found"];

/// How a directory is founded.
#[derive(Clone, Copy, Debug)]
pub struct Founding {
    /// The new cluster.
    pub cluster: ClusterId,
    /// The new directory.
    pub incarnation: u128,
    /// Partitions of the new ring.
    pub partitions: u16,
    /// The new node's salt.
    pub salt: u64,
}

/// What a start brings along.
#[derive(Clone, Debug)]
pub struct Start {
    /// Random bits of this start.
    pub stamp: u64,
    /// A fresh actor for each core, used where the old one cannot go on.
    pub fresh: Vec<ActorId>,
}

impl Home {
    /// Counts a start of the open directory, and gives the actor and its last counter for each core: the old ones after
    /// a clean stop with the same number of cores in the same place, fresh ones otherwise.
    ///
    /// # Errors
    /// [`HomeError`]; nothing was changed then.
    pub fn begin(&mut self, start: Start) -> Result<Vec<(ActorId, u64)>, HomeError> {
        let place = self.inode()?;
        let identity = &mut self.identity;
        let clean = identity.clean.take().filter(|clean| clean.len() == start.fresh.len() && identity.place == place);
        let actors = match clean {
            Some(clean) => clean.into_iter().map(|left| (left.actor, left.counter)).collect(),
            None => {
                identity.actors.extend(&start.fresh);
                let beyond = identity.actors.len().saturating_sub(ACTORS_MAX);
                identity.actors.drain(..beyond);
                start.fresh.iter().map(|actor| (*actor, 0)).collect()
            }
        };
        identity.starts += 1;
        identity.stamp = start.stamp;
        identity.place = place;
        self.write()?;
        remove(&self.path.join(FOUNDING))?;
        Ok(actors)
    }

    /// How each core was left, if the last stop was clean and no start was counted since.
    pub fn left(&self) -> Option<&[Left]> {
        self.identity.clean.as_deref()
    }

    /// Opens a directory and founds it if it is empty.
    ///
    /// # Errors
    /// [`HomeError`]; nothing was changed then.
    pub fn open(path: &Path, founding: Founding) -> Result<Home, HomeError> {
        fs::create_dir_all(path).map_err(|cause| io_error("cannot create", path, cause))?;
        // glommio opens no relative paths.
        let path = &fs::canonicalize(path).map_err(|cause| io_error("cannot look at", path, cause))?;
        // What is not ours is left as it is, without even a lock in it.
        if !path.join("node").exists() && !is_empty(path)? {
            let reason = "it holds other files".to_owned();
            return Err(HomeError::Foreign { path: path.to_owned(), reason });
        }
        let lock = lock(path)?;
        for folder in ["wal", "lsm"] {
            let folder = path.join(folder);
            fs::create_dir_all(&folder).map_err(|cause| io_error("cannot create", &folder, cause))?;
            // Asked before the logs are replayed and the start is counted: a start that is refused changes nothing.
            let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
            access(&folder, all).map_err(|errno| io_error("cannot write in", &folder, errno.into()))?;
        }
        let file = path.join("node");
        if !file.exists() && path.join(FOUNDING).exists() {
            clear(path)?;
        }
        let identity = match fs::read(&file) {
            Ok(bytes) => decode(&file, &bytes)?,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound && is_unused(path)? => founded(founding),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                let reason = "its file \"node\" is missing beside data".to_owned();
                return Err(HomeError::Damaged { path: file, reason });
            }
            Err(cause) => return Err(io_error("cannot read", &file, cause)),
        };
        Ok(Home { path: path.to_owned(), identity, _lock: lock })
    }

    /// What is in the directory from now on is of a first start, until that is counted: a start after it that finds it
    /// uncounted begins anew. Does nothing where the directory is a node's already.
    ///
    /// # Errors
    /// [`HomeError`].
    pub fn begin_founding(&self) -> Result<(), HomeError> {
        if self.path.join("node").exists() {
            return Ok(());
        }
        replace(&self.path.join(FOUNDING), b"")
    }

    /// Who a directory is, without opening it; `None` when it is no node's yet.
    ///
    /// # Errors
    /// [`HomeError`].
    pub fn peek(path: &Path) -> Result<Option<Identity>, HomeError> {
        let file = path.join("node");
        match fs::read(&file) {
            Ok(bytes) => decode(&file, &bytes).map(Some),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(io_error("cannot read", &file, cause)),
        }
    }

    /// Opens a directory that must be empty, to be filled and then [founded](Home::found). Until then it is no node's.
    ///
    /// # Errors
    /// [`HomeError`]; nothing was changed then.
    pub fn empty(path: &Path, founding: Founding) -> Result<Home, HomeError> {
        if path.join("node").exists() {
            return Err(HomeError::Taken { path: path.to_owned() });
        }
        Home::open(path, founding)
    }

    /// Makes a filled directory a node's.
    ///
    /// # Errors
    /// [`HomeError`].
    pub fn found(&self) -> Result<(), HomeError> {
        self.write()
    }

    /// The directory itself, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of log segments.
    pub fn wal(&self) -> PathBuf {
        self.path.join("wal")
    }

    /// The folder of the LSM tree.
    pub fn lsm(&self) -> PathBuf {
        self.path.join("lsm")
    }

    /// Marks a clean stop: these actors have minted up to these counters, and everything is durable. The last write of
    /// a life.
    ///
    /// # Errors
    /// [`HomeError`]; without the mark the next start draws fresh actors, and nothing is lost.
    pub fn mark_clean(&mut self, cores: Vec<Left>) -> Result<(), HomeError> {
        self.identity.clean = Some(cores);
        self.write()
    }

    fn inode(&self) -> Result<u64, HomeError> {
        let path = &self.path;
        let metadata = fs::metadata(path).map_err(|cause| io_error("cannot look at", path, cause))?;
        Ok(metadata.ino())
    }

    fn write(&self) -> Result<(), HomeError> {
        replace(&self.path.join("node"), &encode(&self.identity))
    }
}

/// Replaces a file whole: after a crash it is the old or the new one, and the new one once this returns.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    let fresh = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        let folder = path.parent().expect("a file stands in a folder");
        File::open(folder)?.sync_all()
    };
    write().map_err(|cause| io_error("cannot write", path, cause))
}

fn lock(path: &Path) -> Result<File, HomeError> {
    let file = path.join("lock");
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&file);
    let lock = opened.map_err(|cause| io_error("cannot open", &file, cause))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(HomeError::Locked { path: path.to_owned() }),
        Err(errno) => Err(io_error("cannot lock", &file, errno.into())),
    }
}

/// Nothing but our own lock and folders.
fn is_empty(path: &Path) -> Result<bool, HomeError> {
    let entries = fs::read_dir(path).map_err(|cause| io_error("cannot list", path, cause))?;
    for entry in entries {
        let entry = entry.map_err(|cause| io_error("cannot list", path, cause))?;
        let name = entry.file_name();
        if !OURS.iter().any(|ours| name == *ours) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes away what a first start left behind that ended before it was counted: nothing was acknowledged then.
fn clear(path: &Path) -> Result<(), HomeError> {
    for folder in ["wal", "lsm"] {
        let folder = path.join(folder);
        fs::remove_dir_all(&folder).map_err(|cause| io_error("cannot remove", &folder, cause))?;
        fs::create_dir(&folder).map_err(|cause| io_error("cannot create", &folder, cause))?;
    }
    remove(&path.join(FOUNDING))
}

fn remove(file: &Path) -> Result<(), HomeError> {
    match fs::remove_file(file) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(io_error("cannot remove", file, cause)),
        _ => Ok(()),
    }
}

/// A crash while the directory was founded may leave folders behind, but nothing in them.
fn is_unused(path: &Path) -> Result<bool, HomeError> {
    for folder in ["wal", "lsm"] {
        let folder = path.join(folder);
        let mut entries = fs::read_dir(&folder).map_err(|cause| io_error("cannot list", &folder, cause))?;
        if entries.next().is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn founded(founding: Founding) -> Identity {
    let Founding { cluster, incarnation, partitions, salt } = founding;
    Identity { cluster, incarnation, partitions, salt, starts: 0, stamp: 0, place: 0, clean: None, actors: Vec::new() }
}

fn encode(identity: &Identity) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(MAGIC);
    out.put_u32_le(FORMAT);
    out.put_u128_le(identity.cluster.0);
    out.put_u128_le(identity.incarnation);
    out.put_u16_le(identity.partitions);
    out.put_u64_le(identity.salt);
    out.put_u64_le(identity.starts);
    out.put_u64_le(identity.stamp);
    out.put_u64_le(identity.place);
    out.put_u8(u8::from(identity.clean.is_some()));
    if let Some(clean) = &identity.clean {
        put_count(&mut out, clean.len());
        for left in clean {
            out.put_u64_le(left.actor.0);
            out.put_u64_le(left.counter);
            out.put_u64_le(left.last.0);
        }
    }
    put_count(&mut out, identity.actors.len());
    identity.actors.iter().for_each(|actor| out.put_u64_le(actor.0));
    out.put_u32_le(crc32c::crc32c(&out));
    out.freeze()
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Identity, HomeError> {
    let foreign = |reason: &str| HomeError::Foreign { path: path.to_owned(), reason: reason.to_owned() };
    let damaged = |reason: String| HomeError::Damaged { path: path.to_owned(), reason };
    if bytes.len() < 16 || !bytes.starts_with(MAGIC) {
        return Err(foreign("its file \"node\" was not written by sloop"));
    }
    let found = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if found != FORMAT {
        return Err(HomeError::Format { path: path.to_owned(), found, known: FORMAT });
    }
    let (body, crc) = bytes.split_last_chunk::<4>().expect("it has 16 bytes at least");
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(damaged("its checksum does not match".to_owned()));
    }
    let identity = read(&body[12..]).map_err(|error| damaged(error.to_string()))?;
    if identity.partitions.is_power_of_two() {
        Ok(identity)
    } else {
        Err(damaged(format!("{} is no number of partitions", identity.partitions)))
    }
}

fn read(body: &[u8]) -> Result<Identity, WireError> {
    let mut from = Reader::new(body);
    let identity = Identity {
        cluster: ClusterId(from.u128("cluster")?),
        incarnation: from.u128("incarnation")?,
        partitions: from.u16("partitions")?,
        salt: from.u64("salt")?,
        starts: from.u64("starts")?,
        stamp: from.u64("stamp")?,
        place: from.u64("place")?,
        clean: match from.u8("clean")? {
            0 => None,
            _ => {
                let count = from.count("cores", CORES_MAX, 24)?;
                let core = |from: &mut Reader| {
                    let (actor, counter) = (ActorId(from.u64("actor")?), from.u64("counter")?);
                    Ok(Left { actor, counter, last: AppendId(from.u64("last record")?) })
                };
                Some((0..count).map(|_| core(&mut from)).collect::<Result<_, WireError>>()?)
            }
        },
        actors: {
            let count = from.count("actors", ACTORS_MAX, 8)?;
            (0..count).map(|_| Ok(ActorId(from.u64("actor")?))).collect::<Result<_, WireError>>()?
        },
    };
    from.end()?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founding() -> Founding {
        Founding { cluster: ClusterId(7), incarnation: 8, partitions: 1_024, salt: 9 }
    }

    fn left(actor: u64, counter: u64) -> Left {
        Left { actor: ActorId(actor), counter, last: AppendId(counter) }
    }

    fn start(path: &Path, fresh: &[u64]) -> (Home, Vec<(ActorId, u64)>) {
        let fresh = fresh.iter().map(|actor| ActorId(*actor)).collect();
        let mut home = Home::open(path, founding()).unwrap();
        let actors = home.begin(Start { stamp: 1, fresh }).unwrap();
        (home, actors)
    }

    #[test]
    fn a_crash_draws_fresh_actors_and_a_clean_stop_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let (home, actors) = start(dir.path(), &[1, 2]);
        assert_eq!(actors, [(ActorId(1), 0), (ActorId(2), 0)]);
        drop(home);

        let (mut home, actors) = start(dir.path(), &[3, 4]);
        assert_eq!(actors, [(ActorId(3), 0), (ActorId(4), 0)], "the first life ended without its mark");
        home.mark_clean(vec![left(3, 30), left(4, 40)]).unwrap();
        drop(home);

        let (home, actors) = start(dir.path(), &[5, 6]);
        assert_eq!(actors, [(ActorId(3), 30), (ActorId(4), 40)]);
        assert_eq!(home.identity.starts, 3);
        drop(home);

        let (home, actors) = start(dir.path(), &[7, 8]);
        assert_eq!(actors[0], (ActorId(7), 0), "the mark was taken away by the start that used it");
        assert_eq!(home.identity.actors, [1, 2, 3, 4, 7, 8].map(ActorId));
    }

    #[test]
    fn a_first_start_that_was_cut_off_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path(), founding()).unwrap();
        home.begin_founding().unwrap();
        fs::create_dir(home.lsm().join("keyspaces")).unwrap();
        fs::write(home.wal().join("1.seg"), [0; 9]).unwrap();
        drop(home);

        let (home, actors) = start(dir.path(), &[3]);
        assert_eq!((actors, home.identity.starts), (vec![(ActorId(3), 0)], 1));
        assert!(is_unused(dir.path()).unwrap() && !dir.path().join(FOUNDING).exists());
        fs::write(home.lsm().join("data"), "of a node").unwrap();
        home.begin_founding().unwrap();
        drop(home);
        drop(start(dir.path(), &[4]));
        assert!(dir.path().join("lsm/data").exists(), "what a node has is never taken away");

        fs::remove_file(dir.path().join("node")).unwrap();
        let damaged = Home::open(dir.path(), founding()).unwrap_err();
        assert!(matches!(damaged, HomeError::Damaged { .. }), "{damaged}");
    }

    #[test]
    fn another_number_of_cores_draws_fresh_actors() {
        let dir = tempfile::tempdir().unwrap();
        let (mut home, _) = start(dir.path(), &[1, 2]);
        home.mark_clean(vec![left(1, 10), left(2, 20)]).unwrap();
        drop(home);
        let (_, actors) = start(dir.path(), &[3]);
        assert_eq!(actors, [(ActorId(3), 0)]);
    }

    #[test]
    fn a_copy_of_a_directory_draws_fresh_actors() {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut home, _) = start(dir.path(), &[1]);
        home.mark_clean(vec![left(1, 10)]).unwrap();
        fs::create_dir(copy.path().join("wal")).unwrap();
        fs::create_dir(copy.path().join("lsm")).unwrap();
        fs::copy(dir.path().join("node"), copy.path().join("node")).unwrap();
        let (_, actors) = start(copy.path(), &[2]);
        assert_eq!(actors, [(ActorId(2), 0)]);
    }

    #[test]
    fn a_directory_serves_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let _home = start(dir.path(), &[1]);
        let second = Home::open(dir.path(), founding());
        assert!(matches!(second, Err(HomeError::Locked { .. })));
    }

    #[test]
    fn fault_10_a_leftover_of_a_crash_does_not_keep_the_node_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        drop(start(dir.path(), &[1]));
        fs::write(dir.path().join("node.tmp"), b"half").unwrap();
        let (home, _) = start(dir.path(), &[2]);
        assert_eq!(home.identity.starts, 2);
    }

    #[test]
    fn foreign_newer_and_damaged_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), b"do not touch").unwrap();
        assert!(matches!(Home::open(dir.path(), founding()), Err(HomeError::Foreign { .. })));
        fs::remove_file(dir.path().join("thesis.tex")).unwrap();

        drop(start(dir.path(), &[1]));
        let good = fs::read(dir.path().join("node")).unwrap();
        for at in 12..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 4;
            fs::write(dir.path().join("node"), &flipped).unwrap();
            assert!(matches!(Home::open(dir.path(), founding()), Err(HomeError::Damaged { .. })), "byte {at}");
        }
        let mut newer = good.clone();
        newer[8] = 3;
        fs::write(dir.path().join("node"), &newer).unwrap();
        assert!(matches!(Home::open(dir.path(), founding()), Err(HomeError::Format { found: 3, .. })));

        fs::remove_file(dir.path().join("node")).unwrap();
        fs::write(dir.path().join("wal/00000001.seg"), b"data").unwrap();
        assert!(matches!(Home::open(dir.path(), founding()), Err(HomeError::Damaged { .. })));
    }

    #[test]
    fn the_bytes_of_the_node_file_never_change() {
        let mut identity = founded(founding());
        identity.starts = 2;
        identity.clean = Some(vec![Left { actor: ActorId(3), counter: 4, last: AppendId(5) }]);
        identity.actors = vec![ActorId(3)];
        let golden = "534c4f4f504e4f440200000007000000000000000000000000000000080000000000000000000000\
                      00000000000409000000000000000200000000000000000000000000000000000000000000000101\
                      000000030000000000000004000000000000000500000000000000010000000300000000000000";
        let bytes = encode(&identity);
        assert_eq!(hex::encode(&bytes[..bytes.len() - 4]), golden);
        assert_eq!(decode(Path::new("node"), &bytes).unwrap(), identity);
    }
}
