//! The change under way: who is waited for, and how much is left to fetch.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;

use super::cluster::{StampJson, liveness, step};
use super::numbers::numbers_of_all;
use super::orders::{Mean, millis};
use super::{Api, refusal::Refusal, reply, request};
use crate::control::node::MembersShown;
use crate::protocol::membership::{Mark, Row};
use crate::protocol::ring::{Change, Step, View};
use crate::protocol::types::NodeId;
use crate::runtime::holdings::Holding;

#[derive(Serialize)]
struct TransfersJson<'a> {
    /// Null while none is under way.
    change: Option<UnderWayJson<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UnderWayJson<'a> {
    from: StampJson,
    to: StampJson,
    /// What all are doing, as far as this node knows.
    step: &'static str,
    /// By name.
    nodes: Vec<MemberJson<'a>>,
    /// Of the slowest.
    estimated_left_ms: Option<u64>,
}

/// A member that the change waits for. What the node itself has to tell is null where it does not.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberJson<'a> {
    name: &'a str,
    liveness: &'static str,
    mark: &'static str,
    /// Whether it has not reached what all others do.
    is_waited_for: bool,
    /// Fetches: one for each partition that it gains and each owner that has it.
    transfers: Option<u64>,
    left: Option<u64>,
    /// Of all transfers since the node started.
    bytes: Option<u64>,
    /// A second, just now.
    rate: Option<u64>,
    estimated_left_bytes: Option<u64>,
    estimated_left_ms: Option<u64>,
}

pub(super) async fn transfers(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, Refusal> {
    request::no_query(&uri)?;
    let shown = api.node.members.borrow().clone();
    let view = shown.view.clone().ok_or(Refusal::Starting)?;
    let Some(change) = view.change.as_deref() else {
        return Ok(reply::json(StatusCode::OK, &TransfersJson { change: None }));
    };
    let numbers = numbers_of_all(&api.node, &view).await;
    let under_way = under_way(&shown, &view, change, &numbers, api.node.transfer_rate);
    Ok(reply::json(StatusCode::OK, &TransfersJson { change: Some(under_way) }))
}

fn under_way<'a>(
    shown: &'a MembersShown,
    view: &View,
    change: &Change,
    numbers: &BTreeMap<NodeId, Holding>,
    rate: u64,
) -> UnderWayJson<'a> {
    let mean = Mean::of(view, numbers);
    let sources = u64::try_from(change.stored.copies()).unwrap_or(1).max(1);
    let member = |(row, mark): (&'a Row, Mark)| {
        let held = numbers.get(&row.node);
        // Of the owners of a partition one sends it, and the others are compared with.
        let left = |held: &Holding| mean.bytes_of(held.transfers_left.div_ceil(sources));
        let left_bytes = held.and_then(left);
        let pace = held.map_or(rate, |held| if held.transfers_rate == 0 { rate } else { held.transfers_rate });
        MemberJson {
            name: &row.name,
            liveness: view.member(row.node).map_or("down", |member| liveness(member.liveness)),
            mark: mark_name(mark),
            is_waited_for: mark < wanted(change.step),
            transfers: held.map(|held| held.transfers),
            left: held.map(|held| held.transfers_left),
            bytes: held.map(|held| held.transfers_bytes),
            rate: held.map(|held| held.transfers_rate),
            estimated_left_bytes: left_bytes,
            estimated_left_ms: left_bytes.map(|bytes| millis(bytes, pace)),
        }
    };
    let mut nodes: Vec<MemberJson<'_>> = shown.marks().into_iter().map(member).collect();
    nodes.sort_unstable_by_key(|node| node.name);
    UnderWayJson {
        from: StampJson::of(change.stored.stamp()),
        to: StampJson::of(change.pending.stamp()),
        step: step(change.step),
        estimated_left_ms: nodes.iter().map(|node| node.estimated_left_ms).max().flatten(),
        nodes,
    }
}

/// The mark that ends a step.
fn wanted(step: Step) -> Mark {
    match step {
        Step::Write => Mark::Writes,
        Step::Hold => Mark::Holds,
        Step::Read => Mark::Reads,
    }
}

fn mark_name(mark: Mark) -> &'static str {
    match mark {
        Mark::Known => "known",
        Mark::Writes => "writes",
        Mark::Holds => "holds",
        Mark::Reads => "reads",
        Mark::Stored => "stored",
    }
}
