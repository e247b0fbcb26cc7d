//! The processes of the nodes, and what they say.

use std::io::{self, IsTerminal, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::plan::{Plan, VARIABLES_DROPPED};
use crate::cli::Failed;

/// Colours of names on a terminal, in turn: none is read as a warning.
const COLOURS: [u8; 5] = [36, 32, 35, 34, 96];

/// How a node has ended.
pub(super) struct Ended {
    /// Which, in the order of the plan.
    pub(super) at: usize,
    /// Its exit status in words.
    pub(super) how: String,
    /// Whether it ended as one that was told to stop. Before it serves, SIGTERM ends it by itself.
    pub(super) is_clean: bool,
}

/// Nodes that were started.
pub(super) struct Nodes {
    /// Process ids, in the order of the plan.
    pids: Vec<u32>,
    /// A node whose standard input ends stops.
    inputs: Vec<ChildStdin>,
    ends: JoinSet<(usize, io::Result<ExitStatus>)>,
    lines: JoinSet<()>,
    /// Whether all are to end at once.
    kill: watch::Sender<bool>,
}

impl Nodes {
    /// Starts all nodes of a plan. Polled on a runtime.
    pub(super) fn start(plan: &Plan) -> Result<Nodes, Failed> {
        let binary = std::env::current_exe()?;
        let is_coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let width = plan.nodes.iter().map(|node| node.name.len()).max().unwrap_or(0);
        let mut nodes = Nodes {
            pids: vec![],
            inputs: vec![],
            ends: JoinSet::new(),
            lines: JoinSet::new(),
            kill: watch::Sender::new(false),
        };
        for (at, node) in plan.nodes.iter().enumerate() {
            let mut command = Command::new(&binary);
            command.args(plan.arguments(at)).arg("--end-with-stdin").process_group(0).kill_on_drop(true);
            VARIABLES_DROPPED.iter().for_each(|name| {
                command.env_remove(name);
            });
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn()?;
            let colour = is_coloured.then(|| COLOURS[at % COLOURS.len()]);
            let prefix = prefix(&format!("{:<width$}", node.name), colour);
            nodes.lines.spawn(pass_on(prefix.clone(), child.stdout.take().expect("piped")));
            nodes.lines.spawn(pass_on(prefix, child.stderr.take().expect("piped")));
            nodes.inputs.push(child.stdin.take().expect("piped"));
            nodes.pids.push(child.id().expect("nobody has waited for it"));
            nodes.ends.spawn(attend(at, child, nodes.kill.subscribe()));
        }
        Ok(nodes)
    }

    /// The process of a node.
    pub(super) fn pid(&self, at: usize) -> u32 {
        self.pids[at]
    }

    /// How many have not ended, as far as was heard.
    pub(super) fn running(&self) -> usize {
        self.ends.len()
    }

    /// The next node that ends, and how. Waits for ever where none is left.
    pub(super) async fn next_end(&mut self) -> Ended {
        let Some(ended) = self.ends.join_next().await else {
            return std::future::pending().await;
        };
        match ended.expect("no task here panics") {
            (at, Ok(status)) => {
                let is_clean = status.success() || status.signal() == Some(Signal::TERM.as_raw());
                Ended { at, how: status.to_string(), is_clean }
            }
            (at, Err(error)) => Ended { at, how: error.to_string(), is_clean: false },
        }
    }

    /// Lets all nodes end what is under way, and stop.
    pub(super) fn stop(&mut self) {
        self.inputs.clear();
    }

    /// Ends all nodes at once.
    pub(super) fn kill(&self) {
        self.kill.send_replace(true);
    }

    /// Waits until all that was said is passed on. Nobody says more: all have ended.
    pub(super) async fn last_words(&mut self) {
        while self.lines.join_next().await.is_some() {}
    }
}

async fn attend(at: usize, mut child: Child, mut kill: watch::Receiver<bool>) -> (usize, io::Result<ExitStatus>) {
    tokio::select! {
        status = child.wait() => return (at, status),
        _ = kill.wait_for(|kill| *kill) => {}
    }
    // It may have ended this moment.
    let _ = child.start_kill();
    (at, child.wait().await)
}

fn prefix(name: &str, colour: Option<u8>) -> String {
    match colour {
        Some(colour) => format!("\x1b[{colour}m{name} |\x1b[0m "),
        None => format!("{name} | "),
    }
}

/// Says on standard error what a node says, line by line.
async fn pass_on(prefix: String, from: impl AsyncRead + Unpin) {
    let mut from = BufReader::new(from);
    let mut line = prefix.clone().into_bytes();
    while let Ok(1..) = from.read_until(b'\n', &mut line).await {
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        // Nobody is left to be told when this fails.
        let _ = io::stderr().write_all(&line);
        line.truncate(prefix.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_coloured_on_terminals_only() {
        assert_eq!(prefix("n1", None), "n1 | ");
        assert_eq!(prefix("n1", Some(36)), "\x1b[36mn1 |\x1b[0m ");
    }
}
