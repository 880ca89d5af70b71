//! Finding a user and its groups in the container's own `/etc/passwd` and `/etc/group`.
//!
//! The files are the image's, so they are read within fixed bounds (GO-2026-5475: a huge one must
//! not eat memory): the first mebibyte, lines up to four kibibytes. No name service is asked.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Gid, OFlags, Uid};
use rustix::io::Errno;

use super::{Fault, paths};
use crate::plan::{Name, Who};
use crate::spec;

/// Bytes read of each file.
const MAX_FILE_BYTES: usize = 1 << 20;
/// Longest line that counts.
const MAX_LINE_BYTES: usize = 4096;
/// Supplementary groups of one user in the image's files.
const MAX_FOUND_GROUPS: usize = 64;
/// Those and the ones that the spec adds.
const MAX_GROUPS: usize = MAX_FOUND_GROUPS + spec::MAX_GROUPS;
/// Longest user name that is looked for in group lists.
const MAX_NAME_BYTES: usize = 256;

/// Numbers to run as.
#[derive(Debug)]
pub(super) struct Identity {
    uid: u32,
    gid: u32,
    groups: [Gid; MAX_GROUPS],
    group_count: usize,
    found: bool,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            uid: 0,
            gid: 0,
            groups: [Gid::ROOT; MAX_GROUPS],
            group_count: 0,
            found: false,
        }
    }
}

impl Identity {
    /// Takes known numbers unless a look-up has found some.
    pub(super) fn settle(&mut self, who: &Who) {
        if let (Who::Ids(uid, gid), false) = (who, self.found) {
            (self.uid, self.gid) = (*uid, *gid);
        }
    }

    pub(super) fn uid(&self) -> Uid {
        Uid::from_raw(self.uid)
    }

    pub(super) fn gid(&self) -> Gid {
        Gid::from_raw(self.gid)
    }

    pub(super) fn groups(&self) -> &[Gid] {
        &self.groups[..self.group_count]
    }

    /// Adds supplementary groups; for numbers that stand for themselves there are no others.
    pub(super) fn add_groups(&mut self, groups: &[u32]) {
        for group in groups {
            self.add_group(*group);
        }
    }

    fn add_found(&mut self, gid: u32) {
        if self.group_count < MAX_FOUND_GROUPS {
            self.add_group(gid);
        }
    }

    fn add_group(&mut self, gid: u32) {
        if self.group_count < MAX_GROUPS {
            self.groups[self.group_count] = Gid::from_raw(gid);
            self.group_count += 1;
        }
    }
}

/// Finds the numbers for `who` below `root`.
pub(super) fn look_up(root: BorrowedFd<'_>, who: &Who) -> Result<Identity, Fault> {
    let mut identity = Identity::default();
    let Who::LookUp { user, group } = who else {
        return Ok(identity);
    };
    let mut name = [0; MAX_NAME_BYTES];
    let mut name_len = 0;
    match find_user(root, user)? {
        Some(entry) => {
            (identity.uid, identity.gid) = (entry.uid, entry.gid);
            (name, name_len) = (entry.name, entry.name_len);
        }
        // As Docker: a number need not be in the file and then has group 0.
        None => match user {
            Name::Id(uid) => identity.uid = *uid,
            Name::Name(_) => return Err(Fault::NoUser),
        },
    }
    match group {
        Some(group) => identity.gid = find_group(root, group)?,
        // With an explicit group there are no supplementary ones, as Docker has it.
        None if name_len > 0 => add_memberships(root, &name[..name_len], &mut identity)?,
        None => {}
    }
    identity.found = true;
    Ok(identity)
}

/// User and group of `who`, by the `passwd` and the `group` file below one root each; for whoever
/// has to know them before there is a container.
pub(crate) fn numbers(
    passwd: BorrowedFd<'_>,
    group_file: BorrowedFd<'_>,
    who: &Who,
) -> Result<(u32, u32), Fault> {
    let (user, group) = match who {
        Who::Ids(uid, gid) => return Ok((*uid, *gid)),
        Who::LookUp { user, group } => (user, group),
    };
    let (uid, own) = match (find_user(passwd, user)?, user) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, Name::Id(uid)) => (*uid, 0),
        (None, Name::Name(_)) => return Err(Fault::NoUser),
    };
    match group {
        Some(group) => Ok((uid, find_group(group_file, group)?)),
        None => Ok((uid, own)),
    }
}

#[derive(Clone, Copy)]
struct Entry {
    uid: u32,
    gid: u32,
    name: [u8; MAX_NAME_BYTES],
    name_len: usize,
}

fn find_user(root: BorrowedFd<'_>, user: &Name) -> Result<Option<Entry>, Fault> {
    let mut found = None;
    each_line(root, c"etc/passwd", |line| {
        let mut fields = line.split(|b| *b == b':');
        let (name, _, uid, gid) = (fields.next(), fields.next(), fields.next(), fields.next());
        let (Some(name), Some(uid), Some(gid)) = (name, uid.and_then(number), gid.and_then(number))
        else {
            return true;
        };
        let same = match user {
            Name::Id(wanted) => *wanted == uid,
            Name::Name(wanted) => wanted.as_bytes() == name,
        };
        if same && name.len() <= MAX_NAME_BYTES {
            let mut kept = [0; MAX_NAME_BYTES];
            kept[..name.len()].copy_from_slice(name);
            found = Some(Entry {
                uid,
                gid,
                name: kept,
                name_len: name.len(),
            });
        }
        found.is_none()
    })?;
    Ok(found)
}

fn find_group(root: BorrowedFd<'_>, group: &Name) -> Result<u32, Fault> {
    let wanted = match group {
        Name::Id(gid) => return Ok(*gid),
        Name::Name(wanted) => wanted,
    };
    let mut found = None;
    each_line(root, c"etc/group", |line| {
        let mut fields = line.split(|b| *b == b':');
        if fields.next() == Some(wanted.as_bytes()) {
            found = fields.nth(1).and_then(number);
        }
        found.is_none()
    })?;
    found.ok_or(Fault::NoGroup)
}

fn add_memberships(
    root: BorrowedFd<'_>,
    name: &[u8],
    identity: &mut Identity,
) -> Result<(), Fault> {
    each_line(root, c"etc/group", |line| {
        let mut fields = line.split(|b| *b == b':').skip(2);
        let (gid, members) = (
            fields.next().and_then(number),
            fields.next().unwrap_or_default(),
        );
        if let Some(gid) = gid
            && members
                .split(|b| *b == b',')
                .any(|member| member.trim_ascii() == name)
        {
            identity.add_found(gid);
        }
        true
    })
}

/// Digits within the range of ids; anything else is no number.
fn number(text: &[u8]) -> Option<u32> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let value: u32 = std::str::from_utf8(text)
        .ok()
        .filter(|_| digits)?
        .parse()
        .ok()?;
    Some(value).filter(|value| *value != u32::MAX)
}

/// Calls `visit` with each line until it says false. A file that is missing has no lines.
fn each_line(
    root: BorrowedFd<'_>,
    path: &CStr,
    mut visit: impl FnMut(&[u8]) -> bool,
) -> Result<(), Fault> {
    // Non-blocking: the image may have a FIFO there.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match paths::open(root, path, flags, paths::WITHIN) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    if !FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_file() {
        return Err(Errno::INVAL.into());
    }
    read_lines(&file, &mut visit)
}

fn read_lines(file: &OwnedFd, visit: &mut impl FnMut(&[u8]) -> bool) -> Result<(), Fault> {
    let mut buffer = [0; MAX_LINE_BYTES];
    let mut filled = 0;
    let mut total = 0;
    // Set while the rest of a line that is too long is being skipped.
    let mut skipping = false;
    loop {
        let got = rustix::io::read(file, &mut buffer[filled..])?;
        total += got;
        filled += got;
        let mut start = 0;
        while let Some(end) = buffer[start..filled].iter().position(|b| *b == b'\n') {
            let line = &buffer[start..start + end];
            if !std::mem::take(&mut skipping) && !visit(line) {
                return Ok(());
            }
            start += end + 1;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
        if got == 0 || total >= MAX_FILE_BYTES {
            if filled > 0 && !skipping {
                visit(&buffer[..filled]);
            }
            return Ok(());
        }
        if filled == buffer.len() {
            skipping = true;
            filled = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn root(passwd: &str, group: &str) -> (std::path::PathBuf, OwnedFd) {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("gantry-user-{}-{number}", std::process::id()));
        std::fs::create_dir_all(dir.join("etc")).unwrap();
        std::fs::write(dir.join("etc/passwd"), passwd).unwrap();
        std::fs::write(dir.join("etc/group"), group).unwrap();
        let fd = rustix::fs::open(&dir, OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        (dir, fd)
    }

    fn name(text: &str) -> Name {
        Name::Name(std::ffi::CString::new(text).unwrap())
    }

    #[test]
    fn names_numbers_and_memberships() {
        let long = "x".repeat(3 * MAX_LINE_BYTES);
        let passwd = format!("root:x:0:0::/:/bin/sh\n{long}\nweb:x:1000:1001:Web:/w:/bin/sh");
        let (dir, fd) = root(&passwd, "staff:x:50:a,web\nweb:x:1001:\nx:x:bad:web\n");
        let found = look_up(
            fd.as_fd(),
            &Who::LookUp {
                user: name("web"),
                group: None,
            },
        )
        .unwrap();
        assert_eq!((found.uid, found.gid), (1000, 1001));
        assert_eq!(found.groups(), [Gid::from_raw(50)]);
        let who = Who::LookUp {
            user: Name::Id(1000),
            group: Some(name("staff")),
        };
        let found = look_up(fd.as_fd(), &who).unwrap();
        assert_eq!((found.uid, found.gid, found.groups().len()), (1000, 50, 0));
        let who = Who::LookUp {
            user: Name::Id(7),
            group: None,
        };
        assert_eq!(look_up(fd.as_fd(), &who).unwrap().gid, 0);
        let who = Who::LookUp {
            user: name("nobody"),
            group: None,
        };
        assert_eq!(look_up(fd.as_fd(), &who).unwrap_err(), Fault::NoUser);
        let who = Who::LookUp {
            user: name("web"),
            group: Some(name("none")),
        };
        assert_eq!(look_up(fd.as_fd(), &who).unwrap_err(), Fault::NoGroup);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_number_that_does_not_fit_is_no_user_rather_than_root() {
        let (dir, fd) = root(
            "evil:x:4294967296:0::/:\nodd:x:-1:0::/:\nmax:x:4294967295:0::/:\n",
            "",
        );
        for user in ["evil", "odd", "max"] {
            let who = Who::LookUp {
                user: name(user),
                group: None,
            };
            assert_eq!(look_up(fd.as_fd(), &who).unwrap_err(), Fault::NoUser);
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
