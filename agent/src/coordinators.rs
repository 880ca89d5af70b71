//! Where the coordinators of a cluster are, and which of them is asked next: the one that another
//! named as the leader, else the one that took this agent last, else each in turn.
//!
//! It deliberately keeps no connection and knows no backoff: that is the session's. Invariant: over
//! TCP nothing is said to anybody who does not prove that it knows the cluster's secret.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gantry_link::Connecting;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// Coordinators that may be named.
const COORDINATORS_MAX: usize = 16;
/// How long one of them may take to be reached.
const REACH_MAX: Duration = Duration::from_secs(3);

/// Where one coordinator is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// On this machine: who may open the socket may register.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// Why text names no coordinator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Neither form.
    #[error("'{0}' is neither host:port nor unix:PATH")]
    Shape(String),
    /// More than sixteen.
    #[error("more than {COORDINATORS_MAX} coordinators")]
    Many,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = || TargetError::Shape(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err(shape())
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(shape)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        let is_host = match bare {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.contains(odd),
        };
        let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
        if is_host && is_port {
            Ok(Self::Tcp(text.to_owned()))
        } else {
            Err(shape())
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

impl Target {
    /// Several, with commas between them.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn list(text: &str) -> Result<Vec<Self>, TargetError> {
        let list: Result<Vec<Self>, TargetError> =
            text.split(',').map(|t| t.trim().parse()).collect();
        list.and_then(|list| {
            if list.len() > COORDINATORS_MAX {
                Err(TargetError::Many)
            } else {
                Ok(list)
            }
        })
    }
}

/// A stream to a coordinator, of whatever kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// How a session gets its stream. Closures are the simplest form: one coordinator, which is asked
/// again and again.
pub trait Connect: Send + Sync + 'static {
    /// What it gives.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Reaches a coordinator.
    fn connect(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// The coordinator that was reached last says that another one leads.
    fn leader_at(&self, _address: &str) {}

    /// The coordinator that was reached last took the registration.
    fn accepted(&self) {}
}

impl<C, F, S> Connect for C
where
    C: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<S>> + Send,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Stream = S;

    fn connect(&self) -> impl Future<Output = io::Result<S>> + Send {
        self()
    }
}

/// Which one is asked next.
#[derive(Debug, Default)]
struct Turn {
    at: usize,
    /// The one in use.
    last: usize,
    leader: Option<Target>,
}

/// The coordinators of a cluster.
#[derive(Debug)]
pub struct Coordinators {
    targets: Vec<Target>,
    /// Without it only sockets of this machine are asked.
    link: Option<Connecting>,
    turn: Mutex<Turn>,
}

impl Coordinators {
    /// With the keys that addresses need.
    #[must_use]
    pub fn new(targets: Vec<Target>, link: Option<Connecting>) -> Self {
        let turn = Mutex::default();
        Self {
            targets,
            link,
            turn,
        }
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reach(&self, target: &Target) -> io::Result<Box<dyn Stream>> {
        match target {
            Target::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Target::Tcp(address) => {
                let link = self.link.as_ref().ok_or(io::ErrorKind::PermissionDenied)?;
                let stream = TcpStream::connect(address.as_str()).await?;
                // Small messages must not wait for more.
                stream.set_nodelay(true)?;
                Ok(Box::new(link.connect(stream).await?))
            }
        }
    }
}

impl Connect for Coordinators {
    type Stream = Box<dyn Stream>;

    async fn connect(&self) -> io::Result<Self::Stream> {
        let (leader, first) = {
            let mut turn = self.turn();
            (turn.leader.take(), turn.at)
        };
        let count = self.targets.len();
        let turns = (0..count).map(|i| (first + i) % count);
        let listed = turns.map(|at| (Some(at), &self.targets[at]));
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for (at, target) in leader.iter().map(|leader| (None, leader)).chain(listed) {
            let reached = timeout(REACH_MAX, self.reach(target)).await;
            match reached.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    let mut turn = self.turn();
                    if let Some(at) = at {
                        // Whoever does not take us is asked last, the next time.
                        (turn.last, turn.at) = (at, (at + 1) % count);
                    } else if let Some(at) = self.targets.iter().position(|t| t == target) {
                        turn.last = at;
                    }
                    return Ok(stream);
                }
                Err(error) => {
                    failed = io::Error::new(error.kind(), format!("{target}: {error}"));
                    tracing::debug!("a coordinator: {failed}");
                }
            }
        }
        Err(failed)
    }

    fn leader_at(&self, address: &str) {
        match Target::from_str(address) {
            // Paths are this machine's, and nobody else's business.
            Ok(target @ Target::Tcp(_)) => self.turn().leader = Some(target),
            _ => tracing::warn!("a coordinator names '{address}' as the leader"),
        }
    }

    fn accepted(&self) {
        let mut turn = self.turn();
        turn.at = turn.last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let tcp = |text: &str| Ok(Target::Tcp(text.to_owned()));
        for (text, want) in [
            ("10.0.0.1:5052", tcp("10.0.0.1:5052")),
            ("master-1.example:1", tcp("master-1.example:1")),
            ("[fd00::1]:5052", tcp("[fd00::1]:5052")),
            ("unix:/run/a.sock", Ok(Target::Unix("/run/a.sock".into()))),
        ] {
            assert_eq!(text.parse::<Target>(), want);
            assert_eq!(want.unwrap().to_string(), text);
        }
        for text in [
            "",
            "a",
            "a:",
            ":1",
            "a:0",
            "a:70000",
            "fd00::1:1",
            "[x]:1",
            "unix:a",
            "a b:1",
            "zk://a:1",
        ] {
            assert!(
                matches!(text.parse::<Target>(), Err(TargetError::Shape(_))),
                "{text}"
            );
        }
        assert_eq!(Target::list("a:1, b:2").unwrap().len(), 2);
        assert!(Target::list("a:1,").is_err());
        assert_eq!(Target::list(&["a:1"; 17].join(",")), Err(TargetError::Many));
    }

    /// Sockets of which only some listen.
    #[tokio::test]
    async fn each_is_tried_and_the_one_that_took_us_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let listen = |name: &str| tokio::net::UnixListener::bind(path(name)).unwrap();
        let targets = ["a", "b", "c"]
            .map(|name| Target::Unix(path(name)))
            .to_vec();
        let coordinators = Coordinators::new(targets, None);
        assert!(coordinators.connect().await.is_err());
        let (b, c) = (listen("b"), listen("c"));
        let mut connected = Vec::new();
        connected.push(coordinators.connect().await.unwrap());
        b.accept().await.unwrap();
        // It did not take us: the next one is asked, and that one does.
        connected.push(coordinators.connect().await.unwrap());
        c.accept().await.unwrap();
        coordinators.accepted();
        connected.push(coordinators.connect().await.unwrap());
        c.accept().await.unwrap();
        // Without a secret nobody is asked over TCP, whoever leads.
        coordinators.leader_at("127.0.0.1:1");
        coordinators.leader_at("unix:/x");
        assert_eq!(
            coordinators.turn().leader,
            Some(Target::Tcp("127.0.0.1:1".into()))
        );
        coordinators.accepted();
        connected.push(coordinators.connect().await.unwrap());
        c.accept().await.unwrap();
        assert_eq!(coordinators.turn().leader, None);
    }
}
