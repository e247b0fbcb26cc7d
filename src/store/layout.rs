//! Where things stand in the LSM tree: one keyspace, so that a chunk is atomic whatever it holds.
//!
//! ```text
//! key                                                                    value
//! 'h', node u64, partition u16, key                                      counted u8, 0 or 1
//! 'k', partition u16, key                                                set (wire::sets)
//! 'm', name                                                              by name:
//!      "closed-below"                                                    start u64
//!      "position", core u16                                              start u64, sequence number u64
//! 'o', partition u16, key length u16, key, operation id                  remember (wire::sets)
//! 't', partition u16                                                     keys u64, buried u64, bytes u64, 256 x u64
//! ```
//! Integers in keys are big-endian, so that the tree's order is theirs; integers in values are little-endian, as
//! everywhere else.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use crate::protocol::antientropy::{LEAVES, PartitionTree};
use crate::protocol::io::Hint;
use crate::protocol::replica::Remembered;
use crate::protocol::ring::{Partition, Ring};
use crate::protocol::types::{AppendId, CoreId, Key, LengthError, LogId, NodeId, OperationId};
use crate::wire::{Reader, WireError, sets};

const HINT: u8 = b'h';
const SET: u8 = b'k';
const META: u8 = b'm';
const OPERATION: u8 = b'o';
const TREE: u8 = b't';

const CLOSED_BELOW: &[u8] = b"closed-below";
const NOTHING: &[u8] = b"nothing";
const POSITION: &[u8] = b"position";

/// A key with its partition. The order of places is the order of the tree: by partition, then by key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The key's partition.
    pub partition: Partition,
    /// The key.
    pub key: Key,
}

/// What the tree knows of the logs: this much of them need not be replayed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Known {
    /// Logs of earlier starts than this are in the tree, all of them and for ever.
    pub closed_below: u64,
    /// Of each core's newest log that was ever ingested, the last record that is in the tree.
    pub positions: BTreeMap<CoreId, (u64, AppendId)>,
}

/// An entry of the tree that cannot be read: damage that no checksum caught, or another program's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The key is none of ours.
    #[error("the store holds a key that is none of ours: \"{}\"", .0.escape_ascii())]
    Key(Vec<u8>),
    /// The value is none of ours.
    #[error("the store holds a value that cannot be read under \"{}\": {cause}", .key.escape_ascii())]
    Value {
        /// Where it stands.
        key: Vec<u8>,
        /// What is wrong with it.
        cause: WireError,
    },
}

impl Place {
    /// The place of a key.
    pub fn of(ring: Ring, key: &Key) -> Place {
        Place { partition: ring.partition(key), key: key.clone() }
    }

    /// The tree's key for the set that stands here.
    pub fn set_key(&self) -> Vec<u8> {
        set_keys_from(self.partition, self.key.as_bytes())
    }

    /// The place of a set's entry.
    ///
    /// # Errors
    /// [`LayoutError::Key`] when it is not the key of a set.
    pub fn from_set_key(key: &[u8]) -> Result<Place, LayoutError> {
        let foreign = || LayoutError::Key(key.to_vec());
        match key {
            [SET, high, low, name @ ..] => Ok(Place {
                partition: Partition(u16::from_be_bytes([*high, *low])),
                key: Key::new(name).map_err(|_| foreign())?,
            }),
            _ => Err(foreign()),
        }
    }
}

/// Where the sets of a partition stand whose keys begin with `prefix`, and everything behind them.
pub fn set_keys_from(partition: Partition, prefix: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(3 + prefix.len());
    put_set_key(&mut key, partition, prefix);
    key
}

/// Spells the tree's key of a set.
pub fn put_set_key(out: &mut Vec<u8>, partition: Partition, name: &[u8]) {
    out.push(SET);
    out.extend_from_slice(&partition.0.to_be_bytes());
    out.extend_from_slice(name);
}

/// The first byte of every set's key.
pub const fn set_prefix() -> [u8; 1] {
    [SET]
}

/// The first byte of every hint's key.
pub const fn hint_prefix() -> [u8; 1] {
    [HINT]
}

/// The tree's key for the hint that the set at this place is owed to a node. Hints stand by node, so that those of one
/// are read in a row.
pub fn hint_key(place: &Place, target: NodeId) -> Vec<u8> {
    let name = place.key.as_bytes();
    let mut key = Vec::with_capacity(11 + name.len());
    key.push(HINT);
    key.extend_from_slice(&target.0.to_be_bytes());
    key.extend_from_slice(&place.partition.0.to_be_bytes());
    key.extend_from_slice(name);
    key
}

/// What an entry says of a hint, and for which key.
///
/// # Errors
/// [`LayoutError`] when it is no such entry.
pub fn decode_hint(key: &[u8], value: &[u8]) -> Result<(Place, Hint), LayoutError> {
    let (place, target) = hint_place(key).ok_or_else(|| LayoutError::Key(key.to_vec()))?;
    let unreadable = |cause| LayoutError::Value { key: key.to_vec(), cause };
    let mut reader = Reader::new(value);
    let counted = get_counted(&mut reader).map_err(unreadable)?;
    reader.end().map_err(unreadable)?;
    Ok((place, Hint { target, counted }))
}

/// Reads whether a hint counted.
pub(super) fn get_counted(from: &mut Reader) -> Result<bool, WireError> {
    match from.u8("counted")? {
        0 => Ok(false),
        1 => Ok(true),
        tag => Err(WireError::Unknown { what: "counted", tag: tag.into() }),
    }
}

fn hint_place(key: &[u8]) -> Option<(Place, NodeId)> {
    let (target, rest) = key.strip_prefix(&[HINT])?.split_first_chunk()?;
    let (partition, name) = rest.split_first_chunk()?;
    let place = Place { partition: Partition(u16::from_be_bytes(*partition)), key: Key::new(name).ok()? };
    Some((place, NodeId(u64::from_be_bytes(*target))))
}

/// The first byte of every key that [`Known::learn`] reads.
pub const fn meta_prefix() -> [u8; 1] {
    [META]
}

/// The first byte of every remembered operation's key.
pub const fn operation_prefix() -> [u8; 1] {
    [OPERATION]
}

/// The tree's key for a remembered operation.
pub fn operation_key(place: &Place, operation: &OperationId) -> Vec<u8> {
    let (name, id) = (place.key.as_bytes(), operation.as_bytes());
    let length = u16::try_from(name.len()).expect("a key is bounded below 65,536 bytes");
    let mut key = Vec::with_capacity(5 + name.len() + id.len());
    key.push(OPERATION);
    key.extend_from_slice(&place.partition.0.to_be_bytes());
    key.extend_from_slice(&length.to_be_bytes());
    key.extend_from_slice(name);
    key.extend_from_slice(id);
    key
}

/// What an entry remembers of an operation, and for which key.
///
/// # Errors
/// [`LayoutError`] when it is no such entry.
pub fn decode_operation(key: &[u8], value: &[u8]) -> Result<(Place, Remembered), LayoutError> {
    let place = operation_place(key).ok_or_else(|| LayoutError::Key(key.to_vec()))?;
    let unreadable = |cause| LayoutError::Value { key: key.to_vec(), cause };
    let mut reader = Reader::new(value);
    let remembered = sets::get_remembered(&mut reader).map_err(unreadable)?;
    reader.end().map_err(unreadable)?;
    Ok((place, remembered))
}

fn operation_place(key: &[u8]) -> Option<Place> {
    let [OPERATION, p0, p1, l0, l1, rest @ ..] = key else {
        return None;
    };
    let (name, id) = rest.split_at_checked(usize::from(u16::from_be_bytes([*l0, *l1])))?;
    let checked = || -> Result<Key, LengthError> {
        OperationId::new(id)?;
        Key::new(name)
    };
    Some(Place { partition: Partition(u16::from_be_bytes([*p0, *p1])), key: checked().ok()? })
}

/// The value of a remembered operation.
pub fn encode_remembered(remembered: &Remembered) -> Bytes {
    let mut value = BytesMut::new();
    sets::put_remembered(&mut value, remembered);
    value.freeze()
}

/// The first byte of every tree's key.
pub const fn tree_prefix() -> [u8; 1] {
    [TREE]
}

/// The entry that holds the hash tree of a partition.
pub fn tree_entry(partition: Partition, tree: &PartitionTree) -> (Vec<u8>, Vec<u8>) {
    let sum = tree.sum();
    let parts = [sum.keys, sum.buried, sum.bytes].into_iter().chain(*tree.leaves());
    (tree_key(partition), parts.flat_map(u64::to_le_bytes).collect())
}

/// The tree's key for the hash tree of a partition.
pub fn tree_key(partition: Partition) -> Vec<u8> {
    [&[TREE][..], &partition.0.to_be_bytes()].concat()
}

/// The hash tree that an entry holds, and of which partition.
///
/// # Errors
/// [`LayoutError`] when it is no such entry.
pub fn decode_tree(key: &[u8], value: &[u8]) -> Result<(Partition, PartitionTree), LayoutError> {
    let [TREE, high, low] = key else {
        return Err(LayoutError::Key(key.to_vec()));
    };
    let unreadable = |cause| LayoutError::Value { key: key.to_vec(), cause };
    let tree = get_tree(&mut Reader::new(value)).map_err(unreadable)?;
    Ok((Partition(u16::from_be_bytes([*high, *low])), tree))
}

fn get_tree(from: &mut Reader) -> Result<PartitionTree, WireError> {
    let (keys, buried, bytes) = (from.u64("keys")?, from.u64("buried keys")?, from.u64("bytes")?);
    let mut leaves = [0; LEAVES];
    leaves.iter_mut().try_for_each(|leaf| from.u64("leaf").map(|digest| *leaf = digest))?;
    from.end()?;
    Ok(PartitionTree::from_parts(keys, buried, bytes, leaves))
}

/// The entry that closes all logs of earlier starts than `start`.
pub fn closed_below_entry(start: u64) -> (Vec<u8>, Vec<u8>) {
    ([&[META], CLOSED_BELOW].concat(), start.to_le_bytes().to_vec())
}

/// The entry that says how much of a log is in the tree.
pub fn position_entry(log: LogId, position: AppendId) -> (Vec<u8>, Vec<u8>) {
    let key = [&[META], POSITION, &log.core.0.to_be_bytes()].concat();
    let value = [log.start.to_le_bytes(), position.0.to_le_bytes()].concat();
    (key, value)
}

/// A key that nothing stands under, and which is deleted now and then.
pub fn nothing_key() -> Vec<u8> {
    [&[META], NOTHING].concat()
}

impl Known {
    /// Takes in one entry whose key begins with [`meta_prefix`]. Names of others are passed over.
    ///
    /// # Errors
    /// [`LayoutError::Value`] when the value is none of ours.
    pub fn learn(&mut self, key: &[u8], value: &[u8]) -> Result<(), LayoutError> {
        let mut reader = Reader::new(value);
        let learned = match key.strip_prefix(&[META]) {
            Some(CLOSED_BELOW) => self.learn_closed(&mut reader),
            Some(name) => match name.strip_prefix(POSITION) {
                Some(&[high, low]) => self.learn_position(CoreId(u16::from_be_bytes([high, low])), &mut reader),
                _ => return Ok(()),
            },
            None => return Ok(()),
        };
        learned.and_then(|()| reader.end()).map_err(|cause| LayoutError::Value { key: key.to_vec(), cause })
    }

    /// Whether the whole log is in the tree.
    pub fn is_closed(&self, log: LogId) -> bool {
        log.start < self.closed_below
    }

    /// The last record of the log that is in the tree; 0 for none.
    pub fn position(&self, log: LogId) -> AppendId {
        match self.positions.get(&log.core) {
            Some((start, position)) if *start == log.start => *position,
            _ => AppendId(0),
        }
    }

    fn learn_closed(&mut self, from: &mut Reader) -> Result<(), WireError> {
        self.closed_below = from.u64("closed below")?;
        Ok(())
    }

    fn learn_position(&mut self, core: CoreId, from: &mut Reader) -> Result<(), WireError> {
        let start = from.u64("start")?;
        let position = AppendId(from.u64("position")?);
        self.positions.insert(core, (start, position));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::causality::{Context, Operation};
    use crate::protocol::types::{ActorId, Dot, WallTime};
    use smallvec::SmallVec;

    fn place(partition: u16, key: &'static str) -> Place {
        Place { partition: Partition(partition), key: Key::new(key).unwrap() }
    }

    fn remembered(id: &'static str) -> Remembered {
        let dot = Dot { actor: ActorId(1), counter: 2 };
        Remembered {
            operation: Operation { id: OperationId::new(id).unwrap(), digest: 7 },
            dot,
            written_at: WallTime(3),
            superseded: SmallVec::new(),
            context: Context::default(),
        }
    }

    #[test]
    fn the_tree_is_ordered_as_places_are() {
        let places = [place(0, "b"), place(1, "a"), place(1, "aa"), place(1, "b"), place(256, "a")];
        assert!(places.is_sorted());
        assert!(places.iter().map(Place::set_key).is_sorted());
    }

    #[test]
    fn the_bytes_of_keys_and_meta_never_change() {
        assert_eq!(place(258, "cart").set_key(), b"k\x01\x02cart");
        let id = OperationId::new("op").unwrap();
        assert_eq!(operation_key(&place(258, "cart"), &id), b"o\x01\x02\x00\x04cartop");
        assert_eq!(closed_below_entry(3), (b"mclosed-below".to_vec(), vec![3, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(hint_key(&place(258, "cart"), NodeId(7)), b"h\0\0\0\0\0\0\0\x07\x01\x02cart");
        let log = LogId { start: 4, core: CoreId(258) };
        let (key, value) = position_entry(log, AppendId(5));
        assert_eq!(key, b"mposition\x01\x02");
        assert_eq!(value, [4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_set_key_reads_back_and_a_foreign_one_is_refused() {
        assert_eq!(Place::from_set_key(&place(258, "cart").set_key()), Ok(place(258, "cart")));
        for foreign in [&b""[..], b"k\x01", b"k\x01\x02", b"x\x01\x02a"] {
            assert_eq!(Place::from_set_key(foreign), Err(LayoutError::Key(foreign.to_vec())));
        }
    }

    #[test]
    fn an_operation_reads_back_and_a_foreign_one_is_refused() {
        let kept = remembered("op");
        let key = operation_key(&place(258, "cart"), &kept.operation.id);
        let value = encode_remembered(&kept);

        assert_eq!(decode_operation(&key, &value), Ok((place(258, "cart"), kept)));
        assert!(matches!(decode_operation(&key, &value[1..]), Err(LayoutError::Value { .. })));
        assert!(matches!(decode_operation(b"o\0\0\0\x09a", &value), Err(LayoutError::Key(_))));
    }

    #[test]
    fn a_hint_reads_back_and_a_foreign_one_is_refused() {
        let target = NodeId(u64::MAX - 1);
        let key = hint_key(&place(258, "cart"), target);
        for counted in [false, true] {
            assert_eq!(decode_hint(&key, &[counted.into()]), Ok((place(258, "cart"), Hint { target, counted })));
        }
        for foreign in [&b""[..], &[2], &[1, 0]] {
            assert!(matches!(decode_hint(&key, foreign), Err(LayoutError::Value { .. })), "{foreign:?}");
        }
        for foreign in [&key[..11], &key[1..], b"h", b"h\0\0\0\0\0\0\0\x07\x01"] {
            assert_eq!(decode_hint(foreign, &[1]), Err(LayoutError::Key(foreign.to_vec())));
        }
    }

    #[test]
    fn a_tree_reads_back_and_a_foreign_one_is_refused() {
        let mut leaves = [0; LEAVES];
        leaves[1] = 0x0102;
        let tree = PartitionTree::from_parts(3, 2, 1 << 40, leaves);
        let (key, value) = tree_entry(Partition(258), &tree);
        assert_eq!((&key[..], value.len()), (&b"t\x01\x02"[..], 24 + 8 * LEAVES));
        let head = "0300000000000000 0200000000000000 0000000000010000 0000000000000000 0201000000000000";
        assert_eq!(hex::encode(&value[..40]), head.replace(' ', ""));

        assert_eq!(decode_tree(&key, &value), Ok((Partition(258), tree)));
        assert!(matches!(decode_tree(&key, &value[1..]), Err(LayoutError::Value { .. })));
        assert!(matches!(decode_tree(&key[1..], &value), Err(LayoutError::Key(_))));
    }

    #[test]
    fn what_is_known_of_logs_reads_back() {
        let log = |start, core| LogId { start, core: CoreId(core) };
        let mut known = Known::default();
        let entries =
            [closed_below_entry(4), position_entry(log(4, 1), AppendId(9)), (b"mother-name".to_vec(), vec![1, 2, 3])];
        for (key, value) in entries {
            known.learn(&key, &value).unwrap();
        }

        assert!(known.is_closed(log(3, 1)) && !known.is_closed(log(4, 1)));
        assert_eq!(known.position(log(4, 1)), AppendId(9));
        assert_eq!(known.position(log(5, 1)), AppendId(0), "a position counts for its own start only");
        assert_eq!(known.position(log(4, 0)), AppendId(0));
        assert!(known.learn(b"mclosed-below", &[1]).is_err());
    }
}
