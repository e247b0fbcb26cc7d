//! What a node knows of its cluster, in the file `cluster` of its data directory: rows, the stored layout, the
//! pending one.
//!
//! ```text
//! cluster:  "SLOOPCLU"  format u32  durable (`wire::members`)  crc32c u32 over all before it
//! ```
//! A node that joins writes it before its directory becomes a node's, so a join that breaks off goes on as the same
//! node.

use std::fs;
use std::io;
use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};

use super::home::{HomeError, io_error, replace};
use crate::protocol::membership::Durable;
use crate::wire::members::{get_durable, put_durable};
use crate::wire::{Reader, WireError};

const MAGIC: &[u8; 8] = b"SLOOPCLU";
const FORMAT: u32 = 2;
const FILE: &str = "cluster";

/// Reads what the node of a data directory knew; `None` where it has never written anything.
///
/// # Errors
/// [`HomeError`].
pub fn read(folder: &Path) -> Result<Option<Durable>, HomeError> {
    let path = folder.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => decode(&path, &bytes).map(Some),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(io_error("cannot read", &path, cause)),
    }
}

/// Makes what a node knows durable: after a crash the file is the old or the new one, and the new one once this
/// returns.
///
/// # Errors
/// [`HomeError`].
pub fn write(folder: &Path, durable: &Durable) -> Result<(), HomeError> {
    replace(&folder.join(FILE), &encode(durable))
}

fn encode(durable: &Durable) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(MAGIC);
    out.put_u32_le(FORMAT);
    put_durable(&mut out, durable);
    out.put_u32_le(crc32c::crc32c(&out));
    out.freeze()
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Durable, HomeError> {
    let path = || path.to_owned();
    let damaged = |reason: String| HomeError::Damaged { path: path(), reason };
    if bytes.len() < 16 || !bytes.starts_with(MAGIC) {
        return Err(damaged("it was not written by sloop".to_owned()));
    }
    let found = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if found != FORMAT {
        return Err(HomeError::Format { path: path(), found, known: FORMAT });
    }
    let (body, crc) = bytes.split_last_chunk::<4>().expect("it has 16 bytes at least");
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(damaged("its checksum does not match".to_owned()));
    }
    get(&body[12..]).map_err(|error| damaged(error.to_string()))
}

fn get(body: &[u8]) -> Result<Durable, WireError> {
    let mut from = Reader::new(body);
    let durable = get_durable(&mut from)?;
    from.end()?;
    Ok(durable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::membership::{Knowledge, RowStart, may_join};
    use crate::protocol::ring::Cores;
    use crate::protocol::types::ClusterId;

    fn durable() -> Durable {
        let address = ([127, 0, 0, 1], 7_600).into();
        let start = RowStart { count: 0, stamp: 0, address, http: address, cores: Cores { count: 1, salt: 2 } };
        let known = Knowledge { cluster: Some(ClusterId(7)), partitions: 16, ..Knowledge::nothing() };
        may_join("node-a", 3, start, known).unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        write(folder.path(), &durable()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Some(durable()));

        let path = folder.path().join(FILE);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 4;
            fs::write(&path, &flipped).unwrap();
            assert!(read(folder.path()).is_err(), "byte {at}");
        }
        for cut in 0..good.len() {
            fs::write(&path, &good[..cut]).unwrap();
            assert!(read(folder.path()).is_err(), "{cut} bytes");
        }
    }

    #[test]
    fn the_first_bytes_never_change() {
        let bytes = encode(&durable());
        assert_eq!(hex::encode(&bytes[..30]), "534c4f4f50434c5502000000070000000000000000000000000000001000");
    }
}
