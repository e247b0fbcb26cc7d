//! Coming to rest: nobody does anything, everything is repaired, and every node says what is there.

use std::time::Duration;

use serde_json::Value as Json;

use super::trial::{LOOK, Result, Trial, Trouble};

/// Time in which everything must come to rest when nothing happens any more.
pub(super) const REST_MAX: Duration = Duration::from_secs(120);

impl Trial<'_> {
    /// No accident, no client: waits until nothing is left to deliver, to move, to clear up or to repair, then reads
    /// all keys through every node. Accidents stay away.
    pub(super) async fn come_to_rest(&self) -> Result<()> {
        self.calm().await;
        let resting = self.crowd.borrow().as_ref().map(super::crowd::Crowd::rest);
        if let Some(resting) = resting {
            resting.await;
        }
        self.settle().await?;
        self.wait("converged").await?;
        let reading = self.record.borrow_mut().read_all(&self.addresses());
        if let Err(unread) = reading.await {
            return Err(Trouble::Broken(format!("all is at rest, and {unread}")));
        }
        self.rests.set(self.rests.get() + 1);
        self.log.line("everything has come to rest and was read")?;
        self.look()
    }

    /// Clients and accidents go on.
    pub(super) fn go_on(&self) {
        self.is_calm.set(false);
        self.crowd.borrow().iter().for_each(super::crowd::Crowd::go_on);
    }

    /// Waits until every node is a member and sees all others up.
    pub(super) async fn settle(&self) -> Result<()> {
        let begun = self.log.time();
        loop {
            let reason = match self.unsettled().await? {
                None => return Ok(()),
                Some(reason) => reason,
            };
            if REST_MAX < self.log.time() - begun {
                return Err(Trouble::Broken(format!("the nodes have not found each other in {REST_MAX:?}: {reason}")));
            }
            self.pass(LOOK).await;
        }
    }

    /// Why some node does not see all that are there as members that are up.
    async fn unsettled(&self) -> Result<Option<String>> {
        self.look()?;
        let present = self.which(|berth| berth.is_free());
        for &at in &present {
            let name = self.fleet.borrow().name(at);
            let cluster = match self.cluster(at).await? {
                Ok(cluster) => cluster,
                Err(why) => return Ok(Some(format!("{name}: {why}"))),
            };
            for &other in &present {
                let other = self.fleet.borrow().name(other);
                let node = node(&cluster, &other);
                if node.is_none_or(|node| node["state"] != "member" || node["liveness"] != "up") {
                    return Ok(Some(format!("{name} does not see {other} up in the layout")));
                }
            }
        }
        Ok(None)
    }

    /// Waits until every node says that it has come to this.
    async fn wait(&self, goal: &str) -> Result<()> {
        let timeout = format!("{}s", REST_MAX.as_secs());
        let arguments = ["wait", "--for", goal, "--timeout", &timeout];
        let waits: Vec<_> = {
            let fleet = self.fleet.borrow();
            fleet.which(|berth| berth.is_free()).into_iter().map(|at| (at, fleet.sloop(at, &arguments))).collect()
        };
        let mut outputs = tokio::task::JoinSet::new();
        for (at, mut command) in waits {
            outputs.spawn(async move { (at, command.output().await) });
        }
        while let Some(output) = outputs.join_next().await {
            let (at, output) = output.map_err(std::io::Error::other)?;
            if let Err(why) = super::fleet::answer(&output?) {
                let name = self.fleet.borrow().name(at);
                return Err(Trouble::Broken(format!("nothing happens any more, and as {name} sees it: {why}")));
            }
        }
        Ok(())
    }

    /// How the cluster looks from this node, or why it does not say.
    pub(super) async fn cluster(&self, at: usize) -> Result<std::result::Result<Json, String>> {
        self.json(at, &["cluster", "status", "--json"]).await
    }

    /// What is staged as this node knows it, or why it does not say.
    pub(super) async fn staged(&self, at: usize) -> Result<std::result::Result<Json, String>> {
        self.json(at, &["cluster", "plan", "--json"]).await
    }

    async fn json(&self, at: usize, arguments: &[&str]) -> Result<std::result::Result<Json, String>> {
        let said = self.sloop(at, arguments).await?;
        Ok(said.and_then(|text| serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))))
    }
}

/// The row of a node.
pub(super) fn node<'a>(cluster: &'a Json, name: &str) -> Option<&'a Json> {
    rows(cluster).find(|node| node["name"] == name)
}

/// The rows of all nodes.
pub(super) fn rows(cluster: &Json) -> impl Iterator<Item = &Json> {
    cluster["nodes"].as_array().into_iter().flatten()
}
