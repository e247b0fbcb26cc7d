//! Who reads from R owners sees every write that W owners had acknowledged before, where R + W > N: also while owners
//! change.

use super::Invariant;
use crate::protocol::causality::{Context, VersionVector};
use crate::protocol::message::{Found, Outcome, Reply};
use crate::protocol::types::{ClusterId, Instant};
use crate::sim::shape::Shape;
use crate::sim::truth::{Call, Truth};
use crate::sim::watch::{Seen, Verdict, about};

/// See the module.
pub(super) struct Reading {
    cluster: ClusterId,
}

impl Reading {
    pub(super) fn new(shape: &Shape) -> Reading {
        Reading { cluster: shape.cluster }
    }
}

impl Invariant for Reading {
    fn name(&self) -> &'static str {
        "reading"
    }

    fn source(&self) -> &'static str {
        "DESIGN 6: reading at R + W > N sees every write whose reply says that W owners acknowledged it"
    }

    fn see(&mut self, truth: &Truth, _now: Instant, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::Answered { call, outcome: Outcome::Ok(Reply::Found(found)), .. } => self.found(truth, call, found),
            _ => Ok(()),
        }
    }
}

impl Reading {
    fn found(&self, truth: &Truth, call: &Call, found: &Found) -> Verdict {
        let key = call.request.key().expect("a read has a key");
        let seen = Context::open(&found.context, self.cluster, key).map_err(|error| crate::sim::watch::Complaint {
            what: format!("a read gives a context that it does not take: {error}"),
            key: Some(key.clone()),
        })?;
        for (w, known) in &*call.known {
            let (r, n) = (found.level.quorum, found.level.n);
            if r + w <= n {
                continue;
            }
            // What was deleted and forgotten is seen by nobody any more.
            let forgotten = &truth.keys[key].forgotten;
            if let Some(missed) = missed(&known.dots, forgotten, &seen) {
                return about(key, format!("a read of R {r} misses {missed}, which {w} owners had acknowledged"));
            }
        }
        Ok(())
    }
}

fn missed(known: &VersionVector, forgotten: &VersionVector, seen: &Context) -> Option<crate::protocol::types::Dot> {
    known.dots().find(|dot| !seen.covers(*dot) && !forgotten.covers(*dot))
}
