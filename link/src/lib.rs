//! Connections between the members of a cluster: TLS 1.3 in which both ends prove that they know
//! the cluster's secret.
//!
//! ```text
//! secret ── HKDF-SHA-256, one label an [`End`] ──► seed ──► Ed25519 key pair ──► raw public key
//! ```
//! Whoever has the secret has the four key pairs; an end presents its own (RFC 7250, no certificates,
//! so no names and no expiry to be wrong about) and takes no other than its peer's. TLS does the
//! rest: both sign the handshake with fresh randomness of both (RFC 8446 §4.4.3), and the channel's
//! keys are ephemeral, so a secret that leaks later does not open what was recorded. It deliberately
//! invents no cryptography, and knows nothing of what is said over a connection.
//!
//! Invariants: the secret and what is made of it is in no message, log or `Debug`; nothing older than
//! TLS 1.3, no resumption, no early data; a key for one purpose is worthless for the other, so a
//! connection cannot be reflected or carried from one listener to another.
//!
//! A peer can be asked for its public key by anybody, and a guess of the secret be tried on it: that
//! is why a short secret is refused ([`Secret::LEAST_BYTES`]).

mod keys;
mod secret;
#[cfg(test)]
mod tests;
mod tls;

pub use keys::{End, KeysError};
pub use secret::{Secret, SecretError};
pub use tls::{Accepting, Connecting};
