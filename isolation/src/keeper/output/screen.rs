//! Who watches a terminal: pipes that what comes out of it is written into, besides the file.
//!
//! Invariant: nobody who watches holds up the container. Whoever has no room for all that comes is
//! cut off and finds the end of its pipe; that may be its own fault only, so nothing is kept for it.
//! (Mesos's switchboard keeps everything in memory instead, without a bound.)

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};

/// Watchers of one terminal.
const MAX_WATCHERS: usize = 16;

/// The watchers of one terminal.
#[derive(Debug)]
pub(super) struct Screen {
    watchers: Vec<OwnedFd>,
    /// Our own way in, so that the terminal does not end while for a moment nobody has it open.
    peer: Option<OwnedFd>,
}

impl Screen {
    pub(super) fn new(master: &OwnedFd) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        Self {
            watchers: Vec::new(),
            peer: ioctl_tiocgptpeer(master, flags).ok(),
        }
    }

    /// The container ended: so does the terminal, once it is read to its end.
    pub(super) fn finish(&mut self) {
        self.peer = None;
    }

    /// Takes one more watcher in, if there is room when those that left are gone.
    pub(super) fn join(&mut self, watcher: OwnedFd) {
        if self.watchers.len() >= MAX_WATCHERS {
            self.watchers.retain(is_read);
        }
        if self.watchers.len() < MAX_WATCHERS && rustix::io::ioctl_fionbio(&watcher, true).is_ok() {
            self.watchers.push(watcher);
        }
    }

    pub(super) fn show(&mut self, bytes: &[u8]) {
        self.watchers
            .retain(|watcher| rustix::io::write(watcher, bytes) == Ok(bytes.len()));
    }
}

/// Whether the pipe still has its other end.
fn is_read(watcher: &OwnedFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(
        watcher.as_fd(),
        PollFlags::empty(),
    )];
    let now = Timespec::default();
    poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().contains(PollFlags::ERR)
}
