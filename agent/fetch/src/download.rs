//! One file from a server, into a file, over broken connections.
//!
//! It decides when another try makes sense: after a break that may pass, from where the stream
//! stopped if the server can say that it is still the same file (`If-Range`) or a checksum will,
//! from the beginning otherwise; as long as tries bring new bytes ([`FRUITLESS_MAX`] in a row may
//! not). A server that sends next to nothing for [`Client::stall`] is a break too. It does not know
//! what the file is for.

use std::time::Duration;

use gantry_intake::{Digest, Failed, Hasher, Reach, Timeouts, Transport, authority, part_from};
use reqwest::Response;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use crate::error::Cause;
use crate::sandbox::check_space;
use crate::target::Target;
use crate::validators::Validators;

/// Most tries in a row that bring nothing new, and most in all.
const FRUITLESS_MAX: u32 = 3;
const TRIES_MAX: u32 = 100;
/// What a try has to bring to be worth it: a server that drips is not waited for a hundred times.
const FRUIT_BYTES: u64 = 64 * 1024;
/// The pause before the second try in a row; doubled for each more.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// How long a server may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How often the space that is left on the disk is looked at, in bytes.
const SPACE_CHECK_BYTES: u64 = 64 << 20;

/// How files are asked for.
pub(crate) struct Client {
    transport: Transport,
    reach: Reach,
    stall: Duration,
    max_bytes: u64,
}

/// A server's answer.
pub(crate) enum Opened {
    /// The file is the one that is known.
    Same,
    New(Box<Body>),
}

/// A file on its way.
pub(crate) struct Body {
    response: Response,
    host: String,
    pub(crate) validators: Validators,
    pub(crate) length: Option<u64>,
}

/// A file that came whole.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
    pub(crate) validators: Validators,
}

/// What is wanted of a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) target: &'a Target,
    /// A checksum is compared at the end.
    pub(crate) pinned: bool,
}

/// Told how much came, of how much.
pub(crate) type Told<'a> = &'a (dyn Fn(u64, Option<u64>) + Send + Sync);

impl Client {
    pub(crate) fn new(hosts: Vec<String>, stall: Duration, max_bytes: u64) -> Self {
        let reach = Reach::files(hosts);
        let timeouts = Timeouts {
            connect: CONNECT_MAX,
            // What matters is looked at here; this one is for what hangs below.
            stall: stall.saturating_mul(2),
            document: stall,
        };
        Self {
            transport: Transport::files(timeouts, &reach),
            reach,
            stall,
            max_bytes,
        }
    }

    /// Asks for a file; `known`: only if it is not that one.
    pub(crate) async fn open(
        &self,
        ask: Ask<'_>,
        known: Option<&Validators>,
    ) -> Result<Opened, Cause> {
        let mut headers = HeaderMap::new();
        if let Some(known) = known {
            known.unless_same(&mut headers);
        }
        let mut tries = Tries::default();
        loop {
            match self.request(ask, headers.clone()).await {
                Ok(response) if known.is_some() && response.status().as_u16() == 304 => {
                    return Ok(Opened::Same);
                }
                Ok(response) => match self.body(response) {
                    Ok(body) => return Ok(Opened::New(Box::new(body))),
                    Err(cause) => tries.again(cause).await?,
                },
                Err(cause) => tries.again(cause).await?,
            }
        }
    }

    /// Writes what comes into the empty file `into`.
    pub(crate) async fn receive(
        &self,
        ask: Ask<'_>,
        body: Box<Body>,
        into: &mut File,
        told: Told<'_>,
    ) -> Result<Received, Cause> {
        let mut taken = Taken {
            hasher: Hasher::new(),
            bytes: 0,
            unchecked_bytes: SPACE_CHECK_BYTES,
            into,
            told,
        };
        let mut tries = Tries::default();
        let mut body = *body;
        loop {
            let before = taken.bytes;
            let cause = match self.take(&mut body, &mut taken).await {
                Ok(()) => break,
                Err(cause) => cause,
            };
            if taken.bytes >= before.saturating_add(FRUIT_BYTES) {
                tries.fruitless = 0;
            }
            tries.again(cause).await?;
            body = loop {
                match self.go_on(ask, &body, &mut taken).await {
                    Ok(body) => break body,
                    Err(cause) => tries.again(cause).await?,
                }
            };
        }
        let written = taken.into.flush().await;
        written.map_err(|error| Cause::io("write", b"", error))?;
        Ok(Received {
            bytes: taken.bytes,
            digest: taken.hasher.finish(),
            validators: body.validators,
        })
    }

    async fn request(&self, ask: Ask<'_>, mut headers: HeaderMap) -> Result<Response, Cause> {
        let Target { url, authorization } = ask.target;
        let permitted = self.reach.permits(url);
        permitted.map_err(|why| Cause::Forbidden {
            host: authority(url),
            why: why.to_owned(),
        })?;
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let sent = self.transport.get(url, &headers, &self.reach).await;
        sent.map_err(|failed: Failed| Cause::of(failed))
    }

    fn body(&self, response: Response) -> Result<Body, Cause> {
        let host = authority(response.url());
        let status = response.status().as_u16();
        if status != 200 {
            return Err(Cause::Status { host, status });
        }
        let length = response.content_length();
        if length.is_some_and(|length| length > self.max_bytes) {
            return Err(self.too_big());
        }
        Ok(Body {
            validators: Validators::of(&response),
            response,
            host,
            length,
        })
    }

    fn too_big(&self) -> Cause {
        Cause::TooBig {
            limit_bytes: self.max_bytes,
        }
    }

    /// Takes what comes until the end, a break, or a stall.
    async fn take(&self, body: &mut Body, taken: &mut Taken<'_>) -> Result<(), Cause> {
        let least = self.stall.as_secs().max(1);
        let mut until = Instant::now() + self.stall;
        let mut lately = 0_u64;
        loop {
            let chunk = timeout_at(until, body.response.chunk()).await;
            if Instant::now() >= until {
                if lately < least && !matches!(chunk, Ok(Ok(None))) {
                    let (host, seconds) = (body.host.clone(), least);
                    return Err(Cause::Stalled { host, seconds });
                }
                (until, lately) = (Instant::now() + self.stall, 0);
            }
            let chunk = match chunk {
                Err(_) => continue,
                Ok(Err(error)) => {
                    return Err(Cause::of((body.host.clone(), gantry_intake::cause(&error))));
                }
                Ok(Ok(chunk)) => chunk,
            };
            let Some(chunk) = chunk else {
                let is_whole = body.length.is_none_or(|length| length == taken.bytes);
                let short = Cause::WrongSize(body.host.clone());
                return is_whole.then_some(()).ok_or(short);
            };
            lately = lately.saturating_add(chunk.len() as u64);
            let after = taken.bytes.saturating_add(chunk.len() as u64);
            if after > self.max_bytes {
                return Err(self.too_big());
            }
            taken.write(&chunk, body.length).await?;
        }
    }

    /// Asks for the rest of a file that broke off, or for all of it.
    async fn go_on(
        &self,
        ask: Ask<'_>,
        before: &Body,
        taken: &mut Taken<'_>,
    ) -> Result<Body, Cause> {
        let mut headers = HeaderMap::new();
        let strong = before.validators.strong();
        let range = HeaderValue::from_str(&format!("bytes={}-", taken.bytes));
        if taken.bytes > 0
            && (strong.is_some() || ask.pinned)
            && let Ok(range) = range
        {
            headers.insert(RANGE, range);
            if let Some(strong) = strong {
                headers.insert(IF_RANGE, strong);
            }
        }
        let response = self.request(ask, headers).await?;
        let continues = response.status().as_u16() == 206
            && part_from(&response).is_some_and(|(first, size)| {
                let same = |size| before.length.is_none_or(|before| before == size);
                first == taken.bytes && size.is_none_or(same)
            });
        if continues {
            tracing::debug!(at = taken.bytes, "going on with a file");
            return Ok(Body {
                host: authority(response.url()),
                response,
                validators: before.validators.clone(),
                length: before.length,
            });
        }
        if matches!(response.status().as_u16(), 206 | 416) {
            // Another part than was asked for, or none: all of it, then.
            taken.restart().await?;
            return self.body(self.request(ask, HeaderMap::new()).await?);
        }
        let body = self.body(response)?;
        taken.restart().await?;
        Ok(body)
    }
}

/// What came so far.
struct Taken<'a> {
    hasher: Hasher,
    bytes: u64,
    unchecked_bytes: u64,
    into: &'a mut File,
    told: Told<'a>,
}

impl Taken<'_> {
    async fn write(&mut self, chunk: &[u8], of: Option<u64>) -> Result<(), Cause> {
        self.unchecked_bytes += chunk.len() as u64;
        if self.unchecked_bytes >= SPACE_CHECK_BYTES {
            self.unchecked_bytes = 0;
            check_space(&*self.into)?;
        }
        self.hasher.update(chunk);
        let written = self.into.write_all(chunk).await;
        written.map_err(|error| Cause::io("write", b"", error))?;
        self.bytes += chunk.len() as u64;
        (self.told)(self.bytes, of);
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), Cause> {
        let fail = |operation| move |error| Cause::io(operation, b"", error);
        self.into.flush().await.map_err(fail("write"))?;
        self.into.set_len(0).await.map_err(fail("truncate"))?;
        self.into.rewind().await.map_err(fail("seek"))?;
        (self.hasher, self.bytes) = (Hasher::new(), 0);
        Ok(())
    }
}

/// How often something was tried.
#[derive(Default)]
struct Tries {
    fruitless: u32,
    all: u32,
}

impl Tries {
    /// Returns after a pause if another try makes sense.
    async fn again(&mut self, cause: Cause) -> Result<(), Cause> {
        if !cause.is_passing() || self.fruitless >= FRUITLESS_MAX || self.all >= TRIES_MAX {
            return Err(cause);
        }
        tracing::debug!(%cause, "trying again");
        tokio::time::sleep(FIRST_PAUSE.saturating_mul(1 << self.fruitless)).await;
        self.fruitless += 1;
        self.all += 1;
        Ok(())
    }
}
