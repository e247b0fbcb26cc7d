//! `sloop cluster` and `sloop wait` against a node, against none, and in wrong use.

use std::process::{Command, Output, Stdio};

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
fn a_node_that_is_away_or_wants_a_token_is_a_refusal_with_what_to_do() {
    let nobody = "127.0.0.1:1";
    for arguments in [&["cluster", "status"][..], &["cluster", "ring", "k"]] {
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
fn wrong_use_is_told_what_is_right() {
    for (arguments, why) in [
        (&["cluster"][..], "status"),
        (&["cluster", "stats"], "stats"),
        (&["cluster", "status", "n1"], "n1"),
        (&["cluster", "ring"], "key"),
        (&["cluster", "ring", "--hex", "6"], "not hexadecimal"),
        (&["cluster", "ring", ""], "key"),
        (&["wait"], "--for"),
        (&["wait", "--for", "success"], "what can be waited for is ready"),
        (&["wait", "--for", "ready", "--timeout", "soon"], "--timeout soon"),
    ] {
        let output = sloop("127.0.0.1:1", arguments);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(why), "{arguments:?}: {said}");
    }
}
