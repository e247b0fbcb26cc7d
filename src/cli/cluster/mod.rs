//! `sloop cluster ..`: who is there and who owns what; and changes of that, which are staged, looked at and committed.

mod status;
mod ring;
mod orders;
mod plan;
mod transfers;

use argh::FromArgs;
use bytesize::ByteSize;
use serde::Deserialize;
use serde_json::Value as Json;

use super::http::Site;
use super::{Failed, Said};

/// Look at the cluster of a running node, and change it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "cluster")]
pub struct Command {
    #[argh(subcommand)]
    what: What,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum What {
    Status(status::Status),
    Ring(ring::RingOf),
    Plan(plan::Show),
    Leave(orders::Leave),
    Remove(orders::Remove),
    Replace(orders::Replace),
    Weight(orders::Weight),
    Zone(orders::Zone),
    Commit(orders::Commit),
    Clear(orders::Clear),
    Transfers(transfers::Show),
}

/// What `/admin/cluster` says.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Cluster {
    pub(super) cluster: String,
    pub(super) layout: Layout,
    pub(super) change: Option<Change>,
    #[serde(rename = "self")]
    pub(super) me: String,
    pub(super) nodes: Vec<Node>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Layout {
    pub(super) number: u64,
    pub(super) n: u8,
    pub(super) r: u8,
    pub(super) w: u8,
    pub(super) copies: u8,
    pub(super) partitions: u16,
}

/// A change under way.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Change {
    pub(super) to: Stamp,
    pub(super) step: String,
}

/// The name of a layout.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Stamp {
    pub(super) number: u64,
}

/// A node; what it has not told is nothing.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) address: String,
    http: String,
    pub(super) state: String,
    pub(super) liveness: String,
    zone: String,
    weight: u32,
    partitions: u32,
    share: f64,
    keys: Option<u64>,
    tombstones: Option<u64>,
    bytes: Option<u64>,
    pub(super) hints: Option<u64>,
    pub(super) leftovers: Option<u64>,
    pub(super) differing: Option<u64>,
    differing_age_ms: Option<u64>,
    pub(super) agreed_age_ms: Option<u64>,
    pub(super) transfers_left: Option<u64>,
    holds_data: Option<bool>,
}

impl Command {
    /// # Errors
    /// [`Failed`] when no node answers, or it refuses.
    pub fn run(self) -> Result<Said, Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match self.what {
                What::Status(status) => status.run().await,
                What::Ring(ring) => ring.run().await,
                What::Plan(plan) => plan.run().await,
                What::Leave(leave) => leave.run().await,
                What::Remove(remove) => remove.run().await,
                What::Replace(replace) => replace.run().await,
                What::Weight(weight) => weight.run().await,
                What::Zone(zone) => zone.run().await,
                What::Commit(commit) => commit.run().await,
                What::Clear(clear) => clear.run().await,
                What::Transfers(transfers) => transfers.run().await,
            }
        })
    }
}

/// What the node says, as it says it.
async fn raw(site: &Site, path: &str) -> Result<Said, Failed> {
    Ok(one_line(&site.read::<Json>(path).await?))
}

fn one_line(told: &Json) -> Said {
    let mut said = Said::default();
    said.line(&told.to_string());
    said
}

impl Cluster {
    /// As a node sees it.
    pub(super) async fn of(site: &Site) -> Result<Cluster, Failed> {
        site.read("/admin/cluster").await
    }

    /// The node with this name.
    pub(super) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Its id, its layout, its copies and quorums.
    pub(super) fn summary(&self) -> String {
        let Layout { number, n, r, w, partitions, .. } = self.layout;
        format!("cluster {}, layout {number}: N {n}, R {r}, W {w}, {partitions} partitions", self.cluster)
    }
}

/// A size as people read it.
fn bytes(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// A time as people read it, to two digits or so.
fn age(millis: u64) -> String {
    let tenths = |tenths: u64| format!("{}.{}", tenths / 10, tenths % 10);
    match millis {
        0..60_000 => format!("{} s", tenths(millis / 100)),
        60_000..3_600_000 => format!("{} min", tenths(millis / 6_000)),
        _ => format!("{} h", tenths(millis / 360_000)),
    }
}

/// Columns as wide as their widest cell, two spaces apart.
fn table<const N: usize>(said: &mut Said, rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    for row in rows {
        let cells = row.iter().enumerate().map(|(at, cell)| format!("{cell:<width$}", width = width(at)));
        said.line(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
