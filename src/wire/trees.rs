//! How partitions, trees, pages and rounds are spelled within asks and what is told (`peer`).

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::call::get_key;
use super::peer::{SOME, get_remembers, get_some};
use super::reader::{Reader, Result, WireError, put_bytes16, put_count};
use super::sets::get_set;
use crate::protocol::antientropy::{BRANCHES, LeafSet};
use crate::protocol::config::{PAGE_SETS_MAX, PARTITIONS_MAX};
use crate::protocol::peer::{Collect, CollectStep, Compare, Page, Pull, Pulled};
use crate::protocol::ring::Partition;
use crate::protocol::types::Key;

const AFTER: u8 = 1;
const THROUGH: u8 = 2;
const TAKES: u8 = 4;

pub(super) fn get_partition(from: &mut Reader) -> Result<Partition> {
    let partition = from.u16("partition")?;
    if partition < PARTITIONS_MAX {
        Ok(Partition(partition))
    } else {
        Err(WireError::Unknown { what: "partition", tag: partition.into() })
    }
}

pub(super) fn get_branch(from: &mut Reader) -> Result<u8> {
    match from.u8("branch")? {
        branch if usize::from(branch) < BRANCHES => Ok(branch),
        branch => Err(WireError::Unknown { what: "branch", tag: branch.into() }),
    }
}

pub(super) fn get_compare(from: &mut Reader) -> Result<Compare> {
    let (first, bits) = (get_partition(from)?, get_bits(from)?);
    let is_minimal = bits.first() == Some(&true) && bits.last() == Some(&true);
    if !is_minimal || usize::from(PARTITIONS_MAX - first.0) < bits.len() {
        return Err(WireError::Unknown { what: "partitions from", tag: first.0.into() });
    }
    let partitions = (first.0..).zip(bits).filter(|(_, is_set)| *is_set).map(|(at, _)| Partition(at)).collect();
    Ok(Compare { partitions, digest: from.u64("digest")? })
}

/// Partitions from the first to the last of some that ascend.
pub(super) fn span(partitions: &[Partition]) -> usize {
    partitions.first().zip(partitions.last()).map_or(0, |(first, last)| usize::from(last.0 - first.0) + 1)
}

pub(super) fn put_partitions(out: &mut BytesMut, partitions: &[Partition]) {
    let first = partitions.first().map_or(0, |first| first.0);
    let mut bits = vec![false; span(partitions)];
    partitions.iter().for_each(|partition| bits[usize::from(partition.0 - first)] = true);
    out.put_u16_le(first);
    put_bits(out, &bits);
}

pub(super) fn put_pull(out: &mut BytesMut, pull: &Pull) {
    out.put_u16_le(pull.partition.0);
    out.put_u64_le(pull.leaves.0);
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let bounds = flag(pull.after.is_some(), AFTER) | flag(pull.through.is_some(), THROUGH);
    out.put_u8(bounds | flag(pull.takes, TAKES));
    [&pull.after, &pull.through].into_iter().flatten().for_each(|key| put_bytes16(out, key.as_bytes()));
    put_digests(out, &pull.known);
}

pub(super) fn get_pull(from: &mut Reader) -> Result<Pull> {
    let partition = get_partition(from)?;
    let leaves = LeafSet(from.u64("leaves")?);
    let flags = from.u8("flags of a pull")?;
    if flags & !(AFTER | THROUGH | TAKES) != 0 {
        return Err(WireError::Unknown { what: "flags of a pull", tag: flags.into() });
    }
    let mut bound = |flag| (flags & flag != 0).then(|| get_key(from)).transpose();
    let (after, through) = (bound(AFTER)?, bound(THROUGH)?);
    let takes = flags & TAKES != 0;
    Ok(Pull { partition, leaves, after, through, known: get_digests(from)?.into(), takes })
}

pub(super) fn get_page(from: &mut Reader) -> Result<Page> {
    let (next, met) = (get_some_key(from)?, get_bits(from)?);
    let count = from.count("sets", PAGE_SETS_MAX, 2 + 1 + 4 + 4)?;
    let pulled = |from: &mut Reader| {
        Ok(Pulled { key: get_key(from)?, set: Arc::new(get_set(from)?), remember: get_remembers(from)? })
    };
    let sets = (0..count).map(|_| pulled(from)).collect::<Result<_>>()?;
    Ok(Page { sets, met, next })
}

pub(super) fn put_collect(out: &mut BytesMut, collect: &Collect) {
    out.put_u16_le(collect.partition.0);
    out.put_u32_le(collect.round);
    match &collect.step {
        CollectStep::Agree(keys) => {
            out.put_u8(0);
            put_count(out, keys.len());
            for (key, digest) in keys {
                put_bytes16(out, key.as_bytes());
                out.put_u64_le(*digest);
            }
        }
        CollectStep::Drain => out.put_u8(1),
        CollectStep::Fence => out.put_u8(2),
        CollectStep::Retire(bits) => {
            out.put_u8(3);
            put_bits(out, bits);
        }
        CollectStep::Forget(bits) => {
            out.put_u8(4);
            put_bits(out, bits);
        }
    }
}

pub(super) fn get_collect(from: &mut Reader) -> Result<Collect> {
    let (partition, round) = (get_partition(from)?, from.u32("round")?);
    let step = match from.u8("step of a round")? {
        0 => {
            let count = from.count("keys", PAGE_SETS_MAX, 2 + 1 + 8)?;
            let agreed = (0..count).map(|_| Ok((get_key(from)?, from.u64("digest")?)));
            CollectStep::Agree(agreed.collect::<Result<_>>()?)
        }
        1 => CollectStep::Drain,
        2 => CollectStep::Fence,
        3 => CollectStep::Retire(get_bits(from)?),
        4 => CollectStep::Forget(get_bits(from)?),
        tag => return Err(WireError::Unknown { what: "step of a round", tag: tag.into() }),
    };
    Ok(Collect { partition, round, step })
}

pub(super) fn put_some_key(out: &mut BytesMut, key: Option<&Key>) {
    out.put_u8(if key.is_some() { SOME } else { 0 });
    key.iter().for_each(|key| put_bytes16(out, key.as_bytes()));
}

fn get_some_key(from: &mut Reader) -> Result<Option<Key>> {
    get_some(from)?.then(|| get_key(from)).transpose()
}

pub(super) fn put_digests(out: &mut BytesMut, digests: &[u64]) {
    put_count(out, digests.len());
    digests.iter().for_each(|digest| out.put_u64_le(*digest));
}

pub(super) fn get_digests(from: &mut Reader) -> Result<Vec<u64>> {
    let count = from.count("digests", PAGE_SETS_MAX, 8)?;
    (0..count).map(|_| from.u64("digest")).collect()
}

pub(super) fn bits_bytes(bits: &[bool]) -> usize {
    4 + bits.len().div_ceil(8)
}

pub(super) fn put_bits(out: &mut BytesMut, bits: &[bool]) {
    put_count(out, bits.len());
    for eight in bits.chunks(8) {
        out.put_u8(eight.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit)));
    }
}

pub(super) fn get_bits(from: &mut Reader) -> Result<Vec<bool>> {
    let count = usize::try_from(from.u32("bits")?).expect("32 bits fit");
    if PAGE_SETS_MAX < count || 8 * from.left() < count {
        return Err(WireError::TooLong { what: "bits", found: count, max: PAGE_SETS_MAX.min(8 * from.left()) });
    }
    let bytes = (0..count.div_ceil(8)).map(|_| from.u8("bits")).collect::<Result<Vec<u8>>>()?;
    Ok((0..count).map(|at| bytes[at / 8] >> (at % 8) & 1 == 1).collect())
}
