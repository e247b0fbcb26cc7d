//! Listings: what a core's overlay adds to a page of its tree, and one listing out of the pages of all cores.

use crate::protocol::message::{Keys, Page};
use crate::protocol::ring::{Partition, Ring};
use crate::protocol::types::Key;
use crate::store::{Engine, Place};

/// The overlay's part of a page: places in order, and whether they hold a value; one value more than fits on it.
pub fn newer_than_tree(engine: &Engine, ring: Ring, keys: &Keys) -> Vec<(Place, bool)> {
    let after = keys.after.as_ref().map(|key| (ring.partition(key), key));
    let first = after.map_or(Partition(0), |(partition, _)| partition);
    let mut newer = Vec::new();
    let mut live_left = usize::from(keys.limit) + 1;
    for partition in (first.0..ring.partitions()).map(Partition) {
        let wanted = |key: &Key| {
            key.as_bytes().starts_with(&keys.prefix) && after.as_ref().is_none_or(|after| after < &(partition, key))
        };
        for (key, set) in engine.newer_than_tree(partition, wanted) {
            let live = set.as_ref().is_some_and(|set| set.live().next().is_some());
            newer.push((Place { partition, key: key.clone() }, live));
            live_left -= usize::from(live);
            if live_left == 0 {
                return newer;
            }
        }
    }
    newer
}

/// The first `limit` keys of what the cores list, in the order of listings: by partition, then by key.
///
/// Where a core has more behind its page, nothing beyond the page's last key may be told yet: a key of that core could
/// stand before it.
pub fn merge(ring: Ring, limit: usize, pages: impl IntoIterator<Item = Page>) -> Page {
    let place = |key: &Key| (ring.partition(key), key.clone());
    let mut keys = Vec::new();
    let mut horizon = None;
    for page in pages {
        if page.more {
            let last = page.keys.last().map(place);
            horizon = Some(horizon.map_or(last.clone(), |known| last.min(known)));
        }
        keys.extend(page.keys.iter().map(place));
    }
    keys.sort_unstable();
    let mut more = horizon.is_some();
    if let Some(horizon) = horizon {
        keys.retain(|place| Some(place) <= horizon.as_ref());
    }
    more |= keys.len() > limit;
    keys.truncate(limit);
    Page { keys: keys.into_iter().map(|(_, key)| key).collect(), more }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ring::Cores;

    /// The listing that one core with all keys would give, page by page.
    #[test]
    fn pages_of_many_cores_read_like_those_of_one() {
        let ring = Ring::new(16);
        let cores = Cores { count: 3, salt: 5 };
        let mut all: Vec<_> =
            (0..200).map(|n| Key::new(format!("key {n}")).unwrap()).map(|key| (ring.partition(&key), key)).collect();
        all.sort();

        // The cores stop at pages of different lengths, as a scan with a bound on its work does.
        let page = |core: u16, after: &Option<_>, limit: usize| {
            let own = |place: &&(_, Key)| cores.of(place.0).0 == core && Some(*place) > after.as_ref();
            let keys: Vec<_> = all.iter().filter(own).map(|place| place.1.clone()).collect();
            let shown = limit.min(1 + usize::from(core) * 3);
            Page { more: keys.len() > shown, keys: keys.into_iter().take(shown).collect() }
        };
        let mut listed = Vec::new();
        loop {
            let after = listed.last().map(|key| (ring.partition(key), key.clone()));
            let merged = merge(ring, 7, (0..3).map(|core| page(core, &after, 7)));
            assert!(merged.keys.len() <= 7);
            assert!(!merged.keys.is_empty() || !merged.more, "a page makes progress");
            listed.extend(merged.keys);
            if !merged.more {
                break;
            }
        }
        assert_eq!(listed, all.into_iter().map(|(_, key)| key).collect::<Vec<_>>());
    }
}
