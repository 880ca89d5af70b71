//! One blob as a stream of verified length and digest, which survives broken connections.
//!
//! It decides when a break is worth another try: only when something had come, from where the
//! stream stopped, and not for ever when tries bring no new bytes. A server
//! that ignores the range sends it all again, and what is known is skipped. The caller gets each
//! byte once, and learns only at the end whether the whole was right.

use std::time::Duration;

use bytes::{Buf, Bytes};
use reqwest::Response;

use super::endpoint::{Ask, unreachable};
use super::{RegistryError, Session};
use crate::Digest;
use crate::manifest::Blob;
use gantry_intake::Hasher;
use gantry_intake::{Cause, cause, part_from};

/// Most tries in a row that bring nothing new, with a mirror: there is somebody else to ask. The
/// registry itself, which may be starting again, is waited for as long as for a silent one.
const MAX_FRUITLESS: u32 = 3;
/// Most tries in all.
const MAX_TRIES: u32 = 100;
/// The pause before the second try in a row that follows a fruitless one; doubled for each more.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// How often it is doubled.
const MAX_DOUBLED: u32 = 8;

/// Why a blob did not come.
#[derive(Debug)]
pub(crate) enum Undelivered {
    Registry(RegistryError),
    /// Longer or shorter than the manifest says.
    WrongSize,
    WrongDigest {
        actual: Digest,
    },
}

/// A blob on its way.
pub(crate) struct Download<'s, 'a> {
    session: &'s Session<'a>,
    blob: Blob,
    /// The body being read, and which endpoint it is from.
    body: Option<(Response, usize)>,
    hasher: Hasher,
    received: u64,
    /// Of the body: what came before.
    skip: u64,
    ranges: bool,
    fruitless: u32,
    tries: u32,
}

impl<'s, 'a> Download<'s, 'a> {
    pub(super) fn new(session: &'s Session<'a>, blob: Blob) -> Self {
        Self {
            session,
            blob,
            body: None,
            hasher: Hasher::new(),
            received: 0,
            skip: 0,
            ranges: true,
            fruitless: 0,
            tries: 0,
        }
    }

    /// The next bytes; `None` at the end, once size and digest are right.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Undelivered> {
        loop {
            let Some((body, endpoint)) = &mut self.body else {
                match self.connect().await {
                    Ok(()) => continue,
                    Err(Undelivered::Registry(error)) => {
                        self.again(error, None).await?;
                        continue;
                    }
                    Err(other) => return Err(other),
                }
            };
            let endpoint = *endpoint;
            match body.chunk().await {
                Ok(Some(mut chunk)) => {
                    let known = self.skip.min(chunk.len() as u64);
                    self.skip -= known;
                    // No more than the chunk's own length.
                    chunk.advance(usize::try_from(known).unwrap_or(chunk.len()));
                    if chunk.is_empty() {
                        continue;
                    }
                    self.received = self.received.saturating_add(chunk.len() as u64);
                    if self.received > self.blob.size_bytes {
                        return Err(Undelivered::WrongSize);
                    }
                    self.fruitless = 0;
                    self.hasher.update(&chunk);
                    return Ok(Some(chunk));
                }
                Ok(None) if self.received == self.blob.size_bytes => return self.verify(),
                Ok(None) => {
                    let cut = Cause::Broken("it ended too early".into());
                    self.broken(cut, endpoint).await?;
                }
                Err(error) => self.broken(cause(&error), endpoint).await?,
            }
        }
    }

    fn verify(&mut self) -> Result<Option<Bytes>, Undelivered> {
        let actual = std::mem::replace(&mut self.hasher, Hasher::new()).finish();
        if actual == self.blob.digest {
            Ok(None)
        } else {
            Err(Undelivered::WrongDigest { actual })
        }
    }

    async fn connect(&mut self) -> Result<(), Undelivered> {
        let from = Some(self.received).filter(|from| *from > 0 && self.ranges);
        let (response, endpoint) = match self.session.open_blob(self.blob.digest, from).await {
            Ok(opened) => opened,
            // Nothing is there where the stream stopped: it was the end.
            Err(RegistryError::Status { status: 416, .. }) => return Err(Undelivered::WrongSize),
            Err(error) => return Err(Undelivered::Registry(error)),
        };
        if response.status().as_u16() == 206 {
            if !self.continues(&response) {
                self.ranges = false;
                let cause = Cause::Broken("it sent another range than was asked for".into());
                let host = self.session.host_of(endpoint);
                return Err(Undelivered::Registry(unreachable((host, cause))));
            }
            self.skip = 0;
        } else {
            let length = response.content_length();
            if length.is_some_and(|length| length != self.blob.size_bytes) {
                return Err(Undelivered::WrongSize);
            }
            self.skip = self.received;
        }
        self.body = Some((response, endpoint));
        Ok(())
    }

    /// Whether a part goes on where the stream stopped.
    fn continues(&self, response: &Response) -> bool {
        part_from(response).is_some_and(|(first, size)| {
            first == self.received && size.is_none_or(|size| size == self.blob.size_bytes)
        })
    }

    async fn broken(&mut self, cause: Cause, endpoint: usize) -> Result<(), Undelivered> {
        self.body = None;
        let host = self.session.host_of(endpoint);
        self.again(unreachable((host, cause)), Some(endpoint)).await
    }

    /// Returns after a pause if another try makes sense.
    async fn again(
        &mut self,
        error: RegistryError,
        endpoint: Option<usize>,
    ) -> Result<(), Undelivered> {
        let nothing_came = self.received == 0;
        let is_tiring = nothing_came || self.fruitless >= MAX_FRUITLESS;
        if is_tiring && endpoint.is_some_and(|endpoint| self.session.leave(endpoint, &error)) {
            self.fruitless = 0;
            return Ok(());
        }
        // All pauses since something came, this one too: each is twice the one before.
        let doubled = self.fruitless.min(MAX_DOUBLED);
        let pauses = FIRST_PAUSE.saturating_mul((2 << doubled) - 1);
        let is_stuck = nothing_came || pauses > self.session.patience();
        if is_stuck || self.tries >= MAX_TRIES || !error.is_passing() {
            return Err(Undelivered::Registry(error));
        }
        tracing::debug!(%error, digest = %self.blob.digest, at = self.received, "going on with a blob");
        tokio::time::sleep(FIRST_PAUSE.saturating_mul(1 << doubled)).await;
        self.fruitless += 1;
        self.tries += 1;
        Ok(())
    }
}

/// What goes on where a stream stopped needs no words of its own.
pub(super) fn ask<'a>(path: &'a str, what: &'a str, from: Option<u64>) -> Ask<'a> {
    Ask {
        path,
        accept: "*/*",
        from,
        what,
    }
}
