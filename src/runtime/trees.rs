//! Hash trees over what the LSM tree holds, each made by a thread of its own: it may read everything.

use std::thread::Builder;

use crate::protocol::antientropy::{Range, Tree};
use crate::protocol::ring::Ring;
use crate::store::lsm::{Lsm, LsmError};
use crate::wire::sets::decode_set;

/// Begins to make the tree of a range from what the store holds now. The receiver gets it, or why there is none.
pub fn begin(lsm: &Lsm, ring: Ring, range: Range) -> flume::Receiver<Result<Tree, String>> {
    let (made, tree) = flume::bounded(1);
    let (lsm, failures) = (lsm.clone(), made.clone());
    let make = move || {
        let outcome = make(&lsm, ring, range).map_err(|error| {
            tracing::error!(%error, "a hash tree could not be made");
            error.to_string()
        });
        // Who asked may have gone.
        let _ = made.send(outcome);
    };
    if let Err(error) = Builder::new().name("tree".to_owned()).spawn(make) {
        let _ = failures.send(Err(format!("no thread could be started: {error}")));
    }
    tree
}

/// From the trees that stand beside the sets, where they tell it.
fn make(lsm: &Lsm, ring: Ring, range: Range) -> Result<Tree, LsmError> {
    match Tree::of_forest(range, ring, &lsm.forest()?) {
        Some(tree) => Ok(tree),
        None => read(lsm, range),
    }
}

fn read(lsm: &Lsm, range: Range) -> Result<Tree, LsmError> {
    let mut tree = Tree::new(range);
    for entry in lsm.snapshot() {
        let (place, bytes) = entry?;
        let set = decode_set(&bytes).map_err(|cause| lsm.unreadable(&place, cause))?;
        tree.toggle(&place.key, &set);
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::causality::{Siblings, Supersedes, Write};
    use crate::protocol::types::{ActorId, Dot, Key, Value, WallTime};
    use crate::store::Place;

    fn sets(ring: Ring) -> Vec<(Place, Siblings)> {
        let set = |counter| {
            let value = Some(Value::new("v").unwrap());
            let write = Write { value, supersedes: Supersedes::Held, operation: None, written_at: WallTime(1) };
            Siblings::default().mint(Dot { actor: ActorId(1), counter }, write).unwrap().set
        };
        let mut sets: Vec<_> =
            (1..300).map(|n| (Place::of(ring, &Key::new(format!("key {n}")).unwrap()), set(n))).collect();
        sets.sort_by(|one, other| one.0.cmp(&other.0));
        sets
    }

    #[test]
    fn a_tree_says_the_same_whether_the_data_is_read_for_it_or_not() {
        let (dir, ring) = (tempfile::tempdir().unwrap(), Ring::new(16));
        let lsm = Lsm::open(dir.path(), 1024 * 1024).unwrap();
        lsm.ingest_sets(ring, sets(ring).into_iter().map(Ok::<_, LsmError>)).unwrap();

        for leaves in [1, 1_024, 4_096, 32_768] {
            let range = Range::new(i64::MIN, i64::MAX, leaves).unwrap();
            assert_eq!(make(&lsm, ring, range).unwrap(), read(&lsm, range).unwrap(), "{leaves} leaves");
        }
        let half = Range::new(i64::MIN, -1, 16).unwrap();
        let whole = Range::new(i64::MIN, i64::MAX, 32).unwrap();
        let (half, whole) = (make(&lsm, ring, half).unwrap(), make(&lsm, ring, whole).unwrap());
        assert!(
            whole.leaves().take_while(|leaf| leaf.token < 0).eq(half.leaves()),
            "half a ring is half of its leaves"
        );
    }
}
