//! `sloop cluster` and `sloop wait` against a node, against none, and in wrong use.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{Home, Node};

fn sloop(http: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sloop"));
    command.args(arguments).env("SLOOP_HTTP_ADDR", http).env_remove("SLOOP_TOKEN").stdin(Stdio::null());
    command.output().expect("the binary starts")
}

fn of(node: &Node, arguments: &[&str]) -> Output {
    sloop(&node.http.to_string(), arguments)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_node_alone_shows_itself_and_owns_every_key() {
    let home = Home::new();
    let node = home.start_with(&["--cores", "2", "--name", "alder"]);
    done(&of(&node, &["wait", "--for", "ready"]));
    // As nodes print it.
    done(&sloop(&format!("http://{}", node.http), &["wait", "--for", "ready"]));
    node.put("cart/17", "apples");

    let status = done(&of(&node, &["cluster", "status"]));
    let lines: Vec<&str> = status.lines().collect();
    assert!(
        lines[0].starts_with("cluster ") && lines[0].contains("layout 1: N 3, R 2, W 2, 1024 partitions"),
        "{status}"
    );
    assert!(lines[1].starts_with("NAME "), "{status}");
    let cells: Vec<&str> = lines[2].split_whitespace().collect();
    assert_eq!(cells[..7], ["alder", "up", "member", "-", "1", "100.0", "%"], "{status}");
    assert!(status.contains("each key has 1 of 3 copies: 2 more to join"), "{status}");

    let told: Value = serde_json::from_str(&done(&of(&node, &["cluster", "status", "--json"]))).unwrap();
    assert_eq!((&told["self"], &told["nodes"][0]["cores"]), (&json!("alder"), &json!(2)));
    let own = node.get("/admin/node").ok();
    assert_eq!((&own["name"], &own["cluster"]), (&json!("alder"), &told["cluster"]));

    let ring = done(&of(&node, &["cluster", "ring", "cart/17"]));
    assert!(ring.contains("\nowner  alder  up  core "), "{ring}");
    assert_eq!(done(&of(&node, &["cluster", "ring", "--hex", "636172742f3137"])), ring);
    let told: Value = serde_json::from_str(&done(&of(&node, &["cluster", "ring", "--json", "cart/17"]))).unwrap();
    assert_eq!((&told["key"], &told["owners"][0]["name"]), (&json!("cart/17"), &json!("alder")));

    let told: Value = serde_json::from_str(&done(&of(&node, &["wait", "--for", "ready", "--json"]))).unwrap();
    assert_eq!((&told["for"], &told["met"]), (&json!("ready"), &json!(true)));
}

#[test]
fn a_node_alone_plans_nothing_and_refuses_what_it_cannot_do() {
    let home = Home::new();
    let node = home.start_with(&["--cores", "1", "--name", "alder"]);
    done(&of(&node, &["wait", "--for", "ready"]));
    assert_eq!(done(&of(&node, &["cluster", "plan"])), "nothing is staged\n");
    assert_eq!(done(&of(&node, &["cluster", "transfers"])), "no change is under way\n");
    done(&of(&node, &["wait", "--for", "no-transfers"]));
    done(&of(&node, &["wait", "--for", "converged"]));

    let asks = of(&node, &["cluster", "leave", "alder"]);
    let said = text(&asks.stderr);
    assert_eq!(asks.status.code(), Some(2), "there is no terminal: {said}");
    assert!(said.contains("1024 of 1024 partitions") && said.contains("say --yes"), "{said}");
    for (arguments, why) in [
        (&["cluster", "leave", "birch"][..], "no node is called \"birch\""),
        (&["cluster", "weight", "birch", "2"], "no node is called \"birch\""),
        (&["cluster", "remove", "alder", "--yes"], "cluster leave alder"),
        (&["cluster", "commit", "--yes"], "nothing is staged"),
    ] {
        let output = of(&node, arguments);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(why), "{arguments:?}: {said}");
    }

    let staged = done(&of(&node, &["cluster", "weight", "alder", "2"]));
    assert!(staged.contains("alder gets weight 2 in place of 1"), "{staged}");
    let told: Value = serde_json::from_str(&done(&of(&node, &["cluster", "plan", "--json"]))).unwrap();
    assert_eq!((&told["staged"][0]["change"], &told["nodes"][0]["gains"]), (&json!("weight"), &json!(0)));
    assert_eq!(done(&of(&node, &["cluster", "clear"])), "nothing is staged\n");
}

#[test]
fn a_node_that_is_away_or_wants_a_token_is_a_refusal_with_what_to_do() {
    let nobody = "127.0.0.1:1";
    for arguments in [
        &["cluster", "status"][..],
        &["cluster", "ring", "k"],
        &["cluster", "plan"],
        &["cluster", "transfers"],
        &["cluster", "leave", "alder", "--yes"],
        &["cluster", "commit", "--yes"],
        &["cluster", "weight", "alder", "2"],
    ] {
        let output = sloop(nobody, arguments);
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{said}");
        assert!(said.contains("no answer from http://127.0.0.1:1") && said.contains("--http"), "{said}");
    }
    let output = sloop(nobody, &["wait", "--for", "ready", "--timeout", "50ms", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["met"], json!(false));
    assert!(told["reason"].as_str().unwrap().contains("no answer"), "{told}");
    assert!(text(&output.stderr).contains("not ready within 50ms"), "{}", text(&output.stderr));

    let home = Home::new();
    let node = home.start_with(&["--cores", "1", "--token", "secret"]);
    for arguments in [&["cluster", "status"][..], &["cluster", "ring", "k"], &["wait", "--for", "ready"]] {
        let output = of(&node, arguments);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("401"), "{arguments:?}: {said}");
        done(&of(&node, &[arguments, &["--token", "secret"]].concat()));
    }
}

#[test]
fn a_node_that_waits_for_a_cluster_says_for_what_and_stops_when_it_is_told() {
    // A port that was free a moment ago.
    let own = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (listen, seed, word) in [
        ("127.0.0.1:0", "127.0.0.1:1", "waiting for a member of the cluster to join"),
        (&own, &own, "The first node of a cluster is started without join"),
    ] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for the node");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sloop"));
        command.args(["serve", "--cores", "1", "--pin", "false", "--memory", "96MiB", "--http", "127.0.0.1:0"]);
        command.args(["--listen", listen, "--join", seed, "--data-dir"]).arg(folder.path());
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut said = BufReader::new(child.stderr.take().expect("piped")).lines();
        let told = said.find(|line| line.as_ref().is_ok_and(|line| line.contains(word)));
        assert!(told.is_some(), "{word}");
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success(), "it is no failure to be stopped");
    }
}

#[test]
fn wrong_use_is_told_what_is_right() {
    for (arguments, why) in [
        (&["cluster"][..], "status"),
        (&["cluster", "stats"], "stats"),
        (&["cluster", "status", "n1"], "n1"),
        (&["cluster", "ring"], "key"),
        (&["cluster", "ring", "--hex", "6"], "not hexadecimal"),
        (&["cluster", "ring", ""], "key"),
        (&["cluster", "leave"], "node"),
        (&["cluster", "replace", "a", "b"], "b"),
        (&["cluster", "weight", "a", "heavy"], "heavy"),
        (&["cluster", "commit", "a"], "a"),
        (&["wait"], "--for"),
        (&["wait", "--for", "success"], "what can be waited for is ready"),
        (&["wait", "--for", "ready", "--timeout", "soon"], "--timeout soon"),
        (&["wait", "--for", "ready", "--http", "node-a"], "not an address such as"),
        (&["cluster", "status", "--http", "node-a"], "not an address such as"),
        (&["serve", "--join", ""], "leave it out to found a cluster"),
    ] {
        let output = sloop("127.0.0.1:1", arguments);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(why), "{arguments:?}: {said}");
    }
}
