//! Clients of every kind against the real node: the Python one, written from docs/PROTOCOL.md alone, and the command
//! line.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::{Home, Node};

#[test]
fn a_client_written_from_the_document_alone_understands_the_node() {
    let home = Home::new();
    let node = home.start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/check.py");
    let run = Command::new("python3").arg(script).arg(node.binary.to_string()).output();
    let run = run.expect("python3 is there (Debian: python3)");
    assert!(run.status.success(), "{}{}", text(&run.stdout), text(&run.stderr));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn sloop(node: &Node, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sloop"));
    command.args(arguments).env("SLOOP_ADDR", node.binary.to_string()).stdin(Stdio::null());
    command.output().expect("the binary starts")
}

#[test]
fn the_command_line_puts_gets_and_deletes() {
    let home = Home::new();
    let node = home.start();
    let put = sloop(&node, &["put", "greeting", "hello"]);
    assert_eq!(put.status.code(), Some(0), "{}", text(&put.stderr));

    let get = sloop(&node, &["get", "greeting"]);
    assert_eq!((get.status.code(), text(&get.stdout).trim_end()), (Some(0), "hello"), "{}", text(&get.stderr));
    let keys = sloop(&node, &["keys", "--prefix", "gr"]);
    assert_eq!((keys.status.code(), text(&keys.stdout).trim_end()), (Some(0), "greeting"), "{}", text(&keys.stderr));

    assert_eq!(sloop(&node, &["del", "greeting"]).status.code(), Some(0));
    let gone = sloop(&node, &["get", "greeting"]);
    assert_eq!((gone.status.code(), text(&gone.stdout).as_str()), (Some(1), ""), "{}", text(&gone.stderr));
    assert_eq!(sloop(&node, &["get"]).status.code(), Some(2), "wrong use");
}
