//! Snapshots of the LSM tree, each read by a thread of its own: it reads everything, and may wait for a slow client.

use std::ops::ControlFlow;
use std::thread::Builder;

use bytes::Bytes;

use crate::protocol::ring::Ring;
use crate::store::lsm::Lsm;
use crate::store::snapshot::write;

/// Pieces that wait for the client; a piece is a block of 64 KiB and what its last entry takes beyond.
const PIECES_MAX: usize = 8;

/// Begins a snapshot of what the tree holds now, and gives its bytes as they come. Dropping the receiver ends it.
pub fn begin(lsm: &Lsm, ring: Ring) -> flume::Receiver<Result<Bytes, String>> {
    let (pieces, snapshot) = flume::bounded(PIECES_MAX);
    let (entries, failures) = (lsm.snapshot(), pieces.clone());
    let read = move || {
        let send = |piece| match pieces.send(Ok(piece)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_gone) => ControlFlow::Break(()),
        };
        match write(ring, entries, send) {
            Ok(Some(summary)) => tracing::info!(keys = summary.keys, bytes = summary.bytes, "a snapshot was taken"),
            Ok(None) => tracing::info!("a snapshot was given up by who asked for it"),
            Err(error) => fail(&pieces, &error),
        }
    };
    if let Err(error) = Builder::new().name("snapshot".to_owned()).spawn(read) {
        fail(&failures, &error);
    }
    snapshot
}

fn fail(pieces: &flume::Sender<Result<Bytes, String>>, error: &dyn std::error::Error) {
    tracing::error!(%error, "a snapshot broke off");
    // Who asked may have gone, and has heard the stream end in any case.
    let _ = pieces.send(Err(error.to_string()));
}
