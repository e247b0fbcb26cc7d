//! Starting and stopping: what a node says when it cannot start, and that a stop of any kind loses nothing.

use std::fs;
use std::net::TcpListener;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Home, base64, eventually, files};

fn actor(dot: &serde_json::Value) -> String {
    dot.as_str().unwrap().split(':').next().unwrap().to_owned()
}

#[test]
fn a_clean_stop_keeps_everything_and_the_actor() {
    let home = Home::new();
    let node = home.start_with(&["--cores", "1"]);
    let before = node.put("k", "v");
    let ended = node.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.said);

    let node = home.start_with(&["--cores", "1"]);
    assert_eq!(node.values("k"), ["v"]);
    let after = node.put("another", "v");
    assert_eq!(actor(&before["dot"]), actor(&after["dot"]), "a clean stop remembers its counter");
}

#[test]
fn a_kill_draws_a_new_actor() {
    let home = Home::new();
    let node = home.start_with(&["--cores", "1"]);
    let before = node.put("k", "v");
    node.kill();
    let node = home.start_with(&["--cores", "1"]);
    let after = node.put("k", "w");
    assert_ne!(actor(&before["dot"]), actor(&after["dot"]), "a dot is never used twice");
    assert_eq!(after["superseded"], json!([before["dot"]]));
}

#[test]
fn a_first_start_that_is_killed_at_any_moment_can_be_made_again() {
    // A first start takes some tens of milliseconds; each is killed at another one of them.
    for moment in 0..24 {
        let home = Home::new();
        home.kill_start(std::time::Duration::from_millis(4 * moment));
        let node = home.start_with(&["--cores", "1"]);
        node.put("k", "v");
        assert_eq!(node.values("k"), ["v"]);
    }
}

#[test]
fn ctrl_c_is_a_clean_stop_too() {
    let home = Home::new();
    let mut node = home.start();
    node.put("k", "v");
    node.signal(Signal::INT);
    eventually("the node ends", || !node.is_running());
    assert_eq!(home.start().values("k"), ["v"]);
}

#[test]
fn another_number_of_cores_serves_the_same_data() {
    let home = Home::new();
    for (round, cores) in ["1", "3", "2", "1"].into_iter().enumerate() {
        let node = home.start_with(&["--cores", cores]);
        for written in 0..round * 20 {
            assert_eq!(node.values(&format!("k{written}")), [format!("v{written}")], "on {cores} cores");
        }
        for n in round * 20..round * 20 + 20 {
            node.put(&format!("k{n}"), &format!("v{n}"));
        }
        if round % 2 == 0 {
            node.kill();
        } else {
            node.terminate();
        }
    }
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--http"] {
        let home = Home::new();
        let ended = home.refused(&[flag, &address]);
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.said.contains(&address) && ended.said.contains("in use"), "{}", ended.said);
        assert!(!home.data_dir().exists(), "the data directory was not touched");
    }
}

#[test]
fn a_port_taken_by_another_sloop_is_named_too() {
    let (home, other) = (Home::new(), Home::new());
    let node = home.start();
    let address = node.binary.to_string();
    let ended = other.refused(&["--listen", &address]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.said.contains(&address), "{}", ended.said);
}

#[test]
fn a_second_instance_on_one_data_directory_is_refused() {
    let home = Home::new();
    let node = home.start();
    let ended = home.refused(&[]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.said.contains("in use by another sloop"), "{}", ended.said);
    node.put("k", "the first one goes on");
}

#[test]
fn an_unknown_on_disk_format_is_refused_and_left_alone() {
    let home = Home::new();
    home.start().terminate();
    let path = home.data_dir().join("node");
    let known = fs::read(&path).unwrap();
    let mut newer = known.clone();
    newer[8..12].copy_from_slice(&77_u32.to_le_bytes());
    let end = newer.len() - 4;
    let crc = crc32c::crc32c(&newer[..end]).to_le_bytes();
    newer[end..].copy_from_slice(&crc);
    fs::write(&path, &newer).unwrap();

    let ended = home.refused(&[]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.said.contains("77"), "it names the format: {}", ended.said);
    assert_eq!(fs::read(&path).unwrap(), newer, "left alone");

    fs::write(&path, known).unwrap();
    home.start();
}

#[test]
fn a_folder_that_belongs_to_something_else_is_refused_and_left_alone() {
    let home = Home::new();
    fs::create_dir(home.data_dir()).unwrap();
    fs::write(home.data_dir().join("thesis.txt"), "years of work").unwrap();
    let ended = home.refused(&[]);
    assert!(ended.said.contains("not a data directory of sloop"), "{}", ended.said);
    assert!(!ended.status.success());
    assert_eq!(files(&home.data_dir()).len(), 1, "left alone");
}

/// One flipped bit where a record was durable is an error that names the file, never a node that serves less.
#[test]
fn damage_in_the_log_is_an_error_that_names_the_file() {
    let home = Home::new();
    let node = home.start_with(&["--cores", "1"]);
    for n in 0..50 {
        node.put(&format!("k{n}"), &"v".repeat(100));
    }
    node.kill();
    let is_used = |bytes: &[u8]| bytes[4096..].iter().any(|&byte| byte != 0);
    let segment = files(&home.data_dir().join("wal")).into_iter().find(|path| is_used(&fs::read(path).unwrap()));
    let segment = segment.expect("a segment with records");
    let mut bytes = fs::read(&segment).unwrap();
    let record = bytes.windows(4).position(|four| four == b"vvvv").expect("a value in the first record");
    bytes[record] ^= 1;
    fs::write(&segment, bytes).unwrap();

    let ended = home.refused(&[]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(ended.said.contains(name) && ended.said.contains("damaged"), "{}", ended.said);
}

/// A directory that lost a part is an error that names the part, never a node that serves what is left.
#[test]
fn a_data_directory_without_its_store_is_refused() {
    let home = Home::new();
    for n in 0..2 {
        let node = home.start_with(&["--cores", "1"]);
        node.put(&format!("k{n}"), "v");
        node.terminate();
    }
    fs::remove_dir_all(home.data_dir().join("lsm")).unwrap();

    for _ in 0..2 {
        let ended = home.refused(&["--cores", "1"]);
        assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
        assert!(ended.said.contains("the store is missing"), "{}", ended.said);
    }
}

#[test]
fn a_data_directory_without_its_log_is_refused() {
    let home = Home::new();
    let node = home.start_with(&["--cores", "1"]);
    node.put("k", "v");
    assert_eq!(node.get("/admin/snapshot").status, 200, "what was written so far is in the tree now");
    node.put("k", "w");
    node.kill();
    for segment in files(&home.data_dir().join("wal")) {
        fs::remove_file(segment).unwrap();
    }

    let ended = home.refused(&["--cores", "1"]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
    assert!(ended.said.contains("the log is missing"), "{}", ended.said);
}

#[test]
fn a_segment_that_was_cut_off_is_refused() {
    let home = Home::new();
    let node = home.start_with(&["--cores", "1"]);
    for n in 0..20 {
        node.put(&format!("k{n}"), "v");
    }
    node.kill();
    let is_used = |bytes: &[u8]| bytes.iter().any(|&byte| byte != 0);
    let segment = files(&home.data_dir().join("wal")).into_iter().find(|path| is_used(&fs::read(path).unwrap()));
    let segment = segment.expect("a segment with records");
    fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(16_384).unwrap();

    let ended = home.refused(&["--cores", "1"]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(ended.said.contains(name) && ended.said.contains("cut off"), "{}", ended.said);
}

#[test]
fn a_segment_that_went_missing_after_a_clean_stop_is_refused_and_its_return_is_welcome() {
    let home = Home::new();
    let node = home.start_with(&["--cores", "1"]);
    node.put("a", "1");
    node.terminate();
    let is_used = |bytes: &[u8]| bytes.iter().any(|&byte| byte != 0);
    let used = files(&home.data_dir().join("wal")).into_iter().find(|path| is_used(&fs::read(path).unwrap()));
    let (segment, aside) = (used.expect("a segment with records"), home.data_dir().with_extension("aside"));
    fs::rename(&segment, &aside).unwrap();

    for _ in 0..2 {
        let ended = home.refused(&["--cores", "1"]);
        assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
        assert!(ended.said.contains("a segment in wal is missing"), "{}", ended.said);
    }
    fs::rename(&aside, &segment).unwrap();
    assert_eq!(home.start_with(&["--cores", "1"]).values("a"), ["1"]);
}

#[test]
fn listening_beyond_this_machine_needs_a_token_or_a_word() {
    let home = Home::new();
    let ended = home.refused(&["--listen", "0.0.0.0:0"]);
    assert!(matches!(ended.status.code(), Some(1 | 2)), "{}", ended.said);
    assert!(ended.said.contains("token") && ended.said.contains("insecure"), "{}", ended.said);
}

#[test]
fn a_node_of_nothing_but_defaults_and_flags_keeps_values_through_three_stops() {
    let home = Home::new();
    let node = home.start();
    node.put_json("k", &json!({"valueBase64": base64("one"), "context": "none"})).ok();
    node.put_json("k", &json!({"valueBase64": base64("two"), "context": "none"})).ok();
    node.terminate();
    for _ in 0..3 {
        let node = home.start();
        assert_eq!(node.values("k"), ["one", "two"]);
        node.kill();
    }
}
