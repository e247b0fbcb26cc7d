//! `sloop cluster plan`: what is staged, and what it comes to.

use argh::FromArgs;
use serde::Deserialize;

use super::{Stamp, age, bytes, raw, table};
use crate::cli::http::Site;
use crate::cli::{Failed, Said};

/// Show what is staged for the next layout: what each node will own and must fetch, how long that takes, and whether it
/// can be committed.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "plan")]
pub(super) struct Show {
    /// print what /admin/cluster/plan says, one JSON object
    #[argh(switch)]
    json: bool,
    /// a node's HTTP address (SLOOP_HTTP_ADDR, or 127.0.0.1:7601)
    #[argh(option)]
    http: Option<String>,
    /// the node's token (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
}

/// What `/admin/cluster/plan` says, and every order.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Plan {
    stored: Stamp,
    pub(super) pending: Option<Stamp>,
    staged: Vec<Staged>,
    nodes: Vec<Load>,
    copies: u32,
    rate: u64,
    estimated_bytes: Option<u64>,
    estimated_ms: Option<u64>,
    pub(super) refusal: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Staged {
    node: String,
    change: String,
    from: Option<String>,
    to: Option<String>,
    is_there: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Load {
    name: String,
    before: u32,
    after: u32,
    gains: u32,
    estimated_bytes: Option<u64>,
    estimated_ms: Option<u64>,
}

impl Show {
    pub(super) async fn run(self) -> Result<Said, Failed> {
        let site = Site::new(self.http, self.token)?;
        if self.json { raw(&site, "/admin/cluster/plan").await } else { Ok(Plan::of(&site).await?.shown()) }
    }
}

impl Plan {
    pub(super) async fn of(site: &Site) -> Result<Plan, Failed> {
        site.read("/admin/cluster/plan").await
    }

    /// For people: a line for each staged change, one for each node, what it takes, and what to do next.
    pub(super) fn shown(&self) -> Said {
        let mut said = Said::default();
        if let Some(pending) = &self.pending {
            let (from, to) = (self.stored.number, pending.number);
            said.line(&format!("a change from layout {from} to {to} is under way: `sloop cluster transfers` shows it"));
        }
        if self.staged.is_empty() {
            said.line("nothing is staged");
            return said;
        }
        self.costs(&mut said);
        match &self.refusal {
            None => said.line("`sloop cluster commit` starts it, `sloop cluster clear` forgets it"),
            Some(refusal) => said.line(&format!("a commit would be refused: {refusal}")),
        }
        said
    }

    /// What is staged, and what it costs.
    pub(super) fn costs(&self, said: &mut Said) {
        said.line(&format!("staged, beside layout {}:", self.stored.number));
        self.staged.iter().for_each(|staged| said.line(&format!("  {}", staged.words())));
        let mut rows = vec![["NODE", "OWNS", "WILL OWN", "FETCHES", "BYTES", "TIME"].map(str::to_owned)];
        rows.extend(self.nodes.iter().map(Load::row));
        table(said, &rows);
        let [all, time] = [self.estimated_bytes.map(bytes), self.estimated_ms.map(age)].map(or_unknown);
        let (rate, copies) = (bytes(self.rate), self.copies);
        said.line(&format!(
            "in all ~{all} to fetch, in ~{time} or more at {rate} a second a node; every key will have {copies} {}",
            if copies == 1 { "copy" } else { "copies" }
        ));
    }
}

fn or_unknown(text: Option<String>) -> String {
    text.unwrap_or("?".to_owned())
}

impl Staged {
    fn words(&self) -> String {
        let Staged { node, change, from, to, is_there } = self;
        let (from, to) = (from.as_deref().unwrap_or(""), to.as_deref().unwrap_or(""));
        match &**change {
            "join" => format!("{node} joins"),
            "leave" => format!("{node} leaves, and hands over what it holds first"),
            "remove" => format!("{node} is removed as it is: its copies count as lost"),
            "replace" if *is_there == Some(true) => {
                format!("{node} is replaced by a node of the same name that holds nothing yet")
            }
            "replace" => {
                format!("{node} is to be replaced: start a node on an empty --data-dir with --name {node} and --join")
            }
            "weight" => format!("{node} gets weight {to} in place of {from}"),
            "zone" => format!("{node} gets zone \"{to}\" in place of \"{from}\""),
            other => format!("{node}: {other}"),
        }
    }
}

impl Load {
    fn row(&self) -> [String; 6] {
        let [size, time] = [self.estimated_bytes.map(bytes), self.estimated_ms.map(age)].map(or_unknown);
        let partitions = [self.before, self.after, self.gains].map(|partitions| partitions.to_string());
        let [before, after, gains] = partitions;
        match self.gains {
            0 => [self.name.clone(), before, after, gains, "-".to_owned(), "-".to_owned()],
            _ => [self.name.clone(), before, after, gains, format!("~{size}"), format!("~{time}")],
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn plan(refusal: Option<&str>) -> Json {
        let staged = |node: &str, change: &str| {
            json!({"node": node, "change": change, "from": null, "to": null,
                                                       "isThere": null})
        };
        let mut weight = staged("n1", "weight");
        (weight["from"], weight["to"]) = (json!("1"), json!("2"));
        let load = |name: &str, before: u32, after: u32, gains: u32| {
            let (size, time) = (u64::from(gains) << 20, gains * 10);
            json!({"name": name, "before": before, "after": after, "gains": gains, "estimatedBytes": size,
                   "estimatedMs": time})
        };
        json!({"stored": {"number": 3, "hash": "a"}, "pending": null, "copies": 3, "rate": 64 << 20,
               "staged": [staged("n4", "join"), weight], "nodes": [load("n1", 16, 14, 0), load("n4", 0, 12, 12)],
               "estimatedBytes": 12 << 20, "estimatedMs": 120, "refusal": refusal})
    }

    fn shown(plan: Json) -> String {
        String::from_utf8(serde_json::from_value::<Plan>(plan).unwrap().shown().0).unwrap()
    }

    #[test]
    fn a_plan_says_what_each_node_owns_and_fetches_and_how_long_that_takes() {
        assert_eq!(
            shown(plan(None)),
            "staged, beside layout 3:\n  n4 joins\n  n1 gets weight 2 in place of 1\n\
             NODE  OWNS  WILL OWN  FETCHES  BYTES      TIME\n\
             n1    16    14        0        -          -\n\
             n4    0     12        12       ~12.0 MiB  ~0.1 s\n\
             in all ~12.0 MiB to fetch, in ~0.1 s or more at 64.0 MiB a second a node; every key will have 3 \
             copies\n\
             `sloop cluster commit` starts it, `sloop cluster clear` forgets it\n"
        );
    }

    #[test]
    fn a_plan_says_why_it_cannot_be_committed_and_what_is_under_way() {
        assert!(shown(plan(Some("n2 do not answer"))).ends_with("a commit would be refused: n2 do not answer\n"));
        let mut nothing = plan(None);
        (nothing["staged"], nothing["pending"]) = (json!([]), json!({"number": 4, "hash": "b"}));
        let said = shown(nothing);
        assert!(said.starts_with("a change from layout 3 to 4 is under way"), "{said}");
        assert!(said.ends_with("nothing is staged\n"), "{said}");
    }

    #[test]
    fn who_is_to_be_replaced_comes_with_how_to_start_the_other() {
        let mut replaced = plan(None);
        replaced["staged"] = json!([{"node": "n2", "change": "replace", "from": null, "to": null, "isThere": false}]);
        assert!(shown(replaced.clone()).contains("--name n2 and --join"));
        replaced["staged"][0]["isThere"] = json!(true);
        assert!(shown(replaced).contains("n2 is replaced by a node of the same name"));
    }
}
