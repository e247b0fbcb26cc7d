//! A small disk of a test's own: an ext4 image on a loop device, or a tmpfs where there is none. Needs root.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A mounted file system, taken down when it is dropped.
pub(crate) struct Mount {
    folder: TempDir,
    kind: &'static str,
}

impl Mount {
    /// A disk of that many MiB; none without the right to mount one.
    pub(crate) fn small(mib: u64) -> Option<Mount> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can mount a disk");
            return None;
        }
        let mut mount = Mount { folder: folder(), kind: "ext4" };
        let image = mount.folder.path().join("image");
        fs::create_dir(mount.path()).unwrap();
        File::create(&image).unwrap().set_len(mib * 1_024 * 1_024).unwrap();
        let (image, path) = (image.to_str().unwrap(), mount.path());
        let path = path.to_str().unwrap();
        // No blocks kept back for root, as whom the node runs: a full disk is to be full for it.
        if run("mkfs.ext4", &["-q", "-F", "-m", "0", image]) && run("mount", &["-o", "loop", image, path]) {
            return Some(mount);
        }
        println!("no loop device: a tmpfs in its place");
        if run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", path]) {
            mount.kind = "tmpfs";
            return Some(mount);
        }
        println!("skipped: nothing can be mounted here");
        None
    }

    /// What it is.
    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    /// A second look at a folder, through which nothing can be changed.
    pub(crate) fn read_only(of: &Path) -> Option<Mount> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can mount a folder read-only");
            return None;
        }
        let mount = Mount { folder: folder(), kind: "bind" };
        fs::create_dir(mount.path()).unwrap();
        let (of, path) = (of.to_str().unwrap(), mount.path());
        let path = path.to_str().unwrap();
        if run("mount", &["--bind", of, path]) && run("mount", &["-o", "remount,ro,bind", path]) {
            return Some(mount);
        }
        println!("skipped: nothing can be mounted here");
        None
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Takes all room that is left, with a file that can be removed.
    pub(crate) fn fill(&self) -> PathBuf {
        let ballast = self.path().join("ballast");
        let mut file = File::options().create(true).append(true).open(&ballast).unwrap();
        for bytes in [1_024 * 1_024, 4_096] {
            loop {
                match file.write_all(&vec![1; bytes]).and_then(|()| file.sync_data()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        ballast
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a node that a failed test leaves behind has files open.
        run("umount", &["-l", self.path().to_str().unwrap()]);
    }
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("disk-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Whether a command is there and succeeds.
fn run(command: &str, arguments: &[&str]) -> bool {
    let ran = Command::new(command).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}
