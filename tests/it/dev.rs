//! `sloop dev` as a user meets it: a cluster in one command, of which a node may die.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

use crate::harness::{LIMIT, eventually, try_exchange};

/// A `sloop dev` that runs. Killed when it is dropped, and its nodes end with it.
struct Dev {
    child: Child,
    lines: Receiver<String>,
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("dev-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for the nodes")
}

/// A port from which on three nodes find all that they need free. Below those that the kernel gives to connections: who
/// tries to reach a node that does not listen yet could be given its port, and would meet itself there.
fn free_base() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: u16| {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
    };
    loop {
        let tried = std::process::id() + TRIED.fetch_add(1, Ordering::Relaxed);
        let base = 11_000 + 30 * u16::try_from(tried % 700).expect("less than 700");
        if [0, 1, 10, 11, 20, 21].into_iter().all(|apart| is_free(base + apart)) {
            return base;
        }
    }
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sloop"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SLOOP_")) {
        command.env_remove(name);
    }
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[expect(clippy::disallowed_methods, reason = "a pipe is read beside the test, or the child would block on it")]
fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            // Whoever listened may have heard enough.
            let _ = sender.send(line);
        }
    });
    lines
}

impl Dev {
    fn start(folder: &Path, base: u16) -> Dev {
        let base = base.to_string();
        let mut command = command(folder, &["dev", "--base-port", &base, "--memory", "96MiB", "--log-level", "warn"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the binary starts");
        let lines = lines(child.stdout.take().expect("piped"));
        Dev { child, lines }
    }

    /// The next line that contains this.
    fn says(&self, part: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(LIMIT).unwrap_or_else(|error| panic!("no {part:?}: {error}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Waits until the cluster is ready. Gives the processes of the nodes.
    fn ready(&self) -> Vec<Pid> {
        self.says("3 nodes are ready");
        let pid = |name| {
            let line = self.says(&format!("  {name}  clients "));
            let pid = line.rsplit("process ").next().and_then(|pid| pid.parse().ok());
            Pid::from_raw(pid.unwrap_or_else(|| panic!("no process in {line:?}"))).unwrap()
        };
        let pids = ["n1", "n2", "n3"].map(pid).to_vec();
        self.says("Ctrl-C stops");
        pids
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child can be signalled");
    }

    fn ends(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("sloop dev ends", || {
            status = self.child.try_wait().expect("a child can be asked");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node by itself. Killed when it is dropped.
struct Single(Child);

impl Drop for Single {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn all_end(pids: &[Pid]) {
    eventually("no node is left", || pids.iter().all(|pid| test_kill_process(*pid).is_err()));
}

#[test]
fn a_cluster_in_one_command_does_not_mind_the_death_of_a_node_and_starts_again_on_its_data() {
    let folder = folder();
    let folder = folder.path();
    let base = free_base();
    let (n1, n3) = (format!("127.0.0.1:{base}"), format!("127.0.0.1:{}", base + 20));
    let http = format!("127.0.0.1:{}", base + 1);
    let put = |at: &str, key: &str, value: &str| {
        let output = run(folder, &["put", key, value, "--addr", at]);
        assert!(output.status.success(), "put {key} on {at}: {}", text(&output.stderr));
    };
    let get = |at: &str, key: &str| {
        let output = run(folder, &["get", key, "--addr", at]);
        assert!(output.status.success(), "get {key} on {at}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let wait = |time: &str| run(folder, &["wait", "--for", "ready", "--timeout", time, "--http", &http]);
    let mut dev = Dev::start(folder, base);
    let pids = dev.ready();

    put(&n1, "greeting", "hello");
    assert_eq!(get(&n3, "greeting"), "hello");

    kill_process(pids[1], Signal::KILL).unwrap();
    let line = dev.says("n2 has ended");
    assert!(line.contains("SIGKILL") && line.contains("the others go on"), "{line}");
    let again = dev.says(" serve ");
    for n in 0..10 {
        let (one, other) = if n % 2 == 0 { (&n1, &n3) } else { (&n3, &n1) };
        put(one, &format!("k{n}"), &n.to_string());
        assert_eq!(get(other, &format!("k{n}")), n.to_string());
    }
    let status = || text(&run(folder, &["cluster", "status", "--http", &http]).stdout);
    eventually("n2 is known to be down", || status().contains("n2 is down"));
    let waited = wait("100ms");
    assert_eq!(waited.status.code(), Some(1));
    assert!(text(&waited.stderr).contains("n1 does not see n2 up"), "{}", text(&waited.stderr));

    // As it was printed, word for word.
    let words: Vec<&str> = again.split_whitespace().skip(1).collect();
    let mut restarted = Single(command(folder, &words).stdout(Stdio::null()).spawn().unwrap());
    // From its first answer on it answers for the cluster: by itself it has slept through these writes.
    let n2_http = SocketAddr::from(([127, 0, 0, 1], base + 11));
    let mut first = None;
    eventually("n2 answers", || {
        first = try_exchange(n2_http, b"GET /kv/k3 HTTP/1.1\r\nHost: n2\r\nConnection: close\r\n\r\n");
        first.is_some()
    });
    let first = first.unwrap().json();
    assert!(first["level"]["n"] == 3 || first["error"].is_string(), "{first}");
    let waited = wait("60s");
    assert_eq!(waited.status.code(), Some(0), "{}", text(&waited.stderr));
    assert!(!status().contains("n2 is down"), "{}", status());
    eventually("all hints are delivered", || {
        let told = run(folder, &["cluster", "status", "--json", "--http", &http]).stdout;
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
        told["nodes"].as_array().unwrap().iter().all(|node| node["hints"] == 0)
    });
    let n2 = format!("127.0.0.1:{}", base + 10);
    assert_eq!(get(&n2, "k3"), "3");
    kill_process(Pid::from_child(&restarted.0), Signal::TERM).unwrap();
    assert!(restarted.0.wait().unwrap().success());

    dev.signal(Signal::INT);
    dev.says("all nodes have stopped");
    assert_eq!(dev.ends(), Some(0));
    all_end(&pids);

    let fewer = run(folder, &["dev", "--nodes", "2", "--base-port", &base.to_string()]);
    assert_eq!(fewer.status.code(), Some(1));
    assert!(text(&fewer.stderr).contains("has the data of 3 nodes"), "{}", text(&fewer.stderr));

    let dev = Dev::start(folder, base);
    let pids = dev.ready();
    assert_eq!(get(&n3, "greeting"), "hello");
    assert_eq!(get(&n1, "k9"), "9");
    drop(dev);
    all_end(&pids);
}

#[test]
fn what_keeps_a_cluster_from_starting_is_said_before_anything_starts() {
    let folder = folder();
    let folder = folder.path();
    let base = free_base();
    let taken = TcpListener::bind(("127.0.0.1", base + 11)).unwrap();
    let refused = run(folder, &["dev", "--base-port", &base.to_string()]);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    let port = taken.local_addr().unwrap().port();
    assert!(said.contains(&format!("n2 needs port {port} for HTTP, and it is taken")), "{said}");
    assert!(said.contains("--base-port") && !folder.join("sloop-dev").exists(), "{said}");

    for (arguments, why) in [
        (&["dev", "--nodes", "0"][..], "from 1 to 64 nodes"),
        (&["dev", "--nodes", "three"], "three"),
        (&["dev", "--base-port", "65530"], "a port from 1 to 65514"),
        (&["dev", "--cores", "0"], "cores: \"0\" is not a whole number from 1"),
        (&["dev", "--pin", "yes"], "pin: \"yes\" is neither true nor false"),
        (&["dev", "n4"], "n4"),
    ] {
        let refused = run(folder, arguments);
        let said = text(&refused.stderr);
        assert!(refused.status.code() == Some(2) && said.contains(why), "{arguments:?}: {said}");
    }
}
