//! `sloop cluster status`: who is there, how much each holds, how well they agree, and what is not well.

use argh::FromArgs;

use super::{Cluster, Layout, Node, age, bytes, raw, table};
use crate::cli::http::Site;
use crate::cli::{Failed, Said};

/// Show the nodes of the cluster: whether they are up, their share of the ring, how much they hold, how well they
/// agree.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "status")]
pub(super) struct Status {
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

impl Status {
    pub(super) async fn run(self) -> Result<Said, Failed> {
        let site = Site::new(self.http, self.token)?;
        if self.json { raw(&site, "/admin/cluster").await } else { Ok(shown(&Cluster::of(&site).await?)) }
    }
}

impl Cluster {
    /// What is not well, and what to do about it.
    pub(in crate::cli) fn advice(&self) -> Vec<String> {
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
                "down" if node.state == "leaving" => advice.push(format!(
                    "{name} is down before it has handed over all that it holds: start it again on its own data, or \
                     see `sloop cluster remove` if that is lost (it was at {address})"
                )),
                "down" => {
                    let meanwhile = match &*node.state {
                        "member" if is_short => "",
                        "member" => ": the others serve its keys and keep hints for it",
                        _ => ", and owns nothing",
                    };
                    advice.push(format!(
                        "{name} is down{meanwhile}; start it again on its own data (it was at {address}), or see \
                         `sloop cluster replace` if that is lost"
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
        if let Some(change) = &self.change {
            advice.push(format!(
                "a change to layout {} is under way ({}): `sloop cluster transfers` shows it",
                change.to.number, change.step
            ));
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
    pub(in crate::cli) fn staged(&self, node: &Node) -> String {
        let name = &node.name;
        let absent = self.nodes.iter().find(|other| other.state == "member" && other.liveness == "down");
        match absent {
            _ if self.change.is_some() => format!("{name} is staged until the change under way has ended"),
            _ if self.holds_data() => format!(
                "{name} has joined and stays staged, without a share of the ring, because the cluster holds data: see \
                 `sloop cluster plan`, and give it its share with `sloop cluster commit`"
            ),
            Some(absent) => format!(
                "{name} has joined and stays staged until {} is back: every member takes part in a new layout",
                absent.name
            ),
            None => format!("{name} has joined and gets its share of the ring within seconds"),
        }
    }

    /// Whether any member was seen to hold data.
    fn holds_data(&self) -> bool {
        self.nodes.iter().any(|node| node.holds_data == Some(true))
    }
}

/// The cluster for people: a line for all of it, one for each node, and what to do.
fn shown(cluster: &Cluster) -> Said {
    let mut said = Said::default();
    said.line(&cluster.summary());
    let head = [
        "NAME", "UP", "STATE", "ZONE", "WEIGHT", "SHARE", "KEYS", "DELETED", "BYTES", "HINTS", "AGREED", "DIFFERS",
        "ADDRESS",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(cluster.nodes.iter().map(row));
    table(&mut said, &rows);
    cluster.advice().iter().for_each(|line| said.line(line));
    said
}

fn row(node: &Node) -> [String; 13] {
    let number = |number: Option<u64>| number.map_or("?".to_owned(), |number| number.to_string());
    let ago = |millis: Option<u64>, none: &str| match (node.keys, millis) {
        (None, _) => "?".to_owned(),
        (_, None) => none.to_owned(),
        (_, Some(millis)) => age(millis),
    };
    let zone = if node.zone.is_empty() { "-" } else { &node.zone };
    [
        node.name.clone(),
        node.liveness.clone(),
        node.state.clone(),
        zone.to_owned(),
        node.weight.to_string(),
        format!("{:.1} %", 100.0 * node.share),
        number(node.keys),
        number(node.tombstones),
        node.bytes.map_or("?".to_owned(), bytes),
        number(node.hints),
        ago(node.agreed_age_ms, "not yet"),
        ago(node.differing_age_ms, "-"),
        node.address.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::cli::cluster::{Change, Stamp};

    fn node(name: &str, state: &str, liveness: &str) -> Json {
        json!({"name": name, "address": "10.0.0.1:7600", "http": "10.0.0.1:7601", "state": state, "liveness": liveness,
               "zone": "", "weight": 1, "partitions": 512, "share": 0.5, "cores": 1, "keys": 12, "bytes": 3_145_728,
               "tombstones": 2, "hints": 0, "agreedAgeMs": 4_321, "startCount": 1, "holdsData": false})
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
             NAME    UP  STATE   ZONE  WEIGHT  SHARE   KEYS  DELETED  BYTES    HINTS  AGREED  DIFFERS  ADDRESS\n\
             n1      up  member  -     1       50.0 %  12    2        3.0 MiB  0      4.3 s   -        10.0.0.1:7600\n\
             node-2  up  member  -     1       50.0 %  12    2        3.0 MiB  0      4.3 s   -        10.0.0.1:7600\n"
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
        let leaving = advice(&[well.clone(), node("n2", "leaving", "down"), node("n3", "member", "up")]);
        assert!(leaving[0].starts_with("n2 is down before it has handed over"), "{leaving:?}");
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

        let mut changing = cluster(&["n1", "n2"].map(|name| node(name, "member", "up")));
        changing.nodes.extend(cluster(&[node("n3", "staged", "up")]).nodes);
        changing.change = Some(Change { to: Stamp { number: 4 }, step: "hold".to_owned() });
        let changing = changing.advice();
        assert!(changing[0].contains("until the change under way has ended"), "{changing:?}");
        assert!(changing[1].contains("layout 4 is under way (hold): `sloop cluster transfers`"), "{changing:?}");

        let mut few = cluster(&[node("n1", "member", "up")]);
        few.layout.copies = 1;
        assert!(few.advice()[0].contains("2 more to join (sloop serve --join 10.0.0.1:7600)"), "{:?}", few.advice());
    }
}
