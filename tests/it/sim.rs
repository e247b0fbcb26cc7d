//! `sloop sim` as people call it: exit codes, and that its output repeats.

use std::process::{Command, Output};

use serde_json::Value;

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sloop")).arg("sim").args(arguments).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it speaks UTF-8")
}

#[test]
fn clean_seeds_end_well_and_say_what_was_done() {
    let end = sim(&["--from", "1", "--seeds", "3", "--scenario", "calm"]);
    let said = text(&end.stdout);
    assert_eq!(end.status.code(), Some(0), "{said}{}", text(&end.stderr));
    assert!(said.contains("calm from seed 1: 3 seeds in ") && said.contains(" a second of CPU time"), "{said}");
    assert!(said.contains("never reached\n  fault: message lost\n"), "{said}");
}

#[test]
fn machines_hear_the_same_in_one_object() {
    let end = sim(&["--seed", "1", "--scenario", "calm", "--json"]);
    let said: Value = serde_json::from_slice(&end.stdout).expect("one object");
    assert_eq!((&said["seeds"], &said["from"], &said["faults"]), (&1.into(), &1.into(), &0.into()), "{said}");
    assert!(said["violation"].is_null() && said["operations"].as_u64() > Some(0), "{said}");
}

#[test]
fn a_trace_is_the_same_twice_and_digests_do_not_depend_on_threads() {
    let [one, other] = [(), ()].map(|()| sim(&["--seed", "5", "--scenario", "small", "--trace"]));
    assert!(one.stdout == other.stdout && 10 < text(&one.stdout).lines().count(), "{}", text(&one.stderr));
    let of = |threads| sim(&["--from", "1", "--seeds", "6", "--scenario", "calm", "--digest", "--threads", threads]);
    let [alone, together] = [of("1"), of("3")];
    assert_eq!((text(&alone.stdout), text(&alone.stdout).lines().count()), (text(&together.stdout), 6));
}

#[test]
fn a_planted_fault_is_told_with_the_command_that_repeats_it() {
    let words = ["--scenario", "calm", "--mutant", "ack-before-sync"];
    let end = sim(&[&["--from", "1", "--seeds", "5"], &words[..]].concat());
    let said = text(&end.stdout);
    assert_eq!(end.status.code(), Some(1), "{said}");
    let (_, repeat) = said.split_once("\nall of it: sloop sim ").expect("the command");
    let again = sim(&repeat.split_whitespace().collect::<Vec<_>>());
    assert_eq!(again.status.code(), Some(1));
    let (_, found) = said.split_once("\nseed ").expect("a failure");
    assert!(text(&again.stdout).ends_with(found), "{said}");
}

#[test]
fn unknown_names_are_wrong_use_and_all_names_are_told() {
    for (words, known) in [(["--scenario", "storm"], "calm, network"), (["--mutant", "bug"], "ack-before-sync, ")] {
        let end = sim(&words);
        assert_eq!(end.status.code(), Some(2));
        assert!(text(&end.stderr).contains(known), "{}", text(&end.stderr));
    }
    let list = sim(&["--mutant", "list"]);
    assert!(text(&list.stdout).contains("stale-layout  ") && list.status.success());
}
