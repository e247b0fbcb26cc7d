//! `sloop cluster status` and `sloop cluster ring`: who is there, and who owns what.

use argh::FromArgs;
use bytesize::ByteSize;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde::Deserialize;
use serde_json::Value as Json;

use super::data::key;
use super::http::Site;
use super::{Failed, Said};

/// Look at the cluster of a running node.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "cluster")]
pub struct Command {
    #[argh(subcommand)]
    what: What,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum What {
    Status(Status),
    Ring(RingOf),
}

/// Show the nodes of the cluster: whether they are up, their share of the ring, how much they hold.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "status")]
struct Status {
    /// print what /admin/cluster says, one JSON object
    #[argh(switch)]
    json: bool,
    /// a node's HTTP address (SLOOP_HTTP_ADDR, or 127.0.0.1:7601)
    #[argh(option)]
    http: Option<String>,
    /// the node's token (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
}

/// Show which nodes own a key, and which stand in for them.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "ring")]
struct RingOf {
    /// the key
    #[argh(positional)]
    key: String,
    /// the key is given in hexadecimal digits
    #[argh(switch)]
    hex: bool,
    /// print what /admin/ring says, one JSON object
    #[argh(switch)]
    json: bool,
    /// a node's HTTP address (SLOOP_HTTP_ADDR, or 127.0.0.1:7601)
    #[argh(option)]
    http: Option<String>,
    /// the node's token (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
}

/// What `/admin/cluster` says.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Cluster {
    pub(super) cluster: String,
    pub(super) layout: Layout,
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
    share: f64,
    keys: Option<u64>,
    bytes: Option<u64>,
    hints: Option<u64>,
    holds_data: Option<bool>,
}

#[derive(Deserialize)]
struct Ring {
    partition: u16,
    layout: u64,
    owners: Vec<Place>,
    fallbacks: Vec<Place>,
}

#[derive(Deserialize)]
struct Place {
    name: String,
    address: String,
    liveness: String,
    core: u16,
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
            }
        })
    }
}

impl Status {
    async fn run(self) -> Result<Said, Failed> {
        let site = Site::new(self.http, self.token)?;
        if self.json { raw(&site, "/admin/cluster").await } else { Ok(shown(&Cluster::of(&site).await?)) }
    }
}

impl RingOf {
    async fn run(self) -> Result<Said, Failed> {
        let key = key(&self.key, self.hex)?;
        let site = Site::new(self.http, self.token)?;
        let path = format!("/admin/ring/{}", percent_encode(key.as_bytes(), NON_ALPHANUMERIC));
        if self.json { raw(&site, &path).await } else { Ok(placed(&site.read(&path).await?)) }
    }
}

/// What the node says, as it says it.
async fn raw(site: &Site, path: &str) -> Result<Said, Failed> {
    let told: Json = site.read(path).await?;
    let mut said = Said::default();
    said.line(&told.to_string());
    Ok(said)
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

    /// What is not well, and what to do about it.
    pub(super) fn advice(&self) -> Vec<String> {
        let Layout { n, r, w, copies, .. } = self.layout;
        let members = || self.nodes.iter().filter(|node| node.state == "member");
        let (all, up) = (members().count(), members().filter(|node| node.liveness != "down").count());
        // With fewer nodes than N the quorums are majorities of the nodes.
        let (r, w) = if copies < n { (copies / 2 + 1, copies / 2 + 1) } else { (r, w) };
        let is_short = up < usize::from(r.max(w));
        let mut advice = vec![];
        if is_short {
            advice.push(format!(
                "{up} of {all} members {}: a read needs {r} of them and a write {w}, so requests fail until more are \
                 up",
                if up == 1 { "is up" } else { "are up" }
            ));
        }
        for node in &self.nodes {
            let Node { name, address, http, .. } = node;
            match &*node.liveness {
                "down" => {
                    let meanwhile = match &*node.state {
                        "member" if is_short => "",
                        "member" => ": the others serve its keys and keep hints for it",
                        _ => ", and owns nothing",
                    };
                    advice.push(format!(
                        "{name} is down{meanwhile}; start it again on its own data (it was at {address})"
                    ));
                }
                "suspect" => advice.push(format!("{name} does not answer: it is up again or down within seconds")),
                _ if node.keys.is_none() => advice.push(format!(
                    "{name} does not tell its numbers: it has gone a moment ago, or {} does not reach http://{http}, \
                     or not with its token",
                    self.me
                )),
                _ => {}
            }
            if node.state == "staged" {
                advice.push(self.staged(node));
            }
        }
        if copies < n {
            let (missing, seed) = (n - copies, self.node(&self.me).map_or("ADDR", |me| &me.address));
            advice.push(format!(
                "each key has {copies} of {n} copies: {missing} more to join (sloop serve --join {seed})"
            ));
        }
        advice
    }

    /// Why a node that has joined is not in the layout.
    pub(super) fn staged(&self, node: &Node) -> String {
        let name = &node.name;
        let absent = self.nodes.iter().find(|other| other.state == "member" && other.liveness == "down");
        match absent {
            _ if self.holds_data() => format!(
                "{name} has joined and stays staged, without a share of the ring: the cluster holds data, and data is \
                 not moved to new nodes yet (it takes requests, and the members serve them)"
            ),
            Some(absent) => format!(
                "{name} has joined and stays staged until {} is back: every member takes part in a new layout",
                absent.name
            ),
            None => format!("{name} has joined and gets its share of the ring within seconds"),
        }
    }

    /// Whether any member was seen to hold data.
    pub(super) fn holds_data(&self) -> bool {
        self.nodes.iter().any(|node| node.holds_data == Some(true))
    }
}

/// The cluster for people: a line for all of it, one for each node, and what to do.
fn shown(cluster: &Cluster) -> Said {
    let mut said = Said::default();
    said.line(&cluster.summary());
    let head = ["NAME", "UP", "STATE", "ZONE", "WEIGHT", "SHARE", "KEYS", "BYTES", "HINTS", "ADDRESS"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(cluster.nodes.iter().map(row));
    table(&mut said, &rows);
    cluster.advice().iter().for_each(|line| said.line(line));
    said
}

fn row(node: &Node) -> [String; 10] {
    let number = |number: Option<u64>| number.map_or("?".to_owned(), |number| number.to_string());
    let bytes = node.bytes.map_or("?".to_owned(), |bytes| ByteSize(bytes).display().iec().to_string());
    let zone = if node.zone.is_empty() { "-" } else { &node.zone };
    [
        node.name.clone(),
        node.liveness.clone(),
        node.state.clone(),
        zone.to_owned(),
        node.weight.to_string(),
        format!("{:.1} %", 100.0 * node.share),
        node.keys.map_or("?".to_owned(), |keys| format!("~{keys}")),
        bytes,
        number(node.hints),
        node.address.clone(),
    ]
}

fn placed(ring: &Ring) -> Said {
    let mut said = Said::default();
    said.line(&format!("partition {} of layout {}", ring.partition, ring.layout));
    let line = |role: &str, place: &Place| {
        let core = format!("core {}", place.core);
        [role.to_owned(), place.name.clone(), place.liveness.clone(), core, place.address.clone()]
    };
    let owners = ring.owners.iter().map(|place| line("owner", place));
    let rows: Vec<_> = owners.chain(ring.fallbacks.iter().map(|place| line("fallback", place))).collect();
    table(&mut said, &rows);
    said
}

/// Columns as wide as their widest cell, two spaces apart.
fn table<const N: usize>(said: &mut Said, rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    for row in rows {
        let cells = row.iter().enumerate().map(|(at, cell)| format!("{cell:<width$}", width = width(at)));
        said.line(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, state: &str, liveness: &str) -> Json {
        json!({"name": name, "address": "10.0.0.1:7600", "http": "10.0.0.1:7601", "state": state, "liveness": liveness,
               "zone": "", "weight": 1, "partitions": 512, "share": 0.5, "cores": 1, "keys": 12, "bytes": 3_145_728,
               "hints": 0, "startCount": 1, "holdsData": false})
    }

    fn cluster(nodes: &[Json]) -> Cluster {
        let layout = json!({"number": 3, "hash": "0", "n": 3, "r": 2, "w": 2, "copies": 3, "partitions": 1024});
        serde_json::from_value(json!({"cluster": "c1", "layout": layout, "self": "n1", "nodes": nodes})).unwrap()
    }

    #[test]
    fn a_cluster_that_is_well_is_a_line_for_all_and_one_for_each() {
        let text = shown(&cluster(&[node("n1", "member", "up"), node("node-2", "member", "up")])).0;
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "cluster c1, layout 3: N 3, R 2, W 2, 1024 partitions\n\
             NAME    UP  STATE   ZONE  WEIGHT  SHARE   KEYS  BYTES    HINTS  ADDRESS\n\
             n1      up  member  -     1       50.0 %  ~12   3.0 MiB  0      10.0.0.1:7600\n\
             node-2  up  member  -     1       50.0 %  ~12   3.0 MiB  0      10.0.0.1:7600\n"
        );
    }

    #[test]
    fn what_is_not_well_comes_with_what_to_do() {
        let advice = |nodes: &[Json]| cluster(nodes).advice();
        let well = node("n1", "member", "up");

        let down = advice(&[well.clone(), node("n2", "member", "down"), node("n3", "member", "up")]);
        assert!(down.len() == 1 && down[0].starts_with("n2 is down: ") && down[0].contains("start it"), "{down:?}");
        let short = advice(&[well.clone(), node("n2", "member", "down"), node("n3", "member", "down")]);
        assert!(short[0].starts_with("1 of 3 members is up: a read needs 2"), "{short:?}");
        assert!(short[1].starts_with("n2 is down; start it again"), "nobody serves its keys: {short:?}");
        let idle = advice(&[well.clone(), node("n2", "member", "up"), node("n3", "staged", "down")]);
        assert!(idle[0].starts_with("n3 is down, and owns nothing; start it"), "{idle:?}");
        let suspect = advice(&[well.clone(), node("n2", "member", "suspect")]);
        assert_eq!(suspect.len(), 1, "it may be up: {suspect:?}");
        assert!(suspect[0].starts_with("n2 does not answer"), "{suspect:?}");
        let mut mute = node("n2", "member", "up");
        mute["keys"] = Json::Null;
        let mute = advice(&[well.clone(), mute]);
        assert!(mute[0].contains("n1 does not reach http://10.0.0.1:7601"), "{mute:?}");

        let fresh = advice(&[well.clone(), node("n2", "staged", "up")]);
        assert!(fresh.iter().any(|line| line.contains("within seconds")), "{fresh:?}");
        let held_up = advice(&[well.clone(), node("n2", "staged", "up"), node("n3", "member", "down")]);
        assert!(held_up.iter().any(|line| line.contains("until n3 is back")), "{held_up:?}");
        let mut holder = well;
        holder["holdsData"] = json!(true);
        let waits = advice(&[holder, node("n2", "staged", "up")]);
        assert!(waits.iter().any(|line| line.contains("the cluster holds data")), "{waits:?}");

        let mut few = cluster(&[node("n1", "member", "up")]);
        few.layout.copies = 1;
        assert!(few.advice()[0].contains("2 more to join (sloop serve --join 10.0.0.1:7600)"), "{:?}", few.advice());
    }

    #[test]
    fn owners_and_fallbacks_stand_in_their_order() {
        let place = |name: &str| json!({"name": name, "address": "a:1", "liveness": "up", "core": 2});
        let ring =
            json!({"partition": 17, "layout": 3, "owners": [place("n2"), place("n1")], "fallbacks": [place("n3")]});
        let text = placed(&serde_json::from_value(ring).unwrap()).0;
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "partition 17 of layout 3\n\
             owner     n2  up  core 2  a:1\n\
             owner     n1  up  core 2  a:1\n\
             fallback  n3  up  core 2  a:1\n"
        );
    }
}
