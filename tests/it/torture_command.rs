//! `sloop torture` as a user meets it: a short one is clean, and leaves nothing behind.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::dice::seed;
use crate::harness::{eventually, files};

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("torture-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sloop"));
    command.arg("torture").args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether any process has its data below this folder.
fn is_used(folder: &Path) -> bool {
    let folder = folder.to_str().expect("a plain name");
    let lines = std::fs::read_dir("/proc").expect("Linux").filter_map(|entry| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(text(&line).replace('\0', " "))
    });
    lines.into_iter().any(|line| line.contains("serve") && line.contains(folder))
}

#[test]
fn a_short_torture_is_clean_tells_what_it_did_and_leaves_nothing_but_its_history() {
    let outer = folder();
    let (data, history) = (outer.path().join("data"), outer.path().join("history"));
    let (data_dir, file) = (data.to_str().unwrap(), history.to_str().unwrap());
    let seed = seed().to_string();
    let arguments = ["--minutes", "0.2", "--nodes", "4", "--seed", &seed, "--data-dir", data_dir];
    let output = run(&[&arguments[..], &["--json", "--history", file]].concat());
    let said = text(&output.stderr);

    assert_eq!(output.status.code(), Some(0), "seed {seed}: {said}{}", text(&output.stdout));
    let told: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!((told["seed"].to_string(), told["nodes"].as_u64()), (seed, Some(4)));
    let faults = told["faults"].as_object().expect("kinds and counts");
    assert!(faults.contains_key("kill") && faults.contains_key("wipe"), "kinds that never were stand there: {told}");
    assert!(0 < faults.values().filter_map(Value::as_u64).sum::<u64>(), "{told}");
    assert!(100 < told["operations"]["writes"].as_u64().unwrap(), "{told}");
    assert!(told["violations"].as_array().unwrap().is_empty() && told["folder"].is_null(), "{told}");
    assert!(said.contains(" reads, "), "it tells how far it is: {said}");
    assert_eq!(files(outer.path()), [history], "everything else is gone");
    assert!(!is_used(&data));
}

#[test]
fn a_torture_that_is_stopped_ends_its_nodes_and_takes_its_files_with_it() {
    let outer = folder();
    let data = outer.path().join("data");
    let mut command = command(&["--minutes", "5", "--nodes", "3", "--data-dir", data.to_str().unwrap()]);
    let mut child = command.stderr(Stdio::null()).spawn().expect("the binary starts");
    eventually("nodes run", || is_used(&data));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    eventually("no node is left", || !is_used(&data));
    assert!(!data.exists());
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_starts() {
    let outer = folder();
    std::fs::write(outer.path().join("file"), "text").unwrap();
    for (arguments, code, why) in [
        (&["--minutes", "0"][..], 2, "--minutes 0: above 0"),
        (&["--minutes", "NaN"], 2, "--minutes NaN"),
        (&["--nodes", "2"], 2, "--nodes 2: from 3 to 30 nodes"),
        (&["--seed", "x"], 2, "x"),
        (&["--data-dir", outer.path().to_str().unwrap()], 1, "is not empty"),
    ] {
        let refused = run(arguments);
        let said = text(&refused.stderr);
        assert!(refused.status.code() == Some(code) && said.contains(why), "{arguments:?}: {said}");
    }
}
