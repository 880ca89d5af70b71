//! Disks of a node beside the one that its data directory is on: MOUNT disks that are found by how
//! they are called (DC/OS: `/dcos/volume0`, `/dcos/volume1` …), and those that were configured.
//!
//! It decides that a disk is what it is said to be; who uses one is not decided here.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use gantry_wire::mesos::amounts::scalar_resource;
use gantry_wire::mesos::v1::Resource;
use gantry_wire::mesos::v1::resource::DiskInfo;
use gantry_wire::mesos::v1::resource::disk_info::Source;
use gantry_wire::mesos::v1::resource::disk_info::source::{Mount, Type};
use gantry_wire::units::Bytes;

/// Disks that a node may have.
const DISKS_MAX: usize = 256;

/// Why a disk cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The mounts of this machine cannot be read.
    #[error("reading /proc/self/mountinfo")]
    Mounts(#[source] io::Error),
    /// The directory is not there.
    #[error("the disk {}", root.display())]
    Root {
        /// The directory.
        root: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing is mounted there.
    #[error("nothing is mounted on {}: a MOUNT disk must be a filesystem of its own", _0.display())]
    NotMounted(PathBuf),
    /// More than can be told.
    #[error("more than {DISKS_MAX} disks")]
    Many,
}

/// Those that were listed, checked, and every mount called `prefix` and a number; the list wins where
/// both mean the same directory.
pub(crate) fn find(prefix: &str, listed: &[Resource]) -> Result<Vec<Resource>, DiskError> {
    let mut disks = listed.to_vec();
    for disk in listed {
        check(disk)?;
    }
    if !prefix.is_empty() {
        let text = fs::read_to_string("/proc/self/mountinfo").map_err(DiskError::Mounts)?;
        for point in mounts(&text, prefix) {
            if disks.iter().any(|disk| root(disk) == Some(point)) {
                continue;
            }
            let failed = |source| DiskError::Root {
                root: point.into(),
                source,
            };
            let stat = rustix::fs::statvfs(point).map_err(|e| failed(e.into()))?;
            let size = Bytes(stat.f_blocks.saturating_mul(stat.f_frsize));
            disks.push(mount_disk(point, size));
        }
    }
    if disks.len() > DISKS_MAX {
        return Err(DiskError::Many);
    }
    Ok(disks)
}

/// Mount points of proc_pid_mountinfo(5) that are called `prefix` and a number, in its order, once.
fn mounts<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    let mut found: Vec<&str> = Vec::new();
    for point in points {
        let number = point.strip_prefix(prefix).unwrap_or_default();
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if is_number && !found.contains(&point) {
            found.push(point);
        }
    }
    found
}

fn mount_disk(root: &str, size: Bytes) -> Resource {
    // Whole MiB, as DC/OS writes them.
    let mut disk = scalar_resource("disk", (size.0 >> 20) as f64);
    disk.disk = Some(DiskInfo {
        source: Some(Box::new(Source {
            r#type: Type::Mount as i32,
            mount: Some(Mount {
                root: Some(root.to_owned()),
            }),
            ..Source::default()
        })),
        ..DiskInfo::default()
    });
    disk
}

fn source(disk: &Resource) -> Option<&Source> {
    disk.disk.as_ref()?.source.as_deref()
}

/// The directory of a disk.
pub(crate) fn root(disk: &Resource) -> Option<&str> {
    let source = source(disk)?;
    match source.r#type() {
        Type::Path => source.path.as_ref()?.root.as_deref(),
        Type::Mount => source.mount.as_ref()?.root.as_deref(),
        _ => None,
    }
}

fn check(disk: &Resource) -> Result<(), DiskError> {
    // `offer` takes none without.
    let Some(root) = root(disk).map(Path::new) else {
        return Ok(());
    };
    let failed = |source| DiskError::Root {
        root: root.to_owned(),
        source,
    };
    let meta = fs::metadata(root).map_err(failed)?;
    if !meta.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    let above = fs::metadata(root.join("..")).map_err(failed)?;
    let is_mount = source(disk).is_some_and(|source| source.r#type() == Type::Mount);
    if is_mount && meta.dev() == above.dev() && meta.ino() != above.ino() {
        return Err(DiskError::NotMounted(root.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use gantry_wire::mesos::resources_text::parse;

    use super::*;

    #[test]
    fn mounts_are_found_by_their_names() {
        let text = "36 35 98:0 / /dcos/volume0 rw - ext4 /dev/a rw\n\
                    37 35 98:0 / /dcos/volume12 rw - ext4 /dev/b rw\n\
                    37 35 98:0 / /dcos/volume12 rw - ext4 /dev/b rw\n\
                    38 35 98:0 / /dcos/volumes rw - ext4 /dev/b rw\n\
                    39 35 98:0 / /dcos/volume1/x rw - ext4 /dev/b rw\n\
                    40 35 98:0 / / rw - ext4 /dev/b rw\nodd\n";
        assert_eq!(
            mounts(text, "/dcos/volume"),
            ["/dcos/volume0", "/dcos/volume12"]
        );
        let disk = mount_disk("/d", Bytes(3 << 20));
        let json = r#"[{"name":"disk","type":"SCALAR","scalar":{"value":3},
            "disk":{"source":{"type":"MOUNT","mount":{"root":"/d"}}}}]"#;
        assert_eq!(parse(json, "*").unwrap(), [disk]);
    }

    #[test]
    fn listed_disks_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let at = |root: &Path| {
            let mut disk = mount_disk(root.to_str().unwrap(), Bytes(1 << 20));
            let source = disk.disk.as_mut().unwrap().source.as_mut().unwrap();
            source.path = Some(gantry_wire::mesos::v1::resource::disk_info::source::Path {
                root: source.mount.as_ref().unwrap().root.clone(),
            });
            disk
        };
        let path = |root: &Path| {
            let mut disk = at(root);
            disk.disk.as_mut().unwrap().source.as_mut().unwrap().r#type = Type::Path as i32;
            disk
        };
        assert_eq!(find("", &[path(dir.path())]).unwrap().len(), 1);
        assert!(matches!(
            find("", &[at(dir.path())]),
            Err(DiskError::NotMounted(_))
        ));
        assert_eq!(find("", &[at(Path::new("/proc"))]).unwrap().len(), 1);
        let missing = path(&dir.path().join("x"));
        assert!(matches!(find("", &[missing]), Err(DiskError::Root { .. })));
    }
}
