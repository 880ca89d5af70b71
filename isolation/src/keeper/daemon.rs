//! How the keeper's process comes up: arguments, lock, its own session, and the socket.
//!
//! The foreground process lives until the daemon listens, and carries its first error to stderr.
//! The keeper is not made a subreaper: every descendant that could be orphaned lives in a PID
//! namespace, whose own PID 1 gets it. It stays in the host's mount namespace, so that a volume that
//! the host mounts later is there for later containers.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{DumpableBehavior, Resource, Rlimit};

use super::ids::UserPool;
use super::{host, launch, outlet, server, sweeper};
use crate::cgroup::{self, CgroupError};
use crate::child::{FIRST_FREE_FD, KEEPER_IGNORES};
use crate::sys::{self, Cloned};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;
/// Exit code of a keeper that found another one.
pub(super) const ANOTHER_RUNS: u8 = 75;

/// Why the keeper did not come up.
#[derive(Debug, thiserror::Error)]
enum DaemonError {
    #[error("usage: keeper --dir DIR --cgroup-parent NAME")]
    Usage,
    #[error("another keeper holds {0}")]
    Another(String),
    #[error("{call}")]
    Call {
        call: &'static str,
        #[source]
        errno: Errno,
    },
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("the keeper has more than one thread; it must start before any runtime")]
    Threads,
}

/// The error with everything behind it, on one line.
fn whole(error: &DaemonError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn call(call: &'static str) -> impl FnOnce(Errno) -> DaemonError {
    move |errno| DaemonError::Call { call, errno }
}

/// What the arguments said.
struct Options {
    dir: PathBuf,
    cgroup_parent: String,
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Option<Options> {
    let (mut dir, mut cgroup_parent) = (None, None);
    let mut args = args.into_iter();
    while let Some(flag) = args.next() {
        let value = args.next()?;
        match flag.to_str()? {
            "--dir" => dir = Some(PathBuf::from(value)),
            "--cgroup-parent" => cgroup_parent = value.into_string().ok(),
            _ => return None,
        }
    }
    Some(Options {
        dir: dir.filter(|dir| dir.is_absolute())?,
        cgroup_parent: cgroup_parent?,
    })
}

/// The keeper's program: call it before any thread exists, with the arguments after the role. It
/// returns in the foreground process, once the daemon listens, and in the daemon, when it ends.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    // That it has none is the agent's own wish, which is inherited; containers have what the host has.
    let _ = rustix::thread::disable_transparent_huge_pages(false);
    let result = parse(args)
        .ok_or(DaemonError::Usage)
        .and_then(|options| run(&options));
    match result {
        Ok(code) => code,
        Err(error) => {
            // Nobody to tell if stderr is gone.
            let _ = writeln!(std::io::stderr(), "gantry keeper: {}", whole(&error));
            match error {
                DaemonError::Another(_) => ExitCode::from(ANOTHER_RUNS),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, DaemonError> {
    // clone3 copies only the calling thread; a lock that another held would stay held in the child.
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads > 1 {
        return Err(DaemonError::Threads);
    }
    let lock = take_lock(&options.dir)?;
    let (ready, readiness) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(call("make a pipe"))?;
    match sys::clone3(0, None).map_err(call("fork"))? {
        Cloned::Parent(..) => {
            drop(readiness);
            Ok(wait_for_daemon(&ready))
        }
        Cloned::Child => {
            drop(ready);
            daemon(options, lock, readiness)
        }
    }
}

/// One byte means that the daemon listens; its absence, that it has said why not on stderr.
fn wait_for_daemon(ready: &OwnedFd) -> ExitCode {
    let mut byte = [0];
    match rustix::io::read(ready, &mut byte) {
        Ok(1) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn take_lock(dir: &Path) -> Result<OwnedFd, DaemonError> {
    let path = dir.join("keeper.lock");
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let lock = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
        .map_err(call("open the lock file"))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => Err(DaemonError::Another(path.display().to_string())),
        Err(errno) => Err(call("lock")(errno)),
    }
}

fn daemon(options: &Options, lock: OwnedFd, readiness: OwnedFd) -> Result<ExitCode, DaemonError> {
    rustix::process::setsid().map_err(call("make a session"))?;
    sys::default_signals();
    sys::find_arguments();
    sys::find_spare_memory();
    for signo in KEEPER_IGNORES {
        sys::ignore_signal(signo, true);
    }
    // Children inherit it until they exec: nothing in a container can open their memory or program.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(call("become undumpable"))?;
    // The name in process lists; failing to set it harms nothing.
    let _ = rustix::thread::set_name(c"gantry-keeper");
    let [lock, readiness] = reserve_low_descriptors([lock, readiness])?;
    let nofile = raise_descriptor_limit();
    rustix::process::chdir(c"/").map_err(call("change to /"))?;
    let mut facts = host::facts(&options.cgroup_parent);
    cgroup::prepare_parent(&mut facts.hierarchies, &options.cgroup_parent)?;
    let sweeper = sweeper::Sweeper::start().map_err(call("start the sweeper"))?;
    let outlet = outlet::Outlet::start().map_err(call("start the outlet"))?;
    let listener = listen(&options.dir)?;
    let mut keeper = server::Keeper::new(
        facts,
        listener,
        (sweeper, outlet),
        nofile,
        UserPool::new(&options.dir),
    )
    .map_err(call("make the event loop"))?;
    rustix::io::write(&readiness, b"1").map_err(call("tell the foreground process"))?;
    drop(readiness);
    detach_stderr(&options.dir)?;
    let outcome = keeper.serve();
    // Unlinked while the lock is still held, so that it cannot be a successor's.
    let _ = std::fs::remove_file(launch::socket_path(&options.dir));
    drop(lock);
    keeper.say_goodbye();
    outcome.map_err(call("wait for events"))?;
    Ok(ExitCode::SUCCESS)
}

/// Fills 0 to 9 with `/dev/null`, so that a child can place its own there without overwriting what
/// it still needs, moves `kept` above them and closes whatever else was inherited. stderr stays for
/// the words of a failing start.
fn reserve_low_descriptors<const N: usize>(
    kept: [OwnedFd; N],
) -> Result<[OwnedFd; N], DaemonError> {
    let mut moved = Vec::with_capacity(N);
    for (fd, number) in kept.into_iter().zip(FIRST_FREE_FD..) {
        // Out of the way first: another of them may have the number.
        let above = rustix::io::fcntl_dupfd_cloexec(&fd, FIRST_FREE_FD + 2 * N as i32)
            .map_err(call("move a descriptor"))?;
        drop(fd);
        moved.push((above, number));
    }
    let moved: Vec<OwnedFd> = moved
        .into_iter()
        .map(|(fd, number)| {
            sys::dup_to(fd.as_fd(), number, true)?;
            Ok(sys::adopt_fd(number))
        })
        .collect::<Result<_, _>>()
        .map_err(call("move a descriptor"))?;
    sys::close_from((FIRST_FREE_FD + N as i32).unsigned_abs())
        .map_err(call("close inherited descriptors"))?;
    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(call("open /dev/null"))?;
    for number in (0..FIRST_FREE_FD).filter(|number| *number != 2) {
        if null.as_raw_fd() != number {
            sys::dup_to(null.as_fd(), number, number > 2).map_err(call("reserve a descriptor"))?;
        }
    }
    if null.as_raw_fd() < FIRST_FREE_FD {
        // It is one of the reserved numbers itself.
        std::mem::forget(null);
    }
    moved.try_into().map_err(|_| DaemonError::Usage)
}

/// Later words go to a file of the directory, begun anew by each keeper.
fn detach_stderr(dir: &Path) -> Result<(), DaemonError> {
    let flags = OFlags::CREATE
        | OFlags::TRUNC
        | OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::NOFOLLOW
        | OFlags::CLOEXEC;
    let log = rustix::fs::open(dir.join("keeper.log"), flags, Mode::from_raw_mode(0o600))
        .map_err(call("open the log file"))?;
    sys::dup_to(log.as_fd(), 2, false).map_err(call("move stderr"))
}

/// A keeper of many containers needs many descriptors; containers get the old limit back.
fn raise_descriptor_limit() -> Rlimit {
    let old = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: old.maximum,
        maximum: old.maximum,
    };
    // The old limit then bounds the number of containers, each refusal being answered clearly.
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    old
}

fn listen(dir: &Path) -> Result<OwnedFd, DaemonError> {
    let path = launch::socket_path(dir);
    // The lock is ours, so a socket here is a dead keeper's.
    match rustix::fs::unlink(&path) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(call("remove the old socket")(errno)),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(call("make the socket"))?;
    let old_mask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = launch::with_address(dir, |address| rustix::net::bind(&socket, address));
    rustix::process::umask(old_mask);
    bound.map_err(call("bind the socket"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(call("listen"))?;
    Ok(socket)
}
