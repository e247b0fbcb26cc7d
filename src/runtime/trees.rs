//! Hash trees over what the LSM tree holds, each made by a thread of its own: it reads everything.

use std::thread::Builder;

use crate::protocol::antientropy::{Range, Tree};
use crate::store::lsm::{Lsm, LsmError};
use crate::wire::sets::decode_set;

/// Begins to make the tree of a range from what the store holds now. The receiver gets it, or why there is none.
pub fn begin(lsm: &Lsm, range: Range) -> flume::Receiver<Result<Tree, String>> {
    let (made, tree) = flume::bounded(1);
    let (lsm, failures) = (lsm.clone(), made.clone());
    let make = move || {
        let outcome = read(&lsm, range).map_err(|error| {
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

fn read(lsm: &Lsm, range: Range) -> Result<Tree, LsmError> {
    let mut tree = Tree::new(range);
    for entry in lsm.snapshot() {
        let (place, bytes) = entry?;
        let set = decode_set(&bytes).map_err(|cause| lsm.unreadable(&place, cause))?;
        tree.toggle(&place.key, &set);
    }
    Ok(tree)
}
