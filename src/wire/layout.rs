//! The spelling of a layout: one for peers and for the data directory.
//!
//! ```text
//! layout = number u64, hash u64, n u8, r u8, w u8, count u32, rows, count u32, as often: row u16 (owners)
//! row    = node u64, incarnation u128, weight u32, zone length u16, zone
//! ```
//! Owners are indices of rows, partition after partition, as many each as the fewer of n and the rows.

use std::sync::Arc;

use bytes::BufMut;

use super::reader::{Reader, Result, WireError, put_bytes16, put_count};
use crate::protocol::config::{COPIES_MAX, NODES_MAX, PARTITIONS_MAX, ZONE_BYTES_MAX};
use crate::protocol::ring::{Layout, LayoutRow, LayoutStamp, Wanted};
use crate::protocol::types::NodeId;

const ROW_BYTES_MIN: usize = 8 + 16 + 4 + 2;
const OWNERS_MAX: usize = PARTITIONS_MAX as usize * COPIES_MAX as usize;

/// Bytes of the largest layout.
pub const LAYOUT_BYTES_MAX: usize = 8 + 8 + 3 + 4 + NODES_MAX * (ROW_BYTES_MIN + ZONE_BYTES_MAX) + 4 + 2 * OWNERS_MAX;

/// Spells a layout.
pub fn put_layout(out: &mut impl BufMut, layout: &Layout) {
    put_stamp(out, layout.stamp());
    let Wanted { n, r, w } = layout.wanted();
    out.put_slice(&[n, r, w]);
    put_count(out, layout.rows().len());
    for row in layout.rows() {
        out.put_u64_le(row.node.0);
        out.put_u128_le(row.incarnation);
        out.put_u32_le(row.weight);
        put_bytes16(out, row.zone.as_bytes());
    }
    put_count(out, layout.all_owners().len());
    layout.all_owners().iter().for_each(|owner| out.put_u16_le(*owner));
}

/// Reads a layout, and looks that its structure is sound and its hash its own. Whether it keeps the rules beyond that
/// says [`Layout::check`].
///
/// # Errors
/// Any [`WireError`].
pub fn get_layout(from: &mut Reader) -> Result<Layout> {
    let stamp = get_stamp(from)?;
    let wanted = Wanted { n: from.u8("copies")?, r: from.u8("read quorum")?, w: from.u8("write quorum")? };
    let count = from.count("rows", NODES_MAX, ROW_BYTES_MIN)?;
    let rows = (0..count).map(|_| get_row(from)).collect::<Result<_>>()?;
    let count = from.count("owners", OWNERS_MAX, 2)?;
    let owners = (0..count).map(|_| from.u16("owner")).collect::<Result<_>>()?;
    Ok(Layout::from_parts(stamp, wanted, rows, owners)?)
}

/// Spells a stamp.
pub fn put_stamp(out: &mut impl BufMut, stamp: LayoutStamp) {
    out.put_u64_le(stamp.number);
    out.put_u64_le(stamp.hash);
}

/// Reads a stamp.
///
/// # Errors
/// Any [`WireError`].
pub fn get_stamp(from: &mut Reader) -> Result<LayoutStamp> {
    Ok(LayoutStamp { number: from.u64("layout number")?, hash: from.u64("layout hash")? })
}

fn get_row(from: &mut Reader) -> Result<LayoutRow> {
    let node = NodeId(from.u64("node")?);
    let incarnation = from.u128("incarnation")?;
    let weight = from.u32("weight")?;
    let zone = from.bytes16("zone", ZONE_BYTES_MAX)?;
    let zone = Arc::from(str::from_utf8(zone).map_err(|_| WireError::NotText { what: "zone" })?);
    Ok(LayoutRow { node, incarnation, zone, weight })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::config::WEIGHT_MAX;
    use crate::protocol::ring::Unruly;

    const WANTED: Wanted = Wanted { n: 3, r: 2, w: 2 };

    fn row(node: u64, zone: &str, weight: u32) -> LayoutRow {
        LayoutRow { node: NodeId(node), incarnation: u128::from(node) << 64 | 5, zone: zone.into(), weight }
    }

    fn layout() -> Layout {
        let rows = vec![row(0xa, "east", 1), row(0xb, "west", 1), row(0xc, "west", 1), row(0xd, "süd", 2)];
        Layout::founding(4, WANTED, row(0xa, "east", 1)).next(rows, WANTED)
    }

    fn spelled(layout: &Layout) -> Vec<u8> {
        let mut out = Vec::new();
        put_layout(&mut out, layout);
        out
    }

    fn read(bytes: &[u8]) -> Result<Layout> {
        let mut reader = Reader::new(bytes);
        let layout = get_layout(&mut reader)?;
        reader.end()?;
        Ok(layout)
    }

    fn any_layout() -> impl Strategy<Value = Layout> {
        let rows = prop::collection::btree_map(any::<u64>(), ("[a-zü]{0,20}", 1..=9_u32), 1..12);
        (rows, 1..=5_u8, 0..=6_u32).prop_map(|(rows, n, partitions)| {
            let rows: Vec<_> = rows.into_iter().map(|(node, (zone, weight))| row(node, &zone, weight)).collect();
            let wanted = Wanted { n, r: 1, w: n };
            Layout::founding(1 << partitions, wanted, rows[0].clone()).next(rows, wanted)
        })
    }

    #[test]
    fn a_layout_keeps_its_bytes() {
        let golden = concat!(
            "0200000000000000789a4259eb395abf030202040000000a0000000000000005000000000000000a00000000000000010000",
            "000400656173740b0000000000000005000000000000000b00000000000000010000000400776573740c0000000000000005",
            "000000000000000c00000000000000010000000400776573740d0000000000000005000000000000000d0000000000000002",
            "000000040073c3bc640c000000030000000200010000000300000003000100000002000300",
        );
        assert_eq!(hex::encode(spelled(&layout())), golden);
        assert_eq!(read(&hex::decode(golden).unwrap()), Ok(layout()));
    }

    #[test]
    fn a_layout_that_is_cut_or_changed_anywhere_is_refused() {
        let bytes = spelled(&layout());
        for at in 0..bytes.len() {
            assert!(read(&bytes[..at]).is_err(), "cut at {at}");
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(read(&changed).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn the_largest_layout_is_within_its_bound() {
        let rows: Vec<_> =
            (0..NODES_MAX as u64).map(|node| row(node, &"z".repeat(ZONE_BYTES_MAX), WEIGHT_MAX)).collect();
        let owners = (0..OWNERS_MAX).map(|at| (at % usize::from(COPIES_MAX)) as u16).collect::<Vec<_>>();
        let wanted = Wanted { n: COPIES_MAX, r: 1, w: 1 };
        let said = LayoutStamp { number: 1, hash: 0 };
        let Err(Unruly::Hash { found, .. }) = Layout::from_parts(said, wanted, rows.clone(), owners.clone()) else {
            panic!("a hash of zero would be a great chance");
        };
        let layout = Layout::from_parts(LayoutStamp { hash: found, ..said }, wanted, rows, owners).unwrap();
        let bytes = spelled(&layout);
        assert_eq!(bytes.len(), LAYOUT_BYTES_MAX);
        assert_eq!(read(&bytes), Ok(layout));
    }

    proptest! {
        #[test]
        fn a_layout_is_read_back(layout in any_layout()) {
            prop_assert_eq!(read(&spelled(&layout)), Ok(layout));
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            layout in any_layout(), noise in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4),
            start in any::<usize>(),
        ) {
            let mut bytes = spelled(&layout);
            let length = bytes.len();
            noise.into_iter().for_each(|(at, byte)| bytes[at % length] = byte);
            let _ = read(&bytes);
            let _ = read(&bytes[start % length..]);
        }
    }
}
