//! `sloop cluster transfers`: the change under way.

use argh::FromArgs;
use serde::Deserialize;

use super::{Stamp, age, bytes, raw, table};
use crate::cli::http::Site;
use crate::cli::{Failed, Said};

/// Show the change of layout that is under way: who is waited for, what is left to fetch, and how long that takes.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "transfers")]
pub(super) struct Show {
    /// print what /admin/cluster/transfers says, one JSON object
    #[argh(switch)]
    json: bool,
    /// a node's HTTP address (SLOOP_HTTP_ADDR, or 127.0.0.1:7601)
    #[argh(option)]
    http: Option<String>,
    /// the node's token (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
}

#[derive(Deserialize)]
struct Transfers {
    change: Option<UnderWay>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UnderWay {
    from: Stamp,
    to: Stamp,
    step: String,
    nodes: Vec<Taker>,
    estimated_left_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Taker {
    name: String,
    liveness: String,
    mark: String,
    is_waited_for: bool,
    transfers: Option<u64>,
    left: Option<u64>,
    bytes: Option<u64>,
    rate: Option<u64>,
    estimated_left_ms: Option<u64>,
}

impl Show {
    pub(super) async fn run(self) -> Result<Said, Failed> {
        let site = Site::new(self.http, self.token)?;
        let path = "/admin/cluster/transfers";
        if self.json { raw(&site, path).await } else { Ok(site.read::<Transfers>(path).await?.shown()) }
    }
}

impl Transfers {
    fn shown(&self) -> Said {
        let mut said = Said::default();
        let Some(change) = &self.change else {
            said.line("no change is under way");
            return said;
        };
        said.line(&change.summary());
        let head = ["NODE", "UP", "REACHED", "LEFT", "OF", "FETCHED", "A SECOND", "TIME LEFT"];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(change.nodes.iter().map(Taker::row));
        table(&mut said, &rows);
        said
    }
}

impl UnderWay {
    fn summary(&self) -> String {
        let (from, to) = (self.from.number, self.to.number);
        let step = match &*self.step {
            "write" => "1 of 3, everybody begins to write to old and new owners",
            "hold" => "2 of 3, everybody fetches what it gains",
            "read" => "3 of 3, everybody begins to read from the new owners",
            other => other,
        };
        let waited: Vec<&str> =
            self.nodes.iter().filter(|node| node.is_waited_for).map(|node| node.name.as_str()).collect();
        let left = match self.estimated_left_ms {
            Some(millis) if self.step == "hold" => format!(", ~{} left", age(millis)),
            _ => String::new(),
        };
        let waited = if waited.is_empty() { "nobody".to_owned() } else { waited.join(", ") };
        format!("from layout {from} to {to}: step {step}; waiting for {waited}{left}")
    }
}

impl Taker {
    fn row(&self) -> [String; 8] {
        let unknown = || "?".to_owned();
        let number = |number: Option<u64>| number.map_or_else(unknown, |number| number.to_string());
        let size = |size: Option<u64>| size.map_or_else(unknown, bytes);
        let time = match (self.left, self.estimated_left_ms) {
            (Some(0), _) => "-".to_owned(),
            (_, time) => time.map_or_else(unknown, |millis| format!("~{}", age(millis))),
        };
        [
            self.name.clone(),
            self.liveness.clone(),
            self.mark.clone(),
            number(self.left),
            number(self.transfers),
            size(self.bytes),
            size(self.rate),
            time,
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn shown(told: Json) -> String {
        String::from_utf8(serde_json::from_value::<Transfers>(told).unwrap().shown().0).unwrap()
    }

    #[test]
    fn a_change_says_who_is_waited_for_and_what_is_left() {
        let done = json!({"name": "n1", "liveness": "up", "mark": "holds", "isWaitedFor": false, "transfers": 0,
                          "left": 0, "bytes": 0, "rate": 0, "estimatedLeftBytes": 0, "estimatedLeftMs": 0});
        let busy = json!({"name": "n4", "liveness": "up", "mark": "writes", "isWaitedFor": true, "transfers": 36,
                          "left": 9, "bytes": 9 << 20, "rate": 1 << 20, "estimatedLeftBytes": 3 << 20,
                          "estimatedLeftMs": 3_000});
        let away = json!({"name": "n5", "liveness": "down", "mark": "writes", "isWaitedFor": true, "transfers": null,
                          "left": null, "bytes": null, "rate": null, "estimatedLeftBytes": null,
                          "estimatedLeftMs": null});
        let change = json!({"from": {"number": 3, "hash": "a"}, "to": {"number": 4, "hash": "b"}, "step": "hold",
                            "nodes": [done, busy, away], "estimatedLeftMs": 3_000});
        assert_eq!(
            shown(json!({"change": change})),
            "from layout 3 to 4: step 2 of 3, everybody fetches what it gains; waiting for n4, n5, ~3.0 s left\n\
             NODE  UP    REACHED  LEFT  OF  FETCHED  A SECOND  TIME LEFT\n\
             n1    up    holds    0     0   0 B      0 B       -\n\
             n4    up    writes   9     36  9.0 MiB  1.0 MiB   ~3.0 s\n\
             n5    down  writes   ?     ?   ?        ?         ?\n"
        );
    }

    #[test]
    fn without_a_change_that_is_what_is_said() {
        assert_eq!(shown(json!({"change": null})), "no change is under way\n");
    }
}
