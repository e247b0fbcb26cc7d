//! Every scene of the folder goes as it was written down.

use std::fs;
use std::path::{Path, PathBuf};

use super::play;
use crate::protocol::planted::{Bug, Planted};

/// Rewrites the scenes as they go now, for whoever reviews the difference.
const BLESS: &str = "SLOOP_BLESS";

fn scenes() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sim/scenes");
    let entries = fs::read_dir(folder).expect("the folder of this file");
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    let mut scenes: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "txt")).collect();
    scenes.sort();
    scenes
}

/// What stands in one and not in the other, from the first such line to the last.
fn difference(written: &str, played: &str) -> String {
    let (written, played): (Vec<&str>, Vec<&str>) = (written.lines().collect(), played.lines().collect());
    let most = written.len().min(played.len());
    let same = (0..most).take_while(|at| written[*at] == played[*at]).count();
    let tail = (0..most - same).take_while(|back| {
        let of = |lines: &[&str]| lines[lines.len() - 1 - back].to_owned();
        of(&written) == of(&played)
    });
    let tail = tail.count();
    let lines = |mark: char, lines: &[&str]| {
        let marked = lines[same..lines.len() - tail].iter().map(|line| format!("{mark} {line}\n"));
        marked.collect::<String>()
    };
    format!("from line {}:\n{}{}", same + 1, lines('-', &written), lines('+', &played))
}

#[test]
fn scenes_go_as_they_are_written() {
    let blesses = std::env::var_os(BLESS).is_some();
    let mut failed = Vec::new();
    for path in scenes() {
        let written = fs::read_to_string(&path).expect("a scene is text");
        // Shown where it fails.
        println!("{}", path.display());
        let played = play(&written, Planted::NONE);
        if blesses {
            fs::write(&path, &played).expect("the folder takes it");
        } else if written != played {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            failed.push(format!("{name} goes otherwise, {}", difference(&written, &played)));
        }
    }
    assert!(failed.is_empty(), "\n{}\n{BLESS}=1 rewrites the scenes", failed.join("\n"));
}

#[test]
fn a_scene_goes_the_same_way_twice() {
    let scene = "cluster nodes=4\n> put k 1 at spare1\n> kill owner2\n> get k at owner1\n";
    assert_eq!(play(scene, Planted::NONE), play(scene, Planted::NONE));
}

#[test]
fn another_conversation_shows_as_a_difference() {
    assert_eq!(difference("a\nb\nc\n", "a\nx\ny\nc\n"), "from line 2:\n- b\n+ x\n+ y\n");
}

#[test]
fn a_planted_fault_shows_in_the_conversation() {
    let faults = [
        ("delete_and_collection", Bug::OwnersOnly),
        ("stale_layout", Bug::StaleLayout),
        ("stale_layout", Bug::NoDrain),
        ("leave", Bug::EarlyCleanup),
    ];
    for (name, bug) in faults {
        let path = scenes().into_iter().find(|path| path.file_stem().is_some_and(|stem| stem == name));
        let written = fs::read_to_string(path.expect("a scene of this name")).expect("a scene is text");
        assert_ne!(play(&written, Planted::bug(bug)), written, "{} in {name}", bug.name());
    }
}
