//! Servers that can be compared: how each is started, and in which words it is asked.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value as Json;
use sloop::lab::driver::{self, Plan, Running};
use sloop::lab::sloop::Sloop;
use sloop::lab::workload::Source;
use sloop::wire::hello::Token;

use crate::etcd::Etcd;
use crate::http;
use crate::resp::Resp;

/// Where one node lives.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its directory, which exists.
    pub home: PathBuf,
    /// Where it takes requests.
    pub address: SocketAddr,
    /// Another address for what else it has to listen to.
    pub aside: SocketAddr,
}

/// A server that keeps keys durably. Another one to compare with is one more of these.
pub trait Peer {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Nodes that it has.
    fn nodes(&self) -> usize;

    /// What starts node `at` of those in `places` in the foreground, durable before it answers, with all its files in
    /// its directory.
    fn command(&self, places: &[Place], at: usize) -> Command;

    /// Whether those that have been `started` are so far that the next can be; when all have been, whether each takes
    /// requests.
    ///
    /// # Errors
    /// Why not, in a sentence.
    fn probe(&self, started: &[Place]) -> Result<(), String>;

    /// Starts asking it.
    ///
    /// # Errors
    /// What the system says.
    fn drive(&self, plan: &Plan, sources: Vec<Source>) -> io::Result<Running>;
}

/// Ourselves.
#[derive(Clone, Debug)]
pub struct SloopPeer {
    /// The binary.
    pub binary: PathBuf,
    /// Data cores of each node.
    pub cores: usize,
    /// Nodes.
    pub nodes: usize,
}

/// Redis, one node, with every write synced before its reply and no snapshots beside the log.
#[derive(Clone, Copy, Debug)]
pub struct Redis;

/// etcd with what it does by itself: a write is synced by a majority before its reply, a read is linearizable.
#[derive(Clone, Copy, Debug)]
pub struct EtcdPeer {
    /// Members.
    pub nodes: usize,
}

impl Peer for SloopPeer {
    fn name(&self) -> &'static str {
        "sloop"
    }

    fn nodes(&self) -> usize {
        self.nodes
    }

    fn command(&self, places: &[Place], at: usize) -> Command {
        let Place { home, address, aside } = &places[at];
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--name", &node_name(at), "--log-level", "warn", "--cores", &self.cores.to_string()]);
        command.args(["--listen", &address.to_string(), "--http", &aside.to_string()]);
        command.arg("--data-dir").arg(home.join("data"));
        if self.nodes > 1 {
            // Each node by itself would choose the same CPUs.
            command.args(["--pin", "false"]);
        }
        if at > 0 {
            command.args(["--join", &places[0].address.to_string()]);
        }
        quiet(command, home)
    }

    fn probe(&self, started: &[Place]) -> Result<(), String> {
        for place in started {
            driver::probe(place.address, &dialect())?;
            http::get(place.aside, "/health/ready")?;
        }
        if self.nodes == 1 { Ok(()) } else { started.iter().try_for_each(|place| sees(place, started.len())) }
    }

    fn drive(&self, plan: &Plan, sources: Vec<Source>) -> io::Result<Running> {
        driver::start(plan, sources, &dialect())
    }
}

/// Whether a node sees so many that are up.
fn sees(place: &Place, nodes: usize) -> Result<(), String> {
    let answer = http::get(place.aside, "/admin/cluster")?;
    match nodes_up(&answer) {
        Some(up) if up == nodes => Ok(()),
        _ => Err(format!("/admin/cluster: {nodes} nodes are started, and it says {answer}")),
    }
}

/// Members of the layout that are up, of what `/admin/cluster` says.
fn nodes_up(answer: &str) -> Option<usize> {
    let cluster: Json = serde_json::from_str(answer).ok()?;
    cluster["layout"]["number"].as_u64()?;
    let is_up = |node: &&Json| node["state"] == "member" && node["liveness"] == "up";
    Some(cluster["nodes"].as_array()?.iter().filter(is_up).count())
}

/// Of the node with this index, as other parts of a cluster know it.
fn node_name(at: usize) -> String {
    format!("n{}", at + 1)
}

fn dialect() -> Sloop {
    Sloop::new(Token::default())
}

impl Peer for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn nodes(&self) -> usize {
        1
    }

    fn command(&self, places: &[Place], at: usize) -> Command {
        let Place { home, address, .. } = &places[at];
        let mut command = Command::new("redis-server");
        command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]).arg("--dir").arg(home);
        quiet(command, home)
    }

    fn probe(&self, started: &[Place]) -> Result<(), String> {
        started.iter().try_for_each(|place| driver::probe(place.address, &Resp::default()))
    }

    fn drive(&self, plan: &Plan, sources: Vec<Source>) -> io::Result<Running> {
        driver::start(plan, sources, &Resp::default())
    }
}

/// Beyond this an etcd takes no more writes; its default of 2 GiB would end a long comparison, as nothing is compacted.
const ETCD_QUOTA_BYTES: u64 = 8 << 30;

impl Peer for EtcdPeer {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn nodes(&self) -> usize {
        self.nodes
    }

    fn command(&self, places: &[Place], at: usize) -> Command {
        let Place { home, address, aside } = &places[at];
        let (clients, members) = (format!("http://{address}"), format!("http://{aside}"));
        let member = |(at, place): (usize, &Place)| format!("{}=http://{}", node_name(at), place.aside);
        let cluster: Vec<String> = places.iter().enumerate().map(member).collect();
        let mut command = Command::new("etcd");
        command.args(["--name", &node_name(at)]).arg("--data-dir").arg(home.join("data"));
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--listen-peer-urls", &members, "--initial-advertise-peer-urls", &members]);
        command.args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"]);
        command.args(["--quota-backend-bytes", &ETCD_QUOTA_BYTES.to_string()]);
        command.args(["--logger", "zap", "--log-level", "error"]);
        quiet(command, home)
    }

    /// None is well before a majority runs. Each then says so after a read that is linearizable.
    fn probe(&self, started: &[Place]) -> Result<(), String> {
        if started.len() < self.nodes {
            return Ok(());
        }
        for place in started {
            driver::probe(place.address, &Etcd::new())?;
            let health = http::get(place.address, "/health")?;
            if !health.contains("\"true\"") {
                return Err(format!("/health: {health}"));
            }
        }
        Ok(())
    }

    fn drive(&self, plan: &Plan, sources: Vec<Source>) -> io::Result<Running> {
        driver::start(plan, sources, &Etcd::new())
    }
}

/// What a server says is of interest only when it does not start, and then it is short.
fn quiet(mut command: Command, home: &Path) -> Command {
    command.current_dir(home).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_as_large_as_its_nodes_that_are_up() {
        let node = r#"{"name":"n1","state":"member","liveness":"up"}"#;
        let answer = format!(r#"{{"layout":{{"number":3}},"nodes":[{node},{node}]}}"#);
        assert_eq!(nodes_up(&answer), Some(2));
        assert_eq!(nodes_up(&answer.replacen("up", "down", 1)), Some(1));
        assert_eq!(nodes_up(&answer.replacen("member", "staged", 1)), Some(1));
        assert_eq!(nodes_up(r#"{"nodes":[]}"#), None);
        assert_eq!(nodes_up("busy"), None);
    }

    #[test]
    fn each_node_of_a_cluster_is_told_how_to_find_the_others() {
        let place = |port| Place {
            home: PathBuf::from("/nowhere"),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            aside: SocketAddr::from(([127, 0, 0, 1], port + 1)),
        };
        let places = [place(10), place(20), place(30)];
        let line = |command: Command| format!("{command:?}").replace('"', "");
        let etcd = line(EtcdPeer { nodes: 3 }.command(&places, 1));
        let all = "--initial-cluster n1=http://127.0.0.1:11,n2=http://127.0.0.1:21,n3=http://127.0.0.1:31 ";
        assert!(etcd.contains("--name n2 ") && etcd.contains(all), "{etcd}");

        let sloop = SloopPeer { binary: PathBuf::from("sloop"), cores: 1, nodes: 3 };
        assert!(!line(sloop.command(&places, 0)).contains("--join"));
        assert!(line(sloop.command(&places, 2)).contains("--join 127.0.0.1:10"));
    }
}
