//! Where a directory lies in its file system, and which mounts of a process show what is in it.
//!
//! `/proc/<pid>/mountinfo` shows a process only what lies below its root, and a process may change
//! that (chroot(2)): what is not listed is therefore no proof of anything, see [`Table::kind`].
//! Everything here is read as bytes: names are the task's to choose.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, statx};
use rustix::io::Errno;

/// Longest table that is read; a container has some thirty mounts, 100 bytes each.
const MAX_TABLE_BYTES: u64 = 1 << 20;
/// The same for the host, which may have thousands.
const MAX_HOST_TABLE_BYTES: u64 = 64 << 20;

/// A directory of the host, such as all sandboxes are in, found in its file system.
#[derive(Clone, Debug)]
pub struct Place {
    dir: PathBuf,
    /// As `mountinfo` names the file system: its number is not what `stat` says on btrfs.
    device: Vec<u8>,
    /// The directory's name from the root of its file system.
    within: Vec<u8>,
}

/// What a mount is to a task's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It shows the sandbox, or a part of it.
    Sandbox,
    /// It is the overlay that the root is.
    Root,
    /// A volume, or in memory: not charged here.
    Other,
}

/// One line of `mountinfo`.
struct Line<'a> {
    id: u64,
    device: &'a [u8],
    root: Vec<u8>,
    point: Vec<u8>,
    kind: &'a [u8],
}

/// The mounts that a process sees.
#[derive(Debug, Default)]
pub(super) struct Table {
    kinds: Vec<(u64, Kind)>,
}

impl Place {
    /// Finds an absolute directory without links.
    ///
    /// # Errors
    /// It is not there, or on no mount that this process sees.
    pub fn find(dir: &Path) -> std::io::Result<Self> {
        let found = statx(CWD, dir, AtFlags::empty(), StatxFlags::MNT_ID)?;
        let mut text = Vec::new();
        let file = File::open("/proc/self/mountinfo")?;
        file.take(MAX_HOST_TABLE_BYTES).read_to_end(&mut text)?;
        let mut lines = text.split(|byte| *byte == b'\n').filter_map(parse);
        let line = lines.find(|line| line.id == found.stx_mnt_id);
        let line = line.ok_or(std::io::ErrorKind::NotFound)?;
        let point = Path::new(std::ffi::OsStr::from_bytes(&line.point));
        let below = dir.strip_prefix(point).map_err(std::io::Error::other)?;
        Ok(Self {
            dir: dir.to_owned(),
            device: line.device.to_vec(),
            within: join(&line.root, below),
        })
    }

    /// The name of a directory below this one, from the root of the file system.
    fn of(&self, below: &Path) -> Option<Vec<u8>> {
        let rest = below.strip_prefix(&self.dir).ok()?;
        Some(join(&self.within, rest))
    }
}

fn join(one: &[u8], rest: &Path) -> Vec<u8> {
    let mut joined = one.strip_suffix(b"/").unwrap_or(one).to_vec();
    if !rest.as_os_str().is_empty() {
        joined.push(b'/');
        joined.extend_from_slice(rest.as_os_str().as_bytes());
    }
    joined
}

impl Table {
    /// What the process whose directory of /proc this is sees, as far as it goes.
    pub(super) fn read(process: &OwnedFd, place: &Place, sandbox: &Path) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(process, c"mountinfo", flags, Mode::empty())?;
        let mut text = Vec::new();
        let read = File::from(file)
            .take(MAX_TABLE_BYTES)
            .read_to_end(&mut text);
        read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        Ok(Self::parse(&text, place, sandbox))
    }

    fn parse(text: &[u8], place: &Place, sandbox: &Path) -> Self {
        let sandbox = place.of(sandbox);
        let lines = text.split(|byte| *byte == b'\n').filter_map(parse);
        let kind = |line: &Line<'_>| {
            let is_below = |sandbox: &Vec<u8>| {
                let rest = line.root.strip_prefix(sandbox.as_slice());
                rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
            };
            if line.kind == b"overlay" && line.point == b"/" {
                Kind::Root
            } else if line.device == place.device && sandbox.as_ref().is_some_and(is_below) {
                Kind::Sandbox
            } else {
                Kind::Other
            }
        };
        Self {
            kinds: lines.map(|line| (line.id, kind(&line))).collect(),
        }
    }

    /// What a mount is; None when it is not seen.
    pub(super) fn kind(&self, mount: u64) -> Option<Kind> {
        let found = self.kinds.iter().find(|(id, _)| *id == mount);
        found.map(|(_, kind)| *kind)
    }
}

/// proc_pid_mountinfo(5): id, parent, device, root, mount point, options, optional fields, "-", type.
fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = fields.nth(1)?;
    let (root, point) = (plain(fields.next()?), plain(fields.next()?));
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Line {
        id,
        device,
        root,
        point,
        kind,
    })
}

/// Without the kernel's escapes: a backslash and three octal digits.
fn plain(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut at = 0;
    while let Some(byte) = field.get(at) {
        let digits = field.get(at + 1..at + 4).filter(|_| *byte == b'\\');
        let number = digits.and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        plain.push(number.unwrap_or(*byte));
        at += if number.is_some() { 4 } else { 1 };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            dir: "/srv/gantry/slaves".into(),
            device: b"254:0".to_vec(),
            within: b"/data/gantry/slaves".to_vec(),
        }
    }

    #[test]
    fn mounts_are_told_apart_by_what_they_show() {
        let text = b"\
51 27 0:43 / / rw,relatime - overlay overlay rw,lowerdir=/,upperdir=upper
52 51 254:0 /data/gantry/slaves/a/r\\040x /mnt/mesos/sandbox rw - ext4 /dev/vda rw
53 51 254:0 /data/gantry/slaves/a/r\\040x/sub /elsewhere rw shared:1 master:2 - ext4 /dev/vda rw
54 51 254:0 /data/gantry/slaves/a/r\\040xy /neighbour rw - ext4 /dev/vda rw
55 51 8:1 /data/gantry/slaves/a/r\\040x /other/disk rw - ext4 /dev/sdb rw
56 51 0:44 / /image rw - overlay overlay ro
57 51 254:0 /data /volume rw - ext4 /dev/vda rw
58 51 0:45 / /tmp - - tmpfs
not a line
";
        let table = Table::parse(text, &place(), Path::new("/srv/gantry/slaves/a/r x"));
        let want = [
            (51, Some(Kind::Root)),
            (52, Some(Kind::Sandbox)),
            (53, Some(Kind::Sandbox)),
            (54, Some(Kind::Other)),
            (55, Some(Kind::Other)),
            (56, Some(Kind::Other)),
            (57, Some(Kind::Other)),
            (58, Some(Kind::Other)),
            (59, None),
        ];
        for (mount, kind) in want {
            assert_eq!(table.kind(mount), kind, "{mount}");
        }
    }

    #[test]
    fn a_directory_is_found_where_its_file_system_has_it() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let below = dir.path().join("a b");
        std::fs::create_dir(&below).unwrap();
        let found = Place::find(&below).unwrap();
        // A mount of the directory says the same name.
        let within = String::from_utf8(found.within.clone()).unwrap();
        assert!(within.ends_with("/a b"), "{within}");
        assert_eq!(
            found.of(&below.join("c")).unwrap(),
            format!("{within}/c").into_bytes()
        );
        assert_eq!(found.of(Path::new("/elsewhere")), None);
        assert!(Place::find(&dir.path().join("none")).is_err());
    }

    #[test]
    fn escapes_are_taken_back() {
        assert_eq!(plain(b"a\\040b\\134\\011"), b"a b\\\t");
        assert_eq!(plain(b"\\9\\04"), b"\\9\\04");
    }
}
