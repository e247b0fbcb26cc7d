//! `sloop dev`: a cluster of real nodes on this machine, in one command.
//!
//! Each node is a process of this binary with its own ports and its own directory below `--data-dir`. The nodes stand
//! in process groups of their own, so that Ctrl-C reaches `sloop dev` alone, which then stops them one and all; and
//! each stops by itself when its standard input ends, which it does however `sloop dev` came to its end.

mod plan;
mod nodes;
mod words;

use std::io;
use std::time::Duration;

use argh::FromArgs;
use rustix::process::{Signal, getpid, kill_process};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

use self::nodes::{Ended, Nodes};
use self::plan::{Plan, Planned};
use super::cluster::Cluster;
use super::http::{PATIENCE, Site};
use super::signals::Stop;
use super::{Failed, Said, say};

/// Time between two looks at nodes that start.
const PERIOD: Duration = Duration::from_millis(100);

/// So often it is said what a cluster that is not ready yet waits for.
const WORD_PERIOD: Duration = Duration::from_secs(5);

/// Run a cluster of several nodes on this machine, to try sloop out. Ctrl-C stops all of them; the same command starts
/// them again on the same data.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "dev")]
pub struct Dev {
    /// nodes: n1, n2 and so on (as many as there were, or 3)
    #[argh(option)]
    nodes: Option<u16>,
    /// n1 listens on this port for clients and on the next one for HTTP, n2 on ports 10 higher, and so on (7600)
    #[argh(option, default = "7600")]
    base_port: u16,
    /// where the nodes keep their data, each in a directory of its own (./sloop-dev)
    #[argh(option, default = "String::from(\"./sloop-dev\")")]
    data_dir: String,
    /// data cores of each node (1)
    #[argh(option, default = "String::from(\"1\")")]
    cores: String,
    /// whether each data core stays on one CPU: true or false (false)
    #[argh(option, default = "String::from(\"false\")")]
    pin: String,
    /// memory of each node (256MiB for each core)
    #[argh(option)]
    memory: Option<String>,
    /// what the nodes log: error, warn, info, debug or trace; also by module (info)
    #[argh(option, default = "String::from(\"info\")")]
    log_level: String,
}

/// What ends the wait for a cluster that starts.
enum Start {
    Ready(Box<Cluster>),
    Ended(Ended),
    Signalled,
}

impl Dev {
    /// # Errors
    /// [`Failed`] when the nodes cannot start, all of them have ended, or one did not stop cleanly.
    pub fn run(self) -> Result<Said, Failed> {
        let plan = Plan::of(self)?;
        plan.check_ports()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(Supervisor::begin(plan)?.work())
    }
}

/// Makes the end of standard input what SIGTERM is, from now on.
///
/// # Errors
/// When there can be no thread for it.
pub fn end_with_stdin() -> io::Result<()> {
    let wait = || {
        // An error ends the input as well.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        // This process is there, and may signal itself.
        let _ = kill_process(getpid(), Signal::TERM);
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(wait)?;
    Ok(())
}

/// Looks after the nodes.
struct Supervisor {
    plan: Plan,
}

impl Supervisor {
    fn begin(plan: Plan) -> Result<Supervisor, Failed> {
        std::fs::create_dir_all(&plan.data_dir)
            .map_err(|error| Failed::refused(format!("{}: {error}", plan.data_dir.display())))?;
        Ok(Supervisor { plan })
    }

    async fn work(self) -> Result<Said, Failed> {
        let mut stop = Stop::here()?;
        let mut nodes = Nodes::start(&self.plan)?;
        let start = tokio::select! {
            ready = self.ready() => Start::Ready(Box::new(ready?)),
            ended = nodes.next_end() => Start::Ended(ended),
            () = stop.comes() => Start::Signalled,
        };
        match start {
            Start::Ready(cluster) => say(words::ready(&self.plan, &cluster, &nodes).as_bytes())?,
            Start::Signalled => return self.stop(nodes, stop).await,
            Start::Ended(Ended { at, how, .. }) => {
                let name = self.plan.nodes[at].name.clone();
                // What comes of the others follows from this.
                let _ = self.stop(nodes, stop).await;
                return Err(Failed::refused(format!("{name} did not start ({how}): what it said stands above")));
            }
        }
        loop {
            tokio::select! {
                Ended { at, how, .. } = nodes.next_end() => {
                    say(words::ended(&self.plan, at, &how).as_bytes())?;
                    if nodes.running() == 0 {
                        return Err(Failed::refused("all nodes have ended"));
                    }
                }
                () = stop.comes() => return self.stop(nodes, stop).await,
            }
        }
    }

    /// Waits until every node serves and is a member, and all see each other; where the cluster holds data already, a
    /// node that is new has fetched its share by then.
    ///
    /// # Errors
    /// When a node refuses to say how it is: waiting would not help.
    async fn ready(&self) -> Result<Cluster, Failed> {
        let mut word_at = Instant::now() + WORD_PERIOD;
        loop {
            let mut waits_for = None;
            let mut seen = None;
            for node in &self.plan.nodes {
                match self.unready(node).await? {
                    Ok(cluster) => seen = seen.or(Some(cluster)),
                    Err(reason) => waits_for = waits_for.or(Some(reason)),
                }
            }
            match (waits_for, seen) {
                (None, Some(cluster)) => return Ok(cluster),
                (Some(reason), _) if word_at <= Instant::now() => {
                    say(format!("waiting: {reason}\n").as_bytes())?;
                    word_at += WORD_PERIOD;
                }
                _ => {}
            }
            sleep(PERIOD).await;
        }
    }

    /// What a node sees, or why it is not ready.
    async fn unready(&self, node: &Planned) -> Result<Result<Cluster, String>, Failed> {
        let site = Site { address: node.http.to_string(), token: self.plan.token.clone() };
        let cluster = match super::wait::look(&site, PATIENCE).await? {
            Ok(cluster) => cluster,
            Err(reason) => return Ok(Err(format!("{}: {reason}", node.name))),
        };
        let lacks = |other: &&Planned| cluster.node(&other.name).is_none_or(|seen| seen.state != "member");
        Ok(match self.plan.nodes.iter().find(lacks) {
            Some(absent) => Err(format!("{} does not see {} in the layout yet", node.name, absent.name)),
            None => cluster.unready().map_or(Ok(cluster), Err),
        })
    }

    /// Stops all nodes that run; a second signal ends them at once.
    async fn stop(&self, mut nodes: Nodes, mut stop: Stop) -> Result<Said, Failed> {
        nodes.stop();
        let mut unclean = vec![];
        while 0 < nodes.running() {
            tokio::select! {
                Ended { at, how, is_clean } = nodes.next_end() => {
                    if !is_clean {
                        unclean.push(format!("{} ({how})", self.plan.nodes[at].name));
                    }
                }
                () = stop.comes() => nodes.kill(),
            }
        }
        nodes.last_words().await;
        if !unclean.is_empty() {
            return Err(Failed::refused(format!("not stopped cleanly: {}", unclean.join(", "))));
        }
        let mut said = Said::default();
        said.line("all nodes have stopped");
        Ok(said)
    }
}
