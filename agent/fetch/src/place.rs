//! What was fetched, put where the task finds it. Blocking.
//!
//! It decides names and modes: a file keeps the name of its URI, or has the one that was asked for;
//! it is readable for everyone, and executable if that was asked for, in which case it is never
//! extracted. An archive from the cache leaves only its content, another one stays beside it, as
//! Mesos has it.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::archive::{self, Kind};
use crate::error::{Cause, FetchError};
use crate::fetcher::Fetched;
use crate::meter::Bounds;
use crate::sandbox::{Owner, Sandbox};

const MODE_FILE: u32 = 0o644;
const MODE_EXECUTABLE: u32 = 0o755;

/// Where things go, and within which bounds.
#[derive(Debug)]
pub struct Place<'a> {
    /// The sandbox, open for reading.
    pub sandbox: BorrowedFd<'a>,
    /// Whose everything is.
    pub owner: Owner,
    /// What all of it may take together.
    pub limit_bytes: Option<u64>,
    /// For each archive.
    pub bounds: Bounds,
    /// Once true, everything stops with an error.
    pub cancel: &'a AtomicBool,
}

/// Puts everything in place, in order: what comes later wins.
///
/// # Errors
/// The first that could not be placed. What was made until then stays.
pub fn place(fetched: &[Fetched], place: &Place<'_>) -> Result<(), FetchError> {
    let mut sandbox = Sandbox::new(place.sandbox, place.owner, place.limit_bytes, place.cancel);
    for one in fetched {
        let placed = place_one(one, place, &mut sandbox);
        placed.map_err(|cause| FetchError {
            uri: one.shown.clone(),
            cause: Arc::new(cause),
        })?;
    }
    Ok(())
}

fn place_one(one: &Fetched, place: &Place<'_>, sandbox: &mut Sandbox<'_>) -> Result<(), Cause> {
    let kind = String::from_utf8_lossy(one.name.bytes());
    let kind = Kind::of(&kind).filter(|_| one.extract);
    if kind.is_none() || one.keep_archive {
        let mode = if one.executable {
            MODE_EXECUTABLE
        } else {
            MODE_FILE
        };
        let file = sandbox.file(&one.name, mode)?;
        sandbox.copy(&file, &one.name, &one.file)?;
    }
    match kind {
        Some(kind) => {
            let (name, file) = (&one.name, &one.file);
            archive::extract(kind, name, file, &place.bounds, sandbox, place.cancel)
        }
        None => Ok(()),
    }
}
