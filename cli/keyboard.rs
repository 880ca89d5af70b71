//! The terminal that a person sits at: raw mode, its size, and the keys that let go of a task.
//!
//! Invariant: whoever made it raw holds a [`Raw`], and when that goes (at the end, on an error, in a
//! panic, on a signal that asks for the end) the terminal is as it was.

use std::io::{self, Read as _};

use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::failure::{Exit, Failure};

/// Bytes of input in one piece.
const PIECE_BYTES: usize = 32 << 10;
/// Pieces that wait to be sent.
const PIECES_MAX: usize = 2;
/// ctrl-P, then ctrl-Q: as with Docker and DC/OS.
const DETACH: [u8; 2] = [0x10, 0x11];

/// Whether keys come from a terminal.
pub(crate) fn is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stdin())
}

/// Rows and columns of the terminal that we write to, or read from.
pub(crate) fn size() -> Option<(u32, u32)> {
    let of = |size: Winsize| (u32::from(size.ws_row), u32::from(size.ws_col));
    let found = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin()));
    found.ok().map(of).filter(|size| *size != (0, 0))
}

/// Our terminal passes every key on as it is, until this goes.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// Takes effect at once.
    pub(crate) fn enter() -> Result<Self, Failure> {
        let failed = |errno: rustix::io::Errno| {
            let message = format!("cannot set the terminal up: {}", io::Error::from(errno));
            Failure::new(Exit::Failed, message)
        };
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // What was typed ahead is not for the shell.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// Our stdin in pieces, read by a thread of its own, since a read of a terminal or a file cannot be
/// given up. The channel ends with it.
pub(crate) fn read() -> mpsc::Receiver<Vec<u8>> {
    let (pieces, read) = mpsc::channel(PIECES_MAX);
    std::thread::spawn(move || {
        let mut stdin = io::stdin();
        let mut bytes = vec![0; PIECE_BYTES];
        loop {
            match stdin.read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return,
                Ok(got) if pieces.blocking_send(bytes[..got].to_vec()).is_err() => return,
                Ok(_) => {}
            }
        }
    });
    read
}

/// Changes of the terminal's size.
pub(crate) fn resizes() -> io::Result<Signal> {
    signal(SignalKind::window_change())
}

/// Waits for a signal that asks for the end; the failure that comes of it.
pub(crate) async fn told_to_end() -> Failure {
    let wait = async |kind: SignalKind| {
        match signal(kind) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        };
        let code = 128 + kind.as_raw_value();
        Failure::new(Exit::Remote(u8::try_from(code).unwrap_or(1)), "")
    };
    tokio::select! {
        end = wait(SignalKind::terminate()) => end,
        end = wait(SignalKind::hangup()) => end,
        end = wait(SignalKind::quit()) => end,
    }
}

/// Looks for the keys that detach in what is typed.
#[derive(Debug, Default)]
pub(crate) struct Detacher {
    /// Whether the last key was the first of the two, which is held back.
    armed: bool,
}

impl Detacher {
    /// What of the typed bytes is passed on, and whether the person then lets go.
    pub(crate) fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for &key in typed {
            if self.armed && key == DETACH[1] {
                return (passed, true);
            }
            if std::mem::replace(&mut self.armed, key == DETACH[0]) {
                passed.push(DETACH[0]);
            }
            if !self.armed {
                passed.push(key);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_both_keys_one_after_the_other_detach() {
        for (typed, want, lets_go) in [
            (&[&b"ls\r"[..]][..], &b"ls\r"[..], false),
            (&[b"\x10\x11"], b"", true),
            (&[b"a\x10", b"\x11"], b"a", true),
            (&[b"\x03\x10\x11rest"], b"\x03", true),
            (&[b"\x11\x10"], b"\x11", false),
            (&[b"\x10x\x11"], b"\x10x\x11", false),
            (&[b"\x10\x10\x11"], b"\x10", true),
            (&[b"\x10", b"", b"y"], b"\x10y", false),
        ] {
            let mut detacher = Detacher::default();
            let passed: Vec<(Vec<u8>, bool)> =
                typed.iter().map(|bytes| detacher.pass(bytes)).collect();
            let let_go = passed.iter().any(|(_, let_go)| *let_go);
            let keys: Vec<u8> = passed.into_iter().flat_map(|(keys, _)| keys).collect();
            assert_eq!((&keys[..], let_go), (want, lets_go), "{typed:?}");
        }
    }
}
