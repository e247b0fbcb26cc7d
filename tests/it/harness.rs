//! A node as a child process, and HTTP to it without any library.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Nothing here takes this long on a machine that is not broken, however busy it is.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A data directory that outlives its nodes.
pub(crate) struct Home {
    folder: TempDir,
    data: PathBuf,
    /// The command that its nodes are run by, and its arguments; none for running them as they are.
    wrapper: Vec<String>,
}

/// A node that runs. It is killed when it is dropped.
pub(crate) struct Node {
    child: Child,
    /// Where the binary protocol is spoken.
    pub(crate) binary: SocketAddr,
    /// Where HTTP is spoken.
    pub(crate) http: SocketAddr,
    said: Option<JoinHandle<String>>,
}

/// How a node ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// What it had said on standard error.
    pub(crate) said: String,
}

impl Home {
    pub(crate) fn new() -> Home {
        let folder = folder();
        Home { data: folder.path().join("data"), folder, wrapper: vec![] }
    }

    /// With its data in a place that somebody else looks after.
    pub(crate) fn at(data: PathBuf) -> Home {
        Home::new().keep_in(&data)
    }

    /// The same, with nodes that run as another user. Only root may do that.
    pub(crate) fn run_by(self, user: u32) -> Home {
        let user = user.to_string();
        self.run_with(&["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"])
    }

    /// The same, with nodes that are run by a command which becomes what its last arguments name.
    pub(crate) fn run_with(mut self, wrapper: &[&str]) -> Home {
        self.wrapper.extend(wrapper.iter().map(|&word| word.to_owned()));
        self
    }

    /// The same, in a folder that every user may use.
    pub(crate) fn open_to_all(self) -> Home {
        fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o777)).expect("our own folder");
        self
    }

    /// The same, with its data elsewhere.
    pub(crate) fn keep_in(self, data: &Path) -> Home {
        Home { data: data.to_owned(), ..self }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data.clone()
    }

    pub(crate) fn start(&self) -> Node {
        self.start_with(&["--cores", "2"])
    }

    /// Starts a node, and waits until it says that it is ready.
    pub(crate) fn start_with(&self, flags: &[&str]) -> Node {
        match self.try_start(flags) {
            Ok(node) => node,
            Err(ended) => panic!("the node did not become ready: {}", ended.said),
        }
    }

    /// A start that is killed when it has gone on for so long.
    pub(crate) fn kill_start(&self, after: Duration) {
        let mut child = self.command(&["--cores", "1"]).stdout(Stdio::null()).spawn().expect("the binary starts");
        #[expect(clippy::disallowed_methods, reason = "the moment of the kill is what is tried")]
        std::thread::sleep(after);
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// A start that may fail: then it gives what the node says.
    pub(crate) fn try_start(&self, flags: &[&str]) -> Result<Node, Ended> {
        let mut child = self.command(flags).stdout(Stdio::piped()).spawn().expect("the binary starts");
        let said = read_all(child.stderr.take().expect("piped"));
        let lines = read_lines(child.stdout.take().expect("piped"));
        match lines.recv_timeout(LIMIT) {
            Ok(line) => {
                let after = |mark: &str| line.split(mark).nth(1).and_then(|rest| rest.split([',', ' ']).next());
                let address = |mark| after(mark).and_then(|text| text.parse().ok());
                let (binary, http) = (address("clients on "), address("http on http://"));
                let (Some(binary), Some(http)) = (binary, http) else { panic!("no addresses in {line:?}") };
                Ok(Node { child, binary, http, said: Some(said) })
            }
            Err(silence) => {
                if silence == RecvTimeoutError::Timeout {
                    child.kill().expect("a child can be killed");
                }
                Err(Ended { status: wait(&mut child), said: said.join().expect("a reader does not panic") })
            }
        }
    }

    /// A start that must fail: gives what the node says.
    pub(crate) fn refused(&self, flags: &[&str]) -> Ended {
        let mut child = self.command(flags).stdout(Stdio::null()).spawn().expect("the binary starts");
        let said = read_all(child.stderr.take().expect("piped"));
        let status = wait(&mut child);
        Ended { status, said: said.join().expect("a reader does not panic") }
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = self.sloop();
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SLOOP_")) {
            command.env_remove(name);
        }
        command.args(["serve", "--pin", "false"]);
        for (flag, value) in [("--memory", "512MiB"), ("--listen", "127.0.0.1:0"), ("--http", "127.0.0.1:0")] {
            if !flags.contains(&flag) {
                command.args([flag, value]);
            }
        }
        command.arg("--data-dir").arg(self.data_dir()).args(flags);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Whether its user can run the binary at all.
    pub(crate) fn runs(&self) -> bool {
        let ran = self.sloop().arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
        ran.is_ok_and(|status| status.success())
    }

    fn sloop(&self) -> Command {
        let sloop = env!("CARGO_BIN_EXE_sloop");
        let Some((wrapper, arguments)) = self.wrapper.split_first() else { return Command::new(sloop) };
        let mut command = Command::new(wrapper);
        command.args(arguments).arg(sloop);
        command
    }
}

fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("node-").tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    folder.expect("a folder for the node")
}

impl Node {
    /// kill -9, at whatever it is doing.
    pub(crate) fn kill(mut self) -> Ended {
        self.child.kill().expect("a child can be killed");
        self.end()
    }

    /// SIGTERM, as systemd stops a node.
    pub(crate) fn terminate(mut self) -> Ended {
        self.signal(Signal::TERM);
        self.end()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("a child can be signalled");
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }

    fn end(&mut self) -> Ended {
        let status = wait(&mut self.child);
        let said = self.said.take().expect("a node ends once");
        Ended { status, said: said.join().expect("a reader does not panic") }
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        request(self.http, "GET", path, &[], b"")
    }

    pub(crate) fn delete(&self, path: &str) -> Reply {
        request(self.http, "DELETE", path, &[], b"")
    }

    /// A PUT of the seed's body.
    pub(crate) fn put(&self, key: &str, value: &str) -> Value {
        self.put_json(key, &json!({"valueBase64": base64(value)})).ok()
    }

    pub(crate) fn put_json(&self, key: &str, body: &Value) -> Reply {
        request(self.http, "PUT", &format!("/kv/{key}"), &[], body.to_string().as_bytes())
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        request(self.http, method, path, headers, body)
    }

    /// All values of a key, sorted.
    pub(crate) fn values(&self, key: &str) -> Vec<String> {
        let reply = self.get(&format!("/kv/{key}"));
        if reply.status == 404 {
            return vec![];
        }
        let found = reply.ok();
        let siblings = found["siblings"].as_array().expect("a list of siblings");
        let mut values: Vec<String> = siblings.iter().map(|sibling| unbase64(&sibling["valueBase64"])).collect();
        values.sort();
        values
    }

    /// The node's own copies of a key, tombstones too.
    pub(crate) fn copies(&self, key: &str) -> Vec<Value> {
        let copies = self.get(&format!("/debug/siblings/{key}")).ok();
        copies["siblings"].as_array().expect("a list of copies").clone()
    }

    /// The sum of a metric over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        Metrics::of(self.http).expect("the node shows its metrics").sum(name)
    }

    /// Bytes of memory that the process holds.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the node runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        let kib: u64 = resident.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kib * 1_024
    }

    /// Time that the process has spent on processors.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the node runs");
        let behind_name = stat.rsplit_once(") ").expect("a name in brackets").1;
        // Fields 14 and 15 of proc_pid_stat(5); the state, behind the name, is field 3.
        let ticks: u64 =
            behind_name.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum();
        // The kernel tells them in hundredths of a second, whatever its own clock is.
        Duration::from_millis(10 * ticks)
    }
}

/// What a node counts.
pub(crate) struct Metrics(String);

impl Metrics {
    /// None where there is no node.
    pub(crate) fn of(http: SocketAddr) -> Option<Metrics> {
        let head = format!("GET /metrics HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
        let reply = try_exchange(http, head.as_bytes())?;
        Some(Metrics(String::from_utf8(reply.body).expect("metrics are text")))
    }

    /// The sum of a metric over its labels.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let value = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok());
        self.0.lines().filter(is_it).filter_map(value).sum()
    }

    /// The same, over the lines with this label.
    pub(crate) fn sum_where(&self, name: &str, label: &str) -> f64 {
        let lines: String =
            self.0.lines().filter(|line| line.contains(label)).map(|line| format!("{line}\n")).collect();
        Metrics(lines).sum(name)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It has ended already, or the test has failed: nobody listens any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a node said to one HTTP request.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body of a 200.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// The message of a refusal.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error in {self:?}")).to_owned()
    }
}

/// One request on a connection of its own.
pub(crate) fn request(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) && !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    exchange(to, &[head.as_bytes(), b"\r\n", body].concat())
}

/// Any bytes on a connection of their own.
pub(crate) fn exchange(to: SocketAddr, bytes: &[u8]) -> Reply {
    try_exchange(to, bytes).expect("the node answers")
}

/// The same, with nothing where nobody answers.
pub(crate) fn try_exchange(to: SocketAddr, bytes: &[u8]) -> Option<Reply> {
    let mut stream = TcpStream::connect_timeout(&to, LIMIT).ok()?;
    stream.set_read_timeout(Some(LIMIT)).expect("a limit above zero");
    // A node may refuse a body before it has read it whole.
    let _ = stream.write_all(bytes);
    let mut heard = vec![];
    let _ = stream.read_to_end(&mut heard);
    let end = heard.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(heard[..end].to_vec()).expect("a head is text");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status line");
    let header = |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    let headers: BTreeMap<String, String> = lines.filter_map(header).collect();
    let body = heard.split_off(end + 4);
    let is_chunked = headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked");
    Some(Reply { status, headers, body: if is_chunked { unchunk(&body) } else { body } })
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut whole = vec![];
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let digits = std::str::from_utf8(&body[..end]).expect("a length in digits");
        let length = usize::from_str_radix(digits, 16).expect("a length in digits");
        let Some(chunk) = body.get(end + 2..end + 2 + length) else { break };
        whole.extend(chunk);
        body = body.get(end + 2 + length + 2..).unwrap_or_default();
    }
    whole
}

pub(crate) fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

pub(crate) fn unbase64(value: &Value) -> String {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is not base64"));
    String::from_utf8(STANDARD.decode(text).expect("base64")).expect("the tests write text")
}

/// Waits for a condition that nothing tells of.
pub(crate) fn eventually(what: &str, holds: impl FnMut() -> bool) {
    within(LIMIT, what, holds);
}

/// The same, where another limit is right.
#[expect(clippy::disallowed_methods, reason = "a limit needs a clock")]
pub(crate) fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < limit, "{what}: not within {limit:?}");
        #[expect(clippy::disallowed_methods, reason = "between two looks at a condition")]
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn wait(child: &mut Child) -> ExitStatus {
    let mut status = None;
    eventually("the node ends", || {
        status = child.try_wait().expect("a child can be asked");
        status.is_some()
    });
    status.expect("it has ended")
}

#[expect(clippy::disallowed_methods, reason = "a pipe is read beside the test, or the child would block on it")]
fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut said, mut log, mut part) = (vec![], log(), [0; 4_096]);
        while let Ok(read @ 1..) = from.read(&mut part) {
            said.extend_from_slice(&part[..read]);
            log.iter_mut().for_each(|log| log.write_all(&part[..read]).expect("the folder has room"));
        }
        String::from_utf8_lossy(&said).into_owned()
    })
}

/// Where what a node says is kept for those who look for a fault: a file for each start, in the order of the starts, in
/// the folder that `SLOOP_TEST_LOGS` names.
fn log() -> Option<fs::File> {
    static STARTS: AtomicU32 = AtomicU32::new(0);
    let folder = std::env::var_os("SLOOP_TEST_LOGS")?;
    let name = format!("{:04}.log", STARTS.fetch_add(1, Ordering::Relaxed));
    Some(fs::File::create(Path::new(&folder).join(name)).expect("the folder is there"))
}

#[expect(clippy::disallowed_methods, reason = "a pipe is read beside the test, or the child would block on it")]
fn read_lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            // Only the first line is waited for; the rest is read so that the node never blocks.
            let _ = sender.send(line);
        }
    });
    lines
}
