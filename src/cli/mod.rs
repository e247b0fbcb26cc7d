//! SPEAKS TO PEOPLE. The command line: one subcommand a run, and what it says.
//!
//! Exit codes: 0 done, 1 not found or refused, 2 wrong use. What a command has to say goes to standard output, why it
//! could not goes to standard error. A reader that goes away (`sloop keys | head`) is no error.

mod arguments;
pub mod serve;
pub mod config;
pub mod logs;
pub mod data;
pub mod snapshot;
mod http;
mod confirm;
mod signals;
pub mod cluster;
pub mod wait;
pub mod dev;
pub mod bench;
pub mod check;
pub mod sim;
pub mod torture;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use argh::FromArgs;

/// sloop: a Dynamo-style, always-writable key-value store.
#[derive(FromArgs, Debug)]
struct Sloop {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum Command {
    Dev(dev::Dev),
    Serve(Box<config::Serve>),
    Config(config::Command),
    Put(data::Put),
    Get(data::Get),
    Del(data::Del),
    Siblings(data::Siblings),
    Keys(data::Keys),
    Dump(data::Dump),
    Load(data::Load),
    Cluster(cluster::Command),
    Wait(wait::Wait),
    Snapshot(snapshot::Command),
    Bench(Box<bench::Bench>),
    Check(check::Check),
    Sim(sim::Sim),
    Torture(torture::Torture),
}

impl Command {
    fn run(self) -> Result<Said, Failed> {
        match self {
            Command::Dev(dev) => dev.run(),
            Command::Serve(serve) => {
                if serve.ends_with_stdin() {
                    dev::end_with_stdin()?;
                }
                serve::run(serve.config().map_err(Failed::wrong_use)?)
            }
            Command::Config(config) => config.run().map_err(Failed::wrong_use),
            Command::Put(put) => put.run(),
            Command::Get(get) => get.run(),
            Command::Del(del) => del.run(),
            Command::Siblings(siblings) => siblings.run(),
            Command::Keys(keys) => keys.run(),
            Command::Dump(dump) => dump.run(),
            Command::Load(load) => load.run(),
            Command::Cluster(cluster) => cluster.run(),
            Command::Wait(wait) => wait.run(),
            Command::Snapshot(snapshot) => snapshot.run(),
            Command::Bench(bench) => bench.run(),
            Command::Check(check) => check.run(),
            Command::Sim(sim) => sim.run(),
            Command::Torture(torture) => torture.run(),
        }
    }
}

/// What a command says on standard output once it is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said(Vec<u8>);

impl Said {
    /// Says one more line.
    pub fn line(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'\n');
    }

    /// Says bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// Why a command could not do it, and the exit code for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    message: String,
    code: u8,
}

impl Failed {
    /// Not found, or refused.
    pub fn refused(message: impl fmt::Display) -> Failed {
        Failed { message: message.to_string(), code: 1 }
    }

    /// The command line cannot be meant like that.
    pub fn wrong_use(message: impl fmt::Display) -> Failed {
        Failed { message: message.to_string(), code: 2 }
    }
}

/// An error of any area below, with its causes.
impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Failed {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(deeper) = cause {
            let text = deeper.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = deeper.source();
        }
        Failed::refused(message)
    }
}

/// Runs one command line, the program's name first.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match arguments::read::<Sloop>(arguments) {
        arguments::Read::Run(sloop) => end(sloop.command.run()),
        arguments::Read::Say(text) => end(Ok(Said(text.into_bytes()))),
        arguments::Read::Wrong(text) => end(Err(Failed::wrong_use(text))),
    }
}

fn end(result: Result<Said, Failed>) -> ExitCode {
    let failed = match result.map(|said| say(&said.0)) {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(error)) => Failed::refused(format!("standard output: {error}")),
        Err(failed) => failed,
    };
    // Nobody is left to be told when this fails too.
    let _ = writeln!(io::stderr(), "sloop: {}", failed.message.trim_end());
    ExitCode::from(failed.code)
}

/// Writes to standard output. A reader that has gone away wants no more, which is no error.
///
/// # Errors
/// What the system says, a broken pipe excepted.
pub fn say(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        end => end,
    }
}
