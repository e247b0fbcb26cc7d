//! Servers that can be compared: how each is started, and in which words it is asked.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sloop::lab::driver::{self, Plan, Running};
use sloop::lab::sloop::Sloop;
use sloop::lab::workload::Source;
use sloop::wire::hello::Token;

use crate::resp::Resp;

/// A server that keeps keys durably. Another one to compare with is one more of these.
pub trait Peer {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// What starts it in the foreground, durable before it answers, with all its files below `home`.
    fn command(&self, home: &Path, address: SocketAddr) -> Command;

    /// Whether it takes requests, and why not.
    ///
    /// # Errors
    /// Why not, in a sentence.
    fn probe(&self, address: SocketAddr) -> Result<(), String>;

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
    /// Data cores.
    pub cores: usize,
}

/// Redis, with every write synced before its reply and no snapshots beside the log.
#[derive(Clone, Copy, Debug)]
pub struct Redis;

impl Peer for SloopPeer {
    fn name(&self) -> &'static str {
        "sloop"
    }

    fn command(&self, home: &Path, address: SocketAddr) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--http", "127.0.0.1:0", "--log-level", "warn", "--cores", &self.cores.to_string()]);
        command.args(["--listen", &address.to_string()]).arg("--data-dir").arg(home.join("data"));
        quiet(command, home)
    }

    fn probe(&self, address: SocketAddr) -> Result<(), String> {
        driver::probe(address, &dialect())
    }

    fn drive(&self, plan: &Plan, sources: Vec<Source>) -> io::Result<Running> {
        driver::start(plan, sources, &dialect())
    }
}

fn dialect() -> Sloop {
    Sloop::new(Token::default())
}

impl Peer for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn command(&self, home: &Path, address: SocketAddr) -> Command {
        let mut command = Command::new("redis-server");
        command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]).arg("--dir").arg(home);
        quiet(command, home)
    }

    fn probe(&self, address: SocketAddr) -> Result<(), String> {
        driver::probe(address, &Resp::default())
    }

    fn drive(&self, plan: &Plan, sources: Vec<Source>) -> io::Result<Running> {
        driver::start(plan, sources, &Resp::default())
    }
}

/// What a server says is of interest only when it does not start, and then it is short.
fn quiet(mut command: Command, home: &Path) -> Command {
    command.current_dir(home).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    command
}
