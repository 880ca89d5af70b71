//! Registry authentication: what a server would take, whose login is shown, which tokens are kept.
//!
//! It decides how a `config.json` is read and matched ([`credentials`]), how a challenge is read
//! ([`challenge`]), whose login counts ([`keyring`]) and how long a token is kept ([`token`]). It
//! sends nothing itself: [`crate::registry`] does, and decides where a login may go.

pub(crate) mod challenge;
pub(crate) mod credentials;
pub(crate) mod keyring;
mod program;
pub(crate) mod secret;
pub(crate) mod token;
