//! What members tell each other in an exchange, and what a node keeps of it on disk.
//!
//! ```text
//! message   = length u32 (of what follows), letter or answer
//! letter    = 0 u8, knowledge
//! answer    = 0 u8, knowledge
//! knowledge = cluster u128 (0 for none)  partitions u16  rows  count u32, up (node u64)  layout, stored
//!             layout, pending
//! rows      = count u32, row
//! row       = name text16  generation u32  incarnation u128  state u8  wish (counter u64, setter u64, u8)
//!             progress (number u64, hash u64, mark u8)  holds data u8
//!             zone (counter u64, setter u64, text16)  weight (counter u64, setter u64, u32)
//!             start (count u64, stamp u64, address, http address, cores u16, salt u64)
//! address   = 4 or 6 u8, 4 or 16 bytes, port u16
//! layout    = 0 u8  |  1 u8, as in `layout`
//! durable   = cluster u128  partitions u16  node u64  rows  layout, stored  layout, pending
//! ```
//! A row's node is the hash of its name, so it does not travel.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::layout::{LAYOUT_BYTES_MAX, get_layout, put_layout};
use super::reader::{Reader, Result, WireError, put_count, put_text};
use super::ring::{get_address, put_address};
use crate::protocol::config::{NODE_NAME_BYTES_MAX, NODES_MAX, WEIGHT_MAX, ZONE_BYTES_MAX};
use crate::protocol::membership::{
    Answer, Durable, Knowledge, Letter, Mark, Progress, Register, Row, RowStart, RowState, Rows, Wish,
};
use crate::protocol::ring::{Cores, Layout, LayoutStamp};
use crate::protocol::types::{ClusterId, NodeId};

/// Largest message of an exchange, its length aside: room for what is known of as many nodes as a cluster may have.
pub const MESSAGE_BYTES_MAX: usize = 6 * 1024 * 1024;

const ROW_BYTES_MIN: usize = 2 + 4 + 16 + 1 + 17 + 17 + 1 + 18 + 20 + 16 + 14 + 10;
const ROW_BYTES_MAX: usize = ROW_BYTES_MIN + NODE_NAME_BYTES_MAX + ZONE_BYTES_MAX + 2 * 12;

const _: () = assert!(NODES_MAX * (ROW_BYTES_MAX + 8) + 2 * LAYOUT_BYTES_MAX + 64 <= MESSAGE_BYTES_MAX);

/// Spells a letter with its length before it.
pub fn encode_letter(out: &mut BytesMut, letter: &Letter) {
    put_message(out, |out| match letter {
        Letter::Compare(knowledge) => {
            out.put_u8(0);
            put_knowledge(out, knowledge);
        }
    });
}

/// Reads a letter from what stands behind its length.
///
/// # Errors
/// Any [`WireError`].
pub fn decode_letter(bytes: &[u8]) -> Result<Letter> {
    let mut from = Reader::new(bytes);
    let letter = match from.u8("letter")? {
        0 => Letter::Compare(Box::new(get_knowledge(&mut from)?)),
        tag => return Err(unknown("letter", tag)),
    };
    from.end()?;
    Ok(letter)
}

/// Spells an answer with its length before it.
pub fn encode_letter_answer(out: &mut BytesMut, answer: &Answer) {
    put_message(out, |out| match answer {
        Answer::Knowledge(knowledge) => {
            out.put_u8(0);
            put_knowledge(out, knowledge);
        }
    });
}

/// Reads an answer from what stands behind its length.
///
/// # Errors
/// Any [`WireError`].
pub fn decode_letter_answer(bytes: &[u8]) -> Result<Answer> {
    let mut from = Reader::new(bytes);
    let answer = match from.u8("answer")? {
        0 => Answer::Knowledge(Box::new(get_knowledge(&mut from)?)),
        tag => return Err(unknown("answer", tag)),
    };
    from.end()?;
    Ok(answer)
}

/// Spells what a node keeps on disk.
pub fn put_durable(out: &mut BytesMut, durable: &Durable) {
    out.put_u128_le(durable.cluster.0);
    out.put_u16_le(durable.partitions);
    out.put_u64_le(durable.me.0);
    put_rows(out, &durable.rows);
    put_known_layout(out, durable.layout.as_deref());
    put_known_layout(out, durable.pending.as_deref());
}

/// Reads what a node kept on disk.
///
/// # Errors
/// Any [`WireError`].
pub fn get_durable(from: &mut Reader) -> Result<Durable> {
    let (cluster, partitions) = (ClusterId(from.u128("cluster")?), partitions(from)?);
    let me = NodeId(from.u64("node")?);
    let rows = get_rows(from)?;
    if rows.get(me).is_none() {
        return Err(unknown("node", 0));
    }
    let (layout, pending) = (get_known_layout(from)?, get_known_layout(from)?);
    Ok(Durable { cluster, partitions, me, rows, layout, pending })
}

fn put_message(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32_le(0);
    body(out);
    let length = out.len() - start - 4;
    assert!(length <= MESSAGE_BYTES_MAX, "a message of members has {length} bytes");
    let length = u32::try_from(length).expect("it is bounded");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_knowledge(out: &mut BytesMut, knowledge: &Knowledge) {
    out.put_u128_le(knowledge.cluster.map_or(0, |cluster| cluster.0));
    out.put_u16_le(knowledge.partitions);
    put_rows(out, &knowledge.rows);
    put_count(out, knowledge.up.len());
    knowledge.up.iter().for_each(|node| out.put_u64_le(node.0));
    put_known_layout(out, knowledge.layout.as_deref());
    put_known_layout(out, knowledge.pending.as_deref());
}

fn get_knowledge(from: &mut Reader) -> Result<Knowledge> {
    let cluster = Some(from.u128("cluster")?).filter(|&cluster| cluster != 0).map(ClusterId);
    let partitions = if cluster.is_some() { partitions(from)? } else { from.u16("partitions")? };
    let rows = get_rows(from)?;
    let count = from.count("nodes that are up", NODES_MAX, 8)?;
    let up = (0..count).map(|_| Ok(NodeId(from.u64("node")?))).collect::<Result<_>>()?;
    let (layout, pending) = (get_known_layout(from)?, get_known_layout(from)?);
    Ok(Knowledge { cluster, partitions, rows, up, layout, pending })
}

fn put_rows(out: &mut BytesMut, rows: &Rows) {
    put_count(out, rows.len());
    for row in rows.iter() {
        put_row(out, row);
    }
}

fn get_rows(from: &mut Reader) -> Result<Rows> {
    let count = from.count("rows", NODES_MAX, ROW_BYTES_MIN)?;
    (0..count).map(|_| get_row(from)).collect()
}

fn put_row(out: &mut BytesMut, row: &Row) {
    put_text(out, &row.name, NODE_NAME_BYTES_MAX);
    out.put_u32_le(row.generation);
    out.put_u128_le(row.incarnation);
    out.put_u8(match row.state {
        RowState::Staged => 0,
        RowState::Member => 1,
        RowState::Leaving => 2,
        RowState::Removed => 3,
    });
    out.put_u64_le(row.wish.counter);
    out.put_u64_le(row.wish.setter.0);
    out.put_u8(match row.wish.value {
        Wish::Stay => 0,
        Wish::Leave => 1,
        Wish::Remove => 2,
        Wish::Replace => 3,
    });
    out.put_u64_le(row.progress.stamp.number);
    out.put_u64_le(row.progress.stamp.hash);
    out.put_u8(match row.progress.mark {
        Mark::Known => 0,
        Mark::Writes => 1,
        Mark::Holds => 2,
        Mark::Reads => 3,
        Mark::Stored => 4,
    });
    out.put_u8(u8::from(row.holds_data));
    out.put_u64_le(row.zone.counter);
    out.put_u64_le(row.zone.setter.0);
    put_text(out, &row.zone.value, ZONE_BYTES_MAX);
    out.put_u64_le(row.weight.counter);
    out.put_u64_le(row.weight.setter.0);
    out.put_u32_le(row.weight.value);
    out.put_u64_le(row.start.count);
    out.put_u64_le(row.start.stamp);
    put_address(out, row.start.address);
    put_address(out, row.start.http);
    out.put_u16_le(row.start.cores.count);
    out.put_u64_le(row.start.cores.salt);
}

fn get_row(from: &mut Reader) -> Result<Row> {
    let name: Arc<str> = from.text("name", NODE_NAME_BYTES_MAX)?.into();
    let (generation, incarnation) = (from.u32("generation")?, from.u128("incarnation")?);
    let state = match from.u8("state")? {
        0 => RowState::Staged,
        1 => RowState::Member,
        2 => RowState::Leaving,
        3 => RowState::Removed,
        tag => return Err(unknown("state", tag)),
    };
    let (counter, setter) = (from.u64("wish")?, NodeId(from.u64("wish")?));
    let wish = Register { counter, setter, value: get_wish(from)? };
    let stamp = LayoutStamp { number: from.u64("progress")?, hash: from.u64("progress")? };
    let progress = Progress { stamp, mark: get_mark(from)? };
    let holds_data = flag(from, "holds data")?;
    let (counter, setter) = (from.u64("zone")?, NodeId(from.u64("zone")?));
    let zone = Register { counter, setter, value: from.text("zone", ZONE_BYTES_MAX)?.into() };
    let (counter, setter) = (from.u64("weight")?, NodeId(from.u64("weight")?));
    let weight = Register { counter, setter, value: from.u32("weight")? };
    if !(1..=WEIGHT_MAX).contains(&weight.value) {
        return Err(unknown("weight", 0));
    }
    let (count, stamp) = (from.u64("starts")?, from.u64("stamp")?);
    let (address, http) = (get_address(from)?, get_address(from)?);
    let cores = Cores { count: from.u16("cores")?, salt: from.u64("salt")? };
    if cores.count == 0 {
        return Err(unknown("cores", 0));
    }
    let start = RowStart { count, stamp, address, http, cores };
    let node = NodeId::of(&name);
    Ok(Row { node, name, generation, incarnation, state, wish, progress, holds_data, zone, weight, start })
}

fn get_wish(from: &mut Reader) -> Result<Wish> {
    match from.u8("wish")? {
        0 => Ok(Wish::Stay),
        1 => Ok(Wish::Leave),
        2 => Ok(Wish::Remove),
        3 => Ok(Wish::Replace),
        tag => Err(unknown("wish", tag)),
    }
}

fn get_mark(from: &mut Reader) -> Result<Mark> {
    match from.u8("mark")? {
        0 => Ok(Mark::Known),
        1 => Ok(Mark::Writes),
        2 => Ok(Mark::Holds),
        3 => Ok(Mark::Reads),
        4 => Ok(Mark::Stored),
        tag => Err(unknown("mark", tag)),
    }
}

fn put_known_layout(out: &mut BytesMut, layout: Option<&Layout>) {
    out.put_u8(u8::from(layout.is_some()));
    if let Some(layout) = layout {
        put_layout(out, layout);
    }
}

fn get_known_layout(from: &mut Reader) -> Result<Option<Arc<Layout>>> {
    let is_known = flag(from, "layout")?;
    Ok(if is_known { Some(Arc::new(get_layout(from)?)) } else { None })
}

fn partitions(from: &mut Reader) -> Result<u16> {
    let partitions = from.u16("partitions")?;
    if partitions.is_power_of_two() {
        Ok(partitions)
    } else {
        Err(WireError::Unknown { what: "partitions", tag: partitions.into() })
    }
}

fn flag(from: &mut Reader, what: &'static str) -> Result<bool> {
    match from.u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        tag => Err(unknown(what, tag)),
    }
}

fn unknown(what: &'static str, tag: u8) -> WireError {
    WireError::Unknown { what, tag: tag.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::ring::{LayoutRow, Wanted};

    fn row(name: &str, address: &str) -> Row {
        let setter = NodeId(9);
        Row {
            node: NodeId::of(name),
            name: name.into(),
            generation: 1,
            incarnation: 2,
            state: RowState::Leaving,
            wish: Register { counter: 2, setter, value: Wish::Replace },
            progress: Progress { stamp: LayoutStamp { number: 3, hash: 4 }, mark: Mark::Holds },
            holds_data: true,
            zone: Register { counter: 3, setter, value: "a".into() },
            weight: Register { counter: 4, setter, value: 5 },
            start: RowStart {
                count: 6,
                stamp: 7,
                address: address.parse().unwrap(),
                http: address.parse().unwrap(),
                cores: Cores { count: 8, salt: 9 },
            },
        }
    }

    fn layout_row(node: u64) -> LayoutRow {
        LayoutRow { node: NodeId(node), incarnation: 2, zone: "z".into(), weight: 1 }
    }

    fn layout() -> Arc<Layout> {
        Arc::new(Layout::founding(2, Wanted { n: 3, r: 2, w: 2 }, layout_row(1)))
    }

    fn next() -> Arc<Layout> {
        let layout = layout();
        Arc::new(layout.next(vec![layout_row(1), layout_row(2)], layout.wanted()))
    }

    fn knowledge() -> Knowledge {
        Knowledge {
            cluster: Some(ClusterId(7)),
            partitions: 2,
            rows: [row("node-a", "127.0.0.1:7600"), row("node-b", "[::1]:7600")].into_iter().collect(),
            up: vec![NodeId(1)],
            layout: Some(layout()),
            pending: Some(next()),
        }
    }

    fn letters() -> [Letter; 2] {
        [Letter::Compare(Box::new(knowledge())), Letter::Compare(Box::new(Knowledge::nothing()))]
    }

    fn spelt(letter: &Letter) -> BytesMut {
        let mut out = BytesMut::new();
        encode_letter(&mut out, letter);
        out
    }

    fn durable() -> Durable {
        let Knowledge { rows, layout, pending, .. } = knowledge();
        Durable { cluster: ClusterId(7), partitions: 2, me: NodeId::of("node-b"), rows, layout, pending }
    }

    #[test]
    fn what_is_said_is_read_back_and_what_is_cut_is_refused() {
        for letter in letters() {
            let bytes = spelt(&letter);
            assert_eq!(bytes.len(), 4 + u32::from_le_bytes(*bytes.first_chunk().unwrap()) as usize);
            assert_eq!(decode_letter(&bytes[4..]), Ok(letter));
            for cut in 4..bytes.len() {
                assert!(decode_letter(&bytes[4..cut]).is_err());
            }
        }
        let answer = Answer::Knowledge(Box::new(knowledge()));
        let mut out = BytesMut::new();
        encode_letter_answer(&mut out, &answer);
        assert_eq!(decode_letter_answer(&out[4..]), Ok(answer));
        let mut out = BytesMut::new();
        put_durable(&mut out, &durable());
        assert_eq!(get_durable(&mut Reader::new(&out)), Ok(durable()));
    }

    #[test]
    fn the_bytes_never_change() {
        let mut durable_bytes = BytesMut::new();
        put_durable(&mut durable_bytes, &durable());
        let [one, two] = letters().map(|letter| spelt(&letter));
        assert_eq!([one, two, durable_bytes].map(hex::encode), GOLDEN);
    }

    const GOLDEN: [&str; 3] = [
        concat!(
            "fa010000000700000000000000000000000000000002000200000006006e6f64652d61010000000200000000000000000000",
            "0000000000020200000000000000090000000000000003030000000000000004000000000000000201030000000000000009",
            "00000000000000010061040000000000000009000000000000000500000006000000000000000700000000000000047f0000",
            "01b01d047f000001b01d0800090000000000000006006e6f64652d6201000000020000000000000000000000000000000202",
            "0000000000000009000000000000000303000000000000000400000000000000020103000000000000000900000000000000",
            "0100610400000000000000090000000000000005000000060000000000000007000000000000000600000000000000000000",
            "000000000001b01d0600000000000000000000000000000001b01d0800090000000000000001000000010000000000000001",
            "01000000000000000e848e2ccce5336603020201000000010000000000000002000000000000000000000000000000010000",
            "0001007a020000000000000001020000000000000071e98134461b0bec030202020000000100000000000000020000000000",
            "000000000000000000000100000001007a0200000000000000020000000000000000000000000000000100000001007a0400",
            "00000100000000000100",
        ),
        "1d0000000000000000000000000000000000000000000000000000000000000000",
        concat!(
            "0700000000000000000000000000000002006fdfab42b6c7a9e60200000006006e6f64652d61010000000200000000000000",
            "0000000000000000020200000000000000090000000000000003030000000000000004000000000000000201030000000000",
            "0000090000000000000001006104000000000000000900000000000000050000000600000000000000070000000000000004",
            "7f000001b01d047f000001b01d0800090000000000000006006e6f64652d6201000000020000000000000000000000000000",
            "0002020000000000000009000000000000000303000000000000000400000000000000020103000000000000000900000000",
            "0000000100610400000000000000090000000000000005000000060000000000000007000000000000000600000000000000",
            "000000000000000001b01d0600000000000000000000000000000001b01d080009000000000000000101000000000000000e",
            "848e2ccce53366030202010000000100000000000000020000000000000000000000000000000100000001007a0200000000",
            "00000001020000000000000071e98134461b0bec030202020000000100000000000000020000000000000000000000000000",
            "000100000001007a0200000000000000020000000000000000000000000000000100000001007a0400000001000000000001",
            "00",
        ),
    ];

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(noise in prop::collection::vec(any::<u8>(), 0..600), at in 4..300_usize) {
            let mut bent = spelt(&letters()[0]);
            let end = (at + noise.len()).min(bent.len());
            bent[at..end].copy_from_slice(&noise[..end - at]);
            for bytes in [&noise[..], &bent[4..]] {
                let _ = decode_letter(bytes);
                let _ = decode_letter_answer(bytes);
                let _ = get_durable(&mut Reader::new(bytes));
            }
        }
    }
}
