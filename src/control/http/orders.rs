//! What operators order: changes are staged one by one, shown with what they cost, and committed together.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::cluster::StampJson;
use super::numbers::numbers_of_all;
use super::{Api, refusal::Refusal, reply, request};
use crate::control::node::Node;
use crate::protocol::membership::{Order, Plan, PlannedLoad, Staged, StagedChange};
use crate::protocol::ring::View;
use crate::protocol::types::NodeId;
use crate::runtime::holdings::Holding;

/// Which node.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeBody {
    node: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplaceBody {
    node: String,
    by: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightBody {
    node: String,
    weight: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ZoneBody {
    node: String,
    zone: String,
}

/// Nothing is to be said.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoBody {}

/// What is staged, and what it comes to.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlanJson<'a> {
    stored: StampJson,
    /// While a change runs.
    pending: Option<StampJson>,
    staged: Vec<StagedJson<'a>>,
    nodes: Vec<LoadJson<'a>>,
    /// Of each key, once all of it is done.
    copies: usize,
    /// What a node fetches at most in a second.
    rate: u64,
    estimated_bytes: Option<u64>,
    estimated_ms: Option<u64>,
    /// Why a commit would be refused.
    refusal: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StagedJson<'a> {
    node: &'a str,
    change: &'static str,
    /// Weight or zone, as they are and are to be.
    from: Option<String>,
    to: Option<String>,
    /// Of a node that is replaced under its own name: whether the empty one has joined.
    is_there: Option<bool>,
}

/// What a node owns and must fetch. Estimates are null where nobody tells how much there is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoadJson<'a> {
    name: &'a str,
    before: u32,
    after: u32,
    gains: u32,
    estimated_bytes: Option<u64>,
    estimated_ms: Option<u64>,
}

pub(super) async fn plan(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, Refusal> {
    request::no_query(&uri)?;
    ordered(&api, Order::Plan).await
}

pub(super) async fn leave(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let NodeBody { node } = said(&api, &uri, &headers, body, r#"{"node": ".."}"#).await?;
    ordered(&api, Order::Leave(named(&api, &node)?)).await
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let NodeBody { node } = said(&api, &uri, &headers, body, r#"{"node": ".."}"#).await?;
    ordered(&api, Order::Remove(named(&api, &node)?)).await
}

pub(super) async fn replace(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let ReplaceBody { node, by } = said(&api, &uri, &headers, body, r#"{"node": "..", "by": ".."}"#).await?;
    let by = by.map(|by| named(&api, &by)).transpose()?;
    ordered(&api, Order::Replace { node: named(&api, &node)?, by }).await
}

pub(super) async fn weight(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let WeightBody { node, weight } = said(&api, &uri, &headers, body, r#"{"node": "..", "weight": 1}"#).await?;
    ordered(&api, Order::Weight(named(&api, &node)?, weight)).await
}

pub(super) async fn zone(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let ZoneBody { node, zone } = said(&api, &uri, &headers, body, r#"{"node": "..", "zone": ".."}"#).await?;
    ordered(&api, Order::Zone(named(&api, &node)?, zone.into())).await
}

pub(super) async fn commit(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let NoBody {} = said(&api, &uri, &headers, body, "{}").await?;
    ordered(&api, Order::Commit).await
}

pub(super) async fn clear(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let NoBody {} = said(&api, &uri, &headers, body, "{}").await?;
    ordered(&api, Order::Clear).await
}

/// The body, which is an object; nothing at all is one without fields.
async fn said<T: DeserializeOwned>(
    api: &Api,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
    form: &str,
) -> Result<T, Refusal> {
    request::no_query(uri)?;
    let (body, _taken) = request::body(headers, body, &api.bodies).await?;
    request::object(if body.is_empty() { b"{}" } else { &body }, form)
}

/// The node of a name, if there is or was one.
fn named(api: &Api, name: &str) -> Result<NodeId, Refusal> {
    let (shown, node) = (api.node.members.borrow(), NodeId::of(name));
    let is_seen = shown.view.as_ref().is_some_and(|view| view.member(node).is_some());
    if is_seen || shown.rows.get(node).is_some() {
        Ok(node)
    } else {
        Err(Refusal::NoSuchNode { name: name.to_owned() })
    }
}

/// Gives an order, and tells what is staged then and what it comes to.
async fn ordered(api: &Api, order: Order) -> Result<Response, Refusal> {
    let node = &api.node;
    let view = node.members.borrow().view.clone().ok_or(Refusal::Starting)?;
    let (answer, answered) = oneshot::channel();
    node.orders.send((order, answer)).await.map_err(|_stopping| Refusal::Stopping)?;
    let plan = answered.await.map_err(|_stopping| Refusal::Stopping)??;
    let numbers = numbers_of_all(node, &view).await;
    Ok(reply::json(StatusCode::OK, &PlanJson::of(&plan, node, &view, &numbers)))
}

impl<'a> PlanJson<'a> {
    fn of(plan: &'a Plan, node: &Node, view: &View, numbers: &BTreeMap<NodeId, Holding>) -> PlanJson<'a> {
        let (mean, rate) = (Mean::of(view, numbers), node.transfer_rate);
        let mut nodes: Vec<_> = plan.loads.iter().map(|load| LoadJson::of(load, mean, rate)).collect();
        nodes.sort_unstable_by_key(|load| load.name);
        let mut staged: Vec<_> = plan.staged.iter().map(StagedJson::of).collect();
        staged.sort_by_key(|staged| staged.node);
        PlanJson {
            stored: StampJson::of(plan.stored),
            pending: plan.pending.map(StampJson::of),
            staged,
            copies: plan.copies,
            rate,
            estimated_bytes: nodes.iter().map(|load| load.estimated_bytes).sum(),
            // All fetch at the same time.
            estimated_ms: nodes.iter().map(|load| load.estimated_ms).max().flatten(),
            nodes,
            refusal: plan.refusal.as_ref().map(ToString::to_string),
        }
    }
}

impl<'a> StagedJson<'a> {
    fn of(staged: &'a Staged) -> StagedJson<'a> {
        let bare = |change| StagedJson { node: &staged.name, change, from: None, to: None, is_there: None };
        match &staged.what {
            StagedChange::Join => bare("join"),
            StagedChange::Leave => bare("leave"),
            StagedChange::Remove => bare("remove"),
            StagedChange::Replace { is_there } => StagedJson { is_there: Some(*is_there), ..bare("replace") },
            StagedChange::Weight { from, to } => {
                StagedJson { from: Some(from.to_string()), to: Some(to.to_string()), ..bare("weight") }
            }
            StagedChange::Zone { from, to } => {
                StagedJson { from: Some(from.to_string()), to: Some(to.to_string()), ..bare("zone") }
            }
        }
    }
}

impl LoadJson<'_> {
    fn of(load: &PlannedLoad, mean: Mean, rate: u64) -> LoadJson<'_> {
        let estimated_bytes = mean.bytes_of(u64::from(load.gains));
        LoadJson {
            name: &load.name,
            before: load.before,
            after: load.after,
            gains: load.gains,
            estimated_bytes,
            estimated_ms: estimated_bytes.map(|bytes| millis(bytes, rate)),
        }
    }
}

/// Time that so many bytes take at so many a second.
pub(super) fn millis(bytes: u64, rate: u64) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000 / u128::from(rate.max(1))).unwrap_or(u64::MAX)
}

/// What copies of partitions take, by the nodes that tell what they hold.
#[derive(Clone, Copy)]
pub(super) struct Mean {
    bytes: u64,
    partitions: u64,
}

impl Mean {
    pub(super) fn of(view: &View, numbers: &BTreeMap<NodeId, Holding>) -> Mean {
        let owners = view.layout.rows().iter().zip(view.layout.loads());
        let told = owners.filter_map(|(row, load)| Some((numbers.get(&row.node)?.bytes, u64::from(load))));
        let (bytes, partitions) = told.fold((0, 0), |sum, told| (sum.0 + told.0, sum.1 + told.1));
        Mean { bytes, partitions }
    }

    /// What so many copies take in the mean; nothing where no node tells.
    pub(super) fn bytes_of(self, partitions: u64) -> Option<u64> {
        let all = u128::from(self.bytes) * u128::from(partitions);
        Some(u64::try_from(all.checked_div(u128::from(self.partitions))?).unwrap_or(u64::MAX))
    }
}
