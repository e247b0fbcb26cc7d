//! The processes of a cluster that is tortured: each at a place of its own, behind a proxy, with its own directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::links::Network;
use super::place::Place;
use super::proxy::{Delays, Proxy};
use crate::lab::workload::Random;

/// Settings of all nodes: many on one machine, that find differences soon and forget deletions within a short run,
/// though not before every retry of a call has ended.
const SETTINGS: [&str; 14] = [
    "--cores",
    "1",
    "--pin",
    "false",
    "--memory",
    "96MiB",
    "--compare-period",
    "1s",
    "--tombstone-age",
    "30s",
    "--log-level",
    "info",
    "--cluster-secret",
    "torture",
];

/// Time for a node that was told to stop.
const STOP_MAX: Duration = Duration::from_secs(60);

/// Bytes of a log's end that are shown of a node that ended by itself.
const LAST_WORDS: u64 = 1_500;

/// What is expected of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It serves, or is on its way to that.
    Present,
    /// It hands over what it holds, and may end then.
    Leaving,
    /// It has left, or was removed.
    Gone,
}

/// One node, its disk and its way to the others.
#[derive(Debug)]
pub(super) struct Berth {
    pub(super) name: String,
    pub(super) standing: Standing,
    /// Whether somebody does something to its process, and nobody else may.
    pub(super) is_claimed: bool,
    place: Place,
    proxy: Proxy,
    /// None while it is down.
    process: Option<Child>,
}

/// All nodes there ever were, by number.
#[derive(Debug)]
pub(super) struct Fleet {
    program: PathBuf,
    folder: PathBuf,
    pub(super) network: Network,
    berths: Vec<Berth>,
    random: Random,
}

impl Fleet {
    /// Nobody yet. Nodes run this program, and keep their data and logs in this folder.
    pub(super) fn new(program: &Path, folder: &Path, random: Random) -> Fleet {
        let (program, folder) = (program.to_owned(), folder.to_owned());
        Fleet { program, folder, network: Network::default(), berths: vec![], random }
    }

    /// Starts one more, which joins the others.
    pub(super) fn add(&mut self) -> io::Result<usize> {
        let (at, place) = (self.berths.len(), Place::find()?);
        let name = format!("n{}", at + 1);
        let proxy = Proxy::begin(place, &name, &self.network, Delays::SOME, self.random.split())?;
        proxy.hold_back(false);
        let standing = Standing::Present;
        self.berths.push(Berth { name, standing, is_claimed: false, place, proxy, process: None });
        self.start(at)?;
        Ok(at)
    }

    /// Starts one that is down, on what its disk holds.
    pub(super) fn start(&mut self, at: usize) -> io::Result<()> {
        let said = OpenOptions::new().create(true).append(true).open(self.log(at))?;
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SLOOP_")) {
            command.env_remove(name);
        }
        command.args(self.flags(at)).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(said.try_clone()?).stderr(said);
        self.berths[at].process = Some(command.spawn()?);
        Ok(())
    }

    fn flags(&self, at: usize) -> Vec<String> {
        let Berth { name, place, proxy, .. } = &self.berths[at];
        // The first node founds the cluster, when it starts for the first time.
        let others = self.berths.iter().filter(|other| other.name != *name && other.standing != Standing::Gone);
        let join: Vec<String> = others.map(|other| other.proxy.address.to_string()).collect();
        let mut flags = vec!["serve".to_owned(), "--end-with-stdin".to_owned()];
        flags.extend(SETTINGS.map(str::to_owned));
        let mut flag = |flag: &str, value: String| flags.extend([flag.to_owned(), value]);
        flag("--name", name.clone());
        flag("--data-dir", self.data_dir(at).display().to_string());
        flag("--listen", place.node().to_string());
        flag("--http", place.http().to_string());
        flag("--advertise", proxy.address.to_string());
        if !join.is_empty() {
            flag("--join", join.join(","));
        }
        flags
    }

    fn data_dir(&self, at: usize) -> PathBuf {
        self.folder.join(&self.berths[at].name)
    }

    fn log(&self, at: usize) -> PathBuf {
        self.folder.join(format!("{}.log", self.berths[at].name))
    }

    /// Takes the process of a node, which counts as down from now on.
    pub(super) fn take(&mut self, at: usize) -> Option<Process> {
        let Berth { name, standing, process, .. } = &mut self.berths[at];
        let has_left = *standing != Standing::Present;
        process.take().map(|child| Process { name: name.clone(), has_left, child })
    }

    /// Takes away all that the disk of a node that is down holds.
    pub(super) fn wipe(&self, at: usize) -> io::Result<()> {
        match fs::remove_dir_all(self.data_dir(at)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            end => end,
        }
    }

    pub(super) fn signal(&self, at: usize, signal: Signal) {
        let pid = self.berths[at].process.as_ref().and_then(Child::id).and_then(|id| Pid::from_raw(id as i32));
        // One that has ended by itself is found by `ended`.
        let _ = pid.map(|pid| kill_process(pid, signal));
    }

    pub(super) fn berth(&self, at: usize) -> &Berth {
        &self.berths[at]
    }

    pub(super) fn name(&self, at: usize) -> String {
        self.berths[at].name.clone()
    }

    pub(super) fn set_standing(&mut self, at: usize, standing: Standing) {
        self.berths[at].standing = standing;
    }

    pub(super) fn claim(&mut self, at: usize, is_claimed: bool) {
        self.berths[at].is_claimed = is_claimed;
    }

    /// Those of which this is true.
    pub(super) fn which(&self, is_it: impl Fn(&Berth) -> bool) -> Vec<usize> {
        (0..self.berths.len()).filter(|at| is_it(&self.berths[*at])).collect()
    }

    /// Where clients find this node, whether it runs or not.
    pub(super) fn address(&self, at: usize) -> SocketAddr {
        self.berths[at].place.node()
    }

    /// Whether every twentieth frame is held back on all ways from now on.
    pub(super) fn hold_back(&self, holds_back: bool) {
        self.berths.iter().for_each(|berth| berth.proxy.hold_back(holds_back));
    }

    /// Frames that were held back.
    pub(super) fn delayed(&self) -> u64 {
        self.berths.iter().map(|berth| berth.proxy.delayed()).sum()
    }

    /// A node that ended though nobody told it to, and its last words.
    pub(super) fn ended(&mut self) -> io::Result<Option<String>> {
        for at in 0..self.berths.len() {
            let Some(status) = self.berths[at].process.as_mut().map(Child::try_wait).transpose()?.flatten() else {
                continue;
            };
            self.berths[at].process = None;
            if self.berths[at].standing == Standing::Present {
                let (name, words) = (&self.berths[at].name, last_words(&self.log(at))?);
                return Ok(Some(format!("{name} ended by itself ({status}); it said last:\n{words}")));
            }
        }
        Ok(None)
    }

    /// What the threads of a node do, a line each: name, state, ticks of the processor, and where in the kernel.
    pub(super) fn threads(&self, at: usize) -> Vec<String> {
        let Some(id) = self.berths[at].process.as_ref().and_then(Child::id) else { return vec![] };
        let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
        // A thread that ends meanwhile tells nothing.
        let part = |task: &Path, file: &str| fs::read_to_string(task.join(file)).unwrap_or_default();
        let words = |task: PathBuf| {
            let (stat, name) = (part(&task, "stat"), part(&task, "comm"));
            let behind_name: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
            let field = |at: usize| behind_name.get(at).copied().unwrap_or("?");
            let (state, user, system) = (field(0), field(11), field(12));
            format!("{} {state} {user}+{system} {}", name.trim(), part(&task, "wchan"))
        };
        tasks.map(|task| words(task.path())).collect()
    }

    /// A command of ours, given to a node over HTTP.
    pub(super) fn sloop(&self, at: usize, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("SLOOP_HTTP_ADDR", self.berths[at].place.http().to_string());
        command.env_remove("SLOOP_TOKEN").stdin(Stdio::null()).kill_on_drop(true);
        command
    }
}

impl Berth {
    pub(super) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Whether something can be done to it, or be asked of it.
    pub(super) fn is_free(&self) -> bool {
        self.is_running() && !self.is_claimed && self.standing != Standing::Gone
    }
}

/// A process that was taken from its fleet. Killed when it is dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    has_left: bool,
    child: Child,
}

impl Process {
    /// kill -9, at whatever it is doing.
    pub(super) async fn kill(mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// SIGTERM: how it ended, if it did in time.
    pub(super) async fn stop(mut self) -> io::Result<Stopped> {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id as i32)) {
            kill_process(pid, Signal::TERM)?;
        }
        // Whoever waits for a child closes its input, and the end of that is a second SIGTERM.
        let _input = self.child.stdin.take();
        let status = match timeout(STOP_MAX, self.child.wait()).await {
            Ok(status) => Some(status?),
            Err(_late) => None,
        };
        Ok(Stopped { name: self.name, has_left: self.has_left, status })
    }
}

/// How a node that was told to stop did.
#[derive(Debug)]
pub(super) struct Stopped {
    name: String,
    has_left: bool,
    status: Option<ExitStatus>,
}

impl Stopped {
    /// What was wrong with it.
    pub(super) fn complaint(&self) -> Option<String> {
        let name = &self.name;
        match self.status {
            // Before it serves, SIGTERM ends it by itself.
            Some(status) if status.success() || status.signal() == Some(Signal::TERM.as_raw()) => None,
            // What has left its cluster is refused when it starts again.
            Some(status) if self.has_left && status.code() == Some(1) => None,
            Some(status) => Some(format!("{name} was told to stop, and ended with {status}")),
            None => Some(format!("{name} was told to stop, and has not within {STOP_MAX:?}")),
        }
    }
}

/// Standard output of a command that was done, or what it says against it.
pub(super) fn answer(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn last_words(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(end.saturating_sub(LAST_WORDS)))?;
    let mut words = vec![];
    file.read_to_end(&mut words)?;
    Ok(String::from_utf8_lossy(&words).into_owned())
}
