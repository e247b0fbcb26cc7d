//! `sloop cluster ring`: who owns a key.

use argh::FromArgs;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde::Deserialize;

use super::{raw, table};
use crate::cli::data::key;
use crate::cli::http::Site;
use crate::cli::{Failed, Said};

/// Show which nodes own a key, and which stand in for them.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "ring")]
pub(super) struct RingOf {
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

impl RingOf {
    pub(super) async fn run(self) -> Result<Said, Failed> {
        let key = key(&self.key, self.hex)?;
        let site = Site::new(self.http, self.token)?;
        let path = format!("/admin/ring/{}", percent_encode(key.as_bytes(), NON_ALPHANUMERIC));
        if self.json { raw(&site, &path).await } else { Ok(placed(&site.read(&path).await?)) }
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
