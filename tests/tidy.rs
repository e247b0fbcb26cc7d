//! The walls that neither the compiler nor clippy can see, over every line of the repository.
//!
//! Who may name whom, which foreign crate lives where, what the pure folders never touch, and a few habits. Each wall
//! is a function from a file to complaints, so that a planted line can prove that it is able to fail.

use std::fs;
use std::path::Path;

/// Who may name whom. docs/ARCHITECTURE.md shows the same rows.
const NAMES: [(&str, &[&str]); 10] = [
    ("protocol", &[]),
    ("wire", &["protocol"]),
    ("verify", &["protocol"]),
    ("store", &["protocol", "wire"]),
    ("runtime", &["protocol", "wire", "store"]),
    ("control", &["protocol", "wire", "store", "runtime"]),
    ("client", &["protocol", "wire"]),
    ("lab", &["protocol", "wire", "verify", "client"]),
    ("sim", &["protocol", "wire", "verify", "store"]),
    ("cli", &["protocol", "wire", "verify", "store", "runtime", "control", "client", "lab", "sim"]),
];

/// Where a foreign crate may be named, by the beginnings of paths. Tests may stand in for a neighbour.
const HOMES: [(&str, &[&str]); 16] = [
    ("foca", &["src/protocol/membership"]),
    ("hmac", &["src/wire/proof.rs"]),
    ("sha2", &["src/wire/proof.rs"]),
    ("fjall", &["src/store/lsm"]),
    ("xxhash_rust", &["src/store/lsm"]),
    ("glommio", &["src/runtime/", "src/store/wal/writer.rs"]),
    // Its channels need no runtime: they are how the control thread and the cores answer each other.
    ("tokio::sync", &["src/control/", "src/client/", "src/cli/", "src/runtime/", "src/lab/torture/"]),
    ("tokio", &["src/control/", "src/client/", "src/cli/", "src/runtime/door.rs", "src/lab/torture/"]),
    ("axum", &["src/control/"]),
    ("hyper", &["src/control/", "src/client/", "src/cli/"]),
    ("hyper_util", &["src/control/", "src/client/", "src/cli/"]),
    ("argh", &["src/cli/"]),
    // Their order is hidden there.
    ("foldhash", &["src/protocol/table.rs"]),
    ("hashbrown", &["src/protocol/table.rs", "src/store/resident.rs"]),
    ("mio", &["src/lab/driver/"]),
    ("hdrhistogram", &["src/lab/"]),
];

/// What the pure folders never touch: clocks, threads, disk, network, chance, and maps in a random order.
const IMPURE: [&str; 12] = [
    "Instant::now",
    "SystemTime",
    "std::thread",
    "std::fs",
    "std::net",
    "std::env",
    "HashMap",
    "HashSet",
    "Mutex",
    "rand::",
    "getrandom",
    "async fn",
];

/// The pure folders, and the adapters among their files.
const PURE: [&str; 5] = ["src/protocol/", "src/wire/", "src/verify/", "src/store/", "src/sim/"];
const ADAPTERS: [&str; 5] =
    ["src/store/home.rs", "src/store/cluster.rs", "src/store/lsm", "src/store/snapshot", "src/store/wal/writer.rs"];

/// What is not left behind. Written in two halves, or this file would hold it.
const LEFTOVERS: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("#[", "ignore"),
];

/// A pause needs a reason in the line above it: waiting is done for a condition, with a limit.
const PAUSE: &str = concat!("thread::", "sleep(");

/// Turns a planted fault on: a rehearsal may, and nothing that anybody runs for good.
const PLANTED: &str = concat!("Planted::", "bug(");
const PLANTERS: [&str; 2] = ["src/sim/", "src/protocol/planted.rs"];

const LINE_CHARS_MAX: usize = 120;
const ARCHITECTURE_LINES_MAX: usize = 400;

/// A file of the repository: its path from the root, and its text.
struct File {
    path: String,
    text: String,
}

type Wall = fn(&File) -> Vec<String>;

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    fn stands_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(at, line)| (at + 1, line))
    }

    /// Lines without their comments. A comment may speak of anything.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().map(|(at, line)| (at, line.split("//").next().unwrap_or("")))
    }

    fn complain(&self, at: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{at}: {what}", self.path)
    }
}

/// Whether `line` names `word::..`, as a whole word at the head of a path.
fn names(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        !before.ends_with(is_part) && (after.starts_with("::") || (after == ";" && before.trim() == "use"))
    })
}

/// The folders below `crate::` that a line names.
fn folders(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

fn who_may_name_whom(file: &File) -> Vec<String> {
    let Some((folder, allowed)) =
        NAMES.iter().find(|(folder, _)| file.is_rust() && file.path.starts_with(&format!("src/{folder}/")))
    else {
        return vec![];
    };
    let is_folder = |name: &str| NAMES.iter().any(|(folder, _)| *folder == name);
    let forbidden = |name: &&str| is_folder(name) && name != folder && !allowed.contains(name);
    file.code()
        .flat_map(|(at, line)| folders(line).filter(forbidden).map(move |name| (at, name)))
        .map(|(at, name)| file.complain(at, format!("{folder} names {name}, and may name {allowed:?} only")))
        .collect()
}

fn homes_of_foreign_crates(file: &File) -> Vec<String> {
    if !file.is_rust() || !file.path.starts_with("src/") || file.is_test() {
        return vec![];
    }
    let astray = |line: &str| {
        let (name, homes) = HOMES.iter().find(|(name, _)| names(line, name))?;
        (!file.stands_in(homes)).then(|| format!("{name} lives in {homes:?} only"))
    };
    file.code().filter_map(|(at, line)| Some(file.complain(at, astray(line)?))).collect()
}

fn purity(file: &File) -> Vec<String> {
    if !file.is_rust() || !file.stands_in(&PURE) || file.stands_in(&ADAPTERS) || file.is_test() {
        return vec![];
    }
    let touched = |line: &str| IMPURE.iter().find(|name| line.contains(*name));
    file.code()
        .filter_map(|(at, line)| Some(file.complain(at, format!("a pure folder touches {}", touched(line)?))))
        .collect()
}

fn leftovers(file: &File) -> Vec<String> {
    let left = |line: &str| LEFTOVERS.iter().find(|left| line.contains(*left));
    file.lines()
        .filter(|_| file.is_rust())
        .filter_map(|(at, line)| Some(file.complain(at, format!("{} is left behind", left(line)?))))
        .collect()
}

fn pauses(file: &File) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().collect();
    let has_reason = |at: usize| at.checked_sub(1).is_some_and(|above| lines[above].contains("reason = \""));
    (0..lines.len())
        .filter(|&at| file.is_rust() && lines[at].contains(PAUSE) && !has_reason(at))
        .map(|at| file.complain(at + 1, "a pause without a reason"))
        .collect()
}

fn planted_faults(file: &File) -> Vec<String> {
    if !file.is_rust() || file.stands_in(&PLANTERS) {
        return vec![];
    }
    let planted = file.code().filter(|(_, line)| line.contains(PLANTED));
    planted.map(|(at, _)| file.complain(at, "a fault is planted outside of sim")).collect()
}

fn shape_of_lines(file: &File) -> Vec<String> {
    let mut complaints = vec![];
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        complaints.push(file.complain(file.text.lines().count(), "the last line does not end"));
    }
    for (at, line) in file.lines() {
        if line.contains('\t') {
            complaints.push(file.complain(at, "a tab"));
        }
        if line.ends_with(' ') {
            complaints.push(file.complain(at, "a space at the end"));
        }
        if file.is_rust() && line.chars().count() > LINE_CHARS_MAX {
            complaints.push(file.complain(at, format!("{} columns", line.chars().count())));
        }
    }
    complaints
}

/// Every text file that belongs to the project.
fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![];
    for top in ["src", "tests", "fuzz/fuzz_targets", "benches", "docs", "systemd", ".ci"] {
        collect(root, &root.join(top), &mut found);
    }
    for name in ["README.md", "Cargo.toml", ".clippy.toml", "rustfmt.toml", "fuzz/Cargo.toml"] {
        read(root, &root.join(name), &mut found);
    }
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<File>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    for path in paths {
        match path.is_dir() {
            true if path.ends_with("__pycache__") || path.ends_with("target") => {}
            true => collect(root, &path, found),
            false => read(root, &path, found),
        }
    }
}

/// A file that is not text has no lines to check.
fn read(root: &Path, path: &Path, found: &mut Vec<File>) {
    let Ok(text) = fs::read_to_string(path) else { return };
    let path = path.strip_prefix(root).expect("below the root").to_str().expect("a plain name").to_owned();
    found.push(File { path, text });
}

fn assert_holds(wall: Wall) {
    let complaints: Vec<String> = files().iter().flat_map(wall).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// A wall that cannot fail is none: it must complain of the planted line, and of nothing in the clean one.
fn assert_can_fail(wall: Wall, path: &str, planted: &str, clean: &str) {
    let check = |text: &str| wall(&File { path: path.to_owned(), text: text.to_owned() });
    assert_eq!(check(planted).len(), 1, "{path} {planted:?}: {:?}", check(planted));
    assert!(check(clean).is_empty(), "{path} {clean:?}: {:?}", check(clean));
}

#[test]
fn folders_name_only_whom_they_may() {
    assert_holds(who_may_name_whom);
    let clean = "use crate::protocol::types::Key; // not crate::runtime\n";
    assert_can_fail(who_may_name_whom, "src/wire/a.rs", "use crate::store::Engine;\n", clean);
    let (planted, clean) = ("    crate::wire::Reader::new(b)\n", "use super::wire;\n");
    assert_can_fail(who_may_name_whom, "src/protocol/a/b.rs", planted, clean);
}

#[test]
fn foreign_crates_stay_in_their_homes() {
    assert_holds(homes_of_foreign_crates);
    let clean = "let glommio = 1; // glommio::yield_if_needed\n";
    assert_can_fail(homes_of_foreign_crates, "src/store/engine.rs", "use glommio::io::DmaFile;\n", clean);
    let (planted, clean) = ("    tokio::spawn(task);\n", "use tokio::sync::oneshot;\n");
    assert_can_fail(homes_of_foreign_crates, "src/runtime/peers.rs", planted, clean);
    assert!(
        homes_of_foreign_crates(&File { path: "src/store/lsm.rs".into(), text: "use fjall::Database;".into() })
            .is_empty()
    );
}

#[test]
fn the_pure_folders_never_touch_the_world() {
    assert_holds(purity);
    assert_can_fail(purity, "src/protocol/a.rs", "let now = Instant::now();\n", "let now: Instant = now;\n");
    assert_can_fail(purity, "src/store/engine.rs", "use std::fs::File;\n", "/// as std::fs::File\n");
    assert!(purity(&File { path: "src/store/wal/writer.rs".into(), text: "use std::fs::File;".into() }).is_empty());
}

#[test]
fn nothing_is_left_behind() {
    assert_holds(leftovers);
    let planted = format!("// {}: later\n", LEFTOVERS[0]);
    assert_can_fail(leftovers, "src/a.rs", &planted, "// done\n");
}

#[test]
fn no_pause_is_without_a_reason() {
    assert_holds(pauses);
    let clean = format!("#[expect(clippy::disallowed_methods, reason = \"polls\")]\n{PAUSE}wait);\n");
    assert_can_fail(pauses, "tests/it/a.rs", &format!("{PAUSE}wait);\n"), &clean);
}

#[test]
fn only_a_rehearsal_plants_faults() {
    assert_holds(planted_faults);
    let planted = format!("    planted: {PLANTED}Bug::OldLife),\n");
    assert_can_fail(planted_faults, "src/runtime/node.rs", &planted, "    planted: Planted::NONE,\n");
    assert!(planted_faults(&File { path: "src/sim/a.rs".into(), text: planted }).is_empty());
}

#[test]
fn lines_are_short_and_end() {
    assert_holds(shape_of_lines);
    assert_can_fail(shape_of_lines, "src/a.rs", "fn main() {}", "fn main() {}\n");
    assert_can_fail(shape_of_lines, "docs/A.md", "a\tb\n", &format!("{}\n", "a".repeat(200)));
    let long = format!("{}\n", "a".repeat(LINE_CHARS_MAX + 1));
    assert_can_fail(shape_of_lines, "src/a.rs", &long, &long[1..]);
}

#[test]
fn the_architecture_shows_the_same_table_and_stays_short() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md");
    let text = fs::read_to_string(path).expect("docs/ARCHITECTURE.md is there");
    let lines = text.lines().count();
    assert!(lines < ARCHITECTURE_LINES_MAX, "docs/ARCHITECTURE.md has {lines} lines");
    for (folder, allowed) in NAMES {
        let allowed = if allowed.is_empty() { "itself".to_owned() } else { allowed.join(", ") };
        let row = format!("| {folder} | {allowed} |");
        assert!(text.contains(&row), "docs/ARCHITECTURE.md lacks the row {row}");
    }
}
