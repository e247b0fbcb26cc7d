//! Changes of the cluster, one by one staged and together committed.

use argh::FromArgs;
use serde_json::{Value as Json, json};

use super::plan::Plan;
use super::{Cluster, Node, bytes, one_line};
use crate::cli::confirm::confirm;
use crate::cli::http::Site;
use crate::cli::{Failed, Said};

/// Stage that a node leaves: it hands over what it holds first. `commit` starts it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "leave")]
pub(super) struct Leave {
    /// the node's name
    #[argh(positional)]
    node: String,
    /// do not ask
    #[argh(switch)]
    yes: bool,
    /// print the plan that it comes to, one JSON object
    #[argh(switch)]
    json: bool,
    /// a node's HTTP address (SLOOP_HTTP_ADDR, or 127.0.0.1:7601)
    #[argh(option)]
    http: Option<String>,
    /// the node's token (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
}

/// Stage that a node which is down and does not come back is removed: its copies count as lost. `commit` starts it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "remove")]
pub(super) struct Remove {
    /// the node's name
    #[argh(positional)]
    node: String,
    /// do not ask
    #[argh(switch)]
    yes: bool,
    /// print the plan that it comes to, one JSON object
    #[argh(switch)]
    json: bool,
    /// a node's HTTP address (SLOOP_HTTP_ADDR, or 127.0.0.1:7601)
    #[argh(option)]
    http: Option<String>,
    /// the node's token (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
}

/// Stage that a node which is down and does not come back is replaced: by a joined node (--by), or by one that starts
/// under the same name on an empty data directory. `commit` starts it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "replace")]
pub(super) struct Replace {
    /// the name of the node that is down
    #[argh(positional)]
    node: String,
    /// the joined node that takes its place
    #[argh(option)]
    by: Option<String>,
    /// do not ask
    #[argh(switch)]
    yes: bool,
    /// print the plan that it comes to, one JSON object
    #[argh(switch)]
    json: bool,
    /// a node's HTTP address (SLOOP_HTTP_ADDR, or 127.0.0.1:7601)
    #[argh(option)]
    http: Option<String>,
    /// the node's token (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
}

/// Stage another weight of a node: its share of the data, beside the others' weights. `commit` starts it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "weight")]
pub(super) struct Weight {
    /// the node's name
    #[argh(positional)]
    node: String,
    /// the weight, from 1
    #[argh(positional)]
    weight: u32,
    /// print the plan that it comes to, one JSON object
    #[argh(switch)]
    json: bool,
    /// a node's HTTP address (SLOOP_HTTP_ADDR, or 127.0.0.1:7601)
    #[argh(option)]
    http: Option<String>,
    /// the node's token (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
}

/// Stage another zone of a node: copies of a key stand in different zones. `commit` starts it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "zone")]
pub(super) struct Zone {
    /// the node's name
    #[argh(positional)]
    node: String,
    /// the zone; "" for none
    #[argh(positional)]
    zone: String,
    /// print the plan that it comes to, one JSON object
    #[argh(switch)]
    json: bool,
    /// a node's HTTP address (SLOOP_HTTP_ADDR, or 127.0.0.1:7601)
    #[argh(option)]
    http: Option<String>,
    /// the node's token (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
}

/// Start the change to a layout with all that is staged.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "commit")]
pub(super) struct Commit {
    /// do not ask
    #[argh(switch)]
    yes: bool,
    /// print the plan that is left, one JSON object
    #[argh(switch)]
    json: bool,
    /// a node's HTTP address (SLOOP_HTTP_ADDR, or 127.0.0.1:7601)
    #[argh(option)]
    http: Option<String>,
    /// the node's token (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
}

/// Forget all that was staged and is not committed; joined nodes stay staged.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "clear")]
pub(super) struct Clear {
    /// print the plan that is left, one JSON object
    #[argh(switch)]
    json: bool,
    /// a node's HTTP address (SLOOP_HTTP_ADDR, or 127.0.0.1:7601)
    #[argh(option)]
    http: Option<String>,
    /// the node's token (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
}

impl Leave {
    pub(super) async fn run(self) -> Result<Said, Failed> {
        let site = Site::new(self.http, self.token)?;
        let (name, has) = (&self.node, property(&site, &self.node).await?);
        let what = format!(
            "{name} owns {has}. Once this is committed it hands all of it over to the other members, and then is no \
             member any more. Nothing moves before `sloop cluster commit`."
        );
        confirm(&what, self.yes)?;
        staged(&site, "leave", &json!({"node": name}), self.json).await
    }
}

impl Remove {
    pub(super) async fn run(self) -> Result<Said, Failed> {
        let site = Site::new(self.http, self.token)?;
        let (name, has) = (&self.node, property(&site, &self.node).await?);
        let what = format!(
            "{name} owns {has}. Once this is committed its copies count as lost and are made anew from those of the \
             others; what was written to {name} alone is gone, and {name} never comes back with its present data. \
             Nothing happens before `sloop cluster commit`."
        );
        confirm(&what, self.yes)?;
        staged(&site, "remove", &json!({"node": name}), self.json).await
    }
}

impl Replace {
    pub(super) async fn run(self) -> Result<Said, Failed> {
        let site = Site::new(self.http, self.token)?;
        let (name, has) = (&self.node, property(&site, &self.node).await?);
        let by = match &self.by {
            Some(by) => by.clone(),
            None => format!("a node that starts as {name} on an empty data directory"),
        };
        let what = format!(
            "{name} owns {has}. Once this is committed {by} takes its place and fetches all of it from the other \
             owners; what was written to {name} alone is gone, and {name} never comes back with its present data. \
             Nothing moves before `sloop cluster commit`."
        );
        confirm(&what, self.yes)?;
        staged(&site, "replace", &json!({"node": name, "by": self.by}), self.json).await
    }
}

impl Weight {
    pub(super) async fn run(self) -> Result<Said, Failed> {
        let site = Site::new(self.http, self.token)?;
        staged(&site, "weight", &json!({"node": self.node, "weight": self.weight}), self.json).await
    }
}

impl Zone {
    pub(super) async fn run(self) -> Result<Said, Failed> {
        let site = Site::new(self.http, self.token)?;
        staged(&site, "zone", &json!({"node": self.node, "zone": self.zone}), self.json).await
    }
}

impl Clear {
    pub(super) async fn run(self) -> Result<Said, Failed> {
        staged(&Site::new(self.http, self.token)?, "clear", &json!({}), self.json).await
    }
}

impl Commit {
    pub(super) async fn run(self) -> Result<Said, Failed> {
        let site = Site::new(self.http, self.token)?;
        let plan = Plan::of(&site).await?;
        if plan.refusal.is_none() {
            let mut costs = Said::default();
            plan.costs(&mut costs);
            confirm(String::from_utf8_lossy(&costs.0).trim_end(), self.yes)?;
        }
        let left: Json = site.order("/admin/cluster/commit", &json!({})).await?;
        if self.json {
            return Ok(one_line(&left));
        }
        let mut said = Said::default();
        match left["pending"]["number"].as_u64() {
            Some(number) => said.line(&format!(
                "the change to layout {number} has begun: `sloop cluster transfers` shows it, `sloop wait --for \
                 no-transfers` waits for its end"
            )),
            None => said.line("committed"),
        }
        Ok(said)
    }
}

/// Stages something, and shows the plan that it comes to.
async fn staged(site: &Site, order: &str, body: &Json, json: bool) -> Result<Said, Failed> {
    let told: Json = site.order(&format!("/admin/cluster/{order}"), body).await?;
    if json {
        return Ok(one_line(&told));
    }
    Ok(serde_json::from_value::<Plan>(told)?.shown())
}

/// What a node has, in words.
///
/// # Errors
/// [`Failed`] when there is no such node.
async fn property(site: &Site, name: &str) -> Result<String, Failed> {
    let cluster = Cluster::of(site).await?;
    let unknown = || Failed::refused(format!("no node is called \"{name}\": `sloop cluster status` names them"));
    let Node { partitions, keys, bytes: size, .. } = cluster.node(name).ok_or_else(unknown)?;
    let of = cluster.layout.partitions;
    Ok(match (keys, size) {
        (Some(keys), Some(size)) => {
            format!("copies of {partitions} of {of} partitions, and holds {keys} keys of {}", bytes(*size))
        }
        _ => format!("copies of {partitions} of {of} partitions"),
    })
}
