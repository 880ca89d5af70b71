//! A process for one change of a running container's groups: the kernel may reclaim memory, or wait
//! for processes to stand still, for as long as it likes, and the keeper waits for nobody.
//!
//! Its last words are empty when all went well. Invariant: one errand per container at a time.

use std::error::Error;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::start::message_pipe;
use crate::cgroup::{Change, Group};
use crate::child::{FIRST_FREE_FD, Fault, REPORT_FD};
use crate::spec::ContainerId;
use crate::sys::{self, Cloned, clone_flags};

/// Errands at once.
pub(super) const MAX_ERRANDS: usize = 64;
/// Length of its last words; they fit a pipe.
const MAX_WORDS: usize = 4000;

/// One errand.
#[derive(Debug)]
pub(super) struct Errand {
    /// Serial of the container.
    pub(super) container: u64,
    pub(super) id: ContainerId,
    /// Who asked, and hears of a failure.
    pub(super) client: u64,
    pub(super) change: Change,
    /// What the container's groups are after an update.
    pub(super) group: Option<Box<Group>>,
    pub(super) process: Process,
}

/// Its process.
#[derive(Debug)]
pub(super) struct Process {
    pidfd: OwnedFd,
    words: OwnedFd,
}

impl Process {
    /// Forks it. The caller makes sure that children are born in its own PID namespace.
    pub(super) fn start(change: &Change) -> Result<Self, Errno> {
        let (words, theirs) = message_pipe()?;
        match sys::clone3(clone_flags::PIDFD, None)? {
            Cloned::Child => run(change, &theirs),
            Cloned::Parent(_, pidfd) => Ok(Self {
                pidfd: pidfd.ok_or(Errno::BADF)?,
                words,
            }),
        }
    }

    /// Readable when it ended.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// What it said; only of use once it ended well.
    pub(super) fn words(&self) -> String {
        let mut bytes = [0; MAX_WORDS];
        let length = rustix::io::read(&self.words, &mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// Ends it where it is.
    pub(super) fn cancel(&self) {
        // Already ended is as good.
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
    }
}

fn run(change: &Change, words: &OwnedFd) -> ! {
    // What the keeper holds open must end with the keeper.
    let ready = sys::dup_to(words.as_fd(), REPORT_FD, true)
        .and_then(|()| sys::close_from(FIRST_FREE_FD.unsigned_abs()));
    // Failing to set the name harms nothing.
    let _ = rustix::thread::set_name(c"gantry-errand");
    let words = sys::adopt_fd(REPORT_FD);
    let done = ready.map_err(|errno| Fault::words(errno.raw_os_error()));
    let done = done.and_then(|()| change.make().map_err(|error| whole(&error)));
    let Err(text) = done else { sys::exit_now(0) };
    let text = text.as_bytes();
    // If the keeper is gone there is nobody to tell.
    let _ = rustix::io::write(&words, &text[..text.len().min(MAX_WORDS)]);
    sys::exit_now(0)
}

/// What failed and the kernel's word for why.
fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let own = error.downcast_ref::<std::io::Error>();
        let code = own.and_then(std::io::Error::raw_os_error);
        let words = code.map_or_else(|| error.to_string(), Fault::words);
        text = format!("{text}: {words}");
        source = error.source();
    }
    text
}
