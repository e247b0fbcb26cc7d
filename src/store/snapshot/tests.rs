use std::ops::ControlFlow;

use bytes::Bytes;

use super::*;
use crate::protocol::causality::{Siblings, Supersedes, Write};
use crate::protocol::ring::Ring;
use crate::protocol::types::{ActorId, Dot, Key, Value, WallTime};
use crate::store::Place;
use crate::wire::sets;

fn set(actor: u64, counter: u64, value: Option<&[u8]>) -> Siblings {
    let write = Write {
        value: value.map(|value| Value::new(value.to_vec()).unwrap()),
        supersedes: Supersedes::Held,
        operation: None,
        written_at: WallTime(1_728_000_000_000),
    };
    Siblings::default().mint(Dot { actor: ActorId(actor), counter }, write).unwrap().set
}

/// `keys` keys in the order of the store, each with a set of about `bytes` bytes.
fn contents(ring: Ring, keys: u64, bytes: usize) -> Vec<(Place, Siblings)> {
    let entry = |n: u64| {
        let key = Key::new(format!("key {n}")).unwrap();
        let value = vec![b'v'; bytes];
        (Place::of(ring, &key), set(1, n + 1, (!n.is_multiple_of(5)).then_some(&value)))
    };
    let mut contents: Vec<_> = (0..keys).map(entry).collect();
    contents.sort_by(|one, other| one.0.cmp(&other.0));
    contents
}

fn written(ring: Ring, contents: &[(Place, Siblings)]) -> (Vec<u8>, Summary) {
    let mut bytes = vec![];
    let entries = contents.iter().map(|(place, set)| Ok::<_, ()>((place.clone(), sets::encode_set(set))));
    let summary = write(ring, entries, |piece| {
        bytes.extend_from_slice(&piece);
        ControlFlow::Continue(())
    });
    (bytes, summary.unwrap().unwrap())
}

fn read(bytes: &[u8]) -> Result<(Vec<(Key, Siblings)>, Summary), SnapshotError> {
    let mut entries = Entries::open(bytes)?;
    let read = entries.by_ref().collect::<Result<Vec<_>, _>>()?;
    Ok((read, entries.summary().unwrap()))
}

#[test]
fn what_was_written_is_read_again_over_many_blocks() {
    let ring = Ring::new(16);
    for (keys, bytes) in [(0, 0), (1, 10), (1_000, 300), (3, 200_000)] {
        let contents = contents(ring, keys, bytes);
        let (bytes, summary) = written(ring, &contents);

        let (entries, read) = read(&bytes).unwrap();

        assert_eq!(read, summary);
        assert_eq!((read.keys, read.bytes), (keys, bytes.len() as u64));
        let expected: Vec<_> = contents.into_iter().map(|(place, set)| (place.key, set)).collect();
        assert_eq!(entries, expected);
    }
}

#[test]
fn equal_contents_give_equal_bytes_and_others_another_digest() {
    let ring = Ring::new(16);
    let one = contents(ring, 100, 50);
    let mut other = one.clone();
    other[7].1 = set(9, 9, Some(b"v"));
    assert_eq!(written(ring, &one), written(ring, &one.clone()));
    assert_ne!(written(ring, &one).1.digest, written(ring, &other).1.digest);
}

#[test]
fn the_bytes_never_change() {
    let ring = Ring::new(4);
    let key = Key::new("a").unwrap();
    let (bytes, summary) = written(ring, &[(Place::of(ring, &key), set(0x0102, 3, Some(b"v")))]);
    let golden = [
        // "SLOOPSNP", format, partitions, crc
        "534c4f4f50534e50 0100 0400 732fd4ce",
        // a block of one entry and 63 bytes, crc of the body, crc
        "01 01000000 3f000000 8eea00c1 68599307",
        // partition, key, set: its vector of one dot
        "0000 0100 61 36000000 01000000 0201000000000000 0300000000000000",
        // one version: dot, flags, written at, value
        "01000000 0201000000000000 0300000000000000 01 0080d35492010000 01000000 76",
        // the end: keys, blocks, digest, crc
        "02 0100000000000000 0100000000000000 dc8beb9bb6d8f59f 37480615",
    ];
    assert_eq!(hex::encode(&bytes), golden.concat().replace(' ', ""));
    let manifest = "sloop snapshot 1\npartitions 4\nkeys 1\nblocks 1\nbytes 125\ndigest 9ff5d8b69beb8bdc\n";
    assert_eq!(summary.to_string(), manifest);
}

#[test]
fn every_flipped_bit_is_found() {
    let ring = Ring::new(16);
    let (bytes, _) = written(ring, &contents(ring, 4, 10));
    for at in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        assert!(read(&flipped).is_err(), "bit {at} was flipped unseen");
    }
}

#[test]
fn a_snapshot_that_breaks_off_anywhere_is_partial() {
    let ring = Ring::new(16);
    let (bytes, _) = written(ring, &contents(ring, 4, 10));
    for length in HEAD_BYTES..bytes.len() {
        let refused = read(&bytes[..length]).unwrap_err();
        assert!(matches!(refused, SnapshotError::Partial { .. }), "{length}: {refused}");
    }
    assert!(matches!(read(&bytes[..HEAD_BYTES - 1]).unwrap_err(), SnapshotError::Foreign));
}

#[test]
fn what_is_foreign_newer_or_longer_is_refused_with_a_message_each() {
    let ring = Ring::new(16);
    let (bytes, _) = written(ring, &contents(ring, 4, 10));

    assert_eq!(read(b"PK\x03\x04 some other file").unwrap_err().to_string(), "not a snapshot of sloop");

    let mut newer = bytes.clone();
    newer[8] = 2;
    let refused = read(&newer).unwrap_err().to_string();
    assert!(refused.starts_with("the snapshot has format 2, this sloop reads format 1"), "{refused}");

    let longer = [&bytes[..], b"!"].concat();
    assert!(read(&longer).unwrap_err().to_string().contains("bytes behind its end"));
}

#[test]
fn entries_stand_in_order_and_under_their_own_partition() {
    let ring = Ring::new(16);
    let key = Key::new("a").unwrap();
    let belongs = ring.partition(&key);
    let elsewhere = crate::protocol::ring::Partition((belongs.0 + 1) % 16);
    let (bytes, _) = written(ring, &[(Place { partition: elsewhere, key }, set(1, 1, None))]);
    let refused = read(&bytes).unwrap_err().to_string();
    assert!(refused.contains("its key belongs to"), "{refused}");
}

#[test]
fn a_reader_that_has_gone_ends_the_writing() {
    let ring = Ring::new(16);
    let mut pulled = 0;
    let entries = contents(ring, 10_000, 100).into_iter().map(|(place, set)| {
        pulled += 1;
        Ok::<_, ()>((place, sets::encode_set(&set)))
    });
    let mut pieces = 0;
    let summary = write(ring, entries, |_: Bytes| {
        pieces += 1;
        if pieces < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert_eq!(summary, Ok(None));
    assert!(pulled < 1_000, "{pulled} entries were read for nobody");
}

#[cfg(feature = "daemon")]
mod on_disk {
    use super::super::folder::{FolderError, Unfinished, open};
    use super::*;

    fn stored(folder: &std::path::Path, bytes: &[u8]) -> Result<Summary, FolderError> {
        let mut unfinished = Unfinished::begin(folder)?;
        bytes.chunks(1_000).try_for_each(|piece| unfinished.write(piece))?;
        unfinished.finish()
    }

    #[test]
    fn a_stored_snapshot_is_opened_again_and_verified() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Ring::new(16);
        let (bytes, summary) = written(ring, &contents(ring, 100, 50));
        let folder = dir.path().join("new/snapshot");

        assert_eq!(stored(&folder, &bytes).unwrap(), summary);

        let (opened, entries) = open(&folder).unwrap();
        assert_eq!((opened, entries.count()), (summary, 100));
        let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["data", "manifest"]);
    }

    #[test]
    fn a_partial_snapshot_gets_no_manifest_and_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Ring::new(16);
        let (bytes, _) = written(ring, &contents(ring, 100, 50));
        let folder = dir.path().join("partial");

        let refused = stored(&folder, &bytes[..bytes.len() - 1]).unwrap_err().to_string();

        assert!(refused.contains("the snapshot is partial"), "{refused}");
        assert!(matches!(open(&folder).unwrap_err(), FolderError::Unfinished { .. }));
    }

    #[test]
    fn a_folder_with_something_in_it_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mine"), "mine").unwrap();
        assert!(matches!(Unfinished::begin(dir.path()), Err(FolderError::NotEmpty { .. })));
    }

    #[test]
    fn a_discarded_one_leaves_the_folder_for_another_try() {
        let dir = tempfile::tempdir().unwrap();
        Unfinished::begin(dir.path()).unwrap().discard().unwrap();
        assert!(Unfinished::begin(dir.path()).is_ok());
    }

    #[test]
    fn a_manifest_of_another_snapshot_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Ring::new(16);
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        stored(&one, &written(ring, &contents(ring, 10, 50)).0).unwrap();
        stored(&other, &written(ring, &contents(ring, 11, 50)).0).unwrap();
        std::fs::copy(other.join("manifest"), one.join("manifest")).unwrap();
        assert!(matches!(open(&one).unwrap_err(), FolderError::Mixed { .. }));

        std::fs::write(one.join("manifest"), "sloop snapshot 7\n").unwrap();
        assert!(open(&one).unwrap_err().to_string().contains("format 7"));
        std::fs::write(one.join("manifest"), "something else").unwrap();
        assert!(open(&one).unwrap_err().to_string().contains("not a snapshot of sloop"));
    }
}
