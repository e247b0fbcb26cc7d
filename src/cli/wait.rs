//! `sloop wait`: until a node and its cluster have come to a state, or the time is over.

use std::time::Duration;

use argh::FromArgs;
use hyper::StatusCode;
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep};

use super::cluster::Cluster;
use super::http::{PATIENCE, Site};
use super::{Failed, Said, say};

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(100);

/// A look is given this much at least, however little time is left: a node waits for others for a second.
const LOOK_TIME_MIN: Duration = Duration::from_millis(1_500);

/// Wait until a node and its cluster are ready: exit code 0 when they are, 1 when they are not in time.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "wait")]
pub struct Wait {
    /// what to wait for: ready (the node serves, has its place in the layout, and sees all members up)
    #[argh(option, long = "for")]
    goal: String,
    /// time to wait (30s)
    #[argh(option, default = "String::from(\"30s\")")]
    timeout: String,
    /// print one JSON object
    #[argh(switch)]
    json: bool,
    /// the node's HTTP address (SLOOP_HTTP_ADDR, or 127.0.0.1:7601)
    #[argh(option)]
    http: Option<String>,
    /// the node's token (SLOOP_TOKEN)
    #[argh(option)]
    token: Option<String>,
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Ready,
}

impl Goal {
    /// All of them, by name.
    const ALL: [(&str, Goal); 1] = [("ready", Goal::Ready)];

    fn read(text: &str) -> Result<Goal, Failed> {
        let known = Goal::ALL.iter().find(|(name, _)| *name == text).map(|(_, goal)| *goal);
        let names = Goal::ALL.map(|(name, _)| name).join(", ");
        known.ok_or_else(|| Failed::wrong_use(format!("--for {text}: what can be waited for is {names}")))
    }

    /// Why it is not reached yet; nothing when it is.
    ///
    /// # Errors
    /// [`Failed`] when waiting would not help.
    async fn unmet(self, site: &Site, patience: Duration) -> Result<Option<String>, Failed> {
        match self {
            Goal::Ready => unready(site, patience).await,
        }
    }
}

impl Wait {
    /// # Errors
    /// [`Failed`] when it does not come to that in time.
    pub fn run(self) -> Result<Said, Failed> {
        let goal = Goal::read(&self.goal)?;
        let timeout = humantime::parse_duration(&self.timeout)
            .map_err(|error| Failed::wrong_use(format!("--timeout {}: {error}", self.timeout)))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let site = Site::new(self.http, self.token);
        let (waited, unmet) = runtime.block_on(wait(goal, &site, timeout))?;
        let mut said = Said::default();
        if self.json {
            let (met, waited_ms) = (unmet.is_none(), u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
            let told = json!({"for": self.goal, "met": met, "reason": unmet, "waited_ms": waited_ms});
            said.line(&told.to_string());
        }
        match unmet {
            None => Ok(said),
            Some(reason) => {
                say(&said.0)?;
                Err(Failed::refused(format!("not {} within {}: {reason}", self.goal, self.timeout)))
            }
        }
    }
}

/// How long it took, and why it has not come to it.
async fn wait(goal: Goal, site: &Site, timeout: Duration) -> Result<(Duration, Option<String>), Failed> {
    let begun = Instant::now();
    loop {
        let left = timeout.saturating_sub(begun.elapsed());
        let unmet = goal.unmet(site, left.clamp(LOOK_TIME_MIN, PATIENCE)).await?;
        if unmet.is_none() || timeout <= begun.elapsed() {
            return Ok((begun.elapsed(), unmet));
        }
        sleep(PERIOD).await;
    }
}

/// Why a node is not ready, or its cluster as it sees it is not.
async fn unready(site: &Site, patience: Duration) -> Result<Option<String>, Failed> {
    Ok(match look(site, patience).await? {
        Ok(cluster) => cluster.unready(),
        Err(reason) => Some(reason),
    })
}

/// The cluster of a node that serves, or why there is none to be seen.
///
/// # Errors
/// [`Failed`] when waiting would not help.
pub(super) async fn look(site: &Site, patience: Duration) -> Result<Result<Cluster, String>, Failed> {
    let health = match site.answer("/health/ready", patience).await {
        Ok(health) => health,
        Err(failed) => return Ok(Err(failed.message)),
    };
    if health.status != StatusCode::OK {
        let told: Option<Json> = serde_json::from_slice(&health.body).ok();
        let status = told.as_ref().and_then(|told| told["status"].as_str()).unwrap_or("it is not well");
        return Ok(Err(status.to_owned()));
    }
    let answer = match site.answer("/admin/cluster", patience).await {
        Ok(answer) => answer,
        Err(failed) => return Ok(Err(failed.message)),
    };
    match answer.status {
        StatusCode::OK => Ok(Ok(site.understand(&answer.body)?)),
        StatusCode::SERVICE_UNAVAILABLE => Ok(Err(site.refused(&answer).message)),
        _ => Err(site.refused(&answer)),
    }
}

impl Cluster {
    /// Why it is not ready: the node that was asked is no member, or another member is not up.
    pub(super) fn unready(&self) -> Option<String> {
        let me = &self.me;
        if self.node(me).is_none_or(|node| node.state != "member") {
            return Some(format!("{me} has no place in the layout yet"));
        }
        let members = self.nodes.iter().filter(|node| node.state == "member");
        let absent = members.filter(|node| node.liveness != "up").map(|node| &*node.name).collect::<Vec<_>>();
        if absent.is_empty() { None } else { Some(format!("{me} does not see {} up", absent.join(", "))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(nodes: &[(&str, &str, &str)]) -> Cluster {
        let node = |(name, state, liveness): &(&str, &str, &str)| {
            json!({"name": name, "address": "", "http": "", "state": state, "liveness": liveness, "zone": "",
                   "weight": 1, "share": 0.0})
        };
        let layout = json!({"number": 1, "n": 3, "r": 2, "w": 2, "copies": 1, "partitions": 16});
        let nodes: Vec<Json> = nodes.iter().map(node).collect();
        serde_json::from_value(json!({"cluster": "c", "layout": layout, "self": "n1", "nodes": nodes})).unwrap()
    }

    #[test]
    fn ready_is_a_member_that_sees_all_members_up() {
        let well = [("n1", "member", "up"), ("n2", "member", "up"), ("n3", "staged", "down")];
        assert_eq!(cluster(&well).unready(), None, "who is staged is no member");
        let staged = [("n1", "staged", "up"), ("n2", "member", "up")];
        assert_eq!(cluster(&staged).unready().unwrap(), "n1 has no place in the layout yet");
        let absent = [("n1", "member", "up"), ("n2", "member", "down"), ("n3", "member", "suspect")];
        assert_eq!(cluster(&absent).unready().unwrap(), "n1 does not see n2, n3 up");
    }

    #[test]
    fn a_goal_that_is_none_is_told_which_there_are() {
        assert_eq!(Goal::read("ready").unwrap(), Goal::Ready);
        let failed = Goal::read("readdy").unwrap_err();
        assert_eq!((failed.code, &*failed.message), (2, "--for readdy: what can be waited for is ready"));
    }
}
