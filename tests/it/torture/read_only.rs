//! A data directory that cannot be written: one message that says where and why, exit code 1, and nothing changed, not
//! even for the parts that could be.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::mount::Mount;
use crate::harness::{Ended, Home, files};

/// "nobody", on every Linux.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whose nodes run as an ordinary user.
fn ordinary() -> Option<Home> {
    if !is_root() {
        return Some(Home::new());
    }
    let home = Home::new().open_to_all().run_by(NOBODY);
    if !home.runs() {
        println!("skipped: user {NOBODY} cannot run the binary, or there is no setpriv");
        return None;
    }
    Some(home)
}

/// A directory that has seen a start and some writes.
fn used(home: &Home) {
    let node = home.start_with(&["--cores", "1"]);
    for n in 0..10 {
        node.put(&format!("k{n}"), "v");
    }
    node.kill();
}

/// Every file with its length and sum.
fn contents(folder: &Path) -> BTreeMap<PathBuf, (usize, u32)> {
    let sum = |bytes: Vec<u8>| (bytes.len(), crc32c::crc32c(&bytes));
    files(folder).into_iter().map(|path| (path.clone(), sum(fs::read(path).unwrap()))).collect()
}

/// Every folder and file below, and the folder itself.
fn all_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(all_below(&path)) } else { found.push(path) }
    }
    found
}

fn allow(paths: &[PathBuf], writing: bool) {
    for path in paths {
        let mode = match (path.is_dir(), writing) {
            (true, true) => 0o755,
            (true, false) => 0o555,
            (false, true) => 0o644,
            (false, false) => 0o444,
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// One message: the last line, with the place and a reason; no panic and no second error beside it.
fn assert_told(ended: &Ended, place: &Path, reason: &str) {
    assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
    let told: Vec<&str> = ended.said.lines().filter(|line| line.starts_with("sloop: ")).collect();
    assert_eq!(told.len(), 1, "{}", ended.said);
    let place = place.to_str().unwrap();
    assert!(told[0].contains(place) && told[0].to_lowercase().contains(reason), "{}", ended.said);
    assert!(!ended.said.contains("panicked") && !ended.said.contains("ERROR"), "{}", ended.said);
    println!("{}", told[0]);
}

#[test]
fn a_directory_that_this_user_may_not_write_is_refused_and_unchanged() {
    let Some(home) = ordinary() else { return };
    used(&home);
    let before = contents(&home.data_dir());
    for name in ["wal", "lsm", "."] {
        let part = all_below(&home.data_dir().join(name));
        allow(&part, false);
        let ended = home.refused(&["--cores", "1"]);
        assert_told(&ended, &home.data_dir(), "permission denied (os error 13) (run as the user who owns it");
        assert_eq!(contents(&home.data_dir()), before, "{name}: nothing was changed");
        allow(&part, true);
    }
    assert_eq!(home.start_with(&["--cores", "1"]).values("k7"), ["v"]);
}

#[test]
fn a_directory_of_another_user_is_refused_and_unchanged() {
    if !is_root() {
        return println!("skipped: only root can give a directory away");
    }
    let Some(home) = ordinary() else { return };
    used(&home);
    let before = contents(&home.data_dir());
    all_below(&home.data_dir()).iter().for_each(|path| chown(path, Some(0), Some(0)).unwrap());

    let ended = home.refused(&["--cores", "1"]);
    assert_told(&ended, &home.data_dir(), "permission denied");
    assert_eq!(contents(&home.data_dir()), before);
}

#[test]
fn a_folder_in_which_no_directory_can_be_made_is_refused() {
    let Some(home) = ordinary() else { return };
    let parent = home.data_dir().with_file_name("parent");
    fs::create_dir(&parent).unwrap();
    allow(std::slice::from_ref(&parent), false);
    let data = parent.join("data");

    let ended = home.keep_in(&data).refused(&["--cores", "1"]);
    assert_told(&ended, &data, "permission denied");
    assert!(!data.exists());
}

#[test]
fn a_read_only_file_system_is_refused_and_unchanged() {
    let home = Home::new();
    used(&home);
    let before = contents(&home.data_dir());
    let Some(mount) = Mount::read_only(&home.data_dir()) else { return };

    let ended = Home::at(mount.path()).refused(&["--cores", "1"]);
    assert_told(&ended, &mount.path(), "read-only file system");
    assert_eq!(contents(&home.data_dir()), before);
    drop(mount);
    assert_eq!(home.start_with(&["--cores", "1"]).values("k7"), ["v"]);
}

#[test]
fn an_empty_read_only_file_system_is_refused() {
    let empty = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let Some(mount) = Mount::read_only(empty.path()) else { return };
    for data in [mount.path(), mount.path().join("data")] {
        let ended = Home::at(data.clone()).refused(&["--cores", "1"]);
        assert_told(&ended, &data, "read-only file system");
    }
    assert!(files(empty.path()).is_empty());
}
