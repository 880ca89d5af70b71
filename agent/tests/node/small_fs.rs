//! File systems in files, small enough to be filled, mounted while a test runs.

use std::path::PathBuf;
use std::process::Command;

/// One, gone when dropped.
pub(crate) struct SmallFs {
    dir: tempfile::TempDir,
}

impl SmallFs {
    /// `mkfs` with arguments makes it.
    pub(crate) fn new(mkfs: &str, arguments: &[&str], mib: u64) -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let made = Self { dir };
        let (image, mount) = (made.dir.path().join("image"), made.path());
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(mib << 20).unwrap();
        std::fs::create_dir(&mount).unwrap();
        let image = image.to_str().unwrap();
        command(mkfs, &[arguments, &[image]].concat());
        command("mount", &["-o", "loop", image, mount.to_str().unwrap()]);
        made
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("mount")
    }
}

impl Drop for SmallFs {
    fn drop(&mut self) {
        // What cannot be unmounted stays, and the assertion that failed says more.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Runs a program that must succeed; its output.
pub(crate) fn command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let fine = output.status.success();
    assert!(fine, "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
