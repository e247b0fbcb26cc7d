//! What each node tells of itself: how much it holds, what it still has to do, and how well it agrees with the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use super::{Api, ask, refusal::Refusal, reply, request};
use crate::control::node::Node;
use crate::protocol::ring::{Liveness, Member, View};
use crate::protocol::types::NodeId;
use crate::runtime::holdings::Holding;

/// Time in which all others must have told their numbers; who is later has none.
const NUMBERS_TIME_MAX: Duration = Duration::from_secs(1);

/// Nodes that are asked at once.
const ASKED_MAX: usize = 64;

/// A node's own numbers, and whose they are.
#[derive(Serialize, Deserialize)]
struct NumbersJson {
    name: String,
    cluster: String,
    #[serde(flatten)]
    told: ToldJson,
}

/// What a node tells; null, each of it, where it does not.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToldJson {
    /// Keys, those that were deleted and are not forgotten yet among them.
    keys: Option<u64>,
    /// Keys that hold nothing but tombstones.
    tombstones: Option<u64>,
    /// Of keys and their sets.
    bytes: Option<u64>,
    disk_bytes: Option<u64>,
    hints: Option<u64>,
    /// Partitions of others of which it holds keys.
    leftovers: Option<u64>,
    /// Partitions that differ from another owner's, as far as it knows.
    differing: Option<u64>,
    /// Of the oldest of those differences; null for none.
    differing_age_ms: Option<u64>,
    /// Since everything shared was last seen equal with all owners; null for not yet.
    agreed_age_ms: Option<u64>,
    /// Fetches of the change under way, by partition and owner.
    transfers: Option<u64>,
    transfers_left: Option<u64>,
    transfers_bytes: Option<u64>,
    transfers_rate: Option<u64>,
}

impl ToldJson {
    pub(super) fn of(holding: &Holding) -> ToldJson {
        let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        ToldJson {
            keys: Some(holding.keys),
            tombstones: Some(holding.buried),
            bytes: Some(holding.bytes),
            disk_bytes: Some(holding.disk_bytes),
            hints: Some(holding.hints),
            leftovers: Some(holding.leftovers),
            differing: Some(holding.differing),
            differing_age_ms: holding.differing_age.map(millis),
            agreed_age_ms: holding.agreed_age.map(millis),
            transfers: Some(holding.transfers),
            transfers_left: Some(holding.transfers_left),
            transfers_bytes: Some(holding.transfers_bytes),
            transfers_rate: Some(holding.transfers_rate),
        }
    }

    /// What was told, where nothing is missing that every node tells.
    fn holding(&self) -> Option<Holding> {
        Some(Holding {
            keys: self.keys?,
            buried: self.tombstones?,
            bytes: self.bytes?,
            disk_bytes: self.disk_bytes?,
            hints: self.hints?,
            leftovers: self.leftovers?,
            differing: self.differing?,
            transfers: self.transfers?,
            transfers_left: self.transfers_left?,
            transfers_bytes: self.transfers_bytes?,
            transfers_rate: self.transfers_rate?,
            differing_age: self.differing_age_ms.map(Duration::from_millis),
            agreed_age: self.agreed_age_ms.map(Duration::from_millis),
        })
    }
}

/// This node's own numbers only: who asks all nodes asks each of them for this.
pub(super) async fn numbers(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, Refusal> {
    request::no_query(&uri)?;
    let told = ToldJson::of(&own_numbers(&api.node).await);
    let (name, cluster) = (api.node.name.to_string(), api.node.cluster.to_string());
    Ok(reply::json(StatusCode::OK, &NumbersJson { name, cluster, told }))
}

/// The tree is asked on a thread where that may take a while.
async fn own_numbers(node: &Node) -> Holding {
    let holdings = Arc::clone(&node.holdings);
    spawn_blocking(move || holdings()).await.expect("a panic ends the process")
}

/// The numbers of all nodes that tell them in time. Who is down is not asked.
pub(super) async fn numbers_of_all(node: &Node, view: &View) -> BTreeMap<NodeId, Holding> {
    let until = Instant::now() + NUMBERS_TIME_MAX;
    let places = Arc::new(Semaphore::new(ASKED_MAX));
    let mut asked = JoinSet::new();
    let others = view.members.iter().filter(|member| member.node != view.me && member.liveness != Liveness::Down);
    for member in others.cloned() {
        let (node, places) = (node.clone(), Arc::clone(&places));
        asked.spawn(async move {
            let _place = places.acquire().await.expect("nobody closes the places");
            numbers_of(&node, &member).await.map(|holding| (member.node, holding))
        });
    }
    let mut numbers = BTreeMap::from([(view.me, own_numbers(node).await)]);
    while let Ok(Some(told)) = timeout_at(until, asked.join_next()).await {
        numbers.extend(told.expect("a panic ends the process"));
    }
    numbers
}

/// What another node tells; nothing where it does not, or where somebody else is there by now.
async fn numbers_of(node: &Node, member: &Member) -> Option<Holding> {
    let answer = ask::get(member.http, "/admin/node", node.guard.token(), NUMBERS_TIME_MAX).await;
    let told = answer.inspect_err(|error| {
        tracing::debug!(name = %member.name, %error, "a node does not tell its numbers");
    });
    let told: NumbersJson = serde_json::from_slice(&told.ok()?.body).ok()?;
    let is_it = told.name == *member.name && told.cluster == node.cluster.to_string();
    if is_it { told.told.holding() } else { None }
}
