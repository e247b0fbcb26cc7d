//! `sloop wait`: until a node and its cluster have come to a state, or the time is over.

use std::time::Duration;

use argh::FromArgs;
use hyper::StatusCode;
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, Node};
use super::http::{PATIENCE, Site};
use super::{Failed, Said, say};

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(100);

/// A look is given this much at least, however little time is left: a node waits for others for a second.
const LOOK_TIME_MIN: Duration = Duration::from_millis(1_500);

/// What a node tells may be this old: an agreement must be younger by as much to count as one of the wait.
const STALE_MAX: Duration = Duration::from_millis(250);

/// Wait until a node and its cluster have come to a state: exit code 0 when they have, 1 when they have not in time.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "wait")]
pub struct Wait {
    /// what to wait for: ready (the node serves, has its place in the layout, and sees all members up); converged (no
    /// change is under way, and all nodes that answer have delivered what they keep for others and have found, since
    /// the wait began, that they hold the same as the other owners); no-transfers (no change is under way)
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
    Converged,
    NoTransfers,
}

impl Goal {
    /// All of them, by name.
    const ALL: [(&str, Goal); 3] =
        [("ready", Goal::Ready), ("converged", Goal::Converged), ("no-transfers", Goal::NoTransfers)];

    fn read(text: &str) -> Result<Goal, Failed> {
        let known = Goal::ALL.iter().find(|(name, _)| *name == text).map(|(_, goal)| *goal);
        let names = Goal::ALL.map(|(name, _)| name).join(", ");
        known.ok_or_else(|| Failed::wrong_use(format!("--for {text}: what can be waited for is {names}")))
    }

    /// Why it is not reached yet; nothing when it is.
    ///
    /// # Errors
    /// [`Failed`] when waiting would not help.
    async fn unmet(self, site: &Site, begun: Instant, patience: Duration) -> Result<Option<String>, Failed> {
        let cluster = match look(site, patience).await? {
            Ok(cluster) => cluster,
            Err(reason) => return Ok(Some(reason)),
        };
        Ok(match self {
            Goal::Ready => cluster.unready(),
            Goal::Converged => cluster.unconverged(begun.elapsed()),
            Goal::NoTransfers => cluster.transferring(),
        })
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
        let site = Site::new(self.http, self.token)?;
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
        let unmet = goal.unmet(site, begun, left.clamp(LOOK_TIME_MIN, PATIENCE)).await?;
        if unmet.is_none() || timeout <= begun.elapsed() {
            return Ok((begun.elapsed(), unmet));
        }
        sleep(PERIOD).await;
    }
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
        match self.node(me) {
            Some(node) if node.state == "member" => {}
            Some(node) if node.state == "staged" => return Some(self.staged(node)),
            _ => return Some(format!("{me} has no place in the layout")),
        }
        let members = self.nodes.iter().filter(|node| node.state == "member");
        let absent = members.filter(|node| node.liveness != "up").map(|node| &*node.name).collect::<Vec<_>>();
        if absent.is_empty() { None } else { Some(format!("{me} does not see {} up", absent.join(", "))) }
    }

    /// Why data is still moved from owner to owner.
    fn transferring(&self) -> Option<String> {
        if let Some(change) = &self.change {
            return Some(format!("a change to layout {} is under way ({})", change.to.number, change.step));
        }
        let busy = |node: &&Node| node.transfers_left.is_some_and(|left| 0 < left);
        self.nodes.iter().find(busy).map(|node| format!("{} has not fetched all that it owns", node.name))
    }

    /// Why the nodes that answer may not hold the same yet. What was agreed before the wait does not count.
    fn unconverged(&self, waited: Duration) -> Option<String> {
        self.transferring().or_else(|| {
            let answering = self.nodes.iter().filter(|node| node.hints.is_some());
            answering.filter_map(|node| node.unconverged(waited, 1 < self.layout.copies)).next()
        })
    }
}

impl Node {
    fn unconverged(&self, waited: Duration, is_shared: bool) -> Option<String> {
        let name = &self.name;
        let some = |count: Option<u64>| count.filter(|count| 0 < *count);
        let is_fresh = |millis| Duration::from_millis(millis) + STALE_MAX < waited;
        if self.state == "leaving" {
            Some(format!("{name} is leaving, and has not handed over all that it holds"))
        } else if let Some(hints) = some(self.hints) {
            Some(format!("{name} keeps {hints} hints for others"))
        } else if let Some(leftovers) = some(self.leftovers) {
            Some(format!("{name} holds keys of {leftovers} partitions that others own"))
        } else if let Some(differing) = some(self.differing) {
            Some(format!("{name} differs from other owners in {differing} partitions"))
        } else if is_shared && self.state == "member" && !self.agreed_age_ms.is_some_and(is_fresh) {
            Some(format!("{name} has not found everything equal since the wait began"))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(nodes: &[(&str, &str, &str)]) -> Cluster {
        let node = |(name, state, liveness): &(&str, &str, &str)| {
            json!({"name": name, "address": "", "http": "", "state": state, "liveness": liveness, "zone": "",
                   "weight": 1, "partitions": 16, "share": 0.0})
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
        assert!(cluster(&staged).unready().unwrap().starts_with("n1 has joined and gets its share"));
        assert_eq!(cluster(&[("n2", "member", "up")]).unready().unwrap(), "n1 has no place in the layout");
        let absent = [("n1", "member", "up"), ("n2", "member", "down"), ("n3", "member", "suspect")];
        assert_eq!(cluster(&absent).unready().unwrap(), "n1 does not see n2, n3 up");
    }

    /// Two members that agreed 3 s ago.
    fn converged() -> Cluster {
        let mut cluster = cluster(&[("n1", "member", "up"), ("n2", "member", "up"), ("n3", "member", "down")]);
        cluster.layout.copies = 3;
        for node in &mut cluster.nodes[..2] {
            (node.hints, node.leftovers, node.differing, node.agreed_age_ms) = (Some(0), Some(0), Some(0), Some(3_000));
        }
        cluster
    }

    #[test]
    fn converged_is_a_full_agreement_since_the_wait_began_with_nothing_left_to_deliver() {
        let waited = Duration::from_secs(4);
        assert_eq!(converged().unconverged(waited), None, "who does not answer is not asked");
        let earlier = converged().unconverged(Duration::from_secs(3)).unwrap();
        assert_eq!(earlier, "n1 has not found everything equal since the wait began");
        let unmet = |change: fn(&mut Cluster)| {
            let mut cluster = converged();
            change(&mut cluster);
            cluster.unconverged(waited).unwrap()
        };
        assert_eq!(unmet(|cluster| cluster.nodes[1].hints = Some(5)), "n2 keeps 5 hints for others");
        let leftovers = unmet(|cluster| cluster.nodes[1].leftovers = Some(2));
        assert_eq!(leftovers, "n2 holds keys of 2 partitions that others own");
        let differing = unmet(|cluster| cluster.nodes[0].differing = Some(1));
        assert_eq!(differing, "n1 differs from other owners in 1 partitions");
        let leaving = unmet(|cluster| cluster.nodes[1].state = "leaving".to_owned());
        assert!(leaving.starts_with("n2 is leaving"), "{leaving}");
        assert!(unmet(|cluster| cluster.nodes[1].agreed_age_ms = None).starts_with("n2 has not found"));
        let mut alone = converged();
        (alone.layout.copies, alone.nodes[0].agreed_age_ms, alone.nodes[1].agreed_age_ms) = (1, None, None);
        assert_eq!(alone.unconverged(waited), None, "with one copy there is nobody to agree with");
    }

    #[test]
    fn transfers_end_with_the_change_and_its_last_fetch() {
        let mut cluster = converged();
        assert_eq!(cluster.transferring(), None);
        cluster.nodes[0].transfers_left = Some(3);
        assert_eq!(cluster.transferring().unwrap(), "n1 has not fetched all that it owns");
        cluster.change = serde_json::from_value(json!({"to": {"number": 4}, "step": "hold"})).unwrap();
        assert_eq!(cluster.transferring().unwrap(), "a change to layout 4 is under way (hold)");
        assert_eq!(cluster.unconverged(Duration::from_secs(9)), cluster.transferring());
    }

    #[test]
    fn a_goal_that_is_none_is_told_which_there_are() {
        assert_eq!(Goal::read("ready").unwrap(), Goal::Ready);
        let failed = Goal::read("readdy").unwrap_err();
        assert_eq!(
            (failed.code, &*failed.message),
            (2, "--for readdy: what can be waited for is ready, converged, no-transfers")
        );
    }
}
