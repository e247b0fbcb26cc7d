//! The cluster as this node sees it: who is there, who owns what, and how much each holds.

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

use super::reply::Base64;
use super::{Api, ask, refusal::Refusal, reply, request};
use crate::control::node::{MembersShown, Node};
use crate::protocol::membership::{Row, RowState};
use crate::protocol::ring::{Liveness, Member, Partition, View};
use crate::protocol::types::NodeId;
use crate::runtime::holdings::Holding;

/// Time in which all others must have told their numbers; who is later has none.
const NUMBERS_TIME_MAX: Duration = Duration::from_secs(1);

/// Nodes that are asked at once.
const ASKED_MAX: usize = 64;

#[derive(Serialize)]
struct ClusterJson<'a> {
    cluster: String,
    layout: LayoutJson,
    #[serde(rename = "self")]
    me: &'a str,
    nodes: Vec<NodeJson<'a>>,
}

#[derive(Serialize)]
struct LayoutJson {
    number: u64,
    /// In hexadecimal digits: JSON's numbers end at 2^53.
    hash: String,
    n: u8,
    r: u8,
    w: u8,
    /// Of each key, with as many nodes as there are.
    copies: usize,
    partitions: u16,
}

/// A row of the cluster. What the node itself has to tell is null where it does not.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeJson<'a> {
    name: &'a str,
    address: String,
    http: String,
    state: &'static str,
    liveness: &'static str,
    zone: &'a str,
    weight: u32,
    /// Partitions of which it keeps a copy.
    partitions: u32,
    /// Of all copies of all partitions, those that it keeps.
    share: f64,
    cores: u16,
    keys: Option<u64>,
    bytes: Option<u64>,
    hints: Option<u64>,
    start_count: Option<u64>,
    /// Whether it was seen to hold data; null where that is not known.
    holds_data: Option<bool>,
}

/// A node's own numbers.
#[derive(Serialize, Deserialize)]
struct NumbersJson {
    name: String,
    cluster: String,
    keys: u64,
    bytes: u64,
    hints: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RingJson<'a> {
    key: String,
    key_base64: Base64<'a>,
    partition: u16,
    layout: u64,
    owners: Vec<PlaceJson<'a>>,
    fallbacks: Vec<PlaceJson<'a>>,
}

#[derive(Serialize)]
struct PlaceJson<'a> {
    name: &'a str,
    address: String,
    liveness: &'static str,
    core: u16,
}

pub(super) async fn cluster(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, Refusal> {
    request::no_query(&uri)?;
    let node = &api.node;
    let MembersShown { view, rows } = node.members.borrow().clone();
    let view = view.ok_or(Refusal::Starting)?;
    let numbers = numbers_of_all(node, &view).await;
    let (layout, wanted, loads) = (&view.layout, view.layout.wanted(), view.layout.loads());
    let copies = f64::from(layout.partitions()) * copies_f64(layout.copies());
    let in_layout = |id| {
        let at = layout.rows().binary_search_by_key(&id, |row| row.node).ok()?;
        Some((&layout.rows()[at], loads[at]))
    };
    let nodes = view.members.iter().map(|member| {
        let (row, place, held) = (rows.get(member.node), in_layout(member.node), numbers.get(&member.node));
        let load = place.map_or(0, |(_, load)| load);
        NodeJson {
            name: &member.name,
            address: member.address.to_string(),
            http: member.http.to_string(),
            state: state(row, place.is_some()),
            liveness: liveness(member.liveness),
            zone: row.map(|row| &*row.zone.value).or(place.map(|(row, _)| &*row.zone)).unwrap_or(""),
            weight: row.map(|row| row.weight.value).or(place.map(|(row, _)| row.weight)).unwrap_or(1),
            partitions: load,
            share: f64::from(load) / copies,
            cores: member.cores.count,
            keys: held.map(|held| held.keys),
            bytes: held.map(|held| held.bytes),
            hints: held.map(|held| held.hints),
            start_count: row.map(|row| row.start.count),
            holds_data: row.map(|row| row.holds_data),
        }
    });
    let mut nodes: Vec<NodeJson<'_>> = nodes.collect();
    nodes.sort_unstable_by_key(|node| node.name);
    let body = ClusterJson {
        cluster: node.cluster.to_string(),
        layout: LayoutJson {
            number: layout.stamp().number,
            hash: format!("{:016x}", layout.stamp().hash),
            n: wanted.n,
            r: wanted.r,
            w: wanted.w,
            copies: layout.copies(),
            partitions: layout.partitions(),
        },
        me: &node.name,
        nodes,
    };
    Ok(reply::json(StatusCode::OK, &body))
}

/// This node's own numbers only: who asks all nodes asks each of them for this.
pub(super) async fn numbers(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, Refusal> {
    request::no_query(&uri)?;
    let Holding { keys, bytes, hints } = own_numbers(&api.node).await;
    let (name, cluster) = (api.node.name.to_string(), api.node.cluster.to_string());
    Ok(reply::json(StatusCode::OK, &NumbersJson { name, cluster, keys, bytes, hints }))
}

pub(super) async fn ring(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, Refusal> {
    let key = request::key_or_hex(&uri, "/admin/ring/")?;
    let view = api.node.members.borrow().view.clone().ok_or(Refusal::Starting)?;
    let partition = api.node.ring.partition(&key);
    let place = |node: NodeId| view.member(node).map(|member| PlaceJson::of(member, partition));
    let body = RingJson {
        key: String::from_utf8_lossy(key.as_bytes()).into_owned(),
        key_base64: Base64(key.as_bytes()),
        partition: partition.0,
        layout: view.layout.stamp().number,
        owners: view.layout.owners(partition).filter_map(place).collect(),
        fallbacks: view.fallbacks(partition).into_iter().filter_map(place).collect(),
    };
    Ok(reply::json(StatusCode::OK, &body))
}

impl PlaceJson<'_> {
    fn of(member: &Member, partition: Partition) -> PlaceJson<'_> {
        PlaceJson {
            name: &member.name,
            address: member.address.to_string(),
            liveness: liveness(member.liveness),
            core: member.cores.of(partition).0,
        }
    }
}

fn copies_f64(copies: usize) -> f64 {
    f64::from(u8::try_from(copies).expect("N is a u8"))
}

/// A node that founds its cluster stands in the layout before it has a row.
fn state(row: Option<&Row>, is_in_layout: bool) -> &'static str {
    match row.map(|row| row.state) {
        Some(RowState::Leaving) => "leaving",
        Some(RowState::Removed) => "removed",
        Some(RowState::Member) => "member",
        Some(RowState::Staged) | None if is_in_layout => "member",
        Some(RowState::Staged) | None => "staged",
    }
}

fn liveness(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Up => "up",
        Liveness::Suspect => "suspect",
        Liveness::Down => "down",
    }
}

/// The tree is asked on a thread where that may take a while.
async fn own_numbers(node: &Node) -> Holding {
    let holdings = Arc::clone(&node.holdings);
    spawn_blocking(move || holdings()).await.expect("a panic ends the process")
}

/// The numbers of all nodes that tell them in time. Who is down is not asked.
async fn numbers_of_all(node: &Node, view: &View) -> BTreeMap<NodeId, Holding> {
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
    is_it.then_some(Holding { keys: told.keys, bytes: told.bytes, hints: told.hints })
}
