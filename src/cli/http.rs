//! Asking a node over HTTP, for the commands that look at nodes and clusters.

use std::time::Duration;

use hyper::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::Failed;
use super::data::env;
use crate::control::http::ask::{self, Answer};

/// Where a node's HTTP is, unless told otherwise.
pub(super) const HTTP: &str = "127.0.0.1:7601";

/// Time for an answer: a node waits for the others' numbers for a second.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Time for an order: it is answered when it is durable.
const ORDER_PATIENCE: Duration = Duration::from_secs(10);

/// Where to ask, and with which token.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) address: String,
    pub(super) token: Option<String>,
}

impl Site {
    /// What the flags say, or the environment, or the default.
    ///
    /// # Errors
    /// [`Failed`] when that is no address.
    pub(super) fn new(http: Option<String>, token: Option<String>) -> Result<Site, Failed> {
        let given = http.or_else(|| env("SLOOP_HTTP_ADDR")).unwrap_or_else(|| HTTP.to_owned());
        Ok(Site { address: address(&given)?, token: token.or_else(|| env("SLOOP_TOKEN")) })
    }

    /// What the node answers, be it a refusal.
    pub(super) async fn answer(&self, path: &str, patience: Duration) -> Result<Answer, Failed> {
        let token = self.token.as_deref().map(str::as_bytes);
        ask::get(&*self.address, path, token, patience).await.map_err(|error| self.unreachable(&error))
    }

    /// The body of a 200.
    pub(super) async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failed> {
        let answer = self.answer(path, PATIENCE).await?;
        if answer.status != StatusCode::OK {
            return Err(self.refused(&answer));
        }
        self.understand(&answer.body)
    }

    /// The body of a 200 to an order.
    pub(super) async fn order<T: DeserializeOwned>(&self, path: &str, body: &Json) -> Result<T, Failed> {
        let token = self.token.as_deref().map(str::as_bytes);
        let answer = ask::post(&*self.address, path, token, body.to_string(), ORDER_PATIENCE).await;
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        if answer.status != StatusCode::OK {
            return Err(self.refused(&answer));
        }
        self.understand(&answer.body)
    }

    /// Nobody answers, or nobody that speaks HTTP.
    pub(super) fn unreachable(&self, why: &dyn std::fmt::Display) -> Failed {
        let address = &self.address;
        Failed::refused(format!("no answer from http://{address}: {why}; is a node's HTTP there? (--http)"))
    }

    /// The node's own words for why it does not.
    pub(super) fn refused(&self, answer: &Answer) -> Failed {
        let told: Option<Json> = serde_json::from_slice(&answer.body).ok();
        let reason = told.as_ref().and_then(|told| told["error"].as_str()).unwrap_or("no reason given");
        Failed::refused(format!("the node at http://{} refused: {reason} ({})", self.address, answer.status))
    }

    /// Reads a body.
    pub(super) fn understand<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Failed> {
        let address = &self.address;
        serde_json::from_slice(body)
            .map_err(|error| Failed::refused(format!("http://{address} does not answer as a sloop node does: {error}")))
    }
}

/// Host and port of an address, which may be written as a URL, as nodes print it.
fn address(given: &str) -> Result<String, Failed> {
    let bare = given.strip_prefix("http://").unwrap_or(given).trim_end_matches('/');
    let is_whole = |(host, port): (&str, &str)| !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok();
    if bare.rsplit_once(':').is_some_and(is_whole) {
        Ok(bare.to_owned())
    } else {
        Err(Failed::wrong_use(format!("--http {given}: not an address such as {HTTP}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_host_and_port_also_as_a_url() {
        for given in ["[::1]:7601", "node-a:7601", "http://node-a:7601/"] {
            assert!(address(given).unwrap().ends_with(":7601"), "{given}");
        }
        assert_eq!(address("http://127.0.0.1:7601").unwrap(), "127.0.0.1:7601");
        for given in ["", "foo", ":7601", "foo:99999", "https://foo:7601", "foo:7601/admin"] {
            let failed = address(given).unwrap_err();
            assert_eq!(failed.code, 2, "{given}");
            assert!(failed.message.contains("such as 127.0.0.1:7601"), "{}", failed.message);
        }
    }
}
