//! Opens what a workload may have made, without being led anywhere by it: links never leave the
//! sandbox (`RESOLVE_BENEATH`, openat2(2)), no other file system is entered, and nothing but a
//! regular file or directory is ever opened for reading, so a FIFO cannot block and a device
//! cannot be touched.
//!
//! The file is first opened with `O_PATH`, which does nothing to it, looked at, and then opened
//! again through its descriptor: what was looked at is what is read. All of it blocking.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use gantry_wire::ids::ContainerId;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::problem::Problem;
use super::sandbox_path::SandboxPath;

/// What was found inside a sandbox.
#[derive(Debug)]
pub(super) enum Found {
    /// A regular file, open for reading.
    File(File),
    /// A directory, open for listing.
    Directory(OwnedFd),
}

/// Opens the place that a checked path names. `slaves` is the root of all sandboxes.
pub(super) fn open(slaves: &Path, path: &SandboxPath) -> Result<Found, Problem> {
    let problem = |errno: Errno| problem(errno, path);
    // Everything above a sandbox is ours alone; it holds no links but `latest`.
    let ours = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let none = Mode::empty();
    let root = rustix::fs::openat(CWD, slaves, directory, none).map_err(problem)?;
    let runs = rustix::fs::openat2(&root, &path.runs, directory, none, ours).map_err(problem)?;
    let run = match &path.run {
        Some(run) => run.clone(),
        None => latest(&runs).map_err(problem)?,
    };
    let sandbox =
        rustix::fs::openat2(&runs, run.as_str(), directory, none, ours).map_err(problem)?;
    let theirs = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let inside = if path.inside.as_os_str().is_empty() {
        Path::new(".")
    } else {
        &path.inside
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = rustix::fs::openat2(&sandbox, inside, flags, none, theirs).map_err(problem)?;
    let stat = rustix::fs::fstat(&found).map_err(problem)?;
    match file_type(&stat) {
        FileType::RegularFile => reopen(&found, OFlags::NONBLOCK)
            .map(File::from)
            .map(Found::File),
        FileType::Directory => reopen(&found, OFlags::DIRECTORY).map(Found::Directory),
        _ => Err(Errno::OPNOTSUPP),
    }
    .map_err(problem)
}

/// A regular file in a directory of a sandbox, by its very name; None when there is none.
pub(super) fn file_in(dir: &OwnedFd, name: &str) -> io::Result<Option<File>> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
        Ok(found) => found,
        // A link or a mount there is nothing that the outlet made.
        Err(Errno::NOENT | Errno::LOOP | Errno::XDEV) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    if file_type(&rustix::fs::fstat(&found)?) != FileType::RegularFile {
        return Ok(None);
    }
    let file = reopen(&found, OFlags::NONBLOCK)?;
    Ok(Some(File::from(file)))
}

pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The same file, open for reading.
fn reopen(found: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::openat(CWD, itself, flags, Mode::empty())
}

fn latest(runs: &OwnedFd) -> Result<ContainerId, Errno> {
    let target = rustix::fs::readlinkat(runs, "latest", Vec::new())?;
    let target = target.into_string().map_err(|_| Errno::NOENT)?;
    ContainerId::parse(target).map_err(|_| Errno::NOENT)
}

fn problem(errno: Errno, path: &SandboxPath) -> Problem {
    let inside = path.inside.display();
    match errno {
        Errno::NOENT | Errno::NOTDIR => Problem::NotFound("No such file or directory".to_owned()),
        Errno::XDEV | Errno::LOOP => {
            Problem::Forbidden(format!("'{inside}' leads out of the sandbox"))
        }
        Errno::OPNOTSUPP => {
            Problem::BadRequest(format!("'{inside}' is neither a file nor a directory"))
        }
        errno => Problem::Internal(io::Error::from(errno).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_isolation::disk::Backend;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_in_a_sandbox_leads_out_or_blocks() {
        let root = tempfile::tempdir().unwrap();
        let sandbox = root.path().join("a/frameworks/f/executors/t/runs/c");
        crate::sandboxes::create(Backend::Accounting, &sandbox, true, None).unwrap();
        std::fs::write(root.path().join("secret"), "secret").unwrap();
        std::fs::write(sandbox.join("stdout"), "out").unwrap();
        std::fs::create_dir(sandbox.join("dir")).unwrap();
        symlink("../stdout", sandbox.join("dir/inner")).unwrap();
        symlink("/etc/passwd", sandbox.join("absolute")).unwrap();
        symlink("../../../../../../../secret", sandbox.join("relative")).unwrap();
        symlink("/", sandbox.join("slash")).unwrap();
        symlink("self", sandbox.join("self")).unwrap();
        let fifo = sandbox.join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let null = rustix::fs::makedev(1, 3);
        let device = sandbox.join("device");
        rustix::fs::mknodat(CWD, &device, FileType::CharacterDevice, Mode::RUSR, null).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(sandbox.join("socket")).unwrap();

        let open = |inside: &str| {
            let text = format!("/frameworks/f/executors/t/runs/latest/{inside}");
            open(
                root.path(),
                &SandboxPath::parse(&text, root.path(), Some("a")).unwrap(),
            )
        };
        for name in ["stdout", "dir/inner", "dir/./inner"] {
            let Ok(Found::File(mut file)) = open(name) else {
                panic!("{name}")
            };
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "out", "{name}");
        }
        assert!(matches!(open(""), Ok(Found::Directory(_))));
        assert!(matches!(open("dir"), Ok(Found::Directory(_))));
        for name in ["absolute", "relative", "slash", "slash/etc/passwd", "self"] {
            assert!(
                matches!(open(name), Err(Problem::Forbidden(_))),
                "{name}: {:?}",
                open(name)
            );
        }
        for name in ["fifo", "device", "socket"] {
            assert!(
                matches!(open(name), Err(Problem::BadRequest(_))),
                "{name}: {:?}",
                open(name)
            );
        }
        for name in ["nothing", "stdout/x"] {
            assert!(matches!(open(name), Err(Problem::NotFound(_))), "{name}");
        }
        drop(socket);
    }
}
