//! One packet of gossip, proven by the cluster's secret.
//!
//! ```text
//! packet = "SLGP"  format u16  cluster u128  sender u64  layout (number u64, hash u64)  rows u64
//!          payload (what SWIM says, up to the proof)  proof 32 bytes, over all before it
//! ```
//! Whatever does not verify is dropped unread, and so is a packet of another cluster or format.

use bytes::{BufMut, Bytes, BytesMut};

use super::proof::{PROOF_BYTES, Secret};
use super::reader::Reader;
use crate::protocol::membership::{PAYLOAD_BYTES_MAX, Packet};
use crate::protocol::ring::LayoutStamp;
use crate::protocol::types::{ClusterId, NodeId};

const MAGIC: &[u8; 4] = b"SLGP";
const FORMAT: u16 = 1;
const HEAD_BYTES: usize = 4 + 2 + 16 + 8 + 16 + 8;

/// Largest packet: every path of IPv6 carries it whole.
pub const PACKET_BYTES_MAX: usize = 1_280;

const _: () = assert!(HEAD_BYTES + PAYLOAD_BYTES_MAX + PROOF_BYTES <= PACKET_BYTES_MAX);

/// Why a packet is dropped. It is counted, and nobody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// No packet of gossip.
    Malformed,
    /// Of a version that this one does not read.
    Format,
    /// Of another cluster.
    Foreign,
    /// It does not prove the secret.
    Unproven,
}

/// Spells a packet.
pub fn encode_packet(cluster: ClusterId, packet: &Packet, secret: &Secret) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES + packet.payload.len() + PROOF_BYTES);
    out.put_slice(MAGIC);
    out.put_u16_le(FORMAT);
    out.put_u128_le(cluster.0);
    out.put_u64_le(packet.sender.0);
    out.put_u64_le(packet.layout.number);
    out.put_u64_le(packet.layout.hash);
    out.put_u64_le(packet.rows);
    out.put_slice(&packet.payload);
    let proof = secret.prove("gossip", &[&out]);
    out.put_slice(&proof);
    out.freeze()
}

/// Reads a packet of this cluster.
///
/// # Errors
/// Why it is dropped.
pub fn decode_packet(cluster: ClusterId, bytes: &[u8], secret: &Secret) -> Result<Packet, Dropped> {
    let is_whole = (HEAD_BYTES + PROOF_BYTES..=PACKET_BYTES_MAX).contains(&bytes.len()) && bytes.starts_with(MAGIC);
    let Some((said, proof)) = bytes.split_last_chunk::<PROOF_BYTES>().filter(|_| is_whole) else {
        return Err(Dropped::Malformed);
    };
    if said[4..6] != FORMAT.to_le_bytes() {
        return Err(Dropped::Format);
    }
    if !secret.verifies("gossip", &[said], proof) {
        return Err(if said[6..22] == cluster.0.to_le_bytes() { Dropped::Unproven } else { Dropped::Foreign });
    }
    read(cluster, &said[6..])
}

fn read(cluster: ClusterId, said: &[u8]) -> Result<Packet, Dropped> {
    let mut from = Reader::new(said);
    let short = |_| Dropped::Malformed;
    if from.u128("cluster").map_err(short)? != cluster.0 {
        return Err(Dropped::Foreign);
    }
    let sender = NodeId(from.u64("sender").map_err(short)?);
    let number = from.u64("layout").map_err(short)?;
    let layout = LayoutStamp { number, hash: from.u64("layout").map_err(short)? };
    let rows = from.u64("rows").map_err(short)?;
    let payload = from.take("payload", from.left()).map_err(short)?;
    Ok(Packet { sender, layout, rows, payload: Bytes::copy_from_slice(payload) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLUSTER: ClusterId = ClusterId(7);

    fn packet(payload: Vec<u8>) -> Packet {
        let layout = LayoutStamp { number: 2, hash: 3 };
        Packet { sender: NodeId(1), layout, rows: 4, payload: payload.into() }
    }

    fn secret() -> Secret {
        Secret::new(b"cluster")
    }

    #[test]
    fn a_packet_that_is_not_ours_is_dropped_for_its_reason() {
        let bytes = encode_packet(CLUSTER, &packet(vec![5, 6]), &secret());
        let read = |cluster, bytes: &[u8], secret: &[u8]| decode_packet(cluster, bytes, &Secret::new(secret));
        assert_eq!(read(CLUSTER, &bytes, b"cluster"), Ok(packet(vec![5, 6])));
        assert_eq!(read(CLUSTER, &bytes, b"other"), Err(Dropped::Unproven));
        assert_eq!(read(ClusterId(8), &bytes, b"cluster"), Err(Dropped::Foreign));
        assert_eq!(read(CLUSTER, &bytes[..40], b"cluster"), Err(Dropped::Malformed));
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1;
            assert!(read(CLUSTER, &flipped, b"cluster").is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_bytes_never_change() {
        let bytes = encode_packet(CLUSTER, &packet(vec![5, 6]), &secret());
        assert_eq!([hex::encode(bytes)], GOLDEN);
    }

    const GOLDEN: [&str; 1] = [concat!(
        "534c475001000700000000000000000000000000000001000000000000000200000000000000030000000000000004000000",
        "000000000506584678c43b2edd9cc74b1513d00e9f0cf965a19fd362d8a98bcc029db74077c9",
    )];

    proptest! {
        #[test]
        fn a_packet_is_read_back(payload in prop::collection::vec(any::<u8>(), 0..=PAYLOAD_BYTES_MAX)) {
            let bytes = encode_packet(CLUSTER, &packet(payload.clone()), &secret());
            prop_assert!(bytes.len() <= PACKET_BYTES_MAX);
            prop_assert_eq!(decode_packet(CLUSTER, &bytes, &secret()), Ok(packet(payload)));
        }

        #[test]
        fn any_bytes_are_dropped(noise in prop::collection::vec(any::<u8>(), 0..1_400)) {
            prop_assert!(decode_packet(CLUSTER, &noise, &secret()).is_err());
        }
    }
}
