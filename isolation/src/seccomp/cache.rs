//! Filters made once: most containers of a node have one of a few profiles and sets of
//! capabilities.
//!
//! A key is the profile's whole text, not a hash of it: two texts of one hash would give a
//! container another one's filter. It deliberately has no lock: the keeper has one thread.

use std::sync::Arc;

use super::{Host, Profile, Program, Seccomp, SeccompError};
use crate::caps::CapSet;

/// Programs kept; one more drops the one not used for longest.
pub const MAX_CACHED_PROGRAMS: usize = 32;

/// The programs of one machine.
#[derive(Debug)]
pub struct Cache {
    host: Host,
    /// The latest used is last.
    made: Vec<Made>,
}

#[derive(Debug)]
struct Made {
    wish: Seccomp,
    caps: CapSet,
    program: Arc<Program>,
}

impl Cache {
    /// An empty cache for `host`.
    pub fn new(host: Host) -> Self {
        Self {
            host,
            made: Vec::new(),
        }
    }

    /// The filter for a container with `caps`; None when it is to have none.
    ///
    /// # Errors
    /// A profile that is not understood or too large. Failures are not kept.
    pub fn program(
        &mut self,
        wish: &Seccomp,
        caps: CapSet,
    ) -> Result<Option<Arc<Program>>, SeccompError> {
        let profile = match wish {
            Seccomp::Unconfined => return Ok(None),
            Seccomp::Default | Seccomp::Profile(_) => wish,
        };
        let place = self
            .made
            .iter()
            .rposition(|made| made.caps == caps && made.wish == *profile);
        let made = match place {
            Some(place) => self.made.remove(place),
            None => self.make(wish, caps)?,
        };
        let program = Arc::clone(&made.program);
        if self.made.len() >= MAX_CACHED_PROGRAMS {
            self.made.remove(0);
        }
        self.made.push(made);
        Ok(Some(program))
    }

    fn make(&self, wish: &Seccomp, caps: CapSet) -> Result<Made, SeccompError> {
        let profile = match wish {
            Seccomp::Profile(text) => Profile::parse(text)?,
            Seccomp::Default | Seccomp::Unconfined => Profile::builtin(),
        };
        let program = Arc::new(Program::compile(&profile, caps, self.host)?);
        Ok(Made {
            wish: wish.clone(),
            caps,
            program,
        })
    }
}
