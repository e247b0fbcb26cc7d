//! `sloop bench` against the real node: what it counts, and that no end of a node or a run takes its report away.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{Home, Node, eventually};

/// A run under way. It ends by itself.
struct Run {
    child: Child,
}

impl Run {
    fn start(node: &Node, arguments: &[&str]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sloop"));
        command.args(["bench", "--json", "--keys", "1000", "--connections", "8"]).args(arguments);
        command.env("SLOOP_ADDR", node.binary.to_string()).env_remove("SLOOP_TOKEN");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Run { child: command.spawn().expect("the binary starts") }
    }

    /// Its exit code and its report.
    fn end(self) -> (Option<i32>, Value, String) {
        let Output { status, stdout, stderr } = self.child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&stderr).into_owned();
        let report = serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
        (status.code(), report, said)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child can be signalled");
    }
}

/// Waits until so many more writes have been taken.
fn written(node: &Node, more: f64) {
    let writes = || node.metric("sloop_operations_total");
    let before = writes();
    eventually("the run asks", || before + more <= writes());
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn all_that_was_loaded_is_found() {
    let home = Home::new();
    let node = home.start();
    let load = Run::start(&node, &["--preload", "--operations", "0"]);
    let (code, report, said) = load.end();
    assert_eq!((code, &report["operations"]), (Some(0), &Value::from(0)), "{said}");
    assert!(number(&report["preload"]["throughput"]) > 0.0, "{report}");

    for (workload, kinds) in [("get", vec!["get"]), ("put", vec!["put"]), ("f", vec!["get", "read-modify-write"])] {
        let (code, report, said) = Run::start(&node, &["--workload", workload, "--operations", "500"]).end();
        assert_eq!((code, &report["operations"], &report["errors"]), (Some(0), &500.into(), &0.into()), "{said}");
        assert!(number(&report["seconds"]) > 0.0 && number(&report["throughput"]) > 0.0, "{report}");
        let count = |kind: &&str| report["latencies"][kind]["count"].as_u64().unwrap_or(0);
        assert_eq!(kinds.iter().map(count).sum::<u64>(), 500, "{report}");
        let reads = if workload == "put" { 0 } else { 500 };
        assert_eq!((&report["hits"], &report["misses"]), (&reads.into(), &0.into()), "{report}");
        let latency = &report["latencies"][kinds[0]];
        let percentiles = ["p50_us", "p95_us", "p99_us", "p999_us", "max_us"].map(|name| number(&latency[name]));
        assert!(percentiles.is_sorted() && percentiles[0] > 0.0, "{latency}");
    }
}

/// What `sloop check` says of a history: its exit code, its report, and why it ended so.
fn check(history: &Path) -> (Option<i32>, Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sloop"));
    let Output { status, stdout, stderr } =
        command.args(["check", "--json"]).arg(history).output().expect("the binary starts");
    let said = String::from_utf8_lossy(&stderr).into_owned();
    (status.code(), serde_json::from_slice(&stdout).unwrap_or(Value::Null), said)
}

#[test]
fn a_recorded_run_is_clean_and_one_write_that_was_lost_is_found() {
    let (home, folder) = (Home::new(), tempfile::tempdir().unwrap());
    let node = home.start();
    let path = folder.path().join("a.jsonl");
    let history = ["--history", path.to_str().unwrap(), "--preload", "--operations", "2000"];
    let run = Run::start(&node, &[&history[..], &["--workload", "f", "--pipeline", "4"]].concat());
    let (code, report, said) = run.end();
    assert_eq!((code, &report["errors"]), (Some(0), &0.into()), "{said}");

    let (code, judged, said) = check(&path);
    assert_eq!((code, &judged["violations"]), (Some(0), &Value::Array(vec![])), "{said}");
    assert_eq!((&judged["keys"], &judged["outcomes"]["unknown"]), (&1_000.into(), &0.into()), "{judged}");
    let changes = number(&report["latencies"]["read-modify-write"]["count"]);
    assert_eq!(number(&judged["outcomes"]["written"]), 1_000.0 + changes, "{judged}");
    assert_eq!(number(&judged["outcomes"]["shown"]), 2_000.0, "{judged}");

    // The last read shows nothing of what was there.
    let recorded = std::fs::read_to_string(&path).unwrap();
    let last = recorded.lines().rfind(|line| line.contains("\"versions\"")).unwrap();
    let mut event: Value = serde_json::from_str(last).unwrap();
    event["versions"] = Value::Array(vec![]);
    std::fs::write(&path, recorded.replace(last, &event.to_string())).unwrap();
    let (code, judged, said) = check(&path);
    assert_eq!((code, &judged["violations"][0]["promise"]), (Some(1), &"missed".into()), "{said}");
    assert!(said.contains("broken"), "{said}");
}

#[test]
fn what_cannot_be_recorded_or_judged_is_wrong_use() {
    let (home, folder) = (Home::new(), tempfile::tempdir().unwrap());
    let node = home.start();
    let path = folder.path().join("a.jsonl");
    let bench = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sloop"));
        command.args(["bench", "--history", path.to_str().unwrap(), "--operations", "9"]).args(arguments);
        let run = command.env("SLOOP_ADDR", node.binary.to_string()).output().expect("the binary starts");
        (run.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
    };
    let (code, said) = bench(&["--value-size", "15"]);
    assert!(code == Some(2) && said.contains("--value-size 15"), "{said}");
    assert_eq!(bench(&[]).0, Some(0));
    let (code, said) = bench(&[]);
    assert!(code == Some(1) && said.contains("exists"), "{said}");

    let (code, _, said) = check(&folder.path().join("none"));
    assert!(code == Some(2) && said.contains("none: "), "{said}");
    std::fs::write(&path, "{\"sloop\":\"history\",\"format\":1}\n{}\n").unwrap();
    let (code, _, said) = check(&path);
    assert!(code == Some(2) && said.contains("a.jsonl:2: expected `at`"), "{said}");
}

#[test]
fn a_run_that_is_stopped_tells_what_it_has() {
    let home = Home::new();
    let node = home.start();
    let run = Run::start(&node, &["--seconds", "600", "--warmup", "0"]);
    written(&node, 100.0);
    run.signal(Signal::INT);
    let (code, report, said) = run.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(number(&report["operations"]) >= 100.0 && number(&report["seconds"]) < 60.0, "{report}");
}

#[test]
fn a_node_that_dies_under_load_costs_errors_and_no_report() {
    let home = Home::new();
    let node = home.start();
    let run = Run::start(&node, &["--seconds", "3", "--warmup", "0", "--pipeline", "4"]);
    written(&node, 100.0);
    node.kill();
    let (code, report, said) = run.end();
    assert_eq!(code, Some(1), "{said}");
    assert!(number(&report["errors"]) >= 8.0 && number(&report["operations"]) >= 100.0, "{report}");
    let failures = report["failures"].as_array().expect("a list of failures");
    let kinds: Vec<&str> = failures.iter().filter_map(|failure| failure["kind"].as_str()).collect();
    assert!(kinds.contains(&"connection lost") && kinds.contains(&"no connection"), "{report}");
    assert!(!said.contains("panicked"), "{said}");
    assert!((2.9..9.0).contains(&number(&report["seconds"])), "{report}");
}

#[test]
fn a_node_that_comes_back_is_asked_again() {
    let home = Home::new();
    let node = home.start();
    let address = node.binary.to_string();
    let run = Run::start(&node, &["--seconds", "600", "--warmup", "0"]);
    written(&node, 100.0);
    node.kill();
    let node = home.start_with(&["--cores", "2", "--listen", &address]);
    written(&node, 100.0);
    run.signal(Signal::INT);
    let (code, report, said) = run.end();
    assert_eq!(code, Some(1), "{said}");
    assert!(number(&report["operations"]) >= 200.0, "{report}");
}

#[test]
fn a_stall_shows_in_every_operation_that_it_delayed() {
    let home = Home::new();
    let node = home.start();
    let run = Run::start(&node, &["--seconds", "4", "--warmup", "0", "--rate", "500"]);
    written(&node, 100.0);
    node.signal(Signal::STOP);
    #[expect(clippy::disallowed_methods, reason = "the length of the stall is what is measured")]
    std::thread::sleep(Duration::from_secs(1));
    node.signal(Signal::CONT);
    let (code, report, said) = run.end();
    assert_eq!((code, &report["unstarted"]), (Some(0), &0.into()), "{said}");
    // All of 4 s at 500 a second, a second's worth of which had to wait: half of that half a second or more, where a
    // closed loop would have shown eight.
    assert_eq!(report["operations"], 2_000, "{report}");
    let latency = &report["latencies"]["put"];
    assert!(number(&latency["max_us"]) >= 0.9e6, "{latency}");
    assert!(number(&latency["p95_us"]) >= 0.4e6, "{latency}");
}

#[test]
fn without_a_node_it_says_where_it_looked() {
    let bench = |arguments: &[&str]| {
        let run = Command::new(env!("CARGO_BIN_EXE_sloop")).arg("bench").args(arguments).output();
        let run = run.expect("the binary starts");
        (run.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
    };
    let (code, said) = bench(&["--addr", "127.0.0.1:1"]);
    assert!(code == Some(1) && said.contains("no node answers at 127.0.0.1:1"), "{said}");
    let (code, said) = bench(&["--workload", "e"]);
    assert!(code == Some(2) && said.contains("--workload e"), "{said}");
}
