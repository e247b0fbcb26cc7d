//! The cluster as this node sees it: who is there, who owns what, and how much each holds.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;

use super::numbers::{ToldJson, numbers_of_all};
use super::reply::Base64;
use super::{Api, refusal::Refusal, reply, request};
use crate::control::node::MembersShown;
use crate::protocol::membership::{Row, RowState};
use crate::protocol::ring::{Change, LayoutStamp, Liveness, Member, Partition, Step};
use crate::protocol::types::NodeId;

#[derive(Serialize)]
struct ClusterJson<'a> {
    cluster: String,
    layout: LayoutJson,
    change: Option<ChangeJson>,
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
    start_count: Option<u64>,
    /// Whether it was seen to hold data; null where that is not known.
    holds_data: Option<bool>,
    #[serde(flatten)]
    told: ToldJson,
}

/// A layout by its name.
#[derive(Serialize)]
pub(super) struct StampJson {
    number: u64,
    /// In hexadecimal digits: JSON's numbers end at 2^53.
    hash: String,
}

/// The change under way, as this node takes part in it.
#[derive(Serialize)]
struct ChangeJson {
    from: StampJson,
    to: StampJson,
    step: &'static str,
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
            told: held.map(ToldJson::of).unwrap_or_default(),
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
        change: view.change.as_deref().map(ChangeJson::of),
        me: &node.name,
        nodes,
    };
    Ok(reply::json(StatusCode::OK, &body))
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

impl StampJson {
    pub(super) fn of(stamp: LayoutStamp) -> StampJson {
        StampJson { number: stamp.number, hash: format!("{:016x}", stamp.hash) }
    }
}

impl ChangeJson {
    fn of(change: &Change) -> ChangeJson {
        let (from, to) = (change.stored.stamp(), change.pending.stamp());
        ChangeJson { from: StampJson::of(from), to: StampJson::of(to), step: step(change.step) }
    }
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

pub(super) fn step(step: Step) -> &'static str {
    match step {
        Step::Write => "write",
        Step::Hold => "hold",
        Step::Read => "read",
    }
}

pub(super) fn liveness(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Up => "up",
        Liveness::Suspect => "suspect",
        Liveness::Down => "down",
    }
}
