//! The spelling of what a client is told of the ring.
//!
//! ```text
//! map     = number u64, hash u64, partitions u16, copies u8, count u32, nodes,
//!           flags u8 (1 owners), [count u32, as often: node u16]
//! node    = id u64, name length u16, name, address, cores u16, salt u64, flags u8 (1 up)
//! address = 4 u8, 4 bytes, port u16 | 6 u8, 16 bytes, port u16
//! ```

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::BufMut;

use super::layout::{get_stamp, put_stamp};
use super::reader::{Reader, Result, WireError, put_count, put_text};
use crate::protocol::config::{COPIES_MAX, NODE_NAME_BYTES_MAX, NODES_MAX, PARTITIONS_MAX};
use crate::protocol::message::{RingMap, RingNode};
use crate::protocol::ring::Cores;
use crate::protocol::types::NodeId;

const ADDRESS_BYTES_MIN: usize = 1 + 4 + 2;
const NODE_BYTES_MIN: usize = 8 + 2 + ADDRESS_BYTES_MIN + 2 + 8 + 1;
const OWNERS_MAX: usize = PARTITIONS_MAX as usize * COPIES_MAX as usize;

const SET: u8 = 1;

/// Spells a map of the ring.
pub fn put_map(out: &mut impl BufMut, map: &RingMap) {
    put_stamp(out, map.stamp);
    out.put_u16_le(map.partitions);
    out.put_u8(map.copies);
    put_count(out, map.nodes.len());
    map.nodes.iter().for_each(|node| put_node(out, node));
    out.put_u8(u8::from(map.owners.is_some()));
    if let Some(owners) = &map.owners {
        put_count(out, owners.len());
        owners.iter().for_each(|owner| out.put_u16_le(*owner));
    }
}

/// Reads a map of the ring, and looks that what it names is there.
///
/// # Errors
/// Any [`WireError`].
pub fn get_map(from: &mut Reader) -> Result<RingMap> {
    let (stamp, partitions, copies) = (get_stamp(from)?, from.u16("partitions")?, from.u8("copies")?);
    let count = from.count("nodes", NODES_MAX, NODE_BYTES_MIN)?;
    let nodes = (0..count).map(|_| get_node(from)).collect::<Result<_>>()?;
    let owners = match get_flag(from, "flags of a ring")? {
        true => {
            let count = from.count("owners", OWNERS_MAX, 2)?;
            Some((0..count).map(|_| from.u16("owner")).collect::<Result<_>>()?)
        }
        false => None,
    };
    let map = RingMap { stamp, partitions, copies, nodes, owners };
    map.check()?;
    Ok(map)
}

fn put_node(out: &mut impl BufMut, node: &RingNode) {
    out.put_u64_le(node.node.0);
    put_text(out, &node.name, NODE_NAME_BYTES_MAX);
    put_address(out, node.address);
    out.put_u16_le(node.cores.count);
    out.put_u64_le(node.cores.salt);
    out.put_u8(u8::from(node.is_up));
}

fn get_node(from: &mut Reader) -> Result<RingNode> {
    Ok(RingNode {
        node: NodeId(from.u64("node")?),
        name: from.text("name", NODE_NAME_BYTES_MAX)?,
        address: get_address(from)?,
        cores: Cores { count: from.u16("cores")?, salt: from.u64("salt")? },
        is_up: get_flag(from, "flags of a node")?,
    })
}

/// Spells an address.
pub fn put_address(out: &mut impl BufMut, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.put_u8(4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(6);
            out.put_slice(&ip.octets());
        }
    }
    out.put_u16_le(address.port());
}

/// Reads an address.
///
/// # Errors
/// Any [`WireError`].
pub fn get_address(from: &mut Reader) -> Result<SocketAddr> {
    let ip = match from.u8("family of an address")? {
        4 => IpAddr::V4(Ipv4Addr::from(octets(from)?)),
        6 => IpAddr::V6(Ipv6Addr::from(octets(from)?)),
        tag => return Err(WireError::Unknown { what: "family of an address", tag: tag.into() }),
    };
    Ok(SocketAddr::new(ip, from.u16("port")?))
}

fn octets<const N: usize>(from: &mut Reader) -> Result<[u8; N]> {
    Ok(from.take("address", N)?.try_into().expect("as many as were taken"))
}

fn get_flag(from: &mut Reader, what: &'static str) -> Result<bool> {
    match from.u8(what)? {
        0 => Ok(false),
        SET => Ok(true),
        tag => Err(WireError::Unknown { what, tag: tag.into() }),
    }
}
