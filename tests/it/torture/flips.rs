//! One bit turned in a file at rest. The node says which file, and what to do, or serves exactly what was written:
//! never another value, never nothing in place of a value, never a panic.
//!
//! The one thing that may be gone is the very last write before the kill: nothing later states that it was durable
//! (docs/STORAGE.md, "Reading back").

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::dice::{Dice, seed, setting};
use crate::harness::{Ended, Home, Node, files};

const FLAGS: [&str; 4] = ["--cores", "1", "--memory", "96MiB"];

/// A directory, and what every read of it must find: a value, or none where it was deleted.
struct Kept {
    home: Home,
    expected: BTreeMap<String, Option<String>>,
    dice: Dice,
}

impl Kept {
    /// Values of all sizes and deleted keys: in the tree (two chunks, blobs beside it), and in the log alone.
    fn new() -> Kept {
        let mut kept = Kept { home: Home::new(), expected: BTreeMap::new(), dice: Dice(seed()) };
        for life in 0..3 {
            let node = kept.home.start_with(&FLAGS);
            for n in 0..40 {
                let bytes = [10, 200, 5_000, 40_000][n % 4];
                kept.put(&node, format!("k{}", 25 * life + n), bytes);
            }
            kept.delete(&node, format!("k{}", 25 * life + 3));
            if life < 2 {
                assert_eq!(node.get("/admin/snapshot").status, 200, "what was written so far is in the tree now");
            }
            // Nothing depends on it.
            node.put("last", "write");
            node.kill();
        }
        kept
    }

    fn put(&mut self, node: &Node, key: String, bytes: usize) {
        // Digits that repeat nothing: compressed they would be too small a target.
        let value: String = (0..=bytes / 16).map(|_| format!("{:016x}", self.dice.next())).collect();
        node.put(&key, &value);
        self.expected.insert(key, Some(value));
    }

    fn delete(&mut self, node: &Node, key: String) {
        node.delete(&format!("/kv/{key}")).ok();
        self.expected.insert(key, None);
    }

    /// A copy of it, with one bit turned.
    fn turned(&self, turn: &Turn) -> Home {
        let home = Home::new();
        copy(&self.home.data_dir(), &home.data_dir());
        let path = home.data_dir().join(&turn.file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[turn.at] ^= 1 << turn.bit;
        fs::write(path, bytes).unwrap();
        home
    }

    /// Starts on a copy with one bit turned, and reads everything.
    fn judge(&self, turn: &Turn) -> Verdict {
        let home = self.turned(turn);
        let mut node = match home.try_start(&FLAGS) {
            Ok(node) => node,
            Err(ended) => return Verdict::Refused(ended),
        };
        let mut told = None;
        for (key, expected) in &self.expected {
            let raw = [("Accept", "application/octet-stream")];
            let reply = node.request("GET", &format!("/kv/{key}"), &raw, b"");
            match (reply.status, expected) {
                (200, Some(value)) if reply.body == value.as_bytes() => {}
                (404, None) => {}
                (500, _) => told = Some(reply.error()),
                (status, _) => return Verdict::Wrong(format!("{key}: {status}, {} bytes", reply.body.len())),
            }
        }
        // A snapshot reads everything that the tree has; one that cannot be taken breaks off.
        crate::harness::try_exchange(
            node.http,
            b"GET /admin/snapshot HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        );
        match (node.is_running(), told) {
            (false, _) => Verdict::Wrong(format!("it ended: {}", node.kill().said)),
            (true, Some(error)) => Verdict::Unreadable(error),
            (true, None) => Verdict::Harmless,
        }
    }
}

/// One bit of one file, by its path in the data directory.
#[derive(Debug)]
struct Turn {
    file: PathBuf,
    at: usize,
    bit: u8,
}

/// What a node made of it.
enum Verdict {
    Harmless,
    Refused(Ended),
    /// Reads of what was hit failed with this.
    Unreadable(String),
    Wrong(String),
}

fn copy(from: &Path, to: &Path) {
    for path in files(from) {
        let there = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(there.parent().unwrap()).unwrap();
        fs::copy(&path, there).unwrap();
    }
}

/// Turns bits one after the other, and checks what each leads to. `words` must stand in whatever the node says.
fn turn_bits(kept: &Kept, turns: impl Iterator<Item = Turn>, words: &[&str]) {
    let (mut harmless, mut refused, mut unreadable, mut complaints) = (0, 0, 0, vec![]);
    for turn in turns {
        let said = match kept.judge(&turn) {
            Verdict::Harmless => {
                harmless += 1;
                continue;
            }
            Verdict::Wrong(what) => {
                complaints.push(format!("{turn:?}: {what}"));
                continue;
            }
            Verdict::Refused(ended) => {
                refused += 1;
                format!("{} {}", ended.status, ended.said)
            }
            Verdict::Unreadable(error) => {
                unreadable += 1;
                error
            }
        };
        let missing = words.iter().find(|word| !said.contains(*word));
        if missing.is_some() || said.contains("panicked") || said.contains("signal") {
            complaints.push(format!("{turn:?}: {missing:?} is not in: {said}"));
        }
    }
    println!("{harmless} harmless, {refused} refused at the start, {unreadable} unreadable, seed {}", seed());
    assert!(complaints.is_empty(), "seed {}:\n{}", seed(), complaints.join("\n"));
}

fn turns() -> u64 {
    setting("SLOOP_TEST_FLIPS", 8)
}

#[test]
fn a_turned_bit_in_the_log_is_refused_with_file_and_byte_or_harmless() {
    let kept = Kept::new();
    let mut dice = Dice(seed());
    let used = |path: &PathBuf| {
        let used = fs::read(path).unwrap().iter().rposition(|&byte| byte != 0)?;
        Some((path.strip_prefix(kept.home.data_dir()).unwrap().to_owned(), used + 1))
    };
    let segments: Vec<(PathBuf, usize)> = files(&kept.home.data_dir().join("wal")).iter().filter_map(used).collect();
    let turns = (0..turns()).map(|_| {
        let (file, used) = &segments[dice.index(segments.len())];
        Turn { file: file.clone(), at: dice.index(*used), bit: dice.index(8) as u8 }
    });
    turn_bits(&kept, turns, &["wal", ".seg", "byte", "damaged", "restore the data directory"]);
}

#[test]
fn a_turned_bit_in_the_tree_is_refused_with_its_folder_or_harmless() {
    let kept = Kept::new();
    let mut dice = Dice(seed());
    let lengths = |path: &PathBuf| {
        let length = fs::metadata(path).unwrap().len() as usize;
        (length > 0).then(|| (path.strip_prefix(kept.home.data_dir()).unwrap().to_owned(), length))
    };
    let tree: Vec<(PathBuf, usize)> = files(&kept.home.data_dir().join("lsm")).iter().filter_map(lengths).collect();
    let turns = (0..2 * turns()).map(|turn| {
        let (file, length) = &tree[dice.index(tree.len())];
        // Half of them where a table has its index, filter and trailer, which are few bytes of it.
        let from = if turn % 2 == 0 { 0 } else { length.saturating_sub(2_000) };
        Turn { file: file.clone(), at: from + dice.index(length - from), bit: dice.index(8) as u8 }
    });
    turn_bits(&kept, turns, &["/lsm", "restore the data directory"]);
}
